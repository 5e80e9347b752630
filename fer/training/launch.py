"""Several processes for one run.

Those of this computer are started by torchrun's own engine; those of other computers are joined. ``fer.train`` with
``trainer.devices=2`` is the engine's process. It checks the command line and chooses the folder. It starts ``python -m
fer.train`` with the same arguments once for each device, and passes signals on. It trains nothing itself. Processes
that torchrun or srun has started join each other by the variables of their environment.
"""

import json
import logging
import os
import signal
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.config.command import Shown
from fer.config.conf import quoted
from fer.config.errors import FerError, Interrupted
from fer.config.hydra import composed_folder
from fer.config.settings import TrainSettings
from fer.config.trust import named_again
from fer.runs.stored import resume_line
from fer.system import machine, ranks, signals
from fer.system.slots import usable_cores
from fer.training.session import CHECKPOINTS

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

GRACE_S = 120  # seconds for the processes to save themselves after a signal: a batch, or a validation
MEETING_S = 600  # seconds for all processes to arrive
SILENCE_S = 3.0  # seconds in which rank 0 states an error that all ranks share
FOLDER = "fer/folder"  # key of the ranks' store: the folder of the run
OF_OTHERS = ("hydra.output_subdir=null", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled")
PARENT = "FER_STARTED_BY"  # variable of the ranks: number of the process that started them
SIGNALS = ",".join(signals.NAMES)


@dataclass
class Needed(Exception):
    """Raised in place of a training that several processes are to share.

    Args:
        settings: settings of the run.
        folder: folder of the run.
    """

    settings: TrainSettings
    folder: Path


def check_ranks(settings: TrainSettings) -> None:
    """Raise if the processes that were started are not those that the settings name.

    Raises:
        FerError: the numbers differ, or only torchrun or srun can start such processes.
    """
    rank, trainer = ranks.current(), settings.trainer
    if rank.several and rank.count != trainer.ranks:
        raise FerError(
            f"torchrun or srun started {rank.count} processes, but trainer.devices={trainer.devices} x "
            f"trainer.nodes={trainer.nodes} is {trainer.ranks}; set trainer.devices={rank.count} (of each computer), "
            "or start fer.train by itself: with -m and sweep.jobs= it runs several trainings side by side"
        )
    if rank.several and trainer.restarts and PARENT not in os.environ:
        raise FerError(
            f"trainer.restarts={trainer.restarts}: torchrun and srun started these processes, and restart them "
            "themselves; leave it out, and give torchrun --max-restarts"
        )
    if not rank.several and trainer.nodes > 1:
        raise FerError(
            f"trainer.nodes={trainer.nodes}: the processes of several computers are started by torchrun or srun; "
            "docs/scale.md has the command"
        )


# --- the engine -----------------------------------------------------------------------------------------------------


def start(needed: Needed, arguments: Sequence[str]) -> int:
    """Start the processes of a run on this computer, and return their exit code after the last one has ended.

    Args:
        needed: settings and folder of the run.
        arguments: command line.

    Raises:
        FerError: there are fewer GPUs than devices, or a process was killed.
        Interrupted: a signal arrived; the run is saved.
    """
    chosen = needed.settings.trainer
    _refuse_missing(chosen.devices, on_gpu=machine.uses_gpu(chosen))
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # each rank states its own error
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // chosen.devices)))
    os.environ[PARENT] = str(os.getpid())
    known = {field.name for field in fields(LaunchConfig)}
    # not in every version of torch
    younger: Mapping[str, Any] = {"shutdown_timeout": GRACE_S, "signals_to_handle": SIGNALS}
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=chosen.devices, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", max_restarts=chosen.restarts, monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(), **{name: value for name, value in younger.items() if name in known},
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "fer.train", *with_run_folder(arguments, needed.folder))
    except SignalException as ended:
        raise Interrupted(f"interrupted by {ended.sigval.name}", signals.exit_code(ended.sigval)) from None
    except ChildFailedError as ended:
        codes = {number: failure.exitcode for number, failure in ended.failures.items()}
        return _exit_code(codes, needed.folder)
    return 0


def _refuse_missing(devices: int, *, on_gpu: bool) -> None:
    """Raise if this computer has fewer GPUs than the run needs."""
    import torch

    if on_gpu and (count := torch.cuda.device_count()) < devices:
        raise FerError(
            f"trainer.devices={devices}: torch finds {count} GPU{'' if count == 1 else 's'}; set trainer.devices="
            f"{count}, or trainer.accelerator=cpu"
        )


def with_run_folder(arguments: Sequence[str], folder: Path) -> list[str]:
    """Return the command line of a rank: with the run's folder, unless it is resumed and has one."""
    if any(text.startswith("resume=") and text != "resume=null" for text in arguments):
        return list(arguments)
    rest = [text for text in arguments if not _is_folder(text)]
    return [*rest, f"hydra.run.dir={quoted(str(folder.absolute()))}"]


def _is_folder(override: str) -> bool:
    return override.startswith("hydra.run.dir=")


