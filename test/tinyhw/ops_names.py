"""The op table: second names of methods, and the small compositions among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from test.tinyhw.compare import floats, integers, torch
from test.tinyhw.op_table import SPECIAL, case, method, variant, x

_HOLES = np.where(x(seed=7) > 1, np.nan, x(seed=8)).astype(np.float32)
_OTHER = x(0.5, 2, seed=1)

# ---- one element ----
for _name in ("absolute", "negative", "arcsin", "arccos", "arctan", "arcsinh", "arctanh", "fix",
              "positive"):  # fmt: skip
    method(_name, x(-0.9, 0.9), variant=True)
method("arccosh", x(1.1, 3), variant=True)
for _name in ("subtract", "multiply", "divide", "true_divide", "arctan2"):
    method(_name, x(), _OTHER, variant=True)
for _name in ("remainder", "floor_divide", "less", "greater", "less_equal", "greater_equal",
              "not_equal", "lt", "gt", "le", "ge"):  # fmt: skip
    method(_name, x(), _OTHER, variant=True, gradient=False)
for _name in ("bitwise_left_shift", "bitwise_right_shift"):
    method(_name, integers(5, 37), integers(5, 37, low=0, high=5, seed=1), variant=True,
           gradient=False)
method("logical_xor", integers(5, 37, low=0, high=2), integers(5, 37, low=0, high=2, seed=1),
       gradient=False)
method("sgn", x(), gradient=False, variant=True)
case("clamp_min", lambda t: t.clamp_min(0.3), x())
case("clamp_max", lambda t: t.clamp_max(0.3), x())
variant("clamp by keywords", lambda t: t.clamp(min=-0.5, max=0.5), x())
variant("clamp by tensors", lambda t, a, b: t.clamp(a, b), x(), x(-1, 0, seed=1), x(0, 1, seed=2))
for _name in ("fmax", "fmin"):
    method(_name, SPECIAL[:, None], SPECIAL, gradient=False)
case("addcmul", lambda t, a, b: t.addcmul(a, b, value=0.5), x(), x(seed=1), x(seed=2))
case("addcdiv", lambda t, a, b: t.addcdiv(a, b, value=0.5), x(), x(seed=1), _OTHER)
for _name in ("isposinf", "isneginf"):
    method(_name, SPECIAL, gradient=False)
variant("leaky_relu by keyword", lambda t: t.leaky_relu(negative_slope=0.2), x(),
        theirs=lambda t: torch.nn.functional.leaky_relu(t, negative_slope=0.2))
case("allclose", lambda a, b: a.allclose(b), x(), x() + np.float32(1e-9), gradient=False,
     theirs=lambda a, b: torch.tensor(torch.allclose(a, b)))
case("usum", lambda a, b, c: a.usum(b, c), x(), x(seed=1), x(seed=2), theirs=lambda *t: sum(t))
case("uprod", lambda a, b, c: a.uprod(b, c), x(), x(seed=1), x(seed=2),
     theirs=lambda a, b, c: a * b * c)

# ---- types and shapes ----
case("type_as", lambda a, b: a.type_as(b), x(), integers(3), gradient=False)
for _name in ("byte", "char"):
    method(_name, floats(5, 37, low=0, high=99), gradient=False)
for _name, _call in (
    ("swapaxes", lambda t: t.swapaxes(0, 2) * 2), ("swapdims", lambda t: t.swapdims(0, 1) * 2),
    ("moveaxis", lambda t: t.moveaxis(0, -1) * 2), ("mT", lambda t: t.mT * 2),
    ("adjoint", lambda t: t.adjoint() * 2), ("ravel", lambda t: t.ravel() * 2),
    ("tile", lambda t: t.tile(2, 3) * 2), ("tile of more axes", lambda t: t.tile((2, 1, 1, 3)) * 2),
    ("split_with_sizes", lambda t: t.split_with_sizes((1, 3), 1)[1] * 2),
    ("sum_to_size", lambda t: t.sum_to_size(4, 1)), ("fliplr", lambda t: t.fliplr() * 2),
    ("flipud", lambda t: t.flipud() * 2), ("hsplit", lambda t: t.hsplit(2)[1] * 2),
    ("vsplit", lambda t: t.vsplit((1, 2))[1] * 2), ("dsplit", lambda t: t.dsplit(5)[1] * 2),
):  # fmt: skip
    variant(_name, _call, floats(3, 4, 5))
variant("t", lambda t: t.t() * 2, x())
variant("broadcast_to", lambda t: t.broadcast_to((5, 37)) * 2, floats(37))
for _name in ("expand_as", "view_as", "reshape_as"):
    variant(_name, lambda t, u, n=_name: getattr(t, n)(u) * u, floats(1, 37), floats(1, 37, seed=1))

# ---- reductions ----
for _name in ("amax", "amin", "sum", "mean", "prod", "std", "logsumexp", "softmax", "cumsum",
              "log_softmax"):  # fmt: skip
    variant(f"{_name} by dim", lambda t, n=_name: getattr(t, n)(dim=1), x(0.5, 1.5))
case("aminmax", lambda t: t.aminmax(dim=1), x())
case("count_nonzero", lambda t: t.count_nonzero(1), integers(5, 37, low=0, high=3),
     theirs=lambda t: t.count_nonzero(1).to(torch.int32), gradient=False)
case("nansum", lambda t: t.nansum(1), _HOLES)
case("nanmean", lambda t: t.nanmean(1), _HOLES)
case("dist", lambda a, b: a.dist(b, 3), x(), x(seed=1))
case("cov", lambda t: t.cov(), x())
case("corrcoef", lambda t: t.corrcoef(), x(), rtol=1e-4, atol=1e-5)
case("bincount", lambda t: t.bincount(), integers(37, low=0, high=9),
     theirs=lambda t: t.bincount().to(torch.int32), gradient=False)
case("argwhere", lambda t: t.argwhere(), integers(5, 7, low=0, high=2),
     theirs=lambda t: t.argwhere().to(torch.int32), gradient=False)

# ---- products ----
for _name, *_shapes in (
    ("mm", (5, 7), (7, 3)), ("bmm", (2, 5, 7), (2, 7, 3)), ("mv", (5, 7), (7,)),
    ("vdot", (7,), (7,)), ("ger", (5,), (7,)), ("baddbmm", (2, 5, 3), (2, 5, 7), (2, 7, 3)),
    ("addmv", (5,), (5, 7), (7,)), ("addbmm", (5, 3), (2, 5, 7), (2, 7, 3)),
    ("addr", (5, 7), (5,), (7,)),
):  # fmt: skip
    method(_name, *(floats(*s, seed=i) for i, s in enumerate(_shapes)), variant=True)

# ---- new tensors, and writing ----
case("new_full", lambda t: t.new_full((3, 5), 2.5) + t[0, 0], x())
for _name in ("new_zeros", "new_ones"):
    variant(_name, lambda t, n=_name: getattr(t, n)(3, 5) + t[0, 0], x())


def _writes(name: str, *arguments: Any) -> None:
    def run(t: Any) -> Any:
        new = t.clone()
        getattr(new, name)(*arguments)
        return new

    variant(name, run, x(0.5, 2), gradient=False)


for _name, *_arguments in (
    ("zero_",), ("fill_", 3), ("add_", 2), ("sub_", 2), ("mul_", 3), ("div_", 4), ("clamp_", 0, 1),
    ("sqrt_",), ("exp_",), ("neg_",), ("relu_",), ("pow_", 2), ("tril_",), ("fill_diagonal_", 7),
    ("cumsum_", 1),
):  # fmt: skip
    _writes(str(_name), *_arguments)
variant("copy_", lambda t, s: t.clone().copy_(s), x(), integers(37), gradient=False)
variant("masked_fill_", lambda t, m: t.clone().masked_fill_(m, 2), x(), x(seed=1) > 0,
        gradient=False)
variant("equal", lambda t: t * (t.equal(t) and not t.equal(t[0])), x())
variant("contiguous_backward", lambda t: t.contiguous_backward() * 2, x(), theirs=lambda t: t * 2)
variant("ufix", lambda t: t * t.ufix(3), x(), theirs=lambda t: t * 3)
