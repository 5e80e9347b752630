"""Preparation of a run for its device, as far as it can be tested without a GPU."""

import copy
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import SMALL, metrics

from fer.config.errors import FerError
from fer.config.settings import DataSettings, TrainerSettings, TrainSettings
from fer.data.labels import EMOTIONS
from fer.models import checkpoints, create
from fer.models.trainable import Trainable
from fer.optim.losses import LOSSES
from fer.system import machine
from fer.training import device

SECTIONS = {"model": {"name": "cnn"}, "loss": {"name": "cross_entropy"}, "optimizer": {"name": "sgd", "lr": 0.1}}
SETTINGS = TrainSettings(data=DataSettings(batch_size="auto"), scheduler={"name": "none"}, **SECTIONS)


def network(loss="cross_entropy"):
    model = create({"name": "cnn"}, classes=[str(number) for number in range(7)], image_size=24, mean=0.5, std=0.25)
    counts = torch.full((7,), 10)
    model.prepare(loss={"name": loss}, optimizer=SETTINGS.optimizer, scheduler=SETTINGS.scheduler, class_counts=counts)
    return model


# --- data.batch_size=auto -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "most", "found"),
    [(1000, 10_000, 512), (64, 10_000, 64), (9999, 574, 512), (9999, 512, 512), (31, 99, None)],
)
def test_the_largest_that_fits_is_found_from_below(room, most, found):
    tried = []
    assert device.largest(lambda size: tried.append(size) or size <= room, most) == found
    assert tried == sorted(tried)
    assert all(size <= 2 * room + 2 for size in tried)  # nothing is tried beyond the first that does not fit


@pytest.mark.parametrize(
    ("room", "faces", "size", "says"),
    [(300, 28_709, 256, "twice as many do not fit"), (10**6, 28_709, 512, "more would leave fewer than 50 steps")],
)
def test_a_gpu_is_given_what_fits(room, faces, size, says, monkeypatch):
    monkeypatch.setattr(device, "of", lambda settings: torch.device("cuda"))
    monkeypatch.setattr(device, "_fits", lambda settings, model, size, device: size <= room)
    chosen = device.batch_size(SETTINGS, network(), faces)
    assert chosen[0] == size
    assert says in chosen[1]


def test_a_gpu_on_which_nothing_fits_is_one_line(monkeypatch):
    monkeypatch.setattr(device, "of", lambda settings: torch.device("cuda"))
    monkeypatch.setattr(device, "_fits", lambda *asked: False)
    with pytest.raises(FerError, match="data.batch_size=auto: 32 faces do not fit in the memory of cuda"):
        device.batch_size(SETTINGS, network(), 28_709)


