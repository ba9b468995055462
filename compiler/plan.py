"""How a kernel is to be run: the order of its loops, their tiles, and what is kept close by.

A plan changes no value. `optimise.py` makes it from a Target, `linearise.py` carries it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler.dtype import dtypes
from compiler.ir import ALU, Node, Op, toposort, upper
from compiler.matrix import MatrixUnit

_COUNTED = ALU - {Op.CAST, Op.BITCAST}


@dataclass(frozen=True)
class Tile:
    """How much of an axis one pass of its loop covers: `unroll` groups of `lanes` positions."""

    unroll: int = 1
    lanes: int = 1

    @property
    def step(self) -> int:
        """Positions covered by one pass."""
        return self.unroll * self.lanes


@dataclass(frozen=True)
class Stage:
    """A LOAD whose values are copied into local memory once `depth` output loops are open.

    The copy is laid out in the order in which the inner loops read it: the reduce axes of
    `reduce` from slowest to fastest, then the open tiles, lanes last.
    """

    load: Node
    reduce: Node
    depth: int


@dataclass(frozen=True)
class Shared:
    """A LOAD whose values the threads of a block fetch together, on GPUs.

    Before every pass of `reduce`'s innermost loop, they copy what all of them will read in it into
    local memory, each element once, laid out as in `load`'s buffer.
    """

    load: Node
    reduce: Node


@dataclass(frozen=True)
class Grid:
    """An output axis that is shared out among blocks, `chunk` loop passes to each.

    The grid has three dimensions; where several axes share one, this axis' number of the block
    is the block's number there, divided by `stride`, modulo `blocks`.
    """

    range: Node
    chunk: int
    blocks: int
    dimension: int = 0
    stride: int = 1


@dataclass(frozen=True)
class Operand:
    """A factor of a product: its `value` in the type of the unit's inputs, along `axis` and depth.

    `fastest` is the one of the two axes along which neighbours lie closest in memory.
    """

    value: Node
    axis: Node
    fastest: Node


@dataclass(frozen=True)
class MatrixProduct:
    """A REDUCE of products that waves compute with a matrix unit.

    `left` gives the rows of the result, `right` the columns; `depth` is the innermost axis of the
    sum. A block has `waves` along rows and along columns, each of which has `tiles` of the unit's
    size along both; a pass goes `steps` of the unit's depth forwards. Factors that are `shared` go
    through local memory, each element of them fetched once for the block.
    """

    reduce: Node
    unit: MatrixUnit
    left: Operand
    right: Operand
    depth: Node
    waves: tuple[int, int]
    tiles: tuple[int, int]
    steps: int
    shared: bool

    def describe(self) -> str:
        """The product in words."""
        (tall, wide), (down, across) = self.waves, self.tiles
        inside = ", factors through local memory" if self.shared else ""
        return f"{self.unit.name}: {tall} × {wide} waves of {down} × {across} tiles{inside}"


@dataclass(frozen=True)
class Plan:
    """`order` are the output axes from the outermost loop in; `reduce_order` those of REDUCEs.

    `threads` says where the lanes of tiles are: None on a processor, in vector registers. On a
    GPU they are neighbouring threads, and `threads` has the dimension of the block (0 is x) for
    every axis with lanes. Axes may share a dimension if they have equally many lanes. With a
    `product` the threads along x are a wave, and which positions they have is the unit's business.
    """

    name: str
    store: Node
    order: tuple[Node, ...]
    tiles: Mapping[Node, Tile] = field(default_factory=dict)
    reduce_order: Mapping[Node, tuple[Node, ...]] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    grids: tuple[Grid, ...] = ()
    threads: Mapping[Node, int] | None = None
    shared: tuple[Shared, ...] = ()
    product: MatrixProduct | None = None

    def tile(self, axis: Node) -> Tile:
        """The tile of an axis; one position at a time unless planned otherwise."""
        return self.tiles.get(axis, Tile())

    def grid(self, axis: Node) -> Grid | None:
        """How an axis is shared out among blocks, if it is."""
        return next((grid for grid in self.grids if grid.range is axis), None)

    def blocks(self, dimension: int) -> int:
        """How many blocks the grid has along a dimension."""
        return math.prod(grid.blocks for grid in self.grids if grid.dimension == dimension)

    @property
    def block(self) -> tuple[int, int, int]:
        """Threads of a block."""
        if self.product is not None:
            return (self.product.unit.lanes, *self.product.waves)
        sizes = [1, 1, 1]
        for axis, dimension in (self.threads or {}).items():
            sizes[dimension] = self.tile(axis).lanes
        return (sizes[0], sizes[1], sizes[2])

    def describe(self) -> str:
        """The plan in words, for DEBUG=3."""
        lines = [f"kernel {self.name}"]
        for axis in self.order:
            lines.append(f"  {self._axis(axis)}")
            grid = self.grid(axis)
            if grid is not None:
                lines[-1] += f", {grid.blocks} blocks of {grid.chunk} passes"
        for reduce in (n for n in toposort(self.store) if n.op is Op.REDUCE):
            axes = self.reduce_order.get(reduce, reduce.src[1:])
            lines += [f"  reduce {reduce.arg.name} {self._axis(axis)}" for axis in axes]
        for stage in self.stages:
            lines.append(f"  stage argument {stage.load.src[0].arg[0]} at depth {stage.depth}")
        for shared in self.shared:
            lines.append(f"  argument {shared.load.src[0].arg[0]} through local memory")
        if self.product is not None:
            lines.append(f"  {self.product.describe()}")
        return "\n".join(lines)

    def _axis(self, axis: Node) -> str:
        tile = self.tile(axis)
        parts = [f"axis {axis!r} of {axis.src[0]!r}"]
        if tile.unroll > 1:
            parts.append(f"unrolled {tile.unroll}")
        if tile.lanes > 1:
            inside = f" along {'xyz'[self.threads[axis]]}" if self.threads else ""
            parts.append(f"{tile.lanes} {'threads' if inside else 'lanes'}{inside}")
        return ", ".join(parts)


def count_operations(store: Node) -> int:
    """Arithmetic operations on values in the whole kernel, each as often as it happens."""
    depends = dependencies(store)
    total = 0
    for node in toposort(store):
        if node.op is Op.REDUCE:
            axes = depends[node.src[0]] | frozenset(node.src[1:])
        elif node.op in _COUNTED and node.dtype not in (dtypes.index, dtypes.bool):
            axes = depends[node]
        else:
            continue
        total += math.prod(upper(axis.src[0]) for axis in axes)
    return total


def count_bytes(store: Node) -> int:
    """Bytes of every buffer that the kernel touches, each counted once."""
    buffers = {node for node in toposort(store) if node.op is Op.PARAM}
    return sum(int(b.arg[1]) * b.dtype.itemsize for b in buffers)


def dependencies(root: Node) -> dict[Node, frozenset[Node]]:
    """For every node below `root` the RANGEs its value depends on (a REDUCE hides its own)."""
    found: dict[Node, frozenset[Node]] = {}
    for node in toposort(root):
        if node.op is Op.RANGE:
            found[node] = frozenset((node,))
        elif node.op is Op.REDUCE:
            found[node] = found[node.src[0]] - frozenset(node.src[1:])
        else:
            found[node] = frozenset().union(*(found[s] for s in node.src))
    return found
