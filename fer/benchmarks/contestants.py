"""Three ways to train the same network, each in a process of its own that takes turns with the others.

``plain`` is the loop of the popular repositories: torchvision's reader, Pillow a face, a DataLoader, figures fetched
at every step. ``bare`` is the limit: everything in memory, whole batches, no figure looked at. ``ours`` is the command
``fer.train`` with all that it does. Run as ``python -m fer.benchmarks.contestants NAME ORDER``; a line on stdin is an
epoch, whose times come back on stdout.
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

from fer.benchmarks.figures import TRAIN_FACES, VAL_FACES
from fer.system.slots import let_waiting_threads_sleep


@dataclass(frozen=True)
class Order:
    """What is trained.

    Args:
        file: a plain ``fer2013.csv``.
        folder: for what is written.
        model: the network's name.
        arguments: of the network.
        batch_size: faces a step.
        steps: of an epoch; None takes every face.
        threads: of the processor.
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
    """Waits to be told, and tells how long an epoch took.

    Args:
        channel: where to tell.
        baseline: MB in use once everything is imported.
    """

    channel: Any
    baseline: float = 0.0
    images: int = 0
    trained: float = 0.0
    began: tuple[float, float] | None = field(default=None)

    def imported(self) -> None:
        """Take the memory that imports have cost."""
        from fer.system import machine

        self.baseline = machine.memory(machine.RESIDENT) or 0.0

    def begin(self) -> None:
        """Tell what the last epoch took, if there was one, and wait for the next; without one, end the process."""
        if self.began is not None:
            self.tell()
        if not sys.stdin.readline():
            os._exit(0)  # Lightning would save and report
        self.began, self.images, self.trained = (time.perf_counter(), time.process_time()), 0, 0.0

    def validates(self) -> None:
        """Mark the end of the epoch's training part."""
        assert self.began is not None
        self.trained = time.perf_counter() - self.began[0]

    def tell(self) -> None:
        """Write the epoch's times, and the peak of memory above the imports."""
        from fer.system import machine

        assert self.began is not None
        told = {
            "seconds": time.perf_counter() - self.began[0],
            "processor": time.process_time() - self.began[1],
            "trained": self.trained,
            "images": self.images,
            "memory": (machine.memory() or 0.0) - self.baseline,
        }
        print(json.dumps(told), file=self.channel, flush=True)