@pytest.mark.parametrize("loss", LOSSES.names())
def test_a_trial_leaves_the_network_as_it_was(loss):
    model = network(loss)
    before = copy.deepcopy(model.state_dict())
    device.trial(model, 40, torch.device("cpu"), bf16=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert int(model.train_scores.confusion.sum()) == 0


def test_what_was_chosen_is_reported_and_kept(train, tmp_path):
    ended = train(*SMALL, "data.batch_size=auto", "hydra.run.dir=run")
    assert ended.code == 0, ended
    assert "data.batch_size=128: the default; on a CPU larger ones are no faster" in ended.out
    assert metrics(tmp_path / "run")["batch_size"] == 128
    assert checkpoints.read(tmp_path / "run" / "checkpoints" / "last.ckpt")["fer"]["batch_size"] == 128


@pytest.mark.slow
def test_a_run_resumed_twice_keeps_the_batch_size_that_was_found(train, tmp_path, monkeypatch, interrupt_at):
    monkeypatch.setattr(device, "BATCH_SIZE", 16)
    interrupt_at(9)
    assert train(*SMALL, "data.batch_size=auto", "hydra.run.dir=run").code == 130
    monkeypatch.setattr(device, "BATCH_SIZE", 64)  # as if another machine had room for more
    interrupt_at(16)
    assert train("resume=run").code == 130
    assert train("resume=run").code == 0
    assert metrics(tmp_path / "run")["batch_size"] == 16


# --- threads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch):
    """Set two threads, as torch would on two cores; restored after the test."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("setting", "environment", "cores", "threads_used"),
    [(None, None, 1, 1), (None, "2", 1, 2), (2, None, 1, 2), (None, None, 8, 2)],
)
def test_threads_are_no_more_than_the_cores_that_a_container_may_use(
    setting, environment, cores, threads_used, monkeypatch
):
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    machine.prepare(TrainerSettings(threads=setting, accelerator="cpu"))
    assert torch.get_num_threads() == threads_used


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("cores", "said"), [(1, True), (2, False)])
def test_more_threads_than_cores_are_reported(train, monkeypatch, cores, said):
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    ended = train(*SMALL, "trainer.max_epochs=1", "trainer.threads=2", "trainer.accelerator=cpu")
    assert ("with 2 threads, 32 bits (this process may use 1 core: lower trainer.threads=2)" in ended.out) == said


@pytest.mark.slow
@pytest.mark.anew
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP, which torch brings on Linux")
@pytest.mark.parametrize(
    ("module", "environment", "spins"),
    [
        ("fer.train", {}, 0),
        ("fer.evaluate", {}, 0),
        ("fer.evaluate", {"OMP_WAIT_POLICY": "ACTIVE"}, 30_000_000_000),
    ],
)
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(module, environment, spins):
    """OpenMP reports how long a waiting thread spins, a setting that it reads when torch is imported."""
    run = [*SMALL, "trainer.max_epochs=1", "hydra.run.dir=run"] if module == "fer.train" else ["missing.ckpt"]
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    ended = subprocess.run(
        [sys.executable, "-m", module, *run],
        env={**own, **environment, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", ended.stderr) == [str(spins)]


# --- the order of the weights in memory -----------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "channels_last"), [(48, True), (64, False)])
def test_a_network_keeps_the_order_of_memory_in_which_torch_can_train_it(side, channels_last):
    """The shortcut of 8 to 16 channels takes a side of 44, and of 60, where the process would end."""
    model = create({"name": "mini_xception"}, classes=EMOTIONS, image_size=side)
    model = device.laid_out(model.train(), TrainerSettings(accelerator="cpu"))
    assert any(not weights.is_contiguous() for weights in model.parameters()) == channels_last
    model.logits_of_crops(torch.rand(2, 1, side, side)).sum().backward()
    assert model.training


# --- trainer.compile ------------------------------------------------------------------------------------------------


@pytest.mark.slow  # a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_network_learns_what_the_other_learns(train, tmp_path):
    network = (
        "model=cnn",
        "model.channels=[4,8]",
        "model.hidden=8",
        "model.dropout=0",
        "model.head_dropout=0",
        "optimizer=sgd",
        "data.image_size=16",
    )
    options = (*(text for text in SMALL if not text.startswith("model")), *network)
    assert train(*options, "hydra.run.dir=plain").code == 0
    ended = train(*options, "trainer.compile=true", "hydra.run.dir=compiled")
    assert ended.code == 0, ended
    assert "the network is compiled at its first steps" in ended.out
    plain, compiled = (
        checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("plain", "compiled")
    )
    assert list(plain["state_dict"]) == list(compiled["state_dict"])
    for name, value in plain["state_dict"].items():
        torch.testing.assert_close(compiled["state_dict"][name], value, rtol=1e-2, atol=1e-2)


RESNET9 = (*SMALL[:3], "data.batch_size=15", *SMALL[6:], "model=resnet9", "model.width=2", "trainer.compile=true")


@pytest.mark.slow  # compiles four networks
def test_one_graph_is_compiled_a_stage(train, graphs, tmp_path):
    """112 faces of train in batches of 15 leave 7 over, val is one batch of 14: of three shapes one is compiled."""
    stages = ("stages=[[16,1],[24,2]]", "ema=0.9")
    ended = train(*RESNET9, *stages, "hydra.run.dir=compiled")
    assert ended.code == 0, ended.err
    assert graphs == [(15, 1, 16, 16), (15, 1, 24, 24)]
    assert torch._dynamo.eval_frame._stance.stance == "default"  # val's exception from it is over
    assert train(*RESNET9, *stages, "data.batch_size=16", "trainer.compile=false", "hydra.run.dir=plain").code == 0
    assert train(*RESNET9, *stages, "data.batch_size=16", "hydra.run.dir=same").code == 0
    plain, same = (checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("plain", "same"))
    for name, value in plain["state_dict"].items():
        torch.testing.assert_close(same["state_dict"][name], value)


@pytest.mark.slow
def test_teachers_are_compiled_too(train, graphs):
    assert train(*RESNET9, "trainer.compile=false", "hydra.run.dir=teacher").code == 0
    ended = train(*RESNET9, "distill.teachers=[teacher]", "hydra.run.dir=student")
    assert ended.code == 0, ended.err
    assert graphs == [(15, 1, 24, 24)] * 2


@pytest.mark.slow
def test_a_training_that_fails_leaves_compiling_as_it_was(train, graphs, monkeypatch):
    def fail(*arguments):
        raise FerError("val failed")

    monkeypatch.setattr(Trainable, "validation_step", fail)
    assert train(*RESNET9).code == 1
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_a_network_that_torch_cannot_compile_is_one_line(train, monkeypatch):
    def broken(*arguments, **named):
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no compiler"), None)

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: setattr(self, "forward", broken))
    ended = train(*SMALL, "trainer.compile=true")
    assert ended.code == 1
    assert ended.line.startswith("fer.train: trainer.compile=true: torch cannot compile this network here")
