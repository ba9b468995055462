"""Queue ioctls: create, update, destroy, with the checks of kfd_chardev.c and kfd_queue.c."""

from __future__ import annotations

import ctypes
import errno
from typing import Any

from autogen import kfd
from drivers.emulated.amd.aql import AqlEngine
from drivers.emulated.amd.engine import Engine, QueueProperties
from drivers.emulated.amd.pm4 import ComputeEngine
from drivers.emulated.amd.process import DOORBELL_COUNT, Allocation, KfdProcess
from drivers.emulated.amd.sdma import SdmaEngine
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.model import Call
from drivers.system import PAGE_BYTES

ENOTSUPP = 524  # linux/errno.h: not for user space, yet it is what CREATE_QUEUE returns
USER_LIMIT = 1 << 47
EOP_BUFFER_BYTES = 4096  # kfd_queue.c, gfx8 and later
MAX_QUEUES = 1024  # KFD_MAX_NUM_OF_QUEUES_PER_PROCESS
NO_DOORBELL = 0xFFFFFFFFFFFFFFFF

COMPUTE = kfd.KFD_IOC_QUEUE_TYPE_COMPUTE
AQL = kfd.KFD_IOC_QUEUE_TYPE_COMPUTE_AQL
SDMA_TYPES = (
    kfd.KFD_IOC_QUEUE_TYPE_SDMA,
    kfd.KFD_IOC_QUEUE_TYPE_SDMA_XGMI,
    kfd.KFD_IOC_QUEUE_TYPE_SDMA_BY_ENG_ID,
)


def _check_shape(percentage: int, priority: int, ring: int, ring_size: int) -> None:
    """What create and update check alike. Raises OSError."""
    if percentage & 0xFF > kfd.KFD_MAX_QUEUE_PERCENTAGE:  # bits 8-15: first XCC
        raise OSError(errno.EINVAL, f"queue percentage {percentage & 0xFF}")
    if priority > kfd.KFD_MAX_QUEUE_PRIORITY:
        raise OSError(errno.EINVAL, f"priority {priority}")
    if ring >= USER_LIMIT:
        raise OSError(errno.EFAULT, f"ring at {ring:#x}")
    if ring_size & (ring_size - 1):
        raise OSError(errno.EINVAL, f"ring of {ring_size} bytes, no power of two")


def _check_arguments(args: Any) -> None:
    _check_shape(
        args.queue_percentage, args.queue_priority, args.ring_base_address, args.ring_size
    )
    for address in (args.read_pointer_address, args.write_pointer_address,
                    args.eop_buffer_address, args.ctx_save_restore_address):
        if address >= USER_LIMIT:
            raise OSError(errno.EFAULT, f"address {address:#x}")
    if args.queue_type not in (COMPUTE, AQL, *SDMA_TYPES):
        raise OSError(ENOTSUPP, f"queue type {args.queue_type}")


def _buffer(process: KfdProcess, gpu: Gpu, address: int, size: int) -> Allocation:
    """The allocation that is mapped exactly there. Raises OSError(EINVAL)."""
    page = address & -PAGE_BYTES
    for allocation in process.allocations.values():
        if allocation.address == page and gpu.index in allocation.mapped:
            if size < PAGE_BYTES or size == allocation.size_bytes:  # counted in pages
                return allocation
            raise OSError(errno.EINVAL, f"{address:#x}: {allocation.size_bytes} bytes, not {size}")
    raise OSError(errno.EINVAL, f"{address:#x} is not where an allocation is mapped")


