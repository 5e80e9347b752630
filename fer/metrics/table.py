"""The table of metrics: title, number format, and whether higher is better. This module needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric of N predictions, under its name in ``metrics.json``.

    Args:
        title: in tables and pages.
        head: of a narrow column; empty if the title is short enough.
        percent: whether the value is a proportion, written in per cent, and its differences in percentage points.
        rising: whether higher is better.
        binned: whether the value is a calibration error in bins, or belongs to one; it has no bootstrap interval.
        tempered: whether the temperature changes the value.
    """

    title: str
    head: str = ""
    percent: bool = False
    rising: bool = True
    binned: bool = False
    tempered: bool = False

    def written(self, value: float, *, sign: bool = False) -> str:
        """Return a value as text without a unit; proportions in per cent."""
        plus = "+" if sign else ""
        return in_per_cent(value, plus) if self.percent else f"{value:{plus}.4f}"


def in_per_cent(share: float, sign: str = "") -> str:
    """Return a proportion in per cent without the unit; ``sign="+"`` writes the sign of positive values too."""
    return f"{100 * share:{sign}.2f}"


def _binned(title: str, head: str = "") -> Metric:
    return Metric(title, head, rising=False, binned=True, tempered=True)


METRICS: Mapping[str, Metric] = {  # in the order of files and tables
    "accuracy": Metric("accuracy", percent=True),
    "macro_f1": Metric("macro-F1", percent=True),
    "balanced_accuracy": Metric("balanced accuracy", "balanced", percent=True),
    "top2": Metric("top-2 accuracy", percent=True),
    "nll": Metric("NLL", rising=False, tempered=True),
    "brier": Metric("Brier score", rising=False, tempered=True),
    "kappa": Metric("Cohen's kappa"),
    "roc_auc": Metric("ROC AUC, one-vs-rest"),
    "average_precision": Metric("average precision"),
    "ece": _binned("ECE, 15 bins of equal width", "ECE"),
    "ece_if_calibrated_mean": _binned("... mean of a calibrated network"),
    "ece_rms_debiased": _binned("... debiased, RMS"),
    "ece_adaptive": _binned("ECE, 15 bins of equal numbers"),
    "ece_adaptive_if_calibrated_mean": _binned("... mean of a calibrated network"),
    "ece_adaptive_rms_debiased": _binned("... debiased, RMS"),
}
SAMPLED = tuple(name for name, metric in METRICS.items() if not metric.binned)  # with a bootstrap interval
TEMPERED = tuple(name for name, metric in METRICS.items() if metric.tempered)
PERCENT = tuple(name for name, metric in METRICS.items() if metric.percent)
