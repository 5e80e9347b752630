"""The model card beside an evaluation."""

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import metrics

from fer.metrics import results
from fer.metrics.results import Answering
from fer.reports.summary import answering_in_words, seen_in_choice_in_words
from fer.system.records import read


def card(folder):
    """The metadata and the text of a card."""
    opening, text = re.fullmatch(r"---\n(.*?)---\n\n(.*)", (folder / "model_card.md").read_text(), re.DOTALL).groups()
    return yaml.safe_load(opening), text


def test_a_card_states_metrics_limits_and_law(evaluate, small_run):
    assert evaluate(str(small_run), "--split", "test").code == 0
    folder = small_run / "evaluations" / "test"
    results = metrics(folder)
    about, text = card(folder)
    (entry,) = about["model-index"]
    (result,) = entry["results"]
    assert about["pipeline_tag"] == "image-classification"
    assert result["dataset"]["split"] == "test"
    measured = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert measured["accuracy"] == pytest.approx(results["accuracy"], abs=1e-4)
    assert f"{100 * results['accuracy']:.2f} %" in text
    for words in ("what a person feels", "Article 5(1)(f)", "2 February 2025", "Rhue 2018", "opened once for",
                  f"temperature {results['temperature']:.3f}", results["dataset"]["fingerprint"]):  # fmt: skip
        assert words in text, words
    assert text.startswith("# mlp, facial-emotion recognition\n")
    assert "48" not in text.partition("## Metrics")[0]  # the network takes faces of 24 pixels
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Metrics", "Emotion by emotion", "Calibration", "Prediction sets", "What it is not", "Bias",
        "Law, and uses to keep away from", "How it was made",
    ]  # fmt: skip


def test_terminal_report_and_card_say_how_it_was_trained_and_what_was_promised(evaluate, small_run):
    ended = evaluate(str(small_run), "--split", "test", "--error-rate", "0.9", "--tta", "flip", "--against",
                     str(small_run / "checkpoints" / "last.ckpt"))  # fmt: skip
    assert ended.code == 0, ended
    folder = small_run / "evaluations" / "test_flip"
    (member,) = metrics(folder)["members"]
    recorded = metrics(small_run)
    trained = f"{recorded['command']} (seed 0, epoch {recorded['best_epoch']} of {recorded['epochs']}"
    assert member["trained"]["command"] == recorded["command"]
    report = html.unescape((folder / "report.html").read_text())
    about, text = card(folder)
    measured = [metric["name"] for metric in about["model-index"][0]["results"][0]["metrics"]]
    assert "accuracy, flip" in measured
    assert "accuracy" not in measured  # which is the network's own
    assert "for these metrics alone: `model.probabilities` uses what its checkpoint keeps" in text
    for page in (text, report):
        assert trained in page
        assert "At most 90 % wrong, with probability 95 %, of faces like those of val" in page
        assert "on the same faces with the same views (flip)" in page
    assert "on the same faces with the same views (flip):" in ended.out
    (small_run / "metrics.json").unlink()
    assert evaluate(str(small_run), "--split", "test").code == 0
    assert metrics(small_run / "evaluations" / "test")["members"][0]["trained"] is None


CHOSEN = {"threshold": 0.7, "chosen_on": "val", "coverage_there": 0.5, "error_there": 0.1, "bound_there": 0.1}


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"threshold": None, "chosen_on": "val"}, "no confidence can promise that, by val."),
        ({**CHOSEN, "coverage": 0.25, "error": 0.125,
          "error_ci95": [0.1, 0.15]}, "here it answers 25.0 %, wrong among them: 12.50 % [10.00, 15.00]."),
        ({**CHOSEN, "coverage": 0.0, "error": None,
          "error_ci95": None}, "here it answers 0.0 %, wrong among them: none."),
    ],
)  # fmt: skip
def test_a_promise_in_words(found, says):
    text = answering_in_words(read(Answering, {"wanted_error": 0.1, **found}))
    assert text.startswith("At most 10 % wrong, with probability 95 %, of faces like those of val")
    assert text.endswith(says)


@pytest.mark.parametrize(
    ("count", "fitted_on", "says"),
    [(3, "val", "3 of these"), (3, "these faces", ""), (0, "val", ""), (None, "val", "")],
)
def test_copies_of_val_are_stated_unless_val_was_scored(count, fitted_on, says):
    run = results.read(Path(__file__).parents[1] / "fixtures" / "format_1" / "run" / "metrics.json")
    text = seen_in_choice_in_words(replace(run, seen_in_choice=count, temperature_fitted_on=fitted_on))
    assert text.startswith(says)
    assert bool(text) == bool(says)


def test_a_card_of_val_says_what_flatters_it(evaluate, small_run):
    assert evaluate(str(small_run), "--against", str(small_run / "checkpoints" / "last.ckpt")).code == 0
    _, text = card(small_run / "evaluations" / "val")
    assert "chosen on these very faces" in text
    assert "## Comparison with a baseline" in text
    assert evaluate(str(small_run), "--no-report").code == 0
    assert not (small_run / "evaluations" / "val_2" / "model_card.md").exists()
