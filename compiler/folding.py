"""Rules that make scalar arithmetic smaller without changing any value."""

from __future__ import annotations

import math
from collections.abc import Callable

from compiler.dtype import ConstType, dtypes
from compiler.ir import Node, Op, Rules
from compiler.symbolic import FALSE, TRUE, conjunction

FOLDING = Rules()


def _truncated(a: int, b: int) -> int:
    return int(math.copysign(abs(a) // abs(b), a * b)) if a else 0


_VALUE: dict[Op, Callable[..., ConstType]] = {
    Op.ADD: lambda a, b: a + b,
    Op.MUL: lambda a, b: a * b,
    Op.IDIV: lambda a, b: _truncated(a, b),
    Op.MOD: lambda a, b: a - b * _truncated(a, b),
    Op.CMPLT: lambda a, b: a < b,
    Op.CMPNE: lambda a, b: a != b,
    Op.CMPEQ: lambda a, b: a == b,
    Op.AND: lambda a, b: a & b,
    Op.OR: lambda a, b: a | b,
    Op.XOR: lambda a, b: a ^ b,
    Op.SHL: lambda a, b: a << b,
    Op.SHR: lambda a, b: a >> b,
}


@FOLDING.on(*_VALUE)
def constants(node: Node) -> Node | None:
    """Arithmetic on constants happens now (float division and roots are left to the device)."""
    if node.dtype is dtypes.index or any(s.op is not Op.CONST for s in node.src):
        return None
    a, b = (s.arg for s in node.src)
    if node.op in (Op.IDIV, Op.MOD) and b == 0:
        return None
    return Node.const(_VALUE[node.op](a, b), node.dtype)


@FOLDING.on(Op.ADD, Op.MUL, Op.AND, Op.OR, Op.XOR)
def constant_on_the_right(node: Node) -> Node | None:
    """Puts a constant second, so that one form of each pattern is enough."""
    a, b = node.src
    if node.dtype is not dtypes.index and a.op is Op.CONST and b.op is not Op.CONST:
        return Node(node.op, node.dtype, (b, a), node.arg)
    return None


@FOLDING.on(Op.MUL, Op.IDIV, Op.DIV, Op.ADD, Op.SHL, Op.SHR, Op.OR, Op.XOR)
def neutral(node: Node) -> Node | None:
    """x*1, x/1, x+0 (integers only: -0.0 + 0.0 is not -0.0), x<<0, x|0, x^0."""
    x, c = node.src
    if c.op is not Op.CONST or node.dtype is dtypes.index:
        return None
    if node.op in (Op.MUL, Op.IDIV, Op.DIV):
        return x if c.arg == 1 and c.arg is not True else None
    return x if c.arg == 0 and node.dtype.kind != "f" else None


@FOLDING.on(Op.MUL, Op.AND)
def absorbing(node: Node) -> Node | None:
    """x*0 and x&0 for integers."""
    x, c = node.src
    if c.op is Op.CONST and c.arg == 0 and node.dtype.kind in "iu" and x.op is not Op.CONST:
        return c if node.dtype is not dtypes.index else None
    return None


@FOLDING.on(Op.MUL)
def two_factors(node: Node) -> Node | None:
    """(x * -1) * -1 is x."""
    match node.src:
        case (Node(op=Op.MUL, src=(x, Node(op=Op.CONST, arg=-1))), Node(op=Op.CONST, arg=-1)):
            return x
    return None


@FOLDING.on(Op.AND)
def both(node: Node) -> Node | None:
    """Conditions in one sorted form, without TRUE."""
    if node.dtype is not dtypes.bool:
        return None
    joined = conjunction(*node.src)
    return None if joined is node else joined


@FOLDING.on(Op.OR)
def either(node: Node) -> Node | None:
    """true | x and false | x."""
    if node.dtype is not dtypes.bool:
        return None
    a, b = node.src
    if TRUE in (a, b):
        return TRUE
    if b is FALSE or a is b:
        return a
    return b if a is FALSE else None


@FOLDING.on(Op.XOR, Op.CMPNE)
def condition_against_constant(node: Node) -> Node | None:
    """c ^ false and c != false are c; a double negation goes."""
    a, b = node.src
    if a.dtype is not dtypes.bool or b.op is not Op.CONST:
        return None
    if b is FALSE:
        return a
    if a.op is node.op and a.src[1] is TRUE:
        return a.src[0]
    return None


@FOLDING.on(Op.WHERE)
def decided(node: Node) -> Node | None:
    """A choice that is known, or makes no difference."""
    condition, a, b = node.src
    if condition.op is Op.CONST:
        return a if condition.arg else b
    return a if a is b else None


@FOLDING.on(Op.WHERE)
def same_choice_inside(node: Node) -> Node | None:
    """where(c, where(c, x, y), z) is where(c, x, z)."""
    condition, a, b = node.src
    if a.op is Op.WHERE and a.src[0] is condition:
        return Node(Op.WHERE, node.dtype, (condition, a.src[1], b))
    if b.op is Op.WHERE and b.src[0] is condition:
        return Node(Op.WHERE, node.dtype, (condition, a, b.src[2]))
    return None


@FOLDING.on(Op.CAST)
def casts(node: Node) -> Node | None:
    """Constants, no change, and widening followed by anything."""
    (x,) = node.src
    if x.dtype is node.dtype:
        return x
    if x.op is Op.CONST and node.dtype is not dtypes.index:
        return Node.const(x.arg, node.dtype)
    if x.op is Op.CAST and _holds(x.dtype.kind, x.dtype.bits, x.src[0]):
        return x.src[0].cast(node.dtype)
    return None


def _holds(kind: str, bits: int, value: Node) -> bool:
    """Whether a type holds every value of `value`'s type, so that going through it is nothing."""
    inner = value.dtype
    if inner is dtypes.index or inner.name == "bfloat16":
        return False
    if inner.kind == "b":
        return True
    return kind == inner.kind and (bits > inner.bits or (bits == inner.bits and kind != "f"))


@FOLDING.on(Op.BITCAST)
def bitcasts(node: Node) -> Node | None:
    """A bitcast of a bitcast is one."""
    (x,) = node.src
    return x.src[0].bitcast(node.dtype) if x.op is Op.BITCAST else None
