"""What a captured function is called with: Tensors that may change, and everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from compiler.dtype import DType, dtypes
from compiler.ir import Node, Op, Shape, substitute, upper
from tinyhw import live
from tinyhw.errors import JitError
from tinyhw.prepare import Preparation
from tinyhw.realize import realize
from tinyhw.tensor import Tensor
from tinyhw.variable import binding, unbound

_COMPARED = (int, float, bool, str, bytes, type(None), DType)


class _Mark:
    """Stands in the list of what must stay the same for something that may change."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


A_TENSOR: Final = _Mark("a Tensor")
A_LIST: Final = _Mark("a list")
A_TUPLE: Final = _Mark("a tuple")
A_DICT: Final = _Mark("a dict")


class Arguments:
    """The arguments of one call, taken apart: `fixed` is all that a replay cannot change."""

    __slots__ = ("args", "kwargs", "tensors", "fixed", "variables")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        self.tensors: list[Tensor] = []
        self.fixed: list[Any] = []
        self.variables: dict[str, int] = {}
        for value in args:
            if type(value) is Tensor:
                self.tensors.append(value)
                self.fixed.append(A_TENSOR)
            else:
                self._take(value)
        if kwargs:
            self._take(kwargs)

    def _take(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            self.fixed.append(A_TENSOR)
        elif isinstance(value, list | tuple):
            self.fixed += (A_LIST if isinstance(value, list) else A_TUPLE, len(value))
            for part in value:
                self._take(part)
        elif isinstance(value, dict):
            self.fixed += (A_DICT, len(value))
            for key in sorted(value, key=repr):
                self.fixed.append(key)
                self._take(value[key])
        elif isinstance(value, Node) and value.dtype is dtypes.index:
            form, values = unbound(value)
            self.fixed.append(form)
            for name, bound in values.items():
                self._bind(name, bound)
        else:
            self.fixed.append(value)

    def _bind(self, name: str, value: int) -> None:
        if self.variables.setdefault(name, value) != value:
            raise JitError(
                f"The Variable {name} is given as {self.variables[name]} and as {value}.",
                operation="call",
            )

    def paths(self) -> list[str]:
        """Where each Tensor stands, in the words of an error message."""
        found: list[str] = []
        for i, value in enumerate(self.args):
            _paths(value, f"argument {i}", found)
        for key in sorted(self.kwargs, key=repr):
            _paths(self.kwargs[key], f"argument {key}", found)
        return found

    def replaced(self, tensors: list[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other Tensors in the place of those given."""
        new = {id(a): b for a, b in zip(self.tensors, tensors, strict=True) if a is not b}
        if not new:
            return self.args, self.kwargs
        args: tuple[Any, ...] = _replaced(self.args, new)
        kwargs: dict[str, Any] = _replaced(self.kwargs, new)
        return args, kwargs

    def check_fixed(self) -> None:
        """Raises JitError for a value whose changes could not be seen."""
        for value in self.fixed:
            if isinstance(value, np.ndarray):
                raise JitError(
                    "A NumPy array is among the arguments of a captured function; its values "
                    "would be those of the captured call forever.",
                    operation="capture",
                    remedy="Pass `Tensor(array)`.",
                )


def same(given: list[Any], captured: list[Any]) -> bool:
    """Whether what must stay the same has."""
    if len(given) != len(captured):
        return False
    for a, b in zip(given, captured, strict=True):
        if a is not b and not (type(a) is type(b) and isinstance(a, _COMPARED) and a == b):
            return False
    return True


def difference(given: list[Any], captured: list[Any]) -> str:
    """The first difference, in words."""
    for a, b in zip(given, captured, strict=False):
        if not same([a], [b]):
            return f"it is called with {_shown(a)}, but was captured with {_shown(b)}"
    return f"it is called with {len(given)} values, but was captured with {len(captured)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _paths(value: Any, at: str, found: list[str]) -> None:
    if isinstance(value, Tensor):
        found.append(f"{at[0].upper()}{at[1:]}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            _paths(part, f"{at}[{i}]", found)
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            _paths(value[key], f"{at}[{key!r}]", found)


def _replaced(value: Any, new: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return new.get(id(value), value)
    if type(value) in (list, tuple):
        return type(value)(_replaced(part, new) for part in value)
    if isinstance(value, tuple):  # a named one
        return type(value)(*(_replaced(part, new) for part in value))
    if isinstance(value, dict):
        return {key: _replaced(part, new) for key, part in value.items()}
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """Every Tensor in a result: alone, or in lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for part in value for tensor in tensors_in(part)]


@dataclass(frozen=True)
class Given:
    """A Tensor ready to be an input: all of a BUFFER, with Variables apart from their values."""

    tensor: Tensor
    node: Node
    values: dict[str, int]


def as_input(tensor: Tensor) -> Given:
    """Realizes a Tensor, and copies it where it is only a part of its storage."""
    realize(tensor)
    node, values = _prepared(tensor)
    if not _is_whole(node):
        tensor = type(tensor)._wrap(tensor.node.contiguous(), tensor.device)
        realize(tensor)
        node, values = _prepared(tensor)
    return Given(tensor, node, values)


def _prepared(tensor: Tensor) -> tuple[Node, dict[str, int]]:
    preparation = Preparation()
    preparation.run((tensor.node,))
    return preparation.done[tensor.node], preparation.values


def _is_whole(node: Node) -> bool:
    """Whether a view is its BUFFER in order; a Variable's extent may leave its end unused."""
    while node.op is Op.RESHAPE:
        node = node.src[0]
    if node.op is Op.SHRINK and node.src[0].op is Op.BUFFER:
        ((start, stop),) = node.arg
        return start == 0 and isinstance(stop, Node) and upper(stop) == node.src[0].arg.size
    return node.op is Op.BUFFER


@dataclass(frozen=True)
class Input:
    """One Tensor argument as it was captured: its Var, and what must stay the same.

    `view` is the Tensor's node over `storage`, a PARAM in the place of its BUFFER.
    """

    name: str
    where: str
    view: Node
    storage: Node
    device: str

    @classmethod
    def of(cls, given: Given, name: str, where: str) -> Input:
        """The description of a Tensor in the captured call."""
        base = given.node.base
        storage = Node(Op.PARAM, base.dtype, (), (0, base.arg.size))
        view = live.rebase(given.node, base, storage)
        return cls(name, where, view, storage, str(base.arg.device))

    def buffer(self, tensor: Tensor, variables: dict[str, int]) -> Node:
        """The BUFFER of a Tensor that stands for the captured one; adds to `variables`."""
        node = tensor._node
        buffer = node.src[0] if node.op is Op.RESHAPE else node
        view = self.view
        if buffer.op is Op.BUFFER and (view is self.storage or view.src[0] is self.storage):
            _, device, size = buffer.arg
            if (
                size == self.storage.arg[1]
                and node.shape == view.shape
                and buffer.dtype is self.storage.dtype
                and device == self.device
            ):
                return buffer
        given = as_input(tensor)
        self._compare(Input.of(given, self.name, self.where))
        variables.update(given.values)
        return given.node.base

    def _compare(self, given: Input) -> None:
        for what, now, before in (
            ("shape", _shape_text(given.view.shape), _shape_text(self.view.shape)),
            ("dtype", given.view.dtype, self.view.dtype),
            ("device", given.device, self.device),
        ):
            if now != before:
                raise JitError(
                    f"{self.where} has the {what} {now}, but the captured call had {before}.",
                    operation="replay",
                    remedy="Use a TinyJit for each, or reset() it.",
                )
        if given.view is not self.view or given.storage is not self.storage:
            raise JitError(
                f"{self.where} lies in its storage otherwise than when it was captured.",
                operation="replay",
                remedy="Pass `contiguous()` Tensors.",
            )


@dataclass(frozen=True)
class Output:
    """A Tensor of the result, and the node it has after each call, over `variables`."""

    tensor: Tensor
    node: Node
    variables: tuple[Node, ...]
    values: dict[str, int]

    @classmethod
    def of(cls, tensor: Tensor) -> Output:
        """The description of a Tensor that the captured call gave."""
        preparation = Preparation()
        preparation.run((tensor.node,))
        if not preparation.values:
            return cls(tensor, tensor.node, (), {})
        node, variables = preparation.done[tensor.node], tuple(preparation.variables.values())
        return cls(tensor, node, variables, preparation.values)

    def restore(self, values: Mapping[str, int]) -> None:
        """Lets the Tensor be the result for the given values of Variables."""
        node = self.node
        if self.variables:
            bound = {v: binding(v, values[str(v.arg[0])]) for v in self.variables}
            node = substitute(node, bound)
        if self.tensor._node is not node:
            self.tensor.node = node
            live.register(self.tensor)


def _shape_text(shape: Shape) -> str:
    return f"({', '.join(map(repr, shape))})"
