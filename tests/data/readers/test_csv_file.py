"""Tables: every form that is met is read to the pixel, every fault is named by file, line and value."""

import gzip
import os
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.data.faces import UNKNOWN, counts
from fer.data.load import assign
from fer.data.readers import csv_file

BAD = 20  # the row that is made bad: the middle of the second block of 16
COUNT = 40  # rows of the tables with a bad row: two whole blocks and a part of one


def test_plain_table_is_read_to_the_pixel(table, drawn, load, equal):
    faces = load(table)
    equal(faces, drawn)
    assert faces.source.layout == "table fer2013.csv"
    assert faces.source.notes == ()
    assert faces.source.skipped == ()


def test_every_pixel_value_and_leading_zeros_are_read(tmp_path, write, load):
    rising = [str(value % 256) for value in range(2304)]
    padded = [f"{value % 256:03d}" for value in range(2304)]
    rows = [rising, padded, rising[::-1], ["0"] * 2304, ["255"] * 2304]
    path = write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", *(f"0,{' '.join(row)},Training" for row in rows)])
    expected = np.array([[int(number) for number in row] for row in rows], np.uint8).reshape(-1, 48, 48)
    np.testing.assert_array_equal(load(path).images, expected)


# --- forms ---------------------------------------------------------------------------------------------------------


def _quoted(lines):
    return [",".join(f'"{field}"' for field in line.split(",")) for line in lines]


