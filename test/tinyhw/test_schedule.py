"""Where graphs are cut, in which order kernels run, and that they compute what was asked."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dtype import dtypes
from compiler.ir import Node, Op, toposort
from test.tinyhw.graphs import FLOAT, Box, Memory, matmul, row_total, scale, shapes, windows
from tinyhw.errors import DeviceError, VariableError
from tinyhw.memory_plan import plan_memory
from tinyhw.schedule import CopyCall, KernelCall, schedule


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(memory: Memory, node: Node, kernels: int, expected: np.ndarray | None = None) -> Box:
    """Realizes a node in as many kernels as told, and compares it with the graph's own values."""
    expected = memory.read(node) if expected is None else expected
    box = Box(node)
    plan = memory.realize(box)
    assert len(plan.items) == kernels, shapes(plan)
    assert box.node.base.op is Op.BUFFER
    np.testing.assert_allclose(memory.read(box.node), expected, rtol=2e-5, atol=1e-5)
    return box


# ---- fusion ----


def test_an_elementwise_chain_is_one_kernel():
    m = Memory()
    x, y = m.box(floats(4, 5)), m.box(floats(4, 5, seed=1))
    node = x.node
    for _ in range(10):
        node = scale(node.alu(Op.ADD, y.node), 0.5).alu(Op.MAX, Node.const(0.0, FLOAT))
    check(m, node, 1)


def test_a_broadcast_product_summed_is_one_kernel_that_holds_no_cube():
    m = Memory()
    a, b = m.box(floats(16, 16)), m.box(floats(16, 16, seed=1))
    box = check(m, matmul(a.node, b.node), 1, m.read(a.node) @ m.read(b.node))
    assert max(buffer.size for buffer in m.contents) == 256
    assert box.node.shape == (16, 16)


def test_bias_and_activation_join_the_matrix_product():
    m = Memory()
    a, b, bias = m.box(floats(8, 6)), m.box(floats(6, 4, seed=1)), m.box(floats(4, seed=2))
    product = matmul(a.node, b.node)
    out = product.alu(Op.ADD, bias.node.reshape((1, 4)).expand((8, 4)))
    check(m, out.alu(Op.MAX, Node.const(0.0, FLOAT)), 1)


def test_an_activation_is_computed_once_before_a_matrix_product():
    m = Memory()
    a, b = m.box(floats(8, 6)), m.box(floats(6, 4, seed=1))
    check(m, matmul(a.node.alu(Op.MAX, Node.const(0.0, FLOAT)), b.node), 2)


def test_a_cast_is_no_reason_to_store_a_matrix():
    m = Memory()
    a, b = m.box(floats(8, 6).astype(np.float16)), m.box(floats(6, 4, seed=1))
    check(m, matmul(a.node.cast(FLOAT), b.node), 1)


def test_softmax_is_three_kernels():
    m = Memory()
    x = m.box(floats(6, 8)).node
    e = x.alu(Op.ADD, scale(row_total(x, Op.MAX), -1.0)).alu(Op.EXP2)
    check(m, e.alu(Op.DIV, row_total(e)), 3)


def test_two_reduces_of_one_sum_are_two_kernels():
    m = Memory()
    x, y = m.box(floats(6, 8)), m.box(floats(6, 9, seed=1))
    total = x.node.reduce(Op.ADD, (1,)).alu(Op.ADD, y.node.reduce(Op.MAX, (1,)))
    check(m, total, 2)


def test_reduces_of_the_same_kind_along_two_axes_are_one_kernel():
    m = Memory()
    x = m.box(floats(3, 4, 5)).node
    inner = x.reduce(Op.ADD, (1,)).reshape((3, 5)).permute((1, 0))
    check(m, inner.reduce(Op.ADD, (1,)), 1)
    check(m, inner.pad(((1, 0), (2, 1))).reduce(Op.ADD, (0,)), 1)


def test_the_sum_of_a_matrix_product_stays_two_kernels():
    m = Memory()
    a, b = m.box(floats(8, 6)), m.box(floats(6, 4, seed=1))
    check(m, matmul(a.node, b.node).reduce(Op.ADD, (0, 1)), 2)


def test_a_maximum_of_a_padded_sum_stays_two_kernels():
    m = Memory()
    x = m.box(-np.abs(floats(4, 5))).node
    inner = x.reduce(Op.MAX, (1,)).reshape((4,)).pad(((0, 1),))
    check(m, inner.reduce(Op.MAX, (0,)), 2)


