"""MixUp and CutMix: a partner and a share for each face, labels in the same shares, bits that a resumed run has too."""

import math
import re

import pytest
import torch
from conftest import SMALL, metrics

from fer.data.transforms.mixup import Mixing, one_hot, rectangles, share
from fer.models import checkpoints
from fer.optim.losses import LOSSES

COUNT, SIDE = 400, 20


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def numbered():
    """Faces of one grey each, a number of its own, and the shares of as many classes."""
    images = (torch.arange(COUNT) / COUNT).view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).clone()
    return images, torch.eye(COUNT)


def parts(shares):
    """Return the first and the second of each face's classes, and what the second has of it."""
    values, classes = shares.topk(2, dim=1)
    return classes, values


@pytest.mark.parametrize("mixing", [Mixing(mixup=1.0), Mixing(cutmix=1.0), Mixing(1.0, 1.0)])
def test_the_label_has_the_shares_of_the_pixels(mixing, numbered):
    images, shares = mixing(*numbered)
    assert images.shape == (COUNT, 1, SIDE, SIDE)
    torch.testing.assert_close(shares.sum(1), torch.ones(COUNT))
    assert int((shares > 0).sum(1).max()) <= 2
    greys = torch.arange(COUNT) / COUNT
    torch.testing.assert_close(images.mean((1, 2, 3)), shares @ greys, atol=1e-5, rtol=0)


def test_every_face_has_a_share_and_a_partner_of_its_own(numbered):
    _, shares = Mixing(mixup=1.0)(*numbered)
    classes, values = parts(shares)
    assert len(values[:, 1].unique()) > 0.95 * COUNT
    partners = torch.where(classes[:, 0] == torch.arange(COUNT), classes[:, 1], classes[:, 0])
    assert len(((partners - torch.arange(COUNT)) % COUNT).unique()) > 0.3 * COUNT  # no one shift for all


def test_cutmix_leaves_every_pixel_one_face_or_the_other(numbered):
    images, shares = Mixing(cutmix=1.0)(*numbered)
    for image, row in zip(images[:50], shares[:50], strict=True):
        greys = (row > 0).nonzero()[:, 0] / COUNT
        assert (torch.isclose(image.flatten()[:, None], greys).any(1)).all()


def test_with_both_half_of_the_faces_are_cut(numbered):
    images, _ = Mixing(1.0, 1.0)(*numbered)
    cut = torch.tensor([len(image.unique()) == 2 for image in images])
    assert 0.35 * COUNT < cut.sum() < 0.6 * COUNT


@pytest.mark.parametrize(("alpha", "middle"), [(0.2, 0.35), (1.0, 0.5), (5.0, 0.8)])
def test_shares_are_betas(alpha, middle):
    drawn = share(20_000, alpha, torch.zeros(1))
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@pytest.mark.parametrize("alpha", [0.04, 0.001, 1e-6])
def test_small_alphas_mix_few_faces(alpha):
    """Torch's own draws are 0.5 where both of its gammas are 0 in 32 bits."""
    drawn = share(200_000, alpha, torch.zeros(1))
    assert torch.isfinite(drawn).all()
    between = ((drawn > 0.05) & (drawn < 0.95)).double().mean().item()
    expected = 2 * alpha * math.log(19) / 2  # the density of Beta(a, a) is a / 2 / x / (1 - x) for small a
    assert between == pytest.approx(expected, rel=0.15, abs=1e-4)
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)


def test_squares_have_their_area_where_they_fit():
    boxes = rectangles(torch.full((2000,), 0.25), 40)
    shares = boxes.float().mean((1, 2))
    assert shares.max().item() == pytest.approx(0.25, abs=0.03)
    assert shares.min().item() < 0.15  # some reach over the edge
    assert not rectangles(torch.zeros(5), 40).any()


def test_one_hot_is_torchs():
    targets = torch.tensor([0, 3, 6, 3])
    assert torch.equal(one_hot(targets, 7), torch.nn.functional.one_hot(targets, 7).float())


def test_losses_that_take_shares_give_for_one_class_what_they_give_for_its_number():
    logits, targets = torch.randn(30, 7), torch.randint(7, (30,))
    for name in ("cross_entropy", "logit_adjusted"):
        loss = LOSSES.get(name)(torch.arange(7) + 1, label_smoothing=0.1)
        assert loss.shares
        torch.testing.assert_close(loss(logits, one_hot(targets, 7)), loss(logits, targets))
    weighted = LOSSES.get("cross_entropy")(torch.arange(7) + 1, class_weights="balanced")
    torch.testing.assert_close(weighted(logits, one_hot(targets, 7)), weighted(logits, targets))


@pytest.mark.parametrize(
    "flags",
    [
        *(pytest.param((flag,), marks=pytest.mark.slow) for flag in ("augment.mixup=0.2", "augment.cutmix=1")),
        ("augment.mixup=0.2", "augment.cutmix=1"),
    ],
)
def test_a_run_trains_on_mixed_faces_and_is_repeatable(train, tmp_path, flags):
    for folder in ("one", "again"):
        assert train(*SMALL, *flags, f"hydra.run.dir={folder}").code == 0
    assert train(*SMALL, "hydra.run.dir=plain").code == 0
    one, again, plain = (
        checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"]
        for name in ("one", "again", "plain")
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], plain[name]) for name in one)
    assert metrics(tmp_path / "one")["n"] == metrics(tmp_path / "plain")["n"]


def test_a_loss_that_takes_no_shares_is_refused(train):
    ended = train(*SMALL, "augment.mixup=0.2", "loss=focal")
    assert ended.code == 1
    assert "loss=focal: does not accept mixed labels" in ended.line
    (other,) = re.findall(r"loss=(?!focal)\w+", ended.line)
    assert train(*SMALL, "augment.mixup=0.2", other, "hydra.run.dir=other").code == 0
