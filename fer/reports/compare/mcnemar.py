"""McNemar's test on the page that compares runs.

The page's script tests any two runs; some pairs are there without it.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from fer.metrics.statistics import holm, student_quantile
from fer.metrics.table import in_per_cent
from fer.reports import html
from fer.reports.html import joined, paragraph, tag
from fer.runs import ranking
from fer.runs.ranking import Ranking, Run
from fer.system.records import plain

TOP = 5  # best configurations of a ranking whose first seeds are always compared by a test


class Listed(NamedTuple):
    """A run with its name and rank.

    Args:
        run: run of a ranking.
        name: its configuration and seed.
        rank: rank of its configuration, from 1.
        ranking: title of its ranking.
    """

    run: Run
    name: str
    rank: int
    ranking: str


def listed(rankings: Sequence[Ranking]) -> list[Listed]:
    """Return all runs that count, in the order of the rankings."""
    return [
        Listed(run, f"{board.label(group)}, seed {run.seed}", rank, f"{number}. {board.setting.title}")
        for number, board in enumerate(rankings, start=1)
        for rank, group in enumerate(board.groups, start=1)
        for run in group.runs
    ]


def tested(rankings: Sequence[Ranking], requested: Sequence[tuple[Run, Run]]) -> Markup:
    """Return the section of McNemar's tests: any two runs, the requested pairs, and the best of each ranking."""
    intro = paragraph(
        "McNemar's exact test compares two networks on the same faces: is one right more often than the other, or is "
        "the difference chance? It knows nothing of seeds; the table of differences compares configurations. A p-value "
        "holds for a pair that was chosen beforehand: among many pairs, some differ by chance.",
        class_="soft",
    )
    runs = listed(rankings)
    parts = [intro, menus(runs)]
    if requested:
        names = {entry.run.folder.resolve(): entry.name for entry in runs}
        named = [[(names.get(run.folder.resolve(), str(run.folder)), run) for run in pair] for pair in requested]
        parts += [tag("h3", "Requested pairs"), table(named)]
    for board in rankings:
        first = [(f"{board.label(group)}, seed {group.runs[0].seed}", group.runs[0]) for group in board.groups[:TOP]]
        if len(first) > 1:
            where = f" of {board.setting.title}" if len(rankings) > 1 else ""
            title = f"The first seeds of the best {len(first)} configurations{where}"
            parts += [tag("h3", title), table([list(pair) for pair in combinations(first, 2)])]
    return joined(*parts)


def table(pairs: Sequence[Sequence[tuple[str, Run]]]) -> Markup:
    """Return the tests of named pairs, with p-values also adjusted for their number (Holm)."""
    results = [ranking.tested(first, second) for (_, first), (_, second) in pairs]
    adjusted = holm([test.p for test in results])
    rows = [
        (a, b, f"{test.first:,}", f"{test.second:,}", ranking.p_text(test.p), ranking.p_text(p))
        for ((a, _), (b, _)), test, p in zip(pairs, results, adjusted, strict=True)
    ]
    heads = ("A", "B", "only A right", "only B right", "exact p", "p, adjusted for all pairs")
    return html.named(html.table(heads, rows, range(2, 6)))


def menus(runs: Sequence[Listed]) -> Markup:
    """Return two menus of all runs and an element for their test; the page's script shows them."""
    second = next((number for number, entry in enumerate(runs) if entry.rank > 1), len(runs) - 1)
    labels = [
        tag("label", f"{letter} ", tag("select", *options(runs, chosen), name_=name))
        for letter, name, chosen in (("A", "first", 0), ("B", "second", second))
    ]
    data = json.dumps(plain(answers([entry.run for entry in runs]))).replace("<", "\\u003c")
    data_element = Markup(f'<script id="answers" type="application/json">{data}</script>')
    return joined(tag("form", *labels, id="pair", hidden=""), tag("p", id="pair-result", role="status"), data_element)


def options(runs: Sequence[Listed], chosen: int) -> list[Markup]:
    """Return the options of a menu, grouped by ranking."""
    groups: dict[str, list[Markup]] = {}
    for number, entry in enumerate(runs):
        text = f"{entry.rank} {entry.name}: {in_per_cent(entry.run.metrics.accuracy)} %"
        mark = {"selected": ""} if number == chosen else {}
        groups.setdefault(entry.ranking, []).append(tag("option", text, value=number, **mark))
    return [tag("optgroup", *lines, label=title) for title, lines in groups.items()]


@dataclass(frozen=True)
class RunAnswers:
    """The faces that a run classifies correctly.

    Args:
        faces: index of their set.
        bits: a bit for each, the first face in the highest, in base64.
    """

    faces: int
    bits: str


@dataclass(frozen=True)
class FaceSet:
    """A set of faces: their number, and Student's quantile for it."""

    n: int
    quantile: float


@dataclass(frozen=True)
class Answers:
    """The data of the page's script: the answers of each run, and the sets of faces."""

    runs: tuple[RunAnswers, ...]
    faces: tuple[FaceSet, ...]


def answers(runs: Sequence[Run]) -> Answers:
    """Return the data of the page's script."""
    known: list[Run] = []  # a run for each set of faces
    bits_of_runs = []
    for run in runs:
        same = next((number for number, other in enumerate(known) if run.same_faces(other)), len(known))
        if same == len(known):
            known.append(run)
        bits_of_runs.append(RunAnswers(same, base64.b64encode(np.packbits(run.correct).tobytes()).decode()))
    counts = [len(run.correct) for run in known]
    return Answers(tuple(bits_of_runs), tuple(FaceSet(n, student_quantile(max(1, n - 1))) for n in counts))
