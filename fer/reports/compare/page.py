"""The page that compares runs: ``compare.html`` and ``figures/``.

``write(comparison, folder)`` writes both.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from fer.metrics.statistics import Interval, wilson
from fer.metrics.table import in_per_cent
from fer.reports import html, plotting
from fer.reports.compare import figures as compare_figures
from fer.reports.compare import mcnemar
from fer.reports.compare.figures import Line, Point, role
from fer.reports.html import Section, joined, paragraph, tag
from fer.runs import ranking
from fer.runs.ranking import COLUMNS, Group, OnTest, Ranking, Run, interval_text, significant
from fer.system.text import clock, plural

MOST_IN_MATRIX = 20  # configurations; larger tables are unreadable
TINT = 15.0  # points between a recall and the mean of its class at which the colour is strongest
DEEPEST = 45  # per cent of a colour in a cell: dark text on white and light text on black stay readable
COSTS = {  # key of metrics.json -> label of its axis
    "parameters": "parameters",
    "train_seconds": "training time",
    "images_per_second": "images a second in training",
    "peak_memory_mb": "largest memory, MB",
}
BARS = (  # legend of the bars
    "In a bar, the line is the interval for other faces and the band that for other seeds; a thin tick is a seed, the "
    "thick one their mean. An arrow at the edge: the band goes on."
)
UNITS = (("seconds", 1, 120), ("minutes", 60, 7200), ("hours", 3600, float("inf")))  # name, seconds, largest value in s


@dataclass(frozen=True)
class Comparison:
    """Rankings and tests to show on one page.

    Args:
        rankings: the largest first.
        skipped: folder -> reason why it is left out.
        pairs: pairs of runs for McNemar's test.
        by: key of ``COLUMNS`` that sorts the rankings.
        test_results: test evaluations of the one chosen run; None where none was requested.
    """

    rankings: Sequence[Ranking]
    skipped: Mapping[Path, str]
    pairs: Sequence[tuple[Run, Run]] = ()
    by: str = "accuracy"
    test_results: OnTest | None = None


def write(comparison: Comparison, folder: Path) -> Path:
    """Write ``figures/`` and ``compare.html`` to ``folder``, and return the page.

    Raises:
        OSError: the folder may not be written.
    """
    file = folder / "compare.html"
    count = sum(len(group.runs) for board in comparison.rankings for group in board.groups)
    title = f"{count:,} run{'' if count == 1 else 's'} side by side"
    script = Path(__file__).with_name("compare.js").read_text(encoding="utf-8")
    foot = "All metrics are of val; the epoch of each run was chosen on val, too."
    html.write(file, title, lead(comparison), sections(comparison, folder), foot, script)
    return file


def key(number: int, rank: int) -> str:
    """Return the key of a configuration on the page, from the index of its ranking and its rank there, both from 0."""
    return f"r{number + 1}g{rank + 1}"


# --- the top --------------------------------------------------------------------------------------------------------


def lead(comparison: Comparison) -> Markup:
    """Return the part below the title: the rankings, why there are several, and the folders left out."""
    rankings = comparison.rankings
    parts = [
        f"{board.setting.title}: {plural(len(board.groups), 'configuration')}, "
        f"{plural(sum(len(group.runs) for group in board.groups), 'run')}"
        for board in rankings
    ]
    notes = []
    if len(rankings) > 1:
        reasons = "; ".join(ranking.data_differences(rankings))
        notes.append(f"{len(rankings)} rankings that are not comparable: {reasons}.")
    if any(board.setting.stand_in for board in rankings):
        notes.append("Some runs used drawn faces, because their data set was not found.")
    if comparison.skipped:
        link = tag("a", "the list", href="#left-out")
        notes.append(joined(f"{plural(len(comparison.skipped), 'run folder')} left out: see ", link, "."))
    repeats = sum(len(group.repeats) for board in rankings for group in board.groups)
    if repeats:
        notes.append(f"{plural(repeats, 'run')} repeated later with the same seed: only the later run counts.")
    return joined(*(paragraph(part, class_="soft") for part in parts), *(html.note(text) for text in notes))


def sections(comparison: Comparison, folder: Path) -> list[Section]:
    """Return the sections of the page: those of the largest ranking, one for each other ranking, pairs and runs."""
    first, *others = [parts(board, number, folder, comparison.by) for number, board in enumerate(comparison.rankings)]
    whole = [
        Section(f"ranking-{number}", board.setting.title, joined(*(subsection(part) for part in its_parts)))
        for number, (board, its_parts) in enumerate(zip(comparison.rankings[1:], others, strict=True), start=2)
    ]
    rest = [
        Section("pairs", "Any two runs", mcnemar.tested(comparison.rankings, comparison.pairs)),
        Section("runs", "All runs", runs(comparison, folder)),
    ]
    if comparison.test_results is not None:
        heads, rows = comparison.test_results.table
        intro = paragraph(
            "This run was chosen on val. Each test evaluation is recorded and counted. No other run's test metrics "
            "are shown.",
            class_="soft",
        )
        table = html.table(heads, rows, tuple(range(3, len(heads))))
        rest.insert(0, Section("test", comparison.test_results.heading, joined(intro, table)))
    if comparison.skipped:
        reasons = [(str(path), reason) for path, reason in comparison.skipped.items()]
        rest.append(Section("left-out", "Left out", html.table(("folder", "reason"), reasons, stack=True)))
    return [*first, *whole, *rest]


def subsection(part: Section) -> Markup:
    """Return a section as a subsection of another."""
    return joined(tag("h3", part.title), part.body)


def parts(board: Ranking, number: int, folder: Path, by: str) -> list[Section]:
    """Return the sections of one ranking."""
    drawn = draw(board, number, folder / "figures")
    made = [
        Section("leaderboard", f"Leaderboard: {board.setting.title}", leaderboard(board, number, by)),
        Section("curves", "Curves", curves(board, number, drawn)),
        Section("recall", "Recall of each emotion", recalls(board, number)),
    ]
    if len(board.groups) > 1:
        made.insert(2, Section("cost", "Accuracy against cost", costs(board, number, drawn)))
        made.append(Section("differences", "Differences", differences(board, number)))
    return made


# --- figures --------------------------------------------------------------------------------------------------------


def draw(board: Ranking, number: int, folder: Path) -> dict[str, Markup]:
    """Write a ranking's figures as PNG and SVG, and return name -> drawing for the page."""
    after = f"_{number + 1}" if number else ""
    keyed = [(key(number, rank), rank, group) for rank, group in enumerate(board.groups)]
    made, labels = {}, {}
    with plotting.style():
        for metric in ("accuracy", "loss"):
            lines = [Line(name, rank, curve(group, f"{metric}/val")) for name, rank, group in keyed]
            made[f"{metric}_by_epoch"] = compare_figures.overlaid(
                f"{metric}{number}", lines, shares=metric == "accuracy"
            )
            labels[f"{metric}_by_epoch"] = f"val {metric} by epoch"
        for cost in COSTS if len(keyed) > 1 else ():
            label, unit = axis(board, cost)
            known = [(name, rank, group) for name, rank, group in keyed if group.metric(cost)]
            points = [Point(name, rank, *costs_and_accuracies(group, cost, unit)) for name, rank, group in known]
            if points:
                made[f"accuracy_by_{cost}"] = compare_figures.accuracy_by_cost(f"{cost}{number}", points, label)
                labels[f"accuracy_by_{cost}"] = f"val accuracy against {label}"
    named = {name: board.label(group) for name, _, group in keyed}
    return {
        name: html.drawing(titled(plotting.save(figure, folder, f"{name}{after}"), named), labels[name])
        for name, figure in made.items()
    }


