"""The folder of a network, as the Hugging Face hub expects it.

Its files are ``model.safetensors``, ``config.json``, and ``README.md``, the card. ``config.json`` describes the network
for other programs and has the SHA-256 of the files, which is checked whenever the folder is loaded. The card has none,
since authors edit it on the hub. ``fer.exports.hub_folder`` writes such folders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fer.config.errors import FerError
from fer.models.pretrained import sha256_of
from fer.system import hub
from fer.system.files import UNREADABLE, contents, read_json, why
from fer.system.records import Json, has_types, read

LIBRARY = "fer-lightning"  # "fer" is another library's name
FORMAT = 1  # version of config.json; raise it when an older version could not read the folder


@dataclass(frozen=True)
class HubFile:
    """A file of the folder.

    Args:
        sha256: of its contents.
        bytes: its size.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True)
class HubConfig:
    """What ``config.json`` holds.

    Args:
        library_name: of the library that loads the network.
        format: version of this record.
        version: of the library that wrote it.
        architecture: name of the network.
        id2label: index of a probability -> emotion.
        label2id: emotion -> index.
        image_size: side of the faces, in pixels.
        num_channels: of the faces; 1 is grey, 3 is colour.
        crop: how faces are cut out of pictures, see ``fer.data.crop.Crop.contract``.
        files: name -> hash and size of the weights and of the graph.
    """

    library_name: str
    format: int
    version: str
    architecture: str
    id2label: Mapping[str, str]
    label2id: Mapping[str, int]
    image_size: int
    num_channels: int
    crop: Json
    files: Mapping[str, HubFile]


def is_hub_folder(folder: Path) -> bool:
    """Return whether a folder has the files of a network as the hub has them."""
    return (folder / hub.NETWORK).is_file() and (folder / hub.CONFIG).is_file()


def card_beside(file: Path) -> Path:
    """Return the path of the card beside a file of weights; there may be none."""
    return file.with_name(hub.CARD) if file.name == hub.NETWORK else file.with_suffix(".md")


def config_of(folder: Path) -> HubConfig:
    """Return the description of the network in a folder.

    Raises:
        FerError: it is missing or damaged, of another library or of a newer version.
    """
    file = folder / hub.CONFIG
    try:
        contents(file, hub.NEEDED[hub.CONFIG])  # raises on one that is larger
        stored = read_json(file)
        library = stored.get("library_name")
        if library != LIBRARY:
            raise FerError(
                f"{file}: written by {str(library)[:50]!r}, not by {LIBRARY!r}; expected a folder of fer share"
            )
        if isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
            raise FerError(
                f"{file}: written by a newer version of fer (format {stored['format']}, known up to {FORMAT})"
            )
        config = read(HubConfig, stored)
        if not has_types(config):
            raise ValueError("a value has another type")
        if config.format < 1:
            raise FerError(f"{file}: states format {config.format}; expected 1 to {FORMAT}")
    except UNREADABLE as error:
        raise FerError(f"{file}: damaged, or written by another program ({why(error)})") from error
    return config


def network_file(folder: Path) -> Path:
    """Return the file of the weights in a folder, after a check that its contents are those that were shared.

    Raises:
        FerError: it is missing, or has another hash than ``config.json`` states.
    """
    return checked_file(folder, config_of(folder), hub.NETWORK)


def checked_file(folder: Path, config: HubConfig, name: str) -> Path:
    """Return a file of a folder, after a check of its size and its hash.

    Raises:
        FerError: it is missing, not mentioned in ``config.json``, or changed.
    """
    file, recorded = folder / name, config.files.get(name)
    if not file.is_file():
        raise FerError(f"{folder}: has no {name}; share the network again with python -m fer.share")
    if recorded is None:
        raise FerError(f"{folder / hub.CONFIG}: states no hash of {name}; share the network again")
    if file.stat().st_size != recorded.bytes or sha256_of(file) != recorded.sha256:
        remedy = f"remove {file.parents[2]} and fetch it again" if hub.origin(file) else "share the network again"
        raise FerError(f"{file}: changed or damaged (its SHA-256 is not that of {hub.CONFIG}); {remedy}")
    return file
