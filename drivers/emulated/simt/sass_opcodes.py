"""The instructions of NVIDIA's machine code (SASS of sm_75, sm_89 and sm_90) as data.

Found by flipping bits of compiled code and reading what nvdisasm makes of it. A row is a name, an
operation (9 bits) with the forms its operands may have, modifiers in the order in which they are
printed, and operands. `sass_decode` says what operand tokens mean. An opcode may have several rows:
the first whose fields all have a meaning is taken.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

TURING, ADA, HOPPER = "sm_75", "sm_89", "sm_90"
EVERY = (TURING, ADA, HOPPER)
_NEWER = (ADA, HOPPER)


class Modifier(NamedTuple):
    """A field that is printed behind the name; None in `texts` is a value without meaning."""

    first: int
    width: int
    texts: dict[int, str]


def _listed(first: int, width: int, *texts: str | None) -> Modifier:
    return Modifier(first, width, {i: t for i, t in enumerate(texts) if t is not None})


def _flag(first: int, text: str) -> Modifier:
    return _listed(first, 1, "", text)


_SIZES = ("U8", "S8", "U16", "S16", "", "64", "128")
_COMPARE = ("F", "LT", "EQ", "LE", "GT", "NE", "GE", "T")
_FLOAT_COMPARE = ("F", "LT", "EQ", "LE", "GT", "NE", "GE", "NUM",
                  "NAN", "LTU", "EQU", "LEU", "GTU", "NEU", "GEU", "T")
_ATOMIC = ("ADD", "MIN", "MAX", "INC", "DEC", "AND", "OR", "XOR", "EXCH")
_OLD_ORDER = tuple(
    f"{sem}{scope}" for sem in ("CONSTANT.", "", "STRONG.", "MMIO.")
    for scope in ("CTA", "SM", "GPU", "SYS")
)
_NEW_ORDER = ("", "CONSTANT.PRIVATE", "CONSTANT.CTA", "CONSTANT.CTA.PRIVATE", "STRONG.SM.PRIVATE",
              "STRONG.SM", "STRONG.GPU.PRIVATE", "STRONG.GPU", "MMIO.GPU", "CONSTANT.SM",
              "STRONG.SYS", "CONSTANT.SM.PRIVATE", "MMIO.SYS", "CONSTANT.VC",
              "CONSTANT.VC.PRIVATE", "CONSTANT.GPU")

SPECIAL_REGISTERS = {
    0: "SR_LANEID", 2: "SR_VIRTCFG", 3: "SR_VIRTID", 32: "SR_TID", 33: "SR_TID.X", 34: "SR_TID.Y",
    35: "SR_TID.Z", 37: "SR_CTAID.X", 38: "SR_CTAID.Y", 39: "SR_CTAID.Z", 40: "SR_NTID",
    46: "SR_LWINHI", 47: "SR_SWINHI", 48: "SR_SWINLO", 49: "SR_SWINSZ", 50: "SR_SMEMSZ",
    52: "SR_LWINLO", 53: "SR_LWINSZ", 56: "SR_EQMASK", 57: "SR_LTMASK", 58: "SR_LEMASK",
    59: "SR_GTMASK", 60: "SR_GEMASK", 61: "SR_REGALLOC", 62: "SR_BARRIERALLOC",
    64: "SR_GLOBALERRORSTATUS", 66: "SR_WARPERRORSTATUS", 67: "SR_VIRTUALSMID",
    68: "SR_VIRTUALENGINEID", 80: "SR_CLOCKLO", 81: "SR_CLOCKHI", 82: "SR_GLOBALTIMERLO",
    83: "SR_GLOBALTIMERHI", 136: "SR_CgaCtaId", 255: "SRZ",
    **{100 + 2 * i: f"SR_PM{i}" for i in range(8)},
    **{101 + 2 * i: f"SR_PM_HI{i}" for i in range(8)},
}

# By name; one that has another place on Turing is given twice.
MODIFIERS: dict[str, Modifier] = {
    "ftz": _flag(80, "FTZ"), "sat": _flag(77, "SAT"), "rnd": _listed(78, 2, "", "RM", "RP", "RZ"),
    "nan": _flag(81, "NAN"), "nan75": Modifier(81, 1, {0: ""}),
    "x": _flag(74, "X"), "u32": _listed(73, 1, "U32", ""),
    "cmp": _listed(76, 3, *_COMPARE), "fcmp": _listed(76, 4, *_FLOAT_COMPARE),
    "dcmp": _listed(76, 4, "MIN", *_FLOAT_COMPARE[1:15], "MAX"),
    "bool": _listed(74, 2, "AND", "OR", "XOR"), "ex": _flag(72, "EX"),
    "hi": _flag(80, "HI"), "sx32": _flag(73, "SX32"),
    "shift": _listed(76, 1, "L", "R"), "w": _flag(75, "W"),
    "kind": _listed(73, 2, "S64", "U64", "S32", "U32"),
    "prmt": _listed(72, 3, "", "F4E", "B4E", "RC8", "ECL", "ECR", "RC16"),
    "mufu": _listed(74, 4, "COS", "SIN", "EX2", "LG2", "RCP", "RSQ", "RCP64H", "RSQ64H", "SQRT",
                    "TANH"),
    "half_mufu": _listed(74, 4, "COS", "SIN", "EX2", "LG2", "RCP", "RSQ", None, None, "SQRT",
                         "TANH"),
    "mul": _listed(84, 3, None, "D8", "D4", "D2", "", "M2", "M4", "M8"),
    "byte": _listed(76, 2, "", "B1", "B2", "B3"),
    "size": _listed(73, 3, *_SIZES), "bank_size": _listed(73, 3, *_SIZES[:6]),
    "e": Modifier(72, 1, {1: "E"}),  # addresses of 32 bits: not in a 64-bit process
    "evict": _listed(84, 3, "EF", "", "EL", "LU", "EU", "NA"),
    "load": _listed(77, 4, *_NEW_ORDER[:4], "CONSTANT", *_NEW_ORDER[5:]),
    "load75": _listed(77, 4, *_OLD_ORDER),
    "store": _listed(77, 4, *_NEW_ORDER), "store75": _listed(77, 4, *[None] * 4, *_OLD_ORDER[4:]),
    "order": _listed(77, 4, *_NEW_ORDER), "order75": _listed(77, 4, *[None] * 4, *_OLD_ORDER[4:12]),
    "private": Modifier(76, 1, {0: "", 1: ""}), "private75": _flag(76, "PRIVATE"),
    "u": Modifier(76, 1, {0: ""}), "u75": _flag(76, "U"),
    "atomic": _listed(87, 4, *_ATOMIC), "red": _listed(87, 3, *_ATOMIC[:8]),
    "atype": _listed(73, 4, "", "S32", "64", "F32.FTZ.RN", "F16x2.RN", "S64", "F64.RN"),
    "atype90": _listed(73, 2, "", "S32", "64", "S64"),
    "ftype90": Modifier(73, 4, {0: "F16x2.RN", 3: "BF16x2.RN", 9: "F32.FTZ.RN", 12: "F32.RN",
                                15: "F64.RN"}),
    "shared": _listed(73, 2, "", "S32", "64"),
    "csize": _listed(73, 2, "", "64"),
    "vote": _listed(72, 2, "ALL", "ANY", "EQ"),
    "shfl": _listed(58, 2, "IDX", "UP", "DOWN", "BFLY"),
    "match": _listed(79, 1, "ALL", "ANY"), "match64": _flag(73, "U64"),
    "redux": _listed(78, 3, "", "OR", "XOR", "SUM", "MIN", "MAX"), "s32": _flag(73, "S32"),
    "int_dst": _listed(75, 2, "8", "16", "32", "64"),
    "trunc": _listed(78, 2, "", "FLOOR", "CEIL", "TRUNC"), "ntz": _flag(77, "NTZ"),
    "f2i": Modifier(72, 1, {0: "", 1: ""}), "i2f": Modifier(74, 1, {0: "", 1: ""}),
    "dst": _listed(75, 2, None, "F16", "F32", "F64"),
    "src": _listed(84, 2, None, "F16", "F32", "F64"),
    "isrc": _listed(84, 2, "8", "16", "32", "64"),
    "sh": _flag(74, "SH"),
    "32bit": _listed(80, 1, "32", ""),
    "hmma": Modifier(75, 4, {0b0010: "1688.F32", 0b0011: "16816.F32", 0b0000: "1688.F16",
                             0b0001: "16816.F16", 0b1010: "1684.F32"}),
    "hmma75": _listed(75, 4, "1688.F16", None, "1688.F32"),
    "hmmatype": _listed(82, 2, "", "BF16", "TF32"), "hmmatype75": Modifier(82, 2, {0: ""}),
    "scope": _listed(76, 3, "CTA", "SM", "GPU", "SYS"),
    "mbar": _listed(79, 2, "SC", "ALL"),
    "trans": _listed(78, 1, "M88", "MT88"), "ldsm": _listed(72, 2, "", "2", "4"),
    "defer": _flag(80, "DEFER_BLOCKING"),
    "clear": _flag(84, "CLEAR"),
    "bf16": _flag(85, "BF16_V2"), "bf1675": Modifier(85, 1, {0: ""}),
    "mul_bf16": Modifier(85, 1, {0: ""}), "mul_bf1690": _flag(85, "BF16_V2"),
    "mma_bf16": Modifier(85, 1, {0: ""}), "mma_bf1690": _flag(85, "BF16_V2"),
    "xorsign": _flag(82, "XORSIGN"), "xorsign75": Modifier(82, 1, {0: ""}),
    "hset_bf16": Modifier(65, 1, {0: ""}), "hset_bf1690": _flag(65, "BF16_V2"),
    "bf": _flag(71, "BF"), "h_and": _flag(71, "H_AND"), "hbool": _listed(69, 2, "AND", "OR", "XOR"),
    "cas": Modifier(87, 2, {0: "CAS", 1: "CAST", 3: "CAST.SPIN"}),
    "cas_size": Modifier(73, 3, {0: "", 2: "64"}),
    "barred": _listed(74, 2, "POPC", "AND", "OR"),
    "ltc": _listed(68, 2, "", "LTC64B", "LTC128B"),
    "copy_ltc": _listed(71, 2, "", "LTC64B", "LTC128B"),
    "bypass": _listed(81, 1, "BYPASS", ""), "zfill": _flag(82, "ZFILL"),
    "copy_size": Modifier(73, 3, {4: "", 5: "64", 6: "128"}),
    "ntz_not": _flag(74, "NTZ"), "f2ip": _listed(76, 1, "U8", "S8"),
    "f2ip_trunc": Modifier(78, 2, {0: "", 3: "TRUNC"}),
    "fp8_source": _listed(73, 1, "E5M2", "E4M3"),
    "fp8": _listed(76, 1, "E5M2", "E4M3"),
    "movm": _listed(78, 2, "MT88", "M832", "M864"),
    "qspc": _listed(73, 2, "G", "L", "S"), "qspc90": _listed(73, 2, "G", "L", "S", "D"),
    "exclusive": _flag(86, "EXCLUSIVE"), "exclusive75": Modifier(86, 1, {0: ""}),
    "exclusive90": _flag(85, "EXCLUSIVE"),
    "acc": _flag(75, "ACC"), "hilo": _listed(77, 1, "LO", "HI"),
    "dp2": _listed(73, 2, "U16.U8", "S16.U8", "U16.S8", "S16.S8"),
    "cctl": _listed(87, 4, "PF1", "PF2", "WB", "IV"), "lane": _flag(85, "WARP"),
    "any": _flag(84, "ANY"), "diverge": Modifier(32, 2, {2: "DIV", 3: "CONV"}),
    "imma_a": _listed(76, 1, "U8", "S8"), "imma_b": _listed(78, 1, "U8", "S8"),
    "imma_a4": _listed(76, 1, "U4", "S4"), "imma_b4": _listed(78, 1, "U4", "S4"),
    "imma_sat": _flag(82, "SAT"), "i2i": Modifier(76, 2, {0: "U8", 1: "S8", 2: "U16", 3: "S16"}),
    "bmma": Modifier(75, 2, {0: "88128", 1: "168128", 2: "168256"}),
    "bmma75": Modifier(75, 2, {0: "88128"}),
    "bmma_op": Modifier(77, 2, {0: "XOR", 2: "AND"}),
    "bmma_op75": Modifier(77, 2, {0: "XOR"}), "bmma_op90": Modifier(77, 2, {2: "AND"}),
    "qmma_a": _listed(78, 1, "E4M3", "E5M2"), "qmma_b": _listed(79, 1, "E4M3", "E5M2"),
    "qmma": Modifier(75, 1, {0: "16816", 1: "16832"}), "qmma_acc": _listed(77, 1, "F16", "F32"),
    "f32out": Modifier(78, 1, {1: "F32"}),
    "fmz": _flag(76, "FMZ"), "satf": _flag(77, "SATFINITE"), "relu": _flag(75, "RELU"),
    "f2fp": _listed(76, 1, "F16", "BF16"), "f2fprnd": Modifier(79, 2, {0: "", 3: "RZ"}),
    "vim": _listed(72, 2, "U32", "", "U16x2", "S16x2"),
    "addmin": _listed(72, 1, "U32", ""),
    "dp": _listed(73, 2, "U8.U8", "S8.U8", "U8.S8", "S8.S8"),
    "sgxt": _listed(73, 1, "U32", ""), "bmskw": _flag(75, "W"),
}


@dataclass(frozen=True)
class Row:
    """One operation with one form of operands."""

    name: str
    code: int
    """The opcode's 12 bits."""
    words: tuple[str, ...]
    """Names of modifiers, and between them (with a dot) what the name always carries."""
    tokens: tuple[tuple[str, str], ...]
    """(flags, token) of each operand."""
    archs: tuple[str, ...]
    uniform: bool
    immediate: str
    packed: bool
    fixed: tuple[tuple[int, int, tuple[int, ...]], ...]
    """(first, width, values) of fields that must have one of these values."""

    @property
    def slot_reuse(self) -> int:
        """The bit that says that the register in the slot is used again."""
        return 124 if self.name in ("FADD", "HADD2", "DADD", "DSETP") else 123

    @property
    def half(self) -> bool:
        """Whether it works on two f16 or bf16 at once."""
        return self.name in ("HADD2", "HMUL2", "HFMA2", "HMNMX2", "HSET2", "HSETP2")

    @property
    def reduces(self) -> bool:
        """Whether it is an atomic operation on global memory."""
        return self.name in ("ATOM", "ATOMG", "RED", "REDG")

    @property
    def atomic(self) -> bool:
        """Whether it is one that gives the old value."""
        return self.name in ("ATOM", "ATOMG")

    def modifiers_of(self, arch: str) -> dict[str, Modifier]:
        """Its fields: the words that name one."""
        return _modifiers(self.words, arch)

    @functools.cached_property
    def positions(self) -> dict[str, int]:
        """Where an operand's token stands."""
        return {token: i for i, (_, token) in enumerate(self.tokens)}


