"""CDNA's encodings: where each format's fields lie in gfx90a and gfx942.

Rows as in `amd_bits`. CDNA is GFX9 with matrix instructions and accumulation registers, which
are vector registers from 256 on here: a bit beside a register's number tells which of the two it
is. Sources: AMD's "CDNA2" and "CDNA3 Instruction Set Architecture", chapters on microcode formats.
"""

from __future__ import annotations

from drivers.emulated.simt import cdna2_opcodes, cdna3_opcodes
from drivers.emulated.simt.amd_bits import SCALAR_AND_SHORT, Generation

FIRST_ACCUMULATOR = 256

_COMMON = SCALAR_AND_SHORT + """
VOP3P 110100111 8 op 22 16 clamp 15 15 sel_hi2 14 14 op_sel 13 11 neg_hi 10 8 vdst 7 0
      neg_lo 63 61 sel_hi 60 59 src2 58 50 src1 49 41 src0 40 32
VOP3  110100 8 op 25 16 clamp 15 15 op_sel 14 11 sdst 14 8 abs 10 8 vdst 7 0
      neg 63 61 omod 60 59 src2 58 50 src1 49 41 src0 40 32
SMEM  110000 8 op 25 18 imm 17 17 glc 16 16 nv 15 15 soe 14 14 sdata 12 6 sbase 5 0
      soffset 63 57 offset 52 32
DS    110110 8 acc 25 25 op 24 17 gds 16 16 offset1 15 8 offset0 7 0 vdst 63 56 data1 55 48
      data0 47 40 addr 39 32
"""
_CDNA2 = _COMMON + """
FLAT  110111 8 scc 25 25 op 24 18 slc 17 17 glc 16 16 seg 15 14 lds 13 13 offset 12 0
      vdst 63 56 acc 55 55 saddr 54 48 data 47 40 addr 39 32
MUBUF 111000 8 op 24 18 slc 17 17 lds 16 16 scc 15 15 glc 14 14 idxen 13 13 offen 12 12
      offset 11 0 soffset 63 56 acc 55 55 srsrc 52 48 vdata 47 40 vaddr 39 32
"""
_CDNA3 = _COMMON + """
FLAT  110111 8 sc1 25 25 op 24 18 nt 17 17 sc0 16 16 seg 15 14 sve 13 13 offset 12 0
      vdst 63 56 acc 55 55 saddr 54 48 data 47 40 addr 39 32
MUBUF 111000 8 op 24 18 nt 17 17 lds 16 16 sc1 15 15 sc0 14 14 idxen 13 13 offen 12 12
      offset 11 0 soffset 63 56 acc 55 55 srsrc 52 48 vdata 47 40 vaddr 39 32
"""

CDNA2 = Generation("CDNA2", _CDNA2, cdna2_opcodes, gfx9=True)
CDNA3 = Generation("CDNA3", _CDNA3, cdna3_opcodes, gfx9=True)
