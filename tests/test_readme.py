"""README tells the truth: its commands compose, its plugin trains, its files exist."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, metrics, settings_of_first_job, training_commands

import fer
from fer.data.readers.drawing import draw_faces

ROOT = Path(fer.__file__).parents[1]
README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""

pytestmark = pytest.mark.skipif(not README, reason="runs from a checkout")


def commands() -> list[list[str]]:
    """The arguments of each ``python -m fer.train`` that needs no plugin."""
    own = ("plugins=", "--info", "--config-dir")  # have tests of their own
    return [found for found in training_commands(README) if not any(text.startswith(own) for text in found)]


def test_there_are_commands_to_check():
    assert len(commands()) >= 6


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_training_command_composes(arguments):
    settings_of_first_job(arguments)


@pytest.mark.parametrize("command", ["evaluate", "compare", "audit"])
def test_every_other_command_is_understood(command):
    grammar = importlib.import_module(f"fer.{command}").parser()
    lines = re.findall(rf"^python -m fer\.{command} (.*)$", README, re.MULTILINE)
    assert lines
    for line in lines:
        assert grammar.parse_args(shlex.split(line, comments=True))


def test_the_plugin_trains(train, tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(# my_nets.py\n.*?)```", README, re.DOTALL)
    (tmp_path / "my_nets.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    ended = train(*SMALL[:4], "plugins=[my_nets]", "model=mine", "model.width=4", *SMALL[6:], "hydra.run.dir=out")
    assert ended.code == 0, ended.err


def test_the_reader_reads(train, tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(# my_data.py\n.*?)```", README, re.DOTALL)
    (tmp_path / "my_data.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    pixels, emotion = draw_faces(140, seed=1)
    np.savez(tmp_path / "faces.npz", pixels=pixels, emotion=emotion)
    settings = (
        "plugins=[my_data]",
        "data.path=faces.npz",
        "data.split=holdout",
        "data.image_size=48",
        "hydra.run.dir=out",
    )
    ended = train(*SMALL[3:], *settings)
    assert ended.code == 0, ended.err
    assert metrics(tmp_path / "out")["n"] == 28


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", README):
        assert (ROOT / target).exists(), target


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target
