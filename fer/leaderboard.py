"""The leaderboard: finished runs read, ranked, published as ``leaderboard.csv``, ``leaderboard.md``, ``compare.html``.

Figures are those of val; evaluations, which lie within runs, are opened for one chosen run alone, when asked.
"""

import csv
import json
import math
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer import predictions, ranking, runs
from fer.configuration import stored
from fer.errors import FerError
from fer.ranking import FIGURES, Group, Looks, Ranking, Run, Setting, chance, parted
from fer.results import markdown_table, read_history, read_list, readable, text_table, why, written_whole
from fer.settings import leaves
from fer.significance import Interval, holm, of_faces

WIDE = 120  # characters of a terminal that a table should fit
# what the data are is told by their fingerprint and the faces scored, not by the keys that named them
DATA_KEYS = (
    "path", "votes", "labels", "ferplus_rule", "classes", "split", "split_seed", "val_fraction", "folds", "fold",
    "image_size", "on_bad", "synthetic_count", "synthetic_seed",
)  # fmt: skip
COSTS = ("parameters", "train_seconds", "images_per_second")  # which older runs may not tell
ACCURACIES = ("seeds", "val accuracy", "95 % seeds", "95 % faces", "to the best, 95 %")  # heads
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


@dataclass(frozen=True)
class Published:
    """What was written, and the same for a terminal.

    Args:
        text: the rankings as tables.
        page: ``compare.html``.
        table: ``leaderboard.csv``.
        markdown: ``leaderboard.md``.
    """

    text: str
    page: Path
    table: Path
    markdown: Path


def publish(folders: Sequence[Path], out: Path) -> Published:
    """Rank the finished runs at or below ``folders`` and write the leaderboard to ``out``, whatever was there before.

    Args:
        folders: runs, sweeps, or what holds them.
        out: made if it is not there.

    Raises:
        FerError: a folder is not there or holds no finished run, or none of them can be read.
        OSError: ``out`` may not be written.
    """
    return write(gather(folders), out)


def write(
    gathered: Gathered,
    out: Path,
    *,
    by: str = "accuracy",
    pairs: Sequence[tuple[Run, Run]] = (),
    chosen: Path | None = None,
) -> Published:
    """Write the leaderboard of runs that were read, and return it for a terminal too.

    Args:
        gathered: the runs, and what was passed over.
        out: folder; made if it is not there.
        by: what sorts, of ``fer.ranking.FIGURES``.
        pairs: runs to test against each other.
        chosen: the one run whose figures on test are shown too.

    Raises:
        FerError: the test split of the chosen run was not opened.
        OSError: ``out`` may not be written.
    """
    from fer.reports import compare  # matplotlib takes half a second to import

    made = ranking.rankings(gathered.runs, by)
    looks = None if chosen is None else looks_at_test(chosen)
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "leaderboard.csv", made, out)
    with written_whole(out / "leaderboard.md") as stream:
        stream.write(markdown(made, gathered, pairs, by, looks))
    page = compare.write(compare.Comparison(made, gathered.skipped, pairs, by, looks), out)
    told = text(made, gathered, pairs, by, looks)
    return Published(told, page, out / "leaderboard.csv", out / "leaderboard.md")


# --- reading --------------------------------------------------------------------------------------------------------


def gather(paths: Iterable[Path]) -> Gathered:
    """Read the finished runs at or below ``paths``, each once; what is not finished or cannot be read is told.

    Raises:
        FerError: a path is not there or holds no finished run, or none of them can be read.
    """
    paths = list(paths)
    folders = {folder.resolve(): folder for folder in runs.find(paths)}
    found, skipped = [], runs.unfinished(paths)
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
    told = runs.told(runs.DEFAULTS | dict(leaves(config)))
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
        config = runs.configuration_of(folder)
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


# --- as text --------------------------------------------------------------------------------------------------------


