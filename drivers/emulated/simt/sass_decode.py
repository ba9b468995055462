"""Reads NVIDIA's machine code (SASS of sm_75 to sm_90): 128 bits → instructions with operands.

An instruction's low 12 bits are its opcode: 9 bits of operation and 3 that say what its operands
are (`FORMS`). What each operation has beside them is a row of `sass_opcodes`. A set bit that no
field of the row accounts for makes the instruction unknown: it would mean something.

Tokens of operands in rows. Before one, `-` and `|` admit a sign and an absolute value, `?` hides it
in print where it is RZ, PT or 0, `X` where the instruction does not extend another.

`d` what is written; `a`, `b`, `c` sources, of which a form puts one in the slot of 32 bits; `e` the
one in the slot; `C` a third source without a second; `x`, `y` registers at bits 32 and 64; `h60` a
half of `e`, `b60` a byte of it; `U`, `U24` uniform registers; `P81` a predicate that is written,
`p87` one that is read, negated by the next bit (`u`: uniform, `U`: uniform where bit 67 says so);
`M`, `G`, `m`, `n`, `s`, `t`, `D`, `g` addresses; `k` a place in a constant bank; `L`, `l`, `r`, `p`
labels, `A` one that is an address, `o` one that counts from a register alone; `B16` a convergence
barrier, `SB` a scoreboard, `SR` a special register, `PR` all predicates, `PC` a half of a return
address, `lut` a table of three predicates; `#53.5` an integer of 5 bits at bit 53.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.sass_opcodes import ROWS, SPECIAL_REGISTERS, Row

SIZE_BYTES = 16
RZ, URZ, PT = 255, 63, 7
_SCHEDULING = (1 << 122) - (1 << 105)  # stalls, barriers to set and to wait for
_GUARD = 0xF << 12
_UNIFORM = 1 << 91  # set where an operand of a form is a uniform register

# What the three bits of a form put in the slot of 32 bits in the middle, and whether the second
# source stands there (else the third).
FORMS = {1: ("r", True), 2: ("i", False), 3: ("c", False), 4: ("i", True), 5: ("c", True),
         6: ("u", True), 7: ("u", False)}
_SLOT = "e"


class Operand(NamedTuple):
    """One operand. Kinds: `R`, `UR` (registers), `P`, `UP` (predicates), `PR` (all predicates), `B`
    (convergence barriers), `I` (an integer), `F`, `D`, `H` (floats by their bits: f32, the upper
    half of an f64, two f16 or bf16), `C` (a constant bank and an offset), `M` (an address), `SR`,
    `SB` (a scoreboard), `PC` (half of a return address), `L` (where code goes on)."""

    kind: str
    number: int
    negate: bool = False
    absolute: bool = False
    reuse: bool = False
    select: int = 0
    """Of a packed half: 0 both, 1 it is one f32, 2 the low one twice, 3 the high one twice. Of a
    byte: 4 and its number."""
    offset: int = 0
    uniform: int = URZ
    """Of an address: a uniform register that is added or describes the memory."""
    wide: bool = False
    """Of an address: its register holds 64 bits, not 32 that zeros extend."""
    described: bool = False
    """Of an address: the uniform register describes the memory and is not added."""
    scale: int = 1
    """Of an address in shared memory: what its register is multiplied by."""


@dataclass(slots=True)
class Instruction:
    """One decoded instruction at `pc`, an address of the guest or an offset in its code."""

    pc: int
    name: str
    row: Row
    guard: Operand
    operands: tuple[Operand, ...]
    """As the row's operand tokens name them, in that order."""
    fields: dict[str, int] = field(default_factory=dict)
    """Modifiers, by the name of their field."""
    word: int = 0
    arch: str = "sm_90"
    size_bytes: int = SIZE_BYTES

    def operand(self, token: str) -> Operand:
        """The operand of that token (without its flags)."""
        return self.operands[self.row.positions[token]]

    @property
    def target(self) -> int:
        """Where a branch leads."""
        return next(self.operand(token).number for token in "LAor" if token in self.row.positions)


def absolute(i: Instruction) -> bool:
    """Whether it leads to an address, or to a distance from 0."""
    return not {"A", "o"}.isdisjoint(i.row.positions)


def counted_from(i: Instruction, entry: int) -> Instruction:
    """An instruction whose addresses are counted from a kernel's entry, as its pc is."""
    if not absolute(i):
        return i
    return replace(i, operands=tuple(
        o._replace(number=o.number - entry) if token in ("A", "o") else o
        for (_, token), o in zip(i.row.tokens, i.operands, strict=True)
    ))


def bits(word: int, first: int, width: int) -> int:
    """A field of an instruction."""
    return word >> first & (1 << width) - 1


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> width - 1 else value


