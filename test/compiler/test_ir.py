"""The graph itself: identity, depth, digests, rewriting."""

from __future__ import annotations

import gc
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler import ir
from compiler.dtype import DType, dtypes, least_upper_dtype
from compiler.folding import FOLDING
from compiler.ir import Node, Op, Rules, find, substitute, toposort, users
from test.compiler.linear_interpreter import BINARY, numpy_type

F32 = dtypes.float32


def constant(value: float) -> Node:
    return Node.const(value, F32)


def test_equal_expressions_are_one_node_and_die_with_their_last_user() -> None:
    a = Node.variable("interned", 0, 5)
    assert a.cast(F32).alu(Op.SQRT) is a.cast(F32).alu(Op.SQRT)
    gc.collect()  # what other tests left in cycles is not counted
    before = len(ir._interned)
    kept = [a.cast(F32).alu(Op.ADD, constant(i + 0.5)) for i in range(100)]
    assert len(ir._interned) >= before + 100
    kept.clear()
    gc.collect()
    assert len(ir._interned) <= before + 2


def test_constants_are_told_apart_by_their_bits() -> None:
    assert constant(0.0) is not constant(-0.0)
    assert math.copysign(1, constant(-0.0).arg) == -1
    assert constant(math.nan) is constant(math.nan)
    assert Node.const(1, dtypes.int32) is not Node.const(True, dtypes.bool)
    assert Node.const(300, dtypes.uint8).arg == 44
    assert Node.const(-1, dtypes.uint32).arg == 2**32 - 1


def test_a_graph_a_hundred_thousand_deep_is_walked_hashed_and_rewritten() -> None:
    node = Node.variable("deep", 0, 1).cast(F32)
    for _ in range(100_000):
        node = node.alu(Op.SQRT)
    assert len(toposort(node)) == 100_002
    assert len(node.digest) == 16
    rules = Rules()

    @rules.on(Op.SQRT)
    def to_trunc(n: Node) -> Node:
        return n.src[0].alu(Op.TRUNC)

    assert len(list(find(rules.rewrite(node), Op.TRUNC))) == 100_000
    leaf = next(find(node, Op.VARIABLE))
    other = Node.variable("other", 0, 1)
    assert other in toposort(substitute(node, {leaf: other}))
    del node, leaf, other  # freeing a deep chain must not overflow the stack either


