"""QMDs: the structure that launches a grid, one table of fields for each version.

V02 and V03 are generated (`autogen/nv_qmd.py`); V04_00 and V05_00 are in no package, so their
fields are retyped from github.com/NVIDIA/open-gpu-doc, commit c8607fe576b5, clcbc0qmd.h (sha256
ff8d1dc4a5e6...) and clcdc0qmd.h (sha256 6ba3a6d4742a..., whose V05_00 is that of clcec0qmd.h).
Fields have the names of V04; sizes and addresses are bytes, also where a field holds a part of
their bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from autogen import nv_qmd
from drivers.fields import Field, Piece

DWORD_BITS: Final = 32


def at(first: int, width: int, low: int = 0) -> Field:
    """A field by its first bit in the QMD, which holds a value's bits from `low` on."""
    pieces = []
    while width:
        dword, shift = divmod(first, DWORD_BITS)
        bits = min(width, DWORD_BITS - shift)
        pieces.append(Piece(dword, shift, bits, low))
        first, width, low = first + bits, width - bits, low + bits
    return tuple(pieces)


@dataclass(frozen=True)
class Qmd:
    """One version: its size, its fields, and the values that every launch has."""

    size_bytes: int
    fields: Mapping[str, Field]
    fixed: Mapping[str, int]

    bank_strides: Mapping[str, int]
    """How many bits each field of a constant bank is from the next bank's."""

    def bank(self, number: int) -> dict[str, Field]:
        """The fields of a constant bank; `fields` has those of bank 0."""
        return {
            name: tuple(
                piece
                for old in self.fields[name]
                for piece in at(
                    DWORD_BITS * old.dword + old.shift + stride * number, old.width, old.low
                )
            )
            for name, stride in self.bank_strides.items()
        }

    def dword_of(self, name: str) -> int:
        """The dword in which a field starts."""
        return self.fields[name][0].dword


_INVALIDATE: Final = {
    f"INVALIDATE_{cache}_CACHE": 1
    for cache in ("TEXTURE_HEADER", "TEXTURE_SAMPLER", "TEXTURE_DATA", "SHADER_DATA",
                  "INSTRUCTION", "SHADER_CONSTANT")
}  # fmt: skip
_EVERY_LAUNCH: Final = {
    **_INVALIDATE,
    "QMD_GROUP_ID": 0x3F, "API_VISIBLE_CALL_LIMIT": 1, "SAMPLER_INDEX": 1,
    "CWD_MEMBAR_TYPE": 1,  # L1_SYSMEMBAR: what the grid wrote is visible to all
    "CONSTANT_BUFFER_INVALIDATE": 1, "CONSTANT_BUFFER_VALID": 1,
}  # fmt: skip
_BANK_STRIDES: Final = {
    "CONSTANT_BUFFER_ADDR": 64, "CONSTANT_BUFFER_SIZE": 64, "CONSTANT_BUFFER_VALID": 4,
    "CONSTANT_BUFFER_INVALIDATE": 64,
}  # fmt: skip
_SAME_NAMES: Final = (
    *_INVALIDATE, "QMD_GROUP_ID", "API_VISIBLE_CALL_LIMIT", "SAMPLER_INDEX", "CWD_MEMBAR_TYPE",
    "SM_GLOBAL_CACHING_ENABLE", "QMD_MAJOR_VERSION", "SHARED_MEMORY_SIZE",
    "MIN_SM_CONFIG_SHARED_MEM_SIZE", "MAX_SM_CONFIG_SHARED_MEM_SIZE",
    "TARGET_SM_CONFIG_SHARED_MEM_SIZE", "CTA_THREAD_DIMENSION0", "CTA_THREAD_DIMENSION1",
    "CTA_THREAD_DIMENSION2", "BARRIER_COUNT", "SASS_VERSION", "SHADER_LOCAL_MEMORY_HIGH_SIZE",
    "CONSTANT_BUFFER_VALID", "CONSTANT_BUFFER_INVALIDATE",
)  # fmt: skip
_OTHER_NAMES: Final = {
    "QMD_MINOR_VERSION": "QMD_VERSION", "GRID_WIDTH": "CTA_RASTER_WIDTH",
    "GRID_HEIGHT": "CTA_RASTER_HEIGHT", "GRID_DEPTH": "CTA_RASTER_DEPTH",
    "REGISTER_COUNT": "REGISTER_COUNT_V",
}  # fmt: skip


def _generated(version: str, minor: int) -> Qmd:
    """V02 and V03."""
    table = nv_qmd.FIELDS[version]

    def of(name: str, low: int = 0) -> Field:
        first, width, *_ = table[name]
        return at(first, width, low)

    fields = {name: of(name) for name in _SAME_NAMES}
    fields |= {name: of(other) for name, other in _OTHER_NAMES.items()}
    for name, low, high in (
        ("PROGRAM_ADDRESS", "PROGRAM_ADDRESS_LOWER", "PROGRAM_ADDRESS_UPPER"),
        ("CONSTANT_BUFFER_ADDR", "CONSTANT_BUFFER_ADDR_LOWER", "CONSTANT_BUFFER_ADDR_UPPER"),
    ):
        fields[name] = of(low) + of(high, DWORD_BITS)
    fields["CONSTANT_BUFFER_SIZE"] = of("CONSTANT_BUFFER_SIZE_SHIFTED4", 4)
    fixed = {
        **_EVERY_LAUNCH, "SM_GLOBAL_CACHING_ENABLE": 1, "QMD_MAJOR_VERSION": int(version[4:6]),
        "QMD_MINOR_VERSION": minor,
    }
    return Qmd(256, fields, fixed, {**_BANK_STRIDES, "CONSTANT_BUFFER_VALID": 1})


