"""The cache: the second start parses nothing, and no change, damage, race or full disk ever gives a wrong table."""

import logging
import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data import cache
from fer.data.load import read_faces, read_path
from fer.data.readers import csv_file, image_folder
from fer.data.readers.pixel_memory import PixelMemory


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch):
    """Let files count as unchanging at once, which otherwise takes two seconds."""
    monkeypatch.setattr(cache, "STILL_CHANGING_S", -60.0)


@pytest.fixture
def no_parsing(monkeypatch):
    """Return a function after which any parsing fails."""

    def forbid():
        def fail(*_, **__):
            raise AssertionError("parsed again")

        monkeypatch.setattr(csv_file, "read", fail)
        monkeypatch.setattr(image_folder, "read", fail)

    return forbid


@pytest.fixture
def hashed(monkeypatch):
    """Return a list that grows with every file hashed."""
    opened = []
    digest = cache.hashlib.file_digest

    def counting(stream, *arguments):
        opened.append(stream.name)
        return digest(stream, *arguments)

    monkeypatch.setattr(cache.hashlib, "file_digest", counting)
    return opened


def entries(folder):
    return [path for path in folder.iterdir() if path.is_dir() and len(path.name) == 64]


# --- hits ----------------------------------------------------------------------------------------------------------


def test_second_load_parses_nothing_and_equals_the_first(table, folder, drawn, load, equal, no_parsing):
    first = load(table, cache=folder)
    no_parsing()
    second = load(table, cache=folder)
    equal(second, drawn)
    assert second.source == first.source
    assert second.fingerprint() == first.fingerprint()
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable


def test_a_tree_is_cached_too(tmp_path, folder, plant, drawn, load, equal, no_parsing, class_name):
    plant(tmp_path / "tree", drawn, lambda faces, row: f"train/{class_name(faces, row)}/Training_{row}.png")
    first = load(tmp_path / "tree", cache=folder)
    no_parsing()
    equal(load(tmp_path / "tree", cache=folder), first)


def test_notes_and_skipped_rows_are_kept(tmp_path, folder, lines, write, load, no_parsing):
    made = lines(("emotion", "pixels", "Usage", "extra"))
    made[3] = made[3].replace(" ", " 256 ", 1)
    path = write(tmp_path / "fer2013.csv", made)
    first = load(path, cache=folder, on_bad="skip")
    assert (len(first.source.notes), len(first.source.skipped)) == (1, 1)
    no_parsing()
    assert load(path, cache=folder, on_bad="skip").source == first.source


def test_rows_skipped_once_are_an_error_with_on_bad_error(tmp_path, folder, lines, write, load):
    made = lines()
    made[3] = made[3].replace(" ", " 256 ", 1)
    path = write(tmp_path / "fer2013.csv", made)
    load(path, cache=folder, on_bad="skip")
    with pytest.raises(FerError, match="line 4: pixel 2 is '256'"):
        load(path, cache=folder)


def test_a_failed_parse_leaves_nothing(tmp_path, folder, write, load):
    path = write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", "0,1 2,Training"])
    with pytest.raises(FerError):
        load(path, cache=folder)
    assert entries(folder) == []


def test_unchanged_files_are_not_hashed_again(table, folder, load, settled, hashed):
    load(table, cache=folder)
    assert hashed == [str(table)]
    load(table, cache=folder)
    assert hashed == [str(table)]


def test_each_image_size_has_its_own_entry(tmp_path, folder, plant, drawn, load, class_name):
    plant(tmp_path / "tree", drawn, lambda faces, row: f"{class_name(faces, row)}/{row}.png")
    for size in (48, 24, 48):
        assert load(tmp_path / "tree", cache=folder, image_size=size).image_size == size


# --- stale ---------------------------------------------------------------------------------------------------------


def change_one_pixel(table):
    """Change the first pixel of the first row, size unchanged, and return its new value."""
    contents = table.read_bytes()
    start = contents.index(b"\n") + len("\n0,")
    old = contents[start : contents.index(b" ", start)]
    new = b"1" * len(old) if old != b"1" * len(old) else b"2" * len(old)
    table.write_bytes(contents[:start] + new + contents[start + len(old) :])
    return int(new)


def test_a_file_touched_is_hashed_again_but_not_parsed(table, folder, load, equal, drawn, settled, hashed, no_parsing):
    load(table, cache=folder)
    os.utime(table, (1_700_000_000, 1_700_000_000))
    no_parsing()
    equal(load(table, cache=folder), drawn)
    assert len(hashed) == 2


def test_changed_contents_are_read_again(table, folder, load, settled):
    load(table, cache=folder)
    value = change_one_pixel(table)
    assert load(table, cache=folder).images[0, 0, 0] == value


def test_a_change_of_the_same_size_within_the_same_instant_is_noticed(table, folder, load):
    """A clock of coarse ticks gives both versions the same time."""
    moment = time.time_ns()
    os.utime(table, ns=(moment, moment))
    load(table, cache=folder)
    value = change_one_pixel(table)
    os.utime(table, ns=(moment, moment))
    assert load(table, cache=folder).images[0, 0, 0] == value


