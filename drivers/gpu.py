"""What GPUs' devices share: memory, programs, queues, and their end.

A vendor's device opens the hardware, calls `start` when all is there, and says how to make
queues and programs. Whatever fails before gives back what it took.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import weakref
from abc import abstractmethod
from typing import Final

from compiler.code_object import CodeObject
from drivers.blocks import Block, BlockMemory, PinnedMemory
from drivers.device import Device
from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    DeviceFault,
    DeviceNotAvailable,
    ForkedProcess,
    HardwareError,
    QueueLimit,
)
from drivers.flight import Work
from drivers.memory import Allocator, Buffer, MemoryStatistics, Storage
from drivers.queue import Program
from drivers.ringqueue import RingQueue
from drivers.system import PAGE_BYTES, System
from drivers.timeline import Home, Timeline

QUEUES: Final = 64
_LOOK_NS: Final = 10_000_000
_WAITING_LOOKS: Final = 10
"""How many looks without progress close() has for a queue that waits for others."""
_WORKING_SHARE: Final = 15
"""A queue whose kernels run has this part of the device's timeout: of them nothing is seen until
their whole list has ended."""

_open_devices: weakref.WeakSet[GpuDevice] = weakref.WeakSet()


class GpuProgram(Program):
    """A kernel in a GPU's memory."""

    device_name: str


