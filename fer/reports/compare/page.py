"""The page of runs side by side: ``compare.html`` and ``figures/``.

write(comparison, folder)
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape

from fer.metrics.statistics import Interval, wilson
from fer.metrics.table import in_per_cent
from fer.reports import html, plotting
from fer.reports.compare import figures as compare_figures
from fer.reports.compare import mcnemar
from fer.reports.compare.figures import Line, Point, role
from fer.reports.html import Section, joined, paragraph, tag
from fer.runs import ranking
from fer.runs.ranking import COLUMNS, Group, Looks, Ranking, Run, parted, span
from fer.system.text import clock

MOST_IN_MATRIX = 20  # configurations; larger tables can be read by nobody
TINT = 15.0  # points from the mean of a class at which a recall's colour is fullest
DEEPEST = 45  # per cent of a colour in a cell: dark text can be read on it on white, light text in the dark
COSTS = {  # figure of metrics.json -> label of its axis
    "parameters": "parameters",
    "train_seconds": "training time",
    "images_per_second": "images a second in training",
    "peak_memory_mb": "largest memory, MB",
}
UNITS = (("seconds", 1, 120), ("minutes", 60, 7200), ("hours", 3600, float("inf")))  # of time; seconds in it, up to


@dataclass(frozen=True)
class Comparison:
    """What a page compares.

    Args:
        rankings: the largest first.
        skipped: folder -> why it is left out.
        pairs: runs that were asked to be tested against each other.
        by: what sorts the rankings, of ``COLUMNS``.
        looks: what the one chosen run has done on test, if that was asked for.
    """

    rankings: Sequence[Ranking]
    skipped: Mapping[Path, str]
    pairs: Sequence[tuple[Run, Run]] = ()
    by: str = "accuracy"
    looks: Looks | None = None


def write(comparison: Comparison, folder: Path) -> Path:
    """Write ``figures/`` and ``compare.html`` to ``folder``, and return the page.

    Raises:
        OSError: the folder may not be written.
    """
    file = folder / "compare.html"
    count = sum(len(group.runs) for one in comparison.rankings for group in one.groups)
    title = f"{count:,} run{'' if count == 1 else 's'} side by side"
    script = Path(__file__).with_name("compare.js").read_text(encoding="utf-8")
    foot = "All figures are of val, on which the epochs are chosen too."
    html.write(file, title, lead(comparison), sections(comparison, folder), foot, script)
    return file


def key(number: int, place: int) -> str:
    """Return what stands for a configuration on the page: the number of its ranking and its place there, from 0."""
    return f"r{number + 1}g{place + 1}"


# --- the top --------------------------------------------------------------------------------------------------------


def lead(comparison: Comparison) -> Markup:
    """Return what stands below the title: what is ranked, what is not ranked together and why, what is missing."""
    made = comparison.rankings
    parts = [
        f"{one.setting.title}: {plural(len(one.groups), 'configuration')}, "
        f"{plural(sum(len(group.runs) for group in one.groups), 'run')}"
        for one in made
    ]
    notes = []
    if len(made) > 1:
        reasons = "; ".join(ranking.apart(made))
        notes.append(f"{len(made)} rankings, not to be laid beside each other: {reasons}.")
    if any(one.setting.stand_in for one in made):
        notes.append("Some runs are of drawn faces, which stood in for data that were not found.")
    if comparison.skipped:
        link = tag("a", "the list", href="#left-out")
        notes.append(joined(f"{plural(len(comparison.skipped), 'run folder')} left out: see ", link, "."))
    repeats = sum(len(group.repeats) for one in made for group in one.groups)
    if repeats:
        notes.append(f"{plural(repeats, 'run')} of a seed that was run again later: the later one counts.")
    return joined(*(paragraph(part, class_="soft") for part in parts), *(html.note(one) for one in notes))


def plural(count: int, name: str) -> str:
    """Return how many there are of something."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def sections(comparison: Comparison, folder: Path) -> list[Section]:
    """Return the parts of the page, in order: the largest ranking's, one for each other ranking, the rest."""
    first, *others = [parts(one, number, folder, comparison.by) for number, one in enumerate(comparison.rankings)]
    whole = [
        Section(f"ranking-{number}", one.setting.title, joined(*(inner(part) for part in made)))
        for number, (one, made) in enumerate(zip(comparison.rankings[1:], others, strict=True), start=2)
    ]
    rest = [
        Section("pairs", "Any two runs", mcnemar.tested(comparison.rankings, comparison.pairs)),
        Section("runs", "All runs", runs(comparison, folder)),
    ]
    if comparison.looks is not None:
        heads, looked = comparison.looks.table
        told = paragraph("Chosen on val; each look is counted. No other run's test figures are shown.", class_="soft")
        table = html.table(heads, looked, tuple(range(3, len(heads))))
        rest.insert(0, Section("test", comparison.looks.heading, joined(told, table)))
    if comparison.skipped:
        rows = [(str(path), reason) for path, reason in comparison.skipped.items()]
        rest.append(Section("left-out", "Left out", html.table(("folder", "why"), rows, stack=True)))
    return [*first, *whole, *rest]


