"""What NVIDIA's float instructions compute: float32, float64, and conversions.

MUFU's functions are approximations on hardware, a few units in the last place off; here they are
those of `elementary`, or exact where the host computes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.simt import elementary
from drivers.emulated.simt.sass_decode import PT, RZ, Instruction
from drivers.emulated.simt.sass_integer import combine
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator

_COMPARE = ("false", "olt", "oeq", "ole", "ogt", "one", "oge", "ord",
            "uno", "ult", "ueq", "ule", "ugt", "une", "uge", "true")
_SMALLEST = {16: 2.0**-14, 32: 2.0**-126, 64: 2.0**-1022}
_WIDTHS = {1: "16", 2: "32", 3: "64"}  # by the number of a float type in conversions
_TOWARD = ("roundeven", "floor", "ceil", "trunc")


def flushed(value: Value) -> Value:
    """Denormals as zeros of their sign."""
    zero = value.like(0.0).intrinsic("copysign", value) if value.width > 16 else value.like(0.0)
    return (value.abs() < _SMALLEST[value.width]).select(zero, value)


def saturated(value: Value) -> Value:
    """Limited to 0…1; NaN becomes 0."""
    return (value > 0.0).select(value, value.like(0.0)).min(1.0)


def _given(t: Translator, i: Instruction, token: str, type: str) -> Value:
    value = t.source(token, type)
    return flushed(value) if i.fields.get("ftz") else value


def _give(t: Translator, i: Instruction, value: Value) -> None:
    if i.fields.get("ftz"):
        value = flushed(value)
    if i.fields.get("sat"):
        value = saturated(value)
    t.result(value)


def _rounded_sum(i: Instruction, a: Value, b: Value, c: Value | None) -> Value:
    """a × b + c (or a × b), rounded as the instruction says."""
    mode = i.fields.get("rnd", 0)
    near = a.fma(b, c) if c is not None else a * b
    if not mode:
        return near
    if a.width == 64:
        error = _lost(a, b, near, c)
    else:
        x, y = a.to("f64"), b.to("f64")
        exact = x.fma(y, c.to("f64")) if c is not None else x * y
        error = exact - near.to("f64")
    return _directed(near, error < 0.0, error > 0.0, mode)


def _lost(a: Value, b: Value, near: Value, c: Value | None) -> Value:
    """a × b + c − near in float64, nearly: its sign is the exact one, also near denormals."""
    tiny = near.abs() < 2.0**-700
    if c is not None:
        tiny = tiny & (c.abs() < 2.0**-700)
    scale = tiny.select(2.0**300, near.like(1.0))
    swap = a.abs() < b.abs()
    small, large = swap.select(a, b) * scale, swap.select(b, a)
    near = near * scale
    if c is None:
        return small.fma(large, -near)
    c = c * scale
    product = small * large
    low = small.fma(large, -product)
    total = product + c
    back = total - product
    lost = (product - (total - back)) + (c - back)
    return ((total - near) + lost) + low


def _directed(near: Value, is_below: Value, is_above: Value, mode: int) -> Value:
    """The neighbour of `near` where the exact number lies below or above it; 1 RM, 2 RP, 3 RZ."""
    bits = near.as_type(f"i{near.width}")
    negative = bits < 0
    down, up = is_below, is_above
    if mode == 3:  # toward zero
        down, up = is_below & ~negative, is_above & negative
    elif mode == 1:
        up = near.differs_itself(near)
    else:
        down = near.differs_itself(near)
    smaller = negative.select(bits + 1, bits - 1)
    larger = negative.select(bits - 1, bits + 1)
    return up.select(larger, down.select(smaller, bits)).as_type(near.type)


# ---- arithmetic ----
def _fadd(t: Translator, i: Instruction) -> None:
    a, b = _given(t, i, "a", "f32"), _given(t, i, "e", "f32")
    if i.fields["rnd"]:
        _give(t, i, _rounded_sum(i, a, a.like(1.0), b))
    else:
        _give(t, i, a + b)


def _fmul(t: Translator, i: Instruction) -> None:
    a, b = _given(t, i, "a", "f32"), _given(t, i, "b", "f32")
    scale = i.fields["mul"] - 4
    if scale:  # by a power of two, rounded once
        if i.fields["rnd"]:
            raise t.refuse()
        _give(t, i, (a.to("f64") * b.to("f64") * 2.0**scale).to("f32"))
        return
    _give(t, i, _rounded_sum(i, a, b, None) if i.fields["rnd"] else a * b)


def _ffma(t: Translator, i: Instruction) -> None:
    a, b, c = (_given(t, i, token, "f32") for token in "abc")
    _give(t, i, _rounded_sum(i, a, b, c))


def _dadd(t: Translator, i: Instruction) -> None:
    a, b = t.source("a", "f64"), t.source("C", "f64")
    t.result(_rounded_sum(i, a, a.like(1.0), b) if i.fields["rnd"] else a + b)


def _dmul(t: Translator, i: Instruction) -> None:
    a, b = t.source("a", "f64"), t.source("b", "f64")
    t.result(_rounded_sum(i, a, b, None))


def _dfma(t: Translator, i: Instruction) -> None:
    t.result(_rounded_sum(i, *(t.source(token, "f64") for token in "abc")))


def _fmnmx(t: Translator, i: Instruction) -> None:
    a, b = _given(t, i, "a", "f32"), _given(t, i, "b", "f32")
    strict = i.fields.get("nan")
    least = a.minimum(b) if strict else a.min(b)
    most = a.maximum(b) if strict else a.max(b)
    which = i.operand("p87")
    if which.number == PT:
        result = most if which.negate else least
    else:
        result = t.read("p87").select(least, most)
    if i.fields.get("xorsign"):
        signs = t.raw(i.operand("a")) ^ t.raw(i.operand("b"))
        signed = result.as_type("u32") ^ (signs & 0x80000000)
        result = result.fcmp("uno", result).select(result, signed.as_type("f32"))
    t.result(result)


def _fsel(t: Translator, i: Instruction) -> None:
    t.result(t.read("p87").select(_given(t, i, "a", "f32"), _given(t, i, "b", "f32")))


def _fsetp(t: Translator, i: Instruction) -> None:
    a, b = _given(t, i, "a", "f32"), _given(t, i, "b", "f32")
    _decide(t, i, a.fcmp(_COMPARE[i.fields["fcmp"]], b))


def _decide(t: Translator, i: Instruction, found: Value, other: Value | None = None) -> None:
    with_p = t.read("p87")
    t.decide("P81", combine(i.fields["bool"], found, with_p))
    if i.operand("P84").number != PT:
        second = ~found if other is None else other
        t.decide("P84", combine(i.fields["bool"], second, with_p))


def _dsetp(t: Translator, i: Instruction) -> None:
    """MIN and MAX tell whether the first is taken, and whether both are NaN."""
    a, b = t.source("a", "f64"), t.source("e", "f64")
    kind = i.fields["dcmp"]
    if kind in (0, 15):
        best = a.min(b) if kind == 0 else a.max(b)
        nan_a, nan_b = a.fcmp("uno", a), b.fcmp("uno", b)
        first = best.as_type("u64").equals(a.as_type("u64")) & ~nan_a | (nan_b & ~nan_a)
        _decide(t, i, first, nan_a & nan_b)
        return
    _decide(t, i, a.fcmp(_COMPARE[kind], b))


def _fset(t: Translator, i: Instruction) -> None:
    a, b = _given(t, i, "a", "f32"), _given(t, i, "b", "f32")
    found = combine(i.fields["bool"], a.fcmp(_COMPARE[i.fields["fcmp"]], b), t.read("p87"))
    t.result(found.select(0x3F800000, a.as_type("u32").like(0)))


def _fchk(t: Translator, i: Instruction) -> None:
    """Whether a division wants the long way: where a quotient's steps could over- or underflow."""
    a, b = t.source("a", "f32"), t.source("b", "f32")
    above, below = elementary.exponent_of(a), elementary.exponent_of(b)
    apart = above - below
    strange = (above < 25) | above.equals(255) | (below < 2) | (below > 252)
    t.decide("P81", strange | (apart < -124) | (apart > 125))


