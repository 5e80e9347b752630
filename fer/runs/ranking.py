"""Rankings of runs on val.

A group is the runs of one configuration with different seeds. Groups are ranked together if they are comparable: the
same faces were scored under the same labels after training on the same data. Fingerprint, split, labels, classes and
the digest of the scored rows decide it. Keys that only name data do not count. Each group shows the settings that
differ, and tests compare the groups. Differing keys of a choice such as ``model=mlp`` appear as the choice, unless a
command line named the key.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.metrics.statistics import (
    ALPHA,
    Difference,
    Interval,
    McNemar,
    Seeds,
    accuracy_interval,
    clipped_to_share,
    holm,
    mcnemar,
    paired_difference,
    sampling_sd,
    summarise_seeds,
)
from fer.metrics.table import METRICS
from fer.runs.metrics import RunMetrics
from fer.system.text import clock

EVERYWHERE = "experiment"  # a group of choices that may set keys of every section
ORDER = (EVERYWHERE, "model", "data", "augment", "loss", "optimizer", "scheduler", "trainer")  # of the columns
BRIEF = 40  # characters of a label with all differing settings
MARKS = (  # legend of every table of a ranking
    "Val accuracy in per cent, mean ± standard deviation over the seeds.",
    "95 % seeds: interval for other seeds on the same faces (Student's interval of the mean; its standard deviation is "
    "at least the one that chance gives). 95 % faces: interval for other faces and the same networks (Wilson's).",
    "To the best: difference to the highest val accuracy on the same faces, with its 95 % interval for other faces and "
    "other seeds; °: for other faces only, since one of the two has one seed.",
    "*: differs from the best, p < 0.05 after Holm's adjustment for all pairs of the ranking; intervals are not "
    "adjusted.",
    "Best epoch and best configuration are chosen on val, so both values are optimistic.",
)


@dataclass(frozen=True)
class Column:
    """A column of a leaderboard.

    Args:
        head: head of the column.
        written: function that returns a value as text.
        rising: whether higher is better.
    """

    head: str
    written: Callable[[float], str]
    rising: bool = True


def _of_metric(name: str) -> Column:
    metric = METRICS[name]
    return Column(metric.head or metric.title, metric.written, metric.rising)


COLUMNS: Mapping[str, Column] = {  # name in metrics.json -> column
    **{name: _of_metric(name) for name in ("accuracy", "macro_f1", "balanced_accuracy", "nll", "ece")},
    "parameters": Column("parameters", lambda value: f"{value:,.0f}", rising=False),
    "train_seconds": Column("time", clock, rising=False),
    "images_per_second": Column("images/s", lambda value: f"{value:,.0f}"),
    "peak_memory_mb": Column("memory, MB", lambda value: f"{value:,.0f}", rising=False),
    "best_epoch": Column("epoch", lambda value: f"{value:.1f}".removesuffix(".0"), rising=False),
}


@dataclass(frozen=True)
class Setting:
    """The data of a run; two runs are ranked together if these are equal.

    Args:
        data: name of the data set, and size of its faces; shown only, since a copy may have another name.
        fingerprint: digest of pixels, labels and splits.
        labels: source of the labels.
        classes: emotions in order.
        stand_in: whether drawn faces replaced data that were not found.
        split: rule of the split.
        scored: split that was scored.
        faces: number of scored faces.
        digest: digest of their rows and labels.
        split_seed: seed of a random split; shown only, since the digest compares the scored faces themselves.
    """

    data: str = field(compare=False)
    fingerprint: str
    labels: str
    classes: tuple[str, ...]
    stand_in: bool
    split: str
    scored: str
    faces: int
    digest: str
    split_seed: int | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        """Data, split and number of faces, as a title."""
        return f"{self.data}, split {self.split}, {self.faces:,} faces of {self.scored}"

    def facts(self) -> dict[str, str]:
        """Return name -> text of all fields; two unequal settings differ in at least one text."""
        seed = "" if self.split_seed is None else f", drawn with seed {self.split_seed}"
        return {
            "data": f"{self.data} ({self.fingerprint[:12]})",
            "labels": self.labels,
            "emotions": ", ".join(self.classes),
            "drawn faces": "in place of data that were not found" if self.stand_in else "not in place of other data",
            "split": f"{self.split}{seed}",
            "faces scored": f"{self.faces:,} of {self.scored} ({self.digest[:12]})",
        }


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its settings and its results.

    Args:
        folder: run folder.
        settings: dotted key -> value of the settings that change the result, without the seed and the data.
        choices: group -> choice, such as augment -> basic.
        overridden: keys and groups on the command line.
        metrics: of its ``metrics.json``.
        setting: data under which the run may be ranked.
        history: rows of ``history.csv``, one for each epoch.
        correct: (N,) whether the run is right on each scored face, in the order of their rows.
    """

    folder: Path
    settings: Mapping[str, object]
    choices: Mapping[str, str]
    overridden: frozenset[str]
    metrics: RunMetrics
    setting: Setting
    history: Sequence[Mapping[str, float]]
    correct: NDArray[np.bool_]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.metrics.seed

    @property
    def pretrained(self) -> str:
        """Name of the pretrained weights, or "none"."""
        return self.metrics.pretrained.name if self.metrics.pretrained else "none"

    @cached_property
    def configuration(self) -> str:
        """Settings and pretrained weights as text; equal for runs that differ in seed and data only."""
        return json.dumps([sorted(self.settings.items()), self.pretrained])

    def same_faces(self, other: "Run") -> bool:
        """Return whether both runs were scored on the same faces under the same labels, as a paired test requires."""
        a, b = self.setting, other.setting
        return (a.digest, a.fingerprint, a.classes) == (b.digest, b.fingerprint, b.classes)


