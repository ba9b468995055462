"""The bells of a board: who sleeps on which, and what wakes them."""

from __future__ import annotations

import ctypes
import threading
import time

import pytest

from drivers.emulated.native import BELL_SLEEPERS, DOORBELLS, NOT_EQUAL, STORES, Native
from drivers.emulated.schedule import FULL_MASK
from drivers.system import MAP_ANONYMOUS, MAP_SHARED, PAGE_BYTES, PROT_READ, PROT_WRITE, RealSystem

LONG_NS, NAPS = 999_999_999, 1000  # longer than any test


@pytest.fixture(scope="module")
def native() -> Native:
    """On bells of its own."""
    page = RealSystem().mmap(
        PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0
    )
    return Native(RealSystem(), page)


class Sleeper:
    """A thread that waits until a word is not 0, asleep on a bell when this returns."""

    def __init__(self, native: Native, bell: int) -> None:
        self.word, self.stop = ctypes.c_uint32(0), ctypes.c_uint32(0)
        self.result = -1
        configuration = native.stores if bell == STORES else native.doorbells
        count = ctypes.c_uint32.from_address(native.bell_address + bell + BELL_SLEEPERS)
        before = count.value

        def wait() -> None:
            self.result = native.wait_memory(
                configuration, ctypes.addressof(self.word), 4, FULL_MASK, NOT_EQUAL, 0,
                ctypes.addressof(self.stop), 1, LONG_NS, LONG_NS, NAPS,
            )

        self.thread = threading.Thread(target=wait, daemon=True)
        self.thread.start()
        while count.value == before:
            time.sleep(0.001)

    def wakes(self) -> int:
        """What its wait returned."""
        self.thread.join(60)
        return self.result


@pytest.mark.parametrize("bell", [DOORBELLS, STORES])
def test_a_ring_wakes_all_and_who_is_not_meant_sleeps_on(native: Native, bell: int) -> None:
    meant, other = Sleeper(native, bell), Sleeper(native, bell)
    meant.word.value = 1
    native.ring()
    assert meant.wakes() == 1
    assert other.thread.is_alive()
    other.stop.value = 1
    native.ring()
    assert other.wakes() == 2


def test_a_store_wakes_who_waits_for_memory_and_leaves_idle_engines_alone(native: Native) -> None:
    idle, waiting = Sleeper(native, DOORBELLS), Sleeper(native, STORES)
    rung = native.sequence.value
    waiting.word.value = 1
    native.notify()
    assert waiting.wakes() == 1
    assert native.sequence.value == rung
    idle.stop.value = 1
    native.ring()
    assert idle.wakes() == 2
    assert native.sequence.value != rung


def test_a_store_that_nobody_waits_for_rings_nothing(native: Native) -> None:
    words = [
        ctypes.c_uint32.from_address(native.bell_address + bell) for bell in (DOORBELLS, STORES)
    ]
    before = [word.value for word in words]
    native.notify()
    assert [word.value for word in words] == before
