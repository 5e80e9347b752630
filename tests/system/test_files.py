"""Metrics in words, of files of today and of before."""

import pytest

from fer.reports.summary import calibration_verdict, metric_table, score_table, worded
from fer.system.files import calibration_beside

SCORES = {
    "split": "val", "n": 3589, "accuracy": 0.7, "accuracy_ci95": [0.6, 0.8], "macro_f1": 0.6, "balanced_accuracy": 0.6,
    "nll": 1.0, "ece_if_calibrated": 0.0245,
}  # fmt: skip


@pytest.mark.parametrize(("ece", "verdict"), [(0.0246, "above chance"), (0.0245, "within chance")])
def test_an_ece_stands_beside_what_chance_makes_it(ece, verdict):
    held = {**SCORES, "ece": ece, "ece_if_calibrated_mean": 0.0176, "ece_rms_debiased": -0.0031}
    told = f"{ece:.4f}  {verdict} (95th percentile 0.0245)"
    assert worded("ece", held) == told
    assert told in score_table(held)
    assert calibration_beside(held) == "mean of a calibrated network 0.0176; debiased, RMS -0.0031"
    rows = [line.split("  ")[0] for line in metric_table(held).splitlines()]
    assert rows[-3:] == ["ECE, 15 bins of equal width", "... mean of a calibrated network", "... debiased, RMS"]


def test_metrics_of_before_have_the_percentile_alone():
    held = {**SCORES, "ece": 0.03}
    assert worded("ece", held) == "0.0300  above chance (95th percentile 0.0245)"
    assert "(95th percentile 0.0245)\n" in score_table(held) + "\n"
    assert "calibrated network" not in metric_table(held)
    assert worded("ece", {"ece": 0.03}) == "0.0300"
    assert calibration_verdict("nll", held) == ""
