"""Ensembles of networks whose predictions alone are at hand."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, metrics
from scipy.optimize import minimize_scalar

from fer.config.errors import FerError
from fer.data.labels import EMOTIONS
from fer.evaluation.from_predictions import chosen_from, mixed_from, results_from
from fer.runs import predictions
from fer.runs.predictions import Predictions

COUNT = 600


def softmax(logits):
    return np.exp(logits - logits.max(1, keepdims=True)) / np.exp(logits - logits.max(1, keepdims=True)).sum(1)[:, None]


def drawn(seed, sureness=(1.0, 4.0, 0.3), first_row=100):
    """Predictions of networks about as good as each other, right in different places, and far from equally sure."""
    random = np.random.default_rng(seed)
    targets = random.integers(7, size=COUNT)
    networks = []
    for sure in sureness:
        logits = random.normal(size=(COUNT, 7)) + 1.5 * np.eye(7)[targets]
        networks.append(said(softmax(sure * logits), targets, first_row + np.arange(COUNT)))
    return networks


def said(probabilities, targets, rows):
    answers = [EMOTIONS[index] for index in probabilities.argmax(1)]
    return Predictions(rows, [EMOTIONS[index] for index in targets], answers, tuple(EMOTIONS), probabilities)


def indices(labels):
    return np.array([EMOTIONS.index(name) for name in labels])


def nll(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


def fitted(probabilities, labels):
    """The temperature of least NLL, by another optimiser than the library's."""

    def at(log):
        return nll(softmax(np.log(probabilities) / np.exp(log)), labels)

    return float(np.exp(minimize_scalar(at, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x))


def test_each_network_is_mixed_at_its_own_temperature():
    val, test = drawn(0), drawn(1, first_row=5000)
    choice = chosen_from(val)
    labels = indices(val[0].targets)
    own = [fitted(one.probabilities, labels) for one in val]
    assert np.allclose(choice.temperatures, own, rtol=1e-4)
    assert max(own) / min(own) > 5
    for mixture, faces in ((choice.probabilities, val), (mixed_from(choice, test), test)):
        each = [softmax(np.log(one.probabilities) / own_one) for one, own_one in zip(faces, own, strict=True)]
        assert np.allclose(mixture, np.einsum("m,mnc->nc", choice.weights, each), atol=1e-5)
    assert choice.temperature == pytest.approx(fitted(choice.probabilities, labels), rel=1e-4)


def test_weights_do_not_depend_on_how_sure_networks_are():
    sure, modest = chosen_from(drawn(0, sureness=(1.0, 4.0, 0.3))), chosen_from(drawn(0, sureness=(2.0, 0.5, 1.0)))
    assert np.allclose(sure.weights, modest.weights)
    assert np.allclose(sure.probabilities, modest.probabilities, atol=1e-6)
    assert (sure.weights > 0.2).all()


def test_steps_and_report_say_what_val_came_to():
    val = drawn(0)
    choice = chosen_from(val, ["a", "b", "c"])
    labels = indices(val[0].targets)
    assert choice.steps[-1].nll == pytest.approx(nll(choice.probabilities, labels))
    assert choice.steps[-1].accuracy == pytest.approx((choice.probabilities.argmax(1) == labels).mean())
    assert [step.added for step in choice.report.steps] == ["abc"[step.member] for step in choice.steps]
    alone = [(one.probabilities.argmax(1) == labels).mean() for one in val]
    assert choice.report.best_alone_val == pytest.approx(max(alone))


def test_a_network_that_is_chosen_alone_is_as_it_is():
    val = drawn(0, sureness=(3.0,))
    choice = chosen_from(val)
    assert (choice.weights.tolist(), choice.temperatures.tolist()) == ([1.0], [1.0])
    assert np.array_equal(choice.probabilities, val[0].probabilities)
    assert choice.temperature == pytest.approx(fitted(val[0].probabilities, indices(val[0].targets)), rel=1e-4)


def test_predictions_of_the_chosen_alone_suffice():
    val, test = drawn(0), drawn(1, first_row=5000)
    noise = np.random.default_rng(2)
    val[1], test[1] = (one._replace(probabilities=noise.permutation(one.probabilities)) for one in (val[1], test[1]))
    choice = chosen_from(val)
    assert choice.weights[1] == 0
    every = mixed_from(choice, test)
    assert np.array_equal(every, mixed_from(choice, [test[0], test[2]]))
    with pytest.raises(FerError, match="predictions of 1 networks; expected all 3 or the 2 that were chosen"):
        mixed_from(choice, test[:1])


def test_faces_are_matched_by_row():
    val, test = drawn(0), drawn(1, first_row=5000)
    order = np.random.default_rng(3).permutation(COUNT)
    shuffled = test[1]._replace(
        rows=test[1].rows[order],
        targets=[test[1].targets[index] for index in order],
        probabilities=test[1].probabilities[order],
    )
    choice = chosen_from(val)
    assert np.array_equal(mixed_from(choice, [test[0], shuffled, test[2]]), mixed_from(choice, test))
    results = results_from(choice, [shuffled, test[0], test[2]], "test")
    mixture = mixed_from(choice, [shuffled, test[0], test[2]])
    assert results["accuracy"] == pytest.approx((mixture.argmax(1) == indices(shuffled.targets)).mean())


def test_results_are_named_as_an_evaluations():
    val, test = drawn(0), drawn(1, first_row=5000)
    choice = chosen_from(val, ["a", "b", "c"])
    results = results_from(choice, test, "test")
    labels = indices(test[0].targets)
    mixture = mixed_from(choice, test)
    assert (results["split"], results["n"], results["weights"]) == ("test", COUNT, "chosen")
    assert results["nll"] == pytest.approx(nll(mixture, labels), abs=1e-5)
    calm = softmax(np.log(mixture) / choice.temperature)
    assert results["calibrated"]["nll"] == pytest.approx(nll(calm, labels), abs=1e-5)
    assert [(one["checkpoint"], one["weight"], one["temperature"]) for one in results["members"]] == [
        *zip("abc", choice.weights.tolist(), choice.temperatures.tolist(), strict=True)
    ]


def spoiled(what):
    first, second = drawn(0, sureness=(1.0, 1.0))
    if what == "rows":
        return [first, second._replace(rows=second.rows + 1)]
    if what == "labels":
        return [first, second._replace(targets=second.targets[::-1])]
    if what == "classes":
        return [first, second._replace(classes=second.classes[::-1])]
    return [one._replace(targets=["bored", *one.targets[1:]]) for one in (first, second)]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("rows", "b: other rows than a; predict the same split of the same data with both"),
        ("labels", "b: other labels than a; predict with the same labels and FER+ rule"),
        ("classes", "b: predicts neutral, surprise"),
        ("label", "label 'bored' is none of the predicted classes angry, "),
    ],
)
def test_predictions_that_do_not_belong_together_are_one_line(what, says):
    with pytest.raises(FerError) as caught:
        chosen_from(spoiled(what), ["a", "b"])
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_no_predictions_are_one_line():
    with pytest.raises(FerError, match="no predictions to choose among"):
        chosen_from([])


