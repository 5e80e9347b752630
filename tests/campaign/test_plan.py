"""What a campaign trains in the time that there is, from measured speeds."""

from dataclasses import replace

import pytest

from fer.campaign.plan import (
    CONTENTION,
    MOST_SMALL,
    Build,
    Pace,
    Speeds,
    Training,
    end_of,
    evaluation_seconds,
    most_epochs,
    planned,
    side_by_side,
    students_of,
    students_within,
)
from fer.campaign.recipes import SEEDS, SMALL, STUDENT, TEACHERS, WIDTHS, gpu_members, rosters
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
H100 = {  # as a campaign on one measured them, all four side by side (docs/recipes.md)
    STUDENT: Pace(2.352, 0.108, 26.9),
    "preact_resnet": Pace(4.943, 0.189, 31.8),
    "vgg19": Pace(2.754, 0.103, 28.2),
    SMALL: Pace(2.098, 0.066, 27.2),
}
FACES = 3589


def plan_of(hours, *, on_gpu=False, slots=2, parts=PARTS, first_teacher="tiny", measured=None, spent=0):
    speeds = Speeds(measured or (GPU if on_gpu else CPU), slots, FACES, on_gpu=on_gpu)
    seconds = speeds.epoch if on_gpu else None
    every_roster = rosters(on_gpu=on_gpu, slots=slots, first_teacher=first_teacher, seconds=seconds)
    return planned(every_roster, speeds, 3600 * hours - spent, parts, spent), speeds


def h100_roster(speeds, *names):
    """The roster of these members."""
    every = rosters(on_gpu=True, slots=3, seconds=speeds.epoch)[0]
    return replace(every, members=tuple(kind for kind in every.members if kind.name in names))


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
    made, _ = plan_of(2, on_gpu=on_gpu, slots=slots, first_teacher="")
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


def test_the_package_s_network_teaches_the_students_of_a_cpu_until_there_is_time_for_members():
    """Members and students of 20 epochs each are worse than students of all the time."""
    made, speeds = plan_of(2)
    assert not made.members
    assert made.choosing == 0
    assert min(one.epochs for one in made.taught) >= 40
    others, _ = plan_of(2, first_teacher="")
    assert others.members
    assert min(one.epochs for one in others.taught) < min(one.epochs for one in made.taught)
    long, _ = plan_of(48)
    assert long.members
    assert min(one.epochs for one in (*long.members, *long.taught)) >= 40
    assert plan_of(0.5, parts=("members",))[0].members  # as asked for
    student = next(one for one in made.taught if one.role == STUDENT)  # its teacher costs a third of its own step
    pace = speeds.of(made.roster.student, made.roster).taught(speeds.measured[SMALL].train)
    assert student.seconds == pytest.approx(pace.fixed + student.epochs * pace.epoch)


def test_networks_are_trained_long_enough_before_there_are_more_of_them():
    for hours in (0.15, 0.5, 2):
        made, _ = plan_of(hours, on_gpu=True, slots=3)
        assert min(one.epochs for one in made.members) >= made.roster.least


@pytest.mark.parametrize("spent", [0, 300])
def test_too_little_time_names_what_would_do(spent):
    with pytest.raises(FerError, match=r"--hours 0\.\d+ or more") as caught:
        plan_of(0.02 + spent / 3600, spent=spent)
    needed = float(str(caught.value).split("--hours ")[1].split()[0])
    made, _ = plan_of(needed, spent=1.05 * spent)  # the next measurement may take longer
    assert min(one.epochs for one in (*made.members, *made.taught)) >= 1


def test_parts_are_planned_alone():
    made, _ = plan_of(0.05, on_gpu=True, slots=2, parts=("small",))
    assert not made.members
    assert made.taught[0].epochs > 20
    assert [one.name for one in made.taught] == [SMALL]
    made, _ = plan_of(0.15, on_gpu=True, slots=3, parts=("members",))
    assert not made.taught
    assert made.seconds >= 0.75 * 540


