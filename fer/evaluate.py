"""``python -m fer.evaluate RUN_OR_CHECKPOINT [--split val|test] [--data PATH]``: score a network on a split.

The only command that opens test. Writes ``<run>/evaluations/<split>/`` (a checkpoint outside a run: beside it).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer.configuration import import_plugins
from fer.data.locate import locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.errors import FerError, Grammar, command

log = logging.getLogger(__name__)


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.evaluate",
        description="Score a trained network. Its own data and split are used unless --data names others.",
    )
    grammar.add_argument("run", help="run folder (its best epoch) or checkpoint")
    grammar.add_argument(
        "--split", choices=["val", "test"], default="val", help="default: val; choose on val, report test"
    )
    grammar.add_argument(
        "--data", help="table, archive, folder or 'synthetic'; default: what the network was trained on"
    )
    grammar.add_argument(
        "--rule", choices=["official", "as_given", "holdout"], help="how --data is split; default: as in training"
    )
    grammar.add_argument("--on-bad", choices=["error", "skip"], default=None, help="a bad row or picture of --data")
    grammar.add_argument("--batch-size", type=int, default=128, help="faces at a time; default: %(default)s")
    grammar.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto", help="default: %(default)s")
    grammar.add_argument("--out", type=Path, help="folder for the results; default: evaluations/ in the run's folder")
    grammar.add_argument("--no-report", action="store_true", help="write figures in numbers alone")
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")
    return grammar


@command("fer.evaluate")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, line = parser().begin(argv)
    if arguments.batch_size < 1:
        raise FerError(f"--batch-size={arguments.batch_size}: expected at least 1")
    import_plugins([name for name in arguments.plugins.split(",") if name])
    evaluate(arguments, line)
    return 0


def evaluate(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    """Score, write ``metrics.json``, ``predictions.csv`` and the report, print the tables, and return the figures.

    Args:
        arguments: of the command line.
        command: the command line, for the record.

    Raises:
        FerError: a bad checkpoint, or data that are missing, bad or without the split.
    """
    from fer import checkpoints, machine
    from fer.data.datamodule import FERDataModule
    from fer.reports import run
    from fer.results import class_table, new_folder, score_table, write_json
    from fer.scoring import evaluate_split
    from fer.settings import TrainerSettings

    on_gpu = machine.uses_gpu(TrainerSettings(accelerator=arguments.device), "--device")
    file = checkpoints.find(arguments.run)
    model = checkpoints.load(file)
    data = FERDataModule(data_settings(arguments, model.dataset, model.image_size))
    data.setup({"val": "validate", "test": "test"}[arguments.split])
    described = data.describe()
    if described["fingerprint"] != model.dataset.get("fingerprint"):
        log.warning(
            "these are not the data of the training: %s, trained on %s", described["path"], model.dataset.get("path")
        )
    log.info("network: %s from %s", model.architecture, file)
    log.info("data:    %s, split %s: %s", described["path"], described["split"], arguments.split)
    folder = new_folder(arguments.out or home(file), arguments.split)
    results, scored = evaluate_split(model, data, arguments.split, folder, on_gpu)
    results |= {
        "architecture": model.architecture,
        "pretrained": model.pretrained,
        "checkpoint": str(file),
        "dataset": described,
        **machine.provenance(),
        "command": command,
    }
    write_json(folder / "metrics.json", results)
    if not arguments.no_report:
        run.write(run.Report(results, scored), folder)
    log.info("\n%s\n\n%s\n\nresults:  %s", class_table(results), score_table(results), folder)
    if not arguments.no_report:
        log.info("report:   %s", folder / "report.html")
    return results


def data_settings(arguments: argparse.Namespace, trained_on: dict[str, Any], image_size: int) -> Any:
    """Return the ``DataSettings`` of the training, with what the command line says instead.

    Raises:
        FerError: the data are not found; drawn faces never stand in.
    """
    from fer.arguments import build
    from fer.settings import DataSettings

    known = dict(trained_on.get("settings", {}))
    known["exclude"] = None  # is of train alone
    if arguments.data is not None:
        known["votes"] = None
        known["path"], _ = locate(arguments.data, drawn_faces_allowed=False)
    elif known.get("path") != SYNTHETIC and not Path(str(known.get("path"))).exists():
        raise FerError(f"trained on {known.get('path')}, which is not there any more; name the data with --data")
    if arguments.rule is not None:
        known["split"] = arguments.rule
    if arguments.on_bad is not None:
        known["on_bad"] = arguments.on_bad
    known |= {"image_size": image_size, "batch_size": arguments.batch_size, "cache": "auto"}
    return build(DataSettings, known, "the checkpoint's data settings")


def home(file: Path) -> Path:
    """Return where a checkpoint's evaluations go: its run's folder, or beside it."""
    folder = file.resolve().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "evaluations"


if __name__ == "__main__":
    sys.exit(main(None))