class _Reader:
    """One instruction being read; `seen` collects the bits that mean something here."""

    def __init__(self, word: int, pc: int, arch: str, row: Row) -> None:
        self.word, self.pc, self.arch, self.row = word, pc, arch, row
        self.seen = 0xFFF | _GUARD | _SCHEDULING
        self.form = bits(word, 9, 3)

    def get(self, first: int, width: int) -> int:
        """A field, noted as seen."""
        self.seen |= (1 << width) - 1 << first
        return bits(self.word, first, width)

    def flag(self, place: int) -> bool:
        """One bit."""
        return bool(self.get(place, 1))

    def register(self, first: int, flags: str, negate: int, absolute: int, reuse: int) -> Operand:
        """A register with the modifiers that `flags` admits."""
        if self.row.uniform:
            kind, number = "UR", self.get(first, 6)
        else:
            kind, number = "R", self.get(first, 8)
        return Operand(kind, number, *self._signs(flags, negate, absolute),
                       reuse=bool(reuse) and self.flag(reuse))

    def _signs(self, flags: str, negate: int, absolute: int) -> tuple[bool, bool]:
        return ("-" in flags and self.flag(negate), "|" in flags and self.flag(absolute))

    def source(self, token: str, flags: str) -> Operand:
        """`a`, `b`, `c`, or `e`: what stands in the slot."""
        if token == "a":
            return self.register(24, flags, 72, 73, 122)
        what, second = FORMS[self.form]
        negate, absolute = (84, 83) if self.row.half else (75, 74)
        if token == "C" and what == "r":
            return self.register(64, flags, negate, absolute, 124)
        if token == "C":
            return self.slot(what, flags)
        if token == "e" or second == (token == "b"):
            if what == "r" and token != "c":
                return self.register(32, flags, 63, 62, self.row.slot_reuse)
            if what != "r":
                return self.slot(what, flags)
        if (token == "b" and not second) or token == "c":
            return self.register(64, flags, negate, absolute, 124 if token == "c" else 123)
        raise AssertionError(token)

    def slot(self, what: str, flags: str) -> Operand:
        """An immediate, a constant or a uniform register."""
        if what == "i":
            return Operand(self.row.immediate, self.get(32, 32))
        negate, absolute = self._signs(flags, 63, 62)
        if what == "c":
            return Operand("C", self.get(54, 5), negate, absolute,
                           offset=4 * _signed(self.get(40, 14), 14))
        self.seen |= _UNIFORM
        if not self.word & _UNIFORM:
            raise ValueError
        return Operand("UR", self.get(32, 6), negate, absolute)

    def predicate(self, token: str) -> Operand:
        """`P81`: one that is written; `p87`: one that is read, whose next bit negates."""
        first = int(token[1:3])
        uniform = self.row.uniform or token.endswith("u")
        if token.endswith("U") and self.flag(67):
            uniform = True
        number = self.get(first, 3)
        return Operand("UP" if uniform else "P", number,
                       negate=token[0] == "p" and self.flag(first + 3))

    def half(self, operand: Operand, token: str) -> Operand:
        """A packed half's choice of its parts."""
        if operand.kind not in ("R", "UR", "C"):
            return operand
        if token == "a":
            place = 74
        elif token == "e" or (token == "b" and FORMS[self.form][1]):
            place = 60
        else:
            place = 81
        select = self.get(place, 2)
        if select == 1 and (self.row.name != "HADD2" or self.arch == "sm_90"):
            raise ValueError
        return operand._replace(select=select)

    def address(self, token: str) -> Operand:
        """`M`: at a register plus an offset, of 32 bits for `G`; `m` with a uniform register at
        bit 64, `n` at 32; `s` and `t` likewise in shared or local memory."""
        number = self.get(24, 8)
        width = 32 if token[0] == "G" else 24
        offset = self.get(64 - width, width)
        wide = token[0] in "MmnG" and self.flag(72)
        uniform, described = URZ, False
        if self.row.code & 0x800 and token[0] in "mnst" and self.flag(91):
            uniform = self.get(32 if token[0] in "nt" else 64, 6)
            if token[0] in "mn":
                wide = self.flag(70 if self.row.atomic else 90)
                place = 71 if self.row.reduces else 76
                described = self.arch != "sm_75" and self.flag(place)
                if number == RZ and not described and wide == (self.arch == "sm_90"):
                    raise ValueError
                if number == RZ and described and self.row.atomic and self.arch == "sm_89":
                    raise ValueError
                if not wide and (described or (self.row.reduces and not self.row.atomic)):
                    raise ValueError
        joined = bool(self.row.code & 0x800 and self.word & _UNIFORM)
        if self.row.name in ("LDSM", "STSM"):
            joined = self.arch != "sm_75"
        if number != RZ or joined:  # else it is an address
            offset = _signed(offset, width)
        scaled = self.row.name in ("LDS", "STS", "ATOMS")
        scale = (1, 4, 8, 16)[self.get(78, 2)] if scaled else 1
        return Operand("M", number, offset=offset, uniform=uniform, wide=wide,
                       described=described, scale=scale)

    def copied(self) -> Operand:
        """The place in global memory from which LDGSTS copies."""
        if not self.flag(91) or not self.flag(70):
            raise ValueError
        return Operand("M", self.get(24, 8), offset=_signed(self.get(32, 12), 12),
                       uniform=self.get(64, 6), wide=True, described=self.flag(76))

    def label(self, token: str) -> Operand:
        """Where a branch leads: from the next instruction, or 0, in words of four bytes."""
        if token == "p":  # in bytes
            return Operand("L", self.pc + SIZE_BYTES + _signed(self.get(24, 58), 58))
        width = {"l": 30, "A": 47}.get(token, 48)
        distance = self.get(34, width)
        if token != "A":
            distance = _signed(distance, width)
        if token != "l" and self.arch == "sm_90":
            distance = distance << 8 | self.get(16, 8)
        return Operand("L", (0 if token in "Ao" else self.pc + SIZE_BYTES) + 4 * distance)


