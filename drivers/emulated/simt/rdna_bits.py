"""RDNA's encodings: where each format's fields lie in gfx103x, gfx110x and gfx120x.

Rows as in `amd_bits`. Sources: AMD's "RDNA2", "RDNA3" and "RDNA4 Instruction Set Architecture",
chapters on microcode formats.
"""

from __future__ import annotations

from drivers.emulated.simt import rdna2_opcodes, rdna3_opcodes, rdna4_opcodes
from drivers.emulated.simt.amd_bits import SCALAR_AND_SHORT, Generation

_COMMON = SCALAR_AND_SHORT + """
VOP3  110101 8 op 25 16 clamp 15 15 op_sel 14 11 sdst 14 8 abs 10 8 vdst 7 0
      neg 63 61 omod 60 59 src2 58 50 src1 49 41 src0 40 32
VOP3P 11001100 8 op 22 16 clamp 15 15 sel_hi2 14 14 op_sel 13 11 neg_hi 10 8 vdst 7 0
      neg_lo 63 61 sel_hi 60 59 src2 58 50 src1 49 41 src0 40 32
"""
_RDNA2 = _COMMON + """
SMEM  111101 8 op 25 18 glc 16 16 dlc 14 14 sdata 12 6 sbase 5 0 soffset 63 57 offset 52 32
DS    110110 8 op 25 18 gds 17 17 offset1 15 8 offset0 7 0 vdst 63 56 data1 55 48 data0 47 40
      addr 39 32
FLAT  110111 8 op 24 18 slc 17 17 glc 16 16 seg 15 14 lds 13 13 dlc 12 12 offset 11 0
      vdst 63 56 saddr 54 48 data 47 40 addr 39 32
MUBUF 111000 8 op 25 18 lds 16 16 dlc 15 15 glc 14 14 idxen 13 13 offen 12 12 offset 11 0
      soffset 63 56 tfe 55 55 slc 54 54 srsrc 52 48 vdata 47 40 vaddr 39 32
"""
_RDNA3 = _COMMON + """
VOPD  110010 8 opx 25 22 opy 21 17 vsrc1x 16 9 src0x 8 0 vdstx 63 56 vdsty 55 49 vsrc1y 48 41
      src0y 40 32
SMEM  111101 8 op 25 18 glc 14 14 dlc 13 13 sdata 12 6 sbase 5 0 soffset 63 57 offset 52 32
DS    110110 8 op 25 18 gds 17 17 offset1 15 8 offset0 7 0 vdst 63 56 data1 55 48 data0 47 40
      addr 39 32
FLAT  110111 8 op 24 18 seg 17 16 slc 15 15 glc 14 14 dlc 13 13 offset 12 0 vdst 63 56 sve 55 55
      saddr 54 48 data 47 40 addr 39 32
MUBUF 111000 8 op 25 18 glc 14 14 dlc 13 13 slc 12 12 offset 11 0 soffset 63 56 idxen 55 55
      offen 54 54 tfe 53 53 srsrc 52 48 vdata 47 40 vaddr 39 32
"""
_RDNA4 = _COMMON + """
VOPD  110010 8 opx 25 22 opy 21 17 vsrc1x 16 9 src0x 8 0 vdstx 63 56 vdsty 55 49 vsrc1y 48 41
      src0y 40 32
SMEM  111101 8 th 24 23 scope 22 21 op 18 13 sdata 12 6 sbase 5 0 soffset 63 57 offset 55 32
DS    110110 8 op 25 18 offset1 15 8 offset0 7 0 vdst 63 56 data1 55 48 data0 47 40 addr 39 32
FLAT  111011 12 seg 25 24 op 21 14 saddr 6 0 data 62 55 th 54 52 scope 51 50 sve 49 49
      vdst 39 32 offset 95 72 addr 71 64
MUBUF 110001 12 tfe 22 22 op 21 14 soffset 6 0 idxen 63 63 offen 62 62 format 61 55 th 54 52
      scope 51 50 srsrc 49 41 vdata 39 32 offset 95 72 vaddr 71 64
"""

RDNA2 = Generation("RDNA2", _RDNA2, rdna2_opcodes, m0_first=True)
RDNA3 = Generation("RDNA3", _RDNA3, rdna3_opcodes)
RDNA4 = Generation("RDNA4", _RDNA4, rdna4_opcodes)
