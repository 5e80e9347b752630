"""One process at a time works in a run's folder; ``status.json`` says what became of it."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import SMALL, metrics, runner

from fer import compare
from fer.models import checkpoints
from fer.models.mlp import MLP
from fer.models.trainable import Trainable
from fer.runs import status
from fer.system.locks import hold
from fer.training import run as training


def status_of(folder):
    return json.loads((folder / "status.json").read_text())


def acting(monkeypatch, act, at_step=9):
    """Let the network do something before a training step."""
    step = Trainable.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == at_step:
            act()
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Trainable, "training_step", training_step)


def fail(error):
    def act(*arguments, **named):
        raise error

    return act


def test_a_finished_run_says_so(train, tmp_path):
    handlers = logging.getLogger().handlers[:]
    assert train(*SMALL, "hydra.run.dir=out").code == 0
    assert logging.getLogger().handlers == handlers  # none on its train.log
    assert str(tmp_path / "out" / "train.log") not in [
        os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()
    ]
    now = status_of(tmp_path / "out")
    assert (now["state"], now["phase"], now["host"], now["pid"]) == (
        "finished", "scoring", socket.gethostname(), os.getpid(),
    )  # fmt: skip
    assert now["began"] <= now["ended"]
    assert (tmp_path / "out" / "train.log").read_text().splitlines()[-1].startswith("status: finished")


@pytest.mark.parametrize(("leave", "code"), [(sys.exit, 0), (os._exit, 0)])
def test_an_exit_within_a_run_is_no_success(train, tmp_path, monkeypatch, leave, code):
    acting(monkeypatch, lambda: getattr(sys if leave is sys.exit else os, leave.__name__)(code))
    ended = train(*SMALL, "hydra.run.dir=out")
    assert ended.code == 1
    assert all(text in ended.line for text in ("ended early", f"exit({code})", "resume=out"))
    assert (status_of(tmp_path / "out")["state"], status_of(tmp_path / "out")["phase"]) == ("failed", "training")
    assert checkpoints.read(tmp_path / "out" / "checkpoints" / "last.ckpt")["epoch"] == 0
    assert os._exit.__name__ == "_exit"


@pytest.mark.slow
def test_a_forked_child_may_leave_as_it_likes(train, tmp_path, monkeypatch):
    codes = []

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(7)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    acting(monkeypatch, fork)
    assert train(*SMALL, "hydra.run.dir=out").code == 0
    assert codes == [7]


def test_a_plugin_that_exits_when_imported_is_named(train, tmp_path):
    (tmp_path / "leaver.py").write_text("import sys\nsys.exit(0)\n")
    ended = train(*SMALL, "plugins=[leaver]", "hydra.run.dir=out")
    assert (ended.code, "leaver" in ended.line, (tmp_path / "out").exists()) == (1, True, False)


@pytest.mark.parametrize(
    ("act", "state", "words"),
    [
        (fail(RuntimeError("its own fault")), "failed", "failed while training: RuntimeError: its own fault"),
        (fail(MemoryError()), "out of memory", "data.batch_size"),
        (lambda: signal.raise_signal(signal.SIGTERM), "interrupted", "resume with"),
    ],
)
def test_an_end_without_success_is_recorded_and_compared(
    train, tmp_path, monkeypatch, small_run, act, state, words, capfd
):
    acting(monkeypatch, act)
    with contextlib.suppress(RuntimeError):  # a plugin's own fault keeps its traceback
        assert train(*SMALL, "hydra.run.dir=out").code in (1, 143)
    assert status_of(tmp_path / "out")["state"] == state
    assert words in (tmp_path / "out" / "train.log").read_text().splitlines()[-1]
    compared = runner(compare.main, capfd)(str(tmp_path), "--out", "compared")
    assert compared.code == 0
    line = next(line for line in compared.out.splitlines() if line.startswith(f"  {tmp_path / 'out'}: "))
    assert words in line
    assert words in (tmp_path / "compared" / "compare.html").read_text()


def test_a_second_process_is_refused(train, small_run, tmp_path):
    before = status_of(small_run)
    with open(small_run / "train.log", "ab") as log:
        hold(log)
        status.write(small_run, status.running())
        for arguments in ([f"resume={small_run}"], [*SMALL, f"hydra.run.dir={small_run}"]):
            ended = train(*arguments)
            assert ended.code == 1
            assert all(text in ended.line for text in (str(os.getpid()), socket.gethostname(), "another"))
        assert status_of(small_run) != before
        assert status.in_words(small_run).startswith("running (preparing), process")
    assert "ended without a word while preparing" in status.in_words(small_run)
    status.write(small_run, status.Status("running", "training", "elsewhere", 5, "2026-01-01T00:00:00+00:00"))
    assert "running (training) when last heard of, process 5 on elsewhere" in status.in_words(small_run)
    assert train(*SMALL, f"hydra.run.dir={small_run}").code == 1  # a finished run is not overwritten either


@pytest.mark.slow
def test_two_new_runs_with_one_folder_do_not_mix(train, tmp_path):
    """The second one is a process of its own, in the middle of the first one's training."""
    command = [sys.executable, "-m", "fer.train", *SMALL, "seed=5", "hydra.run.dir=out"]
    processes = []

    def second():
        processes.append(subprocess.run(command, capture_output=True, text=True, check=False))

    with pytest.MonkeyPatch.context() as patch:
        acting(patch, second)
        assert train(*SMALL, "hydra.run.dir=out").code == 0
    assert processes[0].returncode == 1
    assert "another process works in this folder (running (training)" in processes[0].stderr
    assert "seed=5" not in (tmp_path / "out" / ".hydra" / "overrides.yaml").read_text()
    assert status_of(tmp_path / "out")["state"] == "finished"


