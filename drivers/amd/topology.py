"""What KFD's topology in sysfs says of the machine's GPUs, read through the System."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.amd.generations import architecture_name
from drivers.errors import DeviceNotAvailable, MalformedInput, NodeNotAccessible, SystemCallFailed
from drivers.system import System

NODES = "/sys/devices/virtual/kfd/kfd/topology/nodes"
VISIBLE = "ROCR_VISIBLE_DEVICES"
"""Which GPUs a program sees, as ROCm's runtime takes it: "0,GPU-4b2c1a9f8d3e6f7a"."""
_FILE_LIMIT = 64 << 10
_NODE_LIMIT = 1024


@dataclass(frozen=True)
class GpuNode:
    """One GPU of the topology. Sizes of the whole device unless they say otherwise."""

    number: int
    gpu_id: int
    properties: Mapping[str, int]
    name: str = ""
    vram_bytes: int = 0
    visible_bytes: int = 0
    peers: frozenset[int] = frozenset()
    """Numbers of the nodes whose memory it reaches: over a link of its own, or the bus."""

    def value(self, name: str, default: int | None = None) -> int:
        """A property; MalformedInput when it is missing and there is no default."""
        found = self.properties.get(name, default)
        if found is None:
            raise MalformedInput(
                f"Node {self.number} of the topology ({NODES}/{self.number}/properties) has no "
                f"property {name}.",
                operation="topology",
            )
        return found

    @property
    def architecture(self) -> str:
        """LLVM's name, gfx1100."""
        return architecture_name(self.value("gfx_target_version"))

    @property
    def uuid(self) -> str:
        """As ROCm's tools name it."""
        return f"GPU-{self.value('unique_id', 0):016x}"

    @property
    def render_node(self) -> str:
        """The path of its render node."""
        return f"/dev/dri/renderD{self.value('drm_render_minor')}"

    @property
    def xccs(self) -> int:
        """How many compute dies share its queues."""
        return max(1, self.value("num_xcc", 1))

    @property
    def shader_engines(self) -> int:
        """Shader engines of one die."""
        return self.value("array_count") // self.value("simd_arrays_per_engine") // self.xccs

    @property
    def compute_units(self) -> int:
        """Compute units of one die."""
        return self.value("simd_count") // self.value("simd_per_cu") // self.xccs

    @property
    def scratch_slots(self) -> int:
        """Waves of one compute unit that may use scratch at once."""
        return self.value("max_slots_scratch_cu", 32)

    @property
    def copy_queues(self) -> int:
        """SDMA queues that the process may create."""
        return self.value("num_sdma_engines", 2) * self.value("num_sdma_queues_per_engine", 2)


def read_file(system: System, path: str) -> str:
    """A small file of sysfs. Raises OSError."""
    descriptor = system.open(path, os.O_RDONLY)
    try:
        content = b""
        while len(content) < _FILE_LIMIT:
            more = system.read(descriptor, 4096)
            if not more:
                break
            content += more
    finally:
        system.close(descriptor)
    return content.decode("ascii", "replace")


def parse_properties(text: str, path: str) -> dict[str, int]:
    """`name value` lines. Raises MalformedInput, naming the line."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, _, value = line.strip().partition(" ")
        try:
            found[name] = int(value)
        except ValueError as error:
            raise MalformedInput(
                f"{path}, line {number}: {line!r} is not a name and a number.",
                operation="topology",
            ) from error
    return found


def find_gpus(system: System, device: str = "AMD") -> list[GpuNode]:
    """Every GPU that this process may use, in the topology's order, or ROCR_VISIBLE_DEVICES'.

    A node without a readable GPU number is a processor, or a GPU that a container hides.
    """
    found = []
    for number in range(_NODE_LIMIT):
        folder = f"{NODES}/{number}"
        try:
            gpu_id = read_file(system, f"{folder}/gpu_id").strip()
        except OSError as error:
            if error.errno == errno.ENOENT:
                break
            if error.errno in (errno.EPERM, errno.EACCES):
                continue
            raise SystemCallFailed.wrap(error, f"reading {folder}/gpu_id", device) from error
        if gpu_id.isdecimal() and int(gpu_id):
            found.append(_read_gpu(system, number, int(gpu_id), folder, device))
    asked = os.environ.get(VISIBLE)
    return found if asked is None else [
        _named(found, name.strip(), device) for name in asked.split(",") if name.strip()
    ]


def _named(gpus: list[GpuNode], name: str, device: str) -> GpuNode:
    """A GPU by its number in the topology's order, or by its unique_id."""
    for number, gpu in enumerate(gpus):
        if name in (str(number), gpu.uuid):
            return gpu
    known = ", ".join(f"{number} or {gpu.uuid}" for number, gpu in enumerate(gpus)) or "none"
    raise DeviceNotAvailable(
        f"{VISIBLE} names {name!r}; the GPUs here are {known}.",
        device=device, operation="topology",
    )


def _read_gpu(system: System, number: int, gpu_id: int, folder: str, device: str) -> GpuNode:
    path = f"{folder}/properties"
    try:
        properties = parse_properties(read_file(system, path), path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES):
            raise SystemCallFailed.wrap(error, f"reading {path}", device) from error
        raise NodeNotAccessible(
            f"{device}: GPU {gpu_id} is there, but {path} cannot be read "
            f"({errno.errorcode.get(error.errno or 0)}).",
            device=device, operation="topology",
        ) from error
    private = public = 0
    for values in _numbered(system, folder, "mem_banks", properties):
        size, heap = values.get("size_in_bytes", 0), values.get("heap_type", 0)
        public += size if heap == HEAP_PUBLIC else 0
        private += size if heap == HEAP_PRIVATE else 0
    peers = frozenset(
        values["node_to"] for kind in ("io_links", "p2p_links")
        for values in _numbered(system, folder, kind, properties) if "node_to" in values
    )
    return GpuNode(
        number, gpu_id, properties, vram_bytes=private + public, visible_bytes=public, peers=peers
    )


def _numbered(
    system: System, folder: str, kind: str, properties: Mapping[str, int]
) -> list[dict[str, int]]:
    """The properties of each of a node's memory banks or links; those that are hidden lack."""
    found = []
    for number in range(properties.get(f"{kind}_count", 0)):
        path = f"{folder}/{kind}/{number}/properties"
        with contextlib.suppress(OSError):
            found.append(parse_properties(read_file(system, path), path))
    return found


HEAP_PUBLIC, HEAP_PRIVATE = 1, 2
"""hsakmttypes.h, HSA_HEAPTYPE_FRAME_BUFFER_*: whether the host sees all of the VRAM."""
