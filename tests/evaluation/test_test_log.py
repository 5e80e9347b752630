"""The record of test evaluations, under several evaluations of one run at the same time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from fer.evaluation import test_log
from fer.evaluation.test_log import FILE, Access
from fer.system.files import read_list


def member(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(run=folder, file=folder / "checkpoints" / "best.ckpt")


def test_evaluations_at_the_same_time_are_all_recorded(tmp_path):
    network = member(tmp_path / "run")
    network.run.mkdir()
    known = test_log.so_far([network])

    def record(number: int) -> int:
        return test_log.record([(network, Access(checkpoint="best.ckpt", command=str(number)))], known)

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(record, range(24)))
    assert sorted(entry["command"] for entry in read_list(network.run / FILE)) == sorted(map(str, range(24)))
    assert sorted(counts) == list(range(1, 25))


def test_what_cannot_be_recorded_is_counted_and_reported(tmp_path, caplog):
    network = member(tmp_path / "run")
    (tmp_path / "run").write_text("a file in place of the folder")
    entry = Access(checkpoint="best.ckpt")
    assert test_log.record([(network, entry)], {network.run: [entry]}) == 2
    assert "could not be recorded" in caplog.text
    assert FILE in caplog.text
