"""The central crop of a face.

A network that was trained on crops (``data.crop``) classifies crops: its ``forward`` takes whole faces and uses their
centre. Training, val and multi-crop views crop the faces themselves and call the network with the crops.
Every other use of a network therefore passes whole faces, whatever the network was trained on.
"""

from torch import Tensor


def middle(faces: Tensor, crop: int | None) -> Tensor:
    """Return the central square of T = ``crop`` pixels of faces (B, 1, S, S), (B, 1, T, T); None for whole faces."""
    if crop is None or crop == faces.shape[-1]:
        return faces
    start = (faces.shape[-1] - crop) // 2
    return faces[..., start : start + crop, start : start + crop]
