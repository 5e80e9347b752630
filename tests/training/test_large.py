"""A training on data larger than memory: the weights and the metrics of one in memory, to the bit."""

import pytest
import torch
from conftest import SMALL, metrics
from PIL import Image

from fer.data.labels import EMOTIONS
from fer.data.readers import pixel_memory, synthetic
from fer.models import checkpoints

NETWORK = (*SMALL[2:], "data.split=as_given", "augment=strong")


@pytest.fixture
def tree(tmp_path):
    """140 pictures as PNG files in class folders of train and val."""
    faces = synthetic.read(140, seed=0, image_size=30)
    for row, image in enumerate(faces.images):
        folder = tmp_path / "tree" / ("val" if row % 5 == 0 else "train") / EMOTIONS[faces.targets[row]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row:03d}.png")
    return tmp_path / "tree"


@pytest.mark.slow
def test_weights_and_metrics_equal_those_of_memory_also_after_a_resume(
    tree, tmp_path, train, interrupt_at, monkeypatch
):
    values = {}
    for mode, limit, spare in (("memory", "null", 0), ("mapped", "1e-5", 0), ("demand", "1e-5", 1 << 60)):
        monkeypatch.setattr(pixel_memory, "SPARE", spare)
        run = tmp_path / mode
        data = (f"data.path={tree}", f"data.memory_limit_gb={limit}", f"data.cache={tmp_path / 'cache' / mode}")
        if mode != "memory":
            interrupt_at(10)  # within the second epoch of seven steps
            assert train(*NETWORK, *data, f"hydra.run.dir={run}").code == 130
            ended = train(f"resume={run}")
        else:
            ended = train(*NETWORK, *data, f"hydra.run.dir={run}")
        assert ended.code == 0, ended.err
        assert {"memory": "data:", "mapped": "memory-mapped from", "demand": "on demand"}[mode] in ended.out + ended.err
        values[mode] = checkpoints.read(run / "checkpoints" / "last.ckpt")["state_dict"], metrics(run)
    for mode in ("mapped", "demand"):
        weights, results = values[mode]
        expected, stated = values["memory"]
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert weights.keys() == expected.keys()
        besides = {"command", "finished", "images_per_second", "peak_memory_mb", "train_seconds", "wall_seconds"}
        assert {name: results[name] for name in results.keys() - besides} == {
            name: stated[name] for name in stated.keys() - besides
        }
        assert results["dataset"]["fingerprint"] == stated["dataset"]["fingerprint"]
        assert "accuracy" in results
