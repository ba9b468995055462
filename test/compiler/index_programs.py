"""Random index arithmetic, and what must hold of it: for tests and for scripts/fuzz.py."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from compiler.dtype import dtypes
from compiler.ir import Node, Op, index
from compiler.symbolic import bounds, conjunction, evaluate, less, rebuild


def make_range(number: int, extent: int) -> Node:
    return Node(Op.RANGE, dtypes.index, (index(extent),), (number, False))


RANGES = [make_range(0, 3), make_range(1, 4), make_range(2, 8), make_range(3, 5)]


def raw(op: Op, a: Node, b: Node) -> Node:
    """The same operation with nothing simplified."""
    return Node(op, dtypes.bool if op is Op.CMPLT else dtypes.index, (a, b))


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4) -> tuple[Node, Node]:
    """An expression twice: as the simplifier builds it, and as it was written."""
    kind = draw(st.sampled_from(["leaf", "const", "add", "mul", "div", "mod"])) if depth else "leaf"
    if kind == "leaf":
        leaf = draw(st.sampled_from(RANGES))
        return leaf, leaf
    if kind == "const":
        const = index(draw(st.integers(-9, 40)))
        return const, const
    a, a_raw = draw(expressions(depth - 1))
    if kind == "add":
        b, b_raw = draw(expressions(depth - 1))
        return a + b, raw(Op.ADD, a_raw, b_raw)
    factor = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12, 16, 20]))
    op = {"mul": Op.MUL, "div": Op.IDIV, "mod": Op.MOD}[kind]
    simple = {"mul": a * factor, "div": a // factor, "mod": a % factor}[kind]
    return simple, raw(op, a_raw, index(factor))


def every_assignment() -> list[dict[Node, int]]:
    return [
        dict(zip(RANGES, values, strict=True))
        for values in itertools.product(*(range(int(r.src[0].arg)) for r in RANGES))
    ]


ASSIGNMENTS = every_assignment()


@st.composite
def polynomials(draw: st.DrawFn) -> tuple[Node, Node, Node]:
    """A divisor over Variables, a quotient over RANGEs and Variables, and a remainder below it."""
    n, m = Node.variable("n", 1, 5), Node.variable("m", 0, 4)
    divisor = draw(st.sampled_from([n, n + 1, n + m, n * 8, n * 8 + 8, (m + 1) * n, n * n + m]))
    factors = st.sampled_from([RANGES[0], RANGES[1], n, m + 1, index(4), index(0)])
    quotient = draw(factors) * draw(factors) + draw(factors)
    inner = Node(Op.RANGE, dtypes.index, (divisor,), (9, False))
    return divisor, quotient, draw(st.sampled_from([inner, index(0), n * 3, RANGES[3], m]))


def simplified_is_as_written(data: st.DataObject) -> None:
    """An index has the value that was written, and lies in its bounds."""
    simple, written = data.draw(expressions())
    low, high = bounds(simple)
    again = rebuild(written, {})
    for values in ASSIGNMENTS[::7]:
        expected = evaluate(written, values)
        assert evaluate(simple, values) == expected
        assert evaluate(again, values) == expected
        assert low <= expected <= high


def conditions_keep_their_truth(data: st.DataObject) -> None:
    """Comparisons and conjunctions are true where what was written is."""
    a, b = data.draw(expressions(3)), data.draw(expressions(3))
    below = less(a[0], b[0])
    positive = less(index(-1), a[0])
    both = conjunction(below, positive)
    for values in ASSIGNMENTS[::11]:
        x, y = evaluate(a[1], values), evaluate(b[1], values)
        assert bool(evaluate(below, values)) == (x < y)
        assert bool(evaluate(both, values)) == (x < y and x > -1)


def divides_by_variables(data: st.DataObject) -> None:
    """Quotients and remainders by an extent with Variables in it."""
    divisor, quotient, rest = data.draw(polynomials())
    n, m = Node.variable("n", 1, 5), Node.variable("m", 0, 4)
    dividend = quotient * divisor + rest
    if rest.op is Op.RANGE and rest.arg[0] == 9:
        assert (dividend // divisor, dividend % divisor) == (quotient, rest)
    for values in ({n: 1, m: 0}, {n: 3, m: 2}, {n: 5, m: 4}):
        by = evaluate(divisor, values)
        for i, j, k, r in itertools.product((0, 2), (0, 3), (0, 4), sorted({0, by - 1})):
            values |= {RANGES[0]: i, RANGES[1]: j, RANGES[3]: k}
            values |= {rest: r} if rest.op is Op.RANGE and rest.arg[0] == 9 else {}
            expected = divmod(evaluate(dividend, values), by)
            assert evaluate(dividend // divisor, values) == expected[0]
            assert evaluate(dividend % divisor, values) == expected[1]
