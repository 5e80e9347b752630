"""Slots for jobs that run side by side.

There is one for each GPU, or for each core as far as memory goes. No torch here. A sweep computes its slots for all its
jobs, also when only some are left. Threads follow from the slots, and the bits of a result depend on the number of
threads.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

MEMORY_GB = 2.0  # of a job on a CPU with all of FER2013 and a report: the CNN's peak is 1.3 GB (docs/results)
GROUP = Path("/sys/fs/cgroup")  # Linux's control group, with the limits of a container
PER_CORE = ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")  # torch's threads and compiling processes; default: all
SIGNS_OF_A_GPU = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's, AMD's: checked first, since importing torch takes seconds


@dataclass(frozen=True)
class Slots:
    """Slots in which jobs run, one job at a time in each.

    Args:
        environments: variables that each slot adds to its job's environment.
        description: the slots in words.
        without_gpu: whether it is certain that no job uses a GPU.
    """

    environments: Sequence[dict[str, str]]
    description: str
    without_gpu: bool = False


def slots(number: Literal["auto"] | int, jobs: int, accelerators: Collection[str], devices: int = 1) -> Slots:
    """Return the slots for a number of jobs.

    Args:
        number: slots; "auto" is one for each GPU, or for each usable core as far as memory goes.
        jobs: number of jobs, the largest number of slots.
        accelerators: values of ``trainer.accelerator`` among the jobs.
        devices: largest ``trainer.devices`` among the jobs: processes of a job, each on a GPU or a core.
    """
    gpus = [] if set(accelerators) == {"cpu"} else visible_gpus()
    if gpus:
        return _on_gpus(number, jobs, gpus, devices)
    return replace(_on_cores(number, jobs, devices), without_gpu=set(accelerators) <= {"cpu", "auto"})


def _on_gpus(number: Literal["auto"] | int, jobs: int, gpus: Sequence[str], devices: int) -> Slots:
    count = max(1, min(jobs, len(gpus) // devices if number == "auto" else number))
    description = f"{_side_by_side(count)} on {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"
    limits, threads = _shared_cores(count * devices, usable_cores())
    taken = [[gpus[(index * devices + each) % len(gpus)] for each in range(devices)] for index in range(count)]
    environments = [{"CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(own)), **limits} for own in taken]
    return Slots(environments, description + threads)


def _on_cores(number: Literal["auto"] | int, jobs: int, devices: int) -> Slots:
    cores, memory = usable_cores(), free_memory_gb()
    most = cores if memory is None else max(1, min(cores, int(memory / MEMORY_GB)))
    most = max(1, most // devices)
    count = max(1, min(jobs, most if number == "auto" else number))
    short = f", {memory:.1f} GB of memory free" if number == "auto" and most < cores // devices and most <= jobs else ""
    description = f"{_side_by_side(count)} on {cores} core{'' if cores == 1 else 's'}{short}"
    limits, threads = _shared_cores(count * devices, cores)
    return Slots([limits] * count, description + threads)


def _shared_cores(number: int, cores: int) -> tuple[dict[str, str], str]:
    """Return variables that limit each job to its part of the cores, and that in words.

    Variables that the user has set stay. Without limits each job computes with all cores, and a job that compiles
    starts a process for each core.
    """
    if number == 1:
        return {}, ""
    each = {name: os.environ.get(name) or str(max(1, cores // number)) for name in PER_CORE}
    threads = each["OMP_NUM_THREADS"]
    return each, f", {threads} thread{'' if threads == '1' else 's'} each"


def _side_by_side(number: int) -> str:
    return "one at a time" if number == 1 else f"{number} side by side"


def let_waiting_threads_sleep() -> None:
    """Make OpenMP's threads sleep while they wait for each other, unless ``OMP_WAIT_POLICY`` is set.

    GNU's OpenMP, which torch uses on Linux, reads the variable once, when torch is imported; processes that this one
    starts inherit it. By default a waiting thread spins. On a busy machine it then blocks the core that the awaited
    thread needs (docs/performance.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def usable_cores() -> int:
    """Return the number of cores that this process may use: its affinity, at most a container's quota, rounded up."""
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota, _, period = _group("cpu.max").partition(" ")
    return min(affinity, max(1, -(-int(quota) // int(period)))) if quota.isdigit() else affinity


def free_memory_gb() -> float | None:
    """Return the available memory in GB, within a container's limit: Linux's ``MemAvailable``; None elsewhere."""
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
        reclaimable = next((line.split()[1] for line in stat if line.startswith("inactive_file ")), "0")
        free = min(free, int(limit) - int(used) + int(reclaimable))
    return max(0, free) / 1e9


def _group(name: str) -> str:
    try:
        return (GROUP / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def visible_gpus() -> list[str]:
    """Return the names in ``CUDA_VISIBLE_DEVICES`` of the GPUs that torch finds, which a separate process counts."""
    if not (any(map(os.path.exists, SIGNS_OF_A_GPU)) or shutil.which("nvidia-smi")):
        return []
    counting = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    ended = subprocess.run(counting, capture_output=True, text=True, check=False)
    count = int(ended.stdout) if ended.returncode == 0 else 0
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [name.strip() for name in names[:count]] or [str(number) for number in range(count)]
