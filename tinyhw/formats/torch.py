"""Files of torch.save: a pickle that describes tensors, and the bytes of their storages.

    ZIP (since 1.6)   NAME/data.pkl, NAME/data/KEY for each storage, NAME/byteorder
    before            pickles: a magic number, a version, the system, the object, a list of keys;
                      then for each key 8 bytes with the number of elements, and the elements

A tensor is a storage with offset, shape and strides; several may share one. Nothing in a file is
executed (formats/pickles.py). What does not hold is MalformedInput. Source: torch/serialization.py
and torch/_utils.py of PyTorch 2.13, read as documentation of the format.
"""

from __future__ import annotations

import math
import os
import reprlib
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from compiler.dtype import DType, dtypes
from drivers.errors import MalformedInput
from tinyhw.formats.archive import is_archive, members
from tinyhw.formats.files import map_file
from tinyhw.formats.pickles import Global, Unpickler

MAX_RANK: Final = 64
SPARE_BYTES: Final = 32 << 20  # objects that a file may have built, beside as much as its size
LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
LEGACY_VERSION: Final = 1001

_STORAGES: Final = {
    "Float": dtypes.float32, "Double": dtypes.float64, "Half": dtypes.float16,
    "BFloat16": dtypes.bfloat16, "Long": dtypes.int64, "Int": dtypes.int32,
    "Short": dtypes.int16, "Char": dtypes.int8, "Byte": dtypes.uint8, "Bool": dtypes.bool,
    "Untyped": dtypes.uint8,
}
_quoted = reprlib.repr


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file: which elements of the storage `key`, whose bytes are `data`.

    Strides and offset are in elements of `dtype`.
    """

    key: str
    data: memoryview
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: DType
    count: int
    data: memoryview


Make = Callable[[StoredTensor], Any]


def load(path: str | os.PathLike[str], make: Make) -> Any:
    """What was saved, with `make(tensor)` for each tensor; the file stays mapped.

    Raises MalformedInput or SystemCallFailed.
    """
    name = os.fspath(path)
    data = map_file(path)
    if is_archive(data):
        return _load_archive(name, data, make)
    return _load_legacy(name, data, make)


def _load_archive(name: str, data: memoryview, make: Make) -> Any:
    found = members(name, data)
    pickles = [m for m in found if m == "data.pkl" or m.endswith("/data.pkl")]
    if len(pickles) != 1:
        _refuse(name, f"it has {len(pickles)} members data.pkl; a file of torch.save has one")
    prefix = pickles[0].removesuffix("data.pkl")
    order = found.get(prefix + "byteorder")
    if order is not None and bytes(order[:10]) != b"little":
        _refuse(name, f"its elements are in the byte order {bytes(order[:10])!r}; only b'little' "
                "is read")

    def content(key: str, size_bytes: int) -> memoryview:
        member = found.get(f"{prefix}data/{key}")
        if member is None or len(member) < size_bytes:
            have = "is not there" if member is None else f"has {len(member)} bytes"
            _refuse(name, f"storage {_quoted(key)} needs {size_bytes} bytes and {have}")
        return member

    reader = _Reader(name, found[pickles[0]], len(data), content, make)
    return reader.unpickler().load()


def _load_legacy(name: str, data: memoryview, make: Make) -> Any:
    nothing = memoryview(b"")
    reader = _Reader(name, data, len(data), lambda key, size: nothing, make)
    position = 0
    for what, wanted in (("magic number", LEGACY_MAGIC), ("version", LEGACY_VERSION)):
        start = reader.unpickler(position, plain=True)
        found = start.load()
        if found != wanted:
            _refuse(name, f"its {what} is {_quoted(found)}; torch.save writes {wanted}")
        position = start.position
    system = reader.unpickler(position, plain=True)
    found = system.load()
    if not isinstance(found, dict) or found.get("little_endian") is not True:
        _refuse(name, "it does not say that its elements are little-endian")
    # Where the storages lie is known only after the object that refers to them: it is read twice.
    first = _Reader(name, data, len(data), lambda key, size: nothing, lambda tensor: None)
    measured = first.unpickler(system.position)
    measured.load()
    listed = reader.unpickler(measured.position, plain=True)
    places = _legacy_places(name, data, listed.load(), listed.position, first.element_bytes)

    def content(key: str, size_bytes: int) -> memoryview:
        if key not in places or len(places[key]) < size_bytes:
            _refuse(name, f"storage {_quoted(key)} of {size_bytes} bytes is not among its data")
        return places[key]

    return _Reader(name, data, len(data), content, make).unpickler(system.position).load()


def _legacy_places(
    name: str, data: memoryview, keys: Any, position: int, element_bytes: dict[str, int]
) -> dict[str, memoryview]:
    """The bytes of each storage of an old file."""
    found: dict[str, memoryview] = {}
    if not isinstance(keys, list):
        _refuse(name, f"its list of storages is {_quoted(keys)}")
    for key in keys:
        if not isinstance(key, str) or key not in element_bytes:
            _refuse(name, f"storage {_quoted(key)} is of no tensor in it")
        if position + 8 > len(data):
            _refuse(name, f"it ends at byte {len(data)}, before storage {_quoted(key)}")
        (count,) = struct.unpack_from("<q", data, position)
        start = position + 8
        position = start + count * element_bytes[key]
        if count < 0 or position > len(data):
            _refuse(name, f"storage {_quoted(key)} of {count} elements at byte {start} goes "
                    f"beyond the {len(data)} bytes of the file")
        found[key] = data[start:position]
    return found


class _Reader:
    """The names that a pickle of torch's may use, and what they make."""

    def __init__(
        self,
        name: str,
        data: memoryview,
        file_bytes: int,
        content: Callable[[str, int], memoryview],
        make: Make,
    ) -> None:
        self.name, self.data, self.content, self.make = name, data, content, make
        self.budget_bytes = SPARE_BYTES + file_bytes
        self.limit_bytes = 2 * file_bytes + (64 << 20)
        self.element_bytes: dict[str, int] = {}
        self._running: Unpickler | None = None
        self._table = self._globals()

    def unpickler(self, position: int = 0, plain: bool = False) -> Unpickler:
        """A reader of the pickle at a position; a plain one has no tensors."""
        self._running = Unpickler(
            self.name, self.data, {} if plain else self._table,
            None if plain else self._storage, self.budget_bytes, position,
        )
        return self._running

    def _globals(self) -> dict[tuple[str, str], Global]:
        functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): self._ordered,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_of_type,
            ("torch._utils", "_rebuild_parameter"): _first,
            ("torch._utils", "_rebuild_parameter_with_state"): _first,
            ("torch._tensor", "_rebuild_from_type_v2"): self._of_subclass,
            ("torch", "Size"): _size,
            ("torch", "device"): _device,
            ("_codecs", "encode"): _encode,
            ("builtins", "set"): self._set,
            ("__builtin__", "set"): self._set,
        }
        found = {at: Global(".".join(at), call) for at, call in functions.items()}
        marks: dict[tuple[str, str], Any] = {
            ("torch", "Tensor"): None, ("torch.nn.parameter", "Parameter"): None
        }
        for kind, dtype in _STORAGES.items():
            for module in ("torch", "torch.cuda", "torch.storage"):
                marks[module, f"{kind}Storage"] = dtype
        for dtype in dtypes.all:
            marks["torch", dtype.name] = dtype
        return found | {at: Global(".".join(at), None, value) for at, value in marks.items()}

    def _storage(self, described: Any) -> _Storage:
        match described:
            case ("storage", Global(value=DType() as dtype), str(key), _, int(count), *rest) if (
                count >= 0 and rest in ([], [None])
            ):
                size_bytes = count * dtype.itemsize
                self.element_bytes[key] = dtype.itemsize
                return _Storage(key, dtype, count, self.content(key, size_bytes))
        self._refuse(f"a storage is described as {_quoted(described)}")

    def _tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any
    ) -> Any:
        dtype = storage.dtype if isinstance(storage, _Storage) else None
        return self._viewed(storage, offset, shape, strides, dtype)

    def _tensor_of_type(
        self, storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any,
        dtype: Any, metadata: Any = None,
    ) -> Any:
        wanted = dtype.value if isinstance(dtype, Global) else None
        return self._viewed(storage, offset, shape, strides, wanted)

    def _viewed(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any) -> Any:
        if not isinstance(storage, _Storage) or not isinstance(dtype, DType):
            self._refuse(f"a tensor has the storage {_quoted(storage)} and type {_quoted(dtype)}")
        fits = type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides)
        if not fits or not all(_is_size(n) for n in (offset, *shape, *strides)):
            self._refuse(f"a tensor has the offset {_quoted(offset)}, shape {_quoted(shape)} and "
                         f"strides {_quoted(strides)}")
        if len(shape) > MAX_RANK:
            self._refuse(f"a tensor has {len(shape)} axes; the limit is {MAX_RANK}")
        count = storage.count * storage.dtype.itemsize // dtype.itemsize
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= count:
            self._refuse(f"a tensor of the shape {_quoted(shape)} with strides {_quoted(strides)} "
                         f"reaches element {_quoted(last)} of a storage of {count}")
        size_bytes = math.prod(shape) * dtype.itemsize
        if size_bytes > self.limit_bytes:
            self._refuse(f"a tensor of the shape {_quoted(shape)} has {_quoted(size_bytes)} bytes; "
                         f"the limit for a file of its size is {self.limit_bytes}")
        return self.make(StoredTensor(storage.key, storage.data, dtype, shape, strides, offset))

    def _of_subclass(self, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        assert self._running is not None
        if function is self._table["torch._tensor", "_rebuild_from_type_v2"]:  # would recurse
            self._refuse("a tensor of a subclass is made of another such tensor")
        return self._running.call(function, arguments)

    def _ordered(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        assert self._running is not None
        made: OrderedDict[Any, Any] = OrderedDict()
        for pair in pairs if isinstance(pairs, list | tuple) else (None,):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                self._refuse(f"an OrderedDict is made of {_quoted(pairs)}")
            self._running.put(made, list(pair))
        return made

    def _set(self, values: Any = ()) -> set[Any]:
        assert self._running is not None
        if not isinstance(values, list | tuple):
            self._refuse(f"a set is made of {_quoted(values)}")
        return {self._running.checked_key(value) for value in values}

    def _refuse(self, reason: str) -> NoReturn:
        where = self._running.key() if self._running else ""
        _refuse(self.name, f"{f'at {_quoted(where)} ' if where else ''}{reason}")


def _is_size(n: Any) -> bool:
    return type(n) is int and 0 <= n < 1 << 63


def _first(data: Any, *rest: Any) -> Any:
    return data


def _size(extents: Any = ()) -> tuple[Any, ...]:
    return tuple(extents) if type(extents) in (list, tuple) else ()


def _device(kind: Any = "cpu", number: Any = None) -> str:
    plain = isinstance(kind, str) and (number is None or type(number) is int)
    return (kind if number is None else f"{kind}:{number}") if plain else ""


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for readers of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError(f"_codecs.encode with {_quoted(encoding)}")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise TypeError("a string with characters beyond latin1") from error


def _refuse(name: str, reason: str) -> NoReturn:
    raise MalformedInput(f"{name}: {reason}.", operation="torch_load")


__all__ = ["StoredTensor", "load"]
