"""DLPack: arrays of other libraries as tensors, and tensors as theirs, in the same memory.

A producer's `__dlpack__()` gives a capsule around a structure that describes an array. Whoever
renames the capsule owns the structure from then on, and calls its deleter once. What is lent in
either direction is kept alive by the borrower: ours is freed when the deleter is called, theirs
is deleted when no tensor and no kernel in flight uses it any more.

Structures and codes are those of dlpack.h 1.1, github.com/dmlc/dlpack.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from compiler.dtype import DType, dtypes
from compiler.ir import Node, Shape
from drivers.memory import Buffer, Storage
from drivers.native.capsules import CapsuleFunctions, capsule_functions
from tinyhw import storage
from tinyhw.creation import filled
from tinyhw.device import Device
from tinyhw.errors import ExchangeError
from tinyhw.strides import extent_in_memory, row_major, strided, strides_of_view

if TYPE_CHECKING:
    from tinyhw.tensor import Tensor

VERSION: Final = (1, 1)  # what we write; any minor version of its major one is read
CPU: Final = (1, 0)  # kDLCPU
EXTENSION: Final = 12  # kDLExtDev: memory that no other library reaches
READ_ONLY, IS_COPIED = 1, 2
MAX_RANK: Final = 64
MAX_BYTES: Final = 1 << 47  # of an address space

DEVICE_TYPES: Final = {
    1: "the processor", 2: "CUDA", 3: "CUDA's host memory", 4: "OpenCL", 7: "Vulkan", 8: "Metal",
    9: "VPI", 10: "ROCm", 11: "ROCm's host memory", 12: "an extension", 13: "CUDA's managed memory",
    14: "oneAPI", 15: "WebGPU", 16: "Hexagon", 17: "MAIA", 18: "Trainium",
}
_KINDS: Final = {"i": 0, "u": 1, "f": 2, "b": 6}
_OTHER_FLOATS: Final = {dtypes.bfloat16: 4, dtypes.float8_e4m3fn: 10, dtypes.float8_e5m2: 12}
CODES: Final = {
    dtype: (_OTHER_FLOATS.get(dtype, _KINDS[dtype.kind]), dtype.itemsize * 8)
    for dtype in dtypes.all
}
"""(type code, bits) of an element."""
_DTYPES: Final = {code: dtype for dtype, code in CODES.items()}


class DLTensor(ctypes.Structure):
    """An array: its first element lies at data + byte_offset; strides are in elements."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_uint64),
        ("strides", ctypes.c_uint64),
        ("byte_offset", ctypes.c_uint64),
    )


class DLManagedTensor(ctypes.Structure):
    """What a capsule named "dltensor" holds: protocol versions before 1.0."""

    _fields_ = (
        ("dl_tensor", DLTensor),
        ("manager_ctx", ctypes.c_uint64),
        ("deleter", ctypes.c_uint64),
    )


