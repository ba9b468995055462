"""RDNA3 machine code (gfx11) → instructions.

Field positions are those of AMD's "RDNA3 Instruction Set Architecture", chapter 15. What our
compilers never make (images, exports, buffer resources, DPP) raises UnknownInstruction.
"""

from __future__ import annotations

from collections.abc import Callable

from drivers.emulated.simt import rdna3_opcodes as opcodes
from drivers.emulated.simt.amd_types import signature
from drivers.emulated.simt.instruction import Instruction, Operand, UnknownInstruction

VCC, NULL, M0, EXEC, SCC = 106, 124, 125, 126, 253
LITERAL = 255
_DPP8, _DPP8_FI, _DPP16 = 233, 234, 250
_FIRST_VGPR = 256

# Instructions of two sources and a 32-bit constant between or after them.
_MIDDLE_LITERAL = ("v_fmamk_f32", "v_fmamk_f16", "v_dual_fmamk_f32")
_LAST_LITERAL = ("v_fmaak_f32", "v_fmaak_f16", "v_dual_fmaak_f32")
_READ_MASK = ("v_cndmask_b32", "v_add_co_ci_u32", "v_sub_co_ci_u32", "v_subrev_co_ci_u32")


class _Bits:
    """The words of one instruction, and the literal that may follow them."""

    def __init__(self, code: bytes, offset: int, pc: int) -> None:
        self.code, self.offset, self.pc = code, offset, pc
        self.size_bytes = 4
        self.low = self._dword(0)
        self.high = 0
        self._literal: int | None = None

    def _dword(self, at: int) -> int:
        start = self.offset + at
        if start + 4 > len(self.code):
            self.refuse("is cut off by the end of the code")
        return int.from_bytes(self.code[start : start + 4], "little")

    def take_high(self) -> None:
        """Reads the second word of a 64-bit encoding."""
        self.high = self._dword(4)
        self.size_bytes = 8

    def literal(self) -> int:
        """The literal after the encoding; all operands of an instruction share one."""
        if self._literal is None:
            self._literal = self._dword(self.size_bytes)
            self.size_bytes += 4
        return self._literal

    def refuse(self, why: str) -> None:
        """Raises: names the place, the bytes and what is wrong with them."""
        data = self.code[self.offset : self.offset + 8].hex(" ", 4)
        raise UnknownInstruction(
            f"The instruction at pc {self.pc:#x} (bytes {data}) {why}.", operation="decode"
        )

    def __getitem__(self, bits: tuple[int, int]) -> int:
        """Field (high, low) of the 64 bits, as manuals write it."""
        last, first = bits
        return ((self.high << 32 | self.low) >> first) & ((1 << (last - first + 1)) - 1)

    def name(self, table: dict[int, str], opcode: int, format: str) -> str:
        """The mnemonic of an opcode."""
        found = table.get(opcode)
        if found is None:
            self.refuse(f"has opcode {opcode}, which {format} does not have")
            raise AssertionError
        return found

    def source(self, encoded: int, type: str) -> Operand:
        """A 9-bit source: scalar register, constant, literal or vector register."""
        if encoded >= _FIRST_VGPR:
            return Operand("v", encoded - _FIRST_VGPR, type)
        if encoded == LITERAL:
            return Operand("l", self.literal(), type)
        if encoded <= 127 or 235 <= encoded <= 238 or encoded in (251, 252, 253):
            return Operand("s", encoded, type)
        if 128 <= encoded <= 208 or 240 <= encoded <= 248:
            return Operand("c", encoded, type)
        if encoded in (_DPP8, _DPP8_FI, _DPP16):
            self.refuse("uses DPP, which the translator does not do yet")
        self.refuse(f"has the reserved source {encoded}")
        raise AssertionError


def _halves(operand: Operand) -> Operand:
    """In the short encodings bit 7 of a 16-bit operand's register is its half."""
    if operand.kind == "v" and operand.type[1:] == "16":
        return operand._replace(index=operand.index & 0x7F, half=operand.index >> 7)
    return operand


# ---- scalar ----
def _sop1(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.SOP1, bits[15, 8], "SOP1")
    dst, src = signature(name, 1)
    return Instruction(
        bits.pc, 0, "SOP1", name,
        tuple(Operand("s", bits[22, 16], t) for t in dst),
        tuple(bits.source(bits[7, 0], t) for t in src),
    )


def _sop2(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.SOP2, bits[29, 23], "SOP2")
    dst, src = signature(name, 2)
    return Instruction(
        bits.pc, 0, "SOP2", name,
        (Operand("s", bits[22, 16], dst[0]),),
        (bits.source(bits[7, 0], src[0]), bits.source(bits[15, 8], src[1])),
    )


