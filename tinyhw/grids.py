"""Images read where a grid says, as PyTorch's grid_sample does.

Positions run from -1 to 1 over each axis, the last axis's first. A pixel is looked up by GATHER,
where one outside the image reads 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from compiler.dtype import dtypes
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.movement import product
from tinyhw.resampling import CUBIC_A, Resampling

PADDINGS = ("zeros", "border", "reflection")

T = TypeVar("T", bound="Grids")


class Grids(Resampling):
    """Sampling at positions that are data."""

    __slots__ = ()

    def affine_grid(self, size: Sequence[int], align_corners: bool = False) -> Self:
        """The grid for `grid_sample` that an affine map of the result's positions gives.

        self: (batch, 2, 3) for a size (batch, channels, height, width), or (batch, 3, 4) for one
        with a depth. Gives (batch, height, width, 2) or (batch, depth, height, width, 3).
        """
        spatial = list(size[2:])
        rank = len(spatial)
        fits = rank in (2, 3) and self.shape == (size[0], rank, rank + 1)
        if not fits or min(size) < 1:
            raise ShapeError(
                f"affine_grid takes (batch, 2, 3) for four extents or (batch, 3, 4) for five, not "
                f"{self.shape} for {tuple(size)}."
            )
        columns = []
        for axis in range(rank - 1, -1, -1):
            n = spatial[axis]
            place = self._iota(n).cast(self.dtype)
            steps = max(n - 1, 1) if align_corners else n
            line = (2 * place - (n - 1)) / steps
            shape = [n if a == axis else 1 for a in range(rank)]
            columns.append(line.reshape(tuple(shape))._broadcast_to(tuple(spatial)))
        columns.append(columns[0].const_like(1))
        base = columns[0].stack(*columns[1:], dim=-1).reshape((1, -1, rank + 1))
        grid = base.matmul(self.transpose(1, 2))
        return grid.reshape((size[0], *spatial, rank))

    def grid_sample(
        self,
        grid: Self,
        mode: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
    ) -> Self:
        """The image's values at the positions of `grid`.

        self: (batch, channels, height, width) with grid (batch, h, w, 2), or both with a depth.
        mode: "bilinear", "nearest" or, of images without depth, "bicubic". padding_mode: "zeros",
        "border" or "reflection" beyond the edges; align_corners: -1 and 1 are the middles of the
        outermost pixels, not their outer edges.
        """
        rank = self.ndim - 2
        spatial = [self._fixed(axis) for axis in range(2, self.ndim)]
        if rank not in (2, 3) or grid.ndim != self.ndim or grid.shape[-1] != rank or (
            grid.shape[0] != self.shape[0] or 0 in spatial
        ):
            raise ShapeError(
                f"grid_sample takes (batch, channels, height, width) and (batch, h, w, 2), or both "
                f"with a depth, not {self.shape} and {grid.shape}."
            )
        if self.dtype is not grid.dtype or not dtypes.is_float(self.dtype):
            raise DtypeError(
                f"grid_sample takes floats of one type, not {self.dtype} and {grid.dtype}."
            )
        if mode not in ("bilinear", "nearest", "bicubic") or (mode == "bicubic" and rank == 3):
            raise DtypeError(f"grid_sample has no mode {mode!r} for {rank} axes.")
        if padding_mode not in PADDINGS:
            known = ", ".join(PADDINGS)
            raise DtypeError(f"grid_sample's padding_mode is one of {known}, not {padding_mode!r}.")
        taps = []
        for axis, n in enumerate(spatial):
            place = grid.select(-1, rank - 1 - axis)
            at = (place + 1) * ((n - 1) / 2) if align_corners else ((place + 1) * n - 1) * 0.5

            def kept(x: Self, n: int = n) -> Self:
                return _padded(x, n, padding_mode, align_corners)

            taps.append(_taps(at, kept, mode))
        return self._at_taps(taps, spatial)

    def _at_taps(self, taps: list[list[tuple[Self, Self | None]]], spatial: list[int]) -> Self:
        """The sum over one tap of each axis of the pixel there, weighted with their product."""
        batch = self._fixed(0)
        rows = self.movedim(1, -1).reshape((batch * product(spatial), self.shape[1]))
        total: Self | None = None
        for chosen in itertools.product(*taps):
            flat = self._iota(batch).reshape((batch, *(1,) * len(spatial)))
            inside: Self | None = None
            weight: Self | None = None
            for n, (place, part) in zip(spatial, chosen, strict=True):
                valid = (place >= 0) & (place <= n - 1)
                inside = valid if inside is None else inside & valid
                flat = flat * n + valid.where(place, 0).cast(dtypes.int32)
                if part is not None:
                    weight = part if weight is None else weight * part
            assert inside is not None
            found = rows._at(inside.where(flat, -1))
            found = found if weight is None else found * weight.unsqueeze(-1)
            total = found if total is None else total + found
        assert total is not None
        return total.movedim(-1, 1)


def _taps(at: T, kept: Callable[[T], T], mode: str) -> list[tuple[T, T | None]]:
    """The (pixel, weight) pairs along one axis; `kept` brings a position into the image."""
    if mode == "nearest":
        return [(kept(at).detach().round(), None)]
    if mode == "bilinear":
        at = kept(at)
        low = at.detach().floor()
        weight = at - low
        return [(low, 1 - weight), (low + 1, weight)]
    low = at.detach().floor()
    t = at - low
    weights = (_far(t + 1), _near(t), _near(1 - t), _far(2 - t))
    return [(kept(low + (i - 1)), weight) for i, weight in enumerate(weights)]


def _near(d: T) -> T:
    """Keys' cubic up to 1 from its middle."""
    return ((CUBIC_A + 2) * d - (CUBIC_A + 3)) * d * d + 1


def _far(d: T) -> T:
    """Keys' cubic from 1 to 2 from its middle."""
    return ((CUBIC_A * d - 5 * CUBIC_A) * d + 8 * CUBIC_A) * d - 4 * CUBIC_A


def _padded(x: T, n: int, padding_mode: str, align_corners: bool) -> T:
    """Positions along an axis of n pixels as the padding takes them."""
    if padding_mode == "zeros":
        return x
    if padding_mode == "reflection":
        low, span = (0.0, n - 1.0) if align_corners else (-0.5, float(n))
        if not span:
            return x.const_like(0)
        away = (x - low).abs()
        turns = (away.detach() / span).floor()
        rest = away - turns * span
        odd = (turns * 0.5).floor().ne(turns * 0.5)
        x = odd.where(span - rest, rest) + low
    return x.clamp(0, n - 1)
