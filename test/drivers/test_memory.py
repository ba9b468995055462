"""Device memory: reuse, what is given back, exhaustion, and freeing what is in flight."""

from __future__ import annotations

import gc
import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import CachePolicy
from drivers.emulated.system import EmulatedSystem
from drivers.errors import ArgumentMismatch, DeviceClosed, OutOfDeviceMemory
from drivers.memory import size_class
from drivers.system import PAGE_BYTES, RealSystem, StackedSystem, System
from test.drivers import kernels

MEBIBYTE = 1 << 20


class Mappings(StackedSystem):
    """Knows what is mapped through it, page by page."""

    def __init__(self, below: System) -> None:
        super().__init__(below)
        self.pages: set[int] = set()

    def call(self, name, function, *arguments):
        result = function()
        if name == "mmap":
            self.pages.update(range(result, result + arguments[0], PAGE_BYTES))
        elif name == "munmap":
            self.pages.difference_update(range(arguments[0], sum(arguments), PAGE_BYTES))
        return result


@given(st.integers(0, 1 << 40))
def test_a_size_class_holds_the_request_and_wastes_at_most_a_quarter(size):
    rounded = size_class(size)
    assert rounded >= max(size, 64)
    assert rounded % 64 == 0
    assert rounded <= max(64, size + max(64, size // 4))
    assert size_class(rounded) == rounded


def test_buffers_are_aligned_and_do_not_overlap(device):
    buffers = [device.alloc(size) for size in (0, 1, 63, 64, 65, 4096, 5000, 200_000, 3 << 20)]
    spans = sorted((b.gpu_addr, b.gpu_addr + b.size_bytes) for b in buffers)
    assert all(start % 64 == 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_memory_is_used_again(device):
    for size in (64, 1000, 100_000, 1 << 20, 10 << 20):
        address = device.alloc(size).gpu_addr
        for _ in range(20):
            assert device.alloc(size).gpu_addr == address


def test_used_memory_is_counted(device):
    before = device.memory_used
    buffers = [device.alloc(MEBIBYTE) for _ in range(10)]
    assert device.memory_used - before == 10 * MEBIBYTE
    view = buffers[0].view(100, 200)
    del buffers
    assert device.memory_used - before == MEBIBYTE
    assert device.memory.peak_bytes >= 10 * MEBIBYTE
    del view
    assert device.memory_used == before


def test_a_steady_step_maps_nothing_new(device):
    def step() -> None:
        held = [device.alloc(size) for size in (100, 5000, 300_000, 4 << 20, 30 << 20)]
        held[0].cpu_view()[0] = 1

    step()
    before = device.memory.mapped_bytes
    for _ in range(50):
        step()
    assert device.memory.mapped_bytes == before


@pytest.fixture
def below(device_name):
    """What a System of a test's own stands on: no board, or one that no other has opened."""
    boards = os.environ.get("EMULATE") if device_name in ("AMD", "NV") else None
    system = EmulatedSystem(boards) if boards else RealSystem()
    yield system
    if boards:
        system.shut_down()


def test_trim_gives_everything_idle_back(below, opened):
    system = Mappings(below)
    device = opened(system=system)
    before = set(system.pages)
    held = [device.alloc(20 * MEBIBYTE) for _ in range(4)] + [device.alloc(100) for _ in range(99)]
    assert len(system.pages - before) * PAGE_BYTES >= 80 * MEBIBYTE
    del held
    device.trim()
    assert device.memory.cached_bytes == 0
    assert system.pages == before


def test_idle_memory_beyond_the_limit_goes_back_at_once(opened):
    device = opened(cache_policy=CachePolicy(some_bytes=MEBIBYTE, most_bytes=8 * MEBIBYTE))
    held = [device.alloc(2 * MEBIBYTE) for _ in range(20)]
    del held
    assert device.memory.cached_bytes <= 8 * MEBIBYTE


def test_memory_idle_for_long_goes_back(opened):
    device = opened(cache_policy=CachePolicy(long_s=0.0))
    device.alloc(10 * MEBIBYTE)
    device.alloc(3 * MEBIBYTE)
    assert device.memory.cached_bytes <= 3 * MEBIBYTE


def test_a_freed_buffer_in_flight_is_not_used_again_before_its_point(device):
    gate = device.timeline()
    program = device.load(kernels.store_at(device.target))
    queue = device.compute_queue()
    out = device.alloc(4096)
    address = out.gpu_addr
    commands = queue.commands().wait(gate.point(1)).exec(program, (out, 3, 77), (1, 1, 1))
    point = commands.submit()
    del out, commands
    others = [device.alloc(4096) for _ in range(100)]
    assert address not in {other.gpu_addr for other in others}
    gate.signal(1)
    point.wait()
    again = [device.alloc(4096) for _ in range(500)]
    assert address in {other.gpu_addr for other in again}


def test_running_far_ahead_of_the_device_does_not_take_ever_more_memory(opened):
    device = opened(cache_policy=CachePolicy(some_bytes=4 * MEBIBYTE))
    program = device.load(kernels.busy(device.target))
    queue = device.compute_queue()
    for _ in range(50):
        buffer = device.alloc(4 * MEBIBYTE)
        queue.commands().exec(program, (buffer, 1_000_000), (1, 1, 1)).submit()
        del buffer
    assert device.memory.mapped_bytes < 20 * MEBIBYTE
    device.synchronize()


def test_a_program_in_flight_may_be_dropped(device):
    gate, out = device.timeline(), device.alloc(8)
    program = device.load(kernels.store_at(device.target))
    queue = device.compute_queue()
    point = queue.commands().wait(gate.point(1)).exec(program, (out, 0, 5), (1, 1, 1)).submit()
    del program
    gc.collect()
    gate.signal(1)
    point.wait()
    assert out.cpu_view().cast("q")[0] == 5


def test_too_much_memory_says_how_much_there_is(opened):
    device = opened(memory_limit_bytes=64 * MEBIBYTE)
    held = device.alloc(40 * MEBIBYTE)
    with pytest.raises(OutOfDeviceMemory) as caught:
        device.alloc(40 * MEBIBYTE)
    message = str(caught.value)
    for part in ("40.0 MiB", device.name, "limit of 64.0 MiB", "Free buffers"):
        assert part in message
    assert caught.value.code == "HW203"
    del held
    device.alloc(40 * MEBIBYTE)


def test_more_than_the_address_space_is_out_of_memory(device):
    with pytest.raises(OutOfDeviceMemory, match=r"Cannot allocate 1048576\.0 GiB"):
        device.alloc(1 << 50)


def test_memory_filled_a_hundred_times_has_the_same_capacity(opened):
    device = opened(memory_limit_bytes=32 * MEBIBYTE)
    counts = set()
    for turn in range(100):
        held = []
        size = (1 + turn % 3) * MEBIBYTE // 4
        try:
            while True:
                held.append(device.alloc(size))
        except OutOfDeviceMemory:
            counts.add((size, len(held)))
        del held
    assert len(counts) == 3


@pytest.mark.parametrize("size", [-1, 1.5, None, 1 << 62])
def test_a_wrong_size_is_refused(device, size):
    with pytest.raises(ArgumentMismatch, match="0 to 2\\^62 bytes"):
        device.alloc(size)


def test_a_host_view_keeps_its_memory(device):
    view = device.alloc(4096).cpu_view()
    view[:] = b"\x07" * 4096
    for _ in range(100):
        device.alloc(4096).cpu_view()[:] = bytes(4096)
    assert view == b"\x07" * 4096


def test_host_memory_outlives_the_device(opened):
    device = opened()
    buffer = device.alloc(10 * MEBIBYTE)
    view = buffer.cpu_view()
    device.close()
    view[-1] = 9
    assert buffer.cpu_view()[-1] == 9
    with pytest.raises(DeviceClosed, match="is closed"):
        device.alloc(1)


def test_numpy_shares_the_memory_without_a_copy(device):
    import numpy as np

    buffer = device.alloc(4000)
    array = np.frombuffer(buffer.cpu_view(), np.float32)
    array[:] = 2.5
    assert array.ctypes.data == buffer.cpu_addr
    assert buffer.cpu_view().cast("f")[999] == 2.5


def test_a_buffer_of_nothing(device):
    assert device.alloc(0).cpu_view().nbytes == 0
