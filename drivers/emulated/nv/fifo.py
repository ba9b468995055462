"""RM's objects around channels: usermode region, channel group, context share, channel."""

from __future__ import annotations

import ctypes
from typing import Any

from autogen import nv_555 as nv
from drivers.emulated.memory import GpuFault
from drivers.emulated.nv.channel import USERD_BYTES, Channel
from drivers.emulated.nv.device import Device, Subdevice, VaSpace
from drivers.emulated.nv.gpu import USERMODE_BYTES, Gpu, timer
from drivers.emulated.nv.memory import Mappable, Memory
from drivers.emulated.nv.objects import Resource
from drivers.emulated.nv.process import Pages
from drivers.emulated.nv.status import RmError, Status, require

FIRST_COPY_ENGINE = 9  # cl2080.h, NV2080_ENGINE_TYPE_COPY0
NOTIFIER_ERROR = 0xFFFF  # kernel_rc_notification.c: the status of an error notifier
LIMIT_ENTRIES = 1 << 26


class Usermode(Mappable):
    """*_USERMODE_A: the page with the doorbell."""

    def construct(self, params: Any) -> None:
        """Its mapping by BAR1 is the same one here."""
        require(
            self.class_number in self.gpu.board.usermode_classes, Status.INVALID_CLASS,
            f"this GPU has no usermode class {self.class_number:#x}",
        )
        if params is not None:
            require(not params.bPriv, Status.INVALID_ARGUMENT, "a privileged usermode region")

    @property
    def gpu(self) -> Gpu:
        """The subdevice's."""
        return self.above(Subdevice).gpu

    def place(self) -> tuple[int, int]:
        """The GPU's registers."""
        return self.gpu.usermode_offset, USERMODE_BYTES


class ChannelGroup(Resource):
    """KEPLER_CHANNEL_GROUP_A: channels that are scheduled, and die, together (a TSG)."""

    def construct(self, params: Any) -> None:
        """Chooses the engine."""
        self.gpu = self.above(Device).gpu
        self.engine_type = params.engineType
        board = self.gpu.board
        copies = range(FIRST_COPY_ENGINE, FIRST_COPY_ENGINE + board.copy_engines)
        require(
            self.engine_type == board.graphics_engine or self.engine_type in copies,
            Status.INVALID_ARGUMENT, f"engine type {self.engine_type:#x}",
        )
        self.error_notifier = params.hObjectError
        self.space = (
            self.client.find(params.hVASpace, VaSpace) if params.hVASpace else None
        )
        self.dead = False
        self.mmu_fault: GpuFault | None = None

    @property
    def is_graphics(self) -> bool:
        """Whether it runs on the compute engine."""
        return bool(self.engine_type == self.gpu.board.graphics_engine)

    @property
    def channels(self) -> list[ChannelResource]:
        """Its channels."""
        return [child for child in self.children if isinstance(child, ChannelResource)]

    def schedule(self, enable: bool) -> None:
        """NVA06C_CTRL_CMD_GPFIFO_SCHEDULE. Raises RmError(INVALID_STATE)."""
        require(not self.dead, Status.INVALID_STATE, "the group has had an error")
        for channel in self.channels:
            require(
                not enable or channel.ready, Status.INVALID_STATE,
                f"channel {channel.token:#x} is not registered with UVM",
            )
        for channel in self.channels:
            channel.scheduled = enable

    def die(self, code: int, reason: str) -> None:
        """Robust channel recovery: no channel runs any more, notifiers say why."""
        self.process.log.append(f"Xid {code}: {reason}")
        self.dead = True
        for channel in self.channels:
            channel.scheduled = False
            channel.engine.evict()
        for channel in self.channels:
            channel.notify(code, self.engine_type)
        self.process.native.ring()


class ContextShare(Resource):
    """FERMI_CONTEXT_SHARE_A: a VA space in a channel group, a "subcontext"."""

    def construct(self, params: Any) -> None:
        """Names the VA space. Raises RmError."""
        self.space = self.client.find(params.hVASpace, VaSpace, Status.INVALID_OBJECT_HANDLE)
        group = self.above(ChannelGroup)
        others = [c for c in group.children if isinstance(c, ContextShare) and c is not self]
        params.subctxId = len(others)


