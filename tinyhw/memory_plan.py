"""Temporaries that are not needed at the same time share memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compiler.ir import Node
from tinyhw.schedule import CopyCall, Item

ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class MemoryPlan:
    """Where each temporary lies in its device's arena, and how large the arenas are."""

    offsets: dict[Node, int]
    arena_bytes: dict[str, int]


def buffers_of(item: Item) -> tuple[Node, ...]:
    """Every BUFFER that an item touches."""
    return (item.destination, item.source) if isinstance(item, CopyCall) else item.buffers


def plan_memory(items: Sequence[Item], temporaries: Iterable[Node]) -> MemoryPlan:
    """Places each temporary, largest first, at the lowest offset that is free while it lives.

    A temporary lives from the first to the last item that touches it. Items run in order, so
    that memory may be used again by the next item.
    """
    wanted = set(temporaries)
    first: dict[Node, int] = {}
    last: dict[Node, int] = {}
    for i, item in enumerate(items):
        for buffer in buffers_of(item):
            if buffer in wanted:
                first.setdefault(buffer, i)
                last[buffer] = i
    offsets: dict[Node, int] = {}
    arena_bytes: dict[str, int] = {}
    placed: dict[str, list[Node]] = {}
    for buffer in sorted(first, key=lambda b: (-_bytes(b), first[b])):
        device = str(buffer.arg.device)
        size = _bytes(buffer)
        others = placed.setdefault(device, [])
        at = _lowest_gap(
            size,
            [
                (offsets[other], _bytes(other))
                for other in others
                if first[other] <= last[buffer] and first[buffer] <= last[other]
            ],
        )
        offsets[buffer] = at
        others.append(buffer)
        arena_bytes[device] = max(arena_bytes.get(device, 0), at + size)
    return MemoryPlan(offsets, arena_bytes)


def _bytes(buffer: Node) -> int:
    size = buffer.arg.size * buffer.dtype.itemsize
    return int(-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)


def _lowest_gap(size: int, taken: list[tuple[int, int]]) -> int:
    """The lowest offset at which `size` bytes overlap none of the (offset, size) pieces."""
    at = 0
    for start, length in sorted(taken):
        if at + size <= start:
            break
        at = max(at, start + length)
    return at
