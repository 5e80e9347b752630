"""``report.html`` and ``figures/``: what they hold, that nothing sticks out, and that no colour escapes the theme."""

import itertools
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import SMALL, metrics
from matplotlib.text import Text
from PIL import Image

from fer.data.labels import EMOTIONS
from fer.data.readers.drawing import draw_faces
from fer.metrics.results import PerClass, Value, of
from fer.metrics.statistics import Interval, wilson
from fer.reports import figures, html, plotting, run, run_sections, timeline
from fer.reports.summary import calibration_beside, calibration_verdict
from fer.reports.theme import DARK, PAPER, themed
from fer.runs.predictions import Scored
from fer.train import main

NAMES = {"curves", "confusion", "reliability", "per_class", "mistakes", "doubtful", "augmented"}
VOID = {"meta", "img", "br", "input", "link"}


class Outline(HTMLParser):
    """Checks that elements are closed in order, and collects what a page points to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.addresses += [given[name] for name in ("src", "href", "xlink:href") if given.get(name)]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data + " "


def outline(file) -> Outline:
    parsed = Outline()
    parsed.feed(file.read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def scored() -> Scored:
    images, targets = draw_faces(140, seed=3)
    logits = np.random.default_rng(0).normal(size=(140, 7))
    logits[np.arange(140), targets] += 1.5
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Scored(images, targets.astype(np.int64), chances.astype(np.float32), np.arange(140) + 1000, EMOTIONS)


@pytest.fixture(scope="module")
def history() -> list[dict[str, float]]:
    names = ("loss/train", "loss/val", "accuracy/train", "accuracy/val", "learning_rate", "seconds")
    return [{"epoch": float(epoch), **dict.fromkeys(names, epoch / 30)} for epoch in range(1, 31)]


def drawn(scored, history):
    per_class = {
        name: PerClass(Value(0.5), Value(0.4, Interval(0.2, 0.98)), Value(0.4), None, None, 12345) for name in EMOTIONS
    }
    variants = np.stack([scored.images[:6]] * 9, axis=1)
    with plotting.style():
        return {
            "curves": figures.curves(history, 29),
            "confusion": figures.confusion((np.eye(7, dtype=int) * 9000 + 1111).tolist(), EMOTIONS),
            "reliability": figures.reliability(scored.probabilities, scored.targets, (0.123, 0.456)),
            "per_class": figures.per_class(per_class),
            "faces": figures.faces(scored.images[:18], [run_sections.caption(scored, place) for place in range(18)]),
            "augmented": figures.augmented(scored.images[:6], variants),
            "timeline": timeline.figure(watched(scored)),
        }


def watched(scored):
    """A video of eight faces, of which six are shown, one of them with a gap."""
    made = timeline.Timeline(EMOTIONS)
    for number in range(40):
        tracks = range(1, 9) if number < 20 or number > 24 else range(2, 9)
        faces = [
            {"track": track, "emotion": "?", "emotions": [], "uncertain": False,
             "probabilities": dict(zip(EMOTIONS, scored.probabilities[track + number // 8], strict=True))}
            for track in tracks
        ]  # fmt: skip
        made.add(20.0 * number, scored.images[: len(faces)], faces)
    return made


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run with its report."""
    folder = tmp_path_factory.mktemp("reported") / "out"
    settings = ("data.synthetic_count=1400", "logger.report=true")
    assert main([*SMALL, *settings, "augment.flip=0.25", "seed=3", f"hydra.run.dir={folder}"]) == 0
    return folder


def test_a_run_explains_itself_on_one_page(reported):
    parsed, figured = outline(reported / "report.html"), metrics(reported)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in parsed.addresses)
    for section in ("training", "confusion", "emotions", "calibration", "mistakes", "augmented", "provenance"):
        assert section in parsed.ids
    assert f"{100 * figured['accuracy']:.2f} %" in parsed.text
    low, high = (100 * end for end in figured["macro_f1_ci95"])
    assert f"{low:.1f} to {high:.1f} (95 %)" in parsed.text
    assert calibration_verdict("ece", of(figured).metrics, 3) in parsed.text
    assert calibration_beside(of(figured).metrics, 3) in parsed.text
    assert figured["dataset"]["fingerprint"] in parsed.text
    assert figured["command"] in parsed.text
    assert re.search(r"seed\s+3\s+0", parsed.text)  # key, value, default
    assert re.search(r"augment\.flip\s+0\.25\s+0\.5", parsed.text)
    assert re.search(r"model\s+mlp\s+cnn", parsed.text)
    assert "model.dropout" not in parsed.text.split("the whole configuration")[0]  # mlp's own default
    files = {file.name for file in (reported / "figures").iterdir()}
    assert files >= {f"{name}.{kind}" for name, kind in itertools.product(NAMES, ("png", "svg"))}