def curve(group: Group, name: str) -> list[list[float]]:
    """Return a metric by epoch, for each seed."""
    return [[row[name] for row in run.history] for run in group.runs]


def axis(board: Ranking, cost: str) -> tuple[str, float]:
    """Return the label of a cost's axis and the factor of its unit, such as 60 for minutes."""
    if cost != "train_seconds":
        return COSTS[cost], 1
    longest = max(run.metrics.number(cost) or 0 for group in board.groups for run in group.runs)
    name, unit = next((name, unit) for name, unit, most in UNITS if longest <= most)
    return f"{COSTS[cost]}, {name}", unit


def costs_and_accuracies(group: Group, cost: str, unit: float) -> tuple[list[float], list[float]]:
    """Return the cost and the accuracy of each seed."""
    return [(run.metrics.number(cost) or 0) / unit for run in group.runs], [run.metrics.accuracy for run in group.runs]


def titled(svg: str, labels: Mapping[str, str]) -> str:
    """Return a drawing whose lines and dots show their configuration as a tooltip."""

    def with_title(match: re.Match[str]) -> str:
        return f"{match[0]}<title>{html.text(labels[match[1]])}</title>"

    return re.sub(r'<g id="[^"]*-(r\d+g\d+)">', with_title, svg)


# --- the leaderboard ------------------------------------------------------------------------------------------------


