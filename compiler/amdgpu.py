"""AMD GPUs as the compiler sees them: a table of architectures, and the kernel descriptor.

Sources: LLVM's AMDGPUUsage.rst ("Code Object V5 Kernel Descriptor", "Memory Spaces") and
AMDHSAKernelDescriptor.h, whose names the descriptor's fields have. Sizes of caches are those of
the largest part with that name; they only steer heuristics.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import NamedTuple

from compiler.amdgpu_matrix import MATRIX_UNITS
from compiler.check import check_block, check_types
from compiler.errors import InvalidKernel, UnsupportedObject
from compiler.ir import Op
from compiler.linear import LinearKernel
from compiler.target import Target

TRIPLE = "amdgcn-amd-amdhsa"

class Architecture(NamedTuple):
    """One `gfx` number: threads of a wave, memories in KiB, compute units."""

    lane_width: int
    local_kib: int
    l1_kib: int
    l2_kib: int
    compute_units: int


ARCHITECTURES = {
    "gfx90a": Architecture(64, 64, 16, 8192, 104),  # CDNA2
    "gfx942": Architecture(64, 64, 32, 4096, 304),  # CDNA3
    "gfx950": Architecture(64, 160, 32, 4096, 256),  # CDNA4
    "gfx1030": Architecture(32, 64, 16, 4096, 80),  # RDNA2
    "gfx1100": Architecture(32, 64, 32, 6144, 96),  # RDNA3
    "gfx1101": Architecture(32, 64, 32, 4096, 60),
    "gfx1102": Architecture(32, 64, 32, 2048, 32),
    "gfx1200": Architecture(32, 64, 32, 4096, 32),  # RDNA4
    "gfx1201": Architecture(32, 64, 32, 8192, 64),
}


@functools.cache
def gpu_target(arch: str, compute_units: int = 0) -> Target:
    """The Target of `arch`; a driver that knows the board gives its number of compute units."""
    if arch not in ARCHITECTURES:
        raise InvalidKernel(
            f"There is no target for {arch}; there are {', '.join(ARCHITECTURES)}.",
            operation="gpu_target",
        )
    known = ARCHITECTURES[arch]
    return Target(
        "llvm",
        arch,
        cpu=arch,
        features=f"+wavefrontsize{known.lane_width}",
        lane_width=known.lane_width,
        block_threads=256,
        native=(Op.EXP2, Op.LOG2),
        matrix_units=MATRIX_UNITS.get(arch, ()),
        vector_bits=32,
        vector_registers=256,
        threads=compute_units or known.compute_units,
        l1_bytes=known.l1_kib << 10,
        l2_bytes=known.l2_kib << 10,
        local_bytes=known.local_kib << 10,
        triple=TRIPLE,
    )


def check(kernel: LinearKernel, target: Target) -> None:
    """Raises InvalidKernel or UnsupportedType for what LLVM would not refuse but die of."""
    check_types(kernel)
    check_block(kernel, target)


# ---- the kernel descriptor ----

_DESCRIPTOR = struct.Struct("<III4xq20xIIIHH4x")
assert _DESCRIPTOR.size == 64

CODE_ALIGNMENT = 256
"""Bytes: dispatch registers hold the address of the code without its low 8 bits."""

_KERNARG_SEGMENT_PTR = 1 << 3
_WAVEFRONT_SIZE32 = 1 << 10
_PRIVATE_SEGMENT = 1 << 0 | 1 << 5 | 1 << 6
"""ENABLE_SGPR_PRIVATE_SEGMENT_BUFFER, _FLAT_SCRATCH_INIT, _PRIVATE_SEGMENT_SIZE."""


@dataclass(frozen=True)
class KernelDescriptor:
    """What the command processor must know of a kernel: 64 bytes in front of its code.

    `kernel_code_entry_byte_offset` counts from the descriptor. LDS_SIZE in `compute_pgm_rsrc2` is
    0: whoever launches the kernel writes it, from `group_segment_fixed_size`.
    """

    group_segment_fixed_size: int
    private_segment_fixed_size: int
    kernarg_size: int
    kernel_code_entry_byte_offset: int
    compute_pgm_rsrc3: int
    compute_pgm_rsrc1: int
    compute_pgm_rsrc2: int
    kernel_code_properties: int
    kernarg_preload: int

    @classmethod
    def decode(cls, image: bytes, offset: int = 0) -> KernelDescriptor:
        """The descriptor at `offset` of an image (`CodeObject.entry`)."""
        return cls(*_DESCRIPTOR.unpack_from(image, offset))

    def encode(self) -> bytes:
        """Its 64 bytes."""
        return _DESCRIPTOR.pack(*vars(self).values())

    @property
    def wave32(self) -> bool:
        """Whether 32 threads run together, not 64."""
        return bool(self.kernel_code_properties & _WAVEFRONT_SIZE32)


def descriptor_of(image: bytes, offset: int, kernel: LinearKernel) -> KernelDescriptor:
    """A kernel's descriptor; raises UnsupportedObject if it asks for what our drivers do not do."""
    found = KernelDescriptor.decode(image, offset)
    code = offset + found.kernel_code_entry_byte_offset
    known = _KERNARG_SEGMENT_PTR | _WAVEFRONT_SIZE32 | _PRIVATE_SEGMENT
    wrong = ""
    if offset % 64 or code % CODE_ALIGNMENT or not 0 <= code < len(image):
        wrong = f"its descriptor at {offset:#x} and code at {code:#x}"
    elif found.kernarg_size != 8 * len(kernel.params):
        wrong = f"{found.kernarg_size} bytes of arguments for {len(kernel.params)} parameters"
    elif found.kernel_code_properties & ~known or found.kernarg_preload:
        wrong = f"properties {found.kernel_code_properties:#x}, preload {found.kernarg_preload:#x}"
    if wrong:
        raise UnsupportedObject(
            f"The machine code of {kernel.name} has {wrong}, which no driver of ours expects.",
            operation="build",
        )
    return found
