"""What each vector instruction computes, in plain Python: one row for each name.

A row is (types of result and sources, function). Functions get Python integers and floats and
return them; a Fraction stands for an exact real number, rounded once by whoever compares.
Source: AMD, "RDNA3 Instruction Set Architecture", chapter 16.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

Function = Callable[..., Any]
ROWS: dict[str, tuple[tuple[str, ...], Function]] = {}
ULPS: dict[str, float] = {}
"""By how many units in the last place a result may be off; 0 where it is not listed."""


def row(names: str, types: str, function: Function, ulps: float = 0) -> None:
    """Adds a row for each name; `?` in the types stands for the name's last three letters."""
    for name in names.split():
        own = tuple(t.replace("?", name[-3:]) for t in types.split())
        ROWS[name] = own, function
        if ulps:
            ULPS[name] = ulps


OF_LANES = {"v_mbcnt_lo_u32_b32", "v_mbcnt_hi_u32_b32"}
"""Those whose function gets the lane's number first."""


def signed(value: int, bits: int) -> int:
    """The low bits of a number as two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def fma(a: float, b: float, c: float) -> float | Fraction:
    """a × b + c, exact where all are finite and the result is not 0."""
    if all(map(math.isfinite, (a, b, c))):
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        if exact:
            return exact
    if math.isinf(c) and math.isfinite(a) and math.isfinite(b):
        return c
    return a * b + c


def less(a: float, b: float) -> bool:
    """Whether a < b, where −0 < +0."""
    return (a, math.copysign(1, a)) < (b, math.copysign(1, b))


def smaller(*values: float) -> float:
    """The smallest that is a number."""
    numbers = [v for v in values if v == v] or [math.nan]
    best = numbers[0]
    for value in numbers[1:]:
        best = value if less(value, best) else best
    return best


def larger(*values: float) -> float:
    """The largest that is a number."""
    return -smaller(*(-v for v in values)) if isinstance(values[0], float) else max(values)


def middle(a: Any, b: Any, c: Any) -> Any:
    """The one in the middle; with a NaN the smallest of the others."""
    if not isinstance(a, float):
        return sorted((a, b, c))[1]
    if any(v != v for v in (a, b, c)):
        return smaller(a, b, c)
    most = larger(a, b, c)
    return larger(b, c) if most == a else larger(a, c) if most == b else larger(a, b)


def propagating(choose: Function) -> Function:
    """IEEE's minimum and maximum: NaN if any is."""
    return lambda *v: math.nan if any(x != x for x in v) else choose(*v)


def divided(a: float, b: float) -> float:
    """a / b with IEEE's infinities."""
    if b:
        return a / b
    if a == 0 or a != a or b != b:
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1, b)


def root(x: float) -> float:
    """The square root; NaN of what is negative."""
    if x != x or x < 0:
        return math.nan
    return math.sqrt(x) if x else x


def whole(function: Function) -> Function:
    """A rounding function that keeps infinities, NaN and the sign of zero."""
    return lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x


def limited(x: float, low: int, high: int) -> int:
    """A float as an integer within bounds; 0 for NaN."""
    if x != x:
        return 0
    return max(low, min(high, math.trunc(x))) if math.isfinite(x) else (high if x > 0 else low)


def exponent(x: float) -> int:
    """The e of x = m × 2^e with ½ ≤ |m| < 1; 0 where there is none."""
    return math.frexp(x)[1] if math.isfinite(x) else 0


def turns(function: Function) -> Function:
    """A trigonometric function of turns."""
    return lambda x: function(2 * math.pi * math.fmod(x, 1)) if math.isfinite(x) else math.nan


def logarithm(x: float) -> float:
    """log2 with IEEE's ends."""
    if x != x or x < 0:
        return math.nan
    return math.log2(x) if x and math.isfinite(x) else (x if x else -math.inf)


def power(x: float) -> float:
    """2^x; infinity beyond the range."""
    return 2.0**x if x < 1000 else x * math.inf


U24, I24 = (lambda x: x & 0xFFFFFF), (lambda x: signed(x, 24))

