"""PyTorch's torch.nn.functional: `import tinyhw.nn.functional as F`.

Functions take PyTorch's arguments in its order, with its defaults, and do what the layer or the
tensor method of that name does. `training` decides for itself, whatever `Tensor.training` is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinyhw.errors import ShapeError
from tinyhw.nn import functions, losses, shapes
from tinyhw.tensor import Tensor

Sizes = int | Sequence[int]
Function = Callable[..., Any]


def _as_layer(layer: type, names: tuple[str, ...] = (), tensors: int = 1) -> Function:
    """A layer's function of its inputs and arguments; `names` where these are in another order."""

    def function(*args: Any, **kwargs: Any) -> Any:
        given, rest = list(args[:tensors]), args[tensors:]
        for name in ("input", "input1", "input2", "target")[: tensors + 3]:
            if len(given) < tensors and name in kwargs:
                given.append(kwargs.pop(name))
        named = dict(zip(names, rest, strict=False)) if names else {}
        return layer(*(() if names else rest), **named, **kwargs)(*given)

    function.__doc__ = f"What the layer {layer.__name__} does."
    return function


relu, relu6 = _as_layer(functions.ReLU), _as_layer(functions.ReLU6)
sigmoid, tanh = _as_layer(functions.Sigmoid), _as_layer(functions.Tanh)
silu, mish = _as_layer(functions.SiLU), _as_layer(functions.Mish)
hardswish, hardsigmoid = _as_layer(functions.Hardswish), _as_layer(functions.Hardsigmoid)
softsign, logsigmoid = _as_layer(functions.Softsign), _as_layer(functions.LogSigmoid)
tanhshrink, gelu = _as_layer(functions.Tanhshrink), _as_layer(functions.GELU)
elu, celu, selu = (_as_layer(f) for f in (functions.ELU, functions.CELU, functions.SELU))
leaky_relu, softplus = _as_layer(functions.LeakyReLU), _as_layer(functions.Softplus)
hardtanh, threshold = _as_layer(functions.Hardtanh), _as_layer(functions.Threshold)
softshrink, hardshrink = _as_layer(functions.Softshrink), _as_layer(functions.Hardshrink)
glu, pixel_shuffle = _as_layer(functions.GLU), _as_layer(functions.PixelShuffle)
pixel_unshuffle = _as_layer(functions.PixelUnshuffle)

_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
max_pool1d, max_pool2d, max_pool3d = (
    _as_layer(layer, _MAX)
    for layer in (functions.MaxPool1d, functions.MaxPool2d, functions.MaxPool3d)
)
avg_pool1d, avg_pool2d, avg_pool3d = (
    _as_layer(layer) for layer in (functions.AvgPool1d, functions.AvgPool2d, functions.AvgPool3d)
)
lp_pool1d, lp_pool2d, lp_pool3d = (
    _as_layer(layer) for layer in (shapes.LPPool1d, shapes.LPPool2d, shapes.LPPool3d)
)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _as_layer(layer)
    for layer in (
        functions.AdaptiveAvgPool1d, functions.AdaptiveAvgPool2d, functions.AdaptiveAvgPool3d,
    )
)  # fmt: skip
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _as_layer(layer)
    for layer in (
        functions.AdaptiveMaxPool1d, functions.AdaptiveMaxPool2d, functions.AdaptiveMaxPool3d,
    )
)  # fmt: skip
unfold, fold = _as_layer(shapes.Unfold), _as_layer(shapes.Fold)
channel_shuffle = _as_layer(shapes.ChannelShuffle)
local_response_norm = _as_layer(shapes.LocalResponseNorm)
cosine_similarity = _as_layer(shapes.CosineSimilarity, tensors=2)
pairwise_distance = _as_layer(shapes.PairwiseDistance, tensors=2)

mse_loss, l1_loss = (_as_layer(f, tensors=2) for f in (losses.MSELoss, losses.L1Loss))
smooth_l1_loss = _as_layer(losses.SmoothL1Loss, tensors=2)
huber_loss, kl_div = (_as_layer(f, tensors=2) for f in (losses.HuberLoss, losses.KLDivLoss))
cross_entropy = _as_layer(losses.CrossEntropyLoss, tensors=2)
nll_loss = _as_layer(losses.NLLLoss, tensors=2)
binary_cross_entropy = _as_layer(losses.BCELoss, tensors=2)
binary_cross_entropy_with_logits = _as_layer(losses.BCEWithLogitsLoss, tensors=2)
poisson_nll_loss = _as_layer(losses.PoissonNLLLoss, tensors=2)
gaussian_nll_loss = _as_layer(losses.GaussianNLLLoss, tensors=3)
soft_margin_loss = _as_layer(losses.SoftMarginLoss, tensors=2)
hinge_embedding_loss = _as_layer(losses.HingeEmbeddingLoss, tensors=2)
margin_ranking_loss = _as_layer(losses.MarginRankingLoss, tensors=3)
cosine_embedding_loss = _as_layer(losses.CosineEmbeddingLoss, tensors=3)
triplet_margin_loss = _as_layer(losses.TripletMarginLoss, tensors=3)


# ---- along an axis ----
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """`Tensor.softmax`; the axis must be given."""
    return input.softmax(dim, dtype)


def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """`Tensor.log_softmax`; the axis must be given."""
    return input.log_softmax(dim, dtype)


