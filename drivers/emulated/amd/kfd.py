"""/dev/kfd: the ioctls of one process, with the kernel's checks and errnos (kfd_chardev.c).

The modelled kernel is Linux 6.12 (KFD interface 1.17). Memory, queues and events have files of
their own; here is what is left, and the table that says which ioctl is whose.
"""

from __future__ import annotations

import ctypes
import errno
import time
from collections.abc import Callable
from typing import Any

from autogen import kfd
from drivers.emulated.amd import events, memory, queues
from drivers.emulated.amd.clock import gpu_clock, system_clock
from drivers.emulated.amd.process import KfdProcess
from drivers.emulated.model import Call, OpenFile

_IOC_READ = 2  # asm-generic/ioctl.h: the kernel writes back

# Apertures of gfx9 and later (kfd_flat_memory.c); the limit of gpuvm is what user space can map.
LDS_BASE, SCRATCH_BASE, APERTURE_BYTES = 1 << 48, 2 << 48, 1 << 32
GPUVM_BASE, GPUVM_LIMIT = 0x1000000, (1 << 47) - 1
APERTURES_BYTES = ctypes.sizeof(kfd.struct_kfd_process_device_apertures)




def _version(process: KfdProcess, args: Any, call: Call) -> None:
    args.major_version = kfd.KFD_IOCTL_MAJOR_VERSION
    args.minor_version = kfd.KFD_IOCTL_MINOR_VERSION


def _clock_counters(process: KfdProcess, args: Any, call: Call) -> None:
    args.gpu_clock_counter = gpu_clock() if process.find_gpu(args.gpu_id) else 0
    args.cpu_clock_counter = system_clock()
    args.system_clock_counter = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    args.system_clock_freq = 1_000_000_000


def _fill_apertures(process: KfdProcess, index: int, entry: Any) -> None:
    entry.gpu_id = process.gpus[index].gpu_id
    entry.lds_base, entry.lds_limit = LDS_BASE, LDS_BASE + APERTURE_BYTES - 1
    entry.scratch_base, entry.scratch_limit = SCRATCH_BASE, SCRATCH_BASE + APERTURE_BYTES - 1
    entry.gpuvm_base, entry.gpuvm_limit = GPUVM_BASE, GPUVM_LIMIT


def _apertures(process: KfdProcess, args: Any, call: Call) -> None:
    args.num_of_nodes = min(len(process.gpus), kfd.NUM_OF_SUPPORTED_GPUS)
    for index in range(args.num_of_nodes):
        _fill_apertures(process, index, args.process_apertures[index])


