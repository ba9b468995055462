"""A GPU's kernel for the processor, with the same schedule: what emulation is measured against.

`on_lanes` rewrites the instructions of one GPU thread into those of a whole block: the same loads,
sums, tiles, local arrays and grid, with neighbouring threads along x in the lanes of a vector
register and the others in loops. Where threads wait for each other, those loops end and begin
again, and what a thread still needs is kept in an array. The result goes through the processor's
own renderer and LLVM's full optimisation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from compiler.dtype import dtypes
from compiler.emit import LANE_ID, Emitter, block_variable
from compiler.ir import Node, Op, index
from compiler.linear import LinearKernel
from compiler.symbolic import TRUE, rebuild

LANE_BITS = 32
"""How wide an element is taken to be when lanes are counted for a vector register."""


@dataclass(frozen=True)
class Loop:
    """A LOOP, what is in it, and its END."""

    counter: Node
    body: Sequence[Item]


Item: TypeAlias = "Node | Loop"


def on_lanes(kernel: LinearKernel, vector_bits: int) -> LinearKernel:
    """The kernel of a block of threads as one of a single thread with vectors."""
    return _Block(kernel, vector_bits // LANE_BITS).run()


def _nested(body: Iterator[Node]) -> list[Item]:
    """Instructions up to the END that closes them, loops as one item each."""
    items: list[Item] = []
    for node in body:
        if node.op is Op.END:
            break
        items.append(Loop(node, _nested(body)) if node.op is Op.LOOP else node)
    return items


def _flat(items: Sequence[Item]) -> Iterator[Node]:
    for item in items:
        if isinstance(item, Loop):
            yield item.counter
            yield from _flat(item.body)
        else:
            yield item


def _meets(item: Item) -> bool:
    """Whether the block's threads wait for each other in it."""
    return any(node.op is Op.BARRIER for node in _flat([item]))


