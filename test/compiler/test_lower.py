"""Lowering, planning and linearising, judged by NumPy through an interpreter of instructions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dtype import dtypes
from compiler.ir import Node, Op, find
from compiler.linear import LinearKernel
from compiler.linearise import linearise
from compiler.lower import lower
from compiler.optimise import optimise
from compiler.plan import Plan
from compiler.target import Target
from test.compiler.linear_interpreter import run

WIDE = Target("llvm", "x86_64", vector_bits=512, vector_registers=32, threads=2)
NARROW = replace(WIDE, vector_bits=128, vector_registers=16, threads=1)
GPU = Target("llvm", "gpu", lane_width=32, block_threads=256, threads=4)
SMALL_GPU = replace(GPU, lane_width=4, block_threads=16, threads=2)  # so that blocks are many
TARGETS = pytest.mark.parametrize(
    "target",
    [WIDE, NARROW, GPU, SMALL_GPU],
    ids=["512 bits", "128 bits", "32 lanes", "4 lanes"],
)


def param(position: int, shape: tuple[int, ...]) -> Node:
    size = math.prod(shape)
    return Node(Op.PARAM, dtypes.float32, (), (position, size)).reshape(shape)


def compile_and_run(
    value: Node, arrays: list[np.ndarray], target: Target
) -> tuple[np.ndarray, Plan, LinearKernel]:
    """The value as the kernel computes it, into a buffer that held NaN."""
    size = math.prod(value.shape)  # type: ignore[arg-type]
    output = Node(Op.PARAM, dtypes.float32, (), (0, size)).reshape(value.shape)
    plan = optimise(lower(output.assign(value)), target)
    kernel = linearise(plan)
    memory = [np.full(size, np.nan, np.float32), *(a.reshape(-1).copy() for a in arrays)]
    used = [p.arg[0] for p in kernel.params if p.op is Op.PARAM]
    run(kernel, [memory[i] for i in used])
    return memory[0].reshape(value.shape), plan, kernel


def matmul(a: Node, b: Node) -> Node:
    (m, k), (_, n) = a.shape, b.shape
    left = a.reshape((m, k, 1)).expand((m, k, n))
    right = b.reshape((1, k, n)).expand((m, k, n))
    return left.alu(Op.MUL, right).reduce(Op.ADD, (1,)).reshape((m, n))


def windows(x: Node, axis: int, size: int, dilation: int = 1) -> Node:
    """Sliding windows along an axis; the place in the window becomes the next axis."""
    shape = x.shape
    spread = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    full = (*shape[: axis + 1], size, *shape[axis + 1 :])
    return (
        x.reshape(spread)
        .expand(full)
        .skew(
            axis,
            axis + 1,
            dilation,
            0,
            int(shape[axis]) - (size - 1) * dilation,  # type: ignore[call-overload]
        )
    )


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32)


@TARGETS
@pytest.mark.parametrize(
    "m, k, n", [(16, 8, 32), (19, 13, 45), (40, 7, 100), (1, 33, 20), (64, 9, 10), (3, 1, 2)]
)
def test_matmul_of_every_kind_of_rest(m: int, k: int, n: int, target: Target) -> None:
    a, b = random(m, k), random(k, n)
    found, _, _ = compile_and_run(matmul(param(1, (m, k)), param(2, (k, n))), [a, b], target)
    np.testing.assert_allclose(found, a @ b, atol=1e-4)


@TARGETS
def test_matmul_against_transposed_factors(target: Target) -> None:
    a, b = random(24, 70), random(40, 70)
    product = matmul(param(1, (24, 70)), param(2, (40, 70)).permute((1, 0)))
    found, _, _ = compile_and_run(product, [a, b], target)
    np.testing.assert_allclose(found, a @ b.T, atol=1e-4)
    product = matmul(param(1, (24, 70)).permute((1, 0)), param(2, (24, 70)))
    found, _, _ = compile_and_run(product, [a, a], target)
    np.testing.assert_allclose(found, a.T @ a, atol=1e-4)


def test_front_page_matmul_is_tiled_and_its_wide_factor_is_kept_close() -> None:
    n = 64
    left = param(1, (n, n)).reshape((n, 1, n)).expand((n, n, n))
    right = param(2, (n, n)).permute((1, 0)).reshape((1, n, n)).expand((n, n, n))
    value = left.alu(Op.MUL, right).reduce(Op.ADD, (2,)).reshape((n, n))
    a, b = random(n, n), random(n, n)
    found, plan, kernel = compile_and_run(value, [a, b], replace(WIDE, l1_bytes=1 << 10))
    np.testing.assert_allclose(found, a @ b, atol=1e-4)
    assert plan.stages and plan.stages[0].load.src[0].arg[0] == 2
    assert all(node.arg[1] < n**3 for node in kernel.body if node.op is Op.LOCAL)


@TARGETS
def test_convolution_and_its_adjoint(target: Target) -> None:
    batch, cin, cout, height, width, size = 2, 3, 20, 9, 11, 3
    x, w = random(batch, cin, height, width), random(cout, cin, size, size)
    oh, ow = height - size + 1, width - size + 1
    seen = windows(windows(param(1, x.shape), 2, size), 4, size)  # b c oh kh ow kw
    full = (batch, cout, oh, ow, cin, size, size)
    seen = seen.permute((0, 2, 4, 1, 3, 5)).reshape((batch, 1, oh, ow, cin, size, size))
    weight = param(2, w.shape).reshape((1, cout, 1, 1, cin, size, size)).expand(full)
    value = seen.expand(full).alu(Op.MUL, weight).reduce(Op.ADD, (4, 5, 6))
    found, _, _ = compile_and_run(value.reshape((batch, cout, oh, ow)), [x, w], target)
    expected = sum(
        np.einsum("bchw,oc->bohw", x[:, :, i : i + oh, j : j + ow], w[:, :, i, j])
        for i in range(size)
        for j in range(size)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


@TARGETS
@pytest.mark.parametrize("width, dilation", [(6, 2), (20, 8), (7, 1)])
def test_lanes_that_one_place_leaves_out_are_loaded_for_another(
    width: int, dilation: int, target: Target
) -> None:
    """The window of the first lanes reaches what the last, partly masked lanes begin with."""
    cin, cout, size = 2, 8, 3
    x, w = random(cin, width + (size - 1) * dilation), random(cout, cin, size)
    full = (cout, width, cin, size)
    seen = windows(param(1, x.shape), 1, size, dilation).permute((1, 0, 2))
    weight = param(2, w.shape).reshape((cout, 1, cin, size)).expand(full)
    value = seen.reshape((1, width, cin, size)).expand(full).alu(Op.MUL, weight)
    found, _, _ = compile_and_run(value.reduce(Op.ADD, (2, 3)), [x, w], target)
    expected = sum(w[:, :, k] @ x[:, k * dilation : k * dilation + width] for k in range(size))
    np.testing.assert_allclose(found.reshape(cout, width), expected, atol=1e-5)


@TARGETS
def test_softmax_rows_fuse_into_one_kernel(target: Target) -> None:
    x = random(5, 37)
    node = param(1, x.shape)
    most = node.reduce(Op.MAX, (1,)).expand((5, 37))
    power = node.alu(Op.ADD, most.alu(Op.MUL, Node.const(-1, dtypes.float32))).alu(Op.EXP2)
    value = power.alu(Op.DIV, power.reduce(Op.ADD, (1,)).expand((5, 37)))
    found, plan, _ = compile_and_run(value, [x], target)
    expected = np.exp2(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-6)
    assert len(list(find(plan.store, Op.REDUCE))) == 2


def test_neighbouring_axes_walked_as_one_become_one() -> None:
    value = param(1, (4, 5, 6)).alu(Op.ADD, param(2, (4, 5, 6)))
    kernel = lower(param(0, (4, 5, 6)).assign(value))
    assert [int(r.src[0].arg) for r in kernel.ranges] == [120]
    total = param(1, (4, 5, 6)).reduce(Op.ADD, (1, 2))
    kernel = lower(param(0, (4, 1, 1)).assign(total))
    (reduce,) = find(kernel.store, Op.REDUCE)
    assert [int(r.src[0].arg) for r in reduce.src[1:]] == [30]


def test_window_that_stays_inside_needs_no_gate() -> None:
    value = windows(param(1, (30,)), 0, 5).reduce(Op.MAX, (1,))
    kernel = lower(param(0, (26, 1)).assign(value))
    assert all(len(load.src) == 2 for load in find(kernel.store, Op.LOAD))


@TARGETS
def test_gather_reads_zero_outside_and_nothing_else(target: Target) -> None:
    table, at = random(7, 5), np.array([3, -1, 6, 7, 0], np.float32)
    positions = param(2, (5,)).cast(dtypes.int32)
    found, _, _ = compile_and_run(param(1, (7, 5)).gather(positions), [table, at], target)
    expected = np.zeros((5, 5), np.float32)
    expected[[0, 2, 4]] = table[[3, 6, 0]]
    np.testing.assert_array_equal(found, expected)


@dataclass(frozen=True)
class Pair:
    """A node with the array that it should be."""

    node: Node
    array: np.ndarray


@st.composite
def moved(draw: st.DrawFn, start: Pair, steps: int) -> Pair:
    """A few random movements, sums and elementwise operations."""
    node, array = start.node, start.array
    for _ in range(steps):
        shape = array.shape
        kind = draw(st.sampled_from(["permute", "reshape", "pad", "shrink", "flip", "sum", "max",
                                     "expand", "window", "square", "add"]))  # fmt: skip
        axis = draw(st.integers(0, len(shape) - 1)) if shape else 0
        if kind == "permute" and shape:
            order = tuple(draw(st.permutations(range(len(shape)))))
            node, array = node.permute(order), array.transpose(order)
        elif kind == "reshape":
            size = array.size
            divisors = [d for d in range(1, size + 1) if size % d == 0]
            first = draw(st.sampled_from(divisors))
            rest = [d for d in divisors if (size // first) % d == 0]
            second = draw(st.sampled_from(rest))
            new = (first, second, size // first // second)
            node, array = node.reshape(new), array.reshape(new)
        elif kind == "pad" and shape and array.size < 300:
            amounts = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape)
            node, array = node.pad(amounts), np.pad(array, amounts)
        elif kind == "shrink" and shape:
            limits = []
            for extent in shape:
                start_at = draw(st.integers(0, extent - 1))
                limits.append((start_at, draw(st.integers(start_at + 1, extent))))
            node = node.shrink(tuple(limits))
            array = array[tuple(slice(*limit) for limit in limits)]
        elif kind == "flip" and shape:
            node, array = node.flip((axis,)), np.flip(array, axis)
        elif kind in ("sum", "max") and shape:
            op, function = (Op.ADD, np.sum) if kind == "sum" else (Op.MAX, np.max)
            node, array = node.reduce(op, (axis,)), function(array, axis=axis, keepdims=True)
        elif kind == "expand" and shape and shape[axis] == 1 and array.size < 200:
            new = (*shape[:axis], draw(st.integers(2, 6)), *shape[axis + 1 :])
            node, array = node.expand(new), np.broadcast_to(array, new)
        elif kind == "window" and shape and shape[axis] >= 3 and len(shape) < 5:
            node = windows(node, axis, 2)
            array = np.stack([array[(slice(None),) * axis + (slice(i, shape[axis] - 1 + i),)]
                              for i in range(2)], axis + 1)  # fmt: skip
        elif kind == "square":
            node, array = node.alu(Op.MUL, node), array * array
        elif kind == "add":
            node = node.alu(Op.ADD, Node.const(1.5, dtypes.float32))
            array = array + np.float32(1.5)
    return Pair(node, array)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_graphs_have_numpys_values(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    numbers = np.random.default_rng(data.draw(st.integers(0, 99)))
    array = numbers.integers(-3, 4, shape).astype(np.float32)
    first = data.draw(moved(Pair(param(1, shape), array), 5))
    target = data.draw(st.sampled_from([WIDE, NARROW, GPU, SMALL_GPU]))
    found, _, _ = compile_and_run(first.node, [array], target)
    np.testing.assert_allclose(found, first.array, rtol=1e-5)


@TARGETS
@pytest.mark.parametrize("present", [1, 5, 16, 40])
def test_variable_extents_compute_only_what_exists(present: int, target: Target) -> None:
    n = Node.variable("n", 1, 40)
    x = random(3, 40)
    source = param(1, (3, 40)).shrink(((0, 3), (0, n)))
    doubled = source.alu(Op.ADD, source)
    output = param(0, (3, 40)).shrink(((0, 3), (0, n)))
    kernel = linearise(optimise(lower(output.assign(doubled)), target))
    memory = np.full(120, np.nan, np.float32)
    run(kernel, [memory, x.reshape(-1)], {"n": present})
    found = memory.reshape(3, 40)
    np.testing.assert_array_equal(found[:, :present], 2 * x[:, :present])
    assert np.isnan(found[:, present:]).all()
    total = param(0, (3, 1)).assign(doubled.reduce(Op.ADD, (1,)))
    kernel = linearise(optimise(lower(total), target))
    memory = np.full(3, np.nan, np.float32)
    run(kernel, [memory, x.reshape(-1)], {"n": present})
    np.testing.assert_allclose(memory, 2 * x[:, :present].sum(1), rtol=1e-4, atol=1e-4)


@TARGETS
def test_a_reduction_over_nothing_gives_what_it_starts_from(target: Target) -> None:
    nothing = param(1, (3, 4)).shrink(((0, 3), (2, 2)))
    found, _, _ = compile_and_run(nothing.reduce(Op.ADD, (1,)), [], target)
    np.testing.assert_array_equal(found, np.zeros((3, 1)))
    found, _, _ = compile_and_run(nothing.reduce(Op.MAX, (1,)), [], target)
    assert (found == -np.inf).all()
