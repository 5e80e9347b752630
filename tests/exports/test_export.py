"""``fer export``: files that predict what the network does, or are not written."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import metrics, runner
from onnx import numpy_helper
from PIL import Image

import fer
from fer.config.errors import FerError
from fer.data.labels import EMOTIONS
from fer.data.readers.drawing import draw_faces
from fer.export import main
from fer.exports import check, onnx_file
from fer.exports.check import refuse
from fer.inference.exported import ExportedNetwork, OnVal, Parity
from fer.inference.exported_model import ExportedModel
from fer.models import checkpoints

SIZE = 24  # of the small run's faces


@pytest.fixture
def export(capfd):
    return runner(main, capfd)


@pytest.fixture
def predict(capfd):
    from fer.predict import main

    return runner(main, capfd)


@pytest.fixture(scope="module")
def exported_once(trained_once, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "small.onnx"
    assert main([str(trained_once), str(file)]) == 0
    return file


@pytest.fixture
def small(exported_once, tmp_path):
    """The small run as an ONNX file, in the test's own folder."""
    file = tmp_path / "small.onnx"
    file.write_bytes(exported_once.read_bytes())
    return file


@pytest.fixture(scope="module")
def network(trained_once):
    return checkpoints.load(trained_once)


@pytest.fixture(scope="module")
def faces():
    images, _ = draw_faces(40, seed=3, image_size=SIZE)
    return images[:, None]


