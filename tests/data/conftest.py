"""Seventy drawn faces, and functions that write them in the layouts in which FER2013 is met."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS
from fer.data.load import read_path
from fer.data.readers import synthetic

USAGE_NAMES = ("Training", "PublicTest", "PrivateTest")

Lines = Callable[..., list[str]]
Load = Callable[..., Faces]


@pytest.fixture(scope="session")
def drawn() -> Faces:
    """70 drawn faces, ten of each class: 56 train, 7 val, 7 test, in mixed order."""
    faces = synthetic.read(70, seed=3, image_size=48)
    for column in (faces.images, faces.targets, faces.official, faces.given, faces.rows):
        column.setflags(write=False)
    return faces


@pytest.fixture
def faces(drawn: Faces) -> Faces:
    """350 faces, 50 of each class, without any split."""
    index = np.tile(np.arange(70), 5)
    nothing = np.full(350, UNKNOWN, np.int8)
    return replace(
        drawn,
        images=drawn.images[index],
        targets=drawn.targets[index],
        official=nothing,
        given=nothing,
        rows=np.arange(350),
    )


@pytest.fixture
def of_people(faces: Faces) -> Faces:
    """The 350 faces as 25 people with two faces of every class each; 0 and 24 share a picture, all others differ."""
    order = np.argsort(faces.targets, kind="stable").reshape(7, 25, 2)
    group = np.empty(350, np.int32)
    group[order] = np.arange(25, dtype=np.int32)[:, None]
    images = faces.images.copy()
    images[:, 0, 0], images[:, 0, 1] = np.arange(350) % 256, np.arange(350) // 256
    images[order[0, 0, 0]] = images[order[0, 24, 0]]
    return replace(faces, images=images, group=group)


@pytest.fixture
def of_classes() -> Callable[[Faces, NDArray[np.int8], int], list[int]]:
    """Return a function that counts the faces of each class in a split."""

    def count(faces: Faces, splits: NDArray[np.int8], split: int) -> list[int]:
        counted: list[int] = np.bincount(faces.targets[splits == split], minlength=7).tolist()
        return counted

    return count


@pytest.fixture(scope="session")
def pixel_texts(drawn: Faces) -> list[str]:
    return [" ".join(map(str, image.ravel().tolist())) for image in drawn.images]


@pytest.fixture
def lines(drawn: Faces, pixel_texts: list[str]) -> Lines:
    """Return a function that gives the table's lines, the header first, without their ends."""

    def make(columns: Sequence[str] = ("emotion", "pixels", "Usage"), count: int = 70) -> list[str]:
        made = [",".join(columns)]
        for row in range(count):
            fields = {
                "emotion": str(drawn.targets[row]),
                "pixels": pixel_texts[row],
                "usage": USAGE_NAMES[drawn.official[row]],
            }
            made.append(",".join(fields.get(name.strip().lower(), "x") for name in columns))
        return made

    return make


@pytest.fixture
def table(tmp_path: Path, lines: Lines) -> Path:
    """A plain ``fer2013.csv``."""
    return written(tmp_path / "fer2013.csv", lines())


@pytest.fixture
def write() -> Callable[[Path, Sequence[str]], Path]:
    return written


def written(path: Path, table_lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in table_lines))
    return path


@pytest.fixture
def load() -> Load:
    """Return ``fer.data.load.read_path`` with the defaults of the configuration, but no cache."""

    def read(path: Path, *, image_size: int = 48, on_bad: str = "error", cache: Path | None = None) -> Faces:
        return read_path(path, image_size=image_size, on_bad=on_bad, cache=cache)  # type: ignore[arg-type]

    return read


@pytest.fixture
def plant() -> Callable[..., list[Path]]:
    """Return a function that writes faces as PNG files at the paths of ``path_of``, and returns these paths."""

    def write_tree(root: Path, faces: Faces, path_of: Callable[[Faces, int], str]) -> list[Path]:
        paths = [root / path_of(faces, row) for row in range(len(faces))]
        for path, image in zip(paths, faces.images, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        return paths

    return write_tree


@pytest.fixture
def one_picture(tmp_path: Path, load: Load) -> Callable[..., Faces]:
    """Return a function that reads a tree whose only picture is written by ``save(path)``."""

    def read(save: Callable[[Path], object], suffix: str = ".png", on_bad: str = "error", size: int = 48) -> Faces:
        path = tmp_path / "tree" / "happy" / f"face{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path)
        return load(tmp_path / "tree", on_bad=on_bad, image_size=size)

    return read


@pytest.fixture
def equal() -> Callable[[Faces, Faces], None]:
    """Return a function that holds two tables to the same pixels, labels, splits and rows."""

    def check(found: Faces, expected: Faces) -> None:
        for column in ("images", "targets", "official", "given", "rows"):
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column), err_msg=column)
            assert getattr(found, column).dtype == getattr(expected, column).dtype, column

    return check


@pytest.fixture
def part() -> Callable[[Faces, Sequence[int]], Faces]:
    """Return a function that takes some rows of a table, in the order given."""

    def take(faces: Faces, rows: Sequence[int]) -> Faces:
        index = np.array(rows, np.int64)
        columns = ("images", "targets", "official", "given", "rows")
        return replace(faces, **{column: getattr(faces, column)[index] for column in columns})

    return take


@pytest.fixture
def class_name() -> Callable[[Faces, int], str]:
    return lambda faces, row: EMOTIONS[faces.targets[row]]


@pytest.fixture
def expw_folder(drawn: Faces, tmp_path: Path) -> Path:
    """Two pictures in ExpW's layout: two faces of the first, and one of the second."""
    folder = tmp_path / "e"
    scene = np.zeros((60, 120), np.uint8)
    scene[5:53, 3:51], scene[5:53, 60:108] = drawn.images[0], drawn.images[1]
    (folder / "image" / "origin").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(scene).save(folder / "image" / "origin" / name, "PNG")
    lines = ["a.jpg 0 5 3 51 53 80.1 0", "a.jpg 1 5 60 108 53 70 6", "b.jpg 0 5 60 108 53 70 3"]
    (folder / "label.lst").write_text("\n".join(lines))
    return folder
