"""Points and timelines: across queues and devices, late, out of order, beyond 2^32, never."""

from __future__ import annotations

import threading
import time

import pytest

from drivers import Point, Var, open_device
from drivers.errors import ArgumentMismatch, DeviceHang
from test.drivers import kernels


def test_a_queue_waits_for_another_queues_point(device):
    data = device.alloc(8)
    values = data.cpu_view().cast("q")
    values[0] = 0
    program = device.load(kernels.add_number(device.target))
    queues = [device.compute_queue() for _ in range(3)]
    point = None
    for turn in range(300):
        commands = queues[turn % 3].commands()
        if point is not None:
            commands.wait(point)
        point = commands.exec(program, (data, data, 1), grid=(1, 1, 1)).submit()
    point.wait()
    assert values[0] == 300


@pytest.mark.parametrize("other_name", ["LLVM:7"])
def test_a_queue_waits_for_another_devices_point(device, other_name):
    with open_device(other_name) as other:
        data = device.alloc(8)
        values = data.cpu_view().cast("q")
        values[0] = 0
        programs = [each.load(kernels.add_number(each.target)) for each in (device, other)]
        queues = [device.compute_queue(), other.compute_queue()]
        point = None
        for turn in range(100):
            commands = queues[turn % 2].commands()
            if point is not None:
                commands.wait(point)
            commands.exec(programs[turn % 2], (data, data, 1), grid=(1, 1, 1))
            point = commands.submit()
        point.wait()
        assert values[0] == 100


def test_waiting_for_a_late_point_does_not_block_the_submitter(device):
    late = device.timeline("late")
    data = device.alloc(8)
    values = data.cpu_view().cast("q")
    values[0] = 1
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    points = [
        queue.commands().wait(late.point(i)).exec(program, (data, data, i), (1, 1, 1)).submit()
        for i in range(1, 4)
    ]
    assert not any(point.done for point in points)
    assert values[0] == 1
    late.signal(2)
    points[1].wait()
    assert not points[2].done
    assert values[0] == 4
    late.signal(3)
    points[2].wait()
    assert values[0] == 7


def test_queues_overlap(device):
    flags = device.alloc(16)
    flags.cpu_view().cast("Q")[0] = flags.cpu_view().cast("Q")[1] = 0
    a, b = flags.view(0, 8), flags.view(8, 8)
    # Each needs a write of the other in the middle of its list: in turn they would never end.
    first = device.compute_queue().commands().write(a, 1).poll(b, 1).submit()
    second = device.compute_queue().commands().write(b, 1).poll(a, 1).submit()
    first.wait()
    second.wait()


def test_queues_retire_out_of_order(device):
    late = device.timeline()
    first = device.compute_queue().commands().wait(late.point(1)).submit()
    queue = device.compute_queue()
    for _ in range(10):
        queue.commands().barrier().submit().wait()
    assert not first.done
    late.signal(1)
    first.wait()
    assert first.done


def test_later_points_of_a_queue_imply_the_earlier_ones(device):
    queue = device.compute_queue()
    points = [queue.commands().barrier().submit() for _ in range(20)]
    points[-1].wait()
    assert all(point.done for point in points)
    assert [point.value for point in points] == list(range(1, 21))


@pytest.mark.parametrize("start", [2**31 - 5, 2**32 - 5, 2**53 - 5, 2**62])
def test_timelines_go_past_every_power_of_two(device, start):
    data = device.alloc(8)
    values = data.cpu_view().cast("q")
    values[0] = 0
    program = device.load(kernels.add_number(device.target))
    first = device.compute_queue(initial_value=start)
    second = device.compute_queue()
    bound = first.commands().exec(program, (data, data, Var("n")), grid=(1, 1, 1)).bind()
    for turn in range(1, 13):
        point = bound.replay(n=1)
        assert point.value == start + turn
        seen = second.commands().wait(point).submit()
        seen.wait()
        assert point.done
    assert values[0] == 12
    assert not Point(first.timeline, start + 13).done


def test_a_timeline_compares_64_bits_not_32(device):
    host = device.timeline(initial=2**32)
    assert host.point(5).done
    assert not host.point(2**32 + 1).done
    assert not device.timeline(initial=5).point(2**32 + 1).done
    held = device.compute_queue().commands().wait(host.point(2**32 + 1)).submit()
    assert not held.done
    host.signal(2**32 + 1)
    held.wait()


