"""The AMD driver on an emulated gfx1100 (or the hardware): what the shared tests do not ask."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import threading
import weakref

import pytest

from autogen import kfd
from compiler.dtype import dtypes
from drivers import Var, open_device
from drivers.emulated.system import EmulatedSystem
from drivers.errors import ArgumentMismatch, DeviceFault, DeviceHang
from drivers.memory import Buffer
from drivers.system import StackedSystem
from drivers.timeline import memory_view
from test.drivers import kernels


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    if not os.path.exists("/dev/kfd") and "EMULATE" not in os.environ:
        monkeypatch.setenv("EMULATE", "gfx1100*4")


@pytest.fixture
def device():
    with open_device("AMD", timeout_ms=10_000) as opened:
        yield opened


@pytest.fixture
def own_board():
    """A board for a System that stands on it: a process acquires a GPU's address space once."""
    system = EmulatedSystem("gfx1100")
    yield system
    system.shut_down()


def words(buffer):
    return buffer.cpu_view().cast("q")


def zeros(device, count: int):
    buffer = device.alloc(8 * count)
    buffer.cpu_view()[:] = bytes(8 * count)
    return buffer


@pytest.mark.parametrize("kind", ["compute_queue", "copy_queue"])
def test_words_are_written_by_the_queue(device, kind):
    memory = zeros(device, 300)
    commands = getattr(device, kind)().commands()
    for i in range(300):
        commands.write(memory.view(8 * i, 8), i << 33 | i)
    commands.submit().wait()
    assert list(words(memory)) == [i << 33 | i for i in range(300)]


