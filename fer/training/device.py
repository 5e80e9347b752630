"""Preparation of a run for its device.

It concerns faces in the device's memory, features that are computed once, the order of the weights in memory, a batch
size that fits, and a compiled network. No step waits for the device. Faces are on a GPU as bytes, and an epoch's order
is drawn on the CPU and moved once. Losses and metrics stay on the device for an epoch.
``tests/training/test_waiting.py`` runs a step on the device "meta", where reading a value fails.
``trainer.deterministic=false`` lets a GPU use its fastest kernels, ``trainer.compile=true`` compiles the network; both
are off by default.
"""

import copy
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer.config.errors import FerError
from fer.config.settings import BATCH_SIZE, TrainerSettings, TrainSettings
from fer.data.cache import folder_of
from fer.data.datamodule import FERDataModule
from fer.data.dataset import Batch
from fer.data.feature_cache import LARGEST, FeatureStore
from fer.models.output_check import check_output
from fer.models.trainable import Trainable
from fer.system import machine, ranks
from fer.system.slots import usable_cores
from fer.system.text import plural

log = logging.getLogger(__name__)

LEAST = 32  # smallest batch size of ``data.batch_size=auto``, in faces
STEPS = 50  # least number of steps in an epoch, however large the memory: fewer would hardly train
KEPT = 0.25  # largest fraction of a GPU's free memory for the faces
FULL = 0.9  # largest fraction of a GPU's memory for a trial: optimizers and other batches need memory too
SIMD, LEAST_OVERRUN = 16, 46  # numbers of 32 bits in a register of AVX-512; side in pixels, see ``laid_out``
GRAPHS = 64  # largest number of compiled graphs: one for each stage, of the network and of each teacher


def of(settings: TrainSettings) -> torch.device:
    """Return the device of a run."""
    return torch.device("cuda" if machine.uses_gpu(settings.trainer) else "cpu")


def keep_faces(data: FERDataModule, device: torch.device) -> None:
    """Move the faces to a GPU's memory as bytes, if they need at most a quarter of its free memory."""
    if device.type == "cpu":
        return
    size = sum(dataset.images.nbytes for dataset in data.datasets.values())
    free, _ = torch.cuda.mem_get_info(device)
    if size > KEPT * free:
        log.info("faces stay in the computer's memory: %.1f GB; the GPU has %.1f GB free", size / 1e9, free / 1e9)
        return
    for dataset in data.datasets.values():
        dataset.keep_on(device)


def announce(settings: TrainSettings, model: Trainable, faces: int, steps: int) -> None:
    """Log the network, the length of its training and the hardware.

    Args:
        settings: settings of the run.
        model: its network.
        faces: number of training faces.
        steps: number of batches in an epoch.
    """
    epochs, taken = settings.trainer.max_epochs, f"{faces:,}"
    if settings.trainer.limit_train < 1 or settings.trainer.overfit_batches:
        taken = f"{min(faces, steps * settings.data.faces_a_step):,} of {taken}"
    log.info(
        "%s: %s, %d epoch%s of %s faces, %s",
        settings.model["name"], _sizes(model), epochs, "" if epochs == 1 else "s", taken, _hardware(settings.trainer),
    )  # fmt: skip


def _sizes(model: Trainable) -> str:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    count = model.parameter_count
    return f"{count:,} parameters" + (f", of which {trained:,} are trained" if trained < count else "")


def _hardware(settings: TrainerSettings) -> str:
    """Return device, threads and precision in words."""
    half = machine.chosen_precision(settings) == "bf16"
    bits = "bf16" if half else "32 bits"
    count = ranks.current().count
    together = f"{count} processes, each " if count > 1 else ""
    if machine.uses_gpu(settings):
        return f"{together}on {torch.cuda.get_device_name()}, {bits}"
    threads, cores = torch.get_num_threads(), usable_cores()
    notes = []
    if half and machine.multiplies_bf16() is False:
        notes.append(" (this processor has no bf16 instructions: trainer.precision=32 is faster here)")
    if settings.threads and settings.threads > cores:
        notes.append(f" (this process may use {plural(cores, 'core')}: lower trainer.threads={settings.threads})")
    return f"{together}on the CPU with {plural(threads, 'thread')}, {bits}{''.join(notes)}"


