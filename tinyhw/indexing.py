"""Indexing: `t[1, ::2, None, ...]` is movement, `t[positions]` reads through a GATHER.

An index is an int, a slice, None, Ellipsis, or whole numbers in a list or tensor; several lists or
tensors broadcast together, as in NumPy. Positions given as numbers are checked at once; positions
in a tensor that lie outside read 0, because they are known only on the device. A mask of bools
stands for the positions where it is true; how many they are is read when the index is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from compiler.dtype import ConstType, dtypes
from compiler.ir import Extent, Node
from tinyhw.core import to_extent
from tinyhw.errors import DtypeError, IndexOutOfRange, NotSupported, ShapeError
from tinyhw.movement import broadcast_shape, product
from tinyhw.scans import Scans
from tinyhw.variable import Variable


class _Column(NamedTuple):
    """The positions along one axis that a mask names, of an axis of `extent`."""

    positions: Any
    extent: Extent


class Indexing(Scans):
    """Reading parts of a tensor by position."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Self:
        view, positions = self._indexed(index)
        return view._gathered(positions) if positions else view

    def _indexed(self, index: Any) -> tuple[Self, dict[int, Self]]:
        """The movement part of an index done, and the positions left to read: view axis -> them."""
        entries = _without_ellipsis(self._without_masks(index), self.ndim)
        x = self
        shape: list[Extent] = []
        positions: dict[int, Self] = {}
        limits: list[tuple[Extent, Extent]] = []
        flips: list[int] = []
        steps: list[tuple[int, int]] = []
        axis = 0
        for entry in entries:
            if entry is None:
                shape.append(1)
                continue
            n = self.shape[axis]
            if isinstance(entry, slice):
                start, stop, step = _slice(entry, n)
                limits.append((start, stop))
                if step < 0:
                    flips.append(axis)
                steps.append((axis, abs(step)))
                count = stop - start
                shape.append(-(-count // abs(step)) if isinstance(count, int) else to_extent(count))
            elif isinstance(entry, _Column):
                if entry.extent != n:
                    raise IndexOutOfRange(
                        f"A mask of {entry.extent} along axis {axis} meets the shape {self.shape}."
                    )
                limits.append((0, n))
                positions[len(shape)] = entry.positions
                shape.append(n)
            elif isinstance(entry, list | tuple | np.ndarray | Indexing):
                limits.append((0, n))
                positions[len(shape)] = self._positions(entry, n)
                shape.append(n)
            else:
                at = _position(entry, n)
                limits.append((at, at + 1))
            axis += 1
        if self.ndim:
            x = x.shrink(limits).flip(tuple(flips))
            for axis, step in steps:
                x = x.every(axis, step)
        return x.reshape(tuple(shape)), positions

    def _positions(self, entry: Any, extent: Extent) -> Self:
        """Positions along an axis, non-negative or -1 for what lies outside."""
        if isinstance(entry, Indexing):
            if not dtypes.is_int(entry.dtype):
                raise DtypeError(f"A tensor index holds integers, not {entry.dtype}.")
            given: Self = entry.detach().to(self.device)  # type: ignore[assignment]
        else:
            array = np.array(entry)
            if array.size == 0:
                array = array.astype(np.int64)
            if array.dtype.kind not in "iu":
                raise DtypeError(f"A list index holds integers, not {array.dtype}.")
            _check_positions(array, extent)
            given = self._upload(array.astype(np.int32), self.device)
        if dtypes.is_unsigned(given.dtype):
            return given
        wide = given.cast(dtypes.int32) if given.dtype.bits < 32 else given
        return (wide < 0).where(wide + self._extent_scalar(extent), wide)

    def _extent_scalar(self, extent: Extent) -> Self | int:
        if isinstance(extent, int):
            return extent
        return self._wrap(extent, self._device).cast(dtypes.int32)

    def _without_masks(self, index: Any) -> list[Any]:
        """The entries of an index, a mask as one column of positions for each of its axes."""
        entries: list[Any] = []
        for entry in index if isinstance(index, tuple) else (index,):
            mask = entry
            if isinstance(entry, list | tuple) and _holds_bools(entry):
                mask = np.array(entry)
            if isinstance(mask, np.ndarray) and mask.dtype == bool:
                for extent, places in zip(mask.shape, mask.nonzero(), strict=True):
                    column = self._upload(places.astype(np.int32), self.device)
                    entries.append(_Column(column, extent))
            elif isinstance(mask, Indexing) and mask.dtype is dtypes.bool and mask.ndim:
                places_ = mask.to(self.device).nonzero()
                entries += [_Column(places_[:, i], n) for i, n in enumerate(mask.shape)]
            else:
                entries.append(entry)
        return entries

    def _gathered(self, positions: dict[int, Self]) -> Self:
        """The elements at `positions`, which stand for axes of this tensor.

        The new axes stand where the positions stood if those were neighbours, else in front.
        """
        source, flat, first = self._rows(positions)
        result = source._at(flat)
        if not first:
            return result
        k = flat.ndim
        order = (*range(k, k + first), *range(k), *range(k + first, result.ndim))
        return result.permute(order)

    def _rows(self, positions: dict[int, Self]) -> tuple[Self, Self, int]:
        """(the indexed axes as one in front, the rows of it to read, the first of those axes).

        The last is 0 if the indexed axes are not neighbours. Rows outside are negative or too big.
        """
        axes = sorted(positions)
        rest = [a for a in range(self.ndim) if a not in axes]
        shape = broadcast_shape(*(p.shape for p in positions.values()))
        flat = self._constant(0, dtypes.int32)
        inside: Self | None = None
        for axis in axes:
            n = self._extent_scalar(self.shape[axis])
            p = positions[axis]._broadcast_to(shape)
            flat = flat * n + p
            valid = (p >= 0) & (p < n) if not dtypes.is_unsigned(p.dtype) else p < n
            inside = valid if inside is None else inside & valid
        if len(axes) > 1 and inside is not None:  # one index alone is outside as it is
            flat = inside.where(flat, -1)
        merged = product(self.shape[a] for a in axes)
        source = self.permute((*axes, *rest)).reshape((merged, *(self.shape[a] for a in rest)))
        first = axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0
        return source, flat._broadcast_to(shape), first

    def _at(self, rows: Self) -> Self:
        """Elements of axis 0 by their positions, 0 for those outside."""
        return self._derive(self._node.gather(rows._node.cast(dtypes.index)), rows)

    # ---- along one axis ----
    def gather(self, dim: int, index: Self) -> Self:
        """self[..., index, ...] along `dim`, the other positions being those of `index`."""
        axis = self._axis(dim)
        if index.ndim != self.ndim or any(
            isinstance(i, int) and isinstance(n, int) and i > n
            for a, (i, n) in enumerate(zip(index.shape, self.shape, strict=True))
            if a != axis
        ):
            raise ShapeError(
                f"gather along axis {dim} has an index of the shape {index.shape} for a tensor of "
                f"{self.shape}: it needs as many axes, and no other axis may be longer."
            )
        if not self.ndim:
            return self.reshape((1,)).gather(0, index.reshape((1,))).reshape(())
        source = self.shrink([None if a == axis else (0, n) for a, n in enumerate(index.shape)])
        fixed = all(isinstance(n, int) for n in (*self.shape, *index.shape))
        if fixed and not self._requires_grad:
            ranges = {a: index._range_along(a) for a in range(self.ndim) if a != axis}
            return source._gathered({**ranges, axis: index})
        # The adjoint of comparing and adding is a sum along one axis, that of a GATHER over all.
        chosen = index.unsqueeze(-1)._one_hot_mask(self.shape[axis])
        return chosen.where(source.unsqueeze(-1).transpose(axis, -1), 0).sum(-1, dtype=self.dtype)

    def _one_hot_mask(self, classes: Extent) -> Self:
        """Where the last axis, of `classes`, has the position that the tensor names."""
        positions = self._iota(classes)
        return self.eq(positions.cast(self.dtype) if self.dtype.bits > 32 else positions)

    def one_hot(self, num_classes: int = -1) -> Self:
        """1 at the position named, 0 elsewhere, along a new last axis of `num_classes`."""
        if not dtypes.is_int(self.dtype):
            raise DtypeError(f"one_hot needs integers, not {self.dtype}.")
        if num_classes == -1:
            greatest: Any = self.max()
            num_classes = int(greatest.item()) + 1
        return self.unsqueeze(-1)._one_hot_mask(num_classes).where(1, 0)

    # ---- what a mask names ----
    def masked_select(
        self, mask: Self, size: int | None = None, fill_value: ConstType = 0
    ) -> Self:
        """The elements where `mask` is true, flat and in order.

        They are counted by reading the mask, unless `size` says how many to give: then what is
        too much is left out and what is missing is `fill_value`.
        """
        shape = broadcast_shape(self.shape, mask.shape)
        x, places = self._broadcast_to(shape).flatten(), mask._broadcast_to(shape)._places(size)
        return (places >= 0).where(x._at(places), fill_value).cast(self.dtype)

    def nonzero(self, size: int | None = None, fill_value: ConstType = 0) -> Self:
        """The positions of what is not 0: (count, axes) int32; `size` as in `masked_select`."""
        places = self._places(size)
        columns = []
        stride = self._fixed_size()
        for axis in range(self.ndim):
            n = self._fixed(axis)
            stride //= max(n, 1)
            column = (places // max(stride, 1)) % max(n, 1)
            columns.append((places >= 0).where(column, fill_value).cast(dtypes.int32))
        if not columns:
            return places.reshape((places.shape[0], 1)).shrink([None, (0, 0)])
        return columns[0].stack(*columns[1:], dim=1)

    def _places(self, size: int | None) -> Self:
        """The flat positions of what is not 0, in order; -1 where there are fewer than `size`."""
        true = self.cast(dtypes.bool).detach().flatten()
        if size is None:
            count: Any = true.sum()
            size = int(count.item())
        if size < 0:
            raise ShapeError(f"A size is at least 0, not {size}.")
        n = true._fixed(0)
        if not n or not size:
            return self._iota(size) * 0 - 1
        places = true.cumsum(0).contiguous()._not_above(true._iota(size))
        return (places < n).where(places, -1)

    def _not_above(self, values: Self, equal: bool = True) -> Self:
        """How many elements of this ascending vector are at most each value, by bisection.

        Without `equal` those that are less.
        """
        n = self._fixed(0)
        low, high = values.const_like(0, dtypes.int32), values.const_like(n, dtypes.int32)
        for _ in range(n.bit_length()):
            middle = (low + high) >> 1
            found = self._at(middle)
            above = ((found > values) if equal else (found >= values)) | (low >= high)
            low, high = above.where(low, middle + 1), above.where(middle.minimum(high), high)
        return low

    def _fixed_size(self) -> int:
        """The number of elements, which must not depend on a Variable here."""
        return math.prod(self._fixed(axis) for axis in range(self.ndim))

    def as_strided(
        self, size: Sequence[int], stride: Sequence[int], storage_offset: int = 0
    ) -> Self:
        """Element (i, j, ...) is the flat tensor's storage_offset + i*stride[0] + j*stride[1]..."""
        total = self._fixed_size()
        last = storage_offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if min(size, default=1) > 0 and not 0 <= storage_offset <= last < total:
            raise IndexOutOfRange(f"as_strided reads element {last} of {total}.")
        place = self._constant(storage_offset, dtypes.int32)._broadcast_to(tuple(size))
        for axis, step in enumerate(stride):
            place = place + place._range_along(axis) * step
        return self.flatten()._at(place)

    # ---- triangles ----
    def _triangle(self, diagonal: int, upper: bool) -> Self:
        if self.ndim < 2:
            raise ShapeError(f"A triangle is of a matrix, and the shape is {self.shape}.")
        rows, columns = self._range_along(self.ndim - 2), self._range_along(self.ndim - 1)
        inside = rows + diagonal <= columns if upper else columns <= rows + diagonal
        return inside.where(self, 0)

    def triu(self, diagonal: int = 0) -> Self:
        """Zero below the given diagonal of the last two axes."""
        return self._triangle(diagonal, upper=True)

    def tril(self, diagonal: int = 0) -> Self:
        """Zero above the given diagonal of the last two axes."""
        return self._triangle(diagonal, upper=False)


def _holds_bools(entry: Any) -> bool:
    """Whether the first number in nested lists is a bool."""
    while isinstance(entry, list | tuple) and entry:
        entry = entry[0]
    return isinstance(entry, bool | np.bool_)


def _without_ellipsis(entries: list[Any], ndim: int) -> list[Any]:
    """The entries of an index, one for each axis and one for each None."""
    dots = [i for i, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1:
        raise ShapeError(f"An index has at most one Ellipsis, not {len(dots)}.")
    used = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if used > ndim:
        raise IndexOutOfRange(f"An index has {used} entries for a tensor of {ndim} axes.")
    at = dots[0] if dots else len(entries)
    return entries[:at] + [slice(None)] * (ndim - used) + entries[at + 1 :]


def _slice(entry: slice, extent: Extent) -> tuple[Extent, Extent, int]:
    """(start, stop, step) of the elements read, start < stop; a negative step reads backwards."""
    step = 1 if entry.step is None else _whole(entry.step)
    if step == 0:
        raise ShapeError("A slice's step must not be 0.")
    symbolic = any(isinstance(v, Node | Variable) for v in (entry.start, entry.stop, extent))
    if symbolic:
        if step != 1:
            raise NotSupported("A slice whose size depends on a Variable has a step of 1.")
        start = 0 if entry.start is None else _from_front(entry.start, extent)
        stop = extent if entry.stop is None else _from_front(entry.stop, extent)
        return start, stop, 1  # not clipped: shrink() refuses what lies outside
    assert isinstance(extent, int)
    start, stop, _ = slice(entry.start, entry.stop, step).indices(extent)
    count = len(range(start, stop, step))
    if step > 0:
        return start, start + max(0, min(stop - start, extent - start)) if count else start, step
    last = start + (count - 1) * step
    return (last, start + 1, step) if count else (0, 0, step)


def _from_front(value: Any, extent: Extent) -> Extent:
    at = to_extent(value)
    return at + extent if isinstance(at, int) and at < 0 else at


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise DtypeError(f"A position is a whole number, not {value!r}.")
    return int(value.__index__())


def _position(entry: Any, extent: Extent) -> Extent:
    """One position along an axis, counted from the front."""
    if isinstance(entry, Node | Variable):
        return to_extent(entry)
    at = _whole(entry)
    if isinstance(extent, int) and not -extent <= at < extent:
        raise IndexOutOfRange(
            f"Index {at} is out of range for an axis of {extent}: "
            f"it must lie in [{-extent}, {extent - 1}]."
        )
    return at + extent if at < 0 else at


def _check_positions(array: np.ndarray[Any, Any], extent: Extent) -> None:
    if not isinstance(extent, int) or array.size == 0:
        return
    for at in (int(array.min()), int(array.max())):
        _position(at, extent)
