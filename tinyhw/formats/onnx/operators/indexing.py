"""Reading and writing at positions; sorting."""

from __future__ import annotations

import math

import numpy as np

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, Value, int_list, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor


def from_front(index: Tensor, extent: int) -> Tensor:
    """Positions as they count from the front; negative ones count from behind."""
    wide = index.cast(dtypes.int64)
    return (wide < 0).where(wide + extent, wide)


@operator("Gather", as_is=(1,))
def gather(call: Call, x: Tensor, indices: Tensor | Array) -> Tensor:
    """The parts of an axis at positions."""
    axis = call.int("axis", 0) % x.ndim
    n = x._fixed(axis)
    before: tuple[slice, ...] = (slice(None),) * axis
    if isinstance(indices, np.ndarray):
        if not indices.ndim:
            return x[(*before, int(indices))]
        if indices.size and (indices.min() < -n or indices.max() >= n):
            raise ShapeError(f"Positions {indices.min()} to {indices.max()} of an axis of {n}.")
        chosen = np.where(indices < 0, indices + n, indices).astype(np.int32)
        return x[(*before, Tensor(chosen, x.device))]
    return x[(*before, from_front(indices, n))]


@operator("GatherElements")
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """At each place the element whose position along an axis is given."""
    axis = call.int("axis", 0)
    return x.gather(axis, from_front(indices, x._fixed(axis)))


@operator("GatherND")
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """The parts of x at positions along its first axes, which the last axis of indices holds."""
    batch = call.int("batch_dims", 0)
    depth = indices._fixed(indices.ndim - 1)
    lead = indices.shape[:-1]
    places: list[Tensor] = []
    for axis in range(batch):
        n = x._fixed(axis)
        shape = [n if i == axis else 1 for i in range(len(lead))]
        places.append(Tensor.arange(n, device=x.device).reshape(shape).expand(lead))
    for i in range(depth):
        places.append(from_front(indices[..., i], x._fixed(batch + i)))
    return x[tuple(places)]


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scattered(x: Tensor, axis: int, index: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return x.scatter(axis, index, updates)
    if reduction not in _REDUCTIONS:
        raise NotSupported(
            f"Scatter has no reduction {reduction!r}; there are none, {', '.join(_REDUCTIONS)}."
        )
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[reduction])


@operator("ScatterElements", "Scatter")
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with each update at its position along an axis."""
    axis = call.int("axis", 0)
    index = from_front(indices, x._fixed(axis))
    return _scattered(x, axis, index, updates, call.string("reduction", "none"))


@operator("ScatterND")
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with parts at positions along its first axes, which the last axis of indices holds."""
    shape = x._fixed_shape()
    depth = indices._fixed(indices.ndim - 1)
    rest = math.prod(shape[depth:])
    place: Tensor | None = None
    for i in range(depth):
        at = from_front(indices[..., i], shape[i])
        place = at if place is None else place * shape[i] + at
    if place is None:
        raise ShapeError("ScatterND has indices without positions.")
    flat = x.reshape((math.prod(shape[:depth]), rest))
    rows = place.reshape((-1, 1)).expand((place.numel(), rest))
    reduction = call.string("reduction", "none")
    return _scattered(flat, 0, rows, updates.reshape((-1, rest)), reduction).reshape(shape)


@operator("NonZero")
def non_zero(call: Call, x: Tensor) -> Array:
    """The positions of elements that are not 0, (rank, count); reads the device."""
    found = np.nonzero(call.run.array(x))
    return np.array(found, np.int64).reshape(max(x.ndim, 1), -1)


@operator("TopK", host=(1,))
def top_k(call: Call, x: Tensor, k: Array | None = None) -> tuple[Tensor, Tensor]:
    """The k greatest (least) elements along an axis, and where they stand."""
    count = call.int("k") if k is None else int_list(k)[0]
    values, places = x.topk(
        count, call.int("axis", -1), bool(call.int("largest", 1)), bool(call.int("sorted", 1))
    )
    return values, places.cast(dtypes.int64)


@operator("Unique")
def unique(call: Call, x: Tensor) -> tuple[Value, ...]:
    """What is there once or more, its first places, the way back, and counts; reads the device."""
    array = call.run.array(x)
    axis = call.int("axis") if call.has("axis") else None
    found, first, back, counts = np.unique(array, True, True, True, axis=axis)
    back = back.reshape(-1)
    if not call.int("sorted", 1):
        order = np.argsort(first)
        found = np.take(found, order, axis or 0)
        rank = np.argsort(order)
        first, back, counts = first[order], rank[back], counts[order]
    values = call.run.tensor(found).cast(x.dtype)  # NumPy has no bfloat16
    return (values, *(each.astype(np.int64) for each in (first, back, counts)))


@operator("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(call: Call, x: Tensor, places: Tensor) -> Tensor:
    """Columns of a matrix."""
    return x[..., from_front(places.flatten(), x._fixed(x.ndim - 1))]


@operator("TensorScatter", as_is=())
def tensor_scatter(
    call: Call, past: Tensor, update: Tensor, at: Tensor | None = None
) -> Tensor:
    """A cache with new elements at a place along an axis, which each batch has for itself."""
    axis = call.int("axis", -2) % past.ndim
    n, new = past._fixed(axis), update._fixed(axis)
    mode = call.string("mode", "linear")
    place = Tensor.arange(n, device=past.device).reshape(
        [n if i == axis else 1 for i in range(past.ndim)]
    )
    start: Tensor | int = 0
    if at is not None:
        start = at.cast(dtypes.int32).reshape([-1, *[1] * (past.ndim - 1)])
    offset = place - start
    offset = offset.mod(n) if mode == "circular" else offset
    inside = (offset >= 0) & (offset < new)
    source = inside.where(offset, 0).expand(
        [n if i == axis else m for i, m in enumerate(update.shape)]
    )
    return inside.where(update.gather(axis, source), past)
