"""What a vendor's model offers to the board process: nodes that can be opened, and their calls."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.emulated.protocol import FILE, NUMBER, RANGE, Action, Connection, Operation


class Program:
    """The program whose ioctl waits: its memory and its descriptors. Raises OSError(EFAULT)."""

    def __init__(self, connection: Connection, files: dict[int, OpenFile]) -> None:
        self.connection, self.files = connection, files

    def _ask(self, operation: Operation, *parts: bytes) -> bytes:
        answer, _, error = self.connection.ask(operation, list(parts))
        if error:
            raise OSError(error, answer[0].decode() if answer else os.strerror(error))
        return answer[0]

    def read(self, address: int, size_bytes: int) -> bytearray:
        """Bytes of the program's memory."""
        return bytearray(self._ask(Operation.READ, RANGE.pack(address, size_bytes)))

    def write(self, address: int, content: bytes | bytearray) -> None:
        """Writes into the program's memory."""
        self._ask(Operation.WRITE, RANGE.pack(address, len(content)), bytes(content))

    def file(self, descriptor: int) -> OpenFile | None:
        """What a descriptor of the program leads to, if it is one of this board's nodes."""
        answer = self._ask(Operation.FIND, FILE.pack(0, descriptor & 0xFFFFFFFF))
        return self.files.get(FILE.unpack(answer)[1])

    def shared(self, address: int, size_bytes: int) -> int | None:
        """The backing offset of memory that is shared already; None if it is not."""
        answer = self._ask(Operation.SHARED, RANGE.pack(address, size_bytes))
        known: int = NUMBER.unpack(answer)[0]
        return known - 1 if known else None


@dataclass
class Call:
    """One ioctl as it arrived. The model changes `argument` and `arrays` in place, or asks."""

    request: int
    argument: bytearray
    program: Program
    address: int = 0  # of the argument, in the program
    arrays: dict[int, bytearray] = field(default_factory=dict)  # by the pointer's offset
    files: dict[int, OpenFile | None] = field(default_factory=dict)  # by the descriptor's offset
    alias: int | None = None  # backing offset of user memory that is shared already
    actions: list[tuple[Action, int, int, int, int]] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)  # to hand over; closed afterwards

    def act(self, action: Action, gpu: int, address: int, size_bytes: int, offset: int) -> None:
        """Asks the program to do something to its memory."""
        self.actions.append((action, gpu, address, size_bytes, offset))

    def hand_over(self, descriptor: int, field_offset: int) -> None:
        """Gives the program a descriptor whose number goes into the argument."""
        self.act(Action.STORE_DESCRIPTOR, 0, 0, 0, field_offset)
        self.descriptors.append(descriptor)


class OpenFile(ABC):
    """A node as one program has opened it."""

    @abstractmethod
    def descriptor(self) -> int:
        """The descriptor that the program gets; still owned by the file."""

    def ioctl(self, call: Call) -> int:
        """One ioctl. Raises OSError with the errno that the kernel gives."""
        raise OSError(errno.ENOTTY, "no ioctls on this file")

    def waits(self, request: int) -> bool:
        """Whether an ioctl waits for the engines, and the program with it."""
        return False

    @abstractmethod
    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> int:
        """Where in the descriptor a mapping lies. Raises OSError if it is not allowed."""

    @abstractmethod
    def close(self) -> None:
        """The program has closed it."""


class TextFile(OpenFile):
    """A file of sysfs: text that is there to be read."""

    def __init__(self, text: str) -> None:
        writable = os.memfd_create("sysfs", os.MFD_CLOEXEC)
        try:
            os.write(writable, text.encode())
            self._descriptor = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writable)

    def descriptor(self) -> int:
        """Open for reading, at the start."""
        return self._descriptor

    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> int:
        """sysfs is not mapped."""
        raise OSError(errno.ENODEV, "sysfs is not mapped")

    def close(self) -> None:
        """Forgets the text."""
        os.close(self._descriptor)


def open_text(files: dict[str, str], path: str, flags: int) -> TextFile:
    """One of some files that are there to be read, or OSError as the kernel would say."""
    text = files.get(path)
    if text is not None:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EACCES, f"{path} is to be read")
        return TextFile(text)
    if any(name.startswith(path.rstrip("/") + "/") for name in files):
        raise OSError(errno.EISDIR, f"{path} is a folder")
    raise OSError(errno.ENOENT, path)


class Model(ABC):
    """All that a program sees of a machine's boards."""

    log: list[str]

    @abstractmethod
    def open(self, path: str, flags: int) -> OpenFile:
        """Opens a node or file. Raises OSError."""

    @abstractmethod
    def files(self) -> dict[str, str]:
        """The files of sysfs by path."""

    @abstractmethod
    def descriptors(self) -> list[int]:
        """The backing of each GPU."""

    @abstractmethod
    def watch(self, idle: Callable[[], bool]) -> None:
        """Tells who knows whether the program is asking something right now."""

    def schedule(self) -> list[str]:
        """What the engines have done in which order, a line each, if that is fixed."""
        return []

    @abstractmethod
    def reset(self) -> None:
        """The program has closed every node: its memory, queues and events go."""

    @abstractmethod
    def shut_down(self) -> None:
        """The program has ended."""
