"""Which module is made from which headers, and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

AMD = "drivers/gpu/drm/amd"
KERNEL = "linux-source-6.12"
KFDTEST = "libhsakmt/tests/kfdtest/include"

# Registers that a program without privileges writes through packets, reads to explain a hang, or
# finds in machine code and fault reports. The headers hold a hundred times as many.
GC_REGISTERS = (
    "COMPUTE_.*",
    "GRBM_GFX_INDEX",
    "GRBM_STATUS.*",
    "CP_STAT|CP_CPC_(STATUS|BUSY_STAT2?|STALLED_STAT1)",
    "CP_COHER_CNTL",
    "GCR_GENERAL_CNTL",
    "SCRATCH_REG[0-7]",
    "SH_MEM_(BASES|CONFIG)",
    "SPI_CONFIG_CNTL(_[12])?(_REMAP)?",
    "SQ_SHADER_T[BM]A_(LO|HI)",
    "SQ_BUF_RSRC_WORD[0-3]",
    "SQ_WAVE_(MODE|STATUS|TRAPSTS|HW_ID[12]?|XCC_ID|GPR_ALLOC|LDS_ALLOC|IB_STS2?)",
    "SQ_WAVE_(STATE_PRIV|EXCP_FLAG_(PRIV|USER)|SCHED_MODE|TRAP_CTRL)",
    "RLC_GPU_CLOCK_COUNT_(LSB|MSB)",
    "(GC)?VM_L2_PROTECTION_FAULT_STATUS(_LO32|_HI32)?",
)
IP_BLOCKS = ("GC", "SDMA\\d*", "NBIO", "NBIF0", "HDP", "MMHUB", "OSSSYS")
ENUMERATIONS = ("VGT_EVENT_TYPE", "MTYPE", "SH_MEM_ADDRESS_MODE", "SH_MEM_ALIGNMENT_MODE")


@dataclass(frozen=True)
class Module:
    """One generated file of `autogen/`.

    `headers` are paths inside the package. `kind` chooses the generator: types (structures,
    enumerations and macros), macros, sdma (bit fields as macros), structures (bit fields and
    enumerators of C++ headers), registers, enums, segments, mesa (its JSON).
    """

    name: str
    title: str
    package: str
    headers: tuple[str, ...]
    licence: str
    kind: Literal["types", "macros", "sdma", "structures", "registers", "enums", "segments", "mesa"]
    beside: tuple[str, ...] = ()  # more headers that these include
    folders: tuple[str, ...] = ()  # include folders inside the packages
    stubs: tuple[str, ...] = ()  # included by the headers, but nothing of them is used
    keep: tuple[str, ...] = ()  # patterns or names, depending on the kind
    names: Mapping[str, str] = field(default_factory=dict)


UAPI = ("usr/include", "usr/lib/linux/uapi/x86")
UAPI_FILES = ("usr/include/*.h", "usr/lib/linux/uapi/x86/*.h")
MIT = "MIT"
NCSA = "NCSA (University of Illinois)"
HSA = "usr/include/hsa"

KFD = Module(
    "kfd", "ioctls of /dev/kfd.", "linux-libc-dev", ("usr/include/linux/kfd_ioctl.h",),
    MIT, "types", beside=UAPI_FILES, folders=UAPI,
)  # fmt: skip
AMDGPU_DRM = Module(
    "amdgpu_drm", "ioctls of the render node /dev/dri/renderD*.", "linux-libc-dev",
    ("usr/include/drm/amdgpu_drm.h",), MIT, "types", beside=UAPI_FILES, folders=UAPI,
)  # fmt: skip
HSA_TYPES = Module(
    "hsa", "AQL packets, queues, signals and kernel descriptors.", "libhsa-runtime-dev",
    tuple(f"{HSA}/{name}.h" for name in (
        "hsa", "amd_hsa_common", "amd_hsa_queue", "amd_hsa_signal", "amd_hsa_kernel_code",
        "hsa_ext_amd",
    )),
    NCSA, "types",
    beside=(f"{HSA}/*.h",), folders=("usr/include", HSA),
    keep=(
        "hsa_(signal|queue|agent|region|fence_scope|packet|kernel_dispatch|agent_dispatch|barrier)"
        "(_.*)?",
        "hsa_amd_(packet|barrier_value|vendor_packet).*",
        "amd_.*",
    ),
)  # fmt: skip


def pm4(name: str, header: str, title: str) -> Module:
    """The kernel's opcodes and field macros of one family."""
    return Module(name, title, KERNEL, (f"{AMD}/amdgpu/{header}",), MIT, "macros")


