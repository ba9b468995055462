"""Runs a LinearKernel step by step in NumPy: slow, simple, and independent of every renderer."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np

from compiler.dtype import DType, dtypes, round_to
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.matrix import Fragment

NUMPY = {
    "bool": np.bool_, "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16,
    "int32": np.int32, "uint32": np.uint32, "int64": np.int64, "uint64": np.uint64,
    "float16": np.float16, "bfloat16": np.float32, "float32": np.float32, "float64": np.float64,
    "float8_e4m3fn": np.float32, "float8_e5m2": np.float32,
    "index": np.int64,
}  # fmt: skip

BINARY = {
    Op.ADD: np.add, Op.MUL: np.multiply, Op.DIV: np.divide, Op.MAX: np.maximum,
    Op.CMPLT: np.less, Op.CMPNE: np.not_equal, Op.CMPEQ: np.equal, Op.AND: np.bitwise_and,
    Op.OR: np.bitwise_or, Op.XOR: np.bitwise_xor, Op.SHL: np.left_shift, Op.SHR: np.right_shift,
    Op.SQRT: np.sqrt, Op.EXP2: np.exp2, Op.LOG2: np.log2, Op.SIN: np.sin, Op.TRUNC: np.trunc,
    Op.WHERE: np.where,
}  # fmt: skip


# bfloat16 and 8-bit floats are kept in float32, of which they are a part.


def numpy_type(dtype: DType) -> Any:
    return NUMPY[dtype.name]


def run(
    kernel: LinearKernel, arrays: list[np.ndarray], variables: dict[str, int] | None = None
) -> None:
    """Runs every block; `arrays` are the flat buffers of the PARAMs in order."""
    buffers = [p for p in kernel.params if p.op is Op.PARAM]
    memory = dict(zip(buffers, arrays, strict=True))
    scalars = {p: (variables or {})[p.arg[0]] for p in kernel.params if p.op is Op.VARIABLE}
    kind = _Block if math.prod(kernel.block) == 1 else _ThreadedBlock
    for place in itertools.product(*(range(n) for n in reversed(kernel.grid))):
        kind(kernel, dict(memory), dict(scalars), place[::-1]).run()


class _Block:
    def __init__(
        self, kernel: LinearKernel, memory: Any, values: Any, place: tuple[int, ...]
    ) -> None:
        self.body, self.memory, self.values, self.place = kernel.body, memory, values, place
        self.kernel = kernel

    def run(self) -> None:
        ends = self._matching_ends()
        at = 0
        live: list[tuple[int, Node]] = []
        while at < len(self.body):
            node = self.body[at]
            if node.op is Op.LOOP:
                start, stop, _ = (self.values[s] for s in node.src)
                if start >= stop:
                    at = ends[at] + 1
                    continue
                self.values[node] = start
                live.append((at, node))
            elif node.op is Op.END:
                begin, loop = live[-1]
                assert node.src[0] is loop
                self.values[loop] += self.values[loop.src[2]]
                if self.values[loop] < self.values[loop.src[1]]:
                    at = begin
                else:
                    live.pop()
            else:
                self.step(node)
            at += 1

    def _matching_ends(self) -> dict[int, int]:
        ends, stack = {}, []
        for at, node in enumerate(self.body):
            if node.op is Op.LOOP:
                stack.append(at)
            elif node.op is Op.END:
                ends[stack.pop()] = at
        return ends

    def step(self, node: Node) -> None:
        v = self.values
        kind = numpy_type(node.dtype) if node.dtype is not dtypes.void else None
        lanes = node.dtype.lanes
        src = [v[s] for s in node.src if s in v]
        with np.errstate(all="ignore"):
            match node.op:
                case Op.CONST:
                    v[node] = kind(node.arg)
                case Op.GRID:
                    v[node] = np.int64(self.place[node.arg])
                case Op.LOCAL:
                    self.memory[node] = np.zeros(node.arg[1], kind)
                case Op.ACC:
                    v[node] = src[0]
                case Op.UPDATE:
                    register = node.src[0]
                    v[register] = BINARY[node.arg](v[register], v[node.src[1]])
                case Op.GET:
                    v[node] = v[node.src[0]]
                case Op.BROADCAST:
                    v[node] = np.full(lanes, src[0])
                case Op.RAMP:
                    v[node] = np.arange(lanes)
                case Op.REDUCE_LANES:
                    v[node] = BINARY[node.arg].reduce(src[0])
                case Op.CAST:
                    v[node] = np.asarray(src[0]).astype(kind)[()]
                case Op.BITCAST:
                    v[node] = np.asarray(src[0]).view(kind)[()]
                case Op.IDIV | Op.MOD:
                    a, b = src
                    quotient = np.trunc(a / np.where(b == 0, 1, b)).astype(kind)
                    v[node] = quotient if node.op is Op.IDIV else a - b * quotient
                case Op.LOAD:
                    v[node] = self.load(node, kind, lanes)
                case Op.STORE:
                    self.store(node)
                case _:
                    v[node] = BINARY[node.op](*src)

    def positions(self, where: Any, lanes: int) -> Any:
        return where if np.ndim(where) else np.arange(where, where + lanes)

    def load(self, node: Node, kind: Any, lanes: int) -> Any:
        where = self.positions(self.values[node.src[1]], lanes)
        gate = np.ones(lanes, bool)
        if len(node.src) > 2:
            gate = np.broadcast_to(self.values[node.src[2]], lanes)
        memory = self.memory[node.src[0]]
        assert (where[gate] >= 0).all() and (where[gate] < len(memory)).all(), "outside"
        found = np.zeros(lanes, kind)
        found[gate] = memory[where[gate]]
        return found if lanes > 1 else found[0]

    def store(self, node: Node) -> None:
        value = np.atleast_1d(self.values[node.src[2]])
        where = self.positions(self.values[node.src[1]], len(value))
        gate = np.ones(len(value), bool)
        if len(node.src) > 3:
            gate = np.broadcast_to(self.values[node.src[3]], len(value))
        memory = self.memory[node.src[0]]
        assert (where[gate] >= 0).all() and (where[gate] < len(memory)).all(), "outside"
        memory[where[gate]] = value[gate]


OF_MATRICES = (Op.BROADCAST, Op.STACK, Op.ACC, Op.GET)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def narrowed(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values as a type holds them that NumPy has not; others as they are."""
    if dtype is dtypes.bfloat16:
        return to_bfloat16(values)
    if dtype in dtypes.fp8s:
        return np.array([round_to(float(v), dtype) for v in values.flat], np.float32).reshape(
            values.shape
        )
    return values


