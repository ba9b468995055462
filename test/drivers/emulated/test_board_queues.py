"""Packets in rings: what the engines of the emulated board do with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autogen import pm4_nv as nv
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import VISIBLE, Client, Queue, split, type3, until


@pytest.fixture(scope="module")
def system() -> Iterator[EmulatedSystem]:
    system = EmulatedSystem("gfx1100")
    yield system
    system.shut_down()


@pytest.fixture
def client(system: EmulatedSystem) -> Iterator[Client]:
    client = Client(system)
    yield client
    client.close()


def write_data(address: int, *data: int) -> list[int]:
    return type3(nv.PACKET3_WRITE_DATA, 5 << 8 | 1 << 20, *split(address), *data)


def release_mem(address: int, value: int, data_sel: int = 2, interrupt: int = 0,
                context: int = 0) -> list[int]:
    return type3(nv.PACKET3_RELEASE_MEM, 0x14 | 5 << 8, data_sel << 29 | interrupt << 24,
                 *split(address), *split(value), context)


def test_write_data_and_release_mem_change_memory(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, 0)
    queue.put(write_data(memory.address + 16, 0x11, 0x22),
              release_mem(memory.address, 0x1_0000_0001))
    until(lambda: memory.u64().value == 0x1_0000_0001)
    assert (memory.u32(16).value, memory.u32(20).value) == (0x11, 0x22)
    queue.wait_idle()
    queue.destroy()
    memory.free()
