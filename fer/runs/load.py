"""Reading finished runs from their folders, and their evaluations on test."""

import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.config.settings import Config, leaves
from fer.metrics import results as metrics_json
from fer.metrics.results import Results
from fer.runs import predictions, ranking, run_folder, stored
from fer.runs.metrics import RunMetrics
from fer.runs.ranking import OnTest, Run, Setting
from fer.system import records
from fer.system.files import read_history, read_json, read_list, readable
from fer.system.records import Json

# data are compared by their fingerprint and the scored faces, not by these keys
DATA_KEYS = (
    "path", "votes", "labels", "ferplus_rule", "classes", "split", "split_seed", "val_fraction", "folds", "fold",
    "image_size", "on_bad", "synthetic_count", "synthetic_seed",
)  # fmt: skip
NEEDED = ("n", "accuracy", "macro_f1", "balanced_accuracy", "nll", "ece", "seed", "best_epoch")  # for any ranking
SHARES = ("accuracy", "macro_f1", "balanced_accuracy", "ece")  # of these
COSTS = ("parameters", "train_seconds", "images_per_second")  # metrics that older runs lack
APART = {"seed", *(f"data.{key}" for key in DATA_KEYS)}  # keys that do not distinguish configurations
KINDS = (  # section of metrics.json, facts in it that older runs may lack, their types
    ("", ("split", "architecture", "commit", "finished"), str | None),
    ("", ("n", "seed", "best_epoch", "epochs"), int | None),
    ("dataset.", ("fingerprint", "name", "split", "labels"), str | None),
    ("dataset.", ("fold", "folds", "split_seed"), int | None),
    ("hardware.", ("gpu", "cpu"), str | None),
    ("hardware.", ("threads",), int | None),
    ("pretrained.", ("name",), str | None),
)


@dataclass(frozen=True)
class Gathered:
    """The runs that were read, and the folders that were skipped.

    Args:
        runs: finished runs with sound files.
        skipped: folder -> reason.
    """

    runs: Sequence[Run]
    skipped: Mapping[Path, str]


def gather(paths: Iterable[Path]) -> Gathered:
    """Read the finished runs at or below ``paths``, each once; report unfinished and unreadable ones as skipped.

    Raises:
        FerError: a path does not exist or contains no finished run, or no run can be read.
    """
    paths = list(paths)
    folders = {folder.resolve(): folder for folder in run_folder.find(paths)}
    runs, skipped = [], run_folder.unfinished(paths)
    for folder in folders.values():
        try:
            runs.append(load(folder))
        except FerError as error:
            skipped[folder] = str(error).removeprefix(f"{folder}{os.sep}")
    if not runs:
        raise FerError(f"none of {len(skipped)} runs can be read; the first: {next(iter(skipped.values()))}")
    return Gathered(runs, skipped)


def load(folder: Path) -> Run:
    """Return a finished run.

    Raises:
        FerError: a file is missing or damaged, or its metrics are not those of val.
    """
    metrics = _metrics(folder / "metrics.json")
    config, choices, overridden = _configuration(folder)
    # an older run lacks newer keys, whose defaults are what it did
    computed = run_folder.computed_settings(run_folder.DEFAULTS | dict(leaves(config)))
    settings = {key: plain(value) for key, value in computed.items() if key not in APART}
    history = _history(folder / "history.csv")
    with readable(folder / "metrics.json"):  # values that no run writes
        if excluded := metrics.dataset.excluded:  # compared by the excluded rows, not by the file's name only
            settings["data.exclude"] = f"{Path(excluded.file).name}, {excluded.rows_sha256[:8]}"
        digest, correct = _correct(folder / "predictions.csv", metrics)
        of_first = computed.get("data.val_of") == "first"  # missing at its default
        setting = _setting(metrics, computed["data.image_size"], digest, of_first=of_first)
    return Run(folder, settings, choices, overridden, metrics, setting, history, correct)


