"""Convolutions, and the paddings that windows share."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.tensor import Tensor

Pairs = list[tuple[int, int]]


def window_pads(
    call: Call, extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int],
) -> Pairs:
    """(before, after) of each window axis, from `pads` or `auto_pad`."""
    rank = len(kernel)
    auto = call.string("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = call.ints("pads", [0] * (2 * rank))
        if len(pads) != 2 * rank:
            raise ShapeError(f"pads has {len(pads)} amounts for {rank} axes.")
        return list(zip(pads[:rank], pads[rank:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * rank
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise NotSupported(f"auto_pad has no mode {auto!r}.")
    found: Pairs = []
    for n, k, s, d in zip(extents, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        less = total // 2
        found.append((less, total - less) if auto == "SAME_UPPER" else (total - less, less))
    return found


def flat_pads(pairs: Pairs) -> list[int]:
    """The pairs as Tensor's methods take them: the last axis first."""
    return [amount for pair in pairs[::-1] for amount in pair]


@operator("Conv")
def conv(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Sliding products: x (batch, channels, ...), w (outputs, channels / group, ...)."""
    return convolve(call, x, w, b)


def convolve(call: Call, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """`conv` of any type."""
    kernel = w._fixed_shape()[2:]
    strides = call.ints("strides", [1] * len(kernel))
    dilations = call.ints("dilations", [1] * len(kernel))
    pairs = window_pads(call, x._fixed_shape()[2:], kernel, strides, dilations)
    return x.conv2d(w, b, call.int("group", 1), strides, dilations, flat_pads(pairs))


@operator("ConvInteger")
def conv_integer(
    call: Call, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """`conv` of 8-bit integers, in int32."""
    x, w = x.cast(dtypes.int32), w.cast(dtypes.int32)
    x = x if x_zero is None else x - x_zero.cast(dtypes.int32)
    if w_zero is not None:
        zero = w_zero.cast(dtypes.int32)
        w = w - (zero.reshape((-1, *(1,) * (w.ndim - 1))) if zero.ndim else zero)
    return convolve(call, x, w, None)


@operator("ConvTranspose")
def conv_transpose(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """The adjoint of `conv`; w (channels, outputs / group, ...)."""
    kernel, extents = w._fixed_shape()[2:], x._fixed_shape()[2:]
    rank = len(kernel)
    strides = call.ints("strides", [1] * rank)
    dilations = call.ints("dilations", [1] * rank)
    extra = call.ints("output_padding", [0] * rank)
    auto = call.string("auto_pad", "NOTSET")
    pads = call.ints("pads", [0] * (2 * rank))
    pairs: Pairs = list(zip(pads[:rank], pads[rank:], strict=True))
    wanted = call.ints("output_shape", ())
    if auto.startswith("SAME") and not wanted:
        wanted = [n * s for n, s in zip(extents, strides, strict=True)]
    if wanted:
        pairs = []
        for n, k, s, d, more, m in zip(
            extents, kernel, strides, dilations, extra, wanted[-rank:], strict=True
        ):
            total = s * (n - 1) + more + (k - 1) * d + 1 - m
            less, rest = total // 2, total - total // 2
            # What is left over is cut off in front, but for SAME_UPPER behind.
            pairs.append((less, rest) if auto == "SAME_UPPER" else (rest, less))
    # Nothing is cut off first: amounts may be negative, and output_padding wider than a stride.
    whole = x.conv_transpose2d(w, None, call.int("group", 1), strides, dilations)
    cut: Pairs = [(-pair[0], more - pair[1]) for pair, more in zip(pairs, extra, strict=True)]
    y = whole.pad([None, None, *cut])
    return y if b is None else y + b.reshape((1, -1, *(1,) * rank))
