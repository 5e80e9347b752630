"""The network that predicts: with its weights by torch, or exported by ONNX Runtime.

No torch is imported here. ``opened`` is the one function that chooses between the two, by the ending of the file's
name.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.paths import expand_home
from fer.inference.exported import ExportedNetwork, Images, is_exported
from fer.metrics.conformal import Thresholds
from fer.runs import zoo
from fer.system.hub import is_reference

if TYPE_CHECKING:
    import torch

    from fer.models import EmotionClassifier


UNNAMED = "data that its file does not name"  # where ``trained_on`` is None


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

    def probabilities(self, faces: Images) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C) of faces (N, 1, S, S), uint8 or float32 in [0, 1]."""


def channels(network: Network) -> int:
    """Return 3 of a network that takes faces (N, 3, S, S) in colour, 1 of others; one of your own need not state it."""
    return int(getattr(network, "in_channels", 1))


def opened(network: "str | Path | EmotionClassifier | Network", device: "str | torch.device" = "cpu") -> Network:
    """Return a network that is ready to predict.

    Args:
        network: name of a network of the package, run folder, checkpoint, shared or exported file, ``hf://owner/name``,
            or a loaded network.
        device: to compute on; an exported file is computed on the CPU.

    Raises:
        FerError: it cannot be had, an exported file is to be computed elsewhere, or torch cannot use the device.
    """
    if isinstance(network, str | Path) and is_exported(network):
        if str(device) != "cpu":
            raise FerError(f"{network}: an exported file is computed on the CPU; leave out the device {device}")
        return ExportedNetwork(network)
    if isinstance(network, Network):
        return network
    from fer.inference.loaded import LoadedNetwork
    from fer.models import checkpoints

    check_device(device)
    return LoadedNetwork(checkpoints.load(network) if isinstance(network, str | Path) else network, device)


def check_device(device: "str | torch.device") -> None:
    """Refuse a device on which torch cannot compute.

    Raises:
        FerError: torch does not know it, finds no such device here, or keeps no values on it.
    """
    import torch

    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise FerError(f"{setting('device', device)}: torch knows no such device; expected cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise FerError(f"{setting('device', 'gpu')}: torch finds no GPU on this machine; use the CPU")
    try:
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # an assertion: this torch was built without that kind
        raise FerError(f"{setting('device', device)}: torch cannot compute on it here; expected cpu or cuda") from error


class Opened(NamedTuple):
    """A network that is ready to predict, and its file."""

    file: Path
    network: Network

    @property
    def called(self) -> str:
        """The name of a network of the package, else the path of the file."""
        if isinstance(self.network, ExportedNetwork):
            return str(self.file)
        return self.file.stem if zoo.of_package(self.file) else str(self.file)


def opened_together(networks: Sequence[Path], device: str = "cpu") -> list[Opened]:
    """Return networks that predict the same emotions.

    Args:
        networks: what ``named`` gives.
        device: to compute on.

    Raises:
        FerError: one cannot be had or is given twice, or they name different emotions.
    """
    files = [file_of(given) for given in networks]
    check_different(files)
    loaded = [Opened(file, opened(file, device)) for file in files]
    check_emotions((member.file, member.network.emotions) for member in loaded)
    return loaded


def file_of(given: str | Path) -> Path:
    """Return the file of a network: an exported file itself, else what ``fer.load`` would open.

    Raises:
        FerError: it cannot be had.
    """
    if is_exported(given):
        return expand_home(given)
    from fer.models import checkpoints

    return checkpoints.find(given)


def check_different(files: Sequence[Path]) -> None:
    """Raise where a file of an ensemble is given twice.

    Raises:
        FerError: naming it.
    """
    for number, file in enumerate(files):
        if any(file.resolve() == other.resolve() for other in files[:number]):
            raise FerError(f"{file}: given twice; name each network once")


def check_emotions(networks: Iterable[tuple[Path, Sequence[str]]]) -> None:
    """Raise unless networks, each a file and its emotions, predict the same emotions in the same order.

    Raises:
        FerError: naming two of them, and their emotions.
    """
    (first, expected), *others = networks
    for file, emotions in others:
        if list(emotions) != list(expected):
            raise FerError(
                f"{file}: predicts {', '.join(emotions)}; {first} predicts {', '.join(expected)}. The networks of an "
                "ensemble have the same emotions in the same order"
            )


def named(given: str | Path, *, download: bool = False) -> Path:
    """Return the file or folder of a network that a command line names; "latest" is the newest run in ``outputs/``.

    Args:
        given: what the command line has.
        download: fetch a network of the hub that its cache lacks.

    Raises:
        FerError: there is no such run or exported file, or the network of the hub cannot be had.
    """
    if is_exported(given):
        if not expand_home(given).is_file():
            raise FerError(
                f"{given}: no such file; a network is a run, a checkpoint, a file that ends in .safetensors or "
                ".onnx, latest, a network of the package (tiny), or hf://owner/name of the hub"
            )
        return Path(given)
    from fer.runs import run_folder  # imports Hydra

    return run_folder.named(given, run_folder.TRAINED, download=download)


def title(given: str, network: Path) -> str:
    """Return the name of a network on a page: the hub's, else that of its file or folder.

    Args:
        given: what the command line has.
        network: what ``named`` gives for it.
    """
    if is_reference(given):
        return given
    return (network.name if expand_home(network).is_dir() else network.stem) or str(network)
