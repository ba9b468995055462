"""Index arithmetic against brute force over every value of its variables."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dtype import dtypes
from compiler.ir import Node, Op, index, substitute, toposort
from compiler.symbolic import FALSE, TRUE, evaluate
from test.compiler import index_programs
from test.compiler.index_programs import RANGES, make_range


@settings(max_examples=300)
@given(st.data())
def test_simplified_index_has_the_value_that_was_written(data: st.DataObject) -> None:
    index_programs.simplified_is_as_written(data)


@settings(max_examples=200)
@given(st.data())
def test_comparison_and_conjunction_keep_their_truth(data: st.DataObject) -> None:
    index_programs.conditions_keep_their_truth(data)


@settings(max_examples=100)
@given(st.data())
def test_division_by_an_extent_with_variables(data: st.DataObject) -> None:
    index_programs.divides_by_variables(data)


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


def test_replacing_in_a_sum_keeps_it_in_the_one_form() -> None:
    names = [Node.variable(f"v{i}", 0, 9) for i in range(6)]
    for a, b in itertools.permutations(names, 2):
        bound = Node(Op.BIND, dtypes.index, (a, index(4)))
        assert substitute(bound + b, {bound: a}) is a + b
        assert substitute(bound * b + 1, {bound: a}) is a * b + 1
