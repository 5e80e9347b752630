"""``python -m fer.serve``: a local page and an HTTP interface that predict the emotions on a picture.

Pictures stay in memory and are never written or logged. Without ``--host`` only this machine reaches the page.
"""

import argparse
import importlib
import logging
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fer.config.command import DETECTOR, Grammar, command
from fer.config.errors import FerError
from fer.config.plugins import import_plugins, listed
from fer.system.slots import let_waiting_threads_sleep

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = logging.getLogger(__name__)

PACKAGES = ("starlette", "uvicorn", "python_multipart", "markdown")
OPEN = "other machines can reach this page; it has no password and no encryption"


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.serve",
        description="Serve a page and an HTTP interface that predict the emotions on a picture. It needs the extras "
        "serve and faces.",
        epilog="An emotion here is how a face looks to people who label pictures. It is not what a person feels.",
    )
    grammar.add_network_and_detector()
    grammar.add_coverage()
    grammar.add_argument("--port", type=int, default=8000, help="0: any free one; default: 8000")
    grammar.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, this machine alone"
    )
    grammar.add_argument(
        "--name", action="append", default=[],
        help="under which a browser may open the page, beside localhost and addresses; several times",
    )  # fmt: skip
    grammar.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")
    return grammar


@command(
    "fer.serve",
    {"device": "--device", "plugins": "--plugins", "coverage": "--coverage", "coverage_by": "--coverage-by"},
)
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C, and return the exit code."""
    arguments, _ = parser().begin(argv)
    check(arguments)
    let_waiting_threads_sleep()
    from fer.serving import server

    listening = server.bound(arguments.host, arguments.port)  # before torch is loaded, which takes seconds
    with listening:
        app = app_of(arguments)
        log.info("%s   Ctrl-C stops it", server.address(listening, arguments.host))
        if arguments.host not in server.LOOPBACK:
            log.warning("%s", OPEN)
        server.run(app, listening)
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Raise where options are out of range, or a package of the extra is missing.

    Raises:
        FerError: naming the option or the package.
    """
    if not 0 <= arguments.port <= 65535:
        raise FerError(f"--port {arguments.port}: expected 0 to 65535")
    for name in arguments.name:
        if re.fullmatch(r"[A-Za-z0-9._-]+", name) is None:
            raise FerError(f"--name {name}: expected a host's name alone, such as {name_in(name)}")
    if arguments.coverage is not None:
        from fer.metrics import conformal

        conformal.check(arguments.coverage)
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise FerError(f"{name} is missing; pip install 'fer-lightning[serve,faces]'") from error


def app_of(arguments: argparse.Namespace) -> "Starlette":
    """Return the application.

    Raises:
        FerError: the network or the detector cannot be had.
    """
    from fer.inference.network import named, title
    from fer.inference.predictor import Predictor
    from fer.serving import app, card

    import_plugins(listed(arguments.plugins))
    network = named(arguments.network, download=arguments.download)
    predictor = Predictor(
        network, detector=arguments.detector or DETECTOR, detector_model=arguments.detector_model,
        device="cuda" if arguments.device == "gpu" else "cpu", coverage=arguments.coverage,
        coverage_by=arguments.coverage_by,
    )  # fmt: skip
    _ = predictor.detector  # a missing OpenCV is reported before the first picture comes
    text = card.text_of(network, predictor.network)
    names = [arguments.host, *arguments.name]
    return app.build(predictor, title(arguments.network, network), card.page(text), names=names)


def name_in(text: str) -> str:
    """Return the host's name in an address, such as ``example.com`` of ``https://example.com:8000/``."""
    return re.sub(r"^\w*:?//|[:/].*$", "", text) or "example.com"


if __name__ == "__main__":
    sys.exit(main(None))