class EngineObject(Resource):
    """A compute or copy object of a channel; SET_OBJECT binds it."""

    def construct(self, params: Any) -> None:
        """Only where the channel's engine has the class. Raises RmError(INVALID_CLASS)."""
        board = self.above(Device).gpu.board
        known = {board.copy_class}
        if self.above(ChannelResource).group.is_graphics:
            known.add(board.compute_class)
        require(
            self.class_number in known, Status.INVALID_CLASS,
            f"this engine has no class {self.class_number:#x}",
        )


class ChannelResource(Resource):
    """*_CHANNEL_GPFIFO_A."""

    engine: Channel

    def construct(self, params: Any) -> None:
        """Begins, unscheduled. Raises RmError."""
        self.scheduled = self.registered = False
        group = self.parent
        if not isinstance(group, ChannelGroup):
            raise RmError(Status.NOT_SUPPORTED, "channels outside of a channel group")
        self.group, self.gpu = group, group.gpu
        board = self.gpu.board
        require(not group.dead, Status.INVALID_STATE, "the group has had an error")
        require(
            self.class_number in board.channel_classes, Status.INVALID_CLASS,
            f"this GPU has no channel class {self.class_number:#x}",
        )
        require(not params.hVASpace, Status.INVALID_ARGUMENT, "the group has the VA space")
        self.space = self._space(params.hContextShare)
        self.entries, self.gpfifo = params.gpFifoEntries, params.gpFifoOffset
        require(
            0 < self.entries <= LIMIT_ENTRIES and not self.entries & self.entries - 1,
            Status.INVALID_ARGUMENT, f"{self.entries} GPFIFO entries",
        )
        require(not self.gpfifo % 8, Status.INVALID_ARGUMENT, f"GPFIFO at {self.gpfifo:#x}")
        self.userd, offset = self._userd(params)
        self.notifier = self._notifier(params.hObjectError or group.error_notifier)
        self.token = self.gpu.free_token(group.engine_type)
        params.cid = self.token & 0xFFFF
        self.engine = Channel(self, self.process.look_at(self.userd) + offset)
        self.process.channels.append(self.engine)
        self.gpu.channels[self.token] = self.engine
        self.engine.start()

    def _space(self, share: int) -> VaSpace:
        if share:
            found = self.client.find(share, ContextShare)
            require(
                found.parent is self.group, Status.INVALID_OBJECT_PARENT,
                "a context share of another group",
            )
            return found.space
        require(self.group.space, Status.INVALID_ARGUMENT, "neither context share nor VA space")
        assert self.group.space is not None
        return self.group.space

    def _userd(self, params: Any) -> tuple[Pages, int]:
        memory = self.client.find(params.hUserdMemory[0], Memory)
        offset: int = params.userdOffset[0]
        require(
            offset % USERD_BYTES == 0 and offset + USERD_BYTES <= memory.pages.size_bytes,
            Status.INVALID_ADDRESS, f"USERD at {offset:#x}",
        )
        memory.pages.users += 1
        ctypes.memset(self.process.look_at(memory.pages) + offset, 0, USERD_BYTES)
        return memory.pages, offset

    def _notifier(self, handle: int) -> Pages | None:
        if not handle:
            return None
        pages = self.client.find(handle, Memory).pages
        pages.users += 1
        return pages

    @property
    def ready(self) -> bool:
        """Whether it may be scheduled: UVM must have mapped the context of a graphics channel."""
        return self.registered or not self.space.external or not self.group.is_graphics

    def object_classes(self) -> set[int]:
        """The classes that SET_OBJECT may name."""
        return {child.class_number for child in self.children}

    def notify(self, code: int, engine_type: int) -> None:
        """Fills the error notifier: NV_CHANNELGPFIFO_NOTIFICATION_TYPE_ERROR is the first."""
        if self.notifier is None:
            return
        address = self.process.look_at(self.notifier)
        entry = nv.NvNotification.from_address(address)
        now = timer()
        entry.timeStamp.nanoseconds[0], entry.timeStamp.nanoseconds[1] = now & 0xFFFFFFFF, now >> 32
        entry.info32, entry.info16 = code, engine_type
        entry.status = NOTIFIER_ERROR  # last: this is what a program looks at

    def destruct(self) -> None:
        """When it returns the channel touches nothing any more."""
        self.scheduled = False
        self.engine.stop()
        self.process.channels.remove(self.engine)
        if self.engine.thread.is_alive():
            self.process.lingering.append(self.engine)
        del self.gpu.channels[self.token]
        for pages in (self.userd, self.notifier):
            if pages is not None:
                self.process.release(pages)
        if self.space.uvm is not None:
            self.space.uvm.drop_channel(self)