class _Block:
    def __init__(self, kernel: LinearKernel, lanes: int) -> None:
        self.kernel, self.block = kernel, kernel.block
        self.lanes = math.gcd(self.block[0], lanes)
        self.lane = index(0)
        if self.lanes > 1:
            self.lane = Node(Op.RANGE, dtypes.index, (index(self.lanes),), (LANE_ID, False))
        self.emitter = Emitter()
        self.counter = itertools.count(1 << 16)
        self.known: dict[Node, Node] = {}  # the GPU's instruction → an expression of ours
        self.changing: dict[Node, bool] = {}
        self.registers: dict[Node, Node] = {}  # ACC → ours, within a run
        self.kept: dict[Node, Node] = {}  # what outlives a run → the array that holds it
        self.place = index(0)  # where the running threads' elements lie in such an array
        self.outliving = self._outliving(_nested(iter(kernel.body)))

    def run(self) -> LinearKernel:
        for node in self.kernel.body:
            if node.op is Op.LOCAL:
                self.known[node] = self.emitter.local(node.dtype, *node.arg)
            elif node.op is Op.GRID:
                self.known[node] = block_variable(int(node.src[0].arg), node.arg)
        self._items(_nested(iter(self.kernel.body)))
        return replace(self.kernel, body=tuple(self.emitter.body), block=(1, 1, 1))

    # ---- runs: instructions between two meetings of the threads ----
    def _runs(self, items: Sequence[Item]) -> Iterator[tuple[bool, list[Item]]]:
        """(whether threads meet in them, items): neighbours that do not meet are one run."""
        for meets, group in itertools.groupby(items, _meets):
            yield meets, list(group)

    def _outliving(self, items: Sequence[Item]) -> set[Node]:
        """Registers and loaded values that are used in another run than they are made in."""
        made: dict[Node, int] = {}
        found: set[Node] = set()
        number = itertools.count()

        def visit(items: Sequence[Item]) -> None:
            for meets, group in self._runs(items):
                if meets:
                    for item in group:
                        visit(item.body if isinstance(item, Loop) else [])
                    continue
                run = next(number)
                for node in _flat(group):
                    for source in node.src:
                        if made.get(source, run) != run and self._changes(source):
                            found.add(source)
                    made[node] = run

        visit(items)
        return found

    def _changes(self, node: Node) -> bool:
        """Whether computing a value again could give another one."""
        if node not in self.changing:
            self.changing[node] = node.op in (Op.LOAD, Op.GET, Op.ACC) or (
                node.op is not Op.LOOP and any(self._changes(s) for s in node.src)
            )
        return self.changing[node]

    def _items(self, items: Sequence[Item]) -> None:
        for meets, group in self._runs(items):
            if not meets:
                self._run(group)
                continue
            for item in group:
                if isinstance(item, Loop):
                    with self._loop(item.counter):
                        self._items(item.body)

    def _run(self, items: Sequence[Item]) -> None:
        """All threads of the block through the same instructions, some lanes at a time."""
        inside = dict.fromkeys(_flat(items))
        wanted = dict.fromkeys(inside) | dict.fromkeys(s for n in inside for s in n.src)
        outliving = [node for node in wanted if node in self.outliving]
        registers = [node for node in outliving if node.op is Op.ACC]
        numbers = (self.block[2], self.block[1], self.block[0] // self.lanes)
        before = dict(self.known)
        with self._threads(numbers, []) as (z, y, x):
            self.place = ((z * self.block[1] + y) * numbers[2] + x) * self.lanes + self.lane
            ids = (x * self.lanes + self.lane, y, z)
            self.known |= {n: ids[n.arg] for n in self.kernel.body if n.op is Op.THREAD}
            for node in outliving:
                if node in inside:
                    continue
                if node.op is Op.ACC:
                    start = self._wide(self._emit(self._load_kept(node)))
                    self.registers[node] = self.emitter.accumulator(start, next(self.counter))
                else:
                    self.known[node] = self._load_kept(node)
            self._body(items)
            for node in registers:
                self._keep(node, self.emitter.read(self.registers[node], next(self.counter)))
        self.known = before

    @contextmanager
    def _threads(self, numbers: Sequence[int], inside: list[Node]) -> Iterator[list[Node]]:
        """Loops over the threads along z, y and x; one that runs once is none."""
        if len(inside) == len(numbers):
            with self.emitter.scope():
                yield inside
            return
        number = numbers[len(inside)]
        if number == 1:
            with self._threads(numbers, [*inside, index(0)]) as all_inside:
                yield all_inside
            return
        with self.emitter.scope():
            counter = self.emitter.loop(index(0), index(number), next(self.counter))
            with self._threads(numbers, [*inside, counter]) as all_inside:
                yield all_inside
            self.emitter.end(counter)

    # ---- what outlives a run ----
    def _array(self, node: Node) -> Node:
        if node not in self.kept:
            self.kept[node] = self.emitter.local(
                node.dtype, next(self.counter), math.prod(self.block)
            )
        return self.kept[node]

    def _load_kept(self, node: Node) -> Node:
        return Node(Op.LOAD, node.dtype, (self._array(node), self.place))

    def _keep(self, node: Node, value: Node) -> None:
        self.emitter.store(self._array(node), self.place, self._wide(value), TRUE)

    # ---- instructions ----
    def _body(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Loop):
                with self._loop(item.counter):
                    self._body(item.body)
            else:
                self._instruction(item)

    @contextmanager
    def _loop(self, loop: Node) -> Iterator[None]:
        start, stop, _ = (self._expression(s) for s in loop.src)
        with self.emitter.scope():
            self.known[loop] = self.emitter.loop(start, stop, next(self.counter))
            yield
            self.emitter.end(self.known[loop])

    def _instruction(self, node: Node) -> None:
        emitter = self.emitter
        if node.op in (Op.LOCAL, Op.GRID, Op.THREAD):
            return
        if node.op is Op.ACC:
            start = self._wide(self._emit(self._expression(node.src[0])))
            self.registers[node] = emitter.accumulator(start, next(self.counter))
        elif node.op is Op.UPDATE:
            value = self._emit(self._expression(node.src[1]))
            emitter.update(self.registers[node.src[0]], value, node.arg)
        elif node.op is Op.STORE:
            self._store(node)
        else:
            if node.op is Op.GET:
                self.known[node] = emitter.read(self.registers[node.src[0]], next(self.counter))
            else:
                self.known[node] = self._rebuilt(node)
            if node.op is Op.LOAD:
                self._emit(self.known[node])  # here, before the memory changes
            if node in self.outliving:
                self._keep(node, self._emit(self.known[node]))

    def _store(self, node: Node) -> None:
        pointer, address, value, *gate = (self._expression(s) for s in node.src)
        emitted, hold = self._emit(value), self._emit(gate[0]) if gate else None
        where = self._emit(address)
        differ = emitted.dtype.lanes > 1 or (hold is not None and hold.dtype.lanes > 1)
        if where.dtype.lanes > 1 or not differ:
            self.emitter.store(pointer, address, emitted, gate[0] if gate else TRUE)
            return
        src = [pointer, self._wide(where), self._wide(emitted)]  # all to one place
        src += [self._wide(hold)] if hold is not None else []
        self.emitter.body.append(Node(Op.STORE, dtypes.void, tuple(src)))

    def _expression(self, node: Node) -> Node:
        if node not in self.known:
            self.known[node] = self._rebuilt(node)
        return self.known[node]

    def _rebuilt(self, node: Node) -> Node:
        return rebuild(node, {n: self.known[n] for n in self._below(node) if n in self.known})

    def _below(self, node: Node) -> Iterator[Node]:
        for source in node.src:
            yield source
            if source not in self.known:
                yield from self._below(source)

    def _emit(self, expression: Node) -> Node:
        return self.emitter.emit(expression, TRUE)

    def _wide(self, value: Node) -> Node:
        return self.emitter.widen(value, self.lanes)

