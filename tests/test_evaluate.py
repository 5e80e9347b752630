"""``python -m fer.evaluate`` as a user meets it."""

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics
from PIL import Image
from test_train import write_csv

import fer
from fer.config.settings import DataSettings
from fer.data import exclude
from fer.data.datamodule import FERDataModule
from fer.data.duplicates import digests
from fer.data.labels import EMOTIONS, FERPLUS_EMOTIONS, SPLITS
from fer.data.readers.drawing import draw_faces
from fer.evaluation.leakage import TrainingData
from fer.inference import ensemble
from fer.inference.ensemble import Pick
from fer.metrics.statistics import wilson
from fer.runs import predictions
from fer.runs.load import evaluations_on_test
from fer.system.text import plural
from fer.train import main as train_command


def test_val_again_gives_the_runs_own_metrics(evaluate, small_run):
    ended = evaluate(str(small_run), "--split", "val")
    assert ended.code == 0, ended.err
    own, again = metrics(small_run), metrics(small_run / "evaluations" / "val")
    different = {"temperature_fitted_on", "dataset", "versions", "commit", "hardware", "finished", "command"}
    for name in (own.keys() & again.keys()) - different:
        assert own[name] == again[name], name
    assert (small_run / "predictions.csv").read_bytes() == (
        small_run / "evaluations" / "val" / "predictions.csv"
    ).read_bytes()


def test_test_is_scored_and_never_overwritten(evaluate, small_run):
    for folder in ("test", "test_2"):
        assert evaluate(str(small_run), "--split", "test").code == 0
        assert metrics(small_run / "evaluations" / folder)["split"] == "test"


def test_a_checkpoint_alone_is_enough(scores, small_run, tmp_path):
    alone = tmp_path / "alone" / "net.ckpt"
    alone.parent.mkdir()
    (small_run / "checkpoints" / "best.ckpt").rename(alone)
    assert scores(str(alone), "--split", "val").code == 0
    assert metrics(tmp_path / "alone" / "evaluations" / "val")["accuracy"] == metrics(small_run)["accuracy"]


def test_results_go_to_the_folder_that_is_named(scores, small_run, tmp_path, monkeypatch):
    assert scores(str(small_run), "--out", str(tmp_path / "elsewhere")).code == 0
    assert metrics(tmp_path / "elsewhere" / "val")["n"] == 14
    monkeypatch.chdir(small_run / "checkpoints")
    assert scores("best.ckpt").code == 0
    assert (small_run / "evaluations" / "val" / "metrics.json").exists()


def test_other_data_are_reported(evaluate, small_run, tmp_path):
    write_csv(tmp_path / "other.csv")
    ended = evaluate(str(small_run), "--data", "other.csv", "--split", "test")
    assert ended.code == 0, ended.err
    assert "these are not the data of the training" in ended.err + ended.out
    with open(small_run / "evaluations" / "test" / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["row"]) for row in rows] == list(range(126, 140))
    model = fer.load(small_run)
    assert model.image_size == 24  # the 48-pixel faces were resized to what the network takes


def test_several_data_sets_are_one_table(evaluate, small_run, tmp_path):
    write_csv(tmp_path / "other.csv")
    ended = evaluate(str(small_run), "--data", "other.csv", "--data", "synthetic", "--split", "val", "--no-report")
    assert ended.code == 0, ended.err
    table = ended.out[ended.out.index("data set") :].splitlines()
    assert [line.split()[0] for line in table[2:4]] == ["other", "synthetic"]
    for line, folder in zip(table[2:4], ("val", "val_2"), strict=True):
        assert f"{100 * metrics(small_run / 'evaluations' / folder)['accuracy']:.2f} %" in line
    written = json.loads((small_run / "evaluations" / "data_sets.json").read_text())
    assert [row["results"] for row in written["data_sets"]] == ["val", "val_2"]
    for row in written["data_sets"]:
        results = metrics(small_run / "evaluations" / row["results"])
        assert (row["n"], row["accuracy"], row["macro_f1"]) == (results["n"], results["accuracy"], results["macro_f1"])
        assert row["clean"] == {"n": results["clean"]["n"], "accuracy": results["clean"]["accuracy"]}
    assert str(small_run / "evaluations" / "data_sets.json") in ended.out


def test_one_set_without_the_split_leaves_test_of_the_others_closed(scores, small_run, tmp_path):
    table = tmp_path / "short.csv"
    write_csv(table)
    table.write_text("".join(line for line in table.open() if "PrivateTest" not in line))
    ended = scores(str(small_run), "--data", "synthetic", "--data", "short.csv", "--split", "test")
    assert ended.code == 1
    assert "no test" in ended.line
    assert not (small_run / "test_opened.json").exists()