def test_a_value_that_meets_itself_again_is_not_stored():
    m = Memory()
    a, b = m.box(floats(8, 6)), m.box(floats(6, 4, seed=1))
    x = matmul(a.node, b.node)
    check(m, x.alu(Op.MUL, scale(x, 0.5).alu(Op.EXP2).alu(Op.ADD, x)), 1)


def test_a_reduce_that_is_used_in_two_views_is_stored():
    m = Memory()
    a, b = m.box(floats(6, 8)), m.box(floats(8, 6, seed=1))
    x = matmul(a.node, b.node)
    check(m, x.alu(Op.ADD, x.permute((1, 0))), 2)


def test_a_reduce_whose_reshape_is_used_twice_is_stored_once():
    m = Memory()
    a, b = m.box(floats(6, 8)), m.box(floats(8, 6, seed=1))
    x = matmul(a.node, b.node).reshape((36,))
    plan = m.realize(Box(x.alu(Op.SIN)), Box(x.alu(Op.SQRT)), Box(x.reduce(Op.MAX, (0,))))
    assert shapes(plan) == [(6, 6, 1), (36,), (36,), (1,)]


def test_softmax_of_a_product_is_four_kernels_and_recomputes_the_powers():
    m = Memory()
    a, b = m.box(floats(6, 8)), m.box(floats(8, 6, seed=1))
    x = matmul(a.node, b.node)
    e = x.alu(Op.ADD, scale(row_total(x, Op.MAX), -1.0)).alu(Op.EXP2)
    check(m, e.alu(Op.DIV, row_total(e)), 4)


def test_a_reduce_with_two_results_is_stored_after_its_bias():
    m = Memory()
    a, b, bias = m.box(floats(8, 6)), m.box(floats(6, 4, seed=1)), m.box(floats(8, 4, seed=2))
    x = matmul(a.node, b.node).alu(Op.ADD, bias.node)
    one, two = Box(scale(x, 2.0)), Box(x.reduce(Op.ADD, (0,)))
    plan = m.realize(one, two)
    assert shapes(plan) == [(8, 4), (8, 4), (1, 4)]
    assert len(plan.items[0].buffers) == 4  # the bias is in the first


def test_cheap_values_are_computed_in_each_kernel_and_dear_ones_once():
    m = Memory()
    x = m.box(floats(64, 4)).node
    cheap, dear = scale(x, 2.0), x
    for _ in range(4):
        dear = dear.alu(Op.SIN)
    for value, kernels in ((cheap, 2), (dear, 3)):
        plan = m.realize(Box(value.reduce(Op.ADD, (0,))), Box(value.reduce(Op.MAX, (1,))))
        assert len(plan.items) == kernels


def test_a_kernel_has_a_limited_number_of_buffers():
    m = Memory()
    boxes = [m.box(floats(4, seed=i)) for i in range(100)]
    total = boxes[0].node
    for box in boxes[1:]:
        total = total.alu(Op.ADD, box.node)
    plan = m.realize(Box(total))
    assert 4 < len(plan.items) < 10
    assert max(len(item.buffers) for item in plan.items) <= 25


def test_a_very_long_chain_is_cut():
    m = Memory()
    node = m.box(floats(4)).node
    for i in range(3000):
        node = scale(node, 1.0 + i / 1e7)
    plan = m.realize(Box(node))
    assert 7 < len(plan.items) < 12
    assert max(len(toposort(item.ast)) for item in plan.items) < 900


