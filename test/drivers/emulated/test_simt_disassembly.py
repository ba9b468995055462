"""The decoder against LLVM's disassembler, over random encodings of every format.

What LLVM accepts, our decoder reads with the same length, mnemonic and operands, or refuses
because it is listed here as not supported. TINYHW_FULL=1 takes 100,000 encodings of each format.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from drivers.emulated.simt.amd_bits import DPP8, DPP8_FI, DPP16, SDWA
from drivers.emulated.simt.amd_decode import decode
from drivers.emulated.simt.amd_print import short_literal, text
from drivers.emulated.simt.cdna_bits import CDNA2, CDNA3
from drivers.emulated.simt.instruction import UnknownInstruction
from drivers.emulated.simt.rdna_bits import RDNA2, RDNA3, RDNA4
from test.drivers.emulated import disassembler

pytestmark = pytest.mark.skipif(
    not disassembler.FOUND, reason=f"needs {disassembler.ASSEMBLER} and {disassembler.DISASSEMBLER}"
)
FULL = bool(os.environ.get("TINYHW_FULL"))
COUNT = 100_000 if FULL else 400
GENERATIONS = {"gfx1030": RDNA2, "gfx1100": RDNA3, "gfx1201": RDNA4, "gfx90a": CDNA2,
               "gfx942": CDNA3}

# LLVM's texts of what the decoder refuses: GDS, loads into LDS, the status of a translation.
NOT_SUPPORTED = re.compile(r" (gds|tfe|lds)$|_lds_|^s_atc_probe|^ds_(gws|bvh|ordered)|_gs_reg_")
# Not read: the null register and matrices in scalar registers, which CDNA lacks though LLVM accepts
# them; conversions with stochastic rounding.
NOT_IN_CDNA = re.compile(
    r"\bnull\b|^v_cvt_sr_|^v_s?mf\w+ \S+, ([av]\S+, )?[^av]|^v_accvgpr_read_b32 \S+, [^av]"
)
# LLVM lets a few scalar results go to registers that cannot be written.
NOT_WRITABLE = re.compile(r"^(v_cmp|v_readlane|v_readfirstlane|v_s_)\w+ (src_|-?\d|neg|0x)")
# Immediates that LLVM shows by names; ours are numbers, so LLVM assembles our text.
NAMED = re.compile(r"swizzle\(|sendmsg\(MSG|^(s_version|s_[gs]etreg)")


def opcodes(generation, name: str) -> list[int]:
    # LLVM 19 crashes on constants as sources of v_accvgpr_mov.
    tables = {format: [op for op, own in rows.items() if own != "v_accvgpr_mov_b32"]
              for format, rows in generation.opcodes.items()}
    if name == "VOP3":
        short = [*tables["VOPC"], *(256 + op for op in tables["VOP2"])]
        first = generation.first_long["VOP1"]
        return [*tables["VOP3"], *short, *(first + op for op in tables["VOP1"])]
    if name == "FLAT":
        return sorted({*tables["FLAT"], *tables["GLOBAL"], *tables["SCRATCH"]})
    return list(tables.get(name, ()))


def controls(generation, name: str) -> tuple[int, ...]:
    short = name in ("VOP1", "VOP2", "VOPC")
    if not generation.halves:
        return (DPP16, SDWA) if short else ()
    return (DPP8, DPP8_FI, DPP16) if short or name.startswith("VOP3") else ()


def reads(theirs: str) -> str:
    """LLVM's text, with what it only hints at said plainly."""
    # Registers of 16-bit operands go to v127; what lies above are their upper halves.
    theirs = re.sub(r"v(\d+)/\*[^*]*_Lo128'[^*]*\*/", lambda m: f"v{int(m[1]) - 128}.h", theirs)
    if "sdwa" not in theirs:  # a sign bit that means nothing to an integer
        theirs = re.sub(r"sext\((.*?)\)", r"\1", theirs)
    return theirs


