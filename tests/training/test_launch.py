"""Several processes of one run: who starts them, what they compute, and how they end."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fer.config.errors import FerError
from fer.config.settings import TrainerSettings
from fer.models.batchnorm import SharedBatchNorm, share
from fer.models.layers import Dropout
from fer.runs import status
from fer.system import ranks
from fer.system.ranks import Rank, adopt_slurm, first_node, stated
from fer.training import launch
from tests.conftest import SMALL, metrics

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
# a network whose rank 0 ends the processes by SIGTERM at step 7, and whose rank 1 is killed at step 12, once each
FRAIL = """
import os, signal
from pathlib import Path
from fer.models import register
from fer.models.mlp import MLP

@register("frail")
class Frail(MLP):
    def on_train_batch_start(self, batch, batch_idx):
        for rank, step, number in (("0", 7, signal.SIGTERM), ("1", 12, signal.SIGKILL)):
            mark = Path(f"sent{step}")
            if os.environ.get("RANK") == rank and self.trainer.global_step == step and not mark.exists():
                mark.touch()
                os.kill(os.getppid() if rank == "0" else os.getpid(), number)
"""
RUN = (
    *SMALL, "data.batch_size=25", "data.cache=null", "augment=strong", "plugins=[frail]", "model=frail",
    "model.hidden=[16]",
)  # fmt: skip


@pytest.fixture
def as_rank(monkeypatch):
    """Return a function that makes this process a rank."""

    def become(rank):
        monkeypatch.setattr(ranks, "current", lambda: rank)

    return become


@pytest.mark.slow
@pytest.mark.anew  # rank 0 signals the process that started it
def test_two_processes_interrupted_resumed_killed_and_restarted_equal_one(train, tmp_path):
    (tmp_path / "frail.py").write_text(FRAIL)
    assert train(*RUN, "trainer.threads=1", "--out", "one").code == 0

    def two(*arguments):
        path = os.pathsep.join([str(Path(launch.__file__).parents[2]), str(tmp_path)])
        command = [sys.executable, "-m", "fer.train", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": path}
        )

    ended = two(*RUN, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=3", "trainer.restarts=1",
                "logger.report=true", "--out", "two")  # fmt: skip
    assert ended.returncode == 143, ended.stderr
    assert status.read(Path("two")).state == "interrupted"
    assert "SIGTERM" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(list(csv.DictReader(open("two/history.csv")))) == 1
    ended = two("resume=two", "plugins=[frail]")
    assert ended.returncode == 0, ended.stderr
    assert Path("sent12").exists()  # rank 1 was killed, and all began again
    assert "2 processes" in ended.stdout
    assert ended.stdout.count("results:") == 1  # rank 0 alone prints
    one, both = [torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True) for name in ("one", "two")]
    for name, value in one["state_dict"].items():
        assert torch.allclose(both["state_dict"][name], value, atol=1e-5), name
    before = Path("two/metrics.json").read_bytes()
    Path("two/report.html").unlink()
    ended = two("resume=two", "plugins=[frail]")  # one process draws what is missing
    assert ended.returncode == 0, ended.stderr
    assert Path("two/report.html").exists()
    assert Path("two/metrics.json").read_bytes() == before
    rows = [list(csv.DictReader(open(f"{name}/history.csv"))) for name in ("one", "two")]
    assert [len(row) for row in rows] == [3, 3]
    for first, second in zip(*rows, strict=True):
        for name in set(first) - {"seconds", "images_per_second"}:
            assert float(first[name]) == pytest.approx(float(second[name]), abs=2e-6), name
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "nll"):
        assert metrics(Path("one"))[name] == pytest.approx(metrics(Path("two"))[name], abs=1e-6), name


def test_torchrun_and_srun_state_the_rank():
    assert stated({}) == Rank()
    assert stated(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "2"}) == Rank(1, 2, 1, 2)
    step = {
        "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
        "SLURM_JOB_ID": "70001", "SLURM_STEP_NODELIST": "gpu[03-05,9]",
    }  # fmt: skip
    adopt_slurm(step)
    assert stated(step) == Rank(5, 8, 1)
    assert (step["MASTER_ADDR"], step["MASTER_PORT"]) == ("gpu03", "15001")
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}  # a batch script, not a step of srun
    adopt_slurm(script)
    assert stated(script) == Rank()


@pytest.mark.parametrize(
    ("nodes", "first"), [("a", "a"), ("a,b", "a"), ("n[1,3]", "n1"), ("n[08-11].cluster,x", "n08.cluster")]
)
def test_slurms_first_node(nodes, first):
    assert first_node(nodes) == first


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE=two"), ({"RANK": "0", "WORLD_SIZE": "2"}, "is not set")],
)
def test_variables_that_state_no_rank_are_refused(variables, said):
    with pytest.raises(FerError, match=said):
        stated(variables)


def test_other_processes_than_the_settings_name_are_refused(train, tmp_path, as_rank, monkeypatch):
    as_rank(Rank(0, 2))
    monkeypatch.setattr(launch, "_agreed", list)
    ended = train(*SMALL, "hydra.run.dir=out")
    assert (ended.code, (tmp_path / "out").exists()) == (1, False)
    assert all(text in ended.line for text in ("2 processes", "trainer.devices=1", "trainer.devices=2"))
    ended = train("-m", *SMALL, "seed=0,1")
    assert (ended.code, "without torchrun" in ended.line) == (1, True)


def test_other_ranks_are_silent_and_give_way_to_rank_0(train, tmp_path, as_rank, monkeypatch):
    import logging

    as_rank(Rank(1, 2))
    monkeypatch.setattr(launch, "_agreed", list)
    monkeypatch.setattr(launch, "SILENCE_S", 0.0)
    try:
        ended = train(*SMALL, "hydra.run.dir=out")
    finally:
        logging.disable(logging.NOTSET)
    assert (ended.code, ended.out, (tmp_path / "out").exists()) == (1, "", False)
    assert "rank 1: " in ended.line


@pytest.mark.parametrize(
    "alone",
    [
        "data.batch_size=auto", "lr_finder=true", "budget.hours=1", "trainer.compile=true", "trainer.profile=true",
        "trainer.halve_batch_on_oom=true", "trainer.overfit_batches=1", "data.batch_size=3", "trainer.nodes=2",
    ],
)  # fmt: skip
def test_what_one_device_alone_can_do_is_refused(train, tmp_path, alone):
    ended = train(*SMALL, "trainer.devices=2", alone, "hydra.run.dir=out")
    assert (ended.code, (tmp_path / "out").exists()) == (1, False)
    assert alone.partition("=")[0] in ended.line


def test_missing_gpus_are_named_by_what_the_settings_ask_for(as_rank, monkeypatch, tmp_path):
    """Not by the rank that finds it first."""
    as_rank(Rank(1, 4))
    monkeypatch.setattr("fer.system.machine.uses_gpu", lambda settings: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    settings = SimpleNamespace(trainer=TrainerSettings(devices=4))
    said = r"trainer\.devices=4: torch finds 1 GPU; set trainer\.devices=1"
    with pytest.raises(FerError, match=said), launch.joined(settings, tmp_path):
        pytest.fail("joined")


def test_one_process_starts_no_others(train, monkeypatch):
    monkeypatch.setattr(launch, "start", lambda *given: pytest.fail("started"))
    assert train(*SMALL, "trainer.max_epochs=1", "trainer.limit_train=0.2", "--out", "out").code == 0


class Store(dict):
    """The ranks' store."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


