"""The structures that Python and native code share: one ctypes class each, offsets from there.

All of them live in memory from `System.mmap`, never in Python objects, because native threads
may still look at them while the interpreter shuts down. Fields that different threads write
stand in different cache lines of 64 bytes.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_uint32, c_uint64
from enum import IntEnum
from typing import Final

LINE_BYTES: Final = 64


class Host(ctypes.Structure):
    """What native code needs of the C library; one for the process, written once."""

    _fields_ = [
        ("syscall", c_uint64),
        ("clock_gettime", c_uint64),
        ("memmove", c_uint64),
        ("sched_yield", c_uint64),
        ("sched_getcpu", c_uint64),
        ("sched_setaffinity", c_uint64),
        ("gettid", c_uint64),
        ("futex_number", c_int64),
        ("spin_ns", c_int64),
    ]


class TimelineState(ctypes.Structure):
    """A 64-bit count that only grows; `sequence` is the futex of those who wait for it."""

    _fields_ = [
        ("value", c_uint64),
        ("host", c_uint64),
        ("sequence", c_uint32),
        ("sleepers", c_uint32),
        ("pad", c_uint64 * 5),
    ]


class QueueState(ctypes.Structure):
    """A ring and its two ends: producers own `head`, the command processor owns `tail`."""

    _fields_ = [
        ("host", c_uint64),
        ("pool", c_uint64),
        ("job", c_uint64),
        ("ring", c_uint64),
        ("mask", c_uint64),
        ("timeline", c_uint64),
        ("kick", c_uint64),
        ("pad0", c_uint64),
        # Written by producers, which hold the queue's lock.
        ("head", c_uint64),
        ("submitted", c_uint64),
        ("pad1", c_uint64 * 6),
        # Written by the command processor; `current` is the record it is at, 0 when idle.
        ("tail", c_uint64),
        ("current", c_uint64),
        ("stopped", c_uint32),
        ("pad2", c_uint32),
        ("pad3", c_uint64 * 5),
        # Futexes: `doorbell` wakes the command processor, `space` the producers.
        ("doorbell", c_uint32),
        ("doorbell_sleepers", c_uint32),
        ("space", c_uint32),
        ("space_sleepers", c_uint32),
        ("stop", c_uint32),
        ("pad4", c_uint32),
        ("pad5", c_uint64 * 5),
    ]


class Job(ctypes.Structure):
    """One kernel's grid while threads share its blocks.

    `state` holds the OPEN bit and, below it, how many workers take part. Only its queue's
    thread opens it; the other fields change only while it is closed and nobody takes part.
    """

    OPEN: Final = 1 << 31

    _fields_ = [
        ("state", c_uint32),
        ("sequence", c_uint32),
        ("sleepers", c_uint32),
        ("grid_x", c_uint32),
        ("grid_y", c_uint32),
        ("pad0", c_uint32),
        ("entry", c_uint64),
        ("kernarg", c_uint64),
        ("total", c_uint64),
        ("chunk", c_uint64),
        ("pad1", c_uint64),
        ("next", c_uint64),
        ("pad2", c_uint64 * 7),
    ]


class Pool(ctypes.Structure):
    """The worker threads of one device, the jobs that its queues may open, and who sits where.

    With `placement`, `homes` has the first processor of each worker, `seats` the thread id of
    the worker on each processor (0: none), `free_cpu` a processor without one; `placing` is
    the lock of the last two.
    """

    JOBS: Final = 64
    CPUS: Final = 1024

    _fields_ = [
        ("host", c_uint64),
        ("workers", c_uint32),
        ("job_count", c_uint32),
        ("pad0", c_uint64 * 6),
        ("sequence", c_uint32),
        ("sleepers", c_uint32),
        ("stop", c_uint32),
        ("stopped", c_uint32),
        ("pad1", c_uint64 * 6),
        ("jobs", Job * JOBS),
        ("placement", c_uint32),
        ("placing", c_uint32),
        ("free_cpu", c_uint32),
        ("started", c_uint32),
        ("pad2", c_uint64 * 6),
        ("homes", c_uint32 * CPUS),
        ("seats", c_uint32 * CPUS),
    ]


class Patch(ctypes.Structure):
    """Where one Var goes: `width` bytes at `offset` of a list's block, between two limits."""

    _fields_ = [
        ("offset", c_uint32),
        ("slot", c_uint32),
        ("width", c_uint32),
        ("pad", c_uint32),
        ("minimum", c_int64),
        ("maximum", c_int64),
    ]


class BoundState(ctypes.Structure):
    """A bound list: `copies` equal blocks of records and arguments, used in turn.

    A block is written only when the timeline has reached its entry in `last`, the point of
    the replay that used it before.
    """

    COPIES: Final = 4

    _fields_ = [
        ("queue", c_uint64),
        ("blocks", c_uint64),
        ("stride", c_uint64),
        ("record_count", c_uint64),
        ("patches", c_uint64),
        ("patch_count", c_uint64),
        ("values", c_uint64),
        ("next", c_uint64),
        ("last", c_uint64 * COPIES),
    ]