def same(ours: str, theirs: str) -> bool:
    if re.match(r"v_(ldexp|cmpx?_class)_f16", theirs):  # integers, shown as halves
        ours = re.sub(r"0x(3[8c]|b[8c]|4[04]|c[04])00\b",
                      lambda m: short_literal(int(m[0], 16)), ours)  # fmt: skip
    if re.match(r"v_cvt_(pk_)?f32_[bf][fp]8_", theirs):  # LLVM 19 does not say these for CDNA
        for name in ("byte_sel", "dst_sel", "dst_unused"):
            if f" {name}:" not in theirs:
                ours = re.sub(rf" {name}:\w+", "", ours)
    if " op_sel:" not in theirs:  # LLVM 19 lacks it in many instructions of 16 bits
        ours = re.sub(r" op_sel:\S+", "", ours)
    if theirs.startswith(("v_ldexp_f16", "v_cndmask_b32_dpp")):  # misplaced signs
        ours, theirs = (side.replace("|", "").replace("-", "") for side in (ours, theirs))
    if theirs.startswith(("v_cmp_class_f16", "v_cmpx_class_f16")):  # cut literals
        ours, theirs = (re.sub(r"0x\w+", "literal", side) for side in (ours, theirs))
    if theirs.startswith("v_dot2_bf16_bf16"):  # all 32 bits of a literal
        theirs = re.sub(r"0x\w+", lambda m: f"{int(m[0], 16) & 0xFFFF:#x}", theirs)
        ours = re.sub(r"0x\w+", lambda m: f"{int(m[0], 16) & 0xFFFF:#x}", ours)
    if re.match(r"s_(?!cvt_hi)\w+_f16 ", theirs):  # all 32 bits of a literal
        ours, theirs = (
            re.sub(r"0x\w+", lambda m: short_literal(int(m[0], 16) & 0xFFFF), side)
            for side in (ours, theirs)
        )
    return ours == theirs


def assembled(cpu: str, lines: list[str]) -> list[bytes]:
    """Each line's bytes."""
    done = subprocess.run(
        [disassembler.ASSEMBLER, "-triple=amdgcn-amd-amdhsa", f"-mcpu={cpu}", "-show-encoding"],
        input="\n".join(lines), check=True, capture_output=True, text=True,
    )
    found = re.findall(r"encoding: \[(.*?)\]", done.stdout)
    return [bytes(int(byte, 16) for byte in item.split(",")) for item in found]


@pytest.mark.parametrize(
    ("cpu", "name"), [(cpu, name) for cpu, g in GENERATIONS.items() for name in g.layouts]
)
def test_random_encodings_read_as_llvm_reads_them(cpu, name, tmp_path):
    generation = GENERATIONS[cpu]
    wave_size = 64 if generation.gfx9 else 32
    codes = list(disassembler.random_encodings(
        generation.layouts[name], opcodes(generation, name), COUNT, cpu, controls(generation, name)
    ))
    listing = disassembler.disassemble(cpu, codes, tmp_path)
    wrong, agreed, by_number = [], 0, []
    for code, shown in zip(codes, listing, strict=True):
        if shown is None:
            continue
        theirs, size_bytes = reads(shown[0]), shown[1]
        if "/*" in theirs or theirs == "v_illegal" or NOT_WRITABLE.match(theirs):
            continue
        try:
            found = decode(code, 0, 0, wave_size, generation)
        except UnknownInstruction as error:
            not_in_cdna = generation.gfx9 and (
                NOT_IN_CDNA.search(theirs) or "GDS" in str(error)  # LLVM does not say `gds` there
            )
            if not (NOT_SUPPORTED.search(theirs) or not_in_cdna):
                wrong.append((code.hex(), theirs, str(error)))
            continue
        ours = text(found, generation, true16=False)
        agreed += 1
        if found.size_bytes != size_bytes:
            wrong.append((code.hex(), theirs, found.size_bytes))
        elif not same(ours, theirs):
            if name in ("SOPP", "SOPK") or NAMED.search(theirs):
                by_number.append((code, ours, theirs))
            else:
                wrong.append((code.hex(), theirs, ours))
    if by_number:  # what LLVM makes of our text is what we read
        for (code, ours, theirs), back in zip(
            by_number, assembled(cpu, [line for _, line, _ in by_number]), strict=True
        ):
            again = decode(back, 0, 0, wave_size, generation)
            if text(again, generation, true16=False) != ours:
                wrong.append((code.hex(), theirs, ours))
    assert not wrong
    assert agreed > COUNT / 20
