"""A checkpoint's values are plain, its sizes those of its own weights; ``tests/test_hostile.py`` tries many more."""

import json
import time
import zipfile

import pytest
import torch

import fer
from fer.config.errors import FerError
from fer.models import checkpoints, safetensors


@pytest.fixture
def changed(trained_once, tmp_path):
    """Return a function that loads a small run's checkpoint after a change of it."""

    def load(change):
        checkpoint = torch.load(trained_once / "checkpoints" / "best.ckpt", weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "x.ckpt")
        return fer.load(tmp_path / "x.ckpt")

    return load


@pytest.mark.parametrize(
    ("hyper", "says"),
    [
        ({"hidden": [10**6, 10**6]}, "does not fit the network 'mlp'"),  # four terabytes, if it were built
        ({"hidden": [10**12]}, "model.hidden: out of range"),
        ({"hidden": [1] * 50_000}, "has many more layers"),
        ({"dropout": 2.0}, "model.dropout=2.0: out of range"),
        ({"std": 0.0}, "std=0.0"),
        ({"std": 1e-320}, "std=1e-320.*std from 0.001 to 1"),
        ({"mean": float("nan")}, "mean=nan"),
        ({"classes": ["angry"] * 7}, "7 classes; expected 2 to 1,000 different names"),
        ({"classes": [*"abcdef", "\x1b[2J"]}, "printable"),
        ({"classes": [*"abcdef", "\u202egnp"]}, "printable"),
        ({"image_size": 10**6}, "image_size=1000000: expected 16 to 512"),
        ({"crop": 1000}, "crop=1000"),
    ],
)
def test_arguments_that_no_training_writes_are_refused_before_anything_is_built(changed, hyper, says):
    begin = time.monotonic()
    with pytest.raises(FerError, match=says):
        changed(lambda checkpoint: checkpoint["hyper_parameters"].update(hyper))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("value", [0.0, -1.0, 0.04, 21.0, float("nan"), float("inf"), "warm", True])
def test_temperatures_that_no_fit_gives_are_refused(changed, value):
    with pytest.raises(FerError, match="not in the format"):
        changed(lambda checkpoint: checkpoint["fer"].update(temperature=value))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.full((16, 576), 1e300, dtype=torch.float64), "NaN or infinite"),  # infinite in 32 bits
        (torch.zeros(1).expand(2**38), "no dense tensor"),
        (torch.zeros(16, 576).to_sparse(), "no dense tensor"),
        (torch.zeros(16, 576, dtype=torch.complex64), "no dense tensor"),
        (torch.zeros(16, 576, device="meta"), "no dense tensor"),
        (torch.zeros(16, 576, dtype=torch.int64), "of the type torch.int64"),
        ("x", "no dense tensor"),
    ],
    ids=["overflow", "view", "sparse", "complex", "meta", "whole", "text"],
)
def test_tensors_that_no_network_has_are_refused(changed, value, says):
    with pytest.raises(FerError, match=f"net.1.weight.*{says}"):
        changed(lambda checkpoint: checkpoint["state_dict"].update({"net.1.weight": value}))


def test_lists_that_name_each_other_have_an_end(changed):
    nested = ["x"] * 10
    for _ in range(12):
        nested = [nested] * 10
    with pytest.raises(FerError, match="not in the format"):
        changed(lambda checkpoint: checkpoint["fer"]["dataset"].update(notes=nested))


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(trained_once, tmp_path):
    source, target = trained_once / "checkpoints" / "best.ckpt", tmp_path / "x.ckpt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, old.read(part))
    with pytest.raises(FerError, match="not compressed"):
        fer.load(target)


def test_a_shared_file_is_checked_like_a_checkpoint(tmp_path):
    tensors, about = safetensors.read(checkpoints.find("tiny"))
    entry = json.loads(about["fer"])
    entry["hyper_parameters"]["std"] = -1
    file = tmp_path / "x.safetensors"
    file.write_bytes(safetensors.to_bytes(tensors, {"fer": json.dumps(entry)}))
    with pytest.raises(FerError, match="std=-1"):
        fer.load(file)
