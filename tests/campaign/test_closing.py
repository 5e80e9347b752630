"""The shared files of a campaign: when their accuracy on val is measured again."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fer.campaign import closing
from fer.campaign.closing import Closing
from fer.campaign.record import Network, Record, Request


@pytest.mark.parametrize("key", ["data.labels=ferplus", "data.classes=8", "data.more=[RAF-DB]"])
def test_no_accuracy_is_stated_on_another_val_than_the_campaign_s(key):
    record = SimpleNamespace(request=SimpleNamespace(settings=(key,)))
    assert Closing(SimpleNamespace(record=record, folder=Path("x")))._evaluated([Path("best.safetensors")]) == {}


@pytest.mark.parametrize(("evaluated", "shared"), [(("val", "test"), "test"), (("val",), "val")])
def test_a_network_without_time_for_test_is_shared_with_the_card_of_val(evaluated, shared, tmp_path, monkeypatch):
    record = Record(Request(1.0, "synthetic"), "", "")
    record.networks = [Network("small", "small", [], 5, 0, 10, state="done")]
    for split in evaluated:
        folder = tmp_path / "small" / "evaluations" / f"{split}_ten_crop"
        folder.mkdir(parents=True)
        (folder / "metrics.json").touch()
    given = []
    monkeypatch.setattr(closing, "_share", lambda folder, file: given.append(folder.name) or 1)
    selection = SimpleNamespace(
        record=record,
        folder=tmp_path,
        best_single=lambda: None,
        evaluate=lambda *_: None,
        context=SimpleNamespace(seconds_left=lambda: 1.0),
    )
    Closing(selection).share(with_test=True)
    assert given == [f"{shared}_ten_crop"]
    assert list(record.shared) == ["small.safetensors"]