def test_padding_is_stored_for_windows_and_the_convolution_is_one_contraction():
    m = Memory()
    x, w = m.box(floats(2, 3, 9)), m.box(floats(4, 3, 3, seed=1))
    padded = windows(x.node.pad(((0, 0), (0, 0), (1, 1))), 2, 3)  # (2, 3, 3, 9)
    left = padded.reshape((2, 1, 3, 3, 9)).expand((2, 4, 3, 3, 9))
    right = w.node.reshape((1, 4, 3, 3, 1)).expand((2, 4, 3, 3, 9))
    plan_box = Box(left.alu(Op.MUL, right).reduce(Op.ADD, (2, 3)))
    expected = m.read(plan_box.node)
    plan = m.realize(plan_box)
    assert shapes(plan) == [(2, 3, 11), (2, 4, 1, 1, 9)]
    np.testing.assert_allclose(m.read(plan_box.node), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_convolution_by_its_input_is_one_contraction_without_masks():
    m = Memory()
    g, w = m.box(floats(2, 4, 9)), m.box(floats(4, 3, 3, seed=1))
    left = g.node.reshape((2, 4, 1, 1, 9)).expand((2, 4, 3, 3, 9))
    right = w.node.reshape((1, 4, 3, 3, 1)).expand((2, 4, 3, 3, 9))
    by_window = left.alu(Op.MUL, right).reduce(Op.ADD, (1,)).reshape((2, 3, 3, 9))
    spread = by_window.pad(((0, 0), (0, 0), (0, 0), (2, 2))).skew(3, 2, -1, 2, 11)
    plan_box = Box(spread.reduce(Op.ADD, (2,)))
    expected = m.read(plan_box.node)
    plan = m.realize(plan_box)
    assert [tuple(n for n in s if n != 1) for s in shapes(plan)] == [(2, 4, 13), (2, 3, 11)]
    assert not any(n.op is Op.PAD for n in toposort(plan.items[1].ast))
    np.testing.assert_allclose(m.read(plan_box.node), expected, rtol=1e-5, atol=1e-5)


def test_a_long_sum_is_made_in_two_stages():
    m = Memory()
    x = m.box(np.ones((1 << 17,), np.float32))
    box = Box(x.node.reduce(Op.ADD, (0,)))
    plan = m.realize(box)
    assert shapes(plan) == [(64, 1), (1, 1)]
    assert m.read(box.node) == 1 << 17


def test_a_long_sum_of_a_prime_extent_is_made_in_two_stages_too():
    m = Memory()
    x = m.box(floats(100_003, 2))
    box = Box(x.node.reduce(Op.ADD, (0,)))
    assert shapes(m.realize(box)) == [(64, 1, 2), (1, 1, 2)]
    expected = m.read(x.node).sum(0, dtype=np.float64, keepdims=True)
    np.testing.assert_allclose(m.read(box.node), expected, rtol=1e-4, atol=1e-2)


def test_a_sum_with_many_results_stays_one_kernel():
    m = Memory()
    check(m, m.box(floats(64, 4096)).node.reduce(Op.ADD, (0,)), 1)


def test_the_gradient_by_weights_keeps_chunks_of_the_batch_apart():
    m = Memory()
    x, g = m.box(floats(64, 3, 1, 600)), m.box(floats(64, 1, 5, 600, seed=1))
    shape = (64, 3, 5, 600)
    total = x.node.expand(shape).alu(Op.MUL, g.node.expand(shape)).reduce(Op.ADD, (0, 3))
    box = Box(total)
    expected = np.einsum("nixk,nyok->io", m.read(x.node), m.read(g.node))
    plan = m.realize(box)
    (chunks, *_), _ = shapes(plan)
    assert chunks == 32
    got = m.read(box.node).reshape(3, 5)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-2)


# ---- sinks ----


def test_a_view_of_storage_runs_nothing():
    m = Memory()
    x = m.box(floats(4, 5))
    box = Box(x.node.permute((1, 0)).shrink(((1, 3), (0, 4))))
    assert m.realize(box).items == []


def test_a_constant_is_stored_whole_when_it_is_realized():
    m = Memory()
    box = Box(Node.const(3.0, FLOAT).reshape((1, 1)).expand((2, 3)))
    m.realize(box)
    assert box.node.base.arg.size == 6
    assert (m.read(box.node) == 3).all()


def test_sinks_that_are_views_of_one_value_share_it():
    m = Memory()
    x = m.box(floats(4, 5))
    value = scale(x.node, 2.0)
    one, two = Box(value), Box(value.permute((1, 0)))
    assert len(m.realize(one, two).items) == 1
    assert one.node.base is two.node.base


def test_live_values_met_on_the_way_are_kept():
    m = Memory()
    x = m.box(floats(4, 5))
    hidden = Box(matmul(x.node, x.node.permute((1, 0))))
    out = Box(row_total(hidden.node, Op.MAX))
    m.realize(out)
    assert hidden.node.base.op is Op.BUFFER
    assert m.realize(hidden).items == []


def test_empty_tensors_run_nothing():
    m = Memory()
    x = m.box(floats(0, 5))
    assert m.realize(Box(scale(x.node, 2.0))).items == []


