"""``python -m fer.best``: a whole campaign on drawn faces, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import metrics, runner

import fer
from fer.best import main, parser, request_of
from fer.campaign import plan, recipes
from fer.campaign.record import FILE, Record, Request, read
from fer.config.conf import spelled
from fer.runs import predictions
from fer.system import records
from fer.system.files import write_json

HOURS = "0.5"  # much longer than a slow machine takes for the epochs of a test: none depends on the machine's speed
SMALL = (
    "--data",
    "synthetic",
    "--set",
    "data.synthetic_count=210",
    "data.image_size=24",
    "model.width=8",
    "--device",
    "cpu",
)


@pytest.fixture
def best(capfd):
    return runner(main, capfd)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ("--hours", "missing")),
        (("--hours", "0"), ("--hours 0", "more than 0")),
        (("--hours", "many"), ("--hours", "many")),
        (("--hours", "1", "--jobs", "0"), ("--jobs 0", "at least 1")),
        (("--hours", "1", "--data", "nowhere.csv"), ("nowhere.csv", "no such file")),
        (("--hours", "1"), ("no data", "FER_DATA")),
        (("--hours", "1", "--data", "synthetic", "--set", "modl.width=3"), ("modl", "model")),
        (("--hours", "1", "--data", "synthetic", "--set", "hydra.run.dir=x"), ("--set hydra.run.dir=x", "KEY=VALUE")),
        (("--hours", "1", "--data", "synthetic", "--with", "nowhere"), ("--with", "nowhere", "no such folder")),
        (("--hours", "1", "--data", "synthetic", "--set", "seed=5"), ("--set seed=5", "--seed")),
        (("--hours", "1", "--data", "synthetic", "--set", "trainer.max_epochs=5"), ("trainer.max_epochs", "--hours")),
        (("--hours", "1", "--data", "synthetic", "--set", "budget.hours=1"), ("--set budget.hours=1", "use --hours")),
        (("--hours", "1", "--data", "synthetic", "--set", "logger=csv"), ("--set logger=csv", "leave it out")),
        (("--hours", "1", "--data", "synthetic", "--set", "sweep.jobs=2"), ("--set sweep.jobs=2", "leave it out")),
        (("--hours", "1", "--data", "synthetic", "--set", "data.more=[nowhere]"), ("data.more=[nowhere]", "no such")),
        (("--hours", "1", "--data", "synthetic", "--out", "full"), ("--out full", "not empty")),
        (("--resume", "nowhere", "--no-test"), ("--no-test", "--resume")),
        (("--resume", "nowhere"), ("nowhere", FILE)),
        (("--resume", "nowhere", "--jobs", "2"), ("--jobs", "--resume")),
        (("--resume", "nowhere", "--with", "x"), ("--with", "--resume")),
        (("--hours", "1", "--data", "synthetic", "--seed", "4294967295"), ("--seed 4294967295", "0 to")),
        (("--hours", "1", "--data", "synthetic", "--dry-run", "--out", "x"), ("--out", "--dry-run")),
    ],
)
def test_what_is_wrong_is_one_line(best, arguments, said, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    ended = best(*arguments)
    assert ended.code == 1
    for word in said:
        assert word in ended.line


def test_a_refused_campaign_leaves_its_folder_free(best, tmp_path):
    (tmp_path / "bad.csv").write_text("emotion,pixels,Usage\n0,1 2 3,Training\n")
    for _ in range(2):
        ended = best("--hours", "1", "--data", "bad.csv", "--device", "cpu", "--out", "campaign")
        assert ended.code == 1
        assert "bad.csv" in ended.line
        assert "not empty" not in ended.line


def test_a_campaign_is_not_resumed_with_less_time_than_it_has_used(best, tmp_path):
    record = Record(Request(1.0, "synthetic"), "fer best", "2026-01-01T00:00:00+00:00", spent=500.0)
    write_json(tmp_path / FILE, {"schema": 1, **records.plain(record)})
    before = (tmp_path / FILE).read_bytes()
    ended = best("--resume", str(tmp_path), "--hours", "0.1")
    assert ended.code == 1
    for word in ("--hours 0.1", "0.14 hours", "give more"):
        assert word in ended.line
    assert (tmp_path / FILE).read_bytes() == before


def test_files_of_settings_are_found_from_another_folder(tmp_path):
    (tmp_path / "more").mkdir()
    given = ("--hours", "1", "--data", "synthetic", "--set", "data.more=[{path:more,split:folds}]", "seed=1")
    settings = request_of(parser().begin(given)[0]).settings
    assert settings == (
        f"data.more=[{{path:{spelled(str(tmp_path / 'more'))},split:folds,class_names:null}}]",
        "seed=1",
    )


def test_an_option_that_is_repeated_adds_to_the_first(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    given = ["--hours", "1", "--data", "synthetic", "--set", "data.on_bad=skip", "--set", "model.width=8", "--parts",
             "small", "--parts", "members", "--with", str(tmp_path / "a"), "--with", str(tmp_path / "b")]  # fmt: skip
    request = request_of(parser().begin(given)[0])
    assert request.settings == ("data.on_bad=skip", "model.width=8")
    assert request.parts == ("members", "small")
    assert request.earlier == (str(tmp_path / "a"), str(tmp_path / "b"))


def test_a_campaign_is_not_resumed_with_other_faces(best, tmp_path):
    record = Record(Request(1.0, "synthetic", settings=("data.synthetic_count=140",)), "fer best", "2026", spent=5.0)
    record.fingerprint = "of other faces"
    write_json(tmp_path / FILE, {"schema": 1, **records.plain(record)})
    ended = best("--resume", str(tmp_path))
    assert ended.code == 1
    for word in ("--resume", "synthetic", "other contents"):
        assert word in ended.line


def test_a_campaign_is_read_after_its_other_process_has_ended(tmp_path, monkeypatch):
    """What a process writes that still saves is in the record of the next one."""
    record = Record(Request(1.0, "synthetic"), "fer best", "2026", spent=500.0)
    write_json(tmp_path / FILE, {"schema": 1, **records.plain(record)})
    seen = []

    def hold(lock):
        write_json(tmp_path / FILE, {"schema": 1, **records.plain(replace(record, spent=900.0))})

    monkeypatch.setattr("fer.best.hold", hold)
    monkeypatch.setattr("fer.best.run", lambda record, folder: seen.append(record.spent) or 0)
    assert main(["--resume", str(tmp_path)]) == 0
    assert seen == [900.0]


def test_help_needs_no_torch():
    code = """
