"""The wire format of protocol buffers: fields of numbers and of bytes, one after the other.

Each field is a varint `number << 3 | wire type`, then a varint, four or eight bytes, or a length
and as many bytes. A message in a field is such bytes again. The bytes are untrusted: every length
is checked against what is left, nesting has a limit, and the objects that a file has built are
charged to a budget. Source: the encoding guide of protobuf.dev.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import numpy as np

from drivers.errors import MalformedInput

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

MAX_DEPTH: Final = 100  # messages within messages, as protobuf's own readers have it
MAX_VARINT_BYTES: Final = 10
SPARE_BYTES: Final = 32 << 20  # objects that a file may have built, beside as much as its size
_PIECE_BYTES: Final = 256 << 10  # of packed varints that are decoded at once

quoted = reprlib.repr  # a hostile value may be long; a message stays short


class Source:
    """A file that is being read: its name for messages, and what it may still build."""

    def __init__(self, name: str, size_bytes: int) -> None:
        self.name, self.depth = name, 0
        self.limit_bytes = self.left_bytes = size_bytes + SPARE_BYTES

    def refuse(self, what: str) -> NoReturn:
        """Raises the one error for a file that does not hold what it says."""
        raise MalformedInput(f"{self.name}: {what}.", operation="load")

    def charge(self, size_bytes: int) -> None:
        """Counts memory that the file asks for."""
        self.left_bytes -= size_bytes
        if self.left_bytes < 0:
            self.refuse(
                f"what it holds would take more than {self.limit_bytes} bytes, the limit for a "
                "file of this size"
            )

    def nested(self, data: memoryview) -> Iterator[tuple[int, int, Any]]:
        """`fields` of a message within the one that is being read."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(f"its messages nest deeper than {MAX_DEPTH}")
        yield from fields(self, data)
        self.depth -= 1


def fields(source: Source, data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field: an int for VARINT, else the field's bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(source, data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(source, data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint(source, data, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            source.refuse(f"field {number} has the wire type {kind}; known are 0, 1, 2 and 5")
        if size > end - at:
            source.refuse(f"field {number} claims {size} bytes where {end - at} are left")
        yield number, kind, data[at : at + size]
        at += size


def _varint(source: Source, data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven in each byte, and where it ends."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift >= 7 * MAX_VARINT_BYTES:
            source.refuse(f"a varint is longer than {MAX_VARINT_BYTES} bytes")
    source.refuse("it ends within a varint")


def encode_varint(value: int) -> memoryview:
    """The bytes of a number of up to 64 bits."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return memoryview(found)


def signed(value: int) -> int:
    """A varint as int64, which protobuf stores in two's complement."""
    return value - (1 << 64) if value >> 63 else value


def text(source: Source, value: memoryview, what: str) -> str:
    """A string field."""
    source.charge(64 + 4 * len(value))
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        source.refuse(f"{what} is not UTF-8")


def count_varints(data: memoryview) -> int:
    """How many numbers a packed field holds."""
    return sum(
        int(np.count_nonzero(np.frombuffer(data[at : at + _PIECE_BYTES], np.uint8) < 0x80))
        for at in range(0, len(data), _PIECE_BYTES)
    )


def packed_varints(source: Source, data: memoryview, out: np.ndarray[Any, Any]) -> None:
    """Decodes a packed field into `out`, (count,) of any integer type, which keeps the low bits."""
    filled, rest = 0, data
    while len(rest):
        piece = np.frombuffer(rest[:_PIECE_BYTES], np.uint8)
        ends = np.flatnonzero(piece < 0x80)
        if not ends.size:
            source.refuse(f"a varint is longer than {MAX_VARINT_BYTES} bytes or has no end")
        starts = np.concatenate(([0], ends[:-1] + 1))
        lengths = ends - starts + 1
        if lengths.max() > MAX_VARINT_BYTES:
            source.refuse(f"a varint is longer than {MAX_VARINT_BYTES} bytes")
        used = int(ends[-1]) + 1
        shifts = (np.arange(used) - np.repeat(starts, lengths)) * 7
        parts = (piece[:used] & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
        values = np.bitwise_or.reduceat(parts, starts)
        out[filled : filled + len(values)] = values.astype(out.dtype)
        filled += len(values)
        rest = rest[used:]
