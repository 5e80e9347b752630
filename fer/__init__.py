"""fer: predict the emotion on a face. Train, compare and use networks for FER2013 and data like it.

``fer.load(path)`` returns a trained network from its file alone. ``fer.Predictor()`` finds the faces of photographs and
predicts their emotions.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.inference.predictor import Predictor
    from fer.models.checkpoints import load

    __version__: str

__all__ = ["Predictor", "load"]


def __getattr__(name: str) -> Any:
    """Import torch when ``load`` is first used, so that ``--help`` answers at once."""
    if name == "load":
        from fer.models.checkpoints import load

        return load
    if name == "Predictor":
        from fer.inference.predictor import Predictor

        return Predictor
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'fer' has no attribute {name!r}")


def _version() -> str:
    """Return this library's version; "unknown" in a checkout that is not installed."""
    from importlib import metadata

    try:
        return metadata.version("fer-lightning")
    except metadata.PackageNotFoundError:
        return "unknown"
