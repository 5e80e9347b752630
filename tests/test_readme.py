"""README and ``docs/`` tell the truth: their commands are understood, their plugins work, README is short."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, metrics, settings_of_first_job, training_commands

import fer
from fer.data.readers.drawing import draw_faces
from fer.optim.losses import LOSSES
from fer.optim.optimizers import OPTIMIZERS

ROOT = Path(fer.__file__).parents[1]
README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if README else []
EXTEND = ROOT / "docs" / "extend.md"
OTHER_PAGES = [
    ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "DESIGN.md", "outputs/README.md")
]
OTHER_PAGES += sorted((ROOT / "fer").rglob("README.md"))

pytestmark = pytest.mark.skipif(not EXTEND.exists(), reason="runs from a checkout")


def lines(command: str) -> list[str]:
    """Return the arguments of each ``python -m fer.<command>`` in the shell blocks of README and docs."""
    blocks = [block for page in PAGES for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), re.DOTALL)]
    text = "\n".join(blocks).replace("\\\n", " ")
    return re.findall(rf"^python -m fer\.{command}\b(.*)$", text, re.MULTILINE)


def commands() -> list[list[str]]:
    """The arguments of each ``python -m fer.train`` in README, but for those that compose nothing."""
    return [line for line in training_commands(README) if "--help" not in line]


def test_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1200


def test_there_are_commands_to_check():
    assert len(commands()) >= 5


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_training_command_composes(arguments):
    settings_of_first_job(arguments)


@pytest.mark.parametrize("command", ["evaluate", "compare", "audit", "best", "share", "export", "study"])
def test_every_other_command_is_understood(command):
    grammar = importlib.import_module(f"fer.{command}").parser()
    assert lines(command)
    for line in lines(command):
        assert grammar.parse_args(shlex.split(re.sub(r"<[^>]*>", "name", line), comments=True))


def test_the_plugin_trains(train, tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(# my_nets.py\n.*?)```", EXTEND.read_text(), re.DOTALL)
    (tmp_path / "my_nets.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    ended = train(*SMALL[:4], "plugins=[my_nets]", "model=mine", "model.width=4", *SMALL[6:], "hydra.run.dir=out")
    assert ended.code == 0, ended.err


def test_the_loss_trains_without_a_yaml_file(train, tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(# my_loss.py\n.*?)```", EXTEND.read_text(), re.DOTALL)
    (tmp_path / "my_loss.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(LOSSES, "_entries", LOSSES._entries.copy())
    keys = ("plugins=[my_loss]", "loss=squared", "augment.mixup=0.2")
    ended = train(*SMALL, *keys, "loss.scale=2", "hydra.run.dir=out")
    assert ended.code == 0, ended.err
    refused = train(*SMALL, *keys, "loss.scale=-1", "hydra.run.dir=refused")
    assert (refused.code, "loss.scale=-1" in refused.line) == (1, True), refused.err


def test_an_optimizer_of_a_plugin_needs_a_learning_rate(train, tmp_path, monkeypatch):
    (tmp_path / "my_optimizer.py").write_text(
        "from torch import optim\nfrom fer.optim.optimizers import OPTIMIZERS\n\n"
        "@OPTIMIZERS.register('mine')\ndef mine(parameters, /, *, rate: float = 0.1):\n"
        "    return optim.SGD(parameters, lr=rate)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(OPTIMIZERS, "_entries", OPTIMIZERS._entries.copy())
    ended = train(*SMALL, "plugins=[my_optimizer]", "optimizer=mine")
    assert (ended.code, "optimizer=mine: has no argument lr" in ended.line) == (1, True), ended.err


def test_the_reader_reads(train, tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(# my_data.py\n.*?)```", EXTEND.read_text(), re.DOTALL)
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


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """Every relative link, its heading included."""
    for target, heading in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not heading or heading in headings(file), f"{target}#{heading}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub spells them."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)):
            assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target
