"""The sine, for arguments of any size, in integer and floating-point operations.

Payne and Hanek's reduction: an argument x = m * 2**e is divided by pi with as many bits of 1/pi
as matter, picked from a constant; those that would give multiples of 2 are never looked at.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from compiler.dtype import dtypes
from compiler.elementary import DOUBLE, FLOAT, Format
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

_INVERSE_PI = int(  # floor(2**1280 / pi)
    "517cc1b727220a94fe13abe8fa9a6ee06db14acc9e21c820ff28b1d5ef5de2b0"
    "db92371d2126e9700324977504e8c90e7f0ef58e5894d39f74411afa975da242"
    "74ce38135a2fbf209cc8eb1cc1a99cfa4e422fc5defc941d8ffc4bffef02cc07"
    "f79788c5ad05368fb69b3f6793e584dba7a31fb34f2ff516ba93dd63f5f2f8bd"
    "9e839cfbc529497535fdafd88fc6ae842b0198237e3db5d5f867de104d7a1b0e",
    16,
)
_INVERSE_PI_BITS = 1280
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class _Sine:
    """How many digits (of 32 bits) a format's reduction takes, and its polynomial."""

    form: Format
    mantissa_digits: int
    fraction_digits: int  # of the quotient that are kept
    levels: int  # the window starts at one of 2**levels digits
    coefficients: tuple[float, ...]  # (sin(r) - r) / r**3 in r**2, |r| <= pi/2


_SINES = {
    dtypes.float32: _Sine(
        FLOAT,
        1,
        2,
        3,
        (
            -0.16666659712791443,
            0.00833306647837162,
            -0.0001980959641514346,
            2.60576416621916e-06,
        ),
    ),
    dtypes.float64: _Sine(
        DOUBLE,
        2,
        4,
        6,
        (
            -0.16666666666666666,
            0.008333333333333196,
            -0.00019841269841210085,
            2.755731921131742e-06,
            -2.5052106890058392e-08,
            1.6058940560635976e-10,
            -7.643012784035402e-13,
            2.7213863099265394e-15,
        ),
    ),
}


def sin(x: Node) -> Node:
    """The sine within 2 units of the last place; NaN for infinities."""
    sine = _SINES[x.dtype.scalar]
    form = sine.form
    sign_bit = 1 << (form.dtype.bits - 1)
    bits = bitcast(x, form.bits)
    magnitude = binary(Op.AND, bits, sign_bit - 1)
    absolute = bitcast(magnitude, form.dtype)
    reduced, odd = _remainder_by_pi(magnitude, sine)
    small = compare(Op.CMPLT, absolute, math.pi / 2)
    r = choose(small, absolute, reduced)
    square = binary(Op.MUL, r, r)
    value = fused(binary(Op.MUL, r, square), horner(square, sine.coefficients), r)
    flip = choose(small, constant_like(odd, 0), odd)
    sign = binary(Op.SHL, cast(flip, form.bits), form.dtype.bits - 1)
    sign = binary(Op.XOR, sign, binary(Op.AND, bits, sign_bit))
    value = bitcast(binary(Op.XOR, bitcast(value, form.bits), sign), form.dtype)
    finite = compare(Op.CMPLT, absolute, math.inf)
    return choose(finite, value, constant_like(x, math.nan))


