"""/dev/nvidia-uvm: VA spaces, what is mapped in them, and for which GPU (uvm*.c)."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from drivers.emulated.memory import EXECUTE, READ, WRITE, Mapping
from drivers.emulated.model import Call, OpenFile
from drivers.emulated.nv.device import VaSpace
from drivers.emulated.nv.fifo import ChannelResource
from drivers.emulated.nv.gpu import Gpu
from drivers.emulated.nv.memory import Memory
from drivers.emulated.nv.objects import Kind
from drivers.emulated.nv.process import NvProcess, Pages
from drivers.emulated.nv.status import RmError, Status, require
from drivers.system import PAGE_BYTES

ADDRESS_LIMIT = 1 << 47  # what a program can map; the GPUs' own limit is beyond
CHANNEL_RESOURCE_BYTES = 32 << 20  # what a graphics channel's context buffers take of its window
WARNING = Status.WARN_NOTHING_TO_DO
MULTI_PROCESS_SHARING = 2  # UVM_INIT_FLAGS_MULTI_PROCESS_SHARING_MODE
MAPPING_TYPES = {0: READ | WRITE, 1: READ | WRITE, 2: READ | WRITE, 3: READ}  # UvmGpuMappingType*


@dataclass(eq=False)
class Placed:
    """A piece of memory that one GPU sees."""

    gpu: Gpu
    start: int
    end: int
    pages: Pages
    offset: int
    protection: int


@dataclass(eq=False)
class Range:
    """A range of addresses: made for external memory, or for a channel's context."""

    start: int
    end: int
    channel: ChannelResource | None = None
    placed: list[Placed] = field(default_factory=list)


class UvmSpace:
    """The addresses of one program, through one descriptor."""

    def __init__(self, process: NvProcess, flags: int) -> None:
        self.process, self.flags = process, flags
        self.gpus: set[Gpu] = set()
        self.spaces: dict[Gpu, VaSpace] = {}
        self.peers: set[frozenset[int]] = set()
        self.ranges: list[Range] = []
        self.channels: list[ChannelResource] = []

    def gpu(self, uuid: Any) -> Gpu:
        """A registered GPU. Raises RmError(INVALID_DEVICE)."""
        wanted = bytes(uuid)
        for gpu in self.gpus:
            if gpu.uuid == wanted:
                return gpu
        raise RmError(Status.INVALID_DEVICE, f"no GPU {wanted.hex()} is registered")

    def space(self, uuid: Any) -> VaSpace:
        """The VA space of a GPU. Raises RmError(INVALID_DEVICE)."""
        gpu = self.gpu(uuid)
        require(gpu in self.spaces, Status.INVALID_DEVICE, f"GPU {gpu.index} has no VA space")
        return self.spaces[gpu]

    # Ranges.

    def add(self, start: int, length: int, channel: ChannelResource | None = None) -> Range:
        """A range. Raises RmError(UVM_ADDRESS_IN_USE)."""
        for other in self.ranges:
            require(
                start + length <= other.start or other.end <= start, Status.UVM_ADDRESS_IN_USE,
                f"{start:#x} overlaps {other.start:#x} to {other.end:#x}",
            )
        made = Range(start, start + length, channel)
        self.ranges.append(made)
        return made

    def range_of(self, start: int, length: int) -> Range:
        """The external range that holds all of it. Raises RmError(INVALID_ADDRESS)."""
        for found in self.ranges:
            if found.channel is None and found.start <= start and start + length <= found.end:
                return found
        raise RmError(Status.INVALID_ADDRESS, f"{start:#x} is in no external range")

    def place(self, into: Range, placed: Placed) -> None:
        """Shows memory to a GPU, in place of what is there. Raises RmError."""
        self.clear(into, placed.gpu, placed.start, placed.end)
        self._show(placed)
        into.placed.append(placed)
        placed.pages.users += 1

    def clear(self, of: Range, gpu: Gpu, start: int, end: int) -> None:
        """Takes away what a GPU sees between two addresses; what sticks out stays."""
        for old in list(of.placed):
            if old.gpu is not gpu or old.end <= start or end <= old.start:
                continue
            self._hide(old)
            of.placed.remove(old)
            for low, high in ((old.start, min(old.end, start)), (max(old.start, end), old.end)):
                if low < high:
                    rest = Placed(
                        gpu, low, high, old.pages, old.offset + low - old.start, old.protection
                    )
                    self._show(rest)
                    of.placed.append(rest)
                    old.pages.users += 1
            self.process.release(old.pages)

    def _show(self, what: Placed) -> None:
        table = self.spaces[what.gpu].table
        size = what.end - what.start
        try:
            self.process.show(what.start, what.pages, what.offset, size)
        except OSError as failure:
            raise RmError(Status.NOT_SUPPORTED, str(failure)) from failure
        table.add(Mapping(what.start, what.end, what.protection | EXECUTE, "external"))

    def _hide(self, what: Placed) -> None:
        self.spaces[what.gpu].table.remove(what.start)
        self.process.hide(what.start, what.pages, what.offset, what.end - what.start)

    def free(self, found: Range) -> None:
        """A range goes, with all that is mapped in it."""
        for gpu in {placed.gpu for placed in found.placed}:
            self.clear(found, gpu, found.start, found.end)
        self.ranges.remove(found)

    # What goes away.

    def drop_channel(self, channel: ChannelResource) -> None:
        """A channel is no longer registered."""
        if channel in self.channels:
            self.channels.remove(channel)
            channel.registered = False
        for found in [one for one in self.ranges if one.channel is channel]:
            self.ranges.remove(found)

    def drop_space(self, space: VaSpace) -> None:
        """A GPU's VA space is no longer registered: nothing is mapped in it any more."""
        gpu = space.gpu
        for channel in [one for one in self.channels if one.space is space]:
            self.drop_channel(channel)
        for found in self.ranges:
            self.clear(found, gpu, found.start, found.end)
        del self.spaces[gpu]
        space.uvm = None

    def close(self) -> None:
        """The descriptor was closed."""
        for space in list(self.spaces.values()):
            for channel in [one for one in self.channels if one.space is space]:
                channel.group.die(45, "the UVM descriptor was closed")  # PREEMPTIVE_REMOVAL
            self.drop_space(space)


