"""``data.crop``: a network that classifies a crop of each face."""

import pytest
import torch
from conftest import SMALL, metrics

import fer
from fer.config.settings import AugmentSettings, DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.samples import first_batch
from fer.data.transforms import augment

CROPPED = (*SMALL[:4], "model=resnet9", "model.width=4", *SMALL[6:], "data.crop=20")


@pytest.mark.slow
def test_val_and_later_uses_of_the_network_see_the_middle(train, evaluate, tmp_path):
    assert train(*CROPPED, "logger.report=true", "hydra.run.dir=run").code == 0
    assert evaluate("run", "--out", "again").code == 0
    assert metrics(tmp_path / "again" / "val")["accuracy"] == metrics(tmp_path / "run")["accuracy"]
    model = fer.load(tmp_path / "run")
    assert (model.image_size, model.crop, model.input_size) == (24, 20, 20)
    faces = torch.rand(3, 1, 24, 24)
    with torch.inference_mode():
        assert torch.equal(model(faces), model.logits_of_crops(faces[..., 2:22, 2:22]))
    assert (tmp_path / "run" / "report.html").exists()


def test_ten_crops_are_a_row_of_their_own(train, scores, tmp_path):
    assert train(*CROPPED, "hydra.run.dir=run").code == 0
    assert scores("run", "--tta", "ten_crop", "--out", "ten").code == 0
    ten = metrics(tmp_path / "ten" / "val_ten_crop")
    assert ten["tta"] == "ten_crop"
    assert ten["nll"] != metrics(tmp_path / "run")["nll"]


def test_a_network_of_one_size_is_built_for_the_crop(train, scores, tmp_path):
    assert train(*SMALL, "data.crop=20", "hydra.run.dir=run").code == 0
    assert fer.load(tmp_path / "run").net.state_dict()["1.weight"].shape == (16, 20 * 20)
    assert scores("run", "--tta", "shifts").code == 0


def test_a_stage_reduces_crops_as_it_reduces_faces():
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=140, image_size=24, crop=20))
    assert [data.data.input_side(size) for size in (24, 18)] == [20, 15]
    data.setup("fit")
    data.stages = [[18, 1], [24, 2]]
    data.augment = augment.build(AugmentSettings(), 20)
    assert first_batch(data).shape == (112, 15, 15)


def test_stages_and_crops_together(train, tmp_path):
    settings = ("stages=[[18,1],[24,2]]", "trainer.max_epochs=3", "hydra.run.dir=run")
    assert train(*CROPPED, *settings).code == 0
    assert fer.load(tmp_path / "run").input_size == 20


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.crop=25", "data.crop=25: expected at most data.image_size=24"),
        ("data.crop=8", "data.crop=8: out of range; it must be at least 16 and at most 512"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(train, override, says):
    ended = train(*SMALL, override)
    assert (ended.code, says in ended.line) == (1, True), ended.line


PLUGIN = """
from fer.models import EmotionClassifier, register

@register("forward")
class Forward(EmotionClassifier):
    def forward(self, images):
        return images
"""


def test_a_network_whose_forward_training_would_not_call_is_refused(train, tmp_path, monkeypatch):
    (tmp_path / "forward_nets.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    ended = train(*SMALL[:4], "plugins=[forward_nets]", "model=forward", *SMALL[6:])
    assert (ended.code, "Forward overrides forward; override logits_of_crops" in ended.line) == (1, True), ended.line
