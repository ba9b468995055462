"""Reductions: many elements become one; and what is built on them along an axis.

`axis` is one axis, several, or None for all; `keepdim` leaves them with extent 1. Sums of integers
have at least 32 bits; half precision is summed in float32.
"""

from __future__ import annotations

import math
from typing import Self

from compiler.dtype import dtypes
from compiler.ir import Extent, Op
from tinyhw.activations import Activations
from tinyhw.core import (
    Axis,
    DTypeLike,
    also_named,
    float_dtype,
    in_float32,
    sum_dtype,
    to_dtype,
)
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.movement import product


class Reductions(Activations):
    """Sums, extremes, moments, and what normalises along an axis."""

    __slots__ = ()

    def _reduce(self, op: Op, axes: tuple[int, ...], keepdim: bool) -> Self:
        """`op` over checked axes."""
        if not self.ndim:
            return self
        reduced = self._derive(self._node.reduce(op, axes))
        return reduced if keepdim else reduced._without(axes)

    def _without(self, axes: tuple[int, ...]) -> Self:
        """Reshaped to leave out axes of extent 1."""
        return self.reshape(tuple(n for axis, n in enumerate(self.shape) if axis not in axes))

    @also_named(dim="axis")
    def sum(
        self, axis: Axis = None, keepdim: bool = False, dtype: DTypeLike | None = None
    ) -> Self:
        """The sum; `dtype` is the type it is taken and returned in."""
        wanted = sum_dtype(self.dtype) if dtype is None else to_dtype(dtype)
        return self.cast(wanted)._reduce(Op.ADD, self._axes(axis), keepdim)

    @also_named(dim="axis")
    def prod(
        self, axis: Axis = None, keepdim: bool = False, dtype: DTypeLike | None = None
    ) -> Self:
        """The product; `dtype` is the type it is taken and returned in."""
        wanted = sum_dtype(self.dtype) if dtype is None else to_dtype(dtype)
        return self.cast(wanted)._reduce(Op.MUL, self._axes(axis), keepdim)

    @also_named(dim="axis")
    def max(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The greatest element, NaN if there is one; equal ones share the gradient."""
        axes = self._axes(axis)
        self._require_elements("max", axes)
        if self.dtype is dtypes.bool:
            return self.cast(dtypes.uint8)._reduce(Op.MAX, axes, keepdim).cast(dtypes.bool)
        return self._reduce(Op.MAX, axes, keepdim)

    @also_named(dim="axis")
    def min(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The least element, NaN if there is one; equal ones share the gradient."""
        self._require_elements("min", self._axes(axis))
        return self.descending().max(axis, keepdim).descending()

    def _require_elements(self, operation: str, axes: tuple[int, ...]) -> None:
        if self.ndim and any(self.shape[axis] == 0 for axis in axes):
            raise ShapeError(f"{operation} over no elements: the shape is {self.shape}.")

    @also_named(dim="axis")
    def mean(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """The mean, as a float."""
        result = float_dtype(self.dtype)
        wide = dtypes.float32 if result.bits < 32 else result
        total = self.cast(wide).sum(axis, keepdim)
        return (total / self._count(axis)).cast(result)

    def _count(self, axis: Axis) -> float | Self:
        """How many elements a reduction over `axis` combines."""
        return self._as_operand(product(self.shape[a] for a in self._axes(axis) if self.ndim))

    def _as_operand(self, extent: Extent) -> float | Self:
        """An extent as a factor for floats."""
        if isinstance(extent, int):
            return float(extent)
        return self._wrap(extent, self._device).cast(dtypes.default_float)

    @also_named(dim="axis")
    def var(
        self, axis: Axis = None, keepdim: bool = False, correction: int = 1, *,
        unbiased: bool | None = None,
    ) -> Self:
        """The variance, divided by the count less `correction`; unbiased: less 1 or 0."""
        return self.var_mean(axis, keepdim, _correction(correction, unbiased))[0]

    @also_named(dim="axis")
    def var_mean(
        self, axis: Axis = None, keepdim: bool = False, correction: int = 1
    ) -> tuple[Self, Self]:
        """The variance and the mean."""
        result = float_dtype(self.dtype)
        x = self.cast(dtypes.float32 if result.bits < 32 else result)
        mean = x.mean(axis, keepdim=True)
        squares = (x - mean).square().sum(axis, keepdim)
        count = self._count(axis)
        if isinstance(count, float):
            divisor: float | Self = max(0.0, count - correction)
        else:
            divisor = (count - correction).maximum(0)
        shaped = mean if keepdim or not x.ndim else mean._without(self._axes(axis))
        return (squares / divisor).cast(result), shaped.cast(result)

    @also_named(dim="axis")
    def std(
        self, axis: Axis = None, keepdim: bool = False, correction: int = 1, *,
        unbiased: bool | None = None,
    ) -> Self:
        """The square root of the variance."""
        return self.var(axis, keepdim, _correction(correction, unbiased)).sqrt()

    @also_named(dim="axis")
    def std_mean(
        self, axis: Axis = None, keepdim: bool = False, correction: int = 1
    ) -> tuple[Self, Self]:
        """The standard deviation and the mean."""
        variance, mean = self.var_mean(axis, keepdim, correction)
        return variance.sqrt(), mean

    @also_named(dim="axis")
    def any(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """Whether some element is not zero."""
        return self.cast(dtypes.bool)._count_true(axis, keepdim).ne(0)

    @also_named(dim="axis")
    def all(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """Whether no element is zero."""
        return self.cast(dtypes.bool).logical_not().any(axis, keepdim).logical_not()

    def _count_true(self, axis: Axis, keepdim: bool) -> Self:
        return self.cast(dtypes.int32)._reduce(Op.ADD, self._axes(axis), keepdim)

    # ---- where the extremes are ----
    @also_named(dim="axis")
    def argmax(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The position of the first greatest element along `axis`, or in the flat tensor."""
        if axis is None:
            flat = self.flatten().argmax(0)
            return flat.reshape((1,) * self.ndim) if keepdim else flat
        axis = self._axis(axis)
        self._require_elements("argmax", (axis,))
        if not self.ndim:
            return self.const_like(0, dtypes.default_int)
        x = self.detach()
        best = x.eq(x.max(axis, keepdim=True)) | x.isnan()
        n = self._fixed(axis)
        from_end = n - self._range_along(axis)
        return n - best.where(from_end, 0).max(axis, keepdim)

    @also_named(dim="axis")
    def argmin(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The position of the first least element along `axis`, or in the flat tensor."""
        x = self.cast(dtypes.uint8) if self.dtype is dtypes.bool else self
        return x.descending().argmax(axis, keepdim)

    def _range_along(self, axis: int) -> Self:
        """0, 1, 2, ... along `axis`, in a shape that broadcasts with this tensor's."""
        positions = self._iota(self.shape[axis])
        return positions.reshape(tuple(n if a == axis else 1 for a, n in enumerate(self.shape)))

    def _iota(self, extent: Extent) -> Self:
        """0, 1, 2, ..., extent-1 on this tensor's device."""
        from compiler.ir import Node

        return self._wrap(Node.iota(extent).cast(dtypes.default_int), self._device)

    # ---- normalising ----
    def _shifted(self, axis: Axis) -> Self:
        """Less the maximum, so that no exponential overflows."""
        x = self._float()
        return x - x.detach()._reduce(Op.MAX, self._axes(axis), keepdim=True)

    @also_named(dim="axis")
    def softmax(self, axis: int = -1, dtype: DTypeLike | None = None) -> Self:
        """exp(self), scaled to sum to 1 along `axis`."""
        return (self if dtype is None else self.cast(dtype))._softmax(axis)

    @in_float32
    def _softmax(self, axis: int) -> Self:
        powers = self._shifted(axis).exp()
        return powers / powers.sum(axis, keepdim=True)

    @also_named(dim="axis")
    def softmin(self, axis: int = -1, dtype: DTypeLike | None = None) -> Self:
        """exp(-self), scaled to sum to 1 along `axis`."""
        return (-self).softmax(axis, dtype)

    @also_named(dim="axis")
    def log_softmax(self, axis: int = -1, dtype: DTypeLike | None = None) -> Self:
        """log(softmax(self))."""
        return (self if dtype is None else self.cast(dtype))._log_softmax(axis)

    @in_float32
    def _log_softmax(self, axis: int) -> Self:
        shifted = self._shifted(axis)
        return shifted - shifted.exp().sum(axis, keepdim=True).log()

    @in_float32
    @also_named(dim="axis")
    def logsumexp(self, axis: Axis = None, keepdim: bool = False) -> Self:
        """log(sum(exp(self))); of nothing, -inf."""
        x = self._float()
        most = x.detach()._reduce(Op.MAX, self._axes(axis), keepdim=True)
        most = most.isinf().where(0, most)
        result = (x - most).exp().sum(axis, keepdim=True).log() + most
        return result if keepdim or not self.ndim else result._without(self._axes(axis))

    @in_float32
    def layernorm(self, axis: int | tuple[int, ...] = -1, eps: float = 1e-5) -> Self:
        """Shifted and scaled to mean 0 and variance 1 over `axis`."""
        centred = self - self.mean(axis, keepdim=True)
        return centred * (centred.square().mean(axis, keepdim=True) + eps).rsqrt()

    def batchnorm(
        self,
        weight: Self | None,
        bias: Self | None,
        mean: Self,
        invstd: Self,
        axis: int | tuple[int, ...] = 1,
    ) -> Self:
        """(self - mean) * invstd * weight + bias, these having the extents of `axis`."""
        axes = self._axes(axis)
        shape = tuple(n if a in axes else 1 for a, n in enumerate(self.shape))
        scale = invstd if invstd.ndim == len(axes) else invstd.reshape(shape)
        x = self - mean.reshape(shape)
        x = x * scale.reshape(shape) * (1 if weight is None else weight.reshape(shape))
        return x if bias is None else x + bias.reshape(shape)

    @in_float32
    def normalize(self, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Self:
        """self divided by its p-norm along `dim`."""
        if p <= 0 or math.isinf(p):
            raise DtypeError(f"normalize needs a finite p above 0, not {p}.")
        size = self.square().sum(dim, keepdim=True).sqrt() if p == 2 else (
            self.abs().pow(p).sum(dim, keepdim=True).pow(1 / p)
        )
        return self / size.maximum(eps)


def _wide(x: Reductions) -> DTypeLike:
    """The type in which half precision is summed before the last rounding."""
    return dtypes.float32 if x.dtype.bits < 32 else x.dtype


def _correction(correction: int, unbiased: bool | None) -> int:
    if unbiased is not None and correction != 1:
        raise ShapeError(f"unbiased={unbiased} and correction={correction} exclude each other.")
    return correction if unbiased is None else int(unbiased)
