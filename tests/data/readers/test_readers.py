"""Which reader reads what: recognition, precedence in folders, readers of the user's own."""

import gzip
import shutil
import tarfile
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.labels import EMOTIONS
from fer.data.load import read_faces
from fer.data.readers import READERS, register_reader, synthetic

# --- one table after another ---------------------------------------------------------------------------------------

COLUMNS = {
    "fer2013.csv": ("emotion", "pixels", "Usage"),
    "icml_face_data.csv": ("emotion", " Usage", " pixels"),
    "train.csv": ("emotion", "pixels"),
    "test.csv": ("pixels",),
}


def _packed(path, packing):
    """Replace a plain table by a packed one and return it."""
    target = path.with_name(path.name + packing)
    if packing == ".gz":
        target.write_bytes(gzip.compress(path.read_bytes(), 1))
    elif packing == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(path, path.name)
    elif packing == ".tar.gz":
        target = path.with_suffix(packing)
        with tarfile.open(target, "w:gz", compresslevel=1) as archive:
            archive.add(path, path.name)
    if packing:
        path.unlink()
    return target


@pytest.mark.parametrize("inside", ["", "fer2013", "archive/data"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zip", ".tar.gz"])
@pytest.mark.parametrize("name", COLUMNS)
def test_every_table_is_read_in_every_packing(name, packing, inside, tmp_path, lines, write, drawn, part, load, equal):
    folder = tmp_path / "root" / inside
    folder.mkdir(parents=True)
    path = _packed(write(folder / name, lines(COLUMNS[name], count=20)), packing)
    reference = part(drawn, range(20))
    if name == "train.csv":
        reference = replace(reference, official=np.full(20, -1, np.int8), given=np.zeros(20, np.int8))
    elif name == "test.csv":
        nothing = np.full(20, -1, np.int8)
        reference = replace(reference, targets=nothing, official=nothing, given=np.full(20, 2, np.int8))
    for given in (path, tmp_path / "root"):
        faces = load(given)
        equal(faces, reference)
        assert (faces.source.layout, faces.source.path) == (f"table {name}", str(path))


def test_of_several_tables_the_best_is_taken_and_the_others_noted(tmp_path, lines, write, load):
    for count, (name, columns) in enumerate(COLUMNS.items(), start=20):
        write(tmp_path / name, lines(columns, count=count))
    write(tmp_path / "example_submission.csv", ["emotion", "0"])
    for count, name in enumerate(COLUMNS, start=20):
        others = list(COLUMNS)[count - 19 :]
        faces = load(tmp_path)
        assert len(faces) == count
        assert faces.source.path == str(tmp_path / name)
        notes = [note for note in faces.source.notes if "is read; also" in note]
        assert notes == ([f"{name} is read; also in the folder: {', '.join(others)}"] if others else [])
        (tmp_path / name).unlink()


def test_a_plain_table_is_taken_before_its_archive(tmp_path, lines, write, load):
    _packed(write(tmp_path / "fer2013.csv", lines(count=20)), ".zip")
    write(tmp_path / "fer2013.csv", lines(count=21))
    faces = load(tmp_path)
    assert len(faces) == 21
    assert faces.source.notes == ("fer2013.csv is read; also in the folder: fer2013.csv.zip",)


def test_a_table_is_taken_before_pictures(tmp_path, lines, write, plant, drawn, load, class_name):
    plant(tmp_path, drawn, lambda faces, row: f"train/{class_name(faces, row)}/{row}.png")
    write(tmp_path / "fer2013.csv", lines(count=20))
    assert load(tmp_path).source.layout == "table fer2013.csv"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,label\ntrain/angry/0.png,angry\n", "no column 'pixels'"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("", "is empty"),
    ],
)
def test_class_folders_are_read_beside_a_table_without_faces(text, says, tmp_path, plant, drawn, load, class_name):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(FerError, match=says):
        load(tmp_path)
    plant(tmp_path, drawn, lambda faces, row: f"train/{class_name(faces, row)}/{row}.png")
    faces = load(tmp_path)
    assert (len(faces), faces.source.layout) == (70, "image tree")
    assert says in faces.source.notes[-1]


def test_class_folders_are_read_beside_a_list_of_pictures(tmp_path, plant, drawn, load, class_name):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"file": ["0.png"], "label": ["angry"]}), tmp_path / "metadata.parquet")
    with pytest.raises(FerError, match="no column of pictures"):
        load(tmp_path)
    plant(tmp_path, drawn, lambda faces, row: f"train/{class_name(faces, row)}/{row}.png")
    (tmp_path / "labels.csv").write_text("file,label\n")
    faces = load(tmp_path)
    assert (len(faces), faces.source.layout) == (70, "image tree")
    assert "metadata.parquet" in faces.source.notes[-2]
    assert "labels.csv" in faces.source.notes[-1]


