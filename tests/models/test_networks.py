"""The contract of every registered network."""

import pytest
import torch

from fer.config.errors import FerError
from fer.data.labels import EMOTIONS
from fer.models import CNN, MODELS, EmotionClassifier, create
from fer.models.layers import Dropout

# each with an argument that is not its default
CHANGED = {
    "cnn": {"dropout": 0.25},
    "convnext": {"channels": [8, 16], "depths": [1, 1]},
    "efficientnet": {"channels": [8, 16], "depths": [1, 1], "last": 32},
    "mini_xception": {"stem": 4},
    "mlp": {"dropout": 0.25},
    "preact_resnet": {"width": 4, "squeeze": None},
    "residual_masking": {"width": 4},
    "resnet9": {"width": 4},
    "resnet18": {"width": 4},
    "vgg19": {"channels": [4, 4, 8], "depths": [1, 1, 2], "dropout": 0.25},
    "vgg_fer": {"dropout": 0.25},
}
BUILT_IN = tuple(CHANGED)
APART = {"timm", "vgg16"}  # need weights or a package: tests/models/test_timm.py, tests/models/test_vgg16.py


def test_every_network_of_the_package_keeps_the_contract():
    ours = {name for name in MODELS.names() if MODELS.get(name).__module__.startswith("fer.")}
    assert {*BUILT_IN} == ours - APART, "CHANGED above has each network, with an argument that is not its default"


@pytest.mark.parametrize("name", BUILT_IN)
def test_takes_faces_and_gives_logits(name):
    model = create({"name": name}, classes=list(EMOTIONS), image_size=32, mean=0.5, std=0.2)
    logits = model(torch.randint(256, (3, 1, 32, 32), dtype=torch.uint8))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", BUILT_IN)
def test_hyperparameters_are_plain_and_rebuild_the_network(name):
    model = create({"name": name, **CHANGED[name]}, classes=list(EMOTIONS), image_size=24, mean=0.5, std=0.2)
    assert CHANGED[name].items() <= model.hparams.items()
    assert {type(value) for value in model.hparams.values()} <= {str, int, float, bool, list, tuple, dict, type(None)}
    again = MODELS.get(name)(**model.hparams)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


def test_normalises_by_itself():
    model = create({"name": "mlp", "hidden": []}, classes=list(EMOTIONS), image_size=16, mean=0.4, std=0.1).eval()
    faces = torch.rand(2, 1, 16, 16)
    assert torch.allclose(model(faces), model.net((faces - 0.4) / 0.1))
    assert "mean" not in model.state_dict()


def test_cnn_is_convolution_pooling_dropout():
    model = CNN(channels=(8, 16), depth=2, image_size=48)
    kinds = [type(layer).__name__ for layer in model.net]
    assert kinds.count("Conv2d") == 4
    assert kinds.count("MaxPool2d") == 2
    assert kinds.count("Dropout") == 4
    assert model.net[-1].out_features == 7


def test_a_network_that_was_never_prepared_says_so(tmp_path):
    import pytorch_lightning as pl

    from fer.config.settings import DataSettings
    from fer.data.datamodule import FERDataModule

    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=140, image_size=24))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(FerError, match="optimizer.name is missing"):
        trainer.fit(create({"name": "mlp"}, image_size=24), datamodule=data)


