"""Memory, semaphores, copies and clocks of NVIDIA GPUs, on an emulated board of each generation."""

from __future__ import annotations

import contextlib
import gc
import os

import pytest

from drivers import open_device
from drivers.emulated.nv.abi import VERSIONS
from drivers.errors import ArgumentMismatch, DeviceFault, DeviceHang, ForkedProcess
from drivers.nv.abi import BRANCHES
from drivers.nv.channel import LENGTH_LIMIT, gpfifo_entry
from drivers.variables import Var

LOW_ADDRESSES = 1 << 40


def filled(device, content: bytes):
    buffer = device.alloc(len(content))
    buffer.cpu_view()[:] = content
    return buffer


def test_buffers_have_the_same_low_address_on_both_sides(board_device) -> None:
    for size in (1, 4096, 200_000, 3 << 20, 9 << 20):
        buffer = board_device.alloc(size)
        assert buffer.gpu_addr == buffer.cpu_addr and buffer.gpu_addr + size <= LOW_ADDRESSES
        if size >= 2 << 20:
            assert buffer.gpu_addr % (2 << 20) == 0
        buffer.cpu_view()[size - 1] = 7
        assert buffer.cpu_view()[size - 1] == 7


@pytest.mark.parametrize("kind", ["compute", "copy"])
def test_a_queue_of_either_kind_copies(board_device, kind) -> None:
    content = bytes(range(256)) * 40
    source, target = filled(board_device, content), board_device.alloc(len(content) + 3)
    queue = getattr(board_device, f"{kind}_queue")()
    queue.commands().copy(target.view(3), source).submit().wait()
    assert target.cpu_view()[3:] == content
    overlapping = queue.commands().copy(target.view(0, 5000), target.view(3, 5000))
    overlapping.submit().wait()
    assert target.cpu_view()[:5000] == content[:5000]


def test_queues_wait_for_points_of_each_other_and_of_the_host(board_device) -> None:
    device = board_device
    gate = device.timeline("gate")
    first, second = filled(device, bytes(64)), filled(device, bytes(64))
    source = filled(device, b"\x5a" * 64)
    copies, computes = device.copy_queue(), device.compute_queue()
    one = copies.commands().wait(gate.point(5)).copy(first, source).submit()
    two = computes.commands().wait(one).copy(second, first).submit()
    assert not one.done and not two.done
    gate.signal(4)
    with pytest.raises(DeviceHang, match=r"WAIT for NV:0 queue copy0 to reach 1"):
        two.wait(timeout_ms=30)
    gate.signal(5)
    two.wait()
    assert second.cpu_view() == b"\x5a" * 64


def test_points_of_the_processor_are_reached_through_pinned_pages(board_device) -> None:
    device = board_device
    with open_device("LLVM") as processor:
        gate, mark = processor.timeline("gate"), processor.timeline("mark")
        queue = device.compute_queue()
        point = queue.commands().wait(gate.point(1 << 40)).signal(mark.point(1 << 41)).submit()
        assert not point.done
        gate.signal(1 << 40)
        point.wait()
        assert mark.value == 1 << 41


def test_a_bound_list_replays_with_new_values(board_device) -> None:
    device = board_device
    word = filled(device, bytes(8))
    gates = [device.timeline(f"gate {i}") for i in range(6)]
    marks = device.timeline("marks")
    commands = device.compute_queue(ring_records=4).commands()
    bound = commands.wait(Var("gate")).write(word, Var("v")).signal(Var("mark")).bind()
    for turn, gate in enumerate(gates):
        gate.signal(1)
        value = 2**64 - 1 - turn
        bound.replay(gate=gate.point(1), v=value, mark=marks.point(turn + 1)).wait()
        assert word.cpu_view().cast("Q")[0] == value and marks.value == turn + 1


def test_a_short_ring_takes_many_lists(board_device) -> None:
    word = filled(board_device, bytes(8))
    queue = board_device.copy_queue(ring_records=2, initial_value=(1 << 32) - 40)
    for value in range(1, 100):
        point = queue.commands().write(word, value).submit()
    point.wait()
    assert word.cpu_view().cast("Q")[0] == 99 and point.value == (1 << 32) + 59


