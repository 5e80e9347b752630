"""``trainer.profile=true``: where the time of a training goes, as a table, ``profile.json`` and a trace.

Lightning names what it does: its loops, its hooks, those of callbacks and of the network. ``Phases`` keeps a stack of
these names, so that each phase is charged with its own time and not with that of the phases within it, and what no name
covers is a row of its own: the shares add up to the whole. From the 6th to the 15th step ``torch.profiler`` records as
well; its ten slowest operators follow the table, and its trace opens in https://ui.perfetto.dev or chrome://tracing.
"""

import logging
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.profilers import Profiler
from torch.profiler import ProfilerActivity, profile

from fer.system.files import write_json
from fer.system.text import text_table

log = logging.getLogger(__name__)

WARM_UP = 5  # steps before the operators are recorded: the first ones choose kernels and fill the allocator
RECORDED = 10  # steps whose operators are recorded
SHOWN = 10  # operators below the table
TRACE = "profile_trace.json.gz"
SILENT = "6"  # libkineto's highest level is 5; below it, starting and stopping are lines on stderr

FETCH = "fetching the batch"
MOVE = "moving to the device"
AUGMENT = "augmentation"
FORWARD = "forward, loss, scores"
BACKWARD = "backward"
CLIP = "gradient clipping"
STEP = "optimizer step"
ZERO = "zero_grad"
SCHEDULE = "learning-rate schedule"
LOOPS = "Lightning's loops"
VALIDATION = "validation"
CHECKPOINTS = "checkpoints"
AROUND = "setting up, closing"
RECORDING = "recording the operators"
OTHER = "other"

# the last part of Lightning's names (lightning 2.6) -> phase; a hook that is not named here falls to the loops
HOOKS: Mapping[str, str] = {
    "train_dataloader_next": FETCH,
    "on_before_batch_transfer": MOVE,
    "batch_to_device": MOVE,
    "transfer_batch_to_device": MOVE,
    "on_after_batch_transfer": AUGMENT,
    "training_step": FORWARD,
    "backward": BACKWARD,
    "configure_gradient_clipping": CLIP,
    "optimizer_step": STEP,
    "optimizer_zero_grad": ZERO,
    "lr_scheduler_step": SCHEDULE,
    "save_checkpoint": CHECKPOINTS,
    **dict.fromkeys(("setup", "prepare_data", "train_dataloader", "val_dataloader", "teardown"), AROUND),
    **dict.fromkeys(("configure_callbacks", "configure_model", "configure_optimizers"), AROUND),
    **dict.fromkeys(("on_fit_start", "on_train_start", "on_train_end", "on_fit_end"), AROUND),
}
ORDER = (FETCH, MOVE, AUGMENT, FORWARD, BACKWARD, CLIP, STEP, ZERO, SCHEDULE, LOOPS)  # of a step, as it goes
LAST = (VALIDATION, CHECKPOINTS, AROUND, RECORDING, OTHER)  # below the callbacks


def phase_of(action: str, around: str) -> str:
    """Return the phase of one of Lightning's names, ``around`` being the phase that it lies in.

    All of a validation is one phase but for callbacks and checkpoints; all that saving a checkpoint calls is saving.
    """
    hook = action.rpartition(".")[2]
    if CHECKPOINTS in (around, HOOKS.get(hook)):
        return CHECKPOINTS
    callback = re.match(r"\[Callback\](\w+)", action)  # a state key goes on with the callback's arguments, in braces
    if callback:
        return f"callback {callback[1]}"
    return VALIDATION if around == VALIDATION else HOOKS.get(hook, LOOPS)


