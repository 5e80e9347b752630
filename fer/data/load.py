"""Loading of the faces that the data settings name.

Faces are read or drawn, labelled and resized. The path alone decides which reader is used.
"""

from pathlib import Path

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.cache import cached, folder_of
from fer.data.faces import Faces, OnBad
from fer.data.labels import folder_names
from fer.data.locate import not_read, recognise, refuse_names
from fer.data.readers import synthetic, with_colours
from fer.data.readers.ferplus import VOTES_ALONE, join_votes
from fer.data.readers.image_folder import NO_NAMES, Names
from fer.data.readers.pixel_memory import PixelMemory, entered
from fer.data.resize import resized
from fer.data.votes import relabelled, without_contempt


def read_faces(data: DataSettings) -> Faces:
    """Return the faces that ``data`` names, with votes and labels.

    Raises:
        FerError: the data are missing or bad.
    """
    if data.path is None:
        raise FerError("data.path is not set; give a table, an archive, a folder or 'synthetic'")
    if data.path == synthetic.NAME:
        return synthetic.drawn(data)
    folder, names = folder_of(data.cache), folder_names(data.class_names or {})
    faces = read_path(
        Path(data.path), image_size=data.image_size, on_bad=data.on_bad, cache=folder, names=names,
        memory_limit_gb=data.memory_limit_gb, channels=data.channels,
    )  # fmt: skip
    if data.votes is not None:
        faces = join_votes(faces, Path(data.votes))
    faces = labelled(faces, data)
    return faces if faces.image_size == data.image_size else resized(faces, data.image_size)


def read_path(
    path: Path,
    *,
    image_size: int,
    on_bad: OnBad,
    cache: Path | None,
    names: Names = NO_NAMES,
    memory_limit_gb: float | None = None,
    channels: int = 1,
) -> Faces:
    """Read the faces at ``path`` with the reader that recognises its layout.

    Args:
        path: a table, an archive of one, or a folder.
        image_size: side of the faces, in pixels.
        on_bad: "error" raises on the first bad row or file; "skip" leaves it out, and lists it in ``Source.skipped``.
        cache: folder of the cache, or None to parse the files each time.
        names: class folder, in small letters -> emotion, for folders of other names.
        memory_limit_gb: GB of memory for the pixels; more are memory-mapped or decoded on demand, see ``pixel_memory``.
        channels: 3 keeps the colours of pictures too.

    Raises:
        FerError: ``path`` does not exist, or no reader recognises its layout; the data are bad or have no colours;
            ``names`` are given for labels that state their own meaning.
    """
    name, reader, inner = recognise(path, names)
    refuse_names(names, name, path)
    if channels == 3:
        reader = with_colours(reader, name, path, memory_limit_gb)
    uncached = cache is None or name == "ferplus"  # cache entries have no column for votes
    files = [] if uncached else reader.files(inner)
    variant = f"{name} {image_size} {on_bad}{sorted(names.items()) if names else ''}{' RGB' * (channels == 3)}"
    with entered(PixelMemory(memory_limit_gb, cache)) as memory:
        faces = cached(files, variant, memory, lambda: reader.read(inner, image_size=image_size, on_bad=on_bad))
    return faces.noted(*([] if inner == path else [f"read from {inner}"]), *not_read(path, inner, name))


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
