"""``python -m fer.train --info models [key=value]``: every registered network, what it costs, and how fast it is here.

Networks of ``plugins=[...]`` are listed too. A network has its arguments' defaults; the one that ``model=`` names has
the arguments that are given (``model=cnn model.depth=2``). ``data.image_size=``, ``trainer.threads=`` and
``trainer.accelerator=`` hold for all.
"""

import time
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from statistics import median
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fer.config.errors import FerError
from fer.config.schema import REQUIRED, keyword_parameters
from fer.config.settings import Section, TrainSettings
from fer.models import MODELS, EmotionClassifier, create
from fer.system import machine
from fer.system.text import text_table
from fer.training.setup import check_output

BATCHES = (1, 128)  # faces at a time: one waits for its answer, or many are worked through
WARM_UP = 3  # passes that do not count, fewer of a slow network: the first ones choose kernels and fill the allocator
LEAST, SECONDS = 3, 0.5  # passes to take the median of: as many as fit into the time, and no fewer than so many


@dataclass(frozen=True)
class Entry:
    """What is known of one network.

    Args:
        name: under which it is registered.
        purpose: the first line of its docstring.
        parameters: their number.
        multiply_adds: of one face, see ``multiply_adds``.
        times: seconds a face, by device and batch size.
        note: why nothing more is known; empty if all is.
    """

    name: str
    purpose: str
    parameters: int = 0
    multiply_adds: int = 0
    times: dict[tuple[str, int], float] = field(default_factory=dict)
    note: str = ""


def listing(settings: TrainSettings) -> str:
    """Return the table of all registered networks, and what its figures mean.

    Raises:
        FerError: a GPU is demanded and there is none.
    """
    machine.prepare(settings.trainer)
    devices = ["cpu", "cuda"] if machine.uses_gpu(settings.trainer) else ["cpu"]
    entries = [entry(name, settings, devices) for name in MODELS.names()]
    notes = "".join(f"{known.name}: {known.note}\n" for known in entries if known.note)
    return f"{table(entries, devices)}\n{notes}\n{legend(settings.data.image_size, devices)}"


def entry(name: str, settings: TrainSettings, devices: Sequence[str]) -> Entry:
    """Return what is known of a network; one that cannot be built or run is noted, and stops nothing."""
    network = MODELS.get(name)
    purpose = (network.__doc__ or "").strip().partition("\n")[0]
    section = settings.model if settings.model.get("name") == name else {"name": name}
    missing = _missing(network, section)
    if missing:
        wanted = " ".join(f"model.{argument}=" for argument in missing)
        return Entry(name, purpose, note=f"needs arguments: model={name} {wanted}")
    try:
        return measured(section, settings.data.image_size, devices, purpose)
    except Exception as error:  # a plugin is the user's code, and one that fails must not hide the others
        kind = "" if isinstance(error, FerError) else f"{type(error).__name__}: "
        problem = " ".join(str(error).split()).removeprefix(f"model={name}: ")
        return Entry(name, purpose, note=kind + problem[:200])


def _missing(network: type[EmotionClassifier], section: Section) -> list[str]:
    """Return the arguments without a default that a section does not give."""
    given = {argument for argument, value in section.items() if value != REQUIRED}
    required = {name for name, (_, default) in keyword_parameters(network).items() if default is MISSING}
    return sorted(required - given)


def measured(section: Section, image_size: int, devices: Sequence[str], purpose: str) -> Entry:
    """Return the figures of the network that ``section`` names.

    Raises:
        FerError: its arguments do not fit, or it cannot take the faces.
    """
    model = create(section, image_size=image_size)
    check_output(model, model.input_size)
    return Entry(
        section["name"],
        purpose,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=multiply_adds(model),
        times={(device, batch): seconds_a_face(model, device, batch) for device in devices for batch in BATCHES},
    )


@torch.no_grad()
def multiply_adds(model: EmotionClassifier) -> int:
    """Return the multiply-adds of one face: those of convolutions, matrix products and attention, nothing else.

    torch counts floating-point operations, two for a multiply-add. Attention's fused kernels would not be counted, that
    for inference in no release and those of a CPU before torch 2.15, and are turned off.
    """
    faces = torch.zeros(1, 1, model.image_size, model.image_size)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model.eval()(faces)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def seconds_a_face(model: EmotionClassifier, device: str, batch: int) -> float:
    """Return the median time of a forward pass over ``batch`` faces, divided by their number.

    As in an evaluation: evaluation mode, full precision, channels innermost, from uint8 faces on the device. The GPU
    is waited for, and the first passes do not count.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()
    faces = torch.randint(256, (batch, 1, model.image_size, model.image_size), dtype=torch.uint8, device=device)

    def timed() -> float:
        start = _now(device)
        model(faces)
        return _now(device) - start

    for _ in range(WARM_UP):
        if timed() > SECONDS:
            break
    times: list[float] = []
    while len(times) < LEAST or sum(times) < SECONDS:
        times.append(timed())
    return median(times) / batch


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def table(entries: Sequence[Entry], devices: Sequence[str]) -> str:
    """Return a row a network."""
    columns = [(device, batch) for device in devices for batch in BATCHES]
    heads = [f"{'GPU' if device == 'cuda' else 'CPU'}, batch {batch}" for device, batch in columns]
    widths = [max(len(head), 9) for head in heads]
    rows = [
        (
            known.name,
            *(f"{text:>{width}}" for text, width in zip(_figures(known, columns), (11, 13, *widths), strict=True)),
            known.purpose,
        )
        for known in entries
    ]
    aligned = [f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)]
    return text_table(("name", f"{'parameters':>11}", "multiply-adds", *aligned, "what it is"), rows)


def _figures(known: Entry, columns: Sequence[tuple[str, int]]) -> list[str]:
    if known.note:
        return ["-"] * (2 + len(columns))
    counted = [f"{known.parameters:,}", f"{known.multiply_adds / 1e6:,.2f} M"]
    return counted + [duration(known.times[column]) for column in columns]


def duration(seconds: float) -> str:
    """Return a short time with three digits: "83.1 µs", "1.23 ms", "2.05 s"."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")  # "2.20" and "355", where "#" leaves "355."


def legend(image_size: int, devices: Sequence[str]) -> str:
    """Return what the table's figures mean and where they were measured."""
    here: dict[str, Any] = machine.hardware()
    threads = f"{here['threads']} thread{'' if here['threads'] == 1 else 's'}"
    places = [f"CPU: {here['cpu']}, {threads} of {here['cores']} cores"]
    places += [f"GPU: {here['gpu']}"] if "cuda" in devices else []
    return "\n".join(
        [
            f"multiply-adds: of one face of {image_size}x{image_size} pixels; what torch.utils.flop_counter counts,",
            "  halved: convolutions, matrix products and attention",
            "times: a face, here and now; the median of forward passes over so many faces at a time, in full precision",
            *places,
        ]
    )
