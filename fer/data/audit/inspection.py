"""What an audit finds in a table of faces: classes by split, twins, near twins, non-faces, votes, brightness, contrast.

found = examine(faces, split_of(faces, None, settings), quick=False)
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.audit import near_duplicates
from fer.data.audit.near_duplicates import NearTwins
from fer.data.duplicates import conflicts, exact_twins, one_colour
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS, SPLITS
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.data.splits import Rule, assigned

LABELS = np.array([*EMOTIONS, "unlabelled"])  # an unlabelled face's target is -1, which counts from the end
SHEET, SHEET_SEED = 24, 0  # faces of each class that are shown, and the seed of their draw
EXTREMES = 100  # faces of each kind that are listed
# Standard deviation of the pixels, in levels of grey, below which a picture shows nothing. Of FER2013's faces two that
# are not of one colour lie below, at 0.7 and 4.1, and show none; the next, at 9.1, is a dim portrait.
FLAT = 5.0
NOT_A_FACE = FERPLUS_COLUMNS.index("NF")
BLOCK = 1024  # faces at a time, whose floats stay small beside the table
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


class NoFaces(NamedTuple):
    """Which of N pictures show no face.

    Args:
        voted: (N,) whether more than half of the FER+ votes say so; none where there are no votes.
        likely: (N,) whether it is the most frequent of the FER+ answers.
        flat: (N,) whether the pixels differ, but so little (``FLAT``) that they show nothing.
    """

    voted: NDArray[np.bool_]
    likely: NDArray[np.bool_]
    flat: NDArray[np.bool_]


class Suspects(NamedTuple):
    """Labels that networks which have not seen the faces contradict, of N faces.

    Args:
        runs: folders of the runs that predicted, in order.
        covered: (N,) whether a face was predicted.
        predicted: (N,) the likeliest label, index in ``EMOTIONS``; ``UNKNOWN`` where not covered.
        quality: (N,) cleanlab's label quality score, here the probability of the given label; NaN where not covered.
        places: of the K suspects, the least likely label first.
        accuracy: of the predictions.
        settings: split rule and network of the runs, in words.
    """

    runs: list[str]
    covered: NDArray[np.bool_]
    predicted: NDArray[np.int8]
    quality: NDArray[np.float64]
    places: NDArray[np.int64]
    accuracy: float
    settings: str


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
        near: groups of near twins; None in a quick audit.
        near_conflicting: whether the labels within each of them differ; empty in a quick audit.
        no_faces: which pictures show none; those of one colour are not among them.
        suspects: labels that predictions contradict; None without predictions.
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
    near: NearTwins | None
    near_conflicting: NDArray[np.bool_]
    no_faces: NoFaces
    suspects: Suspects | None
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
        why = (
            str(error).partition(";")[0].removeprefix(f"{setting('data.split', 'official')}: ")
        )  # the rest is advice for training
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


def examine(faces: Faces, split: Split, *, quick: bool, suspects: Suspects | None = None) -> Found:
    """Look through the table; a quick look leaves out near twins, brightness and contrast."""
    groups = exact_twins(faces.images)
    labels, plain = LABELS[faces.targets], one_colour(faces.images)
    light = None if quick else brightness_and_contrast(faces.images)
    no_faces = without_face(faces, light, plain)
    near = None if quick else near_duplicates.near_twins(faces.images, groups, plain | no_faces.flat)
    return Found(
        faces=faces,
        split=split,
        labels=labels,
        splits=split.names(),
        sheets=draw_sheets(labels),
        groups=groups,
        conflicting=conflicts(groups, faces.targets),
        one_colour=plain,
        near=near,
        near_conflicting=conflicts(near.groups if near else [], faces.targets),
        no_faces=no_faces,
        suspects=suspects,
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


def without_face(faces: Faces, light: Light | None, plain: NDArray[np.bool_]) -> NoFaces:
    """Return which pictures show no face, by the votes where there are any and by their contrast where it is known.

    Args:
        faces: the table.
        light: brightness and contrast.
        plain: (N,) which are of one colour; they are no part of the flat ones.
    """
    nothing = np.zeros(len(faces), np.bool_)
    flat = nothing if light is None else (light.spread < FLAT) & ~plain
    if faces.votes is None:
        return NoFaces(nothing, nothing, flat)
    given, votes = faces.votes.sum(1, dtype=np.int64), faces.votes[:, NOT_A_FACE].astype(np.int64)
    return NoFaces(2 * votes > given, faces.votes.argmax(1) == NOT_A_FACE, flat)


def extremes(light: Light, plain: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """Return kind -> places of its ``EXTREMES`` most extreme faces; one-colour ones, which would lead, are left out."""
    places = np.flatnonzero(~plain)
    ranked = {"darkest": light.mean, "brightest": -light.mean, "flattest": light.spread}
    return {kind: places[np.argsort(values[places], kind="stable")[:EXTREMES]] for kind, values in ranked.items()}


def present(splits: NDArray[np.str_]) -> list[str]:
    """Return the names of the splits that hold faces, in their usual order."""
    return [name for name in (*SPLITS, "no split", "all") if (splits == name).any()]
