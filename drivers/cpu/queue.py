"""A queue of the processor: a ring, its native thread, and the memory of arguments.

The ring is consumed by `@processor` (drivers/native/processor.py). Producers hold `_lock`.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from drivers.cpu.encode import Encoder
from drivers.cpu.report import describe_queue
from drivers.encoded import Arena, EncodedList, line_aligned
from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    DeviceHang,
    HardwareError,
    SystemCallFailed,
)
from drivers.memory import Storage
from drivers.native.image import native
from drivers.native.layout import RECORD_BYTES, BoundState, Job, Pool, QueueState
from drivers.queue import BoundCommands, Queue, Step
from drivers.timeline import (
    SLICE_NS,
    InFlight,
    Point,
    Timeline,
    host_address,
    memory_view,
)

if TYPE_CHECKING:
    from drivers.cpu.device import CpuDevice

STACK_BYTES = 16 << 20  # kernels keep up to 1 MiB of local arrays on the stack
_STOP_TIMEOUT_S = 2.0


def _describer(reference: weakref.ref[CpuQueue]) -> Callable[[], str]:
    """Describes a queue without keeping it, since Points outlive queues."""

    def describe() -> str:
        queue = reference()
        return describe_queue(queue.device, queue) if queue else "Its queue is gone."

    return describe


def _progress_of(reference: weakref.ref[CpuQueue]) -> Callable[[], object]:
    def progress() -> object:
        queue = reference()
        return queue.progress if queue and not queue.closed else None

    return progress


class CpuQueue(Queue):
    """One ring, one thread, one timeline."""

    def __init__(
        self, device: CpuDevice, name: str, job: int, ring_records: int, initial_value: int
    ) -> None:
        self.closed = True
        if ring_records < 2 or ring_records & (ring_records - 1) or ring_records > 1 << 20:
            raise ArgumentMismatch(
                f"A ring has a power of two of records, 2 to 2^20, not {ring_records}.",
                device=device.name, operation="queue",
            )
        self.device, self.name = device, name
        self._device_name = device.name
        self.timeline = Timeline(f"{device.name} queue {name}", initial_value, device.timeout_ms)
        self._lock = threading.Lock()
        self._arena = Arena(device.allocator)
        # One block: the state, then the ring.
        self._storage = device.allocator.allocate(
            ctypes.sizeof(QueueState) + ring_records * RECORD_BYTES
        )
        self.address = self._storage.address
        ctypes.memset(self.address, 0, self._storage.size_bytes)
        self.state = state = QueueState.from_address(self.address)
        state.host, state.pool = host_address(), device.pool_address
        state.job = device.pool_address + Pool.jobs.offset + job * ctypes.sizeof(Job)
        self._job = Job.from_address(state.job)
        state.ring = self.address + ctypes.sizeof(QueueState)
        state.mask = ring_records - 1
        state.timeline, state.submitted = self.timeline.address, initial_value
        self.timeline.describe = _describer(weakref.ref(self))
        self.timeline.progress = _progress_of(weakref.ref(self))
        try:
            state.kick = device.system.kick(native().functions["kick"])
            self._thread = device.system.start_thread(
                native().functions["processor"], self.address, STACK_BYTES
            )
        except OSError as error:
            raise SystemCallFailed.wrap(error, "start_thread", device.name) from error
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

    def submit_steps(self, steps: Sequence[Step], variables: dict[str, Any]) -> Point:
        """Encodes a list into argument memory and puts it into the ring."""
        encoded = Encoder(self._device_name, steps).finish()
        with self._lock:
            self.check_usable()
            if encoded.table.patch_count or variables:
                address, keep = self._place_patched(encoded, variables)
            else:
                address, keep = self._arena.take(len(encoded.block))
                encoded.place(address, memory_view(address, len(encoded.block)))
            self.in_flight.submitted += 1
            value = native().submit(self.address, address, encoded.count, 0)
            if value < 0:
                value = self._submit_slowly(address, encoded.count)
            self.in_flight.submitted = value
            del keep  # in flight now, so its memory waits for the Point
        return Point(self.timeline, value)

    def _place_patched(
        self, encoded: EncodedList, variables: dict[str, Any]
    ) -> tuple[int, Storage]:
        """Places a list that has Vars, with its values and patches behind it."""
        table = encoded.table
        values_at = line_aligned(len(encoded.block))
        patches_at = values_at + line_aligned(table.value_bytes)
        address, keep = self._arena.take(patches_at + table.patch_bytes)
        encoded.place(address, memory_view(address, len(encoded.block)))
        values = memory_view(address + values_at, table.value_bytes)
        table.filler().fill(values, variables)
        table.write_patches(address + patches_at)
        wrong = native().apply_patches(
            address + values_at, address + patches_at, table.patch_count, address
        )
        if wrong >= 0:
            raise table.out_of_limits(wrong, variables)
        return address, keep

    def _submit_slowly(self, address: int, count: int) -> int:
        patience = Patience(self)
        while True:
            value = int(
                native().submit_blocking(self.address, address, count, patience.slice_ns())
            )
            if value >= 0:
                return value
            try:
                patience.check()
            except HardwareError:
                self.in_flight.submitted -= 1
                raise

    def check_usable(self) -> None:
        """Raises when the queue or its device was closed."""
        self.device.check_usable()
        if self.closed:
            raise DeviceClosed(
                f"{self.timeline.name} is closed.", device=self._device_name, operation="submit"
            )

    def bind_steps(self, steps: tuple[Step, ...]) -> BoundCommands:
        """Encodes a list into device memory for replays."""
        return CpuBoundCommands(self, steps)

    def synchronize(self, timeout_ms: float | None = None) -> None:
        """Waits for everything submitted so far."""
        self.last_point.wait(timeout_ms)

    @property
    def progress(self) -> tuple[int, int, int]:
        """Changes while the queue gets on: its record, and the blocks of a shared kernel."""
        return self.state.tail, self.state.current, self._job.next

    def stop(self) -> bool:
        """Ends the thread, whatever is left in the ring; false if a kernel does not let it."""
        self.closed = True
        native().queue_stop(self.address)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while not self.state.stopped:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.0002)
        self.in_flight.end()
        self.timeline.ended = True
        with contextlib.suppress(OSError):  # it has ended all the same
            self.device.system.join_thread(self._thread)
        return True

    def close(self) -> None:
        """Ends the queue where it stands and frees its place; synchronize() first, if need be."""
        if not self.closed and self.stop():
            self.device.release_queue(self)

    def forget(self) -> None:
        """Leaves the thread alone, because it belongs to the parent process."""
        self.closed = True
        self.in_flight.end()


class Patience:
    """How long a submitter waits for room: the device's timeout without any progress."""

    def __init__(self, queue: CpuQueue) -> None:
        self._queue, self._seen = queue, queue.progress
        self._limit_s = queue.device.timeout_ms / 1e3
        self._deadline = time.monotonic() + self._limit_s

    def slice_ns(self) -> int:
        """How long the next native wait may last; above 0, which would not wait at all."""
        left_ns = int((self._deadline - time.monotonic()) * 1e9)
        return min(max(left_ns, 1), SLICE_NS)

    def check(self) -> None:
        """Raises when the queue was closed, or has not got on until the deadline."""
        queue = self._queue
        queue.check_usable()
        now, progress = time.monotonic(), queue.progress
        if progress != self._seen:
            self._seen, self._deadline = progress, now + self._limit_s
        elif now >= self._deadline:
            raise DeviceHang(
                f"{queue.timeline.name} made no room for new commands within "
                f"{self._limit_s:g} s. {describe_queue(queue.device, queue)}",
                device=queue.device_name, operation="submit",
            )


