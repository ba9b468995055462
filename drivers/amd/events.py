"""Interrupts: how the host waits for a GPU, and hears of its faults.

A waiter looks at the timeline for some 150 µs, lending its processor to whoever wants it, then asks
the kernel driver to sleep until the GPU raises the device's event. It sleeps in short slices and
looks again, so a wake-up that another thread took costs a slice, not the deadline. Each sleep also
listens to the events of page faults and resets, which end every wait of the device.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from autogen import kfd as uapi
from drivers.amd.abi import Kfd
from drivers.amd.faults import hardware_exception, memory_exception
from drivers.amd.memory import GpuMemory
from drivers.amd.process import KfdProcess
from drivers.blocks import TimelineLines
from drivers.errors import DeviceFault, HardwareError
from drivers.flight import Work
from drivers.native.image import native
from drivers.timeline import SPIN_NS, reclaimer

SLICE_MS: Final = 20
LOOK_NS: Final = 150_000  # about what that and being woken costs; in turns of SPIN_NS
_MAILBOX_BYTES: Final = 8
_SIGNAL, _MEMORY, _HARDWARE = range(3)


class Interrupts:
    """A device's events, and the home of its timelines."""

    def __init__(
        self, process: KfdProcess, memory: GpuMemory, running: Callable[[], Sequence[Work]]
    ) -> None:
        self.kfd: Kfd = process.kfd
        self._system = process.system
        self.memory, self._running = memory, running
        self.gpu_id = memory.node.gpu_id
        self.lines = TimelineLines(memory)
        self.fault: DeviceFault | None = None
        self._events: list[int] = []
        self._sleepers = 0
        page, handle = process.event_page(memory)
        try:
            self.event_id, slot = self._create(uapi.KFD_IOC_EVENT_SIGNAL, True, handle)
        except BaseException:
            if handle:
                process.forget_event_page()
            raise
        self.mailbox = page.address + slot * _MAILBOX_BYTES
        try:
            self._create(uapi.KFD_IOC_EVENT_MEMORY, False)
            self._create(uapi.KFD_IOC_EVENT_HW_EXCEPTION, False)
        except BaseException:
            self.close()
            raise

    def _create(self, kind: int, auto_reset: bool, handle: int = 0) -> tuple[int, int]:
        event_id, slot = self.kfd.create_event(kind, auto_reset=auto_reset, page_handle=handle)
        self._events.append(event_id)
        return event_id, slot

    def close(self) -> None:
        """Ends the events. Timelines in use go on as memory of the process."""
        for event_id in self._events:
            with contextlib.suppress(HardwareError):
                self.kfd.destroy_event(event_id)
        self._events.clear()
        self.lines.close()

    @property
    def open(self) -> bool:
        """Whether its events are there to be raised."""
        return bool(self._events)

    def forget(self) -> None:
        """In a forked child: the events are the parent's."""
        self._events.clear()

    # ---- the home of timelines ----

    def take(self) -> int:
        """A cache line for a timeline, which the GPU reaches."""
        return self.lines.take()

    def give_back(self, address: int) -> None:
        """A cache line that is not needed any more once what is in flight has finished."""
        reclaimer.later(lambda: self.lines.give_back(address))

    def nudge(self) -> None:
        """The host has moved a timeline: wakes those who sleep for the GPU."""
        if self._sleepers and self._events:
            with contextlib.suppress(HardwareError):
                self.kfd.set_event(self.event_id)

    def wait(self, address: int, value: int, timeout_ns: int) -> int:
        """Waits for a timeline; whether it came. DeviceFault when the GPU faulted meanwhile."""
        deadline_ns = time.monotonic_ns() + timeout_ns
        for looked_ns in range(0, min(timeout_ns, LOOK_NS) + 1, SPIN_NS):
            if native().wait(address, value, min(timeout_ns - looked_ns, SPIN_NS)):
                return 1
        while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
            if not self._events:  # closed: nothing will move it but the host
                return int(native().wait(address, value, left_ns))
            if self.fault is not None:
                raise self.fault
            self.sleep(max(1, min(SLICE_MS, left_ns // 1_000_000)))
            if native().reached(address, value, 0):
                return 1
        return int(native().reached(address, value, 0))

    def sleep(self, timeout_ms: int) -> None:
        """Until the GPU interrupts; raises DeviceFault if it did because of one."""
        events = (uapi.struct_kfd_event_data * len(self._events))()
        for event, event_id in zip(events, self._events, strict=True):
            event.event_id = event_id
        self._sleepers += 1
        try:
            came = self.kfd.wait_events(events, timeout_ms)
        finally:
            self._sleepers -= 1
        if came and len(events) > _HARDWARE:
            self._look_for_faults(events)

    def _look_for_faults(self, events: object) -> None:
        memory = events[_MEMORY].memory_exception_data  # type: ignore[index]
        hardware = events[_HARDWARE].hw_exception_data  # type: ignore[index]
        if memory.gpu_id:
            self.fault = memory_exception(
                memory, self.memory, self._running(), self._system.explain()
            )
        elif hardware.gpu_id:
            self.fault = hardware_exception(
                hardware, self.memory, self._running(), self._system.explain()
            )
        if self.fault is not None:
            raise self.fault
