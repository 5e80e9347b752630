"""``fer``, which runs the other commands."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import SMALL, runner

import fer
from fer.__main__ import COMMANDS, main

ROOT = Path(fer.__file__).parents[1]


@pytest.fixture
def run(capfd):
    return runner(main, capfd)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_alone_it_lists_the_commands(run, arguments):
    ended = run(*arguments)
    assert (ended.code, ended.err) == (0, "")
    for name in COMMANDS:
        assert f"  fer {name} " in ended.out
    assert max(map(len, ended.out.splitlines())) <= 110


def test_every_command_module_is_listed():
    commands = {file.stem for file in (ROOT / "fer").glob("*.py") if "\n@command(" in file.read_text()}
    assert commands - {"__main__"} == set(COMMANDS), "COMMANDS in fer/__main__.py lists the modules with @command"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help(run, name, capfd):
    try:
        code, said = (ended := run(name, "--help")).code, ended.out
    except SystemExit as end:  # argparse's way to end
        code, said = end.code, capfd.readouterr().out
    assert code == 0
    assert f"python -m fer.{name}" in said


def test_a_command_gets_what_follows_its_name(run, tmp_path):
    assert run("train", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=out").code == 0
    assert (tmp_path / "out" / "metrics.json").exists()
    ended = run("evaluate", "nowhere")
    assert ended.code == 1
    assert ended.line.startswith("fer.evaluate: nowhere: ")


def test_an_unknown_command_is_one_line(run):
    ended = run("trian", "model=cnn")
    assert ended.code == 1
    assert ended.line == f"fer: trian: no such command; use one of {', '.join(COMMANDS)}; did you mean 'train'?"
    assert run("foo").line.startswith("fer: foo: no such command; use one of predict, serve, explain, train, ")


def test_the_console_command_is_this_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"fer": f"{main.__module__}:main"}


def test_listing_version_and_every_help_need_no_torch():
    code = (
        "import contextlib, sys\nfrom fer.__main__ import COMMANDS, main\nassert main(['--version']) == main([]) == 0\n"
        "for name in COMMANDS:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main([name, '--help'])\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("fer 0.")


@pytest.mark.slow  # a sweep's job is a process
def test_the_folder_of_results_is_out_for_a_run_a_sweep_and_a_search(train, tmp_path):
    short = (*SMALL, "trainer.max_epochs=1")
    assert train("--out", "a b", *short).code == 0
    assert (tmp_path / "a b" / "metrics.json").exists()
    again = train(*short, "--out=a b")
    assert again.line.startswith("fer.train: --out a b: holds a run already; choose another folder")
    assert train("-m", *short, "--out", "sweep", "seed=0", "sweep.jobs=1").code == 0
    assert (tmp_path / "sweep" / "0" / "metrics.json").exists()
    refused = train("--out", "one", "hydra.run.dir=two", *SMALL)
    assert refused.line == "fer.train: --out one: hydra.run.dir=two names the folder too; leave one out"
    assert train(*SMALL, "--out").line.startswith("fer.train: --out: an empty name; expected a folder")
    assert train("resume='a b'", "--out", "c").line.endswith("leave out --out (hydra.run.dir)")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {"share", "export", "serve"}))  # one file that is named; none
def test_every_help_names_the_folder_of_results_alike(run, name, capfd):
    try:
        said = run(name, "--help").out
    except SystemExit:
        said = capfd.readouterr().out
    assert re.search(r"^  --out (OUT|FOLDER|folder)", said, re.MULTILINE)
    assert "hydra.run.dir" not in said
    assert "tune.folder" not in said