# ---- functions ----
def _tanh(x: Value) -> Value:
    small = x.abs()
    power = elementary.exp2(small * -2.8853900817779268)  # e^(−2|x|)
    large = (1.0 - power) / (power + 1.0)
    square = x * x
    series = (square.polynomial((-17 / 315, 2 / 15, -1 / 3)) * square).fma(small, small)
    result = (small < 0.25).select(series, large)
    return x.fcmp("uno", x).select(x, result.intrinsic("copysign", x))


def _inverse(x: Value) -> Value:
    return 1.0 / x


def _inverse_root(x: Value) -> Value:
    return 1.0 / x.intrinsic("sqrt")


_FUNCTIONS = {
    0: elementary.cos_turns, 1: elementary.sin_turns, 2: elementary.exp2, 3: elementary.log2,
    4: _inverse, 5: _inverse_root, 8: lambda x: x.intrinsic("sqrt"), 9: _tanh,
}


def _mufu(t: Translator, i: Instruction) -> None:
    if "half_mufu" in i.row.words:
        half = next(token for token in i.row.positions if token[0] == "h")
        operand = i.operand(half)
        word = t.raw(operand)
        value = (word >> 16 if operand.select == 3 else word).to("u16").as_type("f16").to("f32")
        value = value.abs() if operand.absolute else value
        value = -value if operand.negate else value
        t.result(_FUNCTIONS[i.fields["half_mufu"]](value).to("f16"))
        return
    kind = i.fields["mufu"]
    if kind in (6, 7):  # of a float64's upper half, its result's upper half
        operand = i.operand("e")
        upper = t.raw(operand)
        wide = (upper.to("u64") << 32).as_type("f64")
        wide = wide.abs() if operand.absolute else wide
        wide = -wide if operand.negate else wide
        result = _inverse(wide) if kind == 6 else _inverse_root(wide)
        t.result((result.as_type("u64") >> 32).to("u32"))
        return
    t.result(_FUNCTIONS[kind](t.source("e", "f32")))


