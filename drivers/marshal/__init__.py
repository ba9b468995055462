"""What the arguments of kernel drivers' ioctls mean beyond their bytes: pointers, descriptors.

Facts of an interface, not of a driver or a board: the driver side records calls with them, the
emulated system sends calls to its board with them. A module for each kernel driver.
"""

from __future__ import annotations

import importlib
from typing import Final, Protocol, cast

from drivers.errors import MalformedInput

Notes = dict[int, tuple[int, int]]
"""What `device_owned` remembers of the calls before: ranges of memory by handle."""


class Marshal(Protocol):
    """What such a module gives. `given` is the structure that an ioctl's argument points to."""

    PREFIXES: tuple[str, ...]
    """How the paths of its nodes and of its files in sysfs begin."""

    def is_memory(self, path: str) -> bool:
        """Whether what is mapped from a node is memory that the device works on."""

    def arrays(self, request: int, given: bytearray) -> list[tuple[int, int, int]]:
        """(offset of the pointer, address, bytes) of every array that a call points to."""

    def descriptors(self, request: int, given: bytearray) -> list[int]:
        """The offsets of descriptors in an argument."""

    def user_range(self, request: int, given: bytearray) -> tuple[int, int] | None:
        """The program's own memory, address and bytes, that an allocation is to be made of."""

    def device_owned(
        self, request: int, given: bytearray, after: bytearray, notes: Notes
    ) -> list[tuple[int, int]]:
        """(address, bytes) that the device writes at moments of its own, since a call ended.

        `after` is the argument as the call left it.
        """

    def steady(self, request: int) -> bool:
        """Whether the same call gives the same answer; clocks and waits do not."""

    def fault(self, request: int, array: bytes) -> str:
        """The fault of a device that a call told in this array, in words, or ''."""

    def name_of(self, request: int) -> str:
        """The header's name of an ioctl."""

    def field_at(self, request: int, offset: int) -> str:
        """The field of an argument that a byte belongs to."""


MODULES: Final = {"kfd": "drivers.marshal.kfd"}


def marshal_of(name: str) -> Marshal:
    """The module of an interface. Raises MalformedInput for one that is not known."""
    if name not in MODULES:
        raise MalformedInput(
            f"There is no interface {name!r}; known: {', '.join(MODULES)}.", operation="marshal"
        )
    return cast(Marshal, importlib.import_module(MODULES[name]))
