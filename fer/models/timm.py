"""Any network of timm, for grey faces or colours.

Faces are resized on the device; pretrained weights are optional. Source: Wightman 2019, "PyTorch Image Models",
github.com/huggingface/pytorch-image-models. It needs pip install 'fer-lightning[timm]'. Input (B, 1, S, S). ``python -m
fer.train --info models model=timm:resnet18`` prints the parameters and the cost of a network.

``timm:<name>`` is one registered network with an argument, not a thousand names. Weights are read as safetensors or
with ``weights_only``.
"""

import difflib
import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.config.errors import FerError
from fer.config.schema import PartialFraction, Positive
from fer.models import safetensors as safetensors
from fer.models.base import EmotionClassifier
from fer.models.blocks import KEY as KEY_CHECKPOINTING
from fer.models.factory import register
from fer.models.layers import Dropout
from fer.models.pretrained import local, read_tensors, sha256_of
from fer.system import ranks
from fer.system.text import plural

log = logging.getLogger(__name__)

KEY = "model.weights"
HUB_FILE = "model.safetensors"  # file of the weights in a repository of the Hugging Face hub


@register("timm")
class Timm(EmotionClassifier):
    """A network of timm for one grey channel, or for three of colour.

    With pretrained weights, faces are normalised by the pretraining's statistics, for grey by their mean over colours.

    Args:
        network: timm's name, with or without the tag of its weights: "resnet18", "resnet18.a1_in1k".
        weights: "pretrained" (from the Hugging Face hub, downloaded once), a file, or None for random weights.
        size: side to which faces are resized, in pixels, bilinear; None keeps the faces.
        dropout: rate before the last layer.
        drop_path: stochastic depth; the blocks' rates rise to this one (Huang et al. 2016).
        freeze: train a new linear layer alone, on the pooled features of the pretrained layers, which never change.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: timm is not installed, has no such network, or cannot build it with these arguments; layers without
            weights are to be frozen.
    """

    net: nn.Sequential

    def __init__(
        self,
        network: str,
        weights: str | None = None,
        size: Positive | None = None,
        dropout: PartialFraction = 0.0,
        drop_path: PartialFraction = 0.0,
        freeze: bool = False,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        if freeze and weights is None:
            raise FerError(f"model.freeze=true: would freeze random layers; set {KEY}=pretrained, or a file")
        self.network, self.weights = network, weights
        rates = {} if freeze else {"drop_rate": dropout, "drop_path_rate": drop_path}
        # without classes timm's network returns the pooled features
        self.options: dict[str, Any] = {"in_chans": self.in_channels, "num_classes": 0 if freeze else self.num_classes}
        self.options |= {name: rate for name, rate in rates.items() if rate}
        made = build(network, self.options)
        if weights is not None:
            self.mean, self.std = (self._statistics(made.pretrained_cfg[name]) for name in ("mean", "std"))
        trunk = (Resized(size) if size else nn.Identity(), made)
        head = (Dropout(dropout), nn.Linear(made.head_hidden_size, self.num_classes)) if freeze else ()
        self.net = nn.Sequential(*trunk, *head)
        if freeze:
            self.freeze_first(len(trunk))

    def _statistics(self, of_colours: Sequence[float]) -> Tensor:
        """Return the statistics of each colour (3, 1, 1), or their mean for grey faces."""
        values = torch.tensor(of_colours)
        return values.mean() if self.in_channels == 1 else values.reshape(-1, 1, 1)

    @property
    def map_layers(self) -> Sequence[nn.Module]:
        """The stages that timm names for detectors; a transformer's have no feature maps."""
        names = [stage["module"] for stage in getattr(self.net[1], "feature_info", ()) if stage.get("module")]
        modules = dict(self.net[1].named_modules())
        return [modules[name] for name in names if name in modules]

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each layer, as timm orders them for rates by layer."""
        made: Any = self.net[1]
        manipulate = importlib.import_module("timm.models._manipulate")
        layers = manipulate.group_parameters(made, made.group_matcher(coarse=False), return_values=True)
        head = [list(self.net[2:].parameters())] if self.frozen else []
        return [layer for _, layer in sorted(layers.items())] + head

    def checkpoint_gradients(self) -> None:
        """Let timm compute its blocks again in the backward pass.

        Raises:
            FerError: timm does not offer that for the network, or several ranks share its random numbers.
        """
        made: Any = self.net[1]
        if self.frozen:
            raise FerError(f"{KEY_CHECKPOINTING}: has no effect with model.freeze=true; leave it out")
        if ranks.current().several:
            raise FerError(f"{KEY_CHECKPOINTING}: model=timm does it on one device only; set trainer.devices=1")
        try:
            made.set_grad_checkpointing(True)
        except (AssertionError, AttributeError, TypeError) as error:
            raise FerError(f"{KEY_CHECKPOINTING}: timm does not offer it for {self.network}; leave it out") from error

    def load_pretrained(self) -> dict[str, str] | None:
        """Load the weights: the first layer's are summed over the colours, the last layer starts from random ones.

        The log states the layer that starts anew.

        Raises:
            FerError: the weights are not available, or do not fit the network.
        """
        if self.weights is None:
            return None
        if self.weights == "pretrained":
            name, file = downloaded(self.network, vars(self.net[1])["pretrained_cfg"])
        else:
            file = local(self.weights, KEY)
            name = file.name
        tensors = safetensors.read(file)[0] if file.suffix == safetensors.SUFFIX else read_tensors(file)
        for key, value in tensors.items():
            if not torch.isfinite(value).all():
                raise FerError(f"{file}: {key} holds NaN or infinite weights")
        last = vars(self.net[1])["pretrained_cfg"].get("classifier") or ()
        layers = (last,) if isinstance(last, str) else tuple(last)
        self._check_names(tensors, tuple(f"{layer}." for layer in layers), file)
        options = {**self.options, "pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(tensors)}}
        self.net[1] = build(self.network, options, f"{file}: not the weights of ")
        if self.frozen:
            self.freeze_first(self.frozen)
        self._state_new_layers(tensors, layers)
        return {"name": name, "file": str(file), "sha256": sha256_of(file)}

    def _check_names(self, tensors: Mapping[str, Tensor], classifiers: tuple[str, ...], file: Path) -> None:
        """Raise unless a file has the weights of the network alone; timm would report neither.

        The layers that compute logits may differ. A file of the hub may have further weights, of layers that only the
        pretraining used.

        Raises:
            FerError: naming the first weight that is missing or does not belong.
        """
        expected = self.net[1].state_dict()
        for key, value in expected.items():
            if key not in tensors and not key.startswith(classifiers):
                raise FerError(f"{file}: has no {key}; expected {tuple(value.shape)}, as timm's {self.network} has")
        further = [key for key in tensors if key not in expected and not key.startswith(classifiers)]
        if not further:
            return
        count = plural(len(further), "tensor")
        text = f"{file}: has {count} that timm's {self.network} does not have, first: {further[0]}"
        if self.weights != "pretrained":
            raise FerError(f"{text}; name the network of these weights with model.network")
        log.warning("%s; left out", text)

    def _state_new_layers(self, tensors: Mapping[str, Tensor], classifiers: Sequence[str]) -> None:
        """Log which layers start from random weights, and for how many classes the file has them."""
        theirs = {layer: len(tensors[f"{layer}.weight"]) for layer in classifiers if f"{layer}.weight" in tensors}
        of_theirs = ", ".join(f"{layer} of the file has {count:,}" for layer, count in theirs.items())
        log.info(
            "%s: the layer of the logits starts from random weights, for %d classes (%s)",
            KEY, self.num_classes, of_theirs or "the file has none",
        )  # fmt: skip


class Resized(nn.Module):
    """Bilinear resizing of faces.

    Args:
        size: side of the result, in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return faces (B, 1, T, T) of faces (B, 1, S, S)."""
        return functional.interpolate(images, size=(self.size, self.size), mode="bilinear", align_corners=False)


def library() -> ModuleType:
    """Return timm.

    Raises:
        FerError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise FerError("model=timm needs timm, which is not installed: pip install 'fer-lightning[timm]'") from error


def build(network: str, options: dict[str, Any], failure: str = "model.network=") -> Any:
    """Return a network of timm.

    Args:
        network: timm's name.
        options: arguments of ``timm.create_model``.
        failure: beginning of the message if building fails.

    Raises:
        FerError: timm has no network of that name, or cannot build it with these options.
    """
    timm = library()
    known = timm.list_models()
    if network.partition(".")[0] not in known:
        near = difflib.get_close_matches(network, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has all names"
        raise FerError(f"model.network={network}: timm {timm.__version__} has no such network; {hint}")
    try:
        return timm.create_model(network, **options)
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FerError(f"{failure}{network}: {reason}") from error


def downloaded(network: str, pretrained_cfg: dict[str, Any]) -> tuple[str, Path]:
    """Return a network's repository on the Hugging Face hub, and the file of its weights; download it if missing.

    Args:
        network: name as the user gave it.
        pretrained_cfg: timm's description of its weights.

    Raises:
        FerError: timm has no weights of the network, or the download failed.
    """
    name = pretrained_cfg.get("hf_hub_id")
    if not name:
        raise FerError(f"{KEY}=pretrained: timm has no weights of {network}; expected null or a file")
    hub = importlib.import_module("huggingface_hub")
    log.info("%s: %s of %s, downloaded from the Hugging Face hub unless it is cached", KEY, HUB_FILE, name)
    try:
        return name, Path(hub.hf_hub_download(name, HUB_FILE))
    except Exception as error:  # network, hub and cache raise a dozen classes, OSError among them
        reason = " ".join(str(error).split())[:200]
        raise FerError(
            f"{KEY}=pretrained: {HUB_FILE} of {name} could not be downloaded ({reason}); name the file: {KEY}=FILE"
        ) from error
