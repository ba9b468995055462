"""Which sums of products go to a matrix unit, and in what tiles.

A sum of products is a matrix product if one factor has output axes that the other lacks, and the
other way round. Axes of one kind become one, where none of them alone fills tiles well: then a
convolution's batch and image are its rows, and channels and window its depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compiler.dtype import DType, dtypes
from compiler.facts import Facts, is_static, upper_of
from compiler.ir import Node, Op, find, index
from compiler.lower import ScalarKernel
from compiler.matrix import MatrixUnit
from compiler.plan import MatrixProduct, Operand, Tile
from compiler.symbolic import idiv, mod, rebuild

FEWEST = 8
"""Rows, columns and elements of a sum below which a unit would mostly multiply zeros."""

LEAST_USED = 0.25
"""The part of a unit's products that should be of elements that exist."""

# (waves, squares of each) along rows and columns, from the most reuse of a load to the most blocks.
_SHAPES = (
    ((2, 2), (4, 4)),
    ((2, 2), (2, 4)),
    ((2, 2), (2, 2)),
    ((2, 2), (1, 2)),
    ((2, 2), (1, 1)),
    ((1, 2), (1, 1)),
    ((2, 1), (1, 1)),
    ((1, 1), (1, 1)),
)


_SQUARE = 16
"""Rows and columns of a square: as many tiles as it takes."""


class Choice(NamedTuple):
    """A kernel whose axes suit a matrix unit, with the product and the tiles of the output."""

    facts: Facts
    product: MatrixProduct
    order: tuple[Node, ...]
    tiles: dict[Node, Tile]
    reduce_order: dict[Node, tuple[Node, ...]]


_ROWS, _COLUMNS, _DEPTH = range(3)


class _Groups(NamedTuple):
    """A sum of products: its factors, and its axes by kind: rows, columns, depth.

    Rows are the output axes that only the left factor has, columns those that only the right one
    has, and depth is what is added up.
    """

    reduce: Node
    unit: MatrixUnit
    left: Node
    right: Node
    axes: tuple[tuple[Node, ...], ...]

    def with_axes(self, kind: int, axes: tuple[Node, ...]) -> _Groups:
        """Other axes of one kind."""
        return self._replace(axes=(*self.axes[:kind], axes, *self.axes[kind + 1 :]))

    def side(self, kind: int) -> int:
        """How far the unit goes along axes of a kind."""
        return (self.unit.rows, self.unit.columns, self.unit.depth)[kind]


def choose_unit(facts: Facts) -> Choice | None:
    """How a matrix unit computes the kernel's only sum; None if none can, or if it has no use."""
    groups = _find(facts)
    if groups is None:
        return None
    for kind in (_ROWS, _COLUMNS, _DEPTH):
        facts, groups = _with_one_axis(facts, groups, kind)
    return _planned(facts, groups)


def _find(facts: Facts) -> _Groups | None:
    if len(facts.reduces) != 1 or not facts.target.matrix_units:
        return None
    (reduce,) = facts.reduces
    if reduce.arg is not Op.ADD or reduce.src[0].op is not Op.MUL:
        return None
    for unit in facts.target.matrix_units:
        if unit.sums is not reduce.dtype:
            continue
        left, right = (_narrowed(factor, unit.inputs) for factor in reduce.src[0].src)
        if left is None or right is None:
            continue
        axes = frozenset(reduce.src[1:])
        deep = [axis for axis in axes if axis in _ranges(left) and axis in _ranges(right)]
        rows, columns = _ranges(left) - _ranges(right), _ranges(right) - _ranges(left)
        if len(deep) < len(axes) or (rows | columns) & axes or not rows or not columns:
            return None
        if _ranges(left) | _ranges(right) != axes | frozenset(facts.ranges):
            return None
        if not all(map(is_static, rows | columns | axes)):
            return None
        if any(facts.stride(facts.store.src[1], axis) == 1 for axis in rows):
            left, right, rows, columns = right, left, columns, rows
        return _Groups(
            reduce,
            unit,
            left,
            right,
            (
                tuple(a for a in facts.ranges if a in rows),
                tuple(a for a in facts.ranges if a in columns),
                reduce.src[1:],
            ),
        )
    return None


def _ranges(value: Node) -> frozenset[Node]:
    return frozenset(find(value, Op.RANGE))


def _narrowed(value: Node, dtype: DType) -> Node | None:
    """`value` as it is before it is widened from `dtype`, if that is all that happens to it."""
    match value.op:
        case _ if value.dtype is dtype:
            return value
        case Op.CAST if value.src[0].dtype is dtype:
            return value.src[0]
        case Op.CONST if Node.const(value.arg, dtype).arg == value.arg:
            return Node.const(value.arg, dtype)
        case Op.WHERE:
            condition, *choices = value.src
            first, second = (_narrowed(choice, dtype) for choice in choices)
            if first is not None and second is not None:
                return Node(Op.WHERE, dtype, (condition, first, second))
    return None


