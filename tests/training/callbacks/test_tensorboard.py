"""The TensorBoard files of a run, loaded by TensorBoard's own reader."""

import csv
import math

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fer.config.settings import AugmentSettings, DataSettings, Origin, TrainSettings
from fer.data.labels import EMOTIONS
from fer.runs.predictions import Scored
from fer.train import main
from fer.training.callbacks.tensorboard import extremes, hyperparameters

LOGGED = (*SMALL, "logger.tensorboard=true")


def events(folder) -> EventAccumulator:
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return read.Reload()


def plugin(read: EventAccumulator, name: str) -> dict[str, bytes]:
    return {tag: read.SummaryMetadata(tag).plugin_data.content for tag in read.PluginTagToContent(name)}


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged") / "out"
    assert main([*LOGGED, "augment.flip=0.25", "logger.projector=true", f"hydra.run.dir={folder}"]) == 0
    return folder


def test_curves_count_epochs_and_agree_with_history(logged):
    read = events(logged)
    with open(logged / "history.csv", newline="") as stream:
        history = list(csv.DictReader(stream))
    for name in ("loss/train", "loss/val", "accuracy/train", "accuracy/val", "macro_f1/val", "learning_rate"):
        scalars = read.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx([float(row[name]) for row in history], rel=1e-4)
    best = metrics(logged)
    assert read.Scalars("best/accuracy")[-1].value == pytest.approx(best["accuracy"], abs=1e-4)
    recall = [read.Scalars(f"recall/{name}") for name in EMOTIONS]
    assert [values[best["best_epoch"] - 1].value for values in recall] == pytest.approx(
        [best["per_class"][name]["recall"] for name in EMOTIONS], abs=1e-4
    )
    assert "epoch" not in read.Tags()["scalars"]


def test_train_and_val_lie_over_each_other(logged):
    (content,) = [read.tensor_proto.string_val[0] for read in events(logged).Tensors("custom_scalars__config__")]
    layout = Layout.FromString(content)
    charts = {chart.title: list(chart.multiline.tag) for part in layout.category for chart in part.chart}
    assert charts["loss"] == ["loss/train", "loss/val"]
    assert charts["accuracy"] == ["accuracy/train", "accuracy/val"]
    assert charts["recall on val"] == [f"recall/{name}" for name in EMOTIONS]


def test_pictures_and_precision_recall_curves(logged):
    read = events(logged)
    pictures = read.Tags()["images"]
    assert set(pictures) == {
        "train/first batch, augmented", "val/confusion matrix", "val/most probable labels", "val/least probable labels"
    }  # fmt: skip
    assert [image.step for image in read.Images("val/confusion matrix")] == [1, 3]  # the epochs take no 20 s
    first = read.Images("train/first batch, augmented")[0]
    assert (first.step, first.width, first.height) == (0, 16 * 28, 28)  # a batch of 16 faces of 24 pixels, gaps of 4
    curve = torch.tensor(np.frombuffer(read.Tensors("precision-recall/happy")[0].tensor_proto.tensor_content, "f4"))
    if not len(curve):
        curve = torch.tensor(list(read.Tensors("precision-recall/happy")[0].tensor_proto.float_val))
    true_positives, false_positives = curve.view(6, -1)[:2]
    assert (true_positives[0], false_positives[0]) == (2, 12)  # at threshold 0: all 14 faces, two of each emotion


def test_hparams_hold_short_names_and_what_was_asked_for(logged):
    contents = plugin(events(logged), "hparams")
    start = next(
        data.session_start_info
        for data in map(HParamsPluginData.FromString, contents.values())
        if data.HasField("session_start_info")
    )
    shown = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
    assert (shown["model"], shown["scheduler"], shown["data"]) == ("mlp", "cosine", "synthetic")
    assert shown["flip"] == 0.25
    assert (shown["lr"], shown["seed"], shown["batch_size"], shown["hidden"]) == (0.002, 0, 16, "[16]")
    assert not {"accelerator", "tensorboard", "logger", "path", "optimizer"} & set(shown)


