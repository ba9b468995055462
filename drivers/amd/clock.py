"""The GPU's clock, and how it relates to the host's."""

from __future__ import annotations

from drivers.amd.abi import Kfd
from drivers.memory import Buffer
from drivers.queue import Timestamp


class GpuClock:
    """Converts the GPU's counter to nanoseconds of the host's CLOCK_BOOTTIME.

    The counter runs at a known rate; where it stands is asked of the kernel driver when the
    device is opened. `correlate` asks again, for profiles that last long.
    """

    def __init__(self, kfd: Kfd, gpu_id: int, clock_hz: int) -> None:
        self._kfd, self._gpu_id, self._hz = kfd, gpu_id, clock_hz
        self.correlate()

    def correlate(self) -> None:
        """Takes both clocks at one moment."""
        self.gpu_ticks, self.host_ns = self._kfd.clocks(self._gpu_id)

    def to_ns(self, ticks: int) -> int:
        """The host's time of a value of the counter."""
        return self.host_ns + (ticks - self.gpu_ticks) * 10**9 // self._hz


class AmdTimestamp(Timestamp):
    """A place where a queue writes the GPU's counter."""

    __slots__ = ("_clock",)

    def __init__(self, buffer: Buffer, clock: GpuClock) -> None:
        super().__init__(buffer)
        self._clock = clock

    @property
    def value_ns(self) -> int:
        """The time that was written, of the host's clock; wait for the list's Point first."""
        return self._clock.to_ns(super().value_ns)