@functools.cache
def _modifiers(words: tuple[str, ...], arch: str) -> dict[str, Modifier]:
    found = {}
    for word in words:
        if word in MODIFIERS:
            old = f"{word}{arch[3:]}"
            found[word] = MODIFIERS.get(old, MODIFIERS[word])
    return found


ROWS: list[Row] = []
_ALL_PREDICATES = "81.3=7"


def _fixed(texts: str) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """`81.3=7` or `90.2=0,3` between spaces."""
    found = []
    for text in texts.split():
        place, values = text.split("=")
        first, width = map(int, place.split("."))
        found.append((first, width, tuple(map(int, values.split(",")))))
    return tuple(found)


def row(name: str, code: int, forms: str, words: str, operands: str, *,
        imm: str = "I", archs: tuple[str, ...] = EVERY, uniform: bool = False,
        packed: bool = False, fixed: str = "") -> None:
    """Adds rows: `code` is the operation where `forms` lists forms, else the whole opcode."""
    tokens = []
    for operand in operands.split():
        flags = operand[: len(operand) - len(operand.lstrip("-|?XH"))]
        tokens.append((flags, operand[len(flags):]))
    for form in forms or "0":
        ROWS.append(Row(name, code | int(form) << 9, tuple(words.split()), tuple(tokens), archs,
                        uniform, imm, packed, _fixed(fixed)))


