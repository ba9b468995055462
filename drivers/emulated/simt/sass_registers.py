"""A warp's registers while one basic block of NVIDIA's code is translated.

The vector registers of a wave's state are TID.X, Y, Z, then R0 … R254. Its scalar registers are
what a launch says (constant banks, the block's number), then what belongs to the warp: predicates
as masks of lanes, uniform registers, convergence barriers.
"""

from __future__ import annotations

from typing import NamedTuple

from drivers.emulated.simt.access import Access
from drivers.emulated.simt.sass_decode import PT, RZ, URZ, Instruction, Operand
from drivers.emulated.simt.values import Value

BANKS = 8
BANK = 0  # of each constant bank: address (2 registers) and size
BANK_REGISTERS = 3
BLOCK_ID = BANK + BANK_REGISTERS * BANKS  # CTAID.X, Y, Z
WINDOWS = BLOCK_ID + 3  # generic addresses of shared and of local memory, 2 registers each
PREDICATE = WINDOWS + 4  # P0 … P6, masks of lanes
UNIFORM_PREDICATE = PREDICATE + PT  # UP0 … UP6, 0 or 1
BARRIER = UNIFORM_PREDICATE + PT  # B0 … B15, masks of lanes
UNIFORM = BARRIER + 16  # UR0 … UR62
ALIVE = 125  # the lanes that have not ended
EXEC = 126  # the lanes that run here; the runner writes it
THREAD_ID = 0  # TID.X, Y, Z as vector registers
VECTOR = 3  # R0 …
VECTOR_REGISTERS = VECTOR + RZ
assert UNIFORM + URZ <= ALIVE


class Sum(NamedTuple):
    """`base` (u64, for the warp) + `step` (i32, for each lane) × `factor`."""

    base: Value
    step: Value
    factor: int

    def whole(self) -> Value:
        """The sum, as u64 for each lane."""
        product = (self.step.to("i64") * self.factor).as_type("u64")
        build = self.step.build
        assert isinstance(build, SassRegisters)
        return product + build.splat(self.base)


