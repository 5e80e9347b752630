"""The founding study's table, counted from its runs."""

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

from fer.config.conf import plain
from fer.config.errors import FerError
from fer.config.hydra import composed
from fer.metrics.statistics import Interval, of_a_share, paired_difference, wilson
from fer.runs.load import APART, gather, left_out
from fer.runs.ranking import Group, Run, chance, grouped, span
from fer.runs.run_folder import told
from fer.system.files import written_whole
from fer.system.text import clock, markdown_table, text_table

STUDY_FACES = 7178  # a fifth of FER2013's 35,887: the study had "about 36,000" faces, split 80/20
PROTOCOLS = ("holdout", "official")  # the study's own, and FER2013's
LENGTHS = (3, 6, 12, 24, 36)  # epochs after which training might have been ended
FREE = ("model.weights", "trainer.accelerator")  # keys that a run may set and still be its experiment


@dataclass(frozen=True)
class Row:
    """A row of the study's table.

    Args:
        experiment: its choice.
        title: as the study named it.
        accuracy: the study's, on val of its 80/20 split, as a share; None where it has no such row.
        about: whether the study gave it so.
        weights: with which the network begins, as a run names them; "none" for random ones.
    """

    experiment: str
    title: str
    accuracy: float | None
    about: bool = False
    weights: str = "none"

    @property
    def said(self) -> str:
        """The study's accuracy, as it gave it."""
        return "-" if self.accuracy is None else f"{'about ' * self.about}{100 * self.accuracy:g} %"


CNN = Row("study/cnn", "CNN", 0.6308)
SCHEDULED = Row("study/cnn_schedule", "CNN + schedule", 0.63, about=True)
AUGMENTED = Row("study/cnn_augment", "CNN + augmentation", 0.61)
BOTH = Row("study/cnn_both", "CNN + both", None)
CNNS = (CNN, SCHEDULED, AUGMENTED, BOTH)  # whose courses are drawn
ROWS = (
    Row("study/mlp", "simple network", 0.365),
    Row("study/linear", "linear classifier", None),
    *CNNS,
    Row("study/vgg16", "VGG16, ImageNet, frozen", 0.42, weights="VGG16_Weights.IMAGENET1K_V1"),
    Row("study/vgg16", "VGG16, random weights, frozen", None),
)
GAINS = (  # what is added, to what, giving what
    ("schedule", CNN, SCHEDULED),
    ("schedule", AUGMENTED, BOTH),
    ("augmentation", CNN, AUGMENTED),
    ("augmentation", SCHEDULED, BOTH),
)


@dataclass(frozen=True, eq=False)
class Found:
    """The runs of one row under one protocol, a seed each."""

    row: Row
    protocol: str
    group: Group

    @property
    def accuracy(self) -> float:
        """Mean val accuracy over the seeds."""
        return self.group.accuracy.mean

    @property
    def last_accuracy(self) -> float:
        """Mean val accuracy over the seeds after the last epoch, whichever was chosen."""
        return fmean(run.history[-1]["accuracy/val"] for run in self.group.runs)

    @cached_property
    def interval(self) -> Interval:
        """95 %, for other faces and, from two seeds on, for other seeds."""
        seeds = self.group.accuracy.interval
        faces = self.group.over_faces
        return faces if seeds is None else of_a_share(of_sum(self.accuracy, [faces, seeds]))

    @property
    def beyond(self) -> tuple[float, Interval] | None:
        """By how much it is above the study's accuracy, and the 95 % interval of that; None where there is none.

        The study's is one run on other faces, of which nothing but the figure is known: it has Wilson's interval.
        """
        theirs = self.row.accuracy
        if theirs is None:
            return None
        low, high = wilson(round(theirs * STUDY_FACES), STUDY_FACES)
        ours = Interval(self.interval.low - self.accuracy, self.interval.high - self.accuracy)
        taken_off = Interval(theirs - high, theirs - low)
        around = of_sum(0.0, [ours, taken_off])
        gap = self.accuracy - theirs
        return gap, Interval(gap + around.low, gap + around.high)