@pytest.mark.slow
def test_batch_size_does_not_change_the_metrics(scores, small_run):
    for size in ("1", "5", "1000"):
        assert scores(str(small_run), "--split", "test", "--batch-size", size).code == 0
    first, second, third = (metrics(small_run / "evaluations" / name) for name in ("test", "test_2", "test_3"))
    assert first["confusion"] == second["confusion"] == third["confusion"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such checkpoint or run folder"),
        (["{run}", "--data", "nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["{run}", "--batch-size", "0"], "--batch-size=0"),
        (["{run}", "--plugins", "no_such_module"], "could not be imported"),
        (["{run}", "--rule", "holdout", "--split", "test"], "no test split under --rule holdout"),
        (["{run}", "--device", "gpu"], "finds no GPU"),
        (["{run}", "--split", "tset"], "--split"),
        (["{run}", "--colour"], "--colour"),
        (["{run}", "{run}"], "given twice"),
        (["{run}", "--data", "synthetic", "--data", "synthetic"], "--data synthetic: is given twice"),
        (["{run}", "--data", "photos", "--data", "./photos/"], "--data ./photos/: is given twice"),
        (["{run}", "--class-names", "1:surprise"], "--class-names: names the folders of other data; add --data"),
        ([""], "empty name"),
        (["{run}", "--weights", "val"], "name more than one"),
        (["{run}", "--choose"], "--choose: needs several networks; name more than one"),
        (["{run}", "other", "--choose", "--weights", "val"], "leave one out"),
        (["{run}", "--error-rate", "20"], "--error-rate=20: expected a share between 0 and 1"),
        (["{run}", "--split", "all", "--rule", "holdout"], "takes every face"),
        (["{run}", "--tta", "twelve_crop"], "--tta"),
        (["{run}", "--against", "nowhere"], "nowhere: no such checkpoint or run folder"),
        (["{run}", "--against", "nowhere.csv"], "nowhere.csv: no such file"),
        (["{run}", "--against", "{run}/history.csv"], "history.csv: cannot be read (it has no columns p_<emotion>)"),
        (["{run}", "--against", "{run}/predictions.csv", "--split", "test"], "holds other faces or labels than test"),
    ],
)
def test_a_users_mistake_is_one_line(scores, small_run, monkeypatch, arguments, says):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ended = scores(*(argument.format(run=small_run) for argument in arguments))
    assert ended.code == 1
    assert says in ended.line
    assert not (small_run / "evaluations").exists()


def test_data_that_have_gone_are_never_replaced_by_drawn_faces(train, scores, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    write_csv(tmp_path / "fer2013.csv")
    assert train(*SMALL[2:], "data.path=fer2013.csv", "hydra.run.dir=out").code == 0
    (tmp_path / "fer2013.csv").unlink()
    ended = scores("out", "--split", "test")
    assert ended.code == 1
    assert "fer2013.csv, which was not found; no data: --data" in ended.line


def test_an_emotion_without_faces_is_not_said_to_be_missed(evaluate, small_run, tmp_path):
    images, targets = draw_faces(40, seed=3, image_size=24)
    for row in np.flatnonzero(~np.isin(targets, (1, 2))):
        folder = tmp_path / "photos" / EMOTIONS[targets[row]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row]).save(folder / f"{row}.png")
    ended = evaluate(str(small_run), "--data", "photos", "--split", "all", "--out", "looked")
    assert ended.code == 0, ended.err
    message = "no face of disgust, fear: left out of macro-F1 and balanced accuracy"
    assert message in ended.out
    assert re.search(r"^disgust +0 +(-|[\d.]+ %) +- +-$", ended.out, re.MULTILINE)
    folder = tmp_path / "looked" / "all"
    assert f"There is {message}." in (folder / "model_card.md").read_text()
    assert f"N{message[1:]}." in (folder / "report.html").read_text()
    f1 = [values["f1"] for values in metrics(folder)["per_class"].values() if values["support"]]
    assert metrics(folder)["macro_f1"] == pytest.approx(sum(f1) / 5)


# --- what is seen, chosen and counted -------------------------------------------------------------------------------


@pytest.fixture
def duplicated(train, tmp_path):
    """A run on a table some of whose val and test faces are copies of training faces."""
    write_csv(tmp_path / "fer2013.csv")
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    for copy, original in ((112, 0), (113, 1), (126, 2)):  # two of val, one of test; the label of one differs
        label, pixels = lines[1 + original].split(",")[:2]
        label = str((int(label) + 1) % 7) if copy == 113 else label
        lines[1 + copy] = ",".join([label, pixels, lines[1 + copy].split(",")[2]])
    (tmp_path / "fer2013.csv").write_text("\n".join(lines) + "\n")
    run = tmp_path / "duplicated"
    assert train(*SMALL[2:], "data.path=fer2013.csv", f"hydra.run.dir={run}").code == 0
    return run


def test_faces_with_a_duplicate_in_train_are_left_out_of_the_clean_metrics(scores, duplicated):
    own = metrics(duplicated)
    assert (own["n"], own["seen_in_training"], own["clean"]["n"]) == (14, 2, 12)
    assert (own["sets"]["thresholds"]["faces"], own["sets"]["all"]["n"], own["sets"]["clean"]["n"]) == (12, 14, 12)
    assert scores(str(duplicated), "--split", "test").code == 0
    test = metrics(duplicated / "evaluations" / "test")
    assert (test["n"], test["seen_in_training"], test["clean"]["n"]) == (14, 1, 13)
    with open(duplicated / "evaluations" / "test" / "predictions.csv", newline="") as stream:
        kept = [row for row in csv.DictReader(stream) if row["row"] != "126"]
    right = sum(row["target"] == row["predicted"] for row in kept)
    assert test["clean"]["accuracy"] == pytest.approx(right / 13)


@pytest.mark.slow
def test_faces_that_were_trained_on_are_counted_whatever_they_are_called(scores, duplicated, tmp_path):
    ended = scores(str(duplicated), "--split", "train")
    assert "112 of these 112 faces were trained on" in ended.err + ended.out
    assert metrics(duplicated / "evaluations" / "train")["clean"] is None
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "fer2013.csv").write_bytes((tmp_path / "fer2013.csv").read_bytes())
    ended = scores(str(duplicated), "--data", "copy/fer2013.csv", "--rule", "holdout")
    assert ended.code == 0, ended.err
    results = metrics(duplicated / "evaluations" / "val")
    assert results["n"] == 28
    assert results["seen_in_training"] > 14  # most of another split's val was trained on
    assert "were trained on" in ended.err + ended.out


