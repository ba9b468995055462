"""The compute engine: PM4 packets, decoded and done (nvd.h, soc15d.h, kfdtest's packet structs).

The engine does a packet to its end before it looks at the next one. What ACQUIRE_MEM and
RELEASE_MEM do to caches shows in strict mode only. The XCCs that share an AQL queue go in step:
each does a packet, with registers of its own, before any does the next, and its share of a grid.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import NamedTuple

from autogen import pm4_nv as nv
from autogen import pm4_soc15 as soc15
from autogen.pm4_mesa import TC_OP_ATOMIC_SUB_64
from autogen.pm4_packets import PACKETS
from autogen.soc21_enum import VGT_EVENT_TYPE
from drivers.emulated.amd.clock import gpu_clock, system_clock
from drivers.emulated.amd.dispatch import Dispatcher
from drivers.emulated.amd.engine import (
    Engine,
    QueueProperties,
    check_reserved,
    extract,
    reserved_bits,
)
from drivers.emulated.amd.process import KfdProcess
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.caches import Action
from drivers.emulated.engine import BadPacket
from drivers.emulated.schedule import Comparison

Words = list[int]
TYPE_3, TYPE_2 = 3, 2
ONE_DWORD_NOP = 0x3FFF  # a NOP of this count is a header alone
IB_DEPTH_LIMIT = 2  # an indirect buffer may call one more
CHAIN_LIMIT = 1 << 16  # buffers that follow each other; more never end
BUFFERS = 256  # whose packets a queue remembers

# Fields that kfdtest's structures lack: (dword, shift, width), as Mesa writes them.
WAIT_REG_MEM64 = {
    "function": (1, 0, 3), "mem_space": (1, 4, 2), "operation": (1, 6, 2),
    "addr_lo": (2, 3, 29), "addr_hi": (3, 0, 32), "reference_lo": (4, 0, 32),
    "reference_hi": (5, 0, 32), "mask_lo": (6, 0, 32), "mask_hi": (7, 0, 32),
    "poll_interval": (8, 0, 16), "optimize_ace_offload_mode": (8, 31, 1),
}
COPY_DATA = {
    "src_sel": (1, 0, 4), "dst_sel": (1, 8, 4), "src_cache_policy": (1, 13, 2),
    "count_sel": (1, 16, 1), "wr_confirm": (1, 20, 1), "dst_cache_policy": (1, 25, 2),
    "pq_exe_status": (1, 29, 1), "src_lo": (2, 0, 32), "src_hi": (3, 0, 32),
    "dst_lo": (4, 0, 32), "dst_hi": (5, 0, 32),
}
ATOMIC_MEM = {
    "atomic": (1, 0, 7), "command": (1, 8, 2), "addr_lo": (2, 3, 29), "addr_hi": (3, 0, 32),
    "src_lo": (4, 0, 32), "src_hi": (5, 0, 32), "cmp_lo": (6, 0, 32), "cmp_hi": (7, 0, 32),
    "loop_interval": (8, 0, 13),
}
# nvd.h, PACKET3_DMA_DATA: selectors, then flags of the last dword.
DMA_DATA = {
    "engine": (1, 0, 1), "src_cache_policy": (1, 13, 2), "dst_sel": (1, 20, 2),
    "dst_cache_policy": (1, 25, 2), "src_sel": (1, 29, 2), "cp_sync": (1, 31, 1),
    "src_lo": (2, 0, 32), "src_hi": (3, 0, 32), "dst_lo": (4, 0, 32), "dst_hi": (5, 0, 32),
    "byte_count": (6, 0, 26), "src_space": (6, 26, 1), "dst_space": (6, 27, 1),
    "src_fixed": (6, 28, 1), "dst_fixed": (6, 29, 1), "raw_wait": (6, 30, 1),
}
PRED_EXEC = {"exec_count": (1, 0, 14), "device_select": (1, 24, 8)}
COND_EXEC = {"addr_lo": (1, 2, 30), "addr_hi": (2, 0, 32), "exec_count": (4, 0, 14)}
DISPATCH_INDIRECT = {"addr_lo": (1, 2, 30), "addr_hi": (2, 0, 32), "initiator": (3, 0, 32)}

# COPY_DATA: where from (autogen/pm4_mesa.py, COPY_DATA_*), where to.
SRC_REG, SRC_MEM, SRC_TC_L2, SRC_IMM, SRC_GPU_CLOCK, SRC_SYSTEM_CLOCK = 0, 1, 2, 5, 9, 10
DST_REG, DST_TC_L2, DST_MEM = 0, 2, 5

# DMA_DATA: memory as such or through the L2 cache; the source may be an immediate dword.
DMA_MEMORY, DMA_IMMEDIATE = (0, 3), 2

# RELEASE_MEM: events that end a pipe, and what it may send.
END_OF_PIPE = {
    VGT_EVENT_TYPE[name]
    for name in ("CACHE_FLUSH_TS", "CACHE_FLUSH_AND_INV_TS_EVENT", "BOTTOM_OF_PIPE_TS", "CS_DONE")
}
DATA_NONE, DATA_32, DATA_64, DATA_CLOCK = 0, 1, 2, 3
RELEASE_TO_MEMORY = 0  # dst_sel
INTERRUPTING = {1, 2, 4}  # interrupt only, after write confirm, unconditionally

SPACES = {
    nv.PACKET3_SET_SH_REG: (nv.PACKET3_SET_SH_REG_START, nv.PACKET3_SET_SH_REG_END),
    nv.PACKET3_SET_SH_REG_INDEX: (nv.PACKET3_SET_SH_REG_START, nv.PACKET3_SET_SH_REG_END),
    nv.PACKET3_SET_CONFIG_REG: (nv.PACKET3_SET_CONFIG_REG_START, nv.PACKET3_SET_CONFIG_REG_END),
    # nvd.h ends UCONFIG at 0xC400; gfx11's own registers reach to 0xF000.
    nv.PACKET3_SET_UCONFIG_REG: (nv.PACKET3_SET_UCONFIG_REG_START, 0xF000),
}


RANGE_SHIFT = 8  # ACQUIRE_MEM counts 256 bytes
COHER_SIZE_MASK = (1 << 40) - 1


class CachePackets(NamedTuple):
    """The dword of ACQUIRE_MEM and of RELEASE_MEM that names caches, and what its bits ask for."""

    acquire: tuple[int, dict[int, Action]]
    release: tuple[int, dict[int, Action]]


CACHE_PACKETS = {
    True: CachePackets(
        (7, {
            nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GLK_INV(1): Action.INVALIDATE_SCALAR,
            nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GLV_INV(1): Action.INVALIDATE_VECTOR,
            nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GL1_INV(1): Action.INVALIDATE_MIDDLE,
            nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GL2_INV(1): Action.INVALIDATE_L2,
            nv.PACKET3_ACQUIRE_MEM_GCR_CNTL_GL2_WB(1): Action.WRITE_BACK_L2,
        }),
        (1, {
            nv.PACKET3_RELEASE_MEM_GCR_GLV_INV: Action.INVALIDATE_VECTOR,
            nv.PACKET3_RELEASE_MEM_GCR_GL1_INV: Action.INVALIDATE_MIDDLE,
            nv.PACKET3_RELEASE_MEM_GCR_GL2_INV: Action.INVALIDATE_L2,
            nv.PACKET3_RELEASE_MEM_GCR_GL2_WB: Action.WRITE_BACK_L2,
        }),
    ),
    False: CachePackets(
        (1, {
            soc15.PACKET3_ACQUIRE_MEM_CP_COHER_CNTL_SH_KCACHE_ACTION_ENA(1):
                Action.INVALIDATE_SCALAR,
            soc15.PACKET3_ACQUIRE_MEM_CP_COHER_CNTL_TCL1_ACTION_ENA(1): Action.INVALIDATE_VECTOR,
            soc15.PACKET3_ACQUIRE_MEM_CP_COHER_CNTL_TC_ACTION_ENA(1): Action.INVALIDATE_L2,
            soc15.PACKET3_ACQUIRE_MEM_CP_COHER_CNTL_TC_WB_ACTION_ENA(1): Action.WRITE_BACK_L2,
        }),
        (1, {
            soc15.EOP_TCL1_ACTION_EN: Action.INVALIDATE_VECTOR,
            soc15.EOP_TC_ACTION_EN: Action.INVALIDATE_L2,
            soc15.EOP_TC_WB_ACTION_EN: Action.WRITE_BACK_L2,
        }),
    ),
}
"""By whether the board's packets are those of gfx10 and later (nvd.h), or soc15d.h's."""

UNNOTICED = {*SPACES, nv.PACKET3_INDIRECT_BUFFER}  # by other queues
SHARED = {  # handed to all chosen XCCs at once
    nv.PACKET3_INDIRECT_BUFFER, nv.PACKET3_DISPATCH_DIRECT, nv.PACKET3_DISPATCH_INDIRECT,
}


def _actions(table: dict[int, Action], word: int) -> Action:
    found = Action.NONE
    for mask, action in table.items():
        if word & mask:
            found |= action
    return found


def _wide(words: Words, low: int) -> int:
    return words[low] | words[low + 1] << 32


class ComputeEngine(Engine):
    """A PM4 compute queue."""

    kind = "compute"

    def __init__(self, process: KfdProcess, gpu: Gpu, properties: QueueProperties) -> None:
        super().__init__(process, gpu, properties)
        self.read = 0  # dwords, never wrapped
        self.ring_mask = max(properties.ring_bytes // 4, 1) - 1
        # Its page stays mapped while the queue lives.
        self.read_pointer = ctypes.c_uint32.from_address(
            self.memory.place(properties.read_pointer_address)
        )
        self.banks: list[dict[int, int]] = [{} for _ in range(self.xcc_count(gpu))]
        self.registers = self.banks[0]  # those of the XCC that does a packet
        self.dispatcher = Dispatcher(self)
        self.depth = 0  # of indirect buffers
        self.chosen = (1 << len(self.banks)) - 1  # XCCs that do packets
        self.chained: Words | None = None
        self.straight: dict[bytes, list[tuple[str, Callable[[], None]]]] = {}  # by content
        modern = gpu.board.modern_cache_packets
        packets = CACHE_PACKETS[modern]
        self.acquire_dword, self.release_dword = packets.acquire[0], packets.release[0]
        self.acquires = functools.cache(functools.partial(_actions, packets.acquire[1]))
        self.releases = functools.cache(functools.partial(_actions, packets.release[1]))
        acquire = reserved_bits(PACKETS["ACQUIRE_MEM_NV" if modern else "ACQUIRE_MEM_AI"])
        release = reserved_bits(PACKETS["RELEASE_MEM_NV" if modern else "RELEASE_MEM_AI"])
        plain = {name: reserved_bits(PACKETS[name]) for name in
                 ("DISPATCH_DIRECT", "EVENT_WRITE", "INDIRECT_BUFFER", "WAIT_REG_MEM")}
        # opcode: name, body dwords that it may have (None: any), reserved bits, what it does
        self.table: dict[int, tuple[str, tuple[int, ...] | None, tuple[int, ...] | None,
                                    Callable[[Words], None]]] = {
            nv.PACKET3_SET_SH_REG: ("SET_SH_REG", None, None, self._set_registers),
            nv.PACKET3_SET_SH_REG_INDEX: ("SET_SH_REG_INDEX", None, None, self._set_registers),
            nv.PACKET3_SET_UCONFIG_REG: ("SET_UCONFIG_REG", None, None, self._set_registers),
            nv.PACKET3_SET_CONFIG_REG: ("SET_CONFIG_REG", None, None, self._set_registers),
            nv.PACKET3_DISPATCH_DIRECT:
                ("DISPATCH_DIRECT", (4,), plain["DISPATCH_DIRECT"], self._dispatch),
            nv.PACKET3_DISPATCH_INDIRECT:
                ("DISPATCH_INDIRECT", (3,), reserved_bits(DISPATCH_INDIRECT), self._indirect),
            nv.PACKET3_EVENT_WRITE:
                ("EVENT_WRITE", (1, 3), plain["EVENT_WRITE"], self._event_write),
            nv.PACKET3_ACQUIRE_MEM:
                ("ACQUIRE_MEM", (7,) if modern else (6,), acquire, self._acquire),
            nv.PACKET3_RELEASE_MEM: ("RELEASE_MEM", (7,), release, self._release),
            nv.PACKET3_WAIT_REG_MEM:
                ("WAIT_REG_MEM", (6,), plain["WAIT_REG_MEM"], self._wait_reg_mem),
            nv.PACKET3_WAIT_REG_MEM64:
                ("WAIT_REG_MEM64", (8,), reserved_bits(WAIT_REG_MEM64), self._wait_reg_mem64),
            nv.PACKET3_WRITE_DATA: ("WRITE_DATA", None, None, self._write_data),
            nv.PACKET3_COPY_DATA: ("COPY_DATA", (5,), reserved_bits(COPY_DATA), self._copy_data),
            nv.PACKET3_ATOMIC_MEM:
                ("ATOMIC_MEM", (8,), reserved_bits(ATOMIC_MEM), self._atomic_mem),
            nv.PACKET3_DMA_DATA: ("DMA_DATA", (6,), reserved_bits(DMA_DATA), self._dma_data),
            nv.PACKET3_INDIRECT_BUFFER:
                ("INDIRECT_BUFFER", (3,), plain["INDIRECT_BUFFER"], self._indirect_buffer),
        }
        self.write_data_reserved = reserved_bits(PACKETS["WRITE_DATA"])

    def xcc_count(self, gpu: Gpu) -> int:
        """How many XCCs take its packets: a PM4 queue lives on one (kfd_mqd_manager_v9.c)."""
        return 1

    def chosen_xccs(self) -> list[int]:
        """The numbers of those that do the packet at hand."""
        return [xcc for xcc in range(len(self.banks)) if self.chosen >> xcc & 1]

    # The ring.

    def report_read_pointer(self) -> None:
        """PM4 read pointers are 32 bits, in dwords, and wrap with the ring."""
        self.read_pointer.value = self.read & self.ring_mask

    def move_ring(self, address: int, size_bytes: int) -> None:
        """Takes another ring; the pointers stay."""
        super().move_ring(address, size_bytes)
        self.ring_mask = size_bytes // 4 - 1

    def consume(self, doorbell: int) -> None:
        """The doorbell's value is the write pointer, in dwords."""
        ring = self.ring_mask + 1
        pending = doorbell - self.read
        if not pending:
            return
        if not 0 <= pending <= ring:
            raise BadPacket(
                f"the doorbell says {doorbell}, the read pointer is {self.read}, "
                f"the ring has {ring} dwords"
            )
        begin = self.read % ring
        first = min(pending, ring - begin)
        words = self.memory.words(self.properties.ring_address + 4 * begin, first)
        if first < pending:
            words += self.memory.words(self.properties.ring_address, pending - first)
        self._execute(words, self.read)
        self.dispatcher.finish()

    def wait_until(self, any_of: list[Comparison]) -> None:
        """Waits; what it waits for may come from waves of this queue. Raises as they do."""
        if not any(map(self.holds, any_of)):
            self.dispatcher.finish()
        super().wait_until(any_of)

    def _execute(self, words: Words, base: int | None) -> None:
        """Does packets in order; `base` is the read pointer of the first, None in a buffer.

        Raises BadPacket; what is not all there yet is left in the ring.
        """
        at = predicated = links = 0
        count, chosen = len(words), self.chosen
        while at < count:
            if at >= predicated:
                self.chosen = chosen
            header = words[at]
            kind = header >> 30
            if kind == TYPE_3:
                size = (header >> 16 & 0x3FFF) + 2
                opcode = header >> 8 & 0xFF
                if opcode == nv.PACKET3_NOP:
                    size = 1 if size == ONE_DWORD_NOP + 2 else size
                    at = self._step(at, size, count, base)
                    continue
                if at + size > count:
                    self._step(at, size, count, base)
                    return
                if opcode == nv.PACKET3_COND_EXEC:
                    at += self._skipped(words[at : at + size])
                elif opcode == nv.PACKET3_PRED_EXEC:
                    covered = self._choose(words[at : at + size])
                    predicated = at + size + covered
                    at += 0 if self.chosen else covered
                else:
                    self._packet(opcode, words[at : at + size])
                at = self._step(at, size, count, base)
                if self.chained is not None:
                    links += 1
                    if links > CHAIN_LIMIT:
                        raise BadPacket(f"INDIRECT_BUFFER: a chain of {links} has no end")
                    self.schedule.step(self, "INDIRECT_BUFFER")
                    words, self.chained = self.chained, None
                    at, count = 0, len(words)
            elif kind == TYPE_2:
                at = self._step(at, 1, count, base)
            else:
                raise BadPacket(f"header {header:#010x} at dword {at} is of type {kind}")
        self.chosen = chosen

    def _step(self, at: int, size: int, count: int, base: int | None) -> int:
        """Past a packet; in the ring the read pointer follows."""
        after = at + size
        if base is None:
            if after > count:
                raise BadPacket(f"a packet of {size} dwords in the last {count - at} of a buffer")
        elif after <= count:
            self.read = read = base + after
            self.read_pointer.value = read & self.ring_mask
        return after

    def _checked(self, opcode: int, words: Words) -> tuple[str, Callable[[Words], None]]:
        """A packet's name and what does it. Raises BadPacket."""
        entry = self.table.get(opcode)
        if entry is None:
            raise BadPacket(f"opcode {opcode:#04x} is none of this engine's")
        name, sizes, reserved, handler = entry
        if words[0] & 1:
            raise BadPacket(f"{name}: predication is for graphics")
        if sizes is not None and len(words) - 1 not in sizes:
            raise BadPacket(f"{name}: {len(words) - 1} body dwords, not {sizes}")
        if reserved is not None:
            check_reserved(name, words, reserved)
        return name, handler

    def _packet(self, opcode: int, words: Words) -> None:
        name, handler = self._checked(opcode, words)
        if opcode not in UNNOTICED:
            self.schedule.step(self, name)
        if opcode in SHARED or len(self.banks) == 1:
            handler(words)
            return
        for xcc in self.chosen_xccs():
            self.registers = self.banks[xcc]
            handler(words)
        self.registers = self.banks[0]

    # Registers and dispatches.

    def _set_registers(self, words: Words) -> None:
        self.registers.update(self._assigned(words))

    def _assigned(self, words: Words) -> dict[int, int]:
        """What a SET packet sets. Raises BadPacket."""
        opcode = words[0] >> 8 & 0xFF
        low, high = SPACES[opcode]
        offset, index = words[1] & 0xFFFF, words[1] >> 28
        if words[1] >> 16 & 0xFFF or (index and opcode != nv.PACKET3_SET_SH_REG_INDEX):
            raise BadPacket(f"SET register: reserved bits in {words[1]:#x}")
        values = words[2:]
        if not values or low + offset + len(values) > high:
            raise BadPacket(f"SET register: {len(values)} from {low + offset:#x}, end {high:#x}")
        return dict(enumerate(values, low + offset))

    def _dispatch(self, words: Words) -> None:
        self.dispatcher.run(words[1], words[2], words[3], words[4])

    def _indirect(self, words: Words) -> None:
        x, y, z = self.memory.words(_wide(words, 1), 3)
        self.dispatcher.run(x, y, z, words[3])

    # Caches, events, memory.

    def _event_write(self, words: Words) -> None:
        event = extract(words, PACKETS["EVENT_WRITE"]["event_type"])
        if event not in VGT_EVENT_TYPE.values():
            raise BadPacket(f"EVENT_WRITE: event {event:#x}")
        if event == VGT_EVENT_TYPE["CS_PARTIAL_FLUSH"]:
            self.dispatcher.finish()

    def _acquire(self, words: Words) -> None:
        base = _wide(words, 4) << RANGE_SHIFT
        size = (_wide(words, 2) & COHER_SIZE_MASK) << RANGE_SHIFT
        self.caches.do(self.acquires(words[self.acquire_dword]), (base, base + size))

    def _release(self, words: Words) -> None:
        fields = PACKETS["RELEASE_MEM_NV"]
        event = extract(words, fields["event_type"])
        index = extract(words, fields["event_index"])
        if event not in END_OF_PIPE or index not in (5, 6):
            raise BadPacket(f"RELEASE_MEM: event {event:#x} with index {index} ends no pipe")
        if extract(words, fields["dst_sel"]) > 1:
            raise BadPacket("RELEASE_MEM: dst_sel is neither memory nor L2")
        self.dispatcher.finish()  # the end of the pipe: every wave has ended
        self.caches.do(self.releases(words[self.release_dword]))
        through = extract(words, fields["dst_sel"]) == RELEASE_TO_MEMORY
        data_sel = extract(words, fields["data_sel"])
        interrupt = extract(words, fields["int_sel"])
        address = _wide(words, 3)
        if data_sel not in (DATA_NONE, DATA_32, DATA_64, DATA_CLOCK):
            raise BadPacket(f"RELEASE_MEM: data_sel {data_sel}")
        size = 4 if data_sel == DATA_32 else 8
        if data_sel != DATA_NONE:
            if address % size:
                raise BadPacket(f"RELEASE_MEM: {size} bytes at {address:#x}")
            value = gpu_clock() if data_sel == DATA_CLOCK else _wide(words, 5)
            self.memory.store(address, value, size, through)
        self.native.notify()
        if interrupt in INTERRUPTING:
            self.interrupt(words[7])

    def _wait_reg_mem(self, words: Words) -> None:
        fields = PACKETS["WAIT_REG_MEM"]
        operation = extract(words, fields["operation"])
        function = extract(words, fields["function"])
        if function > 6 or operation == 2:
            raise BadPacket(f"WAIT_REG_MEM: function {function}, operation {operation}")
        if operation == 1 or extract(words, fields["mem_space"]) == 0:
            self.registers[words[2]] = words[4]  # a request that is done at once: HDP flush
            return
        address = _wide(words, 2)
        if address & 3:
            raise BadPacket(f"WAIT_REG_MEM: 4 bytes at {address:#x}")
        self.wait_memory(address, 4, words[5], function, words[4])

    def _wait_reg_mem64(self, words: Words) -> None:
        function = extract(words, WAIT_REG_MEM64["function"])
        if function > 6 or extract(words, WAIT_REG_MEM64["mem_space"]) != 1:
            raise BadPacket("WAIT_REG_MEM64: only memory is compared with 64 bits")
        self.wait_memory(_wide(words, 2), 8, _wide(words, 6), function, _wide(words, 4))

    def _write_data(self, words: Words) -> None:
        if len(words) < 5:
            raise BadPacket("WRITE_DATA: no data")
        check_reserved("WRITE_DATA", words[:4], self.write_data_reserved)
        fields = PACKETS["WRITE_DATA"]
        target = extract(words, fields["dst_sel"])
        fixed = extract(words, fields["addr_incr"])
        address, data = _wide(words, 2), words[4:]
        if target == DST_REG:
            for number, value in enumerate(data):
                self.registers[words[2] + (0 if fixed else number)] = value
        elif target in (DST_TC_L2, DST_MEM):
            if address & 3:
                raise BadPacket(f"WRITE_DATA: dwords at {address:#x}")
            self.memory.store_words(address, data[-1:] if fixed else data, target == DST_MEM)
            self.native.notify()
        else:
            raise BadPacket(f"WRITE_DATA: dst_sel {target}")

    def _copy_data(self, words: Words) -> None:
        source = extract(words, COPY_DATA["src_sel"])
        target = extract(words, COPY_DATA["dst_sel"])
        size = 8 if extract(words, COPY_DATA["count_sel"]) else 4
        if source == SRC_REG:
            value = self.registers.get(words[2], 0)
            if size == 8:
                value |= self.registers.get(words[2] + 1, 0) << 32
        elif source in (SRC_MEM, SRC_TC_L2):
            value = self._load(_wide(words, 2), size, "COPY_DATA")
        elif source == SRC_IMM:
            value = _wide(words, 2)
        elif source == SRC_GPU_CLOCK:
            value = gpu_clock()
        elif source == SRC_SYSTEM_CLOCK:
            value = system_clock()
        else:
            raise BadPacket(f"COPY_DATA: src_sel {source}")
        if target == DST_REG:
            self.registers[words[4]] = value & 0xFFFFFFFF
        elif target in (DST_TC_L2, DST_MEM):
            address = _wide(words, 4)
            if address % size:
                raise BadPacket(f"COPY_DATA: {size} bytes at {address:#x}")
            self.memory.store(address, value, size, target == DST_MEM)
            self.native.notify()
        else:
            raise BadPacket(f"COPY_DATA: dst_sel {target}")

    def _atomic_mem(self, words: Words) -> None:
        operation = extract(words, ATOMIC_MEM["atomic"])
        if operation != TC_OP_ATOMIC_SUB_64:
            raise BadPacket(f"ATOMIC_MEM: operation {operation:#x} is not modelled")
        address = _wide(words, 2)
        with self.process.atomics:
            value = self._load(address, 8, "ATOMIC_MEM") - _wide(words, 4)
            self.memory.store(address, value, 8)
        self.native.notify()

    def _dma_data(self, words: Words) -> None:
        source, target = (extract(words, DMA_DATA[name]) for name in ("src_sel", "dst_sel"))
        count = extract(words, DMA_DATA["byte_count"])
        for name in ("engine", "src_space", "dst_space", "src_fixed", "dst_fixed"):
            if extract(words, DMA_DATA[name]):
                raise BadPacket(f"DMA_DATA: {name} is not modelled")
        if target not in DMA_MEMORY or source not in (*DMA_MEMORY, DMA_IMMEDIATE) or not count:
            raise BadPacket(f"DMA_DATA: {count} bytes, src_sel {source}, dst_sel {target}")
        through = target == DMA_MEMORY[0]
        if source == DMA_IMMEDIATE:
            if count % 4:
                raise BadPacket(f"DMA_DATA: {count} bytes of a dword")
            self.memory.store_words(_wide(words, 4), [words[2]] * (count // 4), through)
        else:
            self.memory.copy(_wide(words, 4), _wide(words, 2), count, through)
        self.native.notify()

    def _load(self, address: int, size: int, name: str) -> int:
        if address % size:
            raise BadPacket(f"{name}: {size} bytes at {address:#x}")
        return self.memory.load(address, size)

    # Control flow.

    def _indirect_buffer(self, words: Words) -> None:
        fields = PACKETS["INDIRECT_BUFFER"]
        size = extract(words, fields["ib_size"])
        address = _wide(words, 1)
        if not extract(words, fields["valid"]):
            raise BadPacket("INDIRECT_BUFFER: not valid")
        if address & 3 or not size or extract(words, fields["vmid"]):
            raise BadPacket(f"INDIRECT_BUFFER: {size} dwords at {address:#x}")
        content = self.memory.read(address, 4 * size)
        buffer = list(struct.unpack(f"<{size}I", content))
        if extract(words, fields["chain"]):
            if not self.depth:
                raise BadPacket("INDIRECT_BUFFER: a ring cannot be chained")
            self.chained = buffer
            return
        if self.depth == IB_DEPTH_LIMIT:
            raise BadPacket(f"INDIRECT_BUFFER: nested deeper than {IB_DEPTH_LIMIT}")
        straight = self.straight.get(content)
        if straight is None:
            if len(self.straight) == BUFFERS:
                self.straight.clear()
            straight = self.straight[content] = self._straight(buffer)
        self.depth += 1
        try:
            if not straight:
                self._execute(buffer, None)
            for name, action in straight:
                if name:
                    self.schedule.step(self, name)
                action()
        finally:
            self.depth -= 1

    def _straight(self, words: Words) -> list[tuple[str, Callable[[], None]]]:
        """The packets of a buffer that go one after the other and are all good: name and action.

        Settings of registers are joined, and have no name. Empty if it is not such a buffer.
        """
        at = 0
        steps: list[tuple[str, Callable[[], None]]] = []
        joined: dict[int, int] | None = None
        while at < len(words) and len(self.banks) == 1:
            header = words[at]
            size = (header >> 16 & 0x3FFF) + 2
            opcode = header >> 8 & 0xFF
            if header >> 30 != TYPE_3 or at + size > len(words) or opcode not in self.table:
                return []
            if opcode == nv.PACKET3_INDIRECT_BUFFER:
                return []
            packet = words[at : at + size]
            try:
                name, handler = self._checked(opcode, packet)
                values = self._assigned(packet) if opcode in SPACES else None
            except BadPacket:
                return []  # which is said when its turn comes
            if values is None:
                joined = None
                steps.append((name, functools.partial(handler, packet)))
            elif joined is None:
                joined = values
                steps.append(("", functools.partial(self.registers.update, joined)))
            else:
                joined.update(values)
            at += size
        return steps

    def _choose(self, words: Words) -> int:
        """PRED_EXEC: how many dwords behind it are for the chosen XCCs only."""
        if len(words) != 2:
            raise BadPacket(f"PRED_EXEC: {len(words) - 1} body dwords, not 1")
        check_reserved("PRED_EXEC", words, reserved_bits(PRED_EXEC))
        self.chosen &= extract(words, PRED_EXEC["device_select"])
        return extract(words, PRED_EXEC["exec_count"])

    def _skipped(self, words: Words) -> int:
        """How many dwords behind a COND_EXEC are not done."""
        if len(words) != 5:
            raise BadPacket(f"COND_EXEC: {len(words) - 1} body dwords, not 4")
        check_reserved("COND_EXEC", words, reserved_bits(COND_EXEC))
        on = self.memory.load(_wide(words, 1), 4)
        return 0 if on else extract(words, COND_EXEC["exec_count"])
