"""Maps of the evidence for an emotion, compared with loops, with a split network, and with captum."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from portraits import BOXES, astronaut, hopper
from torch.nn import functional

import fer
from fer.config.errors import FerError
from fer.config.registry import MODELS
from fer.data.crop import Crop
from fer.data.labels import EMOTIONS
from fer.evaluation.faithfulness import MAPS
from fer.explain import parser
from fer.inference.explain import OCCLUSION, Explained, explained
from fer.inference.gradients import METHODS, attributions, layer_of
from fer.inference.loaded import LoadedNetwork
from fer.metrics.explanation import BLOB, RANDOM, TITLES
from fer.models import create

HAPPY, NEUTRAL = EMOTIONS.index("happy"), EMOTIONS.index("neutral")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def tiny():
    return fer.load("tiny").eval()


@pytest.fixture(scope="module")
def faces():
    """The faces of the astronaut and of Hopper, (2, 1, 48, 48) uint8."""
    cut = Crop(1.0)
    pictures = {"astronaut": astronaut(), "hopper": hopper()}
    crops = [cut(picture.convert("L"), BOXES[name], 48, 0) for name, picture in pictures.items()]
    return torch.from_numpy(np.stack(crops))[:, None]


def maps(models, method, faces, emotions):
    """Maps of networks with weights, of tensors, as a tensor."""
    what = models if isinstance(models, Explained) else Explained([LoadedNetwork(one) for one in models])
    return torch.from_numpy(explained(what, method, faces.numpy(), emotions.numpy()))


@pytest.fixture
def watcher():
    """A network of two emotions that looks at rows 8 to 15 and columns 32 to 39 alone: bright is the first."""

    def probabilities(images):
        first = images[:, 0, 8:16, 32:40].mean((1, 2)).clip(0.01, 0.99)
        return np.stack([first, 1 - first], 1)

    return SimpleNamespace(probabilities=probabilities, image_size=48, emotions=("a", "b"))


# --- occlusion --------------------------------------------------------------------------------------------------------


def test_occlusion_finds_what_a_network_looks_at(watcher):
    images = np.zeros((1, 1, 48, 48), np.float32)
    images[..., 8:16, 32:40] = 0.9
    ((first, second),) = explained(Explained([watcher]), OCCLUSION, images, np.array([[0, 1]]))
    row, column = divmod(int(first.argmax()), 48)
    assert 8 <= row < 16
    assert 32 <= column < 40
    lost = np.log(0.9) - np.log(float(images.mean()))  # at the patch's middle, which lies between four pixels
    assert 0.8 * lost < first.max() < lost
    assert not first[24:].any()
    assert not first[:, :24].any()
    assert second.min() < 0 == np.abs(second[24:]).max()  # what speaks for one speaks against the other


def test_occlusion_equals_a_loop(tiny, faces):
    """Also: the difference of two emotions' maps is the map of their log odds."""
    values = maps([tiny], "occlusion", faces, torch.tensor([[HAPPY, NEUTRAL]] * 2))
    for face, (happy, neutral) in zip(faces, values, strict=True):
        unit = face.float() / 255
        before = tiny.probabilities(unit[None])[0].log()

        def lost(top, left, unit=unit, before=before):
            covered = unit.clone()
            covered[:, top : top + 8, left : left + 8] = unit.mean()
            return before - tiny.probabilities(covered[None])[0].log()

        for top, row in ((0, 0), (40, 47)):  # beyond the first and the last middle, values are constant
            for column, left, beside, weight in ((0, 0, 0, 0), (47, 40, 40, 0), (9, 4, 8, 0.375), (33, 28, 32, 0.375)):
                expected = (1 - weight) * lost(top, left) + weight * lost(top, beside)
                assert float(happy[row, column]) == pytest.approx(float(expected[HAPPY]), abs=1e-4)
                odds = float(expected[HAPPY] - expected[NEUTRAL])
                assert float((happy - neutral)[row, column]) == pytest.approx(odds, abs=1e-4)


