"""NVIDIA's barriers: BAR, at which warps of a block meet by number, and what they vote there.

A BAR ends a block of code: the warp's function returns, and the runner lets the warp go on once
enough have come (`runner.py`). What it waits for stands in the warp's state: a number with 4 bits
each of the barrier and of what it does, and warps that are to come (0: all) from bit 8 on.

PTX ISA, bar: SYNC waits, ARV only arrives, RED waits and counts the threads for which a predicate
holds. Forms: the number and the count of threads are in the instruction or in a register, or both
are in one register, the count from its bit 16 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.simt import layout
from drivers.emulated.simt.sass_decode import RZ, Instruction, Operand
from drivers.emulated.simt.sass_special import first_lane
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator

_WARP_BITS = 5


def meeting(t: Translator, i: Instruction) -> Value:
    """What the warp waits for."""
    kind = layout.MEETS
    if ".ARV" in i.row.words:
        kind = layout.MEETS_ARRIVING
    elif ".RED" in i.row.words:
        kind = layout.MEETS_COUNTING + i.fields["barred"]
    operands = [o for o in i.operands if o.kind in ("I", "R")]
    number, threads = (_uniform(t, operand) for operand in operands)
    if all(operand.kind == "R" for operand in operands):
        threads = threads >> 16
    return number & 15 | kind << 4 | (threads & 0xFFF) >> _WARP_BITS << 8


def _uniform(t: Translator, operand: Operand) -> Value:
    """An operand's number, which all lanes have."""
    if operand.kind == "I" or operand.number == RZ:
        return t.constant("u32", operand.number if operand.kind == "I" else 0, False)
    return first_lane(t, t.register(operand.number))


def ballot(t: Translator, i: Instruction) -> Value:
    """The lanes for which the predicate of a RED holds; all for others."""
    return t.packed(t.read("p87"))


def _b2r(t: Translator, i: Instruction) -> None:
    """What came of the last vote."""
    at = t.emit(f"getelementptr i8, ptr %state, i64 {layout.STATE_RESULT}")
    result = t.value(f"load i32, ptr {at}", "u32", False)
    t.result(t.splat(result))
    t.decide("P81", t.splat(result.differs(0)))


SEMANTICS: dict[str, Semantics] = {"B2R": _b2r}