# Turing's header calls this layout V02_03; Volta's V02_02 has the same fields here. The hardware
# is told 2.2, which both take.
V2: Final = _generated("QMDV02_03", 2)
V3: Final = _generated("QMDV03_00", 0)

_GRID_CTA: Final = 2  # QMD_TYPE_GRID_CTA

V4: Final = Qmd(
    384,
    {
        "QMD_GROUP_ID": at(16, 6), "QMD_TYPE": at(23, 3),
        "CONSTANT_BUFFER_VALID": at(416, 1), "CONSTANT_BUFFER_INVALIDATE": at(419, 1),
        "SASS_VERSION": at(536, 8), "SHADER_LOCAL_MEMORY_HIGH_SIZE": at(544, 24),
        "API_VISIBLE_CALL_LIMIT": at(568, 1), "SAMPLER_INDEX": at(569, 1),
        "QMD_MINOR_VERSION": at(576, 4), "QMD_MAJOR_VERSION": at(580, 4),
        "SHARED_MEMORY_SIZE": at(584, 18),
        **{name: at(602 + i, 1) for i, name in enumerate(_INVALIDATE)},
        "MIN_SM_CONFIG_SHARED_MEM_SIZE": at(608, 6), "MAX_SM_CONFIG_SHARED_MEM_SIZE": at(614, 6),
        "TARGET_SM_CONFIG_SHARED_MEM_SIZE": at(620, 6),
        "GRID_WIDTH": at(1024, 32), "GRID_HEIGHT": at(1056, 16), "GRID_DEPTH": at(1088, 16),
        "CWD_MEMBAR_TYPE": at(1136, 2),
        "CTA_THREAD_DIMENSION0": at(1152, 16), "CTA_THREAD_DIMENSION1": at(1168, 16),
        "CTA_THREAD_DIMENSION2": at(1184, 16), "REGISTER_COUNT": at(1200, 9),
        "BARRIER_COUNT": at(1211, 5), "PROGRAM_ADDRESS": at(1216, 57),
        "CONSTANT_BUFFER_ADDR": at(1536, 51, 6), "CONSTANT_BUFFER_SIZE": at(1587, 13, 4),
    },
    {
        **_EVERY_LAUNCH, "QMD_MAJOR_VERSION": 4, "QMD_MINOR_VERSION": 0, "QMD_TYPE": _GRID_CTA,
    },
    {**_BANK_STRIDES, "CONSTANT_BUFFER_INVALIDATE": 4},
)  # fmt: skip
V5: Final = Qmd(
    384,
    {
        "QMD_GROUP_ID": at(144, 6), "QMD_TYPE": at(151, 3),
        "SASS_VERSION": at(448, 8), "API_VISIBLE_CALL_LIMIT": at(456, 1),
        "SAMPLER_INDEX": at(457, 1), "QMD_MINOR_VERSION": at(464, 4),
        "QMD_MAJOR_VERSION": at(468, 4),
        **{name: at(472 + i, 1) for i, name in enumerate(_INVALIDATE)},
        "CWD_MEMBAR_TYPE": at(624, 2), "PROGRAM_ADDRESS": at(1024, 53, 4),
        "CTA_THREAD_DIMENSION0": at(1088, 16), "CTA_THREAD_DIMENSION1": at(1104, 16),
        "CTA_THREAD_DIMENSION2": at(1120, 8), "REGISTER_COUNT": at(1128, 9),
        "BARRIER_COUNT": at(1137, 5), "SHARED_MEMORY_SIZE": at(1152, 11, 7),
        "MIN_SM_CONFIG_SHARED_MEM_SIZE": at(1163, 6), "MAX_SM_CONFIG_SHARED_MEM_SIZE": at(1169, 6),
        "TARGET_SM_CONFIG_SHARED_MEM_SIZE": at(1175, 6),
        "SHADER_LOCAL_MEMORY_HIGH_SIZE": at(1200, 16, 4),
        "GRID_WIDTH": at(1248, 32), "GRID_HEIGHT": at(1280, 16), "GRID_DEPTH": at(1312, 16),
        "CONSTANT_BUFFER_ADDR": at(1344, 51, 6), "CONSTANT_BUFFER_SIZE": at(1395, 13, 4),
        "CONSTANT_BUFFER_VALID": at(1856, 1), "CONSTANT_BUFFER_INVALIDATE": at(1859, 1),
    },
    {
        **_EVERY_LAUNCH, "QMD_MAJOR_VERSION": 5, "QMD_MINOR_VERSION": 0, "QMD_TYPE": _GRID_CTA,
    },
    {**_BANK_STRIDES, "CONSTANT_BUFFER_INVALIDATE": 4},
)  # fmt: skip