def test_equal_kernels_are_one_expression():
    m = Memory()
    asts = []
    for seed in range(2):
        x, y = m.box(floats(4, seed=seed)), m.box(floats(4, seed=seed + 5))
        asts.append(m.realize(Box(scale(x.node.alu(Op.ADD, y.node), 2.0))).items[0].ast)
    assert asts[0] is asts[1]


# ---- writes ----


def test_an_elementwise_update_happens_in_place():
    m = Memory()
    x = m.box(floats(4, 5))
    before, buffer = m.read(x.node), x.node.base
    x.assign(scale(x.node, 2.0))
    plan = m.realize(x)
    assert len(plan.items) == 1 and plan.items[0].buffers == (buffer,)
    assert x.node.base is buffer
    np.testing.assert_array_equal(m.read(x.node), before * 2)


def test_a_write_that_reads_elsewhere_goes_through_a_temporary():
    m = Memory()
    x = m.box(floats(4, 4))
    before = m.read(x.node)
    x.assign(x.node.permute((1, 0)))
    assert len(m.realize(x).items) == 2
    np.testing.assert_array_equal(m.read(x.node), before.T)


def test_a_shifted_slice_assignment_is_exact():
    m = Memory()
    x = m.box(floats(8))
    before = m.read(x.node)
    x.assign(x.node.shrink(((0, 7),)), view=x.node.shrink(((1, 8),)))
    m.realize(x)
    np.testing.assert_array_equal(m.read(x.node), np.r_[before[0], before[:7]])


def test_pending_readers_run_before_the_write():
    m = Memory()
    x = m.box(floats(4))
    before = m.read(x.node)
    late = Box(scale(x.node, 3.0))
    x.assign(scale(x.node, 2.0))
    m.realize(x)
    assert late.node.base.op is Op.BUFFER
    np.testing.assert_array_equal(m.read(late.node), before * 3)


def test_a_pending_write_that_reads_old_contents_happens_before_them_being_overwritten():
    m = Memory()
    a, b = m.box(floats(4)), m.box(floats(4, seed=1))
    before = m.read(a.node)
    b.assign(scale(a.node, 2.0))
    a.assign(scale(a.node, 3.0))
    b.assign(scale(b.node, 5.0))  # a second write to b, which reads only b
    m.realize(a)
    np.testing.assert_allclose(m.read(b.node), before * 10)


def test_old_and_new_contents_meet_in_one_expression():
    m = Memory()
    x = m.box(floats(4))
    before = m.read(x.node)
    old = x.node
    x.assign(scale(x.node, 2.0))
    both = Box(old.alu(Op.ADD, x.node))
    m.realize(both)
    np.testing.assert_array_equal(m.read(both.node), before + before * 2)
    np.testing.assert_array_equal(m.read(x.node), before * 2)


def test_two_storages_are_swapped():
    m = Memory()
    a, b = m.box(floats(4)), m.box(floats(4, seed=1))
    x, y = m.read(a.node), m.read(b.node)
    old_a, old_b = a.node, b.node
    a.assign(scale(old_b, 1.0))
    b.assign(scale(old_a, 1.0))
    m.realize(a, b)
    np.testing.assert_array_equal(m.read(a.node), y)
    np.testing.assert_array_equal(m.read(b.node), x)


def test_each_write_happens_once():
    m = Memory()
    x = m.box(np.ones(4, np.float32))
    x.assign(scale(x.node, 2.0))
    pending = Box(scale(x.node, 10.0))
    m.realize(x)
    m.realize(x)
    m.realize(pending)
    assert (m.read(x.node) == 2).all() and (m.read(pending.node) == 20).all()


def test_a_momentum_step_reads_and_writes_in_order():
    m = Memory()
    weight, momentum, grad = m.box(floats(4)), m.box(floats(4, seed=1)), m.box(floats(4, seed=2))
    w, v, g = (m.read(b.node) for b in (weight, momentum, grad))
    for _ in range(3):
        momentum.assign(scale(momentum.node, 0.5).alu(Op.ADD, grad.node))
        weight.assign(weight.node.alu(Op.ADD, scale(momentum.node, -0.25)))
        v = v * np.float32(0.5) + g
        w = w - np.float32(0.25) * v
    plan = m.realize(weight, momentum)
    assert len(plan.items) == 6
    np.testing.assert_allclose(m.read(weight.node), w, rtol=1e-6)
    np.testing.assert_allclose(m.read(momentum.node), v, rtol=1e-6)


