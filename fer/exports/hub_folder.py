"""A network as the folder that the Hugging Face hub expects.

Written are weights, graph, description and card.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import fer
from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.data.crop import Crop
from fer.exports import onnx_file
from fer.exports.export import export
from fer.models import EmotionClassifier, checkpoints, share
from fer.models.hub_folder import FORMAT, LIBRARY, HubConfig, HubFile, checked_file, config_of
from fer.models.pretrained import sha256_of
from fer.runs import zoo
from fer.system import hub
from fer.system.files import PART, moved_into, why, write_json, written_whole
from fer.system.hub import Reference
from fer.system.records import plain

log = logging.getLogger(__name__)

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")  # an identifier of the hub, such as apache-2.0
UNKNOWN, OF_PACKAGE = "unknown", "apache-2.0"  # the hub's word for none; of the package's networks, as their page says
HEAD = "---\n"  # before a card's metadata, and after them
METADATA = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)  # of a card
OF_CARD = re.compile(r"^license:[ \t]*(.*)\n((?:[ \t-].*\n)*)", re.MULTILINE)  # in them; a list has a line each


@dataclass(frozen=True)
class Written:
    """A folder that was written.

    Args:
        folder: where it is.
        files: name -> bytes.
        licence: that its card states.
        without_graph: why it has no ``model.onnx``; None where it has one.
    """

    folder: Path
    files: Mapping[str, int]
    licence: str
    without_graph: str | None


def write(
    given: Path, folder: Path, *, half: bool, licence: str | None = None, uploaded_to: Reference | None = None
) -> Written:
    """Write a network as a folder for the hub, whole or not at all.

    Args:
        given: see ``fer.models.share.shareable``.
        folder: to write, new or empty.
        half: round kernels and matrices to half precision.
        licence: of the weights, an identifier of the hub; None for that of a package's network, that of the card of a
            network which was shared before, or ``unknown``.
        uploaded_to: repository that the folder is meant for, which its card's example loads.

    Raises:
        FerError: the network is bad or has no card, the licence is no identifier, or the folder cannot be written.
    """
    folder = expand_home(folder).resolve()
    _check_free(folder)
    stated = _checked(licence) if licence else OF_PACKAGE if str(given) in zoo.pretrained() else None
    made = share.shareable(given, half=half)
    card, stated = _licensed(made.card, stated)
    made = replace(made, card=card)
    name = uploaded_to.name.rpartition("/")[2] if uploaded_to else folder.name
    part = folder.with_name(f".{folder.name}.{os.getpid()}{PART}")
    try:
        part.mkdir(parents=True)
        loads = _loads(uploaded_to) if uploaded_to else f'"{folder.name}/"'
        made.write(part / hub.NETWORK, part / hub.CARD, name=name, loads=loads)
        without_graph = _write_graph(part, name)
        _write_config(part)
        moved_into(part, folder)
    except OSError as error:
        raise FerError(f"{folder}: could not be written ({why(error)})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Written(folder, {file.name: file.stat().st_size for file in sorted(folder.iterdir())}, stated, without_graph)


def upload(folder: Path, reference: Reference, *, private: bool) -> tuple[list[str], str]:
    """Upload a folder's files to a repository, after a check of their hashes; return their names and its address.

    Args:
        folder: that ``write`` has written; its card may have been edited since.
        reference: the repository and its branch; both are made where they are not there.
        private: whether a new repository is hidden from others.

    Raises:
        FerError: a file has changed, there is no token, or the hub refuses or does not answer.
    """
    hub.check_upload(reference)
    config = config_of(folder)
    _check_names(folder, config)
    files = [checked_file(folder, config, name).name for name in {hub.NETWORK: None, **config.files}]
    checkpoints.load(folder / hub.NETWORK)
    files += [hub.CONFIG, *_card(folder, reference)]
    return files, hub.upload(folder, files, reference, private=private)


def _check_names(folder: Path, config: HubConfig) -> None:
    """Raise unless the files to upload are those of such a folder, and lie in it: a stranger's may name any others."""
    if others := sorted(set(config.files) - {hub.NETWORK, hub.GRAPH}):
        raise FerError(
            f"{folder / hub.CONFIG}: names {others[0]!r}; expected {hub.NETWORK} and {hub.GRAPH} alone; share the "
            "network again"
        )
    for name in (*config.files, hub.CONFIG, hub.CARD):
        if (folder / name).is_symlink():
            raise FerError(f"{folder / name}: is a link; an upload takes files alone; put a copy in its place")


