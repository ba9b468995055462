"""Losses, and steps of optimisers."""

from __future__ import annotations

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.tensor import Tensor


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(
    call: Call, x: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Minus the logarithm of each target class's probability; x (batch, classes, ...)."""
    return _loss(call, x, target, weight)


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    call: Call, x: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`negative_log_likelihood` of scores; also the logarithms of the probabilities."""
    wide = x.cast(dtypes.float32) if x.dtype.bits < 32 else x
    logs = wide.log_softmax(1)
    return _loss(call, logs, target, weight).cast(x.dtype), logs.cast(x.dtype)


def _loss(call: Call, logs: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    classes = logs._fixed(1)
    chosen = target.cast(dtypes.int64)
    counts = (chosen >= 0) & (chosen < classes)
    if call.has("ignore_index"):
        counts = counts & chosen.ne(call.int("ignore_index"))
    chosen = counts.where(chosen, 0)
    loss = -logs.gather(1, chosen.unsqueeze(1)).squeeze(1)
    share = counts.cast(logs.dtype)
    if weight is not None:
        share = share * weight.cast(logs.dtype)[chosen]
    loss = counts.where(loss * share, 0)
    reduction = call.string("reduction", "mean")
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction != "mean":
        raise NotSupported(f"A loss has no reduction {reduction!r}; there are none, sum, mean.")
    if weight is None and not call.has("ignore_index"):
        return loss.mean()
    return loss.sum() / share.sum()


TRAINING = "ai.onnx.preview.training"


def _groups(xs: tuple[Tensor, ...], count: int) -> list[tuple[Tensor, ...]]:
    """Inputs listed kind by kind, as one tuple for each optimised tensor."""
    if len(xs) % count:
        raise ShapeError(f"{len(xs)} inputs are no multiple of {count}.")
    n = len(xs) // count
    return [tuple(xs[i + n * j] for j in range(count)) for i in range(n)]


@operator("Adagrad", domain=TRAINING)
def adagrad(call: Call, rate: Tensor, step: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
    """New values, then new sums of squares."""
    epsilon, decay = call.float("epsilon", 1e-6), call.float("norm_coefficient", 0.0)
    rate = rate / (1 + step.cast(rate.dtype) * call.float("decay_factor", 0.0))
    values, sums = [], []
    for x, gradient, total in _groups(xs, 3):
        regular = gradient + x * decay
        total = total + regular * regular
        values.append(x - rate * regular / (total.sqrt() + epsilon))
        sums.append(total)
    return (*values, *sums)


@operator("Adam", domain=TRAINING)
def adam(call: Call, rate: Tensor, step: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
    """New values, then running means of gradients, then of their squares."""
    alpha, beta = call.float("alpha", 0.9), call.float("beta", 0.999)
    epsilon, decay = call.float("epsilon", 1e-6), call.float("norm_coefficient", 0.0)
    after = 1 - call.float("norm_coefficient_post", 0.0)
    number = step.cast(rate.dtype)
    first = (step > 0).where(((1 - number.const_like(beta).pow(number)).sqrt())
                             / (1 - number.const_like(alpha).pow(number)), 1)
    values, means, squares = [], [], []
    for x, gradient, mean, square in _groups(xs, 4):
        regular = gradient + x * decay
        mean = mean * alpha + regular * (1 - alpha)
        square = square * beta + regular * regular * (1 - beta)
        values.append((x - rate * first * mean / (square.sqrt() + epsilon)) * after)
        means.append(mean)
        squares.append(square)
    return (*values, *means, *squares)


@operator("Momentum", domain=TRAINING)
def momentum(call: Call, rate: Tensor, step: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
    """New values, then new momenta."""
    alpha, decay = call.float("alpha"), call.float("norm_coefficient")
    beta = (step > 0).where(call.float("beta"), 1.0)
    nesterov = call.string("mode") == "nesterov"
    values, momenta = [], []
    for x, gradient, velocity in _groups(xs, 3):
        regular = gradient + x * decay
        velocity = velocity * alpha + regular * beta
        values.append(x - rate * (regular + velocity * alpha if nesterov else velocity))
        momenta.append(velocity)
    return (*values, *momenta)
