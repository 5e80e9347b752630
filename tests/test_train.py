"""``python -m fer.train`` as a user meets it."""

import csv
import math
import re
import shlex
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics

import fer
from fer.config.errors import FerError
from fer.config.settings import DataSettings, TrainSettings
from fer.data.labels import EMOTIONS
from fer.data.readers.drawing import draw_faces
from fer.metrics.table import SAMPLED
from fer.models.trainable import Trainable
from fer.system.files import read_history

NETWORKS = (
    "cnn, convnext, efficientnet, mini_xception, mlp, preact_resnet, residual_masking, resnet18, resnet9, timm, vgg16, "
    "vgg19, vgg_fer"
)
FIELDS = {
    "schema", "split", "n", *(name for metric in SAMPLED for name in (metric, f"{metric}_ci95")), "ece",
    "ece_if_calibrated", "ece_if_calibrated_mean", "ece_rms_debiased", "ece_adaptive", "ece_adaptive_if_calibrated",
    "ece_adaptive_if_calibrated_mean", "ece_adaptive_rms_debiased", "per_class", "confusion", "temperature",
    "temperature_fitted_on", "calibrated", "selective", "seen_in_training", "clean", "sets", "best_epoch", "epochs",
    "planned_epochs", "wall_seconds", "train_seconds", "batch_size", "training_precision", "images_per_second",
    "peak_memory_mb", "parameters", "architecture", "pretrained", "seed", "dataset", "versions", "commit", "hardware",
    "finished", "command",
}  # fmt: skip


def write_csv(file, count=140, size=48):
    images, targets = draw_faces(count, seed=1, image_size=size)
    usages = ["Training"] * (count * 8 // 10) + ["PublicTest"] * (count // 10) + ["PrivateTest"] * (count // 10)
    rows = (f"{t},{' '.join(map(str, i.ravel()))},{u}" for i, t, u in zip(images, targets, usages, strict=True))
    file.write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    return images, targets


def test_a_run_leaves_what_it_promises(small_run):
    results = metrics(small_run)
    assert set(results) == FIELDS
    assert (results["split"], results["n"], results["epochs"], results["seed"]) == ("val", 14, 3, 0)
    assert results["dataset"]["name"] == "synthetic"
    assert results["dataset"]["stand_in"] is False
    assert results["dataset"]["counts"]["train"]["angry"] == 16
    with open(small_run / "history.csv", newline="") as stream:
        history = list(csv.DictReader(stream))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["accuracy/train"]) > 1 / 7
    with open(small_run / "predictions.csv", newline="") as stream:
        predictions = list(csv.DictReader(stream))
    assert len(predictions) == 14
    assert list(predictions[0]) == ["row", "split", "target", "predicted", *(f"p_{name}" for name in EMOTIONS)]
    right = sum(row["target"] == row["predicted"] for row in predictions)
    assert right / 14 == pytest.approx(results["accuracy"])
    assert sum(float(predictions[0][f"p_{name}"]) for name in EMOTIONS) == pytest.approx(1, abs=1e-4)
    assert {"best.ckpt", "last.ckpt"} == {file.name for file in (small_run / "checkpoints").iterdir()}
    assert [file.name for file in small_run.rglob("*.part")] == []


def test_best_epoch_is_the_one_with_the_best_monitor(small_run):
    with open(small_run / "history.csv", newline="") as stream:
        values = [float(row["accuracy/val"]) for row in csv.DictReader(stream)]
    assert metrics(small_run)["best_epoch"] == values.index(max(values)) + 1
    assert metrics(small_run)["accuracy"] == pytest.approx(max(values), abs=1e-4)


def test_load_needs_nothing_but_the_file(small_run, tmp_path):
    file = tmp_path / "alone.ckpt"
    (small_run / "checkpoints" / "best.ckpt").rename(file)
    model = fer.load(file)
    assert not model.training
    assert model.hparams["classes"] == list(EMOTIONS)
    images, _ = draw_faces(4, image_size=24)
    faces = torch.from_numpy(images)[:, None]
    assert model(faces).shape == (4, 7)
    assert torch.allclose(model(faces), model(faces.float() / 255), atol=1e-6)
    assert torch.load(file, weights_only=True)["fer"]["architecture"] == "mlp"


