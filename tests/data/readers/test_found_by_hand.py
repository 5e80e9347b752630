"""Downloads that users put into data/ without unpacking."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fer.config.errors import FerError
from fer.data.labels import EMOTIONS
from fer.data.load import read_path
from fer.data.readers.drawing import draw_faces


@pytest.fixture
def text():
    images, targets = draw_faces(7, seed=4)
    rows = [f"{t},{' '.join(map(str, i.ravel()))},Training" for i, t in zip(images, targets, strict=True)]
    return "emotion,pixels,Usage\n" + "\n".join(rows) + "\n", images


def load(path):
    return read_path(path, image_size=48, on_bad="error", cache=None)


@pytest.mark.parametrize("name", ["archive.zip", "challenges-in-representation-learning.zip"])
def test_an_archive_under_the_name_it_was_downloaded_with(tmp_path, text, name):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("fer2013/fer2013.csv", text[0])
    assert np.array_equal(load(tmp_path).images, text[1])


@pytest.mark.parametrize("name", ["archive.zip", "fer2013.zip", "train.zip"])
def test_an_archive_of_pictures_beside_the_unpacked_pictures_is_ignored(name, tmp_path):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("train/angry/Training_1.jpg", b"")
    images, targets = draw_faces(7, seed=4)
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        folder = tmp_path / "train" / EMOTIONS[target]
        folder.mkdir(parents=True)
        Image.fromarray(image).save(folder / f"Training_{number}.png")
    assert len(load(tmp_path)) == 7


def test_an_archive_of_pictures_alone_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("train/angry/Training_1.jpg", b"")
    with pytest.raises(FerError, match=r"no data set recognised.*archive\.zip.*unpacked"):
        load(tmp_path)
    with pytest.raises(FerError, match=r"such as train/angry.*unpack"):
        load(tmp_path / "archive.zip")


def test_pictures_outside_class_folders_are_counted(tmp_path):
    images, _ = draw_faces(2, seed=4)
    (tmp_path / "train" / "happy").mkdir(parents=True)
    Image.fromarray(images[0]).save(tmp_path / "train" / "happy" / "a.png")
    Image.fromarray(images[1]).save(tmp_path / "train" / "b.png")
    faces = load(tmp_path)
    assert len(faces) == 1
    assert any("1 picture ignored, outside the class folders" in note for note in faces.source.notes)
