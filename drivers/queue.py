"""The public queue API, the same for every device: record, submit, bind, replay, wait.

    with open_device("LLVM") as dev:
        a, b = dev.alloc(4096), dev.alloc(4096)
        prog = dev.load(code_object)
        t0, t1 = dev.timestamps(2)
        q = dev.compute_queue()
        c = q.commands()
        c.timestamp(t0).exec(prog, (a, b.view(256), Var("n")), grid=(Var("g"), 1, 1)).timestamp(t1)
        point = c.submit(n=1024, g=4)
        point.wait(timeout_ms=1000)
        bound = c.bind()
        point = bound.replay(n=37, g=3)

Commands of one queue run in order, each to its end; queues run beside each other. A recorder
checks every argument when it is recorded, and a Var when its value is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from compiler.code_object import CodeObject, Param
from drivers.errors import ArgumentMismatch, NotYetWritten
from drivers.memory import Buffer
from drivers.timeline import Point, Timeline
from drivers.variables import Var, encode_scalar

Argument: TypeAlias = "Buffer | Var | int | float | bool"
Size: TypeAlias = "int | Var"
Grid: TypeAlias = "tuple[Size, Size, Size]"
Origin: TypeAlias = "tuple[str, int]"
"""A file and line of the user's program."""

GRID_LIMITS = ((1 << 31) - 1, 65535, 65535)
"""The most blocks along x, y and z."""


class Timestamp:
    """A place where a queue writes the time, in nanoseconds of one clock of the device."""

    __slots__ = ("buffer", "_view")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self._view = buffer.cpu_view().cast("Q")
        self._view[0] = 0

    @property
    def value_ns(self) -> int:
        """The time that was written; wait for the list's Point first."""
        if not self._view[0]:
            raise NotYetWritten(
                "This timestamp has not been written yet.",
                device=self.buffer.device,
                operation="timestamp",
                remedy="Wait for the Point of the list that writes it.",
            )
        return self._view[0]


class Program(ABC):
    """A code object in a device's executable memory; holds it for as long as it is held."""

    code: CodeObject

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.code.name


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits for a Point of any device."""

    point: Point | Var


@dataclass(frozen=True, slots=True)
class Signal:
    """Brings a timeline that is not a queue's own to a Point."""

    point: Point | Var


@dataclass(frozen=True, slots=True)
class Stamp:
    """Writes the time."""

    timestamp: Timestamp


@dataclass(frozen=True, slots=True)
class Barrier:
    """Everything before it is finished and visible before anything after it starts."""


@dataclass(frozen=True, slots=True)
class Exec:
    """Runs a kernel: `grid` counts blocks."""

    program: Program
    arguments: tuple[Argument, ...]
    grid: Grid
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """Copies bytes between buffers, which may overlap."""

    destination: Buffer | Var
    source: Buffer | Var
    size_bytes: Size


@dataclass(frozen=True, slots=True)
class Write:
    """Writes a 4- or 8-byte value."""

    buffer: Buffer
    value: Size
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Poll:
    """Waits until a 4- or 8-byte value in memory compares as asked."""

    buffer: Buffer
    value: Size
    compare: str
    size_bytes: int


Step: TypeAlias = "Wait | Signal | Stamp | Barrier | Exec | Copy | Write | Poll"


