"""More of PyTorch's layers: padding, windows, similarities, channels, lists of layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from tinyhw.errors import DtypeError, NotSupported, ShapeError
from tinyhw.nn.functions import Function, Pool
from tinyhw.nn.module import Module
from tinyhw.tensor import Tensor


# ---- padding ----
class Pad(Module):
    """`pad` of the last `rank` axes: one amount, or (before, after) of each, the last first."""

    rank: ClassVar[int]
    mode: ClassVar[str] = "constant"

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        given = (padding,) * (2 * self.rank) if isinstance(padding, int) else tuple(padding)
        if len(given) != 2 * self.rank:
            raise ShapeError(
                f"{type(self).__name__} takes one amount or {2 * self.rank}, not {padding!r}."
            )
        self.padding, self.value = given, 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """x: (..., *extents)."""
        return x.pad(self.padding, mode=self.mode, value=self.value)


class ConstantPad1d(Pad):
    """Padding with a number."""

    rank = 1

    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding)
        self.value = value


class ConstantPad2d(ConstantPad1d):
    """ConstantPad1d of two axes."""

    rank = 2


class ConstantPad3d(ConstantPad1d):
    """ConstantPad1d of three axes."""

    rank = 3


class ZeroPad1d(Pad):
    """Padding with zeros."""

    rank = 1


class ZeroPad2d(Pad):
    """ZeroPad1d of two axes."""

    rank = 2


class ZeroPad3d(Pad):
    """ZeroPad1d of three axes."""

    rank = 3


class ReflectionPad1d(Pad):
    """Padding with the mirror image, without the edge."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(ReflectionPad1d):
    """ReflectionPad1d of two axes."""

    rank = 2


class ReflectionPad3d(ReflectionPad1d):
    """ReflectionPad1d of three axes."""

    rank = 3


class ReplicationPad1d(Pad):
    """Padding with the edge."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(ReplicationPad1d):
    """ReplicationPad1d of two axes."""

    rank = 2


class ReplicationPad3d(ReplicationPad1d):
    """ReplicationPad1d of three axes."""

    rank = 3


class CircularPad1d(Pad):
    """Padding with the other end."""

    rank, mode = 1, "circular"


class CircularPad2d(CircularPad1d):
    """CircularPad1d of two axes."""

    rank = 2


class CircularPad3d(CircularPad1d):
    """CircularPad1d of three axes."""

    rank = 3


# ---- windows and sizes ----
class Unfold(Function):
    """`im2col`."""

    method = "im2col"
    names = ("kernel_size", "dilation", "padding", "stride")


class Fold(Function):
    """`fold`."""

    method = "fold"
    names = ("output_size", "kernel_size", "dilation", "padding", "stride")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.arguments["output_size"], int):
            self.arguments["output_size"] = (self.arguments["output_size"],) * 2


class LPPool1d(Pool):
    """`lp_pool2d` over one axis."""

    method = "lp_pool2d"
    names = ("norm_type", "kernel_size", "stride", "ceil_mode")
    rank = 1


class LPPool2d(LPPool1d):
    """`lp_pool2d`."""

    rank = 2


class LPPool3d(LPPool1d):
    """`lp_pool2d` over three axes."""

    rank = 3


class UpsamplingNearest2d(Function):
    """`interpolate` by the nearest pixel."""

    method = "interpolate"
    names = ("size", "scale_factor")
    defaults: ClassVar[dict[str, Any]] = {"mode": "nearest"}


class UpsamplingBilinear2d(Function):
    """`interpolate` between pixels, the corners kept."""

    method = "interpolate"
    names = ("size", "scale_factor")
    defaults: ClassVar[dict[str, Any]] = {"mode": "bilinear", "align_corners": True}


# ---- channels ----
class ChannelShuffle(Module):
    """(batch, groups*n, ...): channel j of group i becomes channel i of group j."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def __call__(self, x: Tensor) -> Tensor:
        """The same shape comes out."""
        if x.ndim < 2 or x._fixed(1) % self.groups:
            raise ShapeError(f"{self.groups} groups do not divide the channels of {x.shape}.")
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class Softmax2d(Function):
    """`softmax` over the channels of images."""

    method = "softmax"
    defaults: ClassVar[dict[str, Any]] = {"axis": -3}


