"""The boards that there are, a row each: what RM tells of them and what their engines speak.

Figures: one real product for each generation, as its driver reports it.
"""

from __future__ import annotations

from dataclasses import dataclass

from autogen import nv_555 as nv


@dataclass(frozen=True)
class Board:
    """One kind of GPU. Classes are those that CLASSLIST tells, the native one first."""

    name: str
    marketing_name: str
    device_id: int
    architecture: int  # NV2080_CTRL_MC_ARCH_INFO_ARCHITECTURE_*
    implementation: int
    usermode_classes: tuple[int, ...]
    channel_classes: tuple[int, ...]
    compute_class: int
    copy_class: int
    channel_methods: str  # modules of autogen
    compute_methods: str
    copy_methods: str
    qmd_versions: tuple[tuple[int, int], ...]
    gpcs: int
    tpcs_per_gpc: int
    sms: int
    max_warps_per_sm: int
    shared_kib: int  # of an SM, for shared memory
    block_shared_kib: int
    vram_bytes: int
    copy_engines: int
    address_bits: int = 40  # of a pushbuffer segment and of a host semaphore

    sms_per_tpc = 2
    graphics_engine = 1  # NV2080_ENGINE_TYPE_GRAPHICS

    @property
    def sm(self) -> int:
        """The compute capability: 75, 89, 90."""
        return int(self.name.removeprefix("sm_"))

    @property
    def classes(self) -> tuple[int, ...]:
        """What CLASSLIST tells."""
        return (
            nv.NV01_MEMORY_SYSTEM, nv.NV01_MEMORY_LOCAL_USER, nv.FERMI_VASPACE_A,
            nv.KEPLER_CHANNEL_GROUP_A, nv.FERMI_CONTEXT_SHARE_A, nv.GT200_DEBUGGER,
            *self.usermode_classes, *self.channel_classes, self.compute_class, self.copy_class,
        )


_TURING_CHANNEL = (nv.TURING_CHANNEL_GPFIFO_A,)
_AMPERE_CHANNEL = (nv.AMPERE_CHANNEL_GPFIFO_A, nv.TURING_CHANNEL_GPFIFO_A)

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board(
            "sm_75", "NVIDIA GeForce RTX 2080 Ti (emulated)", 0x1E07, 0x160, 2,
            (nv.TURING_USERMODE_A,), _TURING_CHANNEL, nv.TURING_COMPUTE_A, nv.TURING_DMA_COPY_A,
            "nv_clc46f", "nv_clc5c0", "nv_clc5b5", qmd_versions=((2, 3), (2, 2)),
            gpcs=6, tpcs_per_gpc=6, sms=68, max_warps_per_sm=32, shared_kib=64,
            block_shared_kib=64, vram_bytes=11264 << 20, copy_engines=6,
        ),
        Board(
            "sm_86", "NVIDIA GeForce RTX 3090 (emulated)", 0x2204, 0x170, 2,
            (nv.AMPERE_USERMODE_A, nv.TURING_USERMODE_A), _AMPERE_CHANNEL,
            nv.AMPERE_COMPUTE_B, nv.AMPERE_DMA_COPY_B,
            "nv_clc56f", "nv_clc7c0", "nv_clc7b5", qmd_versions=((3, 0), (2, 4)),
            gpcs=7, tpcs_per_gpc=6, sms=82, max_warps_per_sm=48, shared_kib=100,
            block_shared_kib=99, vram_bytes=24576 << 20, copy_engines=5,
        ),
        Board(
            "sm_89", "NVIDIA GeForce RTX 4090 (emulated)", 0x2684, 0x190, 2,
            (nv.AMPERE_USERMODE_A, nv.TURING_USERMODE_A), _AMPERE_CHANNEL,
            nv.ADA_COMPUTE_A, nv.AMPERE_DMA_COPY_B,
            "nv_clc56f", "nv_clc7c0", "nv_clc7b5", qmd_versions=((3, 0), (2, 4)),
            gpcs=12, tpcs_per_gpc=6, sms=128, max_warps_per_sm=48, shared_kib=100,
            block_shared_kib=99, vram_bytes=24564 << 20, copy_engines=5,
        ),
        Board(
            "sm_90", "NVIDIA H100 80GB HBM3 (emulated)", 0x2330, 0x180, 0,
            (nv.HOPPER_USERMODE_A, nv.AMPERE_USERMODE_A, nv.TURING_USERMODE_A),
            (nv.HOPPER_CHANNEL_GPFIFO_A, *_AMPERE_CHANNEL),
            nv.HOPPER_COMPUTE_A, nv.HOPPER_DMA_COPY_A,
            "nv_clc86f", "nv_clc6c0", "nv_clc8b5", qmd_versions=((4, 0), (3, 0)),
            gpcs=8, tpcs_per_gpc=9, sms=132, max_warps_per_sm=64, shared_kib=228,
            block_shared_kib=227, vram_bytes=81559 << 20, copy_engines=10,
        ),
    )
}