def swatch(number: int, rank: int) -> Markup:
    """Return a configuration's rank with its colour; the page's script finds the row by it."""
    square = tag("i", class_="swatch", style=f"background:var(--{role(rank)})")
    return tag("span", square, str(rank + 1), **{"class_": "rank", "data-group": key(number, rank)})


def leaderboard(board: Ranking, number: int, by: str) -> Markup:
    """Return the leaderboard: accuracies with differences to the best, then the other metrics."""
    low, high = axis_limits(board)
    heads = ["seeds", "val accuracy", scale(low, high), "95 % seeds", "95 % faces", "to the best, 95 %"]
    rows = [
        [swatch(number, rank), board.label(group), *accuracy_cells(board, group, low, high)]
        for rank, group in enumerate(board.groups)
    ]
    table = html.named(html.table(["", "configuration", *heads], rows, [2, 3, 5, 6, 7]))
    order = "" if by == "accuracy" else f" Sorted by {COLUMNS[by].head}."
    legend = paragraph(" ".join([*ranking.MARKS, BARS]), order, class_="soft legend")
    parts = [table, legend]
    if not board.brief:
        intro = paragraph(
            "In the table above, a name states the model and the settings that are unusual among its runs.",
            class_="soft",
        )
        parts += [tag("h3", "What differs"), intro, what_differs(board, number)]
    return joined(*parts, tag("h3", "Other metrics, means over the seeds"), others(board, number), machines(board))


def what_differs(board: Ranking, number: int) -> Markup:
    """Return the table of the choices and keys in which the configurations differ."""
    rows = [
        [swatch(number, rank), *(ranking.cell(group, column) for column in board.columns)]
        for rank, group in enumerate(board.groups)
    ]
    return html.table(["", *board.columns], rows)


def accuracy_cells(board: Ranking, group: Group, low: float, high: float) -> list[object]:
    """Return the cells of a configuration: seeds, accuracy, bar, intervals and the difference to the best."""
    seeds = group.accuracy
    spread = "" if seeds.sd is None else tag("span", f" ± {100 * seeds.sd:.2f}", class_="soft")
    return [
        seeds.number,
        joined(tag("b", in_per_cent(seeds.mean)), spread),
        bar(group, low, high),
        "–" if seeds.interval is None else interval_text(seeds.interval),
        interval_text(group.over_faces),
        "best" if group is board.best else difference_to_best(board, group),
    ]


def difference_to_best(board: Ranking, group: Group) -> Markup:
    """Return the difference to the best with its interval and marks (° faces alone, * significant)."""
    gain, p = board.difference(group, board.best)
    marks = ("" if gain.seeds else " °") + (" *" if significant(p) else "")
    return joined(f"{100 * gain.value:+.2f} ", tag("span", interval_text(gain.interval, "+"), class_="soft"), marks)


def axis_limits(board: Ranking) -> tuple[float, float]:
    """Return the ends of the bars' axis, which holds the faces' intervals and every seed."""
    ends = [end for group in board.groups for end in group.over_faces]
    accuracies = [run.metrics.accuracy for group in board.groups for run in group.runs]
    return min(*ends, *accuracies), max(*ends, *accuracies)


def scale(low: float, high: float) -> Markup:
    """Return the head of the bars' column: the accuracies at both ends of the axis."""
    return tag("span", tag("span", f"{100 * low:.1f}"), tag("span", f"{100 * high:.1f}"), class_="scale")


def bar(group: Group, low: float, high: float) -> Markup:
    """Return a bar with the mean accuracy, each seed and both intervals; an arrow where that of seeds goes on."""

    def at(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - low) / (high - low or 1)))

    def piece(interval: Interval, name: str) -> Markup:
        left, right = at(interval.low), at(interval.high)
        return tag("i", class_=name, style=f"left:{left:.1f}%;width:{right - left:.1f}%")

    seeds = group.accuracy
    pieces = [piece(group.over_faces, "of-faces")]
    if seeds.interval is not None:
        pieces.append(piece(seeds.interval, "of-seeds"))
        beyond = {"low": seeds.interval.low < low, "high": seeds.interval.high > high}
        pieces += [tag("s", class_=end) for end, is_cut in beyond.items() if is_cut]
        pieces += [tag("u", style=f"left:{at(run.metrics.accuracy):.1f}%") for run in group.runs]
    return tag("div", *pieces, tag("b", style=f"left:{at(seeds.mean):.1f}%"), class_="interval-bar")


