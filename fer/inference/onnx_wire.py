"""A check of an ONNX file's bytes before anything runs it.

It finds tensors in other files, inputs and outputs. ONNX Runtime reads the file that such a tensor names, from the
current folder too. Such a tensor is known by its field numbers alone. The bytes are therefore read as Protocol Buffers
(https://protobuf.dev/programming-guides/encoding and ``onnx.proto``), without the package ``onnx``.
"""

from collections.abc import Iterator, Mapping

MOST_FIELDS = 2_000_000  # of a file; a graph of 1,000 nodes has about 20,000
DEEPEST = 100  # messages in each other, the limit of Protocol Buffers too
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # wire types; groups are no part of ONNX
EXTERNAL, LOCATION = 13, 14  # fields of a tensor: external_data, and data_location, which is 0 within the file
GRAPH, WEIGHT, INPUT, OUTPUT = 7, 5, 11, 12  # fields of a model; of a graph: initializer, input, output
TENSOR_NAME, VALUE_NAME = 8, 1  # fields of a weight; of an input or output

# message -> field -> message in it, of all that lead to a tensor
HOLDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def names_other_files(content: bytes) -> bool:
    """Return whether a tensor anywhere in an ONNX file is stored outside it.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: the bytes are no message of Protocol Buffers, too deep, or of too many fields.
    """
    count, waiting = 0, [("model", 0, len(content), 1)]
    while waiting:
        message, start, end, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"messages in each other, more than {DEEPEST}")
        for number, kind, first, last in _fields(content, start, end):
            count += 1
            if count > MOST_FIELDS:
                raise ValueError(f"more than {MOST_FIELDS:,} fields")
            if message == "tensor" and _is_elsewhere(content, number, kind, first, last):
                return True
            if kind == BYTES and number in HOLDS[message]:
                waiting.append((HOLDS[message][number], first, last, depth + 1))
    return False


def inputs_and_outputs(content: bytes) -> tuple[list[str], list[str]]:
    """Return the names of what a graph is given and of what it returns; weights that are listed as inputs are left out.

    Args:
        content: the bytes of an ONNX file.

    Raises:
        ValueError: the bytes are no message of Protocol Buffers, or a name is no text.
    """
    names: dict[int, list[str]] = {WEIGHT: [], INPUT: [], OUTPUT: []}
    for number, kind, first, last in _fields(content, 0, len(content)):
        if (number, kind) != (GRAPH, BYTES):
            continue
        for part, its_kind, begin, end in _fields(content, first, last):
            if part in names and its_kind == BYTES:
                names[part] += _names(content, begin, end, TENSOR_NAME if part == WEIGHT else VALUE_NAME)
    weights = set(names[WEIGHT])
    return [name for name in names[INPUT] if name not in weights], names[OUTPUT]


def _names(content: bytes, start: int, end: int, field: int) -> list[str]:
    fields = _fields(content, start, end)
    return [content[first:last].decode() for number, kind, first, last in fields if (number, kind) == (field, BYTES)]


def _is_elsewhere(content: bytes, number: int, kind: int, first: int, last: int) -> bool:
    """Return whether a field of a tensor says that its values are in another file."""
    within = kind == VARINT and not any(byte & 0x7F for byte in content[first:last])
    return number == EXTERNAL or (number == LOCATION and not within)


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Give number, wire type, and first and last position of the value of each field of a message."""
    position = start
    while position < end:
        key, first = _varint(content, position, end)
        number, kind = key >> 3, key & 7
        if not number or key >= 2**32:
            raise ValueError(f"no field has the number {number}")
        if kind == VARINT:
            _, position = _varint(content, first, end)
        elif kind == BYTES:
            length, first = _varint(content, first, end)
            position = first + length
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            position = first + (8 if kind == EIGHT_BYTES else 4)
        else:
            raise ValueError(f"a field of the wire type {kind}")
        if position > end:
            raise ValueError("a field is longer than its message")
        yield number, kind, first, position


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a whole number of variable length and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is cut short or too long")
