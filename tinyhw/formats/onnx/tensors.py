"""Stored tensors: how the elements of a TensorProto lie, and where.

In `raw_data` they are row-major and little-endian. In the fields by type (`float_data`,
`int32_data` ...) they are packed numbers; small types are varints of int32_data, half precision
is its bits. With `external_data` they are raw in another file of the model's folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from compiler.dtype import DType, dtypes
from tinyhw.errors import NotSupported
from tinyhw.formats.files import map_file
from tinyhw.formats.onnx.model import SparseTensorProto, TensorProto
from tinyhw.formats.onnx.wire import Source, count_varints, packed_varints, quoted
from tinyhw.nn.state import from_file
from tinyhw.tensor import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"

# TensorProto.DataType
STRING: Final = 8
DTYPES: Final[dict[int, DType]] = {
    1: dtypes.float32, 2: dtypes.uint8, 3: dtypes.int8, 4: dtypes.uint16, 5: dtypes.int16,
    6: dtypes.int32, 7: dtypes.int64, 9: dtypes.bool, 10: dtypes.float16, 11: dtypes.float64,
    12: dtypes.uint32, 13: dtypes.uint64, 16: dtypes.bfloat16, 17: dtypes.float8_e4m3fn,
    19: dtypes.float8_e5m2,
}
_NOT_NUMPYS: Final = frozenset({dtypes.bfloat16, dtypes.float8_e4m3fn, dtypes.float8_e5m2})
NUMBERS: Final = {dtype: number for number, dtype in DTYPES.items()}
TYPE_NAMES: Final = (
    "undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 "
    "uint64 complex64 complex128 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz "
    "uint4 int4 float4e2m1 float8e8m0 uint2 int2 float6e2m3 float6e3m2"
).split()
# Narrow integers are kept in bytes: (bits, the type that holds them).
NARROW: Final = {21: (4, dtypes.uint8), 22: (4, dtypes.int8), 25: (2, dtypes.uint8),
                 26: (2, dtypes.int8)}

MAX_HOST_ELEMENTS: Final = 4096  # tensors up to here are kept on the host, for shapes and folding
_FIELD: Final = {  # which field holds the elements of a type, if raw_data does not
    1: 4, 2: 5, 3: 5, 4: 5, 5: 5, 6: 5, 7: 7, 9: 5, 10: 5, 11: 10, 12: 11, 13: 11, 16: 5,
    17: 5, 19: 5, 21: 5, 22: 5, 25: 5, 26: 5,
}


def type_name(data_type: int) -> str:
    """A TensorProto.DataType in words."""
    return TYPE_NAMES[data_type] if 0 <= data_type < len(TYPE_NAMES) else f"type {data_type}"


@dataclass
class Folder:
    """Where a model's external data may lie; `path` is None for a model that came as bytes."""

    path: Path | None

    def __post_init__(self) -> None:
        self.mapped: dict[str, memoryview] = {}

    def read(self, source: Source, name: str, entries: Mapping[str, str]) -> memoryview:
        """The bytes that a tensor's external_data name; the file must lie in the folder."""
        location = entries.get("location", "")
        if self.path is None:
            source.refuse(
                f"tensor {quoted(name)} lies in the file {quoted(location)}; a model given as "
                "bytes has no folder to find it in, so load it by its path"
            )
        if not location or "\0" in location:
            source.refuse(f"tensor {quoted(name)} has the external location {quoted(location)}")
        folder = self.path.resolve()
        found = (folder / location).resolve()
        if not found.is_relative_to(folder):
            source.refuse(
                f"tensor {quoted(name)} lies in {quoted(location)}, outside the model's folder"
            )
        key = os.fspath(found)
        if key not in self.mapped:
            self.mapped[key] = map_file(found)
        data = self.mapped[key]
        offset = _number(source, name, entries, "offset", 0)
        length = _number(source, name, entries, "length", max(len(data) - offset, 0))
        if offset + length > len(data):
            source.refuse(
                f"tensor {quoted(name)} claims bytes {offset} to {offset + length} of "
                f"{quoted(location)}, which has {len(data)}"
            )
        return data[offset : offset + length]


def _number(source: Source, name: str, entries: Mapping[str, str], key: str, default: int) -> int:
    given = entries.get(key)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        source.refuse(f"tensor {quoted(name)} has the external {key} {quoted(given)}")
    return int(given)


def count_of(source: Source, name: str, dims: list[int]) -> int:
    """How many elements a shape has; it is checked here."""
    if any(n < 0 for n in dims):
        source.refuse(f"tensor {quoted(name)} has the shape {quoted(dims)}")
    return math.prod(dims)


