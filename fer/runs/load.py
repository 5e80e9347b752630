"""Finished runs, read from their folders."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.conf import stored
from fer.config.errors import FerError
from fer.config.settings import leaves
from fer.metrics.statistics import Interval
from fer.runs import predictions, ranking, run_folder
from fer.runs.ranking import Looks, Run, Setting
from fer.system.files import read_history, read_list, readable, why

# what the data are is told by their fingerprint and the faces scored, not by the keys that named them
DATA_KEYS = (
    "path", "votes", "labels", "ferplus_rule", "classes", "split", "split_seed", "val_fraction", "folds", "fold",
    "image_size", "on_bad", "synthetic_count", "synthetic_seed",
)  # fmt: skip
COSTS = ("parameters", "train_seconds", "images_per_second")  # which older runs may not tell
APART = {"seed", *(f"data.{key}" for key in DATA_KEYS)}  # keys that do not tell configurations apart


@dataclass(frozen=True)
class Gathered:
    """Runs that were read, and what was passed over.

    Args:
        runs: finished and sound.
        skipped: folder -> why it is left out.
    """

    runs: Sequence[Run]
    skipped: Mapping[Path, str]


def gather(paths: Iterable[Path]) -> Gathered:
    """Read the finished runs at or below ``paths``, each once; what is not finished or cannot be read is told.

    Raises:
        FerError: a path is not there or holds no finished run, or none of them can be read.
    """
    paths = list(paths)
    folders = {folder.resolve(): folder for folder in run_folder.find(paths)}
    found, skipped = [], run_folder.unfinished(paths)
    for folder in folders.values():
        try:
            found.append(load(folder))
        except FerError as error:
            skipped[folder] = str(error).removeprefix(f"{folder}{os.sep}")
    if not found:
        raise FerError(f"none of {len(skipped)} runs can be read; the first: {next(iter(skipped.values()))}")
    return Gathered(found, skipped)


def load(folder: Path) -> Run:
    """Return a finished run.

    Raises:
        FerError: a file is missing or damaged, or its figures are not those of val.
    """
    metrics = _metrics(folder / "metrics.json")
    config, choices, asked = _told(folder)
    # an older run does not name every key: it did what is the default now
    told = run_folder.told(run_folder.DEFAULTS | dict(leaves(config)))
    settings = {key: plain(value) for key, value in told.items() if key not in APART}
    if left_out := metrics["dataset"].get("excluded"):  # told by what was left out, not by the file's name alone
        settings["data.exclude"] = f"{Path(left_out['file']).name}, {left_out['rows_sha256'][:8]}"
    history = _history(folder / "history.csv")
    digest, correct = _answers(folder / "predictions.csv", metrics)
    setting = _setting(metrics, told["data.image_size"], digest)
    return Run(folder, settings, choices, asked, metrics, setting, history, correct)


def looks_at_test(run: Path) -> Looks:
    """Return what ``fer.evaluate`` found on the test split of a run, in the order of the looks.

    Raises:
        FerError: there is no such run, or its test split was not opened.
    """
    if not (run / "metrics.json").is_file():
        raise FerError(f"--test {run}: no finished run (it has no metrics.json)")
    found = []
    for file in (run / "evaluations").glob("*/metrics.json"):
        with readable(file):
            results = json.loads(file.read_text(encoding="utf-8"))
            if results["split"] == "test":
                found.append((results.get("test_opened", 0), str(results.get("finished")), file, results))
    elsewhere = _recorded_elsewhere(run, {finished for _, finished, _, _ in found})
    if not found and not elsewhere:
        raise FerError(f"--test {run}: its test split was not opened; python -m fer.evaluate {run} --split test")
    rows = []
    for _, _, file, results in sorted(found, key=lambda one: one[:3]):
        with readable(file):
            rows.append(_look(file.parent.name, results))
    rows += elsewhere
    heads = ["evaluation", "look", "views", "faces", "accuracy", "95 %", "clean", "macro-F1", "NLL", "ECE"]
    return Looks(f"Test, of the one chosen run {run}", (heads, rows))


def _recorded_elsewhere(run: Path, here: set[str]) -> list[list[str]]:
    """Return a row for each look whose evaluation lies in another folder: an ensemble's, a rival's, one with --out."""
    file = run / "test_opened.json"
    rows = []
    for number, look in enumerate(read_list(file) if file.exists() else [], start=1):
        if str(look.get("when")) not in here:
            with readable(file):
                accuracy = f"{100 * look['accuracy']:.2f} %" if "accuracy" in look else "-"
            where = "in another folder" if look.get("networks") == 1 else f"of {look.get('networks')} networks"
            rows.append([where, str(number), str(look.get("tta", "-")), "-", accuracy, *["-"] * 5])
    return rows


def _look(name: str, results: Mapping[str, Any]) -> list[str]:
    """Return the row of an evaluation on test."""
    clean = results.get("clean")
    return [
        name,
        str(results.get("test_opened", "-")),
        str(results.get("tta", "none")),
        f"{results['n']:,}",
        f"{100 * results['accuracy']:.2f} %",
        ranking.span(Interval(*results["accuracy_ci95"])),
        f"{100 * clean['accuracy']:.2f} %" if clean else "-",
        f"{100 * results['macro_f1']:.2f} %",
        f"{results['nll']:.4f}",
        f"{results['ece']:.4f}",
    ]


def plain(value: Any) -> Any:
    """Return a setting's value so that 0 and 0.0 are one."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _metrics(file: Path) -> dict[str, Any]:
    """Return a run's figures, those that every ranking needs being there."""
    with readable(file):
        metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for name in ("n", "accuracy", "macro_f1", "balanced_accuracy", "nll", "ece", "seed"):
            if not math.isfinite(metrics[name]):
                raise ValueError(f"{name} is {metrics[name]}")
        for name in ("best_epoch", *(name for name in COSTS if name in metrics)):
            if not math.isfinite(metrics[name]):
                raise ValueError(f"{name} is {metrics[name]}")
        if not isinstance(metrics.get("hardware") or {}, dict):
            raise ValueError("hardware is no mapping")
        if not all(math.isfinite(values["recall"]) for values in metrics["per_class"].values()):
            raise ValueError("a recall is no number")
        split = metrics["split"], metrics["dataset"]["fingerprint"], metrics["dataset"]["split"]
    if split[0] != "val":
        raise FerError(f"{file}: holds figures of another split than val, which alone is compared")
    return metrics


