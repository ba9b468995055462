"""Unified memory, /dev/nvidia-uvm: which GPUs and channels share the process's address space.

Requests are plain numbers without a size (uvm_ioctl.h); each structure carries its own status.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Final

from drivers.errors import SystemCallFailed
from drivers.nodes import close_node, open_node
from drivers.nv.rm import Rm, check_status, missing_remedy

UVM_NODE: Final = "/dev/nvidia-uvm"
_READ_WRITE_ATOMIC: Final = 1  # uvm_types.h, UvmGpuMappingTypeReadWriteAtomic


class Uvm:
    """The process's address space on GPUs."""

    def __init__(self, rm: Rm) -> None:
        self.rm, self.system, self.device = rm, rm.system, rm.device
        self._second = -1
        self.descriptor = open_node(self.system, UVM_NODE, self.device, missing_remedy)
        try:
            self.call("UVM_INITIALIZE")
            self._second = open_node(self.system, UVM_NODE, self.device, missing_remedy)
            # Keeps memory of the process's threads; drivers before 515 and sandboxes lack it.
            with contextlib.suppress(SystemCallFailed):
                self.call("UVM_MM_INITIALIZE", self._second, uvmFd=self.descriptor)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes both descriptors; mappings on GPUs go with them."""
        for descriptor in (self._second, self.descriptor):
            if descriptor >= 0:
                close_node(self.system, descriptor)

    def call(self, name: str, descriptor: int | None = None, **values: Any) -> None:
        """One call; fields that this version's structure lacks are left out."""
        self.rm.check_process()
        abi = self.rm.abi
        argument: Any = abi.make(f"{name}_PARAMS", **values)
        node = self.descriptor if descriptor is None else descriptor
        try:
            self.system.ioctl(node, abi.number(name), ctypes.addressof(argument))
        except OSError as error:
            raise SystemCallFailed.wrap(error, name, self.device) from error
        check_status(int(argument.rmStatus), name, self.device)

    def _uuid(self, structure: str, field: str, uuid: bytes) -> Any:
        fields = dict(each[:2] for each in self.rm.abi.structure(structure)._fields_)
        return fields[field].from_buffer_copy(uuid) if field in fields else None

    def register_gpu(self, uuid: bytes) -> None:
        """Makes a GPU known; it may be already."""
        self.call(
            "UVM_REGISTER_GPU", gpu_uuid=self._uuid("UVM_REGISTER_GPU_PARAMS", "gpu_uuid", uuid),
            rmCtrlFd=-1,
        )

    def register_space(self, uuid: bytes, space: int) -> None:
        """Takes over a GPU's address space, which was made to be owned by somebody else."""
        self.call(
            "UVM_REGISTER_GPU_VASPACE",
            gpuUuid=self._uuid("UVM_REGISTER_GPU_VASPACE_PARAMS", "gpuUuid", uuid),
            rmCtrlFd=self.rm.descriptor, hClient=self.rm.client, hVaSpace=space,
        )

    def register_channel(self, uuid: bytes, channel: int, base: int, size_bytes: int) -> None:
        """Makes a channel known, whose context goes into a stretch of addresses."""
        self.call(
            "UVM_REGISTER_CHANNEL",
            gpuUuid=self._uuid("UVM_REGISTER_CHANNEL_PARAMS", "gpuUuid", uuid),
            rmCtrlFd=self.rm.descriptor, hClient=self.rm.client, hChannel=channel, base=base,
            length=size_bytes,
        )

    def unregister_channel(self, uuid: bytes, channel: int) -> None:
        """Forgets a channel, before it is freed."""
        self.call(
            "UVM_UNREGISTER_CHANNEL",
            gpuUuid=self._uuid("UVM_UNREGISTER_CHANNEL_PARAMS", "gpuUuid", uuid),
            hClient=self.rm.client, hChannel=channel,
        )

    def enable_peers(self, first: bytes, second: bytes) -> None:
        """Lets two GPUs be mapped each other's memory; fails where no link joins them."""
        structure = "UVM_ENABLE_PEER_ACCESS_PARAMS"
        self.call(
            "UVM_ENABLE_PEER_ACCESS", gpuUuidA=self._uuid(structure, "gpuUuidA", first),
            gpuUuidB=self._uuid(structure, "gpuUuidB", second),
        )

    def map(self, uuid: bytes, memory: int, base: int, size_bytes: int) -> None:
        """Lets a GPU reach an object's memory at an address."""
        self.call("UVM_CREATE_EXTERNAL_RANGE", base=base, length=size_bytes)
        try:
            self.map_also(uuid, memory, base, size_bytes)
        except BaseException:
            with contextlib.suppress(SystemCallFailed):
                self.unmap(base, size_bytes)
            raise

    def map_also(self, uuid: bytes, memory: int, base: int, size_bytes: int) -> None:
        """Lets one more GPU reach an object's memory that is mapped there already."""
        structure = "UVM_MAP_EXTERNAL_ALLOCATION_PARAMS"
        attributes: Any = dict(
            each[:2] for each in self.rm.abi.structure(structure)._fields_
        )["perGpuAttributes"]()
        kind = dict(each[:2] for each in attributes[0]._fields_)["gpuUuid"]
        attributes[0].gpuUuid = kind.from_buffer_copy(uuid)
        attributes[0].gpuMappingType = _READ_WRITE_ATOMIC
        self.call(
            "UVM_MAP_EXTERNAL_ALLOCATION", base=base, length=size_bytes,
            perGpuAttributes=attributes, gpuAttributesCount=1, rmCtrlFd=self.rm.descriptor,
            hClient=self.rm.client, hMemory=memory,
        )

    def unmap(self, base: int, size_bytes: int) -> None:
        """Takes an address range away from all GPUs."""
        self.call("UVM_FREE", base=base, length=size_bytes)
