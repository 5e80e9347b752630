"""``python -m fer.benchmarks.margins fer2013.csv``: how large a square to cut around a detected face.

FER2013's val faces are enlarged four times, each frame's edges repeated around it, and searched for a face. The faces
that are found are cut out anew with several margins and classified. The first two rows are the baseline. One is the
frame as the data set has it. The other is the same frame cut out of the enlarged picture: the effect of resampling
alone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer.config.command import Grammar, command
from fer.config.settings import DataSettings
from fer.data.crop import Box, Crop
from fer.data.datamodule import FERDataModule
from fer.inference.detect import Haar
from fer.inference.predictor import Predictor
from fer.metrics.statistics import wilson
from fer.system.text import text_table

MARGINS = (0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3)
ENLARGED = 4
RIM = 24  # pixels of the frame's edges that are repeated on each side


@command("fer.benchmarks.margins")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    grammar = Grammar(prog="python -m fer.benchmarks.margins", description="Accuracy by the margin around a face.")
    grammar.add_argument("data", help="FER2013's table")
    grammar.add_argument("--network", default="tiny")
    grammar.add_argument("--count", type=int, default=3589, help="faces of val; default: all")
    arguments, _ = grammar.begin(argv)
    data = FERDataModule(DataSettings(path=arguments.data))
    data.setup("fit")
    val = data.datasets["val"]
    images = np.asarray(val.images)[: arguments.count, 0]
    targets = np.asarray(val.targets)[: arguments.count]
    print(text_table(("margin", "faces", "accuracy, 95 %", "NLL"), table(images, targets, arguments.network)))
    return 0


def table(images: NDArray[np.uint8], targets: NDArray[np.int64], network: str | Path) -> list[tuple[str, ...]]:
    """Return a row a margin: accuracy and NLL on the faces that the detector finds; two of the whole frame first.

    Args:
        images: (N, 48, 48) uint8.
        targets: (N,) true classes.
        network: that classifies.
    """
    predictor, detector = Predictor(network, detector="none"), Haar()
    side = images.shape[1]
    enlarged = [_enlarged(image) for image in images]
    detected = [detector(picture) for picture in enlarged]
    kept = [index for index, faces in enumerate(detected) if faces]
    whole = Box(ENLARGED * RIM, ENLARGED * RIM, ENLARGED * side, ENLARGED * side)
    crops = {
        "frame": [images[index] for index in kept],
        "frame, resampled": [Crop()(enlarged[index], whole, side) for index in kept],
    }
    for margin in MARGINS:
        crop = Crop(margin)
        crops[f"{margin:g}"] = [
            crop(enlarged[index], detected[index][0].box, side, detected[index][0].tilt) for index in kept
        ]
    return [_row(name, predictor.probabilities(faces), targets[kept]) for name, faces in crops.items()]


def _enlarged(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(np.pad(image, RIM, mode="edge"))
    return picture.resize((ENLARGED * picture.width, ENLARGED * picture.height), Image.Resampling.BICUBIC)


def _row(name: str, probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> tuple[str, ...]:
    right = int((probabilities.argmax(1) == targets).sum())
    low, high = wilson(right, len(targets))
    nll = -np.log(probabilities[np.arange(len(targets)), targets].clip(1e-12)).mean()
    share = f"{100 * right / len(targets):.2f} %  [{100 * low:.2f}, {100 * high:.2f}]"
    return name, f"{len(targets):,}", share, f"{nll:.4f}"


if __name__ == "__main__":
    sys.exit(main(None))
