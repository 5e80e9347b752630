"""The rooms of the house: imports point only downward, and heavy ones are late."""

import ast
import subprocess
import sys
from pathlib import Path

import fer

PACKAGE = Path(fer.__file__).parent

# from the ground up; a module imports from its own floor (a package's parts) or from below
FLOORS = [
    {"errors", "labels"},
    {"arguments", "results", "significance", "terminal", "places", "muon", "weights"},
    {"registry", "settings", "calibration", "predictions"},
    {
        "losses",
        "optimizers",
        "schedules",
        "sharpness",
        "metrics",
        "augment",
        "mixing",
        "views",
        "ensemble",
        "ranking",
        "trials",
    },
    {"data", "measures"},
    {"reports"},
    {"models"},
    {"checkpoints", "machine", "scoring", "callbacks", "configuration", "profiling"},
    {"progress", "dashboard", "runs", "jobs", "device", "trainers", "distillation"},
    {"leaderboard", "scoreboard", "planning", "suspects", "budget"},
    {"sweep", "evaluation", "card"},
    {"training"},
    {"inventory", "lr_finder", "tuning"},
    {"share"},
    {"campaign"},
    {"best", "train", "evaluate", "compare", "tune", "study", "audit", "__main__", "__init__"},
    {"benchmarks"},
    {"bench"},
]
SAME_FLOOR = {("callbacks", "models"), ("checkpoints", "models")}
LIGHT = {
    "best",
    "errors",
    "labels",
    "arguments",
    "results",
    "registry",
    "settings",
    "configuration",
    "terminal",
    "runs",
    "significance",
    "ranking",
    "leaderboard",
    "predictions",
    "suspects",
    "places",
    "jobs",
    "scoreboard",
    "planning",
    "sweep",
    "train",
    "evaluate",
    "compare",
    "tune",
    "study",
    "audit",
}
HEAVY = {"torch", "torchvision", "pytorch_lightning", "torchmetrics", "tensorboard"}


def room(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(file: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> list[Path]:
    return [file for file in sorted(PACKAGE.rglob("*.py")) if "conf" not in file.parts]


def test_every_module_has_a_floor():
    assert {room(file) for file in modules()} == set().union(*FLOORS)


def test_imports_point_downward():
    height = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    for file in modules():
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "fer" and len(parts) > 1 and parts[1] in height and parts[1] != room(file):
                below = height[parts[1]] < height[room(file)]
                lazy = room(file) == "configuration" and parts[1] == "models"
                assert below or lazy, f"{file.name} imports {name}"


def test_hydra_is_known_to_the_commands_side_alone():
    allowed = {"configuration", "train", "sweep"}
    for file in modules():
        if any(name.split(".")[0] in ("hydra", "omegaconf") for name in imports(file)):
            assert room(file) in allowed, file.name


def test_light_modules_import_nothing_heavy_at_their_top():
    for name in LIGHT:
        tops = {entry.split(".")[0] for entry in imports(PACKAGE / f"{name}.py", top_level=True)}
        assert not tops & HEAVY, name


def test_importing_the_commands_imports_no_torch():
    code = (
        "import sys, fer, fer.train, fer.evaluate, fer.__main__; print(sorted(m for m in sys.modules if m == 'torch'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_commands_are_listed():
    ended = subprocess.run([sys.executable, "-m", "fer"], capture_output=True, text=True, check=True)
    assert "python -m fer.train" in ended.stdout
    assert "python -m fer.evaluate" in ended.stdout
