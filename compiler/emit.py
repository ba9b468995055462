"""Writes instructions: a scalar expression becomes vector code where a lane variable is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op, index, toposort
from compiler.matrix import MatrixUnit
from compiler.symbolic import TRUE, conjunction, from_linear, linear

LANE_ID = 1 << 20
THREAD_ID = 1 << 29
GRID_ID = 1 << 30


def lane_variable(axis: Node, lanes: int) -> Node:
    """The index 0..lanes-1 that differs from lane to lane along `axis`."""
    return Node(Op.RANGE, dtypes.index, (index(lanes),), (LANE_ID + axis.arg[0], False))


def thread_variable(dimension: int, threads: int) -> Node:
    """The number of the running thread in its block, along one dimension of the block."""
    if threads == 1:
        return index(0)
    return Node(Op.RANGE, dtypes.index, (index(threads),), (THREAD_ID + dimension, False))


def block_variable(blocks: int, dimension: int = 0) -> Node:
    """The number of the block that is running, along one dimension of the grid."""
    return Node(Op.RANGE, dtypes.index, (index(blocks),), (GRID_ID + dimension, False))


class Emitter:
    """A growing instruction list in which equal expressions are written once per scope."""

    def __init__(self, fixed_grid: bool = False) -> None:
        self.body: list[Node] = []
        self.fixed_grid = fixed_grid  # whether the number of blocks is known to the code
        self._written: set[Node] = set()
        self._instruction_of: dict[Node, Node] = {}
        self._undo: list[tuple[list[Node], list[Node]]] = [([], [])]
        self._lane_of: dict[Node, Node | None] = {}

    # ---- scopes and statements ----

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is written inside is not known outside."""
        self._undo.append(([], []))
        yield
        expressions, instructions = self._undo.pop()
        for expression in expressions:
            self._instruction_of.pop(expression, None)
        self._written.difference_update(instructions)

    def loop(self, start: Node, stop: Node, number: int) -> Node:
        """Opens a loop and returns its counter as an index expression."""
        counter = Node(Op.LOOP, dtypes.index, (start, stop, index(1)), number)
        src = tuple(self.emit(s, TRUE) for s in counter.src)
        self._remember(counter, self._append(Node(Op.LOOP, dtypes.index, src, number)))
        return counter

    def end(self, counter: Node) -> None:
        """Closes the loop of that counter."""
        self.body.append(Node(Op.END, dtypes.void, (self._instruction_of[counter],)))

    def accumulator(self, start: Node, number: int) -> Node:
        """A register set to `start` here."""
        return self._append(Node(Op.ACC, start.dtype, (start,), number))

    def update(self, register: Node, value: Node, op: Op) -> None:
        """register = op(register, value)."""
        wide = self.widen(value, register.dtype.lanes)
        self.body.append(Node(Op.UPDATE, dtypes.void, (register, wide), op))

    def multiply(
        self, register: Node, a: Sequence[Node], b: Sequence[Node], unit: MatrixUnit
    ) -> None:
        """register += a·b of a matrix unit, from the items of each thread."""
        operands = tuple(self._stack(items) for items in (a, b))
        self.body.append(Node(Op.MATRIX, dtypes.void, (register, *operands), unit))

    def _stack(self, items: Sequence[Node]) -> Node:
        if len(items) == 1:
            return items[0]
        return self._append(Node(Op.STACK, items[0].dtype.vec(len(items)), tuple(items)))

    def read(self, register: Node, number: int) -> Node:
        """The register's value at this place; `number` tells places apart."""
        return self._append(Node(Op.GET, register.dtype, (register,), number))

    def lane(self, vector: Node, number: int) -> Node:
        """One scalar of a vector."""
        return self._append(Node(Op.LANE, vector.dtype.scalar, (vector,), number))

    def local(self, dtype: DType, number: int, size: int) -> Node:
        """A scratch array of the block."""
        array = Node(Op.LOCAL, dtype, (), (number, size))
        self.body.insert(0, array)
        self._written.add(array)
        return array

    def store(self, pointer: Node, address: Node, value: Node, mask: Node) -> None:
        """Writes an emitted value, a lane each if the address says so."""
        start, lanes, consecutive = self._access(address)
        gate = () if mask is TRUE else (self.emit(mask, TRUE),)
        where = self.emit(start, TRUE)
        if lanes > 1 and not consecutive:
            where = self.widen(where, lanes)
        src = (pointer, where, self.widen(value, lanes), *gate)
        self.body.append(Node(Op.STORE, dtypes.void, src))

    def barrier(self) -> None:
        """All threads of the block arrive here, and see what the others stored before."""
        self.body.append(Node(Op.BARRIER, dtypes.void))

    def is_consecutive(self, address: Node) -> bool:
        """Whether lanes (if there are any) address neighbouring elements."""
        _, lanes, consecutive = self._access(address)
        return lanes == 1 or consecutive

    # ---- values ----

    def emit(self, root: Node, mask: Node) -> Node:
        """The instruction that computes an expression; `mask` says which lanes may load."""
        if mask is not TRUE:
            root = self._masked(root, mask)
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self._instruction_of:
                stack.pop()
                continue
            missing = [s for s in self._operands(node) if s not in self._instruction_of]
            if missing:
                stack.extend(missing)
            else:
                self._remember(node, self._append(self._instruction(node)))
                stack.pop()
        return self._instruction_of[root]

    def widen(self, value: Node, lanes: int) -> Node:
        """A scalar in every lane."""
        if value.dtype.lanes == lanes:
            return value
        return self._append(Node(Op.BROADCAST, value.dtype.vec(lanes), (value,)))

    def alu(self, op: Op, a: Node, b: Node) -> Node:
        """op(a, b) of two instructions of one type."""
        return self._append(Node(op, a.dtype, (a, b)))

    def across_lanes(self, op: Op, value: Node) -> Node:
        """All lanes of a vector combined."""
        return self._append(Node(Op.REDUCE_LANES, value.dtype.scalar, (value,), op))

    def choose(self, mask: Node, value: Node, otherwise: Node) -> Node:
        """`value` in the lanes where the mask holds."""
        condition = self.emit(mask, TRUE)
        other = self.emit(otherwise, TRUE)
        return self._elementwise(Op.WHERE, value.dtype.scalar, (condition, value, other), None)

    # ---- inside ----

    def _append(self, instruction: Node) -> Node:
        if instruction not in self._written:
            self._written.add(instruction)
            self._undo[-1][1].append(instruction)
            if instruction.op not in (Op.PARAM, Op.VARIABLE):
                self.body.append(instruction)
        return instruction

    def _remember(self, expression: Node, instruction: Node) -> None:
        self._instruction_of[expression] = instruction
        self._undo[-1][0].append(expression)

    def _masked(self, root: Node, mask: Node) -> Node:
        """`root` with the mask in the gates of its LOADs.

        The same element may be loaded for another place, whose lanes are others: then it is
        another expression.
        """
        done: dict[Node, Node] = {}
        for node in toposort(root, lambda n: not _is_instruction(n)):
            src = tuple(done.get(s, s) for s in node.src)
            new = node if src == node.src else node.with_src(src)
            if node.op is Op.LOAD and node.src[0].op is not Op.LOCAL:
                if self._lane(node.src[1]) is not None:
                    gate = conjunction(_gate(new), mask)
                    new = Node(Op.LOAD, node.dtype, (*new.src[:2], gate))
            done[node] = new
        return done[root]

    def _operands(self, node: Node) -> tuple[Node, ...]:
        if node.op is Op.LOAD:
            start, _, _ = self._access(node.src[1])
            gate = _gate(node)
            return (start,) if gate is TRUE else (start, gate)
        if node.op is Op.RANGE:
            return ()
        return node.src if not _is_instruction(node) else ()

    def _instruction(self, node: Node) -> Node:
        if _is_instruction(node):
            return node
        if node.op is Op.RANGE:
            number, extent = node.arg[0], node.src[0]
            if number >= GRID_ID:
                return Node(Op.GRID, dtypes.index, self._count(extent), number - GRID_ID)
            if number >= THREAD_ID:
                return Node(Op.THREAD, dtypes.index, (extent,), number - THREAD_ID)
            if number < LANE_ID:
                raise AssertionError(f"{node} is used outside its loop")
            return Node(Op.RAMP, dtypes.index.vec(int(extent.arg)))
        if node.op is Op.LOAD:
            return self._load(node)
        src = tuple(self._instruction_of[s] for s in node.src)
        return self._elementwise(node.op, node.dtype, src, node.arg)

    def _count(self, blocks: Node) -> tuple[Node, ...]:
        return (blocks,) if self.fixed_grid else ()

    def _elementwise(self, op: Op, dtype: DType, src: tuple[Node, ...], arg: object) -> Node:
        lanes = max((s.dtype.lanes for s in src), default=1)
        wide = tuple(self.widen(s, lanes) for s in src)
        return self._append(Node(op, dtype.vec(lanes), wide, arg))

    def _load(self, node: Node) -> Node:
        pointer = node.src[0]
        start, lanes, consecutive = self._access(node.src[1])
        where = self._instruction_of[start]
        gate = _gate(node)
        gates = () if gate is TRUE else (self._instruction_of[gate],)
        if gates and lanes == 1 and gates[0].dtype.lanes > 1:
            lanes, consecutive = gates[0].dtype.lanes, False
        if lanes > 1 and not consecutive:
            where = self.widen(where, lanes)
        return Node(Op.LOAD, node.dtype.vec(lanes), (pointer, where, *gates))

    def _access(self, address: Node) -> tuple[Node, int, bool]:
        """How lanes address memory: (index to compute, lanes, consecutive elements)."""
        lane = self._lane(address)
        if lane is None:
            return address, 1, False
        lanes = int(lane.src[0].arg)
        terms, constant = linear(address)
        others = {t: f for t, f in terms.items() if t is not lane}
        if terms.get(lane) == 1 and all(self._lane(t) is None for t in others):
            return from_linear(others, constant), lanes, True
        return address, lanes, False

    def _lane(self, node: Node) -> Node | None:
        """The lane variable below a node, if there is one."""
        if node in self._lane_of:
            return self._lane_of[node]
        for below in toposort(node, lambda n: n not in self._lane_of):
            if below not in self._lane_of:
                if below.op is Op.RANGE:
                    number = below.arg[0]
                    found = below if LANE_ID <= number < THREAD_ID else None
                else:
                    found = next((lane for s in below.src if (lane := self._lane_of[s])), None)
                self._lane_of[below] = found
        return self._lane_of[node]


def _gate(load: Node) -> Node:
    """Where a LOAD may touch memory."""
    return load.src[2] if len(load.src) > 2 else TRUE


_INSTRUCTIONS = frozenset(
    {
        *(Op.CONST, Op.PARAM, Op.VARIABLE, Op.LOCAL, Op.GET, Op.ACC),
        *(Op.REDUCE_LANES, Op.LANE, Op.LOOP),
    }
)


def _is_instruction(node: Node) -> bool:
    """Whether a node in an expression is already what a renderer prints."""
    return node.op in _INSTRUCTIONS
