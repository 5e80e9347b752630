"""``python -m fer.audit`` as a user meets it, on drawn faces with duplicates and odd ones made by hand."""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import metrics
from data.audit.test_moved_copies import blotches, changed
from PIL import Image

from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS
from fer.data.readers.drawing import draw_faces

USAGES = ["Training"] * 50 + ["PublicTest"] * 10 + ["PrivateTest"] * 10
# rows of the faces that are made alike; the labels of the second group differ, the fourth is black
TWINS = [[0, 1], [2, 51], [3, 61, 62], [10, 52]]
CONFLICT, BLACK, GREY = TWINS[1], TWINS[3], 11
DARK, BRIGHT, FLAT = 20, 21, 22


def odd_faces():
    """Return (70, 48, 48) drawn faces and their labels, with the duplicates and odd ones above."""
    images, targets = draw_faces(70, seed=1)
    images, targets = images.copy(), targets.copy()
    images[BLACK] = 0
    images[GREY] = 200
    images[DARK] = images[DARK] // 40
    images[BRIGHT] = 255 - images[BRIGHT] // 40
    images[FLAT] = 120 + images[FLAT] % 3
    for first, *others in TWINS:
        images[others], targets[others] = images[first], targets[first]
    targets[CONFLICT] = 0, 4
    return images, targets


def write_table(file, images, targets, usages=USAGES):
    rows = (f"{t},{' '.join(map(str, i.ravel()))},{u}" for i, t, u in zip(images, targets, usages, strict=True))
    file.write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")


def write_tree(root, images, targets, split=lambda row: ""):
    for row, (image, target) in enumerate(zip(images, targets, strict=True)):
        file = root / split(row) / EMOTIONS[target] / f"{row:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


@pytest.fixture
def table(tmp_path):
    images, targets = odd_faces()
    write_table(tmp_path / "fer2013.csv", images, targets)
    return images, targets


def facts(folder):
    return json.loads((folder / "audit.json").read_text())


