"""What went wrong on a GPU, as a sentence: page faults, resets, and where a queue stands."""

from __future__ import annotations

from collections.abc import Sequence

from autogen import kfd
from drivers.amd.memory import GpuMemory
from drivers.errors import DeviceFault
from drivers.flight import Work, either, neighbour

_ERROR_TYPES = {1: "an SRAM ECC error", 2: "poisoned data from a link", 3: "a hang"}
_RESET_CAUSES = {0: "a hang", 1: "an ECC error"}


def memory_exception(
    data: kfd.struct_kfd_hsa_memory_exception_data, memory: GpuMemory, running: Sequence[Work],
    explanation: str = "",
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
        f"{memory.device} {verb} {address:#x} ({reason}{imprecise}) in {either(running)}; "
        f"{neighbour(memory.nearest(address), address, running)}. {explanation}".rstrip(),
        device=memory.device, operation="memory access",
        remedy="Close the device and open it again; check the kernel's indices.",
    )


def hardware_exception(
    data: kfd.struct_kfd_hsa_hw_exception_data, memory: GpuMemory, running: Sequence[Work],
    explanation: str = "",
) -> DeviceFault:
    """The error for a reset."""
    whole = "one engine" if data.reset_type else "the whole GPU"
    cause = _RESET_CAUSES.get(int(data.reset_cause), f"cause {data.reset_cause}")
    lost = " and its memory was lost" if data.memory_lost else ""
    return DeviceFault(
        f"{memory.device} was reset ({whole}) after {cause}{lost} in {either(running)}. "
        f"{explanation}".rstrip(),
        device=memory.device, operation="reset",
        remedy="Close the device and open it again.",
    )
