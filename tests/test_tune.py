"""``fer.tune``: the command, from a faulty line to the best trial trained again."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import metadata as packages
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, metrics, runner

from fer import tune
from fer.config.conf import plain
from fer.config.hydra import composed
from fer.config.settings import TuneSettings
from fer.runs.run_folder import configuration_of, identity
from fer.sweeps import jobs
from fer.sweeps.tuning import experiment, request

BASE = (*SMALL, "tune.jobs=1", "--out", "found")
SPACE = ("space.loss.label_smoothing=null", "space.optimizer.weight_decay=null")  # leaves the rate, and augmentation
RUN = ("fer.tune", *BASE, *SPACE, "space.model.dropout={low:0,high:0.5,step:0.05}")


@pytest.fixture
def tuned(capfd):
    """Return a function that runs ``fer.tune``."""
    return runner(tune.main, capfd)


def record_of(folder) -> dict:
    return json.loads((folder / "tune.json").read_text())


def rows(folder) -> list[dict[str, str]]:
    return list(csv.DictReader(open(folder / "trials.csv", encoding="utf-8")))


# --- the command line -----------------------------------------------------------------------------------------------


def test_yaml_and_code_agree_on_the_defaults():
    assert plain(composed([], "tune"))["tune"] == asdict(TuneSettings())


def test_help_lists_every_key_with_its_meaning(tuned):
    ended = tuned("--help")
    assert (ended.code, ended.err) == (0, "")
    for key in asdict(TuneSettings()):
        assert (f"  tune.{key}=" in ended.out) == (key != "folder"), key  # which is --out
    assert "  --out folder" in ended.out
    for words in (
        "optimizer.lr: {low:",
        "Spaces: cnn, default, mlp, optimizer",
        "fer-lightning[tune]",
        "space.augment",
    ):
        assert words in ended.out


@pytest.mark.parametrize("version", [None, "4.9.0"])
def test_without_optuna_it_says_how_to_get_it(tuned, monkeypatch, version):
    def find(name):
        if name != "optuna":
            return packages.version(name)
        if version is None:
            raise packages.PackageNotFoundError(name)
        return version

    monkeypatch.setattr("fer.tune.metadata.version", find)
    ended = tuned(*BASE)
    assert ended.code == 1
    assert "pip install 'fer-lightning[tune]'" in ended.line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune.trails=3"], "tune.trails: no such key; did you mean 'tune.trials'?"),
        (["tune.trials=0"], "tune.trials=0: out of range"),
        (["tune.pruner=mean"], "did you mean 'median'?"),
        (["tune.hours=-1"], "tune.hours=-1: out of range"),
        (["space=defalt"], "did you mean 'default'?"),
        (["space.optimizer.lr={low:0.1"], "not understood"),
        (["space.optimizer.lr=0.1"], "space.optimizer.lr=0.1: expected {low: 0, high: 1} or a list of choices"),
        (["space.model.depht=[1,2]"], "model.depht: no such key"),
        (["optimizer.lr=0.1,0.2"], "to search over several: space.optimizer.lr=[0.1,0.2]"),
        (["optimizr=sgd"], "did you mean 'optimizer'?"),
        (["+x=1"], "keys cannot be added"),
        (["-m"], "a search takes only key=value"),
        (["resume=x"], "tune.resume= continues a search"),
        (["sweep=schedules"], "belongs to fer.train -m"),
        (["hydra.run.dir=x"], "name its folder with --out"),
        (["lr_finder=true"], "trains nothing that could be compared"),
        (["monitor=accuracy/test"], "on the test split; use one of accuracy/val"),
        (["tune.resume=nowhere"], "no search (it has no tune.json)"),
        (["tune.storage=postgresql://me:secret@host/name"], "tune.storage: "),
        (["optimizer.lr=-1"], "optimizer.lr=-1: out of range"),
        (["--config-dir", "nowhere"], "no such folder"),
    ],
)
def test_a_faulty_line_is_refused_before_anything_is_made(tuned, tmp_path, arguments, said):
    ended = tuned(*SMALL, *arguments)
    assert ended.code == 1
    assert said in ended.line
    assert "secret" not in ended.err
    assert not (tmp_path / "outputs").exists()


def test_a_search_never_draws_faces_in_place_of_data(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    ended = tuned(*BASE[1:])
    assert "no data" in ended.line
    assert not (tmp_path / "found").exists()


def test_a_folder_with_something_else_is_left_alone(tuned, tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "notes.txt").touch()
    assert "is not empty" in tuned(*BASE).line


def test_a_space_of_ones_own_lies_in_a_folder_that_is_named(tmp_path):
    (tmp_path / "mine" / "space").mkdir(parents=True)
    (tmp_path / "mine" / "space" / "rates.yaml").write_text(
        "defaults: [default, _self_]\noptimizer.lr: {low: 1e-3, high: 1e-1, log: true}\naugment: null\n"
    )
    from fer.config.hydra import tidied

    search = request.read(
        tidied([*SMALL, "--config-dir", "mine", "space=rates", "space.loss.label_smoothing=[0.0,0.1]"])
    )
    words = {parameter.key: str(parameter) for parameter in search.parameters}
    assert words == {
        "optimizer.lr": "0.001 to 0.1, evenly in the logarithm",
        "optimizer.weight_decay": "0.001 to 0.3, evenly in the logarithm",
        "loss.label_smoothing": "0.0, 0.1",
    }
    assert search.paths == [f"hydra.searchpath=['file://{tmp_path / 'mine'}']"]


def test_what_the_command_line_sets_is_not_varied_and_reported():
    search = request.read([*SMALL, "augment=none", "optimizer=sgd", "space=optimizer"])
    assert search.fixed == ["optimizer"]
    assert [parameter.key for parameter in search.parameters] == [
        "optimizer.lr", "optimizer.weight_decay", "optimizer.momentum", "scheduler",
    ]  # fmt: skip


# --- the best as an experiment --------------------------------------------------------------------------------------


def test_a_run_as_an_experiment_is_the_same_configuration_on_any_machine(train, tmp_path):
    keys = ("optimizer.lr=0.01234", "augment=basic", "trainer.threads=1", "data.votes=null", "seed=3", "scheduler=step")
    assert train(*SMALL, *keys, "hydra.run.dir=run").code == 0
    beside = experiment.write(tmp_path / "out", Path("run"), [], ["model.dropout"], ["How it was found."])
    assert beside == []
    text = (tmp_path / "out" / "experiment" / "best.yaml").read_text()
    assert text.startswith("# @package _global_\n# How it was found.\n")
    values = yaml.safe_load(text)
    assert values["model"] == {"hidden": [16], "dropout": 0.2}  # the latter though it is the default
    assert values["optimizer"] == {"lr": 0.01234}
    assert values["trainer"]["threads"] == 1
    assert str(tmp_path) not in text
    assert "logger" not in text
    assert experiment.composes_again(tmp_path / "out", Path("run"), [], beside)


def test_paths_and_plugins_stay_out_of_an_experiment_and_go_beside_it(train, tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(
        "from fer.models import register\nfrom fer.models.mlp import MLP\n\n\n@register('mine')\n"
        "class Mine(MLP):\n    def __init__(self, width: int = 4, **contract):\n"
        "        super().__init__(hidden=(width,), **contract)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    chosen = [text for text in SMALL if not text.startswith("model")]
    assert train(*chosen, "plugins=[nets]", "model=mine", "model.width=8", "hydra.run.dir=run").code == 0
    beside = experiment.write(tmp_path / "out", Path("run"), [], ["model.width"], [])
    assert beside == ["plugins=[nets]"]
    assert experiment.composes_again(tmp_path / "out", Path("run"), [], beside)
    config = configuration_of(Path("run"))
    config["data"]["path"], config["init_from"] = "/faces/fer 2013.csv", "/elsewhere/run"
    config["data"]["more"], config["data"]["weights"] = [{"path": "/faces/more"}], [1, 2]
    text = experiment.text(Path("run"), config, [], [], [])
    assert "/faces" not in text
    assert "/elsewhere" not in text
    named = [one.partition("=")[0] for one in experiment.beside(config)]
    assert named == ["data.path", "data.more", "init_from", "plugins"]


# --- whole searches -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_ends_with_its_best_trial_as_an_experiment_that_trains_to_the_same_value(tuned, train, tmp_path):
    ended = tuned(*RUN[1:], "tune.trials=3")
    assert ended.code == 0, ended.out + ended.err
    folder = tmp_path / "found"
    record = record_of(folder)
    assert record["trials"] == {"complete": 3, "pruned": 0, "failed": 0, "running": 0}
    assert record["settings"]["trials"] == 3
    assert set(record["space"]) == {"optimizer.lr", "augment", "model.dropout"}
    assert record["versions"]["optuna"].startswith("5.")
    table = rows(folder)
    assert [row["state"] for row in table] == ["complete"] * 3
    assert (table[0]["optimizer.lr"], table[0]["augment"], table[0]["model.dropout"]) == ("0.002", "flip", "0.2")
    values = [float(row["accuracy/val"]) for row in table]
    chosen = table[values.index(max(values))]
    run = folder / chosen["folders"]
    assert record["best"]["number"] == int(chosen["trial"])
    assert max(values) == pytest.approx(metrics(run)["accuracy"], abs=1e-6)
    assert "no trial is pruned: a trial has 3 epochs at most, and tune.warmup_epochs=3" in ended.out
    assert (folder / "tune.html").exists()
    assert f"trial {chosen['trial']}" in (folder / "tune.html").read_text()
    text = (folder / "experiment" / "best.yaml").read_text()
    assert f"The best of 3 trials of fer.tune (3 complete), {metrics(run)['finished'][:10]}" in text
    assert "trains" not in text
    assert str(tmp_path) not in text
    again = train("--config-dir", "found", "experiment=best", "hydra.run.dir=again", "logger=none")
    assert again.code == 0, again.err
    assert identity(configuration_of(tmp_path / "again")) == identity(configuration_of(run))
    for figure in ("accuracy", "nll", "macro_f1", "best_epoch"):
        assert metrics(tmp_path / "again")[figure] == metrics(run)[figure]
    shutil.copytree(folder, tmp_path / "elsewhere" / "moved")  # the file is the same on any machine
    config = plain(composed(["experiment=best", f"hydra.searchpath=['file://{tmp_path}/elsewhere/moved']"]))
    assert identity(config) == identity(configuration_of(run))


@pytest.mark.slow
def test_a_storage_that_forgot_trials_is_refused_and_nothing_is_overwritten(tuned, tmp_path):
    folder = tmp_path / "found"
    assert tuned(*RUN[1:], "tune.trials=2").code == 0
    kept = (folder / "trials.csv").read_bytes(), (folder / "tune.json").read_bytes()
    other, lost = ("tune.storage=sqlite:///other.db",), ()
    for more in (other, lost):
        if more == lost:
            (folder / "journal.log").unlink()
        ended = tuned("tune.resume=found", "tune.trials=3", *more)
        assert ended.code == 1
        assert "has 0 ended trials" in ended.err
        assert ((folder / "trials.csv").read_bytes(), (folder / "tune.json").read_bytes()) == kept
    joining = tuned(*RUN[1:], "tune.trials=3", *other)  # as another process would
    assert joining.code == 1
    assert "tune.storage='sqlite:///other.db': " in joining.err
    assert "has tune.storage=null" in joining.err


@pytest.mark.slow
def test_a_search_never_takes_the_trials_of_another_folder(tuned, tmp_path):
    storage = f"tune.storage=sqlite:///{tmp_path}/all.db"
    of_search = (*SMALL, "tune.jobs=1", *SPACE)
    assert tuned(*of_search, "tune.folder=a/search", "tune.trials=1", storage).code == 0
    ended = tuned(*of_search, "tune.folder=b/search", "tune.trials=1", storage)
    assert ended.code == 1
    assert "has 1 trial of another search named 'search'; choose a folder of another name" in ended.err
    assert not (tmp_path / "b" / "search" / "tune.json").exists()
    assert tuned(*of_search, "tune.folder=a/search", "tune.trials=1", storage).code == 0


@pytest.mark.slow
def test_a_search_of_failing_trials_ends_with_exit_1_and_says_so(tuned, tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(
        "from fer.models import register\nfrom fer.models.mlp import MLP\n\n\n@register('dies')\nclass Dies(MLP):\n"
        "    def __init__(self, **contract):\n        raise RuntimeError('out of something')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    chosen = [text for text in BASE if not text.startswith("model")]
    ended = tuned(*chosen, *SPACE, "plugins=[dying]", "model=dies", "tune.trials=2")
    assert ended.code == 1
    assert "no trial is complete, so there is no best one; the last one: exit 1: " in ended.out
    assert [row["state"] for row in rows(tmp_path / "found")] == ["failed"] * 2
    assert all("RuntimeError: out of something" in row["reason"] for row in rows(tmp_path / "found"))
    assert "No trial is complete" in (tmp_path / "found" / "tune.html").read_text()
    assert not (tmp_path / "found" / "experiment").exists()


def until(holds, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_an_interrupted_search_goes_on_with_what_remains(tuned, tmp_path):
    long = ("trainer.max_epochs=60", "tune.trials=2", "tune.pruner=none")
    command = [sys.executable, "-m", *RUN, *long]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = tmp_path / "found"
    until(lambda: process.poll() is not None or (folder / "0" / "checkpoints" / "last.ckpt").exists())
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "resume with: python -m fer.tune tune.resume=found" in said
    assert [row["state"] for row in rows(folder)] == ["running"]
    until(lambda: not jobs.lives(folder / "0"))
    assert 0 < (folder / "0" / "history.csv").read_text().count("\n") - 1 < 60
    ended = tuned("tune.resume=found")
    assert ended.code == 0, ended.out + ended.err
    assert "trial 0 resumes" in ended.out
    assert "resuming from epoch" in (folder / "0" / "console.log").read_text()
    states = [(row["state"], row["epochs"], row["folders"]) for row in rows(folder)]
    assert states == [("complete", "60", "0"), ("complete", "60", "1")]
    nothing = tuned(*RUN[1:], *long)  # the same line again, as after a restart
    assert nothing.code == 0
    assert "the budget is spent" in nothing.out
    assert len(rows(folder)) == 2
    changed = tuned("tune.resume=found", "data.batch_size=32")
    assert "data.batch_size=32: the search in" in changed.line
    assert "has space.augment=" in tuned("tune.resume=found", "space.augment=null").line
    assert "has tune.seeds=1" in tuned("tune.resume=found", "tune.seeds=2").line
