"""What the page and the terminal show of a campaign, from its record and the files of its evaluations."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer.campaign.recipes import STUDENT
from fer.campaign.record import Line, Record, metrics_of
from fer.metrics.calibration import tempered
from fer.reports.campaign import Row, Span, Summary
from fer.runs import predictions
from fer.runs.predictions import name_of
from fer.system.files import read_history
from fer.system.text import clock

ORDER = ("ensemble", "student", "small", "member")  # of the table's lines


def summary_of(record: Record, folder: Path) -> Summary:
    """Return what the page of a campaign shows."""
    selection = None if record.ensemble is None else record.ensemble["selection"]
    members = [] if record.ensemble is None else record.ensemble["members"]
    calibration, whose = _calibration(record, folder)
    return Summary(
        title=f"The best of {record.request.hours:g} hours",
        lead=_lead(record),
        rows=rows_of(record, folder),
        spans=_spans(record),
        hours=record.request.hours,
        seconds=record.spent,
        curves=_curves(record, folder),
        roles={network.name: network.role for network in record.networks},
        selection=selection,
        weights={one["name"]: (one["weight"], one["temperature"]) for one in members},
        calibration=calibration,
        calibrated=whose,
        cost=_cost(record),
        notes=record.notes,
        about=_about(record),
    )


# --- the table ------------------------------------------------------------------------------------------------------


def rows_of(record: Record, folder: Path) -> list[Row]:
    """Return the rows of the table: the ensemble, the students' mean, each network."""
    rows = [_row(line, metrics_of(folder / line.folder)) for line in record.lines]
    means = [
        _mean([row for row in rows if (row.role, row.split, row.views) == (STUDENT, split, views)])
        for split in ("test", "val")
        for views in ("ten_crop", "none")
    ]
    every = [*(row for row in means if row is not None), *rows]
    return sorted(every, key=lambda row: (ORDER.index(row.role), row.sd is None, row.split, row.views != "ten_crop"))


def _row(line: Line, results: dict[str, Any]) -> Row:
    warm = results.get("calibrated") or results
    clean = results.get("clean")
    return Row(
        line.name,
        line.role,
        int(results.get("parameters") or 0),
        line.split,
        line.views,
        results["accuracy"],
        tuple(results["accuracy_ci95"]),
        None,
        results["macro_f1"],
        clean["accuracy"] if clean else None,
        warm["nll"],
        warm["ece"],
        warm.get("ece_if_calibrated"),
    )


def _mean(rows: Sequence[Row]) -> Row | None:
    """Return the mean of several seeds' rows; None of fewer than two."""
    if len(rows) < 2:
        return None
    first = rows[0]
    clean = [row.clean for row in rows if row.clean is not None]
    return Row(
        f"{len(rows)} students, mean",
        first.role,
        first.parameters,
        first.split,
        first.views,
        statistics.mean(row.accuracy for row in rows),
        None,
        statistics.stdev(row.accuracy for row in rows),
        statistics.mean(row.macro_f1 for row in rows),
        statistics.mean(clean) if len(clean) == len(rows) else None,
        statistics.mean(row.nll for row in rows),
        statistics.mean(row.ece for row in rows),
        None,
    )


# --- the rest -------------------------------------------------------------------------------------------------------


def _lead(record: Record) -> list[str]:
    data, faces = Path(record.request.data).name, record.faces
    counts = ", ".join(f"{count:,} {split}" for split, count in faces.items())
    width = (
        f" Networks of width {record.width}, the widest that trains long enough in this time." if record.width else ""
    )
    first = f" The package's network {record.first_teacher} taught the members." if record.first_teacher else ""
    taught = ", ".join(record.chosen_teachers)
    teachers = f" Teachers of the students, chosen on val: {taught}." if taught else ""
    return [
        f"{data}, split {record.request.rule}: {counts} faces. Trainings ran {record.where}.{width}{first}{teachers}"
    ]


def _spans(record: Record) -> list[Span]:
    phases = [
        Span(
            phase.name,
            "phase",
            (phase.planned_begin, phase.planned_end),
            None if phase.began is None or phase.ended is None else (phase.began, phase.ended),
        )
        for phase in record.phases
    ]
    networks = [
        Span(
            network.name,
            network.role,
            (network.planned_begin, network.planned_end),
            None if network.began is None or network.ended is None else (network.began, network.ended),
            (network.epochs, network.epochs_done),
            network.state,
            network.accuracy_val,
            network.teachers,
        )
        for network in record.networks
    ]
    return [*phases, *networks]


def _curves(record: Record, folder: Path) -> dict[str, list[float]]:
    found = {}
    for network in record.networks:
        file = folder / network.name / "history.csv"
        if file.is_file():
            found[network.name] = [row["accuracy/val"] for row in read_history(file)]
    return found


def _calibration(record: Record, folder: Path) -> tuple[Any, str]:
    """Return the calibrated answers of the ensemble, or of the first line; nothing where nothing was evaluated."""
    shown = [line for line in record.lines if line.views == "ten_crop"]
    shown.sort(key=lambda line: (ORDER.index(line.role), line.split != "test"))
    if not shown:
        return None, ""
    line = shown[0]
    results, said = metrics_of(folder / line.folder), predictions.read(folder / line.folder / "predictions.csv")
    index_of = {name: index for index, name in enumerate(said.classes)}
    targets = np.array([index_of[name] for name in said.targets], np.int64)
    temperature = results.get("temperature") or 1.0
    warm = tempered(said.probabilities, temperature)
    held = results.get("calibrated") or results
    ece = held["ece"], held["ece_if_calibrated"]
    whose = f"{line.name}, {name_of(line.split, line.views).replace('_', ' ')}, after the temperature."
    return (warm, targets, ece, temperature), whose


def _cost(record: Record) -> dict[str, str]:
    trained = {
        network.name: (network.ended or 0.0) - (network.began or 0.0)
        for network in record.networks
        if network.began is not None and network.ended is not None
    }
    evaluated = sum((phase.ended or 0.0) - (phase.began or 0.0) for phase in record.phases
                    if phase.began is not None and phase.name in ("evaluation", "choice of teachers"))  # fmt: skip
    return {
        "given": clock(3600 * record.request.hours),
        "taken": clock(record.spent),
        "training, all networks added up": clock(sum(trained.values())),
        "evaluations": clock(evaluated),
        **{f"training of {name}": clock(seconds) for name, seconds in trained.items()},
    }


def _about(record: Record) -> dict[str, str]:
    held = record.provenance
    hardware = held.get("hardware", {})
    versions = ", ".join(f"{name} {version}" for name, version in held.get("versions", {}).items())
    where = [hardware.get("gpu"), hardware.get("cpu"), f"{hardware.get('cores')} cores"]
    measured = [f"{name} {pace.train:.1f} + {pace.val:.1f} s" for name, pace in record.measured.items()]
    return {
        "command": record.command,
        "commit": str(held.get("commit")),
        "hardware": ", ".join(str(one) for one in where if one),
        "versions": versions,
        "epoch measured before (train + val)": ", ".join(measured),
        "started": record.started,
        "finished": str(record.finished),
    }