def _integer() -> None:
    row("IADD3", 0x010, "1456", "x", "d ?P81 ?P84 -a -b -c Xp87 Xp77")
    row("UIADD3", 0x090, "14", "x", "d ?P81 ?P84 -a -b -c Xp87 Xp77", uniform=True,
        fixed="91.1=1")
    row("IMAD", 0x024, "1234567", "x u32", "d a b -c Xp87", fixed=_ALL_PREDICATES)
    row("IMAD", 0x025, "134567", ".WIDE u32", "d ?P81 a b -c", fixed="87.4=15,7")
    row("IMAD", 0x025, "134567", ".WIDE u32 x", "d ?P81 a b -c p87", fixed="74.1=1")
    row("IMAD", 0x027, "134567", ".HI u32", "d ?P81 a b -c", fixed="87.4=15,7")
    row("UIMAD", 0x0A4, "124", "u32", "d a b -c", uniform=True,
        fixed=_ALL_PREDICATES + " 87.4=15,7 91.1=1")
    row("UIMAD", 0x0A5, "14", ".WIDE u32", "d a b -c", uniform=True,
        fixed=_ALL_PREDICATES + " 87.4=15,7 91.1=1")
    for high in ("80.1=1", "80.1=0 73.1=0"):  # only a high one extends a sign
        row("LEA", 0x011, "1456", "hi x sx32", "d ?P81 -a -b Hc #75.5 Xp87", fixed=high)
        row("ULEA", 0x091, "14", "hi x sx32", "d ?P81 -a -b Hc #75.5 Xp87", uniform=True,
            fixed=f"{high} 91.1=1")
    row("LOP3", 0x012, "1456", ".LUT", "?P81 d a b c #72.8 p87")
    row("ULOP3", 0x092, "14", ".LUT", "?P81 d a b c #72.8 p87", uniform=True, fixed="91.1=1")
    row("SHF", 0x019, "1234567", "shift w kind hi", "d a b c")
    row("USHF", 0x099, "14", "shift w kind hi", "d a b c", uniform=True, fixed="91.1=1")
    row("PRMT", 0x016, "1234567", "prmt", "d a b c")
    row("UPRMT", 0x096, "14", "", "d a b c", uniform=True, fixed="91.1=1")
    row("ISETP", 0x00C, "1456", "cmp u32 bool ex", "P81 P84 a b p87 Xp68", fixed="75.0=0")
    row("UISETP", 0x08C, "14", "cmp u32 bool ex", "P81 P84 a b p87 Xp68", uniform=True,
        fixed="91.1=1")
    row("IMNMX", 0x017, "1456", "u32", "d a b p87", archs=(TURING, ADA))
    row("VIMNMX", 0x048, "1456", "vim", "d a b p87", archs=(HOPPER,), fixed="81.6=63")
    row("VIMNMX3", 0x00F, "1456", "vim", "d a b c p87", archs=(HOPPER,))
    row("VIADD", 0x036, "1456", "", "d a -b", archs=(HOPPER,))
    row("VIADDMNMX", 0x046, "1234567", "addmin", "d a -b c p87", archs=(HOPPER,), fixed="75.1=0,1")
    row("IABS", 0x013, "156", "", "d e")
    row("POPC", 0x109, "156", "", "d -e")
    row("UPOPC", 0x2BF, "", "", "d e", uniform=True, fixed="91.1=1")
    row("FLO", 0x100, "156", "u32 sh", "d ?P81 -e")
    row("UFLO", 0x2BD, "", "u32 sh", "d ?P81 -e", uniform=True, fixed="91.1=1")
    row("BREV", 0x101, "156", "", "d e")
    row("UBREV", 0x2BE, "", "", "d e", uniform=True, fixed="91.1=1")
    row("IDP", 0x026, "156", ".4A dp", "d a b c", fixed="76.1=0")
    row("IDP", 0x026, "156", ".2A hilo dp2", "d a b c", fixed="76.1=1")
    row("VABSDIFF", 0x014, "1456", "u32", "d a b c", fixed=_ALL_PREDICATES)
    row("VABSDIFF4", 0x015, "1456", ".U8 acc", "d a b c", fixed=_ALL_PREDICATES)
    row("I2I", 0x038, "156", "i2i .S32 .SAT", "d e")
    row("SGXT", 0x01A, "1456", "w sgxt", "d a b")
    row("BMSK", 0x01B, "1456", "bmskw", "d a b")
    row("MOV", 0x002, "1456", "", "d e", fixed="72.4=15")
    row("UMOV", 0x882, "", "", "d e", uniform=True)
    row("UMOV", 0xC82, "", "", "d e", uniform=True, fixed="91.1=1")
    row("SEL", 0x007, "1456", "", "d a b p87")
    row("USEL", 0x087, "14", "", "d a b p87", uniform=True, fixed="91.1=1")
    row("PLOP3", 0x81C, "", ".LUT", "P81 P84 p87 p77 p68U lut #16.8")
    row("UPLOP3", 0x89C, "", ".LUT", "P81 P84 p87 p77 p68 lut #16.8", uniform=True)
    row("R2P", 0x804, "", "byte", "PR a e")
    row("P2R", 0x803, "", "byte", "d PR a e")
    row("S2R", 0x919, "", "", "d SR")
    row("S2UR", 0x9C3, "", "", "U SR")
    row("CS2R", 0x805, "", "32bit", "d SR")
    row("R2UR", 0x3C2, "", "", "?P81 U a", archs=(TURING, ADA))
    row("R2UR", 0x2CA, "", "", "?P81 U a", archs=(HOPPER,))
    row("B2R", 0x31C, "", ".RESULT", "d ?P81", fixed="78.1=1")


