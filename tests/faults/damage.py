"""Strategies of hypothesis that damage sound files: bytes, numbers and words of any format, values of records."""

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

MOST_CHANGES, LONGEST = 4, 24  # of one input; bytes that are inserted
# texts that readers of numbers, tables, JSON and YAML take in different ways
WORDS = [
    b"", b"0", b"-1", b"256", b"65541", b"4294967301", b"18446744073709551616", b"9" * 40, b"1e999", b"-1e999",
    b"1e-999", b"NaN", b"nan", b"Infinity", b"1_0", b"0x10", b"+1", b"1.5", b"1,5", "\u0663".encode(),
    "\u00b2".encode(), "\u202e".encode(), b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\r", b"\n", b"\r\n", b"\x1a",
    b"\x1b[2J", b"\"", b"'", b",", b";", b"\t", b":", b"{", b"}", b"[", b"]", b"null", b"true", b"*a", b"&a",
    b"!!python/name:os.system", b"${oc.env:HOME}", b"../../x", b"/", b"\\", b"-", b"#", b"%", b"---\n",
    b"\xed\xa0\x80", b"\xc3",
]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"),
    float("-inf"),
]  # fmt: skip


def values() -> st.SearchStrategy[Any]:
    """Return plain values that stand where a file has another one."""
    words = st.sampled_from([word.decode("utf-8", "replace") for word in WORDS]) | st.text(max_size=8)
    leaf = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | words
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))


def nearby(data: st.DataObject, value: Any) -> Any:
    """Return a value in place of another: of any kind, or of the same kind."""
    same: dict[type, st.SearchStrategy[Any]] = {
        str: st.sampled_from([word.decode("utf-8", "replace") for word in WORDS]) | st.just(str(value) * 3),
        int: st.sampled_from(NUMBERS),
        float: st.sampled_from(NUMBERS),
        list: st.just([*value, *value, *value] if isinstance(value, list) else []),
        dict: st.just({**value, "?": value} if isinstance(value, dict) else {}),
    }
    return data.draw(values() | same.get(type(value), values()))


def mutated(data: st.DataObject, contents: bytes) -> bytes:
    """Return contents with a few changes anywhere."""
    changed = bytearray(contents)
    for _ in range(data.draw(st.integers(1, MOST_CHANGES))):
        if changed:
            changed = bytearray(data.draw(st.sampled_from(CHANGES))(data, changed))
    return bytes(changed)


def _at(data: st.DataObject, contents: bytearray) -> int:
    """Return a position: anywhere, or near the beginning or the end, where formats have their heads."""
    size = len(contents)
    near = st.integers(0, min(64, size - 1)) | st.integers(max(0, size - 64), size - 1)
    return data.draw(near | st.integers(0, size - 1))


def _length(data: st.DataObject, contents: bytearray) -> int:
    return data.draw(st.integers(1, 16) | st.integers(1, len(contents)))


def _flip(data: st.DataObject, contents: bytearray) -> bytes:
    contents[_at(data, contents)] ^= data.draw(st.integers(1, 255))
    return contents


def _cut(data: st.DataObject, contents: bytearray) -> bytes:
    return contents[: _at(data, contents)]


def _drop(data: st.DataObject, contents: bytearray) -> bytes:
    at, length = _at(data, contents), _length(data, contents)
    return contents[:at] + contents[at + length :]


def _insert(data: st.DataObject, contents: bytearray) -> bytes:
    at = _at(data, contents)
    return contents[:at] + data.draw(st.binary(min_size=1, max_size=LONGEST)) + contents[at:]


def _word(data: st.DataObject, contents: bytearray) -> bytes:
    at, length = _at(data, contents), data.draw(st.integers(0, 8))
    return contents[:at] + data.draw(st.sampled_from(WORDS)) + contents[at + length :]


def _double(data: st.DataObject, contents: bytearray) -> bytes:
    at, length = _at(data, contents), _length(data, contents)
    return contents[:at] + contents[at : at + length] * data.draw(st.integers(2, 4)) + contents[at + length :]


def _swap(data: st.DataObject, contents: bytearray) -> bytes:
    first, second = sorted((_at(data, contents), _at(data, contents)))
    length = _length(data, contents)
    middle = contents[first + length : second]
    return contents[:first] + contents[second : second + length] + middle + contents[first : first + length]


def _number(data: st.DataObject, contents: bytearray) -> bytes:
    """Replace the digits from a position on."""
    at = _at(data, contents)
    while at < len(contents) and not 48 <= contents[at] <= 57:
        at += 1
    end = at
    while end < len(contents) and 48 <= contents[end] <= 57:
        end += 1
    return contents[:at] + str(data.draw(st.sampled_from(NUMBERS))).encode() + contents[end:]


def _line(data: st.DataObject, contents: bytearray) -> bytes:
    """Repeat, drop or move a line."""
    lines = bytes(contents).splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    line = lines.pop(index)
    for _ in range(data.draw(st.integers(0, 2))):
        lines.insert(data.draw(st.integers(0, len(lines))), line)
    return b"".join(lines)


CHANGES: list[Callable[[st.DataObject, bytearray], bytes]] = [
    _flip, _cut, _drop, _insert, _word, _word, _double, _swap, _number, _line,
]  # fmt: skip


def restructured(data: st.DataObject, record: Any, other: Callable[[st.DataObject, Any], Any] = nearby) -> Any:
    """Return a nested record with a few values replaced, removed or renamed.

    Args:
        data: source of choices.
        record: dictionaries and lists of any values.
        other: function that returns a value in place of one.
    """
    record = copy.deepcopy(record)
    for _ in range(data.draw(st.integers(1, MOST_CHANGES))):
        holder, key = _somewhere(data, record)
        if holder is None:
            return other(data, record)
        kind = data.draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename")))
        if kind == "replace":
            holder[key] = other(data, holder[key])
        elif kind == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[data.draw(st.text(max_size=5))] = holder.pop(key)
    return record


def _somewhere(data: st.DataObject, record: Any) -> tuple[Any, Any]:
    """Return a container within a record, and a key of it; None for a record that has none."""
    holder, key, value = None, None, record
    while isinstance(value, dict | list) and len(value):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        holder, key = value, data.draw(st.sampled_from(keys))
        value = holder[key]
        if data.draw(st.integers(0, 3)) == 0:
            break
    return holder, key
