"""``fer predict``: what it prints, writes and survives."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import runner
from PIL import Image

from fer.config.errors import FerError
from fer.data.readers import images
from fer.predict import main
from fer.reports.annotate import AnnotatedVideo
from fer.reports.session import Session


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
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "circle").symlink_to(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory, portraits_module):
    """Return a video of 50 frames in which a face is there, but for the first ten and the last ten."""
    frames = [{"astronaut": (100 + 2 * step, 100)} if 10 <= step < 40 else {} for step in range(50)]
    return portraits_module.video(tmp_path_factory.mktemp("clips") / 'my "clip", é.mp4', frames)


def records(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_answers_are_printed(predict, photos):
    (photos / "notes.txt").write_text("no picture")
    (photos / "more" / "README").write_text("no picture")
    ended = predict(str(photos))
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert sum("happy 9" in line for line in lines) == 1
    assert sum("neutral" in line and "hopper.jpg" in line for line in lines) == 1
    assert any("empty.png" in line and "no face found" in line for line in lines)
    assert any("broken.jpg" in line and "not a readable picture" in line for line in lines)
    assert "passed over 2 files" in ended.err
    assert "no ending 1, .txt 1" in ended.err


@pytest.mark.slow
def test_a_photograph_waits_for_no_training_and_no_page(photos):
    """A process that predicts imports nothing of these, which takes seconds."""
    code = (
        "import sys\nfrom fer.predict import main\nassert main([sys.argv[1]]) == 0\n"
        "heavy = ('pytorch_lightning', 'torchmetrics', 'torchvision', 'matplotlib', 'scipy', 'torch._dynamo')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    photo = str(photos / "more" / "hopper.jpg")
    ended = subprocess.run([sys.executable, "-c", code, photo], capture_output=True, text=True, check=True)
    assert "neutral" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


def test_a_picture_is_decoded_once_to_be_marked(predict, photos, monkeypatch, tmp_path):
    plain = predict(str(photos), "--json")
    opened = []
    decode = images._decoded
    monkeypatch.setattr(images, "_decoded", lambda path, *given: opened.append(path.name) or decode(path, *given))
    marked = predict(str(photos), "--json", "--annotated", "marked")
    rows = [json.loads(line) for line in marked.out.splitlines()]
    copies = {one.pop("annotated") for one in rows if "annotated" in one}
    assert copies == {file.name for file in Path("marked").iterdir()}
    # the grey of the colours is the file's, to the bit
    assert rows == [json.loads(line) for line in plain.out.splitlines()]
    assert sorted(opened) == ['a, "b" é.png', "broken.jpg", "broken.jpg", "empty.png", "hopper.jpg"]
    assert len(list((tmp_path / "marked").iterdir())) == 3


def test_json_lines(predict, photos):
    ended = predict(str(photos / 'a, "b" é.png'), "--json")
    (found,) = [json.loads(line) for line in ended.out.splitlines()]
    assert found["faces"][0]["emotion"] == "happy"
    assert found["file"].endswith('a, "b" é.png')


def test_a_folder_of_results(predict, photos, tmp_path):
    ended = predict(str(photos), "--out", "out", "--annotated", "marked")
    assert ended.code == 0, ended.err
    header, *faces = records(tmp_path / "out")
    assert header["crop"]["margin"] == 1
    assert [Path(one["file"]).name for one in faces] == ['a, "b" é.png', "broken.jpg", "empty.png", "hopper.jpg"]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["emotion"] for row in rows] == ["happy", "", "", "neutral"]
    assert [row["annotated"] for row in rows] == [one.get("annotated", "") for one in faces]
    assert [row["annotated"] for row in rows][::3] == ['a, "b" é.jpg', "hopper.jpg"]
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
    for options in (("--margin", "1.3"), ("--coverage", "0.8"), ("--faces", "largest")):
        other = predict(str(photos), "--out", "whole", "--resume", *options).line
        assert "another network, detector, crop or coverage" in other


def test_the_page_of_a_resumed_prediction_has_all_faces(predict, photos, tmp_path):
    assert predict(str(photos), "--out", "whole").code == 0
    page = tmp_path / "whole" / "index.html"
    before = page.read_text()
    assert predict(str(photos), "--out", "whole", "--resume").code == 0
    assert page.read_text().count("<figure") == before.count("<figure") == 2
    (photos / "more" / "hopper.jpg").unlink()
    assert predict(str(photos), "--out", "whole", "--resume").code == 0
    assert "1 of 2 faces. The pictures of the others have gone" in page.read_text()


def test_a_resumed_prediction_takes_other_files_and_those_that_could_not_be_read(predict, photos, tmp_path):
    assert predict(str(photos), "--out", "whole").code == 0
    (photos / "broken.jpg").write_bytes((photos / "more" / "hopper.jpg").read_bytes())
    other = tmp_path / "other.jpg"
    other.write_bytes(b"")
    names = [str(photos / "broken.jpg"), str(other)]
    ended = predict(*names, "--out", "whole", "--resume")
    assert ended.code == 0, ended.err
    assert "3 files done before; 2 of 2 left" in ended.out
    found = {Path(one["file"]).name: one for one in records(tmp_path / "whole")[1:]}
    assert list(found)[-2:] == ["broken.jpg", "other.jpg"]
    assert found["broken.jpg"]["faces"][0]["emotion"] == "neutral"
    assert "error" in found["other.jpg"]
    assert predict(str(photos), "--out", "whole", "--resume").code == 0
    assert "error" in records(tmp_path / "whole")[-1]  # the one that was not named is kept


def test_a_video_s_option_without_a_video_is_reported(predict, photos):
    assert "--fps 5" in predict(str(photos), "--fps", "5").err


@pytest.mark.parametrize("name", ["predictions.csv", "index.html"])
def test_files_of_something_else_are_not_overwritten(predict, photos, tmp_path, name):
    """A run, for one, has a predictions.csv of its own."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("precious")
    ended = predict(str(photos), "--out", "run")
    assert ended.code == 1
    assert f"--out run: has a {name}" in ended.line
    assert [file.name for file in (tmp_path / "run").iterdir()] == [name]
    assert (tmp_path / "run" / name).read_text() == "precious"


