"""What every device offers, whatever drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from compiler.code_object import CodeObject
from compiler.target import Target
from drivers.errors import ArgumentMismatch
from drivers.memory import Buffer, MemoryStatistics
from drivers.queue import Program, Queue, Timestamp
from drivers.timeline import Timeline

Self = TypeVar("Self", bound="Device")

UNTESTED = "untested"
"""What a driver has been run on, for each kind of hardware: nothing."""
EMULATED = "emulated only"
"""The driver's tests run on an emulated board, nobody on silicon."""


@dataclass(frozen=True)
class Features:
    """What a device can and cannot do by itself.

    `host_access`: the host reads and writes its buffers in place. `waits_for`: whose Points
    its queues await without help ('host' means every timeline in this process's memory).
    `separate_copy_engine`: a copy queue does not take time from compute queues.
    `pin_to_read_bytes`, `pin_to_write_bytes`: from which size on a copy queue and `host_buffer`
    move bytes to and from the host's memory faster than the host itself does; 0: never.
    """

    host_access: bool
    waits_for: tuple[str, ...]
    separate_copy_engine: bool
    timestamp_ns: float
    queues: int
    pin_to_read_bytes: int = 0
    pin_to_write_bytes: int = 0


class Device(ABC):
    """An open device. `close()`, or leaving its `with`, gives everything back."""

    name: str
    features: Features
    unusable: str
    """Empty while it takes work; else why it takes none: 'not open', 'closed', 'forked'."""

    @property
    @abstractmethod
    def target(self) -> Target:
        """What the compiler must know to make code objects for it."""

    @property
    @abstractmethod
    def memory(self) -> MemoryStatistics:
        """How much memory it uses."""

    @property
    def memory_used(self) -> int:
        """Bytes that buffers hold now."""
        return self.memory.used_bytes

    @abstractmethod
    def alloc(self, size_bytes: int) -> Buffer:
        """Memory, aligned to 64 bytes, with undefined contents; OutOfDeviceMemory."""

    def host_buffer(self, address: int, size_bytes: int, owner: object) -> Buffer:
        """Memory of this process as a buffer, not copied; `owner` is held as long as it is used.

        Whoever has waited for all that uses it may let go of it with its storage's `release`.
        Raises ArgumentMismatch where the device cannot compute in the host's memory.
        """
        raise ArgumentMismatch(
            f"{self.name} cannot compute in the host's memory; it must be copied.",
            device=self.name, operation="host_buffer",
        )

    def reaches(self, buffer: Buffer) -> bool:
        """Whether its queues may use a buffer, which may be another device's."""
        return buffer.device == self.name

    @abstractmethod
    def trim(self) -> None:
        """Gives idle memory back to the system."""

    @abstractmethod
    def load(self, code: CodeObject) -> Program:
        """Puts a kernel into executable memory; the same code object gives the same Program."""

    @abstractmethod
    def timestamps(self, count: int) -> list[Timestamp]:
        """Places for a queue to write the time."""

    @abstractmethod
    def timeline(self, name: str = "", initial: int = 0) -> Timeline:
        """A timeline that the host signals, or a list in the middle of a queue."""

    @abstractmethod
    def compute_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> Queue:
        """A new queue for kernels. Its timeline starts at `initial_value`."""

    @abstractmethod
    def copy_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> Queue:
        """A new queue for copies."""

    @abstractmethod
    def synchronize(self, timeout_ms: float | None = None) -> None:
        """Waits for everything submitted to its queues so far."""

    @abstractmethod
    def close(self) -> None:
        """Ends its queues and gives its memory back; waits for work that makes progress."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
