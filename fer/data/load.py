"""From the data settings to faces with labels, and a split for each.

Faces are read or drawn, labelled and resized. The path alone decides which reader is used. The splits are official,
those of the source's folders, an 80/20 holdout, or folds.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import SPLIT_KEYS, DataSettings, SplitRule
from fer.data.cache import cached, folder_of
from fer.data.draws import drawn_folds, drawn_share
from fer.data.duplicates import near_groups, together
from fer.data.faces import UNKNOWN, Faces, OnBad
from fer.data.labels import SPLITS, folder_names
from fer.data.locate import not_read, recognise, refuse_names
from fer.data.readers import Reader, synthetic, with_colours
from fer.data.readers.ferplus import VOTES_ALONE, join_votes
from fer.data.readers.image_folder import NO_NAMES, Names
from fer.data.readers.pixel_memory import PixelMemory, entered
from fer.data.resize import resized
from fer.data.votes import relabelled, without_contempt
from fer.system.text import plural

HOLDOUT_FRACTION = 0.2  # 80/20, as in the study that this project began with


def read_faces(data: DataSettings) -> Faces:
    """Return the faces that ``data`` names, with votes and labels.

    Raises:
        FerError: the data are missing or bad.
    """
    if data.path is None:
        raise FerError("data.path is not set; give a table, an archive, a folder or 'synthetic'")
    if data.path == synthetic.NAME:
        return synthetic.drawn(data)
    folder, names = folder_of(data.cache), folder_names(data.class_names)
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
    refuse_names(names, name, reader, path)
    if channels == 3:
        reader = with_colours(reader, name, path, memory_limit_gb)
    uncached = cache is None or name == "ferplus"  # cache entries have no column for votes
    files, reported = ([], []) if uncached else _inputs(reader, inner)
    given = [inner, *sorted(names.items()), *reported]  # the path is stored in an entry, and the notes are
    variant = f"{name} {image_size} {on_bad}{given}{' RGB' * (channels == 3)}"
    with entered(PixelMemory(memory_limit_gb, cache)) as memory:
        faces = cached(files, variant, memory, lambda: reader.read(inner, image_size=image_size, on_bad=on_bad))
    return faces.noted(*([] if inner == path else [f"read from {inner}"]), *not_read(path, inner, name, names))


def _inputs(reader: Reader, path: Path) -> tuple[list[Path], list[str]]:
    """Return the files that a reader would open, and its notes on others if it states them beforehand."""
    inputs = getattr(reader, "inputs", None)
    return inputs(path) if inputs else (reader.files(path), [])


def labelled(faces: Faces, data: DataSettings) -> Faces:
    """Return the faces with the labels that ``data`` names; faces of FER+'s folders have votes as their only labels.

    With eight classes, faces of which none shows contempt keep seven.

    Raises:
        FerError: ``data.labels=ferplus``, and the faces have no votes.
    """
    if data.labels == "ferplus":
        return relabelled(faces, data.ferplus_rule, data.classes)
    if faces.source.labels == VOTES_ALONE:
        return relabelled(faces, "argmax", data.classes)
    return without_contempt(faces) if data.classes < len(faces.classes) else faces


# --- splits ----------------------------------------------------------------------------------------------------------


def assigned(faces: Faces, data: DataSettings) -> NDArray[np.int8]:
    """Return each face's split by the data settings, see ``assign``; also of faces without a label, as audits need."""
    return _with_duplicates_together(faces, data)[0]


def assigned_with_notes(faces: Faces, data: DataSettings) -> tuple[NDArray[np.int8], list[str]]:
    """Return the splits to train and score on, and notes on near duplicates and on faces that are left out.

    Faces without a label are in no split, nor are those that the source's own splits leave out.

    Raises:
        FerError: as ``assign`` and ``near_groups`` do, or train or val has no face with a label.
    """
    splits, notes = _with_duplicates_together(faces, data)
    unlabelled = faces.targets == UNKNOWN
    if count := int(((splits == UNKNOWN) & ~unlabelled).sum()):
        notes.append(f"{plural(count, 'face')} left out: outside the folders or files of the splits")
    if count := int(unlabelled.sum()):
        notes.append(f"{plural(count, 'face')} without a label left out: in no split")
        splits[unlabelled] = UNKNOWN
        _require(splits, data.split, faces)
    return splits, notes


