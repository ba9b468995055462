"""A warp's registers and operands while a block of NVIDIA's machine code is translated.

The scalar registers of the wave's state hold what a warp has once (`UNIFORM` …); predicates are
masks of lanes there. EXEC is the set of lanes that run now, LIVE of those that have not ended.
"""

from __future__ import annotations

from drivers.emulated.simt import layout
from drivers.emulated.simt.amd_memory import MemoryAccess
from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.registers import EXEC, Registers
from drivers.emulated.simt.sass_decode import PT, RZ, URZ, Instruction, Operand
from drivers.emulated.simt.sass_print import text
from drivers.emulated.simt.values import Value

UNIFORM, PREDICATE, UNIFORM_PREDICATE, BARRIER, LIVE = 0, 64, 72, 80, 96
BANKS, BANK_COUNT = 97, 6  # addresses of constant banks, in two registers each
CTAID, SHARED_WINDOW, LOCAL_WINDOW, SCALARS = 109, 112, 114, 116
THREAD_ID, VECTOR = 0, 3
"""Vector registers: the thread's number along x, y and z, then R0 and on."""
VECTOR_REGISTERS = VECTOR + 255
_IMMEDIATE = {"I": 32, "F": 32, "H": 32}


class SassRegisters(MemoryAccess, Registers):
    """Operands as values: for each lane, or for the warp in the uniform datapath."""

    def __init__(self, converged: bool, full: bool, slots: dict[int, int]) -> None:
        Registers.__init__(self, exec_full=converged, wave_size=32)
        self.full, self.slots, self.generation = full, slots, ""
        self.patterns = {}
        self.guards: dict[tuple[str, str, bool], Value] = {}
        self.guard: Value | None = None
        """The lanes in which the instruction at hand writes; None for all that count."""
        self.uniform_guard: Value | None = None
        self.i: Instruction

    def refuse(self, why: str = "is not translated yet") -> UnknownInstruction:
        """The error that names the instruction at hand."""
        return UnknownInstruction(
            f"{text(self.i)} ({self.i.arch}) at pc {self.i.pc:#x} {why}.", operation="translate"
        )

    # ---- which lanes ----
    def begin(self, i: Instruction) -> None:
        """Takes up an instruction: its guard decides which lanes write."""
        self.i, self.now = i, i  # type: ignore[assignment]
        guard = i.guard
        self.guard = self.uniform_guard = None
        if guard.number == PT and not guard.negate:
            self.guard = None if self.exec_full else self.mask(EXEC)
            return
        if guard.kind == "UP":
            self.uniform_guard = self.predicate(guard, False)
            self.guard = None if self.exec_full else self.mask(EXEC)
            return
        chosen = self.predicate(guard)
        active = None if self.exec_full else self.mask(EXEC)
        key = (chosen.text, active.text if active else "", False)
        if key not in self.guards:
            self.guards[key] = chosen if active is None else chosen & active
        self.guard = self.guards[key]

    def _execution(self) -> Value | None:
        return self.guard

    def active_bits(self) -> Value:
        """The lanes in which the instruction at hand takes effect, as 32 bits."""
        exec = self.scalar(EXEC)
        if self.i.guard.kind == "UP" or (self.i.guard.number == PT and not self.i.guard.negate):
            return exec
        assert self.guard is not None
        chosen = self.value(f"bitcast {self.guard.llvm} {self.guard.text} to i32", "u32", False)
        return chosen & exec

    def scalar(self, index: int) -> Value:
        """A scalar register as u32; EXEC and LIVE are known where the warp is whole."""
        if index in (EXEC, LIVE) and self.full and index not in self.scalars:
            self.scalars[index] = self.constant("u32", 0xFFFFFFFF, False)
        return super().scalar(index)

    # ---- predicates ----
    def predicate(self, o: Operand, lanes: bool = True) -> Value:
        """A predicate that is read, negated where it says so."""
        if o.number == PT:
            return self.constant("m1", not o.negate, lanes)
        if o.kind == "UP":
            value = self.scalar(UNIFORM_PREDICATE + o.number).differs(0)
            value = self.splat(value) if lanes else value
        else:
            value = self.mask(PREDICATE + o.number)
        if not o.negate:
            return value
        key = (value.text, "", True)
        if key not in self.guards:
            self.guards[key] = ~value
        return self.guards[key]

    def set_predicate(self, o: Operand, value: Value) -> None:
        """Writes a predicate in the lanes of the guard."""
        if o.number == PT:
            return
        if o.kind == "UP":
            word = value.to("u32")
            if self.uniform_guard is not None:
                word = self.uniform_guard.select(word, self.scalar(UNIFORM_PREDICATE + o.number))
            self.set_scalar(UNIFORM_PREDICATE + o.number, word)
            return
        index = PREDICATE + o.number
        if self.guard is not None:
            value = self.guard.select(value, self.mask(index))
        bits = self.value(f"bitcast {value.llvm} {value.text} to i32", "u32", False)
        self.set_scalar(index, bits)
        self.masks[index] = value

    # ---- sources ----
    @property
    def lanes(self) -> bool:
        """Whether the instruction at hand works on lanes, not in the uniform datapath."""
        return not self.i.row.uniform

    def _spread(self, value: Value) -> Value:
        return self.splat(value) if self.lanes and not value.lanes else value

    def bank(self, number: int) -> str:
        """The address of a constant bank, as a pointer."""
        if number >= BANK_COUNT:
            raise self.refuse(f"reads constant bank {number}, which is not translated yet")
        return f"%bank{number}"

    def constant_word(self, number: int, offset: int, type: str) -> Value:
        """What a constant bank holds at a fixed place."""
        at = self.emit(f"getelementptr i8, ptr {self.bank(number)}, i64 {offset & 0xFFFF}")
        return self.value(f"load {self.spell(type, False)}, ptr {at}, align 4", type, False)

    def word(self, o: Operand, type: str = "u32") -> Value:
        """An operand of 32 or 64 bits, without its signs."""
        wide = type[1:] == "64"
        if o.kind == "R":
            if o.number == RZ:
                return self.constant(type, 0, True)
            index = VECTOR + o.number
            return (self.vector_pair(index).as_type(type) if wide else self.vector(index, type))
        if o.kind == "UR":
            if o.number == URZ:
                return self.constant(type, 0, self.lanes)
            value = self.scalar_pair(o.number) if wide else self.scalar(o.number)
            return self._spread(value.as_type(type))
        if o.kind == "C":
            return self._spread(self.constant_word(o.number, o.offset, type))
        bits = o.number << 32 if o.kind == "D" else o.number
        if wide and o.kind == "I" and type[0] == "i" and bits >> 31:
            bits |= 0xFFFFFFFF << 32
        return self.constant(type, bits, self.lanes)

    def source(self, token: str, type: str = "u32") -> Value:
        """An operand with its signs."""
        o = self.i.operand(token)
        value = self.word(o, type)
        if o.absolute:
            value = value.abs()
        return -value if o.negate else value

    # ---- results ----
    def result(self, value: Value, token: str = "d") -> None:
        """Writes a register, or two of a 64-bit value."""
        self.put(self.i.operand(token), value)

    def put(self, o: Operand, value: Value) -> None:
        """Writes a register."""
        wide = value.width == 64
        if o.kind == "UR":
            if o.number == URZ:
                return
            value = value.as_type("u64" if wide else "u32")
            if self.uniform_guard is not None:
                old = self.scalar_pair(o.number) if wide else self.scalar(o.number)
                value = self.uniform_guard.select(value, old)
            (self.set_scalar_pair if wide else self.set_scalar)(o.number, value)
        elif o.number != RZ:
            value = value if value.lanes else self.splat(value)
            (self.set_vector_pair if wide else self.set_vector)(VECTOR + o.number, value)

    def context_pointer(self, name: str) -> str:
        """A field of the context, as an address."""
        return self.emit(
            f"getelementptr i8, ptr %context, i64 {getattr(layout, f'CONTEXT_{name}')}"
        )
