"""The sysfs files that tell a program what boards there are (kfd_topology.c, ip_discovery).

Node 0 is the processor, the boards follow. Numbers are decimal, a `name value` to a line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from autogen import soc15_hw_ip
from drivers.emulated.amd.boards import Board

TOPOLOGY = "/sys/devices/virtual/kfd/kfd/topology"
TOPOLOGY_LINK = "/sys/class/kfd/kfd/topology"
RENDER_MINOR = 128  # of the first board
VENDOR_AMD = 0x1002

HEAP_SYSTEM, HEAP_PUBLIC, HEAP_PRIVATE = 0, 1, 2  # HSA_MEM_HEAP_TYPE
IO_LINK_PCIE = 2  # HSA_IOLINKTYPE
PCIE_WEIGHT = 20  # kfd_crat.c, between a GPU and its processor
CACHE_DATA, CACHE_GPU = 1, 8  # HSA_CACHE_TYPE


@dataclass(frozen=True)
class Gpu:
    """A board in its slot."""

    index: int
    board: Board
    large_bar: bool = True

    @property
    def node(self) -> int:
        """The number of its topology node."""
        return self.index + 1

    @property
    def gpu_id(self) -> int:
        """What ioctls call it: 16 bits that the kernel hashes out of the board's place."""
        return (0x9E37 * (self.index + 1) ^ self.board.device_id) & 0xFFFF | 1

    @property
    def render_minor(self) -> int:
        """N of /dev/dri/renderDN."""
        return RENDER_MINOR + self.index


def _lines(values: dict[str, int]) -> str:
    return "".join(f"{name} {value}\n" for name, value in values.items())


def _peers(gpu: Gpu, gpus: list[Gpu]) -> list[Gpu]:
    """Which others it reaches over PCIe: those whose whole memory the bus shows."""
    return [other for other in gpus if other is not gpu and other.large_bar]


def _gpu_properties(gpu: Gpu, gpus: list[Gpu]) -> dict[str, int]:
    board = gpu.board
    return {
        "cpu_cores_count": 0,
        "simd_count": board.simd_count,
        "mem_banks_count": 1,
        "caches_count": 1,
        "io_links_count": 1,
        "p2p_links_count": len(_peers(gpu, gpus)),
        "cpu_core_id_base": 0,
        "simd_id_base": 0x80000000 + 0x1000 * gpu.index,
        "max_waves_per_simd": board.max_waves_per_simd,
        "lds_size_in_kb": board.lds_kib,
        "gds_size_in_kb": 0,
        "num_gws": 64,
        "wave_front_size": board.wave_front_size,
        "array_count": board.array_count,
        "simd_arrays_per_engine": board.simd_arrays_per_engine,
        "cu_per_simd_array": board.cu_per_simd_array,
        "simd_per_cu": board.simd_per_cu,
        "max_slots_scratch_cu": board.max_slots_scratch_cu,
        "gfx_target_version": board.gfx_target_version,
        "vendor_id": VENDOR_AMD,
        "device_id": board.device_id,
        "location_id": 0x300 + 0x100 * gpu.index,
        "domain": 0,
        "drm_render_minor": gpu.render_minor,
        "hive_id": 0,
        "num_sdma_engines": board.num_sdma_engines,
        "num_sdma_xgmi_engines": board.num_sdma_xgmi_engines,
        "num_sdma_queues_per_engine": board.num_sdma_queues_per_engine,
        "num_cp_queues": 8,
        "max_engine_clk_fcompute": board.max_engine_clk_mhz,
        "local_mem_size": 0,
        "fw_version": board.fw_version,
        "capability": board.capability,
        "debug_prop": 0,
        "sdma_fw_version": board.sdma_fw_version,
        "unique_id": 0x7E57 << 16 | gpu.gpu_id,
        "num_xcc": board.num_xcc,
        "max_engine_clk_ccompute": 4000,
    }


def _memory_bank(heap: int, size_bytes: int, width: int, clock: int) -> str:
    return _lines({
        "heap_type": heap, "size_in_bytes": size_bytes, "flags": 0, "width": width,
        "mem_clk_max": clock,
    })


def _cache(level: int, size_kib: int, kind: int, processor: int) -> str:
    return _lines({
        "processor_id_low": processor, "level": level, "size": size_kib,
        "cache_line_size": 64, "cache_lines_per_tag": 1, "association": 0, "latency": 0,
        "type": kind,
    }) + "sibling_map 1\n"