def in_latin_1(folder, suffix):
    """Return a path whose name is no UTF-8, as old archives have them."""
    file = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9" + suffix))
    try:
        file.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such names")
    return file


def test_names_that_are_no_utf_8(predict, photos, tmp_path):
    (photos / "more" / "hopper.jpg").rename(in_latin_1(photos, b".jpg"))
    assert predict(str(photos), "--out", "out", "--annotated", "marked").code == 0
    assert predict(str(photos), "--out", "out", "--resume").code == 0
    _, *found = records(tmp_path / "out")
    assert sum(one["file"].endswith("caf\udce9.jpg") for one in found) == 1
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["emotion"] for row in rows if row["file"].endswith("caf\\udce9.jpg")] == ["neutral"]


def test_a_video_whose_name_is_no_utf_8_is_reported(predict, clip, tmp_path):
    """OpenCV would end the process with a segmentation fault."""
    file = in_latin_1(tmp_path, b".mp4")
    file.write_bytes(clip.read_bytes())
    code = "import sys\nfrom fer.predict import main\nsys.exit(main(sys.argv[1:]))"
    ended = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "caf\\udce9.mp4: OpenCV takes only names in UTF-8" in ended.stdout


def test_a_folder_that_cannot_be_listed_is_counted(predict, photos, monkeypatch):
    listed = os.scandir

    def refused(path):
        if os.fspath(path).endswith("more"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    ended = predict(str(photos))
    assert "2 files could not be read" in ended.out
    assert any("more: not a readable picture" in line for line in ended.out.splitlines())


def test_a_name_that_begins_with_a_tilde(predict, photos, tmp_path):
    (photos / "more" / "hopper.jpg").rename(tmp_path / "~hopper.jpg")
    assert "~hopper.jpg: neutral" in predict("~hopper.jpg").out
    assert "no such file" in predict("~nobody_of_this_name/a.jpg").line


def test_prediction_sets_are_printed_written_and_shown(predict, photos, tmp_path):
    assert "; 90 % set: happy; box" in predict(str(photos / 'a, "b" é.png')).out
    ended = predict(str(photos), "--coverage", "0.99", "--out", "sets")
    assert (ended.code, ended.err) == (0, "")
    header, *rows = records(tmp_path / "sets")
    assert header["coverage"] == 0.99
    faces = [face for one in rows for face in one.get("faces", ())]
    assert all(len(face["emotions"]) > 1 and face["uncertain"] for face in faces)
    assert [face["emotions"][0] for face in faces] == ["happy", "neutral"]
    with (tmp_path / "sets" / "predictions.csv").open(newline="") as stream:
        listed = [row["emotions"] for row in csv.DictReader(stream) if row["emotion"]]
    assert listed == [";".join(face["emotions"]) for face in faces]
    page = (tmp_path / "sets" / "index.html").read_text()
    assert " or ".join(faces[0]["emotions"]) + "?" in page
    assert "in 99 of 100 cases" in page


def test_a_network_without_sets_is_reported_once(predict, photos, tmp_path):
    old = Path(__file__).parent / "fixtures" / "format_1" / "shared.safetensors"
    ended = predict(str(photos), "--network", str(old), "--out", "old")
    assert ended.code == 0
    assert "fer.share" in ended.line
    header, *rows = records(tmp_path / "old")
    assert header["coverage"] is None
    for face in (face for one in rows for face in one.get("faces", ())):
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
    table.write_text("file,x,y,width,height\na.png,1,,,\n")
    assert "line 2: expected numbers" in predict(str(photos), "--boxes", str(table)).line
    table.write_text("x,y,width,height,file\n1,2,3,4\n")
    assert "line 2: names no file" in predict(str(photos), "--boxes", str(table)).line
    table.write_text("file,x,y\n")
    assert "height, width" in predict(str(photos), "--boxes", str(table)).line


def test_a_row_without_numbers_is_a_picture_without_a_face(predict, photos):
    """As in the predictions of ``fer predict``."""
    table = photos / "boxes.csv"
    table.write_text("file,x,y,width,height\nempty.png,,,,\n")
    ended = predict(str(photos / "empty.png"), "--boxes", str(table))
    assert (ended.code, "no box was given" in ended.out) == (0, True)


def test_a_box_of_a_small_face_is_counted(predict, photos):
    table = photos / "boxes.csv"
    table.write_text("file,x,y,width,height\nempty.png,1,2,20,20\n")
    ended = predict(str(photos / "empty.png"), "--boxes", str(table))
    assert "no face found, 1 too small" in ended.out


def test_boxes_leave_a_detector_nothing_to_do(predict, photos):
    table = photos / "boxes.csv"
    table.write_text("file,x,y,width,height\nempty.png,1,2,50,50\n")
    for option in (["--detector", "yuface"], ["--detector-model", "a.onnx"]):
        line = predict(str(photos / "empty.png"), "--boxes", str(table), *option).line
        assert f"--boxes and {option[0]}: " in line


def test_boxes_and_pictures_that_do_not_match_are_reported(predict, photos, tmp_path):
    table = tmp_path / "boxes.csv"  # files are named from its folder
    table.write_text("file,x,y,width,height\nempty.png,1,2,50,50\n")
    assert (
        f"names none of the pictures; its first is {tmp_path / 'empty.png'}"
        in predict(str(photos), "--boxes", str(table)).line
    )
    table.write_text("file,x,y,width,height\nmy photos/empty.png,1,2,50,50\nother.png,1,2,50,50\n")
    ended = predict(str(photos), "--boxes", str(table))
    assert ended.code == 0
    assert ended.out.count("no box was given") == 2
    assert "no boxes for 3 of 4 pictures, 1 file of it not among the pictures" in ended.err


@pytest.mark.parametrize("box", ["500,20,50,50", "20,-1e9,50,50", "1e300,0,50,50", "0,0,1e7,1e7", "0,0,1e300,1e300"])
def test_a_box_outside_its_picture_is_the_reason_of_its_record(predict, photos, box):
    table = photos / "boxes.csv"
    table.write_text(f"file,x,y,width,height\nempty.png,{box}\nmore/hopper.jpg,145,99,239,239\n")
    ended = predict(str(photos / "empty.png"), str(photos / "more"), "--boxes", str(table))
    assert ended.code == 0
    first, second, _ = ended.out.splitlines()
    assert "expected one whose middle lies in the picture of 100x100 pixels" in first
    assert "hopper.jpg: neutral" in second


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.jpg"], "nothing.jpg: no such file"),
        ([""], "an empty name"),
        (["--webcam", "99999999999"], "--webcam 99999999999: expected"),
        (["*.xyz"], "no file matches"),
        (["."], "no picture or video in this folder"),
        (["a.png", "--network", "none"], "none"),
        (["a.png", "--network", ""], "empty name"),
        (["a.png", "--network", "~nobody-here/x"], "~nobody-here/x"),
        (["a.png", "--json", "--out", "out"], "leave --json out"),
        (["a.png", "--detector-model", "yunet.onnx"], "add --detector yunet"),
        (["a.png", "--margin", "0"], "--margin 0: expected 0.1 to 10"),
        (["a.png", "--coverage", "90"], "--coverage 90: expected a share of the faces from 0.5 to 0.99"),
        (["a.png", "--resume"], "--out"),
        (["a.png", "--fps", "0"], "--fps 0: expected 0.01 to 1000"),
        (["a.png", "--smooth", "-1"], "--smooth -1: expected 0 to 60"),
        (["a.png", "--webcam", "0"], "--webcam: takes no files"),
        (["a.png", "--annotated", "a.png"], "--annotated: a.png: is a file"),
        (["--webcam", "97", "--out", "out"], "camera 97: no such camera"),
        (["--webcam", "0", "--resume"], "--resume"),
        ([], "--help"),
    ],
)
def test_faults_are_one_line(predict, arguments, says):
    if "a.png" in arguments:
        Image.new("L", (50, 50)).save("a.png")
    ended = predict(*arguments)
    assert ended.code == 1
    assert says in ended.line


