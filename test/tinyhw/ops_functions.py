"""The op table: functions of one element, operators, bits, types."""

from __future__ import annotations

import numpy as np

from test.tinyhw.compare import floats, integers, torch
from test.tinyhw.op_table import F, case, method, specials, variant, x
from tinyhw import dtypes

# ---- functions of one tensor ----
for _name, _low, _high in (
    ("neg", -2, 2), ("abs", -2, 2), ("square", -2, 2), ("sqrt", 0.1, 4), ("rsqrt", 0.1, 4),
    ("reciprocal", 0.3, 4), ("exp", -3, 3), ("exp2", -3, 3), ("log", 0.01, 9), ("log2", 0.01, 9),
    ("log10", 0.01, 9), ("log1p", -0.9, 2), ("sin", -9, 9), ("cos", -9, 9), ("tan", -1.2, 1.2),
    ("sinh", -3, 3), ("cosh", -3, 3), ("trunc", -4, 4), ("floor", -4, 4), ("ceil", -4, 4),
    ("round", -4, 4), ("erf", -3, 3), ("relu", -2, 2), ("sigmoid", -6, 6), ("tanh", -4, 4),
):  # fmt: skip
    method(_name, x(_low, _high))
for _name in ("silu", "mish", "softplus", "logsigmoid", "elu", "celu", "selu", "leaky_relu",
              "relu6", "hardswish", "hardsigmoid", "hardtanh", "softsign"):  # fmt: skip
    method(_name, x(-5, 5), theirs=getattr(F, _name))
method("sign", x(), gradient=False)
method("swish", x(-5, 5), theirs=F.silu)
method("gelu", x(-4, 4), theirs=lambda t: F.gelu(t, approximate="tanh"))
method("quick_gelu", x(-4, 4), theirs=lambda t: t * torch.sigmoid(1.702 * t))
case("clamp", lambda t: t.clamp(-1, 0.5), x())
case("clip", lambda t: t.clip(-1, 1), x())
case("isnan", lambda t: (t / t).isnan(), np.array([0.0, 1, np.inf], np.float32), gradient=False)
case("isinf", lambda t: (1 / t).isinf(), np.array([0.0, 1, -0.0], np.float32), gradient=False)
case("isfinite", lambda t: (1 / t).isfinite(), np.array([0.0, 1, np.inf], np.float32),
     gradient=False)

for _name, _low, _high in (
    ("asin", -0.95, 0.95), ("acos", -0.95, 0.95), ("atan", -9, 9), ("asinh", -9, 9),
    ("acosh", 1.05, 9), ("atanh", -0.95, 0.95), ("expm1", -1, 3), ("erfc", -2, 3),
    ("logit", 0.05, 0.95), ("frac", -4, 4), ("deg2rad", -400, 400),
    ("rad2deg", -7, 7),
):  # fmt: skip
    method(_name, x(_low, _high), theirs=getattr(torch, _name), atol=2e-5)
method("sinc", x(0.1, 0.9))
method("signbit", x(), gradient=False)
case("nan_to_num", lambda t: (1 / t).nan_to_num(7), np.array([0.0, 1, -0.0, np.nan], np.float32),
     gradient=False)
variant("logit with eps", lambda t: t.logit(0.1), x(0.02, 0.98))
variant("gelu exact", lambda t: t.gelu(approximate="none"), x(-4, 4), theirs=F.gelu)
for _name, _low in (("softshrink", -2), ("hardshrink", -2), ("tanhshrink", -2), ("glu", -2)):
    method(_name, floats(5, 36, low=_low), theirs=getattr(F, _name))
case("threshold", lambda t: t.threshold(0.3, 7), x(), theirs=lambda t: F.threshold(t, 0.3, 7))
case("prelu", lambda t, w: t.prelu(w), floats(2, 3, 7), floats(3, low=0.1, seed=1), theirs=F.prelu)
variant("prelu of one weight", lambda t, w: t.prelu(w), x(), floats(1, low=0.1, seed=1),
        theirs=F.prelu)
variant("leaky_relu with a slope", lambda t: t.leaky_relu(0.3), x(),
        theirs=lambda t: F.leaky_relu(t, 0.3))
variant("elu with alpha", lambda t: t.elu(1.5), x(), theirs=lambda t: F.elu(t, 1.5))
variant("celu with alpha", lambda t: t.celu(1.5), x(), theirs=lambda t: F.celu(t, 1.5))
variant("softplus with beta", lambda t: t.softplus(2.0), x(), theirs=lambda t: F.softplus(t, 2.0))
variant("hardtanh with bounds", lambda t: t.hardtanh(-0.5, 1.5), x(),
        theirs=lambda t: F.hardtanh(t, -0.5, 1.5))

