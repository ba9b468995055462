"""Queues of a GPU: the hardware's ring, the entries that fill it, and what is in flight.

The invariant of the ring: *the host moves the write pointer, in whole entries; an entry is
overwritten only when its value has been reached*, so the ring never overruns however late the
hardware reports its read pointer. Native code (drivers/native/rings.py) writes entries. A vendor
brings the hardware's ring and an encoder.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from drivers.encoded import Arena, EncodedList, aligned, line_aligned
from drivers.encoder import StepEncoder, is_fluid, variables_of
from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    DeviceHang,
    HardwareError,
    MissingVariable,
)
from drivers.flight import Flight, works_of
from drivers.memory import Storage
from drivers.native.image import native
from drivers.native.layout import BoundState, RingState
from drivers.points import PointBridge
from drivers.queue import BoundCommands, Exec, Queue, Size, Step, Wait
from drivers.timeline import SLICE_NS, InFlight, Point, Timeline, host_address, memory_view
from drivers.variables import Var

if TYPE_CHECKING:
    from drivers.gpu import GpuDevice


class HardwareRing(Protocol):
    """A queue of the hardware. `state` is what native submission works on."""

    state: RingState
    state_address: int

    @property
    def read_pointer(self) -> int:
        """How far the hardware has read, in its own units; only for reports."""

    @property
    def write_pointer(self) -> int:
        """How far the host has written, in the hardware's units."""

    def close(self) -> None:
        """Takes the queue off the GPU, then frees its memory."""


def grid_variables(steps: Sequence[Step]) -> tuple[str, ...]:
    """The Vars that are sizes of grids."""
    return tuple(
        size.name for step in steps if isinstance(step, Exec)
        for size in step.grid if isinstance(size, Var)
    )


class RingQueue(Queue):
    """One hardware queue, its ring and its timeline."""

    runs_empty_grids: ClassVar[bool] = True
    """Whether the hardware takes a launch of no blocks."""
    bridge: PointBridge

    def __init__(
        self, device: GpuDevice, kind: str, name: str, ring_records: int, initial_value: int
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
            f"{device.name} queue {name}", initial_value, device.timeout_ms, device.home
        )
        self.lock = threading.Lock()
        self._arena = Arena(device.command_allocator)
        self.flight = Flight()
        self.hardware = self.make_hardware(ring_records)
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
        return 64

    @abstractmethod
    def make_hardware(self, ring_records: int) -> HardwareRing:
        """The hardware's queue, whose timeline is `timeline`."""

    @abstractmethod
    def encoder(
        self, steps: Sequence[Step], values: dict[str, Any] | None = None
    ) -> StepEncoder:
        """Encodes a list; `values` are those of its Vars, if they decide its shape."""

    def is_fluid(self, steps: Sequence[Step], given: Mapping[str, Any]) -> bool:
        """Whether the list must be encoded anew for these values."""
        return is_fluid(steps, self.wait_bits) or self.is_empty(grid_variables(steps), given)

    def is_empty(self, sizes: Sequence[str], given: Mapping[str, Any]) -> bool:
        """Whether one of these sizes of grids is 0 and the hardware does not take that."""
        return not self.runs_empty_grids and any(given.get(size) == 0 for size in sizes)

    def submit_steps(self, steps: Sequence[Step], variables: dict[str, Any]) -> Point:
        """Encodes a list into memory that the GPU reads, and runs it from the ring."""
        fluid = bool(variables_of(steps)) and self.is_fluid(steps, variables)
        with self.lock:
            self.check_usable()
            if fluid:
                self._check_names(variables_of(steps), variables)
            encoder = self.encoder(steps, variables if fluid else None)
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
        recorded = ", ".join(sorted(names)) or "none"
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
            address, keep = self._arena.take(size, encoded.alignment)
            encoded.place(address, memory_view(address, size))
            return address, keep
        values_at = line_aligned(size)
        patches_at = values_at + line_aligned(table.value_bytes)
        address, keep = self._arena.take(patches_at + table.patch_bytes, encoded.alignment)
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
        if self.device.fault is not None:
            self.in_flight.submitted -= 1
            raise self.device.fault
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
                    f"{self.describe()}",
                    device=self._device_name, operation="submit",
                )

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
        return RingBoundCommands(self, steps)

    def synchronize(self, timeout_ms: float | None = None) -> None:
        """Waits for everything submitted so far."""
        self.last_point.wait(timeout_ms)

    @property
    def progress(self) -> tuple[int, int]:
        """Changes while the queue gets on."""
        return self.timeline.value, self.hardware.read_pointer

    @property
    def works(self) -> bool:
        """Whether kernels or copies may be running, rather than that it waits for others."""
        works = self.flight.first(self.timeline.value)
        return bool(works) and not any(work.awaits for work in works)

    def describe(self) -> str:
        """Where the queue stands: what it waits for, its next kernel, its pointers and timeline."""
        if self.closed:
            return f"Queue {self.name} of {self.device.name} is closed."
        reached, fault = self.timeline.value, self.device.fault
        state = (
            f"timeline {reached} of {self.ring.submitted}, "
            f"read pointer {self.hardware.read_pointer:#x}, "
            f"write pointer {self.hardware.write_pointer:#x}, "
            f"{'no fault recorded' if fault is None else fault.detail}"
        )
        if reached >= self.ring.submitted:
            return f"Queue {self.name} is idle: {state}."
        works = self.flight.first(reached)
        stuck = next((i for i, work in enumerate(works) if work.awaits), None)
        place = "a list without a wait" if stuck is None else str(works[stuck])
        following = works if stuck is None else works[stuck:]
        kernel = next((work for work in following if work.kind == "kernel"), "no kernel")
        return f"Queue {self.name} is at {place}; {kernel} is the next to finish: {state}."

    def stop(self) -> None:
        """Takes the queue off the GPU, wherever it stands."""
        if self.closed:
            return
        self.closed = True
        self.hardware.close()
        self.in_flight.end()
        self.timeline.ended = True
        self._arena = Arena(self.device.command_allocator)
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


