"""``docs/slurm.sh``, as bash runs it: stand-ins for srun and scontrol, a signal, and the second start of the job."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL

import fer

SCRIPT = Path(fer.__file__).parents[1] / "docs" / "slurm.sh"
OF_SLURM = {  # variables of a job of one task; Lightning would take the job over by them
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "fer", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_CPUS_PER_TASK": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
    "SLURM_STEP_NUM_TASKS": "1",
}  # fmt: skip
COMMANDS = {
    "srun": 'test -n "$SRUN_CPUS_PER_TASK" && exec "$@"',
    "python": f'exec {sys.executable} "$@"',
    "scontrol": 'echo "$@" >> asked',
}
SIGNALLED = """
import os, signal, sys
if not any(text.startswith("resume=") for text in sys.argv):
    from fer.training.callbacks.history import Stopwatch
    before = Stopwatch.on_train_batch_end
    def signalled(self, trainer, *arguments):
        before(self, trainer, *arguments)
        if trainer.global_step == 10:
            os.kill(os.getpid(), signal.SIGUSR1)
    Stopwatch.on_train_batch_end = signalled
"""


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="runs from a checkout")
def test_the_batch_script_queues_a_signalled_run_again_and_finishes_it(tmp_path, trained_once):
    import torch

    (tmp_path / "bin").mkdir()
    for name, text in COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    paths = [str(tmp_path), str(SCRIPT.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | OF_SLURM | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(paths),
    }  # fmt: skip

    def run():
        command = ["bash", str(SCRIPT), *SMALL, "plugins=[signalled]"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    first = run()
    assert first.returncode == 143, first.stdout + first.stderr
    assert "interrupted by SIGUSR1, saved" in first.stderr
    assert Path("asked").read_text() == "requeue 4711\n"
    second = run()
    assert second.returncode == 0, second.stdout + second.stderr
    assert Path("asked").read_text() == "requeue 4711\n"
    networks = [folder / "checkpoints" / "last.ckpt" for folder in (Path("outputs/slurm/4711"), trained_once)]
    resumed, whole = (torch.load(file, weights_only=True)["state_dict"] for file in networks)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
