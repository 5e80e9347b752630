"""Read or draw the faces that the data settings name, join votes, choose labels and resize.

Only resizing imports torch.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data import cache, readers
from fer.data.faces import Faces
from fer.data.readers import synthetic
from fer.data.readers.ferplus import VOTES_ALONE, join_votes
from fer.data.votes import relabelled


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
        return synthetic.read(data.synthetic_count, seed=data.synthetic_seed, image_size=data.image_size)
    folder = cache.folder_of(data.cache)
    faces = readers.read(Path(data.path), image_size=data.image_size, on_bad=data.on_bad, cache=folder)
    if data.votes is not None:
        faces = join_votes(faces, Path(data.votes))
    faces = labelled(faces, data)
    return faces if faces.image_size == data.image_size else resized(faces, data.image_size)


def labelled(faces: Faces, data: DataSettings) -> Faces:
    """Return the faces with the labels that ``data`` names; faces of FER+'s folders have votes as their only labels.

    Raises:
        FerError: ``data.labels=ferplus``, and the faces have no votes.
    """
    if data.labels == "ferplus":
        return relabelled(faces, data.ferplus_rule, data.classes)
    return relabelled(faces, "argmax", data.classes) if faces.source.labels == VOTES_ALONE else faces


def resized(faces: Faces, side: int) -> Faces:
    """Return the faces resampled to ``side`` x ``side`` pixels, with antialiasing."""
    import torch
    from torchvision.transforms import v2

    images = np.empty((len(faces), side, side), np.uint8)
    for start in range(0, len(faces), 1024):
        block = torch.from_numpy(np.array(faces.images[start : start + 1024]))[:, None]
        images[start : start + 1024] = v2.functional.resize(block, [side, side], antialias=True)[:, 0].numpy()
    return replace(faces, images=images)
