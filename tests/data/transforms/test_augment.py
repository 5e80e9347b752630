"""Augmentation compared with independent references, torchvision and Pillow, image by image."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as reference

from fer.config.settings import AugmentSettings
from fer.data.readers.drawing import draw_faces
from fer.data.transforms import augment


@pytest.fixture
def faces() -> torch.Tensor:
    """(8, 1, 48, 48) float in [0, 1]."""
    return torch.from_numpy(draw_faces(8, seed=3)[0])[:, None].float() / 255


def constant(value: float, count: int = 8) -> torch.Tensor:
    return torch.full((count,), value)


def inner(images: torch.Tensor) -> torch.Tensor:
    """Cut off the border, where the edge's treatment differs."""
    return images[..., 12:36, 12:36]


@pytest.mark.parametrize(
    ("degrees", "scale", "right", "down"),
    [
        (0, 1, 0, 0),
        (10, 1, 0, 0),
        (-25, 1, 0, 0),
        (0, 1.2, 0, 0),
        (0, 0.8, 0, 0),
        (0, 1, 0.1, -0.05),
        (15, 0.9, -0.1, 0.08),
    ],
)
def test_affine_agrees_with_torchvision(faces, degrees, scale, right, down):
    ours = augment.affine(
        faces, constant(math.radians(degrees)), constant(scale), constant(right), constant(down), constant(1.0)
    )
    theirs = reference.affine(
        faces,
        angle=-degrees,  # torchvision turns clockwise
        translate=[48 * right, 48 * down],
        scale=scale,
        shear=[0.0],
        interpolation=reference.InterpolationMode.BILINEAR,
    )
    assert (inner(ours) - inner(theirs)).abs().max() < 1e-4


def test_a_positive_angle_turns_counter_clockwise(faces):
    turned = augment.affine(faces, constant(math.pi / 2), constant(1), constant(0), constant(0), constant(1))
    picture = Image.fromarray((faces[0, 0] * 255).round().byte().numpy())
    expected = np.asarray(picture.rotate(90)) / 255  # Pillow turns counter-clockwise
    assert np.abs(turned[0, 0].numpy() - expected).max() < 0.01


def test_affine_mirror_is_pillows(faces):
    mirrored = augment.affine(faces, constant(0), constant(1), constant(0), constant(0), constant(-1))
    picture = Image.fromarray((faces[0, 0] * 255).round().byte().numpy())
    assert np.abs(mirrored[0, 0].numpy() - np.asarray(ImageOps.mirror(picture)) / 255).max() < 0.01


def test_mirror_comes_before_turn_and_shift(faces):
    """Mirroring does not turn the sense of the angle or of the shift, as a chain flip -> rotate -> shift has it."""
    arguments = (constant(0.3), constant(1.1), constant(0.1), constant(0.05))
    at_once = augment.affine(faces, *arguments, constant(-1))
    chained = augment.affine(faces.flip(-1), *arguments, constant(1))
    assert (at_once - chained).abs().max() < 1e-4


def test_crop_is_numpys_pad_and_slice(faces):
    left, top = torch.arange(8), torch.arange(8).flip(0)
    mirror = torch.tensor([True, False] * 4)
    ours = augment.crop_flip(faces, 4, 48, left, top, mirror)
    for index in range(8):
        image = faces[index, 0].numpy()
        padded = np.pad(image, 4, mode="reflect")
        crop = padded[top[index] : top[index] + 48, left[index] : left[index] + 48]
        assert np.array_equal(ours[index, 0].numpy(), crop[:, ::-1] if mirror[index] else crop)


def test_a_crop_is_a_part_of_the_face_as_it_is(faces):
    torch.manual_seed(4)
    many = faces[:1].expand(400, 1, 48, 48)
    cut = augment.build(AugmentSettings(flip=0.5), 44)(many)
    assert cut.shape == (400, 1, 44, 44)
    crops = [faces[0, 0, top : top + 44, left : left + 44] for top in range(5) for left in range(5)]
    expected = {crop.numpy().tobytes() for one in crops for crop in (one, one.flip(-1))}
    assert {image.numpy().tobytes() for image in cut} == expected  # every position, mirrored or not, and nothing else


def test_light_is_brightness_then_contrast_about_the_mean(faces):
    light = augment.RandomLight(0.2, 0.2)
    factors = {"brightness": constant(0.9), "contrast": constant(1.15)}
    ours = light.transform(faces, factors)
    brighter = faces * 0.9
    mean = brighter.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(ours, (mean + (brighter - mean) * 1.15).clamp(0, 1), atol=1e-6)


def test_erase_takes_rectangles_of_the_given_area(faces):
    torch.manual_seed(0)
    many = torch.rand(4000, 1, 48, 48)
    erased = augment.RandomErase(0.5, 0.2)(many)
    gone = (erased != many).flatten(1).float().mean(1)
    assert 0.45 < (gone > 0).float().mean() < 0.55
    assert gone.max() < 0.23
    assert gone[gone > 0].mean() > 0.07
    assert (erased[erased != many] == augment.ERASED).all()


ALONE = {
    "flip": 0.5,
    "rotate_degrees": 10.0,
    "zoom": 0.1,
    "shift": 0.1,
    "crop_padding": 4,
    "brightness": 0.2,
    "contrast": 0.2,
    "erase": 1.0,
}


