"""``fer explain``: pictures, splits, what it writes and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, runner
from PIL import Image
from test_predict import photos, portraits_module  # noqa: F401
from test_train import write_csv

from fer.explain import main
from fer.metrics.explanation import Explanation
from fer.system.records import read


@pytest.fixture
def explain(capfd):
    return runner(main, capfd)


def result(folder):
    return read(Explanation, json.loads((folder / "explain.json").read_text()))


@pytest.mark.slow
@pytest.mark.renders
def test_portraits(explain, photos, tmp_path):  # noqa: F811
    ended = explain(str(photos), "--out", "out")
    assert ended.code == 0, ended.err
    record = result(tmp_path / "out")
    assert [(face.predicted, face.label) for face in record.faces] == [("happy", None), ("neutral", None)]
    assert record.networks == ("tiny",)
    assert all(face.probabilities[face.predicted] > face.probabilities[face.second] > 0 for face in record.faces)
    assert {why.split("; ")[0] for why in record.left_out.values()} == {"no face found", "not a readable picture"}
    assert "2 faces are too few" in record.check.verdict
    assert record.check.verdict in ended.out
    assert [one.map for one in record.check.curves] == ["occlusion", "blob", "random"]
    assert all(len(one.deletion) == len(one.insertion) == 13 for one in record.check.curves)
    assert all(one.deletion_area.ci95 is None for one in record.check.curves)
    assert record.check.imputed.verdict in ended.out
    occlusion, blob, _ = record.check.imputed.curves
    assert occlusion.deletion[1].value < 0.9 * occlusion.deletion[0].value  # a twelfth of the pixels, imputed
    occlusion, blob, _ = record.check.curves
    assert occlusion.deletion_area.value < blob.deletion_area.value
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index(record.check.verdict) < page.index("Faces</h2>")
    assert "why happy, not" in page
    assert "a, &#34;b&#34; é.png" in page
    assert "no face found" in page


@pytest.mark.slow
def test_faces_that_are_cut_out_already(explain, tmp_path):
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (60, 60)).astype(np.uint8)
        Image.fromarray(noise).save(f"{number}.png")
    ended = explain("0.png", "1.png", "2.png", "--detector", "none", "--faces", "2", "--method", "gradcam")
    assert ended.code == 0, ended.err
    record = result(tmp_path / "outputs" / "explain" / "0")
    assert (len(record.faces), record.layer) == (2, 6)
    assert list(record.left_out) == ["2.png"]
    explain("0.png", "--detector", "none", "--method", "gradcam")
    assert (tmp_path / "outputs" / "explain" / "0_2" / "index.html").exists()


@pytest.fixture(scope="module")
def of_split(trained_once, tmp_path_factory):
    """Return the folder of explained val faces of a small run, and what was printed."""
    folder = tmp_path_factory.mktemp("explained") / "val"
    arguments = ["--data", "synthetic", "--network", str(trained_once), "--split", "train", "--faces", "42"]
    assert main([*arguments, "--out", str(folder)]) == 0
    return folder


def test_faces_of_a_split(of_split):
    record = result(of_split)
    assert len(record.faces) == record.check.faces == 42
    labels = [face.label for face in record.faces]
    assert {labels.count(one.emotion) for one in record.emotions} == {6}
    assert all(one.right + one.wrong == 6 for one in record.emotions)
    assert all(0 <= one.left_share.value <= 1 for one in record.emotions)
    assert all(one.label != one.predicted and one.faces >= 3 for one in record.confusions)
    assert all(one.deletion.ci95 is not None for one in record.check.differences)
    assert record.check.verdict.startswith("Occlusion maps of this network ")
    assert record.check.randomised[-1].layers == record.check.randomised[-1].of
    assert record.check.mirrored.ci95 is not None
    page = (of_split / "index.html").read_text()
    assert page.index(record.check.verdict) < page.index("Each emotion")
    for emotion in labels:
        assert emotion in page


def test_an_ensemble(explain, small_run, another_run, tmp_path):
    Image.new("L", (24, 24), 90).save("face.png")
    ended = explain(
        "face.png", "--detector", "none", "--network", str(small_run), "--network", str(another_run), "--out", "both"
    )
    assert ended.code == 0, ended.err
    assert len(result(tmp_path / "both").networks) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "either pictures or --data"),
        (["face.png", "--data", "synthetic"], "either pictures or --data"),
        (["face.png", "--faces", "0"], "--faces 0: expected at least 1"),
        (["face.png", "--split", "train"], "--split"),
        (["face.png", "--detector", "haar"], "no face to explain: face.png: no face found"),
        (["nothing.png"], "nothing.png: no such file"),
        (["film.mp4"], "film.mp4: is a video"),
        (["face.png", "film.mp4", "--out", "face.png"], "--out: face.png: is a file"),
        (["--data", "synthetic", "--split", "test"], "fer.evaluate"),
        (["--data", "nothing.csv"], "nothing.csv"),
        (["--data", "synthetic", "--split", "all", "--rule", "holdout"], "--rule holdout: --split all"),
        (["--data", "synthetic", "--device", "gpu"], "torch finds no GPU"),
        (["face.png", "--detector", "none", "--device", "gpu"], "torch finds no GPU"),
    ],
)
def test_faults_are_one_line(explain, arguments, says, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Image.new("L", (60, 60), 90).save("face.png")
    Path("film.mp4").touch()
    ended = explain(*arguments)
    assert ended.code == 1
    assert says in ended.line


def test_a_rule_that_draws_test_faces_is_named(explain, small_run):
    ended = explain("--data", "synthetic", "--rule", "holdout", "--network", str(small_run))
    assert (ended.code, "leave out --rule holdout" in ended.line) == (1, True), ended.line


def test_methods_that_do_not_apply_are_refused(explain, small_run, another_run):
    Image.new("L", (24, 24), 90).save("face.png")
    given = ("face.png", "--detector", "none", "--network", str(small_run))
    assert "mlp names no layer of feature maps" in explain(*given, "--method", "gradcam").line
    several = explain(*given, "--network", str(another_run), "--method", "integrated_gradients").line
    assert "--method integrated_gradients" in several
    assert "occlusion" in several


def test_a_detector_is_of_no_effect_on_the_faces_of_a_data_set(explain):
    for option in (["--detector", "yuface"], ["--detector-model", "a.onnx"]):
        assert "leave them out with --data" in explain("--data", "synthetic", *option).line


def test_test_faces_are_refused_by_their_pixels(explain, small_run):
    """Under the name of another split too."""
    ended = explain("--data", "synthetic", "--network", str(small_run), "--split", "all")
    assert ended.code == 1
    assert "test faces" in ended.line


def test_test_faces_are_refused_after_the_training_data_have_moved(explain, train, tmp_path, monkeypatch):
    """The run's own table is gone; the one that the variable names has its faces."""
    write_csv(tmp_path / "fer2013.csv")
    assert train(*SMALL[2:], "data.path=fer2013.csv", "hydra.run.dir=run").code == 0
    (tmp_path / "fer2013.csv").rename(tmp_path / "moved.csv")
    head, *rows = (tmp_path / "moved.csv").read_text().splitlines()
    (tmp_path / "part.csv").write_text("\n".join([head, *(row for row in rows if row.endswith("PrivateTest"))]) + "\n")
    monkeypatch.setenv("FER_DATA", str(tmp_path / "moved.csv"))
    ended = explain("--data", "part.csv", "--network", "run", "--split", "all")
    assert ended.code == 1
    assert "test faces" in ended.line


@pytest.mark.slow
def test_the_report_of_an_evaluation_shows_maps_where_asked(evaluate, small_run, tmp_path):
    ended = evaluate(str(small_run), "--maps", "--out", "evaluated")
    assert ended.code == 0, ended.err
    page = next((tmp_path / "evaluated").rglob("report.html")).read_text()
    assert "What the network looked at" in page
    assert "faces are too few" in page
    assert "why " in page
    assert "--no-report" in evaluate(str(small_run), "--maps", "--no-report").line
    evaluate(str(small_run), "--out", "without")
    assert "What the network looked at" not in next((tmp_path / "without").rglob("report.html")).read_text()
