"""onnxruntime-web: of the pinned hash, from npm, from a file or from a folder; else one line."""

import hashlib
import io
import tarfile
from base64 import b64encode

import pytest

from fer.config.errors import FerError
from fer.exports.web import runtime

CONTENTS = {runtime.SCRIPT: b"export {};", runtime.WASM: b"\0asm"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in place of the pinned one, whose hashes are pinned instead."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, contents in CONTENTS.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))
    file = tmp_path / "runtime.tgz"
    file.write_bytes(packed.getvalue())
    digest = b64encode(hashlib.sha512(packed.getvalue()).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", f"sha512-{digest}")
    pinned = {name: hashlib.sha256(contents).hexdigest() for name, contents in CONTENTS.items()}
    monkeypatch.setattr(runtime, "SHA256", pinned)
    return file


def npm(folder, monkeypatch, script):
    """Put a program in npm's place."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_package_is_taken_from_a_file_a_folder_and_npm(package, tmp_path, monkeypatch):
    assert runtime.files(package) == CONTENTS
    for part in ("dist", "package/dist", ""):
        folder = tmp_path / f"folder_{part.replace('/', '_')}"
        (folder / part).mkdir(parents=True)
        for name, contents in CONTENTS.items():
            (folder / part / name).write_bytes(contents)
        assert runtime.files(folder) == CONTENTS
    npm(tmp_path / "bin", monkeypatch, f'echo "$@" > {tmp_path}/asked; cp {package} "$6/"')
    assert runtime.files() == CONTENTS
    assert (tmp_path / "asked").read_text().startswith(f"pack {runtime.PACKAGE} --ignore-scripts")


def test_another_package_is_refused_with_both_hashes(package, tmp_path, monkeypatch):
    changed = tmp_path / "changed.tgz"
    changed.write_bytes(package.read_bytes() + b"\0")
    with pytest.raises(FerError, match=rf"changed\.tgz.*{runtime.PACKAGE}.*sha512-.*expected sha512-"):
        runtime.files(changed)
    npm(tmp_path / "bin", monkeypatch, f'cp {changed} "$6/"')
    with pytest.raises(FerError, match=r"hash.*expected sha512-"):
        runtime.files()
    (tmp_path / "folder").mkdir()
    with pytest.raises(FerError, match=runtime.SCRIPT.replace(".", r"\.")):
        runtime.files(tmp_path / "folder")
    for name in CONTENTS:
        (tmp_path / "folder" / name).write_bytes(b"changed")
    with pytest.raises(FerError, match=r"sha256.*expected"):
        runtime.files(tmp_path / "folder")


def test_without_npm_or_network_one_line_names_the_other_way(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for attempt in (runtime.files, lambda: runtime.check(None)):
        with pytest.raises(FerError, match=r"npm is missing.*--runtime"):
            attempt()
    npm(tmp_path / "bin", monkeypatch, "echo noise; echo 'npm error network ENOTFOUND' >&2; exit 1")
    with pytest.raises(FerError, match=r"ENOTFOUND.*--runtime"):
        runtime.files()