class Dropout2d(Module):
    """In training, each channel 0 with probability p, the others scaled by 1/(1-p)."""

    rank: ClassVar[int] = 2

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        self.p = p

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, channels, *extents), or without a batch."""
        if x.ndim not in (self.rank + 1, self.rank + 2):
            raise ShapeError(
                f"{type(self).__name__} takes {self.rank + 1} or {self.rank + 2} axes, not "
                f"{x.shape}."
            )
        shape = (*x.shape[: x.ndim - self.rank], *(1,) * self.rank)
        return x * Tensor.ones(*shape, device=x.device, dtype=x.dtype).dropout(self.p)


class Dropout1d(Dropout2d):
    """Dropout2d for one axis behind the channels."""

    rank = 1


class Dropout3d(Dropout2d):
    """Dropout2d for three axes behind the channels."""

    rank = 3


class LocalResponseNorm(Module):
    """Over (k + alpha * the mean square of `size` neighbouring channels) ** beta."""

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
    ) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, channels, ...); the same shape comes out."""
        before = self.size // 2
        amounts = [(before, self.size - 1 - before) if a == 1 else None for a in range(x.ndim)]
        near = x.square().pad(amounts).unfold(1, self.size, 1).mean(-1)
        return x / (near * self.alpha + self.k).pow(self.beta)


class PReLU(Module):
    """`prelu` with one slope, or one for each channel."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.weight = Tensor.full((num_parameters,), init)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, channels, ...)."""
        return x.prelu(self.weight)


# ---- two inputs ----
class CosineSimilarity(Module):
    """`cosine_similarity`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim, self.eps = dim, eps

    def __call__(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The cosine of the angle between both along `dim`."""
        return x1.cosine_similarity(x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """`pairwise_distance`."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.p, self.eps, self.keepdim = p, eps, keepdim

    def __call__(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The p-norm of the difference along the last axis."""
        return x1.pairwise_distance(x2, self.p, self.eps, self.keepdim)


class Bilinear(Module):
    """x1 @ weight[k] @ x2 for each feature k of the output."""

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True
    ) -> None:
        bound = 1 / math.sqrt(in1_features)
        shape = (out_features, in1_features, in2_features)
        self.weight = Tensor.uniform(*shape, low=-bound, high=bound)
        self.bias = Tensor.uniform(out_features, low=-bound, high=bound) if bias else None

    def __call__(self, x1: Tensor, x2: Tensor) -> Tensor:
        """x1: (..., in1_features), x2: (..., in2_features)."""
        found = Tensor.einsum("...i,kij,...j->...k", x1, self.weight, x2)
        return found if self.bias is None else found + self.bias


# ---- lists of layers ----
class ModuleList(Module, list[Any]):
    """Layers that a model calls itself."""

    def __init__(self, modules: Iterable[Any] = ()) -> None:
        super().__init__(modules)


class ModuleDict(Module, dict[str, Any]):
    """Layers by name."""

    def __init__(self, modules: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__(modules)


ParameterList = ModuleList
ParameterDict = ModuleDict


def Parameter(data: Tensor, requires_grad: bool = True) -> Tensor:  # noqa: N802
    """A tensor of its own with the values of `data`, which an optimiser may change."""
    if not isinstance(data, Tensor):
        raise DtypeError(f"A parameter is made of a tensor, not of {type(data).__name__}.")
    return data.detach().clone().requires_grad_(requires_grad)


def refuse(name: str, **options: Any) -> None:
    """Raises NotSupported for options that are not at their only value."""
    for option, value in options.items():
        if value:
            raise NotSupported(f"{name} has no {option}={value!r}.")
