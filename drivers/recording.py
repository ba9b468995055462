"""Recordings: what a program asked of a device and what came of it, in one file.

A file is MAGIC, a version (u32, little endian as all numbers), and a zlib stream of records. A
record is a code (u8), the size of its body (u32) and the body: the record's fields in order, as
FORMS says. `Start` is the first. A file that ends behind any record is whole as far as it goes,
so what a killed program left can be read.

Memory is recorded by contents, not by meaning: before each submission what the host has changed
(`Writes`), after it what the device has (`Results`), in lines of 64 bytes. Memory is zero at first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, Final, NamedTuple

from drivers.errors import MalformedInput

MAGIC: Final = b"\x89tinyhw\n"
VERSION: Final = 1
RECORD_LIMIT_BYTES: Final = 64 << 20
RUNS_LIMIT_BYTES: Final = 8 << 20  # of one Writes or Results; more goes into the next
_HEADER: Final = struct.Struct("<8sI")
_PREFIX: Final = struct.Struct("<BI")
_CHUNK_BYTES: Final = 1 << 20

Run = tuple[int, bytes]
"""Contents at an address."""


class Array(NamedTuple):
    """Memory that an ioctl's argument points to, from its byte `place`."""

    place: int
    address: int
    before: bytes
    after: bytes


class Record:
    """One record. `error` is the errno of a call that failed, else 0."""


@dataclass(frozen=True)
class Start(Record):
    """How to read the rest: the interface (drivers/marshal), and the emulated boards, or ''."""

    interface: str
    board: str


@dataclass(frozen=True)
class Open(Record):
    """A node or file was opened."""

    descriptor: int
    error: int
    flags: int
    path: str


@dataclass(frozen=True)
class Close(Record):
    """A descriptor was closed."""

    descriptor: int
    error: int


@dataclass(frozen=True)
class Read(Record):
    """A file was read."""

    descriptor: int
    error: int
    size_bytes: int
    content: bytes


@dataclass(frozen=True)
class Ioctl(Record):
    """An ioctl, with its argument before and after, and the arrays that it points to."""

    descriptor: int
    error: int
    request: int
    before: bytes
    after: bytes
    arrays: tuple[Array, ...]


@dataclass(frozen=True)
class Mmap(Record):
    """Memory was mapped, `address` being the result. `memory`: that of a device."""

    descriptor: int
    error: int
    memory: int
    protection: int
    flags: int
    size_bytes: int
    offset: int
    address: int


@dataclass(frozen=True)
class Munmap(Record):
    """Mapped memory was given back."""

    error: int
    address: int
    size_bytes: int


@dataclass(frozen=True)
class UserMemory(Record):
    """Memory of the program, mapped out of sight, that the device is about to be shown."""

    address: int
    size_bytes: int


@dataclass(frozen=True)
class Writes(Record):
    """What the host has changed in memory."""

    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Kick(Record):
    """A doorbell was told a value. The ring's dwords from `first`, `count` of them, are new.

    The device will bring `timeline` (an address, 0 for none) to `value`, or beyond.
    """

    ring: int
    ring_dwords: int
    first: int
    count: int
    doorbell: int
    told: int
    timeline: int
    value: int


@dataclass(frozen=True)
class Results(Record):
    """A timeline has come to a value; what the device has changed, if it is known."""

    timeline: int
    value: int
    runs: tuple[Run, ...]


# i: i32, I: u32, Q: u64; t: text, b: bytes, with their size (u32) before; r: runs, a: arrays, with
# their count (u32) before.
FORMS: Final[dict[type[Record], str]] = {
    Start: "tt", Open: "iiIt", Close: "ii", Read: "iiIb", Ioctl: "iiQbba", Mmap: "iiIIIQQQ",
    Munmap: "iQQ", UserMemory: "QQ", Writes: "r", Kick: "QQQQQQQQ", Results: "QQr",
}
_CODES: Final = {kind: code for code, kind in enumerate(FORMS, 1)}
_KINDS: Final = {code: kind for kind, code in _CODES.items()}
_WORD: Final = struct.Struct("<I")
_ADDRESS: Final = struct.Struct("<Q")


def malformed(sentence: str) -> MalformedInput:
    """The error of a recording that cannot be."""
    return MalformedInput(f"The recording {sentence}.", operation="recording")


def _sized(content: bytes) -> bytes:
    return _WORD.pack(len(content)) + content


def encode(record: Record) -> bytes:
    """A record's code, size and body."""
    form, body = FORMS[type(record)], bytearray()
    for letter, each in zip(form, fields(record), strict=True):  # type: ignore[arg-type]
        value = getattr(record, each.name)
        if letter == "t":
            body += _sized(value.encode("utf-8", "surrogateescape"))
        elif letter == "b":
            body += _sized(value)
        elif letter == "r":
            body += _WORD.pack(len(value))
            for address, content in value:
                body += _ADDRESS.pack(address) + _sized(content)
        elif letter == "a":
            body += _WORD.pack(len(value))
            for array in value:
                body += _WORD.pack(array.place) + _ADDRESS.pack(array.address)
                body += _sized(array.before) + _sized(array.after)
        else:
            body += struct.pack(f"<{letter}", value)
    return _PREFIX.pack(_CODES[type(record)], len(body)) + body


