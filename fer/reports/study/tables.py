"""The tables of the founding study's replication, computed from its runs."""

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
from fer.data.labels import OFFICIAL_SIZES
from fer.metrics.results import DatasetRecord
from fer.metrics.statistics import Interval, accuracy_interval_with_seeds, paired_difference, wilson
from fer.runs.load import APART, gather, left_out
from fer.runs.ranking import Group, Run, grouped, interval_text, p_text
from fer.runs.run_folder import computed_settings
from fer.system.files import written_whole
from fer.system.text import clock, markdown_table, plural, text_table

STUDY_FACES = 7178  # a fifth of FER2013's 35,887: the study had "about 36,000" faces, split 80/20
PROTOCOLS = ("holdout", "official")  # the split of the study, and that of FER2013
LENGTHS = (3, 6, 12, 24, 36)  # epochs at which the best val accuracy so far is listed
FREE = ("model.weights", "trainer.accelerator")  # keys that a run may change and still count as its experiment


@dataclass(frozen=True)
class Row:
    """A row of the study's table.

    Args:
        experiment: name of the experiment in ``conf/experiment/``.
        title: name in the study.
        accuracy: val accuracy in the study, on its 80/20 split, from 0 to 1; None if the study has no such row.
        about: whether the study states the accuracy as approximate.
        weights: initial weights as a run names them; "none" for random ones.
    """

    experiment: str
    title: str
    accuracy: float | None
    about: bool = False
    weights: str = "none"

    @property
    def stated(self) -> str:
        """The study's accuracy in its own words, ``about 63 %``."""
        return "-" if self.accuracy is None else f"{'about ' * self.about}{100 * self.accuracy:g} %"


CNN = Row("study/cnn", "CNN", 0.6308)
SCHEDULED = Row("study/cnn_schedule", "CNN + schedule", 0.63, about=True)
AUGMENTED = Row("study/cnn_augment", "CNN + augmentation", 0.61)
BOTH = Row("study/cnn_both", "CNN + both", None)
CNNS = (CNN, SCHEDULED, AUGMENTED, BOTH)  # rows whose accuracy is drawn by epoch
ROWS = (
    Row("study/mlp", "simple network", 0.365),
    Row("study/linear", "linear classifier", None),
    *CNNS,
    Row("study/vgg16", "VGG16, ImageNet, frozen", 0.42, weights="VGG16_Weights.IMAGENET1K_V1"),
    Row("study/vgg16", "VGG16, random weights, frozen", None),
)
GAINS = (  # addition, row without it, row with it
    ("schedule", CNN, SCHEDULED),
    ("schedule", AUGMENTED, BOTH),
    ("augmentation", CNN, AUGMENTED),
    ("augmentation", SCHEDULED, BOTH),
)

EXPLAINED = (
    "Val accuracy: mean ± standard deviation over the seeds. The epoch is chosen on val, which makes it slightly too "
    "high.",
    "95 %: interval for other faces and, with two seeds or more, for other seeds. That of the difference to the study "
    f"also covers the study's one run, on an assumed val of {STUDY_FACES:,} faces.",
    "holdout is the study's protocol, a stratified 80/20 split of all faces. official trains on Training and scores "
    "PublicTest. The accuracies of the two are not comparable.",
    "Best within: the best epoch among the first ones of the same runs. A schedule that is planned for more epochs is "
    "not finished there.",
    "Gains are on the same faces. °: interval for other faces alone, since one of the two has one seed. Gain in equal "
    "epochs: the best of both within the epochs of the shorter; a longer schedule is not finished there. Gain at the "
    "last epoch: without choosing an epoch. Both have no interval, since runs keep the predictions of the chosen epoch "
    "alone.",
)


@dataclass(frozen=True, eq=False)
class RowResult:
    """The runs of one row under one protocol, one for each seed."""

    row: Row
    protocol: str
    group: Group

    @property
    def accuracy(self) -> float:
        """Mean val accuracy over the seeds."""
        return self.group.accuracy.mean

    @property
    def last_accuracy(self) -> float:
        """Mean val accuracy over the seeds after the last epoch, whatever epoch was chosen."""
        return fmean(run.history[-1]["accuracy/val"] for run in self.group.runs)

    @cached_property
    def interval(self) -> Interval:
        """95 % interval of the accuracy, for other faces and, with two seeds or more, for other seeds."""
        return accuracy_interval_with_seeds(self.group.correct)

    @property
    def difference(self) -> tuple[float, Interval] | None:
        """Accuracy minus the study's accuracy, with its 95 % interval; None if the study has no such row.

        The study's accuracy is of one run on other faces, of which nothing else is known: its interval is Wilson's.
        """
        theirs = self.row.accuracy
        if theirs is None:
            return None
        low, high = wilson(round(theirs * STUDY_FACES), STUDY_FACES)
        ours = Interval(self.interval.low - self.accuracy, self.interval.high - self.accuracy)
        negated = Interval(theirs - high, theirs - low)
        around = of_sum(0.0, [ours, negated])
        gap = self.accuracy - theirs
        return gap, Interval(gap + around.low, gap + around.high)


