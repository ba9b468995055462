"""Queues that several XCCs share: their packets, entries, tails and meetings, ioctl by ioctl."""

from __future__ import annotations

import itertools
import os
import struct

import pytest

from autogen import hsa, kfd
from drivers import Var, open_device
from drivers.amd import aql, packets
from drivers.errors import DeviceHang
from drivers.fields import decode
from drivers.timeline import memory_view
from test.drivers import kernels
from test.drivers.amd.scripted import ScriptedSystem

XCCS = 8
ENTRY = 2 * aql.PACKET_DWORDS


@pytest.fixture
def system():
    return ScriptedSystem(
        gfx_target_version=90402, num_xcc=XCCS, simd_count=1216, simd_per_cu=4, array_count=32,
        simd_arrays_per_engine=1, wave_front_size=64,
    )


@pytest.fixture
def device(system):
    with open_device("AMD", system=system, timeout_ms=50) as opened:
        yield opened


def words_at(address: int, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}I", memory_view(address, 4 * count)))


def listed(words: list[int]) -> list[packets.Packet]:
    """The packets of a vendor packet's indirect buffer."""
    (indirect,) = [packet for _, packet in packets.decode_stream(words[1:5])]
    found = words_at(indirect.values["address"], indirect.values["ib_size"])
    return [packet for _, packet in packets.decode_stream(found, gfx9=True)]


def names(found) -> list[str]:
    return [packet.layout.name for packet in found]


def test_the_vendor_packet_is_rocrs():
    # ROCR, amd_aql_queue.cpp, AqlQueue::ExecutePM4: header with both fences at system scope,
    # AMD_AQL_FORMAT_PM4_IB, INDIRECT_BUFFER with its valid bit, AMD_AQL_PM4_IB_DW_COUNT_REMAIN.
    run = packets.INDIRECT_BUFFER(address=0x7F00_0000_2000, ib_size=0x123, valid=1).encode()
    assert aql.vendor_packet(run) == [
        0x00011500, 0xC0023F00, 0x2000, 0x7F00, 0x00800123, 10, *[0] * 8, 0, 0
    ]


def test_pred_exec_chooses_xccs():
    # ROCR, amd_gpu_pm4.h: PM4_PRED_EXEC_DW2_EXEC_COUNT 13:0, VIRTUALXCCID_SELECT 31:24.
    assert aql.only(0b101, [1, 2, 3]) == [0xC0002300, 0x05000003, 1, 2, 3]


def test_atomic_mem_counts():
    # sid.h, PKT3_ATOMIC_MEM: TC_OP_ATOMIC_SUB_64 with write confirm, address, -1.
    packet = packets.ATOMIC_MEM(
        operation=packets.ATOMIC_SUB_64, command=packets.ATOMIC_WRITE_CONFIRM,
        address=0x7F00_0000_1008, source=(1 << 64) - 1,
    )
    assert packet.encode() == [
        0xC0071E00, 0x270, 0x1008, 0x7F00, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0, 0
    ]


def test_the_queue_is_an_amd_queue(system, device):
    queue = device.compute_queue(ring_records=64)
    given = system.argument("CREATE_QUEUE")
    assert given.queue_type == kfd.KFD_IOC_QUEUE_TYPE_COMPUTE_AQL
    page = given.write_pointer_address & -4096
    # amd_hsa_queue.h: write_dispatch_id at 56, read_dispatch_id at 128.
    assert (given.write_pointer_address - page, given.read_pointer_address - page) == (56, 128)
    described = hsa.amd_queue_t.from_address(page)
    assert described.hsa_queue.base_address == given.ring_base_address
    assert described.hsa_queue.size * 64 == given.ring_size == 64 * 128
    assert described.read_dispatch_id_field_base_byte_offset == 128
    ring = memory_view(given.ring_base_address, given.ring_size)
    assert set(ring[::64]) == {hsa.HSA_PACKET_TYPE_INVALID}
    # kfd_queue.c for 38 compute units and 32 arrays, of each of the 8 XCCs.
    assert given.ctl_stack_size == 0x3000
    assert given.ctx_save_restore_size == 0x3000 + 38 * 0x95000
    assert system.block_at(given.ctx_save_restore_address) == 8 * (0x3000 + 38 * (0x95000 + 1280))
    queue.close()
    assert not system.queues


