"""AMD instructions as text, spelled as LLVM's disassembler spells them.

Not for people only: the decoder's tests compare this text with LLVM's.
"""

from __future__ import annotations

import dataclasses

from drivers.emulated.simt.amd_bits import (
    DPP8,
    DPP8_FI,
    DPP16,
    NULL,
    SDWA,
    Generation,
)
from drivers.emulated.simt.cdna_bits import CDNA3, FIRST_ACCUMULATOR
from drivers.emulated.simt.cdna_formats import MATRIX
from drivers.emulated.simt.instruction import Instruction, Operand, dwords
from drivers.emulated.simt.rdna_bits import RDNA2, RDNA3, RDNA4

_SPECIAL = {
    106: "vcc_lo", 107: "vcc_hi", 124: "null", 125: "m0", 126: "exec_lo", 127: "exec_hi",
    235: "src_shared_base", 236: "src_shared_limit", 237: "src_private_base",
    238: "src_private_limit", 239: "src_pops_exiting_wave_id", 251: "src_vccz", 252: "src_execz",
    253: "src_scc", 254: "src_lds_direct",
}
_PAIRS = {106: "vcc", 126: "exec", 124: "null"}
# GFX9's, where RDNA has plain registers.
_GFX9 = {102: "flat_scratch_lo", 103: "flat_scratch_hi", 104: "xnack_mask_lo",
         105: "xnack_mask_hi"}
_FLOATS = ("0.5", "-0.5", "1.0", "-1.0", "2.0", "-2.0", "4.0", "-4.0")
_HALVES = (0x3800, 0xB800, 0x3C00, 0xBC00, 0x4000, 0xC000, 0x4400, 0xC400, 0x3118)
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
               "v_swaprel_b32", "v_nop", "v_pipeflush", "v_clrexcp", "v_dot4c_i32_i8",
               "v_madmk_f32", "v_madak_f32", "v_madmk_f16", "v_madak_f16"}
_LONG_ON_GFX9 = {"v_pk_fmac_f16", "v_dot2acc_f32_f16", "v_dot4c_i32_i8"}
_ALONE = {"s_endpgm", "s_endpgm_saved", "s_barrier", "s_icache_inv", "s_wait_idle", "s_code_end",
          "s_wakeup", "s_ttracedata", "s_endpgm_ordered_ps_done", "s_barrier_leave"}
_SELECTS = ("BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1", "DWORD")
_UNUSED = ("UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE")


_CACHE = ("sc0", "nt", "sc1", "glc", "slc", "dlc", "scc")
_NAMED = ("", ".l", ".h")
_UPPER = ("", "", ".h")
_WHOLE = ("", "", "")


def operand(given: Operand, halves: tuple[str, str, str] = _NAMED) -> str:
    """One operand with its modifiers; `halves` stand behind a register, its low and high half."""
    text = _plain(given, halves)
    if given.absolute:
        text = f"|{text}|"
    if given.negate and given.kind in "cl" and not given.absolute:
        return f"neg({text})"
    return f"-{text}" if given.negate else text


def _plain(given: Operand, halves: tuple[str, str, str]) -> str:
    kind, index, count = given.kind, given.index, dwords(given.type)
    if kind == "l":
        return short_literal(index) if given.type == "f16" else f"{index:#x}"
    if kind == "c":
        if index <= 208:
            return str(index - 128 if index <= 192 else 192 - index)
        if given.type in ("b16", "i16", "u16"):
            return f"{_HALVES[index - 240]:#x}"
        if index == 248:
            # Doubles: one, or four as a matrix instruction adds them.
            return "0.15915494309189532" if count in (2, 8) and given.type != "p64" else (
                "0.1592" if given.type[1:] == "16" and halves is _NAMED else "0.15915494"
            )
        return _FLOATS[index - 240]
    if kind == "special":
        return _GFX9[index] if count == 1 else _GFX9[index].removesuffix("_lo")
    if kind == "s" and index >= 106:
        if count == 2 and index in _PAIRS:
            return _PAIRS[index]
        if 108 <= index <= 123:
            last = f":{index - 108 + count - 1}]" if count > 1 else ""
            return f"ttmp[{index - 108}{last}" if last else f"ttmp{index - 108}"
        return _SPECIAL[index]
    text = f"{kind}{index}" if count == 1 else f"{kind}[{index}:{index + count - 1}]"
    return text + halves[given.half + 1]


def short_literal(bits: int) -> str:
    """A literal of a half; LLVM shows what an inline constant could say as that."""
    number = bits - 0x10000 if bits >> 15 else bits
    if -16 <= number <= 64:
        return str(number)
    return _FLOATS[_HALVES.index(bits)] if bits in _HALVES[:-1] else f"{bits:#x}"


