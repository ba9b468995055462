"""What NVIDIA's instructions on two halves (float16 or bfloat16) at once compute.

Each half is widened to float32 (a fused product to float64), and rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.simt.sass_decode import PT, Instruction
from drivers.emulated.simt.sass_float import _COMPARE, brain_bits, flushed, half_bits, saturated
from drivers.emulated.simt.sass_integer import combine
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator


def _brain(i: Instruction) -> bool:
    return any(i.fields.get(f"{of}bf16") for of in ("", "mul_", "mma_", "hset_"))


def _widened(bits: Value, brain: bool) -> Value:
    """The low half of a word as float32."""
    if brain:
        return (bits << 16).as_type("f32")
    return bits.to("u16").as_type("f16").to("f32")


def halves(t: Translator, i: Instruction, token: str) -> tuple[Value, Value]:
    """Both halves of a source as float32: the low and the high."""
    operand, brain = i.operand(token), _brain(i)
    word = t.raw(operand)
    if operand.select == 1:
        one = word.as_type("f32")
        both = (one, one)
    else:
        low = _widened(word & 0xFFFF if brain else word, brain)
        high = _widened(word >> 16, brain)
        both = {0: (low, high), 2: (low, low), 3: (high, high)}[operand.select]
    result = []
    for value in both:
        if i.fields.get("ftz") and not brain:
            value = _flushed_half(value)
        value = value.abs() if operand.absolute else value
        result.append(-value if operand.negate else value)
    return result[0], result[1]


def _flushed_half(value: Value) -> Value:
    """float32 that was a half: its denormals as zeros."""
    zero = value.like(0.0).intrinsic("copysign", value)
    return (value.abs() < 2.0**-14).select(zero, value)


def _pack(t: Translator, i: Instruction, both: tuple[Value, Value]) -> None:
    """Rounds two float32 or float64 and writes them as halves."""
    parts = []
    for value in both:
        if i.fields.get("sat"):
            value = saturated(value)
        if ".RELU" in i.row.words:
            value = value.fcmp("uno", value).select(value, value.max(0.0))
        if _brain(i):
            parts.append(brain_bits(_odd(value) if value.width == 64 else value))
        elif value.width == 64:
            parts.append(value.to("f16").as_type("u16").to("u32"))
        else:
            parts.append(half_bits(_flushed_half(value) if i.fields.get("ftz") else value))
    t.result(parts[0] | parts[1] << 16)


def _odd(value: Value) -> Value:
    """float64 → float32 whose last bit says what was cut, so that only the next step rounds."""
    near = value.to("f32")
    back = near.to("f64")
    bits = near.as_type("u32")
    cut = (back.abs() > value.abs()).select(bits - 1, bits)
    exact = back.equals(value) | value.fcmp("uno", value)
    return exact.select(bits, cut | 1).as_type("f32")


def _hadd2(t: Translator, i: Instruction) -> None:
    a, b = halves(t, i, "a"), halves(t, i, "e")
    if i.fields.get("f32out"):
        value = a[0] + b[0]
        value = flushed(value) if i.fields.get("ftz") else value
        t.result(saturated(value) if i.fields.get("sat") else value)
        return
    _pack(t, i, (a[0] + b[0], a[1] + b[1]))


def _hmul2(t: Translator, i: Instruction) -> None:
    a, b = halves(t, i, "a"), halves(t, i, "b")
    _pack(t, i, (_product(i, a[0], b[0]), _product(i, a[1], b[1])))


def _product(i: Instruction, a: Value, b: Value) -> Value:
    """FMZ: zero times anything is zero."""
    product = a * b
    if i.fields.get("fmz"):
        return (a.equals(0.0) | b.equals(0.0)).select(0.0, product)
    return product


def _hfma2(t: Translator, i: Instruction) -> None:
    a, b, c = (halves(t, i, token) for token in "abc")
    if i.fields.get("fmz"):
        raise t.refuse()
    results = [x.to("f64").fma(y.to("f64"), z.to("f64")) for x, y, z in zip(a, b, c, strict=True)]
    _pack(t, i, (results[0], results[1]))


def _hmnmx2(t: Translator, i: Instruction) -> None:
    if i.fields.get("xorsign"):
        raise t.refuse()
    a, b = halves(t, i, "a"), halves(t, i, "b")
    which, strict = t.read("p87"), i.fields.get("nan")
    results = []
    for x, y in zip(a, b, strict=True):
        least = x.minimum(y) if strict else x.min(y)
        most = x.maximum(y) if strict else x.max(y)
        results.append(which.select(least, most))
    _pack(t, i, (results[0], results[1]))


def _compared(t: Translator, i: Instruction) -> tuple[Value, Value]:
    second = "b" if "b" in i.row.positions else "e"
    a, b = halves(t, i, "a"), halves(t, i, second)
    kind = _COMPARE[i.fields["fcmp"]]
    return a[0].fcmp(kind, b[0]), a[1].fcmp(kind, b[1])


def _hset2(t: Translator, i: Instruction) -> None:
    one = (0x3F80 if _brain(i) else 0x3C00) if i.fields["bf"] else 0xFFFF
    total = None
    for place, found in zip((0, 16), _compared(t, i), strict=True):
        found = combine(i.fields["hbool"], found, t.read("p87"))
        zero = t.constant("u32", 0, True)
        part = found.select(one << place, zero)
        total = part if total is None else total | part
    assert total is not None
    t.result(total)


def _hsetp2(t: Translator, i: Instruction) -> None:
    low, high = _compared(t, i)
    given = t.read("p87")
    if i.fields["h_and"]:
        both = low & high
        t.decide("P81", combine(i.fields["hbool"], both, given))
        if i.operand("P84").number != PT:
            t.decide("P84", combine(i.fields["hbool"], ~both, given))
        return
    t.decide("P81", combine(i.fields["hbool"], low, given))
    t.decide("P84", combine(i.fields["hbool"], high, given))


SEMANTICS: dict[str, Semantics] = {
    "HADD2": _hadd2, "HMUL2": _hmul2, "HFMA2": _hfma2, "HMNMX2": _hmnmx2, "HSET2": _hset2,
    "HSETP2": _hsetp2,
}
