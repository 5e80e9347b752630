"""Every number that README and docs state about a network is counted again from its files, or is marked as having none.

A table of results has a column ``files``. Its cells link to folders of ``docs/results/`` (several: seeds, as mean ± sd)
or hold a †. A value followed by † has no file of its own. A table without that column says † beneath it, or that
a test of its own compares it.
"""

import csv
import gzip
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

import fer
from fer.benchmarks.sets import BY_HEADS, by_emotion
from fer.benchmarks.sets import compared as compared_sets
from fer.data.labels import EMOTIONS
from fer.metrics.calibration import tempered
from fer.metrics.results import SetsRecord
from fer.metrics.statistics import wilson
from fer.reports.summary import set_rows
from fer.system.records import read

ROOT = Path(fer.__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", ROOT / "fer" / "models" / "zoo" / "README.md"]
PAGES += [ROOT / "docs" / f"{name}.md" for name in ("evaluation", "performance", "recipes", "study", "results/README")]
WITH_FILES = [page for page in PAGES if page.exists() and "| files |" in page.read_text()]
FILES = sorted(RESULTS.glob("*/*.json"))

pytestmark = pytest.mark.skipif(not RESULTS.exists(), reason="runs from a checkout")

HEADS = {  # of a column -> split, view (None: the row's), metric
    "val": ("val", None, "accuracy"),
    "val accuracy": ("val", None, "accuracy"),
    "test": ("test", None, "accuracy"),
    "test accuracy": ("test", None, "accuracy"),
    "clean test": ("test", None, "clean"),
    "test macro-F1": ("test", None, "macro_f1"),
    "macro-F1 of test": ("test", None, "macro_f1"),
    "test balanced accuracy": ("test", None, "balanced_accuracy"),
    "test NLL": ("test", None, "nll"),
    "test ECE": ("test", None, "ece"),
    "val, ten crops": ("val", "_ten_crop", "accuracy"),
    "test, single view": ("test", "", "accuracy"),
    "test, ten crops": ("test", "_ten_crop", "accuracy"),
}
VALUE = re.compile(r"(?P<value>\d+\.\d+)(?: ± (?P<sd>\d+\.\d+))?(?: %)?(?: \[(?P<low>[\d.]+), (?P<high>[\d.]+)\])?")
COMPARED = "A test compares this table with its files."  # test_docs.py does
PERCENT = re.compile(r"\d\.\d+ %")


@cache
def counted(folder, name):
    """What the predictions of an evaluation say, and what its metrics add."""
    kept = json.loads((RESULTS / folder / f"{name}.json").read_text())
    with gzip.open(RESULTS / folder / f"{name}.csv.gz", "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    targets = np.array([EMOTIONS.index(row["target"]) for row in rows])
    chances = np.array([[float(row[f"p_{label}"]) for label in EMOTIONS] for row in rows])
    assert [EMOTIONS[label] for label in chances.argmax(1)] == [row["predicted"] for row in rows]
    assert {row["split"] for row in rows} == {kept["split"]}
    return {
        "n": len(rows),
        **scored(chances, targets),
        "calibrated": scored(tempered(chances, kept["temperature"]), targets),
        "kept": kept,
    }


def scored(chances, targets):
    """The metrics, by other libraries."""
    predicted = chances.argmax(1)
    probabilities = torch.from_numpy(chances).float()
    return {
        "accuracy": accuracy_score(targets, predicted),
        "macro_f1": f1_score(targets, predicted, average="macro"),
        "balanced_accuracy": balanced_accuracy_score(targets, predicted),
        "nll": log_loss(targets, chances / chances.sum(1, keepdims=True), labels=range(len(EMOTIONS))),
        "ece": float(multiclass_calibration_error(probabilities, torch.from_numpy(targets), len(EMOTIONS), n_bins=15)),
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_metrics_are_those_of_the_predictions(file):
    counts_again = counted(file.parent.name, file.stem)
    kept = counts_again["kept"]
    of_ferplus = kept["dataset"]["labels"].startswith("ferplus")  # FER+ has no majority for some faces
    assert (
        counts_again["n"]
        == kept["n"]
        == (sum(kept["dataset"]["counts"][kept["split"]].values()) if of_ferplus else 3589)
    )
    assert file.stem == kept["split"] + ("" if kept.get("tta", "none") == "none" else f"_{kept['tta']}")
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "nll", "ece"):
        assert counts_again[name] == pytest.approx(kept[name], abs=2e-6), name
    for name, slack in (("nll", 2e-6), ("ece", 2 / 3589)):  # six digits: a face at the edge of a bin may change sides
        assert counts_again["calibrated"][name] == pytest.approx(kept["calibrated"][name], abs=slack), name


SETS = {"all": lambda targets: targets >= 0} | {
    name: lambda targets, label=label: targets == label for label, name in enumerate(EMOTIONS)
}


def sets_of(folder, name):
    """(N,) whether the prediction set of each face holds the label, its size, and the labels: counted by hand."""
    kept = json.loads((RESULTS / folder / f"{name}.json").read_text())
    covered, sizes, labels = [], [], []
    with gzip.open(RESULTS / folder / f"{name}.csv.gz", "rt", newline="") as stream:
        for row in csv.DictReader(stream):
            powers = {label: float(row[f"p_{label}"]) ** (1 / kept["temperature"]) for label in EMOTIONS}
            limit = kept["sets"]["threshold"] * sum(powers.values())
            inside = [label for label in EMOTIONS if sum(v for v in powers.values() if v > powers[label]) <= limit]
            covered.append(row["target"] in inside)
            sizes.append(len(inside))
            labels.append(EMOTIONS.index(row["target"]))
    return np.array(covered), np.array(sizes), np.array(labels)


WITH_SETS = [file for file in FILES if "sets" in json.loads(file.read_text())]


@pytest.mark.parametrize("file", WITH_SETS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_coverage_and_size_of_sets_are_those_of_the_predictions(file):
    sets = json.loads(file.read_text())["sets"]
    covered, sizes, labels = sets_of(file.parent.name, file.stem)
    for name, of in SETS.items():
        one, mask = sets["all"] if name == "all" else sets["per_class"][name], of(labels)
        slack = 1.5 / mask.sum()  # six digits: a face at the threshold may change sides
        assert one["n"] == mask.sum()
        assert one["coverage"] == pytest.approx(covered[mask].mean(), abs=slack), name
        assert one["size"] == pytest.approx(sizes[mask].mean(), abs=slack), name
        assert one["coverage_ci95"] == pytest.approx(wilson(round(one["coverage"] * one["n"]), one["n"]))
    assert sets["threshold"] == sets["thresholds"]["at"][f"{sets['promised']:.2f}"]
    if file.parent.name == "tiny":
        assert fer.load("tiny").provenance.sets.at == sets["thresholds"]["at"]


def test_what_the_page_on_predictions_states_of_sets_is_in_the_files():
    kept = json.loads((RESULTS / "tiny" / "test.json").read_text())["sets"]
    rows = {row[0]: row[1:] for row in set_rows(read(SetsRecord, kept))}
    (heads, measured, _), (_, halved, _) = [
        one for one in tables((ROOT / "docs" / "predict.md").read_text()) if one[0][0] in ("faces of test", "promised")
    ]
    assert heads[1:] == ["number", "coverage, 95 % interval", "mean size of a set"]
    stated = {row[0].partition(":")[0]: tuple(row[1:]) for row in measured}
    assert stated == {name: tuple(cell.replace("  ", " ") for cell in cells) for name, cells in rows.items()}
    counted_again = {(row[0], row[1]): f"{row[2]}, {row[4]}" for row in compared_sets(RESULTS / "tiny", 20)}
    kinds = ("of fer", "randomised", "plain, all faces")
    for row in halved:
        assert row[1:] == [counted_again[row[0], kind] for kind in kinds]


def test_both_promises_on_the_page_are_counted_from_the_predictions():
    stated = [rows for heads, rows, _ in tables((ROOT / "docs" / "predict.md").read_text()) if heads == list(BY_HEADS)]
    counted = [[cell.replace("  ", " ") for cell in row] for row in by_emotion(RESULTS / "tiny")]
    assert stated == [counted]


def test_no_file_lacks_its_predictions_and_no_path_is_absolute():
    # what the short runs of a sweep predicted lies in one file, which tests/test_docs.py counts
    packed = [file for file in sorted(RESULTS.glob("*/*.csv.gz")) if file.name != "predicted.csv.gz"]
    assert [file.with_suffix("").with_suffix("") for file in packed] == [file.with_suffix("") for file in FILES]
    for file in FILES:
        assert not re.search(r'[ "=\[](/|~/|\.\./)\w', file.read_text()), file


def tables(text):
    """Each table's heads and rows, as lists of cells, and the text that follows it."""
    for block in re.finditer(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in block[0].splitlines()]
        yield cells[0], cells[2:], text[block.end() :].lstrip()


def complaints(text, page):
    """What the tables of a page state that their files do not, and tables with neither files nor a mark."""
    found = []
    for heads, rows, after in tables(text):
        if "files" in heads:
            for row in rows:
                found += row_complaints(dict(zip(heads, row, strict=True)), page)
        elif any(PERCENT.search(cell) for row in rows for cell in row) and not after.startswith(("†", COMPARED)):
            found.append(f"neither files nor a †: {rows[0]}")
    return found


def row_complaints(row, page):
    folders = [(page.parent / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", row["files"])]
    if not folders:
        return [] if row["files"] == "†" else [f"no files and no †: {row}"]
    view = "_ten_crop" if "ten crops" in row.values() or any("ten crops" in cell for cell in row.values()) else ""
    differences = []
    for head, cell in row.items():
        stated = cell.replace("**", "")
        if head not in HEADS or not stated or stated.endswith("†"):
            continue
        split, fixed, metric = HEADS[head]
        name = split + (view if fixed is None else fixed)
        expected = in_words([counted(folder.name, name) for folder in folders], metric, stated)
        if stated != expected:
            differences.append(f"{head}: {stated!r}, counted {expected!r}")
    return differences


def in_words(evaluations, metric, stated):
    """The value of one evaluation or of several seeds, written as a page writes it."""
    shape = VALUE.match(stated)
    if shape is None:
        return "a number"
    digits = len(shape["value"].partition(".")[2])
    scale, unit = (1, "") if metric in ("nll", "ece") else (100, " %")
    kept = [record["kept"] for record in evaluations]
    values = [one["clean"]["accuracy"] for one in kept] if metric == "clean" else [one[metric] for one in evaluations]
    text = f"{scale * np.mean(values):.{digits}f}"
    if shape["sd"]:
        text += f" ± {scale * np.std(values, ddof=1):.{digits}f}"
    text += unit
    if shape["low"]:
        (value,), (n,) = values, [one["n"] for one in evaluations]
        ends = [f"{100 * end:.{len(shape['low'].partition('.')[2])}f}" for end in wilson(round(value * n), n)]
        text += f" [{', '.join(ends)}]"
    return text + (verdict(evaluations) if metric == "ece" else "")


def verdict(evaluations):
    """Whether chance alone explains the ECE, of each evaluation."""
    highs = [record["kept"]["ece_if_calibrated"] for record in evaluations]
    above = [record["ece"] > high for record, high in zip(evaluations, highs, strict=True)]
    ends = ", ".join(sorted({f"{high:.3f}" for high in highs}))
    many = "" if len(above) == 1 or all(above) or not any(above) else f" in {sum(above)} of {len(above)}"
    return f", {'above' if any(above) else 'within'} chance{many} ({ends})"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_what_a_page_states_is_in_its_files(page):
    text = page.read_text()
    assert not complaints(text, page)
    if "†" in text:
        assert re.search(r"^†: ", text, re.MULTILINE), "the mark is not explained"


def test_every_folder_stands_behind_a_row():
    linked = {
        (page.parent / link).resolve()
        for page in PAGES
        for heads, rows, _ in tables(page.read_text())
        if "files" in heads
        for row in rows
        for link in re.findall(r"\]\(([^)]+)\)", row[heads.index("files")])
    }
    assert linked == {file.parent for file in FILES}


@pytest.mark.parametrize("page", WITH_FILES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_one_digit_changed_is_reported(page):
    """Each value that has a file, with its last digit changed."""
    text, changed = page.read_text(), 0
    for heads, rows, _ in tables(text):
        for row in rows if "files" in heads else []:
            if row[heads.index("files")] == "†":
                continue
            for head, cell in zip(heads, row, strict=True):
                if head in HEADS and cell and not cell.endswith("†"):
                    for number in re.finditer(r"\d+\.\d+", cell):
                        digit = str((int(number[0][-1]) + 1) % 10)
                        wrong = f"{cell[: number.end() - 1]}{digit}{cell[number.end() :]}"
                        assert row_complaints(dict(zip(heads, row, strict=True)) | {head: wrong}, page), wrong
                        changed += 1
    assert changed


def test_the_table_of_copies_is_that_of_the_predictions():
    rows = json.loads((RESULTS / "copies_in_train.json").read_text())
    text = (ROOT / "docs" / "fer2013.md").read_text()
    for split in ("val", "test"):
        counts = [len(rows[split][kind]) for kind in ("exact", "near", "moved")]
        stated = [f"{count:,} ({100 * count / 3589:.1f} %)" for count in (*counts, sum(counts))]
        assert f"| {split}, 3,589 faces | {' | '.join(stated)} |" in text
    kinds = [set(rows["test"][kind]) for kind in ("exact", "near", "moved")]
    assert sum(map(len, kinds)) == len(set().union(*kinds))
    files = {
        "`mlp`, seed 0": "mlp_seed0/test",
        "`tiny`, ten crops": "tiny/test_ten_crop",
        "`best/cpu`, seed 0": "best_cpu/test",
        "`best/cpu`, seed 0, ten crops": "best_cpu/test_ten_crop",
    }
    for name, file in files.items():
        with gzip.open(RESULTS / f"{file}.csv.gz", "rt", newline="") as stream:
            right = {int(row["row"]): row["target"] == row["predicted"] for row in csv.DictReader(stream)}
        parts = [right.keys(), *kinds, right.keys() - set().union(*kinds)]
        shares = [f"{100 * np.mean([right[row] for row in part]):.2f} %" for part in parts]
        assert f"| {name} | {' | '.join(shares)} |" in text
