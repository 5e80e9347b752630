"""Splits: those of the source are used, missing ones are refused, random draws are seeded and stratified."""

from dataclasses import replace

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.faces import UNKNOWN, counts
from fer.data.readers import synthetic
from fer.data.split_notes import NOT_OFFICIAL, group_notes, missing_classes, official_notes
from fer.data.splits import assign, assigned_with_notes, without_conflicts


@pytest.fixture
def faces(drawn):
    """350 faces, 50 of each class, without any split."""
    index = np.tile(np.arange(70), 5)
    nothing = np.full(350, UNKNOWN, np.int8)
    return replace(
        drawn,
        images=drawn.images[index],
        targets=drawn.targets[index],
        official=nothing,
        given=nothing,
        rows=np.arange(350),
    )


def given(faces, *sizes):
    """Return the faces in folders of these sizes: train, val, test."""
    return replace(faces, given=np.repeat(np.arange(3, dtype=np.int8), sizes))


def of_classes(faces, splits, split):
    return np.bincount(faces.targets[splits == split], minlength=7).tolist()


def test_official_is_taken_as_it_is(drawn):
    splits = assign(drawn, "official", seed=5, val_fraction=0.5)
    np.testing.assert_array_equal(splits, drawn.official)
    splits[:] = 0  # the caller's own
    assert set(drawn.official) == {0, 1, 2}


def test_duplicates_with_conflicting_labels_leave_train_and_nothing_else(faces):
    """Copies are 70 rows apart: labels of three are changed, one of them in val, which is not compared."""
    splits = np.repeat(np.array([0, 0, 0, 0, 1], np.int8), 70)
    targets = faces.targets.copy()
    targets[[5, 76]] = (targets[[5, 76]] + 1) % 7
    targets[283] = (targets[283] + 1) % 7
    kept, count = without_conflicts(replace(faces, targets=targets), splits)
    gone = [index + copy for index in (5, 6) for copy in (0, 70, 140, 210)]
    assert count == 8
    assert np.flatnonzero(kept == UNKNOWN).tolist() == sorted(gone)
    assert (kept[kept != UNKNOWN] == splits[kept != UNKNOWN]).all()
    assert without_conflicts(faces, splits)[1] == 0
    alone = np.where(np.isin(np.arange(350), gone), splits, np.int8(UNKNOWN))
    with pytest.raises(FerError, match="leaves no face in train"):
        without_conflicts(replace(faces, targets=targets), alone)


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


def test_as_given_without_val_holds_it_out_of_train(faces):
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


def test_holdout_is_a_stratified_80_20_of_everything(faces):
    for split in (faces, given(faces, 200, 100, 50)):
        splits = assign(split, "holdout", seed=0, val_fraction=0.5)
        assert splits.dtype == np.int8
        assert of_classes(faces, splits, 0) == [40] * 7
        assert of_classes(faces, splits, 1) == [10] * 7


def test_holdout_of_uneven_classes_rounds_each(faces):
    keep = np.flatnonzero((faces.targets != 1) | (np.arange(350) < 35))  # five of disgust
    columns = ("images", "targets", "official", "given", "rows")
    uneven = replace(faces, **{name: getattr(faces, name)[keep] for name in columns})
    splits = assign(uneven, "holdout", seed=0, val_fraction=0.1)
    assert of_classes(uneven, splits, 1) == [10, 1, 10, 10, 10, 10, 10]


