"""Instructions of NVIDIA's machine code as nvdisasm prints them, which judges the decoder."""

from __future__ import annotations

import struct
from collections.abc import Callable

from drivers.emulated.simt.sass_decode import PT, RZ, URZ, Instruction, Operand
from drivers.emulated.simt.sass_opcodes import SPECIAL_REGISTERS

_NUMBERED = {"R": (RZ, "RZ"), "UR": (URZ, "URZ"), "P": (PT, "PT"), "UP": (PT, "UPT")}
_HALVES = {0: "", 1: ".F32", 2: ".H0_H0", 3: ".H1_H1", 4: ""}
_SIGNED = {"IMAD", "UIMAD", "ISETP", "UISETP", "IADD3", "UIADD3", "IMNMX", "VIMNMX"}
"""Operations that print an immediate as a signed number."""


def _float(bits: int, kind: str) -> str:
    """A float immediate: `kind` says of how many bits."""
    form, mask, quiet = {
        "F": (">f", 0x7F800000, 0x400000), "D": (">d", 0x7FF0000000000000, 1 << 51),
        "H": (">e", 0x7C00, 0x200),
    }[kind]
    if kind == "D":
        bits <<= 32
    sign = bits >> {"F": 31, "D": 63, "H": 15}[kind]
    if bits & mask == mask:
        if not bits & mask - 1 & ~mask & (1 << {"F": 23, "D": 52, "H": 10}[kind]) - 1:
            return "-INF" if sign else "+INF"
        return ("-" if sign else "+") + ("QNAN" if bits & quiet else "SNAN")
    (number,) = struct.unpack(form, bits.to_bytes(struct.calcsize(form), "big"))
    if number == 0:
        return "-0.0" if sign else "0"
    text = f"{number:.20g}"
    return text if "e-" in text or abs(number) < 1e9 else f"{number:.20e}"


def _hexadecimal(value: int) -> str:
    return f"-{-value:#x}" if value < 0 else f"{value:#x}"


def _register(kind: str, number: int) -> str:
    special, name = _NUMBERED[kind]
    return name if number == special else f"{kind}{number}"


def _address(i: Instruction, o: Operand, token: str) -> str:
    parts, described = [], ""
    joined = i.row.code & 0x800 and i.word >> 91 & 1 and token in ("m", "n", "s", "t", "g")
    size = f".X{o.scale}" if o.scale > 1 else ""
    if joined and token in ("m", "n", "g"):
        size = ".64" if o.wide else ".U32"
    if o.number != RZ or (joined and (o.scale > 1 or o.described or token == "g" or (
            i.arch == "sm_90" and size))):
        parts.append(_register("R", o.number) + size)
    if o.described:
        described = f"desc[{_register('UR', o.uniform)}]" if i.arch == "sm_90" else ""
    elif joined and (token != "g" or o.uniform != URZ):
        parts.append(_register("UR", o.uniform))
    if o.offset:
        parts.append(_hexadecimal(o.offset))
    elif not parts:
        parts.append("RZ")
    return f"{described}[{'+'.join(parts)}]"


def _constant(o: Operand, kind: str, none: int) -> str:
    parts = [] if o.uniform == none else [_register(kind, o.uniform)]
    if o.offset or not parts:
        parts.append(f"{o.offset:#x}" if o.offset or kind != "R" else "RZ")
    return f"c[{o.number:#x}][{'+'.join(parts)}]"


def operand_text(i: Instruction, o: Operand, token: str) -> str:
    """One operand."""
    if o.kind in ("P", "UP"):
        return ("!" if o.negate else "") + _register(o.kind, o.number)
    if o.kind == "I":
        value = o.number
        signed = i.name in _SIGNED or (i.name == "P2R" and i.arch != "sm_90")
        if token in ("b", "c", "e") and signed and value >> 31:
            value -= 1 << 32
        return _hexadecimal(value)
    if o.kind in ("F", "D"):
        double = i.name == "MUFU" and i.fields["mufu"] in (6, 7)  # RCP64H, RSQ64H: an upper half
        return _float(o.number, "D" if double else o.kind)
    if o.kind == "H":
        halves = [o.number >> 16, o.number & 0xFFFF]
        brain = any(i.fields.get(f"{of}bf16") for of in ("", "mul_", "mma_", "hset_"))
        texts = [_float(half << 16, "F") if brain else _float(half, "H") for half in halves]
        return ", ".join(texts)
    if o.kind == "M":
        return _address(i, o, token)
    if o.kind == "L":
        if token == "r":
            return _hexadecimal(o.number - i.pc - 16)
        return _hexadecimal(o.number)
    if o.kind == "SR":
        return SPECIAL_REGISTERS[o.number]
    if o.kind == "PC":
        return f"Rpc.{('LO', 'HI')[o.number]}"
    if o.kind == "PR":
        return "PR"
    if o.kind in ("B", "SB"):
        return f"{o.kind}{o.number}"
    if o.kind == "C":
        indexed = token == "k" and not i.row.uniform
        text = _constant(o, "R", RZ) if indexed else (
            f"c[{o.number:#x}][{_hexadecimal(o.offset)}]")
    else:
        text = _register(o.kind, o.number)
    half, reuse = _HALVES.get(o.select, f".B{o.select - 4}"), ".reuse" * o.reuse
    if o.kind == "C":
        text, half = text + half, ""
    elif token[:1] == "h":
        text, half, reuse = text + reuse + ".H1" * (o.select == 3), "", ""
    if o.absolute:
        text = f"|{text}|"
    text += reuse + half
    if i.name == "R2P" and token == "a" and i.fields["byte"]:
        text += f".B{i.fields['byte']}"
    if o.negate:
        text = ("~" if i.fields.get("x") or i.name in ("FLO", "POPC", "UFLO") else "-") + text
    return text


