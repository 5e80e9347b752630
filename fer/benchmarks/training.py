"""Speed of ``fer.train`` beside a plain and a bare loop.

Its overhead in a step and its start-up time are measured too.
"""

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

import torch

from fer.benchmarks.contestants import Workload
from fer.benchmarks.measurement import Measurement, at_least, at_most
from fer.config.errors import FerError
from fer.system import machine

log = logging.getLogger(__name__)

Turn = Mapping[str, float]  # the report of one epoch: "seconds", "processor", "trained", "images", "memory"


def nano(file: Path, cache: str = "auto") -> Workload:
    """Return the training of a network of nearly no cost: the loop remains."""
    return Workload(str(file), "", model="mlp", arguments={"hidden": [8]}, cache=cache)


class Contestant:
    """A process that trains one epoch at each turn.

    Args:
        name: key of ``contestants.CONTESTANTS``.
        workload: the training.
        log_file: file for the output of the process.
    """

    def __init__(self, name: str, workload: Workload, log_file: Path) -> None:
        self.name, self._log = name, log_file
        with open(log_file, "wb") as stream:
            self._process = subprocess.Popen(
                command(name, workload), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True
            )

    def begin(self) -> None:
        """Start an epoch; the process reports it when the epoch has ended."""
        self._send("go\n")

    def turn(self) -> Turn:
        """Wait for the end of the epoch and return its report.

        Raises:
            FerError: the process has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FerError(f"the {self.name} training of the bench ended: {last_line(self._log)}")
        report: Turn = json.loads(line)
        return report

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise FerError(f"the {self.name} training of the bench ended: {last_line(self._log)}") from None

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def command(name: str, workload: Workload) -> list[str]:
    """Return the command line of a contestant."""
    return [sys.executable, "-m", "fer.benchmarks.contestants", name, json.dumps(asdict(workload))]


def last_line(file: Path) -> str:
    """Return the last line of a process's output."""
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


@contextmanager
def contestants(entries: Mapping[str, tuple[str, Workload]]) -> Iterator[list[Contestant]]:
    """Start the contestants, each in a separate folder, and end them after the block.

    Args:
        entries: label -> name of the contestant and its workload.
    """
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder, ExitStack() as stack:
        started = []
        for label, (name, workload) in entries.items():
            subfolder = Path(folder) / label
            subfolder.mkdir()
            started.append(Contestant(name, replace(workload, folder=str(subfolder)), subfolder / "printed.log"))
            stack.callback(started[-1].end)
        yield started


def interleaved(entries: Mapping[str, tuple[str, Workload]], rounds: int) -> dict[str, list[Turn]]:
    """Return the reports of all contestants, without the first round, which warms up.

    The contestants take turns; each round starts with another one.

    Args:
        entries: label -> name of the contestant and its workload.
        rounds: measured epochs of each.
    """
    turns: dict[str, list[Turn]] = {label: [] for label in entries}
    with contestants(entries) as started:
        pairs = list(zip(entries, started, strict=True))
        for round_ in range(rounds + 1):
            for offset in range(len(pairs)):
                label, contestant = pairs[(round_ + offset) % len(pairs)]
                contestant.begin()
                turns[label].append(contestant.turn())
                which = f"epoch {round_} of {rounds}" if round_ else "to warm up"
                log.info("  %s, %s: %.1f s", label, which, turns[label][-1]["seconds"])
    return {label: reports[1:] for label, reports in turns.items()}


def ratios(first: Sequence[Turn], second: Sequence[Turn], key: str) -> list[float]:
    """Return the ratio, first / second, of one value of the reports in each round."""
    return [a[key] / b[key] for a, b in zip(first, second, strict=True)]


def spread(values: Sequence[float]) -> str:
    """Return the smallest and the largest value as text."""
    return f"{min(values):.3g} to {max(values):.3g}"


