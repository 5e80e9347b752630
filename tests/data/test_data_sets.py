"""``data.more``: several data sets, each read and split by itself, joined, weighted, and scored set by set."""

import copy
import io
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics
from PIL import Image

from fer.config.conf import spelled
from fer.config.errors import FerError
from fer.config.settings import DataSettings, FurtherSet
from fer.data.data_sets import _names, _of_first_alone, copies_across, divided, in_shares, joined
from fer.data.datamodule import FERDataModule
from fer.data.dataset import FaceDataset
from fer.data.duplicates import digests
from fer.data.faces import Faces, Source
from fer.data.labels import EMOTIONS
from fer.data.load import read_faces
from fer.data.samplers import EpochBalance, EpochBatches, EpochShares, EpochShuffle
from fer.evaluation.leakage import fingerprints, on_fer2013
from fer.evaluation.request import whole
from fer.evaluation.scoring import by_data_set
from fer.metrics.results import DatasetRecord
from fer.models.share import without_paths
from fer.runs.load import _setting
from fer.runs.predictions import Scored
from fer.system.records import plain, read
from fer.training.resume import _more

SIDE = 24


def noise(count, seed):
    """Return pictures of noise, no two of which are alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE), np.uint8)


def tree(root, pictures, splits, words):
    """Write pictures as class folders in folders of splits."""
    for number, (picture, split) in enumerate(zip(pictures, splits, strict=True)):
        folder = root / split / words[number % 7]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a tree of 84 faces with train, val and test, and 70 faces of another size in ExpW's layout."""
    root = tmp_path_factory.mktemp("sets")
    words = ("Anger", "disgust", "fear", "happiness", "sad", "surprise", "neutral")
    first = tree(root / "first", noise(84, 1), ["train"] * 56 + ["val"] * 14 + ["test"] * 14, words)
    pictures = noise(70, 2)
    pictures[:3] = noise(84, 1)[[57, 58, 71]]  # of val and test of the first; two of three pictures may be in train
    (root / "expw" / "image" / "origin").mkdir(parents=True)
    lines = []
    for number, picture in enumerate(pictures):
        scene = np.zeros((40, 60), np.uint8)
        scene[5 : 5 + SIDE, 9 : 9 + SIDE] = picture
        Image.fromarray(scene).save(root / "expw" / "image" / "origin" / f"{number:02}.png")
        lines.append(f"{number:02}.png 0 5 9 {9 + SIDE} {5 + SIDE} 80.1 {number % 7}")
    (root / "expw" / "label.lst").write_text("\n".join(lines))
    return first, root / "expw"


def settings(folders, **keys):
    paths = {"path": str(folders[0]), "more": [str(path) for path in folders[1:]]}
    return DataSettings(**{**paths, "split": "as_given", "image_size": SIDE, "cache": None, **keys})


@pytest.fixture(scope="module")
def both(folders):
    data = FERDataModule(settings(folders))
    data.setup("fit")
    return data


def test_each_set_is_read_split_and_mapped_by_itself(folders, both):
    alone = [FERDataModule(settings([folders[0]], more=None)), FERDataModule(settings([folders[1]], split="holdout"))]
    assert (both.faces.images == np.concatenate([one.faces.images for one in alone])).all()
    assert (both.faces.targets == np.concatenate([one.faces.targets for one in alone])).all()
    assert both.faces.rows.tolist() == [*range(84), *range(84, 154)]
    assert [one.split for one in both.describe().sets] == ["as_given", "holdout"]
    changed = both.splits != np.concatenate([one.splits for one in alone])
    assert (both.splits[changed] == -1).all()
    assert both.faces.group[:84].max() == -1  # pictures of ExpW are groups, those of the tree are none
    assert len(set(both.faces.group[84:].tolist())) == 70


def test_a_training_face_that_another_set_scores_leaves_train(both):
    scored = set(digests(both.faces.images[:84][both.splits[:84] > 0]))
    copies = [name in scored for name in digests(both.faces.images[84:])]
    assert sum(copies) == 3
    drawn = FERDataModule(both.sets.each[1].data).splits
    lost = int((drawn[np.flatnonzero(copies)] == 0).sum())
    assert lost > 0
    assert not both.hashes("train") & scored
    assert any(note.startswith("expw") and f"{lost} face" in note and "train" in note for note in both.notes)
    record = both.describe().sets[1]
    assert sum(record.counts["train"].values()) == int((drawn == 0).sum()) - lost


