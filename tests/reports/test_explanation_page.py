"""The page of an explanation: closed elements, nothing from elsewhere, texts in their place, colours of the theme."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.text import Text
from test_run_report import outline, unseen

from fer.data.labels import EMOTIONS
from fer.evaluation.explanation import Maps
from fer.metrics.explanation import (
    Check,
    Curves,
    Difference,
    Explanation,
    Imputed,
    Mean,
    OfConfusion,
    OfEmotion,
    OfFace,
    Randomised,
)
from fer.metrics.statistics import Interval
from fer.reports import plotting
from fer.reports.explanation import figures, page
from fer.reports.explanation.overlay import AGAINST, FOR, SIDE, _rgb, overlay
from fer.reports.theme import themed

MEAN = Mean(0.5, Interval(0.4, 0.6))
VERDICT = "Occlusion maps of this network are <b>not</b> better."


@pytest.fixture(scope="module")
def found():
    curves = [Curves(name, (MEAN,) * 13, (MEAN,) * 13, MEAN, MEAN) for name in ("occlusion", "blob", "random")]
    check = Check(
        faces=40,
        curves=tuple(curves),
        differences=(Difference("blob", MEAN, MEAN), Difference("random", MEAN, MEAN)),
        faces_of_randomised=40,
        randomised=tuple(Randomised(layers, 17, MEAN) for layers in (1, 5, 9, 13, 17)),
        mirrored=MEAN,
        verdict=VERDICT,
        imputed=Imputed(
            30, tuple(curves), (Difference("blob", MEAN, MEAN), Difference("random", MEAN, MEAN)), "Imputed: better."
        ),
    )
    names = [(label, predicted) for label in EMOTIONS[:2] for predicted in EMOTIONS[:2] for _ in range(4)]
    chances = dict.fromkeys(EMOTIONS, 1 / 7)
    return Explanation(
        method="occlusion",
        layer=None,
        networks=("tiny",),
        architecture="resnet9",
        source="16 of 100 faces of val",
        faces=tuple(OfFace("row 7", predicted, "sad", chances, None, label) for label, predicted in names),
        check=check,
        emotions=tuple(OfEmotion(name, 4, 4, MEAN, 0.8) for name in EMOTIONS[:2]),
        confusions=(OfConfusion("angry", "disgust", 4),),
        left_out={'a "b".png': "no face <found>"},
        faces_per_second=20.0,
        command="python -m fer.explain",
    )


@pytest.fixture(scope="module")
def maps():
    values = np.random.default_rng(0).normal(size=(3, 16, 48, 48)).astype(np.float32)
    return Maps(np.full((16, 48, 48), 120, np.uint8), *values)


def test_the_page_is_whole(found, maps, tmp_path):
    page.write(tmp_path / "index.html", found, maps)
    parsed = outline(tmp_path / "index.html")
    assert all(address.startswith(("#", "data:")) for address in parsed.addresses)
    assert parsed.ids[:4] == ["light", "check", "emotions", "confusions"]
    text = " ".join(parsed.text.split())
    assert text.index(VERDICT) < text.index("Do the maps explain the network?")
    assert text.index("With imputed pixels") < text.index("Imputed: better.") < text.index("Random weights")
    for words in (
        "angry predicted as disgust",
        "mean of 4 right",
        "mean map, wrong",
        "minus its mirror",
        "no face <found>",
    ):
        assert words in text
    assert text.count("0.500") >= 6
    assert "[0.400, 0.600]" in text


def drawn(found):
    with plotting.style():
        return {
            "curves": figures.curves(found.check.curves),
            "randomised": figures.randomised(found.check.randomised),
        }


def test_no_text_of_the_figures_sticks_out_or_lies_on_another(found):
    for name, figure in drawn(found).items():
        plotting.pixels(figure)
        renderer, hidden = figure.canvas.get_renderer(), unseen(figure)
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in hidden]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()]
        for words, box in boxes:
            inside = (box.x0 >= -1, box.y0 >= -1, box.x1 <= figure.bbox.width + 1, box.y1 <= figure.bbox.height + 1)
            assert all(inside), f"{name}: {words!r} sticks out"
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert not (over[0] > 2 and over[1] > 2), f"{name}: {one!r} lies on {other!r}"


@pytest.mark.renders
def test_colours_of_the_figures_follow_the_theme(found):
    for name, figure in drawn(found).items():
        assert not set(re.findall(r"(?<=: )#[0-9a-f]{6}", themed(plotting.svg(figure, name)))), name


def test_a_face_is_tinted_where_the_map_is_not_zero():
    face, values = np.full((48, 48), 100, np.uint8), np.zeros((48, 48), np.float32)
    values[:12], values[-12:] = 2, -1
    tinted = overlay(face, values, 2.0).astype(int)
    assert tinted.shape == (SIDE, SIDE, 3)
    assert (tinted[SIDE // 2] == 100).all()
    for row, role, strength in ((0, FOR, 0.72), (SIDE - 1, AGAINST, 0.36)):
        expected = 100 + strength * (_rgb(role) - 100)
        assert tinted[row, 50] == pytest.approx(expected, abs=1)
    assert (overlay(face, np.zeros((48, 48), np.float32), 0.0) == 100).all()
