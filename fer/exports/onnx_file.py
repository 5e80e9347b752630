"""The graph as the bytes of an ONNX file, in 32 or 8 bits.

The ranges of 8 bits come from faces of train.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from fer.config.errors import FerError
from fer.inference.exported import INPUT, KEY, OUTPUT, About, runtime

OPSET = 20
AT_ONCE = 64  # faces of a step of the calibration
# what computes in 8 bits; the division by the temperature, the last softmax and what follows it stay in 32
QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Concat")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
INSTALL = "pip install 'fer-lightning[export]'"


def onnx() -> Any:
    """Return the module ``onnx``.

    Raises:
        FerError: it or what it works with is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise FerError(f"writing an ONNX file needs onnx and onnxscript: {INSTALL}") from error
    return onnx


def check_packages() -> None:
    """Raise unless what writes and opens an ONNX file is here.

    Raises:
        FerError: naming the remedy.
    """
    onnx()
    runtime()


def in_32_bits(program: ExportedProgram) -> Any:
    """Return the graph as ONNX's ``ModelProto``, without traces of how it was made.

    Raises:
        FerError: onnx is missing, or the network has an operator that ONNX has not.
    """
    onnx()
    try:
        with _quiet():
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT],
                external_data=False, verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:200]
        raise FerError(
            f"the network cannot be written as ONNX ({reason}); export it as .pt2 or .safetensors"
        ) from error
    assert made is not None
    return _plain(made.model_proto)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporter and quantiser from printing their steps; what fails is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _plain(model: Any) -> Any:
    """Return a model whose first axis is called batch, without stack traces, which name files of this machine."""
    graph = model.graph
    for one in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del one.metadata_props[:]
        one.doc_string = ""
    del graph.value_info[:]
    for one in (*graph.input, *graph.output):
        one.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def with_metadata(model: Any, about: About) -> bytes:
    """Return the bytes of a file that states what it is."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, about.as_text()
    model.producer_name, model.producer_version = "fer", about.version
    content: bytes = model.SerializeToString()
    return content


def in_8_bits(model: Any, faces: NDArray[np.uint8]) -> Any:
    """Return a model whose weights and activations have 8 bits: static quantisation, a scale for each channel.

    Weights use 7 of their bits: processors without 8-bit dot products (VNNI) add two products in 16 bits, which larger
    weights would overflow.

    Args:
        model: in 32 bits.
        faces: (N, 1, S, S) of train, which give the ranges of the activations.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as temporary, _quiet():
        given, prepared, made = (Path(temporary) / f"{name}.onnx" for name in ("given", "prepared", "made"))
        onnx().save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)  # which knows no mean of several networks
        quantize_static(
            prepared, made, _Served(faces), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=_of_probabilities(onnx().load(prepared)),
        )  # fmt: skip
        return onnx().load(made)


def _of_probabilities(model: Any) -> list[str]:
    """Return the names of the nodes that compute with probabilities: the last softmax, and what follows it.

    A softmax within a network, as attention has it, is followed by layers with weights.
    """
    nodes = list(model.graph.node)  # in the order of their computation
    within: set[str] = set()  # values of layers with weights, and those on which they depend
    for node in reversed(nodes):
        if node.op_type in WEIGHTED or within.intersection(node.output):
            within.update((*node.input, *node.output))
    after: set[str] = set()
    for node in nodes:
        if node.op_type == "Softmax" or after.intersection(node.input):
            after.update(node.output)
    return [node.name for node in nodes if (after - within).intersection(node.output)]


class _Served:
    """Serves the faces of the calibration as ONNX Runtime asks for them."""

    def __init__(self, faces: NDArray[np.uint8]) -> None:
        self._parts = iter([faces[start : start + AT_ONCE] for start in range(0, len(faces), AT_ONCE)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the input of the next step, or None after the last."""
        part = next(self._parts, None)
        return None if part is None else {INPUT: part}
