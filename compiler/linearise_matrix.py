"""Products by matrix units as instructions: fragments of the factors, MATRIX, elements of the sums.

The threads along x are a wave, those along y and z count waves along rows and columns. Which rows
and columns a thread's sums belong to follows from the unit's fragment of C, so the output's
axes are opened with those positions, and whatever follows the product reads sums as it reads
other reductions. Fragments of A and B have positions of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compiler.emit import thread_variable
from compiler.ir import Node, Op, index
from compiler.linearise import Lineariser, OpenAxis, Segment
from compiler.lower import identity
from compiler.matrix import Positions
from compiler.plan import MatrixProduct, Operand, Plan
from compiler.symbolic import FALSE, TRUE, idiv, less, minimum, mod, rebuild

FETCHED_BYTES = 16
"""What one thread fetches of a factor at a time, where so much lies together."""

PADDING_BYTES = 16
"""Between rows in local memory, so that the lanes of a wave read different banks."""


class _Part(NamedTuple):
    """Where the fragments of one factor lie: positions along its own axis, and along the depth."""

    operand: Operand
    across: Positions
    along: Positions
    items: int


class MatrixLineariser(Lineariser):
    """Carries out a plan with a MatrixProduct."""

    def __init__(self, plan: Plan, product: MatrixProduct) -> None:
        super().__init__(plan)
        self.product, self.unit = product, product.unit
        unit = product.unit
        self.sides = {
            product.left.axis: (unit.rows, product.tiles[0], product.waves[0], 1),
            product.right.axis: (unit.columns, product.tiles[1], product.waves[1], 2),
        }
        """Of an output axis: positions of a tile, tiles of a wave, waves, their dimension."""
        # (tile, offset in it) of each place of an output axis
        self.numbers: dict[Node, list[tuple[int, int]]] = {}
        self.factors: dict[Operand, Node] = {}

    # ---- axes ----

    def _segments(self, axis: Node) -> list[Segment]:
        """The depth in passes of whole steps; the last may go beyond the end."""
        if axis is not self.product.depth:
            return super()._segments(axis)
        step = self.product.steps * self.unit.depth
        whole, left = divmod(int(axis.src[0].arg), step)
        found = [Segment(index(0), index(whole), 0, step, 1)] if whole else []
        if left:
            found.append(Segment(index(0), index(1), whole * step, step, 1, False, True))
        return found

    def _open_axis(self, axis: Node, base: Node, segment: Segment) -> OpenAxis:
        if axis is self.product.depth:
            return OpenAxis((base,), (TRUE,), segment.unroll, base, (index(0),))
        if axis not in self.sides:
            return super()._open_axis(axis, base, segment)
        which = 0 if axis is self.product.left.axis else 1
        side, tiles, waves, _ = self.sides[axis]
        places, masks, offsets = [], [], []
        numbers = self.numbers[axis] = []
        for tile in range(tiles):
            for item in self.unit.c.offsets(which):
                offset = self._across(axis, self.unit.c.axes[which], tile) + item
                mask = less(base + offset, axis.src[0])
                if mask is not FALSE:  # so that places that repeat the last one differ
                    places.append(minimum(base + offset, axis.src[0] - 1))
                    masks.append(mask)
                    offsets.append(offset)
                    numbers.append((tile, item))
        lanes = side * tiles * waves // max(1, len(places))
        return OpenAxis(tuple(places), tuple(masks), lanes, base, tuple(offsets))

    def _across(self, axis: Node, positions: Positions, tile: int) -> Node:
        """Where a tile's elements of this lane begin, from the start of the block's part."""
        side, tiles, waves, dimension = self.sides[axis]
        wave = thread_variable(dimension, waves)
        return wave * (tiles * side) + tile * side + self._of_lane(positions)

    def _of_lane(self, positions: Positions) -> Node:
        lane, total = thread_variable(0, self.unit.lanes), index(0)
        for divisor, base, weight in positions.lanes:
            total = total + mod(idiv(lane, index(divisor)), index(base)) * weight
        return total

    def _first_of_equal_threads(self) -> Node:
        """Every element of C is in one lane only."""
        return TRUE

    # ---- the product ----

    def _reduce(self, node: Node) -> dict[tuple[Node, ...], Node]:
        product, unit, emitter = self.product, self.unit, self.emitter
        if node is not product.reduce:
            return super()._reduce(node)
        start = emitter.emit(identity(Op.ADD, unit.sums), TRUE)
        start = emitter.widen(start, unit.c.items)
        registers = [
            [emitter.accumulator(start, next(self.counter)) for _ in range(product.tiles[1])]
            for _ in range(product.tiles[0])
        ]
        self._passes(self.plan.reduce_order[node], registers)
        totals = [[emitter.read(acc, next(self.counter)) for acc in row] for row in registers]
        outer = self._open_among(node)
        results = {}
        rows, columns = product.left.axis, product.right.axis
        for row, (i, first) in zip(self.open[rows].places, self.numbers[rows], strict=True):
            pairs = zip(self.open[columns].places, self.numbers[columns], strict=True)
            for column, (j, second) in pairs:
                here = {rows: row, columns: column}
                key = tuple(here.get(axis, self.open[axis].places[0]) for axis in outer)
                results[key] = emitter.lane(totals[i][j], unit.c.item(first, second))
        return results

    def _passes(self, axes: Sequence[Node], registers: Sequence[Sequence[Node]]) -> None:
        if axes:
            for segment in self._segments(axes[0]):
                with self._opened(axes[0], segment):
                    self._passes(axes[1:], registers)
            return
        unit, product = self.unit, self.product
        parts = (
            _Part(product.left, *unit.a.axes, unit.a.items),
            _Part(product.right, *unit.b.axes[::-1], unit.b.items),
        )
        if product.shared:
            self._fetch([part.operand for part in parts])
        for step in range(product.steps):
            left, right = (self._fragments(part, step) for part in parts)
            for i, a in enumerate(left):
                for j, b in enumerate(right):
                    self.emitter.multiply(registers[i][j], a, b, unit)

    def _fragments(self, part: _Part, step: int) -> list[list[Node]]:
        """The items of this thread, for each tile of its wave."""
        deep = self._of_lane(part.along) + step * self.unit.depth
        found = []
        for tile in range(self.sides[part.operand.axis][1]):
            across = self._across(part.operand.axis, part.across, tile)
            items = (
                (across + part.across.of_item(i), deep + part.along.of_item(i))
                for i in range(part.items)
            )
            found.append([self._element(part.operand, *place) for place in items])
        return found

    def _element(self, operand: Operand, across: Node, deep: Node) -> Node:
        """A factor's element at offsets from where the pass begins; 0 beyond the depth's end."""
        if self.product.shared:
            at = across * self._row_length(operand) + deep
            load = Node(Op.LOAD, self.unit.inputs, (self.factors[operand], at))
            return self.emitter.emit(load, TRUE)
        return self._evaluate(operand, across, deep)

    def _evaluate(self, operand: Operand, across: Node, deep: Node) -> Node:
        places, inside = {}, TRUE
        for axis in self._open_among(operand.value):
            places[axis] = self.open[axis].places[0]
        for axis, offset in ((operand.axis, across), (self.product.depth, deep)):
            place = self.open[axis].first + offset
            places[axis] = minimum(place, axis.src[0] - 1)
            if axis is self.product.depth:
                inside = less(place, axis.src[0])
        value = self.emitter.emit(rebuild(operand.value, places), TRUE)
        if inside is TRUE:
            return value
        return self.emitter.choose(inside, value, identity(Op.ADD, self.unit.inputs))

    # ---- factors in local memory ----

    def _row_length(self, operand: Operand) -> int:
        """Elements from one position across to the next; the depth lies together."""
        return self._deep() + PADDING_BYTES // self.unit.inputs.itemsize

    def _deep(self) -> int:
        return self.product.steps * self.unit.depth

    def _fetch(self, operands: Sequence[Operand]) -> None:
        """Copies what the block needs in this pass, each thread its share.

        Values are on their way before the barrier behind which the last ones may be overwritten.
        """
        emitter = self.emitter
        stores = [store for operand in operands for store in self._share_of(operand)]
        emitter.barrier()
        for copy, at, value, mask in stores:
            emitter.store(copy, at, value, mask)
        emitter.barrier()

    def _share_of(self, operand: Operand) -> list[tuple[Node, Node, Node, Node]]:
        """(array, address, value, mask) of what a thread fetches of a factor."""
        side, tiles, waves, _ = self.sides[operand.axis]
        spans = {operand.axis: side * tiles * waves, self.product.depth: self._deep()}
        if operand not in self.factors:
            size = spans[operand.axis] * self._row_length(operand)
            array = self.emitter.local(self.unit.inputs, next(self.counter), size)
            self.factors[operand] = array
        block, thread, stride = self.plan.block, index(0), 1
        for dimension in range(3):
            thread = thread + thread_variable(dimension, block[dimension]) * stride
            stride *= block[dimension]
        width = math.gcd(FETCHED_BYTES // self.unit.inputs.itemsize, spans[operand.fastest])
        runs = math.prod(spans.values()) // width
        in_row = spans[operand.fastest] // width
        found = []
        for start in range(0, runs, math.prod(block)):
            run = thread + start
            inside = less(run, index(runs))
            slow, fast = idiv(run, index(in_row)), mod(run, index(in_row)) * width
            for place in range(width):
                across, deep = slow, fast + place
                if operand.fastest is operand.axis:
                    across, deep = deep, across
                value = self._evaluate(operand, across, deep)
                at = across * self._row_length(operand) + deep
                found.append((self.factors[operand], at, value, inside))
        return found