def keep_features(settings: TrainSettings, data: FERDataModule, model: Trainable) -> None:
    """Compute the output of frozen layers once for all faces, if it is the same at every step, and log the decision.

    The cache is keyed by a face's pixels and by everything else that the output depends on. So runs with other seeds
    and splits share it.
    """
    chosen = settings.trainer
    if not model.frozen:
        return
    if chosen.limit_train < 1 or chosen.limit_val < 1 or chosen.overfit_batches:
        log.info("features: computed at each step, since only a part of the faces is used")
        return
    if settings.stages:
        log.info("features: computed at each step, since stages resize the faces")
        return
    splits = ["val"] if data.augments else ["train", "val"]
    if data.augments:
        log.info("features of train: computed at each step, since augmentation changes the faces")
    size = (
        math.prod(model.features(torch.zeros(1, model.in_channels, model.image_size, model.image_size)).shape) * 4
    )  # bytes a face
    total = size * sum(len(data.datasets[split]) for split in splits)
    if total > LARGEST:
        log.info("features: computed at each step; a cache would take %.1f GB, over %.1f", total / 1e9, LARGEST / 1e9)
        return
    where = of(settings)
    model.to(where)
    rounding = (torch.__version__, where.type, chosen.channels_last)  # what changes the last bits
    key = hashlib.sha256(repr((model.features_key(), rounding)).encode()).hexdigest()
    store = FeatureStore(key, folder_of(data.data.cache))
    store.serve([data.datasets[split] for split in splits], lambda faces: model.features(faces.to(where)).cpu())


def laid_out(model: Trainable, settings: TrainerSettings) -> Trainable:
    """Return the network with channels innermost if ``trainer.channels_last`` asks for it and the CPU can train it so.

    In this order the backward pass of a narrow 1x1 convolution with a stride of 2 ends the process by a segmentation
    fault. That was measured with torch 2.14.1 (oneDNN) and AVX-512. The fault needs 2 to 15 input channels, at most 16
    output channels, 32 bits, and two or more faces. Their side is even and 46 pixels or more; up to 45 nothing is
    wrong.
    """
    if not settings.channels_last:
        return model
    narrow = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d) and _overruns(layer)]
    if narrow and not machine.uses_gpu(settings) and _largest_side(model, narrow) >= LEAST_OVERRUN:
        layers = plural(len(narrow), "narrow layer")
        log.info("trained as with trainer.channels_last=false: torch would crash in the backward pass of %s", layers)
        return model
    return model.to(memory_format=torch.channels_last)


def _overruns(layer: torch.nn.Conv2d) -> bool:
    strided = layer.kernel_size == (1, 1) and layer.stride != (1, 1)
    return strided and layer.in_channels < SIMD and layer.out_channels <= SIMD


def _largest_side(model: Trainable, layers: Sequence[torch.nn.Module]) -> int:
    """Return the largest side of what layers take, for faces of the full size."""
    sides = [0]
    hooks = [layer.register_forward_pre_hook(lambda _, given: sides.append(given[0].shape[-1])) for layer in layers]
    check_output(model, model.input_size)
    for hook in hooks:
        hook.remove()
    return max(sides)


# --- data.batch_size=auto -------------------------------------------------------------------------------------------