def others(board: Ranking, number: int) -> Markup:
    """Return the table of the other metrics."""
    names = [name for name in COLUMNS if name != "accuracy" and any(group.metric(name) for group in board.groups)]
    rows = [
        [swatch(number, rank), board.label(group), *(group.written(name) for name in names)]
        for rank, group in enumerate(board.groups)
    ]
    heads = ["", "configuration", *(COLUMNS[name].head for name in names)]
    return html.named(html.table(heads, rows, range(2, 2 + len(names))))


def machines(board: Ranking) -> Markup:
    """Return a warning if the times come from several machines."""
    machine_names = board.machines()
    if len(machine_names) < 2:
        return Markup("")
    return html.note(
        f"Times of different machines are not comparable; these runs come from {'; '.join(machine_names)}."
    )


# --- curves, costs, recalls -----------------------------------------------------------------------------------------


def chips(board: Ranking, number: int) -> Markup:
    """Return the legend of the drawings: a button for each configuration."""
    made = [
        tag(
            "button",
            tag("i", class_="swatch", style=f"background:var(--{role(rank)})"),
            f"{rank + 1} {board.label(group)}",
            **{"type": "button", "class_": "chip", "data-group": key(number, rank)},
        )
        for rank, group in enumerate(board.groups)
    ]
    return tag("div", *made, class_="chips")


def curves(board: Ranking, number: int, drawn: Mapping[str, Markup]) -> Markup:
    """Return val accuracy and val loss by epoch, all configurations in one drawing each."""
    intro = paragraph(
        f"First val accuracy, then val loss. Thin lines are seeds; thick lines are their mean over the epochs that all "
        "seeds have. "
        f"The first {min(len(compare_figures.COLOURS), len(board.groups))} are coloured; point at a name to highlight "
        "it. Losses are comparable only between runs that minimise the same loss.",
        class_="soft",
    )
    return joined(intro, chips(board, number), html.columns(drawn["accuracy_by_epoch"], drawn["loss_by_epoch"]))


def costs(board: Ranking, number: int, drawn: Mapping[str, Markup]) -> Markup:
    """Return accuracy against parameters, time and speed."""
    intro = paragraph(
        "A small dot is a seed, a large dot a configuration's mean. Numbers are ranks, where there is room for them.",
        class_="soft",
    )
    shown = [drawn[f"accuracy_by_{cost}"] for cost in COSTS if f"accuracy_by_{cost}" in drawn]
    return joined(intro, chips(board, number), html.columns(*shown), machines(board))


def recalls(board: Ranking, number: int) -> Markup:
    """Return the table of the recall of each class for each configuration."""
    emotions = board.setting.classes
    means = {name: float(np.mean([group.recall(name).mean for group in board.groups])) for name in emotions}
    faces = {name: board.groups[0].runs[0].metrics.scores.per_class[name].support for name in emotions}
    heads = ["", "configuration", *(joined(name, tag("div", f"{faces[name]:,}", class_="soft")) for name in emotions)]
    rows = [
        [
            swatch(number, rank),
            board.label(group),
            *(recall(group, name, means[name]) if faces[name] else "–" for name in emotions),
        ]
        for rank, group in enumerate(board.groups)
    ]
    intro = paragraph(
        f"Recall in per cent, mean ± standard deviation over the seeds; below each emotion, its number of faces. The "
        f"colour shows the distance from the mean of the column: green above, red below, strongest at {TINT:.0f} "
        "points. For emotions with few faces, such as disgust, differences of several points are chance.",
        class_="soft",
    )
    return joined(intro, html.named(html.table(heads, rows, range(2, 2 + len(emotions)))))


