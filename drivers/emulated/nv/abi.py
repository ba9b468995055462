"""The structures of the driver branch that the board plays: sizes differ from branch to branch.

Each branch has the bindings of a nearby one, and what its own headers say otherwise: those of the
open kernel modules at the very tag, alloc_channel.h, nvos.h, uvm_ioctl.h and ctrl*.h, measured
with a C compiler. Structures that the board does not read are not looked at.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from dataclasses import dataclass, field, replace
from typing import Any

Fields = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Branch:
    """The bindings that a version's headers gave, and what the version has changed since.

    `added`: structure → the field before which others stand now ('' for the end), and those.
    `arrays`: structure → the array in it that has another length, and how many elements it has.
    `gone`: structure → fields that it does not have.
    """

    module: str
    added: dict[str, tuple[str, Fields]] = field(default_factory=dict)
    arrays: dict[str, tuple[str, int]] = field(default_factory=dict)
    gone: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def then(self, **changes: dict[str, Any]) -> Branch:
        """The next branch, which has changed more."""
        return replace(self, **{name: getattr(self, name) | new for name, new in changes.items()})


_BYTE, _WORD = ctypes.c_ubyte, ctypes.c_uint32
_SKIP: tuple[str, Fields] = ("", (("bSkipEnable", _BYTE),))
_CLASSES = "NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS"
_GR = "NV0080_CTRL_GR_GET_INFO_V2_PARAMS"
_FB = "NV2080_CTRL_FB_GET_INFO_V2_PARAMS"
_INFO = "NV2080_CTRL_GPU_GET_INFO_V2_PARAMS"

_550 = Branch(
    "nv_555", arrays={_CLASSES: ("classList", 174)},
    gone={"NV0080_CTRL_GPU_GET_VIRTUALIZATION_MODE_PARAMS": ("isGridBuild", "PADDING_0")},
)
_555 = Branch("nv_555")
_560 = _555.then(
    added={
        "NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_V2_PARAMS": (
            "titleBuffer", (("driverBranch", ctypes.c_char * 256),)
        ),
    },
    arrays={
        _FB: ("fbInfoList", 57), "NV2080_CTRL_GPU_GET_ENGINES_V2_PARAMS": ("engineList", 84),
    },
)  # fmt: skip
_570 = _560.then(
    added={
        "NV_CHANNEL_ALLOC_PARAMS": ("", (("tpcConfigID", _WORD), ("PADDING_570", _BYTE * 4))),
    },
    arrays={_GR: ("grInfoList", 58)},
)  # fmt: skip
_575 = _570.then(
    added={
        "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS": _SKIP, "NVA06F_CTRL_GPFIFO_SCHEDULE_PARAMS": _SKIP,
    },
    arrays={_INFO: ("gpuInfoList", 66)},
)
_580 = _575.then(
    added={
        "NV_VASPACE_ALLOCATION_PARAMETERS": ("", (("pasid", _WORD), ("PADDING_580", _BYTE * 4))),
        "NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS": ("", (("gpuFlags", _WORD * 32),)),
    },
    arrays={_CLASSES: ("classList", 200), _FB: ("fbInfoList", 128), _INFO: ("gpuInfoList", 70)},
)
_590 = _580.then(
    arrays={_GR: ("grInfoList", 59)},
    gone={"UVM_FREE_PARAMS": ("length",), "UVM_UNREGISTER_CHANNEL_PARAMS": ("gpuUuid",)},
)

VERSIONS = {
    "535.261.03": Branch("nv_535"), "550.54.14": _550, "555.58.02": _555, "560.35.03": _560,
    "565.77": _560, "570.86.15": _570, "575.64": _575, "580.95.05": _580, "590.48.01": _590,
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
        branch = self.branch
        before, more = branch.added.get(name, ("", ()))
        array, count = branch.arrays.get(name, ("", 0))
        gone = branch.gone.get(name, ())
        if not (more or array or gone):
            return found
        fields: list[tuple[str, Any]] = []
        declared: list[tuple[str, Any]] = list(found._fields_)  # type: ignore[arg-type]
        for field_name, kind in declared:  # no bit fields in these
            if field_name == before:
                fields += more
            if field_name == array:
                kind = kind._type_ * count
            if field_name not in gone:
                fields.append((field_name, kind))
        if not before:
            fields += more
        return type(name, (ctypes.Structure,), {"_pack_": 1, "_fields_": fields})

    def size(self, name: str) -> int:
        """Bytes of a structure."""
        return ctypes.sizeof(self.structure(name))
