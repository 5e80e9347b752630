"""What an audit finds in a table of faces: classes by split, twins, one-colour faces, votes, brightness, contrast.

found = examine(faces, split_of(faces, None, settings), quick=False)
counted(found)  # as plain values
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.data.faces import UNKNOWN, Faces
from fer.data.readers.ferplus import COLUMN_EMOTIONS
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.data.splits import Rule, assigned
from fer.data.twins import across, conflicts, exact_twins, one_colour
from fer.errors import FerError
from fer.labels import EMOTIONS, FERPLUS_COLUMNS, SPLITS
from fer.settings import DataSettings

LABELS = np.array([*EMOTIONS, "unlabelled"])  # an unlabelled face's target is -1, which counts from the end
SHEET, SHEET_SEED = 24, 0  # faces of each class that are shown, and the seed of their draw
EXTREMES = 100  # faces of each kind that are listed
BLOCK = 1024  # faces at a time, whose floats stay small beside the table
PERCENTILES = {"p5": 5, "median": 50, "p95": 95}
OWN = "as given by the source's own folders or files"


class Split(NamedTuple):
    """Who belongs where.

    Args:
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        rule: "official", "as_given", "holdout", or "all" where the source tells no split.
        meaning: of the rule, for these faces.
        why: why the official rule was left, where nobody asked for another; else empty.
    """

    splits: NDArray[np.int8]
    rule: str
    meaning: str
    why: str = ""

    def names(self) -> NDArray[np.str_]:
        """Return (N,) the split of each face by name."""
        rest = "all" if self.rule == "all" else "no split"
        return np.array([*SPLITS, rest])[self.splits]  # UNKNOWN is -1, which counts from the end


class Light(NamedTuple):
    """Brightness and contrast of N faces.

    Args:
        mean: (N,) mean of a face's pixels, in levels of grey, 0 to 255.
        spread: (N,) their standard deviation, 0 to 127.5.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """N faces and what was found among them; a place is an index into the table.

    Args:
        faces: the table.
        split: who belongs where.
        labels: (N,) names of the emotions, or "unlabelled".
        splits: (N,) names of the splits; "no split" where a face belongs to none, "all" where the source tells none.
        sheets: label -> places of a draw of its faces.
        groups: places of the faces of each of G groups of exact twins.
        conflicting: (G,) whether the labels within a group differ.
        one_colour: (N,) whether all pixels of a face are the same.
        light: brightness and contrast; None in a quick audit.
        extremes: "darkest", "brightest" and "flattest" -> places, the most extreme first; empty in a quick audit.
    """

    faces: Faces
    split: Split
    labels: NDArray[np.str_]
    splits: NDArray[np.str_]
    sheets: dict[str, NDArray[np.int64]]
    groups: list[NDArray[np.int64]]
    conflicting: NDArray[np.bool_]
    one_colour: NDArray[np.bool_]
    light: Light | None
    extremes: dict[str, NDArray[np.int64]]


def split_of(faces: Faces, rule: Rule | None, settings: DataSettings) -> Split:
    """Return the split by the rule that was asked for; where none was, the official one, else what the source tells.

    Raises:
        FerError: the rule that was asked for does not apply.
    """
    wanted: Rule = rule or "official"
    try:
        splits = assigned(faces, replace(settings, split=wanted))
        return Split(splits, wanted, meaning(faces, wanted))
    except FerError as error:
        if rule is not None:
            raise
        why = str(error).partition(";")[0].removeprefix("data.split=official: ")  # the rest is advice for training
    if (faces.given != UNKNOWN).any():
        return Split(faces.given, "as_given", OWN, why)  # as they are: no val is drawn out of train
    return Split(faces.given, "all", "none, the source tells no split", why)


def meaning(faces: Faces, rule: Rule) -> str:
    """Return what a rule means for these faces."""
    if rule == "holdout":
        return "holdout, a seeded and stratified 80/20 of everything"
    if rule == "as_given":
        return OWN if (faces.given == SPLITS.index("val")).any() else f"{OWN}, val drawn out of train"
    drawn = faces.source.path == SYNTHETIC
    return "official" if drawn else "official (train is Training, val PublicTest, test PrivateTest)"


