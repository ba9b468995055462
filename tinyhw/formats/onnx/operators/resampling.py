"""Tensors in other sizes, and read at positions between elements.

Where an element of a resized tensor lies in the source is known before anything runs; what is
left for the device is to gather and to weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor

MODES = ("nearest", "linear", "cubic")


@dataclass(frozen=True)
class _Axis:
    """One axis to resize: from n to `count` elements at `scale`, of the part [start, end]."""

    n: int
    count: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    def places(self, mode: str) -> Array:
        """Where each element of the result lies in the source, (count,) float32.

        In float32, as other implementations have it: between two elements the nearest one hangs
        on the last bit.
        """
        x = np.arange(self.count, dtype=np.float32)
        scale = np.float32(self.scale)
        half = (x + np.float32(0.5)) / scale - np.float32(0.5)
        if mode == "half_pixel":
            return half
        if mode == "half_pixel_symmetric":
            return half + self.n / 2 * (1 - self.count / (self.scale * self.n))
        if mode == "pytorch_half_pixel":
            return half if self.count > 1 else 0 * x
        if mode == "align_corners":
            return x * ((self.n - 1) / max(self.count - 1, 1))
        if mode == "asymmetric":
            return x / scale
        if mode == "tf_half_pixel_for_nn":  # until version 12
            return (x + np.float32(0.5)) / scale
        if mode == "tf_crop_and_resize":
            if self.count == 1:
                return 0 * x + 0.5 * (self.start + self.end) * (self.n - 1)
            step = (self.end - self.start) * (self.n - 1) / (self.count - 1)
            return self.start * (self.n - 1) + x * step
        raise NotSupported(f"Resize has no coordinate_transformation_mode {mode!r}.")


def _nearest(places: Array, mode: str) -> Array:
    if mode == "round_prefer_floor":
        return np.ceil(places - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(places + 0.5)
    if mode in ("floor", "ceil"):
        return np.floor(places) if mode == "floor" else np.ceil(places)
    raise NotSupported(f"Resize has no nearest_mode {mode!r}.")


def _cubic(d: Array, a: float) -> Array:
    """Keys' cubic at a distance."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _weights(call: Call, axis: _Axis, places: Array, mode: str) -> tuple[Array, Array]:
    """Positions and weights of what each element is made of, both (count, taps)."""
    stretch = min(axis.scale, 1.0) if call.int("antialias", 0) else 1.0
    reach = 1 if mode == "linear" else 2
    side = math.ceil(reach / stretch)
    at = np.floor(places)[:, None] + np.arange(1 - side, side + 1)
    distance = np.abs(places[:, None] - at) * stretch
    if mode == "linear":
        weights = np.maximum(1 - distance, 0)
    else:
        weights = _cubic(distance, call.float("cubic_coeff_a", -0.75))
    if call.int("exclude_outside", 0):
        weights = np.where((at >= 0) & (at < axis.n), weights, 0)
    return at, weights / weights.sum(1, keepdims=True)


def _resized(call: Call, x: Tensor, axes: dict[int, _Axis], mode: str, transform: str) -> Tensor:
    """x with some axes resized."""
    if mode not in MODES:
        raise NotSupported(f"Resize has no mode {mode!r}; there are {', '.join(MODES)}.")
    dtype = x.dtype
    if mode != "nearest" and (not dtypes.is_float(dtype) or dtype.bits < 32):
        x = x.cast(dtypes.float32)
    for axis, how in axes.items():
        if not how.n or not how.count:
            raise ShapeError(f"Resize cannot make {how.count} of {how.n} elements.")
        places = how.places(transform)
        if mode == "nearest":
            default = "floor" if call.version < 11 else "round_prefer_floor"
            at = _nearest(places, call.string("nearest_mode", default))
            x = x._weighted(axis, [(np.clip(at, 0, how.n - 1), None)])
        else:
            taps, weights = _weights(call, how, places, mode)
            taps = np.clip(taps, 0, how.n - 1)
            used = [i for i in range(taps.shape[1]) if weights[:, i].any()]
            x = x._weighted(axis, [(taps[:, i], weights[:, i]) for i in used])
        if transform == "tf_crop_and_resize":
            outside = Tensor((places < 0) | (places > how.n - 1), x.device)
            shape = [how.count if i == axis else 1 for i in range(x.ndim)]
            x = outside.reshape(shape).where(call.float("extrapolation_value", 0.0), x)
    return x.cast(dtype)


@operator("Resize", since=11, host=(1, 2, 3))
def resize(
    call: Call, x: Tensor, roi: Array | None = None, scales: Array | None = None,
    sizes: Array | None = None,
) -> Tensor:
    """x in another size, given as such or as multiples."""
    axes = [axis % x.ndim for axis in call.ints("axes", range(x.ndim))]
    transform = call.string("coordinate_transformation_mode", "half_pixel")
    crop = transform == "tf_crop_and_resize"
    starts, ends = [0.0] * len(axes), [1.0] * len(axes)
    if crop:
        if roi is None or roi.size != 2 * len(axes):
            raise ShapeError("tf_crop_and_resize needs a region with two ends for each axis.")
        starts, ends = (list(map(float, part)) for part in np.split(roi.reshape(-1), 2))
    extents = [x._fixed(axis) for axis in axes]
    if scales is not None and scales.size:
        factors = [float(s) for s in scales.reshape(-1)]
        counts = [
            math.floor(n * (end - start) * f)
            for n, f, start, end in zip(extents, factors, starts, ends, strict=True)
        ]
    else:
        wanted = int_list(sizes)
        factors = [w / max(n, 1) for w, n in zip(wanted, extents, strict=True)]
        policy = call.string("keep_aspect_ratio_policy", "stretch")
        if policy in ("not_larger", "not_smaller"):
            one = min(factors) if policy == "not_larger" else max(factors)
            factors = [one] * len(axes)
            wanted = [math.floor(n * one + 0.5) for n in extents]
        elif policy != "stretch":
            raise NotSupported(f"Resize has no keep_aspect_ratio_policy {policy!r}.")
        counts = wanted
    if any(f <= 0 for f in factors):
        raise ShapeError(f"Resize needs scales above 0, not {factors}.")
    todo = {
        axis: _Axis(n, count, f, start, end)
        for axis, n, count, f, start, end in zip(
            axes, extents, counts, factors, starts, ends, strict=True
        )
        if crop or count != n or f != 1
    }
    return _resized(call, x, todo, call.string("mode", "nearest"), transform)


