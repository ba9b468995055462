"""PyTorch's losses as layers: arguments in its order, with its defaults.

`size_average` and `reduce`, which PyTorch has given up, must be None. The tensors that a loss is
given, weights of classes say, are no parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

from tinyhw.errors import DtypeError
from tinyhw.nn.module import Module
from tinyhw.tensor import Tensor

_OLD = ("size_average", "reduce")


class Loss(Module):
    """Calls `method` of its first input with the others and the arguments given."""

    method: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = (*_OLD, "reduction")
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(self.names, args, strict=False)) | kwargs
        unknown = sorted(set(kwargs) - set(self.names))
        old = [name for name in _OLD if given.pop(name, None) is not None]
        if unknown or old or len(args) > len(self.names):
            known = ", ".join(name for name in self.names if name not in _OLD)
            raise DtypeError(
                f"{type(self).__name__} takes {known}, not {', '.join(old + unknown) or args}."
            )
        arguments = self.defaults | given
        # In a partial, where nobody takes the weights of classes for the model's parameters.
        self._call: Callable[..., Tensor] = functools.partial(
            getattr(Tensor, self.method), **arguments
        )

    def __call__(self, x: Tensor, *others: Tensor) -> Tensor:
        """The method's result."""
        return self._call(x, *others)


class MSELoss(Loss):
    """`mse_loss`."""

    method = "mse_loss"


class L1Loss(Loss):
    """`l1_loss`."""

    method = "l1_loss"


class SmoothL1Loss(Loss):
    """`smooth_l1_loss`."""

    method = "smooth_l1_loss"
    names = (*_OLD, "reduction", "beta")


class HuberLoss(Loss):
    """`huber_loss`."""

    method = "huber_loss"
    names = ("reduction", "delta")


class CrossEntropyLoss(Loss):
    """`cross_entropy`."""

    method = "cross_entropy"
    names = ("weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing")


class NLLLoss(Loss):
    """`nll_loss`."""

    method = "nll_loss"
    names = ("weight", "size_average", "ignore_index", "reduce", "reduction")
    defaults: ClassVar[dict[str, Any]] = {"ignore_index": -100}


class BCELoss(Loss):
    """`binary_crossentropy`."""

    method = "binary_crossentropy"
    names = ("weight", *_OLD, "reduction")


class BCEWithLogitsLoss(Loss):
    """`binary_crossentropy_logits`."""

    method = "binary_crossentropy_logits"
    names = ("weight", *_OLD, "reduction", "pos_weight")


class KLDivLoss(Loss):
    """`kl_div`."""

    method = "kl_div"
    names = (*_OLD, "reduction", "log_target")


class PoissonNLLLoss(Loss):
    """`poisson_nll_loss`."""

    method = "poisson_nll_loss"
    names = ("log_input", "full", "size_average", "eps", "reduce", "reduction")


class GaussianNLLLoss(Loss):
    """`gaussian_nll_loss`; its inputs are the mean, the target and the variance."""

    method = "gaussian_nll_loss"
    names = ("full", "eps", "reduction")


class SoftMarginLoss(Loss):
    """`soft_margin_loss`."""

    method = "soft_margin_loss"


class HingeEmbeddingLoss(Loss):
    """`hinge_embedding_loss`."""

    method = "hinge_embedding_loss"
    names = ("margin", *_OLD, "reduction")


class MarginRankingLoss(Loss):
    """`margin_ranking_loss`."""

    method = "margin_ranking_loss"
    names = ("margin", *_OLD, "reduction")


class CosineEmbeddingLoss(Loss):
    """`cosine_embedding_loss`."""

    method = "cosine_embedding_loss"
    names = ("margin", *_OLD, "reduction")


class TripletMarginLoss(Loss):
    """`triplet_margin_loss`."""

    method = "triplet_margin_loss"
    names = ("margin", "p", "eps", "swap", *_OLD, "reduction")