@st.composite
def programs(draw):
    """Statements over three boxes of shape (3, 3)."""
    kinds = ["assign", "slice", "pend", "swap", "reduce", "realize"]
    box = st.integers(0, 2)
    return draw(st.lists(st.tuples(st.sampled_from(kinds), box, box, box), max_size=12))


@settings(max_examples=200)
@given(programs())
def test_random_programs_of_reads_and_writes_do_what_numpy_does(program):
    m = Memory()
    boxes = [m.box(floats(3, 3, seed=i)) for i in range(3)]
    arrays = [m.read(b.node).copy() for b in boxes]
    pending: list[tuple[Box, np.ndarray]] = []
    for kind, i, j, k in program:
        a, b = boxes[j].node, boxes[k].node
        x, y = arrays[j], arrays[k]
        if kind == "assign":
            boxes[i].assign(a.alu(Op.ADD, scale(b, 0.5)))
            arrays[i] = x + y * np.float32(0.5)
        elif kind == "slice":
            boxes[i].assign(
                scale(a.permute((1, 0)).shrink(((0, 2), (0, 3))), -0.5),
                view=boxes[i].node.shrink(((1, 3), (0, 3))),
            )
            arrays[i] = np.concatenate([arrays[i][:1], x.T[:2] * np.float32(-0.5)])
        elif kind == "pend":
            pending.append((Box(a.alu(Op.MAX, b)), np.maximum(x, y)))
        elif kind == "reduce":
            boxes[i].assign(scale(row_total(a), 0.25).alu(Op.MAX, b))
            arrays[i] = np.maximum(x.sum(1, keepdims=True) * np.float32(0.25), y)
        elif kind == "swap" and pending:
            box, values = pending[j % len(pending)]
            boxes[i].assign(box.node.alu(Op.ADD, a))
            arrays[i] = values + x
        elif kind == "realize":
            m.realize(boxes[i])
            np.testing.assert_allclose(m.read(boxes[i].node), arrays[i], rtol=1e-4, atol=1e-5)
    m.realize(*boxes)
    for box, array in zip(boxes, arrays, strict=True):
        np.testing.assert_allclose(m.read(box.node), array, rtol=1e-4, atol=1e-5)
    for box, values in pending:
        m.realize(box)
        np.testing.assert_allclose(m.read(box.node), values, rtol=1e-4, atol=1e-5)


@st.composite
def expressions(draw):
    """A random graph over two boxes: movement, arithmetic, reduces, sharing."""
    m = Memory()
    nodes = [m.box(floats(2, 3, 4, seed=i)).node for i in range(2)]
    for _ in range(draw(st.integers(1, 14))):
        x = draw(st.sampled_from(nodes))
        kind = draw(st.sampled_from(["alu", "unary", "reduce", "move", "window", "merge"]))
        if kind == "alu":
            others = [n for n in nodes if n.shape == x.shape]
            nodes.append(x.alu(Op.ADD, draw(st.sampled_from(others))))
        elif kind == "unary":
            nodes.append(x.alu(draw(st.sampled_from([Op.SIN, Op.SQRT, Op.TRUNC]))))
        elif kind == "reduce":
            axis = draw(st.integers(0, 2))
            total = x.reduce(draw(st.sampled_from([Op.ADD, Op.MAX])), (axis,))
            nodes += [total, total.expand(x.shape)]
        elif kind == "move":
            order = draw(st.permutations(range(3)))
            pads = tuple((draw(st.integers(0, 1)), draw(st.integers(0, 1))) for _ in range(3))
            nodes += [x.permute(tuple(order)), x.pad(pads), x.flip((1,))]
        elif kind == "window" and x.shape[2] >= 2 and x.size < 500:
            taken = windows(x, 2, 2).reduce(Op.ADD, (2,))
            nodes.append(taken.reshape((*x.shape[:2], x.shape[2] - 1)))
        elif kind == "merge" and x.size < 500:
            a, b, c = x.shape
            wide = x.reshape((a, b, c, 1)).expand((a, b, c, 2)).reshape((a, b, c * 2))
            nodes.append(scale(wide, 0.5))
    return m, nodes[draw(st.integers(2, len(nodes) - 1)) :]


