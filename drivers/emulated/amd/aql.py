"""The compute engine on an AQL queue: 64-byte packets, which firmware expands (HSA standard, 2.9).

*The program writes a packet's header last; the engine looks at no packet whose header is
INVALID, and writes INVALID when it has done it.* Packets are done one after another, so that
barrier bits are always kept.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from typing import Any

from autogen import amdhsa, hsa
from drivers.emulated.amd.clock import gpu_clock
from drivers.emulated.amd.dispatch import (
    RSRC1_FLOAT_MODE,
    RSRC2_USER_SGPR,
    Launch,
    get,
    group_ids,
    scratch_register,
)
from drivers.emulated.amd.engine import QueueProperties
from drivers.emulated.amd.pm4 import ComputeEngine
from drivers.emulated.amd.process import KfdProcess
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.caches import FIRST_LEVEL, Action
from drivers.emulated.engine import BadPacket
from drivers.emulated.native import EQUAL, NOT_EQUAL
from drivers.emulated.schedule import FULL_MASK, NOT_RUNG

PACKET_BYTES = 64
TYPE_MASK = 0xFF
COMPLETION_AT = 56  # of every packet
DEPENDENCIES_AT, DEPENDENCY_COUNT = 8, 5  # of a barrier packet
VENDOR_PM4_IB = 1  # of a vendor packet's second half-word: an INDIRECT_BUFFER packet follows
VALUE_AT = hsa.struct_amd_signal_s._0.offset
DESCRIPTOR_BYTES = 64

# What fences do, by their scope: none, agent, system. First-level caches write through.
ACQUIRES = (Action.NONE, FIRST_LEVEL, FIRST_LEVEL | Action.INVALIDATE_L2, Action.NONE)
RELEASES = (Action.NONE, Action.NONE, Action.WRITE_BACK_L2, Action.NONE)

# User SGPRs in the order in which they are given: property, how many.
USER_SGPRS = (
    (amdhsa.KERNEL_CODE_PROPERTY_ENABLE_SGPR_PRIVATE_SEGMENT_BUFFER, 4),
    (amdhsa.KERNEL_CODE_PROPERTY_ENABLE_SGPR_DISPATCH_PTR, 2),
    (amdhsa.KERNEL_CODE_PROPERTY_ENABLE_SGPR_QUEUE_PTR, 2),
    (amdhsa.KERNEL_CODE_PROPERTY_ENABLE_SGPR_KERNARG_SEGMENT_PTR, 2),
    (amdhsa.KERNEL_CODE_PROPERTY_ENABLE_SGPR_DISPATCH_ID, 2),
    (amdhsa.KERNEL_CODE_PROPERTY_ENABLE_SGPR_FLAT_SCRATCH_INIT, 2),
    (amdhsa.KERNEL_CODE_PROPERTY_ENABLE_SGPR_PRIVATE_SEGMENT_SIZE, 1),
)


def _split(value: int) -> tuple[int, int]:
    return value & 0xFFFFFFFF, value >> 32


class AqlEngine(ComputeEngine):
    """An AQL compute queue. Pointers count packets and never wrap."""

    kind = "AQL"

    def __init__(self, process: KfdProcess, gpu: Gpu, properties: QueueProperties) -> None:
        super().__init__(process, gpu, properties)
        self.read_index = ctypes.c_uint64.from_address(
            self.memory.place(properties.read_pointer_address)
        )
        self.queue_address = (
            properties.write_pointer_address - hsa.struct_amd_queue_s.write_dispatch_id.offset
        )

    def xcc_count(self, gpu: Gpu) -> int:
        """Firmware hands each packet to all of them."""
        return gpu.board.num_xcc

    def report_read_pointer(self) -> None:
        """AQL read indices are 64 bits, in packets."""
        self.read_index.value = self.read

    def consume(self, doorbell: int) -> None:
        """The doorbell's value is the number of the last packet."""
        count = self.properties.ring_bytes // PACKET_BYTES
        while self.read <= doorbell != NOT_RUNG:
            slot = self.properties.ring_address + self.read % count * PACKET_BYTES
            self.wait_memory(slot, 4, TYPE_MASK, NOT_EQUAL, hsa.HSA_PACKET_TYPE_INVALID)
            self._do(slot, self.memory.read(slot, PACKET_BYTES))
            header = ctypes.c_uint16.from_address(self.memory.place(slot))
            header.value = hsa.HSA_PACKET_TYPE_INVALID
            self.read += 1
            self.report_read_pointer()

    def _do(self, address: int, packet: bytes) -> None:
        kind = packet[0]
        self.schedule.step(self, f"packet {self.read} of type {kind}")
        started = gpu_clock()
        header = int.from_bytes(packet[:2], "little")
        barrier = kind in (hsa.HSA_PACKET_TYPE_BARRIER_AND, hsa.HSA_PACKET_TYPE_BARRIER_OR)
        if not barrier:  # a barrier acquires what those have written for which it waits
            self.caches.do(ACQUIRES[header >> hsa.HSA_PACKET_HEADER_SCACQUIRE_FENCE_SCOPE & 3])
        if kind == hsa.HSA_PACKET_TYPE_KERNEL_DISPATCH:
            self._kernel(address, hsa.struct_hsa_kernel_dispatch_packet_s.from_buffer_copy(packet))
        elif barrier:
            signals = struct.unpack_from(f"<{DEPENDENCY_COUNT}Q", packet, DEPENDENCIES_AT)
            self._barrier([s for s in signals if s], kind == hsa.HSA_PACKET_TYPE_BARRIER_AND)
        elif kind == hsa.HSA_PACKET_TYPE_VENDOR_SPECIFIC and packet[2] == VENDOR_PM4_IB:
            self._execute(list(struct.unpack_from("<4I", packet, 4)), None)
        else:
            raise BadPacket(f"AQL packet of type {kind}")
        self.dispatcher.finish()
        if barrier:
            self.caches.do(ACQUIRES[header >> hsa.HSA_PACKET_HEADER_SCACQUIRE_FENCE_SCOPE & 3])
        self.caches.do(RELEASES[header >> hsa.HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE & 3])
        (signal,) = struct.unpack_from("<Q", packet, COMPLETION_AT)
        if signal:
            self._complete(signal, started)

    def _barrier(self, signals: list[int], every: bool) -> None:
        if every:
            for signal in signals:
                self.wait_memory(signal + VALUE_AT, 8, FULL_MASK, EQUAL, 0)
        elif signals:
            self.wait_any([signal + VALUE_AT for signal in signals])

    def _complete(self, signal: int, started: int) -> None:
        """Times, then the value, then the event: who sees the value may read the times."""
        layout = hsa.struct_amd_signal_s
        self.memory.store(signal + layout.start_ts.offset, started, 8)
        self.memory.store(signal + layout.end_ts.offset, gpu_clock(), 8)
        with self.process.atomics:
            value = self.memory.load(signal + VALUE_AT, 8) - 1
            self.memory.store(signal + VALUE_AT, value, 8)
        self.native.notify()
        mailbox = self.memory.load(signal + layout.event_mailbox_ptr.offset, 8)
        if mailbox:
            event = self.memory.load(signal + layout.event_id.offset, 4)
            self.memory.store(mailbox, event, 8)
            self.interrupt(event)

    def _kernel(self, address: int, packet: Any) -> None:
        block = (packet.workgroup_size_x, packet.workgroup_size_y, packet.workgroup_size_z)
        sizes = (packet.grid_size_x, packet.grid_size_y, packet.grid_size_z)
        if not all(block) or any(s % b for s, b in zip(sizes, block, strict=True)):
            raise BadPacket(f"AQL: {sizes} threads are no whole workgroups of {block}")
        grid = tuple(size // each for size, each in zip(sizes, block, strict=True))
        descriptor = packet.kernel_object
        content = self.memory.read(descriptor, DESCRIPTOR_BYTES)
        (offset,) = struct.unpack_from("<q", content, amdhsa.KERNEL_CODE_ENTRY_BYTE_OFFSET_OFFSET)
        (first,) = struct.unpack_from("<I", content, amdhsa.COMPUTE_PGM_RSRC1_OFFSET)
        (second,) = struct.unpack_from("<I", content, amdhsa.COMPUTE_PGM_RSRC2_OFFSET)
        (properties,) = struct.unpack_from("<H", content, amdhsa.KERNEL_CODE_PROPERTIES_OFFSET)
        count = get(second, RSRC2_USER_SGPR)
        scalars = self._user_sgprs(address, packet, properties)[:count]
        wave32 = properties & amdhsa.KERNEL_CODE_PROPERTY_ENABLE_WAVEFRONT_SIZE32
        self.dispatcher.launch(Launch(
            entry=descriptor + offset,
            scalars=tuple(scalars + [0] * (count - len(scalars))),
            group_ids=group_ids(second, count),
            scratch_register=scratch_register(second, count),
            block=(block[0], block[1], block[2]),
            grid=(grid[0], grid[1], grid[2]),
            wave_size=32 if wave32 else 64,
            lds_bytes=packet.group_segment_size,
            scratch_bytes=packet.private_segment_size,
            float_mode=get(first, RSRC1_FLOAT_MODE),
        ))

    def _user_sgprs(self, address: int, packet: Any, properties: int) -> list[int]:
        layout = hsa.struct_amd_queue_s
        buffer = self.queue_address + layout.scratch_resource_descriptor.offset
        location = self.queue_address + layout.scratch_backing_memory_location.offset
        values: tuple[Callable[[], Iterable[int]], ...] = (
            lambda: self.memory.words(buffer, 4),
            lambda: _split(address),
            lambda: _split(self.queue_address),
            lambda: _split(packet.kernarg_address or 0),
            lambda: _split(self.read),
            lambda: _split(self.memory.load(location, 8)),
            lambda: [packet.private_segment_size],
        )
        scalars: list[int] = []
        for (enabled, _), value in zip(USER_SGPRS, values, strict=True):
            if properties & enabled:
                scalars += value()
        return scalars
