"""Compiled kernels kept on disk between processes.

An entry is one file named by its key: a checksum, a description and the image. It is written
under another name and renamed, so readers see all of it or nothing, whoever writes at the same
time. Whatever is damaged counts as absent; whatever cannot be written is not kept, since a cache
must never be the reason why a kernel does not run.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import struct
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compiler.code_object import CodeObject, Param, Relocation
from compiler.dtype import dtypes
from compiler.errors import InvalidSetting
from compiler.target import Target

SIZE_LIMIT = 1 << 30
"""Bytes that all entries may take; above it the oldest go until three quarters are left."""

_MAGIC = b"tinyhwK1"
_HEADER = struct.Struct("<8s16sI")  # magic, checksum of the rest, bytes of the description
_SUFFIX = ".kernel"
_WRITES_BETWEEN_CLEANUPS = 256
_STALE_S = 3600  # a temporary file older than this has lost its writer
_TOUCH_S = 24 * 3600  # reading an entry renews its age once a day

_writes = itertools.count()


def enabled() -> bool:
    """Whether TINYHW_CACHE allows the cache (1, the default) or forbids it (0)."""
    value = os.environ.get("TINYHW_CACHE", "1")
    if value not in ("0", "1"):
        raise InvalidSetting(
            f"TINYHW_CACHE is {value!r}; it can be 0 (no disk cache) or 1.",
            operation="read TINYHW_CACHE",
        )
    return value == "1"


def directory() -> Path:
    """Where entries lie: `$XDG_CACHE_HOME/tinyhw/kernels`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "tinyhw", "kernels")


# ---- keys ----
@functools.cache
def _sources() -> bytes:
    """A digest of this package's own source: another compiler makes other kernels."""
    digest = hashlib.blake2b(digest_size=16)
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.digest()


def _back_end(target: Target) -> str:
    """The identity of the program or library that makes the machine code."""
    if target.compiler == "clang":
        from compiler import clang

        return clang.identity()
    if target.compiler == "nvrtc":
        from compiler import nvrtc

        return nvrtc.version()
    from compiler import llvm

    if target.compiler == "nvptx":
        from compiler import nvjitlink

        return f"{llvm.version()}, {nvjitlink.version()}"
    return llvm.version()


@functools.cache
def _context(target: Target) -> bytes:
    """Everything but the kernel that its machine code depends on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_sources())
    digest.update(f"{target!r}\0{_back_end(target)}".encode())
    return digest.digest()


def key(kernel_digest: bytes, target: Target) -> str:
    """The name of a kernel's entry: of its graph, the target, the back end and this compiler."""
    return hashlib.blake2b(kernel_digest + _context(target), digest_size=16).hexdigest()


# ---- entries ----
def get(key: str) -> CodeObject | None:
    """The CodeObject kept under `key`; None when there is none that is whole and our own."""
    if not enabled():
        return None
    path = directory() / (key + _SUFFIX)
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read() if status.st_uid == os.getuid() else b""
    except OSError:
        return None
    code = _decode(data)
    if code is None:
        _remove(path)
    elif time.time() - status.st_mtime > _TOUCH_S:
        _touch(path)
    return code


def put(key: str, code: CodeObject) -> None:
    """Keeps `code` under `key` for other processes and later ones, if that is possible."""
    if not enabled():
        return
    folder = directory()
    number = next(_writes)
    temporary = folder / f"{key}.{os.getpid()}.{number}.tmp"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            temporary.write_bytes(_encode(code))
            temporary.replace(folder / (key + _SUFFIX))
        except OSError:
            _remove(temporary)
            return
    except OSError:
        return
    if number % _WRITES_BETWEEN_CLEANUPS == 0:
        clean(folder)


def clean(folder: Path, limit: int = SIZE_LIMIT) -> None:
    """Removes the oldest entries when all take more than `limit` bytes, and abandoned files."""
    now, total, entries = time.time(), 0, []
    try:
        with os.scandir(folder) as files:
            for file in files:
                status = file.stat(follow_symlinks=False)
                if file.name.endswith(_SUFFIX):
                    total += status.st_size
                    entries.append((status.st_mtime, status.st_size, file.path))
                elif file.name.endswith(".tmp") and now - status.st_mtime > _STALE_S:
                    _remove(Path(file.path))
    except OSError:
        return  # another process cleans at the same time
    if total <= limit:
        return
    for _, size, path in sorted(entries):
        _remove(Path(path))
        total -= size
        if total <= limit * 3 // 4:
            break


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # it stays, and is written over or found damaged again


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return  # it ages, that is all


# ---- the format ----
def _encode(code: CodeObject) -> bytes:
    fields = {name: value for name, value in asdict(code).items() if name != "image"}
    for param, given in zip(fields["params"], code.params, strict=True):
        param["dtype"] = given.dtype.name
    fields["relocations"] = [[r.offset, r.addend] for r in code.relocations]
    description = json.dumps(fields, separators=(",", ":")).encode()
    rest = description + code.image
    return _HEADER.pack(_MAGIC, _checksum(rest), len(description)) + rest


def _decode(data: bytes) -> CodeObject | None:
    if len(data) < _HEADER.size:
        return None
    magic, checksum, length = _HEADER.unpack_from(data)
    rest = data[_HEADER.size :]
    if magic != _MAGIC or checksum != _checksum(rest) or length > len(rest):
        return None
    try:
        return _rebuild(json.loads(rest[:length]), rest[length:])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # whole, but written by something else


def _rebuild(fields: dict[str, Any], image: bytes) -> CodeObject:
    params = tuple(
        Param(str(p["kind"]), dtypes.from_name(p["dtype"]), str(p["name"]), bool(p["written"]))
        for p in fields["params"]
    )
    relocations = tuple(Relocation(int(o), int(a)) for o, a in fields["relocations"])
    x, y, z = map(int, fields["grid"])
    threads_x, threads_y, threads_z = map(int, fields["block"])
    if not 0 <= int(fields["entry"]) < len(image):
        raise ValueError("the entry lies outside the image")
    if any(not 0 <= r.offset <= len(image) - 8 for r in relocations):
        raise ValueError("a relocation lies outside the image")
    return CodeObject(
        name=str(fields["name"]),
        arch=str(fields["arch"]),
        image=image,
        entry=int(fields["entry"]),
        params=params,
        grid=(x, y, z),
        block=(threads_x, threads_y, threads_z),
        local_bytes=int(fields["local_bytes"]),
        private_bytes=int(fields["private_bytes"]),
        lane_width=int(fields["lane_width"]),
        relocations=relocations,
        source=str(fields["source"]),
        operations=int(fields["operations"]),
        bytes_moved=int(fields["bytes_moved"]),
    )


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
