"""Two NVIDIA GPUs that work on each other's memory and wait for each other."""

from __future__ import annotations

import gc
import os

import pytest

from compiler import nvrtc
from drivers import Var, open_device
from drivers.emulated.system import EmulatedSystem
from drivers.errors import ArgumentMismatch
from drivers.system import StackedSystem
from test.drivers import kernels


@pytest.fixture
def pair(monkeypatch):
    if not os.path.exists("/dev/nvidia1") and "EMULATE" not in os.environ:
        monkeypatch.setenv("EMULATE", "sm_90*2")
    with open_device("NV:0") as near, open_device("NV:1") as far:
        yield near, far


def words(buffer):
    return buffer.cpu_view().cast("Q")


def filled(device, value: int):
    buffer = device.alloc(8)
    words(buffer)[0] = value
    return buffer


@pytest.mark.parametrize("size", [4096, 3 << 20])  # a block of a chunk, and one of its own
def test_copies_go_to_and_from_a_peer(pair, size):
    near, far = pair
    here, there, back = near.alloc(size), far.alloc(size), near.alloc(size)
    here.cpu_view()[:] = bytes(range(256)) * (size // 256)
    commands = near.compute_queue().commands().copy(there, here).copy(back, there)
    commands.submit().wait()
    assert there.cpu_view() == here.cpu_view() == back.cpu_view()


def test_words_of_a_peer_are_written_and_polled_and_replayed(pair):
    near, far = pair
    flag, answer, seen = filled(far, 0), filled(far, 0), filled(near, 0)
    bound = near.compute_queue().commands().poll(flag, Var("v")).write(answer, Var("v")).bind()
    for value in (7, 1 << 40):
        waiting = bound.replay(v=value)
        assert not waiting.done
        far.copy_queue().commands().write(flag, value).submit()
        waiting.wait()
        assert words(answer)[0] == value
    near.copy_queue().commands().copy(seen, answer).submit().wait()
    assert words(seen)[0] == 1 << 40


@pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
def test_a_replays_buffer_may_be_a_peers_but_not_what_nobody_reaches(pair):
    near, far = pair
    program = near.load(kernels.add_number(near.target))
    commands = near.compute_queue().commands()
    bound = commands.exec(program, (Var("out"), filled(near, 7), 5), (1, 1, 1)).bind()
    there = filled(far, 0)
    bound.replay(out=there).wait()
    assert words(there)[0] == 12
    with open_device("LLVM") as processor:
        with pytest.raises(ArgumentMismatch, match="is not memory of NV:0"):
            bound.replay(out=processor.alloc(8))
    with pytest.raises(ArgumentMismatch, match="The Var 'out' takes a Buffer"):
        bound.replay(out=8)
    bound.replay(out=there).wait()


def test_queues_of_two_gpus_take_turns(pair):
    near, far = pair
    buffers = [filled(near, 5), filled(far, 0)]
    queues = [near.compute_queue(), far.copy_queue(initial_value=1 << 40)]
    moment = far.timeline("moment")
    point = queues[1].commands().barrier().submit()
    for turn in range(10):
        source, target = buffers[turn % 2], buffers[1 - turn % 2]
        commands = queues[turn % 2].commands().wait(point).copy(target, source)
        point = commands.signal(moment.point(turn + 1)).submit()
    point.wait()
    assert words(buffers[0])[0] == words(buffers[1])[0] == 5 and moment.value == 10


def test_freed_memory_leaves_all_page_tables(pair):
    near, far = pair
    here, queue = filled(near, 9), near.copy_queue()
    queue.commands().copy(here, filled(far, 1)).submit().wait()

    def room():
        gc.collect()
        far.trim()
        return far.gpu.memory_bytes()[1]

    before = room()
    for _ in range(3):
        there = far.alloc(8 << 20)
        point = queue.commands().copy(there.view(0, 8), here).submit()
        del there
        point.wait()
        assert room() == before


def test_a_closed_peers_timeline_can_still_be_looked_at(pair):
    near, _ = pair
    with open_device("NV:1") as other:
        gate, last = near.timeline("gate"), other.timeline("last")
        held = near.compute_queue().commands().wait(gate.point(1)).wait(last.point(1)).submit()
        other.compute_queue().commands().signal(last.point(1)).submit().wait()
    gate.signal(1)
    held.wait()


class NoLink(StackedSystem):
    """GPUs that no link joins: UVM_ENABLE_PEER_ACCESS (29) fails."""

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        if request == 29:
            raise OSError(22, "no link")
        return super().ioctl(descriptor, request, argument)


def test_without_a_link_a_peers_buffer_is_refused():
    system = NoLink(EmulatedSystem("sm_89*2"))
    with open_device("NV:0", system=system) as near, open_device("NV:1", system=system) as far:
        here, there = filled(near, 1), filled(far, 2)
        with pytest.raises(ArgumentMismatch, match="nor of a device whose memory it reaches"):
            near.copy_queue().commands().copy(here, there).submit()
        gate = far.timeline("gate")
        point = near.copy_queue().commands().wait(gate.point(1)).write(here, 3).submit()
        gate.signal(1)
        point.wait()
        assert words(here)[0] == 3
