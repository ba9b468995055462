"""PyTorch's torch.nn.utils: gradients kept in bounds, parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinyhw.errors import GradientError, ShapeError
from tinyhw.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scales all gradients together down to a norm of at most `max_norm`; gives what it was.

    error_if_nonfinite: reads the norm, and raises GradientError where it is NaN or infinite.
    """
    found = _with_gradient(parameters)
    if not found:
        return Tensor(0.0)
    place = found[0].device
    sizes = [_gradient(p).float().norm(norm_type).to(place) for p in found]
    total = sizes[0].stack(*sizes[1:]).norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise GradientError(f"The gradients' norm is {total.item()}.")
    factor = (max_norm / (total + 1e-6)).minimum(1)
    for p in found:
        p.grad = (_gradient(p) * factor.to(p.device)).cast(p.dtype)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Brings every element of the gradients into ±clip_value."""
    for p in _with_gradient(parameters):
        p.grad = _gradient(p).clamp(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements, one parameter after the other."""
    parts = [p.flatten() for p in parameters]
    return parts[0].cat(*parts[1:])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Writes the elements of a vector into parameters, one after the other."""
    start, given = 0, list(parameters)
    total = sum(math.prod(p._fixed_shape()) for p in given)
    if vec.shape != (total,):
        raise ShapeError(f"{total} elements of parameters take no vector of {vec.shape}.")
    for p in given:
        end = start + math.prod(p._fixed_shape())
        p.assign(vec[start:end].reshape(p.shape).cast(p.dtype).detach())
        start = end


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p for p in given if p.grad is not None]


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.detach()
