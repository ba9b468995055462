"""What went wrong on a GPU, as a sentence.

The kernel driver writes a code into the channel's error notifier (nverror.h, ROBUST_CHANNEL_*; the
number that its log calls Xid) and takes the channel's group off the GPU. For an access that no
mapping allows a debugger object gives the address.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from autogen import nv_555
from drivers.errors import DeviceFault, HardwareError
from drivers.flight import Work, either, neighbour
from drivers.nv.memory import NvMemory
from drivers.nv.rm import Rm

MMU_FAULT: Final = nv_555.ROBUST_CHANNEL_FIFO_ERROR_MMU_ERR_FLT
_CODES: Final = {
    int(value): name.removeprefix("ROBUST_CHANNEL_").replace("_", " ").lower()
    for name, value in vars(nv_555).items()
    if name.startswith("ROBUST_CHANNEL_") and isinstance(value, int)
    and "RECOVERY_LEVEL" not in name and "LAST_ERROR" not in name
}
# dev_fault.h of the open kernel modules, NV_PFAULT_ACCESS_TYPE_* and NV_PFAULT_FAULT_TYPE_*.
_ACCESSES: Final = {0: "read", 1: "wrote", 2: "changed", 3: "prefetched", 4: "changed"}
_REASONS: Final = {
    0: "page not present", 1: "page directory too small", 2: "page not present",
    3: "address beyond the limit", 4: "channel without an address space",
    5: "page of the system", 6: "read-only page", 7: "write-only page",
    0xA: "unsupported aperture", 0xC: "unsupported kind of page", 0xE: "poisoned page",
    0xF: "page without atomics",
}  # fmt: skip
_REMEDY: Final = "Close the device and open it again; check the kernel's indices."


def explain(
    rm: Rm, debugger: int, code: int, memory: NvMemory, running: Sequence[Work]
) -> DeviceFault:
    """The error for a code in a channel's notifier."""
    name = _CODES.get(code, "an unknown error")
    running_text, said = either(running), rm.system.explain()
    if code == MMU_FAULT and (found := _fault_address(rm, debugger)):
        address, kind, access = found
        verb, reason = _ACCESSES.get(access, "accessed"), _REASONS.get(kind, f"fault type {kind}")
        return DeviceFault(
            f"{memory.device} {verb} {address:#x} ({reason}) in {running_text}; "
            f"{neighbour(memory.nearest(address), address, running)}. {said}".rstrip(),
            device=memory.device, operation="memory access", remedy=_REMEDY,
        )
    what = "met a page fault whose address it does not tell" if code == MMU_FAULT else (
        f"stopped its channel with error {code} ({name})"
    )
    return DeviceFault(
        f"{memory.device} {what} in {running_text}. {said}".rstrip(),
        device=memory.device,
        operation="memory access" if code == MMU_FAULT else "channel", remedy=_REMEDY,
    )


def _fault_address(rm: Rm, debugger: int) -> tuple[int, int, int] | None:
    """Address, type and access of the last fault; sandboxes do not tell."""
    if not debugger:
        return None
    parameters: Any = rm.abi.make("NV83DE_CTRL_DEBUG_READ_MMU_FAULT_INFO_PARAMS")
    with contextlib.suppress(HardwareError):
        rm.control(debugger, "NV83DE_CTRL_CMD_DEBUG_READ_MMU_FAULT_INFO", parameters)
        if parameters.count:
            entry = parameters.mmuFaultInfoList[0]
            return int(entry.faultAddress), int(entry.faultType), int(entry.accessType)
    return None
