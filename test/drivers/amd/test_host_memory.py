"""Memory of the process on AMD: where it is, and what the kernel driver refuses, with its errno."""

from __future__ import annotations

import ctypes
import errno
import mmap
import tempfile

import pytest

from drivers import open_device
from drivers.errors import SystemCallFailed
from drivers.memory import HostMemory
from drivers.system import PAGE_BYTES
from test.drivers.host_pages import boards, pages


@pytest.fixture
def device(monkeypatch):
    boards("AMD", monkeypatch)
    with open_device("AMD", timeout_ms=10_000) as opened:
        yield opened


def protect(address: int, size_bytes: int, protection: int) -> None:
    ctypes.CDLL(None).mprotect(
        ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), ctypes.c_int(protection)
    )


def test_the_gpu_finds_the_hosts_memory_where_it_is(device):
    memory, address = pages(3)
    host = device.host_buffer(address, len(memory), memory)
    assert (host.gpu_addr, host.size_bytes) == (address, len(memory))
    there = device.alloc(len(memory))
    memory[:] = bytes(range(256)) * (len(memory) // 256)
    device.copy_queue().commands().copy(there, host).submit().wait()
    assert there.cpu_view() == memory[:]


def test_released_memory_can_be_pinned_again_at_once_and_twice_cannot(device):
    memory, address = pages(2)
    for _ in range(3):
        host = device.host_buffer(address, len(memory), memory)
        with pytest.raises(SystemCallFailed, match=r"EINVAL.*4\.0 KiB of the host") as refused:
            device.host_buffer(address, PAGE_BYTES, memory)
        assert refused.value.errno == errno.EINVAL
        assert isinstance(host.storage, HostMemory)
        host.storage.release()
    assert not device.gpu_memory.pinned


def test_a_page_that_a_buffer_has_let_go_of_is_pinned_anew(device):
    memory, address = pages(1)
    host = device.host_buffer(address, PAGE_BYTES, memory)
    assert device.pin(address) == address
    host.storage.release()
    assert not device.gpu_memory.pinned
    assert device.pin(address) == device.pin(address) == address
    assert list(device.gpu_memory.pinned) == [address]


@pytest.mark.parametrize(
    ("number", "protection"), [(errno.EPERM, mmap.PROT_READ), (errno.EFAULT, 0)],
)
def test_memory_that_may_not_be_written_is_refused_and_stays(device, number, protection):
    memory, address = pages(2)
    memory[:5] = b"first"
    protect(address + PAGE_BYTES, PAGE_BYTES, protection)
    with pytest.raises(SystemCallFailed, match=r"8\.0 KiB of the host's memory") as refused:
        device.host_buffer(address, 2 * PAGE_BYTES, memory)
    assert refused.value.errno == number
    assert "mapped for reading and writing" in str(refused.value)
    protect(address + PAGE_BYTES, PAGE_BYTES, mmap.PROT_READ | mmap.PROT_WRITE)
    assert memory[:5] == b"first"
    assert not device.gpu_memory.pinned


def test_freed_pages_are_a_bad_address(device):
    system = device.system
    address = system.mmap(2 * PAGE_BYTES, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    system.munmap(address + PAGE_BYTES, PAGE_BYTES)
    with pytest.raises(SystemCallFailed, match="EFAULT") as refused:
        device.host_buffer(address, 2 * PAGE_BYTES, None)
    assert refused.value.errno == errno.EFAULT
    system.munmap(address, PAGE_BYTES)


def test_a_gpus_own_memory_is_no_host_memory(device):
    buffer = device.alloc(1 << 20)
    with pytest.raises(SystemCallFailed):
        device.host_buffer(buffer.cpu_addr & -PAGE_BYTES, PAGE_BYTES, buffer)


def test_a_mapped_file_stays_the_files(device):
    with tempfile.TemporaryFile() as file:
        file.write(bytes(PAGE_BYTES))
        file.flush()
        memory = mmap.mmap(file.fileno(), PAGE_BYTES)
        try:
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            host = device.host_buffer(address, PAGE_BYTES, memory)
        except SystemCallFailed as error:
            assert error.errno == errno.EPERM  # the emulated board; Linux lets it
        else:
            del host
        memory[:5] = b"there"
        file.seek(0)
        assert file.read(5) == b"there"
