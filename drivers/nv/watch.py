"""How the host waits for a GPU, and hears of its errors.

A waiter looks at the timeline for some 30 µs, then in naps that grow to a millisecond; between
them it looks at the error notifiers of the device's channels, which the kernel driver writes when
it takes a channel off the GPU. An error ends every wait of the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from autogen import nv_555
from drivers.blocks import TimelineLines
from drivers.errors import DeviceFault
from drivers.native.image import native
from drivers.nv.memory import NvMemory
from drivers.timeline import SPIN_NS, reclaimer

_NAP_NS: Final = 20_000
_LONGEST_NAP_NS: Final = 1_000_000


class Watch:
    """The home of a device's timelines."""

    def __init__(self, memory: NvMemory, explain: Callable[[int, int], DeviceFault]) -> None:
        self.memory, self.lines = memory, TimelineLines(memory)
        self.fault: DeviceFault | None = None
        self._explain = explain
        self._notifiers: dict[int, int] = {}  # of channels: address → what the device calls it
        self._open = True

    def add(self, notifier: int, channel: int) -> None:
        """Looks at a channel's error notifier from now on."""
        self._notifiers[notifier] = channel

    def remove(self, notifier: int) -> None:
        """Looks at it no longer; its memory goes."""
        self._notifiers.pop(notifier, None)

    def close(self) -> None:
        """Timelines in use go on as memory of the process."""
        self._open = False
        self._notifiers.clear()
        self.lines.close()

    def take(self) -> int:
        """A cache line for a timeline, which the GPU reaches."""
        return self.lines.take()

    def give_back(self, address: int) -> None:
        """A cache line that is not needed any more once what is in flight has finished."""
        reclaimer.later(lambda: self.lines.give_back(address))

    def nudge(self) -> None:
        """The host has moved a timeline: its futex has woken those who nap."""

    def wait(self, address: int, value: int, timeout_ns: int) -> int:
        """Waits for a timeline; whether it came. DeviceFault when the GPU faulted meanwhile."""
        if native().wait(address, value, min(timeout_ns, SPIN_NS)):
            return 1
        deadline_ns, nap_ns = time.monotonic_ns() + timeout_ns - SPIN_NS, _NAP_NS
        while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
            if not self._open:  # nothing will move it but the host
                return int(native().wait(address, value, left_ns))
            if native().wait(address, value, min(nap_ns, left_ns)):
                return 1
            self.look()
            nap_ns = min(2 * nap_ns, _LONGEST_NAP_NS)
        return int(native().reached(address, value, 0))

    def look(self) -> None:
        """Raises DeviceFault if a channel has met an error."""
        if self.fault is None:
            for address, channel in tuple(self._notifiers.items()):
                notice = nv_555.struct_NvNotificationRec.from_address(address)
                if notice.status:
                    self.fault = self._explain(channel, int(notice.info32))
                    break
        if self.fault is not None:
            raise self.fault
