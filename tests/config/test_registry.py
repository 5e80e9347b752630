"""Names for networks and the rest."""

import pytest

from fer.config.errors import FerError
from fer.config.registry import Registry


@pytest.fixture
def registry() -> Registry:
    registry = Registry("kind")

    @registry.register("one")
    def one(*, size: int = 1):
        return size

    return registry


def test_a_name_gives_what_was_registered_with_checked_arguments(registry):
    entry, arguments = registry.arguments({"name": "one", "size": 3})
    assert entry(**arguments) == 3
    assert registry.names() == ["one"]


def test_a_clash_raises_and_names_both(registry):
    with pytest.raises(FerError, match=r"kind 'one' is registered twice: by .*one and .*other"):

        @registry.register("one")
        def other():
            pass


def test_registering_the_same_again_is_no_clash(registry):
    """A module may be imported twice, as by a notebook."""
    entry = registry.get("one")
    assert registry.register("one")(entry) is entry


def test_an_unknown_name_lists_what_there_is(registry):
    with pytest.raises(FerError, match="kind 'onne' is not registered; use one of one; did you mean 'one'"):
        registry.get("onne")


def test_a_section_needs_a_name(registry):
    with pytest.raises(FerError, match=r"kind\.name is missing; choose one of one"):
        registry.arguments({"size": 1})
