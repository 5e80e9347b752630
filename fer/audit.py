"""``python -m fer.audit [DATA] [--quick] [--votes CSV] [--predictions RUNS]``: inspect a data set.

Counts classes by split, finds exact duplicates, near duplicates, moved copies and pictures without a face, and shows
random, dark, bright and flat faces. With out-of-fold predictions it also lists the labels that they contradict. Writes
``audit.html``, ``audit.json``, ``audit.csv`` (suggestions; ``data.exclude`` applies them to train), ``twins.csv``,
``near_twins.csv``, ``moved_copies.csv``, ``extremes.csv`` and pictures to ``outputs/audit/<name>/``. The data are not
changed.
"""

import argparse
import csv
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from fer.config.command import Grammar, class_names, command
from fer.config.plugins import import_plugins, listed
from fer.config.settings import DataSettings
from fer.data import exclude
from fer.data.audit.inspection import Findings, Split, examine, split_of
from fer.data.audit.results import Audit
from fer.data.audit.suggestions import EXCLUDE, advise
from fer.data.audit.summary import counted
from fer.data.labels import folder_names, in_braces
from fer.data.locate import locate
from fer.reports.audit import page as report
from fer.reports.audit import text
from fer.system.files import new_folder, unused_folder, write_json, written_whole
from fer.system.records import plain

log = logging.getLogger(__name__)

OPTIONS = {  # key of fer.train -> option here
    "data.path": "DATA",
    "data.split": "--rule",
    "data.votes": "--votes",
    "data.on_bad": "--on-bad",
    "data.class_names": "--class-names",
    "data.image_size": "--image-size",
    "plugins": "--plugins",
}


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.audit",
        description="Inspect a data set: counts, faces, duplicates, pictures without a face, doubtful labels. The data "
        "are not changed.",
    )
    grammar.add_argument(
        "data", nargs="?", help="table, archive, folder or 'synthetic'; default: $FER_DATA, then data/"
    )
    grammar.add_argument(
        "--quick", action="store_true", help="leave out near duplicates, moved copies, brightness and contrast"
    )
    grammar.add_argument(
        "--rule",
        choices=["official", "as_given", "holdout"],  # no folds: an audit would show only one of them
        help="how the data are split; default: official, or the source's own split where it has no official one",
    )
    grammar.add_argument("--votes", help="FER+'s fer2013new.csv, joined by row")
    grammar.add_argument(
        "--predictions",
        action="append",
        type=Path,
        metavar="RUNS",
        help="finished runs (or latest) with out-of-fold predictions, such as a sweep=folds: list the labels that "
        "they contradict",
    )
    grammar.add_argument(
        "--on-bad", choices=["error", "skip"], default="error",
        help="error stops at a bad row or picture, skip counts and lists it; default: %(default)s",
    )  # fmt: skip
    grammar.add_argument("--image-size", type=int, default=48, help="side of the faces in pixels; default: %(default)s")
    grammar.add_folder("--out", "folder for the results; default: outputs/audit/<name>")
    grammar.add_argument(
        "--class-names", type=class_names, metavar="FOLDER:EMOTION,...",
        help="meaning of class folders of other names, such as 1:surprise,2:fear",
    )  # fmt: skip
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")
    return grammar


@command("fer.audit", OPTIONS)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, line = parser().begin(argv)
    import_plugins(listed(arguments.plugins))
    audit(arguments, line)
    return 0


