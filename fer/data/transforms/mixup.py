"""MixUp and CutMix: faces of a batch mixed with one another, and their labels in the same shares.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019, "CutMix". Both draw one share and one
shift of the batch; here every face has a share and a partner of its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Beta


@dataclass(frozen=True)
class Mixing:
    """How strongly faces are mixed; with both above 0, each face is mixed by the one or the other.

    Args:
        mixup: of the Beta distribution that a face's share is drawn from; 0 turns it off.
        cutmix: the same of CutMix.
        soft: whether soft targets are mixed, where the labels are of that kind; else the classes.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    soft: bool = False

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, 1, S, S) images mixed, and the shares (B, C) of the classes in each."""
        count = len(images)
        partner = torch.randperm(count, device=images.device)
        cut = torch.rand(count, device=images.device) < (0.5 if self.mixup > 0 else 1.0) * (self.cutmix > 0)
        other = torch.ones_like(images)  # of each pixel, the part that is the partner's
        if self.mixup > 0:
            other = other * (1 - share(count, self.mixup, images)).view(-1, 1, 1, 1)
        if self.cutmix > 0:
            boxes = rectangles(1 - share(count, self.cutmix, images), images.shape[-1])
            other = torch.where(cut.view(-1, 1, 1, 1), boxes[:, None].to(images.dtype), other)
        part = other.mean((1, 2, 3))[:, None]  # (B, 1)
        return torch.lerp(images, images[partner], other), torch.lerp(shares, shares[partner], part)


def share(count: int, alpha: float, like: Tensor) -> Tensor:
    """Return (count,) shares drawn from Beta(alpha, alpha) on the device of ``like``."""
    both = torch.full((count,), alpha, device=like.device)
    drawn: Tensor = Beta(both, both, validate_args=False).sample()
    return drawn


def rectangles(area: Tensor, side: int) -> Tensor:
    """Return (B, side, side) bool, true within a square of each face.

    Args:
        area: (B,) of the square, as a share of the face's; what reaches over the edge is cut off, as in the paper.
        side: of the faces, in pixels.
    """
    half = (area.sqrt() * side / 2)[:, None]  # (B, 1)
    centre = torch.rand(2, len(area), 1, device=area.device) * side
    place = torch.arange(side, device=area.device) + 0.5  # centres of pixels
    rows, columns = (place - centre).abs() < half  # (B, side) each
    within: Tensor = rows[:, :, None] & columns[:, None, :]
    return within


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """Return targets (B,) as shares (B, C). Torch's own asks the device for the largest, for which the host waits."""
    return (targets[:, None] == torch.arange(classes, device=targets.device)).float()
