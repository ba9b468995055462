"""Every command of the queue API by itself and in chains."""

from __future__ import annotations

import math
import struct

import pytest

from compiler.dtype import dtypes
from drivers import Device, HardwareError, Var
from drivers.errors import ArgumentMismatch, DeviceHang, NotYetWritten
from test.drivers import kernels


def words(buffer) -> memoryview:
    return buffer.cpu_view().cast("q")


def filled(device: Device, values) -> object:
    values = list(values)
    buffer = device.alloc(8 * len(values))
    words(buffer)[:] = memoryview(struct.pack(f"{len(values)}q", *values)).cast("q")
    return buffer


def test_a_kernel_goes_through_ring_kick_and_point(device):
    out, given = device.alloc(800), filled(device, range(100))
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    point = queue.commands().exec(program, (out, given, 7), grid=(100, 1, 1)).submit()
    point.wait(timeout_ms=10_000)
    assert point.done
    assert list(words(out)) == [i + 7 for i in range(100)]


def test_chained_kernels_see_each_others_results(device):
    data = filled(device, [0] * 64)
    program = device.load(kernels.add_number(device.target))
    commands = device.compute_queue().commands()
    for _ in range(200):
        commands.exec(program, (data, data, 1), grid=(64, 1, 1))
    commands.submit().wait()
    assert list(words(data)) == [200] * 64


@pytest.mark.parametrize("grid", [(1, 1, 1), (7, 1, 1), (5, 3, 2), (1, 100, 3), (1000, 2, 1)])
def test_every_block_of_a_grid_runs_once(device, grid):
    x, y, z = grid
    out = filled(device, [0] * (x * y * z))
    program = device.load(kernels.count_block(device.target))
    queue = device.compute_queue()
    for _ in range(20):
        queue.commands().exec(program, (out, x, y), grid=grid).submit()
    device.synchronize()
    assert list(words(out)) == [20] * (x * y * z)


def test_queues_share_the_workers_without_losing_or_repeating_blocks(device):
    program = device.load(kernels.count_block(device.target))
    queues = [device.compute_queue() for _ in range(4)]
    outs = [filled(device, [0] * 97) for _ in queues]
    for turn in range(300):
        for queue, out in zip(queues, outs, strict=True):
            blocks = 1 + turn % 97
            queue.commands().exec(program, (out, blocks, 1), grid=(blocks, 1, 1)).submit()
    device.synchronize()
    expected = [sum(1 for turn in range(300) if 1 + turn % 97 > i) for i in range(97)]
    for out in outs:
        assert list(words(out)) == expected


def test_an_empty_grid_runs_nothing_and_its_point_comes(device):
    out = filled(device, [5])
    program = device.load(kernels.count_block(device.target))
    device.compute_queue().commands().exec(program, (out, 1, 1), grid=(0, 1, 1)).submit().wait()
    assert words(out)[0] == 5


def test_blocks_of_one_kernel_run_on_several_threads(processor):
    device = processor
    threads = device.target.threads
    if threads < 2:
        pytest.skip("the device has one thread")
    out = filled(device, [0])
    program = device.load(kernels.meet(device.target))
    queue = device.compute_queue()
    for _ in range(5):
        words(out)[0] = 0
        # Each block waits for all the others: one thread alone would never end.
        queue.commands().exec(program, (out, threads), grid=(threads, 1, 1)).submit().wait()
    assert words(out)[0] == threads


def test_a_kernel_has_not_finished_before_its_last_block(processor):
    device = processor
    if device.target.threads < 2:
        pytest.skip("the device has one thread")
    out = device.alloc(16)
    program = device.load(kernels.hold_one(device.target))
    queue = device.compute_queue()
    for turn in range(12):  # the held block is at times a worker's, at times the queue's own
        words(out)[:] = memoryview(bytes(16)).cast("q")
        point = queue.commands().exec(program, (out, 2, turn % 2), grid=(2, 1, 1)).submit()
        with pytest.raises(DeviceHang):
            point.wait(timeout_ms=10)
        words(out)[1] = 1
        point.wait()


