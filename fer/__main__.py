"""``fer COMMAND ...`` or ``python -m fer COMMAND ...``: all commands under one name.

Without COMMAND their list is printed. ``fer train model=cnn`` is ``python -m fer.train model=cnn``. Only the called
command is imported.
"""

import importlib
import sys
from collections.abc import Sequence

import fer
from fer.config.command import command
from fer.config.errors import FerError, did_you_mean

COMMANDS = {
    "predict": "predict the emotions on the faces of photographs (needs the extra faces)",
    "serve": "serve a local page that predicts pictures (needs the extras serve and faces)",
    "explain": "show what a network looks at on faces, and check whether that explains it",
    "train": "train a network, or sweep over settings with -m; the best epoch is chosen on val",
    "best": "train the best networks for a given time: an ensemble, three students, a small network",
    "tune": "search for good settings; writes the best as an experiment (needs the extra tune)",
    "bench": "measure the library's speed beside its targets",
    "evaluate": "evaluate a network or an ensemble on val; on test only with --split test",
    "export": "write a network as one ONNX file for use without this library (needs the extra export)",
    "share": "write an evaluated network with its card: one file, or a folder for Hugging Face's hub",
    "compare": "compare runs on val: leaderboard, curves, costs, paired tests",
    "study": "the founding study's table beside the results of its experiments here",
    "audit": "inspect a data set: counts, duplicates, pictures without a face, doubtful labels",
}


@command("fer")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named by the first argument with the other arguments, and return its exit code."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return 0
    if name == "--version":
        print(f"fer {fer.__version__}")
        return 0
    if name not in COMMANDS:
        raise FerError(f"{name}: no such command; use one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    code: int = importlib.import_module(f"fer.{name}").main(rest)
    return code


def listing() -> str:
    """Return the list of commands with their purposes."""
    width = max(map(len, COMMANDS))
    lines = [f"  fer {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    same = "fer COMMAND --help describes a command. python -m fer.train is the same as fer train."
    return "\n".join(["fer predicts the emotion on a face. Commands:\n", *lines, f"\n{same}"])


if __name__ == "__main__":
    sys.exit(main(None))
