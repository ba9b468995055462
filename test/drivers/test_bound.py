"""Bound lists: Vars of every kind, arguments in flight, errors, and what replays leave behind."""

from __future__ import annotations

import itertools
import os
import threading

import pytest

from drivers import Var
from drivers.errors import ArgumentMismatch, DeviceHang, HardwareError, MissingVariable
from test.drivers import kernels


def words(buffer):
    return buffer.cpu_view().cast("q")


def test_vars_in_arguments_and_grid(device):
    out, given = device.alloc(8 * 64), device.alloc(8 * 64)
    words(given)[:] = memoryview(bytes(8 * 64)).cast("q")
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    bound = queue.commands().exec(program, (out, given, Var("n")), (Var("g"), 1, 1)).bind()
    assert sorted(bound.names) == ["g", "n"]
    for turn in range(1, 60):
        words(out)[:] = memoryview(b"\xff" * 8 * 64).cast("q")
        bound.replay(n=turn, g=turn).wait()
        assert list(words(out)) == [turn] * turn + [-1] * (64 - turn)


def test_all_three_grid_sizes_may_be_vars(device):
    out = device.alloc(8 * 24)
    words(out)[:] = memoryview(bytes(8 * 24)).cast("q")
    program = device.load(kernels.count_block(device.target))
    commands = device.compute_queue().commands()
    commands.exec(program, (out, Var("x"), Var("y")), (Var("x"), Var("y"), Var("z")))
    bound = commands.bind()
    for x, y, z in ((4, 3, 2), (1, 24, 1), (24, 1, 1), (2, 2, 6), (0, 5, 5)):
        bound.replay(x=x, y=y, z=z).wait()
    assert list(words(out)) == [4] * 24


def test_vars_for_buffers(device):
    buffers = [device.alloc(8) for _ in range(10)]
    for buffer in buffers:
        words(buffer)[0] = 0
    program = device.load(kernels.add_number(device.target))
    commands = device.compute_queue().commands()
    bound = commands.exec(program, (Var("out"), Var("in"), 1), (1, 1, 1)).bind()
    for before, after in itertools.pairwise(buffers):
        point = bound.replay(**{"out": after, "in": before})
    point.wait()
    assert [words(buffer)[0] for buffer in buffers] == list(range(10))


def test_vars_in_copies(device):
    source, target = device.alloc(256), device.alloc(256)
    source.cpu_view()[:] = bytes(range(256))
    commands = device.copy_queue().commands()
    bound = commands.copy(Var("to"), Var("from"), Var("size")).bind()
    for size in (0, 1, 7, 256):
        target.cpu_view()[:] = bytes(256)
        bound.replay(**{"to": target, "from": source, "size": size}).wait()
        assert target.cpu_view() == bytes(range(size)) + bytes(256 - size)


def test_vars_in_writes_and_polls(device):
    memory = device.alloc(16)
    a, b = memory.view(0, 8), memory.view(8, 8)
    memory.cpu_view()[:] = bytes(16)
    queue = device.compute_queue()
    bound = queue.commands().write(a, Var("v")).poll(b, Var("w")).bind()
    if getattr(queue, "wait_bits", 64) == 64:
        values = (3, 2**63 + 1, 2**64 - 1)
    else:
        values = (3, 2**31 + 1, 2**32 - 1)
        with pytest.raises(ArgumentMismatch, match=f"w is {2**32}, but the value of poll"):
            bound.replay(v=1, w=2**32)
    for value in values:
        point = bound.replay(v=value, w=value)
        assert not point.done
        device.copy_queue().commands().write(b, value).submit()
        point.wait()
        assert memory.cpu_view().cast("Q")[0] == value


def test_vars_for_points(device):
    gates = [device.timeline(f"gate {i}") for i in range(3)]
    marks = device.timeline("marks")
    bound = device.compute_queue().commands().wait(Var("gate")).signal(Var("mark")).bind()
    points = [
        bound.replay(gate=gate.point(1), mark=marks.point(i + 1)) for i, gate in enumerate(gates)
    ]
    for turn, gate in enumerate(gates):
        assert not points[turn].done
        assert marks.value == turn
        gate.signal(1)
        points[turn].wait()
    assert marks.value == 3


def test_one_var_in_several_places_and_types(device):
    out = device.alloc(8 * 8)
    words(out)[:] = memoryview(bytes(64)).cast("q")
    add = device.load(kernels.add_number(device.target))
    multiply = device.load(kernels.multiply(device.target))
    product = device.alloc(8)
    commands = device.compute_queue().commands()
    commands.exec(add, (out, out, Var("n")), (Var("n"), 1, 1))
    commands.exec(multiply, (product, Var("n"), 0.5)).copy(out.view(56), out, Var("n"))
    commands.bind().replay(n=3).wait()
    assert list(words(out))[:3] == [3, 3, 3]
    assert out.cpu_view()[56:59] == bytes([3, 0, 0])
    assert product.cpu_view()[:4].cast("f")[0] == 1.5


