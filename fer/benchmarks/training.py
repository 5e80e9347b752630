"""``fer.train`` beside a plain loop and a bare one, what it adds to a step, and how long it takes to begin."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fer.benchmarks.contestants import Order
from fer.benchmarks.figures import Figure, at_least, at_most
from fer.config.errors import FerError
from fer.system import machine

log = logging.getLogger(__name__)

NANO: Mapping[str, Any] = {"model": "mlp", "arguments": {"hidden": [8]}}  # costs nothing: what is left is the loop
Turn = Mapping[str, float]  # of an epoch: "seconds", "processor", "trained", "images", "memory"


class Contestant:
    """A process that trains, an epoch at each turn.

    Args:
        name: of ``contestants.CONTESTANTS``.
        order: what it trains.
        log_file: takes what it prints.
    """

    def __init__(self, name: str, order: Order, log_file: Path) -> None:
        self.name, self._log = name, log_file
        with open(log_file, "wb") as stream:
            self._process = subprocess.Popen(
                command(name, order), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True
            )

    def begin(self) -> None:
        """Let it train an epoch, which it tells the times of when it is asked for another."""
        self._say("go\n")

    def turn(self) -> Turn:
        """Return what the epoch took.

        Raises:
            FerError: the process has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FerError(f"the {self.name} training of the bench ended: {last_line(self._log)}")
        told: Turn = json.loads(line)
        return told

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise FerError(f"the {self.name} training of the bench ended: {last_line(self._log)}") from None

    def end(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def command(name: str, order: Order) -> list[str]:
    """Return the command line of a contestant."""
    return [sys.executable, "-m", "fer.benchmarks.contestants", name, json.dumps(asdict(order))]


def last_line(file: Path) -> str:
    """Return the last line that a process has printed."""
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


@contextmanager
def contestants(asked: Mapping[str, tuple[str, Order]]) -> Iterator[list[Contestant]]:
    """Begin the contestants, each in a folder of its own, and end them."""
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder, ExitStack() as stack:
        held = []
        for label, (name, order) in asked.items():
            own = Path(folder) / label
            own.mkdir()
            held.append(Contestant(name, replace(order, folder=str(own)), own / "printed.log"))
            stack.callback(held[-1].end)
        yield held


def interleaved(asked: Mapping[str, tuple[str, Order]], rounds: int) -> dict[str, list[Turn]]:
    """Return the turns of each, after one that warms up; who begins a round changes with it.

    Args:
        asked: label -> who trains what.
        rounds: epochs of each that count.
    """
    turns: dict[str, list[Turn]] = {label: [] for label in asked}
    with contestants(asked) as held:
        pairs = list(zip(asked, held, strict=True))
        for round_ in range(rounds + 1):
            for place in range(len(pairs)):
                label, contestant = pairs[(round_ + place) % len(pairs)]
                contestant.begin()
                turns[label].append(contestant.turn())
                which = f"epoch {round_} of {rounds}" if round_ else "to warm up"
                log.info("  %s, %s: %.1f s", label, which, turns[label][-1]["seconds"])
    return {label: told[1:] for label, told in turns.items()}


def ratios(one: Sequence[Turn], other: Sequence[Turn], figure: str) -> list[float]:
    """Return of each round by how much a figure of the one is as large as of the other."""
    return [a[figure] / b[figure] for a, b in zip(one, other, strict=True)]


def spread(values: Sequence[float]) -> str:
    """Return the smallest and the largest, as text."""
    return f"{min(values):.3g} to {max(values):.3g}"


def side_by_side(file: Path, rounds: int, threads: int, steps: int | None) -> list[Figure]:
    """Measure the CNN in the three loops, and their memory; in bf16 too where the processor multiplies it.

    Args:
        file: a plain ``fer2013.csv``.
        rounds: epochs of each that count.
        threads: of the processor, each in its turn.
        steps: of an epoch; None takes every face.
    """
    order = Order(str(file), "", threads=threads, steps=steps)
    asked = {name: (name, order) for name in ("plain", "bare", "ours")}
    pairs = [("plain", "ours", "plain loop's time / ours", 3.0), ("bare", "ours", "bare loop's time / ours", 0.97)]
    if machine.multiplies_bf16():
        asked["bf16"] = "ours", replace(order, more=["trainer.precision=bf16"])
        pairs.append(("plain", "bf16", "plain loop's time / ours in bf16", 3.0))
    told = interleaved(asked, rounds)
    per_second = {name: [turn["images"] / turn["seconds"] for turn in turns] for name, turns in told.items()}
    names = {"plain": "a plain loop", "bare": "a bare loop", "ours": "fer.train", "bf16": "fer.train in bf16"}
    figures = [
        Figure(f"epoch of {names[name]}, validation included", median(values), "images/s", note=spread(values))
        for name, values in per_second.items()
    ]
    for one, other, name, wanted in pairs:
        clock, processor = (ratios(told[one], told[other], figure) for figure in ("seconds", "processor"))
        figures += [
            at_least(f"{name}, by the clock", median(clock), "times", wanted, spread(clock)),
            Figure(f"{name}, of the processor", median(processor), "times", note=spread(processor)),
        ]
    if told["bare"][-1]["memory"]:
        memory = told["ours"][-1]["memory"] / told["bare"][-1]["memory"]
        figures.append(at_most("peak memory, ours / bare loop", memory, "times", 1.15))
    return figures


def overhead(file: Path, rounds: int) -> list[Figure]:
    """Measure what ``fer.train`` adds to a step of a network that costs nothing, on one thread."""
    order = Order(str(file), "", **NANO)
    told = interleaved({name: (name, order) for name in ("bare", "ours")}, rounds)
    steps = -(-told["bare"][0]["images"] // order.batch_size)
    added = [1000 * (b["trained"] - a["trained"]) / steps for a, b in zip(told["bare"], told["ours"], strict=True)]
    return [at_most("added to a step of the bare loop", median(added), "ms", 0.7, spread(added))]


def only_line(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return what a contestant that takes no turns has told.

    Raises:
        FerError: it ended before.
    """
    if not ended.stdout:
        raise FerError(f"fer.train ended too early: {ended.stderr.strip().splitlines()[-1:]}")
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def on_gpu(file: Path, rounds: int) -> list[Figure]:
    """Measure the CNN on a GPU: batch sizes, what compiling and the fastest kernels bring, and waits of the host."""
    if not torch.cuda.is_available():
        log.info("no GPU here: nothing measured of it")
        return []
    ways = {"": [], "compiled": ["trainer.compile=true"], "fastest kernels": ["trainer.deterministic=false"]}
    ways["compiled, fastest kernels"] = [*ways["compiled"], *ways["fastest kernels"]]
    orders = {
        f"batches of {size}{', ' if name else ''}{name}": Order(
            str(file), "", threads=os.cpu_count() or 1, batch_size=size, accelerator="gpu", more=more
        )
        for size in (128, 512, 2048)
        for name, more in ways.items()
    }
    told = interleaved({label: ("ours", order) for label, order in orders.items()}, rounds)
    figures = []
    for label, turns in told.items():
        speed = [turn["images"] / turn["trained"] for turn in turns]
        figures.append(Figure(f"GPU, {label}", median(speed), "images/s", note=spread(speed)))
    return [*figures, waits_of(Order(str(file), "", threads=1, accelerator="gpu"))]


def waits_of(order: Order) -> Figure:
    """Measure how often the host waits for the device in the steps of an epoch."""
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        line = command("waiting", replace(order, folder=folder))
        told = only_line(subprocess.run(line, capture_output=True, text=True, check=False))
    return at_most(f"waits of the host in {told['steps']} steps", told["waits"], "times", 0)


def starting(file: Path, rounds: int) -> list[Figure]:
    """Measure how long ``python -m fer.train`` takes until its first step is done, warm, and how much of it is ours."""
    whole, own = [], []
    for round_ in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
            line = command("first_step", Order(str(file), folder, threads=os.cpu_count() or 1))
            ended = subprocess.run(line, capture_output=True, text=True, check=False)
        told = only_line(ended)
        if round_:  # the first warms the disk's cache and ours
            whole.append(told["seconds"])
            own.append(told["seconds"] - told["imports"] - told["step"])
    return [
        at_most("start to the first step", median(whole), "s", 8, spread(whole)),
        at_most("of it neither imports nor that step", median(own), "s", 0.5, spread(own)),
    ]
