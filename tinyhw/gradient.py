"""Gradients: reverse mode over the graph, one rule for each op, giving more graph.

A rule takes a node and the gradient that reaches it, and gives the gradient for each source, None
for a source through which none goes. Integers and comparisons have none. The walk is iterative,
and enters only nodes that lead to a target.

A target may be a view: gradients are taken by what it is a view of, as long as that view keeps
every element, and are then viewed alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from compiler.dtype import ConstType, dtypes
from compiler.ir import Extent, Node, Op, substitute
from tinyhw.core import history

Rule: TypeAlias = Callable[[Node, Node], "tuple[Node | None, ...]"]

BIJECTIVE = frozenset({Op.RESHAPE, Op.PERMUTE, Op.FLIP})
LN_2 = math.log(2.0)

RULES: dict[Op, Rule] = {}


def gradients(root: Node, seed: Node, targets: Sequence[Node]) -> list[Node | None]:
    """The gradient of `root` by each target, given the gradient `seed` by root itself.

    None for a target on which root does not depend.
    """
    wanted = {_kept(target) for target in targets}
    order, values = _walk(root)
    leading = _leading_to(order, wanted)
    found: dict[Node, Node] = {root: seed}
    for node in reversed(order):
        gradient = found.get(node)
        if gradient is None or node not in leading:
            continue
        for source, part in zip(*_step(node, gradient), strict=True):
            if part is None or source not in leading:
                continue
            known = found.get(source)
            found[source] = part if known is None else known.alu(Op.ADD, part)
            if found[source].origin is None:
                found[source].origin = node.origin
    return [_viewed(target, found, values) for target in targets]


def _kept(target: Node) -> Node:
    """What the target is a view of that keeps every element."""
    while target.op in BIJECTIVE:
        target = target.src[0]
    return target


def _viewed(target: Node, found: dict[Node, Node], values: dict[Node, Node]) -> Node | None:
    """The gradient by `target`, from that by what it is a view of."""
    views = []
    while target.op in BIJECTIVE:
        views.append(target)
        target = target.src[0]
    gradient = found.get(target)
    if gradient is None:
        return None
    for view in reversed(views):
        gradient = Node(view.op, gradient.dtype, (gradient,), view.arg)
    return substitute(gradient, values) if values else gradient


def _walk(root: Node) -> tuple[list[Node], dict[Node, Node]]:
    """All nodes below root, sources first, through buffers into what they were computed from.

    Also what was computed already: node -> its values in a buffer.
    """
    order: list[Node] = []
    values: dict[Node, Node] = {}
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            sources = _sources(node)
            if node.op is Op.BUFFER and sources:
                values[sources[0]] = node.reshape(sources[0].shape)
            stack.extend((s, False) for s in sources if s not in seen)
    return order, values


def _sources(node: Node) -> tuple[Node, ...]:
    """Through which nodes a gradient may go on."""
    if node.op is Op.BUFFER:
        origin = history.origin(node)
        return () if origin is None else (origin,)
    return node.src if node.op in RULES else ()


def _leading_to(order: list[Node], wanted: set[Node]) -> set[Node]:
    """The nodes of `order` (sources first) that depend on a wanted one."""
    leading: set[Node] = set()
    for node in order:
        if node in wanted or any(s in leading for s in _sources(node)):
            leading.add(node)
    return leading


def _step(node: Node, gradient: Node) -> tuple[tuple[Node, ...], tuple[Node | None, ...]]:
    """The sources of a node and the gradients that go to them."""
    if node.op is Op.BUFFER:
        sources = _sources(node)
        return sources, tuple(gradient.reshape(s.shape) for s in sources)
    if node.op not in RULES:
        return (), ()
    parts = RULES[node.op](node, gradient)
    return node.src, tuple(
        None if part is None else _to_shape(part, source)
        for part, source in zip(parts, node.src, strict=True)
    )


def _to_shape(gradient: Node, source: Node) -> Node:
    """Summed where a source without axes stands beside one with."""
    if gradient.shape == source.shape or not gradient.shape:
        return gradient
    if source.shape:
        return gradient
    return gradient.reduce(Op.ADD, tuple(range(len(gradient.shape)))).reshape(())


def _on(*ops: Op) -> Callable[[Rule], Rule]:
    def declare(rule: Rule) -> Rule:
        for op in ops:
            RULES[op] = rule
        return rule

    return declare


# ---- arithmetic on gradients ----


def _const(value: ConstType, like: Node) -> Node:
    return Node.const(value, like.dtype)


def _uniform(node: Node) -> ConstType | None:
    """The value that a node has everywhere, where that is plain to see."""
    while node.op is Op.EXPAND or node.op is Op.RESHAPE:
        node = node.src[0]
    value: ConstType | None = node.arg if node.op is Op.CONST else None
    return value


def _mul(a: Node, b: Node) -> Node:
    """a * b, where a gradient of 1 leaves the other factor as it is."""
    if _uniform(a) == 1 and (b.shape == a.shape or not a.shape):
        return b
    if _uniform(b) == 1 and (a.shape == b.shape or not b.shape):
        return a
    return a.alu(Op.MUL, b)


def _neg(x: Node) -> Node:
    return x.alu(Op.MUL, _const(-1, x))


def _where(condition: Node, x: Node, y: Node) -> Node:
    return condition.alu(Op.WHERE, x, y)


def _if(condition: Node, x: Node) -> Node:
    """x where the condition holds, else 0."""
    return _where(condition, x, _const(0, x))


def _wide(x: Node, like: Node) -> Node:
    """x, of extents 1 or like's, in the shape of `like`."""
    return x.expand(like.shape)


