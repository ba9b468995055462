"""Kernels of the GPU: a cubin's code in memory, and what every launch of it has.

A launch is a QMD and constant bank 0: what the driver tells compiled code (block, grid, windows,
stack; drivers/nv/generations.py), then the arguments. Both are made once, except for grid,
arguments and their own addresses.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Final

from compiler import cubin
from compiler.code_object import CodeObject
from compiler.cubin import VARIABLE_ALIGNMENT
from compiler.errors import MalformedObject, UnsupportedObject
from compiler.nvidia import WARP
from drivers.encoded import SLOT_BYTES, aligned
from drivers.errors import ArgumentMismatch, MalformedInput
from drivers.fields import put
from drivers.gpu import GpuProgram
from drivers.nv.channel import LOCAL_WINDOW, SHARED_WINDOW
from drivers.queue import Size
from drivers.system import PAGE_BYTES

if TYPE_CHECKING:
    from drivers.nv.device import NvDevice
    from drivers.nv.generations import Generation

_PREFETCH_BYTES: Final = PAGE_BYTES  # instructions are fetched beyond the last one
_BANK_ALIGNMENT: Final = 64  # the addresses of V4's banks lack six bits
_SHARED_GRANULE: Final = 128
_LOCAL_END: Final = 1 << 24  # local addresses of a thread have 24 bits; its stack is at their end
LOCAL_RESERVED_BYTES: Final = 0x240
"""At the end of a thread's local memory, above the first stack frame: the system's."""
_LOCAL_GRANULE: Final = 16
_THREADS_LIMIT: Final = 1024


class NvProgram(GpuProgram):
    """A kernel in a GPU's memory."""

    def __init__(self, device: NvDevice, code: CodeObject) -> None:
        self.code, self.device_name = code, device.name
        generation = device.gpu.generation
        content = _checked(generation, code, device.name)
        self.kernel = content.kernels[code.name]
        self.size_bytes = len(content.place(code.name, 0))
        banks = content.banks | self.kernel.banks
        banks_at = aligned(self.size_bytes, _BANK_ALIGNMENT)
        sizes = (aligned(len(bank.content), _BANK_ALIGNMENT) for bank in banks.values())
        variables_at = aligned(banks_at + sum(sizes), VARIABLE_ALIGNMENT)
        self._storage = device.allocator.allocate(
            variables_at + content.variables_bytes + VARIABLE_ALIGNMENT + _PREFETCH_BYTES
        )
        self.address = aligned(self._storage.address, VARIABLE_ALIGNMENT)
        ctypes.memmove(self.address, content.place(code.name, self.address), self.size_bytes)
        variables = self.address + variables_at
        first = content.variables.placed(variables)
        ctypes.memmove(variables, first, len(first))
        ctypes.memset(variables + len(first), 0, content.variables_bytes - len(first))
        self._banks = self._placed_banks(self.address + banks_at, {
            number: bank.placed(variables) for number, bank in banks.items()
        })
        stack = self.kernel.stack_bytes
        self.local_bytes = (
            aligned(stack + LOCAL_RESERVED_BYTES, _LOCAL_GRANULE) if stack else 0
        )
        self.shared_bytes = aligned(
            self.kernel.shared_bytes + generation.reserved_shared_bytes, _SHARED_GRANULE
        )
        self.arguments_at, self.grid_at = self.kernel.parameter_base, generation.bank.grid
        self._bank = self._constant_bank(generation)
        self.qmd_words = tuple(self._qmd(device))

    def __repr__(self) -> str:
        return f"<Program {self.name} at {self.address:#x}>"

    @staticmethod
    def _placed_banks(address: int, banks: dict[int, bytes]) -> dict[int, tuple[int, int]]:
        """Writes the banks that the compiler filled; the address and size of each."""
        found = {}
        for number, content in banks.items():
            size = aligned(len(content), _BANK_ALIGNMENT)
            ctypes.memmove(address, content.ljust(size, b"\0"), size)
            found[number] = address, size
            address += size
        return found

    def _constant_bank(self, generation: Generation) -> bytes:
        """Bank 0 as every launch has it; the grid and the arguments follow."""
        end = self.arguments_at + SLOT_BYTES * len(self.code.params)
        size = aligned(max(len(self.kernel.constants), end), _LOCAL_GRANULE)
        bank = bytearray(self.kernel.constants.ljust(size, b"\0"))
        places = generation.bank
        struct.pack_into("<3I", bank, places.block, *self.code.block)
        struct.pack_into("<Q", bank, places.shared_window, SHARED_WINDOW)
        struct.pack_into("<Q", bank, places.local_window, LOCAL_WINDOW)
        struct.pack_into("<I", bank, places.stack, _LOCAL_END - LOCAL_RESERVED_BYTES)
        return bytes(bank)

    def change_bank(self, offset: int, content: bytes) -> None:
        """Puts other bytes into every later launch's bank 0: for experiments."""
        self._bank = self._bank[:offset] + content + self._bank[offset + len(content) :]

    def bank(self, grid: tuple[Size, Size, Size], arguments: bytes) -> bytearray:
        """Bank 0 of one launch; what Vars stand for is 0."""
        bank = bytearray(self._bank)
        sizes = (size if isinstance(size, int) else 0 for size in grid)
        struct.pack_into("<3I", bank, self.grid_at, *sizes)
        bank[self.arguments_at : self.arguments_at + len(arguments)] = arguments
        return bank

    def _qmd(self, device: NvDevice) -> list[int]:
        """The QMD but for the grid and the address of the constant bank."""
        generation = device.gpu.generation
        layout = generation.qmd
        words = [0] * (layout.size_bytes // 4)
        carveout = generation.carveout(self.shared_bytes)
        values = {
            **layout.fixed,
            "SASS_VERSION": device.gpu.sass_version,
            "PROGRAM_ADDRESS": self.address,
            "REGISTER_COUNT": self.kernel.registers,
            "BARRIER_COUNT": self.kernel.barriers,
            "SHARED_MEMORY_SIZE": self.shared_bytes,
            "MIN_SM_CONFIG_SHARED_MEM_SIZE": carveout,
            "TARGET_SM_CONFIG_SHARED_MEM_SIZE": carveout,
            "MAX_SM_CONFIG_SHARED_MEM_SIZE": generation.carveout(
                generation.carveouts_kib[-1] << 10
            ),
            "SHADER_LOCAL_MEMORY_HIGH_SIZE": self.local_bytes,
            "CONSTANT_BUFFER_SIZE": len(self._bank),
            **{f"CTA_THREAD_DIMENSION{i}": size for i, size in enumerate(self.code.block)},
        }
        for name, value in values.items():
            put(words, layout.fields[name], value, f"QMD.{name}")
        for number, (address, size) in self._banks.items():
            fields = layout.bank(number)
            for name, value in (
                ("CONSTANT_BUFFER_VALID", 1), ("CONSTANT_BUFFER_INVALIDATE", 1),
                ("CONSTANT_BUFFER_ADDR", address), ("CONSTANT_BUFFER_SIZE", size),
            ):
                put(words, fields[name], value, f"QMD.{name}({number})")
        return words


def _checked(generation: Generation, code: CodeObject, device: str) -> cubin.Cubin:
    """The cubin, if its kernel is one for this GPU that does not contradict its description."""

    def malformed(sentence: str) -> MalformedInput:
        return MalformedInput(f"Kernel {code.name} {sentence}.", device=device, operation="load")

    if code.arch != generation.name:
        raise ArgumentMismatch(
            f"Kernel {code.name} is for {code.arch}; {device} is {generation.name}.",
            device=device, operation="load",
        )
    if code.entry:
        raise malformed(f"enters at byte {code.entry}; a cubin's kernel is entered by its name")
    for relocation in code.relocations:
        raise malformed(
            f"relocates 8 bytes at {relocation.offset}; a cubin has its relocations in itself"
        )
    if not code.image:
        raise malformed("has an image of 0 bytes")
    try:
        content = cubin.read(code.image)
        if code.name in content.kernels:
            content.place(code.name, 0)
    except MalformedObject as error:
        raise malformed(f"is no whole cubin: {error}") from error
    except UnsupportedObject as error:
        raise malformed(f"is not one that this driver places: {error}") from error
    if content.arch != generation.name or code.name not in content.kernels:
        raise malformed(
            f"is not in its cubin, which has {', '.join(content.kernels) or 'none'} for "
            f"{content.arch}"
        )
    kernel = content.kernels[code.name]
    offsets = [parameter.offset for parameter in kernel.parameters]
    if offsets != [SLOT_BYTES * i for i in range(len(code.params))]:
        raise malformed(
            f"has parameters at {offsets}; its description says {len(code.params)} of "
            f"{SLOT_BYTES} bytes"
        )
    threads = code.block[0] * code.block[1] * code.block[2]
    if not 1 <= threads <= _THREADS_LIMIT:
        raise malformed(f"has {threads} threads in a block, beyond 1 to {_THREADS_LIMIT}")
    if kernel.registers * aligned(threads, WARP) > 1 << 16:
        raise malformed(f"takes {kernel.registers} registers for each of {threads} threads")
    if kernel.shared_bytes > generation.shared_limit_bytes:
        raise malformed(
            f"takes {kernel.shared_bytes} bytes of shared memory; a block has "
            f"{generation.shared_limit_bytes}"
        )
    return content
