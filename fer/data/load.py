"""Read or draw the faces that the data settings name, join votes, choose labels and resize."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data import cache, readers, resize
from fer.data.faces import Faces
from fer.data.labels import EMOTIONS, FERPLUS_EMOTIONS, emotion_index
from fer.data.readers import synthetic
from fer.data.readers.ferplus import VOTES_ALONE, join_votes
from fer.data.rows import outside
from fer.data.votes import relabelled
from fer.system.text import plural

log = logging.getLogger(__name__)


def read_faces(data: DataSettings) -> Faces:
    """Return the faces that ``data`` names, with votes and labels.

    Raises:
        FerError: the data are missing or bad.
    """
    if data.path is None:
        raise FerError("data.path is not set; give a table, an archive, a folder or 'synthetic'")
    if data.path == synthetic.NAME:
        if data.votes is not None:
            raise FerError(
                f"{setting('data.votes', data.votes)}: drawn faces have no votes; leave it out or name FER2013's table"
            )
        if data.channels == 3:
            raise FerError(f"{setting('data.channels', 3)}: drawn faces are grey; set data.channels=1")
        return synthetic.read(data.synthetic_count, seed=data.synthetic_seed, image_size=data.image_size)
    folder, names = cache.folder_of(data.cache), folder_names(data.class_names or {})
    faces = readers.read(
        Path(data.path), image_size=data.image_size, on_bad=data.on_bad, cache=folder, names=names,
        memory_limit_gb=data.memory_limit_gb, channels=data.channels,
    )  # fmt: skip
    if data.votes is not None:
        faces = join_votes(faces, Path(data.votes))
    faces = labelled(faces, data)
    return faces if faces.image_size == data.image_size else resized(faces, data.image_size)


def labelled(faces: Faces, data: DataSettings) -> Faces:
    """Return the faces with the labels that ``data`` names; faces of FER+'s folders have votes as their only labels.

    Raises:
        FerError: ``data.labels=ferplus``, and the faces have no votes; ``data.classes=8``, and none shows contempt.
    """
    if data.labels == "ferplus":
        return relabelled(faces, data.ferplus_rule, data.classes)
    if faces.source.labels == VOTES_ALONE:
        return relabelled(faces, "argmax", data.classes)
    if data.classes == 8 and len(faces.classes) < 8:
        raise FerError(
            f"data.classes=8: {data.path} labels no face as contempt; FER+ does "
            f"({setting('data.labels', 'ferplus')} and {setting('data.votes')}), otherwise set data.classes=7"
        )
    return without_contempt(faces) if data.classes < len(faces.classes) else faces


def without_contempt(faces: Faces) -> Faces:
    """Return the faces of FER2013's seven emotions; a note counts those that were left out."""
    kept = np.flatnonzero(faces.targets < len(EMOTIONS))
    if not kept.size:
        raise FerError(f"{faces.source.path}: has pictures of contempt alone; data.classes=8 takes them")
    return replace(faces.taken(kept), classes=EMOTIONS).noted(
        f"{plural(len(faces) - len(kept), 'image')} of contempt left out (data.classes=8 takes them)"
    )


def folder_names(given: Mapping[str, str]) -> dict[str, str]:
    """Return class folder, in small letters -> emotion, from ``data.class_names``.

    Raises:
        FerError: a value is no emotion.
    """
    for folder, emotion in given.items():
        if emotion_index(str(emotion), FERPLUS_EMOTIONS) is None:
            named = setting("data.class_names", f"{{{folder}:{emotion}}}")
            raise FerError(f"{named}: {str(emotion)!r} is no emotion; expected one of {', '.join(FERPLUS_EMOTIONS)}")
    return {str(folder).strip().lower(): emotion for folder, emotion in given.items()}


def resized(faces: Faces, side: int) -> Faces:
    """Return the faces resampled to ``side`` x ``side`` pixels, with antialiasing."""

    def smaller(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        resampled = np.empty((len(images), *images.shape[1:-2], side, side), np.uint8)
        for start in range(0, len(images), 1024):
            resampled[start : start + 1024] = resize.resized(np.array(images[start : start + 1024]), side)
        return resampled

    if outside(faces.images) is not None:
        size = len(faces) * side**2 / 1e9
        log.info("  resized from %d to %d px: %.2f GB in memory", faces.image_size, side, size)
    return replace(faces, images=smaller(faces.images), colour=None if faces.colour is None else smaller(faces.colour))
