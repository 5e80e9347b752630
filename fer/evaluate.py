"""``python -m fer.evaluate RUN_OR_CHECKPOINT...``: networks evaluated on a split.

Options are ``--split test``, ``--data PATH``, ``--tta flip`` and more. Only this command and the end of ``fer.best``
open test, and each test evaluation is recorded. Several networks are evaluated as an ensemble. Results go to
``<run>/evaluations/<split>/``. For a checkpoint outside a run they go beside it, for a network of the package to
``outputs/pretrained/``, for an ensemble to ``outputs/ensembles/``.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer.config.command import Grammar, check_rule, class_names, command
from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.config.plugins import import_plugins, listed
from fer.metrics import conformal
from fer.reports.summary import remarks
from fer.runs import zoo
from fer.runs.run_folder import TRAINED, named
from fer.system.imports import first_of
from fer.system.slots import let_waiting_threads_sleep

if TYPE_CHECKING:
    from fer.evaluation.request import Request
    from fer.metrics.results import Results
    from fer.runs.predictions import Scored

log = logging.getLogger(__name__)

OPTIONS = {  # key of fer.train -> option here
    "data.path": "--data",
    "data.split": "--rule",
    "data.votes": "--votes",
    "data.labels": "--labels",
    "data.ferplus_rule": "--ferplus-rule",
    "data.on_bad": "--on-bad",
    "data.class_names": "--class-names",
    "data.batch_size": "--batch-size",
    "coverage": "--coverage",
    "coverage_by": "--coverage-by",
    "plugins": "--plugins",
}


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.evaluate",
        description="Evaluate a trained network, or several as an ensemble, on the data and split of its training or "
        "on --data.",
        epilog="A run may also be a file NAME.safetensors of fer.share or its folder, a file NAME.onnx of fer.export, "
        "hf://owner/name of the hub, or the name of one of the networks of the package: "
        f"{', '.join(zoo.pretrained())}.",
    )
    grammar.add_argument(
        "runs", nargs="+", metavar="run",
        help="run folder (its best epoch; latest is the newest run in outputs/) or checkpoint; for an ensemble "
        "also a folder of predictions such as docs/results has, with <split>[_<tta>].csv.gz and .json",
    )  # fmt: skip
    grammar.add_download()
    add_faces(grammar)
    add_choices(grammar)
    add_handling(grammar)
    return grammar


def add_faces(grammar: Grammar) -> None:
    """Add the options that name the faces and their labels."""
    grammar.add_argument(
        "--split", choices=["train", "val", "test", "all"], default="val",
        help="split to evaluate; choose on val, report test; all is every labelled face; default: %(default)s",
    )  # fmt: skip
    grammar.add_argument(
        "--data", action="append",
        help="table, archive, folder or 'synthetic'; default: the data of the training; given several times: each is "
        "evaluated, and one table compares them",
    )  # fmt: skip
    grammar.add_argument(
        "--rule", choices=["official", "as_given", "holdout"], help="how --data is split; default: as in training"
    )
    grammar.add_argument(
        "--votes", help="FER+'s fer2013new.csv, joined by row: also report the agreement with its annotators"
    )
    grammar.add_argument(
        "--labels", choices=["fer2013", "ferplus"], help="labels that are the targets; default: as in training"
    )
    grammar.add_argument(
        "--ferplus-rule",
        choices=["majority", "argmax", "soft"],
        help="how votes become labels; default: as in training",
    )


def add_choices(grammar: Grammar) -> None:
    """Add the options of the prediction and of what is chosen on val."""
    grammar.add_argument(
        "--tta", choices=["none", "flip", "ten_crop", "shifts"], default="none",
        help="views of each face whose probabilities are averaged; default: %(default)s",
    )  # fmt: skip
    grammar.add_argument(
        "--weights", choices=["equal", "val"], default="equal",
        help="weights of an ensemble's networks: equal, or fitted on val of the training, after each network's logits "
        "are divided by its temperature; default: %(default)s",
    )  # fmt: skip
    grammar.add_argument(
        "--choose", action="store_true",
        help="choose an ensemble's networks and weights on val, one network after the other, after each network's "
        "logits are divided by its temperature",
    )  # fmt: skip
    grammar.add_argument(
        "--against", metavar="OTHER",
        help="baseline on the same faces: run (or latest), checkpoint or evaluation; prints differences with intervals",
    )  # fmt: skip
    grammar.add_argument(
        "--error-rate", type=float, metavar="SHARE",
        help="find on val the confidence above which at most this share of the predictions is wrong, and apply it here",
    )  # fmt: skip
    grammar.add_argument(
        "--coverage", type=float, metavar="SHARE",
        help="promised share of the faces whose prediction set holds the label; default: 0.9, of networks that have "
        "thresholds for it; with this option they are calibrated on val for the others",
    )  # fmt: skip
    grammar.add_coverage_by()


def add_handling(grammar: Grammar) -> None:
    """Add the options of how the faces are read and computed, and of what is written."""
    grammar.add_argument(
        "--on-bad",
        choices=["error", "skip"],
        default=None,
        help="error stops at a bad row or picture of --data, skip counts and lists it",
    )
    grammar.add_argument("--batch-size", type=int, default=128, help="faces at a time; default: %(default)s")
    grammar.add_argument(
        "--device", choices=["auto", "cpu", "gpu"], default="auto", help="where to compute; default: %(default)s"
    )
    grammar.add_folder("--out", "folder for the results; default: evaluations/ in the run's folder")
    grammar.add_argument(
        "--maps", action="store_true",
        help="show in the report what the network looked at in its most confident mistakes, by occlusion",
    )  # fmt: skip
    grammar.add_argument("--no-report", action="store_true", help="write neither report nor model card")
    grammar.add_argument(
        "--class-names", type=class_names, metavar="FOLDER:EMOTION,...",
        help="meaning of class folders of other names in --data, such as 1:surprise,2:fear",
    )  # fmt: skip
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")


@command("fer.evaluate", OPTIONS)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    let_waiting_threads_sleep()
    arguments, line = parser().begin(argv)
    check(arguments)
    import_plugins(listed(arguments.plugins))
    download = arguments.download
    arguments.runs = [str(named(run, TRAINED, download=download)) for run in arguments.runs]
    arguments.against = arguments.against and str(named(arguments.against, TRAINED, download=download))
    evaluate_each(arguments, line)
    return 0


def evaluate_each(arguments: argparse.Namespace, command: str) -> None:
    """Evaluate on each data set that is named, and print and write one table of several.

    Each has a folder of results, leakage and classes of its own.

    Raises:
        FerError: as ``evaluate``; the results on the data sets before are kept.
    """
    with first_of("torch"):
        from fer.evaluation import several
        from fer.evaluation.evaluate import check_readable
        from fer.reports.summary import data_set_table

    requests = [request_of(arguments, data) for data in arguments.data or [None]]
    if len(requests) > 1:  # test of one set stays closed if another set cannot be read
        check_readable(requests)
    evaluations = [evaluate(request, arguments, command) for request in requests]
    if len(evaluations) > 1:
        table = data_set_table([results for results, _ in evaluations])
        log.info("\n%s\n\ntable:    %s", table, several.write(evaluations))


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that are out of range or contradict each other.

    Raises:
        FerError: the message names the option.
    """
    if arguments.batch_size < 1:
        raise FerError(f"--batch-size={arguments.batch_size}: expected at least 1")
    if arguments.error_rate is not None and not 0 < arguments.error_rate < 1:
        raise FerError(f"--error-rate={arguments.error_rate:g}: expected a share between 0 and 1, such as 0.1")
    if arguments.coverage is not None:
        conformal.check(arguments.coverage)
    if arguments.weights == "val" and len(arguments.runs) == 1:
        raise FerError("--weights val: needs an ensemble; name more than one network")
    if arguments.choose and len(arguments.runs) == 1:
        raise FerError("--choose: needs several networks; name more than one")
    if arguments.choose and arguments.weights == "val":
        raise FerError("--choose --weights val: --choose fits the weights too; leave one out")
    if arguments.maps and arguments.no_report:
        raise FerError("--maps --no-report: maps are part of the report; leave one out")
    names = arguments.data or []
    if arguments.class_names is not None and not names:
        raise FerError("--class-names: names the folders of other data; add --data, or leave it out")
    files = [expand_home(name).resolve() for name in names]
    if twice := next((name for index, name in enumerate(names) if files[index] in files[:index]), None):
        raise FerError(f"--data {twice}: is given twice; name each data set once")
    check_rule(arguments.split, arguments.rule)


