"""The operand types of AMD's instructions, mostly read off their names (RDNA3's).

A type is a letter and a width: f float, i signed, u unsigned, b bits, m a lane mask (`m32`, and
`m64` in waves of 64 lanes), p a pair of values of half
the width. A signature is (destinations, sources).
"""

from __future__ import annotations

import functools
import re

Signature = tuple[tuple[str, ...], tuple[str, ...]]

_TYPE = re.compile(r"_(?:nc_|co_)?([fiub])(\d+)(?=_|$)")

# Destination types: source types, for names that mislead or say too little.
EXCEPTIONS = {
    # scalar
    "s_lshl_b64 s_lshr_b64": "b64: b64 b32",
    "s_ashr_i64": "i64: i64 b32",
    "s_bfe_u64": "u64: u64 b32",
    "s_bfe_i64": "i64: i64 b32",
    "s_bfm_b64": "b64: b32 b32",
    "s_bitset0_b64 s_bitset1_b64 s_bitreplicate_b64_b32": "b64: b32",
    "s_bitcmp0_b64 s_bitcmp1_b64": ": b64 b32",
    "s_getpc_b64": "b64:",
    "s_setpc_b64 s_rfe_b64": ": b64",
    "s_cls_i32": "i32: i32",
    "s_sext_i32_i8 s_sext_i32_i16": "i32: i32",
    "s_sendmsg_rtn_b32": "b32: b32",
    "s_sendmsg_rtn_b64": "b64: b32",
    "s_pack_ll_b32_b16 s_pack_lh_b32_b16 s_pack_hh_b32_b16 s_pack_hl_b32_b16": "b32: b32 b32",
    # vector, one source
    "v_nop v_pipeflush v_clrexcp": ":",
    "v_readfirstlane_b32": "b32: b32",
    "v_cvt_f32_ubyte0 v_cvt_f32_ubyte1 v_cvt_f32_ubyte2 v_cvt_f32_ubyte3": "f32: u32",
    "v_cvt_off_f32_i4": "f32: b32",
    "v_sat_pk_u8_i16": "b16: b32",
    "v_frexp_exp_i16_f16": "i16: f16",
    "v_cvt_norm_i16_f16 v_cvt_norm_u16_f16": "i16: f16",
    # vector, two sources
    "v_cndmask_b32": "b32: f32 f32 m32",
    "v_cndmask_b16": "b16: b16 b16 m32",
    "v_dot2acc_f32_f16": "f32: p32 p32",
    "v_pk_fmac_f16": "p32: p32 p32",
    "v_cvt_pk_rtz_f16_f32": "p32: f32 f32",
    "v_cvt_pk_i16_f32 v_cvt_pk_u16_f32": "p32: f32 f32",
    "v_cvt_pk_norm_i16_f32 v_cvt_pk_norm_u16_f32": "p32: f32 f32",
    "v_cvt_pk_norm_i16_f16 v_cvt_pk_norm_u16_f16": "p32: f16 f16",
    "v_cvt_pk_i16_i32 v_cvt_pk_u16_u32": "p32: u32 u32",
    "v_pack_b32_f16": "p32: f16 f16",
    "v_ldexp_f16": "f16: f16 i16",
    "v_ldexp_f32": "f32: f32 i32",
    "v_ldexp_f64": "f64: f64 i32",
    "v_trig_preop_f64": "f64: f64 i32",
    "v_lshlrev_b64 v_lshrrev_b64": "b64: b32 b64",
    "v_ashrrev_i64": "i64: b32 i64",
    "v_add_co_ci_u32 v_sub_co_ci_u32 v_subrev_co_ci_u32": "u32 m32: u32 u32 m32",
    "v_add_co_u32 v_sub_co_u32 v_subrev_co_u32": "u32 m32: u32 u32",
    "v_bcnt_u32_b32 v_mbcnt_lo_u32_b32 v_mbcnt_hi_u32_b32": "u32: b32 b32",
    "v_readlane_b32": "b32: b32 b32",
    "v_writelane_b32": "b32: b32 b32",
    "v_cmp_class_f16 v_cmpx_class_f16": "m32: f16 b16",
    "v_cmp_class_f32 v_cmpx_class_f32": "m32: f32 b32",
    "v_cmp_class_f64 v_cmpx_class_f64": "m32: f64 b32",
    "v_mul_hi_i32_i24 v_mul_i32_i24": "i32: i32 i32",
    "v_mul_hi_u32_u24 v_mul_u32_u24": "u32: u32 u32",
    # vector, three sources
    "v_mad_i32_i24": "i32: i32 i32 i32",
    "v_mad_u32_u24": "u32: u32 u32 u32",
    "v_mad_u32_u16": "u32: u16 u16 u32",
    "v_mad_i32_i16": "i32: i16 i16 i32",
    "v_mad_u64_u32": "u64 m32: u32 u32 u64",
    "v_mad_i64_i32": "i64 m32: i32 i32 i64",
    "v_div_scale_f32": "f32 m32: f32 f32 f32",
    "v_div_scale_f64": "f64 m32: f64 f64 f64",
    "v_cvt_pk_u8_f32": "u32: f32 u32 u32",
    "v_lerp_u8 v_sad_u8 v_sad_hi_u8 v_msad_u8 v_sad_u16": "u32: u32 u32 u32",
    "v_qsad_pk_u16_u8 v_mqsad_pk_u16_u8": "b64: b64 b32 b64",
    "v_mqsad_u32_u8": "b128: b64 b32 b128",
    # packed and matrix
    "v_dot2_f32_f16 v_dot2_f32_bf16": "f32: p32 p32 f32",
    "v_dot2_f16_f16 v_dot2_bf16_bf16": "f16: p32 p32 f16",
    "v_dot4_i32_iu8 v_dot8_i32_iu4": "i32: b32 b32 i32",
    "v_dot4_u32_u8 v_dot8_u32_u4": "u32: b32 b32 u32",
    "v_fma_mix_f32": "f32: f32 f32 f32",
    "v_fma_mixlo_f16 v_fma_mixhi_f16": "b32: f32 f32 f32",
    "v_dot2_i32_i16": "i32: p32 p32 i32",
    "v_dot2_u32_u16": "u32: p32 p32 u32",
    "v_dot4_i32_i8 v_dot8_i32_i4": "i32: b32 b32 i32",
    "v_dot4c_i32_i8": "i32: b32 b32",
    "v_dot4_f32_fp8_bf8 v_dot4_f32_bf8_fp8 v_dot4_f32_fp8_fp8 v_dot4_f32_bf8_bf8":
        "f32: b32 b32 f32",
    # CDNA
    "v_dot2c_i32_i16": "i32: b32 b32",
    "v_dot8c_i32_i4": "i32: b32 b32",
    "v_lshl_add_u64": "u64: u64 u32 u64",
    "v_cvt_pkaccum_u8_f32": "u32: f32 u32",
    "v_accvgpr_mov_b32": "b32: b32",
    "v_pk_fma_f32": "p64: p64 p64 p64",
    "v_pk_mul_f32 v_pk_add_f32 v_pk_mov_b32": "p64: p64 p64",
    # RDNA4
    "s_barrier_signal s_barrier_signal_isfirst s_barrier_init s_barrier_join s_wakeup_barrier "
    "s_sleep_var": ": b32",
    "s_get_barrier_state": "b32: b32",
    "s_cvt_pk_rtz_f16_f32": "p32: f32 f32",
    "s_cvt_hi_f32_f16": "f32: b32",
    "v_permlane16_var_b32 v_permlanex16_var_b32": "b32: b32 b32",
    "v_cvt_f32_fp8 v_cvt_f32_bf8": "f32: b32",
    "v_cvt_pk_f32_fp8 v_cvt_pk_f32_bf8": "b64: b32",
    "v_cvt_pk_fp8_f32 v_cvt_pk_bf8_f32": "b32: f32 f32",
    "v_cvt_sr_fp8_f32 v_cvt_sr_bf8_f32": "b32: f32 u32",
}

