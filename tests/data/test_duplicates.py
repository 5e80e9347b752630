"""Exact duplicates, on tables with copies made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.duplicates import across, conflicts, exact_duplicates, one_colour, without_conflicts
from fer.data.faces import UNKNOWN
from fer.data.load import assigned_with_notes
from fer.data.readers import synthetic
from fer.data.split_notes import duplicate_notes


def copied(images, *pairs):
    """Return the images with each (from, to) of ``pairs`` copied."""
    made = images.copy()
    for source, target in pairs:
        made[target] = made[source]
    return made


def as_lists(groups):
    return [group.tolist() for group in groups]


def test_drawn_faces_have_no_duplicates(drawn):
    assert exact_duplicates(drawn.images) == []


def test_groups_and_indices_are_in_the_tables_order(drawn):
    images = copied(drawn.images, (40, 3), (9, 2), (9, 60))
    assert as_lists(exact_duplicates(images)) == [[2, 9, 60], [3, 40]]


def test_one_level_of_one_pixel_makes_another_face(drawn):
    images = copied(drawn.images, (0, 1), (0, 2))
    images[2, 47, 47] ^= 1
    assert as_lists(exact_duplicates(images)) == [[0, 1]]


def test_mirrored_faces_are_no_duplicates(drawn):
    images = copied(drawn.images, (0, 1))
    images[1] = images[1, :, ::-1]
    assert exact_duplicates(images) == []


def test_a_table_of_one_face_and_one_of_none(drawn):
    assert exact_duplicates(drawn.images[:1]) == []
    assert exact_duplicates(drawn.images[:0]) == []


def test_labels_conflict_where_two_are_known_and_differ():
    targets = np.array([0, 0, 3, UNKNOWN, 4, 4, UNKNOWN, UNKNOWN], np.int8)
    groups = [np.array(members) for members in ([0, 1], [1, 2], [2, 3], [2, 3, 4], [6, 7])]
    assert conflicts(groups, targets).tolist() == [False, True, False, True, False]
    assert conflicts([], targets).tolist() == []


def test_no_face_is_its_own_duplicate():
    splits = np.array([0, 0, 1, 2, 2, 0, UNKNOWN], np.int8)
    groups = [np.array([0, 2]), np.array([1, 3, 4]), np.array([5, 6])]
    assert across(groups, splits).tolist() == [
        [0, 1, 1, 1],  # train: one duplicate in val, one in test, one in no split
        [1, 0, 0, 0],
        [2, 0, 2, 0],  # the two of test have each other, and one in train
        [1, 0, 0, 0],
    ]


def test_a_face_with_many_duplicates_in_a_split_is_counted_once():
    table = across([np.arange(5)], np.array([0, 0, 0, 0, 1], np.int8))
    assert table[:2, :2].tolist() == [[4, 4], [1, 0]]


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_one_colour_is_any_grey(drawn, grey):
    images = drawn.images.copy()
    images[7:10] = grey
    images[8, 0, 0] ^= 1
    images[9, 20, 30] ^= 1
    assert np.flatnonzero(one_colour(images)).tolist() == [7]


def test_the_notes_of_a_run_count_what_train_shares(drawn):
    train, val, test = (np.flatnonzero(drawn.official == split) for split in range(3))
    pairs = [(train[0], val[0]), (train[0], train[1]), (train[5], test[1]), (train[6], test[2]), (val[3], test[3])]
    faces = replace(drawn, images=copied(drawn.images, *pairs))
    assert duplicate_notes(faces, drawn.official) == [
        "1 of 7 val faces have an exact duplicate in train",
        "2 of 7 test faces have an exact duplicate in train",
    ]
    assert duplicate_notes(drawn, drawn.official) == []


# --- splits -----------------------------------------------------------------------------------------------------------


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
