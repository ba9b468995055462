"""Steps to packets: one block of bytes that holds a list's packets and then its arguments.

A block runs as an indirect buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from drivers.amd import packets
from drivers.amd.events import Interrupts
from drivers.amd.packets import DataSelect, Function, InterruptSelect, MemorySpace
from drivers.amd.program import AmdProgram
from drivers.amd.sdma import POLL_FOREVER
from drivers.encoded import EncodedList, encode_arguments, line_aligned
from drivers.encoder import ALL_32, StepEncoder
from drivers.fields import Layout
from drivers.queue import (
    GRID_LIMITS,
    Exec,
    Size,
    Step,
)
from drivers.timeline import Point
from drivers.variables import INTEGER, MOMENT, Encoding, Var

if TYPE_CHECKING:
    from drivers.amd.device import AmdDevice
    from drivers.amd.queue import AmdQueue

_FUNCTIONS = {">=": Function.GREATER_EQUAL, "==": Function.EQUAL}
_ALL_64 = (1 << 64) - 1
POLL_INTERVAL = 4  # clocks between two looks of WAIT_REG_MEM, in units of 16


class Encoder(StepEncoder):
    """Packets, then the arguments of kernels."""

    queue: AmdQueue
    device: AmdDevice
    pad_dwords: ClassVar[int] = 1
    nothing: ClassVar[list[int]] = packets.NOP(0).encode()

    def __init__(
        self, queue: AmdQueue, steps: Sequence[Step], values: dict[str, Any] | None = None
    ) -> None:
        self._arguments = bytearray()
        self._bases: list[tuple[int, int]] = []  # where in the words, which byte of the arguments
        self._late: list[tuple[Any, ...]] = []  # patches of arguments, whose place comes last
        super().__init__(queue, steps, values)

    def finish(self) -> EncodedList:
        """The whole block."""
        if not self.words:  # an indirect buffer of no dwords is not allowed
            self.words += self.nothing
        while len(self.words) % self.pad_dwords:
            self.words.append(0)
        count = len(self.words)
        start = line_aligned(4 * count)
        block = bytearray(start + len(self._arguments))
        struct.pack_into(f"<{count}I", block, 0, *self.words)
        block[start:] = self._arguments
        bases = []
        for word, argument in self._bases:
            struct.pack_into("<Q", block, 4 * word, start + argument)
            bases.append(4 * word)
        for var, encoding, offset, where, minimum, maximum in self._late:
            self.table.add(
                var, encoding, start + offset, where, minimum=minimum, maximum=maximum
            )
        return EncodedList(block, count, self.table, bases)

    def add(self, layout: Layout, *tail: int, **values: int) -> int:
        """Appends a packet; returns the number of its first dword."""
        at = len(self.words)
        self.words += layout(*tail, **values).encode()
        return at


class Pm4Encoder(Encoder):
    """For compute queues."""

    def begin(self) -> None:
        """Other queues may have filled caches since the last list ended, before the host wrote."""
        self.refresh()

    def exec(self, step: Exec) -> None:
        """Appends the program's launch with its grid, arguments and scratch."""
        program, device = self.check_kernel(step, AmdProgram), self.device
        if 0 in step.grid:
            return
        at, launch = len(self.words), program.launch
        self.words += launch.words
        self._arguments.extend(bytes(-len(self._arguments) % 64))
        base = len(self._arguments)

        def late(
            var: Var, encoding: Encoding, offset: int, where: str, minimum: int, maximum: int
        ) -> None:
            self._late.append((var, encoding, base + offset, where, minimum, maximum))

        memory = encode_arguments(step, device.name, device.reachable, late)
        memory.extend(bytes(max(0, program.kernarg_bytes - len(memory))))
        self._arguments += memory
        if launch.kernarg_at >= 0:
            self._bases.append((at + launch.kernarg_at, base))
        for axis, size in enumerate(step.grid):
            place = at + launch.grid_at + axis
            if isinstance(size, int):
                self.words[place] = size
                continue
            letter, limit = "xyz"[axis], GRID_LIMITS[axis]
            self.leave_open(
                size, INTEGER, place, f"grid {letter} of kernel {program.name}",
                width=4, minimum=0, maximum=limit,
            )
        if program.private_bytes:
            self._scratch(program, at)

    def _scratch(self, program: AmdProgram, at: int) -> None:
        places = program.launch.scratch_at
        scratch = self.queue.scratch(program.private_bytes)
        self.words[at + places["tmpring"][0]] = scratch.tmpring
        for xcc, place in enumerate(places.get("base", ())):
            self._pair(at + place, scratch.address + xcc * scratch.xcc_bytes >> 8)
        for place in places.get("scratch", ()):
            self._pair(at + place, scratch.address)
        for place in places.get("scratch buffer", ()):
            first = at + place
            self._pair(first, scratch.address | 1 << 63)  # SWIZZLE_ENABLE
            self.words[first + 2] = ALL_32
            lanes = 32 if program.descriptor.has("ENABLE_WAVEFRONT_SIZE32") else 64
            self.words[first + 3] = self.device.generation.scratch_resource[lanes]

    def _pair(self, at: int, value: int) -> None:
        self.words[at : at + 2] = [value & ALL_32, value >> 32]

    def refresh(self) -> None:
        """Sees what others wrote: the host, copy queues, other devices."""
        caches = self.device.generation.caches
        self.add(caches.acquire, **caches.refresh)

    def release(self, **values: int) -> int:
        """An end-of-pipe event: all before is finished and visible, then what `values` say."""
        caches = self.device.generation.caches
        return self.add(
            caches.release, **caches.flush,
            event_type=self.device.generation.events["CACHE_FLUSH_AND_INV_TS_EVENT"],
            event_index=packets.EventIndex.END_OF_PIPE, **values,
        )

    def interrupt(self, event: Interrupts) -> None:
        """Raises an event."""
        self.release(
            address=event.mailbox, data=event.event_id, data_sel=DataSelect.DATA_32,
            int_sel=InterruptSelect.AFTER_WRITE, int_ctxid=event.event_id,
        )

    def wait(self, point: Point | Var) -> None:
        """Compares all 64 bits where the hardware does; else the queue widens it."""
        point = self.given(point, Point, "a Point") if self._values else point
        generation = self.device.generation
        if isinstance(point, Point) and point.done:
            pass
        elif isinstance(point, Point) and generation.wait_bits < 64:
            narrow = self.queue.bridge.narrow(point)
            if narrow is not None:
                self._wait_memory(*narrow, 4, Function.GREATER_EQUAL)
        else:
            address, value = (
                (self.queue.bridge.reachable(point), point.value)
                if isinstance(point, Point) else (0, 0)
            )
            at = self._wait_memory(address, value, 8, Function.GREATER_EQUAL)
            if isinstance(point, Var):
                layout, where = packets.WAIT_REG_MEM64, "the Point to wait"
                self.leave_open(
                    point, self.queue.bridge.encoding, at + layout.dword_of("address"), where,
                    minimum=1,
                )
                self.leave_open(
                    point, MOMENT, at + layout.dword_of("reference"), where, minimum=0
                )
        self.refresh()

    def _wait_memory(self, address: int, value: int, size_bytes: int, function: Function) -> int:
        layout = packets.WAIT_REG_MEM64 if size_bytes == 8 else packets.WAIT_REG_MEM
        return self.add(
            layout, function=function, mem_space=MemorySpace.MEMORY, address=address,
            reference=value, mask=_ALL_64 if size_bytes == 8 else ALL_32,
            poll_interval=POLL_INTERVAL,
        )

    def signal(self, point: Point | Var) -> None:
        """Writes the value when all before is finished."""
        fixed = isinstance(point, Point)
        at = self.release(
            address=self.queue.bridge.reachable(point) if isinstance(point, Point) else 0,
            data=point.value if isinstance(point, Point) else 0, data_sel=DataSelect.DATA_64,
        )
        if not fixed:
            layout, where = self.device.generation.caches.release, "the Point to signal"
            assert isinstance(point, Var)
            self.leave_open(
                point, self.queue.bridge.encoding, at + layout.dword_of("address"), where,
                minimum=1,
            )
            self.leave_open(point, MOMENT, at + layout.dword_of("data"), where, minimum=0)
        self.interrupt(self.queue.bridge.interrupts(point))

    def stamp(self, address: int) -> None:
        """The GPU's clock, when all before is finished."""
        self.release(address=address, data_sel=DataSelect.GPU_CLOCK)

    def barrier(self) -> None:
        """Waits for the waves and refreshes every cache."""
        self.add(
            packets.EVENT_WRITE, event_type=self.device.generation.events["CS_PARTIAL_FLUSH"],
            event_index=packets.EventIndex.PARTIAL_FLUSH,
        )
        self.refresh()

    def copy_apart(self, target: int, source: int, size_bytes: int) -> None:
        """The command processor's own DMA, which reads and writes through the L2 cache."""
        limit = (1 << packets.DMA_COUNT_BITS) - 64
        for at, size in self.in_pieces(size_bytes, limit):
            self.add(
                packets.DMA_DATA, src_sel=packets.DMA_SOURCE_L2,
                dst_sel=packets.DMA_DESTINATION_L2, cp_sync=1, raw_wait=1,
                source=source + at, destination=target + at, byte_count=size,
            )

    def write(self, address: int, value: Size, size_bytes: int) -> None:
        """Writes through the L2 cache and waits until it is there."""
        number = value if isinstance(value, int) else 0
        data = [number & ALL_32, number >> 32][: size_bytes // 4]
        at = self.add(
            packets.WRITE_DATA, *data, dst_sel=packets.WriteDestination.L2, wr_confirm=1,
            address=address,
        )
        self.word(value, size_bytes, at + packets.WRITE_DATA.size_dwords, "write")

    def poll(self, address: int, value: Size, size_bytes: int, compare: str) -> None:
        """Waits for memory; 8 bytes where the hardware compares as many."""
        number = value if isinstance(value, int) else 0
        if size_bytes * 8 > self.device.generation.wait_bits:
            self.queue.check_narrow(value)
            size_bytes = 4
        at = self._wait_memory(address, number, size_bytes, _FUNCTIONS[compare])
        layout = packets.WAIT_REG_MEM64 if size_bytes == 8 else packets.WAIT_REG_MEM
        self.word(value, size_bytes, at + layout.dword_of("reference"), "poll")
        self.refresh()


class SdmaEncoder(Encoder):
    """For copy queues."""

    pad_dwords = 8
    nothing: ClassVar[list[int]] = [0]

    def begin(self) -> None:
        """Nothing: the engine reads memory."""

    def exec(self, step: Exec) -> None:
        """Refuses: the engine runs no kernels."""
        raise self.refuse_kernel(step)

    def wait(self, point: Point | Var) -> None:
        """The engine compares 32 bits: the queue widens it."""
        narrow = self.queue.bridge.narrow(self.given(point, Point, "a Point"))
        if narrow is not None:
            self._poll(*narrow, Function.GREATER_EQUAL)

    def signal(self, point: Point | Var) -> None:
        """The low half first: what a waiter sees in between is less than the value, never more."""
        sdma, values = self.device.generation.sdma, self.device.generation.sdma.fence_values
        address = self.queue.bridge.reachable(point) if isinstance(point, Point) else 0
        value = point.value if isinstance(point, Point) else 0
        low = self.add(sdma.fence, **values, addr=address, data=value & ALL_32)
        high = self.add(
            sdma.fence, **values, addr=address + 4 if address else 0, data=value >> 32
        )
        if isinstance(point, Var):
            where = "the Point to signal"
            encoding, shifted = self.queue.bridge.encoding, self.queue.bridge.encoding_high
            addr, data = sdma.fence.dword_of("addr"), sdma.fence.dword_of("data")
            limits = {"width": 4, "minimum": 0}
            self.leave_open(point, encoding, low + addr, where, minimum=1)
            self.leave_open(point, shifted, high + addr, where, minimum=1)
            self.leave_open(point, MOMENT, low + data, where, **limits)
            self.leave_open(point, self.queue.bridge.moment_high, high + data, where, **limits)
        event = self.queue.bridge.interrupts(point)
        self.add(sdma.fence, **values, addr=event.mailbox, data=event.event_id)
        self.add(sdma.trap, int_context=event.event_id)

    def stamp(self, address: int) -> None:
        """The GPU's clock."""
        self.add(self.device.generation.sdma.timestamp, write_addr=address)

    def barrier(self) -> None:
        """Nothing: the engine carries out its packets one after the other, past no cache."""

    def copy_apart(self, target: int, source: int, size_bytes: int) -> None:
        """As many packets as it takes."""
        sdma = self.device.generation.sdma
        for at, size in self.in_pieces(size_bytes, sdma.copy_bytes // 2):
            self.add(sdma.copy, count=size - 1, src_addr=source + at, dst_addr=target + at)

    def write(self, address: int, value: Size, size_bytes: int) -> None:
        """One or two dwords."""
        sdma, number = self.device.generation.sdma, value if isinstance(value, int) else 0
        data = [number & ALL_32, number >> 32][: size_bytes // 4]
        at = self.add(sdma.write, *data, dst_addr=address, count=len(data) - 1)
        self.word(value, size_bytes, at + sdma.write.size_dwords, "write")

    def poll(self, address: int, value: Size, size_bytes: int, compare: str) -> None:
        """Compares 32 bits."""
        if size_bytes == 8:
            self.queue.check_narrow(value)
        number = value if isinstance(value, int) else 0
        at = self._poll(address, number, _FUNCTIONS[compare])
        where = self.device.generation.sdma.poll.dword_of("value")
        self.word(value, 4, at + where, "poll")

    def _poll(self, address: int, value: int, function: Function) -> int:
        return self.add(
            self.device.generation.sdma.poll, func=function, mem_poll=1, addr=address,
            value=value, mask=ALL_32, interval=POLL_INTERVAL, retry_count=POLL_FOREVER,
        )
