"""Memory that a GPU and the host see at the same address.

The host picks the address by reserving it, KFD allocates for it, and the render node maps it
there: `gpu_addr == cpu_addr`. Whatever is allocated is kept in `blocks`, so that a fault can
name the nearest one.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import threading
from dataclasses import dataclass
from typing import Final

from autogen import kfd as uapi
from drivers.amd.abi import Kfd
from drivers.amd.topology import GpuNode
from drivers.errors import BarTooSmall, HardwareError, SystemCallFailed
from drivers.memory import Allocator, CachePolicy, format_bytes
from drivers.native.layout import LINE_BYTES
from drivers.system import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PAGE_BYTES,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    System,
)

_USABLE: Final = (
    uapi.KFD_IOC_ALLOC_MEM_FLAGS_WRITABLE
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_EXECUTABLE
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_NO_SUBSTITUTE
)
VRAM: Final = (
    uapi.KFD_IOC_ALLOC_MEM_FLAGS_VRAM | uapi.KFD_IOC_ALLOC_MEM_FLAGS_PUBLIC | _USABLE
)
"""The GPU's own memory, which the host reaches through the PCI window."""
HOST: Final = (
    uapi.KFD_IOC_ALLOC_MEM_FLAGS_GTT
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_COHERENT
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_UNCACHED
    | _USABLE
)
"""The host's memory, which no cache of the GPU keeps: rings, pointers, timelines, commands."""
VRAM_UNCACHED: Final = (
    VRAM | uapi.KFD_IOC_ALLOC_MEM_FLAGS_COHERENT | uapi.KFD_IOC_ALLOC_MEM_FLAGS_UNCACHED
)
"""The GPU's own memory, which all its dies see alike at once."""
PINNED: Final = (
    uapi.KFD_IOC_ALLOC_MEM_FLAGS_USERPTR
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_COHERENT
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_UNCACHED
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_WRITABLE
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_NO_SUBSTITUTE
)
"""Memory of the process, where it is."""


