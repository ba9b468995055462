"""Commands to records: one block of bytes that holds a list's records and then its arguments.

Addresses inside the block (where a kernel's arguments are) are written relative to the block
and listed in `bases`, so that the same bytes can be put anywhere, several times.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Sequence

from drivers.cpu.program import CpuProgram
from drivers.encoded import EncodedList, encode_arguments
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
    INTEGER,
    MOMENT,
    TIMELINE,
    UNSIGNED,
    Encoding,
    PatchTable,
    Var,
    buffer_encoding,
)

_ADDRESS: Callable[[Buffer], int] = operator.attrgetter("cpu_addr")
_BUFFER = buffer_encoding(_ADDRESS)
_COMPARES = {">=": Compare.GREATER_EQUAL, "==": Compare.EQUAL}
_ARGUMENT_ALIGNMENT = 16


def _packer(opcode: Opcode) -> tuple[list[str], Callable[..., None]]:
    """The names of a record's fields in the order of one struct that packs them all."""
    form, end, names = "<I", 4, []
    for name, (offset, kind) in sorted(FIELDS[opcode].items(), key=lambda item: item[1][0]):
        form += f"{offset - end}x{kind}"
        end = offset + struct.calcsize(kind)
        names.append(name)
    return names, struct.Struct(form).pack_into


_PACKERS = {opcode: _packer(opcode) for opcode in Opcode}


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
                self._record(Opcode.TIMESTAMP, address=timestamp.buffer.cpu_addr)
            case Barrier():
                self._record(Opcode.BARRIER)
            case Copy():
                self._copy(step)
            case Write(buffer, value, size):
                self._record(
                    Opcode.WRITE, address=buffer.cpu_addr, size_bytes=size,
                    value=self._word(Opcode.WRITE, value, size),
                )
            case Poll(buffer, value, compare, size):
                self._record(
                    Opcode.POLL, address=buffer.cpu_addr, size_bytes=size,
                    value=self._word(Opcode.POLL, value, size), compare=_COMPARES[compare],
                )

    def _record(self, opcode: Opcode, **values: int) -> None:
        """Writes the present record; fields that are not given stay 0, for a Var."""
        names, pack_into = _PACKERS[opcode]
        pack_into(self._records, self._at, opcode, *[values.get(name, 0) for name in names])

    def _offset(self, opcode: Opcode, name: str) -> int:
        return self._at + FIELDS[opcode][name][0]

    def _point(self, opcode: Opcode, point: Point | Var) -> None:
        if isinstance(point, Point):
            self._record(opcode, timeline=point.timeline.address, value=point.value)
            return
        self._record(opcode)
        where = f"the Point to {opcode.name.lower()}"
        self.table.add(point, TIMELINE, self._offset(opcode, "timeline"), where, minimum=1)
        self.table.add(point, MOMENT, self._offset(opcode, "value"), where, minimum=0)

    def _word(self, opcode: Opcode, value: Size, size_bytes: int) -> int:
        """The value of a write or poll; 0 for a Var, which is put into the table."""
        if isinstance(value, int):
            return value
        where, offset = f"the value of {opcode.name.lower()}", self._offset(opcode, "value")
        if size_bytes == 8:
            self.table.add(value, UNSIGNED, offset, where)
        else:
            self.table.add(value, INTEGER, offset, where, minimum=0, maximum=(1 << 32) - 1)
        return 0

    def _copy(self, step: Copy) -> None:
        given: dict[str, int] = {}
        size = step.size_bytes
        for name, buffer in (("destination", step.destination), ("source", step.source)):
            where = f"the {name} of a copy"
            if isinstance(buffer, Buffer):
                given[name] = buffer.cpu_addr
            else:
                self.table.add(buffer, _BUFFER, self._offset(Opcode.COPY, name), where, minimum=1)
            if isinstance(buffer, Var) or isinstance(size, Var):
                holds = buffer.name if isinstance(buffer, Var) else buffer.size_bytes
                self.table.need(holds, size.name if isinstance(size, Var) else size, where)
        if isinstance(size, Var):
            offset = self._offset(Opcode.COPY, "size_bytes")
            self.table.add(size, INTEGER, offset, "the size of a copy", minimum=0)
        else:
            given["size_bytes"] = size
        self._record(Opcode.COPY, **given)

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
        blocks = [0, 0, 0]
        for axis, size in enumerate(step.grid):
            if isinstance(size, int):
                blocks[axis] = size
            else:
                self._grid_var(program, axis, size)
        self._record(
            Opcode.EXEC, kernel=program.number, entry=program.entry_address, kernarg=kernarg,
            grid_x=blocks[0], grid_y=blocks[1], grid_z=blocks[2],
        )

        def leave_open(
            var: Var, encoding: Encoding, offset: int, where: str, minimum: int, maximum: int
        ) -> None:
            self.table.add(
                var, encoding, kernarg + offset, where, minimum=minimum, maximum=maximum
            )

        self._arguments += encode_arguments(step, self._device, _ADDRESS, leave_open)

    def _grid_var(self, program: CpuProgram, axis: int, var: Var) -> None:
        letter, limit = "xyz"[axis], GRID_LIMITS[axis]
        self.table.add(
            var, INTEGER, self._offset(Opcode.EXEC, f"grid_{letter}"),
            f"grid {letter} of kernel {program.name}", width=4, minimum=0, maximum=limit,
        )
