"""How AMD's machine code is laid out: formats and their fields, and how to read them.

A row is a format: its leading bits, its size in bytes, its fields as (last bit, first bit), the
way the manuals write them. What each generation has is in `rdna_bits` and `cdna_bits`. Source:
AMD's "RDNA3 Instruction Set Architecture", chapter on microcode formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from drivers.emulated.simt.amd_names import canonical
from drivers.emulated.simt.instruction import Operand, UnknownInstruction, dwords

VCC, NULL, M0, EXEC, SCC = 106, 124, 125, 126, 253
LITERAL = 255
DPP8, DPP8_FI, SDWA, DPP16 = 233, 234, 249, 250
FIRST_VGPR = 256

SCALAR_AND_SHORT = """
SOP1  101111101 4 sdst 22 16 op 15 8 ssrc0 7 0
SOPC  101111110 4 op 22 16 ssrc1 15 8 ssrc0 7 0
SOPP  101111111 4 op 22 16 simm16 15 0
SOPK  1011 4 op 27 23 sdst 22 16 simm16 15 0
SOP2  10 4 op 29 23 sdst 22 16 ssrc1 15 8 ssrc0 7 0
VOP1  0111111 4 vdst 24 17 op 16 9 src0 8 0
VOPC  0111110 4 op 24 17 vsrc1 16 9 src0 8 0
VOP2  0 4 op 30 25 vdst 24 17 vsrc1 16 9 src0 8 0
"""
# The dword behind an encoding whose src0 says so.
_CONTROLS = """
DPP16 - 4 row_mask 31 28 bank_mask 27 24 abs1 23 23 neg1 22 22 abs0 21 21 neg0 20 20
      bound_ctrl 19 19 fi 18 18 dpp_ctrl 16 8 src0 7 0
DPP8  - 4 sel 31 8 src0 7 0
SDWA  - 4 scalar1 31 31 abs1 29 29 neg1 28 28 sext1 27 27 src1_sel 26 24 scalar0 23 23 abs0 21 21
      neg0 20 20 sext0 19 19 src0_sel 18 16 omod 15 14 clamp 13 13 dst_unused 12 11 dst_sel 10 8
      src0 7 0
SDWAC - 4 scalar1 31 31 abs1 29 29 neg1 28 28 sext1 27 27 src1_sel 26 24 scalar0 23 23 abs0 21 21
      neg0 20 20 sext0 19 19 src0_sel 18 16 sd 15 15 sdst 14 8 src0 7 0
"""
Fields = dict[str, int]


@dataclass(frozen=True)
class Layout:
    """One format: the bits that it begins with, its size and its fields."""

    name: str
    mask: int
    value: int
    size_bytes: int
    fields: tuple[tuple[str, int, int], ...]
    """(name, first bit, mask)."""

    def read(self, word: int) -> Fields:
        """The fields of an encoding."""
        return {name: word >> first & mask for name, first, mask in self.fields}


def _layouts(text: str) -> dict[str, Layout]:
    found: dict[str, Layout] = {}
    for row in text.replace("\n      ", " ").split("\n"):
        if not row:
            continue
        name, lead, size, *rest = row.split()
        lead = lead.strip("-")
        free = 32 - len(lead)
        fields = tuple(
            (rest[i], int(rest[i + 2]), (1 << int(rest[i + 1]) - int(rest[i + 2]) + 1) - 1)
            for i in range(0, len(rest), 3)
        )
        mask, value = (1 << 32) - (1 << free), int(lead or "0", 2) << free
        found[name] = Layout(name, mask, value, int(size), fields)
    return found


CONTROLS = _layouts(_CONTROLS)


class Generation:
    """One generation: layouts, opcodes, and where its special registers are."""

    def __init__(
        self, name: str, layouts: str, opcodes: ModuleType, m0_first: bool = False,
        gfx9: bool = False,
    ) -> None:
        self.name = name
        self.gfx9 = gfx9
        """Before RDNA: v_cmpx writes a mask besides EXEC, there is no null register."""
        self.halves = not (m0_first or gfx9)
        """Whether short encodings name halves of registers (RDNA3 on), or SDWA does."""
        self.swapped = (NULL, M0) if not self.halves else ()
        """Registers that have each other's numbers here; operands are numbered as in RDNA3."""
        self.first_long = {"VOPC": 0, "VOP2": 256, "VOP1": 320 if gfx9 else 384}
        """Where VOP3 has the opcodes of the short encodings."""
        self.layouts = _layouts(layouts)
        self.opcodes: dict[str, dict[int, str]] = {
            table: {opcode: canonical(own) for opcode, own in rows.items()}
            for table, rows in vars(opcodes).items() if table.isupper()
        }
        self.long_only = frozenset(self.opcodes["VOP3"].values())
        """Instructions that have no encoding but VOP3."""
        self.spelling = {
            canonical(own): own
            for table, rows in vars(opcodes).items() if table.isupper() for own in rows.values()
        }
        """What this generation calls an instruction."""

    def layout(self, first: int) -> Layout | None:
        """The format that begins with that dword."""
        for layout in self.layouts.values():
            if first & layout.mask == layout.value:
                return layout
        return None


