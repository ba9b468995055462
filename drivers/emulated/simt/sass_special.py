"""NVIDIA's special registers, and moves between kinds of registers: S2R, CS2R, R2UR, R2P, P2R."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.simt import layout
from drivers.emulated.simt.sass_decode import PT, RZ, Instruction, Operand
from drivers.emulated.simt.sass_registers import BLOCK_ID, THREAD_ID, VECTOR, WINDOWS
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator


def _r2p(t: Translator, i: Instruction) -> None:
    word, mask = t.raw(i.operand("a")), i.operand("e")
    if mask.kind != "I":
        raise t.refuse("takes its mask from a register, which is not translated yet")
    first = 8 * i.fields["byte"]
    for n in range(PT):
        if mask.number >> n & 1:
            t.set_predicate(Operand("P", n), ((word >> first + n) & 1).differs(0))


def _p2r(t: Translator, i: Instruction) -> None:
    mask = i.operand("e")
    if mask.kind != "I":
        raise t.refuse("takes its mask from a register, which is not translated yet")
    first = 8 * i.fields["byte"]
    total = t.raw(i.operand("a")) & ~(mask.number << first) & 0xFFFFFFFF
    for n in range(PT):
        if mask.number >> n & 1:
            total = total | (t.predicate(Operand("P", n)).to("u32") << first + n)
    t.result(total)


_WINDOW_PARTS = {46: 3, 47: 1, 48: 0, 52: 2}
"""LWINHI, SWINHI, SWINLO, LWINLO: where they stand among the registers of the windows."""


def _special(t: Translator, number: int) -> Value:
    """A special register: for each lane, or (a scalar) for the warp."""
    if 33 <= number <= 35:
        return t.vector(THREAD_ID + number - 33)
    if 37 <= number <= 39:
        return t.scalar(BLOCK_ID + number - 37)
    lane = range(32)
    masks = {0: lane, 56: [1 << n for n in lane], 57: [(1 << n) - 1 for n in lane],
             58: [(2 << n) - 1 for n in lane], 59: [0xFFFFFFFF & -(2 << n) for n in lane],
             60: [0xFFFFFFFF & -(1 << n) for n in lane]}
    if number in masks:
        return t.each_lane("u32", masks[number])
    if number in (67, 136, 255):  # the multiprocessor, the block's number in its cluster; nothing
        return t.constant("u32", 0, False)
    if number == 3:  # VIRTID: from bit 8 on the warp in its block
        job = t.value(f"inttoptr i64 {t.field('JOB').text} to ptr", "u64", False)
        at = t.emit(f"getelementptr i8, ptr {job.text}, i64 {layout.JOB_WAVES}")
        waves = t.value(f"load i64, ptr {at}", "u64", False)
        text = f"urem i64 {t.field('WAVE').text}, {waves.text}"
        return t.value(text, "u64", False).to("u32") << 8
    if number in _WINDOW_PARTS:
        return t.scalar(WINDOWS + _WINDOW_PARTS[number])
    if number == 50:  # SMEMSZ
        return t.field("LDS_BYTES").to("u32")
    if number in (80, 81, 82, 83):
        clock = t.call("llvm.readcyclecounter", "u64", False)
        return clock.to("u32") if number in (80, 82) else (clock >> 32).to("u32")
    raise t.refuse(f"reads special register {number}, which is not translated yet")


def _s2r(t: Translator, i: Instruction) -> None:
    value = _special(t, i.operand("SR").number)
    t.result(value if value.lanes else t.splat(value))


def _s2ur(t: Translator, i: Instruction) -> None:
    value = _special(t, i.operand("SR").number)
    t.set_uniform(i.operand("U").number, first_lane(t, value) if value.lanes else value)


def _cs2r(t: Translator, i: Instruction) -> None:
    number = i.operand("SR").number
    if i.fields["32bit"] == 0:
        value = _special(t, number)
    elif number == 255:
        value = t.constant("u64", 0, False)
    elif number in (80, 82):
        value = t.call("llvm.readcyclecounter", "u64", False)
    else:
        raise t.refuse(f"reads special register {number} whole, which is not translated yet")
    t.result(value if value.lanes else t._everywhere(value))


def first_lane(t: Translator, value: Value) -> Value:
    """What the first lane has that the instruction at hand admits."""
    place = "i32 0"
    if t.active() is not None:
        bits = t.active_bits()
        found = bits.equals(0).select(0, bits.intrinsic("cttz", "i1 false"))
        place = f"i32 {found.text}"
    return t.value(f"extractelement {value.llvm} {value.text}, {place}", value.type, False)


def _r2ur(t: Translator, i: Instruction) -> None:
    value = t.vector(VECTOR + i.operand("a").number) if i.operand("a").number != RZ else (
        t.constant("u32", 0, True)
    )
    t.set_uniform(i.operand("U").number, first_lane(t, value))


SEMANTICS: dict[str, Semantics] = {
    "R2P": _r2p, "P2R": _p2r, "S2R": _s2r, "S2UR": _s2ur, "CS2R": _cs2r, "R2UR": _r2ur,
}
