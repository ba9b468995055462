"""Runs dispatches of GPU machine code on the processor: the board's one way to the translator."""

from __future__ import annotations

import bisect
import ctypes
import hashlib
import struct
import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from compiler.llvm import host_target
from drivers.cpu.host import thread_count
from drivers.emulated.simt import jit, layout, patterns, runner
from drivers.emulated.simt.architecture import Architecture, architecture
from drivers.emulated.simt.jit import Effort
from drivers.emulated.simt.program import Program, read_program
from drivers.emulated.simt.workers import Workers
from drivers.system import System

READ, WRITE, EXECUTE = layout.READ, layout.WRITE, layout.EXECUTE
LOOP_BUDGET = 1 << 28
"""Backward jumps of a wave between two barriers, before it counts as hung: a second or so."""

_ACCESS = {1: "read", 2: "write", 3: "atomic", 4: "execute"}
_THREADED_WAVES = 64
WORTHWHILE = 1 << 16
"""Waves of a kernel, and their backward jumps, from which on its quicker version pays."""
_MEMORIES = 64  # that are kept in order


class MemoryRange(NamedTuple):
    """Guest addresses `first` up to `end`, which may be accessed as `protection` says."""

    first: int
    end: int
    protection: int = READ | WRITE | EXECUTE


@dataclass(frozen=True)
class Fault:
    """Why a dispatch ended early. `kind` is `memory` or `hang`."""

    kind: str
    address: int
    access: str
    """`read`, `write`, `atomic` or `execute`; empty for a hang."""
    wave: int
    """The wave's number: workgroup × waves in a workgroup + wave in the workgroup."""
    pc: int
    """The guest address of the instruction; of the loop's start for a hang."""


class Dispatch(NamedTuple):
    """A kernel's launch, as its command processor has worked it out."""

    entry: int
    """Guest address of the first instruction."""
    scalars: tuple[int, ...]
    """The initial scalar registers from s0 on (user data), of 32 bits without sign."""
    group_ids: tuple[int, int, int]
    """Which scalar registers receive the workgroup's x, y, z; −1 for none. Where y and z have the
    same, z is its upper half."""
    block: tuple[int, int, int]
    """Threads in a workgroup."""
    grid: tuple[int, int, int]
    """Workgroups."""
    memory: tuple[MemoryRange, ...]
    groups: tuple[int, int] | None = None
    """The first workgroup and the end of those to be run; None for all."""
    thread_ids: str = "packed"
    """`packed`: v0 = x | y << 10 | z << 20. `separate`: v0, v1, v2."""
    gfx: str = "gfx1100"
    """The board's gfx number, which says what instructions mean."""
    wave_size: int = 32
    lds_bytes: int = 0
    scratch_bytes: int = 0
    """Of one lane."""
    float_mode: int = 0xF0
    """The FLOAT_MODE field of RSRC1: rounding in bits 0–3, denormals kept in 4–7."""
    scratch_register: int = -1
    """The scalar register that receives the wave's offset in the scratch that the program
    allotted; −1 where waves find their scratch without it."""
    loop_budget: int = LOOP_BUDGET
    end_address: int = 0
    """Of a 32-bit word of this process: once it is not 0 no more workgroups are begun. 0: none."""
    table: tuple[int, int] = (0, 0)
    """Address and size of words that say where jumps by a register may lead."""


_NEVER = ctypes.c_uint32(0)


def _mxcsr(float_mode: int) -> int:
    """FLOAT_MODE as MXCSR. One mode serves all widths, as float32 has it."""
    rounding = (0, 2, 1, 3)[float_mode & 3]  # nearest, +inf, -inf, zero
    denormals = float_mode >> 4 & 3
    flush = (0 if denormals & 1 else 0x40) | (0 if denormals & 2 else 0x8000)
    return 0x1F80 | rounding << 13 | flush


@dataclass
class _Kernel:
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


