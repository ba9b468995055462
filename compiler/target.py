"""What the optimiser and the renderers know about a processor: data, not code."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir import Op
from compiler.matrix import MatrixUnit


@dataclass(frozen=True)
class Target:
    """One architecture as the compiler sees it.

    `compiler` names the back end ('llvm', 'clang'); `arch` the instruction set
    ('x86_64', 'aarch64', 'gfx1100', ...); `cpu` and `features` go to the back end as they are.
    `lane_width` is 1 on processors and 32 or 64 on GPUs, where a block has `block_threads`.
    `native` are the functions (EXP2, LOG2) that it computes on float32 by itself, `matrix_units`
    its matrix instructions. `vector_bits`/`vector_registers` describe one register file,
    `threads` how many blocks run at once, caches and local memory are in bytes.
    """

    compiler: str
    arch: str
    cpu: str = ""
    features: str = ""
    lane_width: int = 1
    block_threads: int = 1
    native: tuple[Op, ...] = ()
    matrix_units: tuple[MatrixUnit, ...] = ()
    vector_bits: int = 128
    vector_registers: int = 16
    threads: int = 1
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    local_bytes: int = 1 << 20
    triple: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether blocks are plain function calls on the host's processor."""
        return self.lane_width == 1
