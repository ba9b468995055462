"""Kernels launched by packets: registers to machine code, results, faults."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

import pytest

from autogen import gc_11_0_0 as gc
from autogen import kfd
from autogen import pm4_nv as nv
from drivers.emulated.amd.boards import BOARDS
from test.drivers.emulated import gpu
from test.drivers.emulated.kfd_client import (
    PATIENCE_S,
    VISIBLE,
    Client,
    Memory,
    Queue,
    split,
    type3,
    until,
)
from test.drivers.emulated.packets import release_mem, wait_mem

# o[i] = i * 3 + k, one thread each
SCALE = """
define amdgpu_kernel void @k(ptr addrspace(1) %o, i32 %k) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %base = mul i32 %g, 64
  %i = add i32 %base, %t
  %three = mul i32 %i, 3
  %r = add i32 %three, %k
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %r, ptr addrspace(1) %at
  ret void
}
"""
ENDLESS = """
define amdgpu_kernel void @k(ptr addrspace(1) %o, i32 %k) #0 {
  br label %again
again:
  %v = load volatile i32, ptr addrspace(1) %o
  %same = icmp eq i32 %v, 12345
  br i1 %same, label %end, label %again
end:
  ret void
}
"""
SHADER_EN, FORCE_START, THREAD_DIMENSIONS, W32 = 1 << 0, 1 << 2, 1 << 5, 1 << 15


def register(name: str) -> int:
    offset, segment = gc.REGISTERS[f"COMPUTE_{name}"]
    return BOARDS["gfx1100"].ip_bases["GC"][segment] + offset - nv.PACKET3_SET_SH_REG_START


def set_registers(name: str, *values: int) -> list[int]:
    return type3(nv.PACKET3_SET_SH_REG, register(name), *values)


@dataclass
class Launcher:
    client: Client
    queue: Queue
    code: Memory
    kernarg: Memory
    out: Memory
    done: int = 0

    def load(self, text: str) -> gpu.Kernel:
        kernel = gpu.compile_kernel(text)
        content = ctypes.string_at(kernel.entry, len(kernel.code) - 256)
        ctypes.memmove(self.code.address, content, len(content))
        return kernel

    def packets(self, kernel: gpu.Kernel, groups: int, target: int, constant: int,
                initiator: int = SHADER_EN | FORCE_START | W32) -> list[list[int]]:
        packed = struct.pack("<QI", target, constant)
        ctypes.memmove(self.kernarg.address, packed, len(packed))
        self.done += 1
        return [
            *self.launch(kernel, self.code.address, self.kernarg.address, groups, initiator),
            type3(nv.PACKET3_EVENT_WRITE, 7 | 4 << 8),
            release_mem(self.out.address + 4096, self.done),
        ]

    def launch(self, kernel: gpu.Kernel, code: int, kernarg: int, groups: int,
               initiator: int = SHADER_EN | FORCE_START | W32) -> list[list[int]]:
        """Registers and a dispatch of workgroups of 64, nothing behind it."""
        ids = sum(1 << 7 + axis for axis in range(3) if kernel.group_ids[axis] >= 0)
        return [
            set_registers("PGM_LO", *split(code >> 8)),
            set_registers("PGM_RSRC1", kernel.float_mode << 12, kernel.scalars << 1 | ids),
            set_registers("USER_DATA_0", *split(kernarg)),
            set_registers("NUM_THREAD_X", 64, 1, 1),
            type3(nv.PACKET3_DISPATCH_DIRECT, groups, 1, 1, initiator),
        ]

    def launches(self, text: str, calls: list[tuple[int, ...]]) -> list[list[list[int]]]:
        """A dispatch for each of (workgroups, addresses..., number), with arguments of its own."""
        kernel = self.load(text)
        found = []
        for number, (groups, *addresses, constant) in enumerate(calls):
            at = self.kernarg.address + 256 * number
            packed = struct.pack(f"<{len(addresses)}QI", *addresses, constant)
            ctypes.memmove(at, packed, len(packed))
            found.append(self.launch(kernel, self.code.address, at, groups))
        return found

    def finished(self) -> bool:
        return int(self.out.u64(4096).value) == self.done

    def values(self, count: int) -> list[int]:
        return list((ctypes.c_uint32 * count).from_address(self.out.address))


@pytest.fixture
def launcher(client: Client) -> Launcher:
    return Launcher(client, Queue(client, 0, ring_bytes=1 << 14), client.alloc(1 << 16, VISIBLE),
                    client.alloc(4096, VISIBLE), client.alloc(8192, VISIBLE))


def test_a_kernel_runs_and_runs_again_with_other_arguments(launcher: Launcher) -> None:
    kernel = launcher.load(SCALE)
    for constant in (5, 1000):
        launcher.queue.put(*launcher.packets(kernel, 4, launcher.out.address, constant))
        until(launcher.finished)
        assert launcher.values(256) == [3 * i + constant for i in range(256)]
    assert launcher.values(257)[256] == 0


def test_what_runs_is_what_lies_in_memory(launcher: Launcher) -> None:
    kernel = launcher.load(SCALE)
    for constant in (7, 9):
        launcher.queue.put(*launcher.packets(kernel, 1, launcher.out.address, constant))
        until(launcher.finished)
        assert launcher.values(64) == [3 * i + constant for i in range(64)]
        other = launcher.load(SCALE.replace("%i, 3", "%i, 7"))
        launcher.queue.put(*launcher.packets(other, 1, launcher.out.address, constant))
        until(launcher.finished)
        assert launcher.values(64) == [7 * i + constant for i in range(64)]
        launcher.load(SCALE)


def test_a_kernel_waits_for_what_is_before_it(launcher: Launcher) -> None:
    kernel = launcher.load(SCALE)
    gate = launcher.client.alloc(4096, VISIBLE)
    launcher.queue.put(wait_mem(gate.address, 1),
                       *launcher.packets(kernel, 1, launcher.out.address, 1))
    assert launcher.values(2) == [0, 0]
    gate.u32().value = 1
    until(launcher.finished)
    assert launcher.values(2) == [1, 4]


def test_a_store_out_of_bounds_is_a_page_fault(launcher: Launcher) -> None:
    client = launcher.client
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_MEMORY).event_id
    kernel = launcher.load(SCALE)
    stray = client.reserve(1 << 20)
    launcher.queue.put(*launcher.packets(kernel, 1, stray, 1))
    result, entries = client.wait(event)
    data = entries[0].memory_exception_data
    assert result == 0 and data.va == stray
    assert data.failure.NotPresent == 1
    assert not launcher.finished()
    assert any("write fault, wave 0" in line for line in client.system.log()[-2:])


def test_code_that_may_not_be_executed_is_a_fault(launcher: Launcher) -> None:
    client = launcher.client
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_MEMORY).event_id
    kernel = launcher.load(SCALE)
    client.unmap(launcher.code.handle, 0)
    launcher.queue.put(*launcher.packets(kernel, 1, launcher.out.address, 1))
    result, entries = client.wait(event)
    assert result == 0
    assert entries[0].memory_exception_data.va == launcher.code.address


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"initiator": 0}, "enables no shader"),
        ({"initiator": SHADER_EN | FORCE_START | W32 | THREAD_DIMENSIONS}, "no whole workgroups"),
    ],
)
def test_dispatches_that_are_refused(
    launcher: Launcher, change: dict[str, int], reason: str
) -> None:
    client = launcher.client
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_HW_EXCEPTION).event_id
    kernel = launcher.load(SCALE)
    launcher.queue.put(*launcher.packets(kernel, 1, launcher.out.address, 1, **change))
    assert client.wait(event)[0] == 0
    assert reason in client.system.log()[-1]


def test_unknown_instructions_stop_the_queue_not_the_board(launcher: Launcher) -> None:
    client = launcher.client
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_HW_EXCEPTION).event_id
    kernel = launcher.load(SCALE)
    launcher.code.u32().value = 0xFFFFFFFF
    launcher.queue.put(*launcher.packets(kernel, 1, launcher.out.address, 1))
    assert client.wait(event)[0] == 0
    assert client.call("GET_VERSION").major_version == 1


def test_an_endless_kernel_is_a_hang_and_the_board_goes_on(launcher: Launcher) -> None:
    client = launcher.client
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_HW_EXCEPTION).event_id
    kernel = launcher.load(ENDLESS)
    launcher.queue.put(*launcher.packets(kernel, 1, launcher.out.address, 1))
    assert client.wait(event, timeout=1000 * PATIENCE_S)[0] == 0
    assert "never ends" in client.system.log()[-1]
    launcher.queue.destroy()
    launcher.queue = Queue(client, 0, ring_bytes=1 << 14)
    kernel = launcher.load(SCALE)
    launcher.queue.put(*launcher.packets(kernel, 1, launcher.out.address, 1))
    until(launcher.finished)


def test_a_queue_in_the_middle_of_a_grid_of_billions_is_destroyed(launcher: Launcher) -> None:
    kernel = launcher.load(SCALE.replace("mul i32 %g, 64", "mul i32 %g, 0"))
    before = len(launcher.client.system.log())
    launcher.queue.put(*launcher.packets(kernel, (1 << 32) - 1, launcher.out.address, 8))
    until(lambda: launcher.values(64)[63] == 3 * 63 + 8)
    launcher.queue.destroy()
    assert launcher.client.system.log(before) == []
    assert not launcher.finished()