def test_a_patch_has_the_mean_colour_of_its_face():
    model = create({"name": "mlp", "hidden": []}, image_size=48, in_channels=3).eval()
    face = torch.rand(1, 3, 48, 48) * torch.tensor([0.2, 1.0, 0.6])[:, None, None]
    covered = face.clone()
    covered[..., :8, :8] = face.mean((2, 3), keepdim=True)
    expected = (model.probabilities(face).log() - model.probabilities(covered).log())[0, HAPPY]
    values = maps([model], "occlusion", face, torch.tensor([[HAPPY]]))
    assert float(values[0, 0, 0, 0]) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("method", ["occlusion", *METHODS])
def test_a_grey_face_in_colour_has_the_maps_of_the_grey_network(faces, method):
    """The network of colours has a third of the first layer's weights in each channel."""
    grey, colour = (create({"name": "resnet9", "width": 4}, in_channels=channels).eval() for channels in (1, 3))
    weights = grey.net.state_dict()
    (first,) = (name for name, value in weights.items() if value.ndim == 4 and value.shape[1] == 1)
    colour.net.load_state_dict({**weights, first: weights[first].expand(-1, 3, -1, -1) / 3})
    emotions = torch.tensor([[HAPPY, NEUTRAL]] * 2)
    values = maps([colour], method, faces.expand(-1, 3, -1, -1).contiguous(), emotions)
    expected = maps([grey], method, faces, emotions)
    assert float(expected.abs().max()) > 1e-4
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("side", [8, 24, 47, 64])
def test_occlusion_takes_faces_of_any_size(side):
    model = create({"name": "mlp", "hidden": []}, image_size=side).eval()
    values = maps([model], "occlusion", torch.rand(3, 1, side, side), torch.tensor([[0, 1, 2]] * 3))
    assert values.shape == (3, 3, side, side)
    assert values.isfinite().all()
    assert values.flatten(2).std(2).min() > 0


# --- Grad-CAM ---------------------------------------------------------------------------------------------------------


def test_gradcam_equals_the_gradients_of_a_network_cut_in_two(tiny, faces):
    layer = layer_of(tiny)
    assert layer.side == 6
    depth = list(tiny.net).index(layer.module) + 1
    unit = faces.float() / 255
    values = tiny.net[:depth]((unit - tiny.mean) / tiny.std).detach().requires_grad_()
    logits = tiny.net[depth:](values.clone())
    drawn = maps([tiny], "gradcam", faces, torch.tensor([[HAPPY, NEUTRAL]] * 2))
    for index, emotion in enumerate((HAPPY, NEUTRAL)):
        (gradient,) = torch.autograd.grad(logits[:, emotion].sum(), values, retain_graph=True)
        sums = torch.einsum("nc,ncyx->nyx", gradient.mean((2, 3)), values)
        expected = functional.interpolate(sums[:, None], (48, 48), mode="bilinear")[:, 0]
        torch.testing.assert_close(drawn[:, index], expected, rtol=1e-4, atol=1e-5)
    assert drawn.std((2, 3)).min() > 0


SMALL = {
    "convnext": {"channels": [8, 8, 16, 16], "depths": [1, 1, 2, 1]},
    "efficientnet": {"channels": [8, 8, 16, 16]},
    "preact_resnet": {"width": 4},
    "residual_masking": {"width": 4},
    "resnet18": {"width": 4},
    "resnet9": {"width": 4},
    "timm": {"network": "resnet18", "size": 96},
    "vgg16": {"weights": None},
    "vgg19": {"channels": [4, 4, 8, 8, 8]},
    "vgg_fer": {"channels": [4, 4, 8, 8], "hidden": [16]},
}


@pytest.mark.parametrize("name", sorted(set(MODELS.names()) - {"mlp"}))
def test_the_whole_prediction_passes_through_the_layer_of_each_network(name):
    """With the layer's output constant, all faces are predicted alike; a residual branch would be passed by."""
    model = create({"name": name, **SMALL.get(name, {})}).eval()
    layer = layer_of(model)
    assert layer.side >= 6
    faces = torch.rand(2, 1, 48, 48)
    assert not torch.equal(*model(faces))
    hook = layer.module.register_forward_hook(lambda _, __, output: torch.ones_like(output))
    assert torch.equal(*model(faces))
    hook.remove()
    if name != "vgg16":  # its size is fixed; the gradients below are those of vgg19
        assert maps([model], "gradcam", faces, torch.tensor([[0], [1]])).isfinite().all()


