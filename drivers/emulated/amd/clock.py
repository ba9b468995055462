"""The clocks that packets and ioctls read."""

from __future__ import annotations

import time

GPU_CLOCK_HZ = 100_000_000


def gpu_clock() -> int:
    """The GPU's clock counter: 100 MHz, from the same source as the processor's."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // (1_000_000_000 // GPU_CLOCK_HZ)


def system_clock() -> int:
    """The processor's clock as the GPU sees it, in ns."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