def sdma(name: str, header: str, title: str) -> Module:
    """The fields of every SDMA packet of one generation."""
    return Module(name, title, KERNEL, (f"{AMD}/amdgpu/{header}_pkt_open.h",), MIT, "sdma")


def gc(version: str, title: str) -> Module:
    """The registers of one version of the graphics and compute block."""
    headers = tuple(f"{AMD}/include/asic_reg/gc/gc_{version}_{part}.h" for part in
                    ("offset", "sh_mask"))  # fmt: skip
    return Module(f"gc_{version}", title, KERNEL, headers, MIT, "registers", keep=GC_REGISTERS)


def nbio(block: str, version: str, title: str, function: str = "PF[01]?") -> Module:
    """The registers with which a queue flushes the host data path."""
    headers = tuple(f"{AMD}/include/asic_reg/{block}/{block}_{version}_{part}.h" for part in
                    ("offset", "sh_mask"))  # fmt: skip
    return Module(f"{block}_{version}", title, KERNEL, headers, MIT, "registers",
                  keep=(f"BIF_BX_{function}_GPU_HDP_FLUSH_(REQ|DONE)",))  # fmt: skip


def enums(name: str, title: str) -> Module:
    """The values of a few register and packet fields."""
    header = f"{AMD}/include/{name}_enum.h"
    return Module(f"{name}_enum", title, KERNEL, (header,), MIT, "enums", keep=ENUMERATIONS)


PM4_STRUCTURES = {
    "PM4_TYPE_3_HEADER": "HEADER",
    "PM4DISPATCH_DIRECT": "DISPATCH_DIRECT",
    "PM4EVENT_WRITE": "EVENT_WRITE",
    "PM4SET_SH_REG": "SET_SH_REG",
    "PM4MEC_INDIRECT_BUFFER": "INDIRECT_BUFFER",
    "PM4MEC_WAIT_REG_MEM": "WAIT_REG_MEM",
    "PM4WRITE_DATA_CI": "WRITE_DATA",
    "PM4ACQUIRE_MEM": "ACQUIRE_MEM_AI",
    "PM4ACQUIRE_MEM_NV": "ACQUIRE_MEM_NV",
    "PM4MEC_RELEASE_MEM_AI": "RELEASE_MEM_AI",
    "PM4MEC_RELEASE_MEM_NV": "RELEASE_MEM_NV",
}
SDMA_STRUCTURES = {
    f"SDMA_PKT_{name}": name
    for name in (
        "COPY_LINEAR", "COPY_LINEAR_RECT", "COPY_LINEAR_RECT_GFX12", "CONSTANT_FILL", "FENCE",
        "POLL_REGMEM", "ATOMIC", "TIMESTAMP", "TRAP", "GCR",
    )
}  # fmt: skip

