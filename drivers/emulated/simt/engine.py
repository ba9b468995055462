"""Runs dispatches of GPU machine code on the processor: the board's one way to the translator."""

from __future__ import annotations

import bisect
import ctypes
import hashlib
import math
import struct
import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compiler.llvm import host_target
from drivers.cpu.host import thread_count
from drivers.emulated.simt import jit, layout, patterns, runner
from drivers.emulated.simt.architecture import Architecture, architecture
from drivers.emulated.simt.context import Context, Plan
from drivers.emulated.simt.dispatch import EXECUTE, Dispatch, Fault, MemoryRange
from drivers.emulated.simt.jit import Effort
from drivers.emulated.simt.program import Program, read_program
from drivers.emulated.simt.workers import Workers
from drivers.system import System

_THREADED_WAVES = 64
WORTHWHILE = 1 << 16
"""Waves of a kernel, and their backward jumps, from which on its quicker version pays."""
_MEMORIES = 64  # that are kept in order
_PLANS = 256  # of dispatches, that are kept


@dataclass(eq=False)
class Kernel:
    """A translated kernel. Versions are compiled when a dispatch first needs them."""

    architecture: Architecture
    wave_size: int
    program: Program[Any]
    code: tuple[bytes, ...]
    """The bytes of each extent, to see whether memory still holds the same."""
    table: bytes | None
    """What the dispatch's table held; None if no instruction depends on it."""
    digest: bytes
    slots: dict[int, int]
    kinds: list[tuple[int, int]]
    """(pc, kind) of each slot."""
    has_barrier: bool
    numbered: bool
    """Whether its waves wait at barriers with numbers."""
    versions: dict[tuple[bool, Effort], int]
    """Addresses of host code: for waves with all their lanes or for any, and how well it is."""
    work: int = 0
    """Its waves and their backward jumps so far."""

    @property
    def state_bytes(self) -> int:
        """What a wave's registers take."""
        return layout.state_bytes(self.architecture.vector_registers, self.wave_size)


class _Memory:
    """The ranges of a dispatch in order, neighbours of the same protection joined."""

    def __init__(self, given: tuple[MemoryRange, ...]) -> None:
        self.given = given
        joined: list[tuple[int, int, int]] = []
        for first, end, protection in sorted(given):
            if joined and joined[-1][1] == first and joined[-1][2] == protection:
                joined[-1] = (joined[-1][0], end, protection)
            else:
                joined.append((first, end, protection))
        self.starts = [first for first, _, _ in joined]
        self.joined = joined
        self.ranges = array("Q", (word for one in joined for word in one))

    def executable_end(self, address: int) -> int:
        """How far code may be read that lies there; 0 if it may not."""
        at = bisect.bisect_right(self.starts, address) - 1
        if at < 0:
            return 0
        _, end, protection = self.joined[at]
        return end if address < end and protection & EXECUTE else 0

    def executable(self, first: int, end: int) -> bool:
        """Whether all of it is code."""
        return end <= self.executable_end(first)


