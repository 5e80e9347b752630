"""How fast a kind of network is, from its short training; the order of trainings and their ends."""

import shutil
from datetime import UTC, datetime

import pytest
from conftest import metrics

from fer.campaign.progress import Progress
from fer.campaign.record import Clock, Network, Record, Request
from fer.campaign.trainings import PhaseWatch, Times, _pace
from fer.sweeps.jobs import Job

FACES = {"train": 28_709, "val": 3_589}
TRAIN, VAL = 1.8, 0.2  # seconds of an epoch


def trained(folder, seconds, overrides=()):
    """A training that has ended, of epochs of so many seconds, 26 s before and after them."""
    rows = "".join(f"{epoch},{one},{FACES['train'] / TRAIN}\n" for epoch, one in enumerate(seconds, 1))
    (folder / "history.csv").write_text(f"epoch,seconds,images_per_second\n{rows}")
    job = Job(folder, list(overrides), {})
    job.code, job.seconds = 0, 26 + sum(seconds)
    return job


def test_the_first_epoch_s_delay_is_planned_once(tmp_path):
    seconds = [6.4, 2.0, 2.0, 2.0]
    pace = _pace(trained(tmp_path, seconds), FACES)
    assert pace.train == pytest.approx(TRAIN)
    assert pace.val == pytest.approx(VAL)
    assert pace.fixed + len(seconds) * pace.epoch == pytest.approx(26 + sum(seconds))
    assert pace.fixed + 30 * pace.epoch == pytest.approx(26 + 6.4 + 29 * 2)


def test_the_slowest_epoch_but_the_first_counts(tmp_path):
    assert _pace(trained(tmp_path, [6.4, 1.9, 2.5, 2.0]), FACES).epoch == pytest.approx(2.5)


def test_what_failed_or_has_no_second_epoch_has_no_pace(tmp_path):
    job = trained(tmp_path, [6.4, 2.0])
    job.code = 1
    assert _pace(job, FACES) is None
    assert _pace(trained(tmp_path, [6.4]), FACES) is None
    assert _pace(Job(tmp_path / "nowhere", [], {}), FACES) is None


def phase_of(tmp_path, planned, end=100.0, now=10.0):
    """A phase of trainings with these planned times, name -> (begin, end), at ``now`` of a campaign's clock."""
    networks = [Network(name, "member", [], 5, *times) for name, times in planned.items()]
    record = Record(Request(1.0, "synthetic"), "", "")
    clock = Clock(now)
    progress = Progress(clock, 200.0)
    overrides = dict.fromkeys(planned, ())
    return PhaseWatch(record, networks, overrides, tmp_path, clock, Times(end, end + 20), progress, lambda: None)