def _texts(i: Instruction) -> list[str]:
    """What stands behind the name."""
    known = i.row.modifiers_of(i.arch)
    found = []
    for word in i.row.words:
        if word == "byte" and i.name == "R2P":
            continue  # stands behind the register
        if word.startswith("."):
            found.append(word[1:])
        elif known[word].texts[i.fields[word]]:
            found.append(known[word].texts[i.fields[word]])
    return found


def _product(i: Instruction) -> list[str]:
    """IMAD is called by what it is used for."""
    a, b, c = (i.operand(t) for t in "abc")
    form = i.row.code >> 9
    texts = _texts(i)
    if i.row.words[0] != "x":
        return texts
    if i.fields["x"]:
        return [*texts[1:], "X"]
    if ("R", RZ) in ((a.kind, a.number), (b.kind, b.number)) and form not in (6, 7):
        return ["MOV", *texts]
    if b.kind == "I" and form == 4 and (not b.number or (b.number == 1 and c.number == RZ)):
        return ["MOV", *texts]
    if b.kind == "I" and b.number == 1 and form == 4:
        return ["IADD", *texts]
    power = b.kind == "I" and b.number and not b.number & (b.number - 1)
    if power and c.number == RZ and b.number not in (0x10000, 0x80000000):
        return ["SHL", *texts]
    return texts


def _integer_of_float(i: Instruction) -> list[str]:
    f, known = i.fields, i.row.modifiers_of(i.arch)
    to = ("S" if f["f2i"] else "U") + known["int_dst"].texts[f["int_dst"]]
    source = known["src"].texts[f["src"]]
    return [*(["FTZ"] * f["ftz"]), *([to] if to != "S32" else []),
            *([source] if source != "F32" else []),
            *filter(None, [known["trunc"].texts[f["trunc"]], known["ntz"].texts[f["ntz"]]])]


def _float_of_integer(i: Instruction) -> list[str]:
    f, known = i.fields, i.row.modifiers_of(i.arch)
    to = known["dst"].texts[f["dst"]]
    source = ("S" if f["i2f"] else "U") + known["isrc"].texts[f["isrc"]]
    long = i.name == "I2FP"
    return [*([to] if to != "F32" or long else []), *([source] if source != "S32" or long else []),
            *filter(None, [known["rnd"].texts[f["rnd"]]])]


def _rounded(i: Instruction) -> list[str]:
    f, known = i.fields, i.row.modifiers_of(i.arch)
    to, source = known["dst"].texts[f["dst"]], known["src"].texts[f["src"]]
    return [*(["FTZ"] * f["ftz"]), *([to] if to != "F32" else []),
            *([source] if source != to else []),
            *filter(None, [known["trunc"].texts[f["trunc"]]])]


_NAMED: dict[str, Callable[[Instruction], list[str]]] = {
    "IMAD": _product, "F2I": _integer_of_float, "I2F": _float_of_integer,
    "I2FP": _float_of_integer, "FRND": _rounded,
}


def _shown(i: Instruction, flags: str, token: str, o: Operand) -> bool:
    if "?" in flags and (i.name, token) == ("BAR", "x") and i.arch != "sm_90":
        return True
    if "?" in flags:
        return o.number != {"R": RZ, "UR": URZ, "I": 0}.get(o.kind, PT) or o.negate
    if "X" in flags and i.name == "ISETP" and i.arch == "sm_75":
        return o.number != PT or o.negate
    if "X" in flags:
        return bool(i.fields.get("x") or i.fields.get("ex"))
    if i.name == "MATCH" and token == "P81":
        return not i.fields["match"]
    if "H" in flags:
        return bool(i.fields["hi"] and not i.fields["sx32"])
    return True


def mnemonic(i: Instruction) -> str:
    """The name with its modifiers."""
    return ".".join([i.name, *_NAMED.get(i.name, _texts)(i)])


def text(i: Instruction) -> str:
    """The whole instruction."""
    guard = ""
    if i.guard.number != PT or i.guard.negate:
        guard = "@" + operand_text(i, i.guard, "") + " "
    parts = [
        operand_text(i, o, token) + _matrix_order(i, token)
        for (flags, token), o in zip(i.row.tokens, i.operands, strict=True)
        if _shown(i, flags, token, o)
    ]
    joined = ", ".join(parts)
    if i.name in ("RET", "BRX", "CALL"):
        joined = " ".join(parts)
    return f"{guard}{mnemonic(i)} {joined}".rstrip()


def _matrix_order(i: Instruction, token: str) -> str:
    matrix = i.name in ("IMMA", "BMMA", "QMMA")
    return {"a": ".ROW", "b": ".COL"}.get(token, "") if matrix else ""
