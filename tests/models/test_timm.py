"""Networks of timm: built by name, with pretrained weights, trained, swept and loaded again."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from conftest import metrics
from safetensors.torch import save_file

import fer
from fer.config.errors import FerError
from fer.models import create

FACES = ("data=synthetic", "data.synthetic_count=140", "data.image_size=24", "trainer=smoke", "logger=none")
TINY = "test_resnet"  # timm's own network for tests: 470 thousand parameters


@pytest.fixture(scope="module")
def theirs():
    """Return a network of three colours and a thousand classes, with weights of our own."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(TINY, num_classes=1000).eval()


@pytest.fixture(params=[".safetensors", ".pth"])
def weights(request, theirs, tmp_path):
    file = tmp_path / f"theirs{request.param}"
    save = save_file if request.param == ".safetensors" else torch.save
    save(dict(theirs.state_dict()), file)
    return file


def test_weights_of_colours_see_in_a_grey_face_what_they_saw_in_colours_of_grey(theirs, weights):
    model = create({"name": "timm", "network": TINY, "weights": str(weights)}, mean=0.9, std=0.9).eval()
    record = model.load_pretrained()
    model.eval()
    assert record["name"] == weights.name
    assert record["file"] == str(weights)
    assert (float(model.mean), float(model.std)) == (0.5, 0.5)  # what timm says of these weights' faces
    faces = torch.rand(2, 1, 48, 48)
    grey = ((faces - model.mean) / model.std).expand(-1, 3, -1, -1)
    assert torch.allclose(model.net[1].forward_features(grey[:, :1]), theirs.forward_features(grey), atol=1e-4)
    assert model(faces).shape == (2, 7)


def test_without_weights_nothing_is_loaded_and_the_training_faces_normalise():
    model = create({"name": "timm", "network": TINY}, mean=0.4, std=0.3)
    assert model.load_pretrained() is None
    assert float(model.mean) == pytest.approx(0.4)


def test_faces_are_resized_before_the_network():
    model = create({"name": "timm", "network": "test_vit", "size": 160}).eval()  # takes no other side
    faces = torch.rand(2, 1, 48, 48)
    resized = torch.nn.functional.interpolate((faces - 0.5) / 0.25, size=(160, 160), mode="bilinear")
    assert torch.allclose(model(faces), model.net[1](resized), atol=1e-5)


def test_rates_reach_the_network():
    made = create({"name": "timm", "network": TINY, "dropout": 0.3, "drop_path": 0.2}).net[1]
    assert made.drop_rate == 0.3
    assert max(getattr(layer, "drop_prob", 0) or 0 for layer in made.modules()) == pytest.approx(0.2)


def test_a_run_by_its_short_name_is_trained_reported_and_loaded_again(train, weights):
    ended = train(*FACES, f"model=timm:{TINY}", f"model.weights='{weights}'", "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    results = metrics(Path("out"))
    assert results["architecture"] == "timm"
    assert results["pretrained"]["name"] == weights.name
    model = fer.load("out/checkpoints/best.ckpt")
    assert model.hparams["network"] == TINY
    assert model(torch.zeros(1, 1, 24, 24, dtype=torch.uint8)).shape == (1, 7)


@pytest.mark.slow
def test_networks_of_timm_are_swept_by_their_short_names(train):
    ended = train("-m", *FACES, "model=mlp,timm:test_resnet", "hydra.sweep.dir=out")
    assert ended.code == 0, ended.err
    assert {metrics(run.parent)["architecture"] for run in Path("out").glob("*/metrics.json")} == {"mlp", "timm"}


def test_pretrained_is_the_hubs_file(monkeypatch, weights):
    downloads = []

    def download(name, file):
        downloads.append((name, file))
        return str(weights)

    if weights.suffix != ".safetensors":
        pytest.skip("the hub's files are safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    model = create({"name": "timm", "network": TINY, "weights": "pretrained"})
    record = model.load_pretrained()
    assert downloads == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    assert record["name"] == "timm/test_resnet.r160_in1k"


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_hub_out_of_reach_is_reported_with_what_to_do_instead(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", failing(OSError("no network")))
    model = create({"name": "timm", "network": TINY, "weights": "pretrained"})
    with pytest.raises(FerError) as caught:
        model.load_pretrained()
    assert str(caught.value) == (
        "model.weights=pretrained: model.safetensors of timm/test_resnet.r160_in1k could not be downloaded "
        "(no network); name the file: model.weights=FILE"
    )


def test_a_network_without_weights_on_the_hub_says_so():
    model = create({"name": "timm", "network": "resnetblur18", "weights": "pretrained"})
    with pytest.raises(FerError, match="timm has no weights of"):
        model.load_pretrained()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model=timm"], "model.network"),
        (["model=timm:resnt18"], "model.network=resnt18: timm"),
        (["model=timm:resnt18"], "did you mean resnet18"),
        (["model=timm:test_resnet.nonsense"], "model.network=test_resnet.nonsense: Invalid pretrained tag"),
        (["model=timm:vgg11", "model.drop_path=0.1"], "model.network=vgg11: "),
        (["model=timm:test_vit"], "model=timm: cannot take faces of shape (2, 1, 24, 24): "),
        (["model=timm:test_resnet", "model.weights=nowhere.pth"], "model.weights=nowhere.pth: no such file"),
        (["model=timm:test_resnet", "model.size=0"], "model.size=0: out of range"),
    ],
)
def test_what_cannot_be_built_is_reported_in_a_line(train, arguments, says):
    ended = train(*FACES, *arguments)
    assert ended.code == 1
    assert says in ended.err
    assert "Traceback" not in ended.err


def test_weights_of_another_network_and_broken_ones_are_refused(theirs, tmp_path):
    other, broken = tmp_path / "other.pth", tmp_path / "broken.pth"
    torch.save(timm.create_model("test_vit").state_dict(), other)
    tensors = {name: value.clone() for name, value in theirs.state_dict().items()}
    tensors["conv1.0.weight"][0, 0, 0, 0] = torch.nan
    torch.save(tensors, broken)
    for file, says in (
        (other, "other.pth: has no conv1.0.weight; expected (16, 1, 3, 3), as timm's test_resnet has"),
        (broken, "conv1.0.weight holds NaN"),
    ):
        model = create({"name": "timm", "network": TINY, "weights": str(file)})
        with pytest.raises(FerError) as caught:
            model.load_pretrained()
        assert says in str(caught.value)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FerError, match=r"pip install 'fer-lightning\[timm\]'"):
        create({"name": "timm", "network": TINY})


