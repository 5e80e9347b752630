"""Runs side by side: which may be ranked together, which did the same, what tells the others apart, who is ahead.

Runs of one configuration but for the seed are a group. Groups are ranked together where the same faces were scored
under the same labels after training on the same data; other groups get a ranking of their own. Val alone is looked at.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.metrics.statistics import (
    ALPHA,
    Difference,
    Interval,
    McNemar,
    Seeds,
    by_chance,
    holm,
    mcnemar,
    of_a_share,
    of_faces,
    of_seeds,
    paired_difference,
)
from fer.metrics.table import METRICS
from fer.system.text import clock

EVERYWHERE = "experiment"  # a group of choices that may set keys of every section
ORDER = (EVERYWHERE, "model", "data", "augment", "loss", "optimizer", "scheduler", "trainer")  # of the columns
BRIEF = 40  # characters of a label that may tell all that differs
MARKS = (  # what every table of a ranking has to say
    "Val accuracy in per cent, mean ± standard deviation over the seeds.",
    "95 % seeds: for other seeds, on these very faces (Student's interval of the mean, counting on the standard "
    "deviation that chance alone gives at the least). 95 % faces: for other faces, by these very networks (Wilson's).",
    "To the best: difference to the highest val accuracy on the same faces, with its 95 % interval for other faces and "
    "other seeds; °: for other faces alone, since one of the two has one seed.",
    "*: differs from the best, p < 0.05 after Holm's adjustment for all pairs of the ranking; intervals are not "
    "adjusted.",
    "Best epoch and best configuration are chosen on val, which flatters both.",
)


@dataclass(frozen=True)
class Column:
    """A column of a leaderboard.

    Args:
        head: of the column.
        written: a value as text.
        rising: higher is better.
    """

    head: str
    written: Callable[[float], str]
    rising: bool = True


def _of_metric(name: str) -> Column:
    metric = METRICS[name]
    return Column(metric.head or metric.title, metric.written, metric.rising)


COLUMNS: Mapping[str, Column] = {  # name in metrics.json -> how it is shown
    **{name: _of_metric(name) for name in ("accuracy", "macro_f1", "balanced_accuracy", "nll", "ece")},
    "parameters": Column("parameters", lambda value: f"{value:,.0f}", rising=False),
    "train_seconds": Column("time", clock, rising=False),
    "images_per_second": Column("images/s", lambda value: f"{value:,.0f}"),
    "peak_memory_mb": Column("memory, MB", lambda value: f"{value:,.0f}", rising=False),
    "best_epoch": Column("epoch", lambda value: f"{value:.1f}".removesuffix(".0"), rising=False),
}


@dataclass(frozen=True)
class Setting:
    """What must be equal for two runs to be ranked together.

    Args:
        data: the data set's name and the size its faces were read at.
        fingerprint: of its pixels, labels and splits.
        labels: whose labels.
        classes: the emotions, in order.
        stand_in: whether drawn faces stood in for data that were not found.
        split: the rule that split them.
        scored: the split that was scored.
        faces: how many were.
        digest: of their rows and labels.
        split_seed: of a drawn split; told, and not compared, since the faces scored tell it better.
    """

    data: str
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
        """In a few words."""
        return f"{self.data}, split {self.split}, {self.faces:,} faces of {self.scored}"

    def facts(self) -> dict[str, str]:
        """Return what it is made of, name -> text; two settings differ in at least one."""
        seed = "" if self.split_seed is None else f", drawn with seed {self.split_seed}"
        return {
            "data": f"{self.data} ({self.fingerprint[:12]})",
            "labels": self.labels,
            "emotions": ", ".join(self.classes),
            "drawn faces": "stood in for data that were not found" if self.stand_in else "did not stand in",
            "split": f"{self.split}{seed}",
            "faces scored": f"{self.faces:,} of {self.scored} ({self.digest[:12]})",
        }


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: what it was told, and what came out.

    Args:
        folder: of the run.
        settings: dotted key -> value of what bears on the result, the seed and the data apart.
        choices: group -> choice, such as augment -> basic.
        asked: keys and groups that the command line named.
        metrics: as in ``metrics.json``.
        setting: under which it may be ranked.
        history: a row an epoch, as in ``history.csv``.
        correct: (N,), whether it is right on each face scored, in the order of their rows.
    """

    folder: Path
    settings: Mapping[str, Any]
    choices: Mapping[str, str]
    asked: frozenset[str]
    metrics: Mapping[str, Any]
    setting: Setting
    history: Sequence[Mapping[str, float]]
    correct: NDArray[np.bool_]

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.metrics["seed"])

    @property
    def pretrained(self) -> str:
        """Name of the weights it began with."""
        return str((self.metrics.get("pretrained") or {}).get("name", "none"))

    @cached_property
    def told(self) -> str:
        """What it computes, its seed and its data apart: equal for equal ones."""
        return json.dumps([sorted(self.settings.items()), self.pretrained])

    def same_faces(self, other: "Run") -> bool:
        """Return whether both were scored on the same faces under the same labels: what a paired test needs."""
        mine, others = self.setting, other.setting
        return (mine.digest, mine.fingerprint, mine.classes) == (others.digest, others.fingerprint, others.classes)