class Commands:
    """Records commands for one queue; every method returns the recorder, to chain.

    A recorder may be submitted or bound any number of times. It holds what it refers to.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._steps: list[Step] = []

    def wait(self, point: Point | Var) -> Commands:
        """Lets the queue, not the caller, wait for a Point of any queue or timeline."""
        self._expect(point, (Point, Var), "wait takes a Point or a Var")
        return self._add(Wait(point))

    def signal(self, point: Point | Var) -> Commands:
        """Reaches a Point of `dev.timeline()`: how to mark a place in the middle of a list."""
        self._expect(point, (Point, Var), "signal takes a Point or a Var")
        if isinstance(point, Point) and point.timeline.describe is not None:
            raise self._error(
                f"{point.timeline.name} belongs to a queue, which alone signals it.",
                remedy="Signal a timeline made with dev.timeline().",
            )
        return self._add(Signal(point))

    def timestamp(self, timestamp: Timestamp) -> Commands:
        """Writes the time at which everything recorded before has finished."""
        self._expect(timestamp, (Timestamp,), "timestamp takes one of dev.timestamps(n)")
        return self._add(Stamp(timestamp))

    def barrier(self) -> Commands:
        """Makes what follows see everything before it, host writes included."""
        return self._add(Barrier())

    def exec(
        self, program: Program, arguments: Sequence[Argument], grid: Sequence[Size] | None = None,
        origin: Origin | None = None,
    ) -> Commands:
        """Runs a kernel over `grid` blocks (the code object's own, if not given).

        `origin`, the file and line that the kernel comes from, is told when it faults.
        """
        self._expect(program, (Program,), "exec takes a Program made by dev.load")
        params = program.code.params
        if len(arguments) != len(params):
            names = ", ".join(param.name for param in params) or "none"
            raise self._error(
                f"Kernel {program.name} takes {len(params)} arguments ({names}); "
                f"{len(arguments)} were given."
            )
        for param, argument in zip(params, arguments, strict=True):
            self._check_argument(program, param, argument)
        blocks = tuple(program.code.grid if grid is None else grid)
        self._check_grid(program, blocks)
        return self._add(
            Exec(program, tuple(arguments), (blocks[0], blocks[1], blocks[2]), origin)
        )

    def copy(
        self, destination: Buffer | Var, source: Buffer | Var, size_bytes: Size | None = None
    ) -> Commands:
        """Copies `size_bytes` (all of `source`, if not given) to the start of `destination`."""
        for buffer in (destination, source):
            self._expect(buffer, (Buffer, Var), "copy takes buffers or Vars")
        if size_bytes is None:
            if not isinstance(source, Buffer):
                raise self._error("A copy from a Var needs a size.")
            size_bytes = source.size_bytes
        self._expect(size_bytes, (int, Var), "copy's size is an integer or a Var")
        for buffer in (destination, source):
            if isinstance(buffer, Buffer) and isinstance(size_bytes, int):
                self._check_fits(size_bytes, buffer, "copy")
        return self._add(Copy(destination, source, size_bytes))

    def write(self, buffer: Buffer, value: Size, size_bytes: int = 8) -> Commands:
        """Writes an unsigned value of 4 or 8 bytes to the start of `buffer`."""
        self._check_word(buffer, value, size_bytes, "write")
        return self._add(Write(buffer, value, size_bytes))

    def poll(
        self, buffer: Buffer, value: Size, compare: str = ">=", size_bytes: int = 8
    ) -> Commands:
        """Waits until the unsigned value at the start of `buffer` is `>=` or `==` to `value`."""
        self._check_word(buffer, value, size_bytes, "poll")
        if compare not in (">=", "=="):
            raise self._error(f"poll compares with '>=' or '==', not {compare!r}.")
        return self._add(Poll(buffer, value, compare, size_bytes))

    def submit(self, **variables: Any) -> Point:
        """Hands the commands to the queue; the Point is reached when all have finished."""
        return self._queue.submit_steps(self._steps, variables)

    def bind(self) -> BoundCommands:
        """Writes the commands into device memory once, for cheap replays."""
        return self._queue.bind_steps(tuple(self._steps))

    def _add(self, step: Step) -> Commands:
        self._steps.append(step)
        return self

    def _error(self, detail: str, remedy: str = "") -> ArgumentMismatch:
        device = self._queue.device_name
        return ArgumentMismatch(detail, device=device, operation="record", remedy=remedy)

    def _expect(self, value: object, kinds: tuple[type, ...], sentence: str) -> None:
        if not isinstance(value, kinds):
            raise self._error(f"{sentence}, not {value!r}.")

    def _check_argument(self, program: Program, param: Param, argument: Argument) -> None:
        if isinstance(argument, Var):
            return
        where = f"Argument {param.name} of kernel {program.name}"
        if param.kind == "buffer":
            self._expect(argument, (Buffer,), f"{where} takes a Buffer")
        else:
            encode_scalar(param.dtype, argument, where, self._queue.device_name)

    def _check_grid(self, program: Program, grid: tuple[Size, ...]) -> None:
        if len(grid) != 3:
            raise self._error(f"A grid has three sizes; {grid} has {len(grid)}.")
        for size, limit, axis in zip(grid, GRID_LIMITS, "xyz", strict=True):
            self._expect(size, (int, Var), f"grid {axis} is an integer or a Var")
            if isinstance(size, int) and not 0 <= size <= limit:
                raise self._error(
                    f"Grid {axis} of kernel {program.name} is {size}, beyond 0 to {limit}."
                )

    def _check_fits(self, size_bytes: int, buffer: Buffer, operation: str) -> None:
        if not 0 <= size_bytes <= buffer.size_bytes:
            raise self._error(
                f"A {operation} of {size_bytes} bytes does not fit into a buffer of "
                f"{buffer.size_bytes} bytes."
            )

    def _check_word(self, buffer: Buffer, value: Size, size_bytes: int, operation: str) -> None:
        self._expect(buffer, (Buffer,), f"{operation} takes a Buffer")
        self._expect(value, (int, Var), f"{operation}'s value is an integer or a Var")
        if size_bytes not in (4, 8):
            raise self._error(f"A {operation} has 4 or 8 bytes, not {size_bytes}.")
        if isinstance(value, int) and not 0 <= value < 1 << (8 * size_bytes):
            raise self._error(
                f"A {operation} of {size_bytes} bytes cannot hold {value}; the limit is "
                f"{(1 << (8 * size_bytes)) - 1}."
            )
        self._check_fits(size_bytes, buffer, operation)
        if buffer.gpu_addr % size_bytes:
            raise self._error(
                f"A {operation} of {size_bytes} bytes needs an aligned address, not "
                f"{buffer.gpu_addr:#x}."
            )


class BoundCommands(ABC):
    """A list in device memory that is replayed with new values for its Vars."""

    names: list[str]

    @abstractmethod
    def replay(self, **variables: Any) -> Point:
        """Runs it once more; waits only if all its argument blocks are still in flight."""


class Queue(ABC):
    """A ring of a device with a timeline of its own. Threads may share it."""

    name: str
    timeline: Timeline

    @property
    @abstractmethod
    def device_name(self) -> str:
        """The device it belongs to."""

    @property
    @abstractmethod
    def last_point(self) -> Point:
        """The Point of the last submission."""

    @abstractmethod
    def submit_steps(self, steps: Sequence[Step], variables: dict[str, Any]) -> Point:
        """Encodes and submits; called by `Commands.submit`."""

    @abstractmethod
    def bind_steps(self, steps: tuple[Step, ...]) -> BoundCommands:
        """Encodes into device memory; called by `Commands.bind`."""

    @abstractmethod
    def synchronize(self, timeout_ms: float | None = None) -> None:
        """Waits for everything submitted so far."""

    @abstractmethod
    def close(self) -> None:
        """Ends the queue where it stands and frees its place; closing the device does, too."""

    def commands(self) -> Commands:
        """A new, empty recorder."""
        return Commands(self)
