"""Timelines, Points, and the question whether work in flight may still touch something.

A timeline is one 64-bit count that only grows, in memory that every processor thread of this
process can reach. It does not belong to a device: a queue of one device may wait for another's
Point, and closing a device leaves its timelines readable for as long as somebody holds them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from drivers.errors import ArgumentMismatch, DeviceHang, ForkedProcess
from drivers.native.image import native
from drivers.native.layout import LINE_BYTES, Host, TimelineState
from drivers.system import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    RealSystem,
    address_of,
)

DEFAULT_TIMEOUT_MS = 30_000.0
"""How long a wait lasts when its caller gives no deadline."""

SLICE_NS = 100_000_000
"""Native waits come back to Python at least this often, to let Ctrl-C through."""

SPIN_NS = 30_000
"""How long a thread looks before it sleeps: about what waking it from a futex costs."""

_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}  # asm/unistd_64.h, asm-generic/unistd.h
_SLAB_BYTES = 4096


def memory_view(address: int, size_bytes: int) -> memoryview:
    """The bytes at an address, writable. The caller keeps the memory mapped."""
    return memoryview((ctypes.c_ubyte * size_bytes).from_address(address)).cast("B")


@functools.cache
def host_address() -> int:
    """The address of the process's one `Host` structure."""
    from drivers.native.image import host_arch

    address = RealSystem().mmap(
        4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
    )
    host = Host.from_address(address)
    host.syscall = address_of("syscall")
    host.clock_gettime = address_of("clock_gettime")
    host.memmove = address_of("memmove")
    host.sched_yield = address_of("sched_yield")
    host.sched_getcpu = address_of("sched_getcpu")
    host.sched_setaffinity = address_of("sched_setaffinity")
    host.gettid = address_of("gettid")
    host.futex_number = _FUTEX_NUMBERS[host_arch()]
    host.spin_ns = SPIN_NS
    return address


class Point:
    """One moment of a timeline: reached once the timeline's value is at least `value`.

    When it is reached, everything submitted to its queue before it has finished and its
    memory is visible to the whole system.
    """

    __slots__ = ("timeline", "value")

    def __init__(self, timeline: Timeline, value: int) -> None:
        self.timeline, self.value = timeline, value

    @property
    def done(self) -> bool:
        """Whether it has been reached; if so, what it guards may be read."""
        return bool(native().reached(self.timeline.address, self.value, 0))

    def wait(self, timeout_ms: float | None = None) -> None:
        """Waits without the GIL; DeviceHang after `timeout_ms` (the timeline's default)."""
        self.timeline.wait(self.value, timeout_ms)

    def __repr__(self) -> str:
        return f"Point({self.timeline.name!r}, {self.value})"


class Home(Protocol):
    """Where a device keeps timelines that it moves itself, and how those are waited for."""

    def take(self) -> int:
        """A cache line for a timeline."""

    def give_back(self, address: int) -> None:
        """A cache line that no timeline needs any more; called from `__del__`."""

    def wait(self, address: int, value: int, timeout_ns: int) -> int:
        """Waits for a value: first awake, then for the device's interrupt; whether it came."""

    def nudge(self) -> None:
        """The host has moved a timeline: those who wait for interrupts look again."""


