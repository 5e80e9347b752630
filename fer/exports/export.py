"""One export, from networks to a file.

Networks are traced, written in the format of the file's ending, opened again, checked and timed.
"""

import io
import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.exports import onnx_file
from fer.exports.check import OF_TRAINING, CheckData, ParityCheck, Predict, refuse
from fer.exports.graph import traced
from fer.exports.source import Source, source_of
from fer.exports.speed import Speed, timed
from fer.inference.exported import KEY, SUFFIX, About, ExportedNetwork
from fer.inference.loaded import LoadedNetwork
from fer.models import checkpoints, safetensors
from fer.models.share import description_of, titled, without_folders
from fer.system.files import check_beside, why, written_whole
from fer.system.records import plain

log = logging.getLogger(__name__)

PT2 = ".pt2"


@dataclass(frozen=True)
class Outcome:
    """What was exported.

    Args:
        files: that were written, the network first.
        about: what the network's file states.
        speeds: of the network and of the file; empty where they were not measured.
    """

    files: Sequence[Path]
    about: About
    speeds: Sequence[Speed]


def export(
    networks: Sequence[str],
    file: Path,
    *,
    int8: bool,
    speed: bool,
    data: CheckData = OF_TRAINING,
    name: str | None = None,
) -> Outcome:
    """Write networks as one file.

    Args:
        networks: see ``fer.exports.source.source_of``.
        file: to write; its ending is the format.
        int8: 8 bits in place of 32, of an ``.onnx``.
        speed: measure the faces a second.
        data: for the check and the ranges of int8.
        name: of the network in its card; None for that of the file.

    Raises:
        FerError: the ending is unknown, a network is bad, or data or a package are missing. Or the file cannot be
            written, would replace another one, or predicts something else than the network.
    """
    kind = _format_of(file, int8=int8)
    if kind is Weights:
        check_beside(file, _beside(file))
    source = source_of(networks)
    source = replace(source, card=titled(source.card, name or file.stem))
    if kind is Weights and len(source.members) > 1:
        raise FerError(f"{file}: holds the weights of one network; export an ensemble as .onnx or .pt2")
    check = ParityCheck(source, data)
    _ = check.sample  # missing data are reported before the network is traced, which takes long
    made = kind(source, check)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        about = written(file, made)
        files = [file, *_written_beside(file, made, about)]
    except OSError as error:
        raise FerError(f"{file}: could not be written ({why(error)})") from error
    if speed:
        log.info("measuring faces a second ...")
    speeds = timed({"PyTorch": source.probabilities, **made.predictors(file)}, source.shape) if speed else []
    return Outcome(files, about, speeds)


def _traced(source: Source) -> torch.export.ExportedProgram:
    log.info("tracing the network ...")
    return traced(source)


class Format:
    """A format of exported files.

    Args:
        source: the networks.
        check: the faces that the file is checked on.
    """

    def __init__(self, source: Source, check: ParityCheck) -> None:
        self.source, self.check = source, check

    def about(self) -> About:
        """Return what the file states before its check."""
        return self.source.about()

    def content(self, about: About) -> bytes:
        """Return the bytes of the file."""
        raise NotImplementedError

    def opened(self, file: Path) -> Predict:
        """Return what the file predicts, read from the disk."""
        raise NotImplementedError

    def checked(self, file: Path, about: About) -> About:
        """Return what the file states after its check."""
        return replace(about, parity=self.check.parity(self.opened(file)))

    def predictors(self, file: Path) -> Mapping[str, Predict]:
        """Return name -> what predicts on one thread, of the file and of what it was made of."""
        return {}


class Onnx(Format):
    """An ONNX file in 32 bits."""

    @cached_property
    def whole(self) -> Any:
        """The graph in 32 bits, ONNX's ``ModelProto``."""
        return onnx_file.in_32_bits(_traced(self.source))

    @property
    def model(self) -> Any:
        """The graph that is written."""
        return self.whole

    def content(self, about: About) -> bytes:
        """Return the bytes of the file."""
        return onnx_file.with_metadata(self.model, about)

    def opened(self, file: Path) -> Predict:
        """Return what the file predicts, read from the disk."""
        return ExportedNetwork(file).probabilities

    def predictors(self, file: Path) -> Mapping[str, Predict]:
        """Return name -> predictor of the file on one thread."""
        return {"ONNX": ExportedNetwork(file, threads=1).probabilities}