@pytest.mark.slow
def test_what_was_left_out_of_the_training_was_not_seen(train, scores, duplicated, audit, tmp_path):
    assert audit("fer2013.csv", "--out", "found").code == 0
    run = tmp_path / "cleaned"
    settings = (*SMALL[2:], "data.path=fer2013.csv", "data.exclude=found/audit.csv", f"hydra.run.dir={run}")
    ended = train(*settings)
    assert ended.code == 0, ended.err
    assert metrics(run)["seen_in_training"] == 0  # the duplicated of val and test have gone from train
    assert scores(str(run), "--split", "test").code == 0
    assert metrics(run / "evaluations" / "test")["seen_in_training"] == 0
    ended = scores(str(run), str(duplicated), "--split", "test", "--out", "both")  # the other has seen one
    assert ended.code == 0, ended.err
    assert metrics(Path("both") / "test")["seen_in_training"] == 1
    (tmp_path / "found" / "audit.csv").unlink()
    ended = scores(str(run), "--split", "test")
    assert ended.code == 0, ended.err
    assert "no clean metrics: data.exclude=" in ended.err + ended.out
    assert metrics(run / "evaluations" / "test_2")["clean"] is None


def test_without_the_training_data_nothing_is_called_clean(scores, duplicated, tmp_path):
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    (tmp_path / "fer2013.csv").unlink()
    (tmp_path / "other.csv").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    ended = scores(str(duplicated), "--data", "other.csv", "--split", "test")
    assert ended.code == 0, ended.err
    assert "no clean metrics" in ended.err + ended.out
    results = metrics(duplicated / "evaluations" / "test")
    assert results["clean"] is None
    assert results["temperature"] == metrics(duplicated)["temperature"]  # stored in the checkpoint
    ended = scores(str(duplicated), "--data", "other.csv", "--split", "test", "--error-rate", "0.5")
    assert ended.code == 1
    assert "fer2013.csv was not found; put it back, or set $FER_DATA" in ended.line


def test_training_data_that_have_moved_are_known_by_their_contents(scores, duplicated, tmp_path):
    (tmp_path / "fer2013.csv").rename(tmp_path / "moved.csv")
    ended = scores(str(duplicated), "--data", "moved.csv", "--split", "test")
    assert ended.code == 0, ended.err
    results = metrics(duplicated / "evaluations" / "test")
    assert (results["n"], results["seen_in_training"], results["clean"]["n"]) == (14, 1, 13)


def test_the_table_of_an_ensemble_finds_each_result(evaluate, small_run, another_run, tmp_path):
    write_csv(tmp_path / "other.csv")
    networks = (str(small_run), str(another_run), "--no-report")
    assert evaluate(*networks, "--data", "other.csv", "--data", "synthetic").code == 0
    (file,) = (tmp_path / "outputs" / "ensembles").rglob("data_sets.json")
    for row in json.loads(file.read_text())["data_sets"]:
        assert metrics(file.parent / row["results"])["accuracy"] == row["accuracy"]


def test_each_look_at_test_is_counted(scores, small_run):
    assert "opened for the first time" in scores(str(small_run), "--split", "test").out
    assert scores(str(small_run), "--split", "val").code == 0
    ended = scores(str(small_run), "--split", "test", "--tta", "flip")
    assert "test was opened 2 times by now" in ended.out
    test_log = json.loads((small_run / "test_opened.json").read_text())
    assert [look["tta"] for look in test_log] == ["none", "flip"]
    assert metrics(small_run / "evaluations" / "test_flip")["test_opened"] == 2
    assert "test_opened" not in metrics(small_run / "evaluations" / "val")
    (small_run / "test_opened.json").write_text("[1")
    before = sorted((small_run / "evaluations").rglob("*"))
    ended = scores(str(small_run), "--split", "test", "--tta", "ten_crop")
    assert ended.code == 1
    assert "test_opened.json: damaged" in ended.line
    assert sorted((small_run / "evaluations").rglob("*")) == before  # nothing was seen of test that is not recorded