def _float() -> None:
    row("FADD", 0x021, "1237", "ftz rnd sat", "d -|a -|e", imm="F")
    row("FMUL", 0x020, "1456", "ftz mul rnd sat", "d -|a -|b", imm="F")
    row("FFMA", 0x023, "1234567", "ftz rnd sat", "d -a -b -c", imm="F")
    row("FMNMX", 0x009, "1456", "ftz nan xorsign", "d -|a -|b p87", imm="F")
    row("FSEL", 0x008, "1456", "ftz", "d -|a -|b p87", imm="F")
    row("FSET", 0x00A, "145", ".BF fcmp ftz bool", "d -|a -|b p87", imm="F")
    row("FSETP", 0x00B, "1456", "fcmp ftz bool", "P81 P84 -|a -|b p87", imm="F")
    row("DADD", 0x029, "1237", "rnd", "d -|a -|C", imm="D")
    row("DMUL", 0x028, "1456", "rnd", "d -|a -|b", imm="D")
    row("DFMA", 0x02B, "1234567", "rnd", "d -a -b -c", imm="D")
    row("DSETP", 0x02A, "1237", "dcmp bool", "P81 P84 -|a -|e p87", imm="D")
    row("FCHK", 0x102, "1456", "", "P81 -|a -|b", imm="F")
    row("MUFU", 0x108, "1456", "mufu", "d -|e", imm="F")
    row("MUFU", 0x108, "1", "half_mufu .F16", "d -|h60", archs=(TURING, ADA), fixed="73.1=1")
    row("MUFU", 0x108, "1", "half_mufu .F16", "d -|h60", archs=(HOPPER,), fixed="72.1=1")
    conversions = (  # a word of an opcode is for 64 bits on either side; (dst, src) by log2(bytes)
        ("F2F", 0x104, "F", "75.2=1 84.2=2"), ("F2F", 0x104, "F", "75.2=2 84.2=1"),
        ("F2F", 0x110, "D", "75.2=1,2 84.2=3"), ("F2F", 0x110, "F", "75.2=3 84.2=1,2"),
        ("F2I", 0x105, "F", "75.2=0,1,2 84.2=1,2"), ("F2I", 0x111, "F", "75.2=3 84.2=1,2"),
        ("F2I", 0x111, "D", "84.2=3"), ("I2F", 0x106, "I", "75.2=1,2 84.2=2"),
        ("I2F", 0x112, "I", "75.2=3 84.2=2,3"), ("I2F", 0x112, "I", "75.2=1,2 84.2=3"),
        ("FRND", 0x107, "F", "75.2=1 84.2=1"), ("FRND", 0x107, "F", "75.2=2 84.2=2"),
        ("FRND", 0x113, "D", "75.2=3 84.2=3"),
    )
    shapes = {
        "F2F": ("ftz dst src rnd", "d -|e"), "F2I": ("ftz f2i int_dst src trunc ntz", "d -|e"),
        "I2F": ("dst i2f isrc rnd", "d e"), "FRND": ("ftz dst src trunc", "d -|e"),
    }
    for name, code, immediate, widths in conversions:
        row(name, code, "156", *shapes[name], imm=immediate, fixed=widths)
    for code, widths in ((0x106, "75.2=1,2"), (0x112, "75.2=3")):  # of a byte or half of a register
        for size, part in ((0, "b60"), (1, "h60")):
            fixed = f"{widths} 84.2={size}"
            row("I2F", code, "1", "dst i2f isrc rnd", f"d {part}", fixed=fixed)
            row("I2F", code, "56", "dst i2f isrc rnd", "d e", fixed=fixed)
    row("I2FP", 0x045, "156", "dst i2f isrc rnd", "d e", archs=_NEWER,
        fixed="75.3=2 78.2=0,3 84.2=2")
    row("F2FP", 0x03E, "1456", "satf relu f2fp .F32 .PACK_AB f2fprnd", "d a b",
        fixed="64.8=255 78.1=0 86.2=0", archs=_NEWER, imm="F")
    row("F2FP", 0x03E, "1456", "satf relu .TF32 .F32 .PACK_AB f2fprnd", "d a b",
        fixed="64.8=255 76.1=1 78.1=0 86.2=1", archs=_NEWER, imm="F")
    row("F2FP", 0x03E, "1456", "satf relu fp8 .F32 .PACK_AB_MERGE_C", "d a b c",
        fixed="78.1=1 86.5=18", archs=_NEWER, imm="F")
    row("F2FP", 0x03E, "1", "relu f2fp fp8_source .UNPACK_B", "d h88",
        fixed="24.8=255 64.8=255 74.1=1 78.1=0 86.2=0 89.2=1", archs=_NEWER, imm="F")
    row("F2FP", 0x03E, "1", "satf relu fp8 .F16 .UNPACK_B_MERGE_C", "d e c",
        fixed="24.8=255 73.2=1 78.1=0 86.5=18", archs=_NEWER, imm="F")
    row("F2IP", 0x043, "1", "f2ip .F32 f2ip_trunc ntz_not", "d a b c", archs=_NEWER)


