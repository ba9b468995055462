"""Optimisers that scale each element's step, under PyTorch's names and with its defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinyhw.nn.optimizer import Optimizer, two_rates
from tinyhw.tensor import Tensor


class Adaptive(Optimizer):
    """An optimiser whose states are written together with a parameter, element by element."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        device: str | None,
        fused: bool | None,
    ) -> None:
        super().__init__(params, lr, device, fused)
        self.wd = weight_decay

    def _step(self, gradients: list[Tensor]) -> list[Tensor]:
        changed = self._count()
        for i, (parameter, gradient) in enumerate(zip(self.params, gradients, strict=True)):
            current = parameter.detach()
            slope = gradient + self.wd * current if self.wd else gradient
            change, states = self._change(i, slope, parameter.device)
            parameter.assign((current - change).cast(parameter.dtype))
            changed += states
        return changed

    def _count(self) -> list[Tensor]:
        """Advances what is common to all parameters, and returns it."""
        return []

    def _change(self, i: int, slope: Tensor, device: str) -> tuple[Tensor, list[Tensor]]:
        """What is taken off parameter i, and the states that were assigned."""
        raise NotImplementedError


def _keep(state: Tensor, value: Tensor) -> Tensor:
    state.assign(value.cast(state.dtype))
    return state


class RMSprop(Adaptive):
    """The gradient over the root of its square's running mean (Hinton's lecture 6e, 2012).

    centered: over the running deviation; momentum: of the scaled gradients.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, weight_decay, device, fused)
        self.alpha, self.eps, self.momentum, self.centered = alpha, eps, momentum, centered
        self.v = self._states()
        self.m = self._states() if centered else []
        self.b = self._states() if momentum else []

    def _change(self, i: int, slope: Tensor, device: str) -> tuple[Tensor, list[Tensor]]:
        v = _keep(self.v[i], self.alpha * self.v[i] + (1 - self.alpha) * slope * slope)
        states, spread = [v], v
        if self.centered:
            m = _keep(self.m[i], self.alpha * self.m[i] + (1 - self.alpha) * slope)
            states, spread = [v, m], v - m * m
        step = slope / (spread.sqrt() + self.eps)
        if self.momentum:
            step = _keep(self.b[i], self.momentum * self.b[i] + step)
            states.append(step)
        return self.lr.to(device) * step, states


class Adagrad(Adaptive):
    """The gradient over the root of the sum of its squares (Duchi, Hazan and Singer, 2011)."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, weight_decay, device, fused)
        self.lr_decay, self.eps = lr_decay, eps
        self.t = self._state(0.0)
        self.v = self._states()
        if initial_accumulator_value:
            self.v = [v.full_like(initial_accumulator_value).clone() for v in self.v]

    def _count(self) -> list[Tensor]:
        return [_keep(self.t, self.t + 1)]

    def _change(self, i: int, slope: Tensor, device: str) -> tuple[Tensor, list[Tensor]]:
        v = _keep(self.v[i], self.v[i] + slope * slope)
        rate = self.lr / (1 + (self.t - 1) * self.lr_decay)
        return rate.to(device) * slope / (v.sqrt() + self.eps), [v]


