"""Random numbers of Tensor's generator (`Tensor.manual_seed`); seeds in files are not used."""

from __future__ import annotations

from compiler.dtype import DType, dtypes
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.tensor import Tensor


def _drawn(call: Call, shape: tuple[int, ...], dtype: DType) -> Tensor:
    device = call.run.device
    if "Uniform" in call.node.op_type:
        low, high = call.float("low", 0.0), call.float("high", 1.0)
        return (Tensor.rand(shape, device=device) * (high - low) + low).cast(dtype)
    mean, scale = call.float("mean", 0.0), call.float("scale", 1.0)
    return (Tensor.randn(shape, device=device) * scale + mean).cast(dtype)


@operator("RandomUniform", "RandomNormal")
def drawn(call: Call) -> Tensor:
    """Numbers in a shape."""
    return _drawn(call, tuple(call.ints("shape")), call.dtype("dtype", dtypes.float32))


@operator("RandomUniformLike", "RandomNormalLike")
def drawn_like(call: Call, x: Tensor) -> Tensor:
    """Numbers in the shape of another tensor."""
    return _drawn(call, x._fixed_shape(), call.dtype("dtype", x.dtype))


@operator("Bernoulli")
def bernoulli(call: Call, x: Tensor) -> Tensor:
    """1 with the probability that x says, else 0."""
    draw = Tensor.rand(x._fixed_shape(), device=x.device)
    return (draw < x.cast(dtypes.float32)).cast(call.dtype("dtype", x.dtype))


@operator("Multinomial")
def multinomial(call: Call, x: Tensor) -> Tensor:
    """Draws of classes, with put back; x (batch, classes) has logarithms of probabilities."""
    draws = x.cast(dtypes.float32).softmax(-1).multinomial(call.int("sample_size", 1), True)
    return draws.cast(call.dtype("dtype", dtypes.int32))