def test_a_change_whose_time_was_set_back_is_noticed(table, folder, load, settled):
    load(table, cache=folder)
    times = table.stat().st_mtime_ns
    time.sleep(0.05)  # more than a tick of any file system's clock
    value = change_one_pixel(table)
    os.utime(table, ns=(times, times))
    assert load(table, cache=folder).images[0, 0, 0] == value


def test_a_file_replaced_by_an_older_one_is_noticed(table, tmp_path, folder, lines, write, load, settled):
    older = write(tmp_path / "older.csv", lines(count=20))
    os.utime(older, (1_500_000_000, 1_500_000_000))
    assert len(load(table, cache=folder)) == 70
    os.replace(older, table)
    assert len(load(table, cache=folder)) == 20


def test_a_picture_added_moved_or_removed_is_noticed(tmp_path, folder, plant, drawn, load, settled, class_name):
    root = tmp_path / "tree"
    paths = plant(root, drawn, lambda faces, row: f"{class_name(faces, row)}/{row:02d}.png")
    before = load(root, cache=folder)
    paths[0].unlink()
    assert len(load(root, cache=folder)) == 69
    paths[1].rename(root / "neutral" / "moved.png")
    after = load(root, cache=folder)
    expected = np.bincount(before.targets, minlength=7)
    expected[drawn.targets[0]] -= 1
    expected[drawn.targets[1]] -= 1
    expected[6] += 1
    np.testing.assert_array_equal(np.bincount(after.targets, minlength=7), expected)


def test_a_link_moved_to_another_class_is_noticed(tmp_path, folder, plant, drawn, load, settled):
    """The pictures lie elsewhere; the links alone carry the labels, and their order stays the same."""
    stored = plant(tmp_path / "store", drawn, lambda faces, row: f"{row:02d}.png")
    for emotion in ("angry", "disgust"):
        (tmp_path / "tree" / emotion).mkdir(parents=True)
    for row, path in enumerate(stored[:4]):
        (tmp_path / "tree" / ("angry" if row < 2 else "disgust") / path.name).symlink_to(path)
    assert load(tmp_path / "tree", cache=folder).targets.tolist() == [0, 0, 1, 1]
    (tmp_path / "tree" / "angry" / "01.png").rename(tmp_path / "tree" / "disgust" / "01.png")
    assert load(tmp_path / "tree", cache=folder).targets.tolist() == [0, 1, 1, 1]


def test_two_names_of_one_file_are_two_entries(tmp_path, folder, lines, write, load, settled):
    """``train.csv`` says train; the same bytes under another name say nothing."""
    path = write(tmp_path / "table.csv", lines(("emotion", "pixels")))
    (tmp_path / "train.csv").symlink_to(path)
    assert set(load(path, cache=folder).given) == {-1}
    assert set(load(tmp_path / "train.csv", cache=folder).given) == {0}


# --- damage --------------------------------------------------------------------------------------------------------


def flip(path, position):
    contents = bytearray(path.read_bytes())
    contents[position] ^= 1
    path.write_bytes(contents)