def side_by_side(file: Path, rounds: int, threads: int, steps: int | None) -> list[Measurement]:
    """Measure the CNN in the three loops, and their memory; in bf16 too if the processor multiplies bfloat16.

    Args:
        file: an uncompressed ``fer2013.csv``.
        rounds: measured epochs of each loop.
        threads: processor threads of each loop in its turn.
        steps: steps of an epoch; None uses all faces.
    """
    workload = Workload(str(file), "", threads=threads, steps=steps)
    entries = {name: (name, workload) for name in ("plain", "bare", "ours")}
    pairs = [("plain", "ours", "plain loop's time / ours", 3.0), ("bare", "ours", "bare loop's time / ours", 0.97)]
    if machine.multiplies_bf16():
        entries["bf16"] = "ours", replace(workload, more=["trainer.precision=bf16"])
        pairs.append(("plain", "bf16", "plain loop's time / ours in bf16", 3.0))
    epochs = interleaved(entries, rounds)
    per_second = {name: [turn["images"] / turn["seconds"] for turn in turns] for name, turns in epochs.items()}
    names = {"plain": "a plain loop", "bare": "a bare loop", "ours": "fer.train", "bf16": "fer.train in bf16"}
    measurements = [
        Measurement(f"epoch of {names[name]}, validation included", median(values), "images/s", note=spread(values))
        for name, values in per_second.items()
    ]
    for first, second, name, target in pairs:
        clock, processor = (ratios(epochs[first], epochs[second], key) for key in ("seconds", "processor"))
        measurements += [
            at_least(f"{name}, by the clock", median(clock), "times", target, spread(clock)),
            Measurement(f"{name}, of the processor", median(processor), "times", note=spread(processor)),
        ]
    if epochs["bare"][-1]["memory"]:
        memory = epochs["ours"][-1]["memory"] / epochs["bare"][-1]["memory"]
        measurements.append(at_most("peak memory, ours / bare loop", memory, "times", 1.15))
    return measurements


def overhead(file: Path, rounds: int) -> list[Measurement]:
    """Measure the time that ``fer.train`` adds to a step of a nano network, on one thread."""
    workload = nano(file)
    epochs = interleaved({name: (name, workload) for name in ("bare", "ours")}, rounds)
    steps = -(-epochs["bare"][0]["images"] // workload.batch_size)
    pairs = zip(epochs["bare"], epochs["ours"], strict=True)
    added = [1000 * (ours["trained"] - bare["trained"]) / steps for bare, ours in pairs]
    return [at_most("added to a step of the bare loop", median(added), "ms", 0.7, spread(added))]


def only_line(ended: subprocess.CompletedProcess[str]) -> Turn:
    """Return the report of a contestant that takes no turns.

    Raises:
        FerError: the contestant ended without a report.
    """
    if not ended.stdout:
        raise FerError(f"fer.train ended too early: {ended.stderr.strip().splitlines()[-1:]}")
    report: Turn = json.loads(ended.stdout)
    return report


def on_gpu(file: Path, rounds: int) -> list[Measurement]:
    """Measure the CNN on a GPU by batch size, with compilation and with the fastest kernels, and the host's waits."""
    if not torch.cuda.is_available():
        log.info("no GPU found: its part is skipped")
        return []
    ways = {"": [], "compiled": ["trainer.compile=true"], "fastest kernels": ["trainer.deterministic=false"]}
    ways["compiled, fastest kernels"] = [*ways["compiled"], *ways["fastest kernels"]]
    workloads = {
        f"batches of {size}{', ' if name else ''}{name}": Workload(
            str(file), "", threads=os.cpu_count() or 1, batch_size=size, accelerator="gpu", more=more
        )
        for size in (128, 512, 2048)
        for name, more in ways.items()
    }
    epochs = interleaved({label: ("ours", workload) for label, workload in workloads.items()}, rounds)
    measurements = []
    for label, turns in epochs.items():
        speed = [turn["images"] / turn["trained"] for turn in turns]
        measurements.append(Measurement(f"GPU, {label}", median(speed), "images/s", note=spread(speed)))
    return [*measurements, waits_of(Workload(str(file), "", threads=1, accelerator="gpu"))]


def waits_of(workload: Workload) -> Measurement:
    """Measure how often the host waits for the device in the steps of an epoch."""
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        line = command("waiting", replace(workload, folder=folder))
        report = only_line(subprocess.run(line, capture_output=True, text=True, check=False))
    return at_most(f"waits of the host in {report['steps']} steps", report["waits"], "times", 0)


def starting(file: Path, rounds: int) -> list[Measurement]:
    """Measure the time of ``python -m fer.train`` to the end of its first step, warm, and the part that is our code."""
    whole, remainder = [], []
    for round_ in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
            line = command("first_step", Workload(str(file), folder, threads=os.cpu_count() or 1))
            ended = subprocess.run(line, capture_output=True, text=True, check=False)
        report = only_line(ended)
        if round_:  # the first warms the disk's cache and ours
            whole.append(report["seconds"])
            remainder.append(report["seconds"] - report["imports"] - report["step"])
    return [
        at_most("start to the first step", median(whole), "s", 8, spread(whole)),
        at_most("of it neither imports nor that step", median(remainder), "s", 0.5, spread(remainder)),
    ]