class Words:
    """The words of one instruction, and the literal that may follow them."""

    def __init__(self, generation: Generation, code: bytes, offset: int, pc: int) -> None:
        self.generation = generation
        self.code, self.offset, self.pc = code, offset, pc
        self.size_bytes = 0
        self._literal: int | None = None
        self.format = ""

    def take(self, size_bytes: int) -> int:
        """The next so many bytes."""
        start = self.offset + self.size_bytes
        if start + size_bytes > len(self.code):
            self.refuse("is cut off by the end of the code")
        self.size_bytes += size_bytes
        return int.from_bytes(self.code[start : start + size_bytes], "little")

    def literal(self) -> int:
        """The literal after the encoding; all operands of an instruction share one."""
        if self._literal is None:
            self._literal = self.take(4)
        return self._literal

    def refuse(self, why: str) -> None:
        """Raises: names the place, the bytes and what is wrong with them."""
        data = self.code[self.offset : self.offset + 8].hex(" ", 4)
        raise UnknownInstruction(
            f"The instruction at pc {self.pc:#x} (bytes {data}) {why}.", operation="decode"
        )

    def name(self, table: str, opcode: int) -> str:
        """The mnemonic of an opcode, as RDNA3 spells it."""
        found = self.generation.opcodes[table].get(opcode)
        if found is None:
            self.refuse(f"has opcode {opcode}, which {self.format} of "
                        f"{self.generation.name} does not have")
            raise AssertionError
        return found

    def scalar(self, encoded: int, type: str) -> Operand:
        """A scalar register as a destination or as a base."""
        if encoded > 127:
            self.refuse(f"has the reserved register {encoded}")
        if encoded == M0 and self.generation.gfx9:
            self.refuse(f"has the reserved register {encoded}")
        if encoded in self.generation.swapped:
            encoded ^= 1
        elif encoded != NULL:  # pairs begin at even numbers, more at multiples of four
            encoded &= ~(0, 0, 1, 3)[min(dwords(type), 3)]
            end = encoded + dwords(type)
            if any(encoded < last < end for last in (106, 108, 124, 126)):
                self.refuse(f"has {end - encoded} registers from {encoded} on, which are not there")
        return Operand("s", encoded, type)

    def source(self, encoded: int, type: str) -> Operand:
        """A 9-bit source: scalar register, constant, literal or vector register."""
        if encoded >= FIRST_VGPR:
            return Operand("v", encoded - FIRST_VGPR, type)
        if encoded == LITERAL:
            literal = self.literal()
            return Operand("l", literal & 0xFFFF if type[1:] == "16" else literal, type)
        if encoded <= 127:
            return self.scalar(encoded, type)
        if 235 <= encoded <= 239 or 251 <= encoded <= 254:
            return Operand("s", encoded, type)
        if 128 <= encoded <= 208 or 240 <= encoded <= 248:
            return Operand("c", encoded, type)
        if encoded in (DPP8, DPP8_FI, DPP16, SDWA):
            self.refuse("uses DPP or SDWA where that cannot be")
        self.refuse(f"has the reserved source {encoded}")
        raise AssertionError
