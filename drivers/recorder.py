"""A System that records: what a program asks of its device goes into a file (drivers/recording.py).

It stacks on any other, so it records silicon and emulated boards alike. Doorbells are seen through
the kick: before it rings, what the host has changed in the device's memory is recorded; then the
recorder waits until the submission's timeline has come, and records what the device has changed.
So submissions run one at a time where they can, and a recording shows an order that is possible,
not how fast it went. One that waits for something later stays *pending* after `settle_s`, so does
one that faults; what changes from then on counts as the host's.

Memory is mapped in a range that other programs have free, so that a replay finds it free as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from drivers.errors import SystemCallFailed
from drivers.marshal import Notes, marshal_of
from drivers.native.layout import RingState
from drivers.recording import (
    Array,
    Close,
    Ioctl,
    Kick,
    Mmap,
    Munmap,
    Open,
    Read,
    Record,
    Results,
    Run,
    UserMemory,
    Writer,
    Writes,
    in_pieces,
)
from drivers.system import PAGE_BYTES, PROT_NONE, StackedSystem, System, resident_pages

SETTLE_S: Final = 10.0
# Linux lays out programs and boards near the top, or upward from a third of 2^47.
_FIRST_ADDRESS: Final = 0x2000_0000_0000
_HUGE_BYTES: Final = 2 << 20
_LINE_BYTES: Final = 64
_BLANK: Final = bytes(PAGE_BYTES)
_NAP_S: Final = 50e-6
_KICK: Final = ctypes.CFUNCTYPE(None, ctypes.c_uint64)


class Recorder(StackedSystem):
    """Records into the file `path`; `close()` ends it. `board` says what is emulated, or ''."""

    def __init__(
        self, below: System, path: str, interface: str = "kfd", board: str = "",
        settle_s: float = SETTLE_S,
    ) -> None:
        super().__init__(below)
        self._marshal, self._settle_s = marshal_of(interface), settle_s
        try:
            file = open(path, "wb")
        except OSError as error:
            raise SystemCallFailed.wrap(error, f"open {path}", "recorder") from error
        self._writer: Writer | None = Writer(file, interface, board)
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._paths: dict[int, str] = {}
        self._memory = WatchedMemory()
        self._mapped: dict[int, int] = {}
        self._next = _FIRST_ADDRESS
        self._notes: Notes = {}
        self._pending: list[tuple[int, int]] = []  # timelines and values that have not come
        self._kicks: list[object] = []  # callbacks that native code calls
        self._failure: OSError | None = None

    def close_recording(self) -> None:
        """Ends the file; calls go on unrecorded. Raises SystemCallFailed if it is not whole."""
        with self._lock:
            writer, self._writer = self._writer, None
            try:
                if writer is not None and os.getpid() == self._owner:
                    writer.close()
                if self._failure is not None:
                    raise self._failure
            except OSError as error:
                raise SystemCallFailed.wrap(error, "writing a recording", "recorder") from error

    @property
    def _on(self) -> bool:
        return self._writer is not None and os.getpid() == self._owner

    def _put(self, *records: Record, flush: bool = False) -> None:
        if self._writer is None:
            return
        try:
            for record in records:
                self._writer.put(record)
            if flush:
                self._writer.flush()
        except OSError as error:  # the program goes on; close_recording tells
            self._failure, self._writer = error, None

    # ---- nodes and files ----

    def open(self, path: str, flags: int) -> int:
        """Opens, and records it if the path is the interface's."""
        if not self._on or not path.startswith(self._marshal.PREFIXES):
            return super().open(path, flags)
        with self._lock:
            try:
                descriptor = super().open(path, flags)
            except OSError as error:
                self._put(Open(-1, error.errno or 0, flags & 0xFFFFFFFF, path))
                raise
            self._paths[descriptor] = path
            self._put(Open(descriptor, 0, flags & 0xFFFFFFFF, path))
            return descriptor

    def close(self, descriptor: int) -> None:
        """Closes."""
        with self._lock:
            known = self._paths.pop(descriptor, None)
            super().close(descriptor)
            if known is not None and self._on:
                self._put(Close(descriptor, 0), flush=known.startswith("/dev/"))

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        """Reads."""
        if descriptor not in self._paths or not self._on:
            return super().read(descriptor, size_bytes)
        with self._lock:
            try:
                content = super().read(descriptor, size_bytes)
            except OSError as error:
                self._put(Read(descriptor, error.errno or 0, size_bytes, b""))
                raise
            self._put(Read(descriptor, 0, size_bytes, content))
            return content

    # ---- ioctls ----

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        """Makes the call, with its argument and what that points to before and after."""
        if descriptor not in self._paths or not self._on:
            return super().ioctl(descriptor, request, argument)
        marshal, size = self._marshal, request >> 16 & 0x3FFF
        before = ctypes.string_at(argument, size)
        places = marshal.arrays(request, bytearray(before))
        arrays = [ctypes.string_at(address, count) for _, address, count in places]
        with self._lock:
            user = marshal.user_range(request, bytearray(before))
            if user is not None:
                if not self._is_mapped(*user):
                    self._check_user(*user)
                    self._put(UserMemory(*user))
                self._memory.watch(*user)
            if marshal.steady(request):
                self._look()
        error = 0
        try:
            return super().ioctl(descriptor, request, argument)
        except OSError as failure:
            error = failure.errno or 0
            raise
        finally:
            after = ctypes.string_at(argument, size)
            found = tuple(
                Array(*place[:2], given, ctypes.string_at(*place[1:]))
                for place, given in zip(places, arrays, strict=True)
            )
            with self._lock:
                self._put(Ioctl(descriptor, error, request, before, after, found))
                if not error:
                    self._memory.owned += marshal.device_owned(
                        request, bytearray(before), bytearray(after), self._notes
                    )

    # ---- memory ----

    def mmap(
        self, size_bytes: int, protection: int, flags: int, descriptor: int, offset: int,
        address: int = 0,
    ) -> int:
        """Maps, at a place of its own if the caller has no wish, and watches devices' memory."""
        if not self._on:
            return super().mmap(size_bytes, protection, flags, descriptor, offset, address)
        with self._lock:
            path = self._paths.get(descriptor, "")
            memory = self._marshal.is_memory(path)
            known = descriptor if path else -1
            try:
                mapped = super().mmap(
                    size_bytes, protection, flags, descriptor, offset,
                    address or self._place(size_bytes),
                )
            except OSError as error:
                self._put(Mmap(known, error.errno or 0, memory, protection, flags, size_bytes,
                               offset, address))  # fmt: skip
                raise
            self._forget(mapped, size_bytes)
            self._mapped[mapped] = size_bytes
            if memory and protection != PROT_NONE:
                self._memory.watch(mapped, size_bytes)
            self._put(
                Mmap(known, 0, memory, protection, flags, size_bytes, offset, mapped)
            )
            return mapped

    def _place(self, size_bytes: int) -> int:
        grain = _HUGE_BYTES if size_bytes >= _HUGE_BYTES else PAGE_BYTES
        address = -(-self._next // grain) * grain
        self._next = address + -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        return address

    def _check_user(self, address: int, size_bytes: int) -> None:
        """Refuses what a replay could not place; drivers copy it then."""
        if size_bytes > PAGE_BYTES:
            raise OSError(
                errno.EPERM, f"{size_bytes} bytes at {address:#x}, which were not mapped here"
            )

    def _is_mapped(self, address: int, size_bytes: int) -> bool:
        return any(
            start <= address and address + size_bytes <= start + size
            for start, size in self._mapped.items()
        )

    def munmap(self, address: int, size_bytes: int) -> None:
        """Gives back."""
        if not self._on:
            return super().munmap(address, size_bytes)
        with self._lock:
            self._look()
            super().munmap(address, size_bytes)
            self._forget(address, size_bytes)
            self._mapped.pop(address, None)
            self._put(Munmap(0, address, size_bytes))

    def _forget(self, address: int, size_bytes: int) -> None:
        self._memory.forget(address, size_bytes)
        self._pending = [
            each for each in self._pending if not address <= each[0] < address + size_bytes
        ]

    def _look(self) -> None:
        """Records what has changed, by the host unless a submission that was pending came."""
        waited = [timeline for timeline, _ in self._pending]
        for runs in in_pieces(self._memory.changes(waited)):
            self._put(Writes(runs))
        for timeline, value in list(self._pending):
            if _reached(timeline, value):
                self._pending.remove((timeline, value))
                self._put(Results(timeline, value, ()))

    # ---- submissions ----

    def kick(self, function: int) -> int:
        """A kick that records the submission, rings, and records what came of it."""
        ring_bell = _KICK(super().kick(function))

        def kick(ring: int) -> None:
            if not self._on:
                ring_bell(ring)
                return
            with self._lock:
                self._submit(RingState.from_address(ring), lambda: ring_bell(ring))

        callback = _KICK(kick)
        self._kicks.append((callback, ring_bell))
        return ctypes.cast(callback, ctypes.c_void_p).value or 0

    def _submit(self, state: RingState, ring_bell: Callable[[], None]) -> None:
        told = ctypes.c_uint64.from_address(state.write_pointer).value - state.doorbell_back
        timeline, value = state.timeline, state.submitted
        self._look()
        self._put(
            Kick(state.ring, state.mask + 1, state.head - state.entry_dwords & (1 << 64) - 1,
                 state.entry_dwords, state.doorbell, told & (1 << 64) - 1, timeline, value),
            flush=True,
        )  # fmt: skip
        ring_bell()
        if not timeline:
            return
        deadline = time.monotonic() + self._settle_s
        while not _reached(timeline, value):
            if time.monotonic() > deadline:
                self._pending.append((timeline, value))
                return
            time.sleep(_NAP_S)
        pieces = list(in_pieces(self._memory.changes([each for each, _ in self._pending])))
        self._put(*(Results(timeline, value, runs) for runs in pieces or [()]), flush=True)


def _reached(timeline: int, value: int) -> bool:
    return ctypes.c_uint64.from_address(timeline).value >= value


class WatchedMemory:
    """Ranges of memory, and their contents when they were looked at last: zero at first."""

    def __init__(self) -> None:
        self._ranges: dict[int, int] = {}
        self._pages: dict[int, bytes] = {}
        self.owned: list[tuple[int, int]] = []
        """(address, bytes) that the device writes at any time: no change of anybody's."""

    def watch(self, address: int, size_bytes: int) -> None:
        """Adds whole pages."""
        self._ranges[address] = -(-size_bytes // PAGE_BYTES) * PAGE_BYTES

    def forget(self, address: int, size_bytes: int) -> None:
        """Takes away what lies in a range, which is mapped as a whole."""
        end = address + size_bytes
        for start in [each for each in self._ranges if address <= each < end]:
            size = self._ranges.pop(start)
            for page in range(start, start + size, PAGE_BYTES):
                self._pages.pop(page, None)
        self.owned = [each for each in self.owned if not address <= each[0] < end]

    def changes(self, timelines: Iterable[int] = ()) -> Iterator[Run]:
        """What has changed since, but for what is owned and for `timelines`, in runs."""
        apart = sorted([*self.owned, *((timeline, 8) for timeline in timelines)])
        address, held = 0, bytearray()
        for line, content in self._lines():
            if held and address + len(held) == line and line not in self._ranges:
                held += content
                continue
            yield from _without(apart, address, bytes(held))
            address, held = line, bytearray(content)
        yield from _without(apart, address, bytes(held))

    def _lines(self) -> Iterator[Run]:
        for start in sorted(self._ranges):
            size = self._ranges[start]
            try:
                resident = resident_pages(start, size)
            except OSError:
                continue  # memory of the program, which it has unmapped
            for index, flags in enumerate(resident):
                if not flags & 1:
                    continue
                page = start + index * PAGE_BYTES
                content, before = ctypes.string_at(page, PAGE_BYTES), self._pages.get(page, _BLANK)
                if content == before:
                    continue
                self._pages[page] = content
                for at in range(0, PAGE_BYTES, _LINE_BYTES):
                    line = content[at : at + _LINE_BYTES]
                    if line != before[at : at + _LINE_BYTES]:
                        yield page + at, line


def _without(apart: list[tuple[int, int]], address: int, content: bytes) -> Iterator[Run]:
    """A run less the ranges that are kept apart, which are sorted."""
    end = address + len(content)
    start = address
    for other, size in apart:
        if other >= end or other + size <= start:
            continue
        if other > start:
            yield start, content[start - address : other - address]
        start = max(start, other + size)
    if start < end:
        yield start, content[start - address :]
