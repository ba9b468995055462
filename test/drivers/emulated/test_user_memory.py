"""Pages of the program that the emulated board sees too."""

from __future__ import annotations

import os

import pytest

from drivers import open_device
from drivers.emulated.system import EmulatedSystem
from drivers.system import PAGE_BYTES
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
