"""Every tensor method once: the table of cases that each device and each emulated board runs.

An `Op` says what to compute in tinyhw and in PyTorch, and of what. The shapes have tails: none
is a multiple of a wave or a vector, so that the last lanes have something to get wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from test.tinyhw.compare import Array, floats, integers, torch
from tinyhw import Tensor, dtypes

F = torch.nn.functional
Function = Callable[..., Any]


@dataclass(frozen=True)
class Op:
    """`ours` of tensors of `inputs` gives what `theirs` gives of torch's tensors."""

    name: str
    ours: Function
    theirs: Function
    inputs: tuple[Array, ...]
    gradient: bool = True
    rtol: float = 3e-5
    atol: float = 5e-6


OPS: list[Op] = []


def case(
    name: str, ours: Function, *inputs: Array, theirs: Function | None = None, **options: Any
) -> None:
    """Adds a case; without `theirs` the same expression is valid in PyTorch."""
    OPS.append(Op(name, ours, theirs or ours, inputs, **options))


def method(name: str, *inputs: Array, theirs: Function | None = None, **options: Any) -> None:
    """Adds the case of a method without arguments, that PyTorch has by the same name."""

    def call(x: Any, *others: Any) -> Any:
        return getattr(x, name)(*others)

    case(name, call, *inputs, theirs=theirs, **options)


def x(low: float = -2, high: float = 2, seed: int = 0) -> Array:
    """A matrix of floats in a domain."""
    return floats(5, 37, low=low, high=high, seed=seed)


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

# ---- functions of two and three ----
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
case("less", lambda a, b: a < b, x(), x(seed=1), gradient=False)
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

# ---- types ----
for _to in ("float16", "float64", "int8", "int32", "int64", "uint8", "bool"):
    case(f"cast to {_to}",
         lambda t, to=_to: t.cast(to), floats(5, 37, low=0.5, high=99),
         theirs=lambda t, to=_to: t.to(getattr(torch, to)), gradient=False)
case("cast to bfloat16", lambda t: t.cast(dtypes.bfloat16).cast(dtypes.float32), x(),
     theirs=lambda t: t.bfloat16().float(), gradient=False)
case("bitcast", lambda t: t.bitcast(dtypes.int32), x(), gradient=False,
     theirs=lambda t: t.view(torch.int32))
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

# ---- shapes ----
case("reshape", lambda t: t.reshape(37, 5) * 2, x())
case("view", lambda t: t.view(1, 185) * 2, x())
case("permute", lambda t: t.permute(2, 0, 1) * 2, floats(3, 4, 5))
case("transpose", lambda t: t.transpose(0, 1) * 2, x())
case("T", lambda t: t.T * 2, x())
case("expand", lambda t: t.expand(5, 37) * 2, floats(1, 37))
case("flip", lambda t: t.flip(1) * 2, x(), theirs=lambda t: t.flip((1,)) * 2)
case("flatten", lambda t: t.flatten() * 2, floats(3, 4, 5))
case("unflatten", lambda t: t.unflatten(1, (4, 5)) * 2, floats(3, 20))
case("squeeze", lambda t: t.squeeze(1) * 2, floats(3, 1, 5))
case("unsqueeze", lambda t: t.unsqueeze(1) * 2, x())
case("pad", lambda t: t.pad(((1, 2), (0, 3))) * 2, x(),
     theirs=lambda t: F.pad(t, (0, 3, 1, 2)) * 2)
case("shrink", lambda t: t.shrink(((1, 4), (2, 30))) * 2, x(), theirs=lambda t: t[1:4, 2:30] * 2)
case("roll", lambda t: t.roll(3, 1) * 2, x())
case("repeat", lambda t: t.repeat(2, 3) * 2, floats(3, 5))
case("repeat_interleave", lambda t: t.repeat_interleave(3, 1) * 2, floats(3, 5))
case("split", lambda t: t.split(20, 1)[1] * 2, x())
case("chunk", lambda t: t.chunk(2, 1)[0] * 2, x())
case("cat", lambda a, b: a.cat(b, dim=1) * 2, x(), x(seed=1),
     theirs=lambda a, b: torch.cat((a, b), 1) * 2)