def _sopk(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.SOPK, bits[27, 23], "SOPK")
    register = Operand("s", bits[22, 16], "b64" if name == "s_call_b64" else "b32")
    fields = {"imm": bits[15, 0]}
    if name == "s_setreg_imm32_b32":
        return Instruction(
            bits.pc, 0, "SOPK", name, (), (Operand("l", bits.literal(), "b32"),), fields
        )
    reads = name.startswith(("s_cmpk", "s_setreg", "s_waitcnt"))
    if name == "s_version":
        return Instruction(bits.pc, 0, "SOPK", name, (), (), fields)
    dst, src = ((), (register,)) if reads else ((register,), ())
    return Instruction(bits.pc, 0, "SOPK", name, dst, src, fields)


def _sopc(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.SOPC, bits[22, 16], "SOPC")
    _, src = signature(name, 2)
    return Instruction(
        bits.pc, 0, "SOPC", name, (),
        (bits.source(bits[7, 0], src[0]), bits.source(bits[15, 8], src[1])),
    )


def _sopp(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.SOPP, bits[22, 16], "SOPP")
    return Instruction(bits.pc, 0, "SOPP", name, fields={"imm": bits[15, 0]})


def _smem(bits: _Bits) -> Instruction:
    bits.take_high()
    name = bits.name(opcodes.SMEM, bits[25, 18], "SMEM")
    offset = bits[52, 32]
    fields = {
        "offset": offset - (1 << 21) if offset >> 20 else offset,
        "glc": bits[14, 14], "dlc": bits[13, 13],
    }
    if name.endswith("_inv"):
        return Instruction(bits.pc, 0, "SMEM", name)
    base = Operand("s", bits[5, 0] * 2, "b128" if "buffer" in name else "b64")
    return Instruction(
        bits.pc, 0, "SMEM", name,
        (Operand("s", bits[12, 6], name.rsplit("_", 1)[1]),),
        (base, Operand("s", bits[63, 57], "b32")),
        fields,
    )


# ---- vector ----
def _vop1(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.VOP1, bits[16, 9], "VOP1")
    dst, src = signature(name, 1)
    if not dst:
        return Instruction(bits.pc, 0, "VOP1", name)
    kind = "s" if name == "v_readfirstlane_b32" else "v"
    return Instruction(
        bits.pc, 0, "VOP1", name,
        (_halves(Operand(kind, bits[24, 17], dst[0])),),
        (_halves(bits.source(bits[8, 0], src[0])),),
    )


def _vop2(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.VOP2, bits[30, 25], "VOP2")
    dst, types = signature(name, 2)
    second = Operand("v", bits[16, 9], types[1])
    source = [_halves(bits.source(bits[8, 0], types[0])), _halves(second)]
    if name in _MIDDLE_LITERAL:
        source.insert(1, Operand("l", bits.literal(), types[0]))
    if name in _LAST_LITERAL:
        source.append(Operand("l", bits.literal(), types[0]))
    results = [_halves(Operand("v", bits[24, 17], dst[0]))]
    if name in _READ_MASK:
        source.append(Operand("s", VCC, "m32"))
        if name != "v_cndmask_b32":
            results.append(Operand("s", VCC, "m32"))
    return Instruction(bits.pc, 0, "VOP2", name, tuple(results), tuple(source))


def _vopc(bits: _Bits) -> Instruction:
    name = bits.name(opcodes.VOPC, bits[24, 17], "VOPC")
    _, types = signature(name, 2)
    return Instruction(
        bits.pc, 0, "VOPC", name,
        (Operand("s", EXEC if name.startswith("v_cmpx") else VCC, "m32"),),
        (
            _halves(bits.source(bits[8, 0], types[0])),
            _halves(Operand("v", bits[16, 9], types[1])),
        ),
    )


def _vop3_name(bits: _Bits) -> tuple[str, int]:
    """The mnemonic and how many sources it has."""
    opcode = bits[25, 16]
    if opcode < 256:
        return bits.name(opcodes.VOPC, opcode, "VOP3"), 2
    if opcode < 384:
        name = bits.name(opcodes.VOP2, opcode - 256, "VOP3")
        return name, 3 if name in _READ_MASK else 2
    if opcode < 512:
        return bits.name(opcodes.VOP1, opcode - 384, "VOP3"), 1
    return bits.name(opcodes.VOP3, opcode, "VOP3"), 3 if opcode < 768 else 2