def load_tensor(
    source: Source, folder: Folder, proto: TensorProto, device: str | None
) -> Tensor | Array:
    """A stored tensor: an array if it is small, else a Tensor, read when it is first used."""
    name, kind = proto.name, proto.data_type
    if kind not in _FIELD:
        known = ", ".join(type_name(k) for k in _FIELD)
        what = f"tensor {quoted(name)} has the element type {type_name(kind)}; known are {known}"
        if 0 < kind < len(TYPE_NAMES):  # there are such files
            raise NotSupported(f"{source.name}: {what}.", operation="load")
        source.refuse(what)
    count = count_of(source, name, proto.dims)
    shape = tuple(proto.dims)
    raw = proto.raw
    if proto.external is not None:
        raw = folder.read(source, name, proto.external)
    if kind in NARROW:
        array = _narrow(source, proto, raw, count)
        return _kept(array.reshape(shape), device)
    dtype = DTYPES[kind]
    if raw is None:
        return _of_field(source, proto, dtype, count, shape, device)
    if len(raw) != count * dtype.itemsize:
        source.refuse(
            f"tensor {quoted(name)} claims {quoted(count)} elements of {dtype.name}, which are "
            f"{quoted(count * dtype.itemsize)} bytes; it has {len(raw)}"
        )
    if count > MAX_HOST_ELEMENTS or dtype in _NOT_NUMPYS:
        return from_file(raw, dtype, shape, device)
    if dtype is dtypes.bool:
        return np.not_equal(np.frombuffer(raw, np.uint8), 0).reshape(shape)
    return np.frombuffer(raw, dtype.name).reshape(shape)


def _kept(array: Array, device: str | None) -> Tensor | Array:
    return array if array.size <= MAX_HOST_ELEMENTS else Tensor(array, device)


def _of_field(
    source: Source, proto: TensorProto, dtype: DType, count: int, shape: tuple[int, ...],
    device: str | None,
) -> Tensor | Array:
    """Elements from the field of their type."""
    numbers = _numbers(source, proto, count)
    if dtype in _NOT_NUMPYS:
        bits = numbers.astype(np.uint16 if dtype.bits == 16 else np.uint8)
        return Tensor(bits.reshape(shape), device).bitcast(dtype)
    if dtype is dtypes.float16:
        return _kept(numbers.astype(np.uint16).view(np.float16).reshape(shape), device)
    return _kept(numbers.astype(dtype.name, copy=False).reshape(shape), device)


def _numbers(source: Source, proto: TensorProto, count: int) -> Array:
    """The numbers of a tensor's field, in the field's own type."""
    name, wanted = proto.name, _FIELD[proto.data_type]
    data = memoryview(b"".join(proto.parts)) if len(proto.parts) > 1 else (
        proto.parts[0] if proto.parts else memoryview(b"")
    )
    if proto.parts and proto.part_field != wanted:
        source.refuse(
            f"tensor {quoted(name)} of {type_name(proto.data_type)} has its elements in field "
            f"{proto.part_field}; they belong into field {wanted}"
        )
    width = {4: 4, 10: 8}.get(wanted)
    if width is not None and len(data) % width:
        source.refuse(f"tensor {quoted(name)} ends within an element")
    held = count_varints(data) if width is None else len(data) // width
    if held != count:
        source.refuse(f"tensor {quoted(name)} claims {quoted(count)} elements; it has {held}")
    if width is not None:
        return np.frombuffer(data, "<f4" if width == 4 else "<f8")
    source.charge(2 * 8 * count)
    numbers = np.empty(count, {5: np.int32, 7: np.int64, 11: np.uint64}[wanted])
    packed_varints(source, data, numbers)
    return numbers


def _narrow(source: Source, proto: TensorProto, raw: memoryview | None, count: int) -> Array:
    """Integers of 4 or 2 bits, the low ones of a byte first, as bytes."""
    bits, dtype = NARROW[proto.data_type]
    each = 8 // bits
    needed = -(-count // each)
    if raw is not None:
        packed = np.frombuffer(raw, np.uint8)
    else:
        packed = _numbers(source, proto, needed).astype(np.uint8)
    if len(packed) != needed:
        source.refuse(
            f"tensor {quoted(proto.name)} claims {quoted(count)} elements of {bits} bits, which "
            f"are {quoted(needed)} bytes; it has {len(packed)}"
        )
    source.charge(2 * each * needed)
    found = np.empty((needed, each), np.uint8)
    for i in range(each):
        np.copyto(found[:, i], packed >> (bits * i) & (1 << bits) - 1)
    if dtype is dtypes.int8:
        sign = 1 << bits - 1
        np.subtract(found ^ sign, sign, out=found)
    return found.reshape(-1)[:count].view(dtype.name)


def load_sparse(source: Source, folder: Folder, proto: SparseTensorProto) -> Array:
    """A sparse tensor, filled in; only small ones are taken."""
    name = proto.values.name
    count = count_of(source, name, proto.dims)
    source.charge(16 * count)
    values = load_tensor(source, folder, proto.values, None)
    indices = load_tensor(source, folder, proto.indices, None)
    if isinstance(values, Tensor) or isinstance(indices, Tensor):
        source.refuse(
            f"sparse tensor {quoted(name)} has more than {MAX_HOST_ELEMENTS} elements, the limit"
        )
    if indices.ndim == 2 and indices.shape[1] == len(proto.dims):
        bad = bool((indices < 0).any() or (indices >= np.array(proto.dims)).any())
        flat = None if bad else np.ravel_multi_index(tuple(indices.T), tuple(proto.dims))
    else:
        bad = indices.ndim != 1 or bool(((indices < 0) | (indices >= count)).any())
        flat = indices
    if bad or flat is None or flat.shape != values.reshape(-1).shape:
        source.refuse(f"sparse tensor {quoted(name)} has positions outside its shape")
    dense = np.zeros(count, values.dtype)
    dense[flat] = values.reshape(-1)
    return dense.reshape(proto.dims)