def _buffers(process: KfdProcess, gpu: Gpu, args: Any) -> list[Allocation]:
    """Every buffer that the queue lives in; each must be an allocation of its own size."""
    board = gpu.board
    found = [
        _buffer(process, gpu, args.write_pointer_address, PAGE_BYTES),
        _buffer(process, gpu, args.read_pointer_address, PAGE_BYTES),
        _buffer(process, gpu, args.ring_base_address, args.ring_size),
    ]
    if args.queue_type in SDMA_TYPES:
        return found
    if args.eop_buffer_address:
        if args.eop_buffer_size != EOP_BUFFER_BYTES:
            raise OSError(errno.EINVAL, f"EOP buffer of {args.eop_buffer_size} bytes")
        found.append(_buffer(process, gpu, args.eop_buffer_address, EOP_BUFFER_BYTES))
    # Later kernels take a larger area than they need; 5.2's thunk asks for that on gfx11.
    if args.ctl_stack_size < board.ctl_stack_bytes:
        raise OSError(errno.EINVAL, f"control stack {args.ctl_stack_size:#x}")
    if args.ctx_save_restore_size < board.cwsr_bytes:
        raise OSError(errno.EINVAL, f"save area {args.ctx_save_restore_size:#x}")
    total = (args.ctx_save_restore_size + board.debug_memory_bytes) * board.num_xcc
    total = (total + PAGE_BYTES - 1) & -PAGE_BYTES
    found.append(_buffer(process, gpu, args.ctx_save_restore_address, total))
    return found


def _free_number(taken: set[int], limit: int) -> int:
    for number in range(limit):
        if number not in taken:
            return number
    raise OSError(errno.ENOMEM, f"all {limit} are taken")


def create(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_CREATE_QUEUE."""
    _check_arguments(args)
    gpu = process.bound_gpu(args.gpu_id, errno.ESRCH)
    buffers = _buffers(process, gpu, args)
    of_gpu = [queue for queue in process.queues.values() if queue.gpu is gpu]
    number = _free_number(set(process.queues), MAX_QUEUES)
    slot = _free_number({queue.properties.doorbell_slot for queue in of_gpu}, DOORBELL_COUNT)
    if args.queue_type in SDMA_TYPES:
        board = gpu.board
        limit = board.num_sdma_engines * board.num_sdma_queues_per_engine
        if sum(isinstance(queue, SdmaEngine) for queue in of_gpu) >= limit:
            raise OSError(errno.ENOMEM, f"all {limit} SDMA queues are in use")
    doorbell = process.doorbell_pages[gpu.index] + 8 * slot
    ctypes.c_uint64.from_address(doorbell).value = NO_DOORBELL
    properties = QueueProperties(
        number, args.ring_base_address, args.ring_size, args.read_pointer_address,
        args.write_pointer_address, doorbell, slot, buffers,
    )
    engine: Engine
    if args.queue_type in SDMA_TYPES:
        engine = SdmaEngine(process, gpu, properties)
    elif args.queue_type == AQL:
        engine = AqlEngine(process, gpu, properties)
    else:
        engine = ComputeEngine(process, gpu, properties)
    for buffer in buffers:
        buffer.busy += 1
    process.queues[number] = engine
    engine.start()
    args.queue_id = number
    args.doorbell_offset = process.doorbell_offset(gpu) + 8 * slot


def _find(process: KfdProcess, number: int, missing: int) -> Engine:
    queue = process.queues.get(number)
    if queue is None:
        raise OSError(missing, f"no queue {number}")
    return queue


def destroy(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_DESTROY_QUEUE: the engine takes no packet more when it returns."""
    queue = _find(process, args.queue_id, errno.EINVAL)
    process.stop(args.queue_id)
    for buffer in queue.properties.buffers:
        buffer.busy -= 1


def update(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_UPDATE_QUEUE: a queue without ring or percentage does not run."""
    _check_shape(
        args.queue_percentage, args.queue_priority, args.ring_base_address, args.ring_size
    )
    queue = _find(process, args.queue_id, errno.EFAULT)
    running = bool(args.ring_base_address and args.ring_size and args.queue_percentage & 0xFF)
    if running and (args.ring_base_address, args.ring_size) != (
        queue.properties.ring_address, queue.properties.ring_bytes
    ):
        _buffer(process, queue.gpu, args.ring_base_address, args.ring_size)
        queue.move_ring(args.ring_base_address, args.ring_size)
    queue.set_active(running)


def set_cu_mask(process: KfdProcess, args: Any, call: Call) -> None:
    """AMDKFD_IOC_SET_CU_MASK: taken, and without effect on results."""
    if args.num_cu_mask % 32 or not args.num_cu_mask:
        raise OSError(errno.EINVAL, f"a mask of {args.num_cu_mask} units")
    _find(process, args.queue_id, errno.EFAULT)
