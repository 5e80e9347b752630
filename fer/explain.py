"""``python -m fer.explain PICTURE ...``: what a network looks at, and whether that explains it.

``--data PATH --split val`` explains the faces of a split instead. Each face gets a map of what speaks for the predicted
emotion, and of why it was preferred to the next one. A page shows the maps below a check: whether they explain the
network better than a blob in the middle of the frame does.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fer.config.command import DETECTOR, Grammar, check_rule, command
from fer.config.errors import FerError, visible
from fer.config.plugins import import_plugins, listed
from fer.system.files import new_folder, unused_folder
from fer.system.slots import let_waiting_threads_sleep
from fer.system.terminal import Line, bar, is_live, shown
from fer.system.text import clock, plural, text_table

if TYPE_CHECKING:
    from fer.evaluation.explanation import ExplainedFaces
    from fer.inference.network import Opened
    from fer.metrics.explanation import Explanation

log = logging.getLogger(__name__)

FACES = 200  # explained by default; about 20 s for the package's network on one core
FOLDER = Path("outputs/explain")
OPTIONS = {  # key of fer.train -> option here
    "device": "--device",
    "data.path": "--data",
    "data.split": "--rule",
    "data.on_bad": "--on-bad",
    "data.class_names": "--class-names",
    "plugins": "--plugins",
}


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.explain",
        description="Show what speaks for the predicted emotion on faces, and check whether these maps explain the "
        "network. Faces are those of pictures, or of a split of --data.",
        epilog="A map shows what a network looks at. It does not show what a person feels.",
    )
    grammar.add_argument("pictures", nargs="*", metavar="PICTURE", help="files, folders with all below them, patterns")
    grammar.add_argument("--data", help="explain faces of a split of this table, archive or folder")
    grammar.add_argument(
        "--split", choices=["train", "val", "test", "all"], default="val",
        help="of --data; default: val; test is left to fer.evaluate",
    )  # fmt: skip
    grammar.add_argument(
        "--network", action="append",
        help="of the package (tiny), a run, a file of weights, an .onnx file, latest, or hf://owner/name of the hub; "
        "several times for an ensemble; default: tiny",
    )  # fmt: skip
    grammar.add_download()
    grammar.add_argument(
        "--method", choices=["occlusion", "gradcam", "integrated_gradients"], default="occlusion",
        help="default: occlusion, which needs probabilities alone",
    )  # fmt: skip
    grammar.add_argument(
        "--faces", type=int, default=FACES, metavar="N",
        help=f"explain at most N; of --data a seeded draw, equal numbers of each emotion; default: {FACES}",
    )  # fmt: skip
    grammar.add_detector()
    grammar.add_reading()
    grammar.add_folder("--out", f"for the results; default: {FOLDER}/<name>")
    grammar.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    grammar.add_argument("--plugins", default="", help="modules to import first, separated by commas")
    return grammar


@command("fer.explain", OPTIONS)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if there was no face to explain."""
    let_waiting_threads_sleep()
    arguments, line = parser().begin(argv)
    check(arguments)
    from fer.inference.network import named

    import_plugins(listed(arguments.plugins))
    files = [named(network, download=arguments.download) for network in arguments.network or ["tiny"]]
    networks, given = of_data(arguments, files) if arguments.data else of_pictures(arguments, files)
    if not len(given.names):
        raise FerError(f"no face to explain: {'; '.join(f'{file}: {why}' for file, why in given.left_out.items())}")
    explain(arguments, networks, given, line)
    return 0


def device_of(arguments: argparse.Namespace) -> str:
    """Return where the networks compute."""
    return "cuda" if arguments.device == "gpu" else "cpu"


def check(arguments: argparse.Namespace) -> None:
    """Raise where options are out of range or mean nothing together.

    Raises:
        FerError: naming the option.
    """
    if bool(arguments.pictures) == bool(arguments.data):
        raise FerError("name either pictures or --data PATH; --help describes both")
    if arguments.faces < 1:
        raise FerError(f"--faces {arguments.faces}: expected at least 1")
    if arguments.split == "test":
        raise FerError("--split test: test is opened by fer.evaluate alone; explain val, or train")
    if arguments.pictures and (
        arguments.split != "val" or arguments.rule or arguments.on_bad or arguments.class_names is not None
    ):
        raise FerError("--split, --rule, --on-bad and --class-names: belong to --data; leave them out for pictures")
    check_rule(arguments.split, arguments.rule)
    if arguments.data and (arguments.detector or arguments.detector_model):
        raise FerError("--detector and --detector-model: belong to pictures; leave them out with --data")


