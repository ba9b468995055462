"""The instruction sets that there are: what the translator must know of each, by gfx number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drivers.emulated.simt import (
    amd,
    amd_decode,
    amd_function,
    amd_memory,
    cdna,
    cdna_bits,
    rdna_bits,
    sass_decode,
    sass_flow,
    sass_function,
    sass_memory,
    sass_registers,
)
from drivers.emulated.simt.amd_bits import Generation
from drivers.emulated.simt.instruction import Instruction, UnknownInstruction
from drivers.emulated.simt.program import Program

Flow = tuple[tuple[int, ...], bool]
"""Where an instruction may go on, and whether a block ends with it."""


@dataclass(frozen=True)
class Architecture:
    """One instruction set."""

    decode: Callable[[bytes, int, int, int], Any]
    """Of code, the offset in it, which is the pc, the wave size, and the code's address."""
    absolute: Callable[[Any], bool]
    """Whether what an instruction means depends on the code's address."""
    flow: Callable[[Any], Flow]
    leads: Callable[[Any, Callable[[int], Any], Callable[[], bytes]], tuple[int, ...]]
    """Where else it may go on, by the code (as a function that decodes at a pc) and the dispatch's
    table, which is read only if it matters."""
    waits: Callable[[Any], bool]
    """Whether an instruction waits for the workgroup's other waves."""
    numbered: Callable[[Any], bool]
    """Whether it does so at one of several barriers, which the runner must tell apart."""
    memory_kinds: Callable[[Any], tuple[int, ...]]
    """Which memories an instruction may access: it has a slot for each."""
    translate: Callable[[Program[Any], int, dict[int, int], bool], str]
    """A kernel's LLVM IR: of its code, the wave size, the slots of its memory instructions by
    their pc, and whether it is the version for waves that start with all their lanes."""
    wave_sizes: tuple[int, ...]
    vector_registers: int
    opcodes: dict[str, dict[int, str]]
    """The names of each format's opcodes."""


def _amd(
    generation: Generation, translator: type[amd.Translator], wave_sizes: tuple[int, ...],
    vector_registers: int,
) -> Architecture:
    making = functools.partial(translator, generation=generation.name)
    return Architecture(
        functools.partial(_decode, generation), _never, amd.flow, _nowhere,
        amd.waits, _never, amd_memory.kinds_of,
        functools.partial(amd_function.translate, making), wave_sizes, vector_registers,
        generation.opcodes,
    )


def _nowhere(*_: object) -> tuple[int, ...]:
    """All places where an instruction leads stand in it."""
    return ()


def _never(instruction: Instruction) -> bool:
    return False


def _decode(
    generation: Generation, code: bytes, offset: int, wave_size: int, entry: int
) -> Instruction:
    return amd_decode.decode(code, offset, None, wave_size, generation)


RDNA2, RDNA3, RDNA4 = (
    _amd(generation, amd.Translator, (32, 64), 256)
    for generation in (rdna_bits.RDNA2, rdna_bits.RDNA3, rdna_bits.RDNA4)
)
CDNA2, CDNA3 = (
    _amd(generation, cdna.Translator, (64,), 512)
    for generation in (cdna_bits.CDNA2, cdna_bits.CDNA3)
)


def _sass(arch: str) -> Architecture:
    return Architecture(
        lambda code, offset, wave_size, entry: sass_decode.counted_from(
            sass_decode.decode(code, offset, arch), entry
        ),
        sass_decode.absolute,
        sass_flow.flow, sass_flow.leads, sass_flow.waits, sass_flow.numbered,
        sass_memory.kinds_of, sass_function.translate, (32,), sass_registers.VECTOR_REGISTERS, {},
    )


TURING, ADA, HOPPER = map(_sass, ("sm_75", "sm_89", "sm_90"))
ARCHITECTURES = {
    "gfx90a": CDNA2, "gfx942": CDNA3, "gfx1030": RDNA2, "gfx1100": RDNA3, "gfx1200": RDNA4,
    "gfx1201": RDNA4, "sm_75": TURING, "sm_86": ADA, "sm_89": ADA, "sm_90": HOPPER,
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
