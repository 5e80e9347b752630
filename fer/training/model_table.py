"""``python -m fer.train --info models [key=value]``: a table of all registered networks.

It states their cost and their speed on this machine. Networks of ``plugins=[...]`` are listed too. A network has its
default arguments; the network of ``model=`` has the arguments of the command line (``model=cnn model.depth=2``).
``data.image_size=``, ``trainer.threads=`` and ``trainer.accelerator=`` apply to all.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, field

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fer.config.errors import FerError
from fer.config.plugins import import_plugins
from fer.config.schema import REQUIRED, keyword_parameters
from fer.config.settings import Section, TrainSettings
from fer.models import MODELS, EmotionClassifier, create
from fer.models.output_check import check_output
from fer.system import machine
from fer.system.text import plural

BATCHES = (1, 128)  # batch sizes: a single face for the latency, many for the throughput
WARM_UP = 3  # first passes, not timed, fewer of a slow network: they choose kernels and fill the allocator
LEAST, SECONDS = 2, 0.5  # passes: as many as fit into the seconds, and at least this number
BUSY = 0.5  # load of the machine for each core, from which times are upper bounds
NAME, PARAMETERS, MULTIPLY_ADDS, TIME = 14, 11, 13, 9  # least widths of the columns


@dataclass(frozen=True)
class Entry:
    """The row of one network.

    Args:
        name: registered name.
        purpose: first line of its docstring.
        parameters: number of parameters.
        multiply_adds: multiply-adds of one face, see ``multiply_adds``.
        times: (device, batch size) -> seconds a face.
        note: reason for missing values; empty if there are none.
    """

    name: str
    purpose: str
    parameters: int = 0
    multiply_adds: int = 0
    times: dict[tuple[str, int], float] = field(default_factory=dict)
    note: str = ""


def print_table(settings: TrainSettings) -> None:
    """Print the table of all networks, those of plugins too.

    Raises:
        FerError: ``trainer.accelerator=gpu`` without a GPU.
    """
    import_plugins(settings.plugins)
    for line in listing(settings):
        print(line, flush=True)


def listing(settings: TrainSettings) -> Iterator[str]:
    """Give the lines of the table of all registered networks, each as soon as it is measured, then notes and a legend.

    Raises:
        FerError: ``trainer.accelerator=gpu`` without a GPU.
    """
    load = os.getloadavg()[0]  # before this process adds to it
    machine.prepare(settings.trainer)
    devices = ["cpu", "cuda"] if machine.uses_gpu(settings.trainer) else ["cpu"]
    columns = Columns(MODELS.names(), devices)
    yield from columns.head()
    notes = []
    for name in MODELS.names():
        entry = entry_of(name, settings, devices)
        yield columns.row(entry)
        notes += [f"{entry.name}: {entry.note}"] if entry.note else []
    yield from [*notes, "", *legend(settings.data.image_size, devices, load)]


def entry_of(name: str, settings: TrainSettings, devices: Sequence[str]) -> Entry:
    """Return a network's row; a network that cannot be built or run gets a note in place of values."""
    network = MODELS.get(name)
    purpose = (network.__doc__ or "").strip().partition("\n")[0]
    section = settings.model if settings.model.get("name") == name else {"name": name}
    missing = _missing(network, section)
    if missing:
        required = " ".join(f"model.{argument}=" for argument in missing)
        return Entry(name, purpose, note=f"needs arguments: model={name} {required}")
    try:
        return measured(section, settings.data.image_size, devices, purpose)
    except Exception as error:  # code of a plugin: its failure must not hide the other networks
        kind = "" if isinstance(error, FerError) else f"{type(error).__name__}: "
        problem = " ".join(str(error).split()).removeprefix(f"model={name}: ")
        return Entry(name, purpose, note=kind + problem[:200])


def _missing(network: type[EmotionClassifier], section: Section) -> list[str]:
    """Return the required arguments that a section lacks."""
    given = {argument for argument, value in section.items() if value != REQUIRED}
    required = {name for name, (_, default) in keyword_parameters(network).items() if default is MISSING}
    return sorted(required - given)


