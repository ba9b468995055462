"""What the arguments of KFD's ioctls point to: arrays that go along, and descriptors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from autogen import kfd

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
    """The program's own memory that an allocation is to be made of."""
    if request & 0xFF != kfd.AMDKFD_IOC_ALLOC_MEMORY_OF_GPU & 0xFF:
        return None
    args = _parse(_ALLOCATE, given)
    kinds = kfd.KFD_IOC_ALLOC_MEM_FLAGS_VRAM | kfd.KFD_IOC_ALLOC_MEM_FLAGS_GTT
    if args.flags & kinds or not args.flags & kfd.KFD_IOC_ALLOC_MEM_FLAGS_USERPTR:
        return None
    return (args.mmap_offset, args.size) if args.mmap_offset else None