class Looks(NamedTuple):
    """What one chosen run has done on test.

    Args:
        heading: names the run.
        table: heads, and a row a look.
    """

    heading: str
    table: tuple[list[str], list[list[str]]]


def digest(rows: NDArray[np.int64], targets: Sequence[str]) -> str:
    """Return a sha256 of which faces were scored, and of their labels.

    Args:
        rows: (N,) in the source.
        targets: N names of classes.
    """
    told = json.dumps([rows.tolist(), list(targets)])
    return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one configuration, a seed each.

    Args:
        runs: by seed.
        repeats: earlier runs of a seed that was run again; they do not count.
    """

    runs: Sequence[Run]
    repeats: Sequence[Run] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """What all its runs were told."""
        return self.runs[0].settings

    @cached_property
    def accuracy(self) -> Seeds:
        """Val accuracy over the seeds."""
        least = by_chance(self.correct) if len(self.runs) > 1 else 0.0
        found = of_seeds([run.metrics["accuracy"] for run in self.runs], least)
        return found._replace(interval=None if found.interval is None else of_a_share(found.interval))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(K, N), whether each seed is right on each face."""
        return np.stack([run.correct for run in self.runs])

    @cached_property
    def over_faces(self) -> Interval:
        """95 % interval of the accuracy over other faces, the networks being these."""
        return of_faces(self.correct)

    def figure(self, name: str) -> Seeds | None:
        """Return a figure of ``metrics.json`` over the seeds; None where a run does not tell it."""
        values = [run.metrics.get(name) for run in self.runs]
        known = [float(value) for value in values if value is not None]
        return of_seeds(known) if len(known) == len(values) else None

    def written(self, name: str) -> str:
        """Return the mean of a figure over the seeds, as text; "-" where a run does not tell it."""
        seeds = self.figure(name)
        return "-" if seeds is None else COLUMNS[name].written(seeds.mean)

    def recall(self, emotion: str) -> Seeds:
        """Return the recall of a class over the seeds."""
        return of_seeds([run.metrics["per_class"][emotion]["recall"] for run in self.runs])

    def choice(self, group: str) -> str | None:
        """Return what all its runs chose of a group of choices; None where they did not choose the same."""
        chosen = {run.choices.get(group) for run in self.runs}
        return chosen.pop() if len(chosen) == 1 else None


