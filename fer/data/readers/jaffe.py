"""Reader of JAFFE (Lyons et al. 1998): one folder of files such as ``KA.AN1.39.tiff``.

A name has the person, the emotion with a number, and a running number. JAFFE has no split; people are kept together by
holdout and folds.
"""

import itertools
import re
from pathlib import Path

from fer.data.readers.picture_set import Listing, PictureSet, Sample, ignored_note, pictures_in, published_note

EMOTIONS = {
    "AN": "angry", "DI": "disgust", "FE": "fear", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise",
}  # fmt: skip
NAME = re.compile(rf"([A-Z]{{2}})\.({'|'.join(EMOTIONS)})\d+\.\d+\.\w+")
LOOKED_AT = 200  # entries of a folder that are compared with JAFFE's names
PICTURES, PEOPLE = 213, 10  # as published


def recognises(path: Path) -> bool:
    """Return whether a folder holds pictures with JAFFE's names."""
    return path.is_dir() and any(NAME.fullmatch(entry.name) for entry in itertools.islice(path.iterdir(), LOOKED_AT))


def listed(path: Path) -> Listing:
    """Return the pictures."""
    pictures = pictures_in(path)
    named = [(picture, match) for picture in pictures if (match := NAME.fullmatch(picture.name))]
    samples = [Sample(picture, EMOTIONS[match[2]], group=match[1]) for picture, match in named]
    notes = [
        *ignored_note(picture for picture in pictures if not NAME.fullmatch(picture.name)),
        published_note(len(samples), PICTURES, "pictures"),
        published_note(len({sample.group for sample in samples}), PEOPLE, "people"),
    ]
    return Listing(samples, notes=notes)


READER = PictureSet("jaffe", "JAFFE", recognises, listed)
