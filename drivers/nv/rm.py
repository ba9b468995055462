"""The resource manager behind /dev/nvidiactl: a tree of objects, and calls on them.

Every call returns 0 from ioctl and its own status in the structure (nvstatuscodes.h). Structures
and numbers are those of nvos.h, nv_escape.h and nv-ioctl.h; a request is _IOWR('F', number, size).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
from collections.abc import Sequence
from typing import Any, Final

from autogen import nv_555
from drivers.errors import ForkedProcess, HardwareError, SystemCallFailed
from drivers.nodes import close_node, open_node
from drivers.nv.abi import Abi
from drivers.system import System

CONTROL_NODE: Final = "/dev/nvidiactl"
_READ_WRITE: Final = 3
_VERSION_PATH: Final = "/proc/driver/nvidia/version"
_FIRST_HANDLE: Final = 0x7E000001  # clients, which share the numbers, start at 0xC1D00000
_NO_MEMORY: Final = 0x51  # nvstatuscodes.h, NV_ERR_NO_MEMORY
_STATUS_NAMES: Final = {
    int(value): name.removeprefix("NVOS_STATUS_ERROR_")
    for name, value in vars(nv_555).items() if name.startswith("NVOS_STATUS_ERROR_")
} | {_NO_MEMORY: "NO_MEMORY"}
_ERRNO: Final = {
    _NO_MEMORY: errno.ENOMEM, nv_555.NVOS_STATUS_ERROR_INSUFFICIENT_RESOURCES: errno.ENOMEM,
    nv_555.NVOS_STATUS_ERROR_INSUFFICIENT_PERMISSIONS: errno.EACCES,
    nv_555.NVOS_STATUS_ERROR_GPU_IS_LOST: errno.ENODEV,
}  # fmt: skip


def missing_remedy(path: str, modules: Sequence[str]) -> str:
    """What to do about a node that is not there."""
    emulate = "or run the emulated board with EMULATE=1."
    if {"nvidia", "nvidia_uvm"} & set(modules):
        return (
            "NVIDIA's module is loaded, but its nodes were not all made: run "
            f"`sudo nvidia-modprobe -c 0 -u`, in a container give it {path} too, {emulate}"
        )
    if others := [module for module in modules if module in ("nouveau", "nova_core")]:
        return (
            f"{others[0]} holds the GPU: install NVIDIA's open kernel modules, start with "
            f"`modprobe.blacklist={others[0]}` on the kernel's command line, {emulate}"
        )
    return (
        "Load NVIDIA's kernel modules on a machine with an NVIDIA GPU, in a container give it "
        f"the nodes /dev/nvidiactl, /dev/nvidia0 and /dev/nvidia-uvm, {emulate}"
    )


def check_status(status: int, operation: str, device: str) -> None:
    """Raises SystemCallFailed for a status other than OK; its errno tells out-of-memory apart."""
    if status == nv_555.NVOS_STATUS_SUCCESS:
        return
    name = _STATUS_NAMES.get(status)
    shown = f"NV_ERR_{name}, {status:#x}" if name else f"status {status:#x}"
    raise SystemCallFailed(
        f"{device}: {operation} failed ({shown}).", number=_ERRNO.get(status, errno.EIO),
        device=device, operation=operation,
    )


class Rm:
    """An open control node, the version behind it, and a client there."""

    def __init__(self, system: System, device: str) -> None:
        self.system, self.device = system, device
        self._handles = itertools.count(_FIRST_HANDLE)
        self._process = os.getpid()
        self.descriptor = open_node(system, CONTROL_NODE, device, missing_remedy)
        try:
            self.abi = Abi(self._version(), device)
            self.client = 0
            self.client = self._root()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the node; the kernel driver frees the client and all its objects."""
        close_node(self.system, self.descriptor)

    def _version(self) -> str:
        """The kernel driver's version: from itself, else as it shows it in /proc."""
        query = nv_555.nv_ioctl_rm_api_version_t(cmd=ord("2"))  # NV_RM_API_VERSION_CMD_QUERY
        with contextlib.suppress(SystemCallFailed):
            self.escape("NV_ESC_CHECK_VERSION_STR", nv_555.NV_ESC_CHECK_VERSION_STR, query)
            text = bytes(query)[nv_555.nv_ioctl_rm_api_version_t.versionString.offset :]
            if version := text.partition(b"\0")[0].decode(errors="replace"):
                return version
        try:
            file = self.system.open(_VERSION_PATH, 0)
        except OSError:
            return ""
        try:
            words = self.system.read(file, 4096).decode(errors="replace").split()
        finally:
            close_node(self.system, file)
        return next((word for word in words if word[:3].isdecimal() and "." in word), "")

    def check_process(self) -> None:
        """Refuses calls in a fork: the client belongs to the node, and what is freed is gone."""
        if os.getpid() != self._process:
            raise ForkedProcess(
                f"{self.device} was opened by process {self._process}, which forked this one "
                f"({os.getpid()}).",
                device=self.device, operation="check",
                remedy="Open the device in the child, or start it with the 'spawn' method.",
            )

    # ---- the calls ----

    def escape(
        self, name: str, number: int, argument: ctypes.Structure | ctypes.Array[Any],
        descriptor: int | None = None,
    ) -> None:
        """One ioctl of a node of the driver."""
        self.check_process()
        size = ctypes.sizeof(argument)
        request = _READ_WRITE << 30 | size << 16 | nv_555.NV_IOCTL_MAGIC << 8 | number
        node = self.descriptor if descriptor is None else descriptor
        try:
            self.system.ioctl(node, request, ctypes.addressof(argument))
        except OSError as error:
            raise SystemCallFailed.wrap(error, name, self.device) from error

    def _root(self) -> int:
        argument = self.abi.make("NVOS21_PARAMETERS", hClass=self.abi.number("NV01_ROOT_CLIENT"))
        self._alloc(argument, "NV01_ROOT_CLIENT")
        return int(argument.hObjectNew)

    def _alloc(self, argument: Any, what: str) -> None:
        self.escape(f"allocating {what}", self.abi.number("NV_ESC_RM_ALLOC"), argument)
        check_status(int(argument.status), f"allocating {what}", self.device)

    def alloc(
        self, parent: int, kind: int, what: str, parameters: ctypes.Structure | None = None
    ) -> int:
        """A new object of a class under a parent; its handle."""
        handle = next(self._handles)
        argument = self.abi.make(
            "NVOS21_PARAMETERS", hRoot=self.client, hObjectParent=parent, hObjectNew=handle,
            hClass=kind, pAllocParms=ctypes.addressof(parameters) if parameters else None,
            paramsSize=ctypes.sizeof(parameters) if parameters else 0,
        )
        self._alloc(argument, what)
        return handle

    def free(self, handle: int, parent: int = 0) -> None:
        """Frees an object and all below it."""
        argument: Any = self.abi.make(
            "NVOS00_PARAMETERS", hRoot=self.client, hObjectParent=parent or self.client,
            hObjectOld=handle,
        )
        self.escape("NV_ESC_RM_FREE", self.abi.number("NV_ESC_RM_FREE"), argument)
        check_status(int(argument.status), "freeing an object", self.device)

    def release(self, *handles: int) -> None:
        """Frees objects in this order, whatever the kernel driver says."""
        for handle in handles:
            if handle:
                with contextlib.suppress(HardwareError):
                    self.free(handle)

    def control(self, handle: int, command: str, parameters: Any) -> None:
        """A command to an object: parameters go in and come out."""
        argument: Any = self.abi.make(
            "NVOS54_PARAMETERS", hClient=self.client, hObject=handle,
            cmd=self.abi.number(command), params=ctypes.addressof(parameters),
            paramsSize=ctypes.sizeof(parameters),
        )
        self.escape(command, self.abi.number("NV_ESC_RM_CONTROL"), argument)
        check_status(int(argument.status), command, self.device)

    def info_list(
        self, handle: int, command: str, structure: str, fields: tuple[str, str],
        indices: tuple[int, ...],
    ) -> list[int]:
        """Asks a command that takes a list of (index, value) by its address; the values."""
        entries = (ctypes.c_uint32 * (2 * len(indices)))()
        entries[::2] = list(indices)
        size, address = fields
        parameters = self.abi.make(
            structure, **{size: len(indices), address: ctypes.addressof(entries)}
        )
        self.control(handle, command, parameters)
        return list(entries[1::2])

    # ---- mapping for the host ----

    def open_for_mapping(self, path: str) -> int:
        """A node once more: a descriptor maps one object. A GPU's is tied to this control node."""
        descriptor = open_node(self.system, path, self.device, missing_remedy)
        if path == CONTROL_NODE:
            return descriptor
        try:
            argument = nv_555.nv_ioctl_register_fd_t(ctl_fd=self.descriptor)
            self.escape("NV_ESC_REGISTER_FD", nv_555.NV_ESC_REGISTER_FD, argument, descriptor)
        except BaseException:
            close_node(self.system, descriptor)
            raise
        return descriptor

    def prepare_mapping(
        self, device: int, memory: int, size_bytes: int, descriptor: int
    ) -> None:
        """Lets the next mmap of a node's descriptor, at offset 0, map an object's memory."""
        argument: Any = self.abi.structure("nv_ioctl_nvos33_parameters_with_fd")(fd=descriptor)
        given = argument.params
        given.hClient, given.hDevice, given.hMemory = self.client, device, memory
        given.length = size_bytes
        self.escape("NV_ESC_RM_MAP_MEMORY", self.abi.number("NV_ESC_RM_MAP_MEMORY"), argument)
        check_status(int(given.status), "NV_ESC_RM_MAP_MEMORY", self.device)

    def adopt_memory(
        self, device: int, descriptor: int, address: int, size_bytes: int, flags: int
    ) -> int:
        """An object for pages of this process (NV01_MEMORY_SYSTEM_OS_DESCRIPTOR); its handle."""
        handle = next(self._handles)
        argument: Any = self.abi.structure("nv_ioctl_nvos02_parameters_with_fd")(fd=-1)
        given = argument.params
        given.hRoot, given.hObjectParent, given.hObjectNew = self.client, device, handle
        given.hClass = self.abi.number("NV01_MEMORY_SYSTEM_OS_DESCRIPTOR")
        given.flags, given.pMemory, given.limit = flags, address, size_bytes - 1
        self.escape(
            "NV_ESC_RM_ALLOC_MEMORY", self.abi.number("NV_ESC_RM_ALLOC_MEMORY"), argument,
            descriptor,
        )
        check_status(int(given.status), "NV_ESC_RM_ALLOC_MEMORY", self.device)
        return handle