def _gfx9(given: Operand) -> Operand:
    """As GFX9 names it: accumulation registers, and registers that RDNA has for other things."""
    if given.kind == "v" and given.index >= FIRST_ACCUMULATOR:
        return given._replace(kind="a", index=given.index - FIRST_ACCUMULATOR)
    if given.kind == "s" and given.index in _GFX9:
        return given._replace(kind="special")
    return given


def _mixed(given: Operand, place: int, fields: dict[str, int]) -> str:
    """A source of v_fma_mix, where neg_lo negates and neg_hi takes the absolute value.

    LLVM shows the low half of a literal.
    """
    if given.kind == "l":
        given = given._replace(index=given.index & 0xFFFF, type="f16")
    return operand(given._replace(
        negate=bool(fields["neg_lo"] >> place & 1), absolute=bool(fields["neg_hi"] >> place & 1)
    ))


def _bits(value: int, count: int) -> str:
    return "[" + ",".join(str(value >> place & 1) for place in range(count)) + "]"


def _cache(i: Instruction, generation: Generation) -> str:
    """Cache and wait bits of a memory instruction."""
    fields = i.fields
    if "th" not in fields:
        return "".join(f" {name}" for name in _CACHE if fields.get(name))
    return _temporal(i) + ("", " scope:SCOPE_SE", " scope:SCOPE_DEV", " scope:SCOPE_SYS")[
        fields["scope"]
    ]


def _temporal(i: Instruction) -> str:
    """RDNA4's temporal hint."""
    th, scope = i.fields["th"], i.fields["scope"]
    if not th:
        return ""
    if "atomic" in i.name:
        if th & 4:
            word = f"CASCADE_{'NT' if th & 2 else 'RT'}" if scope >= 2 else f"{th:#x}"
        else:
            word = ("", "RETURN", "NT", "NT_RETURN")[th]
        return f" th:TH_ATOMIC_{word}"
    store = "_store_" in i.name
    word = ("", "NT", "HT", "RT_WB" if store else "LU", "NT_RT", "RT_NT", "NT_HT", "NT_WB")[th]
    if th == 7 and not store:
        return " th:0x7"
    if th == 3 and scope == 3:
        word = "BYPASS"
    return f" th:TH_{'STORE' if store else 'LOAD'}_{word}"


def _controls(i: Instruction, generation: Generation) -> str:
    """What DPP and SDWA say."""
    f = i.fields
    if f["control"] in (DPP8, DPP8_FI):
        lanes = ",".join(str(f["sel"] >> 3 * lane & 7) for lane in range(8))
        return f" dpp8:[{lanes}]" + (" fi:1" if f.get("fi") else "")
    if f["control"] == SDWA:
        text = ""
        if "dst_sel" in f:
            text += f" dst_sel:{_SELECTS[f['dst_sel']]} dst_unused:{_UNUSED[f['dst_unused']]}"
        for place in range(1 if i.format == "VOP1" else 2):
            text += f" src{place}_sel:{_SELECTS[f[f'src{place}_sel']]}"
        return text
    return " " + _pattern(f["dpp_ctrl"], generation) + (
        f" row_mask:{f['row_mask']:#x} bank_mask:{f['bank_mask']:#x}"
        + (" bound_ctrl:1" if f["bound_ctrl"] else "") + (" fi:1" if f.get("fi") else "")
    )


def _pattern(control: int, generation: Generation) -> str:
    if control < 0x100:
        return "quad_perm:[" + ",".join(str(control >> 2 * lane & 3) for lane in range(4)) + "]"
    kind = control >> 4
    if kind == 0x13:
        return ("wave_shl:1", "wave_rol:1", "wave_shr:1", "wave_ror:1")[control >> 2 & 3]
    if kind == 0x14:
        return ("row_mirror", "row_half_mirror", "row_bcast:15", "row_bcast:31")[control & 15]
    if kind == 0x15 and generation.gfx9:
        return f"row_newbcast:{control & 15}"
    names = {0x10: "row_shl", 0x11: "row_shr", 0x12: "row_ror", 0x15: "row_share",
             0x16: "row_xmask"}
    return f"{names[kind]}:{control & 15}"