# ---- floats ----
F = "f16 f32 f64".split()
for _w in F:
    row(f"v_add_{_w}", "? ? ?", lambda a, b: a + b)
    row(f"v_mul_{_w}", "? ? ?", lambda a, b: a * b if a == a and b == b else math.nan)
    row(f"v_fma_{_w}", "? ? ? ?", fma)
    row(f"v_min_{_w}", "? ? ?", smaller)
    row(f"v_max_{_w}", "? ? ?", larger)
    row(f"v_trunc_{_w}", "? ?", whole(math.trunc))
    row(f"v_ceil_{_w}", "? ?", whole(math.ceil))
    row(f"v_floor_{_w}", "? ?", whole(math.floor))
    row(f"v_rndne_{_w}", "? ?", whole(round))
    row(f"v_sqrt_{_w}", "? ?", root, ulps=1)
    row(f"v_rcp_{_w}", "? ?", lambda x: divided(1.0, x), ulps=1)
    row(f"v_rsq_{_w}", "? ?", lambda x: divided(1.0, root(x)), ulps=2)
    row(f"v_frexp_mant_{_w}", "? ?", lambda x: math.frexp(x)[0] if math.isfinite(x) else x)
    row(f"v_ldexp_{_w}", "? ? i16" if _w == "f16" else "? ? i32",
        lambda x, n: Fraction(x) * Fraction(2) ** max(-3000, min(3000, n))
        if math.isfinite(x) and x else x)  # fmt: skip
for _w in F[:2]:
    row(f"v_sub_{_w}", "? ? ?", lambda a, b: a - b)
    row(f"v_subrev_{_w}", "? ? ?", lambda a, b: b - a)
    row(f"v_min3_{_w}", "? ? ? ?", smaller)
    row(f"v_max3_{_w}", "? ? ? ?", larger)
    row(f"v_med3_{_w}", "? ? ? ?", middle)
    row(f"v_maxmin_{_w}", "? ? ? ?", lambda a, b, c: smaller(larger(a, b), c))
    row(f"v_minmax_{_w}", "? ? ? ?", lambda a, b, c: larger(smaller(a, b), c))
    row(f"v_exp_{_w}", "? ?", power, ulps=2)
    row(f"v_log_{_w}", "? ?", logarithm, ulps=2)
row("v_frexp_exp_i32_f32", "i32 f32", exponent)
row("v_frexp_exp_i32_f64", "i32 f64", exponent)
row("v_frexp_exp_i16_f16", "i16 f16", exponent)
row("v_mul_dx9_zero_f32", "f32 f32 f32", lambda a, b: a * b if a and b else 0.0)
row("v_fma_dx9_zero_f32", "f32 f32 f32 f32",
    lambda a, b, c: fma(a, b, c) if a and b else c)
row("v_cvt_f32_f16", "f32 f16", lambda x: x)
row("v_cvt_f16_f32", "f16 f32", lambda x: x)
row("v_cvt_f32_f64", "f32 f64", lambda x: x)
row("v_cvt_f64_f32", "f64 f32", lambda x: x)
for _t in ("i32", "u32"):
    row(f"v_cvt_f32_{_t}", f"f32 {_t}", Fraction)
    row(f"v_cvt_f64_{_t}", f"f64 {_t}", Fraction)
    _low, _high = (-(2**31), 2**31 - 1) if _t == "i32" else (0, 2**32 - 1)
    for _f in ("f32", "f64"):
        row(f"v_cvt_{_t}_{_f}", f"{_t} {_f}",
            lambda x, low=_low, high=_high: limited(x, low, high))  # fmt: skip
row("v_cvt_f16_u16", "f16 u16", Fraction)
row("v_cvt_f16_i16", "f16 i16", Fraction)
row("v_cvt_u16_f16", "u16 f16", lambda x: limited(x, 0, 65535))
row("v_cvt_i16_f16", "i16 f16", lambda x: limited(x, -32768, 32767))
row("v_cvt_floor_i32_f32", "i32 f32",
    lambda x: limited(math.floor(x) if math.isfinite(x) else x, -(2**31), 2**31 - 1))
