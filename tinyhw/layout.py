"""Movement in the words of programs: windows, diagonals, grids, named axes, cuts and joins.

Everything here is reshapes, permutations, pads and windows of `movement.py`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from compiler.dtype import ConstType
from compiler.ir import Extent
from tinyhw.core import checked_axis
from tinyhw.errors import DtypeError, IndexOutOfRange, ShapeError
from tinyhw.movement import Movement, product


class Layout(Movement):
    """Views that take more than one movement."""

    __slots__ = ()

    # ---- windows and diagonals ----
    def unfold(self, dim: int, size: int, step: int) -> Self:
        """Windows of `size` along `dim`, `step` apart; what is in a window is the last axis."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        if not self.ndim or not 1 <= size <= n or step < 1:
            raise ShapeError(
                f"Windows of {size}, {step} apart, do not fit into axis {dim} of {self.shape}."
            )
        x = self.unsqueeze(-1)
        return x.windows((axis,), (size,), (self.ndim,), (step,), (1,))

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Self:
        """The elements (i, i + offset) of axes `dim1` and `dim2`, as the last axis."""
        a, b = self._two_axes(dim1, dim2)
        x = self.permute((*(axis for axis in range(self.ndim) if axis not in (a, b)), a, b))
        rows, columns = x._fixed(x.ndim - 2), x._fixed(x.ndim - 1)
        start = max(0, -offset), max(0, offset)
        length = max(0, min(rows - start[0], columns - start[1]))
        keep: list[tuple[int, int] | None] = [None] * (x.ndim - 2)
        if not length:
            return x.shrink([*keep, (0, 0), (0, 0)]).reshape((*x.shape[:-2], 0))
        square = x.shrink([*keep, (start[0], start[0] + length), (start[1], start[1] + length)])
        # Under rows of one element more the diagonal is the first column.
        flat = square.flatten(-2).pad([*keep, (0, length)])
        return flat.unflatten(-1, (length, length + 1)).shrink([*keep, None, (0, 1)]).squeeze(-1)

    def diag_embed(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Self:
        """Matrices over axes `dim1` and `dim2` with the last axis as a diagonal, else zero."""
        a, b = checked_axis(dim1, self.ndim + 1), checked_axis(dim2, self.ndim + 1)
        if a == b:
            raise ShapeError(f"A diagonal lies between two axes, not {dim1} and {dim2}.")
        length = self._fixed(self.ndim - 1)
        keep: list[tuple[int, int] | None] = [None] * (self.ndim - 1)
        wide = self.unsqueeze(-1).pad([*keep, None, (0, length)]).flatten(-2)
        square = wide.shrink([*keep, (0, length * length)]).unflatten(-1, (length, length))
        below, above = max(0, -offset), max(0, offset)
        matrix = square.pad([*keep, (below, above), (above, below)])
        order = [axis for axis in range(matrix.ndim) if axis not in (a, b)]
        back = dict(zip((*order, a, b), range(matrix.ndim), strict=True))
        return matrix.permute(tuple(back[axis] for axis in range(matrix.ndim)))

    def diag(self, diagonal: int = 0) -> Self:
        """The square matrix with this diagonal, or the diagonal of a matrix."""
        if self.ndim not in (1, 2):
            raise ShapeError(f"diag takes a vector or a matrix, not the shape {self.shape}.")
        return self.diag_embed(diagonal) if self.ndim == 1 else self.diagonal(diagonal)

    def diagflat(self, offset: int = 0) -> Self:
        """The square matrix with all elements as its diagonal."""
        return self.flatten().diag_embed(offset)

    def _two_axes(self, dim1: int, dim2: int) -> tuple[int, int]:
        a, b = self._axis(dim1), self._axis(dim2)
        if self.ndim < 2 or a == b:
            raise ShapeError(f"Axes {dim1} and {dim2} of {self.shape} are not two different ones.")
        return a, b

    # ---- grids ----
    def meshgrid(self, *others: Self, indexing: str = "ij") -> tuple[Self, ...]:
        """Each vector along an axis of its own, all of one shape; "xy" exchanges the first two."""
        if indexing not in ("ij", "xy"):
            raise ShapeError(f"meshgrid's indexing is 'ij' or 'xy', not {indexing!r}.")
        given = (self, *others)
        if any(t.ndim > 1 for t in given):
            raise ShapeError(f"meshgrid takes vectors, not {[t.shape for t in given]}.")
        vectors = [t.reshape((-1,)) for t in given]
        place = list(range(len(vectors)))
        if indexing == "xy" and len(vectors) > 1:
            place[:2] = 1, 0
        shape = tuple(vectors[i].shape[0] for i in place)
        grids = []
        for i, v in enumerate(vectors):
            alone = tuple(n if place[axis] == i else 1 for axis, n in enumerate(shape))
            grids.append(v.reshape(alone)._broadcast_to(shape))
        return tuple(grids)

    # ---- sizes ----
    def pad_to(self, *shape: Any, value: ConstType = 0) -> Self:
        """`value` behind each axis up to the extents of `shape`; None keeps an axis."""
        wanted = self._extents_or_none("pad_to", shape)
        more = [
            None if n is None else (0, n - had) for n, had in zip(wanted, self.shape, strict=True)
        ]
        return self.pad(more, value=value)

    def shrink_to(self, *shape: Any) -> Self:
        """The first elements of each axis down to the extents of `shape`; None keeps an axis."""
        wanted = self._extents_or_none("shrink_to", shape)
        return self.shrink([None if n is None else (0, n) for n in wanted])

    def _extents_or_none(self, operation: str, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        if len(given) != self.ndim:
            raise ShapeError(f"{operation} has {len(given)} extents for the {self.ndim} axes.")
        return tuple(given)

    # ---- parts ----
    def narrow(self, dim: int, start: int, length: int) -> Self:
        """`length` elements along `dim` from `start` on."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        first = start + n if start < 0 else start
        if not 0 <= first <= first + length <= n:
            raise IndexOutOfRange(f"Cannot take {length} elements from {start} of an axis of {n}.")
        return self._part(axis, first, first + length)

    def select(self, dim: int, index: int) -> Self:
        """Position `index` of axis `dim`, without that axis."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        if not self.ndim or not -n <= index < n:
            raise IndexOutOfRange(f"Index {index} is out of range for axis {dim} of {self.shape}.")
        at = index % n
        return self._part(axis, at, at + 1).squeeze(axis)

    def unbind(self, dim: int = 0) -> tuple[Self, ...]:
        """Every position along `dim`, without that axis."""
        if not self.ndim:
            raise ShapeError("A tensor without axes cannot be unbound.")
        return tuple(self.select(dim, i) for i in range(self._fixed(self._axis(dim))))

    def tensor_split(self, sections: int | Sequence[int], dim: int = 0) -> tuple[Self, ...]:
        """Parts along `dim`: so many of nearly equal size, or cut before the given positions."""
        axis = self._axis(dim)
        n = self._fixed(axis)
        if isinstance(sections, int):
            if sections < 1:
                raise ShapeError(f"tensor_split needs at least 1 part, not {sections}.")
            cuts = [i * (n // sections) + min(i, n % sections) for i in range(sections + 1)]
        else:
            inner = [min(n, max(0, c + n if c < 0 else c)) for c in sections]
            cuts = [0, *inner, n]
        return tuple(
            self._part(axis, start, max(start, stop))
            for start, stop in itertools.pairwise(cuts)
        )

    # ---- order of axes ----
    def movedim(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Self:
        """Axes at new places, the others in their order."""
        from_ = [self._axis(a) for a in ([source] if isinstance(source, int) else source)]
        at = [destination] if isinstance(destination, int) else destination
        to = [self._axis(a) for a in at]
        if len(set(from_)) != len(from_) or len(set(to)) != len(to) or len(from_) != len(to):
            raise ShapeError(f"movedim cannot move the axes {source} to {destination}.")
        rest = iter(axis for axis in range(self.ndim) if axis not in from_)
        place = dict(zip(to, from_, strict=True))
        return self.permute(
            tuple(place[axis] if axis in place else next(rest) for axis in range(self.ndim))
        )

    def rot90(self, k: int = 1, dims: Sequence[int] = (0, 1)) -> Self:
        """Turned by k quarters from the first towards the second of two axes."""
        a, b = self._two_axes(*dims)
        turned = self.flip((a, b)) if k % 4 in (2, 3) else self
        return turned.transpose(a, b).flip(a) if k % 2 else turned

    def rearrange(self, formula: str, **sizes: int) -> Self:
        """The axes named on the left of `formula` ordered and joined as on its right.

        "b (h w) c -> b c h w": parentheses join axes; all but one of a left group need a size;
        "..." stands for the axes not named.
        """
        left, arrow, right = formula.partition("->")
        if not arrow:
            raise ShapeError(f"rearrange needs an arrow in {formula!r}.")
        dots = [f"...{i}" for i in range(self.ndim - len(_groups(left, formula, [])))]
        groups, wanted = _groups(left, formula, dots), _groups(right, formula, dots)
        names = [name for group in groups for name in group]
        kept = [name for group in wanted for name in group]
        if len(groups) != self.ndim or sorted(names) != sorted(kept) or len({*names}) != len(names):
            raise ShapeError(f"rearrange {formula!r} does not fit a tensor of {self.shape}.")
        if set(sizes) - set(names):
            raise ShapeError(f"rearrange {formula!r} has sizes for axes that it does not name.")
        extents: dict[str, Extent] = {}
        for group, n in zip(groups, self.shape, strict=True):
            extents |= _group_extents(group, n, sizes, formula)
        x = self.reshape(tuple(extents[name] for name in names))
        x = x.permute(tuple(names.index(name) for name in kept))
        return x.reshape(tuple(product(extents[name] for name in group) for group in wanted))

    def sequential(self, ll: Iterable[Callable[[Self], Self]]) -> Self:
        """The functions applied one after the other."""
        x = self
        for function in ll:
            x = function(x)
        return x


def _groups(side: str, formula: str, dots: list[str]) -> list[list[str]]:
    """The axes on one side of a formula, alone or in groups; "..." stands for `dots`."""
    groups: list[list[str]] = []
    inside = False
    for token in re.findall(r"\.\.\.|\w+|\S", side):
        if token in "()":
            if inside is (token == "("):
                raise ShapeError(f"The parentheses of {formula!r} do not match.")
            inside = token == "("
            groups += [[]] * inside
        elif token != "..." and token != "1" and not token.isidentifier():
            raise ShapeError(f"rearrange cannot read {token!r} in {formula!r}.")
        else:
            names = dots if token == "..." else [] if token == "1" else [token]
            if inside:
                groups[-1] = groups[-1] + names
            else:
                groups += [[]] if token == "1" else [[name] for name in names]
    if inside:
        raise ShapeError(f"The parentheses of {formula!r} do not match.")
    return groups


def _group_extents(
    group: list[str], n: Extent, sizes: dict[str, int], formula: str
) -> dict[str, Extent]:
    """The extent of each name of a group that makes up an axis of n."""
    unknown = [name for name in group if name not in sizes]
    known = math.prod(sizes[name] for name in group if name in sizes)
    if len(group) == 1 and unknown:
        return {unknown[0]: n}
    if not isinstance(n, int):
        raise DtypeError(f"rearrange {formula!r} splits an axis that a Variable sizes.")
    if len(unknown) > 1 or (n % known if known else n) or (not unknown and known != n):
        raise ShapeError(f"rearrange {formula!r} cannot split {n} into {group} of {sizes}.")
    return {name: sizes[name] if name in sizes else n // max(known, 1) for name in group}
