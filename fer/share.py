"""``python -m fer.share EVALUATION NAME.safetensors``: write a network as one small file for others, with its card.

EVALUATION is the folder of one network's evaluation, whose metrics the card states. The file has the weights in half
precision (normalisation and biases in full), the network's arguments, its metrics, and its training data without paths
of this machine. ``fer.load`` and every command take it in place of a checkpoint.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fer.config.command import Grammar, command
from fer.config.plugins import import_plugins, listed

log = logging.getLogger(__name__)


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.share",
        description="Write an evaluated network as one safetensors file for others, and its card beside it.",
    )
    grammar.add_argument("evaluation", type=Path, help="folder of one network's evaluation, by fer.evaluate; or latest")
    grammar.add_argument("file", type=Path, help="file to write; its name ends in .safetensors")
    grammar.add_argument("--full", action="store_true", help="weights in full precision; default: half")
    grammar.add_argument("--plugins", help="modules to import first, separated by commas")
    return grammar


@command("fer.share", {"plugins": "--plugins"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, _ = parser().begin(argv)
    from fer.runs.run_folder import EVALUATION, named

    import_plugins(listed(arguments.plugins))
    from fer.models.share import share  # imports torch

    size = share(named(arguments.evaluation, EVALUATION), arguments.file, half=not arguments.full)
    card = arguments.file.with_suffix(".md")
    log.info("shared:  %s (%s bytes)\ncard:    %s", arguments.file, f"{size:,}", card)
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
