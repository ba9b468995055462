"""Engines one at a time, in an order that a seed fixes: it replays, and finds missing waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from autogen import pm4_nv as nv
from drivers.emulated.schedule import SPINNING_S
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import HOST, VISIBLE, Client, Queue, type3, until
from test.drivers.emulated.packets import (
    copy_data,
    release_mem,
    sdma_copy,
    sdma_fence,
    sdma_poll,
    wait_mem,
    write_data,
)
from test.drivers.emulated.test_board_dispatch import SCALE, Launcher

COMPUTE, SDMA = 0, 1
FULL = bool(os.environ.get("TINYHW_FULL"))
SEEDS = range(8 if FULL else 4)
REPEATS = 5 if FULL else 2
FLUSH = type3(nv.PACKET3_EVENT_WRITE, 7 | 4 << 8)

# out[i] = in[i] + k, one thread each
ADD = """
define amdgpu_kernel void @k(ptr addrspace(1) %o, ptr addrspace(1) %a, i32 %k) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %base = mul i32 %g, 64
  %i = add i32 %base, %t
  %from = getelementptr i32, ptr addrspace(1) %a, i32 %i
  %v = load i32, ptr addrspace(1) %from
  %r = add i32 %v, %k
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %r, ptr addrspace(1) %at
  ret void
}
"""


@pytest.fixture(scope="module")
def systems() -> Iterator[Callable[[int], EmulatedSystem]]:
    """A machine for each seed, started when a test first asks for it."""
    made: dict[int, EmulatedSystem] = {}

    def get(seed: int) -> EmulatedSystem:
        if seed not in made:
            made[seed] = EmulatedSystem("gfx1100", seed=seed)
        return made[seed]

    yield get
    for system in made.values():
        system.shut_down()


class Program:
    """Two or three queues, and a word or two by which they wait for each other."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.state = client.alloc(4096, HOST)
        self.data = client.alloc(4096, VISIBLE)
        for at in (0, 4, 8, 12):
            self.data.u32(at).value = at + 100
        self.queues: list[Queue] = []

    def queue(self, kind: int) -> Queue:
        self.queues.append(Queue(self.client, kind, ring_bytes=1 << 14))
        return self.queues[-1]

    def ended(self, *flags: int) -> None:
        until(lambda: all(self.state.u32(64 + 8 * flag).value == 1 for flag in flags))

    def flag(self, number: int) -> int:
        return self.state.address + 64 + 8 * number

    def word(self, at: int) -> int:
        return int(self.data.u32(at).value)


def copy_to_compute(program: Program, correct: bool) -> bool:
    """A copy queue writes what a compute queue reads."""
    copy, compute = program.queue(SDMA), program.queue(COMPUTE)
    data, state = program.data.address, program.state.address
    copy.put(sdma_copy(data, data + 256, 16), sdma_fence(state, 1), sdma_fence(program.flag(0), 1))
    compute.put(*[wait_mem(state, 1)] * correct, copy_data(data + 256, 1, data + 512),
                release_mem(program.flag(1), 1))
    program.ended(0, 1)
    return program.word(512) == 100


def compute_to_copy(program: Program, correct: bool) -> bool:
    """A compute queue writes what a copy queue reads."""
    copy, compute = program.queue(SDMA), program.queue(COMPUTE)
    data, state = program.data.address, program.state.address
    compute.put(write_data(data, 7), release_mem(state, 1), release_mem(program.flag(0), 1))
    copy.put(*[sdma_poll(state, 1)] * correct, sdma_copy(data, data + 256, 16),
             sdma_fence(program.flag(1), 1))
    program.ended(0, 1)
    return program.word(256) == 7


def two_compute_queues(program: Program, correct: bool) -> bool:
    """The second waits for the first, but the first does not wait before it writes again."""
    first, second = program.queue(COMPUTE), program.queue(COMPUTE)
    data, state = program.data.address, program.state.address
    first.put(write_data(data, 7), release_mem(state, 1),
              *[wait_mem(state + 8, 1)] * correct, write_data(data, 8),
              release_mem(program.flag(0), 1))
    second.put(wait_mem(state, 1), copy_data(data, 1, data + 256), release_mem(state + 8, 1),
               release_mem(program.flag(1), 1))
    program.ended(0, 1)
    return program.word(256) == 7


