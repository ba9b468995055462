"""One face for the libraries that the benchmark compares: arrays in, arrays out, a wait."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Function = Callable[..., Any]  # native arrays in, one native array or a tuple of them out


class Library(ABC):
    """A library that takes part. `name` is its column, `module` the imported package."""

    name: str
    module: Any

    @abstractmethod
    def native(self, array: Array) -> Any:
        """The library's own array of these values, in its device's memory."""

    @abstractmethod
    def numpy(self, native: Any) -> Array:
        """The values of the library's array."""

    def compiled(self, function: Function) -> Function:
        """The function in the form in which the library runs it over and over."""
        return function

    def synchronize(self) -> None:  # noqa: B027  (NumPy has nothing to wait for)
        """Returns when everything asked for so far has been computed."""


class NumPy(Library):
    """The yardstick: eager, with outputs allocated beforehand."""

    name = "numpy"

    def __init__(self) -> None:
        self.module = np

    def native(self, array: Array) -> Any:
        """The array itself."""
        return array

    def numpy(self, native: Any) -> Array:
        """The array itself."""
        return np.asarray(native)


class Torch(Library):
    """PyTorch, eager: on the processor, or on the GPU where tinyhw uses NVIDIA's, too."""

    name = "torch"

    def __init__(self) -> None:
        self.module = importlib.import_module("torch")
        self.module.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.on_gpu = os.environ.get("NV") == "1" and self.module.cuda.is_available()
        self.module.set_default_device("cuda" if self.on_gpu else "cpu")

    def native(self, array: Array) -> Any:
        """A tensor with its own copy."""
        copy = self.module.from_numpy(array.copy())
        return copy.cuda() if self.on_gpu else copy

    def numpy(self, native: Any) -> Array:
        """The tensor's values."""
        values: Array = native.detach().cpu().numpy()
        return values

    def synchronize(self) -> None:
        """Waits for the GPU; the processor has finished when a call returns."""
        if self.on_gpu:
            self.module.cuda.synchronize()


class Tiny(Library):
    """tinyhw and tinygrad, which share an interface: lazy, captured by TinyJit, replayed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = importlib.import_module(name)
        self.device = self.module.Device[self.module.Device.DEFAULT]

    def native(self, array: Array) -> Any:
        """A realized tensor with its own storage."""
        return self.module.Tensor(array).contiguous().realize()

    def numpy(self, native: Any) -> Array:
        """A copy of the tensor's values."""
        copy: Array = native.numpy()
        return copy

    def compiled(self, function: Function) -> Function:
        """The function as a TinyJit that realizes what it returns."""

        def realized(*inputs: Any) -> Any:
            result = function(*inputs)
            if isinstance(result, tuple):
                return self.module.Tensor.realize(*result), *result[1:]
            return result.realize()

        jit: Function = self.module.TinyJit(realized)
        return jit

    def synchronize(self) -> None:
        """Waits for the device's queues."""
        self.device.synchronize()

    def training(self) -> AbstractContextManager[Any]:
        """The block within which batch norms use the batch, and optimizers may step."""
        tensor = self.module.Tensor
        context: AbstractContextManager[Any] = (
            tensor.train() if hasattr(tensor, "train") else self.module.Context(TRAINING=1)
        )
        return context


def open_library(name: str) -> Library:
    """Imports a library by its column's name; raises ImportError where it is not installed."""
    if name == "numpy":
        return NumPy()
    return Torch() if name == "torch" else Tiny(name)