def _remainder_by_pi(magnitude: Node, sine: _Sine) -> tuple[Node, Node]:
    """(r, n & 1) with |x| = n*pi + r and |r| <= pi/2, for |x| >= 1 with these bits."""
    form = sine.form
    wide = cast(magnitude, dtypes.uint64)
    mantissa = binary(Op.AND, wide, (1 << form.mantissa) - 1)
    mantissa = binary(Op.OR, mantissa, 1 << form.mantissa)
    # x/pi/2 = mantissa * 2**(exponent - bias - stored bits - 1) / pi. The constant begins with
    # as many zero bits as make the shift positive, and a shift of its digits follows.
    zeros = 32 * sine.mantissa_digits
    exponent = binary(Op.SHR, wide, form.mantissa)
    shift = binary(Op.ADD, exponent, (1 << 64) + zeros - form.bias - form.mantissa - 1)
    window = _window(shift, zeros, sine)
    fraction = _product(mantissa, window, sine)
    # `fraction` is |x|/pi/2 modulo 1: its first bit tells odd from even multiples of pi, the
    # second whether the next multiple is nearer; what follows is the remainder, signed.
    shifted = _joined(fraction, 1)
    first = binary(Op.SHR, fraction[0], 31)
    second = binary(Op.AND, binary(Op.SHR, fraction[0], 30), 1)
    odd = binary(Op.XOR, first, second)
    high = cast(bitcast(shifted[0], dtypes.int64), dtypes.float64)
    unit = math.pi * 2.0**-64
    if form is FLOAT:
        return cast(binary(Op.MUL, high, unit), dtypes.float32), odd
    rest = binary(Op.ADD, bitcast(shifted[0], dtypes.int64), _negated_integer(high))
    low = fused(cast(shifted[1], dtypes.float64), 2.0**-64, cast(rest, dtypes.float64))
    pi_low = 1.2246467991473532e-16  # pi - float64(pi)
    small = fused(high, pi_low * 2.0**-64, binary(Op.MUL, low, unit))
    return fused(high, unit, small), odd


def _negated_integer(value: Node) -> Node:
    """-value as an int64."""
    return binary(Op.MUL, cast(value, dtypes.int64), -1)


def _window(shift: Node, zeros: int, sine: _Sine) -> list[Node]:
    """Digits of 1/pi from bit `shift` on, the constant being preceded by `zeros` zero bits."""
    count = sine.fraction_digits + sine.mantissa_digits + 1
    size = (1 << sine.levels) + count
    bits = 32 * size - zeros
    constant = (_INVERSE_PI << 1280) >> (2 * _INVERSE_PI_BITS - bits)
    digits = [constant_like(shift, constant >> (32 * (size - 1 - i)) & _LOW) for i in range(size)]
    for level in reversed(range(sine.levels)):
        step = 1 << level
        bit = binary(Op.AND, shift, 32 << level)
        skip = compare(Op.CMPNE, bit, 0)
        keep = count + step
        digits = [
            choose(skip, digits[i + step], digits[i]) for i in range(min(keep, len(digits) - step))
        ]
    amount = binary(Op.AND, shift, 31)
    pairs = itertools.pairwise(digits)
    window = []
    for first, second in pairs:
        both = binary(Op.OR, binary(Op.SHL, first, 32), second)
        window.append(binary(Op.SHR, Node(Op.SHL, both.dtype, (both, amount)), 32))
    return window


def _product(mantissa: Node, window: list[Node], sine: _Sine) -> list[Node]:
    """mantissa * 0.window modulo 1, the first `fraction_digits` digits."""
    low = binary(Op.AND, mantissa, _LOW)
    parts = [low, binary(Op.SHR, mantissa, 32)][: sine.mantissa_digits]
    columns: list[list[Node]] = [[] for _ in range(sine.fraction_digits + 1)]
    for weight, part in enumerate(parts):
        for i, digit in enumerate(window):
            product = binary(Op.MUL, part, digit)
            if 0 <= i - weight < len(columns):
                columns[i - weight].append(binary(Op.AND, product, _LOW))
            if 0 <= i - weight - 1 < len(columns):
                columns[i - weight - 1].append(binary(Op.SHR, product, 32))
    digits: list[Node] = []
    carry: Node | None = None
    for column in reversed(columns):
        total = carry if carry is not None else constant_like(mantissa, 0)
        for term in column:
            total = binary(Op.ADD, total, term)
        digits.append(binary(Op.AND, total, _LOW))
        carry = binary(Op.SHR, total, 32)
    return digits[:0:-1]


def _joined(digits: list[Node], shift: int) -> list[Node]:
    """Pairs of digits as 64-bit numbers, all shifted left by `shift` bits."""
    pairs = [
        binary(Op.OR, binary(Op.SHL, first, 32), second)
        for first, second in zip(digits[::2], digits[1::2], strict=True)
    ]
    shifted = [binary(Op.SHL, pair, shift) for pair in pairs]
    for i, following in enumerate(pairs[1:]):
        shifted[i] = binary(Op.OR, shifted[i], binary(Op.SHR, following, 64 - shift))
    return shifted
