"""Points of others, made so that a GPU's queue can wait for them or signal them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.amd.events import Interrupts
from drivers.bridge import follow
from drivers.errors import ArgumentMismatch
from drivers.system import PAGE_BYTES
from drivers.timeline import Point, Timeline
from drivers.variables import Encoding

if TYPE_CHECKING:
    from drivers.amd.device import AmdDevice

_HIGH = 32
_LATEST_LOW = (1 << 32) - (1 << 24)


class PointBridge:
    """Where the GPU finds a Point's timeline, and what it compares."""

    def __init__(self, device: AmdDevice) -> None:
        self._device = device
        self.mirrors: list[Timeline] = []  # of the list that is being encoded
        self.encoding = Encoding("reachable", "Q", "a Point", self._address)
        self.encoding_high = Encoding("reachable high", "Q", "a Point", self._address_high)
        self.moment_high = Encoding("moment high", "q", "a Point", self._moment_high)

    def _point(self, value: object) -> Point:
        if not isinstance(value, Point):
            raise TypeError("not a Point")
        return value

    def _address(self, value: object) -> int:
        return self.reachable(self._point(value))

    def _address_high(self, value: object) -> int:
        return self.reachable(self._point(value)) + 4

    def _moment_high(self, value: object) -> int:
        return self._point(value).value >> _HIGH

    def reachable(self, point: Point) -> int:
        """The address of the Point's timeline, which the GPU is let reach if need be."""
        timeline, device = point.timeline, self._device
        home = timeline.home
        if home is None:
            device.pin(timeline.address & -PAGE_BYTES)
        elif not isinstance(home, Interrupts) or home.gpu_id != device.node.gpu_id:
            raise ArgumentMismatch(
                f"{device.name} does not reach {timeline.name}, whose memory is another GPU's.",
                device=device.name, operation="wait",
            )
        return timeline.address

    def narrow(self, point: Point) -> tuple[int, int] | None:
        """A dword and the value to compare it with (≥) for a Point; None if it has come.

        The one place that widens 32-bit comparisons. The low half of the timeline will do while
        its high half is that of the Point and not about to change under a queue that counts by
        ones. In every other case a thread of the host waits for the Point and tells the GPU.
        """
        if point.done:
            return None
        timeline, low = point.timeline, point.value & 0xFFFFFFFF
        counts = timeline.home is not None and timeline.describe is not None
        if counts and timeline.value >> _HIGH == point.value >> _HIGH and low < _LATEST_LOW:
            return self.reachable(point), low
        device = self._device
        mirror = device.timeline(f"mirror of {timeline.name}")
        self.mirrors.append(mirror)
        return follow(point, mirror, lambda: bool(device.unusable)).timeline.address, 1
