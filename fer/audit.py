"""``python -m fer.audit [DATA] [--quick]``: look at a data set before trusting it.

Counts classes by split, finds exact twins and one-colour images, shows a draw of faces of each class and, without
``--quick``, the darkest, brightest and flattest. Writes ``audit.html``, ``audit.json``, ``twins.csv``, ``extremes.csv``
and pictures to ``outputs/audit/<name>/``. Changes nothing in the data.
"""

import argparse
import csv
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fer.data.inspection import Found, counted, examine, split_of
from fer.data.locate import locate
from fer.errors import Grammar, command
from fer.reports import audit as report
from fer.results import new_folder, text_table, write_json, written_whole
from fer.settings import DataSettings

log = logging.getLogger(__name__)

SCHEMA = 1


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.audit",
        description="Look at a data set: counts, a draw of faces, exact twins, odd faces. It is not changed.",
    )
    grammar.add_argument(
        "data", nargs="?", help="table, archive, folder or 'synthetic'; default: $FER_DATA, then data/"
    )
    grammar.add_argument("--quick", action="store_true", help="leave out brightness and contrast")
    grammar.add_argument(
        "--rule",
        choices=["official", "as_given", "holdout"],
        help="how the data are split; default: official, or where that does not apply what the source tells",
    )
    grammar.add_argument("--votes", help="FER+'s fer2013new.csv, joined by row")
    grammar.add_argument("--on-bad", choices=["error", "skip"], default="error", help="default: %(default)s")
    grammar.add_argument("--image-size", type=int, default=48, help="side of the faces in pixels; default: %(default)s")
    grammar.add_argument("--out", type=Path, help="folder for the results; default: outputs/audit/<name>")
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")
    return grammar


@command("fer.audit")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, line = parser().begin(argv)
    if arguments.plugins:
        from fer.configuration import import_plugins  # brings Hydra, which nothing else here needs

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
    from fer import machine
    from fer.data.table import read_faces

    settings = data_settings(arguments)
    faces = read_faces(settings)
    found = examine(faces, split_of(faces, arguments.rule, settings), quick=arguments.quick)
    facts = {"schema": SCHEMA, **counted(found), **machine.provenance(), "command": command}
    folder = results_folder(arguments.out, faces.source.name)
    write_json(folder / "audit.json", facts)
    write_twins(folder / "twins.csv", found)
    if not arguments.quick:
        write_extremes(folder / "extremes.csv", found)
    page = report.write(found, facts, folder)
    log.info("%s\n\nresults: %s\npage:    %s", summary(facts), folder, page)
    return facts


def data_settings(arguments: argparse.Namespace) -> DataSettings:
    """Return which faces the command line names.

    Raises:
        FerError: they are not found, or a value is out of range; drawn faces never stand in.
    """
    from fer.arguments import check

    path, _ = locate(arguments.data, drawn_faces_allowed=False)
    asked = {"path": path, "votes": arguments.votes, "image_size": arguments.image_size, "on_bad": arguments.on_bad}
    return DataSettings(**check(DataSettings, asked, "data"))


def results_folder(out: Path | None, name: str) -> Path:
    """Make and return the folder for the results; one that holds something already is left alone and numbered on."""
    if out is None:
        return new_folder(Path("outputs/audit"), Path(name).name or "data")
    wanted = out.expanduser().absolute()
    return wanted if wanted.is_dir() and not any(wanted.iterdir()) else new_folder(wanted.parent, wanted.name)


# --- files and the summary ------------------------------------------------------------------------------------------


def write_twins(file: Path, found: Found) -> None:
    """Write a row for each face of each group of exact twins."""
    rows = (
        (number, *whose(found, place), int(found.conflicting[number - 1]))
        for number, group in enumerate(found.groups, start=1)
        for place in group.tolist()
    )
    write_rows(file, ("group", "row", "split", "label", "conflict"), rows)


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


def summary(facts: dict[str, Any]) -> str:
    """Return what was found, in the terminal's few lines."""
    dataset, split = facts["dataset"], facts["split"]
    size = dataset["image_size"]
    lines = [
        f"data:  {dataset['path']} ({dataset['layout']}), {facts['n']:,} faces of {size}x{size}",
        f"split: {split['meaning']}",
    ]
    if split["why_not_official"]:
        lines.append(f"       the official split does not apply: {split['why_not_official']}")
    lines += [f"note:  {note}" for note in dataset["notes"]]
    if dataset["skipped"]:
        lines.append(f"skipped: {len(dataset['skipped']):,} bad rows or files, listed in audit.json")
    return "\n".join([*lines, "", count_table(facts), "", *findings(facts)])


def count_table(facts: dict[str, Any]) -> str:
    """Return the table of classes by split, each with its share of the split."""
    columns = {**facts["counts"], **({"total": facts["total"]} if len(facts["counts"]) > 1 else {})}
    sums = {name: sum(held.values()) for name, held in columns.items()}
    rows = [
        (label, *(f"{held[label]:>7,} {100 * held[label] / sums[name]:5.1f} %" for name, held in columns.items()))
        for label in facts["total"]
    ]
    ratios = [facts["imbalance"][name] for name in columns]
    rows.append(("together", *(f"{count:>7,}" for count in sums.values())))
    rows.append(("largest / smallest", *("      -" if ratio is None else f"{ratio:>7.1f}" for ratio in ratios)))
    return text_table(("class", *(f"{name:>7}" for name in columns)), rows)


def findings(facts: dict[str, Any]) -> list[str]:
    """Return a line for each thing that a user of the data should know."""
    twins, plain = facts["twins"], facts["one_colour"]["faces"]
    lines = ["exact twins: none"]
    if twins["groups"]:
        lines = [
            f"exact twins: {twins['copies']:,} copies beyond the first, in {twins['groups']:,} groups of "
            f"{twins['faces']:,} faces; in {twins['conflicting_groups']:,} groups the labels conflict"
        ]
    lines += [
        f"             {counted['train']:,} of {sum(facts['counts'][name].values()):,} {name} faces have one in train"
        for name, counted in twins["splits"].items()
        if name != "train" and counted.get("train")
    ]
    if plain:
        lines.append(f"one colour:  {plain:,} faces, counted among the twins where several are alike")
    if votes := facts["votes"]:
        lines.append(
            f"FER+ votes:  the most frequent answer agrees with {100 * votes['agreeing'] / facts['n']:.1f} % of the "
            f"labels and is none of the seven for {votes['outside_the_seven']:,} faces"
        )
    for name, values in (facts["light"] or {}).items():
        spans = ["{p5:.0f} to {p95:.0f}, median {median:.0f}".format(**values[key]) for key in ("mean", "sd")]
        lines.append(f"light:       {name}: mean grey {spans[0]}; standard deviation {spans[1]} (90 % of the faces)")
    return lines


if __name__ == "__main__":
    sys.exit(main(None))
