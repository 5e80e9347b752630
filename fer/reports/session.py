"""One call of ``fer predict``.

Pictures and videos are predicted in turn, and each answer is written or printed at once.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer.config.errors import in_one_line
from fer.inference.records import no_face
from fer.system.files import new_file
from fer.system.terminal import Line, bar, is_live, shown
from fer.system.text import clock, json_line, plural

if TYPE_CHECKING:
    from PIL.Image import Image

    from fer.data.crop import Box
    from fer.inference.predictor import Answer, Picture, Predictor
    from fer.inference.records import Record, VideoRecord
    from fer.inference.video import Clip
    from fer.reports.predictions import Shown
    from fer.reports.video import VideoReport

log = logging.getLogger(__name__)

NAMED = 3  # files that could not be read, below the counts
COPIES_AT_ONCE = 8  # of --annotated, each up to 12 MB


@dataclass(frozen=True)
class Options:
    """What a session writes and prints.

    Args:
        out: folder of the records and the page; None prints the answers.
        annotated: folder of copies with their faces marked.
        resume: continue an interrupted ``out``.
        json: print a JSON line a picture in place of text.
        boxes: the faces were given, not searched for.
        fps: frames per second of a video that are predicted; None is all.
        smooth: half-life of the smoothing over a video, in seconds.
    """

    out: Path | None = None
    annotated: Path | None = None
    resume: bool = False
    json: bool = False
    boxes: bool = False
    fps: float | None = None
    smooth: float = 0.5


class Session:
    """Predicts pictures and videos one after the other, and writes or prints each at once.

    Args:
        options: what is written and printed.
        predictor: what predicts.
        files: names of the pictures and videos; a camera has none.
        videos: whether there are any among them.
    """

    def __init__(self, options: Options, predictor: "Predictor", files: Sequence[str], *, videos: bool = False) -> None:
        from fer.inference.predictor import WITHOUT_SETS
        from fer.inference.records import Writer
        from fer.metrics.conformal import without_promise

        self.options, self.predictor = options, predictor
        self.coverage = predictor.coverage
        self.about = predictor.about() | ({"detector": "boxes"} if options.boxes else {})
        self.about |= {"video": {"fps": options.fps, "half_life_s": options.smooth}} if videos else {}
        if options.annotated is not None:
            options.annotated.mkdir(parents=True, exist_ok=True)
        self.writer = None
        if options.out is not None:
            self.writer = Writer(options.out, self.about, files if options.resume else None)
        self.done = {} if self.writer is None else self.writer.done
        self.left = sum(name not in self.done for name in files)
        if self.coverage is None:
            print(WITHOUT_SETS, file=sys.stderr)
        if predictor.unpromised:
            print(without_promise(predictor.unpromised), file=sys.stderr)
        self.line = Line(live=is_live() and (self.writer is not None or (videos and not options.json)))
        self.began = time.monotonic()
        self.pictures = self.faces = self.without = self.small = 0
        self.unread: list[str] = []  # files of any kind
        self.videos: list[Record] = []  # the record that closes each
        self.shown: list[Shown] = []
        self.copies: dict[Path, Image] = {}  # of pictures that wait for their answer, to be marked
        self.left_out: list[tuple[str, str]] = []
        for stored in self.done.values():
            self._count(stored)
        if self.done:
            before = plural(len(self.done), "file")
            log.info("resumed: %s done before; %s of %s left", before, f"{self.left:,}", f"{len(files):,}")

    def add(self, files: Sequence[Path], boxes: "Mapping[Path, Sequence[Box]] | None") -> None:
        """Predict pictures; one that cannot be read is counted and recorded."""
        from fer.data.readers.images import PictureError
        from fer.inference.predictor import PICTURES_AT_ONCE
        from fer.inference.records import record
        from fer.inference.sources import whole_path

        known = None if boxes is None else [boxes.get(whole_path(file), ()) for file in files]
        together = 1 if self.writer is None else PICTURES_AT_ONCE  # what is printed is not waited for
        pictures: Iterable[Picture] = files
        if self.options.annotated is not None:
            pictures, together = self._decoded(files), min(together, COPIES_AT_ONCE)
        counts = [None] * len(files) if known is None else [*map(len, known)]
        answers = self.predictor.answers(pictures, known, together)
        for file, answer, count in zip(files, answers, counts, strict=True):
            entry = record(file, str(answer) if isinstance(answer, PictureError) else answer, count)
            self._count(entry)
            if isinstance(answer, PictureError):
                self.copies.pop(file, None)
            else:
                self._keep(file, answer, entry)
            self._give(entry)
            self._progress()

    def _decoded(self, files: Sequence[Path]) -> "Iterator[Picture]":
        """Give pictures in colour and keep their smaller copies, so that no file is decoded again to be marked.

        The grey of the colours is the grey of the file, to the bit. An unreadable file is given as it is, for the
        predictor to say why.
        """
        from fer.data.readers.images import PictureError, read_colour
        from fer.inference.predictor import MOST_PIXELS
        from fer.reports.annotate import fitted

        for file in files:
            try:
                picture = read_colour(file, MOST_PIXELS)
            except PictureError:
                yield file
                continue
            self.copies[file] = fitted(picture)
            yield picture

    def _give(self, found: "Record") -> None:
        """Write a record, or print it."""
        if self.writer is not None:
            self.writer.write(found)
        elif self.options.json:
            print(json_line(found), flush=True)
        elif "frame" not in found:
            self.line.clear()
            print("\n".join(map(in_one_line, in_words(found, self.coverage))), flush=True)

    def watch(self, source: "Path | Clip") -> None:
        """Predict a video or what a camera sees; one that cannot be read is counted and recorded."""
        from fer.inference.records import record
        from fer.inference.video import Clip, VideoError

        try:
            entry = self._watched(Clip(source) if isinstance(source, Path) else source)
        except VideoError as error:
            entry = record(Path(error.name), error.reason)
        self._count(entry)
        self._give(entry)

    def _watched(self, clip: "Clip") -> "Record":
        """Give the records of a video's frames, and return the one that closes it. Ctrl-C ends a camera's in order."""
        from fer.inference.video import watch
        from fer.reports.video import VideoReport

        options = self.options
        report = VideoReport(clip, self.predictor.emotions, options.annotated, options.fps)
        with contextlib.closing(report):
            began = time.monotonic()
            try:
                for frame in watch(
                    self.predictor, clip, fps=options.fps, half_life=options.smooth, pixels=bool(options.annotated)
                ):
                    self._give(report.add(frame))
                    if self.line.due():
                        self.line.draw(progress(report, time.monotonic() - began))
            except KeyboardInterrupt:
                if not clip.live:
                    raise
            return report.finished(options.out, self.about)

    def _count(self, found: "Record") -> None:
        if "video" in found:
            self.videos.append(found)
            return
        faces = found.get("faces", ())
        self.faces += len(faces)
        self.small += found.get("too_small", 0)
        self.unread += [found["file"]] if "error" in found else []
        self.pictures += "error" not in found
        self.without += "error" not in found and not faces
        if not faces:
            self.left_out.append((found["file"], found.get("error") or no_face(found)))

    @property
    def failed(self) -> int:
        """Files of any kind that could not be read."""
        return len(self.unread)

    @property
    def files(self) -> int:
        """Pictures and videos so far, with those that could not be read."""
        return self.pictures + len(self.videos) + self.failed

    def _keep(self, file: Path, answer: "Answer", found: "Record") -> None:
        if self.writer is not None:
            self._show(file, answer, found)
        if self.options.annotated is not None:
            from fer.reports.annotate import annotated

            marked = annotated(self.copies.pop(file), found["faces"], max(answer.size))
            copy = new_file(self.options.annotated, file.stem, ".jpg")
            marked.save(copy, quality=90)
            found["annotated"] = copy.name

    def _show(self, file: Path, answer: "Answer", found: "Record") -> None:
        """Keep the faces of a picture for the page."""
        from fer.reports.predictions import MOST, Shown  # imports matplotlib

        if len(self.shown) <= MOST:
            pairs = zip(answer.crops, found["faces"], strict=True)
            self.shown += [Shown(str(file), crop, face) for crop, face in pairs]

    def _cut_again(self) -> "list[Shown]":
        """Return the faces that a resumed session found before, for the page; those of a file that is gone are lost."""
        from fer.data.crop import Box
        from fer.data.readers.images import PictureError
        from fer.inference.predictor import upright_grey
        from fer.reports.predictions import MOST, Shown

        found: list[Shown] = []
        for name, one in self.done.items():
            if not one.get("faces") or len(found) > MOST:
                continue
            try:
                grey = upright_grey(name)
            except PictureError:
                continue
            size = self.predictor.image_size
            crops = [self.predictor.crop(grey, Box(*face["box"]), size, face["tilt"]) for face in one["faces"]]
            found += [Shown(name, crop, face) for crop, face in zip(crops, one["faces"], strict=True)]
        return found

    def _left_out(self, most: int) -> list[tuple[str, str]]:
        """Return the files without a prediction and why, unreadable ones first; at most ``most``, then their number."""
        unread = set(self.unread)
        ordered = sorted(self.left_out, key=lambda pair: pair[0] not in unread)
        more = len(ordered) - most
        return [*ordered[:most], *([(f"{more:,} more", "listed in predictions.csv")] if more > 0 else [])]

    def _progress(self) -> None:
        if self.line.due():
            new = self.files - len(self.done)
            seconds = (time.monotonic() - self.began) / max(new, 1) * (self.left - new)
            self.line.draw([f"{bar(new / self.left)} {new:,} of {self.left:,} files", f"{clock(seconds)} left"])

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
            videos = [clip["video"] for clip in self.videos]
            frames, faces = sum(video["frames"] for video in videos), sum(len(video["tracks"]) for video in videos)
            parts.append(f"{plural(len(videos), 'video')} of {plural(frames, 'frame')} with {plural(faces, 'face')}")
        parts += [f"{plural(self.failed, 'file')} could not be read"] if self.failed else []
        return ", ".join(parts)

    def closing(self) -> int:
        """Write the page, print the counts, and return the exit code: 1 if no file could be read."""
        out = self.options.out
        if out is not None:
            from fer.inference.records import PAGE, ROWS
            from fer.inference.sources import LINES
            from fer.reports import predictions

            predictions.write(
                out / PAGE, self.about, [*self._cut_again(), *self.shown], self._left_out(predictions.MOST),
                self.counts(), self.videos, self.faces,
            )  # fmt: skip
            log.info("%s", self.counts())
            if self.unread:
                log.info("could not be read: %s; index.html says why", some(self.unread))
            for name in (LINES, ROWS, *(clip["video"]["page"] for clip in self.videos), PAGE):
                log.info("  %s", shown(out / name))
            if self.options.annotated is not None:
                log.info("  %s", shown(self.options.annotated))
        elif not self.options.json and self.files > 1:
            log.info("%s", self.counts())
        return 1 if self.failed == self.files else 0


def some(files: Sequence[str]) -> str:
    """Return the names of the first three files, and how many more there are."""
    more = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
    return in_one_line(", ".join(files[:NAMED]) + more)


def in_words(found: "Record", coverage: float | None) -> Iterator[str]:
    """Give the lines that are printed of a record, with prediction sets where these have a coverage."""
    if "error" in found:
        yield f"{found['file']}: {found['error']}"
        return
    if "video" in found:
        yield from video_in_words(found["file"], found["video"])
        return
    if not found["faces"]:
        yield f"{found['file']}: {no_face(found)}"
    for face in found["faces"]:
        best = sorted(face["probabilities"].items(), key=lambda item: -item[1])[1:3]
        rest = ", ".join(f"{name} {100 * value:.0f} %" for name, value in best)
        x, y, width, height = (round(value) for value in face["box"])
        sure = " (uncertain)" if face["uncertain"] else ""
        probability = f"{100 * face['probability']:.0f} %"
        one_of = "" if coverage is None else f"{100 * coverage:g} % set: {', '.join(face['emotions'])}; "
        at = f"box {width}x{height} at {x}, {y}"
        yield f"{found['file']}: {face['emotion']} {probability}{sure}; {rest}; {one_of}{at}"


def video_in_words(name: str, video: "VideoRecord") -> Iterator[str]:
    """Give the lines that are printed of a video: one a face, with its mean probabilities."""
    from fer.reports.timeline import span

    if not video["tracks"]:
        yield f"{name}: no face predicted in {plural(video['frames'], 'frame')}"
    for one in video["tracks"]:
        best = sorted(one["probabilities"].items(), key=lambda item: -item[1])[:3]
        words = ", ".join(f"{emotion} {100 * value:.0f} %" for emotion, value in best)
        yield f"{name}: face {one['track']}, {span(one['start'], one['end'], one['frames'])}: on average {words}"
    for note in video["notes"]:
        yield f"{name}: {note}"


def progress(report: "VideoReport", passed: float) -> list[str]:
    """Return the parts of the progress line of a video, after so many seconds of work."""
    timeline, length = report.timeline, report.clip.seconds
    parts = [f"{plural(timeline.frames, 'frame')}, {plural(len(timeline.lanes), 'face')}"]
    parts.append(f"{timeline.frames / max(passed, 1e-3):.0f} frames/s")
    if length and timeline.end > 0:
        share = min(1.0, timeline.end / length)
        parts = [f"{bar(share)} {parts[0]}", parts[1], f"{clock(passed / share * (1 - share))} left"]
    return [*parts, report.stem]
