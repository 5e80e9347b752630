"""Finding faces: in portraits, in scenes of tilted heads, and not where there are none."""

import sys
import types
from itertools import product

import numpy as np
import pytest
import skimage.data
from PIL import Image
from portraits import BOXES, astronaut, hopper, scene

from fer.config.errors import FerError
from fer.inference import detect


@pytest.fixture(scope="module")
def haar():
    return detect.Haar()


@pytest.mark.parametrize(("picture", "name"), [(astronaut, "astronaut"), (hopper, "hopper")])
def test_a_portrait_has_one_face(haar, picture, name):
    (face,) = haar(picture().convert("L"))
    assert face.box.overlap(BOXES[name]) > 0.8
    assert face.tilt == 0


@pytest.mark.parametrize("name", ["cat", "coins", "coffee", "rocket"])
def test_pictures_without_a_face_have_none(haar, name):
    assert haar(Image.fromarray(getattr(skimage.data, name)()).convert("L")) == []


@pytest.mark.slow  # searches 40 scenes
def test_tilted_faces_are_found_and_nothing_else(haar):
    missed, false = [], []
    for name, side, tilt in product(("astronaut", "hopper"), (24, 40, 80, 160), (0, 10, -20, 30, -45)):
        picture, box = scene(name, side, tilt)
        faces = haar(picture)
        right = [face for face in faces if face.box.overlap(box) > 0.3]
        false += [(name, side, tilt)] * (len(faces) - len(right))
        if side >= 40 and abs(tilt) <= 30:
            missed += [] if right else [(name, side, tilt)]
            assert all(abs(face.tilt - tilt) <= 15 for face in right), (name, side, tilt, faces)
    assert false == []
    assert len(missed) <= 1, missed  # recall of at least 0.95 of the 24


def test_a_large_picture_is_searched_in_a_smaller_copy(haar):
    large = astronaut().convert("L").resize((2560, 2560))
    (face,) = haar(large)
    expected = BOXES["astronaut"]
    assert face.box.centre == pytest.approx([5 * value for value in expected.centre], abs=30)


def test_without_upright_faces_alone_are_found():
    picture, _ = scene("astronaut", 80, 30)
    assert detect.Haar(tilted=False)(picture) == []


@pytest.mark.parametrize("tilt", [0, 20, -30])
def test_a_known_face_is_found_near_its_box_with_its_tilt(haar, tilt):
    picture, box = scene("hopper", 80, tilt)
    known = detect.Detection(detect.Box(box.x + 12, box.y - 8, 76, 76), 56.0, 0.0)
    for refined in (False, True):
        known = haar.near(np.asarray(picture), known, refined=refined) or known
        known = detect.replace(known, box=detect.Box(known.box.x + 5, known.box.y, 80, 80))
    faces = haar.near(np.asarray(picture), known, refined=True)
    assert faces.box.overlap(box) > 0.7
    assert abs(faces.tilt - tilt) <= 15
    assert haar.near(np.asarray(picture), detect.replace(known, box=detect.Box(500, 20, 80, 80)), refined=True) is None


def test_a_glance_finds_large_faces(haar):
    picture, box = scene("astronaut", 80, 0)
    (face,) = haar.glance(picture.resize((1440, 1440)))
    assert face.box.centre == pytest.approx([4 * value for value in box.centre], abs=40)


def test_an_opencv_without_cascades_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="5.0.0"))
    with pytest.raises(FerError, match=r"5\.0\.0.*opencv-python-headless>=4\.10,<5"):
        detect.Haar()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FerError, match="opencv-python-headless"):
        detect.build("haar")


def test_yunet_needs_its_model(tmp_path):
    with pytest.raises(FerError, match="--detector-model"):
        detect.build("yunet")
    with pytest.raises(FerError, match="no such file"):
        detect.build("yunet", tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_text("nonsense")
    with pytest.raises(FerError, match="YuNet"):
        detect.build("yunet", tmp_path / "bad.onnx")


def graph_of(outputs, *, elsewhere=False):
    """An ONNX graph that gives 0 under these names; its weight is listed as an input too, as older files do."""
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "weight")
    if elsewhere:
        onnx.external_data_helper.set_external_data(weight, "passwords")
        weight.data_location = onnx.TensorProto.EXTERNAL
    given = [value("input", 1, [1, 3, 320, 320]), value("weight", 1, [1, 3, 1, 1])]
    nodes = [onnx.helper.make_node("Mul", ["input", "weight"], [name]) for name in outputs]
    made = onnx.helper.make_graph(nodes, "g", given, [value(name, 1, [1, 3, 320, 320]) for name in outputs], [weight])
    return onnx.helper.make_model(made).SerializeToString()


def test_a_file_that_is_not_yunets_never_reaches_opencv(tmp_path, monkeypatch):
    given = []
    network = types.SimpleNamespace(create=lambda file, *_: given.append(file))
    monkeypatch.setattr(detect, "opencv", lambda: types.SimpleNamespace(FaceDetectorYN=network, error=ValueError))
    file, outputs = tmp_path / "model.onnx", sorted(detect.OF_YUNET)
    assert outputs[0] == "bbox_16"
    file.write_bytes(graph_of(outputs))
    detect.build("yunet", file)
    assert given == [str(file)]
    for content, says in (
        (graph_of(outputs[:-1]), "1 input and 11 outputs"),
        (graph_of([*outputs[:-1], "probabilities"]), "1 input and 12 outputs"),
        (graph_of(outputs, elsewhere=True), "tensors in other files"),
        (b"nonsense", "cannot be read"),
        (b"", "0 inputs"),
        (graph_of(outputs) + bytes(detect.MOST_OF_YUNET), "larger than 8,388,608 bytes"),
    ):
        file.write_bytes(content)
        with pytest.raises(FerError, match=rf"--detector-model .*model\.onnx: .*{says}.*expected YuNet's \.onnx"):
            detect.build("yunet", file)
    assert len(given) == 1


def test_yuface_is_asked_for_a_picture_in_three_channels_of_at_most_960_pixels(monkeypatch):
    """The package exists for few Pythons: one in its place answers as its ``detect`` does, in hundredths."""
    inputs = []

    def answer(picture, least):
        inputs.append((picture.shape, picture.dtype.name, picture.flags["C_CONTIGUOUS"], least))
        return [99, 60], [[96, 192, 48, 60], [600, 96, 24, 30]], [[0] * 10] * 2

    monkeypatch.setitem(sys.modules, "yuface", types.SimpleNamespace(detect=answer))
    large, small = detect.build("yuface")(Image.new("L", (1920, 960)))
    assert inputs == [((480, 960, 3), "uint8", True, 0.5)]
    assert (large.box, large.score) == (detect.Box(192, 384, 96, 120), 0.99)
    assert (small.box, small.score) == (detect.Box(1200, 192, 48, 60), 0.6)
    monkeypatch.setitem(sys.modules, "yuface", None)
    with pytest.raises(FerError, match="pip install yuface.*haar"):
        detect.build("yuface")


def test_two_boxes_of_one_face_are_one():
    near = detect.Detection(detect.Box(0, 0, 10, 10), 1.0), detect.Detection(detect.Box(1, 0, 10, 10), 2.0)
    far = detect.Detection(detect.Box(50, 0, 10, 10), 0.5)
    assert detect.strongest([*near, far]) == [near[1], far]
