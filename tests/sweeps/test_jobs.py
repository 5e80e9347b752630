"""Jobs: processes that end in every way there is, side by side, and none of them left behind."""

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pytest

from fer.config.errors import FerError, Interrupted
from fer.sweeps import jobs
from fer.sweeps.jobs import Job
from fer.system.parent import with_parent


@dataclass(eq=False)
class Scripted(Job):
    """A job whose process is a few lines of Python in place of a training."""

    script: str = ""

    def _command(self) -> list[str]:
        return [sys.executable, "-c", textwrap.dedent(self.script)]


# says when it listens to signals, and saves itself as a training does
SAVES = """
    import pathlib, signal, sys, time
    def save(number, frame):
        print("saved", flush=True)
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, save)
    pathlib.Path("{ready}").touch()
    time.sleep(60)
"""


def job(folder: Path, script: str, **more: object) -> Scripted:
    return Scripted(folder, ["seed=1"], {}, "some identity", script=script, **more)  # type: ignore[arg-type]


def run(waiting: list[Scripted], slots: int = 1, watch: jobs.Watch | None = None) -> None:
    jobs.run(jobs.in_order(deque(waiting)), [{"SLOT": str(slot)} for slot in range(slots)], watch or jobs.Watch())


def until(holds, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("print('one'); print('too bad'); raise SystemExit(3)", 3, "exit 3: too bad"),
        ("import os; os.kill(os.getpid(), 9)", -9, "killed by signal 9: printed nothing"),
        ("raise MemoryError('no more')", 1, "exit 1: MemoryError: no more"),
        ("print('bye'); raise SystemExit(0)", 1, "ended without a result: bye"),
        ("raise SystemExit(143)", 143, "interrupted, before its first checkpoint"),
    ],
)
def test_every_end_is_recorded_and_reported(tmp_path, script, code, words):
    one = job(tmp_path / "a, b=c", script)
    run([one])
    assert one.outcome() == words
    kept = json.loads((one.folder / "job.json").read_text())
    assert kept == {"overrides": ["seed=1"], "identity": "some identity", "exit_code": code, "seconds": kept["seconds"]}


def test_a_job_that_ended_well_reports_its_val_accuracy(tmp_path):
    for name in ("history.csv", "predictions.csv"):
        (tmp_path / name).touch()
    one = job(tmp_path, f"open({str(tmp_path / 'metrics.json')!r}, 'w').write('{{\"accuracy\": 0.5}}')")
    run([one])
    assert one.outcome() == "50.00 %"


def test_jobs_run_side_by_side_each_in_a_slot(tmp_path):
    script = """
        import os, time
        begin = time.time()
        time.sleep(0.6)
        print(os.environ["SLOT"], begin, time.time())
    """
    scripted = [job(tmp_path / str(number), script) for number in range(5)]
    run(scripted, slots=2)
    spans = [(one.folder / "console.log").read_text().split() for one in scripted]
    assert {slot for slot, _, _ in spans} == {"0", "1"}
    moments = [float(begin) for _, begin, _ in spans]
    at_once = [sum(float(begin) <= moment < float(end) for _, begin, end in spans) for moment in moments]
    assert max(at_once) == 2
    for slot in "01":  # never two in one slot
        own = sorted((float(begin), float(end)) for at, begin, end in spans if at == slot)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(own))


def test_whatever_happens_to_one_the_others_run(tmp_path):
    (tmp_path / "a file").touch()
    nowhere = job(tmp_path / "a file" / "0", "print('never')")
    killed = job(tmp_path / "1", "import os; os.kill(os.getpid(), 9)")
    fine = job(tmp_path / "2", "raise SystemExit(5)")
    run([nowhere, killed, fine])
    assert nowhere.code == 1
    assert "Not a directory" in nowhere.outcome()
    assert (killed.code, fine.code) == (-9, 5)


def test_a_job_may_be_ended_by_whoever_watches(tmp_path):
    ready = tmp_path / "ready"

    class Pruning(jobs.Watch):
        def polled(self, running):
            if ready.exists():
                running[0].terminate()

    one = job(tmp_path / "0", SAVES.format(ready=ready))
    run([one], watch=Pruning())
    assert one.code == 143
    assert (tmp_path / "0" / "console.log").read_text() == "saved\n"


def test_a_job_that_does_not_listen_yet_counts_as_interrupted(tmp_path):
    one = job(tmp_path / "0", "import time; time.sleep(60)")
    one.start()
    one.terminate(signal.SIGTERM)
    until(lambda: one.poll() is not None)
    assert one.code == 143


class Signalled(jobs.Watch):
    """Sends signals to this process once files are there."""

    def __init__(self, *signals: tuple[Path, int]) -> None:
        self.signals, self.ended_at = list(signals), []

    def polled(self, running):
        if self.signals and self.signals[0][0].exists():
            os.kill(os.getpid(), self.signals.pop(0)[1])

    def stopping(self, running, number):
        self.ended_at.append((len(running), number))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_no_next_job_begins(tmp_path, number):
    before = signal.getsignal(number)
    scripted = [job(tmp_path / str(n), SAVES.format(ready=tmp_path / f"ready{n}")) for n in range(3)]
    watch = _after(tmp_path / "ready0", Signalled((tmp_path / "ready1", number)))
    with pytest.raises(Interrupted, match=number.name) as raised:
        run(scripted, slots=2, watch=watch)
    assert raised.value.code == 128 + number
    passed = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
    assert [one.code for one in scripted] == [passed, passed, None]
    assert watch.ended_at == [(2, number)]
    assert not scripted[2].folder.exists()
    assert signal.getsignal(number) == before