class OnTest(NamedTuple):
    """The test evaluations of one chosen run.

    Args:
        heading: title with the run's folder.
        table: heads, and a row for each evaluation.
    """

    heading: str
    table: tuple[list[str], list[list[str]]]


def digest(rows: NDArray[np.int64], targets: Sequence[str]) -> str:
    """Return a sha256 of the scored faces' rows and labels.

    Args:
        rows: (N,) row in the source.
        targets: N names of classes.
    """
    return hashlib.sha256(json.dumps([rows.tolist(), list(targets)]).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one configuration, one for each seed.

    Args:
        runs: runs in the order of their seeds.
        repeats: earlier runs of a seed that ran again; they do not count.
    """

    runs: Sequence[Run]
    repeats: Sequence[Run] = ()

    @property
    def settings(self) -> Mapping[str, object]:
        """Settings of all runs in the group."""
        return self.runs[0].settings

    @cached_property
    def accuracy(self) -> Seeds:
        """Val accuracy over the seeds."""
        least = sampling_sd(self.correct) if len(self.runs) > 1 else 0.0
        seeds = summarise_seeds([run.metrics.accuracy for run in self.runs], least)
        return seeds._replace(interval=None if seeds.interval is None else clipped_to_share(seeds.interval))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(K, N) whether each of K seeds is right on each of N faces."""
        return np.stack([run.correct for run in self.runs])

    @cached_property
    def over_faces(self) -> Interval:
        """95 % interval of the accuracy for other faces and the same networks."""
        return accuracy_interval(self.correct)

    def metric(self, name: str) -> Seeds | None:
        """Return a metric of ``metrics.json`` over the seeds; None where a run lacks it."""
        values = [run.metrics.number(name) for run in self.runs]
        known = [float(value) for value in values if value is not None]
        return summarise_seeds(known) if len(known) == len(values) else None

    def written(self, name: str) -> str:
        """Return the mean of a metric over the seeds as text; "-" where a run lacks it."""
        seeds = self.metric(name)
        return "-" if seeds is None else COLUMNS[name].written(seeds.mean)

    def recall(self, emotion: str) -> Seeds:
        """Return the recall of a class over the seeds."""
        return summarise_seeds([run.metrics.scores.per_class[emotion].recall.number for run in self.runs])

    def choice(self, group: str) -> str | None:
        """Return the choice of all runs in a group of choices such as "model"; None where they differ."""
        chosen = {run.choices.get(group) for run in self.runs}
        return chosen.pop() if len(chosen) == 1 else None


@dataclass(frozen=True, eq=False)
class Ranking:
    """Groups that may be ranked together.

    Args:
        setting: common data.
        groups: groups in order, the best first.
        columns: keys and groups of choices in which the groups differ.
    """

    setting: Setting
    groups: Sequence[Group]
    columns: Sequence[str]

    def label(self, group: Group) -> str:
        """Return a short name of a group: its model, and the settings that are unusual among groups of the model."""
        return self._labels[self.groups.index(group)]

    @cached_property
    def brief(self) -> bool:
        """Whether all differing settings fit into one label of ``BRIEF`` characters."""
        return max(len(self._words(group, self.columns)) for group in self.groups) <= BRIEF

    @cached_property
    def _labels(self) -> list[str]:
        if self.brief:
            return [self._words(group, self.columns) or "one configuration" for group in self.groups]
        by_model: dict[str | None, list[Group]] = {}
        for group in self.groups:
            by_model.setdefault(group.choice("model"), []).append(group)
        labels = []
        for group in self.groups:
            alike = by_model[group.choice("model")]
            unusual = [name for name in self.columns if name == "model" or cell(group, name) != _usual(alike, name)]
            labels.append(self._words(group, unusual) or (group.runs[0].metrics.architecture or "the usual"))
        return labels

    def _words(self, group: Group, columns: Sequence[str]) -> str:
        cells = [(short_name(column, self.columns), cell(group, column)) for column in columns]
        return ", ".join(text if name == "model" else f"{name} {text}" for name, text in cells)

    @cached_property
    def best(self) -> Group:
        """The group with the highest mean val accuracy."""
        return max(self.groups, key=lambda group: group.accuracy.mean)

    @cached_property
    def pairs(self) -> dict[tuple[int, int], tuple[Difference, float]]:
        """Each pair of indices, the smaller first -> difference, and p-value adjusted for all pairs (Holm)."""
        indices = list(combinations(range(len(self.groups)), 2))
        differences = [paired_difference(self.groups[i].correct, self.groups[j].correct) for i, j in indices]
        adjusted = holm([difference.p for difference in differences])
        return dict(zip(indices, zip(differences, adjusted, strict=True), strict=True))

    def difference(self, first: Group, second: Group) -> tuple[Difference, float]:
        """Return the accuracy of ``first`` minus that of ``second``, and the adjusted p-value."""
        i, j = self.groups.index(first), self.groups.index(second)
        if i < j:
            return self.pairs[i, j]
        reverse, p = self.pairs[j, i]
        low, high = reverse.interval
        return reverse._replace(value=0.0 - reverse.value, interval=Interval(-high, -low)), p

    def machines(self) -> list[str]:
        """Return the machines of the trainings, in words; times on different machines cannot be compared."""
        return list(dict.fromkeys(run.metrics.machine for group in self.groups for run in group.runs))


# --- grouping -------------------------------------------------------------------------------------------------------


def rankings(runs: Iterable[Run], by: str = "accuracy") -> list[Ranking]:
    """Return runs in groups and groups in rankings, the largest ranking first.

    Args:
        runs: runs in any order.
        by: column that sorts the groups, a key of ``COLUMNS``.
    """
    by_setting: dict[Setting, list[Run]] = {}
    for run in runs:
        by_setting.setdefault(run.setting, []).append(run)
    made = []
    for setting, comparable in by_setting.items():
        groups = sorted(grouped(comparable), key=lambda group: _order(group, by))
        made.append(Ranking(setting, groups, columns(groups)))
    return sorted(made, key=lambda ranking: -sum(len(group.runs) for group in ranking.groups))


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Return the groups of runs of one configuration; of several runs with one seed the last finished one counts."""
    by_configuration: dict[str, dict[int, list[Run]]] = {}
    for run in runs:
        by_configuration.setdefault(run.configuration, {}).setdefault(run.seed, []).append(run)
    groups = []
    for seeds in by_configuration.values():
        ordered = [sorted(seeds[seed], key=ended) for seed in sorted(seeds)]
        groups.append(Group([same[-1] for same in ordered], [run for same in ordered for run in same[:-1]]))
    return groups


def ended(run: Run) -> str:
    """Return the time of a run's end, to sort by; runs without it come first."""
    return run.metrics.finished or ""


def _order(group: Group, by: str) -> tuple[bool, float, float]:
    """Return a group's sort key: by a metric, the best first and groups without it last, then by accuracy."""
    seeds = group.metric(by)
    sign = -1 if COLUMNS[by].rising else 1
    return seeds is None, 0.0 if seeds is None else sign * seeds.mean, -group.accuracy.mean


# --- differing settings ---------------------------------------------------------------------------------------------


def columns(groups: Sequence[Group]) -> list[str]:
    """Return the groups of choices and the keys in which groups of runs differ.

    A choice replaces the keys that follow from it: ``model=mlp`` and ``model=cnn`` differ in one column, not in one for
    each of their keys. A key on a command line has its own column, and so has a key that differs within a choice.
    """
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    differing = [key for key in keys if _varies(spelled(group.settings, key) for group in groups)]
    sections = list(dict.fromkeys(choice for group in groups for run in group.runs for choice in run.choices))
    overridden = {key for group in groups for run in group.runs for key in run.overridden}
    chosen: dict[str, None] = {}
    left = []
    for key in differing:
        section = key.partition(".")[0]
        follows = [name for name in (section, EVERYWHERE) if name in sections and _follows(groups, key, name)]
        if key in overridden or not follows:
            left.append(key)
        else:
            chosen[follows[0]] = None
    ordered = sorted(chosen, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    weights = ["pretrained"] if any(group.runs[0].pretrained != "none" for group in groups) else []
    return [*ordered, *weights, *left]


def _varies(values: Iterable[str]) -> bool:
    return len(set(values)) > 1


def _follows(groups: Sequence[Group], key: str, name: str) -> bool:
    """Return whether each choice of a group of choices has one value of the key."""
    values: dict[str, set[str]] = {}
    for group in groups:
        choice = group.choice(name)
        if choice is None:
            return False
        values.setdefault(choice, set()).add(spelled(group.settings, key))
    return all(len(distinct) == 1 for distinct in values.values())


def _usual(groups: Sequence[Group], column: str) -> str:
    """Return the most frequent text of a column; of several the first."""
    return Counter(cell(group, column) for group in groups).most_common(1)[0][0]


def cell(group: Group, column: str) -> str:
    """Return the text of a group in a column."""
    if column == "pretrained":
        return group.runs[0].pretrained
    return spelled(group.settings, column) if column in group.settings or "." in column else group.choice(column) or "-"


def spelled(settings: Mapping[str, object], key: str) -> str:
    """Return a setting's value as in YAML; "-" for a missing key."""
    value = settings.get(key, "-")
    return value if isinstance(value, str) else json.dumps(value)


def short_name(column: str, columns: Sequence[str]) -> str:
    """Return a column's name without its section, unless another column has the same last part."""
    last = column.rpartition(".")[2]
    return last if [name.rpartition(".")[2] for name in columns].count(last) == 1 else column


def data_differences(made: Sequence[Ranking]) -> list[str]:
    """Return the differences between the data of several rankings, in words."""
    facts = differing([ranking.setting for ranking in made])
    return [f"different {name}: {'; '.join(texts)}" for name, texts in facts.items()]


def differing(settings: Sequence[Setting]) -> dict[str, list[str]]:
    """Return name -> distinct texts of the facts in which settings differ; data of one fingerprint are the same."""
    names = {setting.fingerprint: setting.data for setting in settings}  # a copy may have another name
    facts = [replace(setting, data=names[setting.fingerprint]).facts() for setting in settings]
    texts = {name: list(dict.fromkeys(fact[name] for fact in facts)) for name in (facts[0] if facts else ())}
    return {name: distinct for name, distinct in texts.items() if len(distinct) > 1}


# --- two runs -------------------------------------------------------------------------------------------------------


def tested(first: Run, second: Run) -> McNemar:
    """Return McNemar's exact test of two runs on the same faces."""
    return mcnemar(first.correct, second.correct)


def interval_text(interval: Interval, sign: str = "") -> str:
    """Return an interval of shares in per cent as text; ``sign="+"`` for differences."""
    return f"[{100 * interval.low:{sign}.2f}, {100 * interval.high:{sign}.2f}]"


def p_text(p: float) -> str:
    """Return a p-value as text, with more digits for smaller values."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def significant(p: float) -> bool:
    """Return whether a p-value (adjusted, for several comparisons) is below 0.05."""
    return p < ALPHA