class GpuDevice(Device):
    """One GPU. Opening it again gives another device on the same GPU."""

    system: System
    allocator: Allocator
    """Of buffers."""
    command_allocator: Allocator
    """Of lists, which the GPU reads and the host writes."""
    gpu_memory: BlockMemory
    """What allocators take from."""

    def __init__(self, name: str, timeout_ms: float) -> None:
        self.name, self.timeout_ms = name, timeout_ms
        self.unusable = "not open"
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queues: list[RingQueue] = []
        self._programs: weakref.WeakValueDictionary[CodeObject, GpuProgram] = (
            weakref.WeakValueDictionary()
        )
        self._timelines = self._queue_number = 0
        self._pages: dict[int, Block] = {}  # of the process, as the GPU has them

    def start(self) -> None:
        """All is there: from here on `close` gives it back."""
        self.unusable = ""
        _open_devices.add(self)
        _register_end()

    # ---- what a vendor brings ----

    @property
    @abstractmethod
    def home(self) -> Home:
        """Where timelines that the GPU moves lie, and how they are waited for."""

    @property
    @abstractmethod
    def fault(self) -> DeviceFault | None:
        """What ended the device's work, if something has."""

    @abstractmethod
    def shares(self, home: Home) -> bool:
        """Whether its GPU reaches the timelines of a home at their addresses."""

    @abstractmethod
    def let_reach(self, home: Home, line: int) -> bool:
        """Maps a timeline of a home that it shares; False if that device was closed."""

    @abstractmethod
    def is_peer(self, owner: Allocator | None) -> bool:
        """Whether an allocator is of the same GPU, or of one whose memory it reaches."""

    @abstractmethod
    def reach_peer(self, storage: Storage) -> None:
        """Maps a peer's memory for this GPU too."""

    @abstractmethod
    def make_program(self, code: CodeObject) -> GpuProgram:
        """Puts a kernel into executable memory."""

    @abstractmethod
    def make_queue(
        self, kind: str, name: str, ring_records: int, initial_value: int
    ) -> RingQueue:
        """A queue of the hardware, `compute` or `copy`."""

    @abstractmethod
    def release(self) -> None:
        """Gives back what belongs to the device but its memory; raises nothing."""

    @abstractmethod
    def forget(self) -> None:
        """In a forked child: what the hardware knows is the parent's."""

    # ---- memory, programs, queues ----

    @property
    def memory(self) -> MemoryStatistics:
        """How much of the GPU's memory it uses."""
        return self.allocator.statistics

    def alloc(self, size_bytes: int) -> Buffer:
        """VRAM that the host sees, aligned to 64 bytes, with undefined contents."""
        if self.unusable:
            self.check_usable()
        if not isinstance(size_bytes, int) or not 0 <= size_bytes < 1 << 62:
            raise ArgumentMismatch(
                f"A buffer has 0 to 2^62 bytes, not {size_bytes!r}.",
                device=self.name, operation="alloc",
            )
        storage = self.allocator.allocate(size_bytes)
        return Buffer(self.name, storage, storage.address, size_bytes)

    def pin(self, page: int) -> int:
        """Lets the GPU reach a page of the process, until the device is closed; its address."""
        with self._lock:
            pinned, block = self.gpu_memory.pinned, self._pages.get(page)
            if block is None or pinned.get(block.address) is not block:  # it was a host_buffer's
                block = pinned.get(page) or self.gpu_memory.pin(page, PAGE_BYTES)
                self._pages[page] = block
            return block.address

    def host_buffer(self, address: int, size_bytes: int, owner: object) -> Buffer:
        """Whole pages of the process's memory as a buffer, which the GPU reaches over the bus.

        Its copy engine moves them at the bus's speed, kernels may use them too. They are the
        process's again when the buffer has been dropped and nothing in flight uses it, or with
        the device. Errors: `BlockMemory.pin`.
        """
        self.check_usable()
        storage = PinnedMemory(self.gpu_memory, address, size_bytes, owner)
        return Buffer(self.name, storage, storage.block.address, size_bytes)

    def release_pinned(self) -> None:
        """Gives back all pages of the process; raises nothing."""
        for block in list(self.gpu_memory.pinned.values()):
            with contextlib.suppress(HardwareError, OSError):
                self.gpu_memory.unpin(block)
        self._pages.clear()

    def trim(self) -> None:
        """Gives idle memory back to the system."""
        self.allocator.trim()
        self.command_allocator.trim()

    def load(self, code: CodeObject) -> GpuProgram:
        """Puts a kernel into executable memory; the same code object gives the same Program."""
        self.check_usable()
        with self._lock:
            program = self._programs.get(code)
            if program is None:
                program = self._programs[code] = self.make_program(code)
        return program

    def timeline(self, name: str = "", initial: int = 0) -> Timeline:
        """A timeline that the host signals, or a list in the middle of a queue."""
        self.check_usable()
        self._timelines += 1
        own = name or f"{self._timelines - 1}"
        return Timeline(
            f"{self.name} timeline {own}", initial, self.timeout_ms, self.home
        )

    def compute_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> RingQueue:
        """A new queue for kernels."""
        return self._new_queue("compute", name, ring_records, initial_value)

    def copy_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> RingQueue:
        """A new queue for copies, which runs no kernels."""
        return self._new_queue("copy", name, ring_records, initial_value)

    def _new_queue(
        self, kind: str, name: str, ring_records: int, initial_value: int
    ) -> RingQueue:
        self.check_usable()
        if self.fault is not None:
            raise self.fault
        with self._lock:
            limit = self.features.queues if kind == "copy" else QUEUES
            if sum(each.kind == kind for each in self._queues) >= limit:
                raise QueueLimit(
                    f"{self.name} has {limit} queues open for {kind} work, the most it can have.",
                    device=self.name, operation="queue",
                    remedy="Close those you no longer need.",
                )
            own = f"{name or kind}{self._queue_number}" if not name else name
            queue = self.make_queue(kind, own, ring_records, initial_value)
            self._queue_number += 1
            self._queues.append(queue)
        return queue

    def release_queue(self, queue: RingQueue) -> None:
        """Forgets a queue that has ended."""
        with self._lock:
            self._queues = [each for each in self._queues if each is not queue]

    def reaches(self, buffer: Buffer) -> bool:
        """Whether its queues may use a buffer: its own, pages of the process that it has pinned,
        and memory of GPUs that are its peers."""
        storage = buffer.storage
        if isinstance(storage, PinnedMemory):
            return storage.memory is self.gpu_memory
        return storage.allocator is self.allocator or self.is_peer(storage.allocator)

    def reachable(self, buffer: Buffer) -> int:
        """Where the GPU finds a buffer, which a peer lets it reach if need be.

        Raises ArgumentMismatch for one that it does not reach.
        """
        storage = buffer.storage
        if storage.allocator is self.allocator:
            return buffer.gpu_addr
        if not self.reaches(buffer):
            raise ArgumentMismatch(
                f"{buffer!r} is not memory of {self.name}, nor of a device whose memory it "
                "reaches.",
                device=self.name, operation="record",
                remedy="Copy it into a buffer of this device first.",
            )
        if not isinstance(storage, PinnedMemory):
            self.reach_peer(storage)
        return buffer.gpu_addr

    def running(self) -> list[Work]:
        """What its queues may be doing now, waits left out."""
        return [
            work for queue in list(self._queues) for work in queue.flight.first(
                queue.timeline.value
            ) if work.kind != "wait"
        ]

    # ---- its end ----

    def check_usable(self) -> None:
        """Raises once the device was closed, or when it belongs to the parent of a fork."""
        if self.unusable == "forked":
            raise ForkedProcess(
                f"{self.name} was opened by process {self._pid} and used in process "
                f"{os.getpid()}, a fork of it; its address space is that one's.",
                device=self.name, operation="check",
                remedy="Open the device in the child, or start it with the 'spawn' method.",
            )
        if self.unusable:
            raise DeviceClosed(f"{self.name} is closed.", device=self.name, operation="check")

    def synchronize(self, timeout_ms: float | None = None) -> None:
        """Waits for everything submitted to its queues so far."""
        self.check_usable()
        for queue in list(self._queues):
            queue.synchronize(timeout_ms)

    def close(self) -> None:
        """Ends its queues and gives its memory back; waits for work that makes progress."""
        if self.unusable:
            return
        with contextlib.suppress(HardwareError):
            self._drain()
        self._end()

    def _drain(self) -> None:
        working_looks = self.timeout_ms * 1e6 / _WORKING_SHARE / _LOOK_NS
        for queue in list(self._queues):
            looks, before, point = 0, queue.progress, queue.last_point
            while not point.timeline.arrives(point.value, _LOOK_NS):
                now = queue.progress
                looks, before = (looks + 1 if now == before else 0), now
                if looks >= (working_looks if queue.works else _WAITING_LOOKS):
                    break

    def _end(self) -> None:
        self.unusable = "closed"
        _open_devices.discard(self)
        for queue in self._queues:
            queue.stop()
        self._queues.clear()
        self.release()
        self.command_allocator.close()
        self.allocator.close()

    def abandon(self) -> None:
        """In a forked child: everything is the parent's."""
        self.unusable = "forked"
        self.forget()
        for queue in self._queues:
            queue.forget()

    def __del__(self) -> None:
        if not getattr(self, "unusable", "not open"):
            self._end()


def check_index(name: str, kinds: list[str]) -> int:
    """The number of a device name, `AMD:1`, if the kernel driver has as many GPUs."""
    index = int(name.partition(":")[2] or 0)
    if index >= len(kinds):
        raise DeviceNotAvailable(
            f"{name} is not there; the kernel driver's GPUs are {', '.join(kinds) or 'none'}.",
            device=name, operation="open",
        )
    return index


@functools.cache
def _register_end() -> None:
    """At exit: before the end of what was there when the first device was opened."""
    atexit.register(_close_all)


def _close_all() -> None:
    for device in list(_open_devices):
        device._end()


def _abandon_all() -> None:
    for device in list(_open_devices):
        device.abandon()


os.register_at_fork(after_in_child=_abandon_all)