class UvmFile(OpenFile):
    """An open /dev/nvidia-uvm. The request is a bare number, of no size."""

    def __init__(self, process: NvProcess) -> None:
        self.process = process
        self.space: UvmSpace | None = None
        self.holds_mm = False
        self.mm_held = False  # by another descriptor
        constants = process.abi.module
        names = {
            "UVM_INITIALIZE": self._initialise, "UVM_MM_INITIALIZE": self._hold_mm,
            "UVM_REGISTER_GPU": self._register_gpu, "UVM_UNREGISTER_GPU": self._unregister_gpu,
            "UVM_REGISTER_GPU_VASPACE": self._register_space,
            "UVM_UNREGISTER_GPU_VASPACE": self._unregister_space,
            "UVM_REGISTER_CHANNEL": self._register_channel,
            "UVM_UNREGISTER_CHANNEL": self._unregister_channel,
            "UVM_ENABLE_PEER_ACCESS": self._enable_peers,
            "UVM_DISABLE_PEER_ACCESS": self._disable_peers,
            "UVM_CREATE_EXTERNAL_RANGE": self._create_range,
            "UVM_MAP_EXTERNAL_ALLOCATION": self._map, "UVM_UNMAP_EXTERNAL": self._unmap,
            "UVM_FREE": self._free, "UVM_VALIDATE_VA_RANGE": self._validate,
            "UVM_PAGEABLE_MEM_ACCESS": self._pageable,
        }
        self.handlers: dict[int, tuple[str, Callable[[Any, Call], None]]] = {
            getattr(constants, name): (name, handler) for name, handler in names.items()
        }

    def descriptor(self) -> int:
        """The backing; nothing of it is mapped through this node."""
        return self.process.backing.descriptor

    def ioctl(self, call: Call) -> int:
        """One call: its status stands in its structure."""
        if call.request == self.process.abi.module.UVM_DEINITIALIZE:
            return 0
        entry = self.handlers.get(call.request)
        if entry is None:
            raise OSError(errno.EINVAL, f"UVM call {call.request:#x} is none, or not modelled")
        name, handler = entry
        structure = self.process.abi.structure(f"{name}_PARAMS")
        content = call.program.read(call.address, ctypes.sizeof(structure))
        params: Any = structure.from_buffer(content)
        try:
            with self.process.schedule.call(), self.process.lock:
                if not name.endswith("INITIALIZE"):
                    require(self.space, Status.ILLEGAL_ACTION, "UVM_INITIALIZE comes first")
                handler(params, call)
            params.rmStatus = Status.OK
        except RmError as refused:
            params.rmStatus = refused.status
            self.process.log.append(f"{name}: {refused}")
        call.program.write(call.address, content)
        self.process.give_back(call)
        return 0

    def mmap(self, size_bytes: int, protection: int, flags: int, offset: int) -> int:
        """Managed memory is not modelled."""
        raise OSError(errno.EINVAL, "managed memory is not modelled")

    def close(self) -> None:
        """The VA space goes with it."""
        if self.space is not None:
            with self.process.schedule.call(), self.process.lock:
                self.space.close()

    @property
    def _space(self) -> UvmSpace:
        assert self.space is not None
        return self.space

    def _rm(self, params: Any, handle: int, kind: type[Kind], wrong: Status) -> Kind:
        """An object of RM that a structure names. Raises RmError."""
        client = self.process.clients.get(params.hClient)
        require(client, Status.INVALID_CLIENT, f"no client {params.hClient:#x}")
        assert client is not None
        return client.find(handle, kind, wrong)

    def _initialise(self, params: Any, call: Call) -> None:
        require(not self.holds_mm, Status.INVALID_ARGUMENT, "this descriptor holds an mm")
        require(not params.flags & ~3, Status.INVALID_ARGUMENT, f"flags {params.flags:#x}")
        if self.process.container:
            params.flags |= MULTI_PROCESS_SHARING  # as nvproxy does
        if self.space is not None:
            require(
                self.space.flags == params.flags, Status.INVALID_ARGUMENT, "it has other flags"
            )
            return
        self.space = UvmSpace(self.process, params.flags)

    def _hold_mm(self, params: Any, call: Call) -> None:
        other = call.program.file(params.uvmFd)
        if not isinstance(other, UvmFile) or other.space is None:
            raise RmError(Status.INVALID_ARGUMENT, f"{params.uvmFd} is no initialised descriptor")
        require(
            not other.space.flags & MULTI_PROCESS_SHARING, WARNING, "the mm is not held"
        )
        require(self.space is None and not self.holds_mm, Status.IN_USE, "initialised already")
        require(not other.mm_held, Status.INVALID_STATE, "the mm is held already")
        other.mm_held = self.holds_mm = True

    def _register_gpu(self, params: Any, call: Call) -> None:
        wanted = bytes(params.gpu_uuid)
        gpu = next((gpu for gpu in self.process.gpus if gpu.uuid == wanted), None)
        require(gpu, Status.INVALID_DEVICE, f"no GPU {wanted.hex()}")
        assert gpu is not None
        require(gpu not in self._space.gpus, Status.INVALID_DEVICE, "registered already")
        self._space.gpus.add(gpu)
        params.numaEnabled, params.numaNodeId = 0, -1

    def _unregister_gpu(self, params: Any, call: Call) -> None:
        gpu = self._space.gpu(params.gpu_uuid)
        space = self._space.spaces.get(gpu)
        if space is not None:
            self._space.drop_space(space)
        self._space.gpus.discard(gpu)

    def _register_space(self, params: Any, call: Call) -> None:
        gpu = self._space.gpu(params.gpuUuid)
        space = self._rm(params, params.hVaSpace, VaSpace, Status.INVALID_OBJECT)
        require(gpu not in self._space.spaces, Status.INVALID_DEVICE, "it has one already")
        require(space.gpu is gpu, Status.INVALID_DEVICE, "a VA space of another GPU")
        require(space.external, Status.INVALID_FLAGS, "it is not externally owned")
        require(space.uvm is None, Status.IN_USE, "registered elsewhere")
        self._space.spaces[gpu], space.uvm = space, self._space

    def _unregister_space(self, params: Any, call: Call) -> None:
        self._space.drop_space(self._space.space(params.gpuUuid))

    def _register_channel(self, params: Any, call: Call) -> None:
        space = self._space.space(params.gpuUuid)
        channel = self._rm(params, params.hChannel, ChannelResource, Status.INVALID_CHANNEL)
        require(channel.space is space, Status.INVALID_DEVICE, "a channel of another VA space")
        require(
            channel not in self._space.channels, Status.INVALID_CHANNEL, "registered already"
        )
        if channel.group.is_graphics:
            _check_range(params.base, params.length)
            require(
                params.length >= CHANNEL_RESOURCE_BYTES, Status.INVALID_ADDRESS,
                f"{params.length:#x} bytes do not hold the context's buffers",
            )
            end = params.base + params.length
            at = params.base
            for other in sorted(self._space.ranges, key=lambda one: one.start):
                if other.end > at and other.start < at + CHANNEL_RESOURCE_BYTES:
                    at = other.end
            require(at + CHANNEL_RESOURCE_BYTES <= end, Status.INVALID_ADDRESS, "no room is left")
            self._space.add(at, CHANNEL_RESOURCE_BYTES, channel)
        self._space.channels.append(channel)
        channel.registered = True

    def _unregister_channel(self, params: Any, call: Call) -> None:
        for channel in self._space.channels:
            if (channel.client.handle, channel.handle) == (params.hClient, params.hChannel):
                self._space.drop_channel(channel)
                return
        raise RmError(Status.INVALID_CHANNEL, f"{params.hChannel:#x} is not registered")

    def _peers(self, params: Any) -> frozenset[int]:
        one, other = self._space.gpu(params.gpuUuidA), self._space.gpu(params.gpuUuidB)
        require(one is not other, Status.INVALID_DEVICE, "one GPU is no pair")
        return frozenset((one.index, other.index))

    def _enable_peers(self, params: Any, call: Call) -> None:
        pair = self._peers(params)
        require(pair not in self._space.peers, Status.INVALID_DEVICE, "enabled already")
        self._space.peers.add(pair)

    def _disable_peers(self, params: Any, call: Call) -> None:
        pair = self._peers(params)
        require(pair in self._space.peers, Status.INVALID_DEVICE, "not enabled")
        self._space.peers.discard(pair)

    def _create_range(self, params: Any, call: Call) -> None:
        _check_range(params.base, params.length)
        self._space.add(params.base, params.length)

    def _map(self, params: Any, call: Call) -> None:
        base, length = params.base, params.length
        _check_range(base, length)
        require(
            0 < params.gpuAttributesCount <= len(params.perGpuAttributes),
            Status.INVALID_ARGUMENT, f"{params.gpuAttributesCount} GPUs",
        )
        into = self._space.range_of(base, length)
        done: list[Gpu] = []
        try:
            for attributes in params.perGpuAttributes[: params.gpuAttributesCount]:
                require(
                    attributes.gpuMappingType in MAPPING_TYPES, Status.INVALID_ARGUMENT,
                    f"mapping type {attributes.gpuMappingType}",
                )
                gpu = self._space.space(attributes.gpuUuid).gpu
                memory = self._rm(params, params.hMemory, Memory, Status.INVALID_OBJECT)
                self._check_memory(gpu, memory, params)
                self._space.place(into, Placed(
                    gpu, base, base + length, memory.pages, params.offset,
                    MAPPING_TYPES[attributes.gpuMappingType],
                ))
                done.append(gpu)
        except RmError:
            for gpu in done:
                self._space.clear(into, gpu, base, base + length)
            raise

    def _check_memory(self, gpu: Gpu, memory: Memory, params: Any) -> None:
        """Whether a GPU may see it so. Raises RmError."""
        owner = memory.gpu
        require(owner in self._space.gpus, Status.INVALID_DEVICE, "of a GPU that is not registered")
        require(
            memory.is_system or owner is gpu
            or frozenset((owner.index, gpu.index)) in self._space.peers,
            Status.INVALID_DEVICE, "peer access is not enabled",
        )
        size = memory.pages.size_bytes
        place = f"{params.length:#x} bytes at {params.offset:#x} of {size:#x}"
        require(params.offset < size, Status.INVALID_BASE, place)
        require(params.offset + params.length <= size, Status.INVALID_LIMIT, place)
        require(params.offset % PAGE_BYTES == 0, Status.INVALID_ADDRESS, f"{params.offset:#x}")
        require(params.base + params.length <= ADDRESS_LIMIT, Status.OUT_OF_RANGE, "too high")

    def _unmap(self, params: Any, call: Call) -> None:
        _check_range(params.base, params.length)
        found = self._space.range_of(params.base, params.length)
        gpu = self._space.gpu(params.gpuUuid)
        self._space.clear(found, gpu, params.base, params.base + params.length)

    def _free(self, params: Any, call: Call) -> None:
        for found in self._space.ranges:
            if found.start == params.base and found.channel is None:
                size = found.end - found.start
                length = getattr(params, "length", size)  # since 590 nobody says it
                require(
                    length == size, Status.INVALID_ADDRESS,
                    f"the range has {size:#x} bytes, not {length:#x}",
                )
                self._space.free(found)
                return
        raise RmError(Status.INVALID_ADDRESS, f"no range begins at {params.base:#x}")

    def _validate(self, params: Any, call: Call) -> None:
        self._space.range_of(params.base, params.length)

    def _pageable(self, params: Any, call: Call) -> None:
        params.pageableMemAccess = 0


def _check_range(base: int, length: int) -> None:
    """uvm_api_range_invalid_4k. Raises RmError(INVALID_ADDRESS)."""
    bad = base % PAGE_BYTES or length % PAGE_BYTES or not base or not length
    require(
        not bad and base + length < 1 << 64, Status.INVALID_ADDRESS, f"{length:#x} at {base:#x}"
    )
