"""A board's memory: backing files, where they lie in this process, and who may touch what.

All memory of a GPU is one sparse memfd; an allocation is a range of it whose offset is never
used again, so that a stale mapping in the program never shows another allocation. The board
maps an allocation where its GPU address is, so that translated code reads it directly.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from drivers.system import (
    MAP_SHARED,
    PAGE_BYTES,
    PROT_READ,
    PROT_WRITE,
    RealSystem,
    libc,
)

MAP_FIXED_NOREPLACE = 0x100000  # Linux, asm-generic/mman-common.h
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h
BACKING_BYTES = 1 << 46  # sparse: costs nothing until touched

READ, WRITE, EXECUTE = 1, 2, 4


def round_to_pages(size_bytes: int) -> int:
    """The size rounded up to whole pages."""
    return (size_bytes + PAGE_BYTES - 1) & -PAGE_BYTES


class Backing:
    """One sparse memfd that hands out ranges."""

    def __init__(self, name: str, size_bytes: int = BACKING_BYTES, first: int = PAGE_BYTES) -> None:
        self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, size_bytes)
        self.size_bytes, self.next = size_bytes, first

    def allocate(self, size_bytes: int) -> int:
        """The offset of a fresh range of zeros. Raises OSError(ENOMEM)."""
        size_bytes = round_to_pages(size_bytes)
        if self.next + size_bytes > self.size_bytes:
            raise OSError(errno.ENOMEM, "the backing file is full")
        offset, self.next = self.next, self.next + size_bytes
        return offset

    def release(self, offset: int, size_bytes: int) -> None:
        """Gives the pages back to the system; the offsets stay used."""
        libc().fallocate(
            self.descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            ctypes.c_int64(offset), ctypes.c_int64(round_to_pages(size_bytes)),
        )

    def close(self) -> None:
        """Closes the file; pages live on while somebody maps them."""
        os.close(self.descriptor)


class HostMap:
    """Ranges of this process's addresses that show backing files.

    What is unmapped while engines run stays readable until they are idle: an engine that is in
    the middle of a copy must not take the board down.
    """

    def __init__(self) -> None:
        self.system = RealSystem()
        self.retired: list[tuple[int, int]] = []

    def map(self, address: int, size_bytes: int, descriptor: int, offset: int) -> None:
        """Shows a range of a file at an address. Raises OSError(ENOMEM) if that is taken."""
        try:
            self._map(address, size_bytes, descriptor, offset)
        except OSError as taken:
            if taken.errno != errno.EEXIST:
                raise
            self._evict(address, address + size_bytes)
            try:
                self._map(address, size_bytes, descriptor, offset)
            except OSError as failure:
                raise OSError(
                    errno.ENOMEM, f"the board's own memory lies at {address:#x}"
                ) from failure

    def _map(self, address: int, size_bytes: int, descriptor: int, offset: int) -> None:
        mapped = self.system.mmap(
            size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, descriptor,
            offset, address,
        )
        if mapped != address:  # a kernel before 4.17 takes the address for a hint
            self.system.munmap(mapped, size_bytes)
            raise OSError(errno.EEXIST, "taken")

    def _evict(self, start: int, end: int) -> None:
        """Unmaps what is retired between two addresses."""
        kept = []
        for low, high in self.retired:
            if high <= start or low >= end:
                kept.append((low, high))
                continue
            self.system.munmap(max(low, start), min(high, end) - max(low, start))
            if low < start:
                kept.append((low, start))
            if high > end:
                kept.append((end, high))
        self.retired = kept

    def unmap(self, address: int, size_bytes: int, idle: bool) -> None:
        """Takes a range away: now if the engines are idle, later if not."""
        self.retired.append((address, address + size_bytes))
        if idle:
            self.collect()

    def collect(self) -> None:
        """Unmaps what was retired; only while no engine is inside a packet."""
        retired, self.retired = self.retired, []
        for low, high in retired:
            self.system.munmap(low, high - low)


@dataclass(frozen=True)
class Mapping:
    """One range of GPU addresses that a process may touch."""

    start: int
    end: int
    protection: int  # READ | WRITE | EXECUTE
    name: str = ""


class GpuFault(Exception):
    """An access that the page table does not allow."""

    def __init__(self, address: int, access: int, present: bool) -> None:
        self.address, self.access, self.present = address, access, present
        kind = {READ: "read", WRITE: "write", EXECUTE: "execute"}[access]
        why = "protection" if present else "page not present"
        super().__init__(f"{kind} of {address:#x} ({why})")


class PageTable:
    """What one process may touch on one GPU. `generation` moves with every change."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.mappings: list[Mapping] = []
        self.generation = 0
        self.last = Mapping(0, 0, 0)

    def add(self, mapping: Mapping) -> None:
        """Adds a range. Raises OSError(EINVAL) if part of it is there already."""
        place = bisect.bisect_left(self.starts, mapping.start)
        before = self.mappings[place - 1].end if place else 0
        after = self.starts[place] if place < len(self.starts) else mapping.end
        if before > mapping.start or after < mapping.end:
            raise OSError(errno.EINVAL, f"{mapping.start:#x} is mapped already")
        self.starts.insert(place, mapping.start)
        self.mappings.insert(place, mapping)
        self.generation += 1

    def remove(self, start: int) -> None:
        """Removes the range that starts there."""
        place = self.starts.index(start)
        del self.starts[place]
        del self.mappings[place]
        self.last = Mapping(0, 0, 0)
        self.generation += 1

    def find(self, address: int) -> Mapping | None:
        """The range that an address lies in."""
        last = self.last
        if last.start <= address < last.end:
            return last
        place = bisect.bisect_right(self.starts, address) - 1
        if place < 0 or address >= self.mappings[place].end:
            return None
        self.last = self.mappings[place]
        return self.last

    def check(self, address: int, size_bytes: int, access: int) -> None:
        """Raises GpuFault unless every byte may be accessed so."""
        end = address + size_bytes
        last = self.last
        if last.start <= address and end <= last.end and last.protection & access:
            return
        while address < end:
            mapping = self.find(address)
            if mapping is None:
                raise GpuFault(address, access, present=False)
            if not mapping.protection & access:
                raise GpuFault(address, access, present=True)
            address = mapping.end


