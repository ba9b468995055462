"""Rings: a thousand wraps, packets across the end, full rings, lists longer than the ring."""

from __future__ import annotations

import threading

import pytest

from drivers import Var
from drivers.errors import ArgumentMismatch, DeviceHang, QueueLimit
from test.drivers import kernels


def words(buffer):
    return buffer.cpu_view().cast("q")


@pytest.mark.parametrize("records", [2, 8])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_thousand_wraps_with_lists_across_the_end(device, records, length):
    out = device.alloc(8)
    words(out)[0] = 0
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue(ring_records=records)
    commands = queue.commands()
    for _ in range(length):
        commands.exec(program, (out, out, 1), (1, 1, 1))
    turns = 1000 * records // (length + 1) + 1
    for _ in range(turns):
        point = commands.submit()
    point.wait()
    assert words(out)[0] == turns * length
    assert point.value == turns


def test_the_ring_of_a_copy_queue_wraps_a_thousand_times(device):
    turns, data = 4000, device.alloc(16)
    commands = device.copy_queue(ring_records=4).commands()
    bound = commands.write(data.view(0, 8), Var("n")).copy(data.view(8, 8), data.view(0, 8)).bind()
    for turn in range(1, turns + 1):
        point = bound.replay(n=turn)
    point.wait()
    assert list(words(data)) == [turns, turns]
    assert point.value == turns


def test_a_list_longer_than_the_ring(device):
    out = device.alloc(8)
    words(out)[0] = 0
    program = device.load(kernels.add_number(device.target))
    commands = device.compute_queue(ring_records=4).commands()
    for _ in range(1000):
        commands.exec(program, (out, out, Var("n")), (1, 1, 1))
    for n in range(5):
        point = commands.submit(n=n)
    point.wait()
    assert words(out)[0] == 10_000


def test_a_full_ring_blocks_until_the_deadline_and_then_works_again(opened):
    device = opened(timeout_ms=80)
    gate = device.timeline("gate")
    queue = device.compute_queue(ring_records=8)
    commands = queue.commands().wait(gate.point(1))
    accepted = 0
    with pytest.raises(DeviceHang, match=r"made no room for new commands within 0\.08 s"):
        for _ in range(100):
            point = commands.submit()
            accepted += 1
    assert accepted == (4 if device.target.is_cpu else 8)  # two records each, or one entry
    gate.signal(1)
    point.wait()
    assert commands.submit().value == accepted + 1
    device.synchronize()


def test_a_full_ring_blocks_the_submitter_until_there_is_room(device):
    gate, out = device.timeline("gate"), device.alloc(8)
    words(out)[0] = 0
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue(ring_records=4)
    queue.commands().wait(gate.point(1)).submit()
    commands = queue.commands().exec(program, (out, out, 1), (1, 1, 1))
    bound = commands.bind()

    def work() -> None:
        for _ in range(100):
            commands.submit()
            bound.replay()

    thread = threading.Thread(target=work)
    thread.start()
    gate.signal(1)
    thread.join()
    device.synchronize()
    assert words(out)[0] == 200


@pytest.mark.parametrize("records", [0, 1, 3, 1000, 1 << 21])
def test_ring_sizes_are_powers_of_two(device, records):
    with pytest.raises(ArgumentMismatch, match=f"2 to 2\\^20, not {records}"):
        device.compute_queue(ring_records=records)


def test_a_device_has_a_limited_number_of_queues_and_gets_them_back(device):
    queues = [device.copy_queue() for _ in range(device.features.queues)]
    with pytest.raises(QueueLimit, match=f"{device.features.queues} queues open"):
        device.copy_queue()
    for queue in queues:
        queue.commands().barrier().submit()
    queues[5].close()
    queue = device.copy_queue()
    queue.commands().barrier().submit().wait()
    device.synchronize()


def test_a_million_records_leave_no_error(device):
    out = device.alloc(8)
    words(out)[0] = 0
    program = device.load(kernels.add_number(device.target))
    commands = device.compute_queue().commands()
    for _ in range(1000):
        commands.exec(program, (out, out, 1), (1, 1, 1))
    bound = commands.bind()
    turns = 1000 if device.target.is_cpu else 20  # an emulated dispatch takes 90 us
    for _ in range(turns):
        point = bound.replay()
    point.wait()
    assert words(out)[0] == 1000 * turns
