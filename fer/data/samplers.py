"""The order of the faces of an epoch, and the loader that serves them in batches.

The order is a function of seed and epoch. A run resumed within an epoch therefore equals an uninterrupted one to the
bit (on a CPU with the same number of threads). Lightning must not be asked for the number of steps before it has read
the checkpoint. It would build the loader, and the resumed epoch would start again.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from fer.data.data_sets import divided
from fer.data.dataset import Batch, FaceDataset, Indices
from fer.data.noise import Part, noise_seed, parted
from fer.system.ranks import Rank


class EpochShuffle(Sampler[int]):
    """A random order of the faces, a function of seed and epoch alone, so that a resumed run has the same one.

    Args:
        count: number of faces.
        seed: of the run.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        yield from self.indices().tolist()

    def indices(self) -> Tensor:
        """Return the indices of the epoch's faces, (N,) int64, on the CPU: a GPU's generator draws other numbers."""
        generator = torch.Generator().manual_seed(noise_seed(self.seed, self.epoch, -1))
        return torch.randperm(self.count, generator=generator)


class EpochBalance(EpochShuffle):
    """A random order with equally many faces of each class; like ``EpochShuffle`` a function of seed and epoch alone.

    The length of an epoch stays the same. Of a large class it holds a part, a different one in each epoch. Each face of
    a small class occurs several times; the numbers of occurrences differ by at most one.

    Args:
        targets: (N,) class of each face.
        seed: of the run.
    """

    def __init__(self, targets: Tensor, seed: int) -> None:
        super().__init__(len(targets), seed)
        self.members = members_of(targets)

    def indices(self) -> Tensor:
        """Return the indices of the epoch's faces, (N,) int64, on the CPU."""
        generator = torch.Generator().manual_seed(noise_seed(self.seed, self.epoch, -1))
        together = balanced(self.members, self.count, generator)
        return together[torch.randperm(self.count, generator=generator)]


class EpochShares(EpochShuffle):
    """A random order in which each data set has its share; like ``EpochShuffle`` a function of seed and epoch alone.

    The length of an epoch stays the same. A set with more faces than its share gives a part of them to an epoch, each
    time a different part. The faces of a smaller set occur several times. Their counts differ by at most one.

    Args:
        numbers: (N,) number of the data set of each face.
        shares: of the sets, which sum to 1.
        seed: of the run.
        targets: (N,) class of each face, if each set is to have equally many faces of its classes; None otherwise.
    """

    def __init__(self, numbers: Tensor, shares: Sequence[float], seed: int, targets: Tensor | None = None) -> None:
        super().__init__(len(numbers), seed)
        sets = [(numbers == number).nonzero()[:, 0] for number in range(len(shares))]
        self.members = [
            [of_set] if targets is None else [of_set[each] for each in members_of(targets[of_set])] for of_set in sets
        ]
        self.faces = divided(self.count, shares)

    def indices(self) -> Tensor:
        """Return the indices of the epoch's faces, (N,) int64, on the CPU."""
        generator = torch.Generator().manual_seed(noise_seed(self.seed, self.epoch, -1))
        sets = zip(self.members, self.faces, strict=True)
        together = torch.cat([balanced(members, faces, generator) for members, faces in sets])
        return together[torch.randperm(self.count, generator=generator)]


def members_of(targets: Tensor) -> list[Tensor]:
    """Return the indices of the faces of each class that has some."""
    return [(targets == label).nonzero()[:, 0] for label in sorted(set(targets.tolist()))]


def balanced(members: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` indices, equally many of each group, each group in whole rounds of a random order.

    Args:
        members: indices of each group.
        count: number of indices.
        generator: of the random order.
    """
    groups = len(members)
    first = torch.randint(groups, (1,), generator=generator).item()  # the remainder goes to the groups from here
    drawn = []
    for number, indices in enumerate(members):
        share = count // groups + ((number - first) % groups < count % groups)
        rounds = [indices[torch.randperm(len(indices), generator=generator)] for _ in range(-(-share // len(indices)))]
        drawn.append(torch.cat(rounds)[:share] if rounds else indices[:0])
    return torch.cat(drawn)


class ResumableLoader(DataLoader[Batch]):
    """A loader that can resume within an epoch: its state is the number of batches served."""

    _served = 0
    _skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._served, self._skip = self._skip, 0
        cast(EpochBatches, self.batch_sampler).served = self._served
        for batch in super().__iter__():
            self._served += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches served in this epoch; 0 after its end."""
        return {"served": self._served % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches that were served already in the next pass."""
        self._skip = state["served"]


class EpochBatches(Sampler[Indices]):
    """Batches of an epoch's indices; the indices are copied once to the device of the faces and sliced there.

    Ranks share each batch: every rank has its part, in the order of the ranks, and no face is repeated. A part of a
    small last batch of val may be empty; it is passed over.

    Args:
        dataset: the split.
        size: faces in each batch.
        sampler: the order of the faces; None keeps the order of the split.
        drop_last: whether an incomplete last batch is left out.
        rank: this process; the default has every batch to itself.
    """

    def __init__(
        self,
        dataset: FaceDataset,
        size: int,
        sampler: EpochShuffle | None = None,
        *,
        drop_last: bool = False,
        rank: Rank = Rank(),  # noqa: B008  # frozen
    ) -> None:
        self.dataset, self.size, self.drop_last, self.rank = dataset, size, drop_last, rank
        self.served = 0  # batches that the next pass leaves out: a resumed epoch has trained on them
        self.sampler = sampler  # Lightning calls ``set_epoch`` of an attribute of this name

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.size)
        start, stop = parted(rest, self.rank.number, self.rank.count)
        return whole + (stop > start and not self.drop_last)

    def faces(self, batch: int) -> int:
        """Return the number of faces in a batch of all ranks, by its index in the epoch."""
        return min(self.size, len(self.dataset) - batch * self.size)

    def __iter__(self) -> Iterator[Indices]:
        order = torch.arange(len(self.dataset)) if self.sampler is None else self.sampler.indices()
        indices = self.dataset.on_device(order)
        first, self.served = self.served, 0
        batches = (self._batch(indices, number) for number in range(first, len(self)))
        return self.dataset.read_ahead(batches)

    def _batch(self, indices: Indices, number: int) -> Indices:
        drawn = indices[number * self.size : (number + 1) * self.size]
        return drawn.of_part(self._part(len(drawn))) if self.rank.several else drawn

    def _part(self, faces: int) -> Part:
        start, stop = parted(faces, self.rank.number, self.rank.count)
        return Part(start, stop, faces, self.rank.count)


def drops_last(faces: int, size: int, *, drop_last: bool, ranks: int = 1) -> bool:
    """Return whether the last batch of a training epoch is left out.

    A batch with one face for a rank is: batch normalisation cannot train on it. With ``drop_last`` every incomplete
    last batch is, unless it is the only one.
    """
    return 0 < faces % size < 2 * ranks or (drop_last and faces > size)
