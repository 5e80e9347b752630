"""FER+: votes joined by row whatever was skipped, never to the wrong table; its generator's folders."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.data_sets import read_sets
from fer.data.faces import UNKNOWN
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS
from fer.data.load import read_faces
from fer.data.readers.ferplus import COLUMN_EMOTIONS

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
VOTE_OF = {"angry": "anger", "happy": "happiness", "sad": "sadness"}  # FER+'s name where it differs
USAGE_NAMES = ("Training", "PublicTest", "PrivateTest")


def votes_for(target, row):
    """Return ten votes whose arg-max is ``target``, different from row to row."""
    votes = [0] * 10
    emotion = EMOTIONS[target]
    votes[FERPLUS_COLUMNS.index(VOTE_OF.get(emotion, emotion))] = 6 + row % 3
    votes[FERPLUS_COLUMNS.index("contempt")] = 4 - row % 3
    return votes


@pytest.fixture
def votes(drawn):
    """(70, 10) votes that agree with the drawn faces."""
    return np.array([votes_for(target, row) for row, target in enumerate(drawn.targets)], np.uint8)


@pytest.fixture
def vote_lines(drawn, votes):
    """Lines of ``fer2013new.csv``; every seventh without an image name, as in the real file."""
    rows = []
    for row, numbers in enumerate(votes):
        name = "" if row % 7 == 0 else f"fer{row + 3:07d}.png"
        rows.append(",".join([USAGE_NAMES[drawn.official[row]], name, *map(str, numbers)]))
    return [HEADER, *rows]


@pytest.fixture
def join(table, tmp_path, write):
    """Return a function that reads the table with these lines of votes."""

    def read(lines, *, path=table, on_bad="error"):
        file = write(tmp_path / "fer2013new.csv", lines)
        return read_faces(DataSettings(path=str(path), votes=str(file), on_bad=on_bad, cache=None))

    return read


def test_vote_columns_stand_for_emotions_by_name():
    named = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
    for column, emotion in zip(FERPLUS_COLUMNS, COLUMN_EMOTIONS, strict=True):
        reference = named.get(column, column)
        assert emotion == (EMOTIONS.index(reference) if reference in EMOTIONS else UNKNOWN)


def test_votes_are_joined_by_row_and_leave_the_labels(join, vote_lines, votes, drawn):
    faces = join(vote_lines)
    np.testing.assert_array_equal(faces.votes, votes)
    np.testing.assert_array_equal(faces.targets, drawn.targets)
    assert "agrees with the labels on 100.0%" in faces.source.notes[-1]


def test_votes_may_be_the_only_labels(join, vote_lines, votes, lines, write, tmp_path):
    unlabelled = write(tmp_path / "test.csv", lines(("pixels", "Usage")))
    faces = join(vote_lines, path=unlabelled)
    np.testing.assert_array_equal(faces.votes, votes)
    assert "no labels to check them against" in faces.source.notes[-1]


def test_votes_stay_with_their_rows_where_rows_are_skipped(join, vote_lines, votes, lines, write, tmp_path):
    made = lines()
    for row in (0, 20, 41):
        made[row + 1] = made[row + 1].replace(" ", " 256 ", 1)
    faces = join(vote_lines, path=write(tmp_path / "bad.csv", made), on_bad="skip")
    np.testing.assert_array_equal(faces.rows, np.delete(np.arange(70), (0, 20, 41)))
    np.testing.assert_array_equal(faces.votes, np.delete(votes, (0, 20, 41), axis=0))


def test_votes_stay_with_their_rows_where_lines_are_blank(join, vote_lines, votes, lines, write, tmp_path):
    made = lines()
    faces = join(vote_lines, path=write(tmp_path / "blank.csv", [*made[:30], "", "", *made[30:], ""]))
    np.testing.assert_array_equal(faces.votes, votes)


def test_votes_are_joined_to_a_cached_table_too(table, tmp_path, vote_lines, votes, write):
    file = write(tmp_path / "fer2013new.csv", vote_lines)
    settings = DataSettings(path=str(table), votes=str(file), cache=str(tmp_path / "cache"))
    first, second = read_faces(settings), read_faces(settings)
    np.testing.assert_array_equal(first.votes, votes)
    np.testing.assert_array_equal(second.votes, votes)
    assert first.fingerprint() == second.fingerprint()
    assert read_faces(DataSettings(path=str(table), cache=str(tmp_path / "cache"))).votes is None


def test_votes_of_another_order_are_refused(join, vote_lines, drawn):
    """The usages still fit; only the agreement with the labels differs."""
    rows = vote_lines[1:]
    for split in range(3):
        indices = np.flatnonzero(drawn.official == split)
        moved = [vote_lines[1 + index].split(",", 1)[1] for index in np.roll(indices, 1)]
        for index, votes in zip(indices, moved, strict=True):
            rows[index] = f"{USAGE_NAMES[split]},{votes}"
    with pytest.raises(FerError, match=r"agrees with the labels of .* on only \d+% of the rows"):
        join([HEADER, *rows])


def test_a_row_that_is_missing_in_the_table_is_found(tmp_path, write):
    """Behind it each face has its neighbour's votes, within one split and for a minority of the faces."""
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=600)
    rows = [f"{emotion},{' '.join(['7'] * 2304)},Training" for emotion in labels]
    votes = [",".join(["Training", "", *map(str, votes_for(target, row))]) for row, target in enumerate(labels)]
    mixed = rng.permutation(600)[:200]  # on a third the annotators say something else, as on FER2013
    for row, other in zip(mixed, np.roll(mixed, 1), strict=True):
        votes[row] = ",".join(["Training", "", *map(str, votes_for(labels[other], row))])
    given = DataSettings(votes=str(write(tmp_path / "fer2013new.csv", [HEADER, *votes])), cache=None)
    whole = write(tmp_path / "whole.csv", ["emotion,pixels,Usage", *rows])
    read_faces(replace(given, path=str(whole)))
    less = write(tmp_path / "less.csv", ["emotion,pixels,Usage", *rows[:450], *rows[451:]])
    with pytest.raises(
        FerError, match=r"on only \d+% of the rows 4\d\d to 5\d\d; .* 1 row of votes after the last face"
    ):
        read_faces(replace(given, path=str(less)))
    few = write(tmp_path / "few.csv", ["emotion,pixels,Usage", *rows[:500]])
    assert "100 rows of votes after the last face" in read_faces(replace(given, path=str(few))).source.notes[-1]


