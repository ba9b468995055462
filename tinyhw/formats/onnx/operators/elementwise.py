"""One element at a time: arithmetic, comparison, logic, bits, and casts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Final

from compiler.dtype import DType, dtypes
from tinyhw.errors import ShapeError
from tinyhw.formats.onnx.registry import Call, element_type, operator
from tinyhw.formats.onnx.tensors import Array
from tinyhw.tensor import Tensor

GREATEST: Final = {dtypes.float8_e4m3fn: 448.0, dtypes.float8_e5m2: 57344.0}

_UNARY: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "Abs": Tensor.abs, "Neg": Tensor.neg, "Reciprocal": Tensor.reciprocal, "Sqrt": Tensor.sqrt,
    "Exp": Tensor.exp, "Log": Tensor.log, "Sign": Tensor.sign, "Floor": Tensor.floor,
    "Ceil": Tensor.ceil, "Round": Tensor.round, "Sin": Tensor.sin, "Cos": Tensor.cos,
    "Tan": Tensor.tan, "Asin": Tensor.asin, "Acos": Tensor.acos, "Atan": Tensor.atan,
    "Sinh": Tensor.sinh, "Cosh": Tensor.cosh, "Tanh": Tensor.tanh, "Asinh": Tensor.asinh,
    "Acosh": Tensor.acosh, "Atanh": Tensor.atanh, "Erf": Tensor.erf, "Not": Tensor.logical_not,
    "BitwiseNot": Tensor.bitwise_not, "IsNaN": Tensor.isnan,
}


@operator(*_UNARY)
def unary(call: Call, x: Tensor) -> Tensor:
    """A method of Tensor."""
    return _UNARY[call.node.op_type](x)


def broadcast_like(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """b so that it broadcasts with a; before version 7 an attribute says from which axis."""
    if call.version < 7 and b.ndim and "axis" in call.attributes:
        axis = call.int("axis") % a.ndim
        return b.reshape((*b.shape, *(1,) * (a.ndim - axis - b.ndim)))
    return b


def divide(a: Tensor, b: Tensor) -> Tensor:
    """The quotient; of integers, what is behind the point is dropped."""
    return a.div(b) if dtypes.is_float(a.dtype) else a.div(b, rounding_mode="trunc")


_BINARY: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "Add": Tensor.add, "Sub": Tensor.sub, "Mul": Tensor.mul, "Div": divide,
    "And": Tensor.logical_and, "Or": Tensor.logical_or,
    "Xor": lambda a, b: a.ne(b), "Equal": Tensor.eq, "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b, "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b, "BitwiseAnd": Tensor.bitwise_and,
    "BitwiseOr": Tensor.bitwise_or, "BitwiseXor": Tensor.bitwise_xor,
}


@operator(*_BINARY)
def binary(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Two tensors combined, with broadcasting."""
    return _BINARY[call.node.op_type](a, broadcast_like(call, a, b))


