"""The space of a search: its parameters over keys of ``fer.train``.

It is checked before the first trial.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from fer.config.conf import choices_of, plain, spelled
from fer.config.errors import FerError, did_you_mean
from fer.config.hydra import composed
from fer.config.plugins import import_plugins
from fer.config.schema import build, check
from fer.config.settings import Config, TrainSettings, leaves, mode

DIGITS = 4  # significant digits of a drawn number: short to print, and exactly the trial's value
PLANNED = (  # reason why a budget takes no part in a search
    "gives each trial its own number of epochs, which pruning cannot compare; tune.hours= limits a search"
)
FACES = "trials on different faces cannot be compared"
NEVER = {  # key or section -> reason why it is not searched
    "seed": "the best seed is chance; tune.seeds= takes the mean of several",
    "monitor": "trials are compared by it",
    "data": FACES,
    "budget": PLANNED,
    "trainer.limit_val": FACES,
    "trainer.overfit_batches": FACES,
    "trainer": "list the keys in it that vary",
    "experiment": "list the keys and groups that vary",
    "init_from": "set it on the command line",
    **dict.fromkeys(("resume", "plugins", "lr_finder", "sweep", "logger"), "it does not change what a trial computes"),
}
STILL = ("data.batch_size", "data.image_size", "trainer.")  # searched nevertheless, unless in NEVER themselves

Ranges = Mapping[str, Any]  # key -> range or choices, as in a YAML file of conf/space
Compose = Callable[..., Config]  # function of overrides, added to those of all trials


@dataclass(frozen=True)
class Span:
    """A range as in YAML, both ends included.

    Args:
        low: lower end.
        high: upper end.
        step: distance of two values; None is every number in the range.
        log: uniform in the logarithm.
        when: other parameter -> value, or list of values, under which this one varies.
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False
    when: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choices:
    """A list of choices as in YAML, with a condition; ``when`` as in ``Span``."""

    choices: list[Any]
    when: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """A key that varies over choices or a range.

    Args:
        key: key of ``fer.train``, or a group.
        choices: plain values; empty for a range.
        span: range.
        whole: whether the range has whole numbers only.
        when: other parameter -> texts of its values under which this one varies.
    """

    key: str
    choices: Sequence[Any] = ()
    span: Span = Span(0, 0)
    whole: bool = False
    when: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The choices as texts of overrides."""
        return [spelled(choice) for choice in self.choices]

    @property
    def ends(self) -> Sequence[Any]:
        """The values to check: all choices, or both ends."""
        return self.choices or (self.span.low, self.span.high)

    def text(self, value: Any, *, in_full: bool = False) -> str:
        """Return a value as text of an override, within the range.

        Args:
            value: drawn, or configured.
            in_full: keep all digits of a number, as of a configured one. A drawn one has ``DIGITS`` digits, or those of
                the grid.
        """
        if self.choices or self.whole:
            return str(value)
        span = self.span
        short = value if in_full else round(value, _decimals(span)) if span.step else float(f"{value:.{DIGITS}g}")
        return spelled(min(span.high, max(span.low, float(short))))

    def applies(self, texts: Mapping[str, str]) -> bool:
        """Return whether the parameter varies, for these values of the other parameters."""
        return all(texts.get(key) in values for key, values in self.when.items())

    def holds(self, value: Any) -> bool:
        """Return whether a plain value lies in the space."""
        if self.choices:
            return self.choice(value) is not None
        span = self.span
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not span.low <= value <= span.high:
            return False
        return span.step is None or _on_grid(value - span.low, span.step)

    def choice(self, value: Any) -> str | None:
        """Return the text of the choice that equals a plain value, however it is spelled; None where none does."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        for choice, text in zip(self.choices, self.texts, strict=True):
            if text == spelled(value) or (number and not isinstance(choice, bool) and choice == value):
                return text
        return None

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


