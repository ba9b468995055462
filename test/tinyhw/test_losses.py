"""Losses and attention against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import floats, integers, same, torch
from tinyhw import Tensor
from tinyhw.errors import DtypeError, ShapeError

F = torch.nn.functional
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


@REDUCTIONS
def test_cross_entropy(reduction: Any) -> None:
    y = integers(5, low=0, high=4, dtype="int64")
    y[2] = -100
    for smoothing in (0.0, 0.2):
        options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing}
        same(lambda x, y: x.cross_entropy(y, **options), floats(5, 4), y,  # noqa: B023
             theirs=lambda x, y: F.cross_entropy(x, y, **options))  # noqa: B023
    p = np.abs(floats(5, 4, seed=1))
    same(lambda x, y: x.cross_entropy(y, reduction, 0.1), floats(5, 4), p,
         theirs=lambda x, y: F.cross_entropy(x, y, reduction=reduction, label_smoothing=0.1))


@REDUCTIONS
def test_cross_entropy_of_images(reduction: Any) -> None:
    y = integers(2, 3, 3, low=0, high=4, dtype="int64")
    same(lambda x, y: x.cross_entropy(y, reduction), floats(2, 4, 3, 3), y,
         theirs=lambda x, y: F.cross_entropy(x, y, reduction=reduction))


@REDUCTIONS
def test_sparse_categorical_crossentropy(reduction: Any) -> None:
    y = integers(2, 5, low=0, high=4, dtype="int64")
    y[1, 2] = -1
    options: dict[str, Any] = {"ignore_index": -1, "label_smoothing": 0.1, "reduction": reduction}
    same(lambda x, y: x.sparse_categorical_crossentropy(y, -1, 0.1, reduction), floats(2, 5, 4), y,
         theirs=lambda x, y: F.cross_entropy(x.transpose(1, 2), y, **options))


def test_classes_as_bytes_are_no_negative_numbers() -> None:
    x, y = floats(2, 256), np.array([255, 3])
    wanted = Tensor(x).sparse_categorical_crossentropy(Tensor(y)).item()
    found = Tensor(x).sparse_categorical_crossentropy(Tensor(y.astype(np.uint8))).item()
    assert found == wanted


@REDUCTIONS
def test_nll_loss(reduction: Any) -> None:
    y, w = integers(5, low=0, high=4, dtype="int64"), floats(4, low=0.5)
    same(lambda x, y: x.nll_loss(y, Tensor(w), 2, reduction), floats(5, 4), y,
         theirs=lambda x, y: F.nll_loss(x, y, torch.tensor(w), ignore_index=2,
                                        reduction=reduction))
    same(lambda x, y: x.nll_loss(y), floats(2, 4, 3), integers(2, 3, low=0, high=4, dtype="int64"),
         theirs=F.nll_loss)


@REDUCTIONS
def test_binary_losses(reduction: Any) -> None:
    y = integers(3, 4, low=0, high=2).astype(np.float32)
    same(lambda x, y: x.sigmoid().binary_crossentropy(y, reduction), floats(3, 4), y,
         theirs=lambda x, y: F.binary_cross_entropy(x.sigmoid(), y, reduction=reduction))
    same(lambda x, y: x.binary_crossentropy(y, reduction), np.float32([0, 1, 0.5]),
         np.float32([1, 1, 0]), gradient=False,
         theirs=lambda x, y: F.binary_cross_entropy(x, y, reduction=reduction))
    weight = floats(4, low=0.5)
    same(lambda x, y: x.binary_crossentropy_logits(y, reduction, Tensor(weight)),
         floats(3, 4, low=-30, high=30), y,
         theirs=lambda x, y: F.binary_cross_entropy_with_logits(
             x, y, reduction=reduction, pos_weight=torch.tensor(weight)))


def test_differences() -> None:
    same(lambda x, y: x.mse_loss(y), floats(3, 4), floats(3, 4, seed=1), theirs=F.mse_loss)
    same(lambda x, y: x.l1_loss(y), floats(3, 4), floats(3, 4, seed=1), theirs=F.l1_loss)


def test_attention() -> None:
    q, k, v = (floats(2, 2, n, 4, seed=n) for n in (3, 5, 5))
    attention = F.scaled_dot_product_attention
    same(lambda q, k, v: q.scaled_dot_product_attention(k, v), q, k, v, theirs=attention,
         rtol=1e-4, atol=1e-5)
    square = floats(2, 2, 5, 4)
    same(lambda q, k, v: q.scaled_dot_product_attention(k, v, is_causal=True), square, k, v,
         theirs=lambda q, k, v: attention(q, k, v, is_causal=True), rtol=1e-4, atol=1e-5)
    mask = floats(3, 5)
    same(lambda q, k, v: q.scaled_dot_product_attention(k, v, Tensor(mask)), q, k, v,
         theirs=lambda q, k, v: attention(q, k, v, torch.tensor(mask)), rtol=1e-4, atol=1e-5)
    kept = mask > -1
    same(lambda q, k, v: q.scaled_dot_product_attention(k, v, Tensor(kept)), q, k, v,
         theirs=lambda q, k, v: attention(q, k, v, torch.tensor(kept)), rtol=1e-4, atol=1e-5)


def test_wrong_losses_are_named() -> None:
    x = Tensor(floats(5, 4))
    with pytest.raises(ShapeError, match="reduction is"):
        x.mse_loss(x, "middle")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(3,\) do not fit predictions"):
        x.sparse_categorical_crossentropy(Tensor([1, 2, 3]))
    with pytest.raises(DtypeError, match="label_smoothing"):
        x.cross_entropy(Tensor([1, 2, 3, 0, 1]), label_smoothing=1.5)
