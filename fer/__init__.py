"""fer: read the emotion on a face. Train, compare and use networks for FER2013 and data like it.

``fer.load(path)`` gives a trained network back with nothing but its file.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.models.checkpoints import load

    __version__: str

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for: ``--help`` must answer at once."""
    if name == "load":
        from fer.models.checkpoints import load

        return load
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'fer' has no attribute {name!r}")


def _version() -> str:
    """Return this library's version; of a checkout that is not installed, "unknown"."""
    from importlib import metadata

    try:
        return metadata.version("fer-lightning")
    except metadata.PackageNotFoundError:
        return "unknown"