@pytest.mark.parametrize(
    ("ticks", "texts"),
    [
        ([0, 0.5, 1], ["0 %", "50 %", "100 %"]),
        ([0, 0.025, 0.05], ["0.0 %", "2.5 %", "5.0 %"]),
        ([0.1, 0.10125], ["10.000 %", "10.125 %"]),
        ([1 / 3], ["33.333 %"]),
    ],
)
def test_ticks_in_per_cent_are_exact_to_three_decimals(ticks, texts):
    assert plotting.PerCent().format_ticks(ticks) == texts


def test_a_bar_of_few_faces_is_pale_and_each_has_its_interval():
    """Ten faces at a confidence of 0.9, of which 8 are right; nine at 0.5, of which 3 are."""
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.501, 0.499]] * 9)
    targets = np.array([0] * 8 + [1] * 2 + [0] * 3 + [1] * 6)
    with plotting.style():
        axes = figures.reliability(probabilities, targets, (0.1, 0.2)).axes[0]
    assert [(bar.get_height(), bar.get_alpha()) for bar in axes.patches] == [
        (pytest.approx(0.8), 1.0),
        (pytest.approx(3 / 9), figures.PALE),
    ]
    intervals = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]
    assert intervals == [pytest.approx(wilson(hits, count)) for hits, count in ((3, 9), (8, 10))]


def test_figures_are_as_wide_as_a_column_and_their_text_is_text(reported):
    for name in NAMES:
        with Image.open(reported / "figures" / f"{name}.png") as picture:
            assert picture.width == pytest.approx(plotting.WIDTH * plotting.DPI, abs=1)
            assert picture.getpixel((0, 0))[:3] == (254, 254, 254)  # stands on white, for paper
        tree = ET.parse(reported / "figures" / f"{name}.svg")
        words = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
        assert words, name
    assert not (reported / "tensorboard").exists()


def test_smoke_and_no_logger_leave_nothing_to_look_at(train, tmp_path):
    assert train(*SMALL[:6], "trainer=smoke", "hydra.run.dir=out").code == 0
    assert not {"report.html", "figures", "tensorboard"} & {file.name for file in (tmp_path / "out").iterdir()}


@pytest.mark.slow
def test_a_report_that_could_not_be_written_is_written_on_resume(train, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "figures").write_text("in the way")
    ended = train(*SMALL, "logger.report=true", "hydra.run.dir=out")
    assert ended.code == 1
    assert "out/figures: File exists; the results are safe" in ended.line
    before = metrics(tmp_path / "out")
    (tmp_path / "out" / "figures").unlink()
    again = train("resume=out")
    assert again.code == 0, again.err
    assert "writing the missing files: report.html" in again.out
    assert "resuming from epoch" not in again.out
    assert before["command"] in outline(tmp_path / "out" / "report.html").text
    assert metrics(tmp_path / "out") == before
    assert "nothing to resume" in train("resume=out").out


@pytest.mark.slow
def test_a_part_of_val_that_chose_is_reported(train, tmp_path):
    settings = ("data.synthetic_count=700", "trainer.limit_val=0.5", "logger.report=true", "hydra.run.dir=out")
    ended = train(*SMALL, *settings)
    assert "over a part of these faces" in ended.out
    assert "over a part of the faces (trainer.limit_val=0.5)" in outline(tmp_path / "out" / "report.html").text


def test_few_faces_have_no_interval(train, tmp_path):
    assert train(*SMALL, "logger.report=true", "hydra.run.dir=out").code == 0
    assert metrics(tmp_path / "out")["nll_ci95"] is None  # of 14 faces
    assert "too few faces for an interval" in outline(tmp_path / "out" / "report.html").text


def test_large_faces_are_shrunk_for_the_page():
    large = np.zeros((2, 200, 200), np.uint8)
    assert figures.shrunk(large).shape == (2, 96, 96)
    assert figures.shrunk(large[:, :48, :48]).shape == (2, 48, 48)


def test_an_evaluation_has_its_report_unless_it_is_refused(small_run, evaluate):
    assert evaluate(str(small_run), "--split", "test").code == 0
    folder = small_run / "evaluations" / "test"
    parsed = outline(folder / "report.html")
    assert "faces of test" in parsed.text
    assert "training" not in parsed.ids  # it has no curves of its own
    assert evaluate(str(small_run), "--split", "test", "--no-report").code == 0
    assert {file.name for file in (small_run / "evaluations" / "test_2").iterdir()} == {
        "metrics.json",
        "predictions.csv",
    }


