"""The structures of the driver branch that the board plays: sizes differ from branch to branch."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

# Driver version: the bindings that its headers gave.
VERSIONS = {"535.261.03": "nv_535", "555.58.02": "nv_555"}
DEFAULT_VERSION = "555.58.02"


class Abi:
    """Structures and numbers by the names of the headers."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.module: Any = importlib.import_module(f"autogen.{VERSIONS[version]}")

    def structure(self, name: str) -> type[ctypes.Structure]:
        """A parameter structure."""
        found: type[ctypes.Structure] | None = getattr(self.module, name, None)
        if found is None:
            found = getattr(self.module, f"struct_{name}")
        return found

    def size(self, name: str) -> int:
        """Bytes of a structure."""
        return ctypes.sizeof(self.structure(name))
