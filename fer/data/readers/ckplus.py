"""Reader of CK+ (Lucey et al. 2010).

It reads sequences from a neutral face to an expression, or folders of their last frames.
``cohn-kanade-images/S005/001/*.png`` are the frames of a sequence of person S005. ``Emotion/S005/001/*_emotion.txt``
has the label, such as ``3.0000000e+00``; most sequences without one are of no basic emotion. The last three frames have
the label, and the first is neutral, as is usual. A common copy has class folders of the last three frames; its file
names still name the person. CK+ has no split: people are kept together by holdout and folds.
"""

import re
from pathlib import Path

from fer.data.readers.image_folder import class_folders
from fer.data.readers.picture_set import Listing, PictureSet, Sample, a_picture, first_of, pictures_in, published_note
from fer.system.files import opened_text
from fer.system.text import plural

EMOTIONS = ("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")  # CK+'s 0 to 7
PERSON = re.compile(r"S\d{3}")
FRAME = re.compile(r"(S\d{3})_\d{3}_\d{8}\.\w+")
LAST = 3  # frames of a sequence that show its emotion
PEOPLE, SEQUENCES, LABELLED = 123, 593, 327  # as published


def recognises(path: Path) -> bool:
    """Return whether ``path`` has CK+'s folders of frames and labels, or class folders of its frames."""
    return path.is_dir() and (None not in _roots(path) or _is_copy(path))


def _roots(path: Path) -> tuple[Path | None, Path | None]:
    """Return the folders of frames and of labels."""
    frames = first_of(path / "cohn-kanade-images", path / "extended-cohn-kanade-images" / "cohn-kanade-images")
    return frames, first_of(path / "Emotion_labels" / "Emotion", path / "Emotion", path / "Emotion_labels")


def _is_copy(path: Path) -> bool:
    name = next((name for _, folder in class_folders(path) if (name := a_picture(folder))), "")
    return FRAME.fullmatch(name) is not None


def listed(path: Path) -> Listing:
    """Return the frames that show an emotion."""
    frames, labels = _roots(path)
    return _of_folders(path) if frames is None or labels is None else _of_sequences(frames, labels)


def _of_sequences(frames: Path, labels: Path) -> Listing:
    listing, people, sequences, labelled = Listing(), set(), 0, 0
    for person in sorted(folder for folder in frames.iterdir() if PERSON.fullmatch(folder.name) and folder.is_dir()):
        people.add(person.name)
        for sequence in sorted(folder for folder in person.iterdir() if folder.is_dir()):
            sequences += 1
            files = sorted((labels / person.name / sequence.name).glob("*_emotion.txt"))
            if files:
                labelled += 1
                _add_sequence(listing, files[0], pictures_in(sequence), person.name)
    listing.notes += [
        f"of each sequence the first frame is neutral and the last {LAST} have its label; "
        f"{plural(sequences - labelled, 'sequence')} without a label left out",
        published_note(len(people), PEOPLE, "people"),
        published_note(sequences, SEQUENCES, "sequences"),
        published_note(labelled, LABELLED, "labelled sequences"),
    ]
    return listing


def _add_sequence(listing: Listing, file: Path, frames: list[Path], person: str) -> None:
    listing.tables.append(file)
    text, number = "", -1.0
    try:  # a text that is not in UTF-8 is a ValueError too
        with opened_text(file) as stream:
            text = stream.read(100).strip()
        number = float(text)
    except ValueError:
        pass
    if number not in range(len(EMOTIONS)):
        listing.bad.append((file, f"holds {text[:20]!r}; expected an emotion's number, 0 to {len(EMOTIONS) - 1}"))
        return
    if not frames:
        listing.bad.append((file, "has a label, but its sequence has no frames"))
        return
    listing.samples.append(Sample(frames[0], "neutral", group=person))
    listing.samples += [Sample(frame, EMOTIONS[int(number)], group=person) for frame in frames[1:][-LAST:]]


def _of_folders(path: Path) -> Listing:
    listing = Listing()
    for split, folder in class_folders(path):
        for picture in pictures_in(folder):
            match = FRAME.fullmatch(picture.name)
            listing.samples.append(Sample(picture, folder.name, split, group=match[1] if match else ""))
    people = {sample.group for sample in listing.samples} - {""}
    listing.notes.append(f"{plural(len(people), 'person')} by the file names".replace("persons", "people"))
    return listing


READER = PictureSet("ckplus", "CK+", recognises, listed, in_class_folders=True)
