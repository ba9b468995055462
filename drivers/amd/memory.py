"""Memory that a GPU and the host see at the same address.

The host picks the address by reserving it, KFD allocates for it, and the render node maps it
there: `gpu_addr == cpu_addr`. Whatever is allocated is kept in `blocks`, so that a fault can
name the nearest one.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Final

from autogen import kfd as uapi
from drivers.amd.abi import Kfd
from drivers.amd.topology import GpuNode
from drivers.blocks import Block, BlockMemory, page_aligned
from drivers.errors import BarTooSmall, HardwareError, SystemCallFailed
from drivers.memory import Allocator, CachePolicy, format_bytes
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
REGISTERS: Final = (
    uapi.KFD_IOC_ALLOC_MEM_FLAGS_MMIO_REMAP
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_WRITABLE
    | uapi.KFD_IOC_ALLOC_MEM_FLAGS_COHERENT
)
"""A page of registers of the GPU's bus interface (kfd_ioctl.h, enum kfd_mmio_remap)."""


class GpuMemory(BlockMemory):
    """Allocates for one GPU."""

    def __init__(
        self, system: System, kfd: Kfd, render: int, node: GpuNode, device: str
    ) -> None:
        super().__init__(system, device)
        self.kfd, self.render, self.node = kfd, render, node

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
            node = self.kfd.descriptor if flags == REGISTERS else self.render
            system.mmap(
                size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, node, offset, address
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

    def adopt(self, address: int, size_bytes: int) -> Block:
        """Lets the GPU reach memory of the process where it is.

        Raises SystemCallFailed for what is not mapped (EFAULT), may not be written (EPERM) or is
        pinned already (EINVAL).
        """
        try:
            handle, _ = self.kfd.allocate(self.node.gpu_id, address, size_bytes, PINNED, address)
            try:
                self.kfd.map(handle, [self.node.gpu_id])
            except HardwareError:
                with contextlib.suppress(HardwareError):
                    self.kfd.free(handle)
                raise
        except SystemCallFailed as error:
            raise SystemCallFailed(
                f"{error.detail[:-1]}, for {format_bytes(size_bytes)} of the host's memory at "
                f"{address:#x}.",
                number=error.errno, device=self.device, operation=error.operation,
                remedy="It must be mapped for reading and writing, and reached only once; "
                "else copy it into a buffer.",
            ) from error
        return Block(address, size_bytes, handle, "pinned")

    def let_go(self, block: Block) -> None:
        """Takes pinned memory away from the GPU."""
        self.unreach(block)
        self.free(block)

    def share(self, block: Block, gpu_id: int) -> None:
        """Lets another GPU reach a block too, until it is given back."""
        if gpu_id not in block.peers and gpu_id != self.node.gpu_id:
            self.kfd.map(block.handle, [gpu_id])
            block.peers.append(gpu_id)

    def give_back(self, block: Block) -> None:
        """Frees a block on all sides. What the GPU does not let go stays, with its address."""
        self.blocks.pop(block.address, None)
        self.unreach(block)
        self.free(block)
        self.system.munmap(block.address, block.size_bytes)

    def take_page(self, kind: str) -> Block:
        """A page of the host's memory that the GPU reaches."""
        return self.take(PAGE_BYTES, HOST, kind)

    def unreach(self, block: Block) -> None:
        """Takes a block away from the GPU and its peers."""
        self.kfd.unmap(block.handle, [self.node.gpu_id, *block.peers])

    def free(self, block: Block) -> None:
        """Frees a block."""
        self.kfd.free(block.handle)

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


class AmdAllocator(Allocator):
    """Buffers in VRAM, with the same reuse as on any device."""

    def __init__(
        self, memory: GpuMemory, limit_bytes: int | None, policy: CachePolicy | None,
        flags: int = VRAM, kind: str = "buffers",
    ) -> None:
        super().__init__(memory.system, memory.device, limit_bytes, policy)
        self.memory, self._flags, self._kind = memory, flags, kind

    def _obtain(self, size_bytes: int) -> int:
        return self.memory.take(size_bytes, self._flags, self._kind).address

    def _room(self) -> str:
        return f"{self.memory.room()}, " if self._flags == VRAM else ""

    def _give_back(self, address: int, size_bytes: int) -> None:
        self.memory.give_back(self.memory.blocks[address])
