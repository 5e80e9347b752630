"""Muon: momentum whose steps are made orthogonal, for kernels and matrices; AdamW for all else.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon), with
the polynomial given there. ``torch.optim.Muon`` takes matrices alone; here a kernel (O, I, K, K) is the matrix (O, IKK)
of what it makes of a patch. Kernels of one shape are computed as one stack, since a GPU's host would otherwise spend
longer on asking for small products than the GPU on computing them.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, optim

MOST_ITERATIONS = 5  # more bring nothing, and rounding of the square grows by 12 at each
MOST_IN_BF16 = 3  # of them; with 5 a step of nearly one direction came out 600 times too long, with 3 none above 1.2
POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # of x, x^3, x^5: drives singular values to about 1 from as low as 0.001


class Muon(optim.AdamW):
    """Groups with ``orthogonal`` set take orthogonal steps, the others are AdamW's.

    Args:
        groups: each with "params", "lr", "weight_decay", "orthogonal", and "momentum" where that is set.
        betas: of AdamW.
        iterations: of the polynomial; 5 come near 1, 3 do for small networks.
        dtype: in which steps are made orthogonal. Momentum and weights keep their own.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        betas: tuple[float, float],
        iterations: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(groups, betas=betas, fused=True)
        self.iterations = iterations
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; ``closure`` computes loss and gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        every = self.param_groups
        for group in every:
            if group["orthogonal"]:
                self._orthogonal_step(group)
        try:
            self.param_groups = [group for group in every if not group["orthogonal"]]
            super().step()
        finally:
            self.param_groups = every
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        weights = [one for one in group["params"] if one.grad is not None]
        if not weights:
            return
        gradients = [one.grad for one in weights]
        momenta = [self._momentum(one) for one in weights]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        for part in portions(weights):
            now, before = pick(gradients, part), pick(momenta, part)
            ahead = torch._foreach_add(now, before, alpha=group["momentum"])  # as Nesterov's
            changes = orthogonal(ahead, self.iterations, self.dtype)
            for same in alike(map(taller, changes)):
                rate = group["lr"] * taller(changes[same[0]])
                torch._foreach_add_([weights[part[index]] for index in same], pick(changes, same), alpha=-rate)

    def _momentum(self, weights: Tensor) -> Tensor:
        state = self.state[weights]
        if not state:
            state["step"] = torch.zeros(())  # counts nothing: AdamW asks every state for it when it is loaded
            state["momentum"] = torch.zeros_like(weights)
        momentum: Tensor = state["momentum"]
        return momentum


