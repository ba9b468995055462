"""What is in flight on a queue, as reports name it: kernels, copies and waits of each list.

The queue's timeline says which lists have finished, but not how far the first unfinished one
has come: so a report names all that may be running.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from drivers.blocks import Block
from drivers.memory import Buffer, format_bytes
from drivers.queue import Copy, Exec, Origin, Step, Wait
from drivers.timeline import Point, Timeline
from drivers.variables import Var

_NAMED = 4  # kernels that a sentence names; the rest are counted


class Extent(NamedTuple):
    """A buffer that a kernel was given, and the name of its parameter."""

    name: str
    address: int
    size_bytes: int


class Work(NamedTuple):
    """One step of a list; `kind` is `kernel`, `copy` or `wait`."""

    kind: str
    name: str
    origin: Origin | None = None
    extents: tuple[Extent, ...] = ()
    value: int = 0
    timeline: weakref.ref[Timeline] | None = None
    """What a wait waits for."""
    dispatch: int = 0
    """A kernel's number, counted for each queue from 1 on."""

    @property
    def reached(self) -> int:
        """How far the timeline is that a wait waits for."""
        timeline = self.timeline() if self.timeline else None
        return timeline.value if timeline else self.value

    @property
    def awaits(self) -> bool:
        """Whether it is a wait for what has not come."""
        return self.kind == "wait" and self.reached < self.value

    def __str__(self) -> str:
        if self.kind == "wait":
            return f"WAIT for {self.name} to reach {self.value} (it is at {self.reached})"
        if self.kind == "copy":
            return f"a copy of {self.name}"
        made = f", made at {self.origin[0].rsplit('/', 1)[-1]}:{self.origin[1]}" if (
            self.origin) else ""
        return f"kernel {self.name}, dispatch {self.dispatch}{made}"


def works_of(steps: Sequence[Step], variables: Mapping[str, Any] | None = None) -> tuple[Work, ...]:
    """What of a list a report needs; Vars are looked up where their values are known."""
    given = variables or {}

    def value(argument: Any) -> Any:
        return given.get(argument.name) if isinstance(argument, Var) else argument

    works = []
    for step in steps:
        if isinstance(step, Exec):
            pairs = zip(step.program.code.params, map(value, step.arguments), strict=True)
            extents = tuple(
                Extent(param.name, argument.gpu_addr, argument.size_bytes)
                for param, argument in pairs if isinstance(argument, Buffer)
            )
            works.append(Work("kernel", step.program.name, step.origin, extents))
        elif isinstance(step, Copy):
            size = value(step.size_bytes)
            works.append(Work("copy", format_bytes(size) if isinstance(size, int) else "bytes"))
        elif isinstance(step, Wait):
            point = value(step.point)
            if isinstance(point, Point):
                timeline = point.timeline
                works.append(
                    Work("wait", timeline.name, value=point.value, timeline=weakref.ref(timeline))
                )
    return tuple(works)


class Flight:
    """The lists of one queue that have not finished. Its queue's lock guards `add`."""

    def __init__(self) -> None:
        self._lists: deque[tuple[int, int, tuple[Work, ...]]] = deque()
        self._dispatches = 0

    def add(self, value: int, works: tuple[Work, ...], reached: int) -> None:
        """Keeps what a report says of a list until the timeline has reached its value."""
        while self._lists and self._lists[0][0] <= reached:
            self._lists.popleft()
        if works:
            self._lists.append((value, self._dispatches, works))
            self._dispatches += sum(work.kind == "kernel" for work in works)

    def first(self, reached: int) -> list[Work]:
        """The steps of the first list that has not finished, in their order."""
        for value, dispatch, works in tuple(self._lists):
            if value <= reached:
                continue
            found = []
            for work in works:
                dispatch += work.kind == "kernel"
                found.append(work._replace(dispatch=dispatch))
            return found
        return []

    def clear(self) -> None:
        """Forgets all."""
        self._lists.clear()


def either(running: Sequence[Work]) -> str:
    """What may have been running."""
    if not running:
        return "no kernel that is known"
    named = [str(work) for work in running[:_NAMED]]
    if len(running) > _NAMED:
        named.append(f"{len(running) - _NAMED} more")
    return named[0] if len(named) == 1 else f"one of: {'; '.join(named)}"


def neighbour(
    nearest: tuple[Block, int] | None, address: int, running: Sequence[Work]
) -> str:
    """The nearest buffer of what may have been running, else the nearest allocation."""
    extents = [
        (f"buffer {extent.name} of {work.name}", extent.address, extent.size_bytes)
        for work in running for extent in work.extents
    ]
    if not extents:
        if nearest is None:
            return "nothing is allocated"
        block = nearest[0]
        extents = [(f"memory for {block.kind}", block.address, block.size_bytes)]
    name, start, size = min(
        extents, key=lambda each: max(each[1] - address, address - (each[1] + each[2]), 0)
    )
    whole = f"{name} ({format_bytes(size)} at {start:#x})"
    if address < start:
        return f"{start - address} bytes before {whole}"
    if address < start + size:
        return f"byte {address - start} of {whole}"
    return f"{address - start - size} bytes past {whole}"
