"""Fixtures: small runs on drawn faces through the real entry points."""

import gc
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two test processes share the cores

# a shell ignores SIGINT for background processes, and nohup SIGHUP; children inherit that, but some tests send them
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# 140 drawn faces, 112 of them train: 7 steps of 16 an epoch, a second a run
SMALL = (
    "data=synthetic",
    "data.synthetic_count=140",
    "data.image_size=24",
    "data.batch_size=16",
    "model=mlp",
    "model.hidden=[16]",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "logger=none",
)


def pytest_collection_finish() -> None:
    """Keep the collected tests and the imported libraries out of each later search for garbage."""
    gc.freeze()


@dataclass(frozen=True)
class Ended:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The single line on stderr; more lines fail the test."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test from the user's data, cache and folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER_DATA", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run the process from which those of slow tests are forked."""
    from forked import Template

    started = Template(tmp_path_factory.mktemp("template") / "output.log")
    yield
    started.close()


@pytest.fixture(autouse=True)
def processes_are_forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of slow tests, where Linux can, which saves them the imports; not of tests marked ``anew``."""
    marked = request.node.get_closest_marker
    if marked("slow") and not marked("anew") and hasattr(os, "pidfd_open"):
        from forked import Popen

        request.getfixturevalue("template")
        monkeypatch.setattr(subprocess, "Popen", Popen)


@pytest.fixture(autouse=True, scope="session")
def files_of_conf_are_read_once() -> Iterator[None]:
    """Compose each configuration in a quarter of Hydra's time."""
    from composition import keep_read_files

    with pytest.MonkeyPatch.context() as patch:
        keep_read_files(patch)
        yield


@pytest.fixture(autouse=True)
def no_plugins_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove the registrations of a test's plugins: networks, readers, their entries in Hydra, and modules."""
    from hydra.core.config_store import ConfigStore

    from fer.data.readers import READERS
    from fer.models import MODELS

    readers = dict(READERS._entries)
    networks, modules = dict(MODELS._entries), set(sys.modules)
    yield
    READERS._entries.clear()
    READERS._entries.update(readers)
    MODELS._entries.clear()
    MODELS._entries.update(networks)
    ConfigStore.instance().repo.pop("model", None)  # the library's networks are in files
    for name in set(sys.modules) - modules:
        # only modules of a test's folder: the library and its dependencies may be in a temporary folder too
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path_factory.getbasetemp())):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def sketched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures unrendered, which takes most of an evaluation's time, where a quick test is about something else.

    The figures are composed all the same, and their files are written. Tests marked ``renders`` render them, each
    figure of a report in one at least. So do slow tests and the fixtures that several tests share.
    """
    if any(map(request.node.get_closest_marker, ("slow", "renders"))):
        return
    from matplotlib.figure import Figure
    from PIL import Image

    def savefig(figure: Figure, stream: Any, format: str, **options: Any) -> None:
        width, height = figure.get_size_inches() * 72
        if format == "svg":
            stream.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt"></svg>')
        else:
            Image.new("L", (1, 1)).save(stream, format)

    monkeypatch.setattr(Figure, "savefig", savefig)


def runner(main: Callable[[Sequence[str]], int], capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs a command in this process."""

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        code = main(list(arguments))
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture
def epochs_take(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the duration of epochs, in seconds, for actions that run at intervals."""
    from fer.training.callbacks.history import Stopwatch

    now = [0.0]
    ended = Stopwatch.on_train_epoch_end

    def take(seconds: float) -> None:
        def later(self: Stopwatch, *arguments: Any) -> None:
            ended(self, *arguments)
            now[0] += seconds

        monkeypatch.setattr(Stopwatch, "on_train_epoch_end", later)

    monkeypatch.setattr(
        "fer.training.callbacks.checkpointing.time",
        SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter),
    )
    return take


@pytest.fixture
def train(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs ``fer.train``."""
    from fer.train import main

    return runner(main, capfd)


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs ``fer.evaluate``."""
    from fer.evaluate import main

    return runner(main, capfd)


@pytest.fixture
def scores(evaluate: Callable[..., Ended]) -> Callable[..., Ended]:
    """Return a function that runs ``fer.evaluate`` without its report and card, half of whose time they take."""
    return lambda *arguments: evaluate(*arguments, "--no-report")


@pytest.fixture
def audit(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs ``fer.audit``."""
    from fer.audit import main

    return runner(main, capfd)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished small run that tests share and must not change."""
    from fer.train import main

    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*SMALL, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def small_run(trained_once: Path, tmp_path: Path) -> Path:
    """Return the folder of a finished small run, a copy for one test."""
    return shutil.copytree(trained_once, tmp_path / "run")


def metrics(folder: Path) -> dict[str, Any]:
    """Return a folder's ``metrics.json``."""
    contents: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return contents


def training_commands(markdown: str) -> list[list[str]]:
    """Return the arguments of each ``python -m fer.train`` in a page's blocks of shell commands."""
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", markdown, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("python -m fer.train")]


def settings_of_first_job(arguments: Sequence[str]) -> Any:
    """Return the settings of a command line's run, or of the first job of a sweep's command line.

    Raises:
        FerError: a setting is not valid.
    """
    from fer.config.conf import plain
    from fer.config.hydra import composed, offer_registered
    from fer.config.schema import build
    from fer.config.settings import TrainSettings

    overrides = [text for text in arguments if text != "-m" and not text.startswith("resume=")]
    offer_registered([text for text in overrides if text.startswith("model=")])
    choices = [re.sub(r"^([^=\[]+=[^,\[]+),[^\[]*$", r"\1", text) for text in overrides]
    return build(TrainSettings, plain(composed(choices)))


def in_a_terminal(columns: int, *command: str) -> tuple[int, str]:
    """Return exit code and output of a command in a pseudo-terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=theirs,
        env=os.environ | {"COLUMNS": str(columns), "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    os.close(theirs)
    output = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        output += part
    return process.wait(), output.decode()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Return the shapes of faces for which graphs are made; graphs run without being compiled."""
    import torch

    shapes: list[tuple[int, ...]] = []
    before = torch.nn.Module.compile

    def counted(graph: Any, inputs: Any) -> Any:
        shapes.append(next(tuple(given.shape) for given in inputs if given.ndim == 4 and given.shape[-1] > 4))
        return graph.forward

    def compile(self: torch.nn.Module, **options: Any) -> None:
        before(self, backend=counted, dynamic=options["dynamic"])

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    torch.compiler.reset()
    yield shapes
    torch.compiler.reset()


@pytest.fixture(scope="session")
def another_trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with another seed than ``trained_once``'s, which no test may change."""
    from fer.train import main

    folder = tmp_path_factory.mktemp("trained") / "another"
    assert main([*SMALL, "seed=1", f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def another_run(another_trained_once: Path, tmp_path: Path) -> Path:
    """Return the folder of a run with another seed than ``small_run``'s, of the test's own."""
    return shutil.copytree(another_trained_once, tmp_path / "another")


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that interrupts the next run at a step, as by Ctrl-C."""
    from fer.training.callbacks.history import Stopwatch

    steps: list[int] = []
    before = Stopwatch.on_train_batch_end

    def stopping(self: Stopwatch, trainer: Any, *args: Any) -> None:
        before(self, trainer, *args)
        if steps and trainer.global_step == steps[0]:
            steps.clear()
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Stopwatch, "on_train_batch_end", stopping)
    return steps.append
