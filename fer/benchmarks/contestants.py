"""Three training loops that are compared, each in a process of its own.

All train the same network and take turns, one epoch each. ``plain`` is the usual loop of public repositories:
torchvision's reader, Pillow for each face, a DataLoader, loss and accuracy fetched at every step. ``bare`` is the lower
limit: all faces in memory, whole batches, no metrics. ``ours`` is the command ``fer.train`` with everything that it
does. Taking turns spreads the changing load of the machine over all loops alike; targets are ratios or differences
within one run. Usage: ``python -m fer.benchmarks.contestants NAME WORKLOAD``; each line on stdin starts an epoch, and
its times are printed on stdout.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fer.benchmarks.measurement import TRAIN_FACES, VAL_FACES
from fer.system.slots import let_waiting_threads_sleep

UNSETTLED = 5  # first steps of an epoch that are not profiled
BEFORE = 0.0  # seconds from the start of the process until this module ran: Python itself


@dataclass(frozen=True)
class Workload:
    """The training that is timed.

    Args:
        file: an uncompressed ``fer2013.csv``.
        folder: output folder.
        model: name of the network.
        arguments: arguments of the network.
        batch_size: faces in each step.
        steps: steps of an epoch; None uses all faces.
        threads: processor threads.
        cache: folder for the parsed table, as ``data.cache``.
        accelerator: as ``trainer.accelerator``.
        more: further arguments of ``fer.train``.
    """

    file: str
    folder: str
    model: str = "cnn"
    arguments: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 128
    steps: int | None = None
    threads: int = 1
    cache: str = "auto"
    accelerator: str = "cpu"
    more: list[str] = field(default_factory=list)


@dataclass
class Turns:
    """Waits for the signal to train an epoch, and reports how long the epoch took.

    Args:
        channel: stream of the reports.
        baseline: MB in use after all imports.
        images: faces trained in the current epoch.
        trained: seconds of its training part.
        began: wall and processor clock at its start; None before the first epoch.
    """

    channel: Any
    baseline: float = 0.0
    images: int = 0
    trained: float = 0.0
    began: tuple[float, float] | None = field(default=None)

    def imported(self) -> None:
        """Store the memory used by imports."""
        from fer.system import machine

        self.baseline = machine.memory(machine.RESIDENT) or 0.0

    def begin(self) -> None:
        """Report the last epoch, if any, and wait for the signal for the next; end the process if none comes."""
        if self.began is not None:
            self.report()
        if not sys.stdin.readline():
            os._exit(0)  # a regular exit would let Lightning save and report
        self.began, self.images, self.trained = (time.perf_counter(), time.process_time()), 0, 0.0

    def validates(self) -> None:
        """Mark the end of the epoch's training part."""
        assert self.began is not None
        self.trained = time.perf_counter() - self.began[0]

    def report(self) -> None:
        """Print the times of the epoch, and the peak memory above the baseline."""
        from fer.system import machine

        assert self.began is not None
        report = {
            "seconds": time.perf_counter() - self.began[0],
            "processor": time.process_time() - self.began[1],
            "trained": self.trained,
            "images": self.images,
            "memory": (machine.memory() or 0.0) - self.baseline,
        }
        print(json.dumps(report), file=self.channel, flush=True)