MODULES = (
    KFD,
    AMDGPU_DRM,
    HSA_TYPES,
    pm4("pm4_soc15", "soc15d.h", "PM4 opcodes and fields of gfx9."),
    pm4("pm4_nv", "nvd.h", "PM4 opcodes and fields of gfx10 and later."),
    Module("pm4_mesa", "PM4 selectors that the kernel's headers do not name (COPY_DATA, DMA_DATA).",
           "mesa", ("src/amd/common/sid.h",), MIT, "macros", stubs=("amdgfxregs.h",)),
    Module("mesa_registers", "Buffer descriptors and words of PM4 packets, as Mesa has them.",
           "mesa", tuple(f"src/amd/registers/{name}.json" for name in
                         ("pkt3", "gfx10-rsrc", "gfx11-rsrc", "gfx12-rsrc")), MIT, "mesa",
           keep=(r"(SQ_BUF_RSRC|GCR_CNTL|RELEASE_MEM|ACQUIRE_MEM|DMA_DATA|COMMAND_gfx9|IB_CON)\w*",
                 r"GFX1\d_FORMAT")),
    Module("pm4_rocr", "PM4 fields with their widths, as AMD's runtime writes them.",
           "rocr-runtime", ("runtime/hsa-runtime/core/inc/amd_gpu_pm4.h",), NCSA, "macros"),
    Module("pm4_packets", "Where the fields of PM4 packets lie, from AMD's kfdtest.",
           "rocr-runtime",
           tuple(f"{KFDTEST}/pm4_pkt_struct_{part}.h" for part in ("common", "ci", "ai", "nv")),
           MIT, "structures", names=PM4_STRUCTURES, keep=(r"\w+_(mec_)?(write_data|release_mem|"
           r"wait_reg_mem|event_write|indirect_buffer|acquire_mem)_\w+",)),
    sdma("sdma_v4", "vega10_sdma", "SDMA packets of gfx9 (SDMA 4.x)."),
    sdma("sdma_v5", "navi10_sdma", "SDMA packets of gfx10 (SDMA 5.x)."),
    sdma("sdma_v6", "sdma_v6_0_0", "SDMA packets of gfx11 and gfx12 (SDMA 6.x and 7.0)."),
    Module("sdma_rocr", "The SDMA packets that AMD's runtime writes.", "rocr-runtime",
           ("runtime/hsa-runtime/core/inc/sdma_registers.h",), NCSA, "structures",
           names=SDMA_STRUCTURES, keep=(r"SDMA_(OP|SUBOP|ATOMIC)_\w+",)),
    Module("amd_hsa_elf", "ELF flags, note types and machine numbers of AMDGPU code objects.",
           "libhsa-runtime-dev", (f"{HSA}/amd_hsa_elf.h",), NCSA, "structures",
           keep=(r"(EM|ELFOSABI|ELFABIVERSION|EF|NT|PT|R|SHF|STT)_\w+",)),
    Module("amdhsa", "The kernel descriptor and the fields of its three resource registers.",
           "llvm-19-dev", ("usr/include/llvm-19/llvm/Support/AMDHSAKernelDescriptor.h",),
           "Apache-2.0 WITH LLVM-exception", "structures", stubs=("cstddef", "cstdint"),
           names={"kernel_descriptor_t": "kernel_descriptor_t"}, keep=(r"[A-Z]\w+",)),
    gc("9_4_2", "Registers of gfx90a."),
    gc("9_4_3", "Registers of gfx942 and gfx950."),
    gc("10_3_0", "Registers of gfx103x."),
    gc("11_0_0", "Registers of gfx110x."),
    gc("11_5_0", "Registers of gfx115x."),
    gc("12_0_0", "Registers of gfx120x."),
    nbio("nbio", "7_4", "HDP flush of gfx90a.", "DEV0_EPF0_VF0"),
    nbio("nbio", "7_9_0", "HDP flush of gfx942 and gfx950."),
    nbio("nbio", "2_3", "HDP flush of gfx103x."),
    nbio("nbio", "4_3_0", "HDP flush of gfx1100 to gfx1102."),
    nbio("nbio", "7_7_0", "HDP flush of gfx1103."),
    nbio("nbio", "7_11_0", "HDP flush of gfx115x."),
    nbio("nbif", "6_3_1", "HDP flush of gfx120x."),
    enums("vega10", "Event types and memory types of gfx9."),
    enums("navi10", "Event types and memory types of gfx10."),
    enums("soc21", "Event types and memory types of gfx11."),
    enums("soc24", "Event types and memory types of gfx12."),
    Module("ip_offset", "Segment bases where no discovery table tells them: gfx90a and gfx1030.",
           KERNEL, (f"{AMD}/include/aldebaran_ip_offset.h",
                    f"{AMD}/include/sienna_cichlid_ip_offset.h"), MIT, "segments", keep=IP_BLOCKS),
    Module("soc15_hw_ip", "Hardware block numbers, as in sysfs ip_discovery/die/*.",
           KERNEL, (f"{AMD}/include/soc15_hw_ip.h",), MIT, "macros"),
)  # fmt: skip
