"""``latest``: the newest run, sweep, search, campaign or evaluation in ``outputs/``, wherever one is named."""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import SMALL, metrics, runner

from fer import best, compare, share
from fer.runs.run_folder import with_latest


@pytest.fixture
def two(trained_once, tmp_path):
    """Two runs in ``outputs/``; the first by name is the newest."""
    old, new = (tmp_path / "outputs" / "day" / name for name in ("z_old", "a_new"))
    for age, folder in enumerate((new, old)):
        shutil.copytree(trained_once, folder)
        for file in folder.rglob("*"):
            os.utime(file, (1_000_000 - age, 1_000_000 - age))
    return old, new


def test_the_newest_run_is_evaluated_compared_with_and_shared(evaluate, two, tmp_path, capfd):
    _, new = two
    ended = evaluate("latest", "--against", "latest", "--no-report")
    assert ended.code == 0, ended.err
    results = metrics(new / "evaluations" / "val")
    assert results["members"][0]["checkpoint"].endswith("a_new/checkpoints/best.ckpt")
    assert results["against"]["name"] == "outputs/day/a_new"
    assert evaluate("latest").code == 0
    ended = runner(share.main, capfd)("latest", "shared.safetensors")
    assert ended.code == 0, ended.err
    assert (tmp_path / "shared.safetensors").exists()


def test_the_newest_run_is_resumed_begun_from_and_a_teacher(train, two):
    old, new = two
    assert "finished already, nothing to resume: outputs/day/a_new" in train("resume=latest").out
    assert train("--cfg", "job", "resume=latest").code == 0
    ended = train(*SMALL, "trainer.max_epochs=1", "init_from=latest", "distill.teachers=[latest]", "--out", "taught")
    assert ended.code == 0, ended.err
    assert metrics(Path("taught"))["teachers"][0]["checkpoint"] == "outputs/day/a_new/checkpoints/best.ckpt"
    assert "init_from=outputs/day/a_new" in metrics(Path("taught"))["command"]
    shutil.rmtree(new)
    assert f"{old.relative_to(Path.cwd())}" in train("resume=latest").out


def test_a_list_holds_paths_in_place_of_latest_alone(two):
    given = ["init_from=null", "distill.teachers=['latest', tiny,outputs/latest,latest]", "monitor=latest", "-m"]
    assert with_latest(given) == [
        "init_from=null",
        "distill.teachers=[outputs/day/a_new, tiny,outputs/latest,outputs/day/a_new]",
        "monitor=latest",
        "-m",
    ]
    Path("latest").mkdir()  # what lies there is meant
    assert with_latest(["init_from=latest"]) == ["init_from=latest"]


@pytest.mark.slow  # a sweep's job is a process
def test_a_run_of_the_newest_sweep_stands_for_the_sweep(two, train, capfd):
    run = runner(compare.main, capfd)
    ended = run("latest", "--out", "one")
    assert ended.code == 0, ended.err
    assert len(Path("one/leaderboard.csv").read_text().splitlines()) == 2
    sweep = Path("outputs/sweeps/s")
    assert train("-m", *SMALL, "trainer.max_epochs=1", "seed=3", "sweep.jobs=1", "--out", str(sweep)).code == 0
    assert run("latest", "--out", "both").code == 0
    assert len(Path("both/leaderboard.csv").read_text().splitlines()) == 2
    ended = train("-m", "sweep.resume=latest")
    assert ended.code == 0, ended.err
    assert "1 job: 1 done" in ended.out


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (lambda: best.main(["--resume", "latest"]), "campaign"),
        (lambda: compare.main(["latest"]), "finished run"),
        (lambda: share.main(["latest", "x.safetensors"]), "evaluation"),
    ],
)
def test_where_there_is_none_it_says_so_in_one_line(command, kind, capfd, tmp_path):
    assert command() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.partition(": ")[2] == f"latest: no {kind} in {tmp_path}/outputs; name a folder"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["resume=latest"], "run with a checkpoint"),
        (["init_from=latest"], "run with a checkpoint"),
        (["-m", "sweep.resume=latest"], "sweep"),
        (["tune.resume=latest"], "search"),
    ],
)
def test_a_key_without_such_a_folder_is_one_line(train, arguments, kind):
    assert train(*arguments).line == f"fer.train: latest: no {kind} in {Path.cwd()}/outputs; name a folder"


def test_a_campaign_is_found_by_its_record(tmp_path, capfd):
    folder = tmp_path / "outputs" / "best" / "first"
    folder.mkdir(parents=True)
    (folder / "best.json").write_text(json.dumps({"schema": 99}))
    assert best.main(["--resume", "latest"]) == 1
    assert str(folder / "best.json") in capfd.readouterr().err
