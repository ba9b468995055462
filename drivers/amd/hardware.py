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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from autogen import kfd as uapi
from drivers.amd import packets
from drivers.amd.memory import HOST, VRAM, Block, page_aligned
from drivers.amd.packets import DataSelect, InterruptSelect
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
    """What every submission writes into the ring, and which of its dwords change."""

    words: list[int]
    address_at: int
    size_at: int
    size_flags: int
    low_at: int
    high_at: int
    pointer_shift: int


def compute_entry(device: AmdDevice, timeline: int) -> Entry:
    """Runs a list, brings the timeline to a value, and interrupts the host."""
    generation, event = device.generation, device.interrupts
    caches, indirect = generation.caches, packets.INDIRECT_BUFFER
    end: Mapping[str, int] = {
        **caches.flush, "event_type": generation.events["CACHE_FLUSH_AND_INV_TS_EVENT"],
        "event_index": packets.EventIndex.END_OF_PIPE,
    }
    flags = indirect(valid=1).encode()[indirect.dword_of("ib_size")]
    words = indirect(valid=1).encode()
    at = len(words) + caches.release.dword_of("data")
    words += caches.release(address=timeline, data_sel=DataSelect.DATA_64, **end).encode()
    words += caches.release(
        address=event.mailbox, data=event.event_id, data_sel=DataSelect.DATA_32,
        int_sel=InterruptSelect.AFTER_WRITE, int_ctxid=event.event_id, **end,
    ).encode()
    return Entry(words, indirect.dword_of("address"), indirect.dword_of("ib_size"), flags, at,
                 at + 1, 0)  # fmt: skip


_SDMA_ENTRY_DWORDS: Final = 32
_SDMA_INDIRECT_AT: Final = 2  # so that what follows it starts at a multiple of 8 dwords


def copy_entry(device: AmdDevice, timeline: int) -> Entry:
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
    return Entry(words, at + sdma.indirect.dword_of("ib_base"),
                 at + sdma.indirect.dword_of("ib_size"), 0, low_at, high_at, 2)  # fmt: skip


class HardwareQueue:
    """One queue of the kernel driver. `state` is what native submission works on."""

    def __init__(
        self, device: AmdDevice, kind: str, ring_records: int, timeline: int
    ) -> None:
        self._device, self._memory = device, device.gpu_memory
        self._blocks: list[Block] = []
        self.queue_id: int | None = None
        entry = (compute_entry if kind == "compute" else copy_entry)(device, timeline)
        try:
            size = max(PAGE_BYTES, 1 << (4 * len(entry.words) * ring_records - 1).bit_length())
            ring = self._take(size, HOST, "ring")
            pages = self._take(PAGE_BYTES, HOST, "queue pointers")
            arguments = self._arguments(kind)
            self.queue_id, doorbell = self._create(
                ring_base_address=ring.address, ring_size=size, write_pointer_address=pages.address,
                read_pointer_address=pages.address + _READ_POINTER_AT,
                gpu_id=device.node.gpu_id, queue_percentage=_PERCENTAGE, queue_priority=_PRIORITY,
                **arguments,
            )
            bell = device.doorbell(doorbell)
            self._fill(entry, ring_records, size, bell)
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

    def _arguments(self, kind: str) -> dict[str, int]:
        if kind != "compute":
            return {"queue_type": uapi.KFD_IOC_QUEUE_TYPE_SDMA}
        area = save_area(self._device.generation, self._device.node)
        eop = self._take(EOP_BYTES, VRAM, "end-of-pipe buffer")
        saved = self._take(area.total_bytes, VRAM, "context-save area")
        return {
            "queue_type": uapi.KFD_IOC_QUEUE_TYPE_COMPUTE,
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

    def _fill(self, entry: Entry, ring_records: int, size_bytes: int, doorbell: int) -> None:
        ring, pages = self._blocks[:2]
        state_page = self._take(PAGE_BYTES, HOST, "queue state")
        template = state_page.address + _TEMPLATE_AT
        self.state_address = state_page.address
        self.state = state = RingState.from_address(self.state_address)
        state.ring, state.mask = ring.address, size_bytes // 4 - 1
        state.write_pointer, state.doorbell = pages.address, doorbell
        state.flush = self._device.flush_address
        state.template, state.entry_dwords = template, len(entry.words)
        # One entry stays empty: a ring whose pointers are equal is an empty one.
        state.capacity = min(ring_records, size_bytes // 4 // len(entry.words) - 1)
        state.pointer_shift = entry.pointer_shift
        state.address_at, state.size_at, state.size_flags = (
            entry.address_at, entry.size_at, entry.size_flags
        )
        state.low_at, state.high_at = entry.low_at, entry.high_at
        words = struct.pack(f"<{len(entry.words)}I", *entry.words)
        ctypes.memmove(template, words, len(words))
        first_low = entry.low_at - 2  # the timeline's address stands two dwords before its data
        state.timeline = struct.unpack_from("<Q", words, 4 * first_low)[0]
        try:
            state.kick = self._device.system.kick(native().functions["doorbell"])
        except OSError as error:
            raise SystemCallFailed.wrap(error, "kick", self._device.name) from error

    @property
    def read_pointer(self) -> int:
        """How far the hardware has read, in its own units; only for reports."""
        if len(self._blocks) < 2:
            return 0
        at = self._blocks[1].address + _READ_POINTER_AT
        return int(ctypes.c_uint64.from_address(at).value)

    @property
    def write_pointer(self) -> int:
        """How far the host has written, in the hardware's units."""
        if len(self._blocks) < 2:
            return 0
        return int(ctypes.c_uint64.from_address(self._blocks[1].address).value)

    def close(self) -> None:
        """Takes the queue off the GPU, then frees its memory, which stays if it cannot be."""
        queue_id, self.queue_id = self.queue_id, None
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