def three_queues(program: Program, correct: bool) -> bool:
    """The third waits for the second only, which has not waited for the first."""
    data, state = program.data.address, program.state.address
    first, second, third = program.queue(COMPUTE), program.queue(SDMA), program.queue(COMPUTE)
    first.put(write_data(data, 9), release_mem(state, 1), release_mem(program.flag(0), 1))
    second.put(*[sdma_poll(state, 1)] * correct, sdma_fence(state + 8, 1))
    third.put(wait_mem(state + 8, 1), copy_data(data, 1, data + 256),
              release_mem(program.flag(1), 1))
    program.ended(0, 1)
    return program.word(256) == 9


def kernel_then_kernel(program: Program, correct: bool) -> bool:
    """Two kernels of a queue, the second reads what the first writes: no flush between."""
    client, data = program.client, program.data.address
    launcher = Launcher(client, program.queue(COMPUTE), client.alloc(1 << 16, VISIBLE),
                        client.alloc(4096, VISIBLE), program.data)
    done = release_mem(program.flag(0), 1)
    launch = launcher.launches(ADD, [(4, data + 1024, data, 1), (4, data + 2048, data + 1024, 1)])
    launcher.queue.put(*launch[0], *[FLUSH] * correct, *launch[1], done)
    program.ended(0)
    return program.word(2048) == 102


def kernel_then_packet(program: Program, correct: bool) -> bool:
    """The command processor reads what a kernel of its queue writes."""
    client, data = program.client, program.data.address
    launcher = Launcher(client, program.queue(COMPUTE), client.alloc(1 << 16, VISIBLE),
                        client.alloc(4096, VISIBLE), program.data)
    (launch,) = launcher.launches(SCALE, [(4, data + 1024, 5)])
    launcher.queue.put(*launch, *[FLUSH] * correct, copy_data(data + 1024, 1, data + 2048),
                       release_mem(program.flag(0), 1))
    program.ended(0)
    return program.word(2048) == 5


PROGRAMS = (copy_to_compute, compute_to_copy, two_compute_queues, three_queues,
            kernel_then_kernel, kernel_then_packet)


def run(system: EmulatedSystem, program: Callable[[Program, bool], bool], correct: bool) -> tuple[
    bool, list[str]
]:
    """One run in a program of its own: whether its result is right, and the schedule."""
    client = Client(system)
    try:
        right = program(Program(client), correct)
        return right, system.schedule()
    finally:
        client.close()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_missing_wait_fails_in_every_run_under_some_seed(
    systems: Callable[[int], EmulatedSystem], program: Callable[[Program, bool], bool]
) -> None:
    failing = []
    for seed in SEEDS:
        results = [run(systems(seed), program, False) for _ in range(REPEATS)]
        assert all(result == results[0] for result in results), f"seed {seed} does not replay"
        if not results[0][0]:
            failing.append(seed)
    assert failing
    assert len(failing) < len(SEEDS), "the program is wrong in any order"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_waits_is_right_under_every_seed(
    systems: Callable[[int], EmulatedSystem], program: Callable[[Program, bool], bool]
) -> None:
    schedules = set()
    for seed in SEEDS:
        right, schedule = run(systems(seed), program, True)
        assert right, f"seed {seed}: {schedule}"
        schedules.add(tuple(schedule))
    assert len(schedules) > 1, "the seed changes nothing"