def _exit_code(codes: dict[int, int], folder: Path) -> int:
    """Return the exit code of the run; an error was printed by the rank that raised it.

    Raises:
        FerError: a rank was killed, which could not print that.
    """
    for number, code in sorted(codes.items()):
        if code < 0 and -code != signal.SIGTERM:
            has_any = any((folder / name).exists() for name in CHECKPOINTS)
            remedy = resume_line(folder, folder) if has_any else "the same command again; it has no checkpoint yet"
            raise FerError(
                f"rank {number} was killed by {signals.name(-code)}; go on with: {remedy}; trainer.restarts=3 does "
                "so by itself"
            )
    return next((code for _, code in sorted(codes.items()) if code > 0), 1)


# --- a rank ---------------------------------------------------------------------------------------------------------


@contextmanager
def as_rank(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Yield the command line of this rank; ranks other than 0 are silent, and end quietly if rank 0 states the error.

    Args:
        arguments: command line, as it was given to all ranks.
    """
    rank = ranks.current()
    if not rank.several:
        yield list(arguments)
        return
    if not rank.first:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
    try:
        yield _agreed(arguments)
    except (FerError, Interrupted) as error:
        if rank.first:
            raise
        if isinstance(error, Interrupted):
            raise Shown(error.code) from error
        time.sleep(SILENCE_S)  # rank 0 has ended by then, if the error is its own too, and so has this process
        raise FerError(f"rank {rank.number}: {error}") from error


def _agreed(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the folder that rank 0 chose; after a restart it goes on from the checkpoint."""
    rank, store = ranks.current(), _store()
    key = f"{FOLDER}/{rank.restarts}"
    if rank.first:
        store.set(key, json.dumps(_on_rank_0(arguments, store)))
    given: list[str] = json.loads(store.get(key))
    return given if rank.first else [*given, *OF_OTHERS]


def _on_rank_0(arguments: Sequence[str], store: "Store") -> list[str]:
    rank = ranks.current()
    resumed = next((text for text in arguments if text.startswith("resume=") and text != "resume=null"), None)
    if resumed is not None:
        return list(arguments)
    earlier = rank.restarts > 0 and store.check([FOLDER])
    folder = Path(store.get(FOLDER).decode()) if earlier else composed_folder(arguments).absolute()
    store.set(FOLDER, str(folder))
    if rank.restarts and any((folder / name).exists() for name in CHECKPOINTS):
        return [f"resume={quoted(str(folder))}", *(text for text in named_again(arguments) if not _is_folder(text))]
    return with_run_folder(arguments, folder)


_stores: list["Store"] = []


def _store() -> "Store":
    """Return the store in which the ranks meet: torchrun's, which outlives restarts, or one of rank 0."""
    if not _stores:
        from torch._C._distributed_c10d import TCPStore

        rank = ranks.current()
        of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            _stores.append(
                TCPStore(
                    host, port, is_master=rank.first and not of_torchrun, wait_for_workers=False,
                    timeout=timedelta(seconds=MEETING_S),
                )
            )  # fmt: skip
        except RuntimeError as error:
            raise FerError(f"MASTER_ADDR={host} MASTER_PORT={port}: rank {rank.number} cannot reach it") from error
    return _stores[0]


@contextmanager
def joined(settings: TrainSettings, folder: Path) -> Iterator[None]:
    """Let the ranks compute together within a block; without ranks nothing happens.

    Raises:
        FerError: another rank has ended, or there is no GPU for this one.
    """
    rank = ranks.current()
    if rank.count != settings.trainer.ranks:  # Hydra's own options, or a call from Python
        raise FerError(
            f"trainer.devices={settings.trainer.devices}: only python -m fer.train without options of Hydra starts "
            "several processes; leave the options out, or start them by torchrun"
        )
    if not rank.several:
        yield
        return
    import torch
    import torch.distributed as dist

    on_gpu = machine.uses_gpu(settings.trainer)
    if on_gpu:
        _refuse_missing(settings.trainer.devices, on_gpu=True)
        torch.cuda.set_device(rank.local)
    from torch._C._distributed_c10d import PrefixStore

    store = PrefixStore(f"fer/{rank.restarts}", _store())
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank.number, world_size=rank.count)
    with _others_alive(folder):
        yield
    dist.destroy_process_group()


@contextmanager
def _others_alive(folder: Path) -> Iterator[None]:
    """Turn the errors of a connection to a rank that has ended into one line."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise FerError(f"another process of this run has ended; go on with: {resume_line(folder, folder)}") from error


def _is_of_connection(error: RuntimeError) -> bool:
    kinds = ("DistBackendError", "DistNetworkError", "DistStoreError")
    return type(error).__name__ in kinds or any(word in str(error) for word in ("gloo", "Connection closed", "NCCL"))


def strategy(settings: TrainSettings) -> Mapping[str, Any]:
    """Return the options of Lightning's trainer for the run's processes; none for one process."""
    if not ranks.current().several:
        return {}
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from pytorch_lightning.strategies import DDPStrategy

    on_gpu = machine.uses_gpu(settings.trainer)
    return {
        "devices": settings.trainer.devices,
        "num_nodes": settings.trainer.nodes,
        # buffers are not sent before each forward pass: parts of val may be unequal
        "strategy": DDPStrategy(
            cluster_environment=TorchElasticEnvironment(),
            process_group_backend="nccl" if on_gpu else "gloo",
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        ),
        "use_distributed_sampler": False,
    }