def ends(phase):
    """Name -> seconds from now until the time that each training is given, in the order of their starts."""
    seconds = {}
    while job := phase._next():
        text = job.overrides[-1].removeprefix("budget.until=").strip("'")
        seconds[job.folder.name] = (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()
    return seconds


def test_trainings_start_as_planned_and_end_when_the_next_begins_or_the_phase_ends(tmp_path):
    later = 0.1 + 30.2  # the sum is rounded
    planned = {"last": (later, 70.0), "first": (0.1, 30.3 - 1e-9), "alone": (0.1, 69.0)}
    epochs = ends(phase_of(tmp_path, planned))
    assert list(epochs) == ["first", "alone", "last"]
    assert epochs["first"] == pytest.approx(30.3 - 10, abs=2)  # "last" follows in its slot
    assert [epochs["last"], epochs["alone"]] == pytest.approx([100 - 10] * 2, abs=2)


def test_a_training_that_begins_late_ends_with_its_phase(tmp_path):
    epochs = ends(phase_of(tmp_path, {"late": (0.0, 5.0), "next": (5.0, 9.0)}))
    assert epochs["late"] == pytest.approx(100 - 10, abs=2)


def test_no_training_is_given_an_end_before_it_can_start(tmp_path):
    planned = {"one": (0.0, 5.0)}
    assert ends(phase_of(tmp_path, planned, now=97.0))["one"] == pytest.approx(120 - 97, abs=2)
    slow = phase_of(tmp_path, planned, now=105.0)
    slow.times = slow.times._replace(start=16.0)  # of a slow machine
    assert ends(slow) == {}
    late = phase_of(tmp_path, planned, now=117.0)
    assert ends(late) == {}
    late.run([{}])
    assert [network.state for network in late.jobs.values()] == ["left out"]  # and not failed


@pytest.mark.parametrize(
    ("now", "epochs", "best", "state"),
    [(100.5, 1, True, "stopped"), (100.5, 0, False, "left out"), (100.5, 2, True, "failed"), (60.0, 1, True, "failed")],
)
def test_a_training_whose_end_passes_before_its_first_epoch_has_not_failed(tmp_path, now, epochs, best, state):
    """It had one epoch before it was interrupted, or none; another epoch, or an end to come, shows a real failure."""
    phase = phase_of(tmp_path, {"one": (0.0, 5.0)})
    job = phase._next()
    network = phase.jobs[job]
    network.epochs_done = min(epochs, 1)
    phase.began(job)
    (job.folder / "checkpoints").mkdir(parents=True)
    if best:
        (job.folder / "checkpoints" / "best.ckpt").touch()
    network.epochs_done, job.code = epochs, 1
    phase.clock = Clock(now)
    phase.ended(job)
    assert network.state == state


@pytest.mark.parametrize(("resume", "took"), [(False, 30.0), (True, 80.0)])
def test_a_second_try_takes_its_own_time_and_a_resumed_training_that_of_both(tmp_path, resume, took):
    phase = phase_of(tmp_path, {"one": (0.0, 5.0)}, end=9000.0)
    job = phase._next()
    network = phase.jobs[job]
    network.began, network.ended, job.resume = 10.0, 60.0, resume
    phase.clock = Clock(5000.0)
    phase.began(job)
    assert network.ended is None
    phase.clock, job.code = Clock(5030.0), 1
    phase.ended(job)
    assert network.ended - network.began == pytest.approx(took, abs=1)


def test_the_accuracy_of_a_network_is_that_of_its_kept_epoch(tmp_path, small_run):
    """Chosen by the loss it is below the best accuracy."""
    phase = phase_of(tmp_path, {"one": (0.0, 5.0)})
    job = phase._next()
    phase.began(job)
    shutil.copytree(small_run, job.folder)
    rows = (job.folder / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("accuracy/val")
    better = [",".join("0.999" if index == column else cell for index, cell in enumerate(rows[1].split(",")))]
    (job.folder / "history.csv").write_text("\n".join([rows[0], *better, *rows[2:], ""]))
    job.code = 0
    phase.ended(job)
    assert phase.jobs[job].accuracy_val == metrics(job.folder)["accuracy"] < 0.999


def test_a_training_that_ends_well_at_its_second_try_has_no_reason_and_no_note(tmp_path):
    phase = phase_of(tmp_path, {"one": (0.0, 5.0)})
    job = phase._next()
    network = phase.jobs[job]
    phase._stopped(network, has_best=False)
    phase.record.note("one_more: stopped at the deadline")
    assert network.reason
    job.code = 0
    phase.ended(job)
    assert (network.state, network.reason, phase.record.notes) == ("done", "", ["one_more: stopped at the deadline"])


def test_an_end_is_a_time_of_one_meaning_where_summer_time_ends(tmp_path):
    job = phase_of(tmp_path, {"one": (0.0, 5.0)})._next()
    assert datetime.fromisoformat(job.overrides[-1].removeprefix("budget.until=").strip("'")).tzinfo is not None


@pytest.mark.parametrize(
    ("unplanned", "start", "last", "deadline"),
    [
        (0, 5, 1000, 235),  # 35 % of 100 s
        (0, 60, 1000, 260),  # a process that starts slowly
        (300, 5, 1000, 500),  # nothing is planned for 300 s
        (300, 5, 400, 400),  # but for the evaluations
    ],
)
def test_late_members_may_use_the_time_for_which_nothing_is_planned(unplanned, start, last, deadline):
    members = [Network("a", "member", [], 5, 100, 180), Network("b", "member", [], 5, 110, 200)]
    times = Times.of_members(members, unplanned, last, ("a",), start)
    assert times == (200, deadline, ("a",), start)
    assert Times.of_members(members, unplanned, 150, (), start)[:2] == (150, 150)


def test_a_training_with_the_most_epochs_gets_no_more(tmp_path):
    phase = phase_of(tmp_path, {"longest": (0.0, 50.0), "other": (0.0, 40.0)})
    phase.times = phase.times._replace(fixed=["longest"])
    overrides = {job.folder.name: list(job.overrides) for job in iter(phase._next, None)}
    assert overrides["longest"] == []
    assert overrides["other"][0].startswith("budget.until=")
