"""Heuristics: from a scalar kernel and a Target to a plan of loops, tiles and local copies.

Three shapes of kernel are told apart: a contraction (a reduction over a product whose factors
depend on different output axes: matmul, convolution), any other reduction, and elementwise work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from compiler.dtype import dtypes
from compiler.facts import (
    Contraction,
    Facts,
    best_divisor,
    consecutive_axis,
    find_contraction,
    is_static,
    lanes_for,
    tile_of,
    upper_of,
)
from compiler.ir import Node, toposort
from compiler.lower import ScalarKernel
from compiler.optimise_gpu import plan_for_gpu
from compiler.plan import Grid, Plan, Stage, Tile
from compiler.target import Target

# Below this many scalar operations a kernel is not worth waking other threads for.
PARALLEL_WORK = 60_000
BLOCKS_PER_THREAD = 4
# An expression with fewer nodes than this (addresses included) may be unrolled many times.
LIGHT_NODES = 16


def optimise(kernel: ScalarKernel, target: Target) -> Plan:
    """The plan for a kernel on a target."""
    facts = Facts(kernel, target)
    if not target.is_cpu:
        return plan_for_gpu(facts)
    contraction = find_contraction(facts)
    if contraction is not None:
        plan = _plan_contraction(facts, contraction)
    elif facts.reduces:
        plan = _plan_reduction(facts)
    else:
        plan = _plan_elementwise(facts)
    return plan


def _share_out(facts: Facts, order: Iterable[Node], tiles: dict[Node, Tile]) -> tuple[Grid, ...]:
    """Which axis the blocks divide among themselves: the outermost one with enough passes."""
    if facts.target.threads == 1 or facts.work() < PARALLEL_WORK:
        return ()
    axes = [a for a in order if is_static(a) and upper_of(a) >= tiles.get(a, Tile()).step]
    if not axes:
        return ()
    wanted = facts.target.threads * BLOCKS_PER_THREAD
    enough = [a for a in axes if facts.steps(a, tiles) >= facts.target.threads * 2]
    axis = enough[0] if enough else max(axes, key=lambda a: facts.steps(a, tiles))
    whole = upper_of(axis) // tiles.get(axis, Tile()).step
    if whole < 2:
        return ()
    chunk = -(-whole // wanted)
    return (Grid(axis, chunk, -(-whole // chunk)),)


# ---- elementwise ----


def _plan_elementwise(facts: Facts) -> Plan:
    address = facts.store.src[1]
    tiles: dict[Node, Tile] = {}
    order = list(facts.ranges)
    lane_axis = next((a for a in reversed(order) if facts.stride(address, a) == 1), None)
    if lane_axis is not None:
        lanes = lanes_for(upper_of(lane_axis), facts.lanes)
        small = sum(1 for n in toposort(facts.store.src[2]) if n.dtype is not dtypes.index) < 40
        unroll = 4 if small and upper_of(lane_axis) >= 8 * lanes and is_static(lane_axis) else 1
        tiles[lane_axis] = Tile(unroll, lanes)
        order.remove(lane_axis)
        order.append(lane_axis)
        across = _transposed_axis(facts, lane_axis)
        if across is not None:
            tiles[lane_axis] = Tile(1, lanes)
            tiles[across] = Tile(tile_of(upper_of(across), 8))
    grids = _share_out(facts, order, tiles)
    return Plan(facts.name(), facts.store, tuple(order), tiles, grids=grids)


def _transposed_axis(facts: Facts, lane_axis: Node) -> Node | None:
    """An axis along which some load is consecutive while it is not along the lanes."""
    for load in facts.loads:
        if facts.stride(load.src[1], lane_axis) in (0, 1):
            continue
        for axis in facts.ranges:
            if axis is not lane_axis and is_static(axis):
                if facts.stride(load.src[1], axis) == 1:
                    return axis
    return None


# ---- reductions ----


def _plan_reduction(facts: Facts) -> Plan:
    tiles: dict[Node, Tile] = {}
    orders: dict[Node, tuple[Node, ...]] = {}
    scalar_outputs: set[Node] = set()
    for reduce in facts.reduces:
        axis = consecutive_axis(facts, reduce)
        if axis is not None and axis in reduce.src[1:]:
            lanes = lanes_for(upper_of(axis), facts.lanes)
            unroll = min(4, max(1, upper_of(axis) // lanes)) if is_static(axis) else 1
            tiles[axis] = Tile(unroll, lanes)
            orders[reduce] = (*(a for a in reduce.src[1:] if a is not axis), axis)
            scalar_outputs |= facts.depends[reduce]
    order = list(facts.ranges)
    lane_axis = _output_lane_axis(facts, scalar_outputs)
    if lane_axis is not None:
        lanes = lanes_for(upper_of(lane_axis), facts.lanes)
        # Wide strips: rows lie apart in memory, and each should be read in long runs.
        most = 16 if len(toposort(facts.store.src[2])) < LIGHT_NODES else 4
        unroll = max(1, min(most, upper_of(lane_axis) // lanes)) if is_static(lane_axis) else 1
        tiles[lane_axis] = Tile(unroll, lanes)
        order.remove(lane_axis)
        order.append(lane_axis)
    for reduce in facts.reduces:
        last = orders.get(reduce, reduce.src[1:])[-1]
        if last not in tiles and is_static(last):
            wide = lane_axis is not None and tiles[lane_axis].unroll > 4
            tiles[last] = Tile(1 if wide else tile_of(upper_of(last), 4))
    grids = _share_out(facts, order, tiles)
    return Plan(facts.name(), facts.store, tuple(order), tiles, orders, grids=grids)


def _output_lane_axis(facts: Facts, scalar: set[Node]) -> Node | None:
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


def _plan_contraction(facts: Facts, c: Contraction) -> Plan:
    target = facts.target
    tiles: dict[Node, Tile] = {}
    lanes = lanes_for(upper_of(c.lane_axis), facts.lanes)
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
    if is_static(last):
        tiles[last] = Tile(tile_of(upper_of(last), 5 if registers <= 24 else 2))

    both = [a for a in facts.ranges if a not in c.rows and a not in facts.depends[c.wide]]
    shared = [a for a in facts.ranges if a in facts.depends[c.wide] and a is not c.lane_axis]
    order = [*both, *shared, c.lane_axis, *c.rows]
    stages = _stage_wide(facts, c, order, tiles)
    grids = _share_out(facts, order, tiles)
    return Plan(
        facts.name(),
        facts.store,
        tuple(order),
        tiles,
        {c.reduce: tuple(reduce_axes)},
        stages,
        grids,
    )


def _tile_rows(facts: Facts, c: Contraction, budget: int, tiles: dict[Node, Tile]) -> None:
    """Unrolls row axes until the accumulators fill `budget` registers."""
    rows = sorted(
        (a for a in c.rows if is_static(a)),
        key=lambda a: facts.stride(c.narrow.src[1], a) or 1 << 40,
    )
    for number, axis in enumerate(rows):
        if budget < 2:
            return
        alone = number == len(rows) - 1 and not any(a in tiles for a in rows)
        extent = upper_of(axis)
        unroll = tile_of(extent, budget) if alone else best_divisor(extent, budget)
        if unroll > 1:
            tiles[axis] = Tile(unroll)
            budget //= unroll


def _stage_wide(
    facts: Facts, c: Contraction, order: list[Node], tiles: dict[Node, Tile]
) -> tuple[Stage, ...]:
    """A local copy of the wide factor, where it is read often enough to be worth it."""
    reuse = math.prod(facts.steps(a, tiles) for a in c.rows)
    axes = [a for a in c.reduce.src[1:] if a in facts.depends[c.wide]]
    if reuse < 4 or not all(is_static(a) for a in axes):
        return ()
    elements = math.prod(upper_of(a) for a in axes) * tiles[c.lane_axis].step
    size = elements * c.wide.dtype.itemsize
    if size > min(facts.target.local_bytes, facts.target.l2_bytes * 3 // 4):
        return ()
    if facts.stride(c.wide.src[1], c.lane_axis) == 1 and size < facts.target.l1_bytes // 2:
        return ()
    return (Stage(c.wide, c.reduce, order.index(c.lane_axis) + 1),)
