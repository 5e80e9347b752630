"""The trials of a search as plain values and as a table."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fer.config.settings import mode, worded
from fer.system.files import opened_text, written_whole
from fer.system.text import text_table

State = Literal["complete", "pruned", "failed", "running"]
SHOWN = 5  # trials in the closing table


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Args:
        number: from 0, in the order of their start.
        state: "running" also for an interrupted trial that will be resumed.
        texts: key -> value as text of an override.
        value: monitored metric at the best epoch, the mean over the seeds; None before the first measurement.
        values: monitored metric of each finished seed.
        epochs: number of trained epochs, of all seeds; of a pruned trial those up to its end.
        seconds: time of all runs.
        folders: names of the runs' folders; those of another trial where ``same_as`` is set.
        reason: reason of a failure.
        same_as: number of an earlier trial of the same configuration, whose result this one takes.
    """

    number: int
    state: State
    texts: Mapping[str, str]
    value: float | None = None
    values: Sequence[float] = ()
    epochs: int = 0
    seconds: float = 0.0
    folders: Sequence[str] = ()
    reason: str = ""
    same_as: int | None = None

    @property
    def parameters(self) -> str:
        """The drawn values, as on a command line."""
        return " ".join(f"{key}={text}" for key, text in self.texts.items())


class Share(NamedTuple):
    """Importance of a parameter, 0 to 1, with its 95 % interval over samples of the trials."""

    value: float
    low: float
    high: float


def best(trials: Sequence[Trial], monitor: str) -> Trial | None:
    """Return the complete trial with the best value, the first of equal ones; None if none is complete."""
    complete = ranked(trials, monitor)
    return complete[0] if complete else None


def ranked(trials: Sequence[Trial], monitor: str) -> list[Trial]:
    """Return the complete trials, the best first."""
    sign = 1 if mode(monitor) == "min" else -1
    complete = [(trial, trial.value) for trial in trials if trial.state == "complete" and trial.value is not None]
    return [trial for trial, value in sorted(complete, key=lambda pair: (sign * pair[1], pair[0].number))]


def counts(trials: Sequence[Trial]) -> dict[State, int]:
    """Return state -> number of trials."""
    states: tuple[State, ...] = ("complete", "pruned", "failed", "running")
    return {state: sum(trial.state == state for trial in trials) for state in states}


def counted(trials: Sequence[Trial]) -> str:
    """Return the number of trials of each state in words, without empty states."""
    words = {"running": "unfinished"}
    return ", ".join(f"{count} {words.get(state, state)}" for state, count in counts(trials).items() if count)


def ended_in(file: Path) -> int:
    """Return the number of ended trials in a file of ``write_csv``; 0 without the file."""
    try:
        with opened_text(file) as stream:
            return sum(row.get("state") != "running" for row in csv.DictReader(stream))
    except FileNotFoundError:
        return 0


def write_csv(file: Path, trials: Sequence[Trial], keys: Sequence[str], monitor: str) -> None:
    """Write a row for each trial: number, state, value, values of seeds, epochs, seconds, folders, reason, parameters.

    Args:
        file: file to write, whole or not at all.
        trials: trials in order.
        keys: keys of the parameters.
        monitor: metric, the head of the value's column.
    """
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        about = ("trial", "state", monitor, "seeds", "epochs", "seconds", "folders", "same_as", "reason")
        writer.writerow((*about, *keys))
        for trial in trials:
            measured = "" if trial.value is None else f"{trial.value:.6g}"
            writer.writerow(
                (
                    trial.number,
                    trial.state,
                    measured,
                    " ".join(f"{value:.6g}" for value in trial.values),
                    trial.epochs,
                    f"{trial.seconds:.1f}",
                    " ".join(trial.folders),
                    "" if trial.same_as is None else trial.same_as,
                    trial.reason,
                    *(trial.texts.get(key, "") for key in keys),
                )
            )


def leading(trials: Sequence[Trial], monitor: str) -> str:
    """Return the table of the best trials."""
    rows = [
        (str(trial.number), worded(monitor, trial.value or 0.0), trial.parameters) for trial in ranked(trials, monitor)
    ]
    return text_table(("trial", monitor, "parameters"), rows[:SHOWN])