def _with_duplicates_together(faces: Faces, data: DataSettings) -> tuple[NDArray[np.int8], list[str]]:
    notes: list[str] = []
    if data.split == "as_given" and (faces.given == 1).any():
        changed = [key for key in SPLIT_KEYS["as_given"] if getattr(data, key) != getattr(DataSettings, key)]
        unused = ", ".join(setting(f"data.{key}").removesuffix("=") for key in changed)
        notes = [f"{unused} without effect: the data have a val of their own, so that none is drawn"] if unused else []
    elif data.keep_duplicates_together and data.split != "official":
        near = near_groups(faces)
        faces = replace(faces, group=together(faces, near).astype(np.int32))
        count = sum(map(len, near))
        words = plural(len(near), "group")
        notes = [f"{count:,} faces in {words} of near duplicates: each group is in one split, where splits are drawn"]
    splits = assign(
        faces, data.split, seed=data.split_seed, val_fraction=data.val_fraction, folds=data.folds, fold=data.fold
    )
    return splits, notes


def assign(
    faces: Faces, rule: SplitRule, *, seed: int, val_fraction: float, folds: int = 5, fold: int = 0
) -> NDArray[np.int8]:
    """Return each face's split, (N,) int8 index in ``SPLITS``, ``UNKNOWN`` for faces in no split.

    Args:
        faces: N faces.
        rule: "official" is the column Usage. "as_given" is the source's folders; without a val folder, val is drawn
            from train. "holdout" is a stratified 80/20 of all faces, without test. "folds" makes stratified parts of
            all faces: one is val, the others are train, and there is no test. What is drawn keeps groups of faces
            whole, where there are any.
        seed: of the random draw of "as_given", "holdout" and "folds".
        val_fraction: share of train that "as_given" draws for val.
        folds: number of parts of "folds".
        fold: the part, from 0, that is val.

    Raises:
        FerError: the source lacks the information that the rule needs, or the faces have no labels.
    """
    if not (faces.targets != UNKNOWN).any():
        raise FerError(
            f"{faces.source.path}: has no labels (no column 'emotion'), so that nothing can be trained or scored on it"
        )
    if rule == "official":
        return _official(faces)
    if rule == "holdout":
        splits = np.zeros(len(faces), np.int8)
        splits[drawn_share(faces, np.arange(len(faces)), HOLDOUT_FRACTION, seed, rule)] = 1
        return splits
    if rule == "folds":
        return drawn_folds(faces, folds, fold, seed)
    return _as_given(faces, seed, val_fraction)


def _official(faces: Faces) -> NDArray[np.int8]:
    unknown = int(((faces.official == UNKNOWN) & (faces.targets != UNKNOWN)).sum())
    if unknown:
        folders = f"{setting('data.split', 'as_given')} (its own folders) or " if (faces.given == 0).any() else ""
        raise FerError(
            f"{setting('data.split', 'official')}: {faces.source.path} has no official split (Usage) for "
            f"{unknown:,} of {len(faces):,} faces; use {folders}{setting('data.split', 'holdout')} (80/20)"
        )
    _require(faces.official, "official", faces)
    return faces.official.copy()


def _as_given(faces: Faces, seed: int, val_fraction: float) -> NDArray[np.int8]:
    splits = faces.given.copy()
    if (splits == UNKNOWN).all():
        raise FerError(
            f"{setting('data.split', 'as_given')}: {faces.source.path} has no train folder or file of its own; use "
            f"{setting('data.split', 'holdout')}"
        )
    if not (splits == 1).any():
        train = np.flatnonzero(splits == 0)
        splits[drawn_share(faces, train, val_fraction, seed, "as_given")] = 1
    _require(splits, "as_given", faces)
    return splits


def _require(splits: NDArray[np.int8], rule: str, faces: Faces) -> None:
    kind = "face" if (faces.targets != UNKNOWN).all() else "labelled face"
    drawn = rule in ("holdout", "folds")
    remedy = "it needs more of them" if drawn else f"use {setting('data.split', 'holdout')}"
    for index in (0, 1):
        if not (splits == index).any():
            raise FerError(
                f"{setting('data.split', rule)}: {faces.source.path} has no {kind} for {SPLITS[index]}; {remedy}"
            )
