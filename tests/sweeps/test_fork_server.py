"""The fork server: a forked job does what a started one does, and none outlives its sweep."""

import errno
import json
import os
import signal
import socket
import time

import pytest
from conftest import SMALL

from fer.sweeps import jobs
from fer.sweeps.fork_server import ForkServers, Server, servers_for
from fer.sweeps.jobs import Job
from fer.system.files import read_json
from fer.system.slots import Slots

pytestmark = [pytest.mark.slow, pytest.mark.anew]

ENDLESS = [*SMALL, "trainer.max_epochs=100000"]


@pytest.fixture(scope="module")
def servers():
    if not isinstance(servers_for(Slots([{}], "", without_gpu=True)), ForkServers):
        pytest.skip("needs Linux from 5.3 on")
    with ForkServers() as started:
        yield started


@pytest.fixture
def job(servers, tmp_path, monkeypatch, tmp_path_factory):
    """Return a function that starts a job; all tests have one server, since their variables and folder are the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    made = []

    def start(*overrides, environment=None, slot=None):
        monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
        made.append(Job(tmp_path / str(len(made)), overrides, environment or {}))
        made[-1].start(slot, servers)
        return made[-1]

    yield start
    for each in made:
        each.terminate(signal.SIGKILL)
        until(lambda each=each: each.poll() is not None)


def until(holds, seconds=90):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def code_of(job):
    until(lambda: job.poll() is not None)
    return job.code


def log_of(job):
    return (job.folder / "console.log").read_text()


def trains(job):
    job.poll()  # which starts what waited for the imports
    return (job.folder / "checkpoints" / "last.ckpt").exists()


def test_a_forked_job_equals_a_started_one(job, tmp_path):
    forked, started = job(*SMALL, "seed=5"), Job(tmp_path / "started", [*SMALL, "seed=5"], {})
    started.start()
    assert code_of(forked) == code_of(started) == 0
    assert (forked.folder / "predictions.csv").read_bytes() == (started.folder / "predictions.csv").read_bytes()
    assert read_json(forked.folder / "metrics.json")["command"] == read_json(started.folder / "metrics.json")["command"]
    names = [sorted(file.name for file in each.folder.rglob("*")) for each in (forked, started)]
    assert names[0] == names[1]


def test_each_job_has_its_own_log_environment_and_folder(job, tmp_path):
    jobs_ = [job(*SMALL[1:], environment={"FER_DATA": f"missing_{number}"}) for number in range(2)]
    assert [code_of(each) for each in jobs_] == [1, 1]
    for number, each in enumerate(jobs_):
        assert f"missing_{number}" in log_of(each)
        assert len(log_of(each).splitlines()) == 1
        assert not jobs.lives(each.folder)  # the server does not hold its log


def test_a_job_saves_itself_after_a_signal_and_may_be_killed(job):
    saved, killed = job(*ENDLESS), job(*ENDLESS, "seed=1")
    until(lambda: trains(saved) and trains(killed))
    assert jobs.lives(saved.folder)
    saved.terminate(signal.SIGTERM)
    killed.terminate(signal.SIGKILL)
    assert (code_of(saved), code_of(killed)) == (143, -9)
    assert "resume" in log_of(saved)
    resumed = Job(saved.folder, [], {}, resume=True)
    assert resumed._command()[3].startswith("resume=")


def test_a_job_that_waits_for_the_imports_ends_at_once(job):
    waiting = [job(*ENDLESS, slot={"OTHER": "imports"}) for _ in range(2)]
    began = time.monotonic()
    for each in waiting:
        each.terminate(signal.SIGINT)
    assert [code_of(each) for each in waiting] == [130, 130]
    assert time.monotonic() - began < 2
    assert [log_of(each) for each in waiting] == ["", ""]
    assert not any(jobs.lives(each.folder) for each in waiting)


def test_the_end_of_one_job_that_waits_is_not_that_of_another(job):
    ended, other = (job(*SMALL, slot={"ANOTHER": "imports"}) for _ in range(2))
    ended.terminate(signal.SIGTERM)
    assert code_of(ended) == 143
    assert code_of(other) == 0


def test_a_long_command_line_is_taken_whole(job):
    made = job(*SMALL, *[f"hydra.job.name={'a' * 200}"] * 1200)
    assert len(" ".join(made.overrides)) > 250_000  # more than a message can have
    assert code_of(made) == 0


def test_jobs_of_a_killed_server_save_themselves_and_the_next_has_another(job, servers):
    first = job(*ENDLESS)
    until(lambda: trains(first))
    for server in servers._servers:
        os.kill(server._process.pid, signal.SIGKILL)
    assert code_of(first) == 143
    assert "interrupted by SIGTERM" in log_of(first)  # it was waited for
    assert "saved" in first.outcome()
    assert code_of(job(*SMALL)) == 0


def test_libraries_that_cannot_be_imported_fail_each_job_with_the_reason(job, tmp_path):
    (tmp_path / "pytorch_lightning.py").write_text("raise ImportError('no such library')")
    slot = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    for each in [job(*SMALL, slot=slot), job(*SMALL, slot=slot)]:
        assert code_of(each) == 1
        assert "no such library" in jobs.last_words(each.folder)


@pytest.mark.parametrize(("slots", "forks"), [(Slots([{}], "", without_gpu=True), True), (Slots([{}], ""), False)])
def test_only_jobs_without_a_gpu_are_forked(slots, forks):
    with servers_for(slots) as started:
        assert (started is not None) == forks


def test_a_fork_that_fails_is_one_failed_job(tmp_path, monkeypatch):
    def no_memory():
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", no_memory)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    (tmp_path / "request").write_text(json.dumps({"arguments": [], "environment": {}}))
    with ours, theirs, open(tmp_path / "console.log", "wb") as console, open(tmp_path / "request") as request:
        socket.send_fds(ours, [json.dumps({"number": 3}).encode()], [request.fileno(), console.fileno()])
        ours.shutdown(socket.SHUT_WR)
        assert Server(theirs).serve() is None
        assert [json.loads(ours.recv(1000)) for _ in range(2)] == [{}, {"number": 3, "code": 1}]
    assert "Cannot allocate memory" in (tmp_path / "console.log").read_text()
