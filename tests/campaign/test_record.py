"""``best.json``: it is read as it was written, and a damaged one is named."""

import json

import pytest

from fer.campaign.plan import Pace, Training
from fer.campaign.record import (
    FILE,
    Clock,
    Ensemble,
    Line,
    Member,
    Network,
    Phase,
    Record,
    Request,
    SharedFile,
    keep,
    read,
)
from fer.config.errors import FerError
from fer.metrics.results import SelectionRecord, Step
from fer.system.machine import Hardware, MachineRecord

SELECTION = {
    "given": 1, "left_out": (), "steps": (Step("student_0", 0.9, 0.7),), "best_alone_val": 0.7, "all_equal_val": 0.7,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    training = Training("student_0", "student", ("seed=0",), 12, 60.0, 5.0)
    network = Network.planned(training, ["seed=0"], ["tiny"])
    network.state, network.began, network.ended, network.accuracy_val = "stopped", 5.5, 60.0, 0.7
    record = Record(
        Request(0.5, "faces.csv", settings=("data.on_bad=skip",), earlier=("a", "b")),
        "python -m fer.best --hours 0.5",
        "2026-11-26T17:00:00+00:00",
        measured={"student": Pace(1.0, 0.1, 8.0)},
        phases=[Phase("members", 0.0, 10.0, 0.5)],
        networks=[network],
        lines=[Line("student_0", "student", "val", "ten_crop", "student_0/evaluations/val_ten_crop")],
        ensemble=Ensemble((Member("student_0", 1.0, 1.2),), 1.1, SelectionRecord(**SELECTION)),
        shared={"best.safetensors": SharedFile("student_0", 1234, 0.7)},
        provenance=MachineRecord(versions={"fer": "1"}, hardware=Hardware(cpu="one", cores=2)),
    )
    keep(record, tmp_path, Clock(100.0))
    return tmp_path, record


def test_a_record_is_read_as_it_was_written(folder):
    path, record = folder
    again = read(path)
    assert again == record
    assert again.spent == pytest.approx(100.0, abs=1)
    assert [network.name for network in again.usable("student")] == ["student_0"]
    assert again.usable("member") == []


def test_notes_on_steps_that_a_resumed_campaign_repeats_are_forgotten(folder):
    _, record = folder
    record.notes = [
        "no time was left for students and the small network",
        "student_1 was not evaluated on val (ten_crop): its process was killed",
        "teachers could not be chosen: no predictions",
        "no teacher could be chosen: students and the small network learn from the labels alone",
        "no ensemble: no predictions",
        "student_2: no predictions on test; left out of the ensemble",
        "small could not be shared: no such file",
        "member failed: exit 1",
    ]
    record.forget_retried()
    assert record.notes == ["member failed: exit 1"]


def test_the_clock_stands_still_between_an_interruption_and_resume():
    assert Clock(250.0).now() == pytest.approx(250.0, abs=0.5)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(schema=2),
        lambda record: record.pop("networks"),
        lambda record: record["networks"][0].update(name="../elsewhere"),
        lambda record: record["networks"][0].update(unknown=1),
        lambda record: record["request"].update(hours="many"),
        lambda record: record.update(request=None),
        lambda record: record.update(measured=[]),
        lambda record: record.update(notes=None),
        lambda record: record.update(ensemble={"members": 3}),
        lambda record: record.update(spent="abc"),
        lambda record: record["networks"][0].update(state="strange"),
        lambda record: record["networks"][0].update(overrides=["+hydra.callbacks.x={_target_:os.mkdir,path:made}"]),
        lambda record: record["networks"][0].update(overrides=["hydra/launcher=basic"]),
        lambda record: record["networks"][0].update(overrides=["plugins=[elsewhere]"]),
        lambda record: record["request"].update(settings=["--config-dir=elsewhere"]),
    ],
)
def test_a_damaged_record_is_named(folder, change):
    path, _ = folder
    record = json.loads((path / FILE).read_text())
    change(record)
    (path / FILE).write_text(json.dumps(record))
    with pytest.raises(FerError, match=rf"{FILE}: damaged"):
        read(path)


def test_a_folder_without_a_record_is_none(tmp_path):
    with pytest.raises(FerError, match=f"no campaign's folder .*{FILE}"):
        read(tmp_path)
