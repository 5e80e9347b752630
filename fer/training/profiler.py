"""``trainer.profile=true``: where a training step's time goes.

The answer is a table, ``profile.json`` and a trace. ``torch.profiler`` records the 6th to the 15th step; Lightning's
names for what it does become labels in its events. The table's rows add up to the steps' wall time. The trace opens in
https://ui.perfetto.dev or chrome://tracing.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning.profilers import Profiler
from torch.profiler import ProfilerActivity, profile, record_function

from fer.system.files import write_json
from fer.system.records import plain
from fer.system.text import text_table

log = logging.getLogger(__name__)

WARM_UP = 5  # steps before the recorded ones: the first steps choose kernels and fill the allocator
RECORDED = 10  # steps
SHOWN = 10  # operators below the table
TRACE = "profile_trace.json.gz"
SILENT = "6"  # libkineto's highest level is 5; below it, starting and stopping are lines on stderr
FETCH = "train_dataloader_next"  # Lightning's name (2.6) for what begins a step
STEP = "run_training_batch"  # all from the forward pass to the optimizer
# the last part of Lightning's names -> row; those of STEP lie within it and take from its time
OUTSIDE: Mapping[str, str] = {FETCH: "fetching the batch", "batch_to_device": "to the device, augmentation"}
WITHIN: Mapping[str, str] = {
    "training_step": "forward, loss, scores",
    "backward": "backward",
    "configure_gradient_clipping": "gradient clipping",
    "optimizer_zero_grad": "zero_grad",
}
OPTIMIZER, REST = "optimizer, hooks", "callbacks, Lightning's loops"


@dataclass(frozen=True)
class StepPart:
    """A part of a step: its name, milliseconds a step, share of the step's time."""

    name: str
    ms_per_step: float
    share: float


@dataclass(frozen=True)
class StepTimes:
    """The contents of ``profile.json``: the first and the last recorded step, their seconds, the parts of a step."""

    recorded_steps: tuple[int, int]
    seconds: float
    rows: tuple[StepPart, ...]


class StepProfiler(Profiler):
    """Lightning's side of ``torch.profiler``: its actions become labels, its fetching counts the steps.

    Args:
        on_gpu: record kernels, and wait for the GPU at every label, so that its work counts under its own label.
    """

    def __init__(self, *, on_gpu: bool = False) -> None:
        super().__init__()
        self.on_gpu = on_gpu
        self.fetched = 0  # batches asked for
        self.steps = 0  # recorded
        self.seconds = 0.0  # of the recorded steps
        self.labels: set[str] = set()  # that stand in the events beside the operators
        self.recorded: profile | None = None
        self._begin: float | None = None  # while recording
        self._open: dict[str, record_function] = {}

    def start(self, action_name: str) -> None:
        """Open a label; Lightning calls this."""
        hook = action_name.rpartition(".")[2]
        if hook == FETCH:
            if self.fetched == WARM_UP:
                self._record()
            elif self.fetched == WARM_UP + RECORDED:
                self.finish()
            self.fetched += 1
        if hook == "on_validation_model_zero_grad":  # of a validation Lightning names the parts, not the whole
            self.finish()
        if self._begin is not None:
            self._wait()
            label = self._open[action_name] = record_function(hook)
            label.__enter__()  # type: ignore[no-untyped-call]
            self.labels.add(hook)

    def stop(self, action_name: str) -> None:
        """Close a label; Lightning calls this, also for what was never opened."""
        label = self._open.pop(action_name, None)
        if label is not None:
            self._wait()
            label.__exit__(None, None, None)

    def finish(self) -> None:
        """Stop recording; nothing happens where nothing is recorded."""
        if self._begin is None or self.recorded is None:
            return
        for name in reversed(list(self._open)):
            self.stop(name)
        self._wait()
        self.seconds, self.steps = time.perf_counter() - self._begin, self.fetched - WARM_UP
        self._begin = None
        self.recorded.stop()

    def _record(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
        self.recorded = profile(activities=activities)
        self.recorded.start()
        self._wait()
        self._begin = time.perf_counter()

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


@contextmanager
def measured(profiler: StepProfiler | None, folder: Path) -> Iterator[None]:
    """Report what was recorded within the block, however it ends.

    Args:
        profiler: given to Lightning's trainer; None measures nothing.
        folder: the run's.
    """
    try:
        yield
    finally:
        if profiler is not None:
            profiler.finish()
            report(profiler, folder)


def report(profiler: StepProfiler, folder: Path) -> None:
    """Print the tables; write ``profile.json`` and the trace to ``folder``."""
    if profiler.recorded is None:
        log.info("no step recorded: the run had no more than %d steps", WARM_UP)
        return
    events = profiler.recorded.key_averages()
    on_cpu = {event.key: event.cpu_time_total / 1e6 for event in events if event.device_type.name == "CPU"}
    rows = step_rows(on_cpu, profiler.seconds, profiler.steps)
    first, last = WARM_UP + 1, WARM_UP + profiler.steps
    write_json(folder / "profile.json", plain(StepTimes((first, last), profiler.seconds, tuple(rows))))
    part = folder / f".part.{TRACE}"  # torch compresses by its ending
    profiler.recorded.export_chrome_trace(str(part))
    os.replace(part, folder / TRACE)
    cells = [(row.name, f"{row.ms_per_step:9.3f}", f"{100 * row.share:7.1f} %") for row in rows]
    heads = ("part of a step", f"{'ms a step':>9}", f"{'share':>9}")
    log.info("\nwhere the time of steps %d to %d went\n\n%s\n", first, last, text_table(heads, cells))
    key = f"self_{'device' if profiler.on_gpu else 'cpu'}_time_total"
    events[:] = [event for event in events if event.key not in profiler.labels]
    log.info("slowest operators\n%s", events.table(sort_by=key, row_limit=SHOWN, max_name_column_width=40))
    log.info("  %-22s %s", "profile.json", "the first table")
    log.info("  %-22s %s", TRACE, "the recorded steps: open it in ui.perfetto.dev")


def step_rows(seconds: Mapping[str, float], whole: float, steps: int) -> list[StepPart]:
    """Return the parts of a step in its order. The shares add up to 1.

    Args:
        seconds: of each label, of all recorded steps.
        whole: seconds of all recorded steps.
        steps: how many were recorded.
    """
    parts = {name: seconds[label] for label, name in (*OUTSIDE.items(), *WITHIN.items()) if label in seconds}
    step = seconds.get(STEP, 0.0)
    parts[OPTIMIZER] = step - sum(seconds.get(label, 0.0) for label in WITHIN)
    parts[REST] = whole - step - sum(seconds.get(label, 0.0) for label in OUTSIDE)
    return [StepPart(name, 1000 * spent / max(steps, 1), spent / whole) for name, spent in parts.items()]
