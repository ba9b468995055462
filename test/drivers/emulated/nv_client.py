"""A small program that brings up an NVIDIA board by raw ioctls, as its header says."""

from __future__ import annotations

import ctypes
import importlib
import os
import struct
import time
from typing import Any

from drivers.emulated.system import EmulatedSystem
from drivers.system import MAP_SHARED, PROT_READ, PROT_WRITE

ENTRIES = 64
GR_ENGINE, COPY_ENGINE = 1, 9
HOST, COMPUTE, COPY = 0, 1, 4  # subchannels
CLASSES = {  # usermode, channel, compute, copy
    "sm_75": (0xC461, 0xC46F, 0xC5C0, 0xC5B5), "sm_86": (0xC561, 0xC56F, 0xC7C0, 0xC7B5),
    "sm_89": (0xC561, 0xC56F, 0xC9C0, 0xC7B5), "sm_90": (0xC661, 0xC86F, 0xCBC0, 0xC8B5),
}


def request(number: int, size: int) -> int:
    """_IOWR('F', number, size)."""
    return 3 << 30 | size << 16 | 0x46 << 8 | number


class Refused(Exception):
    """A status that is not NV_OK."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"{what}: status {status:#x}")
        self.status = status


class Buffer:
    """Memory that a GPU sees at `gpu_addr`, and the program at `cpu_addr`."""

    def __init__(self, handle: int, size: int, gpu_addr: int, cpu_addr: int) -> None:
        self.handle, self.size, self.gpu_addr, self.cpu_addr = handle, size, gpu_addr, cpu_addr

    def read(self, size: int, offset: int = 0) -> bytes:
        return ctypes.string_at(self.cpu_addr + offset, size)

    def write(self, content: bytes, offset: int = 0) -> None:
        ctypes.memmove(self.cpu_addr + offset, content, len(content))

    def word(self, offset: int = 0) -> int:
        return int(ctypes.c_uint32.from_address(self.cpu_addr + offset).value)


class Rm:
    """One client of RM and one VA space of UVM, on one GPU."""

    def __init__(
        self, system: EmulatedSystem, board: str = "sm_90", module: str = "nv_555", index: int = 0
    ) -> None:
        self.system, self.index = system, index
        self.nv: Any = importlib.import_module(f"autogen.{module}")
        self.usermode_class, self.channel_class, self.compute_class, self.copy_class = CLASSES[
            board
        ]
        self.mapped: list[tuple[int, int]] = []
        self.opened: list[int] = []
        self.control_fd = self.open("/dev/nvidiactl")
        self.uvm_fd = self.open("/dev/nvidia-uvm")
        self.root = self.alloc(0, 0, self.nv.NV01_ROOT_CLIENT)
        self.next_gpu_addr = 0x10_0000_0000

    def open(self, path: str) -> int:
        flags = os.O_RDWR if path.startswith("/dev/") else os.O_RDONLY
        self.opened.append(self.system.open(path, flags))
        return self.opened[-1]

    def close(self) -> None:
        for address, size in self.mapped:
            self.system.munmap(address, size)
        for descriptor in reversed(self.opened):
            self.system.close(descriptor)

    # Calls.

    def make(self, name: str, **values: Any) -> Any:
        structure = getattr(self.nv, name, None) or getattr(self.nv, f"struct_{name}")
        made = structure()
        for field, value in values.items():
            setattr(made, field, value)
        return made

    def escape(self, descriptor: int, number: int, args: Any) -> Any:
        self.system.ioctl(
            descriptor, request(number, ctypes.sizeof(args)), ctypes.addressof(args)
        )
        inner = getattr(args, "params", args)
        inner = inner if hasattr(inner, "status") else args
        if getattr(inner, "status", 0):
            raise Refused(inner.status, f"escape {number:#x}")
        return args

    def alloc(
        self, parent: int, handle: int, number: int, params: Any = None, root: int | None = None
    ) -> int:
        args = self.make(
            "NVOS21_PARAMETERS", hRoot=getattr(self, "root", 0) if root is None else root,
            hObjectParent=parent, hObjectNew=handle, hClass=number,
            pAllocParms=ctypes.addressof(params) if params is not None else None,
        )
        return int(self.escape(self.control_fd, self.nv.NV_ESC_RM_ALLOC, args).hObjectNew)

    def free(self, handle: int) -> None:
        args = self.make("NVOS00_PARAMETERS", hRoot=self.root, hObjectOld=handle)
        self.escape(self.control_fd, self.nv.NV_ESC_RM_FREE, args)

    def control(self, target: int, command: int, params: Any, size: int | None = None) -> Any:
        args = self.make(
            "NVOS54_PARAMETERS", hClient=self.root, hObject=target, cmd=command,
            params=ctypes.addressof(params),
            paramsSize=ctypes.sizeof(params) if size is None else size,
        )
        self.escape(self.control_fd, self.nv.NV_ESC_RM_CONTROL, args)
        return params

    def uvm(self, name: str, **values: Any) -> Any:
        args = self.make(f"UVM_{name}_PARAMS", **values)
        self.system.ioctl(self.uvm_fd, getattr(self.nv, f"UVM_{name}"), ctypes.addressof(args))
        if args.rmStatus:
            raise Refused(args.rmStatus, f"UVM_{name}")
        return args

    def named_uuid(self, uuid: bytes) -> Any:
        return (ctypes.c_ubyte * 16).from_buffer_copy(uuid)

    def uuid_field(self) -> Any:
        return type(self.make("UVM_UNREGISTER_CHANNEL_PARAMS").gpuUuid).from_buffer_copy(self.uuid)

    # Bring-up.

    def device(self) -> None:
        """Device, subdevice, doorbell."""
        nv = self.nv
        node = self.open(f"/dev/nvidia{self.index}")
        self.escape(node, nv.NV_ESC_REGISTER_FD, self.make(
            "nv_ioctl_register_fd_t", ctl_fd=self.control_fd
        ))
        self.node_fd = node
        params = self.make("NV0080_ALLOC_PARAMETERS", deviceId=self.index, hClientShare=self.root)
        self.dev = self.alloc(self.root, 0, 0x80, params)
        self.sub = self.alloc(self.dev, 0, 0x2080, self.make("NV2080_ALLOC_PARAMETERS"))
        gid = self.make("NV2080_CTRL_GPU_GET_GID_INFO_PARAMS", flags=2)
        self.control(self.sub, nv.NV2080_CTRL_CMD_GPU_GET_GID_INFO, gid)
        self.uuid = bytes(gid.data[: gid.length])
        usermode = self.alloc(self.sub, 0, self.usermode_class)
        self.doorbell = self.map(usermode, 0x10000, parent=self.sub) + 0x90

    def space(self) -> None:
        """A VA space that UVM owns."""
        params = self.make(
            "NV_VASPACE_ALLOCATION_PARAMETERS", vaBase=0x1000, vaSize=0x1FFFFFB000000,
            flags=self.nv.NV_VASPACE_ALLOCATION_FLAGS_IS_EXTERNALLY_OWNED
            | self.nv.NV_VASPACE_ALLOCATION_FLAGS_ENABLE_PAGE_FAULTING,
        )
        self.vas = self.alloc(self.dev, 0, self.nv.FERMI_VASPACE_A, params)
        self.uvm("INITIALIZE")
        self.uvm("REGISTER_GPU", gpu_uuid=self.uuid_field(), rmCtrlFd=-1)
        self.uvm(
            "REGISTER_GPU_VASPACE", gpuUuid=self.uuid_field(), rmCtrlFd=self.control_fd,
            hClient=self.root, hVaSpace=self.vas,
        )

    def memory(self, size: int, video: bool = True, owner: int = 0x1234) -> int:
        params = self.make("NV_MEMORY_ALLOCATION_PARAMS", owner=owner, size=size)
        number = self.nv.NV01_MEMORY_LOCAL_USER if video else self.nv.NV01_MEMORY_SYSTEM
        return self.alloc(self.dev, 0, number, params)

    def map(
        self, handle: int, size: int, parent: int | None = None, video: bool = True,
        descriptor: int | None = None,
    ) -> int:
        """Into the program: each mapping has a descriptor of its own."""
        if descriptor is None:
            descriptor = self.open(f"/dev/nvidia{self.index}" if video else "/dev/nvidiactl")
        args = self.make("nv_ioctl_nvos33_parameters_with_fd", fd=descriptor)
        args.params.hClient, args.params.hDevice = self.root, parent or self.dev
        args.params.hMemory, args.params.length = handle, size
        self.escape(self.control_fd, self.nv.NV_ESC_RM_MAP_MEMORY, args)
        address = self.system.mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        self.mapped.append((address, size))
        return address

    def show(
        self, handle: int, size: int, gpu_addr: int, kind: int = 0, offset: int = 0,
        length: int | None = None,
    ) -> None:
        """To the GPU, in a range that there is."""
        args = self.make(
            "UVM_MAP_EXTERNAL_ALLOCATION_PARAMS", base=gpu_addr, length=length or size,
            offset=offset, gpuAttributesCount=1, rmCtrlFd=self.control_fd, hClient=self.root,
            hMemory=handle,
        )
        args.perGpuAttributes[0].gpuUuid = self.uuid_field()
        args.perGpuAttributes[0].gpuMappingType = kind
        self.system.ioctl(
            self.uvm_fd, self.nv.UVM_MAP_EXTERNAL_ALLOCATION, ctypes.addressof(args)
        )
        if args.rmStatus:
            raise Refused(args.rmStatus, "UVM_MAP_EXTERNAL_ALLOCATION")

    def buffer(self, size: int, video: bool = True, kind: int = 0) -> Buffer:
        handle = self.memory(size, video)
        gpu_addr = self.next_gpu_addr
        self.next_gpu_addr += (size + 0x1FFFFF & -0x200000) + 0x200000
        self.uvm("CREATE_EXTERNAL_RANGE", base=gpu_addr, length=size)
        self.show(handle, size, gpu_addr, kind)
        return Buffer(handle, size, gpu_addr, self.map(handle, size, video=video))


class Channel:
    """A channel group with one channel of its own memory; `run` submits words and waits."""

    def __init__(
        self, rm: Rm, engine: int = GR_ENGINE, register: bool = True, group: int = 0
    ) -> None:
        self.rm, nv = rm, rm.nv
        self.ring = rm.buffer(0x10000)
        self.commands = rm.buffer(0x100000)
        self.userd = rm.memory(0x1000)
        self.userd_addr = rm.map(self.userd, 0x1000)
        self.notifier = rm.memory(0x1000, video=False)
        self.notifier_addr = rm.map(self.notifier, 0x1000, video=False)
        self.done = rm.buffer(0x1000, video=False)
        self.group = group or rm.alloc(rm.dev, 0, nv.KEPLER_CHANNEL_GROUP_A, rm.make(
            "NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS", engineType=engine
        ))
        share = rm.alloc(self.group, 0, nv.FERMI_CONTEXT_SHARE_A, rm.make(
            "NV_CTXSHARE_ALLOCATION_PARAMETERS", hVASpace=rm.vas, flags=1
        ))
        params = rm.make(
            "NV_CHANNEL_ALLOC_PARAMS", hObjectError=self.notifier, gpFifoOffset=self.ring.gpu_addr,
            gpFifoEntries=ENTRIES, hContextShare=share,
        )
        params.hUserdMemory[0] = self.userd
        self.handle = rm.alloc(self.group, 0, rm.channel_class, params)
        self.objects = {}
        if engine == GR_ENGINE:
            self.objects[COMPUTE] = rm.compute_class
            self.compute = rm.alloc(self.handle, 0, rm.compute_class)
        self.objects[COPY] = rm.copy_class
        rm.alloc(self.handle, 0, rm.copy_class)
        token = rm.make("NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN_PARAMS")
        rm.control(self.handle, nv.NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN, token)
        self.token = token.workSubmitToken
        if register:
            self.register()
        self.put, self.used, self.value = 0, 0, 0

    def register(self) -> None:
        rm = self.rm
        base = rm.next_gpu_addr
        rm.next_gpu_addr += 0x4000000
        rm.uvm(
            "REGISTER_CHANNEL", gpuUuid=rm.uuid_field(), rmCtrlFd=rm.control_fd, hClient=rm.root,
            hChannel=self.handle, base=base, length=0x4000000,
        )

    def schedule(self) -> None:
        self.rm.control(self.group, self.rm.nv.NVA06C_CTRL_CMD_GPFIFO_SCHEDULE, self.rm.make(
            "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS", bEnable=1
        ))
        self.run([
            word for sub, number in self.objects.items() for word in methods(sub, 0, number)
        ])

    def submit(self, words: list[int], ring: bool = True) -> None:
        """One entry, and the doorbell."""
        at = self.commands.gpu_addr + self.used
        self.commands.write(struct.pack(f"<{len(words)}I", *words), self.used)
        self.used += 4 * len(words)
        entry = at | len(words) << 42 | 1 << 41
        self.ring.write(struct.pack("<Q", entry), 8 * self.put)
        self.put = (self.put + 1) % ENTRIES
        ctypes.c_uint32.from_address(self.userd_addr + 0x8C).value = self.put
        if ring:
            self.ring_doorbell()

    def ring_doorbell(self) -> None:
        ctypes.c_uint32.from_address(self.rm.doorbell).value = self.token

    def run(self, words: list[int]) -> None:
        """Submits, and waits for a semaphore behind it."""
        self.value += 1
        release = semaphore(self.done.gpu_addr, self.value, 1 | 1 << 20)
        self.submit([*words, *release])
        wait(lambda: self.done.word() == self.value or self.error())
        assert not self.error(), self.rm.system.log()

    def error(self) -> int:
        """The error notifier's status."""
        return int(ctypes.c_uint16.from_address(self.notifier_addr + 14).value)

    def error_code(self) -> int:
        """Xid."""
        return int(ctypes.c_uint32.from_address(self.notifier_addr + 8).value)