# Matrix instructions by generation, for RDNA4 distributes the factors over the lanes once.
MATRIX = {
    "RDNA3": {
        "v_wmma_f32_16x16x16_f16 v_wmma_f32_16x16x16_bf16": "b256: b256 b256 f256",
        "v_wmma_f16_16x16x16_f16 v_wmma_bf16_16x16x16_bf16": "b256: b256 b256 f256",
        "v_wmma_i32_16x16x16_iu8": "b256: b128 b128 i256",
        "v_wmma_i32_16x16x16_iu4": "b256: b64 b64 i256",
    },
    "RDNA4": {
        "v_wmma_f32_16x16x16_f16 v_wmma_f32_16x16x16_bf16": "b256: b128 b128 f256",
        "v_wmma_f16_16x16x16_f16 v_wmma_bf16_16x16x16_bf16": "b128: b128 b128 f128",
        "v_wmma_i32_16x16x16_iu8 v_wmma_i32_16x16x32_iu4": "b256: b64 b64 i256",
        "v_wmma_i32_16x16x16_iu4": "b256: b32 b32 i256",
        "v_wmma_f32_16x16x16_fp8_fp8 v_wmma_f32_16x16x16_fp8_bf8 v_wmma_f32_16x16x16_bf8_fp8 "
        "v_wmma_f32_16x16x16_bf8_bf8": "b256: b64 b64 f256",
        "v_swmmac_f32_16x16x32_f16 v_swmmac_f32_16x16x32_bf16": "b256: b128 b256 b32",
        "v_swmmac_f16_16x16x32_f16 v_swmmac_bf16_16x16x32_bf16": "b128: b128 b256 b32",
        "v_swmmac_i32_16x16x32_iu8 v_swmmac_i32_16x16x64_iu4": "b256: b64 b128 b32",
        "v_swmmac_i32_16x16x32_iu4": "b256: b32 b64 b32",
        "v_swmmac_f32_16x16x32_fp8_fp8 v_swmmac_f32_16x16x32_fp8_bf8 "
        "v_swmmac_f32_16x16x32_bf8_fp8 v_swmmac_f32_16x16x32_bf8_bf8": "b256: b64 b128 b32",
    },
}


