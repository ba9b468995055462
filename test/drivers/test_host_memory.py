"""Memory of the process that a GPU reaches: user pointers on AMD, OS descriptors on NVIDIA's."""

from __future__ import annotations

import gc
import mmap

import numpy as np
import pytest

from drivers import Var, open_device, probe
from drivers.errors import ArgumentMismatch, DeviceClosed, DeviceNotAvailable, HardwareError
from drivers.memory import HostMemory
from drivers.system import PAGE_BYTES
from test.drivers import kernels
from test.drivers.host_pages import boards, pages


@pytest.fixture(params=["AMD", "NV"])
def gpu(request, monkeypatch):
    boards(request.param, monkeypatch)
    available, why = probe(request.param)
    if not available:
        pytest.skip(why)
    return request.param


@pytest.fixture
def device(gpu):
    with open_device(gpu, timeout_ms=60_000) as opened:
        yield opened


def test_the_copy_engine_reads_and_writes_it(device):
    memory, address = pages(3)
    numbers = np.frombuffer(memory, np.int64)
    numbers[:] = range(len(numbers))
    host = device.host_buffer(address, len(memory), memory)
    assert (host.cpu_addr, host.size_bytes) == (address, len(memory))
    there, queue = device.alloc(len(memory)), device.copy_queue()
    queue.commands().copy(there, host).submit().wait()
    assert there.cpu_view() == memory[:]
    there.cpu_view()[:] = b"\x2b" * len(memory)
    part = host.view(PAGE_BYTES, PAGE_BYTES)
    queue.commands().copy(part, there, PAGE_BYTES).submit().wait()
    assert memory[PAGE_BYTES : 2 * PAGE_BYTES] == b"\x2b" * PAGE_BYTES
    np.testing.assert_array_equal(numbers[:512], np.arange(512))
    np.testing.assert_array_equal(numbers[1024:], np.arange(1024, 1536))


def test_kernels_use_it(device):
    memory, address = pages(1)
    numbers = np.frombuffer(memory, np.int64)
    numbers[:] = range(len(numbers))
    host, there = device.host_buffer(address, PAGE_BYTES, memory), device.alloc(PAGE_BYTES)
    there.cpu_view()[:] = memory[:]
    program = device.load(kernels.add_number(device.target))
    commands = device.compute_queue().commands()
    commands.exec(program, (host, there, 5), (len(numbers), 1, 1)).submit().wait()
    np.testing.assert_array_equal(numbers, np.arange(5, 5 + len(numbers)))


def test_memory_that_is_let_go_of_is_reached_until_nothing_uses_it(device):
    memory, address = pages(1)
    gate, queue = device.timeline("gate"), device.copy_queue()
    there = device.alloc(PAGE_BYTES)
    there.cpu_view()[:] = b"\x2b" * PAGE_BYTES
    before = len(device.gpu_memory.pinned)
    host = device.host_buffer(address, PAGE_BYTES, memory)
    point = queue.commands().wait(gate.point(1)).copy(host, there).submit()
    del host
    gc.collect()
    pinned = len(device.gpu_memory.pinned)
    gate.signal(1)
    point.wait()
    device.trim()
    assert len(device.gpu_memory.pinned) < pinned
    assert pinned > before
    assert memory[:] == b"\x2b" * PAGE_BYTES


def test_released_memory_can_be_pinned_again_at_once(device):
    memory, address = pages(2)
    for _ in range(3):
        host = device.host_buffer(address, len(memory), memory)
        assert isinstance(host.storage, HostMemory)
        host.storage.release()
    assert not device.gpu_memory.pinned


@pytest.mark.parametrize(("shift", "size"), [(8, PAGE_BYTES), (0, 100), (0, 0)])
def test_parts_of_pages_are_refused_with_the_sizes(device, shift, size):
    memory, address = pages(2)
    with pytest.raises(ArgumentMismatch, match=f"multiples of 4096 bytes, not {size} bytes at"):
        device.host_buffer(address + shift, size, memory)


def test_freed_pages_are_refused(device):
    system = device.system
    address = system.mmap(2 * PAGE_BYTES, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    system.munmap(address + PAGE_BYTES, PAGE_BYTES)
    with pytest.raises(HardwareError):
        device.host_buffer(address, 2 * PAGE_BYTES, None)
    assert not device.gpu_memory.pinned
    system.munmap(address, PAGE_BYTES)


def test_another_gpu_does_not_use_it(device, gpu):
    memory, address = pages(1)
    host = device.host_buffer(address, PAGE_BYTES, memory)
    try:
        second = open_device(f"{gpu}:1")
    except DeviceNotAvailable:
        pytest.skip("one GPU is there")
    with second as other:
        assert device.reaches(host) and not other.reaches(host)
        commands = other.copy_queue().commands().copy(other.alloc(8), host, 8)
        with pytest.raises(ArgumentMismatch, match="Copy it into a buffer of this device first"):
            commands.submit()


def test_closing_the_device_gives_the_pages_back(device, gpu):
    memory, address = pages(1)
    memory[:4] = b"kept"
    with open_device(gpu) as short:
        host = short.host_buffer(address, PAGE_BYTES, memory)
    assert memory[:4] == b"kept"
    assert not short.gpu_memory.pinned
    with pytest.raises(DeviceClosed):
        short.host_buffer(address, PAGE_BYTES, memory)
    again = device.host_buffer(address, PAGE_BYTES, memory)
    del host, short
    gc.collect()
    assert len(device.gpu_memory.pinned) == 1
    assert again.cpu_addr == address


def test_a_processors_queue_finds_it_where_the_host_has_it(device):
    memory, address = pages(1)
    numbers = np.frombuffer(memory, np.int64)
    numbers[:] = range(len(numbers))
    host = device.host_buffer(address, PAGE_BYTES, memory)
    with open_device("LLVM") as processor:
        own, queue = processor.alloc(PAGE_BYTES), processor.compute_queue()
        queue.commands().copy(own, host).write(host, 70).submit().wait()
        assert list(own.cpu_view().cast("Q")) == [*range(len(numbers))]
        add = queue.commands().exec(
            processor.load(kernels.add_number(processor.target)), (Var("out"), host, 5), (2, 1, 1)
        )
        add.bind().replay(out=host).wait()
        queue.commands().copy(Var("to"), own, 8).bind().replay(to=host.view(16)).wait()
    np.testing.assert_array_equal(numbers[:4], [75, 6, 0, 3])


def test_the_end_of_a_device_and_a_release_at_that_moment_take_pages_away_once(device, gpu):
    memory, address = pages(1)
    with open_device(gpu) as short:
        host = short.host_buffer(address, PAGE_BYTES, memory)

        class Pinned(dict):
            """Somebody else lets go between the look and the removal."""

            def get(self, key, default=None):
                found = super().get(key, default)
                if self.armed:
                    self.armed = False
                    host.storage.release()
                return found

        short.gpu_memory.pinned = Pinned(short.gpu_memory.pinned)
        short.gpu_memory.pinned.armed = True
    assert short.unusable == "closed"
    device.host_buffer(address, PAGE_BYTES, memory)
