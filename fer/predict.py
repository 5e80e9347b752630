"""``python -m fer.predict PHOTO FOLDER 'PATTERN' VIDEO ...``: the emotions on the faces of pictures and videos.

Faces are found, cut out and classified by a network, by default that of the package. Without ``--out`` the answers are
printed. With it the folder gets a JSON line a picture or frame, a CSV row a face, and a page with all faces; a video
has a timeline and a page of its own. ``--webcam 0`` predicts what a camera sees.
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.config.command import Grammar, command
from fer.config.errors import FerError, in_one_line
from fer.system.files import new_file
from fer.system.terminal import Line, bar, is_live, shown
from fer.system.text import clock, plural

if TYPE_CHECKING:
    from fer.data.crop import Box
    from fer.inference.predictor import Answer, Predictor
    from fer.inference.video import Clip
    from fer.reports.footage import Footage
    from fer.reports.predictions import Shown

log = logging.getLogger(__name__)


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
    grammar.add_argument(
        "--network", default="tiny", help="of the package (tiny), a run, a file of weights, or latest; default: tiny"
    )
    grammar.add_argument(
        "--detector", choices=["haar", "yunet", "yuface", "none"], default="haar",
        help="default: haar; none: each picture is a face that was cut out already",
    )  # fmt: skip
    grammar.add_argument("--detector-model", type=Path, metavar="FILE", help="YuNet's .onnx, of opencv_zoo")
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
    grammar.add_argument(
        "--coverage", type=float, metavar="SHARE",
        help="promised share of faces whose prediction set holds the label; default: 0.9, of networks that have sets",
    )  # fmt: skip
    grammar.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for predictions.jsonl, predictions.csv and index.html"
    )
    grammar.add_argument("--annotated", type=Path, metavar="FOLDER", help="for copies with their faces marked")
    grammar.add_argument("--resume", action="store_true", help="go on with an interrupted --out")
    grammar.add_argument("--json", action="store_true", help="print a JSON line a picture in place of text")
    grammar.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    grammar.add_argument("--plugins", help="modules to import first, separated by commas")
    return grammar


@command("fer.predict", {"plugins": "--plugins", "coverage": "--coverage"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if no file could be read."""
    arguments, _ = parser().begin(argv)
    check(arguments)
    from fer.inference import sources
    from fer.inference.video import Clip

    files = [] if arguments.webcam is not None else sources.files(arguments.files)
    boxes = None if arguments.boxes is None else sources.boxes(arguments.boxes)
    videos = arguments.webcam is not None or any(map(sources.is_video, files))
    if boxes is not None and videos:
        raise FerError("--boxes: names boxes of pictures; leave out the videos, whose faces are searched for")
    camera = None if arguments.webcam is None else Clip(arguments.webcam)  # before any file is written
    session = Session(arguments, predictor_of(arguments), len(files), videos=videos)
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
    if arguments.webcam is not None and arguments.webcam < 0:
        raise FerError(f"--webcam {arguments.webcam}: expected the number of a camera, from 0")
    if arguments.webcam is not None and arguments.resume:
        raise FerError("--resume: a camera cannot go on where it ended; leave it out")
    if arguments.fps is not None and not 0.01 <= arguments.fps <= 1000:
        raise FerError(f"--fps {arguments.fps:g}: expected 0.01 to 1000")
    if not 0 <= arguments.smooth <= 60:
        raise FerError(f"--smooth {arguments.smooth:g}: expected 0 to 60 seconds")
    if arguments.margin is not None and not 0.1 <= arguments.margin <= 10:
        raise FerError(f"--margin {arguments.margin:g}: expected 0.1 to 10")
    if arguments.coverage is not None:
        from fer.metrics import conformal

        conformal.check(arguments.coverage)
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
        device="cuda" if arguments.device == "gpu" else "cpu", coverage=arguments.coverage,
    )  # fmt: skip
    _ = predictor.detector  # a missing OpenCV is reported before the first picture is read
    return predictor