def of_sum(middle: float, intervals: Sequence[Interval]) -> Interval:
    """Return the interval of a sum of independent terms: the squares of their half-widths add (Zou & Donner 2008).

    "Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27.

    Args:
        middle: the common estimate of the intervals.
        intervals: intervals of the terms.
    """
    low = math.hypot(*(middle - interval.low for interval in intervals))
    high = math.hypot(*(interval.high - middle for interval in intervals))
    return Interval(middle - low, middle + high)


@dataclass(frozen=True)
class StudyTable:
    """The results of the study's runs.

    Args:
        results: rows in order, protocol by protocol.
        changes: settings in which all these runs differ from their experiments; empty for none.
        notes: runs that are left out, with reasons.
    """

    results: Sequence[RowResult]
    changes: str
    notes: Sequence[str]

    def of(self, row: Row, protocol: str) -> RowResult | None:
        """Return the result of a row under a protocol; None if there is none."""
        return next((result for result in self.results if result.row is row and result.protocol == protocol), None)


def table_of(paths: Sequence[Path]) -> StudyTable:
    """Read the study's runs at or below ``paths``.

    Raises:
        FerError: a path is missing, or holds no finished run of the study.
    """
    gathered = gather(paths)
    known = {row.experiment for row in ROWS}
    runs = [run for run in gathered.runs if run.choices.get("experiment") in known]
    if not runs:
        raise FerError(
            f"{', '.join(map(str, paths))}: holds no run of the study; make study trains all of them, python -m "
            f"fer.train experiment={CNN.experiment} trains one"
        )
    notes = list(left_out(gathered))
    if len(runs) < len(gathered.runs):
        notes.append(f"{plural(len(gathered.runs) - len(runs), 'other run')} of no experiment of the study left out")
    changed = Counter(changes(run) for run in runs)
    kept = "" if "" in changed else changed.most_common(1)[0][0]  # prefer runs without changes
    notes += [f"{plural(count, 'run')} with {what} left out" for what, count in changed.items() if what != kept]
    unexpected = Counter(run.pretrained for run in runs if not any(belongs(run, row) for row in ROWS))
    for name, count in unexpected.items():
        notes.append(f"{plural(count, 'run')} from weights {name}, not ImageNet's, left out")
    runs = [run for run in runs if changes(run) == kept]
    return StudyTable(_rows(runs, notes), kept, notes)


def _rows(runs: Sequence[Run], notes: list[str]) -> list[RowResult]:
    results = []
    for protocol in PROTOCOLS:
        of_protocol = [run for run in runs if run.setting.split == protocol]
        settings = Counter(run.setting for run in of_protocol)
        for setting, count in settings.most_common()[1:]:
            notes.append(f"{plural(count, 'run')} on other faces ({setting.title}) left out")
        for row in ROWS:
            of_row = [run for run in of_protocol if belongs(run, row) and run.setting == settings.most_common(1)[0][0]]
            groups = sorted(grouped(_without_free(run) for run in of_row), key=lambda group: -len(group.runs))
            results += [RowResult(row, protocol, group) for group in groups[:1]]
            surplus = sum(len(group.runs) for group in groups[1:])
            notes += [f"{plural(surplus, 'run')} of {row.experiment} with other settings left out"] if surplus else []
    return results


def _without_free(run: Run) -> Run:
    return replace(run, settings={key: value for key, value in run.settings.items() if key not in FREE})


def belongs(run: Run, row: Row) -> bool:
    """Return whether a run belongs to a row."""
    return (run.choices.get("experiment"), run.pretrained) == (row.experiment, row.weights)


@cache
def _experiment(name: str) -> dict[str, object]:
    return dict(computed_settings(plain(composed([f"experiment={name}"]))))


