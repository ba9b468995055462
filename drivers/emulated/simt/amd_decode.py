"""AMD machine code → instructions: the scalar and vector formats.

Field positions and opcodes are the generation's (`amd_bits`). Memory formats are in
`amd_formats`. Images, exports and interpolation raise UnknownInstruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from drivers.emulated.simt import amd_formats, cdna_formats
from drivers.emulated.simt.amd_bits import (
    CONTROLS,
    DPP8,
    DPP8_FI,
    DPP16,
    EXEC,
    SDWA,
    VCC,
    Fields,
    Generation,
    Words,
)
from drivers.emulated.simt.amd_types import matrix_signature, selects, signature, sources
from drivers.emulated.simt.cdna_bits import FIRST_ACCUMULATOR
from drivers.emulated.simt.instruction import Instruction, Operand
from drivers.emulated.simt.rdna_bits import RDNA3

# Instructions of two sources and a 32-bit constant between or after them.
_MIDDLE_LITERAL = ("v_fmamk_f32", "v_fmamk_f16", "v_dual_fmamk_f32", "s_fmamk_f32",
                   "v_madmk_f32", "v_madmk_f16")
_LAST_LITERAL = ("v_fmaak_f32", "v_fmaak_f16", "v_dual_fmaak_f32", "s_fmaak_f32",
                 "v_madak_f32", "v_madak_f16")
_READ_MASK = ("v_cndmask_b32", "v_add_co_ci_u32", "v_sub_co_ci_u32", "v_subrev_co_ci_u32")
# RDNA2 has op_sel where there is no short encoding, except here.
_RDNA2_WHOLE = re.compile(r"v_((min|max)_[iu]16|mul_lo_u16|\w+rev_[bi]16)$")
_WRITE_SCALAR = ("v_readfirstlane_b32", "v_readlane_b32")


# ---- scalar ----
def _sop1(words: Words, f: Fields) -> Instruction:
    name = words.name("SOP1", f["op"])
    dst, src = signature(name, 1)
    if name.startswith("s_sendmsg_rtn"):  # the source's number is the message's
        result = (words.scalar(f["sdst"], dst[0]),)
        return Instruction(words.pc, 0, "SOP1", name, result, (), {"imm": f["ssrc0"]})
    return Instruction(
        words.pc, 0, "SOP1", name,
        tuple(words.scalar(f["sdst"], t) for t in dst),
        tuple(words.source(f["ssrc0"], t) for t in src),
    )


def _sop2(words: Words, f: Fields) -> Instruction:
    name = words.name("SOP2", f["op"])
    dst, src = signature(name, 2)
    source = [words.source(f["ssrc0"], src[0]), words.source(f["ssrc1"], src[1])]
    _insert_literal(words, name, source, src[0])
    return Instruction(
        words.pc, 0, "SOP2", name, (words.scalar(f["sdst"], dst[0]),), tuple(source)
    )


def _insert_literal(words: Words, name: str, source: list[Operand], type: str) -> None:
    """Adds the constant of fmamk and fmaak, which is no operand of the encoding."""
    if name in _MIDDLE_LITERAL:
        source.insert(1, Operand("l", words.literal(), type))
    elif name in _LAST_LITERAL:
        source.append(Operand("l", words.literal(), type))


def _sopk(words: Words, f: Fields) -> Instruction:
    name = words.name("SOPK", f["op"])
    fields = {"imm": f["simm16"]}
    if name == "s_setreg_imm32_b32":
        return Instruction(
            words.pc, 0, "SOPK", name, (), (Operand("l", words.literal(), "b32"),), fields
        )
    if name == "s_version":
        return Instruction(words.pc, 0, "SOPK", name, (), (), fields)
    register = words.scalar(f["sdst"], "b64" if name == "s_call_b64" else "b32")
    reads = name.startswith(("s_cmpk", "s_setreg", "s_waitcnt", "s_subvector"))
    dst, src = ((), (register,)) if reads else ((register,), ())
    return Instruction(words.pc, 0, "SOPK", name, dst, src, fields)


def _sopc(words: Words, f: Fields) -> Instruction:
    name = words.name("SOPC", f["op"])
    _, src = signature(name, 2)
    return Instruction(
        words.pc, 0, "SOPC", name, (),
        (words.source(f["ssrc0"], src[0]), words.source(f["ssrc1"], src[1])),
    )


def _sopp(words: Words, f: Fields) -> Instruction:
    name = words.name("SOPP", f["op"])
    return Instruction(words.pc, 0, "SOPP", name, fields={"imm": f["simm16"]})


# ---- vector ----
def _half(words: Words, operand: Operand) -> Operand:
    """In the short encodings bit 7 of a 16-bit operand's register is its half, since RDNA3."""
    if not words.generation.halves or operand.kind != "v" or operand.type[1:] != "16":
        return operand
    return operand._replace(index=operand.index & 0x7F, half=operand.index >> 7)


