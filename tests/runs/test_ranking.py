"""What is ranked together, what is one configuration, what is reported of the others, on untrained runs."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fer.runs.metrics import RunMetrics
from fer.runs.ranking import Run, Setting, cell, columns, data_differences, digest, p_text, rankings
from fer.system.records import read

FACES = Setting("drawn at 24x24", "f1", "drawn", ("a", "b"), False, "official", "val", 200, "d1")
CNN = {"model.name": "cnn", "model.depth": 1, "optimizer.lr": 0.001, "augment.flip": 0.5, "trainer.max_epochs": 3}
MLP = {"model.name": "mlp", "model.hidden": [16], "optimizer.lr": 0.001, "augment.flip": 0.5, "trainer.max_epochs": 3}
CHOICES = {"model": "cnn", "optimizer": "adamw", "augment": "flip", "trainer": "cpu", "experiment": "none"}


def made(right, seed=0, settings=CNN, overridden=(), setting=FACES, choices=None, **figures):
    """A run that is right on the first ``right`` of its 200 faces."""
    correct = np.arange(200) < right
    dataset = {"name": "drawn", "path": "synthetic", "split": "official"}
    values = {
        "accuracy": right / 200,
        "seed": seed,
        "architecture": settings["model.name"],
        "dataset": dataset,
        **figures,
    }
    metrics = read(RunMetrics, {"split": "val", "n": 200, "best_epoch": 1, **values})
    chosen = {**CHOICES, "model": settings["model.name"], **(choices or {})}
    folder = Path(f"{right}-{seed}")
    return Run(folder, settings, chosen, frozenset(overridden), metrics, setting, [], correct)


def groups_of(*runs):
    (only,) = rankings(runs)
    return only


def test_seeds_of_one_configuration_are_one_group():
    only = groups_of(made(100, 0), made(110, 2), made(90, 1), made(150, 0, MLP))
    assert [[run.seed for run in group.runs] for group in only.groups] == [[0], [0, 1, 2]]
    seeds = only.groups[1].accuracy
    assert (seeds.number, seeds.mean, seeds.sd) == (3, pytest.approx(0.5), pytest.approx(0.05))
    assert only.best is only.groups[0]
    assert only.groups[1].correct.shape == (3, 200)


def test_of_a_seed_that_was_run_again_the_later_run_counts():
    early = made(100, finished="2026-01-01T10:00:00+00:00")
    late = made(120, finished="2026-01-02T09:00:00+00:00")
    for runs in ((early, late), (late, early)):
        (group,) = groups_of(*runs).groups
        assert group.runs == [late]
        assert group.repeats == [early]
        assert group.accuracy.mean == 0.6
    (group,) = groups_of(made(100), late).groups
    assert group.runs == [late]  # a run of a version whose runs did not record when they ended


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": "f2"}, "different data: drawn at 24x24 (f1); drawn at 24x24 (f2)"),
        ({"labels": "ferplus argmax"}, "different labels: drawn; ferplus argmax"),
        ({"split": "holdout", "split_seed": 3}, "different split: official; holdout, drawn with seed 3"),
        ({"digest": "d2"}, "different faces scored: 200 of val (d1); 200 of val (d2)"),
        ({"stand_in": True}, "different drawn faces: not in place of other data; in place of data that were not found"),
        ({"classes": ("b", "a")}, "different emotions: a, b; b, a"),
    ],
)
def test_runs_that_cannot_be_compared_are_apart_and_it_says_why(change, reason):
    other = replace(FACES, **change)
    ranked = rankings([made(100), made(100, 1), made(190, setting=other)])
    assert [len(one.groups[0].runs) for one in ranked] == [2, 1]  # the larger one first, whoever is ahead
    assert data_differences(ranked) == [reason]


def test_a_draw_of_the_same_faces_is_the_same_whatever_its_seed():
    split = replace(FACES, split="as_given")
    ranked = rankings(
        [made(100, setting=replace(split, split_seed=1)), made(90, 1, setting=replace(split, split_seed=2))]
    )
    assert len(ranked) == 1
    assert data_differences(ranked) == []


def test_a_copy_of_another_name_has_the_same_data():
    copy = replace(FACES, data="copy at 24x24")
    assert len(rankings([made(100), made(90, 1, setting=copy)])) == 1
    apart = rankings([made(100), made(90, 1, setting=replace(copy, digest="d2"))])
    assert data_differences(apart) == ["different faces scored: 200 of val (d1); 200 of val (d2)"]


def test_a_choice_stands_for_the_keys_that_follow_from_it():
    assert columns(groups_of(made(100), made(120, 0, MLP)).groups) == ["model"]


def test_what_differs_within_a_choice_is_reported_by_its_key():
    deeper = {**CNN, "model.depth": 2}
    assert columns(groups_of(made(100), made(120, 0, deeper), made(90, 0, MLP)).groups) == ["model", "model.depth"]
    faster = {**CNN, "optimizer.lr": 0.1}
    assert columns(groups_of(made(100), made(120, 0, faster)).groups) == ["optimizer.lr"]


def test_a_key_that_the_command_line_named_does_not_hide_behind_a_choice():
    only = groups_of(made(100), made(120, 0, MLP, overridden=["model", "model.hidden"]))
    assert only.columns == ["model", "model.hidden"]
    assert [cell(group, "model.hidden") for group in only.groups] == ["[16]", "-"]


def test_an_experiment_stands_for_keys_of_all_sections():
    longer = {**CNN, "trainer.max_epochs": 9, "augment.flip": 0.0}
    runs = made(100, choices={"experiment": "plain"}), made(120, 0, longer, choices={"experiment": "long"})
    assert groups_of(*runs).columns == ["experiment"]
    third = made(90, 0, {**longer, "optimizer.lr": 0.1}, ["optimizer.lr"], choices={"experiment": "long"})
    assert groups_of(*runs, third).columns == ["experiment", "optimizer.lr"]


def test_a_choice_that_one_group_made_in_two_ways_explains_nothing():
    """augment=none augment.flip=0.5 is augment=flip by another name."""
    same = made(100, 0), made(110, 1, choices={"augment": "none"})
    other = made(120, 0, {**CNN, "augment.flip": 0.0}, choices={"augment": "none"})
    assert groups_of(*same, other).columns == ["augment.flip"]


def test_pretrained_weights_are_a_column_and_no_barrier():
    only = groups_of(made(100), made(120, pretrained={"name": "imagenet"}))
    assert only.columns == ["pretrained"]
    assert [cell(group, "pretrained") for group in only.groups] == ["imagenet", "none"]
    assert groups_of(made(100), made(90, 0, MLP)).columns == ["model"]


def test_labels_are_short_and_tell_groups_apart():
    keys = ("optimizer.lr", "augment.flip", "augment.rotate_degrees", "trainer.max_epochs")
    settings = [
        {**CNN, **dict(zip(keys, values, strict=True))} for values in product((0.001, 1), (0, 1), (0, 9), (3, 9))
    ]
    only = groups_of(*(made(100 + index, 0, one) for index, one in enumerate([*settings, MLP])))
    labels = [only.label(group) for group in only.groups]
    assert len(set(labels)) == 17
    assert labels[0] == "mlp"
    assert "cnn, lr 0.001" in labels  # all else is what most of the others have
    assert not only.brief
    alone = groups_of(made(100))
    assert alone.label(alone.groups[0]) == "one configuration"
    two = groups_of(made(100), made(90, 0, MLP))
    assert [two.label(group) for group in two.groups] == ["cnn", "mlp"]
    assert two.brief


def test_groups_are_sorted_by_what_is_asked_and_those_without_it_come_last():
    runs = [made(100, nll=1.0), made(120, 0, MLP, nll=1.5), made(150, 0, {**CNN, "model.depth": 3})]
    (only,) = rankings(runs, by="nll")
    assert [group.runs[0] for group in only.groups] == runs
    assert only.best.runs == [runs[2]]
    (only,) = rankings(runs)
    assert [group.runs[0] for group in only.groups] == runs[::-1]


def test_a_metric_that_a_seed_lacks_has_no_mean():
    (group,) = groups_of(made(100, 0, peak_memory_mb=900.0), made(100, 1, peak_memory_mb=None)).groups
    assert group.metric("peak_memory_mb") is None
    assert group.written("peak_memory_mb") == "-"
    assert group.metric("accuracy").mean == 0.5


def test_differences_of_all_pairs_are_adjusted_together():
    only = groups_of(made(100), made(101, 0, MLP), made(180, 0, {**CNN, "model.depth": 3}))
    best, middle, last = only.groups
    found, p = only.difference(last, best)
    assert found.value == pytest.approx(-0.4)
    assert found.interval.high < -0.3
    assert p == pytest.approx(3 * found.p)
    turned, same = only.difference(best, last)
    assert (turned.value, same) == (-found.value, p)
    assert turned.interval == (-found.interval.high, -found.interval.low)
    assert only.difference(middle, last)[1] > 0.05


def test_machines_are_named_once_each():
    cpu = {"cpu": "AMD EPYC", "cores": 2, "threads": 1, "gpu": None}
    only = groups_of(made(100, hardware=cpu), made(90, 1, hardware=cpu), made(95, 2, hardware={**cpu, "gpu": "H200"}))
    assert only.machines() == ["AMD EPYC, 1 thread", "H200, 1 thread"]


def test_runs_share_faces_only_if_rows_labels_and_data_agree():
    assert made(1).same_faces(made(2))
    for change in ({"digest": "d2"}, {"fingerprint": "f2"}, {"classes": ("b", "a")}):
        assert not made(1).same_faces(made(2, setting=replace(FACES, **change)))
    rows = np.arange(3)
    assert digest(rows, ["a", "b", "a"]) == digest(rows.copy(), ["a", "b", "a"])
    assert len({digest(rows, ["a", "b", "a"]), digest(rows, ["a", "b", "b"]), digest(rows + 1, ["a", "b", "a"])}) == 3


@pytest.mark.parametrize(("p", "words"), [(0, "< 0.0001"), (0.00234, "0.0023"), (0.0512, "0.051"), (0.5, "0.50")])
def test_p_values_are_rounded_to_what_matters(p, words):
    assert p_text(p) == words
