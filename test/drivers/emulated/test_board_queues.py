"""Packets in rings: what the engines of the emulated board do with them."""

from __future__ import annotations

import ctypes
import errno
import time

import pytest

from autogen import pm4_nv as nv
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import HOST, VISIBLE, Client, F, Queue, split, type3, until
from test.drivers.emulated.packets import (
    FILLER,
    NOP,
    copy_data,
    indirect,
    release_mem,
    sdma_copy,
    sdma_fence,
    sdma_poll,
    wait_mem,
    write_data,
)

COMPUTE, SDMA = 0, 1


def put_words(memory: object, words: list[int], at: int = 0) -> int:
    for number, word in enumerate(words):
        memory.u32(at + 4 * number).value = word  # type: ignore[attr-defined]
    return len(words)


def test_write_data_and_release_mem_change_memory(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, COMPUTE)
    queue.put(NOP, FILLER, write_data(memory.address + 16, 0x11, 0x22),
              release_mem(memory.address, 0x1_0000_0001))
    until(lambda: memory.u64().value == 0x1_0000_0001)
    assert (memory.u32(16).value, memory.u32(20).value) == (0x11, 0x22)
    queue.wait_idle()
    queue.destroy()
    memory.free()


def test_dma_data_copies_bytes_and_fills_dwords(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    put_words(memory, [0x04030201, 0x08070605])
    queue = Queue(client, COMPUTE)
    copy = type3(nv.PACKET3_DMA_DATA, 3 << 29 | 3 << 20 | 1 << 31,
                 *split(memory.address + 1), *split(memory.address + 64), 6 | 1 << 30)
    fill = type3(nv.PACKET3_DMA_DATA, 2 << 29, 0xAB, 0, *split(memory.address + 128), 8)
    queue.put(copy, fill, release_mem(memory.address + 256, 1))
    until(lambda: memory.u64(256).value == 1)
    assert memory.u64(64).value == 0x0000_0706_0504_0302
    assert memory.u64(128).value == 0xAB_0000_00AB
    assert memory.u64(136).value == 0
    queue.destroy()
    memory.free()


def test_a_ring_wraps_with_packets_across_its_end(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, COMPUTE, ring_bytes=4096)
    for value in range(1, 700):  # 8 and 7 dwords do not divide 1024
        queue.put(write_data(memory.address, value, value), release_mem(memory.address + 8, value))
        until(lambda value=value: memory.u64(8).value == value)  # type: ignore[misc]
        assert memory.u32(4).value == value
    assert queue.written > 9 * 1024
    queue.destroy()


def test_what_lies_beyond_the_doorbell_is_not_done(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, COMPUTE)
    words = write_data(memory.address, 1)
    put_words(queue.ring, words)
    queue.pointers.u64(64).value = len(words)  # the write pointer alone rings nothing
    time.sleep(0.02)
    assert memory.u32().value == 0
    queue.written = len(words) - 1
    queue.ring_doorbell()  # all but the last dword
    time.sleep(0.02)
    assert memory.u32().value == 0
    assert queue.read_pointer() == 0
    queue.written = len(words)
    queue.ring_doorbell()
    until(lambda: memory.u32().value == 1)
    queue.destroy()


def test_a_kick_rings_the_bell(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, COMPUTE)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    store = prototype(lambda _: queue.ring_doorbell())
    kick = prototype(client.system.kick(ctypes.cast(store, ctypes.c_void_p).value or 0))
    words = write_data(memory.address, 1)
    put_words(queue.ring, words)
    queue.written = len(words)
    kick(None)
    until(lambda: memory.u32().value == 1)
    queue.destroy()


def test_queues_wait_for_each_other(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    first, second = Queue(client, COMPUTE), Queue(client, COMPUTE)
    first.put(wait_mem(memory.address, 5), copy_data(memory.address + 8, 1, memory.address + 16),
              release_mem(memory.address + 24, 1))
    time.sleep(0.02)
    assert memory.u64(24).value == 0
    second.put(write_data(memory.address + 8, 0xAA, 0xBB), release_mem(memory.address, 5))
    until(lambda: memory.u64(24).value == 1)
    assert memory.u64(16).value == 0xBB000000AA
    for queue in (first, second):
        queue.destroy()


def test_the_host_ends_a_wait(client: Client) -> None:
    memory = client.alloc(4096, HOST)
    queue = Queue(client, COMPUTE)
    queue.put(wait_mem(memory.address, 3, function=3, mask=0xF), write_data(memory.address + 4, 1))
    time.sleep(0.02)
    memory.u32().value = 0x53
    until(lambda: memory.u32(4).value == 1)
    queue.destroy()


def test_a_64_bit_wait_compares_all_bits(client: Client) -> None:
    memory = client.alloc(4096, HOST)
    queue = Queue(client, COMPUTE)
    queue.put(type3(nv.PACKET3_WAIT_REG_MEM64, 5 | 1 << 4, *split(memory.address),
                    *split(1 << 32), *split(2**64 - 1), 4), write_data(memory.address + 8, 1))
    memory.u64().value = 0xFFFFFFFF
    time.sleep(0.02)
    assert memory.u32(8).value == 0
    memory.u64().value = 1 << 32
    until(lambda: memory.u32(8).value == 1)
    queue.destroy()


def test_timestamps_count_100_mhz(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, COMPUTE)
    queue.put(copy_data(0, 9, memory.address), release_mem(memory.address + 16, 1))
    until(lambda: memory.u64(16).value == 1)
    before = client.call("GET_CLOCK_COUNTERS", gpu_id=client.gpu_ids[0])
    time.sleep(0.05)
    queue.put(release_mem(memory.address + 8, 0, data_sel=3), release_mem(memory.address + 16, 2))
    until(lambda: memory.u64(16).value == 2)
    ticks = memory.u64(8).value - memory.u64().value
    assert 0.05 * 100e6 <= ticks < 10 * 100e6
    assert memory.u64().value <= before.gpu_clock_counter <= memory.u64(8).value
    queue.destroy()


def test_indirect_buffers_nest_once_and_chain(client: Client) -> None:
    memory, code = client.alloc(4096, VISIBLE), client.alloc(4096, HOST)
    inner = put_words(code, write_data(memory.address, 1), 1024)
    chained = put_words(code, write_data(memory.address + 4, 2), 2048)
    outer = put_words(code, indirect(code.address + 1024, inner)
                      + indirect(code.address + 2048, chained, chain=True))
    queue = Queue(client, COMPUTE)
    queue.put(indirect(code.address, outer), release_mem(memory.address + 8, 1))
    until(lambda: memory.u64(8).value == 1)
    assert (memory.u32().value, memory.u32(4).value) == (1, 2)
    queue.destroy()


@pytest.mark.parametrize("seed", [None, 1])
def test_a_chain_without_end_is_a_hang_and_its_queue_can_be_destroyed(seed: int | None) -> None:
    system = EmulatedSystem("gfx1100", seed=seed)
    client = Client(system)
    code = client.alloc(4096, HOST)
    loop = put_words(code, indirect(code.address, 4, chain=True))
    queue = Queue(client, COMPUTE)
    queue.put(indirect(code.address, loop))
    if seed is None:  # while it goes round
        queue.destroy()
        queue = Queue(client, COMPUTE)
        queue.put(indirect(code.address, loop))
    until(lambda: any("has no end" in line for line in system.log()))
    queue.destroy()
    assert not any("did not stop" in line for line in system.log())
    client.close()
    system.shut_down()


def test_conditional_execution_skips(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    skipped = write_data(memory.address, 7)
    queue = Queue(client, COMPUTE)
    queue.put(type3(nv.PACKET3_COND_EXEC, *split(memory.address + 32), 0, len(skipped)), skipped,
              type3(nv.PACKET3_PRED_EXEC, len(skipped) | 2 << 24), skipped,
              type3(nv.PACKET3_PRED_EXEC, len(skipped) | 1 << 24),
              write_data(memory.address + 4, 8),
              release_mem(memory.address + 8, 1))
    until(lambda: memory.u64(8).value == 1)
    assert (memory.u32().value, memory.u32(4).value) == (0, 8)
    queue.destroy()


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        ([0x40000000], "type 1"),
        (type3(nv.PACKET3_RELEASE_MEM, 0x14 | 5 << 8 | 1 << 31, 0, 0, 0, 0, 0, 0), "reserved"),
        (type3(nv.PACKET3_RELEASE_MEM, 0x14 | 5 << 8, 2 << 29, 4, 1, 0, 0, 0), "8 bytes at"),
        (type3(nv.PACKET3_RELEASE_MEM, 0x07 | 4 << 8, 2 << 29, 8, 1, 0, 0, 0), "ends no pipe"),
        (type3(nv.PACKET3_ACQUIRE_MEM, 0, 0, 0, 0, 0, 4), "body dwords"),
        (type3(nv.PACKET3_ACQUIRE_MEM, 0, 0, 0, 0, 0, 4, 1 << 20), "reserved"),
        (type3(nv.PACKET3_SET_SH_REG, 0x3F0, *range(32)), "end 0x3000"),
        (type3(nv.PACKET3_WAIT_REG_MEM, 7 | 1 << 4, 0, 1, 0, 0, 4), "function 7"),
        (type3(nv.PACKET3_WRITE_DATA, 9 << 8, 0, 1, 5), "dst_sel 9"),
        (type3(nv.PACKET3_COPY_DATA, 12 | 5 << 8, 0, 0, 0, 1), "src_sel 12"),
        (type3(nv.PACKET3_DMA_DATA, 0, 0, 1, 0, 1, 0), "0 bytes"),
        (type3(nv.PACKET3_DMA_DATA, 1 << 20, 0, 1, 0, 1, 8), "dst_sel 1"),
        (type3(nv.PACKET3_INDIRECT_BUFFER, 0, 1, 16), "not valid"),
        (type3(nv.PACKET3_EVENT_WRITE, 7 | 4 << 8 | 1 << 20), "reserved"),
        ([3 << 30 | 0x12 << 8, 0], "0x12"),
    ],
)
def test_packets_that_hardware_would_not_do(client: Client, packet: list[int], reason: str) -> None:
    queue = Queue(client, COMPUTE)
    before = len(client.system.log())
    queue.put(packet)
    until(lambda: len(client.system.log()) > before)
    assert reason in client.system.log()[-1]
    queue.destroy()


def test_creation_is_checked_as_by_the_kernel(client: Client) -> None:
    queue = Queue(client, COMPUTE)
    good = queue.create
    loose = client.alloc(8192, HOST)
    for number, change in (
        (errno.EINVAL, {"queue_percentage": 101}),
        (errno.EINVAL, {"queue_priority": 16}),
        (errno.EINVAL, {"ring_size": 4096 + 64}),
        (errno.EFAULT, {"ring_base_address": 1 << 63}),
        (errno.EFAULT, {"read_pointer_address": 1 << 63}),
        (524, {"queue_type": 9}),
        (errno.EINVAL, {"gpu_id": 0xDEAD}),
        (errno.EINVAL, {"ring_base_address": loose.address}),  # 8 KiB, the ring 4
        (errno.EINVAL, {"ring_base_address": loose.address + 4096}),
        (errno.EINVAL, {"write_pointer_address": loose.address}),
        (errno.EINVAL, {"read_pointer_address": 0x1000}),
        (errno.EINVAL, {"eop_buffer_size": 8192}),
        (errno.EINVAL, {"ctl_stack_size": good["ctl_stack_size"] - 4096}),
        (errno.EINVAL, {"ctx_save_restore_size": good["ctx_save_restore_size"] - 4096}),
        (errno.EINVAL, {"ctx_save_restore_address": loose.address}),
    ):
        with pytest.raises(OSError) as raised:
            client.call("CREATE_QUEUE", **good | change)
        assert raised.value.errno == number, change
    with pytest.raises(OSError) as raised:
        queue.ring.free()
    assert raised.value.errno == errno.EBUSY, "a queue lives in it"
    queue.destroy()
    for name in ("DESTROY_QUEUE", "UPDATE_QUEUE"):
        with pytest.raises(OSError) as raised:
            client.call(name, queue_id=queue.number)
        assert raised.value.errno == (errno.EINVAL if name == "DESTROY_QUEUE" else errno.EFAULT)


def test_an_updated_queue_pauses_and_goes_on(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, COMPUTE)
    client.call("UPDATE_QUEUE", queue_id=queue.number, queue_percentage=0)
    queue.put(write_data(memory.address, 1))
    time.sleep(0.02)
    assert memory.u32().value == 0
    client.call("UPDATE_QUEUE", queue_id=queue.number, queue_percentage=100,
                ring_base_address=queue.ring.address, ring_size=queue.ring.size)
    until(lambda: memory.u32().value == 1)
    queue.destroy()


def test_a_waiting_queue_is_destroyed_at_once(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    queue = Queue(client, COMPUTE)
    queue.put(wait_mem(memory.address, 1), write_data(memory.address + 4, 1))
    time.sleep(0.01)
    queue.destroy()
    assert not any("did not stop" in line for line in client.system.log())
    memory.u32().value = 1
    time.sleep(0.01)
    assert memory.u32(4).value == 0


def test_sdma_copies_fences_polls_and_wraps(client: Client) -> None:
    source, target = client.alloc(1 << 20, HOST), client.alloc(1 << 20, VISIBLE)
    state = client.alloc(4096, HOST)
    content = bytes(range(256)) * 4096
    ctypes.memmove(source.address, content, len(content))
    queue = Queue(client, SDMA, ring_bytes=1024)
    for value in range(1, 60):
        queue.put(sdma_poll(state.address, value - 1),
                  sdma_copy(source.address, target.address, len(content) // value),
                  sdma_fence(state.address, value))
        until(lambda value=value: state.u32().value == value)  # type: ignore[misc]
        assert target.bytes(0, len(content) // value) == content[: len(content) // value]
    queue.wait_idle()
    assert queue.read_pointer() == 4 * queue.written > 3 * 1024
    queue.destroy()


def test_sdma_writes_fills_stamps_and_interrupts(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    page = client.event_page()
    event = client.create_event(page=page.handle).event_id
    queue = Queue(client, SDMA)
    queue.put([2, *split(memory.address), 2, 1, 2, 3], [0],
              [11 | 2 << 30, *split(memory.address + 64), 0xABCD, 64 - 1],
              [13 | 2 << 8, *split(memory.address + 256)],
              [10 | 47 << 25, *split(memory.address + 16), 5, 1, 0, 0, 0],
              sdma_fence(page.address + 8 * event, event), [6, event])
    assert client.wait(event)[0] == 0
    assert [memory.u32(4 * i).value for i in range(4)] == [1, 2, 3, 0]
    assert memory.u64(16).value == 0x1_0000_0005
    assert [memory.u32(60 + 4 * i).value for i in (0, 1, 16, 17)] == [0, 0xABCD, 0xABCD, 0]
    assert memory.u64(256).value > 0
    queue.destroy()


def test_sdma_faults_and_refuses(client: Client) -> None:
    memory = client.alloc(4096, VISIBLE)
    for packet, reason in (
        (sdma_copy(memory.address, memory.address + 4096, 64), "write of"),
        ([99], "operation 99.0"),
        (sdma_fence(memory.address + 1, 1), "4 bytes at"),
        ([1, 63, 1, *split(memory.address), *split(memory.address)], "reserved"),
    ):
        queue = Queue(client, SDMA)
        queue.put(packet)
        until(lambda reason=reason: reason in (client.system.log() or [""])[-1])  # type: ignore[misc]
        queue.destroy()


def test_sdma_queues_are_as_many_as_the_engines_have(client: Client) -> None:
    queues = [Queue(client, SDMA) for _ in range(12)]
    with pytest.raises(OSError) as raised:
        Queue(client, SDMA)
    assert raised.value.errno == errno.ENOMEM
    for queue in queues:
        queue.destroy()


def test_an_aql_ring_is_seen_twice(client: Client) -> None:
    ring = client.alloc(8192, HOST | F["AQL_QUEUE_MEM"])
    ring.u32().value = 42
    assert ring.u32(4096).value == 42
    copy = client.alloc(4096, HOST)
    queue = Queue(client, COMPUTE)
    queue.put(copy_data(ring.address + 4096, 1, copy.address))
    until(lambda: copy.u32().value == 42)
    queue.destroy()


def test_peers_share_memory_and_not_page_tables(pair: EmulatedSystem) -> None:
    client = Client(pair)
    shared, alone = client.alloc(4096, VISIBLE, gpu=0), client.alloc(4096, VISIBLE, gpu=0)
    client.map(shared.handle, 1)
    done = client.alloc(4096, HOST, gpu=1)
    queue = Queue(client, SDMA, gpu=1)
    shared.u32().value = 77
    queue.put(sdma_copy(shared.address, done.address, 4))
    until(lambda: done.u32().value == 77)
    queue.put(sdma_copy(alone.address, done.address, 4))
    until(lambda: any("page not present" in line for line in pair.log()))
    queue.destroy()
    client.close()
