"""FERDataModule: whole uint8 batches in an order that is a function of seed and epoch, resumable within an epoch."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fer.config.errors import FerError
from fer.config.settings import DataSettings, TrainerSettings, TrainSettings
from fer.data import readers
from fer.data.datamodule import FERDataModule
from fer.data.dataset import Batch
from fer.data.labels import EMOTIONS, FERPLUS_EMOTIONS
from fer.data.noise import noise_seed
from fer.data.readers import csv_file, synthetic
from fer.data.samplers import EpochBalance, EpochShuffle
from fer.data.split_notes import NOT_OFFICIAL
from fer.training.trainers import steps_an_epoch

SMALL = DataSettings(path="synthetic", synthetic_count=140, image_size=16, batch_size=10, cache=None)


@pytest.fixture(scope="module")
def faces():
    """The 140 faces of ``SMALL``: 112 train, 14 val, 14 test."""
    return synthetic.read(140, seed=0, image_size=16)


@pytest.fixture
def module():
    """Return a function that makes a module with train and val in memory."""

    def make(seed=0, augment=None, trainer=None, **changes):
        made = FERDataModule(replace(SMALL, **changes), augment=augment, seed=seed)
        made.trainer = trainer
        made.setup("fit")
        return made

    return make


def stub_trainer(**changes):
    whole = {"training": True, "current_epoch": 0, "overfit_batches": 0, "limit_val_batches": 1.0}
    return SimpleNamespace(**{**whole, **changes})


def epoch_of(module, epoch):
    """Return the training batches of an epoch."""
    loader = module.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def joined(batches):
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.targets for batch in batches])


# --- batches -------------------------------------------------------------------------------------------------------


def test_batches_are_whole_and_stay_bytes_until_they_are_moved(module):
    batches = epoch_of(module(), 0)
    assert [len(batch.targets) for batch in batches] == [10] * 11 + [2]
    for batch in batches:
        assert isinstance(batch, Batch)
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.targets), 1, 16, 16)
        assert batch.targets.dtype == torch.int64


def test_a_batch_is_one_index_into_the_split(module, monkeypatch):
    made = module()
    sizes = []
    fetch = made.datasets["train"].__getitems__
    monkeypatch.setattr(
        made.datasets["train"], "__getitems__", lambda indices: sizes.append(len(indices)) or fetch(indices)
    )
    monkeypatch.setattr(type(made.datasets["train"]), "__getitem__", None)
    assert len(list(made.train_dataloader())) == len(sizes) == 12
    assert sum(sizes) == 112


def test_an_epoch_serves_every_training_face_once_with_its_own_label(module, faces):
    images, targets = joined(epoch_of(module(), 3))
    order = [image.numpy().tobytes() for image in images]
    expected = {faces.images[index].tobytes(): faces.targets[index] for index in np.flatnonzero(faces.official == 0)}
    assert len(order) == len(set(order)) == len(expected) == 112
    assert [expected[image] for image in order] == targets.tolist()


def test_val_is_served_in_the_tables_order(module, faces):
    loader = module().val_dataloader()
    images, targets = joined(loader)
    np.testing.assert_array_equal(images[:, 0].numpy(), faces.images[faces.official == 1])
    np.testing.assert_array_equal(targets.numpy(), faces.targets[faces.official == 1])
    assert [batch.key for batch in loader] == [0, 10]


def test_a_table_from_the_cache_serves_the_same_batches(table, tmp_path):
    settings = DataSettings(path=str(table), batch_size=16, cache=str(tmp_path / "cache"))
    made = [FERDataModule(settings, seed=1) for _ in range(2)]
    for one in made:
        one.setup("fit")
    assert len(list((tmp_path / "cache").rglob("images.npy"))) == 1
    for first, second in zip(epoch_of(made[0], 1), epoch_of(made[1], 1), strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.targets, second.targets)


# --- order ---------------------------------------------------------------------------------------------------------


def test_order_is_a_function_of_seed_and_epoch(module):
    def keys(seed, epoch):
        return [batch.targets.tolist() for batch in epoch_of(module(seed=seed), epoch)]

    torch.manual_seed(1)
    first = keys(0, 5)
    torch.manual_seed(2)
    assert keys(0, 5) == first
    assert keys(0, 6) != first
    assert keys(1, 5) != first


def test_the_order_is_the_permutation_of_a_generator_on_the_cpu(module):
    made = module(seed=3, batch_size=16)
    generator = torch.Generator().manual_seed(noise_seed(3, 2, -1))
    expected = torch.randperm(112, generator=generator)
    batches = epoch_of(made, 2)
    assert [batch.key for batch in batches] == expected[::16].tolist()
    assert torch.equal(torch.cat([batch.targets for batch in batches]), made.datasets["train"].targets[expected])


class Moves(TorchDispatchMode):
    """Counts copies from one device to another."""

    count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        moved = operation is torch.ops.aten._to_copy.default and (named or {}).get("device") is not None
        self.count += moved
        return operation(*arguments, **(named or {}))


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_faces_on_a_device_are_asked_for_by_one_copy_an_epoch(sampler, module):
    made = module(sampler=sampler)
    keys = [batch.key for batch in epoch_of(made, 1)]
    for dataset in made.datasets.values():
        dataset.keep_on(torch.device("meta"))
    for loader in (made.train_dataloader(), made.val_dataloader()):
        if loader.batch_sampler.sampler is not None:
            loader.batch_sampler.sampler.set_epoch(1)
        with Moves() as moves:
            served = list(loader)
        assert moves.count == 1 < len(served)
        assert all(batch.images.device.type == batch.targets.device.type == "meta" for batch in served)
        assert [batch.key for batch in served] in (keys, [0, 10])


@pytest.mark.parametrize(
    ("size", "even", "lengths"),
    [
        (16, False, [16] * 7),
        (15, False, [15] * 7 + [7]),
        (15, True, [15] * 7),  # 7 faces wait for another epoch
        (37, False, [37] * 3),  # a face alone waits
        (37, True, [37] * 3),
        (128, True, [112]),  # the only one is served
    ],
)
def test_where_a_network_is_compiled_all_training_batches_are_whole(size, even, lengths, module):
    made = module(batch_size=size)
    made.drop_last = even
    loader = made.train_dataloader()
    assert [len(batch.targets) for batch in loader] == lengths
    assert len(loader) == len(lengths)
    assert sum(len(batch.targets) for batch in made.val_dataloader()) == 14
    settings = TrainSettings(
        data=made.data, model={}, loss={}, optimizer={}, scheduler={}, trainer=TrainerSettings(compile=even)
    )
    assert steps_an_epoch(settings, 112) == len(lengths)


@pytest.mark.parametrize(("share", "faces", "steps"), [(0.01, 12800, 1), (0.02, 12800, 2), (0.01, 100, 1)])
def test_a_part_of_the_faces_has_its_own_number_of_steps(share, faces, steps):
    settings = TrainSettings(
        data=DataSettings(batch_size=128), model={}, loss={}, optimizer={}, scheduler={},
        trainer=TrainerSettings(limit_train=share),
    )  # fmt: skip
    assert steps_an_epoch(settings, faces) == steps


@pytest.mark.parametrize(("limit", "in_order"), [(1.0, True), (1, False), (2, False), (0.5, False)])
def test_val_is_in_order_only_where_all_of_it_is_used(limit, in_order, module):
    """A source of folders lists its faces by class: its first batch would lack most of them."""
    made = module(trainer=stub_trainer(limit_val_batches=limit))
    images, _ = joined(made.val_dataloader())
    assert torch.equal(images, made.datasets["val"].images) == in_order


def test_order_does_not_draw_from_the_global_noise(module):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(EpochShuffle(112, 0))
    assert torch.equal(torch.rand(3), expected)


def test_a_balanced_epoch_holds_as_many_of_every_class():
    targets = torch.tensor([0] * 60 + [1] * 33 + [2] * 7)
    order = EpochBalance(targets, seed=3)
    epochs = []
    for epoch in range(4):
        order.set_epoch(epoch)
        indices = list(order)
        assert indices == list(order)
        counts = torch.bincount(targets[indices])
        assert counts.sum() == 100
        assert int(counts.max() - counts.min()) <= 1
        times = torch.bincount(torch.tensor(indices), minlength=100)
        assert times[:60].max() == 1  # of a large class no face twice
        assert set(times[60:93].tolist()) <= {1, 2}
        assert set(times[93:].tolist()) <= {4, 5}
        epochs.append(set(indices))
    assert len(set.union(*epochs)) > 90  # other faces of the large class in other epochs
    assert list(EpochBalance(targets, seed=4)) != list(EpochBalance(targets, seed=3))


def test_orders_of_neighbouring_epochs_and_seeds_share_nothing():
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        sampler = EpochShuffle(1000, seed)
        sampler.set_epoch(epoch)
        orders.append(np.array(list(sampler)))
        assert sorted(orders[-1]) == list(range(1000))
    for index, one in enumerate(orders):
        for other in orders[:index]:
            assert (one == other).mean() < 0.02  # one index in a thousand by chance


def test_seeds_of_batches_are_distinct_and_in_torchs_range():
    seeds = {noise_seed(seed, epoch, key) for seed in range(8) for epoch in range(8) for key in range(-1, 8)}
    assert len(seeds) == 8 * 8 * 9
    assert 0 <= min(seeds) <= max(seeds) < 2**63


def test_a_loader_goes_on_within_an_epoch(module):
    whole = epoch_of(module(), 4)
    loader = module().train_dataloader()
    loader.batch_sampler.sampler.set_epoch(4)
    running = iter(loader)
    for _ in range(5):
        next(running)
    state = loader.state_dict()
    assert state == {"served": 5}

    resumed = module().train_dataloader()
    resumed.load_state_dict(state)
    resumed.batch_sampler.sampler.set_epoch(4)
    rest = []
    for batch in resumed:
        rest.append(batch)
        assert resumed.state_dict() == {"served": (5 + len(rest)) % 12}
    assert len(rest) == 7
    for batch, expected in zip(rest, whole[5:], strict=True):
        assert torch.equal(batch.images, expected.images)
        assert batch.key == expected.key
    assert len(list(resumed)) == 12  # the epoch after is whole again


def test_a_finished_epoch_counts_as_not_begun(module):
    loader = module().train_dataloader()
    list(loader)
    assert loader.state_dict() == {"served": 0}
    assert len(list(loader)) == 12


# --- splits in memory -----------------------------------------------------------------------------------------------


def test_the_test_split_is_out_of_reach_in_training(module):
    assert set(module().datasets) == {"train", "val"}


def test_the_table_is_read_once(table, monkeypatch):
    calls = []
    read = csv_file.read
    monkeypatch.setattr(readers.READERS.get("csv"), "read", lambda *a, **k: calls.append(a) or read(*a, **k))
    made = FERDataModule(DataSettings(path=str(table), cache=None))
    for _ in range(2):
        made.setup("fit")
        assert len(made.split("test")) == 7
    assert len(calls) == 1


def test_a_split_that_is_not_there_is_named(module):
    with pytest.raises(FerError, match=r"no test split under data.split=holdout; it has train, val"):
        module(split="holdout").split("test")


def test_unlabelled_faces_are_refused(tmp_path, lines, write):
    path = write(tmp_path / "test.csv", lines(("pixels",), count=20))
    data = FERDataModule(DataSettings(path=str(path), cache=None))
    for read in (data.setup, lambda: data.split("test")):
        with pytest.raises(FerError, match="has no labels"):
            read()


def test_split_seed_and_fraction_reach_the_draw(table, lines, tmp_path, write):
    path = write(tmp_path / "train.csv", lines(("emotion", "pixels")))

    def val_rows(seed, fraction):
        settings = DataSettings(path=str(path), split="as_given", split_seed=seed, val_fraction=fraction, cache=None)
        return FERDataModule(settings, seed=7).indices("val").tolist()

    assert val_rows(0, 0.2) == val_rows(0, 0.2)
    assert val_rows(0, 0.2) != val_rows(1, 0.2)
    assert [len(val_rows(0, fraction)) for fraction in (0.1, 0.2, 0.5)] == [7, 14, 35]


def test_the_runs_seed_does_not_move_the_split(module):
    val_faces = [module(seed=seed, split="holdout").indices("val").tolist() for seed in (0, 1)]
    assert val_faces[0] == val_faces[1]


# --- description of the data ----------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_pixels_alone(module, faces):
    train = faces.images[faces.official == 0].astype(np.float64) / 255
    mean, std = module().statistics()
    assert mean == pytest.approx(train.mean(), abs=1e-12)
    assert std == pytest.approx(train.std(), abs=1e-12)
    everything = faces.images.astype(np.float64) / 255
    assert abs(mean - everything.mean()) > 1e-6  # otherwise the test proves nothing


def test_statistics_of_many_faces_are_summed_over_all_blocks(module):
    made = module()
    images = torch.randint(0, 256, (2100, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[2000:] = 255
    made.datasets["train"].images = images
    mean, std = made.statistics()
    assert mean == pytest.approx(images.numpy().mean() / 255, abs=1e-12)
    assert std == pytest.approx(images.numpy().std() / 255, abs=1e-12)


def test_black_faces_have_a_spread_to_divide_by(module):
    made = module()
    made.datasets["train"].images = torch.zeros(112, 1, 16, 16, dtype=torch.uint8)
    assert made.statistics() == (0.0, 1 / 255)


def test_class_counts_name_every_class(module, faces):
    made = module()
    np.testing.assert_array_equal(made.class_counts().numpy(), np.bincount(faces.targets[faces.official == 0]))
    made.datasets["train"].targets = torch.tensor([0, 0, 3])
    assert made.class_counts().tolist() == [2, 0, 0, 1, 0, 0, 0]


def test_description_says_what_a_result_rests_on(tmp_path, lines, write):
    made = lines(("emotion", "pixels", "Usage", "extra"))
    made[3] = made[3].replace(" ", " 256 ", 1)
    path = write(tmp_path / "fer2013.csv", made)
    module = FERDataModule(DataSettings(path=str(path), on_bad="skip", cache=None))
    described = module.describe()
    assert described.path == str(path)
    assert described.notes[0] == "columns ignored: extra"
    assert NOT_OFFICIAL in described.notes[1]  # 69 faces
    assert len(described.skipped) == 1
    assert sum(sum(by_label.values()) for by_label in described.counts.values()) == 69
    assert set(described.counts["train"]) == set(EMOTIONS)
    assert described.fingerprint == module.faces.fingerprint()


def test_different_tables_have_different_fingerprints(faces):
    other = faces.images.copy()
    other[5, 3, 3] ^= 1
    targets = faces.targets.copy()
    targets[0] = (targets[0] + 1) % 7
    changed = (
        replace(faces, images=other),
        replace(faces, targets=targets),
        replace(faces, official=faces.official * 0),
        replace(faces, soft=np.ones((140, 7), np.float32)),
        replace(faces, classes=FERPLUS_EMOTIONS),
    )
    prints = [faces.fingerprint(), *(table.fingerprint() for table in changed)]
    assert len(set(prints)) == 6
    assert replace(faces, votes=np.ones((140, 10), np.uint8)).fingerprint() == prints[0]  # they label nothing
    assert replace(faces, images=faces.images.copy()).fingerprint() == prints[0]


# --- on the device -------------------------------------------------------------------------------------------------


def test_bytes_become_floats_from_0_to_1(module):
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    batch = module().on_after_batch_transfer(Batch(images, torch.tensor([1, 2, 3]), 7), 0)
    assert batch.images.dtype == torch.float32
    assert batch.images.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert batch.targets.tolist() == [1, 2, 3]
    assert batch.key == 7
    assert images.flatten().tolist() == [0, 51, 255]


def test_floats_are_left_as_they_are(module):
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(module().on_after_batch_transfer(Batch(images, torch.zeros(2), 0), 0).images, images)


def noisy(images):
    return images + torch.rand(len(images), 1, 1, 1)


@pytest.mark.parametrize("trainer", [None, stub_trainer(training=False)], ids=["no trainer", "validating"])
def test_only_training_augments(trainer, module):
    made = module(augment=noisy, trainer=trainer)
    batch = next(iter(made.val_dataloader()))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    moved = made.on_after_batch_transfer(batch, 0)
    assert torch.equal(moved.images, batch.images / 255)
    assert torch.equal(torch.get_rng_state(), state)


def test_views_of_a_face_stand_one_set_after_the_other_each_changed_differently(module):
    made = module(augment=noisy, trainer=stub_trainer())
    made.views = 3
    batch = made.datasets["train"].__getitems__([4, 5])
    moved = made.on_after_batch_transfer(batch, 0)
    assert moved.targets.tolist() == batch.targets.tolist() * 3
    added = (moved.images - (batch.images / 255).repeat(3, 1, 1, 1))[:, 0]
    assert len({round(float(one.mean()), 6) for one in added}) == 6
    assert added.flatten(1).std(1).max() < 1e-6  # each is its own face, with one noise
    made.trainer = stub_trainer(training=False)
    assert len(made.on_after_batch_transfer(batch, 0).targets) == 2


def test_noise_is_a_function_of_seed_epoch_and_batch(module):
    def noise(seed, epoch, index, before):
        made = module(seed=seed, augment=noisy, trainer=stub_trainer(current_epoch=epoch))
        batch = made.datasets["train"].__getitems__([index, index + 1])
        torch.manual_seed(before)
        moved = made.on_after_batch_transfer(batch, 0)
        dropout = torch.rand(1)  # what the step that follows draws
        return [*(moved.images - batch.images / 255)[:, 0, 0, 0].tolist(), dropout.item()]

    expected = noise(0, 1, 4, before=0)
    assert noise(0, 1, 4, before=99) == expected
    for other in (noise(1, 1, 4, 0), noise(0, 2, 4, 0), noise(0, 1, 6, 0)):
        assert not set(other) & set(expected)
