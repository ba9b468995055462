"""Scratch memory: what the waves of a queue spill to, and where kernels keep private arrays.

A wave takes a slot by itself; the queue's memory has one for every wave that may run at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from drivers.amd.device import AmdDevice

_LANES: Final = 64  # slots are measured for waves of 64 lanes, whatever runs in them
_ALIGNMENT: Final = 256


class Scratch:
    """Memory for kernels that take up to `private_bytes` a thread, and its TMPRING_SIZE."""

    def __init__(self, device: AmdDevice, private_bytes: int) -> None:
        generation, node = device.generation, device.node
        unit = generation.scratch_unit_bytes
        wave_bytes = -(-private_bytes * _LANES // unit) * unit
        self.private_bytes = wave_bytes // _LANES
        slots = node.scratch_slots * node.compute_units
        waves = slots
        if generation.scratch_waves_per_engine:  # the field counts those of one shader engine
            waves //= max(1, node.shader_engines)
        waves = min(waves, generation.field_limit("COMPUTE_TMPRING_SIZE", "WAVES"))
        self.tmpring = generation.register(
            "COMPUTE_TMPRING_SIZE", WAVES=waves, WAVESIZE=wave_bytes // unit
        )
        self.xcc_bytes = wave_bytes * slots
        total = self.xcc_bytes * node.xccs
        self._storage = device.allocator.allocate(total + _ALIGNMENT)
        self.address = -(-self._storage.address // _ALIGNMENT) * _ALIGNMENT
