"""Files of earlier versions: what version 1 of the formats wrote is loaded, evaluated, resumed and gone on with.


``fixtures/format_1`` holds a run of two epochs, and the same run interrupted in its second epoch. It also holds a sweep
whose second job is missing, and the run's network as a shared file. All are on 210 drawn faces.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import metrics

import fer
from fer.config.conf import plain
from fer.config.hydra import composed
from fer.runs.run_folder import identity

FIXTURES = Path(__file__).parent / "fixtures" / "format_1"
WRITTEN_IN = "/home/someone/outputs"  # the folder in which the fixtures were made


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a copy of the fixtures, whose paths are those of the copy."""
    copy = tmp_path / "format_1"
    shutil.copytree(FIXTURES, copy)
    for file in copy.rglob("*"):
        if file.suffix in (".json", ".yaml"):
            file.write_text(file.read_text().replace(WRITTEN_IN, str(copy)))
    monkeypatch.chdir(tmp_path)
    return copy


def test_a_run_is_evaluated(evaluate, made):
    before = metrics(made / "run")
    assert evaluate(str(made / "run"), "--split", "val", "--no-report").code == 0
    after = metrics(made / "run" / "evaluations" / "val")
    assert after["accuracy"] == before["accuracy"]
    assert after["nll"] == pytest.approx(before["nll"], abs=1e-5)


def test_a_shared_network_is_that_of_its_run(made):
    shared, trained = fer.load(made / "shared.safetensors"), fer.load(made / "run")
    faces = torch.randint(0, 256, (9, 1, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(shared(faces).softmax(1), trained(faces).softmax(1), atol=2e-3)  # half precision
    assert shared.provenance.temperature == trained.provenance.temperature


def test_an_interrupted_run_ends_as_if_it_had_not_been(train, made):
    assert train(f"resume={made / 'interrupted'}").code == 0
    expected, actual = (fer.load(made / name).state_dict() for name in ("run", "interrupted"))
    assert actual.keys() == expected.keys()
    assert all(torch.allclose(actual[name].float(), expected[name].float(), atol=1e-5) for name in expected)
    assert metrics(made / "interrupted")["accuracy"] == metrics(made / "run")["accuracy"]


def test_a_younger_key_changes_no_identity():
    """A sweep trains a finished job again if its identity changes."""
    job = json.loads((FIXTURES / "sweep" / "0" / "job.json").read_text())
    actual = identity(plain(composed(job["overrides"])))
    assert actual == job["identity"], "a new key stands in YOUNGER or BESIDES of fer/runs/run_folder.py"


@pytest.mark.slow  # a sweep's job is a process
def test_a_sweep_trains_what_is_missing(train, made):
    assert train("-m", f"sweep.resume={made / 'sweep'}").code == 0
    assert {file.parent.name for file in (made / "sweep").glob("*/metrics.json")} == {"0", "1"}
    first = Path("sweep", "0", "predictions.csv")
    assert (made / first).read_bytes() == (FIXTURES / first).read_bytes()  # it was not trained again
