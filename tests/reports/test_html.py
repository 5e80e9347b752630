"""Names from files cannot turn the direction of writing on a page, nor hold bytes that a page cannot."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from fer.reports import html, plotting

NAME = "a\u202egnp.exe\u2066\udc80<b>"
SHOWN = r"a\u202egnp.exe\u2066\udc80&lt;b&gt;"


@pytest.mark.renders
def test_a_name_is_shown_as_it_is_stored_wherever_it_stands(tmp_path):
    face = np.zeros((2, 2), np.uint8)
    parts = [html.tag("p", NAME, title=NAME), html.face(face, [NAME, NAME]), html.drawing("<svg></svg>", NAME)]
    html.write(
        tmp_path / "x.html", NAME, html.table([NAME], [[NAME]]), [html.Section("x", NAME, html.joined(*parts))], NAME
    )
    page = (tmp_path / "x.html").read_text()
    assert page.count(SHOWN) == 13
    assert not any(letter in page for letter in "\u202e\u2066")
    figure = Figure()
    figure.text(0.5, 0.5, "a\u202egnp")
    assert r"a\u202egnp" in plotting.svg(figure, "x")


def test_what_is_html_already_stays():
    assert html.joined(html.tag("b", "x"), "<i>") == "<b>x</b>&lt;i&gt;"