def test_names_from_a_strangers_data_are_escaped(reported, scored, tmp_path):
    results = json.loads((reported / "metrics.json").read_text())
    results["dataset"]["name"] = results["dataset"]["path"] = "<script>alert(1)</script>"
    results["command"] = "x & <b>"
    run.write(run_sections.Report(of(results), scored), tmp_path)
    source = (tmp_path / "report.html").read_text()
    assert source.count("<script>") == 1  # the page's own
    assert "x &amp; &lt;b&gt;" in source
    outline(tmp_path / "report.html")


def test_perfect_predictions_have_no_mistakes_to_show(reported, scored, tmp_path):
    sure = np.eye(7, dtype=np.float32)[scored.targets]
    perfect = Scored(scored.images, scored.targets, sure, scored.rows, scored.classes)
    results = json.loads((reported / "metrics.json").read_text())
    results["confusion"] = (np.eye(7, dtype=int) * 20).tolist()
    run.write(run_sections.Report(of(results), perfect), tmp_path)
    parsed = outline(tmp_path / "report.html")
    assert "mistakes" not in parsed.ids
    assert "Nothing is confused" in parsed.text


def test_mistakes_come_surest_first_and_doubtful_faces_nearest_first(scored):
    chosen = run_sections.mistakes(scored, 10)
    sure = scored.probabilities.max(1)
    wrong = scored.probabilities.argmax(1) != scored.targets
    assert wrong[chosen].all()
    assert sure[chosen].tolist() == sorted(sure[wrong].tolist(), reverse=True)[:10]
    ranked = np.sort(scored.probabilities, 1)
    gaps = ranked[:, -1] - ranked[:, -2]
    assert gaps[run_sections.doubtful(scored, 10)].tolist() == sorted(gaps.tolist())[:10]
    assert run_sections.caption(scored, 0)[1:] == [f"label: {EMOTIONS[scored.targets[0]]}", "row 1000"]


@pytest.mark.renders
def test_the_confusion_figure_says_what_the_matrix_says(scored, history):
    svg = plotting.svg(drawn(scored, history)["confusion"], "x")
    words = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("10,111") == 7
    assert words.count("1,111") == 42
    assert words.count("60 %") == 7  # 10,111 of 16,777
    assert words.count("7 %") == 42


def unseen(figure):
    """The labels of ticks that lie beyond an axis, or on axes that are off: never drawn."""
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    shown = {axis: {*axis._update_ticks()} if axis.axes.axison else set() for axis in axes}
    ticks = [tick for axis in axes for tick in {*axis.majorTicks, *axis.minorTicks} - shown[axis]]
    return {label for tick in ticks for label in (tick.label1, tick.label2)}


def test_no_text_sticks_out_of_a_figure_or_lies_on_another(scored, history):
    for name, figure in drawn(scored, history).items():
        plotting.pixels(figure)
        renderer = figure.canvas.get_renderer()
        hidden = unseen(figure)
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in hidden]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()]
        width, height = figure.bbox.width, figure.bbox.height
        for words, box in boxes:
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, f"{name}: {words!r} sticks out: {box} of {width} x {height}"
        if name == "confusion":  # its lower labels are slanted, so that their boxes overlap and they do not
            boxes = [(words, box) for words, box in boxes if words not in EMOTIONS]
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert not (over[0] > 2 and over[1] > 2), f"{name}: {one!r} lies on {other!r}"


@pytest.mark.slow
@pytest.mark.renders
def test_every_colour_of_a_figure_follows_the_theme(scored, history):
    for name, figure in drawn(scored, history).items():
        svg = re.sub(r'"data:image/png;base64,[^"]*"', '""', plotting.svg(figure, name))
        assert "#" in svg
        left = set(re.findall(r"(?<=: )#[0-9a-f]{6}", themed(svg)))
        assert not left, f"{name}: {left} would stay the same in the dark"


@pytest.mark.parametrize("colours", [PAPER, DARK], ids=["light", "dark"])
def test_text_can_be_read_on_its_ground(colours):
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5."""

    def luminance(colour):
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert set(PAPER) == set(DARK)
    for ink, ground in itertools.product(("ink", "soft", "good", "bad"), ("ground", "page", "faint")):
        light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


@pytest.mark.renders
def test_a_figure_is_the_same_every_time(scored, history):
    one, other = (plotting.svg(drawn(scored, history)["reliability"], "x") for _ in range(2))
    assert one == other


def test_markup_is_escaped_once():
    assert html.tag("p", "a < b", html.tag("b", "&"), title='"') == '<p title="&#34;">a &lt; b<b>&amp;</b></p>'
