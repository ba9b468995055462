"""Memory of devices that the host maps: an allocator with reuse, and buffers.

Sizes are rounded up to classes, four to each power of two. Small blocks are carved from 1 MiB
chunks of one class each; large blocks are mappings of their own. What is free is kept for the
next allocation of its class and given back to the system when it has lain idle, or when too
much of it is idle. A freed block is used again only when everything that was in flight at that
time has finished, so freeing a buffer that a queue still works on is safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    HardwareError,
    OutOfDeviceMemory,
    SystemCallFailed,
)
from drivers.system import (
    MADV_HUGEPAGE,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PAGE_BYTES,
    PROT_READ,
    PROT_WRITE,
    System,
)
from drivers.timeline import reclaimer

ALIGNMENT_BYTES = 64
CHUNK_BYTES = 1 << 20
SMALL_BYTES = 128 << 10  # larger blocks have a mapping of their own
PATIENCE_S = 2.0  # how long to wait for memory in flight, if there is much, before taking more
HUGE_PAGE_BYTES = 4 << 20  # from here on huge pages are asked for


@dataclass(frozen=True)
class CachePolicy:
    """How much idle memory is kept, and for how long.

    Beyond `most_bytes` the longest idle is given back at once; beyond `some_bytes` whatever has
    been idle for `brief_s`; and any that has been idle for `long_s`.
    """

    some_bytes: int = 256 << 20
    most_bytes: int = 1 << 30
    brief_s: float = 1.0
    long_s: float = 10.0


@dataclass(frozen=True)
class MemoryStatistics:
    """Bytes of one device: held by buffers, idle in the cache, most ever held, mapped."""

    used_bytes: int
    cached_bytes: int
    peak_bytes: int
    mapped_bytes: int


def size_class(size_bytes: int) -> int:
    """The size that a request is rounded up to: at most a quarter more, never below 64."""
    if size_bytes <= 4 * ALIGNMENT_BYTES:
        return max(ALIGNMENT_BYTES, -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
    step = 1 << ((size_bytes - 1).bit_length() - 3)
    if size_bytes > SMALL_BYTES:
        step = max(step, PAGE_BYTES)
    return -(-size_bytes // step) * step


class _Chunk:
    """A mapping carved into blocks of one class; those beyond `carved` were never used."""

    __slots__ = ("address", "block_bytes", "carved", "free", "live")

    def __init__(self, address: int, block_bytes: int) -> None:
        self.address, self.block_bytes = address, block_bytes
        self.carved = 0
        self.free: list[int] = []
        self.live = 0

    @property
    def full(self) -> bool:
        return not self.free and self.carved + self.block_bytes > CHUNK_BYTES

    def take(self) -> int:
        self.live += 1
        if self.free:
            return self.free.pop()
        self.carved += self.block_bytes
        return self.address + self.carved - self.block_bytes


class Storage:
    """A block of device memory; going out of use gives it back."""

    __slots__ = ("address", "size_bytes", "allocator", "_chunk", "__weakref__")

    allocator: Allocator | None
    shift: int = 0
    """How far behind a device's address the host has its own for the same byte."""

    def __init__(
        self, allocator: Allocator, address: int, size_bytes: int, chunk: _Chunk | None
    ) -> None:
        self.address, self.size_bytes = address, size_bytes
        self.allocator, self._chunk = allocator, chunk

    @property
    def mapping(self) -> int:
        """Where the system's mapping begins that it lies in."""
        return self._chunk.address if self._chunk else self.address

    def __del__(self, exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        # While exiting modules are half gone, and the process's memory goes as a whole.
        if self.allocator is not None and not exiting():
            self.allocator.release(self.address, self.size_bytes, self._chunk)


class HostMemory(Storage):
    """Memory of somebody else's, whose `owner` is kept until nothing in flight can use it."""

    __slots__ = ("owner",)

    def __init__(self, address: int, size_bytes: int, owner: object) -> None:
        self.address, self.size_bytes, self.owner = address, size_bytes, owner
        self.allocator = self._chunk = None

    def release(self) -> None:
        """Lets go of it now, because nothing in flight uses it."""
        self.owner = None

    def __del__(self, exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not exiting():
            owner = self.owner
            reclaimer.later(lambda: _drop(owner))


class Allocator:
    """The memory of one device. Safe to use from several threads."""

    def __init__(
        self,
        system: System,
        device: str,
        limit_bytes: int | None = None,
        policy: CachePolicy | None = None,
    ) -> None:
        self._system, self._device, self._limit = system, device, limit_bytes
        self._policy = policy or CachePolicy()
        self._partial: dict[int, dict[_Chunk, None]] = {}
        self._idle: dict[int, list[int]] = {}
        self._oldest: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._used = self._cached = self._peak = self._mapped = 0
        self._closed = False

    @property
    def statistics(self) -> MemoryStatistics:
        """How much memory the device uses now."""
        with reclaimer.lock:
            reclaimer.collect()
            return MemoryStatistics(self._used, self._cached, self._peak, self._mapped)

    def allocate(self, size_bytes: int) -> Storage:
        """A block of at least `size_bytes` bytes, aligned to 64; its contents are undefined.

        Raises OutOfDeviceMemory when it does not fit even after the cache was emptied.
        """
        rounded = size_class(size_bytes)
        with reclaimer.lock:
            if self._closed:
                raise DeviceClosed(
                    f"{self._device} is closed.", device=self._device, operation="alloc"
                )
            reclaimer.collect()
            chunk: _Chunk | None = None
            if rounded <= SMALL_BYTES:
                chunk = self._chunk_for(rounded)
                address = chunk.take()
                if chunk.full:
                    del self._partial[rounded][chunk]
            else:
                address = self._take_large(rounded)
            self._used += rounded
            self._peak = max(self._peak, self._used)
        return Storage(self, address, rounded, chunk)

    def release(self, address: int, size_bytes: int, chunk: _Chunk | None) -> None:
        """Gives a block back once what is in flight has finished. Called by Storage."""
        reclaimer.later(lambda: self._reuse(address, size_bytes, chunk), size_bytes)

    def trim(self) -> None:
        """Gives everything idle back to the system."""
        with reclaimer.lock:
            reclaimer.collect()
            self._give_back_all()

    def close(self) -> None:
        """Gives back everything idle now, and what is still held as soon as it is freed."""
        with reclaimer.lock:
            self._closed = True
            reclaimer.collect()
            self._give_back_all()

    def _chunk_for(self, block_bytes: int) -> _Chunk:
        partial = self._partial.setdefault(block_bytes, {})
        if partial:
            return next(reversed(partial))
        chunk = _Chunk(self._take_large(CHUNK_BYTES), block_bytes)
        partial[chunk] = None
        return chunk

    def _take_large(self, size_bytes: int) -> int:
        address = self._take_idle(size_bytes)
        if address is None and reclaimer.waiting_bytes > self._policy.some_bytes:
            # The program runs far ahead of the device: reuse what comes free soon, don't grow.
            deadline = time.monotonic() + PATIENCE_S
            while (
                address is None
                and reclaimer.waiting_bytes > self._policy.some_bytes
                and time.monotonic() < deadline
            ):
                reclaimer.wait(timeout_ms=100)
                address = self._take_idle(size_bytes)
        return self._map(size_bytes) if address is None else address

    def _take_idle(self, size_bytes: int) -> int | None:
        addresses = self._idle.get(size_bytes)
        if not addresses:
            return None
        address = addresses.pop()
        del self._oldest[address]
        self._cached -= size_bytes
        return address

    def _map(self, size_bytes: int) -> int:
        for last_try in (False, True):
            try:
                if self._limit is not None and self._mapped + size_bytes > self._limit:
                    raise OSError(errno.ENOMEM, "over the device's limit")
                address = self._obtain(size_bytes)
                break
            except (OSError, SystemCallFailed) as error:
                if error.errno != errno.ENOMEM:
                    if isinstance(error, SystemCallFailed):
                        raise
                    raise SystemCallFailed.wrap(error, "mmap", self._device) from error
                if last_try:
                    raise self._out_of_memory(size_bytes) from error
                reclaimer.wait(timeout_ms=1e3 * PATIENCE_S)
                self._give_back_all()
        self._mapped += size_bytes
        return address

    def _obtain(self, size_bytes: int) -> int:
        """Memory from the system, at a page's start. Raises OSError or SystemCallFailed."""
        address = self._system.mmap(
            size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        if size_bytes >= HUGE_PAGE_BYTES:
            with contextlib.suppress(OSError):  # only advice
                self._system.madvise(address, size_bytes, MADV_HUGEPAGE)
        return address

    def _give_back(self, address: int, size_bytes: int) -> None:
        """Returns memory to the system. Raises OSError or HardwareError."""
        self._system.munmap(address, size_bytes)

    def _room(self) -> str:
        """How much of the device's memory is free, where somebody knows; ends with a comma."""
        return ""

    def _out_of_memory(self, size_bytes: int) -> OutOfDeviceMemory:
        limit = "" if self._limit is None else f" of a limit of {format_bytes(self._limit)}"
        return OutOfDeviceMemory(
            f"Cannot allocate {format_bytes(size_bytes)} on {self._device}: {self._room()}"
            f"{format_bytes(self._used)} in use{limit}, {format_bytes(self._mapped)} mapped, "
            f"nothing left to give back.",
            device=self._device,
            operation="alloc",
            remedy="Free buffers, or use smaller batches.",
        )

    def _reuse(self, address: int, size_bytes: int, chunk: _Chunk | None) -> None:
        """Takes a block back whose users have all finished."""
        self._used -= size_bytes
        if chunk is None:
            self._keep(address, size_bytes)
            return
        chunk.free.append(address)
        chunk.live -= 1
        partial = self._partial[chunk.block_bytes]
        if chunk.live:
            partial[chunk] = None
        else:
            partial.pop(chunk, None)
            self._keep(chunk.address, CHUNK_BYTES)

    def _keep(self, address: int, size_bytes: int) -> None:
        """Puts a whole mapping into the cache, and gives back what lies there too long."""
        if self._closed:
            self._unmap(address, size_bytes)
            return
        now = time.monotonic()
        self._idle.setdefault(size_bytes, []).append(address)
        self._oldest[address] = (size_bytes, now)
        self._cached += size_bytes
        policy = self._policy
        while self._oldest:
            oldest, (oldest_bytes, since) = next(iter(self._oldest.items()))
            idle_s = now - since
            if not (
                self._cached > policy.most_bytes
                or (self._cached > policy.some_bytes and idle_s > policy.brief_s)
                or idle_s > policy.long_s
            ):
                return
            self._forget(oldest, oldest_bytes)

    def _forget(self, address: int, size_bytes: int) -> None:
        self._idle[size_bytes].remove(address)
        del self._oldest[address]
        self._cached -= size_bytes
        self._unmap(address, size_bytes)

    def _give_back_all(self) -> None:
        for address, (size_bytes, _) in list(self._oldest.items()):
            self._forget(address, size_bytes)

    def _unmap(self, address: int, size_bytes: int) -> None:
        self._mapped -= size_bytes
        with contextlib.suppress(OSError, HardwareError):  # it is ours no longer, whatever it says
            self._give_back(address, size_bytes)


def _drop(owner: object) -> None:
    """Lets go of what it is given."""


def format_bytes(size_bytes: int) -> str:
    """A size as people read it: '2.0 GiB', '640 bytes'."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"


class Buffer:
    """A stretch of device memory. It lives as long as it, a view or a host view is held.

    `gpu_addr` is what kernels get, `cpu_addr` where the host sees it: the same, but in pages of
    the process that a GPU reaches at an address of its own (`Storage.shift`).
    """

    __slots__ = ("device", "storage", "size_bytes", "gpu_addr", "__weakref__")

    def __init__(self, device: str, storage: Storage, gpu_addr: int, size_bytes: int) -> None:
        self.device, self.storage = device, storage
        self.gpu_addr, self.size_bytes = gpu_addr, size_bytes

    @property
    def cpu_addr(self) -> int:
        """The host address of its first byte."""
        return self.gpu_addr + self.storage.shift

    def view(self, offset_bytes: int, size_bytes: int | None = None) -> Buffer:
        """The part from `offset_bytes` on, up to the end or `size_bytes` long."""
        size = self.size_bytes - offset_bytes if size_bytes is None else size_bytes
        if offset_bytes < 0 or size < 0 or offset_bytes + size > self.size_bytes:
            raise ArgumentMismatch(
                f"A view of {size} bytes at {offset_bytes} does not fit into a buffer of "
                f"{self.size_bytes} bytes.",
                device=self.device,
                operation="view",
            )
        return Buffer(self.device, self.storage, self.gpu_addr + offset_bytes, size)

    def cpu_view(self) -> memoryview:
        """Its bytes, writable and not copied; the view keeps the memory alive.

        Nothing waits here: wait for the Point of the last kernel that uses the buffer.
        """
        array = (ctypes.c_ubyte * self.size_bytes).from_address(self.cpu_addr)
        array._storage = self.storage  # type: ignore[attr-defined]  # held by every view of it
        return memoryview(array).cast("B")

    def __repr__(self) -> str:
        return f"<Buffer {self.size_bytes} bytes at {self.gpu_addr:#x} on {self.device}>"