# ---- functions of two and three ----
for _name in ("atan2", "logaddexp", "logaddexp2", "hypot"):
    method(_name, x(), x(seed=1), theirs=getattr(torch, _name))
method("xlogy", x(), x(0.1, 3, seed=1))
method("heaviside", x(), x(seed=1), gradient=False)
method("ldexp", x(), x(seed=1), theirs=lambda a, b: torch.ldexp(a, b))
case("float_power", lambda a, b: a.float_power(b), x(0.2, 2), x(seed=1), gradient=False)
for _name in ("add", "sub", "mul", "maximum", "minimum"):
    method(_name, x(), x(seed=1))
method("copysign", x(), x(seed=1), gradient=False)
method("div", x(), x(0.5, 2, seed=1))
method("pow", x(0.2, 2), x(-2, 2, seed=1))
method("fmod", x(-9, 9), x(0.5, 2, seed=1), gradient=False)
case("mod", lambda a, b: a % b, x(-9, 9), x(0.5, 2, seed=1), gradient=False)
case("idiv", lambda a, b: a // b, integers(5, 37, low=-99, high=99),
     integers(5, 37, low=1, high=9, seed=1), gradient=False)
case("lerp", lambda a, b: a.lerp(b, 0.3), x(), x(seed=1))
for _name in ("eq", "ne"):
    method(_name, integers(5, 37, high=2), integers(5, 37, high=2, seed=1), gradient=False)
case("less by an operator", lambda a, b: a < b, x(), x(seed=1), gradient=False)
case("greater or equal", lambda a, b: a >= b, x(), x(seed=1), gradient=False)
case("where", lambda c, a, b: (c > 0).where(a, b), x(), x(seed=1), x(seed=2),
     theirs=lambda c, a, b: torch.where(c > 0, a, b))
case("masked_fill", lambda t: t.masked_fill(t > 0.5, -1), x())
case("isclose", lambda a, b: a.isclose(b), x(), x() + np.float32(1e-9), gradient=False)
case("broadcast", lambda a, b: a + b, floats(5, 1), floats(37))
case("one tensor with numbers", lambda t: 2 - t * 3 + 1 / (t + 5), x())

# ---- integers and bits ----
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    method(_name, integers(5, 37), integers(5, 37, seed=1), gradient=False)
method("bitwise_not", integers(5, 37), gradient=False)
for _name in ("logical_and", "logical_or"):
    method(_name, integers(5, 37, low=0, high=2), integers(5, 37, low=0, high=2, seed=1),
           gradient=False)
method("logical_not", integers(5, 37, low=0, high=2), gradient=False)
case("lshift", lambda a: a << 3, integers(5, 37), gradient=False)
case("rshift", lambda a: a >> 2, integers(5, 37), gradient=False)
for _dtype in ("int8", "uint8", "int16", "int32", "int64", "uint16", "uint32", "uint64"):
    _low = 0 if _dtype[0] == "u" else -9
    case(f"arithmetic of {_dtype}", lambda a, b: a * b + a - b,
         integers(5, 37, low=9, high=11, dtype=_dtype),
         integers(5, 37, low=_low, high=9, dtype=_dtype, seed=1), gradient=False,
         theirs=lambda a, b: torch.tensor(a.numpy() * b.numpy() + a.numpy() - b.numpy()))

# ---- division, remainders and shifts in every rounding ----
_TOP, _BY = integers(5, 37, low=-99, high=99), integers(5, 37, low=1, high=9, seed=1)
_BY = (_BY * np.where(integers(5, 37, seed=2) > 0, 1, -1)).astype(np.int32)
for _mode in ("trunc", "floor"):
    variant(f"div of integers, {_mode}", lambda a, b, m=_mode: a.div(b, rounding_mode=m), _TOP, _BY,
            gradient=False)
    variant(f"div of floats, {_mode}", lambda a, b, m=_mode: a.div(b, rounding_mode=m), x(-9, 9),
            x(seed=1), gradient=False)
