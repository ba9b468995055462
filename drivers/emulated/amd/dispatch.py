"""From the registers of a compute queue to a run of a kernel's machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.amd.engine import BadPacket

if TYPE_CHECKING:
    from drivers.emulated.amd.pm4 import ComputeEngine


class Dispatcher:
    """Launches grids for one compute queue."""

    def __init__(self, engine: ComputeEngine) -> None:
        self.engine = engine

    def run(self, x: int, y: int, z: int, initiator: int) -> None:
        """Runs a grid of x * y * z workgroups to its end. Raises BadPacket, GpuFault."""
        raise BadPacket("this board has no translator for machine code yet")