def test_replay_does_not_overwrite_arguments_in_flight(opened):
    device = opened(timeout_ms=2000)
    gate, out = device.timeline("gate"), device.alloc(8 * 100)
    words(out)[:] = memoryview(bytes(800)).cast("q")
    program = device.load(kernels.store_at(device.target))
    queue = device.compute_queue()
    queue.commands().wait(gate.point(1)).submit()
    bound = queue.commands().exec(program, (out, Var("i"), Var("v")), (1, 1, 1)).bind()
    accepted = 0
    # Nothing of it can run yet, so replays must stop where the argument blocks are used up.
    with pytest.raises(DeviceHang, match=r"made no room .* timeline gate to reach 1"):
        for i in range(100):
            point = bound.replay(i=i, v=1000 + i)
            accepted += 1
    assert 1 <= accepted < 100
    gate.signal(1)
    point.wait()
    expected = [1000 + i if i < accepted else 0 for i in range(100)]
    assert list(words(out)) == expected
    for i in range(100):
        point = bound.replay(i=i, v=i)
    point.wait()
    assert list(words(out)) == list(range(100))


def test_a_blocked_replay_goes_on_when_the_queue_does(device):
    gate, out = device.timeline("gate"), device.alloc(8 * 50)
    program = device.load(kernels.store_at(device.target))
    commands = device.compute_queue().commands().wait(gate.point(1))
    bound = commands.exec(program, (out, Var("i"), Var("i")), (1, 1, 1)).bind()
    points = []

    def work() -> None:
        for i in range(50):
            points.append(bound.replay(i=i))

    thread = threading.Thread(target=work)
    thread.start()
    gate.signal(1)
    thread.join()
    points[-1].wait()
    assert list(words(out)) == list(range(50))


def test_a_bound_list_may_be_dropped_in_flight(device):
    gate, out = device.timeline(), device.alloc(8)
    words(out)[0] = 0
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    commands = queue.commands().wait(gate.point(1))
    point = commands.exec(program, (out, out, Var("n")), (1, 1, 1)).bind().replay(n=41)
    del commands, program
    for _ in range(50):  # would reuse its memory, were it free
        device.alloc(1024).cpu_view()[:] = b"\xee" * 1024
    gate.signal(1)
    point.wait()
    assert words(out)[0] == 41


@pytest.mark.parametrize(
    ("given", "kind", "sentence"),
    [
        ({"n": 1}, MissingVariable, "No value was given for the Var 'g'; this list has: g, n"),
        ({}, MissingVariable, "'n'|'g'"),
        ({"n": 1, "g": 1, "extra": 2}, MissingVariable, "no Var 'extra'"),
        ({"n": 1, "G": 1}, MissingVariable, "'g'"),
        ({"n": 1.5, "g": 1}, ArgumentMismatch, "'n' takes an integer .* not 1.5"),
        ({"n": 2**63, "g": 1}, ArgumentMismatch, "'n' takes an integer"),
        ({"n": None, "g": 1}, ArgumentMismatch, "'n' .* None"),
        ({"n": 1, "g": 2**31}, ArgumentMismatch, "g is 2147483648, but grid x .* to 2147483647"),
        ({"n": 1, "g": -1}, ArgumentMismatch, "g is -1"),
        ({"n": 1, "g": "4"}, ArgumentMismatch, "'g' .* '4'"),
    ],
)
@pytest.mark.parametrize("how", ["bound", "submitted"])
def test_wrong_values_are_named_and_run_nothing(device, given, kind, sentence, how):
    out = device.alloc(8)
    words(out)[0] = 0
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    commands = queue.commands().exec(program, (out, out, Var("n")), (Var("g"), 1, 1))
    bound = commands.bind()
    call = bound.replay if how == "bound" else commands.submit
    with pytest.raises(kind, match=sentence) as caught:
        call(**given)
    assert isinstance(caught.value, HardwareError)
    assert caught.value.device == device.name
    call(n=5, g=1).wait()
    assert words(out)[0] == 5


def test_wrong_buffers_points_and_sizes_are_named(device):
    small, large = device.alloc(16), device.alloc(64)
    queue = device.compute_queue()
    copy = queue.commands().copy(Var("to"), large, Var("size")).bind()
    with pytest.raises(ArgumentMismatch, match="'to' takes a Buffer"):
        copy.replay(to=4096, size=1)
    with pytest.raises(ArgumentMismatch, match="17 bytes, but the buffer has 16 bytes"):
        copy.replay(to=small, size=17)
    with pytest.raises(ArgumentMismatch, match="65 bytes, but the buffer has 64 bytes"):
        copy.replay(to=large, size=65)
    wait = queue.commands().wait(Var("p")).bind()
    with pytest.raises(ArgumentMismatch, match="'p' takes a Point"):
        wait.replay(p=7)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_100000_replays_leave_resident_memory_within_a_mebibyte(device):
    out = device.alloc(8)
    words(out)[0] = 0
    program = device.load(kernels.add_number(device.target))
    bound = device.compute_queue().commands().exec(program, (out, out, Var("n")), (1, 1, 1)).bind()
    for _ in range(2000):
        bound.replay(n=1).wait()
    before = resident_bytes()
    replays = 100_000 if device.target.is_cpu else 10_000  # an emulated one takes 200 us
    for _ in range(replays):
        point = bound.replay(n=1)
    point.wait()
    assert resident_bytes() - before < 1 << 20
    assert words(out)[0] == 2000 + replays
