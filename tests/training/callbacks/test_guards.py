"""NaN in validation ends a run before anything of that epoch is saved or scored; signals end it after a step."""

import json
import signal
from types import SimpleNamespace

import pytest
from conftest import SMALL, metrics

from fer.config.errors import Interrupted
from fer.models import checkpoints
from fer.models.mlp import MLP
from fer.system import signals
from fer.system.files import write_json
from fer.training.callbacks import guards
from fer.training.callbacks.checkpointing import Saver


@pytest.fixture
def bad_val(monkeypatch):
    """A function that spoils the predictions of val, not those of train, in an epoch counted from 1."""
    logits_of_crops = MLP.logits_of_crops

    def spoil(epoch, value=float("nan")):
        def spoilt(self, images):
            logits = logits_of_crops(self, images)
            bad = not self.training and getattr(self, "_trainer", None) is not None and self.current_epoch + 1 == epoch
            return logits * value if bad else logits

        monkeypatch.setattr(MLP, "logits_of_crops", spoilt)

    return spoil


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_bad_predictions_of_val_end_the_run_and_keep_the_epochs_before(train, tmp_path, bad_val, value):
    bad_val(2, value)
    ended = train(*SMALL, "hydra.run.dir=out")
    assert ended.code == 1
    assert all(text in ended.line for text in ("of val became NaN or infinite in epoch 2", "optimizer.lr"))
    out = tmp_path / "out"
    assert not (out / "metrics.json").exists()
    for name in ("last", "best"):
        assert checkpoints.read(out / "checkpoints" / f"{name}.ckpt")["epoch"] == 0
    assert "nan" not in (out / "history.csv").read_text()
    assert "epoch 2" in train("resume=out").line  # the same again: neither finished nor lost
    bad_val(0)
    assert train("resume=out").code == 0
    assert metrics(out)["epochs"] == 3


def test_a_first_epoch_with_nan_leaves_no_checkpoint(train, tmp_path, bad_val):
    bad_val(1)
    assert "in epoch 1" in train(*SMALL, "monitor=loss/val", "hydra.run.dir=out").line
    assert not list((tmp_path / "out").rglob("*.ckpt"))
    assert not (tmp_path / "out" / "history.csv").exists()


def test_an_epoch_with_nan_is_never_the_best(tmp_path):
    for monitor in ("accuracy/val", "loss/val"):
        saver = Saver(tmp_path, monitor)
        assert not saver.is_better(float("nan"), epoch=0)
        saver.load_state_dict({"best_value": float("nan"), "best_epoch": 0})  # as older versions saved it
        assert saver.is_better(0.3, epoch=1)


def test_a_network_that_predicts_nan_is_not_scored(scores, small_run, tmp_path, monkeypatch):
    """In its training val was sound; afterwards the network predicts no number for faces."""
    logits_of_crops = MLP.logits_of_crops
    monkeypatch.setattr(MLP, "logits_of_crops", lambda self, images: logits_of_crops(self, images) * float("nan"))
    assert "NaN for 14 of 14 faces" in scores(str(small_run)).line
    assert not list(small_run.rglob("evaluations/*/metrics.json"))


def test_no_nan_in_json(tmp_path):
    write_json(tmp_path / "a.json", {"bad": float("nan"), "worse": [1.5, (float("-inf"), 2)], "good": 0.25})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"bad": None, "worse": [1.5, [None, 2]], "good": 0.25}


@pytest.mark.parametrize(
    ("first", "second", "saved"),
    [
        ("SIGUSR2", "SIGTERM", True),
        ("SIGTERM", "SIGUSR2", True),
        ("SIGUSR1", "SIGUSR1", True),
        ("SIGTERM", "SIGTERM", False),
        ("SIGUSR2", "SIGINT", False),
    ],
)
def test_after_a_batch_systems_signal_only_ctrl_c_ends_at_once(tmp_path, monkeypatch, first, second, saved):
    """A minute apart, as on a busy node: SLURM signals each process, and the parent passes its own signal on."""
    now = [100.0]
    monkeypatch.setattr(guards, "time", SimpleNamespace(monotonic=lambda: now[0]))
    callback = guards.Signals(tmp_path, None, None)
    callback._receive(getattr(signal, first), None)
    now[0] += 60
    if saved:
        callback._receive(getattr(signal, second), None)
    else:
        with pytest.raises(Interrupted, match=f"ended at once by a second {second}"):
            callback._receive(getattr(signal, second), None)
    assert signals.name(callback.received) == first


def test_signals_within_seconds_are_one(tmp_path):
    callback = guards.Signals(tmp_path, None, None)
    for _ in range(2):
        callback._receive(signal.SIGTERM, None)
    with pytest.raises(Interrupted):
        callback._receive(signal.SIGINT, None)
