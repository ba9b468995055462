"""The non-linear functions of neural networks.

Each is finite, with a finite gradient, for every finite input.
"""

from __future__ import annotations

import math
from typing import Self

from compiler.dtype import ConstType
from tinyhw.core import also_named, in_float32
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.gamma import Gamma

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


class Activations(Gamma):
    """Functions that layers put after a linear map."""

    __slots__ = ()

    def _decay(self) -> Self:
        """exp(-|self|), which never overflows; its slope at 0 is that from the right."""
        x = self._float()
        return (x < 0).where(x, -x).exp()

    def relu(self) -> Self:
        """max(self, 0); the gradient at 0 is 0."""
        return self.maximum(0)

    @in_float32
    def sigmoid(self) -> Self:
        """1 / (1 + exp(-self))."""
        decay = self._decay()
        return (self < 0).where(decay, 1) / (decay + 1)

    @in_float32
    def tanh(self) -> Self:
        """The hyperbolic tangent."""
        return 2 * (self._float() * 2).sigmoid() - 1

    @in_float32
    def sinh(self) -> Self:
        """The hyperbolic sine."""
        x = self._float()
        return (x.exp() - x.neg().exp()) / 2

    @in_float32
    def cosh(self) -> Self:
        """The hyperbolic cosine."""
        x = self._float()
        return (x.exp() + x.neg().exp()) / 2

    @in_float32
    def softplus(self, beta: float = 1.0) -> Self:
        """log(1 + exp(beta*self)) / beta."""
        x = self._float() * beta
        return ((x < 0).where(0, x) + (x._decay() + 1).log()) / beta

    @in_float32
    def logsigmoid(self) -> Self:
        """log(sigmoid(self))."""
        return -(-self).softplus()

    @in_float32
    def silu(self) -> Self:
        """self * sigmoid(self)."""
        return self * self.sigmoid()

    def swish(self) -> Self:
        """`silu`."""
        return self.silu()

    @in_float32
    def mish(self) -> Self:
        """self * tanh(softplus(self))."""
        return self * self.softplus().tanh()

    @in_float32
    def gelu(self, approximate: str = "tanh") -> Self:
        """self times the normal distribution's probability below it; "tanh" approximates that."""
        if approximate not in ("tanh", "none"):
            raise DtypeError(f"gelu's approximate is 'tanh' or 'none', not {approximate!r}.")
        x = self._float()
        if approximate == "none":
            return 0.5 * x * (1 + (x * math.sqrt(0.5)).erf())
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh())

    @in_float32
    def quick_gelu(self) -> Self:
        """self * sigmoid(1.702*self)."""
        return self * (self * 1.702).sigmoid()

    @in_float32
    def elu(self, alpha: float = 1.0) -> Self:
        """self above 0, else alpha*(exp(self) - 1)."""
        x = self._float()
        return (x > 0).where(x, alpha * ((x > 0).where(0, x).exp() - 1))

    @in_float32
    def celu(self, alpha: float = 1.0) -> Self:
        """self above 0, else alpha*(exp(self/alpha) - 1)."""
        x = self._float()
        return (x > 0).where(x, alpha * (((x > 0).where(0, x) / alpha).exp() - 1))

    @in_float32
    def selu(self, alpha: float = SELU_ALPHA, gamma: float = SELU_SCALE) -> Self:
        """gamma * elu(self, alpha)."""
        return gamma * self.elu(alpha)

    @in_float32
    @also_named(negative_slope="neg_slope")
    def leaky_relu(self, neg_slope: float = 0.01) -> Self:
        """self above 0, else neg_slope*self."""
        return (self > 0).where(self, neg_slope * self)

    def relu6(self) -> Self:
        """self within [0, 6]."""
        return (self > 6).where(6, self.relu())

    @in_float32
    def hardswish(self) -> Self:
        """self * relu6(self + 3) / 6."""
        return self * (self + 3).relu6() * (1 / 6)

    @in_float32
    def hardsigmoid(self, alpha: float = 1 / 6, beta: float = 0.5) -> Self:
        """alpha*self + beta within [0, 1]."""
        x = alpha * self + beta
        return (x > 1).where(1, x.relu())

    def hardtanh(self, min_val: float = -1, max_val: float = 1) -> Self:
        """self within [min_val, max_val]."""
        return self.clamp(min_val, max_val)

    @in_float32
    def softsign(self) -> Self:
        """self / (1 + |self|)."""
        x = self._float()
        return x / (1 + x.abs())

    def softshrink(self, lambd: float = 0.5) -> Self:
        """self moved by `lambd` towards 0, which is where all within it go."""
        return (self > lambd).where(self - lambd, (self < -lambd).where(self + lambd, 0))

    def hardshrink(self, lambd: float = 0.5) -> Self:
        """self, and 0 within ±lambd."""
        return ((self > lambd) | (self < -lambd)).where(self, 0)

    def tanhshrink(self) -> Self:
        """self - tanh(self)."""
        return self - self.tanh()

    def threshold(self, threshold: ConstType, value: ConstType) -> Self:
        """self above `threshold`, else `value`."""
        return (self <= threshold).where(value, self)

    def prelu(self, weight: Self) -> Self:
        """self above 0, else times weight: one number, or one for each channel of axis 1."""
        axis = min(1, self.ndim - 1)
        shape = tuple(weight.numel() if a == axis else 1 for a in range(self.ndim))
        return (self > 0).where(self, weight.reshape(shape if weight.numel() != 1 else ()) * self)

    def glu(self, dim: int = -1) -> Self:
        """The first half along `dim` times the sigmoid of the second."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        if not self.ndim or n % 2:
            raise ShapeError(f"glu halves an axis of even extent, not {self.shape} along {dim}.")
        value, gate = self.split(n // 2, axis)
        return value * gate.sigmoid()
