"""A launch of NVIDIA's machine code, as a QMD and the compute class's state describe it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from drivers.emulated.simt import sass_registers
from drivers.emulated.simt.dispatch import LOOP_BUDGET, Dispatch, Fault, MemoryRange
from drivers.emulated.simt.engine import Engine
from drivers.emulated.simt.instruction import UnknownInstruction

_TABLES = 2
"""The constant bank with tables of branches and functions."""


class ConstantBank(NamedTuple):
    """What one constant bank shows: a range of guest memory, to be read."""

    address: int
    size_bytes: int


@dataclass(frozen=True)
class Launch:
    """A grid. Blocks, threads and addresses are as the QMD names them; nothing is worked out."""

    architecture: str
    """`sm_75`, `sm_89`, `sm_90`: says what instructions mean."""
    entry: int
    """Guest address of the first instruction (PROGRAM_ADDRESS)."""
    grid: tuple[int, int, int]
    """Blocks (CTA_RASTER_WIDTH, HEIGHT, DEPTH; GRID_WIDTH … in V4)."""
    block: tuple[int, int, int]
    """Threads of a block (CTA_THREAD_DIMENSION0, 1, 2)."""
    memory: tuple[MemoryRange, ...]
    """Guest addresses that may be touched; what lies in no range is a fault."""
    constant_banks: Mapping[int, ConstantBank] = field(default_factory=dict)
    """The valid banks by number. Beyond a bank's size a read gives 0."""
    registers: int = 255
    """REGISTER_COUNT; that no instruction names a higher one is not checked."""
    barriers: int = 16
    """BARRIER_COUNT."""
    shared_bytes: int = 0
    """SHARED_MEMORY_SIZE: of a block."""
    local_bytes: int = 0
    """SHADER_LOCAL_MEMORY_LOW_SIZE and HIGH_SIZE: of a thread."""
    shared_window: int = 0
    """Generic addresses from here on, 16 MiB of them, are shared memory."""
    local_window: int = 0
    """Generic addresses from here on, 16 MiB of them, are the thread's local memory."""
    loop_budget: int = LOOP_BUDGET
    end_address: int = 0
    """Of a 32-bit word: once it is not 0 no more blocks are begun. 0: none."""

    @functools.cached_property
    def dispatch(self) -> Dispatch:
        """What the translator is told: the launch's state as a warp's first scalar registers.

        Raises UnknownInstruction.
        """
        scalars = [0] * sass_registers.PREDICATE
        for number, bank in self.constant_banks.items():
            if number >= sass_registers.BANKS:
                raise UnknownInstruction(
                    f"Constant bank {number} is beyond the {sass_registers.BANKS} modelled.",
                    operation="launch",
                )
            first = sass_registers.BANK + sass_registers.BANK_REGISTERS * number
            scalars[first : first + 3] = [
                bank.address & 0xFFFFFFFF, bank.address >> 32, bank.size_bytes
            ]
        for n, window in enumerate((self.shared_window, self.local_window)):
            at = sass_registers.WINDOWS + 2 * n
            scalars[at : at + 2] = [window & 0xFFFFFFFF, window >> 32]
        x = sass_registers.BLOCK_ID
        return Dispatch(
            entry=self.entry, scalars=tuple(scalars), group_ids=(x, x + 1, x + 2),
            block=self.block, grid=self.grid, memory=self.memory,
            thread_ids="line" if self.block[1:] == (1, 1) else "separate",
            gfx=self.architecture, wave_size=32,
            lds_bytes=self.shared_bytes, scratch_bytes=self.local_bytes,
            loop_budget=self.loop_budget, end_address=self.end_address,
            table=self.constant_banks.get(_TABLES, ConstantBank(0, 0)),
        )


def run(engine: Engine, launch: Launch, groups: tuple[int, int]) -> Fault | None:
    """Runs blocks of a grid, `groups` the first and the end of them in the order x, y, z.

    Returns why they ended early, if they did. Raises UnknownInstruction.
    """
    return engine.run(launch.dispatch, groups)
