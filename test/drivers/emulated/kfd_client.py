"""A program of a few lines that talks to /dev/kfd as a driver does, for tests of the board."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

from autogen import kfd
from drivers.emulated.system import EmulatedSystem
from drivers.system import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE

MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000
RW = PROT_READ | PROT_WRITE
PATIENCE_S = 300  # for what must come: a busy machine translates a kernel as slowly as it likes
TOPOLOGY = "/sys/devices/virtual/kfd/kfd/topology"
F = {name: getattr(kfd, f"KFD_IOC_ALLOC_MEM_FLAGS_{name}") for name in (
    "VRAM", "GTT", "USERPTR", "DOORBELL", "MMIO_REMAP", "WRITABLE", "EXECUTABLE", "PUBLIC",
    "COHERENT", "UNCACHED", "AQL_QUEUE_MEM", "NO_SUBSTITUTE")}
HOST = F["GTT"] | F["COHERENT"] | F["UNCACHED"] | F["WRITABLE"] | F["EXECUTABLE"] | F["PUBLIC"]
VISIBLE = F["VRAM"] | F["PUBLIC"] | F["WRITABLE"] | F["EXECUTABLE"] | F["NO_SUBSTITUTE"]


def type3(opcode: int, *body: int) -> list[int]:
    return [3 << 30 | len(body) - 1 << 16 | opcode << 8 | 2, *body]


def split(value: int) -> tuple[int, int]:
    return value & 0xFFFFFFFF, value >> 32


class Memory:
    def __init__(self, client: Client, gpu: int, address: int, size: int, args: Any) -> None:
        self.client, self.gpu, self.address, self.size = client, gpu, address, size
        self.handle, self.offset = args.handle, args.mmap_offset

    def u32(self, at: int = 0) -> Any:
        return ctypes.c_uint32.from_address(self.address + at)

    def u64(self, at: int = 0) -> Any:
        return ctypes.c_uint64.from_address(self.address + at)

    def bytes(self, at: int = 0, size: int | None = None) -> bytes:
        return ctypes.string_at(self.address + at, self.size - at if size is None else size)

    def free(self) -> None:
        self.client.unmap(self.handle, self.gpu)
        self.client.call("FREE_MEMORY_OF_GPU", handle=self.handle)
        self.client.system.munmap(self.address, self.size)


class Queue:
    """A ring with its pointers; `put` writes words (PM4) and rings."""

    def __init__(self, client: Client, kind: int, gpu: int = 0, ring_bytes: int = 4096) -> None:
        self.client, self.kind = client, kind
        self.ring = client.alloc(ring_bytes, HOST, gpu)
        self.pointers = client.alloc(4096, HOST, gpu)
        self.memories = [self.ring, self.pointers]
        more: dict[str, int] = {}
        if kind in (0, 2):
            board = client.boards[gpu]
            eop = client.alloc(4096, VISIBLE, gpu)
            total = (board.cwsr_bytes + board.debug_memory_bytes) * board.num_xcc
            cwsr = client.alloc((total + 4095) & -4096, HOST, gpu)
            self.memories += [eop, cwsr]
            more = {"eop_buffer_address": eop.address, "eop_buffer_size": 4096,
                    "ctx_save_restore_address": cwsr.address,
                    "ctx_save_restore_size": board.cwsr_bytes,
                    "ctl_stack_size": board.ctl_stack_bytes}
        read, write = (128, 56) if kind == 2 else (0, 64)  # of amd_queue_t
        self.create = {
            "ring_base_address": self.ring.address, "ring_size": ring_bytes,
            "read_pointer_address": self.pointers.address + read,
            "write_pointer_address": self.pointers.address + write,
            "gpu_id": client.gpu_ids[gpu], "queue_type": kind, "queue_percentage": 100,
            "queue_priority": 7, **more,
        }
        args = client.call("CREATE_QUEUE", **self.create)
        self.number = args.queue_id
        page = client.doorbell_page(args.doorbell_offset & ~0x1FFF)
        self.doorbell = ctypes.c_uint64.from_address(page + (args.doorbell_offset & 0x1FFF))
        self.doorbell_address = ctypes.addressof(self.doorbell)
        self.written = 0  # dwords

    @property
    def unit(self) -> int:
        return 4 if self.kind in (1, 3) else 1

    def put(self, *packets: list[int]) -> None:
        size = self.ring.size // 4
        for word in (word for packet in packets for word in packet):
            self.ring.u32(self.written % size * 4).value = word
            self.written += 1
        self.ring_doorbell()

    def ring_doorbell(self) -> None:
        self.pointers.u64(64).value = self.written * self.unit
        self.doorbell.value = self.written * self.unit

    def read_pointer(self) -> int:
        return int(self.pointers.u64(0).value)

    def idle(self) -> bool:
        size = self.ring.size // 4
        if self.kind == 0:
            return self.read_pointer() == self.written % size
        return self.read_pointer() == self.written * self.unit

    def wait_idle(self) -> None:
        until(self.idle)

    def destroy(self) -> None:
        self.client.call("DESTROY_QUEUE", queue_id=self.number)
        for memory in self.memories:
            memory.free()


def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.0002)


class Client:
    """Opens everything in the order of a driver."""

    def __init__(self, system: EmulatedSystem, acquire: bool = True) -> None:
        from drivers.emulated.amd.machine import parse

        self.system = system
        self.boards = [gpu.board for gpu in parse(system.description).gpus]
        self.kfd = system.open("/dev/kfd", os.O_RDWR)
        self.render = [
            system.open(f"/dev/dri/renderD{128 + i}", os.O_RDWR) for i in range(len(self.boards))
        ]
        self.gpu_ids = [
            int(self.read(f"{TOPOLOGY}/nodes/{1 + i}/gpu_id")) for i in range(len(self.boards))
        ]
        self.pages: dict[int, int] = {}
        if acquire:
            for gpu_id, render in zip(self.gpu_ids, self.render, strict=True):
                self.call("ACQUIRE_VM", drm_fd=render, gpu_id=gpu_id)

    def read(self, path: str) -> str:
        descriptor = self.system.open(path, os.O_RDONLY)
        try:
            return self.system.read(descriptor, 65536).decode()
        finally:
            self.system.close(descriptor)

    def properties(self, path: str) -> dict[str, int]:
        """The `name value` lines of a file of the topology."""
        lines = self.read(f"{TOPOLOGY}/{path}").splitlines()
        return {name: int(value) for name, value in map(str.split, lines)}

    def call(self, name: str, **values: Any) -> Any:
        request = getattr(kfd, f"AMDKFD_IOC_{name}")
        names = {"GET_PROCESS_APERTURES_NEW": "get_process_apertures_new",
                 "AVAILABLE_MEMORY": "get_available_memory"}
        kind = getattr(kfd, f"struct_kfd_ioctl_{names.get(name, name.lower())}_args")
        args = kind(**values)
        self.last = args
        self.system.ioctl(self.kfd, request, ctypes.addressof(args))
        return args

    def reserve(self, size: int) -> int:
        return self.system.mmap(size, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)

    def alloc(self, size: int, flags: int, gpu: int = 0, map_to_gpu: bool = True) -> Memory:
        address = self.reserve(size)
        args = self.call("ALLOC_MEMORY_OF_GPU", va_addr=address, size=size, flags=flags,
                         gpu_id=self.gpu_ids[gpu])
        if flags & (F["PUBLIC"] | F["GTT"]):
            held = size // 2 if flags & F["AQL_QUEUE_MEM"] else size
            for at in range(0, size, held):
                self.system.mmap(held, RW, MAP_SHARED | MAP_FIXED, self.render[gpu],
                                 args.mmap_offset, address + at)
        if map_to_gpu:
            self.map(args.handle, gpu)
        return Memory(self, gpu, address, size, args)

    def map(self, handle: int, *gpus: int) -> Any:
        ids = (ctypes.c_uint32 * len(gpus))(*(self.gpu_ids[gpu] for gpu in gpus))
        return self.call("MAP_MEMORY_TO_GPU", handle=handle, n_devices=len(gpus),
                         device_ids_array_ptr=ctypes.addressof(ids))

    def unmap(self, handle: int, *gpus: int) -> Any:
        ids = (ctypes.c_uint32 * len(gpus))(*(self.gpu_ids[gpu] for gpu in gpus))
        return self.call("UNMAP_MEMORY_FROM_GPU", handle=handle, n_devices=len(gpus),
                         device_ids_array_ptr=ctypes.addressof(ids))

    def doorbell_page(self, offset: int) -> int:
        if offset not in self.pages:
            self.pages[offset] = self.system.mmap(8192, RW, MAP_SHARED, self.kfd, offset)
        return self.pages[offset]

    def event_page(self) -> Memory:
        page = self.alloc(0x8000, HOST)
        self.page = page
        return page

    def create_event(self, kind: int = 0, auto_reset: int = 1, page: int = 0) -> Any:
        return self.call("CREATE_EVENT", event_type=kind, auto_reset=auto_reset,
                         event_page_offset=page)

    def wait(
        self, *ids: int, timeout: int = 1000 * PATIENCE_S, wait_all: int = 0, ages: Any = None
    ) -> Any:
        events = (kfd.struct_kfd_event_data * len(ids))()
        for number, (entry, event_id) in enumerate(zip(events, ids, strict=True)):
            entry.event_id = event_id
            if ages:
                entry.signal_event_data.last_event_age = ages[number]
        args = self.call("WAIT_EVENTS", events_ptr=ctypes.addressof(events), num_events=len(ids),
                         wait_for_all=wait_all, timeout=timeout)
        return args.wait_result, events

    def close(self) -> None:
        for page in self.pages.values():
            self.system.munmap(page, 8192)
        for descriptor in (*self.render, self.kfd):
            self.system.close(descriptor)