def changes(run: Run) -> str:
    """Return the settings in which a run differs from its experiment, such as fewer epochs or drawn faces."""
    usual = _experiment(run.choices["experiment"])
    kept = {key: value for key, value in run.settings.items() if key in usual and key not in FREE}
    differing = [f"{key}={value}" for key, value in kept.items() if value != usual[key] and key not in APART]
    other = [] if _on_whole_fer2013(run.metrics.dataset) else [f"data: {run.setting.data}"]
    return " ".join([*other, *differing])


def _on_whole_fer2013(dataset: DatasetRecord) -> bool:
    faces = sum(count for classes in dataset.counts.values() for count in classes.values())
    return dataset.name == "fer2013" and faces == sum(OFFICIAL_SIZES)


def main_table(table: StudyTable) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the main table: the study's accuracy, and that of the runs under each protocol."""
    heads = ["", "the study", "seeds", "holdout", "95 %", "minus the study, points", "seeds", "official", "95 %"]
    rows = []
    for row in ROWS:
        holdout, official = (table.of(row, protocol) for protocol in PROTOCOLS)
        if holdout or official or row.accuracy is not None:
            rows.append([row.title, row.stated, *_cells(holdout), _difference(holdout), *_cells(official)])
    return heads, rows


def _cells(result: RowResult | None) -> list[str]:
    if result is None:
        return ["0", "-", "-"]
    seeds = result.group.accuracy
    sd = "" if seeds.sd is None else f" ± {100 * seeds.sd:.2f}"
    return [str(seeds.number), f"{100 * seeds.mean:.2f}{sd} %", interval_text(result.interval)]


def _difference(result: RowResult | None) -> str:
    if result is None or result.difference is None:
        return "-"
    gap, interval = result.difference
    return f"{100 * gap:+.2f} {interval_text(interval, '+')}"


def gains_table(table: StudyTable) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the gains by the schedule and by augmentation, alone and together, on the same faces."""
    heads = ["added", "to", "protocol", "seeds", "epochs", "gain, points", "95 %", "p"]
    heads += ["gain in equal epochs", "gain at the last epoch"]
    rows = []
    for protocol in PROTOCOLS:
        for added, before, after in GAINS:
            without_it, with_it = table.of(before, protocol), table.of(after, protocol)
            if without_it and with_it:
                gain = paired_difference(with_it.group.correct, without_it.group.correct)
                mark = "" if gain.seeds else " °"
                seeds = f"{with_it.group.accuracy.number} and {without_it.group.accuracy.number}"
                points = f"{100 * gain.value:+.2f}"
                interval = interval_text(gain.interval, "+") + mark
                lengths = [len(which.group.runs[0].history) for which in (with_it, without_it)]
                equal = _points(*(_best_until(which, min(lengths)) for which in (with_it, without_it)))
                last = _points(with_it.last_accuracy, without_it.last_accuracy)
                epochs = " and ".join(map(str, lengths))
                rows.append(
                    [
                        added,
                        before.title,
                        protocol,
                        seeds,
                        epochs,
                        points,
                        interval,
                        p_text(gain.p),
                        equal,
                        last,
                    ]
                )
    return heads, rows


def _points(with_it: float | None, without_it: float | None) -> str:
    return "-" if with_it is None or without_it is None else f"{100 * (with_it - without_it):+.2f}"


def details_table(table: StudyTable) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the details: parameters, chosen epoch, accuracies and time of each row."""
    heads = ["", "protocol", "seeds", "parameters", "chosen epoch", "train accuracy there", "val accuracy at the end",
             "time per run"]  # fmt: skip
    rows = []
    for result in table.results:
        runs = result.group.runs
        chosen = [run.metrics.best_epoch for run in runs]
        then = [run.history[run.metrics.best_epoch - 1]["accuracy/train"] for run in runs]
        rows.append([
            result.row.title, result.protocol, ", ".join(str(run.seed) for run in runs),
            f"{runs[0].metrics.parameters or 0:,}",
            f"{', '.join(map(str, chosen))} of {len(runs[0].history)}", f"{100 * fmean(then):.1f} %",
            f"{100 * result.last_accuracy:.2f} %", clock(median(run.metrics.train_seconds or 0.0 for run in runs)),
        ])  # fmt: skip
    return heads, rows