def of_sum(middle: float, intervals: Sequence[Interval]) -> Interval:
    """Return the interval of a sum of independent parts: the squares of their arms add up (Zou & Donner 2008).

    "Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27.

    Args:
        middle: of all the intervals.
        intervals: to be put together.
    """
    low = math.hypot(*(middle - interval.low for interval in intervals))
    high = math.hypot(*(interval.high - middle for interval in intervals))
    return Interval(middle - low, middle + high)


@dataclass(frozen=True)
class Table:
    """What the runs give.

    Args:
        found: rows in order, protocol by protocol.
        changes: in what all these runs differ from their experiments, in words; empty for nothing.
        notes: what was left out, and why.
    """

    found: Sequence[Found]
    changes: str
    notes: Sequence[str]

    def of(self, row: Row, protocol: str) -> Found | None:
        """Return what was found of a row under a protocol."""
        return next((one for one in self.found if one.row is row and one.protocol == protocol), None)


def table_of(paths: Sequence[Path]) -> Table:
    """Read the study's runs at or below ``paths``.

    Raises:
        FerError: a path is not there, or holds no finished run of the study.
    """
    gathered = gather(paths)
    known = {row.experiment for row in ROWS}
    runs = [run for run in gathered.runs if run.choices.get("experiment") in known]
    if not runs:
        raise FerError(
            f"{', '.join(map(str, paths))}: holds no run of the study; make study, or python -m fer.train "
            f"experiment={CNN.experiment}"
        )
    notes = list(left_out(gathered))
    if len(runs) < len(gathered.runs):
        notes.append(f"{len(gathered.runs) - len(runs)} other runs, of no experiment of the study, are left out")
    changed = Counter(changes(run) for run in runs)
    kept = "" if "" in changed else changed.most_common(1)[0][0]  # unchanged ones, if there are any
    notes += [f"{count} runs with {what} are left out" for what, count in changed.items() if what != kept]
    strange = Counter(run.pretrained for run in runs if not any(belongs(run, row) for row in ROWS))
    for name, count in strange.items():
        notes.append(f"{count} runs that began with {name}, not ImageNet's weights, are left out")
    runs = [run for run in runs if changes(run) == kept]
    return Table(_rows(runs, notes), kept, notes)


def _rows(runs: Sequence[Run], notes: list[str]) -> list[Found]:
    found = []
    for protocol in PROTOCOLS:
        own = [run for run in runs if run.setting.split == protocol]
        settings = Counter(run.setting for run in own)
        for setting, count in settings.most_common()[1:]:
            notes.append(f"{count} runs on other faces ({setting.title}) are left out")
        for row in ROWS:
            here = [run for run in own if belongs(run, row) and run.setting == settings.most_common(1)[0][0]]
            groups = sorted(grouped(_without_free(run) for run in here), key=lambda group: -len(group.runs))
            found += [Found(row, protocol, group) for group in groups[:1]]
            others = sum(len(group.runs) for group in groups[1:])
            notes += [f"{others} runs of {row.experiment} with other settings are left out"] if others else []
    return found


def _without_free(run: Run) -> Run:
    return replace(run, settings={key: value for key, value in run.settings.items() if key not in FREE})


def belongs(run: Run, row: Row) -> bool:
    """Return whether a run is one of a row's."""
    return (run.choices.get("experiment"), run.pretrained) == (row.experiment, row.weights)


@cache
def _experiment(name: str) -> dict[str, Any]:
    return dict(told(plain(composed([f"experiment={name}"]))))


def changes(run: Run) -> str:
    """Return in words in what a run differs from its experiment: shortened, say, or on drawn faces."""
    usual = _experiment(run.choices["experiment"])
    kept = {key: value for key, value in run.settings.items() if key in usual and key not in FREE}
    differing = [f"{key}={value}" for key, value in kept.items() if value != usual[key] and key not in APART]
    drawn = [] if run.metrics["dataset"]["name"] == "fer2013" else [f"data: {run.setting.data}"]
    return " ".join([*drawn, *differing])