def test_copies_of_another_compression_are_found_and_other_faces_stay(drawn):
    stream = io.BytesIO()
    Image.fromarray(drawn.images[0]).resize((96, 96)).save(stream, "JPEG", quality=70)
    copy = np.asarray(Image.open(stream).resize((48, 48)))
    images = np.stack([copy, noise(1, 5)[0].repeat(2, 0).repeat(2, 1), drawn.images[0], drawn.images[0]])
    copies = copies_across(images, np.array([0, 0, 2, 0], np.int8), np.array([0, 0, 1, 1], np.int8))
    assert copies.tolist() == [True, False, False, False]  # the last is of the same set as its copy


def test_val_of_first_is_val_of_the_first_set_alone(folders, both):
    data = FERDataModule(settings(folders, val_of="first"))
    alone = FERDataModule(settings([folders[0]], more=None))
    for split in ("val", "test"):
        assert data.hashes(split) == alone.hashes(split)
    assert data.hashes("train") == both.hashes("train")
    left_out = sum((both.splits[84:] > 0).tolist())
    assert any("data.val_of=first" in note and f"{left_out} faces" in note for note in data.notes)


def test_runs_with_val_of_the_first_set_are_ranked_with_those_on_it_alone(folders):
    def facts(**keys):
        dataset = FERDataModule(settings(folders, **keys)).describe()
        metrics = SimpleNamespace(dataset=dataset, scores=SimpleNamespace(per_class={}, n=14), split="val")
        return _setting(metrics, SIDE, "digest", of_first="val_of" in keys)

    assert facts(val_of="first") == facts(more=None) != facts()


def test_one_set_is_as_before(folders):
    data = FERDataModule(settings([folders[0]], more=None))
    faces = read_faces(data.data)
    assert data.sets is None
    assert data.faces.fingerprint() == faces.fingerprint()
    assert "sets" not in plain(data.describe())


def test_names_of_sets_differ():
    assert _names(["a", "a", "a (2)", "a"]) == ["a", "a (2)", "a (2) (2)", "a (3)"]


def test_records_state_every_set(folders, both):
    record = plain(both.describe())
    assert record["name"] == "first + expw"
    known = read(DatasetRecord, record)
    assert known.sets[0].path == str(folders[0])
    assert fingerprints(record) == [both.faces.fingerprint(), *(one.fingerprint for one in known.sets)]
    shared = without_paths({**record, "settings": {"path": str(folders[0]), "more": [{"path": str(folders[1])}]}})
    assert str(folders[0].parent) not in str({**shared, "notes": []})
    assert whole(shared)["more"] == [{"path": "expw"}]
    official = {"name": "fer2013", "split": "official", "counts": {"train": {"happy": 28_709}}}
    assert on_fer2013({"name": "fer2013 + expw", "sets": [official, record["sets"][1]]})
    assert not on_fer2013(record)


def test_accuracy_of_each_set(both):
    indices = both.indices("val")
    right = both.sets.numbers[indices] == 1  # wrong on the first set, right on the second
    targets = both.faces.targets[indices].astype(np.int64)
    probabilities = np.eye(7, dtype=np.float32)[np.where(right, targets, (targets + 1) % 7)]
    first, second = by_data_set(
        Scored(both.faces.images[indices], targets, probabilities, indices, EMOTIONS), both, "val"
    )
    assert (first.accuracy, second.accuracy) == (0, 1)
    assert (first.n, second.n) == (14, int(right.sum()))


# --- weights --------------------------------------------------------------------------------------------------------


def test_shares_hold_in_every_epoch_and_depend_on_seed_and_epoch_alone():
    numbers = torch.tensor([0] * 90 + [1] * 10)
    sampler = EpochShares(numbers, [0.25, 0.75], seed=3)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        epochs.append(sampler.indices())
        counts = torch.bincount(epochs[-1], minlength=100)
        assert (int(counts[:90].sum()), int(counts[90:].sum())) == (25, 75)
        assert counts[:90].max() == 1
        assert set(counts[90:].tolist()) == {7, 8}  # 75 faces of ten
    assert not torch.equal(*epochs)
    again = EpochShares(numbers, [0.25, 0.75], seed=3)
    again.set_epoch(1)
    assert torch.equal(again.indices(), epochs[1])


def test_shares_with_balanced_classes():
    numbers, targets = torch.tensor([0] * 60 + [1] * 40), torch.tensor([0] * 50 + [1] * 10 + [2] * 40)
    indices = EpochShares(numbers, [0.6, 0.4], 0, targets).indices()
    assert torch.bincount(targets[indices]).tolist() == [30, 30, 40]