def test_votes_one_row_off_are_refused_by_usage(join, vote_lines):
    with pytest.raises(FerError, match=r"row \d+ is in (train|val|test), but in .* it is in (train|val|test)"):
        join([HEADER, vote_lines[-1], *vote_lines[1:-1]])


def test_too_few_votes_are_refused(join, vote_lines):
    with pytest.raises(FerError, match=r"has 69 rows, .* at least 70"):
        join(vote_lines[:-1])


@pytest.mark.parametrize("value", ["11", "-1", "x", "", "1.5", "²"])
def test_bad_votes_are_named_by_line(value, join, vote_lines):
    vote_lines[21] = vote_lines[21].rpartition(",")[0] + f",{value}"
    with pytest.raises(FerError, match=r"fer2013new.csv, line 22: expected a Usage and ten votes 0 to 10"):
        join(vote_lines)


@pytest.mark.parametrize("line", ["Training,fer1.png,1,2", "Tests,," + "1," * 9 + "1", "Training,," + "0," * 9 + "0"])
def test_bad_vote_rows_are_named_by_line(line, join, vote_lines):
    vote_lines[21] = line
    with pytest.raises(FerError, match=r"fer2013new.csv, line 22: expected a Usage and ten votes 0 to 10"):
        join(vote_lines)


def test_a_missing_vote_column_is_named(join, vote_lines):
    with pytest.raises(FerError, match="line 1: no column 'contempt'"):
        join([vote_lines[0].replace("contempt", "scorn"), *vote_lines[1:]])