def rows_of(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def test_moved_copies_of_train_are_counted_and_shown(audit, tmp_path):
    originals = blotches(6, 48, 0)
    faces = [(0, "Training", one) for one in originals]
    faces += [(4, "PrivateTest", changed(one, turn=10, across=3)) for one in originals[:2]]
    faces += [(0, "PublicTest", changed(originals[2], zoom=1.1)), (0, "PublicTest", originals[3])]
    lines = [f"{label},{' '.join(map(str, pixels.ravel()))},{usage}" for label, usage, pixels in faces]
    (tmp_path / "moved.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))
    ended = audit("moved.csv", "--out", "out")
    assert ended.code == 0, ended.err
    assert "2 of 2 test faces have one in train, and no exact or near one" in ended.out
    assert facts(tmp_path / "out")["moved_copies"] | {"least_correlation": 0, "least_detail": 0} == {
        "least_correlation": 0, "least_detail": 0, "pairs": 3, "conflicting": 2, "splits": {"val": 1, "test": 2},
    }  # fmt: skip
    first = rows_of(tmp_path / "out" / "moved_copies.csv")[0]
    assert [first[name] for name in ("row", "split", "label")] == ["6", "test", "sad"]
    assert [first[name] for name in ("copy_row", "copy_split", "copy_label")] == ["0", "train", "angry"]
    assert float(first["turn"]) == pytest.approx(10, abs=0.5)
    assert 48 * float(first["across"]) == pytest.approx(3, abs=0.5)
    advised = suggestions(tmp_path / "out")
    assert {(0, "moved copy in test", "exclude"), (1, "moved copy in test", "exclude")} < advised
    assert (2, "moved copy in val", "exclude") in advised
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "Different labels (2)" in page
    assert "have an exact, near or moved copy in train" in page


def test_it_leaves_what_it_promises(audit, table, tmp_path):
    _, targets = table
    ended = audit("fer2013.csv")
    assert ended.code == 0, ended.err
    folder = tmp_path / "outputs" / "audit" / "fer2013"
    assert {file.name for file in folder.iterdir()} == {
        "audit.html", "audit.json", "audit.csv", "twins.csv", "near_twins.csv", "moved_copies.csv", "extremes.csv",
        "faces", "figures",
    }  # fmt: skip
    assert {file.stem for file in (folder / "faces").iterdir()} == set(EMOTIONS)
    figures = {"classes", "twins", "conflicts", "light", "darkest", "brightest", "flattest"}
    assert {file.name for file in (folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in figures for kind in ("png", "svg")
    }
    report = facts(folder)
    assert (report["schema"], report["quick"], report["n"]) == (1, False, 70)
    assert report["split"]["rule"] == "official"
    assert report["split"]["why_not_official"] is None
    assert report["command"] == "python -m fer.audit fer2013.csv"
    for split, rows in (("train", slice(0, 50)), ("val", slice(50, 60)), ("test", slice(60, 70))):
        expected = np.bincount(targets[rows], minlength=7).tolist()
        assert list(report["counts"][split].values()) == expected
    assert list(report["counts"]["train"]) == list(EMOTIONS)
    sizes = np.bincount(targets, minlength=7)
    assert report["imbalance"]["total"] == pytest.approx(sizes.max() / sizes.min())
    for said in ("fer2013.csv", "audit.html", "5 copies beyond the first, in 4 groups of 9 faces"):
        assert said in ended.out


def test_duplicates_are_counted_within_and_across_splits(audit, table, tmp_path):
    assert audit("fer2013.csv", "--quick", "--out", "out").code == 0
    duplicates = facts(tmp_path / "out")["twins"]
    assert (duplicates["groups"], duplicates["faces"], duplicates["copies"], duplicates["conflicting_groups"]) == (
        4,
        9,
        5,
        1,
    )
    assert duplicates["where"] == {
        "within train": {"groups": 1, "faces": 2, "copies": 1, "conflicting_groups": 0},
        "across splits": {"groups": 3, "faces": 7, "copies": 4, "conflicting_groups": 1},
    }
    assert duplicates["one_colour"] == {"groups": 1, "faces": 2, "copies": 1, "conflicting_groups": 0}
    assert duplicates["sizes"] == {"2": 3, "3": 1}
    assert duplicates["splits"] == {
        "train": {"train": 2, "val": 2, "test": 1},
        "val": {"train": 2, "val": 0, "test": 0},
        "test": {"train": 2, "val": 0, "test": 2},
    }


def test_csv_of_duplicates_lists_every_face_of_every_group(audit, table, tmp_path):
    _, targets = table
    assert audit("fer2013.csv", "--quick", "--out", "out").code == 0
    names = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    assert rows_of(tmp_path / "out" / "twins.csv") == [
        {
            "group": str(number),
            "row": str(row),
            "split": names[USAGES[row]],
            "label": EMOTIONS[targets[row]],
            "conflict": str(int(group == CONFLICT)),
        }
        for number, group in enumerate(TWINS, start=1)
        for row in group
    ]


def test_the_runs_note_and_the_audit_count_alike(audit, train, table, tmp_path):
    assert audit("fer2013.csv", "--quick", "--out", "out").code == 0
    ended = train("data.path=fer2013.csv", "model=mlp", "model.hidden=[8]", "trainer.max_epochs=1", "logger=none",
                  "trainer.accelerator=cpu", "data.batch_size=16", "hydra.run.dir=run")  # fmt: skip
    assert ended.code == 0, ended.err
    notes = json.loads((tmp_path / "run" / "metrics.json").read_text())["dataset"]["notes"]
    matrix = facts(tmp_path / "out")["twins"]["splits"]
    assert f"{matrix['val']['train']} of 10 val faces have an exact duplicate in train" in notes
    assert f"{matrix['test']['train']} of 10 test faces have an exact duplicate in train" in notes


def test_one_colour_faces_are_listed_apart(audit, table, tmp_path):
    assert audit("fer2013.csv", "--out", "out").code == 0
    assert facts(tmp_path / "out")["one_colour"] == {"faces": 3, "rows": [10, 11, 52]}
    listed = {int(row["row"]) for row in rows_of(tmp_path / "out" / "extremes.csv")}
    assert listed == set(range(70)) - {10, 11, 52}  # there are fewer than a hundred


def test_extremes_are_ranked_and_measured(audit, table, tmp_path):
    images, _ = table
    assert audit("fer2013.csv", "--out", "out").code == 0
    rows = rows_of(tmp_path / "out" / "extremes.csv")
    first = {row["kind"]: row for row in rows if row["rank"] == "1"}
    for kind, index in (("darkest", DARK), ("brightest", BRIGHT), ("flattest", FLAT)):
        assert int(first[kind]["row"]) == index
        assert float(first[kind]["mean"]) == pytest.approx(images[index].mean(), abs=0.006)
        assert float(first[kind]["sd"]) == pytest.approx(images[index].std(), abs=0.006)
    for kind, column, sign in (("darkest", "mean", 1), ("brightest", "mean", -1), ("flattest", "sd", 1)):
        values = [sign * float(row[column]) for row in rows if row["kind"] == kind]
        assert values == sorted(values)
    val = facts(tmp_path / "out")["light"]["val"]
    assert val["mean"]["median"] == pytest.approx(np.median(images[50:60].mean((1, 2))), abs=0.01)
    assert val["sd"]["p95"] == pytest.approx(np.percentile(images[50:60].std((1, 2)), 95), abs=0.01)


def near_faces():
    """Return 70 drawn faces and their labels, some of them changed copies of others, in train, val and test."""
    images, targets = (column.copy() for column in draw_faces(70, seed=1))
    noise = np.random.default_rng(0)
    for source, copy, change in (
        (1, 12, lambda face: face * 0.7),
        (2, 55, lambda face: face[:, ::-1]),
        (3, 13, lambda face: face * 0.6 + 80),
        (5, 14, lambda face: face + noise.normal(0, 5, face.shape)),
        (5, 15, lambda face: images[14]),
        (6, 65, lambda face: face * 0.8),
        (56, 66, lambda face: face * 0.8),
    ):
        images[copy] = np.clip(change(images[source].astype(float)), 0, 255).round()
        targets[copy] = targets[source]
    targets[13] = (targets[3] + 1) % 7
    targets[66] = (targets[56] + 1) % 7
    return images, targets


def test_near_duplicates_are_counted_listed_and_advised_on(audit, tmp_path):
    images, targets = near_faces()
    write_table(tmp_path / "near.csv", images, targets)
    ended = audit("near.csv", "--out", "out")
    assert ended.code == 0, ended.err
    near = facts(tmp_path / "out")["near_twins"]
    groups = [[1, 12], [2, 55], [3, 13], [5, 14, 15], [6, 65], [56, 66]]
    assert (near["groups"], near["pictures"], near["faces"], near["mirrored"]) == (6, 12, 13, 1)
    assert near["conflicting_groups"] == 2
    assert {name: part["groups"] for name, part in near["where"].items()} == {"within train": 3, "across splits": 3}
    assert near["splits"]["val"] == {"train": 1, "val": 0, "test": 1}
    assert near["splits"]["train"] == {"train": 5, "val": 1, "test": 1}  # 14 and 15 have each other
    rows = rows_of(tmp_path / "out" / "near_twins.csv")
    assert [int(row["row"]) for row in rows] == [row for group in groups for row in group]
    assert [row["row"] for row in rows if row["mirrored"] == "1"] == ["55"]
    assert {row["row"] for row in rows if row["conflict"] == "1"} == {"3", "13", "56", "66"}
    for said in ("12 different pictures of 6 photographs; in 2 groups", "1 of 10 val faces have one in train"):
        assert said in ended.out
    assert suggestions(tmp_path / "out") == {
        (2, "near duplicate in val", "exclude"),
        (3, "near duplicate of another label", "exclude"),
        (6, "near duplicate in test", "exclude"),
        (12, "near duplicate in train", "exclude"),
        (13, "near duplicate of another label", "exclude"),
        (14, "near duplicate in train", "exclude"),
        (15, "exact duplicate in train", "exclude"),
        (56, "near duplicate of another label", "look"),
        (66, "near duplicate of another label", "look"),
    }
    assert "data.exclude=" in ended.out


def suggestions(folder):
    with open(folder / "audit.csv", newline="") as stream:
        assert "fingerprint=" in next(stream)
        return {(int(row["row"]), row["reason"], row["suggestion"]) for row in csv.DictReader(stream)}


def test_exact_duplicates_and_pictures_of_nothing_are_advised_on(audit, table, tmp_path):
    assert audit("fer2013.csv", "--out", "out").code == 0
    advised = suggestions(tmp_path / "out")
    assert {
        (1, "exact duplicate in train", "exclude"),
        (2, "exact duplicate in val", "exclude"),
        (3, "exact duplicate in test", "exclude"),
        (51, "exact duplicate of another label", "look"),  # a figure on val is not changed
        (10, "one colour", "exclude"),
        (11, "one colour", "exclude"),
        (52, "one colour", "look"),
        (FLAT, "nearly one colour", "exclude"),
    } <= advised
    assert all(row < 50 for row, _, suggestion in advised if suggestion == "exclude")
    assert not [row for row, reason, _ in advised if row in BLACK and "duplicate" in reason]
    report = facts(tmp_path / "out")
    assert FLAT in report["no_faces"]["flat_rows"]
    assert report["no_faces"]["voted"] is None
    assert report["advice"]["exclude"]["faces"] == len(
        {row for row, _, suggestion in advised if suggestion == "exclude"}
    )


def test_where_no_split_is_stated_all_may_be_left_out(audit, tmp_path):
    images, targets = (column.copy() for column in draw_faces(14, seed=1))
    images[5], targets[5] = images[2], targets[2]
    images[9], targets[9] = images[8], (targets[8] + 1) % 7
    write_table(tmp_path / "all.csv", images, targets, ["Training"] * 14)
    write_tree(tmp_path / "mine", images, targets)
    assert audit("mine", "--quick", "--out", "out").code == 0
    reasons = sorted((reason, suggestion) for _, reason, suggestion in suggestions(tmp_path / "out"))
    assert reasons == [("exact duplicate in train", "exclude"), *[("exact duplicate of another label", "exclude")] * 2]


def test_pictures_that_votes_call_no_face_are_advised_on(audit, table, tmp_path):
    _, targets = table
    columns = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    lines = ["Usage,Image name," + ",".join(FERPLUS_COLUMNS)]
    for row, usage in enumerate(USAGES):
        nobody = {30: 8, 31: 4, 60: 10}.get(row, 0)
        votes = dict.fromkeys(FERPLUS_COLUMNS, 0) | {columns[targets[row]]: 10 - nobody, "NF": nobody}
        if row == 31:
            votes |= {"neutral": 3, "unknown": 3, columns[targets[row]]: 0, "NF": 4}
        lines.append(f"{usage},x.png," + ",".join(str(votes[name]) for name in FERPLUS_COLUMNS))
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    ended = audit("fer2013.csv", "--votes", "votes.csv", "--quick", "--out", "out")
    assert ended.code == 0, ended.err
    counted = facts(tmp_path / "out")["no_faces"]
    assert (counted["likely"], counted["voted"], counted["flat"]) == (3, 2, None)
    assert counted["voted_rows"] == [30, 60]
    assert {
        (30, "not a face", "exclude"), (31, "perhaps not a face", "look"), (60, "not a face", "look"),
    } <= suggestions(tmp_path / "out")  # fmt: skip
    assert "3 pictures by FER+'s most frequent answer, 2 by more than half of the votes" in ended.out
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "8 of 10 votes" in page.partition('id="no-faces"')[2].partition("</section>")[0]


def test_quick_leaves_out_brightness_and_contrast(audit, table, tmp_path):
    assert audit("fer2013.csv", "--quick", "--out", "out").code == 0
    folder = tmp_path / "out"
    assert facts(folder)["light"] is None
    assert facts(folder)["near_twins"] is None
    assert not (folder / "near_twins.csv").exists()
    assert not (folder / "extremes.csv").exists()
    assert {file.stem for file in (folder / "figures").iterdir()} == {"classes", "twins", "conflicts"}
    assert "Brightness" not in (folder / "audit.html").read_text()


def test_the_draw_of_faces_is_seeded_and_of_its_class(audit, tmp_path):
    images, targets = draw_faces(350, seed=4, image_size=48)
    write_tree(tmp_path / "tree", images, targets)
    for name in ("one", "two"):
        assert audit("tree", "--quick", "--image-size", "16", "--out", name).code == 0
    drawn = facts(tmp_path / "one")["sheets"]
    assert drawn == facts(tmp_path / "two")["sheets"]
    ordered = sorted(EMOTIONS)  # a tree is listed folder by folder
    for label, rows in drawn["rows"].items():
        start = 50 * ordered.index(label)
        assert len(set(rows)) == 24
        assert all(start <= row < start + 50 for row in rows)
        assert rows != list(range(start, start + 24))


def test_a_tree_is_counted_by_its_own_folders_and_says_so(audit, tmp_path):
    images, targets = draw_faces(42, seed=1)
    images = images.copy()
    images[1] = images[0]
    targets = targets.copy()
    targets[1] = targets[0]
    write_tree(tmp_path / "mine", images, targets, lambda row: "test" if row % 3 == 0 else "train")
    ended = audit("mine", "--quick")
    assert ended.code == 0, ended.err
    report = facts(tmp_path / "outputs" / "audit" / "mine")
    assert report["split"]["rule"] == "as_given"
    assert "has no official split (Usage) for 42 of 42 faces" in report["split"]["why_not_official"]
    assert {name: sum(by_label.values()) for name, by_label in report["counts"].items()} == {"train": 28, "test": 14}
    assert report["twins"]["splits"] == {"train": {"train": 0, "test": 1}, "test": {"train": 1, "test": 0}}
    assert "the official split does not apply" in ended.out
    assert "The official split does not apply" in (tmp_path / "outputs/audit/mine/audit.html").read_text()


def test_a_rule_that_was_asked_for_is_as_in_training(audit, tmp_path):
    images, targets = draw_faces(140, seed=1, image_size=48)
    write_tree(tmp_path / "mine", images, targets, lambda row: "test" if row < 70 else "train")
    ended = audit("mine", "--quick", "--rule", "as_given", "--out", "out")
    assert ended.code == 0, ended.err
    report = facts(tmp_path / "out")
    assert {name: sum(part.values()) for name, part in report["counts"].items()} == {
        "train": 63,
        "val": 7,
        "test": 70,
    }
    assert "val drawn from train" in report["split"]["meaning"]
    assert audit("mine", "--quick", "--rule", "holdout", "--out", "out").code == 0
    counts = facts(tmp_path / "out_2")["counts"]
    assert {name: sum(part.values()) for name, part in counts.items()} == {"train": 112, "val": 28}


def test_class_folders_alone_are_one_column(audit, tmp_path):
    images, targets = draw_faces(14, seed=1)
    write_tree(tmp_path / "mine", images, targets)
    ended = audit("mine", "--quick", "--out", "out")
    assert ended.code == 0, ended.err
    report = facts(tmp_path / "out")
    assert report["split"]["rule"] == "all"
    assert list(report["counts"]) == ["all"]
    assert report["imbalance"]["all"] == 1
    assert not rows_of(tmp_path / "out" / "twins.csv")
    assert "exact duplicates: none" in ended.out


def test_unlabelled_faces_are_counted(audit, tmp_path):
    images, _ = draw_faces(5, seed=1)
    lines = [" ".join(map(str, image.ravel())) for image in (*images, images[0])]
    (tmp_path / "test.csv").write_text("pixels\n" + "\n".join(lines) + "\n")
    ended = audit("test.csv", "--out", "out")
    assert ended.code == 0, ended.err
    report = facts(tmp_path / "out")
    assert report["total"] == {**dict.fromkeys(EMOTIONS, 0), "unlabelled": 6}
    assert report["imbalance"]["total"] is None
    assert report["twins"]["conflicting_groups"] == 0
    assert report["twins"]["splits"] == {"test": {"test": 2}}
    assert [file.name for file in (tmp_path / "out" / "faces").iterdir()] == ["unlabelled.png"]
    assert "6 of 6 faces have no label" in (tmp_path / "out" / "audit.html").read_text()


def test_bad_rows_are_skipped_counted_and_reported(audit, table, tmp_path):
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    lines[5] = "9" + lines[5][1:]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines) + "\n")
    assert "line 6: emotion is '9'" in audit("fer2013.csv").line
    ended = audit("fer2013.csv", "--on-bad", "skip", "--quick", "--out", "out")
    assert ended.code == 0, ended.err
    report = facts(tmp_path / "out")
    assert report["n"] == 69
    assert len(report["dataset"]["skipped"]) == 1
    assert "line 6" in report["dataset"]["skipped"][0]
    assert "skipped: 1 bad row or file," in ended.out
    assert [row["row"] for row in rows_of(tmp_path / "out" / "twins.csv")][4:7] == ["3", "61", "62"]  # rows of the file


def test_votes_are_summed_up(audit, table, tmp_path):
    _, targets = table
    columns = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    lines = ["Usage,Image name," + ",".join(FERPLUS_COLUMNS)]
    for row, (target, usage) in enumerate(zip(targets, USAGES, strict=True)):
        answer = "contempt" if row < 7 else columns[target]
        answers = [6 if name == answer else 4 if name == "NF" and row % 2 else 0 for name in FERPLUS_COLUMNS]
        if row == 69:
            answers = [5 if name in (answer, "NF") else 0 for name in FERPLUS_COLUMNS]
        lines.append(f"{usage},x.png," + ",".join(map(str, answers)))
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    ended = audit("fer2013.csv", "--votes", "votes.csv", "--quick", "--out", "out")
    assert ended.code == 0, ended.err
    votes = facts(tmp_path / "out")["votes"]
    assert (votes["agreeing"], votes["outside_the_seven"], votes["without_majority"]) == (63, 7, 1)
    assert votes["votes_per_face"] == [6, 10]
    assert votes["answers"]["happy"]["happiness"] == int((targets[7:] == 3).sum())
    assert sum(answers["contempt"] for answers in votes["answers"].values()) == 7
    assert "equals the label of 90.0 % of the faces" in ended.out


def test_the_data_are_found_where_training_finds_them(audit, table, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_DATA", str(tmp_path / "fer2013.csv"))
    assert audit("--quick", "--out", "out").code == 0
    assert facts(tmp_path / "out")["dataset"]["path"] == str(tmp_path / "fer2013.csv")


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ((), ["data.split=official"]),
        (("--rule", "holdout", "--on-bad", "skip"), ["data.split=holdout", "data.on_bad=skip"]),
    ],
)
def test_the_next_command_runs_as_it_is_printed(audit, table, train, beside, expected):
    Path("fer2013.csv").rename("my faces.csv")
    ended = audit("my faces.csv", "--quick", "--out", "a b=c,é", *beside)
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.out.splitlines() if line.startswith("next:")]
    program, *overrides = shlex.split(line.removeprefix("next:    python -m "))
    assert program == "fer.train"
    assert set(expected) <= set(overrides)
    trained = train(
        *overrides, "model=mlp", "model.hidden=[4]", "trainer=smoke", "--out", "run"
    )  # as pasted, but short
    assert trained.code == 0, trained
    assert "left out of train by" in trained.out
    assert metrics(Path("run"))["dataset"]["path"] == str(Path("my faces.csv").absolute())