def portions(weights: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of weights that are changed together: all, or on a CPU one, where stacks take longer."""
    indices = list(range(len(weights)))
    return [[index] for index in indices] if weights[0].device.type == "cpu" else [indices]


def taller(kernel: Tensor) -> float:
    """Return by how much a step of a kernel (O, I, K, K) is longer where its matrix (O, IKK) is taller than wide."""
    rows = kernel.shape[0]
    return float(max(1.0, rows / (kernel.numel() // rows)) ** 0.5)


def orthogonal(kernels: Sequence[Tensor], iterations: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return for each kernel one whose matrix has the same singular vectors, and singular values near 1.

    The polynomial is iterated on the matrix's square (R, R), with R <= C after transposing, and the factors' product
    applied once: at R = 256, C = 2,304 half the time of iterating on the matrix. In bfloat16 a quarter of that again,
    where the processor multiplies it (AVX-512 BF16, AMX, a GPU).

    Args:
        kernels: (O, I, K, K), whose matrix is (O, IKK), or matrices (R, C); of any shapes.
        iterations: of the polynomial.
        dtype: in which it is computed.
    """
    sets = alike((kernel.shape, kernel.stride()) for kernel in kernels)
    stacks = [stacked(pick(kernels, same)) for same in sets]
    matrices = [stack.flatten(1 - kernels[same[0]].ndim) for stack, same in zip(stacks, sets, strict=True)]
    wide = [wider(one) for one in normalised(matrices, dtype)]
    products = polynomials([one @ one.mT for one in wide], iterations)
    made = []
    for stack, matrix, one, product in zip(stacks, matrices, wide, products, strict=True):
        change = product @ one
        upright = change if change.shape == matrix.shape else change.mT
        made.append(torch.empty_like(stack).copy_(upright.reshape(stack.shape)))  # in the kernels' order in memory
    return restored(sets, [one.view(len(same), *kernels[same[0]].shape) for one, same in zip(made, sets, strict=True)])


def normalised(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return matrices (R, C) and stacks of them, each matrix divided by its norm: no singular value is above 1.

    Divided in their own precision; the quotients are written in ``dtype``, by a GPU in the same kernel.
    """
    norms = [torch.linalg.vector_norm(one, dim=(-2, -1), keepdim=True) for one in matrices]
    torch._foreach_add_(norms, 1e-7)
    pairs = zip(matrices, norms, strict=True)
    return [torch.div(one, norm, out=torch.empty_like(one, dtype=dtype)) for one, norm in pairs]


def polynomials(squares: Sequence[Tensor], iterations: int) -> list[Tensor]:
    """Return what the iterated polynomial multiplies the matrices of these squares (R, R) or (N, R, R) by."""
    a, b, c = POLYNOMIAL
    sets = alike(square.shape[-1] for square in squares)
    current = [joined(pick(squares, same)) for same in sets]
    products: list[Tensor] = []
    for left in reversed(range(iterations)):
        fourth = [scaled @ one for scaled, one in zip(torch._foreach_mul(current, c), current, strict=True)]
        factors = torch._foreach_mul(current, b)
        torch._foreach_add_(factors, fourth)
        for factor in factors:
            factor.diagonal(dim1=-2, dim2=-1).add_(a)
        products = [one @ other for one, other in zip(factors, products, strict=True)] if products else list(factors)
        if left:
            current = [factor @ one @ factor for factor, one in zip(factors, current, strict=True)]
    return restored(sets, [parted(one, pick(squares, same)) for one, same in zip(products, sets, strict=True)])


def wider(matrices: Tensor) -> Tensor:
    """Return matrices (..., R, C) with R <= C, transposed if need be."""
    return matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices


def stacked(kernels: Sequence[Tensor]) -> Tensor:
    """Return kernels (O, I, K, K) alike in shape and order in memory as (N, O, I, K, K) in that order; one as it is."""
    if len(kernels) == 1:
        return kernels[0]
    order = sorted(range(kernels[0].ndim), key=kernels[0].stride, reverse=True)
    back = [0, *(1 + order.index(dimension) for dimension in range(len(order)))]
    return torch.stack([kernel.permute(order) for kernel in kernels]).permute(back)  # contiguous: a single copy


def joined(stacks: Sequence[Tensor]) -> Tensor:
    """Return matrices (R, C) and stacks of them (N, R, C) as one stack; one as it is."""
    return stacks[0] if len(stacks) == 1 else torch.cat([one.view(-1, *one.shape[-2:]) for one in stacks])


def parted(stack: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts that ``joined`` has put together, in the shapes of these."""
    parts = stack.view(-1, *stack.shape[-2:]).split_with_sizes([one.shape[:-2].numel() for one in like])
    return [part.view_as(one) for part, one in zip(parts, like, strict=True)]


def alike(keys: Iterable[Hashable]) -> list[list[int]]:
    """Return the indices of equal keys, a list for each key."""
    indices: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        indices.setdefault(key, []).append(index)
    return list(indices.values())


def pick(tensors: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
    """Return the tensors of these indices."""
    return [tensors[index] for index in indices]


def restored(sets: Sequence[Sequence[int]], picked: Sequence[Iterable[Tensor]]) -> list[Tensor]:
    """Return in the order of the indices what was picked by them."""
    pairs = [pair for same, tensors in zip(sets, picked, strict=True) for pair in zip(same, tensors, strict=True)]
    found = dict(pairs)
    return [found[index] for index in range(len(found))]
