"""The boards that there are, a row each: what their topology says and what their engines speak.

Figures: one real product for each generation, as its kernel reports it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from drivers.emulated.caches import Action

Segments = tuple[int, ...]


@dataclass(frozen=True)
class Board:
    """One kind of GPU."""

    name: str
    gfx_target_version: int  # major * 10000 + minor * 100 + stepping
    marketing_name: str
    device_id: int
    simd_count: int
    simd_per_cu: int
    array_count: int
    simd_arrays_per_engine: int
    cu_per_simd_array: int
    max_waves_per_simd: int
    max_slots_scratch_cu: int
    wave_front_size: int
    num_sdma_engines: int
    num_sdma_queues_per_engine: int
    num_sdma_xgmi_engines: int
    max_engine_clk_mhz: int
    vram_bytes: int
    memory_width_bits: int
    memory_clk_mhz: int
    fw_version: int
    sdma_fw_version: int
    gc_registers: str  # module of autogen
    sdma_packets: str  # module of autogen
    modern_cache_packets: bool  # ACQUIRE_MEM and RELEASE_MEM with GCR (gfx10 on)
    ip_versions: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    ip_bases: dict[str, Segments] = field(default_factory=dict)
    num_xcc: int = 1
    lds_kib: int = 64
    vgpr_bytes_per_cu: int = 0x40000
    capability: int = 0
    cwsr_lds_bytes_per_cu: int = 0x10000

    @property
    def packed_thread_ids(self) -> bool:
        """Whether v0 holds x, y and z of the thread (gfx90a, gfx940 on, gfx11 on)."""
        return self.gfx_target_version // 10000 != 10

    @property
    def architected_group_ids(self) -> bool:
        """Whether waves find their workgroup's number in trap registers (gfx12 on)."""
        return self.gfx_target_version >= 120000

    @property
    def architected_scratch(self) -> bool:
        """Whether waves find their scratch by a register of the dispatch (gfx940 on, gfx11 on)."""
        return 90400 <= self.gfx_target_version < 100000 or self.gfx_target_version >= 110000

    @property
    def first_level(self) -> Action:
        """What invalidates all caches of the first level: gfx10 and gfx11 have one more."""
        both = Action.INVALIDATE_VECTOR | Action.INVALIDATE_SCALAR
        middle = self.gfx_target_version // 10000 in (10, 11)
        return both | Action.INVALIDATE_MIDDLE if middle else both

    @property
    def scratch_unit_bytes(self) -> int:
        """The unit of TMPRING_SIZE.WAVESIZE."""
        return 256 if self.gfx_target_version >= 110000 else 1024

    @property
    def tmpring_wavesize(self) -> tuple[int, int]:
        """Shift and width of TMPRING_SIZE.WAVESIZE."""
        return 12, {12: 18, 11: 15}.get(self.gfx_target_version // 10000, 13)

    @property
    def cu_count(self) -> int:
        """Compute units of one accelerator die."""
        return self.simd_count // self.simd_per_cu // self.num_xcc

    @property
    def wave_count(self) -> int:
        """Waves that a context save must have room for (kfd_queue.c)."""
        if self.gfx_target_version < 100100:
            engines = self.array_count // self.simd_arrays_per_engine
            return min(self.cu_count * 40, engines * 512)
        return self.cu_count * 32

    @property
    def ctl_stack_bytes(self) -> int:
        """The control stack that a queue's save area must have, as the kernel computes it."""
        each = 12 if self.gfx_target_version >= 100100 else 8
        size = (40 + 8 + self.wave_count * each + 4095) & -4096
        if self.gfx_target_version // 10000 == 10:
            return min(size, 0x7000)
        return size

    @property
    def cwsr_bytes(self) -> int:
        """The context save area that a queue must have, control stack included."""
        each = self.vgpr_bytes_per_cu + 0x4000 + self.cwsr_lds_bytes_per_cu + 0x1000
        return self.ctl_stack_bytes + ((self.cu_count * each + 4095) & -4096)

    @property
    def debug_memory_bytes(self) -> int:
        """What lies behind the save area for a debugger."""
        return (self.wave_count * 32 + 63) & -64


_GFX10_ON: Segments = (0x1260, 0xA000, 0x1C000, 0x2402C00)
_GFX9: Segments = (0x2000, 0xA000, 0x2402C00)
_NBIO: Segments = (0x0, 0x14, 0xD20, 0x10400, 0x241B000, 0x4040000)
_OSS_SDMA: Segments = (0x1260, 0xA000, 0x1C000, 0x2402C00)

# HSA_CAPABILITY (hsakmttypes.h): doorbell type 2 in bits 12-13; watch points 4 (bits 8-11: log2);
# AQL queue double map off. HSAMMUPresent (bit 1) is 0 on a discrete GPU.
_CAPABILITY = 2 << 12 | 2 << 8 | 1 << 7

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board(
            "gfx1100", 110000, "Radeon RX 7900 XTX (emulated)", 0x744C, simd_count=192,
            simd_per_cu=2, array_count=12, simd_arrays_per_engine=2, cu_per_simd_array=8,
            max_waves_per_simd=16, max_slots_scratch_cu=32, wave_front_size=32,
            num_sdma_engines=2, num_sdma_queues_per_engine=6, num_sdma_xgmi_engines=0,
            max_engine_clk_mhz=2482, vram_bytes=24560 << 20, memory_width_bits=384,
            memory_clk_mhz=1249, fw_version=2280, sdma_fw_version=24,
            gc_registers="gc_11_0_0", sdma_packets="sdma_v6", modern_cache_packets=True,
            ip_versions={"GC": (11, 0, 0), "SDMA0": (6, 0, 0), "NBIF": (4, 3, 0)},
            ip_bases={"GC": _GFX10_ON, "SDMA0": _OSS_SDMA, "NBIF": _NBIO},
            vgpr_bytes_per_cu=0x60000, capability=_CAPABILITY,
        ),
        Board(
            "gfx1030", 100300, "Radeon RX 6900 XT (emulated)", 0x73BF, simd_count=160,
            simd_per_cu=2, array_count=8, simd_arrays_per_engine=2, cu_per_simd_array=10,
            max_waves_per_simd=16, max_slots_scratch_cu=32, wave_front_size=32,
            num_sdma_engines=2, num_sdma_queues_per_engine=8, num_sdma_xgmi_engines=0,
            max_engine_clk_mhz=2660, vram_bytes=16368 << 20, memory_width_bits=256,
            memory_clk_mhz=1000, fw_version=115, sdma_fw_version=80,
            gc_registers="gc_10_3_0", sdma_packets="sdma_v5", modern_cache_packets=True,
            ip_versions={"GC": (10, 3, 0), "SDMA0": (5, 2, 0), "NBIF": (3, 3, 0)},
            ip_bases={"GC": _GFX10_ON, "SDMA0": _OSS_SDMA, "NBIF": _NBIO},
            capability=_CAPABILITY,
        ),
        Board(
            "gfx1201", 120001, "Radeon RX 9070 XT (emulated)", 0x7550, simd_count=128,
            simd_per_cu=2, array_count=8, simd_arrays_per_engine=2, cu_per_simd_array=8,
            max_waves_per_simd=16, max_slots_scratch_cu=32, wave_front_size=32,
            num_sdma_engines=2, num_sdma_queues_per_engine=8, num_sdma_xgmi_engines=0,
            max_engine_clk_mhz=2970, vram_bytes=16304 << 20, memory_width_bits=256,
            memory_clk_mhz=1258, fw_version=2780, sdma_fw_version=858,
            gc_registers="gc_12_0_0", sdma_packets="sdma_v6", modern_cache_packets=True,
            ip_versions={"GC": (12, 0, 1), "SDMA0": (7, 0, 1), "NBIF": (6, 3, 1)},
            ip_bases={"GC": _GFX10_ON, "SDMA0": _OSS_SDMA, "NBIF": _NBIO},
            vgpr_bytes_per_cu=0x60000, capability=_CAPABILITY,
        ),
        Board(
            "gfx90a", 90010, "Instinct MI210 (emulated)", 0x740F, simd_count=416,
            simd_per_cu=4, array_count=8, simd_arrays_per_engine=1, cu_per_simd_array=14,
            max_waves_per_simd=8, max_slots_scratch_cu=32, wave_front_size=64,
            num_sdma_engines=2, num_sdma_queues_per_engine=8, num_sdma_xgmi_engines=3,
            max_engine_clk_mhz=1700, vram_bytes=65520 << 20, memory_width_bits=4096,
            memory_clk_mhz=1600, fw_version=78, sdma_fw_version=8,
            gc_registers="gc_9_4_2", sdma_packets="sdma_v4", modern_cache_packets=False,
            ip_versions={"GC": (9, 4, 2), "SDMA0": (4, 4, 0), "NBIF": (7, 4, 4)},
            ip_bases={"GC": _GFX9, "SDMA0": (0x1260, 0x2445400), "NBIF": _NBIO},
            vgpr_bytes_per_cu=0x80000, capability=_CAPABILITY,
        ),
        Board(
            "gfx942", 90402, "Instinct MI300X (emulated)", 0x74A1, simd_count=1216,
            simd_per_cu=4, array_count=32, simd_arrays_per_engine=1, cu_per_simd_array=10,
            max_waves_per_simd=8, max_slots_scratch_cu=32, wave_front_size=64,
            num_sdma_engines=2, num_sdma_queues_per_engine=8, num_sdma_xgmi_engines=14,
            max_engine_clk_mhz=2100, vram_bytes=196592 << 20, memory_width_bits=8192,
            memory_clk_mhz=1300, fw_version=177, sdma_fw_version=24,
            gc_registers="gc_9_4_3", sdma_packets="sdma_v4", modern_cache_packets=False,
            ip_versions={"GC": (9, 4, 3), "SDMA0": (4, 4, 2), "NBIF": (7, 9, 0)},
            ip_bases={"GC": _GFX9, "SDMA0": (0x1260, 0x2445400), "NBIF": _NBIO},
            num_xcc=8, vgpr_bytes_per_cu=0x80000, capability=_CAPABILITY,
        ),
    )
}
