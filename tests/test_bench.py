"""``python -m fer.bench``: contestants that take turns, the evaluation of their times, and the report."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fer.bench import main
from fer.benchmarks import growth, margins, peers, tables, training, watching
from fer.benchmarks.contestants import Imports, Workload, command_line, waits
from fer.benchmarks.growth import Series, repeated
from fer.benchmarks.measurement import at_least, at_most
from fer.benchmarks.training import interleaved, ratios, waits_of
from fer.config.errors import FerError
from fer.data.crop import Box, Crop
from fer.data.labels import EMOTIONS
from fer.data.readers import csv_file


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A table of 400 drawn faces."""
    monkeypatch.setattr(tables, "ROWS", 400)
    return tables.drawn_table(tmp_path / "fer2013.csv")


def test_a_bound_holds_or_not():
    assert at_least("speed", 2.0, "times", 2).ok
    assert not at_least("speed", 1.9, "times", 2).ok
    assert at_most("time", 0.7, "ms", 0.7).ok
    assert not at_most("time", 0.8, "ms", 0.7).ok


def test_ratios_are_taken_round_by_round():
    assert ratios([{"seconds": 4.0}, {"seconds": 9.0}], [{"seconds": 2.0}, {"seconds": 3.0}], "seconds") == [2.0, 3.0]


@pytest.mark.parametrize(("values", "ok"), [((1.0, 4.0, 16.0), True), ((1.0, 4.0, 20.0), False), ((1, 4, 8), True)])
def test_growth_is_compared_with_a_straight_line(values, ok):
    *values_measured, last = Series("reading", "rows", (100, 400, 1600), values, "s", linear=True).measurements()
    assert [measurement.name for measurement in values_measured] == [
        "reading, 100 rows",
        "reading, 400 rows",
        "reading, 1,600 rows",
    ]
    assert last.value == pytest.approx(values[-1] / 16)
    assert last.ok is ok
    assert [f.ok for f in Series("speed", "threads", (1, 2), (5, 9), "images/s").measurements()] == [None, None]


def test_a_table_is_repeated_row_by_row(drawn, tmp_path):
    once, thrice = csv_file.read(drawn), csv_file.read(repeated(drawn, 3, tmp_path / "3"))
    assert len(thrice) == 3 * len(once) == 1200
    assert (thrice.images[800:] == once.images).all()
    assert (thrice.official[400:800] == once.official).all()


def test_what_was_not_measured_is_no_part_and_drawn_faces_are_said_to_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 40)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fer.bench.augmenting", lambda: [at_most("time", 0.5, "ms", 0.7)])
    assert main(["peers", "augmenting", "--out", "out"]) == 0
    entries = {entry["name"]: entry["value"] for entry in json.loads((tmp_path / "out" / "latest.json").read_text())}
    assert entries["parts"] == "augmenting"
    assert entries["data"] == "40 drawn faces in FER2013's layout"