def test_the_next_command_of_folders_without_val_trains_on_the_audited_split(audit, train, tmp_path):
    """The audit draws val as the training does; its folders may have names of any letters."""
    images, targets = draw_faces(140, seed=1)
    images[100:103] = images[0]
    write_tree(tmp_path / "mine", images, targets, lambda row: "test" if row >= 120 else "train")
    for split in ("train", "test"):
        (tmp_path / "mine" / split / "happy").rename(tmp_path / "mine" / split / "fröhlich")
    ended = audit("mine", "--quick", "--class-names", "fröhlich:happy", "--out", "out")
    (line,) = [line for line in ended.out.splitlines() if line.startswith("next:")]
    _, *overrides = shlex.split(line.removeprefix("next:    python -m "))
    trained = train(*overrides, "model=mlp", "model.hidden=[4]", "trainer=smoke", "--out", "run")
    assert trained.code == 0, trained
    assert "left out of train by" in trained.out
    assert "made for split" not in trained.out


def test_the_next_command_never_names_a_split_that_cannot_train(audit, train, tmp_path):
    """Too few faces of a class to draw val from the train folder; the audit shows the folders all the same."""
    images, targets = draw_faces(35, seed=1)
    images[20:23] = images[0]
    write_tree(tmp_path / "mine", images, targets, lambda row: "test" if row >= 14 else "train")
    ended = audit("mine", "--quick", "--out", "out")
    (line,) = [line for line in ended.out.splitlines() if line.startswith("next:")]
    _, *overrides = shlex.split(line.removeprefix("next:    python -m "))
    assert "data.split=holdout" in overrides
    assert facts(tmp_path / "out")["split"]["rule"] == "as_given"
    trained = train(*overrides, "model=mlp", "model.hidden=[4]", "trainer=smoke", "--out", "run")
    assert trained.code == 0, trained