@pytest.mark.parametrize("name", ALONE)
def test_each_alone_changes_faces_each_in_its_own_way(name):
    torch.manual_seed(1)
    same = torch.from_numpy(draw_faces(1, seed=3)[0])[:, None].float().expand(32, 1, 48, 48) / 255
    changed = augment.build(AugmentSettings(**{name: ALONE[name]}))(same)
    assert changed.shape == same.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    different = len({image.numpy().tobytes() for image in changed})
    assert different == 2 if name == "flip" else different > 20


@pytest.mark.parametrize("name", sorted(ALONE))
def test_the_channels_of_a_face_change_alike(faces, name):
    grey = faces.expand(8, 3, 48, 48)
    torch.manual_seed(5)
    alone = augment.build(AugmentSettings(**{name: ALONE[name]}))(faces)
    torch.manual_seed(5)
    changed = augment.build(AugmentSettings(**{name: ALONE[name]}))(grey)
    torch.testing.assert_close(changed, alone.expand(8, 3, 48, 48), atol=1e-6, rtol=0)  # a mean of three is rounded


def test_a_crop_keeps_its_colours(faces):
    colour = torch.cat([faces, faces.flip(0), 1 - faces], 1)
    left, top = torch.arange(8), torch.arange(8).flip(0)
    cut = augment.crop_flip(colour, 4, 48, left, top, left % 2 == 0)
    for channel in range(3):
        assert torch.equal(
            cut[:, channel : channel + 1],
            augment.crop_flip(colour[:, channel : channel + 1], 4, 48, left, top, left % 2 == 0),
        )


@pytest.mark.parametrize("name", sorted(ALONE))
def test_parameters_stay_in_their_range_and_fill_it(name):
    torch.manual_seed(2)
    images = torch.zeros(5000, 1, 24, 24)
    wide = {"flip": "mirror", "rotate_degrees": "angle", "zoom": "scale", "shift": "right"}
    if name in wide:
        transform = augment.RandomAffine(*(ALONE[key] if key == name else 0.0 for key in wide))
        drawn = transform.make_params([images])[wide[name]]
        low, high = {
            "flip": (-1, 1),
            "rotate_degrees": (-math.radians(10), math.radians(10)),
            "zoom": (0.9, 1.1),
            "shift": (-0.1, 0.1),
        }[name]
        assert drawn.min() >= low - 1e-6
        assert drawn.max() <= high + 1e-6
        assert drawn.max() - drawn.min() > 0.95 * (high - low)
    elif name == "crop_padding":
        drawn = augment.RandomCropFlip(4, 0.0).make_params([images])
        assert sorted(drawn["left"].unique().tolist()) == list(range(9))
        assert sorted(drawn["top"].unique().tolist()) == list(range(9))


def test_strength_is_one_number_for_the_whole_augmentation():
    settings = AugmentSettings(flip=0.5, rotate_degrees=10, zoom=0.1, shift=0.08, crop_padding=4, brightness=0.2,
                            contrast=0.2, erase=0.5, mixup=0.2)  # fmt: skip
    half = replace(settings, strength=0.5).at_strength()
    assert half == AugmentSettings(flip=0.5, rotate_degrees=5, zoom=0.05, shift=0.04, crop_padding=2, brightness=0.1,
                                   contrast=0.1, erase=0.25, mixup=0.2)  # fmt: skip
    assert replace(settings, strength=0.0).at_strength() == AugmentSettings(flip=0.5, mixup=0.2)
    most = replace(settings, strength=100.0).at_strength()
    assert (most.erase, most.zoom, most.rotate_degrees, most.crop_padding, most.flip) == (1, 0.9, 180, 24, 0.5)


def test_nothing_asked_for_changes_nothing(faces):
    assert torch.equal(augment.build(AugmentSettings())(faces), faces)


def test_the_same_seed_draws_the_same(faces):
    transform = augment.build(AugmentSettings(**ALONE))
    torch.manual_seed(5)
    first = transform(faces)
    torch.manual_seed(5)
    assert torch.equal(first, transform(faces))
    assert not torch.equal(first, transform(faces))


@pytest.mark.parametrize(
    "keys",
    [
        {"flip": 0.5, "crop_padding": 4},
        {"flip": 0.5, "rotate_degrees": 15, "zoom": 0.1, "shift": 0.1},
        {"brightness": 0.3, "contrast": 0.3, "erase": 0.5},
    ],
)
@pytest.mark.parametrize("crop", [None, 40])
def test_each_colour_is_changed_as_a_grey_face_is(faces, keys, crop):
    change = augment.build(replace(AugmentSettings(), **keys), crop)
    torch.manual_seed(5)
    grey = change(faces)
    torch.manual_seed(5)
    colour = change(faces.repeat(1, 3, 1, 1))
    torch.testing.assert_close(colour, grey.repeat(1, 3, 1, 1))
    others = torch.rand(8, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    if "crop_padding" in keys:  # colours that differ stay in their places
        torch.manual_seed(5)
        together = change(others)
        torch.manual_seed(5)
        torch.testing.assert_close(change(others[:, 2:]), together[:, 2:])
