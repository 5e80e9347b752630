"""The order of the packages: each imports from those above it alone, and heavy imports are late."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fer.__main__

PACKAGE = Path(fer.__file__).parent

# from the ground up: a package imports from itself and from rows above; packages of one row do not know each other
COMMANDS = {*fer.__main__.COMMANDS, "__main__", "__init__"} - {"bench"}  # bench stands above its benchmarks
ORDER = [
    {"config"},
    {"system"},
    {"metrics"},
    {"optim"},
    {"data", "runs"},
    {"models"},
    {"inference"},
    {"evaluation", "reports"},
    {"serving"},
    {"training", "exports"},
    {"sweeps"},
    {"campaign"},
    COMMANDS,
    {"benchmarks"},
    {"bench"},
]
WITHOUT_TORCH = {"config", "runs", "reports", "sweeps", *COMMANDS}  # --help and pages need no torch
HEAVY = {"torch", "torchvision", "pytorch_lightning", "torchmetrics", "tensorboard"}


def package(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(file: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    imported = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    return imported


def modules() -> list[Path]:
    return [file for file in sorted(PACKAGE.rglob("*.py")) if "conf" not in file.parts]


def test_every_module_has_a_row():
    assert {package(file) for file in modules()} == set().union(*ORDER), "ORDER above has a row for each package"


def test_the_root_holds_commands_and_packages_alone():
    assert {file.stem for file in PACKAGE.glob("*.py")} == COMMANDS | {"bench"}, "fer/__main__.py lists the commands"


def test_imports_point_to_rows_above():
    row = {name: number for number, names in enumerate(ORDER) for name in names}
    for file in modules():
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "fer" and len(parts) > 1 and parts[1] in row and parts[1] != package(file):
                assert row[parts[1]] < row[package(file)], f"{file.relative_to(PACKAGE)} imports {name}"


def test_the_files_on_the_way_of_the_data_call_each_other():
    way = (PACKAGE.parent / "DESIGN.md").read_text().partition("To follow `")[2].partition("[docs/")[0]
    files = [PACKAGE / f"{name}.py" for name in re.findall(r"`((?:\w+/)*\w+)`", way)]
    registering = [PACKAGE / name / "__init__.py" for name in ("models", "data/readers")]  # networks, readers
    called = set().union(*map(imports, [*files, *registering]))
    assert len(files) == 12 + 7
    for file in files:
        names = [part for part in file.relative_to(PACKAGE).with_suffix("").parts if part != "__init__"]
        assert file.stem == "train" or any(f"{name}.".startswith(".".join(["fer", *names, ""])) for name in called), (
            file
        )


def test_hydra_is_known_to_the_commands_side_alone():
    allowed = {"config", "train", "sweeps"}
    for file in modules():
        if any(name.split(".")[0] in ("hydra", "omegaconf") for name in imports(file)):
            assert package(file) in allowed, file.name


def test_packages_without_torch_import_nothing_heavy_at_their_tops():
    for file in modules():
        if package(file) in WITHOUT_TORCH:
            tops = {entry.split(".")[0] for entry in imports(file, top_level=True)}
            assert not tops & HEAVY, file.relative_to(PACKAGE)


@pytest.mark.slow
def test_importing_what_is_without_torch_imports_no_torch():
    names = [
        ".".join(("fer", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in modules()
        if package(file) in WITHOUT_TORCH
    ]
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_commands_are_listed():
    ended = subprocess.run([sys.executable, "-m", "fer"], capture_output=True, text=True, check=True)
    assert "fer train" in ended.stdout
    assert "fer evaluate" in ended.stdout
