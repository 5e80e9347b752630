"""``python -m fer.benchmarks.memory NETWORK [...]``: the memory of a training step.

Options are ``--size 112`` and ``--batch 32``. A step of a network (``resnet18``, ``timm:resnet50``) runs in a process
of its own, without and with ``trainer.gradient_checkpointing``. "kept" is the memory of all values that the forward
pass keeps for the backward pass, each storage counted once, weights left out. "peak" is the growth of the process's
peak memory over a second step (Linux), weights and optimizer excluded. Times are of that step.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fer.config.command import Grammar, command
from fer.system import machine
from fer.system.text import text_table


@dataclass(frozen=True)
class Step:
    """What a training step took.

    Args:
        kept_mb: values kept for the backward pass, in MB.
        peak_mb: growth of the process's peak memory, in MB.
        seconds: processor time of forward and backward pass.
    """

    kept_mb: float
    peak_mb: float
    seconds: float


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(prog="python -m fer.benchmarks.memory", description="Measure the memory of a training step.")
    grammar.add_argument("networks", nargs="+", metavar="NETWORK", help="such as resnet18 or timm:resnet50")
    grammar.add_argument("--size", type=int, default=112, help="side of the faces, in pixels; default: %(default)s")
    grammar.add_argument("--batch", type=int, default=32, help="faces of the step; default: %(default)s")
    grammar.add_argument("--once", choices=("plain", "checkpointed"), help=argparse.SUPPRESS)  # in a child process
    return grammar


@command("fer.benchmarks.memory")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments, _ = parser().begin(argv)
    if arguments.once:
        step = measured(arguments.networks[0], arguments.size, arguments.batch, arguments.once == "checkpointed")
        print(json.dumps(asdict(step)))
        return 0
    rows = []
    for network in arguments.networks:
        for way in ("plain", "checkpointed"):
            step = apart(network, arguments.size, arguments.batch, way)
            rows.append((network, way, f"{step.kept_mb:,.0f}", f"{step.peak_mb:,.0f}", f"{step.seconds:.2f}"))
    print(text_table(("network", "backward pass", "kept, MB", "peak, MB", "processor, s"), rows))
    return 0


def apart(network: str, size: int, batch: int, way: str) -> Step:
    """Return the measurements of a step in a process of its own."""
    line = [sys.executable, "-m", "fer.benchmarks.memory", network, "--size", str(size), "--batch", str(batch)]
    ended = subprocess.run([*line, "--once", way], capture_output=True, text=True, check=True)
    return Step(**json.loads(ended.stdout.splitlines()[-1]))


def measured(network: str, size: int, batch: int, checkpointed: bool) -> Step:
    """Return the measurements of a step in this process, on one thread of the CPU."""
    import torch

    from fer.models import create

    torch.set_num_threads(1)
    name, _, timm = network.partition(":")
    model = create({"name": name, **({"network": timm} if timm else {})}, image_size=size).train()
    model = model.to(memory_format=torch.channels_last)
    if checkpointed:
        model.recompute()
    faces = torch.rand(batch, 1, size, size).to(memory_format=torch.channels_last)
    model.backward(model.logits_of_crops(faces[:2]).sum())  # kernels are chosen, gradients exist
    before, start = machine.memory(machine.RESIDENT) or 0.0, time.process_time()
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        loss = model.logits_of_crops(faces).sum()
    model.backward(loss)
    seconds = time.process_time() - start
    return Step(sum(kept.values()) / 2**20, (machine.memory() or 0.0) - before, seconds)


if __name__ == "__main__":
    sys.exit(main(None))
