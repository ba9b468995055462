"""What a decoder hands to a translator: instructions with named operands, printable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from drivers.errors import MalformedInput


class UnknownInstruction(MalformedInput):
    """Machine code that the decoder or the translator does not know: names pc and bytes."""


class Operand(NamedTuple):
    """A register, a constant or nothing: `kind` says which, `index` which of them.

    Kinds: `v` vector register, `s` scalar register (vcc, m0, exec and null included, numbered as
    in the encoding), `c` inline constant by its encoding, `l` literal by its bits.
    """

    kind: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants
    type: str
    half: int = -1
    """0 or 1 where a 16-bit operand is the low or the high half of its register, else -1."""
    negate: bool = False
    absolute: bool = False

    @property
    def dwords(self) -> int:
        """How many registers it takes."""
        return dwords(self.type)


def dwords(type: str) -> int:
    """Registers of a value of `type`: `f64` takes two, `b512` sixteen, `f16` one."""
    return max(1, int(type[1:]) // 32) if type[1:].isdigit() else 1


@dataclass(slots=True)
class Instruction:
    """One decoded instruction at `pc`, an address of the guest or an offset in its code."""

    pc: int
    size_bytes: int
    format: str
    name: str
    dst: tuple[Operand, ...] = ()
    src: tuple[Operand, ...] = ()
    fields: dict[str, int] = field(default_factory=dict)
    """What is neither: offsets, cache bits, clamp, op_sel; an immediate is `imm`."""
    second: Instruction | None = None
    """The other half of a dual-issued pair; both read before either writes."""

    @property
    def target(self) -> int:
        """Where a branch leads."""
        offset = self.fields["imm"]
        return self.pc + 4 + 4 * (offset - 0x10000 if offset & 0x8000 else offset)


class TranslationFailed(MalformedInput):
    """A translation that LLVM or the linker refuses: a bug of the translator."""