class SassRegisters(Access):
    """The registers of a block by their names, written in the lanes that an instruction's guard
    admits."""

    now: Instruction
    guard: Value | None = None
    """The lanes in which the instruction at hand has an effect, None where all of EXEC."""

    def __init__(self, exec_full: bool, slots: dict[int, int]) -> None:
        super().__init__(exec_full=exec_full, wave_size=32)
        self.slots = slots
        self.patterns, self.groups = {}, {}
        self._guards: dict[str, Value] = {}
        self.uniform_guard: Value | None = None
        self.bases: dict[str, tuple[Value, Value, Value]] = {}
        """Of addresses, by their text: the first lane's, the distances from it (u32), and whether
        all of them are that short."""
        self.sums: dict[str, Sum] = {}
        """Of values of 64 bits, by their text: those that are a scalar and a small product."""
        self.known: dict[str, Value] = {}
        """Of values for each lane, by their text: the scalar that all lanes have."""
        self._fields: dict[str, Value] = {}

    def field(self, name: str) -> Value:
        """A 64-bit field of the thread's context, which does not change in a block."""
        if name not in self._fields:
            self._fields[name] = self.context_field(name)
        return self._fields[name]

    def scalar(self, index: int) -> Value:
        """A scalar register as u32; where all lanes run, all are alive."""
        if self.exec_full and index == ALIVE and index not in self.scalars:
            self.scalars[index] = self.constant("u32", 0xFFFFFFFF, False)
        return super().scalar(index)

    # ---- the guard ----
    def begin(self, instruction: Instruction) -> None:
        """Makes an instruction, with its guard, the one at hand."""
        self.now, self.pc = instruction, instruction.pc
        self.guard = self.uniform_guard = None
        guard = instruction.guard
        if guard.number == PT and not guard.negate:
            return
        if guard.kind == "UP" or instruction.row.uniform:
            self.uniform_guard = self.predicate(guard)
            return
        lanes = self.predicate(guard)
        key = lanes.text
        if key not in self._guards:
            self._guards[key] = lanes if self.exec_full else lanes & self.mask(EXEC)
        self.guard = self._guards[key]

    def _execution(self) -> Value | None:
        return super()._execution() if self.guard is None else self.guard

    def active(self) -> Value | None:
        """The lanes in which the instruction at hand has an effect, None where that is all."""
        return self._execution()

    def active_bits(self) -> Value:
        """The same as a mask of 32 bits."""
        if self.guard is None:
            return self.scalar(EXEC)
        return self.packed(self.guard)

    def packed(self, lanes: Value) -> Value:
        """Truth values of the lanes as a mask of 32 bits."""
        return self.value(f"bitcast {lanes.llvm} {lanes.text} to i32", "u32", False)

    def unpacked(self, bits: Value) -> Value:
        """A mask of 32 bits as truth values of the lanes."""
        return self.value(f"bitcast i32 {bits.text} to {self.spell('m1')}", "m1", True)

    # ---- pairs: known only where no guard is ----
    def vector_pair(self, index: int, whole: bool = False) -> Value:
        """Two vector registers as u64."""
        if self.guard is None:
            return super().vector_pair(index, whole)
        low, high = self.vector(index), self.vector(index + 1)
        return low.to("u64") | (high.to("u64") << 32)

    def set_vector_pair(self, index: int, value: Value) -> None:
        """Writes two vector registers from 64-bit values."""
        super().set_vector_pair(index, value)
        if self.guard is not None:
            self.wide.pop(index, None)

    # ---- predicates ----
    def predicate(self, operand: Operand) -> Value:
        """A predicate with its negation; of the lanes, or of the warp if it is uniform."""
        if operand.kind == "UP":
            value = (
                self.constant("m1", 1, False) if operand.number == PT
                else self.scalar(UNIFORM_PREDICATE + operand.number).differs(0)
            )
        elif operand.number == PT:
            return self.constant("m1", not operand.negate, True)
        else:
            value = self.mask(PREDICATE + operand.number)
        return ~value if operand.negate else value

    def set_predicate(self, operand: Operand, value: Value) -> None:
        """Writes a predicate where the guard admits it."""
        if operand.number == PT:
            return
        if operand.kind == "UP":
            index = UNIFORM_PREDICATE + operand.number
            self._set_uniform(index, value.to("u32"))
            return
        index = PREDICATE + operand.number
        active = self.active()
        if active is not None:
            value = active.select(value, self.mask(index))
        bits = self.packed(value)
        self.set_scalar(index, bits)
        self.masks[index] = value

    # ---- uniform registers ----
    def _set_uniform(self, index: int, value: Value) -> None:
        if self.uniform_guard is not None:
            value = self.uniform_guard.select(value, self.scalar(index))
        elif self.guard is not None:  # written by a lane, as R2UR and VOTEU do
            any_lane = self.packed(self.guard).differs(0)
            value = any_lane.select(value, self.scalar(index))
        self.set_scalar(index, value)

    def uniform(self, number: int, wide: bool = False) -> Value:
        """A uniform register as u32, or two as u64."""
        if number == URZ:
            return self.constant("u64" if wide else "u32", 0, False)
        if wide:
            return self.scalar_pair(UNIFORM + number)
        return self.scalar(UNIFORM + number)

    def set_uniform(self, number: int, value: Value) -> None:
        """Writes a uniform register, or two from 64 bits."""
        if number == URZ:
            return
        if value.width == 64:
            bits = value.as_type("u64")
            self._set_uniform(UNIFORM + number, bits.to("u32"))
            self._set_uniform(UNIFORM + number + 1, (bits >> 32).to("u32"))
            if self.uniform_guard is None and self.guard is None:
                self.wide_scalars[UNIFORM + number] = bits
        else:
            self._set_uniform(UNIFORM + number, value.as_type("u32"))

    # ---- R registers ----
    def register(self, number: int) -> Value:
        """R as u32."""
        if number == RZ:
            return self.constant("u32", 0, True)
        return self.vector(VECTOR + number)

    def register_pair(self, number: int) -> Value:
        """Two R as u64."""
        if number == RZ:
            return self.constant("u64", 0, True)
        return self.vector_pair(VECTOR + number)

    def set_register(self, number: int, value: Value) -> None:
        """Writes an R, or two from 64 bits."""
        if number == RZ:
            return
        if value.width == 64:
            self.set_vector_pair(VECTOR + number, value)
        else:
            self.set_vector(VECTOR + number, value)
