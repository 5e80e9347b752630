"""The kinds of network that a campaign trains, on a GPU and on a CPU. No torch here.

A GPU's kinds follow what published recipes share and what an ensemble gains from: different networks, crops and seeds.
A CPU's are one network at different widths, since depthwise and deep networks are slow there (docs/recipes.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

SEEDS = (0, 1, 2)  # of the students: a recipe's accuracy is stated as the mean of three
TEACHERS = 3  # at most: a teacher's forward pass takes a third of the time of its own training step
SMALL_WIDTH = 16  # of the network below half a million parameters
WIDTHS = (64, 48, 32, 24, SMALL_WIDTH)  # of a CPU's networks, the widest first
LEAST = 20  # epochs: a narrower or smaller choice of networks is trained rather than one of fewer
LEAST_OF_MANY = 60  # epochs of each network before there are two of a kind
STUDENT, SMALL = "student", "small"  # names of kinds whose speed is always measured


@dataclass(frozen=True)
class Kind:
    """A kind of network and how it is trained.

    Args:
        name: unique in a campaign.
        overrides: of ``fer.train``, but for data, seed, epochs and teachers.
        seed: of its training.
        probe: name of the kind whose speed is measured.
        ratio: seconds of its epoch, as a multiple of the probe's.
    """

    name: str
    overrides: tuple[str, ...]
    seed: int
    probe: str
    ratio: float = 1.0

    def again(self, turn: int, others: int) -> "Kind":
        """Return the same kind with another seed, for turn 1 and later of ``others`` kinds."""
        return self if turn == 0 else replace(self, name=f"{self.name}_{turn + 1}", seed=self.seed + turn * others)


@dataclass(frozen=True)
class Roster:
    """What a campaign trains.

    Args:
        members: trained first.
        student: trained with each of ``seeds``, taught by the best members.
        small: taught like the students, below half a million parameters.
        least: epochs below which the networks are too little trained to be worth their number or width.
        most: epochs beyond which more bring little.
        first_teacher: network that teaches the members beside the labels; empty for none.
        width: of a CPU's networks; 0 on a GPU.
        seeds: of the students.
    """

    members: tuple[Kind, ...]
    student: Kind
    small: Kind
    least: int
    most: int
    first_teacher: str = ""
    width: int = 0
    seeds: tuple[int, ...] = SEEDS

    def from_seed(self, first: int) -> "Roster":
        """Return the same with all seeds higher by ``first``."""
        members = tuple(replace(kind, seed=kind.seed + first) for kind in self.members)
        small = replace(self.small, seed=self.small.seed + first)
        return replace(self, members=members, small=small, seeds=tuple(seed + first for seed in SEEDS))


def rosters(
    *,
    on_gpu: bool,
    slots: int,
    bf16: bool = True,
    first_teacher: str = "",
    seconds: Callable[[Kind], float] | None = None,
) -> list[Roster]:
    """Return what may be trained, the most ambitious first; the time decides which of them is.

    Args:
        on_gpu: the networks are trained there.
        slots: trainings side by side.
        bf16: a CPU has instructions for bfloat16.
        first_teacher: network that teaches a CPU's members; empty for none.
        seconds: of an epoch of a GPU's kind, where measured: the kinds that take the most are left out first.
    """
    if on_gpu:
        kinds = gpu_members() if seconds is None else sorted(gpu_members(), key=seconds)
        return [
            Roster(members, gpu_student(), gpu_small(), _least(members, kinds), most=200)
            for members in _fewer_and_fewer(kinds, 2)
            if _fills(len(members), slots, len(kinds))
        ]
    kinds = cpu_members(WIDTHS[0], bf16)[: max(2, slots)]
    many = [
        _cpu_roster(WIDTHS[0], members, bf16, first_teacher, _least(members, kinds))
        for members in _fewer_and_fewer(kinds, len(kinds) + 1)
    ]
    each = [_cpu_roster(width, cpu_members(width, bf16)[: len(kinds)], bf16, first_teacher, LEAST) for width in WIDTHS]
    return [*many, *each]


def _fills(members: int, slots: int, kinds: int) -> bool:
    """Return whether so many members leave no slot empty for long, or are all kinds there are, once or twice."""
    return members <= slots or members % slots == 0 or members % kinds == 0


def _least(members: Sequence[Kind], kinds: Sequence[Kind]) -> int:
    return LEAST_OF_MANY if len(members) > len(kinds) else LEAST


def _fewer_and_fewer(kinds: Sequence[Kind], least: int) -> list[tuple[Kind, ...]]:
    """Return all kinds twice, with two seeds each, and then one member fewer at a time down to ``least``."""
    every = [kind.again(turn, len(kinds)) for turn in (0, 1) for kind in kinds]
    return [tuple(every[:count]) for count in range(len(every), least - 1, -1)]


# --- a GPU's --------------------------------------------------------------------------------------------------------


def gpu_members() -> tuple[Kind, ...]:
    """Return six different networks, those of most value to an ensemble first."""

    def kind(name: str, seed: int, *overrides: str, probe: str = "", ratio: float = 1.0) -> Kind:
        return Kind(name, ("experiment=best/member", *overrides), seed, probe or name, ratio)

    # ratios of multiply-adds for faces of 48, 44 and 40 pixels (docs/recipes.md has them for 48)
    return (
        kind("resnet9", 0, "model=resnet9", "model.width=64", probe=STUDENT),
        kind("preact_resnet", 1, "model=preact_resnet", "model.drop_path=0.1", "data.crop=44"),
        kind("vgg19", 2, "model=vgg19", "data.crop=44"),
        kind("resnet9_crop40", 3, "model=resnet9", "model.width=64", "data.crop=40", probe=STUDENT, ratio=0.7),
        kind("resnet18", 4, "model=resnet18", "model.zero_init=true", "data.crop=44", probe="preact_resnet", ratio=0.9),
        kind("resnet9_wide", 5, "model=resnet9", "model.width=96", "data.crop=40", probe=STUDENT, ratio=1.5),
    )


def gpu_student() -> Kind:
    """Return the network that learns from the members."""
    return Kind(STUDENT, ("experiment=best/student", "model=resnet9", "model.width=64"), 0, STUDENT)


def gpu_small() -> Kind:
    """Return the network below half a million parameters, at a GPU's batch size."""
    own = ("data.batch_size=256", "trainer.precision=bf16", "optimizer.bf16=true", "trainer.deterministic=false")
    return Kind(SMALL, ("experiment=best/tiny", *own), 0, SMALL)