@operator("Resize", since=10, host=(1,))
@operator("Upsample", host=(1,))
def upsample(call: Call, x: Tensor, scales: Array | None = None) -> Tensor:
    """x in multiples of its size."""
    factors = call.floats("scales") if scales is None else list(map(float, scales.reshape(-1)))
    if any(f <= 0 for f in factors):
        raise ShapeError(f"Upsample needs scales above 0, not {factors}.")
    extents = x._fixed_shape()
    todo = {
        axis: _Axis(n, math.floor(n * f), f)
        for axis, (n, f) in enumerate(zip(extents, factors, strict=True)) if f != 1
    }
    mode = call.string("mode", "nearest").replace("bilinear", "linear")
    return _resized(call, x, todo, mode, "asymmetric")


_SAMPLING = {"linear": "bilinear", "cubic": "bicubic"}


@operator("GridSample")
def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """x read where a grid says, from -1 to 1 along each axis."""
    mode = call.string("mode", "bilinear" if call.version < 20 else "linear")
    wide = dtypes.float64 if x.dtype is dtypes.float64 else dtypes.float32
    found = x.cast(wide).grid_sample(
        grid.cast(wide), _SAMPLING.get(mode, mode), call.string("padding_mode", "zeros"),
        bool(call.int("align_corners", 0)),
    )
    return found.cast(x.dtype)


@operator("AffineGrid", host=(1,))
def affine_grid(call: Call, theta: Tensor, size: Array) -> Tensor:
    """The grid for `grid_sample` of an affine map."""
    return theta.affine_grid(int_list(size), bool(call.int("align_corners", 0)))


def between(place: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """The two elements that a position lies between, with weights."""
    low = place.floor()
    part = place - low
    return [(low, 1 - part), (low + 1, part)]


@operator("DeformConv")
def deform_conv(
    call: Call, x: Tensor, w: Tensor, offset: Tensor, bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """A convolution each of whose elements is read at an offset of its own."""
    kernel, spatial = w._fixed_shape()[2:], x._fixed_shape()[2:]
    rank, batch = len(kernel), x._fixed(0)
    outputs = offset._fixed_shape()[2:]
    strides, dilations = call.ints("strides", [1] * rank), call.ints("dilations", [1] * rank)
    pads = call.ints("pads", [0] * (2 * rank))
    groups, shares = call.int("group", 1), call.int("offset_group", 1)
    taps = math.prod(kernel)
    moved = offset.reshape((batch, shares, taps, rank, *outputs))
    inside = (outputs[0] * taps, *outputs[1:])
    columns = []
    for share, part in enumerate(x.chunk(shares, 1)):
        places: list[list[tuple[Tensor, Tensor | None]]] = []
        for axis in range(rank):
            base = _window_places(
                axis, kernel, outputs, strides[axis], dilations[axis], pads[axis]
            )
            at = moved[:, share, :, axis] + Tensor(base, x.device).cast(offset.dtype)
            places.append(between(at.reshape((batch, *inside))))
        found = part._at_taps(places, list(spatial))
        found = found.reshape((batch, part._fixed(1), taps, *outputs))
        if mask is not None:
            found = found * mask.reshape((batch, shares, 1, taps, *outputs))[:, share]
        columns.append(found)
    whole = columns[0].cat(*columns[1:], dim=1)  # (batch, channels, taps, ...)
    flat = whole.reshape((batch, groups, -1, math.prod(outputs)))
    weight = w.reshape((groups, w._fixed(0) // groups, -1))
    y = weight.unsqueeze(0).matmul(flat).reshape((batch, w._fixed(0), *outputs))
    return y if bias is None else y + bias.reshape((1, -1, *(1,) * rank))


def _window_places(
    axis: int, kernel: Sequence[int], outputs: Sequence[int], stride: int, dilation: int, pad: int
) -> Array:
    """Where each tap of each window stands along an axis, (taps, *outputs)."""
    rank = len(kernel)
    tap = np.indices(tuple(kernel))[axis].reshape((-1, *(1,) * rank)) * dilation
    place: Array = tap + np.indices(tuple(outputs))[axis][None] * stride - pad
    return place.astype(np.float32)


@operator("Col2Im", host=(1, 2))
def col2im(call: Call, x: Tensor, image: Array, block: Array) -> Tensor:
    """Columns added up where their blocks lie in an image."""
    rank = image.size
    pads = call.ints("pads", [0] * (2 * rank))
    flat = [amount for i in range(rank)[::-1] for amount in (pads[i], pads[rank + i])]
    return x.fold(
        int_list(image), int_list(block), call.ints("dilations", [1] * rank), flat,
        call.ints("strides", [1] * rank),
    )
