"""``python -m fer.audit [DATA] [--quick] [--votes CSV] [--predictions RUNS]``: look at a data set before trusting it.

Counts classes by split, finds exact twins, near twins and pictures without a face, shows a draw of faces of each class,
the darkest, brightest and flattest and, given out-of-fold predictions, the labels that they contradict. Writes
``audit.html``, ``audit.json``, ``audit.csv`` (what may be done, which ``data.exclude`` obeys), ``twins.csv``,
``near_twins.csv``, ``extremes.csv`` and pictures to ``outputs/audit/<name>/``. Changes nothing in the data.
"""

import argparse
import csv
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fer.config.command import Grammar, command
from fer.config.settings import DataSettings
from fer.data import exclude
from fer.data.audit.inspection import Found, examine, split_of
from fer.data.audit.suggestions import advise
from fer.data.audit.summary import advice_counts, counted
from fer.data.locate import locate
from fer.reports.audit import page as report
from fer.reports.audit import text
from fer.system.files import new_folder, write_json, written_whole

log = logging.getLogger(__name__)

SCHEMA = 1
OPTIONS = {  # key of fer.train -> what is said here for it
    "data.path": "DATA",
    "data.split": "--rule",
    "data.votes": "--votes",
    "data.on_bad": "--on-bad",
    "data.image_size": "--image-size",
    "plugins": "--plugins",
}


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.audit",
        description="Look at a data set: counts, faces, twins, pictures without a face, doubtful labels. It is not "
        "changed.",
    )
    grammar.add_argument(
        "data", nargs="?", help="table, archive, folder or 'synthetic'; default: $FER_DATA, then data/"
    )
    grammar.add_argument("--quick", action="store_true", help="leave out near twins, brightness and contrast")
    grammar.add_argument(
        "--rule",
        choices=["official", "as_given", "holdout"],  # of folds one alone would be shown
        help="how the data are split; default: official, or where that does not apply what the source tells",
    )
    grammar.add_argument("--votes", help="FER+'s fer2013new.csv, joined by row")
    grammar.add_argument(
        "--predictions",
        action="append",
        type=Path,
        metavar="RUNS",
        help="finished runs (or latest) that have each predicted other faces, such as a sweep=folds: which labels they "
        "contradict",
    )
    grammar.add_argument("--on-bad", choices=["error", "skip"], default="error", help="default: %(default)s")
    grammar.add_argument("--image-size", type=int, default=48, help="side of the faces in pixels; default: %(default)s")
    grammar.add_argument("--out", type=Path, help="folder for the results; default: outputs/audit/<name>")
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")
    return grammar


@command("fer.audit", OPTIONS)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, line = parser().begin(argv)
    if arguments.plugins:
        from fer.config.hydra import import_plugins  # brings Hydra, which nothing else here needs

        import_plugins([name for name in arguments.plugins.split(",") if name])
    audit(arguments, line)
    return 0


