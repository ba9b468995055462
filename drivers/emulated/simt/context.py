"""The memory in which native threads carry out a dispatch: jobs, and a context for each thread."""

from __future__ import annotations

import ctypes
import struct
from array import array
from typing import TYPE_CHECKING

from drivers.emulated.simt import layout
from drivers.emulated.simt.dispatch import Dispatch, Fault

if TYPE_CHECKING:
    from drivers.emulated.simt.engine import Kernel

_ACCESS = {1: "read", 2: "write", 3: "atomic", 4: "execute"}
_NEVER = ctypes.c_uint32(0)
_ROUNDING = (0, 2, 1, 3)  # nearest, +inf, -inf, zero


def _mxcsr(float_mode: int) -> int:
    """FLOAT_MODE as MXCSR. One mode serves all widths, as float32 has it."""
    denormals = float_mode >> 4 & 3
    flush = (0 if denormals & 1 else 0x40) | (0 if denormals & 2 else 0x8000)
    return 0x1F80 | _ROUNDING[float_mode & 3] << 13 | flush


class Plan:
    """What is worked out once for a dispatch. It keeps alive what jobs and contexts point to."""

    def __init__(
        self, dispatch: Dispatch, kernel: Kernel, ids: array[int], ranges: array[int]
    ) -> None:
        self.dispatch, self.kernel, self.ids, self.ranges = dispatch, kernel, ids, ranges
        lanes = dispatch.wave_size
        threads = dispatch.block[0] * dispatch.block[1] * dispatch.block[2]
        self.waves, rest = -(-threads // lanes), threads % lanes
        self.has_full, self.has_rest = threads >= lanes, rest > 0
        self.scratch_bytes = (dispatch.scratch_bytes * lanes + 63) & ~63
        """Of a wave."""
        self.scalars = array("I", dispatch.scalars)
        self.scalars.extend([0] * (-len(self.scalars) % 16 or (0 if self.scalars else 16)))
        self.needs = (
            kernel, self.waves, dispatch.thread_ids, dispatch.lds_bytes, dispatch.scratch_bytes,
            dispatch.entry, ranges,
        )
        """What a context is filled for; the same for launches that differ in their arguments."""
        all_lanes = (1 << lanes) - 1
        self._job = struct.pack(
            "<QQQQQQQQQQQqqqQQQQQQQqQQ", 0, 0, 0, dispatch.grid[0], dispatch.grid[1], 0, 0,
            self.waves, (1 << rest) - 1 if rest else all_lanes,
            self.scalars.buffer_info()[0], len(self.scalars), *dispatch.group_ids,
            ids.buffer_info()[0], (3 if dispatch.thread_ids == "separate" else 1) * lanes * 4,
            dispatch.loop_budget, _mxcsr(dispatch.float_mode), self.scratch_bytes,
            kernel.state_bytes if kernel.has_barrier else 0, all_lanes,
            dispatch.scratch_register, dispatch.end_address or ctypes.addressof(_NEVER),
            kernel.numbered,
        )

    def job(self, first: int, end: int, full: int, tail: int) -> ctypes.Array[ctypes.c_char]:
        """A job for some workgroups, with the host's code for whole and for partial waves."""
        job = ctypes.create_string_buffer(self._job, layout.JOB_BYTES)
        struct.pack_into("<QQ", job, layout.JOB_NEXT, first, end)
        struct.pack_into("<QQ", job, layout.JOB_FULL, full, tail)
        return job


class Context:
    """What one native thread works in: context, wave states, local memory, scratch."""

    def __init__(self, functions: list[int]) -> None:
        self.functions = struct.pack(f"<{len(functions)}Q", *functions)
        self.size = {"slots": -1, "states": 0, "lds": 0, "scratch": 0}
        self.buffers: dict[str, ctypes.Array[ctypes.c_char]] = {}
        self.address = 0
        self._filled: tuple[object, int] | None = None

    def _room(self, name: str, size_bytes: int) -> int:
        """The aligned address of a buffer of at least that size; contents persist."""
        if name not in self.buffers or self.size[name] < size_bytes:
            self.size[name] = size_bytes
            self.buffers[name] = ctypes.create_string_buffer(size_bytes + 256)
        return (ctypes.addressof(self.buffers[name]) + 255) & ~255

    def begin(self, plan: Plan, number: int, job: int) -> int:
        """Readies it for a job, as one of several threads; returns its address."""
        self._plan = plan
        if self._filled != (plan.needs, number):
            self._fill(plan, number)
            self._filled = plan.needs, number
        struct.pack_into("<qii", self._head, 0, plan.dispatch.loop_budget, 0, 0)
        self._job.value = job
        self._work.value = 0
        return self.address

    def _fill(self, plan: Plan, number: int) -> None:
        """All but what differs between jobs of the same needs."""
        dispatch, kernel, waves = plan.dispatch, plan.kernel, plan.waves
        size = layout.CONTEXT_SLOTS + layout.SLOT_BYTES * len(kernel.kinds)
        self.address = address = self._room("slots", size)
        count = waves if kernel.has_barrier else 1
        states = self._room("states", kernel.state_bytes * count)
        if dispatch.thread_ids == "line":
            row = 4 * dispatch.wave_size
            for state in range(states, states + kernel.state_bytes * count, kernel.state_bytes):
                ctypes.memset(state + layout.STATE_VECTORS + row, 0, 2 * row)
        lds = self._room("lds", max(16, dispatch.lds_bytes))
        scratch_bytes = plan.scratch_bytes * waves
        scratch = self._room("scratch", max(16, scratch_bytes))
        head = struct.pack(
            "<qiiqqqQQQQQQQQQqQ", 0, 0, 0, 0, 0, 0,
            plan.ranges.buffer_info()[0], len(plan.ranges) // 3, lds, dispatch.lds_bytes, scratch,
            dispatch.scratch_bytes, dispatch.entry, 0, states, 0, number * scratch_bytes,
        )
        ctypes.memmove(address, head, len(head))
        ctypes.memset(address + layout.CONTEXT_ZEROS, 0, 64)
        ctypes.memmove(address + layout.CONTEXT_FUNCTIONS, self.functions, len(self.functions))
        bounds = {
            layout.LOCAL: (lds, lds + dispatch.lds_bytes),
            layout.SCRATCH: (scratch, scratch + scratch_bytes),
        }
        rows: list[int] = []
        for pc, kind in kernel.kinds:
            rows += [*bounds.get(kind, (0, 0)), pc, kind]
        slots = struct.pack(f"<{len(rows)}Q", *rows)
        ctypes.memmove(address + layout.CONTEXT_SLOTS, slots, len(slots))
        self._head = (ctypes.c_char * layout.CONTEXT_ADDRESS).from_address(address)
        self._job = ctypes.c_uint64.from_address(address + layout.CONTEXT_JOB)
        self._work = ctypes.c_int64.from_address(address + layout.CONTEXT_WORK)
        self._fault = ctypes.c_int32.from_address(address + layout.CONTEXT_FAULT)

    @property
    def work(self) -> int:
        """Waves, or their parts between barriers, and backward jumps of the job."""
        return self._work.value

    def fault(self, dispatch: Dispatch) -> Fault | None:
        """Why the job ended early, if it did in this thread."""
        if not self._fault.value:
            return None
        head = ctypes.string_at(self.address, layout.CONTEXT_FAULT_WAVE + 8)
        kind, access, address, pc = struct.unpack_from("<iiQq", head, layout.CONTEXT_FAULT)
        (wave,) = struct.unpack_from("<q", head, layout.CONTEXT_FAULT_WAVE)
        if kind == layout.FAULT_HANG:
            return Fault("hang", 0, "", wave, dispatch.entry + pc)
        return Fault("memory", address, _ACCESS[access], wave, dispatch.entry + pc)
