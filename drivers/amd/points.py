"""Points for engines that compare and write 32 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.amd.events import Interrupts
from drivers.bridge import follow
from drivers.points import PointBridge
from drivers.timeline import Point
from drivers.variables import Encoding, Var

if TYPE_CHECKING:
    from drivers.amd.device import AmdDevice

_HIGH = 32
_LATEST_LOW = (1 << 32) - (1 << 24)


class AmdPointBridge(PointBridge):
    """Where the GPU finds a Point's timeline, and what it compares."""

    device: AmdDevice

    def __init__(self, device: AmdDevice) -> None:
        super().__init__(device)
        self.encoding_high = Encoding("reachable high", "Q", "a Point", self._address_high)
        self.moment_high = Encoding("moment high", "q", "a Point", self._moment_high)

    def interrupts(self, point: Point | Var) -> Interrupts:
        """Whose event wakes those who sleep for a Point that this GPU signals."""
        home = point.timeline.home if isinstance(point, Point) else None
        if isinstance(home, Interrupts) and home.open and self.device.shares(home):
            return home
        return self.device.interrupts

    def _address_high(self, value: object) -> int:
        return self.reachable(self.point(value)) + 4

    def _moment_high(self, value: object) -> int:
        return self.point(value).value >> _HIGH

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
        device = self.device
        mirror = device.timeline(f"mirror of {timeline.name}")
        self.mirrors.append(mirror)
        return follow(point, mirror, lambda: bool(device.unusable)).timeline.address, 1
