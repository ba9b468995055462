"""XCCs that share a queue: each does every packet, and its share of every grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from autogen import pm4_nv as nv
from autogen.pm4_mesa import TC_OP_ATOMIC_SUB_64
from drivers.emulated.amd.boards import BOARDS
from drivers.emulated.system import START, EmulatedSystem
from test.drivers.emulated.kfd_client import HOST, VISIBLE, Client, Queue, type3, until
from test.drivers.emulated.packets import indirect, release_mem
from test.drivers.emulated.test_board_aql import VENDOR, AqlQueue
from test.drivers.emulated.test_board_dispatch import Launcher, set_registers

XCCS = 4
SPLIT = """
import dataclasses
from drivers.emulated.amd.boards import BOARDS
BOARDS["gfx1100"] = dataclasses.replace(BOARDS["gfx1100"], num_xcc=4, simd_count=4 * 192)
"""

# out[workgroup] += k, by every thread of 64
COUNT = """
define amdgpu_kernel void @k(ptr addrspace(1) %o, i32 %k) #0 {
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %to = getelementptr i32, ptr addrspace(1) %o, i32 %g
  %old = atomicrmw add ptr addrspace(1) %to, i32 %k syncscope("agent") monotonic
  ret void
}
"""


@pytest.fixture(scope="module", params=[None, 1])
def system(request: pytest.FixtureRequest) -> Iterator[EmulatedSystem]:
    """A gfx1100 of several dies, which nobody builds: the translator knows its instructions."""
    whole = BOARDS["gfx1100"]
    BOARDS["gfx1100"] = dataclasses.replace(whole, num_xcc=XCCS, simd_count=4 * whole.simd_count)
    system = EmulatedSystem("gfx1100", seed=request.param)
    system.start = START.replace("main(", f"exec({SPLIT!r}); main(", 1)
    yield system
    system.shut_down()
    BOARDS["gfx1100"] = whole


def only(xccs: int, words: list[int]) -> list[int]:
    return [*type3(nv.PACKET3_PRED_EXEC, len(words) | xccs << 24), *words]


def count(address: int) -> list[int]:
    """Adds 1."""
    return type3(nv.PACKET3_ATOMIC_MEM, TC_OP_ATOMIC_SUB_64, address & 0xFFFFFFFF, address >> 32,
                 0xFFFFFFFF, 0xFFFFFFFF, 0, 0, 0)


class Program:
    def __init__(self, client: Client) -> None:
        self.client, self.aql = client, AqlQueue(client)
        self.list = client.alloc(1 << 14, HOST)
        self.out = client.alloc(8192, VISIBLE)
        self.launcher = Launcher(client, self.aql.queue, client.alloc(1 << 16, HOST),
                                 client.alloc(4096, HOST), self.out)

    def run(self, words: list[int]) -> None:
        for number, word in enumerate(words):
            self.list.u32(4 * number).value = word
        self.aql.signal(0)
        packet = bytes([VENDOR, 0, 1, 0]) + b"".join(
            word.to_bytes(4, "little") for word in indirect(self.list.address, len(words))
        )
        packet = packet.ljust(56, b"\0") + self.aql.signals.address.to_bytes(8, "little")
        self.aql.put(packet, VENDOR | 1 << 8)
        until(lambda: self.aql.value(0) == 0)

    def dispatch(self, groups: int) -> list[int]:
        (packets,) = self.launcher.launches(COUNT, [(groups, self.out.address, 1)])
        return [word for packet in packets for word in packet]

    def counted(self, groups: int) -> list[int]:
        return [self.out.u32(4 * group).value // 64 for group in range(groups)]


@pytest.fixture
def program(client: Client) -> Program:
    return Program(client)


def test_an_atomic_counts_once_for_each_that_is_chosen(program: Program) -> None:
    at = program.out.address
    program.run(count(at) + only(0b0101, count(at + 8)) + only(0b1000, count(at + 16)) +
                only(0, count(at + 24)) + count(at + 32))
    assert [program.out.u64(8 * i).value for i in range(5)] == [XCCS, 2, 1, 0, XCCS]


def test_a_grid_is_shared(program: Program) -> None:
    program.run(program.dispatch(10))
    assert program.counted(11) == [1] * 10 + [0]


def test_a_grid_that_some_do_not_start_is_done_in_part(program: Program) -> None:
    """So a driver must not choose one for a dispatch, and must choose one for the rest."""
    words = program.dispatch(10)
    at = len(words) - 5  # DISPATCH_DIRECT
    program.run(words[:at] + only(0b0101, words[at:]))
    assert program.counted(10) == [1, 0] * 5


def test_registers_are_each_ones_own(program: Program) -> None:
    """The third has other arguments: its share goes elsewhere."""
    words = program.dispatch(8)
    other = program.launcher.kernarg.address + 2048
    program.launcher.kernarg.u64(2048).value = program.out.address + 1024
    program.launcher.kernarg.u32(2056).value = 1
    at = len(words) - 5
    different = set_registers("USER_DATA_0", other & 0xFFFFFFFF, other >> 32)
    program.run(words[:at] + only(0b0100, different) + words[at:])
    assert program.counted(8) == [1, 1, 0, 1] * 2
    assert [program.out.u32(1024 + 4 * g).value // 64 for g in range(8)] == [0, 0, 1, 0] * 2


@pytest.mark.parametrize("system", [None], indirect=True)  # a seed delivers them together
def test_whoever_is_not_told_apart_interrupts_for_each(program: Program, client: Client) -> None:
    page = client.event_page()
    event = client.create_event(page=page.handle).event_id
    mailbox = page.address + 8 * event
    ages = []
    for chosen in (1, 0xF):
        release = release_mem(mailbox, event, interrupt=2, context=event)
        program.run(only(chosen, release))
        result, (told,) = client.wait(event, ages=[1 << 40])
        assert result == 0
        ages.append(told.signal_event_data.last_event_age)
    assert ages[1] - ages[0] == XCCS


def test_a_pm4_queue_lives_on_one(client: Client) -> None:
    queue, memory = Queue(client, 0), client.alloc(4096, HOST)
    queue.put(count(memory.address), release_mem(memory.address + 8, 1))
    until(lambda: bool(memory.u64(8).value == 1))
    assert memory.u64().value == 1