@pytest.mark.parametrize("contents", [b"\x1f\x8b\x08\x00\xff\xfe\x80", b"", b"<html>"])
def test_a_vote_file_that_is_none_is_named(contents, table, tmp_path):
    path = tmp_path / "fer2013new.csv"
    path.write_bytes(contents)
    with pytest.raises(FerError, match=f"data.votes={path}"):
        read_faces(DataSettings(path=str(table), votes=str(path), cache=None))


def test_a_missing_vote_file_is_named(table, tmp_path):
    with pytest.raises(FerError, match=r"data.votes=.*gone.csv: no such file"):
        read_faces(DataSettings(path=str(table), votes=str(tmp_path / "gone.csv"), cache=None))


def test_votes_need_the_table_not_pictures(tmp_path, plant, drawn, join, vote_lines, class_name):
    plant(tmp_path / "tree", drawn, lambda faces, row: f"{class_name(faces, row)}/{row}.png")
    with pytest.raises(FerError, match="votes are joined by row and need the CSV table, not image tree"):
        join(vote_lines, path=tmp_path / "tree")


# --- the generator's folders ---------------------------------------------------------------------------------------

FOLDERS = ("FER2013Train", "FER2013Valid", "FER2013Test")


@pytest.fixture
def generated(tmp_path, drawn, votes):
    """The generator's folders; row order within a split is the table's."""
    root = tmp_path / "ferplus" / "data"
    for split, folder in enumerate(FOLDERS):
        (root / folder).mkdir(parents=True)
        rows = np.flatnonzero(drawn.official == split)
        for row in rows:
            Image.fromarray(drawn.images[row]).save(root / folder / f"fer{row:07d}.png")
        labels = [f'fer{row:07d}.png,"(0, 0, 48, 48)",{",".join(map(str, votes[row]))}' for row in rows]
        (root / folder / "label.csv").write_text("".join(f"{line}\n" for line in labels))
    return root


def test_generated_folders_are_read_with_their_votes(generated, drawn, votes, part):
    order = np.argsort(drawn.official, kind="stable")
    reference = part(drawn, order)
    for path in (generated, generated.parent):
        faces = read_faces(DataSettings(path=str(path), cache=None))
        np.testing.assert_array_equal(faces.images, reference.images)
        np.testing.assert_array_equal(faces.targets, reference.targets)
        np.testing.assert_array_equal(faces.official, reference.official)
        np.testing.assert_array_equal(faces.given, reference.official)
        np.testing.assert_array_equal(faces.votes, votes[order])
        assert (faces.source.name, faces.source.labels) == ("ferplus", "ferplus argmax, 7 classes")


def test_generated_folders_have_contempt_beside_another_set(generated, tmp_path):
    for row in range(10):
        file = tmp_path / "other" / ("angry", "happy")[row % 2] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(row).integers(0, 256, (48, 48), np.uint8)).save(file)
    for first, second in (("other", generated), (generated, tmp_path / "other")):
        first = tmp_path / first
        data = DataSettings(path=str(first), more=[{"path": str(second)}], classes=8, split="holdout", cache=None)
        assert len(read_sets(data).faces.classes) == 8


def test_pictures_without_votes_are_an_error_or_counted(generated, load):
    shutil.copy(next((generated / FOLDERS[0]).glob("*.png")), generated / FOLDERS[0] / "more.png")
    [note] = load(generated).source.notes
    assert "1 picture of FER2013Train" in note
    assert "more.png" in note
    (generated / FOLDERS[2] / "label.csv").unlink()
    with pytest.raises(FerError, match=r"FER2013Test: 7 pictures without votes.*label\.csv.*data\.on_bad=skip"):
        load(generated)
    faces = load(generated, on_bad="skip")
    assert set(faces.given) == {0, 1}
    assert len(faces.source.skipped) == 1


def test_generated_folders_keep_their_votes_with_a_cache(generated, tmp_path, load):
    first, second = (load(generated, cache=tmp_path / "cache") for _ in range(2))
    np.testing.assert_array_equal(first.votes, second.votes)


