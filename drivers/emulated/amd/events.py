"""Events of one process: what interrupts signal and WAIT_EVENTS waits for (kfd_events.c).

A signal event has a slot of 8 bytes in the event page. Who signals writes the event's number
there and raises an interrupt; an interrupt that finds the slot empty is not for that event.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import threading
import time
from dataclasses import dataclass, field

from autogen import kfd
from drivers.emulated.memory import WRITE, GpuFault

UNSIGNALED_EVENT_SLOT = 0xFFFFFFFFFFFFFFFF  # kfd_events.c
FIRST_NONSIGNAL_EVENT_ID = kfd.KFD_SIGNAL_EVENT_LIMIT
LAST_NONSIGNAL_EVENT_ID = 0x7FFFFFFF  # kfd_priv.h, KFD_LAST_NONSIGNAL_EVENT_ID
MMAP_TYPE_EVENTS = 2 << 62  # kfd_priv.h, KFD_MMAP_TYPE_EVENTS
INFINITE = 0xFFFFFFFF  # KFD_EVENT_TIMEOUT_INFINITE
SIGNAL_TYPES = (kfd.KFD_IOC_EVENT_SIGNAL, kfd.KFD_IOC_EVENT_DEBUG_EVENT)
EVENT_BYTES = ctypes.sizeof(kfd.struct_kfd_event_data)


@dataclass(eq=False)
class Event:
    """One event. `age` counts how often it was set; 0 is left out when it wraps."""

    event_id: int
    kind: int
    auto_reset: bool
    signaled: bool = False
    age: int = 1
    waiters: int = 0
    data: bytes = b""  # memory or hardware exception


@dataclass(eq=False)
class Waiter:
    """One entry of one WAIT_EVENTS."""

    event: Event
    activated: bool = False
    data: bytes = field(default=b"")


class Events:
    """The events of one process, and its page of slots."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.table: dict[int, Event] = {}
        self.waiting: list[Waiter] = []
        self.page_address = 0
        self.page_handle = 0
        self.next_signal, self.next_other = 1, FIRST_NONSIGNAL_EVENT_ID
        self.held = False

    def hold(self, on: bool) -> None:
        """While it is on, the time limits of waits do not pass."""
        with self.changed:
            self.held = on
            self.changed.notify_all()

    def set_page(self, handle: int, address: int, size_bytes: int) -> None:
        """Takes a buffer for the page. Raises OSError(EINVAL) if there is one."""
        if self.page_address:
            raise OSError(errno.EINVAL, "there is an event page")
        if size_bytes < kfd.KFD_SIGNAL_EVENT_LIMIT * 8:
            raise OSError(errno.EINVAL, "event page too small")
        ctypes.memset(address, 0xFF, kfd.KFD_SIGNAL_EVENT_LIMIT * 8)
        self.page_address, self.page_handle = address, handle

    def create(self, kind: int, auto_reset: bool) -> Event:
        """A new event. Raises OSError(ENOSPC) when the slots are used up."""
        with self.changed:
            if kind in SIGNAL_TYPES:
                event_id: int = self._free(self.next_signal, 1, kfd.KFD_SIGNAL_EVENT_LIMIT)
                self.next_signal = event_id + 1
            else:
                event_id = self._free(
                    self.next_other, FIRST_NONSIGNAL_EVENT_ID, LAST_NONSIGNAL_EVENT_ID + 1
                )
                self.next_other = event_id + 1
            event = Event(event_id, kind, auto_reset)
            self.table[event_id] = event
            return event

    def _free(self, first: int, low: int, high: int) -> int:
        for candidate in itertools.chain(range(first, high), range(low, min(first, high))):
            if candidate not in self.table:
                return int(candidate)
        raise OSError(errno.ENOSPC, "no event slot is free")

    def find(self, event_id: int) -> Event:
        """An event by number. Raises OSError(EINVAL)."""
        event = self.table.get(event_id)
        if event is None:
            raise OSError(errno.EINVAL, f"no event {event_id}")
        return event

    def destroy(self, event_id: int) -> None:
        """Removes an event; who waits for it is told that the wait failed."""
        with self.changed:
            event = self.find(event_id)
            del self.table[event_id]
            event.kind = -1
            self.changed.notify_all()

    def set(self, event: Event) -> None:
        """Signals an event, once; an event with auto_reset goes to the waiters that are there."""
        event.signaled = not event.auto_reset or not event.waiters
        event.age = event.age + 1 & 0xFFFFFFFFFFFFFFFF or 2
        for waiter in self.waiting:
            if waiter.event is event:
                waiter.activated = True
                waiter.data = event.data
        self.changed.notify_all()

    def interrupt(self, context_id: int) -> None:
        """An interrupt of an engine, with the number that the packet gave it."""
        with self.changed:
            event = self.table.get(context_id)
            if event is None or event.kind not in SIGNAL_TYPES:
                return
            if self.page_address:
                slot = ctypes.c_uint64.from_address(self.page_address + 8 * context_id)
                if slot.value == UNSIGNALED_EVENT_SLOT:
                    return  # nobody wrote the mailbox
                slot.value = UNSIGNALED_EVENT_SLOT
            self.set(event)

    def signal_all(self, kind: int, data: bytes) -> None:
        """Signals every event of a kind, with what happened."""
        with self.changed:
            for event in self.table.values():
                if event.kind == kind:
                    event.data = data
                    self.set(event)

    def wait(self, ids: list[tuple[int, int]], wait_all: bool, timeout_ms: int) -> tuple[
        int, list[Waiter]
    ]:
        """Waits; `ids` are pairs of event number and last age. Returns the result and entries.

        Raises OSError(EINVAL) for an event that does not exist.
        """
        deadline = None if timeout_ms == INFINITE else time.monotonic() + timeout_ms / 1000
        with self.changed:
            waiters = []
            for event_id, age in ids:
                event = self.find(event_id)
                waiter = Waiter(event, event.signaled, event.data)
                event.signaled = event.signaled and not event.auto_reset
                if event.kind == kfd.KFD_IOC_EVENT_SIGNAL and age and age != event.age:
                    waiter.activated = True
                waiters.append(waiter)
            return self._sleep(waiters, wait_all, deadline), waiters

    def _sleep(self, waiters: list[Waiter], wait_all: bool, deadline: float | None) -> int:
        self.waiting += waiters
        for waiter in waiters:
            waiter.event.waiters += 1
        try:
            while True:
                if any(waiter.event.kind == -1 for waiter in waiters):
                    return int(kfd.KFD_IOC_WAIT_RESULT_FAIL)
                met = [waiter.activated for waiter in waiters]
                if all(met) if wait_all else any(met):
                    return int(kfd.KFD_IOC_WAIT_RESULT_COMPLETE)
                left = None
                if deadline is not None and not self.held:
                    left = deadline - time.monotonic()
                if left is not None and left <= 0:
                    return int(kfd.KFD_IOC_WAIT_RESULT_TIMEOUT)
                self.changed.wait(left)
        finally:
            for waiter in waiters:
                self.waiting.remove(waiter)
                waiter.event.waiters -= 1


