"""NVIDIA GPUs as the compiler sees them: a table of architectures.

Sources: CUDA C++ Programming Guide, "Compute Capabilities"; the tuning guides of each
architecture. Caches and numbers of multiprocessors are those of the largest part with that
number; they only steer heuristics.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from compiler.errors import InvalidKernel
from compiler.ir import Op
from compiler.nvidia_matrix import MATRIX_UNITS, TF32
from compiler.target import Target

WARP = 32
"""Threads that run together."""


TRIPLE = "nvptx64-nvidia-cuda"
COMPILERS = ("nvrtc", "nvptx")
"""CUDA C by NVRTC; LLVM's PTX by nvJitLink."""


class Architecture(NamedTuple):
    """One compute capability: shared memory of a block and caches in KiB, multiprocessors.

    `ptx` is a version of the PTX ISA that has it.
    """

    shared_kib: int
    l1_kib: int
    l2_kib: int
    multiprocessors: int
    ptx: int = 80


ARCHITECTURES = {
    "sm_75": Architecture(48, 32, 6144, 72),  # Turing
    "sm_80": Architecture(48, 128, 40960, 108),  # Ampere, GA100
    "sm_86": Architecture(48, 64, 6144, 84),
    "sm_89": Architecture(48, 64, 73728, 128, 84),  # Ada
    "sm_90": Architecture(48, 128, 51200, 132, 84),  # Hopper
    "sm_100": Architecture(48, 128, 126976, 148, 86),  # Blackwell
    "sm_120": Architecture(48, 64, 98304, 170, 87),
}
"""A block may declare 48 KiB of shared memory; more has to be asked for at launch."""


@functools.cache
def gpu_target(
    arch: str, multiprocessors: int = 0, tf32: bool = False, compiler: str = "nvrtc"
) -> Target:
    """The Target of `arch`; a driver that knows the board gives its multiprocessors.

    `compiler` is one of COMPILERS. `tf32`: products of float32 may lose 13 bits of their factors'
    fractions, for tensor cores.
    """
    if arch not in ARCHITECTURES:
        raise InvalidKernel(
            f"There is no target for {arch}; there are {', '.join(ARCHITECTURES)}.",
            operation="gpu_target",
        )
    if compiler not in COMPILERS:
        raise InvalidKernel(
            f"There is no compiler {compiler!r} for {arch}; there are {', '.join(COMPILERS)}.",
            operation="gpu_target",
        )
    known = ARCHITECTURES[arch]
    units = MATRIX_UNITS[arch]
    if tf32 and arch != "sm_75":
        units += (TF32,)
    return Target(
        compiler,
        arch,
        cpu=arch,
        features=f"+ptx{known.ptx}",
        lane_width=WARP,
        block_threads=256,
        # LLVM has none of CUDA's log2f, and lg2.approx is less exact near 1.
        native=(Op.EXP2, Op.LOG2) if compiler == "nvrtc" else (Op.EXP2,),
        matrix_units=units,
        vector_bits=32,
        vector_registers=256,
        threads=multiprocessors or known.multiprocessors,
        l1_bytes=known.l1_kib << 10,
        l2_bytes=known.l2_kib << 10,
        local_bytes=known.shared_kib << 10,
        triple=TRIPLE,
    )
