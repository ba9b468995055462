"""Heuristics for GPUs: which axes become threads of a block, and which are spread over the grid.

A lane of an axis is a thread. Every output axis that is not wholly inside a block is spread over
the grid, one loop pass to each block, so that what is left of a kernel in a thread is its
reductions. Threads whose numbers differ by one along x should touch neighbouring memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.facts import (
    Contraction,
    Facts,
    best_divisor,
    consecutive_axis,
    find_contraction,
    is_static,
    tile_of,
    upper_of,
)
from compiler.ir import Node, toposort
from compiler.optimise_matrix import Choice, choose_unit
from compiler.plan import Grid, Plan, Shared, Tile
from compiler.target import Target

GRID_LIMITS = (1 << 24, 65535, 65535)
"""Blocks along x, y and z. An AQL packet counts threads in 32 bits, and a block has up to 256."""

SHORT = 16
"""Elements of a reduction that one thread may as well add up alone."""

FEWEST_ALONG_X = 16
"""Threads that should read neighbours: a cache line's part that is fetched at once."""

LIGHT_NODES = 40
"""An expression with fewer nodes than this may be computed at several places by one thread."""


def plan_for_gpu(facts: Facts) -> Plan:
    """The plan for a kernel on a target with lanes."""
    choice = choose_unit(facts)
    if choice is not None:
        return _plan_product(choice)
    contraction = find_contraction(facts)
    if contraction is not None:
        plan = _plan_contraction(facts, contraction)
        if plan is not None:
            return plan
    if facts.reduces:
        return _plan_reduction(facts)
    return _plan_elementwise(facts)


def _power_above(extent: int) -> int:
    return 1 << (extent - 1).bit_length()


