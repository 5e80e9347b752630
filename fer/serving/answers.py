"""The answer to a picture.

The answer is the record of ``fer predict``, notes in words, and on request a map of each face.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from fer.data.readers.images import read_colour, read_grey
from fer.inference import detect
from fer.inference.explain import OCCLUSION, Explained, explained
from fer.inference.predictor import Answer, Face, Predictor
from fer.inference.records import record
from fer.reports.explanation.overlay import overlay
from fer.reports.html import data_url
from fer.serving.limits import Limits
from fer.serving.upload import Upload
from fer.system.text import plural


class GivenUp(Exception):
    """Nobody waits for an answer any more."""


def answer(
    predictor: Predictor, upload: Upload, limits: Limits, *, maps: bool, given_up: Event
) -> Mapping[str, object]:
    """Return the answer to a picture as plain values.

    A client may leave meanwhile. Then the work ends before its next part: a search of the picture or of the
    surroundings of a face, or one face's map.

    Args:
        predictor: what predicts.
        upload: the picture.
        limits: of its pixels, and of the faces with a map.
        maps: whether the record of each face gets its ``map``, a PNG as a data URL.
        given_up: set by another thread where the answer is not needed any more.

    Raises:
        PictureError: it cannot be read.
        GivenUp: nobody waits any more.
    """
    picture = (read_colour if predictor.in_colour else read_grey)(upload.contents, limits.pixels)
    _go_on(given_up)
    with detect.before_each_search(lambda: _go_on(given_up)):
        found = predictor.answer(picture)
    contents = record(Path(upload.name), found)
    if maps:
        drawn = maps_of(predictor, found, limits.maps, given_up)
        contents["faces"] = [face | {"map": map_} for face, map_ in zip(contents["faces"], drawn, strict=True)]
    return contents | {"notes": notes(found, limits, maps=maps)}


def _go_on(given_up: Event) -> None:
    if given_up.is_set():
        raise GivenUp


def notes(found: Answer, limits: Limits, *, maps: bool) -> list[str]:
    """Return what was left out, in words."""
    words = []
    if found.too_small:
        words.append(f"{plural(found.too_small, 'face')} below 24 pixels left out.")
    if maps and len(found.faces) > limits.maps:
        words.append(f"The {limits.maps} largest of {len(found.faces):,} faces have a map.")
    return words


def maps_of(predictor: Predictor, found: Answer, most: int, given_up: Event) -> Sequence[str | None]:
    """Return a map of what speaks for the predicted emotion of each face; None beyond the ``most`` largest.

    Raises:
        GivenUp: nobody waits any more.
    """
    drawn = []
    for crop, inputs, face in zip(found.crops[:most], found.inputs, found.faces, strict=False):
        _go_on(given_up)
        drawn.append(map_of(predictor, crop, inputs, face))
    return [*drawn, *[None] * (len(found.faces) - len(drawn))]


def map_of(predictor: Predictor, crop: NDArray[np.uint8], inputs: NDArray[np.uint8], face: Face) -> str:
    """Return the map of a face's predicted emotion as a data URL.

    Args:
        predictor: of the face.
        crop: (S, S) of the face, grey.
        inputs: (1, S, S), in colour (3, S, S), as the network takes it.
        face: what is predicted for it.
    """
    emotions = np.array([[predictor.emotions.index(face.emotion)]])  # (1, 1)
    ((map_,),) = explained(Explained([predictor.network]), OCCLUSION, inputs[None], emotions)  # (S, S)
    return data_url(overlay(crop, map_, float(np.abs(map_).max())))
