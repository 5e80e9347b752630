"""The table of faces."""

from fer.data.faces import counts


def test_counts_name_splits_and_emotions(drawn):
    table = counts(drawn.targets, drawn.official)
    assert {split: sum(by_label.values()) for split, by_label in table.items()} == {"train": 56, "val": 7, "test": 7}
    assert table["val"] == dict.fromkeys(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), 1)
    assert "test" not in counts(drawn.targets[drawn.official < 2], drawn.official[drawn.official < 2])