@pytest.mark.parametrize(
    "wrong", [("data.path=nowhere.csv", "data=fer2013"), ("model.hidden=[0]",), ("optimizer.no=1",), ("resume=",)]
)
def test_a_refused_run_leaves_no_folder(train, tmp_path, wrong):
    before = sorted(tmp_path.iterdir())
    assert train(*SMALL, *wrong, "hydra.run.dir=far/away/out").code == 1
    assert [path for path in sorted(tmp_path.iterdir()) if path.name == "far"] == []
    assert set(before) <= set(tmp_path.iterdir())


def test_a_refused_resume_keeps_the_status(train, small_run):
    (small_run / "metrics.json").unlink()
    for file in (small_run / "checkpoints").iterdir():
        file.unlink()
    status.write(small_run, status.running().after("nan", "in epoch 1"))
    before = status_of(small_run)
    ended = train(f"resume={small_run}")
    assert all(text in ended.line for text in ("no checkpoint was written", "NaN", "in epoch 1", "begin again"))
    assert status_of(small_run) == before


def test_a_run_that_ended_as_its_folder_was_made_says_to_begin_again(train, small_run):
    """A signal or a kill between the files of .hydra leaves a part of them."""
    (small_run / ".hydra" / "overrides.yaml").unlink()
    (small_run / "metrics.json").unlink()
    for file in (small_run / "checkpoints").iterdir():
        file.unlink()
    ended = train(f"resume={small_run}")
    assert (ended.code, "no checkpoint was written" in ended.line, "begin again" in ended.line) == (1, True, True)


@pytest.mark.slow
def test_a_signal_that_a_library_turns_into_another_error_ends_the_run(train, tmp_path, monkeypatch):
    """As torch's writer of archives does, and OmegaConf."""

    def interrupted(*arguments, **named):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise RuntimeError("unexpected pos 68416 vs 68332") from None

    monkeypatch.setattr(training, "fitted_temperature", interrupted)
    ended = train(*SMALL, "trainer.max_epochs=1", "hydra.run.dir=out")
    assert (ended.code, "interrupted by SIGTERM; resume with" in ended.line) == (143, True)
    assert status_of(tmp_path / "out")["state"] == "interrupted"


