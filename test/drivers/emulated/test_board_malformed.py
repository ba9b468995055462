"""Streams of malformed packets: the board refuses them in its own words, and lives on."""

from __future__ import annotations

import os
import random
import time

import pytest

from autogen import pm4_nv as nv
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import VISIBLE, Client, Memory, Queue, type3
from test.drivers.emulated.packets import indirect, wait_mem, write_data

COMPUTE, SDMA = 0, 1
STREAMS = 600 if os.environ.get("TINYHW_FULL") == "1" else 60
PATIENCE_S = 0.02  # a stream that is neither done nor refused waits for something

# Body dwords of the packets that the engines know; 0 and 4 more make up the wrong ones.
PM4 = {
    nv.PACKET3_DISPATCH_DIRECT: 4, nv.PACKET3_DISPATCH_INDIRECT: 3, nv.PACKET3_EVENT_WRITE: 1,
    nv.PACKET3_ACQUIRE_MEM: 7, nv.PACKET3_RELEASE_MEM: 7, nv.PACKET3_WAIT_REG_MEM: 6,
    nv.PACKET3_WAIT_REG_MEM64: 8, nv.PACKET3_WRITE_DATA: 4, nv.PACKET3_COPY_DATA: 5,
    nv.PACKET3_ATOMIC_MEM: 8, nv.PACKET3_DMA_DATA: 6, nv.PACKET3_INDIRECT_BUFFER: 3,
    nv.PACKET3_SET_SH_REG: 3, nv.PACKET3_COND_EXEC: 4, nv.PACKET3_PRED_EXEC: 1,
}
SDMA_DWORDS = {1: 7, 2: 6, 4: 6, 5: 4, 6: 2, 8: 6, 10: 8, 11: 5, 13 | 2 << 8: 3, 99: 1}


def word(rng: random.Random, memory: Memory) -> int:
    """A field: nothing, an address' half, few bits, or anything."""
    address = memory.address + rng.randrange(0, 8192, 4)
    return rng.choice([
        0, 0, address & 0xFFFFFFFF, address >> 32, address >> 32, rng.getrandbits(3),
        1 << rng.randrange(32), rng.getrandbits(32),
    ])


def stream(rng: random.Random, memory: Memory, kind: int) -> list[int]:
    words: list[int] = []
    for _ in range(rng.randrange(1, 4)):
        if kind == COMPUTE:
            opcode = rng.choice([*PM4, rng.randrange(256)])
            size = max(1, PM4.get(opcode, 2) + rng.choice([0, 0, 0, 0, 4, -1]))
            words += type3(opcode, *(word(rng, memory) for _ in range(size)))
            words += rng.choice([[], [], indirect(memory.address + 4 * rng.randrange(99), 8)])
            words += rng.choice([[], [], wait_mem(memory.address, 0, function=rng.randrange(8))])
        else:
            header = rng.choice(list(SDMA_DWORDS))
            words += [header, *(word(rng, memory) for _ in range(SDMA_DWORDS[header] - 1))]
    return words


@pytest.mark.parametrize("kind", [COMPUTE, SDMA])
@pytest.mark.parametrize("board", ["gfx1100", "gfx90a"])
def test_malformed_packets_are_refused_in_words_and_leave_the_board_well(
    board: str, kind: int
) -> None:
    system = EmulatedSystem(board)
    client = Client(system)
    memory, told, refused = client.alloc(8192, VISIBLE), 0, 0
    for seed in range(STREAMS):
        rng = random.Random(seed)
        for at in range(0, 1024, 4):
            memory.u32(at).value = word(rng, memory)
        queue = Queue(client, kind)
        queue.put(stream(rng, memory, kind))
        deadline = time.monotonic() + PATIENCE_S
        while not queue.idle() and len(system.log(told)) == 0 and time.monotonic() < deadline:
            time.sleep(0.0005)
        queue.destroy()
        for line in system.log(told):
            told, refused = told + 1, refused + 1
            assert "did not stop" not in line, f"seed {seed}"
            assert "Error" not in line, f"seed {seed}: {line}"  # a mistake of the board itself
    assert refused
    queue = Queue(client, COMPUTE)
    queue.put(write_data(memory.address, 77))
    queue.wait_idle()
    assert memory.u32().value == 77
    client.close()
    system.shut_down()
