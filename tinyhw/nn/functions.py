"""Layers without parameters under PyTorch's names: a tensor method with its arguments fixed.

Arguments stand in PyTorch's order and have its defaults. `inplace` is taken and changes nothing:
where a result is stored is the scheduler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from tinyhw.errors import DtypeError
from tinyhw.nn.module import Module
from tinyhw.tensor import Tensor


class Function(Module):
    """Calls `method` of its input with the arguments given, whose names are `names`, in order."""

    method: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        unknown = sorted(set(kwargs) - set(self.names))
        if unknown or len(args) > len(self.names):
            raise DtypeError(
                f"{type(self).__name__} takes {', '.join(self.names) or 'no arguments'}, "
                f"not {args} and {kwargs}."
            )
        self.arguments = self.defaults | given
        self.arguments.pop("inplace", None)

    def __call__(self, x: Tensor) -> Any:
        """The method's result."""
        return getattr(x, self.method)(**self.arguments)


class Sequential(Module, list[Callable[[Any], Any]]):
    """Layers one after the other."""

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        super().__init__(layers)

    def __call__(self, x: Any) -> Any:
        """The input through all layers."""
        for layer in self:
            x = layer(x)
        return x


class Identity(Function):
    """The input; arguments are taken and mean nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, x: Tensor) -> Tensor:
        """x."""
        return x


class ReLU(Function):
    """`relu`."""

    method = "relu"
    names = ("inplace",)


class ReLU6(Function):
    """`relu6`."""

    method = "relu6"
    names = ("inplace",)


class Sigmoid(Function):
    """`sigmoid`."""

    method = "sigmoid"


class Tanh(Function):
    """`tanh`."""

    method = "tanh"


class SiLU(Function):
    """`silu`."""

    method = "silu"
    names = ("inplace",)


class Mish(Function):
    """`mish`."""

    method = "mish"
    names = ("inplace",)


class Hardswish(Function):
    """`hardswish`."""

    method = "hardswish"
    names = ("inplace",)


class Hardsigmoid(Function):
    """`hardsigmoid`."""

    method = "hardsigmoid"
    names = ("inplace",)


class Softsign(Function):
    """`softsign`."""

    method = "softsign"


class LogSigmoid(Function):
    """`logsigmoid`."""

    method = "logsigmoid"


class Tanhshrink(Function):
    """`tanhshrink`."""

    method = "tanhshrink"


class GELU(Function):
    """`gelu`."""

    method = "gelu"
    names = ("approximate",)
    defaults: ClassVar[dict[str, Any]] = {"approximate": "none"}


class ELU(Function):
    """`elu`."""

    method = "elu"
    names = ("alpha", "inplace")


class CELU(Function):
    """`celu`."""

    method = "celu"
    names = ("alpha", "inplace")


class SELU(Function):
    """`selu`."""

    method = "selu"
    names = ("inplace",)


class LeakyReLU(Function):
    """`leaky_relu`."""

    method = "leaky_relu"
    names = ("negative_slope", "inplace")


class Softplus(Function):
    """`softplus`."""

    method = "softplus"
    names = ("beta",)


class Hardtanh(Function):
    """`hardtanh`."""

    method = "hardtanh"
    names = ("min_val", "max_val", "inplace")


class Softshrink(Function):
    """`softshrink`."""

    method = "softshrink"
    names = ("lambd",)


class Hardshrink(Function):
    """`hardshrink`."""

    method = "hardshrink"
    names = ("lambd",)


class Threshold(Function):
    """`threshold`."""

    method = "threshold"
    names = ("threshold", "value", "inplace")


class GLU(Function):
    """`glu`."""

    method = "glu"
    names = ("dim",)
    defaults: ClassVar[dict[str, Any]] = {"dim": -1}


class Softmax(Function):
    """`softmax`."""

    method = "softmax"
    names = ("dim",)


class LogSoftmax(Function):
    """`log_softmax`."""

    method = "log_softmax"
    names = ("dim",)


class Softmin(Function):
    """`softmin`."""

    method = "softmin"
    names = ("dim",)


class Flatten(Function):
    """`flatten`."""

    method = "flatten"
    names = ("start_dim", "end_dim")
    defaults: ClassVar[dict[str, Any]] = {"start_dim": 1}


class Unflatten(Function):
    """`unflatten`."""

    method = "unflatten"
    names = ("dim", "sizes")


class PixelShuffle(Function):
    """`pixel_shuffle`."""

    method = "pixel_shuffle"
    names = ("upscale_factor",)


class PixelUnshuffle(Function):
    """`pixel_unshuffle`."""

    method = "pixel_unshuffle"
    names = ("downscale_factor",)


class Upsample(Function):
    """`interpolate`."""

    method = "interpolate"
    names = ("size", "scale_factor", "mode", "align_corners")
    defaults: ClassVar[dict[str, Any]] = {"mode": "nearest"}


class Pool(Function):
    """A pooling over the last `rank` axes; one number stands for all of them."""

    rank: ClassVar[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("kernel_size", "output_size"):
            if isinstance(self.arguments.get(name), int):
                self.arguments[name] = (self.arguments[name],) * self.rank
        if self.arguments.get("stride", 0) is None:
            del self.arguments["stride"]


class MaxPool2d(Pool):
    """`max_pool2d`."""

    method = "max_pool2d"
    names = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
    rank = 2


class AvgPool2d(Pool):
    """`avg_pool2d`."""

    method = "avg_pool2d"
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    rank = 2


class AdaptiveAvgPool2d(Pool):
    """`adaptive_avg_pool2d`."""

    method = "adaptive_avg_pool2d"
    names = ("output_size",)
    rank = 2


class AdaptiveMaxPool2d(Pool):
    """`adaptive_max_pool2d`."""

    method = "adaptive_max_pool2d"
    names = ("output_size",)
    rank = 2


class MaxPool1d(MaxPool2d):
    """MaxPool2d over one axis."""

    rank = 1


class MaxPool3d(MaxPool2d):
    """MaxPool2d over three axes."""

    rank = 3


class AvgPool1d(AvgPool2d):
    """AvgPool2d over one axis."""

    rank = 1


class AvgPool3d(AvgPool2d):
    """AvgPool2d over three axes."""

    rank = 3


class AdaptiveAvgPool1d(AdaptiveAvgPool2d):
    """AdaptiveAvgPool2d over one axis."""

    rank = 1


class AdaptiveAvgPool3d(AdaptiveAvgPool2d):
    """AdaptiveAvgPool2d over three axes."""

    rank = 3


class AdaptiveMaxPool1d(AdaptiveMaxPool2d):
    """AdaptiveMaxPool2d over one axis."""

    rank = 1


class AdaptiveMaxPool3d(AdaptiveMaxPool2d):
    """AdaptiveMaxPool2d over three axes."""

    rank = 3