def _half() -> None:
    row("HADD2", 0x030, "13", "ftz sat", "d -|a -|e", packed=True)
    row("HADD2", 0x030, "13", "f32out ftz sat", "d -a -|e", packed=True)
    row("HADD2", 0x030, "2", "ftz sat", "d -|a e", packed=True, imm="H")
    for flush in ("fmz", "ftz"):  # not both
        modes = f"bf16 {flush}"
        row("HMUL2", 0x032, "15", f"mul_{modes} sat", "d -|a -|b", packed=True)
        row("HMUL2", 0x032, "4", f"mul_{modes} sat", "d -|a b", packed=True, imm="H")
        for form, operands in (("1", "d -|a -|b -|c"), ("2", "d -|a -|b c"), ("4", "d -|a b -|c")):
            row("HFMA2", 0x031, form, f"{modes} sat", operands, packed=True, imm="H")
            row("HFMA2", 0x035, form, f".MMA mma_{modes} sat", operands, archs=_NEWER, imm="H")
            row("HFMA2", 0x031, form, f"{modes} .RELU", f"{operands} ?p87", packed=True, imm="H",
                archs=_NEWER, fixed="79.1=1")
            row("HFMA2", 0x035, form, f".MMA mma_{modes} .RELU", f"{operands} ?p87", archs=_NEWER,
                imm="H", fixed="79.1=1")
    row("HMNMX2", 0x040, "1", "bf16 ftz nan xorsign", "d -|a -|b p87", archs=_NEWER,
        packed=True)
    row("HSET2", 0x033, "1", "hset_bf16 bf fcmp ftz hbool", "d -|a -|b p87", packed=True)
    setp = "hset_bf16 fcmp h_and ftz hbool"
    row("HSETP2", 0x034, "1", setp, "P81 P84 -|a -|b p87", packed=True)
    row("HSETP2", 0x034, "2", setp, "P81 P84 -|a e p87", packed=True, imm="H")


