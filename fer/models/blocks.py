"""The blocks of a network, in the order of the computation.

Gradient checkpointing and the layers of separate rates use them. With checkpointing (Chen et al. 2016, "Training Deep
Nets with Sublinear Memory Cost") the forward pass keeps the input of each block alone. The backward pass computes the
block again. The gradients are those of the ordinary backward pass to the bit. Random numbers are drawn from the same
state, and ``Trainable.backward`` keeps the running statistics of batch normalisation from being updated twice.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, is_grad_enabled, nn
from torch.optim.optimizer import ParamsT
from torch.utils.checkpoint import checkpoint

from fer.config.errors import FerError
from fer.data.noise import current, shared
from fer.optim.muon import Group
from fer.optim.optimizers import DISTANCE, is_vector, listed

KEY = "trainer.gradient_checkpointing=true"


def grouped(chain: nn.Sequential) -> list[list[nn.Module]]:
    """Return the layers of a chain in blocks, in their order.

    A block begins with a layer that has a kernel or a matrix. Normalisation, activation, pooling and dropout belong to
    the layer before them, and those at the very beginning to the first block.
    """
    blocks: list[list[nn.Module]] = [[]]
    begun = False  # whether the latest block has a kernel or a matrix
    for layer in chain:
        if any(not is_vector(parameter) for parameter in layer.parameters()):
            blocks += [[]] if begun else []
            begun = True
        blocks[-1].append(layer)
    return blocks


def in_parts(net: nn.Module) -> list[nn.Sequential]:
    """Return the chains of a network of torchvision: those among its ``features``, and its ``classifier``."""
    parts = (*net.get_submodule("features").children(), net.get_submodule("classifier"))
    return [part for part in parts if isinstance(part, nn.Sequential)]


def layers_of(chains: Sequence[nn.Sequential]) -> list[list[nn.Parameter]]:
    """Return the parameters of each block of some chains, in their order; blocks without parameters are left out."""
    blocks = [block for chain in chains for block in grouped(chain)]
    layers = [[weights for layer in block for weights in layer.parameters()] for block in blocks]
    return [layer for layer in layers if layer]


def by_layer(parameters: ParamsT, layers: Sequence[Sequence[nn.Parameter]]) -> list[Group]:
    """Split parameter groups by layer, each with its ``DISTANCE`` to the last layer, which comes first.

    Args:
        parameters: of a network, or groups of them; frozen ones are left out.
        layers: of the network, from the faces to the logits.

    Raises:
        FerError: the network names no layers, or a parameter is in none of them.
    """
    distances = {id(weights): index for index, layer in enumerate(reversed(layers)) for weights in layer}
    split = []
    for group in listed(parameters):
        trained = [weights for weights in group["params"] if weights.requires_grad]
        if any(id(weights) not in distances for weights in trained):
            raise FerError(
                "optimizer.layer_decay: the network does not name the layers of all its weights; set it to 1, or "
                "define `chains` or `layers` in the network's class"
            )
        for distance in range(len(layers)):
            if within := [weights for weights in trained if distances[id(weights)] == distance]:
                split.append({**group, "params": within, DISTANCE: distance})
    return split


class Checkpointed(nn.Sequential):
    """A chain whose blocks are computed again in the backward pass; names in a checkpoint file stay."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the output of the last layer."""
        if not is_grad_enabled():
            outputs: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
            return outputs
        for block in grouped(self):
            inputs = recomputed(nn.Sequential(*block), inputs)
        return inputs


def checkpoint_chains(chains: Sequence[nn.Sequential]) -> None:
    """Let the blocks of a network's chains be computed again in the backward pass, in place.

    A last chain of a single block, the layer of the logits, would gain nothing.
    """
    alone = len(chains) > 1 and len(grouped(chains[-1])) == 1
    for chain in chains[:-1] if alone else chains:
        chain.__class__ = Checkpointed  # keeps parameters, buffers, hooks and the names in a checkpoint


def recomputed(block: nn.Sequential, inputs: Tensor) -> Tensor:
    """Return the output of a block of which the backward pass keeps the input alone.

    Raises:
        FerError: the block overwrites its input, which the backward pass would compute from.
    """
    before = inputs._version
    outputs: Tensor = checkpoint(block, inputs, use_reentrant=False, context_fn=_contexts)
    if inputs._version != before:
        raise FerError(
            f"{KEY}: {type(block[0]).__name__} overwrites the input of its block; set inplace=False there, or leave "
            "gradient checkpointing out"
        )
    return outputs


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a block's two computations: the second draws the noise of the same part of a batch."""
    return nullcontext(), shared(current())