def _describer(reference: weakref.ref[RingQueue]) -> Callable[[], str]:
    def describe() -> str:
        queue = reference()
        return queue.describe() if queue else "Its queue is gone."

    return describe


def _progress_of(reference: weakref.ref[RingQueue]) -> Callable[[], object]:
    def progress() -> object:
        queue = reference()
        return queue.progress if queue and not queue.closed else None

    return progress


class RingBoundCommands(BoundCommands):
    """A bound list: state, values, patches and several blocks in one piece of memory."""

    def __init__(self, queue: RingQueue, steps: tuple[Step, ...]) -> None:
        self._queue, self._steps = queue, steps
        queue.check_usable()
        encoder = queue.encoder(steps)
        encoded = encoder.finish()
        self._keep = encoder.keep
        self._table = table = encoded.table
        self.names = table.names
        self._filler = table.filler()
        values_at = line_aligned(ctypes.sizeof(BoundState))
        patches_at = values_at + line_aligned(table.value_bytes)
        blocks_at = patches_at + line_aligned(table.patch_bytes)
        stride = aligned(len(encoded.block), encoded.alignment)
        allocator = queue.device.command_allocator
        self._storage = allocator.allocate(
            blocks_at + stride * BoundState.COPIES + encoded.alignment
        )
        self._address = address = self._storage.address
        blocks_at = aligned(address + blocks_at, encoded.alignment) - address
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
        self._grid_sizes = grid_variables(steps)
        self._awaits_vars = any(
            isinstance(step, Wait) and isinstance(step.point, Var) for step in steps
        )

    def replay(self, **variables: Any) -> Point:
        """Runs the list once more with these values for its Vars."""
        queue = self._queue
        if queue.is_empty(self._grid_sizes, variables):
            return queue.submit_steps(self._steps, variables)
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

    def __init__(self, queue: RingQueue, steps: tuple[Step, ...]) -> None:
        queue.check_usable()
        self._queue, self._steps = queue, steps
        self.names = variables_of(steps)

    def replay(self, **variables: Any) -> Point:
        """Runs the list once more with these values for its Vars."""
        return self._queue.submit_steps(self._steps, variables)