def request_of(arguments: argparse.Namespace, data: str | None) -> "Request":
    """Return what is to be evaluated on a data set; None is that of the training.

    Raises:
        FerError: a GPU is required but missing.
    """
    from fer.evaluation.request import Request

    return Request(
        networks=arguments.runs,
        split=arguments.split,
        data=data,
        rule=arguments.rule,
        on_bad=arguments.on_bad,
        class_names=arguments.class_names,
        votes=arguments.votes,
        labels=arguments.labels,
        ferplus_rule=arguments.ferplus_rule,
        views=arguments.tta,
        weights=arguments.weights,
        choose=arguments.choose,
        baseline=arguments.against,
        error_rate=arguments.error_rate,
        coverage=arguments.coverage,
        coverage_by=arguments.coverage_by,
        batch_size=arguments.batch_size,
        on_gpu=uses_gpu(arguments),
    )


def evaluate(request: "Request", arguments: argparse.Namespace, command: str) -> "tuple[Results, Path]":
    """Evaluate, write the results and the report, print the tables, and return the results and their folder.

    Args:
        request: what is to be evaluated.
        arguments: parsed command line.
        command: the command line, for the record.

    Raises:
        FerError: a checkpoint is bad, or the data are missing, bad or without the split.
    """
    from fer.evaluation.evaluate import evaluate as scored_by
    from fer.reports.summary import class_table, metric_table

    results, scored, folder = scored_by(request, arguments.out, command)
    tables = [class_table(results), metric_table(results), *remarks(results)]
    log.info("\n%s\n\nresults:  %s", "\n\n".join(tables), folder)  # before the report, which may fail on a full disk
    if not arguments.no_report:
        write_report(arguments, results, scored, folder, command)
    return results, folder