class Timeline:
    """A 64-bit count that the host or a queue moves forward, and that anybody may wait for.

    A queue's timeline has `describe`, which adds the queue's state to the message of a
    DeviceHang, `progress`, whose value changes while the queue gets on, and `ended`, once
    nobody will move it any more.
    """

    __slots__ = (
        "name", "address", "timeout_ms", "describe", "progress", "ended", "home",
        "_view", "_wait", "_process", "_slots", "__weakref__",
    )

    def __init__(
        self,
        name: str,
        initial: int = 0,
        timeout_ms: float = DEFAULT_TIMEOUT_MS,
        home: Home | None = None,
    ) -> None:
        self.address = 0
        if not 0 <= initial < 1 << 63:
            raise ArgumentMismatch(f"A timeline starts between 0 and 2^63 - 1, not at {initial}.")
        self.name, self.timeout_ms = name, timeout_ms
        self.describe: Callable[[], str] | None = None
        self.progress: Callable[[], object] | None = None
        self.ended = False
        self.home = home
        self._wait = home.wait if home else native().wait
        self._process = os.getpid()
        self._slots: Home | _Slots = home or _slots
        self.address = self._slots.take()
        _names[self.address] = self
        state = TimelineState.from_address(self.address)
        ctypes.memset(self.address, 0, LINE_BYTES)
        state.host, state.value = host_address(), initial
        self._view = memory_view(self.address, 8).cast("Q")

    @property
    def value(self) -> int:
        """How far it has come."""
        return self._view[0]

    def point(self, value: int) -> Point:
        """The moment at which this timeline reaches `value`."""
        if not 0 <= value < 1 << 63:
            raise ArgumentMismatch(f"A point lies between 0 and 2^63 - 1, not at {value}.")
        return Point(self, value)

    def signal(self, value: int) -> None:
        """Brings it to `value` from the host; it never goes back."""
        native().signal(self.address, self.point(value).value)
        if self.home:
            self.home.nudge()

    def arrives(self, value: int, timeout_ns: int) -> bool:
        """Waits up to `timeout_ns` for `value`, less than a second; whether it came."""
        return bool(self._wait(self.address, value, timeout_ns))

    def wait(self, value: int, timeout_ms: float | None = None) -> None:
        """Waits until it reaches `value`.

        DeviceHang after `timeout_ms`; if none is given, after the timeline's own `timeout_ms`
        without any progress of its queue, so that long work is not taken for a hang.
        """
        start_ns = time.monotonic_ns()
        limit_ns = int((self.timeout_ms if timeout_ms is None else timeout_ms) * 1e6)
        if self._wait(self.address, value, min(max(limit_ns, 0), SLICE_NS)):
            return
        if self._process != os.getpid():
            raise ForkedProcess(
                f"{self.name} belongs to process {self._process}, which forked this one "
                f"({os.getpid()}); its threads exist only there.",
                operation="wait",
                remedy="Open the device in the child, or start it with the 'spawn' method.",
            )
        progress = self.progress if timeout_ms is None else None
        seen = progress() if progress else None
        deadline_ns = start_ns + limit_ns
        while not self._wait(self.address, value, min(SLICE_NS, _left_ns(deadline_ns))):
            now_ns = time.monotonic_ns()
            if self.ended:
                raise self.hang(value, (now_ns - start_ns) / 1e6)
            if progress and (latest := progress()) != seen:
                seen, deadline_ns = latest, now_ns + limit_ns
            elif now_ns >= deadline_ns:
                raise self.hang(value, limit_ns / 1e6)

    def hang(self, value: int, waited_ms: float) -> DeviceHang:
        """The error for a point that did not come."""
        state = self.describe() if self.describe else "Nothing but the host signals it."
        return DeviceHang(
            f"{self.name} did not reach {value} within {waited_ms / 1e3:g} s: its timeline is at "
            f"{self.value}. {state}",
            device=self.name.partition(" ")[0],
            operation="wait",
        )

    def __del__(self, exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.address and not exiting():
            self._slots.give_back(self.address)

    def __repr__(self) -> str:
        return f"Timeline({self.name!r}, value={self.value})"


def _left_ns(deadline_ns: int) -> int:
    return max(deadline_ns - time.monotonic_ns(), 0)


class InFlight:
    """What fences look at of a queue: its timeline, and the last value submitted to it.

    `submitted` grows before the submission, so that no interrupt can come in between and leave
    work in flight that fences do not know of.
    """

    __slots__ = ("timeline", "submitted", "ended")

    def __init__(self, timeline: Timeline, submitted: int) -> None:
        self.timeline, self.submitted = timeline, submitted
        self.ended = False
        _in_flight.append(self)

    @property
    def idle(self) -> bool:
        """Whether everything submitted has finished, or never will."""
        return self.ended or self.timeline.value >= self.submitted

    def end(self) -> None:
        """The queue's thread has ended: nothing in flight touches memory any more."""
        self.ended = True
        if self in _in_flight:
            _in_flight.remove(self)


_in_flight: list[InFlight] = []


class Fence:
    """All work of all queues of the process that was in flight when it was made."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits = tuple(
            (each, each.submitted) for each in tuple(_in_flight) if not each.idle
        )

    @property
    def retired(self) -> bool:
        """Whether all of it has finished; a queue that was closed counts as finished."""
        return self._first_left() is None

    def wait(self, timeout_ms: float) -> bool:
        """Waits up to `timeout_ms` for all of it; whether it has finished."""
        deadline_ns = time.monotonic_ns() + int(timeout_ms * 1e6)
        while left := self._first_left():
            left_ns = _left_ns(deadline_ns)
            if not left_ns:
                return False
            each, value = left
            each.timeline.arrives(value, min(left_ns, SLICE_NS))
        return True

    def _first_left(self) -> tuple[InFlight, int] | None:
        for each, value in self._waits:
            if not each.ended and each.timeline.value < value:
                return each, value
        return None


class Reclaimer:
    """Does things once the work that was in flight at their time has finished.

    Memory, code and timelines are given back through the process's one `reclaimer`. `later` is
    called from `__del__`, which may run anywhere, in the middle of the lock's holder too: so
    it only queues, and takes the lock if it is free.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything: at first, and in a forked child, where nothing is in flight."""
        self.lock = threading.Lock()
        self.waiting_bytes = 0
        self._new: deque[tuple[Callable[[], None], int]] = deque()
        self._fenced: deque[tuple[Fence, Callable[[], None], int]] = deque()
        self._closed = False

    def close(self) -> None:
        """At the end of the process: what is given back from here on is left to the system."""
        self._closed = True

    def later(self, action: Callable[[], None], size_bytes: int = 0) -> None:
        """Calls `action`, under the lock, when everything in flight now has finished."""
        if self._closed:
            return
        self._new.append((action, size_bytes))
        if self.lock.acquire(blocking=False):
            try:
                self.collect()
            finally:
                self.lock.release()

    def collect(self) -> None:
        """Does what may be done; the caller holds the lock."""
        while self._new:
            action, size_bytes = self._new.popleft()
            self._fenced.append((Fence(), action, size_bytes))
            self.waiting_bytes += size_bytes
        while self._fenced and self._fenced[0][0].retired:
            _, action, size_bytes = self._fenced.popleft()
            self.waiting_bytes -= size_bytes
            action()

    def wait(self, timeout_ms: float) -> None:
        """Waits for the oldest, then collects. The caller's lock is free in the meantime."""
        self.collect()
        if not self._fenced:
            return
        fence = self._fenced[0][0]
        self.lock.release()
        try:
            fence.wait(timeout_ms)
        finally:
            self.lock.acquire()
        self.collect()


reclaimer = Reclaimer()


def forget_parent() -> None:
    """In a forked child: no thread of the parent's is here, and nobody holds its locks."""
    _in_flight.clear()
    reclaimer.reset()


class _Slots:
    """Cache lines for timelines, carved out of pages that the process keeps."""

    def __init__(self) -> None:
        self._free: list[int] = []

    def take(self) -> int:
        with reclaimer.lock:
            reclaimer.collect()
            if not self._free:
                slab = RealSystem().mmap(
                    _SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
                )
                self._free.extend(range(slab, slab + _SLAB_BYTES, LINE_BYTES))
            return self._free.pop()

    def give_back(self, address: int) -> None:
        reclaimer.later(lambda: self._free.append(address))


_slots = _Slots()
_names: weakref.WeakValueDictionary[int, Timeline] = weakref.WeakValueDictionary()


def timeline_name(address: int) -> str:
    """The name of the timeline at an address, for messages."""
    timeline = _names.get(address)
    return timeline.name if timeline else "a timeline that nobody holds any more"
