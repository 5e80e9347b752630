"""Speed of ``fer predict`` on a video.

The video has 640x480 pixels and one face that moves over a textured ground. One thread works.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from fer.benchmarks.measurement import ROUNDS, Measurement, at_least, cpu_seconds
from fer.config.errors import FerError

log = logging.getLogger(__name__)

WIDTH, HEIGHT, RATE, FRAMES = 640, 480, 30, 240
FACE = (145, 99, 239)  # pixels of matplotlib's portrait of Grace Hopper: left and upper edge of the face, its side
SIDE = 110  # pixels of the face in the video
GRAIN = 8  # pixels of the ground's texture
LEAST = 100  # frames per second


def watching(folder: Path) -> Iterable[Measurement]:
    """Measure frames per second of processor time, from reading the file to writing the records."""
    from fer.inference.predictor import Predictor
    from fer.inference.records import Writer, frame_record
    from fer.inference.video import Clip, watch

    predictor = Predictor()
    try:
        file = drawn_video(folder / "watching.mp4")
        about = predictor.about()
    except FerError as error:
        log.info("  not measured: %s", error)
        return
    with_face: list[int] = []  # frames with a face, of each round

    def once() -> None:
        writer = Writer(folder / f"watched-{len(with_face)}", about)
        frames = 0
        for frame in watch(predictor, Clip(file)):
            writer.write(frame_record(file.name, frame))
            frames += len(frame.faces) == 1
        writer.close()
        with_face.append(frames)

    with one_thread():
        seconds = [cpu_seconds(once) for _ in range(ROUNDS + 1)][1:]  # the first warms up
    note = f"{WIDTH}x{HEIGHT}, {RATE} frames/s, a face in {min(with_face)} of {FRAMES} frames"
    yield at_least("predicting a video, one face, one thread", FRAMES / median(seconds), "frames/s", LEAST, note)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and OpenCV use one thread within the block."""
    import torch

    from fer.inference.detect import opencv

    cv2 = opencv()
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def drawn_video(file: Path) -> Path:
    """Write a video of a portrait in the public domain that moves over a ground, and return the file."""
    from fer.inference.detect import opencv

    cv2 = opencv()
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // GRAIN, WIDTH // GRAIN, 3), np.uint8)
    ground = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    head = portrait()
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT))
    for number in range(FRAMES):
        frame = ground.copy()
        time = number / RATE
        x, y = 220 + 120 * math.sin(time), 110 + 60 * math.cos(1.3 * time)
        frame.paste(head, (round(x), round(y)))
        writer.write(np.asarray(frame)[..., ::-1])
    writer.release()
    return file


def hopper() -> Image.Image:
    """Return the portrait of Grace Hopper that matplotlib ships; it is in the public domain."""
    from matplotlib import cbook

    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as picture:
        return picture.convert("RGB")


def portrait() -> Image.Image:
    """Return Grace Hopper's head, with a face of ``SIDE`` pixels."""
    picture = hopper()
    left, top, side = FACE
    spare = side // 3
    head = picture.crop((left - spare, top - spare, left + side + spare, top + side + spare))
    size = round(SIDE * head.width / side)
    return head.resize((size, size), Image.Resampling.BILINEAR)
