"""``python -m fer.export RUN_OR_NETWORK ... OUT.onnx``: a network as one file.

The file is used without this library. With ``FOLDER/`` in place of the file: a page for any static host, which predicts
in the visitor's tab.

The file takes faces as bytes and gives calibrated probabilities. Its metadata state classes, crop, prediction sets and
provenance. It is opened again and compared with the network before it gets its name.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer.config.command import Grammar, command, names_folder, writable_output
from fer.config.errors import FerError
from fer.config.plugins import import_plugins, listed
from fer.system.slots import let_waiting_threads_sleep
from fer.system.terminal import shown
from fer.system.text import text_table

if TYPE_CHECKING:
    from fer.exports.check import CheckData
    from fer.exports.export import Outcome

log = logging.getLogger(__name__)

OPTIONS = {  # key of a message -> option here
    "data.path": "--data",
    "data.split": "--rule",
    "data.on_bad": "--on-bad",
    "data.class_names": "--class-names",
    "plugins": "--plugins",
    "coverage": "--coverage",
    "coverage_by": "--coverage-by",
}


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.export",
        description="Write a network, or several as one, as a file for use without this library: ONNX, torch.export "
        "or safetensors, by the file's ending; or as a page that predicts in the visitor's tab. It needs the extra "
        "export, a page also faces and serve.",
        epilog="fer predict, fer evaluate, fer explain and fer.Predictor take an .onnx file in place of a network.",
    )
    grammar.add_argument(
        "networks", nargs="+", metavar="network",
        help="of the package (tiny), a run, a file of weights, latest, or hf://owner/name of the hub; several for an "
        "ensemble; or the folder of an evaluation, with the weights and the temperature that it chose",
    )  # fmt: skip
    grammar.add_download()
    grammar.add_argument(
        "out", type=writable_output, metavar="OUT",
        help="file to write: NAME.onnx, NAME.pt2, NAME.safetensors; or FOLDER/, with a slash, for a page",
    )  # fmt: skip
    grammar.add_argument(
        "--int8", action="store_true",
        help="8 bits in place of 32, of an .onnx: smaller and faster on servers, slower in browsers; needs the data",
    )  # fmt: skip
    grammar.add_argument(
        "--data", help="table, archive or folder for the check, and for the ranges of --int8; default: of the training"
    )
    grammar.add_reading()
    grammar.add_argument(
        "--coverage", type=float, metavar="SHARE",
        help="of a page: promised share of faces whose prediction set holds the label; default: 0.9",
    )  # fmt: skip
    grammar.add_coverage_by("of a page just opened: ")
    grammar.add_argument(
        "--runtime", type=Path, metavar="FILE_OR_FOLDER",
        help="of a page: onnxruntime-web, fetched before; default: npm fetches it",
    )  # fmt: skip
    grammar.add_argument("--no-timing", action="store_true", help="do not measure the faces a second")
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")
    return grammar


@command("fer.export", OPTIONS)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    let_waiting_threads_sleep()
    arguments, _ = parser().begin(argv)
    from fer.inference.network import named, title

    import_plugins(listed(arguments.plugins))
    from fer.exports.export import export  # imports torch

    paths = [named(network, download=arguments.download) for network in arguments.networks]
    networks = [str(path) for path in paths]
    if is_page(arguments):
        name = " + ".join(map(title, arguments.networks, paths))
        log.info("%s", page(networks, name, arguments))
        return 0
    exported = export(
        networks, Path(arguments.out), int8=arguments.int8, speed=not arguments.no_timing, data=data_of(arguments)
    )
    log.info("%s", "\n".join(in_words(exported)))
    return 0


def is_page(arguments: argparse.Namespace) -> bool:
    """Return whether a page is to be written, not a file.

    Raises:
        FerError: options of the other kind are given.
    """
    pages = names_folder(arguments.out)
    of_pages = {
        "--coverage": arguments.coverage,
        "--coverage-by": arguments.coverage_by != "all",
        "--runtime": arguments.runtime,
    }
    refused = {"--int8": arguments.int8} if pages else of_pages
    for name, value in refused.items():
        if value:
            kind = "a page, which needs 32 bits" if pages else "a file, and only a page (OUT/ with a slash) takes it"
            raise FerError(f"{name}: {arguments.out} is {kind}; leave the option out")
    return pages


def data_of(arguments: argparse.Namespace) -> "CheckData":
    """Return the data that the options name."""
    from fer.exports.check import CheckData

    return CheckData(arguments.data, arguments.rule, arguments.on_bad, arguments.class_names)


def page(networks: Sequence[str], name: str, arguments: argparse.Namespace) -> str:
    """Write a page with the name of the network on it, and return the lines that are printed."""
    from fer.exports.web.build import export_page

    folder = Path(arguments.out)
    written = export_page(
        networks, name, folder, data=data_of(arguments), coverage=arguments.coverage, by=arguments.coverage_by,
        given=arguments.runtime,
    )  # fmt: skip
    lines = [
        *checked(written.outcome),
        f"exported: {shown(folder)}: {len(written.files)} files, {sum(written.files.values()):,} bytes",
        f"open it:  python -m http.server --directory {shown(folder)} --bind 127.0.0.1",
    ]
    return "\n".join(lines)


def in_words(found: "Outcome") -> list[str]:
    """Return the lines that are printed: files, check, speed."""
    lines = [f"exported: {shown(file)} ({file.stat().st_size:,} bytes)" for file in found.files]
    lines += checked(found)
    if found.speeds:
        kinds = list(found.speeds[0].faces_per_second)
        rows = [[f"{one.batch}", *(f"{one.faces_per_second[kind]:,.0f}" for kind in kinds)] for one in found.speeds]
        lines += ["", text_table(["faces a second on one thread, batch", *kinds], rows)]
    return lines


def checked(found: "Outcome") -> list[str]:
    """Return the lines that are printed of the check."""
    lines, parity = [], found.about.parity
    if parity is not None:
        lines.append(
            f"checked:  on {parity.of}: largest difference {parity.largest_difference:.2g}, "
            f"{100 * parity.equal:.4g} % equal answers"
        )
    if parity is not None and parity.val is not None:
        val = parity.val
        lines.append(
            f"val:      accuracy {100 * val.accuracy[0]:.2f} % -> {100 * val.accuracy[1]:.2f} %, NLL {val.nll[0]:.4f} "
            f"-> {val.nll[1]:.4f}, {100 * val.equal:.2f} % equal answers"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(None))
