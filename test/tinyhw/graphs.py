"""Graphs without Tensors, and schedules run by NumPy instead of a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.dtype import dtypes
from compiler.ir import Node, Op, substitute, toposort
from compiler.target import Target
from test.interpreter import interpret
from tinyhw import live
from tinyhw.memory_plan import plan_memory
from tinyhw.schedule import CopyCall, KernelCall, Schedule, schedule

Array = np.ndarray[Any, Any]
FLOAT = dtypes.float32
TARGET = Target("llvm", "x86_64", vector_bits=256, threads=2)


class Box:
    """The least that a Tensor is to this floor: a node that can be replaced."""

    def __init__(self, node: Node, device: str = "LLVM") -> None:
        self.node, self.fallback = node, device
        live.register(self)

    @property
    def device(self) -> str:
        return self.node.device or self.fallback

    def assign(self, value: Node, view: Node | None = None) -> None:
        """Writes through `view` of this box (all of it); every box on the storage sees it."""
        base = self.node.base
        target = self.node if view is None else view
        live.move(base, base.after(target.assign(value)))


class Memory:
    """The contents of buffers, and a way to run schedules on them."""

    def __init__(self) -> None:
        self.contents: dict[Node, Array] = {}
        self.kernels = 0

    def box(self, array: Array, device: str = "LLVM") -> Box:
        """A box on a new buffer with the array's elements."""
        dtype = dtypes.from_name(array.dtype.name)
        buffer = Node.buffer(dtype, array.size, device)
        self.contents[buffer] = np.ascontiguousarray(array).reshape(-1).copy()
        return Box(buffer.reshape(array.shape), device)

    def read(self, node: Node) -> Array:
        """The values of a node over buffers as they are now."""
        return np.array(interpret(node, self.contents))

    def realize(self, *boxes: Box) -> Schedule:
        """As `tinyhw.realize.realize`, by NumPy."""
        plan = schedule([(b.node, b.device) for b in boxes], lambda _: TARGET)
        self.run(plan)
        for box in boxes:
            box.node = plan.stored.get(box.node, box.node)
            live.register(box)
        for node, view in plan.stored.items():
            if live.is_base(node):
                live.move(node, view)
        for base in live.pending():
            new = substitute(base, plan.stored)
            if new is not base:
                live.move(base, new)
        return plan

    def run(self, plan: Schedule) -> None:
        """Runs every item, with the contents of temporaries lost as the memory plan lets them."""
        layout = plan_memory(plan.items, plan.temporaries)
        arenas = {d: np.full(n, 0xA5, np.uint8) for d, n in layout.arena_bytes.items()}
        for node, offset in layout.offsets.items():
            size = node.arg.size * node.dtype.itemsize
            piece = arenas[node.arg.device][offset : offset + size]
            self.contents[node] = piece.view(node.dtype.name)
        for item in plan.items:
            self.kernels += 1
            if isinstance(item, CopyCall):
                self._store(item.destination, self.contents[item.source])
            else:
                self._store(item.buffers[0], self._kernel(item))
        for node in layout.offsets:
            del self.contents[node]

    def _store(self, node: Node, values: Array) -> None:
        held = self.contents.setdefault(node, np.full(node.arg.size, 77, node.dtype.name))
        held[:] = values

    def _kernel(self, call: KernelCall) -> Array:
        check_kernel(call)
        params = {n: call.buffers[n.arg[0]] for n in toposort(call.ast) if n.op is Op.PARAM}
        ast = substitute(call.ast, params)
        for buffer in call.buffers:
            self.contents.setdefault(buffer, np.full(buffer.arg.size, 77, buffer.dtype.name))
        return interpret(call.buffers[0].after(ast), self.contents)


def check_kernel(call: KernelCall) -> None:
    """What the compiler may rely on."""
    target, value = call.ast.src
    nodes = toposort(value)
    forbidden = {Op.BUFFER, Op.BIND, Op.CONTIGUOUS, Op.COPY, Op.DETACH, Op.AFTER, Op.ASSIGN}
    assert not forbidden & {n.op for n in nodes}
    assert target.base.op is Op.PARAM and target.base.arg[0] == 0
    positions = sorted({n.arg[0] for n in toposort(call.ast) if n.op is Op.PARAM})
    assert positions == list(range(len(call.buffers)))
    assert sum(n.op is Op.REDUCE for n in nodes) <= 1
    assert len(call.buffers) <= 26
    assert len(set(call.buffers)) == len(call.buffers)


def scale(node: Node, factor: float) -> Node:
    """node * factor."""
    return node.alu(Op.MUL, Node.const(factor, node.dtype))


def windows(x: Node, axis: int, size: int) -> Node:
    """Sliding windows of `size` along `axis`; the place in the window is the axis before it."""
    shape = x.shape
    spread = x.reshape((*shape[:axis], 1, *shape[axis:]))
    spread = spread.expand((*shape[:axis], size, *shape[axis:]))
    return spread.skew(axis + 1, axis, 1, 0, shape[axis] - size + 1)


def matmul(a: Node, b: Node) -> Node:
    """The product of (n, k) and (k, m) by broadcasting."""
    n, k = a.shape
    m = b.shape[1]
    left = a.reshape((n, 1, k)).expand((n, m, k))
    right = b.permute((1, 0)).reshape((1, m, k)).expand((n, m, k))
    return left.alu(Op.MUL, right).reduce(Op.ADD, (2,)).reshape((n, m))


def row_total(x: Node, op: Op = Op.ADD) -> Node:
    """Each row's total, repeated along the row."""
    return x.reduce(op, (len(x.shape) - 1,)).expand(x.shape)


def shapes(plan: Schedule) -> list[Sequence[Any]]:
    """The output shape of every kernel."""
    return [item.ast.src[1].shape for item in plan.items if isinstance(item, KernelCall)]