class Session:
    """Predicts pictures and videos one after the other, and writes or prints each at once.

    Args:
        arguments: of the command line.
        predictor: what predicts.
        count: of the files.
        videos: whether there are any among them.
    """

    def __init__(
        self, arguments: argparse.Namespace, predictor: "Predictor", count: int, *, videos: bool = False
    ) -> None:
        from fer.inference.predictor import WITHOUT_SETS
        from fer.inference.records import Writer

        self.arguments, self.predictor, self.count = arguments, predictor, count
        self.coverage = predictor.coverage
        self.about = predictor.about() | ({"detector": "boxes"} if arguments.boxes else {})
        self.about |= {"video": {"fps": arguments.fps, "half_life_s": arguments.smooth}} if videos else {}
        if arguments.annotated is not None:
            make_folder(arguments.annotated)
        self.writer = None if arguments.out is None else Writer(arguments.out, self.about, resume=arguments.resume)
        self.done = {} if self.writer is None else self.writer.done
        if self.coverage is None:
            print(WITHOUT_SETS, file=sys.stderr)
        self.line = Line(live=is_live() and (self.writer is not None or (videos and not arguments.json)))
        self.began = time.monotonic()
        self.pictures = self.failed = self.faces = self.without = self.small = 0  # failed: files of any kind
        self.videos: list[dict[str, Any]] = []  # the record that closes each
        self.shown: list[Shown] = []
        self.left_out: list[tuple[str, str]] = []
        for found in self.done.values():
            self._count(found)
        if self.done:
            log.info("resumed: %s of %s files are done", f"{len(self.done):,}", f"{count:,}")

    def add(self, files: Sequence[Path], boxes: "Mapping[Path, Sequence[Box]] | None") -> None:
        """Predict pictures; one that cannot be read is counted and recorded."""
        from fer.data.readers.images import PictureError
        from fer.inference.predictor import PICTURES_AT_ONCE
        from fer.inference.records import record

        known = None if boxes is None else [boxes.get(file.resolve(), ()) for file in files]
        together = 1 if self.writer is None else PICTURES_AT_ONCE  # what is printed is not waited for
        for file, answer in zip(files, self.predictor.answers(files, known, together), strict=True):
            found = record(file, str(answer) if isinstance(answer, PictureError) else answer)
            self._count(found)
            if not isinstance(answer, PictureError):
                self._keep(file, answer, found)
            self._give(found)
            self._progress()

    def _give(self, found: dict[str, Any]) -> None:
        """Write a record, or print it."""
        if self.writer is not None:
            self.writer.write(found)
        elif self.arguments.json:
            print(json.dumps(found, ensure_ascii=False), flush=True)
        elif "frame" not in found:
            self.line.clear()
            print("\n".join(map(in_one_line, in_words(found, self.coverage))), flush=True)

    def watch(self, source: "Path | Clip") -> None:
        """Predict a video or what a camera sees; one that cannot be read is counted and recorded."""
        from fer.inference.records import record
        from fer.inference.video import Clip, VideoError

        try:
            found = self._watched(Clip(source) if isinstance(source, Path) else source)
        except VideoError as error:
            found = record(Path(error.name), error.reason)
        self._count(found)
        self._give(found)

    def _watched(self, clip: "Clip") -> dict[str, Any]:
        """Give the records of a video's frames, and return the one that closes it. Ctrl-C ends a camera's in order."""
        from fer.inference.video import watch
        from fer.reports.footage import Footage

        options = self.arguments
        footage = Footage(clip, self.predictor.emotions, options.annotated, options.fps)
        with contextlib.closing(footage):
            began = time.monotonic()
            try:
                for frame in watch(
                    self.predictor, clip, fps=options.fps, half_life=options.smooth, pixels=bool(options.annotated)
                ):
                    self._give(footage.add(frame))
                    if self.line.due():
                        self.line.draw(progress(footage, time.monotonic() - began))
            except KeyboardInterrupt:
                if not clip.live:
                    raise
            return footage.finished(options.out, self.about)

    def _count(self, found: dict[str, Any]) -> None:
        if "video" in found:
            self.videos.append(found)
            return
        faces = found.get("faces", ())
        self.faces += len(faces)
        self.small += found.get("too_small", 0)
        self.failed += "error" in found
        self.pictures += "error" not in found
        self.without += "error" not in found and not faces
        if not faces:
            self.left_out.append((found["file"], found.get("error", "no face found")))

    @property
    def files(self) -> int:
        """Pictures and videos so far, with those that could not be read."""
        return self.pictures + len(self.videos) + self.failed

    def _keep(self, file: Path, answer: "Answer", found: dict[str, Any]) -> None:
        from fer.reports.predictions import MOST, Shown

        if self.writer is not None and len(self.shown) <= MOST:
            pairs = zip(answer.crops, found["faces"], strict=True)
            self.shown += [Shown(str(file), crop, face) for crop, face in pairs]
        if self.arguments.annotated is not None:
            annotate(file, found, self.arguments.annotated)

    def _progress(self) -> None:
        if self.line.due():
            left = (time.monotonic() - self.began) / max(self.files - len(self.done), 1) * (self.count - self.files)
            share = self.files / self.count
            self.line.draw([f"{bar(share)} {self.files:,} of {self.count:,} files", f"{clock(left)} left"])

    def close(self) -> None:
        """Close what is open."""
        self.line.end()
        if self.writer is not None:
            self.writer.close()

    def counts(self) -> str:
        """Return the counts in words."""
        parts = [plural(self.pictures, "picture"), plural(self.faces, "face")] if self.pictures else []
        parts += [f"{plural(self.without, 'picture')} without a face"] if self.without else []
        parts += [f"{plural(self.small, 'face')} below 24 pixels left out"] if self.small else []
        if self.videos:
            held = [one["video"] for one in self.videos]
            frames, faces = sum(one["frames"] for one in held), sum(len(one["tracks"]) for one in held)
            parts.append(f"{plural(len(held), 'video')} of {plural(frames, 'frame')} with {plural(faces, 'face')}")
        parts += [f"{plural(self.failed, 'file')} could not be read"] if self.failed else []
        return ", ".join(parts)

    def closing(self) -> int:
        """Write the page, print the counts, and return the exit code: 1 if no file could be read."""
        if self.writer is not None:
            from fer.inference.records import LINES, ROWS
            from fer.reports import predictions

            out = self.arguments.out
            predictions.write(
                out / "index.html", self.about, self.shown, self.left_out[: predictions.MOST], self.counts(),
                self.videos,
            )  # fmt: skip
            log.info("%s", self.counts())
            for name in (LINES, ROWS, *(one["video"]["page"] for one in self.videos), "index.html"):
                log.info("  %s", shown(out / name))
        elif not self.arguments.json and self.count > 1:
            log.info("%s", self.counts())
        return 1 if self.failed == self.files else 0


