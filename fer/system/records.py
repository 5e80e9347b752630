"""Dataclasses as JSON objects: the fields of a class are the keys of its object, in their order.

One definition reads and writes. A merged field has no key: its own fields stand among the keys of the object that has
it. An optional field is not written where it is None. A field may be stored under another key. A class whose keys are
no fields has ``of`` and ``plain`` of its own.
"""

import collections.abc
import functools
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Json = Mapping[str, Any]  # an object of a JSON file, as Python reads it
Object = dict[str, Any]  # one to be written


MOST_VALUES, LONGEST, DEEPEST = 100_000, 100_000, 30  # of a stranger's record: values; characters of a text; levels

# metadata of a field; {"key": "name"} names its key
MERGED = {"merged": True}  # its own keys stand among those of the object
OPTIONAL = {"optional": True}  # its key is left out where it is None


def read(kind: type[T], stored: Json) -> T:
    """Return an object of a file as a dataclass. A key that an older file lacks leaves the field at its default.

    Raises:
        KeyError: a key without a default is missing.
        TypeError, ValueError: a value is of another kind.
    """
    if not isinstance(stored, Mapping):
        raise TypeError(f"{kind.__name__.lower()} is no mapping")
    if (of := getattr(kind, "of", None)) is not None:
        made: T = of(stored)
        return made
    values = {}
    for name, (key, hint, merged, default) in _entries(cast(Any, kind)).items():
        if merged:
            values[name] = _merged(hint, stored)
        elif key in stored:
            values[name] = _value(hint, stored[key])
        elif default is MISSING:
            raise KeyError(key)
    return kind(**values)


def plain(record: Any) -> Object:
    """Return a dataclass as the object that a file holds of it."""
    if hasattr(record, "plain"):
        written: Object = record.plain()
        return written
    entries: Object = {}
    for one in fields(record):
        value = getattr(record, one.name)
        if value is None and (one.metadata.get("merged") or one.metadata.get("optional")):
            continue
        entries |= plain(value) if one.metadata.get("merged") else {_key(one): _as_json(value)}
    return entries


def _key(one: Any) -> str:
    return str(one.metadata.get("key") or one.name)


@functools.cache
def _entries(kind: type) -> dict[str, tuple[str, Any, bool, Any]]:
    """Return field -> (key, type, whether it is merged, default or ``MISSING``)."""
    hints = get_type_hints(kind)
    return {
        one.name: (
            _key(one),
            hints[one.name],
            bool(one.metadata.get("merged")),
            one.default if one.default_factory is MISSING else one.default_factory,
        )
        for one in fields(kind)
    }


def _merged(hint: Any, stored: Json) -> Any:
    """Return what is merged into an object; None of an optional part that the object has no key of."""
    optional, kind = _without_none(hint)
    if optional and not any(key in stored for key, *_ in _entries(kind).values()):
        return None
    return read(kind, stored)


def _without_none(hint: Any) -> tuple[bool, Any]:
    """Return whether a type allows None, and the type without it."""
    if get_origin(hint) not in (Union, types.UnionType):
        return False, hint
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return len(kinds) < len(get_args(hint)), kinds[0] if len(kinds) == 1 else Any


def _value(hint: Any, value: Any) -> Any:
    optional, kind = _without_none(hint)
    if value is None and optional:
        return None
    if is_dataclass(kind):
        return read(kind, value)  # type: ignore[arg-type]  # a class, which mypy cannot see
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):  # a text would become its letters
            raise TypeError(f"{type(value).__name__} in place of a list")
        return origin(_value(arguments[0], each) for each in value)
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            raise TypeError(f"{type(value).__name__} in place of a mapping")
        return {name: _value(arguments[1], each) for name, each in value.items()}
    if isinstance(kind, type) and hasattr(kind, "_fields"):  # a NamedTuple: a list, or an object of its fields
        return kind(**value) if isinstance(value, Mapping) else kind(*value)
    return value


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    return value


def has_types(record: Any) -> bool:
    """Return whether each value of a dataclass, and of those in it, has the type of its field; numbers are finite."""
    entries = _entries(cast(Any, type(record)))
    return all(_has_type(hint, getattr(record, name)) for name, (_, hint, *_) in entries.items())


def _has_type(hint: Any, value: Any) -> bool:
    optional, kind = _without_none(hint)
    if kind is Any or (value is None and optional):
        return True
    if is_dataclass(kind):
        return isinstance(value, cast(type, kind)) and has_types(value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (tuple, list):
        return isinstance(value, origin) and all(_has_type(arguments[0], each) for each in value)
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(_has_type(arguments[1], each) for each in value.values())
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def is_plain(record: Any) -> bool:
    """Return whether a record holds texts, numbers, lists and mappings alone, and not too many of them.

    Each mention counts: a list in itself, or ten lists that each name the next ten times, have no end.
    """
    count, waiting = 0, [(record, 0)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            return False
        if isinstance(value, dict):
            if not all(isinstance(key, str) and len(key) <= LONGEST for key in value):
                return False
            waiting += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(each, depth + 1) for each in value]
        elif isinstance(value, str):
            if len(value) > LONGEST:
                return False
        elif not (value is None or isinstance(value, bool | int | float)):
            return False
    return True
