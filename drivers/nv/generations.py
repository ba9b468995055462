"""What differs between generations of GPUs: classes, methods, QMDs, constant bank 0.

Class numbers: the `class/cl*.h` of NVIDIA's open kernel modules; those of Blackwell are in no
package yet (open-gpu-doc, clcdc0.h and clcec0.h, whose methods used here are those of Hopper).
Shared memory: CUDA C++ Programming Guide, "Compute Capabilities". Places in constant bank 0 were
found by compiling for each architecture: code from NVIDIA's compilers reads them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from autogen import nv_555 as nv
from autogen import (
    nv_clc5b5,
    nv_clc5c0,
    nv_clc6c0,
    nv_clc7b5,
    nv_clc7c0,
    nv_clc8b5,
    nv_clc46f,
    nv_clc56f,
    nv_clc86f,
)
from drivers.device import EMULATED, UNTESTED
from drivers.nv import qmd
from drivers.nv.methods import ComputeMethods, CopyMethods, HostMethods
from drivers.nv.qmd import Qmd


@dataclass(frozen=True)
class ConstantBank:
    """Where compiled code looks for what the driver must tell it, in bytes of bank 0."""

    block: int
    grid: int
    shared_window: int
    local_window: int
    stack: int


_CLASSIC: Final = ConstantBank(0x0, 0xC, 0x18, 0x20, 0x28)
_BLACKWELL: Final = ConstantBank(0x360, 0x370, 0x2F0, 0x2F8, 0x37C)


@dataclass(frozen=True)
class Methods:
    """The method tables of a generation's engines."""

    host: HostMethods
    compute: ComputeMethods
    copy: CopyMethods


@dataclass(frozen=True)
class Generation:
    """One architecture. `carveouts_kib` are the sizes of shared memory a multiprocessor offers.

    `reserved_shared_bytes` of each block's shared memory are the system's.
    """

    name: str
    usermode: int
    gpfifo: int
    compute: int
    copy: int
    methods: Methods
    qmd: Qmd
    bank: ConstantBank
    carveouts_kib: tuple[int, ...]
    reserved_shared_bytes: int = 0x400
    tested: str = UNTESTED

    def carveout(self, shared_bytes: int) -> int:
        """The QMD's number for the smallest carve-out that holds a block's shared memory."""
        size = next((kib for kib in self.carveouts_kib if kib << 10 >= shared_bytes), 0)
        if not size and shared_bytes:
            raise ValueError(f"{shared_bytes} bytes of shared memory are beyond all carve-outs")
        return size // 4 + 1

    @property
    def shared_limit_bytes(self) -> int:
        """Shared memory that one block may have without asking for more than the default."""
        return 48 << 10


_TURING: Final = Methods(
    HostMethods(nv_clc46f), ComputeMethods(nv_clc5c0, signals_with_action=False),
    CopyMethods(nv_clc5b5),
)
_GA100: Final = Methods(
    HostMethods(nv_clc56f), ComputeMethods(nv_clc6c0, signals_with_action=True),
    CopyMethods(nv_clc7b5),
)
_AMPERE: Final = Methods(
    HostMethods(nv_clc56f), ComputeMethods(nv_clc7c0, signals_with_action=True),
    CopyMethods(nv_clc7b5),
)
_HOPPER: Final = Methods(
    HostMethods(nv_clc86f), ComputeMethods(nv_clc6c0, signals_with_action=True),
    CopyMethods(nv_clc8b5),
)
_UP_TO_100: Final = (8, 16, 32, 64, 100)
_UP_TO_228: Final = (*_UP_TO_100, 132, 164, 196, 228)
_BLACKWELL_USERMODE: Final = 0xC761

GENERATIONS: Final = {
    each.name: each for each in (
        Generation(
            "sm_75", nv.TURING_USERMODE_A, nv.TURING_CHANNEL_GPFIFO_A, nv.TURING_COMPUTE_A,
            nv.TURING_DMA_COPY_A, _TURING, qmd.V2, _CLASSIC, (32, 64), 0, tested=EMULATED,
        ),
        Generation(
            "sm_80", nv.AMPERE_USERMODE_A, nv.AMPERE_CHANNEL_GPFIFO_A, nv.AMPERE_COMPUTE_A,
            nv.AMPERE_DMA_COPY_A, _GA100, qmd.V3, _CLASSIC, (*_UP_TO_100, 132, 164),
        ),
        Generation(
            "sm_86", nv.AMPERE_USERMODE_A, nv.AMPERE_CHANNEL_GPFIFO_A, nv.AMPERE_COMPUTE_B,
            nv.AMPERE_DMA_COPY_B, _AMPERE, qmd.V3, _CLASSIC, _UP_TO_100, tested=EMULATED,
        ),
        Generation(
            "sm_89", nv.AMPERE_USERMODE_A, nv.AMPERE_CHANNEL_GPFIFO_A, nv.ADA_COMPUTE_A,
            nv.AMPERE_DMA_COPY_B, _AMPERE, qmd.V3, _CLASSIC, _UP_TO_100, tested=EMULATED,
        ),
        Generation(
            "sm_90", nv.HOPPER_USERMODE_A, nv.HOPPER_CHANNEL_GPFIFO_A, nv.HOPPER_COMPUTE_A,
            nv.HOPPER_DMA_COPY_A, _HOPPER, qmd.V4, _CLASSIC, _UP_TO_228,
            tested=EMULATED,
        ),
        Generation(
            "sm_100", _BLACKWELL_USERMODE, 0xC96F, 0xCDC0, 0xC9B5, _HOPPER, qmd.V5, _BLACKWELL,
            _UP_TO_228,
        ),
        Generation(
            "sm_120", _BLACKWELL_USERMODE, 0xCA6F, 0xCEC0, 0xCAB5, _HOPPER, qmd.V5, _BLACKWELL,
            _UP_TO_100,
        ),
    )
}
