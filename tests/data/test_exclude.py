"""``data.exclude``: a training leaves out the rows that an audit suggests."""

import json
import shutil

import numpy as np
import pytest
from conftest import metrics
from PIL import Image

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.labels import SPLITS
from fer.data.readers.drawing import draw_faces
from fer.reports.compare import leaderboard

USAGES = ["Training"] * 100 + ["PublicTest"] * 20 + ["PrivateTest"] * 20
# copies in train of faces of train, val and test; 95 is black
COPIES = {90: 1, 91: 105, 92: 125}
BLACK = 95
QUICK = ("model=mlp", "model.hidden=[8]", "trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none")


def write_table(file, images, targets):
    rows = (f"{t},{' '.join(map(str, i.ravel()))},{u}" for i, t, u in zip(images, targets, USAGES, strict=True))
    file.write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def audited_once(tmp_path_factory):
    """A folder with 140 faces in ``fer.csv``, four of train to be left out, and their audit in ``audit``."""
    from fer.audit import main

    folder = tmp_path_factory.mktemp("audited")
    images, targets = (column.copy() for column in draw_faces(140, seed=1))
    for copy, original in COPIES.items():
        images[copy], targets[copy] = images[original], targets[original]
    images[BLACK] = 0
    write_table(folder / "fer.csv", images, targets)
    assert main([str(folder / "fer.csv"), "--quick", "--out", str(folder / "audit")]) == 0
    return folder


@pytest.fixture
def audited(audited_once, tmp_path):
    """``fer.csv`` in the test's folder, and the path of its ``audit.csv``, which a test may change."""
    shutil.copy(audited_once / "fer.csv", tmp_path)
    return shutil.copy(audited_once / "audit" / "audit.csv", tmp_path / "audit.csv")


def served(**changes):
    """The module of ``fer.csv`` and the rows of each split."""
    module = FERDataModule(DataSettings(path="fer.csv", cache=None, **changes))
    return module, {name: np.flatnonzero(module.splits == index).tolist() for index, name in enumerate(SPLITS)}


def edited(file, change):
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("\n".join(lines) + "\n")


def test_train_alone_is_served_without_them(audited):
    _, before = served()
    module, after = served(exclude=str(audited))
    assert set(before["train"]) - set(after["train"]) == {*COPIES, BLACK}
    assert (before["val"], before["test"]) == (after["val"], after["test"])
    described = module.describe()
    assert described.counts["train"] != described.counts["val"]
    assert sum(described.counts["train"].values()) == 96
    assert described.excluded.faces == 4
    assert described.excluded.by_reason == {
        "exact duplicate in train": 1, "exact duplicate in val": 1, "exact duplicate in test": 1, "one colour": 1,
    }  # fmt: skip
    assert described.notes[-1] == (
        f"4 faces left out of train by {audited} (exact duplicate in train 1, exact duplicate in val 1, "
        "exact duplicate in test 1, one colour 1)"
    )
    assert described.fingerprint == served()[0].describe().fingerprint  # of the table, which is the same


def test_another_split_keeps_val_whole_and_says_so(audited):
    _, before = served(split="holdout")
    module, after = served(split="holdout", exclude=str(audited))
    assert before["val"] == after["val"]
    gone = set(before["train"]) - set(after["train"])
    assert gone == {*COPIES, BLACK} - set(before["val"])
    excluded, notes = module.describe().excluded, module.describe().notes
    assert excluded.faces == len(gone)
    assert excluded.outside_train == 4 - len(gone)
    assert any("it was made for split official, not holdout" in note for note in notes)


def test_a_rule_that_draws_other_faces_for_val_is_said_too(tmp_path, audited_once, monkeypatch):
    from fer.audit import main

    monkeypatch.chdir(tmp_path)
    shutil.copy(audited_once / "fer.csv", tmp_path)
    assert main(["fer.csv", "--quick", "--rule", "holdout", "--out", "audit"]) == 0
    of_same, of_other = (
        served(split="holdout", split_seed=seed, exclude="audit/audit.csv")[0].describe().notes for seed in (0, 7)
    )
    assert not any("duplicates across" in note for note in of_same)
    assert any("split holdout, with other faces in val than here" in note for note in of_other)