case("stack", lambda a, b: a.stack(b, dim=1) * 2, x(), x(seed=1),
     theirs=lambda a, b: torch.stack((a, b), 1) * 2)
case("tril", lambda t: t.tril(1) * 2, x())
case("triu", lambda t: t.triu(-1) * 2, x())
case("slices", lambda t: t[1:5:2, ::-3] * 2, x(), theirs=lambda t: t.flip((1,))[1:5:2, ::3] * 2)
case("advanced indexing", lambda t: t[:, [3, 0, 30]] * 2, x())
case("gather", lambda t, i: t.gather(1, i), x(), integers(5, 7, low=0, high=37, dtype="int64"),
     gradient=False)
case("one_hot", lambda i: i.one_hot(9), integers(37, low=0, high=9, dtype="int64"),
     theirs=lambda i: F.one_hot(i, 9).to(torch.int32), gradient=False)
case("contiguous", lambda t: t.T.contiguous() * 2, x())

# ---- products ----
case("matmul", lambda a, b: a.matmul(b), floats(33, 37), floats(37, 41, seed=1), atol=2e-5)
case("matmul of one tile", lambda a, b: a @ b, floats(64, 64), floats(64, 64, seed=1), atol=2e-5)
case("matmul through local memory", lambda a, b: a @ b, floats(130, 150),
     floats(150, 140, seed=1), gradient=False, atol=5e-5)
case("matmul of batches", lambda a, b: a @ b, floats(3, 5, 17), floats(3, 17, 9, seed=1), atol=2e-5)
case("matmul of halves", lambda a, b: a @ b, floats(48, 64).astype(np.float16),
     floats(64, 32, seed=1).astype(np.float16), gradient=False, rtol=4e-3, atol=4e-3)
case("matrix by vector", lambda a, b: a @ b, floats(33, 300), floats(300, seed=1), atol=5e-5)
case("dot", lambda a, b: a.dot(b), floats(300), floats(300, seed=1), atol=5e-5)
case("linear", lambda t, w, b: t.linear(w, b), floats(5, 7), floats(7, 9, seed=1),
     floats(9, seed=2), theirs=lambda t, w, b: F.linear(t, w.T, b))
case("einsum", lambda a, b: Tensor.einsum("bij,bjk->bik", a, b), floats(3, 5, 7),
     floats(3, 7, 4, seed=1), theirs=lambda a, b: torch.einsum("bij,bjk->bik", a, b))
case("conv2d", lambda t, w, b: t.conv2d(w, b, padding=1, stride=2), floats(2, 3, 9, 11),
     floats(4, 3, 3, 3, seed=1), floats(4, seed=2),
     theirs=lambda t, w, b: F.conv2d(t, w, b, padding=1, stride=2), atol=3e-5)
case("grouped conv2d", lambda t, w: t.conv2d(w, groups=2, dilation=2), floats(2, 4, 9, 9),
     floats(6, 2, 3, 3, seed=1),
     theirs=lambda t, w: F.conv2d(t, w, groups=2, dilation=2), atol=3e-5)
case("conv_transpose2d", lambda t, w: t.conv_transpose2d(w, stride=2), floats(2, 3, 5, 5),
     floats(3, 4, 3, 3, seed=1), theirs=lambda t, w: F.conv_transpose2d(t, w, stride=2), atol=3e-5)
case("max_pool2d", lambda t: t.max_pool2d((2, 2)), floats(2, 3, 9, 11),
     theirs=lambda t: F.max_pool2d(t, 2))
case("avg_pool2d", lambda t: t.avg_pool2d((3, 3), stride=2, padding=1), floats(2, 3, 9, 11),
     theirs=lambda t: F.avg_pool2d(t, 3, stride=2, padding=1))
case("scaled_dot_product_attention",
     lambda q, k, v: q.scaled_dot_product_attention(k, v, is_causal=True),
     floats(2, 3, 11, 8), floats(2, 3, 11, 8, seed=1), floats(2, 3, 11, 8, seed=2),
     theirs=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))

