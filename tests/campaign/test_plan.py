"""What a campaign trains in the time that there is, from measured speeds."""

import pytest

from fer.campaign.plan import (
    CROWDED,
    MOST_SMALL,
    Build,
    Pace,
    Speeds,
    Training,
    end_of,
    most_epochs,
    planned,
    side_by_side,
    taught_within,
)
from fer.campaign.recipes import SEEDS, SMALL, STUDENT, TEACHERS, WIDTHS, rosters
from fer.campaign.record import PARTS
from fer.config.errors import FerError

# an H100's as reckoned, and two cores' as measured for widths 64 and 16 (docs/recipes.md)
GPU = {
    STUDENT: Pace(0.75, 0.1, 12),
    "preact_resnet": Pace(1.15, 0.12, 14),
    "vgg19": Pace(0.55, 0.1, 12),
    SMALL: Pace(0.1, 0.05, 11),
}
CPU = {STUDENT: Pace(126, 6, 9), SMALL: Pace(20, 1.5, 8)}
FACES = 3589


def plan_of(hours, *, on_gpu=False, slots=2, parts=PARTS, first_teacher="tiny", measured=None):
    held = rosters(on_gpu=on_gpu, slots=slots, first_teacher="" if on_gpu else first_teacher)
    speeds = Speeds(measured or (GPU if on_gpu else CPU), slots, FACES, on_gpu=on_gpu)
    return planned(held, speeds, 3600 * hours, parts), speeds


@pytest.mark.parametrize(("on_gpu", "slots"), [(True, 3), (False, 2), (False, 16)])
@pytest.mark.parametrize("hours", [0.15, 0.5, 2, 8, 24])
def test_a_plan_fits_its_time_and_uses_it(on_gpu, slots, hours):
    made, _ = plan_of(hours, on_gpu=on_gpu, slots=slots)
    assert made.seconds <= 3600 * hours
    epochs = {one.epochs for one in (*made.members, *made.taught) if one.role != SMALL}
    if max(epochs) < made.roster.most:  # else more time brings nothing
        assert made.seconds >= 0.75 * 3600 * hours


@pytest.mark.parametrize(("on_gpu", "slots"), [(True, 3), (False, 2)])
def test_trainings_wait_for_their_slots_and_teachers(on_gpu, slots):
    made, _ = plan_of(2, on_gpu=on_gpu, slots=slots)
    every = [*made.members, *made.taught]
    for moment in [one.begin for one in every]:
        assert sum(one.begin <= moment < one.end for one in made.members) <= slots
        assert sum(one.begin <= moment < one.end for one in made.taught) <= slots + on_gpu
    assert min(one.begin for one in made.taught) >= end_of(made.members) + made.choosing - 1e-6
    assert [one.name for one in made.taught if one.role == STUDENT] == [f"{STUDENT}_{seed}" for seed in SEEDS]


def test_more_time_trains_wider_networks_on_a_cpu_and_more_of_them_on_a_gpu():
    widths = [plan_of(hours)[0].roster.width for hours in (0.3, 2, 8, 24)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] == WIDTHS[0]
    counts = [len(plan_of(hours, on_gpu=True, slots=3)[0].members) for hours in (0.05, 0.15, 2)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == 12
    again = [one for one in plan_of(2, on_gpu=True, slots=3)[0].members if one.name.endswith("_2")]
    assert len({one.overrides[-1] for one in again}) == 6  # other seeds than the first time
    assert not {one.overrides[-1] for one in again} & {f"seed={seed}" for seed in range(6)}


def test_networks_are_trained_long_enough_before_there_are_more_of_them():
    for hours in (0.15, 0.5, 2):
        made, _ = plan_of(hours, on_gpu=True, slots=3)
        assert min(one.epochs for one in made.members) >= made.roster.least


def test_too_little_time_names_what_would_do():
    with pytest.raises(FerError, match=r"--hours 0\.\d+ or more") as caught:
        plan_of(0.02)
    needed = float(str(caught.value).split("--hours ")[1].split()[0])
    made, _ = plan_of(needed + 0.01)
    assert min(one.epochs for one in (*made.members, *made.taught)) >= 1


def test_parts_are_planned_alone():
    made, _ = plan_of(0.05, on_gpu=True, slots=2, parts=("small",))
    assert not made.members
    assert made.taught[0].epochs > 20
    assert [one.name for one in made.taught] == [SMALL]
    made, _ = plan_of(0.15, on_gpu=True, slots=3, parts=("members",))
    assert not made.taught
    assert made.seconds >= 0.75 * 540


def test_teachers_cost_a_third_of_their_own_steps():
    made, speeds = plan_of(0.15, on_gpu=True, slots=3)
    student = next(one for one in made.taught if one.role == STUDENT)
    slowest = sorted((speeds.of(kind, made.roster).train for kind in made.roster.members), reverse=True)[:TEACHERS]
    pace = GPU[STUDENT]
    epoch = CROWDED * (pace.epoch + sum(slowest) / 3)
    assert student.seconds == pytest.approx(pace.fixed + student.epochs * epoch)


def test_widths_between_the_measured_ones_follow_a_power():
    speeds = Speeds(CPU, 2, FACES, on_gpu=False)
    paces = {}
    for roster in rosters(on_gpu=False, slots=2):
        paces[roster.width] = speeds.of(roster.student, roster).train
    assert paces[64] == 126
    assert paces[16] == pytest.approx(20, rel=1e-6)
    assert paces[16] < paces[24] < paces[32] < paces[48] < paces[64]


def test_side_by_side_begins_the_longest_first():
    one, two, three = (Training(name, "member", (), 1, seconds) for name, seconds in (("a", 1), ("b", 5), ("c", 3)))
    placed = {training.name: training.begin for training in side_by_side([one, two, three], 2, 10)}
    assert placed == {"b": 10, "c": 10, "a": 13}


def test_most_epochs_is_the_most_that_fits():
    rows = [("a", "member", (), Pace(2, 1, 4)), ("b", "member", (), Pace(1, 1, 4))]
    two, one = Build(rows, {}, 2), Build(rows, {}, 1)
    assert most_epochs([two], 4 + 3 * 7, 100) == 7
    assert most_epochs([two], 4 + 3 * 7 - 0.01, 100) == 6
    assert most_epochs([one], 8 + 5 * 3, 100) == 3
    assert most_epochs([two, one], 12 + 8 * 3, 100) == 3
    assert most_epochs([two], 3, 100) == 0
    assert most_epochs([two], 1e9, 100) == 100


def test_the_small_network_fills_the_slots_that_are_left():
    rows = [(f"{STUDENT}_{seed}", STUDENT, (), Pace(10, 0, 0)) for seed in SEEDS] + [(SMALL, SMALL, (), Pace(1, 0, 0))]
    made = {one.name: one for one in taught_within(Build(rows, {SMALL: MOST_SMALL}, 2), 400, 0)}
    assert made["student_0"].epochs == 20  # two rounds of 200 s
    assert made[SMALL].epochs == MOST_SMALL
    assert max(one.end for one in made.values()) <= 400
    assert taught_within(Build(rows, {SMALL: MOST_SMALL}, 2), 5, 0) == []
