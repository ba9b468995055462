"""This floor's errors; like those below they carry code, device, operation, detail and remedy."""

from __future__ import annotations

from compiler.errors import TinyhwError


class TensorError(TinyhwError):
    """A tensor operation was asked for something that it cannot do."""

    code = "TT000"


class ShapeError(TensorError, ValueError):
    """Shapes, axes or extents do not fit the operation."""

    code = "TT101"


class DtypeError(TensorError, TypeError):
    """An element type does not fit the operation."""

    code = "TT102"


class DeviceError(TensorError):
    """Tensors of different devices meet in one operation, or a device name is unknown."""

    code = "TT103"


class JitError(TensorError):
    """A captured function would give wrong results, or is called as it was not captured."""

    code = "TT201"


class VariableError(TensorError, ValueError):
    """A Variable has no value, two values, or one outside its bounds."""

    code = "TT202"


class SettingError(TinyhwError, ValueError):
    """A setting or environment variable is unknown or malformed."""

    code = "TT301"
