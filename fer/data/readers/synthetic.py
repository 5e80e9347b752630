"""Drawn faces as a data set with an official split, for use without FER2013."""

import numpy as np

from fer.config.errors import FerError, setting, takes
from fer.config.settings import DataSettings
from fer.data.draws import stratified
from fer.data.faces import Faces, Source
from fer.data.labels import folder_names, naming
from fer.data.readers.drawing import draw_faces

NAME = "synthetic"  # value of data.path and --data
HELD_OUT = 0.2  # share of val and test together, half each


def drawn(data: DataSettings) -> Faces:
    """Return drawn faces.

    Raises:
        FerError: the settings ask for votes, labels or colours that drawn faces do not have.
    """
    drawn_as = {
        "votes": (None, "drawn faces have no votes; leave it out or name FER2013's table"),
        "labels": ("fer2013", "drawn faces have no votes to make labels of; leave it out"),
        "class_names": (None, "drawn faces are in no folders of classes; leave it out"),
        "channels": (1, "drawn faces are grey; leave it out"),
    }
    for key, (only, remedy) in drawn_as.items():
        if (value := getattr(data, key)) not in (only, {}):
            if key == "channels" and not takes("data.channels"):
                raise FerError("drawn faces are grey, and the network takes 3 channels; name pictures in colour")
            given = naming(folder_names(value)) if key == "class_names" else setting(f"data.{key}", value)
            raise FerError(f"{given}: {remedy}")
    return read(data.synthetic_count, seed=data.synthetic_seed, image_size=data.image_size)


def read(count: int, *, seed: int, image_size: int) -> Faces:
    """Draw ``count`` faces: 80 % train, 10 % val, 10 % test, with equal shares of each class.

    Raises:
        ValueError: too few faces or too small an image.
    """
    images, labels = draw_faces(count, seed=seed, image_size=image_size)
    targets = labels.astype(np.int8)
    splits = np.zeros(count, np.int8)
    held_out = stratified(targets, HELD_OUT, seed)
    splits[held_out] = 1
    splits[held_out[stratified(targets[held_out], 0.5, seed)]] = 2
    return Faces(
        images=images,
        targets=targets,
        official=splits,
        given=splits,
        rows=np.arange(count, dtype=np.int64),
        source=Source(name="synthetic", layout=f"{count:,} drawn faces, seed {seed}", path=NAME, labels="drawn"),
    )
