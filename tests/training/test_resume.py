"""A resumed run has the weights of an uninterrupted one, to the bit."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL, metrics
from PIL import Image

from fer.config.conf import quoted
from fer.config.hydra import value_of
from fer.models import checkpoints
from fer.runs import load
from fer.training.callbacks import checkpointing

PLUGIN = """
import os, signal
from torch import nn
from fer.models import EmotionClassifier, register

@register("interrupted")
class Interrupted(EmotionClassifier):
    def __init__(self, width: int = 8, **contract):
        super().__init__(**contract)
        side = self.image_size // 2
        self.net = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
                                 nn.Flatten(), nn.Dropout(0.5), nn.Linear(width * side * side, self.num_classes))

    def training_step(self, batch, batch_idx):
        first = batch_idx % self.trainer.accumulate_grad_batches == 0
        if first and os.environ.get("STOP_AT") == f"train {self.global_step}":
            os.kill(os.getpid(), int(os.environ["STOP_WITH"]))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if os.environ.get("STOP_AT") == f"val {self.global_step}":
            os.kill(os.getpid(), int(os.environ["STOP_WITH"]))
        return super().validation_step(batch, batch_idx)
"""

AGAIN = "plugins=[interrupted_plugin]"  # a folder alone imports no module
NETWORK = (*SMALL[:4], AGAIN, "model=interrupted", *SMALL[6:], "augment=strong")


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("STOP_AT", raising=False)


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoints.read(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


def same_weights(one: Path, other: Path, name: str = "last") -> bool:
    first, second = weights(one, name), weights(other, name)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def promised(folder: Path) -> tuple[int, int]:
    """The epoch in the best checkpoint, and the best epoch named in the last checkpoint."""
    best, last = (checkpoints.read(folder / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    return best["epoch"], last["callbacks"]["Saver"]["best_epoch"]


def history(folder: Path) -> list[str]:
    """The rows of a history without its times."""
    return [row.rsplit(",", 2)[0] for row in (folder / "history.csv").read_text().splitlines()]


PLATEAU = ("scheduler=plateau", "scheduler.patience=0", "monitor=loss/val", "optimizer.lr=0.05")
# 7 steps an epoch, 3 epochs: within an epoch, at its last step, in validation after an epoch, in the last validation
CASES = [
    ("val 14", signal.SIGTERM, ()),
    ("val 14", signal.SIGINT, PLATEAU),
]
MORE_CASES = [
    ("train 9", signal.SIGINT, ()),
    *(
        (moment, signal.SIGINT, ())
        for moment in ("train 0", "train 3", "train 13", "train 19", "val 7", "val 14", "val 21")
    ),
    ("train 9", signal.SIGTERM, ()),
    ("train 9", signal.SIGINT, PLATEAU),
    ("train 9", signal.SIGINT, ("early_stopping=2", "trainer.gradient_clip=1")),
    ("train 9", signal.SIGINT, ("ema=0.9",)),
    ("val 14", signal.SIGINT, ("ema=0.9",)),
    ("train 9", signal.SIGINT, ("optimizer=muon", "ema=0.9")),
    ("train 5", signal.SIGINT, ("trainer.accumulate=2", "trainer.gradient_checkpointing=true", "ema=0.9")),
    ("train 5", signal.SIGINT, (*PLATEAU, "trainer.accumulate=2", "optimizer.layer_decay=0.5")),
]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Folders of uninterrupted runs, by their settings."""
    root, folders = tmp_path_factory.mktemp("uninterrupted"), {}

    def run(train, settings):
        if settings not in folders:
            folders[settings] = root / str(len(folders))
            assert train(*settings, f"hydra.run.dir={folders[settings]}").code == 0
        return folders[settings]

    return run


@pytest.mark.parametrize(
    ("moment", "number", "more"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CASES)]
)
def test_resumed_run_equals_an_uninterrupted_one(train, uninterrupted, tmp_path, monkeypatch, moment, number, more):
    settings, cut = (*NETWORK, *more), tmp_path / "cut"
    whole = uninterrupted(train, settings)
    monkeypatch.setenv("STOP_AT", moment)
    monkeypatch.setenv("STOP_WITH", str(int(number)))
    ended = train(*settings, f"hydra.run.dir={cut}")
    assert ended.code == 128 + number
    assert f"interrupted by {number.name}" in ended.err
    assert not (cut / "metrics.json").exists()
    if (cut / "checkpoints" / "best.ckpt").exists():
        assert len(set(promised(cut))) == 1
    monkeypatch.delenv("STOP_AT")
    resumed = train(*settings, f"resume={cut}")
    assert resumed.code == 0, resumed.err
    assert same_weights(whole, cut)
    assert same_weights(whole, cut, "best")
    assert history(whole) == history(cut)
    assert metrics(cut)["images_per_second"] < 20 * metrics(whole)["images_per_second"]
    assert metrics(whole)["confusion"] == metrics(cut)["confusion"]
    assert metrics(whole)["best_epoch"] == metrics(cut)["best_epoch"]


