"""Opcode numbers of CDNA3 (gfx942): what it changes in those of CDNA2.

Source: AMD, "CDNA3 Instruction Set Architecture", chapter 13; checked as CDNA2's are.
"""

from __future__ import annotations

from drivers.emulated.simt import cdna2_opcodes as cdna2
from drivers.emulated.simt.amd_names import table
from drivers.emulated.simt.cdna2_opcodes import (
    SCRATCH,
    SMEM,
    SOP1,
    SOP2,
    SOPC,
    SOPK,
    SOPP,
    VOPC,
)

__all__ = ["SCRATCH", "SMEM", "SOP1", "SOP2", "SOPC", "SOPK", "SOPP", "VOPC"]

VOP1 = cdna2.VOP1 | table("""
56 v_mov_b64
84 v_cvt_f32_fp8 v_cvt_f32_bf8 v_cvt_pk_f32_fp8 v_cvt_pk_f32_bf8
""")
VOP2 = cdna2.VOP2 | table("""
23 v_fmamk_f32 v_fmaak_f32
""")
del VOP2[22]  # v_mac_f32
VOP3 = cdna2.VOP3 | table("""
520 v_lshl_add_u64
674 v_cvt_pk_fp8_f32 v_cvt_pk_bf8_f32
""")
del VOP3[448], VOP3[449]  # v_mad_legacy_f32, v_mad_f32

VOP3P = {op: name for op, name in cdna2.VOP3P.items() if op < 62} | table("""
62 v_mfma_f32_16x16x8_xf32 v_mfma_f32_32x32x4_xf32 v_mfma_f32_32x32x1_2b_f32
65 v_mfma_f32_16x16x1_4b_f32 v_mfma_f32_4x4x1_16b_f32 - v_mfma_f32_32x32x2_f32
69 v_mfma_f32_16x16x4_f32 - - v_mfma_f32_32x32x4_2b_f16 v_mfma_f32_16x16x4_4b_f16
74 v_mfma_f32_4x4x4_16b_f16 - v_mfma_f32_32x32x8_f16 v_mfma_f32_16x16x16_f16
80 v_mfma_i32_32x32x4_2b_i8 v_mfma_i32_16x16x4_4b_i8 v_mfma_i32_4x4x4_16b_i8
86 v_mfma_i32_32x32x16_i8 v_mfma_i32_16x16x32_i8 v_accvgpr_read_b32 v_accvgpr_write_b32
93 v_mfma_f32_32x32x4_2b_bf16 v_mfma_f32_16x16x4_4b_bf16 v_mfma_f32_4x4x4_16b_bf16
96 v_mfma_f32_32x32x8_bf16 v_mfma_f32_16x16x16_bf16 v_smfmac_f32_16x16x32_f16
100 v_smfmac_f32_32x32x16_f16 - v_smfmac_f32_16x16x32_bf16 - v_smfmac_f32_32x32x16_bf16
106 v_smfmac_i32_16x16x64_i8 - v_smfmac_i32_32x32x32_i8 - v_mfma_f64_16x16x4_f64
111 v_mfma_f64_4x4x4_4b_f64 v_mfma_f32_16x16x32_bf8_bf8 v_mfma_f32_16x16x32_bf8_fp8
114 v_mfma_f32_16x16x32_fp8_bf8 v_mfma_f32_16x16x32_fp8_fp8 v_mfma_f32_32x32x16_bf8_bf8
117 v_mfma_f32_32x32x16_bf8_fp8 v_mfma_f32_32x32x16_fp8_bf8 v_mfma_f32_32x32x16_fp8_fp8
120 v_smfmac_f32_16x16x64_bf8_bf8 v_smfmac_f32_16x16x64_bf8_fp8 v_smfmac_f32_16x16x64_fp8_bf8
123 v_smfmac_f32_16x16x64_fp8_fp8 v_smfmac_f32_32x32x32_bf8_bf8 v_smfmac_f32_32x32x32_bf8_fp8
126 v_smfmac_f32_32x32x32_fp8_bf8 v_smfmac_f32_32x32x32_fp8_fp8
""")

DS = cdna2.DS | table("""
23 ds_pk_add_f16 ds_pk_add_bf16
183 ds_pk_add_rtn_f16 ds_pk_add_rtn_bf16
""")
FLAT = cdna2.FLAT | table("""
77 flat_atomic_add_f32 flat_atomic_pk_add_f16
82 flat_atomic_pk_add_bf16
""")
GLOBAL = cdna2.GLOBAL | table("""
82 global_atomic_pk_add_bf16
""")
MUBUF = cdna2.MUBUF | table("""
41 buffer_inv
""")
