"""``python -m fer.compare RUN_OR_SWEEP...``: compare finished runs by their metrics on val.

Groups runs by configuration, lists their differing settings, and writes ``leaderboard.csv``, ``leaderboard.md`` and
``compare.html`` to ``outputs/compare/<date>_<time>/``.
"""

import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fer.config.command import Grammar, command
from fer.system.files import new_folder

log = logging.getLogger(__name__)

SORTS = ("accuracy", "macro_f1", "balanced_accuracy", "nll", "ece", "parameters", "train_seconds", "images_per_second")


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.compare",
        description="Compare finished runs: leaderboard, curves, costs, paired tests. All metrics are of val.",
    )
    grammar.add_argument("runs", nargs="+", type=Path, help="run folders, sweeps, folders that hold them, or latest")
    grammar.add_folder("--out", "folder for the results; default: outputs/compare/<date>_<time>")
    grammar.add_argument("--sort", choices=SORTS, default="accuracy", help="order of the rows; default: %(default)s")
    grammar.add_argument(
        "--pair", nargs=2, action="append", type=Path, metavar=("A", "B"), default=[],
        help="two run folders for McNemar's exact test; may be repeated",
    )  # fmt: skip
    grammar.add_argument(
        "--test", type=Path, metavar="RUN", help="the run chosen on val: also show its evaluations on test"
    )
    return grammar


@command("fer.compare")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, _ = parser().begin(argv)
    from fer.reports.compare import leaderboard
    from fer.runs import load  # imports Hydra, which --help does not need
    from fer.runs.run_folder import FINISHED, named, named_results

    gathered = load.gather(map(named_results, arguments.runs))
    pairs = [load.paired(*(named(run, FINISHED) for run in pair)) for pair in arguments.pair]
    chosen = arguments.test and named(arguments.test, FINISHED)
    if chosen is not None:
        load.evaluations_on_test(chosen)  # refuses the run before a folder is made
    out = results_folder(arguments.out)
    published = leaderboard.write(gathered, out, by=arguments.sort, pairs=pairs, chosen=chosen)
    log.info("%s\n\npage:    %s\ntables:  %s, %s", published.text, published.page, published.table, published.markdown)
    return 0


def results_folder(out: Path | None) -> Path:
    """Return the folder for the results; in place of a used folder a new one with a number."""
    if out is None:
        return new_folder(Path("outputs/compare"), f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    taken = any((out / name).exists() for name in ("leaderboard.csv", "leaderboard.md", "compare.html"))
    return new_folder(out.parent, out.name) if taken else out


if __name__ == "__main__":
    sys.exit(main(None))
