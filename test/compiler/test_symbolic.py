"""Index arithmetic against brute force over every value of its variables."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dtype import dtypes
from compiler.ir import Node, Op, index, substitute, toposort
from compiler.symbolic import FALSE, TRUE, bounds, conjunction, evaluate, less, rebuild


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


@settings(max_examples=300, deadline=None)
@given(expressions())
def test_simplified_index_has_the_value_that_was_written(pair: tuple[Node, Node]) -> None:
    simple, written = pair
    low, high = bounds(simple)
    again = rebuild(written, {})
    for values in ASSIGNMENTS[::7]:
        expected = evaluate(written, values)
        assert evaluate(simple, values) == expected
        assert evaluate(again, values) == expected
        assert low <= expected <= high


@settings(max_examples=200, deadline=None)
@given(expressions(3), expressions(3))
def test_comparison_and_conjunction_keep_their_truth(
    a: tuple[Node, Node], b: tuple[Node, Node]
) -> None:
    below = less(a[0], b[0])
    positive = less(index(-1), a[0])
    both = conjunction(below, positive)
    for values in ASSIGNMENTS[::11]:
        x, y = evaluate(a[1], values), evaluate(b[1], values)
        assert bool(evaluate(below, values)) == (x < y)
        assert bool(evaluate(both, values)) == (x < y and x > -1)


def test_merged_and_split_axes_cancel() -> None:
    i, j, k, _ = RANGES
    flat = (i * 4 + j) * 8 + k
    assert flat // 32 is i
    assert flat // 8 % 4 is j
    assert flat % 8 is k
    assert flat // 8 * 8 + flat % 8 is flat
    assert (k // 2) // 2 is k // 4
    assert (k * 4 + j) // 8 is k // 2
    assert (flat // 8) * 8 + k is flat


def test_conditions_that_bounds_decide_vanish() -> None:
    i, _, _, _ = RANGES
    assert (i < 3) is TRUE
    assert (i > 2) is FALSE
    assert (i * 4 + 2 < 10) is (i < 2)


def test_symbolic_extents_divide() -> None:
    n = Node.variable("n", 1, 100)
    j = Node(Op.RANGE, dtypes.index, (n,), (7, False))
    i = RANGES[0]
    assert (i * n + j) // n is i
    assert (i * n + j) % n is j
    assert (n * 2) // n is index(2)


def test_dividends_are_never_negative_so_that_machines_may_truncate() -> None:
    i = make_range(9, 4)
    reversed_index = index(3) - i
    quotient, remainder = reversed_index // 2, reversed_index % 2
    for value in range(4):
        for node in toposort(quotient + remainder * 10):
            if node.op in (Op.IDIV, Op.MOD):
                assert evaluate(node.src[0], {i: value}) >= 0
    assert quotient * 2 + remainder is reversed_index


@st.composite
def polynomials(draw: st.DrawFn) -> tuple[Node, Node, Node]:
    """A divisor over Variables, a quotient over RANGEs and Variables, and a remainder below it."""
    n, m = Node.variable("n", 1, 5), Node.variable("m", 0, 4)
    divisor = draw(st.sampled_from([n, n + 1, n + m, n * 8, n * 8 + 8, (m + 1) * n, n * n + m]))
    factors = st.sampled_from([RANGES[0], RANGES[1], n, m + 1, index(4), index(0)])
    quotient = draw(factors) * draw(factors) + draw(factors)
    inner = Node(Op.RANGE, dtypes.index, (divisor,), (9, False))
    return divisor, quotient, draw(st.sampled_from([inner, index(0), n * 3, RANGES[3], m]))


@settings(max_examples=200, deadline=None)
@given(polynomials())
def test_division_by_an_extent_with_variables(drawn: tuple[Node, Node, Node]) -> None:
    divisor, quotient, rest = drawn
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


def test_replacing_in_a_sum_keeps_it_in_the_one_form() -> None:
    names = [Node.variable(f"v{i}", 0, 9) for i in range(6)]
    for a, b in itertools.permutations(names, 2):
        bound = Node(Op.BIND, dtypes.index, (a, index(4)))
        assert substitute(bound + b, {bound: a}) is a + b
        assert substitute(bound * b + 1, {bound: a}) is a * b + 1
