"""What an audit found, in numbers: the plain values of ``audit.json``.

counted(examine(faces, split, quick=False))
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.data.audit import near_duplicates
from fer.data.audit.inspection import FLAT, LABELS, SHEET_SEED, Found, Suspects, present
from fer.data.audit.suggestions import EXCLUDE, LOOK, RELABEL, Advice
from fer.data.duplicates import across
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS, SPLITS
from fer.data.readers.ferplus import COLUMN_EMOTIONS

PERCENTILES = {"p5": 5, "median": 50, "p95": 95}


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
        "near_twins": near_counts(found),
        "no_faces": no_face_counts(found),
        "one_colour": {"faces": int(found.one_colour.sum()), "rows": faces.rows[found.one_colour].tolist()},
        "votes": vote_counts(faces),
        "suspects": suspect_counts(found),
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


def by_label(labels: NDArray[np.str_]) -> dict[str, int]:
    """Return label -> faces."""
    return {str(name): int((labels == name).sum()) for name in LABELS}


def imbalance(held: dict[str, int]) -> float | None:
    """Return the faces of the largest class over those of the smallest; None where a class is empty."""
    sizes = [held[name] for name in EMOTIONS]
    return max(sizes) / min(sizes) if min(sizes) else None


def twin_counts(found: Found) -> dict[str, Any]:
    """Return the groups of exact twins in numbers: all, those of one colour, by where their faces lie, by size."""
    plain = [number for number, group in enumerate(found.groups) if found.one_colour[group[0]]]
    return {
        **tally(found, range(len(found.groups))),
        "where": {name: tally(found, numbers) for name, numbers in by_place(found, found.groups).items()},
        "one_colour": tally(found, plain),
        "sizes": {str(size): count for size, count in sorted(Counter(map(len, found.groups)).items())},
        "splits": twin_matrix(found),
    }


def by_place(found: Found, groups: Sequence[NDArray[np.int64]]) -> dict[str, list[int]]:
    """Return "within train" and the like, then "across splits" -> numbers of the groups that lie there."""
    where: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        held = set(found.splits[group].tolist())
        where.setdefault(f"within {held.pop()}" if len(held) == 1 else "across splits", []).append(number)
    order = [*(f"within {name}" for name in present(found.splits)), "across splits"]
    return {name: where[name] for name in order if name in where}


def tally(found: Found, numbers: Iterable[int]) -> dict[str, int]:
    """Return groups, faces, copies beyond the first, and groups whose labels conflict, of the groups numbered so."""
    chosen = list(numbers)
    faces = sum(len(found.groups[number]) for number in chosen)
    conflicting = sum(bool(found.conflicting[number]) for number in chosen)
    return {"groups": len(chosen), "faces": faces, "copies": faces - len(chosen), "conflicting_groups": conflicting}


def twin_matrix(found: Found) -> dict[str, dict[str, int]]:
    """Return split -> split -> faces of the first that have a twin in the second, splits without faces left out."""
    return named(found, across(found.groups, found.split.splits))


def named(found: Found, table: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return a table of splits by splits, as ``across`` makes it, by the names of those that hold faces."""
    place = {name: index for index, name in enumerate(SPLITS)}
    names = present(found.splits)
    return {one: {other: int(table[place.get(one, -1), place.get(other, -1)]) for other in names} for one in names}


