"""Arithmetic, comparisons, bits, rounding and activations against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import SPECIAL, equal, floats, forward, integers, names, same, torch
from tinyhw import Tensor
from tinyhw.errors import DtypeError, ShapeError

F = torch.nn.functional

# (name, ours, theirs, domain)
UNARY: list[tuple[str, Any, Any, tuple[float, float]]] = [
    ("neg", lambda x: -x, None, (-2, 2)),
    ("abs", lambda x: x.abs(), None, (-2, 2)),
    ("square", lambda x: x.square(), None, (-2, 2)),
    ("sqrt", lambda x: x.sqrt(), None, (0.1, 4)),
    ("rsqrt", lambda x: x.rsqrt(), None, (0.1, 4)),
    ("reciprocal", lambda x: x.reciprocal(), None, (0.3, 4)),
    ("exp", lambda x: x.exp(), None, (-3, 3)),
    ("exp2", lambda x: x.exp2(), None, (-3, 3)),
    ("log", lambda x: x.log(), None, (0.01, 9)),
    ("log2", lambda x: x.log2(), None, (0.01, 9)),
    ("log10", lambda x: x.log10(), None, (0.01, 9)),
    ("log1p", lambda x: x.log1p(), None, (-0.9, 2)),
    ("sin", lambda x: x.sin(), None, (-9, 9)),
    ("cos", lambda x: x.cos(), None, (-9, 9)),
    ("tan", lambda x: x.tan(), None, (-1.2, 1.2)),
    ("sinh", lambda x: x.sinh(), None, (-3, 3)),
    ("cosh", lambda x: x.cosh(), None, (-3, 3)),
    ("trunc", lambda x: x.trunc(), None, (-4, 4)),
    ("floor", lambda x: x.floor(), None, (-4, 4)),
    ("ceil", lambda x: x.ceil(), None, (-4, 4)),
    ("round", lambda x: x.round(), None, (-4, 4)),
    ("erf", lambda x: x.erf(), None, (-3, 3)),
    ("relu", lambda x: x.relu(), None, (-2, 2)),
    ("sigmoid", lambda x: x.sigmoid(), None, (-6, 6)),
    ("tanh", lambda x: x.tanh(), None, (-4, 4)),
    ("gelu", lambda x: x.gelu(), lambda x: F.gelu(x, approximate="tanh"), (-4, 4)),
    ("quick_gelu", lambda x: x.quick_gelu(), lambda x: x * torch.sigmoid(1.702 * x), (-4, 4)),
    ("silu", lambda x: x.silu(), F.silu, (-5, 5)),
    ("swish", lambda x: x.swish(), F.silu, (-5, 5)),
    ("mish", lambda x: x.mish(), F.mish, (-5, 5)),
    ("softplus", lambda x: x.softplus(), F.softplus, (-5, 5)),
    ("softplus beta", lambda x: x.softplus(3.0), lambda x: F.softplus(x, beta=3.0), (-5, 5)),
    ("logsigmoid", lambda x: x.logsigmoid(), F.logsigmoid, (-5, 5)),
    ("elu", lambda x: x.elu(1.3), lambda x: F.elu(x, 1.3), (-3, 3)),
    ("celu", lambda x: x.celu(1.3), lambda x: F.celu(x, 1.3), (-3, 3)),
    ("selu", lambda x: x.selu(), F.selu, (-3, 3)),
    ("leaky_relu", lambda x: x.leaky_relu(0.1), lambda x: F.leaky_relu(x, 0.1), (-3, 3)),
    ("relu6", lambda x: x.relu6(), F.relu6, (-3, 9)),
    ("hardswish", lambda x: x.hardswish(), F.hardswish, (-5, 5)),
    ("hardsigmoid", lambda x: x.hardsigmoid(), F.hardsigmoid, (-5, 5)),
    ("hardtanh", lambda x: x.hardtanh(), F.hardtanh, (-3, 3)),
    ("softsign", lambda x: x.softsign(), F.softsign, (-3, 3)),
    ("clamp", lambda x: x.clamp(-1, 0.5), None, (-2, 2)),
    ("clip low", lambda x: x.clip(-1), None, (-2, 2)),
    ("pow 2", lambda x: x**2, None, (-2, 2)),
    ("pow 3", lambda x: x**3, None, (-2, 2)),
    ("pow -2", lambda x: x**-2, None, (0.5, 2)),
    ("pow 0.5", lambda x: x**0.5, None, (0.1, 2)),
    ("pow 2.7", lambda x: x**2.7, None, (0.1, 3)),
    ("rpow", lambda x: 2.5**x, None, (-3, 3)),
    ("rsub", lambda x: 1 - x, None, (-3, 3)),
    ("rdiv", lambda x: 1.5 / x, None, (0.3, 3)),
]


@pytest.mark.parametrize(("name", "ours", "theirs", "domain"), UNARY, ids=names(UNARY))
def test_a_function_of_one_tensor(name: str, ours: Any, theirs: Any, domain: Any) -> None:
    same(ours, floats(3, 7, low=domain[0], high=domain[1]), theirs=theirs, rtol=3e-5, atol=2e-6)


FINITE_ON_SPECIAL = (
    "neg abs square sqrt exp exp2 log log2 trunc floor ceil round relu sigmoid tanh".split()
)


@pytest.mark.parametrize("name", FINITE_ON_SPECIAL)
def test_infinities_nan_and_halves(name: str) -> None:
    forward(lambda x: getattr(x, name)(), SPECIAL.astype(np.float32), atol=1e-6)
    forward(lambda x: getattr(x, name)(), SPECIAL, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    ["relu", "sigmoid", "tanh", "logsigmoid", "softplus", "silu", "mish", "elu", "selu", "gelu",
     "hardswish", "softsign"],
)  # fmt: skip
def test_gradients_stay_finite_far_out_and_at_zero(function: str) -> None:
    x = np.array([-1e4, -300.0, -90.0, 0.0, 90.0, 300.0, 1e4], dtype=np.float32)
    theirs = (lambda t: F.gelu(t, approximate="tanh")) if function == "gelu" else (
        lambda t: getattr(F, function)(t)
    )
    same(lambda t: getattr(t, function)(), x, theirs=theirs)


def test_bounded_functions_have_their_bounds_at_infinity() -> None:
    ends = np.array([-np.inf, np.inf, np.nan], np.float32)
    forward(lambda x: x.relu6(), ends, theirs=F.relu6)
    forward(lambda x: x.hardsigmoid(), ends, theirs=F.hardsigmoid)


@pytest.mark.parametrize("name", ["tanh", "sinh", "cosh"])
def test_functions_of_whole_numbers_do_not_wrap(name: str) -> None:
    forward(lambda x: getattr(x, name)(), np.array([-(2**31), -2, 3, 2**31 - 1], np.int32))


def test_sign_and_the_power_of_zero() -> None:
    forward(lambda x: x.sign(), np.array([-2.0, 0.0, 3.0, np.inf], np.float32))
    forward(lambda x: x**0, floats(3))


def test_relu_has_no_gradient_at_zero_and_equal_operands_share_it() -> None:
    same(lambda x: x.relu(), np.zeros(3, np.float32))
    a, b = floats(4), floats(4, seed=1)
    a[1] = b[1]
    same(lambda x, y: x.maximum(y), a, b)
    same(lambda x, y: x.minimum(y), a, b)


BINARY: list[tuple[str, Any]] = [
    ("add", lambda a, b: a + b),
    ("sub", lambda a, b: a - b),
    ("mul", lambda a, b: a * b),
    ("div", lambda a, b: a / b),
    ("maximum", lambda a, b: a.maximum(b)),
    ("minimum", lambda a, b: a.minimum(b)),
    ("pow", lambda a, b: a.abs() ** b),
    ("lerp", lambda a, b: a.lerp(b, 0.3)),
]
SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 3), (5, 1))]


@pytest.mark.parametrize(("name", "function"), BINARY, ids=names(BINARY))
def test_two_tensors_broadcast(name: str, function: Any) -> None:
    for left, right in SHAPES if name in ("add", "mul") else SHAPES[2:4]:
        same(function, floats(*left), floats(*right, seed=1, low=0.5), rtol=3e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_arithmetic_in_other_floats(dtype: str) -> None:
    a, b = floats(4, 3).astype(dtype), floats(3, seed=1, low=0.5).astype(dtype)
    rtol = 2e-3 if dtype == "float16" else 1e-12
    same(lambda x, y: (x * y + x / y).relu(), a, b, rtol=rtol, atol=rtol)


def test_pow_follows_c_on_special_values() -> None:
    base = np.repeat(SPECIAL.astype(np.float32), len(SPECIAL))
    exponent = np.tile(SPECIAL.astype(np.float32), len(SPECIAL))
    # pow(-0.0, odd negative) keeps the sign of zero in C; a zero is one value here
    kept = ~((base == 0) & np.signbit(base) & (exponent < 0))
    forward(lambda x, y: x**y, base[kept], exponent[kept], rtol=1e-4)
    whole = np.array([-3, -2, -1, 0, 1, 2, 3, 8], np.float32)
    forward(lambda x, y: x**y, np.full(8, -1.7, np.float32), whole)
    same(lambda x: x**2.0, np.array([0.0, -2.0, 3.0], np.float32))


def test_negative_zero_keeps_its_sign_under_odd_negative_powers() -> None:
    base = np.array([-0.0, -0.0, -0.0, 0.0, 0.0], np.float32)
    power = np.array([-3.0, -2.0, -1.5, -3.0, -2.0], np.float32)
    forward(lambda x, y: x**y, base, power)


def test_pow_of_integers() -> None:
    base, exponent = integers(40, low=-5, high=6), integers(40, low=0, high=9, seed=1)
    forward(lambda x, y: x**y, base, exponent)
    forward(lambda x: x**5, base)
    with pytest.raises(DtypeError, match="to the power -2"):
        Tensor(base) ** -2


INT_PAIRS = [(a, b) for a in (-7, -6, -1, 0, 1, 6, 7) for b in (-3, -2, -1, 1, 2, 3)]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "float32"])
def test_floor_division_and_modulo_have_pythons_signs(dtype: str) -> None:
    a, b = np.array(INT_PAIRS, dtype=dtype).T.copy()
    forward(lambda x, y: x // y, a, b)
    forward(lambda x, y: x % y, a, b)
    forward(lambda x, y: x.fmod(y), a, b)
    forward(lambda x, y: x.div(y, rounding_mode="trunc"), a, b)
    forward(lambda x: x // 3, a)
    forward(lambda x: x % -3, a)


def test_integer_division_never_traps() -> None:
    least = np.iinfo(np.int32).min
    a, b = Tensor([7, least, -7]), Tensor([0, -1, 0])
    assert (a // b).tolist() == [0, least, 0]
    assert (a % b).tolist() == [0, 0, 0]
    assert (a // 0).tolist() == [0, 0, 0]


def test_division_of_integers_is_a_float() -> None:
    forward(lambda x, y: x / y, integers(6), integers(6, low=1, seed=1))
    forward(lambda x: 1 / x, integers(6, low=1))
    forward(lambda x: x / -2, integers(5, low=0, dtype="uint8"))
    forward(lambda x: -1 / x, integers(5, low=1, dtype="uint8"))


def test_a_number_is_divided_by_a_tensor_of_integers() -> None:
    x = integers(3, 1, low=1)
    forward(lambda t: 7 // t, x)
    forward(lambda t: -7 % t, x)
    assert Tensor(-7).fmod(Tensor(x)).shape == (3, 1)


COMPARISONS: list[tuple[str, Any]] = [
    ("lt", lambda a, b: a < b),
    ("le", lambda a, b: a <= b),
    ("gt", lambda a, b: a > b),
    ("ge", lambda a, b: a >= b),
    ("eq", lambda a, b: a == b),
    ("ne", lambda a, b: a != b),
]


@pytest.mark.parametrize(("name", "function"), COMPARISONS, ids=names(COMPARISONS))
def test_comparisons(name: str, function: Any) -> None:
    special = SPECIAL.astype(np.float32)
    forward(function, special[:, None], special[None, :])
    forward(function, integers(20, low=-2, high=3), integers(20, low=-2, high=3, seed=1))
    forward(lambda a: function(a, 1), integers(9))


def test_comparisons_of_bool() -> None:
    a, b = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    for _, function in COMPARISONS:
        forward(function, a, b)


def test_tests_for_special_values() -> None:
    special = SPECIAL.astype(np.float32)
    for name in ("isnan", "isinf", "isfinite"):
        forward(lambda x, name=name: getattr(x, name)(), special)
    forward(lambda x: x.isclose(x + 1e-7), floats(5))
    equal(Tensor(special).isinf(detect_negative=False), np.isposinf(special))


def test_bits_and_logic() -> None:
    a, b = integers(30, low=-99, high=99), integers(30, low=-99, high=99, seed=1)
    forward(lambda x, y: x & y, a, b)
    forward(lambda x, y: x | y, a, b)
    forward(lambda x, y: x ^ y, a, b)
    forward(lambda x: ~x, a)
    forward(lambda x: x.logical_not(), a, theirs=torch.logical_not)
    p, q = a > 0, b > 0
    for function in (lambda x, y: x & y, lambda x, y: x | y, lambda x, y: x ^ y):
        forward(function, p, q)
    forward(lambda x: ~x, p)
    forward(lambda x, y: x + y, p, q)
    forward(lambda x, y: x * y, p, q)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_shifts(dtype: str) -> None:
    a = integers(20, low=0 if dtype == "uint8" else -99, high=99, dtype=dtype)
    b = integers(20, low=0, high=8, dtype=dtype, seed=1)
    equal(Tensor(a) << 3, a << 3)
    equal(Tensor(a) >> 2, a >> 2)
    equal(Tensor(a) << Tensor(b), a << b)
    equal(Tensor(a) >> Tensor(b), a >> b)
    equal(Tensor(a) << 64, np.zeros_like(a))
    with pytest.raises(ShapeError, match="not by -1"):
        Tensor(a) << -1


def test_where_and_masked_fill() -> None:
    mask = floats(3, 4) > 0
    same(lambda m, x, y: m.where(x, y), mask, floats(3, 4), floats(4, seed=2),
         theirs=lambda m, x, y: torch.where(m, x, y))
    same(lambda m, x: x.masked_fill(m, 0.5), mask, floats(3, 4))
    forward(lambda m: m.where(1, 0).cast("int32"), mask,
            theirs=lambda m: torch.where(m, 1, 0).to(torch.int32))


def test_half_way_cases_round_to_even() -> None:
    forward(lambda x: x.round(), np.arange(-4, 4.25, 0.25, dtype=np.float32))


def test_mixed_types_promote() -> None:
    for a, b in [("int32", "float32"), ("bool", "int32"), ("int8", "uint8"), ("float16", "int64"),
                 ("uint8", "int32"), ("float16", "float32"), ("int32", "int64")]:
        forward(lambda x, y: x + y, integers(4, low=0, high=2, dtype=a),
                integers(4, low=0, high=2, dtype=b), rtol=1e-3)


def test_scalars_are_weak() -> None:
    assert (Tensor([1], dtype="int8") + 1).dtype.name == "int8"
    assert (Tensor([1], dtype="float16") * 2.5).dtype.name == "float16"
    assert (Tensor([1], dtype="int8") + 1.5).dtype.name == "float32"
    assert (Tensor([True]) + 1).dtype.name == "int32"
    assert (Tensor([1], dtype="uint8") * -1).dtype.name == "uint8"


def test_wrong_operands_are_named() -> None:
    with pytest.raises(DtypeError, match="'x'"):
        Tensor([1]) + "x"
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(4,\)"):
        Tensor.zeros(2, 3) + Tensor.zeros(4)
    with pytest.raises(DtypeError, match="OR works"):
        Tensor([1.5]) | 1
    with pytest.raises(DtypeError, match="bool has no negative"):
        -Tensor([True])
