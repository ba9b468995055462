"""Kernels of the GPU: a code object in executable memory, and the packets that launch it.

A code object enters at its kernel descriptor (AMDGPUUsage, "Kernel Descriptor"; autogen
amdhsa), which gives the code's place and the resource registers. Everything of a launch but
arguments, grid and scratch is the same every time, so its packets are made once.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from autogen import amdhsa
from compiler.code_object import CodeObject
from drivers.amd import packets
from drivers.errors import ArgumentMismatch, MalformedInput
from drivers.fields import get, single
from drivers.gpu import GpuProgram

if TYPE_CHECKING:
    from drivers.amd.generations import Generation
    from drivers.amd.topology import GpuNode
    from drivers.memory import Allocator, Storage

CODE_ALIGNMENT: Final = 256  # COMPUTE_PGM_LO holds the address >> 8
_PREFETCH_BYTES: Final = 256  # instructions are fetched beyond the last one
_DESCRIPTOR_BYTES: Final = 64
_THREADS_LIMIT: Final = 1024

# User SGPRs in the order in which the hardware wants them (AMDGPUUsage, "Initial Kernel Execution
# State"): the descriptor's bit, how many there are, what this driver puts there.
_USER_SGPRS: Final = (
    ("PRIVATE_SEGMENT_BUFFER", 4, "scratch buffer"),
    ("DISPATCH_PTR", 2, ""),
    ("QUEUE_PTR", 2, ""),
    ("KERNARG_SEGMENT_PTR", 2, "kernarg"),
    ("DISPATCH_ID", 2, ""),
    ("FLAT_SCRATCH_INIT", 2, "scratch"),
    ("PRIVATE_SEGMENT_SIZE", 1, "scratch size"),
)


class Loader(Protocol):
    """What loading a kernel needs of a device."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def generation(self) -> Generation:
        """Its registers and packets."""

    @property
    def node(self) -> GpuNode:
        """How many XCCs it has."""

    @property
    def allocator(self) -> Allocator:
        """Executable memory that the host writes."""

    @property
    def local_bytes(self) -> int:
        """Local memory of one block."""


class Descriptor:
    """The fields of a kernel_descriptor_t (AMDHSAKernelDescriptor.h)."""

    def __init__(self, content: bytes) -> None:
        words = struct.unpack(f"<{_DESCRIPTOR_BYTES // 4}I", content)
        table = amdhsa.PACKETS["kernel_descriptor_t"]
        values = {name: get(words, single(*place)) for name, place in table.items()}
        self.group_bytes = values["group_segment_fixed_size"]
        self.private_bytes = values["private_segment_fixed_size"]
        self.kernarg_bytes = values["kernarg_size"]
        offset = values["kernel_code_entry_byte_offset"]
        self.code_offset = offset - (offset >> 63 << 64)  # signed, from the descriptor's start
        self.rsrc1, self.rsrc2, self.rsrc3 = (
            values[f"compute_pgm_rsrc{number}"] for number in (1, 2, 3)
        )
        self._properties = values["kernel_code_properties"]

    def has(self, name: str) -> bool:
        """Whether a bit of the code properties is set."""
        return bool(self._properties & int(getattr(amdhsa, f"KERNEL_CODE_PROPERTY_{name}")))


@dataclass(frozen=True)
class Launch:
    """The dwords of a launch, and the numbers of those that a dispatch fills in."""

    words: tuple[int, ...]
    kernarg_at: int
    grid_at: int
    scratch_at: dict[str, tuple[int, ...]]


