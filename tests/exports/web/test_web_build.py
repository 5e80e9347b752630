"""The folder: whole, of the pinned runtime, and in place of nothing that somebody else wrote."""

import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import runner
from onnx import TensorProto, helper, numpy_helper

from fer.config.errors import FerError
from fer.data.crop import Crop
from fer.data.labels import EMOTIONS
from fer.export import main
from fer.exports.web import build, runtime
from fer.inference import detect
from fer.inference.exported import FORMAT, About, ExportedNetwork, SourceNetwork
from fer.metrics.conformal import PER_CENT, ClassThresholds, Thresholds

SIZE = 24


def write(file, about, channels=1):
    """Write a softmax regression on pixels as an exported file."""
    weights = np.random.default_rng(0).normal(0, 1e-3, (channels * SIZE * SIZE, len(about.classes))).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["faces"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes, "drawn", [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["batch", channels, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(about.classes)])],
        [numpy_helper.from_array(weights, "weights")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"fer": about.as_text()})
    onnx.save(model, file)


@pytest.fixture
def network(tmp_path):
    """An exported network with thresholds of prediction sets."""
    made = SourceNetwork("drawn.ckpt", "0" * 64, "1" * 64, "mlp", 1.0, 1.0, {"name": "drawn"})
    sets = Thresholds(100, {f"{percent / 100:.2f}": percent / 100 for percent in PER_CENT})
    about = About(
        FORMAT,
        "float32",
        tuple(EMOTIONS),
        SIZE,
        Crop().contract(SIZE),
        "mlp",
        4032,
        (made,),
        sets=sets,
        card="# A card\n\nText.",
    )
    write(tmp_path / "drawn.onnx", about)
    return ExportedNetwork(tmp_path / "drawn.onnx")


@pytest.fixture
def fetched(monkeypatch):
    """Have the runtime in place of npm."""
    monkeypatch.setattr(runtime, "files", lambda given: {runtime.SCRIPT: b"export {};", runtime.WASM: b"\0asm" * 99})


@pytest.fixture
def page(network, fetched, tmp_path):
    build.write(network, "drawn", tmp_path / "page")
    return tmp_path / "page"


def test_the_folder_holds_all_that_its_files_name(page, network):
    present = {file.name for file in page.iterdir()}
    assert set(json.loads((page / "network.json").read_text())["files"]) == present
    for file in page.glob("*.js"):
        for name in re.findall(r'(?:from|import|URL\()\s*"\./([^"]+)"', file.read_text()):
            assert name in present, (file.name, name)
    for file in page.glob("*.html"):
        for name in re.findall(r'(?:src|href)="([a-z.]+\.(?:js|css|html))"', file.read_text()):
            assert name in present, (file.name, name)
    assert (page / "network.onnx").read_bytes() == network.file.read_bytes()
    assert gzip.decompress((page / "onnxruntime.wasm.gz").read_bytes()).startswith(b"\0asm")
    assert "predict(blob" in (page / "backend.js").read_text()
    assert 'fetch("predict' not in (page / "backend.js").read_text()  # the half of fer serve


def test_the_page_knows_the_network_and_the_rules_of_fer_predict(page, network):
    about = json.loads((page / "network.json").read_text())
    assert about["classes"] == list(network.emotions)
    assert (about["size"], about["channels"], about["coverage"], about["threshold"]) == (24, 1, 0.9, 0.9)
    assert about["search"]["least_score"] == detect.LEAST_SCORE
    assert about["crop"] == {"margin": 1.0, "shift": 0.0}
    assert "trained on drawn" in about["made"]
    assert "A card" in (page / "card.html").read_text()


def test_a_page_has_the_thresholds_of_each_emotion_where_there_are_some(page, network, fetched):
    about = json.loads((page / "network.json").read_text())
    assert (about["coverage_by"], about["thresholds"], about["unpromised"]) == ("all", None, [])
    with pytest.raises(FerError, match=r"coverage_by=class: .*--coverage-by class"):
        build.write(network, "again", page, by="class")
    classes = [ClassThresholds(100, {key: value / 2 for key, value in network.sets.at.items()}) for _ in EMOTIONS]
    classes[1] = replace(classes[1], faces=8)  # nine are needed for 90 %
    both = replace(network.about, sets=replace(network.sets, by_class=tuple(classes)))
    write(network.file, both)
    build.write(ExportedNetwork(network.file), "again", page, by="class")
    about = json.loads((page / "network.json").read_text())
    assert (about["coverage_by"], about["threshold"], about["unpromised"]) == ("class", 0.9, ["disgust"])
    assert about["thresholds"] == [0.45, 0.9, 0.45, 0.45, 0.45, 0.45, 0.45]


