"""The op table: reading and writing at positions, masks and parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from test.tinyhw.compare import floats, integers, torch
from test.tinyhw.op_table import F, case, variant, x

_PLACES = integers(5, 7, low=0, high=37, dtype="int64")
_MASK = x(seed=3) > 0.4
_ROW = integers(4, low=0, high=5, dtype="int64")

# ---- NumPy's indexing ----
case("slices", lambda t: t[1:5:2, ::-3] * 2, x(), theirs=lambda t: t.flip((1,))[1:5:2, ::3] * 2)
case("advanced indexing", lambda t: t[:, [3, 0, 30]] * 2, x())
for _name, _index in (
    ("an integer", (2,)), ("a negative integer", (-1, 5)), ("None", (None, slice(1, 3), None)),
    ("an ellipsis", (..., 3)), ("a slice of nothing", (slice(3, 3),)),
    ("two lists", ([0, 2, -1], [1, 5, 9])), ("a list of lists", ([[0, 1], [2, 4]],)),
    ("a list and a slice", ([0, 3], slice(2, 20, 5))), ("a list and an integer", ([4, 1], 7)),
    ("a slice and a list", (slice(None, None, 2), [1, 1, 36])),
):  # fmt: skip
    variant(f"index of {_name}", lambda t, i=_index: t[i] * 2, x())
variant("index of lists apart", lambda t: t[[0, 1], :, [2, 3]] * 2, floats(3, 4, 5))
variant("index of lists and None", lambda t: t[None, [0, 1], None, [2, 3]] * 2, floats(3, 4, 5))
variant("index of tensors", lambda t, i, j: t[i, j] * 2, x(), _ROW, np.array([[1], [30]]))
variant("index of negative positions", lambda t, i: t[:, i] * 2, x(), np.array([-1, -37, 0]))
case("mask", lambda t, m: t[m] * 2, x(), _MASK)
variant("mask of rows", lambda t, m: t[m] * 2, x(), _MASK[:, 0])
variant("mask of columns", lambda t, m: t[:, m] * 2, x(), _MASK[0])
variant("mask in NumPy", lambda t: t[_MASK] * 2, x())
variant("mask and an integer", lambda t, m: t[1, m] * 2, x(), _MASK[0])
variant("mask of nothing", lambda t, m: t[m] * 2, x(), np.zeros((5, 37), bool))
case("masked_select", lambda t, m: t.masked_select(m) * 2, x(), _MASK)
case("nonzero", lambda m: m.nonzero(), _MASK, theirs=lambda m: m.nonzero().to(torch.int32))
variant("nonzero of a size", lambda m: m.nonzero(size=3), _MASK,
        theirs=lambda m: m.nonzero()[:3].to(torch.int32))
variant("nonzero filled up", lambda m: m.nonzero(size=185, fill_value=-1), _MASK,
        theirs=lambda m: F.pad(m.nonzero(), (0, 0, 0, 185 - int(m.sum())), value=-1).int())
case("as_strided", lambda t: t.as_strided((3, 4), (2, 5), 3) * 2, x())

# ---- along an axis ----
case("gather", lambda t, i: t.gather(1, i), x(), _PLACES)
variant("gather along 0", lambda t, i: t.gather(0, i), x(),
        integers(3, 9, low=0, high=5, dtype="int64"))
variant("gather without gradient", lambda t, i: t.gather(1, i), x(), _PLACES, gradient=False)
variant("gather of integers", lambda t, i: t.gather(1, i), integers(5, 37), _PLACES)
case("take_along_dim", lambda t, i: t.take_along_dim(i, 1), x(), np.array([[3, 5]]))
case("index_select", lambda t, i: t.index_select(1, i), x(), np.array([3, 30, 3]))
case("take", lambda t, i: t.take(i), x(), np.array([[3, 30], [1, 0]]))
case("one_hot", lambda i: i.one_hot(9), integers(37, low=0, high=9, dtype="int64"),
     theirs=lambda i: F.one_hot(i, 9).to(torch.int32), gradient=False)

# ---- writing ----
_TWICE = integers(5, 11, low=0, high=37, dtype="int64")
_ONCE = np.array([[3, 0, 5], [36, 1, 2]])
case("scatter", lambda t, i, s: t.scatter(1, i, s), x(), _ONCE, floats(2, 3, seed=1))
variant("scatter of a number", lambda t, i: t.scatter(1, i, 7.0), x(), _ONCE)
variant("scatter along 0", lambda t, i, s: t.scatter(0, i, s), x(), np.array([[3, 0, 4]]),
        floats(1, 3, seed=1))
for _how in ("add", "multiply"):
    variant(f"scatter {_how}", lambda t, i, h=_how: t.scatter(1, i, 2.0, reduce=h), x(), _TWICE,
            gradient=False)
case("scatter_add", lambda t, i, s: t.scatter_add(1, i, s), x(), _TWICE, floats(5, 11, seed=1))
for _how in ("sum", "prod", "mean", "amax", "amin"):
    (case if _how == "sum" else variant)(
        "scatter_reduce" if _how == "sum" else f"scatter_reduce {_how}",
        lambda t, i, s, h=_how: t.scatter_reduce(1, i, s, h), x(), _TWICE, floats(5, 11, seed=1))
    variant(f"scatter_reduce {_how} of new values",
            lambda t, i, s, h=_how: t.scatter_reduce(1, i, s, h, include_self=False),
            x(), _TWICE, floats(5, 11, seed=1), gradient=_how in ("sum", "mean"))
variant("scatter_reduce of integers", lambda t, i, s: t.scatter_reduce(1, i, s, "mean"),
        integers(5, 37), _TWICE, integers(5, 11, seed=1))
_COLUMNS = np.array([3, 0, 36])
for _name in ("index_add", "index_copy"):
    case(_name, lambda t, i, s, n=_name: getattr(t, n)(1, i, s), x(), _COLUMNS,
         floats(5, 3, seed=2))
variant("index_add twice", lambda t, i, s: t.index_add(0, i, s, alpha=3), x(), np.array([1, 1]),
        floats(2, 37, seed=2))
case("index_fill", lambda t, i: t.index_fill(1, i, 3.0), x(), _COLUMNS)
case("index_put", lambda t, i, j, s: t.index_put((i, j), s), x(), np.array([3, 0, 4]), _COLUMNS,
     floats(3, seed=2))
variant("index_put added", lambda t, i, s: t.index_put((i,), s, accumulate=True), x(),
        np.array([1, 1, 0]), floats(3, 37, seed=2))
variant("index_put at a mask", lambda t, m, s: t.index_put((m,), s), x(), _MASK, floats(1))
case("put", lambda t, i, s: t.put(i, s), x(), np.array([[3, 30], [1, 0]]), floats(2, 2, seed=2))
case("masked_scatter", lambda t, m, s: t.masked_scatter(m, s), x(), _MASK, x(seed=4))
case("select_scatter", lambda t, s: t.select_scatter(s, 1, -1), x(), floats(5, seed=1))
case("slice_scatter", lambda t, s: t.slice_scatter(s, 1, 1, 34, 7), x(), floats(5, 5, seed=1))
case("diagonal_scatter", lambda t, s: t.diagonal_scatter(s, 2), x(), floats(5, seed=1))


def _written(change: Callable[..., None]) -> Callable[..., Any]:
    def run(t: Any, *values: Any) -> Any:
        new = t.clone()
        change(new, *values)
        return new

    return run


for _name, _index in (
    ("a slice", (slice(1, 4),)), ("columns", (slice(None), [1, 3, 36])),
    ("places", ([0, 4], [2, 3])), ("a list and a slice", ([1, 3], slice(1, 36, 5))),
    ("an integer and a list", (2, [5, 6])),
):  # fmt: skip
    variant(f"assignment to {_name}", _written(lambda t, i=_index: t.__setitem__(i, 5.0)), x(),
            gradient=False)
case("assignment to rows", _written(lambda t, i, s: t.__setitem__((slice(None), i), s)), x(),
     _COLUMNS, floats(5, 3, seed=1), gradient=False)
variant("assignment of a number at a mask", _written(lambda t, m: t.__setitem__(m, 5.0)), x(),
        _MASK, gradient=False)
variant("assignment of values at a mask", _written(lambda t, m, s: t.__setitem__(m, s[m] * 2)), x(),
        _MASK, x(seed=1), gradient=False)
