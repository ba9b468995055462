"""This floor's errors: wrong shapes, dtypes, indices and settings, each in a full sentence.

All derive from `TensorError`, and each also from Python's own class for the same mistake, so that
`except ValueError` catches a wrong shape. Devices raise the classes of `drivers.errors`.
"""

from __future__ import annotations

from compiler.errors import TinyhwError
from drivers.errors import HardwareError

__all__ = [
    "DeviceError",
    "DtypeError",
    "ExchangeError",
    "GradientError",
    "HardwareError",
    "IndexOutOfRange",
    "JitError",
    "ModelError",
    "NotSupported",
    "SettingError",
    "ShapeError",
    "TensorError",
    "TinyhwError",
    "VariableError",
]


class TensorError(TinyhwError):
    """A tensor operation was asked for something that it cannot do."""

    code = "TH100"


class ShapeError(TensorError, ValueError):
    """Shapes, axes or sizes do not fit each other."""

    code = "TH101"


class DtypeError(TensorError, TypeError):
    """An element type, or a Python value of the wrong type, is not accepted here."""

    code = "TH102"


class IndexOutOfRange(TensorError, IndexError):
    """An index or axis lies outside the tensor."""

    code = "TH103"


class VariableError(TensorError, ValueError):
    """A Variable's bounds or value are wrong, or two of one name disagree."""

    code = "TH104"


class GradientError(TensorError, RuntimeError):
    """A gradient is asked for where there is none, or an assignment would falsify one."""

    code = "TH105"


class DeviceError(TensorError, RuntimeError):
    """Tensors of different devices meet, or a device's name is wrong."""

    code = "TH106"


class JitError(TensorError, RuntimeError):
    """A capture would not replay what the function does."""

    code = "TH107"


class SettingError(TensorError, ValueError):
    """An environment variable or Context value is malformed."""

    code = "TH108"


class NotSupported(TensorError, NotImplementedError):
    """Part of the public API that is not there yet, by name."""

    code = "TH109"


class NoSuchMethod(TensorError, AttributeError):
    """A method that Tensor does not have, or not yet."""

    code = "TH111"


class ExchangeError(TensorError, BufferError):
    """Memory of another library is malformed or out of reach, or ours cannot be lent to it."""

    code = "TH112"


class ModelError(TensorError, RuntimeError):
    """A model's node cannot be computed with what it is given, or an input is not the model's."""

    code = "TH113"