def _vop3(bits: _Bits) -> Instruction:
    bits.take_high()
    name, count = _vop3_name(bits)
    dst, types = signature(name, count)
    carries = len(dst) == 2
    negate, absolute = bits[63, 61], 0 if carries else bits[10, 8]
    select = 0 if carries else bits[14, 11]
    source = []
    for place, type in enumerate(types):
        operand = bits.source(bits[40 + 9 * place, 32 + 9 * place], type)
        half = select >> place & 1 if operand.kind == "v" and type[1:] == "16" else -1
        source.append(
            operand._replace(
                half=half,
                negate=bool(negate >> place & 1),
                absolute=bool(absolute >> place & 1),
            )
        )
    results = [Operand("v", bits[7, 0], dst[0])]
    if dst[0][1:] == "16":
        results[0] = results[0]._replace(half=select >> 3)
    if carries:
        results.append(Operand("s", bits[14, 8], "m32"))
    if name.startswith("v_cmp"):
        results = [Operand("s", EXEC if name.startswith("v_cmpx") else bits[7, 0], "m32")]
    elif name in ("v_readfirstlane_b32", "v_readlane_b32"):
        results = [Operand("s", bits[7, 0], "b32")]
    fields = {"clamp": bits[15, 15], "omod": bits[60, 59], "op_sel": select}
    return Instruction(bits.pc, 0, "VOP3", name, tuple(results), tuple(source), fields)


def _vop3p(bits: _Bits) -> Instruction:
    bits.take_high()
    opcode = bits[22, 16]
    name = bits.name(opcodes.VOP3P, opcode, "VOP3P")
    three = opcode in (0, 9, 14) or opcode >= 19
    dst, types = signature(name, 3 if three else 2)
    source = tuple(
        bits.source(bits[40 + 9 * place, 32 + 9 * place], type)
        for place, type in enumerate(types)
    )
    fields = {
        "clamp": bits[15, 15],
        "op_sel": bits[13, 11],
        "op_sel_hi": bits[60, 59] | bits[14, 14] << 2,
        "neg_lo": bits[63, 61],
        "neg_hi": bits[10, 8],
    }
    return Instruction(
        bits.pc, 0, "VOP3P", name, (Operand("v", bits[7, 0], dst[0]),), source, fields
    )


def _vopd(bits: _Bits) -> Instruction:
    bits.take_high()
    x = _vopd_half(bits, bits[25, 22], bits[63, 56], bits[8, 0], bits[16, 9])
    register = bits[55, 49] << 1 | (~bits[56, 56] & 1)
    x.second = _vopd_half(bits, bits[21, 17], register, bits[40, 32], bits[48, 41])
    return x


def _vopd_half(bits: _Bits, opcode: int, dst: int, src0: int, src1: int) -> Instruction:
    name = bits.name(opcodes.VOPD, opcode, "VOPD")
    if name == "v_dual_dot2acc_f32_f16":
        types: tuple[str, ...] = ("p32", "p32")
    else:
        _, types = signature(name.replace("dual_", ""), 2)
    source = [bits.source(src0, types[0])]
    if not name.startswith("v_dual_mov"):
        source.append(Operand("v", src1, types[1]))
    if name in _MIDDLE_LITERAL:
        source.insert(1, Operand("l", bits.literal(), "f32"))
    if name in _LAST_LITERAL:
        source.append(Operand("l", bits.literal(), "f32"))
    if name == "v_dual_cndmask_b32":
        source.append(Operand("s", VCC, "m32"))
    return Instruction(
        bits.pc, 0, "VOPD", name, (Operand("v", dst, types[0]),), tuple(source)
    )


# ---- memory ----
def _data_type(name: str) -> str:
    """The type of the data that a memory instruction moves, as registers hold it."""
    word = next(w for w in reversed(name.split("_")) if w[1:].isdigit() and w[0] in "bfiu")
    if word[0] == "d" or word == "b16" or word[1:] in ("8", "16"):
        return "b32"
    return word


def _twice(type: str) -> str:
    return f"b{2 * int(type[1:])}"


def _ds(bits: _Bits) -> Instruction:
    bits.take_high()
    if bits[17, 17]:
        bits.refuse("uses GDS, which compute kernels do not have")
    name = bits.name(opcodes.DS, bits[25, 18], "DS")
    if name == "ds_nop":
        return Instruction(bits.pc, 0, "DS", name)
    fields = {"offset0": bits[39 - 32, 0], "offset1": bits[15, 8]}
    if "2addr" not in name:
        fields = {"offset": bits[15, 0]}
    type = _data_type(name)
    address = Operand("v", bits[39, 32], "b32")
    data = Operand("v", bits[47, 40], type)
    other = Operand("v", bits[55, 48], type)
    result = Operand("v", bits[63, 56], type)
    both = result._replace(type=_twice(type))
    if name in ("ds_consume", "ds_append") or name.startswith("ds_load_addtid"):
        return Instruction(bits.pc, 0, "DS", name, (result,), (), fields)
    if name.startswith("ds_store_addtid"):
        return Instruction(bits.pc, 0, "DS", name, (), (data,), fields)
    if name.startswith("ds_load_2addr"):
        return Instruction(bits.pc, 0, "DS", name, (both,), (address,), fields)
    if name.startswith(("ds_load", "ds_swizzle")):
        return Instruction(bits.pc, 0, "DS", name, (result,), (address,), fields)
    returns = "_rtn_" in name or name in ("ds_permute_b32", "ds_bpermute_b32")
    two = any(part in name for part in ("2addr", "cmpstore", "mskor", "wrap"))
    source = (address, data, other) if two else (address, data)
    dst = (both if "2addr" in name else result,) if returns else ()
    return Instruction(bits.pc, 0, "DS", name, dst, source, fields)