def _told(folder: Path) -> tuple[dict[str, Any], dict[str, str], frozenset[str]]:
    """Return a run's configuration, its choices, and what its command line named."""
    try:
        config = run_folder.configuration_of(folder)
        chosen = stored(folder, "hydra.yaml")["hydra"]["runtime"]["choices"]
        choices = {group: choice or "none" for group, choice in chosen.items() if "/" not in group}
        asked = frozenset(given.partition("=")[0] for given in stored(folder, "overrides.yaml"))
    except Exception as error:  # YAML's, OmegaConf's and our own: a damaged file may end in any
        raise FerError(f"{folder / '.hydra'}: cannot be read ({why(error)})") from error
    return config, choices, asked


def _history(file: Path) -> list[dict[str, float]]:
    """Return a row an epoch."""
    with readable(file):
        history = read_history(file)
        if not all(math.isfinite(row[name]) for row in history for name in ("accuracy/val", "loss/val")):
            raise ValueError("a figure is no number")
    if not history:
        raise FerError(f"{file}: holds no epoch")
    return history


def _answers(file: Path, metrics: Mapping[str, Any]) -> tuple[str, NDArray[np.bool_]]:
    """Return the digest of the faces scored, and (N,) whether the run is right on each, in the order of their rows."""
    said = predictions.read(file)
    targets, order = np.array(said.targets), np.argsort(said.rows)
    correct = (targets == np.array(said.answers))[order]
    if len(correct) != metrics["n"] or int(correct.sum()) != round(metrics["accuracy"] * metrics["n"]):
        told = f"metrics.json {round(metrics['accuracy'] * metrics['n']):,} of {metrics['n']:,}"
        raise FerError(f"{file}: has {int(correct.sum()):,} of {len(correct):,} faces right, {told}")
    return ranking.digest(said.rows[order], targets[order].tolist()), correct


def _setting(metrics: Mapping[str, Any], size: int, digest: str) -> Setting:
    """Return what must be equal for a run to be ranked with another."""
    dataset = metrics["dataset"]
    rule = dataset["split"]
    return Setting(
        data=f"{dataset.get('name', '')} at {size}x{size}",
        fingerprint=dataset["fingerprint"],
        labels=dataset.get("labels", ""),
        classes=tuple(metrics["per_class"]),
        stand_in=bool(dataset.get("stand_in")),
        split=f"folds, fold {dataset['fold']} of {dataset['folds']}" if rule == "folds" else rule,
        scored=metrics["split"],
        faces=metrics["n"],
        digest=digest,
        split_seed=None if rule == "official" else dataset.get("split_seed"),
    )


def paired(first: Path, second: Path) -> tuple[Run, Run]:
    """Return two runs that can be tested against each other.

    Raises:
        FerError: one cannot be read, or they were not scored on the same faces.
    """
    for folder in (first, second):
        if not folder.is_dir():
            raise FerError(f"--pair {first} {second}: {folder}: no such folder")
    if first.resolve() == second.resolve():
        raise FerError(f"--pair {first} {second}: the same run twice; name two")
    one, other = load(first), load(second)
    if not one.same_faces(other):
        facts, others = one.setting.facts(), other.setting.facts()
        why = "; ".join(f"{name}: {facts[name]} and {others[name]}" for name in facts if facts[name] != others[name])
        raise FerError(f"--pair {first} {second}: scored on different faces, which no paired test can take ({why})")
    return one, other


def left_out(gathered: Gathered) -> list[str]:
    """Return how many folders were passed over, and for each a line why."""
    if not gathered.skipped:
        return []
    reasons = [f"  {folder}: {reason}" for folder, reason in gathered.skipped.items()]
    return [f"Left out: {len(gathered.skipped):,}", *reasons]