def test_faces_voted_none_of_the_seven_are_left_out_and_counted(generated):
    label = generated / FOLDERS[0] / "label.csv"
    labels = label.read_text().splitlines()
    for row, column in enumerate(("contempt", "unknown", "NF")):
        votes = ["9" if name == column else "0" for name in FERPLUS_COLUMNS]
        labels[row] = ",".join([*labels[row].split(",")[:5], *votes])
    label.write_text("\n".join(labels))
    faces = read_faces(DataSettings(path=str(generated), cache=None))
    assert len(faces) == 67
    assert faces.rows[0] == 3
    assert "3 of 70 faces left out (3 of train, 0 of val, 0 of test)" in faces.source.notes[0]
    eight = read_faces(DataSettings(path=str(generated), labels="ferplus", classes=8, cache=None))
    assert len(eight) == 68
    assert eight.classes[eight.targets[0]] == "contempt"


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (lambda folder, name: (folder / name).unlink(), r"fer\d+.png: not a readable picture"),
        (lambda folder, name: (folder / name).write_bytes(b""), r"fer\d+.png: is empty"),
        (
            lambda folder, name: _edit(folder, name, lambda line: line[:-1] + "11"),
            "label.csv, line 3: expected a file name",
        ),
        (lambda folder, name: _edit(folder, name, lambda line: line[:25]), "label.csv, line 3: expected a file name"),
    ],
    ids=["picture gone", "picture empty", "a vote above 10", "cut line"],
)
def test_faults_in_generated_folders_are_named_and_skipped_alone(fault, problem, generated, load):
    folder = generated / FOLDERS[0]
    name = (folder / "label.csv").read_text().splitlines()[2].split(",")[0]
    fault(folder, name)
    with pytest.raises(FerError, match=problem):
        load(generated)
    faces = load(generated, on_bad="skip")
    assert faces.rows.tolist() == [row for row in range(70) if row != 2]
    assert len(faces.source.skipped) == 1


def _edit(folder, name, change):
    lines = (folder / "label.csv").read_text().splitlines()
    lines = [change(line) if line.startswith(name) else line for line in lines]
    (folder / "label.csv").write_text("\n".join(lines))


def test_a_label_file_that_is_no_csv_is_named(generated, load):
    (generated / FOLDERS[0] / "label.csv").write_bytes(b"\x89PNG\xff\xfe\x80")
    with pytest.raises(FerError, match=r"label.csv: is no CSV file"):
        load(generated)


# --- the real file -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    not {"FER2013_CSV", "FER2013_VOTES"} <= set(os.environ),
    reason="$FER2013_CSV and $FER2013_VOTES name no fer2013.csv and fer2013new.csv",
)
def test_the_real_votes_agree_with_the_labels_as_measured():
    path, votes = (str(Path(os.environ[name])) for name in ("FER2013_CSV", "FER2013_VOTES"))
    faces = read_faces(DataSettings(path=path, votes=votes, cache=None))
    private = faces.official == 2
    agreement = (COLUMN_EMOTIONS[faces.votes[private].argmax(1)] == faces.targets[private]).mean()
    assert agreement == pytest.approx(0.622, abs=0.001)


@pytest.mark.slow
@pytest.mark.skipif(
    not {"FER2013_CSV", "FER2013_VOTES"} <= set(os.environ),
    reason="$FER2013_CSV and $FER2013_VOTES name no fer2013.csv and fer2013new.csv",
)
@pytest.mark.parametrize(
    ("rule", "classes", "kept"),
    [
        ("majority", 8, (25060, 3199, 3153)),
        ("majority", 7, (24941, 3186, 3137)),
        ("argmax", 8, (28389, 3553, 3546)),
        ("argmax", 7, (28224, 3529, 3519)),
        ("soft", 8, (28389, 3553, 3546)),
    ],
)
def test_rules_keep_as_many_real_faces_as_measured(rule, classes, kept):
    path, votes = (str(Path(os.environ[name])) for name in ("FER2013_CSV", "FER2013_VOTES"))
    settings = DataSettings(path=path, votes=votes, labels="ferplus", ferplus_rule=rule, classes=classes, cache=None)
    faces = read_faces(settings)
    assert tuple(int((faces.official == split).sum()) for split in range(3)) == kept
