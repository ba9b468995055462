"""Pages of the process for tests that let a GPU reach them, and the GPUs of these tests."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from drivers.system import PAGE_BYTES

NODES = {"AMD": "/dev/kfd", "NV": "/dev/nvidiactl"}
EMULATED = {"AMD": "gfx1100*4", "NV": "sm_90*2"}


def boards(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated boards of a vendor, unless EMULATE names them or the machine has them."""
    named = os.environ.get("EMULATE", "").startswith("sm_") == (gpu == "NV")
    if not os.path.exists(NODES[gpu]) and not (named and "EMULATE" in os.environ):
        monkeypatch.setenv("EMULATE", EMULATED[gpu])


def pages(count: int) -> tuple[mmap.mmap, int]:
    """Anonymous memory, and its address."""
    memory = mmap.mmap(-1, count * PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))