@pytest.mark.parametrize("size", [1, 3, 4096, (4 << 20) + 5])
def test_the_copy_engine_moves_every_byte_and_no_more(device, size):
    source, target = device.alloc(size), device.alloc(size + 2)
    pattern = bytes(i * 7 % 256 for i in range(256))
    source.cpu_view()[:] = (pattern * (size // 256 + 1))[:size]
    target.cpu_view()[:] = b"\xee" * (size + 2)
    device.copy_queue().commands().copy(target.view(1, size), source).submit().wait()
    assert target.cpu_view()[1:-1] == source.cpu_view()
    assert target.cpu_view()[0] == target.cpu_view()[size + 1] == 0xEE


@pytest.mark.parametrize("shift", [1, 64, 1000, -1, -1000])
def test_the_copy_engine_copies_overlapping_ranges(device, shift):
    memory, size = device.alloc(5000), 3000
    memory.cpu_view()[:] = bytes(i * 11 % 251 for i in range(5000))
    source, target = memory.view(1000, size), memory.view(1000 + shift, size)
    expected = bytes(source.cpu_view())
    device.copy_queue().commands().copy(target, source).submit().wait()
    assert target.cpu_view() == expected


def test_compute_and_copy_engines_wait_for_each_other(device):
    first, second = zeros(device, 64), zeros(device, 64)
    program = device.load(kernels.add_number(device.target))
    compute, copy = device.compute_queue(), device.copy_queue()
    point = compute.commands().barrier().submit()
    for _ in range(50):
        commands = compute.commands().wait(point)
        point = commands.exec(program, (first, second, 1), (64, 1, 1)).submit()
        point = copy.commands().wait(point).copy(second, first).submit()
    point.wait()
    assert list(words(second)) == [50] * 64


@pytest.mark.parametrize("start", [0, 2**32 - 3, 2**40])
def test_a_copy_engine_awaits_64_bits_although_it_compares_32(device, start):
    flag = zeros(device, 1)
    compute, copy = device.compute_queue(initial_value=start), device.copy_queue()
    late = device.timeline("late")
    for turn in range(1, 7):
        held = compute.commands().wait(late.point(turn)).submit()
        seen = copy.commands().wait(held).write(flag, turn).submit()
        with pytest.raises(DeviceHang):
            seen.wait(timeout_ms=5)
        late.signal(turn)
        seen.wait()
        assert words(flag)[0] == turn
    host = device.timeline("host")
    seen = copy.commands().wait(host.point(5)).submit()
    host.signal(1 << 32)  # its low half is 0, but it is far beyond
    seen.wait()


def test_copies_with_vars_replay(device):
    buffers = [zeros(device, 4) for _ in range(3)]
    words(buffers[0])[0] = 77
    bound = device.copy_queue().commands().copy(Var("to"), Var("from"), Var("n")).bind()
    assert bound.names == ["to", "from", "n"]
    bound.replay(**{"to": buffers[1], "from": buffers[0], "n": 8}).wait()
    assert words(buffers[1])[0] == 77
    with pytest.raises(ArgumentMismatch, match="No value was given for the Var 'from'"):
        bound.replay(to=buffers[1], n=8)


def test_a_copy_queue_runs_no_kernels_and_says_so(device):
    program = device.load(kernels.add_number(device.target))
    memory = zeros(device, 1)
    commands = device.copy_queue().commands().exec(program, (memory, memory, 1), (1, 1, 1))
    with pytest.raises(ArgumentMismatch, match="a copy queue of this device only copies"):
        commands.submit()


def test_memory_of_another_device_is_refused(device):
    with open_device("LLVM") as other:
        foreign = other.alloc(8)
        commands = device.copy_queue().commands().copy(zeros(device, 1), foreign)
        with pytest.raises(ArgumentMismatch, match=r"is not memory of AMD:0"):
            commands.submit()


def test_a_processors_point_and_the_gpus_await_each_other(device):
    memory = zeros(device, 1)
    with open_device("LLVM") as processor:
        host, gpu = processor.compute_queue(), device.compute_queue()
        gate = processor.timeline("gate")
        first = host.commands().wait(gate.point(1)).submit()
        second = gpu.commands().wait(first).write(memory, 5).submit()
        third = host.commands().wait(second).submit()
        assert not third.done
        gate.signal(1)
        third.wait(timeout_ms=5000)
        assert words(memory)[0] == 5


def test_flipping_one_opcode_in_memory_changes_the_result(device):
    memory = device.alloc(12)
    numbers = memory.cpu_view().cast("f")
    numbers[1], numbers[2] = 2.0, 5.0
    program = device.load(kernels.gpu_kernel("product", device.target, """
  %first = getelementptr float, ptr %out, i64 1
  %second = getelementptr float, ptr %out, i64 2
  %a = load volatile float, ptr %first
  %b = load volatile float, ptr %second
  %product = fmul float %a, %b
  store float %product, ptr %out
  ret void""", kernels.buffer("out")))
    commands = device.compute_queue().commands().exec(program, (memory,), (1, 1, 1))
    commands.submit().wait()
    assert numbers[0] == 10
    # The ISA's documents, VOP2: opcode in bits 25 to 30, the first source from 256 on a VGPR.
    add, multiply = (1, 5) if device.generation.gfx9 else (3, 8)
    code = memory_view(program.entry_address, 96).cast("I")
    (at,) = (i for i, word in enumerate(code) if word >> 25 == multiply and word & 256)
    code[at] += add - multiply << 25
    commands.submit().wait()
    assert numbers[0] == 7


def test_each_kick_flushes_the_host_data_path(device):
    queue = device.copy_queue()
    register = ctypes.c_uint32.from_address(device.flush_register())
    for _ in range(2):
        register.value = 0
        queue.commands().barrier().submit().wait()
        assert register.value == 1  # kfd_ioctl.h, KFD_MMIO_REMAP_HDP_MEM_FLUSH_CNTL


class NoRegisters(StackedSystem):
    """A kernel driver whose GPUs show no remapped registers."""

    refused = 0

    def ioctl(self, descriptor, request, argument):
        if request == kfd.AMDKFD_IOC_ALLOC_MEMORY_OF_GPU:
            given = kfd.struct_kfd_ioctl_alloc_memory_of_gpu_args.from_address(argument)
            if given.flags & kfd.KFD_IOC_ALLOC_MEM_FLAGS_MMIO_REMAP:
                self.refused += 1
                raise OSError(errno.ENOMEM, "no remapped registers")
        return super().ioctl(descriptor, request, argument)


def test_a_gpu_without_remapped_registers_works(own_board):
    system = NoRegisters(own_board)
    with open_device("AMD", system=system) as device:
        device.compute_queue().commands().barrier().submit().wait()
        assert system.refused == 1 and device.flush_register() == 0


@pytest.mark.parametrize("blocks", [1, 3000])
def test_private_arrays_live_in_scratch(device, blocks):
    out = zeros(device, blocks)
    program = device.load(kernels.gpu_kernel("private", device.target, """
  %local = alloca [64 x i64], align 8, addrspace(5)
  %wide = zext i32 %x to i64
  %low = and i32 %x, 63
  %at = getelementptr i64, ptr addrspace(5) %local, i32 %low
  store volatile i64 %wide, ptr addrspace(5) %at
  %back = load volatile i64, ptr addrspace(5) %at
  %to = getelementptr i64, ptr %out, i64 %wide
  store i64 %back, ptr %to
  ret void""", kernels.buffer("out")))
    assert program.private_bytes >= 512
    device.compute_queue().commands().exec(program, (out,), (blocks, 1, 1)).submit().wait()
    assert list(words(out)) == list(range(blocks))


@pytest.mark.parametrize("verb", ["wrote", "read"])
def test_a_kernel_out_of_bounds_is_named_with_all_that_is_known(device, verb):
    data, far = zeros(device, 8), 1 << 40
    queue = device.compute_queue()
    queue.commands().exec(*stray(device, "wrote", data, 0)).submit().wait()
    origin = ("/home/me/train.py", 31)
    queue.commands().exec(*stray(device, verb, data, far), origin=origin).submit()
    with pytest.raises(DeviceFault) as caught:
        queue.synchronize()
    page = (data.gpu_addr + 8 * far) & -4096
    name = {"wrote": "store_at", "read": "load_at"}[verb]
    past = page - data.gpu_addr - data.size_bytes
    assert str(caught.value).startswith(
        f"AMD:0 {verb} {page:#x} (page not present) in kernel {name}, dispatch 2, made at "
        f"train.py:31; {past} bytes past buffer out of {name} (64 bytes at {data.gpu_addr:#x})."
    )
    device.close()
    with open_device("AMD") as again:
        memory = zeros(again, 1)
        again.compute_queue().commands().write(memory, 3).submit().wait()
        assert words(memory)[0] == 3


def stray(device, verb, data, at):
    """Program, arguments and grid of a kernel that writes or reads element `at` of `data`."""
    if verb == "wrote":
        return device.load(kernels.store_at(device.target)), (data, at, 1), (1, 1, 1)
    program = device.load(kernels.gpu_kernel("load_at", device.target, """
  %from = getelementptr i64, ptr %out, i64 %at
  %value = load volatile i64, ptr %from
  store i64 %value, ptr %out
  ret void""", kernels.buffer("out"), kernels.scalar("at", dtypes.int64)))
    return program, (data, at), (1, 1, 1)


def test_a_copy_out_of_bounds_is_named_as_a_copy(device):
    data = zeros(device, 8)
    beyond = Buffer("AMD:0", data.storage, data.gpu_addr + (1 << 43), 4096)
    device.copy_queue().commands().copy(data, beyond, 64).submit()
    with pytest.raises(DeviceFault, match=r"read .* \(page not present\) in a copy of 64 bytes; "):
        device.synchronize()


def test_a_kernel_without_end_is_a_fault_that_names_it_and_the_gpu_opens_again(device):
    memory = zeros(device, 1)
    program = device.load(kernels.gpu_kernel("endless", device.target, """
  br label %again
again:
  %value = load volatile i64, ptr %out
  %more = icmp eq i64 %value, 0
  br i1 %more, label %again, label %end
end:
  ret void""", kernels.buffer("out")))
    queue = device.compute_queue()
    point = queue.commands().exec(program, (memory,), (1, 1, 1)).submit()
    with pytest.raises((DeviceFault, DeviceHang), match="kernel endless, dispatch 1"):
        point.wait()
    device.close()
    with open_device("AMD") as again:
        again.compute_queue().commands().barrier().submit().wait()


def test_a_fault_tells_why_the_emulated_board_refused(own_board):
    with open_device("AMD", system=own_board) as device:
        program = device.load(kernels.multiply(device.target))
        code = memory_view(program.entry_address, 64).cast("I")
        code[0] = 0xFFFFFFFF
        queue = device.compute_queue()
        queue.commands().exec(program, (zeros(device, 1), 2.0, 5.0), (1, 1, 1)).submit()
        with pytest.raises(DeviceFault, match=r"in kernel multiply, .*board says: .* ffffffff "):
            queue.synchronize()
    with open_device("AMD", system=own_board) as device:
        copy = device.copy_queue()
        memory_view(copy.ring.template, 4).cast("I")[0] = 0x77  # SDMA has no such packet
        copy.commands().barrier().submit()
        with pytest.raises(DeviceFault) as caught:
            copy.synchronize()
        assert "board says: gfx1100:0 SDMA queue" in str(caught.value)
        assert "ffffffff" not in str(caught.value)  # told already


def test_closing_a_device_never_empties_a_timeline_that_somebody_waits_for(own_board):
    timelines, seen = [], set()

    class Watching(StackedSystem):
        def call(self, name, function, *arguments):
            result = function()
            seen.update(bytes(memory_view(each.address, 64)) for each in timelines)
            return result

    device = open_device("AMD", system=Watching(own_board))
    timelines.append(device.timeline(initial=5))
    device.close()
    assert len(seen) == 1
    assert timelines.pop().value == 5


def test_several_gpus_are_devices_of_their_own():
    with open_device("AMD:0") as first, open_device("AMD:1") as second:
        for device in (first, second):
            memory = zeros(device, 4)
            program = device.load(kernels.add_number(device.target))
            device.compute_queue().commands().exec(
                program, (memory, memory, 9), (4, 1, 1)
            ).submit().wait()
            assert list(words(memory)) == [9] * 4
        assert first.node.gpu_id != second.node.gpu_id


def test_timestamps_are_the_hosts_time(device):
    import time

    stamps = device.timestamps(2)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    queue = device.compute_queue()
    queue.commands().timestamp(stamps[0]).submit().wait()
    time.sleep(0.05)
    device.copy_queue().commands().timestamp(stamps[1]).submit().wait()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    first, second = (stamp.value_ns for stamp in stamps)
    slack = 2_000_000
    assert before - slack <= first < second <= after + slack
    assert second - first >= 45_000_000


def test_threads_share_a_queue(device):
    memory = zeros(device, 4)
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()

    def work(i: int) -> None:
        part = memory.view(8 * i, 8)
        for _ in range(100):
            queue.commands().exec(program, (part, part, 1), (1, 1, 1)).submit()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    device.synchronize()
    assert list(words(memory)) == [100] * 4


def test_a_device_that_is_dropped_without_close_takes_its_queues_along():
    device = open_device("AMD")
    limit = device.features.queues
    queues = [device.copy_queue() for _ in range(limit)]
    point = queues[0].commands().barrier().submit()
    point.wait()
    reference = weakref.ref(device)
    del device, queues
    gc.collect()
    assert reference() is None
    assert point.done
    with open_device("AMD") as device:
        assert len([device.copy_queue() for _ in range(limit)]) == limit
