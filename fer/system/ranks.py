"""Ranks: the processes that share one run, each with a device of its own.

torch is imported where it is used. torchrun, srun and ``fer.training.launch`` state in the environment which rank a
process is. Rank 0 alone writes, logs and prints. Without ranks every function here returns its argument, so that
callers need no second path.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer.config.errors import FerError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

PORTS = (15000, 20000)  # ranks of SLURM meet at one of these ports, chosen by the job's number


@dataclass(frozen=True)
class Rank:
    """One process of a run.

    Args:
        number: number of the process among all, from 0.
        count: number of processes.
        local: number of the process on its computer, from 0: the index of its GPU.
        restarts: how often torchrun has started all processes anew.
    """

    number: int = 0
    count: int = 1
    local: int = 0
    restarts: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.number == 0

    @property
    def several(self) -> bool:
        """Whether other processes share the run."""
        return self.count > 1


@functools.cache
def current() -> Rank:
    """Return the rank of this process; the only one where nothing started several."""
    adopt_slurm(os.environ)
    return stated(os.environ)


def stated(environment: Mapping[str, str]) -> Rank:
    """Return the rank that an environment states.

    Raises:
        FerError: a variable is no number, or is missing.
    """
    if not {"RANK", "WORLD_SIZE"} <= set(environment):
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    try:
        number, count, local, restarts = (int(environment.get(name, "0")) for name in names)
    except ValueError:
        values = " ".join(f"{name}={environment[name]}" for name in names if name in environment)
        raise FerError(f"{values}: expected whole numbers, as torchrun sets them; unset these variables") from None
    if count > 1 and (missing := {"MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"} - set(environment)):
        raise FerError(f"WORLD_SIZE={count}: {sorted(missing)[0]} is not set; start the processes by torchrun or srun")
    return Rank(number, count, local, restarts)


def adopt_slurm(environment: "os._Environ[str] | dict[str, str]") -> None:
    """Set torchrun's variables from those of a step of SLURM (``srun``); a batch script itself is no step."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if "RANK" in environment or tasks == "1" or "SLURM_PROCID" not in environment:
        return
    low, high = PORTS
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "127.0.0.1")
    environment["RANK"], environment["WORLD_SIZE"] = environment["SLURM_PROCID"], tasks
    environment["LOCAL_RANK"] = environment.get("SLURM_LOCALID", "0")
    environment["GROUP_RANK"] = environment.get("SLURM_NODEID", "0")
    environment.setdefault("MASTER_ADDR", first_node(nodes))
    environment.setdefault("MASTER_PORT", str(low + int(environment.get("SLURM_JOB_ID", "0")) % (high - low)))


def first_node(nodes: str) -> str:
    """Return the first name in SLURM's list, such as "gpu03" of "gpu[03-05,9],cpu1"."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes)
    return nodes if match is None else "".join(part or "" for part in match.groups())


# --- between the ranks ----------------------------------------------------------------------------------------------


def add_up(*values: "Tensor") -> None:
    """Add up each tensor over the ranks, in place."""
    _reduced(values, "SUM")


def take_smallest(*values: "Tensor") -> None:
    """Replace each tensor by its smallest value among the ranks, in place."""
    _reduced(values, "MIN")


def _reduced(values: "tuple[Tensor, ...]", operation: str) -> None:
    if not current().several:
        return
    import torch.distributed as dist

    for value in values:
        dist.all_reduce(value, op=getattr(dist.ReduceOp, operation))


def largest(value: int) -> int:
    """Return the largest of the ranks' numbers; the hosts wait for each other, not for their devices."""
    if not current().several:
        return value
    import torch
    import torch.distributed as dist

    tensor = torch.tensor([value])
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=_hosts())
    return int(tensor)


def text_of_first(text: str) -> str:
    """Return the text of rank 0."""
    if not current().several:
        return text
    import torch.distributed as dist

    texts = [text]  # the broadcast replaces it
    dist.broadcast_object_list(texts, src=0, group=_hosts())
    return texts[0]


@functools.cache
def _hosts() -> "ProcessGroup | None":
    """Return a group of the ranks that communicates without their GPUs; None is the group of all computation."""
    import torch.distributed as dist

    if dist.get_backend() == "gloo":
        return None
    return dist.new_group(backend="gloo")  # type: ignore[return-value]  # a number for processes outside the group


@contextmanager
def one_first() -> Iterator[None]:
    """Let one rank of each computer run a block before the others: it fills the cache, which the others read."""
    rank = current()
    if rank.several and rank.local:
        largest(0)
    yield
    if rank.several and not rank.local:
        largest(0)
