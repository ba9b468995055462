"""From the registers of a compute queue to a run of a kernel's machine code.

What the hardware's dispatcher works out of them, and gives to the shader array, is written into
a `Dispatch` of the translator. (gc_*_sh_mask.h, COMPUTE_*; LLVM's AMDGPUUsage, initial state.)
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from drivers.emulated.engine import BadPacket
from drivers.emulated.grids import Ranges, report
from drivers.emulated.memory import WRITE

if TYPE_CHECKING:
    from drivers.emulated.amd.pm4 import ComputeEngine
    from drivers.emulated.simt.dispatch import Dispatch, MemoryRange

Field = tuple[int, int]  # shift, width

INITIATOR_SHADER_EN: Field = (0, 1)
INITIATOR_FORCE_START_AT_000: Field = (2, 1)
INITIATOR_USE_THREAD_DIMENSIONS: Field = (5, 1)
INITIATOR_W32_EN: Field = (15, 1)
RSRC1_FLOAT_MODE: Field = (12, 8)
RSRC2_SCRATCH_EN: Field = (0, 1)
RSRC2_USER_SGPR: Field = (1, 5)
# Where gfx12 keeps the workgroup's number: x in ttmp9, y and z in the halves of ttmp7.
ARCHITECTED_GROUP_IDS = (117, 115, 115)
RSRC2_TGID_INFO: Field = (10, 1)
RSRC2_TGID: tuple[Field, ...] = ((7, 1), (8, 1), (9, 1))
RSRC2_LDS_SIZE: Field = (15, 9)
NUM_THREAD_FULL: Field = (0, 16)

LDS_GRANULE_BYTES = 512
THREAD_LIMIT = 1024
USER_DATA_COUNT = 16
AXES = "XYZ"
LAUNCH_REGISTERS = re.compile(
    "COMPUTE_(NUM_THREAD_[XYZ]|START_[XYZ]|PGM_LO|PGM_HI|PGM_RSRC[12]|USER_DATA_[0-9]+"
    "|TMPRING_SIZE|DISPATCH_SCRATCH_BASE_LO|DISPATCH_SCRATCH_BASE_HI)"
)
LAUNCHES = 1024  # that a queue remembers


def get(value: int, place: Field) -> int:
    """A field of a register."""
    shift, width = place
    return value >> shift & (1 << width) - 1


class Launch(NamedTuple):
    """A grid, as registers or an AQL packet describe it; fields as in the translator's Dispatch."""

    entry: int
    scalars: tuple[int, ...]
    group_ids: tuple[int, int, int]
    block: tuple[int, int, int]
    grid: tuple[int, int, int]
    wave_size: int
    lds_bytes: int
    scratch_bytes: int
    float_mode: int
    scratch_register: int = -1


class Share(NamedTuple):
    """Which workgroups of a grid one XCC does (COMPUTE_TG_CHUNK_SIZE 1, as the kernel sets it)."""

    first: int
    every: int


ALL = Share(0, 1)


def scratch_register(second: int, first_free: int) -> int:
    """Which scalar register receives a wave's offset in scratch, by RSRC2; -1 for none.

    It comes behind the workgroup's numbers. (Where scratch is architected, nobody reads it.)
    """
    if not get(second, RSRC2_SCRATCH_EN):
        return -1
    before = sum(get(second, enabled) for enabled in (*RSRC2_TGID, RSRC2_TGID_INFO))
    return first_free + before


def group_ids(second: int, first_free: int) -> tuple[int, int, int]:
    """Which scalar registers receive the workgroup's number, by RSRC2; -1 for none."""
    places, place = [], first_free
    for enabled in RSRC2_TGID:
        places.append(place if get(second, enabled) else -1)
        place += get(second, enabled)
    return places[0], places[1], places[2]


