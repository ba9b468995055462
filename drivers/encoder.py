"""What encoders of GPUs' queues share: the walk over steps, places of Vars, copies that overlap.

An encoder appends dwords to `words`. What a replay changes is left open in the patch table; a
list whose *shape* depends on Vars (a copy's packets, a wait that a 32-bit comparison must
widen) is `fluid`: it is encoded anew for each replay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from drivers.encoded import EncodedList
from drivers.errors import ArgumentMismatch
from drivers.memory import Buffer, Storage
from drivers.queue import (
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
from drivers.variables import INTEGER, UNSIGNED, Encoding, PatchTable, Var

if TYPE_CHECKING:
    from drivers.gpu import GpuProgram
    from drivers.ringqueue import RingQueue

ALL_32 = (1 << 32) - 1
Kind = TypeVar("Kind", bound="GpuProgram")


def is_fluid(steps: Sequence[Step], wait_bits: int) -> bool:
    """Whether the list must be encoded anew for each replay."""
    for step in steps:
        if isinstance(step, Copy) and any(
            isinstance(each, Var) for each in (step.destination, step.source, step.size_bytes)
        ):
            return True
        if wait_bits < 64 and isinstance(step, Wait):
            return True
    return False


def variables_of(steps: Sequence[Step]) -> list[str]:
    """The names of the Vars in a list, each once, in order."""
    found: dict[str, None] = {}
    for step in steps:
        for name in step.__dataclass_fields__:
            value = getattr(step, name)
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, Var):
                    found[each.name] = None
    return list(found)


class StepEncoder(ABC):
    """Encodes one list of steps. `values` are those of Vars in a fluid list."""

    queue: RingQueue

    def __init__(
        self, queue: RingQueue, steps: Sequence[Step], values: dict[str, Any] | None = None
    ) -> None:
        self.queue, self.device = queue, queue.device
        self.words: list[int] = []
        self.table = PatchTable(self.device.name)
        self.keep: list[Storage] = []
        self._values = values or {}
        if steps and not isinstance(steps[0], (Wait, Barrier)):  # those begin so themselves
            self.begin()
        for step in steps:
            self.encode(step)

    @abstractmethod
    def begin(self) -> None:
        """Sees what was written before the list was submitted."""

    @abstractmethod
    def finish(self) -> EncodedList:
        """The whole block."""

    def encode(self, step: Step) -> None:
        """Appends the packets of one step."""
        match step:
            case Exec():
                self.exec(step)
            case Wait(point):
                self.wait(point)
            case Signal(point):
                self.signal(point)
            case Stamp(timestamp):
                self.stamp(self.device.reachable(timestamp.buffer))
            case Barrier():
                self.barrier()
            case Copy():
                self.copy(step)
            case Write(buffer, value, size):
                self.write(self.device.reachable(buffer), value, size)
            case Poll(buffer, value, compare, size):
                self.poll(self.device.reachable(buffer), value, size, compare)

    def leave_open(
        self, var: Var, encoding: Encoding, word: int, where: str, **limits: int
    ) -> None:
        """Leaves a dword, or two, of the packets to a Var."""
        self.table.add(var, encoding, 4 * word, where, **limits)

    def word(self, value: Size, size_bytes: int, at: int, what: str) -> None:
        """Puts the value of a write or poll at a dword: now, or at replay."""
        if isinstance(value, int):
            return
        where = f"the value of {what}"
        if size_bytes == 8:
            self.leave_open(value, UNSIGNED, at, where)
        else:
            self.leave_open(
                value, INTEGER, at, where, width=4, minimum=0, maximum=ALL_32
            )

    def given(self, value: Any, kind: type, what: str) -> Any:
        """A value that may be a Var of a fluid list, and then must be of a type."""
        if not isinstance(value, Var):
            return value
        found = self._values[value.name]
        if not isinstance(found, kind):
            raise ArgumentMismatch(
                f"The Var {value.name!r} takes {what}, not {found!r}.",
                device=self.device.name, operation="replay",
            )
        return found

    def copy(self, step: Copy) -> None:
        """A copy, whose buffers may overlap: then it goes through memory of its own."""
        size = int(self.given(step.size_bytes, int, "an integer"))
        target = self.given(step.destination, Buffer, "a Buffer")
        source = self.given(step.source, Buffer, "a Buffer")
        for where, buffer in (("destination", target), ("source", source)):
            if not 0 <= size <= buffer.size_bytes:
                raise ArgumentMismatch(
                    f"the {where} of a copy is {size} bytes, but the buffer has "
                    f"{buffer.size_bytes} bytes.",
                    device=self.device.name, operation="replay",
                )
        start, end = self.device.reachable(source), self.device.reachable(target)
        if not size or start == end:
            return
        if abs(start - end) < size:
            between = self.device.allocator.allocate(size)
            self.keep.append(between)
            self.copy_apart(between.address, start, size)
            self.barrier()
            start = between.address
        self.copy_apart(end, start, size)

    def in_pieces(self, size_bytes: int, limit: int) -> list[tuple[int, int]]:
        """Offsets and sizes of pieces of at most `limit` bytes."""
        return [(at, min(limit, size_bytes - at)) for at in range(0, size_bytes, limit)]

    def check_kernel(self, step: Exec, kind: type[Kind]) -> Kind:
        """The step's program, if it is this device's."""
        program, device = step.program, self.device
        if not isinstance(program, kind) or program.device_name != device.name:
            raise ArgumentMismatch(
                f"Program {program.name} was not loaded on {device.name}.",
                device=device.name, operation="exec",
            )
        return program

    def refuse_kernel(self, step: Exec) -> ArgumentMismatch:
        """The error for a kernel on a copy queue."""
        return ArgumentMismatch(
            f"Kernel {step.program.name} cannot run on {self.queue.timeline.name}: a copy queue "
            "of this device only copies.",
            device=self.device.name, operation="exec",
            remedy="Use dev.compute_queue().",
        )

    @abstractmethod
    def exec(self, step: Exec) -> None:
        """Runs a kernel."""

    @abstractmethod
    def wait(self, point: Point | Var) -> None:
        """Waits for a Point."""

    @abstractmethod
    def signal(self, point: Point | Var) -> None:
        """Moves a timeline, and interrupts the host."""

    @abstractmethod
    def stamp(self, address: int) -> None:
        """Writes the clock."""

    @abstractmethod
    def barrier(self) -> None:
        """Everything before is finished and visible."""

    @abstractmethod
    def copy_apart(self, target: int, source: int, size_bytes: int) -> None:
        """Copies between places that do not overlap."""

    @abstractmethod
    def write(self, address: int, value: Size, size_bytes: int) -> None:
        """Writes a word."""

    @abstractmethod
    def poll(self, address: int, value: Size, size_bytes: int, compare: str) -> None:
        """Waits for a word."""
