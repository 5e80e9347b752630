"""``requirements.lock``: every dependency, at a version that ``pyproject.toml`` allows, with hashes."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fer

ROOT = Path(fer.__file__).parents[1]
LOCK = ROOT / "requirements.lock"

pytestmark = pytest.mark.skipif(not LOCK.exists(), reason="runs from a checkout")


def entries():
    """Name -> locked versions; several where Pythons or platforms differ."""
    versions = {}
    for block in re.split(r"\n(?=[a-z])", re.sub(r"^\s*#.*\n", "", LOCK.read_text(), flags=re.MULTILINE)):
        requirement, *hashes = (line.strip().rstrip("\\").strip() for line in block.strip().splitlines())
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes), requirement
        name, version = re.fullmatch(r"([a-z0-9-]+)==([^ ;]+).*", requirement).groups()
        versions.setdefault(name, []).append(version)
    return versions


def required():
    """The dependencies of the project and of the extra ``dev``, with those extras that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, open_ = list(map(Requirement, project["dependencies"])), ["dev"]
    while open_:
        for one in map(Requirement, project["optional-dependencies"][open_.pop()]):
            if one.name == project["name"]:
                open_ += one.extras
            else:
                found.append(one)
    return found


def test_every_dependency_is_locked_at_an_allowed_version():
    locked = entries()
    for one in required():
        versions = locked[canonicalize_name(one.name)]
        assert all(one.specifier.contains(version) for version in versions), (str(one), versions)


def test_no_path_of_a_machine_is_in_it():
    assert not re.search(r"file://|@ /|--index|--find-links|--trusted", LOCK.read_text())
