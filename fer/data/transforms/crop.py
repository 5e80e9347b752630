"""The middle of a face."""

from torch import Tensor


def middle(faces: Tensor, crop: int | None) -> Tensor:
    """Return the square in the middle of faces (B, 1, S, S), (B, 1, T, T) for a crop of T pixels; None is the whole."""
    if crop is None or crop == faces.shape[-1]:
        return faces
    start = (faces.shape[-1] - crop) // 2
    return faces[..., start : start + crop, start : start + crop]
