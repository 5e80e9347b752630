"""The pages in ``docs/`` tell the truth: their commands run, their pictures and links are there."""

import csv
import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
import yaml
from conftest import settings_of_first_job, training_commands
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, f1_score
from torchmetrics.functional.classification import multiclass_calibration_error

import fer
from fer.config.hydra import with_folder
from fer.data.labels import EMOTIONS
from fer.inference.ensemble import fitted_weights
from fer.metrics.classification import paired
from fer.metrics.statistics import holm, paired_difference, wilson
from fer.metrics.table import SAMPLED
from fer.models import MODELS, create
from fer.runs.predictions import read as read_predictions
from fer.training.model_table import multiply_adds

DOCS = Path(fer.__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CONF = DOCS.parent / "conf"
macro_f1_score = partial(f1_score, average="macro", zero_division=0)

pytestmark = pytest.mark.skipif(not PAGES, reason="runs from a checkout")


RUN = [page for page in PAGES if "```bash" in page.read_text()]  # ```sh is what takes hours or wants FER2013


def commands(page: Path) -> list[list[str]]:
    """The command lines and Python blocks of a page, in their order, but for what stays open until it is closed."""
    found: list[list[str]] = []
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", page.read_text(), re.DOTALL):
        if language == "python":
            found.append(["python", "-c", block])
        else:
            lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
            found += [line for line in lines if line and line[0] != "tensorboard"]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_a_page_opens_with_its_summary(page):
    """A heading, then one to four lines of summary in one paragraph, or in as many sentences."""
    heading, summary = page.read_text().split("\n\n")[:2]
    assert re.fullmatch(r"# .+", heading)
    assert 2 <= len(summary.splitlines()) <= 4
    assert 2 <= len(re.findall(r"[.?](?:\s|$)", summary)) <= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_prose_is_narrow(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for line in prose.splitlines():
        assert len(line) < 100 or line.startswith(("|", "![")), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_pictures_are_there(page):
    for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text()):
        with Image.open(page.parent / target) as picture:
            picture.verify()
        assert (page.parent / target).stat().st_size < 300_000, target


def test_every_picture_is_shown():
    pages = [*PAGES, DOCS.parent / "README.md"]
    shown = {Path(name).name for page in pages for name in re.findall(r"\]\(\S*(pictures/[^)]+)\)", page.read_text())}
    assert shown == {file.name for file in (DOCS / "pictures").iterdir()}


@pytest.mark.renders
def test_the_picture_of_accuracies_is_of_the_files(tmp_path):
    """Matplotlib notes each text that it draws, so that numbers can be compared across its versions."""
    spec = spec_from_file_location("draw_accuracy", DOCS / "draw_accuracy.py")
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    script.draw(tmp_path / "accuracy.svg")
    drawn, kept = (
        re.findall(r"<!-- (.*?) -->", file.read_text())
        for file in (tmp_path / "accuracy.svg", DOCS / "pictures" / "accuracy.svg")
    )
    assert drawn == kept
    best = json.loads((DOCS / "results" / "best_cpu" / "test_ten_crop.json").read_text())
    assert f"best/cpu: {100 * best['accuracy']:.2f} %" in kept
    assert (DOCS / "pictures" / "accuracy.svg").stat().st_size < 100_000


def spelled(value):
    """A value as the command line and ``docs/settings.md`` spell it."""
    if isinstance(value, list):
        return f"[{','.join(map(spelled, value))}]"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def defaults(file):
    """Dotted key -> default of a file of ``conf/``, spelled."""
    contents = yaml.safe_load((CONF / file).read_text()) or {}
    return {key: spelled(value) for key, value in flat(contents) if key.partition(".")[0] not in ("defaults", "hydra")}


def flat(values, prefix=""):
    """Dotted key and value of each leaf; an empty mapping is one."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_the_tables_of_keys_are_those_of_conf():
    text = (DOCS / "settings.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| .+ \|$", text, re.MULTILINE)
    groups = {
        "data": "fer2013",
        "augment": "none",
        "trainer": "auto",
        "logger": "tensorboard",
        "sweep": "none",
    }
    expected = defaults("config.yaml") | defaults("tune.yaml")
    expected |= {f"logger.{key}": value for key, value in defaults("logger/none.yaml").items()}
    for group, name in groups.items():
        expected |= {f"{group}.{key}": value for key, value in defaults(f"{group}/{name}.yaml").items()}
    assert len(listed) == len(dict(listed))
    assert dict(listed) == expected, "docs/settings.md has a row for each key of conf/, with its default"


@pytest.mark.parametrize("group", ["model", "optimizer", "scheduler", "loss"])
def test_the_tables_of_named_choices_are_those_of_conf(group):
    text = (DOCS / "settings.md").read_text()
    (table,) = re.findall(rf"^\| `{group}=` \|.*\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    listed = {row[0]: dict(cell.split("=", 1) for cell in row[1:]) for row in map(marked, table.splitlines())}
    expected = {file.stem: defaults(f"{group}/{file.name}") for file in (CONF / group).glob("*.yaml")}
    for name, keys in expected.items():
        assert keys.pop("name") == name
    assert listed == expected, f"docs/settings.md has a row for each file of conf/{group}/, with its keys and defaults"


@pytest.mark.parametrize(
    ("names", "page"),
    [
        ([file.stem for file in (CONF / "model").glob("*.yaml") if file.stem != "timm"], "recipes.md"),
        ([*SAMPLED, "ece", "ece_adaptive"], "run-folder.md"),
    ],
    ids=["networks", "metrics"],
)
def test_every_network_and_metric_has_a_row(names, page):
    rows = [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in marked(row.split("|")[1])}
    assert not set(names) - listed, f"a table of docs/{page} has a row for each"


def marked(line):
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", line)


def test_the_table_of_groups_is_that_of_conf():
    text = (DOCS / "settings.md").read_text()
    (table,) = re.findall(r"^\| group \| choices \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    listed = {row[0]: sorted(row[1:]) for row in map(marked, table.splitlines())}
    assert listed == {
        folder.relative_to(CONF).as_posix(): sorted(
            file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")
        )
        for folder in (*CONF.iterdir(), CONF / "hydra" / "launcher")
        if folder.is_dir() and folder.name != "hydra"
    }


def sweep(name):
    """The rows of a kept sweep: of the faces of val with what each run predicted, and of the runs."""
    folder = DOCS / "results" / name
    with gzip.open(folder / "predicted.csv.gz", "rt", newline="") as stream:
        return list(csv.DictReader(stream)), list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))


def test_precisions_on_the_page_are_those_of_the_predictions():
    faces, runs = sweep("precision_cpu")
    by_kind = defaultdict(list)
    for run in runs:
        column = "_".join(run[name] for name in ("network", "precision", "seed"))
        by_kind[run["network"], run["precision"]].append(100 * mean(face["target"] == face[column] for face in faces))
        assert by_kind[run["network"], run["precision"]][-1] == pytest.approx(100 * float(run["accuracy"]))
    page = (DOCS / "performance.md").read_text()
    for network in ("resnet9", "cnn"):
        full, half = by_kind[network, "32"], by_kind[network, "bf16"]
        gaps = [b - a for a, b in zip(full, half, strict=True)]
        columns = [
            *(f"{mean(values):.2f} ± {stdev(values):.2f} %" for values in (full, half)),
            ", ".join(f"{gap:+.2f}" for gap in gaps),
            f"{mean(gaps):+.2f} ± {stdev(gaps):.2f}",
        ]
        assert f"| {' | '.join(columns)} |" in page


def losses():
    """The classes of the faces of val, and each run of the losses' sweep -> its probabilities."""
    faces, runs = sweep("losses")
    chances = {
        run["run"]: np.array([[float(face[f"{run['run']}_{label}"]) for label in EMOTIONS] for face in faces])
        for run in runs
    }
    return np.array([EMOTIONS.index(face["target"]) for face in faces]), runs, chances


def test_an_ensemble_on_the_page_is_that_of_its_networks_predictions():
    names = [f"cnn_seed{seed}" for seed in range(3)]
    kept = [read_predictions(DOCS / "results" / name / "val.csv.gz") for name in names]
    predicted, labels = (
        np.stack([each.probabilities for each in kept]),
        np.array([EMOTIONS.index(name) for name in kept[0].targets]),
    )
    page = (DOCS / "evaluation.md").read_text()
    gains = [paired(predicted.mean(0), alone, labels, None) for alone in predicted]
    for seed, gain in enumerate(gains):
        cells = [
            f"{100 * each.difference:+.2f} [{100 * each.ci95.low:+.2f}, {100 * each.ci95.high:+.2f}]"
            for each in (gain.differences[name] for name in ("accuracy", "macro_f1"))
        ]
        assert f"| seed {seed} | {cells[0]} | {gain.mcnemar.p:.3f} | {cells[1]} |" in page
    losses = [gain.differences["nll"] for gain in gains]
    assert f"{-max(each.difference for each in losses):.3f} to\n{-min(each.difference for each in losses):.3f}" in page
    assert all(each.ci95.high < 0 for each in losses)
    weights = fitted_weights(predicted, labels)
    right = (np.tensordot(weights, predicted, 1).argmax(1) == labels).mean()
    assert f"{100 * right:.2f} % for the ensemble's" in page
    assert "{:.2f}, {:.2f} and {:.2f}".format(*weights) in page


def test_losses_on_the_page_are_those_of_the_predictions():
    labels, runs, chances = losses()
    right = {name: (each.argmax(1) == labels)[None] for name, each in chances.items()}
    best = max(right, key=lambda name: right[name].mean())
    pairs = list(combinations(right, 2))
    tests = [paired_difference(right[one], right[other]).p for one, other in pairs]
    adjusted = {frozenset(pair): p for pair, p in zip(pairs, holm(tests), strict=True)}
    page = (DOCS / "evaluation.md").read_text()
    for run in runs:
        name, answers = run["run"], chances[run["run"]].argmax(1)
        cells = [f"{100 * right[name].mean():.2f} %", ""]
        if name != best:
            gap = paired_difference(right[name], right[best])
            star = " *" if adjusted[frozenset((name, best))] < 0.05 else ""
            low, high = (100 * end for end in gap.interval)
            cells[1] = f"{100 * gap.value:+.2f} [{low:+.2f}, {high:+.2f}]{star}"
        cells += [f"{100 * metric(labels, answers):.2f} %" for metric in (macro_f1_score, balanced_accuracy_score)]
        own, said = labels == EMOTIONS.index("disgust"), answers == EMOTIONS.index("disgust")
        hits = int((own & said).sum())
        low, high = wilson(hits, int(own.sum()))
        cells.append(f"{100 * hits / own.sum():.1f} % [{100 * low:.0f}, {100 * high:.0f}]")
        cells.append(f"{100 * hits / said.sum():.1f} %" if said.any() else "-")
        ece = multiclass_calibration_error(torch.from_numpy(chances[name]), torch.from_numpy(labels), 7, n_bins=15)
        cells.append(f"{float(ece):.3f}")
        assert f"| {' | '.join(cells)} |" in page, run["settings"]
        assert float(run["accuracy"]) == pytest.approx(right[name].mean(), abs=1e-6)


def test_the_short_trainings_on_the_page_are_those_of_the_predictions():
    """Schedules and augmentations in eight epochs."""
    faces, runs = sweep("eight_epochs")
    right = {run["run"]: np.array([[face[run["run"]] == face["target"] for face in faces]]) for run in runs}
    page, augmentations = (DOCS / "study.md").read_text(), ("none", "basic", "strong")
    for run in runs:
        assert float(run["accuracy"]) == pytest.approx(right[run["run"]].mean(), abs=1e-6)
    schedules = list(dict.fromkeys(run["run"].partition("_")[0] for run in runs))
    for schedule in schedules:
        cells = [f"{100 * right[f'{schedule}_{name}'].mean():.2f} %" for name in augmentations]
        assert f"| `scheduler={schedule}` | {' | '.join(cells)} |" in page
    for weaker, stronger in (("none", "basic"), ("none", "strong")):
        gap = paired_difference(right[f"none_{stronger}"], right[f"none_{weaker}"])
        low, high = (100 * end for end in gap.interval)
        assert f"`augment={stronger}` {100 * gap.value:+.2f} [{low:+.2f}, {high:+.2f}]" in " ".join(page.split())
    pairs = [
        paired_difference(right[f"{one}_{name}"], right[f"{other}_{name}"]).p
        for name in augmentations
        for one, other in combinations(schedules, 2)
    ]
    assert f"the smallest of {len(pairs)} p is {min(holm(pairs)):.2f}" in " ".join(page.split())


def test_the_ingredients_on_the_page_are_those_of_the_predictions():
    """The fast recipe without one of its settings."""
    faces, runs = sweep("ingredients")
    right = defaultdict(list)  # change -> a list for each seed
    for run in runs:
        correct = [face[run["run"]] == face["target"] for face in faces]
        assert float(run["accuracy"]) == pytest.approx(mean(correct), abs=1e-6)
        right[run["run"].rpartition("_")[0]].append(correct)
    page = (DOCS / "performance.md").read_text().partition("### What each ingredient brings")[2].partition("\n## ")[0]
    stated = [row.strip("| ").split(" | ")[1:] for row in page.splitlines() if row.startswith("| ")][1:]
    expected = []
    for name, seeds in right.items():
        gap = paired_difference(np.array(seeds), np.array(right["recipe"]))
        low, high = (100 * end for end in gap.interval)
        interval = [] if name == "recipe" else [f"{100 * gap.value:+.2f} [{low:+.2f}, {high:+.2f}]"]
        expected.append([", ".join(f"{100 * mean(correct):.2f}" for correct in seeds) + " %", *interval])
    assert sorted(stated) == sorted(expected)


def test_the_costs_of_networks_on_the_pages_are_counted():
    page = (DOCS / "recipes.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \| ([\d,.]+) \|", page, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(MODELS.names()) - {"timm"}
    for name, *stated in rows:
        network = create({"name": name}, image_size=48)
        assert stated == [f"{network.parameter_count:,}", f"{multiply_adds(network) / 1e6:,.1f}"], name
        summary = " ".join(sys.modules[type(network).__module__].__doc__.split())
        if "multiply-adds" in summary:
            assert f"{stated[1]} million multiply-adds" in summary or f"{float(stated[1]):.1f} million" in summary, name
    recipes = ("best/cpu", "best/tiny", "speedrun/70", "best/single")
    networks = [create(settings_of_first_job([f"experiment={name}"]).model, image_size=48) for name in recipes]
    costs = " | ".join(f"{multiply_adds(network) / 1e6:,.0f}" for network in networks)
    assert f"| multiply-adds a face, million | {costs} |" in page


def test_an_ensemble_of_files_is_as_the_page_makes_it(monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "recipes.md").read_text(), re.DOTALL)
    made: dict = {}
    exec(block, made)  # a reader pastes it
    kept = json.loads((DOCS / "results" / "cpu_ensemble" / "test_ten_crop.json").read_text())
    assert made["results"]["accuracy"] == kept["accuracy"]
    assert [each["weight"] for each in made["results"]["members"]] == [each["weight"] for each in kept["members"]]


@pytest.mark.parametrize("recipe", ["best/cpu", "best/tiny"])
def test_the_metrics_of_a_recipe_are_of_what_it_is_now(recipe):
    """A recipe that is changed has to be measured again, or its figures leave the page."""
    recorded = json.loads((DOCS / "results" / recipe.replace("/", "_") / "val.json").read_text())
    ran, is_now = (
        asdict(settings_of_first_job(arguments))
        for arguments in (shlex.split(recorded["command"])[3:], [f"experiment={recipe}"])
    )
    for settings in (ran, is_now):
        settings["trainer"].pop("threads")
        settings["distill"]["teachers"] = len(settings["distill"]["teachers"] or recorded.get("teachers", []))
    assert ran == is_now
    assert recorded["epochs"] == is_now["trainer"]["max_epochs"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_training_command_composes(page):
    for arguments in training_commands(page.read_text()):
        if "plugins=" in " ".join(arguments) or "--config-dir" in arguments:  # tests/test_readme.py, tests/test_tune.py
            continue
        rest = with_folder(arguments, "hydra.sweep.dir" if "-m" in arguments else "hydra.run.dir")
        settings_of_first_job([text for text in rest if text not in ("--info", "models")])


def shortened(line):
    """A command line with fewer faces, epochs and seeds, and smaller faces where no network is trained."""
    less = {"data.synthetic_count": 350, "trainer.max_epochs": 2, "seed": 0}
    parts = [(text, text.partition("=")[0]) for text in line]
    smaller = ["data.image_size=24"] if {"--info", "lr_finder=true"} & set(line) else []
    return [f"{key}={less[key]}" if key in less else text for text, key in parts] + smaller


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(page, tmp_path):
    """In order, in an empty folder, as a reader would; what a page says that it finds there, is there.

    Trainings are shorter, and the terminal knows no letter beyond ASCII.
    """
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    variables = os.environ | {"PATH": path, "PYTHONIOENCODING": "ascii"}
    for line in map(shortened, commands(page)):
        command = [sys.executable if line[0] == "python" else line[0], *line[1:]]
        ended = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        output = ended.stdout + ended.stderr
        assert ended.returncode == 0, f"{shlex.join(line)}\n{output[-3000:]}"
        assert "Traceback" not in output
    named = re.findall(r"`(outputs/[\w/.-]+)`", page.read_text())
    assert named
    missing = [name for name in named if not (tmp_path / name).exists()]
    assert not missing


def test_the_values_of_the_export_are_those_that_were_measured():
    page = (DOCS / "export.md").read_text()
    kept = json.loads((DOCS / "results" / "export.json").read_text())
    val, shown = kept["int8"]["val"], [f"{size:,}" for size in kept["bytes"].values()]
    shown += [f"{100 * value:.2f} %" for value in (*val["accuracy"], val["equal"], kept["int8"]["equal"])]
    shown += [f"{value:.4f}" for value in val["nll"]] + [f"{kept['float32']['largest_difference']:.1e}"]
    rows = [
        f"| {speed['batch']} | {' | '.join(f'{value:,.0f}' for value in speed['faces_per_second'].values())} |"
        for speed in kept["speeds"]
    ]
    starts = [f"{kept['starts']['.onnx']['wall']:.1f} s after the start of the command"]
    starts.append(f"with PyTorch {kept['starts']['tiny']['wall']:.1f} s")
    assert [value for value in (*shown, *rows, *starts) if value not in page] == []


def test_the_values_of_the_check_of_maps_are_those_that_were_measured():
    page = (DOCS / "explain.md").read_text()
    missing = []
    for name in ("occlusion", "integrated_gradients", "gradcam"):
        check = json.loads((DOCS / "results" / f"explain_{name}.json").read_text())["check"]
        for part in (check, check["imputed"]):
            rows = [f"{stated(curve['deletion_area'])} | {stated(curve['insertion_area'])}" for curve in part["curves"]]
            beside = next(one for one in part["differences"] if one["baseline"] == "blob")
            rows.append(f"{stated(beside['deletion'], '+')} | {stated(beside['insertion'], '+')}")
            missing += [row for row in rows if row not in page]
        row = f"{stated(check['randomised'][-1]['correlation'], digits=2)} | {stated(check['mirrored'], digits=2)}"
        missing += [row] * (row not in page)
    assert missing == []


WHOLE_TABLE = {  # row of docs/evaluation.md -> metric, whether it is a percentage
    "accuracy": ("accuracy", True),
    "macro-F1": ("macro_f1", True),
    "balanced accuracy": ("balanced_accuracy", True),
    "top-2 accuracy": ("top2", True),
    "Cohen's kappa": ("kappa", False),
    "ROC AUC, one-vs-rest": ("roc_auc", False),
    "average precision": ("average_precision", False),
    "NLL": ("nll", False),
    "Brier score": ("brier", False),
    "ECE, 15 bins": ("ece", False),
}
ERRORS = {  # row of docs/evaluation.md -> count of the annotators
    "the network is wrong: annotators agree with the label": "crowd_agrees_with_the_label",
    "the label is wrong: annotators agree with the network": "crowd_agrees_with_the_network",
    "both are wrong: annotators choose a third emotion": "crowd_says_another_emotion",
    "undecided: annotators are divided, or see no emotion": "crowd_is_divided",
}


def kept_of_cnn(name):
    """An evaluation of the three seeds of the default cnn, and of their ensemble."""
    folders = [*(f"cnn_seed{seed}" for seed in range(3)), "cnn_ensemble"]
    return [json.loads((DOCS / "results" / folder / f"{name}.json").read_text()) for folder in folders]


def whole_table():
    """The rows of the table of all metrics."""
    *seeds, ensemble = kept_of_cnn("test")
    flip = json.loads((DOCS / "results" / "cnn_ensemble" / "test_flip.json").read_text())
    columns = [[one] for one in (ensemble, ensemble["clean"], flip, flip["clean"])]
    columns = [seeds, [one["clean"] for one in seeds], *columns]
    for row, (metric, percent) in WHOLE_TABLE.items():
        yield row, [spread([one[metric] for one in column], percent=percent) for column in columns]
    tempered = [[one["calibrated"]["ece"] for one in column] for column in columns[::2]]
    yield "ECE with temperature", [cell for values in tempered for cell in (spread(values, percent=False), "")]


def spread(values, *, percent):
    """Values of several seeds as mean ± standard deviation, one value as it is."""
    scale, digits, unit = (100, 2, " %") if percent else (1, 3, "")
    numbers = [mean(values), *([stdev(values)] if len(values) > 1 else [])]
    return " ± ".join(f"{scale * number:.{digits}f}" for number in numbers) + unit


VIEWS = {  # row of docs/evaluation.md -> --tta
    "`none`": "none",
    "`flip`: 2 views": "flip",
    "`shifts`: the face shifted by two pixels or not, each way, mirrored too: 18 views": "shifts",
    "`ten_crop`: five crops, enlarged, mirrored too": "ten_crop",
}


def views_table():
    """The rows of the table of views: accuracies on val of the seeds and of their ensemble."""
    kept = json.loads((DOCS / "results" / "cnn_views.json").read_text())["accuracy"]
    for row, view in VIEWS.items():
        yield row, [f"{100 * value:.2f} %" for value in kept[view]]


def tables_of_annotators():
    """The rows of both tables of FER+'s annotators."""
    crowd = [one["crowd"] for one in kept_of_cnn("test")]
    for row, part in (
        ("with one annotator, drawn at random", "annotator"),
        ("with the majority, where there is one (3,137 faces)", "majority"),
    ):
        *seeds, ensemble = (f"{100 * one[part]['network']:.1f}" for one in crowd)
        best = 100 * crowd[0][part].get("best", 1)
        labels = f"{100 * crowd[0][part]['labels']:.1f} %"
        yield row, [labels, f"{', '.join(seeds)} %", f"{ensemble} %", f"{best:.1f} %" if best < 100 else "100 %"]
    errors = [one["errors"] for one in crowd]
    yield "together", [f"{one['all']:,}" for one in errors]
    for row, key in ERRORS.items():
        yield row, [f"{one[key]} ({100 * one[key] / one['all']:.1f} %)" for one in errors]


def test_the_values_of_the_evaluation_are_those_that_were_measured():
    page = (DOCS / "evaluation.md").read_text()
    lines = [line.replace("| |", "|  |") for line in page.splitlines()]
    rows = [*whole_table(), *views_table(), *tables_of_annotators()]
    assert [row for row, cells in rows if f"| {row} | {' | '.join(cells)} |" not in lines] == []
    alone = json.loads((DOCS / "results" / "cnn_views.json").read_text())["accuracy"]["none"]
    assert alone == [one["accuracy"] for one in kept_of_cnn("val")]


def test_the_values_of_another_network_are_those_that_were_measured():
    page = (DOCS / "evaluation.md").read_text()
    test = json.loads((DOCS / "results" / "resnet18" / "test.json").read_text())
    for title, name, share in (
        ("accuracy", "accuracy", True),
        ("macro-F1", "macro_f1", True),
        ("balanced accuracy", "balanced_accuracy", True),
        ("top-2 accuracy", "top2", True),
        ("Cohen's kappa", "kappa", False),
        ("ROC AUC, one-vs-rest", "roc_auc", False),
        ("average precision", "average_precision", False),
        ("NLL", "nll", False),
        ("Brier score", "brier", False),
    ):
        cells = [with_interval(part[name], part[f"{name}_ci95"], share) for part in (test, test["clean"])]
        assert f"| {title} | {' | '.join(cells)} |" in page, title
    views = json.loads((DOCS / "results" / "resnet18_views.json").read_text())["accuracy"]
    paragraph = " ".join(page[page.index("On val (") :].split("## ")[0].split())
    assert [f"{100 * value:.2f} %" in paragraph for (value,) in views.values()] == [True] * 4
    val = json.loads((DOCS / "results" / "resnet18" / "val.json").read_text())
    assert [val["accuracy"]] == views["none"]


def test_the_values_of_training_on_ferplus_are_those_that_were_measured():
    page = (DOCS / "evaluation.md").read_text()
    plain, by_fer2013 = (
        json.loads((DOCS / "results" / name / "test.json").read_text())
        for name in ("cnn_seed0", "cnn_ferplus_by_fer2013")
    )
    for row, value in (
        ("FER2013's label (3,589 faces)", lambda one: one["accuracy"]),
        (
            "one of FER+'s annotators, drawn at random (best possible 73.3 %)",
            lambda one: one["crowd"]["annotator"]["network"],
        ),
        ("the majority of them (3,137 faces)", lambda one: one["crowd"]["majority"]["network"]),
    ):
        assert f"| {row} | {100 * value(plain):.1f} % | {100 * value(by_fer2013):.1f} % |" in page
    fear = by_fer2013["per_class"]["fear"]
    assert f"finds {100 * fear['recall']:.0f} % of FER2013's fear" in page
    assert f"where FER2013 has {fear['support']} of {by_fer2013['n']:,}" in page


def with_interval(value, interval, share):
    """Write a metric with its interval as the table does: shares in per cent."""
    factor, digits = (100, 2) if share else (1, 3)
    number, low, high = (f"{factor * each:.{digits}f}" for each in (value, *interval))
    return f"{number}{' %' if share else ''} [{low}, {high}]"


def stated(estimate, sign="", digits=3):
    """Write a value with its interval as the pages do."""
    numbers = (round(number, digits) + 0.0 for number in (estimate["value"], *estimate["ci95"]))  # no -0.00
    value, low, high = (f"{number:{sign}.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]"