class Phases(Profiler):
    """Lightning's profiler, which charges every moment between ``begin`` and ``end`` to exactly one phase.

    Lightning starts and stops unevenly where an exception passes: stopping a name closes what was opened above it, and
    stopping what is not open is no news.

    Args:
        on_gpu: wait for the GPU wherever a phase begins or ends, so that its work counts where it was asked for.
    """

    def __init__(self, *, on_gpu: bool = False) -> None:
        super().__init__()
        self.on_gpu = on_gpu
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, Counter[str]] = defaultdict(Counter)  # phase -> name -> number
        self.fetched = 0  # batches asked for
        self.operators = Operators(on_gpu)
        self._stack: list[tuple[str, str]] = []  # (name, phase), the innermost last
        self._mark = 0.0

    @property
    def steps(self) -> int:
        """Return the number of training steps that were begun."""
        return max(self.calls[FORWARD].values(), default=0)

    @property
    def total(self) -> float:
        """Return the seconds of all phases."""
        return sum(self.seconds.values())

    def begin(self) -> None:
        """Start the clock."""
        self._mark = self._now()

    def end(self) -> None:
        """Stop the clock, whatever is open."""
        self._charge()
        self._stack.clear()
        self._record(False)

    def start(self, action_name: str) -> None:
        """Open a phase; Lightning calls this."""
        self._charge()
        hook = action_name.rpartition(".")[2]
        if hook == "train_dataloader_next":
            self._record(WARM_UP <= self.fetched < WARM_UP + RECORDED)
            self.fetched += 1
        if hook == "on_validation_model_zero_grad":  # Lightning names the parts of a validation, not the whole
            self._record(False)
            self._open(VALIDATION, VALIDATION)
        self._open(action_name, phase_of(action_name, self._innermost))

    def stop(self, action_name: str) -> None:
        """Close a phase; Lightning calls this."""
        self._charge()
        self._close(action_name)
        if action_name.endswith(".on_validation_model_train"):
            self._close(VALIDATION)

    @property
    def _innermost(self) -> str:
        return self._stack[-1][1] if self._stack else OTHER

    def _open(self, name: str, phase: str) -> None:
        self._stack.append((name, phase))
        self.calls[phase][name] += 1

    def _close(self, name: str) -> None:
        places = [place for place, (opened, _) in enumerate(self._stack) if opened == name]
        del self._stack[places[-1] if places else len(self._stack) :]

    def _charge(self, phase: str | None = None) -> None:
        """Charge the time since the last look at the clock to the innermost phase, or to the one that is named."""
        now = self._now()
        self.seconds[phase or self._innermost] += now - self._mark
        self._mark = now

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _record(self, wanted: bool) -> None:
        """Let the operators be recorded, or no longer; what that takes is charged to a phase of its own."""
        if self.operators.switch(wanted, self.fetched):
            self.calls[RECORDING]["[switch]"] += 1
            self._charge(RECORDING)


class Operators:
    """``torch.profiler`` over a few steps.

    Args:
        on_gpu: record the GPU's kernels too.
    """

    def __init__(self, on_gpu: bool) -> None:
        self.device = "cuda" if on_gpu else "cpu"
        self.first = self.last = 0  # steps, from 1; 0 where none was recorded
        self._profile: profile | None = None
        self._on = False

    def switch(self, on: bool, done: int) -> bool:
        """Begin or end after step ``done``, and return whether that was any news. It records once."""
        if on == self._on or (on and self._profile is not None):
            return False
        self._on = on
        if on:
            os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device == "cuda" else [])]
            self.first, self._profile = done + 1, profile(activities=activities)
            self._profile.start()
        elif self._profile is not None:
            self.last = done
            self._profile.stop()
        return True

    def rows(self) -> list[dict[str, Any]]:
        """Return the operators with the largest self time: name, calls, milliseconds a step, share of all self time."""
        if self._profile is None:
            return []
        steps = max(self.last - self.first + 1, 1)
        events = [event for event in self._profile.key_averages() if event.device_type.name == "CPU"]
        times = {event.key: (getattr(event, f"self_{self._kind}_time_total"), event.count) for event in events}
        whole = sum(microseconds for microseconds, _ in times.values()) or 1.0
        ranked = sorted(times.items(), key=lambda item: -item[1][0])[:SHOWN]
        return [
            {"name": name, "calls": count, "ms_per_step": spent / 1000 / steps, "share": spent / whole}
            for name, (spent, count) in ranked
        ]

    def write(self, file: Path) -> None:
        """Write the trace, gzipped, in Chrome's format; nothing where nothing was recorded."""
        if self._profile is not None:
            part = file.with_name(f".part.{file.name}")  # its ending tells torch to compress
            self._profile.export_chrome_trace(str(part))
            os.replace(part, file)

    @property
    def _kind(self) -> str:
        return "device" if self.device == "cuda" else "cpu"