def _after(file: Path, watch: Signalled) -> Signalled:
    """Let a watch look only once ``file`` is there."""
    polled = watch.polled
    watch.polled = lambda running: polled(running) if file.exists() else None  # type: ignore[method-assign]
    return watch


def test_a_second_signal_kills_what_does_not_end(tmp_path):
    deaf = """
        import pathlib, signal, time
        signal.signal(signal.SIGINT, lambda number, frame: pathlib.Path("{heard}").touch())
        pathlib.Path("{ready}").touch()
        while True:
            time.sleep(1)
    """
    ready, heard = tmp_path / "ready", tmp_path / "heard"
    one = job(tmp_path / "0", deaf.format(ready=ready, heard=heard))
    with pytest.raises(Interrupted):
        run([one], watch=Signalled((ready, signal.SIGINT), (heard, signal.SIGINT)))
    assert one.code == -9


def test_a_fault_of_the_watch_leaves_no_job_behind(tmp_path):
    class Faulty(jobs.Watch):
        def polled(self, running):
            raise RuntimeError("a bug")

    one = job(tmp_path / "0", "import time; time.sleep(60)")
    with pytest.raises(RuntimeError, match="a bug"):
        run([one], watch=Faulty())
    until(lambda: one.poll() is not None)


@pytest.mark.skipif(sys.platform != "linux", reason="others do not end a process with its parent")
def test_jobs_end_with_a_sweep_that_is_killed(tmp_path):
    starting = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_jobs import SAVES, job, run
run([job(Path({str(tmp_path / "0")!r}), SAVES.format(ready={str(tmp_path / "ready")!r}))])
"""
    sweep = subprocess.Popen([sys.executable, "-c", starting])
    until((tmp_path / "ready").exists, 60)
    assert jobs.lives(tmp_path / "0")
    sweep.kill()
    sweep.wait()
    until(lambda: not jobs.lives(tmp_path / "0"))
    assert (tmp_path / "0" / "console.log").read_text() == "saved\n"
    assert jobs.recorded(tmp_path / "0").exit_code is None  # nobody was there to note it
    assert jobs.outcome(tmp_path / "0", None) == "ended with the process that ran it"


@pytest.mark.skipif(sys.platform != "linux", reason="others do not end a process with its parent")
def test_a_job_whose_sweep_has_gone_before_it_began_does_not_begin(tmp_path):
    command = with_parent([sys.executable, "-c", f"open({str(tmp_path / 'begun')!r}, 'w')"])
    index = command.index(str(os.getpid()))
    assert subprocess.run(command).returncode == 0
    (tmp_path / "begun").unlink()
    assert subprocess.run([*command[:index], "1", *command[index + 1 :]]).returncode == 143
    assert not (tmp_path / "begun").exists()


def test_two_processes_do_not_write_one_folder(tmp_path):
    first = job(tmp_path / "0", "import time; time.sleep(60)")
    first.start()
    second = job(tmp_path / "0", "print('never')", resume=True)
    with pytest.raises(BlockingIOError, match="still writes it"):
        second.start()
    first.terminate(signal.SIGKILL)
    until(lambda: first.poll() is not None)
    assert not jobs.lives(tmp_path / "0")


def test_progress_is_read_from_the_history(tmp_path):
    one = job(tmp_path, "")
    assert one.progress() is None
    file = tmp_path / "history.csv"
    file.write_text("epoch,accuracy/val,seconds\n0,0.5,2\n1,0.25,4\n")
    assert one.progress() == jobs.Progress(2, 0.25, 0.5, 3.0, file.stat().st_mtime)
    file.write_text("epoch,accur")  # a reader may come at any time
    os.utime(file, (1, 1))
    assert one.progress().epochs == 2


def test_a_resumed_job_appends_and_counts_the_time_before(tmp_path):
    (tmp_path / "console.log").write_text("before\n")
    (tmp_path / "job.json").write_text(json.dumps({"exit_code": 143, "seconds": 100.0}))
    one = job(tmp_path, "print('after'); raise SystemExit(1)", resume=True)
    run([one])
    assert (tmp_path / "console.log").read_text() == "before\nafter\n"
    assert one.seconds > 100


def test_the_command_names_the_folder_whatever_it_is_called(tmp_path):
    from fer.config.conf import unquoted

    command = Job(tmp_path / "a, b=c 'd'", ["seed=1"], {}, more=["hydra.searchpath=[x]"])._command()
    assert command[3:5] == ["seed=1", "hydra.searchpath=[x]"]
    assert unquoted(command[5].removeprefix("hydra.run.dir=")) == str(tmp_path / "a, b=c 'd'")
    command = Job(tmp_path, ["seed=1"], {}, resume=True)._command()
    assert command[3:] == [f"resume='{tmp_path}'"]


def test_data_are_found_once_and_never_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    with pytest.raises(FerError, match="no data"):
        jobs.environment(None)
    monkeypatch.setenv("FER_DATA", str(tmp_path))
    assert jobs.environment(None) == {"FER_DATA": str(tmp_path)}
    assert jobs.environment("synthetic") == {}