@pytest.mark.slow
def test_a_signal_that_a_library_drops_ends_the_run_before_its_training(train, tmp_path, monkeypatch):
    act = training.prepared

    def prepared(*arguments, **named):
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGUSR1)
        return act(*arguments, **named)

    monkeypatch.setattr(training, "prepared", prepared)
    ended = train(*SMALL, "hydra.run.dir=out")
    assert (ended.code, "begin again" in ended.line) == (143, True)
    assert not (tmp_path / "out" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("contents", ["", "{}", "[1]", '{"state": "well"}', "x" * 70_000, '{"state": ["nan"]}'])
def test_a_damaged_status_is_none(small_run, contents):
    (small_run / "status.json").write_text(contents)
    assert status.read(small_run) is None
    assert status.in_words(small_run) == ""


def test_a_status_does_not_reach_the_terminal_as_it_is(small_run):
    status.write(small_run, status.running().after("failed", "red \x1b[31m\nline"))
    assert status.in_words(small_run) == "failed while preparing: red [31m line"
    contents = status_of(small_run) | {"reason": "a\x1b]0;b\x07" + "c" * 5000}
    (small_run / "status.json").write_text(json.dumps(contents))
    words = status.in_words(small_run)
    assert words.isprintable()
    assert len(words) < 500


@pytest.mark.slow
def test_temporary_files_of_a_killed_process_are_removed(train, small_run):
    (small_run / "metrics.json").unlink()
    left = small_run / "checkpoints" / ".last.ckpt.99.part"
    left.write_bytes(b"half")
    assert train(f"resume={small_run}").code == 0
    assert not left.exists()


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 143, "SIGUSR2": 143}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_within_a_step_saves(train, tmp_path, monkeypatch, name):
    acting(monkeypatch, lambda: signal.raise_signal(getattr(signal, name)))
    ended = train(*SMALL, "hydra.run.dir=out")
    assert (ended.code, f"interrupted by {name}, saved; resume with" in ended.line) == (SIGNALS[name], True)
    assert checkpoints.read(tmp_path / "out" / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert status_of(tmp_path / "out")["state"] == "interrupted"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("SIGUSR1", "read_history"),
        pytest.param("SIGTERM", "prepared", marks=pytest.mark.slow),
        pytest.param("SIGINT", "predict_val", marks=pytest.mark.slow),
        pytest.param("SIGHUP", "fitted_temperature", marks=pytest.mark.slow),
    ],
)
def test_a_signal_outside_the_training_loses_nothing(train, tmp_path, monkeypatch, name, where):
    """While the run is prepared, while val is scored, and while the report is drawn."""
    handlers = [signal.getsignal(getattr(signal, other)) for other in SIGNALS]
    act = getattr(training, where)

    def interrupted(*arguments, **named):
        signal.raise_signal(getattr(signal, name))
        return act(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training, where, interrupted)
        ended = train(*SMALL, "logger.report=true", "trainer.max_epochs=2", "hydra.run.dir=out")
    assert (ended.code, f"interrupted by {name}" in ended.line) == (SIGNALS[name], True)
    out = tmp_path / "out"
    assert status_of(out)["state"] == "interrupted"
    assert [signal.getsignal(getattr(signal, other)) for other in SIGNALS] == handlers
    if where == "prepared":
        assert "begin again" in ended.line
        assert train(*SMALL, "hydra.run.dir=out").code == 0  # the folder may be used again
        return
    assert "resume with" in ended.line
    assert (out / "metrics.json").exists() == (where == "read_history")
    assert train("resume=out").code == 0
    assert (out / "metrics.json").exists()
    assert (out / "report.html").exists()
    assert status_of(out)["before"].startswith("interrupted while scoring")


