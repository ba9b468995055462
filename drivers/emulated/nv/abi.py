"""The structures of the driver branch that the board plays: sizes differ from branch to branch."""

from __future__ import annotations

import ctypes
import functools
import importlib
from dataclasses import dataclass, field
from typing import Any

Fields = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Branch:
    """The bindings that a version's headers gave, and what the version has changed since.

    `added`: structure → the field before which others stand now ('' for the end), and those.
    `longer`: structure → the array in it that has become longer, and how many elements it has.
    """

    module: str
    added: dict[str, tuple[str, Fields]] = field(default_factory=dict)
    longer: dict[str, tuple[str, int]] = field(default_factory=dict)


_BYTE, _WORD = ctypes.c_ubyte, ctypes.c_uint32
_SKIP: tuple[str, Fields] = ("", (("bSkipEnable", _BYTE),))

# Open kernel modules, tag 580.95.05: alloc_channel.h, nvos.h, ctrla06f.h, ctrl0000gpu.h,
# ctrl0000system.h, ctrl0080gpu.h, ctrl2080fb.h, ctrl2080gpu.h, ctrl2080gr.h.
_580 = Branch(
    "nv_555",
    added={
        "NV_CHANNEL_ALLOC_PARAMS": ("", (("tpcConfigID", _WORD), ("PADDING_580", _BYTE * 4))),
        "NV_VASPACE_ALLOCATION_PARAMETERS": ("", (("pasid", _WORD), ("PADDING_580", _BYTE * 4))),
        "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS": _SKIP, "NVA06F_CTRL_GPFIFO_SCHEDULE_PARAMS": _SKIP,
        "NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS": ("", (("gpuFlags", _WORD * 32),)),
        "NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_V2_PARAMS": (
            "titleBuffer", (("driverBranch", ctypes.c_char * 256),)
        ),
    },
    longer={
        "NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS": ("classList", 200),
        "NV2080_CTRL_FB_GET_INFO_V2_PARAMS": ("fbInfoList", 128),
        "NV2080_CTRL_GPU_GET_INFO_V2_PARAMS": ("gpuInfoList", 70),
        "NV0080_CTRL_GR_GET_INFO_V2_PARAMS": ("grInfoList", 58),
    },
)

VERSIONS = {
    "535.261.03": Branch("nv_535"), "555.58.02": Branch("nv_555"), "580.95.05": _580,
}
DEFAULT_VERSION = "555.58.02"


class Abi:
    """Structures and numbers by the names of the headers."""

    def __init__(self, version: str) -> None:
        self.version, self.branch = version, VERSIONS[version]
        self.module: Any = importlib.import_module(f"autogen.{self.branch.module}")
        self.structure = functools.cache(self._structure)

    def _structure(self, name: str) -> type[ctypes.Structure]:
        """A parameter structure."""
        found: type[ctypes.Structure] | None = getattr(self.module, name, None)
        if found is None:
            found = getattr(self.module, f"struct_{name}")
        added, longer = self.branch.added.get(name), self.branch.longer.get(name)
        if not added and not longer:
            return found
        before, more = added or ("", ())
        fields: list[tuple[str, Any]] = []
        declared: list[tuple[str, Any]] = list(found._fields_)  # type: ignore[arg-type]
        for field_name, kind in declared:  # no bit fields in these
            if field_name == before:
                fields += more
            if longer is not None and field_name == longer[0]:
                kind = kind._type_ * longer[1]
            fields.append((field_name, kind))
        if not before:
            fields += more
        return type(name, (ctypes.Structure,), {"_pack_": 1, "_fields_": fields})

    def size(self, name: str) -> int:
        """Bytes of a structure."""
        return ctypes.sizeof(self.structure(name))
