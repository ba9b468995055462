"""PyTorch's `nn.Module`: a class with a `forward`, and what programs ask of it.

Any object with tensors in it is a model for `nn.state` and `nn.optim`; this one has methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from compiler.dtype import DType, dtypes
from tinyhw.errors import NotSupported
from tinyhw.nn.state import get_state_dict, load_state_dict
from tinyhw.tensor import Tensor


class Module:
    """Calls its `forward`. Its state is every tensor in its attributes, lists and dicts.

    Whether it trains is `Tensor.training`, one setting for all: `train()` and `eval()` change that.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `forward` gives."""
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; a subclass says it."""
        raise NotSupported(f"{type(self).__name__} has no forward.")

    # ---- tensors ----
    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        return get_state_dict(self)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> None:
        """Takes over the values of a state dict; raises StateMismatch where names differ."""
        load_state_dict(self, state_dict, strict)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that may have a gradient, each once."""
        seen: set[int] = set()
        for name, tensor in get_state_dict(self).items():
            if tensor.requires_grad is not False and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor

    def parameters(self) -> Iterator[Tensor]:
        """The tensors that may have a gradient."""
        for _, tensor in self.named_parameters():
            yield tensor

    def buffers(self) -> Iterator[Tensor]:
        """The tensors that have none: running statistics, tables."""
        for tensor in get_state_dict(self).values():
            if tensor.requires_grad is False:
                yield tensor

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Keeps a tensor that is no parameter."""
        setattr(self, name, None if tensor is None else tensor.requires_grad_(False))

    def register_parameter(self, name: str, param: Tensor | None) -> None:
        """Keeps a parameter."""
        setattr(self, name, param)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for tensor in get_state_dict(self).values():
            tensor.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether the parameters get gradients from now on."""
        for tensor in list(self.parameters() if not requires_grad else self.state_dict().values()):
            tensor.requires_grad_(requires_grad)
        return self

    # ---- parts ----
    def add_module(self, name: str, module: Any) -> None:
        """Keeps a part by a name."""
        setattr(self, name, module)

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """The layers among the attributes."""
        for name, part in _parts(self):
            if isinstance(part, Module):
                yield name, part

    def children(self) -> Iterator[Any]:
        """The layers among the attributes."""
        for _, part in self.named_children():
            yield part

    def modules(self) -> Iterator[Any]:
        """This module and all Modules in it, each once; every layer of `nn` is one."""
        seen: set[int] = set()
        todo: list[Any] = [self]
        while todo:
            part = todo.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            if isinstance(part, Module):
                yield part
            inside = [x for _, x in _parts(part)]
            todo.extend(x for x in inside[::-1] if isinstance(x, Module | list | tuple | dict))

    def apply(self, fn: Callable[[Any], Any]) -> Self:
        """Calls fn with every layer, the outermost last."""
        for part in reversed(list(self.modules())):
            fn(part)
        return self

    # ---- modes and places ----
    @property
    def training(self) -> bool:
        """`Tensor.training`."""
        return Tensor.training

    def train(self, mode: bool = True) -> Self:
        """Sets `Tensor.training`, for all modules."""
        Tensor.training = mode
        return self

    def eval(self) -> Self:
        """Clears `Tensor.training`, for all modules."""
        return self.train(False)

    def to(self, target: str | DType) -> Self:
        """Moves the tensors to a device, or casts those that are floats."""
        for tensor in get_state_dict(self).values():
            if isinstance(target, str):
                tensor.to_(target)
            elif tensor.is_floating_point() and tensor.dtype is not target:
                tensor._become(tensor.detach().cast(target).contiguous().realize())
                tensor.grad = None
        return self

    def half(self) -> Self:
        """Casts the floats to float16."""
        return self.to(dtypes.float16)

    def float(self) -> Self:
        """Casts the floats to float32."""
        return self.to(dtypes.float32)

    def cpu(self) -> Self:
        """Moves the tensors to the processor."""
        from tinyhw.device import Device

        return self.to(Device.processor())


def _parts(part: Any) -> list[tuple[str, Any]]:
    """What a layer, a list or a dict of them holds, by name."""
    if isinstance(part, list | tuple):
        return [(str(i), x) for i, x in enumerate(part)]
    return [(str(name), x) for name, x in (part if isinstance(part, dict) else vars(part)).items()]