# ---- rules: elementwise ----


@_on(Op.ADD)
def _add(node: Node, g: Node) -> tuple[Node | None, ...]:
    return g, g


@_on(Op.MUL)
def _product(node: Node, g: Node) -> tuple[Node | None, ...]:
    a, b = node.src
    return _mul(g, b), _mul(g, a)


@_on(Op.DIV)
def _quotient(node: Node, g: Node) -> tuple[Node | None, ...]:
    _, b = node.src
    by_a = g.alu(Op.DIV, b)
    return by_a, _neg(by_a.alu(Op.MUL, node))


@_on(Op.MAX)
def _maximum(node: Node, g: Node) -> tuple[Node | None, ...]:
    """Equal operands share the gradient; beside a constant, the constant takes it all."""
    a, b = node.src
    if b.op is Op.CONST or a.op is Op.CONST:
        constant = b if b.op is Op.CONST else a
        passed = _if(constant.alu(Op.CMPLT, node), g)  # so that nothing needs the operand again
        return (passed, None) if b.op is Op.CONST else (None, passed)
    half = _if(a.alu(Op.CMPEQ, b), g.alu(Op.MUL, _const(0.5, g)))
    return _where(b.alu(Op.CMPLT, a), g, half), _where(a.alu(Op.CMPLT, b), g, half)


@_on(Op.WHERE)
def _choice(node: Node, g: Node) -> tuple[Node | None, ...]:
    condition = node.src[0]
    return None, _if(condition, g), _where(condition, _const(0, g), g)


@_on(Op.SQRT)
def _square_root(node: Node, g: Node) -> tuple[Node | None, ...]:
    return (g.alu(Op.DIV, node.alu(Op.MUL, _const(2, node))),)


@_on(Op.EXP2)
def _power_of_two(node: Node, g: Node) -> tuple[Node | None, ...]:
    return (_mul(g, node).alu(Op.MUL, _const(LN_2, node)),)


@_on(Op.LOG2)
def _logarithm(node: Node, g: Node) -> tuple[Node | None, ...]:
    return (g.alu(Op.DIV, node.src[0].alu(Op.MUL, _const(LN_2, node))),)


@_on(Op.SIN)
def _sine(node: Node, g: Node) -> tuple[Node | None, ...]:
    """Times the cosine, as 1 - 2*sin(x/2)**2."""
    x = node.src[0]
    half = x.alu(Op.MUL, _const(0.5, x)).alu(Op.SIN)
    cosine = half.alu(Op.MUL, half).alu(Op.MUL, _const(-2, x)).alu(Op.ADD, _const(1, x))
    return (_mul(g, cosine),)


@_on(Op.CAST)
def _cast(node: Node, g: Node) -> tuple[Node | None, ...]:
    """Between floats only: an integer's value does not follow the float smoothly."""
    source = node.src[0]
    both = dtypes.is_float(node.dtype) and dtypes.is_float(source.dtype)
    return (g.cast(source.dtype) if both else None,)


@_on(Op.TRUNC)
def _truncation(node: Node, g: Node) -> tuple[Node | None, ...]:
    """Flat between its steps."""
    return (_const(0, g).reshape((1,) * len(g.shape)).expand(g.shape),)


@_on(Op.CONTIGUOUS)
def _contiguous(node: Node, g: Node) -> tuple[Node | None, ...]:
    return (g,)


@_on(Op.COPY)
def _copy(node: Node, g: Node) -> tuple[Node | None, ...]:
    device = node.src[0].device
    return (g if device is None else g.copy_to(device),)


