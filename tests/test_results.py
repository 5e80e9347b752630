"""Metrics in words, of files of today and of before."""

import pytest

from fer.results import calibration_verdict, score_table, worded


@pytest.mark.parametrize(("ece", "verdict"), [(0.0246, "above chance"), (0.0245, "within chance")])
def test_an_ece_stands_beside_what_chance_makes_it(ece, verdict):
    held = {"ece": ece, "ece_if_calibrated": 0.0245, "ece_if_calibrated_mean": 0.0176, "ece_rms_debiased": -0.0031}
    told = f"{verdict} (95th percentile 0.0245, mean 0.0176)"
    assert worded("ece", held) == f"{ece:.4f}  {told}; debiased RMS -0.0031"
    scores = {"split": "val", "n": 3589, "accuracy": 0.7, "accuracy_ci95": [0.6, 0.8], "macro_f1": 0.6, "nll": 1.0}
    assert f"{ece:.4f}, {told}" in score_table({**scores, "balanced_accuracy": 0.6, **held})


def test_metrics_of_before_have_the_percentile_alone():
    held = {"ece": 0.03, "ece_if_calibrated": 0.0245, "nll": 1.2}
    assert worded("ece", held) == "0.0300  above chance (95th percentile 0.0245)"
    assert worded("ece", {"ece": 0.03}) == "0.0300"
    assert worded("nll", held) == "1.2000"
    assert calibration_verdict("nll", held) == ""
