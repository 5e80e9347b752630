import json

import cv2
import numpy as np
import pytest
import skimage.data
from exports.web import node
from inference.portraits import astronaut, hopper, scene
from PIL import Image

from fer.config.errors import FerError
from fer.exports.web.detector import cascade_json, rules
from fer.inference import detect

SEARCH = """
import { Cascade } from "./cascade.js";
import { Detector } from "./faces.js";
import { upright } from "./upright.js";
const detector = new Detector(new Cascade(given.cascade), given.rules);
const sum = (pixels) => pixels.reduce((total, value, place) => (total + value * (1 + (place % 251))) % 1e9, 0);
const found = {};
for (const name of Object.keys(given.sizes)) {
  const picture = grey(name);
  const turned = given.tilts.map((tilt) => upright(picture, tilt).picture);
  found[name] = {
    raw: given.searches.map((search) => detector.cascade.search(picture, ...search)),
    faces: detector.faces(picture),
    turned: turned.map(({ pixels, width, height }) => [width, height, sum(pixels)]),
  };
}
console.log(JSON.stringify(found));
"""
TILTS = (-30, 7.5)
SEARCHES = ((1.1, 0, 16, 0), (1.15, 1, 30, 90))  # scale, neighbours, smallest and largest side
NAMES = ("cat", "coins", "coffee", "rocket")


@pytest.fixture(scope="module")
def haar():
    return detect.Haar()


@pytest.fixture(scope="module")
def pictures():
    """Photographs at a third of their size, with and without faces, and scenes with tilted ones."""
    whole = {"astronaut": astronaut(), "hopper": hopper()}
    whole |= {name: Image.fromarray(getattr(skimage.data, name)()) for name in NAMES}
    small = {name: picture.convert("L").reduce(3) for name, picture in whole.items()}
    tilted, _ = scene("astronaut", 80, 30)
    return small | {"tilted": tilted.crop((90, 80, 270, 281)), "too_small": small["cat"].crop((0, 0, 19, 30))}


@pytest.fixture(scope="module")
def found(tmp_path_factory, haar, pictures):
    return search(tmp_path_factory.mktemp("node"), haar, pictures)


def search(folder, haar, pictures):
    cascade = json.loads(cascade_json(haar.file))
    return node.run(folder, SEARCH, pictures, cascade=cascade, rules=rules(), tilts=TILTS, searches=SEARCHES)


def opencvs(haar, picture, scale, neighbours, smallest, largest):
    boxes, _, weights = haar.cascade.detectMultiScale3(
        np.asarray(picture), scaleFactor=scale, minNeighbors=neighbours, minSize=(smallest,) * 2,
        maxSize=(largest,) * 2, outputRejectLevels=True,
    )  # fmt: skip
    return sorted((*map(int, box), weight) for box, weight in zip(boxes, np.ravel(weights), strict=True))


def sorted_boxes(boxes):
    return sorted((box["x"], box["y"], box["width"], box["height"], box["score"]) for box in boxes)


def faces_of(found):
    boxes = [[face["box"][side] for side in ("x", "y", "width", "height")] for face in found]
    return [(*box, face["score"], face["tilt"]) for box, face in zip(boxes, found, strict=True)]


def test_the_page_finds_opencvs_boxes_with_their_scores(haar, pictures, found):
    for name, picture in pictures.items():
        for number, parameters in enumerate(SEARCHES):
            assert sorted_boxes(found[name]["raw"][number]) == opencvs(haar, picture, *parameters), (name, parameters)
    assert sum(len(one["raw"][0]) for one in found.values()) > 40  # without neighbours every window is a box


def test_the_page_finds_the_faces_of_fer_predict_with_their_tilts(haar, pictures, found):
    for name, picture in pictures.items():
        assert faces_of(found[name]["faces"]) == expected_faces(haar, picture), name
    assert [len(found[name]["faces"]) for name in pictures] == [1, 1, 0, 0, 0, 0, 1, 0]
    assert found["tilted"]["faces"][0]["tilt"] == 30


def expected_faces(haar, picture):
    # a turned box is mapped back in floats, whose last digit depends on the processor
    return [
        (*map(pytest.approx, (face.box.x, face.box.y, face.box.width, face.box.height)), face.score, face.tilt)
        for face in haar(picture)
    ]


def test_the_page_turns_a_picture_as_opencv_does(pictures, found):
    for name, picture in pictures.items():
        for tilt, (width, height, total) in zip(TILTS, found[name]["turned"], strict=True):
            turned, _ = detect.upright(cv2, np.asarray(picture), tilt)
            assert (height, width) == turned.shape
            weights = 1 + np.arange(turned.size) % 251
            assert total == (turned.ravel().astype(np.int64) * weights).sum() % 10**9, (name, tilt)


@pytest.mark.slow
def test_whole_photographs_have_opencvs_boxes_too(tmp_path, haar):
    pictures = {"astronaut": astronaut().convert("L"), "hopper": hopper().convert("L")}
    pictures["large"] = pictures["astronaut"].resize((1500, 601))  # searched in a smaller copy
    boxes = search(tmp_path, haar, pictures)
    for name, picture in pictures.items():
        assert sorted_boxes(boxes[name]["raw"][0]) == opencvs(haar, picture, *SEARCHES[0]), name
        assert faces_of(boxes[name]["faces"]) == expected_faces(haar, picture), name


def test_a_cascade_keeps_its_licence_and_another_file_is_named(tmp_path, haar):
    described = json.loads(cascade_json(haar.file))
    assert "Intel License Agreement" in described["licence"]
    assert [len(described["stages"]), described["side"]] == [20, 20]
    smile = haar.file.with_name("haarcascade_eye_tree_eyeglasses.xml")  # has tilted features
    lbp = tmp_path / "lbp.xml"
    lbp.write_text(haar.file.read_text().replace("<featureType>HAAR", "<featureType>LBP"))
    for file in (smile, lbp, tmp_path / "none.xml"):
        with pytest.raises(FerError, match=file.name):
            cascade_json(file)