@pytest.fixture
def photo(faces, tmp_path):
    Image.fromarray(faces[0, 0].repeat(3, 0).repeat(3, 1)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def graph_again(exported_once, monkeypatch):
    """Let exports take the graph of the small run's file in place of tracing the network once more."""

    def again(program):
        model = onnx.load(exported_once)
        del model.metadata_props[:]
        return model

    monkeypatch.setattr(onnx_file, "in_32_bits", again)
    monkeypatch.setattr("fer.exports.export.traced", lambda source: None)
    return again


def stated(file):
    """What another program reads of a file, by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["fer"])


def restated(file, **changes):
    """Change what a file states of itself."""
    model = onnx.load(file)
    (entry,) = model.metadata_props
    entry.value = json.dumps(json.loads(entry.value) | changes)
    onnx.save(model, file)


# --- the file -------------------------------------------------------------------------------------------------------


def test_any_program_gets_the_networks_probabilities(exported_once, network, faces):
    session, _ = stated(exported_once)
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("faces", "tensor(uint8)", ["batch", 1, SIZE, SIZE])
    assert (made.name, made.type, made.shape) == ("probabilities", "tensor(float)", ["batch", 7])
    for count in (1, 3, 40):
        (found,) = session.run(None, {"faces": faces[:count]})
        expected = network.probabilities(torch.from_numpy(faces[:count])).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_file_states_what_its_users_need(exported_once, trained_once, network):
    _, about = stated(exported_once)
    assert about["classes"] == list(network.hparams["classes"])
    assert (about["format"], about["size"], about["precision"]) == (1, SIZE, "float32")
    crop = {key: about["crop"][key] for key in ("margin", "shift", "size", "filter")}
    assert crop == {"margin": 1.0, "shift": 0.0, "size": SIZE, "filter": "bilinear, antialiased"}
    assert about["temperature"] == network.provenance.temperature != 1
    assert about["sets"]["at"] == dict(network.provenance.sets.at)
    (made,) = about["networks"]
    assert made["weights_sha256"] == network.weights_sha256
    digest = subprocess.run(
        ["sha256sum", trained_once / "checkpoints" / "best.ckpt"], capture_output=True, text=True, check=True
    )
    assert made["sha256"] == digest.stdout.split()[0]
    assert made["dataset"]["fingerprint"] == network.provenance.dataset["fingerprint"]
    assert about["parity"]["faces"] == 512
    assert about["parity"]["of"] == "14 faces of val and 498 drawn faces"
    assert about["parity"]["largest_difference"] <= 1e-4


def test_the_file_names_no_path_of_this_machine(exported_once, trained_once):
    content = exported_once.read_bytes()
    for path in (str(trained_once.parent), str(Path(fer.__file__).parent), "site-packages", "stack_trace"):
        assert path.encode() not in content


def test_the_file_is_printed_with_its_check_and_speed(export, small_run, graph_again):
    ended = export(str(small_run), "again.onnx")
    assert ended.code == 0, ended.err
    assert "again.onnx" in ended.out
    assert "100 % equal answers" in ended.out
    assert ended.out.splitlines()[-3].split()[0] == "1"
    assert ended.out.splitlines()[-1].split()[0] == "256"


def test_weights_with_their_description_beside(export, small_run, network, tmp_path):
    assert export(str(small_run), "small.safetensors", "--no-timing").code == 0
    loaded = fer.load("small.safetensors")
    assert loaded.weights_sha256 == network.weights_sha256
    assert (loaded.provenance.temperature, loaded.provenance.sets) == (
        network.provenance.temperature, network.provenance.sets,
    )  # fmt: skip
    assert json.loads((tmp_path / "small.json").read_text())["classes"] == list(network.hparams["classes"])
    assert str(small_run.parent).encode() not in (tmp_path / "small.safetensors").read_bytes()


def test_the_description_replaces_no_other_file(export, tmp_path):
    (tmp_path / "config.json").write_text("precious")
    assert "config.json is written beside it" in export("tiny", "config.safetensors").line
    assert [(file.name, file.read_text()) for file in tmp_path.glob("config*")] == [("config.json", "precious")]


def test_eight_bits_are_calibrated_on_train_and_checked_on_val(export, small_run, graph_again, network, faces):
    assert export(str(small_run), "small.onnx", "--int8", "--no-timing").code == 0
    session, about = stated(Path("small.onnx"))
    kinds = {node.op_type for node in onnx.load("small.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert (about["precision"], about["calibrated_on"]) == ("int8", "112 faces of train")
    assert about["parity"]["val"]["faces"] == 14
    assert about["sets"]["faces"] <= 14
    (found,) = session.run(None, {"faces": faces})
    expected = network.probabilities(torch.from_numpy(faces)).numpy()
    assert 1e-6 < np.abs(found - expected).max() < 0.1
    weights = [numpy_helper.to_array(one) for one in onnx.load("small.onnx").graph.initializer]
    assert {int(np.abs(one).max()) <= 64 for one in weights if one.dtype == np.int8 and one.size > 1} == {True}


@pytest.mark.slow
def test_eight_bits_of_several_networks_keep_the_mean_in_32(export, small_run, another_run, faces, monkeypatch):
    for bound in ("MOST_LOST", "MOST_NLL"):
        monkeypatch.setattr(check, bound, 1.0)
    monkeypatch.setattr(check, "LEAST_EQUAL", 0.5)  # on 14 faces one near tie is 7 %, and processors round differently
    ended = export(str(small_run), str(another_run), "both.onnx", "--int8", "--no-timing")
    assert ended.code == 0, ended.err
    assert {file.name for file in Path().iterdir() if file.is_file()} == {"both.onnx"}  # none of the quantiser's
    session, about = stated(Path("both.onnx"))
    assert len(about["networks"]) == 2
    (found,) = session.run(None, {"faces": faces})
    networks = [fer.load(run) for run in (small_run, another_run)]
    expected = np.mean([each.probabilities(torch.from_numpy(faces)).numpy() for each in networks], 0)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert 1e-6 < np.abs(found - expected).max() < 0.1


def test_a_softmax_within_a_network_keeps_its_layers_in_8_bits():
    steps = [
        ("MatMul", ["faces", "w"], "scores"), ("Softmax", ["scores"], "mask"), ("Mul", ["mask", "faces"], "seen"),
        ("Gemm", ["seen", "head"], "logits"), ("Softmax", ["logits"], "first"), ("Mul", ["first", "half"], "part"),
        ("Gemm", ["faces", "other"], "more"), ("Softmax", ["more"], "second"), ("Add", ["part", "second"], "mean"),
    ]  # fmt: skip
    nodes = [onnx.helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in steps]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "two", [], []))
    assert onnx_file._of_probabilities(model) == ["first", "part", "second", "mean"]


def test_a_loss_of_the_bound_is_allowed():
    measured = OnVal(faces=400, accuracy=(0.6975, 0.6925), nll=(0.9, 0.92), equal=0.97)
    parity = Parity(of="val", faces=400, largest_difference=0.1, equal=0.97, val=measured)
    refuse("x.onnx", parity)
    with pytest.raises(FerError, match="accuracy on val 69.24 % after 69.75 %"):
        refuse("x.onnx", replace(parity, val=replace(measured, accuracy=(0.6975, 0.6924))))


# --- refusals of the export -----------------------------------------------------------------------------------------


def shifted(model, by):
    """A graph whose last layer's bias for the first class is larger."""
    bias = next(one for one in model.graph.initializer if list(one.dims) == [7])
    values = numpy_helper.to_array(bias).copy()
    values[0] += by
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    return model


@pytest.mark.parametrize(("by", "words"), [(0.3, "expected at most 0.0001"), (90.0, "% of the answers")])
def test_a_graph_that_predicts_something_else_gets_no_name(export, small_run, graph_again, monkeypatch, by, words):
    monkeypatch.setattr(onnx_file, "in_32_bits", lambda program: shifted(graph_again(program), by))
    ended = export(str(small_run), "folder/small.onnx")
    assert ended.code == 1
    assert "small.onnx: not written" in ended.line
    assert words in ended.line
    assert not list(Path("folder").iterdir())


def test_other_data_are_read_as_the_options_say(export, small_run):
    faces, labels = draw_faces(140, seed=3, image_size=SIZE)
    for number, (face, label) in enumerate(zip(faces, labels, strict=True)):
        file = Path("numbered", "val" if number % 2 else "train", f"{label + 1}", f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(file)
    Path("numbered/val/1/broken.png").write_bytes(b"no picture")
    command = [str(small_run), "small.onnx", "--no-timing", "--data", "numbered"]
    assert "--class-names" in export(*command).line
    named = [*command, "--class-names", ",".join(f"{index}:{name}" for index, name in enumerate(EMOTIONS, 1))]
    assert "--on-bad skip" in export(*named).line
    readable = [*named, "--on-bad", "skip"]
    assert "--rule as_given" in export(*readable).line
    assert not Path("small.onnx").exists()
    ended = export(*readable, "--rule", "as_given")
    assert (ended.code, "70 faces of val" in ended.out) == (0, True)
    assert "skipped: 1 bad row or file" in ended.out + ended.err


def test_eight_bits_that_lose_too_much_get_no_name(export, small_run, graph_again, monkeypatch):
    monkeypatch.setattr(onnx_file, "in_8_bits", lambda model, faces: shifted(model, 90.0))
    ended = export(str(small_run), "folder/small.onnx", "--int8")
    assert ended.code == 1
    for words in ("NLL on val", "at most 0.02 more", "equal answers on 14 faces of val", "at least 97 %"):
        assert words in ended.line
    assert not list(Path("folder").iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{run}", "small.tflite"], "expected a name that ends in .onnx, .pt2, .safetensors"),
        (["{run}", "small.pt2", "--int8"], "--int8: applies to .onnx files"),
        (["{run}", "{other}", "both.safetensors"], "export an ensemble as .onnx or .pt2"),
        (["{run}", "{run}", "both.onnx"], "given twice"),
        (["{file}", "again.onnx"], "it was made from"),
        (["tiny", "{run}", "both.onnx"], "24 and 48 pixels"),
        (["tiny", "tiny.onnx", "--int8"], "--data"),
        (["tiny", "tiny.onnx", "--data", "nowhere.csv"], "nowhere.csv"),
        (["tiny", ""], "argument OUT: an empty name"),
        (["tiny", "."], "argument OUT: .: is a folder; name a file"),
        (["tiny", "{file}/"], ".onnx/: is a file; name a folder"),
        (["tiny", "{file}/tiny.onnx"], ".onnx: is a file; name a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported(export, small, trained_once, another_trained_once, arguments, words):
    known = {"run": trained_once, "other": another_trained_once, "file": small}
    ended = export(*(argument.format(**known) for argument in arguments))
    assert ended.code == 1
    assert words in ended.line


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_before_anything_is_traced(export, small_run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    ended = export(str(small_run), "small.onnx")
    assert (ended.code, "pip install" in ended.line) == (1, True)


# --- the file in place of a network ---------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys, time
import fer, fer.predict
assert fer.predict.main(["photo.png", "--network", "small.onnx", "--detector", "none", "--json"]) == 0
taken = time.process_time()
((face,),) = fer.Predictor("small.onnx", detector="none", coverage=0.8)(["photo.png"])
import fer.explain
assert fer.explain.main(["photo.png", "--network", "small.onnx", "--detector", "none", "--out", "explained"]) == 0
left = [name for name in ("torch", "pytorch_lightning", "hydra") if name in sys.modules]
assert fer.explain.main(["--data", "synthetic", "--network", "small.onnx", "--faces", "7", "--out", "of_val"]) == 0
import fer.evaluate
assert fer.evaluate.main(["small.onnx", "--data", "synthetic", "--tta", "ten_crop", "--out", "evaluated"]) == 0
left += [name for name in ("torch", "torchvision", "torchmetrics", "pytorch_lightning") if name in sys.modules]
print(face.emotion, taken, *left)
"""


def test_torch_is_not_imported(small, photo, network):
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    record, *_, line = ended.stdout.splitlines()
    ((face,),) = fer.Predictor(network, detector="none")([photo])
    emotion, seconds, *left = line.split()
    assert not left
    assert emotion == face.emotion
    assert float(seconds) < 1.5, "of a core, from the start to the answer for one picture"
    listed = json.loads(record)["faces"][0]
    assert listed["emotions"] == list(face.emotions)
    assert listed["probabilities"] == pytest.approx(face.probabilities, abs=1e-4)
    assert Path("of_val", "index.html").is_file()
    assert Path("evaluated", "val_ten_crop", "report.html").is_file()


def test_a_file_is_evaluated_on_the_cpu(small, evaluate):
    ended = evaluate("small.onnx", "--data", "synthetic", "--device", "gpu")
    assert (ended.code, "--device gpu" in ended.line) == (1, True)


def test_an_evaluation_has_the_networks_metrics(small, small_run, tmp_path):
    from fer.evaluate import main

    for network, out in ((small_run, "theirs"), (small, "ours")):
        assert main([str(network), "--data", "synthetic", "--tta", "flip", "--out", out, "--no-report"]) == 0
    theirs, ours = (metrics(tmp_path / name / "val_flip") for name in ("theirs", "ours"))
    for name in ("accuracy", "macro_f1", "nll", "brier", "ece", "calibrated", "sets", "parameters", "architecture"):
        assert_close(ours[name], theirs[name])
    assert ours["clean"]["n"] == theirs["clean"]["n"]  # the faces of the training are known from the file


def assert_close(ours, theirs, by=1e-4):
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert_close(ours[name], theirs[name], by)
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, other, by)
    else:
        assert ours == pytest.approx(theirs, abs=by)


def test_maps_by_occlusion_are_the_networks(small, small_run, photo, tmp_path, capfd):
    from fer.explain import main

    explain = runner(main, capfd)
    for network, out in ((small_run, "theirs"), (small, "ours")):
        ended = explain(str(photo), "--detector", "none", "--network", str(network), "--out", out)
        assert ended.code == 0, ended.err
    theirs, ours = (json.loads((tmp_path / name / "explain.json").read_text()) for name in ("theirs", "ours"))
    assert_close(ours["faces"][0]["probabilities"], theirs["faces"][0]["probabilities"])
    # blurred faces are rounded to the bytes that the file takes
    assert_close(ours["check"]["curves"], theirs["check"]["curves"], by=2e-3)
    assert ours["check"]["randomised"] == []
    for method in ("gradcam", "integrated_gradients"):
        ended = explain(str(photo), "--detector", "none", "--network", str(small), "--method", method)
        assert (ended.code, "occlusion" in ended.line) == (1, True)


# --- files that are no exports --------------------------------------------------------------------------------------


def cut_short(file, monkeypatch):
    file.write_bytes(file.read_bytes()[:-2000])


def foreign(file, monkeypatch):
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, file)


def of_other_classes(file, monkeypatch):
    restated(file, classes=["yes", "no"], sets=None)


def of_another_size(file, monkeypatch):
    restated(file, size=48)


def newer(file, monkeypatch):
    restated(file, format=2)


def without_sets(file, monkeypatch):
    restated(file, sets={"faces": 3, "at": {}})


def twice_the_same_class(file, monkeypatch):
    restated(file, classes=["happy"] * 7)


def too_large(file, monkeypatch):
    monkeypatch.setattr("fer.inference.exported.MOST_BYTES", 1000)


def without_the_runtime(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_short, "damaged"),
        (foreign, "fer.export"),
        (of_other_classes, "[2]"),
        (of_another_size, "48"),
        (newer, "newer version"),
        (without_sets, "fer.export"),
        (twice_the_same_class, "fer.export"),
        (too_large, "larger than 1,000 bytes"),
        (without_the_runtime, "pip install 'onnxruntime"),
    ],
)
def test_a_file_that_is_none_is_one_line(predict, small, photo, monkeypatch, change, words):
    change(small, monkeypatch)
    ended = predict(str(photo), "--network", str(small), "--detector", "none")
    assert ended.code == 1
    assert words in ended.line


def test_other_uses_name_what_takes_the_file(predict, small, photo, capfd):
    with pytest.raises(FerError, match=r"fer\.Predictor"):
        fer.load(small)
    Path("small.pt2").write_bytes(b"")
    assert "made from" in predict(str(photo), "--network", "small.pt2", "--detector", "none").line
    assert "CPU" in predict(str(photo), "--network", str(small), "--detector", "none", "--device", "gpu").line
    with pytest.raises(FerError, match="uint8"):
        ExportedNetwork(small).probabilities(np.zeros((1, 1, 48, 48), np.uint8))


def test_without_a_fitted_temperature_none_is_stated(small):
    network = ExportedNetwork(small)
    fitted = network.about.temperature
    assert ExportedModel(network).provenance.temperature == network.temperature == fitted != 1
    network.about = replace(network.about, temperature=1.0)  # as of networks that count equally
    assert ExportedModel(network).provenance.temperature is network.temperature is None


def test_the_code_of_its_model_card_runs(small, faces, tmp_path):
    from fer.evaluate import main as evaluate

    assert evaluate([str(small), "--data", "synthetic", "--out", "again"]) == 0
    card = (tmp_path / "again" / "val" / "model_card.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names = {"faces": faces}
    exec(code, names)
    assert_close(names["probabilities"], ExportedNetwork(small).probabilities(faces))


# --- several networks -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_evaluated_ensemble_is_one_graph(export, small_run, another_run, tmp_path):
    from fer.evaluate import main as evaluate

    runs = [str(small_run), str(another_run)]
    assert evaluate([*runs, "--weights", "val", "--coverage", "0.9", "--out", "both", "--no-report"]) == 0
    ended = export("both/val", "both.onnx", "--no-timing")
    assert ended.code == 0, ended.err
    together = metrics(tmp_path / "both" / "val")
    _, about = stated(tmp_path / "both.onnx")
    assert [one["weight"] for one in about["networks"]] == [one["weight"] for one in together["members"]]
    assert export(*runs, "equal.onnx", "--no-timing").code == 0
    assert evaluate(["equal.onnx", "--data", "synthetic", "--out", "equal", "--no-report"]) == 0
    equal = metrics(tmp_path / "equal" / "val")
    assert not equal["temperature_kept"]
    assert equal["temperature"] != 1  # fitted here, since none was exported
    assert about["sets"]["at"] == together["sets"]["thresholds"]["at"]
    assert evaluate(["both.onnx", "--data", "synthetic", "--out", "again", "--no-report"]) == 0
    again = metrics(tmp_path / "again" / "val")
    for name in ("accuracy", "nll", "brier", "calibrated"):
        assert_close(again[name], together[name])


@pytest.mark.slow
def test_a_program_of_torch_export(export, small_run, network, faces):
    assert export(str(small_run), "small.pt2", "--no-timing").code == 0
    extra = {"fer": ""}
    program = torch.export.load("small.pt2", extra_files=extra)
    assert json.loads(extra["fer"])["classes"] == list(network.hparams["classes"])
    given = torch.from_numpy(faces)
    torch.testing.assert_close(program.module()(given), network.probabilities(given), atol=1e-5, rtol=0)
    assert str(Path(fer.__file__).parent).encode() not in Path("small.pt2").read_bytes()
