"""``python -m fer.predict PHOTO FOLDER 'PATTERN' VIDEO ...``: the emotions on pictures and videos.

Faces are found, cut out and classified by a network, by default that of the package. Without ``--out`` the answers are
printed. With it the folder gets a JSON line a picture or frame, a CSV row a face, and a page with all faces. A video
has a timeline and a page of its own. ``--webcam 0`` predicts what a camera sees.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer.config.command import DETECTOR, Grammar, command
from fer.config.errors import FerError, visible
from fer.config.plugins import import_plugins, listed

if TYPE_CHECKING:
    from fer.inference.predictor import Predictor
    from fer.reports.session import Options


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.predict",
        description="Predict the emotions on the faces of pictures and videos. It needs OpenCV: the extra faces.",
        epilog="An emotion here is how a face looks to people who label pictures. It is not what a person feels.",
    )
    grammar.add_argument(
        "files", nargs="*", metavar="FILE", help="pictures, videos, folders with all below them, patterns"
    )
    grammar.add_argument("--webcam", type=int, metavar="NUMBER", help="a camera, from 0, until Ctrl-C; no files then")
    grammar.add_network_and_detector()
    grammar.add_argument(
        "--boxes", type=Path, metavar="CSV", help="columns file, x, y, width, height; no faces are searched for then"
    )
    grammar.add_argument("--faces", choices=["all", "largest"], default="all", help="of each picture; default: all")
    grammar.add_argument("--fps", type=float, help="frames per second of a video that are predicted; default: all")
    grammar.add_argument(
        "--smooth", type=float, metavar="SECONDS", default=0.5,
        help="half-life of the smoothing over a video; 0: none; default: 0.5",
    )  # fmt: skip
    grammar.add_argument(
        "--margin", type=float, help="side of the square that is cut out, as a multiple of the box; default: 1 for haar"
    )
    grammar.add_coverage()
    grammar.add_folder("--out", "for predictions.jsonl, predictions.csv and index.html")
    grammar.add_folder("--annotated", "for copies with their faces marked")
    grammar.add_argument("--resume", action="store_true", help="go on with an interrupted --out")
    grammar.add_argument("--json", action="store_true", help="print a JSON line a picture in place of text")
    grammar.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    grammar.add_argument("--plugins", help="modules to import first, separated by commas")
    return grammar


OPTIONS = {
    "device": "--device", "plugins": "--plugins", "coverage": "--coverage", "coverage_by": "--coverage-by",
    "margin": "--margin", "fps": "--fps", "half_life": "--smooth",
}  # fmt: skip


@command("fer.predict", OPTIONS)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if no file could be read."""
    arguments, _ = parser().begin(argv)
    check(arguments)
    from fer.inference import sources
    from fer.inference.video import Clip
    from fer.reports.session import Session

    listing = sources.files(arguments.files, [arguments.annotated] if arguments.annotated else [])
    files = listing.files
    boxes = None if arguments.boxes is None else sources.boxes(arguments.boxes)
    videos = arguments.webcam is not None or any(map(sources.is_video, files))
    if boxes is not None and videos:
        raise FerError("--boxes: serves pictures alone; leave out the videos")
    unmatched = None if boxes is None else sources.compared(arguments.boxes, boxes, files)
    camera = None if arguments.webcam is None else Clip(arguments.webcam)  # before any file is written
    session = Session(options_of(arguments), predictor_of(arguments), [str(file) for file in files], videos=videos)
    unused = arguments.fps is not None and not videos
    fps = f"--fps {arguments.fps:g}: none of the files is a video; not used" if unused else None
    for note in filter(None, (*listing.notes, unmatched, fps)):
        print(visible(note), file=sys.stderr)
    try:
        if camera is not None:
            session.watch(camera)
        left = [file for file in files if str(file) not in session.done]
        for are_videos, group in itertools.groupby(left, sources.is_video):
            if are_videos:
                for file in group:
                    session.watch(file)
            else:
                session.add(list(group), boxes)
    finally:
        session.close()
    return session.closing()


def check(arguments: argparse.Namespace) -> None:
    """Raise where options are out of range or mean nothing together.

    Raises:
        FerError: naming the option.
    """
    if arguments.files and arguments.webcam is not None:
        raise FerError("--webcam: takes no files beside it; leave one out")
    if not arguments.files and arguments.webcam is None:
        raise FerError("no FILE: name pictures, videos or folders, or give --webcam 0; --help lists the options")
    if arguments.webcam is not None and not 0 <= arguments.webcam < 2**31:
        raise FerError(f"--webcam {arguments.webcam}: expected the number of a camera, from 0")
    if arguments.webcam is not None and arguments.resume:
        raise FerError("--resume: a camera has nothing to resume; leave it out")
    from fer.inference.video import check_times

    check_times(arguments.fps, arguments.smooth)
    if arguments.resume and arguments.out is None:
        raise FerError("--resume: needs the folder to continue; add --out FOLDER")
    if arguments.json and arguments.out is not None:
        raise FerError("--json and --out: the folder has the same lines, in predictions.jsonl; leave --json out")
    if arguments.boxes is not None and not arguments.boxes.is_file():
        raise FerError(f"--boxes {arguments.boxes}: no such file; expected a table with file, x, y, width and height")
    for option in ("detector", "detector_model"):
        if arguments.boxes is not None and getattr(arguments, option) is not None:
            name = f"--{option.replace('_', '-')}"
            raise FerError(f"--boxes and {name}: boxes replace the detector; leave one out")


def options_of(arguments: argparse.Namespace) -> "Options":
    """Return what is written and printed."""
    from fer.reports.session import Options

    return Options(
        out=arguments.out, annotated=arguments.annotated, resume=arguments.resume, json=arguments.json,
        boxes=arguments.boxes is not None, fps=arguments.fps, smooth=arguments.smooth,
    )  # fmt: skip


def predictor_of(arguments: argparse.Namespace) -> "Predictor":
    """Return what predicts.

    Raises:
        FerError: the network or the detector cannot be had.
    """
    from fer.inference.network import named
    from fer.inference.predictor import Predictor

    import_plugins(listed(arguments.plugins))
    network = named(arguments.network, download=arguments.download)
    predictor = Predictor(
        network, detector="none" if arguments.boxes else arguments.detector or DETECTOR,
        detector_model=arguments.detector_model, largest=arguments.faces == "largest", margin=arguments.margin,
        device="cuda" if arguments.device == "gpu" else "cpu", coverage=arguments.coverage,
        coverage_by=arguments.coverage_by,
    )  # fmt: skip
    _ = predictor.detector  # a missing OpenCV is reported before the first picture is read
    return predictor


if __name__ == "__main__":
    sys.exit(main(None))
