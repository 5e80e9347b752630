"""What is answered to a picture: the record of ``fer predict``, notes in words, and on request a map of each face."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fer.data.readers.images import read_grey
from fer.inference.explain import Explained, explained
from fer.inference.loaded import LoadedNetwork
from fer.inference.predictor import Answer, Predictor
from fer.inference.records import record
from fer.reports.explanation.overlay import overlay
from fer.reports.html import data_url
from fer.serving.limits import Limits
from fer.serving.upload import Upload
from fer.system.text import plural

METHOD = "occlusion"  # needs nothing but probabilities


def answer(predictor: Predictor, upload: Upload, limits: Limits, *, maps: bool) -> Mapping[str, object]:
    """Return the answer to a picture as plain values.

    Args:
        predictor: what predicts.
        upload: the picture.
        limits: of its pixels, and of the faces with a map.
        maps: whether the record of each face gets its ``map``, a PNG as a data URL.

    Raises:
        PictureError: it cannot be read.
    """
    found = predictor.answer(read_grey(upload.contents, limits.pixels))
    contents = record(Path(upload.name), found)
    if maps:
        drawn = maps_of(predictor, found, limits.maps)
        contents["faces"] = [face | {"map": map_} for face, map_ in zip(contents["faces"], drawn, strict=True)]
    return contents | {"notes": notes(found, limits, maps=maps)}


def notes(found: Answer, limits: Limits, *, maps: bool) -> list[str]:
    """Return what was left out, in words."""
    words = []
    if found.too_small:
        words.append(f"{plural(found.too_small, 'face')} below 24 pixels left out.")
    if maps and len(found.faces) > limits.maps:
        words.append(f"The {limits.maps} largest of {len(found.faces):,} faces have a map.")
    return words


def maps_of(predictor: Predictor, found: Answer, most: int) -> Sequence[str | None]:
    """Return a map of what speaks for the predicted emotion of each face; None beyond the ``most`` largest.

    An exported file has no maps, nor has a network of colour.
    """
    crops, network = list(found.crops[:most]), predictor.network
    if not crops or not isinstance(network, LoadedNetwork) or predictor.in_colour:
        return [None] * len(found.faces)
    faces = torch.from_numpy(np.stack(crops)[:, None])  # (N, 1, S, S) uint8
    emotions = torch.tensor([[predictor.emotions.index(face.emotion)] for face in found.faces[:most]])  # (N, 1)
    maps = explained(Explained([network.model]), METHOD, faces, emotions)[:, 0].numpy()  # (N, S, S)
    drawn = [data_url(overlay(crop, map_, float(np.abs(map_).max()))) for crop, map_ in zip(crops, maps, strict=True)]
    return [*drawn, *[None] * (len(found.faces) - len(drawn))]
