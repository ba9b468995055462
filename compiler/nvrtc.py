"""NVRTC inside this process: CUDA C++ in, a cubin out. Needs neither CUDA nor a GPU.

The library comes as the package `nvidia-cuda-nvrtc`; a CUDA installation's is found as well.
Source of the calls: nvrtc.h.
"""

from __future__ import annotations

import ctypes
import functools
import threading

from compiler import nvidia_wheels
from compiler.errors import ToolFailed, ToolMissing

REMEDY = "Run `pip install 'tinyhw[nv]'`, which brings nvidia-cuda-nvrtc."
_OPTIONS = (
    "--std=c++17", "--device-as-default-execution-space", "--extra-device-vectorization",
    "--fmad=true", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "-default-device",
)  # fmt: skip
_lock = threading.Lock()  # one compilation at a time, as with LLVM


@functools.cache
def _library() -> ctypes.CDLL:
    return _declared(
        nvidia_wheels.load("nvrtc", "NVRTC, which compiles for NVIDIA GPUs,", REMEDY)
    )


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    program, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    pointer = ctypes.POINTER
    signatures = {
        "nvrtcVersion": (pointer(ctypes.c_int), pointer(ctypes.c_int)),
        "nvrtcCreateProgram": (
            pointer(program), text, text, ctypes.c_int, pointer(text), pointer(text),
        ),
        "nvrtcCompileProgram": (program, ctypes.c_int, pointer(text)),
        "nvrtcDestroyProgram": (pointer(program),),
        "nvrtcGetCUBINSize": (program, pointer(size)),
        "nvrtcGetCUBIN": (program, text),
        "nvrtcGetProgramLogSize": (program, pointer(size)),
        "nvrtcGetProgramLog": (program, text),
    }  # fmt: skip
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_int, arguments
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    library.nvrtcGetErrorString.argtypes = (ctypes.c_int,)
    return library


def missing() -> str:
    """Why nothing can be compiled here, or ''."""
    try:
        _library()
    except ToolMissing as error:
        return str(error)
    return ""


@functools.cache
def version() -> str:
    """NVRTC's version, for cache keys and reports."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return f"NVRTC {major.value}.{minor.value} {' '.join(_OPTIONS)}"


def _check(result: int, call: str, said: str = "") -> None:
    if result:
        name = _library().nvrtcGetErrorString(result).decode()
        words = f" and said:\n{said}" if said else "."
        raise ToolFailed(f"{call} failed with {name}{words}", operation=call)


def _bytes_of(program: ctypes.c_void_p, what: str) -> bytes:
    """The cubin or the log of a program."""
    library, size, call = _library(), ctypes.c_size_t(), f"nvrtcGet{what}"
    _check(getattr(library, f"{call}Size")(program, ctypes.byref(size)), f"{call}Size")
    buffer = ctypes.create_string_buffer(max(1, size.value))
    _check(getattr(library, call)(program, buffer), call)
    return buffer.raw[: size.value]


def compile_cuda(text: str, arch: str) -> bytes:
    """The cubin of CUDA C++ for an architecture such as `sm_90`.

    Raises ToolMissing without NVRTC, ToolFailed with what it said of the text.
    """
    library = _library()
    options = [f"--gpu-architecture={arch}", *_OPTIONS]
    with _lock:
        program = ctypes.c_void_p()
        _check(
            library.nvrtcCreateProgram(
                ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None
            ),
            "nvrtcCreateProgram",
        )
        try:
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            result = library.nvrtcCompileProgram(program, len(options), given)
            if result:
                said = _bytes_of(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
                _check(result, "nvrtcCompileProgram", said.strip())
            return _bytes_of(program, "CUBIN")
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))
