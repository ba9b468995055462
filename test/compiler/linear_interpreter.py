"""Runs a LinearKernel step by step in NumPy: slow, simple, and independent of every renderer."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op
from compiler.linear import LinearKernel

NUMPY = {
    "bool": np.bool_, "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16,
    "int32": np.int32, "uint32": np.uint32, "int64": np.int64, "uint64": np.uint64,
    "float16": np.float16, "float32": np.float32, "float64": np.float64, "index": np.int64,
}  # fmt: skip

BINARY = {
    Op.ADD: np.add, Op.MUL: np.multiply, Op.DIV: np.divide, Op.MAX: np.maximum,
    Op.CMPLT: np.less, Op.CMPNE: np.not_equal, Op.CMPEQ: np.equal, Op.AND: np.bitwise_and,
    Op.OR: np.bitwise_or, Op.XOR: np.bitwise_xor, Op.SHL: np.left_shift, Op.SHR: np.right_shift,
    Op.SQRT: np.sqrt, Op.EXP2: np.exp2, Op.LOG2: np.log2, Op.SIN: np.sin, Op.TRUNC: np.trunc,
    Op.WHERE: np.where,
}  # fmt: skip


def numpy_type(dtype: DType) -> Any:
    return NUMPY[dtype.name]


def run(
    kernel: LinearKernel, arrays: list[np.ndarray], variables: dict[str, int] | None = None
) -> None:
    """Runs every block; `arrays` are the flat buffers of the PARAMs in order."""
    buffers = [p for p in kernel.params if p.op is Op.PARAM]
    memory = dict(zip(buffers, arrays, strict=True))
    scalars = {p: (variables or {})[p.arg[0]] for p in kernel.params if p.op is Op.VARIABLE}
    for x in range(kernel.grid[0]):
        _Block(kernel, dict(memory), dict(scalars), x).run()


class _Block:
    def __init__(self, kernel: LinearKernel, memory: Any, values: Any, x: int) -> None:
        self.body, self.memory, self.values, self.x = kernel.body, memory, values, x

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
                    v[node] = np.int64(self.x)
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
