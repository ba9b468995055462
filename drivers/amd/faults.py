"""What went wrong on a GPU, as a sentence: page faults, resets, and where a queue stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from autogen import kfd
from drivers.amd.memory import GpuMemory
from drivers.errors import DeviceFault
from drivers.memory import format_bytes
from drivers.timeline import timeline_name

if TYPE_CHECKING:
    from drivers.amd.queue import AmdQueue

_ERROR_TYPES = {1: "an SRAM ECC error", 2: "poisoned data from a link", 3: "a hang"}
_RESET_CAUSES = {0: "a hang", 1: "an ECC error"}


def memory_exception(
    data: kfd.struct_kfd_hsa_memory_exception_data, memory: GpuMemory, running: Iterable[str]
) -> DeviceFault:
    """The error for a page fault; the address is that of its page."""
    address, failure = int(data.va), data.failure
    reasons = [
        sentence
        for flag, sentence in (
            (failure.NotPresent, "page not present"),
            (failure.ReadOnly, "write to a read-only page"),
            (failure.NoExecute, "no permission to execute"),
            (data.ErrorType, _ERROR_TYPES.get(int(data.ErrorType), f"error {data.ErrorType}")),
        )
        if flag
    ] or ["reason not reported"]
    kernels = ", ".join(running) or "none"
    imprecise = " (imprecise)" if failure.imprecise else ""
    return DeviceFault(
        f"{memory.device} accessed {address:#x} ({', '.join(reasons)}){imprecise}; "
        f"{_neighbour(memory, address)} Kernels in flight: {kernels}.",
        device=memory.device, operation="memory access",
        remedy="Close the device and open it again; check the kernel's indices.",
    )


def _neighbour(memory: GpuMemory, address: int) -> str:
    found = memory.nearest(address)
    if found is None:
        return "nothing is allocated."
    block, offset = found
    size = block.size_bytes
    whole = f"{format_bytes(size)} of {block.kind} at {block.address:#x}"
    if offset < 0:
        return f"that is {-offset} bytes before {whole}."
    if offset < size:
        return f"that is byte {offset} of {whole}."
    return f"that is {offset - size} bytes past {whole}."


def hardware_exception(
    data: kfd.struct_kfd_hsa_hw_exception_data, memory: GpuMemory, running: Iterable[str]
) -> DeviceFault:
    """The error for a reset."""
    whole = "one engine" if data.reset_type else "the whole GPU"
    cause = _RESET_CAUSES.get(int(data.reset_cause), f"cause {data.reset_cause}")
    lost = " and its memory was lost" if data.memory_lost else ""
    kernels = ", ".join(running) or "none"
    return DeviceFault(
        f"{memory.device} was reset ({whole}) after {cause}{lost}. "
        f"Kernels in flight: {kernels}.",
        device=memory.device, operation="reset",
        remedy="Close the device and open it again.",
    )


def describe_queue(queue: AmdQueue) -> str:
    """Where the queue stands: what it waits for, its next kernel, its pointers and timeline."""
    if queue.closed:
        return f"Queue {queue.name} of {queue.device.name} is closed."
    pointers = (
        f"read pointer {queue.hardware.read_pointer:#x}, "
        f"write pointer {queue.hardware.write_pointer:#x}"
    )
    timeline = f"timeline {queue.timeline.value} of {queue.ring.submitted}"
    steps = queue.next_steps()
    if not steps:
        return f"Queue {queue.name} is idle: {timeline}, {pointers}."
    waits, kernel = "a list without a wait", "no kernel"
    for what, name, value, reached in steps:
        if what == "wait" and reached < value:
            waits = f"WAIT for {name} to reach {value} (it is at {reached})"
            kernel = "no kernel"
        elif what == "kernel" and kernel == "no kernel":
            kernel = f"kernel {name}"
            if waits.startswith("WAIT"):
                break
    return (
        f"Queue {queue.name} is at {waits}; {kernel} is the next to finish: {timeline}, {pointers}."
    )


def named_timeline(address: int) -> str:
    """A timeline's name, by its address."""
    return timeline_name(address)