def _covered(extent: int, lanes: int) -> int:
    """Positions, existing or not, that passes of so many lanes go over."""
    return -(-extent // lanes) * lanes


class _Block:
    """The threads of a block, as they are given to axes."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.left = facts.target.block_threads
        self.tiles: dict[Node, Tile] = {}
        self.threads: dict[Node, int] = {}

    def give(self, axis: Node, dimension: int, most: int | None = None) -> int:
        """As many threads as the axis can use well, at most `most`, along one dimension."""
        limit = self.left if most is None else min(most, self.left)
        extent = upper_of(axis)
        lanes = most_used = min(_power_above(extent), 1 << (limit.bit_length() - 1))
        least = FEWEST_ALONG_X if dimension == 0 else 2
        while lanes > least and lanes < 2 * extent:  # fewer, where many have nothing to do
            lanes //= 2
            if _covered(extent, most_used) > 1.25 * _covered(extent, lanes):
                most_used = lanes
        lanes = most_used
        if lanes > 1:
            self.share(axis, dimension, lanes)
            self.left //= lanes
        return lanes

    def share(self, axis: Node, dimension: int, lanes: int) -> None:
        """The threads of a dimension for one more axis."""
        if lanes > 1:
            self.tiles[axis] = Tile(1, lanes)
            self.threads[axis] = dimension

    def fill(self, axes: Sequence[Node], first: int = 0) -> None:
        """The threads that are left, to the axes in turn."""
        dimension = first
        for axis in axes:
            if dimension < 3 and axis not in self.tiles and self.give(axis, dimension) > 1:
                dimension += 1

    def unroll(self, axis: Node, most: int) -> None:
        """More places of an axis for each thread, while there are some."""
        lanes = self.tiles.get(axis, Tile()).lanes
        passes = -(-upper_of(axis) // lanes) if is_static(axis) else 1
        self.tiles[axis] = Tile(max(1, min(most, passes)), lanes)

    def blocks(self) -> int:
        """How many blocks it takes to cover the output."""
        return math.prod(self.facts.steps(axis, self.tiles) for axis in self.facts.ranges)

    def plan(
        self,
        order: Sequence[Node],
        spread: Sequence[Node],
        reduce_order: dict[Node, tuple[Node, ...]],
        shared: tuple[Shared, ...] = (),
    ) -> Plan:
        """The plan, with `spread` over the grid: the last axis' blocks are neighbours."""
        facts = self.facts
        return Plan(
            facts.name(),
            facts.store,
            tuple(order),
            self.tiles,
            reduce_order,
            grids=_spread(facts, spread, self.tiles),
            threads=self.threads,
            shared=shared,
        )


def _spread(facts: Facts, axes: Sequence[Node], tiles: dict[Node, Tile]) -> tuple[Grid, ...]:
    """Axes on the dimensions of the grid; those too many or too long for y and z go along x."""
    counts = [1, 1, 1]
    grids = []
    for axis in reversed(axes):
        passes = facts.steps(axis, tiles)
        if passes == 1 and is_static(axis):
            continue
        free = (d for d in range(3) if counts[d] == 1 and passes <= GRID_LIMITS[d])
        dimension = next(free, 0)
        chunk = -(-passes // max(1, GRID_LIMITS[dimension] // counts[dimension]))
        blocks = -(-passes // chunk)
        grids.append(Grid(axis, chunk, blocks, dimension, counts[dimension]))
        counts[dimension] *= blocks
    return tuple(grids)


def _by_stride(facts: Facts, address: Node, axes: Sequence[Node]) -> list[Node]:
    """Axes from the one whose neighbours lie closest in memory."""
    return sorted(axes, key=lambda axis: abs(facts.stride(address, axis) or 1 << 60))


# ---- elementwise ----


def _plan_elementwise(facts: Facts) -> Plan:
    block = _Block(facts)
    fastest = _by_stride(facts, facts.store.src[1], facts.ranges)
    across = _transposed_axis(facts, fastest[0]) if fastest else None
    if across is not None:  # half of a wave's threads along either axis
        block.give(fastest[0], 0, facts.target.lane_width // 2)
        block.give(across, 1)
    block.fill(fastest, first=len(block.threads))
    if fastest and len(toposort(facts.store.src[2])) < LIGHT_NODES:
        if block.blocks() >= 4 * facts.target.threads:
            block.unroll(fastest[0], 4)
    return block.plan(facts.ranges, facts.ranges, {})


def _transposed_axis(facts: Facts, lane_axis: Node) -> Node | None:
    """An axis along which some load is consecutive while it is not along the lanes."""
    for load in facts.loads:
        if facts.stride(load.src[1], lane_axis) not in (0, 1):
            for axis in facts.ranges:
                if axis is not lane_axis and facts.stride(load.src[1], axis) == 1:
                    return axis
    return None


# ---- reductions ----


def _plan_reduction(facts: Facts) -> Plan:
    """One thread or one row of threads for each result, by how many results there are."""
    shared = [a for a in facts.ranges if all(a in facts.depends[r] for r in facts.reduces)]
    free = [a for a in facts.ranges if a not in shared]
    axes = {reduce: _lane_axis(facts, reduce) for reduce in facts.reduces}
    longest = max(upper_of(axis) for axis in axes.values())
    results = math.prod(upper_of(a) for a in shared)
    wanted = facts.target.threads * facts.target.block_threads
    along_rows = any(consecutive_axis(facts, reduce) is axes[reduce] for reduce in facts.reduces)
    together = longest > SHORT and (bool(free) or along_rows or results < wanted)
    block = _Block(facts)
    if not together and 1 < math.prod(upper_of(a) for a in free) <= 4 * SHORT:
        block.fill(_by_stride(facts, facts.store.src[1], shared))  # a thread goes over its row
        return block.plan([*shared, *free], shared, _reduce_orders(facts, block, axes))
    if not together:
        block.fill(_by_stride(facts, facts.store.src[1], facts.ranges))
        return block.plan(facts.ranges, facts.ranges, _reduce_orders(facts, block, axes))
    row, dimension = 0, 0
    if not free and not along_rows and shared:  # sums across rows: neighbours read neighbours
        dimension = 1
        block.give(_by_stride(facts, facts.store.src[1], shared)[0], 0, facts.target.lane_width)
    row = min(block.left, _power_above(longest))
    while row > facts.target.lane_width and not free and results * row > wanted:
        row //= 2
    block.left //= row
    if free:  # the threads that add up a row go over it afterwards
        block.share(_by_stride(facts, facts.store.src[1], free)[0], 0, row)
    for reduce in reversed(facts.reduces):  # outer ones first
        taken = {block.threads.get(a) for a in facts.depends[reduce]}
        if dimension not in taken and upper_of(axes[reduce]) > 1:
            block.share(axes[reduce], dimension, row)
    remaining = [a for a in reversed(shared) if a not in block.tiles]
    block.fill(remaining, first=dimension + 1)
    order = [*shared, *(a for a in free if a not in block.tiles)]
    order += [a for a in free if a in block.tiles]
    return block.plan(order, shared, _reduce_orders(facts, block, axes))


def _lane_axis(facts: Facts, reduce: Node) -> Node:
    """The axis of a reduction that threads share: consecutive in memory, or the longest."""
    consecutive = consecutive_axis(facts, reduce)
    if consecutive is not None and consecutive in reduce.src[1:]:
        return consecutive
    return max(reduce.src[1:], key=upper_of)


def _reduce_orders(
    facts: Facts, block: _Block, axes: dict[Node, Node]
) -> dict[Node, tuple[Node, ...]]:
    """Reduce axes with the threads' one innermost, and that unrolled."""
    orders = {}
    for reduce, axis in axes.items():
        orders[reduce] = (*(a for a in reduce.src[1:] if a is not axis), axis)
        lanes = block.tiles.get(axis, Tile()).lanes
        if is_static(axis):
            places = tile_of(upper_of(axis), 4) if lanes == 1 else upper_of(axis) // lanes
            block.tiles[axis] = Tile(max(1, min(4, places)), lanes)
    return orders


# ---- contractions ----


def _plan_product(choice: Choice) -> Plan:
    """Waves that compute tiles of the output together."""
    facts = choice.facts
    return Plan(
        facts.name(),
        facts.store,
        choice.order,
        choice.tiles,
        choice.reduce_order,
        grids=_spread(facts, choice.order, choice.tiles),
        threads={},
        product=choice.product,
    )


DEEP = 256
"""Elements of a sum that threads should share, where the results do not keep all threads busy."""

SHARED_DEPTH = 16
"""How far along a sum the tiles of its factors go that are in local memory at a time."""

FEWEST_ALONG_A_SIDE = 8
"""Threads along rows or columns of a block that shares tiles."""

# Places of a thread along rows and columns, from the most reuse of a load to the most blocks.
_PLACES = ((4, 4), (4, 2), (2, 2), (1, 2), (1, 1))


def _plan_contraction(facts: Facts, c: Contraction) -> Plan | None:
    """Threads in a square, each with a small square of results; None if that has no use.

    Where results are few and sums long, a side of the square are threads that share each sum.
    """
    target = facts.target
    row = max((a for a in c.rows if is_static(a)), key=upper_of, default=None)
    if row is None:
        return None
    longest = max(c.reduce.src[1:], key=upper_of)
    results = math.prod(upper_of(a) for a in facts.ranges)
    deep = results < target.threads * target.block_threads and upper_of(longest) >= DEEP
    block = _Block(facts)
    if deep:
        block.give(c.lane_axis, 0, target.lane_width)
        block.give(longest, 1)
        block.unroll(row, _places_of(row))
    else:
        most = max(_side(target, c.lane_axis), target.block_threads // _power_above(upper_of(row)))
        across = block.give(c.lane_axis, 0, most)
        block.give(row, 1, _side(target, row) if across >= FEWEST_ALONG_A_SIDE else None)
        for tall, wide in _PLACES:
            block.unroll(row, tall)
            block.unroll(c.lane_axis, wide)
            if block.blocks() >= target.threads:
                break
    others = [a for a in facts.ranges if a not in (row, c.lane_axis)]
    block.fill(others, first=2)
    order = [*others, row, c.lane_axis]
    narrow_address = c.narrow.src[1]
    reduce_axes = sorted(c.reduce.src[1:], key=lambda a: -abs(facts.stride(narrow_address, a) or 0))
    inner = reduce_axes[-1]
    shared = () if deep else _through_local_memory(facts, c, block, reduce_axes)
    if not shared:
        block.unroll(inner, 4 if deep or not is_static(inner) else tile_of(upper_of(inner), 4))
    return block.plan(order, order, {c.reduce: tuple(reduce_axes)}, shared)


def _side(target: Target, axis: Node) -> int:
    """Threads along a side of the square: few enough that each has four places, if at least 8."""
    side = 1 << (target.block_threads.bit_length() // 2)
    while side > FEWEST_ALONG_A_SIDE and upper_of(axis) < side * _PLACES[0][0]:
        side //= 2
    return side


def _through_local_memory(
    facts: Facts, c: Contraction, block: _Block, reduce_axes: Sequence[Node]
) -> tuple[Shared, ...]:
    """The factors, if a block reads every element of them often enough to share it.

    Gives the axes of the sum, the last one first, the places that a tile of them has.
    """
    places = math.prod(block.tiles.get(a, Tile()).unroll for a in facts.ranges)
    if places < 8 or not all(is_static(a) for a in reduce_axes):
        return ()
    if math.prod(upper_of(a) for a in reduce_axes) < 4 * SHARED_DEPTH:
        return ()
    for load in (c.wide, c.narrow):
        if any(facts.stride(load.src[1], axis) is None for axis in facts.depends[load]):
            return ()
    tiles, depth = dict(block.tiles), 1
    for axis in reversed(reduce_axes):
        whole = upper_of(axis) * depth <= 2 * SHARED_DEPTH
        most = upper_of(axis) if whole else max(1, SHARED_DEPTH // depth)
        tiles[axis] = Tile(tile_of(upper_of(axis), most))
        depth *= tiles[axis].unroll
        if depth >= SHARED_DEPTH or not whole:
            break
    size_bytes = sum(
        load.dtype.itemsize * math.prod(tiles.get(a, Tile()).step for a in facts.depends[load])
        for load in (c.wide, c.narrow)
    )
    if size_bytes > facts.target.local_bytes // 2:
        return ()
    block.tiles.update(tiles)
    return (Shared(c.wide, c.reduce), Shared(c.narrow, c.reduce))


def _places_of(row: Node) -> int:
    """Rows for one thread where threads share sums: all, or a good part."""
    extent = upper_of(row)
    return extent if extent <= 8 else max(best_divisor(extent, 8), 4)