def uses_gpu(arguments: argparse.Namespace) -> bool:
    """Return whether networks are computed on a GPU; of exported files alone none is, and torch is not asked.

    Raises:
        FerError: a GPU is required and torch finds none, or exported files would be computed there.
    """
    from fer.config.settings import TrainerSettings
    from fer.inference.exported import is_exported
    from fer.system import machine

    if not all(map(is_exported, arguments.runs)):
        return machine.uses_gpu(TrainerSettings(accelerator=arguments.device), "--device")
    if arguments.device == "gpu":
        raise FerError("--device gpu: exported files are computed on the CPU; leave it out")
    return False


def write_report(
    arguments: argparse.Namespace, results: "Results", scored: "Scored", folder: Path, command: str
) -> None:
    """Write model card and report, with maps of the most confident mistakes if asked for and possible."""
    from fer.evaluation import explained_split
    from fer.reports import model_card, run, run_sections

    model_card.write(results, folder / "model_card.md")
    mistakes, explained = run_sections.mistakes(scored), None
    if arguments.maps and mistakes.size:
        try:
            chosen = [member.checkpoint for member in results.members]
            explained = explained_split.of_mistakes(chosen, scored, mistakes, command)
        except FerError as error:  # the evaluation is made and kept
            log.warning("no maps: %s", error)
    run.write(run_sections.Report(results, scored, explained=explained), folder)
    log.info("report:   %s\ncard:     %s", folder / "report.html", folder / "model_card.md")


if __name__ == "__main__":
    sys.exit(main(None))
