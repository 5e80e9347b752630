"""The leaderboard of finished runs: ``leaderboard.csv``, ``leaderboard.md`` and ``compare.html``.

All metrics are those of val. Test evaluations are shown of one chosen run only, on request: a table of many test
accuracies would invite choosing by them.
"""

import csv
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fer.config.errors import in_one_line
from fer.metrics.statistics import accuracy_interval, holm
from fer.runs import ranking
from fer.runs.load import Gathered, evaluations_on_test, gather, left_out
from fer.runs.ranking import COLUMNS, Group, OnTest, Ranking, Run, p_text, significant
from fer.system.files import written_whole
from fer.system.text import in_markdown, markdown_table, plural, text_table

WIDE = 120  # characters, the width of a terminal that a table should fit
MCNEMAR = "McNemar's exact test (compares these runs, not their configurations)"
ACCURACIES = ("seeds", "val accuracy", "95 % seeds", "95 % faces", "to the best, 95 %")  # heads


@dataclass(frozen=True)
class Published:
    """The files of a leaderboard, and its text for a terminal.

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
    """Rank the finished runs at or below ``folders`` and write the leaderboard to ``out``, replacing older files.

    Args:
        folders: runs, sweeps, or folders that contain them.
        out: folder; created if missing.

    Raises:
        FerError: a folder is missing or holds no finished run, or no run can be read.
        OSError: ``out`` is not writable.
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
    """Write the leaderboard of some runs, and return its files and text.

    Args:
        gathered: the runs, and the folders left out.
        out: folder; created if missing.
        by: key of ``fer.runs.ranking.COLUMNS`` to sort by.
        pairs: pairs of runs for McNemar's test.
        chosen: the one run whose test metrics are shown, too.

    Raises:
        FerError: the chosen run has no test evaluation.
        OSError: ``out`` is not writable.
    """
    from fer.reports.compare import page as compare_page  # matplotlib takes half a second to import

    rankings = ranking.rankings(gathered.runs, by)
    test_results = None if chosen is None else evaluations_on_test(chosen)
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "leaderboard.csv", rankings, out)
    with written_whole(out / "leaderboard.md") as stream:
        stream.write(markdown(rankings, gathered, pairs, by, test_results))
    page = compare_page.write(compare_page.Comparison(rankings, gathered.skipped, pairs, by, test_results), out)
    for_terminal = text(rankings, gathered, pairs, by, test_results)
    return Published(for_terminal, page, out / "leaderboard.csv", out / "leaderboard.md")


# --- as text --------------------------------------------------------------------------------------------------------


def text(
    rankings: Sequence[Ranking],
    gathered: Gathered,
    pairs: Sequence[tuple[Run, Run]],
    by: str = "accuracy",
    test_results: OnTest | None = None,
) -> str:
    """Return the rankings and notes as text for a terminal."""
    parts = [f"{heading(board, by)}\n{text_table(*fitting_table(board, by))}" for board in rankings]
    if len(rankings) > 1:
        parts.append(
            "\n".join(["not ranked together:", *(f"  {reason}" for reason in ranking.data_differences(rankings))])
        )
    if pairs:
        parts.append(f"{MCNEMAR}\n{text_table(*mcnemar_table(pairs))}")
    if test_results is not None:
        parts.append(f"{test_results.heading}\n{text_table(*test_results.table)}")
    marks = [textwrap.fill(line, WIDE, subsequent_indent="  ") for line in ranking.MARKS]
    return "\n\n".join([*parts, "\n".join([*marks, *notes(rankings, gathered)])])


def markdown(
    rankings: Sequence[Ranking],
    gathered: Gathered,
    pairs: Sequence[tuple[Run, Run]],
    by: str = "accuracy",
    test_results: OnTest | None = None,
) -> str:
    """Return the rankings and notes as Markdown, with all metrics."""
    parts = ["# Leaderboard"]
    for board in rankings:
        parts += [f"## {in_markdown(heading(board, by))}", markdown_table(*full_table(board))]
    if len(rankings) > 1:
        parts += [
            "## Not ranked together",
            "\n".join(f"- {in_markdown(reason)}" for reason in ranking.data_differences(rankings)),
        ]
    if pairs:
        parts += [f"## {MCNEMAR}", markdown_table(*mcnemar_table(pairs))]
    if test_results is not None:
        parts += [f"## {test_results.heading}", markdown_table(*test_results.table)]
    lines = [
        in_markdown(in_one_line(line)).replace("*", "\\*") for line in (*ranking.MARKS, *notes(rankings, gathered))
    ]
    bullets = [re.sub(r"^( *)", r"\1- ", line) for line in lines]
    return "\n\n".join([*parts, "\n".join(bullets)]) + "\n"


def heading(board: Ranking, by: str = "accuracy") -> str:
    """Return a ranking's title with its numbers of configurations and runs, and its order if not by accuracy."""
    count = sum(len(group.runs) for group in board.groups)
    pairs = len(board.groups) * (len(board.groups) - 1) // 2
    tested = f", {plural(pairs, 'pair')} tested" if pairs else ""
    order = "" if by == "accuracy" else f", sorted by {COLUMNS[by].head}"
    counts = f"{plural(len(board.groups), 'configuration')}, {plural(count, 'run')}"
    return f"{board.setting.title}: {counts}{tested}{order}"