@operator("Pow")
def power(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """x to the power of y, in the type of x."""
    y = broadcast_like(call, x, y)
    if dtypes.is_float(x.dtype):
        return x.pow(y.cast(x.dtype))
    whole = x.pow(y.cast(x.dtype))
    if not dtypes.is_float(y.dtype):
        return whole
    real = x.cast(dtypes.float64).pow(y.cast(dtypes.float64)).cast(x.dtype)
    return ((y >= 0) & y.eq(y.trunc())).where(whole, real)


@operator("Mod")
def modulo(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The remainder: with the sign of b, or with `fmod` that of a."""
    return a.fmod(b) if call.int("fmod", 0) else a.mod(b)


@operator("BitShift")
def bit_shift(call: Call, x: Tensor, by: Tensor) -> Tensor:
    """Bits moved by as many places; those that leave are lost."""
    last = x.dtype.bits - 1
    if call.string("direction") == "LEFT":
        return (by > last).where(0, x.lshift(by.minimum(last)))
    shifted = x.rshift(by.minimum(last))  # of a negative number, the sign comes in
    return shifted if x.dtype in dtypes.sints else (by > last).where(0, shifted)


@operator("Max", "Min", "Sum", "Mean")
def variadic(call: Call, *xs: Tensor) -> Tensor:
    """Several tensors combined, with broadcasting."""
    if not xs:
        raise ShapeError(f"{call.node.op_type} has no inputs.")
    combine: Callable[[Tensor, Tensor], Tensor] = {
        "Max": Tensor.maximum, "Min": Tensor.minimum,
    }.get(call.node.op_type, Tensor.add)
    found = functools.reduce(combine, xs)
    return found / len(xs) if call.node.op_type == "Mean" else found


@operator("Where")
def where(call: Call, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition holds, else y."""
    return condition.where(x, y)


@operator("Clip", since=11)
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Elements below `low` or above `high` become that."""
    x = x if low is None else x.maximum(low)
    return x if high is None else x.minimum(high)


@operator("Clip")
def clip_by_attributes(call: Call, x: Tensor) -> Tensor:
    """`clip` before version 11."""
    x = x.maximum(call.float("min")) if call.has("min") else x
    return x.minimum(call.float("max")) if call.has("max") else x


@operator("IsInf")
def is_inf(call: Call, x: Tensor) -> Tensor:
    """Where elements are infinite."""
    return x.isinf(
        detect_positive=bool(call.int("detect_positive", 1)),
        detect_negative=bool(call.int("detect_negative", 1)),
    )


@operator("Cast")
def cast(call: Call, x: Tensor) -> Tensor:
    """The values in another type."""
    return cast_to(x, element_type(call.int("to")), bool(call.int("saturate", 1)))


def cast_to(x: Tensor, dtype: DType, saturate: bool) -> Tensor:
    """x in another type; 8-bit floats beyond the greatest become that, or infinite or NaN."""
    if dtype not in GREATEST or x.dtype is dtype:
        return x.cast(dtype)
    most = GREATEST[dtype]
    wide = x.cast(dtypes.float32) if x.dtype.bits < 32 or not dtypes.is_float(x.dtype) else x
    if saturate:
        return wide.isnan().where(wide, wide.clamp(-most, most)).cast(dtype)
    if dtype is dtypes.float8_e5m2:
        return wide.cast(dtype)
    # What rounds to 480, which would be the next number, is none.
    return (wide.abs() > 464).where(math.nan, wide).cast(dtype)


@operator("CastLike")
def cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    """The values in the type of another tensor."""
    return cast_to(x, like.dtype, bool(call.int("saturate", 1)))


@operator("BitCast")
def bit_cast(call: Call, x: Tensor) -> Tensor:
    """The bits as another type of the same width."""
    wanted = element_type(call.int("to"))
    if wanted is dtypes.bool and x.dtype.bits == 8:
        return x.ne(0)
    if x.dtype is dtypes.bool and wanted.bits == 8:
        return x.cast(wanted)
    return x.bitcast(wanted)


@operator("Identity", as_is=(0,))
def identity(call: Call, x: object) -> object:
    """The value itself."""
    return x


@operator("Dropout", since=12, as_is=(1, 2))
def dropout(
    call: Call, x: Tensor, ratio: Array | Tensor | None = None,
    training: Array | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """In training elements become 0 with a probability of `ratio`; the others grow."""
    rate = 0.5 if ratio is None else float(call.scalar(ratio))
    if training is None or not call.scalar(training) or not rate:
        return x, Tensor.ones(x.shape, dtype=dtypes.bool, device=x.device)
    if not 0 <= rate < 1:
        raise ShapeError(f"A ratio of {rate} drops everything; it must be below 1.")
    mask = Tensor.rand(x.shape, device=x.device) >= rate
    return mask.where(x, 0) / (1 - rate), mask


@operator("Dropout")
def dropout_by_attribute(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """`dropout` before version 12, which has no training."""
    mask = Tensor.ones(x.shape, dtype=dtypes.bool, device=x.device)
    return x, mask if call.version >= 10 else mask.cast(x.dtype)

