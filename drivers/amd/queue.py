"""Queues of an AMD GPU: PM4 rings, AQL rings that several XCCs share, and SDMA rings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drivers.amd.aql import AqlEncoder
from drivers.amd.encode import Encoder, Pm4Encoder, SdmaEncoder
from drivers.amd.hardware import Format, HardwareQueue
from drivers.amd.points import AmdPointBridge
from drivers.queue import Step
from drivers.ringqueue import RingQueue

if TYPE_CHECKING:
    from drivers.amd.device import AmdDevice
    from drivers.amd.scratch import Scratch

_ENCODERS: dict[Format, type[Encoder]] = {
    Format.PM4: Pm4Encoder, Format.AQL: AqlEncoder, Format.SDMA: SdmaEncoder,
}


class AmdQueue(RingQueue):
    """One queue of KFD."""

    device: AmdDevice
    hardware: HardwareQueue
    bridge: AmdPointBridge

    def __init__(
        self, device: AmdDevice, kind: str, name: str, ring_records: int, initial_value: int
    ) -> None:
        self.bridge = AmdPointBridge(device)
        self._scratch: Scratch | None = None
        super().__init__(device, kind, name, ring_records, initial_value)

    def make_hardware(self, ring_records: int) -> HardwareQueue:
        """The hardware's queue."""
        layout = Format.SDMA if self.kind == "copy" else (
            Format.PM4 if self.device.node.xccs == 1 else Format.AQL
        )
        self._encoder = _ENCODERS[layout]
        return HardwareQueue(self.device, layout, ring_records, self.timeline.address)

    def encoder(self, steps: Sequence[Step], values: dict[str, Any] | None = None) -> Encoder:
        """Encodes a list in the ring's packets."""
        return self._encoder(self, steps, values)

    @property
    def wait_bits(self) -> int:
        """How wide its engine compares memory."""
        return self.device.generation.wait_bits if self.kind == "compute" else 32

    def scratch(self, private_bytes: int) -> Scratch:
        """Scratch memory for a kernel; a larger one takes its place for later kernels."""
        if self._scratch is None or self._scratch.private_bytes < private_bytes:
            from drivers.amd.scratch import Scratch

            self._scratch = Scratch(self.device, private_bytes)
        return self._scratch

    def stop(self) -> None:
        """Takes the queue off the GPU, wherever it stands."""
        super().stop()
        self._scratch = None
