"""Notes on splits: their sizes, shared groups, and the classes that they lack."""

from dataclasses import replace

import numpy as np

from fer.config.settings import DataSettings
from fer.data.load import assign
from fer.data.split_notes import NOT_OFFICIAL, group_notes, missing_classes, official_notes


def test_shared_people_are_counted(of_people):
    parts = np.where(np.arange(350) == np.flatnonzero(of_people.group == 3)[0], 1, 0).astype(np.int8)
    assert group_notes(of_people, parts)[0].startswith("1 of 25 groups")
    kept = assign(of_people, "holdout", seed=0, val_fraction=0.1)
    assert "none is in train and in another split" in group_notes(of_people, kept)[0]


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
