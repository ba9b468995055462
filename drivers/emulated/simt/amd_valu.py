"""What RDNA3's vector instructions compute, as arithmetic on values of all lanes.

A row maps mnemonics to a function of the sources; the types come from `amd_types.signature`,
so one row serves all widths. Names of dual-issued halves lose their `dual_`. Source: AMD,
"RDNA3 Instruction Set Architecture", chapter 16.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from drivers.emulated.simt import elementary
from drivers.emulated.simt.values import Value

Semantics = Callable[..., Any]

# LLVM's comparison for the middle word of a v_cmp of floats.
FLOAT_COMPARISONS = {
    "f": "false", "lt": "olt", "eq": "oeq", "le": "ole", "gt": "ogt", "lg": "one", "ge": "oge",
    "o": "ord", "u": "uno", "nge": "ult", "nlg": "ueq", "ngt": "ule", "nle": "ugt",
    "neq": "une", "nlt": "uge", "t": "true",
}
INTEGER_COMPARISONS = {"lt", "eq", "le", "gt", "ne", "ge"}


def _unsigned24(value: Value) -> Value:
    return value & 0xFFFFFF


def _signed24(value: Value) -> Value:
    return (value.as_type("i32") << 8) >> 8


def _as_f32(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """Computes a float16 through float32."""
    return lambda x: function(x.to("f32")).to("f16") if x.width == 16 else function(x)


def _bit_field(value: Value, offset: Value, width: Value) -> Value:
    """`width` bits from `offset` on, with their own sign where the type has one."""
    offset, width = offset & 31, width & 31
    if value.type[0] != "i":
        return (value >> offset) & ((width.like(1) << width) - 1)
    # A width past the top takes what is there.
    top = (32 - offset.as_type("u32")).min(width.as_type("u32"))
    spare = 32 - top
    shifted = (value << (spare - offset)) >> spare
    return width.equals(0).select(0, shifted)


def _leading_zeros(value: Value) -> Value:
    found = value.as_type("u32").intrinsic("ctlz", "i1 false")
    return value.equals(0).select(-1, found.as_type("i32"))


def _trailing_zeros(value: Value) -> Value:
    found = value.as_type("u32").intrinsic("cttz", "i1 false")
    return value.equals(0).select(-1, found.as_type("i32"))


def _equal_sign_bits(value: Value) -> Value:
    signed = value.as_type("i32")
    return _leading_zeros((signed ^ (signed >> 31)).as_type("u32"))


def _funnel(high: Value, low: Value, amount: Value) -> Value:
    wide = (high.as_type("u32").to("u64") << 32) | low.as_type("u32").to("u64")
    return (wide >> amount.as_type("u32").to("u64")).to("u32")


def _permute(high: Value, low: Value, selector: Value) -> Value:
    """v_perm_b32: each byte of the selector picks one of eight bytes, a sign or a constant."""
    both = (high.as_type("u32").to("u64") << 32) | low.as_type("u32").to("u64")
    total = selector.like(0)
    for place in range(4):
        choice = (selector >> 8 * place) & 0xFF
        picked = (both >> ((choice & 7) << 3).to("u64")).to("u32") & 0xFF
        sign_at = (((choice - 8) & 3) << 4) + 15
        sign = ((both >> sign_at.to("u64")).to("u32") & 1) * 0xFF
        byte = (choice > 7).select(sign, picked)
        byte = choice.equals(12).select(0, byte)
        byte = (choice > 12).select(0xFF, byte)
        total = total | (byte << 8 * place)
    return total


def _carry_add(a: Value, b: Value, carry: Value | None = None) -> tuple[Value, Value]:
    if carry is None:
        total = a + b
        return total, total < a
    wide = a.to("u64") + b.to("u64") + carry.to("u64")
    return wide.to("u32"), (wide >> 32).differs(0)


def _carry_sub(a: Value, b: Value, borrow: Value | None = None) -> tuple[Value, Value]:
    if borrow is None:
        return a - b, a < b
    wide = a.to("u64") - b.to("u64") - borrow.to("u64")
    return wide.to("u32"), (wide >> 32).differs(0)


def _mad_wide(a: Value, b: Value, c: Value) -> tuple[Value, Value]:
    product = a.to(c.type) * b.to(c.type)
    total = product + c
    if c.type[0] == "u":
        return total, total < c
    overflow = ((total ^ product) & (total ^ c)) < 0
    return total, overflow


def _pack(low: Value, high: Value) -> Value:
    return low.as_type("u16").to("u32") | (high.as_type("u16").to("u32") << 16)


def _saturated(value: Value, type: str) -> Value:
    """An integer of 32 bits, limited to what `type` of 16 bits holds."""
    if type == "u16":
        return value.as_type("u32").min(0xFFFF).to("u16")
    return value.as_type("i32").max(-0x8000).min(0x7FFF).to("i16")


def _half_toward_zero(value: Value) -> Value:
    """float32 → float16, cut off instead of rounded."""
    bits = value.as_type("u32")
    rounded = value.to("f16")
    away = rounded.to("f32").abs() > value.abs()
    stepped = (rounded.as_type("u16") - 1).as_type("f16")
    result = away.select(stepped, rounded)
    return value.fcmp("uno", value).select(rounded, result).as_type("u16").to("u32") | (bits & 0)


def half_toward_zero_pair(a: Value, b: Value) -> Value:
    """Two float32 as float16, cut off."""
    return _half_toward_zero(a) | (_half_toward_zero(b) << 16)


def _classify(value: Value, mask: Value) -> Value:
    """v_cmp_class: whether the value is of one of the ten kinds whose bits are set."""
    total = mask.like(0)
    for bit in range(10):
        suffix = f"v{value.build.wave_size}f{value.width}" if value.lanes else f"f{value.width}"
        found = value.build.call(
            f"llvm.is.fpclass.{suffix}", "m1", value.lanes, value, f"i32 {1 << bit}"
        )
        total = total | found.select(1 << bit, total.like(0))
    return (total & mask).differs(0)


def _multiply_legacy(a: Value, b: Value) -> Value:
    """DX9 rules: zero times anything is zero."""
    return (a.equals(0.0) | b.equals(0.0)).select(0.0, a * b)


def _count_below(first: int) -> Semantics:
    """v_mbcnt: how many bits of the mask of lanes `first` to `first` + 31 lie below each lane."""

    def count(mask: Value, base: Value) -> Value:
        lanes = range(mask.build.wave_size)
        below = mask.build.each_lane(
            "u32", ((1 << min(max(lane - first, 0), 32)) - 1 for lane in lanes)
        )
        return (mask.as_type("u32") & below).intrinsic("ctpop") + base

    return count


def _byte(value: Value) -> Value:
    """A signed 16-bit number in the low half, limited to a byte, as u16."""
    return value.to("u16").as_type("i16").max(0).min(255).as_type("u16")


def _normalised(value: Value, type: str) -> Value:
    """−1…1 or 0…1 as the whole range of an integer of 16 bits; NaN gives 0."""
    scale, low = (32767.0, -1.0) if type == "i16" else (65535.0, 0.0)
    wide = value.to("f32") if value.width == 16 else value
    inside = wide.max(low).min(1.0)
    rounded = (inside * scale).intrinsic("rint").to(type)
    return wide.fcmp("uno", wide).select(rounded.like(0), rounded)


def _bytes(function: Semantics, *words: Value) -> Value:
    """The same for each of the four bytes of words."""
    total = words[0].like(0)
    for place in range(0, 32, 8):
        total = total | ((function(*((w >> place) & 0xFF for w in words)) & 0xFF) << place)
    return total


def _distance(a: Value, b: Value, bits: int, masked: bool = False) -> Value:
    """The sum of the distances of bytes or halves; `masked` leaves out where b is 0."""
    total, mask = a.like(0), (1 << bits) - 1
    for place in range(0, 32, bits):
        x, y = (a >> place) & mask, (b >> place) & mask
        apart = x.max(y) - x.min(y)
        total = total + (y.equals(0).select(0, apart) if masked else apart)
    return total


def _cube(x: Value, y: Value, z: Value) -> tuple[Value, Value, Value, Value]:
    """A direction's face of a cube, its two coordinates there, and twice the major one."""
    major_z = (z.abs() >= x.abs()) & (z.abs() >= y.abs())
    major_y = y.abs() >= x.abs()

    def choose(of_z: Value, of_y: Value, of_x: Value) -> Value:
        return major_z.select(of_z, major_y.select(of_y, of_x))

    below = [v < 0.0 for v in (x, y, z)]
    face = choose(below[2].select(5.0, x.like(4.0)), below[1].select(3.0, x.like(2.0)),
                  below[0].select(1.0, x.like(0.0)))
    across = choose(below[2].select(-x, x), x, below[0].select(z, -z))
    down = choose(-y, below[1].select(-z, z), -y)
    return face, across, down, choose(z * 2.0, y * 2.0, x * 2.0)