def test_a_network_without_feature_maps_is_refused():
    mlp, vit = create({"name": "mlp"}), create({"name": "timm", "network": "vit_tiny_patch16_224", "size": 224})
    for model in (mlp, vit):
        with pytest.raises(FerError, match="names no layer of feature maps; use occlusion"):
            layer_of(model.eval())


def test_what_a_crop_leaves_out_gets_no_gradient():
    model = create({"name": "resnet9", "width": 4}, crop=40).eval()
    for method in ("gradcam", "integrated_gradients"):
        (found,) = maps([model], method, torch.rand(1, 1, 48, 48), torch.tensor([[0]]))
        assert not found[0, :2].any()
        assert not found[0, :, -2:].any()
        assert found[0, 4:-4, 4:-4].std() > 0


# --- integrated gradients ---------------------------------------------------------------------------------------------


def test_integrated_gradients_add_up_to_the_change_of_the_logit(tiny, faces):
    unit, emotions = faces[:1].float() / 255, torch.tensor([[HAPPY, NEUTRAL]])
    baseline = unit.mean((2, 3), keepdim=True).expand_as(unit)
    values = attributions(tiny, unit, baseline, emotions, 128).sum((2, 3))
    with torch.no_grad():
        change = (tiny(unit) - tiny(baseline)).gather(1, emotions)
    torch.testing.assert_close(values, change, rtol=0, atol=0.05 * float(change.abs().max()))


def test_integrated_gradients_are_those_of_captum(tiny, faces):
    captum = pytest.importorskip("captum.attr")
    unit = faces.float() / 255
    baseline = unit.mean((2, 3), keepdim=True).expand_as(unit)
    expected = captum.IntegratedGradients(tiny).attribute(
        unit, baseline, target=HAPPY, n_steps=16, method="riemann_middle"
    )
    values = attributions(tiny, unit, baseline, torch.full((2, 1), HAPPY), 16)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6)


def test_every_method_is_an_option_and_has_its_words():
    methods = {OCCLUSION, *METHODS}
    (option,) = [action for action in parser()._actions if "--method" in action.option_strings]
    assert set(option.choices) == methods, "the choices of --method in fer/explain.py"
    assert set(TITLES) - {BLOB, RANDOM} == methods, "TITLES in fer/metrics/explanation.py"
    assert set(MAPS) == methods, "MAPS in fer/evaluation/faithfulness.py"


# --- several networks, several methods --------------------------------------------------------------------------------


def test_an_ensemble_is_explained_by_occlusion_alone(tiny, faces):
    emotions = torch.tensor([[HAPPY]] * 2)
    other = create({"name": "mlp", "hidden": [8]}).eval()
    both = Explained([LoadedNetwork(tiny), LoadedNetwork(other)])
    expected = (tiny.probabilities(faces) + other.probabilities(faces)) / 2
    torch.testing.assert_close(torch.from_numpy(both.probabilities(faces.numpy())), expected)
    alone = maps([tiny], "occlusion", faces, emotions)
    torch.testing.assert_close(maps([tiny, tiny], "occlusion", faces, emotions), alone)
    assert not torch.allclose(maps(both, "occlusion", faces, emotions), alone)
    for method in METHODS:
        with pytest.raises(FerError, match=f"--method {method}: .* occlusion"):
            maps(both, method, faces, emotions)
    with pytest.raises(FerError, match="48 and 24 pixels"):
        Explained([both.networks[0], LoadedNetwork(create({"name": "mlp"}, image_size=24))])


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])  # Grad-CAM's are hardly better than random
def test_the_astronaut_smiles_with_the_mouth(tiny, faces, method):
    happy, neutral = maps([tiny], method, faces[:1], torch.tensor([[HAPPY, NEUTRAL]]))[0]
    why = happy - neutral
    assert why[28:44, 10:38].mean() > why[:28].mean()
