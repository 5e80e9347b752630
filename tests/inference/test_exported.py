"""Exported files of strangers: small graphs, each with one thing wrong, and the line that refuses it."""

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fer.config.errors import FerError
from fer.data.crop import Box, Crop
from fer.data.labels import EMOTIONS
from fer.inference.exported import About, ExportedNetwork
from fer.inference.onnx_wire import names_other_files
from fer.inference.predictor import Predictor

SIZE = 32
FACES = np.random.default_rng(0).integers(0, 256, (3, 1, SIZE, SIZE), np.uint8)
NETWORK = {
    "file": "best.ckpt", "sha256": "0", "weights_sha256": "0", "architecture": "mlp", "weight": 1.0,
    "temperature": 1.0, "dataset": {"name": "fer2013"},
}  # fmt: skip
ABOUT = {
    "format": 1, "precision": "float32", "classes": list(EMOTIONS), "size": SIZE, "crop": Crop().contract(SIZE),
    "architecture": "mlp", "parameters": 7 * SIZE * SIZE, "networks": [NETWORK],
}  # fmt: skip
SOFTMAX = helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)
WEIGHTS = numpy_helper.from_array(
    np.random.default_rng(1).normal(0, 1e-4, (SIZE * SIZE, 7)).astype(np.float32), "weights"
)


def graph(*tail, constants=(), batch="batch", rows="batch"):
    """A network of one layer whose logits the nodes of ``tail`` turn into an output."""
    nodes = [
        helper.make_node("Cast", ["faces"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        *(tail or [SOFTMAX]),
    ]
    given = helper.make_tensor_value_info("faces", TensorProto.UINT8, [batch, 1, SIZE, SIZE])
    made = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [rows, 7])
    return helper.make_graph(nodes, "network", [given], [made], [WEIGHTS, *constants])


def model_of(made, **functions):
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, **functions)


def text_of(**changes):
    return json.dumps(ABOUT | changes)


def network_of(file, made=None, text=None):
    """Write a graph with its metadata, and open it."""
    model = model_of(made or graph())
    entry = model.metadata_props.add()
    entry.key, entry.value = "fer", text or text_of()
    file.write_bytes(model.SerializeToString())
    return ExportedNetwork(file)


@pytest.fixture
def opened(tmp_path):
    return functools.partial(network_of, tmp_path / "small.onnx")


def refused(opened, *arguments):
    with pytest.raises(FerError) as error:
        opened(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_file_predicts(opened):
    logits = FACES.reshape(3, -1).astype(np.float64) @ numpy_helper.to_array(WEIGHTS).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(opened().probabilities(FACES), expected, atol=1e-6)
    np.testing.assert_allclose(opened().probabilities(np.float64(FACES) / 255), expected, atol=1e-6)
    for wrong in (np.float64(FACES), np.full(FACES.shape, np.nan, np.float32), FACES.astype(np.float32) / 255 - 0.5):
        with pytest.raises(FerError, match="expected uint8, or floats from 0 to 1"):
            opened().probabilities(wrong)


# --- tensors in other files -----------------------------------------------------------------------------------------


def outside(name="values", location="secret.bin"):
    """A tensor whose values are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def constant(**attributes):
    return helper.make_node("Constant", [], ["c"], **attributes)


def graph_with(node):
    return helper.make_graph([node], "inner", [], [], [])


def sparse():
    made = onnx.SparseTensorProto(dims=[3])
    made.values.CopyFrom(outside())
    return made


def of_function(node):
    function = helper.make_function("mine", "f", [], ["c"], [node], [helper.make_opsetid("", 18)])
    return model_of(graph(), functions=[function])


def of_training(node):
    model = model_of(graph())
    model.training_info.add().algorithm.CopyFrom(graph_with(node))
    return model


def with_sparse():
    made = graph()
    made.sparse_initializer.append(sparse())
    return model_of(made)


def deeper(node):
    return helper.make_node("If", ["yes"], ["c"], then_branch=graph_with(node), else_branch=graph())


def without_location(tensor):
    """The list of the other file's keys alone; an old reader might take it without ``data_location``."""
    tensor.ClearField("data_location")
    return tensor


@pytest.mark.parametrize(
    "make",
    [
        lambda: model_of(graph(constants=[outside()])),
        lambda: model_of(graph(constants=[without_location(outside())])),
        with_sparse,
        lambda: model_of(graph(constant(value=outside()))),
        lambda: model_of(graph(constant(sparse_value=sparse()))),
        lambda: model_of(graph(constant(values=[numpy_helper.from_array(np.ones(2)), outside()]))),
        lambda: model_of(graph(deeper(deeper(constant(value=outside()))))),
        lambda: of_function(deeper(constant(value=outside()))),
        lambda: of_training(constant(value=outside())),
    ],
)  # fmt: skip
def test_tensors_in_other_files_are_found_wherever_they_are(make):
    model = make()
    assert names_other_files(model.SerializeToString())
    assert not names_other_files(model_of(graph(deeper(constant(value=WEIGHTS)))).SerializeToString())


@pytest.mark.parametrize("location", ["secret.bin", "/dev/zero", "*/_ORT_MEM_ADDR_/*"])
def test_a_file_with_tensors_in_other_files_is_refused(opened, tmp_path, monkeypatch, location):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(np.zeros(1, np.float32).tobytes())
    add = helper.make_node("Add", ["logits", "values"], ["sum"])
    softmax = helper.make_node("Softmax", ["sum"], ["probabilities"], axis=1)
    assert "stored in other files" in refused(opened, graph(add, softmax, constants=[outside(location=location)]))


def nested(levels):
    content = b""
    for level in range(levels):  # graph in attribute in node in graph ...
        number = (6, 5, 1)[level % 3]
        size, length = len(content), b""
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        content = bytes([number << 3 | 2]) + length + bytes([size]) + content
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x3a\x05\x0a", "longer than"),
        (b"\x08\xff", "cut short"),
        (b"\x08" + b"\xff" * 11, "too long"),
        (b"\x00\x01", "number 0"),
        (b"\x0b", "wire type 3"),
        (b"\xba\x80\x80\x80\x80\x01\x00", "number"),  # field 7 for a reader that keeps 32 bits of its key
        (b"\x0a" + b"\x80" * 10, "too long"),
        (b"\x3a\xf0\x01" + nested(300)[:240], "longer than"),
    ],
)
def test_bytes_that_are_no_file_are_refused(content, words):
    with pytest.raises(ValueError, match=words):
        names_other_files(content)


