"""``compare.html``: whole, escaped, themed, true to the runs it compares, and of use without its script."""

import base64
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from test_run_report import outline, unseen

from fer.data.labels import EMOTIONS
from fer.metrics.statistics import mcnemar
from fer.reports import plotting
from fer.reports.compare import figures as compare_figures
from fer.reports.compare import mcnemar as compare_mcnemar
from fer.reports.compare import page as compare_page
from fer.reports.theme import themed
from fer.runs.metrics import RunMetrics
from fer.runs.ranking import Run, Setting, rankings
from fer.system.records import read

FACES = Setting("drawn at 24x24", "f1", "drawn", EMOTIONS, False, "official", "val", 400, "d1")
CONFIGURATIONS = 14  # of three seeds each: 42 runs


def made(number, seed, setting=FACES, epochs=12):
    """A run of configuration ``number``; the higher, the better."""
    generator = np.random.default_rng([number, seed])
    correct = generator.random(setting.faces) < 0.4 + 0.025 * number
    accuracy = float(correct.mean())
    course = accuracy * (1 - np.exp(-np.arange(1, epochs + 1) / 4))
    history = [{"epoch": e + 1.0, "accuracy/val": value, "loss/val": 2 - value} for e, value in enumerate(course)]
    per_class = {
        name: {"precision": 0.5, "recall": float(generator.random()), "f1": 0.5, "support": 57} for name in EMOTIONS
    }
    metrics = {
        "accuracy": accuracy, "macro_f1": accuracy, "balanced_accuracy": accuracy, "nll": 2.0, "ece": 0.1, "seed": seed,
        "n": setting.faces, "per_class": per_class, "best_epoch": epochs, "epochs": epochs,
        "train_seconds": 60.0 * number + 9, "images_per_second": 900.0, "peak_memory_mb": None,
        "parameters": 1000 * 2**number, "architecture": "cnn", "split": "val",
        "dataset": {"name": "drawn", "path": "synthetic", "split": "official"},
        "finished": f"2026-01-02T03:04:{seed:02}+00:00",
    }  # fmt: skip
    settings = {"model.name": "cnn", "optimizer.lr": number / 1000, "note": f"<b>{number % 2}</b>"}
    folder = Path(f"runs/{number}-{seed}")
    return Run(folder, settings, {"model": "cnn"}, frozenset(), read(RunMetrics, metrics), setting, history, correct)


def comparison(*runs, **more):
    return compare_page.Comparison(rankings(runs), more.pop("skipped", {}), **more)


