"""The terminal: a live line below log messages, a line for each epoch, and no output of libraries."""

import logging
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import SMALL, in_a_terminal

from fer.system.terminal import CLEAR, Line, bar
from fer.training.callbacks.progress import Progress


def test_a_line_drops_what_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 24)))
    Line(live=True).draw(["epoch 1/3", "loss 1.2", "much too long for it"])
    assert capsys.readouterr().out == CLEAR + "epoch 1/3  loss 1.2"


def test_what_is_logged_goes_above_the_line(capsys):
    line = Line(live=True)
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(line)
    logger = logging.getLogger("test_progress")
    logger.addHandler(handler)
    line.draw(["working"])
    logger.warning("a warning")
    logger.warning("another")
    logger.removeHandler(handler)
    assert capsys.readouterr().out == f"{CLEAR}working{CLEAR}a warning\nanother\n"


def test_the_last_part_is_cut_to_the_room_that_is_left(capsys, monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((30, 24)))
    line = Line(live=True)
    line.draw(["3/4 done", "0:10 left"], "model=cnn")
    assert (
        capsys.readouterr().out == CLEAR + "3/4 done  0:10 left"
    )  # parts shorter than a dozen characters are left out
    line.draw(["3/4 done"], "best: model=cnn seed=1")
    assert capsys.readouterr().out == CLEAR + "3/4 done  best: model=cnn ..."


def test_a_terminal_that_is_closed_ends_nothing(monkeypatch):
    def closed(text):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdout", type("Terminal", (), {"write": staticmethod(closed)})())
    line = Line(live=True)
    line.draw(["working"])
    assert not line.live


def test_a_line_that_is_off_is_never_due(capsys):
    line = Line(live=False)
    assert not line.due()
    line.clear()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("encoding", "drawn"), [("utf-8", "█████░░░░░"), ("ascii", "#####.....")])
def test_a_bar_is_drawn_in_what_the_terminal_has(monkeypatch, encoding, drawn):
    monkeypatch.setattr(sys, "stdout", type("Terminal", (), {"encoding": encoding})())
    assert bar(0.5, 10) == drawn


def test_without_a_terminal_there_is_a_line_an_epoch(train):
    ended = train(*SMALL, "hydra.run.dir=out")
    lines = [line for line in ended.out.splitlines() if line.startswith("epoch ")]
    pattern = (
        r"epoch \d/3 \| train loss \d\.\d{4} acc +\d+\.\d\d % \| val loss \d\.\d{4} acc +\d+\.\d\d % \| "
        r"lr \d\.\d\de[-+]\d\d \| \d+\.\d s, [\d,]+ images/s \| \d+:\d\d left(  \* best)?"
    )
    assert len(lines) == 3
    assert all(re.fullmatch(pattern, line) for line in lines), lines
    assert lines[0].endswith("* best")
    assert "\r" not in ended.out
    assert ended.err == ""


def test_the_closing_tables_hold_every_emotion_and_the_interval(train):
    ended = train(*SMALL, "hydra.run.dir=out")
    assert re.search(r"^disgust +2 +[\d.]+ % +[\d.]+ % +\[[\d.]+, [\d.]+\] +[\d.]+ %$", ended.out, re.MULTILINE)
    assert re.search(r"^val +14 +[\d.]+ % +\[[\d.]+, [\d.]+\]", ended.out, re.MULTILINE)


@pytest.mark.parametrize(("columns", "width"), [(150, 20), (80, 8)])
def test_a_narrow_terminal_has_a_shorter_bar(monkeypatch, columns, width):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    assert len(bar(0.3)) == width


def run_with(prefix, *arguments, **environment):
    command = f"{prefix} {shlex.join([sys.executable, '-m', *arguments])}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=os.environ | environment, check=False
    )


@pytest.mark.slow
def test_a_closed_or_poor_output_loses_nothing(tmp_path):
    ended = run_with("exec >&-;", "fer.train", *SMALL, "hydra.run.dir='Zoë'")
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = run_with("", "fer.evaluate", "Zoë", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr
    assert "results:" in ended.stdout
    assert "disgust" in ended.stdout


@pytest.mark.slow
def test_in_a_terminal_one_line_is_drawn_over_and_libraries_are_silent(tmp_path):
    """The output in a real pseudo-terminal, with that of libraries."""
    settings = (
        "data=synthetic",
        "data.synthetic_count=1400",
        "model=cnn",
        "model.channels=[8,16]",
        "trainer.threads=1",
    )
    command = [sys.executable, "-m", "fer.train", *settings, "trainer.max_epochs=2", "hydra.run.dir=out"]
    code, text = in_a_terminal(150, *command)
    assert code == 0
    drawn = re.findall(r"epoch [12]/2 [█░]{20} +\d+%  loss \d\.\d{3} acc \d+\.\d %  left: epoch 0:\d\d", text)
    assert len(drawn) >= 2, text
    lines = [re.sub(r".*\r\x1b\[K", "", line).strip("\r") for line in text.split("\n")]
    known = (
        "data:",
        "cnn:",
        "epoch ",
        "emotion",
        "---",
        "split ",
        "val ",
        "best epoch",
        "results:",
        "report:",
        "next:",
        "last:",
        "  ",
    )
    emotions = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    strange = [line for line in lines if line and not line.startswith((*known, *emotions))]
    assert not strange, strange


def test_the_time_left_knows_that_stages_take_different_times(monkeypatch):
    """Four epochs at 24 pixels and six at 48, of 10 and of 30 seconds."""
    seconds = iter([0.0, 10.0, 20.0, 30.0, 40.0, 70.0, 100.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    monkeypatch.setattr(Progress, "_summary", lambda self, trainer: f"{self._later(trainer):g}")
    progress = Progress(SimpleNamespace(), SimpleNamespace(), stages=[[24, 4], [48, 6]], live=False)
    trainer = SimpleNamespace(current_epoch=0, max_epochs=10)
    assert progress._later(trainer, guess=10.0) == 3 * 10 + 6 * 40  # by pixels, as far as is known
    progress.on_train_start(trainer, None)
    left = []
    for trainer.current_epoch in range(6):
        progress.on_train_epoch_end(trainer, None)
        left.append(progress._later(trainer))
    assert left == [3 * 10 + 6 * 40, 2 * 10 + 6 * 40, 10 + 6 * 40, 6 * 40, 5 * 30, 4 * 30]


def test_the_time_left_follows_the_latest_epochs(monkeypatch):
    """The first epoch compiles; later the machine becomes slower."""
    ends = iter([0.0, 100.0, 110.0, 120.0, 130.0, 160.0, 190.0, 220.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ends))
    monkeypatch.setattr(Progress, "_summary", lambda self, trainer: "")
    progress = Progress(SimpleNamespace(), SimpleNamespace(), live=False)
    trainer = SimpleNamespace(current_epoch=0, max_epochs=10)
    progress.on_train_start(trainer, None)
    left = []
    for trainer.current_epoch in range(7):
        progress.on_train_epoch_end(trainer, None)
        left.append(progress._later(trainer))
    assert (left[0], left[3], left[6]) == (9 * 100, 6 * 10, 3 * 30)
