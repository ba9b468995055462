"""What the optimisers ask about a scalar kernel: extents, strides, work, and whether it is a
contraction (a matrix product, a convolution).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from compiler.dtype import dtypes
from compiler.ir import Node, Op, find, toposort, upper
from compiler.lower import ScalarKernel
from compiler.plan import Tile, dependencies
from compiler.symbolic import linear
from compiler.target import Target


class Facts:
    """What the heuristics ask about a kernel."""

    def __init__(self, kernel: ScalarKernel, target: Target) -> None:
        self.kernel, self.target = kernel, target
        self.store, self.ranges = kernel.store, kernel.ranges
        self.depends = dependencies(self.store)
        self.reduces = list(find(self.store, Op.REDUCE))
        self.loads = list(find(self.store, Op.LOAD))
        widths = [_register_bits(n) for n in toposort(self.store.src[2])]
        self.lanes = max(1, target.vector_bits // max(widths, default=32))
        if not target.is_cpu:  # of a tile, whose threads stand in a square
            self.lanes = max(1, target.lane_width // 2)

    def stride(self, address: Node, axis: Node) -> int | None:
        """The distance of neighbours along an axis; None where it is not the same everywhere."""
        terms, _ = linear(address)
        if any(t is not axis and axis in self.depends_of(t) for t in terms):
            return None
        return terms.get(axis, 0)

    def depends_of(self, node: Node) -> frozenset[Node]:
        """The RANGEs that a node depends on."""
        found = self.depends.get(node)
        return dependencies(node)[node] if found is None else found

    def name(self) -> str:
        """The kernel's name: its kind and its extents."""
        axes = [*self.ranges, *(a for r in self.reduces for a in r.src[1:])]
        kind = "r" if self.reduces else "E"
        return "_".join([kind, *(str(upper_of(a)) for a in axes)])[:64]

    def work(self) -> int:
        """Scalar operations of the whole kernel, roughly."""
        size = math.prod(upper_of(a) for a in self.ranges)
        total = size * 2
        for reduce in self.reduces:
            own = math.prod(upper_of(a) for a in reduce.src[1:])
            outer = math.prod(upper_of(a) for a in self.depends[reduce])
            total += own * outer * 2
        return total

    def steps(self, axis: Node, tiles: dict[Node, Tile]) -> int:
        """Loop passes over an axis."""
        return -(-upper_of(axis) // tiles.get(axis, Tile()).step)


def upper_of(axis: Node) -> int:
    """An axis' greatest extent."""
    return upper(axis.src[0])


def is_static(axis: Node) -> bool:
    """Whether the extent is a number and no Variable."""
    return axis.src[0].op is Op.CONST


def _register_bits(node: Node) -> int:
    """The width of a node's values in a vector register (narrow floats are computed in float32)."""
    if node.dtype in (dtypes.index, dtypes.void, dtypes.bool):
        return 8
    if node.op in (Op.CONST, Op.PARAM):
        return 8
    return 32 if node.dtype in dtypes.narrow_floats else node.dtype.bits


def lanes_for(extent: int, most: int) -> int:
    """Lanes that an axis fills well: at least half of them, or 1."""
    if extent >= most:
        return most
    lanes = 1 << (extent - 1).bit_length()
    return lanes if extent >= 3 else 1


def best_divisor(extent: int, limit: int) -> int:
    """The largest divisor of `extent` up to `limit`."""
    return next(d for d in range(min(extent, limit), 0, -1) if extent % d == 0)


def tile_of(extent: int, limit: int) -> int:
    """An unroll factor up to `limit`: a divisor if a good one exists, else with a rest."""
    if extent <= limit:
        return extent
    divisor = best_divisor(extent, limit)
    return divisor if divisor * 2 > limit else min(limit, 8)


def consecutive_axis(facts: Facts, reduce: Node) -> Node | None:
    """The axis along which most of a reduction's loads are consecutive."""
    votes: dict[Node, int] = {}
    for load in find(reduce.src[0], Op.LOAD):
        for axis in facts.depends[load]:
            if facts.stride(load.src[1], axis) == 1:
                weight = math.prod(upper_of(a) for a in facts.depends[load])
                votes[axis] = votes.get(axis, 0) + weight
    return max(votes, key=lambda a: (votes[a], upper_of(a))) if votes else None


@dataclass(frozen=True)
class Contraction:
    """REDUCE ADD of a product: `lane_axis` belongs to `wide` alone, `rows` to `narrow` alone."""

    reduce: Node
    wide: Node
    narrow: Node
    lane_axis: Node
    rows: tuple[Node, ...]


def find_contraction(facts: Facts) -> Contraction | None:
    """The sum of products in a kernel, with the axis that lanes serve best, if there is one."""
    found: list[tuple[float, Contraction]] = []
    for reduce in facts.reduces:
        if reduce.arg is not Op.ADD or reduce.src[0].op is not Op.MUL:
            continue
        if any(n.op is Op.REDUCE for n in toposort(reduce.src[0])):
            continue
        left, right = (list(find(s, Op.LOAD)) for s in reduce.src[0].src)
        if len(left) != 1 or len(right) != 1 or not set(facts.ranges) >= facts.depends[reduce]:
            continue
        for wide, narrow in ((left[0], right[0]), (right[0], left[0])):
            found += _lane_choices(facts, reduce, wide, narrow)
    return max(found, key=lambda choice: choice[0])[1] if found else None


def _lane_choices(
    facts: Facts, reduce: Node, wide: Node, narrow: Node
) -> Iterable[tuple[float, Contraction]]:
    only_wide = facts.depends[wide] - facts.depends[narrow]
    rows = tuple(a for a in facts.ranges if a in facts.depends[narrow] - facts.depends[wide])
    for axis in facts.ranges:
        extent = upper_of(axis)
        if axis not in only_wide or extent < 4 or not is_static(axis):
            continue
        lanes = lanes_for(extent, facts.lanes)
        used = extent / (-(-extent // lanes) * lanes)
        score = used * lanes
        reuse = math.prod(upper_of(a) for a in rows)
        if facts.stride(wide.src[1], axis) != 1:
            score *= reuse / (reuse + 32)  # gathered, but a local copy serves many rows
        if facts.stride(facts.store.src[1], axis) == 1:
            score *= 1.1
        yield score, Contraction(reduce, wide, narrow, axis, rows)
