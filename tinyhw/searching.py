"""Where values lie among others: searches in sorted tensors, membership, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from compiler.dtype import ConstType, dtypes
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.scattering import Scattering


class Searching(Scattering):
    """Questions about values, answered by comparing."""

    __slots__ = ()

    def searchsorted(self, values: Self | ConstType, right: bool = False) -> Self:
        """Before which element of this ascending tensor each value belongs, as int32.

        Along the last axis; the others are those of `values`, unless self is a vector. A value
        that is there belongs before the first equal element, with `right` behind the last.
        """
        sorted_, given = self._operands_apart(self._operand(values))
        if sorted_.ndim == 1:
            return sorted_._not_above(given.detach(), right)
        if sorted_.ndim < 1 or sorted_.shape[:-1] != given.shape[:-1]:
            raise ShapeError(
                f"searchsorted in {self.shape} takes values of the same axes but the last, not of "
                f"the shape {given.shape}."
            )
        all_, wanted = sorted_.unsqueeze(-2), given.unsqueeze(-1)
        behind = (all_ > wanted) if right else (all_ >= wanted)
        return behind.logical_not().cast(dtypes.int32).sum(-1)

    def bucketize(self, boundaries: Self, right: bool = False) -> Self:
        """In which of the intervals between ascending boundaries each element lies, as int32."""
        if boundaries.ndim != 1:
            raise ShapeError(f"bucketize takes a vector of boundaries, not {boundaries.shape}.")
        return boundaries.searchsorted(self, right)

    def _operands_apart(self, other: Self) -> tuple[Self, Self]:
        """Both in the type that holds both, in their own shapes."""
        both = self._promoted(other)
        return both[0], both[1]

    def isin(self, test_elements: Self | ConstType, invert: bool = False) -> Self:
        """Where an element is one of `test_elements`, or with `invert` none of them."""
        given, known = self._operands_apart(self._operand(test_elements))
        found = given.unsqueeze(-1).eq(known.flatten()).any(-1)
        return found.logical_not() if invert else found

    def histc(self, bins: int = 100, min: float = 0, max: float = 0) -> Self:
        """How many elements lie in each of `bins` equal intervals of [min, max], as a float.

        Others do not count. If min and max are equal, the least and greatest element stand for
        them, or one below and above where those are equal, too.
        """
        if bins < 1 or min > max:
            raise ShapeError(
                f"histc takes at least one bin and a min up to max, not {bins}, {min} and {max}."
            )
        if not dtypes.is_float(self.dtype):
            raise DtypeError(f"histc counts floats, not {self.dtype}.")
        x = self.detach().flatten()
        low, high = (x.min(), x.max()) if min == max else (x._constant(min), x._constant(max))
        same = low.eq(high)
        low, high = same.where(low - 1, low), same.where(high + 1, high)
        place = ((x - low) / (high - low) * bins).floor()
        place = x.eq(high).where(bins - 1, place)
        inside = (x >= low) & (x <= high)
        hit = place.unsqueeze(-1).eq(x._iota(bins).cast(x.dtype)) & inside.unsqueeze(-1)
        return hit.sum(0).cast(self.dtype)

    def unique_consecutive(self, return_inverse: bool = False, return_counts: bool = False) -> Any:
        """The flat tensor without elements that equal the one before; how many is read now.

        Then, if asked for, the place of each element among them, and how often each repeats.
        """
        x = self.detach().flatten()
        n = x._fixed(0)
        first = x.ne(x._one_later(0)) | x._iota(n).eq(0) if n else x.ne(x)
        starts = first.nonzero().flatten()
        found: list[Any] = [x._at(starts)]
        if return_inverse:
            found.append((first.cast(dtypes.int32).cumsum(0) - 1).reshape(self.shape))
        if return_counts:
            found.append(starts.pad(((0, 1),), value=n).diff() if n else starts)
        return found[0] if len(found) == 1 else tuple(found)

    # ---- what is common, what is in the middle ----
    def mode(self, dim: int = -1, keepdim: bool = False) -> tuple[Self, Self]:
        """The most frequent element along `dim`, the least of several, and its last position.

        Compares all pairs; a NaN is no other NaN's equal.
        """
        axis = self._axis(dim)
        if not self.ndim:
            return self, self.const_like(0, dtypes.int32)
        if self.shape[axis] == 0:
            raise ShapeError(f"mode over no elements: the shape is {self.shape}.")
        rows = self.detach().transpose(axis, -1)
        count = rows.unsqueeze(-1).eq(rows.unsqueeze(-2)).cast(dtypes.int32).sum(-1)
        often = count.eq(count.max(-1, keepdim=True))
        least = often.where(rows, self.dtype.max).min(-1, keepdim=True)
        order = (often & rows.eq(least)).where(rows._range_along(rows.ndim - 1), 0)
        place = order.max(-1, keepdim=True).transpose(axis, -1)
        found = self.gather(axis, place)
        return (found, place) if keepdim else (found.squeeze(axis), place.squeeze(axis))

    def nanmedian(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower median of what is no NaN: of all elements, or with its position of `dim`."""
        if dim is None:
            return self.flatten().nanmedian(0)[0]
        axis = self._axis(dim)
        values, order = self.sort(axis)
        if not self.ndim:
            return values, order
        place = (self._counted(axis) - 1).maximum(0) >> 1
        found, where = values.gather(axis, place), order.gather(axis, place)
        return (found, where) if keepdim else (found.squeeze(axis), where.squeeze(axis))

    def nanquantile(
        self, q: float | Sequence[float], dim: int | None = None, keepdim: bool = False,
        interpolation: str = "linear",
    ) -> Self:
        """`quantile` of what is no NaN; NaN where nothing else is."""
        if isinstance(q, Sequence):
            parts = [self.nanquantile(part, dim, keepdim, interpolation) for part in q]
            return parts[0].stack(*parts[1:])
        if not 0 <= q <= 1:
            raise ShapeError(f"A quantile lies in [0, 1], not at {q}.")
        if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
            raise ShapeError(f"nanquantile has no interpolation {interpolation!r}.")
        x = self._float() if dim is not None else self._float().flatten()
        axis = x._axis(0 if dim is None else dim)
        values = x.sort(axis)[0]
        at = (x._counted(axis) - 1).maximum(0).cast(x.dtype) * q
        below, above = at.floor(), at.ceil()
        if interpolation in ("lower", "higher", "nearest"):
            below = above = {"lower": below, "higher": above, "nearest": at.round()}[interpolation]
        low, high = (values.gather(axis, p.cast(dtypes.int32)) for p in (below, above))
        weight = at - below if interpolation == "linear" else 0.5
        result = low if below is above else low.lerp(high, weight)
        if dim is None:
            return result.reshape((1,) * self.ndim if keepdim else ())
        return result if keepdim else result.squeeze(axis)

    def _counted(self, axis: int) -> Self:
        """How many elements along `axis` are no NaN."""
        return self.isnan().logical_not().cast(dtypes.int32).sum(axis, keepdim=True)

    def index_reduce(
        self, dim: int, index: Self, source: Self, reduce: str, include_self: bool = True
    ) -> Self:
        """`scatter_reduce` of rows of `source`, at the positions `index` along `dim`.

        reduce: "prod", "mean", "amax" or "amin".
        """
        axis = self._axis(dim)
        if reduce not in ("prod", "mean", "amax", "amin") or index.ndim != 1:
            raise ShapeError(
                f"index_reduce takes a vector of positions and 'prod', 'mean', 'amax' or 'amin', "
                f"not {index.shape} and {reduce!r}."
            )
        shape = tuple(n if a == axis else 1 for a, n in enumerate(source.shape))
        rows = index.reshape(shape)._broadcast_to(source.shape)
        return self.scatter_reduce(axis, rows, source, reduce, include_self)

    def renorm(self, p: float, dim: int, maxnorm: float) -> Self:
        """self with each slice along `dim` scaled down to a p-norm of at most `maxnorm`."""
        axis = self._axis(dim)
        if p <= 0 or maxnorm < 0:
            raise ShapeError(f"renorm takes a p above 0 and a maxnorm from 0, not {p}, {maxnorm}.")
        others = tuple(a for a in range(self.ndim) if a != axis)
        size = self.abs().pow(p).sum(others, keepdim=True).pow(1 / p)
        return self * (size > maxnorm).where(maxnorm / (size + 1e-7), 1)