def _flushed(value: Value) -> Value:
    """Without denormals: they become zeros of their sign."""
    bits = value.as_type("u32")
    return (bits & 0x7F800000).equals(0).select(bits & 1 << 31, bits).as_type("f32")


def _mad_flushed(a: Value, b: Value, c: Value, no_product: Value | None = None) -> Value:
    """v_mad_f32: a × b + c, each step rounded, and denormals never kept."""
    product = _flushed(_flushed(a) * _flushed(b))
    if no_product is not None:
        product = no_product.select(0.0, product)
    return _flushed(product + _flushed(c))


SEMANTICS: dict[str, Semantics] = {
    # one source
    "v_mov_b32 v_mov_b16": lambda a: a,
    "v_not_b32 v_not_b16": lambda a: ~a,
    "v_bfrev_b32": lambda a: a.intrinsic("bitreverse"),
    "v_clz_i32_u32": _leading_zeros,
    "v_ctz_i32_b32": _trailing_zeros,
    "v_cls_i32": _equal_sign_bits,
    "v_cvt_f32_ubyte0": lambda a: (a & 255).to("f32"),
    "v_cvt_f32_ubyte1": lambda a: ((a >> 8) & 255).to("f32"),
    "v_cvt_f32_ubyte2": lambda a: ((a >> 16) & 255).to("f32"),
    "v_cvt_f32_ubyte3": lambda a: (a >> 24).to("f32"),
    "v_cvt_nearest_i32_f32": lambda a: (a + 0.5).intrinsic("floor").to("i32"),
    "v_cvt_floor_i32_f32": lambda a: a.intrinsic("floor").to("i32"),
    "v_trunc_f16 v_trunc_f32 v_trunc_f64": lambda a: a.intrinsic("trunc"),
    "v_ceil_f16 v_ceil_f32 v_ceil_f64": lambda a: a.intrinsic("ceil"),
    "v_rndne_f16 v_rndne_f32 v_rndne_f64": lambda a: a.intrinsic("roundeven"),
    "v_floor_f16 v_floor_f32 v_floor_f64": lambda a: a.intrinsic("floor"),
    "v_fract_f16 v_fract_f32 v_fract_f64": elementary.fract,
    "v_exp_f16 v_exp_f32": _as_f32(elementary.exp2),
    "v_log_f16 v_log_f32": _as_f32(elementary.log2),
    "v_sin_f16 v_sin_f32": _as_f32(elementary.sin_turns),
    "v_cos_f16 v_cos_f32": _as_f32(elementary.cos_turns),
    "v_rcp_f32 v_rcp_iflag_f32 v_rcp_f64": lambda a: 1.0 / a,
    "v_rcp_f16": _as_f32(lambda a: 1.0 / a),
    "v_rsq_f16": _as_f32(lambda a: 1.0 / a.intrinsic("sqrt")),
    "v_rsq_f32 v_rsq_f64": lambda a: 1.0 / a.intrinsic("sqrt"),
    "v_sqrt_f16": _as_f32(lambda a: a.intrinsic("sqrt")),
    "v_sqrt_f32 v_sqrt_f64": lambda a: a.intrinsic("sqrt"),
    "v_frexp_exp_i32_f32 v_frexp_exp_i32_f64": elementary.frexp_exponent,
    "v_frexp_exp_i16_f16": lambda a: elementary.frexp_exponent(a).to("i16"),
    "v_frexp_mant_f16 v_frexp_mant_f32 v_frexp_mant_f64": elementary.frexp_mantissa,
    "v_cvt_off_f32_i4":
        lambda a: ((a.as_type("i32") << 28) >> 28).to("f32") * 0.0625,
    "v_sat_pk_u8_i16": lambda a: _byte(a) | (_byte(a >> 16) << 8),
    "v_cvt_norm_i16_f16": lambda a: _normalised(a, "i16"),
    "v_cvt_norm_u16_f16": lambda a: _normalised(a, "u16"),
    # two sources
    "v_minimum_f16 v_minimum_f32 v_minimum_f64": Value.minimum,
    "v_maximum_f16 v_maximum_f32 v_maximum_f64": Value.maximum,
    "v_cvt_pk_norm_i16_f16 v_cvt_pk_norm_i16_f32":
        lambda a, b: _pack(_normalised(a, "i16"), _normalised(b, "i16")),
    "v_cvt_pk_norm_u16_f16 v_cvt_pk_norm_u16_f32":
        lambda a, b: _pack(_normalised(a, "u16"), _normalised(b, "u16")),
    "v_add_f16 v_add_f32 v_add_f64": lambda a, b: a + b,
    "v_sub_f16 v_sub_f32": lambda a, b: a - b,
    "v_subrev_f16 v_subrev_f32": lambda a, b: b - a,
    "v_mul_f16 v_mul_f32 v_mul_f64": lambda a, b: a * b,
    "v_mul_dx9_zero_f32": _multiply_legacy,
    "v_min_f16 v_min_f32 v_min_f64 v_min_i32 v_min_u32 v_min_i16 v_min_u16": Value.min,
    "v_max_f16 v_max_f32 v_max_f64 v_max_i32 v_max_u32 v_max_i16 v_max_u16": Value.max,
    "v_mul_i32_i24": lambda a, b: _signed24(a) * _signed24(b),
    "v_mul_u32_u24": lambda a, b: _unsigned24(a) * _unsigned24(b),
    "v_mul_hi_i32_i24": lambda a, b: _signed24(a).high_half(_signed24(b)),
    "v_mul_hi_u32_u24": lambda a, b: _unsigned24(a).high_half(_unsigned24(b)),
    "v_lshlrev_b32 v_lshlrev_b16 v_lshlrev_b64": lambda n, a: a << n,
    "v_lshrrev_b32 v_lshrrev_b16 v_lshrrev_b64": lambda n, a: a >> n,
    "v_ashrrev_i32 v_ashrrev_i16 v_ashrrev_i64": lambda n, a: a >> n,
    "v_and_b32 v_and_b16": lambda a, b: a & b,
    "v_or_b32 v_or_b16": lambda a, b: a | b,
    "v_xor_b32 v_xor_b16": lambda a, b: a ^ b,
    "v_xnor_b32": lambda a, b: ~(a ^ b),
    "v_add_nc_u32 v_add_nc_i32 v_add_nc_u16 v_add_nc_i16": lambda a, b: a + b,
    "v_sub_nc_u32 v_sub_nc_i32 v_sub_nc_u16 v_sub_nc_i16": lambda a, b: a - b,
    "v_subrev_nc_u32": lambda a, b: b - a,
    "v_add_co_u32 v_add_co_ci_u32": _carry_add,
    "v_sub_co_u32 v_sub_co_ci_u32": _carry_sub,
    "v_subrev_co_u32 v_subrev_co_ci_u32": lambda a, b, *c: _carry_sub(b, a, *c),
    "v_mul_lo_u32 v_mul_lo_u16": lambda a, b: a * b,
    "v_mul_hi_u32 v_mul_hi_i32": Value.high_half,
    "v_cvt_pk_rtz_f16_f32": half_toward_zero_pair,
    "v_cvt_pk_i16_f32": lambda a, b: _pack(a.to("i16"), b.to("i16")),
    "v_cvt_pk_u16_f32": lambda a, b: _pack(a.to("u16"), b.to("u16")),
    "v_cvt_pk_i16_i32": lambda a, b: _pack(_saturated(a, "i16"), _saturated(b, "i16")),
    "v_cvt_pk_u16_u32": lambda a, b: _pack(_saturated(a, "u16"), _saturated(b, "u16")),
    "v_pack_b32_f16": _pack,
    "v_ldexp_f16 v_ldexp_f32 v_ldexp_f64": elementary.ldexp,
    "v_bfm_b32": lambda a, b: ((a.like(1) << a) - 1) << b,
    "v_bcnt_u32_b32": lambda a, b: a.intrinsic("ctpop") + b,
    "v_mbcnt_lo_u32_b32": _count_below(0),
    "v_mbcnt_hi_u32_b32": _count_below(32),
    # three sources
    "v_minimum3_f16 v_minimum3_f32": lambda a, b, c: a.minimum(b).minimum(c),
    "v_maximum3_f16 v_maximum3_f32": lambda a, b, c: a.maximum(b).maximum(c),
    "v_minimummaximum_f16 v_minimummaximum_f32": lambda a, b, c: a.minimum(b).maximum(c),
    "v_maximumminimum_f16 v_maximumminimum_f32": lambda a, b, c: a.maximum(b).minimum(c),
    "v_fma_dx9_zero_f32": lambda a, b, c: (a.equals(0.0) | b.equals(0.0)).select(c, a.fma(b, c)),
    "v_lerp_u8": lambda a, b, c: _bytes(lambda x, y, z: (x + y + (z & 1)) >> 1, a, b, c),
    "v_sad_u8": lambda a, b, c: _distance(a, b, 8) + c,
    "v_sad_hi_u8": lambda a, b, c: (_distance(a, b, 8) << 16) + c,
    "v_sad_u16": lambda a, b, c: _distance(a, b, 16) + c,
    "v_msad_u8": lambda a, b, c: _distance(a, b, 8, masked=True) + c,
    "v_cubeid_f32": lambda x, y, z: _cube(x, y, z)[0],
    "v_cubesc_f32": lambda x, y, z: _cube(x, y, z)[1],
    "v_cubetc_f32": lambda x, y, z: _cube(x, y, z)[2],
    "v_cubema_f32": lambda x, y, z: _cube(x, y, z)[3],
    "v_cndmask_b32 v_cndmask_b16": lambda no, yes, mask: mask.select(yes, no),
    "v_fma_f16 v_fma_f32 v_fma_f64 v_fma_legacy_f16": Value.fma,
    "v_fmamk_f16 v_fmamk_f32": lambda a, k, b: a.fma(k, b),
    "v_fmaak_f16 v_fmaak_f32": lambda a, b, k: a.fma(b, k),
    "v_mad_i32_i24": lambda a, b, c: _signed24(a) * _signed24(b) + c,
    "v_mad_u32_u24": lambda a, b, c: _unsigned24(a) * _unsigned24(b) + c,
    "v_mad_u16 v_mad_i16 v_mad_legacy_u16 v_mad_legacy_i16": lambda a, b, c: a * b + c,
    "v_mad_u32_u16 v_mad_i32_i16": lambda a, b, c: a.to(c.type) * b.to(c.type) + c,
    "v_mad_u64_u32 v_mad_i64_i32": _mad_wide,
    "v_bfe_u32 v_bfe_i32": _bit_field,
    "v_bfi_b32": lambda mask, a, b: (mask & a) | (~mask & b),
    "v_alignbit_b32": lambda a, b, n: _funnel(a, b, n & 31),
    "v_alignbyte_b32": lambda a, b, n: _funnel(a, b, (n & 3) << 3),
    "v_perm_b32": _permute,
    "v_min3_f16 v_min3_f32 v_min3_i32 v_min3_u32 v_min3_i16 v_min3_u16":
        lambda a, b, c: a.min(b).min(c),
    "v_max3_f16 v_max3_f32 v_max3_i32 v_max3_u32 v_max3_i16 v_max3_u16":
        lambda a, b, c: a.max(b).max(c),
    "v_med3_f16 v_med3_f32 v_med3_i32 v_med3_u32 v_med3_i16 v_med3_u16": Value.med,
    "v_maxmin_f16 v_maxmin_f32 v_maxmin_i32 v_maxmin_u32": lambda a, b, c: a.max(b).min(c),
    "v_minmax_f16 v_minmax_f32 v_minmax_i32 v_minmax_u32": lambda a, b, c: a.min(b).max(c),
    "v_sad_u32": lambda a, b, c: a.max(b) - a.min(b) + c,
    "v_xor3_b32": lambda a, b, c: a ^ b ^ c,
    "v_or3_b32": lambda a, b, c: a | b | c,
    "v_and_or_b32": lambda a, b, c: (a & b) | c,
    "v_add3_u32": lambda a, b, c: a + b + c,
    "v_xad_u32": lambda a, b, c: (a ^ b) + c,
    "v_lshl_add_u32": lambda a, b, c: (a << b) + c,
    "v_lshl_add_u64": lambda a, b, c: (a << (b & 7).to("u64")) + c,
    "v_mov_b64 v_accvgpr_read_b32 v_accvgpr_write_b32 v_accvgpr_mov_b32": lambda a: a,
    "v_mad_f16 v_mad_legacy_f16": lambda a, b, c: a * b + c,
    "v_madmk_f16": lambda a, k, b: a * k + b,
    "v_madak_f16": lambda a, b, k: a * b + k,
    "v_mad_f32": _mad_flushed,
    "v_madmk_f32": lambda a, k, b: _mad_flushed(a, k, b),
    "v_madak_f32": _mad_flushed,
    "v_mad_legacy_f32":
        lambda a, b, c: _mad_flushed(a, b, c, (_flushed(a).equals(0.0) | _flushed(b).equals(0.0))),
    "v_add_lshl_u32": lambda a, b, c: (a + b) << c,
    "v_lshl_or_b32": lambda a, b, c: (a << b) | c,
    "v_div_scale_f32 v_div_scale_f64": elementary.div_scale,
    "v_div_fixup_f32 v_div_fixup_f64 v_div_fixup_f16 v_div_fixup_legacy_f16": elementary.div_fixup,
}
SEMANTICS = {name: function for names, function in SEMANTICS.items() for name in names.split()}

