"""Memory that a GPU and the host see at the same address.

The process reserves an address below 2^40, the resource manager allocates, unified memory maps it
for the GPU there, and an mmap of a node maps it for the host at the same place.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

from autogen import nv_555 as nv
from drivers.blocks import Block, BlockMemory, page_aligned
from drivers.errors import HardwareError, SystemCallFailed
from drivers.memory import Allocator, CachePolicy, format_bytes
from drivers.nodes import close_node
from drivers.nv.abi import flags
from drivers.nv.board import NvGpu
from drivers.nv.process import AddressSpace, NvProcess
from drivers.nv.rm import CONTROL_NODE
from drivers.system import MAP_FIXED, MAP_SHARED, PAGE_BYTES, PROT_READ, PROT_WRITE

HUGE_BYTES: Final = 2 << 20
_OWNER: Final = 0x74696E79  # any number that is not 0


@dataclass(frozen=True)
class Placement:
    """Where memory lies: the class to allocate, its attributes, whose node maps it."""

    kind: int
    flags: int
    attributes: int
    more_attributes: int
    on_gpu: bool


_FLAGS: Final = (
    nv.NVOS32_ALLOC_FLAGS_IGNORE_BANK_PLACEMENT | nv.NVOS32_ALLOC_FLAGS_ALIGNMENT_FORCE
)
_CACHED: Final = flags(nv, "NVOS32_ATTR2", GPU_CACHEABLE="YES", ZBC="PREFER_NO_ZBC")
VIDEO: Final = Placement(
    nv.NV01_MEMORY_LOCAL_USER, _FLAGS | nv.NVOS32_ALLOC_FLAGS_PERSISTENT_VIDMEM,
    flags(nv, "NVOS32_ATTR", LOCATION="VIDMEM", PHYSICALITY="ALLOW_NONCONTIGUOUS",
          PAGE_SIZE="4KB"),
    _CACHED, True,
)  # fmt: skip
"""The GPU's own memory, which the host reaches through the PCI window."""
HUGE_VIDEO: Final = Placement(
    VIDEO.kind, VIDEO.flags,
    flags(nv, "NVOS32_ATTR", LOCATION="VIDMEM", PHYSICALITY="ALLOW_NONCONTIGUOUS",
          PAGE_SIZE="HUGE"),
    _CACHED | flags(nv, "NVOS32_ATTR2", PAGE_SIZE_HUGE="2MB"), True,
)  # fmt: skip
"""The same in pages of 2 MiB."""
HOST: Final = Placement(
    nv.NV01_MEMORY_SYSTEM, _FLAGS,
    flags(nv, "NVOS32_ATTR", LOCATION="PCI", PHYSICALITY="NONCONTIGUOUS", PAGE_SIZE="4KB",
          COHERENCY="WRITE_BACK"),
    flags(nv, "NVOS32_ATTR2", GPU_CACHEABLE="NO", ZBC="PREFER_NO_ZBC"), False,
)  # fmt: skip
"""The host's memory, coherent and not kept by the GPU: rings, timelines, lists."""
_PINNED_FLAGS: Final = flags(
    nv, "NVOS02_FLAGS", PHYSICALITY="NONCONTIGUOUS", COHERENCY="CACHED", MAPPING="NO_MAP",
    LOCATION="PCI",
)