@pytest.mark.parametrize("rule", ["holdout", "as_given"])
def test_a_draw_is_a_function_of_its_seed(rule, faces):
    split = given(faces, 350, 0, 0)
    draws = [assign(split, rule, seed=seed, val_fraction=0.2) for seed in (0, 0, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    for one, other in ((0, 2), (0, 3), (2, 3)):
        assert (draws[one] != draws[other]).any()


def test_a_draw_does_not_take_neighbours(faces):
    held_out = np.flatnonzero(assign(faces, "holdout", seed=0, val_fraction=0.1) == 1)
    assert held_out.min() < 70
    assert held_out.max() >= 280


def test_counts_name_splits_and_emotions(drawn):
    table = counts(drawn.targets, drawn.official)
    assert {split: sum(by_label.values()) for split, by_label in table.items()} == {"train": 56, "val": 7, "test": 7}
    assert table["val"] == dict.fromkeys(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), 1)
    assert "test" not in counts(drawn.targets[drawn.official < 2], drawn.official[drawn.official < 2])


# --- folds ----------------------------------------------------------------------------------------------------------


def folds_of(faces, number, seed=0):
    return [assign(faces, "folds", seed=seed, val_fraction=0.1, folds=number, fold=fold) for fold in range(number)]


@pytest.fixture
def strangers():
    """350 faces, 50 of each class, no two alike."""
    return synthetic.read(350, seed=4, image_size=24)


@pytest.mark.parametrize("number", [2, 5, 7])
def test_every_face_is_val_of_one_fold_and_train_of_the_others(strangers, number):
    made = folds_of(strangers, number)
    assert (sum((splits == 1).astype(int) for splits in made) == 1).all()
    assert all(set(splits.tolist()) == {0, 1} for splits in made)
    for splits in made:
        assert max(of_classes(strangers, splits, 1)) - min(of_classes(strangers, splits, 1)) <= 1


def test_folds_are_a_function_of_their_seed(strangers):
    first, again, other = (folds_of(strangers, 5, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_duplicates_stay_in_one_fold_and_the_rest_balances_the_folds(strangers):
    images, targets = strangers.images.copy(), strangers.targets.copy()
    groups = [np.flatnonzero(targets == label)[:12] for label in (1, 3)] + [np.array([0, 349])]
    for group in groups:
        images[group] = images[group[0]]
    faces = replace(strangers, images=images)
    for splits in folds_of(faces, 5):
        assert all(len(set(splits[group].tolist())) == 1 for group in groups)
        sizes = of_classes(faces, splits, 1)
        assert max(sizes) <= 13
    together = replace(strangers, images=np.repeat(images[:70], 5, axis=0))  # five of each
    for splits in folds_of(together, 5):
        assert (splits.reshape(70, 5).std(1) == 0).all()


def test_an_unlabelled_face_is_of_no_fold(strangers):
    targets = strangers.targets.copy()
    targets[7] = UNKNOWN
    faces = replace(strangers, targets=targets)
    assert {int(splits[7]) for splits in folds_of(faces, 5)} == {UNKNOWN}


def test_too_few_faces_for_the_folds_are_refused(drawn):
    with pytest.raises(FerError, match="data.folds=100: 70 faces of .* are too few for this number of folds"):
        [assign(drawn, "folds", seed=0, val_fraction=0.1, folds=100, fold=fold) for fold in range(100)]


def test_a_fold_that_is_not_there_is_refused():
    with pytest.raises(FerError, match=r"data.fold=5: out of range; expected 0 to data.folds - 1 = 4"):
        DataSettings(split="folds", fold=5)


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def of_people(faces):
    """The 350 faces as 25 people with two faces of every class each; 0 and 24 share a picture, all others differ."""
    order = np.argsort(faces.targets, kind="stable").reshape(7, 25, 2)
    group = np.empty(350, np.int32)
    group[order] = np.arange(25, dtype=np.int32)[:, None]
    images = faces.images.copy()
    images[:, 0, 0], images[:, 0, 1] = np.arange(350) % 256, np.arange(350) // 256
    images[order[0, 0, 0]] = images[order[0, 24, 0]]
    return replace(faces, images=images, group=group)


def test_holdout_and_folds_keep_people_whole(of_people):
    people = np.where(of_people.group == 24, 0, of_people.group)  # the shared picture joins two
    draws = [assign(of_people, "holdout", seed=seed, val_fraction=0.1) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
    draws += [assign(of_people, "folds", seed=0, val_fraction=0.1, folds=5, fold=fold) for fold in range(5)]
    for splits in draws:
        assert all(len(set(splits[people == person])) == 1 for person in set(people))
        assert of_classes(of_people, splits, 1) == [10] * 7
    np.testing.assert_array_equal(sum((splits == 1).astype(int) for splits in draws[3:]), 1)


@pytest.mark.parametrize("settings", [{"split": "holdout"}, *({"split": "folds", "fold": fold} for fold in range(5))])
def test_near_duplicates_are_kept_together_where_it_is_asked_for(settings):
    first = synthetic.read(140, seed=3, image_size=48)
    darker = (first.images * 0.8).astype(np.uint8)[:, :, ::-1]  # mirrored too
    twice = [np.concatenate([one, one]) for one in (first.targets, first.official, first.given)]
    faces = replace(
        first, images=np.concatenate([first.images, darker]), rows=np.arange(280), targets=twice[0],
        official=twice[1], given=twice[2],
    )  # fmt: skip
    apart, no_notes = assigned_with_notes(faces, DataSettings(**settings))
    assert (apart[:140] != apart[140:]).any()
    assert no_notes == []
    kept, (note,) = assigned_with_notes(faces, DataSettings(**settings, keep_duplicates_together=True))
    assert (kept[:140] == kept[140:]).all()
    assert (kept == 1).sum() in range(46, 67)  # a fifth is 56
    assert note.startswith("280 faces in ")


def test_val_drawn_from_train_keeps_people_whole(of_people):
    splits = assign(
        replace(of_people, given=np.where(of_people.group < 20, 0, 2).astype(np.int8)),
        "as_given", seed=0, val_fraction=0.1,
    )  # fmt: skip
    assert of_classes(of_people, splits, 1) == [4] * 7
    assert not set(of_people.group[splits == 0]) & set(of_people.group[splits == 1])
    assert (splits[of_people.group >= 20] == 2).all()


def test_shared_people_are_counted(of_people):
    parts = np.where(np.arange(350) == np.flatnonzero(of_people.group == 3)[0], 1, 0).astype(np.int8)
    assert group_notes(of_people, parts)[0].startswith("1 of 25 groups")
    kept = assign(of_people, "holdout", seed=0, val_fraction=0.1)
    assert "none is in train and in another split" in group_notes(of_people, kept)[0]


def test_one_person_alone_cannot_be_drawn_from(of_people):
    with pytest.raises(FerError, match="one person"):
        assign(replace(of_people, group=np.zeros(350, np.int32)), "holdout", seed=0, val_fraction=0.1)


# --- what a split lacks ---------------------------------------------------------------------------------------------


def test_classes_missing_from_a_split_are_named_with_a_rule_that_has_them(drawn):
    official = drawn.official.copy()
    official[(official == 1) & (drawn.targets > 1)] = 0
    faces = replace(drawn, official=official, given=drawn.official)
    missing = missing_classes(faces, official, DataSettings(split="official"))
    assert missing.splits == {"val": drawn.classes[2:]}
    assert (missing.everywhere, missing.complete) == ((), "as_given")
    words = missing.in_words()
    assert "val has no face of fear" in words[0]
    assert "data.split=as_given" in words[1]
    assert missing_classes(drawn, drawn.official, DataSettings(split="official")) is None


def test_a_class_that_the_data_lack_has_no_remedy(drawn):
    faces = replace(drawn, targets=np.where(drawn.targets == 6, 0, drawn.targets).astype(np.int8))
    missing = missing_classes(faces, faces.official, DataSettings(split="official"))
    assert set(missing.splits) == {"train", "val", "test"}
    assert (missing.everywhere, missing.complete) == (("neutral",), None)


def test_a_part_of_fer2013_is_not_its_official_split(drawn):
    faces = replace(drawn, source=replace(drawn.source, labels="fer2013"))
    assert NOT_OFFICIAL in official_notes(faces, "official")[0]
    assert official_notes(faces, "holdout") == []
    whole = replace(
        faces,
        images=np.zeros((35_887, 1, 1), np.uint8),
        **{name: np.repeat(np.arange(3, dtype=np.int8), (28_709, 3_589, 3_589)) for name in ("official", "given")},
        targets=np.zeros(35_887, np.int8),
        rows=np.arange(35_887),
    )
    assert official_notes(whole, "official") == []