def test_whole_numbers_of_shares():
    assert divided(10, [1 / 3, 1 / 3, 1 / 3]) == [4, 3, 3]
    assert divided(7, [0.1, 0.9]) == [1, 6]
    assert in_shares([1.0, 3.0]) == [0.25, 0.75]
    assert in_shares([1.5e308, 1.5e308]) == [0.5, 0.5]


def test_classes_are_counted_as_an_epoch_has_them(both):
    weighted, train = both.replaced(), copy.copy(both.datasets["train"])
    weighted.sets = replace(both.sets, shares=[0.25, 0.75])
    of_second = torch.from_numpy(both.sets.numbers[both.indices("train")]) == 1
    train.targets = torch.where(of_second, 0, train.targets)  # the second set shows one emotion alone
    weighted.datasets = {"train": train}
    order, drawn = weighted.order(), torch.zeros(7)
    for epoch in range(200):
        order.set_epoch(epoch)
        drawn += torch.bincount(train.targets[order.indices()], minlength=7) / 200
    assert weighted.class_counts().tolist() == pytest.approx(drawn.tolist(), abs=0.3)


def test_settings_of_the_first_set_alone_are_noted():
    (note,) = _of_first_alone(DataSettings(votes="votes.csv", labels="ferplus"), "fer2013")
    assert all(word in note for word in ("data.votes, data.labels", "fer2013", "agreement with the annotators"))
    assert _of_first_alone(DataSettings(), "fer2013") == []


def test_a_resumed_run_states_how_a_moved_set_is_found_again():
    with pytest.raises(FerError, match=r"data\.more.*nowhere.*link"):
        _more(DataSettings(path="x", more=["nowhere"]), [{"path": "nowhere"}], resumed=True)


def test_a_weight_that_shows_no_face_is_refused(folders, both):
    weighted = both.replaced()
    weighted.sets = replace(both.sets, shares=in_shares([1.0, 1e-6]))
    with pytest.raises(FerError, match=r"data\.weights.*expw.* none of the .* faces of an epoch"):
        weighted.class_counts()


def test_a_set_that_loses_all_training_faces_to_conflicts_is_refused(tmp_path):
    pictures = noise(42, 3)
    words = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    first = tree(tmp_path / "first", pictures, ["train"] * 28 + ["val"] * 14, words)
    others, splits = np.concatenate([pictures[:14], noise(14, 4)]), ["train"] * 14 + ["val"] * 14
    second = tree(tmp_path / "second", others, splits, words[1:] + words[:1])
    data = FERDataModule(settings([first, second], conflicts="drop", weights=[1.0, 1.0]))
    with pytest.raises(FerError, match=r"second.*data\.conflicts=keep"):
        data.setup("fit")


def test_ranks_share_each_weighted_batch(both):
    from fer.system.ranks import Rank

    dataset = both.datasets["train"]
    sampler = EpochShares(torch.zeros(len(dataset), dtype=torch.long), [1.0], 0)
    whole_batches = [batch.host for batch in EpochBatches(dataset, 16, sampler)]
    parts = [[batch.host for batch in EpochBatches(dataset, 16, sampler, rank=Rank(number, 2))] for number in (0, 1)]
    assert all(torch.equal(torch.cat(halves), batch) for *halves, batch in zip(*parts, whole_batches, strict=True))


def test_an_epoch_has_the_same_faces_with_one_and_two_ranks(folders):
    from fer.system.ranks import Rank

    def served(rank):
        data = FERDataModule(settings(folders, weights=[1.0, 2.0], batch_size=16), seed=5, rank=rank)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(3)
        return [(batch.key, batch.targets) for batch in loader]

    alone, *parts = served(Rank()), served(Rank(0, 2)), served(Rank(1, 2))
    for (key, whole_batch), *halves in zip(alone, *parts, strict=True):
        assert [other for other, _ in halves] == [key, key]  # of the noise
        assert torch.equal(torch.cat([targets for _, targets in halves]), whole_batch)


def test_settings_choose_the_sampler(folders, both):
    assert type(both.order()) is EpochShuffle
    weighted = both.replaced(data=both.data)
    weighted.sets = replace(both.sets, shares=[0.5, 0.5])
    order = weighted.order()
    assert isinstance(order, EpochShares)
    of_second = both.sets.numbers[both.indices("train")][order.indices().numpy()].sum()
    assert of_second == len(order) // 2
    assert weighted.datasets["train"].repeats