@functools.cache
def elements(fragment: Fragment, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the element at [lane, item]."""
    places = [[fragment.position(t, i) for i in range(fragment.items)] for t in range(lanes)]
    rows, columns = np.moveaxis(np.array(places), 2, 0)
    return rows, columns


def gathered(items: np.ndarray, fragment: Fragment, shape: tuple[int, int]) -> np.ndarray:
    """The matrix whose elements the lanes hold: items[lane, item]."""
    rows, columns = elements(fragment, len(items))
    matrix = np.zeros(shape, items.dtype)
    items = items.reshape(rows.shape)
    matrix[rows, columns] = items
    same = np.array_equal(matrix[rows, columns], items, equal_nan=items.dtype.kind == "f")
    assert same, "lanes disagree about an element"
    return matrix


class _ThreadedBlock(_Block):
    """A block of a GPU: every value is an array with one element for each thread.

    Instructions are scalar. Threads pass loops together and meet at barriers. Of local memory,
    each element remembers which thread touched it since the last barrier: another one must not
    write it, nor read what was written, since nothing says which comes first.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.count = math.prod(self.kernel.block)
        self.touched: dict[tuple[Node, int], tuple[set[int], set[int]]] = {}

    def step(self, node: Node) -> None:
        assert node.dtype.lanes == 1 or node.op in OF_MATRICES, f"{node.op.name} of vectors"
        match node.op:
            case Op.BROADCAST:
                self.values[node] = np.full(
                    (self.count, node.dtype.lanes), self.values[node.src[0]]
                )
            case Op.STACK:
                items = [self.spread(self.values[s]) for s in node.src]
                self.values[node] = np.stack(items, axis=1)
            case Op.LANE:
                self.values[node] = self.values[node.src[0]][:, node.arg]
            case Op.MATRIX:
                self.multiply(node)
            case Op.THREAD:
                assert node.src[0].arg == self.kernel.block[node.arg]
                inner = math.prod(self.kernel.block[: node.arg])
                number = np.arange(self.count) // inner % self.kernel.block[node.arg]
                self.values[node] = number
            case Op.BARRIER:
                self.touched.clear()
            case Op.LOCAL:
                kind = numpy_type(node.dtype)
                rubbish = np.nan if node.dtype.kind == "f" else 77
                self.memory[node] = np.full(node.arg[1], rubbish, kind)
            case Op.CAST | Op.BITCAST:
                value = np.atleast_1d(self.values[node.src[0]])
                kind = numpy_type(node.dtype)
                with np.errstate(all="ignore"):
                    self.values[node] = (
                        value.astype(kind) if node.op is Op.CAST else value.view(kind)
                    )
                self.values[node] = narrowed(self.values[node], node.dtype)
            case _:
                super().step(node)

    def multiply(self, node: Node) -> None:
        """acc += a·b, wave by wave; lanes that hold the same element must agree about it."""
        unit, values = node.arg, self.values
        assert self.kernel.block[0] % unit.lanes == 0, "part of a wave"
        register = values[node.src[0]] = values[node.src[0]].copy()
        wide = np.float64 if unit.sums.kind == "f" else np.int64
        rows, columns = elements(unit.c, unit.lanes)
        for first in range(0, self.count, unit.lanes):
            wave = slice(first, first + unit.lanes)
            a = gathered(values[node.src[1]][wave], unit.a, (unit.rows, unit.depth))
            b = gathered(values[node.src[2]][wave], unit.b, (unit.depth, unit.columns))
            product = (a.astype(wide) @ b.astype(wide))[rows, columns]
            register[wave] += product.astype(register.dtype)

    def spread(self, value: Any) -> Any:
        return np.broadcast_to(value, self.count)

    def load(self, node: Node, kind: Any, lanes: int) -> Any:
        where = self.spread(self.values[node.src[1]])
        gate = self.spread(self.values[node.src[2]] if len(node.src) > 2 else True)
        memory = self.memory[node.src[0]]
        assert (where[gate] >= 0).all() and (where[gate] < len(memory)).all(), "outside"
        if node.src[0].op is Op.LOCAL:
            for thread in np.flatnonzero(gate):
                readers, writers = self.touches(node.src[0], where[thread])
                assert writers <= {thread}, "a load races with a store"
                readers.add(thread)
        found = np.zeros(self.count, kind)
        found[gate] = memory[where[gate]]
        return found

    def store(self, node: Node) -> None:
        value = self.spread(self.values[node.src[2]])
        where = self.spread(self.values[node.src[1]])
        gate = self.spread(self.values[node.src[3]] if len(node.src) > 3 else True)
        memory = self.memory[node.src[0]]
        assert (where[gate] >= 0).all() and (where[gate] < len(memory)).all(), "outside"
        assert len(set(where[gate])) == gate.sum(), "two threads store to one element"
        if node.src[0].op is Op.LOCAL:
            for thread in np.flatnonzero(gate):
                readers, writers = self.touches(node.src[0], where[thread])
                assert readers | writers <= {thread}, "a store races with another thread"
                writers.add(thread)
        memory[where[gate]] = value[gate]

    def touches(self, array: Node, element: int) -> tuple[set[int], set[int]]:
        return self.touched.setdefault((array, int(element)), (set(), set()))