class AmdProgram(GpuProgram):
    """A kernel in a GPU's memory."""

    def __init__(self, device: Loader, code: CodeObject) -> None:
        self.code, self.device_name = code, device.name
        self.descriptor = _checked(device, code)
        storage = device.allocator.allocate(len(code.image) + CODE_ALIGNMENT + _PREFETCH_BYTES)
        self._storage: Storage = storage
        self.address = -(-storage.address // CODE_ALIGNMENT) * CODE_ALIGNMENT
        ctypes.memmove(self.address, code.image, len(code.image))
        for relocation in code.relocations:
            ctypes.c_uint64.from_address(self.address + relocation.offset).value = (
                self.address + relocation.addend
            )
        self.entry_address = (
            self.address + code.entry + self.descriptor.code_offset
        )
        self.private_bytes = max(self.descriptor.private_bytes, code.private_bytes)
        self.kernarg_bytes = max(self.descriptor.kernarg_bytes, 8 * len(code.params))
        self.launch = _launch(device.generation, self, device.node.xccs)

    def __repr__(self) -> str:
        return f"<Program {self.name} at {self.entry_address:#x}>"


def _checked(device: Loader, code: CodeObject) -> Descriptor:
    """The descriptor, if the code object is one for this device that does not contradict itself."""
    arch, size = device.generation.name, len(code.image)

    def malformed(sentence: str) -> MalformedInput:
        return MalformedInput(
            f"Kernel {code.name} {sentence}.", device=device.name, operation="load"
        )

    if code.arch != arch:
        raise ArgumentMismatch(
            f"Kernel {code.name} is for {code.arch}; {device.name} is {arch}.",
            device=device.name, operation="load",
        )
    if not 0 <= code.entry <= size - _DESCRIPTOR_BYTES:
        raise malformed(f"enters at byte {code.entry} of an image of {size}")
    for relocation in code.relocations:
        if not 0 <= relocation.offset <= size - 8:
            raise malformed(f"relocates 8 bytes at {relocation.offset}; its image has {size} bytes")
    descriptor = Descriptor(code.image[code.entry : code.entry + _DESCRIPTOR_BYTES])
    start = code.entry + descriptor.code_offset
    if not 0 <= start < size or start % CODE_ALIGNMENT:
        raise malformed(
            f"has its code at byte {start} of an image of {size}, which is not a multiple of "
            f"{CODE_ALIGNMENT} inside it"
        )
    threads = code.block[0] * code.block[1] * code.block[2]
    if not 1 <= threads <= _THREADS_LIMIT:
        raise malformed(f"has {threads} threads in a block, beyond 1 to {_THREADS_LIMIT}")
    local = max(descriptor.group_bytes, code.local_bytes)
    if local > device.local_bytes:
        raise malformed(f"takes {local} bytes of local memory; a block has {device.local_bytes}")
    for name, _, what in _USER_SGPRS:
        if not what and descriptor.has(f"ENABLE_SGPR_{name}"):
            raise malformed(f"asks for {name}, which this driver does not give")
    return descriptor


def _launch(generation: Generation, program: AmdProgram, xccs: int) -> Launch:
    """The packets of a launch, in the order: caches, registers, dispatch, wait for its waves."""
    code, descriptor = program.code, program.descriptor
    local = max(descriptor.group_bytes, code.local_bytes)
    granules = -(-local // generation.lds_granule_bytes)
    lds = generation.register("COMPUTE_PGM_RSRC2", LDS_SIZE=granules)
    scratch = generation.register("COMPUTE_PGM_RSRC2", SCRATCH_EN=1) if program.private_bytes else 0
    wave32 = descriptor.has("ENABLE_WAVEFRONT_SIZE32")
    initiator = generation.register(
        "COMPUTE_DISPATCH_INITIATOR", COMPUTE_SHADER_EN=1, FORCE_START_AT_000=1,
        **({"CS_W32_EN": 1} if wave32 else {}),
    )
    words: list[int] = list(
        generation.caches.acquire(**generation.caches.between).encode()
    )
    scratch_at: dict[str, tuple[int, ...]] = {}

    def registers(first: str, *values: int, xcc: int = -1) -> int:
        packet = packets.SET_SH_REG(*values, reg_offset=generation.shader_registers[first]).encode()
        if xccs > 1 and xcc >= 0:  # of this one only
            words.extend(
                packets.PRED_EXEC(exec_count=len(packet), virtual_xcc_select=1 << xcc).encode()
            )
        words.extend(packet)
        return len(words) - len(values)

    entry = program.entry_address // CODE_ALIGNMENT
    registers("COMPUTE_PGM_LO", entry & 0xFFFFFFFF, entry >> 32)
    registers(
        "COMPUTE_PGM_RSRC1", descriptor.rsrc1 | generation.rsrc1_quirk,
        descriptor.rsrc2 | lds | scratch,
    )
    registers("COMPUTE_PGM_RSRC3", descriptor.rsrc3)
    scratch_at["tmpring"] = (registers("COMPUTE_TMPRING_SIZE", 0),)
    if program.private_bytes and generation.architected_scratch:
        scratch_at["base"] = tuple(
            registers("COMPUTE_DISPATCH_SCRATCH_BASE_LO", 0, 0, xcc=xcc) for xcc in range(xccs)
        )
    registers("COMPUTE_RESTART_X", 0, 0, 0)
    user: list[int] = []
    places: dict[str, int] = {}
    for name, count, what in _USER_SGPRS:
        if descriptor.has(f"ENABLE_SGPR_{name}"):
            places[what] = len(user)
            user += [0] * count
    first = registers("COMPUTE_USER_DATA_0", *user) if user else 0
    if "scratch size" in places:
        words[first + places["scratch size"]] = program.private_bytes
    for what in ("scratch buffer", "scratch"):
        if what in places:
            scratch_at[what] = (first + places[what],)
    registers("COMPUTE_RESOURCE_LIMITS", 0)
    registers("COMPUTE_START_X", 0, 0, 0, *code.block)
    words += packets.DISPATCH_DIRECT(dispatch_initiator=initiator).encode()
    grid_at = len(words) - packets.DISPATCH_DIRECT.size_dwords + packets.DISPATCH_DIRECT.dword_of(
        "dim_x"
    )
    words += packets.EVENT_WRITE(
        event_type=generation.events["CS_PARTIAL_FLUSH"],
        event_index=packets.EventIndex.PARTIAL_FLUSH,
    ).encode()
    kernarg_at = first + places["kernarg"] if "kernarg" in places else -1
    return Launch(tuple(words), kernarg_at, grid_at, scratch_at)