def create_event(events: Events, args: kfd.struct_kfd_ioctl_create_event_args) -> None:
    """AMDKFD_IOC_CREATE_EVENT, the page aside."""
    if args.event_type > kfd.KFD_IOC_EVENT_MEMORY:
        raise OSError(errno.EINVAL, f"event type {args.event_type}")
    event = events.create(args.event_type, bool(args.auto_reset))
    args.event_id = event.event_id
    if event.kind in SIGNAL_TYPES:
        args.event_page_offset = MMAP_TYPE_EVENTS & 0xFFFFFFFFFFFFFFFF
        args.event_slot_index = event.event_id


def wait_events(
    events: Events, args: kfd.struct_kfd_ioctl_wait_events_args, array: bytearray
) -> None:
    """AMDKFD_IOC_WAIT_EVENTS; results are written into `array`."""
    args.wait_result = kfd.KFD_IOC_WAIT_RESULT_FAIL
    entries = [
        kfd.struct_kfd_event_data.from_buffer(array, i * EVENT_BYTES)
        for i in range(len(array) // EVENT_BYTES)
    ]
    ids = [(entry.event_id, entry.signal_event_data.last_event_age) for entry in entries]
    args.wait_result, waiters = events.wait(ids, bool(args.wait_for_all), args.timeout)
    for entry, waiter in zip(entries, waiters, strict=True):
        if not waiter.activated:
            continue
        if waiter.event.kind == kfd.KFD_IOC_EVENT_SIGNAL:
            if entry.signal_event_data.last_event_age:
                entry.signal_event_data.last_event_age = waiter.event.age
        elif waiter.data:
            ctypes.memmove(ctypes.addressof(entry), waiter.data, len(waiter.data))


def memory_exception(gpu_id: int, fault: GpuFault) -> bytes:
    """What a MEMORY event carries: the page, and which permissions the access did not find.

    A write to a page that is not there lacks both (PERMISSION_FAULTS); this kernel never sets
    NoExecute (kfd_int_process_v9.c to v11.c).
    """
    data = kfd.struct_kfd_hsa_memory_exception_data()
    data.failure.NotPresent = int(not fault.present)
    data.failure.ReadOnly = int(fault.access == WRITE)
    data.va = fault.address & -4096
    data.gpu_id = gpu_id
    data.ErrorType = kfd.KFD_MEM_ERR_NO_RAS
    return bytes(data)


def hardware_exception(gpu_id: int) -> bytes:
    """What a HW_EXCEPTION event carries after an engine could not go on."""
    data = kfd.struct_kfd_hsa_hw_exception_data()
    data.reset_type = kfd.KFD_HW_EXCEPTION_PER_ENGINE_RESET
    data.reset_cause = kfd.KFD_HW_EXCEPTION_GPU_HANG
    data.gpu_id = gpu_id
    return bytes(data)