DAMAGE = {
    "a flipped bit in the pixels": lambda entry: flip(entry / "images.npy", 50_000),
    "a flipped bit in the labels": lambda entry: flip(entry / "targets.npy", -3),
    "a flipped bit in the splits": lambda entry: flip(entry / "official.npy", -3),
    "a flipped bit in the folders": lambda entry: flip(entry / "given.npy", -3),
    "a flipped bit in the rows": lambda entry: flip(entry / "rows.npy", -8),
    "a broken header": lambda entry: flip(entry / "images.npy", 12),
    "a header of zeros": lambda entry: (entry / "images.npy").write_bytes(bytes(1000)),
    "pixels cut": lambda entry: os.truncate(entry / "images.npy", 70_000),
    "pixels empty": lambda entry: os.truncate(entry / "images.npy", 0),
    "labels empty": lambda entry: os.truncate(entry / "targets.npy", 0),
    "labels gone": lambda entry: (entry / "targets.npy").unlink(),
    "about.json gone": lambda entry: (entry / "about.json").unlink(),
    "about.json cut": lambda entry: os.truncate(entry / "about.json", 40),
    "about.json empty": lambda entry: os.truncate(entry / "about.json", 0),
    "about.json of zeros": lambda entry: (entry / "about.json").write_bytes(bytes(300)),
    "about.json of another form": lambda entry: (entry / "about.json").write_text("[]"),
    "about.json without the source": lambda entry: (entry / "about.json").write_text('{"checksums": {}}'),
    "everything gone": lambda entry: [path.unlink() for path in list(entry.iterdir())],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_reported_and_rebuilt(kind, table, folder, drawn, load, equal, caplog, no_parsing):
    load(table, cache=folder)
    (entry,) = entries(folder)
    DAMAGE[kind](entry)
    with caplog.at_level(logging.WARNING):
        equal(load(table, cache=folder), drawn)
    assert f"the cached table {entry} is damaged" in caplog.text
    no_parsing()
    equal(load(table, cache=folder), drawn)


@pytest.mark.parametrize("position", range(0, 128, 3))
def test_any_flipped_bit_of_a_header_gives_the_same_table(position, tmp_path, drawn, equal):
    cache._store(drawn, tmp_path / "entry")
    flip(tmp_path / "entry" / "images.npy", position)
    file = tmp_path / "file"
    file.touch()
    shutil.move(tmp_path / "entry", tmp_path / cache._key([file], "", tmp_path))
    equal(cache.cached([file], "", PixelMemory(folder=tmp_path), lambda: drawn), drawn)


@pytest.mark.parametrize("contents", [b"", bytes(64), b"\xff" * 64, b"../" * 21 + b"x", b"0" * 64])
def test_a_damaged_index_gives_the_same_table(contents, table, folder, drawn, load, equal, settled):
    load(table, cache=folder)
    (index,) = (folder / "index").iterdir()
    index.write_bytes(contents)
    equal(load(table, cache=folder), drawn)
    assert {path.parent for path in folder.rglob("images.npy")} <= set(entries(folder))


def test_an_index_that_cannot_be_written_keeps_no_entry_from_being_read(
    table, folder, drawn, load, equal, settled, no_parsing, caplog
):
    load(table, cache=folder)
    shutil.rmtree(folder / "index")
    (folder / "index").touch()  # in the place of its folder: as a full disk or a read-only folder, no file is written
    no_parsing()
    equal(load(table, cache=folder), drawn)
    assert "no cache" not in caplog.text


def test_half_written_folders_are_ignored(table, folder, drawn, load, equal):
    """What a kill in the midst of writing leaves behind."""
    load(table, cache=folder)
    (entry,) = entries(folder)
    left = folder / ".part-abc" / entry.name
    left.parent.mkdir()
    entry.rename(left)
    os.truncate(left / "images.npy", 5000)
    equal(load(table, cache=folder), drawn)
    assert entries(folder) == [entry]


def test_an_interrupted_write_leaves_no_entry(table, folder, load, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.json, "dumps", interrupt)  # all columns are written by then
    with pytest.raises(KeyboardInterrupt):
        load(table, cache=folder)
    assert list(folder.rglob("images.npy")) == []


# --- races and disks -----------------------------------------------------------------------------------------------


def _load_at_once(table, folder, barrier, results):
    barrier.wait(60)
    results.put(read_path(table, image_size=48, on_bad="error", cache=folder).fingerprint())


def test_two_processes_at_once_both_get_the_table(table, folder, drawn, load, equal, no_parsing):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_load_at_once, args=(table, folder, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    answers = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert answers == [drawn.fingerprint()] * 2
    assert len(entries(folder)) == 1
    assert list(folder.glob(".part-*")) == []
    no_parsing()
    equal(load(table, cache=folder), drawn)


def test_the_second_writer_keeps_the_entry_of_the_first(table, folder, drawn, load, equal, caplog):
    def cached(read):
        return cache.cached([table], "variant", PixelMemory(folder=folder), read)

    def read():
        cached(lambda: csv_file.read(table))  # another process finishes meanwhile
        return csv_file.read(table)

    equal(cached(read), drawn)
    assert len(entries(folder)) == 1
    assert caplog.text == ""
    assert list(folder.glob(".part-*")) == []


def test_a_folder_that_cannot_be_made_is_reported_and_not_used(table, tmp_path, drawn, load, equal, caplog):
    (tmp_path / "file").touch()
    equal(load(table, cache=tmp_path / "file" / "cache"), drawn)
    assert f"no cache: {tmp_path}/file/cache" in caplog.text


@pytest.mark.parametrize("kept", [True, False], ids=["index kept", "index fails too"])
def test_a_full_disk_is_reported_and_not_used(kept, table, folder, drawn, load, equal, caplog, monkeypatch, request):
    if not kept:
        request.getfixturevalue("settled")

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(cache.os, "replace", full)
    equal(load(table, cache=folder), drawn)
    assert "No space left on device" in caplog.text
    assert entries(folder) == []
    assert list(folder.rglob(".part-*")) == []


def test_no_cache_leaves_nothing(table, tmp_path, load):
    load(table, cache=None)
    read_faces(DataSettings(path=str(table), cache=None))
    assert not (tmp_path / "cache" / "fer").exists()
    assert list(tmp_path.rglob("*.npy")) == []


def test_auto_is_the_users_cache_folder(table, tmp_path):
    read_faces(DataSettings(path=str(table), cache="auto"))
    assert len(entries(tmp_path / "cache" / "fer")) == 1


def test_the_default_folder_is_in_the_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.default_folder() == Path.home() / ".cache" / "fer"


def test_a_table_with_votes_is_not_cached_without_them(tmp_path, folder, drawn):
    """A reader of the user's own may return votes; they must not get lost on the second start."""
    file = tmp_path / "mine.npz"
    file.touch()
    votes = np.ones((70, 10), np.uint8)
    for _ in range(2):
        faces = cache.cached([file], "mine", PixelMemory(folder=folder), lambda: replace(drawn, votes=votes))
        np.testing.assert_array_equal(faces.votes, votes)
