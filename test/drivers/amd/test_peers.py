"""GPUs that work on each other's memory and wait for each other, without the host in between."""

from __future__ import annotations

import errno
import gc
import os

import pytest

from drivers import Var, open_device
from drivers.emulated.system import EmulatedSystem
from drivers.errors import ArgumentMismatch, DeviceHang
from drivers.system import StackedSystem
from test.drivers import kernels


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    if not os.path.exists("/dev/kfd") and "EMULATE" not in os.environ:
        monkeypatch.setenv("EMULATE", "gfx1100*4")


@pytest.fixture
def near():
    with open_device("AMD:0", timeout_ms=10_000) as opened:
        yield opened


@pytest.fixture
def far():
    with open_device("AMD:1", timeout_ms=10_000) as opened:
        yield opened


def words(buffer):
    return buffer.cpu_view().cast("q")


def filled(device, *values):
    buffer = device.alloc(8 * len(values))
    words(buffer)[:] = memoryview(b"".join(v.to_bytes(8, "little") for v in values)).cast("q")
    return buffer


@pytest.mark.parametrize("kind", ["compute_queue", "copy_queue"])
def test_copies_go_to_and_from_a_peer(near, far, kind):
    here, there, back = filled(near, 1, 2, 3), filled(far, 0, 0, 0), filled(near, 0, 0, 0)
    queue = getattr(near, kind)()
    queue.commands().copy(there, here).barrier().copy(back, there).submit().wait()
    assert list(words(there)) == list(words(back)) == [1, 2, 3]


@pytest.mark.parametrize("size", [4096, 3 << 20])  # a block of a chunk, and one of its own
def test_a_kernel_reads_and_writes_a_peers_memory(near, far, size):
    given, result = far.alloc(size), far.alloc(size)
    words(given)[0] = 41
    program = near.load(kernels.add_number(near.target))
    near.compute_queue().commands().exec(program, (result, given, 1), (1, 1, 1)).submit().wait()
    assert words(result)[0] == 42


def test_a_replay_takes_a_peers_buffers(near, far):
    program = near.load(kernels.add_number(near.target))
    here = filled(near, 0)
    commands = near.compute_queue().commands().exec(program, (here, Var("from"), 5), (1, 1, 1))
    bound = commands.bind()
    for owner, value in ((near, 1), (far, 20), (near, 300), (far, 4000)):
        bound.replay(**{"from": filled(owner, value)}).wait()
        assert words(here)[0] == value + 5


def test_words_of_a_peer_are_written_and_polled(near, far):
    flag, answer = filled(far, 0), filled(far, 0)
    waiting = near.compute_queue().commands().poll(flag, 7).write(answer, 8).submit()
    far.copy_queue().commands().write(flag, 7).submit()
    waiting.wait()
    assert words(answer)[0] == 8


@pytest.mark.parametrize("start", [0, 2**32 - 5, 2**40])
def test_queues_of_two_gpus_take_turns(near, far, start):
    value = filled(far, 0)
    programs = [device.load(kernels.add_number(device.target)) for device in (near, far)]
    queues = [device.compute_queue(initial_value=start) for device in (near, far)]
    copies = near.copy_queue(initial_value=start)
    between = filled(near, 0)
    point = queues[1].commands().barrier().submit()
    for turn in range(12):
        commands = queues[turn % 2].commands().wait(point)
        point = commands.exec(programs[turn % 2], (value, value, 1), (1, 1, 1)).submit()
        if turn % 3 == 0:  # there and back
            point = copies.commands().wait(point).copy(between, value).copy(value, between).submit()
    point.wait()
    assert words(value)[0] == 12


def test_a_gpu_signals_a_peers_timeline_and_the_host_wakes(near, far):
    moment = far.timeline("moment")
    gate = near.timeline("gate")
    for turn, queue in enumerate((near.compute_queue(), near.copy_queue()), 1):
        queue.commands().wait(gate.point(turn)).signal(moment.point(turn)).submit()
        with pytest.raises(DeviceHang):
            moment.wait(turn, timeout_ms=1)
        gate.signal(turn)
        moment.wait(turn)


def test_freed_memory_leaves_all_page_tables(near, far):
    def room():
        gc.collect()
        far.trim()
        return far.kfd.available_bytes(far.node.gpu_id)

    queue = near.copy_queue()
    here = filled(near, 9)
    queue.commands().copy(here, here).submit().wait()
    before = room()
    for _ in range(3):
        there = far.alloc(8 << 20)
        point = queue.commands().copy(there.view(0, 8), here).submit()
        del there
        point.wait()
        assert room() == before


def test_a_closed_peers_timeline_can_still_be_looked_at(near):
    with open_device("AMD:1") as far:
        gate, last = near.timeline("gate"), far.timeline("last")
        held = near.compute_queue().commands().wait(gate.point(1)).wait(last.point(1)).submit()
        far.compute_queue().commands().signal(last.point(1)).submit().wait()
    result = filled(near, 0)
    after = near.compute_queue().commands().wait(held).wait(last.point(1)).write(result, 3).submit()
    gate.signal(1)
    after.wait()
    assert words(result)[0] == 3


def test_a_closed_peers_buffer_is_still_there(near):
    with open_device("AMD:1") as far:
        there = filled(far, 5)
    here = filled(near, 0)
    near.copy_queue().commands().copy(here, there).submit().wait()
    assert words(here)[0] == 5


class NoLinks(StackedSystem):
    """A machine whose bus shows no GPU to another."""

    def open(self, path, flags):
        if "/p2p_links/" in path:
            raise FileNotFoundError(errno.ENOENT, path)
        return super().open(path, flags)


def test_memory_beyond_reach_is_refused_with_a_remedy(near, far):
    buffer = near.alloc(8)
    assert far.reaches(buffer)
    board = EmulatedSystem("gfx1100*2")
    system = NoLinks(board)
    with open_device("AMD:0", system=system) as one, open_device("AMD:1", system=system) as other:
        for foreign in (one.alloc(8), buffer):  # the second is another kernel driver's
            assert not other.reaches(foreign)
            commands = other.copy_queue().commands().copy(other.alloc(8), foreign)
            with pytest.raises(ArgumentMismatch, match="nor of a device whose memory it"):
                commands.submit()
        point = one.compute_queue().commands().barrier().submit()
        other.compute_queue().commands().wait(point).submit().wait()  # timelines are in the host's
    board.shut_down()
