"""Loggers besides TensorBoard's: the same numbers everywhere, the same weights, one run after a resume."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL

from fer.config.errors import FerError
from fer.config.settings import LoggerSettings
from fer.system.files import read_history
from fer.system.ranks import Rank
from fer.training import loggers
from fer.training.callbacks.scalars import Scalars

QUIET = (*SMALL[:-1], "logger.report=false")


def rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "csv" / "metrics.csv", newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_several_loggers_get_the_same_numbers_and_change_no_weight(train, trained_once):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(*QUIET, "logger=[tensorboard,csv]", "hydra.run.dir=out").code == 0
    assert same(weights(Path("out")), weights(trained_once))
    written = rows(Path("out"))
    events = EventAccumulator("out/tensorboard")
    events.Reload()
    assert set(written[0]) - {"step"} == {name for name in events.Tags()["scalars"] if not name.startswith("hp")}
    for name in ("accuracy/val", "loss/train", "recall/happy", "best/macro_f1"):
        shown = [(event.step, event.value) for event in events.Scalars(name) if event.step > 0]
        assert shown == [(row["step"], pytest.approx(row[name])) for row in written]
    history = read_history(Path("out/history.csv"))
    assert [row["loss/val"] for row in written] == pytest.approx([row["loss/val"] for row in history], rel=1e-5)
    assert "data.synthetic_count: 140" in Path("out/csv/hparams.yaml").read_text()


def test_a_resumed_run_has_each_epoch_once_and_says_once_what_is_left_out(train, trained_once, interrupt_at):
    interrupt_at(17)  # in the third epoch, of 7 steps
    first = train(*QUIET, "logger=csv", "hydra.run.dir=out")
    assert first.code == 130
    assert first.out.count("need TensorBoard") == 1
    assert not Path("out/tensorboard").exists()
    (Path("out/csv/metrics.csv")).open("a").write(Path("out/csv/metrics.csv").read_text().splitlines()[-1][:-1] + "3\n")
    assert train("resume=out").code == 0
    assert [row["step"] for row in rows(Path("out"))] == [1, 2, 3]
    assert same(weights(Path("out")), weights(trained_once))
    assert not Path("out/csv.before").exists()


def test_rows_survive_a_kill_while_a_resumed_run_begins(tmp_path):
    """The earlier file is moved aside, and taken back from there if the first resumed run came no further."""
    folder = tmp_path / "csv.before"
    folder.mkdir()
    (folder / "metrics.csv").write_text("loss/val,step\n2.0,1\n1.0,2\n0.5,3\n")
    (tmp_path / "csv").mkdir()
    loggers.opened(LoggerSettings(csv=True), tmp_path, 2, resumed=True)
    assert rows(tmp_path) == [{"loss/val": 2.0, "step": 1.0}, {"loss/val": 1.0, "step": 2.0}]


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1")], ids=["run", "sweep"])
def test_a_missing_package_is_one_line_before_anything_is_written(train, monkeypatch, sweep):
    monkeypatch.setattr("fer.training.loggers.importlib.util.find_spec", lambda name: None)
    ended = train(*sweep, *SMALL[:-1], "logger=[csv,mlflow]", "--out", "out")
    assert ended.code == 1
    for words in ("logger.mlflow=true", "pip install 'fer-lightning[mlflow]'"):
        assert words in ended.line
    assert not Path("out").exists()


def test_a_logger_that_fails_is_left_out_with_one_warning(train, monkeypatch):
    from pytorch_lightning.loggers import CSVLogger

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CSVLogger, "log_metrics", fail)
    ended = train(*QUIET, "logger=csv", "trainer.max_epochs=2", "hydra.run.dir=out")
    assert ended.code == 0
    assert (ended.out + ended.err).count("logger.csv: No space left on device") == 1


def test_a_store_that_cannot_be_used_is_one_line(monkeypatch, tmp_path):
    def refuse(*arguments: object) -> None:
        raise RuntimeError("no such\nserver")

    monkeypatch.setattr(loggers, "_mlflow", refuse)
    monkeypatch.setattr(loggers, "require_packages", lambda settings: None)
    with pytest.raises(FerError, match="logger.mlflow_uri=http://nowhere: .*no such server.*logger=tensorboard"):
        loggers.opened(LoggerSettings(mlflow=True, mlflow_uri="http://nowhere"), tmp_path, 0, resumed=False)


def test_a_password_in_the_address_of_mlflow_is_refused():
    with pytest.raises(FerError, match=r"logger.mlflow_uri: .*MLFLOW_TRACKING_PASSWORD"):
        LoggerSettings(mlflow_uri="https://me:secret@host")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("logger.mlflow_uri=http://host:5000", "logger=mlflow"),
        ("logger.wandb_mode=online", "logger=wandb"),
        ("logger.project=mine", "logger=mlflow or logger=wandb"),
    ],
)
def test_settings_of_a_logger_that_is_off_are_refused(setting, remedy, train):
    ended = train(*SMALL, setting)
    assert ended.code == 1
    assert setting in ended.line
    assert remedy in ended.line


@pytest.mark.parametrize("number", [0, 1])
def test_rank_0_alone_has_loggers(monkeypatch, tmp_path, number):
    from conftest import settings_of_first_job

    from fer.training import trainers

    monkeypatch.setattr(trainers.ranks, "current", lambda: Rank(number, count=2))
    settings = settings_of_first_job([*SMALL[:-1], "logger=csv"])
    tracking = trainers.tracking(settings, tmp_path, 0, Scalars(SimpleNamespace(), SimpleNamespace()))
    assert list(tracking.opened) == ([] if number else ["csv"])


@pytest.mark.slow
def test_mlflow_and_wandb_have_one_run_after_a_resume(train, trained_once, interrupt_at):
    mlflow = pytest.importorskip("mlflow")
    wandb = pytest.importorskip("wandb")
    interrupt_at(17)
    assert train(*QUIET, "logger=[mlflow,wandb]", "hydra.run.dir=sweeps/3").code == 130
    folder = Path("sweeps/3")
    client = mlflow.MlflowClient((folder / "mlruns").absolute().as_uri())
    names = json.loads((folder / "loggers.json").read_text())
    assert client.get_run(names["mlflow"]).info.status == "FAILED"
    assert train("resume=sweeps/3").code == 0
    assert same(weights(folder), weights(trained_once))
    assert json.loads((folder / "loggers.json").read_text()) == names
    kept = client.get_run(names["mlflow"])
    assert (kept.info.run_name, kept.info.status) == ("sweeps/3", "FINISHED")
    assert (kept.data.params["optimizer.name"], kept.data.params["data.name"]) == ("adamw", "synthetic")
    recorded = {metric.step: metric.value for metric in client.get_metric_history(names["mlflow"], "loss/val")}
    expected = {row["epoch"]: row["loss/val"] for row in read_history(folder / "history.csv")}
    assert recorded == pytest.approx(expected, rel=1e-5)
    begun = sorted((folder / "wandb").glob(f"offline-run-*/run-{names['wandb']}.wandb"))
    assert len(begun) == 2  # W&B joins them by their name when they are sent
    assert all(b"recall/happy" in file.read_bytes() for file in begun)
    assert wandb.run is None
