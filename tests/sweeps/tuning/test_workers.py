"""Several processes on one search: a journal in its folder, and a PostgreSQL server that the test starts."""

import getpass
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_search import prepared, scripted  # noqa: F401  # the stand-in for a training

from fer.sweeps.tuning import search as searching
from fer.sweeps.tuning.workers import Workers

TRIALS = 6
AS_ROOT = os.getuid() == 0  # PostgreSQL refuses to run as root
UNPRIVILEGED = {"user": "nobody", "group": "nogroup", "extra_groups": ()} if AS_ROOT else {}


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, which distributions keep off the path."""
    folders = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@pytest.fixture
def database() -> Iterator[str]:
    """Start a PostgreSQL server on a socket in a folder of its own, and return the URL of its database."""
    pytest.importorskip("psycopg")
    if (folder := programs()) is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    home = Path(tempfile.mkdtemp(prefix="fer", dir="/tmp"))  # a socket's path has 107 characters at most
    home.chmod(0o700)
    if AS_ROOT:
        shutil.chown(home, "nobody")
    data, user = home / "data", getpass.getuser() if not AS_ROOT else "nobody"
    common = {"cwd": home, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **UNPRIVILEGED}
    made = [folder / "initdb", "-D", data, "-U", user, "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, **common)
    options = [f"-c{option}" for option in ("listen_addresses=", f"unix_socket_directories={home}", "fsync=off")]
    server = subprocess.Popen([folder / "postgres", "-D", data, *options], stderr=subprocess.DEVNULL, **common)
    try:
        ready = [folder / "pg_isready", "-q", "-h", home]
        deadline = time.monotonic() + 30
        while subprocess.run(ready, check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.05)
        yield f"postgresql+psycopg://{user}@/postgres?host={home}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(home)


def work(folder: Path, storage: str | None, number: int) -> None:
    """Search in a process of its own, and write which runs began here and what the study says at the end."""
    search = prepared(folder, trials=TRIALS, storage=storage)
    began = []
    search.began = lambda job: began.append(job.folder.name)
    search.run()
    best = max(search.trials(), key=lambda trial: trial.value)
    states = [trial.state for trial in search.trials()]
    (folder.parent / f"ended{number}.json").write_text(json.dumps([began, states, best.number, best.value]))


def searched_by_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str | None) -> None:
    """Let three processes search, kill one within a trial, and compare what the other two have done and found."""
    monkeypatch.setenv("PACE", "0.08")
    monkeypatch.setattr(searching, "LOOK_S", 0.2)
    folder, fork = tmp_path / "search", multiprocessing.get_context("fork")
    folder.mkdir()
    killed = fork.Process(target=work, args=(folder, storage, 0), daemon=True)
    killed.start()
    deadline = time.monotonic() + 30
    while not (folder / "0" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    others = [fork.Process(target=work, args=(folder, storage, number), daemon=True) for number in (1, 2)]
    for process in others:
        process.start()
    killed.kill()
    for process in (killed, *others):
        process.join(60)
    ended = [json.loads((tmp_path / f"ended{number}.json").read_text()) for number in (1, 2)]
    assert [states for _, states, *_ in ended] == [["complete"] * TRIALS] * 2
    assert ended[0][2:] == ended[1][2:]  # the same best
    began = sorted(name for names, *_ in ended for name in names)
    assert began == [str(number) for number in range(TRIALS)]  # trial 0 went on in its folder; none began twice
    assert all(names for names, *_ in ended)
    study = prepared(folder, storage=storage).study
    workers = [trial.user_attrs[searching.WORKER] for trial in study.trials]
    assert (workers[0], set(workers[1:]) <= {0, 1, 2}) == (0, True)
    assert [set(trial.intermediate_values) for trial in study.trials] == [set(range(1, 7))] * TRIALS


@pytest.mark.slow
def test_processes_share_the_journal_of_a_search(tmp_path, monkeypatch):
    searched_by_three(tmp_path, monkeypatch, None)


@pytest.mark.slow
def test_processes_share_a_database(tmp_path, monkeypatch, database):
    searched_by_three(tmp_path, monkeypatch, database)


def test_a_number_is_taken_over_when_its_process_has_ended(tmp_path):
    first, second, third = (Workers(tmp_path) for _ in range(3))
    assert first.alone()
    with first.joined():
        with second.joined():
            assert (first.number, second.number) == (0, 1)
            assert not second.takes(0)
            assert not third.alone()
        assert first.takes(1)
        with third.joined():
            assert third.number == 2
    with third.joined():
        assert third.number == 0


def test_one_process_at_a_time_has_its_turn(tmp_path):
    """A lock belongs to an open file, so that threads with files of their own wait as processes do."""
    entered = threading.Event()

    def enter() -> None:
        with Workers(tmp_path).turn():
            entered.set()

    waiting = threading.Thread(target=enter)
    with Workers(tmp_path).turn():
        waiting.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    waiting.join(10)