def test_the_exit_code_reports_pictures_of_which_none_can_be_read(predict, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"")
    assert predict("broken.jpg").code == 1


def test_odd_files_of_a_folder_are_recorded_and_the_rest_goes_on(predict, tmp_path):
    odd = tmp_path / "odd"
    (odd / "k").mkdir(parents=True)
    (odd / "k" / "c.jpg").symlink_to("b")
    (odd / "k" / "b").symlink_to("c.jpg")
    (odd / "gone.jpg").symlink_to("nowhere.jpg")
    (odd / "empty.jpg").write_bytes(b"")
    os.mkfifo(odd / "pipe.jpg")
    good = ["a\nb.png", "\u202egpj.png", os.fsdecode(b"\xff.png")]
    for name in good:
        Image.new("L", (50, 50)).save(odd / name, "PNG")
    ended = predict(str(odd), "--json", "--detector", "none")
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in ended.out.splitlines()]
    errors = {Path(one["file"]).name: one["error"] for one in rows if "error" in one}
    assert errors.keys() == {"c.jpg", "gone.jpg", "empty.jpg", "pipe.jpg"}
    assert errors["c.jpg"] == errors["gone.jpg"] == "is a broken link or a loop of links"
    assert ("0 bytes" in errors["empty.jpg"], "pipe" in errors["pipe.jpg"]) == (True, True)
    assert [Path(one["file"]).name for one in rows if "faces" in one] == sorted(good)


