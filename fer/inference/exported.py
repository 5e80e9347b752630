"""An exported network: one ONNX file that ONNX Runtime runs, without torch.

The file's metadata hold a JSON text under the key ``fer``. It has classes, size, crop, thresholds of prediction sets,
and how the network was made and checked. ``fer.exports`` writes such files. A file may be a stranger's. It is read
whole; its metadata and each answer are checked; one with tensors in other files is refused. ONNX Runtime runs nothing
but the operators of its graph.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, NotFinite
from fer.config.paths import expand_home
from fer.config.settings import MAX_SIZE, MIN_SIZE
from fer.data.crop import Crop
from fer.data.labels import are_classes
from fer.inference.onnx_wire import names_other_files
from fer.metrics import conformal
from fer.metrics.calibration import valid_temperature
from fer.metrics.conformal import Thresholds
from fer.system.files import contents
from fer.system.records import Json, has_types, is_plain, plain, read

SUFFIX = ".onnx"
KEY = "fer"  # of the metadata
FORMAT = 1  # version of the metadata; raise it when an older version could not read the file
INPUT, OUTPUT = "faces", "probabilities"
MOST_BYTES = 2**31 - 1  # of a file: the limit of its format
LONGEST, LONGEST_NAME = 2_000_000, 1000  # characters of the metadata; of a name in them
PRECISIONS = ("float32", "int8")
MARGINS, SHIFTS = (0.1, 10.0), (-1.0, 1.0)  # of a crop
AT_ONCE = 256  # faces through the graph together
MOST_OFF, ROUNDING = 1e-3, 1e-6  # of the sum of a face's probabilities from 1; of a probability above 1
INSTALL = "pip install 'onnxruntime>=1.32,<2'"

Images = NDArray[np.uint8] | NDArray[np.floating[Any]]  # faces (N, 1, S, S); floats are in [0, 1]


@dataclass(frozen=True)
class SourceNetwork:
    """A network that was exported.

    Args:
        file: name of its file.
        sha256: of the file.
        weights_sha256: of its weights alone.
        architecture: name of the network.
        weight: in the mean of an ensemble.
        temperature: by which its logits are divided in the graph.
        dataset: that it was trained on.
        ancestors: data sets of earlier trainings that its weights began from.
        pretrained: name, file and SHA-256 of pretrained weights.
        teachers: networks whose predictions were soft targets.
    """

    file: str
    sha256: str
    weights_sha256: str
    architecture: str
    weight: float
    temperature: float
    dataset: Json
    ancestors: tuple[Json, ...] = ()
    pretrained: Mapping[str, str] | None = None
    teachers: tuple[Json, ...] | None = None


@dataclass(frozen=True)
class OnVal:
    """Metrics of val: of the network that was exported, and of the file.

    Args:
        faces: number of faces.
        accuracy: of the network, then of the file.
        nll: of the network, then of the file; calibrated.
        equal: share of equal answers.
    """

    faces: int
    accuracy: tuple[float, ...]
    nll: tuple[float, ...]
    equal: float


@dataclass(frozen=True)
class Parity:
    """The file's probabilities beside those of the network that was exported.

    Args:
        faces: number of faces.
        of: where they are from, in words.
        largest_difference: of a probability.
        equal: share of equal answers.
        val: of an int8 file.
    """

    faces: int
    of: str
    largest_difference: float
    equal: float
    val: OnVal | None = None

    def _valid(self) -> bool:
        """Return whether the counts and shares are in their ranges, and two of each metric of val."""
        pairs = self.val is None or (
            len(self.val.accuracy) == len(self.val.nll) == 2 and all(0 <= share <= 1 for share in self.val.accuracy)
        )
        shares = [self.equal, self.largest_difference, *([] if self.val is None else [self.val.equal])]
        return pairs and self.faces >= 0 and all(0 <= share <= 1 for share in shares)


IN_GREY = f"{INPUT}: uint8 (batch, 1, size, size), grey, each cropped to the face"
IN_COLOUR = f"{INPUT}: uint8 (batch, 3, size, size), red, green and blue, each cropped to the face"


@dataclass(frozen=True)
class About:
    """What an exported file states of itself.

    Args:
        format: version of this record.
        precision: "float32" or "int8", of weights and activations.
        classes: names, in the order of the probabilities.
        size: S, side of the faces in pixels.
        crop: how faces are cut out, see ``fer.data.crop.Crop.contract``; for the detector ``haar``.
        architecture: of the network; several are joined by " + ".
        parameters: number of them.
        networks: that were exported; their probabilities are averaged.
        parity: the check that the file passed.
        temperature: by which the logits are divided, of an ensemble those of the mean; the graph has done so. It is 1
            where none was fitted.
        sets: thresholds of prediction sets for the file's probabilities; None where there are none.
        channels: 3 of a network that takes faces in red, green and blue; None of one that takes grey ones.
        faces: input of the graph.
        probabilities: output of the graph, calibrated.
        calibrated_on: of an int8 file the faces that gave the ranges of its activations, in words.
        version: of this library.
        card: the model card, Markdown; empty where the network has none.
    """

    format: int
    precision: str
    classes: tuple[str, ...]
    size: int
    crop: Json
    architecture: str
    parameters: int
    networks: tuple[SourceNetwork, ...]
    parity: Parity | None = None
    temperature: float = 1.0
    sets: Thresholds | None = None
    faces: str = IN_GREY
    probabilities: str = f"{OUTPUT}: float32 (batch, classes), softmax and temperature inside"
    channels: int | None = field(default=None, metadata={"optional": True})
    calibrated_on: str | None = field(default=None, metadata={"optional": True})
    version: str = "unknown"
    card: str = ""

    def as_text(self) -> str:
        """Return the JSON text of the metadata."""
        return json.dumps(plain(self), ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str, file: Path) -> "About":
        """Return what a file states, after a check.

        Raises:
            FerError: it is damaged, of a newer version, or describes no network of this library. Or it asks for faces
                that are cut out in another way than this library can.
        """
        if len(text) > LONGEST:
            raise FerError(f"{file}: its metadata have {len(text):,} characters; expected at most {LONGEST:,}")
        try:
            stored = json.loads(text)
            if isinstance(stored, dict) and isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
                raise FerError(
                    f"{file}: exported by a newer version of fer (format {stored['format']}, known up to {FORMAT})"
                )
            if not is_plain(stored):
                raise _changed(file)
            json.dumps(stored, ensure_ascii=False).encode()  # half a surrogate pair can be neither written nor printed
            about = read(cls, stored)
        except (LookupError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _changed(file) from error
        if not about._valid(stored):
            raise _changed(file)
        about._check_crop(file)
        return about

    def _valid(self, stored: Json) -> bool:
        """Return whether the values have the types and ranges of an export."""
        names = [self.architecture, *(network.architecture for network in self.networks)]
        names += [network.dataset["name"] for network in self.networks if network.dataset.get("name") is not None]
        return (
            has_types(self)
            and self.format >= 1
            and self.precision in PRECISIONS
            and self.channels in (None, 3)
            and MIN_SIZE <= self.size <= MAX_SIZE
            and self.parameters >= 0
            and bool(self.networks)
            and all(map(_is_name, names))
            and valid_temperature(self.temperature)
            and are_classes(self.classes)
            and (stored.get("sets") is None or conformal.valid(stored["sets"], len(self.classes)))
            and (self.parity is None or self.parity._valid())
        )

    @property
    def fitted_temperature(self) -> float | None:
        """The temperature that val gave; None where none was fitted, so that the graph divides by 1."""
        return None if self.temperature == 1 else self.temperature

    @property
    def face_crop(self) -> Crop:
        """How faces are cut out of pictures, for boxes like those of ``haar``."""
        return Crop(self.crop["margin"], self.crop["shift"])

    def _check_crop(self, file: Path) -> None:
        """Raise unless this library can cut faces out as the file asks.

        Raises:
            FerError: naming the part that it cannot.
        """
        for name, (low, high) in {"margin": MARGINS, "shift": SHIFTS}.items():
            value = self.crop.get(name)
            if isinstance(value, bool) or not isinstance(value, float | int) or not low <= value <= high:
                raise FerError(
                    f"{file}: its metadata ask for a crop with {name} {value!r}; expected {low:g} to {high:g}"
                )
        for name, value in self.face_crop.contract(self.size).items():
            stated = self.crop.get(name)
            if stated != value:
                raise FerError(f"{file}: its metadata ask for a crop with {name} {stated!r}; fer knows {value!r} alone")


def _is_name(value: object) -> bool:
    """Return whether a value may be the name of an architecture or a data set."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def _changed(file: Path) -> FerError:
    return FerError(f"{file}: its metadata were changed or damaged; export the network again with python -m fer.export")


