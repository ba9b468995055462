"""PyTorch's torch.optim.lr_scheduler: learning rates that follow the number of steps.

A schedule writes the optimiser's `lr` when it is made, for step 0, and with each `step()`; a
captured training step reads it there. Rates are functions of the step's number alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tinyhw.errors import SettingError
from tinyhw.nn.optimizer import Optimizer, OptimizerGroup


class LRScheduler:
    """Writes `rate(base, step)` into each optimiser's learning rate."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if last_epoch != -1:
            raise SettingError(f"A schedule starts at its beginning, not at {last_epoch}.")
        group = isinstance(optimizer, OptimizerGroup)
        self.optimizers = list(optimizer.optimizers) if group else [optimizer]  # type: ignore[attr-defined]
        self.base_lrs = [float(o.lr.item()) for o in self.optimizers]
        self.last_epoch = 0
        self._write()

    def rate(self, base: float, step: int) -> float:
        """The learning rate of a step, for an optimiser that began with `base`."""
        raise NotImplementedError

    def step(self) -> None:
        """Goes on to the next step."""
        self.last_epoch += 1
        self._write()

    def get_last_lr(self) -> list[float]:
        """The rates that were written last."""
        return list(self._last_lr)

    def _write(self) -> None:
        self._last_lr = [self.rate(base, self.last_epoch) for base in self.base_lrs]
        for optimizer, rate in zip(self.optimizers, self._last_lr, strict=True):
            optimizer.lr.assign(optimizer.lr.full_like(rate)).realize()


class LambdaLR(LRScheduler):
    """base * lr_lambda(step)."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """base * lr_lambda(step)."""
        return base * self.lr_lambda(step)


class StepLR(LRScheduler):
    """Times gamma every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """base * gamma ** (step // step_size)."""
        return float(base * self.gamma ** (step // self.step_size))


class MultiStepLR(LRScheduler):
    """Times gamma at each milestone."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """base * gamma ** (milestones passed)."""
        return float(base * self.gamma ** sum(m <= step for m in self.milestones))


class ExponentialLR(LRScheduler):
    """Times gamma every step."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """base * gamma ** step."""
        return float(base * self.gamma**step)


class ConstantLR(LRScheduler):
    """Times factor for the first `total_iters` steps."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5
    ) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """base * factor, then base."""
        return base * (self.factor if step < self.total_iters else 1)


class LinearLR(LRScheduler):
    """From base * start_factor to base * end_factor in `total_iters` steps."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """On the line between both."""
        part = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * part)


class PolynomialLR(LRScheduler):
    """To 0 in `total_iters` steps, with a power of what is left."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """base * (1 - step/total_iters) ** power."""
        return float(base * (1 - min(step, self.total_iters) / self.total_iters) ** self.power)


class CosineAnnealingLR(LRScheduler):
    """From base to eta_min in `T_max` steps along half a cosine, and back (arXiv 1608.03983)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """eta_min + (base - eta_min) * (1 + cos(pi * step / T_max)) / 2."""
        part = (1 + math.cos(math.pi * step / self.T_max)) / 2
        return self.eta_min + (base - self.eta_min) * part


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines of T_0 steps, each T_mult times as long as the one before."""

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0
    ) -> None:
        if T_0 < 1 or T_mult < 1:
            raise SettingError(f"T_0 and T_mult are at least 1, not {T_0} and {T_mult}.")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        """The cosine of the part of the present period."""
        length = self.T_0
        while step >= length:
            step, length = step - length, length * self.T_mult
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * step / length)) / 2


class SequentialLR:
    """Schedules of one optimiser one after the other, each from its milestone on."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ) -> None:
        if len(milestones) != len(schedulers) - 1 or list(milestones) != sorted(set(milestones)):
            raise SettingError(
                f"{len(schedulers)} schedules change at {len(schedulers) - 1} ascending steps, not "
                f"at {list(milestones)}."
            )
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        first = self.schedulers[0]
        for scheduler in self.schedulers:
            scheduler.last_epoch, scheduler.base_lrs = 0, first.base_lrs
        self.last_epoch = 0
        first._write()

    def step(self) -> None:
        """Goes on to the next step."""
        self.last_epoch += 1
        passed = [m for m in self.milestones if m <= self.last_epoch]
        scheduler = self.schedulers[len(passed)]
        scheduler.last_epoch = self.last_epoch - (passed[-1] if passed else 0)
        scheduler._write()

    def get_last_lr(self) -> list[float]:
        """The rates that were written last."""
        passed = sum(m <= self.last_epoch for m in self.milestones)
        return self.schedulers[passed].get_last_lr()


class ReduceLROnPlateau:
    """Times factor once a metric has not improved for more than `patience` steps.

    mode: "min" or "max", what counts as better; threshold: by how much, in parts of the best
    ("rel") or in numbers ("abs"); cooldown: steps that do not count after a change.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float = 0.0, eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs") or factor >= 1:
            raise SettingError(
                f"mode is 'min' or 'max', threshold_mode 'rel' or 'abs', factor below 1, not "
                f"{mode!r}, {threshold_mode!r} and {factor}."
            )
        group = isinstance(optimizer, OptimizerGroup)
        self.optimizers = list(optimizer.optimizers) if group else [optimizer]  # type: ignore[attr-defined]
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.min_lr, self.eps = min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_steps, self.waiting, self.last_epoch = 0, 0, 0

    def step(self, metrics: float) -> None:
        """Takes the metric of a step, a number or a tensor of one element."""
        value = float(metrics)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.bad_steps = value, 0
        else:
            self.bad_steps += 1
        if self.waiting:
            self.waiting, self.bad_steps = self.waiting - 1, 0
        if self.bad_steps > self.patience:
            for optimizer in self.optimizers:
                now = float(optimizer.lr.item())
                new = max(now * self.factor, self.min_lr)
                if now - new > self.eps:
                    optimizer.lr.assign(optimizer.lr.full_like(new)).realize()
            self.waiting, self.bad_steps = self.cooldown, 0

    def get_last_lr(self) -> list[float]:
        """The present rates."""
        return [float(optimizer.lr.item()) for optimizer in self.optimizers]

    def _better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * value > sign * self.best * (1 + sign * self.threshold) if (
                math.isfinite(self.best)
            ) else True
        return sign * value > sign * (self.best + sign * self.threshold)
