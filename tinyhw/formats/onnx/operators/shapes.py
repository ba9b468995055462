"""Shapes as values, and tensors made of shapes: known before anything runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.dtype import dtypes
from tinyhw.errors import ShapeError
from tinyhw.formats.onnx.folding import resolved_shape
from tinyhw.formats.onnx.model import SparseTensorProto, TensorProto
from tinyhw.formats.onnx.registry import Call, Value, element_type, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor


@operator("Shape", as_is=(0,))
def shape(call: Call, x: Tensor | Array) -> Array:
    """The extents, from axis `start` to before `end`."""
    start, end = call.int("start", 0), call.int("end", len(x.shape))
    return np.array(x.shape[slice(start, end)], np.int64)


@operator("Size", as_is=(0,))
def size(call: Call, x: Tensor | Array) -> Array:
    """The number of elements."""
    return np.array(math.prod(x.shape), np.int64)


@operator("Constant")
def constant(call: Call) -> Value:
    """A value that stands in the file."""
    for name, value in call.attributes.items():
        if isinstance(value, TensorProto | SparseTensorProto):
            return call.run.stored(value)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise ShapeError("A Constant without a number.")


@operator("ConstantOfShape", host=(0,))
def constant_of_shape(call: Call, extents: Array) -> Tensor:
    """One value in a shape."""
    value: Any = np.zeros(1, np.float32)
    if call.has("value"):
        value = call.run.stored(call.attributes["value"])
    return call.run.tensor(value).reshape(()).expand(tuple(int_list(extents)))


@operator("Reshape", host=(1,))
def reshape(call: Call, x: Tensor, extents: Array | None = None) -> Tensor:
    """The elements in another shape."""
    given = call.ints("shape") if extents is None else int_list(extents)
    old = x._fixed_shape()
    return x.reshape(resolved_shape(old, given, bool(call.int("allowzero", 0))))


@operator("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    """Two axes: those before `axis`, and the others."""
    axis = call.int("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    first = math.prod(x.shape[:axis])
    return x.reshape((first, math.prod(x.shape[axis:])))


@operator("Squeeze", host=(1,))
def squeeze(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """Without axes of one element."""
    given = call.ints("axes", ()) if axes is None else int_list(axes)
    if not given:
        return x.squeeze()
    over = {axis % max(x.ndim, 1) for axis in given}
    if any(x.shape[axis] != 1 for axis in over):
        raise ShapeError(f"Axes {given} of {x.shape} have more than one element.")
    return x.reshape([n for i, n in enumerate(x.shape) if i not in over])


@operator("Unsqueeze", host=(1,))
def unsqueeze(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """With axes of one element, at places in the result."""
    given = call.ints("axes") if axes is None else int_list(axes)
    rank = x.ndim + len(given)
    places = {axis + rank if axis < 0 else axis for axis in given}
    if len(places) != len(given) or not all(0 <= axis < rank for axis in places):
        raise ShapeError(f"Axes {given} do not fit {rank} axes.")
    extents = iter(x.shape)
    return x.reshape([1 if i in places else next(extents) for i in range(rank)])


@operator("Expand", host=(1,))
def expand(call: Call, x: Tensor, extents: Array) -> Tensor:
    """Broadcast with a shape; either may have the 1."""
    return x._broadcast_to(np.broadcast_shapes(x._fixed_shape(), tuple(int_list(extents))))


@operator("Range", as_is=(0, 1, 2))
def ranges(call: Call, start: Value, limit: Value, delta: Value) -> Tensor:
    """Numbers from `start` to before `limit`, `delta` apart."""
    first, last, step = (call.scalar(x) for x in (start, limit, delta))
    if not step:
        raise ShapeError("A range needs a step that is not 0.")
    count = max(math.ceil((last - first) / step), 0)
    dtype = call.run.tensor(start).dtype
    wide = dtype if dtypes.is_int(dtype) or dtype.bits > 32 else dtypes.float32
    places = Tensor.arange(count, dtype=wide, device=call.run.device)
    found: Tensor = (places * step + first).cast(dtype)
    return found


@operator("EyeLike")
def eye_like(call: Call, x: Tensor) -> Tensor:
    """Ones on the diagonal `k` of a matrix of that shape."""
    dtype = element_type(call.int("dtype")) if call.has("dtype") else x.dtype
    rows, columns = x._fixed_shape()
    row = Tensor.arange(rows, device=x.device).reshape((rows, 1))
    column = Tensor.arange(columns, device=x.device)
    return (column - row).eq(call.int("k", 0)).cast(dtype)


@operator("OneHot", host=(1,))
def one_hot(call: Call, indices: Tensor, depth: Array, values: Tensor) -> Tensor:
    """Along a new axis values[1] at the position that an index names, values[0] elsewhere."""
    count = int_list(depth)[0]
    rank = indices.ndim + 1
    axis = call.int("axis", -1)
    axis = axis + rank if axis < 0 else axis
    chosen = indices.cast(dtypes.int64)
    chosen = (chosen < 0).where(chosen + count, chosen).unsqueeze(axis)
    place = Tensor.arange(count, device=indices.device, dtype=dtypes.int64)
    hit = chosen.eq(place.reshape([count if i == axis else 1 for i in range(rank)]))
    return hit.where(values[1], values[0])
