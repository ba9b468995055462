"""Images in other sizes: interpolation, and channels that become pixels.

Where a result's element lies in the source is computed in float32, as PyTorch does, and known
before anything runs; what is left for the device is to gather and to weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from tinyhw.errors import DtypeError, ShapeError
from tinyhw.pooling import Pooling

CUBIC_A = -0.75  # of Keys' cubic convolution, as PyTorch has it
Array = np.ndarray[Any, Any]
Taps = list[tuple[Array, Array | None]]  # (positions, weights) that are summed; no weights are 1


class Resampling(Pooling):
    """Interpolation over the last axes."""

    __slots__ = ()

    def interpolate(
        self,
        size: int | Sequence[int] | None = None,
        mode: str = "linear",
        align_corners: bool = False,
        scale_factor: float | Sequence[float] | None = None,
    ) -> Self:
        """The last axes in another size, or that size times a factor.

        mode: "nearest", "nearest-exact", "linear" (also "bilinear", "trilinear"), "cubic" (also
        "bicubic") or "area". One number stands for all axes behind the first two.
        """
        if mode not in _TAPS and mode != "area":
            known = ", ".join((*_TAPS, "area"))
            raise DtypeError(f"interpolate has no mode {mode!r}; there are {known}.")
        if (size is None) == (scale_factor is None):
            raise ShapeError("interpolate needs either a size or a scale_factor.")
        if align_corners and mode.startswith(("nearest", "area")):
            raise DtypeError(f"align_corners has no meaning in the mode {mode!r}.")
        given: Any = size if scale_factor is None else scale_factor
        rank = max(1, self.ndim - 2) if isinstance(given, int | float) else len(given)
        if rank > self.ndim:
            raise ShapeError(f"interpolate over {rank} axes meets the shape {self.shape}.")
        numbers = [given] * rank if isinstance(given, int | float) else list(given)
        extents = [self._fixed(self.ndim - rank + i) for i in range(rank)]
        sizes = numbers if scale_factor is None else [
            math.floor(n * factor) for n, factor in zip(extents, numbers, strict=True)
        ]
        if any(not isinstance(n, int) or n < 1 for n in sizes) or 0 in extents:
            raise ShapeError(f"interpolate cannot make {sizes} of {self.shape}.")
        if mode == "area":
            return self.adaptive_avg_pool2d(tuple(sizes))
        x = self if mode.startswith("nearest") else self._float()
        for i, (n, count) in enumerate(zip(extents, sizes, strict=True)):
            scale = np.float32(n) / np.float32(count)
            if scale_factor is not None:
                scale = np.float32(1 / numbers[i])
            if align_corners:
                scale = np.float32(n - 1) / np.float32(max(count - 1, 1))
            place = np.arange(count, dtype=np.float32)
            taps = _TAPS[mode](place, scale, n, align_corners)
            x = x._weighted(self.ndim - rank + i, taps)
        return x

    def _weighted(self, axis: int, taps: Taps) -> Self:
        """The sum of the elements of `axis` at each tap's positions, weighted."""
        rows = self.movedim(axis, 0)
        total: Self | None = None
        for places, weights in taps:
            part = rows._at(self._upload(places.astype(np.int32), self.device))
            if weights is not None:
                factor = self._upload(weights.astype(np.float32), self.device).cast(self.dtype)
                part = part * factor.reshape((-1, *(1,) * (self.ndim - 1)))
            total = part if total is None else total + part
        assert total is not None
        return total.movedim(0, axis)

    def pixel_shuffle(self, upscale_factor: int) -> Self:
        """(..., c*r*r, h, w) as (..., c, h*r, w*r)."""
        r = upscale_factor
        if self.ndim < 3 or r < 1 or self._fixed(self.ndim - 3) % (r * r):
            raise ShapeError(f"pixel_shuffle by {r} does not divide the channels of {self.shape}.")
        return self.rearrange("... (c i j) h w -> ... c (h i) (w j)", i=r, j=r)

    def pixel_unshuffle(self, downscale_factor: int) -> Self:
        """(..., c, h*r, w*r) as (..., c*r*r, h, w)."""
        r = downscale_factor
        if self.ndim < 3 or r < 1 or any(self._fixed(self.ndim - a) % r for a in (1, 2)):
            raise ShapeError(f"pixel_unshuffle by {r} does not divide the pixels of {self.shape}.")
        return self.rearrange("... c (h i) (w j) -> ... (c i j) h w", i=r, j=r)


def _nearest(place: Array, scale: Any, n: int, align: bool) -> Taps:
    return [(np.minimum(np.floor(place * scale), n - 1), None)]


def _nearest_exact(place: Array, scale: Any, n: int, align: bool) -> Taps:
    return [(np.minimum(np.floor((place + np.float32(0.5)) * scale), n - 1), None)]


def _source(place: Array, scale: Any, align: bool) -> Array:
    """Where places of the result lie in the source."""
    half = np.float32(0.5)
    return np.asarray(place * scale if align else (place + half) * scale - half)


def _linear(place: Array, scale: Any, n: int, align: bool) -> Taps:
    at = np.maximum(_source(place, scale, align), np.float32(0))
    low = np.minimum(np.floor(at), n - 1)
    weight = at - low
    return [(low, 1 - weight), (np.minimum(low + 1, n - 1), weight)]


def _cubic(place: Array, scale: Any, n: int, align: bool) -> Taps:
    at = _source(place, scale, align)
    low = np.floor(at)
    t = at - low

    def near(d: Array) -> Array:
        return ((CUBIC_A + 2) * d - (CUBIC_A + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((CUBIC_A * d - 5 * CUBIC_A) * d + 8 * CUBIC_A) * d - 4 * CUBIC_A

    weights = (far(t + 1), near(t), near(1 - t), far(2 - t))
    return [(np.clip(low + i - 1, 0, n - 1), weight) for i, weight in enumerate(weights)]


_TAPS = {
    "nearest": _nearest, "nearest-exact": _nearest_exact, "linear": _linear, "bilinear": _linear,
    "trilinear": _linear, "cubic": _cubic, "bicubic": _cubic,
}  # fmt: skip
