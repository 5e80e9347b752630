"""The leaderboard: finished runs read, ranked, published as ``leaderboard.csv``, ``leaderboard.md``, ``compare.html``.

Figures are those of val; evaluations, which lie within runs, are opened for one chosen run alone, when asked.
"""

import csv
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer.metrics.statistics import holm, of_faces
from fer.runs import ranking
from fer.runs.load import Gathered, gather, left_out, looks_at_test
from fer.runs.ranking import COLUMNS, Group, Looks, Ranking, Run, chance, parted
from fer.system.files import written_whole
from fer.system.text import markdown_table, text_table

WIDE = 120  # characters of a terminal that a table should fit
ACCURACIES = ("seeds", "val accuracy", "95 % seeds", "95 % faces", "to the best, 95 %")  # heads


@dataclass(frozen=True)
class Published:
    """What was written, and the same for a terminal.

    Args:
        text: the rankings as tables.
        page: ``compare.html``.
        table: ``leaderboard.csv``.
        markdown: ``leaderboard.md``.
    """

    text: str
    page: Path
    table: Path
    markdown: Path


def publish(folders: Sequence[Path], out: Path) -> Published:
    """Rank the finished runs at or below ``folders`` and write the leaderboard to ``out``, whatever was there before.

    Args:
        folders: runs, sweeps, or what holds them.
        out: made if it is not there.

    Raises:
        FerError: a folder is not there or holds no finished run, or none of them can be read.
        OSError: ``out`` may not be written.
    """
    return write(gather(folders), out)


def write(
    gathered: Gathered,
    out: Path,
    *,
    by: str = "accuracy",
    pairs: Sequence[tuple[Run, Run]] = (),
    chosen: Path | None = None,
) -> Published:
    """Write the leaderboard of runs that were read, and return it for a terminal too.

    Args:
        gathered: the runs, and what was passed over.
        out: folder; made if it is not there.
        by: what sorts, of ``fer.runs.ranking.COLUMNS``.
        pairs: runs to test against each other.
        chosen: the one run whose figures on test are shown too.

    Raises:
        FerError: the test split of the chosen run was not opened.
        OSError: ``out`` may not be written.
    """
    from fer.reports.compare import page as compare_page  # matplotlib takes half a second to import

    made = ranking.rankings(gathered.runs, by)
    looks = None if chosen is None else looks_at_test(chosen)
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "leaderboard.csv", made, out)
    with written_whole(out / "leaderboard.md") as stream:
        stream.write(markdown(made, gathered, pairs, by, looks))
    page = compare_page.write(compare_page.Comparison(made, gathered.skipped, pairs, by, looks), out)
    told = text(made, gathered, pairs, by, looks)
    return Published(told, page, out / "leaderboard.csv", out / "leaderboard.md")


# --- reading --------------------------------------------------------------------------------------------------------


# --- as text --------------------------------------------------------------------------------------------------------


def text(
    made: Sequence[Ranking],
    gathered: Gathered,
    pairs: Sequence[tuple[Run, Run]],
    by: str = "accuracy",
    looks: Looks | None = None,
) -> str:
    """Return the rankings for a terminal, and what was left out."""
    parts = [f"{heading(one, by)}\n{text_table(*fitting(one, by))}" for one in made]
    if len(made) > 1:
        parts.append("\n".join(["not ranked together:", *(f"  {reason}" for reason in ranking.apart(made))]))
    if pairs:
        parts.append(
            f"McNemar's exact test, of these runs and not of their configurations\n{text_table(*tests(pairs))}"
        )
    if looks is not None:
        parts.append(f"{looks.heading}\n{text_table(*looks.table)}")
    marks = [textwrap.fill(line, WIDE, subsequent_indent="  ") for line in ranking.MARKS]
    return "\n\n".join([*parts, "\n".join([*marks, *notes(made, gathered)])])


def markdown(
    made: Sequence[Ranking],
    gathered: Gathered,
    pairs: Sequence[tuple[Run, Run]],
    by: str = "accuracy",
    looks: Looks | None = None,
) -> str:
    """Return the same as Markdown, with all the figures."""
    parts = ["# Leaderboard"]
    for one in made:
        parts += [f"## {heading(one, by)}", markdown_table(*full(one))]
    if len(made) > 1:
        parts += ["## Not ranked together", "\n".join(f"- {reason}" for reason in ranking.apart(made))]
    if pairs:
        parts += [
            "## McNemar's exact test, of these runs and not of their configurations",
            markdown_table(*tests(pairs)),
        ]
    if looks is not None:
        parts += [f"## {looks.heading}", markdown_table(*looks.table)]
    told = [line.replace("*", "\\*") for line in (*ranking.MARKS, *notes(made, gathered))]
    indented = [re.sub(r"^( *)", r"\1- ", line) for line in told]
    return "\n\n".join([*parts, "\n".join(indented)]) + "\n"


def heading(one: Ranking, by: str = "accuracy") -> str:
    """Return a ranking's title, how many it ranks, and by what, if not by accuracy."""
    count = sum(len(group.runs) for group in one.groups)
    pairs = len(one.groups) * (len(one.groups) - 1) // 2
    tested = f", {pairs:,} pair{'' if pairs == 1 else 's'} tested" if pairs else ""
    order = "" if by == "accuracy" else f", sorted by {COLUMNS[by].head}"
    runs_told = f"{count:,} run{'' if count == 1 else 's'}"
    return f"{one.setting.title}: {configurations(len(one.groups))}, {runs_told}{tested}{order}"