class DLManagedTensorVersioned(ctypes.Structure):
    """What a capsule named "dltensor_versioned" holds."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_uint64),
        ("deleter", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("dl_tensor", DLTensor),
    )


def _python(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of the interpreter's, called with the GIL."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_object, _address = ctypes.py_object, ctypes.c_void_p
_new_capsule = _python("PyCapsule_New", _object, _address, _address, _address)
_is_valid = _python("PyCapsule_IsValid", ctypes.c_int, _object, _address)
_get_pointer = _python("PyCapsule_GetPointer", _address, _object, _address)
_set_name = _python("PyCapsule_SetName", ctypes.c_int, _object, _address)
_take_reference = _python("Py_IncRef", None, _object)
_Deleter = ctypes.PYFUNCTYPE(None, _address)


# ---- out ----
class _Lent:
    """A tensor's memory in another library's hands: the structure, and what it refers to.

    It holds a reference to itself, which the native deleter gives up (drivers/native/capsules).
    """

    __slots__ = ("extents", "functions", "managed", "memory", "strides")

    def __init__(
        self,
        memory: Storage | None,
        described: DLTensor,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        version: tuple[int, int] | None,
        flags: int,
    ) -> None:
        self.memory = memory
        self.functions: CapsuleFunctions = capsule_functions(version is not None)
        self.extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        self.strides = (ctypes.c_int64 * max(1, len(shape)))(*strides)
        described.shape = ctypes.addressof(self.extents)
        described.strides = ctypes.addressof(self.strides)
        self.managed: DLManagedTensor | DLManagedTensorVersioned
        if version is None:
            self.managed = DLManagedTensor()
        else:
            self.managed = DLManagedTensorVersioned(*version, flags=flags)
        self.managed.dl_tensor = described
        self.managed.manager_ctx = id(self)
        self.managed.deleter = self.functions.delete

    def capsule(self) -> Any:
        """The capsule that owns this from now on."""
        at = ctypes.addressof(self.managed)
        made = _new_capsule(at, self.functions.name, self.functions.destroy)
        _take_reference(self)
        return made


def device_of(tensor: Tensor) -> tuple[int, int]:
    """(device type, number) of a tensor's memory, in DLPack's numbers."""
    if Device.is_processor(tensor.device):
        return CPU
    return EXTENSION, int(tensor.device.partition(":")[2] or 0)


def to_capsule(
    tensor: Tensor,
    stream: object = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """A capsule with the tensor's own memory, or a copy's; see `Tensor.__dlpack__`."""
    if stream is not None:
        _refuse(f"A processor has no streams, and stream={stream!r} was asked for.")
    if tensor._requires_grad:
        _refuse(
            "A tensor with a gradient is not lent: what is written to its memory would falsify "
            "the gradient.", "Use detach() first.",
        )
    place = None if dl_device is None else tuple(dl_device)
    if place not in (None, CPU):
        _refuse(f"A tensor is lent to the processor, whose number is {CPU}, not to {place}.")
    version = None
    if max_version is not None and max_version[0] >= VERSION[0]:
        version = min(VERSION, (max_version[0], max_version[1]))
    copied = bool(copy)
    if not Device.is_processor(tensor.device):
        if place is None or copy is False:
            _refuse(
                f"No other library reaches memory of {tensor.device}.",
                f'Use `.to("{Device.processor()}")` first.',
            )
        tensor, copied = tensor.to(Device.processor()), True
    shape = tensor._fixed_shape()
    if 0 in shape:
        nothing = _described(0, shape, tensor.dtype)
        return _Lent(None, nothing, shape, row_major(shape), version, 0).capsule()
    found = None if copy else _lendable(tensor)
    if found is None:
        if copy is False:
            _refuse(
                f"Elements of this tensor of the shape {shape} do not lie at regular distances, "
                "each by itself, and copy=False forbids to copy them."
            )
        tensor, copied = tensor.detach().clone(), True
        found = _lendable(tensor)
        assert found is not None, "a clone has storage of its own"
    offset, strides = found
    buffer = _settled(tensor)
    described = _described(
        buffer.cpu_addr + offset * tensor.dtype.itemsize, shape, tensor.dtype
    )
    flags = IS_COPIED if copied else 0
    return _Lent(buffer.storage, described, shape, strides, version, flags).capsule()


def _settled(tensor: Tensor) -> Buffer:
    """The memory of a realised tensor, once nothing in flight writes or reads it."""
    node = tensor._node.base
    storage.read(node)  # refuses while a TinyJit captures
    Device[tensor.device].synchronize()
    return storage.held(node).buffer


def _lendable(tensor: Tensor) -> tuple[int, tuple[int, ...]] | None:
    """(offset, strides) of the tensor in storage that only its views share; None: it must copy."""
    if not tensor._has_own_places():
        tensor.realize()  # storage may be what a constant is not
        if not tensor._has_own_places():
            return None
    tensor._own_storage()  # views made before follow; equal computations stay behind
    tensor.realize()
    return strides_of_view(tensor._node)


def _described(address: int, shape: tuple[int, ...], dtype: DType) -> DLTensor:
    code, bits = CODES[dtype]
    return DLTensor(
        data=address, device_type=CPU[0], device_id=CPU[1], ndim=len(shape), code=code, bits=bits,
        lanes=1,
    )


# ---- in ----
class _Borrowed:
    """Another library's structure that we own: its deleter is called when this goes."""

    __slots__ = ("_address", "_deleter")

    def __init__(self, address: int, deleter: int) -> None:
        self._address, self._deleter = address, deleter

    def __del__(self, exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._deleter and not exiting():  # then the other library may be gone
            _Deleter(self._deleter)(self._address)


@dataclass(frozen=True)
class _Array:
    """What a capsule describes, checked; strides are in elements."""

    address: int
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    read_only: bool


def from_capsule(capsule: Any, device: str, copy: bool | None = None) -> Node:
    """The array of a capsule as a node on a processor device, in its memory unless copied.

    copy: True copies, False refuses where a copy is needed: memory that is read-only or not
    aligned. Raises ExchangeError; the capsule then still owns the array.
    """
    managed, versioned = _managed(capsule)
    array = _checked(managed)
    why = _why_copied(array)
    if why and copy is False:
        _refuse(f"The array {why}, so it must be copied, and copy=False forbids it.")
    _set_name(capsule, capsule_functions(versioned).used)
    owner = _Borrowed(ctypes.addressof(managed), managed.deleter)
    if 0 in array.shape:
        return filled(array.shape, 0, array.dtype)
    low, high = extent_in_memory(array.shape, array.strides)
    start = array.address + low * array.dtype.itemsize
    if why or copy:
        flat = _copied(start, high - low + 1, array.dtype, device)
        del owner
    else:
        flat = storage.from_host(array.dtype, high - low + 1, start, owner, device)
    return strided(flat, array.shape, array.strides, -low)


def from_address(
    address: int, shape: Shape, dtype: DType, device: str, owner: object
) -> Node:
    """A row-major array at an address of this process as a node on a processor device."""
    extents = tuple(n for n in shape if isinstance(n, int))
    if len(extents) != len(shape):
        _refuse(f"Memory has a fixed size, and the shape {shape} depends on a Variable.")
    if not isinstance(address, int) or address % dtype.itemsize or not 0 < address < 1 << 64:
        _refuse(
            f"A tensor of {dtype.name} needs an address that is a multiple of {dtype.itemsize}, "
            f"not {address!r}."
        )
    if 0 in shape:
        return filled(shape, 0, dtype)
    _check_reach(address, extents, row_major(extents), dtype.itemsize)
    flat = storage.from_host(dtype, math.prod(extents), address, owner, device)
    return flat.reshape(extents)


def capsule_of(x: Any, copy: bool | None) -> Any:
    """The capsule of an array of another library, of the newest version that it can give."""
    if hasattr(x, "__dlpack_device__"):
        kind, number = x.__dlpack_device__()
        if int(kind) != CPU[0]:
            where = DEVICE_TYPES.get(int(kind), f"a device of type {int(kind)}")
            _refuse(
                f"The array is on {where} (number {number}); only memory of the processor can "
                "be borrowed.", "Move it to the processor first.",
            )
    if not hasattr(x, "__dlpack__"):
        _refuse(f"from_dlpack needs an array with __dlpack__, not {type(x).__name__}.")
    try:
        try:
            return x.__dlpack__(max_version=VERSION, copy=copy)
        except TypeError:  # a producer of a protocol before 1.0
            return x.__dlpack__()
    except BufferError as error:
        raise ExchangeError(
            f"{type(x).__name__} cannot be lent: {error}.", operation="from_dlpack"
        ) from error


def is_capsule(x: Any) -> bool:
    """Whether x is a capsule that holds an array, or held one."""
    both = capsule_functions(True), capsule_functions(False)
    return any(_is_valid(x, name) for each in both for name in (each.name, each.used))


def _managed(capsule: Any) -> tuple[DLManagedTensor | DLManagedTensorVersioned, bool]:
    for versioned, kind in ((True, DLManagedTensorVersioned), (False, DLManagedTensor)):
        name = capsule_functions(versioned).name
        if _is_valid(capsule, name):
            return kind.from_address(_get_pointer(capsule, name)), versioned
    if is_capsule(capsule):
        _refuse("The capsule was consumed before; each can be read once.")
    _refuse(f"This is no DLPack capsule but {capsule!r}.")


def _checked(managed: DLManagedTensor | DLManagedTensorVersioned) -> _Array:
    flags = 0
    if isinstance(managed, DLManagedTensorVersioned):
        if managed.major != VERSION[0]:
            _refuse(
                f"The capsule has version {managed.major}.{managed.minor} of DLPack; "
                f"{VERSION[0]}.x can be read."
            )
        flags = managed.flags
    described: DLTensor = managed.dl_tensor
    if described.device_type != CPU[0]:
        where = DEVICE_TYPES.get(described.device_type, f"type {described.device_type}")
        _refuse(f"The capsule's array is on {where}; only memory of the processor can be borrowed.")
    dtype = _DTYPES.get((described.code, described.bits))
    if dtype is None or described.lanes != 1:
        _refuse(
            f"The capsule has elements of type code {described.code}, {described.bits} bits and "
            f"{described.lanes} lanes; there are {', '.join(d.name for d in CODES)}, of one lane."
        )
    ndim = described.ndim
    if not 0 <= ndim <= MAX_RANK:
        _refuse(f"The capsule's array has {ndim} axes; 0 to {MAX_RANK} can be read.")
    if ndim and not described.shape:
        _refuse(f"The capsule's array has {ndim} axes and no shape.")
    shape = _integers(described.shape, ndim)
    if any(n < 0 for n in shape):
        _refuse(f"The capsule's array has the shape {shape}, with a negative extent.")
    strides = _integers(described.strides, ndim) if described.strides else row_major(shape)
    address = described.data + described.byte_offset
    if 0 not in shape:
        _check_reach(address, shape, strides, dtype.itemsize)
        if not described.data:
            _refuse(f"The capsule's array of the shape {shape} has no memory.")
    return _Array(address, dtype, shape, strides, bool(flags & READ_ONLY))


def _check_reach(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> None:
    """Refuses what cannot lie in an address space, so that all arithmetic on it is exact."""
    low, high = extent_in_memory(shape, strides)
    size = max(math.prod(shape), high - low + 1) * itemsize
    if size > MAX_BYTES or address + low * itemsize < 0 or address + high * itemsize >= 1 << 64:
        _refuse(
            f"An array of the shape {shape} with strides {strides} at {address:#x} "
            f"would take {size} bytes; the limit is {MAX_BYTES}."
        )


def _integers(address: int, count: int) -> tuple[int, ...]:
    return tuple((ctypes.c_int64 * count).from_address(address)) if count else ()


def _why_copied(array: _Array) -> str:
    """Why an array cannot be used where it lies, or ''."""
    if array.read_only and 0 not in array.shape:
        return "is read-only"
    if array.address % array.dtype.itemsize:
        return f"lies at {array.address:#x}, not aligned to its elements"
    return ""


def _copied(address: int, count: int, dtype: DType, device: str) -> Node:
    """A BUFFER with a copy of `count` elements."""
    held = storage.NUMPY_TYPES[dtype]
    raw = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(address)
    return storage.from_numpy(np.frombuffer(memoryview(raw), held), dtype, device)


def _refuse(detail: str, remedy: str = "") -> NoReturn:
    raise ExchangeError(detail, operation="dlpack", remedy=remedy)


__all__ = ["capsule_of", "device_of", "from_capsule", "is_capsule", "to_capsule"]