def evaluations_on_test(run: Path) -> OnTest:
    """Return the metrics of all evaluations of a run on its test split, in their order.

    Raises:
        FerError: the folder is no finished run, or its test split was not opened.
    """
    if not (run / "metrics.json").is_file():
        raise FerError(f"--test {run}: no finished run (it has no metrics.json)")
    evaluations = []
    for file in (run / "evaluations").glob("*/metrics.json"):
        with readable(file):
            contents = read_json(file)
            if contents["split"] == "test" or contents.get("test_opened") is not None:  # under whatever name
                evaluations.append((file, metrics_json.of(contents)))
    evaluations.sort(key=lambda pair: (pair[1].test_opened or 0, str(pair[1].machine.finished), pair[0]))
    elsewhere = _recorded_elsewhere(run, {str(results.machine.finished) for _, results in evaluations})
    if not evaluations and not elsewhere:
        raise FerError(
            f"--test {run}: its test split was not opened; python -m fer.evaluate {shlex.quote(str(run))} --split test"
        )
    rows = []
    for file, results in evaluations:
        with readable(file):
            rows.append(_test_row(file.parent.name, results))
    rows += elsewhere
    heads = ["evaluation", "number", "data", "views", "faces", "accuracy", "95 %", "clean", "macro-F1", "NLL", "ECE"]
    return OnTest(f"Test evaluations of the chosen run {run}", (heads, rows))


@dataclass(frozen=True)
class _Opened:
    """The part of an entry of ``test_opened.json`` that is read here."""

    when: str | None = None
    data: str | None = None
    labels: str | None = None
    networks: int | None = None
    tta: str = "-"
    accuracy: float = math.nan
    as_baseline: bool | None = None


def _recorded_elsewhere(run: Path, here: set[str]) -> list[list[str]]:
    """Return a row for each test evaluation in another folder: of an ensemble, as a baseline, or with --out."""
    file = run / "test_opened.json"
    rows = []
    for number, entry in enumerate(read_list(file) if file.exists() else [], start=1):
        with readable(file):
            opened = records.read(_Opened, entry)
            accuracy = "-" if math.isnan(opened.accuracy) else f"{100 * opened.accuracy:.2f} %"
        if str(opened.when) not in here:
            where = "in another folder" if opened.networks == 1 else f"of {opened.networks} networks"
            where = "as a baseline" if opened.as_baseline else where
            data = _data_in_words(opened.data, opened.labels)
            rows.append([where, str(number), data, opened.tta, "-", accuracy, *["-"] * 5])
    return rows


def _data_in_words(path: str | None, labels: str | None) -> str:
    """Return the name of a data set's file or folder, and its labels where they are not of the same name."""
    name = Path(path).name if path else "-"
    return name if labels in (None, Path(name).stem) else f"{name}, {labels}"


def _test_row(name: str, results: Results) -> list[str]:
    """Return the row of an evaluation on test."""
    metrics, clean = results.metrics, results.clean
    interval = metrics["accuracy"].ci95
    return [
        name,
        "-" if results.test_opened is None else str(results.test_opened),
        _data_in_words(results.dataset.path or results.dataset.name, results.dataset.labels),
        results.tta,
        f"{results.scores.n:,}",
        f"{100 * metrics['accuracy'].number:.2f} %",
        "-" if interval is None else ranking.interval_text(interval),
        f"{100 * clean.accuracy.number:.2f} %" if clean else "-",
        f"{100 * metrics['macro_f1'].number:.2f} %",
        f"{metrics['nll'].number:.4f}",
        f"{metrics['ece'].number:.4f}",
    ]


def plain(value: Any) -> Any:
    """Return a setting's value with whole floats as integers, so that 0 and 0.0 are equal as text."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _metrics(file: Path) -> RunMetrics:
    """Return a run's metrics, after a check of those that every ranking needs."""
    with readable(file):
        contents: Json = read_json(file)
        for name in (*NEEDED, *(name for name in COSTS if name in contents)):
            if not math.isfinite(contents[name]):
                raise ValueError(f"{name} is {contents[name]}")
        if wrong := next((name for name in SHARES if not 0 <= contents[name] <= 1), None):
            raise ValueError(f"{wrong} is {contents[wrong]}, no share from 0 to 1")
        _check_kinds(contents)
        if not all(math.isfinite(values["recall"]) for values in contents["per_class"].values()):
            raise ValueError("a recall is no number")
        if "fingerprint" not in contents["dataset"]:
            raise KeyError("fingerprint")
        metrics = records.read(RunMetrics, contents)
    if metrics.split != "val":
        raise FerError(f"{file}: has metrics of {metrics.split}; only metrics of val are compared")
    return metrics


