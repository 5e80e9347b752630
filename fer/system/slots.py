"""Places for jobs that run side by side: one for each GPU, or for each core as far as memory goes. No torch here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MEMORY_GB = 2.0  # of a job on a CPU, all of FER2013 and a report included: the CNN's peak is 1.3 (docs/results)
GROUP = Path("/sys/fs/cgroup")  # Linux's control group, whose limits a container has
PER_CORE = ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")  # torch's threads, processes that compile: all cores
SIGNS_OF_A_GPU = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's, AMD's; looked at before torch is asked, which takes seconds


@dataclass(frozen=True)
class Places:
    """Where jobs run.

    Args:
        environments: for each place, what it adds to a job's environment.
        told: the same in words.
    """

    environments: Sequence[dict[str, str]]
    told: str


def places(wanted: Literal["auto"] | int, jobs: int, accelerators: Collection[str]) -> Places:
    """Return where jobs run, as many at a time as the machine has room for.

    Args:
        wanted: how many side by side; "auto" is one for each GPU, or for each usable core as far as memory goes.
        jobs: how many there are.
        accelerators: that they ask for.
    """
    gpus = [] if set(accelerators) == {"cpu"} else visible_gpus()
    return _on_gpus(wanted, jobs, gpus) if gpus else _on_cores(wanted, jobs)


def _on_gpus(wanted: Literal["auto"] | int, jobs: int, gpus: Sequence[str]) -> Places:
    number = max(1, min(jobs, len(gpus) if wanted == "auto" else wanted))
    told = f"{_side_by_side(number)} on {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"
    limits, threads = _shared_cores(number, usable_cores())
    environments = [{"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)], **limits} for place in range(number)]
    return Places(environments, told + threads)


def _on_cores(wanted: Literal["auto"] | int, jobs: int) -> Places:
    cores, memory = usable_cores(), free_memory_gb()
    room = cores if memory is None else max(1, min(cores, int(memory / MEMORY_GB)))
    number = max(1, min(jobs, room if wanted == "auto" else wanted))
    short = f", {memory:.1f} GB of memory free" if wanted == "auto" and room < cores and room <= jobs else ""
    told = f"{_side_by_side(number)} on {cores} core{'' if cores == 1 else 's'}{short}"
    limits, threads = _shared_cores(number, cores)
    return Places([limits] * number, told + threads)


def _shared_cores(number: int, cores: int) -> tuple[dict[str, str], str]:
    """Return what limits each of so many jobs to its part of the cores, unless the user has set it, and that in words.

    Without it each computes with all of them, and one that compiles starts a process for each.
    """
    if number == 1:
        return {}, ""
    each = {name: os.environ.get(name) or str(max(1, cores // number)) for name in PER_CORE}
    threads = each["OMP_NUM_THREADS"]
    return each, f", {threads} thread{'' if threads == '1' else 's'} each"


def _side_by_side(number: int) -> str:
    return "one at a time" if number == 1 else f"{number} side by side"


def let_waiting_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the environment says how they wait.

    GNU's OpenMP, which torch brings on Linux, reads ``OMP_WAIT_POLICY`` once, when torch is imported; processes that
    this one starts inherit it. By default a thread that waits spins, and on a busy machine keeps from the core the
    very thread that it waits for (docs/performance.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, and a container's quota of time, rounded up."""
    mine = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota, _, period = _group("cpu.max").partition(" ")
    return min(mine, max(1, -(-int(quota) // int(period)))) if quota.isdigit() else mine


def free_memory_gb() -> float | None:
    """Return the memory that is free or can be freed, within a container's limit; None where the system does not tell.

    Linux's ``MemAvailable``; elsewhere nothing is known.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    if free is None:
        return None
    limit, used = _group("memory.max"), _group("memory.current")
    if limit.isdigit() and used.isdigit():
        stat = _group("memory.stat").splitlines()
        kept = next((line.split()[1] for line in stat if line.startswith("inactive_file ")), "0")
        free = min(free, int(limit) - int(used) + int(kept))
    return max(0, free) / 1e9


def _group(name: str) -> str:
    try:
        return (GROUP / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def visible_gpus() -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` calls each of the GPUs that torch sees, asked in a process of its own."""
    if not (any(map(os.path.exists, SIGNS_OF_A_GPU)) or shutil.which("nvidia-smi")):
        return []
    asked = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    count = int(ended.stdout) if ended.returncode == 0 else 0
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [name.strip() for name in named[:count]] or [str(number) for number in range(count)]