def lengths_table(table: StudyTable) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the best val accuracy within the first 3, 6, ... epochs."""
    heads = ["best within", "protocol", *(f"{length} epochs" for length in LENGTHS)]
    rows = []
    for protocol in PROTOCOLS:
        for result in (result for result in table.results if _is_cnn(result, protocol)):
            best = [_best_until(result, length) for length in LENGTHS]
            rows.append(
                [result.row.title, protocol, *("-" if value is None else f"{100 * value:.2f} %" for value in best)]
            )
    return heads, rows


def _best_until(result: RowResult, length: int) -> float | None:
    """Return the mean over the seeds of the best val accuracy in the first ``length`` epochs; None for shorter runs."""
    runs = result.group.runs
    if any(len(run.history) < length for run in runs):
        return None
    return fmean(max(row["accuracy/val"] for row in run.history[:length]) for run in runs)


def markdown(table: StudyTable) -> str:
    """Return all tables as Markdown."""
    parts = ["# Replication of the founding study"]
    parts += [f"**Not the experiments as published: {table.changes}.**"] if table.changes else []
    parts += [markdown_table(*main_table(table)), "![accuracy in the study and here](figures/study.png)"]
    gains = gains_table(table)
    parts += ["## Gains by the schedule and augmentation", markdown_table(*gains)] if gains[1] else []
    parts += [f"![accuracy by epoch, {protocol}](figures/courses_{protocol}.png)" for protocol in drawable(table)]
    parts += ["## How long to train", markdown_table(*lengths_table(table))] if drawable(table) else []
    parts += ["## Details", markdown_table(*details_table(table))]
    parts += ["\n".join(f"- {line}" for line in (*EXPLAINED, *table.notes))]
    return "\n\n".join(parts) + "\n"


def text(table: StudyTable) -> str:
    """Return all tables as text for a terminal."""
    parts = [f"*** not the experiments as published: {table.changes} ***"] if table.changes else []
    parts += [text_table(*main_table(table))]
    gains = gains_table(table)
    parts += [text_table(*gains)] if gains[1] else []
    parts += [text_table(*lengths_table(table))] if drawable(table) else []
    return "\n\n".join([*parts, text_table(*details_table(table)), "\n".join([*EXPLAINED, *table.notes])])


def write_csv(file: Path, table: StudyTable) -> None:
    """Write a row for each run, in full precision."""
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["experiment", "pretrained", "protocol", "seed", "accuracy", "accuracy_low", "accuracy_high",
                         "macro_f1", "best_epoch", "epochs", "train_seconds", "commit", "run"])  # fmt: skip
        for result in table.results:
            for run in result.group.runs:
                metrics = run.metrics
                accuracy = metrics.scores.accuracy
                scores = [accuracy.value, *(accuracy.ci95 or ("", "")), metrics.number("macro_f1"), metrics.best_epoch]
                more = [metrics.epochs, metrics.train_seconds, metrics.commit, run.folder]
                writer.writerow([result.row.experiment, run.pretrained, result.protocol, run.seed, *scores, *more])


def drawable(table: StudyTable) -> list[str]:
    """Return the protocols with a CNN whose accuracy by epoch can be drawn."""
    return [protocol for protocol in PROTOCOLS if any(_is_cnn(result, protocol) for result in table.results)]


def _is_cnn(result: RowResult, protocol: str) -> bool:
    return result.protocol == protocol and result.row in CNNS


def draw(table: StudyTable, folder: Path) -> None:
    """Write ``study.png``, ``courses_<protocol>.png`` and the same as SVG.

    Raises:
        OSError: the folder may not be written.
    """
    from fer.reports import plotting
    from fer.reports.study import figures as study_figures  # matplotlib takes half a second to import

    def estimate(result: RowResult) -> study_figures.Estimate:
        return study_figures.Estimate(result.accuracy, result.interval.low, result.interval.high)

    rows = []
    for row in ROWS:
        ours = {result.protocol: estimate(result) for result in table.results if result.row is row}
        if ours or row.accuracy is not None:
            rows.append((row.title.replace(", ", "\n", 1), row.accuracy, ours))
    with plotting.style():
        plotting.save(study_figures.accuracies(rows), folder, "study")
        for protocol in drawable(table):
            bands = [_band(result) for result in table.results if _is_cnn(result, protocol)]
            plotting.save(study_figures.curves(bands), folder, f"courses_{protocol}")


def _band(result: RowResult) -> Any:
    from fer.reports.study.figures import Band

    shortest = min(len(run.history) for run in result.group.runs)  # a run may have stopped early
    val, train = ([[row[f"accuracy/{split}"] for row in run.history[:shortest]] for run in result.group.runs]
                  for split in ("val", "train"))  # fmt: skip
    return Band(result.row.title, val, train)
