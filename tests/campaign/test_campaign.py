"""The phases of a campaign on its clock, and what the page says of teachers and widths."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fer.campaign.campaign import Campaign
from fer.campaign.earlier import Candidate
from fer.campaign.record import Network, Phase, Record, Request
from fer.campaign.summary import summary_of


class Hands:
    """A clock that a test sets."""

    def __init__(self, time):
        self.time = time

    def now(self):
        return self.time


@pytest.fixture
def record():
    return Record(Request(1.0, "synthetic"), "fer best", "2026-01-01T00:00:00+00:00", faces={"val": 3})


def test_a_phase_that_goes_on_after_others_keeps_its_time(record, tmp_path):
    campaign = Campaign(record, tmp_path)
    campaign.clock = Hands(10.0)
    record.phases = [Phase("members", 0.0, 50.0)]
    with campaign.phase("members"):
        campaign.clock.time = 70.0
    campaign.clock.time = 300.0
    with campaign.phase("members"):
        assert record.phases[0].ended is None  # a campaign that is killed now has begun the phase
        campaign.clock.time = 320.0
    (phase,) = record.phases
    assert (phase.ended - phase.began, phase.ended) == (80.0, 320.0)


def test_phases_without_work_are_not_begun_again(record, tmp_path):
    campaign = Campaign(record, tmp_path)
    campaign.clock = Hands(500.0)
    record.networks = [
        Network(name, role, [], 1, 0.0, 1.0, state="done", epochs_done=1)
        for name, role in (("mixup", "member"), ("student_0", "student"))
    ]
    record.phases = [Phase(name, 0.0, 50.0, 0.0, 40.0) for name in ("members", "choice of teachers", "students")]
    campaign.closing = lambda speeds: 1.0
    campaign.train_members(None)
    campaign.choose_teachers()  # too late: the student has learned from the labels alone
    campaign.train_taught(None)
    assert [phase.ended for phase in record.phases] == [40.0] * 3


def test_teachers_are_found_where_the_campaign_is_now(record, tmp_path):
    campaign = Campaign(record, tmp_path / "moved")
    campaign.selection = SimpleNamespace(before=[Candidate("run@old", tmp_path / "old" / "run", None, None)])
    record.networks = [Network("mixup", "member", [], 1, 0.0, 1.0)]
    small = Network("small", "small", ["a=1", "distill.teachers=[/gone/mixup]"], 1, 0.0, 1.0)
    small.teachers = ["mixup", "run@old", "tiny"]
    *others, teachers = campaign.overrides_of(small)
    assert others == ["a=1"]
    assert teachers == f"distill.teachers=['{tmp_path / 'moved' / 'mixup'}','{tmp_path / 'old' / 'run'}','tiny']"


def test_the_page_names_the_teachers_of_the_students_and_the_width_of_wide_networks(record, tmp_path):
    record.width, record.chosen_teachers = 48, ["mixup"]
    record.networks = [Network("student_0", "student", [], 1, 0.0, 1.0, teachers=[])]
    (lead,) = summary_of(record, tmp_path).lead
    assert "Students have width 48." in lead
    assert "eachers" not in lead  # chosen after the student's training began
    record.networks[0].teachers = ["mixup"]
    assert "Teachers of the students, chosen on val: mixup." in summary_of(record, tmp_path).lead[0]
    record.request = replace(record.request, settings=("model.width=8",))
    assert "width" not in summary_of(record, tmp_path).lead[0]  # the planned one is not that of the networks
    record.request = replace(record.request, settings=())
    record.networks = [Network("small", "small", [], 1, 0.0, 1.0, teachers=["tiny"])]
    record.first_teacher = "tiny"
    (lead,) = summary_of(record, tmp_path).lead
    assert "width" not in lead
    assert "tiny taught the small network." in lead
