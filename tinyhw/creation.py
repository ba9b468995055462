"""Tensors out of nothing: constants, ranges, storage; and which of them keep a gradient.

Every maker takes `device`, `dtype` and `requires_grad` by keyword.
"""

from __future__ import annotations

import gzip
import math
import urllib.request
import zlib
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import numpy as np

from compiler.dtype import ConstType, DType, dtypes
from compiler.ir import Extent, Node, Op, Shape, index
from tinyhw.core import (
    DTypeLike,
    is_scalar,
    is_whole_storage,
    python_dtype,
    to_dtype,
    to_extent,
    to_shape,
)
from tinyhw.device import Device
from tinyhw.errors import DtypeError, NotSupported, ShapeError, TensorError
from tinyhw.linalg import LinearAlgebra
from tinyhw.movement import product
from tinyhw.variable import Variable, require_not_negative, without_value

URL_TIMEOUT_S = 30.0  # between two packets


class Creation(LinearAlgebra):
    """Makers of tensors, and their flag `requires_grad`."""

    __slots__ = ()

    _leaves: ClassVar[WeakValueDictionary[int, Any]] = WeakValueDictionary()  # id -> tensor

    @classmethod
    def _made(cls, node: Node, device: str | None, requires_grad: bool | None = None) -> Self:
        """A tensor that no other was computed into."""
        new = cls._wrap(node, Device.canonicalize(device))
        if requires_grad is not None:
            new.requires_grad_(requires_grad)
        return new

    # ---- gradient flag ----
    @property
    def requires_grad(self) -> bool | None:
        """Whether gradients reach this tensor; None lets an optimiser decide."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool | None) -> None:
        if value:
            self.requires_grad_(True)
        else:
            self._requires_grad = value

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Keeps (or stops keeping) the gradient of this tensor, in `grad`."""
        if not requires_grad:
            self._requires_grad, self._leaf = False, False
        elif not self._requires_grad:
            if not dtypes.is_float(self.dtype):
                raise DtypeError(f"Only floats have a gradient, and this tensor is {self.dtype}.")
            if not is_whole_storage(self.node):
                self._take_storage()
            self._requires_grad, self._leaf = True, True
            Creation._leaves[id(self)] = self
        return self

    def _take_storage(self) -> None:
        """Lets this tensor be storage of its own, written with what it was before.

        Two parameters that start with equal values are one node of the graph; storage makes
        them two, for their gradients and for writes.
        """
        if not all(isinstance(extent, int) for extent in self.shape):
            raise NotSupported(
                f"A tensor whose shape {self.shape} depends on a Variable cannot have storage of "
                "its own, so it takes no gradient and no assignment."
            )
        value = self.node.detach()
        buffer = Node.buffer(self.dtype, self.node.size, self.device)
        whole = value.reshape((buffer.arg.size,))
        self._restand(buffer.after(buffer.assign(whole)).reshape(self.shape))

    def _restand(self, node: Node) -> None:
        """Lets this tensor stand on another node."""
        from tinyhw import live

        self.node = node
        live.register(self)

    # ---- constants ----
    @classmethod
    def full(
        cls,
        shape: int | tuple[Any, ...] | list[Any],
        fill_value: ConstType,
        dtype: DTypeLike | None = None,
        device: str | None = None,
        buffer: bool = True,
        requires_grad: bool | None = None,
    ) -> Self:
        """`fill_value` everywhere. `buffer` is tinygrad's: storage is made here once it is used."""
        if not is_scalar(fill_value):
            raise DtypeError(f"A tensor is filled with a number, not with {fill_value!r}.")
        wanted = python_dtype(fill_value) if dtype is None else to_dtype(dtype)
        extents = checked_shape(to_shape(shape if isinstance(shape, tuple | list) else (shape,)))
        node = filled(extents, fill_value, wanted)
        return cls._made(node, device, requires_grad)

    @classmethod
    def zeros(cls, *shape: Any, **kwargs: Any) -> Self:
        """0 everywhere, as the default float."""
        return cls.full(to_shape(shape), 0.0, **kwargs)

    @classmethod
    def ones(cls, *shape: Any, **kwargs: Any) -> Self:
        """1 everywhere, as the default float."""
        return cls.full(to_shape(shape), 1.0, **kwargs)

    @classmethod
    def empty(
        cls,
        *shape: Any,
        dtype: DTypeLike | None = None,
        device: str | None = None,
        requires_grad: bool | None = None,
    ) -> Self:
        """Storage whose values are whatever the memory holds."""
        extents = checked_shape(to_shape(shape))
        if not all(isinstance(extent, int) for extent in extents):
            raise NotSupported(f"Storage needs a fixed size, and {extents} depends on a Variable.")
        wanted = dtypes.default_float if dtype is None else to_dtype(dtype)
        size = int(product(extents))  # type: ignore[arg-type]
        node = Node.buffer(wanted, size, Device.canonicalize(device)).reshape(extents)
        return cls._made(node, device, requires_grad)

    @classmethod
    def invalids(cls, *shape: Any, **kwargs: Any) -> Self:
        """`empty`."""
        return cls.empty(*shape, **kwargs)

    @classmethod
    def const(cls, b: ConstType, dtype: DTypeLike | None = None) -> Self:
        """A scalar."""
        return cls.full((), b, dtype)

    @classmethod
    def from_url(cls, url: str, gunzip: bool = False, **kwargs: Any) -> Self:
        """The bytes behind a URL, read now, unpacked if `gunzip`; raises TensorError."""
        make: Any = cls
        try:
            with urllib.request.urlopen(url, timeout=URL_TIMEOUT_S) as reply:
                content = reply.read()
            return make(gzip.decompress(content) if gunzip else content, **kwargs)  # type: ignore[no-any-return]
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise TensorError(f"Cannot read {url}: {error}.", operation="from_url") from error

    def full_like(
        self, fill_value: ConstType, dtype: DTypeLike | None = None, **kwargs: Any
    ) -> Self:
        """`fill_value` in the shape, dtype and place of self."""
        return type(self).full(self.shape, fill_value, **self._like(kwargs, dtype))

    def zeros_like(self, **kwargs: Any) -> Self:
        """0 in the shape, dtype and place of self."""
        return self.full_like(0, **kwargs)

    def ones_like(self, **kwargs: Any) -> Self:
        """1 in the shape, dtype and place of self."""
        return self.full_like(1, **kwargs)

    def empty_like(self, dtype: DTypeLike | None = None, **kwargs: Any) -> Self:
        """Storage in the shape, dtype and place of self."""
        return type(self).empty(self.shape, **self._like(kwargs, dtype))

    def _like(self, kwargs: dict[str, Any], dtype: DTypeLike | None = None) -> dict[str, Any]:
        return {"device": self.device, "dtype": dtype or self.dtype} | kwargs

    # ---- ranges ----
    @classmethod
    def arange(
        cls,
        start: Any,
        stop: Any = None,
        step: float = 1,
        dtype: DTypeLike | None = None,
        device: str | None = None,
        requires_grad: bool | None = None,
    ) -> Self:
        """start, start + step, ... below stop; one argument is the stop."""
        if stop is None:
            start, stop = 0, start
        if isinstance(start, Node | Variable) or isinstance(stop, Node | Variable):
            extents = to_extent(start), to_extent(stop)
            if step != 1:
                raise NotSupported("arange between Variables steps by 1.")
            wanted = dtypes.default_int if dtype is None else to_dtype(dtype)
            return cls._made(_positions(*extents, wanted), device, requires_grad)
        if not all(is_scalar(v) for v in (start, stop, step)) or step == 0:
            raise ShapeError(f"arange needs numbers and a step other than 0: {start, stop, step}.")
        floats = any(isinstance(v, float) for v in (start, stop, step))
        default = dtypes.default_float if floats else dtypes.default_int
        wanted = default if dtype is None else to_dtype(dtype)
        count = max(0, -int((start - stop) // step))
        return cls._made(_progression(count, start, step, wanted), device, requires_grad)

    @classmethod
    def linspace(
        cls,
        start: float,
        stop: float,
        steps: int,
        dtype: DTypeLike | None = None,
        device: str | None = None,
        requires_grad: bool | None = None,
    ) -> Self:
        """`steps` numbers at even distances from start to stop, both included."""
        if steps < 0:
            raise ShapeError(f"linspace needs at least 0 steps, not {steps}.")
        wanted = dtypes.default_float if dtype is None else to_dtype(dtype)
        step = (stop - start) / (steps - 1) if steps > 1 else 0.0
        return cls._made(_progression(steps, start, step, wanted), device, requires_grad)

    @classmethod
    def logspace(
        cls, start: float, stop: float, steps: int, base: float = 10.0, **kwargs: Any
    ) -> Self:
        """base to the powers of `linspace`."""
        powers = cls.linspace(start, stop, steps, **kwargs)
        return (powers * math.log2(base)).exp2()

    @classmethod
    def tril_indices(cls, row: int, col: int, offset: int = 0, **kwargs: Any) -> Self:
        """(2, count): the positions in a matrix up to a diagonal, row by row."""
        return cls._upload_int32(np.tril_indices(row, offset, col), **kwargs)

    @classmethod
    def triu_indices(cls, row: int, col: int, offset: int = 0, **kwargs: Any) -> Self:
        """(2, count): the positions in a matrix from a diagonal on, row by row."""
        return cls._upload_int32(np.triu_indices(row, offset, col), **kwargs)

    @classmethod
    def _upload_int32(cls, columns: Any, device: str | None = None) -> Self:
        return cls._upload(np.array(columns, np.int32), Device.canonicalize(device))

    @classmethod
    def eye(
        cls,
        n: int,
        m: int | None = None,
        dtype: DTypeLike | None = None,
        device: str | None = None,
        requires_grad: bool | None = None,
    ) -> Self:
        """1 on the main diagonal of n rows and m columns (n for None), 0 elsewhere."""
        m = n if m is None else m
        checked_shape((n, m))
        wanted = dtypes.default_float if dtype is None else to_dtype(dtype)
        rows = Node.iota(n).reshape((n, 1)).expand((n, m))
        columns = Node.iota(m).reshape((1, m)).expand((n, m))
        return cls._made(rows.alu(Op.CMPEQ, columns).cast(wanted), device, requires_grad)


def filled(shape: Shape, value: ConstType, dtype: DType) -> Node:
    """A constant in every place of `shape`."""
    return Node.const(value, dtype).reshape((1,) * len(shape)).expand(shape)


def _positions(start: Extent, stop: Extent, dtype: DType) -> Node:
    """start, start + 1, ..., stop - 1."""
    count = to_extent(stop - start)

    def wrong() -> str:
        return "arange from {} to {} is too short".format(*map(without_value, (start, stop)))

    require_not_negative((count,), wrong)
    positions = Node.iota(count)
    if start != 0:
        first = index(start).reshape((1,)).expand((count,))
        positions = positions.alu(Op.ADD, first)
    return positions.cast(dtype)


def _progression(count: int, start: ConstType, step: ConstType, dtype: DType) -> Node:
    """start + i*step, computed in a type that holds whole numbers exactly, then cast."""
    positions = Node.iota(count)
    exact = all(float(v).is_integer() for v in (start, step))
    wide = dtypes.int64 if exact and not dtypes.is_float(dtype) else dtypes.float64
    if dtypes.is_float(dtype):
        wide = dtype if dtype.bits >= 32 else dtypes.float32
    elif dtype.bits <= 32 and exact:
        wide = dtypes.int32
    node = positions.cast(wide)
    if step != 1:
        node = node.alu(Op.MUL, Node.const(step, wide))
    if start != 0:
        node = node.alu(Op.ADD, Node.const(start, wide))
    return node.cast(dtype)


def checked_shape(shape: Shape) -> Shape:
    """A shape without negative extents; raises ShapeError."""
    if any(isinstance(extent, int) and extent < 0 for extent in shape):
        raise ShapeError(f"The shape {shape} has a negative extent.")
    return shape