def read(section: Ranges, fixed: Mapping[str, str]) -> list[Parameter]:
    """Return the parameters of a section ``space``, those with conditions last.

    Args:
        section: key -> range, list of choices, or None for nothing.
        fixed: key -> text of the keys on the command line, which do not vary.

    Raises:
        FerError: an entry is faulty, or nothing varies.
    """
    listed = [_parameter(key, values) for key, values in section.items() if values is not None]
    free = [parameter for parameter in listed if parameter.key not in fixed]
    known = {parameter.key: parameter for parameter in listed}
    conditioned = [_conditioned(parameter, known, fixed) for parameter in free]
    varied = [parameter for parameter in conditioned if parameter is not None]
    if not varied:
        reason = " (the command line sets all of its keys)" if listed else ""
        raise FerError(f"space: nothing varies{reason}; choose another with space=, or set space.<key>=")
    return sorted(varied, key=lambda parameter: bool(parameter.when))


def _parameter(key: str, values: Any) -> Parameter:
    where = f"space.{key}"
    _refuse(key, where)
    if isinstance(values, Mapping) and "choices" in values:
        choices = Choices(**check(Choices, values, where))
        return Parameter(key, _choices(choices.choices, where), when=choices.when)
    if isinstance(values, Mapping) and {"low", "high"} & set(values):
        span = Span(**check(Span, values, where))
        _refuse_span(span, where)
        return Parameter(key, span=span, when=span.when)
    if isinstance(values, list):
        return Parameter(key, _choices(values, where))
    raise FerError(
        f"{where}={values!r}: expected {{low: 0, high: 1}} or a list of choices for a key of fer.train, such as "
        f"space.optimizer.lr"
    )


def _refuse(key: str, where: str) -> None:
    for name, why in NEVER.items():
        below = key.startswith(f"{name}.") and not key.startswith(STILL)
        if key == name or below:
            raise FerError(f"{where}: cannot be searched: {why}")


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


def _decimals(span: Span) -> int:
    """Return the number of decimals of the values of a grid."""
    return max(-int(Decimal(str(end)).as_tuple().exponent) for end in (span.low, span.step or 0.0))


def _on_grid(distance: float, step: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=1e-9)


def _conditioned(parameter: Parameter, known: Mapping[str, Parameter], fixed: Mapping[str, str]) -> Parameter | None:
    """Return a parameter with its conditions as texts; None if a fixed key contradicts a condition."""
    when = {}
    for key, values in parameter.when.items():
        where = f"space.{parameter.key}.when.{key}"
        condition = known.get(key)
        if condition is None or not condition.choices or condition.when or key == parameter.key:
            near = did_you_mean(key, [name for name, parameter in known.items() if parameter.choices])
            raise FerError(f"{where}: expected a key of this space with choices and without when{near}")
        texts = [spelled(value) for value in (values if isinstance(values, list) else [values])]
        for text in texts:
            if text not in condition.texts:
                raise FerError(
                    f"{where}={text}: the space has {', '.join(condition.texts)}{did_you_mean(text, condition.texts)}"
                )
        if key not in fixed:
            when[key] = texts
        elif fixed[key] not in texts:
            return None
    return replace(parameter, when=when)


# --- checks with the configuration --------------------------------------------------------------------------------


def checked(parameters: Sequence[Parameter], trial_overrides: Sequence[str]) -> list[Parameter]:
    """Return the parameters after a check of every choice and of both ends of every range.

    Each value is set by itself, under each condition, and checked like the settings of a run.

    Args:
        parameters: as ``read`` returns them.
        trial_overrides: overrides of all trials.

    Raises:
        FerError: a key or choice does not exist, or a value has the wrong type or is out of range.
    """
    compose: Compose = functools.cache(lambda *context: plain(composed([*trial_overrides, *context])))
    base = compose()
    _refuse_losses(parameters, base["monitor"])
    groups = [parameter for parameter in parameters if isinstance(base.get(parameter.key), Mapping)]
    for group in groups:
        if not group.choices:
            raise FerError(f"space.{group.key}: is a group; expected a list of its choices, such as [one, another]")
    settings = [("", build(TrainSettings, base))]
    made = []
    for parameter in parameters:
        configs: list[Config] = []
        for context in _contexts(parameter, groups):
            where = ", ".join(["space", *_relevant(parameter, context)]) + ": "
            with _prefixed(where):
                tried = _configurations(parameter, context, compose, group=parameter in groups)
                settings += [(where, build(TrainSettings, config)) for config in tried]
            configs.append(compose(*context))
        made.append(replace(parameter, whole=_is_whole(parameter, configs)))
    _check_names(settings, base["plugins"])
    return made