@contextmanager
def measured(phases: Phases | None, folder: Path) -> Iterator[None]:
    """Measure what is done within, if anything is wanted, and report it whatever ends it.

    Args:
        phases: given to Lightning's trainer; None measures nothing.
        folder: the run's.
    """
    if phases is None:
        yield
        return
    phases.begin()
    try:
        yield
    finally:
        phases.end()
        report(phases, folder)


def report(phases: Phases, folder: Path) -> None:
    """Print the tables; write ``profile.json`` and the trace to ``folder``."""
    found = summary(phases)
    write_json(folder / "profile.json", found)
    phases.operators.write(folder / TRACE)
    log.info("\nwhere the time went\n\n%s\n", phase_table(found))
    named, share = found["total_seconds"] - found["other_seconds"], found["other_seconds"] / found["total_seconds"]
    log.info(
        "training: %.2f s, %d steps; %.2f s in phases with a name, %.2f s (%.1f %%) in none",
        found["total_seconds"], found["steps"], named, found["other_seconds"], 100 * share,
    )  # fmt: skip
    if found["operators"]:
        first, last = found["recorded_steps"]
        log.info("\nslowest operators, self time on the %s, steps %d to %d\n", found["operators_device"], first, last)
        log.info("%s\n", operator_table(found["operators"]))
    else:
        log.info("no operators recorded: the run had no more than %d steps", WARM_UP)
    log.info("  %-22s %s", "profile.json", "these tables")
    if found["operators"]:
        log.info("  %-22s %s", TRACE, "the recorded steps: open it in ui.perfetto.dev")


def summary(phases: Phases) -> dict[str, Any]:
    """Return what was measured as plain values; the phases' shares add up to 1.

    A phase's calls are those of the name that is called most often in it: batches, of a validation.
    """
    callbacks = sorted(name for name in phases.seconds if name.startswith("callback "))
    seen = [name for name in (*ORDER, *callbacks, *LAST) if name in phases.seconds or name == OTHER]
    total, steps = max(phases.total, 1e-9), phases.steps
    operators = phases.operators
    return {
        "total_seconds": total,
        "other_seconds": phases.seconds[OTHER],
        "steps": steps,
        "phases": [
            {
                "phase": name,
                "calls": max(phases.calls[name].values(), default=0),
                "seconds": phases.seconds[name],
                "ms_per_step": 1000 * phases.seconds[name] / max(steps, 1),
                "share": phases.seconds[name] / total,
            }
            for name in seen
        ],
        "operators_device": operators.device,
        "recorded_steps": [operators.first, operators.last],
        "operators": operators.rows(),
    }


def phase_table(found: Mapping[str, Any]) -> str:
    """Return the phases in the order of a step, with their sum."""
    heads = ("phase", *(f"{head:>9}" for head in ("calls", "seconds", "ms a step", "share")))
    sums = {key: sum(row[key] for row in found["phases"]) for key in ("seconds", "ms_per_step", "share")}
    rows = [*found["phases"], {"phase": "all", "calls": "", **sums}]
    return text_table(
        heads,
        [
            (
                row["phase"],
                f"{row['calls'] or '':>9}",
                f"{row['seconds']:9.3f}",
                f"{row['ms_per_step']:9.3f}",
                f"{100 * row['share']:7.1f} %",
            )
            for row in rows
        ],
    )


def operator_table(rows: list[dict[str, Any]]) -> str:
    """Return the operators, the slowest first."""
    heads = ("operator", *(f"{head:>9}" for head in ("calls", "ms a step", "share")))
    cells = [
        (row["name"], f"{row['calls']:>9}", f"{row['ms_per_step']:9.3f}", f"{100 * row['share']:7.1f} %")
        for row in rows
    ]
    return text_table(heads, cells)