def configurations(count: int) -> str:
    """Return how many, in words."""
    return f"{count:,} configuration{'' if count == 1 else 's'}"


def full(one: Ranking, *, labelled: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a ranking with all its figures.

    Args:
        one: the ranking.
        labelled: tell configurations by their labels, rather than by a column for each thing that differs.
    """
    more = [name for name in COLUMNS if name != "accuracy"]
    told = ["configuration"] if labelled else [ranking.short(column, one.columns) for column in one.columns]
    rows = []
    for place, group in enumerate(one.groups, start=1):
        cells = [one.label(group)] if labelled else [ranking.cell(group, column) for column in one.columns]
        rows.append([str(place), *cells, *accuracies(one, group), *(group.written(name) for name in more)])
    return ["#", *told, *ACCURACIES, *(COLUMNS[name].head for name in more)], rows


def accuracies(one: Ranking, group: Group) -> list[str]:
    """Return seeds, accuracy, its two intervals, and the difference to the best."""
    seeds = group.accuracy
    sd = "" if seeds.sd is None else f" ± {100 * seeds.sd:.2f}"
    over_seeds = "-" if seeds.interval is None else ranking.span(seeds.interval)
    best = "best" if group is one.ahead else behind(one, group)
    return [str(seeds.number), f"{100 * seeds.mean:.2f}{sd}", over_seeds, ranking.span(group.over_faces), best]


def behind(one: Ranking, group: Group) -> str:
    """Return the difference to the best with its interval and marks."""
    found, p = one.difference(group, one.ahead)
    marks = ("" if found.seeds else " °") + (" *" if parted(p) else "")
    return f"{100 * found.value:+.2f} {ranking.span(found.interval, '+')}{marks}"


def fitting(one: Ranking, by: str = "accuracy") -> tuple[list[str], list[list[str]]]:
    """Return as much of a ranking as fits a terminal; what goes first matters least to who is ahead."""
    for labelled in (False, True):
        heads, rows = full(one, labelled=labelled)
        count = len(heads) - len(COLUMNS) + 1  # without the figures that COLUMNS adds
        more = [heads.index(name) for name in ("parameters", "time") if name != COLUMNS[by].head]
        shown = [*range(count), *([] if by == "accuracy" else [heads.index(COLUMNS[by].head)]), *more]
        for less in (None, "parameters", "time", "95 % faces", "95 % seeds"):
            shown = [place for place in shown if heads[place] != less or less == COLUMNS[by].head]
            table = [heads[place] for place in shown], [[row[place] for place in shown] for row in rows]
            if len(text_table(*table).splitlines()[1]) <= WIDE:
                return table
    return table


def tests(pairs: Sequence[tuple[Run, Run]]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of McNemar's tests; p-values of several are adjusted for their number (Holm)."""
    found = [ranking.tested(*pair) for pair in pairs]
    rows = [
        [str(first.folder), str(second.folder), f"{one.first:,}", f"{one.second:,}", chance(one.p)]
        for (first, second), one in zip(pairs, found, strict=True)
    ]
    heads = ["A", "B", "only A right", "only B right", "p"]
    if len(pairs) == 1:
        return heads, rows
    adjusted = holm([one.p for one in found])
    return [*heads, f"p, adjusted for {len(pairs)} tests"], [
        [*row, chance(p)] for row, p in zip(rows, adjusted, strict=True)
    ]


def notes(made: Sequence[Ranking], gathered: Gathered) -> list[str]:
    """Return what a reader of the rankings must know besides: of machines, of runs that do not count, and why."""
    told = []
    machines = list(dict.fromkeys(machine for one in made for machine in one.machines()))
    if len(machines) > 1:
        told.append(f"Times of different machines do not compare: {'; '.join(machines)}.")
    repeats = [run for one in made for group in one.groups for run in group.repeats]
    if repeats:
        folders = [f"  {run.folder}" for run in repeats]
        told += [f"Run again later with the same seed, not counted: {len(repeats):,}", *folders]
    return [*told, *left_out(gathered)]


# --- as a table -----------------------------------------------------------------------------------------------------


def write_table(file: Path, made: Sequence[Ranking], out: Path) -> None:
    """Write a row a run, in full precision; those that do not count too, marked so."""
    groups = [group for one in made for group in one.groups]
    differing = ranking.columns(groups)
    heads = ["ranking", "place", "counts", "seed", *differing, "accuracy", "accuracy_low", "accuracy_high"]
    figures = [name for name in COLUMNS if name != "accuracy"]
    facts = list(made[0].setting.facts())
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*heads, *figures, *facts, "machine", "commit", "finished", "run"])
        for number, one in enumerate(made, start=1):
            for place, group in enumerate(one.groups, start=1):
                told = [ranking.cell(group, column) for column in differing]
                for run in (*group.runs, *group.repeats):
                    start = [number, place, int(run in group.runs), run.seed, *told]
                    writer.writerow([*start, *_row(run, figures), *one.setting.facts().values(), *_origin(run, out)])


def _row(run: Run, figures: Sequence[str]) -> list[Any]:
    interval = of_faces(run.correct[None])
    return [run.metrics["accuracy"], *interval, *(run.metrics.get(name) for name in figures)]


def _origin(run: Run, out: Path) -> list[Any]:
    where = os.path.relpath(run.folder.resolve(), out.resolve())
    return [ranking.machine(run.metrics), run.metrics.get("commit"), run.metrics.get("finished"), where]
