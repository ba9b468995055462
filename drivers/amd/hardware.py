"""A queue of the hardware: its ring, pointers, context-save area and doorbell, from the kernel.

Sizes of the end-of-pipe buffer and the context-save area are kfd_queue.c's
(kfd_queue_ctx_save_restore_size); the kernel refuses others, and wants each buffer to be an
allocation of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from autogen import hsa
from autogen import kfd as uapi
from drivers.amd import aql, packets
from drivers.amd.memory import HOST, VRAM, VRAM_UNCACHED
from drivers.amd.packets import DataSelect, InterruptSelect
from drivers.blocks import Block, page_aligned
from drivers.errors import HardwareError, OutOfDeviceMemory, QueueLimit, SystemCallFailed
from drivers.native.image import native
from drivers.native.layout import RingState
from drivers.system import PAGE_BYTES

if TYPE_CHECKING:
    from drivers.amd.device import AmdDevice
    from drivers.amd.generations import Generation
    from drivers.amd.topology import GpuNode

EOP_BYTES: Final = 4096
_PRIORITY: Final = 7  # of 0 to 15
_PERCENTAGE: Final = 100
_DOORBELL_PAGE_BYTES: Final = 0x2000  # kfd_doorbell.c: 1024 doorbells of 8 bytes for a process
_READ_POINTER_AT: Final = 64  # its own cache line: the GPU writes it
_TEMPLATE_AT: Final = 512
_WAVES_PER_CU: Final = 32
_GFX9_WAVES_PER_CU, _GFX9_WAVES_PER_ARRAY = 40, 512
_SGPR_BYTES_PER_CU: Final = 0x4000
_HWREG_BYTES_PER_CU: Final = 0x1000
_AREA_HEADER_BYTES: Final = 40  # kfd_ioctl.h, struct kfd_context_save_area_header
_DEBUG_BYTES_PER_WAVE: Final = 32


@dataclass(frozen=True)
class SaveArea:
    """How large a compute queue's context-save area is: as the ioctl wants it, and in memory."""

    control_bytes: int
    save_bytes: int
    total_bytes: int


