"""No garbage is collected while a large library is imported, and only then."""

import gc
import sys

import pytest

from fer.system.imports import first_of


@pytest.fixture(autouse=True)
def frozen(monkeypatch):
    """Count the calls of ``gc.freeze``, which would keep this process's garbage for good."""
    calls = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(1))
    return calls


def test_nothing_is_collected_within_the_first_import(frozen):
    with first_of("no_library_yet"):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert len(frozen) == 1


def test_a_failed_import_leaves_the_collector_on():
    with pytest.raises(ImportError), first_of("no_library_yet"):
        raise ImportError
    assert gc.isenabled()


def test_a_later_import_changes_nothing(frozen, monkeypatch):
    monkeypatch.setitem(sys.modules, "there_already", sys)
    with first_of("there_already"):
        assert gc.isenabled()
    assert not frozen


def test_a_collector_that_is_off_stays_off(frozen):
    gc.disable()
    try:
        with first_of("no_library_yet"):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert not frozen
