"""What differs between AMD's GPU generations, as data: registers, packets, sizes.

Register offsets are relative to a segment of the GC block (autogen gc_*.REGISTERS: offset,
segment). Context-save sizes are kfd_queue.c's. `tested` says what has been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from autogen import (
    gc_9_4_2,
    gc_9_4_3,
    gc_10_3_0,
    gc_11_0_0,
    gc_12_0_0,
    ip_offset,
    mesa_registers,
    navi10_enum,
    soc21_enum,
    soc24_enum,
    vega10_enum,
)
from drivers.amd import packets
from drivers.amd.sdma import SDMA_4, SDMA_5, SDMA_6, SdmaPackets
from drivers.device import EMULATED, UNTESTED
from drivers.fields import Layout, put, single

# GC segments of the parts whose bases the discovery table gives; all of them have these two.
_GFX9_SEGMENTS = ip_offset.ALDEBARAN["GC"][0]
_GFX10_SEGMENTS = ip_offset.SIENNA_CICHLID["GC"][0]


@dataclass(frozen=True)
class Caches:
    """What a RELEASE_MEM and an ACQUIRE_MEM must name: fields of their layouts.

    `flush` makes everything visible to the system, `refresh` sees what the system wrote,
    `between` what another kernel of this queue wrote. Every list begins with a refresh, or has one
    behind its waits, so a flush need not invalidate: that would come too early anyway.
    """

    release: Layout
    acquire: Layout
    flush: Mapping[str, int]
    refresh: Mapping[str, int]
    between: Mapping[str, int]


_EVERYWHERE = {"size": packets.ACQUIRE_EVERYTHING, "poll_interval": 10}
_CACHES_GFX9 = Caches(
    packets.RELEASE_MEM_GFX9, packets.ACQUIRE_MEM_GFX9,
    # Before gfx10 the L2 cache writes everything back only where it invalidates, too (Mesa,
    # si_state_draw.cpp: TC_WB alone is no combination, TC_WB with TC_NC leaves memory types out).
    flush={"tc_wb_action_ena": 1, "tcl1_action_ena": 1, "tc_action_ena": 1, "tc_md_action_ena": 1},
    refresh={
        **_EVERYWHERE, "tc_wb_action_ena": 1, "tcl1_action_ena": 1, "tc_action_ena": 1,
        "sh_kcache_action_ena": 1, "sh_icache_action_ena": 1,
    },
    between={**_EVERYWHERE, "tcl1_action_ena": 1, "sh_kcache_action_ena": 1},
)
_CACHES_GFX10 = Caches(
    packets.RELEASE_MEM_GFX10, packets.ACQUIRE_MEM_GFX10,
    flush={"glm_wb": 1, "gl2_wb": 1, "seq": 1},
    refresh={
        **_EVERYWHERE, "gli_inv": 1, "glm_wb": 1, "glm_inv": 1, "glk_wb": 1, "glk_inv": 1,
        "glv_inv": 1, "gl1_inv": 1, "gl2_inv": 1, "gl2_wb": 1,
    },
    between={**_EVERYWHERE, "glk_inv": 1, "glv_inv": 1, "gl1_inv": 1},
)


# Vega ISA, 8.1.5: BUF_DATA_FORMAT_32, BUF_NUM_FORMAT_UINT. RDNA2 ISA, 8.1.5: no check of scratch.
_DATA_FORMAT_32, _NUM_FORMAT_UINT, _OOB_NONE = 4, 4, 2


@dataclass(frozen=True)
class Generation:
    """One architecture as LLVM names it, `gfx1100`.

    `lane_width`: lanes of a wave that the compiler is asked for. `wait_bits`: how wide a compute
    queue compares memory. `architected_scratch`: the wave finds its scratch in a register that
    COMPUTE_DISPATCH_SCRATCH_BASE presets; else in user SGPRs, as a buffer whose last word is
    `scratch_resource` of the wave's lanes. `clock_hz`: of the counter that
    timestamps take. `rsrc1_quirk`: bits that every launch sets in COMPUTE_PGM_RSRC1.
    `least_firmware`: by the topology's name for it; that there is any is what kfdtest asks for
    (KFDTopologyTest.cpp), and ROCm's runtime nothing more of these GPUs. `tested`: on what it has
    been run, as `python -m tinyhw info` says it.
    """

    name: str
    registers: Mapping[str, tuple[int, int]]
    fields: Mapping[str, Mapping[str, tuple[int, ...]]]
    events: Mapping[str, int]
    segments: tuple[int, ...]
    caches: Caches
    sdma: SdmaPackets
    lane_width: int = 32
    wait_bits: int = 64
    lds_granule_bytes: int = 512
    scratch_unit_bytes: int = 256
    scratch_waves_per_engine: bool = True
    architected_scratch: bool = True
    scratch_resource: Mapping[int, int] = field(default_factory=dict)
    vgpr_bytes_per_cu: int = 0x40000
    lds_bytes_per_cu: int = 0x10000
    control_bytes_per_wave: int = 12
    control_limit_bytes: int = 1 << 30
    clock_hz: int = 100_000_000
    rsrc1_quirk: int = 0
    least_firmware: Mapping[str, int] = field(
        default_factory=lambda: {"fw_version": 1, "sdma_fw_version": 1}
    )
    tested: str = UNTESTED

    @property
    def gfx9(self) -> bool:
        """Whether it is of the gfx9 family: waves of 64 lanes, CP_COHER_CNTL caches."""
        return self.caches is _CACHES_GFX9

    @cached_property
    def shader_registers(self) -> Mapping[str, int]:
        """The COMPUTE_* registers as SET_SH_REG wants them, in dwords from its start."""
        return {
            name: self.segments[segment] + offset - packets.SH_REG_START
            for name, (offset, segment) in self.registers.items()
            if name.startswith("COMPUTE_")
        }

    def register(self, name: str, **values: int) -> int:
        """A register's value from its fields; ValueError when one does not fit."""
        return _word(name, self.fields[name], **values)

    def field_limit(self, name: str, field: str) -> int:
        """The largest value of a register's field."""
        return int((1 << self.fields[name][field][1]) - 1)