def _first(words: Words, encoded: int, type: str, fields: Fields, compares: bool) -> Operand:
    """The first source of VOP1, VOP2 and VOPC, which may announce DPP or SDWA."""
    if encoded in (DPP8, DPP8_FI, DPP16) or (encoded == SDWA and not words.generation.halves):
        operand = _controlled(words, encoded, type, fields, compares)
        return operand if fields.get("scalar0") else _half(words, operand)
    return _half(words, words.source(encoded, type))


def _meant(words: Words, pattern: int) -> bool:
    """Whether a DPP16 pattern exists: quad_perm, shifts and rotations of rows, mirrors, shares."""
    if words.generation.gfx9 and pattern >> 4 in (0x13, 0x14, 0x16):  # of waves, of rows
        return pattern in (0x130, 0x134, 0x138, 0x13C, 0x140, 0x141, 0x142, 0x143)
    if pattern >> 4 in (0x10, 0x11, 0x12, 0x15, 0x16):
        return pattern >> 4 >= 0x15 or bool(pattern & 15)
    return pattern < 0x100 or pattern in (0x140, 0x141)


def _controlled(
    words: Words, encoded: int, type: str, fields: Fields, compares: bool = False
) -> Operand:
    """Reads the dword of DPP or SDWA into `fields`; returns the first source."""
    kind = "DPP16" if encoded == DPP16 else "SDWA" if encoded == SDWA else "DPP8"
    control = CONTROLS["SDWAC" if kind == "SDWA" and compares else kind].read(words.take(4))
    register = control.pop("src0")
    if kind == "DPP16" and not _meant(words, control["dpp_ctrl"]):
        words.refuse(f"has the reserved DPP pattern {control['dpp_ctrl']:#x}")
    if words.generation.gfx9:
        control.pop("fi", None)
    fields |= control
    fields["control"] = encoded
    if encoded == DPP8_FI:
        fields["fi"] = 1
    operand = words.source(register, type) if fields.get("scalar0") else (
        Operand("v", register, type)
    )
    return _signed(operand, fields, 0)


def _signed(operand: Operand, fields: Fields, place: int) -> Operand:
    """With the sign modifiers of DPP and SDWA, which only numbers with a sign bit have."""
    if operand.type[0] not in "fp":
        return operand
    return operand._replace(
        negate=bool(fields.get(f"neg{place}")), absolute=bool(fields.get(f"abs{place}"))
    )


def _second(words: Words, register: int, type: str, fields: Fields) -> Operand:
    """The second source of VOP2 and VOPC, with the modifiers that DPP and SDWA give it."""
    if fields.get("scalar1"):
        operand = words.source(register, type)
    else:
        operand = _half(words, Operand("v", register, type))
    return _signed(operand, fields, 1) if "control" in fields else operand


def _vop1(words: Words, f: Fields) -> Instruction:
    name = words.name("VOP1", f["op"])
    dst, src = signature(name, 1)
    if not dst:
        return Instruction(words.pc, 0, "VOP1", name)
    fields: Fields = {}
    source = _first(words, f["src0"], src[0], fields, False)
    if name == "v_accvgpr_mov_b32":
        result = Operand("v", f["vdst"] + FIRST_ACCUMULATOR, dst[0])
        if source.kind != "v":
            words.refuse("copies what is in no accumulation register")
        source = source._replace(index=source.index + FIRST_ACCUMULATOR)
    elif name in _WRITE_SCALAR:
        result = words.scalar(f["vdst"], dst[0])
    else:
        result = _half(words, Operand("v", f["vdst"], dst[0]))
    return Instruction(words.pc, 0, "VOP1", name, (result,), (source,), fields)


