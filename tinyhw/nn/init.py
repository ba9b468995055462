"""PyTorch's torch.nn.init: values that parameters start from, written into them.

Every function writes its tensor and returns it; a weight's first axis is its outputs, the second
its inputs, those behind a window.
"""

from __future__ import annotations

import math

from tinyhw.errors import DtypeError, ShapeError
from tinyhw.tensor import Tensor

_GAINS = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0, "conv_transpose3d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3,
    "relu": math.sqrt(2), "selu": 0.75,
}  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """What keeps the variance through a non-linear function; param: leaky_relu's slope."""
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope * slope))
    if nonlinearity not in _GAINS:
        known = ", ".join(sorted([*_GAINS, "leaky_relu"]))
        raise DtypeError(f"There is no gain for {nonlinearity!r}; there are {known}.")
    return _GAINS[nonlinearity]


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform in [a, b)."""
    return tensor.uniform_(a, b)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal."""
    return tensor.normal_(mean, std)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Normal, of what lies in [a, b]: the inverse of the distribution of uniform numbers."""
    if not a < b or std <= 0:
        raise ShapeError(f"trunc_normal_ takes a < b and a std above 0, not {a}, {b} and {std}.")
    low, high = (math.erf((x - mean) / (std * math.sqrt(2))) for x in (a, b))
    drawn = Tensor.uniform(*tensor.shape, low=low, high=high, device=tensor.device)
    return tensor.copy_((drawn.erfinv() * (std * math.sqrt(2)) + mean).clamp(a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return tensor.zero_()


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return tensor.fill_(1)


def eye_(tensor: Tensor) -> Tensor:
    """1 on the diagonal of a matrix, else 0."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ writes matrices, not the shape {tensor.shape}.")
    rows, columns = tensor._fixed(0), tensor._fixed(1)
    return tensor.copy_(Tensor.eye(rows, columns, device=tensor.device))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight that gives back its input, as far as channels go."""
    if tensor.ndim not in (3, 4, 5) or tensor._fixed(0) % groups:
        raise ShapeError(f"dirac_ in {groups} groups does not fit the shape {tensor.shape}.")
    rows, columns = tensor._fixed(0) // groups, tensor._fixed(1)
    found = Tensor.eye(rows, columns, device=tensor.device).repeat(groups, 1)
    for axis in range(2, tensor.ndim):
        n = tensor._fixed(axis)
        found = found.unsqueeze(-1).pad(
            [*[None] * found.ndim, (n // 2, n - n // 2 - 1)]
        )
    return tensor.copy_(found)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with the variance 2*gain**2 / (inputs + outputs)."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return tensor.uniform_(-bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with the variance 2*gain**2 / (inputs + outputs)."""
    return tensor.normal_(0.0, gain * math.sqrt(2 / sum(_fans(tensor))))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Uniform with the variance gain**2 / inputs, or outputs in the mode "fan_out"."""
    bound = math.sqrt(3) * _kaiming(tensor, a, mode, nonlinearity)
    return tensor.uniform_(-bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Normal with the variance gain**2 / inputs, or outputs in the mode "fan_out"."""
    return tensor.normal_(0.0, _kaiming(tensor, a, mode, nonlinearity))


def orthogonal_(tensor: Tensor, gain: float = 1) -> Tensor:
    """A random matrix with orthogonal rows or columns; axes behind the first count as one."""
    rows, columns = _matrix(tensor)
    tall = max(rows, columns), min(rows, columns)
    q, r = Tensor.randn(*tall, device=tensor.device).qr("reduced")
    q = q * r.diagonal().sign()  # else the distribution were not uniform
    q = q if rows >= columns else q.transpose(0, 1)
    return tensor.copy_(q.reshape(tensor.shape) * gain)


def _matrix(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ShapeError(f"A weight has at least two axes, not the shape {tensor.shape}.")
    return tensor._fixed(0), math.prod(tensor._fixed(axis) for axis in range(1, tensor.ndim))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """(inputs, outputs) of a weight."""
    rows, columns = _matrix(tensor)
    return columns, rows * (columns // tensor._fixed(1))


def _kaiming(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise DtypeError(f"mode is 'fan_in' or 'fan_out', not {mode!r}.")
    gain = calculate_gain(nonlinearity, a)
    return gain / math.sqrt(_fans(tensor)[mode == "fan_out"])
