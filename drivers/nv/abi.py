"""The structures of NVIDIA's kernel driver, by its version.

The driver compares sizes for equality, and changes structures from branch to branch. A branch's
table is the generated bindings of the nearest one before it (`autogen/nv_535`, `nv_555`) and the
changes since, measured with a C compiler on the headers of github.com/NVIDIA/open-gpu-kernel-
modules at the tags 535.104.05, 550.54.14, 555.58.02, 560.35.03, 565.77, 570.86.15, 575.64,
580.105.08 and 590.48.01. A branch that is not listed is refused.
"""

from __future__ import annotations

import ctypes
import functools
from types import ModuleType
from typing import Any, Final

from autogen import nv_535, nv_555
from drivers.errors import UnknownAbi

BRANCHES: Final = (535, 550, 555, 560, 565, 570, 575, 580, 590)
_BINDINGS: Final = ((550, nv_555), (535, nv_535))

_Fields = list[tuple[str, Any]]
_TAIL = "added"

# (first branch, structure, bytes that it has since then)
_GROWN: Final = (
    (570, "NV_CHANNEL_ALLOC_PARAMS", 368),
    (575, "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS", 3),
    (580, "NV_VASPACE_ALLOCATION_PARAMETERS", 56),
)
# (first branch, structure, its fields since then)
_CHANGED: Final[tuple[tuple[int, str, _Fields], ...]] = (
    (590, "UVM_FREE_PARAMS", [
        ("base", ctypes.c_uint64), ("rmStatus", ctypes.c_uint32), (_TAIL, ctypes.c_uint32),
    ]),
    (590, "UVM_UNREGISTER_CHANNEL_PARAMS", [
        ("hClient", ctypes.c_uint32), ("hChannel", ctypes.c_uint32),
        ("rmStatus", ctypes.c_uint32),
    ]),
)  # fmt: skip


class Abi:
    """The structures and numbers of one version."""

    def __init__(self, version: str, device: str) -> None:
        major = version.partition(".")[0]
        if not major.isdecimal() or int(major) not in BRANCHES:
            known = ", ".join(f"{branch}" for branch in BRANCHES)
            raise UnknownAbi(
                f"NVIDIA's kernel driver has version {version or 'unknown'}; this driver knows the "
                f"branches {known}.",
                device=device, operation="open",
                remedy="Install a driver of one of these branches.",
            )
        self.version, self.branch = version, int(major)
        self.bindings = next(module for since, module in _BINDINGS if self.branch >= since)

    def number(self, name: str) -> int:
        """A constant of the headers: a class, a command, a flag."""
        return int(getattr(self.bindings, name))

    def structure(self, name: str) -> type[ctypes.Structure]:
        """A structure by the name that it has in the headers."""
        return _structure(self.bindings, self.branch, name)

    def make(self, name: str, **values: Any) -> ctypes.Structure:
        """A structure with these values; what this version's lacks is left out."""
        kind = self.structure(name)
        known = {each for base in kind.__mro__ for each, *_ in vars(base).get("_fields_", ())}
        return kind(**{each: value for each, value in values.items() if each in known})


@functools.cache
def _structure(bindings: ModuleType, branch: int, name: str) -> type[ctypes.Structure]:
    base: type[ctypes.Structure] = getattr(bindings, f"struct_{name}", None) or getattr(
        bindings, name
    )
    for since, changed, fields in _CHANGED:
        if changed == name and branch >= since:
            return type(name, (ctypes.Structure,), {"_fields_": fields})
    for since, grown, size in _GROWN:
        if grown == name and branch >= since:
            more = size - ctypes.sizeof(base)
            content = {"_pack_": 1, "_layout_": "ms", "_fields_": [(_TAIL, ctypes.c_ubyte * more)]}
            return type(name, (base,), content)
    return base


def flags(bindings: ModuleType, prefix: str, **values: str) -> int:
    """A word of flags: `flags(nv, "NVOS32_ATTR", LOCATION="VIDMEM")`."""
    word = 0
    for field, value in values.items():
        name = f"{prefix}_{field}"
        shift, width = bindings.FIELDS[name]
        number = int(getattr(bindings, f"{name}_{value}"))
        if number >> width:
            raise ValueError(f"{name}_{value} is {number}, more than {width} bits.")
        word |= number << shift
    return word
