"""The inspection of a data set for an audit.

It covers splits, duplicates, near duplicates, pictures without a face, brightness and contrast.

findings = examine(faces, split_of(faces, None, settings), quick=False)
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings, SplitRule
from fer.data.audit import moved_copies, near_duplicates
from fer.data.audit.moved_copies import Moved
from fer.data.audit.near_duplicates import NearDuplicates
from fer.data.duplicates import conflicts, exact_duplicates, one_colour
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS, SPLITS
from fer.data.load import assigned
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.data.split_notes import missing_classes, official_notes
from fer.metrics.results import MissingClasses

LABELS = np.array([*EMOTIONS, "unlabelled"])  # the target of an unlabelled face is -1, the last index
SHEET, SHEET_SEED = 24, 0  # number of faces shown of each class, and the seed of their random draw
EXTREMES = 100  # number of faces listed of each kind
NOT_A_FACE = FERPLUS_COLUMNS.index("NF")
BLOCK = 1024  # faces converted to float at once: little memory compared with the table
AS_GIVEN = "as given by the source's own folders or files"


class Split(NamedTuple):
    """The split of each face.

    Args:
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        rule: "official", "as_given", "holdout", or "all" if the source has no split.
        meaning: explanation of the rule for these faces.
        why: reason why the official rule, the default, does not apply; else empty.
        missing: classes without a face in a split.
        cautions: what makes results on these splits incomparable.
        trains: whether a training can use the rule.
    """

    splits: NDArray[np.int8]
    rule: str
    meaning: str
    why: str = ""
    missing: MissingClasses | None = None
    cautions: tuple[str, ...] = ()
    trains: bool = True

    def names(self) -> NDArray[np.str_]:
        """Return the name of each face's split, (N,)."""
        rest = "all" if self.rule == "all" else "no split"
        return np.array([*SPLITS, rest])[self.splits]  # UNKNOWN is -1, the last index


