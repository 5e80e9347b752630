"""What showing costs: TensorBoard's pictures of an epoch, and the report at the end."""

from pathlib import Path
from statistics import median
from typing import Any

from fer.benchmarks.figures import ROUNDS, VAL_FACES, Figure, at_most, cpu_seconds

CURVES = ("loss/train", "loss/val", "accuracy/train", "accuracy/val", "learning_rate", "seconds")


def showing(folder: Path) -> list[Figure]:
    """Measure what a run's pictures and its report cost beyond the forward pass, in processor time on one thread."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from fer.metrics.running import confusion_of
    from fer.reports import run
    from fer.training.callbacks.tensorboard import draw_epoch

    scored = guesses(VAL_FACES)
    confusion = confusion_of(torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets))
    history = [{name: 1.0 / epoch for name in CURVES} | {"epoch": float(epoch)} for epoch in range(1, 31)]
    samples = scored.images[:6], scored.images[: 6 * 9].reshape(6, 9, *scored.images.shape[1:])
    writer = SummaryWriter(str(folder / "tensorboard"))
    epoch_times, end_times = [], []
    for round_ in range(ROUNDS + 1):  # the first warms up: fonts are read then
        epoch_times.append(cpu_seconds(lambda: draw_epoch(writer, scored, confusion, round_ + 1)))  # noqa: B023
        end_times.append(cpu_seconds(lambda: run.write(run.Report(finished(scored), scored, history, samples), folder)))
    writer.close()
    return [
        at_most(
            f"TensorBoard's pictures of an epoch, {VAL_FACES:,} faces", median(epoch_times[1:]), "s of processor", 1
        ),
        at_most(f"intervals, figures and report.html, {VAL_FACES:,} faces", median(end_times[1:]), "s of processor", 3),
    ]


def guesses(count: int) -> Any:
    """Return ``count`` drawn faces with made-up probabilities, as ``fer.runs.predictions.Scored``."""
    import numpy as np

    from fer.data.labels import EMOTIONS
    from fer.data.readers.drawing import draw_faces
    from fer.runs.predictions import Scored

    images, targets = draw_faces(count, seed=0)
    logits = np.random.default_rng(0).normal(size=(count, len(EMOTIONS)))
    logits[np.arange(count), targets] += 1.5  # about as often right as a small network on FER2013
    chances = np.exp(logits)
    probabilities = (chances / chances.sum(1, keepdims=True)).astype(np.float32)
    return Scored(images, targets.astype(np.int64), probabilities, np.arange(count), EMOTIONS)


def finished(scored: Any) -> dict[str, Any]:
    """Return what ``metrics.json`` would hold of a run with these predictions."""
    import numpy as np
    import torch

    from fer.evaluation import scoring
    from fer.system import machine

    predicted, targets = torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets)
    clean = scoring.clean(predicted, targets, np.ones(len(targets), bool), scored.classes)
    figures = {**scoring.figures(scored, 1.1), "clean": clean}
    dataset = {
        "name": "bench", "path": "", "layout": "drawn", "labels": "drawn", "split": "official", "fingerprint": "",
        "counts": {}, "notes": [], "skipped": [],
    }  # fmt: skip
    run = {"best_epoch": 30, "epochs": 30, "train_seconds": 1.0, "images_per_second": 1.0, "architecture": "bench"}
    return {**figures, **run, "split": "val", "dataset": dataset, "command": "", **machine.provenance()}