def test_patterns_are_found_by_the_command_too(predict, photos, tmp_path):
    ended = predict(str(photos / "**" / "*.jpg"), "--json")
    assert [Path(json.loads(line)["file"]).name for line in ended.out.splitlines()] == ["broken.jpg", "hopper.jpg"]


def test_a_video_beside_pictures(predict, photos, clip, tmp_path):
    (photos / "cut.mp4").write_bytes(clip.read_bytes()[:5000])
    ended = predict(str(clip), str(photos), "--out", "out", "--annotated", "marked")
    assert (ended.code, ended.err) == (0, "")
    assert "1 video of 50 frames with 1 face" in ended.out
    assert "2 files could not be read" in ended.out  # the broken picture and the cut video
    header, *faces = records(tmp_path / "out")
    assert header["video"] == {"fps": None, "half_life_s": 0.5}
    frames, (closing,) = faces[:50], [one for one in faces if "video" in one]
    assert [frame["frame"] for frame in frames] == list(range(50))
    assert frames[30]["time"] == pytest.approx(1.2, abs=1e-3)
    (face,) = frames[30]["faces"]
    assert (face["track"], face["emotion"]) == (1, "happy")
    assert sum(face["raw"].values()) == pytest.approx(1, abs=1e-3)
    assert frames[5]["faces"] == frames[48]["faces"] == []
    (track,) = closing["video"]["tracks"]
    assert (track["start"], track["end"]) == (frames[15]["time"], pytest.approx(1.6, abs=0.25))
    assert track["frames"] == sum(len(frame["faces"]) for frame in frames)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert (rows[30]["frame"], rows[30]["track"], rows[30]["emotion"]) == ("30", "1", "happy")
    assert rows[48]["note"].startswith("no face found")
    assert (rows[50]["frame"], rows[50]["track"]) == ("", "")  # of a picture
    page = (tmp_path / "out" / "index.html").read_text()
    assert closing["video"]["page"] == 'videos/my "clip", é.html'
    assert closing["video"]["annotated"] == 'my "clip", é.mp4'
    assert 'href="videos/my%20%22clip%22%2C%20%C3%A9.html"' in page
    assert "cut.mp4" in page
    assert (tmp_path / "out" / "videos" / 'my "clip", é.png').exists()
    assert not list((tmp_path / "marked").glob(".*"))


