"""What commands print of names and errors: no control characters, and what would be right."""

import logging
import re
from pathlib import Path

import pytest

from fer.config.command import Grammar, command
from fer.config.errors import FerError
from fer.config.plugins import import_plugins
from fer.system.files import new_folder
from fer.system.text import code_span, markdown_table, text_table

NAME = "a\x1b[2J\x1b]0;title\x07\u202egnp.exe\x9b"
SHOWN = r"a\x1b[2J\x1b]0;title\x07\u202egnp.exe\x9b"


def test_errors_and_messages_show_control_characters(capsys, caplog):
    @command("fer.test")
    def main(argv):
        logging.getLogger("fer.test").warning("read %s", NAME)
        raise FerError(f"{NAME}\nsecond line: damaged")

    assert main([]) == 1
    assert capsys.readouterr().err == f"fer.test: {SHOWN} second line: damaged\n"
    assert caplog.messages == [f"read {SHOWN}"]


def test_a_name_is_one_cell_of_a_table():
    lines = text_table(["name", "n"], [[f"{NAME}\nb", "1"]]).splitlines()
    assert lines[2] == rf"{SHOWN}\nb  1"


def test_a_name_is_no_markdown():
    hostile = "<img src=x>|[text](http://a)\n# head"
    (row,) = markdown_table(["name"], [[hostile]]).splitlines()[2:]
    assert "<" not in row
    assert "](" not in row
    assert r"\|" in row
    assert code_span("a`b`\nc") == r"`a'b'\nc`"
    assert markdown_table(["name"], [["`<tiny>`"]]).endswith("| `<tiny>` |")  # in code it is text already


def test_a_plugin_that_is_not_found_is_told_how_to_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    for name, said, unsaid in (
        ("/x/my_nets.py", "name a module, not a file: my_nets", "PYTHONPATH"),
        ("my_nets", f"searched for in the current folder, {tmp_path}, and in PYTHONPATH", "a file"),
        ("broken", "No module named 'no_such_thing'", "searched for"),
    ):
        with pytest.raises(FerError, match=re.escape(said)) as caught:
            import_plugins([name])
        assert unsaid not in str(caught.value)


def test_a_file_that_looks_like_an_option_is_named_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-face.png").touch()
    with pytest.raises(FerError, match=r"unrecognized arguments: -face.png.* a file of that name is \./-face.png"):
        Grammar(prog="x").parse_args(["-face.png"])


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_folder_that_cannot_be_made_is_offered_elsewhere(error, tmp_path, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert command("fer.x")(lambda argv: bool(new_folder(tmp_path / "runs", "a")))([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--out" in line
    assert error.strerror in line
