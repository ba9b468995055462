"""Numbers in few bits, with a scale and a zero point."""

from __future__ import annotations

from compiler.dtype import DType, dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.operators.convolution import convolve
from tinyhw.formats.onnx.operators.elementwise import GREATEST, cast_to
from tinyhw.formats.onnx.registry import Call, element_type, operator
from tinyhw.tensor import Tensor


def _spread(call: Call, x: Tensor, values: Tensor) -> Tensor:
    """A scale or zero point so that it broadcasts with x: for all, for an axis, or for blocks."""
    if not values.ndim or values.numel() == 1:
        return values.reshape(())
    axis = call.int("axis", 1) % x.ndim
    if values.ndim == 1:
        return values.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    block = call.int("block_size", 0)
    if values.ndim != x.ndim or block < 1:
        raise ShapeError(f"A scale of {values.shape} does not fit {x.shape}.")
    return values.repeat_interleave(block, axis).narrow(axis, 0, x._fixed(axis))


def _saturated(x: Tensor, dtype: DType) -> Tensor:
    """Whole numbers as a narrow type, the nearest that it has."""
    return x.clamp(int(dtype.min), int(dtype.max)).cast(dtype)


@operator("QuantizeLinear")
def quantize(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """round(x / scale) + zero, the nearest that the type has."""
    dtype = dtypes.uint8 if zero is None else zero.dtype
    if call.int("output_dtype", 0):
        dtype = element_type(call.int("output_dtype"))
    if not dtypes.is_int(dtype) and dtype not in GREATEST:
        raise NotSupported(f"QuantizeLinear to {dtype.name} is not supported.")
    precision = scale.dtype
    if call.int("precision", 0):
        precision = element_type(call.int("precision"))
    if not dtypes.is_float(precision):
        precision = dtypes.float32
    ratio = x.cast(precision) / _spread(call, x, scale).cast(precision)
    if dtype in GREATEST:
        return cast_to(ratio, dtype, bool(call.int("saturate", 1)))
    whole = ratio.round()
    whole = whole.cast(dtypes.float32)
    if zero is not None:
        whole = whole + _spread(call, x, zero).cast(dtypes.float32)
    return _saturated(whole, dtype)


@operator("DequantizeLinear")
def dequantize(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero) · scale."""
    dtype = scale.dtype
    if call.int("output_dtype", 0):
        dtype = element_type(call.int("output_dtype"))
    if dtypes.is_float(x.dtype):
        whole = x.cast(dtypes.float32)
        whole = whole if zero is None else whole - _spread(call, x, zero).cast(dtypes.float32)
    else:
        whole = x.cast(dtypes.int32)
        whole = whole if zero is None else whole - _spread(call, x, zero).cast(dtypes.int32)
    return whole.cast(dtype) * _spread(call, x, scale).cast(dtype)


@operator("DynamicQuantizeLinear")
def dynamic_quantize(call: Call, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x in 8 bits, with the scale and zero point that make the most of them."""
    low, high = x.min().minimum(0), x.max().maximum(0)
    scale = (high - low) / 255
    zero = (-low / scale).round().clamp(0, 255)
    return _saturated((x / scale).round() + zero, dtypes.uint8), scale, zero.cast(dtypes.uint8)


def _shifted(x: Tensor, zero: Tensor | None, last: bool) -> Tensor:
    """Integers without their zero point: of rows, or of columns (the last axis)."""
    wide = x.cast(dtypes.int32)
    if zero is None:
        return wide
    z = zero.cast(dtypes.int32)
    if z.ndim == 1 and not last and z.numel() != 1:
        z = z.unsqueeze(-1)
    return wide - (z.reshape(()) if z.numel() == 1 else z)


@operator("MatMulInteger")
def matmul_integer(
    call: Call, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """The product of 8-bit matrices, in int32."""
    return _shifted(a, a_zero, False).matmul(_shifted(b, b_zero, True))


@operator("QLinearMatMul")
def qlinear_matmul(
    call: Call, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor,
    b_zero: Tensor, y_scale: Tensor, y_zero: Tensor,
) -> Tensor:
    """The product of quantised matrices, quantised."""
    product = _shifted(a, a_zero, False).matmul(_shifted(b, b_zero, True))
    rows = a_scale.cast(dtypes.float32)
    rows = rows.unsqueeze(-1) if rows.ndim == 1 and rows.numel() != 1 else rows
    factor = rows * b_scale.cast(dtypes.float32) / y_scale.cast(dtypes.float32)
    whole = (product.cast(dtypes.float32) * factor).round() + y_zero.cast(dtypes.float32)
    return _saturated(whole, y_zero.dtype).reshape(product.shape)


@operator("QLinearConv")
def qlinear_conv(
    call: Call, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor,
    w_zero: Tensor, y_scale: Tensor, y_zero: Tensor, bias: Tensor | None = None,
) -> Tensor:
    """The convolution of quantised tensors, quantised."""
    rank = w.ndim - 2

    def of_outputs(values: Tensor, extra: int) -> Tensor:
        return values.reshape(()) if values.numel() == 1 else values.reshape((-1, *(1,) * extra))

    shifted = w.cast(dtypes.int32) - of_outputs(w_zero.cast(dtypes.int32), rank + 1)
    total = convolve(call, _shifted(x, x_zero, True), shifted, bias)
    factor = x_scale * of_outputs(w_scale, rank) / y_scale
    whole = (total.cast(dtypes.float32) * factor).round() + y_zero.cast(dtypes.float32)
    return _saturated(whole, y_zero.dtype).reshape(total.shape)
