"""What went wrong on a GPU, as a sentence: page faults, resets, and where a queue stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autogen import kfd
from drivers.amd.flight import Work
from drivers.amd.memory import GpuMemory
from drivers.errors import DeviceFault
from drivers.memory import format_bytes

if TYPE_CHECKING:
    from drivers.amd.queue import AmdQueue

_ERROR_TYPES = {1: "an SRAM ECC error", 2: "poisoned data from a link", 3: "a hang"}
_NAMED = 4  # kernels that a sentence names; the rest are counted
_RESET_CAUSES = {0: "a hang", 1: "an ECC error"}


def memory_exception(
    data: kfd.struct_kfd_hsa_memory_exception_data, memory: GpuMemory, running: Sequence[Work]
) -> DeviceFault:
    """The error for a page fault; the address is that of its page.

    The flags say which permissions the access wanted and did not find (kfd_int_process_v9.c to
    v11.c: the fault's PERMISSION_FAULTS): ReadOnly, a write, whether the page is there or not.
    An instruction fetch is told apart from a read only where the kernel sets NoExecute.
    """
    address, failure = int(data.va), data.failure
    verb = "accessed"
    if failure.ReadOnly:
        verb = "wrote"
    elif failure.NoExecute:
        verb = "executed"
    elif failure.NotPresent:
        verb = "read"
    if data.ErrorType:
        reason = _ERROR_TYPES.get(int(data.ErrorType), f"error {data.ErrorType}")
    elif failure.NotPresent:
        reason = "page not present"
    elif failure.ReadOnly:
        reason = "read-only page"
    elif failure.NoExecute:
        reason = "page without code"
    else:
        reason = "reason not reported"
    imprecise = ", imprecise" if failure.imprecise else ""
    return DeviceFault(
        f"{memory.device} {verb} {address:#x} ({reason}{imprecise}) in {_either(running)}; "
        f"{_neighbour(memory, address, running)}.",
        device=memory.device, operation="memory access",
        remedy="Close the device and open it again; check the kernel's indices.",
    )


def _either(running: Sequence[Work]) -> str:
    """What may have been running."""
    if not running:
        return "no kernel that is known"
    named = [str(work) for work in running[:_NAMED]]
    if len(running) > _NAMED:
        named.append(f"{len(running) - _NAMED} more")
    return named[0] if len(named) == 1 else f"one of: {'; '.join(named)}"


def _neighbour(memory: GpuMemory, address: int, running: Sequence[Work]) -> str:
    """The nearest buffer of what may have been running, else the nearest allocation."""
    extents = [
        (f"buffer {extent.name} of {work.name}", extent.address, extent.size_bytes)
        for work in running for extent in work.extents
    ]
    if not extents:
        found = memory.nearest(address)
        if found is None:
            return "nothing is allocated"
        block = found[0]
        extents = [(f"memory for {block.kind}", block.address, block.size_bytes)]
    name, start, size = min(
        extents, key=lambda each: max(each[1] - address, address - (each[1] + each[2]), 0)
    )
    whole = f"{name} ({format_bytes(size)} at {start:#x})"
    if address < start:
        return f"{start - address} bytes before {whole}"
    if address < start + size:
        return f"byte {address - start} of {whole}"
    return f"{address - start - size} bytes past {whole}"


def hardware_exception(
    data: kfd.struct_kfd_hsa_hw_exception_data, memory: GpuMemory, running: Sequence[Work]
) -> DeviceFault:
    """The error for a reset."""
    whole = "one engine" if data.reset_type else "the whole GPU"
    cause = _RESET_CAUSES.get(int(data.reset_cause), f"cause {data.reset_cause}")
    lost = " and its memory was lost" if data.memory_lost else ""
    return DeviceFault(
        f"{memory.device} was reset ({whole}) after {cause}{lost} in {_either(running)}.",
        device=memory.device, operation="reset",
        remedy="Close the device and open it again.",
    )


def describe_queue(queue: AmdQueue) -> str:
    """Where the queue stands: what it waits for, its next kernel, its pointers and timeline."""
    if queue.closed:
        return f"Queue {queue.name} of {queue.device.name} is closed."
    reached, fault = queue.timeline.value, queue.device.interrupts.fault
    state = (
        f"timeline {reached} of {queue.ring.submitted}, "
        f"read pointer {queue.hardware.read_pointer:#x}, "
        f"write pointer {queue.hardware.write_pointer:#x}, "
        f"{'no fault recorded' if fault is None else fault.detail}"
    )
    if reached >= queue.ring.submitted:
        return f"Queue {queue.name} is idle: {state}."
    works = queue.flight.first(reached)
    stuck = next(
        (i for i, work in enumerate(works) if work.kind == "wait" and work.reached < work.value),
        None,
    )
    place = "a list without a wait" if stuck is None else str(works[stuck])
    following = works if stuck is None else works[stuck:]
    kernel = next((work for work in following if work.kind == "kernel"), "no kernel")
    return f"Queue {queue.name} is at {place}; {kernel} is the next to finish: {state}."