class RingState(ctypes.Structure):
    """A hardware queue's ring of dwords: every submission is one entry of equal length.

    An entry runs a list that lies elsewhere and then brings the timeline to its value, so the
    timeline also says which entries the hardware has left behind. `template` is the entry; of its
    dwords `address_at` (64 bits) and `size_at` (the list's dwords, with `size_flags`) change.
    The value goes to the dwords `low_at` and `high_at` behind `value_base`, plus the entry's place
    in the ring under `value_mask` (times `tail_stride`): the template itself, or memory of each
    place, whose address then goes to `tail_at`, with `tail_flags` added. Where an address holds
    the length too, a dword of the list adds `size_factor`. The hardware moves by `entry_units` for
    an entry; the doorbell says the write pointer less `doorbell_back`, or, for a GPFIFO, the
    `token`, when `put` is written.
    """

    _fields_ = [
        ("host", c_uint64),
        ("ring", c_uint64),
        ("mask", c_uint64),
        ("timeline", c_uint64),
        ("kick", c_uint64),
        ("doorbell", c_uint64),
        ("write_pointer", c_uint64),
        ("flush", c_uint64),
        ("template", c_uint64),
        ("entry_dwords", c_uint64),
        ("capacity", c_uint64),
        ("entry_units", c_uint64),
        ("doorbell_back", c_uint64),
        ("address_at", c_uint64),
        ("size_at", c_uint64),
        ("size_flags", c_uint64),
        ("low_at", c_uint64),
        ("high_at", c_uint64),
        ("value_base", c_uint64),
        ("value_mask", c_uint64),
        ("tail_at", c_uint64),
        ("size_factor", c_uint64),
        ("tail_stride", c_uint64),
        ("tail_flags", c_uint64),
        ("put", c_uint64),
        ("token", c_uint64),
        ("pad0", c_uint64 * 6),
        # Written by producers, which hold the queue's lock.
        ("head", c_uint64),
        ("submitted", c_uint64),
        ("pad1", c_uint64 * 6),
    ]


class Opcode(IntEnum):
    """What a record asks of the command processor. 0 is invalid, so a blank ring cannot run."""

    SIGNAL = 1
    WAIT = 2
    TIMESTAMP = 3
    BARRIER = 4
    EXEC = 5
    COPY = 6
    WRITE = 7
    POLL = 8
    INDIRECT = 9


class Compare(IntEnum):
    """How POLL compares memory with its value (unsigned)."""

    GREATER_EQUAL = 0
    EQUAL = 1


class Record(ctypes.Structure):
    """One record of a ring: an opcode and seven words whose meaning `FIELDS` gives."""

    _fields_ = [("opcode", c_uint32), ("kernel", c_uint32), ("words", c_uint64 * 7)]


RECORD_BYTES: Final = ctypes.sizeof(Record)

# Each opcode's fields: name → (byte offset in the record, struct format).
FIELDS: Final[dict[Opcode, dict[str, tuple[int, str]]]] = {
    Opcode.SIGNAL: {"timeline": (8, "Q"), "value": (16, "Q")},
    Opcode.WAIT: {"timeline": (8, "Q"), "value": (16, "Q")},
    Opcode.TIMESTAMP: {"address": (8, "Q")},
    Opcode.BARRIER: {},
    Opcode.EXEC: {
        "kernel": (4, "I"),
        "entry": (8, "Q"),
        "kernarg": (16, "Q"),
        "grid_x": (24, "I"),
        "grid_y": (28, "I"),
        "grid_z": (32, "I"),
    },
    Opcode.COPY: {"destination": (8, "Q"), "source": (16, "Q"), "size_bytes": (24, "Q")},
    Opcode.WRITE: {"address": (8, "Q"), "value": (16, "Q"), "size_bytes": (24, "Q")},
    Opcode.POLL: {
        "address": (8, "Q"),
        "value": (16, "Q"),
        "size_bytes": (24, "Q"),
        "compare": (32, "Q"),
    },
    # Runs `count` records at `list`, then brings the queue's own timeline to `value`.
    Opcode.INDIRECT: {"list": (8, "Q"), "count": (16, "Q"), "value": (24, "Q")},
}


def _checked_sizes() -> None:
    sizes = {
        Record: 64, TimelineState: 64, QueueState: 256, Job: 128, Patch: 32, BoundState: 96,
        RingState: 320,
    }
    for structure, size in sizes.items():
        if ctypes.sizeof(structure) != size:
            raise RuntimeError(f"{structure.__name__} has {ctypes.sizeof(structure)} bytes")


_checked_sizes()


def constants() -> dict[str, str]:
    """Every name that the IR texts use, `Queue.head` and the like, with its number."""
    structures: dict[str, type[ctypes.Structure]] = {
        "Host": Host, "Timeline": TimelineState, "Queue": QueueState, "Job": Job,
        "Pool": Pool, "Patch": Patch, "Bound": BoundState, "Record": Record, "Ring": RingState,
    }
    found: dict[str, str] = {}
    for name, structure in structures.items():
        found[f"{name}.SIZE"] = str(ctypes.sizeof(structure))
        for field in structure._fields_:
            found[f"{name}.{field[0]}"] = str(getattr(structure, field[0]).offset)
    for opcode in Opcode:
        found[opcode.name] = str(int(opcode))
        for field_name, (offset, _) in FIELDS[opcode].items():
            found[f"{opcode.name}.{field_name}"] = str(offset)
    found["Pool.CPUS"] = str(Pool.CPUS)
    found["Job.OPEN"] = str(Job.OPEN)
    found["Bound.COPIES"] = str(BoundState.COPIES)
    found["COMPARE_EQUAL"] = str(int(Compare.EQUAL))
    return found