@pytest.mark.parametrize("name", ["KA.AN1.39.png", "AF01ANS.JPG"])
def test_a_stray_picture_of_a_data_sets_name_takes_no_class_folders(name, tmp_path, plant, drawn, load, class_name):
    plant(tmp_path, drawn, lambda faces, row: f"train/{class_name(faces, row)}/{row}.png")
    shutil.copy(next(tmp_path.rglob("0.png")), tmp_path / name)
    faces = load(tmp_path)
    assert (len(faces), faces.source.layout) == (70, "image tree")
    assert any(name in note for note in faces.source.notes)


def test_a_list_of_pictures_alone_is_no_archive_to_unpack(tmp_path, load):
    (tmp_path / "list.csv").write_text("file,label\n")
    with pytest.raises(FerError, match="no data set recognised") as refused:
        load(tmp_path)
    assert "unpacked" not in str(refused.value)


def test_class_folders_beside_another_data_set_are_noted(tmp_path, plant, drawn, load, class_name, expw_folder):
    plant(expw_folder, drawn, lambda faces, row: f"train/{class_name(faces, row)}/{row}.png")
    faces = load(expw_folder)
    assert faces.source.name == "expw"
    assert "its class folders" in faces.source.notes[-1]


def test_notes_and_the_path_are_those_of_the_data_whatever_was_read_before(tmp_path, lines, write, load):
    cache = tmp_path / "cache"
    (tmp_path / "two").mkdir()
    table = write(tmp_path / "two" / "fer2013.csv", lines(count=20))
    other = write(tmp_path / "two" / "train.csv", lines(count=20))
    assert not load(table, cache=cache).source.notes
    [note] = load(table.parent, cache=cache).source.notes
    assert "train.csv" in note
    other.unlink()
    assert not load(table.parent, cache=cache).source.notes


def test_data_sets_that_are_not_taken_are_named(tmp_path, lines, write, plant, drawn, load, class_name):
    for folder in ("images", "fer2013", "other"):
        plant(tmp_path / folder, drawn, lambda faces, row: f"{class_name(faces, row)}/{row}.png")
    write(tmp_path / "images" / "fer2013.csv", lines(count=20))
    faces = load(tmp_path)
    assert faces.source.layout == "image tree"  # of the first folder of a usual name
    [noted] = [note for note in faces.source.notes if "not read" in note]
    assert str(tmp_path / "images") in noted
    assert str(tmp_path / "other") in noted
    [noted] = [note for note in load(tmp_path / "images").source.notes if "not read" in note]
    assert "its class folders" in noted


def test_kaggles_archive_is_read_where_it_was_saved(tmp_path, lines, write, drawn, load, equal):
    packed = _packed(write(tmp_path / "fer2013.csv", lines()), ".tar.gz")
    saved = tmp_path / "challenges-in-representation-learning-facial-expression-recognition-challenge.zip"
    with zipfile.ZipFile(saved, "w") as archive:
        for name in ("icml_face_data.csv", "test.csv", "train.csv"):
            archive.writestr(name, "\n".join(lines(COLUMNS[name], count=20)))
        archive.write(packed, "fer2013.tar.gz")
    packed.unlink()
    equal(load(saved), drawn)


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_tables_and_trees_are_brought_to_64_pixels_alike(tmp_path, table, plant, drawn, class_name):
    order = sorted(range(70), key=lambda row: (class_name(drawn, row), row))
    plant(tmp_path / "tree", drawn, lambda faces, row: f"{class_name(faces, row)}/{row:03d}.png")
    from_table, from_tree = (
        read_faces(DataSettings(path=str(path), image_size=64, cache=None)) for path in (table, tmp_path / "tree")
    )
    assert from_table.images.shape == (70, 64, 64)
    assert from_table.images.dtype == np.uint8
    np.testing.assert_array_equal(from_table.targets, drawn.targets)
    difference = np.abs(from_table.images[order].astype(int) - from_tree.images)
    assert difference.max() <= 1  # two libraries' rounding


