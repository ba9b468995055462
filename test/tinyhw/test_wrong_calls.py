"""What a method cannot do it says, with the value given: it never computes something close."""

from __future__ import annotations

from typing import Any

import pytest

from test.tinyhw.compare import floats, integers, names
from tinyhw import Tensor
from tinyhw.errors import DtypeError, IndexOutOfRange, ShapeError, TensorError

# (name, call of a (3, 4) float32 tensor, error, what it says)
WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("unfold", lambda t: t.unfold(1, 5, 1), ShapeError, "Windows of 5"),
    ("diagonal", lambda t: t.diagonal(0, 1, -1), ShapeError, "two different"),
    ("diag", lambda t: t.reshape(1, 3, 4).diag(), ShapeError, "vector or a matrix"),
    ("meshgrid", lambda t: t.meshgrid(t), ShapeError, "vectors"),
    ("meshgrid order", lambda t: t[0].meshgrid(t[0], indexing="yx"), ShapeError, "'yx'"),
    ("narrow", lambda t: t.narrow(1, 3, 2), IndexOutOfRange, "2 elements from 3"),
    ("select", lambda t: t.select(0, 3), IndexOutOfRange, "Index 3"),
    ("movedim", lambda t: t.movedim((0, 0), (1, 0)), ShapeError, "movedim"),
    ("rearrange names", lambda t: t.rearrange("a b -> a c"), ShapeError, "does not fit"),
    ("rearrange groups", lambda t: t.rearrange("a (b c) -> a b c"), ShapeError, "cannot split 4"),
    ("rearrange paren", lambda t: t.rearrange("a (b -> a b"), ShapeError, "parentheses"),
    ("glu", lambda t: t.glu(0), ShapeError, "even extent"),
    ("gelu", lambda t: t.gelu("erf"), DtypeError, "'erf'"),
    ("topk", lambda t: t.topk(5), IndexOutOfRange, "not 5"),
    ("topk unsorted", lambda t: t.topk(2, sorted=False), DtypeError, "sorted"),
    ("kthvalue", lambda t: t.kthvalue(0), IndexOutOfRange, "not 0"),
    ("quantile", lambda t: t.quantile(1.5), ShapeError, "1.5"),
    ("quantile mode", lambda t: t.quantile(0.5, interpolation="cubic"), ShapeError, "'cubic'"),
    ("scatter index", lambda t: t.scatter(0, t, t), DtypeError, "float32"),
    ("scatter dtype", lambda t: t.scatter(0, t.int(), t.int()), DtypeError, "int32 into"),
    ("scatter shape", lambda t: t.scatter(0, t.int().repeat(1, 2), 1.0), ShapeError, "longer"),
    ("scatter reduce", lambda t: t.scatter(0, t.int(), 1.0, reduce="mean"), ShapeError, "'mean'"),
    ("scatter_reduce", lambda t: t.scatter_reduce(0, t.int(), t, "max"), ShapeError, "'max'"),
    ("index_put", lambda t: t.index_put((slice(1, 2),), 1.0), ShapeError, "positions or masks"),
    ("slice_scatter", lambda t: t.slice_scatter(t, 0, 0, 2), ShapeError, r"writes \(2, 4\)"),
    ("as_strided", lambda t: t.as_strided((4, 4), (4, 1)), IndexOutOfRange, "element 15 of 12"),
    ("nonzero", lambda t: t.nonzero(size=-1), ShapeError, "not -1"),
    ("einsum axes", lambda t: Tensor.einsum("ijk->i", t), ShapeError, "does not name"),
    ("einsum output", lambda t: Tensor.einsum("ij->iz", t), ShapeError, "cannot read"),
    ("einsum operands", lambda t: Tensor.einsum("ij,jk->ik", t), ShapeError, "2 of 1"),
    ("einsum diagonal", lambda t: Tensor.einsum("ii->i", t), ShapeError, "diagonal"),
    ("conv padding", lambda t: t.reshape(1, 3, 4).conv2d(floats_(2, 3, 2), stride=2,
                                                         padding="same"), ShapeError, "'same'"),
    ("conv_transpose", lambda t: t.reshape(1, 3, 4).conv_transpose2d(floats_(2, 3, 2)),
     ShapeError, "number of channels"),
    ("adaptive", lambda t: t.adaptive_avg_pool2d((0, 2)), ShapeError, r"\(0, 2\)"),
    ("lp_pool", lambda t: t.lp_pool2d(-1), DtypeError, "-1"),
    ("interpolate mode", lambda t: t.interpolate((2,), "lanczos"), DtypeError, "'lanczos'"),
    ("interpolate both", lambda t: t.interpolate((2,), scale_factor=2.0), ShapeError, "either"),
    ("interpolate corners", lambda t: t.interpolate((2,), "nearest", align_corners=True),
     DtypeError, "align_corners"),
    ("pixel_shuffle", lambda t: t.reshape(3, 2, 2).pixel_shuffle(2), ShapeError, "divide"),
    ("cross", lambda t: t.cross(t, 1), ShapeError, "vectors of 3"),
    ("inverse", lambda t: t.inverse(), ShapeError, "square"),
    ("qr", lambda t: t.qr("r"), ShapeError, "'r'"),
    ("norm", lambda t: t.norm("nuc"), DtypeError, "'nuc'"),
    ("mm", lambda t: t.mm(t[0]), ShapeError, "2 and 2 axes"),
    ("gqa", lambda t: t.reshape(3, 2, 2).scaled_dot_product_attention(
        floats_(2, 2, 2), floats_(2, 2, 2), enable_gqa=True), ShapeError, "no multiple"),
    ("cross_entropy", lambda t: t.cross_entropy(t[0]), ShapeError, "do not fit"),
    ("huber", lambda t: t.huber_loss(t, delta=0), DtypeError, "delta above 0"),
    ("reduction", lambda t: t.mse_loss(t, reduction="average"), ShapeError, "'average'"),
    ("from_url", lambda t: Tensor.from_url("file:///no/such/file"), TensorError, "no/such/file"),
]  # fmt: skip


def floats_(*shape: int) -> Tensor:
    return Tensor(floats(*shape))


def integers_(*shape: int) -> Tensor:
    return Tensor(integers(*shape, low=0, high=3))


@pytest.mark.parametrize(("name", "call", "error", "says"), WRONG, ids=names(WRONG))
def test_a_wrong_call_is_named(name: str, call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(Tensor(floats(3, 4)))
