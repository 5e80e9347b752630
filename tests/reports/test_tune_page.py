"""``tune.html`` and its figures: what they show of a search, also of one with few trials."""

import csv
import itertools
import re
from dataclasses import replace

import pytest
from matplotlib.text import Text
from test_run_report import outline, unseen

from fer.metrics.statistics import Difference, Interval
from fer.reports import plotting
from fer.reports.theme import themed
from fer.reports.tuning import figures
from fer.reports.tuning import page as tuning_page
from fer.reports.tuning.figures import Axis
from fer.runs.trials import Share, Trial, best, counted, leading, ranked, write_csv

MONITOR = "accuracy/val"
AXES = {
    "optimizer": Axis(["adamw", "sgd"]),
    "optimizer.lr": Axis(log=True),
    "optimizer.momentum": Axis(),
    "model.hidden": Axis(["[256]", "[512,256]", "[1024,512]"]),
    "augment": Axis(["none", "flip", "basic", "strong"]),
    "model.dropout": Axis(),
}
SHARES = {key: Share(0.9 / (2 + index), 0.01, 0.99) for index, key in enumerate(AXES)}


def made(count, rates=(0.0003, 0.1)):
    """Return trials of every kind: complete, pruned (some far below), failed, repeated, one to go on."""
    trials = []
    for number in range(count):
        rate = rates[0] * (rates[1] / rates[0]) ** (number * 7 % 11 / 10)
        texts = {
            "optimizer": ("adamw", "sgd")[number % 2],
            "optimizer.lr": f"{rate:.4g}",
            "model.hidden": AXES["model.hidden"].choices[number % 3],
            "augment": AXES["augment"].choices[number % 4],
            "model.dropout": str(round(0.05 * (number % 10), 2)),
        }
        if texts["optimizer"] == "sgd":
            texts["optimizer.momentum"] = f"{0.8 + 0.01 * (number % 10):.4g}"
        value = 0.44 + 0.005 * (number * 5 % 13)
        trials.append(Trial(number, "complete", texts, value, [value], 12, 60.0 + number, [str(number)]))
        if number % 4 == 3:
            low = 0.05 if number % 8 == 3 else 0.41
            trials[-1] = replace(trials[-1], state="pruned", value=low, values=[], epochs=4)
    trials[5] = replace(trials[5], state="failed", value=None, values=[], epochs=0, reason="exit 1: <b>the loss</b>")
    trials[6] = replace(trials[6], same_as=2, seconds=0.0)
    trials[-1] = replace(trials[-1], state="running", value=None, values=[])
    return trials


def found(trials, **more):
    values = {
        "subject": "mlp on FER2013",
        "trials": trials,
        "monitor": MONITOR,
        "parameters": {key: f"over {key}" for key in AXES},
        "configured": {"optimizer": "adamw", "optimizer.lr": "0.002"},
        "axes": AXES,
        "baseline": True,
        "shares": SHARES,
        "top": 5,
        "interval": (0.47, 0.51),
        "gain": Difference(0.012, Interval(-0.001, 0.025), 0.07, False),
        "seconds": 3725.0,
        "about": {"command": "python -m fer.tune <model>=mlp", "nothing": ""},
        "lines": {"train it again": "python -m fer.train --config-dir outputs/tune/x experiment=best"},
    }
    return tuning_page.SearchResults(**values | more)


def drawn(trials):
    with plotting.style():
        return {
            "history": figures.history(trials, MONITOR, baseline=True),
            "importance": figures.importance(SHARES),
            "parameters": figures.slices(trials, AXES, MONITOR),
        }


@pytest.mark.renders
def test_the_page_describes_the_search(tmp_path):
    page = outline(tuning_page.write(found(made(24)), tmp_path))
    text = " ".join(page.text.split())
    for words in (
        "24 trials of mlp on FER2013",
        "Optimised metric: accuracy/val",
        "Best: trial 18 50.00 % 47.0 to 51.0 (95 %, other faces)",
        "Configured: trial 0 44.00 %",
        "Best minus configured +1.20 points -0.1 to +2.5 (95 %)",
        "for other faces, not other seeds",
        "expect a little less on other faces",
        "17 complete, 5 pruned, 1 failed, 1 unfinished",
        "in 1:02:05",
        "chosen by the value shown here",
        "experiment=best",
        "the best 5 of 16 complete trials",
        "same as trial 2",
        "<b>the loss</b>",
        "python -m fer.tune <model>=mlp",
    ):
        assert words in text, words
    assert "importance is uncertain" not in text
    assert set(page.ids) >= {"best", "history", "importance", "parameters", "trials", "provenance"}
    assert all(address.startswith("#") for address in page.addresses)
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("history", "importance", "parameters") for kind in ("svg", "png")}