def audit(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    """Read, count, write the page with its tables and pictures, print a summary, and return what was counted.

    Args:
        arguments: of the command line.
        command: the command line, for the record.

    Raises:
        FerError: the data are missing or bad, or ``--rule`` does not apply to them.
    """
    from fer.data.load import read_faces
    from fer.evaluation import label_errors
    from fer.system import machine

    if arguments.predictions:
        from fer.runs.run_folder import named_results

        label_errors.require_cleanlab()
        arguments.predictions = [named_results(path) for path in arguments.predictions]
    settings = data_settings(arguments)
    faces = read_faces(settings)
    split = split_of(faces, arguments.rule, settings)
    doubted = label_errors.find(faces, arguments.predictions) if arguments.predictions else None
    found = examine(faces, split, quick=arguments.quick, suspects=doubted)
    advice = advise(found)
    facts = {
        "schema": SCHEMA,
        **counted(found),
        "advice": advice_counts(advice),
        **machine.provenance(),
        "command": command,
    }
    folder = results_folder(arguments.out, faces.source.name)
    write_json(folder / "audit.json", facts)
    exclude.write(folder / "audit.csv", found, advice)
    write_twins(folder / "twins.csv", found)
    if not arguments.quick:
        write_near_twins(folder / "near_twins.csv", found)
        write_extremes(folder / "extremes.csv", found)
    page = report.write(found, facts, folder)
    log.info("%s\n\nresults: %s\npage:    %s", text.summary(facts), folder, page)
    if facts["advice"]["exclude"]["faces"]:
        log.info("next:    %s", training_without(folder / "audit.csv", settings, split.rule, arguments.plugins))
    return facts


def training_without(file: Path, settings: DataSettings, rule: str, plugins: str) -> str:
    """Return the command line that trains on the audited faces without those that the audit would leave out.

    Args:
        file: ``audit.csv``.
        settings: of the audited data.
        rule: of their split, "all" where they have none.
        plugins: modules to import first, separated by commas.
    """
    from fer.config.conf import spelled

    keys: dict[str, Any] = {"data.path": settings.path, "data.split": "holdout" if rule == "all" else rule}
    if settings.on_bad != "error":
        keys["data.on_bad"] = settings.on_bad
    if plugins:
        keys["plugins"] = [name for name in plugins.split(",") if name]
    keys["data.exclude"] = str(file)
    return shlex.join(["python", "-m", "fer.train", *(f"{key}={spelled(value)}" for key, value in keys.items())])


def data_settings(arguments: argparse.Namespace) -> DataSettings:
    """Return which faces the command line names.

    Raises:
        FerError: they are not found, or a value is out of range; drawn faces never stand in.
    """
    from fer.config.schema import check

    path, _ = locate(arguments.data, drawn_faces_allowed=False)
    asked = {"path": path, "votes": arguments.votes, "image_size": arguments.image_size, "on_bad": arguments.on_bad}
    return DataSettings(**check(DataSettings, asked, "data"))


def results_folder(out: Path | None, name: str) -> Path:
    """Make and return the folder for the results; one that holds something already is left alone and numbered on."""
    if out is None:
        return new_folder(Path("outputs/audit"), Path(name).name or "data")
    wanted = out.expanduser().absolute()
    return wanted if wanted.is_dir() and not any(wanted.iterdir()) else new_folder(wanted.parent, wanted.name)


# --- files ------------------------------------------------------------------------------------------


def write_twins(file: Path, found: Found) -> None:
    """Write a row for each face of each group of exact twins."""
    rows = (
        (number, *whose(found, place), int(found.conflicting[number - 1]))
        for number, group in enumerate(found.groups, start=1)
        for place in group.tolist()
    )
    write_rows(file, ("group", "row", "split", "label", "conflict"), rows)


def write_near_twins(file: Path, found: Found) -> None:
    """Write a row for each face of each group of near twins, beside the first of its group."""
    assert found.near is not None
    near = found.near
    rows = (
        (
            number,
            *whose(found, place),
            int(found.near_conflicting[number - 1]),
            f"{near.likeness[place]:.4f}",
            int(near.distance[place]),
            int(near.mirrored[place]),
        )
        for number, group in enumerate(near.groups, start=1)
        for place in group.tolist()
    )
    write_rows(file, ("group", "row", "split", "label", "conflict", "correlation", "distance", "mirrored"), rows)


def write_extremes(file: Path, found: Found) -> None:
    """Write a row for each of the darkest, brightest and flattest faces."""
    rows = (
        (kind, rank, *whose(found, place), *(f"{values[place]:.2f}" for values in found.light or ()))
        for kind, places in found.extremes.items()
        for rank, place in enumerate(places.tolist(), start=1)
    )
    write_rows(file, ("kind", "rank", "row", "split", "label", "mean", "sd"), rows)


def whose(found: Found, place: int) -> tuple[int, str, str]:
    """Return row, split and label of the face at a place."""
    return int(found.faces.rows[place]), str(found.splits[place]), str(found.labels[place])


def write_rows(file: Path, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, whole or not at all."""
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main(None))
