"""``budget.hours``: epochs planned from measured speed, kept on resume, with no other effect on the run."""

from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, metrics

from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.models import checkpoints
from fer.training import time_budget
from fer.training.time_budget import WITH_REPORT, WITHOUT_REPORT, Epoch, Pace, divided


def hours(seconds, reserve=WITHOUT_REPORT):
    """A budget that leaves these seconds for epochs, if measuring takes no time."""
    return f"budget.hours={(seconds + reserve.end) / (1 - reserve.share) / 3600:.12f}"


@pytest.fixture(autouse=True)
def measuring_takes_no_time(monkeypatch):
    monkeypatch.setattr(time_budget, "spent", lambda data: 0.0)


@pytest.fixture
def a_second_an_epoch(monkeypatch):
    monkeypatch.setattr(time_budget, "measured_epoch", lambda *arguments: Epoch(1.0, 0.0))


def test_measuring_at_a_size_does_not_change_the_runs_data():
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=70, image_size=24), stages=[[16, 1], [24, 1]])
    data.setup("fit")
    at_size = data.replaced(stages=[[16, 1]])
    assert (data.stages, at_size.stages) == ([[16, 1], [24, 1]], [[16, 1]])
    assert at_size.datasets is data.datasets
    assert at_size.faces is data.faces


def test_memory_that_runs_out_while_the_speed_is_measured_halves_the_batch(train, tmp_path, monkeypatch):
    def measured_epoch(settings, *others):
        if settings.data.batch_size > 64:
            raise MemoryError
        return Epoch(1.0, 0.0)

    monkeypatch.setattr(time_budget, "measured_epoch", measured_epoch)
    options = [*SMALL, "data.batch_size=auto", "trainer.halve_batch_on_oom=true", hours(1.5)]
    ended = train(*options, "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    assert "beginning again with data.batch_size=64" in ended.out
    assert (metrics(tmp_path / "out")["batch_size"], metrics(tmp_path / "out")["epochs"]) == (64, 1)


def weights(folder):
    return checkpoints.read(folder / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.fixture
def measured(monkeypatch):
    """The measured durations; the plan then uses a second for each epoch."""
    found, real = [], time_budget.measured_epoch

    def measured_epoch(*arguments):
        found.append(real(*arguments))
        return Epoch(1.0, 0.0)

    monkeypatch.setattr(time_budget, "measured_epoch", measured_epoch)
    return found


def test_as_many_epochs_as_fit_and_the_same_network_as_without(train, tmp_path, measured):
    more = ("scheduler.warmup_epochs=2", "trainer.max_epochs=1", "ema=0.9")  # which fits in the three that are planned
    ended = train(*SMALL[:-2], SMALL[-1], *more, hours(3.5), "hydra.run.dir=planned")
    assert ended.code == 0, ended.err
    assert 0 < measured[0].seconds < 20  # of 7 small steps
    results = metrics(tmp_path / "planned")
    assert (results["epochs"], results["budget"]["epochs"]) == (3, 3)
    assert "3 epochs (1.0 s at 24 pixels), until about 20" in ended.out
    assert train(*SMALL, *more[::2], "hydra.run.dir=given").code == 0
    first, second = weights(tmp_path / "planned"), weights(tmp_path / "given")
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_a_single_step_is_timed_too(train, measured):
    assert train(*SMALL, "trainer.overfit_batches=1", hours(1.5)).code == 0
    assert 0 < measured[0].seconds < 20


def test_stages_keep_their_shares(train, tmp_path, a_second_an_epoch):
    network = ("model=resnet9", "model.width=2", "stages=[[16,1],[24,2]]")
    ended = train(*SMALL[:4], *SMALL[6:], *network, "trainer.max_epochs=3", hours(6.5), "hydra.run.dir=staged")
    assert ended.code == 0, ended.err
    results = metrics(tmp_path / "staged")
    assert results["budget"]["stages"] == [[16, 2], [24, 4]]
    assert results["epochs"] == 6
    assert results["best_epoch"] > 2  # of the last stage


@pytest.mark.slow
def test_a_resumed_run_keeps_its_plan(train, tmp_path, monkeypatch, a_second_an_epoch, interrupt_at):
    assert train(*SMALL, hours(3.5), "hydra.run.dir=whole").code == 0
    interrupt_at(9)
    assert train(*SMALL, hours(3.5), "hydra.run.dir=cut").code == 130
    monkeypatch.setattr(time_budget, "measured_epoch", None)  # nothing is measured again
    interrupt_at(16)
    assert train("resume=cut").code == 130
    assert train("resume=cut").code == 0
    assert metrics(tmp_path / "cut")["budget"] == metrics(tmp_path / "whole")["budget"]
    assert metrics(tmp_path / "cut")["epochs"] == 3
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("budget.hours=0", "budget.hours=0"),
        ("budget.hours=-1", "budget.hours=-1"),
        ("budget.hours=1e8", "budget.hours=100000000.0"),
        ("budget.hours=0.001", "budget.hours=0.001: too short"),
    ],
)
def test_a_budget_that_cannot_be_is_one_line(train, override, says):
    ended = train(*SMALL, override)
    assert ended.code == 1
    assert says in ended.line


