"""Queues of an NVIDIA GPU: a GPFIFO channel each, with compute and copy objects or copy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from drivers.nv.channel import Channel
from drivers.nv.encode import NvEncoder
from drivers.nv.local import LocalMemory
from drivers.points import PointBridge
from drivers.queue import Step
from drivers.ringqueue import RingQueue

if TYPE_CHECKING:
    from drivers.nv.device import NvDevice


class NvQueue(RingQueue):
    """One channel of the device's group."""

    device: NvDevice
    hardware: Channel
    runs_empty_grids: ClassVar[bool] = False

    def __init__(
        self, device: NvDevice, kind: str, name: str, ring_records: int, initial_value: int
    ) -> None:
        self.bridge = PointBridge(device)
        self._local: LocalMemory | None = None
        super().__init__(device, kind, name, ring_records, initial_value)
        device.watch.add(self.hardware.notifier, self.hardware.debugger)

    def make_hardware(self, ring_records: int) -> Channel:
        """The hardware's channel."""
        return Channel(
            self.device, ring_records, self.timeline.address, computes=self.kind == "compute"
        )

    def encoder(self, steps: Sequence[Step], values: dict[str, Any] | None = None) -> NvEncoder:
        """Encodes a list in methods."""
        return NvEncoder(self, steps, values)

    def local_memory(self, thread_bytes: int) -> LocalMemory:
        """Local memory for a kernel; a larger one takes its place for later kernels."""
        if self._local is None or self._local.thread_bytes < thread_bytes:
            self._local = LocalMemory(self.device, thread_bytes)
        return self._local

    def stop(self) -> None:
        """Takes the channel off the GPU, wherever it stands."""
        self.device.watch.remove(self.hardware.notifier)
        super().stop()
        self._local = None
