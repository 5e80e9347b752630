"""The order of the faces, a function of seed and epoch, and the noise that belongs to it."""

import hashlib
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from fer.data.dataset import Batch, FaceDataset, Indices


class EpochShuffle(Sampler[int]):
    """An order that is a function of seed and epoch alone, so that a resumed run sees the same one.

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
        """Return the indices of the epoch's faces, (N,) int64, on the CPU: a GPU would draw others."""
        generator = torch.Generator().manual_seed(noise_seed(self.seed, self.epoch, -1))
        return torch.randperm(self.count, generator=generator)


class EpochBalance(EpochShuffle):
    """An order in which every class has as many places; like ``EpochShuffle`` a function of seed and epoch alone.

    An epoch is as long as ever: of a large class it holds a part, other ones in other epochs, of a small one each face
    several times, as often as any other give or take once.

    Args:
        targets: (N,) class of each face.
        seed: of the run.
    """

    def __init__(self, targets: Tensor, seed: int) -> None:
        super().__init__(len(targets), seed)
        self.places = [(targets == label).nonzero()[:, 0] for label in sorted(set(targets.tolist()))]

    def indices(self) -> Tensor:
        """Return the indices of the epoch's faces, (N,) int64, on the CPU."""
        generator = torch.Generator().manual_seed(noise_seed(self.seed, self.epoch, -1))
        first = torch.randint(len(self.places), (1,), generator=generator).item()  # who has one place more
        drawn = []
        for number, own in enumerate(self.places):
            share = self.count // len(self.places)
            share += (number - first) % len(self.places) < self.count % len(self.places)
            rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-share // len(own)))]
            drawn.append(torch.cat(rounds)[:share])
        together = torch.cat(drawn)
        return together[torch.randperm(self.count, generator=generator)]


class ResumableLoader(DataLoader[Batch]):
    """A loader that can go on within an epoch: its state is the number of batches served."""

    _served = 0
    _skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._served, self._skip, skip = self._skip, 0, self._skip
        for batch in islice(super().__iter__(), skip, None):
            self._served += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how far the epoch is; a finished one counts as not begun."""
        return {"served": self._served % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass begin after the batches that were served."""
        self._skip = state["served"]


def noise_seed(seed: int, epoch: int, key: int) -> int:
    """Return a seed for one batch of one epoch; neighbours share no bits, and it does not depend on what ran before."""
    return int.from_bytes(hashlib.blake2b(f"{seed},{epoch},{key}".encode(), digest_size=8).digest()) >> 1


def seed_noise(device: torch.device, seed: int) -> None:
    """Seed the generators of the CPU and of a device.

    ``torch.manual_seed`` would seed those of every kind of accelerator there is, and format the stack for each that
    is not at hand: at every step, more time than all else that a step costs beside the network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class EpochBatches(Sampler[Indices]):
    """An epoch's indices in batches, moved once an epoch to where the faces lie and sliced there.

    Args:
        dataset: of the faces.
        size: faces a batch.
        sampler: gives their order; None leaves it as it is in the split.
        drop_last: leave out an incomplete last batch.
    """

    def __init__(
        self, dataset: FaceDataset, size: int, sampler: EpochShuffle | None = None, *, drop_last: bool = False
    ) -> None:
        self.dataset, self.size, self.drop_last = dataset, size, drop_last
        self.sampler = sampler  # of this name, by which Lightning finds whose ``set_epoch`` to call

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Indices]:
        places = torch.arange(len(self.dataset)) if self.sampler is None else self.sampler.indices()
        indices = self.dataset.located(places)
        for batch in range(len(self)):
            yield indices[batch * self.size : (batch + 1) * self.size]


def drops_last(faces: int, size: int, *, even: bool) -> bool:
    """Return whether an epoch's last batch is left out of training: one of a single face, which batch normalisation
    cannot train on, and where all are to be ``even`` each that is incomplete, unless it is the only one.
    """
    return faces % size == 1 or (even and faces > size)
