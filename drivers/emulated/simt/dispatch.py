"""What the translator is asked to run, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from drivers.emulated.simt import layout

READ, WRITE, EXECUTE = layout.READ, layout.WRITE, layout.EXECUTE
LOOP_BUDGET = 1 << 28
"""Backward jumps of a wave between two barriers, before it counts as hung: a second or so."""


class MemoryRange(NamedTuple):
    """Guest addresses `first` up to `end`, which may be accessed as `protection` says."""

    first: int
    end: int
    protection: int = READ | WRITE | EXECUTE


@dataclass(frozen=True)
class Fault:
    """Why a dispatch ended early. `kind` is `memory` or `hang`."""

    kind: str
    address: int
    access: str
    """`read`, `write`, `atomic` or `execute`; empty for a hang."""
    wave: int
    """The wave's number: workgroup × waves in a workgroup + wave in the workgroup."""
    pc: int
    """The guest address of the instruction; of the loop's start for a hang."""


class Dispatch(NamedTuple):
    """A kernel's launch, as its command processor has worked it out."""

    entry: int
    """Guest address of the first instruction."""
    scalars: tuple[int, ...]
    """The initial scalar registers from s0 on (user data), of 32 bits without sign."""
    group_ids: tuple[int, int, int]
    """Which scalar registers receive the workgroup's x, y, z; −1 for none. Where y and z have the
    same, z is its upper half."""
    block: tuple[int, int, int]
    """Threads in a workgroup."""
    grid: tuple[int, int, int]
    """Workgroups."""
    memory: tuple[MemoryRange, ...]
    thread_ids: str = "packed"
    """`packed`: v0 = x | y << 10 | z << 20. `separate`: v0, v1, v2. `line`: v0; v1 and v2, which no
    instruction writes, are 0."""
    gfx: str = "gfx1100"
    """The board's gfx number, which says what instructions mean."""
    wave_size: int = 32
    lds_bytes: int = 0
    scratch_bytes: int = 0
    """Of one lane."""
    float_mode: int = 0xF0
    """The FLOAT_MODE field of RSRC1: rounding in bits 0–3, denormals kept in 4–7."""
    scratch_register: int = -1
    """The scalar register that receives the wave's offset in the scratch that the program
    allotted; −1 where waves find their scratch without it."""
    loop_budget: int = LOOP_BUDGET
    end_address: int = 0
    """Of a 32-bit word of this process: once it is not 0 no more workgroups are begun. 0: none."""
    table: tuple[int, int] = (0, 0)
    """Address and size of words that say where jumps by a register may lead."""