def test_the_walk_has_bounds(monkeypatch):
    deep = nested(300)
    with pytest.raises(ValueError, match="more than 100"):
        names_other_files(b"\x3a" + bytes([len(deep) & 0x7F | 0x80, len(deep) >> 7]) + deep)
    monkeypatch.setattr("fer.inference.onnx_wire.MOST_FIELDS", 10)
    with pytest.raises(ValueError, match="more than 10 fields"):
        names_other_files(b"\x08\x01" * 11)


# --- graphs ---------------------------------------------------------------------------------------------------------


def test_a_graph_of_a_fixed_number_of_faces_is_refused(opened):
    assert "for 1 faces at a time; expected any number" in refused(opened, graph(batch=1, rows=1))
    assert "4 faces at a time" in refused(opened, graph(rows=4))


@pytest.mark.parametrize(
    ("tail", "constants", "words"),
    [
        ([helper.make_node("Neg", ["logits"], ["probabilities"])], {}, "predicts no probabilities"),
        ([SOFTMAX, "Mul", 1.01], {}, "sums of a face from 1.01 to 1.01"),
        ([SOFTMAX, "Sub", np.float32([0.3, -0.3, 0, 0, 0, 0, 0])], {}, "values from -0."),
        (
            [helper.make_node("Concat", ["logits"] * 2, ["twice"], axis=0),
             helper.make_node("Softmax", ["twice"], ["probabilities"], axis=1)],
            {}, "(6, 7) for 3 faces; expected (3, 7)",
        ),
        (
            [helper.make_node("Shape", ["logits"], ["shape"]), helper.make_node("Mul", ["shape", "by"], ["twice"]),
             helper.make_node("Reshape", ["logits", "twice"], ["probabilities"])],
            {"by": [2, 1]}, "cannot be computed",
        ),
        (
            [helper.make_node("Shape", ["logits"], ["shape"]), helper.make_node("Mul", ["shape", "by"], ["vast"]),
             helper.make_node("ConstantOfShape", ["vast"], ["huge"]),
             helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
             helper.make_node("Add", ["logits", "most"], ["probabilities"])],
            {"by": [2**20, 2**20]}, "cannot be computed",
        ),
    ],
)  # fmt: skip
def test_what_is_no_row_of_probabilities_for_each_face_is_refused(opened, tail, constants, words):
    initializers = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    if tail[0] is SOFTMAX:
        _, operator, value = tail
        initializers.append(numpy_helper.from_array(np.float32(value), "by"))
        softmax = helper.make_node("Softmax", ["logits"], ["soft"], axis=1)
        tail = [softmax, helper.make_node(operator, ["soft", "by"], ["probabilities"])]
    network = opened(graph(*tail, constants=initializers, rows="rows"))
    assert words in refused(network.probabilities, FACES)


