"""What is in a window becomes one element."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiler.dtype import dtypes
from tinyhw.errors import ShapeError
from tinyhw.formats.onnx.operators.convolution import Pairs, window_pads
from tinyhw.formats.onnx.registry import Call, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor


class _Window:
    """A pooling's window over the axes behind the first two."""

    def __init__(self, call: Call, x: Tensor) -> None:
        self.extents = x._fixed_shape()[2:]
        self.kernel = call.ints("kernel_shape")
        rank = len(self.kernel)
        if rank != len(self.extents):
            raise ShapeError(f"A window of {rank} axes does not fit into {x.shape}.")
        self.strides = call.ints("strides", [1] * rank)
        self.dilations = call.ints("dilations", [1] * rank)
        self.pads = window_pads(call, self.extents, self.kernel, self.strides, self.dilations)
        ceil = bool(call.int("ceil_mode", 0)) and call.string("auto_pad", "NOTSET") == "NOTSET"
        # What ceil_mode adds behind the padding, so that a last partial window counts.
        self.extra = [
            _ceil_extra(n, pair, k, s, d) if ceil else 0
            for n, pair, k, s, d in zip(
                self.extents, self.pads, self.kernel, self.strides, self.dilations, strict=True
            )
        ]
        self.axes = tuple(range(-rank, 0))

    def padded(self, x: Tensor, value: float, pads: Pairs) -> Tensor:
        """x with margins of a value."""
        return x.pad([None, None, *pads], value=value)

    def windows(self, x: Tensor, value: float) -> Tensor:
        """The windows over x, as last axes."""
        pads = [(a, b + more) for (a, b), more in zip(self.pads, self.extra, strict=True)]
        x = self.padded(x, value, pads)
        return x.pool_windows(self.kernel, self.strides, self.dilations)

    def counts(self, x: Tensor, include_pad: bool) -> Tensor:
        """How many elements each window has; what ceil_mode added never counts."""
        ones = Tensor.ones((1, 1, *self.extents), dtype=x.dtype, device=x.device, buffer=False)
        inside = self.padded(ones, float(include_pad), self.pads)
        inside = self.padded(inside, 0.0, [(0, more) for more in self.extra])
        found = inside.pool_windows(self.kernel, self.strides, self.dilations)
        return found.sum(self.axes, dtype=x.dtype)


def _ceil_extra(n: int, pair: tuple[int, int], kernel: int, stride: int, dilation: int) -> int:
    span = dilation * (kernel - 1) + 1
    padded = n + sum(pair)
    count = math.ceil((padded - span) / stride) + 1
    if (count - 1) * stride >= n + pair[0]:  # it would start behind the last element
        count -= 1
    return max(0, (count - 1) * stride + span - padded)


@operator("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of each window."""
    window = _Window(call, x)
    total = window.windows(x, 0.0).sum(window.axes)
    return total / window.counts(x, bool(call.int("count_include_pad", 0)))


@operator("LpPool")
def lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of each window."""
    window = _Window(call, x)
    p = call.int("p", 2)
    return window.windows(x.abs().pow(p), 0.0).sum(window.axes).pow(1 / p)


@operator("MaxPool")
def max_pool(call: Call, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest element of each window, and its place among all elements of x."""
    window = _Window(call, x)
    least = x.dtype.min
    windows = window.windows(x, least)
    greatest = windows.max(window.axes)
    if not call.wants(1):
        return greatest
    column = bool(call.int("storage_order", 0))
    place = _places(x.shape, column, x.device)  # type: ignore[arg-type]
    nowhere = dtypes.int64.max
    places = window.windows(place, nowhere)
    rank = len(window.kernel)
    best = windows.eq(greatest.reshape((*greatest.shape, *(1,) * rank))) | windows.isnan()
    inside = best & places.ne(nowhere)
    return greatest, inside.where(places, nowhere).min(window.axes)


def _places(shape: Sequence[int], column: bool, device: str) -> Tensor:
    """The number of each element in row-major order, or with the spatial axes in column-major."""
    strides = [1] * len(shape)
    order = list(range(len(shape)))
    if column:
        order = [*order[:2], *order[2:][::-1]]
    step = 1
    for axis in order[::-1]:
        strides[axis], step = step, step * shape[axis]
    total: Tensor | None = None
    for axis, (n, stride) in enumerate(zip(shape, strides, strict=True)):
        along = [n if i == axis else 1 for i in range(len(shape))]
        part = Tensor.arange(n, dtype=dtypes.int64, device=device).reshape(along) * stride
        total = part if total is None else total + part
    assert total is not None
    return total


@operator("MaxUnpool", host=(2,))
def max_unpool(call: Call, x: Tensor, places: Tensor, shape: Array | None = None) -> Tensor:
    """The elements at places among all elements of the result; 0 elsewhere."""
    kernel = call.ints("kernel_shape")
    rank = len(kernel)
    strides, pads = call.ints("strides", [1] * rank), call.ints("pads", [0] * (2 * rank))
    inner = [
        (n - 1) * s - pads[i] - pads[rank + i] + k
        for i, (n, k, s) in enumerate(zip(x._fixed_shape()[2:], kernel, strides, strict=True))
    ]
    small = (*x._fixed_shape()[:2], *inner)
    wanted = small if shape is None else tuple(int_list(shape))
    empty = Tensor.zeros((math.prod(small),), dtype=x.dtype, device=x.device)
    found = empty.scatter(0, places.flatten(), x.flatten()).reshape(small)
    return found.pad([(0, n - m) for n, m in zip(wanted, small, strict=True)])


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of each channel."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """The greatest element of each channel."""
    return x.max(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of each channel."""
    p = call.int("p", 2)
    return x.abs().pow(p).sum(tuple(range(2, x.ndim)), keepdim=True).pow(1 / p)