@pytest.mark.slow
def test_a_killed_run_has_a_sound_pair_and_goes_on_from_it(train, uninterrupted, tmp_path, monkeypatch):
    settings, cut = (*NETWORK, "ema=0.9"), tmp_path / "cut"
    whole = uninterrupted(train, settings)
    monkeypatch.setenv("STOP_AT", "train 16")  # the second epoch has ended, and is not written yet
    monkeypatch.setenv("STOP_WITH", str(int(signal.SIGKILL)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    command = [sys.executable, "-m", "fer.train", *settings, f"hydra.run.dir={cut}"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert promised(cut) == (0, 0)
    monkeypatch.delenv("STOP_AT")
    assert train(AGAIN, f"resume={cut}").code == 0
    assert same_weights(whole, cut)
    assert same_weights(whole, cut, "best")
    assert history(whole) == history(cut)


@pytest.mark.slow
def test_same_seed_gives_the_same_bits_and_another_does_not(train, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(*NETWORK, f"seed={seed}", f"hydra.run.dir={tmp_path / name}").code == 0
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


@pytest.fixture
def interrupted_run(train, tmp_path, monkeypatch):
    folder = tmp_path / "cut"
    monkeypatch.setenv("STOP_AT", "train 9")
    monkeypatch.setenv("STOP_WITH", str(int(signal.SIGINT)))
    assert train(*NETWORK, f"hydra.run.dir={folder}").code == 130
    monkeypatch.delenv("STOP_AT")
    return folder


def test_resume_alone_takes_up_the_runs_own_settings(train, interrupted_run):
    assert train(AGAIN, f"resume={interrupted_run}").code == 0
    assert metrics(interrupted_run)["epochs"] == 3
    assert metrics(interrupted_run)["command"].endswith("augment=strong")


def test_resume_with_another_configuration_is_refused_and_names_the_key(train, interrupted_run):
    ended = train(AGAIN, f"resume={interrupted_run}", "augment.flip=0.25")
    assert ended.code == 1
    assert "augment.flip=0.5, now it is 0.25" in ended.line
    odd = interrupted_run.rename(interrupted_run.with_name("dir=1 [x]"))
    ended = train(AGAIN, f"resume={quoted(str(odd))}", "augment.flip=0.25")
    (remedy,) = shlex.split(ended.line.split("from its weights: ")[1])
    assert value_of(remedy) == str(odd)


def test_numbers_as_names_of_class_folders_are_resumed_and_compared(train, tmp_path):
    settings = [*SMALL[2:], "data.cache=null", "data.split=holdout", "data.class_names={1:happy,2:sad}"]
    for name in ("photos", "more"):
        for face in range(24):
            picture = tmp_path / name / str(1 + face % 2) / f"{face}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((24, 24), 50 + face).save(picture)
    more = f"data.more=[{{path:'{tmp_path / 'more'}',class_names:{{1:happy,2:sad}}}}]"
    assert train(*settings, f"data.path={tmp_path / 'photos'}", more, f"hydra.run.dir={tmp_path / 'run'}").code == 0
    (tmp_path / "run" / "metrics.json").rename(tmp_path / "metrics.json")
    assert train(f"resume={tmp_path / 'run'}").code == 0
    assert metrics(tmp_path / "run")["accuracy"] == json.loads((tmp_path / "metrics.json").read_text())["accuracy"]
    assert load.gather([tmp_path / "run"]).skipped == {}


def test_resume_of_a_finished_run_changes_nothing(train, small_run):
    files = [file for file in small_run.rglob("*") if file.suffix in (".ckpt", ".json", ".csv")]
    before = {file: file.stat().st_mtime_ns for file in files if file.name != "status.json"}
    status = (small_run / "status.json").read_bytes()
    ended = train(f"resume={small_run}")
    assert ended.code == 0
    assert "finished already" in ended.out
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert (small_run / "status.json").read_bytes() == status


def test_resume_of_nothing_is_an_error(train, tmp_path):
    ended = train(f"resume={tmp_path / 'nowhere'}")
    assert ended.code == 1
    assert "nowhere: no run folder" in ended.line


def test_damaged_last_checkpoint_falls_back_to_the_best_and_says_so(train, uninterrupted, interrupted_run):
    whole = uninterrupted(train, NETWORK)
    last = interrupted_run / "checkpoints" / "last.ckpt"
    contents = bytearray(last.read_bytes())
    contents[len(contents) // 2] ^= 255
    last.write_bytes(contents)
    ended = train(AGAIN, f"resume={interrupted_run}")
    assert ended.code == 0, ended.err
    assert "damaged" in ended.out
    assert "resuming from" in ended.out
    assert same_weights(whole, interrupted_run)


@pytest.mark.slow
def test_a_run_that_had_stopped_early_does_not_train_on(train, tmp_path):
    folder = tmp_path / "early"
    settings = (*NETWORK, "early_stopping=1", "trainer.max_epochs=12", "optimizer.lr=1e-9")
    assert train(*settings, f"hydra.run.dir={folder}").code == 0
    before, rows = metrics(folder), history(folder)
    assert before["epochs"] < 12
    (folder / "metrics.json").unlink()  # as if it had been killed while it was scored
    assert train(AGAIN, f"resume={folder}").code == 0
    assert metrics(folder)["confusion"] == before["confusion"]
    assert metrics(folder)["epochs"] == before["epochs"]
    assert history(folder) == rows


@pytest.mark.slow
def test_resume_needs_neither_the_source_of_its_weights_nor_the_folder_it_began_in(
    train, tmp_path, monkeypatch, interrupted_run
):
    source, folder = tmp_path / "source", tmp_path / "tuned"
    assert train(*NETWORK, "trainer.max_epochs=1", f"hydra.run.dir={source}").code == 0
    monkeypatch.setenv("STOP_AT", "train 9")
    monkeypatch.setenv("STOP_WITH", str(int(signal.SIGINT)))
    assert train(*NETWORK, f"init_from={source}", f"hydra.run.dir={folder}").code == 130
    monkeypatch.delenv("STOP_AT")
    shutil.rmtree(source)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert train(AGAIN, f"resume={folder}").code == 0
    assert metrics(folder)["epochs"] == 3


def test_a_refused_run_leaves_the_other_runs_configuration_alone(train, interrupted_run):
    before = (interrupted_run / ".hydra" / "config.yaml").read_bytes()
    assert train(*NETWORK, "optimizer.lr=0.5", f"hydra.run.dir={interrupted_run}").code == 1
    assert (interrupted_run / ".hydra" / "config.yaml").read_bytes() == before


@pytest.mark.slow
def test_two_damaged_checkpoints_are_an_error(train, interrupted_run):
    for file in (interrupted_run / "checkpoints").glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:1000])
    ended = train(AGAIN, f"resume={interrupted_run}")
    assert ended.code == 1
    assert "damaged, cut short" in ended.line


def test_resume_with_other_data_is_refused(train, small_run, tmp_path, monkeypatch):
    (small_run / "metrics.json").unlink()  # as if it had been killed before its end
    about = torch.load(small_run / "checkpoints" / "last.ckpt", weights_only=True)
    about["fer"]["dataset"]["fingerprint"] = "other"
    torch.save(about, small_run / "checkpoints" / "last.ckpt")
    ended = train(f"resume={small_run}")
    assert ended.code == 1
    assert "other contents" in ended.line


def test_a_second_run_does_not_overwrite_the_first(train, small_run):
    before = (small_run / "metrics.json").read_bytes()
    ended = train(*SMALL, f"hydra.run.dir={small_run}")
    assert ended.code == 1
    assert "holds a run already" in ended.line
    assert (small_run / "metrics.json").read_bytes() == before


def test_killed_while_writing_leaves_the_old_checkpoint(small_run, monkeypatch):
    io = checkpointing.AtomicCheckpointIO()
    target = small_run / "checkpoints" / "last.ckpt"
    before = target.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(checkpoints.FerError, match=r"last\.ckpt: could not be written \(No space left on device\)"):
        io.save_checkpoint({"state_dict": {}}, target)
    assert target.read_bytes() == before
    assert [file.name for file in target.parent.iterdir() if file.name.startswith(".")] == []


def test_interrupted_run_can_be_moved(train, interrupted_run, tmp_path):
    moved = tmp_path / "elsewhere, with = odd 'name'"
    shutil.move(interrupted_run, moved)
    ended = train(AGAIN, f"resume={moved}")
    assert ended.code == 0, ended.err
    assert metrics(moved)["epochs"] == 3