def _apertures_new(process: KfdProcess, args: Any, call: Call) -> None:
    if not args.num_of_nodes:
        args.num_of_nodes = len(process.gpus)
        return
    array = call.arrays[0]
    count = min(len(process.gpus), len(array) // APERTURES_BYTES)
    for index in range(count):
        entry = kfd.struct_kfd_process_device_apertures.from_buffer(array, index * APERTURES_BYTES)
        _fill_apertures(process, index, entry)
    args.num_of_nodes = count


def _memory_policy(process: KfdProcess, args: Any, call: Call) -> None:
    known = (kfd.KFD_IOC_CACHE_POLICY_COHERENT, kfd.KFD_IOC_CACHE_POLICY_NONCOHERENT)
    if args.default_policy not in known or args.alternate_policy not in known:
        raise OSError(errno.EINVAL, "unknown cache policy")
    process.bound_gpu(args.gpu_id, errno.ESRCH)


def _acquire_vm(process: KfdProcess, args: Any, call: Call) -> None:
    gpu = process.gpu(args.gpu_id)
    file = call.files.get(kfd.struct_kfd_ioctl_acquire_vm_args.drm_fd.offset)
    if file is None:
        raise OSError(errno.EINVAL, "drm_fd is not a descriptor of a render node")
    process.acquire_vm(gpu.index, file)


def _bound(process: KfdProcess, args: Any, call: Call) -> None:
    process.bound_gpu(args.gpu_id, errno.ESRCH)


def _available_memory(process: KfdProcess, args: Any, call: Call) -> None:
    gpu = process.gpu(args.gpu_id)
    free = gpu.board.vram_bytes - process.vram_used[gpu.index]
    args.available = max(0, free) & -(2 << 20)  # rounded down as the kernel does


def _runtime_enable(process: KfdProcess, args: Any, call: Call) -> None:
    enable = bool(args.mode_mask & kfd.KFD_RUNTIME_ENABLE_MODE_ENABLE_MASK)
    if enable and process.runtime_enabled:
        raise OSError(errno.EBUSY, "the runtime is enabled")
    process.runtime_enabled = enable


def _xnack(process: KfdProcess, args: Any, call: Call) -> None:
    if args.xnack_enabled < 0:
        args.xnack_enabled = 0
        return
    if args.xnack_enabled:
        raise OSError(errno.EPERM, "these boards do not retry faults")


def _create_event(process: KfdProcess, args: Any, call: Call) -> None:
    if args.event_page_offset:
        memory.set_event_page(process, args.event_page_offset)
    events.create_event(process.events, args)


def _destroy_event(process: KfdProcess, args: Any, call: Call) -> None:
    process.events.destroy(args.event_id)


def _set_event(process: KfdProcess, args: Any, call: Call) -> None:
    with process.events.changed:
        event = process.events.find(args.event_id)
        if event.kind not in events.SIGNAL_TYPES:
            raise OSError(errno.EINVAL, "only signal events are set")
        process.events.set(event)


def _reset_event(process: KfdProcess, args: Any, call: Call) -> None:
    with process.events.changed:
        event = process.events.find(args.event_id)
        if event.kind not in events.SIGNAL_TYPES:
            raise OSError(errno.EINVAL, "only signal events are reset")
        event.signaled = False


def _wait_events(process: KfdProcess, args: Any, call: Call) -> None:
    events.wait_events(process.events, args, call.arrays.get(0, bytearray()))


Handler = Callable[[KfdProcess, Any, Call], None]

# request: structure, who does it. What is not here has a number that the kernel knows but that
# these boards refuse, or one that it does not know; both are EINVAL.
IOCTLS: dict[int, tuple[type[ctypes.Structure], Handler]] = {
    number & 0xFF: (structure, handler)
    for number, structure, handler in (
        (kfd.AMDKFD_IOC_GET_VERSION, kfd.struct_kfd_ioctl_get_version_args, _version),
        (kfd.AMDKFD_IOC_CREATE_QUEUE, kfd.struct_kfd_ioctl_create_queue_args, queues.create),
        (kfd.AMDKFD_IOC_DESTROY_QUEUE, kfd.struct_kfd_ioctl_destroy_queue_args, queues.destroy),
        (kfd.AMDKFD_IOC_SET_MEMORY_POLICY, kfd.struct_kfd_ioctl_set_memory_policy_args,
         _memory_policy),
        (kfd.AMDKFD_IOC_GET_CLOCK_COUNTERS, kfd.struct_kfd_ioctl_get_clock_counters_args,
         _clock_counters),
        (kfd.AMDKFD_IOC_GET_PROCESS_APERTURES, kfd.struct_kfd_ioctl_get_process_apertures_args,
         _apertures),
        (kfd.AMDKFD_IOC_UPDATE_QUEUE, kfd.struct_kfd_ioctl_update_queue_args, queues.update),
        (kfd.AMDKFD_IOC_CREATE_EVENT, kfd.struct_kfd_ioctl_create_event_args, _create_event),
        (kfd.AMDKFD_IOC_DESTROY_EVENT, kfd.struct_kfd_ioctl_destroy_event_args, _destroy_event),
        (kfd.AMDKFD_IOC_SET_EVENT, kfd.struct_kfd_ioctl_set_event_args, _set_event),
        (kfd.AMDKFD_IOC_RESET_EVENT, kfd.struct_kfd_ioctl_reset_event_args, _reset_event),
        (kfd.AMDKFD_IOC_WAIT_EVENTS, kfd.struct_kfd_ioctl_wait_events_args, _wait_events),
        (kfd.AMDKFD_IOC_SET_SCRATCH_BACKING_VA,
         kfd.struct_kfd_ioctl_set_scratch_backing_va_args, _bound),
        (kfd.AMDKFD_IOC_SET_TRAP_HANDLER, kfd.struct_kfd_ioctl_set_trap_handler_args, _bound),
        (kfd.AMDKFD_IOC_GET_PROCESS_APERTURES_NEW,
         kfd.struct_kfd_ioctl_get_process_apertures_new_args, _apertures_new),
        (kfd.AMDKFD_IOC_ACQUIRE_VM, kfd.struct_kfd_ioctl_acquire_vm_args, _acquire_vm),
        (kfd.AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, kfd.struct_kfd_ioctl_alloc_memory_of_gpu_args,
         memory.allocate),
        (kfd.AMDKFD_IOC_FREE_MEMORY_OF_GPU, kfd.struct_kfd_ioctl_free_memory_of_gpu_args,
         memory.free),
        (kfd.AMDKFD_IOC_MAP_MEMORY_TO_GPU, kfd.struct_kfd_ioctl_map_memory_to_gpu_args,
         memory.map_to_gpu),
        (kfd.AMDKFD_IOC_UNMAP_MEMORY_FROM_GPU, kfd.struct_kfd_ioctl_unmap_memory_from_gpu_args,
         memory.unmap_from_gpu),
        (kfd.AMDKFD_IOC_SET_CU_MASK, kfd.struct_kfd_ioctl_set_cu_mask_args, queues.set_cu_mask),
        (kfd.AMDKFD_IOC_SET_XNACK_MODE, kfd.struct_kfd_ioctl_set_xnack_mode_args, _xnack),
        (kfd.AMDKFD_IOC_AVAILABLE_MEMORY, kfd.struct_kfd_ioctl_get_available_memory_args,
         _available_memory),
        (kfd.AMDKFD_IOC_RUNTIME_ENABLE, kfd.struct_kfd_ioctl_runtime_enable_args,
         _runtime_enable),
    )
}

WITHOUT_LOCK = {kfd.AMDKFD_IOC_WAIT_EVENTS & 0xFF}


class KfdFile(OpenFile):
    """An open /dev/kfd."""

    def __init__(self, process: KfdProcess) -> None:
        self.process = process

    def descriptor(self) -> int:
        """The file that holds the doorbells."""
        return self.process.doorbells.descriptor

    def ioctl(self, call: Call) -> int:
        """Sizes are tolerated as by the kernel: cut off or filled with zeros."""
        entry = IOCTLS.get(call.request & 0xFF)
        if entry is None:
            raise OSError(errno.EINVAL, f"no ioctl {call.request:#x}")
        structure, handler = entry
        given = call.request >> 16 & 0x3FFF
        padded = call.argument[:given].ljust(ctypes.sizeof(structure), b"\0")
        args = structure.from_buffer(padded)
        try:
            if call.request & 0xFF in WITHOUT_LOCK:
                handler(self.process, args, call)
            else:
                with self.process.schedule.call(), self.process.lock:
                    handler(self.process, args, call)
        finally:
            del args
            if call.request >> 30 & _IOC_READ:
                call.argument[:given] = padded[:given].ljust(given, b"\0")
        return 0

    def waits(self, request: int) -> bool:
        """Whether an ioctl may take its time."""
        return request & 0xFF in WITHOUT_LOCK

    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> int:
        """Doorbells and the remapped registers, as a whole."""
        if size_bytes != self.process.doorbell_window(offset):
            raise OSError(errno.EINVAL, f"nothing of {size_bytes} bytes at {offset:#x}")
        return offset

    def close(self) -> None:
        """What the process owns stays until its last node is closed."""


class RenderFile(OpenFile):
    """An open /dev/dri/renderD*: memory is mapped through it."""

    def __init__(self, process: KfdProcess, index: int) -> None:
        self.process, self.index = process, index

    def descriptor(self) -> int:
        """The file that holds this GPU's memory."""
        return self.process.backings[self.index].descriptor

    def ioctl(self, call: Call) -> int:
        """None of DRM's ioctls is modelled."""
        raise OSError(errno.EINVAL, "no DRM ioctl is modelled")

    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> int:
        """An allocation from its start, if the processor may see it."""
        with self.process.lock:
            memory.check_mmap(self.process, self.index, size_bytes, offset)
        return offset

    def close(self) -> None:
        """The process keeps what it acquired through it."""