def text(
    made: Sequence[Ranking],
    gathered: Gathered,
    pairs: Sequence[tuple[Run, Run]],
    by: str = "accuracy",
    looks: Looks | None = None,
) -> str:
    """Return the rankings for a terminal, and what was left out."""
    parts = [f"{heading(one, by)}\n{text_table(*fitting(one, by))}" for one in made]
    if len(made) > 1:
        parts.append("\n".join(["not ranked together:", *(f"  {reason}" for reason in ranking.apart(made))]))
    if pairs:
        parts.append(
            f"McNemar's exact test, of these runs and not of their configurations\n{text_table(*tests(pairs))}"
        )
    if looks is not None:
        parts.append(f"{looks.heading}\n{text_table(*looks.table)}")
    marks = [textwrap.fill(line, WIDE, subsequent_indent="  ") for line in ranking.MARKS]
    return "\n\n".join([*parts, "\n".join([*marks, *notes(made, gathered)])])


def markdown(
    made: Sequence[Ranking],
    gathered: Gathered,
    pairs: Sequence[tuple[Run, Run]],
    by: str = "accuracy",
    looks: Looks | None = None,
) -> str:
    """Return the same as Markdown, with all the figures."""
    parts = ["# Leaderboard"]
    for one in made:
        parts += [f"## {heading(one, by)}", markdown_table(*full(one))]
    if len(made) > 1:
        parts += ["## Not ranked together", "\n".join(f"- {reason}" for reason in ranking.apart(made))]
    if pairs:
        parts += [
            "## McNemar's exact test, of these runs and not of their configurations",
            markdown_table(*tests(pairs)),
        ]
    if looks is not None:
        parts += [f"## {looks.heading}", markdown_table(*looks.table)]
    told = [line.replace("*", "\\*") for line in (*ranking.MARKS, *notes(made, gathered))]
    indented = [re.sub(r"^( *)", r"\1- ", line) for line in told]
    return "\n\n".join([*parts, "\n".join(indented)]) + "\n"


def heading(one: Ranking, by: str = "accuracy") -> str:
    """Return a ranking's title, how many it ranks, and by what, if not by accuracy."""
    count = sum(len(group.runs) for group in one.groups)
    pairs = len(one.groups) * (len(one.groups) - 1) // 2
    tested = f", {pairs:,} pair{'' if pairs == 1 else 's'} tested" if pairs else ""
    order = "" if by == "accuracy" else f", sorted by {FIGURES[by].head}"
    runs_told = f"{count:,} run{'' if count == 1 else 's'}"
    return f"{one.setting.title}: {configurations(len(one.groups))}, {runs_told}{tested}{order}"


def configurations(count: int) -> str:
    """Return how many, in words."""
    return f"{count:,} configuration{'' if count == 1 else 's'}"