def rounds(program: Program) -> None:
    """Three queues that hand each other work, and a host that answers in between."""
    copy, first, second = program.queue(SDMA), program.queue(COMPUTE), program.queue(COMPUTE)
    data, state = program.data.address, program.state.address
    for turn in range(1, 9):
        first.put(write_data(data, turn), release_mem(state, turn))
        second.put(wait_mem(state + 8, turn), copy_data(data + 64, 1, data + 128),
                   release_mem(state + 16, turn))
        copy.put(sdma_poll(state, turn), sdma_copy(data, data + 64, 8), sdma_fence(state + 8, turn))
        if turn % 3 == 0:
            until(lambda turn=turn: program.state.u32(16).value == turn)  # type: ignore[misc]
            assert program.word(128) == turn
    until(lambda: program.state.u32(16).value == 8)


def test_the_same_seed_gives_the_same_schedule(systems: Callable[[int], EmulatedSystem]) -> None:
    schedules = {}
    for seed in (0, 1, 3):
        found = set()
        for _ in range(3):
            client = Client(systems(seed))
            rounds(Program(client))
            found.add(tuple(systems(seed).schedule()))
            client.close()
        assert len(found) == 1, f"seed {seed}"
        schedules[seed] = found.pop()
    assert len(set(schedules.values())) == 3
    assert sorted(schedules[0]) == sorted(schedules[1]) == sorted(schedules[3])
    anew = EmulatedSystem("gfx1100,seed=3")
    client = Client(anew)
    rounds(Program(client))
    assert tuple(anew.schedule()) == schedules[3], "another process, the same schedule"
    client.close()
    anew.shut_down()


def test_nothing_runs_before_the_program_sleeps(systems: Callable[[int], EmulatedSystem]) -> None:
    client = Client(systems(1))
    program = Program(client)
    queue = program.queue(COMPUTE)
    queue.put(write_data(program.data.address, 1))
    started = time.monotonic()
    while (passed := time.monotonic() - started) < SPINNING_S / 5:
        assert program.word(0) == 100 or time.monotonic() - started > SPINNING_S, passed
    until(lambda: program.word(0) == 1)
    client.close()


def test_a_program_that_never_sleeps_is_served_all_the_same(
    systems: Callable[[int], EmulatedSystem]
) -> None:
    client = Client(systems(0))
    program = Program(client)
    program.queue(COMPUTE).put(write_data(program.data.address, 1))
    while program.word(0) != 1:
        pass
    client.close()


def test_waits_end_faults_arrive_and_queues_go(systems: Callable[[int], EmulatedSystem]) -> None:
    client = Client(systems(2))
    program = Program(client)
    stuck, other = program.queue(COMPUTE), program.queue(SDMA)
    event = client.create_event(kind=8).event_id
    stuck.put(wait_mem(program.state.address, 1))
    assert client.wait(event, timeout=50)[0] == 1, "a time limit passes while engines wait"
    stray = client.reserve(4096)
    other.put(sdma_copy(stray, program.data.address, 4))
    assert client.wait(event)[0] == 0
    stuck.destroy()
    other.destroy()
    later = program.queue(COMPUTE)
    later.put(write_data(program.data.address, 1))
    until(lambda: program.word(0) == 1)
    client.close()


def test_an_endless_list_can_be_destroyed(systems: Callable[[int], EmulatedSystem]) -> None:
    client = Client(systems(0))
    program, code = Program(client), client.alloc(4096, HOST)
    words = write_data(program.data.address, 1)
    words += type3(nv.PACKET3_INDIRECT_BUFFER, code.address & 0xFFFFFFFF, code.address >> 32,
                   len(words) + 4 | 1 << 23 | 1 << 20)
    for number, word in enumerate(words):
        code.u32(4 * number).value = word
    queue = program.queue(COMPUTE)
    queue.put(type3(nv.PACKET3_INDIRECT_BUFFER, code.address & 0xFFFFFFFF, code.address >> 32,
                    len(words) | 1 << 23))
    until(lambda: program.word(0) == 1)
    queue.destroy()
    client.close()


@pytest.mark.parametrize("description", ["gfx1100,seed=", "gfx1100,seed=x", "seed=1", "gfx9,seed=1",
                                         "gfx1100,seeds=1"])
def test_a_wrong_description_is_refused(description: str) -> None:
    from drivers.emulated.amd.machine import parse

    with pytest.raises(ValueError):
        parse(description)


