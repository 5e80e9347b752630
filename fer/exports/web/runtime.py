"""onnxruntime-web, which runs the network in the tab.

npm fetches it; version and hashes are pinned here. It is no part of the wheel. The WebAssembly has 14 MB, and 3.7 MB as
the folder keeps it.
"""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from fer.config.errors import FerError, in_one_line
from fer.system.files import contents, readable

PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
SHA256: Mapping[str, str] = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
MOST_BYTES = 256 * 2**20  # of the package; it has 33 MB
PATIENCE = 600  # seconds for npm
ELSEWHERE = f"or run `npm pack {PACKAGE}` where it works, and give --runtime FILE.tgz"


def check(given: Path | None) -> None:
    """Raise where it is clear at once that ``files`` cannot succeed.

    Raises:
        FerError: npm is missing, or there is nothing at the path.
    """
    if given is None:
        _npm()
    elif not given.exists():
        raise FerError(f"--runtime {given}: no such file or folder; expected {PACKAGE} as .tgz, or a folder with it")


def files(given: Path | None = None) -> Mapping[str, bytes]:
    """Return the contents of ``SCRIPT`` and ``WASM``.

    Args:
        given: the package's ``.tgz``, or a folder that holds the files, such as ``node_modules/onnxruntime-web``. None:
            npm fetches the package from the registry that it is configured for.

    Raises:
        FerError: npm is missing or cannot fetch the package, or the contents are not those of the pinned version.
    """
    if given is None:
        with tempfile.TemporaryDirectory() as folder:
            return _of_package(_fetched(Path(folder)))
    if given.is_dir():
        return _of_folder(given)
    return _of_package(given)


def _npm() -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise FerError(f"npm is missing, and the page needs {PACKAGE}: install Node.js, {ELSEWHERE}")
    return npm


def _fetched(folder: Path) -> Path:
    """Return the package's file, fetched by npm into a folder."""
    command = [_npm(), "pack", PACKAGE, "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise FerError(f"npm has not fetched {PACKAGE} in {PATIENCE} s: check the network, {ELSEWHERE}") from error
    packed = next(iter(folder.glob("*.tgz")), None)
    if ended.returncode or packed is None:
        reason = (
            in_one_line((ended.stderr or ended.stdout).strip().split("\n")[-1])[:200] or f"exit code {ended.returncode}"
        )
        raise FerError(f"npm cannot fetch {PACKAGE} ({reason}): check the network, {ELSEWHERE}")
    return packed


def _of_package(file: Path) -> Mapping[str, bytes]:
    with readable(file):
        packed = contents(file, MOST_BYTES)
    integrity = "sha512-" + b64encode(hashlib.sha512(packed).digest()).decode()
    if integrity != INTEGRITY:
        raise FerError(f"{file}: is not {PACKAGE}: its hash is {integrity}; expected {INTEGRITY}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {name: _member(archive, f"package/dist/{name}") for name in SHA256}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    assert stream is not None  # the hash of the archive was right
    return stream.read()


def _of_folder(folder: Path) -> Mapping[str, bytes]:
    files = {}
    for name, expected in SHA256.items():
        file = next((one for part in ("dist", "package/dist", "") if (one := folder / part / name).is_file()), None)
        if file is None:
            raise FerError(f"--runtime {folder}: has no {name}; expected the contents of {PACKAGE}")
        with readable(file):
            files[name] = contents(file, MOST_BYTES)
        actual = hashlib.sha256(files[name]).hexdigest()
        if actual != expected:
            raise FerError(f"{file}: is not of {PACKAGE}: its sha256 is {actual}; expected {expected}")
    return files