def test_kernels_have_a_mebibyte_of_local_memory(processor):
    device = processor
    out = filled(device, [0] * 16)
    program = device.load(kernels.big_stack(device.target))
    device.compute_queue().commands().exec(program, (out,), grid=(16, 1, 1)).submit().wait()
    assert list(words(out)) == [42] * 16


def test_denormals_are_kept(device):
    out = device.alloc(8)
    program = device.load(kernels.multiply(device.target))
    queue = device.compute_queue()
    tiny = 2.0**-130
    queue.commands().exec(program, (out, tiny, 0.5), grid=(1, 1, 1)).submit().wait()
    assert out.cpu_view()[:4].cast("f")[0] == tiny / 2 != 0


@pytest.mark.parametrize(
    ("dtype", "form", "value"),
    [
        (dtypes.bool, "?", True), (dtypes.int8, "b", -128), (dtypes.uint8, "B", 255),
        (dtypes.int16, "h", -32768), (dtypes.uint16, "H", 65535), (dtypes.int32, "i", -(2**31)),
        (dtypes.uint32, "I", 2**32 - 1), (dtypes.int64, "q", -(2**63)),
        (dtypes.uint64, "Q", 2**64 - 1), (dtypes.float16, "e", -1.5),
        (dtypes.float32, "f", 3.25), (dtypes.float64, "d", math.pi),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@pytest.mark.parametrize("how", ["recorded", "submitted", "replayed"])
def test_scalars_of_every_type_arrive(device, dtype, form, value, how):
    out = device.alloc(8)
    program = device.load(kernels.keep(device.target, dtype))
    commands = device.compute_queue().commands()
    if how == "recorded":
        commands.exec(program, (out, value)).submit().wait()
    elif how == "submitted":
        commands.exec(program, (out, Var("v"))).submit(v=value).wait()
    else:
        commands.exec(program, (out, Var("v"))).bind().replay(v=value).wait()
    assert struct.unpack_from(form, out.cpu_view())[0] == value


def test_a_bfloat16_scalar_is_rounded_to_nearest(device):
    out = device.alloc(8)
    program = device.load(kernels.keep(device.target, dtypes.bfloat16))
    bound = device.compute_queue().commands().exec(program, (out, Var("v"))).bind()
    for value, bits in ((1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-2.5, 0xC020)):
        bound.replay(v=value).wait()
        assert struct.unpack_from("H", out.cpu_view())[0] == bits


def test_copies_between_views(device):
    source, target = filled(device, range(100)), filled(device, [0] * 100)
    queue = device.copy_queue()
    queue.commands().copy(target.view(80, 400), source.view(400, 400)).submit().wait()
    assert list(words(target)) == [0] * 10 + list(range(50, 100)) + [0] * 40


def test_a_large_copy(device):
    size = 5 << 20
    source, target = device.alloc(size), device.alloc(size)
    source.cpu_view()[:] = bytes(range(256)) * (size // 256)
    device.copy_queue().commands().copy(target, source).submit().wait()
    assert target.cpu_view() == source.cpu_view()


def test_timestamps_never_go_back(device):
    stamps = device.timestamps(50)
    out = filled(device, [0] * 32)
    program = device.load(kernels.add_number(device.target))
    commands = device.compute_queue().commands()
    for stamp in stamps:
        commands.timestamp(stamp).exec(program, (out, out, 1), grid=(32, 1, 1))
    commands.submit().wait()
    values = [stamp.value_ns for stamp in stamps]
    assert values == sorted(values)
    assert values[0] > 0


def test_a_timestamp_that_was_not_written_says_so(device):
    (stamp,) = device.timestamps(1)
    with pytest.raises(NotYetWritten, match="has not been written"):
        _ = stamp.value_ns


@pytest.mark.parametrize("size", [4, 8])
def test_write_and_poll_agree_across_queues(device, size):
    flag = filled(device, [0])
    first, second = device.compute_queue(), device.copy_queue()
    held = first.commands().poll(flag, 3, "==", size_bytes=size).submit()
    reached = first.commands().poll(flag, 2, size_bytes=size).submit()
    assert not held.done
    second.commands().write(flag, 3, size_bytes=size).submit().wait()
    held.wait()
    reached.wait()
    assert words(flag)[0] == 3


def test_a_4_byte_write_leaves_the_neighbour_alone(device):
    word = filled(device, [-1])
    device.compute_queue().commands().write(word, 0, size_bytes=4).submit().wait()
    assert word.cpu_view() == bytes(4) + b"\xff" * 4


def test_signal_marks_the_middle_of_a_list(device):
    flag, marks = filled(device, [0]), device.timeline("marks")
    commands = device.compute_queue().commands()
    whole = commands.signal(marks.point(5)).poll(flag, 1).signal(marks.point(6)).submit()
    marks.point(5).wait()
    assert not marks.point(6).done
    assert not whole.done
    words(flag)[0] = 1
    whole.wait()
    assert marks.value == 6


def test_a_recorder_may_be_submitted_many_times_and_by_many_threads(device):
    import threading

    out = filled(device, [0])
    program = device.load(kernels.count_block(device.target))
    queue = device.compute_queue(ring_records=16)
    commands = queue.commands().exec(program, (out, 1, 1), grid=(1, 1, 1))
    bound = commands.bind()

    def work() -> None:
        for _ in range(300):
            commands.submit()
            bound.replay()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    device.synchronize()
    assert words(out)[0] == 2400


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (lambda c, p, b: c.exec(p, (b, b)), "takes 3 arguments .* 2 were given"),
        (lambda c, p, b: c.exec(p, (b, 4096, 1)), "in of kernel add_number takes a Buffer"),
        (lambda c, p, b: c.exec(p, (b, b, 1.5)), "takes an integer of type int64, not 1.5"),
        (lambda c, p, b: c.exec(p, (b, b, 2**63)), "takes an integer of type int64"),
        (lambda c, p, b: c.exec(p, (b, b, 1), grid=(1, 1)), "three sizes"),
        (lambda c, p, b: c.exec(p, (b, b, 1), grid=(1, 65536, 1)), "65536, beyond 0 to 65535"),
        (lambda c, p, b: c.exec(p, (b, b, 1), grid=(-1, 1, 1)), "-1, beyond 0"),
        (lambda c, p, b: c.exec("program", ()), "a Program made by dev.load, not 'program'"),
        (lambda c, p, b: c.copy(b, b, 65), "65 bytes does not fit .* 64 bytes"),
        (lambda c, p, b: c.copy(b, Var("x")), "needs a size"),
        (lambda c, p, b: c.write(b, 2**32, size_bytes=4), "cannot hold 4294967296"),
        (lambda c, p, b: c.write(b.view(4), 1), "aligned"),
        (lambda c, p, b: c.write(b, 1, size_bytes=2), "4 or 8 bytes, not 2"),
        (lambda c, p, b: c.poll(b, 1, "<"), "not '<'"),
        (lambda c, p, b: c.wait(3), "Point or a Var, not 3"),
        (lambda c, p, b: c.timestamp(b), "dev.timestamps"),
        (lambda c, p, b: b.view(60, 8), "8 bytes at 60 does not fit .* 64 bytes"),
        (lambda c, p, b: b.view(-1), "does not fit"),
    ],
)
def test_a_wrong_command_is_refused_when_it_is_recorded(device, record, sentence):
    program = device.load(kernels.add_number(device.target))
    with pytest.raises(ArgumentMismatch, match=sentence) as caught:
        record(device.compute_queue().commands(), program, device.alloc(64))
    assert isinstance(caught.value, HardwareError)
    assert str(caught.value).rstrip().endswith(".")


def test_a_queues_own_timeline_cannot_be_signalled_by_commands(device):
    queue = device.compute_queue()
    with pytest.raises(ArgumentMismatch, match="belongs to a queue"):
        queue.commands().signal(queue.timeline.point(9))
