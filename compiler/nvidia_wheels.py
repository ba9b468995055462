"""Finds NVIDIA's libraries: in the wheels of this environment, then in the loader's own folders."""

from __future__ import annotations

import ctypes
import glob
import importlib.util
import os
import re
from pathlib import Path

from compiler.errors import ToolMissing

VERSIONS = (13, 12)


def load(stem: str, what: str, remedy: str) -> ctypes.CDLL:
    """The newest library `libSTEM.so.N`. Libraries that it opens by name are loaded before it.

    Raises ToolMissing, which says what for.
    """
    for path in _candidates(stem):
        for inner in glob.glob(os.path.join(os.path.dirname(path), f"lib{stem}-builtins.so.*")):
            if ".alt." not in inner:
                ctypes.CDLL(inner, mode=ctypes.RTLD_GLOBAL)
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise ToolMissing(f"{what} is not installed.", operation=f"load lib{stem}", remedy=remedy)


def _candidates(stem: str) -> list[str]:
    found: list[str] = []
    specification = importlib.util.find_spec("nvidia")
    for folder in (specification.submodule_search_locations or ()) if specification else ():
        found += glob.glob(os.path.join(folder, "*", "lib", f"lib{stem}.so.*[0-9]"))
    found.sort(key=lambda path: [int(n) for n in re.findall(r"\d+", Path(path).name)], reverse=True)
    return [*found, f"lib{stem}.so", *(f"lib{stem}.so.{version}" for version in VERSIONS)]