def page_aligned(size_bytes: int) -> int:
    """Rounded up to whole pages."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True)
class Block:
    """One allocation of the kernel driver."""

    address: int
    size_bytes: int
    handle: int
    kind: str


class GpuMemory:
    """Allocates for one GPU. Whoever takes a block gives it back."""

    def __init__(
        self, system: System, kfd: Kfd, render: int, node: GpuNode, device: str
    ) -> None:
        self.system, self.kfd, self.device = system, kfd, device
        self.render, self.node = render, node
        self.blocks: dict[int, Block] = {}

    def take(self, size_bytes: int, flags: int, kind: str) -> Block:
        """Memory for GPU and host, of whole pages, zeroed by the kernel."""
        size = page_aligned(max(size_bytes, 1))
        system = self.system
        try:
            address = system.mmap(
                size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
            )
        except OSError as error:
            raise SystemCallFailed.wrap(error, "mmap", self.device) from error
        handle = 0
        mapped = False
        try:
            handle, offset = self.kfd.allocate(self.node.gpu_id, address, size, flags)
            self.kfd.map(handle, [self.node.gpu_id])
            mapped = True
            system.mmap(
                size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self.render, offset, address
            )
        except BaseException as error:
            with contextlib.suppress(HardwareError, OSError):
                if mapped:
                    self.kfd.unmap(handle, [self.node.gpu_id])
                if handle:
                    self.kfd.free(handle)
            with contextlib.suppress(OSError):
                system.munmap(address, size)
            raise self._explained(error, size, flags) from error
        block = self.blocks[address] = Block(address, size, handle, kind)
        return block

    def _explained(self, error: BaseException, size_bytes: int, flags: int) -> BaseException:
        if isinstance(error, OSError):
            return SystemCallFailed.wrap(error, "mmap", self.device)
        small = (
            isinstance(error, SystemCallFailed) and error.errno == errno.EINVAL
            and flags & uapi.KFD_IOC_ALLOC_MEM_FLAGS_PUBLIC and not self.node.visible_bytes
        )
        if not small:
            return error
        return BarTooSmall(
            f"The host does not reach all {format_bytes(self.node.vram_bytes)} of {self.device}'s "
            f"memory, so {format_bytes(size_bytes)} of it cannot be shared.",
            device=self.device, operation="alloc",
            remedy="Enable Resizable BAR (and Above 4G Decoding) in the firmware's settings.",
        )

    def pin(self, address: int, size_bytes: int) -> Block:
        """Lets the GPU reach memory of the process: whole pages, anonymous."""
        handle, _ = self.kfd.allocate(self.node.gpu_id, address, size_bytes, PINNED, address)
        try:
            self.kfd.map(handle, [self.node.gpu_id])
        except HardwareError:
            with contextlib.suppress(HardwareError):
                self.kfd.free(handle)
            raise
        return Block(address, size_bytes, handle, "pinned")

    def unpin(self, block: Block) -> None:
        """Takes pinned memory away from the GPU; the process keeps it."""
        self.kfd.unmap(block.handle, [self.node.gpu_id])
        self.kfd.free(block.handle)

    def give_back(self, block: Block) -> None:
        """Frees a block on all sides. What the GPU does not let go stays, with its address."""
        self.blocks.pop(block.address, None)
        self.kfd.unmap(block.handle, [self.node.gpu_id])
        self.kfd.free(block.handle)
        self.system.munmap(block.address, block.size_bytes)

    def room(self) -> str:
        """How much VRAM is free, and the largest piece that this device holds, for an error."""
        try:
            free = format_bytes(self.kfd.available_bytes(self.node.gpu_id))
        except HardwareError:
            free = "an unknown part"
        largest = max((block.size_bytes for block in self.blocks.values()), default=0)
        return (
            f"{free} of {format_bytes(self.node.vram_bytes)} free, the largest piece held is "
            f"{format_bytes(largest)}"
        )

    def nearest(self, address: int) -> tuple[Block, int] | None:
        """The block at or next to an address, and how far from its start the address is."""
        starts = sorted(self.blocks)
        at = bisect.bisect_right(starts, address)
        near = [self.blocks[start] for start in starts[max(0, at - 1) : at + 1]]
        if not near:
            return None

        def distance(block: Block) -> int:
            end = block.address + block.size_bytes
            return 0 if block.address <= address < end else min(
                abs(address - end), abs(block.address - address)
            )

        best = min(near, key=distance)
        return best, address - best.address


class AmdAllocator(Allocator):
    """Buffers in VRAM, with the same reuse as on any device."""

    def __init__(
        self, memory: GpuMemory, limit_bytes: int | None, policy: CachePolicy | None,
        flags: int = VRAM, kind: str = "buffers",
    ) -> None:
        super().__init__(memory.system, memory.device, limit_bytes, policy)
        self._memory, self._flags, self._kind = memory, flags, kind

    def _obtain(self, size_bytes: int) -> int:
        return self._memory.take(size_bytes, self._flags, self._kind).address

    def _room(self) -> str:
        return f"{self._memory.room()}, " if self._flags == VRAM else ""

    def _give_back(self, address: int, size_bytes: int) -> None:
        self._memory.give_back(self._memory.blocks[address])


class TimelineLines:
    """Cache lines for timelines in memory that the GPU writes, a page at a time.

    A timeline outlives its device: at `close` pages that are still in use are replaced, at the
    same address, by memory of the process with the same contents.
    """

    def __init__(self, memory: GpuMemory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._pages: dict[int, Block | None] = {}  # None: the process's own since close()
        self._free: list[int] = []
        self._used: dict[int, int] = {}
        self._returned: list[int] = []  # by __del__, which may hold any lock

    def take(self) -> int:
        """A line."""
        with self._lock:
            self._collect()
            if not self._free:
                block = self._memory.take(PAGE_BYTES, HOST, "timelines")
                self._pages[block.address] = block
                self._used[block.address] = 0
                self._free.extend(range(block.address, block.address + PAGE_BYTES, LINE_BYTES))
            line = self._free.pop()
            self._used[line & -PAGE_BYTES] += 1
            return line

    def give_back(self, line: int) -> None:
        """Takes a line back that nobody will look at any more."""
        self._returned.append(line)
        if self._lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                self._lock.release()

    def _collect(self) -> None:
        while self._returned:
            line = self._returned.pop()
            page = line & -PAGE_BYTES
            self._used[page] -= 1
            if self._pages[page] is not None:
                self._free.append(line)
            elif not self._used[page]:
                del self._pages[page], self._used[page]
                with contextlib.suppress(OSError):
                    self._memory.system.munmap(page, PAGE_BYTES)

    def close(self) -> None:
        """Takes all pages off the GPU."""
        with self._lock:
            self._collect()
            self._free.clear()
            for page, block in list(self._pages.items()):
                if block is None:
                    continue
                with contextlib.suppress(HardwareError, OSError):
                    self._leave(page, block)

    def _leave(self, page: int, block: Block) -> None:
        if not self._used[page]:
            del self._pages[page], self._used[page]
            self._memory.give_back(block)
            return
        from drivers.timeline import memory_view

        self._memory.blocks.pop(page, None)
        self._memory.kfd.unmap(block.handle, [self._memory.node.gpu_id])
        # A file, so that waiters of other threads see one page or the other, never an empty one.
        descriptor = os.memfd_create("timelines", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, memory_view(page, PAGE_BYTES))
            self._memory.system.mmap(
                PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, descriptor, 0, page
            )
        finally:
            os.close(descriptor)
        self._pages[page] = None
        self._memory.kfd.free(block.handle)
