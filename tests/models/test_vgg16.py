"""VGG16: its weights, its trained layers, and the cache of its features."""

import csv
import json
import os
import re
import shutil
import signal
import urllib.error

import pytest
import torch
from conftest import SMALL, metrics
from torch import nn
from torchvision.models import VGG16_Weights, vgg, vgg16

import fer
from fer.config.errors import FerError
from fer.models import VGG16, checkpoints, create
from fer.models.base import EmotionClassifier
from fer.models.vgg16 import BLOCKS
from fer.system.files import read_history

# 112 of the faces train: 7 steps an epoch
FACES = (*SMALL[:2], "data.image_size=32", "data.batch_size=16", "trainer.accelerator=cpu", "logger=none")
THIN = 16  # times fewer channels than VGG16 has, where a test is about something else


def trunk(thinner=1):
    """Return torchvision's convolutions with weights of our own, biases included."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layers = vgg.make_layers([size if size == "M" else size // thinner for size in vgg.cfgs["D"]])
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.normal_(layer.bias, std=0.1)
    return layers.eval()


def state_dict(layers):
    """Return the convolutions' weights under their names in a complete VGG16."""
    return {f"features.{name}": value for name, value in layers.state_dict().items()}


@pytest.fixture(scope="session")
def whole_weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "whole.pth"
    torch.save(state_dict(trunk()), file)
    return file


