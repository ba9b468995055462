"""Python collects a device wherever it likes, also inside what another one is doing."""

from __future__ import annotations

import ctypes
import gc
import mmap
import threading
import weakref

import pytest

from drivers import open_device
from drivers.emulated.system import EmulatedSystem
from drivers.system import PAGE_BYTES, RealSystem


def pages():
    memory = mmap.mmap(-1, PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


class CollectingSystem(RealSystem):
    def munmap(self, address: int, size_bytes: int) -> None:
        gc.collect()
        super().munmap(address, size_bytes)


class CollectingList(list):
    def pop(self, *place):
        gc.collect()
        return super().pop(*place)


@pytest.mark.parametrize("where", ["pages move", "a socket is chosen"])
@pytest.mark.parametrize(("name", "board"), [("NV", "sm_90"), ("AMD", "gfx1100")])
def test_a_device_that_goes_while_another_calls_the_board_blocks_nobody(name, board, where):
    system = EmulatedSystem(board)
    lost, device = (open_device(name, system=system) for _ in range(2))
    kept, (memory, address) = pages(), pages()
    lost.held = [lost, lost.host_buffer(kept[1], PAGE_BYTES, kept[0])]  # only gc finds it
    gone, done = weakref.ref(lost), threading.Event()

    def pin() -> None:
        device.host_buffer(address, PAGE_BYTES, memory)
        done.set()

    gc.disable()
    try:
        del lost
        if where == "pages move":
            system.user_memory.system = CollectingSystem()
        else:
            system.process.idle = CollectingList(system.process.idle)
        threading.Thread(target=pin, daemon=True).start()
        assert done.wait(20), "a lock waits for its own holder"
        assert gone() is None
    finally:
        gc.enable()
    device.close()
