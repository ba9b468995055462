"""DPP and SDWA: sources taken from other lanes, or from parts of registers.

Both are a dword behind a short encoding. DPP (data-parallel primitives) moves the first source
between lanes and may leave lanes unwritten; SDWA (sub-dword addressing; GFX9 and RDNA2) picks a
byte or a half of each source and says where the result goes. (AMD, "RDNA3 ISA", 7.7; "RDNA2
ISA", 6.4.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.simt.amd_bits import DPP8, DPP8_FI, DPP16, EXEC, SDWA
from drivers.emulated.simt.instruction import Instruction, Operand
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.amd import Translator

_ROW = 16
# SDWA's selections: (first bit, bits).
_PARTS = ((0, 8), (8, 8), (16, 8), (24, 8), (0, 16), (16, 16), (0, 32))
_PAD, _SIGN_EXTEND, _PRESERVE = range(3)


def source_lane(control: int, lane: int) -> int:
    """The lane that `lane` reads under a DPP16 pattern; −1 where that is beyond its row."""
    row, place, kind, count = lane & ~15, lane & 15, control >> 4, control & 15
    if control < 0x100:
        return lane & ~3 | control >> 2 * (lane & 3) & 3
    if control == 0x140:
        return row + 15 - place
    if control == 0x141:
        return lane & ~7 | 7 - (lane & 7)
    if kind == 0x10:
        return lane + count if place + count < _ROW else -1
    if kind == 0x11:
        return lane - count if place >= count else -1
    found = {0x12: (place - count) % _ROW, 0x15: count, 0x16: place ^ count}[kind]
    return row + found


def shuffled(t: Translator, vector: Value, lanes: list[int]) -> Value:
    """Each lane takes the value of a fixed lane; what the others take is not defined."""
    places = t.each_lane("u32", (max(lane, 0) for lane in lanes))
    return t.value(
        f"shufflevector {vector.llvm} {vector.text}, {vector.llvm} poison, "
        f"{places.llvm} {places.text}", vector.type, True,
    )


def moved(t: Translator, i: Instruction, word: Value) -> tuple[Value, Value | None]:
    """A register's value after DPP, and the lanes that may be written (None: all of EXEC)."""
    f, every = i.fields, range(t.wave_size)
    if f["control"] == DPP16:
        lanes = [source_lane(f["dpp_ctrl"], lane) for lane in every]
    else:
        lanes = [lane & ~7 | f["sel"] >> 3 * (lane & 7) & 7 for lane in every]
    result = shuffled(t, word, lanes)
    there: Value | None = None
    if min(lanes) < 0:
        there = t.each_lane("m1", (int(lane >= 0) for lane in lanes))
    if not t.exec_full and not f.get("fi"):
        active = shuffled(t, t.mask(EXEC), lanes)
        there = active if there is None else active & there
    if there is not None and (f["control"] != DPP16 or f["bound_ctrl"]):
        result, there = there.select(result, result.like(0)), None
    return result, _masked(t, f, there)


def _masked(t: Translator, fields: dict[str, int], there: Value | None) -> Value | None:
    """Without the rows and banks that DPP16 leaves alone."""
    rows, banks = fields.get("row_mask", 15), fields.get("bank_mask", 15)
    if rows == 15 and banks == 15:
        return there
    chosen = t.each_lane("m1", (
        rows >> (lane >> 4 & 3) & 1 & banks >> (lane >> 2 & 3) for lane in range(t.wave_size)
    ))
    return chosen if there is None else chosen & there


def selected(t: Translator, fields: dict[str, int], place: int, word: Value) -> Value:
    """The part of a source's register that SDWA names."""
    first, bits = _PARTS[fields[f"src{place}_sel"]]
    if bits == 32:
        return word
    up = word << (32 - bits - first)
    if fields[f"sext{place}"]:
        return (up.as_type("i32") >> (32 - bits)).as_type("u32")
    return up >> (32 - bits)


def put(t: Translator, i: Instruction, result: Value) -> None:
    """Writes a result to the part of the register that SDWA names."""
    word = result.as_type(f"u{result.width}").to("u32")
    first, bits = _PARTS[i.fields["dst_sel"]]
    index, unused = i.dst[0].index, i.fields["dst_unused"]
    mask = ((1 << bits) - 1) << first
    if bits == 32:
        t.set_vector(index, word)
        return
    part = (word << first) & mask
    if unused == _PRESERVE:
        part = part | (t.vector(index) & (0xFFFFFFFF ^ mask))
    elif unused == _SIGN_EXTEND:
        up = (word << (32 - bits)).as_type("i32")
        part = (up >> (32 - bits)).as_type("u32") << first
    t.set_vector(index, part)


def is_dpp(fields: dict[str, int]) -> bool:
    """Whether the control dword is one of DPP."""
    return fields.get("control") in (DPP8, DPP8_FI, DPP16)


def is_sdwa(fields: dict[str, int]) -> bool:
    """Whether the control dword is one of SDWA."""
    return fields.get("control") == SDWA


def sources(t: Translator, i: Instruction) -> tuple[list[Value], Value | None]:
    """The sources of an instruction, and the lanes that may be written (None: all of EXEC)."""
    values: list[Value] = []
    lanes = None
    for place, operand in enumerate(i.src):
        if operand.type[0] == "m" or operand.kind in "cl" or operand.dwords > 1:
            if is_dpp(i.fields) and not place:
                raise t.refuse("moves 64-bit values by DPP, which is not translated yet")
            values.append(t.operand(operand))
            continue
        word = _word(t, operand, is_dpp(i.fields) and not place)
        if is_dpp(i.fields) and not place:
            word, lanes = moved(t, i, word)
        elif is_sdwa(i.fields) and place < 2:
            word = selected(t, i.fields, place, word)
        values.append(t.modified_word(operand, word))
    return values, lanes


def _word(t: Translator, operand: Operand, whole: bool) -> Value:
    if operand.kind == "v":
        return t.vector(operand.index, whole=whole)
    return t.splat(t.scalar_operand(operand, "u32"))
