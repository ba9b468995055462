"""GPUs that reach each other's memory: mapped by one call, used by copies, kernels and waits."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import HOST, VISIBLE, Client, F, Memory, Queue, until
from test.drivers.emulated.packets import (
    acquire_mem,
    release_mem,
    sdma_copy,
    sdma_fence,
    wait_mem,
    write_data,
)
from test.drivers.emulated.test_board_dispatch import Launcher
from test.drivers.emulated.test_board_schedule import ADD, FLUSH
from test.drivers.emulated.test_board_strict import FIRST, L2, WRITE_BACK

COMPUTE, SDMA = 0, 1


MACHINES = ("gfx1100*3", "gfx1100*3,strict", "gfx1100*3,seed=1,strict")


@pytest.fixture(scope="module", params=MACHINES)
def system(request: pytest.FixtureRequest) -> Iterator[EmulatedSystem]:
    system = EmulatedSystem(request.param)
    yield system
    system.shut_down()


def shared(client: Client, flags: int, owner: int, *others: int) -> Memory:
    memory = client.alloc(4096, flags, owner, map_to_gpu=False)
    assert client.map(memory.handle, owner, *others).n_success == 1 + len(others)
    return memory


class Gpu:
    """Queues of one GPU, and a kernel that adds."""

    def __init__(self, client: Client, number: int, flags: Memory) -> None:
        self.compute = Queue(client, COMPUTE, number, ring_bytes=1 << 14)
        self.launcher = Launcher(client, self.compute, client.alloc(1 << 16, HOST, number),
                                 client.alloc(4096, HOST, number), flags)

    def add(self, *calls: tuple[int, int, int]) -> list[int]:
        """Kernels one after the other, each (to, source, amount); none of them may run yet."""
        words = []
        for packets in self.launcher.launches(ADD, [(1, *call) for call in calls]):
            for packet in (acquire_mem(FIRST | L2), *packets, FLUSH):
                words += packet
        return words


def test_a_kernel_reads_and_writes_the_memory_of_another_gpu(client: Client) -> None:
    flags = shared(client, HOST, 0, 1)
    near, far = shared(client, VISIBLE, 0, 1), shared(client, VISIBLE, 1, 0)
    near.u32().value = 30
    other = Gpu(client, 1, flags)
    other.compute.put(
        other.add((far.address, near.address, 4), (near.address + 1024, far.address, 8)),
        release_mem(flags.address, 1, caches=WRITE_BACK),
    )
    until(lambda: bool(flags.u64().value == 1))
    assert (far.u32().value, near.u32(1024).value) == (34, 42)


def test_gpus_hand_each_other_work(client: Client) -> None:
    flags, data = shared(client, HOST, 0, 1, 2), shared(client, VISIBLE, 2, 0, 1)
    gpus = [Gpu(client, number, flags) for number in range(3)]
    for turn in range(1, 4):
        for number in (2, 1, 0):  # the last of them is submitted first
            gpu, before = gpus[number], 3 * (turn - 1) + number
            gpu.compute.put(wait_mem(flags.address, before),
                            gpu.add((data.address, data.address, 1)),
                            release_mem(flags.address, before + 1, caches=WRITE_BACK))
        until(lambda turn=turn: bool(flags.u64().value == 3 * turn))  # type: ignore[misc]
        assert [data.u32(4 * i).value for i in range(64)] == [3 * turn] * 64


def test_copies_between_gpus(client: Client) -> None:
    flags = shared(client, HOST, 0, 1)
    near, far = shared(client, VISIBLE, 0, 1), shared(client, VISIBLE, 1, 0)
    near.u64().value = 0x0123456789ABCDEF
    push, pull = Queue(client, SDMA, 0), Queue(client, SDMA, 1)
    push.put(sdma_copy(near.address, far.address, 8), sdma_fence(flags.address, 1))
    until(lambda: bool(flags.u32().value == 1))
    pull.put(sdma_copy(near.address, far.address + 8, 8), sdma_fence(flags.address, 2))
    until(lambda: bool(flags.u32().value == 2))
    assert far.bytes(0, 16) == near.bytes(0, 8) * 2


def test_mapping_stops_at_the_first_gpu_that_is_none(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE, map_to_gpu=False)
    client.gpu_ids.append(1 << 15)
    with pytest.raises(OSError) as raised:
        client.map(memory.handle, 0, 1, 3, 2)
    assert (raised.value.errno, client.last.n_success) == (errno.EINVAL, 2)
    client.call("MAP_MEMORY_TO_GPU", handle=memory.handle, n_devices=4, n_success=3,
                device_ids_array_ptr=client.last.device_ids_array_ptr)  # and goes on behind it
    assert client.unmap(memory.handle, 0, 1, 2).n_success == 3


def test_memory_stays_where_it_is_still_mapped(client: Client) -> None:
    memory, flags = shared(client, VISIBLE, 0, 1), shared(client, HOST, 0, 1)
    queues = [Queue(client, COMPUTE, number) for number in range(2)]
    client.unmap(memory.handle, 0)
    with pytest.raises(OSError) as raised:
        client.call("FREE_MEMORY_OF_GPU", handle=memory.handle)
    assert raised.value.errno == errno.EBUSY
    fault = client.create_event(kind=8).event_id
    queues[1].put(write_data(memory.address, 7), release_mem(flags.address, 1))
    until(lambda: bool(flags.u64().value == 1))
    assert memory.u32().value == 7
    queues[0].put(write_data(memory.address, 8))
    result, (told,) = client.wait(fault)
    assert (result, told.memory_exception_data.gpu_id) == (0, client.gpu_ids[0])
    queues[1].put(release_mem(flags.address, 2))  # the other GPU's queues go on
    until(lambda: bool(flags.u64().value == 2))
    client.map(memory.handle, 0)
    client.unmap(memory.handle, 0, 1)
    client.call("FREE_MEMORY_OF_GPU", handle=memory.handle)


def links(client: Client, node: int, kind: str) -> list[dict[str, int]]:
    count = client.properties(f"nodes/{node}/properties")[f"{kind}_count"]
    return [client.properties(f"nodes/{node}/{kind}/{i}/properties") for i in range(count)]


def test_the_topology_links_every_gpu_with_every_other(client: Client) -> None:
    for node in (1, 2, 3):
        (up,) = links(client, node, "io_links")
        assert (up["node_from"], up["node_to"]) == (node, 0)
        peers = links(client, node, "p2p_links")
        assert [link["node_to"] for link in peers] == [n for n in (1, 2, 3) if n != node]
        assert {link["node_from"] for link in peers} == {node}
        assert {link["weight"] for link in peers} == {2 * up["weight"]}
    assert [link["node_to"] for link in links(client, 0, "io_links")] == [1, 2, 3]
    assert not links(client, 0, "p2p_links")


@pytest.mark.parametrize("system", MACHINES[1:], indirect=True)
def test_each_gpu_has_caches_of_its_own(client: Client) -> None:
    flags, data = shared(client, HOST, 0, 1), shared(client, VISIBLE, 0, 1)
    first, second = Gpu(client, 0, flags), Gpu(client, 1, flags)
    for value, caches in ((5, 0), (7, WRITE_BACK)):
        second.compute.put(second.add((data.address, data.address + 2048, value)),
                           release_mem(flags.address, value, caches=caches))
        first.compute.put(wait_mem(flags.address, value),
                          first.add((data.address + 1024, data.address, 100)),
                          release_mem(flags.address + 8, value, caches=WRITE_BACK))
        until(lambda value=value: bool(flags.u64(8).value == value))  # type: ignore[misc]
        assert data.u32(1024).value == (100 + value if caches else 100)


def test_without_a_large_bar_vram_is_the_gpus_own() -> None:
    system = EmulatedSystem("gfx1100*2,small_bar")
    client = Client(system)
    hidden = VISIBLE & ~F["PUBLIC"]
    memory = client.alloc(4096, hidden, map_to_gpu=False)
    with pytest.raises(OSError) as raised:
        client.map(memory.handle, 0, 1)
    assert (raised.value.errno, client.last.n_success) == (errno.EINVAL, 1)
    shared(client, HOST, 0, 1)
    with pytest.raises(OSError) as raised:
        client.alloc(4096, VISIBLE)
    assert raised.value.errno == errno.EINVAL
    assert not links(client, 1, "p2p_links")
    bank = client.properties("nodes/1/mem_banks/0/properties")
    assert bank["heap_type"] == 2  # HSA_MEM_HEAP_TYPE_FRAME_BUFFER_PRIVATE
    client.close()
    system.shut_down()
