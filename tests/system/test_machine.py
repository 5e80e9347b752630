"""What a run records of the machine and of the code that it ran."""

import subprocess

import pytest

from fer.system import machine


@pytest.fixture
def commit(tmp_path, monkeypatch):
    """Return a function that asks for the commit of the code as if it lay in a folder of the test's."""
    (tmp_path / "fer").mkdir()
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "fer" / "system" / "machine.py"))
    monkeypatch.delenv("FER_COMMIT", raising=False)
    yield machine.commit.__wrapped__
    machine.commit.cache_clear()


def test_without_a_checkout_the_environment_names_the_commit(commit, monkeypatch):
    assert commit() is None
    monkeypatch.setenv("FER_COMMIT", " 0123abc \n")
    assert commit() == "0123abc (FER_COMMIT)"
    monkeypatch.setenv("FER_COMMIT", " ")
    assert commit() is None


def test_a_checkout_knows_its_own_commit(commit, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_COMMIT", "0123abc")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert commit() == "0123abc (FER_COMMIT)"  # nothing is committed yet
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=first"], check=True)
    own = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert commit() == own
    (tmp_path / "fer" / "new.py").touch()
    assert commit() == f"{own}, with changes"