def test_imports_within_imports_count_once(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    imports = Imports()

    def inner():
        return importlib.import_module("json")

    outer = imports.timed(inner)
    monkeypatch.setattr(importlib, "import_module", imports.timed(importlib.import_module))
    assert outer() is json
    assert imports.seconds == 2  # from the outer's start to its end, the inner's own start between


def test_waits_are_counted_among_other_events():
    calm = ["aten::conv2d", "cudaLaunchKernel", "Memcpy HtoD (Pinned -> Device)", "cudaMemcpyAsync", "aten::to"]
    assert waits(calm) == 0
    assert waits([*calm, "cudaStreamSynchronize", "Memcpy DtoH (Device -> Pageable)", "cudaDeviceSynchronize"]) == 3


@pytest.mark.parametrize("multiplies", [True, False, None])
def test_fer_train_is_measured_in_bf16_where_the_processor_multiplies_it(multiplies, monkeypatch):
    seconds = {"plain": 9.0, "bare": 4.0, "ours": 4.5, "bf16": 3.0}
    compared = {}

    def measured(contestants, rounds):
        compared.update(contestants)
        return {
            label: [{"seconds": seconds[label], "processor": 1.0, "images": 9, "memory": 0.0}] for label in contestants
        }

    monkeypatch.setattr("fer.system.machine.multiplies_bf16", lambda: multiplies)
    monkeypatch.setattr(training, "interleaved", measured)
    by_name = {measurement.name: measurement for measurement in training.side_by_side(Path("fer2013.csv"), 1, 1, None)}
    assert not by_name["plain loop's time / ours, by the clock"].ok  # twice as fast, and three times is the target
    half = by_name.get("plain loop's time / ours in bf16, by the clock")
    assert (half is not None) == bool(multiplies) == ("bf16" in compared)
    if half is not None:
        assert (half.value, half.ok) == (3.0, True)
        name, order = compared["bf16"]
        assert name == "ours"
        assert "trainer.precision=bf16" in command_line(order, 1)


@pytest.mark.slow
def test_steps_do_not_wait(drawn):
    """A CPU never waits: the test covers the profile and the count of the steps."""
    workload = Workload(str(drawn), "", batch_size=32, model="mlp", arguments={"hidden": [8]}, cache="null")
    waits = waits_of(workload)
    assert waits.name.startswith("waits of the host in ")
    assert waits.value == 0
    assert waits.ok


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["reading", "flying"], "flying: no part of the bench; use reading, augmenting"),
        (["--data", "nowhere.csv", "reading"], "nowhere.csv: no such file"),
        (["--rounds", "0", "overhead"], "--rounds 0: expected at least 1"),
        (["--rounds", "2", "reading"], "--rounds 2: changes peers"),
        (["--steps", "4", "watching", "overhead"], "--steps 4: changes training alone"),
        (["--python", "nowhere"], "--python nowhere: expected an interpreter"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "ROWS", 40)
    assert main(arguments) == 1
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_all_three_loops_train_the_same_faces(drawn):
    workload = Workload(str(drawn), "", model="mlp", arguments={"hidden": [8]})
    epochs = interleaved({name: (name, workload) for name in ("plain", "bare", "ours")}, rounds=2)
    faces = int((csv_file.read(drawn).official == 0).sum())
    for turns in epochs.values():
        assert [turn["images"] for turn in turns] == [faces, faces]
        assert all(0 < turn["trained"] < turn["seconds"] for turn in turns)
        assert turns[-1]["memory"] > 1


@pytest.mark.slow
def test_a_contestant_that_fails_says_why(drawn):
    with pytest.raises(FerError, match=r"the bare training of the bench ended: .*no_such_net"):
        interleaved({"bare": ("bare", Workload(str(drawn), "", model="no_such_net"))}, rounds=1)