# ---- normalisation and losses ----
case("layernorm", lambda t: t.layernorm(), x(), theirs=lambda t: F.layer_norm(t, (37,)),
     rtol=1e-4, atol=1e-5)
case("batchnorm", lambda t, w, b, m, v: t.batchnorm(w, b, m, (v + 1e-5).rsqrt()),
     floats(4, 3, 5, 5), floats(3, seed=1), floats(3, seed=2), floats(3, seed=3),
     floats(3, low=0.5, high=2, seed=4),
     theirs=lambda t, w, b, m, v: F.batch_norm(t, m, v, w, b), gradient=False)
_LABELS = integers(5, low=0, high=37, dtype="int64")
case("cross_entropy", lambda t, y: t.cross_entropy(y), x(), _LABELS, theirs=F.cross_entropy)
case("sparse_categorical_crossentropy", lambda t, y: t.sparse_categorical_crossentropy(y), x(),
     _LABELS, theirs=F.cross_entropy)
case("nll_loss", lambda t, y: t.log_softmax(1).nll_loss(y), x(), _LABELS,
     theirs=lambda t, y: F.nll_loss(t.log_softmax(1), y))
case("mse_loss", lambda a, b: a.mse_loss(b), x(), x(seed=1), theirs=F.mse_loss)
case("l1_loss", lambda a, b: a.l1_loss(b), x(), x(seed=1), theirs=F.l1_loss)
case("binary_crossentropy", lambda a, b: a.binary_crossentropy(b), x(0.1, 0.9),
     x(0, 1, seed=1), theirs=F.binary_cross_entropy)
case("binary_crossentropy_logits", lambda a, b: a.binary_crossentropy_logits(b), x(),
     x(0, 1, seed=1), theirs=F.binary_cross_entropy_with_logits)

# ---- made on the device ----
_D = floats(1)
case("arange", lambda t: t * Tensor.arange(37, device=t.device), _D,
     theirs=lambda t: t * torch.arange(37), gradient=False)
case("linspace", lambda t: t * Tensor.linspace(1, 2, 37, device=t.device), _D,
     theirs=lambda t: t * torch.linspace(1, 2, 37), gradient=False)
case("eye", lambda t: t * Tensor.eye(7, device=t.device), _D,
     theirs=lambda t: t * torch.eye(7), gradient=False)
case("full", lambda t: t + Tensor.full((3, 5), 2.5, device=t.device), _D,
     theirs=lambda t: t + torch.full((3, 5), 2.5), gradient=False)
case("zeros_like and ones_like", lambda t: t.zeros_like() + t.ones_like() * 3, x(),
     theirs=lambda t: torch.zeros_like(t) + torch.ones_like(t) * 3, gradient=False)
case("full_like", lambda t: t.full_like(4) * t, x(),
     theirs=lambda t: torch.full_like(t, 4) * t, gradient=False)
_SPECIAL = np.array([0.0, -0.0, 1, -1, 0.5, -2.5, math.inf, -math.inf, math.nan, 1e-40, 3e38],
                    np.float32)
for _name in ("exp", "exp2", "log", "log2", "sqrt", "abs", "neg", "trunc", "floor", "ceil", "round",
              "relu", "sigmoid", "tanh", "reciprocal"):  # fmt: skip
    method(_name, _SPECIAL, gradient=False)
    OPS[-1] = replace(OPS[-1], name=f"{_name} of special values")
for _name in ("add", "mul", "maximum", "minimum", "pow"):
    method(_name, _SPECIAL[:, None], _SPECIAL, gradient=False)
    OPS[-1] = replace(OPS[-1], name=f"{_name} of special values")
_ANY = np.random.default_rng(5).integers(0, 1 << 32, 4000, dtype=np.uint32).view(np.float32)
case("division of any floats", lambda a, b: a / b, _ANY, np.ascontiguousarray(_ANY[::-1]),
     gradient=False, rtol=2e-7, atol=0)