def test_an_entry_runs_the_list_and_then_its_tail(device):
    queue, data = device.compute_queue(ring_records=64, initial_value=1 << 33), device.alloc(64)
    queue.commands().write(data, 5).submit()
    ring = words_at(queue.ring.ring, ENTRY)
    run, then = ring[:16], ring[16:]
    assert decode(aql.VENDOR, run).values["barrier"] == 1
    only, write = listed(run)
    assert only.values == {"exec_count": 6, "virtual_xcc_select": 1}
    assert (write.values["address"], write.tail) == (data.gpu_addr, (5, 0))
    assert decode(aql.VENDOR, then).values["barrier"] == 1
    only, reset, value, interrupt = listed(then)
    assert only.values == {"exec_count": 6 + 8 + 8, "virtual_xcc_select": 1}
    assert (reset.values["address"], reset.tail) == (queue.hardware.meeting, (0, 0))
    assert value.values["address"] == queue.timeline.address
    assert value.values["data"] == (1 << 33) + 1
    assert interrupt.values["int_ctxid"] == device.interrupts.event_id
    assert memory_view(queue.ring.write_pointer, 8).cast("Q")[0] == 2
    assert memory_view(queue.ring.doorbell, 8).cast("Q")[0] == 1  # the last packet's number


def test_tails_are_of_their_places_and_the_ring_wraps(device):
    queue = device.compute_queue(ring_records=32)
    commands, timeline = queue.commands().barrier(), memory_view(queue.timeline.address, 8)
    for turn in range(1, 101):
        assert commands.submit().value == turn
        timeline.cast("Q")[0] = turn
    assert memory_view(queue.ring.doorbell, 8).cast("Q")[0] == 199
    for turn in range(69, 101):  # what the ring holds
        place = (turn - 1) % 32
        words = words_at(queue.ring.ring + 4 * ENTRY * place, ENTRY)
        assert listed(words[16:])[2].values["data"] == turn
    accepted = 0
    with pytest.raises(DeviceHang, match="made no room"):
        for _ in range(40):
            commands.submit()
            accepted += 1
    assert accepted == 31


def test_xccs_meet_around_every_kernel(device):
    program = device.load(kernels.add_number(device.target))
    data, queue = device.alloc(64), device.compute_queue()
    commands = queue.commands().write(data, 1)
    commands.exec(program, (data, data, 1), (4, 1, 1)).exec(program, (data, data, 1), (4, 1, 1))
    commands.write(data, 2).write(data.view(8), 3).submit()
    found = listed(words_at(queue.ring.ring, 16))
    meet = ["EVENT_WRITE", "ACQUIRE_MEM", "ATOMIC_MEM", "WAIT_REG_MEM", "ACQUIRE_MEM"]
    kernel = [name for name in names(found) if name in ("WRITE_DATA", "DISPATCH_DIRECT")]
    assert kernel == ["WRITE_DATA", "DISPATCH_DIRECT", "DISPATCH_DIRECT", "WRITE_DATA",
                      "WRITE_DATA"]  # fmt: skip
    waits = [i for i, name in enumerate(names(found)) if name == "WAIT_REG_MEM"]
    assert [found[i].values["reference"] for i in waits] == [XCCS, 2 * XCCS, 3 * XCCS]
    for i in waits:
        assert names(found)[i - 3 : i + 2] == meet
        assert found[i].values["address"] == queue.hardware.meeting
    # Between two meetings there is one kernel, run by all; what is not a kernel is for one.
    between = [names(found)[a:b] for a, b in itertools.pairwise(waits)]
    assert all(part.count("DISPATCH_DIRECT") == 1 for part in between)
    assert all("PRED_EXEC" not in part for part in between)
    for i, packet in enumerate(found):
        if packet.layout is packets.WRITE_DATA:
            assert found[i - 1].values == {"exec_count": 6, "virtual_xcc_select": 1}


