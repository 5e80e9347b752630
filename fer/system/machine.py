"""The machine at hand: what it is, and the settings that make the most of it."""

import ctypes
import functools
import logging
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

import fer
from fer.config.errors import FerError
from fer.config.settings import TrainerSettings
from fer.system.slots import usable_cores

log = logging.getLogger(__name__)

# glibc's mallopt: parameter -> value (malloc.h). Blocks above 32 MB are otherwise handed back to the system at once,
# and at batch 128 a fifth of the processor's time goes into getting them again, page by page.
ALLOCATOR = {-3: 1 << 30, -1: 2**31 - 1, -2: 256 << 20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD

PEAK, RESIDENT = "VmHWM", "VmRSS"  # figures of Linux: the largest memory so far, that in use
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "pillow")


def prepare(settings: TrainerSettings) -> None:
    """Set threads and allocator as told; must come before the first large allocation."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    elif not os.environ.get("OMP_NUM_THREADS"):  # torch counts cores, and knows nothing of a container's quota
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    if settings.allocator and not uses_gpu(settings):
        keep_freed_memory()
    if settings.deterministic and uses_gpu(settings):  # read once, at the first product: before any trial
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # filling new memory costs 2 % of a step, and nothing reads it before it is written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high")  # TF32 where a GPU has it; without effect on a CPU


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory; return whether it agreed. Elsewhere than on glibc nothing happens."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    refused = [parameter for parameter, value in ALLOCATOR.items() if libc.mallopt(parameter, value) != 1]
    if refused:
        log.warning("the allocator refused settings %s; training is slower, not different", refused)
    return not refused


def uses_gpu(settings: TrainerSettings, key: str = "trainer.accelerator") -> bool:
    """Return whether a run goes to a GPU; ``key`` is what the user set, for the message.

    Raises:
        FerError: one is demanded and there is none.
    """
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise FerError(f"{key}=gpu: torch sees no GPU here; use auto or cpu")
    return settings.accelerator != "cpu" and torch.cuda.is_available()


def chosen_precision(settings: TrainerSettings) -> Literal["bf16", 32]:
    """Return what a training computes in; "auto" is bf16 on a GPU and 32 bits on a CPU (docs/performance.md)."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if uses_gpu(settings) else 32


def precision(settings: TrainerSettings) -> Any:
    """Return Lightning's name for the precision."""
    return "bf16-mixed" if chosen_precision(settings) == "bf16" else "32-true"


def provenance() -> dict[str, Any]:
    """Return versions, commit, hardware and the time, as ``metrics.json`` holds them."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"versions": versions(), "commit": commit(), "hardware": hardware(), "finished": now}


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout that this code runs from, marked where files differ from it.

    Where there is no checkout, such as in a copy of its files, the one that ``FER_COMMIT`` names, marked as given by
    the environment; None without it. Asked once a process: a checkout may move on while a run goes on with the code
    that it began with.
    """
    return _of_checkout(Path(__file__).resolve().parents[2]) or _of_environment()


def _of_environment() -> str | None:
    named = os.environ.get("FER_COMMIT", "").strip()
    return f"{named} (FER_COMMIT)" if named else None


def _of_checkout(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        asked = [
            _git(root, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "fer", "conf"))
        ]
    except (OSError, subprocess.SubprocessError):  # no git, or a repository that it distrusts
        return None
    return asked[0] + (", with changes" if asked[1] else "")


def _git(root: Path, *words: str) -> str:
    ended = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return ended.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python, of this library and of what it stands on."""
    found = {"python": platform.python_version(), "fer": fer.__version__}
    return found | {name: metadata.version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """Return processor, cores, threads in use and GPU, as plain values."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def memory(name: str = PEAK) -> float | None:
    """Return this process's memory, in MB; None where the system does not tell (all but Linux).

    Args:
        name: ``PEAK`` (``getrusage`` would begin at the size of the process that started this one) or ``RESIDENT``.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as stream:
            return next(int(line.split()[1]) / 1024 for line in stream if line.startswith(name))
    except OSError:
        return None


def multiplies_bf16() -> bool | None:
    """Return whether the processor has instructions for bfloat16; None where the system does not tell (all but Linux).

    Without them torch computes in it all the same, more slowly than with 32 bits.
    """
    told = _of_processor("flags") or _of_processor("Features")  # as x86 and Arm call them
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(told.split())) if told else None


def _processor() -> str:
    return _of_processor("model name") or platform.processor() or "unknown"


def _of_processor(name: str) -> str:
    """Return what Linux tells of the first core under a name; empty where it does not."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next((line.split(":", 1)[1].strip() for line in stream if line.startswith(name)), "")
    except OSError:
        return ""