class CpuBoundCommands(BoundCommands):
    """A bound list: state, values, patches and several blocks in one piece of memory."""

    def __init__(self, queue: CpuQueue, steps: tuple[Step, ...]) -> None:
        self._queue, self._steps = queue, steps
        encoded = Encoder(queue.device_name, steps).finish()
        self._table = table = encoded.table
        self.names = table.names
        self._filler = table.filler()
        values_at = line_aligned(ctypes.sizeof(BoundState))
        patches_at = values_at + line_aligned(table.value_bytes)
        blocks_at = patches_at + line_aligned(table.patch_bytes)
        stride = line_aligned(len(encoded.block))
        queue.check_usable()
        self._storage = queue.device.allocator.allocate(blocks_at + stride * BoundState.COPIES)
        self._address = address = self._storage.address
        state = BoundState.from_address(address)
        state.queue, state.record_count = queue.address, encoded.count
        state.blocks, state.stride = address + blocks_at, stride
        state.patches, state.patch_count = address + patches_at, table.patch_count
        state.values, state.next = address + values_at, 0
        for copy in range(BoundState.COPIES):
            state.last[copy] = 0
            block = address + blocks_at + copy * stride
            encoded.place(block, memory_view(block, len(encoded.block)))
        table.write_patches(address + patches_at)
        self._values = memory_view(address + values_at, table.value_bytes)
        self._replay = native().replay
        self._lock, self._timeline = queue._lock, queue.timeline
        self._device, self._in_flight = queue.device, queue.in_flight

    def replay(self, **variables: Any) -> Point:
        """Runs the list once more with these values for its Vars."""
        with self._lock:
            if self._queue.closed:
                self._queue.check_usable()
            self._filler.fill(self._values, variables)
            self._in_flight.submitted += 1
            value = self._replay(self._address, 0)
            if value < 0:
                value = self._replay_slowly(value, variables)
            self._in_flight.submitted = value
        return Point(self._timeline, value)

    def _replay_slowly(self, value: int, variables: dict[str, Any]) -> int:
        patience = Patience(self._queue)
        try:
            while value < 0:
                if value < -1:
                    raise self._table.out_of_limits(-2 - value, variables)
                value = native().replay_blocking(self._address, patience.slice_ns())
                if value == -1:
                    patience.check()
        except HardwareError:
            self._in_flight.submitted -= 1
            raise
        return value
