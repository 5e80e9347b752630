"""``budget.until``: the epochs and the schedule follow the speed, so that a run ends in time at its lowest rate."""

from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, metrics

from fer.config.errors import FerError
from fer.config.settings import BudgetSettings
from fer.system.files import read_history
from fer.training import deadline
from fer.training.deadline import ENDING, Deadline, epochs_left

NOW = datetime(2030, 1, 1, 12)
RUN = (*SMALL, "scheduler=onecycle", "ema=0.9")


@pytest.fixture
def clock(monkeypatch):
    """A clock on which epochs take ``seconds``, the later ones what was set in the meantime."""

    class Clock:
        now = NOW.timestamp()
        seconds = (10.0,)  # of each epoch; the last value holds for all later ones
        set_by = 0.0  # seconds by which somebody sets the computer's clock in the third epoch

        def time(self):
            return self.now + self.set_by * (self.now > NOW.timestamp() + 25)

        def monotonic(self):
            return self.now

    made, real = Clock(), Deadline.on_train_epoch_end

    def ended(callback, trainer, module):
        made.now += made.seconds[min(trainer.current_epoch, len(made.seconds) - 1)]
        real(callback, trainer, module)

    monkeypatch.setattr(deadline, "time", made)
    monkeypatch.setattr(Deadline, "on_train_epoch_end", ended)
    return made


def until(seconds):
    return f"budget.until='{(NOW + timedelta(seconds=seconds + ENDING)).isoformat()}'"


def rates(folder):
    return [row["learning_rate"] for row in read_history(folder / "history.csv")]


@pytest.mark.parametrize(
    ("seconds", "epochs"),
    [
        ((10.0,), 6),  # as planned
        pytest.param((15.0, 10.0), 5, marks=pytest.mark.slow),  # the first epoch is slower
        ((10.0, 10.0, 16.0), 4),  # others begin beside it
        pytest.param((10.0, 10.0, 5.0), 10, marks=pytest.mark.slow),  # others end
        ((70.0,), 1),
    ],
)
def test_a_run_ends_in_time_at_the_end_of_its_schedule(train, tmp_path, clock, seconds, epochs):
    clock.seconds = seconds
    ended = train(*RUN, "trainer.max_epochs=6", until(62), "hydra.run.dir=timed")
    assert ended.code == 0, ended.err
    assert metrics(tmp_path / "timed")["epochs"] == epochs
    assert clock.now <= NOW.timestamp() + 62 + ENDING or epochs == 1
    if epochs > 1:
        assert train(*RUN, "trainer.max_epochs=6", "hydra.run.dir=whole").code == 0
        assert rates(tmp_path / "timed")[-1] == pytest.approx(rates(tmp_path / "whole")[-1], rel=0.3, abs=1e-5)


def test_a_run_with_more_epochs_than_first_guessed_is_resumed(train, tmp_path, clock, interrupt_at):
    settings = (*RUN, "trainer.max_epochs=3", "hydra.run.dir=long")
    interrupt_at(7 * 5 + 2)
    assert train(*settings, until(300)).code == 130
    assert len(rates(tmp_path / "long")) == 5
    clock.now = NOW.timestamp() + 100
    ended = train("resume=long", until(160))
    assert ended.code == 0, ended.err
    learned = rates(tmp_path / "long")
    assert len(learned) > 6
    assert train(*RUN, "trainer.max_epochs=3", "hydra.run.dir=whole").code == 0
    assert learned[-1] == pytest.approx(rates(tmp_path / "whole")[-1], rel=0.5, abs=2e-5)  # the schedule's end


def test_two_epochs_are_planned_from_the_first(train, tmp_path, clock):
    assert train(*RUN, "trainer.max_epochs=2", until(62), "hydra.run.dir=out").code == 0
    assert len(rates(tmp_path / "out")) == 6


def test_a_clock_that_is_set_back_moves_the_end_and_not_the_speed(train, tmp_path, clock):
    clock.set_by = -30.0
    assert train(*RUN, "trainer.max_epochs=6", until(62), "hydra.run.dir=timed").code == 0
    assert metrics(tmp_path / "timed")["epochs"] == 9
    assert clock.time() == NOW.timestamp() + 60


def test_a_run_at_the_planned_speed_is_the_run_without(train, tmp_path, clock):
    assert train(*RUN, "trainer.max_epochs=3", until(31), "hydra.run.dir=timed").code == 0
    assert train(*RUN, "trainer.max_epochs=3", "hydra.run.dir=whole").code == 0
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("timed", "whole")
    )
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_a_resumed_run_goes_on_in_the_schedule_and_may_have_another_end(train, tmp_path, clock, interrupt_at):
    interrupt_at(16)  # in the third epoch
    assert train(*RUN, "trainer.max_epochs=8", until(52), "hydra.run.dir=cut").code == 130
    before = rates(tmp_path / "cut")
    clock.now = NOW.timestamp() + 1000
    ended = train("resume=cut")
    assert ended.code == 1
    assert "budget.until=2030-01-01T12:00:56: is past" in ended.err
    ended = train("resume=cut", "budget.until=null")
    assert ended.code == 1
    assert "resume=cut: the run has budget.until=2030-01-01T12:00:56" in ended.err
    ended = train("resume=cut", until(1062))
    assert ended.code == 0, ended.err
    after = rates(tmp_path / "cut")
    assert after[: len(before)] == before
    assert len(after) == 8
    assert after[-1] < 0.1 * max(after)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["budget.until=tomorrow"], ("budget.until=tomorrow", "2026-12-24T07:00")),
        (["budget.until=2020-01-01T00:00"], ("budget.until=2020-01-01T00:00", "is past")),
        (["budget.until=0001-01-01T00:00"], ("budget.until=0001-01-01T00:00", "2026-12-24T07:00")),
        (["budget.until=2090-01-01T00:00", "budget.hours=1"], ("budget.until=2090-01-01T00:00", "budget.hours=1")),
        (
            ["budget.until=2090-01-01T00:00", "stages=[[24,2]]", "trainer.max_epochs=2"],
            ("budget.until=", "stages", "budget.hours"),
        ),
    ],
)
def test_bad_times_are_refused(train, tmp_path, given, says):
    ended = train(*SMALL, *given, "hydra.run.dir=refused")
    assert ended.code == 1
    assert all(part in ended.err for part in says)
    assert not (tmp_path / "refused").exists()


def test_a_time_that_is_past_is_compared_in_its_own_zone():
    settings = SimpleNamespace(budget=BudgetSettings(until="2020-01-01T00:00+02:00"))
    with pytest.raises(FerError, match=r"is past; expected a time after 20.*T..:..:..\+02:00$"):
        deadline.end_of(settings)


def test_an_epoch_begins_if_a_part_of_it_fits():
    assert [epochs_left(seconds, 10) for seconds in (-5, 2, 4, 14, 20, 39)] == [0, 0, 0, 1, 2, 3]
