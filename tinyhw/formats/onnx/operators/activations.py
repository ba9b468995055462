"""What networks apply to each element, and along one axis."""

from __future__ import annotations

import math

from compiler.dtype import dtypes
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.tensor import Tensor


@operator("Relu")
def relu(call: Call, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return x.maximum(0)


@operator("Sigmoid")
def sigmoid(call: Call, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return x.sigmoid()


@operator("Softplus")
def softplus(call: Call, x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return x.softplus()


@operator("Softsign")
def softsign(call: Call, x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return x.softsign()


@operator("Mish")
def mish(call: Call, x: Tensor) -> Tensor:
    """x · tanh(softplus(x))."""
    return x.mish()


@operator("HardSwish")
def hard_swish(call: Call, x: Tensor) -> Tensor:
    """x · max(0, min(1, x/6 + 1/2))."""
    return x.hardswish()


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """max(0, min(1, alpha·x + beta))."""
    return (x * call.float("alpha", 0.2) + call.float("beta", 0.5)).clamp(0, 1)


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    """x, or alpha·x below 0."""
    return x.leaky_relu(call.float("alpha", 0.01))


@operator("PRelu")
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """x, or slope·x below 0; before version 7 a list of slopes is for channels."""
    if call.version < 7 and slope.ndim == 1 and slope.numel() != 1:
        slope = slope.reshape((-1, *(1,) * (x.ndim - 2)))
    return (x < 0).where(slope * x, x)


@operator("Elu")
def elu(call: Call, x: Tensor) -> Tensor:
    """x, or alpha·(exp(x) - 1) below 0."""
    return x.elu(call.float("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: Tensor) -> Tensor:
    """x, or alpha·(exp(x/alpha) - 1) below 0."""
    wide = x.cast(dtypes.float32) if x.dtype.bits < 32 else x
    return wide.celu(call.float("alpha", 1.0)).cast(x.dtype)


@operator("Selu")
def selu(call: Call, x: Tensor) -> Tensor:
    """gamma·x, or gamma·alpha·(exp(x) - 1) below 0."""
    alpha = call.float("alpha", 1.67326319217681884765625)
    return x.selu(alpha, call.float("gamma", 1.05070102214813232421875))


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    """x above alpha, else 0."""
    return (x > call.float("alpha", 1.0)).where(x, 0)


@operator("Shrink")
def shrink(call: Call, x: Tensor) -> Tensor:
    """x nearer to 0 by `bias`, and 0 up to `lambd` from it."""
    lambd, bias = call.float("lambd", 0.5), call.float("bias", 0.0)
    return (x < -lambd).where(x + bias, (x > lambd).where(x - bias, 0)).cast(x.dtype)


@operator("Gelu")
def gelu(call: Call, x: Tensor) -> Tensor:
    """x times the share of a normal distribution below x."""
    return x.gelu(call.string("approximate", "none"))


@operator("Swish")
def swish(call: Call, x: Tensor) -> Tensor:
    """x · sigmoid(alpha·x)."""
    return x * (x * call.float("alpha", 1.0)).sigmoid()


@operator("Softmax", "LogSoftmax", "Hardmax", since=13)
def softmax(call: Call, x: Tensor) -> Tensor:
    """Along one axis: shares that add up to 1, their logarithm, or 1 at the first greatest."""
    return _along(call.node.op_type, x, call.int("axis", -1))


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax_flat(call: Call, x: Tensor) -> Tensor:
    """`softmax` before version 13: over all axes from `axis` on."""
    axis = call.int("axis", 1) % max(x.ndim, 1)
    flat = x.reshape((math.prod(x.shape[:axis]), -1))
    return _along(call.node.op_type, flat, -1).reshape(x.shape)


def _along(name: str, x: Tensor, axis: int) -> Tensor:
    if name == "Softmax":
        return x.softmax(axis)
    if name == "LogSoftmax":
        return x.log_softmax(axis)
    first = x.argmax(axis, keepdim=True)
    place = Tensor.arange(x.shape[axis], device=x.device)
    shape = [1] * x.ndim
    shape[axis] = -1
    return place.reshape(shape).eq(first).cast(x.dtype)
