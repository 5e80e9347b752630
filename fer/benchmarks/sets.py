"""``python -m fer.benchmarks.sets docs/results/tiny``: coverage and size of prediction sets.

It answers two questions. Do prediction sets keep their promise? Which sets are smallest? The faces of an evaluation on
val are halved at random, many times: one half calibrates, the other is scored. The sets compared are

- those of ``fer.metrics.conformal``,
- those of randomised scores, which may be empty (Romano, Sesia & Candès 2020),
- those of penalised scores (RAPS: Angelopoulos et al. 2021),
- the plain set, the smallest whose probabilities sum to the coverage. It needs no calibration and promises nothing.

``--test`` calibrates on all faces of val and scores those of test, by emotion. One promise is over all faces together,
another for the faces of each emotion. Both are read from files, and no network is run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.config.command import Grammar, command
from fer.evaluation.scoring import set_scores
from fer.metrics.calibration import tempered
from fer.metrics.conformal import COVERAGE, WAYS, Thresholds, quantile, scores, sets
from fer.reports.summary import set_cells
from fer.runs import predictions
from fer.system.text import text_table

COVERAGES = (80, 90, 95)  # per cent
PENALTIES = (0.01, 0.05, 0.2)  # of each emotion in a set beyond the second
BY_HEADS = ("emotion", "faces of test", "over all: coverage", "size", "by emotion: coverage", "size")
HEADS = ("promised", "sets", "coverage", "sd of the halves", "mean size")

Probabilities = NDArray[np.float64]  # (N, C)


class Outcome(NamedTuple):
    """Coverage and mean size of the sets on the scored half."""

    coverage: float
    size: float


@command("fer.benchmarks.sets")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    grammar = Grammar(prog="python -m fer.benchmarks.sets", description="Coverage and size of prediction sets on val.")
    grammar.add_argument("folder", type=Path, help="run or folder of docs/results, with predictions of val")
    grammar.add_argument("--splits", type=int, default=20, help="halvings; default: %(default)s")
    grammar.add_argument("--test", action="store_true", help="both promises on the predictions of test, by emotion")
    grammar.add_argument("--tta", default="none", help="views of the predictions of --test; default: %(default)s")
    arguments, _ = grammar.begin(argv)
    if arguments.test:
        print(text_table(BY_HEADS, by_emotion(arguments.folder, arguments.tta)))
    else:
        print(text_table(HEADS, compared(arguments.folder, arguments.splits)))
    return 0


def by_emotion(folder: Path, views: str = "none") -> list[tuple[str, ...]]:
    """Return a row for all faces of test and for those of each emotion: both promises, calibrated on val.

    Args:
        folder: with predictions of val and test.
        views: of the predictions.

    Raises:
        FerError: they are missing.
    """
    (val, labels), (test, targets) = (_read(folder, split, views) for split in ("val", "test"))
    classes = predictions.read(predictions.recorded(folder, "test", views).file).classes
    thresholds = Thresholds.calibrated(val, labels)
    by_way = [sets(test, thresholds.limits(COVERAGE, way)) for way in WAYS]
    masks = {"all": targets >= 0} | {name: targets == label for label, name in enumerate(classes)}
    return [
        (name, f"{mask.sum():,}", *(cell for one in by_way for cell in set_cells(set_scores(one[mask], targets[mask]))))
        for name, mask in masks.items()
    ]


def _read(folder: Path, split: str, views: str) -> tuple[Probabilities, NDArray[np.int64]]:
    """Return calibrated probabilities (N, C) and labels (N,) of a folder's predictions of a split."""
    recorded = predictions.recorded(folder, split, views)
    known = predictions.read(recorded.file)
    targets = np.array([known.classes.index(name) for name in known.targets])
    return tempered(known.probabilities, recorded.results.temperature or 1.0), targets


def compared(folder: Path, splits: int) -> list[tuple[str, ...]]:
    """Return the rows of ``table`` for the predictions of val in a folder.

    Raises:
        FerError: it has none.
    """
    return table(*_read(folder, "val", "none"), splits)


def table(probabilities: Probabilities, targets: NDArray[np.int64], splits: int) -> list[tuple[str, ...]]:
    """Return a row a coverage and kind of set: mean coverage over the halvings, its deviation, mean size.

    Args:
        probabilities: (N, C), calibrated.
        targets: (N,) labels.
        splits: number of halvings.
    """
    kinds: dict[str, Probabilities] = {
        "of fer": scores(probabilities),
        "randomised": randomised(probabilities),
        **{f"penalised by {weight:g}": penalised(probabilities, weight) for weight in PENALTIES},
    }
    rows = []
    for percent in COVERAGES:
        for name, predicted in kinds.items():
            outcomes = [_halved(predicted, targets, percent, seed) for seed in range(splits)]
            rows.append(_row(percent, name, outcomes))
        plain = scores(probabilities) < percent / 100
        rows.append(_row(percent, "plain, all faces", [_outcome(plain, targets)]))
    return rows


def randomised(probabilities: Probabilities) -> Probabilities:
    """Return the scores (N, C) with a random part of each class's own probability."""
    return scores(probabilities) + np.random.default_rng(0).random((len(probabilities), 1)) * probabilities


def penalised(probabilities: Probabilities, weight: float) -> Probabilities:
    """Return the scores (N, C) with a penalty for each rank beyond the second."""
    ranks = (probabilities[:, None, :] > probabilities[:, :, None]).sum(2)
    penalties: Probabilities = weight * np.maximum(0, ranks - 1)
    return scores(probabilities) + penalties


def _halved(found: Probabilities, targets: NDArray[np.int64], percent: int, seed: int) -> Outcome:
    """Return the outcome on one half with the threshold of the other."""
    order = np.random.default_rng(seed).permutation(len(targets))
    first, second = np.array_split(order, 2)
    of_labels = np.sort(found[first, targets[first]])
    return _outcome(found[second] <= quantile(of_labels, percent), targets[second])


def _outcome(inside: NDArray[np.bool_], targets: NDArray[np.int64]) -> Outcome:
    return Outcome(float(inside[np.arange(len(targets)), targets].mean()), float(inside.sum(1).mean()))


def _row(percent: int, name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    covered = 100 * np.array([outcome.coverage for outcome in outcomes])
    spread = f"{covered.std(ddof=1):.2f}" if len(outcomes) > 1 else ""
    return f"{percent} %", name, f"{covered.mean():.2f} %", spread, f"{np.mean([one.size for one in outcomes]):.2f}"


if __name__ == "__main__":
    sys.exit(main(None))
