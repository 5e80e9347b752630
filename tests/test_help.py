"""``--help``: every key with its meaning, every group with its choices."""

import re
import subprocess
import sys
from dataclasses import asdict

from conftest import settings_of_first_job
from omegaconf import OmegaConf

from fer.config.conf import conf_folder, plain
from fer.config.keys import flat, groups, meanings, summary
from fer.config.settings import leaves
from fer.runs.zoo import pretrained


def test_help_prints_every_key_with_its_comment(train, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    ended = train("--help")
    assert (ended.code, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 100
    said = " ".join(ended.out.split())
    for group, names in (("augment=basic", "basic, flip, none, strong"), ("optimizer=adamw", "adam, adamw, muon, sgd")):
        assert f"{group} {names} " in said
    for key, value in leaves(asdict(settings_of_first_job([]))):
        if not key.endswith(".name") and value != {}:
            assert re.search(rf"^  {re.escape(key)}=\S+(  .|$)", ended.out, re.MULTILINE), key
    assert "data.votes=null FER+'s fer2013new.csv, joined by row" in said
    assert "budget.hours=null train as many epochs as fit into this time" in said
    assert "augment.zoom=0.0 largest relative change of size" in said  # from the file that basic begins from


def test_help_describes_the_choices_that_stand_beside_it(train):
    said = " ".join(train("--help", "model=resnet9", "experiment=speedrun/63").out.split())
    assert "model.stride=2 stride of the first convolution" in said
    assert "model.head_dropout" not in said
    assert "ema=0.99 decay of a moving average" in said
    listed = train("-h", "scheduler").out
    assert listed.count("  scheduler=") == 6
    assert "  scheduler=none                    A constant learning rate." in listed
    assert train("--help", "modl").line.startswith("fer.train: --help modl: no such group; use one of data, ")
    assert "did you mean 'model'?" in train("--help", "modl").line
    assert "model=cn: no such choice" in train("--help", "model=cn").line


def test_every_key_and_choice_of_conf_is_described():
    for group, choices in groups().items():
        for choice in choices:
            file = conf_folder() / group / f"{choice}.yaml"
            assert summary(file), file
            values = plain(OmegaConf.load(file))
            known = meanings(file)
            for key, _ in flat({} if group in ("experiment", "sweep") and choice != "none" else values):
                assert key in ("defaults", "name") or key in known, f"{file}: {key}"


def test_help_of_evaluate_names_the_networks_of_the_package(capfd):
    code = (
        "import sys, contextlib\nfrom fer.evaluate import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    said = " ".join(capfd.readouterr().out.split())
    assert "NAME.safetensors of fer.share" in said
    assert "NAME.onnx of fer.export" in said
    assert said.endswith(f"the networks of the package: {', '.join(pretrained())}.")
