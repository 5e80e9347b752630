"""Checkpoints are untrusted files: damaged, changed and malicious ones are refused."""

import os
import pickle
import zipfile

import pytest
import torch
from conftest import SMALL

import fer
from fer.config.errors import FerError


@pytest.fixture
def file(small_run):
    return small_run / "checkpoints" / "best.ckpt"


def change(file, **entries):
    checkpoint = torch.load(file, weights_only=True)
    for name, value in entries.items():
        checkpoint[name] = value
    torch.save(checkpoint, file)


class Payload:
    """An object that writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickled_payload_is_refused_and_never_runs(file, tmp_path):
    mark = tmp_path / "mark"
    checkpoint = torch.load(file, weights_only=True)
    torch.save({**checkpoint, "callbacks": Payload(mark)}, file)
    with pytest.raises(FerError, match="objects other than weights and plain values"):
        fer.load(file)
    assert not mark.exists()


def test_a_bare_pickle_is_refused_and_never_runs(tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(FerError, match="is no network"):
        fer.load(tmp_path / "x.ckpt")
    assert not mark.exists()


def test_an_instantiator_is_refused(file):
    change(file, hyper_parameters={"_instantiator": "os.system"})
    with pytest.raises(FerError, match="names code to run"):
        fer.load(file)


@pytest.mark.parametrize("position", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_byte_is_found(file, position):
    contents = bytearray(file.read_bytes())
    contents[int(len(contents) * position)] ^= 1
    file.write_bytes(contents)
    with pytest.raises(FerError, match="damaged"):
        fer.load(file)


@pytest.mark.parametrize("length", [0, 10, 5000])
def test_a_cut_file_is_found(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(FerError, match="damaged, cut short, or no checkpoint"):
        fer.load(file)


def test_nan_weights_are_refused(file):
    weights = torch.load(file, weights_only=True)["state_dict"]
    weights["net.1.weight"][0, 0] = float("nan")
    change(file, state_dict=weights)
    with pytest.raises(FerError, match=r"net\.1\.weight holds NaN"):
        fer.load(file)


def test_weights_of_another_shape_are_refused(file):
    weights = torch.load(file, weights_only=True)["state_dict"]
    weights["net.1.weight"] = weights["net.1.weight"][:, :5]
    change(file, state_dict=weights)
    with pytest.raises(FerError, match="does not fit the network 'mlp'.*net.1.weight"):
        fer.load(file)


def test_a_newer_format_is_refused(file):
    change(file, fer={"format": 99, "architecture": "mlp"})
    with pytest.raises(FerError, match="newer version"):
        fer.load(file)


@pytest.mark.parametrize(
    "entries",
    [
        {"state_dict": [1]},
        {"state_dict": None},
        {"hyper_parameters": None},
        {"fer": {"format": "x", "architecture": "mlp", "dataset": {}}},
        {"fer": {"format": 1, "architecture": "mlp", "dataset": None}},
    ],
)
def test_a_changed_layout_is_refused(file, entries):
    change(file, **entries)
    with pytest.raises(FerError, match="not in the format of a checkpoint of fer"):
        fer.load(file)


@pytest.mark.parametrize(
    "entry",
    [
        {"settings": None},
        {"settings": 7},
        {"settings": {"path": 7}},
        {"excluded": "all"},
        {"counts": {"train": 7}},
        {"notes": None},
    ],
)
def test_a_changed_record_of_the_data_is_refused(file, entry):
    about = torch.load(file, weights_only=True)["fer"]
    change(file, fer={**about, "dataset": {**about["dataset"], **entry}})
    with pytest.raises(FerError, match="record of the training data was changed"):
        fer.load(file)


def test_unknown_data_settings_are_refused_by_evaluate(file, scores, small_run):
    about = torch.load(file, weights_only=True)["fer"]
    about["dataset"]["settings"]["colour"] = 1
    change(file, fer=about)
    ended = scores(str(small_run))
    assert (ended.code, "colour: no such key" in ended.line) == (1, True)


def test_an_unknown_network_says_how_to_bring_it(file):
    change(file, fer={"format": 1, "architecture": "mine", "dataset": {}})
    with pytest.raises(FerError, match="network 'mine' is not registered .*plugins="):
        fer.load(file)


def test_another_librarys_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(FerError, match="no checkpoint of fer"):
        fer.load(tmp_path / "other.ckpt")


def test_other_classes_are_refused_for_fine_tuning(file, train):
    hyper = torch.load(file, weights_only=True)["hyper_parameters"]
    change(file, hyper_parameters={**hyper, "classes": [*hyper["classes"][:-1], "bored"]})
    ended = train(*SMALL, f"init_from={file}", "hydra.run.dir=out")
    assert (ended.code, "its classes are" in ended.line) == (1, True)


def test_weights_of_another_shape_say_what_would_fit(file, train):
    ended = train(*SMALL, "model.hidden=[8]", f"init_from={file}", "hydra.run.dir=out")
    assert (ended.code, "its mlp is of another shape than this one; set model.hidden=[16]" in ended.line) == (1, True)
    ended = train(*SMALL[:5], *SMALL[6:], "model=cnn", f"init_from={file}", "hydra.run.dir=out")
    assert (ended.code, "holds 'mlp', which does not fit model.name=cnn" in ended.line) == (1, True), ended.line


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("https://example.org/best.ckpt", "read from files only"),
        ("missing.ckpt", "no such checkpoint or run folder"),
        ("owner/name", "no such checkpoint or run folder.* hf://owner/name"),
        (".", "no run folder"),
    ],
)
def test_what_is_no_checkpoint_is_named(path, says):
    with pytest.raises(FerError, match=says):
        fer.load(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(FerError, match="not readable as a checkpoint"):
        fer.load(tmp_path / "x.ckpt")
