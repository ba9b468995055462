"""What RDNA3's scalar instructions compute: each row gives the result and the new SCC.

A function takes the sources (and, where listed in READS_SCC, SCC last) and returns a Value, or
(Value, SCC). Rows in NONZERO set SCC when the result is not zero. Source: AMD, "RDNA3
Instruction Set Architecture", chapter 16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drivers.emulated.simt.amd_valu import half_toward_zero_pair
from drivers.emulated.simt.values import Value

Semantics = Callable[..., Any]


def _add(a: Value, b: Value) -> tuple[Value, Value]:
    total = a + b
    if a.type[0] == "i":
        return total, ((total ^ a) & (total ^ b)) < 0
    return total, total < a


def _subtract(a: Value, b: Value) -> tuple[Value, Value]:
    rest = a - b
    if a.type[0] == "i":
        return rest, ((a ^ b) & (rest ^ a)) < 0
    return rest, a < b


def _add_carry(a: Value, b: Value, carry: Value) -> tuple[Value, Value]:
    wide = a.to("u64") + b.to("u64") + carry.to("u64")
    return wide.to("u32"), (wide >> 32).differs(0)


def _subtract_borrow(a: Value, b: Value, borrow: Value) -> tuple[Value, Value]:
    wide = a.to("u64") - b.to("u64") - borrow.to("u64")
    return wide.to("u32"), (wide >> 32).differs(0)


def _shift_add(amount: int) -> Semantics:
    def compute(a: Value, b: Value) -> tuple[Value, Value]:
        wide = (a.to("u64") << amount) + b.to("u64")
        return wide.to("u32"), (wide >> 32).differs(0)

    return compute


def _bit_field(value: Value, field: Value) -> Value:
    """s_bfe: the field says offset in its low bits and width from bit 16 on."""
    bits = value.width
    field = field.as_type("u32")
    offset = field & (bits - 1)
    width = ((field >> 16) & 0x7F).min(bits)
    top = (bits - offset).min(width)
    spare = bits - top
    shifted = (value << (spare - offset)) >> spare
    return width.equals(0).select(0, shifted)


def _count_trailing(value: Value) -> Value:
    found = value.as_type(f"u{value.width}").intrinsic("cttz", "i1 false")
    return value.equals(0).select(-1, found.to("u32").as_type("i32"))


def _count_leading(value: Value) -> Value:
    found = value.as_type(f"u{value.width}").intrinsic("ctlz", "i1 false")
    return value.equals(0).select(-1, found.to("u32").as_type("i32"))


def _pack(low_shift: int, high_shift: int) -> Semantics:
    return lambda a, b: ((a >> low_shift) & 0xFFFF) | ((b >> high_shift) << 16)


# Results of which SCC tells whether they are not zero.
NONZERO: dict[str, Semantics] = {
    "s_and_b32 s_and_b64": lambda a, b: a & b,
    "s_or_b32 s_or_b64": lambda a, b: a | b,
    "s_xor_b32 s_xor_b64": lambda a, b: a ^ b,
    "s_nand_b32 s_nand_b64": lambda a, b: ~(a & b),
    "s_nor_b32 s_nor_b64": lambda a, b: ~(a | b),
    "s_xnor_b32 s_xnor_b64": lambda a, b: ~(a ^ b),
    "s_and_not1_b32 s_and_not1_b64": lambda a, b: a & ~b,
    "s_or_not1_b32 s_or_not1_b64": lambda a, b: a | ~b,
    "s_lshl_b32 s_lshl_b64": lambda a, n: a << n,
    "s_lshr_b32 s_lshr_b64": lambda a, n: a >> n,
    "s_ashr_i32 s_ashr_i64": lambda a, n: a >> n,
    "s_bfe_u32 s_bfe_i32 s_bfe_u64 s_bfe_i64": _bit_field,
    "s_not_b32 s_not_b64": lambda a: ~a,
    "s_abs_i32": Value.abs,
    "s_absdiff_i32": lambda a, b: a.max(b) - a.min(b),
    "s_bcnt1_i32_b32 s_bcnt1_i32_b64": lambda a: a.intrinsic("ctpop").to("u32"),
    "s_bcnt0_i32_b32 s_bcnt0_i32_b64": lambda a: (~a).intrinsic("ctpop").to("u32"),
}

# Everything else; a pair is (result, SCC).
OTHERS: dict[str, Semantics] = {
    "s_add_u32 s_add_i32": _add,
    "s_sub_u32 s_sub_i32": _subtract,
    "s_addc_u32": _add_carry,
    "s_subb_u32": _subtract_borrow,
    "s_lshl1_add_u32": _shift_add(1),
    "s_lshl2_add_u32": _shift_add(2),
    "s_lshl3_add_u32": _shift_add(3),
    "s_lshl4_add_u32": _shift_add(4),
    "s_min_i32 s_min_u32": lambda a, b: (a.min(b), a < b),
    "s_max_i32 s_max_u32": lambda a, b: (a.max(b), a >= b),
    "s_mul_i32": lambda a, b: a * b,
    "s_mul_hi_u32 s_mul_hi_i32": Value.high_half,
    "s_bfm_b32": lambda a, b: ((a.like(1) << a) - 1) << b,
    "s_bfm_b64": lambda a, b: (((a.to("u64").like(1) << (a & 63)) - 1) << (b & 63)),
    "s_cselect_b32 s_cselect_b64": lambda a, b, scc: scc.select(a, b),
    "s_pack_ll_b32_b16": _pack(0, 0),
    "s_pack_lh_b32_b16": _pack(0, 16),
    "s_pack_hh_b32_b16": _pack(16, 16),
    "s_pack_hl_b32_b16": _pack(16, 0),
    "s_mov_b32 s_mov_b64": lambda a: a,
    "s_brev_b32 s_brev_b64": lambda a: a.intrinsic("bitreverse"),
    "s_ctz_i32_b32 s_ctz_i32_b64": _count_trailing,
    "s_clz_i32_u32 s_clz_i32_u64": _count_leading,
    "s_cls_i32": lambda a: _count_leading((a ^ (a >> 31)).as_type("u32")),
    "s_sext_i32_i8": lambda a: (a << 24) >> 24,
    "s_sext_i32_i16": lambda a: (a << 16) >> 16,
}

def _quads(bits: Value) -> Value:
    """The lowest bit of each group of four that is not all 0."""
    some = bits | (bits >> 1)
    return (some | (some >> 2)) & 0x1111111111111111


def _quad_mask(bits: Value) -> Value:
    marks, total = _quads(bits), bits.like(0)
    for place in range(bits.width // 4):
        total = total | ((marks >> 3 * place) & (1 << place))
    return total


def _doubled(bits: Value) -> Value:
    """Every bit twice, one after the other."""
    wide = bits.to("u64")
    for shift, mask in ((16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF),
                        (4, 0x0F0F0F0F0F0F0F0F), (2, 0x3333333333333333), (1, 0x5555555555555555)):
        wide = (wide | (wide << shift)) & mask
    return wide | (wide << 1)


NONZERO |= {
    "s_quadmask_b32 s_quadmask_b64": _quad_mask,
    "s_wqm_b32 s_wqm_b64": lambda a: _quads(a) * 15,
}
OTHERS |= {
    "s_cls_i32_i64": lambda a: _count_leading((a ^ (a >> 63)).as_type("u64")),
    "s_ff0_i32_b32 s_ff0_i32_b64": lambda a: _count_trailing(~a),
    "s_bitreplicate_b64_b32": _doubled,
    "s_add_nc_u64": lambda a, b: a + b,
    "s_sub_nc_u64": lambda a, b: a - b,
    "s_mul_u64": lambda a, b: a * b,
    # floats of RDNA4
    "s_add_f32 s_add_f16": lambda a, b: a + b,
    "s_sub_f32 s_sub_f16": lambda a, b: a - b,
    "s_mul_f32 s_mul_f16": lambda a, b: a * b,
    "s_min_f32 s_min_f16": Value.min,
    "s_max_f32 s_max_f16": Value.max,
    "s_minimum_f32 s_minimum_f16": Value.minimum,
    "s_maximum_f32 s_maximum_f16": Value.maximum,
    "s_fmac_f32 s_fmac_f16": Value.fma,
    "s_fmamk_f32": lambda a, k, b: a.fma(k, b),
    "s_fmaak_f32": lambda a, b, k: a.fma(b, k),
    "s_ceil_f32 s_ceil_f16": lambda a: a.intrinsic("ceil"),
    "s_floor_f32 s_floor_f16": lambda a: a.intrinsic("floor"),
    "s_trunc_f32 s_trunc_f16": lambda a: a.intrinsic("trunc"),
    "s_rndne_f32 s_rndne_f16": lambda a: a.intrinsic("roundeven"),
    "s_cvt_f32_i32 s_cvt_f32_u32 s_cvt_f32_f16": lambda a: a.to("f32"),
    "s_cvt_i32_f32": lambda a: a.to("i32"),
    "s_cvt_u32_f32": lambda a: a.to("u32"),
    "s_cvt_f16_f32": lambda a: a.to("f16"),
    "s_cvt_hi_f32_f16": lambda a: (a >> 16).to("u16").as_type("f16").to("f32"),
    "s_cvt_pk_rtz_f16_f32": half_toward_zero_pair,
}
ACCUMULATING = {"s_fmac_f32", "s_fmac_f16"}
READS_SCC = {"s_addc_u32", "s_subb_u32", "s_cselect_b32", "s_cselect_b64"}

# Scalar comparisons set SCC only.
COMPARISONS: dict[str, Semantics] = {
    "eq": Value.equals, "lg": Value.differs, "gt": Value.__gt__,
    "ge": Value.__ge__, "lt": Value.__lt__, "le": Value.__le__,
}

# name_saveexec: the new EXEC of the source and the old EXEC.
SAVEEXEC: dict[str, Semantics] = {
    "and": lambda a, exec: a & exec,
    "or": lambda a, exec: a | exec,
    "xor": lambda a, exec: a ^ exec,
    "nand": lambda a, exec: ~(a & exec),
    "nor": lambda a, exec: ~(a | exec),
    "xnor": lambda a, exec: ~(a ^ exec),
    "and_not0": lambda a, exec: ~a & exec,
    "or_not0": lambda a, exec: ~a | exec,
    "and_not1": lambda a, exec: a & ~exec,
    "or_not1": lambda a, exec: a | ~exec,
}


def _each(rows: dict[str, Semantics]) -> dict[str, Semantics]:
    return {name: function for names, function in rows.items() for name in names.split()}


NONZERO = _each(NONZERO)
OTHERS = _each(OTHERS)
