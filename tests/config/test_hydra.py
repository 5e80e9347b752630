"""Every shipped YAML composes, fits its schema, and agrees with the defaults in the code."""

import argparse
import itertools
import shlex
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from fer.config.command import class_names
from fer.config.conf import conf_folder, plain, spelled
from fer.config.errors import FerError
from fer.config.hydra import composed, value_of
from fer.config.schema import build, keyword_parameters
from fer.config.settings import AugmentSettings, DataSettings, LoggerSettings, TrainerSettings, TrainSettings

GROUPS = {
    group: sorted(
        file.relative_to(conf_folder() / group).with_suffix("").as_posix()
        for file in (conf_folder() / group).rglob("*.yaml")
    )
    for group in (
        "data",
        "augment",
        "model",
        "loss",
        "optimizer",
        "scheduler",
        "trainer",
        "logger",
        "experiment",
        "sweep",
    )
}
CHOICES = [(group, name) for group, names in GROUPS.items() for name in names]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_yaml_composes_and_builds(group, name):
    from fer.training.run import check_names

    needed = ["model.network=resnet18"] if (group, name) == ("model", "timm") else []  # the one file without a default
    check_names(build(TrainSettings, plain(composed([f"{group}={name}", *needed, "trainer.accelerator=cpu"]))))


def test_every_yaml_is_reached():
    files = {file.relative_to(conf_folder()).as_posix() for file in conf_folder().rglob("*.yaml")}
    of_searches = {"tune.yaml", *(name for name in files if name.startswith("space/"))}  # tests/tuning has these
    of_hydra = {"hydra/launcher/slurm.yaml"}  # tests/sweeps/test_launchers.py has it
    assert files == {"config.yaml", *of_searches, *of_hydra, *(f"{group}/{name}.yaml" for group, name in CHOICES)}


@pytest.mark.parametrize(
    ("section", "defaults"),
    [
        ("data", DataSettings()),
        ("augment", AugmentSettings()),
        ("trainer", TrainerSettings()),
        ("logger", LoggerSettings()),
    ],
)
def test_defaults_in_yaml_are_those_in_the_code(section, defaults):
    assert plain(composed(["augment=none"]))[section] == asdict(defaults)


def test_top_level_defaults_are_those_in_the_code():
    config = plain(composed([]))
    settings = build(TrainSettings, config)
    assert settings == TrainSettings(
        **{name: getattr(settings, name) for name in ("data", "model", "loss", "optimizer", "scheduler", "augment")}
    )


def test_yaml_names_are_the_registered_names_and_hold_all_their_arguments():
    from fer.models import MODELS
    from fer.optim.losses import LOSSES
    from fer.optim.optimizers import OPTIMIZERS
    from fer.optim.schedulers import SCHEDULES

    for registry in (MODELS, LOSSES, OPTIMIZERS, SCHEDULES):
        names = set(GROUPS["scheduler" if registry is SCHEDULES else registry.kind])
        assert names == set(registry.names()), f"conf/{registry.kind}/ has a file for each registered name"
        for name in names:
            section = OmegaConf.to_container(OmegaConf.load(conf_folder() / registry.kind / f"{name}.yaml"))
            assert section["name"] == name
            assert set(section) - {"name", "defaults"} == set(keyword_parameters(registry.get(name)))


def test_every_key_can_be_set_alone():
    for key, value in (("augment.flip", 0.5), ("augment.rotate_degrees", 10), ("data.votes", "x.csv")):
        section, name = key.split(".")
        assert plain(composed(["augment=none", f"{key}={value}"]))[section][name] == value


def test_the_mlp_brings_its_own_augmentation_unless_another_is_named():
    assert plain(composed(["model=mlp"]))["augment"]["crop_padding"] == 0
    assert plain(composed(["model=mlp", "augment=basic"]))["augment"]["crop_padding"] == 4
    assert plain(composed(["model=cnn"]))["augment"]["crop_padding"] == 4


@pytest.mark.slow
def test_any_two_groups_combine():
    for first, second in itertools.combinations(("model", "scheduler", "optimizer"), 2):
        for names in itertools.product(GROUPS[first], GROUPS[second]):
            overrides = [f"{group}={name}" for group, name in zip((first, second), names, strict=True)]
            settings = build(TrainSettings, plain(composed(overrides)))
            assert (getattr(settings, first)["name"], getattr(settings, second)["name"]) == names


@pytest.mark.parametrize("path", ["/data/a=b/fer2013.csv", "/data/o'x=1/a b.csv"])
def test_the_advice_for_a_path_that_is_refused_works(path):
    with pytest.raises(FerError) as refused:
        composed([f"data.path={path}"])
    [word] = shlex.split(str(refused.value).partition("write ")[2])
    assert composed([word]).data.path == path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1:fear,b:sad", {"1": "fear", "b": "sad"}),
        ("{1:fear}", {"1": "fear"}),
        ("x,y:fear,a: b:sad", {"x,y": "fear", "a: b": "sad"}),
    ],
)
def test_meanings_of_class_folders_are_options(text, found):
    assert class_names(text) == found
    with pytest.raises(argparse.ArgumentTypeError, match="FOLDER:EMOTION"):
        class_names("1,2")


@pytest.mark.parametrize(
    ("text", "bare"),
    [("/home/me/fer2013.csv", True), ("./a-b.csv", True), ("../x/y", True), ("data/faces", True), ("/null", True)]
    + [(text, False) for text in (".5", "1e3", "null", "true", "a b", "/a:b", "/a,b", "it's", "/", "/12/x", "~/x")],
)
def test_a_text_of_an_override_is_quoted_where_hydra_needs_it(text, bare):
    assert value_of(f"data.path={spelled(text)}") == text
    assert value_of(f"data.more=[{{path:{spelled(text)}}},{spelled(text)}]") == [{"path": text}, text]
    assert bare == (spelled(text) == text)