def near_counts(found: Found) -> dict[str, Any] | None:
    """Return the groups of near twins in numbers: all, by where their faces lie, by size; None in a quick audit.

    Exact copies within a group are faces of it, and count as one picture. In "splits" a face counts where it has a near
    twin and no exact one.
    """
    if found.near is None:
        return None
    groups = found.near.groups
    exact = {int(group[0]): len(group) - 1 for group in found.groups}
    pictures = [len(group) - sum(exact.get(place, 0) for place in group.tolist()) for group in groups]

    def tallied(numbers: Sequence[int]) -> dict[str, int]:
        return {
            "groups": len(numbers),
            "pictures": sum(pictures[number] for number in numbers),
            "faces": sum(len(groups[number]) for number in numbers),
            "conflicting_groups": sum(bool(found.near_conflicting[number]) for number in numbers),
        }

    inside = set(np.concatenate(groups).tolist()) if groups else set()
    apart = [group for group in found.groups if int(group[0]) not in inside]
    splits = found.split.splits
    return {
        "radius": near_duplicates.RADIUS,
        "radius_mirrored": near_duplicates.MIRRORED_RADIUS,
        "least_correlation": near_duplicates.LEAST,
        "least_detail": near_duplicates.LEAST_DETAIL,
        **tallied(range(len(groups))),
        "mirrored": int(found.near.mirrored.sum()),
        "where": {name: tallied(numbers) for name, numbers in by_place(found, groups).items()},
        "sizes": {str(size): count for size, count in sorted(Counter(pictures).items())},
        "splits": named(found, across([*groups, *apart], splits) - across(found.groups, splits)),
    }


def no_face_counts(found: Found) -> dict[str, Any]:
    """Return how many pictures show no face, and their rows; what was not looked at is None."""
    rows, held = found.faces.rows, found.no_faces
    voted, seen = found.faces.votes is not None, found.light is not None
    return {
        "voted": int(held.voted.sum()) if voted else None,
        "likely": int(held.likely.sum()) if voted else None,
        "flat": int(held.flat.sum()) if seen else None,
        "flat_below": FLAT,
        "voted_rows": rows[held.voted].tolist(),
        "flat_rows": rows[held.flat].tolist(),
    }


def suspect_counts(found: Found) -> dict[str, Any] | None:
    """Return the suspect labels in numbers; None without predictions.

    Where FER+'s votes are joined, "votes" tells how often their most frequent answer is the label that was given and
    the one that the network prefers: of suspects, and of all other faces that were predicted.
    """
    if (suspects := found.suspects) is None:
        return None
    chosen = np.zeros(len(found.labels), np.bool_)
    chosen[suspects.places] = True
    return {
        "runs": suspects.runs,
        "settings": suspects.settings,
        "covered": int(suspects.covered.sum()),
        "accuracy": suspects.accuracy,
        "suspects": len(suspects.places),
        "by_label": {name: int((found.labels[chosen] == name).sum()) for name in EMOTIONS},
        "by_suggestion": {name: int((suspects.predicted[chosen] == i).sum()) for i, name in enumerate(EMOTIONS)},
        "by_split": {name: int((found.splits[chosen] == name).sum()) for name in present(found.splits)},
        "votes": answers_of(found, suspects, {"suspects": chosen, "others": suspects.covered & ~chosen}),
    }


def answers_of(
    found: Found, suspects: Suspects, parts: dict[str, NDArray[np.bool_]]
) -> dict[str, dict[str, int]] | None:
    """Return of each part how often FER+'s most frequent answer is the given, the predicted, or another label."""
    if found.faces.votes is None:
        return None
    answers, given = COLUMN_EMOTIONS[found.faces.votes.argmax(1)], found.faces.targets
    told = {}
    for name, own in parts.items():
        right, wrong = answers[own] == given[own], answers[own] == suspects.predicted[own]
        told[name] = {
            "faces": int(own.sum()),
            "as_given": int(right.sum()),
            "as_predicted": int(wrong.sum()),
            "neither": int((~right & ~wrong).sum()),
        }
    return told


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


def advice_counts(advice: Sequence[Advice]) -> dict[str, Any]:
    """Return suggestion -> faces and, by reason, how many of them; a face may have several reasons."""
    told: dict[str, Any] = {}
    for kind in (EXCLUDE, LOOK, RELABEL.rstrip(":")):
        own = [one for one in advice if one.suggestion.startswith(kind)]
        reasons = Counter(one.reason for one in own)
        told[kind] = {"faces": len({one.place for one in own}), "reasons": dict(reasons.most_common())}
    return told
