"""Replaces what processors have no instruction for: narrow floats' arithmetic, transcendentals.

float16, bfloat16 and the 8-bit floats are computed in float32 and rounded after each operation.
EXP2 of a product with log2(e) and LOG2 times ln(2), as `exp` and `log` are written at tensor level,
are computed as the functions that were meant, not as the rounded products.
"""

from __future__ import annotations

import functools
import math

from compiler.dtype import dtypes
from compiler.elementary import LN2, LOG2E, exp, exp2, log, log2
from compiler.expressions import binary, cast
from compiler.ir import Node, Op, Rules
from compiler.target import Target
from compiler.trigonometry import sin

_RELATIVE_PRECISION = {
    dtypes.float64: 2.0**-51,
    dtypes.float32: 2.0**-23,
    dtypes.float16: 2.0**-10,
    dtypes.bfloat16: 2.0**-7,
}
"""Of types that can tell a constant from its neighbours: an 8-bit 1.5 is no log2(e)."""

MEANT = Rules()
"""First: patterns across several nodes, which the rules on single nodes would hide."""

SINGLE = Rules()
"""Then: one operation at a time."""

FUNCTIONS = {Op.EXP2: exp2, Op.LOG2: log2, Op.SIN: sin}
"""Then: functions that are computed as polynomials, where the target has no instruction."""


def decompose(node: Node, target: Target) -> Node:
    """The scalar kernel `node` in operations that the target has."""
    return _rules(target.native).rewrite(MEANT.rewrite(node))


@functools.cache
def _rules(native: tuple[Op, ...]) -> Rules:
    """SINGLE, and FUNCTIONS but for those of float32 that are `native`."""
    rules = Rules(SINGLE)

    @rules.on(*FUNCTIONS)
    def function(node: Node) -> Node | None:
        if node.dtype.scalar in dtypes.narrow_floats:
            return None
        if node.dtype is dtypes.float32 and node.op in native:
            return None
        return FUNCTIONS[node.op](node.src[0])

    return rules


def _wide(x: Node) -> Node:
    """`x` in the type it is computed in."""
    return cast(x, dtypes.float32) if x.dtype.scalar in dtypes.narrow_floats else x


def _constant_factor(node: Node, value: float) -> tuple[Node, float] | None:
    """(x, sign) if `node` is x * value or x * -value, as far as its type can tell."""
    precision = _RELATIVE_PRECISION.get(node.dtype.scalar)
    if node.op is not Op.MUL or precision is None:
        return None
    for x, factor in (node.src, node.src[::-1]):
        if factor.op is Op.CONST and math.isclose(
            abs(factor.arg), value, rel_tol=precision
        ):
            return x, math.copysign(1.0, factor.arg)
    return None


@MEANT.on(Op.EXP2)
def natural_exponential(node: Node) -> Node | None:
    """exp2(x * log2(e)) is exp(x)."""
    found = _constant_factor(node.src[0], LOG2E)
    if found is None:
        return None
    x, sign = found
    wide = _wide(x)
    return cast(exp(wide if sign > 0 else binary(Op.MUL, wide, -1.0)), node.dtype)


@MEANT.on(Op.MUL)
def natural_logarithm(node: Node) -> Node | None:
    """log2(x) * ln(2) is ln(x)."""
    if node.dtype.kind != "f":
        return None
    found = _constant_factor(node, LN2)
    if found is None or found[0].op is not Op.LOG2:
        return None
    logarithm, sign = found
    value = log(_wide(logarithm.src[0]))
    return cast(value if sign > 0 else binary(Op.MUL, value, -1.0), node.dtype)


@SINGLE.on(
    *(Op.ADD, Op.MUL, Op.DIV, Op.MAX, Op.CMPLT, Op.CMPNE, Op.CMPEQ),
    *(Op.SQRT, Op.TRUNC, Op.EXP2, Op.LOG2, Op.SIN),
)
def narrow_arithmetic(node: Node) -> Node | None:
    """Operations on narrow floats happen in float32 and are rounded to the narrow type."""
    if node.src[0].dtype.scalar not in dtypes.narrow_floats:
        return None
    wide = tuple(cast(s, dtypes.float32) for s in node.src)
    if node.dtype.kind == "b":
        return Node(node.op, node.dtype, wide, node.arg)
    return cast(Node(node.op, dtypes.float32.vec(node.dtype.lanes), wide, node.arg), node.dtype)


@SINGLE.on(Op.REDUCE)
def narrow_reduction(node: Node) -> Node | None:
    """Narrow floats are accumulated in float32 and rounded once, at the end."""
    if node.dtype.scalar not in dtypes.narrow_floats:
        return None
    value, *ranges = node.src
    total = Node(Op.REDUCE, dtypes.float32, (cast(value, dtypes.float32), *ranges), node.arg)
    return cast(total, node.dtype)