def test_a_timeline_never_goes_back(device):
    host = device.timeline()
    host.signal(10)
    host.signal(3)
    assert host.value == 10


def test_many_threads_wait_for_one_point(device):
    late = device.timeline()
    point = device.compute_queue().commands().wait(late.point(1)).submit()
    seen = []

    def work() -> None:
        point.wait()
        seen.append(point.done)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    late.signal(1)
    for thread in threads:
        thread.join()
    assert seen == [True] * 8


def test_a_sleeping_waiter_is_woken_by_the_signal_not_by_its_deadline(device):
    from drivers.native.image import native

    for turn in range(20):
        timeline, results = device.timeline(), []

        def work(timeline=timeline, results=results) -> None:
            results.append(native().wait(timeline.address, 1, 60 * 10**9))

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.0001 * turn)
        timeline.signal(1)
        thread.join(timeout=20)
        assert results == [1]


def test_a_wait_leaves_other_python_threads_running(device):
    late = device.timeline()
    point = device.compute_queue().commands().wait(late.point(1)).submit()
    signaller = threading.Timer(0.05, lambda: late.signal(1))
    signaller.start()
    point.wait()  # never, if the waiting thread kept the GIL
    signaller.join()


def test_a_hang_names_device_queue_kernel_and_timeline(device):
    never = device.timeline("never")
    never.signal(3)
    data = device.alloc(8)
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue("training", initial_value=400)
    queue.commands().wait(never.point(9)).exec(program, (data, data, 1), (1, 1, 1)).submit()
    point = queue.commands().barrier().submit()
    start = time.monotonic()
    with pytest.raises(DeviceHang) as caught:
        point.wait(timeout_ms=60)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    for part in (
        device.name, "queue training", "kernel add_number", "did not reach 402",
        "timeline 400 of 402", "timeline never to reach 9", "(it is at 3)", "read pointer",
        "write pointer", "0.06 s",
    ):
        assert part in message, message
    assert caught.value.code == "HW202"
    assert caught.value.device == device.name
    never.signal(9)
    point.wait()


def test_a_hang_inside_a_bound_list_names_the_kernel_after_the_wait(device):
    never = device.timeline("never")
    data = device.alloc(8)
    first = device.load(kernels.add_number(device.target))
    second = device.load(kernels.multiply(device.target))
    commands = device.compute_queue().commands().exec(first, (data, data, 1), (1, 1, 1))
    bound = commands.wait(Var("p")).exec(second, (data, 1.0, 2.0), (1, 1, 1)).bind()
    point = bound.replay(p=never.point(1))
    with pytest.raises(DeviceHang, match=r"kernel multiply(, dispatch 2)? is the next"):
        point.wait(timeout_ms=50)
    never.signal(1)
    point.wait()


def test_a_host_timeline_that_nobody_signals_hangs_with_a_sentence(device):
    host = device.timeline("mine")
    with pytest.raises(DeviceHang, match=r"timeline mine did not reach 1 within 0.01 s.*at 0"):
        host.point(1).wait(timeout_ms=10)


def test_the_devices_own_timeout_is_the_default(opened):
    device = opened(timeout_ms=20)
    with pytest.raises(DeviceHang, match=r"within 0.02 s"):
        device.timeline().point(1).wait()


def test_work_that_gets_on_is_no_hang(device):
    host = device.timeline()
    steps = iter(range(30))
    host.progress = lambda: next(steps, 30)
    host.timeout_ms = 1
    with pytest.raises(DeviceHang):
        host.point(1).wait()
    assert next(steps, None) is None  # it was patient until progress ended
    host.progress = lambda: pytest.fail("a deadline that was given is a deadline")
    with pytest.raises(DeviceHang):
        host.point(1).wait(timeout_ms=1)


def test_a_point_outlives_its_device(device_name):
    with open_device(device_name) as device:
        queue = device.compute_queue()
        point = queue.commands().barrier().submit()
        never = device.timeline().point(1)
        held = queue.commands().wait(never).submit()
    assert point.done
    point.wait()
    start = time.monotonic()
    with pytest.raises(DeviceHang, match=r"closed|gone"):
        held.wait()
    assert time.monotonic() - start < 10  # not its whole default of 30 s


@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_point_beyond_63_bits_is_refused(device, value):
    with pytest.raises(ArgumentMismatch, match="2\\^63"):
        device.timeline().point(value)
