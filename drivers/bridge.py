"""Points for those who cannot wait for them: a thread that waits, and a timeline it moves.

A processor's queue sleeps on futexes, which a GPU does not wake; a copy engine compares 32 bits
of 64. Both wait for a *mirror* instead: a timeline of their own kind that goes to 1 when the
Point has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from drivers.errors import HardwareError
from drivers.timeline import SLICE_NS, Point, Timeline


def follow(point: Point, mirror: Timeline, given_up: Callable[[], bool]) -> Point:
    """The mirror's Point that comes after `point`; never, once `given_up` says so."""
    if point.done:
        mirror.signal(1)
        return mirror.point(1)

    def work() -> None:
        try:
            while not given_up() and not point.timeline.ended:
                if point.timeline.arrives(point.value, SLICE_NS):
                    mirror.signal(1)
                    return
        except HardwareError:
            return  # those who wait for the mirror run into their own deadline

    threading.Thread(target=work, name=f"bridge to {mirror.name}", daemon=True).start()
    return mirror.point(1)
