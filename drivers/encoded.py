"""What every backend's encoder shares: placing a block, kernel arguments, memory for lists."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from drivers.memory import Allocator, Buffer, Storage
from drivers.queue import Exec
from drivers.variables import (
    Encoding,
    PatchTable,
    Var,
    buffer_encoding,
    encode_scalar,
    scalar_encoding,
)

SLOT_BYTES: Final = 8
ARENA_BYTES: Final = 256 << 10


def aligned(number: int, alignment: int) -> int:
    """Rounded up to a multiple."""
    return -(-number // alignment) * alignment


def line_aligned(size_bytes: int) -> int:
    """Rounded up to cache lines."""
    return (size_bytes + 63) & ~63


@dataclass
class EncodedList:
    """A list ready to be placed: its bytes, and what still has to be written into them.

    `count` is what the backend counts a list's length in. `bases` are the offsets of 64-bit
    addresses that are relative to the block, which wants an `alignment`.
    """

    block: bytearray
    count: int
    table: PatchTable
    bases: list[int] = field(default_factory=list)
    alignment: int = 64

    def place(self, address: int, memory: memoryview) -> None:
        """Copies the block to `address`, which `memory` views."""
        for offset in self.bases:
            relative = struct.unpack_from("<Q", self.block, offset)[0]
            struct.pack_into("<Q", self.block, offset, address + relative)
        memory[: len(self.block)] = self.block
        for offset in self.bases:
            absolute = struct.unpack_from("<Q", self.block, offset)[0]
            struct.pack_into("<Q", self.block, offset, absolute - address)


def encode_arguments(
    step: Exec, device: str, address: Callable[[Buffer], int],
    leave_open: Callable[[Var, Encoding, int, str, int, int], None],
) -> bytearray:
    """A launch's argument memory: one 8-byte slot for each parameter.

    `address` tells where the device finds a Buffer, now and at replays. Slots of Vars stay 0 and
    are named to `leave_open`: Var, encoding, offset, where, limits.
    """
    memory, program = bytearray(), step.program
    for param, argument in zip(program.code.params, step.arguments, strict=True):
        if isinstance(argument, Buffer):
            memory += address(argument).to_bytes(SLOT_BYTES, "little")
            continue
        where = f"argument {param.name} of kernel {program.name}"
        if not isinstance(argument, Var):
            memory += encode_scalar(param.dtype, argument, where, device)
            continue
        if param.kind == "buffer":
            leave_open(argument, buffer_encoding(address), len(memory), where, 1, (1 << 63) - 1)
        else:
            encoding, minimum, maximum = scalar_encoding(param.dtype)
            leave_open(argument, encoding, len(memory), where, minimum, maximum)
        memory += bytes(SLOT_BYTES)
    return memory


class Arena:
    """Memory of lists that are submitted once, carved from chunks.

    A full chunk is freed like any buffer, so it is written again only when everything that
    was in flight has retired. The queue's lock is held.
    """

    def __init__(self, allocator: Allocator) -> None:
        self._allocator = allocator
        self._chunk: Storage | None = None
        self._used = 0

    def take(self, size_bytes: int, alignment: int = 64) -> tuple[int, Storage]:
        """Memory that stays as it is until the next Point; the caller holds the Storage."""
        size = line_aligned(size_bytes)
        if size + alignment > ARENA_BYTES:
            storage = self._allocator.allocate(size + alignment)
            return aligned(storage.address, alignment), storage
        if self._chunk is not None:
            start = aligned(self._chunk.address + self._used, alignment)
        if self._chunk is None or start + size > self._chunk.address + ARENA_BYTES:
            self._chunk = self._allocator.allocate(ARENA_BYTES)
            start = aligned(self._chunk.address, alignment)
        self._used = start + size - self._chunk.address
        return start, self._chunk
