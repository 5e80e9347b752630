"""The kinds of network that a campaign trains, on a GPU and on a CPU.

No torch here. On a GPU, kinds differ in network, crop and seed, as in published recipes, because an ensemble gains from
differences. On a CPU, all kinds are one network at different widths, since depthwise and deep networks are slow there
(docs/recipes.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

SEEDS = (0, 1, 2)  # seeds of the students: a recipe's accuracy is the mean of three
TEACHERS = 3  # at most: the forward pass of a teacher takes a third of the time of its training step
SMALL_WIDTH = 16  # width of the network below half a million parameters
WIDTHS = (64, 48, 32, 24, SMALL_WIDTH)  # widths of a CPU's networks, the widest first
LEAST = 20  # epochs of each network; if they do not fit, fewer or narrower networks are trained
LEAST_ON_GPU = 40  # the same on a GPU, where students of 26 epochs were worse than a CPU's of 58
LEAST_TAUGHT = 40  # the same on a CPU where the package's network can teach in place of members
LEAST_OF_MANY = 60  # epochs of each network, required before a kind is trained with two seeds
MOST_ON_GPU = 200  # epochs of each network of a GPU; more improve little
MOST_ON_CPU = 120  # epochs of each network of a CPU; more improve little
SLOW = ("preact_resnet",)  # probes of deep networks, which need twice the time of the others for as many epochs
STUDENT, SMALL = "student", "small"  # names of kinds whose speed is always measured


@dataclass(frozen=True)
class Kind:
    """A kind of network and how it is trained.

    Args:
        name: name, unique in a campaign.
        overrides: overrides of ``fer.train``, without data, seed, epochs and teachers.
        seed: seed of its training.
        probe: name of the kind whose measured speed it uses.
        ratio: seconds of its epoch, divided by those of the probe's.
    """

    name: str
    overrides: tuple[str, ...]
    seed: int
    probe: str
    ratio: float = 1.0

    def again(self, turn: int, others: int) -> "Kind":
        """Return the kind of a later turn through all ``others`` kinds, with a seed of its own; itself for turn 0."""
        return self if turn == 0 else replace(self, name=f"{self.name}_{turn + 1}", seed=self.seed + turn * others)


@dataclass(frozen=True)
class Roster:
    """The networks that a campaign trains.

    Args:
        members: kinds trained first; none where the first teacher alone teaches the students.
        student: kind trained with each of ``seeds``, taught by the best members.
        small: kind below half a million parameters, taught like the students.
        least: epochs below which a smaller roster is better.
        most: epochs above which more improve little.
        first_teacher: network that teaches the members in addition to the labels, and may teach the students; empty for
            none.
        width: width of a CPU's networks; 0 on a GPU.
        seeds: seeds of the students.
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
        """Return the same roster with ``first`` added to all seeds."""
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
    """Return the possible rosters, the most ambitious first; the time decides between them.

    Args:
        on_gpu: whether the networks are trained on a GPU.
        slots: trainings side by side.
        bf16: whether a CPU has instructions for bfloat16.
        first_teacher: network that teaches the members; empty for none.
        seconds: measured seconds of an epoch of a GPU's kind; the slowest kinds are left out first.
    """
    if on_gpu:
        kinds = gpu_members() if seconds is None else sorted(gpu_members(), key=seconds)
        return _gpu_rosters(kinds, slots, first_teacher)
    return _cpu_rosters(max(2, slots), bf16, first_teacher)


def _gpu_rosters(kinds: Sequence[Kind], slots: int, first_teacher: str) -> list[Roster]:
    """Return the rosters of a GPU; the last has no members where the first teacher can teach the students."""
    each = [
        members
        for members in _fewer_and_fewer(kinds, max(2, min(slots, len(kinds))))
        if _fills(len(members), slots, len(kinds))
    ]
    return [
        Roster(members, gpu_student(), gpu_small(), max(LEAST_ON_GPU, least), MOST_ON_GPU, first_teacher)
        for members, least in [(choice, _least(choice, kinds)) for choice in each] + [((), LEAST)] * bool(first_teacher)
    ]


def _cpu_rosters(count: int, bf16: bool, first_teacher: str) -> list[Roster]:
    """Return the rosters of a CPU; with a first teacher, students have all of the time until members fit too.

    Args:
        count: kinds of members.
        bf16: whether there are instructions for bfloat16.
        first_teacher: network that teaches the members; empty for none.
    """
    kinds = cpu_members(WIDTHS[0], bf16)[:count]
    many = [
        _cpu_roster(WIDTHS[0], members, bf16, first_teacher, _least(members, kinds))
        for members in _fewer_and_fewer(kinds, len(kinds) + 1)
    ]
    if not first_teacher:
        widths = [(width, cpu_members(width, bf16)[:count], LEAST) for width in WIDTHS]
    else:
        widths = [(WIDTHS[0], kinds, LEAST_TAUGHT), *((width, (), LEAST_TAUGHT) for width in WIDTHS)]
    return [*many, *(_cpu_roster(width, members, bf16, first_teacher, least) for width, members, least in widths)]


def _fills(members: int, slots: int, kinds: int) -> bool:
    """Return whether a number of members keeps all slots busy, or is once or twice the number of kinds."""
    return members <= slots or members % slots == 0 or members % kinds == 0


def _least(members: Sequence[Kind], kinds: Sequence[Kind]) -> int:
    return LEAST_OF_MANY if len(members) > len(kinds) else LEAST


def _fewer_and_fewer(kinds: Sequence[Kind], least: int) -> list[tuple[Kind, ...]]:
    """Return all kinds with two seeds each, then one member fewer at a time down to ``least``."""
    every = [kind.again(turn, len(kinds)) for turn in (0, 1) for kind in kinds]
    return [tuple(every[:count]) for count in range(len(every), least - 1, -1)]


# --- a GPU's --------------------------------------------------------------------------------------------------------


def gpu_members() -> tuple[Kind, ...]:
    """Return six different networks, the one that helps an ensemble the most first."""

    def kind(name: str, seed: int, *overrides: str, probe: str = "", ratio: float = 1.0) -> Kind:
        return Kind(name, ("experiment=best/member", *overrides), seed, probe or name, ratio)

    # ratios of multiply-adds for faces of 48, 44 and 40 pixels (docs/recipes.md lists those for 48)
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
    """Return the network below half a million parameters, at full resolution: a GPU has the time for it."""
    return Kind(SMALL, ("experiment=best/distilled", "trainer.precision=bf16"), 0, SMALL)


# --- a CPU's --------------------------------------------------------------------------------------------------------


def _cpu_roster(width: int, members: Sequence[Kind], bf16: bool, first_teacher: str, least: int) -> Roster:
    student, small = cpu_student(width, bf16), cpu_small(bf16)
    return Roster(tuple(members), student, small, least, MOST_ON_CPU, first_teacher, width)


def cpu_members(width: int, bf16: bool) -> tuple[Kind, ...]:
    """Return networks of one width with different regularisation."""

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