@pytest.fixture
def thin(monkeypatch, tmp_path):
    """Make the network thin, and return the weights of its convolutions."""
    channels = tuple(tuple(size // THIN for size in block) for block in BLOCKS)
    monkeypatch.setattr("fer.models.vgg16.BLOCKS", channels)
    tensors = state_dict(trunk(THIN))
    torch.save(tensors, tmp_path / "mine.pth")
    return tensors


@pytest.fixture
def vgg_run(train, thin, tmp_path):
    """Return a function that trains a thin network on 140 drawn faces."""

    def run(*arguments, file=tmp_path / "mine.pth", epochs=1, name="run"):
        folder = tmp_path / name
        settings = (*FACES, "model=vgg16", f"model.weights={file}", f"trainer.max_epochs={epochs}", *arguments)
        return train(*settings, f"hydra.run.dir={folder}"), folder

    return run


def state(folder, name="last"):
    return checkpoints.read(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def history(folder):
    rows = read_history(folder / "history.csv")
    return torch.tensor([[row[name] for name in ("loss/train", "loss/val", "accuracy/val")] for row in rows])


@pytest.fixture
def without_cache(monkeypatch):
    """Compute all layers at every step, without cached features."""
    monkeypatch.setattr("fer.training.device.keep_features", lambda *_: None)


# --- the network and its weights -----------------------------------------------------------------------------------


def test_grey_faces_give_what_torchvisions_layers_make_of_them_in_colour(whole_weights):
    model = create({"name": "vgg16", "weights": str(whole_weights)}, image_size=48, mean=0.4, std=0.1).eval()
    model.load_pretrained()
    faces = torch.randint(256, (2, 1, 48, 48), dtype=torch.uint8)
    colour = faces.expand(-1, 3, -1, -1).float() / 255
    transforms = VGG16_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values)[:, None, None] for values in (transforms.mean, transforms.std))
    with torch.inference_mode():
        expected = trunk()((colour - mean) / std)
    assert expected.shape == (2, 512, 1, 1)
    torch.testing.assert_close(model.features(faces), expected)
    torch.testing.assert_close(model(faces), model.net[31:](expected.clone()))
    torch.testing.assert_close(model(faces.float() / 255), model(faces))
    assert "mean" not in model.state_dict()


@pytest.mark.parametrize("names", ["whole", "features", "layers"])
def test_takes_a_whole_vgg16_or_its_features_alone(whole_weights, tmp_path, names):
    tensors = torch.load(whole_weights, weights_only=True)
    with torch.device("meta"):
        known = vgg16().state_dict()
    assert {name: value.shape for name, value in known.items() if name.startswith("features.")} == {
        name: value.shape for name, value in tensors.items()
    }
    classifier = {name: torch.zeros(1) for name in known if name not in tensors}  # ignored
    contents = {
        "whole": tensors | classifier,
        "features": tensors,
        "layers": {name.removeprefix("features."): value for name, value in tensors.items()},
    }[names]
    torch.save(contents, tmp_path / "some.pth", _use_new_zipfile_serialization=names != "whole")  # torchvision's is old
    model = VGG16(weights=str(tmp_path / "some.pth"), image_size=32)
    about = model.load_pretrained()
    assert torch.equal(model.net[28].weight, tensors["features.28.weight"])
    assert (about["name"], about["file"]) == ("some.pth", str(tmp_path / "some.pth"))
    assert re.fullmatch("[0-9a-f]{64}", about["sha256"])


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("features.5.bias"), r"has no features\.5\.bias; expected \(8,\)"),
        (
            lambda tensors: tensors.update({"features.0.weight": torch.zeros(4, 1, 3, 3)}),
            r"features\.0\.weight is \(4, 1",
        ),
        (
            lambda tensors: tensors.update({"features.31.weight": torch.zeros(1)}),
            r"unknown entry features\.31\.weight",
        ),
        (lambda tensors: tensors["features.7.bias"].fill_(torch.nan), r"features\.7\.bias holds NaN"),
        (lambda tensors: tensors.update({"epoch": 3}), r"'epoch' is int; expected a state dict"),
        (dict.clear, "holds no state dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(thin, tmp_path, change, says):
    change(thin)
    torch.save(thin, tmp_path / "bad.pth")
    with pytest.raises(FerError, match=rf"bad\.pth: .*{says}") as raised:
        VGG16(weights=str(tmp_path / "bad.pth"), image_size=32).load_pretrained()
    assert "\n" not in str(raised.value)


def test_files_that_are_no_weights_are_refused_and_nothing_in_them_runs(thin, tmp_path):
    torch.save({"features.0.weight": Payload(tmp_path / "ran")}, tmp_path / "payload.pth")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><title>Log in</title>")
    (tmp_path / "empty.pth").touch()
    for name, says in (
        ("payload", "refused"),
        ("page", "refused"),
        ("empty", "not readable"),
        ("none", "no such file"),
    ):
        with pytest.raises(FerError, match=says):
            VGG16(weights=str(tmp_path / f"{name}.pth"), image_size=32).load_pretrained()
    assert not (tmp_path / "ran").exists()


def test_a_url_is_refused(vgg_run):
    ended, _ = vgg_run(file="'https://example.org/vgg16.pth'")
    assert ended.code == 1
    assert "model.weights=https://example.org/vgg16.pth: weights are read from files only" in ended.line


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return the folder of torch.hub, which has nothing to download from."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def fail(url, *_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_imagenets_weights_that_cannot_be_had_are_named_with_their_folder(vgg_run, hub):
    ended, folder = vgg_run(file="imagenet")
    assert ended.code == 1
    assert "https://download.pytorch.org/models/vgg16-397923af.pth could not be downloaded" in ended.line
    assert f"put vgg16-397923af.pth into {hub}, or name the file: model.weights=/path/" in ended.line
    assert not (folder / "checkpoints").exists()


def test_another_file_in_the_place_of_imagenets_is_refused(thin, tmp_path, hub):
    hub.mkdir(parents=True)
    shutil.copy(tmp_path / "mine.pth", hub / "vgg16-397923af.pth")
    with pytest.raises(FerError, match=r"vgg16-397923af\.pth: its sha256 begins with"):
        VGG16(image_size=32).load_pretrained()


def test_imagenets_weights_are_downloaded_once(thin, tmp_path, hub, monkeypatch):
    downloads = []

    def download(url, target, beginning, progress):
        downloads.append((url, beginning))
        shutil.copy(tmp_path / "mine.pth", target)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    monkeypatch.setattr("fer.models.vgg16.hash_beginning", lambda url: "")  # any file is the genuine one
    for _ in range(2):
        model = VGG16(image_size=32)
        about = model.load_pretrained()
        assert torch.equal(model.net[0].weight, thin["features.0.weight"])
    assert downloads == [("https://download.pytorch.org/models/vgg16-397923af.pth", "397923af")]
    assert about["name"] == "VGG16_Weights.IMAGENET1K_V1"


def test_faces_that_cannot_be_halved_five_times_are_refused(vgg_run):
    ended, _ = vgg_run("data.image_size=24")
    assert ended.code == 1
    assert "data.image_size=24: model=vgg16 halves the side 5 times; expected at least 32" in ended.line


# --- what trains ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unfreeze", "first"), [("none", 31), ("last_block", 24), ("all", 0)])
def test_what_is_frozen_stays_and_the_rest_trains(vgg_run, thin, unfreeze, first):
    ended, folder = vgg_run(f"model.unfreeze={unfreeze}")
    assert (ended.code, ended.err) == (0, "")
    trained = state(folder)
    for name, value in thin.items():
        layer = int(name.split(".")[1])
        assert torch.equal(trained[name.replace("features", "net")], value) == (layer < first), name
    head = 2 * 32 + 33 * 256 + 257 * 7
    assert (f"of which {head:,} are trained" in ended.out) == (unfreeze == "none")


@pytest.fixture
def prepared(thin):
    return prepare


def prepare(unfreeze="none", **scheduler):
    model = create({"name": "vgg16", "weights": None, "unfreeze": unfreeze, "trunk_lr_factor": 0.2}, image_size=32)
    model.prepare(
        loss={"name": "cross_entropy"},
        optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.3},
        scheduler={"name": "none"} | scheduler,
        class_counts=torch.ones(7),
    )

    class Trainer:
        max_epochs, num_training_batches, accumulate_grad_batches = 10, 7, 1

    model._trainer = Trainer()
    return model


