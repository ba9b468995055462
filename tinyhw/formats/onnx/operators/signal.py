"""Spectra and windows."""

from __future__ import annotations

import math

import numpy as np

from compiler.dtype import DType, dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, Value, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor

MAX_LENGTH = 1 << 13  # of a transform, which is a product with a matrix of that many rows


def _circle(rows: int, columns: int, length: int, dtype: DType, device: str) -> tuple[
    Tensor, Tensor
]:
    """Cosine and sine of 2π·row·column/length, (rows, columns)."""
    if max(rows, columns, length) > MAX_LENGTH:
        raise NotSupported(f"A transform of {length} elements; the limit is {MAX_LENGTH}.")
    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    angle = turns * (2 * math.pi / length)
    cos, sin = (f(angle).astype(np.float64) for f in (np.cos, np.sin))
    return Tensor(cos, device).cast(dtype), Tensor(sin, device).cast(dtype)


def transform(x: Tensor, axis: int, length: int | None, inverse: bool, onesided: bool) -> Tensor:
    """The Fourier transform along an axis; the last axis holds real and imaginary parts."""
    axis = axis % x.ndim
    parts = x._fixed(x.ndim - 1)
    if axis == x.ndim - 1 or parts not in (1, 2):
        raise ShapeError(f"DFT along axis {axis} of {x.shape}: the last axis holds the parts.")
    given = x._fixed(axis)
    back = inverse and onesided
    n = (2 * (given - 1) if back else given) if length is None else length
    if n < 1:
        raise ShapeError(f"A transform of {n} elements.")
    rows = n // 2 + 1 if back else n
    pads: list[tuple[int, int] | None] = [None] * x.ndim
    pads[axis] = (0, rows - given)
    y = x.pad(pads).movedim(axis, -1)  # (..., parts, rows)
    real, imaginary = y.select(-2, 0), y.select(-2, 1) if parts == 2 else None
    if back:
        cos, sin = _circle(rows, n, n, x.dtype, x.device)
        share = np.full((rows, 1), 2.0 / n, np.float32)
        share[0] = 1 / n
        if n % 2 == 0:
            share[-1] = 1 / n
        weight = Tensor(share, x.device).cast(x.dtype)
        found = real.matmul(cos * weight)
        if imaginary is not None:
            found = found - imaginary.matmul(sin * weight)
        return found.unsqueeze(-1).movedim(-2, axis)
    columns = n // 2 + 1 if onesided else n
    cos, sin = _circle(rows, columns, n, x.dtype, x.device)
    sin = sin if inverse else -sin
    re, im = real.matmul(cos), real.matmul(sin)
    if imaginary is not None:
        re, im = re - imaginary.matmul(sin), im + imaginary.matmul(cos)
    found = re.stack(im, dim=-1)
    return (found / n if inverse else found).movedim(-2, axis)


@operator("DFT", since=20, host=(1, 2))
def dft(
    call: Call, x: Tensor, length: Array | None = None, axis: Array | None = None
) -> Tensor:
    """`transform`, with the axis as an input."""
    along = -2 if axis is None else int_list(axis)[0]
    return _dft(call, x, length, along)


@operator("DFT", host=(1,))
def dft_by_attribute(call: Call, x: Tensor, length: Array | None = None) -> Tensor:
    """`transform`, with the axis as an attribute."""
    return _dft(call, x, length, call.int("axis", 1))


def _dft(call: Call, x: Tensor, length: Array | None, axis: int) -> Tensor:
    n = None if length is None else int_list(length)[0]
    return transform(x, axis, n, bool(call.int("inverse", 0)), bool(call.int("onesided", 0)))


@operator("STFT", host=(1, 3))
def stft(
    call: Call, x: Tensor, step: Array, window: Tensor | None = None, length: Array | None = None
) -> Tensor:
    """Transforms of windows of a signal, (batch, frames, bins, 2)."""
    n = x._fixed(1) if length is None else int_list(length)[0]
    if length is None and window is not None:
        n = window._fixed(0)
    frames = x.unfold(1, n, int_list(step)[0]).transpose(-1, -2)  # (batch, frames, n, parts)
    if window is not None:
        frames = frames * window.reshape((1, 1, n, 1))
    return transform(frames, 2, None, False, bool(call.int("onesided", 1)))


_COSINES = {"HannWindow": (0.5, 0.5, 0.0), "HammingWindow": (25 / 46, 21 / 46, 0.0),
            "BlackmanWindow": (0.42, 0.5, 0.08)}


@operator(*_COSINES, host=(0,))
def window_of_cosines(call: Call, size: Array) -> Tensor:
    """A window that is a sum of cosines."""
    n = int_list(size)[0]
    span = n if call.int("periodic", 1) else max(n - 1, 1)
    a, b, c = _COSINES[call.node.op_type]
    angle = Tensor.arange(n, device=call.run.device).cast(dtypes.float32) * (2 * math.pi / span)
    found = a - angle.cos() * b + ((angle * 2).cos() * c if c else 0)
    return found.cast(call.dtype("output_datatype", dtypes.float32))


@operator("MelWeightMatrix", host=(0, 1, 2, 3, 4))
def mel_weight_matrix(
    call: Call, bands: Array, length: Array, rate: Array, low: Array, high: Array
) -> Value:
    """Triangles on the mel scale, (length // 2 + 1, bands)."""
    count, n = int_list(bands)[0], int_list(length)[0]
    if not 0 < count <= MAX_LENGTH or not 0 < n <= MAX_LENGTH:
        raise NotSupported(f"{count} bands of {n} elements; the limit is {MAX_LENGTH}.")
    bins = n // 2 + 1
    edges = 2595 * np.log10(1 + np.array([low.item(), high.item()]) / 700)
    mel = edges[0] + np.arange(count + 2) * (edges[1] - edges[0]) / (count + 2)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    place = ((n + 1) * hertz // int_list(rate)[0]).astype(np.int64)
    found = np.zeros((bins, count))
    for i in range(count):
        start, middle, end = place[i : i + 3]
        if start == middle:
            found[middle, i] = 1
        else:
            rising = np.arange(start, middle + 1)
            found[start : middle + 1, i] = (rising - start) / (middle - start)
        if middle != end:
            falling = np.arange(middle, end)
            found[middle:end, i] = (end - falling) / (end - middle)
    return Tensor(found.astype(np.float32), call.run.device).cast(
        call.dtype("output_datatype", dtypes.float32)
    )
