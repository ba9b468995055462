"""Matrix products, convolutions and pooling: all are a product of two views and one sum.

A convolution multiplies sliding windows of its input with the weight, so it needs no op of its
own, and neither does its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, TypeVar

from compiler.dtype import DType, dtypes, least_upper_dtype
from tinyhw.core import DTypeLike, sum_dtype, to_dtype
from tinyhw.errors import ShapeError
from tinyhw.scattering import Scattering

Sizes = int | Sequence[int]
T = TypeVar("T", bound="Products")


class Products(Scattering):
    """Linear maps, and windows over images."""

    __slots__ = ()

    # ---- matrices ----
    def dot(self, w: Self, dtype: DTypeLike | None = None) -> Self:
        """The sum of products over the last axis of self and the last but one of w.

        (..., m, k) by (..., k, n) gives (..., m, n), leading axes broadcasting; vectors lack m
        or n. `dtype` is the type that the sum is taken and returned in.
        """
        x = self
        if not (x.ndim and w.ndim):
            raise ShapeError(f"Both sides of a matrix product need an axis: {x.shape}, {w.shape}.")
        inner = -min(w.ndim, 2)
        if x.shape[-1] != w.shape[inner]:
            raise ShapeError(
                f"Cannot multiply {x.shape} with {w.shape}: the last extent {x.shape[-1]} is not "
                f"{w.shape[inner]}."
            )
        if x.ndim > 1 and w.ndim > 1:
            x = x.unsqueeze(-2)
        wide = w.transpose(-1, inner) if w.ndim > 1 else w
        if self.ndim > 1 and w.ndim > 1:
            wide = wide.unsqueeze(-3)
        return _sum_of_products(x, wide, (-1,), dtype)

    def matmul(self, x: Self, reverse: bool = False, dtype: DTypeLike | None = None) -> Self:
        """self @ x."""
        return x.dot(self, dtype) if reverse else self.dot(x, dtype)

    def __matmul__(self, x: Self) -> Self:
        return self.matmul(x)

    def linear(self, weight: Self, bias: Self | None = None) -> Self:
        """self @ weight + bias; a weight of one axis scales."""
        x = self * weight if weight.ndim == 1 else self.dot(weight)
        return x if bias is None else x + bias

    @classmethod
    def einsum(cls, formula: str, *operands: Self, dtype: DTypeLike | None = None) -> Self:
        """The sum of products that `formula` names: "ij,jk->ik"."""
        inputs, arrow, output = formula.replace(" ", "").partition("->")
        terms = inputs.split(",")
        if len(terms) != len(operands):
            raise ShapeError(f"einsum {formula!r} names {len(terms)} of {len(operands)} tensors.")
        letters = sorted(set(inputs) - {","})
        if not arrow:
            output = "".join(c for c in letters if inputs.count(c) == 1)
        if not all(c.isalpha() for c in letters) or not set(output) <= set(letters):
            raise ShapeError(f"einsum cannot read the formula {formula!r}.")
        result: Self | None = None
        wide = dtype
        for term, x in zip(terms, operands, strict=True):
            aligned = x._aligned(term, letters, formula)
            result = aligned if result is None else result * aligned
        assert result is not None
        summed = tuple(i for i, c in enumerate(letters) if c not in output)
        total = result.sum(summed, dtype=wide) if summed else result
        kept = [c for c in letters if c in output]
        return total.permute(tuple(kept.index(c) for c in output))

    def _aligned(self, term: str, letters: list[str], formula: str) -> Self:
        """Axes named by `term` in the order of `letters`, with 1 for the others."""
        if len(term) != self.ndim:
            raise ShapeError(f"einsum {formula!r}: {term!r} does not name {self.ndim} axes.")
        x = self
        for c in sorted(set(term)):
            while term.count(c) > 1:
                a, b = term.index(c), term.rindex(c)
                x, term = x._diagonal(a, b), term[:b] + term[b + 1 :]
        x = x.permute(tuple(term.index(c) for c in sorted(term)))
        shape = iter(x.shape)
        return x.reshape(tuple(next(shape) if c in term else 1 for c in letters))

    def _diagonal(self, a: int, b: int) -> Self:
        """Axis a and b as the one axis a where both positions agree."""
        same = self._range_along(a).eq(self._range_along(b))
        return same.where(self, 0).sum(b, dtype=self.dtype)

    # ---- windows over the last axes ----
    def pool_windows(self, kernel: Sequence[int], stride: Sizes, dilation: Sizes) -> Self:
        """Sliding windows over the last axes: (..., out..., kernel...)."""
        rank = len(kernel)
        strides, dilations = _each(stride, rank, "stride"), _each(dilation, rank, "dilation")
        _check_windows(self.shape[self.ndim - rank :], kernel, strides, dilations)
        x = self.reshape((*self.shape, *(1,) * rank))
        axes = range(self.ndim - rank, self.ndim)
        return x.windows(axes, kernel, range(self.ndim, self.ndim + rank), strides, dilations)

    def conv2d(
        self,
        weight: Self,
        bias: Self | None = None,
        groups: int = 1,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        dtype: DTypeLike | None = None,
    ) -> Self:
        """Cross-correlation over as many axes as the weight has beyond two.

        self: (batch, groups*cin, *spatial); weight: (cout, cin, *kernel); bias: (cout,).
        padding: one amount, one for each axis, or (before, after) pairs starting at the last.
        """
        rank = weight.ndim - 2
        if self.ndim != weight.ndim or rank < 1:
            raise ShapeError(
                f"conv2d of {self.shape} with a weight of {weight.shape}: they need as many axes, "
                "at least 3."
            )
        kernel = [weight._fixed(axis) for axis in range(2, weight.ndim)]
        cout, cin = weight._fixed(0), weight._fixed(1)
        if self.shape[1] != groups * cin or cout % groups:
            raise ShapeError(
                f"conv2d of {self.shape} with a weight of {weight.shape} in {groups} groups: it "
                f"needs {groups * cin} input channels, and output channels that divide."
            )
        x = self.pad(_padding(padding, rank))
        strides, dilations = _each(stride, rank, "stride"), _each(dilation, rank, "dilation")
        _check_windows(x.shape[2:], kernel, strides, dilations)
        ones = (1,) * rank
        x = x.reshape((x.shape[0], groups, 1, cin, *x.shape[2:], *ones))
        axes, within = range(4, 4 + rank), range(4 + rank, 4 + 2 * rank)
        x = x.windows(axes, kernel, within, strides, dilations)
        w = weight.reshape((1, groups, cout // groups, cin, *ones, *kernel))
        y = _sum_of_products(x, w, (3, *within), dtype)
        y = y.reshape((x.shape[0], cout, *x.shape[4 : 4 + rank]))
        return y if bias is None else y + bias.reshape((1, cout, *ones))

    def conv_transpose2d(
        self,
        weight: Self,
        bias: Self | None = None,
        groups: int = 1,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
    ) -> Self:
        """The adjoint of conv2d; weight: (groups*cin, cout, *kernel)."""
        rank = weight.ndim - 2
        kernel = [weight._fixed(axis) for axis in range(2, weight.ndim)]
        strides, dilations = _each(stride, rank, "stride"), _each(dilation, rank, "dilation")
        extra = _each(output_padding, rank, "output_padding")
        w = weight.unflatten(0, (groups, -1)).transpose(1, 2)
        w = w.flip(tuple(range(3, w.ndim))).flatten(0, 1)
        x = self
        for axis, s in enumerate(strides, start=2):
            if s > 1:  # zeros between the elements
                n = x._fixed(axis)
                x = x.unsqueeze(axis + 1)
                x = x.pad([(0, s - 1) if a == axis + 1 else None for a in range(x.ndim)])
                x = x.flatten(axis, axis + 1)
                x = x.shrink([(0, (n - 1) * s + 1) if a == axis else None for a in range(x.ndim)])
        outer = [
            ((k - 1) * d - before, (k - 1) * d - after + more)
            for k, d, more, (before, after) in zip(
                kernel, dilations, extra, _pairs(padding, rank), strict=True
            )
        ]
        flat = [amount for pair in outer[::-1] for amount in pair]
        return x.conv2d(w, bias, groups, 1, dilation, flat)

    # ---- pooling ----
    def avg_pool2d(
        self,
        kernel_size: Sizes = (2, 2),
        stride: Sizes | None = None,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Self:
        """The mean of each window over the last axes."""
        kernel, x, step = self._pooled(kernel_size, stride, dilation, padding, ceil_mode, 0.0)
        total = x.pool_windows(kernel, step, dilation)
        axes = tuple(range(-len(kernel), 0))
        if count_include_pad and not ceil_mode:
            return total.mean(axes)
        # What ceil_mode adds behind the padding never counts.
        inside = self.const_like(1).pad(
            _padding(padding, len(kernel)), value=float(count_include_pad)
        )
        if ceil_mode:
            inside = inside.pad([(0, x._fixed(a) - inside._fixed(a)) for a in range(x.ndim)])
        counts = inside.pool_windows(kernel, step, dilation).sum(axes)
        return total.sum(axes) / counts

    def max_pool2d(
        self,
        kernel_size: Sizes = (2, 2),
        stride: Sizes | None = None,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        ceil_mode: bool = False,
    ) -> Self:
        """The greatest element of each window over the last axes."""
        least = self.dtype.min
        kernel, x, step = self._pooled(kernel_size, stride, dilation, padding, ceil_mode, least)
        windows = x.pool_windows(kernel, step, dilation)
        return windows.max(tuple(range(-len(kernel), 0)))

    def _pooled(
        self,
        kernel_size: Sizes,
        stride: Sizes | None,
        dilation: Sizes,
        padding: Sizes,
        ceil_mode: bool,
        fill: float,
    ) -> tuple[list[int], Self, Sizes]:
        """(kernel, padded tensor, stride) of a pooling."""
        kernel = _each(kernel_size, 2 if isinstance(kernel_size, int) else None, "kernel_size")
        rank = len(kernel)
        if rank > self.ndim:
            raise ShapeError(f"A window of {rank} axes does not fit into the shape {self.shape}.")
        step = kernel if stride is None else _each(stride, rank, "stride")
        pairs = _pairs(padding, rank)
        if ceil_mode:
            sizes = [self._fixed(self.ndim - rank + i) for i in range(rank)]
            wide = _each(dilation, rank, "dilation")
            pairs = [
                (before, after + _ceil_extra(n + before + after, n + before, k, s, d))
                for n, (before, after), k, s, d in zip(
                    sizes, pairs, kernel, step, wide, strict=True
                )
            ]
        amounts: list[tuple[int, int] | None] = [None] * (self.ndim - rank)
        return kernel, self.pad([*amounts, *pairs], value=fill), step


def _sum_of_products(a: T, b: T, axes: tuple[int, ...], dtype: DTypeLike | None) -> T:
    """The sum of a*b over `axes`. Half precision is multiplied and summed in float32."""
    result = least_upper_dtype(a.dtype, b.dtype)
    if dtype is not None:
        result = wide = to_dtype(dtype)
    else:
        wide = _accumulator(result)
        result = result if dtypes.is_float(result) else wide
    return (a.cast(wide) * b.cast(wide)).sum(axes, dtype=wide).cast(result)


def _accumulator(dtype: DType) -> DType:
    return dtypes.float32 if dtypes.is_float(dtype) and dtype.bits < 32 else sum_dtype(dtype)


def _each(sizes: Sizes, rank: int | None, name: str) -> list[int]:
    """One number for each axis."""
    given = [sizes] * (rank or 1) if isinstance(sizes, int) else list(sizes)
    if (rank is not None and len(given) != rank) or not all(isinstance(n, int) for n in given):
        raise ShapeError(f"{name} is one integer or {rank} of them, not {sizes!r}.")
    if any(n < (0 if name == "output_padding" else 1) for n in given):
        raise ShapeError(f"{name} must be at least 1 along each axis, not {sizes!r}.")
    return given


def _pairs(padding: Sizes, rank: int) -> list[tuple[int, int]]:
    """(before, after) of each window axis, first axis first."""
    if isinstance(padding, int):
        return [(padding, padding)] * rank
    given = list(padding)
    if len(given) == rank:
        return [(p, p) for p in given]
    if len(given) == 2 * rank:
        return [(given[i], given[i + 1]) for i in range(0, 2 * rank, 2)][::-1]
    raise ShapeError(
        f"padding is one amount, {rank} or {2 * rank} for {rank} axes, not {tuple(given)}."
    )


def _padding(padding: Sizes, rank: int) -> list[int]:
    """The flat form of a padding, last axis first."""
    return [amount for pair in _pairs(padding, rank)[::-1] for amount in pair]


def _check_windows(
    shape: Sequence[Any], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> None:
    for n, k, d in zip(shape, kernel, dilation, strict=True):
        if isinstance(n, int) and (k - 1) * d + 1 > n:
            raise ShapeError(
                f"A window of {k} elements, {d} apart, does not fit into an axis of {n}."
            )


def _ceil_extra(padded: int, limit: int, kernel: int, stride: int, dilation: int) -> int:
    """What to pad so that a last, partial window counts, if it starts before `limit`."""
    span = dilation * (kernel - 1) + 1
    count = math.ceil((padded - span) / stride) + 1
    if (count - 1) * stride >= limit:
        count -= 1
    return max(0, (count - 1) * stride + span - padded)