class Light(NamedTuple):
    """Brightness and contrast of N faces.

    Args:
        mean: (N,) mean of the pixels, in grey levels, 0 to 255.
        spread: (N,) standard deviation of the pixels, 0 to 127.5.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


class NoFaces(NamedTuple):
    """Pictures without a face, of N.

    Args:
        voted: (N,) whether more than half of the FER+ votes are "not a face"; all False without votes.
        likely: (N,) whether "not a face" is the most frequent FER+ answer.
        flat: (N,) whether the pixels differ by so little (``near_duplicates.FLAT``) that no face is visible.
    """

    voted: NDArray[np.bool_]
    likely: NDArray[np.bool_]
    flat: NDArray[np.bool_]


class Suspects(NamedTuple):
    """Labels contradicted by networks that were not trained on these faces, of N faces.

    Args:
        runs: folders of the runs that predicted, in order.
        covered: (N,) whether a face has a prediction.
        predicted: (N,) predicted label, index in ``EMOTIONS``; ``UNKNOWN`` without a prediction.
        quality: (N,) cleanlab's label quality score, here the probability of the given label; NaN without a prediction.
        indices: (K,) indices of the suspects, the least likely label first.
        accuracy: of the predictions.
        settings: description of the split rule and network of the runs.
    """

    runs: list[str]
    covered: NDArray[np.bool_]
    predicted: NDArray[np.int8]
    quality: NDArray[np.float64]
    indices: NDArray[np.int64]
    accuracy: float
    settings: str


@dataclass(frozen=True)
class Findings:
    """The results of an inspection of N faces. Faces are given by their indices in the table.

    Args:
        faces: the table.
        split: the split of each face.
        labels: (N,) names of the emotions, or "unlabelled".
        splits: (N,) names of the splits; "no split" for faces in none, "all" if the source has no split.
        sheets: label -> indices of a random draw of its faces.
        groups: indices of the faces of each of G groups of exact duplicates.
        conflicting: (G,) whether the labels within a group differ.
        one_colour: (N,) whether all pixels of a face are equal.
        near: groups of near duplicates; None in a quick audit.
        near_conflicting: whether the labels within each near group differ; empty in a quick audit.
        moved: faces of val and test with a moved copy in train; None in a quick audit, or without these splits.
        no_faces: pictures without a face, other than those of one colour.
        suspects: labels that predictions contradict; None without predictions.
        light: brightness and contrast; None in a quick audit.
        extremes: "darkest", "brightest" and "flattest" -> indices, the most extreme first; empty in a quick audit.
    """

    faces: Faces
    split: Split
    labels: NDArray[np.str_]
    splits: NDArray[np.str_]
    sheets: dict[str, NDArray[np.int64]]
    groups: list[NDArray[np.int64]]
    conflicting: NDArray[np.bool_]
    one_colour: NDArray[np.bool_]
    near: NearDuplicates | None
    near_conflicting: NDArray[np.bool_]
    moved: Moved | None
    no_faces: NoFaces
    suspects: Suspects | None
    light: Light | None
    extremes: dict[str, NDArray[np.int64]]


def split_of(faces: Faces, rule: SplitRule | None, settings: DataSettings) -> Split:
    """Return the split by ``rule``; by default the official one, else the source's own.

    Raises:
        FerError: ``rule`` is given and does not apply to the faces.
    """
    tried: SplitRule = rule or "official"
    try:
        settings = replace(settings, split=tried)
        splits = assigned(faces, settings)
        missing, cautions = missing_classes(faces, splits, settings), tuple(official_notes(faces, tried))
        return Split(splits, tried, meaning(faces, tried), missing=missing, cautions=cautions)
    except FerError as error:
        if rule is not None:
            raise
        problem = str(error).partition(";")[0]  # the rest is advice for training
        why = problem.removeprefix(f"{setting('data.split', 'official')}: ")
    if (faces.given != UNKNOWN).any():
        settings, meant, splits, trains = replace(settings, split="as_given"), AS_GIVEN, faces.given, False
        with suppress(FerError):  # as a training would draw val; the folders alone where it cannot
            meant, splits, trains = meaning(faces, "as_given"), assigned(faces, settings), True
        return Split(splits, "as_given", meant, why, missing_classes(faces, splits, settings), trains=trains)
    return Split(faces.given, "all", "none, the source has no split", why, trains=False)


def meaning(faces: Faces, rule: SplitRule) -> str:
    """Return the explanation of a split rule for these faces."""
    if rule == "holdout":
        return "holdout, a seeded and stratified 80/20 of everything"
    if rule == "as_given":
        return AS_GIVEN if (faces.given == SPLITS.index("val")).any() else f"{AS_GIVEN}, val drawn from train"
    if official_notes(faces, rule):
        return "official by the names of files or the column Usage"
    drawn = faces.source.path == SYNTHETIC
    return "official" if drawn else "official (train is Training, val PublicTest, test PrivateTest)"


def examine(faces: Faces, split: Split, *, quick: bool, suspects: Suspects | None = None) -> Findings:
    """Inspect the faces; ``quick`` leaves out near and moved copies, brightness and contrast."""
    groups = exact_duplicates(faces.images)
    labels, plain = LABELS[faces.targets], one_colour(faces.images)
    light = None if quick else brightness_and_contrast(faces.images)
    no_faces = without_face(faces, light, plain)
    unclear = plain | no_faces.flat
    near = None if quick else near_duplicates.find_groups(faces.images, groups, unclear)
    return Findings(
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
        moved=moved_copies.of_train(faces.images, split.splits, [groups, near.groups], unclear) if near else None,
        no_faces=no_faces,
        suspects=suspects,
        light=light,
        extremes={} if light is None else extremes(light, plain),
    )


def draw_sheets(labels: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    """Return label -> indices of ``SHEET`` faces drawn at random, or of all faces if there are fewer."""
    sheets = {}
    for name in LABELS:
        indices = np.flatnonzero(labels == name)
        if indices.size:
            sheets[str(name)] = np.sort(np.random.default_rng(SHEET_SEED).permutation(indices)[:SHEET])
    return sheets


def brightness_and_contrast(images: NDArray[np.uint8]) -> Light:
    """Return the mean and standard deviation of the pixels of each face.

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
    """Return the pictures without a face, by votes if there are any and by contrast if it is known.

    Args:
        faces: the table.
        light: brightness and contrast.
        plain: (N,) whether a picture is of one colour; such pictures do not count as flat.
    """
    none = np.zeros(len(faces), np.bool_)
    flat = none if light is None else (light.spread < near_duplicates.FLAT) & ~plain
    if faces.votes is None:
        return NoFaces(none, none, flat)
    total, votes = faces.votes.sum(1, dtype=np.int64), faces.votes[:, NOT_A_FACE].astype(np.int64)
    return NoFaces(2 * votes > total, faces.votes.argmax(1) == NOT_A_FACE, flat)


def extremes(light: Light, plain: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """Return kind -> indices of the ``EXTREMES`` most extreme faces, without pictures of one colour."""
    indices = np.flatnonzero(~plain)
    ranked = {"darkest": light.mean, "brightest": -light.mean, "flattest": light.spread}
    return {kind: indices[np.argsort(values[indices], kind="stable")[:EXTREMES]] for kind, values in ranked.items()}


def present(splits: NDArray[np.str_]) -> list[str]:
    """Return the names of the splits that contain faces: train, val, test, others."""
    return [name for name in (*SPLITS, "no split", "all") if (splits == name).any()]
