"""Networks as one graph: bytes in, calibrated probabilities out.

Every format but safetensors is made of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fer.exports.source import Source

EXAMPLE = 2  # faces; 1 would be taken for a constant


class Calibrated(nn.Module):
    """The calibrated probabilities of one network, or of the weighted mean of several.

    Args:
        source: the networks.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.weighted for member in source.members)
        self.weights, self.temperatures = tuple(source.weights), tuple(source.temperatures)
        self.temperature = source.temperature

    def forward(self, faces: Tensor) -> Tensor:
        """Return probabilities (B, C) of faces (B, 1 or 3, S, S) uint8."""
        parts: list[Tensor] = [
            (member(faces).float() / warm).softmax(1)
            for member, warm in zip(self.members, self.temperatures, strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        together = torch.stack([part * weight for part, weight in zip(parts, self.weights, strict=True)]).sum(0)
        if self.temperature == 1:
            return together
        return (together.clamp(min=torch.finfo(torch.float32).tiny).log() / self.temperature).softmax(1)


def traced(source: Source) -> ExportedProgram:
    """Return the graph of networks for any number of faces, without traces of this machine's files."""
    example = torch.zeros(EXAMPLE, *source.shape, dtype=torch.uint8)
    program = torch.export.export(
        Calibrated(source).eval(), (example,), dynamic_shapes={"faces": {0: Dim("batch", min=1)}}
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