class Engine:
    """Translates and runs dispatches; safe to be used by several threads.

    `threads` native threads share a dispatch that is large enough. `eager`: kernels are translated
    well at once, not only when they have turned out to be used.
    """

    def __init__(self, system: System, threads: int | None = None, eager: bool = False) -> None:
        self.system = system
        self.threads = threads or thread_count()
        self.worthwhile = 0 if eager else WORTHWHILE
        self.kernels: dict[tuple[int, str, int], list[Kernel]] = {}
        self._lock = threading.Lock()
        self._functions: list[int] = []
        self._run: Callable[[int], None] | None = None
        self._share = 0
        self._idle: list[Context] = []
        self._plans: dict[int, Plan] = {}  # by id of the dispatch
        self._workers: Workers | None = None
        self._ids: dict[tuple[tuple[int, int, int], str, int], array[int]] = {}
        self._memories: dict[int, _Memory] = {}  # by id of what a dispatch says

    # ---- code ----
    def _start(self) -> None:
        """Maps the helpers, at first use."""
        if self._functions:
            return
        names = patterns.exports()

        def make() -> str:
            parts = [patterns.text(), runner.text(host_target().arch), _table(names)]
            return "\n".join(parts)

        image, offset = jit.compile_cached(b"helpers", "export", make, Effort.ALL)
        base = jit.map_code(self.system, image)
        export = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)(base + offset)
        functions = [int(export(i)) for i in range(len(names))]
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(functions[names.index("run")])
        self._functions, self._share = functions, functions[names.index("share")]

    def _memory(self, given: tuple[MemoryRange, ...]) -> _Memory:
        """What a dispatch may touch, put in order once for each tuple that says so."""
        found = self._memories.get(id(given))
        if found is None:
            if len(self._memories) == _MEMORIES:
                self._memories.clear()
            found = self._memories[id(given)] = _Memory(given)
        return found

    def kernel(self, dispatch: Dispatch) -> Kernel | Fault:
        """The translation of the code that lies at the entry now."""
        entry, wave_size = dispatch.entry, dispatch.wave_size
        memory = self._memory(dispatch.memory)
        known = self.kernels.setdefault((entry, dispatch.gfx, wave_size), [])
        tables: list[bytes] = []  # read once, if at all

        def table() -> bytes:
            if not tables:
                tables.append(ctypes.string_at(*dispatch.table))
            return tables[0]

        for kernel in known:
            if (kernel.table is None or kernel.table == table()) and all(
                memory.executable(entry + first, entry + end)
                and ctypes.string_at(entry + first, end - first) == code
                for (first, end), code in zip(kernel.program.extents, kernel.code, strict=True)
            ):
                return kernel
        end = memory.executable_end(entry)
        if not end:
            return Fault("memory", entry, "execute", 0, entry)
        isa = architecture(dispatch.gfx, wave_size)
        code = ctypes.string_at(entry, min(end - entry, 4 << 20))
        tables.clear()

        def decode(pc: int) -> Any:
            return isa.decode(code, pc, wave_size, entry)

        def flow(instruction: Any) -> tuple[tuple[int, ...], bool]:
            targets, last = isa.flow(instruction)
            return targets + isa.leads(instruction, decode, table), last

        program = read_program(decode, flow)
        kernel = _describe(program, code, isa, dispatch, next(iter(tables), None))
        known.append(kernel)
        return kernel

    def _version(self, kernel: Kernel, all_lanes: bool, effort: Effort) -> int:
        """The address of the host code for waves with all their lanes, or for any."""
        address = kernel.versions.get((all_lanes, effort))
        if address is None:
            image, offset = jit.compile_cached(
                kernel.digest + bytes([all_lanes]), "wave",
                lambda: kernel.architecture.translate(
                    kernel.program, kernel.wave_size, kernel.slots, all_lanes
                ),
                effort,
            )
            address = jit.map_code(self.system, image) + offset
            kernel.versions[all_lanes, effort] = address
        return address

    def _versions(self, kernel: Kernel, waves: int, full: bool, tail: bool) -> tuple[int, int]:
        """Host code for full and for partial waves; 0 where there are none such."""
        if kernel.work + waves < self.worthwhile:
            address = self._version(kernel, False, Effort.NONE)
            return address, address
        return (
            self._version(kernel, True, Effort.SHORT) if full else 0,
            self._version(kernel, False, Effort.SHORT) if tail else 0,
        )

    # ---- dispatch ----
    def run(self, dispatch: Dispatch, groups: tuple[int, int] | None = None) -> Fault | None:
        """Runs workgroups, `groups` the first and the end of them, or else all of a dispatch.

        Returns why they ended early, if they did. What a dispatch needs is worked out once for the
        same object.
        """
        with self._lock:
            self._start()
            kernel = self.kernel(dispatch)
            if isinstance(kernel, Fault):
                return kernel
            plan = self._plan(dispatch, kernel)
            first, end = groups or (0, math.prod(dispatch.grid))
            count = end - first
            if not plan.waves or count <= 0:
                return None
            full, tail = self._versions(kernel, count * plan.waves, plan.has_full, plan.has_rest)
            threads = min(self.threads, count) if count * plan.waves >= _THREADED_WAVES else 1
            contexts = [self._take() for _ in range(threads)]
        job = plan.job(first, end, full, tail)
        addresses = [
            context.begin(plan, number, ctypes.addressof(job))
            for number, context in enumerate(contexts)
        ]
        self._carry_out(addresses)
        fault = None
        for context in contexts:
            kernel.work += context.work
            fault = fault or context.fault(dispatch)
        with self._lock:
            self._idle.extend(contexts)
        return fault

    def _plan(self, dispatch: Dispatch, kernel: Kernel) -> Plan:
        found = self._plans.get(id(dispatch))
        if found is None or found.dispatch is not dispatch or found.kernel is not kernel:
            if len(self._plans) == _PLANS:
                self._plans.clear()
            ids = self._thread_ids(dispatch.block, dispatch.thread_ids, dispatch.wave_size)
            ranges = self._memory(dispatch.memory).ranges
            found = self._plans[id(dispatch)] = Plan(dispatch, kernel, ids, ranges)
        return found

    def _carry_out(self, addresses: list[int]) -> None:
        assert self._run is not None
        if len(addresses) == 1:
            self._run(addresses[0])
            return
        with self._lock:
            if self._workers is None:
                self._workers = Workers(self.system, self.threads - 1)
        self._workers.run(self._share, addresses)

    def _take(self) -> Context:
        return self._idle.pop() if self._idle else Context(self._functions)

    def _thread_ids(self, block: tuple[int, int, int], form: str, lanes: int) -> array[int]:
        """The initial vector registers of every wave of a workgroup."""
        key = (block, form, lanes)
        known = self._ids.get(key)
        if known is not None:
            return known
        total = block[0] * block[1] * block[2]
        rows = array("I")
        for first in range(0, total, lanes):
            numbers = [min(n, total - 1) for n in range(first, first + lanes)]
            x = [n % block[0] for n in numbers]
            y = [n // block[0] % block[1] for n in numbers]
            z = [n // (block[0] * block[1]) for n in numbers]
            if form == "packed":
                rows.extend(a | b << 10 | c << 20 for a, b, c in zip(x, y, z, strict=True))
            else:
                rows.extend(x if form == "line" else [*x, *y, *z])
        self._ids[key] = rows
        return rows

    def close(self) -> None:
        """Ends the threads. Translated code stays mapped for the life of the process."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None


def _table(names: list[str]) -> str:
    """IR of @export: the address of the helper of that number."""
    tests = "".join(
        f"  %is{i} = icmp eq i32 %which, {i}\n"
        f"  %p{i + 1} = select i1 %is{i}, ptr @{name}, ptr %p{i}\n"
        for i, name in enumerate(names)
    )
    return (
        "define ptr @export(i32 %which) {\n  %p0 = getelementptr i8, ptr null, i64 0\n"
        f"{tests}  ret ptr %p{len(names)}\n}}\n"
    )


def _describe(
    program: Program[Any], code: bytes, isa: Architecture, dispatch: Dispatch,
    table: bytes | None,
) -> Kernel:
    kinds: list[tuple[int, int]] = []
    slots: dict[int, int] = {}
    for instruction in program.instructions:
        for kind in isa.memory_kinds(instruction):
            slots.setdefault(instruction.pc, len(kinds))
            kinds.append((instruction.pc, kind))
    digest = hashlib.blake2b(f"{dispatch.gfx} {dispatch.wave_size}".encode(), digest_size=32)
    pieces = []
    for first, end in program.extents:
        pieces.append(code[first:end])
        digest.update(struct.pack("<QQ", first, end) + pieces[-1])
    digest.update(table or b"")
    if any(map(isa.absolute, program.instructions)):
        digest.update(struct.pack("<Q", dispatch.entry))
    return Kernel(
        isa, dispatch.wave_size, program, tuple(pieces), table, digest.digest(),
        slots, kinds,
        any(map(isa.waits, program.instructions)), any(map(isa.numbered, program.instructions)), {},
    )
