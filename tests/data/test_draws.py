"""Draws of splits: seeded, stratified, and whole for faces that belong together."""

from dataclasses import replace

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.faces import UNKNOWN
from fer.data.load import assign
from fer.data.readers import synthetic


def test_holdout_is_a_stratified_80_20_of_everything(faces, of_classes):
    for split in (faces, replace(faces, given=np.repeat(np.arange(3, dtype=np.int8), (200, 100, 50)))):
        splits = assign(split, "holdout", seed=0, val_fraction=0.5)
        assert splits.dtype == np.int8
        assert of_classes(faces, splits, 0) == [40] * 7
        assert of_classes(faces, splits, 1) == [10] * 7


def test_holdout_of_uneven_classes_rounds_each(faces, of_classes):
    keep = np.flatnonzero((faces.targets != 1) | (np.arange(350) < 35))  # five of disgust
    columns = ("images", "targets", "official", "given", "rows")
    uneven = replace(faces, **{name: getattr(faces, name)[keep] for name in columns})
    splits = assign(uneven, "holdout", seed=0, val_fraction=0.1)
    assert of_classes(uneven, splits, 1) == [10, 1, 10, 10, 10, 10, 10]


@pytest.mark.parametrize("rule", ["holdout", "as_given"])
def test_a_draw_is_a_function_of_its_seed(rule, faces):
    split = replace(faces, given=np.zeros(350, np.int8))
    draws = [assign(split, rule, seed=seed, val_fraction=0.2) for seed in (0, 0, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    for one, other in ((0, 2), (0, 3), (2, 3)):
        assert (draws[one] != draws[other]).any()


def test_a_draw_does_not_take_neighbours(faces):
    held_out = np.flatnonzero(assign(faces, "holdout", seed=0, val_fraction=0.1) == 1)
    assert held_out.min() < 70
    assert held_out.max() >= 280


# --- folds ------------------------------------------------------------------------------------------------------------


def folds_of(faces, number, seed=0):
    return [assign(faces, "folds", seed=seed, val_fraction=0.1, folds=number, fold=fold) for fold in range(number)]


@pytest.fixture
def strangers():
    """350 faces, 50 of each class, no two alike."""
    return synthetic.read(350, seed=4, image_size=24)


def test_a_labelled_copy_of_an_unlabelled_face_is_in_a_fold(strangers):
    images, targets = strangers.images.copy(), strangers.targets.copy()
    images[5], targets[0] = images[0], UNKNOWN
    copied = replace(strangers, images=images, targets=targets)
    folds = np.array(folds_of(copied, 5))
    assert (folds[:, 0] == UNKNOWN).all()
    assert ((folds[:, 1:] == 1).sum(0) == 1).all()


@pytest.mark.parametrize("number", [2, 5, 7])
def test_every_face_is_val_of_one_fold_and_train_of_the_others(strangers, number, of_classes):
    made = folds_of(strangers, number)
    assert (sum((splits == 1).astype(int) for splits in made) == 1).all()
    assert all(set(splits.tolist()) == {0, 1} for splits in made)
    for splits in made:
        assert max(of_classes(strangers, splits, 1)) - min(of_classes(strangers, splits, 1)) <= 1


def test_folds_are_a_function_of_their_seed(strangers):
    first, again, other = (folds_of(strangers, 5, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_duplicates_stay_in_one_fold_and_the_rest_balances_the_folds(strangers, of_classes):
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


# --- groups -----------------------------------------------------------------------------------------------------------


def test_holdout_and_folds_keep_people_whole(of_people, of_classes):
    people = np.where(of_people.group == 24, 0, of_people.group)  # the shared picture joins two
    draws = [assign(of_people, "holdout", seed=seed, val_fraction=0.1) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
    draws += [assign(of_people, "folds", seed=0, val_fraction=0.1, folds=5, fold=fold) for fold in range(5)]
    for splits in draws:
        assert all(len(set(splits[people == person])) == 1 for person in set(people))
        assert of_classes(of_people, splits, 1) == [10] * 7
    np.testing.assert_array_equal(sum((splits == 1).astype(int) for splits in draws[3:]), 1)


def test_val_drawn_from_train_keeps_people_whole(of_people, of_classes):
    splits = assign(
        replace(of_people, given=np.where(of_people.group < 20, 0, 2).astype(np.int8)),
        "as_given", seed=0, val_fraction=0.1,
    )  # fmt: skip
    assert of_classes(of_people, splits, 1) == [4] * 7
    assert not set(of_people.group[splits == 0]) & set(of_people.group[splits == 1])
    assert (splits[of_people.group >= 20] == 2).all()


@pytest.mark.parametrize("videos", [2, 4, 6])
def test_videos_of_one_emotion_each_fill_all_parts(of_people, videos):
    emotions = np.repeat(np.arange(7, dtype=np.int8), videos * 8)[:350]
    units = np.repeat(np.arange(7 * videos, dtype=np.int32), 8)[: len(emotions)]
    clips = of_people.taken(np.arange(len(emotions)))
    clips = replace(clips, images=np.random.default_rng(0).integers(0, 256, clips.images.shape, np.uint8))
    clips = replace(clips, targets=emotions, group=units)
    share = (assign(clips, "holdout", seed=42, val_fraction=0.1) == 1).mean()
    assert 0.1 < share < 0.3
    folds = [assign(clips, "folds", seed=42, val_fraction=0.1, folds=5, fold=fold) == 1 for fold in range(5)]
    counts = [int(val.sum()) // 8 for val in folds]
    assert min(counts) >= sum(counts) / 10
    assert sum(counts) == 7 * videos


def test_one_person_alone_cannot_be_drawn_from(of_people):
    with pytest.raises(FerError, match="one person"):
        assign(replace(of_people, group=np.zeros(350, np.int32)), "holdout", seed=0, val_fraction=0.1)
