"""Leads a library of somebody else to an emulated board, in a process of its own.

The library is loaded as it is; the slots of its global offset table for `open`, `fopen`,
`opendir`, `ioctl` and libdrm's opening functions are overwritten with functions of ours. mmap
and close stay the system's: the board's descriptors are real. x86-64 only.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from elftools.elf.elffile import ELFFile

from drivers.emulated.system import PREFIXES, EmulatedSystem
from drivers.system import libc

JUMP_SLOTS = (6, 7)  # R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT


def base_address(path: str) -> int:
    """Where a library is mapped."""
    real = os.path.realpath(path)
    with open("/proc/self/maps") as maps:
        return min(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(real))


def overwrite(path: str, functions: dict[str, Any]) -> None:
    """Overwrites a loaded library's slots for the functions of those names."""
    base = base_address(path)
    with open(path, "rb") as file:
        elf = ELFFile(file)
        symbols = elf.get_section_by_name(".dynsym")
        for name in (".rela.plt", ".rela.dyn"):
            section = elf.get_section_by_name(name)
            for relocation in section.iter_relocations() if section else ():
                if relocation["r_info_type"] not in JUMP_SLOTS:
                    continue
                symbol = symbols.get_symbol(relocation["r_info_sym"]).name
                if symbol not in functions:
                    continue
                slot = base + relocation["r_offset"]
                libc().mprotect(slot & -4096, 8192, 3)
                address = ctypes.cast(functions[symbol], ctypes.c_void_p).value
                ctypes.c_uint64.from_address(slot).value = address or 0


class Leader:
    """The functions that stand in for the system's."""

    def __init__(self, system: EmulatedSystem, folder: str) -> None:
        self.system, self.folder = system, folder
        for path, text in system.files().items():
            target = folder + path
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w") as file:
                file.write(text)
        real = ctypes.CDLL(None, use_errno=True)
        for function in (real.fopen, real.opendir):
            function.restype = ctypes.c_void_p
        self.real = real
        text, number, word = ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p

        def made(result: Any, function: Callable[..., Any], *arguments: Any) -> Any:
            return ctypes.CFUNCTYPE(result, *arguments, use_errno=True)(function)

        self.functions = {
            "open": made(number, self.open, text, number, number),
            "fopen": made(word, self.fopen, text, text),
            "opendir": made(word, self.opendir, text),
            "ioctl": made(number, self.ioctl, number, ctypes.c_ulong, word),
            "drmOpenRender": made(number, self.drm_open_render, number),
            "drmClose": made(number, self.drm_close, number),
            "amdgpu_device_initialize": made(number, self.no_device, number, word, word, word),
        }

    def _moved(self, path: bytes) -> bytes:
        if os.fsdecode(path).startswith(PREFIXES):
            return os.fsencode(self.folder) + path
        return path

    def _guarded(self, call: Callable[[], int]) -> int:
        try:
            return call()
        except OSError as error:
            ctypes.set_errno(error.errno or 5)
        except Exception:
            traceback.print_exc()
            ctypes.set_errno(5)
        return -1

    def open(self, path: bytes, flags: int, mode: int) -> int:
        name = os.fsdecode(path)
        if name.startswith("/dev/"):
            return self._guarded(lambda: self.system.open(name, flags))
        return int(self.real.open(self._moved(path), flags, mode))

    def fopen(self, path: bytes, mode: bytes) -> int | None:
        result = self.real.fopen(self._moved(path), mode)
        ctypes.set_errno(ctypes.get_errno())
        return int(result) if result else None

    def opendir(self, path: bytes) -> int | None:
        result = self.real.opendir(self._moved(path))
        return int(result) if result else None

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        return self._guarded(
            lambda: self.system.ioctl(descriptor, request & 0xFFFFFFFF, argument or 0)
        )

    def drm_open_render(self, minor: int) -> int:
        return self._guarded(lambda: self.system.open(f"/dev/dri/renderD{minor}", os.O_RDWR))

    def drm_close(self, descriptor: int) -> int:
        return self._guarded(lambda: self.system.close(descriptor) or 0)

    def no_device(self, *_: int) -> int:
        return -1  # only asked for the product's name


def main(task: Callable[[EmulatedSystem, Leader], None], system: EmulatedSystem) -> None:
    """Runs a task with a machine; the exit status tells."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            task(system, Leader(system, folder))
        except BaseException:
            traceback.print_exc()
            print(*system.log(), sep="\n", file=sys.stderr)
            os._exit(1)
        finally:
            system.shut_down()
    print("done")
    sys.stdout.flush()
    os._exit(0)