def _modifiers(i: Instruction, generation: Generation, true16: bool) -> str:
    """What stands behind the operands."""
    fields, text = i.fields, ""
    if i.format == "DS":
        for name in ("offset", "offset0", "offset1"):
            if fields.get(name):
                text += f" {name}:{fields[name]}"
        return text
    if i.format in ("GLOBAL", "FLAT", "SCRATCH", "MUBUF"):
        for name in ("idxen", "offen"):
            text += f" {name}" if fields.get(name) else ""
        placed = fields.get("offset") and i.name not in ("global_inv", "global_wb", "global_wbinv")
        text += f" offset:{fields['offset']}" if placed else ""
        return text + _cache(i, generation)
    if i.format == "SMEM":
        return "" if "prefetch" in i.name else _cache(i, generation)
    if i.name.startswith(MATRIX):
        return _matrix(i, generation)
    if i.format == "VOP3P":
        count = len(i.src)
        every = (1 << count) - 1
        mixed = i.name.startswith("v_fma_mix")
        usual = 0 if mixed else every
        if not i.name.startswith(("v_wmma_f32", "v_wmma_i32")):
            text += f" op_sel:{_bits(fields['op_sel'], count)}" if fields["op_sel"] else ""
            if fields["op_sel_hi"] & every != usual:
                text += f" op_sel_hi:{_bits(fields['op_sel_hi'], count)}"
        if not mixed:
            for name in ("neg_lo", "neg_hi"):
                text += f" {name}:{_bits(fields[name], count)}" if fields[name] else ""
    elif fields.get("op_sel") and not true16:
        count, select = len(i.src), fields["op_sel"]
        if i.name.startswith("v_permlane"):
            count = 1
        elif i.name == "v_fmac_f16":
            count = 3  # its third source is the result
        else:
            select = select & (1 << count) - 1 | (select >> 3) << count
        text += f" op_sel:{_bits(select, count + 1)}"
    text += f" byte_sel:{fields['byte_sel']}" if fields.get("byte_sel") else ""
    text += " clamp" if fields.get("clamp") else ""
    text += ("", " mul:2", " mul:4", " div:2")[fields.get("omod", 0)]
    return text + (_controls(i, generation) if "control" in fields else "")


def _matrix(i: Instruction, generation: Generation) -> str:
    """How a matrix instruction of CDNA broadcasts and permutes its factors."""
    text = "".join(f" {name}:{i.fields[name]}" for name in ("cbsz", "abid") if i.fields.get(name))
    choice = i.fields.get("blgp")
    if not choice:
        return text
    if generation is CDNA3 and i.name.endswith("f64"):
        return text + f" neg:{_bits(choice, 3)}"
    return text + f" blgp:{choice}"


def _waits(value: int, generation: Generation) -> str:
    """s_waitcnt: its counters lie where each generation found room for them."""
    if not generation.halves:
        most = 15 if generation.gfx9 else 63
        parts = [("vmcnt", value & 15 | value >> 14 << 4, 63), ("expcnt", value >> 4 & 7, 7),
                 ("lgkmcnt", value >> 8 & most, most)]
    else:
        parts = [("vmcnt", value >> 10, 63), ("expcnt", value & 7, 7),
                 ("lgkmcnt", value >> 4 & 63, 63)]
    said = [f"{name}({count})" for name, count, most in parts if count != most]
    return " ".join(said or [f"{name}({count})" for name, count, _ in parts])


def _delay(value: int) -> str:
    if max(value & 15, value >> 7 & 15) >= len(_DELAYS) or (value >> 4 & 7) >= len(_SKIPS):
        return f"{value:#x}"
    parts = [f"instid0({_DELAYS[value & 15]})"]
    if value >> 4 & 7:
        parts.append(f"instskip({_SKIPS[value >> 4 & 7]})")
    if value >> 7 & 15:
        parts.append(f"instid1({_DELAYS[value >> 7 & 15]})")
    return " | ".join(parts)


def _program(i: Instruction, generation: Generation) -> str:
    """The immediate of a SOPP."""
    value = i.fields["imm"]
    if "branch" in i.name:
        return f" {value}"
    if i.name == "s_waitcnt" and generation is not RDNA4:
        return " " + _waits(value, generation)
    if i.name == "s_delay_alu":
        return " " + _delay(value)
    if not value and generation.spelling[i.name] in _ALONE:
        return ""
    if i.name == "s_waitcnt_depctr":
        counts = ((name, value >> first & most, most) for name, first, most in _COUNTERS)
        return "".join(f" depctr_{name}({count})" for name, count, most in counts if count != most)
    if i.name == "s_sendmsg":
        return " sendmsg(MSG_DEALLOC_VGPRS)" if value == 3 and generation.halves else (
            f" {value}"
        )
    decimal = ("s_endpgm", "s_nop", "s_sleep", "s_setprio", "s_denorm_mode", "s_sethalt", "s_trap")
    return f" {value}" if i.name in decimal else f" {value:#x}"


