"""The gamma function's logarithm and its derivative, and the inverse of the error function.

Around 2 the logarithm is a power series (Abramowitz and Stegun 6.1.33). What lies above comes down
there by factors, or is large enough for Stirling's series (6.1.40, 6.3.18); what lies below comes
up by factors, and below 0 it is reflected (6.1.17, 6.3.7).
"""

from __future__ import annotations

import functools
import math
from typing import Self, TypeVar

from compiler.dtype import dtypes
from tinyhw.special import Special, polynomial

EULER_GAMMA = 0.57721566490153286061
LARGE_ARGUMENTS = (4, 8)  # from here on Stirling's series is exact: for float32, for float64
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
# Mike Giles, "Approximating the erfinv function", GPU Computing Gems, 2011, table 5, for float32:
# polynomials in w = -log(1 - x*x), around 2.5 below 5 and around 3 in its root above.
ERFINV_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
ERFINV_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip

T = TypeVar("T", bound="Gamma")


class Gamma(Special):
    """Functions around the gamma function."""

    __slots__ = ()

    def lgamma(self) -> Self:
        """log |gamma(self)|; infinite at 0 and the negative whole numbers."""
        x = self._wide_float()
        negative, size = x._mirrored()
        most = LARGE_ARGUMENTS[x.dtype is dtypes.float64]
        large = size >= most
        few = large.where(2.0, size)
        z, factor, _ = _near_two(few, most)
        logarithm = factor.log()
        near = z * polynomial(z, _series(x._terms(14, 28)))
        near = near + (few < 1.5).where(-logarithm, logarithm)
        value = large.where(_stirling(large.where(size, most)), near)
        sine, _ = _sine_and_cosine(negative.where(x, 0.5))
        value = negative.where(math.log(math.pi) - sine.abs().log() - value, value)
        return x.isinf().where(math.inf, value).cast(self._float().dtype)

    def digamma(self) -> Self:
        """The derivative of `lgamma`; NaN at the negative whole numbers."""
        x = self._wide_float()
        negative, size = x._mirrored()
        most = LARGE_ARGUMENTS[x.dtype is dtypes.float64]
        large = size >= most
        few = large.where(2.0, size)
        z, _, shift = _near_two(few, most)
        series = _series(x._terms(14, 28))
        powers = range(len(series), 0, -1)
        near = polynomial(z, tuple(c * k for c, k in zip(series, powers, strict=True))) + shift
        far = large.where(size, most)
        inverse = far.reciprocal()
        square = inverse * inverse
        terms = [b / (2 * n) for n, b in enumerate(BERNOULLI, 1)]
        tail = far.log() - 0.5 * inverse - square * polynomial(square, tuple(terms[::-1]))
        value = large.where(tail, near)
        sine, cosine = _sine_and_cosine(negative.where(x, 0.5))
        pole = sine.eq(0)
        value = negative.where(value - math.pi * cosine / pole.where(1, sine), value)
        value = (pole | x.eq(-math.inf)).where(math.nan, value)
        return value.cast(self._float().dtype)

    def erfinv(self) -> Self:
        """Where `erf` is self, to 2e-7 of it; infinite at -1 and 1, NaN beyond."""
        x = self._wide_float()
        inside = x.abs() < 1
        y = inside.where(x, 0)
        w = -((1 - y) * (1 + y)).log()
        tail = w >= 5
        near = polynomial(tail.where(0, w) - 2.5, ERFINV_NEAR)
        far = polynomial(tail.where(w, 9.0).sqrt() - 3, ERFINV_FAR)
        edge = x.eq(1).where(math.inf, x.eq(-1).where(-math.inf, math.nan))
        return inside.where(tail.where(far, near) * y, edge).cast(self._float().dtype)

    def _mirrored(self) -> tuple[Self, Self]:
        """(where self is negative, 1 - self there and self elsewhere)."""
        negative = self < 0
        return negative, negative.where(1 - self, self)


def _near_two(x: T, most: int) -> tuple[T, T, T]:
    """(z, factor, shift) of x in [0, most]: the way to 2 + z, with z in [-0.5, 0.5].

    gamma(x) is gamma(2 + z) times the factor, and below 1.5 divided by it; digamma(x) is
    digamma(2 + z) + shift.
    """
    low, lowest = x < 1.5, x < 0.5
    y = low.where(lowest.where(x + 2, x + 1), x)
    factor = low.where(lowest.where(x * (x + 1), x), 1)
    below = low.where(x, 1)
    shift = low.where(lowest.where(-1 / below - 1 / (below + 1), -1 / below), 0)
    for _ in range(most - 2):
        high = y > 2.5
        one_less = high.where(y - 1, 1)
        factor = factor * one_less
        shift = shift + high.where(one_less.reciprocal(), 0)
        y = high.where(y - 1, y)
    return y - 2, factor, shift


@functools.cache
def _series(terms: int) -> tuple[float, ...]:
    """The coefficients of log(gamma(2 + z)) / z, highest power first."""
    found = [1 - EULER_GAMMA]
    found += [(-1) ** k * _zeta_less_one(k) / k for k in range(2, terms + 1)]
    return tuple(found[::-1])


def _zeta_less_one(k: int) -> float:
    """2**-k + 3**-k + ..., the tail by Euler and Maclaurin."""
    n = 20
    tail = n ** (1 - k) / (k - 1) - n**-k / 2 + k * n ** (-k - 1) / 12
    tail -= k * (k + 1) * (k + 2) * n ** (-k - 3) / 720
    tail += math.prod(range(k, k + 5)) * n ** (-k - 5) / 30240
    return math.fsum([*(float(i) ** -k for i in range(2, n + 1)), tail])


def _stirling(x: T) -> T:
    """log(gamma(x)) for large x."""
    inverse = x.reciprocal()
    terms = [b / (2 * n * (2 * n - 1)) for n, b in enumerate(BERNOULLI, 1)]
    tail = inverse * polynomial(inverse * inverse, tuple(terms[::-1]))
    return (x - 0.5) * x.log() - x + (0.5 * math.log(2 * math.pi)) + tail


def _sine_and_cosine(x: T) -> tuple[T, T]:
    """sin(pi*x) and cos(pi*x) but for a common sign, exactly 0 at whole numbers."""
    angle = (x - x.round().detach()) * math.pi
    return angle.sin(), angle.cos()
