"""Layers: objects that hold parameters and map tensors; `nn.state` finds the parameters.

Parameters start as in PyTorch. An optimiser (`nn.optim`) turns their gradients on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyhw.core import also_named
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.nn import datasets, functional, init, optim, state, utils
from tinyhw.nn.functions import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Flatten,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    Mish,
    PixelShuffle,
    PixelUnshuffle,
    ReLU,
    ReLU6,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softmin,
    Softplus,
    Softshrink,
    Softsign,
    Tanh,
    Tanhshrink,
    Threshold,
    Unflatten,
    Upsample,
)
from tinyhw.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    GaussianNLLLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MarginRankingLoss,
    MSELoss,
    NLLLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    SoftMarginLoss,
    TripletMarginLoss,
)
from tinyhw.nn.module import Module
from tinyhw.nn.recurrent import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    RNNCell,
)
from tinyhw.nn.shapes import (
    Bilinear,
    ChannelShuffle,
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    CosineSimilarity,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    Fold,
    LocalResponseNorm,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    ModuleDict,
    ModuleList,
    PairwiseDistance,
    Parameter,
    ParameterDict,
    ParameterList,
    PReLU,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    Softmax2d,
    Unfold,
    UpsamplingBilinear2d,
    UpsamplingNearest2d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
    refuse,
)
from tinyhw.nn.transformer import (
    MultiheadAttention,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from tinyhw.products import each, named_padding, padding_pairs
from tinyhw.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "BCELoss",
    "BCEWithLogitsLoss", "BatchNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Bilinear",
    "CELU", "ChannelShuffle", "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d",
    "ConstantPad2d", "ConstantPad3d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d",
    "ConvTranspose2d", "ConvTranspose3d", "CosineEmbeddingLoss", "CosineSimilarity",
    "CrossEntropyLoss", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "ELU", "Embedding",
    "Flatten", "Fold", "GELU", "GLU", "GRU", "GRUCell", "GaussianNLLLoss", "GroupNorm",
    "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "HingeEmbeddingLoss", "HuberLoss",
    "Identity", "InstanceNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "KLDivLoss",
    "L1Loss", "LPPool1d", "LPPool2d", "LPPool3d", "LSTM", "LSTMCell", "LayerNorm", "LayerNorm2d",
    "LeakyReLU", "Linear", "LocalResponseNorm", "LogSigmoid", "LogSoftmax", "MSELoss",
    "MarginRankingLoss", "MaxPool1d", "MaxPool2d", "MaxPool3d", "Mish", "Module", "ModuleDict",
    "ModuleList", "MultiheadAttention", "NLLLoss", "PReLU", "PairwiseDistance", "Parameter",
    "ParameterDict", "ParameterList", "PixelShuffle", "PixelUnshuffle", "PoissonNLLLoss",
    "RMSNorm", "RNN", "RNNCell", "ReLU", "ReLU6", "ReflectionPad1d", "ReflectionPad2d",
    "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "SELU",
    "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "SoftMarginLoss", "Softmax", "Softmax2d",
    "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold",
    "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer", "TripletMarginLoss", "Unflatten", "Unfold", "Upsample",
    "UpsamplingBilinear2d", "UpsamplingNearest2d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
    "datasets", "functional", "init", "optim", "state", "utils",
]  # fmt: skip


PADDING_MODES = {
    "zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular",
}  # fmt: skip


class Linear(Module):
    """x @ weight.T + bias; weight: (out_features, in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(in_features)
        self.weight = Tensor.uniform(out_features, in_features, low=-bound, high=bound)
        self.bias = Tensor.uniform(out_features, low=-bound, high=bound) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return x.linear(self.weight.transpose(), self.bias)


class Conv2d(Module):
    """Cross-correlation with weight (out_channels, in_channels/groups, *kernel).

    padding: an amount, one for each axis, (before, after) pairs from the last axis on, or the
    names "same" and "valid".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        if padding_mode not in PADDING_MODES:
            raise ShapeError(f"padding_mode is one of {', '.join(PADDING_MODES)}, not "
                             f"{padding_mode!r}.")  # fmt: skip
        self.padding_mode = padding_mode
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.kernel_size, self.stride, self.dilation, self.groups = kernel, stride, dilation, groups
        self.padding: int | Sequence[int] | str = padding
        if isinstance(padding, str):
            rank = len(kernel)
            steps, gaps = each(stride, rank, "stride"), each(dilation, rank, "dilation")
            self.padding = named_padding(padding, kernel, steps, gaps)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{in_channels} and {out_channels} channels do not divide into {groups} groups."
            )
        shape = (out_channels, in_channels // groups, *kernel)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = Tensor.uniform(*shape, low=-bound, high=bound)
        self.bias = Tensor.uniform(out_channels, low=-bound, high=bound) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *spatial) to (batch, out_channels, *spatial)."""
        padding = self.padding
        if self.padding_mode != "zeros":
            assert not isinstance(padding, str)
            pairs = padding_pairs(padding, len(self.kernel_size))
            flat = tuple(amount for pair in pairs[::-1] for amount in pair)
            x, padding = x.pad(flat, PADDING_MODES[self.padding_mode]), 0
        return x.conv2d(self.weight, self.bias, self.groups, self.stride, self.dilation, padding)


class Conv1d(Conv2d):
    """Conv2d over one axis."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(
            in_channels, out_channels, (kernel_size,), stride, padding, dilation, groups, bias,
            padding_mode,
        )


class Conv3d(Conv2d):
    """Conv2d over three axes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        super().__init__(
            in_channels, out_channels, kernel, stride, padding, dilation, groups, bias,
            padding_mode,
        )


class ConvTranspose2d(Module):
    """The adjoint of Conv2d, with weight (in_channels, out_channels/groups, *kernel)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.dilation, self.groups = dilation, groups
        shape = (in_channels, out_channels // groups, *kernel)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = Tensor.uniform(*shape, low=-bound, high=bound)
        self.bias = Tensor.uniform(out_channels, low=-bound, high=bound) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *spatial) to (batch, out_channels, *spatial)."""
        return x.conv_transpose2d(
            self.weight,
            self.bias,
            self.groups,
            self.stride,
            self.dilation,
            self.padding,
            self.output_padding,
        )


class ConvTranspose1d(ConvTranspose2d):
    """ConvTranspose2d over one axis."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            (kernel_size,),
            stride,
            padding,
            output_padding,
            dilation,
            groups,
            bias,
        )


class ConvTranspose3d(ConvTranspose2d):
    """ConvTranspose2d over three axes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            output_padding,
            dilation,
            groups,
            bias,
        )


