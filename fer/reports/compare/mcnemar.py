"""McNemar's test on the page: any two runs by the page's script, some of them without."""

import base64
import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from fer.metrics.statistics import holm, student_quantile
from fer.metrics.table import in_per_cent
from fer.reports import html
from fer.reports.html import joined, paragraph, tag
from fer.runs import ranking
from fer.runs.ranking import Ranking, Run

TOP = 5  # configurations whose first seeds are tested against each other without being asked


class Listed(NamedTuple):
    """A run and what it is called.

    Args:
        run: one of a ranking's.
        name: its configuration and seed.
        place: of its configuration, from 1.
        ranking: the title of its ranking.
    """

    run: Run
    name: str
    place: int
    ranking: str


def listed(made: Sequence[Ranking]) -> list[Listed]:
    """Return all runs that count, in the order of the rankings."""
    return [
        Listed(run, f"{one.label(group)}, seed {run.seed}", place, f"{number}. {one.setting.title}")
        for number, one in enumerate(made, start=1)
        for place, group in enumerate(one.groups, start=1)
        for run in group.runs
    ]


def tested(made: Sequence[Ranking], asked: Sequence[tuple[Run, Run]]) -> Markup:
    """Return what McNemar's test says of any two runs, of those asked for, and of the foremost of each ranking."""
    told = paragraph(
        "McNemar's exact test asks whether two runs would part the same way on other faces. It knows nothing of seeds: "
        "it compares these two networks, and the table of differences compares configurations. Looking for a pair that "
        "parts makes one likely to be found; a p-value is that of a pair chosen beforehand.",
        class_="soft",
    )
    runs = listed(made)
    parts = [told, menus(runs)]
    if asked:
        names = {one.run.folder.resolve(): one.name for one in runs}
        named = [[(names.get(run.folder.resolve(), str(run.folder)), run) for run in pair] for pair in asked]
        parts += [tag("h3", "Asked for"), table(named)]
    for one in made:
        first = [(f"{one.label(group)}, seed {group.runs[0].seed}", group.runs[0]) for group in one.groups[:TOP]]
        if len(first) > 1:
            where = f" of {one.setting.title}" if len(made) > 1 else ""
            title = f"The first seeds of the foremost {len(first)}{where}"
            parts += [tag("h3", title), table([list(pair) for pair in combinations(first, 2)])]
    return joined(*parts)


def table(pairs: Sequence[Sequence[tuple[str, Run]]]) -> Markup:
    """Return the tests of named pairs, their p-values adjusted for being several."""
    found = [ranking.tested(first, second) for (_, first), (_, second) in pairs]
    adjusted = holm([one.p for one in found])
    rows = [
        (a, b, f"{one.first:,}", f"{one.second:,}", ranking.chance(one.p), ranking.chance(p))
        for ((a, _), (b, _)), one, p in zip(pairs, found, adjusted, strict=True)
    ]
    heads = ("A", "B", "only A right", "only B right", "exact p", f"adjusted for {len(rows)} tests")
    return html.named(html.table(heads, rows, range(2, 6)))


def menus(runs: Sequence[Listed]) -> Markup:
    """Return two menus of all runs and a place for their test, hidden until the page's script is there."""
    other = next((number for number, one in enumerate(runs) if one.place > 1), len(runs) - 1)
    labels = [
        tag("label", f"{letter} ", tag("select", *options(runs, chosen), name_=name))
        for letter, name, chosen in (("A", "first", 0), ("B", "second", other))
    ]
    data = json.dumps(answers([one.run for one in runs])).replace("<", "\\u003c")
    held = Markup(f'<script id="answers" type="application/json">{data}</script>')
    return joined(tag("form", *labels, id="pair", hidden=""), tag("p", id="told", role="status"), held)


def options(runs: Sequence[Listed], chosen: int) -> list[Markup]:
    """Return a menu's lines by ranking."""
    groups: dict[str, list[Markup]] = {}
    for number, one in enumerate(runs):
        text = f"{one.place} {one.name}: {in_per_cent(one.run.metrics['accuracy'])} %"
        mark = {"selected": ""} if number == chosen else {}
        groups.setdefault(one.ranking, []).append(tag("option", text, value=number, **mark))
    return [tag("optgroup", *lines, label=title) for title, lines in groups.items()]


def answers(runs: Sequence[Run]) -> dict[str, Any]:
    """Return for the script on which faces each run is right, a bit a face, and which runs had the same faces.

    "runs" has for each run its "bits" in base64, the first face in the highest bit, and the number of its "faces";
    "faces" has for each set of them how many there are and Student's quantile for so many.
    """
    known: list[Run] = []  # one for each set of faces
    told = []
    for run in runs:
        same = next((number for number, other in enumerate(known) if run.same_faces(other)), len(known))
        if same == len(known):
            known.append(run)
        told.append({"faces": same, "bits": base64.b64encode(np.packbits(run.correct).tobytes()).decode()})
    counts = [len(run.correct) for run in known]
    return {"runs": told, "faces": [{"n": n, "quantile": student_quantile(max(1, n - 1))} for n in counts]}
