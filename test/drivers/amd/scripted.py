"""A System that plays the kernel driver from a script: checks every argument, runs nothing.

It answers what a gfx1100's kernel driver would, remembers each ioctl by name with the bytes of
its argument as they came, and gives ordinary memory where the driver asks for the GPU's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable

from autogen import kfd
from drivers.amd.topology import NODES
from drivers.system import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, RealSystem, StackedSystem

GPU_ID = 0x5A17
PROPERTIES = {
    "simd_count": 192, "simd_per_cu": 2, "array_count": 12, "simd_arrays_per_engine": 2,
    "max_waves_per_simd": 16, "max_slots_scratch_cu": 32, "lds_size_in_kb": 64,
    "wave_front_size": 32, "gfx_target_version": 110000, "drm_render_minor": 128,
    "num_sdma_engines": 2, "num_sdma_queues_per_engine": 8, "num_xcc": 1, "mem_banks_count": 1,
    "fw_version": 2280, "sdma_fw_version": 24,
}
NAMES = {
    value: name.removeprefix("AMDKFD_IOC_")
    for name, value in vars(kfd).items()
    if name.startswith("AMDKFD_IOC_")
}
STRUCTURES = {
    name: getattr(kfd, f"struct_kfd_ioctl_{name.lower()}_args", None) for name in NAMES.values()
}
STRUCTURES["AVAILABLE_MEMORY"] = kfd.struct_kfd_ioctl_get_available_memory_args


def lines(properties: dict[str, int]) -> str:
    return "".join(f"{name} {value}\n" for name, value in properties.items())


class ScriptedSystem(StackedSystem):
    def __init__(self, **changes: int) -> None:
        super().__init__(RealSystem())
        self.files = {
            f"{NODES}/0/gpu_id": "0\n",
            f"{NODES}/1/gpu_id": f"{GPU_ID}\n",
            f"{NODES}/1/properties": lines({**PROPERTIES, **changes}),
            f"{NODES}/1/mem_banks/0/properties": "heap_type 1\nsize_in_bytes 25753026560\n",
        }
        self.version = (1, 17)
        self.calls: list[tuple[str, bytes]] = []
        self.failures: dict[str, int] = {}  # ioctl → errno, for good
        self.reading: dict[int, bytes] = {}
        self.handles: dict[int, tuple[int, int]] = {}
        self.mapped: set[int] = set()
        self.queues: set[int] = set()
        self.events: set[int] = set()
        self.numbers = iter(range(1, 1 << 20))
        self.waited: Callable[[kfd.struct_kfd_ioctl_wait_events_args], None] | None = None

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def argument(self, name: str, nth: int = 0):
        found = [content for each, content in self.calls if each == name][nth]
        return STRUCTURES[name].from_buffer_copy(found)

    def open(self, path: str, flags: int) -> int:
        if path in ("/dev/kfd", "/dev/dri/renderD128"):
            if path in self.failures:
                raise OSError(self.failures[path], path)
            return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if not path.startswith("/sys/"):
            return super().open(path, flags)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, path)
        descriptor = os.open("/dev/null", os.O_RDONLY)
        self.reading[descriptor] = self.files[path].encode()
        return descriptor

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        content = self.reading[descriptor]
        self.reading[descriptor] = content[size_bytes:]
        return content[:size_bytes]

    def mmap(self, size_bytes, protection, flags, descriptor, offset, address=0):
        if descriptor >= 0 and stat.S_ISCHR(os.fstat(descriptor).st_mode):
            # A node: the GPU's memory, or its doorbells.
            flags, descriptor = MAP_PRIVATE | MAP_ANONYMOUS | (flags & MAP_FIXED), -1
        return super().mmap(size_bytes, protection, flags, descriptor, offset, address)

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        name = NAMES[request]
        structure = STRUCTURES[name].from_address(argument)
        self.calls.append((name, ctypes.string_at(argument, ctypes.sizeof(structure))))
        if name in self.failures:
            raise OSError(self.failures[name], name)
        getattr(self, name.lower(), lambda given: None)(structure)
        return 0

    def get_version(self, given) -> None:
        given.major_version, given.minor_version = self.version

    def alloc_memory_of_gpu(self, given) -> None:
        assert given.va_addr and not given.va_addr % 4096
        assert given.size and not given.size % 4096
        assert given.gpu_id == GPU_ID
        given.handle = next(self.numbers)
        if not given.flags & kfd.KFD_IOC_ALLOC_MEM_FLAGS_USERPTR:
            given.mmap_offset = given.handle << 12
        self.handles[given.handle] = (given.va_addr, given.size)

    def free_memory_of_gpu(self, given) -> None:
        assert given.handle not in self.mapped, "freed while the GPU reaches it"
        del self.handles[given.handle]

    def map_memory_to_gpu(self, given) -> None:
        assert given.handle in self.handles
        self.mapped.add(given.handle)
        given.n_success = given.n_devices

    def unmap_memory_from_gpu(self, given) -> None:
        self.mapped.remove(given.handle)
        given.n_success = given.n_devices

    def create_event(self, given) -> None:
        given.event_id = given.event_slot_index = next(self.numbers)
        self.events.add(given.event_id)

    def destroy_event(self, given) -> None:
        self.events.remove(given.event_id)

    def wait_events(self, given) -> None:
        given.wait_result = kfd.KFD_IOC_WAIT_RESULT_TIMEOUT
        if self.waited is not None:
            self.waited(given)

    def block_at(self, address: int) -> int:
        """The size of the allocation that starts at an address."""
        return next(size for start, size in self.handles.values() if start == address)

    def create_queue(self, given) -> None:
        assert self.block_at(given.ring_base_address) == given.ring_size
        assert self.block_at(given.write_pointer_address & -4096) == 4096
        if given.queue_type == kfd.KFD_IOC_QUEUE_TYPE_COMPUTE:
            assert self.block_at(given.eop_buffer_address) == given.eop_buffer_size == 4096
        given.queue_id = next(self.numbers)
        given.doorbell_offset = 0x4000_0000_0000_0000 | given.queue_id % 1024 * 8
        self.queues.add(given.queue_id)

    def destroy_queue(self, given) -> None:
        self.queues.remove(given.queue_id)

    def get_clock_counters(self, given) -> None:
        given.gpu_clock_counter, given.system_clock_counter = 1_000_000, 5_000_000_000
        given.system_clock_freq = 1_000_000_000
