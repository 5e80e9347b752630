"""Near duplicates: some drawn faces are changed like copies of photographs."""

import io

import numpy as np
import pytest
from PIL import Image

from fer.data.audit import near_duplicates
from fer.data.audit.near_duplicates import LEAST, correlation, detail_correlation, proposed
from fer.data.duplicates import exact_duplicates
from fer.data.readers.drawing import draw_faces

NOISE = np.random.default_rng(0)


def as_bytes(values):
    return np.clip(values, 0, 255).round().astype(np.uint8)


def as_jpeg(face):
    stream = io.BytesIO()
    Image.fromarray(face).save(stream, "jpeg", quality=30)
    return np.asarray(Image.open(stream))


CHANGES = {
    "darker": lambda face: as_bytes(face * 0.6),
    "brighter and flatter": lambda face: as_bytes(face * 0.5 + 110),
    "noisy": lambda face: as_bytes(face + NOISE.normal(0, 6, face.shape)),
    "compressed": as_jpeg,
    "mirrored": lambda face: face[:, ::-1],
    "mirrored and darker": lambda face: as_bytes(face[:, ::-1] * 0.6),
    "marked": lambda face: np.where(np.indices(face.shape)[0] // 3 == 9, 200, face).astype(np.uint8),
}


@pytest.fixture(scope="module")
def drawn():
    return draw_faces(70, seed=1)[0]


def found(images, leave_out=()):
    out = np.zeros(len(images), np.bool_)
    out[list(leave_out)] = True
    return near_duplicates.find_groups(images, exact_duplicates(images), out)


def groups_of(images, leave_out=()):
    return [group.tolist() for group in found(images, leave_out).groups]


def planted(images, *pairs):
    """Return the images with ``change(images[source])`` at each target."""
    made = images.copy()
    for source, target, change in pairs:
        made[target] = change(images[source])
    return made


def test_drawn_faces_have_no_near_duplicates():
    assert groups_of(draw_faces(700, seed=3)[0]) == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("source", [4, 11])
def test_a_changed_copy_is_found(drawn, change, source):
    duplicates = found(planted(drawn, (source, 40, CHANGES[change])))
    assert [group.tolist() for group in duplicates.groups] == [[source, 40]]
    assert bool(duplicates.mirrored[40]) == change.startswith("mirrored")
    assert LEAST <= duplicates.likeness[40] <= 1.00001
    assert duplicates.distance[40] <= 10
    assert duplicates.likeness[source] == pytest.approx(1)
    assert np.isnan(duplicates.likeness[np.delete(np.arange(70), [source, 40])]).all()


def test_groups_are_connected_and_in_the_tables_order(drawn):
    images = planted(
        drawn,
        (60, 2, CHANGES["darker"]),
        (7, 30, CHANGES["compressed"]),
        (7, 31, CHANGES["mirrored"]),
        (7, 8, CHANGES["noisy"]),
    )
    assert groups_of(images) == [[2, 60], [7, 8, 30, 31]]


def test_exact_duplicates_are_near_duplicates_only_of_other_faces(drawn):
    same = lambda face: face  # noqa: E731
    images = planted(drawn, (1, 20, same), (5, 25, same), (5, 50, CHANGES["noisy"]))
    assert groups_of(images) == [[5, 25, 50]]


def test_faces_left_out_have_no_near_duplicates(drawn):
    images = planted(drawn, (1, 20, CHANGES["noisy"]), (5, 25, CHANGES["noisy"]))
    images[30:40] = 0
    images[35:40, 3] = 1
    assert groups_of(images, leave_out=[20, *range(30, 40)]) == [[5, 25]]


def test_large_faces_are_compared_as_small_ones_are():
    images = draw_faces(30, seed=2, image_size=120)[0].copy()
    images[9] = images[4, :, ::-1]
    images[12] = as_jpeg(images[3])
    assert groups_of(images) == [[3, 12], [4, 9]]


@pytest.mark.parametrize("size", [16, 47, 95, 97])
def test_any_size_will_do(size):
    images = draw_faces(14, seed=2, image_size=size)[0].copy()
    images[9] = as_bytes(images[4] * 0.9)
    assert [4, 9] in groups_of(images)


def test_different_people_before_the_same_background_mostly_differ(drawn):
    """Their outlines correlate; their details do not."""
    rows, columns = np.indices((48, 48)) - 23.5
    ground = 220 * np.exp(-(rows**2 / 400 + columns**2 / 200))
    images = as_bytes(ground + 0.15 * drawn.astype(float))
    ones, others = (np.repeat(np.arange(35), 35), np.tile(np.arange(35, 70), 35))
    outlines = correlation(images, ones, others, False) >= LEAST
    assert outlines.sum() > 600
    assert near_duplicates.alike(images, ones, others, False).sum() < outlines.sum() / 4  # drawn eyes are much alike
    copies = as_bytes(images[:35] * 0.8)
    assert near_duplicates.alike(np.concatenate([images, copies]), np.arange(35), np.arange(70, 105), False).all()


def test_details_are_fitted_by_a_small_shift(drawn):
    images = planted(drawn, (4, 40, lambda face: np.roll(face, 1, 1)), (4, 41, lambda face: np.roll(face, 8, 1)))
    near, far = detail_correlation(images, np.array([4, 4]), np.array([40, 41]), False)
    assert near == pytest.approx(1, abs=0.02)
    assert far < 0.5


def test_a_thousand_copies_cost_a_thousand_comparisons(drawn, monkeypatch):
    images = as_bytes(drawn[4] + NOISE.normal(0, 3, (1000, 48, 48)))
    compared = []
    monkeypatch.setattr(
        near_duplicates,
        "alike",
        lambda images, one, other, turned: compared.append(len(one)) or np.ones(len(one), bool),
    )
    assert groups_of(images) == [list(range(1000))]
    assert sum(compared) < 20_000  # of 499,500 pairs


@pytest.mark.parametrize("at_a_time", [1, 1000, 2**21])
def test_the_pairs_within_the_radius_are_proposed_once(at_a_time, monkeypatch):
    monkeypatch.setattr(near_duplicates, "COMPARED", at_a_time)
    hashes = np.random.default_rng(1).integers(0, 2**16, 200, np.uint64)
    pairs = [(int(i), int(j)) for one, two in proposed(hashes, hashes, 4) for i, j in zip(one, two, strict=True)]
    expected = [
        (i, j) for i in range(200) for j in range(i + 1, 200) if bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= 4
    ]
    assert expected
    assert sorted(pairs) == expected


@pytest.mark.parametrize(("turned", "radius"), [(False, 10), (True, 8)])
def test_hashes_may_differ_in_10_bits_and_those_of_a_mirrored_face_in_8(drawn, turned, radius):
    """The radii that documentation and reports state, to the bit: a copy at the radius is a near duplicate."""
    images = np.stack([drawn[4], drawn[4, :, ::-1] if turned else drawn[4]])
    far = np.array([0, 2**64 - 1], np.uint64)  # all 64 bits differ
    for bits, expected in ((radius, [[0, 1]]), (radius + 1, [])):
        near = np.array([0, 2**bits - 1], np.uint64)
        hashes, mirrored = (far, near) if turned else (near, far[::-1])
        groups = near_duplicates.joined(images, np.arange(2), hashes, mirrored)
        assert [group.tolist() for group in groups] == expected, bits


def test_a_table_of_one_face_and_one_of_none(drawn):
    assert groups_of(drawn[:1]) == []
    assert found(drawn[:0]).groups == []