def examine(faces: Faces, split: Split, *, quick: bool) -> Found:
    """Look through the table; a quick look leaves out brightness and contrast."""
    groups = exact_twins(faces.images)
    labels, plain = LABELS[faces.targets], one_colour(faces.images)
    light = None if quick else brightness_and_contrast(faces.images)
    return Found(
        faces=faces,
        split=split,
        labels=labels,
        splits=split.names(),
        sheets=draw_sheets(labels),
        groups=groups,
        conflicting=conflicts(groups, faces.targets),
        one_colour=plain,
        light=light,
        extremes={} if light is None else extremes(light, plain),
    )


def draw_sheets(labels: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    """Return label -> places of a seeded draw of ``SHEET`` faces, or of all where there are fewer."""
    sheets = {}
    for name in LABELS:
        places = np.flatnonzero(labels == name)
        if places.size:
            sheets[str(name)] = np.sort(np.random.default_rng(SHEET_SEED).permutation(places)[:SHEET])
    return sheets


def brightness_and_contrast(images: NDArray[np.uint8]) -> Light:
    """Return mean and standard deviation of each face's pixels.

    Args:
        images: (N, S, S).
    """
    parts = []
    for start in range(0, len(images), BLOCK):
        pixels = images[start : start + BLOCK].astype(np.float32)
        parts.append((pixels.mean((1, 2), np.float64), pixels.std((1, 2), np.float64)))
    mean, spread = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Light(mean, spread)


def extremes(light: Light, plain: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """Return kind -> places of its ``EXTREMES`` most extreme faces; one-colour ones, which would lead, are left out."""
    places = np.flatnonzero(~plain)
    ranked = {"darkest": light.mean, "brightest": -light.mean, "flattest": light.spread}
    return {kind: places[np.argsort(values[places], kind="stable")[:EXTREMES]] for kind, values in ranked.items()}


# --- as plain values ------------------------------------------------------------------------------------------------


def counted(found: Found) -> dict[str, Any]:
    """Return everything that was found as plain values, as ``audit.json`` holds them."""
    faces = found.faces
    return {
        "quick": found.light is None,
        "dataset": about(faces),
        "split": {
            "rule": found.split.rule,
            "meaning": found.split.meaning,
            "why_not_official": found.split.why or None,
        },
        **class_counts(found),
        "sheets": {
            "seed": SHEET_SEED,
            "rows": {name: faces.rows[places].tolist() for name, places in found.sheets.items()},
        },
        "twins": twin_counts(found),
        "one_colour": {"faces": int(found.one_colour.sum()), "rows": faces.rows[found.one_colour].tolist()},
        "votes": vote_counts(faces),
        "light": light_figures(found),
    }


def about(faces: Faces) -> dict[str, Any]:
    """Return where the faces came from and what the reader decided, as plain values."""
    source = faces.source
    return {
        "name": source.name,
        "path": source.path,
        "layout": source.layout,
        "labels": source.labels,
        "image_size": faces.image_size,
        "fingerprint": faces.fingerprint(),
        "notes": list(source.notes),
        "skipped": list(source.skipped),
    }


def class_counts(found: Found) -> dict[str, Any]:
    """Return faces by split and class, and of each split the largest class over the smallest."""
    counts = {name: by_label(found.labels[found.splits == name]) for name in present(found.splits)}
    total = by_label(found.labels)
    if not total["unlabelled"]:
        for held in (*counts.values(), total):
            del held["unlabelled"]
    return {
        "n": len(found.labels),
        "counts": counts,
        "total": total,
        "imbalance": {name: imbalance(held) for name, held in (*counts.items(), ("total", total))},
    }


def present(splits: NDArray[np.str_]) -> list[str]:
    """Return the names of the splits that hold faces, in their usual order."""
    return [name for name in (*SPLITS, "no split", "all") if (splits == name).any()]


def by_label(labels: NDArray[np.str_]) -> dict[str, int]:
    """Return label -> faces."""
    return {str(name): int((labels == name).sum()) for name in LABELS}


def imbalance(held: dict[str, int]) -> float | None:
    """Return the faces of the largest class over those of the smallest; None where a class is empty."""
    sizes = [held[name] for name in EMOTIONS]
    return max(sizes) / min(sizes) if min(sizes) else None


def twin_counts(found: Found) -> dict[str, Any]:
    """Return the groups of exact twins in numbers: all, those of one colour, by where their faces lie, by size."""
    where: dict[str, list[int]] = {}
    for number, group in enumerate(found.groups):
        held = set(found.splits[group].tolist())
        where.setdefault(f"within {held.pop()}" if len(held) == 1 else "across splits", []).append(number)
    order = [*(f"within {name}" for name in present(found.splits)), "across splits"]
    plain = [number for number, group in enumerate(found.groups) if found.one_colour[group[0]]]
    return {
        **tally(found, range(len(found.groups))),
        "where": {name: tally(found, where[name]) for name in order if name in where},
        "one_colour": tally(found, plain),
        "sizes": {str(size): count for size, count in sorted(Counter(map(len, found.groups)).items())},
        "splits": twin_matrix(found),
    }


def tally(found: Found, numbers: Iterable[int]) -> dict[str, int]:
    """Return groups, faces, copies beyond the first, and groups whose labels conflict, of the groups numbered so."""
    chosen = list(numbers)
    faces = sum(len(found.groups[number]) for number in chosen)
    conflicting = sum(bool(found.conflicting[number]) for number in chosen)
    return {"groups": len(chosen), "faces": faces, "copies": faces - len(chosen), "conflicting_groups": conflicting}


def twin_matrix(found: Found) -> dict[str, dict[str, int]]:
    """Return split -> split -> faces of the first that have a twin in the second, splits without faces left out."""
    table = across(found.groups, found.split.splits)
    place = {name: index for index, name in enumerate(SPLITS)}
    names = present(found.splits)
    return {one: {other: int(table[place.get(one, -1), place.get(other, -1)]) for other in names} for one in names}


def vote_counts(faces: Faces) -> dict[str, Any] | None:
    """Return what FER+'s annotators said of the faces of each label; None without votes.

    Of answers that are equally frequent the first in the order of ``FERPLUS_COLUMNS`` counts, as in the reader.
    """
    if faces.votes is None:
        return None
    answers = faces.votes.argmax(1)
    table = np.zeros((len(LABELS), len(FERPLUS_COLUMNS)), np.int64)
    np.add.at(table, (faces.targets, answers), 1)
    given = faces.votes.sum(1, dtype=np.int64)
    return {
        "answers": {  # label -> answer -> faces for which it is the most frequent one
            str(label): dict(zip(FERPLUS_COLUMNS, row.tolist(), strict=True))
            for label, row in zip(LABELS, table, strict=True)
            if row.any()
        },
        "agreeing": int(((COLUMN_EMOTIONS[answers] == faces.targets) & (faces.targets != UNKNOWN)).sum()),
        "outside_the_seven": int((COLUMN_EMOTIONS[answers] == UNKNOWN).sum()),
        "without_majority": int((2 * faces.votes.max(1).astype(np.int64) <= given).sum()),
        "votes_per_face": [int(given.min()), int(given.max())],
    }


def light_figures(found: Found) -> dict[str, Any] | None:
    """Return split -> percentiles of its faces' brightness and contrast; None in a quick audit."""
    light = found.light
    if light is None:
        return None

    def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
        return {name: round(float(np.percentile(values, q)), 2) for name, q in PERCENTILES.items()}

    own = {name: found.splits == name for name in present(found.splits)}
    return {name: {"mean": percentiles(light.mean[o]), "sd": percentiles(light.spread[o])} for name, o in own.items()}
