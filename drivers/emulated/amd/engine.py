"""A queue of KFD on its engine.

What the doorbell says counts; the write pointer in memory is for the program itself. Words
beyond the doorbell are never looked at, and a packet that is not all there is waited for.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.emulated import engine
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.engine import BadPacket
from drivers.emulated.memory import GpuFault
from drivers.emulated.native import EQUAL, NOT_EQUAL
from drivers.emulated.schedule import FULL_MASK, Comparison

if TYPE_CHECKING:
    from drivers.emulated.amd.process import Allocation, KfdProcess

PACKET_DWORDS = 32  # more than any packet has fields in


@dataclass
class QueueProperties:
    """What CREATE_QUEUE said."""

    number: int
    ring_address: int
    ring_bytes: int
    read_pointer_address: int
    write_pointer_address: int
    doorbell_address: int
    doorbell_slot: int
    buffers: list[Allocation]


class Engine(engine.Engine):
    """One queue on its engine."""

    kind = "queue"
    through_caches = True  # whether it reads and writes through the GPU's L2 cache

    def __init__(self, process: KfdProcess, gpu: Gpu, properties: QueueProperties) -> None:
        name = f"{gpu.board.name}:{gpu.index} {self.kind} queue {properties.number}"
        memory = process.memory_of(gpu, self.through_caches)
        super().__init__(process, gpu.index, name, memory)
        self.process, self.gpu, self.properties = process, gpu, properties
        self.caches = process.caches[gpu.index]
        self.doorbell = ctypes.c_uint64.from_address(properties.doorbell_address)

    def rung(self) -> int:
        """The doorbell, which CREATE_QUEUE sets to NOT_RUNG."""
        return self.doorbell.value

    def listen(self, seen: int) -> Comparison:
        """Its own 64 bits."""
        return Comparison(self.properties.doorbell_address, 8, FULL_MASK, NOT_EQUAL, seen)

    def wait_any(self, addresses: list[int]) -> None:
        """Waits until one of some 64-bit numbers is 0. Raises Stopped, GpuFault."""
        self.wait_until([Comparison(at, 8, FULL_MASK, EQUAL, 0) for at in addresses])

    def interrupt(self, context_id: int) -> None:
        """Raises an interrupt."""
        events = self.process.events
        self.schedule.later(lambda: events.interrupt(context_id))

    def fault(self, fault: GpuFault) -> None:
        """MEMORY events are signalled, the process's queues on that GPU are evicted."""
        self.process.fault(self, fault)

    def hang(self, reason: str) -> None:
        """HW_EXCEPTION events are signalled, the queue stops."""
        self.process.hang(self, reason)

    def move_ring(self, address: int, size_bytes: int) -> None:
        """Takes another ring; the pointers stay."""
        self.properties.ring_address, self.properties.ring_bytes = address, size_bytes


def reserved_bits(fields: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """For each dword of a packet the bits without a meaning; a header without fields has none."""
    bits = [0xFFFFFFFF] * PACKET_DWORDS
    for dword, shift, width in fields.values():
        bits[dword] &= ~(((1 << width) - 1) << shift)
    if bits[0] == 0xFFFFFFFF:
        bits[0] = 0
    return tuple(bits)


def check_reserved(name: str, words: list[int], reserved: tuple[int, ...]) -> None:
    """Raises BadPacket where a reserved bit is set."""
    if any(map(operator.and_, words, reserved)):
        index, stray = next(
            (index, word & bits)
            for index, (word, bits) in enumerate(zip(words, reserved, strict=False)) if word & bits
        )
        raise BadPacket(f"{name}: reserved bits {stray:#x} are set in dword {index}")


def extract(words: list[int], place: tuple[int, ...]) -> int:
    """A field's value."""
    dword, shift, width = place
    return words[dword] >> shift & (1 << width) - 1