def wait(condition: Any, seconds: float = 30.0) -> None:
    """Until something holds; a limit so that a broken board fails instead of hanging."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the board did not answer"
        time.sleep(0.0005)


def methods(subchannel: int, offset: int, *values: int, operation: int = 1) -> list[int]:
    """A header and its values: incrementing (1), non-incrementing (3), once (5)."""
    return [operation << 29 | len(values) << 16 | subchannel << 13 | offset >> 2, *values]


def immediate(subchannel: int, offset: int, value: int) -> list[int]:
    """A header with its value inside."""
    return [4 << 29 | value << 16 | subchannel << 13 | offset >> 2]


def semaphore(address: int, payload: int, execute: int) -> list[int]:
    """SEM_ADDR_LO to SEM_EXECUTE."""
    return methods(
        HOST, 0x5C, address & 0xFFFFFFFF, address >> 32, payload & 0xFFFFFFFF, payload >> 32,
        execute,
    )


def copy(source: int, target: int, size: int, launch: int = 0x182) -> list[int]:
    """A pitch copy of one line."""
    return [
        *methods(COPY, 0x400, source >> 32, source & 0xFFFFFFFF, target >> 32, target & 0xFFFFFFFF),
        *methods(COPY, 0x418, size), *methods(COPY, 0x300, launch),
    ]
