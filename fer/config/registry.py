"""Names for things that a configuration or a checkpoint chooses: networks, readers, losses, optimizers, schedules.

A name maps to a function or class; what a stranger's file may ask for is therefore limited to what was registered.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from fer.config.errors import FerError, did_you_mean
from fer.config.schema import check

T = TypeVar("T", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Registered name -> function or class, for one kind of thing.

    Args:
        kind: the section of the configuration it serves, used in messages ("model", "loss").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers under ``name``.

        Raises:
            FerError: the name is taken by something else.
        """

        def add(entry: T) -> T:
            taken = self._entries.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (entry.__module__, entry.__qualname__):
                raise FerError(
                    f"{self.kind} {name!r} is registered twice: by {taken.__module__}.{taken.__qualname__} "
                    f"and {entry.__module__}.{entry.__qualname__}; rename one"
                )
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """Return what is registered under ``name``.

        Raises:
            FerError: nothing is; the message lists what there is.
        """
        if name not in self._entries:
            raise FerError(
                f"{self.kind} {name!r} is not registered; there is {', '.join(self.names())}"
                f"{did_you_mean(name, self._entries)}"
            )
        return self._entries[name]

    def arguments(self, section: Mapping[str, Any]) -> tuple[T, dict[str, Any]]:
        """Split a section ``{"name": ..., **arguments}`` into what is registered and its checked arguments.

        Raises:
            FerError: no or an unknown name, unknown arguments, wrong types, values out of range.
        """
        if not isinstance(section.get("name"), str):
            raise FerError(f"{self.kind}.name is missing; choose one of {', '.join(self.names())}")
        entry = self.get(section["name"])
        return entry, check(entry, {key: value for key, value in section.items() if key != "name"}, self.kind)


# subclasses of EmotionClassifier, registered by fer.models and by plugins
MODELS: Registry[type[Any]] = Registry("model")
