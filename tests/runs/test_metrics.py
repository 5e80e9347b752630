"""What comparisons read of a run's metrics, of runs of today and of before."""

import json
from pathlib import Path

from fer.runs.metrics import RunMetrics
from fer.system.records import read

FIXTURE = Path(__file__).parents[1] / "fixtures" / "format_1" / "run" / "metrics.json"
LATER = ("parameters", "train_seconds", "images_per_second", "peak_memory_mb", "hardware", "commit", "finished")


def test_every_number_of_a_leaderboard_is_that_of_the_file():
    stored = json.loads(FIXTURE.read_text())
    metrics = read(RunMetrics, stored)
    for name in ("accuracy", "macro_f1", "ece", "parameters", "train_seconds", "images_per_second", "best_epoch"):
        assert metrics.number(name) == stored[name], name
    hardware = stored["hardware"]
    assert metrics.machine.startswith(f"{hardware['gpu'] or hardware['cpu']}, {hardware['threads']} thread")


def test_a_run_of_before_lacks_its_cost_and_its_machine():
    stored = {key: value for key, value in json.loads(FIXTURE.read_text()).items() if key not in LATER}
    metrics = read(RunMetrics, stored)
    assert [metrics.number(name) for name in LATER[:4]] == [None] * 4
    assert metrics.machine == "an unknown machine"
    assert read(RunMetrics, {**stored, "hardware": {}}).machine == "an unknown machine"