class GuestMemory:
    """Memory as an engine sees it: through the page table of its process. Raises GpuFault.

    What is written `through` reaches memory; else it may stay in a cache, where there are caches.
    """

    def __init__(self, table: PageTable) -> None:
        self.table = table

    def place(self, address: int) -> int:
        """Where in this process a byte of memory lies."""
        return address

    def read(self, address: int, size_bytes: int) -> bytes:
        """Bytes."""
        self.table.check(address, size_bytes, READ)
        return ctypes.string_at(address, size_bytes)

    def write(self, address: int, content: bytes, through: bool = True) -> None:
        """Writes bytes."""
        self.table.check(address, len(content), WRITE)
        ctypes.memmove(address, content, len(content))

    def load(self, address: int, size_bytes: int) -> int:
        """A number of 4 or 8 bytes."""
        self.table.check(address, size_bytes, READ)
        kind = ctypes.c_uint32 if size_bytes == 4 else ctypes.c_uint64
        return kind.from_address(self.place(address)).value

    def store(self, address: int, value: int, size_bytes: int, through: bool = True) -> None:
        """Stores a number of 4 or 8 bytes at once."""
        self.table.check(address, size_bytes, WRITE)
        kind, mask = (
            (ctypes.c_uint32, 0xFFFFFFFF) if size_bytes == 4
            else (ctypes.c_uint64, 0xFFFFFFFFFFFFFFFF)
        )
        kind.from_address(self.place(address)).value = value & mask

    def words(self, address: int, count: int) -> list[int]:
        """Dwords, to be read."""
        return list(struct.unpack(f"<{count}I", self.read(address, 4 * count)))

    def store_words(self, address: int, words: Iterable[int], through: bool = True) -> None:
        """Stores dwords in order."""
        values = list(words)
        self.write(address, struct.pack(f"<{len(values)}I", *values), through)

    def copy(self, to: int, source: int, size_bytes: int, through: bool = True) -> None:
        """Copies bytes; on a fault nothing is copied."""
        self.table.check(source, size_bytes, READ)
        self.table.check(to, size_bytes, WRITE)
        ctypes.memmove(to, source, size_bytes)