def is_exported(path: object) -> bool:
    """Return whether a name is that of an exported file; its ending decides."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() == SUFFIX


def runtime() -> Any:
    """Return the module ``onnxruntime``.

    Raises:
        FerError: it is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise FerError(f"a network in an {SUFFIX} file needs ONNX Runtime: {INSTALL}") from error
    return onnxruntime


class ExportedNetwork:
    """Predicts with an exported file, on the CPU.

    Args:
        path: the file.
        threads: of the computation; None for all cores.

    Raises:
        FerError: ONNX Runtime is missing, or the file is missing, too large, damaged, or no export of this library.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self.file = expand_home(path)
        self._session = session(self.file, threads)
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise FerError(
                f"{self.file}: an ONNX file of another program (it has no metadata {KEY!r}); python -m fer.export "
                "writes those that fer reads"
            )
        self.about = About.from_text(text, self.file)
        self._check_graph()

    def _check_graph(self) -> None:
        """Raise unless input and output are those that the metadata state.

        Raises:
            FerError: naming both, or the graph has a fixed number of faces.
        """
        given, made = self._session.get_inputs(), self._session.get_outputs()
        fixed = [value.shape[0] for value in (*given, *made) if value.shape and isinstance(value.shape[0], int)]
        if fixed:
            raise FerError(f"{self.file}: its graph is for {fixed[0]} faces at a time; expected any number")
        actual = [(value.name, value.type, list(value.shape[1:])) for value in (*given, *made)]
        size, count = self.about.size, len(self.about.classes)
        expected = [(INPUT, "tensor(uint8)", [self.in_channels, size, size]), (OUTPUT, "tensor(float)", [count])]
        if actual != expected:
            raise FerError(f"{self.file}: its graph takes and gives {actual}; its metadata state {expected}")

    @property
    def emotions(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return tuple(self.about.classes)

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""
        return self.about.size

    @property
    def in_channels(self) -> int:
        """1 for grey faces, 3 for faces in colour."""
        return self.about.channels or 1

    @property
    def face_crop(self) -> Crop:
        """How faces are cut out of pictures, for boxes like those of ``haar``."""
        return self.about.face_crop

    @property
    def architecture(self) -> str:
        """Name of the network."""
        return self.about.architecture

    @property
    def temperature(self) -> float | None:
        """By which the graph divides the logits; None where none was fitted."""
        return self.about.fitted_temperature

    @property
    def sets(self) -> Thresholds | None:
        """Thresholds of the prediction sets."""
        return self.about.sets

    @property
    def trained_on(self) -> str | None:
        """Name of the data set."""
        return self.about.networks[0].dataset.get("name")

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        import hashlib

        return hashlib.sha256(contents(self.file, MOST_BYTES)).hexdigest()

    def probabilities(self, faces: Images) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C) of faces (N, 1, S, S), or (N, 3, S, S) in colour.

        Args:
            faces: uint8, or floats in [0, 1], which are rounded to bytes.

        Raises:
            FerError: the faces are of another shape, type or range, the graph cannot be computed, or it gives no row of
                probabilities for each face.
            NotFinite: a probability is NaN.
        """
        expected = (self.in_channels, self.image_size, self.image_size)
        known = faces.dtype == np.uint8 or np.issubdtype(faces.dtype, np.floating)
        if not known or faces.ndim != 4 or faces.shape[1:] != expected:
            raise FerError(
                f"faces: {faces.shape} of {faces.dtype}; expected uint8 (N, {', '.join(map(str, expected))}), or "
                "floats in [0, 1]"
            )
        if faces.dtype != np.uint8 and faces.size and not 0 <= faces.min() <= faces.max() <= 1:
            raise FerError(
                f"faces: {faces.dtype} from {faces.min():g} to {faces.max():g}; expected uint8, or floats from 0 to 1"
            )
        parts = [np.empty((0, len(self.emotions)), np.float32)]
        for start in range(0, len(faces), AT_ONCE):
            parts.append(self._computed(_bytes(faces[start : start + AT_ONCE])))
        return np.concatenate(parts)

    def _computed(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what the graph gives for faces, after a check that each row holds probabilities."""
        try:
            (rows,) = self._session.run([OUTPUT], {INPUT: faces})
        except Exception as error:  # ONNX Runtime's own classes, and MemoryError
            raise FerError(f"{self.file}: its graph cannot be computed ({_reason(error)})") from error
        expected = (len(faces), len(self.emotions))
        if rows.shape != expected:
            raise FerError(f"{self.file}: its graph gives {rows.shape} for {len(faces)} faces; expected {expected}")
        if not np.isfinite(rows).all():
            raise NotFinite(f"{self.file}: predicts values that are not finite; export the network again")
        sums = rows.sum(1, dtype=np.float64)
        if rows.min() < 0 or rows.max() > 1 + ROUNDING or np.abs(sums - 1).max() > MOST_OFF:
            raise FerError(
                f"{self.file}: predicts no probabilities: values from {rows.min():.4g} to {rows.max():.4g}, sums of "
                f"a face from {sums.min():.4g} to {sums.max():.4g}; expected 0 to 1, and sums of 1"
            )
        checked: NDArray[np.float32] = rows
        return checked


def _bytes(faces: Images) -> NDArray[np.uint8]:
    """Return faces as bytes, which the graph takes; values in [0, 1] are rounded."""
    values = faces if faces.dtype == np.uint8 else (faces * 255).round().clip(0, 255)
    return values.astype(np.uint8, copy=False)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


def session(path: Path, threads: int | None = None) -> Any:
    """Return ONNX Runtime's session of a file that is whole in itself.

    The bytes alone would not keep ONNX Runtime from the files that a tensor names: it looks for them in the current
    folder. Such a file is refused before ONNX Runtime sees it.

    Raises:
        FerError: ONNX Runtime is missing, or the file is missing, too large, damaged, or has tensors in other files.
    """
    onnxruntime = runtime()
    try:
        graph = contents(path, MOST_BYTES)
    except OSError as error:
        raise FerError(f"{path}: {error.strerror or error}") from error
    try:
        elsewhere = names_other_files(graph)
    except ValueError as error:
        raise _damaged(path, error) from error
    if elsewhere:
        raise FerError(f"{path}: has tensors that are stored in other files; expected one file that holds all of them")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # the one that was looked through
    options.log_severity_level = 4  # what fails is reported in our words
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes, which differ by the kind of damage
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FerError:
    return FerError(f"{path}: damaged, cut short, or no ONNX file ({_reason(error)})")
