"""The directory of a ZIP file whose members are stored as they are, not compressed.

    members ... [local header, data] ...
    directory   an entry for each: name, size, where its local header is
    [ZIP64 end record and its locator, where a number does not fit 32 bits]
    end record  where the directory is, and how long

Source: APPNOTE.TXT 6.3.10, PKWARE. A file is untrusted: what does not hold is MalformedInput.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NoReturn

from drivers.errors import MalformedInput
from tinyhw.formats.safetensors import header_limit

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_MAX_COMMENT: Final = 0xFFFF
_WIDE: Final = 0xFFFFFFFF  # stands for a number that is in the ZIP64 fields instead
_ZIP64_FIELD: Final = 1
_ENCRYPTED: Final = 1


def is_archive(data: memoryview) -> bool:
    """Whether a file starts as a ZIP file does."""
    return bytes(data[:4]) == b"PK\3\4"


def members(name: str, data: memoryview) -> dict[str, memoryview]:
    """The contents of each member, not copied; `name` is the file's, for messages."""
    start, size, count = _directory(name, data)
    limit = header_limit(len(data))
    if not 0 <= start <= start + size <= len(data) or size > limit:
        _refuse(name, f"its directory of {size} bytes at {start} is outside the {len(data)} bytes "
                f"of the file, or over the limit of {limit}")
    found: dict[str, memoryview] = {}
    for member, stored, at in _entries(name, data[start : start + size], count):
        if member in found:
            _refuse(name, f"member {member[:100]!r} is there twice")
        found[member] = _content(name, data, member, stored, at)
    return found


def _directory(name: str, data: memoryview) -> tuple[int, int, int]:
    """(start, size, count of entries)."""
    tail_at = max(0, len(data) - _END.size - _MAX_COMMENT)
    tail = bytes(data[tail_at:])
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        _refuse(name, "it starts as a ZIP file and has no end record; it may be cut off")
    _, _, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    locator_at = tail_at + at - _LOCATOR64.size
    if locator_at < 0 or bytes(data[locator_at : locator_at + 4]) != b"PK\6\7":
        return start, size, count
    end_at = _LOCATOR64.unpack_from(data, locator_at)[2]
    if end_at + _END64.size > len(data):
        _refuse(name, f"its ZIP64 end record would be at {end_at}, outside the file")
    mark, _, _, _, _, _, _, count, size, start = _END64.unpack_from(data, end_at)
    if mark != b"PK\6\6":
        _refuse(name, f"there is no ZIP64 end record at {end_at}")
    return start, size, count


def _entries(name: str, directory: memoryview, count: int) -> Iterator[tuple[str, int, int]]:
    """(member, size, where its local header is) of each entry."""
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(directory):
            _refuse(name, f"its directory ends before the {count} entries that it claims")
        (mark, _, _, flags, method, _, _, _, packed, size, name_bytes, extra_bytes, comment_bytes,
         _, _, _, local) = _ENTRY.unpack_from(directory, at)
        if mark != b"PK\1\2":
            _refuse(name, f"there is no entry at byte {at} of its directory")
        at += _ENTRY.size
        member = bytes(directory[at : at + name_bytes]).decode("utf-8", "replace")
        at += name_bytes
        extra = bytes(directory[at : at + extra_bytes])
        at += extra_bytes + comment_bytes
        size, packed, local = _wide(extra, (size, packed, local))
        if method or flags & _ENCRYPTED or packed != size:
            _refuse(name, f"member {member[:100]!r} is compressed or encrypted (method {method}); "
                    "only stored members are read")
        yield member, size, local


def _wide(extra: bytes, numbers: tuple[int, int, int]) -> tuple[int, int, int]:
    """The numbers with those that did not fit 32 bits taken from the ZIP64 field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_FIELD:
            field = extra[at + 4 : at + 4 + length]
            wide = iter([n for (n,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])])
            a, b, c = (next(wide, n) if n == _WIDE else n for n in numbers)
            return a, b, c
        at += 4 + length
    return numbers


def _content(name: str, data: memoryview, member: str, size: int, local: int) -> memoryview:
    if local + _LOCAL.size > len(data) or bytes(data[local : local + 4]) != b"PK\3\4":
        _refuse(name, f"member {member[:100]!r} has no header at byte {local}")
    *_, name_bytes, extra_bytes = _LOCAL.unpack_from(data, local)
    start = local + _LOCAL.size + name_bytes + extra_bytes
    if start + size > len(data):
        _refuse(name, f"member {member[:100]!r} of {size} bytes at {start} goes beyond the "
                f"{len(data)} bytes of the file")
    return data[start : start + size]


def _refuse(name: str, reason: str) -> NoReturn:
    raise MalformedInput(f"{name}: {reason}.", operation="zip")


__all__ = ["is_archive", "members"]