def inner(part: Section) -> Markup:
    """Return a section as a part of another."""
    return joined(tag("h3", part.title), part.body)


def parts(one: Ranking, number: int, folder: Path, by: str) -> list[Section]:
    """Return the parts that show one ranking."""
    drawn = draw(one, number, folder / "figures")
    made = [
        Section("leaderboard", f"Leaderboard: {one.setting.title}", leaderboard(one, number, by)),
        Section("curves", "Curves", curves(one, number, drawn)),
        Section("recall", "Recall of each emotion", recalls(one, number)),
    ]
    if len(one.groups) > 1:
        made.insert(2, Section("cost", "Accuracy against cost", costs(one, number, drawn)))
        made.append(Section("differences", "Differences", differences(one, number)))
    return made


# --- figures --------------------------------------------------------------------------------------------------------


def draw(one: Ranking, number: int, folder: Path) -> dict[str, Markup]:
    """Write a ranking's figures as PNG and SVG, and return name -> drawing for the page."""
    after = f"_{number + 1}" if number else ""
    keyed = [(key(number, place), place, group) for place, group in enumerate(one.groups)]
    made, labels = {}, {}
    with plotting.style():
        for figure in ("accuracy", "loss"):
            lines = [Line(name, place, curve(group, f"{figure}/val")) for name, place, group in keyed]
            made[f"{figure}_by_epoch"] = compare_figures.overlaid(
                f"{figure}{number}", lines, shares=figure == "accuracy"
            )
            labels[f"{figure}_by_epoch"] = f"val {figure} by epoch"
        for cost in COSTS if len(keyed) > 1 else ():
            label, unit = axis(one, cost)
            known = [(name, place, group) for name, place, group in keyed if group.figure(cost)]
            points = [Point(name, place, *spent(group, cost, unit)) for name, place, group in known]
            if points:
                made[f"accuracy_by_{cost}"] = compare_figures.against(f"{cost}{number}", points, label)
                labels[f"accuracy_by_{cost}"] = f"val accuracy against {label}"
    named = {name: one.label(group) for name, _, group in keyed}
    return {
        name: html.drawing(titled(plotting.save(figure, folder, f"{name}{after}"), named), labels[name])
        for name, figure in made.items()
    }


def curve(group: Group, name: str) -> list[list[float]]:
    """Return a figure by epoch, for each seed."""
    return [[row[name] for row in run.history] for run in group.runs]


def axis(one: Ranking, cost: str) -> tuple[str, float]:
    """Return the label of a cost's axis, and what one unit there holds of the figure's own."""
    if cost != "train_seconds":
        return COSTS[cost], 1
    longest = max(run.metrics.get(cost) or 0 for group in one.groups for run in group.runs)
    name, unit = next((name, unit) for name, unit, most in UNITS if longest <= most)
    return f"{COSTS[cost]}, {name}", unit


def spent(group: Group, cost: str, unit: float) -> tuple[list[float], list[float]]:
    """Return what each seed cost, and its accuracy."""
    return [run.metrics[cost] / unit for run in group.runs], [run.metrics["accuracy"] for run in group.runs]


