"""Hundreds of hostile files and folders: none runs anything, and each is one line. ``hostile.py`` makes them."""

import json
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMALL
from hostile import Case, cases

import fer
from fer import best, train, tune
from fer.campaign.plan import Training
from fer.campaign.record import Clock, Network, Record, Request, keep
from fer.config.errors import FerError
from fer.data.load import read_path
from fer.data.readers.images import PictureError, read_grey
from fer.runs import load

LONGEST_S, MOST_GB = 10, 1.0  # of a case; memory of all together beyond what the tests need before


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Return the file that payloads write to, by a module, by Ghostscript and by a folder of configuration as well."""
    folder = tmp_path / "evil"
    file = folder / "canary"
    (folder / "experiment").mkdir(parents=True)
    code = f"open({str(file)!r}, 'a').write('ran')\n"
    (folder / "canary_module.py").write_text(code)
    callback = f"hydra:\n  callbacks:\n    x: {{_target_: builtins.open, file: {file}, mode: a}}\n"
    (folder / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{callback}")
    for name in ("gs", "gswin64c"):
        (folder / name).write_text(f"#!{sys.executable}\n{code}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.syspath_prepend(folder)
    return file


@pytest.fixture
def sound(tmp_path):
    """Return sound folders of a sweep, a search and a campaign; trainings of the first two are refused."""
    sweep, search, campaign = (tmp_path / name for name in ("sweep", "search", "campaign"))
    for folder in (sweep, search, campaign):
        folder.mkdir()
    given = [*SMALL, "optimizer.lr=-1"]
    (sweep / "sweep.json").write_text(json.dumps({"schema": 1, "arguments": given, "jobs": []}))
    stored = {"schema": 1, "arguments": given, "config": {}, "space": {}, "settings": {"seeds": 1}}
    (search / "tune.json").write_text(json.dumps(stored))
    record = Record(Request(0.5, "faces.csv"), "python -m fer.best --hours 0.5", "2026-11-26T17:00:00+00:00")
    record.networks = [
        Network.planned(Training("student_0", "student", ("seed=0",), 12, 60.0, 5.0), ["seed=0"], ["tiny"])
    ]
    keep(record, campaign, Clock(100.0))
    return sweep, search, campaign


def refused(capfd, main: Callable[..., int], *arguments: str) -> str:
    """Return the single line that a command ends with."""
    capfd.readouterr()
    code = main(list(arguments))
    lines = capfd.readouterr().err.splitlines()
    assert (code, len(lines)) == (1, 1), (code, lines)
    return lines[0]


def raised(error: type[Exception], function: Callable[..., object], *arguments: object) -> str:
    """Return the message of the error that a function raises."""
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


def left_out(folder: Path, beside: Path) -> str:
    """Return the reason why a run is left out of a comparison that has another."""
    shutil.copytree(beside, folder.parent / "sound", dirs_exist_ok=True)
    gathered = load.gather([folder.parent])
    shutil.rmtree(folder.parent / "sound")
    assert len(gathered.runs) == 1, "the damaged run is compared"
    (reason,) = gathered.skipped.values()
    return reason


def outcome(case: Case, folder: Path, run: Path, capfd) -> str:
    """Try a hostile folder; return the line that says what is wrong with it."""
    kind = case.kind
    if kind == "resume":
        return refused(capfd, train.main, f"resume={folder}")
    if kind == "sweep":
        return refused(capfd, train.main, "-m", f"sweep.resume={folder}")
    if kind == "tune":
        return refused(capfd, tune.main, f"tune.resume={folder}")
    if kind == "best":
        return refused(capfd, best.main, "--resume", str(folder))
    if kind == "compare":
        return left_out(folder, run)
    if kind in ("load", "share"):
        return raised(FerError, fer.load, folder / ("x.ckpt" if kind == "load" else "x.safetensors"))
    if kind == "picture":
        return raised(PictureError, read_grey, next(folder.iterdir()))
    return raised(FerError, lambda: read_path(folder, image_size=48, on_bad="error", cache=None))


@pytest.fixture
def in_time():
    """Return a function that sets the seconds after which ``TimeoutError`` is raised; 0 is never."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_nothing_runs_and_every_case_is_one_line(trained_once, sound, canary, in_time, tmp_path, capfd):
    pytest.importorskip("optuna")
    listed = cases(trained_once, *sound, canary)
    names = Counter((case.kind, case.name) for case in listed)
    assert len(listed) >= 300
    assert max(names.values()) == 1
    wrong, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, case in enumerate(listed):
        folder = tmp_path / "cases" / str(number)
        folder.mkdir(parents=True)
        case.make(folder)
        in_time(LONGEST_S)
        try:
            line = outcome(case, folder, trained_once, capfd)
            if not line or "\n" in line or "\x1b" in line or len(line) > 1000:
                wrong.append((case.kind, case.name, line[:300]))
        except BaseException as error:
            wrong.append((case.kind, case.name, repr(error)[:300]))
        in_time(0)
        if canary.exists():
            wrong.append((case.kind, case.name, "ran"))
            canary.unlink()
        shutil.rmtree(folder)
    assert not wrong, "\n".join(map(str, wrong))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20 < MOST_GB
