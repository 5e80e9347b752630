"""Metrics in words, of files of today and of before."""

import pytest

from fer.metrics import results
from fer.reports.summary import (
    calibration_beside,
    calibration_verdict,
    class_table,
    limits_of_val,
    metric_table,
    metric_text,
    others,
    rounded_up,
    score_table,
)

SCORES = {
    "split": "val", "n": 3589, "accuracy": 0.7, "accuracy_ci95": [0.6, 0.8], "macro_f1": 0.6, "balanced_accuracy": 0.6,
    "nll": 1.0, "ece_if_calibrated": 0.0245,
    "dataset": {"name": "", "path": "", "layout": "", "labels": "", "split": "official", "fingerprint": "",
                "counts": {}},
    "versions": {}, "hardware": {"cpu": "", "cores": 1, "threads": 1}, "command": "",
}  # fmt: skip


@pytest.mark.parametrize(("ece", "verdict"), [(0.0246, "above chance"), (0.0245, "within chance")])
def test_an_ece_stands_beside_the_ece_of_chance(ece, verdict):
    made = results.of({**SCORES, "ece": ece, "ece_if_calibrated_mean": 0.0176, "ece_rms_debiased": -0.0031})
    text = f"{ece:.4f}  {verdict} (95th percentile 0.0245)"
    assert metric_text("ece", made.metrics) == text
    assert text in score_table(made)
    assert calibration_beside(made.metrics) == "mean of a calibrated network 0.0176; debiased, RMS -0.0031"
    rows = [line.split("  ")[0] for line in metric_table(made).splitlines()]
    assert rows[-3:] == ["ECE, 15 bins of equal width", "... mean of a calibrated network", "... debiased, RMS"]


def test_a_class_that_is_never_predicted_has_no_precision():
    """One that is predicted, and never rightly, has a precision of 0, whatever its interval."""
    values = {"precision": 0.0, "precision_ci95": [0.0, 1.0], "recall": 0.0, "recall_ci95": [0.0, 0.3], "f1": 0.0}
    per_class = {name: {**values, "support": 9} for name in ("fear", "sad")}
    made = results.of({**SCORES, "per_class": per_class, "confusion": [[0, 9], [0, 0]]})
    fear, sad = (line.split() for line in class_table(made).splitlines()[-2:])
    assert fear[:3] == ["fear", "9", "-"]
    assert sad[:4] == ["sad", "9", "0.0", "%"]
    older = results.of({**SCORES, "per_class": per_class})
    assert older.scores.unpredicted == []


def test_intervals_for_other_people_say_of_how_many():
    assert "these 3,589 faces are of 24" in class_table(results.of({**SCORES, "groups": 24}))
    assert others(results.of(SCORES).scores) == "other faces"


@pytest.mark.parametrize(
    ("threshold", "text"), [(0.62249, "0.623"), (0.6225, "0.623"), (0.623, "0.623"), (1.0, "1.000")]
)
def test_a_threshold_is_shown_no_lower_than_it_is(threshold, text):
    assert rounded_up(threshold) == text


def test_metrics_of_before_have_the_percentile_alone():
    made = results.of({**SCORES, "ece": 0.03})
    assert metric_text("ece", made.metrics) == "0.0300  above chance (95th percentile 0.0245)"
    assert "(95th percentile 0.0245)\n" in score_table(made) + "\n"
    assert "calibrated network" not in metric_table(made)
    assert metric_text("ece", results.values_of({"ece": 0.03})) == "0.0300"
    assert calibration_verdict("nll", made.metrics) == ""
    assert calibration_beside(made.metrics) == ""


@pytest.mark.parametrize(
    ("trainer", "batch_size", "stated"),
    [
        ({"limit_val": 0.5}, 100, ["trainer.limit_val=0.5"]),
        ({"limit_val": 0.5}, 3000, []),  # 1 of 1 batches: round(0.5 * 3000 / 3000) is 0, and at least 1 is taken
        ({"limit_val": 0.99}, 1000, []),
        ({"overfit_batches": 2}, 1000, ["trainer.overfit_batches=2"]),
        ({"overfit_batches": 3}, 1000, []),
        ({"limit_val": 1.0, "overfit_batches": 0}, 100, []),
        ({"limit_val": 1.0}, 2800, []),  # 2 of 2 batches, though 3000 / 2800 is rounded to 1
        ({"limit_val": 0.99}, None, ["trainer.limit_val=0.99"]),
    ],
)
def test_a_limit_that_takes_every_batch_of_val_is_none(trainer, batch_size, stated):
    assert limits_of_val(trainer, 3000, batch_size) == stated