class NvMemory(BlockMemory):
    """Allocates for one GPU."""

    def __init__(self, process: NvProcess, gpu: NvGpu, device: str) -> None:
        super().__init__(process.system, device)
        self.rm, self.uvm, self.gpu = process.rm, process.uvm, gpu
        self.addresses: AddressSpace = process.addresses

    def take(self, size_bytes: int, placement: Placement, kind: str) -> Block:
        """Memory for GPU and host, of whole pages, zeroed by the kernel driver."""
        size = page_aligned(max(size_bytes, 1))
        alignment = PAGE_BYTES
        if placement is VIDEO and size >= HUGE_BYTES:
            placement, alignment = HUGE_VIDEO, HUGE_BYTES
            size = -(-size // HUGE_BYTES) * HUGE_BYTES
        address = self.addresses.reserve(size, alignment)
        handle, mapped = 0, False
        try:
            handle = self._allocate(size, alignment, placement)
            self.uvm.map(self.gpu.uuid, handle, address, size)
            mapped = True
            self._map_host(handle, address, size, placement)
        except BaseException:
            with contextlib.suppress(OSError):
                self.system.munmap(address, size)
            if mapped:
                with contextlib.suppress(HardwareError):
                    self.uvm.unmap(address, size)
            self.rm.release(handle)
            raise
        block = self.blocks[address] = Block(address, size, handle, kind)
        return block

    def _allocate(self, size: int, alignment: int, placement: Placement) -> int:
        return self.rm.alloc(
            self.gpu.device, placement.kind, f"{format_bytes(size)} of memory",
            self.rm.abi.make(
                "NV_MEMORY_ALLOCATION_PARAMS", owner=_OWNER, type=nv.NVOS32_TYPE_IMAGE,
                flags=placement.flags, attr=placement.attributes,
                attr2=placement.more_attributes, size=size, alignment=alignment,
            ),
        )

    def _map_host(self, handle: int, address: int, size: int, placement: Placement) -> None:
        """Memory of the GPU is mapped by the GPU's node, the host's by the control node."""
        node = self.gpu.node if placement.on_gpu else CONTROL_NODE
        descriptor = self.rm.open_for_mapping(node)
        try:
            self.rm.prepare_mapping(self.gpu.device, handle, size, descriptor)
            self.system.mmap(
                size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0, address
            )
        except OSError as error:
            raise SystemCallFailed.wrap(error, f"mmap of {node}", self.device) from error
        finally:
            close_node(self.system, descriptor)

    def take_page(self, kind: str) -> Block:
        """A page of the host's memory that the GPU reaches."""
        return self.take(PAGE_BYTES, HOST, kind)

    def give_back(self, block: Block) -> None:
        """Frees a block on all sides: first the host's window, then the GPU's, then itself."""
        self.blocks.pop(block.address, None)
        self.system.munmap(block.address, block.size_bytes)
        self.unreach(block)
        self.free(block)

    def share(self, block: Block, gpu: NvGpu) -> None:
        """Lets another GPU reach a block too, until it is given back."""
        if gpu is not self.gpu and gpu.minor not in block.peers:
            self.uvm.map_also(gpu.uuid, block.handle, block.address, block.size_bytes)
            block.peers.append(gpu.minor)

    def unreach(self, block: Block) -> None:
        """Takes a block away from the GPU and its peers."""
        self.uvm.unmap(block.address, block.size_bytes)

    def free(self, block: Block) -> None:
        """Frees a block."""
        self.rm.free(block.handle, self.gpu.device)

    def adopt(self, address: int, size_bytes: int) -> Block:
        """Lets the GPU reach pages of the process, at an address of its own."""
        place = self.addresses.reserve(size_bytes, PAGE_BYTES)
        handle = 0
        try:
            handle = self.rm.adopt_memory(
                self.gpu.device, self.gpu.descriptor, address, size_bytes, _PINNED_FLAGS
            )
            self.uvm.map(self.gpu.uuid, handle, place, size_bytes)
        except BaseException:
            self.rm.release(handle)
            with contextlib.suppress(OSError):
                self.system.munmap(place, size_bytes)
            raise
        return Block(place, size_bytes, handle, "pinned")

    def let_go(self, block: Block) -> None:
        """Takes pinned pages away from the GPU."""
        self.unreach(block)
        self.free(block)
        self.system.munmap(block.address, block.size_bytes)

    def room(self) -> str:
        """How much of the GPU's memory is free, for an error."""
        largest = max((block.size_bytes for block in self.blocks.values()), default=0)
        try:
            total, free = map(format_bytes, self.gpu.memory_bytes())
        except HardwareError:
            total, free = "its memory", "an unknown part"
        return f"{free} of {total} free, the largest piece held is {format_bytes(largest)}"


class NvAllocator(Allocator):
    """Buffers of a placement, with the same reuse as on any device."""

    def __init__(
        self, memory: NvMemory, limit_bytes: int | None, policy: CachePolicy | None,
        placement: Placement = VIDEO, kind: str = "buffers",
    ) -> None:
        super().__init__(memory.system, memory.device, limit_bytes, policy)
        self.memory, self._placement, self._kind = memory, placement, kind

    def _obtain(self, size_bytes: int) -> int:
        return self.memory.take(size_bytes, self._placement, self._kind).address

    def _room(self) -> str:
        return f"{self.memory.room()}, " if self._placement is VIDEO else ""

    def _give_back(self, address: int, size_bytes: int) -> None:
        self.memory.give_back(self.memory.blocks[address])
