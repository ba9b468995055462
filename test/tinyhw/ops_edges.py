"""The op table: empty tensors, tensors without axes, and other float types."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from test.tinyhw.compare import floats, torch
from test.tinyhw.op_table import F, positions, variant

_EDGES = {
    "no elements": np.zeros(0, np.float32),
    "no rows": np.zeros((0, 3), np.float32),
    "no axes": np.array(0.75, np.float32),
}
_NO_PLACES = np.zeros(0, np.int64)

for _label, _x in _EDGES.items():
    for _name in ("neg", "abs", "sqrt", "exp", "log", "sin", "tanh", "floor", "atan", "expm1",
                  "isnan", "flatten", "norm"):  # fmt: skip
        variant(f"{_name} of {_label}", lambda t, n=_name: getattr(t, n)(), _x, gradient=False)
    for _name in ("cumsum", "cumprod", "logcumsumexp", "softmax", "log_softmax", "sum", "prod",
                  "logsumexp"):  # fmt: skip
        variant(f"{_name} along 0 of {_label}", lambda t, n=_name: getattr(t, n)(0), _x)
    for _name in ("sort", "cummax", "cummin"):
        variant(f"{_name} along 0 of {_label}", lambda t, n=_name: getattr(t, n)(0), _x,
                theirs=lambda t, n=_name: positions(getattr(t, n)(0)), gradient=False)
    variant(f"unique of {_label}", lambda t: t.unique(), _x, gradient=False)
    variant(f"masked_select of {_label}", lambda t: t.masked_select(t > 0), _x, gradient=False)
    variant(f"nonzero of {_label}", lambda t: t.nonzero(), _x, gradient=False,
            theirs=lambda t: t.nonzero().int())
    variant(f"repeat of {_label}", lambda t: t.repeat(2, 3) * 2, _x)
    variant(f"mse_loss of {_label}", lambda t: t.mse_loss(t * 2), _x, gradient=False,
            theirs=lambda t: F.mse_loss(t, t * 2))

for _label, _shapes in (
    ("nothing summed", ((3, 0), (0, 4))), ("no rows", ((0, 3), (3, 4))),
    ("nothing summed in a batch", ((2, 3, 0), (2, 0, 4))),
):  # fmt: skip
    variant(f"matmul with {_label}", lambda a, b: a @ b, *(floats(*s) for s in _shapes))
variant("tensordot with nothing summed", lambda a, b: a.tensordot(b, 1), floats(3, 0), floats(0, 4),
        theirs=lambda a, b: torch.tensordot(a, b, 1))
variant("conv2d of no images", lambda t, w: t.conv2d(w), floats(0, 2, 5, 5), floats(3, 2, 3, 3),
        theirs=F.conv2d)
variant("attention of no batch", lambda q: q.scaled_dot_product_attention(q, q), floats(0, 2, 3, 4),
        theirs=lambda q: F.scaled_dot_product_attention(q, q, q), gradient=False)
variant("gather of nothing", lambda t, i: t.gather(0, i), floats(5), _NO_PLACES)
variant("gather without axes", lambda t, i: t.gather(0, i) * 2, _EDGES["no axes"], np.array(0))
variant("scatter without axes", lambda t, i, s: t.scatter(0, i, s), _EDGES["no axes"], np.array(0),
        np.array(2.5, np.float32), gradient=False)
variant("scatter of nothing", lambda t, i, s: t.scatter(0, i, s), floats(5), _NO_PLACES, floats(0),
        gradient=False)
variant("index_add of nothing", lambda t, i, s: t.index_add(0, i, s), floats(5, 3), _NO_PLACES,
        floats(0, 3), gradient=False)
variant("index of nothing", lambda t, i: t[i] * 2, floats(5, 3), _NO_PLACES)
variant("index of one tensor position", lambda t, i: t[i] * 2, floats(5, 3), np.array(-1))
variant("take of one position", lambda t, i: t.take(i), floats(5), np.array(3))


def _call(name: str) -> Any:
    return lambda t: getattr(t, name)()


for _name in ("exp", "log", "sin", "tanh", "atan", "asinh", "expm1", "log1p", "rsqrt", "sigmoid",
              "square", "std"):  # fmt: skip
    variant(f"{_name} of halves", _call(_name), floats(5, 7, low=0.2, high=3).astype(np.float16),
            rtol=4e-3, atol=2e-3)
    variant(f"{_name} of doubles", _call(_name), floats(5, 7, low=0.2, high=3).astype(np.float64),
            rtol=1e-11, atol=1e-12)
variant("bfloat16 in and out", lambda t: ((t.bfloat16() * 3 + 1).exp()).float(), floats(5, 37),
        rtol=2e-2, atol=1e-2, gradient=False)
variant("sums of bfloat16", lambda t: t.bfloat16().sum(1).float(), floats(5, 300), rtol=2e-2,
        atol=1e-2, gradient=False)
_DENORMALS = np.array([1e-45, -1e-45, 1e-40, 5e-39, -1e-38, math.ldexp(1, -126)], np.float32)
for _label, _function in (
    ("sum", lambda t: t + t), ("product", lambda t: t * 0.5), ("maximum", lambda t: t.maximum(0)),
    ("comparison", lambda t: t > 0), ("sign", lambda t: t.sign()), ("abs", lambda t: t.abs()),
    ("quotient", lambda t: t / 2),
):  # fmt: skip
    variant(f"{_label} of denormals", _function, _DENORMALS, gradient=False, rtol=0, atol=0,
            theirs=(lambda t: t.clamp(min=0)) if _label == "maximum" else _function)