def test_the_projector_has_every_val_face_with_its_picture(logged):
    (config,) = (logged / "tensorboard").glob("projector_config.pbtxt")
    assert "single_image_dim: 24" in config.read_text()
    (folder,) = (path.parent for path in (logged / "tensorboard").rglob("tensors.tsv"))
    rows = (folder / "metadata.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["label", "predicted", "outcome", "row"]
    with open(logged / "predictions.csv", newline="") as stream:
        predicted = list(csv.DictReader(stream))
    assert [row.split("\t")[0] for row in rows[1:]] == [row["target"] for row in predicted]
    assert [row.split("\t")[3] for row in rows[1:]] == [row["row"] for row in predicted]
    assert np.loadtxt(folder / "tensors.tsv").shape == (14, 16)  # what the last layer is given
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (4 * 24, 4 * 24)


@pytest.mark.slow
def test_a_resumed_run_logs_each_epoch_once(train, tmp_path, monkeypatch):
    from fer.config.errors import Interrupted
    from fer.training.callbacks.checkpointing import Saver

    save = Saver.on_train_epoch_end

    def then_stop(self, trainer, module):
        save(self, trainer, module)
        if trainer.current_epoch == 1:
            raise Interrupted("stopped by the test", 130)

    monkeypatch.setattr(Saver, "on_train_epoch_end", then_stop)
    assert train(*LOGGED, "hydra.run.dir=out").code == 130
    monkeypatch.setattr(Saver, "on_train_epoch_end", save)
    ended = train("resume=out")
    assert ended.code == 0, ended.err
    read = events(tmp_path / "out")
    assert [scalar.step for scalar in read.Scalars("accuracy/val")] == [1, 2, 3]
    assert [image.step for image in read.Images("val/confusion matrix")] == [1, 3]
    best = max(scalar.value for scalar in read.Scalars("accuracy/val"))
    assert read.Scalars("best/accuracy")[-1].value == pytest.approx(best)
    assert [scalar.step for scalar in read.Scalars("best/accuracy")] == [0, 1, 2, 3]  # 0 is the entry of HPARAMS
    assert len(read.Images("train/first batch, augmented")) == 1


def test_long_runs_draw_now_and_then(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.training.callbacks.tensorboard.PICTURES", 2)
    assert train(*LOGGED, "hydra.run.dir=out").code == 0
    steps = [image.step for image in events(tmp_path / "out").Images("val/confusion matrix")]
    assert steps == [2, 3]  # every second, and the last


def test_the_last_epoch_is_drawn_where_early_stopping_ends_the_run(train, tmp_path):
    settings = ("early_stopping=1", "optimizer.lr=1e-9", "trainer.max_epochs=90")
    assert train(*LOGGED, *settings, "hydra.run.dir=out").code == 0
    read = events(tmp_path / "out")
    epochs = [scalar.step for scalar in read.Scalars("accuracy/val")]
    assert len(epochs) < 90 // 30  # before the first epoch that is drawn anyway
    assert [image.step for image in read.Images("val/confusion matrix")] == epochs[-1:]


@pytest.mark.slow
def test_short_epochs_are_drawn_once_in_20_seconds(train, tmp_path, epochs_take):
    epochs_take(8.0)
    assert train(*LOGGED, "trainer.max_epochs=5", "hydra.run.dir=out").code == 0
    assert [image.step for image in events(tmp_path / "out").Images("val/confusion matrix")] == [1, 4, 5]


@pytest.mark.slow
def test_a_limited_validation_shows_the_faces_that_it_saw(train, tmp_path):
    assert train(*LOGGED, "data.synthetic_count=700", "trainer.limit_val=0.5", "hydra.run.dir=out").code == 0
    assert "val/most probable labels" in events(tmp_path / "out").Tags()["images"]


def test_a_projector_without_tensorboard_is_refused(train):
    assert "set logger.tensorboard=true" in train(*SMALL, "logger.projector=true").line


@pytest.mark.slow
def test_pictures_change_nothing_of_the_training(train, tmp_path):
    assert train(*SMALL, "hydra.run.dir=plain").code == 0
    assert train(*LOGGED, "logger.report=true", "hydra.run.dir=drawn").code == 0
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "drawn")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_extremes_are_by_the_probability_of_the_label():
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    scored = Scored(np.zeros((3, 4, 4), np.uint8), np.array([0, 0, 1]), chances, np.arange(3), ("a", "b"))
    worst, best = extremes(scored, 2)
    assert (worst.tolist(), best.tolist()) == ([1, 2], [0, 2])


def test_a_short_name_that_two_keys_share_keeps_its_section():
    settings = TrainSettings(
        data=DataSettings(),
        model={"name": "cnn", "dropout": 0.1},
        loss={"name": "cross_entropy"},
        optimizer={"name": "adamw", "lr": 0.1, "weight_decay": 0.2},
        scheduler={"name": "step", "lr": 3},
        augment=AugmentSettings(),
    )
    shown = hyperparameters(settings, Origin(overridden=["scheduler.lr", "optimizer.lr", "data.path"]))
    assert shown["lr"] == 0.1
    assert shown["scheduler.lr"] == 3
    assert "path" not in shown
    assert not any(isinstance(value, float) and math.isnan(value) for value in shown.values())
