"""Overrides from files set keys of the settings alone; what may run code is named on the command line, or refused."""

from pathlib import Path

import pytest
import yaml
from conftest import SMALL
from hostile import BOMB, overrides

from fer.config.conf import check_yaml
from fer.config.errors import FerError
from fer.config.trust import again, named_again, settable, taken

ORDINARY = (
    "seed=1", "model=mlp,cnn", "model=timm:resnet18", "experiment=best/cpu", "data.path='/faces of @home/a,b.csv'",
    "model.hidden=[16]", "space.optimizer.lr={low:1e-4,high:0.1}", "tune.trials=3", "sweep.jobs=2", "init_from=/a/b",
    "data.path=/my_target_/faces.csv", "distill.teachers=[../a]", "augment=glob(*)", "sweep=none",
)  # fmt: skip
ON_TRUST = (
    "plugins=[mine]", "hydra.searchpath=['file:///a']", "hydra/launcher=joblib", "seed=${oc.env:SEED}",
    "logger.mlflow_uri=http://elsewhere",
)  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_a_file_sets_keys_of_the_settings(text):
    assert settable(text)
    assert taken([text], Path("run"), []) == [text]


@pytest.mark.parametrize("text", overrides(Path("/evil/canary")).values(), ids=overrides(Path("/evil/canary")))
def test_a_file_sets_nothing_else(text):
    assert not settable(text)
    with pytest.raises(FerError, match=r"^run/\.hydra: "):
        taken(["seed=1", text], Path("run/.hydra"), ["model=mlp"])


@pytest.mark.parametrize("text", ON_TRUST)
def test_what_may_run_code_is_taken_if_the_command_line_names_it(text):
    with pytest.raises(FerError) as caught:
        taken([text], Path("run"), [])
    assert str(caught.value).endswith(f"add:{again([text])}")
    assert taken([text], Path("run"), [text]) == [text]
    assert named_again(["seed=1", text]) == [text]


def test_the_words_to_add_name_a_folder_as_the_command_line_does():
    assert again(["seed=1", "hydra.searchpath=['file:///a b']", "plugins=[x]"]) == " --config-dir '/a b' 'plugins=[x]'"


@pytest.mark.parametrize(
    "text",
    [
        "hydra.callbacks={x:{_target_:os.mkdir,path:made}}", "+hydra.callbacks.x={_target_:os.mkdir,path:made}",
        "hydra/callbacks=x", "+hydra.job_logging.handlers.x={class:logging.FileHandler,filename:made}",
        "hydra.job_logging.handlers.file.filename=made", "hydra.hydra_logging.root.level=DEBUG",
        "model._target_=os.mkdir", "hydra.launcher._target_=os.mkdir", "model@hydra.callbacks=cnn", "+hydra.new=1",
    ],
)  # fmt: skip
def test_code_is_refused_from_the_command_line_too(train, text):
    ended = train(*SMALL, text, "--out", "out")
    assert (ended.code, ended.line.startswith(f"fer.train: {text[:20]}")) == (1, True)
    assert not Path("made").exists()
    assert not Path("out").exists()


@pytest.mark.parametrize("more", [(), ("--cfg", "job")])
def test_a_folder_of_configuration_sets_nothing_of_hydra(train, more):
    Path("mine/experiment").mkdir(parents=True)
    callback = {"callbacks": {"x": {"_target_": "builtins.open", "file": "made", "mode": "a"}}}
    text = yaml.safe_dump({"hydra": callback})
    Path("mine/experiment/x.yaml").write_text(f"# @package _global_\n{text}")
    ended = train(*SMALL, "--config-dir", "mine", "experiment=x", *more)
    assert (ended.code, "hydra.callbacks.x" in ended.line) == (1, True), ended.err
    assert not Path("made").exists()


@pytest.mark.parametrize("option", ["--config-path", "--config-name", "--experimental-rerun"])
def test_options_that_read_other_configurations_are_refused(train, option):
    ended = train(*SMALL, option, "x")
    assert (ended.code, f"{option}: refused" in ended.line) == (1, True)


def test_a_resumed_run_imports_its_plugin_once_it_is_named(train, small_run, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("a_plugin.py").write_text("open('made', 'a')\n")
    (small_run / "metrics.json").unlink()
    for name, change in (("overrides", lambda stored: [*stored, "plugins=[a_plugin]"]), ("config", _with_plugin)):
        file = small_run / ".hydra" / f"{name}.yaml"
        file.write_text(yaml.safe_dump(change(yaml.safe_load(file.read_text()))))
    refused = train(f"resume={small_run}")
    assert (refused.code, refused.line.endswith("add: 'plugins=[a_plugin]'")) == (1, True)
    assert not Path("made").exists()
    assert train(f"resume={small_run}", "plugins=[a_plugin]").code == 0
    assert Path("made").exists()


def _with_plugin(config):
    return {**config, "plugins": ["a_plugin"]}


@pytest.mark.parametrize("given", ["--config-dir=mine", "hydra.searchpath=[file://mine]"])
@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (BOMB, "100,000 values"),
        ("a: &x [1, *x]\n", "100,000 values"),
        ("[" * 60, "50 levels"),
        ("a: x\n" * 300_000, "bytes"),
    ],
)
def test_a_folder_of_configuration_cannot_grow_without_end(train, tmp_path, given, contents, words):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "x.yaml").write_text(contents)
    ended = train(*SMALL, given, "experiment=x")
    assert (ended.code, "x.yaml" in ended.line, words in ended.line) == (1, True, True)


def test_a_few_aliases_of_ones_own_are_taken(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {b: 1}\nc: {<<: *a}\nd: [*a, *a]\n")
    check_yaml(tmp_path)