def make_folder(folder: Path) -> None:
    """Make the folder of ``--annotated``, before anything is predicted.

    Raises:
        FerError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FerError(f"--annotated {folder}: no folder can be made there ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise FerError(f"--annotated {folder}: without write permission; choose another folder")


def in_words(found: dict[str, Any], coverage: float | None) -> Iterator[str]:
    """Give the lines that are printed of a record, with prediction sets where these have a coverage."""
    if "error" in found:
        yield f"{found['file']}: {found['error']}"
        return
    if "video" in found:
        yield from video_in_words(found["file"], found["video"])
        return
    if not found["faces"]:
        yield f"{found['file']}: no face found"
    for face in found["faces"]:
        best = sorted(face["probabilities"].items(), key=lambda item: -item[1])[1:3]
        rest = ", ".join(f"{name} {100 * value:.0f} %" for name, value in best)
        x, y, width, height = (round(value) for value in face["box"])
        sure = " (uncertain)" if face["uncertain"] else ""
        probability = f"{100 * face['probability']:.0f} %"
        one_of = "" if coverage is None else f"{100 * coverage:g} % set: {', '.join(face['emotions'])}; "
        at = f"box {width}x{height} at {x}, {y}"
        yield f"{found['file']}: {face['emotion']} {probability}{sure}; {rest}; {one_of}{at}"


def video_in_words(name: str, video: dict[str, Any]) -> Iterator[str]:
    """Give the lines that are printed of a video: one a face, with its mean probabilities."""
    from fer.reports.timeline import span

    if not video["tracks"]:
        yield f"{name}: no face found in {plural(video['frames'], 'frame')}"
    for one in video["tracks"]:
        best = sorted(one["probabilities"].items(), key=lambda item: -item[1])[:3]
        words = ", ".join(f"{emotion} {100 * value:.0f} %" for emotion, value in best)
        yield f"{name}: face {one['track']}, {span(one['start'], one['end'], one['frames'])}: on average {words}"
    for note in video["notes"]:
        yield f"{name}: {note}"


def progress(footage: "Footage", passed: float) -> list[str]:
    """Return the parts of the progress line of a video, after so many seconds of work."""
    timeline, length = footage.timeline, footage.clip.seconds
    parts = [f"{plural(timeline.frames, 'frame')}, {plural(len(timeline.lanes), 'face')}"]
    parts.append(f"{timeline.frames / max(passed, 1e-3):.0f} frames/s")
    if length and timeline.end > 0:
        share = min(1.0, timeline.end / length)
        parts = [f"{bar(share)} {parts[0]}", parts[1], f"{clock(passed / share * (1 - share))} left"]
    return [*parts, footage.stem]


def annotate(file: Path, found: dict[str, Any], folder: Path) -> None:
    """Write a copy of a picture with its faces marked, under its own name, numbered where that is taken."""
    from fer.data.readers.images import read_colour
    from fer.inference.predictor import MOST_PIXELS
    from fer.reports.annotate import annotated

    target = new_file(folder, file.stem, ".jpg")
    annotated(read_colour(file, MOST_PIXELS), found["faces"]).save(target, quality=90)


if __name__ == "__main__":
    sys.exit(main(None))
