"""Tensor: a lazy array on a device, with NumPy-like methods and gradients.

Nothing is computed when a method is called; the graph grows by a few nodes. `realize()`, or
reading with `numpy()`, `item()` and the like, cuts the graph into kernels and runs them.

    a = Tensor.rand(3, 4, requires_grad=True)
    (a @ a.T).relu().sum().backward()
    print(a.grad.numpy())

The methods stand in layers, see `core.py`: this is the top one, with data in and out, writes,
and backward.
"""

from __future__ import annotations

from contextlib import ContextDecorator
from pathlib import Path
from typing import Any, Self

import numpy as np

from compiler.dtype import ConstType, dtypes
from compiler.ir import MOVEMENT, Node, Op, toposort
from compiler.lower import shows_padding
from tinyhw import dlpack, live, storage
from tinyhw.contents import Data, node_of
from tinyhw.core import (
    STORAGE,
    Core,
    DTypeLike,
    Family,
    buffer_of,
    history,
    is_scalar,
    to_dtype,
    to_shape,
)
from tinyhw.creation import checked_shape, filled
from tinyhw.device import Device
from tinyhw.errors import (
    DeviceError,
    DtypeError,
    ExchangeError,
    GradientError,
    IndexOutOfRange,
    NoSuchMethod,
    NotSupported,
    ShapeError,
)
from tinyhw.gradient import BIJECTIVE, gradients
from tinyhw.names import Names
from tinyhw.variable import Variable

# Methods of tinygrad's or torch's tensors that a program may well ask for.
NOT_YET = frozenset(
    """allreduce angle cholesky_solve cuda custom_kernel decode_hevc_frame eig frexp geomspace
    histogram i0 igamma imag istft lstsq lu lu_solve matrix_exp nextafter ormqr polygamma
    register_hook resize_ set_ shard shard_ shard_like sparse_dim stft stride to_sparse
    triangular_solve""".split()
)


