"""Heuristics: from a scalar kernel and a Target to a plan of loops, tiles and local copies.

Three shapes of kernel are told apart: a contraction (a reduction over a product whose factors
depend on different output axes: matmul, convolution), any other reduction, and elementwise work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from compiler.dtype import dtypes
from compiler.ir import Node, Op, find, toposort, upper
from compiler.lower import ScalarKernel
from compiler.plan import Grid, Plan, Stage, Tile, dependencies
from compiler.symbolic import linear
from compiler.target import Target

# Below this many scalar operations a kernel is not worth waking other threads for.
PARALLEL_WORK = 60_000
BLOCKS_PER_THREAD = 4
# An expression with fewer nodes than this (addresses included) may be unrolled many times.
LIGHT_NODES = 16


def optimise(kernel: ScalarKernel, target: Target) -> Plan:
    """The plan for a kernel on a target."""
    facts = _Facts(kernel, target)
    contraction = _find_contraction(facts)
    if contraction is not None:
        plan = _plan_contraction(facts, contraction)
    elif facts.reduces:
        plan = _plan_reduction(facts)
    else:
        plan = _plan_elementwise(facts)
    return plan


class _Facts:
    """What the heuristics ask about a kernel."""

    def __init__(self, kernel: ScalarKernel, target: Target) -> None:
        self.kernel, self.target = kernel, target
        self.store, self.ranges = kernel.store, kernel.ranges
        self.depends = dependencies(self.store)
        self.reduces = list(find(self.store, Op.REDUCE))
        self.loads = list(find(self.store, Op.LOAD))
        widths = [_register_bits(n) for n in toposort(self.store.src[2])]
        self.lanes = max(1, target.vector_bits // max(widths, default=32))

    def stride(self, address: Node, axis: Node) -> int | None:
        """The distance of neighbours along an axis; None where it is not the same everywhere."""
        terms, _ = linear(address)
        if any(t is not axis and axis in self.depends_of(t) for t in terms):
            return None
        return terms.get(axis, 0)

    def depends_of(self, node: Node) -> frozenset[Node]:
        found = self.depends.get(node)
        return dependencies(node)[node] if found is None else found

    def name(self) -> str:
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


def _is_static(axis: Node) -> bool:
    return axis.src[0].op is Op.CONST


def _register_bits(node: Node) -> int:
    """The width of a node's values in a vector register (halves are computed in float32)."""
    if node.dtype in (dtypes.index, dtypes.void, dtypes.bool):
        return 8
    if node.op in (Op.CONST, Op.PARAM):
        return 8
    return 32 if node.dtype.kind == "f" and node.dtype.bits == 16 else node.dtype.bits


def _lanes_for(extent: int, most: int) -> int:
    """Lanes that an axis fills well: at least half of them, or 1."""
    if extent >= most:
        return most
    lanes = 1 << (extent - 1).bit_length()
    return lanes if extent >= 3 else 1


def _best_divisor(extent: int, limit: int) -> int:
    return next(d for d in range(min(extent, limit), 0, -1) if extent % d == 0)


def _tile_of(extent: int, limit: int) -> int:
    """An unroll factor up to `limit`: a divisor if a good one exists, else with a rest."""
    if extent <= limit:
        return extent
    divisor = _best_divisor(extent, limit)
    return divisor if divisor * 2 > limit else min(limit, 8)


