"""A wheel, built and installed elsewhere, trains and holds its configuration."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import SMALL, metrics

import fer

ROOT = Path(fer.__file__).parents[1]


@pytest.mark.slow
@pytest.mark.anew
@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="runs from a checkout")
def test_a_wheel_trains_elsewhere(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("fer_lightning-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"fer/conf/{file.relative_to(ROOT / 'conf')}" for file in (ROOT / "conf").rglob("*.yaml")}
    networks = {f"fer/models/zoo/{name}" for name in ("tiny.safetensors", "tiny.md", "README.md")}
    parts = ("index.html", "page.js", "backend.js", "orientation.js")
    page = {"fer/serving/openapi.json", *(f"fer/serving/page/{name}" for name in parts)}
    assert shipped | networks | page | {"fer/reports/html.css"} <= names
    assert not any(name.startswith(("tests/", "outputs/", "conf/")) for name in names)
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = subprocess.run(
        [sys.executable, "-c", "import fer; print(fer.__file__, fer.load('tiny').architecture)"],
        cwd=elsewhere, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
    assert where.stdout.split()[-1] == "resnet9"
    script = subprocess.run(
        [sys.executable, str(site / "bin" / "fer"), "--version"], cwd=elsewhere, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert script.stdout.strip() == f"fer {wheel.name.split('-')[1]}"
    command = [sys.executable, "-m", "fer.train", *SMALL, "logger.report=true", "hydra.run.dir=out"]
    subprocess.run(command, cwd=elsewhere, env=environment, check=True)
    assert (elsewhere / "out" / "report.html").exists()
    assert metrics(elsewhere / "out")["versions"]["fer"] == wheel.name.split("-")[1]
