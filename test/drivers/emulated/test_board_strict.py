"""Caches in strict mode: whoever does not write back or invalidate sees what was before, always."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from autogen import pm4_nv as nv
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import HOST, VISIBLE, Client, F, Memory, Queue, until
from test.drivers.emulated.packets import (
    acquire_mem,
    copy_data,
    release_mem,
    sdma_copy,
    sdma_fence,
    sdma_poll,
    wait_mem,
    write_data,
)
from test.drivers.emulated.test_board_dispatch import Launcher
from test.drivers.emulated.test_board_schedule import ADD, FLUSH, FULL, SEEDS

COMPUTE, SDMA = 0, 1
WRITE_BACK = nv.PACKET3_RELEASE_MEM_GCR_GL2_WB
L2 = nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GL2_INV(1)
VECTOR = nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GLV_INV(1)
MIDDLE = nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GL1_INV(1)
SCALAR = nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GLK_INV(1)
FIRST = VECTOR | MIDDLE | SCALAR
TO_L2 = 2

# Every thread adds k to the one number that o points to.
COUNT = """
define amdgpu_kernel void @k(ptr addrspace(1) %o, ptr addrspace(1) %a, i32 %k) #0 {
  %old = atomicrmw add ptr addrspace(1) %o, i32 %k syncscope("agent") monotonic
  ret void
}
"""


@pytest.fixture(scope="module", params=[None, *SEEDS] if FULL else [None, 1])
def system(request: pytest.FixtureRequest) -> Iterator[EmulatedSystem]:
    system = EmulatedSystem("gfx1100", seed=request.param, strict=True)
    yield system
    system.shut_down()


class Program:
    """A kernel that adds to what it reads, on a compute queue; data lies in VRAM."""

    def __init__(self, client: Client, text: str = ADD) -> None:
        self.client = client
        self.queue = Queue(client, COMPUTE, ring_bytes=1 << 14)
        self.state = client.alloc(4096, HOST)
        self.data = client.alloc(1 << 16, VISIBLE)
        self.launcher = Launcher(client, self.queue, client.alloc(1 << 16, HOST),
                                 client.alloc(8192, HOST), self.data)
        self.kernel = self.launcher.load(text)
        self.calls = 0

    def add(self, to: int, source: int, amount: int, groups: int = 1) -> list[int]:
        """A dispatch and the wait for its end: data[to + 4i] = data[source + 4i] + amount."""
        kernarg = self.launcher.kernarg
        at = 256 * self.calls
        self.calls += 1
        kernarg.u64(at).value = self.data.address + to
        kernarg.u64(at + 8).value = self.data.address + source
        kernarg.u32(at + 16).value = amount
        packets = self.launcher.launch(
            self.kernel, self.launcher.code.address, kernarg.address + at, groups
        )
        return [word for packet in (*packets, FLUSH) for word in packet]

    def run(self, *packets: list[int], caches: int = 0) -> None:
        """Does packets and one RELEASE_MEM, until it has written its number."""
        done = self.state.u64().value + 1
        self.queue.put(*packets, release_mem(self.state.address, done, caches=caches))
        until(lambda: bool(self.state.u64().value == done))

    def word(self, at: int) -> int:
        return int(self.data.u32(at).value)

    @property
    def address(self) -> int:
        return self.data.address


@pytest.fixture
def program(client: Client) -> Program:
    return Program(client)


def kernel_to_host(program: Program, right: bool) -> bool:
    """A kernel's result is memory's only when L2 writes it back."""
    program.run(acquire_mem(FIRST | L2), program.add(1024, 0, 5), caches=WRITE_BACK * right)
    return program.word(1024) == 5


def host_to_kernel(program: Program, right: bool) -> bool:
    """L2 has what memory held before the host wrote."""
    program.run(program.add(1024, 0, 5))
    program.data.u32(0).value = 100
    program.run(acquire_mem(FIRST | L2 * right), program.add(1024, 0, 5), caches=WRITE_BACK)
    return program.word(1024) == 105


@pytest.mark.parametrize("kept", [VECTOR, MIDDLE, SCALAR])
def test_each_cache_of_the_first_level_must_be_invalidated(program: Program, kept: int) -> None:
    program.data.u32(0).value = 100
    program.run(acquire_mem(FIRST & ~kept | L2), program.add(1024, 0, 5), caches=WRITE_BACK)
    assert program.word(1024) == 5
    program.run(acquire_mem(FIRST | L2), program.add(1024, 0, 5), caches=WRITE_BACK)
    assert program.word(1024) == 105


def kernel_to_kernel(program: Program, right: bool) -> bool:
    """A kernel sees what the one before wrote if first-level caches were invalidated."""
    program.run(acquire_mem(FIRST | L2), program.add(1024, 0, 5), *[acquire_mem(FIRST)] * right,
                program.add(2048, 1024, 7), caches=WRITE_BACK)
    return program.word(2048) == 12


def kernel_to_copy(program: Program, right: bool) -> bool:
    """A copy engine reads memory, not L2."""
    copy = Queue(program.client, SDMA)
    program.queue.put(acquire_mem(FIRST | L2), program.add(1024, 0, 5),
                      release_mem(program.state.address, 1, caches=WRITE_BACK * right))
    copy.put(sdma_poll(program.state.address, 1),
             sdma_copy(program.address + 1024, program.address + 8192, 16),
             sdma_fence(program.state.address + 8, 1))
    until(lambda: bool(program.state.u32(8).value == 1))
    return program.word(8192) == 5


def copy_to_kernel(program: Program, right: bool) -> bool:
    """Nor does it write into L2."""
    copy = Queue(program.client, SDMA)
    program.run(program.add(1024, 0, 5))
    program.data.u32(4096).value = 100
    copy.put(sdma_copy(program.address + 4096, program.address, 16),
             sdma_fence(program.state.address + 8, 1))
    program.run(wait_mem(program.state.address + 8, 1), acquire_mem(FIRST | L2 * right),
                program.add(1024, 0, 5), caches=WRITE_BACK)
    return program.word(1024) == 105


def packet_to_kernel(program: Program, right: bool) -> bool:
    """The command processor writes into L2: first-level caches do not know."""
    program.run(write_data(program.address, 100, dst_sel=TO_L2), *[acquire_mem(FIRST)] * right,
                program.add(1024, 0, 5), caches=WRITE_BACK)
    return program.word(1024) == 105


def packet_to_host(program: Program, right: bool) -> bool:
    """Where its packet writes to is in dst_sel: memory, or L2."""
    program.run(write_data(program.address, 100, dst_sel=5 if right else TO_L2))
    return program.word(0) == 100


def released_to_l2(program: Program, right: bool) -> bool:
    """So it is in RELEASE_MEM."""
    program.run(release_mem(program.address, 100, to_l2=not right))
    return program.word(0) == 100


def acquired_in_part(program: Program, right: bool) -> bool:
    """ACQUIRE_MEM invalidates what it names, and no more."""
    program.data.u32(4096).value = 100
    program.run(acquire_mem(FIRST | L2, program.address + 4096 * right, 256),
                program.add(1024, 4096, 5), caches=WRITE_BACK)
    return program.word(1024) == 105


PROGRAMS = (kernel_to_host, host_to_kernel, kernel_to_kernel, kernel_to_copy, copy_to_kernel,
            packet_to_kernel, packet_to_host, released_to_l2, acquired_in_part)


@pytest.mark.parametrize("case", PROGRAMS)
def test_who_forgets_a_cache_sees_what_was_before(
    system: EmulatedSystem, case: Callable[[Program, bool], bool]
) -> None:
    for right in (False, True, False):
        client = Client(system)
        assert case(Program(client), right) == right, system.log()
        client.close()


def test_what_is_dirty_outlives_an_invalidation_and_what_the_host_writes_beside_it(
    program: Program,
) -> None:
    program.run(acquire_mem(FIRST | L2), program.add(1024, 0, 5))
    program.data.u32(1024 + 256).value = 77  # of the same page, behind the kernel's 64 words
    program.run(acquire_mem(FIRST | L2), program.add(2048, 1024, 1), caches=WRITE_BACK)
    assert (program.word(1024), program.word(1280), program.word(2048)) == (5, 77, 6)


def test_the_command_processor_reads_what_is_dirty(program: Program) -> None:
    program.run(acquire_mem(FIRST | L2), program.add(1024, 0, 5),
                copy_data(program.address + 1024, 1, program.state.address + 64))
    assert program.state.u64(64).value == 5 << 32 | 5
    assert program.word(1024) == 0


def test_memory_that_no_cache_keeps_needs_nothing(client: Client) -> None:
    program = Program(client)
    for flags in (HOST, F["VRAM"] | F["PUBLIC"] | F["WRITABLE"] | F["COHERENT"],
                  F["GTT"] | F["WRITABLE"] | F["UNCACHED"]):
        program.data = client.alloc(4096, flags)
        program.data.u32(0).value = 100
        program.run(program.add(1024, 0, 5), program.add(2048, 1024, 5))
        assert program.word(2048) == 110


def test_a_grids_waves_see_each_other_and_atomics_add_up(client: Client) -> None:
    program = Program(client, COUNT)
    program.run(acquire_mem(FIRST | L2), program.add(0, 0, 1, groups=8), acquire_mem(FIRST),
                program.add(0, 0, 1, groups=8), caches=WRITE_BACK)
    assert program.word(0) == 1024


def test_unmapping_writes_back_and_mapping_reads_anew(client: Client) -> None:
    program = Program(client)
    data: Memory = program.data
    program.run(acquire_mem(FIRST | L2), program.add(1024, 0, 5))
    assert program.word(1024) == 0
    client.unmap(data.handle, 0)
    assert program.word(1024) == 5
    data.u32(0).value = 100
    client.map(data.handle, 0)
    program.run(program.add(1024, 0, 5), caches=WRITE_BACK)
    assert program.word(1024) == 105