def _vop2(words: Words, f: Fields) -> Instruction:
    name = words.name("VOP2", f["op"])
    dst, types = signature(name, 2)
    fields: Fields = {}
    source = [_first(words, f["src0"], types[0], fields, False)]
    source.append(_second(words, f["vsrc1"], types[1], fields))
    if fields and name in _MIDDLE_LITERAL + _LAST_LITERAL:
        words.refuse("has no form with DPP or SDWA")
    _insert_literal(words, name, source, types[0])
    results = [_half(words, Operand("v", f["vdst"], dst[0]))]
    if name in _READ_MASK:
        source.append(Operand("s", VCC, "m32"))
    if len(dst) > 1:
        results.append(Operand("s", VCC, "m32"))
    return Instruction(words.pc, 0, "VOP2", name, tuple(results), tuple(source), fields)


def _vopc(words: Words, f: Fields) -> Instruction:
    name = words.name("VOPC", f["op"])
    _, types = signature(name, 2)
    fields: Fields = {}
    if f["src0"] in (DPP8, DPP8_FI, DPP16) and not words.generation.halves:
        words.refuse(f"compares with DPP, which {words.generation.name} does not")
    source = (
        _first(words, f["src0"], types[0], fields, True),
        _second(words, f["vsrc1"], types[1], fields),
    )
    register = fields["sdst"] if fields.get("sd") else VCC
    return Instruction(
        words.pc, 0, "VOPC", name, _compared(words, name, register), source, fields
    )


def _compared(words: Words, name: str, register: int) -> tuple[Operand, ...]:
    """What a comparison writes: a mask, and EXEC or only that if it is v_cmpx."""
    exec = Operand("s", EXEC, "m32")
    if name.startswith("v_cmpx"):
        return (words.scalar(register, "m32"), exec) if words.generation.gfx9 else (exec,)
    return (words.scalar(register, "m32"),)


def _vop3_name(words: Words, opcode: int) -> tuple[str, int]:
    """The mnemonic and how many sources it has; the short encodings' opcodes return here."""
    first = words.generation.first_long
    if opcode in words.generation.opcodes["VOP3"] or opcode >= 512:
        name = words.name("VOP3", opcode)
        return name, sources(name)
    if opcode < first["VOP2"]:
        return words.name("VOPC", opcode), 2
    if opcode < first["VOP1"]:
        name = words.name("VOP2", opcode - first["VOP2"])
        return name, 3 if name in _READ_MASK else 2
    return words.name("VOP1", opcode - first["VOP1"]), 1


def _vop3(words: Words, f: Fields) -> Instruction:
    name, count = _vop3_name(words, f["op"])
    if name in _MIDDLE_LITERAL + _LAST_LITERAL:
        words.refuse("has no long encoding")
    dst, types = signature(name, count)
    carries = len(dst) == 2
    negate, absolute = f["neg"], 0 if carries else f["abs"]
    select = f["op_sel"] if selects(name, dst, types) and (
        words.generation.halves
        or (name in words.generation.long_only and not _RDNA2_WHOLE.match(name))
    ) else 0
    if name.startswith("v_permlane"):
        select &= 3
    for place, type in enumerate(types):
        if type[0] == "p":
            select &= ~(1 << place)
    fields = {"clamp": f["clamp"], "omod": f["omod"], "op_sel": select}
    if name.startswith("v_cvt_sr_"):
        fields["byte_sel"] = f["op_sel"] >> 2
    elif re.match(r"v_cvt_(pk_)?f32_(fp|bf)8$", name):  # one byte, or one half, of the source
        fields["byte_sel" if "pk" not in name else "op_sel"] = (
            f["op_sel"] & 1 if "pk" in name else (f["op_sel"] & 1) << 1 | f["op_sel"] >> 1 & 1
        )
    source = []
    for place, type in enumerate(types):
        encoded = f[f"src{place}"]
        if place == 0 and encoded in (DPP8, DPP8_FI, DPP16) and words.generation.halves:
            operand = _controlled(words, encoded, type, fields)
        else:
            operand = words.source(encoded, type)
        half = select >> place & 1 if operand.kind == "v" and type[1:] == "16" else -1
        signed = type[0] in "fp" or name == "v_cndmask_b16"
        source.append(operand._replace(
            half=half, negate=signed and bool(negate >> place & 1),
            absolute=signed and bool(absolute >> place & 1),
        ))
    return Instruction(
        words.pc, 0, "VOP3", name, _vop3_results(words, f, name, dst, select), tuple(source), fields
    )


