"""AMD's own thunk (libhsakmt 5.2) from open to close on an emulated board; run by a test.

Structures: hsakmttypes.h. What it does: version, topology, memory, events, a PM4 queue that
writes, an SDMA queue that copies, and everything taken down again.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.packets import release_mem, sdma_copy, sdma_fence, write_data
from test.drivers.emulated.stranger import Leader, main, overwrite
from test.drivers.emulated.wrong import WrongSystem

NON_PAGED, HOST_ACCESS, EXECUTE, COARSE = 1 << 0, 1 << 6, 1 << 12, 1 << 13
NO_SUBSTITUTE = 1 << 7
QUEUE_COMPUTE, QUEUE_SDMA = 1, 2
NODE = 1


class Event(ctypes.Structure):
    """HsaEvent; `mailbox` is EventData.HWData2."""

    _pack_ = 4
    _fields_ = (("id", ctypes.c_uint32), ("kind", ctypes.c_uint32), ("data", ctypes.c_uint32 * 5),
                ("handle", ctypes.c_uint64), ("mailbox", ctypes.c_uint64))


class QueueResource(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint64), ("doorbell", ctypes.c_uint64),
                ("write", ctypes.c_uint64), ("read", ctypes.c_uint64), ("error", ctypes.c_uint64))


def check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"{what} returned {status}")


def until(condition: Any) -> None:
    deadline = time.monotonic() + 3
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("did not happen")
        time.sleep(0.0005)


class Thunk:
    def __init__(self, leader: Leader, path: str) -> None:
        self.library = ctypes.CDLL(path)
        overwrite(path, leader.functions)

    def call(self, name: str, *arguments: Any) -> None:
        check(getattr(self.library, f"hsaKmt{name}")(*arguments), name)

    def alloc(self, size: int, flags: int, node: int = NODE) -> int:
        address = ctypes.c_void_p()
        self.call("AllocMemory", node, ctypes.c_uint64(size), ctypes.c_uint32(flags),
                  ctypes.byref(address))
        alternate = ctypes.c_uint64()
        self.call("MapMemoryToGPU", address, ctypes.c_uint64(size), ctypes.byref(alternate))
        return address.value or 0

    def free(self, address: int, size: int) -> None:
        self.call("UnmapMemoryToGPU", ctypes.c_void_p(address))
        self.call("FreeMemory", ctypes.c_void_p(address), ctypes.c_uint64(size))

    def event(self) -> Any:
        descriptor = (ctypes.c_uint32 * 6)(0, NODE)
        event = ctypes.POINTER(Event)()
        self.call("CreateEvent", descriptor, False, False, ctypes.byref(event))
        return event

    def queue(self, kind: int, ring: int, size: int) -> QueueResource:
        resource = QueueResource()
        self.call("CreateQueue", NODE, kind, 100, 0, ctypes.c_void_p(ring),
                  ctypes.c_uint64(size), None, ctypes.byref(resource))
        return resource


def words(address: int, values: list[int]) -> None:
    (ctypes.c_uint32 * len(values)).from_address(address)[:] = values


def task(system: EmulatedSystem, leader: Leader) -> None:
    thunk = Thunk(leader, sys.argv[4])
    thunk.call("OpenKFD")
    version = (ctypes.c_uint32 * 2)()
    thunk.call("GetVersion", version)
    assert version[0] == 1, list(version)
    properties = (ctypes.c_uint32 * 4)()
    thunk.call("AcquireSystemProperties", properties)
    assert properties[0] == 2, list(properties)
    node = (ctypes.c_uint32 * 512)()
    thunk.call("GetNodeProperties", NODE, node)
    text = system.files()["/sys/devices/virtual/kfd/kfd/topology/nodes/1/properties"]
    served = dict(line.split() for line in text.splitlines())
    assert node[1] == int(served["simd_count"]) and node[11] == int(served["wave_front_size"])

    memory_type = 0 if int(served["gfx_target_version"]) < 100000 else 3
    size = 1 << 16
    host = thunk.alloc(size, HOST_ACCESS | EXECUTE | NO_SUBSTITUTE, node=0)
    visible = thunk.alloc(size, HOST_ACCESS | NON_PAGED | COARSE)
    ring, copies = (thunk.alloc(4096, HOST_ACCESS | EXECUTE, node=0) for _ in range(2))

    compute = thunk.queue(QUEUE_COMPUTE, ring, 4096)
    event = thunk.event()
    mailbox = event.contents.mailbox
    number = event.contents.id
    packets = (write_data(visible, 0x1234, 0x5678) + release_mem(host, 99)
               + release_mem(mailbox, number, interrupt=2, context=number))
    words(ring, packets)
    ctypes.c_uint64.from_address(compute.write).value = len(packets)
    ctypes.c_uint64.from_address(compute.doorbell).value = len(packets)
    thunk.call("WaitOnEvent", event, 2000)
    assert ctypes.c_uint64.from_address(host).value == 99
    assert ctypes.c_uint64.from_address(visible).value == 0x567800001234
    assert ctypes.c_uint32.from_address(compute.read).value == len(packets)

    sdma = thunk.queue(QUEUE_SDMA, copies, 4096)
    packets = sdma_copy(visible, host + 4096, 4096) + sdma_fence(host + 8, 7, memory_type)
    words(copies, packets)
    ctypes.c_uint64.from_address(sdma.write).value = 4 * len(packets)
    ctypes.c_uint64.from_address(sdma.doorbell).value = 4 * len(packets)
    until(lambda: ctypes.c_uint32.from_address(host + 8).value == 7)
    assert ctypes.c_uint64.from_address(host + 4096).value == 0x567800001234

    thunk.call("DestroyQueue", ctypes.c_uint64(compute.id))
    thunk.call("DestroyQueue", ctypes.c_uint64(sdma.id))
    thunk.call("DestroyEvent", event)
    for address, held in ((host, size), (visible, size), (ring, 4096), (copies, 4096)):
        thunk.free(address, held)
    thunk.call("ReleaseSystemProperties")
    thunk.call("CloseKFD")


if __name__ == "__main__":
    main(task, WrongSystem(*sys.argv[2:4]))
