"""MixUp and CutMix.

Each face of a batch is mixed with another one. Their labels are mixed in the same shares. Sources: Zhang et al. 2018,
"mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019, "CutMix". The papers draw one share for a batch; here
every face has a separate share and partner.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Beta, Gamma

SMALL = 0.05  # alpha below which torch's draws from Beta lose their meaning: both gammas may be 0 in 32 bits


@dataclass(frozen=True)
class Mixing:
    """Strength of the mixing; with both above 0, each face is mixed by one of the two methods.

    Args:
        mixup: alpha of MixUp's Beta distribution of the shares; 0 turns MixUp off.
        cutmix: alpha of CutMix's Beta distribution of the shares; 0 turns CutMix off.
        soft: whether soft targets are mixed, if the labels are soft; otherwise classes are mixed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    soft: bool = False

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images (B, 1, S, S) and mixed labels (B, C) from images and labels of these shapes."""
        count = len(images)
        partner = torch.randperm(count, device=images.device)
        cut = torch.rand(count, device=images.device) < (0.5 if self.mixup > 0 else 1.0) * (self.cutmix > 0)
        weight = torch.ones_like(images)  # (B, 1, S, S) share of the partner in each pixel
        if self.mixup > 0:
            weight = weight * (1 - share(count, self.mixup, images)).view(-1, 1, 1, 1)
        if self.cutmix > 0:
            boxes = rectangles(1 - share(count, self.cutmix, images), images.shape[-1])
            weight = torch.where(cut.view(-1, 1, 1, 1), boxes[:, None].to(images.dtype), weight)
        part = weight.mean((1, 2, 3))[:, None]  # (B, 1)
        return torch.lerp(images, images[partner], weight), torch.lerp(shares, shares[partner], part)


def share(count: int, alpha: float, like: Tensor) -> Tensor:
    """Return (count,) shares drawn from Beta(alpha, alpha) on the device of ``like``."""
    alphas = torch.full((count,), alpha, device=like.device)
    if alpha < SMALL:
        return torch.sigmoid(_log_gamma(alphas) - _log_gamma(alphas))
    shares: Tensor = Beta(alphas, alphas, validate_args=False).sample()
    return shares


def _log_gamma(alphas: Tensor) -> Tensor:
    """Return the logarithms of draws from Gamma(alpha), by way of Gamma(alpha + 1) (Marsaglia & Tsang 2000)."""
    uniform = 1 - torch.rand_like(alphas)  # above 0
    return Gamma(alphas + 1, torch.ones_like(alphas), validate_args=False).sample().log() + uniform.log() / alphas


def rectangles(area: Tensor, side: int) -> Tensor:
    """Return masks (B, side, side) of a random square in each face.

    Args:
        area: (B,) area of the square as a share of the face; squares are cut off at the edge, as in the paper.
        side: side of the faces, in pixels.
    """
    half = (area.sqrt() * side / 2)[:, None]  # (B, 1)
    centre = torch.rand(2, len(area), 1, device=area.device) * side
    pixels = torch.arange(side, device=area.device) + 0.5  # centres
    rows, columns = (pixels - centre).abs() < half  # (B, side) each
    within: Tensor = rows[:, :, None] & columns[:, None, :]
    return within


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """Return targets (B,) as one-hot vectors (B, C); ``functional.one_hot`` makes the host wait for the device."""
    return (targets[:, None] == torch.arange(classes, device=targets.device)).float()
