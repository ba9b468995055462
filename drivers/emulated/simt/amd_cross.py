"""RDNA3 instructions that move values between lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from drivers.emulated.simt.amd_bits import EXEC
from drivers.emulated.simt.instruction import Instruction
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.amd import Translator
    from drivers.emulated.simt.registers import Registers


def _first_lane(t: Translator, instruction: Instruction) -> None:
    """v_readfirstlane_b32: of the lanes in EXEC; lane 0 if there is none."""
    source, dst = instruction.src[0], instruction.dst[0]
    if source.kind != "v":
        t._set_scalar(dst, t.scalar_operand(source))
        return
    lane = "i32 0"
    if not t.exec_full:
        exec = t.bits(EXEC)
        found = exec.equals(0).select(0, exec.intrinsic("cttz", "i1 false"))
        lane = f"{found.llvm} {found.text}"
    vector = t.vector(source.index, whole=not t.exec_full)
    text = f"extractelement {vector.llvm} {vector.text}, {lane}"
    t._set_scalar(dst, t.value(text, "u32", False))


def _read_lane(t: Translator, instruction: Instruction) -> None:
    source, lane = instruction.src[:2]
    if source.kind != "v":
        t._set_scalar(instruction.dst[0], t.scalar_operand(source))
        return
    number = t.scalar_operand(lane, "u32") & (t.wave_size - 1)
    vector = t.vector(source.index, whole=True)
    text = f"extractelement {vector.llvm} {vector.text}, i32 {number.text}"
    t._set_scalar(instruction.dst[0], t.value(text, "u32", False))


def _write_lane(t: Translator, instruction: Instruction) -> None:
    value, lane = instruction.src[:2]
    index = instruction.dst[0].index
    number = t.scalar_operand(lane, "u32") & (t.wave_size - 1)
    vector = t.vector(index, whole=True)
    given = t.scalar_operand(value, "u32")
    text = f"insertelement {vector.llvm} {vector.text}, i32 {given.text}, i32 {number.text}"
    t.set_whole_vector(index, t.value(text, "u32", True))


def permuted(t: Registers, vector: Value, lanes: Value) -> Value:
    """Each lane takes the value of the lane whose number it holds."""
    buffer, words, mask = "%lanes", t.spell("u32"), t.spell("m1")
    t.do(f"store {words} {vector.text}, ptr {buffer}")
    picked = lanes & (t.wave_size - 1)
    pointers = f"<{t.wave_size} x ptr>"
    places = t.emit(f"getelementptr i32, ptr {buffer}, {words} {picked.text}")
    name = f"llvm.masked.gather.v{t.wave_size}i32.v{t.wave_size}p0"
    t.declarations.add(f"declare {words} @{name}({pointers}, i32, {mask}, {words})")
    return t.value(
        f"call {words} @{name}({pointers} {places}, i32 4, {mask} splat (i1 true), "
        f"{words} poison)", "u32", True,
    )


def _backward_permute(t: Translator, instruction: Instruction) -> None:
    """ds_bpermute_b32: lanes outside EXEC give 0."""
    address, data = instruction.src[:2]
    vector = t.vector(data.index)
    if not t.exec_full:
        vector = t.mask(EXEC).select(vector, vector.like(0))
    lanes = (t.vector(address.index) + instruction.fields["offset"]) >> 2
    t.set_vector(instruction.dst[0].index, permuted(t, vector, lanes))


def _row_permute(crossed: bool) -> Callable[[Translator, Instruction], None]:
    """v_permlane16_b32: 4 bits of two scalars name a lane of the same row of 16, or the other."""

    def translate(t: Translator, instruction: Instruction) -> None:
        source, low, high = instruction.src
        every = range(t.wave_size)
        amounts = t.each_lane("u32", (4 * (lane % 8) for lane in every))
        is_low = t.each_lane("m1", (lane % 16 < 8 for lane in every))
        chosen = is_low.select(
            t.splat(t.scalar_operand(low, "u32")), t.splat(t.scalar_operand(high, "u32"))
        )
        rows = ((lane & ~15) ^ (16 if crossed else 0) for lane in every)
        lanes = ((chosen >> amounts) & 15) | t.each_lane("u32", rows)
        vector = t.vector(source.index, whole=True)
        value = permuted(t, vector, lanes)
        fetch_inactive = instruction.fields["op_sel"] & 1
        if not t.exec_full and not fetch_inactive:
            active = permuted(t, t.mask(EXEC).to("u32"), lanes).differs(0)
            bound = instruction.fields["op_sel"] & 2
            old = t.vector(instruction.dst[0].index, whole=True)
            value = active.select(value, value.like(0) if bound else old)
        t.set_vector(instruction.dst[0].index, value)

    return translate


def _swizzle(t: Translator, instruction: Instruction) -> None:
    """ds_swizzle_b32: a fixed pattern within each 32 lanes, or within each four."""
    pattern = instruction.fields["offset"]
    if pattern & 0x8000 and pattern & 0x4000:
        raise t.refuse("swizzles in a mode that is not translated yet")
    if pattern & 0x8000:
        lanes = [(lane & ~3) | (pattern >> 2 * (lane & 3)) & 3 for lane in range(t.wave_size)]
    else:
        keep, join, flip = pattern & 31, pattern >> 5 & 31, pattern >> 10 & 31
        lanes = [(lane & 32) | ((lane & keep) | join) ^ flip for lane in range(t.wave_size)]
    vector = t.vector(instruction.src[0].index)
    if not t.exec_full:
        vector = t.mask(EXEC).select(vector, vector.like(0))
    words, places = vector.llvm, t.each_lane("u32", lanes).text
    text = f"shufflevector {words} {vector.text}, {words} poison, {words} {places}"
    t.set_vector(instruction.dst[0].index, t.value(text, "u32", True))


def _swap(t: Translator, instruction: Instruction) -> None:
    first, second = instruction.dst[0].index, instruction.src[0].index
    one, other = t.vector(first), t.vector(second)
    t.set_vector(first, other)
    t.set_vector(second, one)


CROSS_LANE: dict[str, Callable[[Translator, Instruction], None]] = {
    "v_readfirstlane_b32": _first_lane,
    "v_readlane_b32": _read_lane,
    "v_writelane_b32": _write_lane,
    "ds_bpermute_b32": _backward_permute,
    "v_permlane16_b32": _row_permute(False),
    "v_permlanex16_b32": _row_permute(True),
    "ds_swizzle_b32": _swizzle,
    "v_swap_b32": _swap,
}
