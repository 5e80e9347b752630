"""The shared files of a campaign: when their accuracy on val is measured again."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fer.campaign.closing import Closing


@pytest.mark.parametrize("key", ["data.labels=ferplus", "data.classes=8", "data.more=[RAF-DB]"])
def test_no_accuracy_is_stated_on_another_val_than_the_campaign_s(key):
    record = SimpleNamespace(request=SimpleNamespace(settings=(key,)))
    assert Closing(SimpleNamespace(record=record, folder=Path("x")))._evaluated([Path("best.safetensors")]) == {}