ACCUMULATING: dict[str, Semantics] = {
    "v_mac_f16": lambda a, b, c: a * b + c,
    "v_mac_f32": _mad_flushed,
    "v_fmac_f64": Value.fma,
    # These read their destination too, as the last argument.
    "v_fmac_f16": Value.fma,
    "v_fmac_f32": Value.fma,
    "v_fmac_dx9_zero_f32": SEMANTICS["v_fma_dx9_zero_f32"],
}


# Sums and products whose excess `clamp` cuts off, as exact arithmetic of 64 bits.
_SATURATES = re.compile(r"v_(add|sub|subrev)_(nc|co|co_ci)_|v_mad_([iu]16|[iu]32_[iu]16)|v_sad_u32")
_WIDE = {
    "v_mad_i32_i24": lambda a, b, c: _signed24(a).to("i64") * _signed24(b).to("i64") + c.to("i64"),
    "v_mad_u32_u24":
        lambda a, b, c: _unsigned24(a).to("i64") * _unsigned24(b).to("i64") + c.to("i64"),
}


def limited(value: Value, type: str) -> Value:
    """A signed number of more bits, cut to what `type` holds."""
    bits = int(type[1:])
    low, high = (0, (1 << bits) - 1) if type[0] == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)
    return value.max(low).min(high).to(type)


