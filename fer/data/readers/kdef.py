"""Reader of KDEF (Lundqvist, Flykt & Öhman 1998): ``AF01/AF01ANS.JPG``, or all files in one folder.

A name has the series (A or B), the sex, the person's number, the emotion and the angle. The straight view (S) is read;
half and full profiles are left out and counted. KDEF has no split; people are kept together by holdout and folds, a
person's two series too.
"""

import itertools
import re
from collections import Counter
from pathlib import Path

from fer.data.readers.image_folder import subfolders
from fer.data.readers.picture_set import Listing, PictureSet, Sample, a_picture, ignored_note, pictures_in

EMOTIONS = {
    "AF": "fear", "AN": "angry", "DI": "disgust", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise",
}  # fmt: skip
ANGLES = {"S": "straight", "HL": "half left", "HR": "half right", "FL": "full left", "FR": "full right"}
FOLDER = re.compile(r"[AB][FM]\d{2}")
NAME = re.compile(rf"[AB]([FM]\d{{2}})({'|'.join(EMOTIONS)})({'|'.join(ANGLES)})\.\w+", re.IGNORECASE)
LOOKED_AT = 200  # entries of a folder that are compared with KDEF's names


def recognises(path: Path) -> bool:
    """Return whether a folder holds pictures with KDEF's names, or folders of people with such pictures."""
    if not path.is_dir():
        return False
    for entry in itertools.islice(path.iterdir(), LOOKED_AT):
        if NAME.fullmatch(entry.name):
            return True
        if FOLDER.fullmatch(entry.name) and entry.is_dir():
            return NAME.fullmatch(a_picture(entry)) is not None
    return False


def listed(path: Path) -> Listing:
    """Return the straight views."""
    folders = [path, *(folder for folder in subfolders(path) if FOLDER.fullmatch(folder.name))]
    pictures = [picture for folder in folders for picture in pictures_in(folder)]
    listing, angles = Listing(), Counter[str]()
    for picture in pictures:
        if match := NAME.fullmatch(picture.name):
            person, emotion, angle = (part.upper() for part in match.groups())
            angles[angle] += 1
            if angle == "S":
                listing.samples.append(Sample(picture, EMOTIONS[emotion], group=person))
    profiles = ", ".join(f"{count:,} {ANGLES[angle]}" for angle, count in angles.items() if angle != "S")
    if profiles:
        listing.notes.append(f"views that are not straight left out: {profiles}")
    listing.notes += ignored_note(picture for picture in pictures if not NAME.fullmatch(picture.name))
    return listing


READER = PictureSet("kdef", "KDEF, straight views", recognises, listed)
