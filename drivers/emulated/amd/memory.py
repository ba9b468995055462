"""Memory ioctls: allocate, map, unmap, free, with the checks of amdgpu_amdkfd_gpuvm.c."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

from autogen import kfd
from drivers.emulated.amd.process import (
    DOORBELL_SLICE_BYTES,
    MMIO_REMAP_OFFSET,
    Allocation,
    KfdProcess,
)
from drivers.emulated.memory import EXECUTE, READ, WRITE, Mapping, round_to_pages
from drivers.emulated.model import Call
from drivers.emulated.protocol import Action
from drivers.system import PAGE_BYTES

VRAM = kfd.KFD_IOC_ALLOC_MEM_FLAGS_VRAM
GTT = kfd.KFD_IOC_ALLOC_MEM_FLAGS_GTT
USERPTR = kfd.KFD_IOC_ALLOC_MEM_FLAGS_USERPTR
DOORBELL = kfd.KFD_IOC_ALLOC_MEM_FLAGS_DOORBELL
MMIO_REMAP = kfd.KFD_IOC_ALLOC_MEM_FLAGS_MMIO_REMAP
PUBLIC = kfd.KFD_IOC_ALLOC_MEM_FLAGS_PUBLIC
WRITABLE = kfd.KFD_IOC_ALLOC_MEM_FLAGS_WRITABLE
EXECUTABLE = kfd.KFD_IOC_ALLOC_MEM_FLAGS_EXECUTABLE
AQL_QUEUE_MEM = kfd.KFD_IOC_ALLOC_MEM_FLAGS_AQL_QUEUE_MEM
# Of these no cache keeps anything (gmc_v10_0.c and later, get_vm_pte: MTYPE_UC).
NEVER_CACHED = (
    kfd.KFD_IOC_ALLOC_MEM_FLAGS_COHERENT | kfd.KFD_IOC_ALLOC_MEM_FLAGS_UNCACHED
    | kfd.KFD_IOC_ALLOC_MEM_FLAGS_EXT_COHERENT | DOORBELL | MMIO_REMAP | AQL_QUEUE_MEM
)

KINDS = ((VRAM, "VRAM"), (GTT, "GTT"), (USERPTR, "user pointer"), (DOORBELL, "doorbells"),
         (MMIO_REMAP, "remapped registers"))


def _kind(flags: int) -> int:
    """The first kind that is named, as the kernel looks for them. Raises OSError(EINVAL)."""
    for flag, _ in KINDS:
        if flags & flag:
            return flag
    raise OSError(errno.EINVAL, f"flags {flags:#x} name no kind of memory")


def _reserve(process: KfdProcess, index: int, kind: int, size_bytes: int) -> None:
    """Counts memory against its limit. Raises OSError(ENOMEM)."""
    if kind == VRAM:
        limit = process.gpus[index].board.vram_bytes
        if process.vram_used[index] + size_bytes > limit:
            raise OSError(errno.ENOMEM, f"VRAM: {process.vram_used[index]} of {limit} used")
        process.vram_used[index] += size_bytes
    elif kind in (GTT, USERPTR):
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16 * 15
        if process.gtt_used + size_bytes > limit:
            raise OSError(errno.ENOMEM, f"system memory: {process.gtt_used} of {limit} used")
        process.gtt_used += size_bytes


def _unreserve(process: KfdProcess, allocation: Allocation) -> None:
    kind = _kind(allocation.flags)
    if kind == VRAM:
        process.vram_used[allocation.gpu_index] -= allocation.backing_bytes
    elif kind in (GTT, USERPTR):
        process.gtt_used -= allocation.backing_bytes


def allocate(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_ALLOC_MEMORY_OF_GPU."""
    flags, size = args.flags, args.size
    if not size:
        raise OSError(errno.EINVAL, "size 0")
    gpu = process.gpu(args.gpu_id)
    if flags & PUBLIC and flags & VRAM and not gpu.large_bar:
        raise OSError(errno.EINVAL, "no large BAR: VRAM is not visible to the processor")
    process.bound_gpu(args.gpu_id, errno.ENODEV)
    kind = _kind(flags)
    if kind == DOORBELL and size != DOORBELL_SLICE_BYTES:
        raise OSError(errno.EINVAL, f"doorbells are {DOORBELL_SLICE_BYTES} bytes, not {size}")
    if kind == MMIO_REMAP and size != PAGE_BYTES:
        raise OSError(errno.EINVAL, f"remapped registers are {PAGE_BYTES} bytes, not {size}")
    if kind == USERPTR and not args.mmap_offset:
        raise OSError(errno.EINVAL, "a user pointer without an address")
    if size > 1 << 46:
        raise OSError(errno.ENOMEM, f"{size} bytes")
    size = round_to_pages(size)
    held = round_to_pages(size // 2) if flags & AQL_QUEUE_MEM else size
    _reserve(process, gpu.index, kind, held)
    backing = process.backings[gpu.index]
    descriptor = backing.descriptor
    offset = 0
    if kind in (DOORBELL, MMIO_REMAP):
        descriptor = process.doorbells.descriptor
        offset = process.doorbell_offset(gpu) + (MMIO_REMAP_OFFSET if kind == MMIO_REMAP else 0)
    elif kind == USERPTR and call.alias is not None:
        offset = call.alias
    else:
        offset = backing.allocate(held)
    # A user pointer means the page it lies in (hmm_range_fault goes from page to page).
    user_address = args.mmap_offset & -PAGE_BYTES if kind == USERPTR else 0
    number = process.next_handle[gpu.index]
    process.next_handle[gpu.index] += 1
    handle = gpu.gpu_id << 32 | number
    allocation = Allocation(
        gpu.index, handle, args.va_addr, size, flags, offset, held, descriptor,
        user_address,
    )
    process.allocations[handle] = allocation
    if kind == USERPTR:
        call.act(Action.ADOPT, gpu.index, user_address, held, offset)
    else:
        args.mmap_offset = offset
    args.handle = handle


def _find(process: KfdProcess, handle: int, missing: int) -> Allocation:
    """An allocation by handle. Raises OSError: EINVAL for the GPU, `missing` for the rest."""
    process.gpu(handle >> 32)
    allocation = process.allocations.get(handle)
    if allocation is None:
        raise OSError(missing, f"no allocation {handle:#x}")
    return allocation


def free(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_FREE_MEMORY_OF_GPU."""
    if args.handle and args.handle == process.events.page_handle:
        raise OSError(errno.EBUSY, "this is the event page")
    allocation = _find(process, args.handle, errno.EINVAL)
    if allocation.mapped:
        raise OSError(errno.EBUSY, "still mapped to a GPU")
    if allocation.user_address:
        call.act(Action.RETURN, allocation.gpu_index, allocation.user_address,
                 allocation.backing_bytes, allocation.offset)
    discard(process, allocation)


def discard(process: KfdProcess, allocation: Allocation) -> None:
    """Takes an allocation away, wherever it is mapped.

    The pages of a user pointer are the program's: it gives them back itself.
    """
    for index in list(allocation.mapped):
        _unmap_one(process, allocation, index)
    del process.allocations[allocation.handle]
    _unreserve(process, allocation)
    if _kind(allocation.flags) in (VRAM, GTT):
        process.backings[allocation.gpu_index].release(
            allocation.offset, allocation.backing_bytes
        )


def _device_ids(args: Any, call: Call) -> list[int]:
    """The GPU numbers of a map or unmap. Raises OSError(EINVAL)."""
    if not args.n_devices:
        raise OSError(errno.EINVAL, "no devices")
    if args.n_success > args.n_devices:
        raise OSError(errno.EINVAL, f"{args.n_success} of {args.n_devices} done already")
    array = call.arrays[type(args).device_ids_array_ptr.offset]
    return list(struct.unpack(f"<{args.n_devices}I", array))


def map_to_gpu(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_MAP_MEMORY_TO_GPU; n_success counts up as it goes."""
    ids = _device_ids(args, call)
    allocation = _find(process, args.handle, errno.ENOMEM)
    for position in range(args.n_success, args.n_devices):
        gpu = process.bound_gpu(ids[position], errno.ENODEV)
        owner = process.gpus[allocation.gpu_index]
        if gpu is not owner and _kind(allocation.flags) not in (GTT, USERPTR) and (
            not owner.large_bar  # kfd_mem_attach, amdgpu_device_is_peer_accessible
        ):
            raise OSError(errno.EINVAL, "the bus does not show all of that GPU's memory")
        if gpu.index not in allocation.mapped:
            _map_one(process, allocation, gpu.index)
        args.n_success = position + 1


def _pieces(allocation: Allocation) -> list[tuple[int, int]]:
    """(address, size) of each time that the backing is seen: twice for an AQL ring."""
    each = allocation.backing_bytes
    return [(allocation.address + at, each) for at in range(0, allocation.size_bytes, each)]


def _map_one(process: KfdProcess, allocation: Allocation, index: int) -> None:
    address, size = allocation.address, allocation.size_bytes
    if not address or address % PAGE_BYTES or address + size > 1 << 47:
        raise OSError(errno.EINVAL, f"GPU address {address:#x}")
    protection = READ
    if allocation.flags & WRITABLE:
        protection |= WRITE
    if allocation.flags & EXECUTABLE:
        protection |= EXECUTE
    table = process.page_tables[index]
    name = dict(KINDS)[_kind(allocation.flags)]
    table.add(Mapping(address, address + size, protection, name))
    if process.strict and not allocation.flags & NEVER_CACHED:
        try:
            process.caches[index].add(
                address, size, allocation.descriptor, allocation.offset, bool(allocation.mapped)
            )
        except OSError:
            table.remove(address)
            raise
    elif not allocation.mapped:
        done: list[tuple[int, int]] = []
        try:
            for piece, held in _pieces(allocation):
                process.host.map(piece, held, allocation.descriptor, allocation.offset)
                done.append((piece, held))
        except OSError:
            for piece, held in done:
                process.host.unmap(piece, held, process.idle())
            table.remove(address)
            raise
    allocation.mapped.add(index)


def unmap_from_gpu(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_UNMAP_MEMORY_FROM_GPU."""
    ids = _device_ids(args, call)
    allocation = _find(process, args.handle, errno.ENODEV)
    for position in range(args.n_success, args.n_devices):
        gpu = process.gpu(ids[position])
        if allocation.busy:
            raise OSError(errno.EBUSY, "a queue lives in it")
        if not allocation.mapped:
            raise OSError(errno.EINVAL, "not mapped")
        if gpu.index in allocation.mapped:
            _unmap_one(process, allocation, gpu.index)
        args.n_success = position + 1


def _unmap_one(process: KfdProcess, allocation: Allocation, index: int) -> None:
    process.page_tables[index].remove(allocation.address)
    allocation.mapped.discard(index)
    process.caches[index].remove(allocation.address, process.idle())
    if not allocation.mapped:
        for piece, held in _pieces(allocation):
            process.host.unmap(piece, held, process.idle())


def check_mmap(process: KfdProcess, index: int, size_bytes: int, offset: int) -> None:
    """Whether a render node's file may be mapped there. Raises OSError(EINVAL or EPERM)."""
    for allocation in process.allocations.values():
        if allocation.offset == offset and allocation.gpu_index == index:
            kind = _kind(allocation.flags)
            if kind not in (VRAM, GTT) or size_bytes > allocation.backing_bytes:
                break
            if kind == VRAM and not allocation.flags & PUBLIC:
                raise OSError(errno.EPERM, "VRAM that the processor may not see")
            return
    raise OSError(errno.EINVAL, f"no allocation of {size_bytes} bytes at {offset:#x}")


def set_event_page(process: KfdProcess, handle: int) -> None:
    """The buffer that CREATE_EVENT names first becomes the page of slots."""
    allocation = _find(process, handle, errno.EINVAL)
    if not allocation.mapped or _kind(allocation.flags) != GTT:
        raise OSError(errno.EINVAL, "an event page is GTT memory, mapped to its GPU")
    place = process.memory_of(process.gpu(handle >> 32), False).place(allocation.address)
    process.events.set_page(handle, place, allocation.size_bytes)