def configured(parameters: Sequence[Parameter], trial_overrides: Sequence[str]) -> dict[str, object]:
    """Return key -> configured value, as Optuna draws it, for the parameters whose configured value is in the space.

    Args:
        parameters: as ``checked`` returns them.
        trial_overrides: overrides of all trials.
    """
    values = dict(leaves(plain(composed(trial_overrides)))) | choices_of(trial_overrides)
    known = {parameter.key: parameter for parameter in parameters if parameter.key in values}
    return {
        key: parameter.choice(values[key]) if parameter.choices else values[key]
        for key, parameter in known.items()
        if parameter.holds(values[key])
    }


def _refuse_losses(parameters: Sequence[Parameter], monitor: str) -> None:
    varied = [parameter.key for parameter in parameters if parameter.key.partition(".")[0] == "loss"]
    if varied and mode(monitor) == "min":
        raise FerError(
            f"space.{varied[0]}: losses of different trials cannot be compared by monitor={monitor}; use "
            f"monitor=accuracy/val, or leave it out: space.{varied[0]}=null"
        )


def _contexts(parameter: Parameter, groups: Sequence[Parameter]) -> list[tuple[str, ...]]:
    """Return the overrides under which a parameter varies: its conditions, or each choice of each other group."""
    if parameter.when:
        values = [[f"{key}={text}" for text in texts] for key, texts in parameter.when.items()]
        return list(itertools.product(*values))
    others = [group for group in groups if group is not parameter and not group.when]
    first = {group.key: group.texts[0] for group in others}
    made = [first, *({**first, group.key: text} for group in others for text in group.texts[1:])]
    return [tuple(f"{key}={text}" for key, text in choices.items()) for choices in made]


def _relevant(parameter: Parameter, context: Sequence[str]) -> list[str]:
    """Return the overrides of a context on which the existence of the parameter's key depends."""
    keys = {parameter.key.partition(".")[0], *parameter.when}
    return [text for text in context if text.partition("=")[0] in keys]


def _configurations(parameter: Parameter, context: tuple[str, ...], compose: Compose, *, group: bool) -> list[Config]:
    """Return a configuration for each choice or end of the parameter."""
    key = parameter.key
    if group:
        return [compose(*context, f"{key}={text}") for text in parameter.texts]
    config = compose(*context)
    if key not in dict(leaves(config)):
        under = _relevant(parameter, context)
        if under and not parameter.when:
            raise FerError(f"{key}: no such key there; state where it varies: when: {{{key.partition('.')[0]}: ...}}")
        compose(*context, f"{key}={spelled(parameter.ends[0])}")  # its error names the nearest key
        raise FerError(f"{key}: no such key")
    return [_with(config, key.split("."), end) for end in parameter.ends]


def _with(config: Config, path: Sequence[str], value: Any) -> Config:
    """Return a copy of a configuration with another value at ``path``."""
    first, *rest = path
    return {**config, first: _with(config[first], rest, value) if rest else value}


def _is_whole(parameter: Parameter, configs: Sequence[Config]) -> bool:
    """Return whether a range has whole numbers only: its ends are whole, and the configured value is no fraction."""
    span = parameter.span
    written = all(isinstance(number, int) for number in (span.low, span.high, span.step or 1))
    current = [dict(leaves(config)).get(parameter.key) for config in configs]
    return not parameter.choices and written and not any(isinstance(value, float) for value in current)


def _check_names(settings: Sequence[tuple[str, TrainSettings]], plugins: Sequence[str]) -> None:
    """Check the arguments of networks, losses, optimizers and schedules, which needs torch."""
    import_plugins(plugins)
    from fer.training.run import check_names

    for where, tried in settings:
        with _prefixed(where):
            check_names(tried)


@contextmanager
def _prefixed(where: str) -> Iterator[None]:
    """Prefix an error with the space and the choices under which it occurs."""
    try:
        yield
    except FerError as error:
        raise FerError(f"{where}{error}") from error
