"""Features of faces: computed once, found by a face's pixels, right after damage, interruption or a full disk."""

import logging

import numpy as np
import pytest
import torch

from fer.data import feature_cache
from fer.data.duplicates import digests
from fer.data.feature_cache import BATCH, FeatureStore


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(feature_cache, "PART", 30)


@pytest.fixture
def pictures():
    """70 different pictures of 8 pixels a side."""
    return np.random.default_rng(0).integers(0, 256, (70, 8, 8), dtype=np.uint8)


class Layers:
    """Replaces frozen layers, and counts its batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, faces):
        assert faces.dtype == torch.uint8
        self.batches.append(len(faces))
        return torch.stack([faces.float().mean((1, 2, 3)), faces.float().amax((1, 2, 3))], 1)  # (B, 2)


def expected(pictures):
    return np.stack([pictures.mean((1, 2), dtype=np.float32), pictures.max((1, 2))], 1)


def kept(pictures, folder, layers=None, key="key"):
    """Return the features of these pictures from a store, and the layers that computed them."""
    layers = layers or Layers()
    store, names = FeatureStore(key, folder), digests(pictures)
    store.complete(dict(zip(names, pictures, strict=True)), layers)
    return store.of(names), layers


def taken(found, count):
    return found.take(list(range(count))).numpy()


def test_a_second_start_computes_nothing_and_maps_the_parts_on_disk(pictures, tmp_path):
    first, layers = kept(pictures, tmp_path)
    assert layers.batches == [BATCH] * 3  # parts of 30, 30 and 10 faces
    second, unused = kept(pictures, tmp_path)
    assert unused.batches == []
    np.testing.assert_allclose(taken(first, 70), expected(pictures), rtol=1e-6)
    np.testing.assert_array_equal(taken(second, 70), taken(first, 70))
    assert all(isinstance(part, np.memmap) for part in second.parts)


def test_a_batch_is_gathered_across_parts_in_its_own_order(pictures, tmp_path):
    found, _ = kept(pictures, tmp_path)
    indices = [69, 3, 31, 3, 60]
    np.testing.assert_allclose(found.take(indices).numpy(), expected(pictures)[indices], rtol=1e-6)
    assert found.take(indices).dtype == torch.float32


def test_other_faces_of_the_same_table_are_added_and_duplicates_are_computed_once(pictures, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    kept(pictures[:50], tmp_path)
    twice = np.concatenate([pictures[40:], pictures[40:45]])
    found, layers = kept(twice, tmp_path)
    assert layers.batches == [BATCH]
    assert "features of 30 different faces: 10 from the cache, 20 computed in 0:00" in caplog.text
    np.testing.assert_allclose(taken(found, 35), expected(twice), rtol=1e-6)


def test_another_key_shares_nothing(pictures, tmp_path):
    kept(pictures, tmp_path)
    assert len(kept(pictures, tmp_path, key="other")[1].batches) == 3


def test_features_of_a_face_do_not_depend_on_the_other_faces_of_its_batch(pictures, tmp_path):
    """Kernels for small batches round differently: the last batch is filled up."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3)).eval()

    def compute(faces):
        with torch.inference_mode():
            return net(faces.float() / 255)

    whole = feature_cache.computed(pictures, compute)
    for count in (1, 2, 69):
        np.testing.assert_array_equal(feature_cache.computed(pictures[:count], compute), whole[:count])
    assert feature_cache.computed(np.concatenate([pictures] * 3), compute).shape == (210, 32, 4, 4)


def test_an_interrupted_computation_goes_on_where_it_was(pictures, tmp_path):
    class Interrupted(Layers):
        def __call__(self, faces):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().__call__(faces)

    with pytest.raises(KeyboardInterrupt):
        kept(pictures, tmp_path, Interrupted())
    found, layers = kept(pictures, tmp_path)
    assert len(layers.batches) == 1
    np.testing.assert_allclose(taken(found, 70), expected(pictures), rtol=1e-6)
    assert not list(tmp_path.rglob(".part-*"))


def cut(file):
    file.write_bytes(file.read_bytes()[:-3])


def flip(file):
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)


@pytest.mark.parametrize("name", ["features.npy", "faces.npy", "about.json"])
@pytest.mark.parametrize("damage", [cut, flip, lambda file: file.unlink()])
def test_a_damaged_part_is_reported_and_computed_again(pictures, tmp_path, caplog, name, damage):
    kept(pictures, tmp_path)
    damage(next(path for path in sorted(tmp_path.rglob(name))))
    found, layers = kept(pictures, tmp_path)
    assert layers.batches == [BATCH]
    assert "damaged" in caplog.text
    np.testing.assert_allclose(taken(found, 70), expected(pictures), rtol=1e-6)
    assert kept(pictures, tmp_path)[1].batches == []


def test_without_a_folder_nothing_is_written(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _ = kept(pictures, None)
    np.testing.assert_allclose(taken(found, 70), expected(pictures), rtol=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported_once_and_not_used(pictures, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    found, layers = kept(pictures, tmp_path / "cache")
    assert len(layers.batches) == 3
    assert caplog.text.count("kept in memory only") == 1
    np.testing.assert_allclose(taken(found, 70), expected(pictures), rtol=1e-6)


def test_two_that_write_the_same_part_do_not_disturb_each_other(pictures, tmp_path):
    """Both begin with an empty cache; the second finds the first's parts in its way."""
    one, other = FeatureStore("key", tmp_path), FeatureStore("key", tmp_path)
    faces = dict(zip(digests(pictures), pictures, strict=True))
    for store in (one, other):
        store.complete(faces, Layers())
        np.testing.assert_allclose(taken(store.of(list(faces)), 70), expected(pictures), rtol=1e-6)
    assert len(list(tmp_path.rglob("features.npy"))) == 3
