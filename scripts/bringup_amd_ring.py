"""A queue by hand: ring, pointers and doorbell from ioctls, with packets written one by one.

The driver's own queues (drivers/amd/hardware.py) run lists behind a fixed entry. Here every dword
of the ring is the caller's, so that what a step does is all that can have gone wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

from autogen import kfd as uapi
from drivers.amd.abi import Kfd
from drivers.amd.generations import Generation
from drivers.amd.hardware import EOP_BYTES, save_area
from drivers.amd.memory import HOST, VRAM, GpuMemory
from drivers.blocks import Block
from drivers.errors import HardwareError
from drivers.native.image import native
from drivers.native.layout import RingState
from drivers.system import MAP_SHARED, PAGE_BYTES, PROT_READ, PROT_WRITE

RING_BYTES: Final = 16 << 10
_DOORBELL_PAGE_BYTES: Final = 0x2000  # kfd_doorbell.c: 1024 doorbells of 8 bytes
_READ_POINTER_AT: Final = 64
_NAP_S: Final = 50e-6


def load(address: int, size_bytes: int = 8) -> int:
    """A number in memory that the GPU writes."""
    kind = ctypes.c_uint64 if size_bytes == 8 else ctypes.c_uint32
    return int(kind.from_address(address).value)


def until(condition: Callable[[], bool], timeout_ms: float) -> bool:
    """Looks until a condition holds; whether it did in time."""
    deadline = time.monotonic() + timeout_ms / 1e3
    while not condition():
        if time.monotonic() > deadline:
            return condition()
        time.sleep(_NAP_S)
    return True


class Ring:
    """A hardware queue. *We own the write pointer and the doorbell, the GPU the read pointer.*"""

    def __init__(self, kfd: Kfd, memory: GpuMemory, generation: Generation, kind: str) -> None:
        self.kfd, self.memory, self.kind = kfd, memory, kind
        self.unit_bytes = 4 if kind == "sdma" else 1  # of the pointers: bytes, or dwords
        self.written = 0  # dwords
        self.queue_id: int | None = None
        self.page = 0
        self.blocks: list[Block] = []
        try:
            self.ring = self._take(RING_BYTES, HOST, "ring")
            self.pointers = self._take(PAGE_BYTES, HOST, "queue pointers")
            self.queue_id, offset = kfd.create_queue(
                ring_base_address=self.ring.address, ring_size=RING_BYTES,
                write_pointer_address=self.pointers.address,
                read_pointer_address=self.pointers.address + _READ_POINTER_AT,
                gpu_id=memory.node.gpu_id, queue_percentage=100, queue_priority=7,
                **self._arguments(generation),
            )
            page = offset & -_DOORBELL_PAGE_BYTES
            self.page = memory.system.mmap(
                _DOORBELL_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, kfd.descriptor, page
            )
        except BaseException:
            self.close()
            raise
        self.state = RingState(
            ring=self.ring.address, mask=RING_BYTES // 4 - 1,
            write_pointer=self.pointers.address, doorbell=self.page + offset - page,
            pointer_shift=2 if kind == "sdma" else 0,
        )
        kick = memory.system.kick(native().functions["doorbell"])
        self._kick = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(kick)

    def _take(self, size_bytes: int, flags: int, kind: str) -> Block:
        block = self.memory.take(size_bytes, flags, kind)
        self.blocks.append(block)
        return block

    def _arguments(self, generation: Generation) -> dict[str, int]:
        if self.kind == "sdma":
            return {"queue_type": uapi.KFD_IOC_QUEUE_TYPE_SDMA}
        area = save_area(generation, self.memory.node)
        eop = self._take(EOP_BYTES, VRAM, "end-of-pipe buffer")
        saved = self._take(area.total_bytes, VRAM, "context-save area")
        return {
            "queue_type": uapi.KFD_IOC_QUEUE_TYPE_COMPUTE,
            "eop_buffer_address": eop.address, "eop_buffer_size": EOP_BYTES,
            "ctx_save_restore_address": saved.address, "ctx_save_restore_size": area.save_bytes,
            "ctl_stack_size": area.control_bytes,
        }

    def put(self, words: Sequence[int], signal: tuple[int, int] = (0, 0)) -> None:
        """Publishes packets. `signal`: the address that they bring to a value, for recordings."""
        size = RING_BYTES // 4
        for word in words:
            struct.pack_into(
                "<I", (ctypes.c_ubyte * 4).from_address(self._at(self.written % size)), 0, word
            )
            self.written += 1
        state = self.state
        state.head, state.entry_dwords = self.written, len(words)
        state.timeline, state.submitted = signal
        pointer = ctypes.c_uint64.from_address(self.pointers.address)
        pointer.value = self.written * self.unit_bytes
        self._kick(ctypes.addressof(state))

    def _at(self, dword: int) -> int:
        return self.ring.address + 4 * dword

    @property
    def read_pointer(self) -> int:
        """How far the GPU has read, in dwords; PM4's pointer wraps with the ring."""
        return load(self.pointers.address + _READ_POINTER_AT) // self.unit_bytes

    @property
    def caught_up(self) -> bool:
        """Whether the GPU has read all that was written."""
        size = RING_BYTES // 4
        return self.read_pointer % size == self.written % size

    def pending(self) -> list[int]:
        """The dwords between the two pointers."""
        size, count = RING_BYTES // 4, self.written
        start = count - (count - self.read_pointer) % size
        return [load(self._at(i % size), 4) for i in range(start, count)]

    def close(self) -> None:
        """Takes the queue off the GPU and gives its memory back."""
        queue_id, self.queue_id = self.queue_id, None
        with contextlib.suppress(HardwareError, OSError):
            if queue_id is not None:
                self.kfd.destroy_queue(queue_id)
            if self.page:
                self.memory.system.munmap(self.page, _DOORBELL_PAGE_BYTES)
            for block in self.blocks:
                self.memory.give_back(block)
        self.blocks.clear()