def test_no_earlier_audit_is_overwritten(audit, table, tmp_path):
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        assert audit("fer2013.csv", "--quick").code == 0
        assert audit("fer2013.csv", "--quick", "--out", "empty").code == 0
    assert {folder.name for folder in (tmp_path / "outputs" / "audit").iterdir()} == {"fer2013", "fer2013_2"}
    assert (tmp_path / "empty" / "audit.json").is_file()
    assert (tmp_path / "empty_2" / "audit.json").is_file()


def test_faces_are_resized_as_asked(audit, tmp_path):
    images, targets = draw_faces(14, seed=1, image_size=120)
    write_tree(tmp_path / "mine", images, targets)
    assert audit("mine", "--image-size", "120", "--out", "out").code == 0
    assert facts(tmp_path / "out")["dataset"]["image_size"] == 120
    with Image.open(tmp_path / "out" / "faces" / "happy.png") as sheet:
        assert sheet.height == 2 * (96 + 4)  # large faces are shrunk for pictures


def test_a_plugins_layout_is_read(audit, tmp_path, monkeypatch):
    (tmp_path / "my_layout.py").write_text(
        "import numpy as np\n"
        "from fer.data.faces import UNKNOWN, Faces, Source\n"
        "from fer.data.readers import register_reader\n"
        "@register_reader('npy')\n"
        "class Npy:\n"
        "    recognises = staticmethod(lambda path: path.suffix == '.npy')\n"
        "    files = staticmethod(lambda path: [path])\n"
        "    @staticmethod\n"
        "    def read(path, *, image_size, on_bad):\n"
        "        images = np.load(path)\n"
        "        unknown = np.full(len(images), UNKNOWN, np.int8)\n"
        "        labels = np.arange(len(images)).astype(np.int8) % 7\n"
        "        rows = np.arange(len(images))\n"
        "        return Faces(images, labels, unknown, unknown, rows, Source('../mine', 'npy', str(path)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    np.save(tmp_path / "faces.npy", draw_faces(14, seed=1)[0])
    assert audit("faces.npy", "--quick", "--plugins", "my_layout").code == 0
    assert facts(tmp_path / "outputs" / "audit" / "mine")["dataset"]["layout"] == "npy"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["mine", "--rule", "official"], "has no official split (Usage) for 14 of 14 faces"),
        (["mine", "--rule", "offical"], "--rule"),
        (["mine", "--rule", "folds"], "--rule"),
        (["mine", "--predictions", "nowhere"], "nowhere: no such folder"),
        (["mine", "--image-size", "8"], "--image-size 8: out of range"),
        (["mine", "--on-bad", "keep"], "--on-bad"),
        (["mine", "--votes", "nowhere.csv"], "--votes nowhere.csv: no such file"),
        (["mine", "--plugins", "no_such_module"], "could not be imported"),
        (["mine", "--colour"], "--colour"),
    ],
)
def test_a_users_mistake_is_one_line(audit, tmp_path, arguments, says):
    write_tree(tmp_path / "mine", *draw_faces(14, seed=1))
    ended = audit(*arguments)
    assert ended.code == 1
    assert says in ended.line
    assert not (tmp_path / "outputs").exists()


def test_drawn_faces_never_stand_in(audit, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    ended = audit()
    assert ended.code == 1
    assert "no data" in ended.line


def test_help_needs_no_torch():
    code = "import sys, fer.audit; print([name for name in ('torch', 'hydra') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_drawn_faces_can_be_audited(audit, tmp_path):
    ended = audit("synthetic", "--out", "out")
    assert ended.code == 0, ended.err
    report = facts(tmp_path / "out")
    assert (report["n"], report["twins"]["groups"], report["imbalance"]["total"]) == (7000, 0, 1)
    assert report["split"]["meaning"] == "official"
