"""EmotionClassifier: the base class of all networks.

A subclass builds ``self.net`` and nothing else. The classifier contains its preprocessing: it takes faces in [0, 1] (or
uint8), crops and normalises them itself. Wrong preprocessing at inference is a common mistake; here training,
evaluation and later use cannot differ. Hyperparameters are plain values, so that a checkpoint loads with
``weights_only=True`` and rebuilds the network without other files.

A network may begin with pretrained layers. ``load_pretrained`` loads their weights, and ``freeze_first`` keeps some of
them fixed. ``parameter_groups`` gives the trainable ones a learning rate of their own.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from fer.config.errors import FerError, NotFinite
from fer.config.schema import constructor_arguments, keyword_parameters
from fer.data.dataset import Batch, FaceDataset, to_unit
from fer.data.labels import EMOTIONS
from fer.data.transforms.size import middle
from fer.models import blocks
from fer.models.layers import Residual
from fer.runs.provenance import Provenance

Views = Callable[[Tensor, int | None], Sequence[Tensor]]  # of faces (B, 1, S, S) and a crop: crops (B, 1, T, T)


class EmotionClassifier(nn.Module):
    """A network that predicts the emotion of a face, which is grey unless ``in_channels`` is 3.

    A network that was trained on crops predicts from crops: ``forward`` takes whole faces and crops their middle,
    ``logits_of_crops`` takes faces that are cropped already. Users of a network pass whole faces in either case.

    Args:
        classes: names, in the order of the logits.
        image_size: side of the faces, in pixels.
        crop: side of the central square that the network sees, in pixels; None is the whole face.
        mean: mean of the training pixels, of values in [0, 1].
        std: standard deviation of the training pixels.
        in_channels: 1 for grey faces, 3 for faces in red, green and blue.
    """

    architecture = ""  # the name under which a subclass is registered
    frozen = 0  # number of layers at the beginning of ``net`` that never change, see ``freeze_first``
    net: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(
        self, *, classes: Sequence[str] = EMOTIONS, image_size: int = 48, crop: int | None = None, mean: float = 0.5,
        std: float = 0.25, in_channels: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        accepted = {*keyword_parameters(type(self)), *keyword_parameters(EmotionClassifier)}
        given = constructor_arguments(self, inspect.currentframe())  # less those that a subclass of a network fixes
        self._arguments = {name: value for name, value in given.items() if name in accepted}
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.provenance = Provenance()

    @property
    def hparams(self) -> dict[str, Any]:
        """The arguments that build the network again, those of the subclass too."""
        return self._arguments

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.mean.device

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.hparams["classes"])

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return sum(weights.numel() for weights in self.parameters())

    @property
    def weights_sha256(self) -> str:
        """A sha256 of the weights alone: networks with equal weights have equal hashes."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def computed_on(self, device: str) -> None:
        """Move the network to a device."""
        self.to(device)

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""
        return int(self.hparams["image_size"])

    @property
    def in_channels(self) -> int:
        """1 for grey faces, 3 for faces in colour."""
        return int(self.hparams.get("in_channels", 1))  # older checkpoints have no such entry

    @property
    def crop(self) -> int | None:
        """Side of the central square that the network sees, in pixels; None for the whole face."""
        crop: int | None = self.hparams.get("crop")  # older checkpoints have no such entry
        return crop

    @property
    def input_size(self) -> int:
        """Side of the images that reach ``net``, in pixels."""
        return self.crop or self.image_size

    def side_after(self, halvings: int, border: int = 0) -> int:
        """Return the side of the feature maps after ``halvings`` halvings, in pixels, rounded down.

        Args:
            halvings: how often the network halves the side.
            border: pixels that convolutions without padding remove from the side first.

        Raises:
            FerError: no pixel would remain.
        """
        side, least = self.input_size, border + 2**halvings
        if side < least:
            key = "data.crop" if self.crop else "data.image_size"
            raise FerError(
                f"{key}={side}: model={self.architecture} halves the side {halvings} times; expected at least {least}"
            )
        return (side - border) >> halvings

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C) of faces (B, 1, S, S), (B, 3, S, S) in colour, uint8 or float in [0, 1]."""
        return self.logits_of_crops(middle(images, self.crop))

    def logits_of_crops(self, images: Tensor) -> Tensor:
        """Return logits (B, C) of faces (B, 1, T, T) that are cropped already, uint8 or float in [0, 1]."""
        logits: Tensor = self.net(self._normalised(images))
        return logits

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return calibrated probabilities (B, C) of faces (B, 1, S, S), uint8 or float in [0, 1].

        The logits are divided by the temperature that was fitted on val (Guo et al. 2017), if any. Accuracy and the
        like are computed without it.

        Raises:
            FerError: the images are in colour, of another size, or have values outside [0, 1].
        """
        check_faces(images, self.image_size, self.in_channels)
        logits: Tensor = self(images.to(self.mean.dtype) if images.is_floating_point() else images)
        return (logits.float() / (self.provenance.temperature or 1.0)).softmax(1)

    def _normalised(self, images: Tensor) -> Tensor:
        return (to_unit(images) - self.mean) / self.std

    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, C) of a batch, from its precomputed features if it has any, else from its cropped faces."""
        logits: Tensor = (
            self.logits_of_crops(batch.images) if batch.features is None else self._parts()[1](batch.features)
        )
        return logits

    # --- pretrained and frozen layers -------------------------------------------------------------------------------

    def load_pretrained(self) -> dict[str, str] | None:
        """Load pretrained weights; return their "name", "file" and "sha256", or None if the network has none.

        It is called once, for a network that is neither resumed nor started from another checkpoint. The constructor
        loads no weights, so that a checkpoint rebuilds its network without their file.

        Raises:
            FerError: the weights are not available, or do not fit.
        """
        return None

    def freeze_first(self, layers: int) -> None:
        """Freeze the first layers of ``net``, a ``Sequential``: no gradients, always in evaluation mode.

        The output of frozen layers for a face never changes, see ``features``.
        """
        self.frozen = layers
        self._parts()[0].requires_grad_(False).eval()

    def freeze_trunk(self) -> None:
        """Freeze all layers of ``net`` except the last one with weights, and those after it.

        Raises:
            FerError: ``net`` is no ``Sequential`` of several blocks.
        """
        parts = blocks.grouped(self.net) if isinstance(self.net, nn.Sequential) else []
        if len(parts) < 2:
            raise FerError(
                f"trainer.freeze_trunk=true: model={self.architecture} has no layers one after another that could be "
                "frozen; leave it out, or for a network of timm set model.freeze=true"
            )
        self.freeze_first(sum(map(len, parts[:-1])))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers except the frozen ones."""
        super().train(mode)
        if self.frozen:
            self._parts()[0].eval()
        return self

    def _parts(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return the frozen layers and the trainable ones."""
        assert isinstance(self.net, nn.Sequential)
        return self.net[: self.frozen], self.net[self.frozen :]

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Return the output (B, ...) of the frozen layers for faces (B, 1, S, S); ``logits`` accepts it."""
        features: Tensor = self._parts()[0](self._normalised(middle(images, self.crop)))
        return features

    def features_key(self) -> str:
        """Return a sha256 of everything except the faces that ``features`` depends on.

        It covers sizes, normalisation, layers and weights; the cache of features uses it as its key.
        """
        layers = self._parts()[0]
        preprocessing = (self.image_size, self.crop, self.mean.tolist(), self.std.tolist())
        digest = hashlib.sha256(repr((preprocessing, layers)).encode())
        for value in layers.state_dict().values():
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def parameter_groups(self, lr: float) -> ParamsT:
        """Return the parameters, or groups ``{"params": ..., "lr": ...}``; the first group's rate is the logged one."""
        return self.parameters()

    # --- blocks -----------------------------------------------------------------------------------------------------

    @property
    def chains(self) -> Sequence[nn.Sequential]:
        """The ``Sequential``s that the whole prediction passes through, one after another, see ``fer.models.blocks``.

        Together they contain all parameters.
        """
        return [self.net] if isinstance(self.net, nn.Sequential) else []

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each block, from the faces to the logits; empty if the network names no blocks."""
        return blocks.layers_of(self.chains)

    def checkpoint_gradients(self) -> None:
        """Keep the inputs of blocks alone for the backward pass, which computes the blocks again.

        Raises:
            FerError: the network names no blocks.
        """
        if not self.chains:
            raise FerError(f"{blocks.KEY}: model={self.architecture} names no blocks; leave it out, or define `chains`")
        blocks.checkpoint_chains(self.chains)

    # --- explanations -----------------------------------------------------------------------------------------------

    @property
    def map_layers(self) -> Sequence[nn.Module]:
        """Layers, in their order, whose feature maps (B, C, s, s) the whole prediction passes through; for Grad-CAM.

        By default the activations and blocks of a ``Sequential``. A layer inside a residual branch does not belong: the
        shortcut passes it by. Layers with other outputs are passed over.
        """
        if not isinstance(self.net, nn.Sequential):
            return ()
        return [layer for layer in self.net if isinstance(layer, (nn.ReLU, nn.Sequential, Residual))]


def check_faces(images: Tensor, side: int, channels: int = 1) -> None:
    """Raise unless images are faces (B, channels, side, side), uint8 or float in [0, 1].

    Raises:
        FerError: naming the shape or type and the range that were passed.
    """
    shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1:] != (channels, side, side):
        kind = "grey" if channels == 1 else "red, green and blue"
        raise FerError(
            f"faces: {shape}; expected a tensor (B, {channels}, {side}, {side}), {kind}, each cropped to the face"
        )
    if images.dtype == torch.uint8 or not images.numel():
        return
    least, most = (float(value) for value in images.aminmax())
    if not images.is_floating_point() or not 0 <= least <= most <= 1:
        raise FerError(f"faces: {images.dtype} from {least:g} to {most:g}; expected uint8, or float from 0 to 1")


@torch.inference_mode()
def predicted_probabilities(
    model: EmotionClassifier, faces: FaceDataset, *, batch_size: int, device: torch.device, views: Views | None = None
) -> Tensor:
    """Return (N, C) float32 probabilities on the CPU, computed in full precision whatever the training's was.

    Args:
        model: the network; it is moved to ``device`` and left there, in evaluation mode.
        faces: N faces; where their features are cached, the layers before them are not run again.
        batch_size: faces at a time.
        device: to compute on.
        views: function that returns views of faces for a crop, over which probabilities are averaged, such as those of
            ``fer.inference.tta.VIEWS``; None is the faces as they are.

    Raises:
        NotFinite: a probability is NaN, so that nothing can be scored.
    """
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    starts = range(0, len(faces), batch_size)
    batches = (faces.on_device(torch.arange(start, min(start + batch_size, len(faces)))) for start in starts)
    parts = []
    for indices in faces.read_ahead(batches):
        batch = faces.__getitems__(indices).to(device)
        parts.append(_chances(model, batch, views).cpu())
    predicted = torch.cat(parts)
    if bad := int(predicted.isnan().any(1).sum()):
        raise NotFinite(f"the network predicts NaN for {bad:,} of {len(predicted):,} faces; nothing is scored")
    return predicted


def _chances(model: EmotionClassifier, batch: Batch, views: Views | None) -> Tensor:
    if views is not None:
        crops = views(to_unit(batch.images), model.crop)
        return torch.stack([model.logits_of_crops(crop).float().softmax(1) for crop in crops]).mean(0)
    logits: Tensor = model(to_unit(batch.images)) if batch.features is None else model.logits(batch)
    return logits.float().softmax(1)