def main_table(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: the study's accuracy, and ours under each protocol, where there are runs of it."""
    heads = ["", "the study", "seeds", "holdout", "95 %", "to the study, points", "seeds", "official", "95 %"]
    rows = []
    for row in ROWS:
        holdout, official = (table.of(row, protocol) for protocol in PROTOCOLS)
        if holdout or official or row.accuracy is not None:
            rows.append([row.title, row.said, *_cells(holdout), _beyond(holdout), *_cells(official)])
    return heads, rows


def _cells(found: Found | None) -> list[str]:
    if found is None:
        return ["0", "-", "-"]
    seeds = found.group.accuracy
    sd = "" if seeds.sd is None else f" ± {100 * seeds.sd:.2f}"
    return [str(seeds.number), f"{100 * seeds.mean:.2f}{sd} %", span(found.interval)]


def _beyond(found: Found | None) -> str:
    if found is None or found.beyond is None:
        return "-"
    gap, interval = found.beyond
    return f"{100 * gap:+.2f} {span(interval, '+')}"


def gains_table(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: what the schedule and augmentation each add, alone and together, on the same faces."""
    heads = ["added", "to", "protocol", "seeds", "epochs", "gain, points", "95 %", "p"]
    heads += ["in as many epochs", "at the last"]
    rows = []
    for protocol in PROTOCOLS:
        for added, before, after in GAINS:
            base, one = table.of(before, protocol), table.of(after, protocol)
            if base and one:
                found = paired_difference(one.group.correct, base.group.correct)
                covers = "" if found.seeds else " °"
                seeds = f"{one.group.accuracy.number} and {base.group.accuracy.number}"
                gain = f"{100 * found.value:+.2f}"
                interval = span(found.interval, "+") + covers
                lengths = [len(which.group.runs[0].history) for which in (one, base)]
                alike = _points(*(_best_until(which, min(lengths)) for which in (one, base)))
                last = _points(one.last_accuracy, base.last_accuracy)
                epochs = " and ".join(map(str, lengths))
                rows.append(
                    [added, before.title, protocol, seeds, epochs, gain, interval, chance(found.p), alike, last]
                )
    return heads, rows


def _points(one: float | None, other: float | None) -> str:
    return "-" if one is None or other is None else f"{100 * (one - other):+.2f}"


def details_table(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: what each row cost, and how it went."""
    heads = ["", "protocol", "seeds", "parameters", "chosen epoch", "train accuracy then", "last val", "time a run"]
    rows = []
    for one in table.found:
        runs = one.group.runs
        chosen = [run.metrics["best_epoch"] for run in runs]
        then = [run.history[run.metrics["best_epoch"] - 1]["accuracy/train"] for run in runs]
        rows.append([
            one.row.title, one.protocol, ", ".join(str(run.seed) for run in runs), f"{runs[0].metrics['parameters']:,}",
            f"{', '.join(map(str, chosen))} of {len(runs[0].history)}", f"{100 * fmean(then):.1f} %",
            f"{100 * one.last_accuracy:.2f} %", clock(median(run.metrics["train_seconds"] for run in runs)),
        ])  # fmt: skip
    return heads, rows


def lengths_table(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: the best val accuracy, had training ended after so many epochs."""
    heads = ["ended after", "protocol", *(f"{length} epochs" for length in LENGTHS)]
    rows = []
    for protocol in PROTOCOLS:
        for one in (found for found in table.found if _is_cnn(found, protocol)):
            best = [_best_until(one, length) for length in LENGTHS]
            rows.append(
                [one.row.title, protocol, *("-" if value is None else f"{100 * value:.2f} %" for value in best)]
            )
    return heads, rows


def _best_until(one: Found, length: int) -> float | None:
    """Return the mean over the seeds of the best val accuracy within the first epochs; None if there are fewer."""
    runs = one.group.runs
    if any(len(run.history) < length for run in runs):
        return None
    return fmean(max(row["accuracy/val"] for row in run.history[:length]) for run in runs)


EXPLAINED = (
    "Val accuracy, mean ± standard deviation over the seeds; the epoch is chosen on val, which flatters a little.",
    "95 %: for other faces and, from two seeds on, for other seeds; of the difference to the study also for its one "
    f"run, whose val is taken to be {STUDY_FACES:,} faces.",
    "holdout is the study's protocol, a stratified 80/20 of all faces; official trains on Training and scores "
    "PublicTest. The two are not to be laid beside each other.",
    "Ended after: the same runs, had they been ended there; of a schedule that is planned to its end this says less.",
    "Gains are on the same faces. °: for other faces alone, since one of the two has one seed. In as many epochs: the "
    "best of both within the epochs of the shorter; a schedule that is planned for more is not through by then. At the "
    "last: where no epoch is chosen. Both without an interval, since predictions are kept of the chosen epoch.",
)


def markdown(table: Table) -> str:
    """Return the whole as Markdown."""
    parts = ["# The founding study, answered"]
    parts += [f"**Not the experiments as they are: {table.changes}.**"] if table.changes else []
    parts += [markdown_table(*main_table(table)), "![the study and here](figures/study.png)"]
    gains = gains_table(table)
    parts += ["## What the schedule and augmentation add", markdown_table(*gains)] if gains[1] else []
    parts += [f"![courses of training, {protocol}](figures/courses_{protocol}.png)" for protocol in drawable(table)]
    parts += ["## How long to train", markdown_table(*lengths_table(table))] if drawable(table) else []
    parts += ["## How they went", markdown_table(*details_table(table))]
    parts += ["\n".join(f"- {line}" for line in (*EXPLAINED, *table.notes))]
    return "\n\n".join(parts) + "\n"


def text(table: Table) -> str:
    """Return the same for a terminal."""
    parts = [f"*** not the experiments as they are: {table.changes} ***"] if table.changes else []
    parts += [text_table(*main_table(table))]
    gains = gains_table(table)
    parts += [text_table(*gains)] if gains[1] else []
    parts += [text_table(*lengths_table(table))] if drawable(table) else []
    return "\n\n".join([*parts, text_table(*details_table(table)), "\n".join([*EXPLAINED, *table.notes])])


def write_csv(file: Path, table: Table) -> None:
    """Write a row a run, in full precision."""
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["experiment", "pretrained", "protocol", "seed", "accuracy", "accuracy_low", "accuracy_high",
                         "macro_f1", "best_epoch", "epochs", "train_seconds", "commit", "run"])  # fmt: skip
        for one in table.found:
            for run in one.group.runs:
                known = run.metrics
                figures = [known["accuracy"], *known["accuracy_ci95"], known["macro_f1"], known["best_epoch"]]
                more = [known["epochs"], known["train_seconds"], known.get("commit"), run.folder]
                writer.writerow([one.row.experiment, run.pretrained, one.protocol, run.seed, *figures, *more])


def drawable(table: Table) -> list[str]:
    """Return the protocols that have a CNN whose course can be drawn."""
    return [protocol for protocol in PROTOCOLS if any(_is_cnn(one, protocol) for one in table.found)]


def _is_cnn(one: Found, protocol: str) -> bool:
    return one.protocol == protocol and one.row in CNNS


def draw(table: Table, folder: Path) -> None:
    """Write ``study.png``, ``courses_<protocol>.png`` and the same as SVG.

    Raises:
        OSError: the folder may not be written.
    """
    from fer.reports import plotting
    from fer.reports.study import figures as study_figures  # matplotlib takes half a second to import

    def estimate(one: Found) -> study_figures.Estimate:
        return study_figures.Estimate(one.accuracy, one.interval.low, one.interval.high)

    rows = []
    for row in ROWS:
        ours = {one.protocol: estimate(one) for one in table.found if one.row is row}
        if ours or row.accuracy is not None:
            rows.append((row.title.replace(", ", "\n", 1), row.accuracy, ours))
    with plotting.style():
        plotting.save(study_figures.beside(rows), folder, "study")
        for protocol in drawable(table):
            bands = [_band(one) for one in table.found if _is_cnn(one, protocol)]
            plotting.save(study_figures.courses(bands), folder, f"courses_{protocol}")


def _band(one: Found) -> Any:
    from fer.reports.study.figures import Band

    shortest = min(len(run.history) for run in one.group.runs)  # stopped early, perhaps
    val, train = ([[row[f"accuracy/{split}"] for row in run.history[:shortest]] for run in one.group.runs]
                  for split in ("val", "train"))  # fmt: skip
    return Band(one.row.title, val, train)
