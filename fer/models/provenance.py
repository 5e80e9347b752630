"""How a network was made, as its checkpoints and shared files record it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Dataset = Mapping[str, Any]  # see ``FERDataModule.describe``


@dataclass(frozen=True)
class Provenance:
    """What is recorded beside a network's weights about their making.

    Args:
        dataset: that the network is trained on.
        ancestors: data sets of earlier trainings that its weights began from, and of its teachers.
        pretrained: name, file and SHA-256 of weights that were trained elsewhere.
        teachers: networks whose answers were soft targets, with checkpoint, weight and SHA-256.
        batch_size: faces a step, where the configuration left it open.
        plan: epochs and stages that fit the time of ``budget.hours``.
        temperature: that the logits are divided by, fitted on val at the end of a run.
    """

    dataset: Dataset = field(default_factory=dict)
    ancestors: Sequence[Dataset] = ()
    pretrained: Mapping[str, str] | None = None
    teachers: Sequence[Mapping[str, Any]] | None = None
    batch_size: int | None = None
    plan: Mapping[str, Any] | None = None
    temperature: float | None = None

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Provenance":
        """Return what an entry ``fer`` of a checkpoint records; files of older versions lack some keys."""
        return cls(
            dataset=about.get("dataset", {}),
            ancestors=about.get("ancestors", ()),
            pretrained=about.get("pretrained"),
            teachers=about.get("teachers"),
            batch_size=about.get("batch_size"),
            plan=about.get("plan"),
            temperature=about.get("temperature"),
        )

    @property
    def datasets(self) -> list[Dataset]:
        """Every data set that has shaped the weights."""
        return [self.dataset, *self.ancestors]

    def recorded(self) -> dict[str, Any]:
        """Return the entries of a checkpoint; the temperature is added once it is known."""
        return {
            "dataset": self.dataset,
            "pretrained": self.pretrained,
            "ancestors": list(self.ancestors),
            "teachers": self.teachers,
            "batch_size": self.batch_size,
            "plan": self.plan,
        }
