"""An engine of a board: a thread that does what the program has put into one queue.

*The program owns the write pointer and rings the doorbell, the engine owns the read pointer.*
"""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from typing import Protocol

from drivers.emulated.memory import GpuFault, GuestMemory
from drivers.emulated.native import Native
from drivers.emulated.schedule import NOT_RUNG, Comparison, Schedule, Stopped

STOP_TIMEOUT_S = 5.0
STACK_BYTES = 64 << 20  # for those who translate kernels on it


class BadPacket(Exception):
    """Words that are no packet of this engine: it cannot go on."""


class Owner(Protocol):
    """What the kernel driver of a vendor is to its engines. (They call it from their threads.)"""

    log: list[str]
    native: Native
    schedule: Schedule


class Engine(ABC):
    """One queue on its engine."""

    def __init__(self, owner: Owner, gpu_index: int, name: str, memory: GuestMemory) -> None:
        self.owner, self.gpu_index, self.name, self.memory = owner, gpu_index, name, memory
        self.native, self.schedule = owner.native, owner.schedule
        self.busy = False
        self.halted = False  # evicted, or hung: takes nothing more
        self.active = threading.Event()
        self.active.set()
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
        """Takes no packet more; what is under way is given up at its next packet or wait."""
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
        """Ends the thread; if it has stopped, the engine touches nothing any more.

        A grid that runs for longer than STOP_TIMEOUT_S does not stop: then the engine stays busy.
        """
        self.halted = True
        self._stop_word.value = 1
        self.active.set()
        self.native.ring()
        self.schedule.wake(self)
        self.thread.join(STOP_TIMEOUT_S)
        if self.thread.is_alive():
            self.owner.log.append(f"{self.name}: did not stop in {STOP_TIMEOUT_S} s")

    def wait_memory(
        self, address: int, size_bytes: int, mask: int, function: int, reference: int
    ) -> None:
        """Waits until memory compares so. Raises Stopped, GpuFault."""
        self.wait_until([Comparison(address, size_bytes, mask, function, reference)])

    def wait_until(self, any_of: list[Comparison]) -> None:
        """Waits until one of some comparisons holds. Raises Stopped, GpuFault."""
        self.schedule.wait(self, any_of)

    def holds(self, what: Comparison) -> bool:
        """Whether memory compares so now. Raises GpuFault."""
        return what.holds(self.memory.load(what.address, what.size_bytes))

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

    def _consume(self, rung: int) -> None:
        self.busy = True
        failure: Exception | None = None
        try:
            self.consume(rung)
        except Stopped:
            pass
        except Exception as raised:  # the model's own mistake must not pass silently either
            failure = raised
        finally:
            self.busy = False
        if isinstance(failure, GpuFault):
            self.fault(failure)
        elif failure is not None:
            kind = "" if isinstance(failure, BadPacket) else f"{type(failure).__name__}: "
            self.hang(f"{kind}{failure}")

    @abstractmethod
    def rung(self) -> int:
        """What the doorbell says; NOT_RUNG before it was rung for the first time."""

    @abstractmethod
    def listen(self, seen: int) -> Comparison:
        """What to look for, in the board's own memory, when the doorbell last said `seen`."""

    @abstractmethod
    def consume(self, rung: int) -> None:
        """Does what lies between the read pointer and what the doorbell says."""

    @abstractmethod
    def report_read_pointer(self) -> None:
        """Writes the read pointer where the program looks for it."""

    @abstractmethod
    def fault(self, fault: GpuFault) -> None:
        """A page fault of this engine: tells the program, in its vendor's way."""

    @abstractmethod
    def hang(self, reason: str) -> None:
        """This engine cannot go on: tells the program, in its vendor's way."""
