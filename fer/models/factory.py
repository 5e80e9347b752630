"""Networks by name. To add one: a file with ``@register("name")``, a line in ``fer/models/__init__.py``, a YAML."""

from collections.abc import Callable
from typing import Any

from fer.config.errors import FerError
from fer.config.registry import MODELS
from fer.config.settings import Section
from fer.models.base import EmotionClassifier


def register(name: str) -> Callable[[type[EmotionClassifier]], type[EmotionClassifier]]:
    """Return a decorator that registers a network under ``name``, which checkpoints will bear.

    Raises:
        FerError: the name is taken, or the network has a ``forward`` of its own, past which training would go.
    """

    def add(network: type[EmotionClassifier]) -> type[EmotionClassifier]:
        if network.forward is not EmotionClassifier.forward:
            raise FerError(f"model={name}: {network.__name__} overrides forward; override look, which forward calls")
        network.architecture = name
        MODELS.register(name)(network)
        return network

    return add


def create(section: Section, **contract: Any) -> EmotionClassifier:
    """Return the network that ``section`` names, with its arguments.

    Args:
        section: ``{"name": "cnn", **arguments}``.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: an unknown name or argument, a wrong type, a value out of range.
    """
    network, arguments = MODELS.arguments(section)
    created: EmotionClassifier = network(**arguments, **contract)
    return created
