"""Pages of the program that the emulated board sees too."""

from __future__ import annotations

import os

import pytest

from drivers import open_device
from drivers.emulated.system import EmulatedSystem
from drivers.system import PAGE_BYTES
from test.drivers.emulated.kfd_client import Client, F
from test.drivers.emulated.test_collection import pages


@pytest.mark.parametrize(("name", "board"), [("NV", "sm_90"), ("AMD", "gfx1100")])
def test_a_forks_child_has_pages_of_its_own(name, board):
    memory, address = pages()
    memory[:5] = b"given"
    to_child, to_parent = os.pipe(), os.pipe()
    with open_device(name, system=EmulatedSystem(board)) as device:
        host = device.host_buffer(address, PAGE_BYTES, memory)
        child = os.fork()
        if not child:
            try:
                first = memory[:5]
                memory[:5] = b"child"
                os.write(to_parent[1], first)
                os.read(to_child[0], 1)  # until the parent has its pages back
                os.write(to_parent[1], memory[:5])
            finally:
                os._exit(0)
        try:
            assert os.read(to_parent[0], 5) == b"given"
            assert memory[:5] == b"given"
            host.storage.release()
            assert memory[:5] == b"given"
        finally:
            os.write(to_child[1], b"x")
            os.waitpid(child, 0)
        assert os.read(to_parent[0], 5) == b"child"
    for descriptor in (*to_child, *to_parent):
        os.close(descriptor)


def killed(system: EmulatedSystem) -> None:
    assert system.process is not None
    system.process.child.kill()
    system.process.child.wait()


@pytest.mark.parametrize("end", [killed, EmulatedSystem.shut_down])
@pytest.mark.parametrize(("name", "board"), [("NV", "sm_90"), ("AMD", "gfx1100")])
def test_pages_are_the_programs_again_when_the_board_has_gone(name, board, end):
    memory, address = pages()
    memory[:5] = b"given"
    system = EmulatedSystem(board)
    device = open_device(name, system=system)
    host = device.host_buffer(address, PAGE_BYTES, memory)
    assert "memfd" in mapped_at(address)
    end(system)
    device.close()
    assert "memfd" not in mapped_at(address)
    assert memory[:5] == b"given"
    assert host.size_bytes == PAGE_BYTES


def test_pages_are_the_programs_again_when_all_nodes_are_closed():
    memory, address = pages()
    memory[:5] = b"given"
    client = Client(EmulatedSystem("gfx1100"))
    client.call(
        "ALLOC_MEMORY_OF_GPU", va_addr=address, size=PAGE_BYTES, mmap_offset=address,
        flags=F["USERPTR"] | F["WRITABLE"],
        gpu_id=client.gpu_ids[0],
    )
    assert "memfd" in mapped_at(address)
    client.close()
    assert "memfd" not in mapped_at(address)
    assert memory[:5] == b"given"


def mapped_at(address: int) -> str:
    """The line of /proc/self/maps."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(number, 16) for number in line.split()[0].split("-"))
            if low <= address < high:
                return line
    raise AssertionError(f"nothing is mapped at {address:#x}")
