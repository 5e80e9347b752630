"""Registration and construction of networks by name.

To add a network: a file with ``@register("name")``, a line in ``fer/models/__init__.py``, a YAML in ``conf/model``.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fer.config.errors import FerError
from fer.config.registry import MODELS
from fer.config.settings import Section
from fer.models.base import EmotionClassifier

if TYPE_CHECKING:
    from fer.models.trainable import Trainable


def register(name: str) -> Callable[[type[EmotionClassifier]], type[EmotionClassifier]]:
    """Return a decorator that registers a network under ``name``, the name that its checkpoints store.

    Raises:
        FerError: the name is taken, or the network overrides ``forward``: training calls ``logits_of_crops`` and
            would bypass it.
    """

    def add(network: type[EmotionClassifier]) -> type[EmotionClassifier]:
        if network.forward is not EmotionClassifier.forward:
            raise FerError(
                f"model={name}: {network.__name__} overrides forward; override logits_of_crops, which forward calls"
            )
        network.architecture = name
        MODELS.register(name)(network)
        return network

    return add


def create(section: Section, **contract: Any) -> "Trainable":
    """Return a new network of the registered class that ``section`` names, ready for a training.

    Args:
        section: ``{"name": "cnn", **arguments}``.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: an unknown name or argument, a wrong type, a value out of range.
    """
    from fer.models.trainable import trainable  # imports Lightning

    network, arguments = MODELS.arguments(section)
    made: type[EmotionClassifier] = network
    return trainable(made)(**arguments, **contract)  # type: ignore[arg-type]  # mypy: a class has no __hash__