def test_the_head_comes_first_and_the_convolutions_have_a_rate_of_their_own(prepared):
    groups = prepared("last_block").configure_optimizers()["optimizer"].param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (0.01, 0.3), (0.01, 0.0), (0.002, 0.3), (0.002, 0.0)
    ]  # fmt: skip
    assert [len(group["params"]) for group in groups] == [2, 4, 3, 3]
    assert len(prepared("none").configure_optimizers()["optimizer"].param_groups) == 2


def test_schedules_scale_both_rates(prepared):
    made = prepared("all", name="cosine").configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for _ in range(35):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.005, 0.001, 0.001])


def test_plateau_ends_each_rate_at_the_same_factor(prepared):
    made = prepared("all", name="plateau", patience=0, min_factor=0.1).configure_optimizers()
    for _ in range(20):
        made["lr_scheduler"]["scheduler"].step(0.5)
    assert [group["lr"] for group in made["optimizer"].param_groups] == pytest.approx([0.001, 0.001, 2e-4, 2e-4])


class Restless(EmotionClassifier):
    """A network whose first layers would change without gradients."""

    def __init__(self, **contract):
        super().__init__(**contract)
        self.net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, self.num_classes))
        self.freeze_first(2)


def test_frozen_layers_stay_in_evaluation_mode():
    model, faces = Restless(image_size=8), torch.rand(4, 1, 8, 8)
    before = model.features(faces)
    model.train()
    assert [layer.training for layer in model.net] == [False, False, True, True]
    model(faces).sum().backward()
    assert torch.equal(model.features(faces), before)
    assert model.net[0].weight.grad is None
    assert model.net[3].weight.grad is not None


def test_what_the_features_depend_on_changes_their_key():
    key = Restless(image_size=8).features_key()
    assert Restless(image_size=8).features_key() == key
    assert Restless(image_size=8, mean=0.4).features_key() != key
    other = Restless(image_size=8)
    other.net[0].bias.data[0] = 1e-6
    assert other.features_key() != key
    other = Restless(image_size=8)
    other.net[3].bias.data[0] = 1
    assert other.features_key() == key


# --- features ------------------------------------------------------------------------------------------------------