@dataclass(frozen=True, eq=False)
class Ranking:
    """Groups that may be ranked together.

    Args:
        setting: which they share.
        groups: in order; the first is ahead.
        columns: keys and groups of choices in which they differ.
    """

    setting: Setting
    groups: Sequence[Group]
    columns: Sequence[str]

    def label(self, group: Group) -> str:
        """Return what tells a group from the others: its model, and what is not usual among those of its model."""
        return self._labels[self.groups.index(group)]

    @cached_property
    def brief(self) -> bool:
        """Whether what differs is so little that labels tell all of it."""
        return max(len(self._words(group, self.columns)) for group in self.groups) <= BRIEF

    @cached_property
    def _labels(self) -> list[str]:
        if self.brief:
            return [self._words(group, self.columns) or "one configuration" for group in self.groups]
        likes: dict[str | None, list[Group]] = {}
        for group in self.groups:
            likes.setdefault(group.choice("model"), []).append(group)
        labels = []
        for group in self.groups:
            like = likes[group.choice("model")]
            telling = [name for name in self.columns if name == "model" or cell(group, name) != _usual(like, name)]
            labels.append(self._words(group, telling) or str(group.runs[0].metrics.get("architecture", "the usual")))
        return labels

    def _words(self, group: Group, columns: Sequence[str]) -> str:
        named = [(short(column, self.columns), cell(group, column)) for column in columns]
        return ", ".join(text if name == "model" else f"{name} {text}" for name, text in named)

    @cached_property
    def ahead(self) -> Group:
        """The group of the highest mean val accuracy."""
        return max(self.groups, key=lambda group: group.accuracy.mean)

    @cached_property
    def pairs(self) -> dict[tuple[int, int], tuple[Difference, float]]:
        """Each pair of places, the smaller first -> its difference, and its p-value adjusted for all pairs (Holm)."""
        places = list(combinations(range(len(self.groups)), 2))
        found = [paired_difference(self.groups[i].correct, self.groups[j].correct) for i, j in places]
        adjusted = holm([one.p for one in found])
        return dict(zip(places, zip(found, adjusted, strict=True), strict=True))

    def difference(self, first: Group, second: Group) -> tuple[Difference, float]:
        """Return first minus second, and its adjusted p-value."""
        i, j = self.groups.index(first), self.groups.index(second)
        if i < j:
            return self.pairs[i, j]
        found, p = self.pairs[j, i]
        low, high = found.interval
        return found._replace(value=0.0 - found.value, interval=Interval(-high, -low)), p

    def machines(self) -> list[str]:
        """Return the machines its runs were trained on, in words; times of several do not compare."""
        return list(dict.fromkeys(machine(run.metrics) for group in self.groups for run in group.runs))


def machine(metrics: Mapping[str, Any]) -> str:
    """Return what a run was trained on, in words."""
    about = metrics.get("hardware") or {}
    if not about:
        return "a machine that is not told"
    threads = about.get("threads")
    return f"{about.get('gpu') or about.get('cpu')}, {threads} thread{'' if threads == 1 else 's'}"


# --- grouping -------------------------------------------------------------------------------------------------------