def _link(kind: int, source: int, target: int, weight: int = PCIE_WEIGHT) -> str:
    return _lines({
        "type": kind, "version_major": 0, "version_minor": 0, "node_from": source,
        "node_to": target, "weight": weight, "min_latency": 0, "max_latency": 0,
        "min_bandwidth": 0, "max_bandwidth": 0, "recommended_transfer_size": 0, "flags": 1,
    })


def _system_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu_node(gpus: list[Gpu]) -> dict[str, str]:
    cores = os.cpu_count() or 1
    names = dict.fromkeys(_gpu_properties(gpus[0], gpus), 0) if gpus else {}
    files = {
        "gpu_id": "0\n",
        "name": "\n",
        "properties": _lines(names | {
            "cpu_cores_count": cores, "mem_banks_count": 1, "caches_count": 1,
            "io_links_count": len(gpus), "max_engine_clk_ccompute": 4000,
        }),
        "mem_banks/0/properties": _memory_bank(HEAP_SYSTEM, _system_memory_bytes(), 64, 3200),
        "caches/0/properties": _cache(1, 32, CACHE_DATA | 4, 0),
    }
    for gpu in gpus:
        files[f"io_links/{gpu.index}/properties"] = _link(IO_LINK_PCIE, 0, gpu.node)
    return files


def _gpu_node(gpu: Gpu, gpus: list[Gpu]) -> dict[str, str]:
    board = gpu.board
    links = {  # over both links to the processor (kfd_topology.c, kfd_add_peer_prop)
        f"p2p_links/{number}/properties":
            _link(IO_LINK_PCIE, gpu.node, peer.node, 2 * PCIE_WEIGHT)
        for number, peer in enumerate(_peers(gpu, gpus))
    }
    heap = HEAP_PUBLIC if gpu.large_bar else HEAP_PRIVATE
    return {
        "gpu_id": f"{gpu.gpu_id}\n",
        "name": f"{board.name}\n",
        "properties": _lines(_gpu_properties(gpu, gpus)),
        "mem_banks/0/properties": _memory_bank(
            heap, board.vram_bytes, board.memory_width_bits, board.memory_clk_mhz
        ),
        "caches/0/properties": _cache(1, 16, CACHE_DATA | CACHE_GPU, 0x80000000),
        "io_links/0/properties": _link(IO_LINK_PCIE, gpu.node, 0),
        **links,
    }


def _device_files(gpu: Gpu) -> dict[str, str]:
    """Under /sys/class/drm/renderDN/device: PCI identity and the discovery table."""
    board = gpu.board
    files = {
        "vendor": f"{VENDOR_AMD:#06x}\n",
        "device": f"{board.device_id:#06x}\n",
        "product_name": f"{board.marketing_name}\n",
        "mem_info_vram_total": f"{board.vram_bytes}\n",
    }
    numbers = {"GC": soc15_hw_ip.GC_HWID, "SDMA0": soc15_hw_ip.SDMA0_HWID,
               "NBIF": soc15_hw_ip.NBIF_HWID}
    for block, version in board.ip_versions.items():
        content = dict(zip(("major", "minor", "revision"), map(str, version), strict=True))
        content["base_addr"] = "\n".join(f"0x{base:08X}" for base in board.ip_bases[block])
        content |= {"hw_id": str(numbers[block]), "num_instance": "0", "harvest": "0x0"}
        for name in (block, str(numbers[block])):  # a name is a link to the number
            for key, value in content.items():
                files[f"ip_discovery/die/0/{name}/0/{key}"] = value + "\n"
    return files


def files(gpus: list[Gpu]) -> dict[str, str]:
    """Every file by its path."""
    tree = {
        "generation_id": "2\n",
        "system_properties": _lines(
            {"platform_oem": 0, "platform_id": 0, "platform_rev": 0}
        ),
    }
    nodes = {0: _cpu_node(gpus)} | {gpu.node: _gpu_node(gpu, gpus) for gpu in gpus}
    for number, node in nodes.items():
        tree |= {f"nodes/{number}/{name}": text for name, text in node.items()}
    found = {f"{TOPOLOGY}/{name}": text for name, text in tree.items()}
    found |= {f"{TOPOLOGY_LINK}/{name}": text for name, text in tree.items()}
    for gpu in gpus:
        for name, text in _device_files(gpu).items():
            found[f"/sys/class/drm/renderD{gpu.render_minor}/device/{name}"] = text
    return found
