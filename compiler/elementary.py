"""Exponentials and logarithms in additions, multiplications and operations on bits.

Straight-line code without tables, so that it vectorises. Polynomials are minimax fits, weighted
for relative error. Where accuracy depends on a product being exact, its factors are short enough
for it, so fusing a multiplication with an addition changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.dtype import DType, dtypes
from compiler.expressions import (
    binary,
    bitcast,
    cast,
    choose,
    compare,
    constant_like,
    fused,
    horner,
)
from compiler.ir import Node, Op

LN2 = math.log(2.0)
LOG2E = 1.0 / LN2


@dataclass(frozen=True)
class Format:
    """A binary floating-point format and the constants fitted to its precision.

    `ln2_high` has so many trailing zeros that its product with any exponent is exact.
    """

    dtype: DType
    bits: DType
    mantissa: int  # bits stored
    bias: int
    exp_range: tuple[float, float]  # outside exp is 0 or infinite
    exp2_range: tuple[float, float]
    ln2_high: float
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2 on [-ln 2, ln 2]
    exp2: tuple[float, ...]  # (2**r - 1) / r on [-1/2, 1/2]

    @property
    def rounder(self) -> float:
        """Added and subtracted, it leaves an integer; added alone, its low bits hold it."""
        return 1.5 * 2.0**self.mantissa


FLOAT = Format(
    dtypes.float32,
    dtypes.uint32,
    23,
    127,
    (-104.5, 89.0),
    (-151.0, 129.0),
    float.fromhex("0x1.62e4p-1"),
    (
        0.5000003576278687,
        0.1666661500930786,
        0.041661277413368225,
        0.008336097933351994,
        0.001410427037626505,
        0.0001961186499102041,
    ),
    (
        0.6931471824645996,
        0.24022647738456726,
        0.055503323674201965,
        0.009618437848985195,
        0.0013398876180872321,
        0.00015353357593994588,
    ),
)
DOUBLE = Format(
    dtypes.float64,
    dtypes.uint64,
    52,
    1023,
    (-746.0, 710.0),
    (-1076.0, 1025.0),
    float.fromhex("0x1.62e42feep-1"),
    (
        0.4999999999999993,
        0.16666666666666938,
        0.04166666666670205,
        0.008333333333269952,
        0.0013888888883581364,
        0.00019841269892759014,
        2.4801590827608065e-05,
        2.755730065223776e-06,
        2.7556158595671577e-07,
        2.5055034547811583e-08,
        2.106228441039828e-09,
        1.593540770632454e-10,
    ),
    (
        0.6931471805599453,
        0.2402265069591013,
        0.055504108664820064,
        0.009618129107594159,
        0.001333355814677905,
        0.00015403530457069192,
        1.5252733489278266e-05,
        1.3215435303255358e-06,
        1.017820110602569e-07,
        7.07377968509199e-09,
        4.4345434198396923e-10,
    ),
)
FORMATS = {form.dtype: form for form in (FLOAT, DOUBLE)}


def _clamped(x: Node, limits: tuple[float, float]) -> Node:
    """`x` within limits; a NaN stays one."""
    low, high = limits
    above = binary(Op.MAX, x, low)
    limit = constant_like(x, high)
    return choose(compare(Op.CMPLT, limit, above), limit, above)


def _power_of_two(exponent_bits: Node, form: Format) -> Node:
    """2**n, of which `exponent_bits` has n in its low bits (others go lost)."""
    shifted = binary(Op.SHL, exponent_bits, form.mantissa)
    return bitcast(binary(Op.ADD, shifted, form.bias << form.mantissa), form.dtype)


def exp(x: Node) -> Node:
    """e**x within 1.6 units of the last place, subnormal results included.

    x = 2*m*ln2 + r with |r| <= ln2, and e**x = e**r * 2**m * 2**m: neither factor leaves the
    format's range before the result does.
    """
    form = FORMATS[x.dtype.scalar]
    a = _clamped(x, form.exp_range)
    shifted = fused(a, LOG2E / 2, form.rounder)
    m = binary(Op.ADD, shifted, -form.rounder)
    r = fused(m, -2 * form.ln2_high, a)
    r = fused(m, -2 * _ln2_low(form), r)
    power = horner(r, (1.0, 1.0, *form.exp))
    scale = _power_of_two(bitcast(shifted, form.bits), form)
    return binary(Op.MUL, binary(Op.MUL, power, scale), scale)


def _ln2_low(form: Format) -> float:
    """What `ln2_high` lacks of ln 2, to twice the precision of float64."""
    return (LN2 - form.ln2_high) + 2.3190468138462996e-17


def exp2(x: Node) -> Node:
    """2**x within 1 unit of the last place, exact for integers, subnormal results included.

    x = n + r with |r| <= 1/2; 2**n is multiplied in two steps.
    """
    form = FORMATS[x.dtype.scalar]
    a = _clamped(x, form.exp2_range)
    shifted = binary(Op.ADD, a, form.rounder)
    r = binary(Op.ADD, a, binary(Op.MUL, binary(Op.ADD, shifted, -form.rounder), -1.0))
    power = horner(r, (1.0, *form.exp2))
    n = bitcast(shifted, form.bits)
    half = binary(Op.SHR, n, 1)  # of the rounder, which is even, and of n
    rest = binary(Op.ADD, n, binary(Op.MUL, half, -1))
    first, second = (_power_of_two(part, form) for part in (half, rest))
    return binary(Op.MUL, binary(Op.MUL, power, first), second)


def _split(x: Node, form: Format) -> tuple[Node, Node]:
    """(f, e) with x = (1 + f) * 2**e and 1 + f between the roots of 1/2 and 2; e is a float.

    For positive finite x, subnormal ones too.
    """
    signed = dtypes.int32 if form.bits is dtypes.uint32 else dtypes.int64
    subnormal = compare(Op.CMPLT, x, 2.0 ** (1 - form.bias))
    scaled = choose(subnormal, binary(Op.MUL, x, 2.0**form.mantissa), x)
    bits = bitcast(scaled, signed)
    root_half = int(math.sqrt(0.5) * 2.0 ** (form.mantissa + 1)) - (1 << form.mantissa)
    root_half += (form.bias - 1) << form.mantissa
    exponent = binary(Op.SHR, binary(Op.ADD, bits, -root_half), form.mantissa)
    one_and_f = binary(Op.ADD, bits, binary(Op.MUL, binary(Op.SHL, exponent, form.mantissa), -1))
    f = binary(Op.ADD, bitcast(one_and_f, form.dtype), -1.0)
    e = cast(exponent, form.dtype)
    zero = constant_like(x, 0.0)
    return f, binary(Op.ADD, e, choose(subnormal, constant_like(x, -float(form.mantissa)), zero))


_LOG_FLOAT = (  # (ln(1 + f) - f + f**2/2) / f**3
    0.3333333134651184,
    -0.250008225440979,
    0.20001226663589478,
    -0.16623353958129883,
    0.14201776683330536,
    -0.13160233199596405,
    0.12761467695236206,
    -0.07634225487709045,
)
_LOG_DOUBLE = (  # FreeBSD's e_log.c, Lg1..Lg7: (ln(1+s) - ln(1-s) - 2s) / s**3 in s**2
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)


def _log1p_rest(f: Node, form: Format) -> Node:
    """ln(1 + f) - f."""
    square = binary(Op.MUL, f, f)
    if form is FLOAT:
        cubic = binary(Op.MUL, binary(Op.MUL, f, square), horner(f, _LOG_FLOAT))
        return fused(square, -0.5, cubic)
    s = Node(Op.DIV, f.dtype, (f, binary(Op.ADD, f, 2.0)))
    z = binary(Op.MUL, s, s)
    half_square = binary(Op.MUL, square, 0.5)
    tail = fused(z, horner(z, _LOG_DOUBLE), half_square)
    return fused(s, tail, binary(Op.MUL, half_square, -1.0))


def _with_edges(x: Node, finite: Node) -> Node:
    """A logarithm's values at and beyond the ends of its domain: x itself for inf and NaN."""
    zero_or_less = choose(
        compare(Op.CMPEQ, x, 0.0), constant_like(x, -math.inf), constant_like(x, math.nan)
    )
    below_infinity = choose(compare(Op.CMPLT, x, math.inf), finite, x)
    return choose(compare(Op.CMPLT, constant_like(x, 0.0), x), below_infinity, zero_or_less)


def log(x: Node) -> Node:
    """The natural logarithm within 1 unit of the last place."""
    form = FORMATS[x.dtype.scalar]
    f, e = _split(x, form)
    rest = fused(e, _ln2_low(form), _log1p_rest(f, form))
    return _with_edges(x, fused(e, form.ln2_high, binary(Op.ADD, f, rest)))


def log2(x: Node) -> Node:
    """The logarithm to base 2 within 1.3 units of the last place, exact for powers of two."""
    form = FORMATS[x.dtype.scalar]
    f, e = _split(x, form)
    rest = _log1p_rest(f, form)
    excess = LOG2E - 1.0  # log2(e) = 1 + excess, so that f and the rest are multiplied exactly
    total = binary(Op.ADD, fused(f, excess, binary(Op.MUL, rest, excess)), rest)
    return _with_edges(x, binary(Op.ADD, binary(Op.ADD, total, f), e))