row("v_cvt_nearest_i32_f32", "i32 f32",
    lambda x: limited(math.floor(x + 0.5) if math.isfinite(x) else x, -(2**31), 2**31 - 1))
for _byte in range(4):
    row(f"v_cvt_f32_ubyte{_byte}", "f32 u32", lambda x, n=_byte: Fraction(x >> 8 * n & 255))

# ---- integers ----
row("v_add_nc_u32 v_add_nc_i32 v_add_nc_u16 v_add_nc_i16", "? ? ?", lambda a, b: a + b)
row("v_sub_nc_u32 v_sub_nc_i32 v_sub_nc_u16 v_sub_nc_i16", "? ? ?", lambda a, b: a - b)
row("v_subrev_nc_u32", "? ? ?", lambda a, b: b - a)
row("v_mul_lo_u32 v_mul_lo_u16", "? ? ?", lambda a, b: a * b)
row("v_mul_hi_u32 v_mul_hi_i32", "? ? ?", lambda a, b: a * b >> 32)
row("v_mul_u32_u24", "u32 u32 u32", lambda a, b: U24(a) * U24(b))
row("v_mul_i32_i24", "u32 u32 u32", lambda a, b: I24(a) * I24(b))
row("v_mul_hi_u32_u24", "u32 u32 u32", lambda a, b: U24(a) * U24(b) >> 32)
row("v_mul_hi_i32_i24", "u32 u32 u32", lambda a, b: I24(a) * I24(b) >> 32)
row("v_mad_u32_u24", "u32 u32 u32 u32", lambda a, b, c: U24(a) * U24(b) + c)
row("v_mad_i32_i24", "u32 u32 u32 u32", lambda a, b, c: I24(a) * I24(b) + c)
row("v_mad_u16 v_mad_i16", "? ? ? ?", lambda a, b, c: a * b + c)
row("v_mad_u32_u16", "u32 u16 u16 u32", lambda a, b, c: a * b + c)
row("v_mad_i32_i16", "i32 i16 i16 i32", lambda a, b, c: a * b + c)
row("v_mad_u64_u32", "u64 u32 u32 u64", lambda a, b, c: a * b + c)
row("v_mad_i64_i32", "i64 i32 i32 i64", lambda a, b, c: a * b + c)
row("v_add3_u32", "? ? ? ?", lambda a, b, c: a + b + c)
row("v_add_lshl_u32", "? ? ? ?", lambda a, b, c: a + b << (c & 31))
row("v_lshl_add_u32", "? ? ? ?", lambda a, b, c: (a << (b & 31)) + c)
row("v_lshl_or_b32", "u32 u32 u32 u32", lambda a, b, c: a << (b & 31) | c)
row("v_and_or_b32", "u32 u32 u32 u32", lambda a, b, c: a & b | c)
row("v_or3_b32", "u32 u32 u32 u32", lambda a, b, c: a | b | c)
row("v_xor3_b32", "u32 u32 u32 u32", lambda a, b, c: a ^ b ^ c)
row("v_xad_u32", "? ? ? ?", lambda a, b, c: (a ^ b) + c)
row("v_and_b32", "u32 u32 u32", lambda a, b: a & b)
row("v_or_b32", "u32 u32 u32", lambda a, b: a | b)
row("v_xor_b32", "u32 u32 u32", lambda a, b: a ^ b)
row("v_xnor_b32", "u32 u32 u32", lambda a, b: ~(a ^ b))
row("v_not_b32", "u32 u32", lambda a: ~a)
row("v_mov_b32", "u32 u32", lambda a: a)
row("v_bfrev_b32", "u32 u32", lambda a: int(f"{a:032b}"[::-1], 2))
row("v_bfi_b32", "u32 u32 u32 u32", lambda a, b, c: a & b | ~a & c)
row("v_bfm_b32", "u32 u32 u32", lambda a, b: (1 << (a & 31)) - 1 << (b & 31))
row("v_bfe_u32", "u32 u32 u32 u32", lambda a, b, c: a >> (b & 31) & (1 << (c & 31)) - 1)
row("v_bfe_i32", "i32 i32 u32 u32",
    lambda a, b, c: signed(a >> (b & 31), c & 31) if c & 31 else 0)