class Adadelta(Adaptive):
    """Steps in the parameter's own unit (Zeiler, 2012)."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, weight_decay, device, fused)
        self.rho, self.eps = rho, eps
        self.v, self.d = self._states(), self._states()

    def _change(self, i: int, slope: Tensor, device: str) -> tuple[Tensor, list[Tensor]]:
        v = _keep(self.v[i], self.rho * self.v[i] + (1 - self.rho) * slope * slope)
        step = (self.d[i] + self.eps).sqrt() / (v + self.eps).sqrt() * slope
        d = _keep(self.d[i], self.rho * self.d[i] + (1 - self.rho) * step * step)
        return self.lr.to(device) * step, [v, d]


class Moments(Adaptive):
    """Two running moments, and powers of their rates that a step advances."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        rates: tuple[float, float],
        eps: float,
        weight_decay: float,
        device: str | None,
        fused: bool | None,
    ) -> None:
        super().__init__(params, lr, weight_decay, device, fused)
        (self.b1, self.b2), self.eps = rates, eps
        self.b1_t, self.b2_t = self._state(1.0), self._state(1.0)
        self.m, self.v = self._states(), self._states()

    def _count(self) -> list[Tensor]:
        return [_keep(self.b1_t, self.b1_t * self.b1), _keep(self.b2_t, self.b2_t * self.b2)]

    def _first(self, i: int, slope: Tensor) -> Tensor:
        return _keep(self.m[i], self.b1 * self.m[i] + (1 - self.b1) * slope)

    def _second(self, i: int, slope: Tensor) -> Tensor:
        return _keep(self.v[i], self.b2 * self.v[i] + (1 - self.b2) * slope * slope)


class Adamax(Moments):
    """Adam with the greatest gradient for its deviation (Kingma and Ba, 2015, section 7.1)."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        rates = two_rates(betas, 0, 0)
        super().__init__(params, lr, rates, eps, weight_decay, device, fused)

    def _change(self, i: int, slope: Tensor, device: str) -> tuple[Tensor, list[Tensor]]:
        m = self._first(i, slope)
        v = _keep(self.v[i], (self.b2 * self.v[i]).maximum(slope.abs() + self.eps))
        return (self.lr / (1 - self.b1_t)).to(device) * m / v, [m, v]


class NAdam(Moments):
    """Adam with Nesterov's momentum (Dozat, 2016)."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        rates = two_rates(betas, 0, 0)
        super().__init__(params, lr, rates, eps, weight_decay, device, fused)
        self.momentum_decay = momentum_decay
        self.t, self.product = self._state(0.0), self._state(1.0)

    def _count(self) -> list[Tensor]:
        counted = [*super()._count(), _keep(self.t, self.t + 1)]
        return [*counted, _keep(self.product, self.product * self._momentum(self.t))]

    def _momentum(self, t: Tensor) -> Tensor:
        return self.b1 * (1 - 0.5 * (t * self.momentum_decay * math.log2(0.96)).exp2())

    def _change(self, i: int, slope: Tensor, device: str) -> tuple[Tensor, list[Tensor]]:
        m, v = self._first(i, slope), self._second(i, slope)
        now, following = self._momentum(self.t), self._momentum(self.t + 1)
        scale = (v / (1 - self.b2_t).to(device)).sqrt() + self.eps
        of_slope = self.lr * (1 - now) / (1 - self.product)
        of_moment = self.lr * following / (1 - self.product * following)
        return (of_slope.to(device) * slope + of_moment.to(device) * m) / scale, [m, v]


class RAdam(Moments):
    """Adam whose deviation counts once it is known well enough (Liu et al., 2020)."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        rates = two_rates(betas, 0, 0)
        super().__init__(params, lr, rates, eps, weight_decay, device, fused)
        self.t = self._state(0.0)

    def _count(self) -> list[Tensor]:
        return [*super()._count(), _keep(self.t, self.t + 1)]

    def _change(self, i: int, slope: Tensor, device: str) -> tuple[Tensor, list[Tensor]]:
        m, v = self._first(i, slope), self._second(i, slope)
        most = 2 / (1 - self.b2) - 1
        known = most - 2 * self.t * self.b2_t / (1 - self.b2_t)
        enough = known > 5
        safe = enough.where(known, 6)
        trust = (safe - 4) * (safe - 2) * most / ((most - 4) * (most - 2) * safe)
        root = (trust * (1 - self.b2_t)).sqrt()
        scaled = root.to(device) / (v.sqrt() + self.eps)
        step = enough.to(device).where(scaled, 1) * m
        return (self.lr / (1 - self.b1_t)).to(device) * step, [m, v]