def measured(section: Section, image_size: int, devices: Sequence[str], purpose: str) -> Entry:
    """Return the row of the network that ``section`` names, with its cost and times.

    Raises:
        FerError: an argument is not valid, or the network cannot take the faces.
    """
    model = create(section, image_size=image_size)
    check_output(model, model.input_size)
    return Entry(
        section["name"],
        purpose,
        parameters=model.parameter_count,
        multiply_adds=multiply_adds(model),
        times={(device, batch): seconds_a_face(model, device, batch) for device in devices for batch in BATCHES},
    )


@torch.no_grad()
def multiply_adds(model: EmotionClassifier) -> int:
    """Return the multiply-adds of one face in convolutions, matrix products and attention.

    torch counts floating-point operations, two for a multiply-add. It does not count attention's fused kernels, so they
    are turned off. It counts the one for inference in no release, and those of a CPU only from torch 2.15 on.
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
    """Return the seconds of the fastest forward pass over ``batch`` faces, divided by their number.

    The fastest, since other work on the machine can only add time. The conditions are those of an evaluation:
    evaluation mode, full precision, channels innermost, uint8 faces on the device. The time includes the GPU's work;
    the first passes are not timed.
    """
    model = model.to(device).to(memory_format=torch.channels_last).eval()
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
    return min(times) / batch


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Columns:
    """Lays out the table before its values are known.

    Args:
        names: of the networks.
        devices: that are measured.
    """

    def __init__(self, names: Sequence[str], devices: Sequence[str]) -> None:
        self.measured = [(device, batch) for device in devices for batch in BATCHES]
        times = [f"{'GPU' if device == 'cuda' else 'CPU'}, batch {batch}" for device, batch in self.measured]
        self.heads = ("parameters", "multiply-adds", *times)
        self.widths = [PARAMETERS, MULTIPLY_ADDS, *(max(len(head), TIME) for head in times)]
        self.name = max([NAME, *map(len, names)])

    def head(self) -> list[str]:
        """Return the heads and a line under them."""
        heads = self._line("name", self.heads, "what it is")
        return [heads, "-" * len(heads)]

    def row(self, entry: Entry) -> str:
        """Return the row of a network."""
        return self._line(entry.name, _values(entry, self.measured), entry.purpose)

    def _line(self, name: str, values: Sequence[str], purpose: str) -> str:
        aligned = [f"{text:>{width}}" for text, width in zip(values, self.widths, strict=True)]
        return "  ".join([f"{name:<{self.name}}", *aligned, purpose]).rstrip()


def _values(entry: Entry, columns: Sequence[tuple[str, int]]) -> list[str]:
    if entry.note:
        return ["-"] * (2 + len(columns))
    counts = [f"{entry.parameters:,}", f"{entry.multiply_adds / 1e6:,.2f} M"]
    return counts + [duration(entry.times[column]) for column in columns]


def duration(seconds: float) -> str:
    """Return a duration with three digits: "83.1 µs", "1.23 ms", "2.05 s"."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")  # "2.20" and "355", where "#" leaves "355."


def legend(image_size: int, devices: Sequence[str], load: float) -> list[str]:
    """Return the definitions of the table's values, and the hardware on which they were measured.

    Args:
        image_size: side of a face.
        devices: that were measured.
        load: of the machine when the measurement began, in processes.
    """
    hardware = machine.hardware()
    measured_on = [f"CPU: {hardware.cpu}, {plural(hardware.threads or 1, 'thread')} of {hardware.cores} cores"]
    measured_on += [f"GPU: {hardware.gpu}"] if "cuda" in devices else []
    if load > BUSY * (hardware.cores or 1):
        measured_on.append(f"other programs were running (load {load:.1f}): the CPU's times are upper bounds")
    return [
        f"multiply-adds: for one face of {image_size}x{image_size} pixels; half the count of torch's",
        "  FlopCounterMode, which covers convolutions, matrix products and attention",
        "times: for one face, measured now on this machine: the fastest forward pass in full precision",
        *measured_on,
    ]