# ---- rules: movement ----


@_on(Op.RESHAPE)
def _reshape(node: Node, g: Node) -> tuple[Node | None, ...]:
    return (g.reshape(node.src[0].shape),)


@_on(Op.PERMUTE)
def _permute(node: Node, g: Node) -> tuple[Node | None, ...]:
    order = node.arg
    return (g.permute(tuple(order.index(axis) for axis in range(len(order)))),)


@_on(Op.EXPAND)
def _expand(node: Node, g: Node) -> tuple[Node | None, ...]:
    before = node.src[0].shape
    axes = tuple(i for i, (a, b) in enumerate(zip(before, node.shape, strict=True)) if a != b)
    return (g.reduce(Op.ADD, axes),)


@_on(Op.PAD)
def _pad(node: Node, g: Node) -> tuple[Node | None, ...]:
    shape = node.src[0].shape
    return (g.shrink(tuple((lo, lo + n) for n, (lo, _) in zip(shape, node.arg, strict=True))),)


@_on(Op.SHRINK)
def _shrink(node: Node, g: Node) -> tuple[Node | None, ...]:
    shape = node.src[0].shape
    amounts = tuple(
        (start, _less(n, stop)) for n, (start, stop) in zip(shape, node.arg, strict=True)
    )
    return (g.pad(amounts),)


@_on(Op.FLIP)
def _flip(node: Node, g: Node) -> tuple[Node | None, ...]:
    return (g.flip(node.arg),)


@_on(Op.SKEW)
def _skew(node: Node, g: Node) -> tuple[Node | None, ...]:
    """Position j of the source was read by i = j - step*k - offset, where that exists."""
    axis, by, step, offset, extent = node.arg
    n, count = node.src[0].shape[axis], node.src[0].shape[by]
    reach = (count - 1) * step
    first, last = -offset - max(reach, 0), n - 1 - offset - min(reach, 0)
    before, after = max(0, -first), max(0, last - (extent - 1))
    amounts = tuple((before, after) if a == axis else (0, 0) for a in range(len(node.shape)))
    return (g.pad(amounts).skew(axis, by, -step, before - offset, n),)


# ---- rules: arrays ----


@_on(Op.GATHER)
def _gather(node: Node, g: Node) -> tuple[Node | None, ...]:
    """Each row of the source sums the gradients of the positions that name it."""
    x, positions = node.src
    rows, rest = x.shape[0], x.shape[1:]
    count = 1
    for extent in positions.shape:
        count = count * extent  # type: ignore[assignment]
    wide = (rows, count, *rest)
    ones = (1,) * len(rest)
    row = Node.iota(rows).reshape((rows, 1, *ones)).expand(wide)
    named = positions.reshape((1, count, *ones)).expand(wide)
    parts = _if(named.alu(Op.CMPEQ, row), g.reshape((1, count, *rest)).expand(wide))
    return parts.reduce(Op.ADD, (1,)).reshape(x.shape), None


@_on(Op.REDUCE)
def _reduce(node: Node, g: Node) -> tuple[Node | None, ...]:
    op, axes = node.arg
    x = node.src[0]
    if op is Op.ADD:
        return (_wide(g, x),)
    if op is Op.MAX:
        best = x.alu(Op.CMPEQ, _wide(node, x))
        share = g.alu(Op.DIV, _if(best, _wide(_ones(x, axes), x)).reduce(Op.ADD, axes))
        return (_if(best, _wide(share, x)),)
    return (_reduce_product(x, axes, g),)


def _ones(x: Node, axes: tuple[int, ...]) -> Node:
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    return _const(1, x).reshape((1,) * len(shape)).expand(shape)


def _reduce_product(x: Node, axes: tuple[int, ...], g: Node) -> Node:
    """Each factor gets the product of the others, with care where factors are 0."""
    zero = x.alu(Op.CMPEQ, _const(0, x))
    zeros = _if(zero, _wide(_ones(x, axes), x)).reduce(Op.ADD, axes)
    safe = _where(zero, _const(1, x), x)
    others = safe.reduce(Op.MUL, axes).alu(Op.MUL, g)
    none, one = (zeros.alu(Op.CMPEQ, _const(count, x)) for count in (0, 1))
    without = _if(_wide(none, x), _wide(others, x).alu(Op.DIV, safe))
    return _where(zero, _if(_wide(one, x), _wide(others, x)), without)


def _less(a: Extent, b: Extent) -> Extent:
    """a - b for extents."""
    difference = a - b
    if isinstance(difference, Node) and difference.op is Op.CONST:
        return int(difference.arg)
    return difference
