"""The times at which checkpoints are written, and the contents of delayed ones."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, metrics

from fer.models import checkpoints
from fer.models.trainable import Trainable
from fer.training.callbacks import checkpointing
from fer.training.callbacks.checkpointing import Saver


@pytest.fixture
def written(monkeypatch):
    """Name and epoch of the written checkpoints, in order; the best epoch that each names must have a file."""
    save, files = checkpointing.AtomicCheckpointIO.save_checkpoint, []

    def noted(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        if "temperature" in checkpoint["fer"]:  # added when the training has ended
            return
        files.append((path.name, checkpoint["epoch"]))
        if path.name == "last.ckpt" and path.with_name("best.ckpt").exists():
            best = checkpoints.read(path.with_name("best.ckpt"))
            assert checkpoint["callbacks"]["Saver"]["best_epoch"] == best["epoch"]

    monkeypatch.setattr(checkpointing.AtomicCheckpointIO, "save_checkpoint", noted)
    return files


def history(folder, name="accuracy/val"):
    header, *rows = ((folder / "history.csv").read_text()).splitlines()
    return [float(row.split(",")[header.split(",").index(name)]) for row in rows]


@pytest.mark.slow
def test_short_epochs_are_written_every_30_seconds_and_at_the_end(train, tmp_path, epochs_take, written):
    epochs_take(0.625)
    assert train(*SMALL, "trainer.max_epochs=60", "hydra.run.dir=out").code == 0
    values = history(tmp_path / "out")
    lasts = [epoch for name, epoch in written if name == "last.ckpt"]
    assert lasts == [0, 48, 59]
    bests = [values.index(max(values[: last + 1])) for last in lasts]  # the best epoch that each of them names
    assert written == [
        pair
        for index, last in enumerate(lasts)
        for pair in ([("best.ckpt", bests[index])] if bests[index] not in bests[:index] else []) + [("last.ckpt", last)]
    ]
    assert metrics(tmp_path / "out")["best_epoch"] == bests[-1] + 1


def test_long_epochs_are_written_each(train, tmp_path, epochs_take, written):
    epochs_take(40.0)
    assert train(*SMALL, "trainer.max_epochs=4", "hydra.run.dir=out").code == 0
    values = history(tmp_path / "out")
    better = [epoch for epoch, value in enumerate(values) if value > max(values[:epoch], default=-1)]
    assert written == [
        pair
        for epoch in range(4)
        for pair in ([("best.ckpt", epoch)] if epoch in better else []) + [("last.ckpt", epoch)]
    ]


def without_times(checkpoint):
    """A checkpoint without times and other entries that differ between runs."""
    callbacks = {name: state for name, state in checkpoint["callbacks"].items() if name not in ("Stopwatch", "History")}
    rows = [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
        for row in checkpoint["callbacks"]["History"]["rows"]
    ]
    return {**checkpoint, "callbacks": callbacks, "rows": rows}


def flat(value, name=""):
    """Name -> number, text or tensor in nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: one for inner in value for key, one in flat(value[inner], f"{name}/{inner}").items()}
    if isinstance(value, list | tuple):
        return {key: one for index, inner in enumerate(value) for key, one in flat(inner, f"{name}/{index}").items()}
    return {name: value}


@pytest.mark.parametrize(
    "more",
    [
        ("model=cnn", "model.channels=[4,4]", "ema=0.9"),
        pytest.param(("model=mlp", "optimizer=muon"), marks=pytest.mark.slow),
    ],
)
def test_what_is_written_later_is_what_would_have_been_written_at_once(train, tmp_path, monkeypatch, more):
    settings = (*SMALL[:4], *more, *SMALL[6:], "optimizer.lr=0.01", "trainer.max_epochs=5", "early_stopping=5")
    monkeypatch.setattr(Saver, "is_better", lambda self, value, epoch: epoch < 3)
    for name, seconds in (("later", 1e9), ("at_once", 0.0)):
        monkeypatch.setattr("fer.training.callbacks.checkpointing.WRITE_EVERY", seconds)
        assert train(*settings, "scheduler=plateau", f"hydra.run.dir={name}").code == 0
    assert metrics(tmp_path / "later")["best_epoch"] == 3
    for file in ("best.ckpt", "last.ckpt"):
        later, at_once = (
            flat(without_times(checkpoints.read(tmp_path / name / "checkpoints" / file)))
            for name in ("later", "at_once")
        )
        assert later.keys() == at_once.keys()
        for name, value in at_once.items():
            same = torch.equal(later[name], value) if isinstance(value, torch.Tensor) else later[name] == value
            assert same, (file, name)


