"""Sums, extremes, moments and what is built on them, against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import floats, forward, integers, names, same, torch
from tinyhw import Tensor, dtypes
from tinyhw.errors import IndexOutOfRange, ShapeError

AXES: list[Any] = [None, 0, -1, (0, 2)]
F = torch.nn.functional


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums_and_means(name: str, axis: Any) -> None:
    for keepdim in (False, True):
        same(lambda x: getattr(x, name)(axis, keepdim), floats(2, 3, 4),  # noqa: B023
             theirs=lambda x: getattr(x, name)(axis, keepdim) if axis is not None  # noqa: B023
             else getattr(x, name)(tuple(range(3)), keepdim))  # noqa: B023


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_extremes(axis: Any) -> None:
    same(lambda x: x.max(axis), floats(2, 3, 4),
         theirs=lambda x: x.amax(axis if axis is not None else (0, 1, 2)))
    same(lambda x: x.min(axis, keepdim=True), floats(2, 3, 4),
         theirs=lambda x: x.amin(axis if axis is not None else (0, 1, 2), keepdim=True))


def test_extremes_share_the_gradient_among_equals() -> None:
    x = np.array([[1, 3, 3, 0], [2, 2, 2, 2]], np.float32)
    same(lambda t: t.max(1), x, theirs=lambda t: t.amax(1))
    same(lambda t: t.min(1), x, theirs=lambda t: t.amin(1))


def test_extremes_of_integers_bool_and_nan() -> None:
    for dtype in ("int8", "uint8", "int64"):
        x = integers(3, 5, low=0 if dtype == "uint8" else -99, high=99, dtype=dtype)
        forward(lambda t: t.max(1), x, theirs=lambda t: t.amax(1))
        forward(lambda t: t.min(1), x, theirs=lambda t: t.amin(1))
    b = integers(3, 4, low=0, high=2) > 0
    forward(lambda t: t.max(1), b, theirs=lambda t: t.amax(1))
    forward(lambda t: t.min(1), b, theirs=lambda t: t.amin(1))
    n = np.array([[1, np.nan, 2], [3, 4, -np.inf]], np.float32)
    forward(lambda t: t.max(1), n, theirs=lambda t: t.amax(1))
    forward(lambda t: t.min(1), n, theirs=lambda t: t.amin(1))


def test_products_and_their_gradient_through_zeros() -> None:
    same(lambda x: x.prod(1), floats(3, 4))
    x = floats(4, 3)
    x[1, 0] = x[2, 0] = x[2, 1] = x[3] = 0
    same(lambda t: t.prod(1), x)


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_moments(axis: Any) -> None:
    for correction in (0, 1):
        same(lambda x: x.var(axis, correction=correction), floats(2, 3, 4),  # noqa: B023
             theirs=lambda x: x.var(axis, correction=correction))  # noqa: B023
    same(lambda x: x.std(axis, keepdim=True), floats(2, 3, 4),
         theirs=lambda x: x.std(axis, keepdim=True))


def test_var_of_one_element_is_nan_as_in_torch() -> None:
    forward(lambda x: x.var(1), floats(3, 1), theirs=lambda x: torch.full((3,), math.nan))


@pytest.mark.filterwarnings("ignore")
def test_any_and_all() -> None:
    x = integers(4, 5, low=0, high=2)
    for name in ("any", "all"):
        forward(lambda t, name=name: getattr(t, name)(1), x)
        forward(lambda t, name=name: getattr(t, name)(), x)


def test_positions_of_extremes() -> None:
    x = integers(5, 6, low=0, high=4)
    for name in ("argmax", "argmin"):
        for axis in (None, 0, -1):
            forward(lambda t, name=name, axis=axis: getattr(t, name)(axis).cast("int64"), x,
                    theirs=lambda t, name=name, axis=axis: getattr(t, name)(axis))
    n = np.array([[1, np.nan, 2, np.nan], [3, 4, 4, -np.inf]], np.float32)
    forward(lambda t: t.argmax(1).long(), n, theirs=lambda t: t.argmax(1))
    forward(lambda t: t.argmin(1, keepdim=True).long(), n,
            theirs=lambda t: t.argmin(1, keepdim=True))


def test_sums_of_integers_are_at_least_32_bits() -> None:
    for dtype, wide in [("bool", "int32"), ("int8", "int32"), ("uint8", "uint32"),
                        ("int64", "int64"), ("float16", "float16")]:
        t = Tensor(np.ones(300, dtype=dtype)).sum()
        assert (t.item(), t.dtype.name) == (300, wide)
    assert Tensor(np.ones(300, np.int8)).sum(dtype=dtypes.int8).item() == 44


def test_half_precision_is_summed_in_float32() -> None:
    assert Tensor(np.full(4096, 1.0, np.float16)).sum().item() == 4096
    assert Tensor(np.full(70000, 2.0, np.float16)).mean().item() == 2
    assert Tensor(np.full(4096, 1.0), dtype="bfloat16").sum().item() == 4096


def test_half_precision_gradients() -> None:
    same(lambda x: (x * x).sum(0), floats(4, 3).astype(np.float16), rtol=2e-3, atol=2e-3)
    same(lambda x: x.softmax(-1), floats(4, 3).astype(np.float16), rtol=3e-3, atol=2e-3,
         theirs=lambda x: x.softmax(-1))


NORMALISING: list[tuple[str, Any, Any]] = [
    ("softmax", lambda x: x.softmax(-1), None),
    ("softmax axis", lambda x: x.softmax(1), None),
    ("log_softmax", lambda x: x.log_softmax(-1), None),
    ("logsumexp", lambda x: x.logsumexp(1), None),
    ("logsumexp all", lambda x: x.logsumexp(), lambda x: x.logsumexp((0, 1, 2))),
    ("logsumexp keepdim", lambda x: x.logsumexp((0, 2), keepdim=True), None),
    ("layernorm", lambda x: x.layernorm(-1), lambda x: F.layer_norm(x, x.shape[-1:])),
    ("layernorm two", lambda x: x.layernorm((-2, -1)), lambda x: F.layer_norm(x, x.shape[-2:])),
    ("normalize", lambda x: x.normalize(), lambda x: F.normalize(x)),
    ("cumsum", lambda x: x.cumsum(1), None),
    ("cumsum first", lambda x: x.cumsum(0), None),
]


@pytest.mark.parametrize(("name", "ours", "theirs"), NORMALISING, ids=names(NORMALISING))
def test_along_an_axis(name: str, ours: Any, theirs: Any) -> None:
    same(ours, floats(2, 3, 5), theirs=theirs)


def test_softmax_of_large_values_is_finite() -> None:
    x = np.array([[1e4, 1e4, -1e4], [-np.inf, 0, 1]], np.float32)
    forward(lambda t: t.softmax(-1), x)
    forward(lambda t: t.log_softmax(-1), x)
    forward(lambda t: t.logsumexp(-1), x)
    forward(lambda t: t.logsumexp(-1), np.full((1, 3), -np.inf, np.float32))


def test_a_long_cumsum() -> None:
    x = integers(2, 700, dtype="int64")
    forward(lambda t: t.cumsum(1), x)
    forward(lambda t: t.cumsum(0), integers(0, 3, dtype="int64"))


def test_reductions_of_scalars_and_of_nothing() -> None:
    same(lambda x: x.sum(), floats())
    same(lambda x: x.mean(), floats())
    same(lambda x: x.softmax(0), floats())
    assert Tensor.zeros(0, 3).sum().item() == 0
    assert Tensor.ones(2, 0).prod(1).tolist() == [1, 1]
    assert np.isnan(Tensor.zeros(0).mean().item())
    with pytest.raises(ShapeError, match="max over no elements"):
        Tensor.zeros(0, 3).max(0)
    assert Tensor.zeros(0, 3).max(1).shape == (0,)


def test_a_sum_over_nothing_has_an_empty_gradient() -> None:
    x = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    (x * 2).sum().backward()
    assert x.grad is not None and x.grad.numpy().shape == (0, 3)
    y = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y[2:].sum().backward()
    assert y.grad is not None and y.grad.tolist() == [[0, 0, 0]] * 2



def test_wrong_axes_are_named() -> None:
    with pytest.raises(IndexOutOfRange, match=r"Axis 2 .*\[-2, 1\]"):
        Tensor.zeros(2, 3).sum(2)
    with pytest.raises(ShapeError, match="twice"):
        Tensor.zeros(2, 3).sum((0, -2))
