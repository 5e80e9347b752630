"""Splits of loaded faces: those of the source are used, and missing ones are refused."""

from dataclasses import replace

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.data.faces import UNKNOWN
from fer.data.load import assign


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