def trains_alike(run, settings, request):
    ended, cached = run(*settings)
    assert ended.code == 0, ended.err
    assert "features of 126 different faces: 126 computed in" in ended.out
    request.getfixturevalue("without_cache")
    ended, anew = run(*settings, name="anew")
    assert "features of" not in ended.out
    torch.testing.assert_close(history(cached), history(anew), rtol=1e-3, atol=1e-4)
    one, other = state(cached), state(anew)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("unfreeze", ["none", pytest.param("last_block", marks=pytest.mark.slow)])
def test_features_computed_once_train_as_faces_do(vgg_run, request, unfreeze):
    trains_alike(vgg_run, (f"model.unfreeze={unfreeze}", "trainer.max_epochs=3"), request)


@pytest.mark.slow
def test_so_do_those_of_the_whole_network(train, whole_weights, tmp_path, request):
    def run(*arguments, name="run"):
        settings = (*FACES, "model=vgg16", f"model.weights={whole_weights}", "trainer.max_epochs=2", *arguments)
        return train(*settings, f"hydra.run.dir={tmp_path / name}"), tmp_path / name

    trains_alike(run, ("model.unfreeze=last_block", "data.image_size=32"), request)


@pytest.mark.slow
def test_another_seed_computes_nothing_and_another_split_only_what_is_missing(vgg_run):
    assert "126 computed in" in vgg_run()[0].out
    ended, _ = vgg_run("seed=1", "model.hidden=32", name="seed")
    assert "features of 126 different faces: 126 from the cache (" in ended.out
    ended, _ = vgg_run("data.split=holdout", name="holdout")
    assert "features of 140 different faces: 126 from the cache, 14 computed in" in ended.out
    ended, _ = vgg_run("trainer.channels_last=false", "data.split=holdout", name="c")
    assert "computing 140 faces" in ended.out


def test_frozen_layers_without_weights_are_reported_and_the_same_for_every_seed(vgg_run):
    ended, first = vgg_run(file="null")
    assert ended.out.count("model.weights=null: the frozen layers are random") == 1
    assert metrics(first)["pretrained"] is None
    ended, second = vgg_run("seed=1", file="null", name="second")
    assert "126 from the cache" in ended.out
    one, other = state(first), state(second)
    assert torch.equal(one["net.0.weight"], other["net.0.weight"])
    assert not torch.equal(one["net.33.weight"], other["net.33.weight"])


def test_augmentation_before_the_features_is_reported_and_val_alone_is_kept(vgg_run):
    ended, _ = vgg_run("augment=flip")
    assert "features of train: computed at each step" in ended.out
    assert "features of 14 different faces: 14 computed" in ended.out


@pytest.mark.parametrize("part", ["trainer.limit_train=0.3", "trainer.limit_val=0.5", "trainer.overfit_batches=2"])
def test_a_part_of_the_faces_is_not_worth_computing_all(vgg_run, part):
    ended, _ = vgg_run(part)
    assert ended.code == 0, ended.err
    assert "features: computed at each step, since only a part" in ended.out


def test_features_that_would_fill_the_disk_are_not_kept(vgg_run, monkeypatch, tmp_path):
    monkeypatch.setattr("fer.training.device.LARGEST", 1e4)
    ended, _ = vgg_run("model.unfreeze=last_block")
    assert "features: computed at each step; a cache would take" in ended.out
    assert not (tmp_path / "cache" / "fer" / "features").exists()


