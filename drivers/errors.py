"""This floor's errors: each has a code, a device, an operation, a detail and a remedy.

`str(error)` is the full sentence that a user reads; the parts stay available as attributes, so
that programs can tell one fault from another without parsing it. The codes are the table in
docs/queues.md.
"""

from __future__ import annotations

import errno
import os

from compiler.errors import TinyhwError


class HardwareError(TinyhwError):
    """Anything between a program and a device: opening it, memory, queues, the device itself."""

    code = "HW000"


class NodeNotAccessible(HardwareError):
    """A device node is there, but this user may not open it."""

    code = "HW101"


class DeviceNotAvailable(HardwareError):
    """The device cannot be opened here: its node, driver, compiler or backend is missing."""

    code = "HW102"


class UnknownAbi(HardwareError):
    """The kernel driver's interface has a version that this driver does not know."""

    code = "HW103"


class UnsupportedGpu(HardwareError):
    """The GPU is of a kind that this driver does not know."""

    code = "HW104"


class FirmwareRejected(HardwareError):
    """The GPU's firmware is older than what this driver needs."""

    code = "HW105"


class BarTooSmall(HardwareError):
    """The host cannot reach the GPU's memory through its PCI window."""

    code = "HW106"


class UnknownDevice(DeviceNotAvailable):
    """The name is not one of `drivers.DEVICE_NAMES`, or its index is malformed."""

    code = "HW108"


class SystemCallFailed(HardwareError):
    """A call to the operating system failed; `errno` is its reason."""

    code = "HW109"

    def __init__(
        self, detail: str, *, number: int, device: str = "", operation: str = "", remedy: str = ""
    ) -> None:
        super().__init__(detail, device=device, operation=operation, remedy=remedy)
        self.errno = number

    @classmethod
    def wrap(cls, error: OSError, operation: str, device: str) -> SystemCallFailed:
        """Makes a sentence out of an OSError that `operation` met; raise it `from` the error."""
        number = error.errno or 0
        name = errno.errorcode.get(number, str(number))
        detail = f"{device}: {operation} failed ({name}): {os.strerror(number)}."
        return cls(detail, number=number, device=device, operation=operation)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_call, (self.detail, self.errno, self.device, self.operation, self.remedy))


def _rebuild_call(
    detail: str, number: int, device: str, operation: str, remedy: str
) -> SystemCallFailed:
    return SystemCallFailed(
        detail, number=number, device=device, operation=operation, remedy=remedy
    )


class DeviceFault(HardwareError):
    """The device accessed memory that it may not, or was reset; it is lost until reopened."""

    code = "HW201"


class DeviceHang(HardwareError):
    """A Point did not come within its deadline; the detail names where the queue stands."""

    code = "HW202"


class OutOfDeviceMemory(HardwareError):
    """An allocation did not fit, even after everything cached was given back."""

    code = "HW203"


class DeviceClosed(HardwareError):
    """The device or queue was used after `close()`."""

    code = "HW204"


class QueueLimit(HardwareError):
    """A device has a fixed number of something (queues, ring records), and it is used up."""

    code = "HW205"


class NotYetWritten(HardwareError):
    """A timestamp was read before the queue had written it."""

    code = "HW206"


class ForkedProcess(HardwareError):
    """A device opened by the parent was used in a forked child."""

    code = "HW301"


class MalformedInput(HardwareError):
    """Bytes from outside (a code object, a file) contradict themselves."""

    code = "HW401"


class ArgumentMismatch(HardwareError):
    """A wrong argument: its type, its value beside the limit, or how many there are."""

    code = "HW402"


class MissingVariable(ArgumentMismatch):
    """A replay lacks a Var that was recorded, or names one that was not."""

    code = "HW403"