def test_digest_is_the_same_in_another_process() -> None:
    program = (
        "from compiler.ir import *; from compiler.dtype import dtypes\n"
        "x = Node(Op.PARAM, dtypes.float32, (), (1, 12)).reshape((3, 4))\n"
        "print(x.alu(Op.MUL, Node.const(0.1, dtypes.float32)).reduce(Op.ADD, (1,)).digest.hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed},
            cwd=str(__import__("pathlib").Path(__file__).parents[2]),
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1 and len(outputs.pop().strip()) == 32


def test_nodes_and_types_survive_pickling_as_the_same_objects() -> None:
    node = Node.variable("p", 0, 9).cast(F32).alu(Op.SQRT)
    assert pickle.loads(pickle.dumps(node)) is node
    assert pickle.loads(pickle.dumps(F32.vec(4))) is F32.vec(4)


def test_rewrite_applies_to_replacements_until_nothing_fits() -> None:
    rules = Rules()
    seen = []

    @rules.on(Op.ADD)
    def double(n: Node) -> Node | None:
        seen.append(n)
        return n.src[0].alu(Op.MUL, constant(2)) if n.src[0] is n.src[1] else None

    @rules.on(Op.MUL)
    def double_of_one(n: Node) -> Node | None:
        return constant(2) if n.src[0] is constant(1) else None

    one = constant(1)
    assert rules.rewrite(one.alu(Op.ADD, one)) is constant(2)
    four = one.alu(Op.ADD, one).alu(Op.ADD, one.alu(Op.ADD, one))
    assert rules.rewrite(four) is constant(2).alu(Op.MUL, constant(2))
    assert all(users(four)[n] for n in toposort(four) if n is not four)


def test_origin_is_carried_through_rewriting_and_is_no_part_of_identity() -> None:
    x = Node.variable("origin", 0, 3).cast(F32).alu(Op.SQRT)
    x.origin = ("train.py", 31)
    rules = Rules()
    rules.on(Op.SQRT)(lambda n: n.src[0].alu(Op.TRUNC))
    assert rules.rewrite(x).origin == ("train.py", 31)
    assert x.src[0].alu(Op.SQRT) is x


@pytest.mark.parametrize("dtype", dtypes.all)
def test_constants_wrap_and_round_as_numpy_does(dtype: DType) -> None:
    if dtype is dtypes.bfloat16:
        assert dtype.const(1 + 2**-8) == 1.0  # a tie goes to the even neighbour
        assert dtype.const(1 + 3 * 2**-8) == 1 + 2**-6
        assert dtype.const(3.4e38) == math.inf
        return
    if dtype in dtypes.fp8s:
        step = 0.25 if dtype is dtypes.float8_e5m2 else 0.125
        assert dtype.const(1 + step / 2) == 1.0  # a tie goes to the even neighbour
        assert dtype.const(1 + step * 1.5) == 1 + step * 2
        assert dtype.const(1 + step * 0.51) == 1 + step
        assert dtype.const(-1e9) == dtype.min == (-math.inf if dtype.has_infinity else -448)
        assert math.copysign(1, dtype.const(-1e-9)) == -1
        return
    with np.errstate(all="ignore"):
        for value in (0, 1, -1, 127, 200, 70_000, 2**31, -(2**40) + 3):
            expected = np.array(value, np.int64).astype(numpy_type(dtype))
            assert dtype.const(value) == expected


def test_promotion_is_tinygrads_lattice() -> None:
    d = dtypes
    assert least_upper_dtype(d.int8, d.uint8) is d.int16
    assert least_upper_dtype(d.int32, d.uint32) is d.int64
    assert least_upper_dtype(d.int64, d.float16) is d.float16
    assert least_upper_dtype(d.float16, d.bfloat16) is d.float32
    assert least_upper_dtype(d.bool, d.uint8) is d.uint8
    assert least_upper_dtype(d.uint64, d.int64) in (d.float16, d.bfloat16)
    assert least_upper_dtype(d.uint64, d.fp8e4m3) is d.float8_e4m3fn
    assert least_upper_dtype(d.fp8e5m2, d.fp8e4m3) is d.float16
    assert least_upper_dtype(d.fp8e5m2, d.bfloat16) is d.bfloat16


# ---- folding against brute force ----

INTS = [dtypes.int32, dtypes.uint8, dtypes.int8]
LEAVES = {d: [Node(Op.ACC, d, (), i) for i in range(3)] for d in [*INTS, F32, dtypes.bool]}
INT_OPS = [Op.ADD, Op.MUL, Op.AND, Op.OR, Op.XOR, Op.IDIV, Op.MOD, Op.MAX]


@st.composite
def scalars(draw: st.DrawFn, dtype: DType, depth: int = 4) -> Node:
    """A random scalar expression of a type, with many constants in it."""
    kind = draw(st.integers(0, 5)) if depth else 0
    if kind == 0:
        return draw(st.sampled_from(LEAVES[dtype]))
    if kind == 1:
        return Node.const(draw(st.sampled_from([0, 1, -1, 2, 3])), dtype)
    if kind == 2:
        condition = draw(scalars(dtypes.bool, depth - 1))
        return condition.alu(
            Op.WHERE, draw(scalars(dtype, depth - 1)), draw(scalars(dtype, depth - 1))
        )
    if kind == 3 and dtype is not dtypes.bool:
        other = draw(st.sampled_from([d for d in INTS if dtype is not F32] or [dtypes.int32]))
        return Node(Op.CAST, dtype, (draw(scalars(other, depth - 1)),))
    if dtype is dtypes.bool:
        if draw(st.booleans()):
            inner = draw(st.sampled_from(INTS))
            op = draw(st.sampled_from([Op.CMPLT, Op.CMPNE, Op.CMPEQ]))
            return draw(scalars(inner, depth - 1)).alu(op, draw(scalars(inner, depth - 1)))
        op = draw(st.sampled_from([Op.AND, Op.OR, Op.XOR, Op.CMPNE]))
    else:
        op = draw(st.sampled_from([Op.ADD, Op.MUL] if dtype is F32 else INT_OPS))
    return draw(scalars(dtype, depth - 1)).alu(op, draw(scalars(dtype, depth - 1)))


def value_of(root: Node, values: dict[Node, np.generic]) -> np.generic:
    done = dict(values)
    for node in toposort(root):
        if node in done:
            continue
        src = [done[s] for s in node.src]
        kind = numpy_type(node.dtype)
        if node.op is Op.CONST:
            done[node] = kind(node.arg)
        elif node.op is Op.CAST:
            done[node] = np.asarray(src[0]).astype(kind)[()]
        elif node.op in (Op.IDIV, Op.MOD):
            a, b = int(src[0]), int(src[1])
            quotient = 0 if b == 0 else int(math.copysign(abs(a) // abs(b), a * b))
            result = quotient if node.op is Op.IDIV else a - b * quotient
            done[node] = np.array(result).astype(kind)[()] if b or node.op is Op.IDIV else kind(0)
        else:
            done[node] = np.asarray(BINARY[node.op](*src)).astype(kind)[()]
    return done[root]


@given(st.data())
def test_folding_changes_no_value(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([*INTS, F32, dtypes.bool]))
    written = data.draw(scalars(dtype))
    folded = FOLDING.rewrite(written)
    numbers = np.random.default_rng(data.draw(st.integers(0, 9)))
    for _ in range(5):
        values = {
            leaf: numpy_type(d)(
                numbers.integers(0, 2) if d.kind in "bu" else numbers.integers(-3, 4)
            )
            for d, leaves in LEAVES.items()
            for leaf in leaves
        }
        with np.errstate(all="ignore"):
            expected, found = value_of(written, values), value_of(folded, values)
        assert type(found) is type(expected)
        np.testing.assert_array_equal(found, expected)
    assert len(toposort(folded)) <= len(toposort(written)) + 2