@pytest.mark.parametrize("changes", [{"channels": 3}, {"classes": 8}, {"classes": 8, "image_size": 24}])
def test_an_audit_serves_a_training_in_colour_or_with_contempt(changes, tmp_path, monkeypatch):
    from fer.audit import main

    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), np.uint8)
    images[1] = images[0]
    for row, image in enumerate(images):
        file = tmp_path / "faces" / ("angry", "happy", "sad", "contempt")[row // 2 % 4] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    assert main(["faces", "--quick", "--rule", "holdout", "--out", "audit"]) == 0
    settings = DataSettings(path="faces", split="holdout", exclude="audit/audit.csv", cache=None, **changes)
    assert FERDataModule(settings).describe().excluded.file == "audit/audit.csv"


def test_the_same_rows_are_meant_at_another_size_and_with_votes_or_without(audited):
    _, after = served(exclude=str(audited), image_size=24)
    assert not {*COPIES, BLACK} & set(after["train"])


def test_a_hand_may_edit_it(audited):
    edited(audited, lambda lines: lines.__setitem__(2, lines[2].replace("exclude", "look")))
    edited(audited, lambda lines: lines.append("7,ugly,exclude"))
    module, after = served(exclude=str(audited))
    assert 90 in after["train"]
    assert 7 not in after["train"]
    assert module.describe().excluded.by_reason["ugly"] == 1


@pytest.mark.parametrize("with_bom", [False, True])
def test_a_spreadsheet_may_save_it(audited, with_bom):
    lines = audited.read_text().splitlines()
    text = "\r\n".join([f"{lines[0]},,,,,,", *lines[1:]])
    audited.write_bytes(("\ufeff" * with_bom + text).encode())
    assert not {*COPIES, BLACK} & set(served(exclude=str(audited))[1]["train"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines.__delitem__(0), "line 1: names no fingerprint"),
        (lambda lines: lines.__setitem__(1, "place,reason,suggestion"), "line 2: no column 'row'"),
        (lambda lines: lines.append("7,ugly,exlude"), "line 7: suggestion is 'exlude'; expected exclude, look"),
        (lambda lines: lines.append("-7,ugly,exclude"), "line 7: row is '-7'; expected a whole number"),
        (lambda lines: lines.append("9" * 20 + ",ugly,exclude"), "expected a whole number"),
        (lambda lines: lines.append("9" * 5000 + ",ugly,exclude"), "expected a whole number"),
        (
            lambda lines: lines.__setitem__(0, lines[0].replace("image_size=48", "image_size=0")),
            "image_size=0; expected 16 to",
        ),
        (lambda lines: lines.__setitem__(0, lines[0].replace("image_size=48", "image_size=99999")), "line 1"),
        (lambda lines: lines.append("140,ugly,exclude"), "row 140 is not in fer.csv"),
        (lambda lines: lines.append("7"), "line 7: suggestion is ''"),
        (lambda lines: lines.__setitem__(0, lines[0].replace("fingerprint=", "fingerprint=0")), "is of other data"),
        (lambda lines: lines.extend(f"{row},all,exclude" for row in range(100)), "leaves no face in train"),
    ],
)
def test_a_bad_file_is_refused_in_a_line(audited, change, says):
    edited(audited, change)
    with pytest.raises(FerError) as error:
        served(exclude=str(audited))
    assert says in str(error.value)
    assert str(error.value).startswith(f"data.exclude={audited}")
    assert "\n" not in str(error.value)


def test_a_class_that_is_emptied_is_reported(audited, train):
    disgusted = [row for row in served()[1]["train"] if served()[0].faces.targets[row] == 1]
    edited(audited, lambda lines: lines.extend(f"{row},mine,exclude" for row in disgusted))
    ended = train("data.path=fer.csv", f"data.exclude={audited}", *QUICK, "data.image_size=48")
    assert ended.code == 0, ended
    assert "NO face of disgust remains in train" in ended.out + ended.err


def test_a_missing_file_and_other_data_are_refused_in_a_line(audited, train):
    assert "none.csv: no such file" in train("data.path=fer.csv", "data.exclude=none.csv", *QUICK).line
    ended = train("data=synthetic", "data.synthetic_count=140", f"data.exclude={audited}", *QUICK)
    assert ended.code == 1
    assert "is of other data than synthetic" in ended.line


@pytest.mark.slow
def test_a_run_reports_the_rows_left_out_and_is_ranked_with_one_of_all_rows(audited, train, evaluate, tmp_path):
    settings = ("data.path=fer.csv", *QUICK)
    ended = train(*settings, f"data.exclude={audited}", "hydra.run.dir=runs/clean")
    assert ended.code == 0, ended.err
    assert "96 train, 20 val" in ended.out
    assert "4 faces left out of train by" in ended.out
    assert train(*settings, "hydra.run.dir=runs/all").code == 0
    described = metrics(tmp_path / "runs" / "clean")["dataset"]
    assert described["excluded"]["faces"] == 4
    assert metrics(tmp_path / "runs" / "all")["dataset"]["excluded"] is None
    text = leaderboard.publish([tmp_path / "runs"], tmp_path / "out").text
    assert "2 configurations, 2 runs, 1 pair tested" in text
    assert f"audit.csv, {described['excluded']['rows_sha256'][:8]}" in text
    audited.unlink()  # scoring needs it no more
    assert evaluate("runs/clean", "--split", "test").code == 0


@pytest.mark.slow
def test_a_run_that_goes_on_must_find_the_same_rows(audited, train, tmp_path):
    folder = tmp_path / "run"
    assert train("data.path=fer.csv", *QUICK, f"data.exclude={audited}", f"hydra.run.dir={folder}").code == 0
    (folder / "metrics.json").unlink()  # as if it had been interrupted
    edited(audited, lambda lines: lines.append("7,ugly,look"))
    assert train(f"resume={folder}").code == 0
    (folder / "metrics.json").unlink()
    edited(audited, lambda lines: lines.append("7,ugly,exclude"))
    ended = train(f"resume={folder}")
    assert ended.code == 1
    assert "data.exclude names other rows" in ended.line


def test_what_is_suggested_is_in_audit_json(audited_once):
    described = json.loads((audited_once / "audit" / "audit.json").read_text())["advice"]
    assert described["exclude"]["faces"] == 4
    assert described["look"] == {"faces": 0, "reasons": {}}