class Tensor(Names):
    """An array of `dtype` elements in `shape` on `device`.

    data: a number, nested lists, a Tensor, None for no elements; an array (NumPy's, or anything
    with the buffer protocol or DLPack), which is copied; bytes, as uint8 unless `dtype` says
    otherwise; or a `pathlib.Path`, for a file's bytes, which are read where they are used.
    """

    __slots__ = ()

    def __init__(
        self,
        data: Data | Tensor | Node | Variable,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        requires_grad: bool | None = None,
    ) -> None:
        wanted = None if dtype is None else to_dtype(dtype)
        on_host = device is None and isinstance(data, Path)
        self._device = Device.processor() if on_host else Device.canonicalize(device)
        self._requires_grad, self._leaf, self._spent, self.grad = None, False, False, None
        self._family = Family()
        if isinstance(data, Tensor):
            given = data if device is None else data.to(device)
            given = given if wanted is None else given.cast(wanted)
            self._node, self._device, self._family = given._node, given._device, given._family
            self._requires_grad = given._requires_grad
        else:
            self._node = node_of(data, self._device, wanted)
        live.register(self)
        if requires_grad is not None:
            self.requires_grad_(requires_grad)

    # ---- computing and reading ----
    def realize(self, *others: Tensor) -> Self:
        """Computes this tensor (and others) now, into storage."""
        from tinyhw.realize import realize

        realize(self, *others)
        return self

    def _stored(self) -> Node:
        """The BUFFER that holds exactly this tensor, realised, in row-major order."""
        self.realize()
        whole = self.detach().contiguous()
        return whole.realize()._node.base

    def _fixed_shape(self) -> tuple[int, ...]:
        shape = self.shape
        if not all(isinstance(extent, int) for extent in shape):
            raise ShapeError(
                f"A tensor of the shape {shape} cannot be read: an extent depends on a Variable. "
                "Reduce or shrink it first."
            )
        return shape  # type: ignore[return-value]

    def data(self) -> memoryview:
        """The elements, without copying where the device computes in the host's memory."""
        shape = self._fixed_shape()
        if self.dtype in storage.AS_BITS:
            raise DtypeError(f"Python has no {self.dtype.name}; cast to float32 before reading.")
        if 0 in shape:
            return np.empty(shape, self.dtype.name).data
        return np.frombuffer(self._bytes(), self.dtype.name).reshape(shape).data

    def _bytes(self) -> memoryview:
        """The elements' bytes in row-major order, without copying on a processor."""
        count = int(np.prod(self._fixed_shape(), dtype=int))
        if not count:
            return memoryview(b"")
        if Device.is_processor(self.device):
            return storage.read(self._stored()).cast("B")[: count * self.dtype.itemsize]
        array = np.empty(count * self.dtype.itemsize, np.uint8)
        storage.read_into(self._stored(), array)
        return array.data

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as a NumPy array of its own; bfloat16 and 8-bit floats become float32."""
        if self.dtype in storage.AS_BITS:
            return self.cast(dtypes.float32).numpy()
        shape = self._fixed_shape()
        array = np.empty(shape, self.dtype.name)
        if array.size:
            storage.read_into(self._stored(), array)
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    # ---- other libraries ----
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule: `torch.from_dlpack(t)` and `numpy.from_dlpack(t)` share t's memory.

        On a processor device; a tensor elsewhere is copied if `dl_device` asks for the processor.
        copy: True always copies, False raises ExchangeError where the elements do not lie at
        regular distances. What the tensor depends on is computed, and waited for, first.
        """
        return dlpack.to_capsule(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where the memory is, in DLPack's numbers: (1, 0) is the processor."""
        return dlpack.device_of(self)

    @classmethod
    def from_dlpack(cls, x: Any, *, device: str | None = None, copy: bool | None = None) -> Self:
        """A tensor in the memory of another library's array (anything with `__dlpack__`).

        It stands on the processor device given, on the default device if that is one, else on
        LLVM; for a `device` that is none, it is copied. copy: True always copies, False raises
        ExchangeError instead: for memory that is read-only or not aligned. Also raises it for an
        array on another device, or of a type that tensors do not have.
        """
        place = Device.processor(device)
        elsewhere = device is not None and Device.canonicalize(device) != place
        if elsewhere and copy is False:
            raise ExchangeError(
                f"{device} cannot compute in the host's memory, and copy=False forbids to copy.",
                operation="from_dlpack",
            )
        capsule = x if dlpack.is_capsule(x) else dlpack.capsule_of(x, None if elsewhere else copy)
        new = cls._wrap(dlpack.from_capsule(capsule, place, copy), place)
        return new.to(device) if elsewhere else new

    @classmethod
    def from_blob(
        cls,
        ptr: int,
        shape: int | tuple[int, ...],
        dtype: DTypeLike | None = None,
        device: str | None = None,
        owner: object = None,
    ) -> Self:
        """A tensor in memory of this process at the address `ptr`, row-major and writable.

        The memory must stay where it is for as long as the tensor is used; `owner` is kept alive
        that long. The device is a processor, as in `from_dlpack`. Raises ExchangeError for an
        address that is 0 or not aligned to the element.
        """
        wanted = dtypes.default_float if dtype is None else to_dtype(dtype)
        extents = checked_shape(to_shape(shape if isinstance(shape, tuple | list) else (shape,)))
        place = Device.processor(device)
        if device is not None and Device.canonicalize(device) != place:
            raise DeviceError(
                f"{device} cannot compute in the host's memory; use a processor device, then "
                "`.to(device)`.", device=device, operation="from_blob",
            )
        return cls._wrap(dlpack.from_address(ptr, extents, wanted, place, owner), place)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def item(self) -> ConstType:
        """The only element."""
        if self.numel() != 1:
            raise ShapeError(f"item() needs exactly one element, and the shape is {self.shape}.")
        return self.numpy().item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """The elements as nested lists, or as a number."""
        return self.numpy().tolist()

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the extent of one axis."""
        return self.shape if dim is None else self.shape[self._axis(dim)]

    def __len__(self) -> int:
        if not self.ndim:
            raise DtypeError("A tensor without axes has no length.")
        return self._fixed(0)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        raise DtypeError(
            "A tensor is neither true nor false; read it with item(), or use any() or all()."
        )

    def __contains__(self, value: object) -> bool:
        raise NotSupported("`in` is not supported; use `(tensor == value).any().item()`.")

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        state = "realized" if self._node.base.op is Op.BUFFER else "lazy"
        grad = "" if not self._requires_grad else ", requires_grad"
        return f"<Tensor ({shape}) {self.dtype.name} on {self.device}, {state}{grad}>"

    # ---- writing ----
    def clone(self, device: str | None = None) -> Self:
        """The same values in storage of their own, which no write to this tensor changes."""
        if device is not None and Device.canonicalize(device) != self.device:
            return self.to(device).clone()
        new = self._derive(self._node)
        if new._requires_grad:  # the gradient passes, so the values stay an expression
            return self._derive(self._node.contiguous())
        new._take_storage()
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = self.detach().clone()
        new._requires_grad = None
        if self._requires_grad is not None:
            new.requires_grad_(self._requires_grad)
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return Tensor, (self.numpy(), self.device, self.dtype, self._requires_grad)

    def assign(self, x: Tensor | Data) -> Self:
        """Writes x into this tensor; every view of the same storage sees it."""
        value = x if isinstance(x, Tensor) else Tensor(x, self.device, self.dtype)
        if value._requires_grad:
            raise GradientError(
                "assign would lose the gradient of the assigned value; use detach() on it first."
            )
        if self._requires_grad and not self._leaf:
            raise GradientError(
                "assign to a tensor that was computed from others would falsify their gradients; "
                "use detach() or clone() first."
            )
        if value.shape != self.shape:
            if value.ndim or not is_scalar(x):
                raise ShapeError(f"Cannot assign {value.shape} to a tensor of {self.shape}.")
            value = value.expand(self.shape)
        if value.dtype is not self.dtype:
            raise DtypeError(f"Cannot assign {value.dtype} to {self.dtype}; cast first.")
        if value._node.device not in (None, self.device):
            raise DeviceError(
                f"Cannot assign a tensor on {value.device} to one on {self.device}; "
                "move it with `.to(device)`."
            )
        self._own_storage()
        base = self._node.base
        target = live.rebase(self._node, base, base)
        if value._node is not target:  # writing a tensor to itself changes nothing
            history.overwrite(buffer_of(base))
            live.move(base, base.after(target.assign(value._node.detach())))
        return self

    def _own_storage(self) -> None:
        """Lets this tensor and its views, and no other, stand on their storage."""
        base = self._node.base
        sharing = _tensors_on(base)
        family = [t for t in sharing if t._family is self._family]
        alone = base.op in STORAGE and len(family) == len(sharing)
        if alone and _each_element_once(self._node, base):
            return
        root = _common_view([t._node for t in family])
        if not _each_element_once(self._node, root):
            raise NotSupported(
                "Writing through an expanded or padded view is not supported: several elements "
                "would be one, or none. Use clone() first."
            )
        if not all(isinstance(extent, int) for extent in root.shape):
            raise NotSupported(
                f"Only storage of a fixed shape is written, and {root.shape} depends on a Variable."
            )
        buffer = Node.buffer(root.dtype, root.size, self.device)
        flat = root.detach().reshape((buffer.arg.size,))
        owned = buffer.after(buffer.assign(flat)).reshape(root.shape)
        for tensor in family:
            tensor._restand(live.rebase(tensor._node, root, owned))

    def _has_own_places(self) -> bool:
        """Whether each element is one of the base, and no two are the same."""
        return _each_element_once(self._node, self._node.base)

    def to_(self, device: str | None) -> Self:
        """Moves this tensor to another device."""
        return self.replace(self.to(device))

    def replace(self, x: Tensor) -> Self:
        """Lets this tensor be x, which has its shape and dtype."""
        if x.shape != self.shape or x.dtype is not self.dtype:
            raise ShapeError(
                f"Cannot replace a tensor of {self.shape}, {self.dtype} by {x.shape}, {x.dtype}."
            )
        return self._become(x)

    def _become(self, x: Tensor) -> Self:
        """Stands for what x stands for."""
        self._device, self._family = x._device, x._family
        self._restand(x._node)
        return self

    def __setitem__(self, index: Any, value: Tensor | Data) -> None:
        if self._requires_grad or (isinstance(value, Tensor) and value._requires_grad):
            raise GradientError(
                "Assigning to part of a tensor has no gradient; use detach(), or `where`."
            )
        new = value if isinstance(value, Tensor) else Tensor(value, self.device, self.dtype)
        new = new.cast(self.dtype)
        if isinstance(index, Tensor) and index.dtype is dtypes.bool and new.numel() == 1:
            self.assign(self._behind(index).where(new.reshape(()), self))  # reads no mask
            return
        self._own_storage()
        view, positions = self._indexed(index)
        if positions:
            view.assign(view._put(positions, new, accumulate=False))
        else:
            view.assign(new._broadcast_to(view.shape))

    def _behind(self, mask: Tensor) -> Tensor:
        """A mask of this tensor's first axes, in a shape that broadcasts with it."""
        if mask.shape != self.shape[: mask.ndim]:
            raise IndexOutOfRange(f"A mask of {mask.shape} does not fit the shape {self.shape}.")
        return mask.reshape((*mask.shape, *(1,) * (self.ndim - mask.ndim)))

    def __iadd__(self, x: Self | ConstType) -> Self:
        return self._changed(self + x)

    def __isub__(self, x: Self | ConstType) -> Self:
        return self._changed(self - x)

    def __imul__(self, x: Self | ConstType) -> Self:
        return self._changed(self * x)

    def __itruediv__(self, x: Self | ConstType) -> Self:
        return self._changed(self / x)

    def __ifloordiv__(self, x: Self | ConstType) -> Self:
        return self._changed(self // x)

    def __imod__(self, x: Self | ConstType) -> Self:
        return self._changed(self % x)

    def __ipow__(self, x: Self | ConstType) -> Self:
        return self._changed(self ** x)

    def __iand__(self, x: Self | ConstType) -> Self:
        return self._changed(self & x)

    def __ior__(self, x: Self | ConstType) -> Self:
        return self._changed(self | x)

    def __ixor__(self, x: Self | ConstType) -> Self:
        return self._changed(self ^ x)

    def __ilshift__(self, x: Self | ConstType) -> Self:
        return self._changed(self << x)

    def __irshift__(self, x: Self | ConstType) -> Self:
        return self._changed(self >> x)

    def __imatmul__(self, x: Self) -> Self:
        return self._changed(self @ x)

    def _changed(self, value: Self) -> Self:
        return self.assign(value) if self._writable_in_place() else value

    def _writable_in_place(self) -> bool:
        """Whether `t += x` writes: others are to see it, or it costs no storage.

        Else a new value, which may be computed with what follows, cannot be told apart. A tensor
        with gradient always gets a new value.
        """
        base = self._node.base
        return not self._requires_grad and (base.op in STORAGE or self._has_views())

    def _has_views(self) -> bool:
        """Whether another tensor was made as a view of this one, or this one of another."""
        return any(
            t is not self and t._family is self._family for t in _tensors_on(self._node.base)
        )

    # ---- gradients ----
    def gradient(self, *targets: Tensor, gradient: Tensor | None = None) -> list[Tensor]:
        """The gradient of this tensor by each target; `gradient` is what comes from above."""
        nodes = gradients(self._node, self._seed_gradient(gradient), [t._node for t in targets])
        found = []
        for target, node in zip(targets, nodes, strict=True):
            if node is None:
                raise GradientError(
                    f"This tensor does not depend on the target of shape {target.shape}, "
                    "or the way there is detached."
                )
            found.append(self._wrap(node, self._device))
        return found

    def _seed_gradient(self, gradient: Tensor | None) -> Node:
        if not dtypes.is_float(self.dtype):
            raise DtypeError(f"Only floats have a gradient, and this tensor is {self.dtype}.")
        if gradient is None:
            if self.numel() != 1:
                raise GradientError(
                    f"backward() of a tensor of the shape {self.shape} needs `gradient`: "
                    "only one element can do without."
                )
            return filled(self.shape, 1.0, self.dtype)
        if gradient.shape != self.shape:
            raise ShapeError(f"A gradient of {gradient.shape} meets a tensor of {self.shape}.")
        return gradient.cast(self.dtype)._node

    def backward(self, gradient: Tensor | None = None) -> Self:
        """Adds the gradient by every tensor made with requires_grad to that one's `grad`.

        Where there is none such, as in tinygrad, by every tensor of stored floats that does not
        refuse it (requires_grad=False).
        """
        if self._requires_grad:
            leaves = [t for t in self._leaves.values() if t._leaf]
        else:
            leaves = [] if self._requires_grad is False else self._stored_floats()
        if not leaves:
            raise GradientError(
                "backward() of a tensor that depends on none with requires_grad=True, "
                "or was computed under no_grad."
            )
        found = gradients(self._node, self._seed_gradient(gradient), [t._node for t in leaves])
        if not any(found):
            why = ": it was called before, and the way there is forgotten" if self._spent else ""
            raise GradientError(
                f"No tensor with requires_grad=True is reached by backward(){why}."
            )
        for leaf, node in zip(leaves, found, strict=True):
            if node is not None:
                new = self._wrap(node, leaf._device)
                leaf.grad = new if leaf.grad is None else leaf.grad + new
        self._spent = True
        return self

    def _stored_floats(self) -> list[Tensor]:
        """The tensors below this one that are storage, or will be, and may have a gradient."""
        found: dict[int, Tensor] = {}
        for node in toposort(self._node):
            if node.op in STORAGE or node.op is Op.CONTIGUOUS:
                for t in _tensors_on(node):
                    whole = t is not self and _keeps_all(t._node, node)
                    if whole and t._requires_grad is None and dtypes.is_float(t.dtype):
                        found[id(t)] = t
        return list(found.values())

    def __getattr__(self, name: str) -> Any:
        later = ": it is not supported yet." if name in NOT_YET else "."
        raise NoSuchMethod(f"Tensor has no method {name!r}{later}")

    class train(ContextDecorator):  # noqa: N801  (reads as a method, and is one in tinygrad)
        """Turns `Tensor.training` on (or off) for a with block or a decorated function."""

        def __init__(self, mode: bool = True) -> None:
            self.mode = mode
            self.before: list[bool] = []

        def __enter__(self) -> Self:
            self.before.append(Core.training)
            Core.training = self.mode
            return self

        def __exit__(self, *error: object) -> None:
            Core.training = self.before.pop()

    class test(train):  # noqa: N801
        """Turns `Tensor.training` off (or on)."""

        def __init__(self, mode: bool = True) -> None:
            super().__init__(not mode)


class no_grad(ContextDecorator):  # noqa: N801  (torch's name)
    """Within the block (or decorated function), what is computed has no gradient."""

    def __init__(self) -> None:
        self.before: list[bool] = []

    def __enter__(self) -> Self:
        self.before.append(Core.grad_enabled)
        Core.grad_enabled = False
        return self

    def __exit__(self, *error: object) -> None:
        Core.grad_enabled = self.before.pop()


def _tensors_on(base: Node) -> list[Tensor]:
    return [t for t in live.aliases(base) if isinstance(t, Tensor)]


def _keeps_all(view: Node, root: Node) -> bool:
    """Whether `view` is all of `root`, under any shape and order."""
    while view is not root and view.op in BIJECTIVE:
        view = view.src[0]
    return view is root


def _each_element_once(view: Node, root: Node) -> bool:
    """Whether each element of `view` is an element of `root`, and no two are the same."""
    node, padded = view, False
    while node is not root:
        if node.op in (Op.EXPAND, Op.SKEW):
            return False
        padded = padded or node.op is Op.PAD
        node = node.src[0]
    if not padded or 0 in view.shape:
        return True
    # Every other element of an odd number: what is padded is cut off again.
    param = Node(Op.PARAM, root.dtype, (), (0, root.size)).reshape(root.shape)
    return not shows_padding(live.rebase(view, root, param))


def _common_view(nodes: list[Node]) -> Node:
    """The node nearest to the given views of one base that all of them are views of."""
    chains = []
    for node in nodes:
        chain = [node]
        while chain[-1].op in MOVEMENT or chain[-1].op is Op.DETACH:
            chain.append(chain[-1].src[0])
        chains.append(chain)
    return next(node for node in chains[0] if all(node in chain for chain in chains))
