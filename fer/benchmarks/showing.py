"""Cost of the displays of a run.

They are TensorBoard's pictures of an epoch, and the report at the end.
"""

from pathlib import Path
from statistics import median
from typing import Any

from fer.benchmarks.measurement import ROUNDS, VAL_FACES, Measurement, at_most, cpu_seconds
from fer.metrics.results import DatasetRecord, Results, TrainingRecord

CURVES = ("loss/train", "loss/val", "accuracy/train", "accuracy/val", "learning_rate", "seconds")


def showing(folder: Path) -> list[Measurement]:
    """Measure the processor time of a run's pictures and of its report on one thread, without the forward pass."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from fer.metrics.running import confusion_of
    from fer.reports import run
    from fer.reports.run_sections import Report
    from fer.training.callbacks.tensorboard import draw_epoch

    scored = guesses(VAL_FACES)
    confusion = confusion_of(torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets))
    history = [{name: 1.0 / epoch for name in CURVES} | {"epoch": float(epoch)} for epoch in range(1, 31)]
    samples = scored.images[:6], scored.images[: 6 * 9].reshape(6, 9, *scored.images.shape[1:])
    writer = SummaryWriter(str(folder / "tensorboard"))
    epoch_times, end_times = [], []
    for round_ in range(ROUNDS + 1):  # the first warms up: fonts are read then
        epoch_times.append(cpu_seconds(lambda: draw_epoch(writer, scored, confusion, round_ + 1)))  # noqa: B023
        end_times.append(cpu_seconds(lambda: run.write(Report(finished(scored), scored, history, samples), folder)))
    writer.close()
    return [
        at_most(
            f"TensorBoard's pictures of an epoch, {VAL_FACES:,} faces", median(epoch_times[1:]), "s of processor", 1
        ),
        at_most(f"intervals, figures and report.html, {VAL_FACES:,} faces", median(end_times[1:]), "s of processor", 3),
    ]


def guesses(count: int) -> Any:
    """Return ``count`` drawn faces with random probabilities, as ``fer.runs.predictions.Scored``."""
    import numpy as np

    from fer.data.labels import EMOTIONS
    from fer.data.readers.drawing import draw_faces
    from fer.runs.predictions import Scored

    images, targets = draw_faces(count, seed=0)
    logits = np.random.default_rng(0).normal(size=(count, len(EMOTIONS)))
    logits[np.arange(count), targets] += 1.5  # about the accuracy of a small network on FER2013
    exponentials = np.exp(logits)
    probabilities = (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32)
    return Scored(images, targets.astype(np.int64), probabilities, np.arange(count), EMOTIONS)


def finished(scored: Any) -> Results:
    """Return what ``metrics.json`` would hold of a run with these predictions."""
    import numpy as np
    import torch

    from fer.evaluation import scoring
    from fer.system import machine

    predicted, targets = torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets)
    clean = scoring.clean(predicted, targets, np.ones(len(targets), bool), scored.classes)
    return Results(
        split="val",
        measured=scoring.measured(predicted, scored.targets, scored.classes, 1.1),
        clean=clean,
        training=TrainingRecord(best_epoch=30, epochs=30, train_seconds=1.0, images_per_second=1.0),
        architecture="bench",
        dataset=DatasetRecord(name="bench", path="", split="official"),
        machine=machine.provenance(),
    )
