"""What a vendor's model offers to the board process: nodes that can be opened, and their calls."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.emulated.protocol import Action


@dataclass
class Call:
    """One ioctl as it arrived. The model changes `argument` and `arrays` in place."""

    request: int
    argument: bytearray
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
    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> None:
        """Says whether a mapping is allowed, by raising OSError if not."""

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

    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> None:
        """sysfs is not mapped."""
        raise OSError(errno.ENODEV, "sysfs is not mapped")

    def close(self) -> None:
        """Forgets the text."""
        os.close(self._descriptor)


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
