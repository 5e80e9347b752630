"""Counts what a piece of code asks a device to do: on a GPU each operation that computes is a kernel launch."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

# what only looks at a tensor otherwise, or makes room: nothing is launched for it
FREE = ("view", "reshape", "as_strided", "transpose", "t", "permute", "expand", "detach", "alias", "select", "slice",
        "squeeze", "unsqueeze", "split", "unbind", "empty", "empty_like", "empty_strided", "_unsafe_view", "diagonal",
        "lift_fresh", "unfold", "chunk", "narrow", "_reshape_alias", "split_with_sizes", "device",
        "_record_function_enter_new", "_record_function_exit")  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts the operations that reach the device while it is entered; those that launch nothing are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.counts.values())
