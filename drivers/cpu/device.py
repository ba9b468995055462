"""The processor devices: a pool of worker threads, queues, memory and programs.

LLVM and CLANG are the same device; only `target.compiler` differs. A kernel that accesses
memory it may not kills the process, as any native code in it would.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import threading
import time
import warnings
import weakref

from compiler.code_object import CodeObject
from compiler.target import Target
from drivers.cpu.host import host_target, thread_count
from drivers.cpu.program import CpuProgram, load_program
from drivers.cpu.queue import STACK_BYTES, CpuQueue
from drivers.device import Device, Features
from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    ForkedProcess,
    QueueLimit,
    SystemCallFailed,
)
from drivers.memory import Allocator, Buffer, CachePolicy, HostMemory, MemoryStatistics
from drivers.native.image import host_arch, native
from drivers.native.layout import Pool
from drivers.queue import Timestamp
from drivers.system import RealSystem, System
from drivers.timeline import (
    DEFAULT_TIMEOUT_MS,
    Timeline,
    forget_parent,
    host_address,
    reclaimer,
)

_STOP_TIMEOUT_S = 2.0
_IDLE_LOOKS = 40  # close() gives up after this many looks, 10 ms apart, without progress

_open_devices: weakref.WeakSet[CpuDevice] = weakref.WeakSet()


class CpuDevice(Device):
    """One instance of the processor, `LLVM:0` or `CLANG:1`, with threads of its own."""

    def __init__(
        self,
        name: str,
        compiler: str,
        *,
        system: System | None = None,
        timeout_ms: float = DEFAULT_TIMEOUT_MS,
        memory_limit_bytes: int | None = None,
        cache_policy: CachePolicy | None = None,
    ) -> None:
        self.name, self._compiler = name, compiler
        self.timeout_ms = timeout_ms
        self.unusable = "not open"
        self._process = os.getpid()
        self.threads = thread_count()
        self.system = system or RealSystem()
        self.features = Features(
            host_access=True, waits_for=("host", "LLVM", "CLANG"), separate_copy_engine=True,
            timestamp_ns=1.0, queues=Pool.JOBS,
        )
        self.allocator = Allocator(self.system, name, memory_limit_bytes, cache_policy)
        self._programs: weakref.WeakValueDictionary[CodeObject, CpuProgram] = (
            weakref.WeakValueDictionary()
        )
        self._kernel_names: weakref.WeakValueDictionary[int, CpuProgram] = (
            weakref.WeakValueDictionary()
        )
        self._queues: dict[int, CpuQueue] = {}
        self._workers: list[int] = []
        self._timelines = 0
        self._lock = threading.Lock()  # of queues and programs
        self._pool_storage = self.allocator.allocate(ctypes.sizeof(Pool))
        self.pool_address = self._pool_storage.address
        ctypes.memset(self.pool_address, 0, ctypes.sizeof(Pool))
        self._pool = Pool.from_address(self.pool_address)
        self._pool.host = host_address()
        self.unusable = ""
        _open_devices.add(self)

    @functools.cached_property
    def target(self) -> Target:
        """The processor as the compiler sees it; the first look imports llvmlite."""
        return host_target(self._compiler, self.threads)

    @property
    def memory(self) -> MemoryStatistics:
        """How much memory it uses."""
        return self.allocator.statistics

    def alloc(self, size_bytes: int) -> Buffer:
        """Memory, aligned to 64 bytes, with undefined contents; OutOfDeviceMemory."""
        if self.unusable:
            self.check_usable()
        if not isinstance(size_bytes, int) or not 0 <= size_bytes < 1 << 62:
            raise ArgumentMismatch(
                f"A buffer has 0 to 2^62 bytes, not {size_bytes!r}.",
                device=self.name, operation="alloc",
            )
        storage = self.allocator.allocate(size_bytes)
        return Buffer(self.name, storage, storage.address, size_bytes)

    def host_buffer(self, address: int, size_bytes: int, owner: object) -> Buffer:
        """Memory of this process as a buffer, not copied; `owner` is held as long as it is used."""
        self.check_usable()
        return Buffer(self.name, HostMemory(address, size_bytes, owner), address, size_bytes)

    def trim(self) -> None:
        """Gives idle memory back to the system."""
        self.allocator.trim()

    def load(self, code: CodeObject) -> CpuProgram:
        """Puts a kernel into executable memory; the same code object gives the same Program."""
        self.check_usable()
        with self._lock:
            program = self._programs.get(code)
            if program is None:
                program = load_program(
                    self.system, code, host_arch(), self.name, reclaimer.later
                )
                self._programs[code] = self._kernel_names[program.number] = program
        return program

    def kernel_name(self, number: int) -> str:
        """The name of a loaded kernel, by the number that stands in records."""
        program = self._kernel_names.get(number)
        return program.name if program else f"number {number}"

    def timestamps(self, count: int) -> list[Timestamp]:
        """Places for a queue to write CLOCK_MONOTONIC."""
        memory = self.alloc(8 * count)
        return [Timestamp(memory.view(8 * i, 8)) for i in range(count)]

    def timeline(self, name: str = "", initial: int = 0) -> Timeline:
        """A timeline that the host signals, or a list in the middle of a queue."""
        self.check_usable()
        self._timelines += 1
        own = name or f"{self._timelines - 1}"
        return Timeline(f"{self.name} timeline {own}", initial, self.timeout_ms)

    def compute_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> CpuQueue:
        """A new queue for kernels. Its timeline starts at `initial_value`."""
        self.check_usable()
        with self._lock:
            self._start_workers()
            return self._new_queue(name or "compute", ring_records, initial_value)

    def copy_queue(
        self, name: str = "", *, ring_records: int = 1024, initial_value: int = 0
    ) -> CpuQueue:
        """A new queue for copies, with a thread of its own; it runs kernels as well."""
        self.check_usable()
        with self._lock:
            return self._new_queue(name or "copy", ring_records, initial_value)

    def _new_queue(self, kind: str, ring_records: int, initial_value: int) -> CpuQueue:
        job = next((i for i in range(Pool.JOBS) if i not in self._queues), None)
        if job is None:
            raise QueueLimit(
                f"{self.name} has {Pool.JOBS} queues open, the most it can have.",
                device=self.name, operation="queue", remedy="Close those you no longer need.",
            )
        queue = CpuQueue(self, f"{kind}{job}", job, ring_records, initial_value)
        self._queues[job] = queue
        self._pool.job_count = max(self._queues) + 1
        return queue

    def release_queue(self, queue: CpuQueue) -> None:
        """Forgets a queue whose thread has ended."""
        with self._lock:
            kept = {job: each for job, each in self._queues.items() if each is not queue}
            self._queues = kept

    def _start_workers(self) -> None:
        """Starts the threads that help with kernels, once."""
        if not self._workers:
            self._choose_processors()
        while len(self._workers) < self.threads - 1:
            try:
                thread = self.system.start_thread(
                    native().functions["worker"], self.pool_address, STACK_BYTES
                )
            except OSError as error:
                raise SystemCallFailed.wrap(error, "start_thread", self.name) from error
            self._workers.append(thread)
        self._pool.workers = len(self._workers)

    def _choose_processors(self) -> None:
        """Gives each worker a processor of its own, if there are enough (native/placement.py)."""
        allowed = sorted(os.sched_getaffinity(0))
        if not 1 < self.threads <= len(allowed) or allowed[-1] >= Pool.CPUS:
            return
        for i, processor in enumerate(allowed[1 : self.threads]):
            self._pool.homes[i] = processor
        self._pool.free_cpu = allowed[0]
        self._pool.placement = 1

    def check_usable(self) -> None:
        """Raises once the device was closed, or when it belongs to the parent of a fork."""
        if self.unusable == "forked":
            raise ForkedProcess(
                f"{self.name} was opened by process {self._process} and used in process "
                f"{os.getpid()}, a fork of it; its threads exist only there.",
                device=self.name, operation="check",
                remedy="Open the device in the child, or start it with the 'spawn' method.",
            )
        if self.unusable:
            raise DeviceClosed(f"{self.name} is closed.", device=self.name, operation="check")

    def synchronize(self, timeout_ms: float | None = None) -> None:
        """Waits for everything submitted to its queues so far."""
        self.check_usable()
        for queue in list(self._queues.values()):
            queue.synchronize(timeout_ms)

    def close(self) -> None:
        """Ends its queues and gives its memory back; waits for work that makes progress.

        A queue that waits for something which does not come is ended where it stands. A kernel
        that does not end within two seconds keeps its thread and the device's memory.
        """
        if self.unusable:
            return
        self._drain()
        self._end()

    def _drain(self) -> None:
        """Waits until all queues are idle, or have not got on for a while."""
        for queue in list(self._queues.values()):
            looks, before = 0, queue.progress
            point = queue.last_point
            while looks < _IDLE_LOOKS:
                if native().wait(point.timeline.address, point.value, 10_000_000):
                    break
                now = queue.progress
                looks, before = (looks + 1 if now == before else 0), now

    def _end(self) -> None:
        self.unusable = "closed"
        _open_devices.discard(self)
        stuck = [queue.name for queue in self._queues.values() if not queue.stop()]
        native().pool_stop(self.pool_address)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while self._pool.stopped < len(self._workers) and time.monotonic() < deadline:
            time.sleep(0.0002)
        if stuck or self._pool.stopped < len(self._workers):
            _abandoned.append(self)
            warnings.warn(
                f"{self.name} was closed while a kernel of queue {', '.join(stuck) or 'none'} "
                f"still runs; its threads and memory stay until the process ends.",
                RuntimeWarning, stacklevel=3,
            )
            return
        for thread in self._workers:
            with contextlib.suppress(OSError):
                self.system.join_thread(thread)
        self._workers.clear()
        self._queues.clear()
        self.allocator.close()

    def abandon(self) -> None:
        """In a forked child: the threads are the parent's, so there is nothing to end."""
        self.unusable = "forked"
        for queue in self._queues.values():
            queue.forget()

    def __del__(self) -> None:
        if not getattr(self, "unusable", "not open"):
            self._end()


_abandoned: list[CpuDevice] = []  # closed with a kernel still running: must never be freed


def _close_all() -> None:
    for device in list(_open_devices):
        device._end()
    reclaimer.close()


def _abandon_all() -> None:
    for device in list(_open_devices):
        device.abandon()
    forget_parent()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_abandon_all)