row("v_bcnt_u32_b32", "u32 u32 u32", lambda a, b: a.bit_count() + b)
row("v_clz_i32_u32", "i32 u32", lambda a: 32 - a.bit_length() if a else -1)
row("v_ctz_i32_b32", "i32 u32", lambda a: (a & -a).bit_length() - 1 if a else -1)
row("v_cls_i32", "i32 i32", lambda a: 31 - (a ^ a >> 31).bit_length() + 1
    if a not in (0, -1) else -1)
row("v_mbcnt_lo_u32_b32", "u32 u32 u32",
    lambda lane, a, b: (a & (1 << min(lane, 32)) - 1).bit_count() + b)
row("v_mbcnt_hi_u32_b32", "u32 u32 u32",
    lambda lane, a, b: (a & (1 << max(lane - 32, 0)) - 1).bit_count() + b)
row("v_lshlrev_b32", "u32 u32 u32", lambda n, a: a << (n & 31))
row("v_lshrrev_b32", "u32 u32 u32", lambda n, a: a >> (n & 31))
row("v_ashrrev_i32", "i32 u32 i32", lambda n, a: a >> (n & 31))
row("v_lshlrev_b16", "u16 u16 u16", lambda n, a: a << (n & 15))
row("v_lshrrev_b16", "u16 u16 u16", lambda n, a: a >> (n & 15))
row("v_ashrrev_i16", "i16 u16 i16", lambda n, a: a >> (n & 15))
row("v_lshlrev_b64", "u64 u32 u64", lambda n, a: a << (n & 63))
row("v_lshrrev_b64", "u64 u32 u64", lambda n, a: a >> (n & 63))
row("v_ashrrev_i64", "i64 u32 i64", lambda n, a: a >> (n & 63))
row("v_alignbit_b32", "u32 u32 u32 u32", lambda a, b, c: (a << 32 | b) >> (c & 31))
row("v_alignbyte_b32", "u32 u32 u32 u32", lambda a, b, c: (a << 32 | b) >> 8 * (c & 3))
for _t in ("u32", "i32", "u16", "i16"):
    row(f"v_min_{_t}", "? ? ?", min)
    row(f"v_max_{_t}", "? ? ?", max)
    row(f"v_min3_{_t}", "? ? ? ?", min)
    row(f"v_max3_{_t}", "? ? ? ?", max)
    row(f"v_med3_{_t}", "? ? ? ?", middle)
for _t in ("u32", "i32"):
    row(f"v_maxmin_{_t}", "? ? ? ?", lambda a, b, c: min(max(a, b), c))
    row(f"v_minmax_{_t}", "? ? ? ?", lambda a, b, c: max(min(a, b), c))


def _bytes(x: int) -> list[int]:
    return [x >> 8 * i & 255 for i in range(4)]


def _differences(a: int, b: int, masked: bool = False) -> int:
    pairs = zip(_bytes(a), _bytes(b), strict=True)
    return sum(abs(x - y) for x, y in pairs if y or not masked)


def _permuted(a: int, b: int, selector: int) -> int:
    data, found = a << 32 | b, 0
    for place, s in enumerate(_bytes(selector)):
        if s >= 13:
            byte = 255
        elif s == 12:
            byte = 0
        elif s >= 8:
            byte = 255 * (data >> (15, 31, 47, 63)[s - 8] & 1)
        else:
            byte = data >> 8 * s & 255
        found |= byte << 8 * place
    return found


row("v_sad_u8", "u32 u32 u32 u32", lambda a, b, c: _differences(a, b) + c)
row("v_sad_hi_u8", "u32 u32 u32 u32", lambda a, b, c: (_differences(a, b) << 16) + c)
row("v_msad_u8", "u32 u32 u32 u32", lambda a, b, c: _differences(a, b, True) + c)
row("v_sad_u16", "u32 u32 u32 u32",
    lambda a, b, c: abs((a & 65535) - (b & 65535)) + abs((a >> 16) - (b >> 16)) + c)
