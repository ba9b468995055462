"""NVIDIA's conversions to narrow floats: F2FP packs two float16, bfloat16 or 8-bit floats.

Sources: PTX ISA, cvt; OCP 8-bit Floating Point Specification. Whatever the sign of a NaN, it
becomes the one that PTX calls canonical: 0x7FFF as a half, 0x7F as an 8-bit float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drivers.emulated.simt.sass_decode import Instruction
from drivers.emulated.simt.sass_float import brain_bits, half_bits
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator

_NAN = 0x7F


class Float8(NamedTuple):
    """An 8-bit float: the bits of its fraction, its exponent's bias, its greatest number's code."""

    fraction: int
    bias: int
    greatest: int


E4M3, E5M2 = Float8(3, 7, 0x7E), Float8(2, 15, 0x7B)
FLOATS = {"E4M3": E4M3, "E5M2": E5M2}


def float_of(code: Value, type: Float8) -> Value:
    """The number, as float32, whose code is in the low byte of a word: exact."""
    if type is E5M2:  # a half's upper byte
        return ((code & 0xFF) << 8).to("u16").as_type("f16").to("f32")
    magnitude = code & 0x7F
    half = (magnitude << 7 | (code & 0x80) << 8).to("u16").as_type("f16")
    number = half.to("f32") * 256.0  # the biases' difference
    return magnitude.equals(_NAN).select(number.like(float("nan")), number)


def code_of(value: Value, type: Float8) -> Value:
    """The code in a word of a float32, to nearest even; too large a number gives the greatest."""
    bits = value.as_type("u32")
    magnitude = bits & 0x7FFFFFFF
    dropped = 23 - type.fraction
    even = magnitude + ((1 << (dropped - 1)) - 1) + (magnitude >> dropped & 1)
    normal = (even >> dropped) - ((127 - type.bias) << type.fraction)
    # Of a number this large the last bit weighs what that of a denormal does.
    unit = value.like(2.0 ** (1 - type.bias - type.fraction + 23))
    denormal = (value.abs() + unit).as_type("u32") - unit.as_type("u32")
    finite = (magnitude < 128 - type.bias << 23).select(denormal, normal).min(type.greatest)
    signed = finite | bits >> 24 & 0x80
    return value.fcmp("uno", value).select(_NAN, signed)


def _rectified(value: Value) -> Value:
    """Negative numbers as 0."""
    return value.fcmp("uno", value).select(value, value.max(0.0))


def _half_parts(word: Value) -> tuple[Value, Value]:
    """Two float16 as float32: the low and the high."""
    low, high = (part.to("u16").as_type("f16").to("f32") for part in (word, word >> 16))
    return low, high


def _pack(t: Translator, i: Instruction) -> None:
    """b and a as the low and the high half."""
    if i.fields["satf"]:
        raise t.refuse()
    convert = brain_bits if i.fields["f2fp"] else half_bits
    parts = []
    for token in "ba":
        value = t.source(token, "f32")
        value = _rectified(value) if i.fields["relu"] else value
        parts.append(convert(value, toward_zero=bool(i.fields["f2fprnd"])))
    t.result(parts[0] | parts[1] << 16)


def _pack_bytes(t: Translator, i: Instruction) -> None:
    """Two 8-bit floats of two float32, or of a word of two float16, below what c has."""
    if not i.fields["satf"]:
        raise t.refuse()
    type = FLOATS[i.row.modifiers_of(i.arch)["fp8"].texts[i.fields["fp8"]]]
    if ".F32" in i.row.words:
        low, high = t.source("b", "f32"), t.source("a", "f32")
    else:
        low, high = _half_parts(t.raw(i.operand("e")))
    codes = [code_of(_rectified(value) if i.fields["relu"] else value, type)
             for value in (low, high)]
    t.result(codes[0] | codes[1] << 8 | t.raw(i.operand("c")) << 16)


def _unpack_bytes(t: Translator, i: Instruction) -> None:
    """Two 8-bit floats as halves."""
    type = FLOATS[i.row.modifiers_of(i.arch)["fp8_source"].texts[i.fields["fp8_source"]]]
    convert = brain_bits if i.fields["f2fp"] else half_bits
    operand = i.operand("h88")
    word = t.raw(operand)
    word = word >> 16 if operand.select == 3 else word
    parts = []
    for code in (word, word >> 8):
        value = float_of(code, type)
        value = _rectified(value) if i.fields["relu"] else value
        parts.append(value.fcmp("uno", value).select(0x7FFF, convert(value)))
    t.result(parts[0] | parts[1] << 16)


def _round_fraction(t: Translator, i: Instruction) -> None:
    """float32 with 13 bits less, to the nearest, ties away from zero."""
    if i.fields["satf"] or i.fields["relu"]:
        raise t.refuse()
    bits = t.raw(i.operand("b"))
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    near = bits if i.fields["f2fprnd"] else bits + 0x1000
    t.result(nan.select(bits, near & 0xFFFFE000))


def _f2fp(t: Translator, i: Instruction) -> None:
    words = i.row.words
    if ".TF32" in words:
        _round_fraction(t, i)
    elif "fp8_source" in words:
        _unpack_bytes(t, i)
    elif "fp8" in words:
        _pack_bytes(t, i)
    else:
        _pack(t, i)


SEMANTICS: dict[str, Semantics] = {"F2FP": _f2fp}
