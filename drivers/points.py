"""Points of others, made so that a GPU's queue can wait for them or signal them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.errors import ArgumentMismatch, DeviceClosed
from drivers.system import PAGE_BYTES
from drivers.timeline import Point, Timeline
from drivers.variables import Encoding

if TYPE_CHECKING:
    from drivers.gpu import GpuDevice


class PointBridge:
    """Where the GPU finds a Point's timeline."""

    def __init__(self, device: GpuDevice) -> None:
        self.device = device
        self.mirrors: list[Timeline] = []  # of the list that is being encoded
        self.encoding = Encoding("reachable", "Q", "a Point", self._address)

    def point(self, value: object) -> Point:
        """The value, which must be a Point."""
        if not isinstance(value, Point):
            raise TypeError("not a Point")
        return value

    def _address(self, value: object) -> int:
        return self.reachable(self.point(value))

    def reachable(self, point: Point) -> int:
        """The GPU's address of the Point's timeline, which it is let reach if need be."""
        timeline, device = point.timeline, self.device
        if timeline.home is None:
            page = timeline.address & -PAGE_BYTES
            return device.pin(page) + timeline.address - page
        if not device.shares(timeline.home):
            raise ArgumentMismatch(
                f"{device.name} does not reach {timeline.name}, whose memory is another GPU's.",
                device=device.name, operation="wait",
            )
        if not device.let_reach(timeline.home, timeline.address):
            raise DeviceClosed(
                f"{timeline.name} is out of reach: its device was closed.",
                device=device.name, operation="wait",
            )
        return timeline.address