def full(one: Ranking, *, labelled: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a ranking with all its figures.

    Args:
        one: the ranking.
        labelled: tell configurations by their labels, rather than by a column for each thing that differs.
    """
    more = [name for name in FIGURES if name != "accuracy"]
    told = ["configuration"] if labelled else [ranking.short(column, one.columns) for column in one.columns]
    rows = []
    for place, group in enumerate(one.groups, start=1):
        cells = [one.label(group)] if labelled else [ranking.cell(group, column) for column in one.columns]
        rows.append([str(place), *cells, *accuracies(one, group), *(group.written(name) for name in more)])
    return ["#", *told, *ACCURACIES, *(FIGURES[name].head for name in more)], rows


def accuracies(one: Ranking, group: Group) -> list[str]:
    """Return seeds, accuracy, its two intervals, and the difference to the best."""
    seeds = group.accuracy
    sd = "" if seeds.sd is None else f" ± {100 * seeds.sd:.2f}"
    over_seeds = "-" if seeds.interval is None else ranking.span(seeds.interval)
    best = "best" if group is one.ahead else behind(one, group)
    return [str(seeds.number), f"{100 * seeds.mean:.2f}{sd}", over_seeds, ranking.span(group.over_faces), best]


def behind(one: Ranking, group: Group) -> str:
    """Return the difference to the best with its interval and marks."""
    found, p = one.difference(group, one.ahead)
    marks = ("" if found.seeds else " °") + (" *" if parted(p) else "")
    return f"{100 * found.value:+.2f} {ranking.span(found.interval, '+')}{marks}"


def fitting(one: Ranking, by: str = "accuracy") -> tuple[list[str], list[list[str]]]:
    """Return as much of a ranking as fits a terminal; what goes first matters least to who is ahead."""
    for labelled in (False, True):
        heads, rows = full(one, labelled=labelled)
        count = len(heads) - len(FIGURES) + 1  # without the figures that FIGURES adds
        more = [heads.index(name) for name in ("parameters", "time") if name != FIGURES[by].head]
        shown = [*range(count), *([] if by == "accuracy" else [heads.index(FIGURES[by].head)]), *more]
        for less in (None, "parameters", "time", "95 % faces", "95 % seeds"):
            shown = [place for place in shown if heads[place] != less or less == FIGURES[by].head]
            table = [heads[place] for place in shown], [[row[place] for place in shown] for row in rows]
            if len(text_table(*table).splitlines()[1]) <= WIDE:
                return table
    return table


def tests(pairs: Sequence[tuple[Run, Run]]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of McNemar's tests; p-values of several are adjusted for their number (Holm)."""
    found = [ranking.tested(*pair) for pair in pairs]
    rows = [
        [str(first.folder), str(second.folder), f"{one.first:,}", f"{one.second:,}", chance(one.p)]
        for (first, second), one in zip(pairs, found, strict=True)
    ]
    heads = ["A", "B", "only A right", "only B right", "p"]
    if len(pairs) == 1:
        return heads, rows
    adjusted = holm([one.p for one in found])
    return [*heads, f"p, adjusted for {len(pairs)} tests"], [
        [*row, chance(p)] for row, p in zip(rows, adjusted, strict=True)
    ]


def notes(made: Sequence[Ranking], gathered: Gathered) -> list[str]:
    """Return what a reader of the rankings must know besides: of machines, of runs that do not count, and why."""
    told = []
    machines = list(dict.fromkeys(machine for one in made for machine in one.machines()))
    if len(machines) > 1:
        told.append(f"Times of different machines do not compare: {'; '.join(machines)}.")
    repeats = [run for one in made for group in one.groups for run in group.repeats]
    if repeats:
        folders = [f"  {run.folder}" for run in repeats]
        told += [f"Run again later with the same seed, not counted: {len(repeats):,}", *folders]
    return [*told, *left_out(gathered)]


def left_out(gathered: Gathered) -> list[str]:
    """Return how many folders were passed over, and for each a line why."""
    if not gathered.skipped:
        return []
    reasons = [f"  {folder}: {reason}" for folder, reason in gathered.skipped.items()]
    return [f"Left out: {len(gathered.skipped):,}", *reasons]


# --- as a table -----------------------------------------------------------------------------------------------------


def write_table(file: Path, made: Sequence[Ranking], out: Path) -> None:
    """Write a row a run, in full precision; those that do not count too, marked so."""
    groups = [group for one in made for group in one.groups]
    differing = ranking.columns(groups)
    heads = ["ranking", "place", "counts", "seed", *differing, "accuracy", "accuracy_low", "accuracy_high"]
    figures = [name for name in FIGURES if name != "accuracy"]
    facts = list(made[0].setting.facts())
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*heads, *figures, *facts, "machine", "commit", "finished", "run"])
        for number, one in enumerate(made, start=1):
            for place, group in enumerate(one.groups, start=1):
                told = [ranking.cell(group, column) for column in differing]
                for run in (*group.runs, *group.repeats):
                    start = [number, place, int(run in group.runs), run.seed, *told]
                    writer.writerow([*start, *_row(run, figures), *one.setting.facts().values(), *_origin(run, out)])


def _row(run: Run, figures: Sequence[str]) -> list[Any]:
    interval = of_faces(run.correct[None])
    return [run.metrics["accuracy"], *interval, *(run.metrics.get(name) for name in figures)]


def _origin(run: Run, out: Path) -> list[Any]:
    where = os.path.relpath(run.folder.resolve(), out.resolve())
    return [ranking.machine(run.metrics), run.metrics.get("commit"), run.metrics.get("finished"), where]
