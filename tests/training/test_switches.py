"""Switches of a training that go through the command: views, consistency, strength, conflicts."""

import pytest
from conftest import SMALL, metrics

from fer.train import main
from fer.training.callbacks.history import Stopwatch

NETWORK = (*SMALL[:4], "model=resnet9", "model.width=4", *SMALL[6:], "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "plain"
    assert main([*NETWORK, f"hydra.run.dir={folder}"]) == 0
    return metrics(folder)


@pytest.mark.parametrize(
    "overrides",
    [
        ("augment=strong", "augment.strength=0.5"),
        ("augment.views=2",),
        ("augment.views=2", "consistency=1"),
        ("augment.views=2", "augment.mixup=0.2", "augment.cutmix=1"),
        ("augment.views=3", "data.crop=20"),
        ("loss=bootstrapped",),
        ("data.conflicts=drop",),
    ],
)
def test_each_trains_and_is_another_training(train, plain, tmp_path, overrides):
    ended = train(*NETWORK, *overrides, "hydra.run.dir=changed")
    assert ended.code == 0, ended.err
    same = overrides == ("data.conflicts=drop",)  # no drawn face has a duplicate
    results = metrics(tmp_path / "changed")
    assert (results["nll"] == plain["nll"]) == same
    if same:
        assert "0 faces left out of train by data.conflicts" in " ".join(results["dataset"]["notes"])


def test_consistency_has_views_of_the_same_face_to_compare(train):
    for overrides in (("consistency=1",), ("consistency=1", "augment.views=2", "augment.mixup=0.2")):
        ended = train(*NETWORK, *overrides)
        assert (ended.code, "consistency=1: compares views of the same face" in ended.line) == (1, True), ended.line


def test_a_face_counts_once_however_many_views_it_has(train, tmp_path, monkeypatch):
    counted = []
    kept = Stopwatch.on_validation_start

    def noting(self, trainer, pl_module):
        counted.append(self.images)
        kept(self, trainer, pl_module)

    monkeypatch.setattr(Stopwatch, "on_validation_start", noting)
    assert train(*NETWORK, "augment.views=3").code == 0
    assert counted[-1:] == [112]


def test_views_leave_val_and_the_number_of_steps_as_they_are(train, tmp_path):
    assert train(*NETWORK, "augment.views=2", "hydra.run.dir=run").code == 0
    assert metrics(tmp_path / "run")["n"] == 14
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(rows) == 2
