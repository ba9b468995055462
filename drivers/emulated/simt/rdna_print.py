"""RDNA3 instructions as text, spelled as LLVM's assembler spells them."""

from __future__ import annotations

from drivers.emulated.simt.instruction import Instruction, Operand, dwords
from drivers.emulated.simt.rdna_decode import NULL

_SPECIAL = {
    106: "vcc_lo", 107: "vcc_hi", 124: "null", 125: "m0", 126: "exec_lo", 127: "exec_hi",
    235: "src_shared_base", 236: "src_shared_limit", 237: "src_private_base",
    238: "src_private_limit", 251: "src_vccz", 252: "src_execz", 253: "src_scc",
}
_PAIRS = {106: "vcc", 126: "exec", 124: "null"}
_FLOATS = ("0.5", "-0.5", "1.0", "-1.0", "2.0", "-2.0", "4.0", "-4.0")
_DELAYS = (
    "NO_DEP", "VALU_DEP_1", "VALU_DEP_2", "VALU_DEP_3", "VALU_DEP_4", "TRANS32_DEP_1",
    "TRANS32_DEP_2", "TRANS32_DEP_3", "FMA_ACCUM_CYCLE_1", "SALU_CYCLE_1", "SALU_CYCLE_2",
    "SALU_CYCLE_3",
)
_SKIPS = ("SAME", "NEXT", "SKIP_1", "SKIP_2", "SKIP_3", "SKIP_4")
# s_waitcnt_depctr: name, first bit, value that waits for nothing.
_COUNTERS = (("hold_cnt", 7, 1), ("sa_sdst", 0, 1), ("va_vdst", 12, 15), ("va_sdst", 9, 7),
             ("va_ssrc", 8, 1), ("va_vcc", 1, 1), ("vm_vsrc", 2, 7))
# VOP3 instructions that also have a short encoding say which they are; these have none.
_SHORT_ONLY = {"v_fmamk_f32", "v_fmaak_f32", "v_fmamk_f16", "v_fmaak_f16", "v_swap_b32",
               "v_readfirstlane_b32", "v_pk_fmac_f16", "v_dot2acc_f32_f16", "v_permlane64_b32",
               "v_movrelsd_2_b32", "v_swaprel_b32", "v_nop"}


def operand(given: Operand) -> str:
    """One operand with its modifiers."""
    text = _plain(given)
    if given.absolute:
        text = f"|{text}|"
    return f"-{text}" if given.negate else text


def _plain(given: Operand) -> str:
    kind, index, count = given.kind, given.index, dwords(given.type)
    if kind == "l":
        return f"{index:#x}"
    if kind == "c":
        if index <= 208:
            return str(index - 128 if index <= 192 else 192 - index)
        if index == 248:
            return "0.15915494309189532" if given.type == "f64" else (
                "0.1592" if given.type[1:] == "16" else "0.15915494"
            )
        return _FLOATS[index - 240]
    if kind == "s" and index >= 106:
        if count == 2 and index in _PAIRS:
            return _PAIRS[index]
        if 108 <= index <= 123:
            last = f":{index - 108 + count - 1}]" if count > 1 else ""
            return f"ttmp[{index - 108}{last}" if last else f"ttmp{index - 108}"
        return _SPECIAL[index]
    text = f"{kind}{index}" if count == 1 else f"{kind}[{index}:{index + count - 1}]"
    return text + ("", ".l", ".h")[given.half + 1]


def _mixed(given: Operand, place: int, fields: dict[str, int]) -> str:
    """A source of v_fma_mix, where neg_lo negates and neg_hi takes the absolute value."""
    return operand(given._replace(
        negate=bool(fields["neg_lo"] >> place & 1), absolute=bool(fields["neg_hi"] >> place & 1)
    ))


def _bits(value: int, count: int) -> str:
    return "[" + ",".join(str(value >> place & 1) for place in range(count)) + "]"


def _modifiers(i: Instruction) -> str:
    """What stands behind the operands."""
    fields, text = i.fields, ""
    if i.format == "DS":
        for name in ("offset", "offset0", "offset1"):
            if fields.get(name):
                text += f" {name}:{fields[name]}"
    elif i.format in ("GLOBAL", "FLAT", "SCRATCH"):
        text += f" offset:{fields['offset']}" if fields["offset"] else ""
        text += "".join(f" {name}" for name in ("glc", "slc", "dlc") if fields[name])
    elif i.format == "SMEM":
        text += "".join(f" {name}" for name in ("glc", "dlc") if fields.get(name))
    elif i.format == "VOP3P":
        count = len(i.src)
        every = (1 << count) - 1
        mixed = i.name.startswith("v_fma_mix")
        usual = 0 if mixed else every
        text += f" op_sel:{_bits(fields['op_sel'], count)}" if fields["op_sel"] else ""
        if fields["op_sel_hi"] & every != usual:
            text += f" op_sel_hi:{_bits(fields['op_sel_hi'], count)}"
        if not mixed:
            for name in ("neg_lo", "neg_hi"):
                text += f" {name}:{_bits(fields[name], count)}" if fields[name] else ""
    text += " clamp" if fields.get("clamp") else ""
    return text + ("", " mul:2", " mul:4", " div:2")[fields.get("omod", 0)]


