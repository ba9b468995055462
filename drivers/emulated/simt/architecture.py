"""The instruction sets that there are: what the translator must know of each, by gfx number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from drivers.emulated.simt import amd, amd_decode, amd_memory, cdna, cdna_bits, rdna_bits
from drivers.emulated.simt.amd_bits import Generation
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
    opcodes: dict[str, dict[int, str]]
    """The names of each format's opcodes."""


def _rdna(generation: Generation) -> Architecture:
    return Architecture(
        functools.partial(_decode, generation), amd.flow, amd.full_after, amd_memory.kind_of,
        functools.partial(amd.Translator, generation=generation.name),
        wave_sizes=(32, 64), vector_registers=256, opcodes=generation.opcodes,
    )


def _decode(
    generation: Generation, code: bytes, offset: int, pc: int | None, wave_size: int
) -> Instruction:
    return amd_decode.decode(code, offset, pc, wave_size, generation)


def _cdna(generation: Generation) -> Architecture:
    return Architecture(
        functools.partial(_decode, generation), amd.flow, amd.full_after, amd_memory.kind_of,
        functools.partial(cdna.Translator, generation=generation.name),
        wave_sizes=(64,), vector_registers=512, opcodes=generation.opcodes,
    )


RDNA2, RDNA3, RDNA4 = map(_rdna, (rdna_bits.RDNA2, rdna_bits.RDNA3, rdna_bits.RDNA4))
CDNA2, CDNA3 = map(_cdna, (cdna_bits.CDNA2, cdna_bits.CDNA3))
ARCHITECTURES = {
    "gfx90a": CDNA2, "gfx942": CDNA3, "gfx1030": RDNA2, "gfx1100": RDNA3, "gfx1200": RDNA4,
    "gfx1201": RDNA4,
}


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
