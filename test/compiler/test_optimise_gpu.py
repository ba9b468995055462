"""Plans for GPUs, judged by NumPy through the interpreter that runs all threads of a block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler import optimise_gpu
from compiler.dtype import dtypes
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.linearise import linearise
from compiler.lower import lower
from compiler.optimise import optimise
from compiler.plan import Plan
from test.compiler.linear_interpreter import run
from test.compiler.test_lower import (
    GPU,
    SMALL_GPU,
    Pair,
    compile_and_run,
    matmul,
    moved,
    param,
    random,
    windows,
)

BOTH = pytest.mark.parametrize("target", [GPU, SMALL_GPU], ids=["32 lanes", "4 lanes"])
F32 = dtypes.float32


def plan_of(value: Node) -> Plan:
    size = math.prod(value.shape)  # type: ignore[arg-type]
    output = Node(Op.PARAM, value.dtype, (), (0, size)).reshape(value.shape)
    return optimise(lower(output.assign(value)), replace(GPU, threads=96))


def normalised(shape: tuple[int, int]) -> Node:
    node = param(1, shape)
    most = node.reduce(Op.MAX, (1,)).expand(shape)
    power = node.alu(Op.ADD, most.alu(Op.MUL, Node.const(-1, F32))).alu(Op.EXP2)
    return power.alu(Op.DIV, power.reduce(Op.ADD, (1,)).expand(shape))


# ---- what is chosen ----


def test_neighbouring_threads_read_neighbouring_elements_of_a_row() -> None:
    plan = plan_of(param(1, (4000, 500)).reduce(Op.ADD, (1,)))
    (reduce,) = plan.reduce_order
    (axis,) = plan.reduce_order[reduce]
    assert plan.threads is not None and plan.threads[axis] == 0
    assert plan.block == (32, 8, 1) and plan.blocks(0) == 500


def test_neighbouring_threads_add_up_neighbouring_columns() -> None:
    plan = plan_of(param(1, (500, 64)).reduce(Op.ADD, (0,)))
    (reduce,) = plan.reduce_order
    (rows,) = plan.reduce_order[reduce]
    (columns,) = plan.order
    assert plan.threads == {columns: 0, rows: 1} and plan.block == (32, 8, 1)


def test_a_row_vector_times_a_matrix_reads_the_matrix_by_rows() -> None:
    plan = plan_of(matmul(param(1, (1, 4096)), param(2, (4096, 4096))))
    (columns,) = plan.order
    assert plan.threads is not None and plan.threads[columns] == 0


def test_a_large_matmul_has_a_square_of_results_in_every_thread() -> None:
    plan = plan_of(matmul(param(1, (2048, 512)), param(2, (512, 2048))))
    assert plan.block == (16, 16, 1)
    assert [plan.tile(axis).unroll for axis in plan.order] == [4, 4]


def test_threads_share_sums_that_are_few_and_long() -> None:
    product = matmul(param(1, (60_000, 784)).permute((1, 0)), param(2, (60_000, 10)))
    plan = plan_of(product)
    assert plan.block == (32, 8, 1)
    assert sorted(plan.tile(axis).unroll for axis in plan.order) == [1, 5]


def test_short_rows_are_normalised_by_a_thread_each() -> None:
    plan = plan_of(normalised((60_000, 10)))
    assert [plan.tile(axis).lanes for axis in plan.order] == [256, 1]
    assert len(plan.grids) == 1


def test_more_axes_than_the_grid_has_share_its_first_dimension() -> None:
    plan = plan_of(param(1, (3, 50, 70, 20, 90)).permute((4, 2, 0, 3, 1)).alu(Op.SQRT))
    assert len(plan.grids) > 3
    assert [grid.dimension for grid in plan.grids][:3] == [0, 1, 2]
    shared = [grid for grid in plan.grids if grid.dimension == 0]
    assert [grid.stride for grid in shared] == [
        math.prod(g.blocks for g in shared[:i]) for i in range(len(shared))
    ]


def test_an_axis_beyond_the_grids_limit_is_walked_in_turns() -> None:
    plan = plan_of(Node(Op.PARAM, F32, (), (1, 1 << 40)).alu(Op.SQRT))
    (grid,) = plan.grids
    assert grid.blocks <= optimise_gpu.GRID_LIMITS[0] and grid.chunk > 1
    assert grid.blocks * grid.chunk * plan.tile(grid.range).step >= 1 << 40


# ---- what is computed ----


@BOTH
@pytest.mark.parametrize("rows, columns", [(3, 300), (70, 33), (1, 1000), (5, 18), (40, 10)])
def test_rows_are_normalised(rows: int, columns: int, target: object) -> None:
    x = random(rows, columns)
    found, _, _ = compile_and_run(normalised(x.shape), [x], target)
    expected = np.exp2(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-6)


@BOTH
@pytest.mark.parametrize("m, k, n", [(7, 900, 11), (3, 257, 40), (20, 300, 1), (1, 300, 20)])
def test_long_sums_of_products(m: int, k: int, n: int, target: object) -> None:
    a, b = random(m, k), random(k, n)
    found, _, _ = compile_and_run(matmul(param(1, (m, k)), param(2, (k, n))), [a, b], target)
    np.testing.assert_allclose(found, a @ b, atol=1e-3)


@BOTH
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", [Op.ADD, Op.MAX])
def test_sums_along_either_axis(op: Op, axis: int, target: object) -> None:
    x = random(130, 45)
    found, _, _ = compile_and_run(param(1, x.shape).reduce(op, (axis,)), [x], target)
    expected = (np.sum if op is Op.ADD else np.max)(x, axis=axis, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@BOTH
def test_two_sums_of_different_length_in_one_kernel(target: object) -> None:
    x, y = random(6, 90), random(6, 40)
    total = (
        param(1, x.shape).reduce(Op.ADD, (1,)).alu(Op.ADD, param(2, y.shape).reduce(Op.MAX, (1,)))
    )
    found, _, _ = compile_and_run(total, [x, y], target)
    np.testing.assert_allclose(found[:, 0], x.sum(1) + y.max(1), atol=1e-4)


@BOTH
def test_a_sum_of_sums_whose_inner_one_depends_on_the_outer(target: object) -> None:
    x = random(5, 40, 20)
    inner = param(1, x.shape).reduce(Op.MAX, (2,))
    total = inner.alu(Op.MUL, inner).reduce(Op.ADD, (1,))
    found, _, _ = compile_and_run(total, [x], target)
    np.testing.assert_allclose(found[:, 0, 0], (x.max(2) ** 2).sum(1), atol=1e-4)


@pytest.mark.parametrize("present", [1, 30, 100])
def test_rows_of_variable_length(present: int) -> None:
    n = Node.variable("n", 1, 100)
    x = random(3, 100)
    total = param(1, x.shape).shrink(((0, 3), (0, n))).reduce(Op.ADD, (1,))
    for target in (GPU, SMALL_GPU):
        kernel = linearise(optimise(lower(param(0, (3, 1)).assign(total)), target))
        memory = np.full(3, np.nan, np.float32)
        run(kernel, [memory, x.reshape(-1)], {"n": present})
        np.testing.assert_allclose(memory, x[:, :present].sum(1), atol=1e-4)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_random_graphs_whose_sums_are_all_shared_among_threads(data: st.DataObject) -> None:
    """As in `test_lower.py`, but with heuristics that take every sum for a long one."""
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    numbers = np.random.default_rng(data.draw(st.integers(0, 99)))
    array = numbers.integers(-3, 4, shape).astype(np.float32)
    first = data.draw(moved(Pair(param(1, shape), array), 6))
    with mock.patch.multiple(optimise_gpu, SHORT=1, DEEP=2, FEWEST_ALONG_X=2):
        found, _, _ = compile_and_run(first.node, [array], SMALL_GPU)
    np.testing.assert_allclose(found, first.array, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 20)] * 3), st.booleans(), st.booleans(), st.integers(1, 4))
def test_random_matmuls(shape: tuple[int, int, int], left: bool, right: bool, threads: int) -> None:
    m, k, n = shape
    a, b = random(m, k), random(k, n)
    first = param(1, (k, m)).permute((1, 0)) if left else param(1, (m, k))
    second = param(2, (n, k)).permute((1, 0)) if right else param(2, (k, n))
    arrays = [a.T.copy() if left else a, b.T.copy() if right else b]
    with mock.patch.multiple(optimise_gpu, DEEP=8):
        target = replace(SMALL_GPU, threads=threads)
        found, _, _ = compile_and_run(matmul(first, second), arrays, target)
    np.testing.assert_allclose(found, a @ b, atol=1e-4)


@pytest.mark.parametrize("transposed", ["neither", "left", "right"])
@pytest.mark.parametrize("m, k, n", [(64, 64, 64), (33, 70, 45), (20, 65, 19)])
def test_factors_of_a_matmul_go_through_local_memory(
    m: int, k: int, n: int, transposed: str
) -> None:
    a, b = random(m, k), random(k, n)
    left, right = param(1, (m, k)), param(2, (k, n))
    arrays = [a, b]
    if transposed == "left":
        left, arrays[0] = param(1, (k, m)).permute((1, 0)), a.T.copy()
    if transposed == "right":
        right, arrays[1] = param(2, (n, k)).permute((1, 0)), b.T.copy()
    target = replace(SMALL_GPU, threads=1)
    found, plan, _ = compile_and_run(matmul(left, right), arrays, target)
    assert {shared.load.src[0].arg[0] for shared in plan.shared} == {1, 2}
    np.testing.assert_allclose(found, a @ b, atol=1e-4)


@BOTH
def test_convolution_with_a_stride(target: object) -> None:
    x, w = random(2, 3, 13), random(5, 3, 4)
    seen = windows(param(1, x.shape), 2, 4).permute((0, 2, 1, 3)).reshape((2, 1, 10, 3, 4))
    weight = param(2, w.shape).reshape((1, 5, 1, 3, 4)).expand((2, 5, 10, 3, 4))
    value = seen.expand((2, 5, 10, 3, 4)).alu(Op.MUL, weight).reduce(Op.ADD, (3, 4))
    value = value.reshape((2, 5, 5, 2)).shrink(((0, 2), (0, 5), (0, 5), (0, 1)))
    found, _, _ = compile_and_run(value, [x, w], target)
    view = np.lib.stride_tricks.sliding_window_view(x, 4, 2)[:, :, ::2]
    np.testing.assert_allclose(found[..., 0], np.einsum("bcok,fck->bfo", view, w), atol=1e-4)


# ---- that the interpreter would notice ----


def test_a_missing_barrier_of_a_shared_sum_is_noticed() -> None:
    x = random(2, 300)
    output = param(0, (2, 1)).assign(param(1, x.shape).reduce(Op.ADD, (1,)))
    kernel = linearise(optimise(lower(output), GPU))
    # The last one is for a loop around it.
    for broken in list(without_a_barrier(kernel))[:-1]:
        with pytest.raises(AssertionError, match="races"):
            run(broken, [np.zeros(2, np.float32), x.reshape(-1)])


def test_a_missing_barrier_of_a_matmul_is_noticed() -> None:
    n = 64
    output = param(0, (n, n)).assign(matmul(param(1, (n, n)), param(2, (n, n))))
    kernel = linearise(optimise(lower(output), replace(SMALL_GPU, threads=1)))
    a = random(n, n).reshape(-1)
    for broken in without_a_barrier(kernel):
        with pytest.raises(AssertionError, match="races"):
            run(broken, [np.zeros(n * n, np.float32), a, a])


def without_a_barrier(kernel: LinearKernel) -> Iterator[LinearKernel]:
    barriers = [i for i, node in enumerate(kernel.body) if node.op is Op.BARRIER]
    assert len(barriers) >= 2
    for gone in barriers:
        yield replace(kernel, body=(*kernel.body[:gone], *kernel.body[gone + 1 :]))
