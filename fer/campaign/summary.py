"""The contents of a campaign's page, from its record and the files of its evaluations."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer.campaign.recipes import SMALL, STUDENT
from fer.campaign.record import Line, Record, called
from fer.metrics import results as metrics_json
from fer.metrics.calibration import tempered
from fer.metrics.results import Results, Values
from fer.reports.campaign import Row, Span, Summary
from fer.runs import predictions
from fer.system.files import read_history
from fer.system.machine import MachineRecord
from fer.system.text import clock

ORDER = ("ensemble", "student", "small", "member")  # roles in the order of the table


def summary_of(record: Record, folder: Path) -> Summary:
    """Return the contents of a campaign's page."""
    ensemble = record.ensemble
    calibration, whose = _calibration(record, folder)
    return Summary(
        title=f"The best networks of {duration(record.request.hours)}",
        lead=_lead(record),
        rows=rows_of(record, folder),
        spans=_spans(record),
        hours=record.request.hours,
        seconds=record.spent,
        curves=_curves(record, folder),
        roles={network.name: network.role for network in record.networks},
        selection=ensemble.selection if ensemble else None,
        weights={member.name: (member.weight, member.temperature) for member in ensemble.members} if ensemble else {},
        calibration=calibration,
        calibrated=whose,
        cost=_cost(record),
        notes=record.notes,
        about=_about(record),
    )


def duration(hours: float) -> str:
    """Return ``2 hours``, or ``20 minutes`` for less than an hour."""
    number, unit = (hours, "hour") if hours >= 1 else (60 * hours, "minute")
    return f"{number:.3g} {unit}{'' if number == 1 else 's'}"


# --- the table ------------------------------------------------------------------------------------------------------


def rows_of(record: Record, folder: Path) -> list[Row]:
    """Return the rows of the table: the ensemble, the mean of the students, and each network."""
    rows = [_row(line, metrics_json.read(folder / line.folder / "metrics.json")) for line in record.lines]
    means = [
        _mean([row for row in rows if (row.role, row.split, row.views) == (STUDENT, split, views)])
        for split in ("test", "val")
        for views in ("ten_crop", "none")
    ]
    every = [*(row for row in means if row is not None), *rows]
    return sorted(every, key=lambda row: (ORDER.index(row.role), row.sd is None, row.split, row.views != "ten_crop"))


def _calibrated(results: Results) -> Values:
    """Return the metrics with the temperature, or without one if none was fitted."""
    return results.calibrated or results.metrics


def _row(line: Line, results: Results) -> Row:
    metrics, calibrated = results.metrics, _calibrated(results)
    return Row(
        line.name,
        line.role,
        results.parameters,
        line.split,
        line.views,
        metrics["accuracy"].number,
        metrics["accuracy"].ci95,
        None,
        metrics["macro_f1"].number,
        results.clean.accuracy.value if results.clean else None,
        calibrated["nll"].number,
        calibrated["ece"].number,
        calibrated["ece"].if_calibrated,
    )


def _mean(rows: Sequence[Row]) -> Row | None:
    """Return the mean row of several seeds; None for fewer than two."""
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
    members, students = bool(record.of_role("member")), bool(record.of_role(STUDENT))
    wide = record.width and (members or students) and not record.request.sets_width
    width = f" {called(members, students).capitalize()} have width {record.width}." if wide else ""
    return [
        f"{data}, split {record.request.rule}: {counts} faces. Trainings ran {record.where}.{width}{_teaching(record)}"
    ]


def _teaching(record: Record) -> str:
    """Return the sentences on who taught the members and the students, each after a space."""
    first = record.first_teacher
    taught = [*record.of_role(STUDENT), *record.of_role(SMALL)]
    chosen = taught[0].teachers if taught else []
    students = bool(record.of_role(STUDENT))
    if first and chosen == [first]:
        return f" The package's network {first} taught the {called(bool(record.of_role('member')), students)}."
    members = f" The package's network {first} taught the members." if first else ""
    return (
        f"{members} Teachers of the {called(False, students)}, chosen on val: {', '.join(chosen)}."
        if chosen
        else members
    )


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
    accuracies = {}
    for network in record.networks:
        file = folder / network.name / "history.csv"
        if file.is_file():
            accuracies[network.name] = [row["accuracy/val"] for row in read_history(file)]
    return accuracies


def _calibration(record: Record, folder: Path) -> tuple[Any, str]:
    """Return the calibrated predictions of the ensemble, or else of the best line, and their name.

    Returns:
        (probabilities, targets, ECE, temperature) as in ``Summary.calibration``, None without evaluations; the name.
    """
    shown = [line for line in record.lines if line.views == "ten_crop"]
    on_val = {line.name: _accuracy(folder, line) for line in shown if line.split == "val"}
    shown.sort(key=lambda line: (ORDER.index(line.role), -on_val.get(line.name, 0.0), line.split != "test"))
    if not shown:
        return None, ""
    line = shown[0]
    results = metrics_json.read(folder / line.folder / "metrics.json")
    predicted = predictions.read(folder / line.folder / "predictions.csv")
    index_of = {name: index for index, name in enumerate(predicted.classes)}
    targets = np.array([index_of[name] for name in predicted.targets], np.int64)
    temperature = results.temperature or 1.0
    calibrated = tempered(predicted.probabilities, temperature)
    error = _calibrated(results)["ece"]
    ece = error.number, error.if_calibrated or 0.0
    after = "" if results.temperature is None else ", after temperature scaling"
    subject = f"{line.name.capitalize()} on {line.split} with ten crops{after}."
    return (calibrated, targets, ece, temperature), subject


def _accuracy(folder: Path, line: Line) -> float:
    return metrics_json.read(folder / line.folder / "metrics.json").scores.accuracy.number


def _cost(record: Record) -> dict[str, str]:
    trained = {
        network.name: (network.ended or 0.0) - (network.began or 0.0)
        for network in record.networks
        if network.began is not None and network.ended is not None
    }
    evaluated = sum((phase.ended or 0.0) - (phase.began or 0.0) for phase in record.phases
                    if phase.began is not None and phase.name in ("evaluation", "choice of teachers"))  # fmt: skip
    return {
        "time limit": clock(3600 * record.request.hours),
        "time used": clock(record.spent),
        "training, sum over all networks": clock(sum(trained.values())),
        "evaluations": clock(evaluated),
        **{f"training of {name}": clock(seconds) for name, seconds in trained.items()},
    }


def _about(record: Record) -> dict[str, str]:
    machine = record.provenance or MachineRecord()
    hardware = machine.hardware
    where = [hardware.gpu, hardware.cpu, f"{hardware.cores} cores"]
    measured = [f"{name} {pace.train:.1f} + {pace.val:.1f} s" for name, pace in record.measured.items()]
    return {
        "command": record.command,
        "commit": str(machine.commit),
        "hardware": ", ".join(str(part) for part in where if part),
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "measured time of an epoch (train + val)": ", ".join(measured),
        "started": record.started,
        "finished": str(record.finished),
    }
