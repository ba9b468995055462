"""Pooling: what is in a window becomes one element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

from compiler.dtype import dtypes
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.products import Products, Sizes, each, padding_pairs


class Pooling(Products):
    """Means, maxima and norms of windows over the last axes."""

    __slots__ = ()

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
        pairs = padding_pairs(padding, len(kernel))
        keep: list[tuple[int, int] | None] = [None] * (self.ndim - len(kernel))
        inside = self.const_like(1).pad([*keep, *pairs], value=float(count_include_pad))
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
        return_indices: bool = False,
    ) -> Any:
        """The greatest element of each window over the last axes.

        With return_indices also where it stands first, counted in row-major order over those axes.
        """
        least = self.dtype.min
        kernel, x, step = self._pooled(kernel_size, stride, dilation, padding, ceil_mode, least)
        axes = tuple(range(-len(kernel), 0))
        windows = x.pool_windows(kernel, step, dilation)
        greatest = windows.max(axes)
        if not return_indices:
            return greatest
        rank = len(kernel)
        place = self._iota(math.prod(self._fixed(self.ndim - rank + i) for i in range(rank)))
        place = place.reshape((*(1,) * (self.ndim - rank), *self.shape[self.ndim - rank :]))
        nowhere = dtypes.int32.max
        places = place._pooled(kernel, stride, dilation, padding, ceil_mode, nowhere)[1]
        places = places.pool_windows(kernel, step, dilation)
        best = windows.detach().eq(greatest.detach().reshape((*greatest.shape, *(1,) * rank)))
        return greatest, (best | windows.isnan()).where(places, nowhere).min(axes)

    def max_unpool2d(
        self,
        indices: Self,
        kernel_size: Sizes = (2, 2),
        stride: Sizes | None = None,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        output_size: Any = None,
    ) -> Self:
        """The elements at the places that max_pool2d found them at, 0 elsewhere."""
        kernel = window_kernel(kernel_size)
        rank = len(kernel)
        if output_size is None:
            step = kernel if stride is None else each(stride, rank, "stride")
            gaps, pads = each(dilation, rank, "dilation"), padding_pairs(padding, rank)
            sizes = [
                (self._fixed(self.ndim - rank + i) - 1) * step[i] - sum(pads[i])
                + gaps[i] * (kernel[i] - 1) + 1
                for i in range(rank)
            ]
        else:
            sizes = list(output_size)[-rank:]
        lead = self.shape[: self.ndim - rank]
        flat, places = (t.reshape((*lead, -1)) for t in (self, indices))
        empty = self._constant(0)._broadcast_to((*lead, math.prod(sizes)))
        return empty.scatter(-1, places, flat).reshape((*lead, *sizes))

    def lp_pool2d(
        self, norm_type: float, kernel_size: Sizes = (2, 2), stride: Sizes | None = None,
        ceil_mode: bool = False,
    ) -> Self:
        """The p-norm of each window over the last axes."""
        if not norm_type > 0:
            raise DtypeError(f"lp_pool2d needs a norm above 0, not {norm_type}.")
        kernel = window_kernel(kernel_size)
        mean = self.pow(norm_type).avg_pool2d(kernel, stride, ceil_mode=ceil_mode)
        total = mean * math.prod(kernel)
        return (total.sign() * total.abs().relu()).pow(1 / norm_type)

    # ---- windows by the number of results ----
    def adaptive_avg_pool2d(self, output_size: Any) -> Self:
        """Means of as many windows over the last axes as `output_size` says (None: all)."""
        return self._adaptive(output_size, lambda x, here: here.where(x, 0).sum(-1, dtype=x.dtype)
                              / here.sum(-1).cast(x.dtype))

    def adaptive_max_pool2d(self, output_size: Any) -> Self:
        """Maxima of as many windows over the last axes as `output_size` says (None: all)."""
        return self._adaptive(output_size, lambda x, here: here.where(x, x.dtype.min).max(-1))

    def _adaptive(self, output_size: Any, combine: Callable[[Self, Self], Self]) -> Self:
        """Window i of `count` over n elements is from floor(i*n/count) to ceil((i+1)*n/count)."""
        sizes = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
        if len(sizes) > self.ndim or any(size is not None and size < 1 for size in sizes):
            raise ShapeError(f"Cannot pool {self.shape} to windows of {sizes}.")
        x = self
        for axis, count in enumerate(sizes, start=self.ndim - len(sizes)):
            n = x._fixed(axis)
            if count is None or count == n:
                continue
            window, place = x._iota(count).unsqueeze(-1), x._iota(n)
            here = (place >= window * n // count) & (place * count < (window + 1) * n)
            x = combine(x.transpose(axis, -1).unsqueeze(-2), here).transpose(axis, -1)
        return x

    # ---- windows as columns ----
    def im2col(
        self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
    ) -> Self:
        """Windows of images as columns, torch.nn.functional.unfold.

        (batch, channels, height, width) to (batch, channels*window, windows).
        """
        kernel = window_kernel(kernel_size)
        rank = len(kernel)
        if self.ndim != rank + 2:
            raise ShapeError(f"im2col takes images of {rank} axes, not the shape {self.shape}.")
        steps, wide = each(stride, rank, "stride"), each(dilation, rank, "dilation")
        x = self.pad([None, None, *padding_pairs(padding, rank)])
        blocks = _window_counts(x, [x._fixed(2 + i) for i in range(rank)], kernel, steps, wide)
        x = x.pool_windows(kernel, steps, wide)
        x = x.permute((0, 1, *range(2 + rank, x.ndim), *range(2, 2 + rank)))
        return x.reshape((self.shape[0], self._fixed(1) * math.prod(kernel), math.prod(blocks)))

    def fold(
        self,
        output_size: Sizes,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        stride: Sizes = 1,
    ) -> Self:
        """Columns added up where their windows lie in an image; the adjoint of `im2col`.

        (batch, channels*window, windows) to (batch, channels, *output_size); the batch may lack.
        """
        kernel = window_kernel(kernel_size)
        rank = len(kernel)
        sizes = each(output_size, rank, "output_size")
        steps, wide = each(stride, rank, "stride"), each(dilation, rank, "dilation")
        pairs = padding_pairs(padding, rank)
        padded = [n + before + after for n, (before, after) in zip(sizes, pairs, strict=True)]
        blocks = _window_counts(self, padded, kernel, steps, wide)
        x = self.unsqueeze(0) if self.ndim == 2 else self
        window = math.prod(kernel)
        if x.ndim != 3 or x._fixed(1) % window or x._fixed(2) != math.prod(blocks):
            raise ShapeError(
                f"fold into {sizes} takes columns of a multiple of {window}, "
                f"{math.prod(blocks)} of them, not the shape {self.shape}."
            )
        channels = x._fixed(1) // window
        x = x.reshape((x.shape[0], channels, *kernel, *blocks))
        for i, (n, k, s, d) in enumerate(zip(padded, kernel, steps, wide, strict=True)):
            axis, reach = 2 + rank + i, (k - 1) * d
            x = x._spread(axis, s).pad(
                [(reach, reach) if a == axis else None for a in range(x.ndim)]
            )
            extent = x._fixed(axis) - reach
            x = x._derive(x._node.skew(axis, 2 + i, -d, reach, extent))
            x = x.pad([(0, n - extent) if a == axis else None for a in range(x.ndim)])
        x = x.sum(tuple(range(2, 2 + rank)), dtype=self.dtype)
        inside = [(before, before + n) for n, (before, _) in zip(sizes, pairs, strict=True)]
        x = x.shrink([None, None, *inside])
        return x.squeeze(0) if self.ndim == 2 else x

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
        kernel = window_kernel(kernel_size)
        rank = len(kernel)
        if rank > self.ndim:
            raise ShapeError(f"A window of {rank} axes does not fit into the shape {self.shape}.")
        step = kernel if stride is None else each(stride, rank, "stride")
        pairs = padding_pairs(padding, rank)
        if ceil_mode:
            sizes = [self._fixed(self.ndim - rank + i) for i in range(rank)]
            wide = each(dilation, rank, "dilation")
            pairs = [
                (before, after + _ceil_extra(n + before + after, n + before, k, s, d))
                for n, (before, after), k, s, d in zip(
                    sizes, pairs, kernel, step, wide, strict=True
                )
            ]
        amounts: list[tuple[int, int] | None] = [None] * (self.ndim - rank)
        return kernel, self.pad([*amounts, *pairs], value=fill), step


def window_kernel(kernel_size: Sizes) -> list[int]:
    """The extents of a window; one number is for two axes."""
    return each(kernel_size, 2 if isinstance(kernel_size, int) else None, "kernel_size")


def _window_counts(
    x: Pooling, sizes: list[int], kernel: list[int], stride: list[int], dilation: list[int]
) -> list[int]:
    """How many windows fit along each axis; at least one does."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(span > n for span, n in zip(spans, sizes, strict=True)):
        raise ShapeError(f"Windows that span {spans} do not fit into {sizes} for {x.shape}.")
    return [(n - span) // s + 1 for n, span, s in zip(sizes, spans, stride, strict=True)]


def _ceil_extra(padded: int, limit: int, kernel: int, stride: int, dilation: int) -> int:
    """What to pad so that a last, partial window counts, if it starts before `limit`."""
    span = dilation * (kernel - 1) + 1
    count = math.ceil((padded - span) / stride) + 1
    if (count - 1) * stride >= limit:
        count -= 1
    return max(0, (count - 1) * stride + span - padded)