def _operand(reader: _Reader, flags: str, token: str) -> Operand:
    row = reader.row
    if token in ("a", "b", "c", "e", "C"):
        found = reader.source(token, flags)
        return reader.half(found, token) if row.packed else found
    if token[0] in "Pp" and token[1:3].isdigit():
        return reader.predicate(token)
    if token == "d":
        return Operand("UR", reader.get(16, 6)) if row.uniform else Operand("R", reader.get(16, 8))
    if token in ("U", "U24"):
        return Operand("UR", reader.get(24 if token == "U24" else 16, 6))
    if token[0] == "h":  # one half of a register, by the bit at that place
        half = reader.source("e", flags)
        return half._replace(select=3 if reader.flag(int(token[1:])) else 2)
    if token == "b60":
        return reader.source("e", flags)._replace(select=4 + reader.get(60, 2))
    if token == "D":
        return Operand("M", reader.get(16, 8), offset=_signed(reader.get(44, 20), 20))
    if token == "g":
        return reader.copied()
    if token == "PC":  # half of the address to which a convergence barrier returns
        return Operand("PC", reader.get(31, 1))
    if token == "SB":
        return Operand("SB", reader.get(44, 3))
    if token in ("M", "G", "m", "n", "s", "t"):
        return reader.address(token)
    if token in ("L", "l", "p", "r", "A", "o"):
        return reader.label(token)
    if token == "PR":
        return Operand("PR", 0)
    if token == "x":  # the data of a store
        return Operand("R", reader.get(32, 8))
    if token == "y":
        return Operand("R", reader.get(64, 8))
    if token == "k":  # a constant at a register
        return Operand("C", reader.get(54, 5), offset=_signed(reader.get(38, 16), 16),
                       uniform=RZ if row.uniform else reader.get(24, 8))
    if token[0] == "B":
        return Operand("B", reader.get(int(token[1:]), 4))
    if token[0] == "#":
        first, width = map(int, token[1:].split("."))
        return Operand("I", reader.get(first, width))
    if token == "SR":
        number = reader.get(72, 8)
        if number not in SPECIAL_REGISTERS or (number == 136 and reader.arch != "sm_90"):
            raise ValueError
        return Operand("SR", number)
    if token == "lut":
        return Operand("I", reader.get(72, 5) << 3 | reader.get(64, 3))
    raise AssertionError(token)


def _parts(reader: _Reader) -> tuple[dict[str, int], tuple[Operand, ...]]:
    """Modifiers and operands; ValueError where a field's value has no meaning."""
    row, fields = reader.row, {}
    for name, one in row.modifiers_of(reader.arch).items():
        fields[name] = reader.get(one.first, one.width)
        if one.texts.get(fields[name]) is None:
            raise ValueError
    operands = tuple(_operand(reader, flags, token) for flags, token in row.tokens)
    for first, width, values in row.fixed:
        if reader.get(first, width) not in values:
            raise ValueError
    return fields, operands


def meaning(word: int, arch: str, row: Row) -> int:
    """The bits that mean something where a word is read by a row; 0 where it cannot be."""
    reader = _Reader(word, 0, arch, row)
    try:
        _parts(reader)
    except ValueError:
        return 0
    return reader.seen


def _read(word: int, pc: int, arch: str, row: Row) -> Instruction:
    reader = _Reader(word, pc, arch, row)
    fields, operands = _parts(reader)
    if word & ~reader.seen:
        raise ValueError
    uniform = row.uniform or row.name == "S2UR"
    guard = Operand("UP" if uniform else "P", bits(word, 12, 3), bool(bits(word, 15, 1)))
    return Instruction(pc, row.name, row, guard, operands, fields, word, arch)


@functools.cache
def _rows(arch: str) -> dict[int, tuple[Row, ...]]:
    rows: dict[int, list[Row]] = {}
    for row in ROWS:
        if arch in row.archs:
            rows.setdefault(row.code, []).append(row)
    return {code: tuple(found) for code, found in rows.items()}


def decode(code: bytes, offset: int, arch: str, pc: int | None = None) -> Instruction:
    """The instruction at an offset of the code; raises UnknownInstruction with pc and bytes."""
    at = offset if pc is None else pc
    raw = code[offset : offset + SIZE_BYTES]
    if len(raw) == SIZE_BYTES:
        word = int.from_bytes(raw, "little")
        for row in _rows(arch).get(word & 0xFFF, ()):
            try:
                return _read(word, at, arch, row)
            except ValueError:
                continue
    raise UnknownInstruction(
        f"Unknown {arch} instruction at pc {at:#x}: {raw.hex(' ', 4)}.", operation="decode"
    )