class _Body:
    """A record's body while it is taken apart; whatever is missing is MalformedInput."""

    def __init__(self, content: bytes, where: str) -> None:
        self.content, self.at, self.where = content, 0, where

    def take(self, size_bytes: int) -> bytes:
        end = self.at + size_bytes
        if end > len(self.content):
            raise malformed(f"has {self.where} that is shorter than its fields")
        found = self.content[self.at : end]
        self.at = end
        return found

    def number(self, letter: str) -> int:
        form = struct.Struct(f"<{letter}")
        return int(form.unpack(self.take(form.size))[0])

    def sized(self) -> bytes:
        return self.take(self.number("I"))

    def field(self, letter: str) -> Any:
        if letter == "t":
            return self.sized().decode("utf-8", "surrogateescape")
        if letter == "b":
            return self.sized()
        if letter == "r":
            return tuple((self.number("Q"), self.sized()) for _ in range(self.number("I")))
        if letter == "a":
            return tuple(
                Array(self.number("I"), self.number("Q"), self.sized(), self.sized())
                for _ in range(self.number("I"))
            )
        return self.number(letter)


def decode(code: int, content: bytes, number: int) -> Record:
    """The record of a body. Raises MalformedInput."""
    kind = _KINDS.get(code)
    if kind is None:
        raise malformed(f"has a record {number} of an unknown kind, {code}")
    body = _Body(content, f"a record {number} ({kind.__name__})")
    values = [body.field(letter) for letter in FORMS[kind]]
    if body.at != len(content):
        raise malformed(f"has a record {number} ({kind.__name__}) that is longer than its fields")
    return kind(*values)


def in_pieces(runs: Iterable[Run]) -> Iterator[tuple[Run, ...]]:
    """Runs for one record after the other, RUNS_LIMIT_BYTES in each at most."""
    held: list[Run] = []
    size = 0
    for address, content in runs:
        for at in range(0, len(content), RUNS_LIMIT_BYTES):
            piece = content[at : at + RUNS_LIMIT_BYTES]
            if size + len(piece) > RUNS_LIMIT_BYTES:
                yield tuple(held)
                held, size = [], 0
            held.append((address + at, piece))
            size += len(piece)
    if held:
        yield tuple(held)


class Writer:
    """Writes records; whoever has it closes it."""

    def __init__(self, file: BinaryIO, interface: str, board: str) -> None:
        self._file, self._stream = file, zlib.compressobj(1)
        file.write(_HEADER.pack(MAGIC, VERSION))
        self.put(Start(interface, board))

    def put(self, record: Record) -> None:
        """Appends a record."""
        self._file.write(self._stream.compress(encode(record)))

    def flush(self) -> None:
        """What was put so far survives the program."""
        self._file.write(self._stream.flush(zlib.Z_SYNC_FLUSH))
        self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        self._file.write(self._stream.flush())
        self._file.close()


def read_records(file: BinaryIO) -> Iterator[Record]:
    """The records of a file, Start first. Raises MalformedInput where it goes wrong."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise malformed("does not begin as one; it is another file")
    version = _HEADER.unpack(header)[1]
    if version != VERSION:
        raise malformed(f"is of version {version}; known is {VERSION}")
    pending, number = bytearray(), 0
    for piece in _decompressed(file):
        pending += piece
        at = 0
        while len(pending) - at >= _PREFIX.size:
            code, size = _PREFIX.unpack_from(pending, at)
            if size > RECORD_LIMIT_BYTES:
                raise malformed(
                    f"has a record {number} of {size} bytes; {RECORD_LIMIT_BYTES} are the most"
                )
            end = at + _PREFIX.size + size
            if end > len(pending):
                break
            record = decode(code, bytes(pending[at + _PREFIX.size : end]), number)
            if isinstance(record, Start) != (number == 0):
                raise malformed(f"has {type(record).__name__} for its record {number}")
            yield record
            at, number = end, number + 1
        del pending[:at]
    if pending:
        raise malformed(f"ends in the middle of record {number}")
    if not number:
        raise malformed("is empty")


def _decompressed(file: BinaryIO) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    while not stream.eof:
        given = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
        try:
            found = stream.decompress(given, _CHUNK_BYTES) if given else stream.flush()
        except zlib.error as error:
            raise malformed(f"is damaged ({error})") from error
        yield found
        if not given:
            return
    if stream.unused_data or file.read(1):
        raise malformed("goes on behind its end")