variant("div of integers", lambda a, b: a / b, _TOP, _BY)
variant("mod of integers", lambda a, b: a % b, _TOP, _BY)
variant("mod of floats", lambda a, b: a % b, x(-9, 9), x(seed=1), gradient=False)
variant("fmod of integers", lambda a, b: a.fmod(b), _TOP, _BY)
variant("mod by a number", lambda t: t % -7, _TOP)
variant("idiv by a number", lambda t: t // -7, _TOP)
variant("number divided", lambda t: 99 // t + 99 % t, _BY)
variant("pow of integers", lambda t: t**3, _TOP)
variant("pow by integers", lambda a, b: a**b, integers(5, 37, low=-4, high=5),
        integers(5, 37, low=0, high=9, seed=1))
variant("number to a power", lambda t: 2**t, x())
for _power in (0, 1, 2, 3, -1, -2, 0.5, -0.5, 2.5):
    variant(f"pow {_power}", lambda t, p=_power: t**p, x(0.3, 2), gradient=_power != 0)
for _dtype in ("uint8", "int8", "int64"):
    for _name, _shift in (("left", lambda a, b: a << b), ("right", lambda a, b: a >> b)):
        variant(f"shift {_name} of {_dtype}", _shift,
                integers(5, 37, low=0, high=120, dtype=_dtype),
                integers(5, 37, low=0, high=8, dtype=_dtype, seed=1), gradient=False)
variant("shift of unsigned by more than they have", lambda t: t >> 8,
        integers(5, 37, low=0, high=256, dtype="uint8"), gradient=False)
variant("shift of signed by more than they have", lambda t: t >> 40, _TOP, gradient=False,
        theirs=lambda t: t >> 31)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor", "maximum", "minimum", "add", "mul"):
    method(_name, *(integers(5, 37, low=0, high=2, dtype="bool", seed=i) for i in (0, 1)),
           label=f"{_name} of bools", variant=True, gradient=False)
for _a, _b in (("bool", "int8"), ("uint8", "int8"), ("int32", "int64"), ("int64", "float32"),
               ("float16", "float32"), ("float32", "float64"), ("int32", "float16")):
    variant(f"{_a} plus {_b}", lambda a, b: a + b, integers(5, 7, low=0, high=2, dtype=_a),
            integers(5, 7, low=0, high=9, dtype=_b, seed=1), gradient=False)

# ---- types ----
for _to in ("float16", "float64", "int8", "int32", "int64", "uint8", "bool"):
    case(f"cast to {_to}",
         lambda t, to=_to: t.cast(to), floats(5, 37, low=0.5, high=99),
         theirs=lambda t, to=_to: t.to(getattr(torch, to)), gradient=False)
case("cast to bfloat16", lambda t: t.cast(dtypes.bfloat16).cast(dtypes.float32), x(),
     theirs=lambda t: t.bfloat16().float(), gradient=False)
case("bitcast", lambda t: t.bitcast(dtypes.int32), x(), gradient=False,
     theirs=lambda t: t.view(torch.int32))
for _wide in ("uint8", "int16", "float64"):
    variant(f"bitcast to {_wide}", lambda t, d=_wide: t.bitcast(d).cast("float64"),
            floats(3, 2, 4), theirs=lambda t, d=_wide: t.view(getattr(torch, d)).double(),
            gradient=False)
for _name, _type in (("half", "float16"), ("float", "float32"), ("double", "float64"),
                     ("int", "int32"), ("long", "int64"), ("short", "int16"),
                     ("bool", "bool")):  # fmt: skip
    method(_name, floats(5, 37, low=0, high=99), gradient=False,
           theirs=lambda t, to=_type: t.to(getattr(torch, to)))
case("bfloat16", lambda t: t.bfloat16().float(), x(), gradient=False)
case("arithmetic of halves", lambda a, b: a * b + a, x().astype(np.float16),
     x(seed=1).astype(np.float16), rtol=2e-3, atol=2e-3)
case("arithmetic of doubles", lambda a, b: (a * b + a).exp(), x().astype(np.float64),
     x(seed=1).astype(np.float64), rtol=1e-12, atol=1e-12)

# ---- special values ----
specials("exp", "exp2", "log", "log2", "sqrt", "abs", "neg", "trunc", "floor", "ceil", "round",
         "relu", "sigmoid", "tanh", "reciprocal")
specials("asin", "acos", "atan", "asinh", "acosh", "atanh", "expm1", "log1p", "erf", "erfc",
         "logit", "signbit", "nan_to_num", "sign", "square", "rsqrt", "log10")
specials("atan2", "logaddexp", "logaddexp2", "hypot", "xlogy", "heaviside", "copysign", "div",
         operands=2)
specials("add", "mul", "maximum", "minimum", "pow", operands=2)
_ANY = np.random.default_rng(5).integers(0, 1 << 32, 4000, dtype=np.uint32).view(np.float32)
case("division of any floats", lambda a, b: a / b, _ANY, np.ascontiguousarray(_ANY[::-1]),
     gradient=False, rtol=2e-7, atol=0)
