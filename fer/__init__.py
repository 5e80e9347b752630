"""fer: read the emotion on a face. Train, compare and use networks for FER2013 and data like it.

``fer.load(path)`` gives a trained network back with nothing but its file.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.models.checkpoints import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for: ``--help`` must answer at once."""
    if name == "load":
        from fer.models.checkpoints import load

        return load
    raise AttributeError(f"module 'fer' has no attribute {name!r}")
