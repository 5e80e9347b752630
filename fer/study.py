"""``python -m fer.study [RUN_OR_SWEEP ...]``: the founding study's table beside our results.

Takes the runs of ``experiment=study/...`` (``make study`` makes them) and writes ``study.md``, ``study.csv`` and
``figures/``. All accuracies are of val, on which the epoch is chosen too, as in the study.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fer.config.command import Grammar, command
from fer.reports.study.tables import draw, markdown, table_of, text, write_csv
from fer.runs.run_folder import named_results
from fer.system.files import written_whole

log = logging.getLogger(__name__)


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(prog="python -m fer.study", description="The founding study's table, with results of runs.")
    grammar.add_argument(
        "runs",
        nargs="*",
        type=Path,
        default=[Path("outputs/study")],
        help="runs, sweeps, or latest; default: outputs/study",
    )
    grammar.add_folder("--out", "folder for the results; default: the first of the folders above")
    return grammar


@command("fer.study")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, _ = parser().begin(argv)
    runs = [named_results(run) for run in arguments.runs]
    table = table_of(runs)
    out = arguments.out or runs[0]
    draw(table, out / "figures")
    write_csv(out / "study.csv", table)
    with written_whole(out / "study.md") as stream:
        stream.write(markdown(table))
    log.info("%s\n\nresults:  %s, study.csv, figures/", text(table), out / "study.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