def test_every_page_keeps_its_scripts_from_other_hosts(page):
    for file in page.glob("*.html"):
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', file.read_text())[1]
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        assert "http" not in policy
    for file in page.iterdir():
        if file.suffix in (".html", ".css") or file.name in build.SCRIPTS:
            assert not re.search(r"(?:src|href|url|from|fetch)\W{1,3}(?:https?:)?//", file.read_text()), file.name


def test_an_earlier_export_is_replaced_and_nothing_else(page, network, fetched):
    (page / "network.onnx").write_bytes(b"old")
    build.write(network, "again", page, coverage=0.5)
    assert json.loads((page / "network.json").read_text())["threshold"] == 0.5
    assert (page / "network.onnx").read_bytes() == network.file.read_bytes()
    (page / "CNAME").write_text("faces.example")
    with pytest.raises(FerError, match=r"CNAME.*new or empty"):
        build.write(network, "again", page)
    assert (page / "CNAME").read_text() == "faces.example"
    other = page.with_name("other")
    shutil.copytree(page, other)
    (other / "network.json").unlink()
    with pytest.raises(FerError, match="new or empty"):
        build.write(network, "again", other)


def test_the_current_folder_and_a_link_to_a_folder_are_written(page, network, fetched, tmp_path, monkeypatch):
    about = json.loads((page / "network.json").read_text())
    (page / "network.json").write_text(json.dumps(about | {"files": [*about["files"], "old.js", "../mine.txt"]}))
    (tmp_path / "mine.txt").write_text("not of the page")
    (page / "old.js").write_text("of an earlier version")
    (page / "network.onnx").write_bytes(b"old")
    monkeypatch.chdir(page)
    build.write(network, "again", Path("."))
    assert Path("network.onnx").read_bytes() == network.file.read_bytes()  # a shell stays in the folder that it was in
    assert not Path("old.js").exists()
    (tmp_path / "link").symlink_to(page)
    build.write(network, "linked", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert json.loads((page / "network.json").read_text())["network"] == "linked"
    assert {file.name for file in tmp_path.iterdir()} == {"drawn.onnx", "link", "mine.txt", "page"}


def test_a_folder_that_cannot_be_finished_leaves_none(network, fetched, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SCRIPTS", (*build.SCRIPTS, "missing.js"))
    with pytest.raises(OSError, match=r"missing\.js"):
        build.write(network, "drawn", tmp_path / "page")
    (tmp_path / "file").write_text("")
    monkeypatch.undo()
    monkeypatch.setattr(runtime, "files", lambda given: {runtime.SCRIPT: b"", runtime.WASM: b""})
    with pytest.raises(FerError, match="is a file"):
        build.write(network, "drawn", tmp_path / "file")
    with pytest.raises(FerError, match=r"could not be written"):
        build.write(network, "drawn", tmp_path / "file" / "page")
    assert {file.name for file in tmp_path.iterdir()} == {"drawn.onnx", "file"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny", "page/", "--int8"], ("--int8", "32 bits")),
        (["tiny", "page.onnx", "--coverage", "0.8"], ("--coverage", "OUT/")),
        (["tiny", "page.onnx", "--coverage-by", "class"], ("--coverage-by", "OUT/")),
        (["tiny", "page.onnx", "--runtime", "x.tgz"], ("--runtime", "OUT/")),
        (["tiny", "page/", "--runtime", "none.tgz"], ("none.tgz", runtime.PACKAGE)),
        (["tiny", "taken/"], ("taken", "notes.txt", "empty")),
        (["tiny", "page"], (".onnx", "FOLDER/")),
    ],
)
def test_what_cannot_become_a_page_is_one_line(capfd, tmp_path, arguments, words):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    ended = runner(main, capfd)(*arguments)
    assert ended.code == 1
    for word in words:
        assert word in ended.line
    assert not (tmp_path / "page").exists()