def recall(group: Group, emotion: str, mean: float) -> Markup:
    """Return a cell: a recall, its standard deviation, and a colour for its distance from the mean."""
    seeds = group.recall(emotion)
    away = 100 * (seeds.mean - mean)
    depth = DEEPEST * min(1.0, abs(away) / TINT)
    colour = f"color-mix(in srgb, var(--{'good' if away > 0 else 'bad'}) {depth:.0f}%, transparent)"
    spread = "" if seeds.sd is None else tag("div", f"± {100 * seeds.sd:.1f}", class_="soft")
    return tag("div", f"{100 * seeds.mean:.1f}", spread, class_="tinted", style=f"background:{colour}")


# --- differences ----------------------------------------------------------------------------------------------------


def differences(board: Ranking, number: int) -> Markup:
    """Return the matrix of differences between configurations: row minus column."""
    shown = list(board.groups[:MOST_IN_MATRIX])
    count = len(board.groups) * (len(board.groups) - 1) // 2
    intro = paragraph(
        "Row minus column in points of val accuracy, on the same faces. Below, the 95 % interval for other faces and "
        "other seeds (° other faces alone). Coloured and bold: p < 0.05 after Holm's adjustment for "
        f"{plural(count, 'pair')}; point at a cell for its p-values. A difference without colour may still be real: "
        "these runs do not show it.",
        class_="soft",
    )
    if len(shown) < len(board.groups):
        intro = joined(intro, html.note(f"Shown are the first {len(shown)} of {len(board.groups)} configurations."))
    rows = [
        [
            swatch(number, i),
            board.label(group),
            *(difference_cell(board, group, shown[j]) if j > i else "" for j in range(1, len(shown))),
        ]
        for i, group in enumerate(shown[:-1])
    ]
    heads = ["", "configuration", *(swatch(number, rank) for rank in range(1, len(shown)))]
    return joined(intro, tag("div", html.table(heads, rows, range(2, 1 + len(shown))), class_="named matrix"))


def difference_cell(board: Ranking, first: Group, second: Group) -> Markup:
    """Return a cell: a difference with its interval, coloured if significant."""
    gain, p = board.difference(first, second)
    interval = interval_text(gain.interval, "+")
    title = f"{interval}, p {ranking.p_text(gain.p)}, after Holm's adjustment {ranking.p_text(p)}"
    kind = ("good" if gain.value > 0 else "bad") if significant(p) else ""
    low, high = (f"{100 * end:+.1f}" for end in gain.interval)
    short = f"{low}, {high}" + ("" if gain.seeds else " °")
    return tag(
        "div", tag("div", f"{100 * gain.value:+.1f}", class_="value"), tag("div", short, class_="soft"),
        class_=f"gap {kind}".strip(), title=title,
    )  # fmt: skip


# --- all runs -------------------------------------------------------------------------------------------------------


def runs(comparison: Comparison, folder: Path) -> Markup:
    """Return the table of all runs with links to their reports."""
    heads = ["ranking", "", "configuration", "seed", "val accuracy, 95 % faces", "epoch", "time", "finished", "run"]
    rows = []
    for number, board in enumerate(comparison.rankings):
        for rank, group in enumerate(board.groups):
            for run in (*group.runs, *group.repeats):
                label = board.label(group) + ("" if run in group.runs else " (repeated later: does not count)")
                rows.append([number + 1, swatch(number, rank), label, *run_cells(run, folder)])
    if len(comparison.rankings) == 1:
        heads, rows = heads[1:], [row[1:] for row in rows]
        return html.named(html.table(heads, rows, [2, 3, 4, 5]))
    return html.named(html.table(heads, rows, [0, 3, 4, 5, 6]))


def run_cells(run: Run, folder: Path) -> list[object]:
    """Return the cells of a run: seed, accuracy, epochs, time, date and folder."""
    metrics = run.metrics
    low, high = wilson(int(run.correct.sum()), len(run.correct))
    return [
        run.seed,
        joined(in_per_cent(metrics.accuracy), tag("span", f" {interval_text(Interval(low, high))}", class_="soft")),
        "–" if metrics.epochs is None else f"{metrics.best_epoch} of {metrics.epochs}",
        "–" if metrics.train_seconds is None else clock(metrics.train_seconds),
        (metrics.finished or "–")[:16].replace("T", " "),
        link(run.folder, folder),
    ]


def link(run: Path, folder: Path) -> Markup:
    """Return a run's folder, linked to its report if there is one."""
    where = Path(os.path.relpath(run.resolve(), folder.resolve())).as_posix()
    shown = tag("code", where)
    return tag("a", shown, href=quote(f"{where}/report.html")) if (run / "report.html").exists() else shown
