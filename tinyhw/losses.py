"""Losses and attention.

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

    def binary_crossentropy(self, Y: Self, reduction: Reduction = "mean") -> Self:
        """The cross-entropy of probabilities self with the targets Y in [0, 1].

        Logarithms are at least -100, as in PyTorch, so that a certain mistake stays finite.
        """
        yes, no = self.log().maximum(-100), (1 - self).log().maximum(-100)
        return (-Y * yes - (1 - Y) * no)._reduced(reduction)

    def binary_crossentropy_logits(
        self, Y: Self, reduction: Reduction = "mean", pos_weight: Self | None = None
    ) -> Self:
        """The cross-entropy of sigmoid(self) with the targets Y in [0, 1]."""
        positive = -Y * self.logsigmoid()
        if pos_weight is not None:
            positive = positive * pos_weight
        return (positive - (1 - Y) * (-self).logsigmoid())._reduced(reduction)

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
    ) -> Self:
        """The cross-entropy of softmax(self) over the classes of axis 1.

        self: (batch, classes, ...); Y: (batch, ...) integers, or probabilities like self.
        """
        _check_smoothing(label_smoothing)
        axis = 0 if self.ndim == 1 else 1
        classes = self.shape[axis]
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

    def scaled_dot_product_attention(
        self,
        key: Self,
        value: Self,
        attn_mask: Self | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        enable_gqa: bool = False,
    ) -> Self:
        """softmax(self @ key.T / sqrt(width) + mask) @ value.

        self: (..., queries, width); key, value: (..., keys, width). A bool mask says which keys
        count, a float mask is added. `enable_gqa` repeats the heads of key and value.
        """
        if enable_gqa:
            heads = self._fixed(self.ndim - 3)
            key = key.repeat_interleave(heads // key._fixed(key.ndim - 3), dim=-3)
            value = value.repeat_interleave(heads // value._fixed(value.ndim - 3), dim=-3)
        width = self._fixed(self.ndim - 1)
        scores = self.matmul(key.transpose(-2, -1), dtype=_score_dtype(self)) / math.sqrt(width)
        if is_causal:
            if attn_mask is not None:
                raise ShapeError("attn_mask and is_causal exclude each other.")
            causal = scores._range_along(scores.ndim - 1) <= scores._range_along(scores.ndim - 2)
            scores = causal.where(scores, -math.inf)
        elif attn_mask is not None:
            if attn_mask.dtype is dtypes.bool:
                scores = attn_mask.where(scores, -math.inf)
            else:
                scores = scores + attn_mask
        weights = scores.softmax(-1).cast(self.dtype)
        return weights.dropout(dropout_p).matmul(value)


def _signed(classes: Losses) -> Any:
    """Classes in a type that can hold -1, which may stand for a class that does not count."""
    return classes.cast(least_upper_dtype(classes.dtype, dtypes.int32))


def _score_dtype(x: Losses) -> str:
    return "float32" if x.dtype.bits < 32 else x.dtype.name


def _check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise DtypeError(f"label_smoothing lies in [0, 1], not at {label_smoothing}.")