def _matrix() -> None:
    row("HMMA", 0x23C, "", "hmma hmmatype", "d a b c")
    older = (TURING, ADA)
    for shape, bits, places, archs in (
        ("8816", "", "75.1=0 83.2=0 85.2=0", EVERY), ("16816", "", "75.1=0 83.2=0 85.2=2", _NEWER),
        ("16832", "", "75.1=1 83.2=0 85.2=2", _NEWER), ("8832", "4", "75.1=0 83.2=3 85.2=1", older),
        ("16832", "4", "75.1=1 83.2=3 85.2=2", older[1:]),
        ("16864", "4", "75.1=0 83.2=3 85.2=3", older[1:]),
    ):
        row("IMMA", 0x237, "", f".{shape} imma_a{bits} imma_b{bits} imma_sat", "d a b c",
            archs=archs, fixed=f"72.3=4 {places}")
    row("BMMA", 0x23D, "", "bmma bmma_op .POPC", "d a b c", fixed="72.3=4 79.2=2")
    row("DMMA", 0x23F, "", ".884", "d -|a -|b -|c", archs=(ADA,))
    row("DMMA", 0x23F, "", ".8x8x4", "d -|a -|b -|c", archs=(HOPPER,))
    row("QMMA", 0x27A, "", "qmma qmma_acc qmma_a qmma_b", "d a b c", archs=(ADA,),
        fixed="72.3=4")
    row("MOVM", 0x23A, "", ".16 movm", "d a")