@pytest.mark.parametrize("size", [24, 96])
def test_another_size_keeps_a_flat_face_flat_and_its_row(size, tmp_path, write):
    flat, half = ["137"] * 2304, (["0"] * 24 + ["200"] * 24) * 48
    rows = [f"{label},{' '.join(numbers)},Training" for label, numbers in ((3, flat), (4, half))]
    path = write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", *rows])
    faces = read_faces(DataSettings(path=str(path), image_size=size, cache=None))
    np.testing.assert_array_equal(faces.images[0], np.full((size, size), 137))
    assert set(faces.images[1, :, : size // 2 - 2].ravel()) == {0}
    assert set(faces.images[1, :, size // 2 + 2 :].ravel()) == {200}


# --- nothing to read -----------------------------------------------------------------------------------------------


def test_an_empty_folder_is_not_recognised(tmp_path, load):
    with pytest.raises(FerError, match=f"{tmp_path}: no data set recognised; expected fer2013.csv"):
        load(tmp_path)


def test_folders_of_no_known_name_are_not_recognised(tmp_path, load):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    with pytest.raises(FerError, match="no data set recognised"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["fer2013.txt", "face.png", "fer2013"])
def test_a_file_of_another_kind_is_not_recognised(name, tmp_path, load):
    (tmp_path / name).write_text("emotion,pixels,Usage\n")
    with pytest.raises(FerError, match=f"{name}: no data set recognised"):
        load(tmp_path / name)


def test_what_is_neither_file_nor_folder_is_not_recognised(load, tmp_path):
    from pathlib import Path

    with pytest.raises(FerError, match="/dev/null: no data set recognised"):
        load(Path("/dev/null"))


def test_a_missing_path_is_named(tmp_path, load):
    with pytest.raises(FerError, match="gone: no such file or folder"):
        load(tmp_path / "gone")


def test_no_path_is_an_error_and_never_drawn_faces():
    with pytest.raises(FerError, match=r"data.path is not set"):
        read_faces(DataSettings(path=None))


def test_a_folder_linked_into_itself_does_not_trap_the_search(tmp_path, load):
    (tmp_path / "data").symlink_to(tmp_path)
    with pytest.raises(FerError, match="no data set recognised"):
        load(tmp_path)


# --- readers of the user's own -------------------------------------------------------------------------------------


@pytest.fixture
def registered():
    """Take back what a test registers."""
    before = dict(READERS._entries)
    yield
    READERS._entries.clear()
    READERS._entries.update(before)


def own_reader(drawn, calls, suffix=".npz"):
    def read(path, *, image_size, on_bad):
        calls.append((path.name, image_size, on_bad))
        return drawn

    return SimpleNamespace(recognises=lambda path: path.suffix == suffix, files=lambda path: [path], read=read)


def test_a_reader_of_the_users_own_reads_what_it_knows(registered, tmp_path, drawn, load, equal):
    calls = []
    register_reader("mine")(own_reader(drawn, calls))
    (tmp_path / "faces.npz").touch()
    equal(load(tmp_path / "faces.npz", on_bad="skip"), drawn)
    assert calls == [("faces.npz", 48, "skip")]


def test_a_reader_of_the_users_own_is_asked_first(registered, table, drawn, load, equal, part):
    calls = []
    register_reader("mine")(own_reader(part(drawn, range(20)), calls, ".csv"))
    assert len(load(table)) == 20
    register_reader("newer")(own_reader(part(drawn, range(10)), calls, ".csv"))
    assert len(load(table)) == 10
    shutil.copy(table, table.with_name("fer2013.csv.gz"))  # of another suffix: the built-in one is asked
    with pytest.raises(FerError, match="is named as gzip but holds text"):
        load(table.with_name("fer2013.csv.gz"))


def test_a_reader_of_the_users_own_is_cached(registered, tmp_path, drawn, load, equal):
    calls = []
    register_reader("mine")(own_reader(drawn, calls))
    (tmp_path / "faces.npz").touch()
    for _ in range(2):
        equal(load(tmp_path / "faces.npz", cache=tmp_path / "cache"), drawn)
    assert len(calls) == 1


def test_a_class_serves_as_a_reader(registered, tmp_path, drawn, load, equal):
    @register_reader("mine")
    class Mine:
        recognises = staticmethod(lambda path: path.suffix == ".npz")
        files = staticmethod(lambda path: [path])
        read = staticmethod(lambda path, *, image_size, on_bad: drawn)

    (tmp_path / "faces.npz").touch()
    equal(load(tmp_path / "faces.npz"), drawn)
    assert READERS.get("mine") is Mine


@pytest.mark.parametrize("name", ["csv", "image_tree", "ferplus", "mine"])
def test_a_name_that_is_taken_is_refused_and_changes_nothing(name, registered, drawn):
    register_reader("mine")(own_reader(drawn, []))
    before = list(READERS.newest_first())
    with pytest.raises(FerError, match=f"reader '{name}' is registered twice"):
        register_reader(name)(own_reader(drawn, []))
    assert list(READERS.newest_first()) == before


def test_registering_the_same_reader_again_is_no_clash(registered, drawn):
    """A plugin imported twice."""
    mine = own_reader(drawn, [])
    register_reader("mine")(mine)
    register_reader("mine")(mine)
    names = [name for name, _ in READERS.newest_first()]
    assert (names[0], names.count("mine"), names[-1]) == ("mine", 1, "image_tree")


def test_a_bare_table_of_every_emotion_keeps_the_order_of_classes(table, load):
    assert EMOTIONS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert np.bincount(load(table).targets).tolist() == [10] * 7


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("images", np.zeros((7, 48, 48), np.float32), r"images are \(7, 48, 48\) float32; expected \(N, S, S\) uint8"),
        ("images", np.zeros((7, 48, 40), np.uint8), r"expected \(N, S, S\) uint8"),
        ("targets", np.full(7, 7, np.int8), "targets go from 7 to 7; expected -1"),
        ("targets", np.zeros(7, np.int64), r"targets are \(7,\) int64; expected \(7,\) int8"),
        ("given", np.zeros(6, np.int8), r"given are \(6,\) int8; expected \(7,\) int8"),
        ("rows", np.zeros(6, np.int64), "rows or votes do not fit 7 images"),
    ],
)
def test_a_readers_table_is_checked(column, value, says):
    good = synthetic.read(7, seed=0, image_size=48)
    with pytest.raises(FerError, match=says):
        replace(good, **{column: value})
