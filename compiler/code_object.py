"""A compiled kernel: the machine code and everything a driver must know to launch it."""

from __future__ import annotations

from dataclasses import dataclass, field

from compiler.dtype import DType


@dataclass(frozen=True)
class Param:
    """One kernel argument, an 8-byte slot of argument memory at 8 * its position.

    `kind` is 'buffer' (a 64-bit device address) or 'scalar' (a value of `dtype`,
    little-endian at the slot's start; Variables are int64). `written` marks outputs.
    """

    kind: str
    dtype: DType
    name: str
    written: bool = False


@dataclass(frozen=True)
class Relocation:
    """An absolute 64-bit address that the loader writes: image base + addend at `offset`."""

    offset: int
    addend: int


@dataclass(frozen=True)
class CodeObject:
    """A flat, position-independent image with its entry point and launch description.

    On processors the entry has the C signature
    `void entry(const void *kernarg, uint32_t x, uint32_t y, uint32_t z)` and runs one block;
    On AMD GPUs it is the offset of the kernel descriptor (`compiler/amdgpu.py`), 64-byte aligned,
    where dispatch packets want it; the code lies where the descriptor says.
    For NVIDIA GPUs the image is a cubin (`compiler/cubin.py`) and the entry 0.
    `grid` is the number of blocks to launch unless the caller says otherwise (GPU code that comes
    from a plan relies on its being no more), `block` the threads of each. A block takes
    `local_bytes` of local memory, a thread `private_bytes` of scratch memory; threads run in
    groups of `lane_width`.
    `operations` and `bytes_moved` are estimates for reports only.
    """

    name: str
    arch: str
    image: bytes
    entry: int
    params: tuple[Param, ...]
    grid: tuple[int, int, int] = (1, 1, 1)
    block: tuple[int, int, int] = (1, 1, 1)
    local_bytes: int = 0
    private_bytes: int = 0
    lane_width: int = 1
    relocations: tuple[Relocation, ...] = ()
    source: str = field(default="", repr=False)
    operations: int = 0
    bytes_moved: int = 0