def plain(workload: Workload, turns: Turns) -> None:
    """Train with the usual loop of public repositories."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import FER2013

    turns.imported()
    torch.set_num_threads(workload.threads)
    root = Path(workload.folder) / "torchvision"
    (root / "fer2013").mkdir(parents=True)
    (root / "fer2013" / "fer2013.csv").symlink_to(Path(workload.file).resolve())
    augmented = transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.RandomCrop(48, padding=4), transforms.ToTensor()]
    )
    with patch("torchvision.datasets.fer2013.check_integrity", return_value=True):  # it accepts one file alone
        train: Any = FER2013(str(root), split="train", transform=augmented)
        val: Any = FER2013(str(root), split="test", transform=transforms.ToTensor())
    if workload.steps:
        train = Subset(train, range(workload.steps * workload.batch_size))
    train_loader = DataLoader(train, batch_size=workload.batch_size, shuffle=True)
    val_loader = DataLoader(Subset(val, range(min(VAL_FACES, len(val)))), batch_size=workload.batch_size)
    model, loss_of, optimizer = network(workload)
    while True:
        turns.begin()
        model.train()
        total, right = 0.0, 0
        for images, labels in train_loader:
            optimizer.zero_grad()
            logits = model(images)
            loss = loss_of(logits, labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
            right += (logits.argmax(1) == labels).sum().item()
            turns.images += len(labels)
        turns.validates()
        model.eval()
        with torch.no_grad():
            for images, labels in val_loader:
                logits = model(images)
                total += loss_of(logits, labels).item()
                right += (logits.argmax(1) == labels).sum().item()


def bare(workload: Workload, turns: Turns) -> None:
    """Train with the least possible work outside the network."""
    import torch

    from fer.config.settings import AugmentSettings, DataSettings, TrainerSettings
    from fer.data.datamodule import FERDataModule
    from fer.data.dataset import to_unit
    from fer.data.transforms.augment import build
    from fer.system import machine

    turns.imported()
    machine.prepare(TrainerSettings(accelerator="cpu", threads=workload.threads))
    data = FERDataModule(DataSettings(path=workload.file, cache=workload.cache))
    data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    augment = build(AugmentSettings(flip=0.5, crop_padding=4))
    model, loss_of, optimizer = network(workload)
    model = model.to(memory_format=torch.channels_last)
    count = workload.steps * workload.batch_size if workload.steps else len(train)
    while True:
        turns.begin()
        model.train()
        for indices in torch.split(torch.randperm(len(train))[:count], workload.batch_size):
            optimizer.zero_grad()
            loss_of(model(augment(to_unit(train.images[indices]))), train.targets[indices]).backward()
            optimizer.step()
            turns.images += len(indices)
        turns.validates()
        model.eval()
        with torch.inference_mode():
            for images in torch.split(val.images, workload.batch_size):
                model(images)


def network(workload: Workload) -> tuple[Any, Callable[..., Any], Any]:
    """Return network, loss and optimizer, the same for ``plain`` and ``bare``."""
    import torch

    from fer.data.labels import EMOTIONS
    from fer.models import create

    torch.manual_seed(0)
    model = create(
        {"name": workload.model, **workload.arguments}, classes=list(EMOTIONS), image_size=48, mean=0.5, std=0.25
    )
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    return model, loss_of, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


def ours(workload: Workload, turns: Turns) -> None:
    """Train with the command ``fer.train``."""
    from torch.utils import tensorboard

    from fer.reports import run
    from fer.train import main
    from fer.training import run as training_run
    from fer.training.callbacks.history import Stopwatch

    del tensorboard, run  # imported here, since fer.train imports them after the baseline

    class Timed(Stopwatch):
        """Makes the run wait for its turns."""

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            turns.begin()
            super().on_train_epoch_start(trainer, pl_module)

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            turns.validates()
            turns.images = self.images
            super().on_validation_start(trainer, pl_module)

    turns.imported()
    with patch.object(training_run, "Stopwatch", Timed):
        sys.exit(main(list(command_line(workload, epochs=1000))))


def command_line(workload: Workload, epochs: int) -> Iterator[str]:
    """Yield the arguments of ``fer.train``."""
    yield from (f"data.path={workload.file}", f"model={workload.model}")
    yield from (f"model.{name}={json.dumps(value)}" for name, value in workload.arguments.items())
    yield from (f"data.batch_size={workload.batch_size}", f"trainer.threads={workload.threads}")
    yield f"trainer.accelerator={workload.accelerator}"
    yield from (f"trainer.max_epochs={epochs}", f"hydra.run.dir={workload.folder}/run", f"data.cache={workload.cache}")
    if workload.steps:
        yield f"trainer.limit_train={min(1.0, workload.steps * workload.batch_size / TRAIN_FACES)}"
    yield from workload.more


def first_step(workload: Workload, turns: Turns) -> None:
    """Run ``fer.train`` to the end of its first step; report the time since the process began, of imports and step."""
    importing = Imports()
    importing.watch()
    from fer.train import main
    from fer.training import run as training_run
    from fer.training.callbacks.history import Stopwatch

    class Ended(Stopwatch):
        """Ends the run after its first step."""

        def on_train_batch_start(self, *args: Any) -> None:
            self.step_began = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            step = time.perf_counter() - self.step_began
            report = {"seconds": since_start(), "imports": importing.seconds + BEFORE, "step": step}
            print(json.dumps(report), file=turns.channel, flush=True)
            os._exit(0)

    with patch.object(training_run, "Stopwatch", Ended):
        sys.exit(main(list(command_line(workload, epochs=1))))


def waiting(workload: Workload, turns: Turns) -> None:
    """Run ``fer.train`` and report how often the host waits for the device in the steps of its second epoch."""
    from torch.profiler import ProfilerActivity, profile

    from fer.train import main
    from fer.training import run as training_run
    from fer.training.callbacks.history import Stopwatch

    class Profiled(Stopwatch):
        """Profiles the steps after the first ``UNSETTLED``, and ends the run."""

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 1 and batch_idx == UNSETTLED:
                self.profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
                self.profile.start()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            super().on_train_batch_end(trainer, pl_module, *args)
            if trainer.current_epoch == 1 and args[2] + 1 == trainer.num_training_batches:
                self.profile.stop()
                names = [event.name for event in self.profile.events()]  # type: ignore[no-untyped-call]
                report = {"waits": waits(names), "steps": args[2] + 1 - UNSETTLED}
                print(json.dumps(report), file=turns.channel, flush=True)
                os._exit(0)

    with patch.object(training_run, "Stopwatch", Profiled):
        sys.exit(main([*command_line(workload, epochs=2), "trainer.bar=false"]))


def waits(names: Sequence[str]) -> int:
    """Return the number of events in a profile in which the host waits for a GPU."""
    return sum(name.endswith("Synchronize") or name.startswith("Memcpy DtoH") for name in names)


class Imports:
    """Adds up the time of imports; nested imports count once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def watch(self) -> None:
        """Start timing all imports of this process."""
        import builtins
        import importlib

        builtins.__import__ = self.timed(builtins.__import__)
        importlib.import_module = self.timed(importlib.import_module)

    def timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the importing function with its time added to ``seconds``."""

        def timed(*args: Any, **named: Any) -> Any:
            self._depth += 1
            start = time.perf_counter()
            try:
                return original(*args, **named)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - start

        return timed


def since_start() -> float:
    """Return the seconds since the start of this process, by the system's clock."""
    with open("/proc/self/stat", encoding="utf-8") as stream:
        ticks = int(stream.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime", encoding="utf-8") as stream:
        return float(stream.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


CONTESTANTS = {function.__name__: function for function in (plain, bare, ours, first_step, waiting)}

if __name__ == "__main__":
    BEFORE = since_start()
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of a run goes to stderr, apart from the reports
    if sys.argv[1] != "plain":  # as fer.train does, before torch is imported
        let_waiting_threads_sleep()
    CONTESTANTS[sys.argv[1]](Workload(**json.loads(sys.argv[2])), Turns(reports))
