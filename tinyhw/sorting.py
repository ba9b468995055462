"""Sorting, and what follows from an order: the k greatest, medians, unique values, and extremes.

Values are compared as integers of the same order (NaN is the greatest of all), so that one stable
sort serves every type and direction. Up to RANK_BLOCK elements, the place of an element is the
number of those that come before it, counted by comparing all pairs; longer axes are sorted in such
blocks, which are then merged in pairs: each place of the result bisects how many elements of the
first block come before it. No step depends on the data, so all of it can be captured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from compiler.dtype import dtypes
from compiler.ir import Op
from tinyhw.core import also_named
from tinyhw.errors import DtypeError, IndexOutOfRange, ShapeError
from tinyhw.indexing import Indexing

RANK_BLOCK = 512  # elements that are sorted by comparing all pairs


class Sorting(Indexing):
    """Orders along an axis."""

    __slots__ = ()

    def _sort_keys(self, descending: bool) -> Self:
        """Integers that ascend as the elements do (or descend)."""
        x = self.detach()
        if x.dtype is dtypes.bool:
            keys = x.cast(dtypes.uint8)
        elif dtypes.is_float(x.dtype):
            wide = x._wide_float()
            whole = dtypes.int64 if wide.dtype is dtypes.float64 else dtypes.int32
            bits = wide.eq(0).where(0, wide).contiguous().bitcast(whole)  # 0.0 equals -0.0
            keys = bits ^ ((bits >> (whole.bits - 1)) & whole.max)
            keys = wide.isnan().where(whole.max, keys)
        else:
            keys = x
        return keys.bitwise_not() if descending else keys

    def _order(self, descending: bool) -> Self:
        """The positions along the last axis, sorted stably by their elements."""
        n = self._fixed(self.ndim - 1)
        keys = self._sort_keys(descending).contiguous()
        if n <= RANK_BLOCK:
            return keys._order_by_rank()
        blocks = 1 << math.ceil(math.log2(n / RANK_BLOCK))
        size = -(-n // blocks)
        parts = keys._blocks_of(size, keys.dtype.max)
        order = parts._order_by_rank()
        keys = parts.gather(-1, order).contiguous()
        order = order + (order._range_along(order.ndim - 2) * size)
        while size < blocks * parts._fixed(parts.ndim - 1):
            shape = (-1, 2 * size)
            places = keys.reshape(shape)._merge_places(size)
            keys = keys.reshape(shape).gather(-1, places).contiguous()
            order = order.contiguous().reshape(shape).gather(-1, places)
            size *= 2
        return order.reshape((*self.shape[:-1], size))._part(self.ndim - 1, 0, n)

    def _order_by_rank(self) -> Self:
        """`_order` of keys, by comparing all pairs."""
        place = self._range_along(self.ndim - 1)
        one, other = self.unsqueeze(-1), self.unsqueeze(-2)
        earlier = place.unsqueeze(-2) < place.unsqueeze(-1)
        before = (other < one) | (other.eq(one) & earlier)
        rank = before.sum(-1).contiguous()
        return rank.unsqueeze(-2).eq(place.unsqueeze(-1)).where(place.unsqueeze(-2), 0).sum(-1)

    def _merge_places(self, size: int) -> Self:
        """For each place of (rows, 2*size), whose halves ascend, where its element comes from."""
        flat, k = self.flatten(), self._range_along(1)._broadcast_to(self.shape)
        row = self._range_along(0) * (2 * size)
        low, high = (k - size).maximum(0), k.minimum(size)  # of the elements from the first half
        for _ in range(size.bit_length()):
            middle = (low + high) >> 1
            first = flat._at(row + middle) <= flat._at(row + size + k - 1 - middle)
            undecided = low < high
            low, high = (
                (undecided & first).where(middle + 1, low),
                (undecided & first.logical_not()).where(middle, high),
            )
        rest = k - low
        first = flat._at(row + low) <= flat._at(row + size + rest)
        return ((low < size) & ((rest >= size) | first)).where(low, size + rest)

    def sort(self, dim: int = -1, descending: bool = False) -> tuple[Self, Self]:
        """The elements along `dim` in order, and their positions; equal ones keep their order."""
        axis = self._axis(dim)
        if not self.ndim or self.numel() == 0:
            return self, self.const_like(0, dtypes.int32)
        order = self.argsort(axis, descending)
        return self.gather(axis, order), order

    def argsort(self, dim: int = -1, descending: bool = False) -> Self:
        """The positions that sort the elements along `dim`; equal ones keep their order."""
        axis = self._axis(dim)
        if not self.ndim or self.numel() == 0:
            return self.const_like(0, dtypes.int32)
        return self.transpose(axis, -1)._order(descending).transpose(axis, -1).contiguous()

    def msort(self) -> Self:
        """The elements along the first axis in order."""
        return self.sort(0)[0]

    @also_named(sorted="sorted_")
    def topk(
        self, k: int, dim: int = -1, largest: bool = True, sorted_: bool = True
    ) -> tuple[Self, Self]:
        """The k greatest (or least) elements along `dim`, in order, and their positions."""
        if not sorted_:
            raise DtypeError("topk gives its elements sorted; sorted_=False is not supported.")
        axis = self._axis(dim)
        n = self._fixed(axis)
        if not 0 <= k <= n:
            raise IndexOutOfRange(f"topk takes from 0 to {n} elements along axis {dim}, not {k}.")
        if not self.ndim:
            return self.sort()
        order = self.argsort(axis, largest)._part(axis, 0, k)
        return self.gather(axis, order), order

    # ---- values at places in the order ----
    def kthvalue(self, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Self, Self]:
        """The k-th least element along `dim` (the first is 1) and its position."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        if not 1 <= k <= n:
            raise IndexOutOfRange(f"kthvalue takes k from 1 to {n} along axis {dim}, not {k}.")
        values, order = self.sort(axis)
        if not self.ndim:
            return values, order
        found = values._part(axis, k - 1, k), order._part(axis, k - 1, k)
        return found if keepdim else (found[0].squeeze(axis), found[1].squeeze(axis))

    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower median, NaN if there is one: of all elements, or with its position of `dim`."""
        if dim is None:
            return self.flatten().median(0)[0]
        axis = self._axis(dim)
        n = self._fixed(axis)
        values, order = self.kthvalue((n + 1) // 2, axis, keepdim)
        if not dtypes.is_float(self.dtype):
            return values, order
        last, place = self.kthvalue(n, axis, keepdim)
        return last.isnan().where(last, values), last.isnan().where(place, order)

    def quantile(
        self, q: float | Sequence[float], dim: int | None = None, keepdim: bool = False,
        interpolation: str = "linear",
    ) -> Self:
        """The value below which the part q of the elements along `dim` (or of all) lies.

        Of several parts, in a list, the values along a new first axis.
        """
        if isinstance(q, Sequence):
            parts = [self.quantile(part, dim, keepdim, interpolation) for part in q]
            return parts[0].stack(*parts[1:])
        if not 0 <= q <= 1:
            raise ShapeError(f"A quantile lies in [0, 1], not at {q}.")
        x = self.flatten() if dim is None else self
        axis = 0 if dim is None else self._axis(dim)
        values = x._float().sort(axis)[0]
        n = values._fixed(axis)
        at = q * (n - 1)
        places = {
            "linear": (math.floor(at), math.ceil(at), at - math.floor(at)),
            "lower": (math.floor(at), math.floor(at), 0.0),
            "higher": (math.ceil(at), math.ceil(at), 0.0),
            "nearest": (round(at), round(at), 0.0),
            "midpoint": (math.floor(at), math.ceil(at), 0.5),
        }
        if interpolation not in places:
            raise ShapeError(f"interpolation is one of {', '.join(places)}, not {interpolation!r}.")
        below, above, weight = places[interpolation]
        low, high = (values._part(axis, p, p + 1) for p in (below, above))
        result = low if below == above else low.lerp(high, weight)
        last = values._part(axis, n - 1, n)
        result = last.isnan().where(last, result)
        if dim is None:
            return result.reshape((1,) * self.ndim if keepdim else ())
        return result if keepdim else result.squeeze(axis)

    def unique(
        self, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
    ) -> Any:
        """The different elements in ascending order; how many they are is read now.

        Then, if asked for, the place of each element among them, and how often each occurs.
        """
        if not sorted:
            raise DtypeError("unique gives its elements sorted; sorted=False is not supported.")
        values, order = self.detach().flatten().sort()
        n = values._fixed(0)
        before = values._one_later(0) if n else values
        first = values.ne(before) | values._iota(n).eq(0)
        starts = first.nonzero().flatten()
        count = starts._fixed(0)
        found: list[Any] = [values._at(starts)]
        if return_inverse:
            group = first.cast(dtypes.int32).cumsum(0) - 1
            found.append(group.gather(0, order.argsort()).reshape(self.shape))
        if return_counts:
            found.append(starts.pad(((0, 1),), value=n).diff() if count else starts)
        return found[0] if len(found) == 1 else tuple(found)

    # ---- running extremes ----
    @also_named(dim="axis")
    def cummax(self, axis: int = 0) -> tuple[Self, Self]:
        """The greatest element up to each one along `axis` (NaN is), and where it stands first."""
        axis = self._axis(axis)
        if not self.ndim or self.numel() == 0:
            return self, self.const_like(0, dtypes.int32)
        x = self.detach().transpose(axis, -1)
        x = x.cast(dtypes.uint8) if x.dtype is dtypes.bool else x
        before = x._running(Op.MAX)._one_later(x.dtype.min)
        place = x._range_along(x.ndim - 1)
        new = (x > before) | place.eq(0) | (x.isnan() & before.isnan().logical_not())
        order = new.where(place, 0)._running(Op.MAX).transpose(axis, -1).contiguous()
        return self.gather(axis, order), order

    @also_named(dim="axis")
    def cummin(self, axis: int = 0) -> tuple[Self, Self]:
        """`cummax` of the least elements."""
        x = self.cast(dtypes.uint8) if self.dtype is dtypes.bool else self
        order = x.descending().cummax(axis)[1]
        return (self.gather(self._axis(axis), order) if self.ndim else self), order
