"""A GPFIFO channel: its ring, USERD, error notifier and engine objects.

Every submission is a pair of GPFIFO entries: the list, and the *tail* of its place in the ring,
which brings the timeline to the list's value when the engine is idle. The first pair binds the
subchannels and sets the windows through which kernels see shared and local memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from typing import TYPE_CHECKING, Any, Final

from autogen import nv_clc86f
from drivers.blocks import Block
from drivers.errors import HardwareError, OutOfDeviceMemory, SystemCallFailed
from drivers.fields import put, single
from drivers.native.image import native
from drivers.native.layout import RingState
from drivers.nv.memory import HOST, Placement
from drivers.system import PAGE_BYTES

if TYPE_CHECKING:
    from drivers.nv.device import NvDevice

SHARED_WINDOW: Final = 0x7294 << 32
LOCAL_WINDOW: Final = 0x7293 << 32
"""Where generic addresses lead to shared and local memory: no host mapping lies there."""
CONTEXT_BYTES: Final = 64 << 20  # addresses that unified memory fills with the channel's context
_ENTRY_DWORDS: Final = 2
_PAIR_DWORDS: Final = 2 * _ENTRY_DWORDS
_TAIL_DWORDS: Final = 8
_GP_GET, _GP_PUT = 0x88, 0x8C  # clc86f.h, Nvc86fControl
_USERD_BYTES: Final = 512
_NOTIFIER_BYTES: Final = 16  # nvgputypes.h, NvNotification
_TEMPLATE_AT: Final = 512
_COUNTER_AT: Final = 448
_SETUP_AT: Final = 1024
_GRAPHICS: Final = 1  # cl2080.h, NV2080_ENGINE_TYPE_GRAPHICS
_ENTRY: Final = nv_clc86f.FIELDS["ENTRY"]
LENGTH_SHIFT: Final = 32 + _ENTRY["GP_ENTRY1_LENGTH"][0]
LENGTH_LIMIT: Final = (1 << _ENTRY["GP_ENTRY1_LENGTH"][1]) - 1
"""Dwords of one list."""


def gpfifo_entry(address: int, dwords: int) -> int:
    """An entry that runs `dwords` at an address (clc86f.h, GP_ENTRY0 and GP_ENTRY1)."""
    words = [0, 0]
    put(words, single(0, *_ENTRY["GP_ENTRY0_GET"]), address >> 2 & (1 << 30) - 1, "GP_ENTRY0_GET")
    put(words, single(1, *_ENTRY["GP_ENTRY1_GET_HI"]), address >> 32, "GP_ENTRY1_GET_HI")
    put(words, single(1, *_ENTRY["GP_ENTRY1_LENGTH"]), dwords, "GP_ENTRY1_LENGTH")
    return words[0] | words[1] << 32


class ChannelGroup:
    """The channels of a device, which share an address space and end together after an error."""

    def __init__(self, device: NvDevice) -> None:
        self._device, self.rm = device, device.gpu.rm
        gpu, abi = device.gpu, device.gpu.rm.abi
        self.group = self.rm.alloc(
            gpu.device, abi.number("KEPLER_CHANNEL_GROUP_A"), "KEPLER_CHANNEL_GROUP_A",
            abi.make("NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS", engineType=_GRAPHICS),
        )
        try:
            self.share = self.rm.alloc(
                self.group, abi.number("FERMI_CONTEXT_SHARE_A"), "FERMI_CONTEXT_SHARE_A",
                abi.make(
                    "NV_CTXSHARE_ALLOCATION_PARAMETERS", hVASpace=gpu.space,
                    flags=abi.number("NV_CTXSHARE_ALLOCATION_FLAGS_SUBCONTEXT_ASYNC"),
                ),
            )
        except BaseException:
            self.close()
            raise

    def schedule(self) -> None:
        """Lets the GPU run all channels that the group has by now."""
        parameters = self.rm.abi.make("NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS", bEnable=1)
        self.rm.control(self.group, "NVA06C_CTRL_CMD_GPFIFO_SCHEDULE", parameters)

    def close(self) -> None:
        """Frees the group, whose channels are gone."""
        self.rm.release(self.group)


class Channel:
    """One channel of the kernel driver. `state` is what native submission works on."""

    def __init__(
        self, device: NvDevice, ring_records: int, timeline: int, *, computes: bool
    ) -> None:
        self._device, self._memory, self.rm = device, device.gpu_memory, device.gpu.rm
        self._blocks: list[Block] = []
        self._context = self.channel = self.debugger = self.notifier = 0
        self._registered = False
        self._userd = 0
        try:
            # Two pairs stay empty: the first is the setup, and a full ring looks like an empty one.
            pairs = 1 << (ring_records + 1).bit_length()
            self._ring = self._take(pairs * _PAIR_DWORDS * 4, HOST, "ring")
            self._tails = self._take(pairs * _TAIL_DWORDS * 4, HOST, "ring tails")
            page = self._take(PAGE_BYTES, HOST, "queue state")
            control = self._take(PAGE_BYTES, HOST, "USERD")
            errors = self._take(PAGE_BYTES, HOST, "error notifier")
            self._userd, self.notifier = control.address, errors.address
            self._create(pairs, control, errors)
            self._objects(computes)
            token = self._start()
            self._fill(page.address, ring_records, pairs, timeline, token)
            self._set_up(page.address + _SETUP_AT, computes)
        except BaseException:
            self.close()
            raise

    def _take(self, size_bytes: int, placement: Placement, kind: str) -> Block:
        try:
            block = self._memory.take(size_bytes, placement, kind)
        except SystemCallFailed as error:
            if error.errno != 12:
                raise
            raise OutOfDeviceMemory(
                f"Cannot allocate {size_bytes} bytes for a queue's {kind} on "
                f"{self._device.name}.",
                device=self._device.name, operation="queue",
            ) from error
        self._blocks.append(block)
        return block

    def _create(self, pairs: int, control: Block, errors: Block) -> None:
        abi, generation = self.rm.abi, self._device.gpu.generation
        parameters: Any = abi.make(
            "NV_CHANNEL_ALLOC_PARAMS", hObjectError=errors.handle,
            hObjectBuffer=self._ring.handle, gpFifoOffset=self._ring.address,
            gpFifoEntries=2 * pairs, hContextShare=self._device.group.share,
            engineType=_GRAPHICS,
        )
        parameters.hUserdMemory[0] = control.handle
        self.channel = self.rm.alloc(
            self._device.group.group, generation.gpfifo, "a GPFIFO channel", parameters
        )

    def _objects(self, computes: bool) -> None:
        """The engines' objects, and one that tells of a kernel's errors, where it is allowed."""
        abi, gpu = self.rm.abi, self._device.gpu
        generation = gpu.generation
        if computes:
            compute = self.rm.alloc(self.channel, generation.compute, "the compute class")
            with contextlib.suppress(HardwareError):
                self.debugger = self.rm.alloc(
                    gpu.device, abi.number("GT200_DEBUGGER"), "GT200_DEBUGGER",
                    abi.make(
                        "NV83DE_ALLOC_PARAMETERS", hAppClient=self.rm.client,
                        hClass3dObject=compute,
                    ),
                )
        self.rm.alloc(self.channel, generation.copy, "the copy class")

    def _start(self) -> int:
        """Hands the channel to unified memory and to the scheduler; its doorbell's token."""
        abi, gpu = self.rm.abi, self._device.gpu
        token: Any = abi.make(
            "NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN_PARAMS", workSubmitToken=0xFFFFFFFF
        )
        self.rm.control(self.channel, "NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN", token)
        self._context = self._memory.addresses.reserve(CONTEXT_BYTES, CONTEXT_BYTES)
        gpu.uvm.register_channel(gpu.uuid, self.channel, self._context, CONTEXT_BYTES)
        self._registered = True
        self._device.group.schedule()
        return int(token.workSubmitToken)

    def _fill(
        self, page: int, ring_records: int, pairs: int, timeline: int, token: int
    ) -> None:
        self.state_address = page
        self.state = state = RingState.from_address(page)
        template, methods = page + _TEMPLATE_AT, self._device.gpu.generation.methods
        state.ring, state.mask = self._ring.address, pairs * _PAIR_DWORDS - 1
        state.write_pointer, state.put = page + _COUNTER_AT, self._userd + _GP_PUT
        state.doorbell, state.token = self._device.gpu.doorbell, token
        state.timeline, state.template = timeline, template
        state.entry_dwords, state.entry_units = _PAIR_DWORDS, 2
        state.capacity = min(ring_records, pairs - 2)
        state.address_at, state.size_factor = 0, 1 << LENGTH_SHIFT
        state.size_at = _PAIR_DWORDS  # the length is in the address: behind the template
        tail = methods.host.semaphore(
            address=timeline, **{
                "SEM_EXECUTE.OPERATION": methods.host.operations["RELEASE"],
                "SEM_EXECUTE.RELEASE_WFI": 1, "SEM_EXECUTE.PAYLOAD_SIZE": 1,
            },
        ).encode()
        state.value_base, state.value_mask = self._tails.address, state.mask
        state.tail_stride, state.tail_at = _TAIL_DWORDS // _PAIR_DWORDS, _ENTRY_DWORDS
        state.tail_flags = len(tail) << LENGTH_SHIFT
        state.low_at = methods.host.semaphore.dword_of("SEM_PAYLOAD_LO")
        state.high_at = methods.host.semaphore.dword_of("SEM_PAYLOAD_HI")
        words = struct.pack(f"<{_TAIL_DWORDS}I", *tail, *[0] * (_TAIL_DWORDS - len(tail)))
        ctypes.memmove(self._tails.address, words * pairs, len(words) * pairs)
        try:
            kick = native().functions["gpfifo_doorbell"]
            state.kick = self._device.system.kick(kick)
        except OSError as error:
            raise SystemCallFailed.wrap(error, "kick", self._device.name) from error

    def _set_up(self, address: int, computes: bool) -> None:
        """Writes the first pair, which runs when the first list is submitted."""
        generation = self._device.gpu.generation
        methods = generation.methods
        first = methods.copy.object(CLASS_ID=generation.copy).encode()
        second = methods.host.nothing().encode()
        if computes:
            first += methods.compute.object(CLASS_ID=generation.compute).encode()
            second = methods.compute.shared_window(address=SHARED_WINDOW).encode()
            second += methods.compute.local_window(address=LOCAL_WINDOW).encode()
        for i, words in enumerate((first, second)):
            size = 4 * len(words)
            ctypes.memmove(address, struct.pack(f"<{len(words)}I", *words), size)
            entry = gpfifo_entry(address, len(words))
            ctypes.c_uint64.from_address(self._ring.address + 8 * i).value = entry
            address += size
        self.state.head = _PAIR_DWORDS
        ctypes.c_uint64.from_address(self.state.write_pointer).value = 2

    @property
    def read_pointer(self) -> int:
        """GP_GET: how far the GPU has read, in entries modulo the ring; only for reports."""
        return self._pointer(_GP_GET)

    @property
    def write_pointer(self) -> int:
        """GP_PUT: how far the host has written, in entries modulo the ring."""
        return self._pointer(_GP_PUT)

    def _pointer(self, offset: int) -> int:
        return int(ctypes.c_uint32.from_address(self._userd + offset).value) if self._userd else 0

    def close(self) -> None:
        """Takes the channel off the GPU, then frees its memory."""
        self._userd = self.notifier = 0
        gpu = self._device.gpu
        if self._registered:
            with contextlib.suppress(HardwareError):
                gpu.uvm.unregister_channel(gpu.uuid, self.channel)
        self._registered = False
        self.rm.release(self.debugger, self.channel)
        self.debugger = self.channel = 0
        if self._context:
            with contextlib.suppress(OSError):
                self._device.system.munmap(self._context, CONTEXT_BYTES)
        self._context = 0
        for block in self._blocks:
            with contextlib.suppress(HardwareError, OSError):
                self._memory.give_back(block)
        self._blocks.clear()
