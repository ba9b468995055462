"""Powers, roots, logarithms and the functions of the circle.

`exp` is written as EXP2 of a multiple and `log` as a multiple of LOG2; the compiler recognises
both and computes them as accurately as EXP2 and LOG2 themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self, TypeVar

from compiler.dtype import ConstType, dtypes, least_upper_dtype
from compiler.ir import Op
from tinyhw.arithmetic import Arithmetic, weak_dtype
from tinyhw.core import float_dtype, in_float32, is_scalar
from tinyhw.errors import DtypeError
from tinyhw.movement import broadcast_shape

LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)
MAX_SQUARED_EXPONENT = 64  # above, x**n takes the logarithm rather than multiplying

T = TypeVar("T", bound="Elementwise")


class Elementwise(Arithmetic):
    """Functions of one element that are more than arithmetic."""

    __slots__ = ()

    def pow(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self ** x. A negative base has a power only for whole exponents, else NaN."""
        if is_scalar(x) and not reverse:
            return self._pow_scalar(x)
        base, exponent = self._operands(x, reverse)
        if not dtypes.is_float(base.dtype):
            return _pow_integer(base, exponent)
        return _pow_float(base, exponent)

    def _pow_scalar(self, exponent: ConstType) -> Self:
        wide = least_upper_dtype(self.dtype, weak_dtype(exponent, self.dtype))
        x = self.cast(wide)
        if exponent == 0:
            return x.const_like(1)
        if float(exponent).is_integer() and abs(exponent) <= MAX_SQUARED_EXPONENT:
            n = int(exponent)
            if n < 0 and not dtypes.is_float(wide):
                raise DtypeError(f"An integer to the power {n} is no integer; cast to float first.")
            power = _repeated(x, abs(n), lambda a, b: a * b)
            return power if n > 0 else power.reciprocal()
        if exponent in (0.5, -0.5):
            return x.sqrt() if exponent > 0 else x.rsqrt()
        if not dtypes.is_float(wide):
            return _pow_integer(*x._operands(exponent))
        return _pow_float(x, x._constant(exponent)._broadcast_to(x.shape))

    def __pow__(self, x: Self | ConstType) -> Self:
        return self.pow(x)

    def __rpow__(self, x: ConstType) -> Self:
        return self.pow(x, True)

    # ---- roots, powers and logarithms ----
    def _float(self) -> Self:
        return self.cast(float_dtype(self.dtype))

    def sqrt(self) -> Self:
        """The square root; NaN below zero."""
        return self._float()._alu(Op.SQRT)

    @in_float32
    def rsqrt(self) -> Self:
        """1 / sqrt(self)."""
        return self.sqrt().reciprocal()

    def exp2(self) -> Self:
        """2 ** self."""
        return self._float()._alu(Op.EXP2)

    def log2(self) -> Self:
        """The logarithm to base 2."""
        return self._float()._alu(Op.LOG2)

    @in_float32
    def exp(self) -> Self:
        """e ** self."""
        x = self._float()
        return x._alu(Op.MUL, x._constant(LOG2_E))._alu(Op.EXP2)

    @in_float32
    def log(self) -> Self:
        """The natural logarithm."""
        x = self._float()._alu(Op.LOG2)
        return x._alu(Op.MUL, x._constant(LN_2))

    @in_float32
    def log10(self) -> Self:
        """The logarithm to base 10."""
        return self.log2() * math.log10(2.0)

    # ---- divisors ----
    def gcd(self, other: Self | ConstType) -> Self:
        """The greatest common divisor of integers, not negative; 0 of two zeros."""
        a, b = self._operands(other)
        if not dtypes.is_int(a.dtype):
            raise DtypeError(f"gcd is of integers, not of {a.dtype}.")
        shape = broadcast_shape(a.shape, b.shape)
        result = a.dtype
        unsigned = dtypes.from_name(f"uint{result.bits}")  # holds what the least one's size is
        a, b = (t.abs().cast(unsigned)._broadcast_to(shape) for t in (a, b))
        # Euclid's steps at most divide by the golden ratio.
        for _ in range(math.ceil(result.bits / math.log2((1 + math.sqrt(5)) / 2)) + 1):
            rest = b.eq(0).where(0, a._alu(Op.MOD, b.eq(0).where(1, b)))
            a, b = b.eq(0).where(a, b), rest
        return a.cast(result)

    def lcm(self, other: Self | ConstType) -> Self:
        """The least common multiple of integers, not negative; 0 if one of them is."""
        a, b = self._operands(other)
        result = a.dtype
        divisor = a.gcd(b)
        wide = dtypes.int32 if result.bits < 32 else result  # where a product overflows later
        quotient = a.div(divisor.maximum(1), rounding_mode="trunc").cast(wide)
        return (quotient * b.cast(wide)).abs().cast(result)

    # ---- circle ----
    def sin(self) -> Self:
        """The sine of an angle in radians."""
        return self._float()._alu(Op.SIN)

    @in_float32
    def cos(self) -> Self:
        """The cosine of an angle in radians, as 1 - 2*sin(x/2)**2."""
        half = (self._float() * 0.5).sin()
        return 1 - half * half * 2

    @in_float32
    def tan(self) -> Self:
        """The tangent of an angle in radians."""
        return self.sin() / self.cos()


def _repeated(x: T, count: int, combine: Callable[[T, T], T]) -> T:
    """x combined with itself `count` times (at least once), by repeated doubling."""
    result: T | None = None
    while True:
        if count & 1:
            result = x if result is None else combine(result, x)
        count >>= 1
        if not count:
            break
        x = combine(x, x)
    assert result is not None
    return result


def _pow_integer(base: T, exponent: T) -> T:
    """base ** exponent for integers, wrapped; a negative exponent gives 0 except for 1 and -1."""
    result = base.const_like(1)
    square = base
    for bit in range(exponent.dtype.bits - (exponent.dtype.kind == "i")):
        result = ((exponent >> bit) & 1).ne(0).where(result * square, result)
        square = square * square
    if dtypes.is_unsigned(exponent.dtype):
        return result
    odd = (exponent & 1).ne(0)
    inverse = base.eq(1).where(1, base.eq(-1).where(odd.where(-1, 1), 0)).cast(base.dtype)
    return (exponent < 0).where(inverse, result)


def _pow_float(base: T, exponent: T) -> T:
    """base ** exponent for floats as 2 ** (exponent * log2 |base|), with C's special cases.

    The logarithm never sees a zero base, so that no gradient becomes NaN there.
    """
    if base.dtype in dtypes.fp8s:
        wide = _pow_float(base.cast(dtypes.float32), exponent.cast(dtypes.float32))
        return wide.cast(base.dtype)
    zero = base.eq(0)
    size = zero.where(1, base.abs())
    power = (size.log2() * exponent).exp2()
    power = size.eq(1).where(exponent.isnan().where(exponent, 1), power)
    whole = exponent.trunc().eq(exponent)
    odd = whole & (exponent * 0.5).trunc().ne(exponent * 0.5)
    real = whole | base.isinf()
    power = (base < 0).where(odd.where(-power, real.where(power, math.nan)), power)
    infinite = odd.where(base.detach().reciprocal(), math.inf)
    at_zero = exponent.eq(1).where(base, (exponent > 0).where(0.0, infinite))
    at_zero = exponent.isnan().where(exponent, at_zero)
    power = zero.where(at_zero, power)
    return (base.eq(1) | exponent.eq(0)).where(1, power)
