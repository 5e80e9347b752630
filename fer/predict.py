"""``python -m fer.predict PHOTO FOLDER 'PATTERN' ...``: the emotions on the faces of pictures.

Faces are found, cut out and classified by a network, by default that of the package. Without ``--out`` the answers are
printed. With it the folder gets a JSON line a picture, a CSV row a face, and a page with all faces.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.config.command import Grammar, command
from fer.config.errors import FerError, in_one_line
from fer.system.terminal import Line, bar, is_live, shown
from fer.system.text import clock, plural

if TYPE_CHECKING:
    from fer.inference.predictor import Answer, Predictor
    from fer.reports.predictions import Shown

log = logging.getLogger(__name__)


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.predict",
        description="Predict the emotions on the faces of pictures. Finding faces needs OpenCV: the extra faces.",
        epilog="An emotion here is how a face looks to people who label pictures. It is not what a person feels.",
    )
    grammar.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, folders with all below them, patterns")
    grammar.add_argument(
        "--network", default="tiny", help="of the package (tiny), a run, a file of weights, or latest; default: tiny"
    )
    grammar.add_argument(
        "--detector", choices=["haar", "yunet", "none"], default="haar",
        help="default: haar; none: each picture is a face that was cut out already",
    )  # fmt: skip
    grammar.add_argument("--detector-model", type=Path, metavar="FILE", help="YuNet's .onnx, of opencv_zoo")
    grammar.add_argument(
        "--boxes", type=Path, metavar="CSV", help="columns file, x, y, width, height; no faces are searched for then"
    )
    grammar.add_argument("--faces", choices=["all", "largest"], default="all", help="of each picture; default: all")
    grammar.add_argument(
        "--margin", type=float, help="side of the square that is cut out, as a multiple of the box; default: 1 for haar"
    )
    grammar.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for predictions.jsonl, predictions.csv and index.html"
    )
    grammar.add_argument("--annotated", type=Path, metavar="FOLDER", help="for copies with their faces marked")
    grammar.add_argument("--resume", action="store_true", help="go on with an interrupted --out")
    grammar.add_argument("--json", action="store_true", help="print a JSON line a picture in place of text")
    grammar.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    grammar.add_argument("--plugins", help="modules to import first, separated by commas")
    return grammar


@command("fer.predict", {"plugins": "--plugins"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if no picture could be read."""
    arguments, _ = parser().begin(argv)
    check(arguments)
    from fer.inference import sources

    files = sources.pictures(arguments.pictures)
    boxes = None if arguments.boxes is None else sources.boxes(arguments.boxes)
    session = Session(arguments, predictor_of(arguments), len(files))
    try:
        for file in files:
            if str(file) not in session.done:
                known = None if boxes is None else boxes.get(file.resolve(), ())
                session.add(file, known)
    finally:
        session.close()
    return session.closing()


def check(arguments: argparse.Namespace) -> None:
    """Raise where options are out of range or mean nothing together.

    Raises:
        FerError: naming the option.
    """
    if arguments.margin is not None and not 0.1 <= arguments.margin <= 10:
        raise FerError(f"--margin {arguments.margin:g}: expected 0.1 to 10")
    if arguments.resume and arguments.out is None:
        raise FerError("--resume: names no folder; add --out FOLDER")
    if arguments.boxes is not None and arguments.detector_model is not None:
        raise FerError("--boxes and --detector-model: boxes replace the detector; leave one out")


def predictor_of(arguments: argparse.Namespace) -> "Predictor":
    """Return what predicts.

    Raises:
        FerError: the network or the detector cannot be had.
    """
    from fer.config.hydra import import_plugins
    from fer.inference.predictor import Predictor
    from fer.runs.run_folder import TRAINED, named

    import_plugins(arguments.plugins.split(",") if arguments.plugins else [])
    predictor = Predictor(
        named(arguments.network, TRAINED), detector="none" if arguments.boxes else arguments.detector,
        detector_model=arguments.detector_model, largest=arguments.faces == "largest", margin=arguments.margin,
        device="cuda" if arguments.device == "gpu" else "cpu",
    )  # fmt: skip
    _ = predictor.detector  # a missing OpenCV is reported before the first picture is read
    return predictor