def test_lightnings_own_loading_works_too(small_run):
    from fer.models import MLP
    from fer.models.trainable import trainable

    file = small_run / "checkpoints" / "best.ckpt"
    ours, theirs = fer.load(file), trainable(MLP).load_from_checkpoint(file).eval()
    faces = torch.rand(2, 1, 24, 24)
    assert torch.equal(ours(faces), theirs(faces))


def test_without_data_a_plain_run_says_loudly_that_it_draws_faces(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    ended = train(*SMALL[1:], "hydra.run.dir=drawn")
    assert ended.code == 0, ended.err
    assert "NO FER2013 FOUND" in ended.out
    assert "kaggle" in ended.out.lower()
    assert metrics(tmp_path / "drawn")["dataset"]["stand_in"] is True
    checkpoint = torch.load(tmp_path / "drawn" / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["fer"]["dataset"]["stand_in"] is True
    assert "path: null" in (tmp_path / "drawn" / ".hydra" / "config.yaml").read_text()


def test_fer_data_is_found_and_trained_on(train, tmp_path, monkeypatch):
    write_csv(tmp_path / "fer2013.csv")
    monkeypatch.setenv("FER_DATA", str(tmp_path / "fer2013.csv"))
    ended = train(
        *SMALL[1:2], "data.batch_size=16", "model=cnn", "model.channels=[4,8]", *SMALL[6:], "hydra.run.dir=out"
    )
    assert ended.code == 0, ended.err
    assert "drawn" not in ended.out.lower()
    dataset = metrics(tmp_path / "out")["dataset"]
    assert dataset["path"].endswith("fer2013.csv")
    assert sum(dataset["counts"]["val"].values()) == 14


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data.path=nowhere.csv"], "data.path=nowhere.csv: no such file or folder"),
        (["model.hiden=3"], "model.hiden: no such key; did you mean 'model.hidden'?"),
        (["model=mlp", "model.dropuot=3"], "did you mean 'model.dropout'?"),
        (["max_epochs=3"], "did you mean 'trainer.max_epochs'?"),
        (["trainer.epochs=3"], "did you mean 'trainer.max_epochs'?"),
        (["lr=3"], "did you mean 'optimizer.lr'?"),
        (
            ["model=cn"],
            f"model=cn: no such choice; use one of {NETWORKS}; did you mean 'cnn'?",
        ),
        (["scheduler=cosin"], "did you mean 'cosine'?"),
        (["+data.color=1"], "+data.color=1: keys cannot be added"),
        (["++seed=1"], "keys cannot be added"),
        (["~loss"], "keys cannot be deleted"),
        (["data.batch_size=0"], "data.batch_size=0: out of range; it must be at least 1"),
        (["data.batch_size=abc"], "data.batch_size='abc': expected auto or a whole number"),
        (["data.batch_size=1.5"], "expected auto or a whole number"),
        (["optimizer.lr=-1"], "optimizer.lr=-1: out of range; it must be above 0"),
        (["optimizer.lr=0"], "out of range"),
        (["data.ferplus_rule=soft"], "set data.labels=ferplus"),
        (["augment.flip=1.2"], "augment.flip=1.2: out of range; it must be at least 0 and at most 1"),
        (["augment.flip=true"], "expected a number"),
        (["model.dropout=1"], "model.dropout=1: out of range"),
        (["model=cnn", "model.channels=[]"], "expected at least one block"),
        (["model=cnn", "model.channels=[8,8,8,8,8,8]"], "cannot be halved 6 times"),
        (["data.split=random"], "expected one of official, as_given, holdout"),
        (["monitor=accuracy/test"], "on the test split; use one of accuracy/val"),
        (["monitor=accuracy"], "use one of accuracy/val"),
        (["seed=-1"], "seed=-1: out of range"),
        (["seed=5000000000"], "out of range"),
        (["data.batch_size=1"], "data.batch_size=1: batch normalisation cannot train on one face"),
        (["augment.crop_padding=24"], "augment.crop_padding=24: out of range; expected at most"),
        (
            ["model=null"],
            f"model=null: expected one of {NETWORKS}",
        ),
        (["optimizer=3"], "optimizer=3: expected one of adam, adamw, muon, sgd"),
        (["--foo"], "--foo"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
        (["trainer.plugins=2"], "trainer.plugins: no such key"),
        (["trainer.max_epochs=0"], "out of range"),
        (["trainer.threads=20000"], "trainer.threads=20000: out of range; it must be at least 1 and at most 1024"),
        (
            ["model.name=vgg"],
            f"model 'vgg' is not registered; use one of {NETWORKS}",
        ),
        (["optimizer.name=os.system"], "optimizer 'os.system' is not registered"),
        (["init_from=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["init_from=https://example.org/x.ckpt"], "read from files only"),
        (["plugins=[no_such_module]"], "plugins=no_such_module: could not be imported"),
        (["data.path=a,b"], "which needs -m"),
        (["seed=1", "seed"], "seed"),
        (["hydra/launcher=slurm"], "hydra/launcher=slurm: works only with -m"),
        (["hydra.launcher.partition=gpu"], "hydra.launcher.partition=gpu: works only with -m"),
        (["hydra.sweep.dir=elsewhere"], "add -m, or leave it out"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_1(train, tmp_path, arguments, says):
    ended = train(*SMALL[:4], *arguments, "hydra.run.dir=out")
    assert ended.code == 1
    assert says in ended.line
    assert ended.line.startswith("fer.train: ")
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_refused_configuration_leaves_no_folder(train, tmp_path):
    assert train(*SMALL, "optimizer.lr=a", "seed=-1", "hydra.run.dir=out").code == 1
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there_is_an_error(train, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ended = train(*SMALL, "trainer.accelerator=gpu")
    assert (ended.code, "finds no GPU" in ended.line) == (1, True)


def test_fer_data_that_is_missing_is_an_error(train, monkeypatch):
    monkeypatch.setenv("FER_DATA", "missing.csv")
    ended = train(*SMALL[1:])
    assert (ended.code, "$FER_DATA=missing.csv: no such file" in ended.line) == (1, True)


DEAD_END = """
from torch import nn
from fer.models import EmotionClassifier, register

@register("explodes")
class Explodes(EmotionClassifier):
    def __init__(self, at_step: int = 9, **contract):
        super().__init__(**contract)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(self.image_size**2, self.num_classes))

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.global_step >= self.hparams["at_step"] else loss
"""


@pytest.mark.parametrize(("more", "step"), [((), 10), (("data.batch_size=4", "trainer.accumulate=4"), 10)])
def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(train, tmp_path, monkeypatch, more, step):
    (tmp_path / "dead_end.py").write_text(DEAD_END)
    monkeypatch.syspath_prepend(tmp_path)
    keys = (
        "plugins=[dead_end]",
        "model=explodes",
        "scheduler=cosine",
        "scheduler.warmup_epochs=0",
        "optimizer.lr=0.002",
    )
    ended = train(*SMALL[:4], *keys, *SMALL[6:], *more, "hydra.run.dir=out")
    assert ended.code == 1
    rate = 0.002 * 0.5 * (1 + math.cos(math.pi * (step - 1) / 21))  # of that step, not of the epoch's end
    assert f"the loss became NaN or infinite at step {step} (epoch 2, learning rate {rate:.3g})" in ended.line
    state = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


PLUGIN = """
from torch import nn
from fer.models import EmotionClassifier, register

@register("tiny")
class Tiny(EmotionClassifier):
    def __init__(self, width: int = 8, **contract):
        super().__init__(**contract)
        self.net = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                 nn.Linear(width, self.num_classes))
"""


def test_a_users_own_network_joins_by_plugin(train, evaluate, tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    base = (*SMALL[:4], "plugins=[my_nets]", "model=tiny", *SMALL[6:])
    assert train(*base, "model.width=4", "hydra.run.dir=out").code == 0
    assert metrics(tmp_path / "out")["parameters"] == 4 * 9 + 4 + 4 * 7 + 7
    assert "model.widht: no such key" in train(*base, "model.widht=4").line
    assert "expected a whole number" in train(*base, "model.width=a").line
    assert evaluate("out", "--plugins", "my_nets").code == 0


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("nn.Linear(width, self.num_classes)", "nn.Linear(width, 10)", r"returns (2, 10) for 2 faces; expected (2, 7)"),
        ("nn.Linear(width, self.num_classes)", "nn.Linear(99, 7)", "cannot take faces of shape (2, 1, 24, 24)"),
    ],
)
def test_a_network_with_the_wrong_shape_is_refused_before_it_trains(train, tmp_path, monkeypatch, before, after, says):
    (tmp_path / "bad_nets.py").write_text(PLUGIN.replace(before, after))
    monkeypatch.syspath_prepend(tmp_path)
    ended = train(*SMALL[:4], "plugins=[bad_nets]", "model=tiny", *SMALL[6:], "hydra.run.dir=out")
    assert ended.code == 1
    assert says in ended.line
    assert not (tmp_path / "out" / "history.csv").exists()


def test_fine_tuning_starts_from_the_given_weights(train, small_run, tmp_path):
    again = train(*SMALL, f"init_from={small_run}", "optimizer.lr=1e-12", "trainer.max_epochs=1", "hydra.run.dir=tuned")
    assert again.code == 0, again.err
    before = torch.load(small_run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "tuned" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.allclose(before["net.1.weight"], after["net.1.weight"], atol=1e-6)
    other = train(*SMALL, f"init_from={small_run}", "model.hidden=[8]", "hydra.run.dir=other")
    assert (other.code, "of another shape than this one; set model.hidden=[16]" in other.line) == (1, True)
    other = train(*SMALL, f"init_from={small_run}", "data.crop=20", "hydra.run.dir=cropped")
    assert (other.code, "data.crop=null" in other.line) == (1, True), other.line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data.fold=1"], ("data.fold=1", "data.split=official", "data.split=folds")),
        (["data.split=holdout", "data.folds=3"], ("data.folds=3", "data.split=holdout", "data.split=folds")),
        (["data.split_seed=1"], ("data.split_seed=1", "data.split=holdout")),
        (["data.val_fraction=0.3"], ("data.val_fraction=0.3", "data.split=as_given")),
        (["data.keep_duplicates_together=true"], ("data.keep_duplicates_together=true", "data.split=holdout")),
        (["trainer.restarts=3"], ("trainer.restarts=3", "trainer.devices=2", "resume=")),
        (["trainer.overfit_batches=1", "trainer.limit_train=0.5"], ("trainer.limit_train=0.5", "overfit_batches=1")),
        (["trainer.overfit_batches=1", "trainer.limit_val=0.5"], ("trainer.limit_val=0.5", "overfit_batches=1")),
        (["trainer.overfit_batches=1", "data.sampler=balanced"], ("data.sampler=balanced", "overfit_batches=1")),
        (["trainer.gradient_clip_by=value"], ("trainer.gradient_clip_by=value", "trainer.gradient_clip,")),
        (["trainer.sync_batchnorm=false"], ("trainer.sync_batchnorm=false", "trainer.devices=2")),
        (["scheduler=plateau", "stages=[[24,3]]"], ("stages=[[24, 3]]", "scheduler=plateau")),
    ],
)
def test_a_setting_without_effect_is_refused(train, arguments, says):
    ended = train(*SMALL, *arguments)
    assert ended.code == 1
    for words in says:
        assert words in ended.line


def test_a_further_data_set_may_have_the_split_that_a_key_concerns():
    sections = {name: {"name": name} for name in ("model", "loss", "optimizer", "scheduler")}
    TrainSettings(data=DataSettings(more=["b"], split_seed=1, keep_duplicates_together=True), **sections)
    TrainSettings(data=DataSettings(more=[{"path": "b", "split": "folds"}], fold=1), **sections)
    with pytest.raises(FerError, match="data.fold=1"):
        TrainSettings(data=DataSettings(more=["b"], fold=1), **sections)


def test_a_part_of_the_faces_and_an_early_stop_are_stated(train, tmp_path):
    """The planned epochs are billions, of which no list is made."""
    ended = train(
        *SMALL, "data.batch_size=28", "trainer.limit_train=0.5", "early_stopping=1", "optimizer.lr=1e-12",
        "trainer.max_epochs=6", "budget.until=2090-01-01T00:00", "trainer.limit_val=0.9", "logger.report=true",
        "hydra.run.dir=out",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "epochs of 56 of 112 faces" in ended.out
    results = metrics(tmp_path / "out")
    assert results["epochs"] < results["planned_epochs"]
    assert f"(stopped early, {results['planned_epochs']:,} planned)".replace(",", "") in ended.out.replace(",", "")
    report = (tmp_path / "out" / "report.html").read_text()
    assert "trainer.limit_train=0.5" in report
    assert "over a part of the" not in report + ended.out  # 14 faces of val are one batch, which the limit takes


@pytest.mark.parametrize(
    "arguments",
    [
        ["trainer.overfit_batches=1"],
        ["trainer.limit_train=0.3", "trainer.limit_val=0.5"],
        ["early_stopping=1", "optimizer.lr=1e-9", "trainer.max_epochs=6"],
        ["loss.class_weights=sqrt", "monitor=macro_f1/val", "trainer.gradient_clip=1"],
        ["trainer.gradient_clip=0.1", "trainer.gradient_clip_by=value"],
        ["optimizer=sgd", "scheduler=onecycle", "data.split=holdout"],
        ["optimizer=adam", "scheduler=step"],
        ["trainer.channels_last=false", "trainer.allocator=false", "trainer.threads=1", "logger.tensorboard=true"],
    ],
)
def test_switches_run_to_the_end(train, tmp_path, arguments):
    ended = train(*SMALL, *arguments, "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    assert math.isfinite(metrics(tmp_path / "out")["nll"])
    if "early_stopping=1" in arguments:
        assert metrics(tmp_path / "out")["epochs"] < 6
    if "logger.tensorboard=true" in arguments:
        assert list((tmp_path / "out" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_overfitting_one_batch_learns_it_by_heart(train, tmp_path):
    settings = (
        "trainer.overfit_batches=1",
        "trainer.max_epochs=150",
        "augment=none",
        "model.dropout=0",
        "optimizer.lr=0.03",
    )
    assert train(*SMALL, *settings, "hydra.run.dir=out").code == 0
    with open(tmp_path / "out" / "history.csv", newline="") as stream:
        assert float(list(csv.DictReader(stream))[-1]["accuracy/train"]) == 1.0


@pytest.mark.slow
def test_tensorboard_lays_train_and_val_over_each_other(train, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    write_csv(tmp_path / "fer2013.csv")
    assert train(*SMALL[2:-1], "data.path=fer2013.csv", "hydra.run.dir=out").code == 0
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"loss/train", "loss/val", "accuracy/train", "accuracy/val", "learning_rate"} <= set(tags)
    assert len(events.Scalars("accuracy/val")) == 3
    started = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert HParamsPluginData.FromString(started).session_start_info.hparams["data"].string_value == "fer2013"


def test_a_split_by_folders_and_a_size_of_ones_own(train, tmp_path):
    from PIL import Image

    images, targets = draw_faces(70, seed=2, image_size=60)
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        folder = tmp_path / "tree" / ("train" if number < 56 else "validation") / EMOTIONS[target]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    ended = train(*SMALL[2:], "data.path=tree", "data.split=as_given", "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    assert metrics(tmp_path / "out")["n"] == 14
    refused = train(*SMALL[2:], "data.path=tree", "hydra.run.dir=out2")
    assert "has no official split (Usage) for 70 of 70 faces" in refused.line


def test_skipped_rows_are_reported_and_listed(train, tmp_path):
    write_csv(tmp_path / "fer2013.csv")
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    lines[5] = lines[5].replace(" ", " 999 ", 1)
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    refused = train(*SMALL[2:], "data.path=fer2013.csv", "hydra.run.dir=refused")
    assert "fer2013.csv, line 6: pixel 2 is '999'" in refused.line
    ended = train(*SMALL[2:], "data.path=fer2013.csv", "data.on_bad=skip", "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    assert "kipped: 1 bad row or file" in ended.out
    assert "line 6" in metrics(tmp_path / "out")["dataset"]["skipped"][0]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--help", "model"], ["--cfg", "job"], ["model.hiden=3"], ["-m", "model=cn"]]
)
def test_answers_at_once_without_torch(arguments):
    code = (
        "import sys, runpy, atexit\n"
        "atexit.register(lambda: print('TORCH' if 'torch' in sys.modules else 'LIGHT'))\n"
        f"sys.argv = ['fer.train', *{arguments!r}]\n"
        "runpy.run_module('fer.train', run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.strip().endswith("LIGHT"), ended.stdout + ended.stderr
    assert ended.returncode == (0 if arguments[0].startswith("--") else 1)
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_saves_and_exits_130(tmp_path):
    command = [sys.executable, "-m", "fer.train", *SMALL, "trainer.max_epochs=100000", "hydra.run.dir=out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume with: python -m fer.train resume=" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_kill_9_at_any_time_leaves_a_checkpoint_that_loads(tmp_path):
    command = [sys.executable, "-m", "fer.train", *SMALL, "trainer.max_epochs=100000", "hydra.run.dir=out"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(20):
        fer.load(last)
        time.sleep(0.02)
    process.kill()
    process.wait()
    fer.load(last)


@pytest.mark.slow
def test_the_default_cnn_reads_drawn_faces_and_the_mlp_does_worse(train, tmp_path):
    for model in ("cnn", "mlp"):
        settings = (
            "data=synthetic",
            "data.image_size=24",  # a quarter of the time, and as far apart
            f"model={model}",
            "trainer.max_epochs=6",
            "logger=none",
            f"hydra.run.dir={model}",
        )
        assert train(*settings).code == 0
    cnn, mlp = (metrics(tmp_path / model)["accuracy"] for model in ("cnn", "mlp"))
    assert 0.65 < cnn < 0.97
    assert mlp < cnn - 0.1


def test_predictions_point_to_the_rows_of_the_source(train, tmp_path):
    images, targets = write_csv(tmp_path / "fer2013.csv")
    assert train(*SMALL[2:], "data.image_size=48", "data.path=fer2013.csv", "hydra.run.dir=out").code == 0
    model = fer.load(tmp_path / "out")
    with open(tmp_path / "out" / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["row"]) for row in rows] == list(range(112, 126))
    for row in rows:
        index = int(row["row"])
        assert EMOTIONS.index(row["target"]) == targets[index]
        with torch.inference_mode():
            expected = model(torch.from_numpy(images[index])[None, None]).softmax(1)[0].numpy()
        given = np.array([float(row[f"p_{name}"]) for name in EMOTIONS])
        assert np.abs(given - expected).max() < 1e-4


def test_a_face_left_alone_in_the_last_batch_does_not_stop_the_run(train, tmp_path):
    ended = train(*SMALL, "data.batch_size=37", "hydra.run.dir=out")  # 112 faces: three batches and one face
    assert ended.code == 0, ended.err


@pytest.mark.slow
def test_options_may_stand_anywhere_and_a_folder_of_ones_own_is_named_again(train, tmp_path):
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "slow.yaml").write_text("name: sgd\nlr: 0.001\n")
    ended = train(*SMALL, "--config-dir", "mine", "optimizer=slow", "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    assert "lr: 0.001" in (tmp_path / "out" / ".hydra" / "config.yaml").read_text()
    command = shlex.split(metrics(tmp_path / "out")["command"])[3:]  # makes the run again, the folder included
    again = train(*command, "hydra.run.dir=again")
    assert again.code == 0, again.err
    assert metrics(tmp_path / "again")["nll"] == metrics(tmp_path / "out")["nll"]
    (tmp_path / "out" / "metrics.json").unlink()
    assert train("resume=out").line.endswith(f"add: --config-dir {tmp_path / 'mine'}")
    assert train("resume=out", "--config-dir", "mine").code == 0


def test_plugin_arguments_without_a_default_must_be_given(train, tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text(PLUGIN.replace('"tiny"', '"needy"').replace("width: int = 8", "width: int"))
    monkeypatch.syspath_prepend(tmp_path)
    base = (*SMALL[:4], 'plugins=["needy"]', "model=needy", *SMALL[6:])
    assert "model.width has no default; set it with model.width=" in train(*base, "hydra.run.dir=out").line
    assert train(*base, "model.width=3", "hydra.run.dir=out2").code == 0


def test_a_limited_validation_sees_every_class_of_a_tree(tmp_path):
    from fer.data.dataset import FaceDataset

    targets = np.repeat(np.arange(7), 20).astype(np.int8)
    images = np.repeat(targets[:, None, None].astype(np.uint8), 4, axis=1).repeat(4, axis=2)
    mixed = FaceDataset(images, targets).shuffled()
    assert len(set(mixed.targets[:32].tolist())) == 7
    assert torch.equal(mixed.images[:, 0, 0, 0].long(), mixed.targets)


def test_exact_duplicates_across_splits_are_counted(train, tmp_path):
    write_csv(tmp_path / "fer2013.csv")
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    for val, train_row in ((113, 1), (114, 2), (115, 113)):  # the third repeats a val face's new picture
        emotion, _, usage = lines[val].split(",")
        lines[val] = ",".join([emotion, lines[train_row].split(",")[1], usage])
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    assert train(*SMALL[2:], "data.path=fer2013.csv", "hydra.run.dir=out").code == 0
    assert "3 of 14 val faces have an exact duplicate in train" in metrics(tmp_path / "out")["dataset"]["notes"]


@pytest.mark.parametrize(("has", "said"), [(False, True), (True, False), (None, False)])
def test_a_processor_that_is_slow_in_bf16_is_reported(train, tmp_path, monkeypatch, has, said):
    monkeypatch.setattr("fer.system.machine.multiplies_bf16", lambda: has)
    ended = train(*SMALL, "trainer.precision=bf16", "trainer.max_epochs=1", "hydra.run.dir=half")
    assert ("bf16 (this processor has no bf16 instructions: trainer.precision=32 is faster here)" in ended.out) == said
    assert metrics(tmp_path / "half")["training_precision"] == "bf16"
    chosen = train(*SMALL, "trainer.max_epochs=1", "hydra.run.dir=chosen").out
    assert re.search(r"on the CPU with \d+ threads?, 32 bits$", chosen, re.MULTILINE)
    assert metrics(tmp_path / "chosen")["training_precision"] == 32


def test_clipping_walks_the_network_once_a_fit(train, monkeypatch):
    walks, clip, parameters = [], Trainable.configure_gradient_clipping, torch.nn.Module.parameters

    def counted(self, *arguments, **named):
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Module, "parameters", lambda self: walks.append(1) or parameters(self))
            clip(self, *arguments, **named)

    monkeypatch.setattr(Trainable, "configure_gradient_clipping", counted)
    assert train(*SMALL, "trainer.gradient_clip=0.1").code == 0
    assert len(walks) == 1


def test_gradients_are_clipped_under_bf16_too(train, tmp_path):
    ended = train(*SMALL, "trainer.precision=bf16", "trainer.gradient_clip=1e-9", "hydra.run.dir=clipped")
    assert ended.code == 0, ended.err
    assert "bf16" in next(line for line in ended.out.splitlines() if "on the CPU" in line)
    assert train(*SMALL, "trainer.precision=bf16", "hydra.run.dir=free").code == 0
    losses = [
        [float(row["loss/train"]) for row in read_history(tmp_path / run / "history.csv")]
        for run in ("clipped", "free")
    ]
    assert losses[0] != losses[1]