FORMS = {
    "BOM": lambda lines: "\ufeff" + "\n".join(lines) + "\n",
    "CRLF": lambda lines: "\r\n".join(lines) + "\r\n",
    "BOM, CRLF and quotes": lambda lines: "\ufeff" + "\r\n".join(_quoted(lines)) + "\r\n",
    "quotes": lambda lines: "\n".join(_quoted(lines)) + "\n",
    "spaces before quotes": lambda lines: "\n".join(line.replace(",", ", ") for line in _quoted(lines)) + "\n",
    "spaces round fields": lambda lines: "\n".join(line.replace(",", " , ") + " " for line in lines) + "\n",
    "no final newline": lambda lines: "\n".join(lines),
    "blank lines": lambda lines: "\n\n".join(lines[:5]) + "\n\r\n  \n" + "\n".join(lines[5:]) + "\n\n\n",
    "a blank line after each": lambda lines: "".join(f"{line}\r\n\r\n" for line in lines),
    "other case of Usage": lambda lines: "\n".join([lines[0], *(line.upper() for line in lines[1:])]),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_text_are_read_alike(form, tmp_path, lines, drawn, load, equal):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(FORMS[form](lines()).encode())
    equal(load(path), drawn)


@pytest.mark.parametrize(
    "columns",
    [
        ("emotion", " Usage", " pixels"),
        ("Usage", "pixels", "emotion"),
        ("EMOTION", "Pixels", "USAGE"),
        ("pixels", "usage", "Emotion"),
    ],
)
def test_columns_are_found_by_name(columns, tmp_path, lines, write, drawn, load, equal):
    equal(load(write(tmp_path / "icml_face_data.csv", lines(columns))), drawn)


def test_extra_columns_are_ignored_and_noted(tmp_path, lines, write, drawn, load, equal):
    faces = load(write(tmp_path / "fer2013.csv", lines(("id", "emotion", "pixels", "Usage", "comment"))))
    equal(faces, drawn)
    assert faces.source.notes == ("columns ignored: id, comment",)


def test_a_column_without_a_name_is_noted(tmp_path, lines, write, load):
    """pandas writes one for its index."""
    faces = load(write(tmp_path / "train.csv", lines(columns=("", "emotion", "pixels", "Usage"))))
    assert faces.source.notes == ("columns ignored: one without a name",)
    assert faces.source.name == "train"  # not the challenge's, by its size


def test_rows_that_are_skipped_leave_a_file_of_the_challenge_its_name(tmp_path, lines, write, load, monkeypatch):
    monkeypatch.setattr(csv_file, "OFFICIAL_SIZES", (70, 0, 0))
    made = lines(columns=("emotion", "pixels"))
    made[20] = "9" + made[20][1:]
    faces = load(write(tmp_path / "train.csv", made), on_bad="skip")
    assert (len(faces), faces.source.name) == (69, "fer2013")


def test_train_csv_is_all_train_without_an_official_split(tmp_path, lines, write, drawn, load):
    faces = load(write(tmp_path / "train.csv", lines(("emotion", "pixels"))))
    np.testing.assert_array_equal(faces.images, drawn.images)
    np.testing.assert_array_equal(faces.targets, drawn.targets)
    assert set(faces.official) == {UNKNOWN}
    assert set(faces.given) == {0}
    with pytest.raises(FerError, match=r"has no official split \(Usage\) for 70 of 70 faces"):
        assign(faces, "official", seed=0, val_fraction=0.1)
    splits = assign(faces, "as_given", seed=0, val_fraction=0.1)
    assert np.bincount(splits).tolist() == [63, 7]


def test_unlabelled_test_csv_is_read_and_refused_for_training(tmp_path, lines, write, drawn, load):
    faces = load(write(tmp_path / "test.csv", lines(("pixels",))))
    np.testing.assert_array_equal(faces.images, drawn.images)
    assert set(faces.targets) == {UNKNOWN}
    assert set(faces.given) == {2}
    assert faces.source.labels == "none"
    for rule in ("official", "as_given", "holdout"):
        with pytest.raises(FerError, match="has no labels"):
            assign(faces, rule, seed=0, val_fraction=0.1)


# --- bad rows ------------------------------------------------------------------------------------------------------


def _at(value):
    """Return a change of one row's numbers: ``value`` replaces the thousandth."""
    return lambda numbers: " ".join([*numbers[:999], value, *numbers[1000:]])


BAD_PIXELS = {
    "one too few": (lambda numbers: " ".join(numbers[:-1]), "2,303 pixels"),
    "one too many": (lambda numbers: " ".join([*numbers, "7"]), "2,305 pixels"),
    "none": (lambda numbers: "", "0 pixels"),
    "one": (lambda numbers: "7", "1 pixels"),
    "two faces": (lambda numbers: " ".join(numbers * 2), "4,608 pixels"),
    "256": (_at("256"), "pixel 1000 is '256'"),
    "300": (_at("300"), "pixel 1000 is '300'"),
    "999": (_at("999"), "pixel 1000 is '999'"),
    "1000": (_at("1000"), "pixel 1000 is '1000'"),
    "-1": (_at("-1"), "pixel 1000 is '-1'"),
    "+1": (_at("+1"), "pixel 1000 is '+1'"),
    "65541": (_at("65541"), "pixel 1000 is '65541'"),
    "2**32 + 5": (_at(str(2**32 + 5)), "pixel 1000 is '4294967301'"),
    "2**64 + 5": (_at(str(2**64 + 5)), "pixel 1000 is '18446744073709551621'"),
    "a sign alone": (_at("-"), "pixel 1000 is '-'"),
    "twenty digits": (_at("9" * 20), f"pixel 1000 is '{'9' * 20}'"),
    "zeros, then 300": (_at("0" * 30 + "300"), "pixel 1000 is '000000000000000000000000'"),
    "1.5": (_at("1.5"), "pixel 1000 is '1.5'"),
    "1e2": (_at("1e2"), "pixel 1000 is '1e2'"),
    "abc": (_at("abc"), "pixel 1000 is 'abc'"),
    "nan": (_at("nan"), "pixel 1000 is 'nan'"),
    "Arabic five": (_at("٥"), "pixel 1000 is '٥'"),
    "a NUL byte": (_at("\0"), "pixel 1000 is '\\x00'"),
    "one missing, seen as two spaces": (_at(""), "2,303 pixels"),
    "two spaces": (lambda numbers: _at(" " + numbers[999])(numbers), "single spaces"),
    "tabs": (lambda numbers: "\t".join(numbers), "single spaces"),
}


@pytest.fixture
def bad_table(tmp_path, lines, write):
    """Return a function that writes a table of 40 rows, row 20 changed."""

    def make(change):
        made = lines(count=COUNT)
        made[BAD + 1] = change(made[BAD + 1])
        return write(tmp_path / "fer2013.csv", made)

    return make


def _refused_and_skipped(path, problem, drawn, load, equal, part):
    """Hold that row 20 is named by file, line and value, and that skipping loses that row alone."""
    with pytest.raises(FerError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}, line {BAD + 2}: ")
    assert problem in str(caught.value)
    faces = load(path, on_bad="skip")
    equal(faces, part(drawn, [row for row in range(COUNT) if row != BAD]))
    assert len(faces.source.skipped) == 1
    assert faces.source.skipped[0].startswith(f"{path}, line {BAD + 2}: ")
    assert problem in faces.source.skipped[0]


@pytest.mark.parametrize("fault", BAD_PIXELS)
def test_bad_pixels_are_named_and_only_that_row_is_skipped(fault, bad_table, drawn, load, equal, part):
    change, problem = BAD_PIXELS[fault]

    def bad_line(line):
        emotion, pixels, usage = line.split(",")
        return f"{emotion},{change(pixels.split(' '))},{usage}"

    _refused_and_skipped(bad_table(bad_line), problem, drawn, load, equal, part)


BAD_LABELS = {
    "emotion 7": (0, "7"),
    "emotion -1": (0, "-1"),
    "emotion 33": (0, "33"),
    "emotion 3.0": (0, "3.0"),
    "emotion in words": (0, "happy"),
    "no emotion": (0, ""),
    "Usage Test": (2, "Test"),
    "Usage cut": (2, "Trainin"),
    "no Usage": (2, ""),
}


@pytest.mark.parametrize("fault", BAD_LABELS)
def test_bad_labels_are_named_and_only_that_row_is_skipped(fault, bad_table, drawn, load, equal, part):
    column, value = BAD_LABELS[fault]

    def bad_line(line):
        fields = line.split(",")
        fields[column] = value
        return ",".join(fields)

    problem = f"{('emotion', '', 'Usage')[column]} is {value!r}"
    _refused_and_skipped(bad_table(bad_line), problem, drawn, load, equal, part)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line: line.rpartition(",")[0], "2 fields where the header names 3"),
        (lambda line: line + ",1", "4 fields where the header names 3"),
        (lambda line: line.replace(" ", ","), "2306 fields where the header names 3"),
        (lambda line: '"' + "x" * 200_000, "is longer than 100,000 bytes"),
    ],
    ids=["too few", "too many", "pixels between commas", "an open quote"],
)
def test_wrong_number_of_fields_is_named_and_only_that_row_is_skipped(
    change, problem, bad_table, drawn, load, equal, part
):
    _refused_and_skipped(bad_table(change), problem, drawn, load, equal, part)


