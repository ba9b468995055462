"""Writing at positions: the adjoint of indexing, as new tensors.

There is no scatter on the device. Each element of the result looks for the positions that name it,
which compares every position with every place along the indexed axis; of several that name one
place, the last counts, or all are combined in their order. Positions outside are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from compiler.dtype import ConstType, dtypes
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.movement import product
from tinyhw.sorting import Sorting

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


class Scattering(Sorting):
    """Copies of a tensor with other values at some positions."""

    __slots__ = ()

    # ---- along one axis ----
    def scatter(
        self, dim: int, index: Self, src: Self | ConstType, reduce: str | None = None
    ) -> Self:
        """self with src[i, j, ...] at the position index[i, j, ...] along `dim`.

        reduce: None writes, "add" and "multiply" combine a number with what is there.
        """
        if reduce not in (None, "add", "multiply"):
            raise ShapeError(f"reduce is None, 'add' or 'multiply', not {reduce!r}.")
        if isinstance(src, Scattering):
            if reduce is not None:
                raise DtypeError("scatter reduces numbers only; use scatter_reduce with a tensor.")
            return self._scattered(dim, index, src, None, True)
        values = index.detach().const_like(src, self.dtype)
        how = {None: None, "add": "sum", "multiply": "prod"}[reduce]
        return self._scattered(dim, index, values, how, True)

    def scatter_reduce(
        self, dim: int, index: Self, src: Self, reduce: str, include_self: bool = True
    ) -> Self:
        """self combined with src[i, j, ...] at the position index[i, j, ...] along `dim`.

        reduce: "sum", "prod", "mean", "amax" or "amin"; without include_self, what src goes to
        does not count the element that was there.
        """
        if reduce not in REDUCTIONS:
            raise ShapeError(f"reduce is one of {', '.join(REDUCTIONS)}, not {reduce!r}.")
        return self._scattered(dim, index, src, reduce, include_self)

    def scatter_add(self, dim: int, index: Self, src: Self) -> Self:
        """`scatter_reduce` with the sum."""
        return self._scattered(dim, index, src, "sum", True)

    def _scattered(
        self, dim: int, index: Self, src: Self, reduce: str | None, include_self: bool
    ) -> Self:
        axis = self._axis(dim)
        if not dtypes.is_int(index.dtype):
            raise DtypeError(f"A scatter's index holds integers, not {index.dtype}.")
        if src.dtype is not self.dtype:
            raise DtypeError(f"Cannot scatter {src.dtype} into {self.dtype}; cast first.")
        if not self.ndim:
            return self.reshape((1,))._scattered(
                0, index.reshape((-1,)), src.reshape((-1,)), reduce, include_self
            ).reshape(())
        fits = index.ndim == src.ndim == self.ndim and all(
            i <= s and (a == axis or i <= n)
            for a, (i, s, n) in enumerate(zip(index.shape, src.shape, self.shape, strict=True))
        )
        if not fits:
            raise ShapeError(
                f"scatter along axis {dim} of {self.shape} has an index of {index.shape} and "
                f"values of {src.shape}: all need as many axes, and the index must not be longer "
                "than the values, nor, but along that axis, than the tensor."
            )
        if 0 in index.shape:
            return self
        src = src.shrink([(0, n) for n in index.shape]).transpose(axis, -1)
        here = index.transpose(axis, -1).unsqueeze(-1)._one_hot_mask(self.shape[axis])
        here = here.transpose(-1, -2)  # (..., places, positions)
        x = self.transpose(axis, -1)
        rest: list[Any] = [(0, n - i) for n, i in zip(x.shape[:-1], src.shape[:-1], strict=True)]
        here, src = here.pad([*rest, None, None], value=False), src.pad([*rest, None])
        return x._combined(here, src, reduce, include_self).transpose(axis, -1)

    def _combined(self, here: Self, src: Self, reduce: str | None, include_self: bool) -> Self:
        """self (..., n) and those of src (..., J) for which here (..., n, J) is true."""
        if self.dtype is dtypes.bool:
            wide = self.cast(dtypes.uint8)._combined(
                here, src.cast(dtypes.uint8), reduce, include_self
            )
            return wide.cast(dtypes.bool)
        if reduce is None:
            order = here._range_along(here.ndim - 1) + 1
            last = here.where(order, 0).max(-1)
            shape = (*self.shape[:-1], last.shape[-1])
            return last.ne(0).where(src.gather(-1, (last - 1)._broadcast_to(shape)), self)
        if reduce == "amin":
            least = self.descending()._combined(here, src.descending(), "amax", include_self)
            return least.descending()
        values = src.unsqueeze(-2)
        if reduce == "amax":
            found = here.where(values, self.dtype.min).max(-1)
            result = self.maximum(found) if include_self else found
        elif reduce == "prod":
            found = here.where(values, 1).prod(-1, dtype=self.dtype)
            result = self * found if include_self else found
        else:
            found = here.where(values, 0).sum(-1, dtype=self.dtype)
            result = self + found if include_self else found
        if reduce == "mean":
            count = here.sum(-1) + int(include_self)
            count = count.maximum(1).cast(self.dtype)
            whole = not dtypes.is_float(self.dtype)
            result = result.div(count, rounding_mode="floor" if whole else None)
        return result if include_self else here.any(-1).where(result, self)

    # ---- at an index ----
    def index_put(
        self, indices: Sequence[Any], values: Self | ConstType, accumulate: bool = False
    ) -> Self:
        """self with `values` (added, with accumulate) at self[indices]."""
        view, positions = self._indexed(tuple(indices))
        if not positions or view.shape != self.shape:
            raise ShapeError("index_put takes positions or masks for the first axes of a tensor.")
        return view._put(positions, self._operand(values).cast(self.dtype), accumulate)

    def _put(self, positions: dict[int, Self], value: Self, accumulate: bool) -> Self:
        """self with `value`, in the shape of self[positions], there."""
        rows, flat, first = self._rows(positions)
        rest, k = rows.shape[1:], flat.ndim
        value = value._broadcast_to((*rest[:first], *flat.shape, *rest[first:]))
        if first:
            order = (*range(first, first + k), *range(first), *range(first + k, value.ndim))
            value = value.permute(order)
        source = value.reshape((product(flat.shape), *rest))
        if 0 in source.shape or 0 in rows.shape:
            return self
        here = flat.flatten().unsqueeze(-1)._one_hot_mask(rows.shape[0]).transpose(0, 1)
        new = rows.movedim(0, -1)._combined(
            here, source.movedim(0, -1), "sum" if accumulate else None, True
        )
        axes = sorted(positions)
        order = (*axes, *(a for a in range(self.ndim) if a not in axes))
        shape = tuple(self.shape[a] for a in order)
        back = tuple(order.index(a) for a in range(self.ndim))
        return new.movedim(-1, 0).reshape(shape).permute(back)

    def _with_rows(self, dim: int, index: Self, value: Self | ConstType, accumulate: bool) -> Self:
        axis = self._axis(dim)
        view, positions = self._indexed((*[slice(None)] * axis, index))
        return view._put(positions, self._operand(value).cast(self.dtype), accumulate)

    def index_select(self, dim: int, index: Self) -> Self:
        """The positions `index` along `dim`."""
        return self[(*[slice(None)] * self._axis(dim), index)]

    def index_add(self, dim: int, index: Self, source: Self, alpha: ConstType = 1) -> Self:
        """self with alpha*source added at the positions `index` along `dim`."""
        return self._with_rows(dim, index, source if alpha == 1 else source * alpha, True)

    def index_copy(self, dim: int, index: Self, source: Self) -> Self:
        """self with `source` at the positions `index` along `dim`."""
        return self._with_rows(dim, index, source, False)

    def index_fill(self, dim: int, index: Self, value: Self | ConstType) -> Self:
        """self with a number at the positions `index` along `dim`."""
        return self._with_rows(dim, index, value, False)

    def take(self, index: Self) -> Self:
        """Elements of the flat tensor."""
        return self.flatten()[index]

    def put(self, index: Self, source: Self, accumulate: bool = False) -> Self:
        """self with `source` at positions of the flat tensor."""
        new = self.flatten().index_put((index,), source.reshape(index.shape), accumulate)
        return new.reshape(self.shape)

    def take_along_dim(self, indices: Self, dim: int | None = None) -> Self:
        """`gather`, shapes broadcast first; in the flat tensor without `dim`."""
        if dim is None:
            return self.flatten().gather(0, indices.flatten())
        axis = self._axis(dim)
        shapes = [(*t.shape[:axis], 1, *t.shape[axis + 1 :]) for t in (self, indices)]
        both = [max(a, b, key=lambda n: n != 1) for a, b in zip(*shapes, strict=True)]
        x, at = (
            t._broadcast_to((*both[:axis], t.shape[axis], *both[axis + 1 :]))
            for t in (self, indices)
        )
        return x.gather(axis, at)

    # ---- at a mask or a part ----
    def masked_scatter(self, mask: Self, source: Self) -> Self:
        """self with the elements of `source`, in order, where `mask` is true."""
        true = mask._broadcast_to(self.shape)
        if not self.numel():
            return self
        place = (true.flatten().cumsum(0) - 1).reshape(self.shape)
        return true.where(source.flatten()._at(place), self)

    def select_scatter(self, src: Self, dim: int, index: int) -> Self:
        """self with `src` at position `index` of `dim`."""
        axis = self._axis(dim)
        return self.slice_scatter(src.unsqueeze(axis), axis, index, index + 1 or None)

    def slice_scatter(
        self, src: Self, dim: int = 0, start: int | None = None, end: int | None = None,
        step: int = 1,
    ) -> Self:
        """self with `src` at start, start + step, ... along `dim`."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        first, stop, step = slice(start, end, step).indices(n)
        count = len(range(first, stop, step))
        shape = (*self.shape[:axis], count, *self.shape[axis + 1 :])
        if src.shape != shape:
            raise ShapeError(f"slice_scatter writes {shape}, and the values have {src.shape}.")
        if not count:
            return self
        keep: list[Any] = [None] * self.ndim
        wide = src.unsqueeze(axis + 1).pad([*keep[:axis], None, (0, step - 1), *keep[axis + 1 :]])
        amounts = [*keep[:axis], (first, n - first - count * step), *keep[axis + 1 :]]
        wide = wide.flatten(axis, axis + 1).pad(amounts)
        place = self._range_along(axis) - first
        here = (place >= 0) & (place < count * step) & (place % step).eq(0)
        return here.where(wide, self)

    def diagonal_scatter(self, src: Self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Self:
        """self with `src` on the diagonal."""
        a, b = self._two_axes(dim1, dim2)
        here = self._range_along(b).eq(self._range_along(a) + offset)
        wide = src.diag_embed(offset, a, b)
        amounts: list[Any] = [None] * self.ndim
        amounts[a] = (0, self._fixed(a) - wide._fixed(a))
        amounts[b] = (0, self._fixed(b) - wide._fixed(b))
        return here.where(wide.pad(amounts), self)
