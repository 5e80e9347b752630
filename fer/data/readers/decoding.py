"""Decoding of many pictures, in this process or in several.

The bits and their order are the same in both cases. Threads would wait for each other: half of the time that a small
picture takes is Python's. A worker is a plain interpreter that reads pickled requests from its parent, so that a script
without a main guard can start it too. It ends when its parent does.
"""

import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import fer
from fer.config.errors import FerError
from fer.data.crop import Box, Crop
from fer.data.readers.images import PictureError, read_colour, read_grey, stretched, with_grey
from fer.system.slots import usable_cores

CHUNK = 64  # pictures of a request
PIPE = 1 << 20  # bytes that a pipe holds: a request's faces, so that no process waits within it
WAITING = 4  # requests for each worker that are under way
FEW = 1024  # pictures that are decoded sooner than a worker starts


@dataclass(frozen=True, slots=True)
class Cut:
    """A face in a picture.

    Args:
        picture: its file, or the bytes of one.
        box: of the face; None is the middle square.
        whole: whether the whole picture is taken, stretched to a square.
        colour: whether its colours are returned too.
    """

    picture: Path | bytes
    box: Box | None = None
    whole: bool = False
    colour: bool = False


class Face(NamedTuple):
    """A face that was cut out, or the problem of its picture.

    Args:
        pixels: (S, S) uint8; None where there is a problem.
        size: width and height of the picture.
        problem: what is wrong; empty where nothing is.
        colour: (3, S, S) uint8, where the cut asks for it.
    """

    pixels: NDArray[np.uint8] | None
    size: tuple[int, int]
    problem: str = ""
    colour: NDArray[np.uint8] | None = None


class Decoder:
    """Decodes pictures one after the other; several faces of one picture that follow each other decode it once."""

    def __init__(self) -> None:
        self._last: tuple[Path | bytes, Image.Image] | None = None

    def __call__(self, cut: Cut, side: int) -> Face:
        """Return the face of a cut, (side, side)."""
        try:
            if self._last is None or self._last[0] != cut.picture:
                self._last = cut.picture, (read_colour if cut.colour else read_grey)(cut.picture)
            picture = self._last[1]
            bands = with_grey(picture) if cut.colour else [picture]
            grey, *colours = (stretched(band, side) if cut.whole else _square(band, cut.box, side) for band in bands)
            return Face(grey, picture.size, colour=np.stack(colours) if colours else None)
        except PictureError as error:
            return Face(None, (0, 0), str(error))


def _square(grey: Image.Image, box: Box | None, side: int) -> NDArray[np.uint8]:
    if box is None:
        shorter = min(grey.size)
        box = Box((grey.width - shorter) / 2, (grey.height - shorter) / 2, shorter, shorter)
    x, y = box.centre
    if not (0 <= x <= grey.width and 0 <= y <= grey.height and box.side <= 2 * max(grey.size)):
        raise PictureError(f"the box of the face does not lie in the picture, which has {grey.width}x{grey.height}")
    return Crop()(grey, box, side)


def here(cuts: Iterable[Cut], side: int) -> Iterator[Face]:
    """Yield the faces of cuts, decoded by this process when they are asked for."""
    decoder = Decoder()
    return (decoder(cut, side) for cut in cuts)


class Decoders:
    """Processes that decode pictures side by side; they are started at the first request and end with this object.

    Args:
        count: of the processes.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count or usable_cores()
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="decoding")
        self._idle: SimpleQueue[_Worker] = SimpleQueue()

    def submit(self, cuts: Sequence[Cut], side: int) -> "Future[list[Face]]":
        """Return the coming faces of cuts."""
        return self._threads.submit(self._ask, cuts, side)

    def in_order(self, cuts: Iterable[Cut], side: int) -> Iterator[Face]:
        """Yield the faces of cuts in their order; a few requests are ahead of the reader."""
        requests: deque[Future[list[Face]]] = deque()
        rest = iter(cuts)
        while chunk := list(islice(rest, CHUNK)):
            requests.append(self.submit(chunk, side))
            if len(requests) >= WAITING * self.count:
                yield from requests.popleft().result()
        while requests:
            yield from requests.popleft().result()

    def _ask(self, cuts: Sequence[Cut], side: int) -> list[Face]:
        if self._idle.empty():  # one thread for each worker: a worker is idle, or one more may start
            self._idle.put(_Worker())
        worker = self._idle.get()
        answer = worker.ask(cuts, side)
        self._idle.put(worker)
        return answer


class _Worker:
    """One process that decodes."""

    def __init__(self) -> None:
        paths = [str(Path(fer.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import work; work()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, pipesize=PIPE,
        )  # fmt: skip
        weakref.finalize(self, self._process.communicate)

    def ask(self, cuts: Sequence[Cut], side: int) -> list[Face]:
        """Return the faces of cuts.

        Raises:
            FerError: the process has ended.
        """
        plain = [(_plain(cut.picture), cut.box, cut.whole) for cut in cuts]  # a path takes its time to be pickled
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((plain, side), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            pixels, about = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise FerError(
                f"a process that decodes pictures has ended (exit code {self._process.wait()}), such as for lack of "
                "memory; start again"
            ) from error
        return [
            Face(None if problem else face, size, problem) for face, (size, problem) in zip(pixels, about, strict=True)
        ]


def _plain(picture: Path | bytes) -> str | bytes:
    return picture if isinstance(picture, bytes) else str(picture)


def work() -> None:
    """Answer the requests of the parent until it closes the pipe; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    while True:
        try:
            plain, side = pickle.load(requests)
            cuts = (Cut(Path(one) if isinstance(one, str) else one, box, whole) for one, box, whole in plain)
            pixels, about = np.zeros((len(plain), side, side), np.uint8), []
            for number, face in enumerate(here(cuts, side)):
                about.append((face.size, face.problem))
                if face.pixels is not None:
                    pixels[number] = face.pixels
            pickle.dump((pixels, about), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except (EOFError, BrokenPipeError):
            return


@cache
def shared() -> Decoders:
    """Return the processes that all of this process's data sets share."""
    return Decoders()