# ---- conversions ----
def _frnd(t: Translator, i: Instruction) -> None:
    value = _given(t, i, "e", "f" + _WIDTHS[i.fields["src"]])
    half = value.width == 16
    wide = value.to("f32") if half else value
    wide = wide.intrinsic(_TOWARD[i.fields["trunc"]])
    t.result(wide.to("f16") if half else wide)


def _f2f(t: Translator, i: Instruction) -> None:
    source, target = ("f" + _WIDTHS[i.fields[name]] for name in ("src", "dst"))
    value = _given(t, i, "e", source)
    near = value.to(target)
    mode = i.fields["rnd"]
    if mode and near.width < value.width:
        back = near.to(source)
        near = _directed(near, value < back, value > back, mode)
    t.result(near)


def _f2i(t: Translator, i: Instruction) -> None:
    value = _given(t, i, "e", "f" + _WIDTHS[i.fields["src"]])
    if value.width == 16:
        value = value.to("f32")
    wide = value.intrinsic(_TOWARD[i.fields["trunc"]])
    bits = 8 << i.fields["int_dst"]
    type = f"{'i' if i.fields['f2i'] else 'u'}{bits}"
    if bits < 32:
        half = 1 << bits - 1
        low, high = (-half, half - 1) if type[0] == "i" else (0, 2 * half - 1)
        whole = wide.to(type[0] + "32").max(low).min(high)
    else:
        whole = wide.to(type)
    if bits == 64 or value.width == 64:
        whole = value.fcmp("uno", value).select(1 << (whole.width - 1), whole)
    t.result(whole.as_type(f"u{whole.width}"))


def _f2ip(t: Translator, i: Instruction) -> None:
    """A float as a limited integer of 8 bits, NaN as 0. How several are packed is not known."""
    if any(i.operand(token).number != RZ for token in "ac"):
        raise t.refuse()
    low, high = (-128, 127) if i.fields["f2ip"] else (0, 255)
    value = t.source("b", "f32").intrinsic(_TOWARD[i.fields["f2ip_trunc"]])
    t.result(value.to("i32").max(low).min(high).as_type("u32") & 0xFF)


def _i2f(t: Translator, i: Instruction) -> None:
    bits = 8 << i.fields["isrc"]
    sign = "i" if i.fields["i2f"] else "u"
    source = i.operands[1]  # perhaps a part of it
    word = t.raw(source, sign + ("64" if bits == 64 else "32"))
    if bits < 32:
        part = source.select - 4 if bits == 8 and source.select else int(source.select == 3)
        word = (word << 32 - bits * (part + 1)) >> 32 - bits
    target = "f" + _WIDTHS[i.fields["dst"]]
    if target == "f16":  # by way of float64, so that it is rounded once
        t.result(word.to("f64").to("f16") if bits < 64 else _half_of_long(word))
        return
    near = word.to(target)
    mode = i.fields["rnd"]
    if mode:
        back = near.to(word.type)
        near = _directed(near, word < back, word > back, mode)
    t.result(near)


def _half_of_long(word: Value) -> Value:
    limit = 1 << 17  # beyond what a half holds
    low = word.max(-limit) if word.type[0] == "i" else word
    return low.min(limit).to("f64").to("f16")


def half_bits(value: Value, toward_zero: bool = False) -> Value:
    """float32 → float16 in the low half of a word."""
    near = value.to("f16")
    if toward_zero:
        back = near.to("f32")
        near = _directed(near, value < back, value > back, 3)
    return near.as_type("u16").to("u32")


def brain_bits(value: Value, toward_zero: bool = False) -> Value:
    """float32 → bfloat16 in the low half of a word; a NaN is 0x7FFF."""
    bits = value.as_type("u32")
    if not toward_zero:
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return value.fcmp("uno", value).select(0x7FFF, bits >> 16)


SEMANTICS: dict[str, Semantics] = {
    "FADD": _fadd, "FMUL": _fmul, "FFMA": _ffma, "DADD": _dadd, "DMUL": _dmul, "DFMA": _dfma,
    "FMNMX": _fmnmx, "FSEL": _fsel, "FSETP": _fsetp, "FSET": _fset, "DSETP": _dsetp,
    "FCHK": _fchk, "MUFU": _mufu, "FRND": _frnd, "F2F": _f2f, "F2I": _f2i, "I2F": _i2f,
    "I2FP": _i2f, "F2IP": _f2ip,
}
