"""Matrix products, convolutions and pooling against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import floats, forward, integers, names, same, torch
from tinyhw import Tensor, dtypes
from tinyhw.errors import ShapeError

F = torch.nn.functional

MATRICES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (4,)),
    ((33, 17), (17, 35)),
]


@pytest.mark.parametrize(("left", "right"), MATRICES, ids=str)
def test_matmul(left: Any, right: Any) -> None:
    same(lambda a, b: a @ b, floats(*left), floats(*right, seed=1), rtol=1e-4, atol=1e-5)


def test_products_of_integers_and_halves() -> None:
    forward(lambda a, b: a @ b, integers(3, 4, dtype="int64"), integers(4, 2, dtype="int64"))
    ones = Tensor.ones(2, 300, dtype="int8")
    assert (ones @ ones[0]).tolist() == [300, 300]
    a, b = floats(5, 64).astype(np.float16), floats(64, 3, seed=1).astype(np.float16)
    same(lambda x, y: x @ y, a, b, rtol=2e-3, atol=2e-3)
    assert Tensor(a).dot(Tensor(b), dtype=dtypes.float32).dtype is dtypes.float32


def test_linear() -> None:
    same(lambda x, w, b: x.linear(w, b), floats(2, 3, 4), floats(4, 5), floats(5),
         theirs=lambda x, w, b: F.linear(x, w.T, b))


FORMULAS = ["ij,jk->ik", "ij,ij->", "ij,kj->ki", "bij,bjk->bik", "i,j->ij", "ii->i", "ij->ji",
            "bhqd,bhkd->bhqk", "ij,jk", "ii"]  # fmt: skip


@pytest.mark.parametrize("formula", FORMULAS)
def test_einsum(formula: str) -> None:
    terms = formula.split("->")[0].split(",")
    arrays = [floats(*(3 for _ in term), seed=i) for i, term in enumerate(terms)]
    same(lambda *t: Tensor.einsum(formula, *t), *arrays,
         theirs=lambda *t: torch.einsum(formula, *t), rtol=1e-4, atol=1e-5)


# (name, x, weight, options)
CONVOLUTIONS: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("3x3", (2, 3, 6, 7), (4, 3, 3, 3), {}),
    ("1x1", (2, 3, 4, 4), (5, 3, 1, 1), {}),
    ("padding", (2, 3, 5, 5), (4, 3, 3, 3), {"padding": 1}),
    ("stride", (2, 2, 7, 8), (3, 2, 3, 3), {"stride": 2}),
    ("strides", (1, 2, 8, 9), (3, 2, 3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    ("dilation", (1, 2, 9, 9), (2, 2, 3, 3), {"dilation": 2, "padding": 2}),
    ("groups", (2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2}),
    ("depthwise", (2, 3, 5, 5), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
    ("stride is kernel", (1, 2, 6, 7), (3, 2, 2, 2), {"stride": 2}),
    ("one axis", (2, 3, 9), (4, 3, 3), {"stride": 2, "padding": 1}),
    ("three axes", (1, 2, 4, 4, 4), (3, 2, 2, 2, 2), {}),
]


@pytest.mark.parametrize(("name", "x", "w", "options"), CONVOLUTIONS, ids=names(CONVOLUTIONS))
def test_conv2d(name: str, x: Any, w: Any, options: dict[str, Any]) -> None:
    theirs = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(x)]
    same(lambda x, w, b: x.conv2d(w, b, **options), floats(*x), floats(*w, seed=1),
         floats(w[0], seed=2), theirs=lambda x, w, b: theirs(x, w, b, **options),
         rtol=1e-4, atol=2e-5)


def test_conv2d_with_uneven_padding() -> None:
    same(lambda x, w: x.conv2d(w, padding=(1, 0, 2, 1)), floats(1, 2, 5, 6), floats(2, 2, 3, 3),
         theirs=lambda x, w: F.conv2d(F.pad(x, (1, 0, 2, 1)), w), rtol=1e-4, atol=2e-5)


TRANSPOSED: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("stride", {"stride": 2}),
    ("all", {"stride": (2, 3), "padding": (1, 0), "output_padding": 1, "dilation": (2, 1)}),
]


@pytest.mark.parametrize(("name", "options"), TRANSPOSED, ids=names(TRANSPOSED))
def test_conv_transpose2d(name: str, options: dict[str, Any]) -> None:
    for groups, w in [(1, (4, 3, 3, 2)), (2, (4, 2, 3, 2))]:
        same(lambda x, w: x.conv_transpose2d(w, groups=groups, **options),  # noqa: B023
             floats(2, 4, 4, 5), floats(*w, seed=1),
             theirs=lambda x, w: F.conv_transpose2d(x, w, groups=groups, **options),  # noqa: B023
             rtol=1e-4, atol=2e-5)


POOLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("2", {}, {"kernel_size": 2}),
    ("3 by 2", {"kernel_size": (3, 2)}, {"kernel_size": (3, 2)}),
    ("overlap", {"kernel_size": 3, "stride": 2}, {"kernel_size": 3, "stride": 2}),
    ("padding", {"kernel_size": 3, "stride": 1, "padding": 1},
     {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("ceil", {"kernel_size": 2, "stride": 2, "ceil_mode": True},
     {"kernel_size": 2, "stride": 2, "ceil_mode": True}),
    ("ceil padding", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
     {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ours", "theirs"), POOLS, ids=names(POOLS))
def test_pools(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    x = floats(2, 3, 7, 6)
    same(lambda t: t.max_pool2d(**ours), x, theirs=lambda t: F.max_pool2d(t, **theirs))
    same(lambda t: t.avg_pool2d(**ours), x, theirs=lambda t: F.avg_pool2d(t, **theirs))


def test_pools_with_dilation_and_without_padding_in_the_count() -> None:
    x = floats(1, 2, 7, 7)
    same(lambda t: t.max_pool2d((2, 2), 1, 2), x, theirs=lambda t: F.max_pool2d(t, 2, 1, 0, 2))
    same(lambda t: t.avg_pool2d(3, 2, padding=1, count_include_pad=False), x,
         theirs=lambda t: F.avg_pool2d(t, 3, 2, 1, count_include_pad=False))
    for include in (True, False):
        for kernel, stride, padding in [((3, 2), (3, 3), (1, 0)), ((3, 3), (2, 2), (1, 1))]:
            x = floats(1, 1, 8, 6)
            same(lambda t: t.avg_pool2d(kernel, stride, 1, padding, True, include), x,  # noqa: B023
                 theirs=lambda t: F.avg_pool2d(t, kernel, stride, padding, True, include))  # noqa: B023
    forward(lambda t: t.max_pool2d(2), integers(1, 1, 4, 4), theirs=lambda t: F.max_pool2d(
        t.float(), 2).int())


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x @ x, r"Cannot multiply \(2, 3, 4, 5\).*5 is not 4"),
        (lambda x: x @ Tensor(1.0), "need an axis"),
        (lambda x: x.conv2d(Tensor.ones(2, 2, 3, 3)), "2 input channels"),
        (lambda x: x.conv2d(Tensor.ones(2, 3, 5, 3)), "does not fit into an axis of 4"),
        (lambda x: x.conv2d(Tensor.ones(2, 3)), "at least 3"),
        (lambda x: x.conv2d(Tensor.ones(2, 3, 3, 3), stride=0), "stride must be at least 1"),
        (lambda x: x.conv2d(Tensor.ones(2, 3, 3, 3), padding=(1, 2, 3)), "padding is one amount"),
        (lambda x: x.max_pool2d((2, 2, 2, 2, 2)), "does not fit into the shape"),
        (lambda x: Tensor.einsum("ij,jk->ik", x), "2 of 1 tensors"),
    ],
)
def test_wrong_products_are_named(function: Any, says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        function(Tensor(floats(2, 3, 4, 5)))
