"""The program's own memory: read and written with care, and shared with the board on request.

A user pointer is memory that the program has already. The board sees it after its pages have
moved into the board's file, mapped at the same address: same content, same address, shared.
When the allocation is freed they become private pages again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from dataclasses import dataclass

from drivers.system import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
    RealSystem,
    libc,
)

MAP_FIXED = 0x10  # Linux, asm-generic/mman-common.h


class _Vector(ctypes.Structure):
    """struct iovec, sys/uio.h."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _transfer(name: str, local: int, remote: int, size_bytes: int) -> bool:
    """Copies within this process by the kernel, which does not crash on a bad address.

    False where the system forbids the call: then the caller copies by itself.
    """
    one, other = _Vector(local, size_bytes), _Vector(remote, size_bytes)
    done = getattr(libc(), name)(
        os.getpid(), ctypes.byref(one), ctypes.c_ulong(1), ctypes.byref(other),
        ctypes.c_ulong(1), ctypes.c_ulong(0),
    )
    if done == size_bytes:
        return True
    if done < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
        return False
    raise OSError(errno.EFAULT, f"{size_bytes} bytes at {remote:#x} are not this process's")


def read_memory(address: int, size_bytes: int) -> bytes:
    """Bytes of this process. Raises OSError(EFAULT)."""
    if not size_bytes:
        return b""
    buffer = ctypes.create_string_buffer(size_bytes)
    if _transfer("process_vm_readv", ctypes.addressof(buffer), address, size_bytes):
        return buffer.raw
    return ctypes.string_at(address, size_bytes)


def write_memory(address: int, content: bytes) -> None:
    """Writes bytes into this process. Raises OSError(EFAULT)."""
    if not content:
        return
    buffer = ctypes.create_string_buffer(content, len(content))
    if not _transfer("process_vm_writev", ctypes.addressof(buffer), address, len(content)):
        ctypes.memmove(address, content, len(content))


@dataclass
class _Shared:
    """A range that lies in the board's file; `uses` allocations need it."""

    address: int
    size_bytes: int
    offset: int
    inode: int
    uses: int = 1


class UserMemory:
    """Which of the program's ranges are shared with the board."""

    def __init__(self) -> None:
        self.system = RealSystem()
        self.ranges: list[_Shared] = []
        self.lock = threading.Lock()

    def _holder(self, address: int, size_bytes: int) -> _Shared | None:
        end = address + size_bytes
        for known in self.ranges:
            if known.address <= address and end <= known.address + known.size_bytes:
                return known
            if address < known.address + known.size_bytes and known.address < end:
                raise OSError(errno.EBUSY, f"part of {address:#x} is shared already")
        return None

    def find(self, address: int, size_bytes: int) -> int | None:
        """The offset in the file of a range that is shared already, as part or whole."""
        with self.lock:
            known = self._holder(address, size_bytes)
            return None if known is None else known.offset + address - known.address

    def adopt(self, address: int, size_bytes: int, descriptor: int, offset: int) -> None:
        """Moves pages into the file; who writes to them at that moment may lose the write."""
        with self.lock:
            known = self._holder(address, size_bytes)
            if known is not None:
                known.uses += 1
                return
            window = self.system.mmap(
                size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, offset
            )
            try:
                ctypes.memmove(window, address, size_bytes)
            finally:
                self.system.munmap(window, size_bytes)
            self.system.mmap(
                size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, offset,
                address,
            )
            inode = os.fstat(descriptor).st_ino
            self.ranges.append(_Shared(address, size_bytes, offset, inode))

    def give_back(self, address: int, size_bytes: int, offset: int) -> None:
        """Makes pages private again, where they are still those of the file."""
        with self.lock:
            known = self._holder(address, size_bytes)
            if known is None:
                return
            known.uses -= 1
            if known.uses:
                return
            self.ranges.remove(known)
            for start, end in _still_mapped(known):
                content = ctypes.string_at(start, end - start)
                self.system.mmap(
                    end - start, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0, start,
                )
                ctypes.memmove(start, content, end - start)


def _still_mapped(shared: _Shared) -> list[tuple[int, int]]:
    """The parts of a range that the program has not mapped anew since."""
    found = []
    last = shared.address + shared.size_bytes
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            span, _, offset, _, inode = line.split(maxsplit=5)[:5]
            low, high = (int(number, 16) for number in span.split("-"))
            start, end = max(low, shared.address), min(high, last)
            if start >= end or int(inode) != shared.inode:
                continue
            if int(offset, 16) - low == shared.offset - shared.address:
                found.append((start, end))
    return found