import sys
from fer.best import main
try:
    main(["--help"])
except SystemExit:
    print("torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip().endswith("False")
    assert "--hours" in ended.stdout


@pytest.mark.slow
def test_a_whole_campaign_of_drawn_faces(best, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "MOST_ON_CPU", 4)
    monkeypatch.setattr(plan, "MOST_SMALL", 6)
    begun = time.monotonic()
    ended = best("--hours", HOURS, *SMALL, "--out", str(tmp_path / "one"))
    took = time.monotonic() - begun
    assert ended.code == 0, ended.out + ended.err
    folder, record = tmp_path / "one", read(tmp_path / "one")
    assert took < 1.05 * 3600 * float(HOURS) + 20  # the start of Python and its modules is not on the campaign's clock
    assert {network.state for network in record.networks} == {"done"}
    assert [network.name for network in record.of_role("student")] == ["student_0", "student_1", "student_2"]
    assert record.chosen_teachers
    assert all(
        network.teachers == record.chosen_teachers for network in (*record.of_role("student"), *record.of_role("small"))
    )
    for name in ("best.html", "best.json", "best.safetensors", "best.md", "small.safetensors", "best.log"):
        assert (folder / name).stat().st_size
    assert metrics(folder / "small")["parameters"] < 500_000
    table = {(line.name, line.split, line.views) for line in record.lines}
    for name in ("student_0", "student_1", "student_2", "small"):
        assert {(name, "val", "ten_crop"), (name, "test", "none"), (name, "test", "ten_crop")} <= table
        looks = json.loads((folder / name / "test_opened.json").read_text())
        assert sum(look["networks"] == 1 for look in looks) == 2  # single view and ten crops, once each
    has_ensemble = ("ensemble", "test", "ten_crop") in table
    assert has_ensemble or any("no ensemble: val chose" in note for note in record.notes)  # of one network alone
    if has_ensemble:
        _is_what_its_members_say(folder, record)
    page = (folder / "best.html").read_text()
    assert "Plan and actual times" in page
    assert "student_2" in page
    shared = fer.load(folder / "best.safetensors")
    assert shared.hparams["classes"]
    assert shared.provenance.sets.faces > 0
    for name in ("student_0", *(["ensemble"] if has_ensemble else []), "small"):
        assert (folder / "results" / name / "test_ten_crop.csv.gz").stat().st_size
    again = best("--resume", str(folder))
    assert again.code == 0
    assert "finished already" in again.out


def _is_what_its_members_say(folder, record):
    """Mix the members by hand, and compare with what the ensemble's predictions hold."""
    total = 0.0
    for one in record.ensemble.members:
        file = folder / one.name / "evaluations" / "test_ten_crop" / "predictions.csv"
        said = predictions.read(file).probabilities
        warm = said ** (1 / one.temperature)
        total = total + one.weight * warm / warm.sum(1, keepdims=True)
    written = predictions.read(folder / "ensemble" / "evaluations" / "test_ten_crop" / "predictions.csv")
    assert abs(written.probabilities - total).max() < 1e-4
    results = metrics(folder / "ensemble" / "evaluations" / "test_ten_crop")
    right = [said == label for said, label in zip(written.answers, written.targets, strict=True)]
    assert results["accuracy"] == pytest.approx(sum(right) / len(right))
    on_val = metrics(folder / "ensemble" / "evaluations" / "val_ten_crop")
    sets = results["sets"]
    assert sets["thresholds"] == on_val["sets"]["thresholds"]
    assert sets["thresholds"]["faces"] == on_val["n"] - on_val["seen_in_training"]
    assert (sets["calibrated_on"], on_val["sets"]["calibrated_on"]) == ("val", "these faces")
    assert on_val["sets"]["clean"]["coverage"] >= 0.9  # of the faces that calibrated it


def short_campaign(*arguments):
    """Start a campaign whose networks get 8 epochs at most, and return its process."""
    return subprocess.Popen(
        [sys.executable, "-m", "short_campaign", "8", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_campaign_goes_on(tmp_path):
    folder = tmp_path / "one"
    process = short_campaign("--hours", HOURS, *SMALL, "--parts", "members", "small", "--out", str(folder))
    deadline = time.monotonic() + 240
    while not (folder / "mixup_cutmix" / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert f"--resume {folder}" in err or re.search(r"--resume \S+", err)
    before = read(folder)
    process = short_campaign("--resume", str(folder), "--hours", "0.6")
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    after = read(folder)
    assert after.spent > before.spent
    assert [network.epochs for network in after.of_role("member")] == [
        network.epochs for network in before.of_role("member")
    ]
    assert "measuring the speed" not in out
    assert {network.state for network in after.networks} == {"done"}


@pytest.mark.slow
def test_a_campaign_that_has_only_just_enough_time_ends_in_it(best, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "MOST_SMALL", 5000)  # the time is the limit, whatever the speed of this machine
    folder = tmp_path / "one"
    refused = best("--hours", "0.0001", *SMALL, "--parts", "small", "--out", str(folder))
    assert refused.code == 1
    hours = re.search(r"give --hours (\S+) or more", refused.line).group(1)
    spent, begun = read(folder).spent, time.monotonic()
    ended = best("--resume", str(folder), "--hours", hours)
    assert ended.code == 0, ended.out + ended.err
    assert spent + time.monotonic() - begun < 1.05 * 3600 * float(hours)
    assert "measuring the speed" not in ended.out
    record = read(folder)
    (small,) = record.networks
    assert small.epochs < plan.MOST_SMALL
    assert (small.state in ("done", "stopped"), record.finished is not None) == (True, True)


@pytest.mark.slow
def test_a_plan_is_printed_and_nothing_is_left(best, tmp_path):
    ended = best("--hours", HOURS, *SMALL, "--dry-run")
    assert ended.code == 0, ended.out + ended.err
    for word in ("plan for 30:00", "student_2", "mixup_cutmix", "teachers chosen on val", "epochs"):
        assert word in ended.out
    assert not (tmp_path / "outputs").exists()
