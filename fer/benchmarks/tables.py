"""The table of the benchmarks: FER2013, or drawn faces in its layout and size."""

import logging
from pathlib import Path

from fer.config.errors import FerError

log = logging.getLogger(__name__)

ROWS = 35_887  # FER2013's


def table(given: Path | None, folder: Path) -> tuple[Path, str]:
    """Return an uncompressed CSV: the given table, else FER2013 if found, else drawn faces; and its data in words.

    Raises:
        FerError: ``given`` is not an uncompressed CSV table.
    """
    from fer.data.locate import locate, recognise
    from fer.data.readers.synthetic import NAME

    path, _ = locate(str(given) if given else None, drawn_faces_allowed=given is None)
    if path == NAME:
        drawn = f"{ROWS:,} drawn faces in FER2013's layout"
        log.info("no FER2013 found: writing %s", drawn)
        return drawn_table(folder / "fer2013.csv"), drawn
    name, reader, inner = recognise(Path(path))
    file = reader.files(inner)[0] if name == "csv" else inner
    if file.suffix != ".csv":
        raise FerError(f"{path}: has the layout {name}, in {file.name}; expected an uncompressed fer2013.csv")
    return file, str(file)


def drawn_table(file: Path) -> Path:
    """Write drawn faces in the layout of ``fer2013.csv``, and return the file."""
    from fer.data.readers.synthetic import read

    faces = read(ROWS, seed=0, image_size=48)
    digits = [str(value) for value in range(256)]
    usages = ("Training", "PublicTest", "PrivateTest")
    with open(file, "w", newline="") as stream:
        stream.write("emotion,pixels,Usage\n")
        for image, target, split in zip(faces.images, faces.targets, faces.official, strict=True):
            pixels = " ".join([digits[pixel] for pixel in image.ravel().tolist()])
            stream.write(f"{target},{pixels},{usages[split]}\n")
    return file
