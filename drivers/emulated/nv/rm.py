"""/dev/nvidiactl and /dev/nvidiaN: the escapes of RM, with its checks (escape.c, nv.c, osapi.c).

A structure of the wrong size is EINVAL. What is refused otherwise is a status in the structure.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from typing import Any, NamedTuple

from drivers.emulated.memory import round_to_pages
from drivers.emulated.model import Call, OpenFile
from drivers.emulated.nv import controls
from drivers.emulated.nv.device import Debugger, Device, Subdevice, VaSpace
from drivers.emulated.nv.fifo import (
    ChannelGroup,
    ChannelResource,
    ContextShare,
    EngineObject,
    Usermode,
)
from drivers.emulated.nv.gpu import BAR1_BASE, BAR_STRIDE, Gpu
from drivers.emulated.nv.memory import Mappable, SystemMemory, UserPages, VideoMemory, View
from drivers.emulated.nv.objects import Client, Resource
from drivers.emulated.nv.process import NvProcess, Pages
from drivers.emulated.nv.status import RmError, Status, require
from drivers.emulated.protocol import Action
from drivers.system import PAGE_BYTES

ESCAPE_TYPE = 0x46  # 'F', nv-ioctl-numbers.h
VENDOR_ID = 0x10DE
CARD_LIMIT = 32


class Kind(NamedTuple):
    """One class of objects (resource_list.h). `required`: parameters may not be left out."""

    make: type[Resource]
    parents: tuple[type[Resource], ...]
    params: str
    required: bool


def _kinds(constants: Any) -> dict[int, Kind]:
    """The classes by number."""
    channel = Kind(
        ChannelResource, (Device, ChannelGroup), "NV_CHANNEL_ALLOC_PARAMS", True
    )
    usermode = Kind(Usermode, (Subdevice,), "", False)
    compute = Kind(EngineObject, (ChannelResource,), "NV_GR_ALLOCATION_PARAMETERS", False)
    copy = Kind(EngineObject, (ChannelResource,), "NVB0B5_ALLOCATION_PARAMETERS", False)
    memory = "NV_MEMORY_ALLOCATION_PARAMS"
    found = {
        "NV01_DEVICE_0": Kind(Device, (Client,), "NV0080_ALLOC_PARAMETERS", False),
        "NV20_SUBDEVICE_0": Kind(Subdevice, (Device,), "NV2080_ALLOC_PARAMETERS", False),
        "NV01_MEMORY_SYSTEM": Kind(SystemMemory, (Device,), memory, True),
        "NV01_MEMORY_LOCAL_USER": Kind(VideoMemory, (Device, Subdevice), memory, True),
        "FERMI_VASPACE_A": Kind(
            VaSpace, (Device, Subdevice), "NV_VASPACE_ALLOCATION_PARAMETERS", True
        ),
        "KEPLER_CHANNEL_GROUP_A": Kind(
            ChannelGroup, (Device,), "NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS", True
        ),
        "FERMI_CONTEXT_SHARE_A": Kind(
            ContextShare, (ChannelGroup,), "NV_CTXSHARE_ALLOCATION_PARAMETERS", True
        ),
        "GT200_DEBUGGER": Kind(Debugger, (Device,), "NV83DE_ALLOC_PARAMETERS", True),
        "TURING_USERMODE_A": usermode, "AMPERE_USERMODE_A": usermode,
        "HOPPER_USERMODE_A": usermode._replace(params="NV_HOPPER_USERMODE_A_PARAMS"),
        "TURING_CHANNEL_GPFIFO_A": channel, "AMPERE_CHANNEL_GPFIFO_A": channel,
        "HOPPER_CHANNEL_GPFIFO_A": channel,
        "TURING_COMPUTE_A": compute, "AMPERE_COMPUTE_B": compute, "ADA_COMPUTE_A": compute,
        "HOPPER_COMPUTE_A": compute,
        "TURING_DMA_COPY_A": copy, "AMPERE_DMA_COPY_B": copy, "HOPPER_DMA_COPY_A": copy,
    }
    numbers = {"NV01_DEVICE_0": 0x80, "NV20_SUBDEVICE_0": 0x2080}  # cl0080.h, cl2080.h
    return {numbers.get(name) or getattr(constants, name): kind for name, kind in found.items()}


class _NvFile(OpenFile):
    """What both nodes have. `view` is the one mapping that MAP_MEMORY has prepared."""

    def __init__(self, process: NvProcess) -> None:
        self.process, self.abi = process, process.abi
        self.view: View | None = None

    def descriptor(self) -> int:
        """The backing of all memory; `mmap` says where in it."""
        return self.process.backing.descriptor

    def escapes(self) -> dict[int, tuple[str, Callable[[Any, Call], None]]]:
        """By number: the structure and what is done."""
        raise NotImplementedError

    def ioctl(self, call: Call) -> int:
        """One escape. Raises OSError(EINVAL) for a number or a size that is none."""
        number, size = call.request & 0xFF, call.request >> 16 & 0x3FFF
        if call.request >> 8 & 0xFF != ESCAPE_TYPE:
            raise OSError(errno.EINVAL, f"request {call.request:#x}")
        content = call.program.read(call.address, size)
        with self.process.schedule.call(), self.process.lock:
            try:
                self._escape(number, content, call)
            finally:
                call.program.write(call.address, content)
                self.process.give_back(call)
        return 0

    def _escape(self, number: int, content: bytearray, call: Call) -> None:
        entry = self.escapes().get(number)
        if entry is None:
            raise OSError(errno.EINVAL, f"escape {number:#x} is none of this node, or not modelled")
        name, handler = entry
        structure = self.abi.structure(name)
        if len(content) != ctypes.sizeof(structure):
            raise OSError(
                errno.EINVAL, f"{name} has {ctypes.sizeof(structure)} bytes, not {len(content)}"
            )
        params: Any = structure.from_buffer(content)
        wanted = params.params if hasattr(params, "params") and "with_fd" in name else params
        try:
            handler(params, call)
            status = Status.OK
        except RmError as refused:
            status = refused.status
            self.process.log.append(f"escape {number:#x}: {refused}")
        for field in ("status", "Status"):
            if hasattr(wanted, field):
                setattr(wanted, field, status)

    def _client(self, handle: int) -> Client:
        """A client of this descriptor. Raises RmError."""
        client = self.process.clients.get(handle)
        require(client is not None and client.file is self, Status.INVALID_CLIENT,
                f"{handle:#x} is no client of this descriptor")
        assert client is not None
        return client

    def close(self) -> None:
        """Nothing to give back."""


class DeviceFile(_NvFile):
    """An open /dev/nvidiaN: what lies behind the GPU's bus is mapped through it."""

    def __init__(self, process: NvProcess, gpu: Gpu) -> None:
        super().__init__(process)
        self.gpu = gpu
        self.control: ControlFile | None = None

    def escapes(self) -> dict[int, tuple[str, Callable[[Any, Call], None]]]:
        """Few: the rest is for nvidiactl."""
        constants = self.abi.module
        found: dict[int, tuple[str, Callable[[Any, Call], None]]] = {
            constants.NV_ESC_REGISTER_FD: ("nv_ioctl_register_fd_t", self._register),
            constants.NV_ESC_RM_ALLOC_MEMORY: (
                "nv_ioctl_nvos02_parameters_with_fd", self._allocate
            ),
        }
        if hasattr(constants, "nv_ioctl_wait_open_complete_t"):
            found[constants.NV_ESC_WAIT_OPEN_COMPLETE] = (
                "nv_ioctl_wait_open_complete_t", self._opened
            )
        return found

    def _opened(self, params: Any, call: Call) -> None:
        params.rc, params.adapterStatus = 0, 0

    def _register(self, params: Any, call: Call) -> None:
        """NV_ESC_REGISTER_FD: once, and only a nvidiactl."""
        control = call.program.file(params.ctl_fd)
        if self.control is not None or not isinstance(control, ControlFile):
            raise OSError(errno.EINVAL, "registered already, or no nvidiactl")
        self.control = control

    def _allocate(self, params: Any, call: Call) -> None:
        """NV_ESC_RM_ALLOC_MEMORY, of memory that the program has."""
        args = params.params
        if args.hClass != self.abi.module.NV01_MEMORY_SYSTEM_OS_DESCRIPTOR:
            raise RmError(Status.NOT_SUPPORTED, f"class {args.hClass:#x} by this escape")
        require(self.control, Status.INVALID_CLIENT, "no nvidiactl is registered")
        assert self.control is not None
        self._check_flags(args.flags)
        address, size = args.pMemory or 0, args.limit + 1
        require(size < 1 << 64, Status.INVALID_LIMIT, "the limit is all ones")
        require(address % PAGE_BYTES == 0, Status.NOT_SUPPORTED, f"memory at {address:#x}")
        size = round_to_pages(size)
        client = self.control._client(args.hRoot)
        parent = client.find(args.hObjectParent, Device, Status.INVALID_OBJECT_PARENT)
        try:
            known = call.program.shared(address, size)
        except OSError as failure:
            raise RmError(Status.INVALID_ADDRESS, str(failure)) from failure
        made = UserPages(client, parent, client.name(args.hObjectNew), args.hClass)
        offset = self.process.backing.allocate(size) if known is None else known
        read_only = args.flags >> self.abi.module.FIELDS["NVOS02_FLAGS_ALLOC_USER_READ_ONLY"][0] & 1
        made.hold(Pages(offset, size, user_address=address), not read_only)
        client.objects[made.handle] = made
        parent.children.append(made)
        call.act(Action.ADOPT, 0, address, size, offset)
        args.hObjectNew = made.handle

    def _check_flags(self, flags: int) -> None:
        """RmAllocOsDescriptor. Raises RmError(INVALID_FLAGS)."""
        constants = self.abi.module

        def field(name: str) -> int:
            shift, width = constants.FIELDS[f"NVOS02_FLAGS_{name}"]
            return int(flags >> shift & (1 << width) - 1)

        coherent = (
            constants.NVOS02_FLAGS_COHERENCY_CACHED, constants.NVOS02_FLAGS_COHERENCY_WRITE_BACK,
            constants.NVOS02_FLAGS_COHERENCY_UNCACHED,
        )
        require(
            field("LOCATION") == constants.NVOS02_FLAGS_LOCATION_PCI
            and field("MAPPING") == constants.NVOS02_FLAGS_MAPPING_NO_MAP
            and field("COHERENCY") in coherent,
            Status.INVALID_FLAGS, f"flags {flags:#x}",
        )

    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> int:
        """What MAP_MEMORY has prepared, as a whole."""
        if self.view is None or offset:
            raise OSError(errno.EINVAL, "nothing was prepared by MAP_MEMORY, or an offset")
        if round_to_pages(size_bytes) != self.view.size_bytes:
            raise OSError(errno.ENXIO, f"{self.view.size_bytes:#x} bytes, not {size_bytes:#x}")
        return _allowed(self.view, protection)