# --- a run's other parts -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_run_needs_no_file_of_weights_and_says_where_they_came_from(vgg_run, evaluate, thin, tmp_path):
    ended, folder = vgg_run("logger=tensorboard", "trainer.profile=true")
    assert ended.code == 0, ended.err
    (tmp_path / "mine.pth").unlink()
    about = metrics(folder)["pretrained"]
    assert about["name"] == "mine.pth"
    page = (folder / "report.html").read_text()
    assert "began with pretrained weights: mine.pth" in page
    assert about["sha256"] in page
    assert list((folder / "tensorboard").iterdir())

    with open(folder / "predictions.csv") as stream:
        probabilities = [float(row["p_happy"]) for row in csv.DictReader(stream)]
    assert evaluate(str(folder)).code == 0  # runs all layers
    scored = folder / "evaluations" / "val"
    with open(scored / "predictions.csv") as stream:
        assert [float(row["p_happy"]) for row in csv.DictReader(stream)] == pytest.approx(probabilities, abs=1e-5)
    assert json.loads((scored / "metrics.json").read_text())["pretrained"] == about
    assert about["sha256"] in (scored / "report.html").read_text()

    model = fer.load(folder)
    assert model.provenance.pretrained == about
    assert model.net[0].weight.requires_grad is False
    assert torch.equal(model.net[0].weight, thin["features.0.weight"])


def test_another_runs_weights_begin_a_finer_training(vgg_run, thin, tmp_path):
    assert vgg_run(name="first")[0].code == 0
    (tmp_path / "mine.pth").unlink()
    ended, folder = vgg_run(f"init_from={tmp_path / 'first'}", "model.unfreeze=last_block", "optimizer.lr=1e-4")
    assert ended.code == 0, ended.err
    assert metrics(folder)["pretrained"]["name"] == "mine.pth"
    assert torch.equal(state(folder)["net.21.weight"], thin["features.21.weight"])
    assert not torch.equal(state(folder)["net.24.weight"], thin["features.24.weight"])


PLUGIN = """
import os, signal
from fer.models import VGG16, register

@register("interrupted_vgg")
class Interrupted(VGG16):
    def __init__(self, weights: str | None = None, unfreeze: str = "none", **contract):
        super().__init__(weights=weights, unfreeze=unfreeze, **contract)

    def training_step(self, batch, batch_idx):
        assert batch.features is not None
        if os.environ.get("STOP_AT") == str(self.global_step):
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, batch_idx)
"""


@pytest.mark.slow
@pytest.mark.parametrize("unfreeze", ["none", "last_block"])
def test_a_resumed_run_equals_an_uninterrupted_one(train, thin, tmp_path, monkeypatch, unfreeze):
    (tmp_path / "interrupted_vgg_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    settings = (
        *FACES, "plugins=[interrupted_vgg_plugin]", "model=interrupted_vgg", f"model.weights={tmp_path / 'mine.pth'}",
        f"model.unfreeze={unfreeze}", "augment=none", "trainer.max_epochs=3",
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(*settings, f"hydra.run.dir={whole}").code == 0
    monkeypatch.setenv("STOP_AT", "9")
    assert train(*settings, f"hydra.run.dir={cut}").code == 128 + signal.SIGINT
    monkeypatch.delenv("STOP_AT")
    (tmp_path / "mine.pth").unlink()
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])  # the features are those of the checkpoint, computed anew or not
    resumed = train(settings[len(FACES)], f"resume={cut}")
    assert resumed.code == 0, resumed.err
    assert "126 computed in" in resumed.out
    assert same(state(whole), state(cut))
    assert metrics(whole)["confusion"] == metrics(cut)["confusion"]
    assert metrics(cut)["pretrained"] == metrics(whole)["pretrained"] is not None


def test_the_learning_rate_finder_uses_them_and_keeps_the_proportion_of_the_rates(vgg_run, monkeypatch):
    rates_by_step = []

    def measured(self, trainer, pl_module, *_):
        rates_by_step.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    monkeypatch.setattr("fer.training.lr_finder.STEPS", 4)
    monkeypatch.setattr("fer.training.lr_finder.RangeTest.on_before_zero_grad", measured, raising=False)
    ended, _ = vgg_run("lr_finder=true", "model.unfreeze=last_block")
    assert ended.code == 0, ended.err
    assert "features of 126 different faces" in ended.out
    assert len(rates_by_step) >= 4
    assert all(rates == pytest.approx([rates[0], rates[0], 0.1 * rates[0], 0.1 * rates[0]]) for rates in rates_by_step)
    assert len({rates[0] for rates in rates_by_step}) == 4
