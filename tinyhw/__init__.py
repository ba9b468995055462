"""A tensor library on its own drivers: `from tinyhw import Tensor, nn, TinyJit`."""

from tinyhw._floors import check_floors

check_floors()

from compiler.dtype import dtypes  # noqa: E402
from tinyhw import nn  # noqa: E402
from tinyhw.context import Context, GlobalCounters  # noqa: E402
from tinyhw.device import Device  # noqa: E402
from tinyhw.jit import TinyJit  # noqa: E402
from tinyhw.tensor import Tensor, no_grad  # noqa: E402
from tinyhw.variable import Variable  # noqa: E402

__all__ = [
    "Context",
    "Device",
    "GlobalCounters",
    "Tensor",
    "TinyJit",
    "Variable",
    "dtypes",
    "nn",
    "no_grad",
]
__version__ = "0.1.0"
