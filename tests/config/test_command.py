"""Names in files cannot control the terminal, nor a card."""

import logging

from fer.config.command import command
from fer.config.errors import FerError
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
