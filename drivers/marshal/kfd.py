"""What the arguments of KFD's ioctls point to: arrays that go along, and descriptors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from autogen import kfd
from drivers.system import PAGE_BYTES

ARRAY_BYTES_LIMIT = 1 << 20

_Size = Callable[[Any], int]

# number: structure, field of the pointer, bytes that it points to
_ARRAYS: dict[int, tuple[type[ctypes.Structure], str, _Size]] = {
    kfd.AMDKFD_IOC_GET_PROCESS_APERTURES_NEW & 0xFF: (
        kfd.struct_kfd_ioctl_get_process_apertures_new_args, "kfd_process_device_apertures_ptr",
        lambda args: args.num_of_nodes * ctypes.sizeof(kfd.struct_kfd_process_device_apertures),
    ),
    kfd.AMDKFD_IOC_WAIT_EVENTS & 0xFF: (
        kfd.struct_kfd_ioctl_wait_events_args, "events_ptr",
        lambda args: args.num_events * ctypes.sizeof(kfd.struct_kfd_event_data),
    ),
    kfd.AMDKFD_IOC_MAP_MEMORY_TO_GPU & 0xFF: (
        kfd.struct_kfd_ioctl_map_memory_to_gpu_args, "device_ids_array_ptr",
        lambda args: args.n_devices * 4,
    ),
    kfd.AMDKFD_IOC_UNMAP_MEMORY_FROM_GPU & 0xFF: (
        kfd.struct_kfd_ioctl_unmap_memory_from_gpu_args, "device_ids_array_ptr",
        lambda args: args.n_devices * 4,
    ),
    kfd.AMDKFD_IOC_SET_CU_MASK & 0xFF: (
        kfd.struct_kfd_ioctl_set_cu_mask_args, "cu_mask_ptr",
        lambda args: args.num_cu_mask // 32 * 4,
    ),
}

_DESCRIPTORS = {
    kfd.AMDKFD_IOC_ACQUIRE_VM & 0xFF: kfd.struct_kfd_ioctl_acquire_vm_args.drm_fd.offset,
}

_ALLOCATE = kfd.struct_kfd_ioctl_alloc_memory_of_gpu_args


def _parse(structure: type[ctypes.Structure], given: bytearray) -> Any:
    return structure.from_buffer_copy(bytes(given).ljust(ctypes.sizeof(structure), b"\0"))


def arrays(request: int, given: bytearray) -> list[tuple[int, int, int]]:
    """(offset of the pointer, address, bytes) of every array that a call points to."""
    entry = _ARRAYS.get(request & 0xFF)
    if entry is None:
        return []
    structure, name, size = entry
    args = _parse(structure, given)
    count = min(size(args), ARRAY_BYTES_LIMIT)
    return [(getattr(structure, name).offset, getattr(args, name), count)] if count else []


def descriptors(request: int, given: bytearray) -> list[int]:
    """The offsets of descriptors in an argument."""
    place = _DESCRIPTORS.get(request & 0xFF)
    return [] if place is None or place + 4 > len(given) else [place]


def user_range(request: int, given: bytearray) -> tuple[int, int] | None:
    """The pages of the program's own memory that an allocation is to be made of."""
    if request & 0xFF != kfd.AMDKFD_IOC_ALLOC_MEMORY_OF_GPU & 0xFF:
        return None
    args = _parse(_ALLOCATE, given)
    kinds = kfd.KFD_IOC_ALLOC_MEM_FLAGS_VRAM | kfd.KFD_IOC_ALLOC_MEM_FLAGS_GTT
    if args.flags & kinds or not args.flags & kfd.KFD_IOC_ALLOC_MEM_FLAGS_USERPTR:
        return None
    if not args.mmap_offset or not args.size:
        return None
    return args.mmap_offset & -PAGE_BYTES, -(-args.size // PAGE_BYTES) * PAGE_BYTES


# ---- what recordings need besides ----

PREFIXES = ("/dev/kfd", "/dev/dri/", "/sys/class/kfd/", "/sys/devices/virtual/kfd/",
            "/sys/class/drm/")
_CREATE_QUEUE = kfd.struct_kfd_ioctl_create_queue_args
_CREATE_EVENT = kfd.struct_kfd_ioctl_create_event_args
_EVENT = kfd.struct_kfd_event_data
_CALL = 0xFFFF  # of a request: its type and number (asm-generic/ioctl.h)
_UNSTEADY = {
    number & _CALL
    for number in (
        kfd.AMDKFD_IOC_WAIT_EVENTS, kfd.AMDKFD_IOC_GET_CLOCK_COUNTERS,
        kfd.AMDKFD_IOC_AVAILABLE_MEMORY,
    )
}
_NAMES = {
    value & _CALL: name for name, value in vars(kfd).items()
    if name.startswith("AMDKFD_IOC_") and isinstance(value, int)
}


def is_memory(path: str) -> bool:
    """Render nodes map memory; /dev/kfd maps doorbells."""
    return path.startswith("/dev/dri/")


def device_owned(
    request: int, given: bytearray, after: bytearray, notes: dict[int, tuple[int, int]]
) -> list[tuple[int, int]]:
    """A queue's read pointer; the page of event mailboxes, which CREATE_EVENT may bring."""
    name = name_of(request)
    if name == "AMDKFD_IOC_ALLOC_MEMORY_OF_GPU":
        args = _parse(_ALLOCATE, after)
        notes[args.handle] = (args.va_addr, args.size)
    elif name == "AMDKFD_IOC_CREATE_QUEUE":
        return [(_parse(_CREATE_QUEUE, given).read_pointer_address, 8)]
    elif name == "AMDKFD_IOC_CREATE_EVENT":
        page = notes.get(_parse(_CREATE_EVENT, given).event_page_offset)
        return [page] if page else []
    return []


def steady(request: int) -> bool:
    """Whether the same call gives the same answer."""
    return request & _CALL not in _UNSTEADY


def fault(request: int, array: bytes) -> str:
    """WAIT_EVENTS tells of page faults and resets. (A signal's part of the union is shorter.)"""
    if name_of(request) != "AMDKFD_IOC_WAIT_EVENTS":
        return ""
    size = ctypes.sizeof(_EVENT)
    for at in range(0, len(array) - size + 1, size):
        event = _EVENT.from_buffer_copy(array, at)
        memory, hardware = event.memory_exception_data, event.hw_exception_data
        if memory.gpu_id:
            flags = [name for name, *_ in memory.failure._fields_ if getattr(memory.failure, name)]
            return f"a memory exception at {memory.va:#x} ({', '.join(flags)})"
        if hardware.gpu_id:
            return f"a hardware exception (reset cause {hardware.reset_cause})"
    return ""


def name_of(request: int) -> str:
    """AMDKFD_IOC_..., or the number."""
    return _NAMES.get(request & _CALL, f"ioctl {request:#x}")


def structure_of(request: int) -> type[ctypes.Structure] | None:
    """The structure that an ioctl's argument points to, if the headers name it alike."""
    stem = name_of(request).removeprefix("AMDKFD_IOC_").lower()
    return getattr(kfd, f"struct_kfd_ioctl_{stem}_args", None)


def field_at(request: int, offset: int) -> str:
    """The field that a byte belongs to, or its offset."""
    structure = structure_of(request)
    for name, *_ in getattr(structure, "_fields_", ()):
        place = getattr(structure, name)
        if place.offset <= offset < place.offset + place.size:
            return str(name)
    return f"byte {offset}"
