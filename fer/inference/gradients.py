"""Maps by the gradients of one network: Grad-CAM and integrated gradients.

torch computes them; see ``fer.inference.explain``.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fer.config.errors import FerError
from fer.data.dataset import to_unit
from fer.inference.exported import Images
from fer.models import EmotionClassifier

FACES_AT_ONCE = 256  # more are no faster on a CPU
STEPS = 64  # of integrated gradients; the sum over the pixels of tiny is then 4 % off on average, with 16 steps 19 %
WINDOW = 5 / 48  # of the side, over which integrated gradients are averaged: 5 of 48 pixels
LEAST_SIDE = 6  # pixels of the feature maps that Grad-CAM prefers; smaller ones show hardly more than a quarter


def maps(model: EmotionClassifier, method: str, faces: Images, emotions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return maps (N, K, S, S) of N faces and K emotions of each.

    Args:
        model: the network, in evaluation mode.
        method: a name in ``METHODS``.
        faces: (N, 1, S, S), in colour (N, 3, S, S), uint8 or float in [0, 1].
        emotions: (N, K) indices of emotions.

    Raises:
        FerError: the method does not apply to this network.
    """
    unit = to_unit(torch.from_numpy(faces).to(model.device))
    values = METHODS[method](model, unit, torch.from_numpy(emotions).to(model.device))
    return values.detach().float().cpu().numpy()


def _batches(values: Tensor) -> Iterator[Tensor]:
    return (values[start : start + FACES_AT_ONCE] for start in range(0, len(values), FACES_AT_ONCE))


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
            model(torch.zeros(1, model.in_channels, model.image_size, model.image_size, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    if not sides:
        raise FerError(f"--method gradcam: {model.architecture} names no layer of feature maps; use occlusion")
    least = min(LEAST_SIDE, max(sides.values()))
    module = [module for module, side in sides.items() if side >= least][-1]
    return Layer(module, sides[module])


def gradcam(model: EmotionClassifier, faces: Tensor, emotions: Tensor) -> Tensor:
    """Return the weighted sums of a layer's feature maps (Selvaraju et al. 2017): (N, K, S, S).

    The weight of a feature map is the mean gradient of the emotion's logit by it. Negative sums are kept, so that maps
    of two emotions can be subtracted; the source sets them to 0. Sums are interpolated to the side of the faces.

    Raises:
        FerError: the network names no layer.
    """
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
    """Return maps (B, K, s, s) of a network's input as maps (B, K, S, S) of whole faces; 0 beyond its crop."""
    inner, side = model.input_size, model.image_size
    enlarged = functional.interpolate(maps, size=(inner, inner), mode="bilinear", align_corners=False)
    before = (side - inner) // 2
    return functional.pad(enlarged, [before, side - inner - before] * 2)


# --- integrated gradients -------------------------------------------------------------------------------------------


def integrated_gradients(model: EmotionClassifier, faces: Tensor, emotions: Tensor) -> Tensor:
    """Return what each region adds to the logit on the way from a face of one colour to this one: (N, K, S, S).

    Integrated gradients (Sundararajan et al. 2017) with the face's mean colour as baseline, averaged over 5 of 48
    pixels. A single pixel's value is noise to the eye.
    """
    baseline = faces.mean((2, 3), keepdim=True).expand_as(faces)
    window = round(faces.shape[-1] * WINDOW) // 2 * 2 + 1
    values = attributions(model, faces, baseline, emotions, STEPS)
    return functional.avg_pool2d(values, window, 1, window // 2, count_include_pad=False)


def attributions(model: EmotionClassifier, faces: Tensor, baseline: Tensor, emotions: Tensor, steps: int) -> Tensor:
    """Return the integrated gradients (N, K, S, S) of the emotions' logits, by the midpoint rule.

    The channels of a pixel are added. The sum over the pixels is the logit of the face less that of the baseline, up to
    the error of the rule.

    Args:
        model: the network.
        faces: (N, 1, S, S), in colour (N, 3, S, S), in [0, 1].
        baseline: of the same shape.
        emotions: (N, K) indices.
        steps: of the rule.
    """
    total = torch.zeros(*emotions.shape, *faces.shape[1:], device=faces.device)  # (N, K, C, S, S)
    for step in range(steps):
        part = (step + 0.5) / steps
        for start in range(0, len(faces), FACES_AT_ONCE):
            rows = slice(start, start + FACES_AT_ONCE)
            given = (baseline[rows] + part * (faces[rows] - baseline[rows])).requires_grad_()
            logits = model(given)
            for column in range(emotions.shape[1]):
                score = logits.gather(1, emotions[rows, column : column + 1]).sum()
                (gradient,) = torch.autograd.grad(score, given, retain_graph=column + 1 < emotions.shape[1])
                total[rows, column] += gradient
    return (total / steps * (faces - baseline)[:, None]).sum(2)


Method = Callable[[EmotionClassifier, Tensor, Tensor], Tensor]  # (model, faces (N, C, S, S) in [0, 1], emotions (N, K))
METHODS: Mapping[str, Method] = MappingProxyType({"gradcam": gradcam, "integrated_gradients": integrated_gradients})
