"""This machine's processor: its target, its caches, how many threads to use."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from compiler.target import Target
from drivers.errors import ArgumentMismatch

_CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
THREAD_LIMIT = 1024


def thread_count() -> int:
    """How many threads share a kernel: TINYHW_THREADS, or the processors we may run on."""
    given = os.environ.get("TINYHW_THREADS", "")
    if not given:
        return len(os.sched_getaffinity(0))
    if not given.isdecimal() or not 1 <= int(given) <= THREAD_LIMIT:
        raise ArgumentMismatch(
            f"TINYHW_THREADS is {given!r}, not a number from 1 to {THREAD_LIMIT}.",
            operation="open",
            remedy="Unset it to use every processor.",
        )
    return int(given)


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    text = text.strip()
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


def cache_sizes() -> dict[int, int]:
    """Bytes of each level of data cache that one core sees; empty where Linux does not say."""
    found: dict[int, int] = {}
    for folder in sorted(_CACHE_FOLDER.glob("index*")):
        try:
            if (folder / "type").read_text().strip() in ("Data", "Unified"):
                level = int((folder / "level").read_text())
                found[level] = _size((folder / "size").read_text())
        except (OSError, ValueError):
            continue
    return found


def host_target(compiler: str, threads: int) -> Target:
    """The processor as compilers see it. Asks LLVM for its features, so it imports llvmlite."""
    from compiler.llvm import host_target as detected

    target = detected(compiler, threads)
    caches = cache_sizes()
    return dataclasses.replace(
        target,
        l1_bytes=caches.get(1, target.l1_bytes),
        l2_bytes=caches.get(2, target.l2_bytes),
    )
