"""What every tensor method stands on: a node of the graph, its device and its gradient flag.

The methods of `Tensor` come in layers, each a class over the one before: `Core` (this file),
`Casts`, `Movement`, `Layout`, `Arithmetic`, `Elementwise`, `Special`, `Activations`,
`Reductions`, `Scans`, `Indexing`, `Sorting`, `Scattering`, `Products`, `Pooling`, `Resampling`,
`LinearAlgebra`, `Creation`, `Random`, `Losses`, `Attention`, `Names`, `Tensor`. A method composes
those of its own layer and of the layers below.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, ClassVar, ParamSpec, Self, TypeAlias, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from compiler.dtype import ConstType, DType, dtypes, least_upper_dtype
from compiler.ir import MOVEMENT, Extent, Node, Op, Shape, substitute, toposort
from tinyhw import live, storage
from tinyhw.context import TRAINING
from tinyhw.device import Device
from tinyhw.errors import DeviceError, DtypeError, GradientError, IndexOutOfRange, ShapeError
from tinyhw.variable import Variable

Axis: TypeAlias = "int | Sequence[int] | None"
DTypeLike: TypeAlias = "DType | str"

P = ParamSpec("P")
R = TypeVar("R")

STORAGE = frozenset({Op.BUFFER, Op.AFTER})
SAME_DEVICE = ""
DTYPE_NAMES = tuple(d.name for d in dtypes.all)

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def also_named(**spellings: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a method take an argument by another keyword too: `also_named(dim="axis")`."""

    def declare(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            for spelling, name in spellings.items():
                if spelling in kwargs:
                    kwargs[name] = kwargs.pop(spelling)
            return method(*args, **kwargs)

        return renamed

    return declare


def in_float32(method: Callable[P, R]) -> Callable[P, R]:
    """Lets a method compute 8-bit floats in float32 and round once.

    For what has constants that such a type does not hold: its log2(e) would be 1.5.
    """

    @functools.wraps(method)
    def wide(*args: P.args, **kwargs: P.kwargs) -> R:
        x: Any = args[0]
        if x.dtype not in dtypes.fp8s:
            return method(*args, **kwargs)
        found: Any = getattr(x.cast(dtypes.float32), method.__name__)(*args[1:], **kwargs)
        result: R = found.cast(x.dtype)
        return result

    return wide


class Family:
    """Tensors that share storage because one was made as a view of another.

    Equal computations are one node, so that they are realised once, into one buffer; that
    alone must not let a write to one tensor change another.
    """

    __slots__ = ()


class Modes(type):
    """What `Tensor.training` is: the setting TRAINING."""

    @property
    def training(cls) -> bool:
        """Whether dropout drops, batch norms track, and optimisers may step."""
        return bool(TRAINING)

    @training.setter
    def training(cls, mode: bool) -> None:
        TRAINING.value = mode


class Core(metaclass=Modes):
    """A lazy array: `node` says how to compute it, and nothing is computed before it is read."""

    __slots__ = (
        "__weakref__",
        "_device",
        "_family",
        "_leaf",
        "_node",
        "_requires_grad",
        "_spent",
        "grad",
    )

    grad_enabled: ClassVar[bool] = True

    _node: Node
    _device: str
    _family: Family
    _requires_grad: bool | None
    _leaf: bool  # a gradient that reaches it is kept in `grad`
    _spent: bool  # its gradient has been taken: realising it may forget where it came from
    grad: Self | None

    # ---- making tensors of nodes ----
    @classmethod
    def _wrap(cls, node: Node, device: str, family: Family | None = None) -> Self:
        """A new tensor without gradient; `family` says whose storage it shares."""
        self = object.__new__(cls)
        self._node, self._device = node, device
        self._family = family or Family()
        self._requires_grad, self._leaf, self._spent, self.grad = None, False, False, None
        live.register(self)
        return self

    @classmethod
    def _upload(cls, array: np.ndarray[Any, Any], device: str) -> Self:
        """A tensor of an array's values, of the type that has the array's name."""
        dtype = to_dtype(array.dtype.name)
        if not array.size:  # storage has at least one element
            empty = Node.const(0, dtype).reshape((1,) * array.ndim).expand(array.shape)
            return cls._wrap(empty, device)
        return cls._wrap(storage.from_numpy(array, dtype, device).reshape(array.shape), device)

    def _derive(self, node: Node, *others: Self, view: bool = False) -> Self:
        """The tensor of a node that was computed from this one and `others`.

        A view shares the storage of this tensor.
        """
        device = self._device
        requires_grad = self._requires_grad
        if others:
            device = common_device(self, *others)
            requires_grad = any(t._requires_grad for t in (self, *others)) or requires_grad
        if requires_grad and not Core.grad_enabled:
            node, requires_grad = node.detach(), False
        if node.origin is None:
            node.origin = user_line()
        new = self._wrap(node, device, self._family if view else None)
        new._requires_grad = requires_grad
        return new

    def _alu(self, op: Op, *others: Self) -> Self:
        """The elementwise `op` of tensors whose shapes and dtypes agree already."""
        return self._derive(self._node.alu(op, *(t._node for t in others)), *others)

    def _constant(self, value: ConstType, dtype: DType | None = None) -> Self:
        """A scalar on this tensor's device, with this tensor's dtype unless told."""
        return self._wrap(Node.const(value, dtype or self.dtype), self._device)

    # ---- asking ----
    @property
    def node(self) -> Node:
        """The graph that computes this tensor; once realised, a view of a BUFFER."""
        return self._node

    @node.setter
    def node(self, node: Node) -> None:
        if self._requires_grad and not (self._leaf or self._spent):
            history.remember(self._node, node)
        elif self._requires_grad is False and is_detached(self._node) and not is_detached(node):
            node = node.detach()  # storage is the same with and without, gradients are not
        self._node = node

    @property
    def shape(self) -> Shape:
        """The extents; those that depend on a Variable are index nodes."""
        return self._node.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._node.dtype

    @property
    def device(self) -> str:
        """The name of the device that holds or computes this tensor."""
        return self._node.device or self._device

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._node.shape)

    def numel(self) -> Extent:
        """The number of elements."""
        total: Extent = 1
        for extent in self.shape:
            total = total * extent
        return to_extent(total)

    def element_size(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize

    def nbytes(self) -> Extent:
        """Bytes of all elements."""
        return self.numel() * self.element_size()

    def is_floating_point(self) -> bool:
        """Whether the element type is a float."""
        return dtypes.is_float(self.dtype)

    def _axis(self, axis: int) -> int:
        """`axis` counted from the front; raises where the tensor has no such axis."""
        return checked_axis(axis, self.ndim)

    def _axes(self, axis: Axis) -> tuple[int, ...]:
        """Given axes, or all of them for None, counted from the front and in order."""
        if axis is None:
            return tuple(range(self.ndim))
        given = (axis,) if isinstance(axis, int) else tuple(axis)
        axes = tuple(sorted(self._axis(a) for a in given))
        if len(set(axes)) != len(axes):
            raise ShapeError(f"Axes {given} name an axis of the shape {self.shape} twice.")
        return axes

    # ---- dtypes ----
    def cast(self, dtype: DTypeLike) -> Self:
        """The same values in another type, rounded or truncated."""
        dtype = to_dtype(dtype)
        return self if dtype is self.dtype else self._derive(self._node.cast(dtype))

    def _same_width(self, dtype: DType) -> Self:
        """The same bits as another type of the same width."""
        if dtype is self.dtype:
            return self
        new = self._derive(self._node.bitcast(dtype))
        new._requires_grad = None
        return new

    # ---- memory and gradient ----
    def contiguous(self) -> Self:
        """The same values in row-major order, in storage rather than as an expression."""
        return self if is_whole_storage(self._node) else self._derive(self._node.contiguous())

    def detach(self) -> Self:
        """The same values, behind which no gradient goes; shares storage."""
        new = self._derive(self._node.detach(), view=True)
        new._requires_grad = False
        return new

    def to(
        self, device: str | DType | Self | None = SAME_DEVICE, dtype: DTypeLike | None = None
    ) -> Self:
        """The same values on another device (None is the default one), as another type, or both.

        `to(dtype)`, `to(device, dtype)`, and `to(other)` for both of another tensor.
        """
        if isinstance(device, Core):
            return self.to(device.device, device.dtype)
        if isinstance(device, DType):
            device, dtype = SAME_DEVICE, device
        if dtype is not None:
            return self.cast(dtype).to(device)
        if device == SAME_DEVICE:
            return self
        device = Device.canonicalize(device)
        if device == self.device:
            return self
        if self._node.device is None:
            new = self._derive(self._node)
            new._device = device
            return new
        new = self._derive(self._node.copy_to(device))
        new._device = device
        return new


class History:
    """Where realised values came from: BUFFER -> the graph that computed it.

    Realising a tensor makes it a view of a buffer. A gradient still has to find its way
    through that buffer to what it was computed from.
    """

    def __init__(self) -> None:
        self._computed: WeakKeyDictionary[Node, Node] = WeakKeyDictionary()

    def remember(self, before: Node, after: Node) -> None:
        """Notes that realising `before` gave `after`, a view of storage."""
        storage = after.base
        if storage.op is not Op.BUFFER or storage in self._computed:
            return
        for origin in (before, before.base):
            if origin.base is not storage and origin.size == storage.size:
                self._computed[storage] = _as_written(origin)
                return

    def origin(self, storage: Node) -> Node | None:
        """The graph whose values `storage` holds; None where it is not known to have one.

        Raises GradientError if something that the graph reads has been overwritten since.
        """
        found = self._computed.get(storage)
        if found is not None and found.op is Op.CONST:
            raise GradientError(
                "The gradient goes through a tensor that was read or realised, and what that was "
                "computed from has been overwritten since (drawing random numbers counts). Call "
                "backward() before."
            )
        return found

    def overwrite(self, storage: Node) -> None:
        """Notes that `storage` is assigned to: what was computed from it cannot be again."""
        for computed, origin in list(self._computed.items()):
            if storage in toposort(origin):
                self._computed[computed] = _OVERWRITTEN


_OVERWRITTEN = Node.const(False, dtypes.bool)

history = History()


def _as_written(node: Node) -> Node:
    """`node` as it reads now that every write below it has happened.

    _OVERWRITTEN where it reads storage in a state that is gone, or that a pending write ends.
    """
    versions: dict[Node, Node] = {}  # BUFFER -> the state of it that is read
    for below in toposort(node, lambda n: n.op is not Op.AFTER):
        if below.op in STORAGE and versions.setdefault(buffer_of(below), below) is not below:
            return _OVERWRITTEN
    for pending in live.pending():
        if pending.op is Op.AFTER and versions.get(buffer_of(pending), pending) is not pending:
            return _OVERWRITTEN
    return substitute(node, {version: buffer for buffer, version in versions.items()})


def buffer_of(state: Node) -> Node:
    """The BUFFER under writes to it."""
    while state.op is Op.AFTER:
        state = state.src[0]
    return state


def user_line() -> tuple[str, int] | None:
    """(file, line) of the innermost call that is not inside this package."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE):
            return name, frame.f_lineno
        frame = frame.f_back
    return None


def to_dtype(dtype: DTypeLike) -> DType:
    """The element type of that name, or `dtype` itself."""
    if isinstance(dtype, DType):
        return dtype
    found = getattr(dtypes, dtype, None) if isinstance(dtype, str) else None
    if not isinstance(found, DType):
        raise DtypeError(f"{dtype!r} is no element type; there are {', '.join(DTYPE_NAMES)}.")
    return found


def python_dtype(value: ConstType) -> DType:
    """The default type of a Python scalar."""
    if isinstance(value, bool):
        return dtypes.bool
    return dtypes.default_int if isinstance(value, int) else dtypes.default_float


def is_scalar(value: object) -> TypeGuard[ConstType]:
    """Whether `value` is a Python number (NumPy's float64 is one too)."""
    return isinstance(value, bool | int | float)


def sum_dtype(dtype: DType) -> DType:
    """The type in which a sum of `dtype` is returned: integers get at least 32 bits."""
    if dtypes.is_unsigned(dtype):
        return least_upper_dtype(dtype, dtypes.uint32)
    if dtypes.is_float(dtype):
        return dtype
    return least_upper_dtype(dtype, dtypes.int32)


def float_dtype(dtype: DType) -> DType:
    """`dtype` if it is a float, else the default float."""
    return dtype if dtypes.is_float(dtype) else dtypes.default_float


def checked_axis(axis: int, ndim: int) -> int:
    """`axis` counted from the front; raises where a tensor of `ndim` axes has no such axis."""
    if not isinstance(axis, int):
        raise DtypeError(f"An axis is an integer, not {axis!r}.")
    if not -max(ndim, 1) <= axis < max(ndim, 1):
        raise IndexOutOfRange(
            f"Axis {axis} is out of range for a tensor of {ndim} axes: "
            f"it must lie in [{-max(ndim, 1)}, {max(ndim, 1) - 1}]."
        )
    return axis % max(ndim, 1)


def to_extent(extent: Extent | Variable) -> Extent:
    """`extent` as shapes hold it: an int, or an index node for one that a Variable decides."""
    if isinstance(extent, Node):
        return int(extent.arg) if extent.op is Op.CONST else extent
    if isinstance(extent, Variable):
        return extent.node
    try:
        return operator.index(extent)
    except TypeError:
        raise DtypeError(f"An extent is an integer or a Variable, not {extent!r}.") from None


def to_shape(shape: Sequence[Any]) -> Shape:
    """Extents given one by one or as a single tuple or list."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = shape[0]
    return tuple(to_extent(extent) for extent in shape)


def is_whole_storage(node: Node) -> bool:
    """Whether `node` is all of its storage in order, under any shape."""
    while node.op is Op.RESHAPE or node.op is Op.DETACH:
        node = node.src[0]
    return node.op in STORAGE


def is_detached(node: Node) -> bool:
    """Whether a DETACH stands among the movement ops on top of `node`."""
    while node.op in MOVEMENT:
        node = node.src[0]
    return node.op is Op.DETACH


def common_device(*tensors: Core) -> str:
    """The device of tensors that are combined; scalars and ranges follow the others."""
    named = {t._node.device: None for t in tensors if t._node.device is not None}
    if len(named) > 1:
        raise DeviceError(
            f"Tensors of different devices are combined: {' and '.join(map(str, named))}. "
            "Move one of them with `.to(device)`."
        )
    return str(next(iter(named))) if named else tensors[0]._device
