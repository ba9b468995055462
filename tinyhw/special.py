"""Inverses of the circular and hyperbolic functions, the error function, sums of logarithms.

Each is a rational function, a short series or an identity over the functions of `elementwise.py`,
to a few units in the last place; what a branch does not take it computes of a harmless value, so
that no gradient becomes NaN there.
"""

from __future__ import annotations

import math
from typing import Self, TypeVar

from compiler.dtype import ConstType, dtypes, greatest_finite
from tinyhw.core import in_float32
from tinyhw.elementwise import Elementwise

T = TypeVar("T", bound="Special")

# erf(x) = x + x*P(x*x)/Q(x*x) below 0.84375 (FreeBSD msun, s_erf.c: efx..pp4, qq1..qq5).
ERF_SMALL = 0.84375
ERF_P = (
    -2.37630166566501626084e-05,
    -5.77027029648944159157e-03,
    -2.84817495755985104766e-02,
    -3.25042107247001499370e-01,
    1.28379167095512558561e-01,
)
ERF_Q = (
    -3.96022827877536812320e-06,
    1.32494738004321644526e-04,
    5.08130628187576562776e-03,
    6.50222499887672944485e-02,
    3.97917223959155352819e-01,
    1.0,
)
# erfc(x) = t*exp(-x*x + C(t)), t = 1/(1 + x/2), above (Numerical Recipes, erfcc: 1.2e-7).
ERFC_C = (
    0.17087277,
    -0.82215223,
    1.48851587,
    -1.13520398,
    0.27886807,
    -0.18628806,
    0.09678418,
    0.37409196,
    1.00002368,
    -1.26551223,
)
NEAR_ZERO = 0.35  # below, the series of exp(x) - 1 and log(1 + x); above, little cancels
HALVINGS = 2  # of the angle in atan: tan(pi/4) becomes tan(pi/16), 0.199
LARGE = 1e9  # above, sqrt(x*x + 1) is x in every type, and below x*x overflows in none


