"""Where elements lie: order, parts, joins, margins, repeats."""

from __future__ import annotations

import numpy as np

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.folding import equal_parts, slices
from tinyhw.formats.onnx.registry import Call, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor


@operator("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    """The axes in another order, reversed unless told."""
    return x.permute(tuple(call.ints("perm", range(x.ndim)[::-1])))


@operator("Concat")
def concat(call: Call, *parts: Tensor) -> Tensor:
    """One tensor behind the other along an axis."""
    return parts[0].cat(*parts[1:], dim=call.int("axis", 1))


@operator("Split", host=(1,))
def split(call: Call, x: Tensor, sizes: Array | None = None) -> tuple[Tensor, ...]:
    """Parts along an axis, of given sizes or all of one."""
    axis = call.int("axis", 0)
    given = call.ints("split", ()) if sizes is None else int_list(sizes)
    if not given:
        given = equal_parts(x._fixed(axis), call.int("num_outputs", call.outputs))
    return tuple(x.split(given, axis))


@operator("Slice", host=(1, 2, 3, 4))
def slice_(call: Call, x: Tensor, *given: Array | None) -> Tensor:
    """Parts of axes, forwards or backwards, with steps."""
    return x[slices(call, x._fixed_shape(), given)]


@operator("Tile", host=(1,))
def tile(call: Call, x: Tensor, repeats: Array) -> Tensor:
    """The whole repeated along each axis."""
    return x.repeat(tuple(int_list(repeats)))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad", host=(1, 2, 3))
def pad(
    call: Call, x: Tensor, amounts: Array | None = None, value: Array | None = None,
    axes: Array | None = None,
) -> Tensor:
    """Elements added (taken, where negative) before and after."""
    given = call.ints("pads", ()) if amounts is None else int_list(amounts)
    over = list(range(x.ndim)) if axes is None else int_list(axes)
    if len(given) != 2 * len(over):
        raise ShapeError(f"pads has {len(given)} amounts for {len(over)} axes.")
    pairs: list[tuple[int, int] | None] = [None] * x.ndim
    for i, axis in enumerate(over):
        pairs[axis] = (given[i], given[len(over) + i])
    mode = call.string("mode", "constant")
    if mode not in _PAD_MODES:
        raise NotSupported(f"Pad has no mode {mode!r}; there are {', '.join(_PAD_MODES)}.")
    fill = call.float("value", 0.0) if value is None else value.reshape(()).item()
    if mode == "constant" and x.dtype is dtypes.bool:
        return x.cast(dtypes.uint8).pad(pairs, value=int(fill)).ne(0)
    return x.pad(pairs, _PAD_MODES[mode], fill)


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Channels that become blocks of pixels."""
    b = call.int("blocksize")
    n, c, h, w = x._fixed_shape()
    if call.string("mode", "DCR") == "DCR":
        blocks = x.reshape((n, b, b, c // (b * b), h, w)).permute((0, 3, 4, 1, 5, 2))
    else:
        blocks = x.reshape((n, c // (b * b), b, b, h, w)).permute((0, 1, 4, 2, 5, 3))
    return blocks.reshape((n, c // (b * b), h * b, w * b))


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """Blocks of pixels that become channels."""
    b = call.int("blocksize")
    n, c, h, w = x._fixed_shape()
    blocks = x.reshape((n, c, h // b, b, w // b, b))
    first = blocks.permute((0, 1, 3, 5, 2, 4)) if call.string("mode", "DCR") == "CRD" else (
        blocks.permute((0, 3, 5, 1, 2, 4))
    )
    return first.reshape((n, c * b * b, h // b, w // b))


@operator("Trilu", host=(1,))
def trilu(call: Call, x: Tensor, k: Array | None = None) -> Tensor:
    """The upper or lower triangle, from diagonal k on; the rest is 0."""
    diagonal = 0 if k is None else int_list(k)[0]
    if x.dtype is dtypes.bool:
        return trilu_numbers(call, x.cast(dtypes.uint8), diagonal).ne(0)
    return trilu_numbers(call, x, diagonal)


def trilu_numbers(call: Call, x: Tensor, diagonal: int) -> Tensor:
    """`trilu` of numbers."""
    if 0 in x.shape:
        return x
    return x.triu(diagonal) if call.int("upper", 1) else x.tril(diagonal)


@operator("CenterCropPad", host=(1,))
def center_crop_pad(call: Call, x: Tensor, extents: Array) -> Tensor:
    """The middle in other extents: cropped where it is longer, padded with 0 where shorter."""
    axes = call.ints("axes", range(x.ndim))
    pairs: list[tuple[int, int] | None] = [None] * x.ndim
    for axis, wanted in zip(axes, int_list(extents), strict=True):
        n = x._fixed(axis)
        missing = wanted - n
        before = missing // 2 if missing > 0 else -(-missing // 2)
        pairs[axis] = (before, missing - before)
    return x.pad(pairs)


@operator("ReverseSequence", host=(1,))
def reverse_sequence(call: Call, x: Tensor, lengths: Array) -> Tensor:
    """The first elements of each sequence of a batch backwards, as many as it is long."""
    batch, time = call.int("batch_axis", 1), call.int("time_axis", 0)
    steps = x._fixed(time)
    place = np.arange(steps)[None].repeat(x._fixed(batch), 0)
    ends = lengths.reshape(-1, 1)
    order = np.where(place < ends, ends - 1 - place, place)  # (batch, time)
    index = Tensor(order.astype(np.int32), x.device)
    index = index if batch < time else index.transpose(0, 1)
    full = [1] * x.ndim
    full[batch], full[time] = x._fixed(batch), steps
    return x.gather(time, index.reshape(full).expand(x.shape))


@operator("Compress", host=(1,))
def compress(call: Call, x: Tensor, condition: Array) -> Tensor:
    """The parts along an axis for which a condition holds."""
    y, axis = (x, call.int("axis")) if call.has("axis") else (x.flatten(), 0)
    chosen = np.flatnonzero(condition)
    return y.index_select(axis, Tensor(chosen.astype(np.int32), x.device))
