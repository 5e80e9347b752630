"""Splits of loaded faces: those of the source are used, and missing ones are refused."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import SMALL, metrics

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.audit.inspection import split_of
from fer.data.faces import UNKNOWN
from fer.data.load import assign, assigned_with_notes
from fer.data.readers import READERS


def given(faces, *sizes):
    """Return the faces in folders of these sizes: train, val, test."""
    return replace(faces, given=np.repeat(np.arange(3, dtype=np.int8), sizes))


def test_official_is_taken_as_it_is(drawn):
    splits = assign(drawn, "official", seed=5, val_fraction=0.5)
    np.testing.assert_array_equal(splits, drawn.official)
    splits[:] = 0  # the caller's own
    assert set(drawn.official) == {0, 1, 2}


def test_official_is_refused_without_any_official_split(faces):
    with pytest.raises(FerError, match=r"has no official split \(Usage\) for 350 of 350 faces"):
        assign(faces, "official", seed=0, val_fraction=0.1)


def test_official_is_refused_if_one_face_has_no_official_split(drawn):
    official = drawn.official.copy()
    official[3] = UNKNOWN
    alone = replace(drawn, official=official, given=np.full(70, UNKNOWN, np.int8))
    with pytest.raises(FerError, match=r"for 1 of 70 faces.*; use data.split=holdout"):
        assign(alone, "official", seed=0, val_fraction=0.1)
    with pytest.raises(FerError, match=r"for 1 of 70 faces.* data.split=as_given .* data.split=holdout"):
        assign(replace(drawn, official=official, given=drawn.official), "official", seed=0, val_fraction=0.1)


@pytest.mark.parametrize(("only", "missing"), [(0, "val"), (1, "train")])
def test_official_is_refused_without_train_or_val(only, missing, drawn):
    alone = replace(drawn, official=np.full(70, only, np.int8))
    with pytest.raises(FerError, match=f"has no face for {missing}"):
        assign(alone, "official", seed=0, val_fraction=0.1)


def test_as_given_with_val_is_taken_as_it_is(faces):
    split = given(faces, 200, 100, 50)
    for seed in (0, 1):
        np.testing.assert_array_equal(assign(split, "as_given", seed=seed, val_fraction=0.3), split.given)


@pytest.mark.parametrize("change", [{"val_fraction": 0.3}, {"keep_duplicates_together": True}, {"split_seed": 1}])
def test_settings_of_a_drawn_val_are_noted_where_the_source_has_one(change, faces):
    (key,) = change
    data = DataSettings(split="as_given", **change)
    splits, notes = assigned_with_notes(given(faces, 300, 50, 0), data)
    assert (splits == 1).sum() == 50
    assert len(notes) == 1
    assert f"data.{key} without effect" in notes[0]
    assert not any("without effect" in note for note in assigned_with_notes(given(faces, 350, 0, 0), data)[1])
    assert not assigned_with_notes(given(faces, 300, 50, 0), DataSettings(split="as_given"))[1]


def test_as_given_without_val_holds_it_out_of_train(faces, of_classes):
    split = given(faces, 280, 0, 70)
    splits = assign(split, "as_given", seed=0, val_fraction=0.25)
    np.testing.assert_array_equal(splits == 2, split.given == 2)
    assert of_classes(faces, splits, 1) == [10] * 7
    assert of_classes(faces, splits, 0) == [30] * 7
    assert (split.given == 1).sum() == 0  # the table is left alone


def test_as_given_is_refused_where_the_source_has_no_folders(faces):
    with pytest.raises(FerError, match=r"has no train folder or file of its own; use data.split=holdout"):
        assign(faces, "as_given", seed=0, val_fraction=0.1)


def test_as_given_is_refused_without_train(faces):
    with pytest.raises(FerError, match="has no face for train"):
        assign(given(faces, 0, 0, 350), "as_given", seed=0, val_fraction=0.1)


def test_as_given_is_refused_where_val_would_be_empty(faces):
    few = given(faces, 7, 0, 343)
    with pytest.raises(FerError, match="has no face for val"):
        assign(few, "as_given", seed=0, val_fraction=0.1)


# --- faces without a label ------------------------------------------------------------------------------------------


def without_labels(faces, *rows):
    targets = faces.targets.copy()
    targets[list(rows)] = UNKNOWN
    return replace(faces, targets=targets)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("rule", ["official", "as_given", "holdout", "folds"])
def test_faces_without_a_label_are_in_no_split_and_are_counted(rule, grouped, drawn):
    faces = replace(drawn, group=np.arange(70, dtype=np.int32) // 2) if grouped else drawn
    splits, (note,) = assigned_with_notes(without_labels(faces, 3, 4, 40), DataSettings(split=rule))
    assert np.flatnonzero(splits == UNKNOWN).tolist() == [3, 4, 40]
    assert {0, 1} <= set(splits[splits != UNKNOWN].tolist())
    assert note == "3 faces without a label left out: in no split"


def test_holdout_draws_the_labelled_faces_as_if_they_were_alone(faces, part):
    labelled = [row for row in range(350) if row % 9]
    splits = assign(without_labels(faces, *range(0, 350, 9)), "holdout", seed=0, val_fraction=0.1)
    alone = assign(part(faces, labelled), "holdout", seed=0, val_fraction=0.1)
    np.testing.assert_array_equal(splits[labelled], alone)


def test_a_face_without_a_label_needs_no_official_split(drawn):
    official = drawn.official.copy()
    official[3] = UNKNOWN
    splits = assign(without_labels(replace(drawn, official=official), 3), "official", seed=0, val_fraction=0.1)
    np.testing.assert_array_equal(splits, official)


@pytest.mark.parametrize(("split", "missing"), [(0, "train"), (1, "val")])
def test_a_split_of_faces_without_labels_is_no_split(split, missing, drawn):
    unlabelled = without_labels(drawn, *np.flatnonzero(drawn.official == split))
    for rule in ("official", "as_given"):
        with pytest.raises(FerError, match=f"has no labelled face for {missing}"):
            assigned_with_notes(unlabelled, DataSettings(split=rule))


@pytest.mark.parametrize("rule", ["holdout", "folds"])
def test_too_few_labelled_faces_for_a_draw_are_not_sent_to_another_draw(rule, drawn):
    few = without_labels(drawn, *range(1, 70))
    with pytest.raises(FerError) as caught:
        assigned_with_notes(few, DataSettings(split=rule))
    assert "use data.split" not in str(caught.value)


def test_an_audit_sees_the_split_of_faces_without_labels(drawn):
    """Their copies in train matter once the labels are there."""
    hidden = np.flatnonzero(drawn.official == 2)
    for faces in (drawn, replace(drawn, official=np.full(70, UNKNOWN, np.int8))):
        audited = split_of(without_labels(faces, *hidden), None, DataSettings())
        assert (audited.splits[hidden] == 2).all()


def test_training_leaves_out_the_faces_to_which_a_reader_gives_no_label(train, table, monkeypatch):
    csv = READERS.get("csv")
    read = csv.read
    monkeypatch.setattr(csv, "read", lambda *given, **named: without_labels(read(*given, **named), 3, 4, 40))
    ended = train(*SMALL[3:], f"data.path={table}", "data.split=holdout", "data.cache=null", "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    dataset = metrics(table.parent / "out")["dataset"]
    assert "3 faces without a label left out: in no split" in dataset["notes"]
    assert sum(sum(counts.values()) for counts in dataset["counts"].values()) == 67