def test_a_pixel_moved_to_the_next_row_spoils_both(tmp_path, lines, write, drawn, load, equal, part):
    """The block then holds the right number of pixels in all."""
    made = lines(count=COUNT)
    one, other = (made[row + 1].split(",") for row in (BAD, BAD + 1))
    one[1], _, moved = one[1].rpartition(" ")
    other[1] = f"{moved} {other[1]}"
    made[BAD + 1], made[BAD + 2] = ",".join(one), ",".join(other)
    faces = load(write(tmp_path / "fer2013.csv", made), on_bad="skip")
    equal(faces, part(drawn, [row for row in range(COUNT) if row not in (BAD, BAD + 1)]))
    assert ["2,303" in faces.source.skipped[0], "2,305" in faces.source.skipped[1]] == [True, True]


def test_skipped_rows_are_all_counted_and_listed(tmp_path, lines, write, drawn, load, equal, part):
    made = lines(count=COUNT)
    for row in (0, 15, 16, 39):  # ends of blocks
        made[row + 1] = made[row + 1].replace(" ", " 256 ", 1)
    faces = load(write(tmp_path / "fer2013.csv", made), on_bad="skip")
    equal(faces, part(drawn, [row for row in range(COUNT) if row not in (0, 15, 16, 39)]))
    assert [entry.split(": ")[0].split()[-1] for entry in faces.source.skipped] == ["2", "17", "18", "41"]


def test_a_table_of_bad_rows_alone_is_refused_even_when_skipping(tmp_path, write, load):
    path = write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", "0,1 2 3,Training", "9,1 2,Training"])
    with pytest.raises(FerError, match=r"holds no usable row \(2 bad ones\)"):
        load(path, on_bad="skip")


@pytest.mark.parametrize("missing", [5, 20, 4000], ids=["in Usage", "in pixels", "half a row"])
def test_a_cut_last_line_is_named(missing, table, load):
    os.truncate(table, table.stat().st_size - missing)
    with pytest.raises(FerError, match=r"fer2013.csv, line 71: "):
        load(table)
    assert len(load(table, on_bad="skip")) == 69


# --- no table ------------------------------------------------------------------------------------------------------

NO_TABLE = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "header alone": (b"emotion,pixels,Usage\n", "holds no usable row"),
    "header alone, cut": (b"emotion,pixels,Usage", "holds no usable row"),
    "blank lines": (b"\n\n\n", "line 1: no column 'pixels'; found nothing"),
    "login page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "is a web page"),
    "login page after a BOM": (b"\xef\xbb\xbf\r\n<html>"[:3] + b" <html>\n", "is a web page"),
    "no column pixels": (b"emotion,Usage\n0,Training\n", "line 1: no column 'pixels'; found emotion, Usage"),
    "semicolons": (b"emotion;pixels;Usage\n", "no column 'pixels'; found emotion;pixels;Usage"),
    "UTF-16": ("emotion,pixels,Usage\n".encode("utf-16"), "is text in UTF-16; save it as UTF-8"),
    "no header": (b"0,1 2 3,Training\n", "no column 'pixels'"),
    "line ends of old": (b"emotion,pixels,Usage\r0,1 2 3,Training\r", "no column 'pixels'"),
    "one line of 200 kB": (b'"' + b"x" * 200_000, "line 1: is longer than 100,000 bytes"),
    "bytes": (bytes(range(1, 256)) * 40, "no column 'pixels'"),
}


