"""Suspect labels: labels contradicted by networks that were not trained on the face (extra ``labels``).

Out-of-fold predictions come from finished runs, each of which has predicted its own val, such as ``sweep=folds``.
Suspects are found by confident learning (C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 70, 2021) as cleanlab has it. Its two ways, by class and by noise rate, have to
agree. The networks err more often than the labels: a person has to judge each suspect.
"""

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data import exclude
from fer.data.audit.inspection import Suspects
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS
from fer.runs import predictions, run_folder
from fer.system.files import read_json, readable
from fer.system.records import read

log = logging.getLogger(__name__)

AGREE = "both"  # cleanlab's filter: labels that both prune_by_class and prune_by_noise_rate name


@dataclass(frozen=True)
class _Data:
    fingerprint: str
    split: str


@dataclass(frozen=True)
class _Run:
    """The part of a run's ``metrics.json`` that is read here."""

    architecture: str
    epochs: int
    dataset: _Data


def require_cleanlab() -> None:
    """Raise where cleanlab is missing.

    Raises:
        FerError: naming the command that installs it.
    """
    if importlib.util.find_spec("cleanlab") is None:
        raise FerError("--predictions needs cleanlab, which is not installed: pip install 'fer-lightning[labels]'")


def find(faces: Faces, paths: Sequence[Path]) -> Suspects:
    """Return the labels that the finished runs at or below ``paths`` contradict.

    Args:
        faces: N faces.
        paths: runs, sweeps, or folders that hold them.

    Raises:
        FerError: there is no finished run, one cannot be read or is of other data, or two have predicted one face.
    """
    folders = run_folder.find(paths)
    known = {faces.fingerprint(), exclude.fingerprint(faces)}
    chances = np.full((len(faces), len(EMOTIONS)), np.nan)
    whose = np.full(len(faces), UNKNOWN)
    settings: dict[str, None] = {}
    for number, folder in enumerate(folders):
        settings[described(folder, known, faces)] = None
        indices, values = predicted(folder / "predictions.csv", faces)
        twice = indices[whose[indices] != UNKNOWN]
        if twice.size:
            raise FerError(
                f"row {faces.rows[twice[0]]} is predicted by {folders[whose[twice[0]]]} and by {folder}; name runs "
                "that have predicted each face once, such as those of sweep=folds"
            )
        chances[indices], whose[indices] = values, number
    return contradicted(faces, chances, [str(folder) for folder in folders], "; ".join(settings))


def described(folder: Path, known: set[str], faces: Faces) -> str:
    """Return a run's network, epochs and split in words.

    Raises:
        FerError: it is of other data, or cannot be read.
    """
    file = folder / "metrics.json"
    with readable(file):
        run = read(_Run, read_json(file))
    fingerprint = run.dataset.fingerprint
    if fingerprint not in known:
        raise FerError(
            f"{folder}: is of other data than {faces.source.path} (fingerprint {fingerprint[:12]}, here "
            f"{faces.fingerprint()[:12]}); audit the data of its training, at its --image-size"
        )
    return f"{run.architecture}, {run.epochs} epochs, split {run.dataset.split}"


def predicted(file: Path, faces: Faces) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return indices (K,) of the faces that a run has predicted, and the probabilities (K, C).

    Raises:
        FerError: the file is missing, damaged, of other classes, or has other labels than the faces.
    """
    table = predictions.read(file)
    index_of = {row: index for index, row in enumerate(faces.rows.tolist())}
    with readable(file):
        if table.classes != EMOTIONS:
            raise ValueError(f"predicts {', '.join(table.classes)}, not {', '.join(EMOTIONS)}")
        indices = np.array([index_of[row] for row in table.rows.tolist()], np.int64)
        for row, index, target in zip(table.rows.tolist(), indices.tolist(), table.targets, strict=True):
            if faces.targets[index] != EMOTIONS.index(target):
                raise ValueError(f"row {row} is {target}, which is not its label here")
    return indices, table.probabilities


def contradicted(faces: Faces, chances: NDArray[np.float64], folders: list[str], settings: str) -> Suspects:
    """Return the suspect labels, given the predictions.

    Args:
        faces: N faces.
        chances: (N, C) probabilities; NaN where a face is not predicted.
        folders: of the runs.
        settings: of the runs, in words.

    Raises:
        FerError: no faces of two labels are predicted.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    indices = np.flatnonzero(np.isfinite(chances[:, 0]) & (faces.targets != UNKNOWN))
    if len(set(faces.targets[indices].tolist())) < 2:
        raise FerError(f"{', '.join(folders)}: have predicted no faces of two labels; one alone cannot be judged")
    labels, probabilities = faces.targets[indices].astype(np.int64), chances[indices]
    probabilities = probabilities / probabilities.sum(1, keepdims=True)  # the file holds six digits
    answers = probabilities.argmax(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        issues: NDArray[np.bool_] = find_label_issues(labels, probabilities, filter_by=AGREE, n_jobs=1)
    if messages := list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)):
        log.warning("cleanlab warns %d times, first: %s", len(messages), messages[0])
    quality = np.full(len(faces), np.nan)
    quality[indices] = get_label_quality_scores(labels, probabilities, method="self_confidence")
    predicted = np.full(len(faces), UNKNOWN, np.int8)
    predicted[indices] = answers
    suspects = indices[issues & (answers != labels)]
    covered = np.zeros(len(faces), np.bool_)
    covered[indices] = True
    ranked = suspects[np.argsort(quality[suspects], kind="stable")]
    return Suspects(folders, covered, predicted, quality, ranked, float((answers == labels).mean()), settings)
