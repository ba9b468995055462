"""Mnemonics of AMD's generations: tables of them, and one spelling for what is the same.

RDNA3 renamed much of what GFX9 and RDNA2 have, RDNA4 a little more. Opcode tables hold each
generation's own names, which its disassembler prints; instructions carry RDNA3's, under which
the semantics are listed. Names stay apart where the instructions differ: `ds_cmpst` has its
operands the other way round than `ds_cmpstore`.
"""

from __future__ import annotations

import functools
import re


def table(rows: str) -> dict[int, str]:
    """Opcode → mnemonic of rows like `12 s_bitcmp0_b32 s_bitcmp1_b32`: the names of an opcode
    and its successors; `-` leaves one out."""
    names: dict[int, str] = {}
    for row in rows.splitlines():
        first, *successors = row.split() or ("0",)
        for opcode, name in enumerate(successors, int(first)):
            if name != "-":
                names[opcode] = name
    return names


_WORDS = """
s_ff1_i32_b32 s_ctz_i32_b32
s_ff1_i32_b64 s_ctz_i32_b64
s_flbit_i32_b32 s_clz_i32_u32
s_flbit_i32_b64 s_clz_i32_u64
s_flbit_i32 s_cls_i32
s_flbit_i32_i64 s_cls_i32_i64
s_inst_prefetch s_set_inst_prefetch_distance
v_cvt_rpi_i32_f32 v_cvt_nearest_i32_f32
v_cvt_flr_i32_f32 v_cvt_floor_i32_f32
v_ffbh_u32 v_clz_i32_u32
v_ffbl_b32 v_ctz_i32_b32
v_ffbh_i32 v_cls_i32
v_dot2c_f32_f16 v_dot2acc_f32_f16
v_fmac_legacy_f32 v_fmac_dx9_zero_f32
v_fma_legacy_f32 v_fma_dx9_zero_f32
v_mul_legacy_f32 v_mul_dx9_zero_f32
v_cvt_pkrtz_f16_f32 v_cvt_pk_rtz_f16_f32
v_add_u32 v_add_nc_u32
v_sub_u32 v_sub_nc_u32
v_subrev_u32 v_subrev_nc_u32
v_add_i32 v_add_nc_i32
v_sub_i32 v_sub_nc_i32
v_add_u16 v_add_nc_u16
v_sub_u16 v_sub_nc_u16
v_subrev_u16 v_subrev_nc_u16
v_add_i16 v_add_nc_i16
v_sub_i16 v_sub_nc_i16
v_addc_co_u32 v_add_co_ci_u32
v_subb_co_u32 v_sub_co_ci_u32
v_subbrev_co_u32 v_subrev_co_ci_u32
s_add_co_u32 s_add_u32
s_sub_co_u32 s_sub_u32
s_add_co_i32 s_add_i32
s_sub_co_i32 s_sub_i32
s_add_co_ci_u32 s_addc_u32
s_sub_co_ci_u32 s_subb_u32
s_addk_co_i32 s_addk_i32
v_mad_co_u64_u32 v_mad_u64_u32
v_mad_co_i64_i32 v_mad_i64_i32
s_barrier_wait s_barrier
"""
_RENAMED = dict(row.split() for row in _WORDS.split("\n") if row)

_BYTES = {"ubyte": "u8", "sbyte": "i8", "ushort": "u16", "sshort": "i16", "short": "b16",
          "byte": "b8", "dword": "b32", "dwordx2": "b64", "dwordx3": "b96", "dwordx4": "b128",
          "dwordx8": "b256", "dwordx16": "b512"}
_ATOMICS = {"swap": "swap_b", "cmpswap": "cmpswap_b", "and": "and_b", "or": "or_b", "xor": "xor_b",
            "add": "add_u", "sub": "sub_u", "inc": "inc_u", "dec": "dec_u", "csub": "csub_u",
            "sub_clamp_u32": "csub_u", "smin": "min_i", "umin": "min_u", "smax": "max_i",
            "umax": "max_u", "fmin": "min_f", "fmax": "max_f", "fcmpswap": "cmpswap_f"}
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^s_(and|or)n1_", r"s_\1_not0_"),
        (r"^s_(and|or)n2_", r"s_\1_not1_"),
        (r"_tru_", "_t_"),
        (r"_pknorm_", "_pk_norm_"),
        (r"_(min|max)(3?)_num_", r"_\1\2_"),
        (r"_(med3|maxmin|minmax)_num_", r"_\1_"),
        (r"_format_d16(_hi)?_", r"_d16\1_format_"),
        (r"^ds_(read|write|wrxchg)2st64_", r"ds_\1_2addr_stride64_"),
        (r"^ds_(read|write|wrxchg)2_", r"ds_\1_2addr_"),
        (r"^ds_read_", "ds_load_"),
        (r"^ds_write_", "ds_store_"),
        (r"^ds_wrxchg_", "ds_storexchg_"),
        (r"_dword_addtid$", "_addtid_b32"),
        (r"_([us]?byte|[us]?short)_d16(_hi)?$", r"_d16\2_\1"),
    )
]
_MEMORY = re.compile(r"^((?:s|buffer|global|flat|scratch)_(?:buffer_|[a-z0-9]+_)*?)"
                     r"([us]?byte|[us]?short|dword(?:x\d+)?)$")
_ATOMIC = re.compile(r"^((?:buffer|global|flat)_atomic_)([a-z]+|sub_clamp_u32)(_x2)?$")


@functools.cache
def canonical(name: str) -> str:
    """RDNA3's name of an instruction that may be called otherwise elsewhere."""
    name = _RENAMED.get(name, name)
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    found = _MEMORY.match(name)
    if found:
        return found[1] + _BYTES[found[2]]
    found = _ATOMIC.match(name)
    if found and found[2] in _ATOMICS:
        return found[1] + _ATOMICS[found[2]] + ("64" if found[3] else "32")
    return name
