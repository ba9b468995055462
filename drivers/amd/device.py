"""An AMD GPU as a device: opening it, its memory, programs, clocks and queues.

Opening asks, in this order: the kernel driver's version, the topology, the GPU's generation, its
render node and address space, memory, events. Whatever fails gives back what it took, except the
nodes, which belong to the process (process.py).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from typing import Final

from compiler.code_object import CodeObject
from compiler.target import Target
from drivers.amd import process
from drivers.amd.clock import AmdTimestamp, GpuClock
from drivers.amd.events import Interrupts
from drivers.amd.flight import Work
from drivers.amd.generations import GENERATIONS
from drivers.amd.memory import HOST, AmdAllocator, Block, GpuMemory
from drivers.amd.program import AmdProgram
from drivers.amd.queue import AmdQueue
from drivers.amd.topology import GpuNode, find_gpus
from drivers.device import Device, Features
from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    DeviceNotAvailable,
    ForkedProcess,
    HardwareError,
    QueueLimit,
    SystemCallFailed,
    UnsupportedGpu,
)
from drivers.memory import Buffer, CachePolicy, MemoryStatistics
from drivers.queue import Timestamp
from drivers.system import MAP_SHARED, PAGE_BYTES, PROT_READ, PROT_WRITE, System
from drivers.timeline import DEFAULT_TIMEOUT_MS, Timeline

QUEUES: Final = 64
_DOORBELL_PAGE_BYTES: Final = 0x2000  # kfd_doorbell.c: 1024 doorbells of 8 bytes for a process
_IDLE_LOOKS: Final = 10  # close() gives up after this many looks, 10 ms apart, without progress
_LOOK_NS: Final = 10_000_000

_open_devices: weakref.WeakSet[AmdDevice] = weakref.WeakSet()


class AmdDevice(Device):
    """One GPU, `AMD:0`. Opening it again gives another device on the same GPU."""

    def __init__(
        self,
        name: str,
        *,
        system: System | None = None,
        timeout_ms: float = DEFAULT_TIMEOUT_MS,
        memory_limit_bytes: int | None = None,
        cache_policy: CachePolicy | None = None,
    ) -> None:
        self.name, self.timeout_ms = name, timeout_ms
        self.unusable = "not open"
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queues: list[AmdQueue] = []
        self._pinned: dict[int, Block] = {}
        self._programs: weakref.WeakValueDictionary[CodeObject, AmdProgram] = (
            weakref.WeakValueDictionary()
        )
        self._timelines = self._queue_number = 0
        self._doorbells = 0
        self.flush_address = 0
        self._process = process.process_of(system)
        self.system, self.kfd = self._process.system, self._process.kfd
        self.node = _choose(find_gpus(self.system, name), name)
        self.generation = GENERATIONS[self.node.architecture]
        render = self._process.render(self.node, name)
        self.gpu_memory = GpuMemory(self.system, self.kfd, render, self.node, name)
        self.allocator = AmdAllocator(self.gpu_memory, memory_limit_bytes, cache_policy)
        self.command_allocator = AmdAllocator(
            self.gpu_memory, None, cache_policy, HOST, "commands"
        )
        self.clock = GpuClock(self.kfd, self.node.gpu_id, self.generation.clock_hz)
        # Timelines outlive the device and lead to their interrupts, which must not hold it.
        reference = weakref.ref(self)
        self.interrupts = Interrupts(
            self._process, self.gpu_memory,
            lambda: device._running() if (device := reference()) else (),
        )
        self.features = Features(
            host_access=True, waits_for=("host", "AMD", "LLVM", "CLANG"),
            separate_copy_engine=True, timestamp_ns=1e9 / self.generation.clock_hz,
            queues=min(QUEUES, self.node.copy_queues),
        )
        self.unusable = ""
        _open_devices.add(self)

    @property
    def target(self) -> Target:
        """The GPU as the compiler sees it."""
        from compiler.amdgpu import gpu_target

        return gpu_target(self.generation.name, self.node.compute_units * self.node.xccs)

    @property
    def local_bytes(self) -> int:
        """Local memory of one block."""
        return self.node.value("lds_size_in_kb", 64) << 10

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

    def trim(self) -> None:
        """Gives idle memory back to the system."""
        self.allocator.trim()
        self.command_allocator.trim()

    def load(self, code: CodeObject) -> AmdProgram:
        """Puts a kernel into executable memory; the same code object gives the same Program."""
        self.check_usable()
        with self._lock:
            program = self._programs.get(code)
            if program is None:
                program = self._programs[code] = AmdProgram(self, code)
        return program

    def timestamps(self, count: int) -> list[Timestamp]:
        """Places for a queue to write the GPU's clock, read in ns of CLOCK_BOOTTIME."""
        memory = self.alloc(8 * count)
        return [AmdTimestamp(memory.view(8 * i, 8), self.clock) for i in range(count)]

    def timeline(self, name: str = "", initial: int = 0) -> Timeline:
        """A timeline that the host signals, or a list in the middle of a queue."""
        self.check_usable()
        self._timelines += 1
        own = name or f"{self._timelines - 1}"
        return Timeline(
            f"{self.name} timeline {own}", initial, self.timeout_ms, self.interrupts
        )

    def compute_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> AmdQueue:
        """A new queue for kernels: a PM4 ring, or an AQL ring that several XCCs share."""
        return self._new_queue("compute", name, ring_records, initial_value)

    def copy_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> AmdQueue:
        """A new queue for copies: a ring of an SDMA engine, which runs no kernels."""
        return self._new_queue("copy", name, ring_records, initial_value)

    def _new_queue(
        self, kind: str, name: str, ring_records: int, initial_value: int
    ) -> AmdQueue:
        self.check_usable()
        with self._lock:
            limit = self.features.queues if kind == "copy" else QUEUES
            if sum(each.kind == kind for each in self._queues) >= limit:
                raise QueueLimit(
                    f"{self.name} has {limit} queues open for {kind} work, the most it can have.",
                    device=self.name, operation="queue",
                    remedy="Close those you no longer need.",
                )
            own = f"{name or kind}{self._queue_number}" if not name else name
            queue = AmdQueue(self, kind, own, ring_records, initial_value)
            self._queue_number += 1
            self._queues.append(queue)
        return queue

    def release_queue(self, queue: AmdQueue) -> None:
        """Forgets a queue that has ended."""
        with self._lock:
            self._queues = [each for each in self._queues if each is not queue]

    # ---- what its queues need ----

    def doorbell(self, offset: int) -> int:
        """The address of a queue's doorbell in the process's doorbell page."""
        page = offset & -_DOORBELL_PAGE_BYTES
        if not self._doorbells:
            try:
                self._doorbells = self.system.mmap(
                    _DOORBELL_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                    self.kfd.descriptor, page,
                )
            except OSError as error:
                raise SystemCallFailed.wrap(error, "mmap of doorbells", self.name) from error
        return self._doorbells + offset - page

    def pin(self, page: int) -> None:
        """Lets the GPU reach a page of the process, until the device is closed."""
        with self._lock:
            if page not in self._pinned:
                self._pinned[page] = self.gpu_memory.pin(page, PAGE_BYTES)

    def check_reachable(self, buffer: Buffer) -> None:
        """Refuses a buffer of another device, which the GPU does not reach."""
        if buffer.device != self.name:
            raise ArgumentMismatch(
                f"{buffer!r} is not memory of {self.name}.", device=self.name, operation="record",
                remedy="Copy it into a buffer of this device first.",
            )

    def _running(self) -> list[Work]:
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
        for queue in list(self._queues):
            looks, before, point = 0, queue.progress, queue.last_point
            while looks < _IDLE_LOOKS and not point.timeline.arrives(point.value, _LOOK_NS):
                now = queue.progress
                looks, before = (looks + 1 if now == before else 0), now

    def _end(self) -> None:
        self.unusable = "closed"
        _open_devices.discard(self)
        for queue in self._queues:
            queue.stop()
        self._queues.clear()
        for block in self._pinned.values():
            with contextlib.suppress(HardwareError):
                self.gpu_memory.unpin(block)
        self._pinned.clear()
        if self._doorbells:
            with contextlib.suppress(OSError):
                self.system.munmap(self._doorbells, _DOORBELL_PAGE_BYTES)
        self._doorbells = 0
        self.interrupts.close()
        self.command_allocator.close()
        self.allocator.close()

    def abandon(self) -> None:
        """In a forked child: everything is the parent's."""
        self.unusable = "forked"
        self.interrupts.forget()
        for queue in self._queues:
            queue.forget()

    def __del__(self) -> None:
        if not getattr(self, "unusable", "not open"):
            self._end()


def _choose(gpus: list[GpuNode], name: str) -> GpuNode:
    """The GPU of a device name, if this driver knows its generation."""
    index = int(name.partition(":")[2] or 0)
    if index >= len(gpus):
        names = ", ".join(gpu.architecture for gpu in gpus) or "none"
        raise DeviceNotAvailable(
            f"{name} is not there; the kernel driver has {len(gpus)} GPUs ({names}).",
            device=name, operation="open",
        )
    gpu = gpus[index]
    if gpu.architecture not in GENERATIONS:
        raise UnsupportedGpu(
            f"GPU {index} is {gpu.architecture}; supported: {', '.join(GENERATIONS)}.",
            device=name, operation="open",
        )
    return gpu


def _close_all() -> None:
    for device in list(_open_devices):
        device._end()


def _abandon_all() -> None:
    for device in list(_open_devices):
        device.abandon()
    process.forget_parent()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_abandon_all)