@pytest.mark.slow
def test_the_parts_are_measured_and_reported(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(growth, "SIZES", (1, 2))
    monkeypatch.setattr(growth, "BATCHES", (32, 64))
    monkeypatch.setattr(growth, "FACES", 64)
    out = tmp_path / "out" / "bench.json"
    code = main(["starting", "overhead", "growth", "--data", str(drawn), "--out", str(out), "--rounds", "1"])
    entries = json.loads(out.read_text())
    named = {entry["name"]: entry for entry in entries}
    bounds = [entry["ok"] for entry in entries if entry["target"]]
    assert code == (0 if all(bounds) else 1)
    assert len(bounds) == 7
    assert named["start to the first step"]["value"] > named["of it neither imports nor that step"]["value"] > 0
    assert named["reading fer2013.csv, 800 rows"]["value"] > 0
    assert named["data"]["value"] == str(drawn)
    assert "torch" in named["versions"]["value"]
    assert (out.parent / "growth.png").stat().st_size > 10_000
    assert "start to the first step" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.anew
def test_prediction_is_measured_beside_the_network_and_opencv(drawn, tmp_path, monkeypatch):
    for name in ("predicting.ROUNDS", "predicting.STARTS", "watching.ROUNDS"):
        monkeypatch.setattr(f"fer.benchmarks.{name}", 1)
    assert main(["predicting", "watching", "--data", str(drawn), "--out", str(tmp_path)]) in (0, 1)
    entries = [entry for entry in json.loads((tmp_path / "latest.json").read_text()) if entry["target"]]
    assert [entry["unit"] for entry in entries] == ["s", "x", "x", "frames/s"]
    assert 1 < entries[0]["value"] < 120  # an import of torch takes a second
    assert all(0.1 < entry["value"] < 1.5 for entry in entries[1:3])  # more than a tenth of what they call, not more


def test_margins_are_compared_with_the_frame():
    """A portrait, cut by the box of the detector: it is found again, and each margin has its row."""
    left, top, side = watching.FACE
    frame = Crop()(watching.hopper().convert("L"), Box(left, top, side, side), 48)
    rows = margins.table(np.stack([frame] * 2), np.array([EMOTIONS.index("neutral")] * 2), "tiny")
    assert [row[0] for row in rows] == ["frame", "frame, resampled", *(f"{margin:g}" for margin in margins.MARGINS)]
    assert {row[1] for row in rows} == {"2"}
    assert all(row[2].startswith("100.00 %") for row in rows[:2])
    assert len({row[3] for row in rows}) == len(rows)  # each is another crop


def test_a_peer_that_is_missing_is_skipped_with_the_reason(drawn, tmp_path, caplog):
    caplog.set_level("INFO")
    assert list(peers.peers(None, drawn, tmp_path, 1)) == []
    assert "--python" in caplog.text
    assert list(peers.peers(Path(sys.executable), drawn, tmp_path, 1)) == []  # this library's name, another package
    assert len(re.findall(r"(fer|deepface): not measured: ModuleNotFoundError", caplog.text)) == 2
    with pytest.raises(FerError, match="--python .*none: expected an interpreter"):
        peers.interpreter_of(tmp_path / "none")


def test_a_peer_stands_beside_ours_on_the_same_faces(tmp_path, monkeypatch):
    left, top, side = watching.FACE
    picture = np.asarray(watching.hopper().convert("L"))
    (file, *_) = peers.drawn_pictures(tmp_path)
    scores = {"neutral": 0.2, "angry": 0.7}
    answer = peers.PeerAnswer("1.0", ((peers.PeerFace((1, 2, 3, 4), scores),),), (scores,) * 4, seconds=2.0)
    monkeypatch.setattr(peers, "asked", lambda *given: answer)
    job = peers.Job("fer", (str(file),), "faces.npy", (left, top, side, side))
    rows = list(peers.beside(Path("python"), job, np.stack([picture] * 4), ["neutral"] * 4, tmp_path, 2))
    speed, _, theirs, ours, *portraits = rows
    assert (speed.value, theirs.value, ours.value) == (2.0, 0.0, 100.0)
    assert "trained on FER2013" in theirs.name
    assert [one.value for one in portraits] == [1, 1]
    assert portraits[0].note == "angry 70 %, box 3x4 at 1, 2"
    assert portraits[1].note.startswith("neutral 76 %, box 239x239 at 145, 99")


def test_rows_are_printed_and_written_as_they_are_measured(drawn, tmp_path, monkeypatch, capsys):
    """An interruption in the second part leaves the first in the file."""
    written_at_end = []

    def broken(file, rounds):
        written_at_end.append((capsys.readouterr().out, json.loads((tmp_path / "out" / "latest.json").read_text())))
        yield at_least("speed", 5.0, "images/s", 2)
        raise KeyboardInterrupt

    monkeypatch.setattr("fer.bench.augmenting", lambda: [at_most("time", 0.5, "ms", 0.7, "0.4 to 0.6")])
    monkeypatch.setattr("fer.benchmarks.training.starting", broken)
    code = main(["augmenting", "starting", "--data", str(drawn), "--out", str(tmp_path / "out")])
    ((printed, written),) = written_at_end
    assert re.search(r"^  time +0\.5 ms +<= 0\.7: yes +0\.4 to 0\.6$", printed, re.MULTILINE)
    assert written[0]["name"] == "time"
    assert code == 130
    entries = {entry["name"]: entry["value"] for entry in json.loads((tmp_path / "out" / "latest.json").read_text())}
    assert (entries["time"], entries["speed"], entries["parts"]) == (0.5, 5.0, "augmenting")
    assert f"written: {tmp_path / 'out' / 'latest.json'}" in capsys.readouterr().out
