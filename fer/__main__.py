"""``fer COMMAND ...`` or ``python -m fer COMMAND ...``: the commands under one name; alone, a line for each of them.

``fer train model=cnn`` is ``python -m fer.train model=cnn``. A command is imported when it is called.
"""

import importlib
import sys
from collections.abc import Sequence

import fer
from fer.config.command import command
from fer.config.errors import FerError, did_you_mean

COMMANDS = {
    "train": "fit a network, or sweep over settings with -m; chooses the best epoch on val",
    "best": "train the best networks that fit a given time: an ensemble, three students, a small one",
    "tune": "search for good settings; writes the best as an experiment (needs the extra tune)",
    "bench": "measure speed against its targets",
    "evaluate": "score a run or checkpoint on val or test; it and the end of fer.best alone open test",
    "share": "write an evaluated network as one small file for others, with its card",
    "compare": "lay runs side by side: leaderboard, curves, costs, paired tests, on val",
    "study": "the founding study's table, beside what its experiments give here",
    "audit": "look at a data set before trusting it: counts, exact duplicates, odd faces",
}


@command("fer")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first with what follows it, and return its exit code."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return 0
    if name == "--version":
        print(f"fer {fer.__version__}")
        return 0
    if name not in COMMANDS:
        raise FerError(f"{name}: no such command; there is {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    code: int = importlib.import_module(f"fer.{name}").main(rest)
    return code


def listing() -> str:
    """Return a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  fer {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    same = "fer COMMAND --help describes one; python -m fer.COMMAND is the same, as in python -m fer.train."
    return "\n".join(["fer predicts the emotion on a face. Commands:\n", *lines, f"\n{same}"])


if __name__ == "__main__":
    sys.exit(main(None))
