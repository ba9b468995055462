"""Commands to records: one block of bytes that holds a list's records and then its arguments.

Addresses inside the block (where a kernel's arguments are) are written relative to the block
and listed in `bases`, so that the same bytes can be put anywhere, several times.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from drivers.cpu.program import CpuProgram
from drivers.errors import ArgumentMismatch
from drivers.memory import Buffer
from drivers.native.layout import FIELDS, RECORD_BYTES, Compare, Opcode
from drivers.queue import (
    GRID_LIMITS,
    Barrier,
    Copy,
    Exec,
    Poll,
    Signal,
    Size,
    Stamp,
    Step,
    Wait,
    Write,
)
from drivers.timeline import Point
from drivers.variables import (
    BUFFER,
    INTEGER,
    MOMENT,
    TIMELINE,
    UNSIGNED,
    PatchTable,
    Var,
    encode_scalar,
    scalar_encoding,
)

_COMPARES = {">=": Compare.GREATER_EQUAL, "==": Compare.EQUAL}
_SLOT_BYTES = 8
_ARGUMENT_ALIGNMENT = 16


@dataclass
class EncodedList:
    """A list ready to be placed: its bytes, and what still has to be written into them."""

    block: bytearray
    record_count: int
    table: PatchTable
    bases: list[int] = field(default_factory=list)

    def place(self, address: int, memory: memoryview) -> None:
        """Copies the block to `address`, which `memory` views."""
        for offset in self.bases:
            relative = struct.unpack_from("<Q", self.block, offset)[0]
            struct.pack_into("<Q", self.block, offset, address + relative)
        memory[: len(self.block)] = self.block
        for offset in self.bases:
            absolute = struct.unpack_from("<Q", self.block, offset)[0]
            struct.pack_into("<Q", self.block, offset, absolute - address)


class Encoder:
    """Encodes one list of steps."""

    def __init__(self, device: str, steps: Sequence[Step]) -> None:
        self._device = device
        self._records = bytearray(RECORD_BYTES * len(steps))
        self._arguments = bytearray()
        self._at = 0
        self.table = PatchTable(device)
        self.bases: list[int] = []
        for index, step in enumerate(steps):
            self._at = index * RECORD_BYTES
            self._encode(step)

    def finish(self) -> EncodedList:
        """The whole block."""
        count = len(self._records) // RECORD_BYTES
        return EncodedList(self._records + self._arguments, count, self.table, self.bases)

    def _encode(self, step: Step) -> None:
        match step:
            case Exec():
                self._exec(step)
            case Wait(point):
                self._point(Opcode.WAIT, point)
            case Signal(point):
                self._point(Opcode.SIGNAL, point)
            case Stamp(timestamp):
                self._fields(Opcode.TIMESTAMP, address=timestamp.buffer.gpu_addr)
            case Barrier():
                self._fields(Opcode.BARRIER)
            case Copy():
                self._copy(step)
            case Write(buffer, value, size):
                self._fields(Opcode.WRITE, address=buffer.gpu_addr, size_bytes=size)
                self._word(Opcode.WRITE, value, size)
            case Poll(buffer, value, compare, size):
                self._fields(
                    Opcode.POLL, address=buffer.gpu_addr, size_bytes=size,
                    compare=_COMPARES[compare],
                )
                self._word(Opcode.POLL, value, size)

    def _fields(self, opcode: Opcode, **values: int) -> None:
        struct.pack_into("<I", self._records, self._at, opcode)
        for name, value in values.items():
            offset, form = FIELDS[opcode][name]
            struct.pack_into("<" + form, self._records, self._at + offset, value)

    def _offset(self, opcode: Opcode, name: str) -> int:
        return self._at + FIELDS[opcode][name][0]

    def _point(self, opcode: Opcode, point: Point | Var) -> None:
        if isinstance(point, Point):
            self._fields(opcode, timeline=point.timeline.address, value=point.value)
            return
        self._fields(opcode)
        where = f"the Point to {opcode.name.lower()}"
        self.table.add(point, TIMELINE, self._offset(opcode, "timeline"), where, minimum=1)
        self.table.add(point, MOMENT, self._offset(opcode, "value"), where, minimum=0)

    def _word(self, opcode: Opcode, value: Size, size_bytes: int) -> None:
        if isinstance(value, int):
            self._fields(opcode, value=value)
            return
        where, offset = f"the value of {opcode.name.lower()}", self._offset(opcode, "value")
        if size_bytes == 8:
            self.table.add(value, UNSIGNED, offset, where)
        else:
            self.table.add(value, INTEGER, offset, where, minimum=0, maximum=(1 << 32) - 1)

    def _copy(self, step: Copy) -> None:
        self._fields(Opcode.COPY)
        for name, buffer in (("destination", step.destination), ("source", step.source)):
            where = f"the {name} of a copy"
            if isinstance(buffer, Buffer):
                self._fields(Opcode.COPY, **{name: buffer.gpu_addr})
            else:
                self.table.add(buffer, BUFFER, self._offset(Opcode.COPY, name), where, minimum=1)
            holds = buffer.size_bytes if isinstance(buffer, Buffer) else buffer.name
            size = step.size_bytes.name if isinstance(step.size_bytes, Var) else step.size_bytes
            if not (isinstance(holds, int) and isinstance(size, int)):
                self.table.need(holds, size, where)
        if isinstance(step.size_bytes, Var):
            self.table.add(
                step.size_bytes, INTEGER, self._offset(Opcode.COPY, "size_bytes"),
                "the size of a copy", minimum=0,
            )
        else:
            self._fields(Opcode.COPY, size_bytes=step.size_bytes)

    def _exec(self, step: Exec) -> None:
        program = step.program
        if not isinstance(program, CpuProgram):
            raise ArgumentMismatch(
                f"Program {program.name} was not loaded on a processor device.",
                device=self._device, operation="exec",
            )
        self._arguments.extend(bytes(-len(self._arguments) % _ARGUMENT_ALIGNMENT))
        kernarg = len(self._records) + len(self._arguments)
        self.bases.append(self._offset(Opcode.EXEC, "kernarg"))
        self._fields(
            Opcode.EXEC, kernel=program.number, entry=program.entry_address, kernarg=kernarg
        )
        for axis, size, limit in zip("xyz", step.grid, GRID_LIMITS, strict=True):
            name = f"grid_{axis}"
            if isinstance(size, int):
                self._fields(Opcode.EXEC, **{name: size})
            else:
                self.table.add(
                    size, INTEGER, self._offset(Opcode.EXEC, name),
                    f"grid {axis} of kernel {program.name}", width=4, minimum=0, maximum=limit,
                )
        for index, argument in enumerate(step.arguments):
            param = program.code.params[index]
            where = f"argument {param.name} of kernel {program.name}"
            offset = kernarg + index * _SLOT_BYTES
            if isinstance(argument, Buffer):
                self._arguments += struct.pack("<Q", argument.gpu_addr)
            elif not isinstance(argument, Var):
                self._arguments += encode_scalar(param.dtype, argument, where, self._device)
            else:
                self._arguments += bytes(_SLOT_BYTES)
                if param.kind == "buffer":
                    self.table.add(argument, BUFFER, offset, where, minimum=1)
                else:
                    encoding, minimum, maximum = scalar_encoding(param.dtype)
                    self.table.add(
                        argument, encoding, offset, where, minimum=minimum, maximum=maximum
                    )
