"""How fast a kind of network is, from its short training."""

import pytest

from fer.campaign.trainings import _pace
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
