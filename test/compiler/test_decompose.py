"""Functions built from additions and multiplications, measured in units of the last place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compiler import elementary
from compiler.build import build
from compiler.clang import find_clang
from compiler.decompose import decompose
from compiler.dtype import DType, dtypes
from compiler.elementary import LN2, LOG2E
from compiler.ir import Node, Op, find
from compiler.llvm import host_target
from compiler.target import Target
from compiler.trigonometry import sin
from test.compiler.linear_kernels import (
    NUMPY,
    Array,
    Program,
    as_floats,
    as_stored,
    const,
    elementwise,
    random_values,
)

SIZE = 1 << 15
EXACT = np.longdouble
needs_clang = pytest.mark.skipif(find_clang() is None, reason="no clang in PATH")
needs_longdouble = pytest.mark.skipif(
    np.finfo(EXACT).nmant <= 52, reason="NumPy's longdouble is no wider than float64 here"
)
FLOATS = pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=lambda d: d.name)


@pytest.fixture(params=["llvm", pytest.param("clang", marks=needs_clang)])
def target(request: pytest.FixtureRequest) -> Target:
    return host_target(request.param)


def exp(x: Node, factor: float = LOG2E) -> Node:
    return Node(Op.EXP2, x.dtype, (Node(Op.MUL, x.dtype, (x, const(factor, x.dtype))),))


def log(x: Node) -> Node:
    return Node(Op.MUL, x.dtype, (Node(Op.LOG2, x.dtype, (x,)), const(LN2, x.dtype)))


def single(op: Op) -> Callable[[Node], Node]:
    return lambda x: Node(op, x.dtype, (x,))


def computes(
    target: Target, dtype: DType, function: Callable[..., Node], inputs: int = 1
) -> Callable[..., Array]:
    """`function`, decomposed and compiled, of arrays of SIZE elements."""
    linear = elementwise(
        SIZE, 1, dtype, [dtype] * inputs, lambda *x: decompose(function(*x), target)
    )
    program = Program(build(linear, target))

    def call(*arrays: Array) -> Array:
        result = np.empty(SIZE, NUMPY[dtype])
        program(result, *arrays)
        return result

    return call


def error_in_ulps(got: Array, want: Array, dtype: DType) -> float:
    """The greatest error, in spacings of the type at the exact result."""
    kind = NUMPY[dtype]
    with np.errstate(all="ignore"):
        rounded = want.astype(kind)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite])
        error = np.abs(got[finite].astype(EXACT) - want[finite])
        return float((error / np.spacing(np.abs(rounded[finite]))).max(initial=0))


def spread(low: float, high: float, dtype: DType) -> Array:
    values = np.random.default_rng(1).uniform(low, high, SIZE)
    return values.astype(NUMPY[dtype])


def any_bits(dtype: DType) -> Array:
    """Every kind of number there is: all exponents, subnormals, infinities, NaN."""
    bits = np.uint32 if dtype is dtypes.float32 else np.uint64
    values = np.random.default_rng(2).integers(0, np.iinfo(bits).max, SIZE, bits, endpoint=True)
    found: Array = values.view(NUMPY[dtype])
    tiny = float(np.finfo(found.dtype).smallest_subnormal)
    found[:10] = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, tiny, -tiny, 2.0]
    return found


Case = tuple[Callable[[Node], Node], Callable[[Any], Any], float, list[tuple[float, float]]]
CASES: dict[str, Case] = {
    "exp": (exp, np.exp, 1.6, [(-1, 1), (-88, 88), (-104, -86), (88, 89), (-750, 720)]),
    "exp2": (single(Op.EXP2), np.exp2, 1.0, [(-1, 1), (-127, 128), (-150, -125), (-1080, 1030)]),
    "log": (log, np.log, 1.0, [(0.5, 2), (0.999, 1.001), (0, 1e-38), (0, 1e6)]),
    "log2": (single(Op.LOG2), np.log2, 1.4, [(0.5, 2), (0.999, 1.001), (0, 1e-38), (0, 1e6)]),
}


@needs_longdouble
@FLOATS
@pytest.mark.parametrize("name", CASES)
def test_exponentials_and_logarithms_are_accurate(target: Target, name: str, dtype: DType) -> None:
    function, reference, limit, ranges = CASES[name]
    run = computes(target, dtype, function)
    for x in [*(spread(low, high, dtype) for low, high in ranges), any_bits(dtype)]:
        with np.errstate(all="ignore"):
            want = reference(x.astype(EXACT))
        assert error_in_ulps(run(x), want, dtype) < limit, name


@FLOATS
def test_powers_of_two_are_exact(target: Target, dtype: DType) -> None:
    low, high = (-149, 127) if dtype is dtypes.float32 else (-1074, 1023)
    whole = np.resize(np.arange(low, high + 1), SIZE)
    exponents = whole.astype(NUMPY[dtype])
    powers = np.ldexp(np.ones(SIZE, exponents.dtype), whole)
    np.testing.assert_array_equal(computes(target, dtype, single(Op.EXP2))(exponents), powers)
    np.testing.assert_array_equal(computes(target, dtype, single(Op.LOG2))(powers), exponents)


@needs_longdouble
@FLOATS
@pytest.mark.parametrize(("low", "high"), [(-1.6, 1.6), (-100, 100), (-1e6, 1e6), (1e15, 1e18)])
def test_the_sine_is_accurate(target: Target, dtype: DType, low: float, high: float) -> None:
    x = spread(low, high, dtype)
    x[:64] = (np.arange(64) * math.pi).astype(x.dtype)  # where all leading digits cancel
    run = computes(target, dtype, single(Op.SIN))
    assert error_in_ulps(run(x), np.sin(x.astype(EXACT)), dtype) < 1.8


def test_the_sine_of_every_exponent_of_float32(target: Target) -> None:
    x = any_bits(dtypes.float32)
    with np.errstate(all="ignore"):
        want = np.sin(x.astype(np.float64)).astype(EXACT)
    run = computes(target, dtypes.float32, single(Op.SIN))
    assert error_in_ulps(run(x), want, dtypes.float32) < 1.8


def test_the_sine_of_giant_numbers(target: Target) -> None:
    """Values of sin(2**n) to 20 digits, from 1400 bits of pi."""
    exponents = np.resize(np.arange(0, 1024), SIZE)
    x = np.ldexp(1.0, exponents)
    got = computes(target, dtypes.float64, single(Op.SIN))(x)
    for n in (5, 100, 500, 1023):
        want = exact_sine(1 << n)
        assert abs(got[n] - want) <= 2 * math.ulp(want)


def exact_sine(x: int) -> float:
    """sin of a whole number, by exact reduction modulo 2*pi in integers and a Taylor series."""
    bits = 1400
    one = 1 << bits

    def inverse_tangent(n: int) -> int:
        total = term = one // n
        k = 1
        while term:
            term //= -n * n
            k += 2
            total += term // k
        return total

    pi = 4 * (4 * inverse_tangent(5) - inverse_tangent(239))
    rest = (x << bits) % (2 * pi)
    total = term = rest
    k = 1
    while abs(term) > 1:
        term = -((term * rest >> bits) * rest >> bits) // ((k + 1) * (k + 2))
        k += 2
        total += term
    return math.ldexp(float(total >> (bits - 200)), -200)


@pytest.mark.parametrize("function", [elementary.exp, elementary.log2, sin])
def test_vectors_get_the_same_as_scalars(target: Target, function: Callable[[Node], Node]) -> None:
    dtype = dtypes.float32
    x = spread(0.01, 80, dtype)
    results = [np.empty_like(x), np.empty_like(x)]
    for lanes, result in zip((1, 16), results, strict=True):
        Program(build(elementwise(SIZE, lanes, dtype, [dtype], function), target))(result, x)
    np.testing.assert_allclose(results[0], results[1], rtol=2.5e-7, atol=1e-7)


def test_special_values(target: Target) -> None:
    dtype = dtypes.float32
    x = np.zeros(SIZE, np.float32)
    x[:6] = [0.0, -0.0, math.inf, -math.inf, math.nan, -1.0]
    nan, inf = math.nan, math.inf
    wanted: dict[str, tuple[Callable[[Node], Node], list[float]]] = {
        "exp": (exp, [1, 1, inf, 0, nan, np.exp(np.float32(-1))]),
        "log": (log, [-inf, -inf, inf, nan, nan, nan]),
        "sin": (single(Op.SIN), [0, -0.0, nan, nan, nan, np.sin(np.float32(-1))]),
    }
    for function, want in wanted.values():
        got = computes(target, dtype, function)(x)[:6]
        np.testing.assert_allclose(got, np.float32(want), rtol=2e-7, atol=0)
        zeros = [i for i, value in enumerate(want) if value == 0]
        np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(np.float32(want)[zeros]))


@FLOATS
def test_the_negated_factor_of_sigmoid_is_an_exponential_too(target: Target, dtype: DType) -> None:
    x = spread(-20, 20, dtype)
    got = computes(target, dtype, lambda v: exp(v, -LOG2E))(x)
    np.testing.assert_allclose(got, np.exp(-x), rtol=4 * np.finfo(x.dtype).eps)


def test_other_factors_stay_products() -> None:
    x = Node.variable("x", 0, 1).cast(dtypes.float32)
    node = decompose(exp(x, 1.5), host_target())
    factor = Node.const(1.5, dtypes.float32)
    assert any(factor in product.src for product in find(node, Op.MUL))


# ---- half types ----
def halves(dtype: DType, seed: int) -> tuple[Array, Array]:
    """Values as stored and as float32."""
    values = random_values(dtype, SIZE, seed)
    return values, as_floats(values, dtype).astype(np.float32)


def rounded(values: Array, dtype: DType) -> Array:
    return as_floats(as_stored(values, dtype), dtype).astype(np.float32)


HALF_OPS: dict[Op, Callable[[Array, Array], Array]] = {
    Op.ADD: np.add,
    Op.MUL: np.multiply,
    Op.DIV: np.divide,
    Op.MAX: np.maximum,
}


@pytest.mark.parametrize("op", HALF_OPS)
@pytest.mark.parametrize("dtype", dtypes.narrow_floats, ids=lambda d: d.name)
def test_each_narrow_operation_is_rounded_once(target: Target, dtype: DType, op: Op) -> None:
    (a, wide_a), (b, wide_b) = halves(dtype, 3), halves(dtype, 4)
    got = computes(target, dtype, lambda x, y: Node(op, dtype, (x, y)), 2)(a, b)
    found = as_floats(got, dtype).astype(np.float32)
    with np.errstate(all="ignore"):
        want = rounded(HALF_OPS[op](wide_a, wide_b), dtype)
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=lambda d: d.name)
def test_a_half_exponential_is_that_of_float32_rounded(target: Target, dtype: DType) -> None:
    x, wide = halves(dtype, 5)
    got = computes(target, dtype, exp)(x)
    found = as_floats(got, dtype).astype(np.float32)
    with np.errstate(all="ignore"):
        want = rounded(np.exp(wide.astype(np.float64)).astype(np.float32), dtype)
    # A float32 error of one unit moves a value across a tie now and then.
    np.testing.assert_allclose(found, want, rtol=2.0 ** (-7 if dtype is dtypes.bfloat16 else -10))
    assert (found == want).mean() > 0.999


def test_an_eight_bit_factor_is_no_other_constant() -> None:
    """1.5 is the float8 nearest to log2(e), and means 1.5."""
    dtype = dtypes.float8_e5m2
    values = np.arange(0x80, dtype=np.uint8)
    got = computes(
        host_target(), dtype, lambda x: x.alu(Op.MUL, Node.const(1.5, dtype)).alu(Op.EXP2)
    )(np.resize(values, SIZE))[: len(values)]
    with np.errstate(over="ignore"):
        want = np.exp2(rounded(as_floats(values, dtype) * np.float32(1.5), dtype))
        np.testing.assert_array_equal(as_floats(got, dtype), rounded(want, dtype))


def test_half_sums_are_accumulated_in_float32() -> None:
    k = Node(Op.RANGE, dtypes.index, (Node.const(8, dtypes.index),), (0, True))
    value = Node(Op.LOAD, dtypes.float16, (Node(Op.PARAM, dtypes.float16, (), (1, 8)), k))
    node = decompose(Node(Op.REDUCE, dtypes.float16, (value, k), Op.ADD), host_target())
    assert node.op is Op.CAST
    assert node.dtype is dtypes.float16
    assert node.src[0].op is Op.REDUCE
    assert node.src[0].dtype is dtypes.float32


def test_integers_and_wide_floats_are_left_alone() -> None:
    x = Node.variable("x", 0, 9).cast(dtypes.float32)
    for node in (x.alu(Op.ADD, x), x.alu(Op.CMPLT, x), x.alu(Op.SQRT)):
        assert decompose(node, host_target()) is node
