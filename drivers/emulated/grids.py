"""Between an engine that launches grids and the translator that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.engine import BadPacket, Engine
from drivers.emulated.memory import EXECUTE, READ, WRITE, GpuFault, PageTable

if TYPE_CHECKING:
    from drivers.emulated.simt.dispatch import Fault, MemoryRange


class Ranges:
    """What a page table allows, as the translator wants it: worked out again after a change."""

    def __init__(self, table: PageTable) -> None:
        self.table, self.generation = table, -1
        self.known: tuple[MemoryRange, ...] = ()

    def now(self) -> tuple[MemoryRange, ...]:
        """The ranges."""
        from drivers.emulated.simt.dispatch import MemoryRange

        if self.generation != self.table.generation:
            self.generation = self.table.generation
            self.known = tuple(
                MemoryRange(mapping.start, mapping.end, mapping.protection)
                for mapping in self.table.mappings
            )
        return self.known


def report(engine: Engine, fault: Fault) -> None:
    """Raises what a grid that ended early means to its queue: GpuFault or BadPacket."""
    where = f"wave {fault.wave}, pc {fault.pc:#x}"
    if fault.kind != "memory":
        raise BadPacket(f"the kernel never ends ({where})")
    access = {"read": READ, "execute": EXECUTE}.get(fault.access, WRITE)
    engine.owner.log.append(f"{engine.name}: {fault.access} fault, {where}")
    present = engine.memory.table.find(fault.address) is not None
    raise GpuFault(fault.address, access, present)