def _flat(bits: _Bits) -> Instruction:
    bits.take_high()
    segment = bits[17, 16]
    if segment > 2:
        bits.refuse("names segment 3")
    format = ("FLAT", "SCRATCH", "GLOBAL")[segment]
    table = (opcodes.FLAT, opcodes.SCRATCH, opcodes.GLOBAL)[segment]
    name = bits.name(table, bits[24, 18], format)
    offset = bits[12, 0]
    glc = bits[14, 14]
    fields = {
        "offset": offset - (1 << 13) if offset >> 12 else offset,
        "glc": glc, "slc": bits[15, 15], "dlc": bits[13, 13], "sve": bits[55, 55],
    }
    type = _data_type(name)
    scalar = Operand("s", bits[54, 48], "b32" if segment == 1 else "b64")
    wide = segment == 0 or (segment == 2 and scalar.index == NULL)
    address = Operand("v", bits[39, 32], "b64" if wide else "b32")
    result = Operand("v", bits[63, 56], type)
    data = Operand("v", bits[47, 40], _twice(type) if "cmpswap" in name else type)
    source: tuple[Operand, ...] = (address, scalar)
    if "_load_" not in name:
        source += (data,)
    returns = "_load_" in name or ("atomic" in name and glc)
    return Instruction(bits.pc, 0, format, name, (result,) if returns else (), source, fields)


def _mubuf(bits: _Bits) -> Instruction:
    """Of the buffer instructions only the two that invalidate caches."""
    bits.take_high()
    name = opcodes.MUBUF.get(bits[25, 18])
    if name is None:
        bits.refuse("accesses memory through a buffer resource, which is not translated yet")
        raise AssertionError
    return Instruction(bits.pc, 0, "MUBUF", name)


# (mask, value, decoder) of the first word; the first that fits is it.
_ENCODINGS: tuple[tuple[int, int, Callable[[_Bits], Instruction]], ...] = (
    (0xFF800000, 0xBE800000, _sop1),
    (0xFF800000, 0xBF000000, _sopc),
    (0xFF800000, 0xBF800000, _sopp),
    (0xF0000000, 0xB0000000, _sopk),
    (0xC0000000, 0x80000000, _sop2),
    (0xFE000000, 0x7E000000, _vop1),
    (0xFE000000, 0x7C000000, _vopc),
    (0x80000000, 0x00000000, _vop2),
    (0xFC000000, 0xD4000000, _vop3),
    (0xFF000000, 0xCC000000, _vop3p),
    (0xFC000000, 0xC8000000, _vopd),
    (0xFC000000, 0xF4000000, _smem),
    (0xFC000000, 0xD8000000, _ds),
    (0xFC000000, 0xDC000000, _flat),
    (0xFC000000, 0xE0000000, _mubuf),
)


def _wide_masks(instruction: Instruction) -> Instruction:
    """The same in a wave of 64 lanes: a mask of lanes is a pair of scalar registers."""
    for side in ("dst", "src"):
        operands = getattr(instruction, side)
        if any(operand.type == "m32" for operand in operands):
            setattr(instruction, side, tuple(
                o._replace(type="m64") if o.type == "m32" else o for o in operands
            ))
    return instruction


def decode(
    code: bytes, offset: int = 0, pc: int | None = None, wave_size: int = 32
) -> Instruction:
    """The instruction at `offset` in `code`; `pc` is what it is called, by default the offset.

    Raises UnknownInstruction, naming pc and bytes.
    """
    bits = _Bits(code, offset, offset if pc is None else pc)
    for mask, value, decoder in _ENCODINGS:
        if bits.low & mask == value:
            instruction = decoder(bits)
            instruction.size_bytes = bits.size_bytes
            return instruction if wave_size == 32 else _wide_masks(instruction)
    bits.refuse("has an encoding that the translator does not know")
    raise AssertionError