# --- metadata -------------------------------------------------------------------------------------------------------

PARITY = {"faces": 512, "of": "faces of val", "largest_difference": 1e-7, "equal": 1.0, "val": None}
VAL = {"faces": 9, "accuracy": [0.5, 0.5], "nll": [1.0, 1.0], "equal": 1.0}


def of_network(**changes):
    return {"networks": [NETWORK | changes]}


def of_crop(**changes):
    return {"crop": Crop().contract(SIZE) | changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": [1]}, {"crop": "x"}, {"classes": "abcdefg"}, {"networks": {"a": 1}}, {"networks": "x"},
        of_network(dataset=[1]), of_network(ancestors={}), of_network(ancestors=["x"]), of_network(teachers=3),
        of_network(pretrained={"name": 3}), of_network(weight="1"), of_network(temperature=None), of_network(sha256=1),
        {"card": "\ud800"}, of_network(dataset={"name": "d", "note\ud800": 1}),
        {"architecture": "a\nb"}, {"architecture": "\x1b[31m"}, {"architecture": ""}, {"architecture": 1},
        of_network(architecture="\u202ea"), of_network(dataset={"name": "a\nb"}),
        of_network(dataset={"name": {"x": 1}}),
        {"format": 0}, {"format": True}, {"format": 1.0}, {"format": None}, {"precision": "int4"},
        {"parameters": "many"}, {"parameters": True}, {"parameters": -1}, {"parameters": 1.5}, {"version": 1},
        {"size": True}, {"size": 32.0}, {"calibrated_on": 1}, {"parity": {"faces": 1}}, {"parity": 3},
        {"parity": PARITY | {"equal": "1"}}, {"parity": PARITY | {"of": 1}},
        {"parity": PARITY | {"largest_difference": float("nan")}}, {"parity": PARITY | {"faces": -1}},
        {"parity": PARITY | {"val": VAL | {"nll": [1.0]}}}, {"parity": PARITY | {"val": VAL | {"accuracy": [0, 2]}}},
    ],
)  # fmt: skip
def test_metadata_of_wrong_types_or_ranges_are_refused(changes):
    with pytest.raises(FerError, match=r"a\.onnx: its metadata were changed or damaged; .*fer\.export"):
        About.from_text(text_of(**changes), Path("a.onnx"))


def test_metadata_of_an_int8_file_with_its_check_are_read():
    about = About.from_text(text_of(precision="int8", parity=PARITY | {"val": VAL}), Path("a.onnx"))
    assert about.parity.val.accuracy == (0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": {}}, "margin None; expected 0.1 to 10"),
        (of_crop(margin=11), "margin 11; expected 0.1 to 10"),
        (of_crop(margin=float("nan")), "margin nan"),
        (of_crop(margin=True), "margin True"),
        (of_crop(shift=-2), "shift -2; expected -1 to 1"),
        (of_crop(filter="nearest"), "filter 'nearest'; fer knows 'bilinear, antialiased' alone"),
        (of_crop(outside="black"), "outside 'black'"),
        (of_crop(size=48), "size 48; fer knows 32"),
    ],
)
def test_a_crop_that_this_library_cannot_cut_is_refused(changes, words):
    with pytest.raises(FerError) as error:
        About.from_text(text_of(**changes), Path("a.onnx"))
    assert words in str(error.value)


def test_a_margin_and_a_shift_of_the_metadata_are_cut(opened):
    network = opened(None, text_of(**of_crop(margin=1.5, shift=0.1)))
    predictor = Predictor(network, detector="none")
    assert predictor.crop == Crop(1.5, 0.1)
    assert Predictor(network, detector="none", margin=2).crop == Crop(2, 0.1)
    ramp = Image.fromarray(np.add.outer(np.arange(200), np.arange(200)).clip(0, 255).astype(np.uint8))
    (answer,) = predictor.answers([ramp], [[Box(80, 80, 64, 64)]])
    np.testing.assert_array_equal(answer.crops[0], Crop(1.5, 0.1)(ramp, Box(80, 80, 64, 64), SIZE))