def batch_size(settings: TrainSettings, model: Trainable, faces: int) -> tuple[int, str]:
    """Return the batch size of ``data.batch_size=auto``, in faces, and the reason for it.

    Args:
        settings: settings of the run.
        model: the network, which does not change.
        faces: number of training faces.

    Raises:
        FerError: the smallest batch does not fit into the device's memory.
    """
    device = of(settings)
    if device.type == "cpu":
        return BATCH_SIZE, "the default; on a CPU larger ones are no faster"
    most = max(LEAST, faces // STEPS)
    size = largest(lambda size: _fits(settings, model, size, device), most)
    if size is None:
        raise FerError(f"data.batch_size=auto: {LEAST} faces do not fit in the memory of {device}; set a number")
    reason = f"more would leave fewer than {STEPS} steps an epoch" if 2 * size > most else "twice as many do not fit"
    return size, reason


def largest(fits: Callable[[int], bool], most: int) -> int | None:
    """Return the largest of 32, 64, 128 ... up to ``most`` before the first that does not fit; None if 32 does not."""
    fitting, size = None, LEAST
    while size <= most and fits(size):
        fitting, size = size, 2 * size
    return fitting


def _fits(settings: TrainSettings, model: Trainable, size: int, device: torch.device) -> bool:
    """Return whether a step's forward and backward pass fit into the device's memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        trial(model, size * settings.augment.views, device, bf16=machine.chosen_precision(settings.trainer) == "bf16")
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return torch.cuda.max_memory_reserved(device) < FULL * torch.cuda.get_device_properties(device).total_memory


def trial(model: Trainable, size: int, device: torch.device, *, bf16: bool) -> None:
    """Run forward and backward pass of ``size`` black faces on a copy of the network."""
    copied = copy.deepcopy(model).to(device).train()
    side = model.input_size
    faces: Tensor = torch.zeros(size, model.in_channels, side, side, device=device)
    targets = torch.zeros(size, dtype=torch.int64, device=device)
    soft = torch.full((size, model.num_classes), 1 / model.num_classes, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        loss = copied.training_step(Batch(faces, targets, 0, None, soft), 0)
    loss.backward()  # type: ignore[no-untyped-call]


# --- trainer.compile ------------------------------------------------------------------------------------------------


class Steps(Callback):
    """Marks the steps of a compiled network, and runs val without compiled graphs.

    Val is a small part of an epoch. It has two shapes, whole batches and the last one. Each would take as long to
    compile as the single shape of the training.
    """

    def on_train_batch_start(self, *args: object) -> None:
        """Begin a step: a CUDA graph may then overwrite the outputs of the previous step."""
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def on_validation_start(self, *args: object) -> None:
        """Turn compiled graphs off."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, *args: object) -> None:
        """Turn compiled graphs on again."""
        torch.compiler.set_stance("default")

    def on_exception(self, *args: object) -> None:
        """Restore the process's default if the training ended during val."""
        torch.compiler.set_stance("default")


def compiled(model: Trainable, settings: TrainSettings, data: FERDataModule) -> list[Callback]:
    """Let torch compile the network and its teachers at their first step; return the callbacks for it.

    One graph is compiled for each stage and network, since all training batches are whole (``drop_last`` of
    ``FERDataModule``); val is not compiled. On a GPU the network's graph becomes a CUDA graph. Teachers need none: they
    have no backward pass, and fused kernels are enough.

    Args:
        model: the network.
        settings: settings of the run.
        data: data of the run; with precomputed features of all faces nothing is compiled.
    """
    if not settings.trainer.compile or data.keeps_features:
        return []
    torch._dynamo.config.recompile_limit = GRAPHS
    model.net.compile(mode="reduce-overhead" if of(settings).type == "cuda" else None, dynamic=False)
    if model.teachers is not None:
        model.teachers.compile()
    return [Steps()]


def announce_compiling(settings: TrainSettings, data: FERDataModule) -> None:
    """Log whether the network is compiled."""
    if not settings.trainer.compile:
        return
    if data.keeps_features:
        log.info("trainer.compile: has no effect, since the features of the faces are precomputed")
        return
    on_gpu = of(settings).type == "cuda"
    log.info("trainer.compile: the network is compiled at its first steps%s", ", into CUDA graphs" if on_gpu else "")


@contextmanager
def compiling(settings: TrainSettings) -> Iterator[None]:
    """Turn torch's error of compiling into a message.

    Raises:
        FerError: torch could not compile the network.
    """
    if not settings.trainer.compile:
        yield
        return
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FerError(
            f"trainer.compile=true: torch cannot compile this network here, leave it out: {reason.strip()[:200]}"
        ) from error