row("v_sad_u32", "u32 u32 u32 u32", lambda a, b, c: abs(a - b) + c)
row("v_lerp_u8", "u32 u32 u32 u32", lambda a, b, c: sum(
    (x + y + (z & 1) >> 1) << 8 * i
    for i, (x, y, z) in enumerate(zip(_bytes(a), _bytes(b), _bytes(c), strict=True))))
row("v_perm_b32", "u32 u32 u32 u32", _permuted)
row("v_pack_b32_f16", "u32 u16 u16", lambda a, b: a | b << 16)
row("v_cvt_pk_u16_u32", "u32 u32 u32", lambda a, b: min(a, 65535) | min(b, 65535) << 16)
row("v_cvt_pk_i16_i32", "u32 i32 i32", lambda a, b: (
    max(-32768, min(32767, a)) & 65535 | (max(-32768, min(32767, b)) & 65535) << 16))


def fraction(below_one: float) -> Function:
    """x − ⌊x⌋, which stays below 1."""
    def compute(x: float) -> float:
        if not math.isfinite(x):
            return 0.0 if math.isinf(x) else math.nan
        exact = Fraction(x) - math.floor(x)
        return min(below_one, float(exact)) if exact else 0.0

    return compute


for _w, _below in (("f16", 1 - 2.0**-11), ("f32", 1 - 2.0**-24), ("f64", 1 - 2.0**-53)):
    row(f"v_fract_{_w}", "? ?", fraction(_below))
    row(f"v_minimum_{_w}", "? ? ?", propagating(smaller))
    row(f"v_maximum_{_w}", "? ? ?", propagating(larger))
for _w in F[:2]:
    row(f"v_minimum3_{_w}", "? ? ? ?", propagating(smaller))
    row(f"v_maximum3_{_w}", "? ? ? ?", propagating(larger))
    row(f"v_maximumminimum_{_w}", "? ? ? ?",
        propagating(lambda a, b, c: smaller(larger(a, b), c)))  # fmt: skip
    row(f"v_minimummaximum_{_w}", "? ? ? ?",
        propagating(lambda a, b, c: larger(smaller(a, b), c)))  # fmt: skip
row("v_cvt_pk_i16_f32", "u32 f32 f32", lambda a, b: (
    limited(a, -32768, 32767) & 65535 | (limited(b, -32768, 32767) & 65535) << 16))
row("v_cvt_pk_u16_f32", "u32 f32 f32",
    lambda a, b: limited(a, 0, 65535) | limited(b, 0, 65535) << 16)
row("v_sat_pk_u8_i16", "u16 u32", lambda a: (
    max(0, min(255, signed(a, 16))) | max(0, min(255, signed(a >> 16, 16))) << 8))
row("v_cvt_off_f32_i4", "f32 u32", lambda a: Fraction(signed(a, 4), 16))

