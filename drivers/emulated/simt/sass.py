"""NVIDIA's instructions → LLVM IR: operands, and which function knows an instruction.

What instructions mean stands in tables by families (`sass_integer` and so on), as functions of the
translator and the instruction. Sources: "CUDA Binary Utilities", instruction set reference, for
names; PTX ISA for what an operation computes; the rest was found by running compiled code whose
result is known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from drivers.emulated.simt import layout
from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.sass_decode import Instruction, Operand
from drivers.emulated.simt.sass_registers import BANK, BANK_REGISTERS, BANKS, SassRegisters
from drivers.emulated.simt.values import Value

Semantics = Callable[["Translator", Instruction], None]


class Translator(SassRegisters):
    """Translates the instructions of one block, in order."""

    def __init__(self, exec_full: bool, slots: dict[int, int]) -> None:
        super().__init__(exec_full, slots)
        self._constants: dict[tuple[int, int, int], Value] = {}
        self.functions: dict[str, str] = {}
        """Functions that it calls, by name, as IR."""

    def refuse(self, why: str = "is not translated yet") -> UnknownInstruction:
        """The error that names the instruction at hand."""
        i = self.now
        raw = i.word.to_bytes(16, "little").hex(" ", 4)
        return UnknownInstruction(
            f"{i.name} at pc {i.pc:#x} ({raw}) {why}.", operation="translate"
        )

    def translate(self, instruction: Instruction) -> None:
        """Adds the code of an instruction that does not end a block."""
        self.begin(instruction)
        semantics = _semantics().get(instruction.name)
        if semantics is None:
            raise self.refuse()
        semantics(self, instruction)

    # ---- sources ----
    @property
    def lanes(self) -> bool:
        """Whether the instruction at hand computes for each lane, not once for the warp."""
        return not self.now.row.uniform

    def constant_word(self, bank: int, offset: int, size: int = 4) -> Value:
        """What a constant bank holds at a place: u32 or u64; 0 beyond its end."""
        key = (bank, offset, size)
        if key not in self._constants:
            place = self.constant("u64", offset, False)
            self._constants[key] = self.constant_at(bank, place, size)
        return self._constants[key]

    def constant_at(self, bank: int, offset: Value, size: int, align: int = 4) -> Value:
        """The same at a place (u64) that is known when it runs."""
        if bank >= BANKS:
            raise self.refuse(f"reads constant bank {bank}, which no launch has")
        first = BANK + BANK_REGISTERS * bank
        base, length = self.scalar_pair(first), self.scalar(first + 2).to("u64")
        inside = (offset + size) <= length
        zeros = self.emit(f"getelementptr i8, ptr %context, i64 {layout.CONTEXT_ZEROS}")
        there = self.emit(f"inttoptr i64 {(base + offset).text} to ptr")
        safe = self.emit(f"select i1 {inside.text}, ptr {there}, ptr {zeros}")
        type = f"u{8 * size}"
        return self.value(f"load i{8 * size}, ptr {safe}, align {min(size, align)}", type, False)

    def raw(self, operand: Operand, type: str = "u32") -> Value:
        """An operand's bits without its signs: for each lane, or once where that is enough."""
        wide = int(type[1:]) == 64
        kind = operand.kind
        if kind == "R":
            value = self.register_pair(operand.number) if wide else self.register(operand.number)
            return self._narrowed(value, type)
        if kind == "UR":
            value = self.uniform(operand.number, wide)
        elif kind == "C":
            value = self.constant_word(operand.number, operand.offset, 8 if wide else 4)
        elif kind == "D":
            value = self.constant("u64", operand.number << 32, False)
        elif wide and type[0] == "i" and operand.number >> 31:
            value = self.constant("u64", operand.number - (1 << 32), False)
        else:
            value = self.constant("u64" if wide else "u32", operand.number, False)
        value = self._narrowed(value, type)
        return self._everywhere(value) if self.lanes else value

    def _narrowed(self, value: Value, type: str) -> Value:
        if int(type[1:]) < 32:
            value = value.to("u" + type[1:])
        return value.as_type(type)

    def _everywhere(self, value: Value) -> Value:
        if not value.text.startswith("%"):
            found = Value(self, f"splat ({value.llvm} {value.text})", value.type, True)
        else:
            found = self.splat(value)
        self.known[found.text] = value
        return found

    def source(self, token: str, type: str = "u32") -> Value:
        """An operand with its signs, as arithmetic on `type` has them."""
        operand = self.now.operand(token)
        value = self.raw(operand, type)
        if operand.absolute:
            value = value.abs()
        return -value if operand.negate else value

    def inverted(self, token: str) -> Value:
        """A source whose sign means that all its bits are inverted."""
        operand = self.now.operand(token)
        value = self.raw(operand)
        return ~value if operand.negate else value

    def read(self, token: str) -> Value:
        """A predicate that is read; true where the instruction has no such operand."""
        if token not in self.now.row.positions:
            return self.constant("m1", 1, self.lanes)
        value = self.predicate(self.now.operand(token))
        return self._everywhere(value) if self.lanes and not value.lanes else value

    # ---- results ----
    def result(self, value: Value, token: str = "d") -> None:
        """Writes the register of that operand: 64 bits into two, less than 32 extended."""
        operand = self.now.operand(token)
        if value.width < 32:
            value = value.as_type("u16").to("u32") if value.is_float else value.to(
                value.type[0] + "32"
            )
        if operand.kind == "UR":
            self.set_uniform(operand.number, value)
        else:
            self.set_register(operand.number, value)

    def decide(self, token: str, value: Value) -> None:
        """Writes a predicate, if the instruction has that operand."""
        if token in self.now.row.positions:
            self.set_predicate(self.now.operand(token), value)


def nothing(t: Translator, i: Instruction) -> None:
    """Hints, and waits for what translated code does at once."""


@functools.cache
def _semantics() -> dict[str, Semantics]:
    """The functions that know instructions, by name. The families' modules name the Translator."""
    from drivers.emulated.simt import (
        sass_barrier,
        sass_cross,
        sass_float,
        sass_half,
        sass_integer,
        sass_matrix,
        sass_memory,
        sass_narrow,
        sass_special,
    )

    found: dict[str, Semantics] = dict.fromkeys(NOTHING, nothing)
    for family in (
        sass_integer, sass_float, sass_narrow, sass_half, sass_memory, sass_cross, sass_special,
        sass_barrier, sass_matrix,
    ):
        found |= family.SEMANTICS
    return found


NOTHING = {
    "NOP", "YIELD", "NANOSLEEP", "DEPBAR", "LDGDEPBAR", "PREEXIT", "ACQBULK", "CCTL", "MEMBAR",
    "ERRBAR", "CGAERRBAR",
}