# --- folders of predictions in an ensemble of fer.evaluate ----------------------------------------------------------


@pytest.fixture
def stored(scores, another_run, tmp_path):
    """A folder of predictions and metrics laid out as in docs/results, whose network is gone."""
    folder = tmp_path / "stored"
    folder.mkdir()
    assert scores(str(another_run), "--split", "test").code == 0
    for name, source in (("val", another_run), ("test", another_run / "evaluations" / "test")):
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress((source / "predictions.csv").read_bytes()))
        shutil.copy(source / "metrics.json", folder / f"{name}.json")
    return folder


def test_predictions_stand_for_a_network(evaluate, small_run, another_run, stored):
    for options in (["--choose"], ["--weights", "val"], []):
        pairs = []
        for name, second in (("whole", another_run), ("stored", stored)):
            out = f"{name}{len(options)}"
            ended = evaluate(str(small_run), str(second), *options, "--split", "test", "--out", out, "--no-report")
            assert ended.code == 0, ended.err
            pairs.append((metrics(Path(out) / "test"), predictions.read(Path(out) / "test" / "predictions.csv")))
        (whole, expected), (results, said) = pairs
        assert np.allclose(said.probabilities, expected.probabilities, atol=1e-5)
        for key in ("weight", "temperature"):
            values = [[one[key] for one in one_of["members"]] for one_of in (results, whole)]
            assert values[0] == pytest.approx(values[1], abs=1e-4)
        assert results["temperature"] == pytest.approx(whole["temperature"], abs=1e-4)
        assert results["parameters"] == whole["parameters"]
        assert results["clean"]["accuracy"] == whole["clean"]["accuracy"]
        assert results["members"][-1]["checkpoint"] == str(stored)


