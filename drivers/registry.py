"""Device names: what there is, whether it opens here, and opening it."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drivers.device import Device
from drivers.errors import DeviceNotAvailable, HardwareError, UnknownDevice
from drivers.memory import CachePolicy
from drivers.native.image import ARCHITECTURES, host_arch
from drivers.nodes import missing_node
from drivers.system import RealSystem, System
from drivers.timeline import DEFAULT_TIMEOUT_MS

if TYPE_CHECKING:
    from drivers.emulated.system import EmulatedSystem
    from drivers.recorder import Recorder

INSTANCE_LIMIT = 16


@dataclass(frozen=True)
class Backend:
    """One row of the table: what the name stands for, and the parts if there is a driver.

    `missing` says why it cannot be opened here ('' if it can), with the remedy. `generations`
    gives the kinds of hardware that are driven, each with what its driver has been run on.
    """

    title: str
    missing: Callable[[], tuple[str, str]]
    open: Callable[..., Device] | None = None
    generations: Callable[[], dict[str, str]] = dict


def _planned(title: str) -> Backend:
    sentence = f"This version of tinyhw has no backend for {title} yet."
    return Backend(title, lambda: (sentence, "Use LLVM or CLANG."))


def _processor_missing() -> tuple[str, str]:
    if platform.system() != "Linux":
        return f"Processor queues sleep on Linux's futexes; this is {platform.system()}.", ""
    if host_arch() not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return f"The processor is {host_arch()}; the drivers know {known}.", ""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed.", "Run `pip install llvmlite`."
    return "", ""


def _clang_missing() -> tuple[str, str]:
    from compiler.clang import find_clang

    sentence, remedy = _processor_missing()
    if not sentence and find_clang() is None:
        sentence = "There is no clang executable on PATH (clang or clang-N)."
        remedy = "Install it, for example with `apt install clang`, or use LLVM."
    return sentence, remedy


def _open_processor(compiler: str) -> Callable[..., Device]:
    def opened(name: str, **options: Any) -> Device:
        from drivers.cpu.device import CpuDevice

        return CpuDevice(name, compiler, **options)

    return opened


OFF = ("", "0")


# How names of a device's boards begin, and the one that EMULATE=1 stands for.
_BOARDS = {"AMD": ("gfx", "gfx1100"), "NV": ("sm_", "sm_90")}


def _emulated_boards(kind: str) -> str:
    """What EMULATE asks for: a description of boards, or '' for the hardware."""
    asked = os.environ.get("EMULATE", "")
    if asked == "1":
        return _BOARDS[kind][1]
    others = tuple(prefix for each, (prefix, _) in _BOARDS.items() if each != kind)
    return "" if asked in OFF or asked.startswith(others) else asked


def _amd_missing() -> tuple[str, str]:
    from drivers.amd.abi import KFD_NODE, missing_remedy

    if _emulated_boards("AMD") or os.path.exists(KFD_NODE):
        return "", ""
    return missing_node(RealSystem(), KFD_NODE, missing_remedy)


@functools.cache
def _board(description: str, process: int) -> EmulatedSystem:
    """The emulated boards of this process; devices that are opened again find them as they were."""
    from drivers.emulated.system import EmulatedSystem

    return EmulatedSystem(description)


def emulated_system(kind: str) -> EmulatedSystem | None:
    """The emulated boards that EMULATE asks for, of a kind of device; None for the hardware."""
    asked = _emulated_boards(kind)
    return _board(asked, os.getpid()) if asked else None


@functools.cache
def _recorder(path: str, process: int) -> Recorder:
    """What records this process; ends with it, after its devices."""
    from drivers.recorder import Recorder
    from drivers.system import RealSystem

    board = emulated_system("AMD")
    recorder = Recorder(
        board or RealSystem(), path, board=board.description if board is not None else ""
    )
    atexit.register(recorder.close_recording)
    return recorder


def _amd_system() -> System | None:
    """What the environment asks for: RECORD=path, EMULATE, or None for the system itself."""
    path = os.environ.get("RECORD", "")
    return _recorder(path, os.getpid()) if path else emulated_system("AMD")


def _open_amd(name: str, *, system: System | None = None, **options: Any) -> Device:
    from drivers.amd.device import AmdDevice

    return AmdDevice(name, system=system or _amd_system(), **options)


def _amd_generations() -> dict[str, str]:
    from drivers.amd.generations import GENERATIONS

    return {name: generation.tested for name, generation in GENERATIONS.items()}


def _nv_generations() -> dict[str, str]:
    from drivers.nv.generations import GENERATIONS

    return {name: generation.tested for name, generation in GENERATIONS.items()}


def _nv_missing() -> tuple[str, str]:
    from drivers.nv.rm import CONTROL_NODE, missing_remedy

    if _emulated_boards("NV") or os.path.exists(CONTROL_NODE):
        return "", ""
    return missing_node(RealSystem(), CONTROL_NODE, missing_remedy)


def _open_nv(name: str, *, system: System | None = None, **options: Any) -> Device:
    from drivers.nv.device import NvDevice

    if os.environ.get("RECORD") and system is None:
        raise DeviceNotAvailable(
            "RECORD is set, but only AMD devices can be recorded so far.", device=name,
            operation="open", remedy="Unset RECORD.",
        )
    return NvDevice(name, system=system or emulated_system("NV"), **options)


BACKENDS: dict[str, Backend] = {
    "AMD": Backend(
        "an AMD GPU, by its kernel driver", _amd_missing, _open_amd, _amd_generations
    ),
    "NV": Backend(
        "an NVIDIA GPU, by its kernel driver", _nv_missing, _open_nv, _nv_generations
    ),
    "QCOM": _planned("Qualcomm's kernel driver"),
    "METAL": _planned("Apple's Metal"),
    "CUDA": _planned("CUDA"),
    "GPU": _planned("OpenCL"),
    "CLANG": Backend("the processor, by clang", _clang_missing, _open_processor("clang")),
    "LLVM": Backend("the processor, by LLVM", _processor_missing, _open_processor("llvm")),
    "WEBGPU": _planned("WebGPU"),
}

_EMULATED_PATIENCE = 10
DEVICE_NAMES: tuple[str, ...] = tuple(BACKENDS)


def _parse(name: str) -> tuple[str, int]:
    kind, colon, index = name.partition(":")
    kind = kind.upper()
    if kind not in BACKENDS:
        raise UnknownDevice(
            f"There is no device {name!r}; the names are {', '.join(DEVICE_NAMES)}.",
            device=name, operation="open",
        )
    if colon and not (index.isdecimal() and int(index) < INSTANCE_LIMIT):
        raise UnknownDevice(
            f"Device {name!r} has {index!r} for its number, which goes from 0 to "
            f"{INSTANCE_LIMIT - 1}.",
            device=name, operation="open",
        )
    return kind, int(index) if colon else 0


def probe(name: str) -> tuple[bool, str]:
    """Whether a device would open here, and a sentence that says what it is or why not."""
    try:
        kind, _ = _parse(name)
        backend = BACKENDS[kind]
        sentence, remedy = backend.missing()
    except HardwareError as error:
        return False, str(error)
    if sentence:
        return False, " ".join(part for part in (sentence, remedy) if part)
    return True, f"{backend.title[0].upper()}{backend.title[1:]}."


def generations(name: str) -> dict[str, str]:
    """The kinds of hardware that a device name stands for: 'gfx1100': 'emulated only'."""
    return BACKENDS[_parse(name)[0]].generations()


def open_device(
    name: str = "LLVM",
    *,
    system: System | None = None,
    timeout_ms: float | None = None,
    memory_limit_bytes: int | None = None,
    cache_policy: CachePolicy | None = None,
) -> Device:
    """Opens a device by name, 'LLVM' or 'LLVM:1'; every call gives one of its own.

    `timeout_ms` is how long waits last that give no deadline: 30 s if it is None, ten times that
    on an emulated board, which may have to translate machine code first. Raises UnknownDevice or
    DeviceNotAvailable, each saying what to do.
    """
    kind, index = _parse(name)
    if timeout_ms is None:
        emulated = system is None and kind in _BOARDS and _emulated_boards(kind)
        timeout_ms = DEFAULT_TIMEOUT_MS * (_EMULATED_PATIENCE if emulated else 1)
    backend = BACKENDS[kind]
    sentence, remedy = backend.missing() if system is None else ("", "")
    if sentence or backend.open is None:
        raise DeviceNotAvailable(
            f"{name} cannot be opened: {sentence}", device=name, operation="open", remedy=remedy
        )
    return backend.open(
        f"{kind}:{index}", system=system, timeout_ms=timeout_ms,
        memory_limit_bytes=memory_limit_bytes, cache_policy=cache_policy,
    )