def test_two_networks_of_one_folder_each_have_their_looks(scores, small_run):
    best, last = (str(small_run / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    assert scores(best, last, "--split", "test", "--out", "both").code == 0
    assert scores(best, "--split", "test", "--against", last).code == 0
    test_log = json.loads((small_run / "test_opened.json").read_text())
    assert sorted(look["checkpoint"] for look in test_log) == ["best.ckpt", "best.ckpt", "last.ckpt", "last.ckpt"]
    ended = scores(best, "--split", "test")
    assert "test was opened 3 times by now" in ended.out
    under_another_name = str(small_run / "checkpoints" / ".." / "checkpoints" / "best.ckpt")
    ended = scores(best, "--split", "test", "--against", under_another_name)
    assert "test was opened 4 times by now" in ended.out


def test_data_of_the_training_are_read_as_there_when_they_are_named(train, scores, tmp_path):
    """Folders named by numbers mean what ``data.class_names`` of the training says."""
    pixels, labels = draw_faces(28, image_size=24, seed=5)
    for index, (face, label) in enumerate(zip(pixels, labels, strict=True)):
        picture = tmp_path / "photos" / str(label + 1) / f"{index}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(picture)
    names = ",".join(f"{number}:{name}" for number, name in enumerate(EMOTIONS, 1))
    own = ("data.path=photos", f"data.class_names={{{names}}}", "data.split=holdout", "hydra.run.dir=numbered")
    assert train(*SMALL[2:], "trainer.max_epochs=1", *own).code == 0
    for data in ((), ("--data", "photos")):
        assert scores("numbered", *data, "--out", f"out{len(data)}").code == 0
    assert metrics(tmp_path / "out0" / "val")["confusion"] == metrics(tmp_path / "out2" / "val")["confusion"]


def test_a_baseline_s_access_has_its_own_accuracy_and_an_evaluated_network_has_one(scores, small_run, another_run):
    assert scores(str(small_run), "--split", "test", "--against", str(another_run)).code == 0
    results = metrics(small_run / "evaluations" / "test")
    own = results["accuracy"] - results["against"]["accuracy"]["difference"]
    (access,) = json.loads((another_run / "test_opened.json").read_text())
    assert (access["accuracy"], access["networks"], access["as_baseline"]) == (pytest.approx(own), 1, True)
    (access,) = json.loads((small_run / "test_opened.json").read_text())
    assert (access["accuracy"], "as_baseline" in access) == (pytest.approx(results["accuracy"]), False)
    both = (str(small_run), str(another_run), "--split", "test", "--against", str(another_run))
    assert scores(*both, "--out", "both").code == 0
    assert len(json.loads((another_run / "test_opened.json").read_text())) == 2
    _, rows = evaluations_on_test(another_run).table
    assert [row[0] for row in rows] == ["as a baseline", "of 2 networks"]


def test_a_promise_states_that_duplicates_are_not_known(train, scores, tmp_path):
    audited = tmp_path / "audit.csv"
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=140, image_size=24))
    about = f"fingerprint={exclude.fingerprint(data.faces)} image_size=24 split=official"
    audited.write_text(f"{exclude.PURPOSE} {about}\nrow,reason,suggestion\n0,mine,exclude\n")
    assert train(*SMALL, f"data.exclude={audited}", "hydra.run.dir=run").code == 0
    assert scores("run", "--error-rate", "0.9").code == 0
    audited.unlink()
    ended = scores("run", "--error-rate", "0.9")
    assert ended.code == 0, ended
    assert "no clean metrics: " in ended.err + ended.out
    assert "all of val, since its duplicates in train are not known" in " ".join(ended.out.split())
    first, second = (metrics(tmp_path / "run" / "evaluations" / name)["answering"] for name in ("val", "val_2"))
    assert first["chosen_on"] == "the faces of val without a duplicate in train"
    assert second["chosen_on"].startswith("all of val")


def test_skipped_rows_are_reported(evaluate, small_run, tmp_path):
    images, targets = draw_faces(20, seed=5)
    rows = [f"{t},{' '.join(map(str, i.ravel()))},PrivateTest" for i, t in zip(images, targets, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["emotion,pixels,Usage", *rows, "9,1 2 3,PrivateTest"]) + "\n")
    ended = evaluate(str(small_run), "--data", "mine.csv", "--split", "all", "--on-bad", "skip")
    assert ended.code == 0, ended
    assert "skipped: 1 bad row or file" in ended.err + ended.out
    card = (small_run / "evaluations" / "all" / "model_card.md").read_text()
    assert "Skipped: 1 bad row or file." in card