def test_few_trials_are_said_to_say_little(tmp_path):
    text = outline(tuning_page.write(found(made(9)), tmp_path)).text
    assert "trials are complete, so importance is uncertain" in text
    text = outline(tuning_page.write(found(made(9), shares={}, top=0), tmp_path)).text
    assert "too few to estimate which parameters mattered" in text


def test_a_search_without_a_complete_trial_has_a_page(tmp_path):
    trials = [replace(trial, state="failed", value=None, reason="exit 1") for trial in made(8)]
    text = outline(tuning_page.write(found(trials, shares={}, gain=None, interval=None), tmp_path)).text
    assert "No trial is complete" in text
    assert "Failed" in text
    assert not (tmp_path / "figures").exists()


def test_the_configured_values_are_not_listed_twice_where_they_are_the_best(tmp_path):
    trials = made(8)
    trials[0] = replace(trials[0], value=0.9)
    text = outline(tuning_page.write(found(trials, gain=None), tmp_path)).text
    assert "Best: trial 0" in text
    assert "Configured: trial 0" not in text


@pytest.mark.parametrize(("count", "rates"), [(8, (0.0003, 0.1)), (60, (1e-5, 1.0)), (60, (0.001, 0.003))])
def test_no_text_sticks_out_of_a_figure_or_lies_on_another(count, rates):
    for name, figure in drawn(made(count, rates)).items():
        plotting.pixels(figure)
        hidden, renderer = unseen(figure), figure.canvas.get_renderer()
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in hidden]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()]
        for words, box in boxes:
            right, top = figure.bbox.width + 1, figure.bbox.height + 1
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= right and box.y1 <= top
            assert inside, f"{name}: {words!r} sticks out"
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert not (over[0] > 2 and over[1] > 2), f"{name}: {one!r} lies on {other!r}"


@pytest.mark.renders
def test_every_colour_of_a_figure_follows_the_theme():
    for name, figure in drawn(made(24)).items():
        left = set(re.findall(r"(?<=: )#[0-9a-f]{6}", themed(plotting.svg(figure, name))))
        assert not left, f"{name}: {left}"


def test_what_is_far_worse_does_not_press_the_rest_together():
    trials = made(24)
    complete = [trial.value for trial in trials if trial.state == "complete"]
    low, high = figures.limits(trials, MONITOR)
    assert low < min(complete) < max(complete) < high
    assert low > min(complete) - (max(complete) - min(complete))
    low, high = figures.limits(
        [replace(trial, value=5.0) if trial.value == 0.05 else trial for trial in trials], MONITOR
    )
    assert high < 1


def test_trials_are_ranked_and_counted(tmp_path):
    trials = made(24)
    chosen = best(trials, MONITOR)
    assert chosen is not None
    assert chosen.value == max(trial.value for trial in trials if trial.state == "complete")
    assert best(trials, "loss/val").value == min(trial.value for trial in trials if trial.state == "complete")
    assert ranked(trials, MONITOR)[0].number == chosen.number
    assert counted(trials) == "17 complete, 5 pruned, 1 failed, 1 unfinished"
    assert leading(trials, MONITOR).splitlines()[2].split()[:3] == [str(chosen.number), "50.00", "%"]
    equal = [replace(trial, value=0.5) if trial.state == "complete" else trial for trial in trials]
    assert best(equal, MONITOR).number == 0  # the first of equals
    assert best([], MONITOR) is None
    write_csv(tmp_path / "trials.csv", trials, list(AXES), MONITOR)
    rows = list(csv.DictReader(open(tmp_path / "trials.csv")))
    assert [row["state"] for row in rows] == [trial.state for trial in trials]
    assert rows[6]["same_as"] == "2"
    assert rows[0]["optimizer.momentum"] == ""
    assert rows[1]["model.hidden"] == "[512,256]"
    assert float(rows[0][MONITOR]) == trials[0].value
