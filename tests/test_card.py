"""The model card beside an evaluation."""

import re

import pytest
import yaml
from conftest import metrics


def card(folder):
    """The metadata and the text of a card."""
    opening, text = re.fullmatch(r"---\n(.*?)---\n\n(.*)", (folder / "model_card.md").read_text(), re.DOTALL).groups()
    return yaml.safe_load(opening), text


def test_a_card_tells_figures_limits_and_law(evaluate, small_run):
    assert evaluate(str(small_run), "--split", "test").code == 0
    folder = small_run / "evaluations" / "test"
    found = metrics(folder)
    about, text = card(folder)
    (entry,) = about["model-index"]
    (result,) = entry["results"]
    assert about["pipeline_tag"] == "image-classification"
    assert result["dataset"]["split"] == "test"
    measured = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert measured["accuracy"] == pytest.approx(found["accuracy"], abs=1e-4)
    assert f"{100 * found['accuracy']:.2f} %" in text
    for words in ("what a person feels", "Article 5(1)(f)", "2 February 2025", "Rhue 2018", "opened once for",
                  f"temperature {found['temperature']:.3f}", found["dataset"]["fingerprint"]):  # fmt: skip
        assert words in text, words
    assert text.startswith("# mlp, facial-emotion recognition\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Figures", "Emotion by emotion", "Calibration", "What it is not", "Bias", "Law, and uses to keep away from",
        "How it was made",
    ]  # fmt: skip


def test_a_card_of_val_says_what_flatters_it(evaluate, small_run):
    assert evaluate(str(small_run), "--against", str(small_run / "checkpoints" / "last.ckpt")).code == 0
    _, text = card(small_run / "evaluations" / "val")
    assert "chosen on these very faces" in text
    assert "## Against another" in text
    assert evaluate(str(small_run), "--no-report").code == 0
    assert not (small_run / "evaluations" / "val_2" / "model_card.md").exists()
