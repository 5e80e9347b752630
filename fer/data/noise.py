"""The noise of a batch: its seed, and the random numbers that several ranks share.

The seed is a hash of the run's seed, the epoch and the batch's key. The noise of a step thus does not depend on the
steps before it. All ranks seed their generators alike. Each draws the numbers of the whole batch and keeps those of its
faces. One rank and several thus draw the same number for the same face. Without ranks a draw stays as it is.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Named = Mapping[str, Any]  # arguments by name
IN_PLACE = ("bernoulli_", "uniform_", "exponential_", "normal_", "random_")  # methods that fill a tensor at random
FILLING = {getattr(Tensor, name) for name in IN_PLACE}
DROPPING = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}
OF_A_SIZE = {torch.rand, torch.randn}


def noise_seed(seed: int, epoch: int, key: int) -> int:
    """Return the seed for one batch of one epoch, a hash of the arguments, independent of all that ran before."""
    return int.from_bytes(hashlib.blake2b(f"{seed},{epoch},{key}".encode(), digest_size=8).digest()) >> 1


def seed_noise(device: torch.device, seed: int) -> None:
    """Seed the random generators of the CPU and of a device.

    ``torch.manual_seed`` seeds every kind of accelerator and formats the stack for each kind that is absent. At every
    step this would take longer than everything else outside the network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Part(NamedTuple):
    """The faces of a batch that one rank has.

    Args:
        start: index of the first one in the whole batch.
        stop: index after the last one.
        whole: number of faces in the whole batch.
        ranks: number of ranks.
        views: views of each face; a batch is one set of all faces after another.
    """

    start: int
    stop: int
    whole: int
    ranks: int
    views: int = 1

    @property
    def weight(self) -> float:
        """Factor on the mean loss of the part, so that the mean over the ranks is that of the whole batch."""
        return (self.stop - self.start) * self.ranks / self.whole

    def rows(self, whole: Tensor) -> Tensor:
        """Return the rows (views * part, ...) of a tensor (views * whole, ...) of the whole batch."""
        if self.views == 1:
            return whole[self.start : self.stop]
        by_view = whole.view(self.views, self.whole, *whole.shape[1:])
        return by_view[:, self.start : self.stop].flatten(0, 1)

    def standing_for(self, part: Tensor) -> Tensor:
        """Return an uninitialised tensor for the whole batch, in the memory order of a tensor of the part."""
        by_channel = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if by_channel and not part.is_contiguous() else torch.contiguous_format
        size = (self.views * self.whole, *part.shape[1:])
        return torch.empty(size, dtype=part.dtype, device=part.device, memory_format=order)


def parted(count: int, rank: int, ranks: int) -> tuple[int, int]:
    """Return start and stop of a rank's part of ``count`` faces; parts differ by one face at most."""
    return count * rank // ranks, count * (rank + 1) // ranks


_active: list[Part] = []  # the part whose noise is drawn, the latest last


@contextmanager
def shared(part: Part | None) -> Iterator[None]:
    """Draw the random numbers within a block for the whole batch, and use those of ``part``; None changes nothing."""
    if part is None:
        yield
        return
    _active.append(part)
    try:
        with _Drawing(part):
            yield
    finally:
        _active.pop()


def current() -> Part | None:
    """Return the part whose random numbers are drawn at present, see ``shared``; None where nothing is shared."""
    return _active[-1] if _active else None


def in_whole(inputs: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the random numbers of ``draw`` for a tensor, drawn for the whole batch where ranks share it.

    For layers that draw otherwise than row by row.
    """
    if not _active:
        return draw(inputs)
    part = _active.pop()
    try:
        return part.rows(draw(part.standing_for(inputs)))
    finally:
        _active.append(part)


class _Drawing(TorchFunctionMode):
    """Replaces draws for the rows of a part by those for the whole batch."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.count = part.views * (part.stop - part.start)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Named | None = None) -> Any:
        given = kwargs or {}
        if not _active or func not in KNOWN:
            return func(*args, **given)
        return KNOWN[func](self, func, args, given)

    def _of_rows(self, tensor: Tensor) -> bool:
        return tensor.ndim > 0 and len(tensor) == self.count

    def fill(self, func: Any, args: tuple[Any, ...], kwargs: Named) -> Any:
        """Fill a tensor of the part with its rows of a whole one."""
        if not self._of_rows(args[0]):
            return func(*args, **kwargs)
        drawn = func(self.part.standing_for(args[0]), *args[1:], **kwargs)
        return args[0].copy_(self.part.rows(drawn))

    def drop(self, func: Any, args: tuple[Any, ...], kwargs: Named) -> Any:
        """Drop values of the part by a mask of the whole batch."""
        named = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | dict(kwargs)
        inputs, rate, training = named["input"], named.get("p", 0.5), named.get("training", True)
        if not training or not self._of_rows(inputs):
            return func(*args, **kwargs)
        ones = self.part.standing_for(inputs.detach()).fill_(1)
        return inputs * self.part.rows(func(ones, rate, True))

    def make(self, func: Any, args: tuple[Any, ...], kwargs: Named) -> Any:
        """Make a tensor of random numbers."""
        size = list(args[0]) if args and not isinstance(args[0], int) else list(args)
        if kwargs.get("size") is not None or not size or size[0] != self.count:
            return func(*args, **kwargs)
        return self.part.rows(func(self.part.views * self.part.whole, *size[1:], **kwargs))

    def integers(self, func: Any, args: tuple[Any, ...], kwargs: Named) -> Any:
        """Make a tensor of random integers."""
        *bounds, size = args
        if not isinstance(size, tuple | list) or not size or size[0] != self.count:
            return func(*args, **kwargs)
        whole = (self.part.views * self.part.whole, *size[1:])
        return self.part.rows(func(*bounds, whole, **kwargs))


KNOWN: dict[Any, Callable[[_Drawing, Any, tuple[Any, ...], Named], Any]] = {
    **dict.fromkeys(FILLING, _Drawing.fill),
    **dict.fromkeys(DROPPING, _Drawing.drop),
    **dict.fromkeys(OF_A_SIZE, _Drawing.make),
    torch.randint: _Drawing.integers,
}