def _card(folder: Path, reference: Reference) -> Iterable[str]:
    """Make the example of a folder's card load the repository, and return the card's name; nothing without a card."""
    card = folder / hub.CARD
    if not card.is_file():
        log.warning("%s: has no %s; the repository's page will be empty", folder, hub.CARD)
        return []
    try:
        text = card.read_text(encoding="utf-8")
    except ValueError as error:
        raise FerError(f"{card}: is not UTF-8; save it as that") from error
    if (changed := share.with_loading_example(text, _loads(reference))) != text:
        with written_whole(card) as stream:
            stream.write(changed)
    return [hub.CARD]


def _loads(reference: Reference) -> str:
    return f'"{reference}", download=True'


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FerError(f"{folder}: is no new or empty folder; name another, or remove it")


def _checked(licence: str) -> str:
    if LICENCE.fullmatch(licence) is None:
        raise FerError(f"--license {licence}: expected an identifier of the hub, such as apache-2.0, mit or cc-by-4.0")
    return licence


def _licensed(card: str, licence: str | None) -> tuple[str, str]:
    """Return a card that states a licence once, at its top, and the licence.

    Args:
        card: Markdown; one that was edited may have no metadata.
        licence: identifier of the hub; None keeps what the card states, or states ``unknown``.
    """
    block = METADATA.match(card)
    metadata, text = (block[1], card[block.end() :]) if block else ("", f"\n{card}")
    if licence is None and (found := OF_CARD.search(metadata)):
        licences = [found[1], *(line.strip(" \t-") for line in found[2].splitlines())]
        return card, ", ".join(filter(None, map(str.strip, licences))) or UNKNOWN
    licence = licence or UNKNOWN
    return f"{HEAD}license: {licence}\n{OF_CARD.sub('', metadata)}{HEAD}{text}", licence


def _write_graph(folder: Path, name: str) -> str | None:
    """Write the graph of the network in a folder, and return why not where it cannot be written."""
    try:
        onnx_file.check_packages()
        export([str(folder / hub.NETWORK)], folder / hub.GRAPH, int8=False, speed=False, name=name)
    except FerError as error:
        return str(error).removeprefix(f"{folder / hub.NETWORK}: ")  # a folder that is renamed
    return None


def _write_config(folder: Path) -> None:
    """Describe the network in a folder for other programs, with the hashes of its files."""
    files = [file for file in (folder / hub.NETWORK, folder / hub.GRAPH) if file.is_file()]
    write_json(folder / hub.CONFIG, plain(_config(checkpoints.load(folder / hub.NETWORK), files)))


def _config(model: EmotionClassifier, files: Iterable[Path]) -> HubConfig:
    """Return the description of a network and of its files."""
    labels = [str(name) for name in model.hparams["classes"]]
    return HubConfig(
        library_name=LIBRARY,
        format=FORMAT,
        version=fer.__version__,
        architecture=model.architecture,
        id2label={str(index): label for index, label in enumerate(labels)},
        label2id={label: index for index, label in enumerate(labels)},
        image_size=model.image_size,
        num_channels=model.in_channels,
        crop=Crop().contract(model.image_size),
        files={file.name: HubFile(sha256_of(file), file.stat().st_size) for file in files},
    )