def _check_kinds(metrics: Json) -> None:
    """Raise unless the facts about a run that rankings and pages show are texts and numbers.

    Raises:
        ValueError: naming the fact.
    """
    sections: dict[str, Json] = {"": metrics}
    for name in ("dataset", "hardware", "pretrained"):
        sections[f"{name}."] = metrics.get(name) or {}
        if not isinstance(sections[f"{name}."], dict):
            raise ValueError(f"{name} is no mapping")
    for prefix, names, kinds in KINDS:
        for name in names:
            if not isinstance(sections[prefix].get(name), kinds):
                raise ValueError(f"{prefix}{name} is {str(sections[prefix][name])[:40]!r}")


def _configuration(folder: Path) -> tuple[Config, dict[str, str], frozenset[str]]:
    """Return a run's configuration, its choices, and the keys and groups on its command line."""
    config = run_folder.configuration_of(folder)
    choices = {group: choice or "none" for group, choice in stored.choices(folder).items() if "/" not in group}
    overridden = frozenset(str(given).partition("=")[0] for given in stored.stored(folder, "overrides.yaml") or ())
    return config, choices, overridden


def _history(file: Path) -> list[dict[str, float]]:
    """Return the rows of ``history.csv``, one for each epoch."""
    with readable(file):
        history = read_history(file)
        if not all(math.isfinite(row[name]) for row in history for name in ("accuracy/val", "loss/val")):
            raise ValueError("a metric is no number")
    if not history:
        raise FerError(f"{file}: has no epoch")
    return history


def _correct(file: Path, metrics: RunMetrics) -> tuple[str, NDArray[np.bool_]]:
    """Return the digest of the scored faces, and (N,) whether the run is right on each, in the order of their rows."""
    predicted, count = predictions.read(file), metrics.scores.n
    targets, order = np.array(predicted.targets), np.argsort(predicted.rows)
    correct = (targets == np.array(predicted.answers))[order]
    expected = round(metrics.accuracy * count)
    if len(correct) != count or int(correct.sum()) != expected:
        recorded = f"but metrics.json has {expected:,} of {count:,}"
        raise FerError(f"{file}: has {int(correct.sum()):,} of {len(correct):,} faces right, {recorded}")
    return ranking.digest(predicted.rows[order], targets[order].tolist()), correct


def _setting(metrics: RunMetrics, size: int, digest: str, *, of_first: bool = False) -> Setting:
    """Return the facts that two runs must share to be ranked together.

    Args:
        metrics: of the run.
        size: side of the faces in pixels.
        digest: of the rows and labels of the scored faces.
        of_first: whether val is that of the first of several data sets alone, as of a run on that set alone.
    """
    dataset = metrics.dataset
    if of_first and dataset.sets:
        dataset = dataset.sets[0]
    rule = dataset.split
    return Setting(
        data=f"{dataset.name} at {size}x{size}",
        fingerprint=dataset.fingerprint,
        labels=dataset.labels,
        classes=tuple(metrics.scores.per_class),
        stand_in=bool(metrics.dataset.stand_in),
        split=f"folds, fold {dataset.fold} of {dataset.folds}" if rule == "folds" else rule,
        scored=metrics.split,
        faces=metrics.scores.n,
        digest=digest,
        split_seed=None if rule == "official" else dataset.split_seed,
    )


def paired(first: Path, second: Path) -> tuple[Run, Run]:
    """Return two runs for a paired test.

    Raises:
        FerError: a run cannot be read, or the two were not scored on the same faces.
    """
    for folder in (first, second):
        if not folder.is_dir():
            raise FerError(f"--pair {first} {second}: {folder}: no such folder")
    if first.resolve() == second.resolve():
        raise FerError(f"--pair {first} {second}: the same run twice; name two")
    runs = load(first), load(second)
    if not runs[0].same_faces(runs[1]):
        facts = ranking.differing([run.setting for run in runs])
        differences = "; ".join(f"{name}: {' and '.join(texts)}" for name, texts in facts.items())
        raise FerError(f"--pair {first} {second}: a paired test needs runs scored on the same faces ({differences})")
    return runs


def left_out(gathered: Gathered) -> list[str]:
    """Return lines of text: the number of skipped folders, then each folder with its reason."""
    if not gathered.skipped:
        return []
    reasons = [f"  {folder}: {reason}" for folder, reason in gathered.skipped.items()]
    return [f"Left out: {len(gathered.skipped):,}", *reasons]