def titled(svg: str, labels: Mapping[str, str]) -> str:
    """Return a drawing that tells whose a line or dot is, where a pointer rests on it."""

    def told(match: re.Match[str]) -> str:
        return f"{match[0]}<title>{escape(labels[match[1]])}</title>"

    return re.sub(r'<g id="[^"]*-(r\d+g\d+)">', told, svg)


# --- the leaderboard ------------------------------------------------------------------------------------------------


def swatch(number: int, place: int) -> Markup:
    """Return a configuration's place with its colour; the page's script finds its row by it."""
    square = tag("i", class_="swatch", style=f"background:var(--{role(place)})")
    return tag("span", square, str(place + 1), **{"class_": "place", "data-group": key(number, place)})


def leaderboard(one: Ranking, number: int, by: str) -> Markup:
    """Return the table of who is ahead and by how much, and that of the other figures."""
    low, high = reach(one)
    figures = ["seeds", "val accuracy", scale(low, high), "95 % seeds", "95 % faces", "to the best, 95 %"]
    rows = [
        [swatch(number, place), one.label(group), *ahead(one, group, low, high)]
        for place, group in enumerate(one.groups)
    ]
    table = html.named(html.table(["", "configuration", *figures], rows, [2, 3, 5, 6, 7]))
    order = "" if by == "accuracy" else f" Sorted by {COLUMNS[by].head}."
    legend = paragraph(" ".join(ranking.MARKS), order, class_="soft legend")
    parts = [table, legend]
    if not one.brief:
        told = paragraph("Above, a name tells the model and what is not usual among those of its model.", class_="soft")
        parts += [tag("h3", "What differs"), told, what_differs(one, number)]
    return joined(*parts, tag("h3", "Other figures, means over the seeds"), others(one, number), machines(one))


def what_differs(one: Ranking, number: int) -> Markup:
    """Return the table of the choices and keys in which the configurations differ."""
    rows = [
        [swatch(number, place), *(ranking.cell(group, column) for column in one.columns)]
        for place, group in enumerate(one.groups)
    ]
    return html.table(["", *one.columns], rows)


def ahead(one: Ranking, group: Group, low: float, high: float) -> list[object]:
    """Return the cells of a configuration: seeds, accuracy, bar, intervals, difference to the best."""
    seeds = group.accuracy
    spread = "" if seeds.sd is None else tag("span", f" ± {100 * seeds.sd:.2f}", class_="soft")
    return [
        seeds.number,
        joined(tag("b", in_per_cent(seeds.mean)), spread),
        bar(group, low, high),
        "–" if seeds.interval is None else span(seeds.interval),
        span(group.over_faces),
        "best" if group is one.ahead else behind(one, group),
    ]


def behind(one: Ranking, group: Group) -> Markup:
    """Return the difference to the best with its interval, and whether it is one."""
    found, p = one.difference(group, one.ahead)
    marks = ("" if found.seeds else " °") + (" *" if parted(p) else "")
    return joined(f"{100 * found.value:+.2f} ", tag("span", span(found.interval, "+"), class_="soft"), marks)


def reach(one: Ranking) -> tuple[float, float]:
    """Return the ends of the axis of the bars: wide enough for the faces' intervals and for every seed."""
    ends = [end for group in one.groups for end in group.over_faces]
    seen = [run.metrics["accuracy"] for group in one.groups for run in group.runs]
    return min(*ends, *seen), max(*ends, *seen)


def scale(low: float, high: float) -> Markup:
    """Return the head of the bars: what their ends stand for."""
    return tag("span", tag("span", f"{100 * low:.1f}"), tag("span", f"{100 * high:.1f}"), class_="scale")


def bar(group: Group, low: float, high: float) -> Markup:
    """Return the accuracy on its axis: both intervals, each seed, the mean."""

    def at(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - low) / (high - low or 1)))

    def piece(interval: Interval, name: str) -> Markup:
        left, right = at(interval.low), at(interval.high)
        return tag("i", class_=name, style=f"left:{left:.1f}%;width:{right - left:.1f}%")

    seeds = group.accuracy
    pieces = [piece(group.over_faces, "of-faces")]
    if seeds.interval is not None:
        pieces.append(piece(seeds.interval, "of-seeds"))
        pieces += [tag("u", style=f"left:{at(run.metrics['accuracy']):.1f}%") for run in group.runs]
    return tag("div", *pieces, tag("b", style=f"left:{at(seeds.mean):.1f}%"), class_="interval-bar")


