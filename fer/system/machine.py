"""This machine, for the record and for a training.

The record has hardware, versions and commit. A training gets threads, allocator and precision. torch is imported where
it is used, since the types of records stand here too.
"""

import ctypes
import functools
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import fer
from fer.config.errors import FerError
from fer.config.settings import TrainerSettings
from fer.system.slots import usable_cores

log = logging.getLogger(__name__)

# glibc's mallopt: parameter -> value (malloc.h). By default blocks above 32 MB return to the system at once. At batch
# 128 a fifth of the processor's time goes into getting them again, page by page.
ALLOCATOR = {-3: 1 << 30, -1: 2**31 - 1, -2: 256 << 20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD

PEAK, RESIDENT = "VmHWM", "VmRSS"  # Linux's names of the peak memory and of the memory in use
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine of a result: threads are torch's, ``gpu`` is None where torch finds none; both without torch."""

    cpu: str = "unknown"
    cores: int | None = None
    threads: int | None = None
    gpu: str | None = None
    system: str | None = None


@dataclass(frozen=True, kw_only=True)
class MachineRecord:
    """Versions, commit, hardware and time of a result; records of older versions lack some."""

    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    hardware: Hardware = field(default_factory=Hardware)
    finished: str | None = None


def prepare(settings: TrainerSettings) -> None:
    """Set threads, allocator and precision of products; must come before the first large allocation."""
    import torch

    if settings.threads:
        torch.set_num_threads(settings.threads)
    elif not os.environ.get("OMP_NUM_THREADS"):  # torch counts cores and ignores a container's quota
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    if settings.allocator and not uses_gpu(settings):
        keep_freed_memory()
    if settings.deterministic and uses_gpu(settings):  # cuBLAS reads it at the first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # filling new memory costs 2 % of a step, and nothing reads it before it is written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high")  # TF32 where a GPU has it; without effect on a CPU


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory, and return whether it does; without glibc nothing happens."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    refused = [parameter for parameter, value in ALLOCATOR.items() if libc.mallopt(parameter, value) != 1]
    if refused:
        log.warning("the allocator refused settings %s; training is slower, with the same results", refused)
    return not refused


def uses_gpu(settings: TrainerSettings, key: str = "trainer.accelerator") -> bool:
    """Return whether a run uses a GPU.

    Args:
        settings: of the training.
        key: key or option that sets the accelerator, for the message.

    Raises:
        FerError: a GPU is required and torch finds none.
    """
    import torch

    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise FerError(f"{key}=gpu: torch finds no GPU on this machine; use auto or cpu")
    return settings.accelerator != "cpu" and torch.cuda.is_available()


def chosen_precision(settings: TrainerSettings) -> Literal["bf16", 32]:
    """Return the precision of a training; "auto" is bf16 on a GPU and 32 bits on a CPU (docs/performance.md)."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if uses_gpu(settings) else 32


def precision(settings: TrainerSettings) -> Any:
    """Return Lightning's name for the precision."""
    return "bf16-mixed" if chosen_precision(settings) == "bf16" else "32-true"


def provenance() -> MachineRecord:
    """Return versions, commit, hardware and time, for the record of a result."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return MachineRecord(versions=versions(), commit=commit(), hardware=hardware(), finished=now)


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout that this code runs from, with a mark if files differ from it.

    Without a checkout, such as in a copy of the files, it is the commit in ``FER_COMMIT``, marked as stated by the
    environment. Without both it is None. The first answer holds for the process: the checkout may change during a run.
    """
    return _of_checkout(Path(__file__).resolve().parents[2]) or _of_environment()


def _of_environment() -> str | None:
    stated = os.environ.get("FER_COMMIT", "").strip()
    return f"{stated} (FER_COMMIT)" if stated else None


def _of_checkout(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "fer", "conf")
    except (OSError, subprocess.SubprocessError):  # no git, or a repository that it distrusts
        return None
    return head + (", with changes" if changed else "")


def _git(root: Path, *words: str) -> str:
    ended = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return ended.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python, of this library and of its main dependencies."""
    return {
        "python": platform.python_version(),
        "fer": fer.__version__,
        **{name: metadata.version(name) for name in PACKAGES},
    }


def hardware() -> Hardware:
    """Return the processor, its cores, and of a process that computes with torch the threads in use and the GPU."""
    torch = sys.modules.get("torch")  # exported files are computed without it
    return Hardware(
        cpu=_processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads() if torch else None,
        gpu=torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        system=f"{platform.system()} {platform.machine()}",
    )


def memory(name: str = PEAK) -> float | None:
    """Return this process's memory in MB; None on systems other than Linux.

    Args:
        name: ``PEAK`` (``getrusage`` would include the process that started this one) or ``RESIDENT``.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as stream:
            return next(int(line.split()[1]) / 1024 for line in stream if line.startswith(name))
    except OSError:
        return None


def multiplies_bf16() -> bool | None:
    """Return whether the processor has instructions for bfloat16; None on systems other than Linux.

    Without the instructions torch computes in bfloat16 all the same, more slowly than with 32 bits.
    """
    flags = _of_processor("flags") or _of_processor("Features")  # the names on x86 and on Arm
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split())) if flags else None


def _processor() -> str:
    return _of_processor("model name") or platform.processor() or "unknown"


def _of_processor(name: str) -> str:
    """Return an entry of ``/proc/cpuinfo`` for the first core; empty where it is missing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next((line.split(":", 1)[1].strip() for line in stream if line.startswith(name)), "")
    except OSError:
        return ""
