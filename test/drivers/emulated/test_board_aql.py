"""AQL queues of the emulated board: dispatches, barriers, completion signals, PM4 inside."""

from __future__ import annotations

import ctypes
import struct
import time

import pytest

from autogen import hsa, kfd
from test.drivers.emulated import gpu
from test.drivers.emulated.kfd_client import HOST, VISIBLE, Client, Memory, Queue, until
from test.drivers.emulated.packets import indirect, write_data
from test.drivers.emulated.test_board_dispatch import SCALE

INVALID, KERNEL, BARRIER_AND, BARRIER_OR, VENDOR = 1, 2, 3, 5, 0


class AqlQueue:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.queue = Queue(client, 2, ring_bytes=4096)
        self.signals = client.alloc(4096, HOST)
        self.written = 0
        for slot in range(64):
            self.queue.ring.u32(64 * slot).value = INVALID

    def signal(self, number: int, value: int = 1, event: int = 0, mailbox: int = 0) -> int:
        layout = hsa.struct_amd_signal_s
        at = 64 * number
        self.signals.u64(at).value = 1
        self.signals.u64(at + layout._0.offset).value = value
        self.signals.u64(at + layout.event_mailbox_ptr.offset).value = mailbox
        self.signals.u32(at + layout.event_id.offset).value = event
        return self.signals.address + at

    def value(self, number: int) -> int:
        return int(self.signals.u64(64 * number + hsa.struct_amd_signal_s._0.offset).value)

    def put(self, packet: bytes, header: int, ring: bool = True) -> None:
        at = self.queue.ring.address + self.written % 64 * 64
        ctypes.memmove(at + 4, packet[4:].ljust(60, b"\0"), 60)
        first = header | int.from_bytes(packet[2:4], "little") << 16
        ctypes.c_uint32.from_address(at).value = first
        self.written += 1
        self.queue.pointers.u64(56).value = self.written
        if ring:
            self.queue.doorbell.value = self.written - 1

    def barrier(self, dependencies: list[int], completion: int, kind: int = BARRIER_AND) -> None:
        packet = bytes(8) + struct.pack("<5Q", *dependencies, *[0] * (5 - len(dependencies)))
        self.put(packet + bytes(8) + struct.pack("<Q", completion), kind | 1 << 8)


@pytest.fixture
def aql(client: Client) -> AqlQueue:
    return AqlQueue(client)


def load(client: Client) -> tuple[gpu.Kernel, Memory]:
    """A code object's essence: descriptor at 0, code at 256."""
    kernel = gpu.compile_kernel(SCALE)
    code = client.alloc(1 << 14, VISIBLE)
    ctypes.memmove(code.address + 256, kernel.entry, len(kernel.code) - 256)
    ids = sum(1 << 7 + axis for axis in range(3) if kernel.group_ids[axis] >= 0)
    descriptor = bytearray(64)
    struct.pack_into("<q", descriptor, 16, 256)
    struct.pack_into("<IIH", descriptor, 48, kernel.float_mode << 12, kernel.scalars << 1 | ids,
                     1 << 3 | 1 << 10)  # kernarg pointer, wave32
    ctypes.memmove(code.address, bytes(descriptor), 64)
    return kernel, code


def test_a_dispatch_runs_and_completes(client: Client, aql: AqlQueue) -> None:
    _, code = load(client)
    out, kernarg = client.alloc(4096, VISIBLE), client.alloc(4096, HOST)
    page = client.event_page()
    event = client.create_event(page=page.handle).event_id
    signal = aql.signal(0, 1, event, page.address + 8 * event)
    ctypes.memmove(kernarg.address, struct.pack("<QI", out.address, 11), 12)
    aql.put(struct.pack("<2xH3H2x3I2I4Q", 1, 64, 1, 1, 256, 1, 1, 0, 0, code.address,
                        kernarg.address, 0, signal), KERNEL | 1 << 8 | 2 << 9 | 2 << 11)
    assert client.wait(event)[0] == 0
    assert aql.value(0) == 0
    assert [out.u32(4 * i).value for i in range(256)] == [3 * i + 11 for i in range(256)]
    layout = hsa.struct_amd_signal_s
    started = aql.signals.u64(layout.start_ts.offset).value
    assert 0 < started <= aql.signals.u64(layout.end_ts.offset).value
    until(lambda: aql.queue.pointers.u64(128).value == 1)
    assert aql.queue.ring.u32().value & 0xFF == INVALID
    aql.queue.destroy()


def test_barriers_wait_for_signals(aql: AqlQueue) -> None:
    first, second, third = (aql.signal(i) for i in range(3))
    aql.barrier([first, second], aql.signal(3))
    time.sleep(0.01)
    aql.signal(0, 0)
    time.sleep(0.01)
    assert aql.value(3) == 1
    aql.signal(1, 0)
    until(lambda: aql.value(3) == 0)
    aql.signal(1, 1)
    aql.signal(0, 1)
    aql.barrier([first, third], aql.signal(4), BARRIER_OR)
    time.sleep(0.01)
    assert aql.value(4) == 1
    aql.signal(2, 0)
    until(lambda: aql.value(4) == 0)
    aql.queue.destroy()


def test_the_ring_wraps_and_the_header_comes_last(aql: AqlQueue) -> None:
    for number in range(200):
        aql.barrier([], aql.signal(number % 8))
        until(lambda number=number: aql.value(number % 8) == 0)  # type: ignore[misc]
    aql.queue.doorbell.value = aql.written  # rung before the header is there
    time.sleep(0.01)
    aql.put(bytes(56) + struct.pack("<Q", aql.signal(9)), BARRIER_AND, ring=False)
    until(lambda: aql.value(9) == 0)
    aql.queue.destroy()


def test_pm4_in_a_vendor_packet(client: Client, aql: AqlQueue) -> None:
    memory, code = client.alloc(4096, VISIBLE), client.alloc(4096, HOST)
    words = write_data(memory.address, 0x77)
    for number, word in enumerate(words):
        code.u32(4 * number).value = word
    inner = struct.pack("<4I", *indirect(code.address, len(words)))
    aql.put(struct.pack("<2xH", 1) + inner + struct.pack("<I", 10) + bytes(32)
            + struct.pack("<Q", aql.signal(0)), VENDOR | 1 << 8)
    until(lambda: aql.value(0) == 0)
    assert memory.u32().value == 0x77
    aql.queue.destroy()


def test_an_unknown_packet_is_a_hardware_exception(client: Client, aql: AqlQueue) -> None:
    event = client.create_event(kind=kfd.KFD_IOC_EVENT_HW_EXCEPTION).event_id
    aql.put(bytes(64), 77)
    assert client.wait(event)[0] == 0
    assert "type 77" in client.system.log()[-1]
    aql.queue.destroy()