def of_data(arguments: argparse.Namespace, files: Sequence[Path]) -> "tuple[list[Opened], ExplainedFaces]":
    """Return the networks, and faces of a split.

    Raises:
        FerError: the data are missing or bad, have no such split, or are the networks' test faces.
    """
    from fer.evaluation.explained_split import of_split
    from fer.evaluation.request import Request, members_of
    from fer.inference.network import check_device

    if arguments.device == "gpu":  # otherwise an exported file is explained without torch
        check_device(device_of(arguments))
    members = members_of([str(file) for file in files])
    for member in members:
        member.model.computed_on(device_of(arguments))
    request = Request(
        [str(member.file) for member in members],
        arguments.split,
        arguments.data,
        arguments.rule,
        arguments.on_bad,
        class_names=arguments.class_names,
    )
    return [member.opened for member in members], of_split(request, members, arguments.faces)


def of_pictures(arguments: argparse.Namespace, files: Sequence[Path]) -> "tuple[list[Opened], ExplainedFaces]":
    """Return the networks, and the faces of pictures, found as by ``fer.predict``; exported files need no torch.

    Raises:
        FerError: a network or the detector cannot be had, or a name stands for no picture.
    """
    from fer.evaluation import explanation
    from fer.inference import sources
    from fer.inference.network import opened_together
    from fer.inference.predictor import Predictor

    networks = opened_together(files, device_of(arguments))
    listing = sources.files(arguments.pictures)
    videos = {str(file): "is a video; fer.explain takes pictures" for file in listing.files if sources.is_video(file)}
    pictures = [file for file in listing.files if str(file) not in videos]
    detector, model = arguments.detector or DETECTOR, arguments.detector_model
    predictor = Predictor(networks[0].network, detector=detector, detector_model=model)
    given = explanation.of_pictures(pictures, predictor, arguments.faces)
    for note in listing.notes:
        print(visible(note), file=sys.stderr)
    return networks, replace(given, left_out={**given.left_out, **videos})


def explain(
    arguments: argparse.Namespace, networks: Sequence["Opened"], given: "ExplainedFaces", command: str
) -> "Explanation":
    """Explain faces, check the maps, write ``explain.json`` and the page, print the check, and return the explanation.

    Raises:
        FerError: the method does not apply to these networks.
    """
    from fer.evaluation import explanation
    from fer.metrics.explanation import write
    from fer.reports.explanation import page

    line, began, count = Line(live=is_live()), time.monotonic(), len(given.names)

    def progress(done: int) -> None:
        if line.due() and done:
            left = (time.monotonic() - began) / done * (count - done)
            line.draw(
                [f"{bar(done / count)} {done:,} of {plural(count, 'face')}", f"{clock(left)} left, then the check"]
            )

    try:
        found, maps = explanation.explain(networks, arguments.method, given, command, progress)
    finally:
        line.end()
    name = Path(arguments.data).stem if arguments.data else Path(given.names[0]).stem
    folder = unused_folder(arguments.out) if arguments.out else new_folder(FOLDER, name or "data")
    write(folder / "explain.json", found)
    page.write(folder / "index.html", found, maps)
    log.info("%s\n", "\n\n".join(in_words(found)))
    for file in ("index.html", "explain.json"):
        log.info("  %s", shown(folder / file))
    return found


def in_words(found: "Explanation") -> list[str]:
    """Return the printed summary: the faces of a handful of pictures, the table of the check, and its verdict."""
    from fer.metrics.explanation import TITLES

    check = found.check
    faces = (
        []
        if found.emotions
        else [
            f"{face.name}: {face.predicted} {100 * face.probabilities[face.predicted]:.0f} %, then {face.second} "
            f"{100 * face.probabilities[face.second]:.0f} %"
            for face in found.faces
        ]
    )
    areas = [
        text_table(
            ["maps", "deletion (small is good)", "insertion (large is good)"],
            [[TITLES[curve.map], curve.deletion_area.written(), curve.insertion_area.written()] for curve in curves],
        )
        for curves in (check.curves, check.imputed.curves)
    ]
    left_out = [f"{file}: {why}" for file, why in found.left_out.items()]
    again = f"With removed pixels imputed from their neighbours (ROAD), {plural(check.imputed.faces, 'face')}:"
    said = [areas[0], check.verdict, f"{again}\n{areas[1]}"]
    said += [] if check.imputed.verdict == check.verdict else [check.imputed.verdict]
    return ["\n".join(part) for part in (faces, left_out) if part] + said


if __name__ == "__main__":
    sys.exit(main(None))