def test_data_that_have_changed_in_place_are_reported(train, evaluate, tmp_path):
    images, targets = draw_faces(60, seed=5)
    usages = ["Training"] * 40 + ["PublicTest"] * 20

    def write(labels):
        rows = [f"{t},{' '.join(map(str, i.ravel()))},{u}" for i, t, u in zip(images, labels, usages, strict=True)]
        (tmp_path / "mine.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")

    write(targets)
    assert train(*SMALL[2:], "data.path=mine.csv", "hydra.run.dir=run").code == 0
    write([(targets[0] + 1) % 7, *targets[1:]])
    ended = evaluate("run")
    assert "mine.csv has other contents than at the training" in ended.err + ended.out


def test_every_face_of_a_folder_without_splits_can_be_scored(scores, small_run, tmp_path):
    images, targets = draw_faces(21, seed=5, image_size=24)
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        folder = tmp_path / "mine" / EMOTIONS[target]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    refused = scores(str(small_run), "--data", "mine", "--split", "val")
    assert refused.code == 1
    assert "official split" in refused.line
    ended = scores(str(small_run), "--data", "mine", "--split", "all")
    assert ended.code == 0, ended.err
    results = metrics(small_run / "evaluations" / "all")
    assert (results["n"], results["dataset"]["split"]) == (21, "all")
    assert sum(results["dataset"]["counts"]["all"].values()) == 21
    assert results["temperature_fitted_on"] == "val"