def _vop3_results(
    words: Words, f: Fields, name: str, dst: tuple[str, ...], select: int
) -> tuple[Operand, ...]:
    if not dst:
        return ()
    if name.startswith("v_cmp"):
        return _compared(words, name, f["vdst"])
    if name in _WRITE_SCALAR or name.startswith("v_s_"):
        return (words.scalar(f["vdst"], dst[0]),)
    result = Operand("v", f["vdst"], dst[0])
    if dst[0][1:] == "16":
        result = result._replace(half=select >> 3)
    return (result, words.scalar(f["sdst"], "m32")) if len(dst) == 2 else (result,)


def _vop3p(words: Words, f: Fields) -> Instruction:
    name = words.name("VOP3P", f["op"])
    if name.startswith(cdna_formats.MATRIX):
        return cdna_formats.matrix(words, name, f)
    if name.startswith(("v_wmma", "v_swmmac")):
        dst, types = matrix_signature(words.generation.name, name)
    else:
        dst, types = signature(name, sources(name))
    fields = {
        "clamp": f["clamp"],
        "op_sel": f["op_sel"],
        "op_sel_hi": f["sel_hi"] | f["sel_hi2"] << 2,
        "neg_lo": f["neg_lo"],
        "neg_hi": f["neg_hi"],
    }
    source = []
    for place, type in enumerate(types):
        encoded = f[f"src{place}"]
        if place == 0 and encoded in (DPP8, DPP8_FI, DPP16) and words.generation.halves:
            operand = _controlled(words, encoded, type, fields)
            source.append(operand._replace(negate=False, absolute=False))
        else:
            source.append(words.source(encoded, type))
    return Instruction(
        words.pc, 0, "VOP3P", name, (Operand("v", f["vdst"], dst[0]),), tuple(source), fields
    )


def _vopd(words: Words, f: Fields) -> Instruction:
    x = _vopd_half(words, f["opx"], f["vdstx"], f["src0x"], f["vsrc1x"])
    register = f["vdsty"] << 1 | (~f["vdstx"] & 1)
    x.second = _vopd_half(words, f["opy"], register, f["src0y"], f["vsrc1y"])
    return x


def _vopd_half(words: Words, opcode: int, dst: int, src0: int, src1: int) -> Instruction:
    name = words.name("VOPD", opcode)
    _, types = signature(name.replace("dual_", ""), 2)
    source = [words.source(src0, types[0])]
    if not name.startswith("v_dual_mov"):
        source.append(Operand("v", src1, types[1]))
    _insert_literal(words, name, source, "f32")
    if name == "v_dual_cndmask_b32":
        source.append(Operand("s", VCC, "m32"))
    return Instruction(
        words.pc, 0, "VOPD", name, (Operand("v", dst, types[0]),), tuple(source)
    )


_FORMATS: dict[str, Callable[[Words, Fields], Instruction]] = {
    "SOP1": _sop1, "SOP2": _sop2, "SOPC": _sopc, "SOPK": _sopk, "SOPP": _sopp,
    "VOP1": _vop1, "VOP2": _vop2, "VOPC": _vopc, "VOP3": _vop3, "VOP3P": _vop3p, "VOPD": _vopd,
    **amd_formats.FORMATS,
}


def _registers(operand: Operand) -> bool:
    """Whether it is a scalar register that has a neighbour."""
    return operand.kind == "s" and operand.index <= EXEC + 1


def _wide_masks(instruction: Instruction) -> Instruction:
    """The same in a wave of 64 lanes: a mask of lanes is a pair of scalar registers, even first."""
    for side in ("dst", "src"):
        operands = getattr(instruction, side)
        if any(operand.type == "m32" for operand in operands):
            setattr(instruction, side, tuple(
                o._replace(type="m64", index=o.index & ~_registers(o)) if o.type == "m32" else o
                for o in operands
            ))
    return instruction


def decode(
    code: bytes, offset: int = 0, pc: int | None = None, wave_size: int = 32,
    generation: Generation = RDNA3,
) -> Instruction:
    """The instruction at `offset` in `code`; `pc` is what it is called, by default the offset.

    Raises UnknownInstruction, naming pc and bytes.
    """
    words = Words(generation, code, offset, offset if pc is None else pc)
    first = words.take(4)
    layout = generation.layout(first)
    if layout is None:
        words.refuse("has an encoding that the translator does not know")
        raise AssertionError
    words.format = layout.name
    if layout.size_bytes > 4:
        first |= words.take(layout.size_bytes - 4) << 32
    instruction = _FORMATS[layout.name](words, layout.read(first))
    instruction.size_bytes = words.size_bytes
    return instruction if wave_size == 32 else _wide_masks(instruction)
