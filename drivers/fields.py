"""Packets as data: named fields in a table, encoded to dwords and decoded back.

A `Layout` is one packet of one generation. `autogen` gives most tables, as {field: (dword,
shift, width)}, where an address is two fields; `joined` makes one of them. A value that does not
fit its field raises, and so does a low bit that the field cannot hold (an unaligned address).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

DWORD_BITS: Final = 32


@dataclass(frozen=True)
class Piece:
    """`width` bits of a value, from its bit `low` on, at `shift` of a dword."""

    dword: int
    shift: int
    width: int
    low: int = 0


Field = tuple[Piece, ...]
Table = Mapping[str, tuple[int, ...]]


def single(dword: int, shift: int, width: int) -> Field:
    """A field in one place; beyond 32 bits it goes on in the dwords that follow."""
    pieces, low = [], 0
    while low < width:
        bits = min(width - low, DWORD_BITS - shift)
        pieces.append(Piece(dword, shift, bits, low))
        dword, shift, low = dword + 1, 0, low + bits
    return tuple(pieces)


def flag(dword: int, mask: int) -> Field:
    """A field whose mask a header gives as one number."""
    shift = (mask & -mask).bit_length() - 1
    return single(dword, shift, (mask >> shift).bit_length())


def fields_of(table: Table, **joined: tuple[str, str]) -> dict[str, Field]:
    """The fields of a generated table; `joined` names 64-bit values by their two halves.

    A low half that starts above bit 0 of its dword holds the upper bits only: an aligned
    address.
    """
    halves = {name for pair in joined.values() for name in pair}
    found = {
        name: single(*place) for name, place in table.items() if name not in halves
    }
    for name, (low, high) in joined.items():
        dword, shift, width = table[low]
        first = Piece(dword, shift, width, shift)
        dword, shift, width = table[high]
        found[name] = (first, Piece(dword, shift, width, DWORD_BITS))
    return found


@dataclass(frozen=True)
class Layout:
    """One packet: its name, length, fields, and the values that make it what it is.

    `header` gives the first dword from the length; without one, `fixed` holds the opcode
    fields. A packet with a `tail` goes on with dwords of that name after `size_dwords`.
    """

    name: str
    size_dwords: int
    fields: Mapping[str, Field]
    fixed: Mapping[str, int] = field(default_factory=dict)
    header: Callable[[int], int] | None = None
    tail: str = ""

    def __call__(self, *tail: int, **values: int) -> Packet:
        """A packet with these values; fields that are not given are 0."""
        return Packet(self, values, tail)

    def dword_of(self, name: str) -> int:
        """The dword in which a field starts: where a replay patches it."""
        return self.fields[name][0].dword


class Packet:
    """Values for the fields of a layout."""

    __slots__ = ("layout", "tail", "values")

    def __init__(
        self, layout: Layout, values: Mapping[str, int], tail: Sequence[int] = ()
    ) -> None:
        self.layout, self.values, self.tail = layout, dict(values), tuple(tail)
        for name in values:
            if name not in layout.fields:
                known = ", ".join(layout.fields)
                raise ValueError(f"{layout.name} has no field {name}; it has {known}.")

    def encode(self) -> list[int]:
        """The dwords."""
        layout = self.layout
        words = [0] * layout.size_dwords
        for name, value in {**layout.fixed, **self.values}.items():
            put(words, layout.fields[name], value, f"{layout.name}.{name}")
        words += self.tail
        if layout.header is not None:
            words[0] |= layout.header(len(words))
        return words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packet) and self.encode() == other.encode()

    def __hash__(self) -> int:
        return hash(tuple(self.encode()))

    def __repr__(self) -> str:
        shown = [f"{name}={_shown(value)}" for name, value in self.values.items()]
        shown += [f"{self.layout.tail}=[{', '.join(map(_shown, self.tail))}]"] * bool(self.tail)
        return f"{self.layout.name}({', '.join(shown)})"


def _shown(value: int) -> str:
    return str(value) if value < 1024 else f"{value:#x}"


def put(words: list[int], places: Field, value: int, where: str) -> None:
    """Writes a value into its field; raises ValueError when it does not fit."""
    low = places[0].low
    top = places[-1].low + places[-1].width
    number = int(value)
    if not 0 <= number < 1 << top:
        raise ValueError(f"{where} is {value:#x}, beyond {(1 << top) - 1:#x}.")
    if number & ((1 << low) - 1):
        raise ValueError(f"{where} is {value:#x}, not a multiple of {1 << low}.")
    for piece in places:
        words[piece.dword] |= (number >> piece.low & ((1 << piece.width) - 1)) << piece.shift


def get(words: Sequence[int], places: Field) -> int:
    """Reads a field."""
    value = 0
    for piece in places:
        value |= (words[piece.dword] >> piece.shift & ((1 << piece.width) - 1)) << piece.low
    return value


def decode(layout: Layout, words: Sequence[int]) -> Packet:
    """The packet that these dwords are; fields that are 0 are left out."""
    values: dict[str, Any] = {}
    for name, places in layout.fields.items():
        value = get(words, places)
        if value and name not in layout.fixed:
            values[name] = value
    return Packet(layout, values, words[layout.size_dwords :])
