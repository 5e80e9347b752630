"""The provenance of a network, as its checkpoints and shared files record it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fer.metrics.conformal import Thresholds
from fer.system.records import read

Dataset = Mapping[str, Any]  # see ``fer.data.table.Table.describe``


@dataclass(frozen=True)
class Provenance:
    """The record of how a network's weights were made.

    Args:
        dataset: data set that the network is trained on.
        ancestors: data sets of earlier trainings that its weights began from, and of its teachers' trainings.
        pretrained: name, file and SHA-256 of pretrained weights.
        teachers: networks whose predictions were soft targets, with checkpoint, weight and SHA-256.
        batch_size: faces a step, if ``data.batch_size=auto`` chose it, or memory may halve it.
        plan: epochs and stages, if ``budget.hours`` chose them.
        temperature: divisor of the logits, fitted on val at the end of a run.
        sets: thresholds of the prediction sets, calibrated there with the temperature; older files have none.
    """

    dataset: Dataset = field(default_factory=dict)
    ancestors: Sequence[Dataset] = ()
    pretrained: Mapping[str, str] | None = None
    teachers: Sequence[Mapping[str, Any]] | None = None
    batch_size: int | None = None
    plan: Mapping[str, Any] | None = None
    temperature: float | None = None
    sets: Thresholds | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Provenance":
        """Return the provenance in an entry ``fer`` of a checkpoint; files of older versions lack some keys."""
        return cls(
            dataset=entry.get("dataset", {}),
            ancestors=entry.get("ancestors", ()),
            pretrained=entry.get("pretrained"),
            teachers=entry.get("teachers"),
            batch_size=entry.get("batch_size"),
            plan=entry.get("plan"),
            temperature=entry.get("temperature"),
            sets=None if entry.get("sets") is None else read(Thresholds, entry["sets"]),
        )

    @property
    def datasets(self) -> list[Dataset]:
        """All data sets that influenced the weights."""
        return [self.dataset, *self.ancestors]

    def recorded(self) -> dict[str, Any]:
        """Return the entries of a checkpoint; temperature and sets are added once they are known."""
        return {
            "dataset": self.dataset,
            "pretrained": self.pretrained,
            "ancestors": list(self.ancestors),
            "teachers": self.teachers,
            "batch_size": self.batch_size,
            "plan": self.plan,
        }