class Registers:
    """The registers that a launch follows from, by name, as a queue has set them."""

    def __init__(self, engine: ComputeEngine) -> None:
        board = engine.gpu.board
        table: Any = importlib.import_module(f"autogen.{board.gc_registers}")
        bases = board.ip_bases["GC"]
        self.numbers: dict[str, int] = {
            name: bases[segment] + offset
            for name, (offset, segment) in table.REGISTERS.items()
            if LAUNCH_REGISTERS.fullmatch(name)
        }
        self.engine = engine

    def __getitem__(self, name: str) -> int:
        return self.engine.registers.get(self.numbers[f"COMPUTE_{name}"], 0)

    def values(self) -> tuple[int | None, ...]:
        """All of them."""
        return tuple(map(self.engine.registers.get, self.numbers.values()))

    def axes(self, name: str) -> tuple[int, int, int]:
        """The registers of a name for x, y and z."""
        x, y, z = (self[f"{name}_{axis}"] for axis in AXES)
        return x, y, z


class Dispatcher:
    """Launches grids for one compute queue."""

    def __init__(self, engine: ComputeEngine) -> None:
        self.engine = engine
        self.registers = Registers(engine)
        self.ranges = Ranges(engine.memory.table)
        self.held: list[tuple[Launch, Share]] = []  # begun as far as packets know
        self.launches: dict[tuple[int | None, ...], Launch] = {}  # by registers and packet
        self.dispatches: dict[Launch, Dispatch] = {}

    def run(self, x: int, y: int, z: int, initiator: int) -> None:
        """Runs a grid of workgroups to its end, each XCC its share. Raises BadPacket, GpuFault."""
        engine, launches = self.engine, {}
        for xcc in engine.chosen_xccs():
            engine.registers = engine.banks[xcc]
            launches[Share(xcc, len(engine.banks))] = self._launch_of(x, y, z, initiator)
        engine.registers = engine.banks[0]
        if len(launches) == len(engine.banks) and len(set(launches.values())) == 1:
            launches = {ALL: launches.popitem()[1]}  # as if one did it
        for share, launch in launches.items():
            if engine.schedule.holds_back():
                self.held.append((launch, share))
            else:
                self.launch(launch, share)

    def _launch_of(self, x: int, y: int, z: int, initiator: int) -> Launch:
        """What the registers say, worked out once for equal ones. Raises BadPacket, GpuFault."""
        values = self.registers.values()
        launch = self.launches.get((x, y, z, initiator, *values))
        if launch is None:
            if len(self.launches) == LAUNCHES:
                self.launches.clear()
            launch = self._described(x, y, z, initiator)
            self.launches[x, y, z, initiator, *values] = launch
        if launch.scratch_bytes:
            self._check_scratch(launch.scratch_bytes * launch.wave_size)
        return launch

    def _described(self, x: int, y: int, z: int, initiator: int) -> Launch:
        registers = self.registers
        if not get(initiator, INITIATOR_SHADER_EN):
            raise BadPacket(f"DISPATCH: initiator {initiator:#x} enables no shader")
        block = registers.axes("NUM_THREAD")
        threads = tuple(get(number, NUM_THREAD_FULL) for number in block)
        if not all(threads):
            raise BadPacket(f"DISPATCH: workgroups of {threads} threads")
        grid = (x, y, z)
        if get(initiator, INITIATOR_USE_THREAD_DIMENSIONS):
            if any(size % count for size, count in zip(grid, threads, strict=True)):
                raise BadPacket(f"DISPATCH: {grid} threads are no whole workgroups of {threads}")
            x, y, z = (size // count for size, count in zip(grid, threads, strict=True))
        if any(registers.axes("START")) and not get(initiator, INITIATOR_FORCE_START_AT_000):
            raise BadPacket(f"DISPATCH: a grid that starts at {registers.axes('START')}")
        return self._from_registers((x, y, z), (threads[0], threads[1], threads[2]), initiator)

    def finish(self) -> None:
        """Runs what was held back. Raises BadPacket, GpuFault."""
        held, self.held = self.held, []
        for launch, share in self.engine.schedule.shuffled(held):
            self.launch(launch, share)

    def _from_registers(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], initiator: int
    ) -> Launch:
        registers = self.registers
        second = registers["PGM_RSRC2"]
        count = get(second, RSRC2_USER_SGPR)
        if count > USER_DATA_COUNT:
            raise BadPacket(f"DISPATCH: {count} user SGPRs; there are {USER_DATA_COUNT}")
        wave32 = get(initiator, INITIATOR_W32_EN) and self.engine.gpu.board.wave_front_size == 32
        wave_size = 32 if wave32 else 64
        return Launch(
            entry=(registers["PGM_LO"] | registers["PGM_HI"] << 32) << 8,
            scalars=tuple(registers[f"USER_DATA_{i}"] for i in range(count)),
            group_ids=group_ids(second, count),
            block=block,
            grid=grid,
            wave_size=wave_size,
            lds_bytes=get(second, RSRC2_LDS_SIZE) * LDS_GRANULE_BYTES,
            scratch_bytes=self._scratch(second, wave_size),
            float_mode=get(registers["PGM_RSRC1"], RSRC1_FLOAT_MODE),
            scratch_register=scratch_register(second, count),
        )

    def launch(self, launch: Launch, share: Share = ALL) -> None:
        """Runs a grid to its end. Raises BadPacket, GpuFault."""
        caches, translator = self.engine.caches, self.engine.process.simt()
        count = launch.grid[0] * launch.grid[1] * launch.grid[2]
        with caches.grid():
            for part in self._parts(count, share):
                with caches.waves():
                    fault = translator.run(self._dispatch_of(launch), part)
                if fault is not None:
                    report(self.engine, fault)

    def _dispatch_of(self, launch: Launch) -> Dispatch:
        """What the translator is told, made once for equal launches in the same memory.

        Raises BadPacket.
        """
        memory = self.ranges.now()
        known = self.dispatches.get(launch)
        if known is None or known.memory is not memory:
            if len(self.dispatches) == LAUNCHES:
                self.dispatches.clear()
            known = self.dispatches[launch] = self._checked(launch, memory)
        return known

    def _checked(self, launch: Launch, memory: tuple[MemoryRange, ...]) -> Dispatch:
        from drivers.emulated.simt.dispatch import Dispatch

        board = self.engine.gpu.board
        total = launch.block[0] * launch.block[1] * launch.block[2]
        if not 1 <= total <= THREAD_LIMIT:
            raise BadPacket(f"workgroups of {launch.block} threads; 1 to {THREAD_LIMIT}")
        if launch.lds_bytes > board.lds_kib << 10:
            raise BadPacket(f"{launch.lds_bytes} bytes of LDS; there are {board.lds_kib} KiB")
        if board.architected_group_ids:
            launch = launch._replace(group_ids=ARCHITECTED_GROUP_IDS)
        return Dispatch(
            memory=memory, gfx=board.name,
            thread_ids="packed" if board.packed_thread_ids else "separate",
            end_address=self.engine.stop_address,
            **launch._asdict(),
        )

    def _parts(self, count: int, share: Share) -> Iterator[tuple[int, int]]:
        """The parts of a grid in the order of the schedule, each when its turn comes."""
        schedule = self.engine.schedule
        mine = range(share.first, count, share.every)
        for first, end in schedule.slices(len(mine)) if mine else ():
            schedule.step(self.engine, f"workgroups {mine[first]} to {mine[end - 1]}")
            if share.every == 1:
                yield first, end
            else:
                yield from ((group, group + 1) for group in mine[first:end])

    def _scratch(self, second: int, wave_size: int) -> int:
        """Bytes of scratch for a lane."""
        if not get(second, RSRC2_SCRATCH_EN):
            return 0
        board = self.engine.gpu.board
        waves = get(self.registers["TMPRING_SIZE"], board.tmpring_wavesize)
        return waves * board.scratch_unit_bytes // wave_size

    def _check_scratch(self, size_bytes: int) -> None:
        """What the base register points to must be mapped, though unused. Raises GpuFault."""
        registers = self.registers
        if self.engine.gpu.board.architected_scratch:
            base = registers["DISPATCH_SCRATCH_BASE_LO"] | (
                registers["DISPATCH_SCRATCH_BASE_HI"] << 32
            )
            self.engine.memory.table.check(base << 8, size_bytes, WRITE)