def test_restarted_processes_go_on_in_their_folder(tmp_path, as_rank, monkeypatch):
    store = Store()
    monkeypatch.setattr(launch, "_store", lambda: store)
    given = ["model=mlp", "plugins=[mine]", "hydra.run.dir=out"]

    def of(rank):
        as_rank(rank)
        return launch._agreed(given)

    begun = of(Rank(0, 2))
    folder = Path(begun[-1].partition("=")[2].strip("'"))
    assert (begun[:-1], folder) == (given[:-1], tmp_path / "out")
    assert of(Rank(1, 2)) == [*begun, *launch.OF_OTHERS]
    assert of(Rank(0, 2, 0, 1)) == begun  # no checkpoint yet
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    resumed = of(Rank(0, 2, 0, 2))
    assert (resumed[0].startswith("resume="), str(folder) in resumed[0], resumed[1:]) == (True, True, given[1:-1])
    assert of(Rank(1, 2, 1, 2)) == [*resumed, *launch.OF_OTHERS]


def test_exit_codes_of_the_processes(tmp_path):
    assert launch._exit_code({0: 1, 1: -15}, tmp_path) == 1
    assert launch._exit_code({0: 143, 1: 143}, tmp_path) == 143
    with pytest.raises(FerError, match="rank 1 was killed by SIGKILL"):
        launch._exit_code({0: 1, 1: -9}, tmp_path)


@pytest.mark.parametrize("shape", [(16, 4), (16, 4, 3, 3)])
def test_shared_batch_normalisation_is_torchs(shape, as_rank):
    """Alone, the sums are those of one process; two ranks are compared by the run above."""
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(3).add_(50)
    kind = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d
    torch.manual_seed(0)
    one = torch.nn.Sequential(kind(4), Dropout(0.0))
    torch.manual_seed(0)
    other = torch.nn.Sequential(kind(4), Dropout(0.0))
    assert share(other) == 1
    assert isinstance(other[0], SharedBatchNorm)
    results = []
    for model in (one, other):
        given = inputs.clone().requires_grad_()
        as_rank(Rank() if model is one else Rank(0, 2))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranks, "_reduced", lambda values, operation: None)
            output = model(given)
            (output * torch.linspace(0, 1, output.numel()).view(shape)).sum().backward()
        results.append((output, given.grad, *model.state_dict().values(), one[0].weight.grad))
    for first, second in zip(*results, strict=True):
        assert torch.allclose(first, second, rtol=1e-4, atol=1e-4)
