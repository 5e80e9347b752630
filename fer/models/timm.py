"""Any network of timm, of one grey channel, its faces resized on the device; weights trained elsewhere if wanted.

Wightman 2019, "PyTorch Image Models", github.com/huggingface/pytorch-image-models; needs pip install
'fer-lightning[timm]'. Input (B, 1, S, S). Parameters and cost are those of the network:
``python -m fer.train --info models model=timm:resnet18``.
"""

import difflib
import importlib
import logging
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
from fer.models.factory import register
from fer.models.pretrained import local, read_tensors, sha256_of

log = logging.getLogger(__name__)

KEY = "model.weights"
ON_THE_HUB = "model.safetensors"


@register("timm")
class Timm(EmotionClassifier):
    """A network of timm, of one grey channel.

    With weights, faces are normalised as those were, by the mean of the colours.

    Args:
        network: a name of timm's, with or without the tag of its weights: "resnet18", "resnet18.a1_in1k".
        weights: "pretrained" (from the Hugging Face hub, downloaded once), a file, or None for random ones.
        size: side to which faces are resized, in pixels, bilinear; None leaves them.
        dropout: rate before the last layer.
        drop_path: stochastic depth, towards which the rates of the blocks rise (Huang et al. 2016).
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: timm is not installed, has no such network, or cannot build it so.
    """

    net: nn.Sequential

    def __init__(
        self,
        network: str,
        weights: str | None = None,
        size: Positive | None = None,
        dropout: PartialFraction = 0.0,
        drop_path: PartialFraction = 0.0,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        self.network, self.weights = network, weights
        rates = {"drop_rate": dropout, "drop_path_rate": drop_path}
        self.options: dict[str, Any] = {"in_chans": 1, "num_classes": self.num_classes}
        self.options |= {name: rate for name, rate in rates.items() if rate}
        made = build(network, self.options)
        if weights is not None:
            self.mean, self.std = (torch.tensor(made.pretrained_cfg[name]).mean() for name in ("mean", "std"))
        self.net = nn.Sequential(Resized(size) if size else nn.Identity(), made)

    def load_pretrained(self) -> dict[str, str] | None:
        """Load the weights; of those of three colours the sum, the last layer begins anew.

        Raises:
            FerError: they cannot be had, or are not the network's.
        """
        if self.weights is None:
            return None
        if self.weights == "pretrained":
            name, file = downloaded(self.network, vars(self.net[1])["pretrained_cfg"])
        else:
            file = local(self.weights, KEY)
            name = file.name
        found = safetensors.read(file)[0] if file.suffix == safetensors.SUFFIX else read_tensors(file)
        for key, value in found.items():
            if not torch.isfinite(value).all():
                raise FerError(f"{file}: {key} holds NaN or infinite weights")
        last = vars(self.net[1])["pretrained_cfg"].get("classifier") or ()
        adapted = tuple(f"{layer}." for layer in ((last,) if isinstance(last, str) else last))
        for key, value in self.net[1].state_dict().items():  # of what is missing timm would tell nothing
            if key not in found and not key.startswith(adapted):
                raise FerError(f"{file}: has no {key}; expected {tuple(value.shape)}, as timm's {self.network} has")
        options = {**self.options, "pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(found)}}
        self.net[1] = build(self.network, options, f"{file}: not the weights of ")
        return {"name": name, "file": str(file), "sha256": sha256_of(file)}


class Resized(nn.Module):
    """Faces at another side.

    Args:
        size: of the side, in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 1, T, T) of (B, 1, S, S)."""
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


def build(network: str, options: dict[str, Any], blamed: str = "model.network=") -> Any:
    """Return a network of timm's.

    Args:
        network: its name.
        options: of ``timm.create_model``.
        blamed: what is wrong of it if it fails; else it is the name or the options.

    Raises:
        FerError: there is none of that name, or it cannot be built so.
    """
    timm = library()
    known = timm.list_models()
    if network.partition(".")[0] not in known:
        near = difflib.get_close_matches(network, known, n=3)
        told = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has all names"
        raise FerError(f"model.network={network}: timm {timm.__version__} has no such network; {told}")
    try:
        return timm.create_model(network, **options)
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FerError(f"{blamed}{network}: {reason}") from error


def downloaded(network: str, told: dict[str, Any]) -> tuple[str, Path]:
    """Return the name of a network's weights on the Hugging Face hub, and their file, downloaded if it is not there.

    Args:
        network: as the user gave it.
        told: what timm knows of its weights.

    Raises:
        FerError: there are none, or they cannot be downloaded.
    """
    name = told.get("hf_hub_id")
    if not name:
        raise FerError(f"{KEY}=pretrained: timm knows no weights of {network}; expected null or a file")
    hub = importlib.import_module("huggingface_hub")
    log.info("%s: %s of %s, from the Hugging Face hub unless it is there", KEY, ON_THE_HUB, name)
    try:
        return name, Path(hub.hf_hub_download(name, ON_THE_HUB))
    except Exception as error:  # of the network, the hub, the cache: a dozen classes, OSError's and others
        reason = " ".join(str(error).split())[:200]
        raise FerError(
            f"{KEY}=pretrained: {ON_THE_HUB} of {name} could not be downloaded ({reason}); name the file: {KEY}=FILE"
        ) from error
