"""Gradient checkpointing, and learning rates by layer."""

import copy

import pytest
import torch
from torch import nn

from fer.config.errors import FerError
from fer.data.noise import Part, shared
from fer.models import EmotionClassifier, create, register
from fer.models.blocks import grouped
from fer.optim.optimizers import OPTIMIZERS

FAMILIES = {  # small; with random layers where the network has some
    "cnn": {"channels": [4, 8], "depth": 2, "hidden": 8, "dropout": 0.3},
    "convnext": {"channels": [8, 16], "depths": [2, 2], "drop_path": 0.3},
    "efficientnet": {"channels": [8, 16], "depths": [1, 2], "last": 32, "drop_path": 0.3},
    "mini_xception": {"stem": 4, "channels": [4, 8]},
    "mlp": {"hidden": [8, 8]},
    "preact_resnet": {"width": 4, "depths": [2, 1], "drop_path": 0.3},
    "residual_masking": {"width": 4, "depths": [1, 1], "levels": [1, 1]},
    "resnet9": {"width": 4},
    "resnet18": {"width": 4, "drop_path": 0.3},
    "vgg19": {"channels": [4, 8], "depths": [1, 2]},
    "vgg_fer": {"channels": [4, 8], "hidden": [8]},
    "timm": {"network": "test_resnet", "dropout": 0.3, "drop_path": 0.3},
}


def made(name, **arguments):
    if name == "timm":
        pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create({"name": name, **arguments}, image_size=32).train()


def gradients(model, faces=6, part=None):
    """Return the loss, and the state after a backward pass; saved bytes are counted."""
    saved = []

    def pack(tensor):
        saved.append(tensor.nbytes)
        return tensor

    images = torch.rand(faces, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    images = images if part is None else part.rows(images)
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), shared(part):
        loss = model.logits_of_crops(images).square().sum()
    model.backward(loss)
    taken = {name: weights.grad for name, weights in model.named_parameters() if weights.grad is not None}
    return loss.detach(), taken, dict(model.state_dict()), sum(saved)


@pytest.mark.parametrize("name", FAMILIES)
def test_recomputed_blocks_give_the_same_bits_and_keep_less(name):
    plain = made(name, **FAMILIES[name])
    blocks = copy.deepcopy(plain)
    blocks.recompute()
    loss, taken, state, kept = gradients(plain)
    again, retaken, restate, rekept = gradients(copy.deepcopy(blocks))  # a copy, as ema and a time budget make
    assert torch.equal(loss, again)
    assert list(taken) == list(retaken)
    assert all(torch.equal(taken[key], retaken[key]) for key in taken)
    assert list(state) == list(restate)
    assert all(torch.equal(state[key], restate[key]) for key in state)  # running statistics moved once
    assert rekept < kept or name == "mlp"
    blocks.eval()
    with torch.inference_mode():
        assert blocks.logits_of_crops(torch.rand(1, 1, 32, 32)).shape == (1, 7)


def test_the_noise_of_a_part_is_drawn_again_for_the_part():
    """Ranks draw the noise of the whole batch; the second computation must draw the same part of it."""
    part = Part(2, 5, 6, 2)
    plain = made("preact_resnet", **FAMILIES["preact_resnet"])
    blocks = copy.deepcopy(plain)
    blocks.recompute()
    taken, retaken = (gradients(model, part=part)[1] for model in (plain, blocks))
    assert all(torch.equal(taken[key], retaken[key]) for key in taken)


class Overwriting(EmotionClassifier):
    """Its second block begins with a layer that overwrites its input."""

    def __init__(self, **contract):
        super().__init__(**contract)
        block = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, self.num_classes))
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), block, *head)


class Nameless(EmotionClassifier):
    """No ``Sequential``."""

    def __init__(self, **contract):
        super().__init__(**contract)
        self.net = nn.Linear(32, 7)


def test_what_cannot_be_recomputed_is_refused():
    register("overwriting")(Overwriting)
    register("nameless")(Nameless)
    model = made("overwriting")
    model.recompute()
    with pytest.raises(FerError, match=r"trainer.gradient_checkpointing=true: Sequential overwrites .*inplace=False"):
        model.logits_of_crops(torch.rand(2, 1, 32, 32))
    with pytest.raises(FerError, match="trainer.gradient_checkpointing=true: model=nameless names no blocks"):
        made("nameless").recompute()


