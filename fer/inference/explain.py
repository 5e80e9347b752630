"""Maps of what speaks for an emotion on a face: by occlusion, by Grad-CAM, by integrated gradients.

A map has a value for each pixel: above 0 where the face speaks for the emotion, below 0 where it speaks against it. All
methods measure changes of a log probability or a logit. The difference of two emotions' maps is therefore the map of
their log odds: why the network prefers one to the other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.config.errors import FerError
from fer.data.dataset import to_unit
from fer.inference.exported_model import ExportedModel
from fer.models import EmotionClassifier

PATCH = 1 / 6  # of the side: 8 of 48 pixels
POSITIONS = 11  # of the patch along a side: a step of 4 of 48 pixels
VIEWS_AT_ONCE = 256  # faces in a batch; more are no faster on a CPU
STEPS = 16  # of integrated gradients
WINDOW = 5 / 48  # of the side, over which integrated gradients are averaged: 5 of 48 pixels
LEAST_SIDE = 6  # pixels of the feature maps that Grad-CAM prefers; smaller ones show hardly more than a quarter
LEAST_PROBABILITY = 1e-12  # float32 probabilities may be 0


@dataclass(frozen=True)
class Explained:
    """What is explained: a network, or several whose calibrated probabilities are averaged.

    Args:
        members: one or more networks with the same emotions.

    Raises:
        FerError: they take faces of different sizes.
    """

    members: Sequence[EmotionClassifier]

    def __post_init__(self) -> None:
        for one in self.members[1:]:
            if one.image_size != self.image_size:
                sizes = f"{self.image_size} and {one.image_size} pixels"
                raise FerError(f"the networks take faces of {sizes}; explain networks of one size together")

    @property
    def emotions(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return tuple(self.members[0].hparams["classes"])

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""
        return self.members[0].image_size

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.members[0].device

    def probabilities(self, faces: Tensor) -> Tensor:
        """Return calibrated probabilities (B, C) of faces (B, 1, S, S), uint8 or float in [0, 1]."""
        return torch.stack([one.probabilities(faces) for one in self.members]).mean(0)

    def alone(self, method: str) -> EmotionClassifier:
        """Return the only network.

        Args:
            method: that needs its gradients, for the message.

        Raises:
            FerError: there are several, or it is an exported file.
        """
        if isinstance(self.members[0], ExportedModel):
            raise FerError(
                f"--method {method}: needs gradients, which an exported file has not; use occlusion, or the network "
                "that it was made from"
            )
        if len(self.members) > 1:
            raise FerError(f"--method {method}: needs the gradients of one network; explain an ensemble by occlusion")
        return self.members[0]


Method = Callable[[Explained, Tensor, Tensor], Tensor]  # (what, faces (N, 1, S, S) in [0, 1], emotions (N, K)) -> maps


def explained(what: Explained, method: str, faces: Tensor, emotions: Tensor) -> Tensor:
    """Return maps (N, K, S, S) float32 on the CPU of N faces and K emotions of each.

    Args:
        what: the network or networks.
        method: a name in ``METHODS``.
        faces: (N, 1, S, S), uint8 or float in [0, 1].
        emotions: (N, K) indices of emotions.

    Raises:
        FerError: the method does not apply to these networks.
    """
    device = what.device
    return METHODS[method](what, to_unit(faces.to(device)), emotions.to(device)).float().cpu()


def predicted(what: Explained, faces: Tensor) -> Tensor:
    """Return calibrated probabilities (N, C) float32 on the CPU of N faces, (N, 1, S, S)."""
    parts = [what.probabilities(part.to(what.device)).float().cpu() for part in _batches(faces)]
    return torch.cat(parts)


def _batches(values: Tensor) -> Iterator[Tensor]:
    return (values[start : start + VIEWS_AT_ONCE] for start in range(0, len(values), VIEWS_AT_ONCE))


# --- occlusion ------------------------------------------------------------------------------------------------------


def occlusion(what: Explained, faces: Tensor, emotions: Tensor) -> Tensor:
    """Return how much log probability each region is worth (Zeiler & Fergus 2014): (N, K, S, S).

    A patch of the face's mean grey covers one region after the other. The value of a region is the log probability that
    the emotion loses. It needs nothing but probabilities. Values between the patches' middles are interpolated.
    """
    count, side = len(faces), faces.shape[-1]
    corners, patches = covered(side)
    patches = patches.to(faces.device)  # (P, 1, S, S)
    greys = faces.mean((2, 3), keepdim=True)  # (N, 1, 1, 1)
    covers = len(patches)
    parts = []
    for index in _batches(torch.arange(count * covers, device=faces.device)):
        face, patch = index // covers, index % covers
        views = torch.where(patches[patch], greys[face], faces[face])
        parts.append(_log(what.probabilities(views)).gather(1, emotions[face]))
    left = torch.cat(parts).view(count, covers, -1).movedim(1, 2)  # (N, K, P)
    before = torch.cat([_log(what.probabilities(part)) for part in _batches(faces)]).gather(1, emotions)
    lost = (before[..., None] - left).view(count, -1, len(corners), len(corners))
    return between(lost, corners, side)


def covered(side: int) -> tuple[list[int], Tensor]:
    """Return the corners of the patches along a side, and which pixels each patch covers, (P, 1, S, S) bool."""
    size = round(side * PATCH)
    steps = min(POSITIONS, side - size + 1)
    corners = torch.linspace(0, side - size, steps).round().long().tolist()
    covers = torch.zeros(steps, steps, side, side, dtype=torch.bool)
    for row, top in enumerate(corners):
        for column, left in enumerate(corners):
            covers[row, column, top : top + size, left : left + size] = True
    return corners, covers.view(-1, 1, side, side)


def between(values: Tensor, corners: Sequence[int], side: int) -> Tensor:
    """Return maps (N, K, S, S) of values (N, K, P, P) at the middles of patches, bilinear between and constant beyond.

    Args:
        values: of each patch.
        corners: of the patches along a side.
        side: of the maps, in pixels.
    """
    middles = [corner + (round(side * PATCH) - 1) / 2 for corner in corners]
    columns = [np.interp(np.arange(side), middles, alone) for alone in np.eye(len(corners))]
    weights = torch.from_numpy(np.stack(columns, 1)).to(values)  # (S, P) of each patch at each pixel
    return torch.einsum("yp,nkpq,xq->nkyx", weights, values, weights)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.float().clamp(min=LEAST_PROBABILITY).log()


# --- Grad-CAM -------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """The layer that Grad-CAM looks at.

    Args:
        module: whose output is (B, C, s, s).
        side: s, in pixels.
    """

    module: nn.Module
    side: int


def layer_of(model: EmotionClassifier) -> Layer:
    """Return the last of a network's ``map_layers`` whose maps have at least 6x6 pixels, else the last of the largest.

    Raises:
        FerError: the network names no layer of feature maps.
    """
    sides: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
            sides[module] = int(output.shape[3])

    hooks = [module.register_forward_hook(note) for module in model.map_layers]
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 1, model.image_size, model.image_size, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    if not sides:
        raise FerError(f"--method gradcam: {model.architecture} names no layer of feature maps; use occlusion")
    least = min(LEAST_SIDE, max(sides.values()))
    module = [module for module, side in sides.items() if side >= least][-1]
    return Layer(module, sides[module])


def gradcam(what: Explained, faces: Tensor, emotions: Tensor) -> Tensor:
    """Return the weighted sums of a layer's feature maps (Selvaraju et al. 2017): (N, K, S, S).

    The weight of a feature map is the mean gradient of the emotion's logit by it. Negative sums are kept, so that maps
    of two emotions can be subtracted; the source sets them to 0. Sums are interpolated to the side of the faces.

    Raises:
        FerError: there are several networks, or the network names no layer.
    """
    model = what.alone("gradcam")
    layer = layer_of(model).module
    parts = []
    for part, of in zip(_batches(faces), _batches(emotions), strict=True):
        kept: list[Tensor] = []

        def keep(_: nn.Module, __: object, output: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(output)
            return output.clone()  # a ReLU that works in place may follow

        hook = layer.register_forward_hook(keep)
        try:
            logits = model(part.clone().requires_grad_())
        finally:
            hook.remove()
        values = kept[-1]  # (B, C, s, s)
        sums = []
        for column in of.T:
            (gradient,) = torch.autograd.grad(logits.gather(1, column[:, None]).sum(), values, retain_graph=True)
            sums.append((gradient.mean((2, 3), keepdim=True) * values).sum(1).detach())
        parts.append(_whole(torch.stack(sums, 1), model))
    return torch.cat(parts)


def _whole(maps: Tensor, model: EmotionClassifier) -> Tensor:
    """Return maps (B, K, s, s) of what a network sees as maps (B, K, S, S) of whole faces; 0 beyond its crop."""
    seen, side = model.input_size, model.image_size
    enlarged = functional.interpolate(maps, size=(seen, seen), mode="bilinear", align_corners=False)
    before = (side - seen) // 2
    return functional.pad(enlarged, [before, side - seen - before] * 2)


# --- integrated gradients -------------------------------------------------------------------------------------------


def integrated_gradients(what: Explained, faces: Tensor, emotions: Tensor) -> Tensor:
    """Return what each region adds to the logit on the way from a face of one grey to this one: (N, K, S, S).

    Integrated gradients (Sundararajan et al. 2017) with the face's mean grey as baseline, averaged over 5 of 48 pixels.
    A single pixel's value is noise to the eye.

    Raises:
        FerError: there are several networks.
    """
    model = what.alone("integrated_gradients")
    baseline = faces.mean((2, 3), keepdim=True).expand_as(faces)
    window = round(faces.shape[-1] * WINDOW) // 2 * 2 + 1
    found = attributions(model, faces, baseline, emotions, STEPS)
    return functional.avg_pool2d(found, window, 1, window // 2, count_include_pad=False)


def attributions(model: EmotionClassifier, faces: Tensor, baseline: Tensor, emotions: Tensor, steps: int) -> Tensor:
    """Return the integrated gradients (N, K, S, S) of the emotions' logits, by the midpoint rule.

    Their sum over the pixels is the logit of the face less that of the baseline, up to the error of the rule.

    Args:
        model: the network.
        faces: (N, 1, S, S) in [0, 1].
        baseline: of the same shape.
        emotions: (N, K) indices.
        steps: of the rule.
    """
    total = torch.zeros(*emotions.shape, *faces.shape[2:], device=faces.device)
    for step in range(steps):
        part = (step + 0.5) / steps
        for start in range(0, len(faces), VIEWS_AT_ONCE):
            rows = slice(start, start + VIEWS_AT_ONCE)
            given = (baseline[rows] + part * (faces[rows] - baseline[rows])).requires_grad_()
            logits = model(given)
            for column in range(emotions.shape[1]):
                score = logits.gather(1, emotions[rows, column : column + 1]).sum()
                (gradient,) = torch.autograd.grad(score, given, retain_graph=column + 1 < emotions.shape[1])
                total[rows, column] += gradient[:, 0]
    return total / steps * (faces - baseline)


METHODS: Mapping[str, Method] = MappingProxyType(
    {"occlusion": occlusion, "gradcam": gradcam, "integrated_gradients": integrated_gradients}
)
