"""What a search varies: parameters over the keys of the command line, checked before the first trial."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fer.config.conf import choices_of, plain, spelled
from fer.config.errors import FerError, did_you_mean
from fer.config.hydra import composed, import_plugins
from fer.config.schema import build, check
from fer.config.settings import TrainSettings, leaves, mode

DIGITS = 4  # significant ones of a drawn number: it reads well, and is what the trial is told
FACES = "trials on other faces cannot be compared"
NEVER = {  # key or section -> why it is not searched
    "seed": "chance is nothing to be chosen; tune.seeds= takes the mean of several",
    "monitor": "trials are compared by it",
    "data": FACES,
    "trainer.limit_val": FACES,
    "trainer.overfit_batches": FACES,
    "trainer": "list the keys below it that are to vary",
    "experiment": "list the keys and groups that are to vary",
    "init_from": "name it on the command line",
    **dict.fromkeys(("resume", "plugins", "lr_finder", "sweep", "logger"), "no part of what a trial computes"),
}
STILL = ("data.batch_size", "data.image_size", "trainer.")  # allowed nevertheless, if not named above themselves

Compose = Callable[..., dict[str, Any]]  # of overrides, beside those of all trials


@dataclass(frozen=True)
class Span:
    """A range as YAML has it; both ends belong to it.

    Args:
        low: end.
        high: end.
        step: from one value to the next; None takes all between.
        log: evenly in the logarithm.
        when: other parameter -> its value, or list of values, without which this one is left alone.
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False
    when: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choices:
    """A list of choices as YAML has it, with a condition; ``when`` as of ``Span``."""

    choices: list[Any]
    when: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """A key that varies, over choices or a range.

    Args:
        key: of the command line, or a group.
        choices: plain values; empty for a range.
        span: the range.
        whole: the range is one of whole numbers.
        when: other parameter -> the texts of its values under which this one is varied.
    """

    key: str
    choices: Sequence[Any] = ()
    span: Span = Span(0, 0)
    whole: bool = False
    when: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The choices as overrides spell them."""
        return [spelled(choice) for choice in self.choices]

    @property
    def ends(self) -> Sequence[Any]:
        """The values that are checked: all choices, or both ends."""
        return self.choices or (self.span.low, self.span.high)

    def text(self, value: Any) -> str:
        """Return a drawn value as an override spells it; numbers with ``DIGITS`` digits, within the range."""
        if self.choices or self.whole:
            return str(value)
        return spelled(min(self.span.high, max(self.span.low, float(f"{value:.{DIGITS}g}"))))

    def applies(self, texts: Mapping[str, str]) -> bool:
        """Return whether it is varied, the other parameters having these values."""
        return all(texts.get(key) in values for key, values in self.when.items())

    def holds(self, value: Any) -> bool:
        """Return whether a plain value is one that may be drawn."""
        if self.choices:
            return spelled(value) in self.texts
        span = self.span
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not span.low <= value <= span.high:
            return False
        return span.step is None or _on_grid(value - span.low, span.step)

    def __str__(self) -> str:
        if self.choices:
            words = ", ".join(self.texts)
        else:
            span = self.span
            words = f"{span.low:g} to {span.high:g}" + (f" by {span.step:g}" if span.step else "")
            words += ", evenly in the logarithm" if span.log else ""
        conditions = " and ".join(f"{key}={' or '.join(values)}" for key, values in self.when.items())
        return words + (f", where {conditions}" if conditions else "")


# --- from YAML ------------------------------------------------------------------------------------------------------


def read(section: Mapping[str, Any], fixed: Mapping[str, str]) -> list[Parameter]:
    """Return the parameters that ``space`` describes, those with conditions last.

    Args:
        section: key -> range, list of choices, or None for nothing.
        fixed: key -> text, of what the command line sets: it is not varied.

    Raises:
        FerError: naming the key, what is wrong with it and what would be right.
    """
    named = [_parameter(key, held) for key, held in section.items() if held is not None]
    free = [parameter for parameter in named if parameter.key not in fixed]
    known = {parameter.key: parameter for parameter in named}
    kept = [_conditioned(parameter, known, fixed) for parameter in free]
    found = [parameter for parameter in kept if parameter is not None]
    if not found:
        told = " (the command line sets all of its keys)" if named else ""
        raise FerError(f"space: nothing varies{told}; choose another with space=, or set space.<key>=")
    return sorted(found, key=lambda parameter: bool(parameter.when))


def _parameter(key: str, held: Any) -> Parameter:
    where = f"space.{key}"
    _refuse(key, where)
    if isinstance(held, Mapping) and "choices" in held:
        choices = Choices(**check(Choices, held, where))
        return Parameter(key, _choices(choices.choices, where), when=choices.when)
    if isinstance(held, Mapping) and {"low", "high"} & set(held):
        span = Span(**check(Span, held, where))
        _refuse_span(span, where)
        return Parameter(key, span=span, when=span.when)
    if isinstance(held, list):
        return Parameter(key, _choices(held, where))
    raise FerError(
        f"{where}={held!r}: expected {{low: 0, high: 1}} or a list of choices, below the key as the command line has "
        f"it, such as optimizer.lr"
    )


def _refuse(key: str, where: str) -> None:
    for name, why in NEVER.items():
        below = key.startswith(f"{name}.") and not key.startswith(STILL)
        if key == name or below:
            raise FerError(f"{where}: is not searched: {why}")


def _choices(values: list[Any], where: str) -> list[Any]:
    texts = [spelled(value) for value in values]
    if len(set(texts)) < max(2, len(texts)):
        raise FerError(f"{where}=[{', '.join(texts)}]: expected at least two choices, each once")
    return values


def _refuse_span(span: Span, where: str) -> None:
    if not (math.isfinite(span.low) and math.isfinite(span.high) and span.low < span.high):
        raise FerError(f"{where}: low={span.low} must be below high={span.high}")
    if span.log and span.low <= 0:
        raise FerError(f"{where}: low={span.low} has no logarithm; it must be above 0")
    if span.log and span.step is not None:
        raise FerError(f"{where}: step and log exclude each other")
    if span.step is not None and (span.step <= 0 or not _on_grid(span.high - span.low, span.step)):
        raise FerError(f"{where}: step={span.step} does not lead from low={span.low} to high={span.high}")


def _on_grid(distance: float, step: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=1e-9)


def _conditioned(parameter: Parameter, known: Mapping[str, Parameter], fixed: Mapping[str, str]) -> Parameter | None:
    """Return a parameter with its conditions as texts, or None if what is fixed rules it out."""
    when = {}
    for key, values in parameter.when.items():
        where = f"space.{parameter.key}.when.{key}"
        other = known.get(key)
        if other is None or not other.choices or other.when or key == parameter.key:
            near = did_you_mean(key, [name for name, one in known.items() if one.choices])
            raise FerError(f"{where}: not a list of choices of this space, itself without when{near}")
        texts = [spelled(value) for value in (values if isinstance(values, list) else [values])]
        for text in texts:
            if text not in other.texts:
                raise FerError(
                    f"{where}={text}: the space has {', '.join(other.texts)}{did_you_mean(text, other.texts)}"
                )
        if key not in fixed:
            when[key] = texts
        elif fixed[key] not in texts:
            return None
    return replace(parameter, when=when)


# --- against what there is ------------------------------------------------------------------------------------------


def checked(parameters: Sequence[Parameter], told: Sequence[str]) -> list[Parameter]:
    """Return the parameters, each of whose values can be set and is allowed wherever it is varied.

    Every choice and both ends of every range are set, each by itself, and checked as a run's own settings are.

    Args:
        parameters: as ``read`` returns them.
        told: overrides of all trials.

    Raises:
        FerError: a key or choice that is not there, a value of the wrong type or out of range.
    """
    compose: Compose = functools.cache(lambda *context: plain(composed([*told, *context])))
    base = compose()
    _refuse_losses(parameters, base["monitor"])
    groups = [parameter for parameter in parameters if isinstance(base.get(parameter.key), Mapping)]
    for group in groups:
        if not group.choices:
            raise FerError(f"space.{group.key}: is a group, which has choices, such as [one, another]")
    settings = [("", build(TrainSettings, base))]
    made = []
    for parameter in parameters:
        configs: list[dict[str, Any]] = []
        for context in _contexts(parameter, groups):
            where = ", ".join(["space", *_relevant(parameter, context)]) + ": "
            with _said_of(where):
                found = _configurations(parameter, context, compose, group=parameter in groups)
                settings += [(where, build(TrainSettings, config)) for config in found]
            configs.append(compose(*context))
        made.append(replace(parameter, whole=_is_whole(parameter, configs)))
    _check_names(settings, base["plugins"])
    return made


def configured(parameters: Sequence[Parameter], told: Sequence[str]) -> dict[str, Any]:
    """Return key -> what is drawn where the configured value is, for the parameters that hold theirs.

    Args:
        parameters: as ``checked`` returns them.
        told: overrides of all trials.
    """
    values = dict(leaves(plain(composed(told)))) | choices_of(told)
    held = {parameter.key: parameter for parameter in parameters if parameter.key in values}
    return {
        key: spelled(values[key]) if parameter.choices else values[key]
        for key, parameter in held.items()
        if parameter.holds(values[key])
    }


def _refuse_losses(parameters: Sequence[Parameter], monitor: str) -> None:
    varied = [parameter.key for parameter in parameters if parameter.key.partition(".")[0] == "loss"]
    if varied and mode(monitor) == "min":
        raise FerError(
            f"space.{varied[0]}: varies the loss, by which monitor={monitor} compares; use monitor=accuracy/val, or "
            f"take it out: space.{varied[0]}=null"
        )


def _contexts(parameter: Parameter, groups: Sequence[Parameter]) -> list[tuple[str, ...]]:
    """Return the overrides under which a parameter is varied: its conditions, or each choice of each other group."""
    if parameter.when:
        values = [[f"{key}={text}" for text in texts] for key, texts in parameter.when.items()]
        return list(itertools.product(*values))
    others = [group for group in groups if group is not parameter and not group.when]
    first = {group.key: group.texts[0] for group in others}
    made = [first, *({**first, group.key: text} for group in others for text in group.texts[1:])]
    return [tuple(f"{key}={text}" for key, text in choices.items()) for choices in made]


def _relevant(parameter: Parameter, context: Sequence[str]) -> list[str]:
    """Return those of a context's overrides that decide whether there is the parameter."""
    keys = {parameter.key.partition(".")[0], *parameter.when}
    return [text for text in context if text.partition("=")[0] in keys]


