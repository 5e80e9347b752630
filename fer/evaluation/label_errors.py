"""Suspect labels: those that networks contradict which have not seen the face (extra ``labels``).

Out-of-fold predictions come from finished runs, each of which has predicted its own val, such as ``sweep=folds``. Whose
label is suspect is decided by confident learning (C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident Learning:
Estimating Uncertainty in Dataset Labels", JAIR 70, 2021) as cleanlab has it, where both of its ways agree, by class and
by noise rate. The networks err more often than the labels: a suspect is one to look at.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data import exclude
from fer.data.audit.inspection import Suspects
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS
from fer.runs import predictions, run_folder
from fer.system.files import readable

log = logging.getLogger(__name__)

AGREE = "both"  # of cleanlab's filters: what both prune_by_class and prune_by_noise_rate name


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
        paths: runs, sweeps, or what holds them.

    Raises:
        FerError: there is no finished run, one cannot be read or is of other data, or two have predicted one face.
    """
    folders = run_folder.find(paths)
    known = {faces.fingerprint(), exclude.fingerprint(faces)}
    chances = np.full((len(faces), len(EMOTIONS)), np.nan)
    whose = np.full(len(faces), UNKNOWN)
    told: dict[str, None] = {}
    for number, folder in enumerate(folders):
        told[described(folder, known, faces)] = None
        places, values = predicted(folder / "predictions.csv", faces)
        twice = places[whose[places] != UNKNOWN]
        if twice.size:
            raise FerError(
                f"row {faces.rows[twice[0]]} is predicted by {folders[whose[twice[0]]]} and by {folder}; name runs "
                "that have predicted each face once, such as those of sweep=folds"
            )
        chances[places], whose[places] = values, number
    return contradicted(faces, chances, [str(folder) for folder in folders], "; ".join(told))


def described(folder: Path, known: set[str], faces: Faces) -> str:
    """Return a run's network, epochs and split in words.

    Raises:
        FerError: it is of other data, or cannot be read.
    """
    file = folder / "metrics.json"
    with readable(file):
        metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        dataset = metrics["dataset"]
        seen, rule = dataset["fingerprint"], dataset["split"]
        words = f"{metrics['architecture']}, {metrics['epochs']} epochs, split {rule}"
    if seen not in known:
        raise FerError(
            f"{folder}: is of other data than {faces.source.path} (fingerprint {seen[:12]}, here "
            f"{faces.fingerprint()[:12]}); audit what it was trained on, at its --image-size"
        )
    return words


def predicted(file: Path, faces: Faces) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return places (K,) of the faces that a run has predicted, and the probabilities (K, C).

    Raises:
        FerError: the file is missing, damaged, of other classes, or tells other labels than the faces have.
    """
    said = predictions.read(file)
    place_of = {row: place for place, row in enumerate(faces.rows.tolist())}
    with readable(file):
        if said.classes != EMOTIONS:
            raise ValueError(f"tells {', '.join(said.classes)}, not {', '.join(EMOTIONS)}")
        places = np.array([place_of[row] for row in said.rows.tolist()], np.int64)
        for row, place, target in zip(said.rows.tolist(), places.tolist(), said.targets, strict=True):
            if faces.targets[place] != EMOTIONS.index(target):
                raise ValueError(f"row {row} is {target}, which is not its label here")
    return places, said.probabilities


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

    places = np.flatnonzero(np.isfinite(chances[:, 0]) & (faces.targets != UNKNOWN))
    if len(set(faces.targets[places].tolist())) < 2:
        raise FerError(f"{', '.join(folders)}: have predicted no faces of two labels; one alone cannot be judged")
    given, own = faces.targets[places].astype(np.int64), chances[places]
    own = own / own.sum(1, keepdims=True)  # the file holds six digits
    guessed = own.argmax(1)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        issues: NDArray[np.bool_] = find_label_issues(given, own, filter_by=AGREE, n_jobs=1)
    if said := list(dict.fromkeys(" ".join(str(one.message).split()) for one in heard)):
        log.warning("cleanlab warns %d times, first: %s", len(said), said[0])
    quality = np.full(len(faces), np.nan)
    quality[places] = get_label_quality_scores(given, own, method="self_confidence")
    predicted = np.full(len(faces), UNKNOWN, np.int8)
    predicted[places] = guessed
    suspects = places[issues & (guessed != given)]
    covered = np.zeros(len(faces), np.bool_)
    covered[places] = True
    ranked = suspects[np.argsort(quality[suspects], kind="stable")]
    return Suspects(folders, covered, predicted, quality, ranked, float((guessed == given).mean()), settings)