def test_timestamps_are_nanoseconds_that_do_not_go_back(board_device) -> None:
    device = board_device
    stamps, word = device.timestamps(20), filled(device, bytes(8))
    commands = device.compute_queue().commands()
    for stamp in stamps:
        commands.write(word, 1).timestamp(stamp)
    commands.submit().wait()
    values = [stamp.value_ns for stamp in stamps]
    assert values == sorted(values) and values[0] > 0


def test_a_copy_beyond_its_mapping_is_a_fault_with_its_address(board_device) -> None:
    device = board_device
    source, gone = filled(device, bytes(64)), device.alloc(3 << 20)
    place = gone.gpu_addr
    target = gone.view(0, 64)
    commands = device.compute_queue().commands().copy(target, source)
    device.gpu_memory.unreach(device.gpu_memory.blocks[place])  # behind the device's back
    with pytest.raises(DeviceFault, match=rf"NV:0 wrote {place:#x} \(page not present\) .*copy"):
        commands.submit().wait()
    with pytest.raises(DeviceFault):
        device.copy_queue().commands().write(source, 1).submit()


def test_closing_gives_everything_back_and_opening_again_works(board_device) -> None:
    gpu = board_device.gpu
    board_device.close()
    gc.collect()
    free = gpu.memory_bytes()[1]
    for _ in range(3):
        with open_device("NV") as device:
            data = filled(device, b"abc" * 100_000)
            other = device.alloc(300_000)
            device.copy_queue().commands().copy(other, data).submit().wait()
            assert other.cpu_view() == data.cpu_view()
        del data, other, device
        gc.collect()
    assert gpu.memory_bytes()[1] == free


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_branch_will_do(branch, monkeypatch) -> None:
    """The board insists on the structures of its branch, from opening to closing."""
    version = next(each for each in VERSIONS if each.startswith(f"{branch}."))
    monkeypatch.setenv("EMULATE", f"sm_90,driver={version}")
    with open_device("NV") as device:
        assert device.gpu.rm.abi.version == version
        works(device)
        gpu = device.gpu
        device.trim()
        before = gpu.memory_bytes()[1]
        large = device.alloc(9 << 20)
        assert gpu.memory_bytes()[1] < before
        del large
        gc.collect()
        device.trim()
        assert gpu.memory_bytes()[1] == before


def works(device) -> None:
    """A copy, and a semaphore in a page of the process."""
    with open_device("LLVM") as processor:
        mark = processor.timeline("mark")
        source, target = filled(device, b"\x5a" * 5000), device.alloc(5000)
        commands = device.compute_queue().commands().copy(target, source).signal(mark.point(3))
        commands.submit().wait()
        assert target.cpu_view() == source.cpu_view() and mark.value == 3


def test_a_container_will_do(monkeypatch) -> None:
    monkeypatch.setenv("EMULATE", "sm_90,container")
    with open_device("NV") as device:
        works(device)


def test_kernels_are_not_for_copy_queues_nor_for_strange_machines(nv_device) -> None:
    from compiler.code_object import CodeObject

    code = CodeObject("k", "sm_50", b"\x7fELF", 0, ())
    own = nv_device.target.arch
    with pytest.raises(ArgumentMismatch, match=f"is for sm_50; NV:0 is {own}"):
        nv_device.load(code)


def test_a_forks_end_takes_nothing_from_its_parent(nv_device) -> None:
    data, other = filled(nv_device, b"abcdefgh" * 9000), nv_device.alloc(72_000)
    queue = nv_device.copy_queue()
    child = os.fork()
    if not child:  # drops what it has inherited, and finds that it may not use it
        status = 1
        with contextlib.suppress(BaseException):
            with pytest.raises(ForkedProcess):
                nv_device.alloc(8)
            with pytest.raises(ForkedProcess):
                nv_device.gpu.memory_bytes()
            nv_device.gpu_memory.blocks.clear()
            nv_device._process.close()
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    queue.commands().copy(other, data).submit().wait()
    assert other.cpu_view() == data.cpu_view()


def test_an_entry_of_the_ring_is_as_the_header_says() -> None:
    # clc86f.h: GP_ENTRY0_GET 31:2, GP_ENTRY1_GET_HI 7:0, GP_ENTRY1_LENGTH 30:10.
    assert gpfifo_entry(0xAB_1234_5678, 5) == 0x1234_5678 | (0xAB | 5 << 10) << 32
    assert LENGTH_LIMIT == (1 << 21) - 1
