"""From pictures to emotions in Python."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from portraits import BOXES, astronaut, hopper

import fer
from fer.config.errors import FerError
from fer.data.crop import Box


@pytest.fixture(scope="module")
def predictor():
    return fer.Predictor()


def test_the_package_network_predicts_portraits(predictor):
    (happy,), (neutral,), none = predictor([astronaut(), np.asarray(hopper()), np.zeros((200, 300), np.uint8)])
    assert (happy.emotion, neutral.emotion) == ("happy", "neutral")
    assert happy.probability >= 0.85
    assert (happy.emotions, happy.uncertain) == (("happy",), False)
    assert (neutral.emotions[0], len(neutral.emotions) > 1, neutral.uncertain) == ("neutral", True, True)
    assert sum(happy.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert tuple(happy.probabilities) == predictor.emotions
    assert none == []


def test_sets_hold_the_most_probable_emotions_as_far_as_promised(predictor):
    ((before,),) = predictor([hopper()])
    ranked = sorted(before.probabilities, key=lambda name: -before.probabilities[name])
    sizes = []
    for coverage in (0.5, 0.9, 0.99):
        ((face,),) = fer.Predictor(predictor.network, detector=predictor.detector, coverage=coverage)([hopper()])
        assert list(face.emotions) == ranked[: len(face.emotions)]
        assert face.uncertain == (len(face.emotions) > 1)
        sizes.append(len(face.emotions))
    assert sizes[0] == 1 < sizes[1] < sizes[2]  # half is below the accuracy: the answer alone
    with pytest.raises(FerError, match=r"coverage=2: expected .* 0\.5 to 0\.99"):
        fer.Predictor(predictor.network, coverage=2)


def test_one_picture_needs_no_list(predictor, tmp_path):
    astronaut().save(tmp_path / "a.png")
    ((face,),) = predictor(str(tmp_path / "a.png"))
    ((same,),) = predictor(tmp_path / "a.png")
    assert face == same
    assert face.emotion == "happy"


def test_a_picture_turned_by_its_camera_gives_the_same(predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    astronaut().rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    ((face,),) = predictor(tmp_path / "turned.png")
    ((upright,),) = predictor(astronaut())
    assert face == upright


@pytest.mark.slow
def test_an_enlarged_picture_gives_nearly_the_same(predictor):
    ((face,),), ((large,),) = predictor(astronaut()), predictor(astronaut().resize((2048, 2048)))
    assert max(abs(face.probabilities[name] - large.probabilities[name]) for name in face.probabilities) < 0.05


def test_boxes_replace_the_detector(predictor):
    box = Box(177, 66, 97, 97)
    ((face,),) = predictor([astronaut()], boxes=[[box]])
    assert (face.box, face.detector_score, face.emotion) == (box, None, "happy")
    with pytest.raises(FerError, match="boxes: 0 lists; expected 1"):
        predictor([astronaut()], boxes=[])


def test_the_largest_of_given_boxes_is_taken_whatever_their_order():
    small, large = Box(0, 0, 30, 30), Box(100, 100, 200, 200)
    for boxes in ([small, large], [large, small]):
        ((face,),) = fer.Predictor(detector="none", largest=True)([astronaut()], boxes=[boxes])
        assert face.box == large


def test_a_damaged_picture_in_memory_is_named_and_the_others_are_predicted():
    stream = io.BytesIO()
    astronaut().save(stream, "JPEG")
    damaged = Image.open(io.BytesIO(stream.getvalue()[:9000]))
    first, second = fer.Predictor(detector="none").answers([damaged, astronaut()])
    assert "cannot be decoded" in str(first)
    assert len(second.faces) == 1


def test_a_gpu_that_torch_does_not_find_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FerError, match="finds no GPU"):
        fer.Predictor(device="cuda")


def test_faces_that_are_cut_out_already_need_no_opencv():
    whole = fer.Predictor(detector="none")
    face = astronaut().convert("L").crop((177, 66, 274, 163)).resize((48, 48))
    ((found,),) = whole(face)
    expected = whole.network.model.probabilities(torch.from_numpy(np.asarray(face)[None, None].copy()))[0]
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert whole(np.asarray(face)) == [[found]]  # an array takes a shorter way
    assert len(whole(np.asarray(face)[:, :47])[0]) == 1


def test_small_faces_are_left_out_or_uncertain(predictor):
    picture = astronaut()
    answer = predictor.answer(picture, [Box(177, 66, 97, 97), Box(10, 10, 23.9, 23.9), Box(200, 90, 30, 30)])
    assert answer.too_small == 1
    assert [face.uncertain for face in answer.faces] == [False, True]


def test_the_largest_alone():
    two = Image.new("RGB", (1100, 600))
    two.paste(astronaut(), (0, 0))
    two.paste(hopper(), (560, 0))
    assert [face.emotion for face in fer.Predictor()(two)[0]] == ["neutral", "happy"]
    assert [face.emotion for face in fer.Predictor(largest=True)(two)[0]] == ["neutral"]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(predictor, bad):
    with pytest.raises(FerError, match="expected uint8"):
        predictor([bad])


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"margin": 0}, "margin=0: expected 0.1 to 10"),
        ({"margin": float("nan")}, "margin=nan: expected 0.1 to 10"),
        ({"margin": "1"}, "margin: got '1', which is no number; expected 0.1 to 10"),
        ({"margin": True}, "margin: got True, which is no number"),
        ({"coverage": "0.9"}, "coverage: got '0.9', which is no number; expected a share of the faces"),
        ({"device": "tpu"}, "device=tpu: .* expected cpu or cuda"),
        ({"device": "meta"}, "device=meta: .* expected cpu or cuda"),
        ({"device": []}, "device=\\[\\]: .* expected cpu or cuda"),
    ],
)
def test_values_out_of_range_are_refused(keys, words):
    with pytest.raises(FerError, match=words):
        fer.Predictor(**keys)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[(177, 66, 97, 97)]], r"box \(177, 66, 97, 97\): expected fer.data.crop.Box"),
        ([BOXES["astronaut"]], "expected a list of boxes for each picture"),
    ],
)
def test_what_is_no_list_of_boxes_is_refused(predictor, boxes, words):
    with pytest.raises(FerError, match=words):
        predictor([astronaut()], boxes)