def softmin(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """`Tensor.softmin`; the axis must be given."""
    return input.softmin(dim, dtype)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """`Tensor.normalize`."""
    return input.normalize(p, dim, eps)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """`Tensor.prelu`."""
    return input.prelu(weight)


# ---- products ----
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias; weight: (outputs, inputs)."""
    return input.linear(weight.T if weight.ndim > 1 else weight.unsqueeze(-1), bias)


def bilinear(
    input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """input1 @ weight[k] @ input2 for each k, plus bias."""
    found = Tensor.einsum("...i,kij,...j->...k", input1, weight, input2)
    return found if bias is None else found + bias


def _convolution(rank: int) -> Function:
    def conv(
        input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
        padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1,
    ) -> Tensor:
        """`Tensor.conv2d` over as many axes as the name says; the batch may lack."""
        x = _batched(input, weight, rank)
        found = x.conv2d(weight, bias, groups, stride, dilation, padding)
        return found if input.ndim > rank + 1 else found.squeeze(0)

    return conv


def _transposed(rank: int) -> Function:
    def conv(
        input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
        padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
    ) -> Tensor:
        """`Tensor.conv_transpose2d` over as many axes as the name says; the batch may lack."""
        x = _batched(input, weight, rank)
        found = x.conv_transpose2d(
            weight, bias, groups, stride, dilation, padding, output_padding
        )
        return found if input.ndim > rank + 1 else found.squeeze(0)

    return conv


def _batched(x: Tensor, weight: Tensor, rank: int) -> Tensor:
    if weight.ndim != rank + 2 or x.ndim not in (rank + 1, rank + 2):
        raise ShapeError(f"A convolution of {rank} axes does not take {x.shape}, {weight.shape}.")
    return x if x.ndim == rank + 2 else x.unsqueeze(0)


conv1d, conv2d, conv3d = (_convolution(rank) for rank in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (_transposed(rank) for rank in (1, 2, 3))


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`Tensor.scaled_dot_product_attention`; dropout_p counts as it is given."""
    with Tensor.train(dropout_p > 0):
        return query.scaled_dot_product_attention(
            key, value, attn_mask, dropout_p, is_causal, enable_gqa, scale
        )


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """The rows of `weight` that input names."""
    return weight[input]


# ---- norms ----
def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:
    """Channels scaled by running statistics, or in training by the batch's, which those follow."""
    axes = tuple(axis for axis in range(input.ndim) if axis != 1)
    if training or running_mean is None or running_var is None:
        variance, mean = input.var_mean(axes, correction=0)
        if running_mean is not None and running_var is not None and training:
            count = math.prod(input._fixed(axis) for axis in axes)
            wide = variance.detach() * (count / max(count - 1, 1))
            for kept, new in ((running_mean, mean.detach()), (running_var, wide)):
                kept.assign((1 - momentum) * kept.detach() + momentum * new.cast(kept.dtype))
    else:
        mean, variance = running_mean, running_var
    return input.batchnorm(weight, bias, mean, (variance + eps).rsqrt())


def layer_norm(
    input: Tensor, normalized_shape: Sizes, weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:
    """The last axes, whose extents are given, brought to mean 0 and variance 1."""
    x = input.layernorm(_last_axes(input, normalized_shape), eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def rms_norm(
    input: Tensor, normalized_shape: Sizes, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """The last axes, whose extents are given, brought to a mean square of 1."""
    least = 2.0**-23 if eps is None else eps
    axes = _last_axes(input, normalized_shape)
    x = input * (input.square().mean(axes, keepdim=True) + least).rsqrt()
    return x if weight is None else x * weight


def _last_axes(x: Tensor, extents: Sizes) -> tuple[int, ...]:
    given = (extents,) if isinstance(extents, int) else tuple(extents)
    if not given or x.shape[-len(given) :] != given:
        raise ShapeError(f"The last extents of {x.shape} are not {given}.")
    return tuple(range(x.ndim - len(given), x.ndim))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Each group of channels brought to mean 0 and variance 1."""
    if input.ndim < 2 or input._fixed(1) % num_groups:
        raise ShapeError(f"{num_groups} groups do not divide the channels of {input.shape}.")
    shape = input.shape
    x = input.reshape((shape[0], num_groups, -1)).layernorm(-1, eps).reshape(shape)
    channels = (1, shape[1], *(1,) * (x.ndim - 2))
    x = x if weight is None else x * weight.reshape(channels)
    return x if bias is None else x + bias.reshape(channels)


# ---- chance ----
def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`Tensor.dropout`."""
    with Tensor.train(training):
        return input.dropout(p)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of images dropped."""
    with Tensor.train(training):
        return shapes.Dropout2d(p)(input)


# ---- shapes ----
def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """`Tensor.pad` by (before, after) of each axis, the last first."""
    return input.pad(tuple(pad), mode, 0.0 if value is None else value)


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`Tensor.interpolate`."""
    return input.interpolate(size, mode, bool(align_corners), scale_factor)


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """`Tensor.one_hot`."""
    return input.one_hot(num_classes)


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """`Tensor.grid_sample`."""
    return input.grid_sample(grid, mode, padding_mode, bool(align_corners))


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """`Tensor.affine_grid`."""
    return theta.affine_grid(size, bool(align_corners))