def test_an_ensemble_is_the_mean_of_its_networks(scores, small_run, another_run):
    ended = scores(str(small_run), str(another_run), "--split", "test", "--out", "both")
    assert ended.code == 0, ended.err
    results = metrics(Path("both") / "test")
    assert [member["weight"] for member in results["members"]] == [0.5, 0.5]
    with open(Path("both") / "test" / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    faces = torch.from_numpy(draw_faces(140, seed=0, image_size=24)[0])[[int(row["row"]) for row in rows], None]
    with torch.inference_mode():
        expected = sum(fer.load(run)(faces).softmax(1) for run in (small_run, another_run)) / 2
    chances = torch.tensor([[float(row[f"p_{name}"]) for name in EMOTIONS] for row in rows])
    assert torch.allclose(chances, expected, atol=1e-5)
    for run in (small_run, another_run):
        assert json.loads((run / "test_opened.json").read_text())[0]["networks"] == 2


@pytest.mark.slow
@pytest.mark.renders  # the figures of an ensemble too
def test_an_ensembles_networks_are_chosen_on_val(train, evaluate, small_run, another_run, tmp_path):
    untrained = tmp_path / "untrained"
    command = (*SMALL, "optimizer.lr=1e-7", "trainer.max_epochs=1", "seed=2", f"hydra.run.dir={untrained}")
    assert train(*command).code == 0
    given = [small_run, another_run, untrained]
    ended = evaluate(*map(str, given), "--choose", "--split", "test", "--out", "both")
    assert ended.code == 0, ended.err
    results = metrics(Path("both") / "test")
    selection, members = results["selection"], [member["checkpoint"] for member in results["members"]]
    files = [str(run / "checkpoints" / "best.ckpt") for run in given]
    assert sorted(members + selection["left_out"]) == sorted(files)
    assert sum(member["weight"] for member in results["members"]) == pytest.approx(1)
    val = [metrics(run)["calibrated"]["nll"] for run in given]  # each at its own temperature
    assert selection["steps"][0]["added"] == files[val.index(min(val))]
    assert selection["steps"][0]["nll_val"] == pytest.approx(min(val), abs=1e-5)
    assert f"chosen on val: {len(members)} of 3 networks, in {plural(len(selection['steps']), 'step')}\n" in ended.out
    assert len(members) > 1 or len(selection["steps"]) == 1
    assert selection["best_alone_val"] == pytest.approx(max(metrics(run)["accuracy"] for run in given))
    assert "left out: " in (Path("both") / "test" / "report.html").read_text()
    assert (Path("both") / "test" / "figures" / "disagreement.png").exists() == (len(members) > 1)
    for run, file in zip(given, files, strict=True):
        assert (run / "test_opened.json").exists() == (file in members)


def chances_of(run, temperature, file):
    """What a network says, at a temperature, of the faces of a predictions.csv."""
    with open(file, newline="") as stream:
        rows = [int(row["row"]) for row in csv.DictReader(stream)]
    faces = torch.from_numpy(draw_faces(140, seed=0, image_size=24)[0])[rows, None]
    with torch.inference_mode():
        return (fer.load(run)(faces) / temperature).softmax(1)


@pytest.mark.parametrize("flags", [["--choose"], ["--weights", "val"]])
def test_weights_of_val_are_of_networks_at_their_own_temperatures(evaluate, small_run, another_run, monkeypatch, flags):
    monkeypatch.setattr(ensemble, "greedy", lambda predicted, targets: [Pick(0, 1.5, 0.5), Pick(1, 1.4, 0.9)])
    ended = evaluate(str(small_run), str(another_run), *flags, "--split", "test", "--out", "both")
    assert ended.code == 0, ended.err
    folder = Path("both") / "test"
    members, own = metrics(folder)["members"], [metrics(run)["temperature"] for run in (small_run, another_run)]
    assert [member["temperature"] for member in members] == pytest.approx(own, rel=1e-4)
    assert own[0] != pytest.approx(own[1], rel=1e-2)
    file = folder / "predictions.csv"
    each = [chances_of(*member, file) for member in zip((small_run, another_run), own, strict=True)]
    expected = sum(member["weight"] * chances for member, chances in zip(members, each, strict=True))
    assert np.allclose(predictions.read(file).probabilities, expected, atol=1e-4)
    assert f"{own[0]:.3f}" in ended.out
    for page in ("report.html", "model_card.md"):
        assert "ensemble of 2 networks, each at its own temperature, " in (folder / page).read_text()


def test_a_single_network_that_is_chosen_is_said_to_be(evaluate, small_run, another_run, monkeypatch):
    monkeypatch.setattr(ensemble, "greedy", lambda predicted, targets: [Pick(1, 1.5, 0.5)])
    ended = evaluate(str(small_run), str(another_run), "--choose", "--out", "one")
    assert ended.code == 0, ended.err
    results = metrics(Path("one") / "val")
    assert [member["weight"] for member in results["members"]] == [1.0]
    assert results["accuracy"] == metrics(another_run)["accuracy"]
    for page in ("report.html", "model_card.md"):
        assert "he one network that val chose among 2" in (Path("one") / "val" / page).read_text()


@pytest.mark.parametrize(("accuracy", "said"), [(0.0, True), (1.0, False)])
def test_a_choice_less_accurate_than_its_best_network_is_reported(
    evaluate, small_run, another_run, monkeypatch, accuracy, said
):
    monkeypatch.setattr(ensemble, "greedy", lambda predicted, targets: [Pick(0, 1.5, 0.5), Pick(1, 1.4, accuracy)])
    ended = evaluate(str(small_run), str(another_run), "--choose", "--out", "both")
    assert ended.code == 0, ended.err
    assert ("but its accuracy there is 0.00 %, the best network's" in ended.out) == said


@pytest.mark.slow
def test_weights_temperature_and_threshold_are_chosen_on_val(train, scores, tmp_path):
    runs = [str(tmp_path / name) for name in ("first", "second")]
    for seed, run in enumerate(runs):
        assert (
            train(
                *SMALL, "data.synthetic_count=420", "trainer.max_epochs=25", f"seed={seed}", f"hydra.run.dir={run}"
            ).code
            == 0
        )
    arguments = ("--weights", "val", "--error-rate", "0.95", "--tta", "flip")
    chosen = []
    for split in ("val", "test"):
        ended = scores(*runs, "--split", split, "--out", "both", *arguments)
        assert ended.code == 0, ended.err
        chosen.append(metrics(Path("both") / f"{split}_flip"))
    on_val, on_test = chosen
    assert on_val["temperature"] == on_test["temperature"]
    assert on_val["members"] == on_test["members"]
    assert (on_val["temperature_fitted_on"], on_test["temperature_fitted_on"]) == ("these faces", "val")
    assert on_val["answering"]["threshold"] == on_test["answering"]["threshold"]
    assert on_val["answering"]["coverage"] == on_test["answering"]["coverage_there"]


def test_networks_of_different_data_make_no_ensemble_unasked(scores, small_run, duplicated):
    ended = scores(str(small_run), str(duplicated))
    assert ended.code == 1
    assert "was trained on other data or another split" in ended.line
    ended = scores(str(small_run), str(duplicated), "--data", "fer2013.csv", "--split", "test", "--out", "both")
    assert ended.code == 0, ended.err
    assert "no temperature: the networks were chosen on different val faces" in ended.err + ended.out
    assert metrics(Path("both") / "test")["calibrated"] is None


@pytest.mark.slow
def test_against_a_network_its_run_and_its_predictions_is_the_same(scores, small_run, another_run):
    assert scores(str(another_run), "--split", "test").code == 0
    others = (another_run, another_run / "evaluations" / "test", another_run / "evaluations" / "test/predictions.csv")
    evaluations = []
    for other in others:
        ended = scores(str(small_run), "--split", "test", "--against", str(other))
        assert ended.code == 0, ended.err
        assert "minus" in ended.out
    for name in ("test", "test_2", "test_3"):
        evaluations.append(metrics(small_run / "evaluations" / name))
    gap = evaluations[0]["accuracy"] - metrics(another_run / "evaluations" / "test")["accuracy"]
    nll = evaluations[0]["against"]["nll"]["difference"]
    for results in evaluations:
        assert results["against"]["accuracy"]["difference"] == pytest.approx(gap)
        assert results["against"]["nll"]["difference"] == pytest.approx(nll, abs=1e-4)


def test_stored_predictions_with_other_views_are_told_apart(scores, small_run, another_run):
    assert scores(str(another_run), "--split", "test", "--tta", "flip").code == 0
    stored = another_run / "evaluations" / "test_flip"
    ended = scores(str(small_run), "--split", "test", "--against", str(stored))
    assert ended.code == 0, ended.err
    assert "made with --tta flip, those of the evaluated network with --tta none" in ended.out + ended.err
    assert "with other views (--tta flip)" in ended.out
    assert metrics(small_run / "evaluations" / "test")["against"]["tta"] == "flip"
    ended = scores(str(small_run), "--split", "test", "--tta", "flip", "--against", str(stored / "predictions.csv"))
    assert "with the same views (flip)" in ended.out
    assert "those of the evaluated network" not in ended.out + ended.err


def test_the_temperature_is_stored_in_the_checkpoint_and_used_by_probabilities(small_run):
    model = fer.load(small_run)
    assert model.provenance.temperature == metrics(small_run)["temperature"]
    faces = torch.randint(256, (4, 1, 24, 24), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(
            model.probabilities(faces), (model(faces) / model.provenance.temperature).softmax(1), atol=1e-6
        )


def test_the_report_shows_every_option(evaluate, small_run, another_run):
    arguments = ("--split", "test", "--tta", "flip", "--against", str(another_run), "--error-rate", "0.95")
    assert evaluate(str(small_run), *arguments).code == 0
    page = (small_run / "evaluations" / "test_flip" / "report.html").read_text()
    for words in (
        "test-time augmentation: flip",
        "test opened once by now",
        "All metrics",
        "Comparison with a baseline",
        "ROC AUC",
        "divided by",
    ):
        assert words in page, words


# --- what a hostile user might try ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holdout_trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "holdout"
    assert train_command([*SMALL, "data.split=holdout", "data.split_seed=1", f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def holdout_run(holdout_trained_once, tmp_path):
    """A run on another split of the same faces: it was trained on most of the other runs' val and test."""
    return shutil.copytree(holdout_trained_once, tmp_path / "holdout")


def accesses_of(run):
    return json.loads((run / "test_opened.json").read_text())


def test_networks_of_differently_drawn_splits_have_no_val_in_common(train, scores, holdout_run):
    """The seed of the split is all that differs."""
    settings = ("data.split=holdout", "data.split_seed=2", "trainer.max_epochs=1")
    assert train(*SMALL, *settings, "hydra.run.dir=redrawn").code == 0
    ended = scores(str(holdout_run), "redrawn", "--data", "synthetic", "--split", "val", "--weights", "val")
    assert ended.code == 1
    assert "were chosen on different val faces" in ended.line


def test_nothing_is_chosen_on_faces_that_a_member_was_trained_on(scores, small_run, holdout_run):
    both = (str(small_run), str(holdout_run), "--data", "synthetic", "--split", "val")
    for options in (("--weights", "val"), ("--error-rate", "0.9"), ("--coverage", "0.9")):
        ended = scores(*both, *options)
        assert ended.code == 1
        assert "were chosen on different val faces" in ended.line
    ended = scores(*both, "--out", "both")
    assert ended.code == 0, ended.err
    assert metrics(Path("both") / "val")["calibrated"] is None


@pytest.mark.slow
def test_accesses_and_leakage_of_a_baseline_are_counted_and_stated(evaluate, small_run, holdout_run):
    ended = evaluate(str(small_run), "--against", str(holdout_run), "--split", "test")
    assert ended.code == 0, ended.err
    results = metrics(small_run / "evaluations" / "test")
    assert results["seen_in_training"] == 0
    assert results["against"]["seen_by_it"] > 7
    assert (results["against"]["clean"] or {"n": 0})["n"] == 14 - results["against"]["seen_by_it"]
    stated = f"The baseline was trained on {results['against']['seen_by_it']} of these 14 faces"
    assert stated in ended.out
    for page in ("report.html", "model_card.md"):
        assert stated in (small_run / "evaluations" / "test" / page).read_text()
    assert len(accesses_of(holdout_run)) == len(accesses_of(small_run)) == 1


@pytest.mark.parametrize("arguments", [("--split", "all"), ("--rule", "holdout")])
def test_test_under_another_name_is_a_look_too(scores, small_run, arguments):
    assert scores(str(small_run), "--split", "val").code == 0
    assert not (small_run / "test_opened.json").exists()
    assert scores(str(small_run), *arguments).code == 0
    assert len(accesses_of(small_run)) == 1


def test_one_of_14_test_faces_in_another_table_is_a_look_and_none_is_not(scores, small_run, tmp_path):
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=140, image_size=24))
    train, test = (np.flatnonzero(data.splits == SPLITS.index(name)) for name in ("train", "test"))
    for rows, opened in ((train[:40], False), (test[:1], True)):  # then one of test beside those of train
        for row in rows:
            file = tmp_path / "faces" / "train" / EMOTIONS[data.faces.targets[row]] / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.faces.images[row]).save(file)
        ended = scores(str(small_run), "--data", "faces", "--split", "all")
        assert ended.code == 0, ended.err
        assert (small_run / "test_opened.json").exists() == opened


def test_more_than_a_twentieth_of_the_test_faces_is_a_look():
    faces = draw_faces(40, seed=1)[0]
    test = set(digests(faces))
    assert len(test) == 40
    many = set(digests(draw_faces(2000, seed=2)[0]))  # test of another data set of the same training
    networks = SimpleNamespace(hashes_of_sets=lambda split, size: [many, test])
    answers = [TrainingData.is_test(networks, faces[:count]) for count in (0, 2, 3, 40)]
    assert answers == [False, False, True, True]


@pytest.mark.slow
def test_looks_count_by_network_and_those_of_before_count(scores, small_run):
    assert scores(str(small_run), "--split", "test").code == 0
    (small_run / "test_opened.json").unlink()  # as of a version that kept no record
    ended = scores(str(small_run), "--split", "test")
    assert "opened 2 times by now" in ended.out
    ended = scores(str(small_run / "checkpoints" / "last.ckpt"), "--split", "test")
    assert "opened for the first time" in ended.out


def test_what_weights_began_from_was_seen_too(train, scores, holdout_run, tmp_path):
    run = tmp_path / "fine"
    assert train(*SMALL, f"init_from={holdout_run}", f"hydra.run.dir={run}").code == 0
    assert scores(str(run), "--split", "test").code == 0
    assert metrics(run / "evaluations" / "test")["seen_in_training"] > 7


def test_an_access_that_cannot_be_recorded_is_reported_and_loses_nothing(evaluate, small_run, monkeypatch):
    from fer.evaluation import test_log

    def refuse(file, contents):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(test_log, "write_json", refuse)
    ended = evaluate(str(small_run), "--split", "test", "--out", "elsewhere")
    assert ended.code == 0, ended.err
    assert "could not be recorded" in ended.err + ended.out
    assert metrics(Path("elsewhere") / "test")["n"] == 14


@pytest.mark.slow
def test_votes_are_found_from_another_folder(train, scores, tmp_path, monkeypatch):
    from data.test_votes_in_runs import VOTED, write_votes

    write_votes(tmp_path)
    assert train(*VOTED).code == 0
    (tmp_path / "run" / "metrics.json").unlink()  # as if it had been ended before its last lines
    monkeypatch.chdir(tmp_path / "run")
    ended = train("resume=.")
    assert ended.code == 0, ended.err
    assert scores(".", "--split", "test").code == 0


def test_a_balanced_sampler_and_weights_exclude_each_other(train):
    for loss in ("loss=logit_adjusted", "loss.class_weights=sqrt"):
        ended = train(*SMALL, "data.sampler=balanced", loss)
        assert ended.code == 1
        assert "leave out loss.class_weights" in ended.line


def test_ferplus_rules_without_ferplus_labels_are_refused(scores, small_run):
    ended = scores(str(small_run), "--ferplus-rule", "soft")
    assert ended.code == 1
    assert "add --labels ferplus and --votes" in ended.line


def test_intervals_of_people_are_for_other_people(small_run, evaluate, tmp_path):
    """Twelve people of JAFFE's layout with seven drawn faces each."""
    codes = dict(zip(EMOTIONS, ("AN", "DI", "FE", "HA", "SA", "SU", "NE"), strict=True))
    images, labels = draw_faces(84, seed=5)
    (tmp_path / "jaffe").mkdir()
    for person in range(12):
        for label, emotion in enumerate(EMOTIONS):
            name = f"{chr(65 + person)}{'AM'[person % 2]}.{codes[emotion]}1.{label}.png"
            Image.fromarray(images[labels == label][person]).save(tmp_path / "jaffe" / name)
    ended = evaluate(str(small_run), "--data", str(tmp_path / "jaffe"), "--split", "all", "--out", "of_people")
    assert ended.code == 0
    assert "these 84 faces are of 12" in ended.out
    results = metrics(Path("of_people/all"))
    assert results["groups"] == 12
    low, high = results["accuracy_ci95"]
    assert high - low > np.subtract(*wilson(round(84 * results["accuracy"]), 84)[::-1])  # Student's for twelve
    assert "are of 12" in Path("of_people/all/report.html").read_text()


def test_a_network_that_predicts_contempt_takes_faces_without_it(train, scores, tmp_path):
    images, targets = draw_faces(140, image_size=24)
    for root, names in (("eight", FERPLUS_EMOTIONS), ("seven", EMOTIONS)):
        for row, (image, target) in enumerate(zip(images, targets, strict=True)):
            label = 7 if root == "eight" and row % 10 == 0 else target
            file = tmp_path / root / names[label] / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    (tmp_path / "seven" / "contempt").mkdir()  # of no picture
    on_folder = (*SMALL[2:], "data.split=holdout")
    for network, classes in (("of_eight", 8), ("of_seven", 7)):
        keys = ("data.path=eight", f"data.classes={classes}", f"hydra.run.dir={network}")
        ended = train(*on_folder, *keys)
        assert ended.code == 0, ended.err
    assert "14 images of contempt left out; data.classes=8 takes them" in ended.out
    for data in ("seven", "synthetic"):
        ended = scores("of_eight", "--data", data, "--split", "all", "--out", f"on_{data}")
        assert ended.code == 0, ended.err
    assert list(metrics(tmp_path / "on_seven" / "all")["per_class"]) == list(FERPLUS_EMOTIONS)
    ended = scores("of_seven", "--data", "eight", "--split", "all")
    assert "14 images of contempt left out; a network that predicts contempt takes them" in ended.out