def others(one: Ranking, number: int) -> Markup:
    """Return the table of the other figures."""
    names = [name for name in COLUMNS if name != "accuracy" and any(group.figure(name) for group in one.groups)]
    rows = [
        [swatch(number, place), one.label(group), *(group.written(name) for name in names)]
        for place, group in enumerate(one.groups)
    ]
    heads = ["", "configuration", *(COLUMNS[name].head for name in names)]
    return html.named(html.table(heads, rows, range(2, 2 + len(names))))


def machines(one: Ranking) -> Markup:
    """Return a warning where times come from several machines."""
    told = one.machines()
    if len(told) < 2:
        return Markup("")
    return html.note(f"Times of different machines do not compare; here are {len(told)}: {'; '.join(told)}.")


# --- curves, costs, recalls -----------------------------------------------------------------------------------------


def chips(one: Ranking, number: int) -> Markup:
    """Return the configurations as a key to the drawings."""
    made = [
        tag(
            "button",
            tag("i", class_="swatch", style=f"background:var(--{role(place)})"),
            f"{place + 1} {one.label(group)}",
            **{"type": "button", "class_": "chip", "data-group": key(number, place)},
        )
        for place, group in enumerate(one.groups)
    ]
    return tag("div", *made, class_="chips")


def curves(one: Ranking, number: int, drawn: Mapping[str, Markup]) -> Markup:
    """Return val accuracy and loss by epoch, the runs over each other."""
    told = paragraph(
        f"Val accuracy, val loss. Thin lines are seeds, thick ones their mean over the epochs that all of them have. "
        f"The first {min(len(compare_figures.COLOURS), len(one.groups))} are coloured; point at a name to pick it out. "
        "Losses compare where the runs minimise the same loss.",
        class_="soft",
    )
    return joined(told, chips(one, number), html.columns(drawn["accuracy_by_epoch"], drawn["loss_by_epoch"]))


def costs(one: Ranking, number: int, drawn: Mapping[str, Markup]) -> Markup:
    """Return accuracy against parameters, time and speed."""
    told = paragraph(
        "A small dot is a seed, a large one a configuration's mean; numbers are places, where there is room for them.",
        class_="soft",
    )
    shown = [drawn[f"accuracy_by_{cost}"] for cost in COSTS if f"accuracy_by_{cost}" in drawn]
    return joined(told, chips(one, number), html.columns(*shown), machines(one))


def recalls(one: Ranking, number: int) -> Markup:
    """Return the recall of each class, configurations below each other."""
    emotions = one.setting.classes
    means = {name: float(np.mean([group.recall(name).mean for group in one.groups])) for name in emotions}
    faces = {name: one.groups[0].runs[0].metrics["per_class"][name].get("support", 0) for name in emotions}
    heads = ["", "configuration", *(joined(name, tag("div", f"{faces[name]:,}", class_="soft")) for name in emotions)]
    rows = [
        [swatch(number, place), one.label(group), *(recall(group, name, means[name]) for name in emotions)]
        for place, group in enumerate(one.groups)
    ]
    told = paragraph(
        f"In per cent, mean ± standard deviation over the seeds; beneath each emotion its faces. The colour tells how "
        f"far a cell is from the mean of its column: green above, red below, fullest at {TINT:.0f} points. Of few "
        "faces, as of disgust, differences of several points are chance.",
        class_="soft",
    )
    return joined(told, html.named(html.table(heads, rows, range(2, 2 + len(emotions)))))


def recall(group: Group, emotion: str, mean: float) -> Markup:
    """Return a cell: a recall, its spread over the seeds, and a colour for its distance from the mean."""
    seeds = group.recall(emotion)
    away = 100 * (seeds.mean - mean)
    depth = DEEPEST * min(1.0, abs(away) / TINT)
    colour = f"color-mix(in srgb, var(--{'good' if away > 0 else 'bad'}) {depth:.0f}%, transparent)"
    spread = "" if seeds.sd is None else tag("div", f"± {100 * seeds.sd:.1f}", class_="soft")
    return tag("div", f"{100 * seeds.mean:.1f}", spread, class_="tinted", style=f"background:{colour}")


