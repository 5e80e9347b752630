"""The one check of names, types and ranges."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest

from fer.config.errors import FerError
from fer.config.schema import AboveZero, Fraction, Positive, build, check, keyword_parameters


def function(
    first,
    /,
    *,
    count: Positive,
    share: Fraction = 0.5,
    rate: AboveZero | None = None,
    widths: Sequence[Positive] = (1,),
    kind: Literal["a", "b"] = "a",
    flag: bool = False,
    mixed: Literal["auto"] | Positive = "auto",
    **rest,
) -> None:
    """Takes one of each."""


def test_good_values_pass_and_whole_numbers_become_floats_where_required():
    values = {"count": 3, "share": 1, "rate": 2, "widths": [4, 5], "kind": "b", "flag": True, "mixed": 7}
    checked = check(function, values, "here")
    assert checked == values
    assert isinstance(checked["share"], float)
    assert isinstance(checked["rate"], float)
    assert check(function, {"count": 1, "rate": None, "mixed": "auto"}, "here")["rate"] is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "here.count is missing"),
        ({"count": 1, "shape": 1}, "here.shape: no such key.*did you mean 'share'"),
        ({"count": 0}, "here.count=0: out of range; it must be at least 1"),
        ({"count": True}, "expected a whole number, got bool"),
        ({"count": 1.0}, "expected a whole number, got float"),
        ({"count": "1"}, "expected a whole number, got str"),
        ({"count": 1, "share": 1.01}, "at least 0 and at most 1"),
        ({"count": 1, "share": float("nan")}, "expected a finite number"),
        ({"count": 1, "rate": 0}, "above 0"),
        ({"count": 1, "rate": "x"}, "expected a number"),
        ({"count": 1, "widths": 3}, "expected a list"),
        ({"count": 1, "widths": [1, 0]}, r"here.widths\[1\]=0: out of range"),
        ({"count": 1, "widths": ["x"]}, r"here.widths\[0\]"),
        ({"count": 1, "kind": "c"}, "expected one of a, b"),
        ({"count": 1, "flag": 1}, "expected true or false"),
        ({"count": 1, "mixed": "autto"}, "here.mixed"),
        ({"count": 1, "mixed": 0}, "out of range"),
    ],
)
def test_faults_are_named(values, says):
    with pytest.raises(FerError, match=says):
        check(function, values, "here")


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_choice_has_its_own_type(value):
    """Python holds 1, 1.0 and True equal; a network would be stored with a value that no reader takes."""

    def chosen(*, channels: Literal[1, 3] = 1):
        """Take a choice."""

    assert check(chosen, {"channels": 3}, "data") == {"channels": 3}
    with pytest.raises(FerError, match="channels"):
        check(chosen, {"channels": value}, "data")


def test_positional_and_catch_all_parameters_are_no_keys():
    assert set(keyword_parameters(function)) == {"count", "share", "rate", "widths", "kind", "flag", "mixed"}


@dataclass(frozen=True)
class Inner:
    size: Positive


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str


def test_nested_sections_are_built():
    assert build(Outer, {"inner": {"size": 2}, "name": "x"}) == Outer(Inner(2), "x")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"inner": {"size": 2}}, "name is missing"),
        ({"inner": 3, "name": "x"}, "inner=3: expected a section"),
        ({"inner": {"size": 0}, "name": "x"}, "inner.size=0: out of range"),
        ({"inner": {"size": 1, "sise": 1}, "name": "x"}, "inner.sise: no such key.*did you mean 'size'"),
        ({"inner": {"size": 1}, "name": "x", "nam": 1}, "nam: no such key.*did you mean 'name'"),
    ],
)
def test_faults_in_sections_carry_their_path(values, says):
    with pytest.raises(FerError, match=says):
        build(Outer, values)


def test_keys_that_look_like_numbers_become_text():
    def function(*, names: dict[str, str] | None = None):
        pass

    assert check(function, {"names": {1: "fear", "b": "sad"}}, "data") == {"names": {"1": "fear", "b": "sad"}}