def full_table(board: Ranking, *, labelled: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a ranking with all its metrics.

    Args:
        board: the ranking.
        labelled: name configurations in one column, rather than in a column for each differing setting.
    """
    more = [name for name in COLUMNS if name != "accuracy"]
    differing = (
        ["configuration"] if labelled else [ranking.short_name(column, board.columns) for column in board.columns]
    )
    rows = []
    for rank, group in enumerate(board.groups, start=1):
        cells = [board.label(group)] if labelled else [ranking.cell(group, column) for column in board.columns]
        rows.append([str(rank), *cells, *accuracies(board, group), *(group.written(name) for name in more)])
    return ["#", *differing, *ACCURACIES, *(COLUMNS[name].head for name in more)], rows


def accuracies(board: Ranking, group: Group) -> list[str]:
    """Return the cells of a configuration: seeds, accuracy, its two intervals and the difference to the best."""
    seeds = group.accuracy
    sd = "" if seeds.sd is None else f" ± {100 * seeds.sd:.2f}"
    over_seeds = "-" if seeds.interval is None else ranking.interval_text(seeds.interval)
    best = "best" if group is board.best else difference_to_best(board, group)
    return [str(seeds.number), f"{100 * seeds.mean:.2f}{sd}", over_seeds, ranking.interval_text(group.over_faces), best]


def difference_to_best(board: Ranking, group: Group) -> str:
    """Return the difference to the best with its interval and marks (° faces alone, * significant)."""
    gain, p = board.difference(group, board.best)
    marks = ("" if gain.seeds else " °") + (" *" if significant(p) else "")
    return f"{100 * gain.value:+.2f} {ranking.interval_text(gain.interval, '+')}{marks}"


def fitting_table(board: Ranking, by: str = "accuracy") -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a ranking, without the least important columns if it is too wide for a terminal."""
    for labelled in (False, True):
        heads, rows = full_table(board, labelled=labelled)
        count = len(heads) - len(COLUMNS) + 1  # without the metrics of COLUMNS
        more = [heads.index(name) for name in ("parameters", "time") if name != COLUMNS[by].head]
        shown = [*range(count), *([] if by == "accuracy" else [heads.index(COLUMNS[by].head)]), *more]
        for less in (None, "parameters", "time", "95 % faces", "95 % seeds"):
            shown = [column for column in shown if heads[column] != less or less == COLUMNS[by].head]
            table = [heads[column] for column in shown], [[row[column] for column in shown] for row in rows]
            if len(text_table(*table).splitlines()[1]) <= WIDE:
                return table
    return table


def mcnemar_table(pairs: Sequence[tuple[Run, Run]]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of McNemar's tests; p-values of several are adjusted for their number (Holm)."""
    results = [ranking.tested(*pair) for pair in pairs]
    rows = [
        [str(first.folder), str(second.folder), f"{test.first:,}", f"{test.second:,}", p_text(test.p)]
        for (first, second), test in zip(pairs, results, strict=True)
    ]
    heads = ["A", "B", "only A right", "only B right", "p"]
    if len(pairs) == 1:
        return heads, rows
    adjusted = holm([test.p for test in results])
    return [*heads, f"p, adjusted for {len(pairs)} tests"], [
        [*row, p_text(p)] for row, p in zip(rows, adjusted, strict=True)
    ]


def notes(rankings: Sequence[Ranking], gathered: Gathered) -> list[str]:
    """Return the notes below the rankings: several machines, repeated runs, and folders left out."""
    lines = []
    machines = list(dict.fromkeys(machine for board in rankings for machine in board.machines()))
    if len(machines) > 1:
        lines.append(f"Times of different machines are not comparable: {'; '.join(machines)}.")
    repeats = [run for board in rankings for group in board.groups for run in group.repeats]
    if repeats:
        folders = [f"  {run.folder}" for run in repeats]
        lines += [f"Repeated later with the same seed, not counted: {len(repeats):,}", *folders]
    return [*lines, *left_out(gathered)]


# --- as a table -----------------------------------------------------------------------------------------------------


def write_table(file: Path, rankings: Sequence[Ranking], out: Path) -> None:
    """Write a row for each run in full precision; the column "counts" is 0 for repeated runs."""
    groups = [group for board in rankings for group in board.groups]
    differing = ranking.columns(groups)
    heads = ["ranking", "place", "counts", "seed", *differing, "accuracy", "accuracy_low", "accuracy_high"]
    metrics = [name for name in COLUMNS if name != "accuracy"]
    facts = list(rankings[0].setting.facts())
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*heads, *metrics, *facts, "machine", "commit", "finished", "run"])
        for number, board in enumerate(rankings, start=1):
            for rank, group in enumerate(board.groups, start=1):
                cells = [ranking.cell(group, column) for column in differing]
                for run in (*group.runs, *group.repeats):
                    start = [number, rank, int(run in group.runs), run.seed, *cells]
                    writer.writerow([*start, *_row(run, metrics), *board.setting.facts().values(), *_origin(run, out)])


def _row(run: Run, metrics: Sequence[str]) -> list[object]:
    interval = accuracy_interval(run.correct[None])
    return [run.metrics.accuracy, *interval, *map(run.metrics.number, metrics)]


def _origin(run: Run, out: Path) -> list[object]:
    where = os.path.relpath(run.folder.resolve(), out.resolve())
    return [run.metrics.machine, run.metrics.commit, run.metrics.finished, where]
