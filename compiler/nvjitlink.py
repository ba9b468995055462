"""nvJitLink inside this process: PTX in, a cubin out. Needs neither CUDA nor a GPU.

The library comes as the package `nvidia-nvjitlink`; a CUDA installation's is found as well.
Source of the calls: nvJitLink.h.
"""

from __future__ import annotations

import ctypes
import functools
import threading

from compiler import nvidia_wheels
from compiler.errors import ToolFailed, ToolMissing

REMEDY = "Run `pip install 'tinyhw[nv]'`, which brings nvidia-nvjitlink."
_INPUT_PTX = 2  # nvJitLinkInputType
_RESULTS = (
    "SUCCESS", "ERROR_UNRECOGNIZED_OPTION", "ERROR_MISSING_ARCH", "ERROR_INVALID_INPUT",
    "ERROR_PTX_COMPILE", "ERROR_NVVM_COMPILE", "ERROR_INTERNAL", "ERROR_THREADPOOL",
    "ERROR_UNRECOGNIZED_INPUT", "ERROR_FINALIZE",
)  # fmt: skip
_lock = threading.Lock()  # one compilation at a time, as with LLVM


@functools.cache
def _library() -> ctypes.CDLL:
    library = nvidia_wheels.load(
        "nvJitLink", "nvJitLink, which makes NVIDIA's machine code of PTX,", REMEDY
    )
    handle, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    pointer = ctypes.POINTER
    signatures = {
        "nvJitLinkVersion": (pointer(ctypes.c_uint), pointer(ctypes.c_uint)),
        "nvJitLinkCreate": (pointer(handle), ctypes.c_uint32, pointer(text)),
        "nvJitLinkDestroy": (pointer(handle),),
        "nvJitLinkAddData": (handle, ctypes.c_int, text, size, text),
        "nvJitLinkComplete": (handle,),
        "nvJitLinkGetLinkedCubinSize": (handle, pointer(size)),
        "nvJitLinkGetLinkedCubin": (handle, text),
        "nvJitLinkGetErrorLogSize": (handle, pointer(size)),
        "nvJitLinkGetErrorLog": (handle, text),
    }
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_int, arguments
    return library


def missing() -> str:
    """Why nothing can be linked here, or ''."""
    try:
        _library()
    except ToolMissing as error:
        return str(error)
    return ""


@functools.cache
def version() -> str:
    """nvJitLink's version, for cache keys and reports."""
    major, minor = ctypes.c_uint(), ctypes.c_uint()
    _library().nvJitLinkVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"nvJitLink {major.value}.{minor.value}"


def link_ptx(text: str, arch: str) -> bytes:
    """The cubin of PTX for an architecture such as `sm_90`.

    Raises ToolMissing without nvJitLink, ToolFailed with what it said of the text.
    """
    library = _library()
    options = (ctypes.c_char_p * 1)(f"-arch={arch}".encode())
    content = text.encode() + b"\0"
    with _lock:
        handle = ctypes.c_void_p()
        _check(library.nvJitLinkCreate(ctypes.byref(handle), 1, options), "nvJitLinkCreate")
        try:
            for call, arguments in (
                ("nvJitLinkAddData", (_INPUT_PTX, content, len(content), b"kernel.ptx")),
                ("nvJitLinkComplete", ()),
            ):
                if result := getattr(library, call)(handle, *arguments):
                    said = _bytes_of(handle, "ErrorLog").rstrip(b"\0").decode(errors="replace")
                    _check(result, call, said.strip())
            return _bytes_of(handle, "LinkedCubin")
        finally:
            library.nvJitLinkDestroy(ctypes.byref(handle))


def _check(result: int, call: str, said: str = "") -> None:
    if result:
        name = _RESULTS[result] if result < len(_RESULTS) else f"error {result}"
        words = f" and said:\n{said}" if said else "."
        raise ToolFailed(f"{call} failed with {name}{words}", operation=call)


def _bytes_of(handle: ctypes.c_void_p, what: str) -> bytes:
    """The cubin or the log of errors."""
    library, size, call = _library(), ctypes.c_size_t(), f"nvJitLinkGet{what}"
    _check(getattr(library, f"{call}Size")(handle, ctypes.byref(size)), f"{call}Size")
    buffer = ctypes.create_string_buffer(max(1, size.value))
    _check(getattr(library, call)(handle, buffer), call)
    return buffer.raw[: size.value]
