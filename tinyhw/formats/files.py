"""Opening and mapping files that somebody else wrote."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import BinaryIO

from drivers.errors import MalformedInput, SystemCallFailed

# mman.h; pages that are never written need no memory put aside (Python 3.11 has no name for it).
MAP_NORESERVE = 0x4000


def open_regular(name: str) -> BinaryIO:
    """Opens a file for reading; a pipe or a device, which could block for ever, is refused."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    raise MalformedInput(f"{name} is not a regular file.", operation="open")


def map_open(file: BinaryIO) -> memoryview:
    """An open file's bytes, read where they are looked at; writes to them stay in this process."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        return memoryview(b"")
    return memoryview(
        mmap.mmap(
            file.fileno(), size, flags=mmap.MAP_PRIVATE | MAP_NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    )


def map_file(path: str | os.PathLike[str]) -> memoryview:
    """`map_open` of the file at a path; raises MalformedInput or SystemCallFailed."""
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            return map_open(file)
    except OSError as error:
        raise file_error("read", name, error) from error


def file_error(verb: str, name: str, error: OSError) -> SystemCallFailed:
    """The sentence for what the operating system refused."""
    number = error.errno or 0
    reason = f"{errno.errorcode.get(number, number)}: {error.strerror}"
    return SystemCallFailed(f"Cannot {verb} {name} ({reason}).", number=number, operation=verb)
