"""What a run does for its device before it begins: faces kept there, a batch size that fits, a compiled network."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer.config.errors import FerError
from fer.config.settings import BATCH_SIZE, TrainSettings
from fer.data.datamodule import FERDataModule
from fer.data.dataset import Batch
from fer.models import EmotionClassifier
from fer.system import machine

log = logging.getLogger(__name__)

LEAST = 32  # faces a step, the smallest that is tried
STEPS = 50  # an epoch has at least as many, however large the memory: fewer would hardly train
KEPT = 0.25  # of a GPU's free memory that faces may take
FULL = 0.9  # of a GPU's memory that a trial may take: optimizers and other batches need some too
GRAPHS = 64  # networks and shapes that are compiled: a stage of the network and of each teacher has one graph


def of(settings: TrainSettings) -> torch.device:
    """Return where a run computes."""
    return torch.device("cuda" if machine.uses_gpu(settings.trainer) else "cpu")


def keep_faces(data: FERDataModule, device: torch.device) -> None:
    """Keep the faces in a GPU's memory as bytes, where they are at most a quarter of what is free."""
    if device.type == "cpu":
        return
    size = sum(dataset.images.nbytes for dataset in data.datasets.values())
    free, _ = torch.cuda.mem_get_info(device)
    if size > KEPT * free:
        log.info("faces stay in the computer's memory: %.1f GB, and the GPU has %.1f free", size / 1e9, free / 1e9)
        return
    for dataset in data.datasets.values():
        dataset.keep_on(device)


# --- data.batch_size=auto -------------------------------------------------------------------------------------------


def batch_size(settings: TrainSettings, model: EmotionClassifier, faces: int) -> tuple[int, str]:
    """Return the faces a step for ``data.batch_size=auto``, and why so many.

    Args:
        settings: of the run.
        model: the network, which is left as it was.
        faces: of train.

    Raises:
        FerError: not even the smallest fits.
    """
    device = of(settings)
    if device.type == "cpu":
        return BATCH_SIZE, "the default; on a CPU larger ones are no faster"
    most = max(LEAST, faces // STEPS)
    found = largest(lambda size: _fits(settings, model, size, device), most)
    if found is None:
        raise FerError(f"data.batch_size=auto: not even {LEAST} faces fit in the memory of {device}")
    at_limit = f"more would leave fewer than {STEPS} steps an epoch" if 2 * found > most else "twice as many do not fit"
    return found, at_limit


def largest(fits: Callable[[int], bool], most: int) -> int | None:
    """Return the largest of 32, 64, 128 ... up to ``most`` that fits, as long as those before it do; None if none."""
    found, size = None, LEAST
    while size <= most and fits(size):
        found, size = size, 2 * size
    return found


def _fits(settings: TrainSettings, model: EmotionClassifier, size: int, device: torch.device) -> bool:
    """Return whether a step's forward and backward pass stay within the memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        trial(model, size * settings.augment.views, device, bf16=machine.chosen_precision(settings.trainer) == "bf16")
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return torch.cuda.max_memory_reserved(device) < FULL * torch.cuda.get_device_properties(device).total_memory


def trial(model: EmotionClassifier, size: int, device: torch.device, *, bf16: bool) -> None:
    """Run a step of ``size`` black faces on a copy of the network."""
    tried = copy.deepcopy(model).to(device).train()
    side = model.input_size
    faces: Tensor = torch.zeros(size, 1, side, side, device=device)
    targets = torch.zeros(size, dtype=torch.int64, device=device)
    soft = torch.full((size, model.num_classes), 1 / model.num_classes, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        loss = tried.training_step(Batch(faces, targets, 0, None, soft), 0)
    loss.backward()  # type: ignore[no-untyped-call]


# --- trainer.compile ------------------------------------------------------------------------------------------------


class Steps(Callback):
    """Marks the steps of a compiled network, and lets val go past what is compiled.

    Val is a small part of an epoch, and its two shapes, whole batches and the last one, would each take as long to
    compile as the training's single one.
    """

    def on_train_batch_start(self, *args: object) -> None:
        """Begin a step: a CUDA graph may then write over the outputs of the step before."""
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def on_validation_start(self, *args: object) -> None:
        """Run networks as they are."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, *args: object) -> None:
        """Run what is compiled again."""
        torch.compiler.set_stance("default")

    def on_exception(self, *args: object) -> None:
        """Leave the process as it was, wherever the training has ended."""
        torch.compiler.set_stance("default")


def compiled(model: EmotionClassifier, settings: TrainSettings, data: FERDataModule) -> list[Callback]:
    """Let torch compile the network and its teachers at their first step; return the callbacks that this needs.

    One graph is compiled a stage and network: all training batches are whole (``FERDataModule.even``), val is not
    compiled. On a GPU the network's becomes a CUDA graph; teachers run once a step, for which fused kernels do.

    Args:
        model: the network.
        settings: of the run.
        data: that it learns on; with features of all faces there is nothing to compile.
    """
    if not settings.trainer.compile or data.keeps_features:
        return []
    torch._dynamo.config.recompile_limit = GRAPHS
    model.net.compile(mode="reduce-overhead" if of(settings).type == "cuda" else None, dynamic=False)
    if model.teachers is not None:
        model.teachers.compile()
    return [Steps()]


def announce_compiling(settings: TrainSettings, data: FERDataModule) -> None:
    """Log what is compiled, and when."""
    if not settings.trainer.compile:
        return
    if data.keeps_features:
        log.info("trainer.compile: nothing to compile, the features of the faces are computed already")
        return
    on_gpu = of(settings).type == "cuda"
    log.info("the network is compiled as its first steps come%s", ", into CUDA graphs" if on_gpu else "")


@contextmanager
def compiling(settings: TrainSettings) -> Iterator[None]:
    """Say in a line where torch cannot compile.

    Raises:
        FerError: it could not.
    """
    if not settings.trainer.compile:
        yield
        return
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FerError(
            f"trainer.compile=true: torch cannot compile this network here: {reason.strip()[:200]}"
        ) from error
