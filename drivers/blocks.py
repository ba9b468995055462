"""Memory of a kernel driver, block by block: its own, the process's, and pages of timelines."""

from __future__ import annotations

import bisect
import contextlib
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.errors import ArgumentMismatch, HardwareError
from drivers.memory import HostMemory
from drivers.native.layout import LINE_BYTES
from drivers.system import (
    MAP_FIXED,
    MAP_PRIVATE,
    PAGE_BYTES,
    PROT_READ,
    PROT_WRITE,
    System,
)
from drivers.timeline import memory_view, reclaimer


def page_aligned(size_bytes: int) -> int:
    """Rounded up to whole pages."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True)
class Block:
    """One allocation of the kernel driver; `peers` are the other GPUs that reach it."""

    address: int
    size_bytes: int
    handle: int
    kind: str
    peers: list[int] = field(default_factory=list)


class BlockMemory(ABC):
    """What one GPU has of the kernel driver's memory. Whoever takes a block gives it back."""

    def __init__(self, system: System, device: str) -> None:
        self.system, self.device = system, device
        self.blocks: dict[int, Block] = {}
        self.pinned: dict[int, Block] = {}
        """The process's own memory that the GPU reaches, by the GPU's address."""

    @abstractmethod
    def take_page(self, kind: str) -> Block:
        """A page of the host's memory that the GPU reaches, and none of its caches keeps."""

    @abstractmethod
    def give_back(self, block: Block) -> None:
        """Frees a block on all sides. What the GPU does not let go stays, with its address."""

    @abstractmethod
    def unreach(self, block: Block) -> None:
        """Takes a block away from the GPU and its peers; the host sees it still."""

    @abstractmethod
    def free(self, block: Block) -> None:
        """Frees a block that neither side sees any more."""

    @abstractmethod
    def adopt(self, address: int, size_bytes: int) -> Block:
        """Lets the GPU reach whole pages of the process, which must be writable."""

    @abstractmethod
    def let_go(self, block: Block) -> None:
        """Takes such pages away from the GPU; the process keeps them."""

    def pin(self, address: int, size_bytes: int) -> Block:
        """Lets the GPU reach memory of the process: whole pages, writable.

        Raises ArgumentMismatch for parts of pages, and what the kernel driver says of others.
        """
        if not size_bytes or (address | size_bytes) % PAGE_BYTES:
            raise ArgumentMismatch(
                f"{self.device} reaches whole pages of the host's memory, multiples of "
                f"{PAGE_BYTES} bytes, not {size_bytes} bytes at {address:#x}.",
                device=self.device, operation="pin", remedy="Copy it into a buffer.",
            )
        block = self.adopt(address, size_bytes)
        self.pinned[block.address] = block
        return block

    def unpin(self, block: Block) -> None:
        """Takes pinned memory away from the GPU, once; the process keeps it."""
        mine = self.pinned.get(block.address) is block
        if mine and self.pinned.pop(block.address, None) is not None:  # one of several threads
            self.let_go(block)

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


class PinnedMemory(HostMemory):
    """Memory of the process that a GPU reaches, until nothing in flight can use it."""

    __slots__ = ("memory", "block", "shift")

    def __init__(self, memory: BlockMemory, address: int, size_bytes: int, owner: object) -> None:
        self.memory, self.block = memory, memory.pin(address, size_bytes)
        self.shift = address - self.block.address
        super().__init__(address, size_bytes, owner)

    def release(self) -> None:
        """Takes it away from the GPU now, because nothing in flight uses it."""
        self.memory.unpin(self.block)
        super().release()

    def __del__(self, exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not exiting() and hasattr(self, "block"):
            memory, block, owner = self.memory, self.block, self.owner
            reclaimer.later(lambda: _unpin(memory, block, owner))


def _unpin(memory: BlockMemory, block: Block, owner: object) -> None:
    """Lets go of pinned memory, `owner` last."""
    with contextlib.suppress(HardwareError, OSError):
        memory.unpin(block)


class TimelineLines:
    """Cache lines for timelines in memory that the GPU writes, a page at a time.

    A timeline outlives its device: at `close` pages that are still in use are replaced, at the
    same address, by memory of the process with the same contents. Those that other GPUs reach
    stay as they are while somebody uses them, because a queue there may look at any time.
    """

    def __init__(self, memory: BlockMemory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._pages: dict[int, Block | None] = {}  # None: the process's own since close()
        self._closed = False
        self._free: list[int] = []
        self._used: dict[int, int] = {}
        self._returned: list[int] = []  # by __del__, which may hold any lock

    def take(self) -> int:
        """A line."""
        with self._lock:
            self._collect()
            if not self._free:
                block = self._memory.take_page("timelines")
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
            if not self._closed:
                self._free.append(line)
            elif not self._used[page]:
                block = self._pages.pop(page)
                del self._used[page]
                with contextlib.suppress(HardwareError, OSError):
                    if block is None:
                        self._memory.system.munmap(page, PAGE_BYTES)
                    elif block.peers:
                        self._memory.give_back(block)

    def share(self, line: int, share: Callable[[Block], None]) -> bool:
        """Calls `share` with the line's block; whether there is one, not only the process's."""
        with self._lock:
            block = self._pages[line & -PAGE_BYTES]
            if block is not None:
                share(block)
            return block is not None

    def close(self) -> None:
        """Takes all pages off the GPU."""
        with self._lock:
            self._collect()
            self._closed = True
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
        if block.peers:
            return
        self._memory.blocks.pop(page, None)
        self._memory.unreach(block)
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
        self._memory.free(block)
