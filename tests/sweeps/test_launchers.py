"""Sweeps by Hydra's launcher for clusters: submitit's local executor runs the same code without a cluster."""

import os
import re
import stat
from pathlib import Path

import pytest
from conftest import SMALL

from fer.sweeps import plan
from fer.sweeps.jobs import Job

# as SLURM does before the end of a job's time: it signals every process, here within the first run of one job
PREEMPTED = """
import os, signal, sys
if "seed=0" in sys.argv:
    from fer.training.callbacks.history import Stopwatch
    before = Stopwatch.on_train_batch_end
    def preempted(self, trainer, *arguments):
        before(self, trainer, *arguments)
        if trainer.global_step == 10:
            os.kill(os.getppid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR2)
    Stopwatch.on_train_batch_end = preempted
"""


@pytest.fixture
def submitit():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    return pytest.importorskip("submitit")


@pytest.mark.slow
def test_submitits_jobs_run_the_sweep_and_a_preempted_one_goes_on(submitit, train, monkeypatch, tmp_path, trained_once):
    import torch

    Path("preempted.py").write_text(PREEMPTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    ended = train("-m", "hydra/launcher=submitit_local", *SMALL, "plugins=[preempted]", "seed=0,1", "--out", "s")
    assert ended.code == 0, ended.out + ended.err
    assert "2 jobs, 0 failed" in ended.out
    consoles = [Path(f"s/{number}/console.log").read_text() for number in (0, 1)]
    # the job passes SIGTERM on, which may come before the run's own SIGUSR2, or while the run prints that it has saved
    ends = [re.search(r"interrupted by SIG(USR2|TERM)[,;].* resume with: ", console) for console in consoles]
    assert [end is not None for end in ends] == [True, False]
    networks = [folder / "checkpoints" / "last.ckpt" for folder in (Path("s/0"), trained_once)]
    resumed, whole = (torch.load(file, weights_only=True)["state_dict"] for file in networks)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(stat.S_IRWXU)


def test_the_preset_for_slurm_asks_for_a_gpu_and_a_signal(submitit, train, monkeypatch, tmp_path):
    """The options of ``sbatch`` that submitit makes of the preset."""
    texts = []

    def caught(executor, *arguments):
        texts.append(executor._executor._make_submission_file_text("command", "name"))
        raise RuntimeError("not\nsent")

    for name in ("srun", "sbatch"):
        script(tmp_path / "bin", name, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(submitit.AutoExecutor, "map_array", caught)
    ended = train("-m", *SMALL, "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.timeout_min=30", "--out", "s")
    assert ended.code == 1
    assert "hydra/launcher=slurm: not sent; resume with: python -m fer.train -m sweep.resume=s hydra/laun" in ended.err
    options = {line.removeprefix("#SBATCH --") for line in texts[0].splitlines() if line.startswith("#SBATCH")}
    assert {"signal=USR2@120", "time=30", "gpus-per-task=1", "cpus-per-gpu=8", "ntasks-per-node=1"} <= options
    assert not any(option.startswith("cpus-per-task") for option in options)


@pytest.mark.parametrize("code", [None, 143, 0])
def test_a_task_that_is_queued_again_goes_on(tmp_path, code):
    for name in ("checkpoints/last.ckpt", ".hydra/config.yaml", "metrics.json", "history.csv", "predictions.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    first = Job(tmp_path, [], {})
    assert (plan.continued(first), first.resume) == (False, False)
    first.code = code
    first.record()
    again = Job(tmp_path, [], {})
    assert (plan.continued(again), again.resume) == (code == 0, code != 0)
