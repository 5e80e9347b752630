"""What a sweep shows: what differs, what is best, what time is left."""

import time
from pathlib import Path

import pytest

from fer.sweeps.jobs import Job
from fer.sweeps.status import Scoreboard, failure_table, job_table, varied


def job(folder: Path, *overrides: str, epochs: int = 10) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    return Job(folder, ["data=synthetic", *overrides], {}, epochs=epochs)


def done(one: Job, seconds: float, *accuracies: float) -> Job:
    history(one, *accuracies)
    one.code, one.seconds = 0, seconds
    return one


def history(one: Job, *accuracies: float, pace: float = 2.0) -> None:
    rows = "".join(f"{epoch},{accuracy},{pace}\n" for epoch, accuracy in enumerate(accuracies))
    (one.folder / "history.csv").write_text(f"epoch,accuracy/val,seconds\n{rows}")


def test_only_what_differs_is_shown(tmp_path):
    jobs = [job(tmp_path / str(seed), "model=mlp", f"seed={seed}") for seed in range(2)]
    assert list(varied(jobs).values()) == ["seed=0", "seed=1"]
    jobs = [job(tmp_path / "0", "augment=none"), job(tmp_path / "1", "augment=none", "augment.flip=0.5")]
    assert list(varied(jobs).values()) == ["", "augment.flip=0.5"]


def test_nothing_is_known_before_the_first_epoch(tmp_path):
    jobs = [job(tmp_path / str(number)) for number in range(3)]
    board = Scoreboard(jobs, jobs[1:], 1)
    jobs[0].started = time.time()
    assert board.left(jobs[:1], time.time()) is None


def test_a_running_job_goes_on_at_its_own_pace(tmp_path):
    one = job(tmp_path / "0", epochs=10)
    history(one, 0.1, 0.2, 0.3, pace=5.0)
    one.started = one.progress().at - 25  # 10 s before its first epoch
    board = Scoreboard([one], [], 1)
    assert board.left([one], one.progress().at + 3) == pytest.approx(7 * 5 - 3)
    waiting = job(tmp_path / "1")
    board = Scoreboard([one, waiting], [waiting], 1)
    assert board.left([one], one.progress().at + 3) == pytest.approx(7 * 5 - 3 + 10 + 10 * 5)


def test_what_waits_takes_as_long_as_what_is_most_like_it(tmp_path):
    quick = [done(job(tmp_path / f"q{seed}", "model=mlp", f"seed={seed}"), 10.0) for seed in range(2)]
    slow = done(job(tmp_path / "s0", "model=cnn", "seed=0"), 100.0)
    waiting = [job(tmp_path / "q2", "model=mlp", "seed=2"), job(tmp_path / "s2", "model=cnn", "seed=2")]
    board = Scoreboard([*quick, slow, *waiting], waiting, 1)
    assert board.left([], time.time()) == pytest.approx(110)
    side_by_side = Scoreboard([*quick, slow, *waiting], waiting, 2)
    assert side_by_side.left([], time.time()) == pytest.approx(100)


def test_a_job_that_goes_on_needs_only_the_rest(tmp_path):
    whole, cut = done(job(tmp_path / "0", "seed=0"), 60.0), job(tmp_path / "1", "seed=1")
    history(cut, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert Scoreboard([whole, cut], [cut], 1).left([], time.time()) == pytest.approx(30)


def test_the_live_line_names_counts_time_best_and_those_that_run(tmp_path, monkeypatch):
    jobs = [done(job(tmp_path / "0", "seed=0"), 30.0, 0.5, 0.625), job(tmp_path / "1", "seed=1")]
    jobs += [job(tmp_path / "2", "seed=2"), job(tmp_path / "3", "seed=3")]
    jobs[2].code = -9
    history(jobs[1], 0.25)
    jobs[1].started = time.time()
    board, drawn = Scoreboard(jobs, jobs[3:], 2), []
    monkeypatch.setattr(board.line, "draw", lambda parts, rest: drawn.append([*parts, rest]))
    monkeypatch.setattr("fer.sweeps.status.wide", lambda: False)
    board.draw([jobs[1]])
    counts, left, *others = drawn[0]
    assert counts == "1/4 done, 1 failed"
    assert left.endswith(" left")
    assert others == ["best 62.50 % (#0)", "#1 1/10 25.0 %", "best: seed=0"]
    monkeypatch.setattr("fer.sweeps.status.wide", lambda: True)
    board.draw([jobs[1]])
    assert drawn[1][0].endswith("1/4 done, 1 running, 1 failed")


def test_the_tables_say_what_ended_how_and_what_has_not_begun(tmp_path):
    bad, not_begun = job(tmp_path / "0", "seed=0"), job(tmp_path / "1", "seed=1")
    (bad.folder / "console.log").write_text("much\nout of memory\n")
    bad.end(1)
    names = varied([bad, not_begun])
    lines = job_table([bad, not_begun], names).splitlines()
    assert lines[2].split(maxsplit=2) == ["0", "seed=0", "exit 1: out of memory"]
    assert lines[3].split(maxsplit=2) == ["1", "seed=1", "not started"]
    failed = failure_table([bad], names).splitlines()[2]
    assert "0/console.log" in failed
    assert failed.endswith("exit 1: out of memory")