def test_used_as_a_library_with_lightnings_own_trainer():
    import pytorch_lightning as pl

    from fer.config.settings import AugmentSettings, DataSettings
    from fer.data.datamodule import FERDataModule
    from fer.data.transforms import augment

    settings = DataSettings(path="synthetic", synthetic_count=140, image_size=24, batch_size=16)
    data = FERDataModule(settings, augment.build(AugmentSettings(flip=0.5)), seed=1)
    data.setup("fit")
    model = create({"name": "mlp"}, image_size=24)
    model.prepare(
        loss={"name": "cross_entropy"},
        optimizer={"name": "adamw", "lr": 1e-3},
        scheduler={"name": "none"},
        class_counts=data.class_counts(),
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(model, datamodule=data)
    assert 0 <= float(trainer.callback_metrics["accuracy/val"]) <= 1


def test_training_steps_do_not_wait_for_the_device():
    """A step reads no value from the device: on the device "meta" such a reading raises."""
    model = create({"name": "cnn", "channels": (4,)}, image_size=16)
    model.prepare(
        loss={"name": "cross_entropy"},
        optimizer={"name": "sgd", "lr": 0.1},
        scheduler={"name": "none"},
        class_counts=torch.ones(7),
    )
    logits = model.to("meta")(torch.empty(4, 1, 16, 16, device="meta"))
    loss = model.loss(logits, torch.empty(4, dtype=torch.long, device="meta"))
    assert loss.device.type == "meta"


def test_a_network_built_on_another_keeps_its_own_arguments_alone():
    from fer.models import MLP, register

    @register("narrow")
    class Narrow(MLP):
        def __init__(self, width: int = 8, **contract):
            super().__init__(hidden=(width,), **contract)

    model = create({"name": "narrow", "width": 4}, image_size=16)
    assert set(model.hparams) == {"width", "classes", "image_size", "crop", "mean", "std", "in_channels"}
    assert Narrow(**model.hparams).net[1].out_features == 4


def test_bad_arguments_are_named():
    for section, says in (({"name": "cnn", "depth": 0}, "model.depth=0"), ({"name": "cnn", "widht": 1}, "model.widht")):
        with pytest.raises(FerError, match=says):
            create(section)


def test_weight_decay_spares_biases_and_normalisation():
    from fer.optim.optimizers import OPTIMIZERS

    model = create({"name": "cnn", "channels": [4]}, image_size=16)
    build, arguments = OPTIMIZERS.arguments({"name": "adamw", "lr": 0.1, "weight_decay": 0.3})
    decayed, spared = build(model.parameters(), **arguments).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert sum(map(len, (decayed["params"], spared["params"]))) == len(list(model.parameters()))


def test_weight_decay_spares_scales_of_several_dimensions():
    from fer.optim.optimizers import groups

    model = create({"name": "convnext", "channels": [8], "depths": [2]})
    _, spared = groups(model.parameters(), 0.1)
    assert [tuple(scale.shape) for scale in spared["params"] if scale.ndim > 1] == [(8, 1, 1)] * 2


def test_subclasses_add_a_network_and_name_its_blocks_and_the_layers_of_its_maps_alone():
    for name in BUILT_IN:
        own = {key for key in vars(MODELS.get(name)) if not key.startswith("__")}
        assert own <= {"architecture", "chains", "map_layers"}, own
        assert issubclass(MODELS.get(name), EmotionClassifier)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_zeroes_its_share_and_enlarges_the_rest(layout):
    inputs = torch.ones(16, 8, 25, 25).to(memory_format=layout).requires_grad_()
    dropout = Dropout(0.3)
    torch.manual_seed(0)
    outputs = dropout(inputs)
    assert outputs.is_contiguous(memory_format=layout)
    left = outputs != 0
    assert left.float().mean().item() == pytest.approx(1 - 77 / 256, abs=0.01)  # 80,000 values: 6 sd
    assert left.float().mean((0, 2, 3)).std() < 0.02  # every channel alike
    torch.testing.assert_close(outputs[left], torch.full_like(outputs[left], 256 / 179))
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs)
    torch.manual_seed(0)
    assert torch.equal(dropout(inputs), outputs)
    assert not torch.equal(dropout(inputs), outputs)


@pytest.mark.parametrize(("rate", "mean"), [(0.0, 1.0), (0.001, 0.999), (0.999, 0.001), (1.0, 0.0)])
def test_dropout_at_the_ends_is_torchs(rate, mean):
    outputs = Dropout(rate)(torch.ones(100_000))
    assert (outputs != 0).float().mean().item() == pytest.approx(mean, abs=0.002)
    assert torch.equal(Dropout(rate).eval()(torch.ones(10)), torch.ones(10))


@pytest.mark.parametrize(
    ("faces", "says"),
    [
        (torch.zeros(2, 3, 48, 48), r"\(2, 3, 48, 48\); expected a tensor \(B, 1, 48, 48\), grey"),
        (torch.zeros(48, 48), r"\(48, 48\); expected"),
        (torch.zeros(1, 1, 224, 224), r"\(1, 1, 224, 224\); expected"),
        ("face.png", "str; expected a tensor"),
        (torch.full((1, 1, 48, 48), 255.0), r"float32 from 255 to 255; expected uint8, or float from 0 to 1"),
        (torch.full((1, 1, 48, 48), float("nan")), "from nan to nan"),
        (torch.zeros(1, 1, 48, 48, dtype=torch.int64), "int64 from 0 to 0"),
    ],
)
def test_what_is_no_face_gets_no_probabilities(faces, says):
    with pytest.raises(FerError, match=says):
        create({"name": "mlp"}).eval().probabilities(faces)


def test_faces_get_probabilities_whatever_their_number():
    model = create({"name": "mlp"}).eval()
    for faces in (torch.zeros(0, 1, 48, 48), torch.ones(2, 1, 48, 48), torch.ones(3, 1, 48, 48, dtype=torch.uint8)):
        assert model.probabilities(faces).shape == (len(faces), 7)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_faces_of_other_floats_get_the_same_probabilities(kind):
    model, faces = create({"name": "mlp"}).eval(), torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    given = model.probabilities(faces.to(kind))
    torch.testing.assert_close(given, model.probabilities(faces.to(kind).float()), rtol=0, atol=0)
