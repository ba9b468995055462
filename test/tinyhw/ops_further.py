"""The op table: gamma, divisors, windows as columns, grids, searches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from test.tinyhw.compare import floats, integers, torch
from test.tinyhw.op_table import SPECIAL, F, case, method, rare, variant, x
from tinyhw import Tensor

# ---- gamma ----
_AROUND = np.concatenate([np.linspace(0.05, 12, 96), [1, 2, 1.4616, 30, 1e6], -floats(84, low=0.01,
                          high=6)]).astype(np.float32)  # fmt: skip
for _name in ("lgamma", "digamma"):
    method(_name, _AROUND, rtol=6e-5, variant=True)
    variant(f"{_name} of doubles", lambda t, n=_name: getattr(t, n)(), _AROUND.astype(np.float64),
            rtol=1e-10, gradient=False)
    variant(f"{_name} of special values", lambda t, n=_name: getattr(t, n)(),
            np.concatenate([SPECIAL, [-2, -1e30, 1e30]]).astype(np.float32), gradient=False)
    variant(f"{_name} of integers", lambda t, n=_name: getattr(t, n)(), integers(9, low=1),
            gradient=False)
variant("erfinv", lambda t: t.erfinv(), x(-0.999, 0.999))
variant("erfinv at the ends", lambda t: t.erfinv(),
        np.array([1, -1, 1.5, math.nan, 0, 0.999999, -0.9999999], np.float32), gradient=False)
for _name in ("psi", "gammaln", "expit"):
    rare(_name, lambda t, n=_name: getattr(t, n)(), x(0.5, 3),
         theirs=lambda t, n=_name: getattr(torch.special, n)(t), rtol=6e-5, gradient=False)

# ---- divisors ----
_SIX = integers(5, 37, low=-30, high=31)
for _name in ("gcd", "lcm"):
    variant(_name, lambda a, b, n=_name: getattr(a, n)(b), _SIX, integers(5, 37, low=-12, high=13,
         seed=1), gradient=False)
    for _kind, _low, _high in (
        ("int8", -128, 128), ("uint8", 0, 256), ("int64", -(1 << 40), 1 << 40),
    ):  # fmt: skip
        _add = variant if _kind == "int8" else rare
        _add(f"{_name} of {_kind}", lambda a, b, n=_name: getattr(a, n)(b),
             integers(99, low=max(_low, -99), high=min(_high, 99), dtype=_kind),
             integers(99, low=_low, high=_high, dtype=_kind, seed=1), gradient=False)
variant("gcd with a number", lambda a: a.gcd(12), _SIX, gradient=False,
        theirs=lambda a: a.gcd(torch.tensor(12)))

# ---- windows as columns ----
_IMAGE = floats(2, 3, 7, 9)
_WINDOWS: tuple[tuple[str, int, dict[str, Any]], ...] = (  # and how many windows there are
    ("plain", 5 * 8, {}), ("strided", 3 * 4, {"stride": 2}),
    ("dilated and padded", 7 * 11, {"dilation": 2, "padding": 2}),
    ("of two sides", 3 * 7, {"stride": (3, 1), "padding": (1, 0), "dilation": (1, 2)}),
)  # fmt: skip
for _label, _count, _options in _WINDOWS:
    _columns = floats(2, 3 * 3 * 2, _count, seed=1)
    _add = case if _label == "plain" else variant
    variant(f"im2col {_label}", lambda t, o=_options: t.im2col((3, 2), **o), _IMAGE,
          theirs=lambda t, o=_options: F.unfold(t, (3, 2), **o))
    _add(f"fold {_label}", lambda t, o=_options: t.fold((7, 9), (3, 2), **o), _columns,
         theirs=lambda t, o=_options: F.fold(t, (7, 9), (3, 2), **o))
variant("fold without a batch", lambda t: t.fold((4, 4), 2, stride=2), floats(12, 4),
        theirs=lambda t: F.fold(t, (4, 4), 2, stride=2))

# ---- grids ----
_GRID = floats(2, 4, 5, 2, low=-1.4, high=1.4, seed=3)
for _mode in ("bilinear", "nearest", "bicubic"):
    for _padding in ("zeros", "border", "reflection"):
        for _align in (False, True):
            _options = {"mode": _mode, "padding_mode": _padding, "align_corners": _align}
            _plain = _padding == "zeros"
            _often = {"bilinear": not _align, "nearest": _plain, "bicubic": _align and _plain}
            _add = variant if _often[_mode] else rare
            _add(f"grid_sample {_mode} {_padding} {'aligned' if _align else 'not aligned'}",
                 lambda t, g, o=_options: t.grid_sample(g, **o), floats(1, 2, 5, 6), _GRID[:1],
                 theirs=lambda t, g, o=_options: F.grid_sample(t, g, **o), rtol=1e-4, atol=2e-5,
                 gradient=_mode == "bilinear" or (_mode, _padding) == ("bicubic", "reflection"))
variant("grid_sample nearest of images alone", lambda t: t.grid_sample(
            Tensor(_GRID, device=t.device), "nearest"), floats(2, 3, 5, 6),
        theirs=lambda t: F.grid_sample(t, torch.tensor(_GRID), "nearest", align_corners=False))
# Of "nearest" the grid has no gradient, in PyTorch zeros; that of "bicubic" is long to compile.
for _mode in ("bilinear", "nearest"):
    rare(f"grid_sample in space {_mode}", lambda t, g, m=_mode: t.grid_sample(g, m, "border"),
         floats(1, 2, 3, 4, 5), floats(1, 2, 3, 4, 3, low=-1.2, high=1.2, seed=4),
         theirs=lambda t, g, m=_mode: F.grid_sample(t, g, m, "border", align_corners=False),
         rtol=1e-4, atol=2e-5, gradient=_mode != "nearest")
for _align in (False, True):
    variant(f"affine_grid {'aligned' if _align else 'not aligned'}",
            lambda t, a=_align: t.affine_grid((2, 3, 4, 5), a), floats(2, 2, 3),
            theirs=lambda t, a=_align: F.affine_grid(t, [2, 3, 4, 5], a))
variant("affine_grid in space", lambda t: t.affine_grid((2, 1, 3, 4, 5)), floats(2, 3, 4),
        theirs=lambda t: F.affine_grid(t, [2, 1, 3, 4, 5], False))

# ---- searches ----
_SORTED = np.sort(integers(5, 11, low=0, high=9).astype(np.float32), axis=-1)
_WANTED = integers(5, 37, low=-1, high=10).astype(np.float32)
_whole: dict[str, Any] = {"gradient": False}
for _right in (False, True):
    _label = "right" if _right else "left"
    variant(f"searchsorted rows {_label}", lambda s, v, r=_right: s.searchsorted(v, r), _SORTED,
            _WANTED, **_whole, theirs=lambda s, v, r=_right: torch.searchsorted(
                s, v, right=r, out_int32=True))
    variant(f"bucketize {_label}", lambda v, b, r=_right: v.bucketize(b, r), _WANTED, _SORTED[0],
            **_whole, theirs=lambda v, b, r=_right: torch.bucketize(v, b, right=r, out_int32=True))
variant("searchsorted", lambda s, v: s.searchsorted(v), _SORTED[0], _WANTED, **_whole,
     theirs=lambda s, v: torch.searchsorted(s, v, out_int32=True))
variant("isin", lambda t, u: t.isin(u), integers(5, 37), integers(4, 2, seed=1), **_whole,
     theirs=torch.isin)
variant("isin inverted", lambda t, u: t.isin(u, invert=True), integers(5, 37), integers(3, seed=1),
        **_whole, theirs=lambda t, u: torch.isin(t, u, invert=True))
variant("histc", lambda t: t.histc(9, -1, 1.5), x(), **_whole)
variant("histc of all", lambda t: t.histc(7), x(), **_whole)
variant("histc of one value", lambda t: t.histc(4), np.full(5, 2.0, np.float32), **_whole)
_REPEATS = np.repeat(integers(9, low=0, high=3), [1, 2, 3, 1, 4, 1, 2, 2, 1])
variant("unique_consecutive", lambda t: t.unique_consecutive(), _REPEATS, **_whole)
variant("unique_consecutive with the rest", lambda t: t.unique_consecutive(True, True), _REPEATS,
        **_whole, theirs=lambda t: tuple(
            found.to(torch.int32) for found in t.unique_consecutive(True, True)))
for _p in (1, 2, 3.5):
    variant(f"renorm {_p}", lambda t, p=_p: t.renorm(p, 0, 4.0), x())
for _unbiased in (True, False):
    variant(f"var and std, unbiased={_unbiased}", lambda t, u=_unbiased: (
        t.var(dim=1, unbiased=u), t.std(dim=0, unbiased=u)), x())
variant("round to decimals", lambda t: (t.round(decimals=2), (t * 99).round(decimals=-1)), x(),
        gradient=False)
variant("quantiles", lambda t: t.quantile([0.1, 0.5], dim=1), x(), gradient=False,
        theirs=lambda t: t.quantile(torch.tensor([0.1, 0.5]), dim=1))
variant("to another type", lambda t, u: (t.to(u).H, t.to(dtype=u.dtype)), x(),
        x().astype("float64"))
_SOME = np.where(x(seed=5) > 0.5, np.nan, x(seed=6).round(1)).astype(np.float32)
_SOME[1] = np.nan
variant("mode and what stands where it is", lambda t: (t.mode(1)[0], t.gather(
            1, t.mode(1, keepdim=True)[1])), integers(5, 37), **_whole,
        theirs=lambda t: (t.mode(1)[0], t.mode(1, keepdim=True)[0]))
variant("mode along the first axis", lambda t: t.mode(0, keepdim=True)[0], x().round(), **_whole,
        theirs=lambda t: t.mode(0, keepdim=True)[0])
variant("nanmedian", lambda t: (t.nanmedian(1, keepdim=True)[0], t.nanmedian()), _SOME, **_whole,
        theirs=lambda t: (t.nanmedian(1, keepdim=True)[0], t.nanmedian()))
for _how in ("linear", "lower", "higher", "midpoint"):
    variant(f"nanquantile {_how}", lambda t, h=_how: t.nanquantile(0.3, 1, interpolation=h), _SOME,
            **_whole)
variant("nanquantile of all", lambda t: t.nanquantile([0.25, 0.5]), _SOME, **_whole,
        theirs=lambda t: t.nanquantile(torch.tensor([0.25, 0.5])))
for _how in ("prod", "mean", "amax", "amin"):
    variant(f"index_reduce {_how}", lambda t, i, s, h=_how: t.index_reduce(
                0, i, s, h, include_self=h != "mean"), x(), np.array([0, 3, 0, 4, 3]), x(seed=2),
            gradient=False)
variant("conj and real", lambda t: t.conj().real * 2, x())
variant("nonzero_static", lambda t: t.nonzero_static(size=9), integers(3, 4, low=0, high=2),
        gradient=False, theirs=lambda t: t.nonzero_static(size=9).int())