@pytest.mark.parametrize(
    ("total", "shares", "parts"),
    [(10, [0.5, 0.5], [5, 5]), (7, [0.3, 0.3, 0.4], [2, 2, 3]), (3, [0.9, 0.05, 0.05], [1, 1, 1]), (4, [1.0], [4])],
)
def test_epochs_are_divided_by_shares_and_none_is_lost(total, shares, parts):
    assert divided(total, shares) == parts


def test_an_epoch_that_each_stage_has_at_least_does_not_break_the_budget(train, tmp_path, monkeypatch):
    monkeypatch.setattr(time_budget, "measured_epoch", lambda *arguments: Epoch({16: 1.0, 24: 4.0}[arguments[3]], 0.0))
    network = (*SMALL[:4], *SMALL[6:], "model=resnet9", "model.width=2", "stages=[[16,9],[24,1]]")
    ended = train(*network, "trainer.max_epochs=10", hours(3))
    assert ended.code == 1
    assert "set more" in ended.line
    assert train(*network, "trainer.max_epochs=10", hours(5.5), "hydra.run.dir=two").code == 0
    assert metrics(tmp_path / "two")["budget"]["stages"] == [[16, 1], [24, 1]]


def test_what_would_change_the_speed_is_refused(train):
    ended = train(*SMALL, "budget.hours=1", "trainer.profile=true")
    assert ended.code == 1
    assert "speed is measured without trainer.profile" in ended.line


def test_what_measuring_took_is_no_time_for_epochs(train, tmp_path, monkeypatch, a_second_an_epoch):
    monkeypatch.setattr(time_budget, "spent", lambda data: 2.0)
    assert train(*SMALL, hours(5.5), "hydra.run.dir=run").code == 0
    assert metrics(tmp_path / "run")["epochs"] == 3


def test_val_at_the_end_is_given_its_time(train, tmp_path, monkeypatch):
    monkeypatch.setattr(time_budget, "measured_epoch", lambda *arguments: Epoch(1.0, 0.75))
    assert train(*SMALL, hours(5), "hydra.run.dir=run").code == 0
    assert metrics(tmp_path / "run")["epochs"] == 3  # twice its time, of 32 bits, is no epoch's


@pytest.mark.slow
def test_the_reserve_is_smaller_without_pictures_and_report(train, tmp_path, a_second_an_epoch):
    assert WITHOUT_REPORT.share < WITH_REPORT.share
    assert WITHOUT_REPORT.end < WITH_REPORT.end
    drawn = (*SMALL[:-1], "logger.tensorboard=true", "logger.report=false")
    assert train(*drawn, hours(3.5, WITH_REPORT), "hydra.run.dir=drawn").code == 0
    assert train(*SMALL, hours(3.5), "hydra.run.dir=bare").code == 0
    assert metrics(tmp_path / "drawn")["epochs"] == metrics(tmp_path / "bare")["epochs"] == 3


def test_measuring_counts_from_when_the_faces_lay_in_memory(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(time_budget.time, "perf_counter", lambda: 12.0)
    assert time_budget.spent(SimpleNamespace(loaded_at=5.0)) == 7.0


@pytest.mark.parametrize(
    ("step", "val", "write", "epoch"),
    [
        (0.5, 2.0, 0.25, 52.5),  # an epoch longer than the time between writings: both checkpoints at its end
        (0.01, 1.0, 0.3, 2.04),  # 15 epochs from one writing to the next: 0.6 s in 30
        (0.01, 1.0, 0.0, 2.0),
    ],
)
def test_an_epoch_has_its_part_of_the_checkpoints_that_are_written(step, val, write, epoch, tmp_path):
    pace = Pace(tmp_path / "trial.ckpt")
    pace.step, pace.val, pace.write = step, val, write
    assert pace.epoch(100) == pytest.approx((epoch, val))


def test_a_checkpoint_of_the_trial_is_timed_and_removed(train, tmp_path, measured, monkeypatch):
    paces, epoch = [], Pace.epoch
    monkeypatch.setattr(Pace, "epoch", lambda self, steps: paces.append(self) or epoch(self, steps))
    assert train(*SMALL, "ema=0.9", hours(1.5), "hydra.run.dir=run").code == 0
    assert [pace.file.name for pace in paces] == ["trial.ckpt"]
    assert paces[0].file.is_relative_to(tmp_path / "run")
    assert not list((tmp_path / "run").rglob("trial.ckpt"))
    assert 0 < paces[0].write < 20
    assert measured[0].seconds > 7 * paces[0].step + paces[0].val > 0


@pytest.mark.slow
def test_a_network_that_is_compiled_is_measured_so_and_compiled_once(train, tmp_path, measured, graphs):
    network = ("model=resnet9", "model.width=2", "trainer.compile=true")
    ended = train(*SMALL[:4], *SMALL[6:], *network, hours(2.5), "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert 0 < measured[0].seconds < 60
    assert metrics(tmp_path / "run")["epochs"] == 2
    assert graphs == [(16, 1, 24, 24)]  # what the trial has compiled serves the run