class Int8(Onnx):
    """An ONNX file in 8 bits."""

    @cached_property
    def _model(self) -> Any:
        return onnx_file.in_8_bits(self.whole, self.check.calibration_sample[0])

    @property
    def model(self) -> Any:
        """The graph in 8 bits."""
        return self._model

    def in_32_bits(self) -> Onnx:
        """Return the same graph in 32 bits."""
        made = Onnx(self.source, self.check)
        made.whole = self.whole
        return made

    def about(self) -> About:
        """Return what the file states before its check."""
        return replace(self.source.about("int8"), calibrated_on=self.check.calibration_sample[1])

    def checked(self, file: Path, about: About) -> About:
        """Return what the file states after its check on val, with thresholds for its own probabilities."""
        parity, sets = self.check.parity_on_val(self.opened(file))
        return replace(about, parity=parity, sets=sets)

    def predictors(self, file: Path) -> Mapping[str, Predict]:
        """Return name -> predictor on one thread: of the file, and of the same graph in 32 bits."""
        with tempfile.TemporaryDirectory() as temporary:
            whole = Path(temporary) / f"whole{SUFFIX}"
            made = self.in_32_bits()
            whole.write_bytes(made.content(made.about()))
            return {**made.predictors(whole), "int8": ExportedNetwork(file, threads=1).probabilities}


class Program(Format):
    """A program of ``torch.export``."""

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The graph."""
        return _traced(self.source)

    def content(self, about: About) -> bytes:
        """Return the bytes of the file."""
        stream = io.BytesIO()
        torch.export.save(self.program, stream, extra_files={KEY: about.as_text()})
        return stream.getvalue()

    def opened(self, file: Path) -> Predict:
        """Return what the file predicts, read from the disk."""
        module = torch.export.load(io.BytesIO(file.read_bytes())).module()

        @torch.inference_mode()
        def predict(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
            predicted: NDArray[np.float32] = module(torch.from_numpy(faces)).numpy()
            return predicted

        return predict

    def predictors(self, file: Path) -> Mapping[str, Predict]:
        """Return name -> predictor of the file on one thread."""
        return {"torch.export": self.opened(file)}


class Weights(Format):
    """A safetensors file with the weights in 32 bits, which this library loads too."""

    def content(self, about: About) -> bytes:
        """Return the bytes of the file."""
        member = self.source.members[0]
        description = {
            **description_of(checkpoints.read(member.file)),
            "temperature": about.temperature,
            "sets": None if about.sets is None else plain(about.sets),
        }
        text = without_folders(json.dumps(description))
        return safetensors.to_bytes(member.weighted.state_dict(), {"format": "pt", checkpoints.METADATA: text})

    def opened(self, file: Path) -> Predict:
        """Return what the file predicts, read from the disk."""
        return LoadedNetwork(checkpoints.rebuild(checkpoints.read_shared(file), file)).probabilities


FORMATS: Mapping[str, Callable[[Source, ParityCheck], Format]] = {
    SUFFIX: Onnx,
    PT2: Program,
    safetensors.SUFFIX: Weights,
}


def _format_of(file: Path, *, int8: bool) -> Callable[[Source, ParityCheck], Format]:
    """Return the format of a file, after a check that its packages are here.

    Raises:
        FerError: no format has this ending, int8 is not of this format, or a package is missing.
    """
    kind = FORMATS.get(file.suffix)
    if kind is None:
        raise FerError(f"{file}: expected a name that ends in {', '.join(FORMATS)}, or FOLDER/ for a page")
    if int8 and kind is not Onnx:
        raise FerError(f"--int8: applies to {SUFFIX} files, not to {file.suffix}; leave it out")
    if kind is Onnx:
        onnx_file.check_packages()
    return Int8 if int8 else kind


def written(file: Path, made: Format) -> About:
    """Write a file, and return what it states. It gets its name after its check alone.

    Raises:
        FerError: it predicts something else than the network.
        OSError: it cannot be written.
    """
    about = made.about()
    log.info("checking %s ...", file.name)
    with written_whole(file, binary=True) as stream:
        part = Path(stream.name)
        for _ in range(2):  # the second time with the outcome of the check in it
            stream.seek(0)
            stream.truncate()
            stream.write(made.content(about))
            stream.flush()
            about = made.checked(part, about)
            assert about.parity is not None
            refuse(file.name, about.parity)
    return about


def _beside(file: Path) -> Path:
    return file.with_suffix(".json")


def _written_beside(file: Path, made: Format, about: About) -> list[Path]:
    """Write what the file states beside a file of weights, as JSON, and return that file."""
    if not isinstance(made, Weights):
        return []
    beside = _beside(file)
    with written_whole(beside) as stream:
        json.dump(plain(about), stream, ensure_ascii=False, indent=1)
    return [beside]
