"""``python -m fer.share RUN NAME.safetensors``: a network as one small file for others, with its card.

With ``FOLDER/`` in place of the file: a folder as the Hugging Face hub expects it. ``--upload owner/name`` writes it
there, which needs the extra ``hub`` and a token.

RUN is a run that was evaluated, or the folder of an evaluation, whose metrics the card states. The weights are in half
precision, normalisation and biases in full. The network's arguments, its metrics and its training data go with them,
without paths of this machine. ``fer.load`` and every command take the file, the folder and ``hf://owner/name``.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fer.config.command import Grammar, command, names_folder, writable_output
from fer.config.errors import FerError
from fer.config.plugins import import_plugins, listed
from fer.system import hub
from fer.system.terminal import shown

log = logging.getLogger(__name__)


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.share",
        description="Write an evaluated network for others: as one safetensors file with its card beside it, or as a "
        "folder for the Hugging Face hub, and upload it.",
    )
    grammar.add_argument(
        "run", type=Path,
        help="run that was evaluated, folder of one network's evaluation by fer.evaluate, a network of the package "
        "(tiny), or latest; for --upload alone also a folder that was written before",
    )  # fmt: skip
    grammar.add_argument(
        "out", nargs="?", type=writable_output, metavar="OUT",
        help="file to write, NAME.safetensors; or FOLDER/, with a slash, for the hub",
    )  # fmt: skip
    grammar.add_argument("--full", action="store_true", help="weights in full precision; default: half")
    grammar.add_argument(
        "--license", metavar="ID",
        help="of the weights, an identifier of the hub such as apache-2.0; default: unknown, as the card then states",
    )  # fmt: skip
    grammar.add_argument("--upload", metavar="OWNER/NAME", help="repository of the hub, which is made if it is missing")
    grammar.add_argument("--revision", help="branch to upload to, which is made if it is missing; default: main")
    grammar.add_argument("--private", action="store_true", help="make a new repository a private one")
    grammar.add_argument("--plugins", help="modules to import first, separated by commas")
    return grammar


@command("fer.share", {"plugins": "--plugins"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, _ = parser().begin(argv)
    reference = check(arguments)
    from fer.runs.run_folder import EVALUATION, named

    import_plugins(listed(arguments.plugins))
    given = named(str(arguments.run) if arguments.out is None else arguments.run, EVALUATION)
    if reference is None and not names_folder(arguments.out):
        write_file(given, Path(arguments.out), half=not arguments.full)
        return 0
    with folder_of(given, arguments, reference) as folder:
        if reference is not None:
            upload(folder, reference, private=arguments.private)
    return 0


def check(arguments: argparse.Namespace) -> hub.Reference | None:
    """Return the repository to upload to, after a check of the options that belong together.

    Raises:
        FerError: naming the option; or there is no token for an upload.
    """
    out, name = arguments.out, arguments.upload
    if out is None and name is None:
        raise FerError("no OUT: name a file NAME.safetensors, a FOLDER/ with a slash, or --upload OWNER/NAME")
    if name is not None and out is not None and not names_folder(out):
        raise FerError(f"--upload: uploads a folder; end {out} in a slash, or leave it out")
    if name is None and (arguments.revision or arguments.private):
        raise FerError("--revision and --private: belong to --upload; leave them out")
    if name is None and arguments.license and not names_folder(out):
        raise FerError("--license: belongs to a FOLDER/ with a slash; leave it out")
    if name is None:
        return None
    reference = hub.Reference.of(f"{hub.PREFIX}{name}{f'@{arguments.revision}' if arguments.revision else ''}")
    hub.check_upload(reference)  # before the work
    return reference


def write_file(given: Path, file: Path, *, half: bool) -> None:
    """Write one file and its card, and print their names."""
    from fer.models.share import share  # imports torch

    size = share(given, file, half=half)
    log.info("shared:  %s (%s bytes)\ncard:    %s", file, f"{size:,}", file.with_suffix(".md"))


@contextmanager
def folder_of(given: Path, arguments: argparse.Namespace, reference: hub.Reference | None) -> Iterator[Path]:
    """Yield the folder for the hub: the one that was given, a new one, or one that is removed after its upload."""
    from fer.exports import hub_folder  # imports torch
    from fer.models.hub_folder import is_hub_folder

    if arguments.out is None and is_hub_folder(given):
        if option := "--license" if arguments.license else "--full" if arguments.full else "":
            raise FerError(
                f"{option}: {given} is uploaded as it is; leave it out, or share the run again. The licence stands in "
                f"{given / 'README.md'}"
            )
        yield given
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out) if arguments.out else Path(temporary) / "network"
        made = hub_folder.write(
            given, folder, half=not arguments.full, licence=arguments.license, uploaded_to=reference
        )  # fmt: skip
        if made.without_graph:
            log.warning("left out: %s (%s)", hub.GRAPH, made.without_graph)
        if made.licence == hub_folder.UNKNOWN:
            log.warning("licence:  unknown, as its card states; --license names one, such as apache-2.0")
        if arguments.out:
            sizes = ", ".join(f"{name} ({size:,} bytes)" for name, size in made.files.items())
            log.info("shared:   %s: %s", shown(folder), sizes)
        yield folder


def upload(folder: Path, reference: hub.Reference, *, private: bool) -> None:
    """Upload a folder, and print what was uploaded and where it is."""
    from fer.exports import hub_folder

    files, address = hub_folder.upload(folder, reference, private=private)
    log.info(
        'uploaded: %s\nopen it:  %s\nload it:  fer.load("%s", download=True)', ", ".join(files), address, reference
    )


if __name__ == "__main__":
    sys.exit(main(None))
