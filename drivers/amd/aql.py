"""AQL: the queue format with which several XCCs (compute dies) share one ring.

A PM4 queue runs on one XCC. An AQL queue's firmware hands each of its 64-byte packets to every
XCC, and keeps barrier bits across them. A *vendor packet* carries an INDIRECT_BUFFER, so all run
the same PM4 list as elsewhere, each its share of every grid.

*Kernels are run by all XCCs, everything else by the first one. They meet wherever one kind of
work follows the other, and between kernels*: each has finished its share and written its caches
back, counts itself in memory, and waits until all are counted.

An entry is two packets: run the list; then, when all XCCs have, run this place's *tail*, in which
the first one resets the count and brings the timeline to its value. Tails lie beside the ring,
one for each of its places, because the value changes with every entry. Layouts: hsa.h,
amd_hsa_queue.h; the vendor packet is that of ROCR (amd_aql_queue.cpp, AqlQueue::ExecutePM4).
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from autogen import hsa
from drivers.amd import packets
from drivers.amd.encode import POLL_INTERVAL, Pm4Encoder
from drivers.amd.packets import Function, MemorySpace
from drivers.encoded import EncodedList
from drivers.fields import Layout, single
from drivers.queue import Exec

PACKET_DWORDS: Final = 16
FORMAT_PM4_IB: Final = 1  # ROCR, AMD_AQL_FORMAT_PM4_IB
_DWORDS_REMAIN: Final = 10  # ROCR, AMD_AQL_PM4_IB_DW_COUNT_REMAIN
FIRST_XCC: Final = 1  # of PRED_EXEC's virtual XCCs, a bit for each
_MINUS_ONE: Final = (1 << 64) - 1

VENDOR = Layout(
    "VENDOR_PM4_IB", PACKET_DWORDS,
    {
        "type": single(0, hsa.HSA_PACKET_HEADER_TYPE, hsa.HSA_PACKET_HEADER_WIDTH_TYPE),
        "barrier": single(0, hsa.HSA_PACKET_HEADER_BARRIER, hsa.HSA_PACKET_HEADER_WIDTH_BARRIER),
        "acquire_fence_scope": single(
            0, hsa.HSA_PACKET_HEADER_SCACQUIRE_FENCE_SCOPE,
            hsa.HSA_PACKET_HEADER_WIDTH_SCACQUIRE_FENCE_SCOPE,
        ),
        "release_fence_scope": single(
            0, hsa.HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE,
            hsa.HSA_PACKET_HEADER_WIDTH_SCRELEASE_FENCE_SCOPE,
        ),
        "format": single(0, 16, 16), "indirect_buffer": single(1, 0, 128),
        "dwords_remain": single(5, 0, 32), "completion_signal": single(14, 0, 64),
    },
    {"type": hsa.HSA_PACKET_TYPE_VENDOR_SPECIFIC, "format": FORMAT_PM4_IB,
     "dwords_remain": _DWORDS_REMAIN},
)


def vendor_packet(indirect_buffer: list[int]) -> list[int]:
    """A packet that begins when all before it have ended, and runs an INDIRECT_BUFFER."""
    value = sum(word << 32 * i for i, word in enumerate(indirect_buffer))
    return VENDOR(
        barrier=1, acquire_fence_scope=hsa.HSA_FENCE_SCOPE_SYSTEM,
        release_fence_scope=hsa.HSA_FENCE_SCOPE_SYSTEM, indirect_buffer=value,
    ).encode()


def fill_queue(address: int, ring: int, ring_bytes: int) -> None:
    """Fills in an amd_queue_t. Firmware takes scratch and apertures from it only for kernel
    dispatch packets, which are not used here: they stay 0.
    """
    queue = hsa.amd_queue_t.from_address(address)
    queue.hsa_queue.type = hsa.HSA_QUEUE_TYPE_SINGLE
    queue.hsa_queue.features = hsa.HSA_QUEUE_FEATURE_KERNEL_DISPATCH
    queue.hsa_queue.base_address = ring
    queue.hsa_queue.size = ring_bytes // (4 * PACKET_DWORDS)
    queue.read_dispatch_id_field_base_byte_offset = hsa.amd_queue_t.read_dispatch_id.offset
    queue.queue_properties = hsa.AMD_QUEUE_PROPERTIES_IS_PTR64
    blank = struct.pack("<H", hsa.HSA_PACKET_TYPE_INVALID).ljust(4 * PACKET_DWORDS, b"\0")
    ctypes.memmove(ring, blank * queue.hsa_queue.size, ring_bytes)


def only(xccs: int, words: list[int]) -> list[int]:
    """Packets that the chosen XCCs run and the others pass by. They must lie in a list."""
    return [*packets.PRED_EXEC(exec_count=len(words), virtual_xcc_select=xccs).encode(), *words]


class AqlEncoder(Pm4Encoder):
    """Lists for queues that several XCCs share."""

    _alone = True  # whether only the first XCC had work since the last meeting
    _meetings = 0

    def begin(self) -> None:
        """Nothing: the fence of the vendor packet is every XCC's acquire."""

    def add(self, layout: Layout, *tail: int, **values: int) -> int:
        """Appends a packet for the first XCC; after a kernel, once all have finished it."""
        if not self._alone:
            self._meet()
            self._alone = True
        packet = layout(*tail, **values).encode()
        at = len(self.words)
        self.words += only(FIRST_XCC, packet)
        return at + packets.PRED_EXEC.size_dwords

    def exec(self, step: Exec) -> None:
        """Every XCC runs its share, once all is done that comes before."""
        if self.words:
            self._meet()
        self._alone = False
        super().exec(step)

    def finish(self) -> EncodedList:
        """The entry's tail follows, when all XCCs are through."""
        if not self._alone:
            self._meet()
        return super().finish()

    def _meet(self) -> None:
        caches, xccs = self.device.generation.caches, self.device.node.xccs
        self._meetings += 1
        for packet in (
            packets.EVENT_WRITE(
                event_type=self.device.generation.events["CS_PARTIAL_FLUSH"],
                event_index=packets.EventIndex.PARTIAL_FLUSH,
            ),
            caches.acquire(**caches.refresh),
            packets.ATOMIC_MEM(
                operation=packets.ATOMIC_SUB_64, command=packets.ATOMIC_WRITE_CONFIRM,
                address=self.queue.hardware.meeting, source=_MINUS_ONE,
            ),
            packets.WAIT_REG_MEM(
                function=Function.GREATER_EQUAL, mem_space=MemorySpace.MEMORY,
                address=self.queue.hardware.meeting, reference=self._meetings * xccs,
                mask=(1 << 32) - 1, poll_interval=POLL_INTERVAL,
            ),
            caches.acquire(**caches.refresh),
        ):
            self.words += packet.encode()
