"""Dataclasses as JSON objects: each kind of field is read as it was written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from fer.system.records import MERGED, OPTIONAL, plain, read


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True)
class Record:
    name: str
    whole: Point = field(metadata=MERGED)
    points: list[Point] = field(default_factory=list)
    ends: tuple[Point, ...] = ()
    named: dict[str, Point] = field(default_factory=dict)
    others: Mapping[str, Point] = field(default_factory=dict)
    note: str | None = field(default=None, metadata=OPTIONAL)
    kind: str = field(default="", metadata={"key": "type"})


WHOLE = Record("a", Point(1, 2), [Point(3)], (Point(4), Point(5)), {"b": Point(6)}, {"c": Point(7)}, kind="k")


def test_a_record_is_read_as_it_was_written():
    written = json.loads(json.dumps(plain(WHOLE)))
    assert list(written) == ["name", "x", "y", "points", "ends", "named", "others", "type"]
    assert read(Record, written) == WHOLE


def test_a_key_without_a_default_is_missed():
    with pytest.raises(KeyError, match="name"):
        read(Record, {"x": 1})


@pytest.mark.parametrize("change", [{"points": 3}, {"points": [3]}, {"named": []}, {"ends": None}])
def test_a_value_of_another_kind_is_an_error(change):
    with pytest.raises((TypeError, AttributeError)):
        read(Record, {**plain(WHOLE), **change})
