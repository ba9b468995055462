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
    enumerators of C++ headers), registers, enums, segments, mesa (its JSON), methods and qmds
    (NVIDIA's classes).
    """

    name: str
    title: str
    package: str
    headers: tuple[str, ...]
    licence: str
    kind: Literal[
        "types", "macros", "sdma", "structures", "registers", "enums", "segments", "mesa",
        "methods", "qmds",
    ]
    beside: tuple[str, ...] = ()  # more headers that these include
    folders: tuple[str, ...] = ()  # include folders inside the packages
    first: tuple[str, ...] = ()  # what headers take for granted that somebody has included
    stubs: tuple[str, ...] = ()  # included by the headers, but nothing of them is used
    keep: tuple[str, ...] = ()  # patterns or names, depending on the kind
    macros: tuple[str, ...] = ()  # patterns of macros that are kept; none means all
    names: Mapping[str, str] = field(default_factory=dict)


UAPI = ("usr/include", "usr/lib/linux/uapi/x86")
UAPI_FILES = ("usr/include/*.h", "usr/lib/linux/uapi/x86/*.h")
MIT = "MIT"
NCSA = "NCSA (University of Illinois)"
HSA = "usr/include/hsa"

SDK = "src/common/sdk/nvidia/inc"
UNIX = "src/nvidia/arch/nvalloc/unix/include"
UVM, COMMON = "kernel-open/nvidia-uvm", "kernel-open/common/inc"


# What a driver of compute queues says to RM, by the names in the headers.
RM_CALLS = (
    r"NV0000_CTRL_(CMD_)?SYSTEM_GET_(BUILD_VERSION|CPU_INFO)\w*",
    r"NV0000_CTRL_(CMD_)?GPU_(GET_(ATTACHED_IDS|PROBED_IDS|ID_INFO)|MAX|INVALID_ID)\w*",
    r"NV0080_CTRL_(CMD_)?GPU_GET_(CLASSLIST|NUM_SUBDEVICES|VIRTUALIZATION_MODE)\w*",
    r"NV2080_CTRL_(CMD_)?GPU_(GET_(GID_INFO|INFO|NAME_STRING|SHORT_NAME_STRING|SIMULATION_INFO"
    r"|ENGINES|ACTIVE_PARTITION_IDS|PIDS)|INFO_(INDEX|MAX|LIST)|MAX|ECC|CMD_GPU_GET_GID_FLAGS)\w*",
    r"NV2080_GPU_(CMD_GPU_GET_GID_FLAGS|MAX)\w*",
    r"NV2080_CTRL_(CMD_)?GR_(GET_(INFO|GPC_MASK|TPC_MASK|SM_TO_GPC_TPC_MAPPINGS)|INFO_\w*"
    r"|ROUTE_INFO)\w*",
    r"NV2080_CTRL_(CMD_)?FB_(GET_INFO|INFO_)\w*",
    r"NV2080_CTRL_(CMD_)?(PERF_BOOST|BUS_GET_PCI_INFO|BUS_GET_PCI_BAR_INFO|MC_GET_ARCH_INFO)\w*",
    r"NV2080_CTRL_(PERF_BOOST|MC_ARCH_INFO|BUS_PCI_BAR|BUS_INFO_INDEX)\w*",
    r"NV83DE_CTRL_(CMD_)?DEBUG_(READ_(ALL_SM_ERROR_STATES|MMU_FAULT_INFO)|SET_EXCEPTION_MASK"
    r"|CLEAR_ALL_SM_ERROR_STATES|MAX_SMS)\w*",
    r"NV83DE_(SM_ERROR_STATE|MMU_FAULT)\w*",
    r"NVA06C_CTRL_(CMD_)?(GPFIFO_SCHEDULE|PREEMPT|SET_TIMESLICE|GET_TIMESLICE|GET_INFO)\w*",
    r"NVA06F_CTRL_(CMD_)?(GPFIFO_SCHEDULE|BIND|STOP_CHANNEL|GET_MMU_FAULT_INFO)\w*",
    r"NVC36F_CTRL_(CMD_)?(GPFIFO_GET_WORK_SUBMIT_TOKEN|GPFIFO_UPDATE_FAULT_METHOD_BUFFER"
    r"|GPFIFO_SET_WORK_SUBMIT_TOKEN_NOTIF_INDEX|GET_CLASS_ENGINEID)\w*",
    r"NVOS(00|02|05|21|30|32|33|34|46|47|54|55|56|57|64)_\w+",
    r"NVOS(04_FLAGS|_STATUS|_INCLUDED|_MAX)\w*",
    r"NV(01|03|04|20|50|0000|0041|0080|2080|83DE|A06F|GPU)_(?!CTRL)\w+",
    r"(NV|FERMI|KEPLER|VOLTA|TURING|AMPERE|HOPPER|ADA|GT200|MEMORY)_(?!CTRL)\w+",
    r"NVC(461|561|661)_(?!CTRL)\w+",
    r"(ROBUST_CHANNEL|UVM(?!_TOOLS|_\w*COUNTER)|nv_ioctl|nv|nv_pci_info)_\w+|UvmGpu\w+|NvNotification|Nvc\w+Control\w*",
    r"(NvProcessorUuid|NvUuid|nv_uuid)\w*",
)


def resource_manager(branch: str, package: str) -> Module:
    """What a program says to one branch of NVIDIA's kernel driver: RM calls, and UVM's beside."""
    sdk = (
        "nvtypes", "nvgputypes", "nvstatus", "nverror", "nvos", "alloc/alloc_channel",
        "class/cl0000", "class/cl0041", "class/cl0080", "class/cl2080", "class/cl003e",
        "class/cl0040", "class/cl0071", "class/cl90f1", "class/cl9067", "class/cla06c",
        "class/cl83de", "class/clc461", "class/clc561", "class/clc661", "class/clc46f",
        "class/clc56f", "class/clc86f", "class/clc5c0", "class/clc6c0", "class/clc7c0",
        "class/clc9c0", "class/clcbc0", "class/clc5b5", "class/clc6b5", "class/clc7b5",
        "class/clc8b5", "ctrl/ctrl0000/ctrl0000system", "ctrl/ctrl0000/ctrl0000gpu",
        "ctrl/ctrl0080/ctrl0080gpu", "ctrl/ctrl2080/ctrl2080gpu", "ctrl/ctrl2080/ctrl2080gr",
        "ctrl/ctrl2080/ctrl2080fb", "ctrl/ctrl2080/ctrl2080perf", "ctrl/ctrl2080/ctrl2080bus",
        "ctrl/ctrl2080/ctrl2080mc", "ctrl/ctrl83de/ctrl83dedebug", "ctrl/ctrla06c",
        "ctrl/ctrla06f/ctrla06fgpfifo", "ctrl/ctrlc36f",
    )
    headers = (
        *(f"{SDK}/{name}.h" for name in sdk),
        f"{UNIX}/nv_escape.h", f"{UNIX}/nv-ioctl-numbers.h", f"{UNIX}/nv-ioctl.h",
        f"{UNIX}/nv-unix-nvos-params-wrappers.h",
        f"{UVM}/uvm_types.h", f"{UVM}/uvm_ioctl.h", f"{UVM}/uvm_linux_ioctl.h",
    )
    return Module(
        f"nv_{branch}", f"RM and UVM calls of NVIDIA's kernel driver, branch {branch}.", package,
        headers, MIT, "types",
        beside=(f"{SDK}/*.h", f"{COMMON}/nvCpuUuid.h", f"{COMMON}/nvlimits.h"),
        folders=(SDK, UNIX, UVM, COMMON), first=("nvtypes.h", "nvos.h"),
        keep=RM_CALLS, macros=RM_CALLS,
    )  # fmt: skip


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

NOUVEAU = "src/nouveau/headers/nvidia/classes"
COMPUTE_METHODS = (
    "SET_OBJECT|NO_OPERATION|WAIT_FOR_IDLE|PIPE_NOP",
    "(LINE_(LENGTH_IN|COUNT)|OFFSET_OUT(_UPPER)?|LAUNCH_DMA|LOAD_INLINE_DATA)",
    "INVALIDATE_(SHADER|SKED|CONSTANT|TEXTURE|SAMPLER|INSTRUCTION|LTC)\\w*",
    "SEND_(PCAS|SIGNALING_PCAS)\\w*",
    "SET_INLINE_QMD\\w*|LOAD_INLINE_QMD\\w*|CHECK_QMD_VERSION",
    "SET_SHADER_(SHARED|LOCAL)_MEMORY\\w*|SET_SPA_VERSION|SET_SHADER_EXCEPTIONS",
    "SET_(BINDLESS_TEXTURE|CWD_SLOT_COUNT|SCG_COMPUTE\\w*|L1_CONFIGURATION|MMU_\\w*)",
    "SET_REPORT_SEMAPHORE\\w*|REPORT_SEMAPHORE_EXECUTE|SET_TRAP_HANDLER\\w*",
)


def nvidia_class(number: str, title: str, package: str = "mesa", keep: tuple[str, ...] = ()
                 ) -> Module:  # fmt: skip
    """The methods of one class, which a push buffer calls."""
    folder = NOUVEAU if package == "mesa" else UVM
    return Module(f"nv_cl{number}", title, package, (f"{folder}/cl{number}.h",), MIT, "methods",
                  keep=keep)  # fmt: skip


RM_555, RM_535 = "nvidia-open-gpu-kernel-modules", "nvidia-open-gpu-kernel-modules-535"

MODULES = (
    resource_manager("535", RM_535),
    resource_manager("555", RM_555),
    nvidia_class("c5c0", "Compute of Turing.", keep=COMPUTE_METHODS),
    nvidia_class("c6c0", "Compute of GA100.", keep=COMPUTE_METHODS),
    nvidia_class("c7c0", "Compute of Ampere and Ada.", keep=COMPUTE_METHODS),
    nvidia_class("c5b5", "Copy engine of Turing."),
    nvidia_class("c7b5", "Copy engine of Ampere and Ada."),
    nvidia_class("c8b5", "Copy engine of Hopper.", RM_555),
    nvidia_class("c46f", "Channel of Turing."),
    nvidia_class("c56f", "Channel of Ampere and Ada."),
    nvidia_class("c86f", "Channel of Hopper.", RM_555),
    Module("nv_qmd", "The fields of the QMD, which launches a grid.", "mesa",
           tuple(f"{NOUVEAU}/cl{number}qmd.h" for number in ("c5c0", "c6c0")), MIT, "qmds"),
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