def save_area(generation: Generation, node: GpuNode) -> SaveArea:
    """kfd_queue.c, kfd_queue_ctx_save_restore_size."""
    units = node.compute_units
    if generation.gfx9:
        arrays = node.value("array_count") // node.value("simd_arrays_per_engine")
        waves = min(units * _GFX9_WAVES_PER_CU, arrays * _GFX9_WAVES_PER_ARRAY)
    else:
        waves = units * _WAVES_PER_CU
    control = page_aligned(_AREA_HEADER_BYTES + 8 + waves * generation.control_bytes_per_wave)
    control = min(control, generation.control_limit_bytes)
    group = (
        generation.vgpr_bytes_per_cu + _SGPR_BYTES_PER_CU + generation.lds_bytes_per_cu
        + _HWREG_BYTES_PER_CU
    )
    save = control + page_aligned(units * group)
    debug = -(-waves * _DEBUG_BYTES_PER_WAVE // 64) * 64
    return SaveArea(control, save, page_aligned((save + debug) * node.xccs))


@dataclass(frozen=True)
class Entry:
    """What every submission writes into the ring, and which of its dwords change.

    The read pointer moves by `units` for it. With a `tail`, a list of its own place in the ring,
    the value's dwords are the tail's, whose address stands at `tail_at` of the entry.
    """

    words: list[int]
    units: int
    address_at: int
    size_at: int
    size_flags: int
    low_at: int
    high_at: int
    tail: list[int] = field(default_factory=list)
    tail_at: int = 0
    doorbell_back: int = 0


def compute_entry(device: AmdDevice, timeline: int, meeting: int = 0) -> Entry:
    """Runs a list, brings the timeline to a value, and interrupts the host."""
    indirect = packets.INDIRECT_BUFFER
    words = indirect(valid=1).encode()
    flags = words[indirect.dword_of("ib_size")]
    ending, value_at = _ending(device, timeline)
    at = len(words) + value_at
    words += ending
    return Entry(words, len(words), indirect.dword_of("address"), indirect.dword_of("ib_size"),
                 flags, at, at + 1)  # fmt: skip


def _ending(device: AmdDevice, timeline: int) -> tuple[list[int], int]:
    """The packets that write the timeline and interrupt the host; where the value stands."""
    generation, event = device.generation, device.interrupts
    caches = generation.caches
    end: Mapping[str, int] = {
        **caches.flush, "event_type": generation.events["CACHE_FLUSH_AND_INV_TS_EVENT"],
        "event_index": packets.EventIndex.END_OF_PIPE,
    }
    words = caches.release(address=timeline, data_sel=DataSelect.DATA_64, **end).encode()
    words += caches.release(
        address=event.mailbox, data=event.event_id, data_sel=DataSelect.DATA_32,
        int_sel=InterruptSelect.AFTER_WRITE, int_ctxid=event.event_id, **end,
    ).encode()
    return words, caches.release.dword_of("data")


def shared_entry(device: AmdDevice, timeline: int, meeting: int) -> Entry:
    """The same for XCCs that share an AQL queue. None looks at `meeting` between lists."""
    indirect = packets.INDIRECT_BUFFER
    reset = packets.WRITE_DATA(
        0, 0, dst_sel=packets.WriteDestination.L2, wr_confirm=1, address=meeting
    ).encode()
    ending, value_at = _ending(device, timeline)
    tail = aql.only(aql.FIRST_XCC, reset + ending)
    at = len(tail) - len(ending) + value_at
    run = indirect(valid=1).encode()
    flags = run[indirect.dword_of("ib_size")]
    words = aql.vendor_packet(run)
    words += aql.vendor_packet(indirect(valid=1, ib_size=len(tail)).encode())
    first = aql.VENDOR.dword_of("indirect_buffer")
    return Entry(words, 2, first + indirect.dword_of("address"),
                 first + indirect.dword_of("ib_size"), flags, at, at + 1, tail,
                 aql.PACKET_DWORDS + first + indirect.dword_of("address"), 1)  # fmt: skip


_SDMA_ENTRY_DWORDS: Final = 32
_SDMA_INDIRECT_AT: Final = 2  # so that what follows it starts at a multiple of 8 dwords


def copy_entry(device: AmdDevice, timeline: int, meeting: int = 0) -> Entry:
    """The same for a copy engine. The halves of the value: low first (see SdmaEncoder.signal)."""
    sdma, event = device.generation.sdma, device.interrupts
    values = sdma.fence_values
    words = [0] * _SDMA_INDIRECT_AT + sdma.indirect().encode()
    data = sdma.fence.dword_of("data")
    low_at = len(words) + data
    words += sdma.fence(addr=timeline, **values).encode()
    high_at = len(words) + data
    words += sdma.fence(addr=timeline + 4, **values).encode()
    words += sdma.fence(addr=event.mailbox, data=event.event_id, **values).encode()
    words += sdma.trap(int_context=event.event_id).encode()
    words += [0] * (_SDMA_ENTRY_DWORDS - len(words))
    at = _SDMA_INDIRECT_AT
    return Entry(words, 4 * len(words), at + sdma.indirect.dword_of("ib_base"),
                 at + sdma.indirect.dword_of("ib_size"), 0, low_at, high_at)  # fmt: skip


class Format(Enum):
    """How a queue's ring is written: the kernel driver's queue type, and the entry."""

    PM4 = (uapi.KFD_IOC_QUEUE_TYPE_COMPUTE, compute_entry)
    AQL = (uapi.KFD_IOC_QUEUE_TYPE_COMPUTE_AQL, shared_entry)
    SDMA = (uapi.KFD_IOC_QUEUE_TYPE_SDMA, copy_entry)

    def __init__(
        self, queue_type: int, entry: Callable[[AmdDevice, int, int], Entry]
    ) -> None:
        self.queue_type, self.entry = queue_type, entry


class HardwareQueue:
    """One queue of the kernel driver. `state` is what native submission works on."""

    def __init__(
        self, device: AmdDevice, layout: Format, ring_records: int, timeline: int
    ) -> None:
        self._device, self._memory, self.format = device, device.gpu_memory, layout
        self._blocks: list[Block] = []
        self._pointers = (0, 0)
        self.queue_id: int | None = None
        self.meeting = 0
        """Where the XCCs of an AQL queue count themselves (aql.py)."""
        try:
            if layout is Format.AQL:
                self.meeting = self._take(PAGE_BYTES, VRAM_UNCACHED, "queue meeting").address
            entry = layout.entry(device, timeline, self.meeting)
            size = max(PAGE_BYTES, 1 << (4 * len(entry.words) * ring_records - 1).bit_length())
            ring = self._take(size, HOST, "ring").address
            pages = self._take(PAGE_BYTES, HOST, "queue pointers").address
            self._pointers = pages, pages + _READ_POINTER_AT
            if layout is Format.AQL:
                aql.fill_queue(pages, ring, size)
                self._pointers = (
                    pages + hsa.amd_queue_t.write_dispatch_id.offset,
                    pages + hsa.amd_queue_t.read_dispatch_id.offset,
                )
            arguments = self._arguments()
            self.queue_id, doorbell = self._create(
                ring_base_address=ring, ring_size=size,
                write_pointer_address=self._pointers[0], read_pointer_address=self._pointers[1],
                gpu_id=device.node.gpu_id, queue_percentage=_PERCENTAGE, queue_priority=_PRIORITY,
                queue_type=layout.queue_type, **arguments,
            )
            bell = device.doorbell(doorbell)
            self._fill(entry, ring_records, ring, size, timeline, bell)
        except BaseException:
            self.close()
            raise

    def _take(self, size_bytes: int, flags: int, kind: str) -> Block:
        try:
            block = self._memory.take(size_bytes, flags, kind)
        except SystemCallFailed as error:
            if error.errno != errno.ENOMEM:
                raise
            raise OutOfDeviceMemory(
                f"Cannot allocate {size_bytes} bytes of {self._device.name} for a queue's {kind}.",
                device=self._device.name, operation="queue",
            ) from error
        self._blocks.append(block)
        return block

    def _arguments(self) -> dict[str, int]:
        if self.format is Format.SDMA:
            return {}
        area = save_area(self._device.generation, self._device.node)
        eop = self._take(EOP_BYTES, VRAM, "end-of-pipe buffer")
        saved = self._take(area.total_bytes, VRAM, "context-save area")
        return {
            "eop_buffer_address": eop.address, "eop_buffer_size": EOP_BYTES,
            "ctx_save_restore_address": saved.address, "ctx_save_restore_size": area.save_bytes,
            "ctl_stack_size": area.control_bytes,
        }

    def _create(self, **arguments: int) -> tuple[int, int]:
        try:
            return self._device.kfd.create_queue(**arguments)
        except SystemCallFailed as error:
            if error.errno not in (errno.ENOMEM, errno.ENOSPC):
                raise
            raise QueueLimit(
                f"{self._device.name} has no hardware queue left ({error}).",
                device=self._device.name, operation="queue",
                remedy="Close queues that you no longer need.",
            ) from error

    def _fill(
        self, entry: Entry, ring_records: int, ring: int, size_bytes: int, timeline: int,
        doorbell: int,
    ) -> None:
        state_page = self._take(PAGE_BYTES, HOST, "queue state")
        template = state_page.address + _TEMPLATE_AT
        self.state_address = state_page.address
        self.state = state = RingState.from_address(self.state_address)
        state.ring, state.mask = ring, size_bytes // 4 - 1
        state.write_pointer, state.doorbell = self._pointers[0], doorbell
        state.flush, state.timeline = self._device.flush_register(), timeline
        state.template, state.entry_dwords = template, len(entry.words)
        # One entry stays empty: a ring whose pointers are equal is an empty one.
        state.capacity = min(ring_records, size_bytes // 4 // len(entry.words) - 1)
        state.entry_units, state.doorbell_back = entry.units, entry.doorbell_back
        state.address_at, state.size_at, state.size_flags = (
            entry.address_at, entry.size_at, entry.size_flags
        )
        state.low_at, state.high_at = entry.low_at, entry.high_at
        words = struct.pack(f"<{len(entry.words)}I", *entry.words)
        ctypes.memmove(template, words, len(words))
        # Without a tail its address goes behind the template, where nobody looks.
        state.value_base, state.value_mask, state.tail_at = template, 0, len(entry.words)
        state.tail_stride = 1
        if entry.tail:
            tails = self._take(size_bytes, HOST, "ring tails").address
            state.value_base, state.value_mask, state.tail_at = tails, state.mask, entry.tail_at
            words = struct.pack(f"<{len(entry.tail)}I", *entry.tail)
            for at in range(0, size_bytes, 4 * len(entry.words)):
                ctypes.memmove(tails + at, words, len(words))
        try:
            state.kick = self._device.system.kick(native().functions["doorbell"])
        except OSError as error:
            raise SystemCallFailed.wrap(error, "kick", self._device.name) from error

    @property
    def read_pointer(self) -> int:
        """How far the hardware has read, in its own units; only for reports."""
        return self._pointer(1)

    @property
    def write_pointer(self) -> int:
        """How far the host has written, in the hardware's units."""
        return self._pointer(0)

    def _pointer(self, which: int) -> int:
        address = self._pointers[which]
        return int(ctypes.c_uint64.from_address(address).value) if address else 0

    def close(self) -> None:
        """Takes the queue off the GPU, then frees its memory, which stays if it cannot be."""
        queue_id, self.queue_id, self._pointers = self.queue_id, None, (0, 0)
        if queue_id is not None and not self._destroyed(queue_id):
            return
        for block in self._blocks:
            with contextlib.suppress(HardwareError, OSError):
                self._memory.give_back(block)
        self._blocks.clear()

    def _destroyed(self, queue_id: int) -> bool:
        for _ in range(2):
            with contextlib.suppress(HardwareError):
                self._device.kfd.destroy_queue(queue_id)
                return True
        return False
