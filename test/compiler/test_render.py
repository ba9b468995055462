"""What renderers print does what the ops mean: every op, type and width, against NumPy.

The same kernels go through LLVM and through clang.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compiler.build import build, render
from compiler.clang import find_clang
from compiler.dtype import DType, dtypes
from compiler.errors import CompilerError, InvalidKernel
from compiler.ir import Node, Op
from compiler.linear import LinearKernel
from compiler.llvm import host_target
from compiler.target import Target
from test.compiler.linear_kernels import (
    AS_BITS,
    NUMPY,
    Array,
    as_floats,
    as_stored,
    bfloat16_to_float,
    const,
    elementwise,
    end,
    float_to_bfloat16,
    kernel,
    load,
    loop,
    param,
    random_values,
    run,
    splat,
    store,
)

SIZE = 512
FAR = 1 << 40  # an element that no buffer has: touching it ends the process
NO_CLANG = pytest.mark.skipif(find_clang() is None, reason="no clang in PATH")
HALVES = (dtypes.float16, dtypes.bfloat16)
NARROW = dtypes.narrow_floats


@pytest.fixture(params=["llvm", pytest.param("clang", marks=NO_CLANG)])
def target(request: pytest.FixtureRequest) -> Target:
    return host_target(request.param)


def same(got: Array, want: Array) -> None:
    """Equal, NaN included, any zero being equal to any."""
    np.testing.assert_array_equal(got, want)


def op(which: Op, *src: Node, dtype: DType | None = None) -> Node:
    return Node(which, dtype or src[-1].dtype, src)


def run_all(
    target: Target,
    lanes: int,
    outputs: dict[str, tuple[DType, Any]],
    inputs: list[tuple[DType, Any]],
) -> dict[str, Array]:
    """Computes all outputs (name -> type and function of the inputs) in one kernel."""
    linear = elementwise(
        SIZE,
        lanes,
        [dtype for dtype, _ in outputs.values()],
        [dtype for dtype, _ in inputs],
        lambda *values: [compute(*values) for _, compute in outputs.values()],
    )
    results = [np.full(SIZE, 77).astype(NUMPY[dtype]) for dtype, _ in outputs.values()]
    run(linear, target, *results, *(values for _, values in inputs))
    return dict(zip(outputs, results, strict=True))


# ---- arithmetic ----
def c_quotient(a: Array, b: Array) -> Array:
    """Towards zero; 0 for a zero divisor; the least integer / -1 wraps."""
    safe = np.where(b == 0, 1, b).astype(a.dtype)
    quotient = ((a - np.fmod(a, safe)) // safe).astype(a.dtype)
    return np.where(b == 0, 0, quotient).astype(a.dtype)


def c_remainder(a: Array, b: Array) -> Array:
    return np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))).astype(a.dtype)


INTEGER: dict[Op, Callable[[Array, Array], Array]] = {
    Op.ADD: np.add,
    Op.MUL: np.multiply,
    Op.IDIV: c_quotient,
    Op.MOD: c_remainder,
    Op.MAX: np.maximum,
    Op.AND: np.bitwise_and,
    Op.OR: np.bitwise_or,
    Op.XOR: np.bitwise_xor,
}
COMPARISONS: dict[Op, Callable[[Array, Array], Array]] = {
    Op.CMPLT: np.less,
    Op.CMPNE: np.not_equal,
    Op.CMPEQ: np.equal,
}
FLOAT: dict[Op, Callable[[Array, Array], Array]] = {
    Op.ADD: np.add,
    Op.MUL: np.multiply,
    Op.DIV: np.divide,
    Op.MAX: np.maximum,
}
BOOL: dict[Op, Callable[[Array, Array], Array]] = {
    Op.ADD: np.logical_or,
    Op.MUL: np.logical_and,
    Op.MAX: np.logical_or,
    Op.AND: np.logical_and,
    Op.OR: np.logical_or,
    Op.XOR: np.logical_xor,
}


def binary_ops(dtype: DType) -> dict[Op, Callable[[Array, Array], Array]]:
    table = {"f": FLOAT, "b": BOOL}.get(dtype.kind, INTEGER)
    return {**table, **COMPARISONS}


@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("dtype", [d for d in dtypes.all if d not in NARROW], ids=lambda d: d.name)
def test_binary_operations(target: Target, dtype: DType, lanes: int) -> None:
    a, b = (random_values(dtype, SIZE, seed) for seed in (1, 2))
    if dtype.kind == "f":
        a[5::50] = b[7::50] = np.nan
    table = binary_ops(dtype)
    outputs: dict[str, tuple[DType, Any]] = {}
    for which in table:
        result = dtypes.bool if which in COMPARISONS else dtype
        outputs[which.name] = (
            result,
            lambda x, y, w=which, r=result: op(w, x, y, dtype=r.vec(lanes)),
        )
    found = run_all(target, lanes, outputs, [(dtype, a), (dtype, b)])
    with np.errstate(all="ignore"):
        for which, reference in table.items():
            same(found[which.name], reference(a, b).astype(found[which.name].dtype))


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("dtype", dtypes.ints, ids=lambda d: d.name)
def test_shifts_and_constant_divisors(target: Target, dtype: DType, lanes: int) -> None:
    a = random_values(dtype, SIZE, 3)
    amounts = (np.arange(SIZE) % dtype.bits).astype(NUMPY[dtype])
    divisors = [7, 1, 64] + ([-1, -5] if dtype.kind == "i" else [])

    def by(which: Op, value: int) -> Any:
        return lambda x, _: op(which, x, splat(const(value, dtype), lanes))

    outputs: dict[str, tuple[DType, Any]] = {
        "shl": (dtype, lambda x, n: op(Op.SHL, x, n)),
        "shr": (dtype, lambda x, n: op(Op.SHR, x, n)),
        **{f"div{d}": (dtype, by(Op.IDIV, d)) for d in divisors},
        **{f"mod{d}": (dtype, by(Op.MOD, d)) for d in divisors},
    }
    found = run_all(target, lanes, outputs, [(dtype, a), (dtype, amounts)])
    same(found["shl"], np.left_shift(a, amounts))
    same(found["shr"], np.right_shift(a, amounts))
    with np.errstate(all="ignore"):
        for d in divisors:
            divisor = np.full(SIZE, d, a.dtype)
            same(found[f"div{d}"], c_quotient(a, divisor))
            same(found[f"mod{d}"], c_remainder(a, divisor))


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=lambda d: d.name)
def test_functions_of_floats(target: Target, dtype: DType, lanes: int) -> None:
    x = random_values(dtype, SIZE, 4)
    x[::31] = np.nan
    found = run_all(
        target,
        lanes,
        {
            "sqrt": (dtype, lambda v: op(Op.SQRT, v)),
            "trunc": (dtype, lambda v: op(Op.TRUNC, v)),
            "relu": (dtype, lambda v: op(Op.MAX, v, splat(const(0.0, dtype), lanes))),
        },
        [(dtype, x)],
    )
    with np.errstate(all="ignore"):
        same(found["sqrt"], np.sqrt(x))
    same(found["trunc"], np.trunc(x))
    same(found["relu"], np.maximum(x, 0))


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("dtype", dtypes.all, ids=lambda d: d.name)
def test_choosing_moves_every_type_unchanged(target: Target, dtype: DType, lanes: int) -> None:
    gate = random_values(dtypes.bool, SIZE, 5)
    a, b = (random_values(dtype, SIZE, seed) for seed in (6, 7))
    found = run_all(
        target,
        lanes,
        {
            "choice": (dtype, lambda g, x, y: op(Op.WHERE, g, x, y)),
            "constant": (dtype, lambda g, x, y: op(Op.WHERE, g, x, splat(const(1, dtype), lanes))),
        },
        [(dtypes.bool, gate), (dtype, a), (dtype, b)],
    )
    one = as_stored(np.ones(1), dtype)[0]
    same(found["choice"], np.where(gate, a, b))
    same(found["constant"], np.where(gate, a, np.array(one, a.dtype)))


# ---- casts ----
def cast_reference(values: Array, source: DType, dtype: DType) -> Array:
    values = as_floats(values, source)
    with np.errstate(all="ignore"):
        if dtype is dtypes.bool:
            return values != 0
        if dtype in NARROW:
            wide = values.astype(np.float32 if source.kind != "f" else np.float64)
            if dtype in AS_BITS:
                return as_stored(wide, dtype)
            return np.array([dtypes.float16.const(float(v)) for v in wide], np.float16)
        if source.kind == "f" and dtype.kind in "iu" and dtype.bits < 64:
            return values.astype(np.int64).astype(NUMPY[dtype])
        return values.astype(NUMPY[dtype])


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("source", dtypes.all, ids=lambda d: d.name)
def test_casts_from_each_type_to_each(target: Target, source: DType, lanes: int) -> None:
    values = random_values(source, SIZE, 8)
    floats = as_floats(values, source)
    if source.kind == "f":  # within every integer's range, negative only for signed ones
        values[~np.isfinite(floats) | (np.abs(floats) < 1e-30)] = values[np.isfinite(floats)][0]
    outputs: dict[str, tuple[DType, Any]] = {
        dtype.name: (dtype, lambda x, d=dtype: op(Op.CAST, x, dtype=d.vec(lanes)))
        for dtype in dtypes.all
        if dtype is not source
    }
    found = run_all(target, lanes, outputs, [(source, values)])
    for dtype in dtypes.all:
        if dtype is source:
            continue
        want, got = cast_reference(values, source, dtype), found[dtype.name]
        if source.kind == "f" and dtype is dtypes.uint64:
            keep = as_floats(values, source) > -1
            want, got = want[keep], got[keep]
        np.testing.assert_array_equal(got, want, err_msg=f"{source.name} to {dtype.name}")


@pytest.mark.parametrize("lanes", [1, 16])
def test_a_float_is_rounded_once_to_a_half_type(target: Target, lanes: int) -> None:
    """Around every kind of tie, where going by way of float32 would round twice."""
    rng = np.random.default_rng(9)
    half = rng.integers(0, 0x7C00, SIZE).astype(np.uint16)
    ties = (half.view(np.float16).astype(np.float64) + (half + 1).view(np.float16)) / 2
    brain = bfloat16_to_float(rng.integers(0, 0x7F7F, SIZE).astype(np.uint16)).astype(np.float64)
    brain *= 1 + 2.0**-8
    quarters = rng.integers(0, 0x7B, SIZE).astype(np.uint8)
    between = [
        (as_floats(quarters, d).astype(np.float64) + as_floats(quarters + np.uint8(1), d)) / 2
        for d in dtypes.fp8s
    ]
    for exact in (ties, brain, *between):
        wide = exact * (1 + rng.integers(-1, 2, SIZE) * 2.0**-50) * rng.choice([-1, 1], SIZE)
        wide[:8] = [np.inf, -np.inf, np.nan, 65519.999, 65520, 1e300, 1e-300, 3.4e38]
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float32)
        for source, values in ((dtypes.float64, wide), (dtypes.float32, narrow)):
            found = run_all(
                target,
                lanes,
                {d.name: (d, lambda x, d=d: op(Op.CAST, x, dtype=d.vec(lanes))) for d in NARROW},
                [(source, values)],
            )
            for dtype in dtypes.fp8s:
                same(found[dtype.name], as_stored(values, dtype))
            want16 = np.array([dtypes.float16.const(float(v)) for v in values], np.float16)
            same(found["float16"], want16)
            keep = ~np.isnan(values)
            same(found["bfloat16"][keep], float_to_bfloat16(values[keep]))
            assert np.isnan(bfloat16_to_float(found["bfloat16"][~keep])).all()


def test_halves_convert_without_half_instructions() -> None:
    """A processor without F16C gives the same float16 as one with it, for every float16."""
    plain = Target("llvm", "x86_64", cpu="x86-64", triple="x86_64-unknown-linux-gnu")
    halves = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    outputs = np.zeros(1 << 16, np.float32), np.zeros(1 << 16, np.float16)
    linear = elementwise(
        1 << 16,
        1,
        [dtypes.float32, dtypes.float16],
        [dtypes.float16],
        lambda x: [
            op(Op.CAST, x, dtype=dtypes.float32),
            op(Op.CAST, op(Op.CAST, x, dtype=dtypes.float32), dtype=dtypes.float16),
        ],
    )
    if host_target().arch != "x86_64":
        pytest.skip("runs x86-64 code")
    run(linear, plain, *outputs, halves)
    same(outputs[0], halves.astype(np.float32))
    same(outputs[1], halves)


@pytest.mark.parametrize("lanes", [1, 8])
def test_casting_an_unfit_float_gives_some_number(target: Target, lanes: int) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 2.5] * (SIZE // 8), np.float32)
    outputs: dict[str, tuple[DType, Any]] = {
        d.name: (d, lambda v, d=d: op(Op.CAST, v, dtype=d.vec(lanes))) for d in dtypes.ints
    }
    found = run_all(target, lanes, outputs, [(dtypes.float32, x)])
    assert all((values[7::8] == 2).all() for values in found.values())


@pytest.mark.parametrize("lanes", [1, 4])
def test_bits_are_kept_by_bitcast(target: Target, lanes: int) -> None:
    pairs = [
        (dtypes.float32, dtypes.uint32),
        (dtypes.float64, dtypes.int64),
        (dtypes.uint16, dtypes.float16),
        (dtypes.bfloat16, dtypes.uint16),
        (dtypes.int8, dtypes.uint8),
        (dtypes.float8_e5m2, dtypes.uint8),
        (dtypes.int8, dtypes.float8_e4m3fn),
    ]
    for source, dtype in pairs:
        values = random_values(source, SIZE, 10)
        outputs: dict[str, tuple[DType, Any]] = {
            "bits": (dtype, lambda x, d=dtype: op(Op.BITCAST, x, dtype=d.vec(lanes)))
        }
        found = run_all(target, lanes, outputs, [(source, values)])
        assert found["bits"].tobytes() == values.tobytes()


# ---- memory ----
@pytest.mark.parametrize(
    "dtype", [dtypes.float32, dtypes.bool, dtypes.int8, dtypes.float16], ids=lambda d: d.name
)
@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_closed_gate_touches_no_memory(
    target: Target, dtype: DType, lanes: int, uniform: bool
) -> None:
    """Loads give 0 and stores leave what was there, however far away the index is."""
    size = 64
    out, source = param(0, dtype, size), param(1, dtype, size)
    gates = param(2, dtypes.bool, size)
    i = loop(size, lanes)
    gate = load(gates, i, lanes)
    if uniform and lanes > 1:
        gate = splat(load(gates, i), lanes)
    opened = load(gates, i) if uniform or lanes == 1 else None
    if opened is not None:
        place = op(Op.WHERE, opened, i, const(FAR), dtype=dtypes.index)
    else:
        place = i
    value = load(source, place, lanes, gate)
    linear = kernel([out, source, gates], i, store(out, place, value, gate), end(i))
    values = random_values(dtype, size, 11)
    allowed = random_values(dtypes.bool, size, 12)
    result = random_values(dtype, size, 13)
    want = np.where(allowed, values, result)
    if uniform:
        allowed = np.repeat(allowed[::lanes], lanes)
        want = np.where(allowed, values, result)
    run(linear, target, result, values, allowed)
    same(result, want)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.bool, dtypes.int64], ids=lambda d: d.name)
def test_gather_and_scatter(target: Target, dtype: DType, gated: bool) -> None:
    size, lanes = 64, 8
    rng = np.random.default_rng(14)
    out, source = param(0, dtype, size), param(1, dtype, size)
    positions, gates = param(2, dtypes.int64, size), param(3, dtypes.bool, size)
    i = loop(size, lanes)
    index = op(Op.CAST, load(positions, i, lanes), dtype=dtypes.index.vec(lanes))
    gate = load(gates, i, lanes) if gated else None
    linear = kernel(
        [out, source, positions, gates],
        i,
        store(out, index, load(source, index, lanes, gate), gate),
        end(i),
    )
    values, order = random_values(dtype, size, 15), rng.permutation(size)
    allowed = random_values(dtypes.bool, size, 16)
    before = random_values(dtype, size, 17)
    result, used = before.copy(), order.copy()
    if gated:
        used[~allowed] = FAR
    run(linear, target, result, values, used, allowed)
    want = before.copy()
    touched = order[allowed] if gated else order
    want[touched] = values[touched]
    same(result, want)


def test_a_scalar_gate_of_a_gather_closes_all_lanes(target: Target) -> None:
    dtype, lanes = dtypes.float32, 4
    out, source = param(0, dtype, 8), param(1, dtype, 8)
    far = op(Op.ADD, Node(Op.RAMP, dtypes.index.vec(lanes)), splat(const(FAR), lanes))
    closed = op(Op.CMPLT, load(source, const(0)), const(0.0, dtype), dtype=dtypes.bool)
    linear = kernel([out, source], store(out, const(0), load(source, far, lanes, closed)))
    result = np.ones(8, np.float32)
    run(linear, target, result, np.arange(8, dtype=np.float32))
    same(result, np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32))


def test_filling_and_copying_need_no_library(target: Target) -> None:
    """Compilers like to make such loops into calls of memset and memcpy."""
    size, dtype = 1000, dtypes.uint8
    params = [param(i, dtype, size) for i in range(3)]
    i = loop(size)
    linear = kernel(
        params,
        i,
        store(params[0], i, const(0, dtype)),
        store(params[1], i, load(params[2], i)),
        end(i),
        written=[0, 1],
    )
    filled, copied = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    source = random_values(dtype, size, 18)
    run(linear, target, filled, copied, source)
    assert not filled.any()
    same(copied, source)


# ---- control ----
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.int32, dtypes.bool], ids=lambda d: d.name)
@pytest.mark.parametrize("which", [Op.ADD, Op.MUL, Op.MAX])
@pytest.mark.parametrize("lanes", [1, 4, 6])
def test_an_accumulator_is_reset_each_time(
    target: Target, dtype: DType, which: Op, lanes: int
) -> None:
    """Rows are combined by lanes, then across lanes."""
    rows, columns = 5, 24
    out, source = param(0, dtype, rows), param(1, dtype, rows * columns)
    row, column = loop(rows, 1, 0), loop(columns, lanes, 1)
    initial = {Op.ADD: 0, Op.MUL: 1, Op.MAX: dtype.min}[which]
    acc = Node(Op.ACC, dtype.vec(lanes), (splat(const(initial, dtype), lanes),), 0)
    place = op(Op.ADD, op(Op.MUL, row, const(columns)), column)
    closed = end(column)
    total = Node(Op.GET, acc.dtype, (acc, closed))
    if lanes > 1:
        total = Node(Op.REDUCE_LANES, dtype, (total,), which)
    update = Node(Op.UPDATE, dtypes.void, (acc, load(source, place, lanes)), which)
    linear = kernel(
        [out, source], row, acc, column, update, closed, store(out, row, total), end(row)
    )
    values = random_values(dtype, rows * columns, 19).reshape(rows, columns)
    if dtype.kind == "f":
        values = np.random.default_rng(20).normal(1, 0.3, values.shape).astype(np.float32)
        values[3, 7] = np.nan
    result = np.zeros(rows, values.dtype)
    run(linear, target, result, values)
    with np.errstate(all="ignore"):
        if dtype is dtypes.bool:
            want = values.all(1) if which is Op.MUL else values.any(1)
        else:
            function = {Op.ADD: np.sum, Op.MUL: np.prod, Op.MAX: np.max}[which]
            want = (
                function(values, axis=1, dtype=values.dtype)
                if which is not Op.MAX
                else (values.max(1))
            )
    np.testing.assert_allclose(result, want, rtol=1e-5)


def test_every_block_of_the_grid_and_variables(target: Target) -> None:
    out = param(0, dtypes.int32, 1000)
    n = Node.variable("n", 1, 100)
    axes = [Node(Op.GRID, dtypes.index, (), axis) for axis in range(3)]
    place = op(Op.ADD, axes[0], op(Op.MUL, n, op(Op.ADD, axes[1], op(Op.MUL, axes[2], n))))
    value = op(Op.CAST, op(Op.MUL, place, n), dtype=dtypes.int32)
    linear = kernel([out, n], store(out, place, value))
    result = np.zeros(1000, np.int32)
    run(linear, target, result, 5, grid=(5, 5, 3))
    same(result[:75], np.arange(75, dtype=np.int32) * 5)
    assert not result[75:].any()


def test_a_variable_may_have_the_whole_range_of_its_type(target: Target) -> None:
    out, n = param(0, dtypes.int64, 1), Node.variable("n", -(1 << 63), (1 << 63) - 1)
    linear = kernel([out, n], store(out, const(0), op(Op.CAST, n, dtype=dtypes.int64)))
    result = np.zeros(1, np.int64)
    for value in (-(1 << 63), -1, (1 << 63) - 1):
        run(linear, target, result, value)
        assert result[0] == value


def test_local_memory_lanes_and_stacks(target: Target) -> None:
    """A vector is written to scratch memory backwards, read again and put together anew."""
    dtype, lanes = dtypes.float32, 4
    out, source = param(0, dtype, 2 * lanes), param(1, dtype, lanes)
    local = Node(Op.LOCAL, dtype, (), (0, lanes))
    ramp = Node(Op.RAMP, dtypes.index.vec(lanes))
    backwards = op(
        Op.ADD, splat(const(lanes - 1), lanes), op(Op.MUL, ramp, splat(const(-1), lanes))
    )
    again = load(local, const(0), lanes)
    parts = [Node(Op.LANE, dtype, (again,), lane) for lane in (2, 0, 3, 1)]
    linear = kernel(
        [out, source],
        local,
        store(local, backwards, load(source, const(0), lanes)),
        again,
        store(out, const(0), again),
        store(out, const(lanes), Node(Op.STACK, dtype.vec(lanes), tuple(parts))),
    )
    result = np.zeros(8, np.float32)
    run(linear, target, result, np.array([1, 2, 3, 4], np.float32))
    same(result, np.array([4, 3, 2, 1, 2, 4, 1, 3], np.float32))
    assert build(linear, target).local_bytes == 16


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.bfloat16], ids=str)
def test_what_stands_again_is_loaded_again(target: Target, dtype: DType) -> None:
    """Scratch memory is filled twice; the load and its cast are equal nodes both times."""
    out, source = param(0, dtypes.float32, 2), param(1, dtype, 2)
    local = Node(Op.LOCAL, dtype, (), (0, 1))
    kept = load(local, const(0))
    wide = Node(Op.CAST, dtypes.float32, (kept,))
    body = [local]
    for i in range(2):
        given = load(source, const(i))
        body += [given, store(local, const(0), given), kept, wide, store(out, const(i), wide)]
    linear = LinearKernel("kernel", (out, source), tuple(body), written=frozenset({0}))
    result = np.zeros(2, np.float32)
    values = np.array([3, 5], np.float32)
    run(linear, target, result, values if dtype is dtypes.float32 else float_to_bfloat16(values))
    same(result, values)


@pytest.mark.parametrize("stored", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "dtype", [dtypes.int8, dtypes.int16, dtypes.bfloat16, dtypes.float8_e5m2], ids=str
)
def test_a_masked_store_of_narrowed_lanes_leaves_the_others(
    target: Target, dtype: DType, stored: int
) -> None:
    """One lane used to be stored with what lay next to it in the register."""
    lanes, wide = 8, dtypes.float32 if dtype in AS_BITS else dtypes.int32
    out, source = param(0, dtype, lanes), param(1, wide, lanes)
    ramp = Node(Op.RAMP, dtypes.index.vec(lanes))
    gate = Node(Op.CMPLT, dtypes.bool.vec(lanes), (ramp, splat(const(stored), lanes)))
    narrow = Node(Op.CAST, dtype.vec(lanes), (load(source, const(0), lanes),))
    linear = kernel([out, source], store(out, const(0), narrow, gate))
    result = np.full(lanes, 77, NUMPY[dtype])
    values = np.arange(1, lanes + 1).astype(NUMPY[wide])
    run(linear, target, result, values)
    expected = as_stored(values, dtype)
    np.testing.assert_array_equal(result[:stored], expected[:stored])
    assert (result[stored:] == 77).all()


def test_index_division_by_a_variable_that_may_be_zero(target: Target) -> None:
    out = param(0, dtypes.int64, 2)
    a, b = Node.variable("a", 0, 1000), Node.variable("b", 0, 1000)
    linear = kernel(
        [out, a, b],
        store(out, const(0), op(Op.CAST, op(Op.IDIV, a, b), dtype=dtypes.int64)),
        store(out, const(1), op(Op.CAST, op(Op.MOD, a, b), dtype=dtypes.int64)),
    )
    result = np.zeros(2, np.int64)
    for x, y in ((17, 5), (17, 0), (0, 3)):
        run(linear, target, result, x, y)
        assert result.tolist() == ([x // y, x % y] if y else [0, 0])


def test_buffers_known_not_to_alias_keep_a_sum_in_a_register() -> None:
    """Without that knowledge the result would be stored again at each step."""
    out, source = param(0, dtypes.float32, 1), param(1, dtypes.float32, 64)
    i = loop(64)
    total = op(Op.ADD, load(out, const(0)), load(source, i))
    linear = kernel([out, source], i, store(out, const(0), total), end(i))
    from compiler import llvm

    text = llvm.optimised_ir(render(linear, host_target()), host_target())
    assert text.count("store float") == 1


# ---- wrong kernels ----
@pytest.mark.parametrize("which", [Op.EXP2, Op.LOG2, Op.SIN])
def test_what_decompose_left_is_refused(target: Target, which: Op) -> None:
    linear = elementwise(8, 1, dtypes.float32, [dtypes.float32], lambda x: op(which, x))
    with pytest.raises(InvalidKernel, match=f"kernel still has {which.name}"):
        render(linear, target)


def test_arithmetic_on_halves_is_refused(target: Target) -> None:
    linear = elementwise(8, 1, dtypes.float16, [dtypes.float16], lambda x: op(Op.ADD, x, x))
    with pytest.raises(InvalidKernel, match="kernel still has ADD"):
        render(linear, target)


def test_tensor_ops_are_refused(target: Target) -> None:
    out = param(0, dtypes.float32, 4)
    with pytest.raises(InvalidKernel, match="contains RESHAPE"):
        render(
            kernel([out], out.reshape((2, 2)), store(out, const(0), const(1.0, dtypes.float32))),
            target,
        )


def test_an_unknown_compiler_is_named() -> None:
    with pytest.raises(CompilerError, match="'gcc'"):
        build(kernel([]), Target("gcc", "x86_64"))


def test_arm_code_is_made_for_arm() -> None:
    arm = Target("llvm", "aarch64", cpu="generic", triple="aarch64-unknown-linux-gnu")
    linear = elementwise(64, 4, dtypes.float32, [dtypes.float32], lambda x: op(Op.ADD, x, x))
    code = build(linear, arm)
    assert code.arch == "aarch64"
    assert code.image[-4:] == bytes.fromhex("c0035fd6")  # ret
