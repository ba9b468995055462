"""Short names for writing arithmetic as nodes, in any number of lanes."""

from __future__ import annotations

from compiler.dtype import ConstType, DType, dtypes
from compiler.ir import Node, Op


def constant_like(x: Node, value: ConstType, dtype: DType | None = None) -> Node:
    """`value` in as many lanes as `x` has, in its type or in `dtype`."""
    scalar = Node.const(value, (dtype or x.dtype).scalar)
    lanes = x.dtype.lanes
    return scalar if lanes == 1 else Node(Op.BROADCAST, scalar.dtype.vec(lanes), (scalar,))


def compare(op: Op, a: Node, b: ConstType | Node) -> Node:
    """The bools of a comparison, one per lane."""
    other = b if isinstance(b, Node) else constant_like(a, b)
    return Node(op, dtypes.bool.vec(a.dtype.lanes), (a, other))


def binary(op: Op, a: Node, b: ConstType | Node) -> Node:
    """`a op b` in the type of `a`."""
    return Node(op, a.dtype, (a, b if isinstance(b, Node) else constant_like(a, b)))


def choose(condition: Node, a: Node, b: Node) -> Node:
    """`a` where the condition holds, else `b`."""
    return Node(Op.WHERE, a.dtype, (condition, a, b))


def cast(x: Node, dtype: DType) -> Node:
    """A CAST with the lanes of `x`; no node where the type is the same already."""
    dtype = dtype.vec(x.dtype.lanes)
    return x if dtype is x.dtype else Node(Op.CAST, dtype, (x,))


def bitcast(x: Node, dtype: DType) -> Node:
    """A BITCAST with the lanes of `x`."""
    return Node(Op.BITCAST, dtype.vec(x.dtype.lanes), (x,))


def fused(a: Node, b: Node | ConstType, c: Node | ConstType) -> Node:
    """`a*b + c`, which the target may round once or twice."""
    return binary(Op.ADD, binary(Op.MUL, a, b), c)


def horner(x: Node, coefficients: tuple[float, ...]) -> Node:
    """The polynomial `coefficients[0] + coefficients[1]*x + ...`."""
    *rest, last = coefficients
    value = constant_like(x, last)
    for coefficient in reversed(rest):
        value = fused(value, x, coefficient)
    return value