class _Context:
    """The memory of one native thread: context, wave states, local memory, scratch."""

    def __init__(self, functions: list[int]) -> None:
        self.memory = bytearray(0)
        self.functions = struct.pack(f"<{len(functions)}Q", *functions)
        self.size = {"slots": -1, "states": 0, "lds": 0, "scratch": 0}
        self.buffers: dict[str, ctypes.Array[ctypes.c_char]] = {}
        self.slots_of: tuple[object, ...] = ()  # what the image of slots is made for
        self.slots = b""

    def room(self, name: str, size_bytes: int) -> int:
        """The aligned address of a buffer of at least that size; contents persist."""
        if name not in self.buffers or self.size[name] < size_bytes:
            self.size[name] = size_bytes
            self.buffers[name] = ctypes.create_string_buffer(size_bytes + 256)
        return (ctypes.addressof(self.buffers[name]) + 255) & ~255


class Engine:
    """Translates and runs dispatches; safe to be used by several threads.

    `threads` native threads share a dispatch that is large enough. `eager`: kernels are translated
    well at once, not only when they have turned out to be used.
    """

    def __init__(self, system: System, threads: int | None = None, eager: bool = False) -> None:
        self.system = system
        self.threads = threads or thread_count()
        self.worthwhile = 0 if eager else WORTHWHILE
        self.kernels: dict[tuple[int, str, int], list[_Kernel]] = {}
        self._lock = threading.Lock()
        self._functions: list[int] = []
        self._run: Callable[[int], None] | None = None
        self._share = 0
        self._idle: list[_Context] = []
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

    def kernel(self, dispatch: Dispatch) -> _Kernel | Fault:
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

    def _version(self, kernel: _Kernel, all_lanes: bool, effort: Effort) -> int:
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

    def _versions(self, kernel: _Kernel, waves: int, full: bool, tail: bool) -> tuple[int, int]:
        """Host code for full and for partial waves; 0 where there are none such."""
        if kernel.work + waves < self.worthwhile:
            address = self._version(kernel, False, Effort.NONE)
            return address, address
        return (
            self._version(kernel, True, Effort.SHORT) if full else 0,
            self._version(kernel, False, Effort.SHORT) if tail else 0,
        )

    # ---- dispatch ----
    def run(self, dispatch: Dispatch) -> Fault | None:
        """Runs all waves of a dispatch; returns why it ended early, if it did."""
        lanes = dispatch.wave_size
        with self._lock:
            self._start()
            kernel = self.kernel(dispatch)
            if isinstance(kernel, Fault):
                return kernel
            threads = dispatch.block[0] * dispatch.block[1] * dispatch.block[2]
            first, end = dispatch.groups or (
                0, dispatch.grid[0] * dispatch.grid[1] * dispatch.grid[2]
            )
            groups = end - first
            if not threads or groups <= 0:
                return None
            waves, rest = -(-threads // lanes), threads % lanes
            full, tail = self._versions(kernel, groups * waves, threads >= lanes, bool(rest))
            ids = self._thread_ids(dispatch.block, dispatch.thread_ids, lanes)
            helpers_count = min(self.threads, groups) if groups * waves >= _THREADED_WAVES else 1
            contexts = [self._take() for _ in range(helpers_count)]
        scalars = array("I", dispatch.scalars or (0,))
        ranges = self._memory(dispatch.memory).ranges
        job = ctypes.create_string_buffer(layout.JOB_BYTES)
        wave_bytes = _scratch_of_a_wave(dispatch)
        all_lanes = (1 << lanes) - 1
        struct.pack_into(
            "<QQQQQQQQQQQqqqQQQQQQQqQQ", job, 0,
            first, end, 0, dispatch.grid[0], dispatch.grid[1], full, tail, waves,
            (1 << rest) - 1 if rest else all_lanes,
            scalars.buffer_info()[0], len(scalars), *dispatch.group_ids,
            ids.buffer_info()[0], (1 if dispatch.thread_ids == "packed" else 3) * lanes * 4,
            dispatch.loop_budget, _mxcsr(dispatch.float_mode), wave_bytes,
            kernel.state_bytes if kernel.has_barrier else 0, all_lanes,
            dispatch.scratch_register, dispatch.end_address or ctypes.addressof(_NEVER),
            kernel.numbered,
        )
        addresses = [
            self._prepare(number, context, kernel, dispatch, waves, ctypes.addressof(job), ranges)
            for number, context in enumerate(contexts)
        ]
        self._carry_out(addresses)
        fault = next((f for f in (_fault(a, dispatch) for a in addresses) if f), None)
        kernel.work += sum(
            ctypes.c_int64.from_address(address + layout.CONTEXT_WORK).value
            for address in addresses
        )
        with self._lock:
            self._idle.extend(contexts)
        return fault

    def _carry_out(self, addresses: list[int]) -> None:
        assert self._run is not None
        if len(addresses) == 1:
            self._run(addresses[0])
            return
        with self._lock:
            if self._workers is None:
                self._workers = Workers(self.system, self.threads - 1)
        self._workers.run(self._share, addresses)

    def _take(self) -> _Context:
        return self._idle.pop() if self._idle else _Context(self._functions)

    def _prepare(
        self, number: int, context: _Context, kernel: _Kernel, dispatch: Dispatch, waves: int,
        job: int, ranges: array[int],
    ) -> int:
        """Fills the context for a dispatch; returns its address."""
        slot_count = len(kernel.kinds)
        address = context.room("slots", layout.CONTEXT_SLOTS + layout.SLOT_BYTES * slot_count)
        states = context.room("states", kernel.state_bytes * (waves if kernel.has_barrier else 1))
        lds = context.room("lds", max(16, dispatch.lds_bytes))
        wave_bytes = _scratch_of_a_wave(dispatch)
        scratch = context.room("scratch", max(16, wave_bytes * waves))
        head = struct.pack(
            "<qiiqqqQQQQQQQQQqQ", dispatch.loop_budget, 0, 0, 0, 0, 0,
            ranges.buffer_info()[0], len(ranges) // 3, lds, dispatch.lds_bytes, scratch,
            dispatch.scratch_bytes, dispatch.entry, job, states, 0, number * wave_bytes * waves,
        )
        ctypes.memmove(address, head, len(head))
        ctypes.memset(address + layout.CONTEXT_ZEROS, 0, 64)
        ctypes.memset(address + layout.CONTEXT_WORK, 0, 8)
        ctypes.memmove(
            address + layout.CONTEXT_FUNCTIONS, context.functions, len(context.functions)
        )
        bounds = {
            layout.LOCAL: (lds, lds + dispatch.lds_bytes),
            layout.SCRATCH: (scratch, scratch + wave_bytes * waves),
        }
        if context.slots_of != (kernel.digest, bounds):
            rows: list[int] = []
            for pc, kind in kernel.kinds:
                rows += [*bounds.get(kind, (0, 0)), pc, kind]
            context.slots_of = kernel.digest, bounds
            context.slots = struct.pack(f"<{len(rows)}Q", *rows)
        ctypes.memmove(address + layout.CONTEXT_SLOTS, context.slots, len(context.slots))
        return address

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
                rows.extend([*x, *y, *z])
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
) -> _Kernel:
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
    return _Kernel(
        isa, dispatch.wave_size, program, tuple(pieces), table, digest.digest(),
        slots, kinds,
        any(map(isa.waits, program.instructions)), any(map(isa.numbered, program.instructions)), {},
    )


def _scratch_of_a_wave(dispatch: Dispatch) -> int:
    return (dispatch.scratch_bytes * dispatch.wave_size + 63) & ~63


def _fault(context: int, dispatch: Dispatch) -> Fault | None:
    head = ctypes.string_at(context, layout.CONTEXT_FAULT_WAVE + 8)
    kind, access, address, pc = struct.unpack_from("<iiQq", head, layout.CONTEXT_FAULT)
    (wave,) = struct.unpack_from("<q", head, layout.CONTEXT_FAULT_WAVE)
    if kind == 0:
        return None
    if kind == layout.FAULT_HANG:
        return Fault("hang", 0, "", wave, dispatch.entry + pc)
    return Fault("memory", address, _ACCESS[access], wave, dispatch.entry + pc)

