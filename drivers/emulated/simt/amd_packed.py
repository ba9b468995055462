"""RDNA3's packed, mixed and dot-product instructions (VOP3P)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from drivers.emulated.simt.instruction import Instruction, Operand
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.amd import Translator

Translate = Callable[["Translator", Instruction], None]


def half_of(t: Translator, operand: Operand, type: str, upper: int) -> Value:
    """One 16-bit half of an operand."""
    if operand.kind == "c" and operand.index > 208 and not upper:
        return t.constant(type, t.constant_bits(operand, type), True)
    if operand.kind == "v":
        whole = t.vector(operand.index)
    else:
        whole = t.splat(t.scalar_operand(operand, "p32").as_type("u32"))
    if upper:
        whole = whole >> 16
    return whole.to("u16").as_type(type)


def _halves(t: Translator, i: Instruction, type: str, upper: bool) -> list[Value]:
    """The halves that make the lower or the upper result, with their signs changed as asked."""
    choice = i.fields["op_sel_hi" if upper else "op_sel"]
    negate = i.fields["neg_hi" if upper else "neg_lo"]
    values = []
    for place, operand in enumerate(i.src):
        value = half_of(t, operand, type, choice >> place & 1)
        values.append(-value if negate >> place & 1 and type[0] == "f" else value)
    return values


def _packed(type: str, function: Callable[..., Value], reverse: bool = False) -> Translate:
    def translate(t: Translator, i: Instruction) -> None:
        results = []
        for upper in (False, True):
            values = _halves(t, i, type, upper)
            result = function(*values)
            if i.fields["clamp"]:
                if type[0] != "f":
                    raise t.refuse("saturates integers, which is not translated yet")
                result = (result > 0.0).select(result, result.like(0.0)).min(1.0)
            results.append(result.as_type("u16").to("u32"))
        t.set_vector(i.dst[0].index, results[0] | (results[1] << 16))

    return translate


def _accumulate_packed(t: Translator, i: Instruction) -> None:
    """v_pk_fmac_f16, a VOP2 without modifiers."""
    results = []
    for upper in (0, 1):
        a, b, c = (half_of(t, o, "f16", upper) for o in (*i.src, i.dst[0]))
        results.append(a.fma(b, c).as_type("u16").to("u32"))
    t.set_vector(i.dst[0].index, results[0] | (results[1] << 16))


def _mixed(t: Translator, i: Instruction) -> Value:
    """v_fma_mix: each source is a float32, or a half where op_sel_hi says so."""
    values = []
    for place, operand in enumerate(i.src):
        if i.fields["op_sel_hi"] >> place & 1:
            value = half_of(t, operand, "f16", i.fields["op_sel"] >> place & 1).to("f32")
        else:
            value = t.operand(operand)
        if i.fields["neg_hi"] >> place & 1:
            value = value.abs()
        values.append(-value if i.fields["neg_lo"] >> place & 1 else value)
    result = values[0].fma(values[1], values[2])
    if i.fields["clamp"]:
        result = (result > 0.0).select(result, result.like(0.0)).min(1.0)
    return result


def _mix_f32(t: Translator, i: Instruction) -> None:
    t.set_vector(i.dst[0].index, _mixed(t, i))


def _mix_half(upper: bool) -> Translate:
    def translate(t: Translator, i: Instruction) -> None:
        half = _mixed(t, i).to("f16").as_type("u16").to("u32")
        old = t.vector(i.dst[0].index)
        if upper:
            t.set_vector(i.dst[0].index, (old & 0xFFFF) | (half << 16))
        else:
            t.set_vector(i.dst[0].index, (old & 0xFFFF0000) | half)

    return translate


def _dot2(t: Translator, i: Instruction) -> None:
    """v_dot2_f32_f16: two products and the third source, in float32."""
    total = t.operand(i.src[2])
    for upper in (False, True):
        pair = Instruction(i.pc, 0, i.format, i.name, i.dst, i.src[:2], i.fields)
        a, b = _halves(t, pair, "f16", upper)
        total = a.to("f32").fma(b.to("f32"), total)
    t.set_vector(i.dst[0].index, total)


def _dot2acc(t: Translator, i: Instruction) -> None:
    total = t.vector(i.dst[0].index, "f32")
    for upper in (0, 1):
        a, b = (half_of(t, operand, "f16", upper).to("f32") for operand in i.src)
        total = a.fma(b, total)
    t.set_vector(i.dst[0].index, total)


def _dot_bytes(bits: int, mixed_signs: bool) -> Translate:
    """v_dot4 and v_dot8: products of small integers; neg_lo marks signed sources."""

    def translate(t: Translator, i: Instruction) -> None:
        signed = [bool(i.fields["neg_lo"] >> place & 1) and mixed_signs for place in (0, 1)]
        total = t.operand(i.src[2]).as_type("u32")
        a, b = (t.operand(operand).as_type("u32") for operand in i.src[:2])
        for place in range(0, 32, bits):
            parts = []
            for value, sign in zip((a, b), signed, strict=True):
                moved = value << (32 - bits - place)
                if sign:
                    parts.append((moved.as_type("i32") >> (32 - bits)).as_type("u32"))
                else:
                    parts.append(moved >> (32 - bits))
            total = total + parts[0] * parts[1]
        if i.fields["clamp"]:
            raise t.refuse("saturates integers, which is not translated yet")
        t.set_vector(i.dst[0].index, total)

    return translate


PACKED: dict[str, Translate] = {
    "v_pk_add_f16": _packed("f16", lambda a, b: a + b),
    "v_pk_mul_f16": _packed("f16", lambda a, b: a * b),
    "v_pk_min_f16": _packed("f16", Value.min),
    "v_pk_max_f16": _packed("f16", Value.max),
    "v_pk_fma_f16": _packed("f16", Value.fma),
    "v_pk_fmac_f16": _accumulate_packed,
    "v_pk_add_u16": _packed("u16", lambda a, b: a + b),
    "v_pk_add_i16": _packed("i16", lambda a, b: a + b),
    "v_pk_sub_u16": _packed("u16", lambda a, b: a - b),
    "v_pk_sub_i16": _packed("i16", lambda a, b: a - b),
    "v_pk_mul_lo_u16": _packed("u16", lambda a, b: a * b),
    "v_pk_mad_u16": _packed("u16", lambda a, b, c: a * b + c),
    "v_pk_mad_i16": _packed("i16", lambda a, b, c: a * b + c),
    "v_pk_min_u16": _packed("u16", Value.min),
    "v_pk_max_u16": _packed("u16", Value.max),
    "v_pk_min_i16": _packed("i16", Value.min),
    "v_pk_max_i16": _packed("i16", Value.max),
    "v_pk_lshlrev_b16": _packed("u16", lambda n, a: a << n),
    "v_pk_lshrrev_b16": _packed("u16", lambda n, a: a >> n),
    "v_pk_ashrrev_i16": _packed("i16", lambda n, a: a >> n),
    "v_fma_mix_f32": _mix_f32,
    "v_fma_mixlo_f16": _mix_half(False),
    "v_fma_mixhi_f16": _mix_half(True),
    "v_dot2_f32_f16": _dot2,
    "v_dot2acc_f32_f16": _dot2acc,
    "v_dual_dot2acc_f32_f16": _dot2acc,
    "v_dot4_i32_iu8": _dot_bytes(8, True),
    "v_dot4_u32_u8": _dot_bytes(8, False),
    "v_dot8_i32_iu4": _dot_bytes(4, True),
    "v_dot8_u32_u4": _dot_bytes(4, False),
}