def plain(order: Order, turns: Turns) -> None:
    """Train as the popular repositories do."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import FER2013

    turns.imported()
    torch.set_num_threads(order.threads)
    root = Path(order.folder) / "torchvision"
    (root / "fer2013").mkdir(parents=True)
    (root / "fer2013" / "fer2013.csv").symlink_to(Path(order.file).resolve())
    augmented = transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.RandomCrop(48, padding=4), transforms.ToTensor()]
    )
    with patch("torchvision.datasets.fer2013.check_integrity", return_value=True):  # it knows one file alone
        train: Any = FER2013(str(root), split="train", transform=augmented)
        val: Any = FER2013(str(root), split="test", transform=transforms.ToTensor())
    if order.steps:
        train = Subset(train, range(order.steps * order.batch_size))
    train_loader = DataLoader(train, batch_size=order.batch_size, shuffle=True)
    val_loader = DataLoader(Subset(val, range(min(VAL_FACES, len(val)))), batch_size=order.batch_size)
    model, loss_of, optimizer = network(order)
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


def bare(order: Order, turns: Turns) -> None:
    """Train with nothing in the way of the network."""
    import torch

    from fer.config.settings import AugmentSettings, DataSettings, TrainerSettings
    from fer.data.datamodule import FERDataModule
    from fer.data.dataset import to_unit
    from fer.data.transforms.augment import build
    from fer.system import machine

    turns.imported()
    machine.prepare(TrainerSettings(accelerator="cpu", threads=order.threads))
    data = FERDataModule(DataSettings(path=order.file, cache=order.cache))
    data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    augment = build(AugmentSettings(flip=0.5, crop_padding=4))
    model, loss_of, optimizer = network(order)
    model = model.to(memory_format=torch.channels_last)
    count = order.steps * order.batch_size if order.steps else len(train)
    while True:
        turns.begin()
        model.train()
        for places in torch.split(torch.randperm(len(train))[:count], order.batch_size):
            optimizer.zero_grad()
            loss_of(model(augment(to_unit(train.images[places]))), train.targets[places]).backward()
            optimizer.step()
            turns.images += len(places)
        turns.validates()
        model.eval()
        with torch.inference_mode():
            for images in torch.split(val.images, order.batch_size):
                model(images)


def network(order: Order) -> tuple[Any, Callable[..., Any], Any]:
    """Return network, loss and optimizer, alike for all."""
    import torch

    from fer.data.labels import EMOTIONS
    from fer.models import create

    torch.manual_seed(0)
    model = create({"name": order.model, **order.arguments}, classes=list(EMOTIONS), image_size=48, mean=0.5, std=0.25)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    return model, loss_of, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


def ours(order: Order, turns: Turns) -> None:
    """Train by ``fer.train``, all of it switched on."""
    from torch.utils import tensorboard

    from fer.reports import run
    from fer.train import main
    from fer.training import run as training_run
    from fer.training.callbacks.history import Stopwatch

    del tensorboard, run  # a run imports them late

    class Timed(Stopwatch):
        """Lets the run wait for its turns."""

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            turns.begin()
            super().on_train_epoch_start(trainer, pl_module)

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            turns.validates()
            turns.images = self.images
            super().on_validation_start(trainer, pl_module)

    turns.imported()
    with patch.object(training_run, "Stopwatch", Timed):
        sys.exit(main(list(command_line(order, epochs=1000))))


def command_line(order: Order, epochs: int) -> Iterator[str]:
    """Yield the arguments of ``fer.train``."""
    yield from (f"data.path={order.file}", f"model={order.model}")
    yield from (f"model.{name}={json.dumps(value)}" for name, value in order.arguments.items())
    yield from (f"data.batch_size={order.batch_size}", f"trainer.threads={order.threads}")
    yield f"trainer.accelerator={order.accelerator}"
    yield from (f"trainer.max_epochs={epochs}", f"hydra.run.dir={order.folder}/run", f"data.cache={order.cache}")
    if order.steps:
        yield f"trainer.limit_train={min(1.0, order.steps * order.batch_size / TRAIN_FACES)}"
    yield from order.more


def first_step(order: Order, turns: Turns) -> None:
    """Run ``fer.train`` until its first step is done; tell its time since the process began, imports' and step's."""
    importing = Imports()
    importing.watch()
    from fer.train import main
    from fer.training import run as training_run
    from fer.training.callbacks.history import Stopwatch

    class Ended(Stopwatch):
        """Ends the run after a step."""

        def on_train_batch_start(self, *args: Any) -> None:
            self.step_began = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            step = time.perf_counter() - self.step_began
            told = {"seconds": since_start(), "imports": importing.seconds + BEFORE, "step": step}
            print(json.dumps(told), file=turns.channel, flush=True)
            os._exit(0)

    with patch.object(training_run, "Stopwatch", Ended):
        sys.exit(main(list(command_line(order, epochs=1))))


def waiting(order: Order, turns: Turns) -> None:
    """Run ``fer.train`` and tell how often, in the steps of its second epoch, the host has waited for the device."""
    from torch.profiler import ProfilerActivity, profile

    from fer.train import main
    from fer.training import run as training_run
    from fer.training.callbacks.history import Stopwatch

    class Profiled(Stopwatch):
        """Profiles the steps after the first few, and ends the run."""

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 1 and batch_idx == UNSETTLED:
                self.profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
                self.profile.start()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            super().on_train_batch_end(trainer, pl_module, *args)
            if trainer.current_epoch == 1 and args[2] + 1 == trainer.num_training_batches:
                self.profile.stop()
                names = [event.name for event in self.profile.events()]  # type: ignore[no-untyped-call]
                told = {"waits": waits(names), "steps": args[2] + 1 - UNSETTLED}
                print(json.dumps(told), file=turns.channel, flush=True)
                os._exit(0)

    with patch.object(training_run, "Stopwatch", Profiled):
        sys.exit(main([*command_line(order, epochs=2), "trainer.bar=false"]))


def waits(names: Sequence[str]) -> int:
    """Return how many events of a profile are those of a host that waits for a GPU."""
    return sum(name.endswith("Synchronize") or name.startswith("Memcpy DtoH") for name in names)


class Imports:
    """Adds up the time of imports, those within others counted once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def watch(self) -> None:
        """Begin."""
        import builtins
        import importlib

        builtins.__import__ = self.timed(builtins.__import__)
        importlib.import_module = self.timed(importlib.import_module)

    def timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return an importing function that adds its time."""

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
    """Return the seconds since this process was begun, by the system's clock."""
    with open("/proc/self/stat", encoding="utf-8") as stream:
        ticks = int(stream.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime", encoding="utf-8") as stream:
        return float(stream.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


UNSETTLED = 5  # steps of an epoch that are not profiled
BEFORE = 0.0  # seconds until this module ran: Python itself
CONTESTANTS = {function.__name__: function for function in (plain, bare, ours, first_step, waiting)}

if __name__ == "__main__":
    BEFORE = since_start()
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a run prints goes elsewhere than the times
    if sys.argv[1] != "plain":  # as fer.train does, before torch is imported
        let_waiting_threads_sleep()
    CONTESTANTS[sys.argv[1]](Order(**json.loads(sys.argv[2])), Turns(told))
