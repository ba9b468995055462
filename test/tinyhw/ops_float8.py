"""The op table: the 8-bit floats, whose arithmetic is float32's with every result rounded.

PyTorch stores and casts them but computes little with them: the expected values are those of its
float32, cast. A NaN's bits are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.dtype import DType, dtypes
from test.tinyhw.compare import Array, floats, integers, torch
from test.tinyhw.op_table import case, rare, variant

_CODES = np.arange(256, dtype=np.uint8)


def _decoded(dtype: DType) -> Array:
    """The values of all codes (OCP 8-bit Floating Point Specification, section 5)."""
    fraction_bits, bias = (3, 7) if dtype.name == "float8_e4m3fn" else (2, 15)
    code = _CODES.astype(np.int64)
    exponent, fraction = (code & 0x7F) >> fraction_bits, code & (1 << fraction_bits) - 1
    whole = fraction + np.where(exponent, 1 << fraction_bits, 0)
    values = np.ldexp(whole.astype(np.float64), np.maximum(exponent, 1) - bias - fraction_bits)
    if dtype.has_infinity:
        values[exponent == 31] = np.where(fraction[exponent == 31], np.nan, np.inf)
    else:
        values[code & 0x7F == 0x7F] = np.nan
    return np.where(code >> 7, -values, values)


def _values(dtype: DType) -> Array:
    """Every value of the type, what lies half-way between two and next to that, and beyond."""
    known = _decoded(dtype)
    known = np.unique(known[np.isfinite(known)])
    ties = (known[1:] + known[:-1]) / 2
    beyond = [464, 465, 479, 480, 500, 1e5, 61439, 61440, 61441, 65536, 1e30, math.inf, math.nan,
              1e-40, 0.0]  # fmt: skip
    near = [ties * (1 + 2.0**-20), ties * (1 - 2.0**-20), ties * (1 + 2.0**-50)]
    return np.concatenate([known, ties, *near, beyond, np.negative(beyond)])


def _rows(dtype: DType) -> None:
    theirs, name = getattr(torch, dtype.name), dtype.name
    wide = _values(dtype).astype(np.float32)
    with np.errstate(over="ignore"):
        half = _values(dtype).astype(np.float16)
    plain: dict[str, Any] = {"gradient": False, "rtol": 0, "atol": 0}

    def narrow(t: Any) -> Any:
        return t.cast(dtype).float()

    def theirs_narrow(t: Any) -> Any:
        return t.to(theirs).float()

    case(f"{name} of every code", lambda t: t.bitcast(dtype).float(), _CODES,
         theirs=lambda t: t.view(theirs).float(), **plain)
    case(f"float32 to {name}", narrow, wide, theirs=theirs_narrow, **plain)
    variant(f"float64 to {name}", narrow, _values(dtype), theirs=theirs_narrow, **plain)
    variant(f"float16 to {name}", narrow, half, theirs=theirs_narrow, **plain)
    variant(f"bfloat16 to {name}", lambda t: narrow(t.bfloat16()), wide,
            theirs=lambda t: theirs_narrow(t.bfloat16()), **plain)
    for kind in ("int8", "uint8", "int32", "int64"):
        given = integers(999, low=0 if kind == "uint8" else -120, high=120, dtype=kind)
        given = given * np.array(1000 if given.itemsize > 1 else 1, kind)
        variant(f"{kind} to {name}", narrow, given, theirs=theirs_narrow, **plain)
    finite = _CODES[np.isfinite(_decoded(dtype))]
    for kind in ("bool", "int16", "int32", "int64", "float16", "bfloat16", "float64"):
        back = kind == "bfloat16"  # NumPy has none
        variant(f"{name} to {kind}", lambda t, k=kind, b=back: _read(t.bitcast(dtype).cast(k), b),
                finite, theirs=lambda t, k=kind, b=back: _read(
                    t.view(theirs).to(getattr(torch, k)), b), **plain)

    def rounded(operation: Callable[..., Any]) -> Callable[..., Any]:
        """PyTorch's float32 of 8-bit operands, cast."""
        return lambda *given: theirs_narrow(operation(*(theirs_narrow(t) for t in given)))

    x, y = floats(5, 37, low=-9, high=9), floats(5, 37, low=0.2, high=5, seed=1)
    for label, operation in (
        ("sum", lambda a, b: a + b), ("difference", lambda a, b: a - b),
        ("product", lambda a, b: a * b), ("quotient", lambda a, b: a / b),
        ("maximum", lambda a, b: a.maximum(b)), ("square root", lambda a, b: b.sqrt()),
        ("trunc", lambda a, b: a.trunc()), ("exp2", lambda a, b: a.exp2()),
        ("log2", lambda a, b: b.log2()), ("choice", lambda a, b: (a < b).where(a, b)),
        ("exp", lambda a, b: a.exp()), ("log", lambda a, b: b.log()), ("sin", lambda a, b: a.sin()),
        ("cos", lambda a, b: a.cos()), ("sigmoid", lambda a, b: a.sigmoid()),
        ("softmax", lambda a, b: a.softmax(1)), ("power", lambda a, b: b ** 2.5),
    ):  # fmt: skip
        reference = operation
        if label == "choice":
            reference = lambda a, b: torch.where(a < b, a, b)  # noqa: E731
        # The last bit of a function in float32 may decide on which side of a tie it lies.
        tolerance = 0.0 if label in _EXACT else 2.0 ** (-3 if dtype is dtypes.fp8e4m3 else -2)
        often = dtype is dtypes.fp8e4m3 or label in ("sum", "exp")
        add = variant if often else rare
        add(f"{label} of {name}", lambda a, b, f=operation: f(a.cast(dtype), b.cast(dtype)).float(),
            x, y, theirs=rounded(reference), gradient=False, atol=0, rtol=tolerance)
    variant(f"{name} comparisons", lambda a, b: (a.cast(dtype) < b.cast(dtype)), x, y,
            theirs=lambda a, b: theirs_narrow(a) < theirs_narrow(b), gradient=False)
    for label, reduction in (
        ("sum", lambda t: t.sum(1)), ("mean", lambda t: t.mean(1)), ("max", lambda t: t.max(1)),
        ("min", lambda t: t.min(1)),
    ):  # fmt: skip
        method = {"max": "amax", "min": "amin"}.get(label, label)
        variant(f"{label} along rows of {name}", lambda t, f=reduction: f(t.cast(dtype)).float(),
                floats(5, 300), theirs=rounded(lambda t, m=method: getattr(t, m)(1)),
                gradient=False, atol=0, rtol=0)
    variant(f"matrix product of {name}", lambda a, b: (a.cast(dtype) @ b.cast(dtype)).float(),
         floats(7, 19), floats(19, 9, seed=1), theirs=rounded(lambda a, b: a @ b), gradient=False,
         atol=0, rtol=0)
    variant(f"gradient through {name}", lambda t: narrow(t) * 2, floats(5, 37),
            theirs=lambda t: theirs_narrow(t) * 2)


_EXACT = ("sum", "difference", "product", "quotient", "maximum", "square root", "trunc", "choice")


def _read(t: Any, back: bool) -> Any:
    return t.float() if back else t


for _dtype in dtypes.fp8s:
    _rows(_dtype)
