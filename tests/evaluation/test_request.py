"""What an evaluation is asked for: the data settings that several networks have in common."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.labels import EMOTIONS
from fer.evaluation.request import Member, Request, present, same_split, settings_of
from fer.models import create


def keys(**changes):
    return asdict(DataSettings(**{"path": "synthetic", **changes}))


def member(name, dataset, channels=1):
    model = create({"name": "mlp", "hidden": [4]}, classes=list(EMOTIONS), image_size=24, in_channels=channels)
    model.provenance = replace(model.provenance, dataset=dataset)
    return Member(Path(name), model)


@pytest.mark.parametrize(
    ("rule", "used"),
    [
        ("official", ()),
        ("as_given", ("split_seed", "val_fraction", "keep_duplicates_together")),
        ("holdout", ("split_seed", "keep_duplicates_together")),
        ("folds", ("split_seed", "folds", "fold", "keep_duplicates_together")),
    ],
)
def test_a_key_that_the_rule_does_not_use_changes_no_split(rule, used):
    values = {"split_seed": 1, "val_fraction": 0.2, "folds": 7, "fold": 1, "keep_duplicates_together": True}
    for key, value in values.items():
        assert same_split(keys(split=rule), keys(split=rule, **{key: value})) == (key not in used), key


def test_each_key_counts_where_further_data_sets_have_rules_of_their_own():
    more = [{"path": "b", "split": "holdout"}]
    assert not same_split(keys(more=more), keys(more=more, split_seed=1))


def test_networks_of_grey_and_of_coloured_faces_are_told_apart_first():
    members = [member("a", {"settings": keys()}), member("b", {"settings": keys(channels=3)}, channels=3)]
    with pytest.raises(FerError, match=r"b: takes 3 channels of a face, a 1; score them apart"):
        settings_of(Request(networks=[]), members)


def test_a_network_that_names_no_data_is_not_looked_up_as_none(tmp_path, monkeypatch):
    (tmp_path / "None").write_text("")
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "empty"])
    assert not present(keys(path=None))
    with pytest.raises(FerError) as caught:
        settings_of(Request(networks=[]), [member("a", {"settings": keys(path=None)})])
    assert "does not name its training data" in str(caught.value)
    assert "set data.path= or $FER_DATA" in str(caught.value)