def _memory_operands(i: Instruction, generation: Generation, true16: bool) -> list[str]:
    if i.format == "SMEM":
        if not i.src:
            return [operand(o) for o in i.dst]
        *bases, offset = i.src
        shown = f"{i.fields['offset']:#x}" if i.fields["offset"] >= 0 else (
            f"-{-i.fields['offset']:#x}"
        )
        if offset.index != NULL:
            register = operand(offset)
            if i.fields["offset"] or generation is RDNA4 or i.fields.get("imm"):
                shown = f"{register} offset:{shown}"
            else:
                shown = register
        elif not i.fields["offset"] and generation in (RDNA2, RDNA3) and not true16:
            shown = "null"
        if "prefetch" in i.name:
            distance = f"{i.fields['offset']:#x}"
            return [*map(operand, bases), distance, operand(offset), str(i.fields["imm"])]
        return [*map(operand, i.dst), *map(operand, bases), shown]
    if not i.src:
        return []
    if i.format == "MUBUF":
        address, resource, offset, *data = i.src
        where = operand(address) if i.fields["offen"] or i.fields["idxen"] else "off"
        moved = [operand(o) for o in data or i.dst]
        return [*moved, where, operand(resource), operand(offset)]
    if "addtid" in i.name:
        scalar = "off" if i.src[0].index == NULL else operand(i.src[0])
        return [*(operand(o) for o in (*i.dst, *i.src[1:])), scalar]
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


def _mnemonic(i: Instruction, generation: Generation) -> str:
    name: str = generation.spelling[i.name]
    control = {DPP8: "_dpp", DPP8_FI: "_dpp", DPP16: "_dpp", SDWA: "_sdwa"}.get(
        i.fields.get("control", 0), ""
    )
    if i.format in ("VOP1", "VOP2", "VOPC"):
        if i.format == "VOPC" and control == "_dpp":
            control = " "  # LLVM's text for VOPC lacks the word
        short_only = _SHORT_ONLY - _LONG_ON_GFX9 if generation.gfx9 else _SHORT_ONLY
        return name + (control.strip() or ("" if control or i.name in short_only else "_e32"))
    if i.format == "VOP3":
        short = not generation.halves and i.name in ("v_pipeflush", "v_clrexcp")
        long = not short and i.name not in generation.opcodes["VOP3"].values()
        return name + ("_e64" if long or control else "") + control
    return name + ("_e64" if control else "") + control


def text(i: Instruction, generation: Generation = RDNA3, true16: bool = True) -> str:
    """The instruction as a line of assembly; branches show their distance in dwords."""
    name = _mnemonic(i, generation)
    true16 = true16 or i.name == "v_mov_b16"
    if generation.gfx9:
        dst, src = (tuple(map(_gfx9, operands)) for operands in (i.dst, i.src))
        i = dataclasses.replace(i, dst=dst, src=src)
    if i.format == "SOPP":
        return name + _program(i, generation)
    if i.format in ("SMEM", "GLOBAL", "FLAT", "SCRATCH", "MUBUF"):
        operands = _memory_operands(i, generation, true16)
    else:
        destinations = list(i.dst)
        if i.name.startswith("v_cmpx"):
            destinations.pop()  # exec goes without saying
        halves = _NAMED if true16 else _WHOLE if i.format == "VOP3" else _UPPER
        operands = [operand(o, halves) for o in (*destinations, *i.src)]
        if i.format == "SOPC":  # constants of 16 bits are shown by their bits
            operands = [operand(o._replace(type=o.type.replace("f16", "b16")))
                        for o in (*destinations, *i.src)]
        for place in range(min(2, len(i.src))):
            if i.fields.get(f"sext{place}") and i.src[place].type[0] != "f":
                operands[len(destinations) + place] = f"sext({operand(i.src[place])})"
        if i.name.startswith("v_fma_mix"):
            operands = [operands[0], *map(_mixed, i.src, range(3), [i.fields] * 3)]
        if i.format == "VOPD" and i.name.endswith("cndmask_b32"):
            operands.pop()  # vcc_lo goes without saying
    if i.format == "SOPK":
        place = 0 if i.name.startswith("s_setreg") else len(operands)
        operands.insert(place, f"{i.fields['imm']:#x}")
    elif i.name.startswith("s_sendmsg_rtn"):
        operands.append(f"sendmsg({i.fields['imm']}, 0, 0)")
    line = name + (" " if operands else "") + ", ".join(operands) + _modifiers(
        i, generation, true16
    )
    return line if i.second is None else f"{line} :: {text(i.second, generation, true16)}"
