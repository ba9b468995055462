"""The op table: reductions, and what runs along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from test.tinyhw.compare import floats, integers, torch
from test.tinyhw.op_table import SPECIAL, F, case, positions, variant, x
from tinyhw import dtypes

# ---- reductions ----
for _name in ("sum", "mean", "prod"):
    case(f"{_name} along 1", lambda t, name=_name: getattr(t, name)(1), x(0.5, 1.5))
    case(f"{_name} along 0", lambda t, name=_name: getattr(t, name)(0), x(0.5, 1.5))
case("sum of all", lambda t: t.sum(), floats(70, 70))
case("sum of integers", lambda t: t.sum(1), integers(5, 300, dtype="int64"), gradient=False)
case("sum of halves", lambda t: t.sum(1), floats(5, 300).astype(np.float16), rtol=2e-3, atol=2e-3)
case("max", lambda t: t.max(1), x(), theirs=lambda t: t.amax(1))
case("min", lambda t: t.min(1), x(), theirs=lambda t: t.amin(1))
case("argmax", lambda t: t.argmax(1), x(), gradient=False,
     theirs=lambda t: t.argmax(1).to(torch.int32))
case("argmin", lambda t: t.argmin(1), x(), gradient=False,
     theirs=lambda t: t.argmin(1).to(torch.int32))
case("any", lambda t: (t > 1.9).any(1), x(), gradient=False)
case("all", lambda t: (t > -1.9).all(1), x(), gradient=False)
case("var", lambda t: t.var(1), x())
case("std", lambda t: t.std(1), x())
case("var_mean", lambda t: t.var_mean(1)[0], x(), theirs=lambda t: torch.var_mean(t, 1)[0])
case("std_mean", lambda t: t.std_mean(1)[1], x(), theirs=lambda t: torch.std_mean(t, 1)[1])
case("softmax", lambda t: t.softmax(1), x(), theirs=lambda t: t.softmax(1))
case("log_softmax", lambda t: t.log_softmax(1), x(), theirs=lambda t: t.log_softmax(1))
case("logsumexp", lambda t: t.logsumexp(1), x())
case("cumsum", lambda t: t.cumsum(1), x())
case("normalize", lambda t: t.normalize(), x(), theirs=lambda t: F.normalize(t))
for _axis in (None, 0, (0, 2), -1):
    for _name, _theirs in (("sum", "sum"), ("mean", "mean"), ("max", "amax"), ("min", "amin")):
        variant(f"{_name} along {_axis}, kept",
                lambda t, n=_name, a=_axis: getattr(t, n)(a, keepdim=True), floats(3, 5, 7),
                theirs=lambda t, n=_theirs, a=_axis: getattr(t, n)(
                    (0, 1, 2) if a is None else a, keepdim=True))
for _correction in (0, 1, 2):
    for _name in ("var", "std"):
        variant(f"{_name} with correction {_correction}",
                lambda t, name=_name, c=_correction: getattr(t, name)(1, correction=c), x())
variant("std_mean of all", lambda t: t.std_mean(), x(), theirs=lambda t: torch.std_mean(t))
variant("logsumexp of two axes", lambda t: t.logsumexp((0, 2)), floats(3, 5, 7))
variant("logsumexp of infinities", lambda t: t.logsumexp(0),
        np.array([[-np.inf, np.inf, 1], [-np.inf, 2, 3]], np.float32), gradient=False)
variant("sum to another type", lambda t: t.sum(1, dtype=dtypes.float64), x(),
        theirs=lambda t: t.sum(1, dtype=torch.float64))
variant("sum of bools", lambda t: (t > 0).sum(1), x(), gradient=False,
        theirs=lambda t: (t > 0).sum(1).to(torch.int32))
variant("sum of small integers", lambda t: t.sum(1),
        integers(5, 37, dtype="int8", low=-120, high=120),
        theirs=lambda t: t.sum(1).to(torch.int32), gradient=False)
variant("max of integers", lambda t: t.max(1), integers(5, 37), theirs=lambda t: t.amax(1),
        gradient=False)
variant("min of unsigned integers", lambda t: t.min(1), integers(5, 37, low=0, dtype="uint8"),
        theirs=lambda t: t.amin(1), gradient=False)
variant("prod with zeros", lambda t: t.prod(1),
        np.array([[0, 2, 3], [0, 0, 3], [1, 2, 3]], np.float32))
for _name in ("sum", "max", "min", "prod", "mean", "argmax", "argmin"):
    variant(f"{_name} with NaN", lambda t, name=_name: getattr(t, name)(1),
            np.array([[1, np.nan, 3], [np.inf, 2, -np.inf]], np.float32), gradient=False,
            theirs=lambda t, name=_name: positions((t, getattr(t, name)(1)))[1]
            if name[:3] == "arg" else getattr(t, {"max": "amax", "min": "amin"}.get(name, name))(1))
for _name in ("sum", "prod", "mean", "logsumexp", "all", "any"):
    variant(f"{_name} of nothing", lambda t, name=_name: getattr(t, name)(1),
            np.zeros((3, 0), np.float32), gradient=False)
for _name in ("sum", "prod", "mean", "max", "logsumexp"):
    variant(f"{_name} of one number", lambda t, name=_name: getattr(t, name)(),
            np.array(2.5, np.float32),
            theirs=lambda t, name=_name: torch.logsumexp(t, 0) if name == "logsumexp"
            else getattr(t, name)())
case("softmin", lambda t: t.softmin(1), x(), theirs=lambda t: F.softmin(t, 1))
variant("softmax along 0", lambda t: t.softmax(0), x(), theirs=lambda t: t.softmax(0))
variant("softmax of halves", lambda t: t.softmax(1), x().astype(np.float16),
        theirs=lambda t: t.softmax(1), rtol=3e-3, atol=1e-3)
variant("softmax with infinities", lambda t: t.softmax(1), np.array([[-np.inf, 1, 2]], np.float32),
        theirs=lambda t: t.softmax(1), gradient=False)
variant("argmax of all", lambda t: t.argmax(), x(), gradient=False,
        theirs=lambda t: t.argmax().to(torch.int32))
variant("argmax kept", lambda t: t.argmax(0, keepdim=True), x(), gradient=False,
        theirs=lambda t: t.argmax(0, keepdim=True).to(torch.int32))
variant("normalize by 3-norm", lambda t: t.normalize(3, 0), x(0.1, 2),
        theirs=lambda t: F.normalize(t, 3, 0))

# ---- running functions ----
variant("cumsum along 0", lambda t: t.cumsum(0), x())
variant("cumsum of integers", lambda t: t.cumsum(1), integers(5, 37, dtype="int64"), gradient=False)
variant("cumsum in blocks", lambda t: t.cumsum(0), floats(600), atol=1e-4)
case("cumprod", lambda t: t.cumprod(1), x(0.5, 1.5))
variant("cumprod with a zero", lambda t: t.cumprod(0), np.array([2, 0, 3, 4], np.float32))
variant("cumprod in blocks", lambda t: t.cumprod(0), floats(600, low=0.99, high=1.01))
case("cummax", lambda t: t.cummax(1), x(), theirs=lambda t: positions(t.cummax(1)))
case("cummin", lambda t: t.cummin(0), x(), theirs=lambda t: positions(t.cummin(0)))
variant("cummax of integers", lambda t: t.cummax(0)[0], integers(300), gradient=False)
variant("cummax of special values", lambda t: t.cummax(0)[0], SPECIAL, gradient=False)
variant("cummin of special values", lambda t: t.cummin(0)[0], SPECIAL, gradient=False)
case("logcumsumexp", lambda t: t.logcumsumexp(1), x(-9, 9))
variant("logcumsumexp in blocks", lambda t: t.logcumsumexp(0), floats(600, low=-9, high=9))
case("diff", lambda t: t.diff(2, 1), x())
variant("diff of bools", lambda t: (t > 0).diff(), x(), gradient=False)

# ---- order ----
def _sorted(t: Any, dim: int = -1, descending: bool = False) -> Any:
    return positions(torch.sort(t, dim=dim, descending=descending, stable=True))


case("sort", lambda t: t.sort(1), x(), theirs=_sorted)
case("argsort", lambda t: t.argsort(0, True), x(), theirs=lambda t: _sorted(t, 0, True)[1],
     gradient=False)
variant("sort along 0", lambda t: t.sort(0, descending=True), x(),
        theirs=lambda t: _sorted(t, 0, True))
for _down in (False, True):
    variant(f"sort of special values, {'down' if _down else 'up'}",
            lambda t, d=_down: t.sort(0, d), np.concatenate((SPECIAL, SPECIAL)),
            theirs=lambda t, d=_down: _sorted(t, 0, d), gradient=False)
    for _dtype in ("bool", "uint8", "int64", "float16", "float64"):
        variant(f"sort of {_dtype}, {'down' if _down else 'up'}",
                lambda t, d=_down: t.sort(1, d), integers(3, 40, low=0, dtype=_dtype),
                theirs=lambda t, d=_down: _sorted(t, 1, d), gradient=False)
variant("sort in blocks", lambda t: t.sort(), integers(2, 600, low=-99, high=99), theirs=_sorted,
        gradient=False)
case("msort", lambda t: t.msort(), x())
case("topk", lambda t: t.topk(4, 1), x(), theirs=lambda t: positions(t.topk(4, 1)))
variant("topk of the least", lambda t: t.topk(2, 0, largest=False), x(),
        theirs=lambda t: positions(t.topk(2, 0, largest=False)))
case("kthvalue", lambda t: t.kthvalue(9, 1), x(), theirs=lambda t: positions(t.kthvalue(9, 1)))
case("median", lambda t: t.median(1), x(), theirs=lambda t: positions(t.median(1)))
variant("median of all", lambda t: t.median(), x())
variant("median with NaN", lambda t: t.median(), SPECIAL, gradient=False)
for _mode in ("linear", "lower", "higher", "nearest", "midpoint"):
    variant(f"quantile {_mode}", lambda t, m=_mode: t.quantile(0.3, 1, interpolation=m), x())
case("quantile", lambda t: t.quantile(0.7), x(), gradient=False)
case("unique", lambda t: t.unique(return_inverse=True, return_counts=True), integers(5, 37),
     theirs=lambda t: [r if i == 0 else r.to(torch.int32) for i, r in enumerate(
         t.unique(return_inverse=True, return_counts=True))], gradient=False)