def audit(arguments: argparse.Namespace, command: str) -> Audit:
    """Inspect the data, write the page with its tables and pictures, print a summary, and return the counts.

    Args:
        arguments: parsed command line.
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
    audited = examine(faces, split, quick=arguments.quick, suspects=doubted)
    advice = advise(audited)
    facts = counted(audited, advice, machine.provenance(), command)
    folder = results_folder(arguments.out, faces.source.name)
    write_json(folder / "audit.json", plain(facts))
    exclude.write(folder / "audit.csv", audited, advice)
    write_duplicates(folder / "twins.csv", audited)
    if not arguments.quick:
        write_near_duplicates(folder / "near_twins.csv", audited)
        write_moved_copies(folder / "moved_copies.csv", audited)
        write_extremes(folder / "extremes.csv", audited)
    page = report.write(audited, facts, folder)
    log.info("%s\n\nresults: %s\npage:    %s", text.summary(facts), folder, page)
    if facts.advice[EXCLUDE].faces:
        log.info("next:    %s", training_without(folder / "audit.csv", settings, split, arguments.plugins))
    return facts


def training_without(file: Path, settings: DataSettings, split: Split, plugins: str) -> str:
    """Return the command that trains on the audited faces without the ones that the audit suggests to exclude.

    Args:
        file: ``audit.csv``.
        settings: settings of the audited data.
        split: of the audit; ``holdout`` replaces one that no training can use.
        plugins: modules to import first, separated by commas.
    """
    from fer.config.conf import spelled

    keys: dict[str, object] = {"data.path": settings.path, "data.split": split.rule if split.trains else "holdout"}
    if settings.on_bad != "error":
        keys["data.on_bad"] = settings.on_bad
    names = [f"data.class_names={in_braces(folder_names(settings.class_names))}"] if settings.class_names else []
    if plugins:
        keys["plugins"] = listed(plugins)
    keys["data.exclude"] = str(file)
    overrides = [*(f"{key}={spelled(value)}" for key, value in keys.items()), *names]
    return shlex.join(["python", "-m", "fer.train", *overrides])


def data_settings(arguments: argparse.Namespace) -> DataSettings:
    """Return the settings of the data on the command line.

    Raises:
        FerError: the data are not found, or a value is out of range; drawn faces never replace missing data here.
    """
    from fer.config.schema import check

    path, _ = locate(arguments.data, drawn_faces_allowed=False)
    given = {
        "path": path, "votes": arguments.votes, "image_size": arguments.image_size, "on_bad": arguments.on_bad,
        "class_names": arguments.class_names,
    }  # fmt: skip
    return DataSettings(**check(DataSettings, given, "data"))


def results_folder(out: Path | None, name: str) -> Path:
    """Make and return the folder for the results; in place of a used folder a new one with a number."""
    return unused_folder(out) if out else new_folder(Path("outputs/audit"), Path(name).name or "data")


# --- files ------------------------------------------------------------------------------------------


def write_duplicates(file: Path, found: Findings) -> None:
    """Write a row for each face of each group of exact duplicates."""
    rows = (
        (number, *identified(found, index), int(found.conflicting[number - 1]))
        for number, group in enumerate(found.groups, start=1)
        for index in group.tolist()
    )
    write_rows(file, ("group", "row", "split", "label", "conflict"), rows)


def write_near_duplicates(file: Path, found: Findings) -> None:
    """Write a row for each face of each group of near duplicates, compared with the first face of the group."""
    assert found.near is not None
    near = found.near
    rows = (
        (
            number,
            *identified(found, index),
            int(found.near_conflicting[number - 1]),
            f"{near.likeness[index]:.4f}",
            int(near.distance[index]),
            int(near.mirrored[index]),
        )
        for number, group in enumerate(near.groups, start=1)
        for index in group.tolist()
    )
    write_rows(file, ("group", "row", "split", "label", "conflict", "correlation", "distance", "mirrored"), rows)


def write_moved_copies(file: Path, found: Findings) -> None:
    """Write a row for each face of val or test with a moved copy in train; no file if they were not searched for."""
    moved = found.moved
    if moved is None:
        return
    changes = zip(moved.correlation, moved.turn, moved.across, moved.down, moved.zoom, strict=True)
    rows = (
        (*identified(found, int(first)), *identified(found, int(second)), *(f"{value:.4f}" for value in values))
        for first, second, values in zip(moved.first, moved.second, changes, strict=True)
    )
    heads = ("row", "split", "label", "copy_row", "copy_split", "copy_label")
    write_rows(file, (*heads, "correlation", "turn", "across", "down", "zoom"), rows)


def write_extremes(file: Path, found: Findings) -> None:
    """Write a row for each of the darkest, brightest and flattest faces."""
    rows = (
        (kind, rank, *identified(found, index), *(f"{values[index]:.2f}" for values in found.light or ()))
        for kind, indices in found.extremes.items()
        for rank, index in enumerate(indices.tolist(), start=1)
    )
    write_rows(file, ("kind", "rank", "row", "split", "label", "mean", "sd"), rows)


def identified(found: Findings, index: int) -> tuple[int, str, str]:
    """Return row, split and label of the face at an index."""
    return int(found.faces.rows[index]), str(found.splits[index]), str(found.labels[index])


def write_rows(file: Path, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, whole or not at all."""
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main(None))
