"""The part of a ``metrics.json`` that comparisons of runs read.

Files of any version are read.
"""

from dataclasses import dataclass, field

from fer.metrics.results import DatasetRecord, Scores
from fer.system.machine import Hardware
from fer.system.records import MERGED


@dataclass(frozen=True)
class Weights:
    """Pretrained weights, by the name that their loader gave them."""

    name: str


@dataclass(frozen=True, kw_only=True)
class RunMetrics:
    """The results of a run on val, and its cost; older runs lack what may be None.

    Args:
        split: that was scored.
        scores: metrics of its faces.
        seed: of the run.
        best_epoch: that val chose, counted from 1.
        epochs: of the training.
        parameters: of the network.
        train_seconds: of the training's steps.
        images_per_second: of the training.
        peak_memory_mb: of its process.
        batch_size: faces of a step.
        architecture: name of the network.
        pretrained: weights that the training began with.
        dataset: the data.
        hardware: the machine.
        commit: of the code.
        finished: time of the end.
    """

    split: str
    scores: Scores = field(metadata=MERGED)
    seed: int
    best_epoch: int
    epochs: int | None = None
    parameters: int | None = None
    train_seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_mb: float | None = None
    batch_size: int | None = None
    architecture: str | None = None
    pretrained: Weights | None = None
    dataset: DatasetRecord
    hardware: Hardware | None = None
    commit: str | None = None
    finished: str | None = None

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return self.scores.accuracy.number

    def number(self, name: str) -> float | None:
        """Return a metric of ``METRICS``, or another number by the name of its field; None where the run lacks it."""
        metric = self.scores.metrics.get(name)
        value: float | None = metric.value if metric else getattr(self, name, None)
        return value

    @property
    def machine(self) -> str:
        """The processor or GPU and the threads of the training, in words."""
        about = self.hardware
        if about is None or about == Hardware():
            return "an unknown machine"
        return f"{about.gpu or about.cpu}, {about.threads} thread{'' if about.threads == 1 else 's'}"