def test_a_report_and_a_card_are_written_of_predictions_too(evaluate, small_run, stored):
    ended = evaluate(str(small_run), str(stored), "--split", "test", "--out", "both")
    assert ended.code == 0, ended.err
    for page in ("report.html", "model_card.md"):
        assert "ensemble of 2 networks" in (Path("both") / "test" / page).read_text()
    assert str(stored) in ended.out


def test_clean_metrics_are_left_out_where_training_data_are_unknown(evaluate, small_run, stored):
    recorded = json.loads((stored / "test.json").read_text())
    (stored / "test.json").write_text(json.dumps(recorded | {"seen_in_training": None}))
    ended = evaluate(str(small_run), str(stored), "--split", "test", "--out", "both", "--no-report")
    assert ended.code == 0, ended.err
    assert "no clean metrics: which of these faces" in ended.out + ended.err
    assert metrics(Path("both") / "test")["clean"] is None


def test_predictions_that_cannot_stand_for_a_network_are_one_line(train, scores, small_run, stored):
    def refused(*arguments, says):
        ended = scores(*map(str, arguments), "--out", "both")
        assert (ended.code, says in ended.line) == (1, True), ended.line

    refused(stored, says="stored: holds predictions without weights; name a run or checkpoint beside it")
    refused(small_run, stored, stored, says="a folder of predictions is given twice")
    refused(small_run, stored, "--tta", "flip", says="stored: no predictions of val with --tta flip")
    shutil.copy(stored / "val.csv.gz", stored / "val_flip.csv.gz")
    shutil.copy(stored / "val.json", stored / "val_flip.json")
    refused(small_run, stored, "--tta", "flip", says="val_flip.csv.gz is of val with --tta none")
    shutil.copy(stored / "test.csv.gz", stored / "val.csv.gz")
    refused(small_run, stored, says="val.csv.gz: holds other faces or labels than val here")
    other = json.loads((stored / "val.json").read_text())
    other["dataset"]["split"] = "holdout"
    (stored / "val.json").write_text(json.dumps(other))
    refused(small_run, stored, "--choose", says="stored: its val is of other data or another split than that of")
    (stored / "val.json").write_text("{")
    refused(small_run, stored, says="val.json: cannot be read (")
    assert not Path("both").exists()


def test_predictions_alone_cannot_teach(train, evaluate, small_run, stored):
    assert evaluate(str(small_run), str(stored), "--out", "both", "--no-report").code == 0
    ended = train(*SMALL, "distill.teachers=[both/val]", "hydra.run.dir=taught")
    assert (ended.code, "stored: no run folder" in ended.line) == (1, True), ended.line


def test_a_run_folder_without_its_checkpoints_holds_predictions(evaluate, small_run, another_run, tmp_path):
    assert evaluate(str(another_run), "--split", "test", "--no-report").code == 0
    shutil.rmtree(another_run / "checkpoints")
    ended = evaluate(str(small_run), str(another_run), "--choose", "--split", "test", "--out", "both", "--no-report")
    assert ended.code == 0, ended.err
    assert metrics(Path("both") / "test")["selection"]["given"] == 2