def _share_out(facts: _Facts, order: Iterable[Node], tiles: dict[Node, Tile]) -> Grid | None:
    """Which axis the blocks divide among themselves: the outermost one with enough passes."""
    if facts.target.threads == 1 or facts.work() < PARALLEL_WORK:
        return None
    axes = [a for a in order if _is_static(a) and upper_of(a) >= tiles.get(a, Tile()).step]
    if not axes:
        return None
    wanted = facts.target.threads * BLOCKS_PER_THREAD
    enough = [a for a in axes if facts.steps(a, tiles) >= facts.target.threads * 2]
    axis = enough[0] if enough else max(axes, key=lambda a: facts.steps(a, tiles))
    whole = upper_of(axis) // tiles.get(axis, Tile()).step
    if whole < 2:
        return None
    chunk = -(-whole // wanted)
    return Grid(axis, chunk, -(-whole // chunk))


# ---- elementwise ----


def _plan_elementwise(facts: _Facts) -> Plan:
    address = facts.store.src[1]
    tiles: dict[Node, Tile] = {}
    order = list(facts.ranges)
    lane_axis = next((a for a in reversed(order) if facts.stride(address, a) == 1), None)
    if lane_axis is not None:
        lanes = _lanes_for(upper_of(lane_axis), facts.lanes)
        small = sum(1 for n in toposort(facts.store.src[2]) if n.dtype is not dtypes.index) < 40
        unroll = 4 if small and upper_of(lane_axis) >= 8 * lanes and _is_static(lane_axis) else 1
        tiles[lane_axis] = Tile(unroll, lanes)
        order.remove(lane_axis)
        order.append(lane_axis)
        across = _transposed_axis(facts, lane_axis)
        if across is not None:
            tiles[lane_axis] = Tile(1, lanes)
            tiles[across] = Tile(_tile_of(upper_of(across), 8))
    grid = _share_out(facts, order, tiles)
    return Plan(facts.name(), facts.store, tuple(order), tiles, grid=grid)


def _transposed_axis(facts: _Facts, lane_axis: Node) -> Node | None:
    """An axis along which some load is consecutive while it is not along the lanes."""
    for load in facts.loads:
        if facts.stride(load.src[1], lane_axis) in (0, 1):
            continue
        for axis in facts.ranges:
            if axis is not lane_axis and _is_static(axis):
                if facts.stride(load.src[1], axis) == 1:
                    return axis
    return None


# ---- reductions ----


def _plan_reduction(facts: _Facts) -> Plan:
    tiles: dict[Node, Tile] = {}
    orders: dict[Node, tuple[Node, ...]] = {}
    scalar_outputs: set[Node] = set()
    for reduce in facts.reduces:
        axis = _consecutive_axis(facts, reduce)
        if axis is not None and axis in reduce.src[1:]:
            lanes = _lanes_for(upper_of(axis), facts.lanes)
            unroll = min(4, max(1, upper_of(axis) // lanes)) if _is_static(axis) else 1
            tiles[axis] = Tile(unroll, lanes)
            orders[reduce] = (*(a for a in reduce.src[1:] if a is not axis), axis)
            scalar_outputs |= facts.depends[reduce]
    order = list(facts.ranges)
    lane_axis = _output_lane_axis(facts, scalar_outputs)
    if lane_axis is not None:
        lanes = _lanes_for(upper_of(lane_axis), facts.lanes)
        # Wide strips: rows lie apart in memory, and each should be read in long runs.
        most = 16 if len(toposort(facts.store.src[2])) < LIGHT_NODES else 4
        unroll = max(1, min(most, upper_of(lane_axis) // lanes)) if _is_static(lane_axis) else 1
        tiles[lane_axis] = Tile(unroll, lanes)
        order.remove(lane_axis)
        order.append(lane_axis)
    for reduce in facts.reduces:
        last = orders.get(reduce, reduce.src[1:])[-1]
        if last not in tiles and _is_static(last):
            wide = lane_axis is not None and tiles[lane_axis].unroll > 4
            tiles[last] = Tile(1 if wide else _tile_of(upper_of(last), 4))
    grid = _share_out(facts, order, tiles)
    return Plan(facts.name(), facts.store, tuple(order), tiles, orders, grid=grid)


def _consecutive_axis(facts: _Facts, reduce: Node) -> Node | None:
    """The axis along which most of a reduction's loads are consecutive."""
    votes: dict[Node, int] = {}
    for load in find(reduce.src[0], Op.LOAD):
        for axis in facts.depends[load]:
            if facts.stride(load.src[1], axis) == 1:
                weight = math.prod(upper_of(a) for a in facts.depends[load])
                votes[axis] = votes.get(axis, 0) + weight
    return max(votes, key=lambda a: (votes[a], upper_of(a))) if votes else None


def _output_lane_axis(facts: _Facts, scalar: set[Node]) -> Node | None:
    """The output axis to vectorise along: consecutive stores first, then consecutive loads."""
    free = [a for a in facts.ranges if a not in scalar and upper_of(a) >= 3]
    stored = [a for a in free if facts.stride(facts.store.src[1], a) == 1]
    if stored:
        return stored[-1]
    for load in facts.loads:
        for axis in free:
            if facts.stride(load.src[1], axis) == 1:
                return axis
    return None


# ---- contractions ----


@dataclass(frozen=True)
class _Contraction:
    """REDUCE ADD of a product: `lane_axis` belongs to `wide` alone, `rows` to `narrow` alone."""

    reduce: Node
    wide: Node
    narrow: Node
    lane_axis: Node
    rows: tuple[Node, ...]


def _find_contraction(facts: _Facts) -> _Contraction | None:
    found: list[tuple[float, _Contraction]] = []
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
    facts: _Facts, reduce: Node, wide: Node, narrow: Node
) -> Iterable[tuple[float, _Contraction]]:
    only_wide = facts.depends[wide] - facts.depends[narrow]
    rows = tuple(a for a in facts.ranges if a in facts.depends[narrow] - facts.depends[wide])
    for axis in facts.ranges:
        extent = upper_of(axis)
        if axis not in only_wide or extent < 4 or not _is_static(axis):
            continue
        lanes = _lanes_for(extent, facts.lanes)
        used = extent / (-(-extent // lanes) * lanes)
        score = used * lanes
        reuse = math.prod(upper_of(a) for a in rows)
        if facts.stride(wide.src[1], axis) != 1:
            score *= reuse / (reuse + 32)  # gathered, but a local copy serves many rows
        if facts.stride(facts.store.src[1], axis) == 1:
            score *= 1.1
        yield score, _Contraction(reduce, wide, narrow, axis, rows)


def _plan_contraction(facts: _Facts, c: _Contraction) -> Plan:
    target = facts.target
    tiles: dict[Node, Tile] = {}
    lanes = _lanes_for(upper_of(c.lane_axis), facts.lanes)
    groups = 2 if upper_of(c.lane_axis) > lanes else 1
    tiles[c.lane_axis] = Tile(groups, lanes)
    # The rest of the registers holds factors; beyond 20 sums, compilers spill them.
    _tile_rows(facts, c, max(1, min(20, target.vector_registers - 4) // groups), tiles)

    narrow_address = c.narrow.src[1]
    reduce_axes = sorted(
        c.reduce.src[1:],
        key=lambda a: -abs(facts.stride(narrow_address, a) or 0),
    )
    last = reduce_axes[-1]
    registers = math.prod(tiles.get(a, Tile()).unroll for a in facts.ranges)
    if _is_static(last):
        tiles[last] = Tile(_tile_of(upper_of(last), 5 if registers <= 24 else 2))

    both = [a for a in facts.ranges if a not in c.rows and a not in facts.depends[c.wide]]
    shared = [a for a in facts.ranges if a in facts.depends[c.wide] and a is not c.lane_axis]
    order = [*both, *shared, c.lane_axis, *c.rows]
    stages = _stage_wide(facts, c, order, tiles)
    grid = _share_out(facts, order, tiles)
    return Plan(
        facts.name(),
        facts.store,
        tuple(order),
        tiles,
        {c.reduce: tuple(reduce_axes)},
        stages,
        grid,
    )


def _tile_rows(facts: _Facts, c: _Contraction, budget: int, tiles: dict[Node, Tile]) -> None:
    """Unrolls row axes until the accumulators fill `budget` registers."""
    rows = sorted(
        (a for a in c.rows if _is_static(a)),
        key=lambda a: facts.stride(c.narrow.src[1], a) or 1 << 40,
    )
    for number, axis in enumerate(rows):
        if budget < 2:
            return
        alone = number == len(rows) - 1 and not any(a in tiles for a in rows)
        extent = upper_of(axis)
        unroll = _tile_of(extent, budget) if alone else _best_divisor(extent, budget)
        if unroll > 1:
            tiles[axis] = Tile(unroll)
            budget //= unroll


def _stage_wide(
    facts: _Facts, c: _Contraction, order: list[Node], tiles: dict[Node, Tile]
) -> tuple[Stage, ...]:
    """A local copy of the wide factor, where it is read often enough to be worth it."""
    reuse = math.prod(facts.steps(a, tiles) for a in c.rows)
    axes = [a for a in c.reduce.src[1:] if a in facts.depends[c.wide]]
    if reuse < 4 or not all(_is_static(a) for a in axes):
        return ()
    elements = math.prod(upper_of(a) for a in axes) * tiles[c.lane_axis].step
    size = elements * c.wide.dtype.itemsize
    if size > min(facts.target.local_bytes, facts.target.l2_bytes * 3 // 4):
        return ()
    if facts.stride(c.wide.src[1], c.lane_axis) == 1 and size < facts.target.l1_bytes // 2:
        return ()
    return (Stage(c.wide, c.reduce, order.index(c.lane_axis) + 1),)
