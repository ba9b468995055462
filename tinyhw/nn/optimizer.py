"""What optimisers have in common: they read `grad` of their parameters and assign the parameters.

Numerics follow PyTorch. The learning rate is a tensor, so that a captured step follows its changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from compiler.dtype import dtypes
from tinyhw.device import Device
from tinyhw.errors import GradientError, SettingError
from tinyhw.nn.state import get_state_dict, load_state_dict
from tinyhw.tensor import Tensor


class Optimizer:
    """What all have in common; a kind of optimiser is its `_step`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        """device: where the learning rate is kept, by default beside the first parameter.

        fused is tinygrad's and PyTorch's, and changes nothing: what runs as one kernel is the
        scheduler's business.
        """
        if fused not in (None, False, True):
            raise SettingError(f"fused is True, False or None, not {fused!r}.")
        given = list({id(p): p for p in _flat(params)}.values())
        for parameter in given:
            if parameter.requires_grad is None:
                parameter.requires_grad_()
        self.params = [p for p in given if p.requires_grad]
        self.buffers = [p for p in given if not p.requires_grad]  # realised with each step
        if not self.params:
            raise GradientError("An optimiser needs at least one parameter that takes a gradient.")
        if not lr >= 0:
            raise SettingError(f"The learning rate must be at least 0, not {lr}.")
        self.device = Device.canonicalize(device) if device else self.params[0].device
        self.lr = self._state(lr)

    def _state(self, value: float) -> Tensor:
        """A number that steps read and may assign, in storage of its own."""
        return Tensor([value], self.device, dtypes.default_float, requires_grad=False)

    def _states(self) -> list[Tensor]:
        """One tensor of zeros for each parameter, each in storage of its own."""
        return [float_like(p).zeros_like(requires_grad=False).clone() for p in self.params]

    @property
    def param_groups(self) -> list[ParameterGroup]:
        """PyTorch's way to the learning rate: `group["lr"] = 0.1` writes it."""
        return [ParameterGroup(self)]

    def state_dict(self) -> dict[str, Tensor]:
        """The learning rate and the states by name; not the parameters."""
        return {
            name: tensor for name, tensor in get_state_dict(self).items()
            if not re.search(r"(^|\.)(params|buffers)\.", name)
        }  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Takes over the states of an optimiser of the same kind and parameters."""
        load_state_dict(self.state_dict(), state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, or makes them zeros."""
        for parameter in self.params:
            parameter.grad = None if set_to_none else parameter.zeros_like(requires_grad=False)

    def step(self) -> None:
        """Updates the parameters, now."""
        Tensor.realize(*self.schedule_step())

    def schedule_step(self) -> list[Tensor]:
        """Updates the parameters once the tensors returned are realised."""
        if not Tensor.training:
            raise GradientError(
                "An optimiser steps only in training; put the step into `with Tensor.train():`."
            )
        missing = [p for p in self.params if p.grad is None]
        if missing:
            raise GradientError(
                f"{len(missing)} of {len(self.params)} parameters have no gradient, the first of "
                f"the shape {missing[0].shape}; call backward() before the step."
            )
        changed = self._step([p.grad.detach() for p in self.params if p.grad is not None])
        return [*changed, *self.params, *self.buffers]

    def _step(self, gradients: list[Tensor]) -> list[Tensor]:
        """Assigns the parameters; returns the states that it assigned as well."""
        raise NotImplementedError


class ParameterGroup(dict[str, Any]):
    """The parameters and the learning rate of an optimiser; what else is set is refused."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(params=optimizer.params, lr=float(optimizer.lr))
        self._optimizer = optimizer

    def __setitem__(self, name: str, value: Any) -> None:
        if name != "lr" or not value >= 0:
            raise SettingError(f"Only the learning rate is set here, from 0, not {name}={value!r}.")
        self._optimizer.lr.assign(self._optimizer.lr.full_like(float(value))).realize()
        super().__setitem__(name, float(value))


class OptimizerGroup(Optimizer):
    """Several optimisers that step together."""

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers
        self.params = [p for o in optimizers for p in o.params]
        self.buffers = [b for o in optimizers for b in o.buffers]

    @property
    def param_groups(self) -> list[ParameterGroup]:
        """One group for each optimiser."""
        return [group for o in self.optimizers for group in o.param_groups]

    def __getitem__(self, index: int) -> Optimizer:
        return self.optimizers[index]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all, or makes them zeros."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def schedule_step(self) -> list[Tensor]:
        """Updates the parameters of all once the tensors returned are realised."""
        return [tensor for o in self.optimizers for tensor in o.schedule_step()]


def float_like(parameter: Tensor) -> Tensor:
    """Half-precision parameters have their state in float32."""
    return parameter.detach().float() if parameter.dtype.bits < 32 else parameter.detach()


def two_rates(betas: tuple[float, float] | None, b1: float, b2: float) -> tuple[float, float]:
    """The decay rates of both moments: PyTorch gives them as a pair, tinygrad as b1 and b2."""
    found = (b1, b2) if betas is None else tuple(betas)
    if len(found) != 2 or not all(isinstance(b, int | float) and 0 <= b < 1 for b in found):
        raise SettingError(f"The moments' rates are two numbers from 0 to below 1, not {found}.")
    return found[0], found[1]


def _flat(params: Iterable[Any]) -> list[Tensor]:
    """The parameters, of PyTorch's groups too where they have no options of their own."""
    found: list[Tensor] = []
    for p in params:
        if not isinstance(p, dict):
            found.append(p)
        elif set(p) == {"params"}:
            found += _flat([p["params"]] if isinstance(p["params"], Tensor) else p["params"])
        else:
            raise SettingError(
                f"A group of parameters has options of its own: {', '.join(p)}. Make an optimiser "
                "for each group, and an OptimizerGroup of them."
            )
    return found
