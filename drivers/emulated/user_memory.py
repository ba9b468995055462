"""The program's own memory: read and written with care, and shared with the board on request.

A user pointer is memory that the program has already. The board sees it after its pages have
moved into the board's file, mapped at the same address: same content, same address, shared.
When the allocation is freed, or the board has let go of all that the program had, they become
private pages again. Whoever reads meanwhile finds what is
there; what somebody writes in one of these two moments may be lost. A fork's child has copies.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import weakref
from dataclasses import dataclass

from drivers.emulated.memory import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
from drivers.system import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
    RealSystem,
    libc,
)

MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2  # linux/mman.h


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
        _alive.add(self)
        self.lock = threading.RLock()  # a device that goes returns its pages in between

    def _holder(self, address: int, size_bytes: int) -> _Shared | None:
        end = address + size_bytes
        for known in self.ranges:
            if known.address <= address and end <= known.address + known.size_bytes:
                return known
            if address < known.address + known.size_bytes and known.address < end:
                raise OSError(errno.EBUSY, f"part of {address:#x} is shared already")
        return None

    def find(self, address: int, size_bytes: int, writable: bool = False) -> int | None:
        """The offset in the file of a range that is shared already, as part or whole.

        Raises OSError for one that is not and could not be. As hmm_range_fault does: EFAULT where
        nothing is mapped, or nothing that may be read; EPERM where it is to be written and may
        not. And EPERM for mapped files, whose pages would not be the file's any more.
        """
        with self.lock:
            known = self._holder(address, size_bytes)
        if known is not None:
            return known.offset + address - known.address
        at, end = address, address + size_bytes
        for low, high, protection, inode in _mappings(at, end):
            if low > at or "r" not in protection:
                break
            if writable and "w" not in protection:
                raise OSError(errno.EPERM, f"{at:#x} is mapped {protection}")
            if inode:
                raise OSError(errno.EPERM, f"a file is mapped at {at:#x}")
            at = high
        if at < end:
            raise OSError(errno.EFAULT, f"nothing that may be read is mapped at {at:#x}")
        return None

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

    def give_back(self, address: int, size_bytes: int, descriptor: int) -> None:
        """Makes pages private again, where they are still those of the file."""
        with self.lock:
            known = self._holder(address, size_bytes)
            if known is None:
                return
            known.uses -= 1
            if known.uses:
                return
            self.ranges.remove(known)
            self._leave(known)
            libc().fallocate(
                descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                ctypes.c_int64(known.offset), ctypes.c_int64(known.size_bytes),
            )

    def leave_all(self) -> None:
        """Makes all pages private again: nobody on the board's side has them any more."""
        with self.lock:
            for known in self.ranges:
                self._leave(known)
            self.ranges.clear()

    def forget_parent(self) -> None:
        """In a fork's child: its pages are its own, whatever the parent and the board write."""
        self.lock = threading.RLock()
        self.leave_all()

    def _leave(self, known: _Shared) -> None:
        last = known.address + known.size_bytes
        for low, high, _, inode in _mappings(known.address, last):
            if inode == known.inode:  # else the program has mapped it anew since
                start, end = max(low, known.address), min(high, last)
                self._make_private(start, end - start)

    def _make_private(self, address: int, size_bytes: int) -> None:
        """Puts a copy of the pages in their place, in one step."""
        copy = self.system.mmap(
            size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        ctypes.memmove(copy, address, size_bytes)
        moved = libc().mremap(
            ctypes.c_void_p(copy), ctypes.c_size_t(size_bytes), ctypes.c_size_t(size_bytes),
            MREMAP_MAYMOVE | MREMAP_FIXED, ctypes.c_void_p(address),
        )
        if moved == -1:
            number = ctypes.get_errno()
            raise OSError(number, f"mremap: {os.strerror(number)}")


def _mappings(address: int, end: int) -> list[tuple[int, int, str, int]]:
    """(start, end, protection, inode) of what is mapped between two addresses, in order."""
    found = []
    with open("/proc/self/maps", "rb") as maps:
        for line in maps.read().splitlines():
            span, protection, _, _, inode = line.split(maxsplit=5)[:5]
            low, high = (int(number, 16) for number in span.split(b"-"))
            if low >= end:
                break
            if high > address:
                found.append((low, high, protection.decode(), int(inode)))
    return found


_alive: weakref.WeakSet[UserMemory] = weakref.WeakSet()


def _forget_parent() -> None:
    for memory in list(_alive):
        memory.forget_parent()


os.register_at_fork(after_in_child=_forget_parent)