def _word(name: str, fields: Mapping[str, tuple[int, ...]], **values: int) -> int:
    words = [0]
    for part, value in values.items():
        shift, width = fields[part]
        put(words, single(0, shift, width), value, f"{name}.{part}")
    return words[0]


def _scratch_resource(
    fields: Mapping[str, tuple[int, ...]], **values: int
) -> Mapping[int, int]:
    """Each lane of a wave of 32 or 64 has every 32nd or 64th dword (INDEX_STRIDE)."""
    return {
        lanes: _word(
            "SQ_BUF_RSRC_WORD3", fields, ADD_TID_ENABLE=1, INDEX_STRIDE=stride, **values
        )
        for lanes, stride in ((32, 2), (64, 3))
    }


def _gfx9(name: str, module_registers: Mapping[str, tuple[int, int]],
          module_fields: Mapping[str, Mapping[str, tuple[int, ...]]], **rest: object) -> Generation:
    values: dict[str, object] = {
        "lane_width": 64, "wait_bits": 32, "scratch_unit_bytes": 1024,
        "scratch_waves_per_engine": False, "vgpr_bytes_per_cu": 0x80000,
        "control_bytes_per_wave": 8, **rest,
    }
    return Generation(
        name, module_registers, module_fields, vega10_enum.VGT_EVENT_TYPE, _GFX9_SEGMENTS,
        _CACHES_GFX9, SDMA_4, **values,  # type: ignore[arg-type]
    )


# Saving a wave's context loses it on gfx11 unless it runs with RSRC1.PRIV.
_PRIVILEGED = 1 << gc_11_0_0.FIELDS["COMPUTE_PGM_RSRC1"]["PRIV"][0]


def _gfx11(name: str, **rest: int | str) -> Generation:
    return Generation(
        name, gc_11_0_0.REGISTERS, gc_11_0_0.FIELDS, soc21_enum.VGT_EVENT_TYPE, _GFX10_SEGMENTS,
        _CACHES_GFX10, SDMA_6, rsrc1_quirk=_PRIVILEGED, **rest,  # type: ignore[arg-type]
    )


def _gfx12(name: str, **rest: str) -> Generation:
    return Generation(
        name, gc_12_0_0.REGISTERS, gc_12_0_0.FIELDS, soc24_enum.VGT_EVENT_TYPE, _GFX10_SEGMENTS,
        _CACHES_GFX10, SDMA_6, vgpr_bytes_per_cu=0x60000, **rest,  # type: ignore[arg-type]
    )


GENERATIONS: dict[str, Generation] = {
    each.name: each
    for each in (
        _gfx9("gfx90a", gc_9_4_2.REGISTERS, gc_9_4_2.FIELDS, architected_scratch=False,
              tested=EMULATED, scratch_resource=_scratch_resource(
                  gc_9_4_2.FIELDS["SQ_BUF_RSRC_WORD3"], DATA_FORMAT=_DATA_FORMAT_32,
                  NUM_FORMAT=_NUM_FORMAT_UINT,
              )),
        _gfx9("gfx942", gc_9_4_3.REGISTERS, gc_9_4_3.FIELDS, tested=EMULATED),
        _gfx9("gfx950", gc_9_4_3.REGISTERS, gc_9_4_3.FIELDS, lds_granule_bytes=1280,
              lds_bytes_per_cu=0x28000),
        Generation(
            "gfx1030", gc_10_3_0.REGISTERS, gc_10_3_0.FIELDS, navi10_enum.VGT_EVENT_TYPE,
            _GFX10_SEGMENTS, _CACHES_GFX10, SDMA_5, scratch_unit_bytes=1024,
            architected_scratch=False, control_limit_bytes=0x7000, tested=EMULATED,
            scratch_resource=_scratch_resource(
                mesa_registers.GFX10_RSRC["SQ_BUF_RSRC_WORD3_gfx103"], RESOURCE_LEVEL=1,
                OOB_SELECT=_OOB_NONE,
                FORMAT=mesa_registers.GFX10_RSRC_ENUMS["GFX10_FORMAT"]["GFX10_FORMAT_32_UINT"],
            ),
        ),
        _gfx11("gfx1100", vgpr_bytes_per_cu=0x60000, tested=EMULATED),
        _gfx11("gfx1101", vgpr_bytes_per_cu=0x60000),
        _gfx11("gfx1102"),
        _gfx12("gfx1200"),
        _gfx12("gfx1201", tested=EMULATED),
    )
}


def architecture_name(target_version: int) -> str:
    """LLVM's name of a topology's gfx_target_version: 110000 is gfx1100, 90402 is gfx942."""
    major, rest = divmod(target_version, 10000)
    minor, stepping = divmod(rest, 100)
    return f"gfx{major}{minor:x}{stepping:x}"
