"""The instruction sets that there are: what the translator must know of each, by gfx number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.emulated.simt import amd, amd_memory, rdna_decode
from drivers.emulated.simt.instruction import Instruction, UnknownInstruction

Flow = tuple[tuple[int, ...], bool]
"""Where an instruction may go on, and whether a block ends with it."""


@dataclass(frozen=True)
class Architecture:
    """One instruction set."""

    decode: Callable[[bytes, int, int | None, int], Instruction]
    """Of code, offset, pc (the offset where None) and wave size."""
    flow: Callable[[Instruction], Flow]
    full_after: Callable[[Instruction, set[int]], None]
    memory_kind: Callable[[Instruction], int | None]
    translator: Callable[[bool, dict[int, int], int], amd.Translator]
    """Of whether EXEC is full, the slots of memory instructions, and the wave size."""
    wave_sizes: tuple[int, ...]
    vector_registers: int


RDNA3 = Architecture(
    rdna_decode.decode, amd.flow, amd.full_after, amd_memory.kind_of, amd.Translator,
    wave_sizes=(32, 64), vector_registers=256,
)
ARCHITECTURES = {"gfx1100": RDNA3}


def architecture(gfx: str, wave_size: int) -> Architecture:
    """That of a board. Raises UnknownInstruction where there is none, or not of such waves."""
    found = ARCHITECTURES.get(gfx)
    if found is None:
        known = ", ".join(ARCHITECTURES)
        raise UnknownInstruction(
            f"Machine code of {gfx} is not translated; that of {known} is.", operation="translate"
        )
    if wave_size not in found.wave_sizes:
        sizes = " or ".join(map(str, found.wave_sizes))
        raise UnknownInstruction(
            f"Waves of {gfx} have {sizes} lanes, not {wave_size}.", operation="translate"
        )
    return found