def many():
    return [made(number, seed) for number, seed in itertools.product(range(CONFIGURATIONS), range(3))]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of 42 runs, of three of another split, and of one that cannot be read; and what it was made of."""
    folder = tmp_path_factory.mktemp("page")
    reported = folder / "runs" / "3-1"
    reported.mkdir(parents=True)
    (reported / "report.html").touch()
    other = replace(FACES, split="holdout", digest="d2", faces=300, split_seed=0)
    runs = [*many(), *(made(number, 0, other) for number in range(3))]
    runs = [replace(run, folder=folder / run.folder) for run in runs]
    pairs = [(runs[0], runs[3])]
    shown = comparison(*runs, skipped={Path("lost & found"): "no <metrics>"}, pairs=pairs)
    compare_page.write(shown, folder)
    return folder / "compare.html", shown


def section(source, name):
    (found,) = re.findall(f'<section id="{name}">(.*?)</section>', source, re.DOTALL)
    return found


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page):
    file, _ = page
    parsed = outline(file)
    matplotlibs = r"[a-z0-9.]+_\d+|[mp][0-9a-f]{10}"
    ours = [name for name in parsed.ids if not re.fullmatch(matplotlibs, name)]
    assert len(ours) == len(set(ours))
    links = [address for address in parsed.addresses if not address.startswith("#")]
    assert links == ["runs/3-1/report.html"]  # relative, and only where there is one
    expected = ["leaderboard", "curves", "cost", "recall", "differences", "ranking-2", "pairs", "runs", "left-out"]
    assert [name for name in parsed.ids if name in expected] == expected
    source = file.read_text()
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|<script[^>]* src", source)
    assert file.stat().st_size < 2_500_000


def test_it_says_what_is_apart_and_what_is_missing(page):
    text = outline(page[0]).text
    assert "2 rankings that are not comparable: different split: official; holdout, drawn with seed 0" in text
    assert "1 run folder left out" in text
    assert re.search(r"lost & found\s+no <metrics>", text)


def test_the_leaderboard_is_sorted_and_says_what_the_runs_say(page):
    file, shown = page
    one = shown.rankings[0]
    source = section(file.read_text(), "leaderboard")
    means = [float(value) for value in re.findall(r"<b>(\d+\.\d\d)</b>", source)]
    assert len(means) == CONFIGURATIONS
    assert means == sorted(means, reverse=True)
    assert means == [round(100 * group.accuracy.mean, 2) for group in one.groups]
    found, p = one.difference(one.groups[-1], one.best)
    assert f"{100 * found.value:+.2f} " in source
    assert p < 0.05
    assert source.count(" *<") == sum(one.difference(group, one.best)[1] < 0.05 for group in one.groups[1:])
    assert source.count('<div class="interval-bar">') == CONFIGURATIONS
    low, high = compare_page.axis_limits(one)
    intervals = [group.accuracy.interval for group in one.groups]
    assert source.count('<s class="low">') == sum(interval.low < low for interval in intervals) > 0
    assert source.count('<s class="high">') == sum(interval.high > high for interval in intervals)
    assert "An arrow at the edge: the band goes on" in source


def test_every_pair_of_configurations_has_its_difference(page):
    file, shown = page
    source = section(file.read_text(), "differences")
    cells = re.findall(r'class="gap( good| bad)?" title="([^"]*)"', source)
    assert len(cells) == CONFIGURATIONS * (CONFIGURATIONS - 1) // 2
    adjusted = [p for _, p in shown.rankings[0].pairs.values()]
    assert sum(bool(kind) for kind, _ in cells) == sum(p < 0.05 for p in adjusted)
    assert 0 < sum(p < 0.05 for p in adjusted) < len(adjusted)
    assert "adjustment for 91 pairs" in source


def test_more_configurations_than_a_matrix_holds_are_reported(tmp_path):
    shown = comparison(*(made(number, 0) for number in range(22)))
    source = compare_page.differences(shown.rankings[0], 0)
    assert "Shown are the first 20 of 22 configurations" in source
    assert source.count('class="gap') == 190
    assert "adjustment for 231 pairs" in source


def test_recalls_are_side_by_side(page):
    file, shown = page
    source = section(file.read_text(), "recall")
    first = shown.rankings[0].groups[0]
    for emotion in EMOTIONS:
        recall = first.recall(emotion)
        assert f">{100 * recall.mean:.1f}<" in source
        assert f"± {100 * recall.sd:.1f}" in source
    assert source.count('class="tinted"') == CONFIGURATIONS * 7


def test_pairs_are_tested_without_the_script(page):
    file, shown = page
    source = section(file.read_text(), "pairs")
    first, second = shown.pairs[0]
    result = mcnemar(first.correct, second.correct)
    assert f">{result.first}</td>" in source
    assert "Requested pairs" in source
    assert "The first seeds of the best 5 configurations" in source
    assert source.count("<tr>") == 3 + 1 + 10 + 3  # heads; the requested pair, five, three of the other ranking


def test_the_script_is_given_what_the_runs_answered(page):
    file, shown = page
    (answers,) = re.findall(r'<script id="answers" type="application/json">(.*?)</script>', file.read_text(), re.DOTALL)
    embedded, runs = json.loads(answers), [one.run for one in compare_mcnemar.listed(shown.rankings)]
    assert len(embedded["runs"]) == 45
    assert [one["n"] for one in embedded["faces"]] == [400, 300]
    assert embedded["faces"][0]["quantile"] == pytest.approx(1.96593, abs=1e-4)
    bits = [np.frombuffer(base64.b64decode(one["bits"]), np.uint8) for one in embedded["runs"]]
    for run, one, packed in zip(runs, embedded["runs"], bits, strict=True):
        count = embedded["faces"][one["faces"]]["n"]
        assert np.array_equal(np.unpackbits(packed)[:count].astype(bool), run.correct)
    # what the script counts: ones of a & ~b, the bits beyond the last face being 0 in both
    only_first = int(np.unpackbits(bits[0] & ~bits[1]).sum())
    assert only_first == mcnemar(runs[0].correct, runs[1].correct).first
    menus = re.findall(r'<option value="(\d+)"', file.read_text())
    assert menus == [str(number) for number in range(45)] * 2


def test_every_line_and_dot_can_be_picked_out(page):
    source = page[0].read_text()
    curves = section(source, "curves")
    for number in range(1, CONFIGURATIONS + 1):
        key = f"r1g{number}"
        ids = re.findall(rf'<g id="([^"]*)-{key}">', curves)
        assert len([name for name in ids if name.startswith("mean-")]) == 2  # accuracy, loss
        assert len([name for name in ids if name.startswith("seed")]) == 6
        assert f'data-group="{key}"' in curves
    assert re.search(r'-r1g9"><title>lr 0\.005, note &lt;b&gt;1&lt;/b&gt;</title>', curves)


def test_names_from_a_strangers_configuration_are_escaped(page):
    source = page[0].read_text()
    assert "<b>1</b>" not in source
    assert "&lt;b&gt;1&lt;/b&gt;" in source
    assert "no <metrics>" not in source


def test_nothing_is_said_of_other_splits(page):
    words = outline(page[0]).text.lower()
    assert "on test" not in words
    assert "test split" not in words


def test_one_run_alone_has_a_page(tmp_path):
    shown = comparison(made(1, 0, epochs=1))
    compare_page.write(shown, tmp_path)
    parsed = outline(tmp_path / "compare.html")
    assert "differences" not in parsed.ids
    assert "cost" not in parsed.ids
    assert "1 run side by side" in parsed.text
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == {"accuracy_by_epoch", "loss_by_epoch"}


def test_a_run_of_another_ranking_and_one_beside_the_page_can_be_asked_for(tmp_path):
    shown = comparison(made(1, 0), pairs=[(made(1, 0), made(2, 0))])
    compare_page.write(shown, tmp_path)
    text = outline(tmp_path / "compare.html").text
    assert re.search(r"one configuration, seed 0\s+runs/2-0", text)


def figures():
    lines = [compare_figures.Line(f"r1g{n}", n - 1, [[0.1 * n % 0.7, 0.5 + 0.001 * n, 0.6]] * 3) for n in range(1, 31)]
    points = [
        compare_figures.Point(f"r1g{n}", n - 1, [1e4 * n, 1.1e4 * n], [0.5, 0.5 + 0.001 * n]) for n in range(1, 31)
    ]
    with plotting.style():
        return {
            "courses": compare_figures.overlaid("courses", lines, shares=True),
            "costs": compare_figures.accuracy_by_cost("costs", points, "parameters"),
            "one cost": compare_figures.accuracy_by_cost(
                "one", [compare_figures.Point("r1g1", 0, [500.0], [0.5])], "memory"
            ),
            "one epoch": compare_figures.overlaid("epoch", [compare_figures.Line("r1g1", 0, [[2.0]])], shares=False),
        }


def test_no_text_sticks_out_of_a_figure_or_lies_on_another():
    for name, figure in figures().items():
        plotting.pixels(figure)
        renderer, hidden = figure.canvas.get_renderer(), unseen(figure)
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in hidden]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()]
        for words, box in boxes:
            inside = (
                box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1
            )
            assert inside, f"{name}: {words!r} sticks out"
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert not (over[0] > 2 and over[1] > 2), f"{name}: {one!r} lies on {other!r}"


@pytest.mark.renders
def test_every_colour_of_a_figure_follows_the_theme():
    for name, figure in figures().items():
        left = set(re.findall(r"(?<=: )#[0-9a-f]{6}", themed(plotting.svg(figure, name))))
        assert not left, f"{name}: {left} would stay the same in the dark"


def test_a_mean_ends_where_the_first_seed_ended():
    line = compare_figures.Line("k", 0, [[0.1, 0.2, 0.6], [0.3, 0.4]])
    assert line.mean == pytest.approx([0.2, 0.3])