def test_an_annotated_video_shows_boxes_and_is_as_long(predict, clip, tmp_path):
    assert predict(str(clip), "--annotated", "marked", "--fps", "5").code == 0
    marked, before = (list(frames(file)) for file in (tmp_path / "marked" / clip.name, clip))
    assert len(marked) == 10
    changed = [np.abs(np.int32(frame) - before[5 * number]).max(2) > 100 for number, frame in enumerate(marked)]
    assert not any(changed[number].any() for number in (0, 1, 9))
    down, across = np.nonzero(changed[6])
    assert (across.min(), across.max()) >= (120, 180)  # around the face at 160
    assert across.max() < 240
    assert down.max() < 200


def frames(file):
    import cv2

    capture = cv2.VideoCapture(str(file))
    while True:
        good, frame = capture.read()
        if not good:
            return
        yield frame


def test_own_results_within_a_folder_are_passed_over(predict, photos):
    out, marked = str(photos / "more"), str(photos / "marked")
    for resume in ((), ("--resume",)):
        ended = predict(str(photos), "--out", out, "--annotated", marked, *resume)
        assert ended.code == 0
    assert "passed over 1 folder of results" in ended.err
    assert "1 of 4 left" in ended.out  # the broken picture is tried again
    assert len(list((photos / "marked").iterdir())) == 3
    (photos / "more" / "annotated").mkdir()
    (photos / "more" / "annotated" / "copy.png").touch()
    again = predict(str(photos), str(photos / "more" / ".."), "--json", "--annotated", marked)
    assert "passed over 2 folders of results: " in again.err
    assert any("hopper.jpg" in line for line in again.out.splitlines())  # a picture of its own beside results
    (photos / "more" / "hopper.jpg").unlink()
    assert "besides results in" in predict(str(photos / "more")).line


@pytest.mark.parametrize("name", ["photos", "photos/*.png", "photos/empty.png"])
def test_marked_copies_do_not_go_among_the_pictures(name, predict, photos, monkeypatch):
    before = sorted(photos.rglob("*"))
    monkeypatch.chdir(photos.parent)
    ended = predict(name.replace("photos", photos.name), "--out", "out", "--annotated", str(photos))
    assert ended.code == 1
    assert f"--annotated {photos.name}: holds the pictures" in ended.line
    assert sorted(photos.rglob("*")) == before
    (photos / "marked").mkdir()
    (photos / "marked" / "copy.jpg").write_bytes((photos / "more" / "hopper.jpg").read_bytes())
    ended = predict(f"{photos.name}/**/*.jpg", "--json", "--annotated", str(photos / "marked"))
    assert "passed over 1 folder of results" in ended.err
    assert "copy.jpg" not in ended.out


def test_a_short_video_says_why_it_has_no_faces(predict, tmp_path, portraits_module):
    short = portraits_module.video(tmp_path / "short.mp4", [{"astronaut": (100, 100)}] * 3)
    ended = predict(str(short))
    assert "no face predicted in 3 frames" in ended.out
    assert "fewer than three times left out in 3 frames" in ended.out


def test_frames_of_which_no_copy_can_be_written_are_a_note(tmp_path):
    video = AnnotatedVideo(tmp_path / "copy.mp4", 25)
    for frame in range(3):
        video.add(np.zeros((1, 1, 3), np.uint8), frame / 25, [])
    video.close(complete=True)
    assert "1x1 pixels" in video.refused
    assert not video.begun
    assert not list(tmp_path.iterdir())
    missing = AnnotatedVideo(tmp_path / "gone" / "copy.mp4", 25)
    with pytest.raises(FerError, match="cannot be written"):
        missing.add(np.zeros((64, 64, 3), np.uint8), 0.0, [])