def rankings(runs: Iterable[Run], by: str = "accuracy") -> list[Ranking]:
    """Return runs in groups, groups in rankings, the largest ranking first.

    Args:
        runs: in any order.
        by: what sorts the groups, of ``COLUMNS``.
    """
    apart: dict[Setting, list[Run]] = {}
    for run in runs:
        apart.setdefault(run.setting, []).append(run)
    made = []
    for setting, own in apart.items():
        groups = sorted(grouped(own), key=lambda group: _order(group, by))
        made.append(Ranking(setting, groups, columns(groups)))
    return sorted(made, key=lambda ranking: -sum(len(group.runs) for group in ranking.groups))


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Return runs by what they were told but for the seed; of several of one seed the one that ended last counts."""
    alike: dict[str, dict[int, list[Run]]] = {}
    for run in runs:
        alike.setdefault(run.told, {}).setdefault(run.seed, []).append(run)
    groups = []
    for seeds in alike.values():
        ordered = [sorted(seeds[seed], key=ended) for seed in sorted(seeds)]
        groups.append(Group([own[-1] for own in ordered], [run for own in ordered for run in own[:-1]]))
    return groups


def ended(run: Run) -> str:
    """Return when a run ended, to sort by; one that does not tell counts as early."""
    return str(run.metrics.get("finished", ""))


def _order(group: Group, by: str) -> tuple[bool, float, float]:
    """Return what sorts a group: by a figure, the better first and those without it last, then by accuracy."""
    seeds = group.figure(by)
    sign = -1 if COLUMNS[by].rising else 1
    return seeds is None, 0.0 if seeds is None else sign * seeds.mean, -group.accuracy.mean


# --- what tells them apart ------------------------------------------------------------------------------------------


def columns(groups: Sequence[Group]) -> list[str]:
    """Return the choices and keys in which groups differ; keys that follow from a choice are told by the choice.

    ``model=mlp`` beside ``model=cnn`` is one column, not one for each of their keys. A key that a command line named is
    shown in any case, and so is one that differs within a choice.
    """
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    differing = [key for key in keys if _varies(spelled(group.settings, key) for group in groups)]
    sections = list(dict.fromkeys(choice for group in groups for run in group.runs for choice in run.choices))
    asked = {key for group in groups for run in group.runs for key in run.asked}
    chosen: dict[str, None] = {}
    left = []
    for key in differing:
        section = key.partition(".")[0]
        told_by = [name for name in (section, EVERYWHERE) if name in sections and _follows(groups, key, name)]
        if key in asked or not told_by:
            left.append(key)
        else:
            chosen[told_by[0]] = None
    ordered = sorted(chosen, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    weights = ["pretrained"] if any(group.runs[0].pretrained != "none" for group in groups) else []
    return [*ordered, *weights, *left]


def _varies(values: Iterable[str]) -> bool:
    return len(set(values)) > 1


def _follows(groups: Sequence[Group], key: str, name: str) -> bool:
    """Return whether each choice of a group of choices goes with one value of the key."""
    values: dict[str, set[str]] = {}
    for group in groups:
        choice = group.choice(name)
        if choice is None:
            return False
        values.setdefault(choice, set()).add(spelled(group.settings, key))
    return all(len(held) == 1 for held in values.values())


def _usual(groups: Sequence[Group], column: str) -> str:
    """Return what most groups have in a column; of several the first."""
    return Counter(cell(group, column) for group in groups).most_common(1)[0][0]


def cell(group: Group, column: str) -> str:
    """Return what a group has in a column."""
    if column == "pretrained":
        return group.runs[0].pretrained
    return spelled(group.settings, column) if column in group.settings or "." in column else group.choice(column) or "-"


def spelled(settings: Mapping[str, Any], key: str) -> str:
    """Return a setting's value as YAML has it; "-" where there is no such key."""
    value = settings.get(key, "-")
    return value if isinstance(value, str) else json.dumps(value)


def short(column: str, columns: Sequence[str]) -> str:
    """Return a column's name without its section, where no other column's ends alike."""
    last = column.rpartition(".")[2]
    return last if [name.rpartition(".")[2] for name in columns].count(last) == 1 else column


def apart(made: Sequence[Ranking]) -> list[str]:
    """Return in words why rankings are not one: what differs between their settings."""
    facts = [ranking.setting.facts() for ranking in made]
    told = []
    for name in facts[0] if len(facts) > 1 else ():
        values = list(dict.fromkeys(fact[name] for fact in facts))
        if len(values) > 1:
            told.append(f"different {name}: {'; '.join(values)}")
    return told


# --- two runs -------------------------------------------------------------------------------------------------------


def tested(first: Run, second: Run) -> McNemar:
    """Return McNemar's exact test of two runs that were scored on the same faces."""
    return mcnemar(first.correct, second.correct)


def span(interval: Interval, sign: str = "") -> str:
    """Return an interval of shares in per cent, with "+" as ``sign`` in points."""
    return f"[{100 * interval.low:{sign}.2f}, {100 * interval.high:{sign}.2f}]"


def chance(p: float) -> str:
    """Return a p-value in words."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def parted(p: float) -> bool:
    """Return whether a p-value, adjusted where there are several, is below 0.05."""
    return p < ALPHA
