"""What a tensor is made of: Python's numbers and lists, arrays, bytes, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from compiler.dtype import ConstType, DType, dtypes
from compiler.ir import Node
from tinyhw import dlpack, storage
from tinyhw.core import is_scalar, python_dtype
from tinyhw.creation import filled
from tinyhw.device import Device
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.formats.files import map_file
from tinyhw.variable import Variable

Bytes: TypeAlias = "bytes | bytearray | memoryview"
Data: TypeAlias = (
    "ConstType | list[Any] | tuple[Any, ...] | np.ndarray[Any, Any] | Bytes | Path | None"
)

_FROM_NUMPY: dict[str, DType] = {d.name: d for d in dtypes.all if d not in storage.AS_BITS}


def node_of(data: Any, device: str, dtype: DType | None) -> Node:
    """The graph of what a Tensor is made of."""
    if data is None:
        return filled((0,), 0, dtype or dtypes.default_float)
    if isinstance(data, Node | Variable):
        node = data if isinstance(data, Node) else data.node
        wanted = dtypes.default_int if node.dtype is dtypes.index else node.dtype
        return node.cast(dtype or wanted)
    if is_scalar(data) and not isinstance(data, np.generic):
        return Node.const(data, dtype or python_dtype(data))
    if isinstance(data, Path):
        return _node_of_file(data, device, dtype or dtypes.uint8)
    if isinstance(data, bytes | bytearray) or is_bytes(data):
        kind = dtype or dtypes.uint8
        return storage.from_bytes(data, kind, device) if len(data) else filled((0,), 0, kind)
    if isinstance(data, list | tuple):
        return _node_of_list(data, device, dtype)
    if hasattr(data, "__dlpack__") and not isinstance(data, np.ndarray | np.generic):
        place = Device.processor(device)
        lent = dlpack.from_capsule(dlpack.capsule_of(data, None), place, copy=True)
        moved = lent if place == device else lent.copy_to(device)
        return moved if dtype is None else moved.cast(dtype)
    return _node_of_array(_as_array(data), device, dtype)


def is_bytes(data: Any) -> bool:
    """Whether data is a memoryview of plain bytes, which may stand for elements of any type."""
    plain = isinstance(data, memoryview) and data.format == "B" and data.ndim == 1
    return plain and data.contiguous


def _as_array(data: Any) -> np.ndarray[Any, Any]:
    """An array of another library as NumPy sees it, by the protocol that it offers."""
    if isinstance(data, np.ndarray | np.generic):
        return np.asarray(data)
    if hasattr(data, "__array_interface__"):
        return np.asarray(data)
    try:
        return np.asarray(memoryview(data))
    except TypeError:
        pass
    except ValueError as error:
        raise DtypeError(f"A buffer has elements that no tensor has: {error}.") from error
    raise DtypeError(
        "A tensor is made of a number, lists, an array, bytes, a path, a Tensor or None, not of "
        f"{type(data).__name__}."
    )


def _node_of_file(path: Path, device: str, dtype: DType) -> Node:
    content = map_file(path)
    if len(content) % dtype.itemsize:
        raise DtypeError(
            f"The {len(content)} bytes of {path} are no whole number of {dtype} elements of "
            f"{dtype.itemsize} bytes."
        )
    if not len(content):
        return filled((0,), 0, dtype)
    return storage.from_bytes_later(content, dtype, device)


def _node_of_array(array: np.ndarray[Any, Any], device: str, dtype: DType | None) -> Node:
    held = _FROM_NUMPY.get(array.dtype.name)
    if held is None:
        raise DtypeError(
            f"A NumPy array of {array.dtype} has no tensor type; there are "
            f"{', '.join(_FROM_NUMPY)}."
        )
    if array.ndim == 0:
        return Node.const(array.item(), held).cast(dtype or held)
    if not array.size:
        return filled(array.shape, 0, dtype or held)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return storage.from_numpy(native, held, device).reshape(array.shape).cast(dtype or held)


def _node_of_list(data: Any, device: str, dtype: DType | None) -> Node:
    """Nested lists of numbers, or of tensors that are stacked."""
    from tinyhw.tensor import Tensor

    if any(isinstance(item, Tensor) for item in data):
        parts = [item if isinstance(item, Tensor) else Tensor(item, device) for item in data]
        stacked = parts[0].stack(*parts[1:])
        return stacked._node if dtype is None else stacked._node.cast(dtype)
    try:
        array = np.array(data)
    except ValueError as error:
        raise ShapeError(f"Nested lists must be rectangular: {error}.") from error
    except OverflowError as error:
        raise DtypeError(f"A number is too large for any type: {error}.") from error
    kind = {"b": dtypes.bool, "i": dtypes.default_int, "u": dtypes.uint64}
    kind["f"] = dtypes.default_float
    if array.dtype.kind not in kind:
        raise DtypeError(f"Nested lists must hold numbers, and these make a {array.dtype} array.")
    wanted = dtype or (kind[array.dtype.kind] if array.size else dtypes.default_float)
    if wanted in _FROM_NUMPY.values():
        array = array.astype(wanted.name)
        return node_of(array, device, None)
    return node_of(array.astype(np.float32), device, wanted)
