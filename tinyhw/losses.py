"""Losses.

`reduction` is "mean", "sum" or "none". Class targets are integers, or probabilities in the shape
of the predictions.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self, TypeAlias

from compiler.dtype import dtypes, least_upper_dtype
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.random import Random

Reduction: TypeAlias = Literal["mean", "sum", "none"]


class Losses(Random):
    """What a prediction is measured by."""

    __slots__ = ()

    def _reduced(self, reduction: Reduction) -> Self:
        if reduction not in ("mean", "sum", "none"):
            raise ShapeError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}.")
        if reduction == "none":
            return self
        return self.mean() if reduction == "mean" else self.sum()

    def binary_crossentropy(
        self, Y: Self, reduction: Reduction = "mean", weight: Self | None = None
    ) -> Self:
        """The cross-entropy of probabilities self with the targets Y in [0, 1].

        Logarithms are at least -100, as in PyTorch, so that a certain mistake stays finite.
        """
        yes, no = self.log().maximum(-100), (1 - self).log().maximum(-100)
        loss = -Y * yes - (1 - Y) * no
        return (loss if weight is None else loss * weight)._reduced(reduction)

    def binary_crossentropy_logits(
        self, Y: Self, reduction: Reduction = "mean", pos_weight: Self | None = None,
        weight: Self | None = None,
    ) -> Self:
        """The cross-entropy of sigmoid(self) with the targets Y in [0, 1]."""
        positive = -Y * self.logsigmoid()
        if pos_weight is not None:
            positive = positive * pos_weight
        loss = positive - (1 - Y) * (-self).logsigmoid()
        return (loss if weight is None else loss * weight)._reduced(reduction)

    def sparse_categorical_crossentropy(
        self,
        Y: Self,
        ignore_index: int = -1,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> Self:
        """The cross-entropy of softmax(self) over the last axis with classes Y.

        self: (..., classes); Y: (...) integers, of which `ignore_index` does not count.
        """
        _check_smoothing(label_smoothing)
        if self.shape[:-1] != Y.shape:
            raise ShapeError(f"Classes of {Y.shape} do not fit predictions of {self.shape}.")
        log_probabilities = self.log_softmax()
        Y = _signed(Y)
        counted = Y.ne(ignore_index)
        chosen = Y.unsqueeze(-1)._one_hot_mask(self.shape[-1])
        picked = chosen.where(log_probabilities, 0).sum(-1)
        even = log_probabilities.mean(-1)
        loss = -((1 - label_smoothing) * picked + label_smoothing * even)
        loss = counted.where(loss, 0)
        if reduction == "mean":
            return loss.sum() / counted.cast(loss.dtype).sum()
        return loss._reduced(reduction)

    def cross_entropy(
        self,
        Y: Self,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        weight: Self | None = None,
    ) -> Self:
        """The cross-entropy of softmax(self) over the classes of axis 1.

        self: (batch, classes, ...); Y: (batch, ...) integers, or probabilities like self; weight:
        one number for each class.
        """
        _check_smoothing(label_smoothing)
        axis = 0 if self.ndim == 1 else 1
        classes = self.shape[axis]
        scale = None if weight is None else weight.reshape(
            tuple(n if a == axis else 1 for a, n in enumerate(self.shape))
        )
        if weight is not None and scale is not None and dtypes.is_int(Y.dtype):
            logs = self.log_softmax(axis)
            if not label_smoothing:
                return logs.nll_loss(Y, weight, ignore_index, reduction)
            hard = logs.nll_loss(Y, weight, ignore_index, "none")
            soft = Y.ne(ignore_index).where(-(logs * scale).sum(axis), 0)
            share = label_smoothing / self._as_operand(classes)
            loss = hard * (1 - label_smoothing) + soft * share
            if reduction == "mean":  # over what the classes weigh
                return loss.sum() / logs.const_like(-1).nll_loss(Y, weight, ignore_index, "sum")
            return loss._reduced(reduction)
        if dtypes.is_int(Y.dtype) and Y.ndim == self.ndim - 1:
            rows = self.transpose(axis, -1)
            sparse = Y if Y.ndim < 2 else Y.transpose(1, -1)
            loss = rows.sparse_categorical_crossentropy(
                sparse, ignore_index, label_smoothing, reduction
            )
            return loss.transpose(1, -1) if loss.ndim > 1 else loss
        if Y.shape != self.shape:
            raise ShapeError(f"Targets of {Y.shape} do not fit predictions of {self.shape}.")
        target = Y.cast(self._float().dtype)
        if label_smoothing:
            count = self._as_operand(classes)
            target = target * (1 - label_smoothing) + label_smoothing / count
        target = target if scale is None else target * scale
        loss = -(self.log_softmax(axis) * target).sum(axis)
        if reduction == "mean":
            return loss.sum() / loss._count(None)
        return loss._reduced(reduction)

    def nll_loss(
        self,
        Y: Self,
        weight: Self | None = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> Self:
        """The negative of the log-probability in self that the class Y names.

        self: (batch, classes, ...); Y: (batch, ...); weight: one number for each class.
        """
        axis = 0 if self.ndim == 1 else 1
        Y = _signed(Y)
        mask = Y.unsqueeze(axis if Y.ndim else 0)
        classes = self._range_along(axis)
        chosen = mask.eq(classes.cast(Y.dtype) if Y.dtype.bits > 32 else classes)
        scale = self.const_like(1) if weight is None else weight.reshape(
            tuple(n if a == axis else 1 for a, n in enumerate(self.shape))
        )._broadcast_to(self.shape)
        importance = chosen.where(scale, 0).sum(axis)
        if ignore_index is not None:
            importance = Y.ne(ignore_index).where(importance, 0)
        loss = -chosen.where(self, 0).sum(axis) * importance
        if reduction == "mean":
            return loss.sum() / importance.sum()
        return loss._reduced(reduction)

    def mse_loss(self, Y: Self, reduction: Reduction = "mean") -> Self:
        """The squared difference."""
        return (self - Y).square()._reduced(reduction)

    def l1_loss(self, Y: Self, reduction: Reduction = "mean") -> Self:
        """The absolute difference."""
        return (self - Y).abs()._reduced(reduction)

    def smooth_l1_loss(
        self, Y: Self, reduction: Reduction = "mean", beta: float = 1.0
    ) -> Self:
        """Half the square of a difference below `beta`, divided by it, and a line above."""
        if beta < 0:
            raise DtypeError(f"smooth_l1_loss needs a beta of at least 0, not {beta}.")
        return self.l1_loss(Y, reduction) if not beta else (
            (self._huber(Y, beta) / beta)._reduced(reduction)
        )

    def huber_loss(self, Y: Self, reduction: Reduction = "mean", delta: float = 1.0) -> Self:
        """Half the square of a difference below `delta`, a line above."""
        if delta <= 0:
            raise DtypeError(f"huber_loss needs a delta above 0, not {delta}.")
        return self._huber(Y, delta)._reduced(reduction)

    def _huber(self, Y: Self, delta: float) -> Self:
        size = (self - Y).abs()
        return (size < delta).where(0.5 * size * size, delta * (size - 0.5 * delta))

    def kl_div(
        self, Y: Self, reduction: Reduction | Literal["batchmean"] = "mean",
        log_target: bool = False,
    ) -> Self:
        """The divergence of probabilities Y (or their logarithms) from log-probabilities self."""
        loss = Y.exp() * (Y - self) if log_target else Y.xlogy(Y) - Y * self
        if reduction == "batchmean":
            return loss.sum() / self._fixed(0)
        return loss._reduced(reduction)

    def poisson_nll_loss(
        self, Y: Self, log_input: bool = True, full: bool = False, eps: float = 1e-8,
        reduction: Reduction = "mean",
    ) -> Self:
        """The negative log-likelihood of counts Y under rates self (or their logarithms).

        full: with Stirling's term for counts above 1.
        """
        loss = self.exp() - Y * self if log_input else self - Y * (self + eps).log()
        if full:
            stirling = Y * Y.log() - Y + 0.5 * (2 * math.pi * Y).log()
            loss = loss + (Y > 1).where(stirling, 0)
        return loss._reduced(reduction)

    def gaussian_nll_loss(
        self, Y: Self, var: Self, full: bool = False, eps: float = 1e-6,
        reduction: Reduction = "mean",
    ) -> Self:
        """The negative log-likelihood of Y under normal distributions of mean self."""
        wide = (var < eps).where(eps - var.detach(), 0) + var
        loss = 0.5 * (wide.log() + (self - Y).square() / wide)
        return (loss + 0.5 * math.log(2 * math.pi) if full else loss)._reduced(reduction)

    def soft_margin_loss(self, Y: Self, reduction: Reduction = "mean") -> Self:
        """log(1 + exp(-Y*self)) for Y of 1 and -1."""
        return (-Y * self).softplus()._reduced(reduction)

    def hinge_embedding_loss(
        self, Y: Self, margin: float = 1.0, reduction: Reduction = "mean"
    ) -> Self:
        """self where Y is 1, relu(margin - self) where Y is -1."""
        near = Y.eq(-1).where(0, self)
        return (near + Y.eq(1).where(0, (margin - self).relu()))._reduced(reduction)

    def margin_ranking_loss(
        self, other: Self, Y: Self, margin: float = 0.0, reduction: Reduction = "mean"
    ) -> Self:
        """relu(margin - Y*(self - other)) for Y of 1 (self ranks higher) and -1."""
        return (margin - Y * (self - other)).relu()._reduced(reduction)

    def cosine_embedding_loss(
        self, other: Self, Y: Self, margin: float = 0.0, reduction: Reduction = "mean"
    ) -> Self:
        """1 - cosine where Y is 1, relu(cosine - margin) where Y is -1; vectors are the last axis.

        PyTorch adds 1e-12 to the squared lengths.
        """
        squares = self.square().sum(-1) + 1e-12, other.square().sum(-1) + 1e-12
        cosine = (self * other).sum(-1) / (squares[0] * squares[1]).sqrt()
        return Y.eq(1).where(1 - cosine, (cosine - margin).relu())._reduced(reduction)

    def triplet_margin_loss(
        self, positive: Self, negative: Self, margin: float = 1.0, p: float = 2.0,
        eps: float = 1e-6, swap: bool = False, reduction: Reduction = "mean",
    ) -> Self:
        """relu(distance to `positive` - distance to `negative` + margin) of the last axis."""
        far = self.pairwise_distance(negative, p, eps)
        if swap:
            far = far.minimum(positive.pairwise_distance(negative, p, eps))
        near = self.pairwise_distance(positive, p, eps)
        return (near - far + margin).relu()._reduced(reduction)


def _signed(classes: Losses) -> Any:
    """Classes in a type that can hold -1, which may stand for a class that does not count."""
    return classes.cast(least_upper_dtype(classes.dtype, dtypes.int32))


def _check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise DtypeError(f"label_smoothing lies in [0, 1], not at {label_smoothing}.")