def _memory() -> None:
    load, store = "e evict size load private", "e evict size store private"
    row("LDG", 0x381, "", load, "d M", archs=(TURING, ADA), fixed=_ALL_PREDICATES)
    row("LDG", 0x981, "", "e evict ltc size load private", "d n",
        fixed=_ALL_PREDICATES + " 91.1=1")
    row("LDGSTS", 0xFAE, "", ".E bypass evict copy_ltc copy_size zfill", "D g ?p87",
        archs=_NEWER, fixed="77.4=0")
    row("LDGDEPBAR", 0x9AF, "", "", "", archs=_NEWER)
    row("DEPBAR", 0x91A, "", ".LE", "SB #38.6", fixed="47.1=1 44.3=0,1,2,3,4,5")
    row("LD", 0x980, "", load, "d G", fixed="91.1=0")
    row("LD", 0x980, "", load, "d n", archs=_NEWER, fixed="91.1=1")
    row("STG", 0x386, "", store, "M x", archs=(TURING,))
    row("STG", 0x986, "", store, "m x", fixed="91.1=1")
    row("ST", 0x385, "", store, "G y")
    row("ST", 0x985, "", store, "m x", archs=_NEWER, fixed="91.1=1")
    row("LDL", 0x983, "", "evict size", "d t")
    row("STL", 0x387, "", "evict size", "s x")
    row("LDS", 0x984, "", "u size", "d t")
    row("STS", 0x388, "", "size", "s x")
    row("STS", 0x988, "", "size", "s x", fixed="91.1=1")
    row("LDSM", 0x83B, "", ".16 trans ldsm", "d t")
    row("STSM", 0x844, "", ".16 trans ldsm", "s x", archs=(HOPPER,))
    row("LDC", 0xB82, "", "bank_size", "d k")
    row("ULDC", 0xAB9, "", "bank_size", "d k", uniform=True)
    row("ATOMS", 0x38C, "", "atomic shared", "d s x", fixed="64.8=0,255")
    row("ATOMS", 0x98C, "", "atomic shared", "d s x", fixed="91.1=1")
    row("ATOMS", 0x38D, "", "cas cas_size", "d s x y")
    row("ATOMG", 0x3A8, "", "e atomic atype order", "P81 d M x", fixed="84.3=1 64.8=255")
    row("ATOMG", 0x9A8, "", "e atomic atype order", "P81 d m x", fixed="84.3=1 91.1=1")
    row("ATOM", 0x38A, "", "e atomic atype order", "P81 d M x", fixed="84.3=1 64.8=255")
    row("ATOM", 0x98A, "", "e atomic atype order", "P81 d m x", fixed="84.3=1 91.1=1")
    row("ATOMG", 0x3A9, "", "e .CAS cas_size order", "P81 d M x y",
        fixed="84.3=1 76.1=0 32.8=" + ",".join(map(str, range(255))))
    row("ATOM", 0x38B, "", "e cas cas_size order", "P81 d M x y", fixed="84.3=1 76.1=0")
    row("ATOMG", 0x9A3, "", "e .ADD ftype90 order", "P81 d m x", fixed="84.3=1 91.1=1",
        archs=(HOPPER,))
    row("ATOM", 0x9A2, "", "e .ADD ftype90 order", "P81 d m x", fixed="84.3=1 91.1=1",
        archs=(HOPPER,))
    row("QSPC", 0x3AA, "", "e qspc", "P81 d M")
    row("RED", 0x98E, "", "e red atype order", "m x", fixed="84.3=1",
        archs=(TURING, ADA))
    row("REDG", 0x98E, "", "e red atype90 order", "m x", fixed="84.3=1 75.2=0", archs=(HOPPER,))
    row("REDG", 0x9A6, "", "e .ADD ftype90 order", "m x", fixed="84.3=1 87.3=0", archs=(HOPPER,))
    row("MEMBAR", 0x992, "", "mbar scope", "")
    row("ERRBAR", 0x9AB, "", "", "")
    row("CGAERRBAR", 0x5AB, "", "", "", archs=(HOPPER,))
    row("CCTL", 0x98F, "", ".IVALL", "", fixed="24.8=255 87.4=4")
    row("CCTL", 0x98F, "", "e cctl", "G")


