"""The folder of a page that predicts in the tab: written whole or not at all."""

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fer
from fer.config.errors import FerError
from fer.exports.check import OF_TRAINING, CheckData
from fer.exports.export import Outcome, export
from fer.exports.web import runtime
from fer.exports.web.detector import cascade_json, rules
from fer.inference import detect, explain, predictor
from fer.inference.exported import MOST_BYTES, ExportedNetwork
from fer.inference.network import UNNAMED
from fer.metrics.conformal import By
from fer.reports.explanation import overlay
from fer.reports.theme import PAPER
from fer.serving import card, page
from fer.system.files import PART, UNREADABLE, contents, moved_into, read_json, why

HERE = Path(__file__).parent
SCRIPTS = (
    "backend.js", "cascade.js", "crop.js", "faces.js", "loaded.js", "maps.js", "network.js", "opened.js",
    "picture.js", "resample.js", "upright.js", "worker.js",
)  # fmt: skip
ABOUT, NETWORK = "network.json", "network.onnx"
SCRIPT, WASM = "onnxruntime.js", "onnxruntime.wasm.gz"
MOST_FILE, MOST_PIXELS = 64 * 2**20, 100_000_000  # bytes and pixels of a picture: a tab has less memory than a machine
MAPS = 3  # faces of a picture with a map, the largest; a map takes 121 predictions
# the browser itself keeps pictures in the tab: no script may reach another host
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
PNM = ",.pgm,.ppm"  # what the chooser of fer serve offers beside the browser's own formats
CHARSET = '<meta charset="utf-8">'  # after which a page gets its policy
PRIVACY = "Pictures never leave this tab: network and face detector run in it, and nothing is sent to any server."


@dataclass(frozen=True)
class Written:
    """A page that was written.

    Args:
        outcome: of the export of its network.
        files: name -> bytes.
    """

    outcome: Outcome
    files: Mapping[str, int]


def export_page(
    networks: Sequence[str], name: str, folder: Path, *, data: CheckData = OF_TRAINING,
    coverage: float | None = None, by: By = "all", given: Path | None = None,
) -> Written:  # fmt: skip
    """Export networks as one, and write the folder of a page that predicts with it.

    Args:
        networks: see ``fer.exports.source.source_of``.
        name: of the network, on the page.
        folder: to write, see ``write``.
        data: for the check of the export.
        coverage: see ``write``.
        by: see ``write``.
        given: see ``write``.

    Raises:
        FerError: see ``fer.exports.export.export`` and ``write``.
    """
    _check_free(folder)  # before the work
    runtime.check(given)
    with tempfile.TemporaryDirectory() as temporary:
        outcome = export(networks, Path(temporary) / NETWORK, int8=False, data=data, speed=False, name=name)
        network = ExportedNetwork(Path(temporary) / NETWORK)
        files = write(network, name, folder, coverage=coverage, by=by, given=given)
    return Written(outcome, files)


