"""The pages in ``docs/`` tell the truth: their commands run, their pictures and links are there."""

import csv
import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev

import pytest
from conftest import settings_of_first_job, training_commands
from PIL import Image

import fer

DOCS = Path(fer.__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))

pytestmark = pytest.mark.skipif(not PAGES, reason="runs from a checkout")


RUN = [page for page in PAGES if "```bash" in page.read_text()]  # ```sh is what takes hours or wants FER2013


def commands(page: Path) -> list[list[str]]:
    """The command lines of a page's shell blocks, but for what stays open until it is closed."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line[0] != "tensorboard"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_are_there(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", text):
        assert not target or (page.parent / target).exists(), target
    for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        with Image.open(page.parent / target) as picture:
            picture.verify()
        assert (page.parent / target).stat().st_size < 300_000, target


def test_every_picture_is_shown():
    shown = {Path(target).name for page in PAGES for target in re.findall(r"\]\((pictures/[^)]+)\)", page.read_text())}
    assert shown == {file.name for file in (DOCS / "pictures").iterdir()}


def test_precisions_on_the_page_are_those_of_the_predictions():
    folder = DOCS / "results" / "precision_cpu"
    with gzip.open(folder / "predicted.csv.gz", "rt", newline="") as stream:
        faces = list(csv.DictReader(stream))
    by_kind = defaultdict(list)
    for run in csv.DictReader((folder / "runs.csv").read_text().splitlines()):
        column = "_".join(run[name] for name in ("network", "precision", "seed"))
        by_kind[run["network"], run["precision"]].append(100 * mean(face["target"] == face[column] for face in faces))
        assert by_kind[run["network"], run["precision"]][-1] == pytest.approx(100 * float(run["accuracy"]))
    page = (DOCS / "performance.md").read_text()
    for network in ("resnet9", "cnn"):
        full, half = by_kind[network, "32"], by_kind[network, "bf16"]
        gaps = [b - a for a, b in zip(full, half, strict=True)]
        columns = [
            *(f"{mean(values):.2f} ± {stdev(values):.2f} %" for values in (full, half)),
            ", ".join(f"{gap:+.2f}" for gap in gaps),
            f"{mean(gaps):+.2f} ± {stdev(gaps):.2f}",
        ]
        assert f"| {' | '.join(columns)} |" in page


@pytest.mark.parametrize("recipe", ["best/cpu", "best/tiny"])
def test_the_figures_of_a_recipe_are_of_what_it_is_now(recipe):
    """A recipe that is changed has to be measured again, or its figures leave the page."""
    told = json.loads((DOCS / "results" / recipe.replace("/", "_") / "val.json").read_text())
    ran, is_now = (
        asdict(settings_of_first_job(arguments))
        for arguments in (shlex.split(told["command"])[3:], [f"experiment={recipe}"])
    )
    for settings in (ran, is_now):
        settings["trainer"].pop("threads")
        settings["distill"]["teachers"] = len(settings["distill"]["teachers"] or told.get("teachers", []))
    assert ran == is_now
    assert told["epochs"] == is_now["trainer"]["max_epochs"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_training_command_composes(page):
    for arguments in training_commands(page.read_text()):
        settings_of_first_job([text for text in arguments if text not in ("--info", "models")])


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(page, tmp_path):
    """In order, in an empty folder, as a reader would; what a page says that it finds there, is there."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    for line in commands(page):
        ended = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False)
        assert ended.returncode == 0, f"{shlex.join(line)}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
        assert "Traceback" not in ended.stderr
    named = re.findall(r"`(outputs/[\w/.-]+)`", page.read_text())
    assert named
    missing = [name for name in named if not (tmp_path / name).exists()]
    assert not missing
