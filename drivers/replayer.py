"""Replays a recording on a System, as a rule a fresh emulated board, and says what differs.

Calls are made again in their order with the recorded arguments, memory is mapped where it was,
what the host had written is written, doorbells ring; statuses, answers, files and what the device
has written are compared. Results that differ are then put right, so that each difference stands for
itself. A call that ends otherwise than it did stops the replay, because what follows needs it.
Waits are not called again, unless they told of a fault. Nothing in a file is trusted: what could
harm this process is MalformedInput.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from drivers.errors import SystemCallFailed
from drivers.marshal import marshal_of
from drivers.native.image import native
from drivers.native.layout import RingState
from drivers.recording import (
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
    Start,
    UserMemory,
    Writes,
    malformed,
)
from drivers.system import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_PRIVATE,
    PAGE_BYTES,
    PROT_READ,
    PROT_WRITE,
    System,
)

TIMEOUT_S: Final = 30.0
SETTLE_S: Final = 1.0  # a ring may be written a little later than the timeline
_NAP_S: Final = 50e-6
_KICK: Final = ctypes.CFUNCTYPE(None, ctypes.c_uint64)
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True)
class Difference:
    """What was otherwise: the record's number, what it is, and both sides in words."""

    record: int
    what: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        return f"record {self.record}, {self.what}: {self.recorded}; replayed: {self.replayed}"


@dataclass
class Replay:
    """How a replay went. `stopped` says why it did not come to its end, or is ''."""

    records: int = 0
    submissions: int = 0
    finished: int = 0
    result_bytes: int = 0
    differences: list[Difference] = field(default_factory=list)
    stopped: str = ""

    @property
    def same(self) -> bool:
        """Whether everything was as recorded."""
        return not self.differences and not self.stopped


class _Stopped(Exception):
    """The replay lacks something that the recording had."""


