"""Between strides, in which other libraries describe arrays, and views of a BUFFER.

A view is a chain of movement ops and has no strides; `strides_of_view` derives them where the
elements lie at regular distances, `strided` builds the chain that reads at given distances.
All distances are in elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.ir import Node, Op
from compiler.lower import strides_of


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array without gaps, the last axis fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def extent_in_memory(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """(lowest, highest) position of an array's elements, counted from its first; not empty."""
    reach = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)


def strides_of_view(view: Node) -> tuple[int, tuple[int, ...]] | None:
    """(offset, strides) of a movement-only view of a BUFFER; None where there are none."""
    moves, node = [], view
    while node.op is not Op.BUFFER:
        if node.op is not Op.DETACH:
            moves.append(node)
        node = node.src[0]
    seen = Node(Op.PARAM, node.dtype, (), (0, node.size)).reshape(node.shape)
    for move in reversed(moves):
        seen = seen.reshape(move.arg) if move.op is Op.RESHAPE else move.with_src((seen,))
    found = strides_of(seen)
    if found is None:
        return None
    offset, strides = found
    whole = row_major(view.shape)  # type: ignore[arg-type]  # strides are of fixed shapes
    return offset, tuple(
        dense if n == 1 else stride
        for n, stride, dense in zip(view.shape, strides, whole, strict=True)
    )


def strided(flat: Node, shape: Sequence[int], strides: Sequence[int], offset: int) -> Node:
    """The array of that shape whose elements lie in `flat`, a vector, at these distances.

    Every place must exist, and no extent be 0. No element is there twice in the chain of ops
    unless it is in the array.
    """
    low, high = extent_in_memory(shape, strides)
    flat = flat.shrink(((offset + low, offset + high + 1),))
    # From the widest steps to the narrowest; an axis of one place, or without steps, comes last.
    axes = [a for a, n in enumerate(shape) if n > 1 and strides[a]]
    axes.sort(key=lambda a: (-abs(strides[a]), a))
    steps = [abs(strides[a]) for a in axes]
    extents = [shape[a] for a in axes]
    node = _nested(flat, extents, steps) or _overlapping(flat, extents, steps)
    rest = [a for a in range(len(shape)) if a not in axes]
    node = node.reshape((*extents, *(1 for _ in rest)))
    order = [*axes, *rest]
    node = node.permute(tuple(order.index(a) for a in range(len(shape))))
    node = node.expand(tuple(shape))
    return node.flip(tuple(a for a in axes if strides[a] < 0))


def _nested(flat: Node, extents: list[int], steps: list[int]) -> Node | None:
    """By cutting the vector into rows, and each row again; None where rows overlap."""
    spans = [1]  # of what one step along an axis leaves to the axes after it
    for extent, step in zip(reversed(extents), reversed(steps), strict=True):
        spans.insert(0, (extent - 1) * step + spans[0])
    if any(step < inner for step, inner in zip(steps, spans[1:], strict=True)):
        return None
    node = flat
    for depth, (extent, step) in enumerate(zip(extents, steps, strict=True)):
        before = tuple(extents[:depth])
        whole = tuple((0, n) for n in before)
        gap = extent * step - spans[depth]
        node = node.pad((*((0, 0) for _ in before), (0, gap)))
        node = node.reshape((*before, extent, step))
        node = node.shrink((*whole, (0, extent), (0, spans[depth + 1])))
    return node.reshape(tuple(extents))


def _overlapping(flat: Node, extents: list[int], steps: list[int]) -> Node:
    """By repeating the vector for every place and skewing it to its element."""
    last = len(extents)
    left = int(flat.size)
    node = flat.reshape((*(1 for _ in extents), left)).expand((*extents, left))
    for axis, (extent, step) in enumerate(zip(extents, steps, strict=True)):
        left -= (extent - 1) * step
        node = node.skew(last, axis, step, 0, left)
    return node.reshape(tuple(extents))