def cube(x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """The face of a cube that a direction meets, the coordinates there, twice the major one."""
    if abs(z) >= abs(x) and abs(z) >= abs(y):
        return (5.0 if z < 0 else 4.0), (-x if z < 0 else x), -y, 2 * z
    if abs(y) >= abs(x):
        return (3.0 if y < 0 else 2.0), x, (-z if y < 0 else z), 2 * y
    return (1.0 if x < 0 else 0.0), (z if x < 0 else -z), -y, 2 * x


for _place, _name in enumerate(("id", "sc", "tc", "ma")):
    row(f"v_cube{_name}_f32", "f32 f32 f32 f32", lambda x, y, z, n=_place: cube(x, y, z)[n])


def normalised(x: float, low: int, high: int) -> int:
    """-1…1 or 0…1 as the whole range of an integer."""
    if x != x:
        return 0
    return round(Fraction(max(low // high, min(1.0, x))) * high) & 65535


for _t, _low, _high in (("i16", -32767, 32767), ("u16", 0, 65535)):
    _one = functools.partial(normalised, low=_low, high=_high)
    row(f"v_cvt_norm_{_t}_f16", f"{_t} f16", _one)
    for _f in ("f16", "f32"):
        row(f"v_cvt_pk_norm_{_t}_{_f}", f"u32 {_f} {_f}",
            lambda a, b, one=_one: one(a) | one(b) << 16)  # fmt: skip


def half_cut_off(x: float) -> int:
    """The bits of a float16 toward zero."""
    sign = 0x8000 if math.copysign(1, x) < 0 else 0
    if math.isinf(x):
        return sign | 0x7C00
    if x != x:  # quiet, with the upper bits of what else it says
        return sign | 0x7E00 | int.from_bytes(struct.pack("<d", x), "little") >> 42 & 0x3FF
    size = Fraction(abs(x))
    power = max(math.frexp(abs(x))[1] - 11, -24) if x else -24
    steps = int(size / Fraction(2) ** power)
    return sign | min(0x7BFF, steps if power == -24 else (power + 24 << 10) + steps)


row("v_cvt_pk_rtz_f16_f32", "u32 f32 f32", lambda a, b: half_cut_off(a) | half_cut_off(b) << 16)

# ---- halves, and GFX9's own ----
row("v_and_b16", "u16 u16 u16", lambda a, b: a & b)
row("v_or_b16", "u16 u16 u16", lambda a, b: a | b)
row("v_xor_b16", "u16 u16 u16", lambda a, b: a ^ b)
row("v_not_b16", "u16 u16", lambda a: ~a)
row("v_mov_b16", "u16 u16", lambda a: a)
row("v_mov_b64", "u64 u64", lambda a: a)
row("v_lshl_add_u64", "u64 u64 u32 u64", lambda a, b, c: (a << (b & 7)) + c)
row("v_mad_legacy_u16 v_mad_legacy_i16", "? ? ? ?", lambda a, b, c: a * b + c)
row("v_fma_legacy_f16", "f16 f16 f16 f16", fma)


def half(x: float) -> float:
    """A product of float16, rounded to one."""
    if not math.isfinite(x):
        return x
    return math.copysign(math.inf, x) if abs(x) >= 65520 else struct.unpack(
        "<e", struct.pack("<e", x))[0]  # fmt: skip


def single(x: float) -> float:
    """Rounded to float32, denormals flushed."""
    if not math.isfinite(x) or not x:
        return x
    if abs(x) >= 2.0**128 - 2.0**103:
        return math.copysign(math.inf, x)
    found = float(struct.unpack("<f", struct.pack("<f", x))[0])
    return found if abs(found) >= 2.0**-126 else math.copysign(0.0, found)


row("v_mad_f16 v_mad_legacy_f16", "f16 f16 f16 f16", lambda a, b, c: half(a * b) + c)
row("v_mad_f32", "f32 f32 f32 f32",
    lambda a, b, c: single(single(single(a) * single(b)) + single(c)))
row("v_mad_legacy_f32", "f32 f32 f32 f32", lambda a, b, c: single(
    (single(single(a) * single(b)) if single(a) and single(b) else 0.0) + single(c)))

# ---- comparisons: one truth value ----
for _t in ("f16", "f32", "f64"):
    for _name, _compare in {
        "lt": lambda a, b: a < b, "eq": lambda a, b: a == b, "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "lg": lambda a, b: a < b or a > b,
        "o": lambda a, b: a == a and b == b, "u": lambda a, b: a != a or b != b,
        "nge": lambda a, b: not a >= b, "nlg": lambda a, b: not (a < b or a > b),
        "ngt": lambda a, b: not a > b, "nle": lambda a, b: not a <= b,
        "neq": lambda a, b: not a == b, "nlt": lambda a, b: not a < b,
    }.items():  # fmt: skip
        row(f"v_cmp_{_name}_{_t}", f"m1 {_t} {_t}", _compare)
for _t in ("i16", "u16", "i32", "u32", "i64", "u64"):
    for _name, _compare in {
        "lt": lambda a, b: a < b, "eq": lambda a, b: a == b, "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b, "ne": lambda a, b: a != b, "ge": lambda a, b: a >= b,
    }.items():
        row(f"v_cmp_{_name}_{_t}", f"m1 {_t} {_t}", _compare)