# --- differences ----------------------------------------------------------------------------------------------------


def differences(one: Ranking, number: int) -> Markup:
    """Return the matrix of differences between configurations: row minus column."""
    shown = list(one.groups[:MOST_IN_MATRIX])
    count = len(one.groups) * (len(one.groups) - 1) // 2
    told = paragraph(
        "Row minus column in points of val accuracy, on the same faces; beneath, the 95 % interval for other faces and "
        "other seeds (° other faces alone). Coloured and bold: p < 0.05 after Holm's adjustment for "
        f"{plural(count, 'pair')}; p-values show under the pointer. A difference without colour may still be there: "
        "these runs do not show it.",
        class_="soft",
    )
    if len(shown) < len(one.groups):
        told = joined(told, html.note(f"Shown are the first {len(shown)} of {len(one.groups)} configurations."))
    rows = [
        [
            swatch(number, i),
            one.label(group),
            *(gap(one, group, shown[j]) if j > i else "" for j in range(1, len(shown))),
        ]
        for i, group in enumerate(shown[:-1])
    ]
    heads = ["", "configuration", *(swatch(number, place) for place in range(1, len(shown)))]
    return joined(told, tag("div", html.table(heads, rows, range(2, 1 + len(shown))), class_="named matrix"))


def gap(one: Ranking, first: Group, second: Group) -> Markup:
    """Return a cell: a difference, its interval, and whether it stands out."""
    found, p = one.difference(first, second)
    interval = span(found.interval, "+")
    told = f"{interval}, p {ranking.chance(found.p)}, after Holm's adjustment {ranking.chance(p)}"
    kind = ("good" if found.value > 0 else "bad") if parted(p) else ""
    low, high = (f"{100 * end:+.1f}" for end in found.interval)
    short = f"{low}, {high}" + ("" if found.seeds else " °")
    return tag(
        "div", tag("div", f"{100 * found.value:+.1f}", class_="value"), tag("div", short, class_="soft"),
        class_=f"gap {kind}".strip(), title=told,
    )  # fmt: skip


# --- all runs -------------------------------------------------------------------------------------------------------


def runs(comparison: Comparison, folder: Path) -> Markup:
    """Return the table of all runs with links to their reports."""
    heads = ["ranking", "", "configuration", "seed", "val accuracy, 95 % faces", "epoch", "time", "finished", "run"]
    rows = []
    for number, one in enumerate(comparison.rankings):
        for place, group in enumerate(one.groups):
            for run in (*group.runs, *group.repeats):
                label = one.label(group) + ("" if run in group.runs else " (run again later: does not count)")
                rows.append([number + 1, swatch(number, place), label, *about(run, folder)])
    if len(comparison.rankings) == 1:
        heads, rows = heads[1:], [row[1:] for row in rows]
        return html.named(html.table(heads, rows, [2, 3, 4, 5]))
    return html.named(html.table(heads, rows, [0, 3, 4, 5, 6]))


def about(run: Run, folder: Path) -> list[object]:
    """Return the cells of a run."""
    metrics = run.metrics
    low, high = wilson(int(run.correct.sum()), len(run.correct))
    return [
        run.seed,
        joined(in_per_cent(metrics["accuracy"]), tag("span", f" {span(Interval(low, high))}", class_="soft")),
        f"{metrics['best_epoch']} of {metrics['epochs']}" if "epochs" in metrics else "–",
        clock(metrics["train_seconds"]) if "train_seconds" in metrics else "–",
        str(metrics.get("finished", "–"))[:16].replace("T", " "),
        link(run.folder, folder),
    ]


def link(run: Path, folder: Path) -> Markup:
    """Return a run's folder, as a link to its report where it has one."""
    where = Path(os.path.relpath(run.resolve(), folder.resolve())).as_posix()
    shown = tag("code", where)
    return tag("a", shown, href=quote(f"{where}/report.html")) if (run / "report.html").exists() else shown
