"""Queues of a GPU: the hardware's ring, the entries that fill it, and what is in flight.

The invariant of the ring: *the host moves the write pointer, in whole entries; an entry is
overwritten only when its value has been reached*, so the ring never overruns however late the
hardware reports its read pointer. Native code (drivers/native/rings.py) writes entries.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from drivers.amd.aql import AqlEncoder
from drivers.amd.encode import Encoder, Pm4Encoder, SdmaEncoder, is_fluid, variables_of
from drivers.amd.faults import describe_queue
from drivers.amd.flight import Flight, works_of
from drivers.amd.hardware import Format, HardwareQueue
from drivers.amd.points import PointBridge
from drivers.encoded import Arena, EncodedList, line_aligned
from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    DeviceHang,
    HardwareError,
    MissingVariable,
)
from drivers.memory import Storage
from drivers.native.image import native
from drivers.native.layout import BoundState, RingState
from drivers.queue import BoundCommands, Queue, Size, Step, Wait
from drivers.timeline import SLICE_NS, InFlight, Point, Timeline, host_address, memory_view
from drivers.variables import Var

if TYPE_CHECKING:
    from drivers.amd.device import AmdDevice
    from drivers.amd.scratch import Scratch

_ENCODERS: dict[Format, type[Encoder]] = {
    Format.PM4: Pm4Encoder, Format.AQL: AqlEncoder, Format.SDMA: SdmaEncoder,
}


class AmdQueue(Queue):
    """One hardware queue, its ring and its timeline."""

    def __init__(
        self, device: AmdDevice, kind: str, name: str, ring_records: int, initial_value: int
    ) -> None:
        self.closed = True
        if ring_records < 2 or ring_records & (ring_records - 1) or ring_records > 1 << 20:
            raise ArgumentMismatch(
                f"A ring has a power of two of records, 2 to 2^20, not {ring_records}.",
                device=device.name, operation="queue",
            )
        self.device, self.name, self.kind = device, name, kind
        self._device_name = device.name
        self.timeline = Timeline(
            f"{device.name} queue {name}", initial_value, device.timeout_ms, device.interrupts
        )
        self.bridge = PointBridge(device)
        self.lock = threading.Lock()
        self._arena = Arena(device.command_allocator)
        self._scratch: Scratch | None = None
        self.flight = Flight()
        layout = Format.SDMA if kind == "copy" else (
            Format.PM4 if device.node.xccs == 1 else Format.AQL
        )
        self._encoder = _ENCODERS[layout]
        self.hardware = HardwareQueue(device, layout, ring_records, self.timeline.address)
        self.ring: RingState = self.hardware.state
        self.ring.host, self.ring.submitted = host_address(), initial_value
        reference = weakref.ref(self)
        self.timeline.describe = _describer(reference)
        self.timeline.progress = _progress_of(reference)
        self.in_flight = InFlight(self.timeline, initial_value)
        self.closed = False

    @property
    def device_name(self) -> str:
        """The device it belongs to."""
        return self._device_name

    @property
    def last_point(self) -> Point:
        """The Point of the last submission."""
        return Point(self.timeline, self.in_flight.submitted)

    @property
    def wait_bits(self) -> int:
        """How wide its engine compares memory."""
        return self.device.generation.wait_bits if self.kind == "compute" else 32

    def submit_steps(self, steps: Sequence[Step], variables: dict[str, Any]) -> Point:
        """Encodes a list into memory that the GPU reads, and runs it from the ring."""
        fluid = is_fluid(steps, self.wait_bits) and bool(variables_of(steps))
        with self.lock:
            self.check_usable()
            if fluid:
                self._check_names(variables_of(steps), variables)
            encoder = self._encoder(self, steps, variables if fluid else None)
            encoded = encoder.finish()
            given = {k: v for k, v in variables.items() if k in encoded.table.names} if fluid \
                else variables
            address, keep = self._place(encoded, given)
            self.in_flight.submitted += 1
            value = self.push(
                lambda: native().ring_submit(self.hardware.state_address, address, encoded.count)
            )
            self.flight.add(value, works_of(steps, variables), self.timeline.value)
            self.bridge.mirrors.clear()
            del keep, encoder  # in flight now, so their memory waits for the Point
        return Point(self.timeline, value)

    def _check_names(self, names: list[str], given: dict[str, Any]) -> None:
        recorded = ", ".join(names) or "none"
        for name in names:
            if name not in given:
                raise MissingVariable(
                    f"No value was given for the Var {name!r}; this list has: {recorded}.",
                    device=self._device_name, operation="replay",
                )
        for name in given:
            if name not in names:
                raise MissingVariable(
                    f"There is no Var {name!r} in this list; it has: {recorded}.",
                    device=self._device_name, operation="replay",
                )

    def _place(self, encoded: EncodedList, variables: dict[str, Any]) -> tuple[int, Storage]:
        table, size = encoded.table, len(encoded.block)
        if not table.patch_count and not variables:
            address, keep = self._arena.take(size)
            encoded.place(address, memory_view(address, size))
            return address, keep
        values_at = line_aligned(size)
        patches_at = values_at + line_aligned(table.value_bytes)
        address, keep = self._arena.take(patches_at + table.patch_bytes)
        encoded.place(address, memory_view(address, size))
        values = memory_view(address + values_at, table.value_bytes)
        table.filler().fill(values, variables)
        table.write_patches(address + patches_at)
        wrong = native().apply_patches(
            address + values_at, address + patches_at, table.patch_count, address
        )
        if wrong >= 0:
            raise table.out_of_limits(wrong, variables)
        return address, keep

    def push(self, attempt: Callable[[], int]) -> int:
        """Submits, waiting for room; in_flight counts it already. Returns the value."""
        if self.device.interrupts.fault is not None:
            self.in_flight.submitted -= 1
            raise self.device.interrupts.fault
        value = int(attempt())
        try:
            if value == -1:
                value = self._push_slowly(attempt)
        except HardwareError:
            self.in_flight.submitted -= 1
            raise
        if value >= 0:
            self.in_flight.submitted = value
        else:
            self.in_flight.submitted -= 1
        return value

    def _push_slowly(self, attempt: Callable[[], int]) -> int:
        limit_s = self.device.timeout_ms / 1e3
        seen, deadline = self.progress, time.monotonic() + limit_s
        while True:
            left_ns = int((deadline - time.monotonic()) * 1e9)
            self.timeline.arrives(self.timeline.value + 1, min(max(left_ns, 1), SLICE_NS))
            value = int(attempt())
            if value != -1:
                return value
            self.check_usable()
            now, progress = time.monotonic(), self.progress
            if progress != seen:
                seen, deadline = progress, now + limit_s
            elif now >= deadline:
                raise DeviceHang(
                    f"{self.timeline.name} made no room for new commands within {limit_s:g} s. "
                    f"{describe_queue(self)}",
                    device=self._device_name, operation="submit",
                )

    def scratch(self, private_bytes: int) -> Scratch:
        """Scratch memory for a kernel; a larger one takes its place for later kernels."""
        if self._scratch is None or self._scratch.private_bytes < private_bytes:
            from drivers.amd.scratch import Scratch

            self._scratch = Scratch(self.device, private_bytes)
        return self._scratch

    def check_narrow(self, value: Size) -> None:
        """Refuses what a 32-bit comparison cannot tell apart."""
        if isinstance(value, int) and value >> 32:
            raise ArgumentMismatch(
                f"{self.timeline.name} compares 32 bits of memory; {value} has more.",
                device=self._device_name, operation="poll",
            )

    def check_usable(self) -> None:
        """Raises when the queue or its device was closed."""
        self.device.check_usable()
        if self.closed:
            raise DeviceClosed(
                f"{self.timeline.name} is closed.", device=self._device_name, operation="submit"
            )

    def bind_steps(self, steps: tuple[Step, ...]) -> BoundCommands:
        """Encodes a list into device memory for replays."""
        if is_fluid(steps, self.wait_bits):
            return FluidCommands(self, steps)
        return AmdBoundCommands(self, steps)

    def synchronize(self, timeout_ms: float | None = None) -> None:
        """Waits for everything submitted so far."""
        self.last_point.wait(timeout_ms)

    @property
    def progress(self) -> tuple[int, int]:
        """Changes while the queue gets on."""
        return self.timeline.value, self.hardware.read_pointer

    def stop(self) -> None:
        """Takes the queue off the GPU, wherever it stands."""
        if self.closed:
            return
        self.closed = True
        self.hardware.close()
        self.in_flight.end()
        self.timeline.ended = True
        self._arena, self._scratch = Arena(self.device.command_allocator), None
        self.flight.clear()

    def close(self) -> None:
        """Ends the queue where it stands and frees its place; synchronize() first, if need be."""
        if not self.closed:
            self.stop()
            self.device.release_queue(self)

    def forget(self) -> None:
        """Leaves the hardware alone, because it belongs to the parent process."""
        self.closed = True
        self.in_flight.end()


def _describer(reference: weakref.ref[AmdQueue]) -> Callable[[], str]:
    def describe() -> str:
        queue = reference()
        return describe_queue(queue) if queue else "Its queue is gone."

    return describe


def _progress_of(reference: weakref.ref[AmdQueue]) -> Callable[[], object]:
    def progress() -> object:
        queue = reference()
        return queue.progress if queue and not queue.closed else None

    return progress


class AmdBoundCommands(BoundCommands):
    """A bound list: state, values, patches and several blocks in one piece of memory."""

    def __init__(self, queue: AmdQueue, steps: tuple[Step, ...]) -> None:
        self._queue, self._steps = queue, steps
        queue.check_usable()
        encoder = queue._encoder(queue, steps)
        encoded = encoder.finish()
        self._keep = encoder.keep
        self._table = table = encoded.table
        self.names = table.names
        self._filler = table.filler()
        values_at = line_aligned(ctypes.sizeof(BoundState))
        patches_at = values_at + line_aligned(table.value_bytes)
        blocks_at = patches_at + line_aligned(table.patch_bytes)
        stride = line_aligned(len(encoded.block))
        allocator = queue.device.command_allocator
        self._storage = allocator.allocate(blocks_at + stride * BoundState.COPIES)
        self._address = address = self._storage.address
        state = BoundState.from_address(address)
        state.queue, state.record_count = queue.hardware.state_address, encoded.count
        state.blocks, state.stride = address + blocks_at, stride
        state.patches, state.patch_count = address + patches_at, table.patch_count
        state.values, state.next = address + values_at, 0
        for copy in range(BoundState.COPIES):
            state.last[copy] = 0
            block = address + blocks_at + copy * stride
            encoded.place(block, memory_view(block, len(encoded.block)))
        table.write_patches(address + patches_at)
        self._values = memory_view(address + values_at, table.value_bytes)
        self._works = works_of(steps)
        self._awaits_vars = any(
            isinstance(step, Wait) and isinstance(step.point, Var) for step in steps
        )

    def replay(self, **variables: Any) -> Point:
        """Runs the list once more with these values for its Vars."""
        queue = self._queue
        with queue.lock:
            queue.check_usable()
            self._filler.fill(self._values, variables)
            queue.in_flight.submitted += 1
            value = queue.push(lambda: native().ring_replay(self._address))
            if value < 0:
                raise self._table.out_of_limits(-2 - value, variables)
            works = works_of(self._steps, variables) if self._awaits_vars else self._works
            queue.flight.add(value, works, queue.timeline.value)
        return Point(queue.timeline, value)


class FluidCommands(BoundCommands):
    """A bound list that is encoded for each replay, because Vars decide its packets."""

    def __init__(self, queue: AmdQueue, steps: tuple[Step, ...]) -> None:
        queue.check_usable()
        self._queue, self._steps = queue, steps
        self.names = variables_of(steps)

    def replay(self, **variables: Any) -> Point:
        """Runs the list once more with these values for its Vars."""
        return self._queue.submit_steps(self._steps, variables)
