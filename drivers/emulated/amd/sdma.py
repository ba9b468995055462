"""The copy engine: SDMA packets, decoded and done (vega10, navi10, sdma_v6_0_0 *_pkt_open.h).

Pointers count bytes and never wrap; sizes are in bytes minus one. The packet layouts of a
generation are the tables of its header.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

from autogen.sdma_rocr import SDMA_SUBOP_USER_GCR
from drivers.emulated.amd.clock import gpu_clock
from drivers.emulated.amd.engine import (
    Engine,
    QueueProperties,
    check_reserved,
    extract,
    reserved_bits,
)
from drivers.emulated.amd.process import KfdProcess
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.engine import BadPacket

Words = list[int]
Fields = dict[str, tuple[int, ...]]

RETRY_FOREVER = 0xFFF
IB_ALIGNMENT_BYTES = 32
IB_NEXT_ALIGNMENT_DWORDS = 8


def _wide(words: Words, low: int) -> int:
    return words[low] | words[low + 1] << 32


class SdmaEngine(Engine):
    """An SDMA queue."""

    kind = "SDMA"
    through_caches = False

    def __init__(self, process: KfdProcess, gpu: Gpu, properties: QueueProperties) -> None:
        super().__init__(process, gpu, properties)
        self.read = 0  # bytes, never wrapped
        # Its page stays mapped while the queue lives.
        self.read_pointer = ctypes.c_uint64.from_address(
            self.memory.place(properties.read_pointer_address)
        )
        header: Any = importlib.import_module(f"autogen.{gpu.board.sdma_packets}")
        self.header = header
        self.fields: dict[str, Fields] = header.PACKETS
        # (operation, sub-operation): layout, what it does
        handlers: dict[tuple[int, int], tuple[str, Callable[[Words], None]]] = {
            (header.SDMA_OP_COPY, header.SDMA_SUBOP_COPY_LINEAR): ("COPY_LINEAR", self._copy),
            (header.SDMA_OP_WRITE, header.SDMA_SUBOP_WRITE_LINEAR):
                ("WRITE_UNTILED", self._write),
            (header.SDMA_OP_INDIRECT, 0): ("INDIRECT", self._indirect),
            (header.SDMA_OP_FENCE, 0): ("FENCE", self._fence),
            (header.SDMA_OP_TRAP, 0): ("TRAP", self._trap),
            (header.SDMA_OP_POLL_REGMEM, 0): ("POLL_REGMEM", self._poll),
            (header.SDMA_OP_CONST_FILL, 0): ("CONSTANT_FILL", self._fill),
            (header.SDMA_OP_ATOMIC, 0): ("ATOMIC", self._atomic),
            (header.SDMA_OP_TIMESTAMP, header.SDMA_SUBOP_TIMESTAMP_GET_GLOBAL):
                ("TIMESTAMP_GET_GLOBAL", self._timestamp),
            (header.SDMA_OP_SRBM_WRITE, 0): ("SRBM_WRITE", self._ignore),
        }
        if hasattr(header, "SDMA_OP_GCR_REQ"):  # the kernel's and a program's
            for sub in (0, SDMA_SUBOP_USER_GCR):
                handlers[header.SDMA_OP_GCR_REQ, sub] = ("GCR_REQ", self._ignore)
        self.handlers = {
            key: (name, self._size(name), reserved_bits(self.fields[name]), handler)
            for key, (name, handler) in handlers.items()
        }
        self.in_buffer = False

    def _size(self, name: str) -> int:
        """Dwords of a packet, without the data that may follow."""
        return max(place[0] for place in self.fields[name].values()) + 1

    def report_read_pointer(self) -> None:
        """SDMA read pointers are 64 bits, in bytes."""
        self.read_pointer.value = self.read

    def consume(self, doorbell: int) -> None:
        """The doorbell's value is the write pointer, in bytes."""
        ring = self.properties.ring_bytes
        pending = doorbell - self.read
        if not pending:
            return
        if not 0 <= pending <= ring or doorbell % 4:
            raise BadPacket(
                f"the doorbell says {doorbell}, the read pointer is {self.read}, "
                f"the ring has {ring} bytes"
            )
        begin = self.read % ring
        first = min(pending, ring - begin)
        words = self.memory.words(self.properties.ring_address + begin, first // 4)
        if first < pending:
            words += self.memory.words(self.properties.ring_address, (pending - first) // 4)
        self._execute(words, self.read)

    def _execute(self, words: Words, base: int | None) -> None:
        """Does packets in order; `base` is the read pointer of the first, None in a buffer."""
        at, count = 0, len(words)
        while at < count:
            size = self._packet_size(words, at)
            if at + size > count:
                if base is None:
                    raise BadPacket(f"a packet of {size} dwords in the last {count - at}")
                return
            self._packet(words[at : at + size], at, base)
            at += size
            if base is not None:
                self.read = base + 4 * at
                self.report_read_pointer()

    def _packet_size(self, words: Words, at: int) -> int:
        header = words[at]
        operation, sub = header & 0xFF, header >> 8 & 0xFF
        if operation == self.header.SDMA_OP_NOP:
            return 1 + extract(words[at:at + 1], self.fields["NOP"]["count"])
        if operation == self.header.SDMA_OP_COND_EXE:
            return self._size("COND_EXE")
        if operation == self.header.SDMA_OP_ATOMIC:
            sub = 0
        entry = self.handlers.get((operation, sub))
        if entry is None:
            raise BadPacket(f"operation {operation}.{sub} is none of this engine's")
        name, size, _, _ = entry
        if name == "WRITE_UNTILED" and at + size <= len(words):
            size += extract(words[at : at + size], self.fields[name]["count"])
        return size

    def _packet(self, words: Words, at: int, base: int | None) -> None:
        operation, sub = words[0] & 0xFF, words[0] >> 8 & 0xFF
        if operation == self.header.SDMA_OP_NOP:
            return
        if operation == self.header.SDMA_OP_ATOMIC:
            sub = 0
        if operation == self.header.SDMA_OP_COND_EXE:
            raise BadPacket("COND_EXE is not modelled")
        name, size, reserved, handler = self.handlers[operation, sub]
        check_reserved(name, words[:size], reserved)
        if name == "INDIRECT":
            position = (base or 0) // 4 + at + size
            if self.in_buffer or base is None:
                raise BadPacket("INDIRECT: an indirect buffer calls no other")
            if position % IB_NEXT_ALIGNMENT_DWORDS:
                raise BadPacket(f"INDIRECT: ends at dword {position}, not at a multiple of 8")
        else:
            self.schedule.step(self, name)
        handler(words)

    def _field(self, name: str, field: str, words: Words) -> int:
        return extract(words, self.fields[name][field])

    def _ignore(self, words: Words) -> None:
        pass

    def _copy(self, words: Words) -> None:
        self.memory.copy(_wide(words, 5), _wide(words, 3),
                         self._field("COPY_LINEAR", "count", words) + 1)
        self.native.notify()

    def _write(self, words: Words) -> None:
        count = self._field("WRITE_UNTILED", "count", words) + 1
        address = _wide(words, 1)
        if address & 3:
            raise BadPacket(f"WRITE: dwords at {address:#x}")
        self.memory.store_words(address, words[4 : 4 + count])
        self.native.notify()

    def _fill(self, words: Words) -> None:
        size = 1 << self._field("CONSTANT_FILL", "fillsize", words)
        count = self._field("CONSTANT_FILL", "count", words) + 1
        address = _wide(words, 1)
        if size == 8 or address % size or (size == 4 and count % 4):
            raise BadPacket(f"CONST_FILL: {count} bytes at {address:#x} in steps of {size}")
        pattern = words[3].to_bytes(4, "little")[:size]
        self.memory.write(address, pattern * (count // size))
        self.native.notify()

    def _fence(self, words: Words) -> None:
        address = _wide(words, 1)
        if address & 3:
            raise BadPacket(f"FENCE: 4 bytes at {address:#x}")
        self.memory.store(address, words[3], 4)
        self.native.notify()

    def _trap(self, words: Words) -> None:
        self.interrupt(self._field("TRAP", "int_context", words))

    def _timestamp(self, words: Words) -> None:
        self.memory.store(_wide(words, 1), gpu_clock(), 8)
        self.native.notify()

    def _poll(self, words: Words) -> None:
        function = self._field("POLL_REGMEM", "func", words)
        if function > 6:
            raise BadPacket(f"POLL_REGMEM: function {function}")
        if not self._field("POLL_REGMEM", "mem_poll", words):
            return  # a register: the HDP flush that it waits for is done at once
        address = _wide(words, 1)
        if address & 3:
            raise BadPacket(f"POLL_REGMEM: 4 bytes at {address:#x}")
        self.wait_memory(address, 4, words[4], function, words[3])

    def _atomic(self, words: Words) -> None:
        operation = self._field("ATOMIC", "atomic_op", words)
        size = ATOMIC_ADDS.get(operation)
        if size is None:
            raise BadPacket(f"ATOMIC: operation {operation} is not modelled")
        address = _wide(words, 1)
        if address % size:
            raise BadPacket(f"ATOMIC: {size} bytes at {address:#x}")
        with self.process.atomics:
            value = self.memory.load(address, size) + _wide(words, 3)
            self.memory.store(address, value, size)
        self.native.notify()

    def _indirect(self, words: Words) -> None:
        address = _wide(words, 1)
        size = self._field("INDIRECT", "ib_size", words)
        if address % IB_ALIGNMENT_BYTES or not size:
            raise BadPacket(f"INDIRECT: {size} dwords at {address:#x}")
        self.in_buffer = True
        try:
            self._execute(self.memory.words(address, size), None)
        finally:
            self.in_buffer = False


# TC_OP_ATOMIC_ADD_RTN_32 and _64, and those that return nothing (vega10_enum.h): bytes.
ATOMIC_ADDS = {15: 4, 47: 8, 79: 4, 111: 8}