class ControlFile(_NvFile):
    """An open /dev/nvidiactl: clients, their objects, and system memory."""

    def __init__(self, process: NvProcess) -> None:
        super().__init__(process)
        self.kinds = _kinds(self.abi.module)

    def escapes(self) -> dict[int, tuple[str, Callable[[Any, Call], None]]]:
        """By number."""
        constants = self.abi.module
        return {
            constants.NV_ESC_RM_ALLOC: ("NVOS21_PARAMETERS", self._allocate),
            constants.NV_ESC_RM_FREE: ("NVOS00_PARAMETERS", self._free),
            constants.NV_ESC_RM_CONTROL: ("NVOS54_PARAMETERS", self._control),
            constants.NV_ESC_RM_MAP_MEMORY: ("nv_ioctl_nvos33_parameters_with_fd", self._map),
            constants.NV_ESC_RM_UNMAP_MEMORY: ("NVOS34_PARAMETERS", self._unmap),
        }

    def _escape(self, number: int, content: bytearray, call: Call) -> None:
        constants = self.abi.module
        if number == constants.NV_ESC_CARD_INFO:
            self._card_info(content)
        elif number == constants.NV_ESC_CHECK_VERSION_STR:
            self._check_version(content)
        elif number == constants.NV_ESC_ATTACH_GPUS_TO_FD:
            self._attach(content)
        elif number == constants.NV_ESC_RM_ALLOC and len(content) == self.abi.size(
            "NVOS64_PARAMETERS"
        ):
            self._allocate_with_rights(content, call)
        else:
            super()._escape(number, content, call)

    def _card_info(self, content: bytearray) -> None:
        """NV_ESC_CARD_INFO: as many entries as there is room for."""
        structure = self.abi.structure("nv_ioctl_card_info_t")
        size = ctypes.sizeof(structure)
        count = len(content) // size
        if count < len(self.process.gpus):
            raise OSError(errno.EINVAL, f"room for {count} of {len(self.process.gpus)} cards")
        content[:] = bytes(len(content))
        for gpu in self.process.gpus:
            card: Any = structure.from_buffer(content, gpu.index * size)
            card.valid, card.gpu_id, card.minor_number = 1, gpu.gpu_id, gpu.minor
            card.pci_info.bus, card.pci_info.vendor_id = gpu.bus, VENDOR_ID
            card.pci_info.device_id = gpu.board.device_id
            card.fb_address = BAR1_BASE + BAR_STRIDE * gpu.index
            card.fb_size = gpu.board.vram_bytes
            card.reg_address, card.reg_size = 0xA0000000 + (gpu.index << 24), 16 << 20

    def _check_version(self, content: bytearray) -> None:
        """NV_ESC_CHECK_VERSION_STR: refuses another version than its own, by EINVAL."""
        structure = self.abi.structure("nv_ioctl_rm_api_version_t")
        if len(content) != ctypes.sizeof(structure):
            raise OSError(errno.EINVAL, f"a version of {len(content)} bytes")
        args: Any = structure.from_buffer(content)
        constants = self.abi.module
        asked = args.versionString.decode(errors="replace")
        args.reply = constants.NV_RM_API_VERSION_REPLY_RECOGNIZED
        if args.cmd == constants.NV_RM_API_VERSION_CMD_QUERY:
            args.versionString = self.abi.version.encode()
            return
        if asked != self.abi.version:
            args.reply = constants.NV_RM_API_VERSION_REPLY_UNRECOGNIZED
            args.versionString = self.abi.version.encode()
            raise OSError(errno.EINVAL, f"version {asked}; this is {self.abi.version}")

    def _attach(self, content: bytearray) -> None:
        """NV_ESC_ATTACH_GPUS_TO_FD."""
        if not content or len(content) % 4:
            raise OSError(errno.EINVAL, f"{len(content)} bytes of GPU numbers")
        known = {gpu.gpu_id for gpu in self.process.gpus} | {0}
        for at in range(0, len(content), 4):
            if int.from_bytes(content[at : at + 4], "little") not in known:
                raise OSError(errno.EINVAL, "no such GPU")

    # Objects.

    def _allocate_with_rights(self, content: bytearray, call: Call) -> None:
        params: Any = self.abi.structure("NVOS64_PARAMETERS").from_buffer(content)
        try:
            self._allocate(params, call)
            params.status = Status.OK
        except RmError as refused:
            params.status = refused.status
            self.process.log.append(f"RM_ALLOC: {refused}")

    def _allocate(self, params: Any, call: Call) -> None:
        constants = self.abi.module
        roots = (constants.NV01_ROOT, constants.NV01_ROOT_NON_PRIV, constants.NV01_ROOT_CLIENT)
        if params.hClass in roots:
            params.hObjectNew = self._new_client(params.hObjectNew)
            params.hRoot = params.hObjectNew
            return
        client = self._client(params.hRoot)
        kind = self.kinds.get(params.hClass)
        if kind is None:
            raise RmError(Status.INVALID_CLASS, f"class {params.hClass:#x}")
        parent = client.find(
            params.hObjectParent or client.handle, Resource
        )
        handle = client.name(params.hObjectNew)
        require(
            isinstance(parent, kind.parents), Status.INVALID_OBJECT_PARENT,
            f"a {kind.make.__name__} under a {type(parent).__name__}",
        )
        content, args = self._parameters(kind, params.pAllocParms or 0, call)
        made = kind.make(client, parent, handle, params.hClass)
        made.construct(args)
        client.objects[handle] = made
        parent.children.append(made)
        params.hObjectNew = handle
        if content:
            call.program.write(params.pAllocParms, content)

    def _parameters(self, kind: Kind, address: int, call: Call) -> tuple[bytearray, Any]:
        """What the class's parameters say; their size comes from the class, not from the call."""
        if not address:
            require(
                not kind.required, Status.INVALID_ARGUMENT, f"{kind.params} are left out"
            )
            return bytearray(), None
        if not kind.params or kind.params == "NVB0B5_ALLOCATION_PARAMETERS":
            return bytearray(), None  # none, or nothing that is modelled
        structure = self.abi.structure(kind.params)
        try:
            content = call.program.read(address, ctypes.sizeof(structure))
        except OSError as failure:
            raise RmError(Status.INVALID_ADDRESS, str(failure)) from failure
        return content, structure.from_buffer(content)

    def _new_client(self, handle: int) -> int:
        process = self.process
        if not handle:
            handle = process.next_client
            process.next_client += 1
        require(handle not in process.clients, Status.INSERT_DUPLICATE_NAME, f"{handle:#x}")
        Client(process, handle, self.abi.module.NV01_ROOT_CLIENT, self)
        return handle

    def _free(self, params: Any, call: Call) -> None:
        client = self._client(params.hRoot)
        client.find(params.hObjectOld, Resource).free()

    def _control(self, params: Any, call: Call) -> None:
        client = self._client(params.hClient)
        target = client.find(params.hObject, Resource)
        controls.run(target, params, call)

    # Mapping.

    def _map(self, params: Any, call: Call) -> None:
        args = params.params
        client = self._client(args.hClient)
        device = client.find(args.hDevice, Resource)
        memory = client.find(args.hMemory, Mappable, Status.NOT_SUPPORTED)
        ours = isinstance(device, Device | Subdevice) and device.gpu is memory.gpu
        require(
            ours or device is client, Status.INVALID_OBJECT_PARENT, "not that memory's device"
        )
        address, view = memory.view(args.offset, args.length)
        try:
            file = call.program.file(params.fd)
            wanted = ControlFile if memory.is_system else DeviceFile
            if not isinstance(file, wanted):
                raise RmError(Status.INVALID_ARGUMENT, f"{params.fd} is no {wanted.__name__}")
            require(
                isinstance(file, ControlFile)
                or (isinstance(file, DeviceFile) and file.gpu is memory.gpu),
                Status.INVALID_ARGUMENT, "the node of another GPU",
            )
            require(file.view is None, Status.STATE_IN_USE, "that descriptor has a mapping")
        except RmError:
            memory.forget_view(address)
            raise
        file.view = view
        args.pLinearAddress = address

    def _unmap(self, params: Any, call: Call) -> None:
        client = self._client(params.hClient)
        memory = client.find(params.hMemory, Mappable, Status.NOT_SUPPORTED)
        memory.forget_view(params.pLinearAddress or 0)

    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> int:
        """System memory that MAP_MEMORY has prepared."""
        if self.view is None or offset:
            raise OSError(errno.EINVAL, "nothing was prepared by MAP_MEMORY, or an offset")
        if round_to_pages(size_bytes) > self.view.size_bytes:
            raise OSError(errno.ERANGE, f"{self.view.size_bytes:#x} bytes, not {size_bytes:#x}")
        return _allowed(self.view, protection)

    def close(self) -> None:
        """Its clients go, and all that they had."""
        with self.process.schedule.call(), self.process.lock:
            for client in list(self.process.clients.values()):
                if client.file is self:
                    client.free()


def _allowed(view: View, protection: int) -> int:
    if protection & 2 and not view.writable:  # PROT_WRITE
        raise OSError(errno.EPERM, "memory that is to be read")
    return view.offset