def _waits(value: int) -> str:
    """s_waitcnt: gfx11 has expcnt in bits 2–0, lgkmcnt in 9–4, vmcnt in 15–10."""
    parts = [("vmcnt", value >> 10, 63), ("expcnt", value & 7, 7),
             ("lgkmcnt", value >> 4 & 63, 63)]
    said = [f"{name}({count})" for name, count, most in parts if count != most]
    return " ".join(said or [f"{name}({count})" for name, count, _ in parts])


def _delay(value: int) -> str:
    parts = [f"instid0({_DELAYS[value & 15]})"]
    if value >> 4 & 7:
        parts.append(f"instskip({_SKIPS[value >> 4 & 7]})")
    if value >> 7 & 15:
        parts.append(f"instid1({_DELAYS[value >> 7 & 15]})")
    return " | ".join(parts)


def _program(i: Instruction) -> str:
    """The immediate of a SOPP."""
    value = i.fields["imm"]
    if "branch" in i.name:
        return f" {value}"
    if i.name == "s_waitcnt":
        return " " + _waits(value)
    if i.name == "s_delay_alu":
        return " " + _delay(value)
    if i.name in ("s_endpgm", "s_barrier", "s_icache_inv", "s_wait_idle", "s_code_end"):
        return f" {value}" if value else ""
    if i.name == "s_waitcnt_depctr":
        counts = ((name, value >> first & most, most) for name, first, most in _COUNTERS)
        return "".join(f" depctr_{name}({count})" for name, count, most in counts if count != most)
    if i.name == "s_sendmsg":
        return " sendmsg(MSG_DEALLOC_VGPRS)" if value == 3 else f" sendmsg({value})"
    decimal = ("s_nop", "s_sleep", "s_setprio", "s_denorm_mode", "s_sethalt", "s_trap")
    return f" {value}" if i.name in decimal else f" {value:#x}"


def _memory_operands(i: Instruction) -> list[str]:
    if i.format == "SMEM":
        if not i.src:
            return []
        base, offset = i.src
        shown = f"{i.fields['offset']:#x}" if i.fields["offset"] >= 0 else (
            f"-{-i.fields['offset']:#x}"
        )
        if offset.index != NULL:
            register = operand(offset)
            shown = f"{register} offset:{shown}" if i.fields["offset"] else register
        return [operand(i.dst[0]), operand(base), shown]
    address, scalar_base, *data = i.src
    where = operand(address)
    scalar = "off" if scalar_base.index == NULL else operand(scalar_base)
    if i.format == "SCRATCH" and not i.fields["sve"]:
        where = "off"
    places = [where, scalar] if i.format != "FLAT" else [where]
    results = [operand(o) for o in i.dst]
    if i.format == "FLAT":
        return [*results, *places, *map(operand, data)]
    return [*results, places[0], *map(operand, data), places[1]]


def text(i: Instruction) -> str:
    """The instruction as a line of assembly; branches show their distance in dwords."""
    name = i.name
    if i.format == "SOPP":
        return name + _program(i)
    if i.format in ("VOP1", "VOP2", "VOPC") and name not in _SHORT_ONLY:
        name += "_e32"
    elif i.format == "VOP3" and _has_short(i):
        name += "_e64"
    if i.format in ("SMEM", "GLOBAL", "FLAT", "SCRATCH"):
        operands = _memory_operands(i)
    else:
        destinations = list(i.dst)
        if i.name.startswith("v_cmpx"):
            destinations = []
        operands = [operand(o) for o in (*destinations, *i.src)]
        if i.name.startswith("v_fma_mix"):
            operands = [operands[0], *map(_mixed, i.src, range(3), [i.fields] * 3)]
        if i.format == "VOPD" and i.name.endswith("cndmask_b32"):
            operands.pop()  # vcc_lo goes without saying
    if i.format == "SOPK":
        operands.append(f"{i.fields['imm']:#x}")
    line = name + (" " if operands else "") + ", ".join(operands) + _modifiers(i)
    return line if i.second is None else f"{line} :: {text(i.second)}"


def _has_short(i: Instruction) -> bool:
    from drivers.emulated.simt import rdna3_opcodes as opcodes

    return i.name not in opcodes.VOP3.values()