class Session:
    """Predicts pictures one after the other, and writes or prints each at once.

    Args:
        arguments: of the command line.
        predictor: what predicts.
        count: of the pictures.
    """

    def __init__(self, arguments: argparse.Namespace, predictor: "Predictor", count: int) -> None:
        from fer.inference.records import Writer

        self.arguments, self.predictor, self.count = arguments, predictor, count
        self.about = predictor.about() | ({"detector": "boxes"} if arguments.boxes else {})
        self.writer = None if arguments.out is None else Writer(arguments.out, self.about, resume=arguments.resume)
        self.done = {} if self.writer is None else self.writer.done
        self.line = Line(live=is_live() and self.writer is not None)
        self.began = time.monotonic()
        self.pictures = self.failed = self.faces = self.without = self.small = 0
        self.shown: list[Shown] = []
        self.left_out: list[tuple[str, str]] = []
        for found in self.done.values():
            self._count(found)

    def add(self, file: Path, boxes: Sequence[Any] | None) -> None:
        """Predict a picture; one that cannot be read is counted and recorded."""
        from fer.data.readers.images import PictureError
        from fer.inference.records import record

        try:
            answer: Answer | str = self.predictor.answer(file, boxes)
        except PictureError as error:
            answer = str(error)
        found = record(file, answer)
        self._count(found)
        if not isinstance(answer, str):
            self._keep(file, answer, found)
        if self.writer is not None:
            self.writer.write(found)
            self._progress()
        else:
            text = (
                json.dumps(found, ensure_ascii=False)
                if self.arguments.json
                else "\n".join(map(in_one_line, in_words(found)))
            )
            print(text, flush=True)

    def _count(self, found: dict[str, Any]) -> None:
        self.pictures += 1
        faces = found.get("faces", ())
        self.faces += len(faces)
        self.small += found.get("too_small", 0)
        self.failed += "error" in found
        self.without += "error" not in found and not faces
        if not faces:
            self.left_out.append((found["file"], found.get("error", "no face found")))

    def _keep(self, file: Path, answer: "Answer", found: dict[str, Any]) -> None:
        from fer.reports.predictions import MOST, Shown

        if self.writer is not None and len(self.shown) <= MOST:
            pairs = zip(answer.crops, found["faces"], strict=True)
            self.shown += [Shown(str(file), crop, face) for crop, face in pairs]
        if self.arguments.annotated is not None:
            annotate(file, found, self.arguments.annotated)

    def _progress(self) -> None:
        if self.line.due():
            here = self.pictures - len(self.done)
            left = (time.monotonic() - self.began) / max(here, 1) * (self.count - self.pictures)
            share = self.pictures / self.count
            self.line.draw([f"{bar(share)} {self.pictures:,} of {self.count:,} pictures", f"{clock(left)} left"])

    def close(self) -> None:
        """Close what is open."""
        self.line.end()
        if self.writer is not None:
            self.writer.close()

    def counts(self) -> str:
        """Return the counts in words."""
        parts = [plural(self.pictures, "picture"), plural(self.faces, "face")]
        parts += [f"{plural(self.without, 'picture')} without a face"] if self.without else []
        parts += [f"{plural(self.small, 'face')} below 24 pixels left out"] if self.small else []
        parts += [f"{plural(self.failed, 'picture')} could not be read"] if self.failed else []
        return ", ".join(parts)

    def closing(self) -> int:
        """Write the page, print the counts, and return the exit code: 1 if no picture could be read."""
        if self.writer is not None:
            from fer.inference.records import LINES, ROWS
            from fer.reports import predictions

            out = self.arguments.out
            predictions.write(
                out / "index.html", self.about, self.shown, self.left_out[: predictions.MOST], self.counts()
            )
            log.info("%s", self.counts())
            for name in (LINES, ROWS, "index.html"):
                log.info("  %s", shown(out / name))
        elif not self.arguments.json and self.count > 1:
            log.info("%s", self.counts())
        return 1 if self.failed == self.pictures else 0


def in_words(found: dict[str, Any]) -> Iterator[str]:
    """Give the lines that are printed of a record."""
    if "error" in found:
        yield f"{found['file']}: {found['error']}"
        return
    if not found["faces"]:
        yield f"{found['file']}: no face found"
    for face in found["faces"]:
        best = sorted(face["probabilities"].items(), key=lambda item: -item[1])[1:3]
        rest = ", ".join(f"{name} {100 * value:.0f} %" for name, value in best)
        x, y, width, height = (round(value) for value in face["box"])
        sure = " (uncertain)" if face["uncertain"] else ""
        probability = f"{100 * face['probability']:.0f} %"
        yield f"{found['file']}: {face['emotion']} {probability}{sure}; {rest}; box {width}x{height} at {x}, {y}"


def annotate(file: Path, found: dict[str, Any], folder: Path) -> None:
    """Write a copy of a picture with its faces marked, under its own name, numbered where that is taken."""
    from fer.data.readers.images import read_colour
    from fer.inference.predictor import MOST_PIXELS
    from fer.reports.annotate import annotated

    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / f"{file.stem}.jpg", 1
    while target.exists():
        number += 1
        target = folder / f"{file.stem}_{number}.jpg"
    annotated(read_colour(file, MOST_PIXELS), found["faces"]).save(target, quality=90)


if __name__ == "__main__":
    sys.exit(main(None))
