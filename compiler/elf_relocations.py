"""How each kind of relocation writes an address into machine code: a table per machine.

Formulas: System V ABI, AMD64 supplement, table 4.10, ELF for the Arm 64-bit Architecture
(AAELF64), section 5.7, and LLVM's AMDGPUUsage.rst, "Relocation Records". Here `target` is S + A
(or the slot + A), `place` is P, both counted from the start of the image, which is loaded at a
multiple of 4096.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

Write: TypeAlias = Callable[[int, int, int], int]
"""(bits that stand there, target, place) -> bits; raises OverflowError when out of reach."""


class Fixup(NamedTuple):
    """One kind of relocation.

    `write` None means an absolute 64-bit address, which only the loader can write.
    `through_slot`: the target is a slot that holds the symbol's address.
    """

    name: str
    size: int
    write: Write | None
    through_slot: bool = False


def _signed(value: int, bits: int) -> int:
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise OverflowError(f"{value} does not fit in {bits} signed bits")
    return value & ((1 << bits) - 1)


def _relative(bits: int) -> Write:
    """target - place as a plain number."""
    return lambda old, target, place: _signed(target - place, bits)


def _relative_half(shift: int) -> Write:
    """32 bits of target - place, the upper ones with a shift of 32."""
    return lambda old, target, place: (target - place) >> shift & 0xFFFFFFFF


def _branch(old: int, target: int, place: int) -> int:
    """B, BL: a distance in instructions in bits 25:0."""
    return old & 0xFC000000 | _signed(target - place, 28) >> 2


def _page(old: int, target: int, place: int) -> int:
    """ADRP: a distance in pages of 4096, low 2 bits in 30:29, the others in 23:5."""
    pages = _signed((target >> 12) - (place >> 12), 21)
    return old & 0x9F00001F | (pages & 3) << 29 | pages >> 2 << 5


def _offset_in_page(shift: int) -> Write:
    """ADD, LDR, STR: the low 12 bits in units of 1 << shift, in bits 21:10."""

    def write(old: int, target: int, place: int) -> int:
        low = target & 0xFFF
        if low & ((1 << shift) - 1):
            raise OverflowError(f"offset {low} in its page is no multiple of {1 << shift}")
        return old & 0xFFC003FF | low >> shift << 10

    return write


FIXUPS: dict[str, dict[int, Fixup]] = {
    "EM_X86_64": {
        1: Fixup("R_X86_64_64", 8, None),
        2: Fixup("R_X86_64_PC32", 4, _relative(32)),
        4: Fixup("R_X86_64_PLT32", 4, _relative(32)),
        9: Fixup("R_X86_64_GOTPCREL", 4, _relative(32), through_slot=True),
        24: Fixup("R_X86_64_PC64", 8, _relative(64)),
        41: Fixup("R_X86_64_GOTPCRELX", 4, _relative(32), through_slot=True),
        42: Fixup("R_X86_64_REX_GOTPCRELX", 4, _relative(32), through_slot=True),
    },
    "EM_AARCH64": {
        257: Fixup("R_AARCH64_ABS64", 8, None),
        260: Fixup("R_AARCH64_PREL64", 8, _relative(64)),
        261: Fixup("R_AARCH64_PREL32", 4, _relative(32)),
        275: Fixup("R_AARCH64_ADR_PREL_PG_HI21", 4, _page),
        277: Fixup("R_AARCH64_ADD_ABS_LO12_NC", 4, _offset_in_page(0)),
        278: Fixup("R_AARCH64_LDST8_ABS_LO12_NC", 4, _offset_in_page(0)),
        282: Fixup("R_AARCH64_JUMP26", 4, _branch),
        283: Fixup("R_AARCH64_CALL26", 4, _branch),
        284: Fixup("R_AARCH64_LDST16_ABS_LO12_NC", 4, _offset_in_page(1)),
        285: Fixup("R_AARCH64_LDST32_ABS_LO12_NC", 4, _offset_in_page(2)),
        286: Fixup("R_AARCH64_LDST64_ABS_LO12_NC", 4, _offset_in_page(3)),
        299: Fixup("R_AARCH64_LDST128_ABS_LO12_NC", 4, _offset_in_page(4)),
        311: Fixup("R_AARCH64_ADR_GOT_PAGE", 4, _page, through_slot=True),
        312: Fixup("R_AARCH64_LD64_GOT_LO12_NC", 4, _offset_in_page(3), through_slot=True),
    },
    "EM_AMDGPU": {
        3: Fixup("R_AMDGPU_ABS64", 8, None),
        4: Fixup("R_AMDGPU_REL32", 4, _relative(32)),
        5: Fixup("R_AMDGPU_REL64", 8, _relative(64)),
        10: Fixup("R_AMDGPU_REL32_LO", 4, _relative_half(0)),
        11: Fixup("R_AMDGPU_REL32_HI", 4, _relative_half(32)),
    },
}
"""By machine and by the relocation's number."""
