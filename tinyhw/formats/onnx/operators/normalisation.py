"""Means taken away, and divided by deviations or norms."""

from __future__ import annotations

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, element_type, operator
from tinyhw.tensor import Tensor


def _per_channel(x: Tensor, values: Tensor) -> Tensor:
    return values.reshape((1, -1, *(1,) * (x.ndim - 2)))


@operator("BatchNormalization")
def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor | tuple[Tensor, ...]:
    """Each channel with its mean taken away, in units of its deviation."""
    epsilon, momentum = call.float("epsilon", 1e-5), call.float("momentum", 0.9)
    if not call.int("spatial", 1):
        raise NotSupported("BatchNormalization with spatial=0 is not supported.")
    running: tuple[Tensor, ...] = (mean, variance)
    training = bool(call.int("training_mode", 0))
    if training:
        axes = tuple(i for i in range(x.ndim) if i != 1)
        mean, variance = x.mean(axes), x.var(axes, correction=0)
        running = tuple(
            old * momentum + new.cast(old.dtype) * (1 - momentum)
            for old, new in zip(running, (mean, variance), strict=True)
        )
    wide = dtypes.float32 if x.dtype.bits < 32 else x.dtype
    factor = scale.cast(wide) / (variance.cast(wide) + epsilon).sqrt()
    y = (x.cast(wide) - _per_channel(x, mean.cast(wide))) * _per_channel(x, factor)
    y = (y + _per_channel(x, bias.cast(wide))).cast(x.dtype)
    return (y, *running) if training else y


@operator("InstanceNormalization")
def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each channel of each sample by its own mean and deviation."""
    y = _standard(x, tuple(range(2, x.ndim)), call.float("epsilon", 1e-5))
    return y * _per_channel(x, scale) + _per_channel(x, bias)


def _standard(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred * centred).mean(axes, keepdim=True) + epsilon).sqrt()


@operator("GroupNormalization")
def group_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each group of channels of each sample by its own mean and deviation."""
    groups = call.int("num_groups")
    n, c = x._fixed_shape()[:2]
    wide = element_type(call.int("stash_type", 1))
    y = x.cast(wide).reshape((n, groups, -1))
    y = _standard(y, (2,), call.float("epsilon", 1e-5)).cast(x.dtype)
    if call.version < 21:  # scale and bias are for groups
        y = y * scale.reshape((1, groups, 1)) + bias.reshape((1, groups, 1))
        return y.reshape(x.shape)
    y = y.reshape((n, c, -1)) * scale.reshape((1, c, 1)) + bias.reshape((1, c, 1))
    return y.reshape(x.shape)


@operator("LayerNormalization")
def layer_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """All elements from an axis on by their mean and deviation; also those."""
    axis = call.int("axis", -1) % x.ndim
    axes = tuple(range(axis, x.ndim))
    wide = x.cast(element_type(call.int("stash_type", 1)))
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    variance = (centred * centred).mean(axes, keepdim=True)
    inverse = (variance + call.float("epsilon", 1e-5)).sqrt().reciprocal()
    y = (centred * inverse).cast(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@operator("RMSNormalization")
def rms_normalization(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """All elements from an axis on, in units of the root of their mean square."""
    axes = tuple(range(call.int("axis", -1) % x.ndim, x.ndim))
    wide = x.cast(element_type(call.int("stash_type", 1)))
    square = (wide * wide).mean(axes, keepdim=True) + call.float("epsilon", 1e-5)
    return (wide / square.sqrt()).cast(x.dtype) * scale


@operator("LpNormalization")
def lp_normalization(call: Call, x: Tensor) -> Tensor:
    """Along an axis in units of the norm; where that is 0, 0."""
    axis, p = call.int("axis", -1), call.int("p", 2)
    if p == 1:
        norm = x.abs().sum(axis, keepdim=True)
    elif p == 2:
        norm = (x * x).sum(axis, keepdim=True).sqrt()
    else:
        raise ShapeError(f"LpNormalization knows the norms 1 and 2, not {p}.")
    return norm.eq(0).where(0, x / norm)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(call: Call, x: Tensor) -> Tensor:
    """Along some axes with the mean taken away, in units of the deviation."""
    axes = tuple(call.ints("axes", (0, 2, 3)))
    mean = x.mean(axes, keepdim=True)
    variance = (x * x).mean(axes, keepdim=True) - mean * mean
    return (x - mean) / (variance.sqrt() + 1e-9)


@operator("LRN")
def local_response_normalization(call: Call, x: Tensor) -> Tensor:
    """Each element divided by a power of the squares in nearby channels."""
    size = call.int("size")
    alpha, beta = call.float("alpha", 1e-4), call.float("beta", 0.75)
    before = (size - 1) // 2
    pads: list[tuple[int, int] | None] = [None] * x.ndim
    pads[1] = (before, size - 1 - before)
    squares = (x * x).pad(pads).transpose(1, -1).pool_windows([size], 1, 1).sum(-1)
    total = squares.transpose(1, -1)
    return x / (total * (alpha / size) + call.float("bias", 1.0)).pow(beta)