# ---- one axis of each kind ----


def _with_one_axis(facts: Facts, groups: _Groups, kind: int) -> tuple[Facts, _Groups]:
    """The kernel with one axis of a kind to tile along, first among its kind."""
    axes, side = groups.axes[kind], groups.side(kind)
    best = max(axes, key=lambda axis: (_used(upper_of(axis), side), upper_of(axis)))
    whole = math.prod(map(upper_of, axes))
    if len(axes) == 1 or _used(upper_of(best), side) >= 0.8 * _used(whole, side):
        return facts, groups.with_axes(kind, (best, *(a for a in axes if a is not best)))
    return _flattened(facts, groups, kind)


def _used(extent: int, side: int) -> float:
    return extent / (-(-extent // side) * side)


def _flattened(facts: Facts, groups: _Groups, kind: int) -> tuple[Facts, _Groups]:
    """All axes of a kind as one, whose quotients and remainders they are."""
    axes = groups.axes[kind]
    whole = index(math.prod(map(upper_of, axes)))
    flat = Node(Op.RANGE, dtypes.index, (whole,), axes[0].arg)
    parts, inner = {}, 1
    for axis in reversed(axes):
        parts[axis] = mod(idiv(flat, index(inner)), axis.src[0])
        inner *= upper_of(axis)
    left, right = (rebuild(side, parts) for side in (groups.left, groups.right))
    old, ranges = groups.reduce, facts.ranges
    summed = (flat,) if kind == _DEPTH else old.src[1:]
    reduce = Node(Op.REDUCE, old.dtype, (rebuild(old.src[0], parts), *summed), old.arg)
    store = rebuild(facts.store, {old: reduce, **(parts if kind != _DEPTH else {})})
    if kind != _DEPTH:
        ranges = tuple(
            flat if axis is axes[0] else axis
            for axis in ranges
            if axis is axes[0] or axis not in axes
        )
    groups = groups._replace(reduce=reduce, left=left, right=right).with_axes(kind, (flat,))
    return Facts(ScalarKernel(store, ranges), facts.target), groups


# ---- tiles ----


def _planned(facts: Facts, groups: _Groups) -> Choice | None:
    unit = groups.unit
    rows, columns, depth = (axes[0] for axes in groups.axes)
    extents = [upper_of(axis) for axis in (rows, columns, depth)]
    used = math.prod(_used(extents[kind], groups.side(kind)) for kind in range(3))
    if min(extents) < FEWEST or used < LEAST_USED:
        return None
    others = [a for a in facts.ranges if a not in (rows, columns)]
    outside = math.prod(map(upper_of, others))
    waves, tiles = _shape(facts, unit, extents, outside)
    product = MatrixProduct(
        groups.reduce,
        unit,
        _operand(facts, groups.left, rows, depth),
        _operand(facts, groups.right, columns, depth),
        depth,
        waves,
        tiles,
        steps=2 if extents[2] >= 2 * unit.depth else 1,
        shared=math.prod(waves) > 1,
    )
    tile_of = {
        rows: Tile(waves[0] * tiles[0], unit.rows),
        columns: Tile(waves[1] * tiles[1], unit.columns),
    }
    order = (*others, rows, columns)
    return Choice(
        facts, product, order, tile_of, {groups.reduce: (*groups.axes[_DEPTH][1:], depth)}
    )


def _shape(
    facts: Facts, unit: MatrixUnit, extents: Sequence[int], outside: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Waves and tiles of a wave: the largest with enough blocks and few tiles beyond the end."""
    sides = (unit.rows, unit.columns)
    shapes = [
        (waves, (down * _SQUARE // unit.rows, across * _SQUARE // unit.columns))
        for waves, (down, across) in _SHAPES
    ]
    best = shapes[-1]
    for waves, tiles in shapes:
        blocks, covered = outside, 1.0
        for i, side in enumerate(sides):
            passes = -(-extents[i] // (side * waves[i] * tiles[i]))
            blocks *= passes
            covered *= passes * waves[i] * tiles[i] / -(-extents[i] // side)
        if covered <= 1.25 and math.prod(waves) * unit.lanes <= facts.target.block_threads:
            best = (waves, tiles)
            if blocks >= facts.target.threads:
                break
    return best


def _operand(facts: Facts, value: Node, axis: Node, depth: Node) -> Operand:
    loads = [load for load in find(value, Op.LOAD) if axis in facts.depends_of(load)]
    along_axis = any(facts.stride(load.src[1], axis) == 1 for load in loads)
    along_depth = any(facts.stride(load.src[1], depth) == 1 for load in loads)
    return Operand(value, axis, axis if along_axis and not along_depth else depth)


__all__ = ["Choice", "choose_unit"]