def _rows(table: dict[str, str]) -> dict[str, Signature]:
    found: dict[str, Signature] = {}
    for names, types in table.items():
        destination, source = (tuple(side.split()) for side in types.split(":"))
        found |= dict.fromkeys(names.split(), (destination, source))
    return found


_EXCEPTIONS = _rows(EXCEPTIONS)
_MATRIX = {generation: _rows(table) for generation, table in MATRIX.items()}
# Instructions of the long encoding with three sources.
_THREE = re.compile(
    r"v_(fma_|mad_|cube|bf[ei]_|lerp|align|mullit|(min|max|med|minimum|maximum|xor|or|add)3_|m?q?sad"
    r"|cvt_pk_u8|div_|perm_|xad|lshl_(add|or)|add_lshl|and_or|permlanex?16_b32|cndmask|maxmin"
    r"|minmax|minimummax|maximummin|dot|pk_fma_|pk_mad|pk_fma_|wmma|swmmac)"
)


def matrix_signature(generation: str, name: str) -> Signature:
    """The types of a matrix instruction."""
    return _MATRIX[generation][name]


def sources(name: str) -> int:
    """How many sources an instruction has that only the long encodings have."""
    if name in _EXCEPTIONS:
        return len(_EXCEPTIONS[name][1])
    if name.startswith("v_s_"):
        return 1
    return 3 if _THREE.match(name) else 2


def selects(name: str, destination: tuple[str, ...], source: tuple[str, ...]) -> bool:
    """Whether op_sel means something: halves of registers, or options of a permutation."""
    if len(destination) == 2:
        return False
    if name in ("v_cvt_pk_fp8_f32", "v_cvt_pk_bf8_f32"):
        return True
    return name.startswith("v_permlane") or any(t[1:] == "16" for t in (*destination, *source))


@functools.cache
def signature(name: str, sources: int) -> Signature:
    """The types of an instruction with that many sources, if its name does not say."""
    if name in _EXCEPTIONS:
        destination, source = _EXCEPTIONS[name]
        return destination, source
    found = _TYPE.findall(name)
    letter, width = found[-1] if found else ("b", "32")
    last = letter + str(width)
    first = "".join(found[-2]) if len(found) > 1 else last
    if name.startswith("v_pk_"):
        first = last = "p32"
    if name.startswith(("v_cmp", "v_cmpx")):
        first = "m32"
    no_destination = name.startswith(("s_cmp_", "s_bitcmp"))
    return (() if no_destination else (first,)), (last,) * sources
