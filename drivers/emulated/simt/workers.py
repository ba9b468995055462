"""Threads that carry out dispatches: a pool as the processor's devices have it (native/pool.py).

A dispatch has as many shares as there are threads, each a context for `run` (`runner.py`), which
takes workgroups until none is left. So it does no harm if a thread comes late, or not at all.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from array import array

from drivers.native.image import native
from drivers.native.layout import FIELDS, LINE_BYTES, RECORD_BYTES, Job, Opcode, Pool, QueueState
from drivers.system import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, System
from drivers.timeline import host_address

STACK_BYTES = 8 << 20
STOP_TIMEOUT_S = 2.0
_QUEUES_AT = (ctypes.sizeof(Pool) + LINE_BYTES - 1) & -LINE_BYTES
_QUEUE_BYTES = ctypes.sizeof(QueueState) + LINE_BYTES  # and its record
_BYTES = _QUEUES_AT + Pool.JOBS * _QUEUE_BYTES
_SHARE = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32
)


class Workers:
    """`count` threads beside those that call `run`; they start with the first call."""

    def __init__(self, system: System, count: int) -> None:
        self.system, self.count = system, count
        self.threads: list[int] = []
        self.lock = threading.Lock()
        self.address = system.mmap(
            _BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        self.pool = Pool.from_address(self.address)
        self.pool.host = host_address()
        self.free = list(range(Pool.JOBS))[::-1]  # numbers of jobs

    def _start(self) -> None:
        """Each on a processor of its own, if there are enough. Raises OSError."""
        allowed = sorted(os.sched_getaffinity(0))
        if self.count < len(allowed) and allowed[-1] < Pool.CPUS:
            for number, processor in enumerate(allowed[1 : self.count + 1]):
                self.pool.homes[number] = processor
            self.pool.free_cpu, self.pool.placement = allowed[0], 1
        worker = native().functions["worker"]
        while len(self.threads) < self.count:
            self.threads.append(self.system.start_thread(worker, self.address, STACK_BYTES))
        self.pool.workers = self.count

    def run(self, share: int, contexts: list[int]) -> None:
        """Runs native `share(addresses of contexts, number, 0, 0)` for each of them, together.

        Returns when all have ended. Raises OSError when threads cannot be started.
        """
        listed = array("Q", contexts)
        with self.lock:
            if not self.threads:
                self._start()
            number = self.free.pop() if self.free else -1
            self.pool.job_count = max(self.pool.job_count, number + 1)
        address = listed.buffer_info()[0]
        if number < 0:  # more dispatches than jobs: this thread does all of it
            _SHARE(share)(address, 0, 0, 0)
            return
        queue_at = self.address + _QUEUES_AT + number * _QUEUE_BYTES
        queue = QueueState.from_address(queue_at)
        queue.host, queue.pool = self.pool.host, self.address
        queue.job = self.address + Pool.jobs.offset + number * ctypes.sizeof(Job)
        record = (ctypes.c_char * RECORD_BYTES).from_address(queue_at + ctypes.sizeof(QueueState))
        for name, value in (("entry", share), ("kernarg", address), ("grid_x", len(contexts)),
                            ("grid_y", 1), ("grid_z", 1)):
            offset, form = FIELDS[Opcode.EXEC][name]
            struct.pack_into(f"<{form}", record, offset, value)
        native().run_kernel(queue_at, ctypes.addressof(record))
        with self.lock:
            self.free.append(number)

    def close(self) -> None:
        """Ends the threads; only while nobody runs anything."""
        native().pool_stop(self.address)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.pool.stopped < len(self.threads) and time.monotonic() < deadline:
            time.sleep(0.0002)
        if self.pool.stopped == len(self.threads):
            for thread in self.threads:
                self.system.join_thread(thread)
            self.system.munmap(self.address, _BYTES)
        self.threads.clear()
