"""The QMD: a structure in memory that describes a grid. Its fields move from version to version.

V02_03 to V03_00 are Mesa's; of V04_00 and V05_00 here is what the board reads, from NVIDIA's
open-gpu-doc, commit c8607fe576b5 (clcbc0qmd.h sha256 ff8d1dc4a5e6, clcdc0qmd.h dac26460204e).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

from autogen import nv_qmd
from drivers.emulated.engine import BadPacket
from drivers.emulated.simt.launch import ConstantBank

Places = dict[str, tuple[int, ...]]  # first bit, width, and the stride of arrays

BANKS = 8
RELEASES = 3
GRID_TYPES = {1: False, 2: True, 3: True}  # QMD_TYPE: GRID_NULL, GRID_CTA, GRID_GPC_CGA: runs

_V04_00: Places = {
    "QMD_TYPE": (23, 3), "RELEASE_ENABLE": (320, 1, 16), "RELEASE_STRUCTURE_SIZE": (321, 2, 16),
    "RELEASE_REDUCTION_ENABLE": (324, 1, 16), "RELEASE_REDUCTION_OP": (325, 3, 16),
    "RELEASE_REDUCTION_FORMAT": (328, 2, 16), "RELEASE_PAYLOAD64B": (332, 1, 16),
    "DEPENDENT_QMD_ENABLE": (368, 1, 5), "DEPENDENT_QMD_ACTION": (369, 3, 5),
    "CONSTANT_BUFFER_VALID": (416, 1, 4), "DEPENDENT_QMD_POINTER": (448, 32, 32),
    "SHADER_LOCAL_MEMORY_LOW_SIZE": (512, 24), "SHADER_LOCAL_MEMORY_HIGH_SIZE": (544, 24),
    "QMD_MINOR_VERSION": (576, 4), "QMD_MAJOR_VERSION": (580, 4),
    "SHARED_MEMORY_SIZE": (584, 18), "MIN_SM_CONFIG_SHARED_MEM_SIZE": (608, 6),
    "MAX_SM_CONFIG_SHARED_MEM_SIZE": (614, 6), "TARGET_SM_CONFIG_SHARED_MEM_SIZE": (620, 6),
    "RELEASE_SEMAPHORE_ADDR_LOWER": (640, 32, 128), "RELEASE_SEMAPHORE_ADDR_UPPER": (672, 25, 128),
    "RELEASE_SEMAPHORE_PAYLOAD_LOWER": (704, 32, 128),
    "RELEASE_SEMAPHORE_PAYLOAD_UPPER": (736, 32, 128),
    "GRID_WIDTH": (1024, 32), "GRID_HEIGHT": (1056, 16), "GRID_DEPTH": (1088, 16),
    "CTA_THREAD_DIMENSION0": (1152, 16), "CTA_THREAD_DIMENSION1": (1168, 16),
    "CTA_THREAD_DIMENSION2": (1184, 16), "REGISTER_COUNT": (1200, 9), "BARRIER_COUNT": (1211, 5),
    "PROGRAM_ADDRESS_LOWER": (1216, 32), "PROGRAM_ADDRESS_UPPER": (1248, 25),
    "CONSTANT_BUFFER_ADDR_LOWER_SHIFTED6": (1536, 32, 64),
    "CONSTANT_BUFFER_ADDR_UPPER_SHIFTED6": (1568, 19, 64),
    "CONSTANT_BUFFER_SIZE_SHIFTED4": (1587, 13, 64),
    "GPC_CGA_WIDTH": (2144, 6), "GPC_CGA_HEIGHT": (2152, 6), "GPC_CGA_DEPTH": (2160, 6),
}

_V05_00: Places = {
    "QMD_TYPE": (151, 3), "RELEASE_ENABLE": (288, 1, 16), "RELEASE_STRUCTURE_SIZE": (289, 2, 16),
    "RELEASE_REDUCTION_ENABLE": (292, 1, 16), "RELEASE_REDUCTION_OP": (293, 3, 16),
    "RELEASE_REDUCTION_FORMAT": (296, 2, 16), "RELEASE_PAYLOAD64B": (300, 1, 16),
    "DEPENDENT_QMD_ENABLE": (336, 1, 8), "DEPENDENT_QMD_ACTION": (337, 3, 8),
    "DEPENDENT_QMD_POINTER": (384, 32, 32),
    "QMD_MINOR_VERSION": (464, 4), "QMD_MAJOR_VERSION": (468, 4),
    "RELEASE_SEMAPHORE0_ADDR_LOWER": (480, 32), "RELEASE_SEMAPHORE0_ADDR_UPPER": (512, 25),
    "RELEASE_SEMAPHORE0_PAYLOAD_LOWER": (544, 32), "RELEASE_SEMAPHORE0_PAYLOAD_UPPER": (576, 32),
    "RELEASE_SEMAPHORE1_ADDR_LOWER": (768, 32), "RELEASE_SEMAPHORE1_ADDR_UPPER": (800, 25),
    "RELEASE_SEMAPHORE1_PAYLOAD_LOWER": (832, 32), "RELEASE_SEMAPHORE1_PAYLOAD_UPPER": (864, 32),
    "RELEASE_SEMAPHORE2_ADDR_LOWER": (896, 32), "RELEASE_SEMAPHORE2_ADDR_UPPER": (928, 25),
    "RELEASE_SEMAPHORE2_PAYLOAD_LOWER": (960, 32), "RELEASE_SEMAPHORE2_PAYLOAD_UPPER": (992, 32),
    "PROGRAM_ADDRESS_LOWER_SHIFTED4": (1024, 32), "PROGRAM_ADDRESS_UPPER_SHIFTED4": (1056, 21),
    "CTA_THREAD_DIMENSION0": (1088, 16), "CTA_THREAD_DIMENSION1": (1104, 16),
    "CTA_THREAD_DIMENSION2": (1120, 8), "REGISTER_COUNT": (1128, 9), "BARRIER_COUNT": (1137, 5),
    "SHARED_MEMORY_SIZE_SHIFTED7": (1152, 11), "MIN_SM_CONFIG_SHARED_MEM_SIZE": (1163, 6),
    "MAX_SM_CONFIG_SHARED_MEM_SIZE": (1169, 6), "TARGET_SM_CONFIG_SHARED_MEM_SIZE": (1175, 6),
    "SHADER_LOCAL_MEMORY_LOW_SIZE_SHIFTED4": (1184, 16),
    "SHADER_LOCAL_MEMORY_HIGH_SIZE_SHIFTED4": (1200, 16),
    "GRID_WIDTH": (1248, 32), "GRID_HEIGHT": (1280, 16), "GRID_DEPTH": (1312, 16),
    "CONSTANT_BUFFER_ADDR_LOWER_SHIFTED6": (1344, 32, 64),
    "CONSTANT_BUFFER_ADDR_UPPER_SHIFTED6": (1376, 19, 64),
    "CONSTANT_BUFFER_SIZE_SHIFTED4": (1395, 13, 64), "CONSTANT_BUFFER_VALID": (1856, 1, 4),
    "GPC_CGA_WIDTH": (2048, 6), "GPC_CGA_HEIGHT": (2056, 6), "GPC_CGA_DEPTH": (2064, 6),
}


class Layout(NamedTuple):
    """One version."""

    places: Places
    size_bytes: int


def _mesa(version: str) -> Layout:
    return Layout(dict(nv_qmd.FIELDS[version]), 256)


# V02_02 (clc3c0qmd.h) has the fields that are read here where V02_03 has them.
LAYOUTS: dict[tuple[int, int], Layout] = {
    (2, 2): _mesa("QMDV02_03"), (2, 3): _mesa("QMDV02_03"), (2, 4): _mesa("QMDV02_04"),
    (3, 0): _mesa("QMDV03_00"), (4, 0): Layout(_V04_00, 384), (5, 0): Layout(_V05_00, 384),
}


@dataclass(frozen=True)
class Release:
    """A semaphore that the grid's end releases. `size_bytes` is the payload's."""

    address: int
    payload: int
    size_bytes: int
    timestamp: bool
    reduction: int | None
    signed: bool


class Qmd:
    """A QMD as it stands in memory. Raises BadPacket if none of `versions` is what it says."""

    def __init__(self, content: bytes, versions: tuple[tuple[int, int], ...]) -> None:
        self.bits = int.from_bytes(content, "little")
        for version in versions:
            self.places, self.size_bytes = LAYOUTS[version]
            if self.version == version:
                return
        known = ", ".join(f"{major}.{minor}" for major, minor in versions)
        raise BadPacket(f"a QMD of none of the versions {known}")

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor."""
        return self["QMD_MAJOR_VERSION"], self.first("QMD_MINOR_VERSION", "QMD_VERSION")

    def get(self, name: str, index: int = 0) -> int:
        """A field, or an element of an array of fields."""
        first, width, *stride = self.places[name]
        first += index * (stride[0] if stride else 0)
        return self.bits >> first & (1 << width) - 1

    __getitem__ = get

    def first(self, *names: str, index: int = 0) -> int:
        """The first of some fields that this version has; 0 if it has none."""
        return next((self.get(name, index) for name in names if name in self.places), 0)

    def scaled(self, name: str, index: int = 0) -> int:
        """A field's value as it is meant: where the field is NAME_SHIFTEDn, times 2 to the n."""
        for place in self.places:
            stem, _, shift = place.rpartition("_SHIFTED")
            if stem == name:
                return self.get(place, index) << int(shift)
        return self.first(name, index=index)

    def address(self, name: str, index: int = 0) -> int:
        """An address in two halves, which may be shifted."""
        for shift in ("", "_SHIFTED4", "_SHIFTED6"):
            low, high = f"{name}_LOWER{shift}", f"{name}_UPPER{shift}"
            if low in self.places:
                value = self.get(low, index) | self.get(high, index) << 32
                return value << int(shift.removeprefix("_SHIFTED") or 0)
        raise KeyError(name)

    def axes(self, *names: str) -> tuple[int, int, int]:
        """Three fields."""
        x, y, z = (self.first(*name.split("|")) for name in names)
        return x, y, z

    @functools.cached_property
    def has_grid(self) -> bool:
        """Whether it runs blocks. Raises BadPacket if it is of a type that is not modelled."""
        kind = self.get("QMD_TYPE") if "QMD_TYPE" in self.places else 2
        if kind not in GRID_TYPES or self.first("IS_QUEUE"):
            raise BadPacket(f"a QMD of type {kind} is not modelled")
        return GRID_TYPES[kind]

    @functools.cached_property
    def grid(self) -> tuple[int, int, int]:
        """Blocks."""
        return self.axes(
            "GRID_WIDTH|CTA_RASTER_WIDTH", "GRID_HEIGHT|CTA_RASTER_HEIGHT",
            "GRID_DEPTH|CTA_RASTER_DEPTH",
        )

    @property
    def block(self) -> tuple[int, int, int]:
        """Threads of a block."""
        return self.axes(*(f"CTA_THREAD_DIMENSION{axis}" for axis in range(3)))

    @property
    def local_bytes(self) -> int:
        """Local memory of a thread."""
        return self.scaled("SHADER_LOCAL_MEMORY_LOW_SIZE") + self.scaled(
            "SHADER_LOCAL_MEMORY_HIGH_SIZE"
        )

    def banks(self) -> dict[int, ConstantBank]:
        """The constant banks that are valid."""
        return {
            index: ConstantBank(
                self.address("CONSTANT_BUFFER_ADDR", index),
                self.scaled("CONSTANT_BUFFER_SIZE", index),
            )
            for index in range(BANKS) if self.get("CONSTANT_BUFFER_VALID", index)
        }

    @functools.cached_property
    def dependents(self) -> list[tuple[int, int]]:
        """(address, action) of each QMD that this one's end acts upon."""
        found = []
        if self.first("DEPENDENT_QMD_SCHEDULE_ENABLE"):  # V02_03: one, which is scheduled
            found.append((self["DEPENDENT_QMD_POINTER"] << 8, 1))
        for index in range(2):
            name = f"DEPENDENT_QMD{index}"
            if self.first("DEPENDENT_QMD_ENABLE", f"{name}_ENABLE", index=index):
                found.append((
                    self.first("DEPENDENT_QMD_POINTER", f"{name}_POINTER", index=index) << 8,
                    self.first("DEPENDENT_QMD_ACTION", f"{name}_ACTION", index=index),
                ))
            if "DEPENDENT_QMD_ENABLE" not in self.places and f"{name}_ENABLE" not in self.places:
                break
        return found

    @functools.cached_property
    def releases(self) -> list[Release]:
        """The semaphores that its end releases."""
        return [self._release(index) for index in range(RELEASES) if self._releases(index)]

    def _releases(self, index: int) -> int:
        if "RELEASE_ENABLE" in self.places:
            return self.get("RELEASE_ENABLE", index)
        return self.first(f"RELEASE{index}_ENABLE", f"SEMAPHORE_RELEASE_ENABLE{index}")

    def _release(self, index: int) -> Release:
        def field(name: str) -> int:
            if f"RELEASE_{name}" in self.places and "RELEASE_ENABLE" in self.places:
                return self.get(f"RELEASE_{name}", index)
            return self.first(f"RELEASE{index}_{name}")

        def half(name: str, part: str) -> int:
            if f"RELEASE_SEMAPHORE_{name}_{part}" in self.places:
                return self.get(f"RELEASE_SEMAPHORE_{name}_{part}", index)
            old = "ADDRESS" if name == "ADDR" else name
            return self.first(
                f"RELEASE_SEMAPHORE{index}_{name}_{part}", f"RELEASE{index}_{old}_{part}",
                *((f"RELEASE{index}_{old}",) if part == "LOWER" else ()),
            )

        wide = bool(field("PAYLOAD64B"))
        structure = field("STRUCTURE_SIZE")
        return Release(
            address=half("ADDR", "LOWER") | half("ADDR", "UPPER") << 32,
            payload=half("PAYLOAD", "LOWER") | (half("PAYLOAD", "UPPER") << 32 if wide else 0),
            size_bytes=8 if wide else 4,
            timestamp=structure == nv_qmd.VALUES["QMDV03_00"]["RELEASE0_STRUCTURE_SIZE"][
                "SEMAPHORE_FOUR_WORDS"
            ],
            reduction=field("REDUCTION_OP") if field("REDUCTION_ENABLE") else None,
            signed=field("REDUCTION_FORMAT") == 1,
        )


@functools.lru_cache(maxsize=1024)
def read_qmd(content: bytes, versions: tuple[tuple[int, int], ...]) -> Qmd:
    """The same object for the same QMD: replayed lists launch it again and again."""
    return Qmd(content, versions)