def test_a_video_that_a_full_disk_cuts_gets_no_name(tmp_path):
    """OpenCV's writer reports nothing."""
    video = AnnotatedVideo(tmp_path / "copy.mp4", 25)
    for frame in range(25):
        video.add(np.random.default_rng(frame).integers(0, 256, (64, 64, 3), np.uint8), frame / 25, [])
    release = video._writer.release
    video._writer = SimpleNamespace(release=lambda: (release(), os.truncate(video._part, 9000)))
    with pytest.raises(FerError, match=r"copy\.mp4: cannot be written whole"):
        video.close(complete=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_interrupted_video_is_predicted_anew_and_finished_ones_are_not(predict, clip, tmp_path, monkeypatch):
    second = tmp_path / "second.avi"
    second.write_bytes(clip.read_bytes())
    assert predict(str(clip), str(second), "--out", "out").code == 0
    files = [tmp_path / "out" / name for name in ("predictions.jsonl", "predictions.csv")]
    whole = [file.read_text() for file in files]
    lines = whole[0].splitlines(keepends=True)
    for page in (tmp_path / "out" / "videos").glob("second.*"):  # written at the video's end
        page.unlink()
    files[0].write_text("".join(lines[:80]) + lines[80][:30])
    watched = []
    monkeypatch.setattr("fer.reports.session.Session._watched", noting(watched, Session._watched))
    ended = predict(str(clip), str(second), "--out", "out", "--resume")
    assert ended.code == 0, ended.err
    assert "1 file done before; 1 of 2 left" in ended.out
    assert watched == [str(second)]
    assert [file.read_text() for file in files] == whole
    assert "second.html" in (tmp_path / "out" / "index.html").read_text()
    assert "--smooth" in predict(str(clip), "--out", "out", "--resume", "--smooth", "1").line


def noting(names, method):
    def noted(session, clip):
        names.append(clip.name)
        return method(session, clip)

    return noted


@pytest.mark.slow
def test_what_is_printed_of_a_video(predict, clip):
    ended = predict(str(clip))
    (line,) = ended.out.splitlines()
    assert re.search(r"face 1, 0\.6 to 1\.\d s, \d\d frames: on average happy \d\d %", line)
    rows = [json.loads(line) for line in predict(str(clip), "--json", "--fps", "1").out.splitlines()]
    assert [one.get("frame") for one in rows] == [0, 25, None]


def test_videos_that_cannot_be_read_alone_are_an_error(predict, tmp_path):
    (tmp_path / "text.mkv").write_text("no video")
    ended = predict("text.mkv")
    assert (ended.code, ended.out.splitlines()) == (1, ["text.mkv: not a readable video"])


def test_boxes_are_of_pictures(predict, clip, tmp_path):
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\n")
    assert "--boxes" in predict(str(clip), "--boxes", "boxes.csv").line


def test_a_camera_is_predicted_until_ctrl_c(predict, clip, tmp_path, monkeypatch):
    import cv2

    from fer.inference.video import Clip

    opened, grab, grabbed = cv2.VideoCapture, Clip._grab, []

    def interrupted(camera):
        grabbed.append(1)
        if len(grabbed) > 40:
            raise KeyboardInterrupt
        return grab(camera)

    monkeypatch.setattr(cv2, "VideoCapture", lambda source, _: opened(str(clip) if source == 3 else source))
    monkeypatch.setattr(Clip, "_grab", interrupted)
    clock = iter(range(1000))
    monkeypatch.setattr("fer.inference.video.monotonic", lambda: 100 + next(clock) / 25)
    ended = predict("--webcam", "3", "--out", "out")
    assert (ended.code, ended.err) == (0, "")
    _, *found, closing = records(tmp_path / "out")
    assert len(found) == closing["video"]["frames"] >= 38
    assert (found[0]["file"], found[25]["time"]) == ("camera 3", 1.0)
    assert closing["video"]["page"] == "videos/camera_3.html"
    assert [face["emotion"] for face in found[35]["faces"]] == ["happy"]
