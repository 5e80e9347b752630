"""``fer predict``: what it prints, writes and survives."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import runner
from PIL import Image

from fer.predict import main


@pytest.fixture
def predict(capfd):
    return runner(main, capfd)


@pytest.fixture(scope="module")
def portraits_module():
    import importlib.util

    spec = importlib.util.spec_from_file_location("portraits", Path(__file__).parent / "inference" / "portraits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path, portraits_module):
    """Return a folder with two portraits, a picture without a face and a broken file."""
    folder = tmp_path / "my photos"
    (folder / "more").mkdir(parents=True)
    portraits_module.astronaut().save(folder / 'a, "b" é.png')
    portraits_module.hopper().save(folder / "more" / "hopper.jpg", quality=95)
    Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(folder / "empty.png")
    (folder / "broken.jpg").write_bytes(b"nonsense")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "circle").symlink_to(folder)
    return folder


def records(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_answers_are_printed(predict, photos):
    ended = predict(str(photos))
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert sum("happy 9" in line for line in lines) == 1
    assert sum("neutral" in line and "hopper.jpg" in line for line in lines) == 1
    assert any("empty.png" in line and "no face found" in line for line in lines)
    assert any("broken.jpg" in line and "not a readable picture" in line for line in lines)


def test_json_lines(predict, photos):
    ended = predict(str(photos / 'a, "b" é.png'), "--json")
    (found,) = [json.loads(line) for line in ended.out.splitlines()]
    assert found["faces"][0]["emotion"] == "happy"
    assert found["file"].endswith('a, "b" é.png')


def test_a_folder_of_results(predict, photos, tmp_path):
    ended = predict(str(photos), "--out", "out", "--annotated", "marked")
    assert ended.code == 0, ended.err
    header, *found = records(tmp_path / "out")
    assert header["crop"]["margin"] == 1
    assert [Path(one["file"]).name for one in found] == ['a, "b" é.png', "broken.jpg", "empty.png", "hopper.jpg"]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["emotion"] for row in rows] == ["happy", "", "", "neutral"]
    assert sum(float(rows[0][name]) for name in header["emotions"]) == pytest.approx(1, abs=1e-3)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a, &#34;b&#34; é.png" in page
    assert "1 picture without a face" in ended.out
    with Image.open(tmp_path / "marked" / 'a, "b" é.jpg') as marked, Image.open(photos / 'a, "b" é.png') as before:
        changed = np.abs(np.asarray(marked, int) - np.asarray(before, int)).max(2) > 100
    down, across = np.nonzero(changed)
    assert (down.min(), across.min()) >= (50, 150)  # around the face alone
    assert (down.max(), across.max()) <= (260, 320)


def test_an_interrupted_prediction_goes_on(predict, photos, tmp_path):
    assert predict(str(photos), "--out", "whole").code == 0
    assert predict(str(photos), "--out", "whole").line.count("--resume") == 1
    file = tmp_path / "whole" / "predictions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:20])  # a kill in the middle of a line
    ended = predict(str(photos), "--out", "whole", "--resume")
    assert ended.code == 0, ended.err
    assert file.read_text() == "".join(lines)
    assert len((tmp_path / "whole" / "predictions.csv").read_text().splitlines()) == 5
    for asked in (("--margin", "1.3"), ("--coverage", "0.8")):
        other = predict(str(photos), "--out", "whole", "--resume", *asked).line
        assert "another network, detector, crop or coverage" in other


def test_prediction_sets_are_printed_written_and_shown(predict, photos, tmp_path):
    assert "; 90 % set: happy; box" in predict(str(photos / 'a, "b" é.png')).out
    ended = predict(str(photos), "--coverage", "0.99", "--out", "sets")
    assert (ended.code, ended.err) == (0, "")
    header, *found = records(tmp_path / "sets")
    assert header["coverage"] == 0.99
    faces = [face for one in found for face in one.get("faces", ())]
    assert all(len(face["emotions"]) > 1 and face["uncertain"] for face in faces)
    assert [face["emotions"][0] for face in faces] == ["happy", "neutral"]
    with (tmp_path / "sets" / "predictions.csv").open(newline="") as stream:
        listed = [row["emotions"] for row in csv.DictReader(stream) if row["emotion"]]
    assert listed == [";".join(face["emotions"]) for face in faces]
    page = (tmp_path / "sets" / "index.html").read_text()
    assert " or ".join(faces[0]["emotions"]) + "?" in page
    assert "99 % of the sets hold the label" in page


def test_a_network_without_sets_is_reported_once(predict, photos, tmp_path):
    old = Path(__file__).parent / "fixtures" / "format_1" / "shared.safetensors"
    ended = predict(str(photos), "--network", str(old), "--out", "old")
    assert ended.code == 0
    assert "fer.share" in ended.line
    header, *found = records(tmp_path / "old")
    assert header["coverage"] is None
    for face in (face for one in found for face in one.get("faces", ())):
        assert face["emotions"] == []
        assert face["uncertain"] == (face["probability"] < 0.5)
    assert "a probability below 50 %" in (tmp_path / "old" / "index.html").read_text()
    assert "--coverage 0.9: no prediction sets" in predict(str(photos), "--network", str(old), "--coverage", "0.9").line


def test_boxes_of_a_table(predict, photos, tmp_path):
    table = photos / "boxes.csv"
    table.write_text('file,x,y,width,height\n"a, ""b"" é.png",177,66,97,97\n')
    ended = predict(str(photos / 'a, "b" é.png'), "--boxes", str(table), "--json")
    assert json.loads(ended.out)["faces"][0]["detector_score"] is None
    table.write_text("file,x,y,width,height\na.png,1,2,0,5\n")
    assert "line 2" in predict(str(photos), "--boxes", str(table)).line
    table.write_text("file,x,y\n")
    assert "height, width" in predict(str(photos), "--boxes", str(table)).line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.jpg"], "nothing.jpg: no such file"),
        (["*.xyz"], "no file fits"),
        (["."], "no picture in this folder"),
        (["a.png", "--network", "none"], "none"),
        (["a.png", "--margin", "0"], "--margin 0: expected 0.1 to 10"),
        (["a.png", "--coverage", "90"], "--coverage 90: expected a share of the faces from 0.5 to 0.99"),
        (["a.png", "--resume"], "--out"),
        ([], "--help"),
    ],
)
def test_faults_are_one_line(predict, arguments, told):
    if "a.png" in arguments:
        Image.new("L", (50, 50)).save("a.png")
    ended = predict(*arguments)
    assert ended.code == 1
    assert told in ended.line


def test_the_exit_code_tells_of_pictures_of_which_none_can_be_read(predict, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"")
    assert predict("broken.jpg").code == 1


def test_patterns_are_found_by_the_command_too(predict, photos, tmp_path):
    ended = predict(str(photos / "**" / "*.jpg"), "--json")
    assert [Path(json.loads(line)["file"]).name for line in ended.out.splitlines()] == ["broken.jpg", "hopper.jpg"]