@pytest.mark.parametrize("kind", NO_TABLE)
@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_what_is_no_table_is_named(kind, on_bad, tmp_path, load):
    contents, problem = NO_TABLE[kind]
    path = tmp_path / "fer2013.csv"
    path.write_bytes(contents)
    with pytest.raises(FerError, match=problem) as caught:
        load(path, on_bad=on_bad)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "holds", "contents"),
    [
        ("fer2013.csv", "zip", b"PK\x03\x04 and so on"),
        ("fer2013.csv", "gzip", b"\x1f\x8b\x08 and so on"),
        ("fer2013.csv.gz", "text", b"emotion,pixels,Usage\n"),
        ("fer2013.zip", "text", b"emotion,pixels,Usage\n"),
        ("fer2013.zip", "gzip", b"\x1f\x8b\x08 and so on"),
        ("fer2013.tar.gz", "zip", b"PK\x03\x04 and so on"),
    ],
)
def test_contents_that_do_not_fit_the_name_are_named(name, holds, contents, tmp_path, load):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(FerError, match=f"{name}: is named as .* but holds {holds}"):
        load(tmp_path / name)


# --- archives ------------------------------------------------------------------------------------------------------


def _gz(table):
    path = table.with_name("fer2013.csv.gz")
    path.write_bytes(gzip.compress(table.read_bytes(), 1))
    return path