# --- a CPU's --------------------------------------------------------------------------------------------------------


def _cpu_roster(width: int, members: Sequence[Kind], bf16: bool, first_teacher: str, least: int) -> Roster:
    student, small = cpu_student(width, bf16), cpu_small(bf16)
    return Roster(tuple(members), student, small, least, 120, first_teacher, width)


def cpu_members(width: int, bf16: bool) -> tuple[Kind, ...]:
    """Return networks of one width that are regularised differently."""

    def kind(name: str, seed: int, *overrides: str) -> Kind:
        return Kind(name, (*_cpu(width, bf16), *overrides), seed, STUDENT)

    return (
        kind("mixup_cutmix", 0),
        kind("mixup", 1, "augment.cutmix=0"),
        kind("erase", 2, "augment.mixup=0", "augment.cutmix=0", "augment.erase=0.5"),
        kind("no_conflicts", 3, "data.conflicts=drop"),
    )


def cpu_student(width: int, bf16: bool) -> Kind:
    """Return the network that learns from the members."""
    return Kind(STUDENT, (*_cpu(width, bf16), "distill.weight=0.7"), 0, STUDENT)


def cpu_small(bf16: bool) -> Kind:
    """Return the network below half a million parameters."""
    half = ("trainer.precision=bf16", "optimizer.bf16=true") if bf16 else ("trainer.precision=32",)
    return Kind(SMALL, ("experiment=best/tiny", *half), 0, SMALL)


def _cpu(width: int, bf16: bool) -> tuple[str, ...]:
    full = () if bf16 else ("trainer.precision=32", "optimizer.bf16=false")
    return ("experiment=best/cpu", f"model.width={width}", "stages=[]", *full)