class Special(Elementwise):
    """Functions of one element that take several steps."""

    __slots__ = ()

    def _wide_float(self) -> Self:
        """As a float of at least 32 bits, in which series are summed."""
        x = self._float()
        return x.cast(dtypes.float32) if x.dtype.bits < 32 else x

    def _terms(self, single: int, double: int) -> int:
        """How many terms of a series this type needs."""
        return double if self.dtype is dtypes.float64 else single

    # ---- exponentials ----
    def expm1(self) -> Self:
        """exp(self) - 1, accurate near 0."""
        x = self._wide_float()
        near = x.abs() < NEAR_ZERO
        small = near.where(x, 0)
        series = small.const_like(1)
        for n in range(x._terms(9, 15), 1, -1):
            series = 1 + small * series * (1 / n)
        return near.where(small * series, near.where(1, x).exp() - 1).cast(self._float().dtype)

    def log1p(self) -> Self:
        """log(1 + self), accurate near 0."""
        x = self._wide_float()
        near = x.abs() < NEAR_ZERO
        small = near.where(x, 0)
        s = small / (small + 2)  # log(1 + x) = 2 * atanh(x / (x + 2))
        square = s * s
        series = square.const_like(0)
        for n in range(2 * x._terms(6, 12) + 1, 0, -2):
            series = 1 / n + square * series
        return near.where(2 * s * series, (near.where(0, x) + 1).log()).cast(self._float().dtype)

    def logaddexp(self, other: Self | ConstType) -> Self:
        """log(exp(self) + exp(other)), which never overflows."""
        return self._log_of_sum(other, math.e)

    def logaddexp2(self, other: Self | ConstType) -> Self:
        """log2(2**self + 2**other), which never overflows."""
        return self._log_of_sum(other, 2.0)

    def _log_of_sum(self, other: Self | ConstType, base: float) -> Self:
        scale = math.log(base)
        a, b = self._operands(other)
        a, b = a._float(), b._float()
        if a.dtype in dtypes.fp8s:
            wide = a.cast(dtypes.float32)._log_of_sum(b.cast(dtypes.float32), base)
            return wide.cast(a.dtype)
        most = a.maximum(b)
        same = a.eq(b)  # infinities of one sign have no difference
        gap = same.where(0, (a - b).abs())
        return most + (-gap * scale).exp().log1p() / scale

    # ---- circle ----
    def atan(self) -> Self:
        """The angle in (-pi/2, pi/2) whose tangent is self."""
        x = self._wide_float()
        steep = x.abs() > 1
        z = steep.where(1 / steep.where(x, 1), x)
        for _ in range(HALVINGS):  # tan(a/2) = tan(a) / (1 + sqrt(1 + tan(a)**2))
            z = z / (1 + (z * z + 1).sqrt())
        square = z * z
        series = square.const_like(0)
        for n in range(2 * x._terms(5, 11) + 1, 0, -2):
            series = 1 / n - square * series
        angle = z * series * 2.0**HALVINGS
        right = x._sign_of() * (math.pi / 2)
        return steep.where(right - angle, angle).cast(self._float().dtype)

    def asin(self) -> Self:
        """The angle in [-pi/2, pi/2] whose sine is self; NaN outside [-1, 1]."""
        x = self._wide_float()
        return (x / ((1 - x) * (1 + x)).sqrt()).atan().cast(self._float().dtype)

    def acos(self) -> Self:
        """The angle in [0, pi] whose cosine is self; NaN outside [-1, 1]."""
        x = self._wide_float()
        return (((1 - x) / (1 + x)).sqrt().atan() * 2).cast(self._float().dtype)

    def atan2(self, other: Self | ConstType) -> Self:
        """The angle in [-pi, pi] of the point with ordinate self and abscissa `other`."""
        y, x = self._operands(other)
        result = y._float().dtype
        y, x = y._wide_float()._broadcasted(x._wide_float())
        up, right = y._sign_of(), x._sign_of()
        height, width = y * up, x * right
        steep = height > width
        least, most = steep.where(width, height), steep.where(height, width)
        safe = most.eq(0).where(1, most)
        angle = (least.isinf() & most.isinf()).where(1, least / safe).atan()
        angle = steep.where(math.pi / 2 - angle, angle)
        return (up * (right < 0).where(math.pi - angle, angle)).cast(result)

    def _sign_of(self) -> Self:
        """-1 or 1, by the sign that zero has too."""
        return self.const_like(1.0).copysign(self)

    # ---- hyperbola ----
    def asinh(self) -> Self:
        """The inverse of sinh."""
        x = self._wide_float()
        sign = x._sign_of()
        size = x * sign
        large = size > LARGE
        safe = large.where(1, size)
        near = (safe + safe * safe / (1 + (safe * safe + 1).sqrt())).log1p()
        value = large.where(large.where(size, 1).log() + math.log(2), near)
        return (sign * value).cast(self._float().dtype)

    def acosh(self) -> Self:
        """The inverse of cosh, at least 0; NaN below 1."""
        x = self._wide_float()
        large = x > LARGE
        t = large.where(1, x) - 1
        near = (t + (t * (t + 2)).sqrt()).log1p()
        return large.where(large.where(x, 1).log() + math.log(2), near).cast(self._float().dtype)

    def atanh(self) -> Self:
        """The inverse of tanh; NaN outside [-1, 1]."""
        x = self._wide_float()
        return (0.5 * (2 * x / (1 - x)).log1p()).cast(self._float().dtype)

    # ---- error function ----
    def erf(self) -> Self:
        """The error function, to 1.2e-7."""
        x = self._wide_float()
        near, inner, outer = x._erf_parts()
        value = near.where(inner, (x < 0).where(outer - 1, 1 - outer))
        return value.cast(self._float().dtype)

    def erfc(self) -> Self:
        """1 - erf(self), accurate where that is near 0."""
        x = self._wide_float()
        near, inner, outer = x._erf_parts()
        return near.where(1 - inner, (x < 0).where(2 - outer, outer)).cast(self._float().dtype)

    def _erf_parts(self) -> tuple[Self, Self, Self]:
        """(where self is small, erf there, erfc(abs(self)) elsewhere)."""
        size = (self < 0).where(-self, self)
        near = size < ERF_SMALL
        small = near.where(self, 0)
        square = small * small
        inner = small + small * (polynomial(square, ERF_P) / polynomial(square, ERF_Q))
        far = near.where(1, size)
        t = 1 / (1 + far * 0.5)
        return near, inner, t * (polynomial(t, ERFC_C) - far * far).exp()

    # ---- products with care at 0 ----
    def xlogy(self, other: Self | ConstType) -> Self:
        """self * log(other), 0 where self is 0 unless other is NaN."""
        a, b = self._operands(other)
        a, b = a._float()._broadcasted(b._float())
        nothing = a.eq(0) & b.isnan().logical_not()
        return nothing.where(0, a * nothing.where(1, b).log())

    @in_float32
    def sinc(self) -> Self:
        """sin(pi*self) / (pi*self), 1 at 0."""
        x = self._float() * math.pi
        zero = x.eq(0)
        safe = zero.where(1, x)
        return zero.where(1, safe.sin() / safe)

    def logit(self, eps: float | None = None) -> Self:
        """log(self / (1 - self)), self first put into [eps, 1 - eps]."""
        x = self._float() if eps is None else self._float().clamp(eps, 1 - eps)
        return (x / (1 - x)).log()

    def hypot(self, other: Self | ConstType) -> Self:
        """sqrt(self**2 + other**2)."""
        a, b = (t.abs() for t in self._operands(other))
        most, least = a.maximum(b), a.minimum(b)
        safe = (most.eq(0) | most.isinf()).where(1, most)
        length = safe * ((least / safe).square() + 1).sqrt()
        return (a.isinf() | b.isinf()).where(math.inf, most.eq(0).where(most, length))

    # ---- parts of numbers ----
    def frac(self) -> Self:
        """What is behind the point, with the sign of self."""
        return self - self.trunc()

    def signbit(self) -> Self:
        """Where self is negative, -0.0 included."""
        if not dtypes.is_float(self.dtype):
            return self < 0
        return self.detach()._sign_of() < 0

    def nan_to_num(
        self, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
    ) -> Self:
        """Numbers for NaN and the infinities: by default 0 and the greatest and least finite."""
        if not dtypes.is_float(self.dtype):
            return self
        x = self.isnan().where(nan, self)
        if not self.dtype.has_infinity:
            return x
        top = greatest_finite(self.dtype)
        x = x.eq(math.inf).where(top if posinf is None else posinf, x)
        return x.eq(-math.inf).where(-top if neginf is None else neginf, x)

    def heaviside(self, values: Self) -> Self:
        """0 below 0, 1 above, `values` at 0."""
        a, b = self._operands(values)
        return a.eq(0).where(b, (a > 0).cast(a.dtype))

    def float_power(self, exponent: Self | ConstType) -> Self:
        """self ** exponent in float64."""
        return self.cast(dtypes.float64).pow(
            exponent.cast(dtypes.float64) if isinstance(exponent, Special) else float(exponent)
        )

    def ldexp(self, other: Self | ConstType) -> Self:
        """self * 2**other."""
        return self * self._operand(other)._float().exp2()

    @in_float32
    def deg2rad(self) -> Self:
        """Degrees as radians."""
        return self._float() * (math.pi / 180)

    @in_float32
    def rad2deg(self) -> Self:
        """Radians as degrees."""
        return self._float() * (180 / math.pi)


def polynomial(x: T, coefficients: tuple[float, ...]) -> T:
    """The polynomial with the highest power's coefficient first."""
    result = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        result = result * x + coefficient
    return result
