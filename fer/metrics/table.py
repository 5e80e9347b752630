"""The metrics of a network: what each is called, how it is written, which way is better. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric of N predictions, under its name in ``metrics.json``.

    Args:
        title: in tables and pages.
        head: of a narrow column; the title where it is short enough.
        percent: a share, written in per cent, its differences in points.
        rising: higher is better.
        of_faces: a share of the faces, so that its interval is Wilson's.
        binned: a calibration error by bins, or what stands beside one; no interval by samples of the faces.
        tempered: a temperature changes it.
    """

    title: str
    head: str = ""
    percent: bool = False
    rising: bool = True
    of_faces: bool = False
    binned: bool = False
    tempered: bool = False

    def written(self, value: float, *, sign: bool = False) -> str:
        """Return a value as text, without a unit; shares in per cent."""
        plus = "+" if sign else ""
        return in_per_cent(value, plus) if self.percent else f"{value:{plus}.4f}"


def in_per_cent(share: float, sign: str = "") -> str:
    """Return a share in per cent, without the unit; ``sign`` "+" writes the sign of positive ones too."""
    return f"{100 * share:{sign}.2f}"


def _binned(title: str, head: str = "") -> Metric:
    return Metric(title, head, rising=False, binned=True, tempered=True)


METRICS: Mapping[str, Metric] = {  # in the order in which files and tables have them
    "accuracy": Metric("accuracy", percent=True, of_faces=True),
    "macro_f1": Metric("macro-F1", percent=True),
    "balanced_accuracy": Metric("balanced accuracy", "balanced", percent=True),
    "top2": Metric("top-2 accuracy", percent=True, of_faces=True),
    "nll": Metric("NLL", rising=False, tempered=True),
    "brier": Metric("Brier score", rising=False, tempered=True),
    "kappa": Metric("Cohen's kappa"),
    "roc_auc": Metric("ROC AUC, one against the rest"),
    "average_precision": Metric("average precision"),
    "ece": _binned("ECE, 15 bins of equal width", "ECE"),
    "ece_if_calibrated_mean": _binned("... mean of a calibrated network"),
    "ece_rms_debiased": _binned("... debiased, RMS"),
    "ece_adaptive": _binned("ECE, 15 bins of equal numbers"),
    "ece_adaptive_if_calibrated_mean": _binned("... mean of a calibrated network"),
    "ece_adaptive_rms_debiased": _binned("... debiased, RMS"),
}
SAMPLED = tuple(name for name, metric in METRICS.items() if not metric.binned)  # with an interval
TEMPERED = tuple(name for name, metric in METRICS.items() if metric.tempered)
PERCENT = tuple(name for name, metric in METRICS.items() if metric.percent)
