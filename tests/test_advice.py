"""What a message advises is an option of the command that prints it, and holds when it is followed."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from conftest import SMALL, runner

import fer
from fer import best
from fer.data.readers.drawing import draw_faces
from fer.evaluate import OPTIONS


def table(file: Path, *, usage: bool = True, bad: int | None = None) -> None:
    """Write 70 drawn faces; of the row ``bad`` the pixels are missing."""
    images, targets = draw_faces(70, seed=3, image_size=48)
    usages = ["Training"] * 42 + ["PublicTest"] * 14 + ["PrivateTest"] * 14
    lines = ["emotion,pixels,Usage" if usage else "emotion,pixels"]
    for row, (image, target) in enumerate(zip(images, targets, strict=True)):
        pixels = "1 2 3" if row == bad else " ".join(map(str, image.ravel().tolist()))
        lines.append(f"{target},{pixels}" + (f",{usages[row]}" if usage else ""))
    file.write_text("\n".join(lines) + "\n")


@pytest.fixture
def tables(tmp_path):
    table(tmp_path / "bad.csv", bad=5)
    table(tmp_path / "bare.csv", usage=False)


def test_a_bad_row_is_left_out_as_each_command_says(tables, audit, evaluate, train, small_run):
    for command, *arguments in (
        (audit, "bad.csv", "--quick"),
        (evaluate, str(small_run), "--data", "bad.csv", "--no-report"),
        (train, "data.path=bad.csv", *SMALL[2:], "trainer=smoke"),
    ):
        refused = command(*arguments)
        advised = re.search(r"; (\S+(?: \S+)?) leaves such rows out", refused.line)
        assert advised is not None, refused.line
        ended = command(*arguments, *shlex.split(advised[1]))
        assert ended.code == 0, ended.err


def test_the_rule_is_named_as_each_command_says(tables, audit, evaluate, train, small_run):
    for command, option, *arguments in (
        (audit, "--rule ", "bare.csv", "--rule", "official", "--quick"),
        (evaluate, "--rule ", str(small_run), "--data", "bare.csv", "--rule", "official", "--no-report"),
        (train, "data.split=", "data.path=bare.csv", *SMALL[2:], "trainer=smoke"),
    ):
        said = command(*arguments).line
        assert f": {option}official: " in said
        assert f"use {option}holdout (80/20)" in said  # it has no folders of its own


def test_missing_data_are_named_as_each_command_says(audit, evaluate, train, small_run, capfd):
    end = "put the file or folder into data/, or set {} or $FER_DATA"
    for command, given, to_set, *arguments in (
        (audit, "DATA no.csv", "DATA", "no.csv"),
        (evaluate, "--data no.csv", "--data", str(small_run), "--data", "no.csv"),
        (train, "data.path=no.csv", "data.path=", "data.path=no.csv"),
        (runner(best.main, capfd), "--data no.csv", "--data", "--hours", "1", "--data", "no.csv"),
    ):
        said = command(*arguments).line
        assert f": {given}: no such file or folder. " in said
        assert said.endswith(end.format(to_set))
    assert audit("synthetic", "--image-size", "4").line.startswith("fer.audit: --image-size 4: out of range")
    assert train("data=synthetic", "data.image_size=4").line.startswith("fer.train: data.image_size=4: out of range")


@pytest.mark.parametrize("folder", ["data", "evaluation"])
def test_no_message_there_spells_a_setting_itself(folder):
    """Several commands print these: ``fer.config.errors.setting`` knows which."""
    spelled = re.compile(rf"\b({'|'.join(map(re.escape, OPTIONS))})=")
    for file in (Path(fer.__file__).parent / folder).rglob("*.py"):
        tree = ast.parse(file.read_text())
        docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
                assert not spelled.search(node.value), f"{file.name}: {node.value}"


def test_a_training_leads_to_its_report_and_to_val_and_names_test_last(train, evaluate, tmp_path):
    ended = train(*SMALL, "trainer.max_epochs=1", "logger.report=true", "--out", "a run")
    assert ended.code == 0, ended.err
    *_, report, following, last = ended.out.splitlines()
    assert report == "report:   a run/report.html"
    program, *arguments = shlex.split(following.removeprefix("next:     python -m "))
    assert program == "fer.evaluate"
    assert evaluate(*arguments).code == 0  # as it is printed
    assert [folder.name for folder in (tmp_path / "a run" / "evaluations").iterdir()] == ["val_ten_crop"]
    assert not (tmp_path / "a run" / "test_opened.json").exists()
    assert last == "last:     once, when everything is chosen on val: the same command with --split test"


def test_a_training_on_data_without_test_does_not_name_it(train):
    ended = train(*SMALL, "data.split=holdout", "trainer.max_epochs=1")
    assert ended.out.splitlines()[-1].startswith("next:     python -m fer.evaluate outputs/")
