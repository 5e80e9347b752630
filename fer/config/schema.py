"""A check of keyword arguments against a signature.

It finds unknown names, missing names, wrong types, and values out of range. The signature is the schema:
``Annotated[float, Range(0, 1)]`` states type and range. One check serves the dataclasses of the configuration and every
registered network, loss, optimizer and schedule, plugins' too. Its messages name key, value and remedy. No torch here,
so that a faulty configuration is refused before anything heavy is imported.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import FrameType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from fer.config.errors import FerError, did_you_mean, setting

T = TypeVar("T")
REQUIRED = "???"  # OmegaConf's mark of a required value


@dataclass(frozen=True)
class Range:
    """Allowed values from ``low`` to ``high``, both included; ``above`` excludes ``low``."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Return whether ``value`` is in the range."""
        return value <= self.high and (value > self.low if self.above else value >= self.low)

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Fraction = Annotated[float, Range(0, 1)]
PartialFraction = Annotated[float, Range(0, 0.999)]  # of a dropout rate or a momentum: 1 would leave nothing
NonNegative = Annotated[float, Range(0)]
AboveZero = Annotated[float, Range(0, above=True)]
LayerDecay = Annotated[float, Range(0, 1, above=True)]


def check(function: Callable[..., Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``values`` checked against the keyword parameters of ``function`` (a class stands for its ``__init__``).

    An ``int`` becomes a ``float`` where the annotation says so; nothing else is converted.

    Args:
        function: function or class that takes the values.
        values: name -> value.
        where: section of the configuration in messages, such as "model".

    Raises:
        FerError: an unknown name (with the nearest valid one), a missing name, a wrong type, a value out of range.
    """
    parameters = keyword_parameters(function)
    _refuse_unknown(values, parameters, where)
    missing = [name for name, (_, default) in parameters.items() if default is MISSING and name not in values]
    if missing:
        raise FerError(f"{where}.{missing[0]} is missing")
    return {key: _fit(value, parameters[key][0], f"{where}.{key}") for key, value in values.items()}


def build(settings: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Return the dataclass ``settings`` filled from ``values``, nested dataclasses included.

    Raises:
        FerError: as in ``check``, or a section is no mapping.
    """
    hints = typing.get_type_hints(settings, include_extras=True)
    filled: dict[str, Any] = {}
    for field in fields(settings):  # type: ignore[arg-type]
        path = f"{where}.{field.name}" if where else field.name
        if field.name not in values:
            raise FerError(f"{path} is missing from the configuration")
        value, kind = values[field.name], hints[field.name]
        if is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise FerError(f"{path}={value!r}: expected a section with keys, as in conf/{path}/")
            filled[field.name] = build(typing.cast(type[Any], kind), value, path)
        else:
            filled[field.name] = _fit(value, kind, path)
    _refuse_unknown(values, filled, where)
    return settings(**filled)


def constructor_arguments(instance: object, frame: FrameType | None) -> dict[str, Any]:
    """Return the arguments of the constructors of ``instance`` that are running; the outermost has the last word.

    Args:
        instance: the object under construction.
        frame: of its innermost constructor.
    """
    arguments: dict[str, Any] = {}
    while frame is not None and frame.f_code.co_name == "__init__":
        names, _, keywords, values = inspect.getargvalues(frame)
        if not names or values[names[0]] is not instance:
            break
        arguments |= {name: values[name] for name in names[1:]} | (values[keywords] if keywords else {})
        frame = frame.f_back
    return arguments


def keyword_parameters(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return name -> (annotation, default or ``MISSING``) of the named parameters; ``*args`` and ``**kwargs`` aside."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target, include_extras=True)
    return {
        name: (hints.get(name, Any), MISSING if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(target).parameters.items()
        if name != "self" and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def _refuse_unknown(values: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for key in values:
        if key not in known:
            holder, path = (where, f"{where}.{key}") if where else ("the configuration", key)
            keys = ", ".join(known) or "none"
            raise FerError(f"{path}: no such key; {holder} has {keys}{did_you_mean(key, known)}")


def _fit(value: Any, kind: Any, where: str) -> Any:
    """Return ``value`` if its type and range fit ``kind``; an int becomes a float where ``kind`` is float."""
    if value == REQUIRED:
        raise FerError(f"{where} has no default; set it with {where}=")
    limits: list[Range] = []
    if get_origin(kind) is Annotated:
        kind, *extras = get_args(kind)
        limits = [extra for extra in extras if isinstance(extra, Range)]
    fitted = _convert(value, kind, where)
    for limit in limits:
        if isinstance(fitted, (int, float)) and not limit.holds(fitted):
            raise FerError(f"{setting(where, value)}: out of range; it must be {limit}")
    return fitted


def _convert(value: Any, kind: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first_fit(value, get_args(kind), where)
    if origin is Literal:
        if not any(type(choice) is type(value) and choice == value for choice in get_args(kind)):  # True equals 1
            choices = [str(choice) for choice in get_args(kind)]
            raise FerError(
                f"{setting(where, value)}: expected one of {', '.join(choices)}{did_you_mean(str(value), choices)}"
            )
        return value
    if origin in (list, tuple, Sequence):
        if not isinstance(value, (list, tuple)):
            raise FerError(f"{where}={value!r}: expected a list, such as [{value}]")
        return [_fit(item, get_args(kind)[0], f"{where}[{index}]") for index, item in enumerate(value)]
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise FerError(f"{where}={value}: expected a finite number")
        return float(value)
    if origin is dict and isinstance(value, dict):  # a key may look like a number, as in {1:surprise}
        return {str(name): _convert(item, get_args(kind)[1], f"{where}.{name}") for name, item in value.items()}
    expected = dict if origin is dict else kind
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise FerError(f"{setting(where, repr(value))}: expected {_name(kind)}, got {type(value).__name__}")
    return value


def _first_fit(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is types.NoneType:
            continue
        try:
            return _fit(value, kind, where)
        except FerError as error:
            problems.append(error)
    ranged = [problem for problem in problems if "out of range" in str(problem)]
    if ranged or len(problems) == 1:
        raise (ranged or problems)[0]
    raise FerError(
        f"{where}={value!r}: expected {' or '.join(_name(kind) for kind in kinds)}, got {type(value).__name__}"
    )


def _name(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _name(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if kind is types.NoneType:
        return "null"
    kind = get_origin(kind) or kind
    plain = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        dict: "keys and values",
        list: "a list",
    }
    return plain.get(kind, str(kind))