def test_teachers_are_planned_only_where_there_can_be_some():
    alone, speeds = plan_of(2, parts=("small",), first_teacher="")
    pace = speeds.of(alone.roster.small, alone.roster)
    (small,) = alone.taught
    assert small.seconds == pytest.approx(pace.fixed + small.epochs * pace.epoch)
    earlier = planned([alone.roster], speeds, 7200, ("small",), earlier=1).taught[0]
    assert earlier.seconds == pytest.approx(
        pace.fixed + earlier.epochs * (pace.epoch + speeds.of(alone.roster.student, alone.roster).train / 3)
    )


def test_teachers_cost_a_third_of_their_own_steps():
    made, speeds = plan_of(0.15, on_gpu=True, slots=3, first_teacher="")
    student = next(one for one in made.taught if one.role == STUDENT)
    slowest = sorted((speeds.of(kind, made.roster).train for kind in made.roster.members), reverse=True)[:TEACHERS]
    pace = GPU[STUDENT]
    epoch = CONTENTION * (pace.epoch + sum(slowest) / 3)
    assert student.seconds == pytest.approx(pace.fixed + student.epochs * epoch)


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("hours", [0.1, 0.14, 0.2, 0.5, 2])
def test_no_slot_of_a_gpu_is_left_empty(hours, slots):
    made, speeds = plan_of(hours, on_gpu=True, slots=slots, measured=H100, first_teacher="")
    count = len(made.members)
    assert count % slots == 0 or count in (6, 12) or 2 <= count < slots
    if count < 6:  # the slowest kinds are those that are missing
        costs = {kind.name: speeds.epoch(kind) for kind in gpu_members()}
        trained = {one.name for one in made.members}
        assert max(costs[name] for name in trained) <= min(costs[name] for name in costs if name not in trained)


def test_eight_minutes_of_an_h100_train_three_fast_members_and_not_the_slowest():
    hours = (504 - 105) / 3600  # 105 s had gone into measuring
    made, _ = plan_of(hours, on_gpu=True, slots=3, measured=H100, first_teacher="")
    assert {one.name for one in made.members} == {"vgg19", "resnet9", "resnet9_crop40"}
    assert min(one.epochs for one in made.members) >= 28  # 21, of preact_resnet and resnet9, were planned that day
    alone, _ = plan_of(hours, on_gpu=True, slots=3, measured=H100)  # taught by the package's network
    assert not alone.members
    assert min(one.epochs for one in alone.taught) > 2 * max(one.epochs for one in made.taught if one.role == STUDENT)


def test_a_kind_that_cannot_be_trained_is_the_first_to_be_left_out():
    speeds = Speeds({name: pace for name, pace in H100.items() if name != "vgg19"}, 3, FACES, on_gpu=True)
    fewer = [roster for roster in rosters(on_gpu=True, slots=3, seconds=speeds.epoch) if len(roster.members) < 6]
    assert fewer
    assert not any(kind.probe == "vgg19" for roster in fewer for kind in roster.members)


def test_a_plan_for_an_h100_is_what_the_card_then_took():
    """Three students and the small network, taught by two, and the evaluations: seconds that were measured."""
    speeds = Speeds(H100, 3, FACES, on_gpu=True)
    roster = h100_roster(speeds, "resnet9", "preact_resnet")
    build = students_of(roster, speeds, H100[STUDENT].train + H100["preact_resnet"].train, ("students", "small"))
    student = next(one for one in build(26) if one.role == STUDENT)
    assert student.seconds == pytest.approx(195.6, rel=0.05)
    small = next(one for one in build(32) if one.role == SMALL)
    assert 152.4 <= small.seconds <= 1.2 * 152.4  # early rather than late
    choosing, closing = evaluation_seconds(roster, speeds, PARTS)
    assert choosing == pytest.approx(20.7, rel=0.1)
    assert closing == pytest.approx(38.4, rel=0.1)


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
    made = {one.name: one for one in students_within(Build(rows, {SMALL: MOST_SMALL}, 2), 400, 0)}
    assert made["student_0"].epochs == 20  # two rounds of 200 s
    assert made[SMALL].epochs == MOST_SMALL
    assert max(one.end for one in made.values()) <= 400
    assert students_within(Build(rows, {SMALL: MOST_SMALL}, 2), 5, 0) == []