class BatchNorm(Module):
    """Each channel (axis 1) shifted and scaled to mean 0 and variance 1 over the batch.

    In training with the batch's statistics, which move the running ones by `momentum`;
    otherwise with the running ones.
    """

    @also_named(num_features="sz")
    def __init__(
        self,
        sz: int,
        eps: float = 1e-5,
        affine: bool = True,
        track_running_stats: bool = True,
        momentum: float = 0.1,
    ) -> None:
        if not isinstance(affine, bool):
            raise DtypeError(f"affine is True or False, not {affine!r}; name the momentum.")
        self.eps, self.momentum, self.track_running_stats = eps, momentum, track_running_stats
        self.weight = Tensor.ones(sz) if affine else None
        self.bias = Tensor.zeros(sz) if affine else None
        self.num_batches_tracked = Tensor.zeros(dtype="int64", requires_grad=False)
        if track_running_stats:
            self.running_mean = Tensor.zeros(sz, requires_grad=False)
            self.running_var = Tensor.ones(sz, requires_grad=False)

    def calc_stats(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the biased variance of each channel, of the batch or running."""
        if self.track_running_stats and not Tensor.training:
            return self.running_mean, self.running_var
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        variance, mean = x.var_mean(axes, correction=0)
        return mean, variance

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, channels, ...); the same shape comes out."""
        mean, variance = self.calc_stats(x)
        if self.track_running_stats and Tensor.training:
            self._track(x, mean.detach(), variance.detach())
        return x.batchnorm(self.weight, self.bias, mean, (variance + self.eps).rsqrt())

    def _track(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics; their variance is the unbiased one."""
        count = math.prod(x._fixed(axis) for axis in range(x.ndim) if axis != 1)
        unbiased = variance * (count / max(1, count - 1))
        kept, new = 1 - self.momentum, self.momentum
        self.running_mean.assign(
            (kept * self.running_mean + new * mean).cast(self.running_mean.dtype)
        )
        self.running_var.assign(
            (kept * self.running_var + new * unbiased).cast(self.running_var.dtype)
        )
        self.num_batches_tracked.assign(self.num_batches_tracked + 1)


BatchNorm1d = BatchNorm2d = BatchNorm3d = BatchNorm


class LayerNorm(Module):
    """Shifted and scaled to mean 0 and variance 1 over the last axes, of `normalized_shape`."""

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape, self.eps = tuple(shape), eps
        self.axis = tuple(range(-len(self.normalized_shape), 0))
        self.weight = Tensor.ones(*self.normalized_shape) if elementwise_affine else None
        self.bias = (
            Tensor.zeros(*self.normalized_shape) if elementwise_affine and bias else None
        )

    def __call__(self, x: Tensor) -> Tensor:
        """x: (..., *normalized_shape); the same shape comes out."""
        if x.shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise ShapeError(
                f"LayerNorm over {self.normalized_shape} meets a tensor of the shape {x.shape}."
            )
        x = x.layernorm(self.axis, self.eps)
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias


class LayerNorm2d(LayerNorm):
    """LayerNorm over the channels (axis 1) of images."""

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); the same shape comes out."""
        return super().__call__(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorm(Module):
    """Each group of channels (axis 1) shifted and scaled to mean 0 and variance 1."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        if num_channels % num_groups:
            raise ShapeError(f"{num_channels} channels do not divide into {num_groups} groups.")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Tensor.ones(num_channels) if affine else None
        self.bias = Tensor.zeros(num_channels) if affine else None

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, channels, ...); the same shape comes out."""
        shape = x.shape
        x = x.reshape((shape[0], self.num_groups, -1)).layernorm(-1, self.eps).reshape(shape)
        if self.weight is None or self.bias is None:
            return x
        channels = (1, self.num_channels, *(1,) * (x.ndim - 2))
        return x * self.weight.reshape(channels) + self.bias.reshape(channels)


class InstanceNorm(GroupNorm):
    """GroupNorm with every channel a group."""

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(num_features, num_features, eps, affine)


class InstanceNorm2d(InstanceNorm):
    """InstanceNorm with PyTorch's arguments; without running statistics."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        refuse(type(self).__name__, track_running_stats=track_running_stats)
        super().__init__(num_features, eps, affine)


InstanceNorm1d = InstanceNorm3d = InstanceNorm2d


class RMSNorm(Module):
    """Scaled to a mean square of 1 over the last axis, of `dim`; computed in float32."""

    def __init__(self, dim: int, eps: float = 1e-6, elementwise_affine: bool = True) -> None:
        self.eps = eps
        self.weight = Tensor.ones(dim) if elementwise_affine else None

    def __call__(self, x: Tensor) -> Tensor:
        """x: (..., dim); the same shape comes out."""
        wide = x.float() if x.dtype.bits < 32 else x
        scaled = (wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()).cast(x.dtype)
        return scaled if self.weight is None else scaled * self.weight


class Embedding(Module):
    """Row `index` of weight (vocab_size, embed_size) for each index.

    padding_idx: a row that begins as zeros and gets no gradient.
    """

    @also_named(num_embeddings="vocab_size", embedding_dim="embed_size")
    def __init__(
        self, vocab_size: int, embed_size: int, padding_idx: int | None = None
    ) -> None:
        self.vocab_sz, self.embed_sz, self.padding_idx = vocab_size, embed_size, padding_idx
        self.weight = Tensor.glorot_uniform(vocab_size, embed_size)
        if padding_idx is not None:
            if not -vocab_size <= padding_idx < vocab_size:
                raise ShapeError(f"There is no row {padding_idx} of {vocab_size}.")
            self.padding_idx = padding_idx % vocab_size
            rows = Tensor.arange(vocab_size).eq(self.padding_idx).unsqueeze(-1)
            self.weight = rows.where(0, self.weight)

    def __call__(self, idx: Tensor) -> Tensor:
        """idx: (...) integers; (..., embed_size) comes out."""
        found = self.weight[idx]
        if self.padding_idx is None:
            return found
        return idx.eq(self.padding_idx).unsqueeze(-1).where(found.detach(), found)


class LSTMCell(Module):
    """One step of a long short-term memory (Hochreiter and Schmidhuber, 1997).

    Weights are (4*hidden_size, ...): for the input, forget, cell and output gates.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(hidden_size)

        def uniform(*shape: int) -> Tensor:
            return Tensor.uniform(*shape, low=-bound, high=bound)

        self.weight_ih = uniform(4 * hidden_size, input_size)
        self.weight_hh = uniform(4 * hidden_size, hidden_size)
        self.bias_ih = uniform(4 * hidden_size) if bias else None
        self.bias_hh = uniform(4 * hidden_size) if bias else None

    def __call__(
        self, x: Tensor, hc: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """x: (batch, input_size), hc: hidden and cell state; gives the next (hidden, cell)."""
        if hc is None:
            zero = Tensor.zeros(
                x.shape[0], self.weight_hh.shape[1], device=x.device, dtype=x.dtype
            )
            hc = zero, zero
        gates = x.linear(self.weight_ih.T, self.bias_ih)
        gates = gates + hc[0].linear(self.weight_hh.T, self.bias_hh)
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * hc[1] + enter.sigmoid() * new.tanh()
        return (leave.sigmoid() * cell.tanh()).contiguous(), cell.contiguous()


class Dropout(Module):
    """In training, each element 0 with probability p, the others scaled by 1/(1-p)."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        self.p = p

    def __call__(self, x: Tensor) -> Tensor:
        """Any shape; the same comes out."""
        return x.dropout(self.p)