@settings(max_examples=200)
@given(expressions())
def test_random_expressions_keep_their_values_when_cut(graph):
    m, nodes = graph
    boxes = [Box(node) for node in nodes]
    expected = [m.read(node) for node in nodes]
    m.realize(*boxes)
    for box, values in zip(boxes, expected, strict=True):
        np.testing.assert_allclose(m.read(box.node), values, rtol=1e-4, atol=1e-4)


# ---- variables ----


def test_a_bound_variable_becomes_a_launch_value_and_storage_has_its_maximum():
    m = Memory()
    x = m.box(floats(10))
    variable = Node.variable("n", 1, 10)
    bound = Node(Op.BIND, dtypes.index, (variable, Node.const(4, dtypes.index)))
    box = Box(scale(x.node.shrink(((0, bound),)), 2.0))
    plan = schedule([(box.node, "LLVM")], lambda _: None)
    (item,) = plan.items
    assert plan.values == {"n": 4}
    assert item.buffers[0].arg.size == 10
    assert not any(n.op is Op.BIND for n in toposort(item.ast))
    assert plan.stored[box.node].shape == (bound,)


def test_one_variable_with_two_values_is_an_error():
    m = Memory()
    x = m.box(floats(10))
    variable = Node.variable("n", 1, 10)
    parts = [
        x.node.shrink(((0, Node(Op.BIND, dtypes.index, (variable, Node.const(v, dtypes.index)))),))
        for v in (3, 4)
    ]
    with pytest.raises(VariableError, match="n is bound to 3 and to 4"):
        m.realize(*(Box(scale(part, 2.0)) for part in parts))


# ---- devices ----


def test_a_copy_moves_whole_storage_between_devices():
    m = Memory()
    x = m.box(floats(4, 5))
    there = Box(scale(x.node.permute((1, 0)).copy_to("CLANG"), 2.0))
    expected = m.read(there.node)
    plan = m.realize(there)
    kinds = [type(item) for item in plan.items]
    assert kinds == [KernelCall, CopyCall, KernelCall]
    assert plan.items[2].device == "CLANG"
    np.testing.assert_array_equal(m.read(there.node), expected)


def test_tensors_of_two_devices_in_one_kernel_are_an_error():
    m = Memory()
    x, y = m.box(floats(4)), m.box(floats(4), device="CLANG")
    with pytest.raises(DeviceError, match="combines tensors on LLVM and CLANG"):
        m.realize(Box(x.node.alu(Op.ADD, y.node)))


# ---- memory and time ----


def test_temporaries_of_a_long_schedule_share_memory():
    m = Memory()
    x = m.box(floats(64, 64)).node
    for _ in range(20):
        x = scale(matmul(x, x), 0.01)
    plan = m.realize(Box(x))
    layout = plan_memory(plan.items, plan.temporaries)
    assert len(plan.temporaries) == 19
    assert layout.arena_bytes == {"LLVM": 2 * 64 * 64 * 4}


def test_gradients_are_used_up_before_the_next_is_made():
    m = Memory()
    layers = 8
    x, g = m.box(floats(64, 64)).node, m.box(floats(64, 64, seed=1)).node
    weights = [m.box(floats(64, 64, seed=i)).node for i in range(layers)]
    inputs = [x]
    for w in weights:
        inputs.append(matmul(inputs[-1], w).alu(Op.SIN))
    updates = []
    for w, x in zip(weights[::-1], inputs[-2::-1], strict=True):
        updates.append(Box(matmul(x.permute((1, 0)), g)))
        g = matmul(g, w.permute((1, 0))).alu(Op.MUL, x)
    plan = m.realize(*updates[::-1])
    layout = plan_memory(plan.items, plan.temporaries)
    assert layout.arena_bytes["LLVM"] <= (layers + 3) * 64 * 64 * 4


def test_a_graph_of_ten_thousand_nodes_is_cut_in_time():
    m = Memory()
    x = m.box(floats(8, 8)).node
    for i in range(600):
        x = scale(matmul(x, x).alu(Op.ADD, row_total(x)), 0.01 + i / 1e6)
    assert len(toposort(x)) > 6000
    start = time.perf_counter()
    schedule([(x, "LLVM")], lambda _: None)
    assert time.perf_counter() - start < 20  # about 0.5 s; quadratic behaviour takes minutes