def _configurations(
    parameter: Parameter, context: tuple[str, ...], compose: Compose, *, group: bool
) -> list[dict[str, Any]]:
    """Return the configurations in which the parameter has each of its choices, or its ends."""
    key = parameter.key
    if group:
        return [compose(*context, f"{key}={text}") for text in parameter.texts]
    config = compose(*context)
    if key not in dict(leaves(config)):
        under = _relevant(parameter, context)
        if under and not parameter.when:
            raise FerError(f"{key}: no such key there; say where it is varied: when: {{{key.partition('.')[0]}: ...}}")
        compose(*context, f"{key}={spelled(parameter.ends[0])}")  # says which key is near
        raise FerError(f"{key}: no such key")
    return [_with(config, key.split("."), end) for end in parameter.ends]


def _with(config: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a configuration in which the key at ``path`` has another value."""
    first, *rest = path
    return {**config, first: _with(config[first], rest, value) if rest else value}


def _is_whole(parameter: Parameter, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a range is one of whole numbers: it is written so, and the key does not hold a fraction now."""
    span = parameter.span
    written = all(isinstance(number, int) for number in (span.low, span.high, span.step or 1))
    held = [dict(leaves(config)).get(parameter.key) for config in configs]
    return not parameter.choices and written and not any(isinstance(value, float) for value in held)


def _check_names(settings: Sequence[tuple[str, TrainSettings]], plugins: Sequence[str]) -> None:
    """Check what the sections that choose by name are told; what is registered takes torch to know."""
    import_plugins(plugins)
    from fer.training.setup import check_names

    for where, one in settings:
        with _said_of(where):
            check_names(one)


@contextmanager
def _said_of(where: str) -> Iterator[None]:
    """Let an error say that it is the space's, and under which of its choices it comes up."""
    try:
        yield
    except FerError as error:
        raise FerError(f"{where}{error}") from error
