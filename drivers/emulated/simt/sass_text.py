"""Small pieces of a kernel's LLVM IR: masks of lanes that wait, registers in a warp's state.

Masks are arrays on the stack: `waiting` at places of the code, `arrived` at and `members` of
meetings in a warp, `stopped` at barriers.
"""

from __future__ import annotations

from drivers.emulated.simt.sass_registers import ALIVE, EXEC
from drivers.emulated.simt.values import llvm_type

VECTOR_BASE = 1000
"""Vector registers in the sets of the liveness analysis are numbered from here on."""
LANES = 32
STATE = "%m."
"""What the names of slots in the warp's state begin with; `%` is that of LLVM's own registers."""


class Text:
    """What is needed once in a function: names, slots of registers, ways into the split copy."""

    def __init__(self) -> None:
        self.stubs: set[int] = set()
        self.scalars: set[int] = {EXEC, ALIVE}
        self.vectors: set[int] = set()
        self.count = 0

    def _fresh(self) -> str:
        self.count += 1
        return f"%f{self.count}"

    def _slot(self, array: str, number: int, lines: list[str]) -> str:
        name = self._fresh()
        lines.append(f"  {name} = getelementptr i32, ptr %{array}, i64 {number}")
        return name

    def _add(self, array: str, number: int, lanes: str, lines: list[str]) -> None:
        """Adds lanes to those that wait somewhere."""
        at, old, new = self._slot(array, number, lines), self._fresh(), self._fresh()
        lines += [f"  {old} = load volatile i32, ptr {at}", f"  {new} = or i32 {old}, {lanes}",
                  f"  store volatile i32 {new}, ptr {at}"]

    def _set(self, array: str, number: int, lanes: str, lines: list[str]) -> None:
        at = self._slot(array, number, lines)
        lines.append(f"  store volatile i32 {lanes}, ptr {at}")

    def _get(self, array: str, number: int, lines: list[str]) -> str:
        at, name = self._slot(array, number, lines), self._fresh()
        lines.append(f"  {name} = load volatile i32, ptr {at}")
        return name

    def _state(self, register: int, lines: list[str]) -> str:
        name = self._fresh()
        lines.append(f"  {name} = load i32, ptr {STATE}s{register}")
        return name

    def _put(self, register: int, value: str, lines: list[str]) -> None:
        lines.append(f"  store i32 {value}, ptr {STATE}s{register}")

    def _branch(
        self, test: str, yes: str, no: str, lines: list[str]
    ) -> None:
        name = self._fresh()
        lines.append(f"  {name} = {test}")
        lines.append(f"  br i1 {name}, label %{yes}, label %{no}")

    def _new_label(self) -> str:
        self.count += 1
        return f"l{self.count}"

    def _go(self, target: int) -> str:
        """The label where the lanes of EXEC in the split copy go on at a place."""
        self.stubs.add(target)
        return f"go{target:x}"

    def _place(self, register: int) -> tuple[str, str]:
        """LLVM type and slot name (without its home) of a register of the analysis."""
        if register >= VECTOR_BASE:
            self.vectors.add(register - VECTOR_BASE)
            return llvm_type("u32", LANES), f"v{register - VECTOR_BASE}"
        self.scalars.add(register)
        return "i32", f"s{register}"

    def _move(self, registers: set[int], source: str, target: str) -> list[str]:
        """Copies registers from one home to the other."""
        lines = []
        for register in sorted(registers):
            type, slot = self._place(register)
            name = self._fresh()
            lines += [f"  {name} = load {type}, ptr {source}{slot}",
                      f"  store {type} {name}, ptr {target}{slot}"]
        return lines