def _zip(table, name="fer2013.zip"):
    path = table.with_name(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(table, "fer2013/fer2013.csv")
    return path


def _tar_gz(table, name="fer2013.tar.gz"):
    path = table.with_name(name)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(table, "fer2013/fer2013.csv")
    return path


def _kaggle(table):
    """Kaggle's archive: ``fer2013.tar.gz`` beside the other tables."""
    path = table.with_name("challenges-in-representation-learning.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("example_submission.csv", "emotion\n0\n")
        archive.write(_tar_gz(table), "fer2013.tar.gz")
        archive.writestr("icml_face_data.csv", "emotion, Usage, pixels\n")
        archive.writestr("test.csv", "pixels\n")
        archive.writestr("train.csv", "emotion,pixels\n")
    return path


ARCHIVES = {
    "gz": _gz,
    "zip": _zip,
    "csv.zip": lambda table: _zip(table, "fer2013.csv.zip"),
    "tar.gz": _tar_gz,
    "tgz": lambda table: _tar_gz(table, "FER2013.TGZ"),
    "Kaggle's": _kaggle,
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_are_read_alike(kind, table, drawn, load, equal):
    path = ARCHIVES[kind](table)
    faces = load(path)
    equal(faces, drawn)
    assert faces.source.layout == "table fer2013.csv"
    assert faces.source.path == str(path)


@pytest.mark.parametrize("kind", ["gz", "zip", "tar.gz", "Kaggle's"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_truncated_archives_are_named(kind, kept, table, load):
    path = ARCHIVES[kind](table)
    os.truncate(path, int(path.stat().st_size * kept))
    for on_bad in ("error", "skip"):
        with pytest.raises(FerError, match="damaged or incomplete") as caught:
            load(path, on_bad=on_bad)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["gz", "zip", "tar.gz"])
def test_flipped_bytes_in_archives_never_change_a_pixel(kind, table, drawn, load):
    path = ARCHIVES[kind](table)
    whole = path.read_bytes()
    refused = 0
    for position in np.linspace(4, len(whole) - 1, 24).astype(int):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            np.testing.assert_array_equal(load(path).images, drawn.images)
        except FerError:
            refused += 1
    assert refused >= 15


def test_a_zip_whose_directory_points_nowhere_is_named(table, load):
    path = _zip(table)
    contents = bytearray(path.read_bytes())
    offset = contents.rindex(b"PK\x05\x06") + 16  # where the directory begins
    struct.pack_into("<I", contents, offset, struct.unpack_from("<I", contents, offset)[0] + 10_000_000)
    path.write_bytes(contents)
    with pytest.raises(FerError, match="damaged or incomplete"):
        load(path)


def test_an_encrypted_zip_is_named(table, load):
    path = _zip(table)
    contents = bytearray(path.read_bytes())
    directory = contents.rindex(b"PK\x01\x02")
    contents[6] |= 1  # the flag "encrypted", before the data and in the directory
    contents[directory + 8] |= 1
    path.write_bytes(contents)
    with pytest.raises(FerError, match=r"fer2013.zip: cannot be unpacked \(.*encrypted"):
        load(path)


def test_a_zip_packed_in_an_unknown_way_is_named(table, load):
    path = _zip(table)
    contents = bytearray(path.read_bytes())
    directory = contents.rindex(b"PK\x01\x02")
    struct.pack_into("<H", contents, 8, 99)
    struct.pack_into("<H", contents, directory + 10, 99)
    path.write_bytes(contents)
    with pytest.raises(FerError, match="cannot be unpacked"):
        load(path)


def test_a_zip_without_a_table_says_what_it_holds(tmp_path, load):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("train/angry/1.jpg", b"")
        archive.writestr("train/happy/2.jpg", b"")
        archive.writestr("__MACOSX/train/._1.csv", b"")
    with pytest.raises(FerError, match=r"archive.zip: holds pictures, such as train/angry/1.jpg; unpack"):
        load(tmp_path / "archive.zip")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(FerError, match=r"it holds readme.txt"):
        load(tmp_path / "archive.zip")


def test_hidden_files_of_an_archive_are_none_of_its_tables(table, load, tmp_path, drawn, equal):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(table, "faces.csv")
        archive.writestr("__MACOSX/._faces.csv", b"")
    faces = load(tmp_path / "archive.zip")
    equal(faces, drawn)
    assert not any("archive" in note for note in faces.source.notes)


def test_other_tables_of_an_archive_are_noted_and_two_of_one_name_refused(lines, load, tmp_path):
    file = tmp_path / "archive.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("train.csv", "x/test.csv"):
            archive.writestr(name, "\n".join(lines(count=20)))
    [note] = [note for note in load(file).source.notes if "archive" in note]
    assert "train.csv is read" in note
    assert "test.csv" in note.partition(":")[2]
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("y/train.csv", "\n".join(lines(count=10)))
    with pytest.raises(FerError, match=r"archive.zip: .*several.*train.csv, y/train.csv; unpack"):
        load(file)


@pytest.mark.parametrize("name", ["Emotion", "usage", " PIXELS"])
def test_a_column_that_is_there_twice_is_named(name, lines, write, load, tmp_path):
    path = write(tmp_path / "fer2013.csv", lines(("emotion", name, "pixels", "Usage"), count=20))
    with pytest.raises(FerError, match=rf"line 1: has 2 columns '{name.strip().lower()}'"):
        load(path)


def test_bad_rows_in_an_archive_are_named_by_line(bad_table, load):
    path = _gz(bad_table(lambda line: line.replace(" ", " 256 ", 1)))
    with pytest.raises(FerError, match=r"fer2013.csv.gz, line 22: pixel 2 is '256'"):
        load(path)


# --- the real file -------------------------------------------------------------------------------------------------

OFFICIAL_COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "val": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}


@pytest.mark.slow
@pytest.mark.skipif("FER2013_CSV" not in os.environ, reason="$FER2013_CSV names no fer2013.csv")
def test_the_real_table_has_the_published_counts(load):
    faces = load(Path(os.environ["FER2013_CSV"]))
    splits = assign(faces, "official", seed=0, val_fraction=0.1)
    assert np.bincount(splits).tolist() == [28_709, 3_589, 3_589]
    actual = {split: tuple(table.values()) for split, table in counts(faces.targets, splits).items()}
    for split in ("val", "test"):
        assert actual[split] == OFFICIAL_COUNTS[split]
    difference = np.abs(np.subtract(actual["train"], OFFICIAL_COUNTS["train"]))
    assert difference.sum() <= 4  # some copies differ in two labels of train
    assert replace(faces.source, notes=()).skipped == ()


def test_a_zip_whose_bzip2_is_damaged_is_named(tmp_path, lines, load):
    file = tmp_path / "damaged.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("fer2013.csv", "\n".join(lines(count=2)))
    content = bytearray(file.read_bytes())
    content[120] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(FerError, match="damaged.zip: damaged or incomplete"):
        load(file)


def test_a_table_of_another_name_and_size_is_not_called_fer2013(tmp_path, lines, write, load):
    assert load(write(tmp_path / "mine.csv", lines(count=20))).source.name == "mine"