def test_a_list_that_ends_with_a_kernel_ends_with_a_meeting(device):
    program = device.load(kernels.add_number(device.target))
    data, queue = device.alloc(64), device.compute_queue()
    queue.commands().exec(program, (data, data, 1), (4, 1, 1)).submit()
    found = listed(words_at(queue.ring.ring, 16))
    assert names(found)[-5:] == [
        "EVENT_WRITE", "ACQUIRE_MEM", "ATOMIC_MEM", "WAIT_REG_MEM", "ACQUIRE_MEM"
    ]
    assert names(found).count("ATOMIC_MEM") == 1


def test_every_xcc_has_scratch_of_its_own(device):
    program = device.load(kernels.gpu_kernel("private", device.target, """
  %local = alloca [64 x i64], align 8, addrspace(5)
  %wide = zext i32 %x to i64
  %at = getelementptr i64, ptr addrspace(5) %local, i32 %x
  store volatile i64 %wide, ptr addrspace(5) %at
  %back = load volatile i64, ptr addrspace(5) %at
  store i64 %back, ptr %out
  ret void""", kernels.buffer("out")))
    data, queue = device.alloc(64), device.compute_queue()
    queue.commands().exec(program, (data,), (4, 1, 1)).submit()
    found = listed(words_at(queue.ring.ring, 16))
    low = device.generation.shader_registers["COMPUTE_DISPATCH_SCRATCH_BASE_LO"]
    bases = [
        (found[i - 1].values, packet.tail[0] << 8 | packet.tail[1] << 40)
        for i, packet in enumerate(found)
        if packet.layout is packets.SET_SH_REG and packet.values["reg_offset"] == low
    ]
    scratch = queue.scratch(program.private_bytes)
    assert bases == [
        ({"exec_count": 4, "virtual_xcc_select": 1 << xcc},
         scratch.address + xcc * scratch.xcc_bytes)
        for xcc in range(XCCS)
    ]


@pytest.fixture
def board(monkeypatch):
    if os.path.exists("/dev/kfd"):
        pytest.skip("The GPUs here are those of the hardware.")
    monkeypatch.setenv("EMULATE", "gfx942")
    with open_device("AMD", timeout_ms=10_000) as opened:
        assert opened.node.xccs == XCCS
        yield opened


def test_a_board_of_several_xccs_writes_copies_and_replays(board):
    data = board.alloc(4096)
    words = data.cpu_view().cast("Q")
    queue = board.compute_queue(ring_records=8)
    bound = queue.commands().write(data, Var("v")).copy(data.view(8, 8), data.view(0, 8)).bind()
    for turn in range(1, 101):
        bound.replay(v=turn << 33 | turn)
        queue.commands().write(data.view(8 * (turn + 1), 8), turn).submit()
    queue.synchronize()
    assert list(words[:102]) == [100 << 33 | 100, 100 << 33 | 100, *range(1, 101)]
    assert queue.hardware.write_pointer == 2 * 200  # packets


def test_queues_of_a_board_of_several_xccs_wait_for_each_other(board):
    data, gate = board.alloc(16), board.timeline("gate")
    compute, other, copy = board.compute_queue(), board.compute_queue(), board.copy_queue()
    stamps = board.timestamps(2)
    first = compute.commands().wait(gate.point(7)).timestamp(stamps[0]).write(data, 5).submit()
    second = copy.commands().wait(first).copy(data.view(8, 8), data.view(0, 8)).submit()
    third = other.commands().wait(second).write(data, 6).timestamp(stamps[1]).submit()
    with pytest.raises(DeviceHang):
        third.wait(timeout_ms=20)
    other_gate = board.timeline("other")
    board.compute_queue().commands().signal(other_gate.point(3)).submit()
    other_gate.point(3).wait()
    gate.signal(7)
    third.wait()
    assert list(data.cpu_view().cast("Q")) == [6, 5]
    assert stamps[0].value_ns < stamps[1].value_ns
