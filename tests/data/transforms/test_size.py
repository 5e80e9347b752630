"""``stages``: progressive resizing."""

import pytest
import torch
from conftest import SMALL

from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.transforms.size import reduced, stage_size
from fer.models import MODELS

STAGES = [[16, 2], [20, 1], [24, 2]]
NETWORK = ("model=resnet9", "model.width=4", "data=synthetic", "data.synthetic_count=200", "data.image_size=24",
           "trainer.threads=1", "logger=none")  # fmt: skip


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """A training writes into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def test_an_epoch_has_the_size_of_its_stage():
    assert [stage_size(STAGES, epoch) for epoch in range(7)] == [16, 16, 20, 24, 24, 24, 24]


def test_each_pixel_is_the_mean_of_what_it_covers():
    faces = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert reduced(faces, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert reduced(faces, 4) is faces


def test_each_stage_trains_and_is_validated_at_its_size_and_the_last_is_kept(train, tmp_path, monkeypatch):
    batches = []
    network = MODELS.get("resnet9")
    logits_of_crops = network.logits_of_crops

    def spy(self, images):
        if getattr(self, "_trainer", None) is not None:
            batches.append((self.trainer.current_epoch, self.training, images.shape[-1]))
        return logits_of_crops(self, images)

    monkeypatch.setattr(network, "logits_of_crops", spy)
    ended = train(*NETWORK, f"stages={STAGES}".replace(" ", ""), "trainer.max_epochs=5", "hydra.run.dir=run")
    assert ended.code == 0, ended
    sizes = {(epoch, training): size for epoch, training, size in batches}
    assert sizes == {(epoch, mode): stage_size(STAGES, epoch) for epoch in range(5) for mode in (True, False)}
    assert len({(epoch, size) for epoch, _, size in batches}) == 5
    epochs = [row for row in ended.out.splitlines() if row.startswith("epoch ")]
    assert not any("* best" in row for row in epochs[:3])
    assert "* best" in epochs[3]


def test_faces_are_served_whole_outside_a_training():
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=140, image_size=24), stages=STAGES)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert data.on_after_batch_transfer(batch, 0).images.shape[-2:] == (24, 24)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ("[[16,2],[24,2]]", "has 4 epochs; set trainer.max_epochs=4"),
        ("[[24,2],[16,3]]", "the last size must be data.image_size=24"),
        ("[[12,2],[24,3]]", "expected [[size, epochs], ...], sizes from 16 to data.image_size=24"),
        ("[[48,2],[24,3]]", "sizes from 16 to data.image_size=24"),
        ("[[16],[24,4]]", "expected [[size, epochs], ...]"),
        ("[[16,0],[24,5]]", "expected [[size, epochs], ...]"),
        ("[16,24]", "stages"),
    ],
)
def test_stages_that_make_no_sense_are_one_line(train, stages, says):
    ended = train(*NETWORK, f"stages={stages}", "trainer.max_epochs=5")
    assert ended.code == 1
    assert says in ended.line


def test_a_network_of_one_size_says_so(train):
    ended = train(*SMALL, "stages=[[16,1],[24,1]]", "trainer.max_epochs=2")
    assert ended.code == 1
    assert "stages=[[16, 1], [24, 1]]: model=mlp: cannot take faces of shape (2, 1, 16, 16)" in ended.line