def test_a_balanced_order_of_one_set_is_as_before():
    """The order of seed 0, epoch 0 that version 0.1.0 drew."""
    assert EpochBalance(torch.tensor([0, 0, 0, 0, 1, 1, 2]), 0).indices().tolist() == [2, 6, 6, 5, 4, 6, 1]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"weights": [1.0]}, ("data.weights", "data.path", "data.more")),
        ({"memory_limit_gb": 1.0, "cache": "auto"}, ("data.memory_limit_gb", "data.more")),
        ({"more": ["x"] * 127}, ("data.more", "at most 126")),
        ({"more": [{"pth": "x"}]}, ("data.more[0].pth", "path, split, class_names")),
        ({"more": [{"path": "x", "split": "half"}]}, ("data.more[0].split", "holdout")),
    ],
)
def test_contradicting_keys_are_refused(folders, keys, words):
    with pytest.raises(FerError) as caught:
        settings(folders, **keys)
    assert all(word in str(caught.value) for word in words)


def test_a_set_is_given_once(folders):
    with pytest.raises(FerError, match=r"first.* twice"):
        _ = FERDataModule(settings([folders[0], folders[0]])).faces


def test_a_refused_split_is_named_as_the_entry_has_it(folders):
    more = [{"path": str(folders[1]), "split": "official"}]
    with pytest.raises(FerError) as caught:
        _ = FERDataModule(settings(folders, more=more)).faces
    words = str(caught.value)
    assert words.startswith(shlex.quote(f"data.more=[{{path:{spelled(str(folders[1]))},split:official}}]"))
    assert "split:holdout}]" in words
    assert "data.split" not in words


def test_an_entry_may_be_a_path_or_a_mapping(folders):
    assert FurtherSet.of("a", "x") == FurtherSet.of({"path": "a"}, "x")
    data = FERDataModule(settings(folders, more=[{"path": str(folders[1]), "split": "folds"}], folds=7, fold=6))
    assert data.describe().sets[1].folds == 7


def test_soft_targets_and_contempt_of_one_set():
    def made(**keys):
        column = np.zeros(2, np.int8)
        return Faces(noise(2, 1), np.array([1, -1], np.int8), column, column, np.arange(2), Source("a", "b"), **keys)

    eight = (*EMOTIONS, "contempt")
    soft = np.full((2, 8), 1 / 8, np.float32)
    faces = joined([made(), made(classes=eight, soft=soft)], ["a", "b"])
    assert faces.classes == eight
    assert faces.soft[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert faces.soft[1].sum() == 0  # unlabelled, and so in no split
    assert (faces.soft[2:] == soft).all()
    assert FaceDataset(faces.images, faces.targets, faces.soft).soft.shape == (4, 8)


# --- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_on_two_sets_resumes_and_is_evaluated_on_each(train, evaluate, interrupt_at, folders):
    keys = [*SMALL[3:7], "logger=none", "trainer.max_epochs=2", f"data.path={folders[0]}", "data.split=as_given"]
    keys += [f"data.more=[{folders[1]}]", "data.weights=[1,3]", f"data.image_size={SIDE}"]
    assert train(*keys, "hydra.run.dir=whole").code == 0
    interrupt_at(5)
    assert train(*keys, "hydra.run.dir=cut").code != 0
    assert train("resume=cut").code == 0
    first, second = (torch.load(f"{run}/checkpoints/best.ckpt", weights_only=True) for run in ("whole", "cut"))
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])
    results = metrics(Path("whole"))
    assert [one["share"] for one in results["dataset"]["sets"]] == [0.25, 0.75]
    assert sum(one["n"] for one in results["data_sets"]) == results["n"]
    assert first["fer"]["dataset"]["settings"]["more"][0]["path"] == str(folders[1])

    ended = evaluate("whole", "--data", str(folders[1]), "--no-report")  # its val, by the rule of the training
    assert ended.code == 0, ended.err
    alone, expected = metrics(Path("whole/evaluations/val")), results["data_sets"][1]
    assert (alone["n"], alone["accuracy"]) == (expected["n"], expected["accuracy"])
    assert alone["seen_in_choice"] == alone["n"]
    assert alone["seen_in_training"] == 0
    assert evaluate("whole", "--split", "test", "--no-report").code == 0
    assert evaluate("whole", "--rule", "holdout").code == 1

    # a data set that was moved since: known by its name, its split is that of the training, and overlap is counted
    kept = torch.load("whole/checkpoints/best.ckpt", weights_only=True)
    kept["fer"]["dataset"]["settings"]["more"][0]["path"] = "gone/expw"
    torch.save(kept, "whole/checkpoints/best.ckpt")
    ended = evaluate("whole", "--data", str(folders[1]), "--no-report", "--out", "moved")
    assert ended.code == 0, ended.err
    again = metrics(Path("moved/val"))
    assert (again["n"], again["accuracy"], again["seen_in_training"]) == (alone["n"], alone["accuracy"], 0)
