"""The page's scripts in node, without a browser."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fer.exports.web

SCRIPTS = Path(fer.exports.web.__file__).parent
READ = """
import { readFileSync, writeFileSync } from "node:fs";
const given = JSON.parse(readFileSync("given.json"));
const grey = (name) => {
  const [width, height] = given.sizes[name];
  return { pixels: new Uint8Array(readFileSync(`${name}.grey`)), width, height };
};
"""


def run(folder: Path, script: str, pictures, **given):
    """Return the JSON that a module prints.

    Args:
        folder: for the scripts and the pictures.
        script: the module; ``grey(name)`` is a picture, ``given`` what is given.
        pictures: name -> grey picture (PIL).
        given: plain values.
    """
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node, which runs the page's scripts")
    folder.mkdir(exist_ok=True)
    for file in SCRIPTS.glob("*.js"):
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    for name, picture in pictures.items():
        (folder / f"{name}.grey").write_bytes(np.asarray(picture).tobytes())
    sizes = {name: picture.size for name, picture in pictures.items()}
    (folder / "given.json").write_text(json.dumps(given | {"sizes": sizes}))
    (folder / "test.js").write_text(READ + script)
    ended = subprocess.run([program, "test.js"], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
