"""The non-linear functions of neural networks, and the error function.

Each is finite, with a finite gradient, for every finite input.
"""

from __future__ import annotations

import math
from typing import Self

from compiler.dtype import dtypes
from tinyhw.elementwise import Elementwise, T

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

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


class Activations(Elementwise):
    """Functions that layers put after a linear map."""

    __slots__ = ()

    def _decay(self) -> Self:
        """exp(-|self|), which never overflows; its slope at 0 is that from the right."""
        x = self._float()
        return (x < 0).where(x, -x).exp()

    def relu(self) -> Self:
        """max(self, 0); the gradient at 0 is 0."""
        return self.maximum(0)

    def sigmoid(self) -> Self:
        """1 / (1 + exp(-self))."""
        decay = self._decay()
        return (self < 0).where(decay, 1) / (decay + 1)

    def tanh(self) -> Self:
        """The hyperbolic tangent."""
        return 2 * (self._float() * 2).sigmoid() - 1

    def sinh(self) -> Self:
        """The hyperbolic sine."""
        x = self._float()
        return (x.exp() - x.neg().exp()) / 2

    def cosh(self) -> Self:
        """The hyperbolic cosine."""
        x = self._float()
        return (x.exp() + x.neg().exp()) / 2

    def softplus(self, beta: float = 1.0) -> Self:
        """log(1 + exp(beta*self)) / beta."""
        x = self._float() * beta
        return ((x < 0).where(0, x) + (x._decay() + 1).log()) / beta

    def logsigmoid(self) -> Self:
        """log(sigmoid(self))."""
        return -(-self).softplus()

    def silu(self) -> Self:
        """self * sigmoid(self)."""
        return self * self.sigmoid()

    def swish(self) -> Self:
        """`silu`."""
        return self.silu()

    def mish(self) -> Self:
        """self * tanh(softplus(self))."""
        return self * self.softplus().tanh()

    def gelu(self) -> Self:
        """The Gaussian error linear unit in its tanh approximation."""
        x = self._float()
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh())

    def quick_gelu(self) -> Self:
        """self * sigmoid(1.702*self)."""
        return self * (self * 1.702).sigmoid()

    def elu(self, alpha: float = 1.0) -> Self:
        """self above 0, else alpha*(exp(self) - 1)."""
        x = self._float()
        return (x > 0).where(x, alpha * ((x > 0).where(0, x).exp() - 1))

    def celu(self, alpha: float = 1.0) -> Self:
        """self above 0, else alpha*(exp(self/alpha) - 1)."""
        x = self._float()
        return (x > 0).where(x, alpha * (((x > 0).where(0, x) / alpha).exp() - 1))

    def selu(self, alpha: float = SELU_ALPHA, gamma: float = SELU_SCALE) -> Self:
        """gamma * elu(self, alpha)."""
        return gamma * self.elu(alpha)

    def leaky_relu(self, neg_slope: float = 0.01) -> Self:
        """self above 0, else neg_slope*self."""
        return (self > 0).where(self, neg_slope * self)

    def relu6(self) -> Self:
        """self within [0, 6]."""
        return (self > 6).where(6, self.relu())

    def hardswish(self) -> Self:
        """self * relu6(self + 3) / 6."""
        return self * (self + 3).relu6() * (1 / 6)

    def hardsigmoid(self, alpha: float = 1 / 6, beta: float = 0.5) -> Self:
        """alpha*self + beta within [0, 1]."""
        x = alpha * self + beta
        return (x > 1).where(1, x.relu())

    def hardtanh(self, min_val: float = -1, max_val: float = 1) -> Self:
        """self within [min_val, max_val]."""
        return self.clamp(min_val, max_val)

    def softsign(self) -> Self:
        """self / (1 + |self|)."""
        x = self._float()
        return x / (1 + x.abs())

    def erf(self) -> Self:
        """The error function, to 1.2e-7."""
        x = self._float()
        if x.dtype in (dtypes.float16, dtypes.bfloat16):
            return x.cast(dtypes.float32).erf().cast(x.dtype)
        size = (x < 0).where(-x, x)
        near = size < ERF_SMALL
        small = near.where(x, 0)
        square = small * small
        inner = small + small * (_polynomial(square, ERF_P) / _polynomial(square, ERF_Q))
        far = near.where(1, size)
        t = 1 / (1 + far * 0.5)
        outer = 1 - t * (_polynomial(t, ERFC_C) - far * far).exp()
        return near.where(inner, (x < 0).where(-outer, outer))


def _polynomial(x: T, coefficients: tuple[float, ...]) -> T:
    """The polynomial with the highest power's coefficient first."""
    result = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        result = result * x + coefficient
    return result
