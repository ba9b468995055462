"""Kernels of the processor: a code object mapped into executable memory."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

from compiler.code_object import CodeObject
from drivers.errors import ArgumentMismatch, MalformedInput, SystemCallFailed
from drivers.native.image import map_code
from drivers.queue import Program
from drivers.system import System

_numbers = itertools.count(1)


class CpuProgram(Program):
    """A kernel at `entry_address`. `number` is how records name it in reports."""

    def __init__(
        self, code: CodeObject, entry_address: int, give_back: Callable[[], None]
    ) -> None:
        self.code, self.entry_address, self._give_back = code, entry_address, give_back
        self.number = next(_numbers)

    def __del__(self) -> None:
        give_back = getattr(self, "_give_back", None)
        if give_back is not None:
            give_back()

    def __repr__(self) -> str:
        return f"<Program {self.name} at {self.entry_address:#x}>"


def _check(code: CodeObject, arch: str, device: str) -> None:
    size = len(code.image)
    if code.arch != arch:
        raise ArgumentMismatch(
            f"Kernel {code.name} is for {code.arch}; {device} is {arch}.",
            device=device, operation="load",
        )
    if not 0 <= code.entry < size:
        raise MalformedInput(
            f"Kernel {code.name} enters at byte {code.entry} of an image of {size}.",
            device=device, operation="load",
        )
    for relocation in code.relocations:
        if not 0 <= relocation.offset <= size - 8:
            raise MalformedInput(
                f"Kernel {code.name} relocates 8 bytes at {relocation.offset}; its image has "
                f"{size} bytes.",
                device=device, operation="load",
            )


def load_program(
    system: System,
    code: CodeObject,
    arch: str,
    device: str,
    later: Callable[[Callable[[], None], int], None],
) -> CpuProgram:
    """Maps a code object. Its memory goes back, by `later`, when nothing in flight can run it."""
    _check(code, arch, device)
    try:
        address, size = map_code(system, code.image, code.relocations)
    except OSError as error:
        raise SystemCallFailed.wrap(error, "load", device) from error

    def unmap() -> None:
        with contextlib.suppress(OSError):
            system.munmap(address, size)

    return CpuProgram(code, address + code.entry, lambda: later(unmap, 0))