def test_memory_that_runs_out_is_one_line_with_the_key(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        acting(patch, lambda: torch.empty(1 << 44, dtype=torch.uint8), at_step=2)
        ended = train(*SMALL, "hydra.run.dir=out")
    assert ended.code == 1
    assert all(
        text in ended.line
        for text in ("17,592.2 GB", "of the computer", "data.batch_size=16", "trainer.halve_batch_on_oom=true")
    )
    assert status_of(tmp_path / "out")["state"] == "out of memory"
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 79 GiB")
    acting(monkeypatch, fail(gpu))
    ended = train(*SMALL, "hydra.run.dir=gpu")
    assert "of the GPU: 20.00 MiB; lower data.batch_size=16" in ended.line
    ended = train(*SMALL, "trainer.halve_batch_on_oom=true", "hydra.run.dir=late")
    assert ended.code == 1  # its epochs would be lost
    assert all(text in ended.line for text in ("before the first checkpoint", "data.batch_size=8", "resume=late"))


@pytest.mark.slow
def test_a_batch_that_is_too_large_is_halved(train, tmp_path, monkeypatch, interrupt_at):
    step = Trainable.training_step

    def hungry(self, batch, batch_idx):
        if len(batch.targets) > 4:
            raise MemoryError
        return step(self, batch, batch_idx)

    small = [*SMALL, "trainer.max_epochs=2", "trainer.halve_batch_on_oom=true"]
    assert train(*small, "data.batch_size=4", "hydra.run.dir=small").code == 0
    monkeypatch.setattr(Trainable, "training_step", hungry)
    interrupt_at(40)
    ended = train(*small, "hydra.run.dir=out")
    assert ended.code == 130
    assert all(f"data.batch_size={size}" in ended.out for size in (8, 4))
    assert train("resume=out").code == 0
    assert metrics(tmp_path / "out")["batch_size"] == 4
    one, other = (
        checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("small", "out")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_size_that_was_found_is_halved_too(train, tmp_path, monkeypatch):
    step = Trainable.training_step

    def hungry(self, batch, batch_idx):
        if len(batch.targets) > 64:
            raise MemoryError
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Trainable, "training_step", hungry)
    found = [*SMALL, "trainer.max_epochs=1", "data.batch_size=auto"]
    ended = train(*found, "hydra.run.dir=whole")
    assert "lower data.batch_size=128, or set trainer.halve_batch_on_oom=true" in ended.line
    ended = train(*found, "trainer.halve_batch_on_oom=true", "hydra.run.dir=out")
    assert ended.code == 0
    assert "lower data.batch_size=128; beginning again with data.batch_size=64" in ended.out
    assert metrics(tmp_path / "out")["batch_size"] == 64
    assert checkpoints.read(tmp_path / "out" / "checkpoints" / "last.ckpt")["fer"]["batch_size"] == 64


def test_a_full_disk_is_one_line_and_the_status_says_it(train, tmp_path, monkeypatch):
    """As TensorBoard's thread reports it: the error names no file."""

    def full():
        monkeypatch.setattr("fer.system.files.os.replace", fail(OSError(28, "No space left on device")))
        raise OSError(28, "No space left on device")

    acting(monkeypatch, full)
    ended = train(*SMALL, "hydra.run.dir=out")
    assert ended.code == 1
    assert all(text in ended.line for text in ("out", "No space left", "resume=out"))
    assert (status_of(tmp_path / "out")["state"], status_of(tmp_path / "out")["reason"]) == ("failed", ended.line[11:])


@pytest.mark.parametrize("key", ["epoch", "callbacks", "optimizer_states"])
def test_junk_in_a_sound_checkpoint_is_one_line(train, small_run, key):
    (small_run / "metrics.json").unlink()  # as if it had been killed before its end
    last = small_run / "checkpoints" / "last.ckpt"
    torch.save(torch.load(last, weights_only=True) | {key: "junk"}, last)
    ended = train(f"resume={small_run}")
    assert (ended.code, str(last) in ended.line) == (1, True)


def test_an_archive_with_junk_is_one_line(train, small_run):
    (small_run / "metrics.json").unlink()
    for name in ("last", "best"):
        with zipfile.ZipFile(small_run / "checkpoints" / f"{name}.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", "junk")
    assert "no valid checkpoint" in train(f"resume={small_run}").line


@pytest.mark.parametrize("given", ["resume=", "resume=''", "sweep.resume=", "init_from="])
def test_an_override_that_names_no_run_is_refused(train, tmp_path, given):
    """An empty variable of a shell script must not begin a new run."""
    ended = train(*(["-m"] if given.startswith("sweep") else []), *SMALL, given)
    assert ended.code == 1
    assert all(text in ended.line for text in (given, f"{given.split('=')[0]}=latest"))
    assert not (tmp_path / "outputs").exists()


def test_an_exit_within_another_command_is_no_success(scores, small_run, monkeypatch):
    monkeypatch.setattr(MLP, "logits_of_crops", lambda self, images: sys.exit(0))
    ended = scores(str(small_run))
    assert (ended.code, "ended early" in ended.line) == (1, True)
