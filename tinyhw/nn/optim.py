"""Optimisers: they read `grad` of their parameters and assign the parameters.

Numerics follow PyTorch. The learning rate is a tensor, so that a captured step follows its changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from compiler.dtype import dtypes
from tinyhw.errors import GradientError, SettingError
from tinyhw.tensor import Tensor


class Optimizer:
    """What all have in common; a kind of optimiser is its `_step`."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        given = list({id(p): p for p in params}.values())
        for parameter in given:
            if parameter.requires_grad is None:
                parameter.requires_grad_()
        self.params = [p for p in given if p.requires_grad]
        self.buffers = [p for p in given if not p.requires_grad]  # realised with each step
        if not self.params:
            raise GradientError("An optimiser needs at least one parameter that takes a gradient.")
        if not lr >= 0:
            raise SettingError(f"The learning rate must be at least 0, not {lr}.")
        self.device = self.params[0].device
        self.lr = self._state(lr)

    def _state(self, value: float) -> Tensor:
        """A number that steps read and may assign, in storage of its own."""
        return Tensor([value], self.device, dtypes.default_float, requires_grad=False)

    def _states(self) -> list[Tensor]:
        """One tensor of zeros for each parameter, each in storage of its own."""
        return [_float_like(p).zeros_like(requires_grad=False).clone() for p in self.params]

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.params:
            parameter.grad = None

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


class OptimizerGroup(Optimizer):
    """Several optimisers that step together."""

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers
        self.params = [p for o in optimizers for p in o.params]
        self.buffers = [b for o in optimizers for b in o.buffers]

    def __getitem__(self, index: int) -> Optimizer:
        return self.optimizers[index]

    def zero_grad(self) -> None:
        """Forgets the gradients of all."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def schedule_step(self) -> list[Tensor]:
        """Updates the parameters of all once the tensors returned are realised."""
        return [tensor for o in self.optimizers for tensor in o.schedule_step()]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Nesterov's or the classic one)."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr)
        if nesterov and not momentum:
            raise SettingError("Nesterov's momentum needs a momentum above 0.")
        self.momentum, self.wd, self.nesterov = momentum, weight_decay, nesterov
        self.b = self._states() if momentum else []

    def _step(self, gradients: list[Tensor]) -> list[Tensor]:
        for i, (parameter, gradient) in enumerate(zip(self.params, gradients, strict=True)):
            current = parameter.detach()
            g = gradient + self.wd * current if self.wd else gradient
            if self.momentum:
                velocity = self.b[i]
                velocity.assign((self.momentum * velocity + g).cast(velocity.dtype))
                g = g + self.momentum * velocity if self.nesterov else velocity
            parameter.assign((current - self.lr.to(parameter.device) * g).cast(parameter.dtype))
        return self.b


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015); `weight_decay` is added to the gradient."""

    decoupled = False  # whether the decay shrinks the parameter itself

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.b1, self.b2, self.eps, self.wd = b1, b2, eps, weight_decay
        self.b1_t, self.b2_t = self._state(1.0), self._state(1.0)
        self.m, self.v = self._states(), self._states()

    def _step(self, gradients: list[Tensor]) -> list[Tensor]:
        self.b1_t.assign(self.b1_t * self.b1)
        self.b2_t.assign(self.b2_t * self.b2)
        for i, (parameter, gradient) in enumerate(zip(self.params, gradients, strict=True)):
            current, device = parameter.detach(), parameter.device
            lr = self.lr.to(device)
            g = gradient
            if self.wd and not self.decoupled:
                g = g + self.wd * current
            m, v = self.m[i], self.v[i]
            m.assign((self.b1 * m + (1 - self.b1) * g).cast(m.dtype))
            v.assign((self.b2 * v + (1 - self.b2) * (g * g)).cast(v.dtype))
            m_hat = m / (1 - self.b1_t.to(device))
            v_hat = v / (1 - self.b2_t.to(device))
            new = current * (1 - lr * self.wd) if self.wd and self.decoupled else current
            new = new - lr * (m_hat / (v_hat.sqrt() + self.eps))
            parameter.assign(new.cast(parameter.dtype))
        return [self.b1_t, self.b2_t, *self.m, *self.v]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, b1, b2, eps, weight_decay)


def _float_like(parameter: Tensor) -> Tensor:
    """Half-precision parameters have their state in float32."""
    return parameter.detach().float() if parameter.dtype.bits < 32 else parameter.detach()
