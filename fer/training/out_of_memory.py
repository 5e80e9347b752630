"""A training whose memory runs out.

The error names the key to lower; a smaller batch may be tried next. The training is begun again with half of the batch
where ``trainer.halve_batch_on_oom`` allows it. After the first checkpoint it is not, since a run has one batch size.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from fer.config.errors import OutOfMemory
from fer.config.settings import TrainSettings
from fer.runs.stored import resume_line
from fer.system import machine
from fer.system.terminal import shown
from fer.training.session import CHECKPOINTS, memory_in_words, ran_out_of_memory

Result = TypeVar("Result")

log = logging.getLogger(__name__)

SMALLEST_HALVED = 4  # faces of a batch; batch normalisation needs two


def halving(attempt: Callable[[TrainSettings], Result], settings: TrainSettings) -> Result:
    """Return the result of a training, begun again with half of the batch as long as memory runs out.

    Args:
        attempt: function that trains with the given settings, under ``named``.
        settings: settings of the run.

    Raises:
        OutOfMemory: memory ran out, and no smaller batch may be tried.
    """
    while True:
        try:
            return attempt(settings)
        except OutOfMemory as error:
            size = error.smaller_batch
            if size is None:
                raise
            log.warning("%s; beginning again with data.batch_size=%d", error, size)
        gc.collect()  # the tensors of the attempt, to which its error referred
        if machine.uses_gpu(settings.trainer):
            torch.cuda.empty_cache()
        settings = replace(settings, data=replace(settings.data, batch_size=size))


def _halved(settings: TrainSettings, folder: Path) -> int | None:
    """Return half of a run's batch size; None if the settings keep it, or finished epochs would be lost."""
    size = settings.data.faces_a_step
    if not settings.trainer.halve_batch_on_oom or _begun(folder):
        return None
    return size // 2 if size >= SMALLEST_HALVED else None


def _begun(folder: Path) -> bool:
    return any((folder / name).exists() for name in CHECKPOINTS)


def _remedy(settings: TrainSettings, folder: Path) -> str:
    """Return what to do where memory runs out, and why the batch is not halved."""
    size = settings.data.faces_a_step
    lower = f"lower data.batch_size={size}"
    if not settings.trainer.halve_batch_on_oom:
        return f"{lower}, or set trainer.halve_batch_on_oom=true"
    if _begun(folder):
        resume = resume_line(folder, shown(folder))
        return (
            "trainer.halve_batch_on_oom halves only before the first checkpoint, since a run has one batch size; begin "
            f"a new run with data.batch_size={max(1, size // 2)}, or free memory and {resume}"
        )
    return lower


@contextmanager
def named(settings: TrainSettings, folder: Path) -> Iterator[None]:
    """Turn the errors of an exhausted memory into one that names the key to lower.

    Args:
        settings: settings of the run, with a number of faces for ``data.batch_size=auto``.
        folder: folder of the run.

    Raises:
        OutOfMemory: naming the batch size and the switch that halves it.
    """
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        where = "of the GPU" if type(error).__name__ == "OutOfMemoryError" else "of the computer"
        text = memory_in_words(error).replace("out of memory", f"out of memory {where}", 1)
        raise OutOfMemory(f"{text}; {_remedy(settings, folder)}", _halved(settings, folder)) from None
