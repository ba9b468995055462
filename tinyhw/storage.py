"""Device memory under BUFFER nodes.

A BUFFER node is a name; its memory is allocated at its first use and goes back to the device's
allocator when nothing refers to the node any more (the driver waits for what is in flight).
What comes from the host is copied, so that changing an array afterwards changes no tensor;
only what is lent (dlpack.py) or mapped from a file is used where it lies.
What goes to the host is a view where it may be one: reading costs a wait, not a copy. How arrays
are copied is in transfer.py.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op
from drivers import Buffer, Point
from drivers import Device as Opened
from tinyhw.device import Device
from tinyhw.errors import DtypeError, JitError, TensorError
from tinyhw.transfer import bytes_of, copy_in, copy_out

Data: TypeAlias = "bytes | bytearray | memoryview"


class Held:
    """The memory of one BUFFER, and the Point at which what was last written to it is there."""

    __slots__ = ("buffer", "point")

    def __init__(self, buffer: Buffer, point: Point | None = None) -> None:
        self.buffer, self.point = buffer, point

    def wait(self) -> None:
        """Waits until it can be read."""
        if self.point is not None:
            self.point.wait()
            self.point = None


_held: WeakKeyDictionary[Node, Held] = WeakKeyDictionary()
_unread: WeakKeyDictionary[Node, Data] = WeakKeyDictionary()  # bytes of those not used so far


class ReadGuard:
    """Whether values may be read now: not while a TinyJit captures."""

    forbidden: bool = False


def held(node: Node) -> Held:
    """The memory of a BUFFER node; allocated, with undefined contents, if it has none yet."""
    found = _held.get(node)
    if found is None:
        if node.op is not Op.BUFFER:
            raise TensorError(
                f"Only storage has memory, but this node is {node.op.name}; realize it first.",
                operation="read",
            )
        _, device, size = node.arg
        opened = Device.runtime(device).device
        data = _unread.pop(node, None)
        if data is None:
            found = Held(opened.alloc(size * node.dtype.itemsize))
        else:
            found = Held(_of_bytes(opened, device, data, node.dtype))
        _held[node] = found
    return found


def _of_bytes(opened: Opened, device: str, data: Data, dtype: DType) -> Buffer:
    """The memory of some bytes itself, where a device computes in it, else a copy."""
    raw = np.frombuffer(data, np.uint8)
    address = raw.ctypes.data
    if Device.is_processor(device) and raw.flags.writeable and not address % dtype.itemsize:
        return opened.host_buffer(address, raw.size, raw)
    buffer = opened.alloc(raw.size)
    copy_in(buffer, raw)
    return buffer


def place(node: Node, buffer: Buffer) -> None:
    """Gives a BUFFER node a piece of memory that is there already."""
    _unread.pop(node, None)
    _held[node] = Held(buffer)


def release(node: Node) -> None:
    """Takes the memory from a BUFFER node, whose contents are lost."""
    _held.pop(node, None)
    _unread.pop(node, None)


def is_allocated(node: Node) -> bool:
    """Whether a BUFFER node has memory, or will have what a file holds."""
    return node in _held or node in _unread


def allocate(dtype: DType, size: int, device: str | None = None) -> Node:
    """A new BUFFER of `size` elements with memory whose contents are undefined."""
    node = Node.buffer(dtype, size, Device.canonicalize(device))
    held(node)
    return node


def from_host(
    dtype: DType, size: int, address: int, owner: object, device: str | None = None
) -> Node:
    """A new BUFFER on memory of this process, not copied; `owner` lives as long as it is used.

    The memory is writable and aligned to the element; the device computes in it.
    """
    name = Device.canonicalize(device)
    node = Node.buffer(dtype, size, name)
    place(node, Device[name].host_buffer(address, size * dtype.itemsize, owner))
    return node


def from_numpy(array: np.ndarray[Any, Any], dtype: DType, device: str | None = None) -> Node:
    """A new BUFFER with a copy of the array's elements in row-major order.

    The array's elements are `dtype`'s bytes: what NumPy does not have comes as its bits.
    """
    if array.dtype.itemsize != dtype.itemsize:
        raise DtypeError(
            f"An array of {array.dtype} has {array.dtype.itemsize} bytes an element, "
            f"but {dtype} has {dtype.itemsize}.",
            operation="from_numpy",
        )
    node = allocate(dtype, array.size, device)
    buffer = held(node).buffer
    if array.flags.c_contiguous:
        copy_in(buffer, bytes_of(array))
    else:
        np.frombuffer(buffer.cpu_view(), array.dtype).reshape(array.shape)[...] = array
    return node


def from_bytes(data: Data, dtype: DType, device: str | None = None) -> Node:
    """A new BUFFER with a copy of the bytes."""
    raw = np.frombuffer(data, np.uint8)
    if raw.size % dtype.itemsize:
        raise DtypeError(
            f"{raw.size} bytes are no whole number of {dtype} elements of {dtype.itemsize} bytes.",
            operation="from_bytes",
        )
    node = allocate(dtype, raw.size // dtype.itemsize, device)
    copy_in(held(node).buffer, raw)
    return node


def from_bytes_later(data: Data, dtype: DType, device: str | None = None) -> Node:
    """A new BUFFER of bytes that are looked at when it is used: those of a mapped file.

    A processor computes in them, if they are writable and aligned; other devices copy them then.
    They are a whole number of elements, and not none.
    """
    node = Node.buffer(dtype, memoryview(data).nbytes // dtype.itemsize,
                       Device.canonicalize(device))
    _unread[node] = data
    return node


def read(node: Node) -> memoryview:
    """The bytes of a BUFFER, once everything that writes them has finished.

    The memory itself, not a copy, and writable: it changes with later kernels that write the
    BUFFER, and stays allocated for as long as the view is held.
    """
    return _finished(node).cpu_view()


def read_into(node: Node, array: np.ndarray[Any, Any]) -> None:
    """Copies a BUFFER's first elements to an array in row-major order, as many as it has."""
    copy_out(_finished(node), bytes_of(array))


def _finished(node: Node) -> Buffer:
    """The memory of a BUFFER, once everything that writes it has finished."""
    if ReadGuard.forbidden:
        raise JitError(
            "A tensor's values are read while TinyJit captures: a replay could not give Python "
            "the new ones.",
            operation="read",
            remedy="Return the tensor from the function and read it outside.",
        )
    memory = held(node)
    memory.wait()
    return memory.buffer


AS_BITS: Final = {dtypes.bfloat16: "uint16", **dict.fromkeys(dtypes.fp8s, "uint8")}
"""The types that NumPy and Python do not have, and what holds their bits."""

NUMPY_TYPES: Final = {dtype: np.dtype(AS_BITS.get(dtype, dtype.name)) for dtype in dtypes.all}
"""How the elements of a BUFFER lie in memory, in NumPy's words."""
