"""Larger than memory: a memory-mapped file or decoding on demand gives the bits, the order and the notes of memory."""

import errno
import logging
import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data import cache
from fer.data.datamodule import FERDataModule
from fer.data.load import read_faces, read_path
from fer.data.readers import decoding, index, pixel_memory
from fer.data.rows import Mapped, outside, taken
from fer.data.samples import first_batch

MODES = ("memory", "mapped", "on demand")
COLUMNS = ("targets", "official", "given", "rows")


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Let files count as unchanging at once; decode in this process, where a test does not say otherwise."""
    monkeypatch.setattr(cache, "STILL_CHANGING_S", -60.0)
    monkeypatch.setattr(index, "LEAST", 1000)


@pytest.fixture
def tree(tmp_path, drawn, plant, class_name):
    """70 pictures of several sizes, two of them equal; train has 56."""
    root = tmp_path / "tree"
    files = plant(root, drawn, lambda faces, row: f"{'train' if row % 5 else 'val'}/{class_name(faces, row)}/{row}.png")
    for row in (3, 9):
        Image.fromarray(drawn.images[row]).resize((30, 61)).save(files[row])
    shutil.copy(files[1], files[1].with_name("x.png"))
    return root


@pytest.fixture
def settings(tree, tmp_path, monkeypatch):
    """Return a function that makes the settings of a mode; the mode is in force from then on."""

    def of(mode, **changes):
        monkeypatch.setattr(pixel_memory, "SPARE", 1 << 60 if mode == "on demand" else 0)
        limit = None if mode == "memory" else 0.00005
        folder = str(tmp_path / "cache" / mode)
        common = {"path": str(tree), "image_size": 24, "split": "as_given", "batch_size": 8}
        return DataSettings(**{**common, "cache": folder, "memory_limit_gb": limit, **changes})

    return of


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes there alone")
def test_a_name_that_is_no_text_is_one_of_a_picture_too(settings, tree):
    file = next(tree.rglob("*.png"))
    os.rename(file, os.path.join(os.fsencode(file.parent), b"\xff\xfe.png"))
    expected = read_faces(settings("memory"))
    found = read_faces(settings("on demand"))
    np.testing.assert_array_equal(taken(found.images, np.arange(len(found))), expected.images)


def module(settings, seed=3):
    made = FERDataModule(settings, seed=seed)
    made.setup("fit")
    return made


def batches(module, epoch=1):
    loader = module.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def equal_batches(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert one.key == other.key


# --- the same as in memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES[1:])
def test_batches_and_all_that_is_stored_equal_those_of_memory(mode, settings):
    expected = module(settings("memory"))
    for start in ("first", "later"):
        actual = module(settings(mode))
        assert isinstance(outside(actual.faces.images).source, Mapped if mode == "mapped" else index.Pictures), start
        equal_batches(batches(actual), batches(expected))
        equal_batches(list(actual.val_dataloader()), list(expected.val_dataloader()))
        assert actual.statistics() == expected.statistics()
        assert actual.describe("val") == expected.describe("val")
        assert actual.hashes("train") == expected.hashes("train")
        np.testing.assert_array_equal(first_batch(actual), first_batch(expected))
        np.testing.assert_array_equal(np.asarray(actual.faces.images), expected.faces.images)


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("rule", ["folds", "holdout"])
def test_drawn_splits_and_conflicts_equal_those_of_memory(mode, rule, settings):
    expected, actual = (module(settings(name, split=rule, conflicts="drop")) for name in ("memory", mode))
    np.testing.assert_array_equal(actual.splits, expected.splits)
    equal_batches(batches(actual), batches(expected))


@pytest.mark.parametrize("mode", MODES[1:])
def test_an_epoch_resumes_after_the_batches_served_and_reads_no_face_of_these(mode, settings, monkeypatch):
    made = module(settings(mode))
    expected, sizes = batches(made), []
    loader = made.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(1)
    loader.load_state_dict({"served": 4})
    source = made.datasets["train"].images.rows.source
    take = source.take
    monkeypatch.setattr(source, "take", lambda indices: sizes.append(len(indices)) or take(indices))
    equal_batches(list(loader), expected[4:])
    assert sum(sizes) == sum(len(batch.targets) for batch in expected[4:])
    equal_batches(list(loader), expected)


def test_boxes_and_groups_go_through_the_index(expw_folder, settings):
    made = {
        mode: read_faces(replace(settings(mode), path=str(expw_folder), memory_limit_gb=limit))
        for mode, limit in zip(MODES, (None, 0.0, 0.0), strict=True)
    }
    for mode in MODES[1:]:
        np.testing.assert_array_equal(made[mode].images[np.arange(3)], made["memory"].images)
        assert made[mode].group.tolist() == made["memory"].group.tolist() == [0, 0, 1]
        assert made[mode].fingerprint() == made["memory"].fingerprint()


@pytest.mark.parametrize("mode", MODES)
def test_bad_pictures_are_skipped_and_listed_alike(mode, tree, settings):
    bad = next((tree / "train" / "happy").iterdir())
    bad.write_bytes(b"no picture")
    faces = read_faces(settings(mode, on_bad="skip"))
    assert len(faces) == 70
    (line,) = faces.source.skipped
    assert str(bad) in line
    with pytest.raises(FerError, match=bad.name):
        read_faces(settings(mode, on_bad="error"))


def test_contempt_is_left_out_without_reading_pixels(tree, settings):
    (tree / "train" / "contempt").mkdir()
    shutil.copy(next((tree / "train" / "happy").iterdir()), tree / "train" / "contempt" / "c.png")
    expected, actual = (read_faces(settings(mode)) for mode in ("memory", "mapped"))
    assert len(actual) == len(expected) == 71
    assert outside(actual.images) is not None
    assert actual.fingerprint() == expected.fingerprint()


# --- what decides, and the line that states it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "limit", "words"),
    [
        ("mapped", 1.0, "in memory"), ("mapped", 0.00005, "memory-mapped from"),
        ("on demand", 0.00005, "decoded on demand"), ("on demand", 0.00004, "GB free"),
    ],
)  # fmt: skip
def test_one_line_says_where_the_faces_are_and_why(mode, limit, words, settings, caplog):
    caplog.set_level(logging.INFO)
    read_faces(settings(mode, memory_limit_gb=limit))
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("faces:")]
    assert words in line
    assert f"data.memory_limit_gb={limit:g}" in line
    assert "71 of 24 px" in line


def test_an_entry_of_a_run_without_a_limit_is_mapped_and_nothing_is_decoded_again(settings, monkeypatch):
    expected = read_faces(settings("memory"))
    monkeypatch.setattr(decoding, "here", None)
    actual = read_faces(replace(settings("mapped"), cache=settings("memory").cache))
    assert outside(actual.images) is not None
    assert actual.fingerprint() == expected.fingerprint()


def test_later_starts_take_values_of_all_pixels_from_beside_the_index(settings, monkeypatch):
    first = module(settings("on demand"))
    values = first.statistics(), first.describe("val"), first.hashes("train")
    monkeypatch.setattr(decoding, "here", None)
    later = module(settings("on demand"))
    assert (later.statistics(), later.describe("val"), later.hashes("train")) == values


def test_a_limit_needs_the_cache():
    with pytest.raises(FerError, match=r"data\.memory_limit_gb=1: .*data\.cache"):
        DataSettings(path="x", memory_limit_gb=1.0, cache=None)


def test_a_limit_needs_pyarrow_where_it_is_exceeded(settings, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(FerError, match=r"data\.memory_limit_gb.*pip install 'fer-lightning\[large\]'"):
        read_faces(settings("mapped"))
    assert len(read_faces(settings("mapped", memory_limit_gb=1.0))) == 71


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_picture_that_vanished_or_changed_since_the_start_is_named(tree, settings):
    faces = read_faces(settings("on demand"))
    first, second = sorted((tree / "train" / "angry").iterdir())[:2]
    first.unlink()
    with pytest.raises(FerError, match=rf"{first.name}: was removed"):
        faces.images[0:1]
    Image.fromarray(np.zeros((24, 24), np.uint8)).save(second)
    with pytest.raises(FerError, match=rf"{second.name}: has changed"):
        faces.images[1]


def test_a_file_that_was_only_touched_is_found_by_its_contents(tree, settings, monkeypatch):
    read_faces(settings("on demand")).fingerprint()
    next((tree / "train" / "angry").iterdir()).touch()
    monkeypatch.setattr(pixel_memory.OutsideMemory, "add", None)
    assert read_faces(settings("on demand")).images[0].shape == (24, 24)


def test_a_disk_that_fills_up_gives_up_the_file_and_decodes_on_demand(settings, monkeypatch, caplog):
    expected = read_faces(settings("memory"))

    class Full:
        def write(self, contents):
            raise OSError(errno.ENOSPC, "No space left on device")

    add = pixel_memory.OutsideMemory.add

    def full_after_20(self, pixels, cut):
        if len(self._cuts) == 20:
            self._stream = Full()
        add(self, pixels, cut)

    monkeypatch.setattr(pixel_memory.OutsideMemory, "add", full_after_20)
    actual = read_faces(settings("mapped"))
    assert isinstance(outside(actual.images).source, index.Pictures)
    assert actual.fingerprint() == expected.fingerprint()
    assert "No space left" in caplog.text
    assert "on demand" in caplog.text


@pytest.mark.parametrize("fault", ["cut short", "another version", "gone"])
def test_a_damaged_index_is_built_again(fault, settings, tmp_path, monkeypatch, caplog):
    expected = read_faces(settings("on demand")).fingerprint()
    (file,) = tmp_path.glob("cache/on demand/*.pictures/pictures.parquet")
    if fault == "cut short":
        file.write_bytes(file.read_bytes()[:-100])
    elif fault == "gone":
        file.unlink()
    else:
        monkeypatch.setattr(index, "VERSION", b"another")
    faces = read_faces(settings("on demand"))
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(np.asarray(faces.images), read_faces(settings("memory")).images)
    assert faces.fingerprint() == expected


def test_a_damaged_file_of_pixels_is_built_again(settings, tmp_path, caplog):
    expected = read_faces(settings("mapped")).fingerprint()
    (file,) = tmp_path.glob("cache/mapped/*/images.npy")
    contents = bytearray(file.read_bytes())
    contents[-7] ^= 1
    file.write_bytes(contents)
    assert read_faces(settings("mapped")).fingerprint() == expected
    assert "damaged" in caplog.text


def test_pictures_within_a_table_are_mapped_and_refused_without_room(drawn, tmp_path, settings):
    pa = pytest.importorskip("pyarrow")
    import io

    import pyarrow.parquet as pq

    def png(image):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return stream.getvalue()

    table = pa.table({"image": [png(image) for image in drawn.images[:9]], "label": ["happy"] * 9})
    pq.write_table(table, tmp_path / "train.parquet")
    changes = {"path": str(tmp_path / "train.parquet"), "memory_limit_gb": 0.0}
    with pytest.raises(FerError, match=r"not decoded on demand.*data\.memory_limit_gb"):
        read_faces(settings("on demand", **changes))
    faces = read_faces(settings("mapped", **changes))
    expected = read_path(tmp_path / "train.parquet", image_size=24, on_bad="error", cache=None)
    np.testing.assert_array_equal(np.asarray(faces.images), expected.images)


def test_two_readers_at_once_decode_once(settings, monkeypatch, caplog):
    """The second waits for the first, and finds what it has built."""
    caplog.set_level(logging.INFO)
    began, go_on, decoded = threading.Event(), threading.Event(), []
    here = decoding.here

    def slow(cuts, side):
        decoded.append(side)
        began.set()
        go_on.wait(10)
        return here(cuts, side)

    monkeypatch.setattr(decoding, "here", slow)
    chosen, fingerprints = settings("mapped"), []
    threads = [threading.Thread(target=lambda: fingerprints.append(read_faces(chosen).fingerprint())) for _ in range(2)]
    threads[0].start()
    began.wait(10)
    threads[1].start()
    while "waiting for it" not in caplog.text and threads[1].is_alive():
        pass
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(decoded) == 1
    assert len(fingerprints) == 2
    assert fingerprints[0] == fingerprints[1]


def test_what_a_killed_process_left_is_removed(settings, tmp_path):
    read_faces(settings("mapped"))
    (entry,) = (path for path in (tmp_path / "cache" / "mapped").iterdir() if len(path.name) == 64)
    shutil.rmtree(entry)
    left = entry.with_name(f".building-{entry.name}")
    left.mkdir()
    (left / "images.npy").write_bytes(b"x" * 99)
    read_faces(settings("mapped"))
    assert entry.is_dir()
    assert not left.exists()


def test_rows_are_indexed_like_an_array(settings):
    array, rows = (read_faces(settings(mode)).images for mode in ("memory", "mapped"))
    some = np.array([5, 2, 2, -1])
    for key in (0, -1, slice(3, 9), slice(None, None, 7), some, np.arange(71) % 3 == 0):
        np.testing.assert_array_equal(rows[key], array[key])
        np.testing.assert_array_equal(taken(rows, some)[0], array[5])
    with pytest.raises(IndexError):
        rows[np.array([71])]


def test_an_index_of_other_pictures_is_built_again(settings, tmp_path, caplog):
    from pyarrow import parquet

    expected = np.asarray(read_faces(settings("on demand")).images)
    (file,) = tmp_path.glob("cache/on demand/*.pictures/pictures.parquet")
    table = parquet.read_table(file)
    for rows in (range(10), range(len(table))[::-1]):  # cut off; readable, and in another order
        parquet.write_table(table.take(list(rows)), file)
        assert (np.asarray(read_faces(settings("on demand")).images) == expected).all()
        assert "is damaged (checksum of pictures.parquet); parsing again" in caplog.text
        caplog.clear()