def saturating(name: str, semantics: Semantics, type: str) -> Semantics | None:
    """What an integer instruction computes under `clamp`; None where that is not known."""
    if name in _WIDE:
        return lambda *source: limited(_WIDE[name](*source), type)
    if not _SATURATES.match(name):
        return None
    if "_co_" in name:
        beyond = 0xFFFFFFFF if "add" in name else 0

        def with_carry(*source: Value) -> tuple[Value, Value]:
            total, carry = semantics(*source)
            return carry.select(beyond, total), carry

        return with_carry
    return lambda *source: limited(semantics(*(s.to("i64") for s in source)), type)


def find(name: str) -> Semantics | None:
    """What the instruction computes, None where that is not known."""
    if name in SEMANTICS:
        return SEMANTICS[name]
    if name.startswith("v_cmp"):
        return _comparison(name)
    if name.startswith("v_cvt_"):
        return _conversion(name)
    return None


def _comparison(name: str) -> Semantics | None:
    _, _, middle, type = name.split("_")
    if middle == "class":
        return _classify
    if type[0] == "f":
        predicate = FLOAT_COMPARISONS[middle]
        return lambda a, b: a.fcmp(predicate, b)
    if middle in "ft":
        return Value.differs_itself if middle == "f" else Value.equals_itself
    if middle not in INTEGER_COMPARISONS:
        return None
    return {
        "lt": Value.__lt__, "le": Value.__le__, "gt": Value.__gt__, "ge": Value.__ge__,
        "eq": Value.equals, "ne": Value.differs,
    }[middle]


_NUMBER = re.compile(r"[fiu](16|32|64)")


def _conversion(name: str) -> Semantics | None:
    """v_cvt_TO_FROM between numbers."""
    target, *rest = name.removeprefix("v_cvt_").split("_")
    if len(rest) != 1 or not target[1:].isdigit() or not _NUMBER.fullmatch(rest[0]):
        return None
    return lambda a: a.to(target)
