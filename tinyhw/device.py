"""Devices by name: which one is the default, opening each once, and what tinyhw keeps of it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Final

import drivers
from compiler.code_object import CodeObject
from compiler.compile import compile_kernel
from compiler.ir import Node
from compiler.target import Target
from drivers import DEVICE_NAMES, Program, Queue
from tinyhw.context import DEBUG, GlobalCounters, getenv
from tinyhw.errors import DeviceError, SettingError

# Without a variable in the environment the first of these that opens is the default.
PREFERENCE: Final = ("AMD", "NV", "QCOM", "METAL", "CUDA", "GPU", "LLVM", "CLANG", "WEBGPU")


# Devices that compute in the host's memory.
PROCESSORS: Final = ("LLVM", "CLANG")


class Runtime:
    """One open device, the queue on which tinyhw computes, and the kernels loaded so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device: drivers.Device = drivers.open_device(name)
        self.queue: Queue = self.device.compute_queue()
        self.target: Target = self.device.target
        self._programs: dict[Node, Program] = {}
        GlobalCounters.memory_sources.append(_memory_used(weakref.ref(self.device)))
        if DEBUG >= 1:
            target = self.target
            print(f"opened {name}: {target.arch} {target.cpu}, {target.threads} threads")

    @functools.cached_property
    def copy_queue(self) -> Queue:
        """The queue that copies to other devices."""
        return self.device.copy_queue()

    def program(self, ast: Node) -> Program:
        """The loaded kernel of an expression, compiled if need be."""
        found = self._programs.get(ast)
        if found is None:
            code: CodeObject = compile_kernel(ast, self.target, debug=DEBUG.value)
            found = self._programs[ast] = self.device.load(code)
        return found


def _memory_used(reference: weakref.ref[drivers.Device]) -> Callable[[], int]:
    """What tells a device's memory, and does not keep one that was closed."""

    def used() -> int:
        device = reference()
        return device.memory_used if device is not None else 0

    return used


class _Devices:
    """`Device["LLVM"]` is an open device; `Device.DEFAULT` the name used where none is given."""

    def __init__(self) -> None:
        self._default: str | None = None
        self._runtimes: dict[str, Runtime] = {}

    @property
    def DEFAULT(self) -> str:  # noqa: N802  (the name that tinygrad's users know)
        """The default device: as the environment says (`LLVM=1`), else the first that opens."""
        if self._default is None:
            self._default = _chosen_device() or next(self.get_available_devices())
        return self._default

    @DEFAULT.setter
    def DEFAULT(self, name: str) -> None:  # noqa: N802
        self._default = self.canonicalize(name)

    def canonicalize(self, name: str | None) -> str:
        """The one spelling of a device's name: upper case, without ':0'. None is the default.

        Raises DeviceError for a name that there is not.
        """
        return self.DEFAULT if name is None else _canonical(name)

    def is_processor(self, name: str) -> bool:
        """Whether the device with this canonical name computes in the host's memory."""
        return name.partition(":")[0] in PROCESSORS

    def processor(self, name: str | None = None) -> str:
        """Where memory of the host stands uncopied: that device if it can, else LLVM."""
        wanted = self.canonicalize(name)
        return wanted if self.is_processor(wanted) else "LLVM"

    def __getitem__(self, name: str) -> drivers.Device:
        """The device, opened at first use."""
        return self.runtime(self.canonicalize(name)).device

    def runtime(self, name: str) -> Runtime:
        """What tinyhw keeps of the device with this canonical name.

        Opens it at first use, and again after it was closed: so goes on who had a fault.
        """
        found = self._runtimes.get(name)
        if found is None or found.device.unusable == "closed":
            found = self._runtimes[name] = Runtime(name)
        return found

    def get_available_devices(self) -> Iterator[str]:
        """The names of devices that open here, in the order in which they are preferred."""
        return (name for name in PREFERENCE if drivers.probe(name)[0])


@functools.cache
def _canonical(name: str) -> str:
    kind, colon, number = name.upper().partition(":")
    if kind not in DEVICE_NAMES or (colon and not number.isdecimal()):
        raise DeviceError(
            f"There is no device {name!r}; the names are {', '.join(DEVICE_NAMES)}, "
            "and for example 'LLVM:1' for a second one.",
            device=name,
            operation="canonicalize",
        )
    return kind if not colon or int(number) == 0 else f"{kind}:{int(number)}"


def _chosen_device() -> str | None:
    """The device whose variable is set; two of them contradict each other."""
    chosen = [name for name in DEVICE_NAMES if getenv(name, 0)]
    if len(chosen) > 1:
        given = " and ".join(f"{name}=1" for name in chosen)
        raise SettingError(
            f"The environment asks for {len(chosen)} default devices at once: {given}.",
            operation="Device.DEFAULT",
            remedy="Leave one of them.",
        )
    return chosen[0] if chosen else None


Device: Final = _Devices()
