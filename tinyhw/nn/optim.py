"""Optimisers: they read `grad` of their parameters and assign the parameters.

Numerics follow PyTorch. The learning rate is a tensor, so that a captured step follows its changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from compiler.dtype import dtypes
from tinyhw.errors import GradientError, SettingError, ShapeError
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
    """Stochastic gradient descent, with momentum (Nesterov's or the plain one).

    classic: the learning rate goes into the velocity, rather than scaling it.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        classic: bool = False,
    ) -> None:
        super().__init__(params, lr)
        if nesterov and not momentum:
            raise SettingError("Nesterov's momentum needs a momentum above 0.")
        self.momentum, self.wd, self.nesterov = momentum, weight_decay, nesterov
        self.classic, self.pre_wd = classic, True  # the decay is part of the gradient
        self.b = self._states() if momentum else []

    def _step(self, gradients: list[Tensor]) -> list[Tensor]:
        for i, (parameter, gradient) in enumerate(zip(self.params, gradients, strict=True)):
            current = parameter.detach()
            rate = self._rate(current, gradient, self.lr.to(parameter.device))
            g = gradient + self.wd * current if self.wd and self.pre_wd else gradient
            if self.classic:
                g = g * rate
            if self.momentum:
                velocity = self.b[i]
                velocity.assign((self.momentum * velocity + g).cast(velocity.dtype))
                g = g + self.momentum * velocity if self.nesterov else velocity
            change = g if self.classic else rate * self._turned(g)
            if self.wd and not self.pre_wd:
                current = current * (1 - self.lr.to(parameter.device) * self.wd)
            parameter.assign((current - change).cast(parameter.dtype))
        return self.b

    def _rate(self, current: Tensor, gradient: Tensor, lr: Tensor) -> Tensor:
        """The learning rate of one parameter."""
        return lr

    def _turned(self, velocity: Tensor) -> Tensor:
        """The direction of the step."""
        return velocity


class LARS(SGD):
    """SGD where each parameter's rate follows the ratio of its norm to the gradient's.

    You, Gitman and Ginsburg, "Large batch training of convolutional networks", 2017. pre_wd: the
    decay is part of the gradient, rather than taken off the parameter.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        nesterov: bool = False,
        classic: bool = True,
        pre_wd: bool = True,
        tcoef: float = 0.001,
    ) -> None:
        super().__init__(params, lr, momentum, weight_decay, nesterov, classic)
        self.pre_wd, self.tcoef = pre_wd, tcoef

    def _rate(self, current: Tensor, gradient: Tensor, lr: Tensor) -> Tensor:
        size, slope = current.norm(), gradient.norm()
        trust = self.tcoef * size / (slope + self.wd * size)
        return lr * ((size > 0) & (slope > 0)).where(trust, 1.0)


class Muon(SGD):
    """SGD along the orthogonal matrix nearest to the velocity (Newton-Schulz), with decay.

    Jordan et al., "Muon", 2024; decay as in Liu et al., arXiv 2502.16982. Parameters have at least
    two axes; those behind the first count as one.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, ...] = (3.4445, -4.775, 2.0315),
        nesterov: bool = True,
    ) -> None:
        super().__init__(params, lr, momentum, weight_decay, nesterov)
        if any(p.ndim < 2 for p in self.params):
            raise ShapeError("Muon is for parameters of at least two axes; give others to Adam.")
        self.pre_wd, self.ns_steps, self.ns_coefficients = False, ns_steps, ns_coefficients

    def _turned(self, velocity: Tensor) -> Tensor:
        matrix = velocity.reshape((velocity.shape[0], -1))
        return matrix.newton_schulz(self.ns_steps, self.ns_coefficients).reshape(velocity.shape)


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015); `weight_decay` is added to the gradient."""

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
            g, m, v = self._slope(current, gradient), self.m[i], self.v[i]
            m.assign((self.b1 * m + (1 - self.b1) * g).cast(m.dtype))
            v.assign((self.b2 * v + (1 - self.b2) * (g * g)).cast(v.dtype))
            m_hat = m / (1 - self.b1_t.to(device))
            v_hat = v / (1 - self.b2_t.to(device))
            step = m_hat / (v_hat.sqrt() + self.eps)
            parameter.assign(self._moved(current, step, self.lr.to(device)).cast(parameter.dtype))
        return [self.b1_t, self.b2_t, *self.m, *self.v]

    def _slope(self, current: Tensor, gradient: Tensor) -> Tensor:
        """The gradient whose moments are taken."""
        return gradient + self.wd * current if self.wd else gradient

    def _moved(self, current: Tensor, step: Tensor, lr: Tensor) -> Tensor:
        """The parameter after a step."""
        return current - lr * step


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

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

    def _slope(self, current: Tensor, gradient: Tensor) -> Tensor:
        return gradient

    def _moved(self, current: Tensor, step: Tensor, lr: Tensor) -> Tensor:
        return (current * (1 - lr * self.wd) if self.wd else current) - lr * step


class LAMB(AdamW):
    """Adam where each parameter's step has the norm of that parameter (You et al., 2020).

    adam: without that scaling.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        adam: bool = False,
    ) -> None:
        super().__init__(params, lr, b1, b2, eps, weight_decay)
        self.adam = adam

    def _moved(self, current: Tensor, step: Tensor, lr: Tensor) -> Tensor:
        step = step + self.wd * current if self.wd else step
        if self.adam:
            return current - lr * step
        size, length = current.norm(), step.norm()
        trust = ((size > 0) & (length > 0)).where(size / length, 1.0)
        return current - lr * trust * step


def _float_like(parameter: Tensor) -> Tensor:
    """Half-precision parameters have their state in float32."""
    return parameter.detach().float() if parameter.dtype.bits < 32 else parameter.detach()
