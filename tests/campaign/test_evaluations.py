"""A campaign's evaluations: side by side, whatever happens to one of the processes."""

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import metrics

from fer.campaign import evaluations as evaluations_module
from fer.campaign.evaluations import Evaluation, Evaluations

SLOTS = [{"OMP_NUM_THREADS": "1"}]


@pytest.fixture(scope="module")  # a process of it takes seconds to start
def evaluations():
    with Evaluations(SLOTS, on_gpu=False) as opened:
        yield opened


@pytest.mark.slow  # starts a process
def test_what_fails_stops_nothing_and_what_is_there_is_not_done_again(small_run, tmp_path, evaluations):
    said = []
    good, bad = Evaluation("good", small_run, "val", "none"), Evaluation("bad", tmp_path / "missing", "val", "none")
    failed = evaluations.run([bad, good], 120, lambda one, reason: said.append((one.name, reason)))
    assert list(failed) == [bad]
    assert "missing" in failed[bad]
    assert said == [("bad", failed[bad])]
    assert metrics(good.folder)["split"] == "val"
    written = (good.folder / "metrics.json").stat().st_mtime_ns
    assert evaluations.run([good], 120, lambda *_: None) == {}
    assert (good.folder / "metrics.json").stat().st_mtime_ns == written


@pytest.mark.slow  # starts a process twice
def test_a_process_that_died_and_a_cut_off_evaluation_are_made_good(small_run, evaluations):
    one = Evaluation("one", small_run, "val", "none")
    assert evaluations.run([one], 120, lambda *_: None) == {}
    (process,) = evaluations._pool._processes
    os.kill(process, signal.SIGKILL)
    time.sleep(0.5)
    (one.folder / "metrics.json").unlink()
    assert evaluations.run([one], 120, lambda *_: None) == {}
    assert metrics(one.folder)["n"]
    assert not (small_run / "evaluations" / "val_2").exists()


def test_a_short_first_evaluation_leaves_all_processes_for_the_next(small_run, monkeypatch):
    class Pool(ThreadPoolExecutor):
        _processes: dict = {}

        def __init__(self, processes, *arguments):
            super().__init__(processes)

    monkeypatch.setattr(evaluations_module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(evaluations_module, "_evaluate", lambda evaluation, on_gpu: None)
    with Evaluations([{}] * 3, on_gpu=False) as opened:
        opened.run([Evaluation("one", small_run / "absent", "val", "none")], 5, lambda *_: None)
        assert opened._pool._max_workers == 3


def test_what_is_not_done_in_time_is_given_up(small_run):
    shutil.rmtree(small_run / "evaluations", ignore_errors=True)
    one = Evaluation("one", small_run, "val", "none")
    with Evaluations(SLOTS, on_gpu=False) as starting:  # its process is not there yet
        (reason,) = starting.run([one], 0.2, lambda *_: None).values()
    assert "no time" in reason
