"""Registered names of networks, readers, losses, optimizers and schedules.

A configuration, a checkpoint or a shared file names an entry, never an import path. An untrusted file can therefore
call nothing but registered functions and classes. No ``_target_`` is read from any file.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from fer.config.errors import FerError, did_you_mean
from fer.config.schema import check

T = TypeVar("T", bound=Callable[..., Any])
GROUPS = {"model", "loss", "optimizer", "scheduler"}  # kinds whose entries are choices of a group of the same name
REGISTRIES: "dict[str, Registry[Any]]" = {}  # by kind; those of modules that are imported


class Registry(Generic[T]):
    """Registered name -> function or class, for one section of the configuration.

    Args:
        kind: the section's name in messages, such as "model" or "loss".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        REGISTRIES.setdefault(kind, self)

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers a function or class under ``name``.

        Raises:
            FerError: another entry has the name.
        """

        def add(entry: T) -> T:
            first, second = _definition(self._entries.get(name, entry)), _definition(entry)
            if first != second:
                raise FerError(f"{self.kind} {name!r} is registered twice: by {first} and {second}; rename one")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._entries)

    def newest_first(self) -> Iterator[tuple[str, T]]:
        """Yield names and entries, the one registered last first."""
        return reversed(self._entries.items())

    def get(self, name: str) -> T:
        """Return the entry of ``name``.

        Raises:
            FerError: the name is not registered; the message lists the names.
        """
        if name not in self._entries:
            raise FerError(
                f"{self.kind} {name!r} is not registered; use one of {', '.join(self.names())}"
                f"{did_you_mean(name, self._entries)}"
            )
        return self._entries[name]

    def arguments(self, section: Mapping[str, Any]) -> tuple[T, dict[str, Any]]:
        """Return the entry of a section ``{"name": ..., **arguments}``, and its arguments after their check.

        Raises:
            FerError: a missing or unknown name, unknown arguments, wrong types, values out of range.
        """
        if not isinstance(section.get("name"), str):
            raise FerError(f"{self.kind}.name is missing; choose one of {', '.join(self.names())}")
        entry = self.get(section["name"])
        return entry, check(entry, {key: value for key, value in section.items() if key != "name"}, self.kind)


def _definition(entry: object) -> str:
    """Return the import path of a function or class, the same after a second import; the text of other objects."""
    qualname = getattr(entry, "__qualname__", None)
    return repr(entry) if qualname is None else f"{entry.__module__}.{qualname}"


# subclasses of EmotionClassifier, registered by fer.models and by plugins
MODELS: Registry[type[Any]] = Registry("model")
