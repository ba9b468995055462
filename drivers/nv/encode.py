"""Steps to methods: a block of bytes with a list's methods, then QMDs and constant banks.

The methods run as one GPFIFO entry. Between kernels the compute engine waits until it is idle;
where the work goes from one engine to the other, the channel waits for the one that it leaves.
Semaphores are the channel's own, 64 bits wide, and released when the last engine is idle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from drivers.encoded import EncodedList, aligned, encode_arguments
from drivers.encoder import StepEncoder
from drivers.errors import ArgumentMismatch
from drivers.fields import Field, Layout, Piece, put
from drivers.nv.channel import LENGTH_LIMIT
from drivers.nv.program import NvProgram
from drivers.queue import GRID_LIMITS, Exec, Size, Step
from drivers.timeline import Point
from drivers.variables import INTEGER, MOMENT, Encoding, Var

if TYPE_CHECKING:
    from drivers.nv.device import NvDevice
    from drivers.nv.queue import NvQueue

ALIGNMENT: Final = 256
"""Of QMDs and constant banks."""
_COPY_BYTES: Final = 1 << 30  # of one launch; LINE_LENGTH_IN has 32 bits
_COMPARE: Final = {">=": "ACQ_STRICT_GEQ", "==": "ACQUIRE"}
_QMD_SHIFT: Final = 8  # SEND_PCAS_A.QMD_ADDRESS_SHIFTED8
_ALL_SMS: Final = {"SET_SHADER_LOCAL_MEMORY_NON_THROTTLED_C.MAX_SM_COUNT": 0xFF}
_AXES: Final = ("GRID_WIDTH", "GRID_HEIGHT", "GRID_DEPTH")


def _moved(places: Field, dwords: int) -> Field:
    """A field of a structure that starts so many dwords later."""
    return tuple(replace(piece, dword=piece.dword + dwords) for piece in places)


@dataclass
class NvList(EncodedList):
    """A list whose methods and QMDs refer to places in its own block.

    `references` are fields of the block and the bytes that they refer to.
    """

    references: list[tuple[Field, int]] = field(default_factory=list)

    def place(self, address: int, memory: memoryview) -> None:
        """Copies the block to `address`, which `memory` views."""
        words = list(struct.unpack(f"<{len(self.block) // 4}I", self.block))
        for places, target in self.references:
            put(words, places, address + target, "an address in a list")
        memory[: len(self.block)] = struct.pack(f"<{len(words)}I", *words)


class NvEncoder(StepEncoder):
    """Methods for one channel."""

    queue: NvQueue
    device: NvDevice

    def __init__(
        self, queue: NvQueue, steps: Sequence[Step], values: dict[str, Any] | None = None
    ) -> None:
        self._methods = queue.device.gpu.generation.methods
        self._data = bytearray()
        self._pcas: list[tuple[int, int]] = []  # the dword that takes a QMD's address, and the QMD
        self._banks: list[tuple[int, int]] = []  # a QMD and its constant bank, in the data
        self._late: list[tuple[Any, ...]] = []  # patches of the data, whose place comes last
        self._busy = ""  # the engine that may have work of this list
        super().__init__(queue, steps, values)

    def begin(self) -> None:
        """Nothing: each launch invalidates what it reads through, and the tail has waited."""

    def finish(self) -> NvList:
        """The whole block."""
        if not self.words:
            self.add(self._methods.host.nothing)
        count = len(self.words)
        if count > LENGTH_LIMIT:
            raise ArgumentMismatch(
                f"A list has {count} dwords of methods; the limit is {LENGTH_LIMIT}.",
                device=self.device.name, operation="record",
                remedy="Submit it in several parts.",
            )
        start = aligned(4 * count, ALIGNMENT)
        block = bytearray(start + aligned(len(self._data), 4))
        struct.pack_into(f"<{count}I", block, 0, *self.words)
        block[start : start + len(self._data)] = self._data
        for var, encoding, offset, where, limits in self._late:
            self.table.add(var, encoding, start + offset, where, **limits)
        references: list[tuple[Field, int]] = [
            ((Piece(word, 0, 32, _QMD_SHIFT),), start + qmd) for word, qmd in self._pcas
        ]
        buffer = self.device.gpu.generation.qmd.fields["CONSTANT_BUFFER_ADDR"]
        references += [
            (_moved(buffer, (start + qmd) // 4), start + bank) for qmd, bank in self._banks
        ]
        return NvList(block, count, self.table, alignment=ALIGNMENT, references=references)

    def add(self, layout: Layout, **values: int) -> int:
        """Appends a packet; returns the number of its first dword."""
        at = len(self.words)
        self.words += layout(**values).encode()
        return at

    def _turn_to(self, engine: str) -> None:
        """Waits for the other engine's work, and for this one's kernels."""
        if self._busy and self._busy != engine:
            self.barrier()
        elif self._busy == "compute":
            self.add(self._methods.compute.wait_for_idle)
        self._busy = engine

    def exec(self, step: Exec) -> None:
        """A QMD, its constant bank, and the methods that launch it."""
        if self.queue.kind != "compute":
            raise self.refuse_kernel(step)
        program = self.check_kernel(step, NvProgram)
        sizes = [
            self._values.get(size.name) if isinstance(size, Var) else size for size in step.grid
        ]
        if 0 in sizes:
            return
        compute = self._methods.compute
        self._turn_to("compute")
        if program.local_bytes:
            area = self.queue.local_memory(program.local_bytes)
            self.keep.append(area.storage)
            self.add(compute.local_size, size=area.bytes_per_tpc, **_ALL_SMS)
            self.add(compute.local_memory, address=area.address)
        at = self.add(compute.qmd)
        self._pcas.append((at + 1, self._launch_data(program, step)))
        self.add(compute.launch, **compute.launch_values)

    def _append_data(self, content: bytes | bytearray) -> int:
        self._data.extend(bytes(-len(self._data) % ALIGNMENT))
        at = len(self._data)
        self._data += content
        return at

    def _launch_data(self, program: NvProgram, step: Exec) -> int:
        """Appends the QMD and the constant bank of a launch; where the QMD is in the data."""
        fields = self.device.gpu.generation.qmd.fields
        words = list(program.qmd_words)
        for name, size in zip(_AXES, step.grid, strict=True):
            if isinstance(size, int):
                put(words, fields[name], size, name)
        qmd_at = self._append_data(struct.pack(f"<{len(words)}I", *words))
        late: list[tuple[Any, ...]] = []

        def leave(
            var: Var, encoding: Encoding, offset: int, where: str, minimum: int, maximum: int
        ) -> None:
            late.append((var, encoding, offset, where, {"minimum": minimum, "maximum": maximum}))

        arguments = bytes(encode_arguments(step, self.device.name, self.device.reachable, leave))
        bank_at = self._append_data(program.bank(step.grid, arguments))
        self._banks.append((qmd_at, bank_at))
        base = bank_at + program.arguments_at
        self._late += [(var, e, base + offset, *rest) for var, e, offset, *rest in late]
        for axis, size in enumerate(step.grid):
            if not isinstance(size, Var):
                continue
            where = f"grid {'xyz'[axis]} of kernel {program.name}"
            limits = {"width": 4, "minimum": 0, "maximum": GRID_LIMITS[axis]}
            for place in (
                qmd_at + 4 * fields[_AXES[axis]][0].dword, bank_at + program.grid_at + 4 * axis,
            ):
                self._late.append((size, INTEGER, place, where, limits))
        return qmd_at

    # ---- semaphores ----

    def _semaphore(self, address: int, payload: int, operation: str, **flags: int) -> int:
        host = self._methods.host
        return self.add(
            host.semaphore, address=address, payload=payload, **{
                "SEM_EXECUTE.OPERATION": host.operations[operation],
                **{f"SEM_EXECUTE.{name}": value for name, value in flags.items()},
            },
        )

    def _release(self, address: int, payload: int, **flags: int) -> int:
        """Writes when all before is finished."""
        return self._semaphore(address, payload, "RELEASE", RELEASE_WFI=1, **flags)

    def _leave_point(self, point: Var, at: int, where: str) -> None:
        semaphore = self._methods.host.semaphore
        self.leave_open(
            point, self.queue.bridge.encoding, at + semaphore.dword_of("SEM_ADDR_LO"), where,
            minimum=1,
        )
        self.leave_open(
            point, MOMENT, at + semaphore.dword_of("SEM_PAYLOAD_LO"), where, minimum=0
        )

    def wait(self, point: Point | Var) -> None:
        """Lets others of the group run until the timeline is there."""
        address, value = self._place_of(point)
        at = self._semaphore(
            address, value, "ACQ_STRICT_GEQ", PAYLOAD_SIZE=1, ACQUIRE_SWITCH_TSG=1
        )
        if isinstance(point, Var):
            self._leave_point(point, at, "the Point to wait")

    def signal(self, point: Point | Var) -> None:
        """Writes the value when all before is finished."""
        address, value = self._place_of(point)
        at = self._release(address, value, PAYLOAD_SIZE=1)
        if isinstance(point, Var):
            self._leave_point(point, at, "the Point to signal")

    def _place_of(self, point: Point | Var) -> tuple[int, int]:
        if isinstance(point, Var):
            return 0, 0
        return self.queue.bridge.reachable(point), point.value

    def stamp(self, address: int) -> None:
        """16 bytes: a word, and the GPU's clock in ns, when all before is finished."""
        self._release(address, 1, PAYLOAD_SIZE=1, RELEASE_TIMESTAMP=1)

    def barrier(self) -> None:
        """The channel waits until the engine it last gave work is idle."""
        self.add(self._methods.host.wait_for_idle, **{"WFI.SCOPE": 1})
        self._busy = ""

    def write(self, address: int, value: Size, size_bytes: int) -> None:
        """Writes 4 or 8 bytes when all before is finished."""
        self._word(self._release, address, value, size_bytes, "write")

    def poll(self, address: int, value: Size, size_bytes: int, compare: str) -> None:
        """Lets others of the group run until memory compares as asked."""

        def acquire(address: int, payload: int, **flags: int) -> int:
            return self._semaphore(
                address, payload, _COMPARE[compare], ACQUIRE_SWITCH_TSG=1, **flags
            )

        self._word(acquire, address, value, size_bytes, "poll")

    def _word(
        self, semaphore: Callable[..., int], address: int, value: Size, size_bytes: int, what: str
    ) -> None:
        number = value if isinstance(value, int) else 0
        at = semaphore(address, number, PAYLOAD_SIZE=int(size_bytes == 8))
        place = at + self._methods.host.semaphore.dword_of("SEM_PAYLOAD_LO")
        self.word(value, size_bytes, place, what)

    # ---- copies ----

    def copy_apart(self, target: int, source: int, size_bytes: int) -> None:
        """As many launches as it takes; each waits for the one before it."""
        copy = self._methods.copy
        self._turn_to("copy")
        for at, size in self.in_pieces(size_bytes, _COPY_BYTES):
            self.add(copy.place, source=source + at, destination=target + at)
            self.add(copy.size, LINE_LENGTH_IN=size, LINE_COUNT=1)
            self.add(copy.launch, **copy.linear)