def test_timm_without_checkpointing_is_refused():
    model = made("timm", network="test_resnet")
    model.net[1].set_grad_checkpointing = None
    with pytest.raises(FerError, match="trainer.gradient_checkpointing=true: timm does not offer it for test_resnet"):
        model.recompute()


# --- rates by layer -------------------------------------------------------------------------------------------------


def test_a_block_begins_with_a_kernel_and_has_its_normalisation():
    model = made("cnn", channels=[4, 8], depth=1, hidden=8)
    kinds = [[type(layer).__name__ for layer in block] for block in grouped(model.net)]
    assert kinds == [
        ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Dropout"],
        ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Dropout", "Flatten", "Dropout"],
        ["Linear", "BatchNorm1d", "ReLU", "Dropout"],
        ["Linear"],
    ]


def prepared(model, **optimizer):
    section = {"lr": 0.8, "layer_decay": 0.5, **optimizer}
    model.prepare(
        loss={"name": "cross_entropy"}, optimizer=section, scheduler={"name": "none"}, class_counts=torch.ones(7)
    )
    return model


def rates(model, **optimizer):
    """Return name -> learning rate of each parameter."""
    prepared(model, **optimizer)
    make, arguments = OPTIMIZERS.arguments(model._optimizer)
    groups = make(model._parameters_by_layer(model._optimizer), **arguments).param_groups
    assert max(group["lr"] for group in groups) == 0.8  # the logged one
    lr_of = {id(weights): group["lr"] for group in groups for weights in group["params"]}
    return {name: lr_of[id(weights)] for name, weights in model.named_parameters() if id(weights) in lr_of}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_rates_halve_from_layer_to_layer(name):
    assert rates(made("mlp", hidden=[8, 8]), name=name) == {
        "net.1.weight": 0.2, "net.2.weight": 0.2, "net.2.bias": 0.2,
        "net.5.weight": 0.4, "net.6.weight": 0.4, "net.6.bias": 0.4,
        "net.9.weight": 0.8, "net.9.bias": 0.8,
    }  # fmt: skip


def test_muon_keeps_the_layer_of_the_logits_for_adam():
    model = prepared(made("mlp", hidden=[8, 8]), name="muon", adam_lr=0.1)
    make, arguments = OPTIMIZERS.arguments(model._optimizer)
    groups = make(model._parameters_by_layer(model._optimizer), **arguments).param_groups
    orthogonal = {id(weights): group["lr"] for group in groups if group["orthogonal"] for weights in group["params"]}
    others = {id(weights): group["lr"] for group in groups if not group["orthogonal"] for weights in group["params"]}
    named = dict(model.named_parameters())
    assert orthogonal == {id(named["net.1.weight"]): 0.2, id(named["net.5.weight"]): 0.4}
    assert others[id(named["net.9.weight"])] == pytest.approx(0.1)
    assert others[id(named["net.2.bias"])] == pytest.approx(0.1 / 4)
    model.logits_of_crops(torch.rand(4, 1, 32, 32)).sum().backward()
    make(model._parameters_by_layer(model._optimizer), **arguments).step()


def test_trained_convolutions_of_vgg16_have_both_factors():
    lrs = rates(made("vgg16", weights=None, unfreeze="last_block", hidden=8), name="adamw")
    last, dense = lrs["net.28.weight"], lrs["net.33.weight"]
    assert dense == pytest.approx(0.8 * 0.5)
    assert last == pytest.approx(0.8 * 0.1 * 0.5**2)
    assert "net.0.weight" not in lrs  # frozen


def test_timms_layers_have_the_rates_of_timms_own_function():
    timm_optim = pytest.importorskip("timm.optim")
    model = made("timm", network="test_vit", size=160)
    lrs = rates(model, name="adamw")
    theirs = timm_optim.param_groups_layer_decay(model.net[1], layer_decay=0.5)
    scales = {id(weights): group["lr_scale"] for group in theirs for weights in group["params"]}
    assert len(set(scales.values())) > 3
    assert lrs == {
        name: pytest.approx(0.8 * scales[id(weights)]) for name, weights in model.named_parameters() if name in lrs
    }
    assert len(lrs) == len(scales)


def test_a_network_without_named_layers_is_refused():
    register("nameless")(Nameless)
    with pytest.raises(FerError, match="optimizer.layer_decay: .* set it to 1, or define `chains`"):
        rates(made("nameless"), name="adamw")


def test_layer_rates_go_from_the_faces_to_the_logits():
    assert prepared(made("mlp", hidden=[8, 8]), name="sgd").layer_rates() == [0.2, 0.4, 0.8]