def _flow() -> None:
    row("NOP", 0x918, "", "", "")
    row("EXIT", 0x94D, "", "", "", fixed="87.4=7")
    row("BRA", 0x947, "", "", "?p87 L")
    row("BRA", 0x947, "", "diverge", "?p87 U24 L", archs=_NEWER, fixed="91.1=1")
    row("BRX", 0x949, "", "", "a r", fixed="87.4=7")
    row("CALL", 0x944, "", ".REL .NOINC", "L", fixed="86.5=15")
    row("CALL", 0x344, "", ".REL .NOINC", "a L", fixed="86.5=15")
    row("CALL", 0x343, "", ".ABS .NOINC", "a", fixed="86.5=15")
    row("CALL", 0x943, "", ".ABS .NOINC", "A", fixed="86.5=15")
    row("LEPC", 0x34E, "", "", "d", archs=(TURING, ADA))
    row("LEPC", 0x94E, "", "", "d p", archs=(HOPPER,))
    row("RET", 0x950, "", ".REL .NODEC", "a L", fixed="86.5=15")
    row("RET", 0x950, "", ".ABS .NODEC", "a o", fixed="85.6=31")
    row("BSSY", 0x945, "", "", "B16 l", fixed="87.4=7")
    row("BSYNC", 0x941, "", "", "B16", fixed="87.4=7")
    row("BREAK", 0x942, "", "", "B16", fixed="87.4=7")
    row("WARPSYNC", 0x948, "", "", "e", fixed="87.4=7", archs=(TURING, ADA))
    row("WARPSYNC", 0x948, "", ".ALL", "", fixed="87.4=7 32.32=0", archs=(HOPPER,))
    row("BMOV", 0x355, "", ".32 clear", "d B24")
    row("BMOV", 0x356, "", ".32", "B24 x")
    for code, number, threads in ((0xB1D, "#54.4", "#42.12"), (0x91D, "#54.4", "x"),
                                  (0x51D, "x", "#42.12"), (0x31D, "x", "x")):  # fmt: skip
        hidden = "" if code == 0x31D else "?"
        row("BAR", code, "", ".SYNC defer", f"{number} {hidden}{threads}")
        row("BAR", code, "", ".ARV", f"{number} {threads}", fixed="77.3=1")
        row("BAR", code, "", ".RED barred defer", f"{number} {hidden}{threads} p87",
            fixed="77.3=2")
    row("BPT", 0x95C, "", ".TRAP", "?#34.3", fixed="84.3=3")
    row("BRA", 0x947, "", ".U any", "?p87 L", archs=(HOPPER,), fixed="32.2=1")
    row("ELECT", 0x82F, "", "", "P81 U p87", archs=(HOPPER,))
    row("PREEXIT", 0x82D, "", "", "", archs=(HOPPER,))
    row("ACQBULK", 0x82E, "", "", "", archs=(HOPPER,))
    row("RPCMOV", 0x353, "", ".32", "d PC", archs=(HOPPER,))
    row("RPCMOV", 0x352, "", ".32", "PC x", archs=(HOPPER,))
    row("NANOSLEEP", 0x35D, "", "lane", "x", fixed="87.4=7")
    row("NANOSLEEP", 0x95D, "", "lane", "#32.32", fixed="87.4=7")
    row("WARPSYNC", 0x348, "", "exclusive", "x", fixed="87.4=7", archs=(TURING, ADA))
    row("WARPSYNC", 0x348, "", "exclusive", "a", fixed="87.4=7", archs=(HOPPER,))
    row("YIELD", 0x946, "", "", "", fixed="87.4=7")
    row("VOTE", 0x806, "", "vote", "?d P81 p87")
    row("VOTEU", 0x886, "", "vote", "?U P81u p87")
    row("SHFL", 0xF89, "", "shfl", "P81 d a #53.5 #40.13")
    row("SHFL", 0x589, "", "shfl", "P81 d a x #40.13")
    row("SHFL", 0x989, "", "shfl", "P81 d a #53.5 y")
    row("SHFL", 0x389, "", "shfl", "P81 d a x y")
    row("MATCH", 0x3A1, "", "match match64", "P81 d a")
    row("REDUX", 0x3C4, "", "redux s32", "U a", archs=_NEWER)


_integer()
_float()
_half()
_matrix()
_memory()
_flow()
