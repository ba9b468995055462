"""An engine: a thread that consumes one ring. *The program owns the write pointer and rings the
doorbell, the engine owns the read pointer.*

What the doorbell says counts; the write pointer in memory is for the program itself. Words
beyond the doorbell are never looked at, and a packet that is not all there is waited for.
"""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.emulated.amd.topology import Gpu
from drivers.emulated.memory import GpuFault
from drivers.emulated.native import EQUAL
from drivers.emulated.schedule import FULL_MASK, NOT_RUNG, Comparison, Stopped

if TYPE_CHECKING:
    from drivers.emulated.amd.process import Allocation, KfdProcess

STOP_TIMEOUT_S = 5.0
STACK_BYTES = 64 << 20  # for those who translate kernels on it


class BadPacket(Exception):
    """Words that are no packet of this engine: it cannot go on."""


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


class Engine(ABC):
    """One queue on its engine."""

    kind = "queue"
    through_caches = True  # whether it reads and writes through the GPU's L2 cache

    def __init__(self, process: KfdProcess, gpu: Gpu, properties: QueueProperties) -> None:
        self.process, self.gpu, self.properties = process, gpu, properties
        self.name = f"{gpu.board.name}:{gpu.index} {self.kind} queue {properties.number}"
        self.caches = process.caches[gpu.index]
        self.memory = process.memory_of(gpu, self.through_caches)
        self.native, self.schedule = process.native, process.schedule
        self.busy = False
        self.halted = False  # evicted, or hung: takes nothing more
        self.active = threading.Event()
        self.active.set()
        self.doorbell = ctypes.c_uint64.from_address(properties.doorbell_address)
        self._stop_word = ctypes.c_uint32(0)
        self.stop_address = ctypes.addressof(self._stop_word)
        threading.stack_size(STACK_BYTES)
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Starts to listen to the doorbell."""
        self.report_read_pointer()
        self.schedule.join(self)
        self.thread.start()

    def evict(self) -> None:
        """Takes no packet more; what is under way is given up at its next wait."""
        self.halted = True
        self._stop_word.value = 1
        self.native.ring()
        self.schedule.wake(self)

    def set_active(self, active: bool) -> None:
        """Stops or goes on between packets."""
        if active:
            self.active.set()
        else:
            self.active.clear()

    def stop(self) -> None:
        """Ends the thread; when it returns the engine touches nothing any more."""
        self.halted = True
        self._stop_word.value = 1
        self.active.set()
        self.native.ring()
        self.schedule.wake(self)
        self.thread.join(STOP_TIMEOUT_S)
        if self.thread.is_alive():
            self.process.log.append(f"{self.name}: did not stop in {STOP_TIMEOUT_S} s")

    def wait_memory(
        self, address: int, size_bytes: int, mask: int, function: int, reference: int
    ) -> None:
        """Waits until memory compares so. Raises Stopped, GpuFault."""
        self.wait_until([Comparison(address, size_bytes, mask, function, reference)])

    def wait_any(self, addresses: list[int]) -> None:
        """Waits until one of some 64-bit numbers is 0. Raises Stopped, GpuFault."""
        self.wait_until([Comparison(at, 8, FULL_MASK, EQUAL, 0) for at in addresses])

    def wait_until(self, any_of: list[Comparison]) -> None:
        """Waits until one of some comparisons holds. Raises Stopped, GpuFault."""
        self.schedule.wait(self, any_of)

    def holds(self, what: Comparison) -> bool:
        """Whether memory compares so now. Raises GpuFault."""
        return what.holds(self.memory.load(what.address, what.size_bytes))

    def interrupt(self, context_id: int) -> None:
        """Raises an interrupt."""
        events = self.process.events
        self.schedule.later(lambda: events.interrupt(context_id))

    def _run(self) -> None:
        seen = NOT_RUNG
        try:
            self.schedule.enter(self)
            while not self.halted:
                seen = self.schedule.doorbell(self, seen)
                self._consume(seen)
        except Stopped:
            pass
        finally:
            self.schedule.leave(self)

    def _consume(self, doorbell: int) -> None:
        self.busy = True
        try:
            self.consume(doorbell)
        except Stopped:
            pass
        except GpuFault as fault:
            self.busy = False
            self.process.fault(self, fault)
        except BadPacket as bad:
            self.busy = False
            self.process.hang(self, str(bad))
        except Exception as failure:  # the model's own mistake must not pass silently
            self.busy = False
            self.process.hang(self, f"{type(failure).__name__}: {failure}")
        finally:
            self.busy = False

    def move_ring(self, address: int, size_bytes: int) -> None:
        """Takes another ring; the pointers stay."""
        self.properties.ring_address, self.properties.ring_bytes = address, size_bytes

    @abstractmethod
    def consume(self, doorbell: int) -> None:
        """Does what lies between the read pointer and the doorbell's value."""

    @abstractmethod
    def report_read_pointer(self) -> None:
        """Writes the read pointer where the program looks for it."""


def field_masks(fields: Mapping[str, tuple[int, ...]]) -> dict[int, int]:
    """For each dword of a packet the bits that have a meaning; the others are reserved."""
    masks: dict[int, int] = {}
    for dword, shift, width in fields.values():
        masks[dword] = masks.get(dword, 0) | ((1 << width) - 1) << shift
    return masks


def check_reserved(name: str, words: list[int], masks: dict[int, int]) -> None:
    """Raises BadPacket where a reserved bit is set. `words[0]` is the header, unchecked."""
    for index in range(1, len(words)):
        stray = words[index] & ~masks.get(index, 0)
        if stray:
            raise BadPacket(f"{name}: reserved bits {stray:#x} are set in dword {index}")


def extract(words: list[int], place: tuple[int, ...]) -> int:
    """A field's value."""
    dword, shift, width = place
    return words[dword] >> shift & (1 << width) - 1