class _Ranges:
    """Mapped ranges by address."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def holds(self, address: int, size_bytes: int) -> bool:
        return any(
            start <= address and address + size_bytes <= start + size
            for start, size in self.sizes.items()
        )

    def forget(self, address: int, size_bytes: int) -> None:
        """Takes away ranges that lie inside this one."""
        for start in [s for s in self.sizes if address <= s < address + size_bytes]:
            del self.sizes[start]


class Replayer:
    """Plays records on `system`. Whatever it opens and maps it gives back."""

    def __init__(
        self, system: System, timeout_s: float = TIMEOUT_S, settle_s: float = SETTLE_S
    ) -> None:
        self._system, self._timeout_s, self._settle_s = system, timeout_s, settle_s
        self.report = Replay()
        self._descriptors: dict[int, int] = {}
        self._mapped, self._memory, self._bells = _Ranges(), _Ranges(), _Ranges()
        self._ring_bell: Any = None

    def play(self, records: Iterable[Record]) -> Replay:
        """Plays them all. Raises MalformedInput for what no program can have recorded."""
        steps: dict[type[Record], Callable[[Any], None]] = {
            Start: self._start, Open: self._open, Close: self._close, Read: self._read,
            Ioctl: self._ioctl, Mmap: self._mmap, Munmap: self._munmap,
            UserMemory: self._user_memory, Writes: self._writes, Kick: self._kick,
            Results: self._results,
        }
        try:
            for record in records:
                steps[type(record)](record)
                self.report.records += 1
        except _Stopped as stop:
            self.report.stopped = str(stop)
        finally:
            self._give_back()
        return self.report

    def _give_back(self) -> None:
        for descriptor in self._descriptors.values():
            with contextlib.suppress(OSError):
                self._system.close(descriptor)
        for address, size in self._mapped.sizes.items():
            with contextlib.suppress(OSError):
                self._system.munmap(address, size)

    def _differs(self, what: str, recorded: object, replayed: object) -> None:
        self.report.differences.append(
            Difference(self.report.records, what, str(recorded), str(replayed))
        )

    def _same_end(self, what: str, recorded: int, call: Callable[[], int]) -> int:
        """Makes a call that ended with an errno; stops the replay if it ends otherwise now."""
        error = result = 0
        try:
            result = call()
        except OSError as failure:
            error = failure.errno or errno.EIO
        if error != recorded:
            self._differs(what, _ending(recorded), _ending(error))
            raise _Stopped(f"{what} ended otherwise than recorded")
        return result

    # ---- nodes and files ----

    def _start(self, record: Start) -> None:
        self._marshal = marshal_of(record.interface)

    def _open(self, record: Open) -> None:
        path = record.path
        if not path.startswith(self._marshal.PREFIXES) or "\0" in path:
            raise malformed(f"opens {path!r}, which is no node or file of the interface")
        if record.descriptor in self._descriptors:
            raise malformed(f"opens descriptor {record.descriptor} twice")
        opened = self._same_end(
            f"open of {path}", record.error, lambda: self._system.open(path, record.flags)
        )
        if not record.error:
            self._descriptors[record.descriptor] = opened

    def _descriptor(self, number: int) -> int:
        if number not in self._descriptors:
            raise malformed(f"uses descriptor {number}, which it has not opened")
        return self._descriptors[number]

    def _close(self, record: Close) -> None:
        descriptor = self._descriptor(record.descriptor)
        del self._descriptors[record.descriptor]
        self._system.close(descriptor)

    def _read(self, record: Read) -> None:
        descriptor = self._descriptor(record.descriptor)
        content = b""

        def read() -> int:
            nonlocal content
            content = self._system.read(descriptor, min(record.size_bytes, 1 << 24))
            return 0

        self._same_end("read", record.error, read)
        if content != record.content:
            self._differs("contents of a file", *_first_difference(record.content, content))

    # ---- ioctls ----

    def _ioctl(self, record: Ioctl) -> None:
        marshal, request, given = self._marshal, record.request, bytearray(record.before)
        faults = [marshal.fault(request, array.after) for array in record.arrays]
        if not marshal.steady(request) and not any(faults):
            return
        name = marshal.name_of(request)
        if len(given) != request >> 16 & 0x3FFF or len(record.after) != len(given):
            raise malformed(f"has {len(given)} bytes for the argument of {name}")
        descriptor = self._descriptor(record.descriptor)
        apart = self._patch(record, given, name)
        user = marshal.user_range(request, given)
        if user is not None and not self._mapped.holds(*user):
            raise malformed(f"gives memory to {name} that it has not mapped")
        argument = (ctypes.c_char * max(len(given), 1)).from_buffer(given or bytearray(1))
        buffers = [ctypes.create_string_buffer(each.before, len(each.before) or 1)
                   for each in record.arrays]  # fmt: skip
        for array, buffer in zip(record.arrays, buffers, strict=True):
            given[array.place : array.place + 8] = ctypes.addressof(buffer).to_bytes(8, "little")

        def call() -> int:
            return self._system.ioctl(descriptor, request, ctypes.addressof(argument))

        self._same_end(name, record.error, call)
        if not marshal.steady(request):
            return self._compare_faults(request, faults, buffers, call)
        for at, (recorded, replayed) in enumerate(zip(record.after, given, strict=True)):
            if recorded != replayed and at not in apart:
                field_name = marshal.field_at(request, at)
                end = at + 8
                self._differs(
                    f"{name}, from its {field_name}", record.after[at:end].hex(),
                    given[at:end].hex(),
                )
                break
        for array, buffer in zip(record.arrays, buffers, strict=True):
            if buffer.raw[: len(array.after)] != array.after:
                self._differs(
                    f"{name}, an array", *_first_difference(array.after, buffer.raw)
                )

    def _compare_faults(
        self, request: int, recorded: list[str], arrays: list[ctypes.Array[ctypes.c_char]],
        call: Callable[[], int],
    ) -> None:
        """A fault came: waits until one comes, because a wait may end earlier for other reasons."""
        found: list[str] = []

        def came() -> bool:
            found[:] = [self._marshal.fault(request, array.raw) for array in arrays]
            return any(found) or call() < 0

        _until(came, self._timeout_s)
        if found != recorded:
            self._differs("faults", " and ".join(recorded), " and ".join(found) or "none")

    def _patch(self, record: Ioctl, given: bytearray, name: str) -> set[int]:
        """Puts our descriptors for the recorded ones; the bytes that are not compared."""
        marshal, request = self._marshal, record.request
        apart: set[int] = set()
        places = [(place, address, count) for place, address, count
                  in marshal.arrays(request, given)]  # fmt: skip
        if places != [(each.place, each.address, len(each.before)) for each in record.arrays]:
            raise malformed(f"has other arrays for {name} than its argument says")
        for place in marshal.descriptors(request, given):
            number = int.from_bytes(given[place : place + 4], "little", signed=True)
            ours = self._descriptors.get(number, -1)
            given[place : place + 4] = ours.to_bytes(4, "little", signed=True)
            apart.update(range(place, place + 4))
        for place, *_ in places:
            apart.update(range(place, place + 8))
        return apart

    # ---- memory ----

    def _mmap(self, record: Mmap) -> None:
        address, size = record.address, record.size_bytes
        flags, descriptor, offset = record.flags, record.descriptor, record.offset
        if record.error:
            descriptor = self._descriptor(descriptor) if descriptor >= 0 else -1
            return self._refused_mmap(record, descriptor)
        if flags & MAP_FIXED and not self._mapped.holds(address, size):
            raise malformed(f"maps over {address:#x}, which it has not mapped")
        placed = 0 if flags & MAP_FIXED else MAP_FIXED | MAP_FIXED_NOREPLACE
        if descriptor >= 0:
            descriptor = self._descriptor(descriptor)
        else:  # of a file that the recording does not have
            flags, offset = flags & ~0xF | MAP_PRIVATE | MAP_ANONYMOUS, 0
        self._map(size, record.protection, flags | placed, descriptor, offset, address)
        kinds = (self._memory, self._bells)
        for kind in kinds:
            kind.forget(address, size)
        if record.descriptor >= 0 and record.protection & PROT_WRITE:
            kinds[not record.memory].sizes[address] = size

    def _refused_mmap(self, record: Mmap, descriptor: int) -> None:
        self._same_end(
            "mmap", record.error,
            lambda: self._system.mmap(
                record.size_bytes, record.protection, record.flags & ~MAP_FIXED, descriptor,
                record.offset,
            ),
        )

    def _map(
        self, size_bytes: int, protection: int, flags: int, descriptor: int, offset: int,
        address: int,
    ) -> None:
        if not size_bytes or address % PAGE_BYTES or address + size_bytes >= 1 << 47:
            raise malformed(f"maps {size_bytes} bytes at {address:#x}")
        system = self._system
        try:
            system.mmap(size_bytes, protection, flags, descriptor, offset, address)
        except OSError as error:
            if error.errno != errno.EEXIST:
                self._differs("mmap", _ending(0), _ending(error.errno or 0))
                raise _Stopped("a mapping was refused") from error
            raise SystemCallFailed(
                f"{size_bytes} bytes at {address:#x}, which the recording needs, are in use here.",
                number=errno.EEXIST, operation="replay", remedy="Replay in a fresh process.",
            ) from error
        if not self._mapped.holds(address, size_bytes):
            self._mapped.sizes[address] = size_bytes

    def _munmap(self, record: Munmap) -> None:
        if self._mapped.sizes.get(record.address) != record.size_bytes:
            raise malformed(f"unmaps {record.address:#x}, which it has not mapped")
        self._system.munmap(record.address, record.size_bytes)
        for kind in (self._mapped, self._memory, self._bells):
            kind.forget(record.address, record.size_bytes)

    def _user_memory(self, record: UserMemory) -> None:
        if self._mapped.holds(record.address, record.size_bytes):
            return
        self._map(
            record.size_bytes, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_FIXED_NOREPLACE, -1, 0, record.address,
        )
        self._memory.sizes[record.address] = record.size_bytes

    def _writes(self, record: Writes) -> None:
        for address, content in self._checked(record.runs):
            ctypes.memmove(address, content, len(content))

    def _checked(self, runs: tuple[Run, ...]) -> tuple[Run, ...]:
        for address, content in runs:
            if not self._memory.holds(address, len(content)):
                raise malformed(f"has contents at {address:#x}, which is no memory of a device")
        return runs

    # ---- submissions ----

    def _kick(self, record: Kick) -> None:
        if record.doorbell % 8 or not self._bells.holds(record.doorbell, 8):
            raise malformed(f"rings a doorbell at {record.doorbell:#x}, which is none")
        if self._ring_bell is None:
            self._ring_bell = _KICK(self._system.kick(native().functions["doorbell"]))
        told = ctypes.c_uint64(record.told)
        state = RingState(doorbell=record.doorbell, write_pointer=ctypes.addressof(told))
        self._ring_bell(ctypes.addressof(state))
        self.report.submissions += 1

    def _results(self, record: Results) -> None:
        timeline, value = record.timeline, record.value
        if timeline % 8 or not self._memory.holds(timeline, 8):
            raise malformed(f"has a timeline at {timeline:#x}, which is no memory of a device")
        word = ctypes.c_uint64.from_address(timeline)
        if not _until(lambda: word.value >= value, self._timeout_s):
            self._differs(
                f"the timeline at {timeline:#x}", value,
                f"{word.value} after {self._timeout_s:g} s. {self._system.explain()}".rstrip(),
            )
            raise _Stopped("a submission did not finish")
        runs = self._checked(record.runs)
        _until(lambda: all(ctypes.string_at(at, len(c)) == c for at, c in runs), self._settle_s)
        for address, content in runs:
            found = ctypes.string_at(address, len(content))
            if found != content:
                self._differs(
                    f"{len(content)} bytes that the device wrote at {address:#x}",
                    *_first_difference(content, found),
                )
                ctypes.memmove(address, content, len(content))
            self.report.result_bytes += len(content)
        self.report.finished += 1


def _until(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return condition()
        time.sleep(_NAP_S)
    return True


def _ending(number: int) -> str:
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})" if number else "success"


def _first_difference(recorded: bytes, replayed: bytes) -> tuple[str, str]:
    """Both sides from the first byte that differs: as text where it is text, else in hex."""
    at = next(
        (i for i, (one, other) in enumerate(zip(recorded, replayed, strict=False)) if one != other),
        min(len(recorded), len(replayed)),
    )
    start = recorded.rfind(b"\n", 0, at) + 1
    if all(32 <= byte < 127 or byte in b"\n\t" for byte in recorded + replayed):
        ends = [recorded[start:].split(b"\n")[0], replayed[start:].split(b"\n")[0]]
        return ends[0].decode(), ends[1].decode()
    end = at + 16
    return (f"byte {at} on: {recorded[at:end].hex()}", f"byte {at} on: {replayed[at:end].hex()}")