def write(
    network: ExportedNetwork, name: str, folder: Path, *, coverage: float | None = None, by: By = "all",
    given: Path | None = None,
) -> Mapping[str, int]:  # fmt: skip
    """Write a folder that any static host serves, and return the bytes of its files by their names.

    Args:
        network: an exported file in 32 bits; 8 bits are slower in browsers.
        name: of the network, on the page.
        folder: to write; one that an earlier export has written is replaced.
        coverage: promised share of faces whose prediction set holds the label; None for 0.9 where there are thresholds.
        by: the promise of a page just opened, "all" or "class"; visitors choose where there are thresholds by class.
        given: onnxruntime-web, see ``runtime.files``; None: npm fetches it.

    Raises:
        FerError: the folder holds other files or cannot be written, the network has no thresholds for the promise,
            OpenCV is missing, or onnxruntime-web cannot be had.
    """
    folder = folder.resolve()
    _check_free(folder)
    before = _written_before(folder)
    about = described(network, name, coverage, by, detect.Haar())
    files = _files(network, about, given)
    part = folder.with_name(f".{folder.name}.{os.getpid()}{PART}")
    try:
        part.mkdir(parents=True)
        for entry, content in files.items():
            (part / entry).write_bytes(content)
        moved_into(part, folder)
        for file in [entry for entry in folder.iterdir() if entry.name in before - files.keys()]:
            file.unlink()
    except OSError as error:
        raise FerError(f"{folder}: could not be written ({why(error)})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {entry: len(content) for entry, content in files.items()}


def _check_free(folder: Path) -> None:
    """Raise unless a folder is missing, empty, or an earlier export to which nothing was added.

    Raises:
        FerError: naming what is in the way.
    """
    if folder.exists() and not folder.is_dir():
        raise FerError(f"{folder}: is a file; expected a folder that is new or empty")
    names = {file.name for file in folder.iterdir()} if folder.exists() else set()
    if others := sorted(names - _written_before(folder)):
        raise FerError(f"{folder}: holds {others[0]!r}, which no export has written; choose a new or empty folder")


def _written_before(folder: Path) -> set[str]:
    try:
        return set(read_json(folder / ABOUT)["files"])
    except UNREADABLE:
        return set()


def _files(network: ExportedNetwork, about: Mapping[str, object], given: Path | None) -> Mapping[str, bytes]:
    """Return the contents of all files by their names; ``about`` is that of ``described``."""
    script, wasm = (runtime.files(given)[file] for file in (runtime.SCRIPT, runtime.WASM))
    files = dict(page.files()) | {file: contents(HERE / file) for file in SCRIPTS}
    files |= {
        "index.html": _guarded(_decodable(files["index.html"].decode()), '<script src="opened.js"></script>'),
        "card.html": _guarded(card.page(network.about.card or card.without_card(network))),
        "cascade.json": cascade_json(detect.Haar().file).encode(),
        NETWORK: contents(network.file, MOST_BYTES),
        SCRIPT: script,
        WASM: gzip.compress(wasm, mtime=0),  # not every host compresses, and every browser can unpack
        "licences.txt": contents(HERE / "licences.txt"),
    }
    files[ABOUT] = json.dumps({**about, "files": sorted([*files, ABOUT])}, ensure_ascii=False).encode()
    return files


def described(
    network: ExportedNetwork, name: str, coverage: float | None, by: By, haar: detect.Haar
) -> Mapping[str, object]:
    """Return what the page's scripts have to know: of the network, the crop, the detector, the maps and the limits."""
    about = network.about
    coverage, threshold = predictor.threshold_of(network, coverage)
    choice = by == "class" or (network.sets is not None and bool(network.sets.by_class))
    limits = predictor.threshold_of(network, coverage, "class")[1] if choice else None
    return {
        "network": name,
        "classes": list(about.classes),
        "size": about.size,
        "channels": network.in_channels,
        "file": NETWORK,
        "runtime": WASM,
        "card": "card.html",
        "coverage": coverage,
        "coverage_by": by,
        "threshold": threshold,
        "thresholds": None if limits is None else np.ravel(limits).tolist(),  # of each class, for the other promise
        "unpromised": predictor.unpromised(network, coverage, "class") if choice else (),
        "crop": {"margin": haar.crop.margin, "shift": haar.crop.shift},
        "search": rules(),
        "maps": {
            "patch": explain.PATCH,
            "positions": explain.POSITIONS,
            "side": overlay.SIDE,
            "tint": overlay.MOST_TINT,
            "colours": {"for": _rgb(overlay.FOR), "against": _rgb(overlay.AGAINST)},
        },
        "limits": {
            "bytes": MOST_FILE,
            "pixels": MOST_PIXELS,
            "least_side": predictor.LEAST_SIDE,
            "small_side": predictor.SMALL_SIDE,
            "sure": predictor.SURE,
            "maps": MAPS,
        },
        "live": True,  # whether frames of the camera are predicted one after the other
        "privacy": PRIVACY,
        "made": f"Network {name} ({about.architecture}, trained on {network.trained_on or UNNAMED}), detector "
        f"{haar.name}, fer {fer.__version__}.",
    }


def _rgb(role: str) -> list[int]:
    return list(bytes.fromhex(PAPER[role].removeprefix("#")))


def _decodable(text: str) -> str:
    """Return the page whose chooser offers no PNM, which browsers cannot decode."""
    assert PNM in text
    return text.replace(PNM, "", 1)


def _guarded(text: str, more: str = "") -> bytes:
    """Return a page that keeps its scripts from reaching any other host."""
    assert CHARSET in text
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return text.replace(CHARSET, CHARSET + policy + more, 1).encode()
