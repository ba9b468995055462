"""Optimisers with tinygrad's names, and those of `adaptive.py` beside them.

Numerics follow PyTorch; its pair `betas` may stand for b1 and b2.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyhw.errors import SettingError, ShapeError
from tinyhw.nn.optimizer import Optimizer, OptimizerGroup, two_rates
from tinyhw.tensor import Tensor

__all__ = [
    "LAMB", "LARS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam",
    "Optimizer", "OptimizerGroup", "RAdam", "RMSprop", "lr_scheduler",
]  # fmt: skip

NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # of Muon's polynomial


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Nesterov's or the plain one).

    classic: the learning rate goes into the velocity, rather than scaling it.
    """

    ns_steps: int
    ns_coefficients: tuple[float, ...] | None

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        classic: bool = False,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, device, fused)
        if nesterov and not momentum:
            raise SettingError("Nesterov's momentum needs a momentum above 0.")
        self.momentum, self.wd, self.nesterov = momentum, weight_decay, nesterov
        self.classic, self.pre_wd = classic, True  # the decay is part of the gradient
        self.ns_steps, self.ns_coefficients = 0, None
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
        if not self.ns_steps:
            return velocity
        matrix = velocity.reshape((velocity.shape[0], -1))
        coefficients = self.ns_coefficients or NEWTON_SCHULZ
        return matrix.newton_schulz(self.ns_steps, coefficients).reshape(velocity.shape)


class LARS(SGD):
    """SGD where each parameter's rate follows the ratio of its norm to the gradient's.

    You, Gitman and Ginsburg, "Large batch training of convolutional networks", 2017. pre_wd: the
    decay is part of the gradient, rather than taken off the parameter. ns_steps: so many steps of
    Newton and Schulz make the direction an orthogonal matrix, as in Muon.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        ns_steps: int = 0,
        ns_coefficients: tuple[float, ...] | None = None,
        nesterov: bool = False,
        classic: bool = True,
        pre_wd: bool = True,
        tcoef: float = 0.001,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, momentum, weight_decay, nesterov, classic, device=device, fused=fused
        )
        if classic and ns_steps:
            raise SettingError("ns_steps makes the step orthogonal: use it with classic=False.")
        self.pre_wd, self.tcoef = pre_wd, tcoef
        self.ns_steps, self.ns_coefficients = ns_steps, ns_coefficients

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
        ns_coefficients: tuple[float, ...] = NEWTON_SCHULZ,
        nesterov: bool = True,
        *,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, momentum, weight_decay, nesterov, device=device, fused=fused
        )
        if any(p.ndim < 2 for p in self.params):
            raise ShapeError("Muon is for parameters of at least two axes; give others to Adam.")
        self.pre_wd, self.ns_steps, self.ns_coefficients = False, ns_steps, ns_coefficients


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
        *,
        betas: tuple[float, float] | None = None,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, device, fused)
        self.b1, self.b2 = two_rates(betas, b1, b2)
        self.eps, self.wd = eps, weight_decay
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
        *,
        betas: tuple[float, float] | None = None,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, b1, b2, eps, weight_decay, betas=betas, device=device, fused=fused
        )

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
        *,
        betas: tuple[float, float] | None = None,
        device: str | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, b1, b2, eps, weight_decay, betas=betas, device=device, fused=fused
        )
        self.adam = adam

    def _moved(self, current: Tensor, step: Tensor, lr: Tensor) -> Tensor:
        step = step + self.wd * current if self.wd else step
        if self.adam:
            return current - lr * step
        size, length = current.norm(), step.norm()
        trust = ((size > 0) & (length > 0)).where(size / length, 1.0)
        return current - lr * trust * step


from tinyhw.nn import lr_scheduler  # noqa: E402
from tinyhw.nn.adaptive import Adadelta, Adagrad, Adamax, NAdam, RAdam, RMSprop  # noqa: E402