# --- frozen layers, and weights that do not fit ---------------------------------------------------------------------


def test_frozen_layers_return_the_pooled_features_of_timms_own(theirs, weights):
    model = create({"name": "timm", "network": TINY, "weights": str(weights), "freeze": True, "dropout": 0.5})
    model.load_pretrained()
    model.train()
    assert [name for name, tensor in model.named_parameters() if tensor.requires_grad] == ["net.3.weight", "net.3.bias"]
    faces = torch.rand(2, 1, 48, 48)
    colour = ((faces - 0.5) / 0.5).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        expected = theirs.forward_head(theirs.forward_features(colour), pre_logits=True)
    torch.testing.assert_close(model.features(faces), expected, atol=1e-4, rtol=1e-4)
    model.eval()
    torch.testing.assert_close(model(faces), model.net[3](model.features(faces).clone()))
    again = create({"name": "timm", "network": TINY, "weights": str(weights), "freeze": True})
    again.load_pretrained()
    assert again.features_key() == model.features_key()  # another head: the same cached features


@pytest.mark.slow
def test_a_run_with_frozen_layers_trains_on_cached_features(train, weights, monkeypatch):
    if weights.suffix != ".safetensors":
        pytest.skip("the other format is read by the test above")
    keys = (*FACES, f"model=timm:{TINY}", f"model.weights='{weights}'", "model.freeze=true")
    keys = (*keys, "trainer.limit_train=1.0", "trainer.limit_val=1.0", "trainer.accelerator=cpu", "optimizer.lr=0.05")
    ended = train(*keys, "augment=none", "hydra.run.dir=cached")
    assert ended.code == 0, ended.err
    assert "126 different faces: 126 computed" in ended.out
    stated = (
        "model.weights: the layer of the logits starts from random weights, for 7 classes (fc of the file has 1,000)"
    )
    assert stated in ended.out
    augmented = train(*keys, "augment=basic", "augment.flip=0.5", "hydra.run.dir=augmented")
    assert "features of train: computed at each step, since augmentation changes the faces" in augmented.out
    monkeypatch.setattr("fer.training.device.keep_features", lambda *_: None)
    assert train(*keys, "augment=none", "hydra.run.dir=computed").code == 0
    cached, computed = (
        fer.load(f"{name}/checkpoints/best.ckpt").state_dict()["net.3.weight"] for name in ("cached", "computed")
    )
    torch.testing.assert_close(cached, computed, atol=1e-5, rtol=1e-4)


def test_random_layers_are_not_frozen():
    with pytest.raises(FerError, match="model.freeze=true: would freeze random layers; set model.weights=pretrained"):
        create({"name": "timm", "network": TINY, "freeze": True})


def test_weights_of_a_deeper_network_are_refused(theirs, tmp_path):
    file = tmp_path / "deeper.pth"
    torch.save({**theirs.state_dict(), "layer5.0.weight": torch.zeros(1)}, file)
    model = create({"name": "timm", "network": TINY, "weights": str(file)})
    with pytest.raises(FerError, match="has 1 tensor that timm's test_resnet does not have, first: layer5.0.weight"):
        model.load_pretrained()