@pytest.mark.parametrize(("monitor", "better", "worse"), [("accuracy/val", 0.6, 0.4), ("loss/val", 0.4, 0.6)])
def test_of_equal_epochs_the_first_is_the_best(monitor, better, worse, tmp_path):
    saver = Saver(tmp_path, monitor)
    assert saver.is_better(0.5, epoch=0)
    saver.best_value, saver.best_epoch = 0.5, 0
    assert [saver.is_better(value, epoch=1) for value in (worse, 0.5, better)] == [False, False, True]


def test_equal_epochs_leave_the_first_ones_checkpoint(train, tmp_path):
    """At a rate at which no weight changes in 32 bits all epochs are equal."""
    assert train(*SMALL, "optimizer.lr=1e-30", "hydra.run.dir=out").code == 0
    assert len(set(history(tmp_path / "out"))) == 1
    assert metrics(tmp_path / "out")["best_epoch"] == 1
    assert checkpoints.read(tmp_path / "out" / "checkpoints" / "best.ckpt")["epoch"] == 0


def test_a_loss_that_is_no_number_leaves_the_epochs_before_it(train, tmp_path, monkeypatch):
    step = Trainable.training_step

    def spoilt(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.global_step == 16 else loss

    monkeypatch.setattr(Trainable, "training_step", spoilt)
    assert "became NaN" in train(*SMALL, "hydra.run.dir=out").line
    last, best = (checkpoints.read(tmp_path / "out" / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt"))
    assert (last["epoch"], last["global_step"]) == (1, 14)
    values = history(tmp_path / "out")
    assert best["epoch"] == last["callbacks"]["Saver"]["best_epoch"] == values[:2].index(max(values[:2]))


def test_a_signal_writes_the_best_epoch_that_waits(train, tmp_path, monkeypatch, written):
    step = Trainable.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == 16:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Trainable, "training_step", interrupted)
    monkeypatch.setattr(Saver, "is_better", lambda self, value, epoch: True)
    assert train(*SMALL, "hydra.run.dir=out").code == 128 + signal.SIGTERM
    assert written == [("best.ckpt", 0), ("last.ckpt", 0), ("best.ckpt", 1), ("last.ckpt", 2)]


def test_what_cannot_be_written_at_an_exception_does_not_hide_it(train, monkeypatch):
    step = Trainable.training_step

    def spoilt(self, batch, batch_idx):
        if self.global_step == 16:
            monkeypatch.setattr("os.fsync", full)
            raise checkpoints.FerError("the cause")
        return step(self, batch, batch_idx)

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trainable, "training_step", spoilt)
    ended = train(*SMALL, "hydra.run.dir=out")
    assert ended.line == "fer.train: the cause"
    assert "could not be written (No space left on device)" in ended.out


def test_epochs_are_written_at_once_where_the_device_has_no_room_for_a_copy(train, written, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("fer.training.callbacks.checkpointing.copy", SimpleNamespace(deepcopy=full))
    assert train(*SMALL, "hydra.run.dir=out").code == 0
    assert [epoch for name, epoch in written if name == "last.ckpt"] == [0, 1, 2]


def test_long_epochs_are_written_within_too(train, tmp_path, monkeypatch, written):
    """A step takes 50 s, an epoch 7 of them; a run that is killed goes on from within its epoch, to the same end."""
    now, step = [0.0], Trainable.training_step
    monkeypatch.setattr(
        "fer.training.callbacks.checkpointing.time",
        SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0]),
    )

    def slow(self, batch, batch_idx):
        now[0] += 50
        if self.global_step == 12:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    settings = (*SMALL, "checkpoint.minutes=2", "trainer.max_epochs=2")
    assert train(*settings, "hydra.run.dir=whole").code == 0
    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Trainable, "training_step", slow)
        with pytest.raises(RuntimeError):
            train(*settings, "hydra.run.dir=out")
    assert written[:3] == [("last.ckpt", 0), ("last.ckpt", 0), ("best.ckpt", 0)]
    last = checkpoints.read(tmp_path / "out" / "checkpoints" / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (1, 10)
    assert train("resume=out").code == 0
    whole, resumed = (
        checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("whole", "out")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
