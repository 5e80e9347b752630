"""What predicts: a network with its weights, by torch, or an exported file, by ONNX Runtime. No torch is imported here.

``opened`` is the one function that chooses between the two, by the ending of the file's name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.inference.exported import ExportedNetwork, is_exported
from fer.metrics.conformal import Thresholds

if TYPE_CHECKING:
    import torch

    from fer.models import EmotionClassifier


@runtime_checkable
class Network(Protocol):
    """A network that is ready to predict."""

    @property
    def emotions(self) -> Sequence[str]:
        """The emotions that it distinguishes, in the order of its probabilities."""

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""

    @property
    def architecture(self) -> str:
        """Its name."""

    @property
    def temperature(self) -> float | None:
        """Divisor of its logits, which its probabilities include."""

    @property
    def sets(self) -> Thresholds | None:
        """Thresholds of its prediction sets; None where it has none."""

    @property
    def trained_on(self) -> str | None:
        """Name of the data set that it was trained on."""

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C) of faces (N, 1, S, S) uint8."""


def opened(network: "str | Path | EmotionClassifier | Network", device: "str | torch.device" = "cpu") -> Network:
    """Return a network that is ready to predict.

    Args:
        network: name of a network of the package, run folder, checkpoint, shared or exported file, ``hf://owner/name``,
            or a loaded network.
        device: to compute on; an exported file is computed on the CPU.

    Raises:
        FerError: it cannot be had, or an exported file is to be computed elsewhere.
    """
    if isinstance(network, str | Path) and is_exported(network):
        if str(device) != "cpu":
            raise FerError(f"{network}: an exported file is computed on the CPU; leave out the device {device}")
        return ExportedNetwork(network)
    if isinstance(network, Network):
        return network
    from fer.inference.loaded import LoadedNetwork
    from fer.models import checkpoints

    return LoadedNetwork(checkpoints.load(network) if isinstance(network, str | Path) else network, device)


def named(given: str | Path, *, download: bool = False) -> Path:
    """Return the file or folder of a network that a command line names; "latest" is the newest run in ``outputs/``.

    Args:
        given: what the command line has.
        download: fetch a network of the hub that its cache lacks.

    Raises:
        FerError: there is no such run or exported file, or the network of the hub cannot be had.
    """
    if is_exported(given):
        if not Path(given).expanduser().is_file():
            raise FerError(
                f"{given}: no such file; a network is a run, a checkpoint, a file that ends in .safetensors or "
                ".onnx, latest, a network of the package (tiny), or hf://owner/name of the hub"
            )
        return Path(given)
    from fer.runs import run_folder  # imports Hydra

    return run_folder.named(given, run_folder.TRAINED, download=download)
