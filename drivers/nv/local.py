"""Local memory: where threads keep their stack and private arrays.

Each texture processing cluster (TPC) takes its part of the queue's area by itself; there is room
for every warp that may run at once. The formula is the facts' of other drivers (none is
documented): a warp's part in units of 512 bytes, a TPC's of 32 KiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compiler.nvidia import WARP
from drivers.encoded import aligned

if TYPE_CHECKING:
    from drivers.nv.device import NvDevice

_WARP_UNIT: Final = 0x200
_TPC_UNIT: Final = 0x8000
_AREA_UNIT: Final = 0x20000


class LocalMemory:
    """The area of a queue, for kernels that take up to `thread_bytes` a thread."""

    def __init__(self, device: NvDevice, thread_bytes: int) -> None:
        gpu = device.gpu
        warp_bytes = aligned(thread_bytes * WARP, _WARP_UNIT)
        self.thread_bytes = warp_bytes // WARP
        self.bytes_per_tpc = aligned(warp_bytes * gpu.warps_per_sm * gpu.sms_per_tpc, _TPC_UNIT)
        total = aligned(self.bytes_per_tpc * gpu.tpcs_per_gpc * gpu.gpcs, _AREA_UNIT)
        self.storage = device.allocator.allocate(total + _AREA_UNIT)
        self.address = aligned(self.storage.address, _AREA_UNIT)
