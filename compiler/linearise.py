"""From a plan to a list of instructions: loops, registers, vector loads and stores.

An axis is walked in segments (whole tiles, then what is left), each with its own copy of the
loops inside it. Within a segment an axis stands for an index expression: the loop's counter times
the tile, plus the place in the tile, plus a lane variable. Every place of a tile rebuilds the
scalar expression with those indices; what two places share is one node, so it is computed once.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compiler.dtype import dtypes
from compiler.emit import Emitter, block_variable, lane_variable, thread_variable
from compiler.ir import Node, Op, index, toposort
from compiler.linear import LinearKernel
from compiler.lower import identity
from compiler.plan import Grid, Plan, Shared, Stage, count_bytes, count_operations, dependencies
from compiler.symbolic import (
    FALSE,
    TRUE,
    conjunction,
    idiv,
    less,
    linear,
    minimum,
    mod,
    mul,
    rebuild,
)

GROUPS_AT_ONCE = 8
"""Of threads, whose parts of a sum one thread adds up between two barriers."""


@dataclass(frozen=True)
class OpenAxis:
    """An axis inside its loop: the index at each unrolled place, and where a lane exists.

    `first` is where the tile begins, `offsets` how far from there each place is.
    """

    places: tuple[Node, ...]
    masks: tuple[Node, ...]
    lanes: int
    first: Node
    offsets: tuple[Node, ...]

    @property
    def step(self) -> int:
        """Positions of the tile."""
        return len(self.places) * self.lanes


@dataclass(frozen=True)
class Segment:
    """A run of loop passes over one tile: counters [start, stop), `first` position, tile shape.

    The places of a `ragged` one may lie beyond the axis' end.
    """

    start: Node
    stop: Node
    first: int
    unroll: int
    lanes: int
    looped: bool = True
    ragged: bool = False


def linearise(plan: Plan) -> LinearKernel:
    """The instruction list of a plan."""
    if plan.product is not None:
        from compiler.linearise_matrix import MatrixLineariser

        return MatrixLineariser(plan, plan.product).run()
    return Lineariser(plan).run()


class Lineariser:
    """Carries out one plan; `linearise_matrix.py` adds products by matrix units."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.depends = dependencies(plan.store)
        self.reduces = [n for n in toposort(plan.store) if n.op is Op.REDUCE]
        self.staged = {stage.load: stage for stage in plan.stages}
        self.shared = {shared.load: shared for shared in plan.shared}
        self.copies: dict[Shared, Node] = {}
        self.open: dict[Node, OpenAxis] = {}
        self.on_threads = plan.threads is not None
        self.emitter = Emitter(fixed_grid=self.on_threads)
        self.counter = itertools.count()
        self.locals: dict[Stage, Node] = {}
        # REDUCE -> its results, one for each combination of unrolled places
        self.results: dict[Node, dict[tuple[Node, ...], Node]] = {}

    def run(self) -> LinearKernel:
        """The instruction list."""
        self._outputs(0)
        plan = self.plan
        nodes = toposort(plan.store)
        buffers = sorted((n for n in nodes if n.op is Op.PARAM), key=lambda n: int(n.arg[0]))
        variables = sorted((n for n in nodes if n.op is Op.VARIABLE), key=lambda n: str(n.arg[0]))
        params = (*buffers, *variables)
        return LinearKernel(
            name=plan.name,
            params=params,
            body=tuple(self.emitter.body),
            grid=(plan.blocks(0), plan.blocks(1), plan.blocks(2)),
            block=plan.block,
            written=frozenset({params.index(plan.store.src[0])}),
            operations=count_operations(plan.store),
            bytes_moved=count_bytes(plan.store),
        )

    # ---- loops ----

    def _outputs(self, depth: int) -> None:
        """Opens the output loops from `depth` on, computing early what is already known."""
        with self._results_scope():
            for stage in self.plan.stages:
                if stage.depth == depth:
                    self._copy_to_local(stage)
            self._reduce_what_is_ready(self.reduces)
            if depth == len(self.plan.order):
                self._store()
                return
            axis = self.plan.order[depth]
            for segment in self._segments(axis):
                with self._opened(axis, segment):
                    self._outputs(depth + 1)

    @contextmanager
    def _results_scope(self) -> Iterator[None]:
        before = dict(self.results)
        yield
        self.results = before

    def _segments(self, axis: Node) -> list[Segment]:
        tile, extent = self.plan.tile(axis), axis.src[0]
        grid = self.plan.grid(axis)
        if self.on_threads and grid is not None:  # one copy of the code, whatever is left over
            passes = (extent + (tile.step - 1)) // tile.step
            share = self._share(grid, passes)
            return [Segment(*share, 0, tile.unroll, tile.lanes, ragged=True)]
        if extent.op is not Op.CONST:
            passes = (extent + (tile.lanes - 1)) // tile.lanes
            return [Segment(*self._share(grid, passes), 0, 1, tile.lanes)]
        whole, left = divmod(int(extent.arg), tile.step)
        segments = []
        if whole:
            start, stop = self._share(grid, index(whole))
            segments.append(Segment(start, stop, 0, tile.unroll, tile.lanes))
        if left:
            groups = -(-left // tile.lanes)
            start, stop, looped = index(0), index(1), False
            if grid and grid.blocks > 1:  # only the last block has the rest
                last = less(index(grid.blocks - 2), block_variable(grid.blocks))
                stop = Node(Op.WHERE, dtypes.index, (last, index(1), index(0)))
                looped = True
            segments.append(Segment(start, stop, whole * tile.step, groups, tile.lanes, looped))
        return segments

    @contextmanager
    def _opened(self, axis: Node, segment: Segment) -> Iterator[None]:
        """The axis as an index expression inside a segment's loop."""
        passes = segment.stop + segment.start * -1
        single = passes.op is Op.CONST and int(passes.arg) == 1
        with self.emitter.scope():
            if single or not segment.looped:
                counter, loop = segment.start, None
            else:
                counter = loop = self.emitter.loop(segment.start, segment.stop, next(self.counter))
            rest = not segment.looped or segment.first > 0
            base = (
                index(segment.first)
                if rest
                else mul(counter, index(segment.unroll * segment.lanes))
            )
            self.open[axis] = self._open_axis(axis, base, segment)
            yield
            del self.open[axis]
            if loop is not None:
                self.emitter.end(loop)

    def _open_axis(self, axis: Node, base: Node, segment: Segment) -> OpenAxis:
        places, masks, offsets = [], [], []
        for group in range(segment.unroll):
            offset, mask = index(group * segment.lanes), TRUE
            if segment.lanes > 1:
                offset = offset + self._lane(axis, segment.lanes)
            place = base + offset
            if segment.lanes > 1 or segment.ragged:
                mask = less(place, axis.src[0])
            if self.on_threads and mask is not TRUE:
                # Threads beyond the end repeat the last position: they load what exists, and only
                # what they would store or add is masked.
                place = minimum(place, axis.src[0] - 1)
            places.append(place)
            masks.append(mask)
            offsets.append(offset)
        return OpenAxis(tuple(places), tuple(masks), segment.lanes, base, tuple(offsets))

    def _lane(self, axis: Node, lanes: int) -> Node:
        """The index that differs between the lanes along an axis."""
        if self.plan.threads is None:
            return lane_variable(axis, lanes)
        return thread_variable(self.plan.threads[axis], lanes)

    def _share(self, grid: Grid | None, passes: Node) -> tuple[Node, Node]:
        """The part [start, stop) of all passes that falls to this block."""
        if grid is None or grid.blocks == 1:
            return index(0), passes
        number = block_variable(self.plan.blocks(grid.dimension), grid.dimension)
        start = mod(idiv(number, index(grid.stride)), index(grid.blocks)) * grid.chunk
        return start, minimum(start + grid.chunk, passes)

    # ---- places ----

    def _places(self, axes: Sequence[Node]) -> list[dict[Node, Node]]:
        """Every combination of the axes' unrolled places, as replacements for the axes."""
        choices = [self.open[axis].places for axis in axes]
        return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*choices)]

    def _open_among(self, node: Node) -> list[Node]:
        return [axis for axis in self.open if axis in self.depends[node]]

    def _mask(self, places: Mapping[Node, Node]) -> Node:
        mask = TRUE
        for axis, place in places.items():
            axis_open = self.open[axis]
            mask = conjunction(mask, axis_open.masks[axis_open.places.index(place)])
        return mask

    def _value(self, root: Node, places: Mapping[Node, Node]) -> Node:
        """The scalar expression at one place, as an emitted instruction."""
        replacements = dict(places)
        known = (self.results, self.staged, self.shared)
        for node in toposort(root, lambda n: not any(n in found for found in known)):
            if node in self.results:
                key = tuple(places[a] for a in self._open_among(node))
                replacements[node] = self.results[node][key]
            elif node in self.staged:
                replacements[node] = self._staged_load(self.staged[node], places)
            elif node in self.shared:
                replacements[node] = self._shared_load(node, places)
        return self.emitter.emit(rebuild(root, replacements), self._mask(places))

    def _store(self) -> None:
        pointer, address, value = self.plan.store.src
        everywhere = self._places(list(self.open))
        addresses = [rebuild(address, places) for places in everywhere]
        if len(everywhere) > 1 and not self.emitter.is_consecutive(addresses[0]):
            self._store_by_lane(everywhere, addresses)
            return
        one_of_many = self._first_of_equal_threads()
        for places, here in zip(everywhere, addresses, strict=True):
            mask = conjunction(one_of_many, self._mask(places))
            if mask is not FALSE:
                self.emitter.store(pointer, here, self._value(value, places), mask)

    def _first_of_equal_threads(self) -> Node:
        """Of the threads that hold the same value, which is to store it."""
        if self.plan.threads is None:
            return TRUE
        used = {self.plan.threads[a] for a in self.open if self.open[a].lanes > 1}
        mask = TRUE
        for dimension, threads in enumerate(self.plan.block):
            if dimension not in used:
                mask = conjunction(mask, less(thread_variable(dimension, threads), index(1)))
        return mask

    def _store_by_lane(
        self, everywhere: Sequence[Mapping[Node, Node]], addresses: Sequence[Node]
    ) -> None:
        """Stores whose lanes lie apart: through local memory, then one lane after the other."""
        pointer, _, value = self.plan.store.src
        (axis,) = (a for a in self.open if self.open[a].lanes > 1)
        lanes = self.open[axis].lanes
        lane = lane_variable(axis, lanes)
        tile = self.emitter.local(value.dtype, next(self.counter), len(everywhere) * lanes)
        for number, places in enumerate(everywhere):
            vector = self.emitter.widen(self._value(value, places), lanes)
            self.emitter.store(tile, lane + number * lanes, vector, TRUE)
        with self.emitter.scope():
            counter = self.emitter.loop(index(0), index(lanes), next(self.counter))
            one = {lane: counter}
            for number, (places, here) in enumerate(zip(everywhere, addresses, strict=True)):
                load = Node(Op.LOAD, value.dtype, (tile, counter + number * lanes))
                mask = rebuild(self._mask(places), one)
                self.emitter.store(pointer, rebuild(here, one), self.emitter.emit(load, TRUE), mask)
            self.emitter.end(counter)

    # ---- reductions ----

    def _reduce_what_is_ready(self, candidates: Sequence[Node]) -> None:
        """Every REDUCE whose axes are all open is computed here, before further loops open."""
        for node in candidates:
            if node not in self.results and self.depends[node] <= self.open.keys():
                self.results[node] = self._reduce(node)

    def _reduce(self, node: Node) -> dict[tuple[Node, ...], Node]:
        op = node.arg
        axes = self.plan.reduce_order.get(node, node.src[1:])
        outer = self._open_among(node)
        outputs = self._places(outer)
        lanes = self._lanes_of(node, outer)
        reduce_lanes = max(self.plan.tile(axis).lanes for axis in axes)
        dtype = node.dtype.vec(1 if self.on_threads else max(lanes, reduce_lanes))
        parallel = 1
        if len(outputs) <= 4:  # too few registers in flight to hide latency: split the sum
            widest = max(self.plan.tile(axis).unroll for axis in axes)
            parallel = min(widest, 16 // len(outputs))
        start = self.emitter.emit(identity(op, node.dtype), TRUE)
        start = self.emitter.widen(start, dtype.lanes)
        registers = [
            [self.emitter.accumulator(start, next(self.counter)) for _ in range(parallel)]
            for _ in outputs
        ]
        inner = [n for n in self.reduces if n is not node and set(axes) & self.depends[n]]
        self._reduce_loops(node, axes, 0, outputs, registers, inner)
        totals = []
        for parts in registers:
            total = self.emitter.read(parts[0], next(self.counter))
            for part in parts[1:]:
                total = self.emitter.alu(op, total, self.emitter.read(part, next(self.counter)))
            if reduce_lanes > 1 and not self.on_threads:
                total = self.emitter.across_lanes(op, total)
            totals.append(total)
        if self.on_threads:
            for axis in axes:
                if self.plan.tile(axis).lanes > 1:
                    totals = self._across_threads(op, axis, totals)
        keys = (tuple(places[a] for a in outer) for places in outputs)
        return dict(zip(keys, totals, strict=True))

    def _across_threads(self, op: Op, axis: Node, parts: Sequence[Node]) -> list[Node]:
        """The parts of all threads along an axis combined, through local memory.

        In each step a thread reads the parts of a few groups of threads, its own among them, and
        so every thread of the larger group has their total. Two arrays take turns: one is read
        while the other is written.
        """
        assert self.plan.threads is not None
        emitter, block = self.emitter, self.plan.block
        dimension, size = self.plan.threads[axis], math.prod(block)
        strides = (1, block[0], block[0] * block[1])
        mine = thread_variable(dimension, block[dimension])
        others = index(0)
        for d in range(3):
            if d != dimension:
                others = others + thread_variable(d, block[d]) * strides[d]
        stride, totals, count = strides[dimension], list(parts), 1
        arrays: list[Node] = []
        while count < block[dimension]:
            if len(arrays) < 2:
                array = emitter.local(parts[0].dtype, next(self.counter), size * len(parts))
                arrays.insert(0, array)
            local = arrays[0]
            for number, total in enumerate(totals):
                emitter.store(local, others + mine * stride + number * size, total, TRUE)
            emitter.barrier()
            groups = min(GROUPS_AT_ONCE, block[dimension] // count)
            first = idiv(mine, index(count * groups)) * (count * groups)
            for number in range(len(totals)):
                read = [
                    emitter.emit(Node(Op.LOAD, parts[0].dtype, (
                        local, others + (first + group * count) * stride + number * size
                    )), TRUE)
                    for group in range(groups)
                ]
                totals[number] = functools.reduce(functools.partial(emitter.alu, op), read)
            arrays.reverse()
            count *= groups
        emitter.barrier()  # the arrays may be written again
        return totals

    def _lanes_of(self, node: Node, outer: Sequence[Node]) -> int:
        return max((self.open[axis].lanes for axis in outer), default=1)

    def _reduce_loops(
        self,
        node: Node,
        axes: Sequence[Node],
        depth: int,
        outputs: Sequence[Mapping[Node, Node]],
        registers: Sequence[Sequence[Node]],
        inner: Sequence[Node],
    ) -> None:
        if depth < len(axes):
            for segment in self._segments(axes[depth]):
                with self._opened(axes[depth], segment):
                    self._reduce_loops(node, axes, depth + 1, outputs, registers, inner)
            return
        with self._results_scope():
            self._reduce_what_is_ready(inner)
            self._copy_together([s for s in self.plan.shared if s.reduce is node])
            for number, here in enumerate(self._places(axes)):
                mask = self._mask(here)
                for places, parts in zip(outputs, registers, strict=True):
                    value = self._value(node.src[0], {**places, **here})
                    if mask is not TRUE:
                        nothing = identity(node.arg, node.dtype)
                        value = self.emitter.choose(mask, value, nothing)
                    register = parts[number % len(parts)]
                    self.emitter.update(register, value, node.arg)

    # ---- local memory of threads ----

    def _copy_together(self, wanted: Sequence[Shared]) -> None:
        """Copies what the block's threads are about to read, each thread its share."""
        if not wanted:
            return
        emitter, block = self.emitter, self.plan.block
        strides = (1, block[0], block[0] * block[1])
        thread = index(0)
        for d in range(3):
            thread = thread + thread_variable(d, block[d]) * strides[d]
        emitter.barrier()  # all have read what the last pass needed
        for shared in wanted:
            axes = self._tile_axes(shared.load)
            size = math.prod(self.open[axis].step for axis in axes)
            if shared not in self.copies:
                most = math.prod(self.plan.tile(axis).step for axis in axes)
                self.copies[shared] = emitter.local(shared.load.dtype, next(self.counter), most)
            for start in range(0, size, math.prod(block)):
                number = thread + start
                places, offsets, rest = {}, {}, number
                for axis in reversed(axes):
                    opened = self.open[axis]
                    offsets[axis] = mod(rest, index(opened.step))
                    places[axis] = minimum(opened.first + offsets[axis], axis.src[0] - 1)
                    rest = idiv(rest, index(opened.step))
                value = emitter.emit(rebuild(shared.load, places), TRUE)
                address = self._copy_address(shared.load, offsets)
                emitter.store(self.copies[shared], address, value, less(number, index(size)))
        emitter.barrier()

    def _tile_axes(self, load: Node) -> list[Node]:
        """The axes that a LOAD's address depends on, neighbours in memory last."""
        strides, _ = linear(load.src[1])
        return sorted(self._open_among(load), key=lambda axis: -abs(strides.get(axis, 0)))

    def _shared_load(self, load: Node, places: Mapping[Node, Node]) -> Node:
        """The LOAD from the common copy that stands for `load` at one place."""
        offsets = {}
        for axis in self._tile_axes(load):
            opened = self.open[axis]
            offsets[axis] = opened.offsets[opened.places.index(places[axis])]
        address = self._copy_address(load, offsets)
        return Node(Op.LOAD, load.dtype, (self.copies[self.shared[load]], address))

    def _copy_address(self, load: Node, offsets: Mapping[Node, Node]) -> Node:
        """Where in the common copy an element lies: as in memory, but threads along x last."""
        threads = self.plan.threads or {}
        along_x = [a for a in offsets if threads.get(a) == 0]
        address = index(0)
        for axis in [*(a for a in self._tile_axes(load) if a not in along_x), *along_x]:
            address = address * self.open[axis].step + offsets[axis]
        return address

    # ---- local memory of a processor ----

    def _copy_to_local(self, stage: Stage) -> None:
        """Copies what a staged LOAD reads inside the open output loops."""
        load = stage.load
        axes = [a for a in self._reduce_axes(stage) if a in self.depends[load]]
        outer = self._open_among(load)
        if stage not in self.locals:
            groups = 1
            for axis in outer:
                groups *= self.plan.tile(axis).step
            for axis in axes:
                groups *= int(axis.src[0].arg)
            self.locals[stage] = self.emitter.local(load.dtype, next(self.counter), groups)
        self._copy_loops(stage, axes, 0)

    def _copy_loops(self, stage: Stage, axes: Sequence[Node], depth: int) -> None:
        if depth < len(axes):
            passes = Segment(index(0), axes[depth].src[0], 0, 1, 1)
            with self._opened(axes[depth], passes):
                self._copy_loops(stage, axes, depth + 1)
            return
        for places in self._places(self._open_among(stage.load)):
            value = self.emitter.emit(rebuild(stage.load, places), self._mask(places))
            address = self._staged_load(stage, places).src[1]
            self.emitter.store(self.locals[stage], address, value, TRUE)

    def _reduce_axes(self, stage: Stage) -> tuple[Node, ...]:
        return self.plan.reduce_order.get(stage.reduce, stage.reduce.src[1:])

    def _staged_load(self, stage: Stage, places: Mapping[Node, Node]) -> Node:
        """The LOAD from the local copy that stands for the staged LOAD at one place."""
        load = stage.load
        address = index(0)
        for axis in self._reduce_axes(stage):
            if axis in self.depends[load]:
                address = address * int(axis.src[0].arg) + places[axis]
        for axis in self._open_among(load):
            if axis in self.plan.order:
                opened = self.open[axis]
                group = opened.places.index(places[axis])
                address = address * self.plan.tile(axis).unroll + group
        lanes = max((self.plan.tile(a).lanes for a in self._open_among(load)), default=1)
        address = address * lanes
        for axis in self._open_among(load):
            if axis in self.plan.order and self.open[axis].lanes > 1:
                address = address + lane_variable(axis, lanes)
        return Node(Op.LOAD, load.dtype, (self.locals[stage], address))
