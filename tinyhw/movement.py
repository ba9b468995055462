"""Movement: every output element is one input element, or the fill of a pad. Nothing is copied.

Shapes broadcast as in NumPy: aligned at the last axis, an extent of 1 repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeAlias

from compiler.dtype import ConstType, dtypes, least_upper_dtype
from compiler.ir import Extent, Node, Op, Shape
from tinyhw.casts import Casts
from tinyhw.core import Axis, also_named, to_extent, to_shape
from tinyhw.errors import IndexOutOfRange, ShapeError
from tinyhw.variable import require_not_negative, without_value

Padding: TypeAlias = "Sequence[int] | Sequence[Sequence[Extent] | None]"
PAD_MODES = ("constant", "reflect", "replicate", "circular")


class Movement(Casts):
    """Reshaping, reordering, repeating, cutting and joining."""

    __slots__ = ()

    def _move(self, node: Node) -> Self:
        """The view of this tensor that `node` is."""
        return self if node is self._node else self._derive(node, view=True)

    # ---- the same elements under another shape ----
    def reshape(self, *shape: Any) -> Self:
        """The elements in row-major order as `shape`; one extent may be -1, None keeps its own."""
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        kept = tuple(self.shape[i] if extent is None else extent for i, extent in enumerate(given))
        return self._move(self._node.reshape(self._resolved(to_shape(kept))))

    def view(self, *shape: Any) -> Self:
        """`reshape`."""
        return self.reshape(*shape)

    def _resolved(self, shape: Shape) -> Shape:
        """`shape` with -1 replaced; raises unless it holds as many elements as this tensor."""
        total = self.numel()
        unknown = [axis for axis, extent in enumerate(shape) if extent == -1]
        if len(unknown) > 1:
            raise ShapeError(f"Only one extent may be -1, and {shape} has {len(unknown)}.")
        known = product(extent for extent in shape if extent != -1)
        if unknown:
            whole, rest = _divided(total, known)
            if rest != 0:
                raise ShapeError(
                    f"Cannot reshape {self.shape} to {shape}: {total} elements are not a multiple "
                    f"of {known}."
                )
            return tuple(whole if extent == -1 else extent for extent in shape)
        if any(isinstance(extent, int) and extent < 0 for extent in shape):
            raise ShapeError(f"The shape {shape} has a negative extent.")
        if known != total:
            raise ShapeError(
                f"Cannot reshape {self.shape} to {shape}: {total} elements are not {known}."
            )
        return shape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Self:
        """Axes from `start_dim` to `end_dim` (included) as one."""
        start, end = self._axis(start_dim), self._axis(end_dim)
        if start > end:
            raise ShapeError(f"flatten goes from axis {start_dim} back to axis {end_dim}.")
        merged = product(self.shape[start : end + 1])
        return self.reshape((*self.shape[:start], merged, *self.shape[end + 1 :]))

    def unflatten(self, dim: int, sizes: Sequence[Extent]) -> Self:
        """Axis `dim` as several of the given sizes, one of which may be -1."""
        axis = self._axis(dim)
        before, after = self.shape[:axis], self.shape[axis + 1 :]
        missing = product(extent for extent in sizes if extent != -1)
        whole = _divided(self.shape[axis], missing)[0]
        inner = tuple(whole if extent == -1 else extent for extent in sizes)
        return self.reshape((*before, *inner, *after))

    def unsqueeze(self, dim: int) -> Self:
        """A new axis of extent 1 before axis `dim`."""
        if not -self.ndim - 1 <= dim <= self.ndim:
            raise IndexOutOfRange(
                f"A new axis at {dim} is out of range for a tensor of {self.ndim} axes: "
                f"it must lie in [{-self.ndim - 1}, {self.ndim}]."
            )
        axis = dim % (self.ndim + 1)
        return self.reshape((*self.shape[:axis], 1, *self.shape[axis:]))

    def squeeze(self, dim: Axis = None) -> Self:
        """Without those of the given axes (of all axes for None) whose extent is 1."""
        axes = self._axes(dim)
        return self.reshape(
            tuple(n for axis, n in enumerate(self.shape) if n != 1 or axis not in axes)
        )

    # ---- order of axes and elements ----
    def permute(self, *order: Any) -> Self:
        """Axes in another order: output axis i is input axis order[i]."""
        given = order[0] if len(order) == 1 and isinstance(order[0], tuple | list) else order
        axes = tuple(self._axis(axis) for axis in given)
        if sorted(axes) != list(range(self.ndim)):
            raise ShapeError(
                f"{tuple(given)} is not an order of the {self.ndim} axes of {self.shape}."
            )
        return self._move(self._node.permute(axes))

    def transpose(self, dim0: int = 1, dim1: int = 0) -> Self:
        """Two axes exchanged."""
        order = list(range(self.ndim))
        a, b = self._axis(dim0), self._axis(dim1)
        if order:
            order[a], order[b] = order[b], order[a]
        return self.permute(tuple(order))

    @property
    def T(self) -> Self:  # noqa: N802  (the name that everyone knows)
        """The transpose of a matrix."""
        return self.transpose() if self.ndim == 2 else self.permute(tuple(range(self.ndim))[::-1])

    @also_named(dims="axis")
    def flip(self, axis: Axis, *more: int) -> Self:
        """The elements along the given axes in reverse."""
        axes = (axis, *more) if isinstance(axis, int) else axis
        return self._move(self._node.flip(self._axes(axes)))

    def roll(
        self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
    ) -> Self:
        """The elements along `dims` moved by `shifts`; what leaves one end enters at the other.

        Without `dims`, those of the flat tensor.
        """
        if dims is None:
            return self.flatten().roll(shifts, 0).reshape(self.shape)
        by = shifts if isinstance(shifts, tuple | list) else (shifts,)
        axes = dims if isinstance(dims, tuple | list) else (dims,)
        if len(by) != len(axes):
            raise ShapeError(f"roll has {len(by)} shifts for {len(axes)} axes.")
        result = self
        for shift, dim in zip(by, axes, strict=True):
            axis = self._axis(dim)
            extent = self._fixed(axis)
            cut = extent - shift % extent if extent else 0
            parts = result.split([cut, extent - cut], axis)
            result = parts[1].cat(parts[0], dim=axis)
        return result

    # ---- repeating ----
    def expand(self, *shape: Any) -> Self:
        """Extents of 1 repeated up to `shape`; -1 or None keeps an extent; axes grow in front."""
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        grown = (1,) * (len(given) - self.ndim) + self.shape
        kept = tuple(
            grown[i] if extent is None or extent == -1 else extent for i, extent in enumerate(given)
        )
        return self._broadcast_to(to_shape(kept))

    def _broadcast_to(self, shape: Shape) -> Self:
        """This tensor repeated to `shape`."""
        if shape == self.shape:
            return self
        grown = (1,) * (len(shape) - self.ndim) + self.shape
        if len(grown) != len(shape) or any(
            a not in (1, b) for a, b in zip(grown, shape, strict=True)
        ):
            raise ShapeError(
                f"Cannot expand {self.shape} to {shape}: an extent that changes must be 1."
            )
        return self._move(self._node.reshape(grown).expand(shape))

    def repeat(self, *repeats: Any) -> Self:
        """The whole tensor repeated along each axis; axes grow in front."""
        times = to_shape(repeats)
        grown = (1,) * (len(times) - self.ndim) + self.shape
        if len(times) < self.ndim:
            raise ShapeError(f"repeat has {len(times)} counts for the {self.ndim} axes.")
        split = tuple(extent for n in grown for extent in (1, n))
        wide = tuple(extent for r, n in zip(times, grown, strict=True) for extent in (r, n))
        final = tuple(r * n for r, n in zip(times, grown, strict=True))
        return self.reshape(split).expand(wide).reshape(final)

    def repeat_interleave(self, repeats: int, dim: int | None = None) -> Self:
        """Each element repeated along `dim` (of the flat tensor for None)."""
        x = self.flatten() if dim is None else self
        axis = x._axis(dim or 0)
        before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        wide = x.unsqueeze(axis + 1)._broadcast_to((*before, n, repeats, *after))
        return wide.reshape((*before, n * repeats, *after))

    # ---- cutting and padding ----
    def shrink(self, arg: Sequence[Sequence[Any] | None]) -> Self:
        """The part [start, stop) of each axis; None keeps an axis."""
        if len(arg) != self.ndim:
            raise ShapeError(f"shrink has {len(arg)} limits for the {self.ndim} axes.")
        limits = tuple(
            (0, n) if limit is None else (to_extent(limit[0]), to_extent(limit[1]))
            for n, limit in zip(self.shape, arg, strict=True)
        )
        for n, (start, stop) in zip(self.shape, limits, strict=True):
            if start != 0 or stop != n:
                _check_part(start, stop, n, self.shape)
        return self._move(self._node.shrink(limits))

    def pad(self, padding: Padding, mode: str = "constant", value: ConstType = 0.0) -> Self:
        """Elements added before and after along axes; negative amounts take some away.

        padding: either (before, after) for every axis, None leaving one alone; or, as torch has
        it, a flat (before, after, ...) that starts with the last axis.
        mode: "constant" with `value`, "reflect", "replicate" or "circular".
        """
        if mode not in PAD_MODES:
            raise ShapeError(f"pad has no mode {mode!r}; there are {', '.join(PAD_MODES)}.")
        amounts = self._pad_amounts(padding)
        if mode == "constant":
            return self._pad_constant(amounts, value)
        result = self
        for axis, (before, after) in enumerate(amounts):
            if (before, after) != (0, 0):
                result = result._pad_from_itself(axis, int(before), int(after), mode)  # type: ignore[arg-type]
        return result

    def _pad_amounts(self, padding: Padding) -> tuple[tuple[Extent, Extent], ...]:
        """(before, after) of every axis, from either form."""
        given = list(padding)
        if all(isinstance(p, int | Node) for p in given):
            if len(given) % 2 or len(given) > 2 * self.ndim:
                raise ShapeError(
                    f"A flat padding has (before, after) for the last axes of {self.shape}, "
                    f"and {tuple(given)} does not fit."
                )
            pairs: list[Any] = [(given[i], given[i + 1]) for i in range(0, len(given), 2)]
            given = [None] * (self.ndim - len(pairs)) + pairs[::-1]
        if len(given) != self.ndim:
            raise ShapeError(f"pad has {len(given)} amounts for the {self.ndim} axes of a tensor.")
        return tuple((0, 0) if p is None else (to_extent(p[0]), to_extent(p[1])) for p in given)  # type: ignore[index]

    def _pad_constant(self, amounts: tuple[tuple[Extent, Extent], ...], value: ConstType) -> Self:
        limits: list[tuple[Extent, Extent]] = []
        for n, (before, after) in zip(self.shape, amounts, strict=True):
            if isinstance(n, int) and isinstance(before, int) and isinstance(after, int):
                start, stop = max(-before, 0), n - max(-after, 0)
                if start > stop:
                    raise ShapeError(
                        f"Padding by {(before, after)} takes more than the {n} elements of an axis "
                        f"of {self.shape}."
                    )
                limits.append((start, stop))
            else:
                limits.append((0, n))
        x = self.shrink(limits)
        grow = tuple(
            (_at_least_zero(before), _at_least_zero(after)) for before, after in amounts
        )
        for pair in grow:
            _check_padding(pair)
        padded = x._node.pad(grow)
        if padded is x._node:
            return x
        if self.dtype.const(value) != 0:
            inside = Node.const(True, dtypes.bool).reshape((1,) * self.ndim)
            mask = inside.expand(x.shape).pad(grow)
            padded = mask.alu(Op.WHERE, padded, Node.const(value, self.dtype))
        return x._derive(padded)

    def _pad_from_itself(self, axis: int, before: int, after: int, mode: str) -> Self:
        """Axis `axis` padded with its own elements."""
        n = self._fixed(axis)
        most = {"reflect": n - 1, "circular": n, "replicate": max(before, after, 0)}[mode]
        if n == 0 or min(before, after) < 0 or max(before, after) > most:
            raise ShapeError(
                f"Cannot pad an axis of {n} by {(before, after)} in mode {mode!r}: "
                f"each side takes from 0 to {most}."
            )

        if mode == "reflect":
            first = self._part(axis, 1, before + 1).flip(axis)
            last = self._part(axis, n - 1 - after, n - 1).flip(axis)
        elif mode == "circular":
            first, last = self._part(axis, n - before, n), self._part(axis, 0, after)
        else:
            first = self._part(axis, 0, 1).repeat_interleave(before, axis)
            last = self._part(axis, n - 1, n).repeat_interleave(after, axis)
        return first.cat(self, last, dim=axis)

    def _part(self, axis: int, start: int, stop: int) -> Self:
        """[start, stop) of one axis."""
        return self.shrink([(start, stop) if a == axis else None for a in range(self.ndim)])

    # ---- joining and splitting ----
    def cat(self, *others: Self, dim: int = 0) -> Self:
        """The tensors one after the other along `dim`; all other extents agree."""
        axis = self._axis(dim)
        for t in others:
            rest = (*t.shape[:axis], *t.shape[axis + 1 :])
            if t.ndim != self.ndim or rest != (*self.shape[:axis], *self.shape[axis + 1 :]):
                raise ShapeError(
                    f"Cannot join {self.shape} and {t.shape} along axis {dim}: every other extent "
                    "must agree."
                )
        parts = self._promoted(*others)
        total: Extent = 0
        for t in parts:
            total = total + t.shape[axis]
        position: Extent = 0
        joined: Node | None = None
        for t in parts:
            end = position + t.shape[axis]
            amounts = tuple((position, total - end) if a == axis else (0, 0) for a in range(t.ndim))
            padded = t._node.pad(amounts)
            if joined is None:
                joined = padded
            elif t.shape[axis] != 0:
                inside = Node.const(True, dtypes.bool).reshape((1,) * t.ndim)
                mask = inside.expand(t.shape).pad(amounts)
                joined = mask.alu(Op.WHERE, padded, joined)
            position = end
        if joined is None or len(parts) == 1:
            return self
        return parts[0]._derive(joined, *parts[1:])

    def stack(self, *others: Self, dim: int = 0) -> Self:
        """The tensors along a new axis `dim`."""
        first = self.unsqueeze(dim)
        return first.cat(*(t.unsqueeze(dim) for t in others), dim=dim % first.ndim)

    def split(self, sizes: int | Sequence[int], dim: int = 0) -> tuple[Self, ...]:
        """Parts along `dim`: of `sizes` elements each, the last maybe fewer, or of given sizes."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        if isinstance(sizes, int):
            if sizes <= 0:
                raise ShapeError(f"split needs a size of at least 1, not {sizes}.")
            sizes = [min(sizes, n - start) for start in range(0, max(n, 1), sizes)]
        if to_extent(sum(sizes)) != n:
            raise ShapeError(f"split has sizes of {sum(sizes)} in all for an axis of {n}.")
        parts: list[Self] = []
        start = 0
        for size in sizes:
            parts.append(self._part(axis, start, start + size))
            start += size
        return tuple(parts)

    def chunk(self, chunks: int, dim: int = 0) -> list[Self]:
        """At most `chunks` parts of equal size along `dim`, the last maybe smaller."""
        if chunks <= 0:
            raise ShapeError(f"chunk needs at least 1 part, not {chunks}.")
        n = self._fixed(self._axis(dim))
        return list(self.split(max(1, -(-n // chunks)), dim))

    # ---- windows ----
    def windows(
        self,
        axes: Sequence[int],
        kernel: Sequence[int],
        by: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> Self:
        """Sliding windows over `axes`: axis by[i], of extent 1 here, runs within a window.

        Position (o, k) along (axes[i], by[i]) reads o*stride[i] + k*dilation[i] along axes[i].
        """
        if all(k == s and d == 1 for k, s, d in zip(kernel, stride, dilation, strict=True)):
            return self._blocks(axes, kernel, by)
        wide = dict(zip(by, kernel, strict=True))
        x = self._broadcast_to(tuple(wide.get(a, n) for a, n in enumerate(self.shape)))
        node = x._node
        for axis, k, within, d in zip(axes, kernel, by, dilation, strict=True):
            node = node.skew(axis, within, d, 0, x._fixed(axis) - (k - 1) * d)
        x = x._derive(node)
        for axis, s in zip(axes, stride, strict=True):
            x = x.every(axis, s)
        return x

    def _blocks(self, axes: Sequence[int], kernel: Sequence[int], by: Sequence[int]) -> Self:
        """Windows that neither overlap nor leave gaps: a reshape."""
        limits: list[tuple[int, int] | None] = [None] * self.ndim
        shape: list[Extent] = []
        place: dict[int, int] = {}  # axis of the result -> axis of the split tensor
        size = dict(zip(axes, kernel, strict=True))
        inner = dict(zip(axes, by, strict=True))
        for axis in range(self.ndim):
            if axis in inner.values():
                continue
            place[axis] = len(shape)
            if axis in size:
                count = self._fixed(axis) // size[axis]
                limits[axis] = (0, count * size[axis])
                place[inner[axis]] = len(shape) + 1
                shape += [count, size[axis]]
            else:
                shape.append(self.shape[axis])
        split = self.shrink(limits).reshape(tuple(shape))
        return split.permute(tuple(place[axis] for axis in range(self.ndim)))

    def every(self, axis: int, step: int) -> Self:
        """Elements 0, step, 2*step, ... along `axis`."""
        if step == 1:
            return self
        n = self._fixed(axis)
        count = -(-n // step)
        whole = count * step
        before, after = self.shape[:axis], self.shape[axis + 1 :]
        node = self._node
        if whole > n:
            node = node.pad(tuple((0, whole - n if a == axis else 0) for a in range(self.ndim)))
        node = node.reshape((*before, count, step, *after))
        limits = [(0, extent) for extent in node.shape]
        limits[axis + 1] = (0, min(1, whole))
        return self._move(node.shrink(tuple(limits)).reshape((*before, count, *after)))

    def _fixed(self, axis: int) -> int:
        """The extent of `axis`, which must not depend on a Variable here."""
        extent = self.shape[axis] if self.ndim else 1
        if not isinstance(extent, int):
            raise ShapeError(
                f"Axis {axis} of {self.shape} depends on a Variable, which this operation does not "
                "support."
            )
        return extent

    def _promoted(self, *others: Self) -> list[Self]:
        """This tensor and the others, cast to their common type."""
        common = least_upper_dtype(*(t.dtype for t in (self, *others)))
        return [t.cast(common) for t in (self, *others)]


def broadcast_shape(*shapes: Shape) -> Shape:
    """The shape that all given shapes repeat to."""
    rank = max(len(shape) for shape in shapes)
    result: list[Extent] = []
    for extents in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        different = {extent for extent in extents if extent != 1}
        if len(different) > 1:
            raise ShapeError(
                f"The shapes {' and '.join(map(str, shapes))} do not broadcast: "
                f"{' and '.join(map(str, different))} meet in one axis."
            )
        result.append(different.pop() if different else 1)
    return tuple(result)


def product(extents: Any) -> Extent:
    """The product of extents."""
    total: Extent = 1
    for extent in extents:
        total = total * extent
    return total if isinstance(total, int) else to_extent(total)


def _divided(total: Extent, by: Extent) -> tuple[Extent, Extent]:
    """Quotient and remainder of extents."""
    if isinstance(total, int) and isinstance(by, int):
        return divmod(total, by) if by else (0, total)
    total = total if isinstance(total, Node) else Node.const(total, dtypes.index)
    return to_extent(total // by), to_extent(total % by)


def _check_part(start: Extent, stop: Extent, extent: Extent, shape: Shape) -> None:
    def wrong() -> str:
        n, first, last = map(without_value, (extent, start, stop))
        whole = tuple(map(without_value, shape))
        return f"Cannot shrink an axis of {n} to [{first}, {last}) in the shape {whole}"

    require_not_negative((start, stop - start, extent - stop), wrong)


def _check_padding(amounts: tuple[Extent, Extent]) -> None:
    require_not_negative(amounts, lambda: f"Cannot pad by {tuple(map(without_value, amounts))}")


def _at_least_zero(amount: Extent) -> Extent:
    return max(amount, 0) if isinstance(amount, int) else amount
